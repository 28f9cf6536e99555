//! Rules that look at the lines of a file: how it opens, how long it is, which paths it names.

use super::{Finding, Rule};

/// Every Rust file begins with `//!`, and says there what it is.
pub(super) fn opening(file: &str, text: &str) -> Option<Finding> {
    let opens =
        text.lines().next().is_some_and(|line| line.strip_prefix("//!").is_some_and(|rest| rest.len() > 1));
    (!opens)
        .then(|| Finding::new(file, 1, Rule::Opening, "begin with `//!` and a sentence that says what it is"))
}

/// A file is read in an hour.
pub(super) fn length(file: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}; split it where it has two subjects");
        Finding::new(file, FILE_LINES_MAX + 1, Rule::FileLength, message)
    })
}

/// Nothing in the tree names a folder that exists on the writer's machine only.
pub(super) fn machine_paths(file: &str, text: &str) -> Vec<Finding> {
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let path = machine_path(line)?;
            Some(Finding::new(
                file,
                index + 1,
                Rule::MachinePath,
                format!("`{path}` is a path of one machine"),
            ))
        })
        .collect()
}

fn machine_path(line: &str) -> Option<&str> {
    line.match_indices('/').find_map(|(at, _)| {
        let begins = line[..at].chars().next_back().is_none_or(|before| BEFORE_A_PATH.contains(before));
        let rest = &line[at + 1..];
        let name = rest.split('/').next().filter(|name| name.len() < rest.len())?;
        (begins && MACHINE_FOLDERS.contains(&name)).then(|| &line[at..at + name.len() + 2])
    })
}

const FILE_LINES_MAX: usize = 1000;
const BEFORE_A_PATH: &str = " \t\"'=(:`<,[";
const MACHINE_FOLDERS: [&str; 6] = ["home", "root", "work", "tmp", "Users", "workspace"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_say_what_it_is_is_found() {
        assert!(opening("a.rs", "use std::fs;\n").is_some());
        assert!(opening("a.rs", "//!\n").is_some());
        assert!(opening("a.rs", "").is_some());
        assert!(opening("a.rs", "/// An item.\nfn a() {}\n").is_some());
        assert!(opening("a.rs", "//! A page.\n").is_none());
    }

    #[test]
    fn the_thousand_and_first_line_is_found() {
        assert!(length("a.rs", &"\n".repeat(1000)).is_none());
        assert_eq!(length("a.rs", &"\n".repeat(1001)).unwrap().line, 1001);
    }

    #[test]
    fn a_path_of_one_machine_is_found_wherever_it_begins() {
        for folder in MACHINE_FOLDERS {
            for before in ["", "open \"", "x=", "(", "`"] {
                let line = format!("first\n{before}/{folder}/a");
                let findings = machine_paths("a.md", &line);
                assert_eq!(findings.len(), 1, "{line}");
                assert_eq!(findings[0].line, 2);
            }
        }
    }

    #[test]
    fn a_path_that_every_machine_has_passes() {
        for line in
            ["mount -t tmpfs t /tmp", "$DIR/root/lib", "/dev/root", "/dev/shm/x", "a/work/b", "HOME=/root x"]
        {
            assert!(machine_paths("a.sh", line).is_empty(), "{line}");
        }
    }
}
