//! Rules that look at tokens: what may not be written, or not without a reason, or in named files only.

use std::collections::BTreeMap;

use super::rust::Source;
use super::{Finding, Rule};

/// The files that may hold `unsafe`: one a line, with the reason behind `#`.
#[derive(Debug)]
pub(super) struct UnsafeFiles {
    /// File name to the line of the list.
    files: BTreeMap<String, usize>,
}

impl UnsafeFiles {
    pub(super) fn parse(list: &str) -> UnsafeFiles {
        let rows = list.lines().enumerate().filter_map(|(index, line)| {
            let name = line.split('#').next().unwrap_or_default().trim();
            (!name.is_empty()).then(|| (name.to_owned(), index + 1))
        });
        UnsafeFiles { files: rows.collect() }
    }

    /// A finding for each listed file that is not among `with_unsafe`: the list says what is, not what was.
    pub(super) fn stale(&self, list: &str, with_unsafe: &[String]) -> Vec<Finding> {
        let unused = self.files.iter().filter(|(name, _)| !with_unsafe.contains(name));
        let message = |name: &str| format!("`{name}` has no `unsafe` (any more): take it off the list");
        unused.map(|(name, line)| Finding::new(list, *line, Rule::Unsafe, message(name))).collect()
    }
}

/// Whether the file writes `unsafe` at all.
pub(super) fn has_unsafe(source: &Source<'_>) -> bool {
    source.tokens.iter().any(|token| token.text == "unsafe")
}

/// All findings of these rules in one file.
pub(super) fn check(source: &Source<'_>, unsafe_files: &UnsafeFiles) -> Vec<Finding> {
    // One finding a file: the whole file is off the list, not one line of it.
    let mut unsafe_is_known = unsafe_files.files.contains_key(source.file);
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let finding = match token.text.as_str() {
            "unsafe" if !unsafe_is_known => {
                unsafe_is_known = true;
                Some((Rule::Unsafe, "not in one of the files of tools/xtask/unsafe-files.txt"))
            }
            "todo" | "unimplemented" if source.reads(at + 1, &["!"]) => {
                Some((Rule::Unfinished, "finish it, or leave it out"))
            }
            "Mutex" | "RwLock" if source.file.starts_with(DATA_PATH) && !source.is_test(token.line) => {
                Some((Rule::Lock, "a shard takes no locks: what crosses cores is mail"))
            }
            "#" if silences_without_reason(source, at) => {
                Some((Rule::Silenced, "say why: `reason = \"…\"`, or a comment on the line or above it"))
            }
            _ if is_unbounded(source, at) && !source.is_test(token.line) => {
                Some((Rule::Unbounded, "everything that queues has a bound"))
            }
            _ => None,
        };
        findings.extend(finding.map(|(rule, message)| source.finding(token.line, rule, message)));
    }
    findings
}

/// crossbeam's and tokio's unbounded kinds by their names, and std's `mpsc::channel` (tokio's takes a bound).
fn is_unbounded(source: &Source<'_>, at: usize) -> bool {
    let token = &source.tokens[at];
    if UNBOUNDED.contains(&token.text.as_str()) {
        return true;
    }
    if token.text != "mpsc" || !source.reads(at + 1, &[":", ":"]) {
        return false;
    }
    let of_std = at >= 6 && source.reads(at - 6, &["std", ":", ":", "sync", ":", ":"]);
    if source.reads(at + 3, &["channel"]) {
        return of_std || source.reads(at + 4, &["(", ")"]) || source.reads(at + 4, &[":", ":", "<"]);
    }
    let imported = source.tokens[at + 3..].iter().take_while(|token| token.text != "}");
    of_std && source.reads(at + 3, &["{"]) && imported.into_iter().any(|token| token.text == "channel")
}

/// Whether an attribute begins here that switches a lint or a test off and gives no reason.
fn silences_without_reason(source: &Source<'_>, at: usize) -> bool {
    let open = if source.reads(at + 1, &["!"]) { at + 2 } else { at + 1 };
    if !source.reads(open, &["["]) {
        return false;
    }
    let mut depth = 0_usize;
    let inside = source.tokens[open..].iter().take_while(|token| {
        match token.text.as_str() {
            "[" => depth += 1,
            "]" => depth -= 1,
            _ => {}
        }
        depth > 0
    });
    let words: Vec<&str> = inside.map(|token| token.text.as_str()).skip(1).collect();
    let silencing = match words.first() {
        Some(&"cfg_attr") => words.iter().any(|word| SILENCING.contains(word)),
        Some(word) => SILENCING.contains(word),
        None => false,
    };
    let last = source.tokens[open + words.len() + 1].line;
    let has_reason = words.windows(2).any(|pair| pair == ["reason", "="] || pair == ["ignore", "="]);
    silencing && !has_reason && !has_comment(source, source.tokens[at].line, last)
}

/// Whether a comment stands on one of the lines `first..=last` or above them. Documentation is not a reason.
fn has_comment(source: &Source<'_>, first: usize, last: usize) -> bool {
    let above = first.checked_sub(2).and_then(|index| source.lines.get(index)).is_some_and(|line| {
        let line = line.trim_start();
        line.starts_with("// ") && line.len() > 3
    });
    above || source.lines[first - 1..last].iter().any(|line| line.contains("// "))
}

const DATA_PATH: &str = "engine/shard/src/";
const UNBOUNDED: [&str; 5] =
    ["unbounded", "unbounded_channel", "UnboundedSender", "UnboundedReceiver", "SegQueue"];
const SILENCING: [&str; 3] = ["allow", "expect", "ignore"];

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(file: &str, text: &str) -> Vec<(usize, Rule)> {
        let list = UnsafeFiles::parse("# why\nengine/ring/src/queue.rs # maps the rings\n");
        let source = Source::parse(file, text).unwrap();
        check(&source, &list).into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    fn found(text: &str) -> Vec<(usize, Rule)> {
        found_in("a.rs", text)
    }

    #[test]
    fn unsafe_is_found_outside_the_listed_files_only() {
        for text in
            ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "unsafe impl Send for A {}", "m! { unsafe {} }"]
        {
            assert_eq!(found(text), [(1, Rule::Unsafe)], "{text}");
            assert!(found_in("engine/ring/src/queue.rs", text).is_empty(), "{text}");
        }
        assert!(found("// unsafe\n#![deny(unsafe_code)]\nconst A: &str = \"unsafe\";").is_empty());
    }

    #[test]
    fn a_listed_file_without_unsafe_is_stale() {
        let list = UnsafeFiles::parse("a.rs\n# b.rs\nc.rs # why\n");
        let stale = list.stale("list.txt", &["a.rs".to_owned()]);
        assert_eq!(stale.len(), 1);
        assert_eq!((stale[0].file.as_str(), stale[0].line), ("list.txt", 3));
    }

    #[test]
    fn unbounded_channels_are_found_by_every_name() {
        for text in [
            "fn f() { let (a, b) = crossbeam_channel::unbounded(); }",
            "use crossbeam_channel::unbounded;",
            "fn f() { let (a, b) = tokio::sync::mpsc::unbounded_channel(); }",
            "fn f() { let (a, b) = std::sync::mpsc::channel(); }",
            "fn f() { let (a, b) = mpsc::channel::<u8>(); }",
            "fn f() { let (a, b) = mpsc::channel(); }",
            "use std::sync::mpsc::channel;",
            "use std::sync::mpsc::{Sender, channel};",
            "use crossbeam_queue::SegQueue;",
        ] {
            assert_eq!(found(text), [(1, Rule::Unbounded)], "{text}");
        }
    }

    #[test]
    fn bounded_channels_pass() {
        for text in [
            "use std::sync::mpsc::sync_channel;",
            "fn f() { let (a, b) = crossbeam_channel::bounded(4); }",
            "fn f() { let (a, b) = tokio::sync::mpsc::channel(4); }",
            "use std::sync::mpsc::{Receiver, SyncSender};",
            "#[cfg(test)]\nmod tests { use std::sync::mpsc::channel; }",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn unfinished_code_is_found() {
        assert_eq!(found("fn f() {\n    todo!()\n}"), [(2, Rule::Unfinished)]);
        assert_eq!(found("fn f() { unimplemented!(\"later\") }"), [(1, Rule::Unfinished)]);
        assert!(found("fn todo() { todo(); } // todo!()").is_empty());
    }

    #[test]
    fn a_lint_or_a_test_is_not_switched_off_without_a_reason() {
        for text in [
            "#[allow(dead_code)]\nfn f() {}",
            "#![allow(dead_code)]",
            "#[expect(dead_code)]\nfn f() {}",
            "#[test]\n#[ignore]\nfn f() {}",
            "#[cfg_attr(test, allow(dead_code))]\nfn f() {}",
            "/// Words.\n#[allow(dead_code)]\nfn f() {}",
        ] {
            assert_eq!(
                found(text).iter().map(|(_, rule)| *rule).collect::<Vec<_>>(),
                [Rule::Silenced],
                "{text}"
            );
        }
    }

    #[test]
    fn a_reason_beside_it_suffices() {
        for text in [
            "#[allow(dead_code)] // read by the debugger\nfn f() {}",
            "// Read by the debugger.\n#[allow(dead_code)]\nfn f() {}",
            "#[allow(dead_code, reason = \"read by the debugger\")]\nfn f() {}",
            "#[test]\n#[ignore = \"takes an hour; nightly runs it\"]\nfn f() {}",
            "#[derive(Debug)]\nstruct A;",
            "#![deny(unsafe_code)]",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_lock_on_a_shard_is_found_and_elsewhere_it_is_not() {
        let text = "use std::sync::{Mutex, RwLock};";
        assert_eq!(found_in("engine/shard/src/turn.rs", text).len(), 2);
        assert!(found_in("engine/control/src/admin.rs", text).is_empty());
        assert!(
            found_in("engine/shard/src/turn.rs", "#[cfg(test)]\nmod tests { use std::sync::Mutex; }")
                .is_empty()
        );
    }
}
