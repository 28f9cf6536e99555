//! The conformance run: libiscsi's `iscsi-test-cu` 1.19, each of its 230 tests in a process of its own with a time
//! limit, against one logical unit, with a look after each test whether the target still answers.
//!
//! One after the other, not several at once: tests of one unit meet in reservations, resets and unit attentions, and
//! the whole run takes some 20 s, of which half are pauses in three tests. What a test's end means stands in
//! `outcome`, what it means for us in `baseline`. Times are reported and never judged.
//!
//! The tests have one way to the unit, or two: with a second URL those that want a second initiator port send its commands
//! there. The second way is another TARGET with the same unit, and what they find is held against the same recording.

mod baseline;
mod outcome;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::target::{Kind, Peer, Target, Tuning};
use crate::lab::{Context, Failure, Result, process};
use crate::tree::Tree;
use baseline::{Baselines, Judgement};
pub(crate) use outcome::{Outcome, Status};

/// `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose target to test
    #[arg(long, value_enum, default_value = "portico")]
    peer: Peer,
    /// What its logical unit lies on
    #[arg(long, value_enum, default_value = "file")]
    kind: Kind,
    /// Only tests whose name contains this
    #[arg(long)]
    test: Option<String>,
    /// Give every test a second URL, by another target
    #[arg(long)]
    two: bool,
    /// Run with one URL and with two, several times, and keep the result as the baseline; a test counts as passed if it passed
    /// each time
    #[arg(long, conflicts_with = "two")]
    record: bool,
    /// How many times, for a recording
    #[arg(long, default_value_t = 3, requires = "record")]
    rounds: u32,
}

/// How many URLs the tests are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urls {
    /// One; those of the multipath tests are two, of one target.
    One,
    /// Two, of two targets.
    Two,
}

/// The result of one test.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) test: String,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite<'a> {
    pub(crate) peer: Peer,
    pub(crate) kind: Kind,
    pub(crate) urls: Urls,
    /// What the names of its tests contain.
    pub(crate) pattern: &'a str,
}

impl Urls {
    fn name(self) -> &'static str {
        match self {
            Urls::One => "one",
            Urls::Two => "two",
        }
    }
}

/// Passed, failed and skipped, as `ci` adds them up. A test that fails and may, since it is wrong itself, is among the
/// skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// The command line's way in; `true` if nothing is amiss.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    if arguments.record && arguments.kind == Kind::Rbd {
        return Err(Failure::new("an image is held against what a file gives: record that"));
    }
    let tree = Tree::find()?;
    crate::prepare(&tree, arguments.peer)?;
    let mut say = |line: &str| println!("{line}");
    if !arguments.record {
        let pattern = arguments.test.as_deref().unwrap_or_default();
        let urls = if arguments.two { Urls::Two } else { Urls::One };
        let suite = Suite { peer: arguments.peer, kind: arguments.kind, urls, pattern };
        return Ok(run_and_judge(&tree, suite, &mut say)?.failed == 0);
    }
    let mut worst: BTreeMap<String, Outcome> = BTreeMap::new();
    for (round, urls) in (1..=arguments.rounds).flat_map(|round| [(round, Urls::One), (round, Urls::Two)]) {
        println!("round {round} of {}, {} URL", arguments.rounds, urls.name());
        let suite = Suite { peer: arguments.peer, kind: arguments.kind, urls, pattern: "" };
        for row in run(&tree, suite, &mut |_| ())? {
            let kept = worst.entry(row.test).or_insert_with(|| row.outcome.clone());
            if kept.status == Status::Passed {
                *kept = row.outcome;
            }
        }
    }
    let path = baseline::write(&tree.root, arguments.peer, arguments.kind, arguments.rounds, &worst)?;
    println!("recorded in {path}");
    Ok(true)
}

/// Runs the tests, says which of them ask for attention (with a pattern: all of them) and the sums, and keeps the outcome
/// of every test, with the text of those that did not pass, below the build folder.
pub(crate) fn run_and_judge(tree: &Tree, suite: Suite<'_>, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let Suite { peer, kind, urls, pattern } = suite;
    let baselines = Baselines::read(&tree.root, peer, kind)?;
    let mut sum = Sum::default();
    let mut wrong = 0_u32;
    let rows = run(tree, suite, &mut |row| {
        let judgement = baselines.judge(&row.test, row.outcome.status);
        match (&judgement, row.outcome.status) {
            (Judgement::Fault(_), _) => sum.failed += 1,
            (_, Status::Passed) => sum.passed += 1,
            _ => sum.skipped += 1,
        }
        wrong += u32::from(judgement == Judgement::Wrong);
        if !pattern.is_empty() || row.outcome.status.is_failure() || judgement.is_fault() {
            say(&line(row, &judgement));
        }
    })?;
    for family in families(&rows) {
        say(&family);
    }
    let count = |of: fn(Status) -> bool| rows.iter().filter(|row| of(row.outcome.status)).count();
    say(&format!(
        "{} on {}, {} URL: {} tests, {} passed, {} failed, {} skipped; of the failed {wrong} are wrong themselves, {} are \
         faults",
        peer.name(),
        kind.name(),
        urls.name(),
        rows.len(),
        count(|status| status == Status::Passed),
        count(Status::is_failure),
        count(|status| status == Status::Skipped),
        sum.failed,
    ));
    Ok(sum)
}

/// Runs the tests whose names contain the pattern, in the order of the list, each against the same logical unit.
fn run(tree: &Tree, suite: Suite<'_>, seen: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    let Suite { peer, kind, urls, pattern } = suite;
    let list = fs::read_to_string(tree.root.join(baseline::TESTS)).context(baseline::TESTS)?;
    let folder = tree.keep(&format!("conformance/{}-{}-{}", peer.name(), kind.name(), urls.name()))?;
    let tuning = Tuning { has_two_targets: urls == Urls::Two, ..Tuning::default() };
    let mut target = Target::start_tuned(tree, peer, kind, UNIT_BYTES, tuning)?;
    let mut rows = Vec::new();
    let makes_sense = |test: &&str| test.starts_with(kind.tests()) && test.contains(pattern);
    for test in list.lines().filter(makes_sense) {
        let row = run_one(&mut target, test, urls, &folder)?;
        seen(&row);
        rows.push(row);
        target.listen_anew()?;
    }
    target.stop()?;
    if rows.is_empty() {
        return Err(Failure::new(format!("no test has {pattern:?} in its name")));
    }
    fs::write(folder.join("results.tsv"), table(&rows))?;
    Ok(rows)
}

/// The suite's tests that are about iSCSI.
pub(crate) fn tests_of_iscsi(root: &Path) -> Result<Vec<String>> {
    let file = root.join("tools/lab/conformance/cu-1.19-tests.txt");
    let list = fs::read_to_string(&file).context(file.display())?;
    Ok(list.lines().filter(|test| test.starts_with("ALL.iSCSI")).map(str::to_owned).collect())
}

/// Whether the one test of a run passed: it ran, and was not skipped. One that no target can pass may fail.
pub(crate) fn is_as_it_should_be(root: &Path, test: &str, finished: &process::Finished) -> Result<bool> {
    let file = root.join("tools/lab/conformance/cu-wrong.txt");
    let list = fs::read_to_string(&file).context(file.display())?;
    let is_wrong = list.lines().any(|line| line.split('\t').next() == Some(test));
    let status = Outcome::of(finished).status;
    Ok(status == Status::Passed || is_wrong && status == Status::Failed)
}

fn run_one(target: &mut Target, test: &str, urls: Urls, folder: &Path) -> Result<Row> {
    let url = target.url();
    // Line buffering, so that what a test said before it crashed or hung is there.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "iscsi-test-cu", "-d", "-V", "-t", test, &url]);
    if test.starts_with(SANITIZE) {
        command.arg("-S");
    }
    match urls {
        Urls::Two => _ = command.arg(target.second_url()),
        Urls::One if test.starts_with(TWO_PATHS) => _ = command.arg(&url),
        Urls::One => {}
    }
    let start = Instant::now();
    let finished = process::run(&mut command, TEST_LIMIT)?;
    let took = start.elapsed();
    let mut outcome = Outcome::of(&finished);
    if let Err(death) = target.check_alive() {
        // We may have been told to stop, which is no fault of the target's.
        crate::lab::halt::go_on()?;
        outcome = Outcome { status: Status::Dead, reason: death.to_string().replace(['\t', '\n'], " ") };
        target.resume()?;
    }
    let text = folder.join(format!("{test}.txt"));
    if outcome.status == Status::Passed {
        let _ = fs::remove_file(text);
    } else {
        fs::write(text, &finished.output)?;
    }
    Ok(Row { test: test.to_owned(), outcome, took })
}

fn line(row: &Row, judgement: &Judgement) -> String {
    let mark = match judgement {
        Judgement::Fine => String::new(),
        Judgement::Wrong => " (the test is wrong)".to_owned(),
        Judgement::Fault(why) => format!(" <- {why}"),
    };
    format!("{:8} {:44} {}{mark}", row.outcome.status.name(), row.test, row.outcome.reason)
}

/// One line for each family of tests (`ALL.FAMILY.NAME`), in the order of the list.
fn families(rows: &[Row]) -> Vec<String> {
    let mut families: Vec<(&str, [u32; 3])> = Vec::new();
    for row in rows {
        let name = row.test.split('.').nth(1).unwrap_or_default();
        if families.last().is_none_or(|(last, _)| *last != name) {
            families.push((name, [0; 3]));
        }
        let column = match row.outcome.status {
            Status::Passed => 0,
            Status::Skipped => 2,
            _ => 1,
        };
        families.last_mut().expect("there is one now").1[column] += 1;
    }
    let line = |(name, [passed, failed, skipped]): &(&str, [u32; 3])| {
        format!("  {name:24} {passed:3} passed {failed:3} failed {skipped:3} skipped")
    };
    families.iter().map(line).collect()
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("test\tstatus\tseconds\treason\n");
    for Row { test, outcome, took } in rows {
        let (status, reason) = (outcome.status.name(), &outcome.reason);
        text.push_str(&format!("{test}\t{status}\t{:.2}\t{reason}\n", took.as_secs_f64()));
    }
    text
}

/// Large enough for every test of the suite, small enough for a RAM disk.
const UNIT_BYTES: u64 = 100 << 20;
/// No test takes more than 4 s where nothing is wrong.
const TEST_LIMIT: Duration = Duration::from_secs(60);
/// These tests want it said that all data may go, -d or not.
const SANITIZE: &str = "ALL.Sanitize.";
/// These tests want a second path to the same unit.
const TWO_PATHS: &str = "ALL.MultipathIO.";
