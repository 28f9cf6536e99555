//! Instructions of a read and a write through a shard, counted by callgrind, which no other load of the machine changes.
//!
//! `portico-turns` (package portico-bench) puts commands through a shard in a world without a kernel; what is counted is the
//! shard's turn with all that it calls. It is run with two lengths, and the difference of the counts, divided by that of
//! the lengths, is one command's. The agreed counts stand in `bench/instructions.tsv`; one that has grown by more than 5 %
//! is a failure, one that has shrunk by as much is to be recorded anew.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::ci;
use crate::lab::{Context, Failure, Result, has_program, process};
use crate::tree::Tree;

/// `cargo xtask instructions`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Keep what was counted as what is agreed on from now on
    #[arg(long)]
    record: bool,
}

/// What is counted: what `portico-turns` calls it, and the commands of one round.
const CASES: [(&str, u64); 6] = [
    ("read-null", 1),
    ("read64-null", 64),
    ("read-ram", 1),
    ("read64-ram", 64),
    ("write-ram", 1),
    ("write64-ram", 64),
];

/// The command line's way in; `true` if nothing has grown.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    if !has_program("valgrind") {
        return Err(Failure::new("valgrind is not installed (Debian package valgrind)"));
    }
    if arguments.record {
        let counts = count(&tree)?;
        let path = tree.root.join(AGREED);
        fs::write(&path, table(&counts)).context(path.display())?;
        print!("{}", table(&counts));
        return Ok(true);
    }
    let (passed, failed) = run(&tree, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Counts and compares; how many cases passed and failed.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let path = tree.root.join(AGREED);
    let agreed = fs::read_to_string(&path).context(path.display())?;
    let (mut passed, mut failed) = (0, 0);
    for (name, now) in count(tree)? {
        let then = agreed_count(&agreed, name)
            .ok_or_else(|| Failure::new(format!("{AGREED} has no row for {name}")))?;
        let (is_right, remark) = judge(now, then);
        *(if is_right { &mut passed } else { &mut failed }) += 1;
        let word = if is_right { "ok    " } else { "FAILED" };
        say(&format!("{word} {name:12} {now:6} instructions a command, {then} agreed{remark}"));
    }
    Ok((passed, failed))
}

/// Whether a count may be so, and what to say about it.
fn judge(now: u64, then: u64) -> (bool, &'static str) {
    if now * 100 > then * (100 + TOLERANCE_PERCENT) {
        (false, "; if that is meant, `cargo xtask instructions --record`")
    } else if now * 100 < then * (100 - TOLERANCE_PERCENT) {
        (true, "; better by far: `cargo xtask instructions --record` keeps it so")
    } else {
        (true, "")
    }
}

fn count(tree: &Tree) -> Result<Vec<(&'static str, u64)>> {
    let words = ["--locked", "--release", "--quiet", "--package", "portico-bench", "--bin", "portico-turns"];
    let mut build = ci::cargo(tree, "build", &words);
    // Counts are comparable where the profile is the tree's own.
    for setting in ["LTO", "CODEGEN_UNITS", "DEBUG", "OPT_LEVEL", "INCREMENTAL"] {
        build.env_remove(format!("CARGO_PROFILE_RELEASE_{setting}"));
    }
    process::run(&mut build, BUILD_LIMIT)?.expect_success("cargo build")?;
    let program = tree.target.join("release/portico-turns");
    let mut counts = Vec::new();
    for (name, commands) in CASES {
        let (short, long) = (collected(&program, name, ROUNDS)?, collected(&program, name, 2 * ROUNDS)?);
        let difference = long.checked_sub(short).ok_or_else(|| Failure::new("more rounds took fewer"))?;
        counts.push((name, difference / ROUNDS / commands));
    }
    Ok(counts)
}

/// Instructions inside of the shard's turns, of so many rounds and the warm-up before.
fn collected(program: &Path, name: &str, rounds: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=*::World::turn").arg(program);
    command.args([name, "--count", &rounds.to_string()]);
    let output = process::run(&mut command, RUN_LIMIT)?.expect_success("valgrind")?;
    parse(&output)
        .filter(|count| *count > 0)
        .ok_or_else(|| Failure::new(format!("callgrind counted nothing:\n{output}")))
}

/// `==1== Collected : 123`.
fn parse(output: &str) -> Option<u64> {
    let line = output.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn table(counts: &[(&str, u64)]) -> String {
    let rows = counts.iter().map(|(name, count)| format!("{name}\t{count}\n"));
    let head = "# Instructions of one command of 4 KiB through the turns of a shard, a release build under callgrind on x86-64.\n\
        # `cargo xtask instructions` counts them, `--record` writes this file. More than 5 % above fails in CI.\n";
    std::iter::once(head.to_owned()).chain(rows).collect()
}

fn agreed_count(agreed: &str, name: &str) -> Option<u64> {
    let line = agreed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
    line.trim().parse().ok()
}

const AGREED: &str = "bench/instructions.tsv";
const TOLERANCE_PERCENT: u64 = 5;
const ROUNDS: u64 = 128;
const BUILD_LIMIT: Duration = Duration::from_secs(900);
const RUN_LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_again() {
        let text = table(&[("read-ram", 900), ("read64-ram", 500)]);
        assert_eq!(agreed_count(&text, "read-ram"), Some(900));
        assert_eq!(agreed_count(&text, "read64-ram"), Some(500));
        assert_eq!(agreed_count(&text, "read"), None);
    }

    #[test]
    fn more_than_five_percent_is_too_much() {
        assert!(judge(1050, 1000).0);
        assert!(!judge(1051, 1000).0);
        assert!(judge(949, 1000).0 && judge(949, 1000).1.contains("--record"));
        assert_eq!(judge(950, 1000), (true, ""));
    }

    #[test]
    fn callgrinds_count_is_found() {
        assert_eq!(parse("==7== Events    : Ir\n==7== Collected : 3252874\n==7==\n"), Some(3_252_874));
        assert_eq!(parse("==7== nothing\n"), None);
    }
}
