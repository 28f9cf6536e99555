//! The fuzzers of `engine/fuzz`, for a while each, two at a time. What they keep in mind begins with the corpus in the tree;
//! `portico-fuzz --keep` adds to it.

use std::process::Command;
use std::time::Duration;

use crate::ci;
use crate::lab::{Result, process};
use crate::tree::Tree;

/// `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
}

/// What each gets as a stage of ci.
pub(crate) const SECONDS: u64 = 30;
/// The fuzzers, as `portico-fuzz` names them.
const FUZZERS: [&str; 5] = ["wire", "text", "login", "session", "cdb"];

/// The command line's way in; `true` if nothing was found.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    let (passed, failed) = run(&tree, arguments.seconds, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs them all; how many found nothing, and how many something.
pub(crate) fn run(tree: &Tree, seconds: u64, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    ci::build_package(tree, "portico-fuzz")?;
    let mut fuzz = Command::new(tree.target.join("release/portico-fuzz"));
    fuzz.args(["--seconds", &seconds.to_string(), "--jobs", "2", "--corpus"]);
    fuzz.arg(tree.root.join("engine/fuzz/corpus"));
    fuzz.arg("--failures").arg(tree.target.join("fuzz-failures"));
    let limit = Duration::from_secs(seconds * FUZZERS.len() as u64) + MARGIN;
    let finished = process::run(&mut fuzz, limit)?;
    finished.output.lines().for_each(&mut *say);
    let found_nothing = |name: &&&str| {
        let is_its = |line: &&str| line.starts_with(**name) && line.ends_with("nothing found");
        finished.output.lines().any(|line| is_its(&line))
    };
    let passed = FUZZERS.iter().filter(found_nothing).count();
    let passed = if finished.succeeded() { passed } else { passed.min(FUZZERS.len() - 1) };
    let count = |number| u32::try_from(number).expect("few");
    Ok((count(passed), count(FUZZERS.len() - passed)))
}

/// For the corpus, and for making a failure small.
const MARGIN: Duration = Duration::from_secs(120);
