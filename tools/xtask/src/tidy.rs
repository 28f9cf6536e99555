//! The rules of the house that a machine can check. Each breach is a line `file:line: rule: what to do`.
//!
//! Rules about text (`text`) look at lines, rules about code look at tokens (`tokens`) and at functions
//! (`functions`), so that a comment or a string never trips them; `edges` compares what the crates import with
//! what they may. It only reads.

mod edges;
mod functions;
mod rust;
mod text;
mod tokens;

use std::fmt;
use std::fs;
use std::path::Path;

use crate::lab::{Context, Result};
use crate::tree::{self, Tree};

/// One breach of one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    rule: Rule,
    message: String,
}

/// The rules, by the names that are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A crate imports what its row of the table does not name.
    Edge,
    /// `unsafe` outside the listed files, or a listed file without it.
    Unsafe,
    /// A channel or queue without a bound.
    Unbounded,
    /// A lock on the data path.
    Lock,
    /// `todo!` or `unimplemented!`.
    Unfinished,
    /// `#[allow]`, `#[expect]` or `#[ignore]` without a reason beside it.
    Silenced,
    /// A file that does not open by saying what it is.
    Opening,
    /// A file that has outgrown the house.
    FileLength,
    /// A function that does not fit on a screen.
    FunctionLength,
    /// A path that exists on one machine only.
    MachinePath,
    /// A Rust file that does not parse.
    Syntax,
}

impl Finding {
    fn new(file: &str, line: usize, rule: Rule, message: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}: {}", self.file, self.line, self.rule.name(), self.message)
    }
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Rule::Edge => "forbidden edge",
            Rule::Unsafe => "unsafe",
            Rule::Unbounded => "unbounded",
            Rule::Lock => "lock",
            Rule::Unfinished => "unfinished",
            Rule::Silenced => "silenced",
            Rule::Opening => "opening",
            Rule::FileLength => "file length",
            Rule::FunctionLength => "function length",
            Rule::MachinePath => "machine path",
            Rule::Syntax => "syntax",
        }
    }
}

/// `cargo xtask tidy`; `true` if nothing was found.
pub(crate) fn command() -> Result<bool> {
    let tree = Tree::find()?;
    let findings = check(&tree)?;
    for finding in &findings {
        println!("{finding}");
    }
    println!(
        "tidy: {}",
        if findings.is_empty() { "ok".to_owned() } else { format!("{} found", findings.len()) }
    );
    Ok(findings.is_empty())
}

/// All findings of the whole tree, by file and line.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let names = tree::files(&tree.root)?;
    let list = fs::read_to_string(tree.root.join(UNSAFE_FILES)).context(UNSAFE_FILES)?;
    let mut findings = check_files(&tree.root, &names, &tokens::UnsafeFiles::parse(&list))?;
    findings.extend(edges::check(&tree.root)?);
    findings.sort();
    Ok(findings)
}

fn check_files(root: &Path, names: &[String], unsafe_files: &tokens::UnsafeFiles) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut with_unsafe = Vec::new();
    for name in names {
        // What is not text (an image, a capture) has no lines to check.
        let Ok(text) = String::from_utf8(fs::read(root.join(name)).context(name)?) else { continue };
        findings.extend(text::machine_paths(name, &text));
        if !name.ends_with(".rs") {
            continue;
        }
        findings.extend(text::opening(name, &text));
        findings.extend(text::length(name, &text));
        match rust::Source::parse(name, &text) {
            Ok(source) => {
                findings.extend(tokens::check(&source, unsafe_files));
                findings.extend(functions::check(&source));
                if tokens::has_unsafe(&source) {
                    with_unsafe.push(name.clone());
                }
            }
            Err(finding) => findings.push(finding),
        }
    }
    findings.extend(unsafe_files.stale(UNSAFE_FILES, &with_unsafe));
    Ok(findings)
}

const UNSAFE_FILES: &str = "tools/xtask/unsafe-files.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_tree_gives_each_of_its_faults_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let good = "//! What it is.\nfn main() {}\n";
        let bad = "fn main() {\n    todo!()\n}\n";
        fs::write(folder.path().join("good.rs"), good).unwrap();
        fs::write(folder.path().join("bad.rs"), bad).unwrap();
        fs::write(folder.path().join("image.bin"), [0xff, 0xfe, 0x00]).unwrap();
        let names = ["bad.rs", "good.rs", "image.bin"].map(String::from);
        let findings = check_files(folder.path(), &names, &tokens::UnsafeFiles::parse("")).unwrap();
        let lines: Vec<String> = findings.iter().map(|finding| finding.to_string()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("bad.rs:1: opening: "), "{lines:?}");
        assert!(lines[1].starts_with("bad.rs:2: unfinished: "), "{lines:?}");
    }

    #[test]
    fn this_tree_lists_its_own_files() {
        let tree = Tree::find().unwrap();
        assert!(tree::files(&tree.root).unwrap().contains(&"tools/xtask/src/tidy.rs".to_owned()));
    }
}
