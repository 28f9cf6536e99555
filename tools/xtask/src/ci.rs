//! `cargo xtask ci`: the one command that runs everything, from a clean checkout on a fresh Debian 12 with Rust and
//! a C compiler.
//!
//! It is a list of stages (`stages`), each with its name, its time limit and what it needs. Each stage's output goes
//! to a log, which is shown when the stage fails. Without root, or without a peer, what needs it is skipped and
//! counted as skipped; with CI=true a missing peer is a failure. The last line says how many tests passed, failed and
//! were skipped.

mod count;
mod packages;
mod stages;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::capture;
use crate::lab::process::{self, End};
use crate::lab::{Context, Failure, Result, halt, wiretap};
use crate::tree::Tree;
use stages::{Reader, STAGES, Stage};

/// `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this stage; may be given several times
    #[arg(long)]
    only: Vec<String>,
    /// List the stages and end
    #[arg(long)]
    list: bool,
}

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    /// One test, which passed or did not.
    fn one(passed: bool) -> Tally {
        Tally { passed: u32::from(passed), failed: u32::from(!passed), skipped: 0 }
    }

    fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Where a stage works: the tree and its log.
pub(crate) struct Site {
    pub(crate) tree: Tree,
    log: File,
    log_path: PathBuf,
}

impl Site {
    /// Writes a line to the log.
    pub(crate) fn say(&mut self, line: &str) {
        // A full disk shows in the stage itself.
        let _ = writeln!(self.log, "{line}");
    }

    /// Runs a command into the log; `Err` if it could not be run to its end.
    fn run(&mut self, command: &mut Command) -> Result<bool> {
        let name = command.get_program().to_string_lossy().into_owned();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        self.say(&format!("$ {name} {}", words.join(" ")));
        // The stage's own limit ends it.
        let end = process::run_into(command, Duration::MAX, &self.log)?;
        Ok(end == End::Exited(0))
    }

    /// `cargo TASK WORDS` in the tree.
    fn cargo(&self, task: &str, words: &[&str]) -> Command {
        cargo(&self.tree, task, words)
    }

    /// What the log holds so far.
    fn logged(&self) -> Result<String> {
        let bytes = fs::read(&self.log_path).context(self.log_path.display())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The command line's way in; `true` if nothing failed.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for stage in STAGES {
            println!("{:20} at most {:4} s  {}", stage.name, stage.limit.as_secs(), stage.what);
        }
        return Ok(true);
    }
    let known: BTreeSet<&str> = STAGES.iter().map(|stage| stage.name).collect();
    if let Some(unknown) = arguments.only.iter().find(|name| !known.contains(name.as_str())) {
        return Err(Failure::new(format!("no stage {unknown:?}; `cargo xtask ci --list` names them")));
    }
    let tree = Tree::find()?;
    let mut total = Tally::default();
    let chosen =
        |stage: &&Stage| arguments.only.is_empty() || arguments.only.iter().any(|name| name == stage.name);
    let stopped = STAGES.iter().filter(chosen).try_for_each(|stage| {
        total.add(run_stage(&tree, stage)?);
        if halt::stopped() { Err(Failure::new("stopped by a signal")) } else { Ok(()) }
    });
    if let Err(failure) = stopped {
        println!("{failure}");
        total.failed += 1;
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(total.failed == 0)
}

/// `cargo TASK WORDS` in the tree.
pub(crate) fn cargo(tree: &Tree, task: &str, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(task).args(words).current_dir(&tree.root).env("CARGO_TERM_COLOR", "never");
    command
}

/// Builds the gateway as users run it, so that no harness tests an old one.
pub(crate) fn build_release(tree: &Tree) -> Result<()> {
    let mut command =
        cargo(tree, "build", &["--locked", "--release", "--quiet", "--package", "portico-daemon"]);
    process::run(&mut command, BUILD_LIMIT)?.expect_success("cargo build --release").map(drop)
}

/// Builds the load generator.
pub(crate) fn build_load(tree: &Tree) -> Result<()> {
    build_package(tree, "portico-load")
}

/// Builds the programs of a package.
pub(crate) fn build_package(tree: &Tree, package: &str) -> Result<()> {
    let words = ["--locked", "--release", "--quiet", "--package", package];
    let mut command = cargo(tree, "build", &words);
    process::run(&mut command, BUILD_LIMIT)?.expect_success("cargo build --package").map(drop)
}

/// Builds the gateway with a feature, and keeps the program apart from the one that users run.
pub(crate) fn build_with_feature(tree: &Tree, feature: &str) -> Result<PathBuf> {
    let words = ["--locked", "--release", "--quiet", "--package", "portico-daemon", "--features", feature];
    let mut command = cargo(tree, "build", &words);
    process::run(&mut command, BUILD_LIMIT)?.expect_success("cargo build --release --features")?;
    let kept = tree.keep(feature)?.join("porticod");
    fs::copy(tree.target.join("release/porticod"), &kept).context(kept.display())?;
    // The build folder holds the plain one again.
    build_release(tree)?;
    Ok(kept)
}

/// Runs one stage and prints its line; `Err` only if it could not even have a log.
fn run_stage(tree: &Tree, stage: &Stage) -> Result<Tally> {
    if let Some(obstacle) = stage.obstacle() {
        println!("SKIPPED {}: {obstacle}", stage.name);
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    print!("{:20} ", stage.name);
    io::stdout().flush()?;
    let path = tree.keep("ci")?.join(format!("{}.log", stage.name));
    let log = File::create(&path).context(path.display())?;
    let start = Instant::now();
    let mut site = Site { tree: tree.clone(), log, log_path: path.clone() };
    halt::after(stage.limit);
    let outcome = missing_peer(stage).map_or_else(|| run_and_read(stage, &mut site), Err);
    let mut tally = *outcome.as_ref().unwrap_or(&Tally::default());
    if let Err(failure) = &outcome {
        site.say(&failure.to_string());
        tally.failed += 1;
    }
    let word = if tally.failed == 0 { "ok" } else { "FAILED" };
    let Tally { passed, failed, skipped } = tally;
    let seconds = start.elapsed().as_secs_f64();
    println!("{word:6} {passed:4} passed, {failed} failed, {skipped} skipped  {seconds:6.1} s");
    if tally.failed > 0 {
        show(&path)?;
    }
    Ok(tally)
}

/// Runs a stage while somebody listens, and then has the reader read what was said.
fn run_and_read(stage: &Stage, site: &mut Site) -> Result<Tally> {
    let (whom, limit_mib) = match stage.reader() {
        Reader::None => return (stage.run)(site),
        Reader::Missing(why) => {
            site.say(&format!("SKIPPED a reader of what is said: {why}"));
            let mut tally = (stage.run)(site)?;
            tally.skipped += 1;
            return Ok(tally);
        }
        Reader::Of(whom, limit_mib) => (whom, limit_mib),
    };
    wiretap::order(limit_mib)?;
    let outcome = (stage.run)(site);
    let captures = wiretap::collect().ok_or_else(|| Failure::new("nobody listened"))?;
    let mut tally = outcome?;
    let start = Instant::now();
    let read = capture::judge_all(&captures, whom);
    match &read {
        Ok(said) => site.say(&format!("ok     tshark: {said}, in {:.1} s", start.elapsed().as_secs_f64())),
        Err(failure) => site.say(&format!("FAILED tshark: {failure}")),
    }
    tally.add(Tally::one(read.is_ok()));
    Ok(tally)
}

/// With CI=true a peer that is not there is a failure: nobody would read of what was left out.
fn missing_peer(stage: &Stage) -> Option<Failure> {
    let missing = stage.missing_program()?;
    Some(Failure::new(format!("CI=true, and {missing}")))
}

/// The end of a failed stage's log.
fn show(path: &PathBuf) -> Result<()> {
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    println!("---- {} (from line {} on)", path.display(), from + 1);
    for line in &lines[from..] {
        println!("| {line}");
    }
    println!("----");
    Ok(())
}

const LOG_LINES_SHOWN: usize = 100;
const BUILD_LIMIT: Duration = Duration::from_secs(900);
