//! What was recorded, and what a new outcome means beside it.
//!
//! The recordings are data of the tree: one file per peer and kind of unit, a row per test. A test that passed and
//! does not pass any more is a fault; so is one that tgt passes and ours does not, one that fails although its
//! commands are here, and any crash or hang.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::outcome::{Outcome, Status};
use crate::lab::target::{Kind, Peer};
use crate::lab::{Context, Failure, Result};

/// The names of all tests, in the order in which they are run.
pub(super) const TESTS: &str = "tools/lab/conformance/cu-1.19-tests.txt";
const WRONG: &str = "tools/lab/conformance/cu-wrong.txt";
const FOLDER: &str = "tools/lab/conformance";

/// The recordings that one run is held against.
#[derive(Debug, Default)]
pub(super) struct Baselines {
    /// Tests that are wrong themselves: they may fail.
    wrong: BTreeSet<String>,
    /// What this peer did on this kind of unit.
    own: BTreeMap<String, Status>,
    /// What tgt did; empty where tgt itself is tested, which owes us nothing.
    tgt: BTreeMap<String, Status>,
    /// Whether failures are faults by themselves.
    is_ours: bool,
}

/// What an outcome means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// As it should be, or as it was recorded.
    Fine,
    /// Fails, and may: the test is wrong itself.
    Wrong,
    /// Must not be; says why.
    Fault(&'static str),
}

impl Judgement {
    pub(super) fn is_fault(&self) -> bool {
        matches!(self, Judgement::Fault(_))
    }
}

impl Baselines {
    /// Reads what is recorded for this peer and kind; another's target that was never recorded has nothing to lose, ours is
    /// always held against its recording.
    pub(super) fn read(root: &Path, peer: Peer, kind: Kind) -> Result<Baselines> {
        let mut baselines = Baselines { wrong: read_wrong(root)?, ..Baselines::default() };
        // An image is to give what a file gives, and has no recording of its own.
        let own = if kind == Kind::Rbd { Kind::File } else { kind };
        baselines.own = read_rows(root, &file_of(peer, own))?;
        baselines.is_ours = peer == Peer::Portico;
        if baselines.is_ours && baselines.own.is_empty() {
            let command = format!("cargo xtask conformance --kind {} --record", own.name());
            return Err(Failure::new(format!("{} is not there; `{command}` makes it", file_of(peer, own))));
        }
        // tgt's unit is the usual one: what it serves is not asked of one that is fully provisioned.
        if baselines.is_ours && kind != Kind::Thick {
            baselines.tgt = read_rows(root, &file_of(Peer::Tgt, Kind::File))?;
        }
        Ok(baselines)
    }

    /// What it means that `test` ended with `status`.
    pub(super) fn judge(&self, test: &str, status: Status) -> Judgement {
        let passed = |rows: &BTreeMap<String, Status>| rows.get(test) == Some(&Status::Passed);
        if status == Status::Passed {
            Judgement::Fine
        } else if status.is_breakdown() {
            Judgement::Fault("no test may end like this")
        } else if self.wrong.contains(test) {
            if status.is_failure() { Judgement::Wrong } else { Judgement::Fine }
        } else if passed(&self.own) {
            Judgement::Fault("it passed when the baseline was recorded")
        } else if !self.is_ours {
            Judgement::Fine
        } else if status.is_failure() {
            Judgement::Fault("its commands are here")
        } else if passed(&self.tgt) {
            Judgement::Fault("tgt passes it")
        } else {
            Judgement::Fine
        }
    }
}

/// Writes the recording of `rows`, in the order of their names; the path, relative to the root.
pub(super) fn write(
    root: &Path,
    peer: Peer,
    kind: Kind,
    rounds: u32,
    rows: &BTreeMap<String, Outcome>,
) -> Result<String> {
    let path = format!("{FOLDER}/{}", file_of(peer, kind));
    let mut text = format!(
        "# Recorded by `cargo xtask conformance --peer {} --kind {} --record --rounds {rounds}`: the worst of so many runs with \
         one URL and as many with two.\n",
        peer.name(),
        kind.name()
    );
    for (test, outcome) in rows {
        text.push_str(&format!("{test}\t{}\t{}\n", outcome.status.name(), outcome.reason));
    }
    fs::write(root.join(&path), text).context(&path)?;
    Ok(path)
}

fn file_of(peer: Peer, kind: Kind) -> String {
    match (peer, kind) {
        (Peer::Tgt, Kind::File) => "tgt-1.0.85.tsv".to_owned(),
        (Peer::Tgt, _) => format!("tgt-1.0.85-{}.tsv", kind.name()),
        (Peer::Portico, _) => format!("portico-{}.tsv", kind.name()),
    }
}

fn read_wrong(root: &Path) -> Result<BTreeSet<String>> {
    let wrong = fs::read_to_string(root.join(WRONG)).context(WRONG)?;
    let names =
        wrong.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next());
    Ok(names.map(str::to_owned).collect())
}

fn read_rows(root: &Path, file: &str) -> Result<BTreeMap<String, Status>> {
    let path = root.join(FOLDER).join(file);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    parse(&fs::read_to_string(&path).context(path.display())?)
}

fn parse(text: &str) -> Result<BTreeMap<String, Status>> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut fields = line.split('\t');
        match (fields.next(), fields.next().and_then(Status::from_name)) {
            (Some(test), Some(status)) => Ok((test.to_owned(), status)),
            _ => Err(Failure::new(format!("not a row of a recording: {line:?}"))),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Baselines {
        Baselines {
            wrong: ["W".to_owned()].into(),
            own: parse("# words\nA\tpassed\t\nS\tskipped\t[SKIPPED] x\n").unwrap(),
            tgt: parse("T\tpassed\t\nS\tskipped\tz\n").unwrap(),
            is_ours: true,
        }
    }

    #[test]
    fn a_test_that_passed_and_now_fails_or_is_skipped_is_a_fault() {
        assert!(ours().judge("A", Status::Failed).is_fault());
        assert!(ours().judge("A", Status::Skipped).is_fault());
        assert_eq!(ours().judge("A", Status::Passed), Judgement::Fine);
    }

    #[test]
    fn what_tgt_passes_must_pass() {
        assert_eq!(ours().judge("T", Status::Skipped), Judgement::Fault("tgt passes it"));
        assert_eq!(ours().judge("S", Status::Skipped), Judgement::Fine);
    }

    #[test]
    fn a_test_that_is_wrong_may_fail_but_not_break_down() {
        assert_eq!(ours().judge("W", Status::Failed), Judgement::Wrong);
        assert_eq!(ours().judge("W", Status::Skipped), Judgement::Fine);
        for breakdown in [Status::Crashed, Status::Hung, Status::Dead] {
            assert!(ours().judge("W", breakdown).is_fault(), "a wrong test is no excuse");
        }
    }

    #[test]
    fn a_failure_of_a_command_that_is_here_is_a_fault_even_if_it_was_recorded() {
        let mut baselines = ours();
        baselines.own.insert("B".to_owned(), Status::Failed);
        assert!(baselines.judge("B", Status::Failed).is_fault());
    }

    #[test]
    fn a_peer_is_held_against_its_own_recording_only() {
        let tgt = Baselines { is_ours: false, ..ours() };
        assert_eq!(tgt.judge("B", Status::Failed), Judgement::Fine);
        assert!(tgt.judge("A", Status::Failed).is_fault());
        assert!(tgt.judge("B", Status::Crashed).is_fault());
    }

    #[test]
    fn there_is_a_recording_of_ours_for_every_kind_that_ci_tests() {
        let root = crate::tree::Tree::find().unwrap().root;
        let kinds = [
            Kind::File,
            Kind::Ram,
            Kind::Loop,
            Kind::Thick,
            Kind::Removable,
            Kind::ReadOnly,
            Kind::Rbd,
            Kind::Untorn,
        ];
        for kind in kinds {
            let baselines = Baselines::read(&root, Peer::Portico, kind).unwrap();
            let passed = baselines.own.values().filter(|status| **status == Status::Passed).count();
            assert!(passed > 0, "{}", kind.name());
        }
    }

    /// What was recorded of ours: of each test, on each kind on which it makes sense.
    fn recorded(root: &Path) -> BTreeMap<String, Vec<Status>> {
        let kinds =
            [Kind::File, Kind::Ram, Kind::Loop, Kind::Thick, Kind::Removable, Kind::ReadOnly, Kind::Untorn];
        let mut found: BTreeMap<String, Vec<Status>> = BTreeMap::new();
        for (test, status) in
            kinds.into_iter().flat_map(|kind| read_rows(root, &file_of(Peer::Portico, kind)).unwrap())
        {
            found.entry(test).or_default().push(status);
        }
        found
    }

    #[test]
    fn every_test_passes_on_some_kind_of_ours_or_is_named_with_the_reason() {
        const SKIPPED_MAX: usize = 3;
        let root = crate::tree::Tree::find().unwrap().root;
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let wrong = read_wrong(&root).unwrap();
        let recorded = recorded(&root);
        let mut skipped = 0;
        for test in fs::read_to_string(root.join(TESTS)).unwrap().lines() {
            let found = recorded.get(test).unwrap_or_else(|| panic!("{test} was never run"));
            let is_skipped = found.iter().all(|status| *status == Status::Skipped);
            let name = format!("`{}`", test.trim_start_matches("ALL."));
            assert_eq!(
                readme.contains(&name),
                is_skipped,
                "README names what is skipped on all kinds: {test}"
            );
            let passes = found.contains(&Status::Passed);
            assert!(passes || is_skipped || wrong.contains(test), "{test} passes nowhere");
            skipped += usize::from(is_skipped);
        }
        assert!(skipped <= SKIPPED_MAX, "{skipped} tests are skipped on all kinds");
    }

    #[test]
    fn what_fails_is_wrong_itself() {
        let root = crate::tree::Tree::find().unwrap().root;
        let fails = |(test, found): (String, Vec<Status>)| {
            found.iter().any(|status| status.is_failure()).then_some(test)
        };
        let failing: BTreeSet<String> = recorded(&root).into_iter().filter_map(fails).collect();
        let wrong = read_wrong(&root).unwrap();
        assert_eq!(failing.difference(&wrong).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn a_recording_reads_back_as_it_was_written() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(FOLDER)).unwrap();
        let outcome = Outcome { status: Status::Skipped, reason: "why".to_owned() };
        write(root.path(), Peer::Portico, Kind::Ram, 3, &[("T".to_owned(), outcome)].into()).unwrap();
        let rows = read_rows(root.path(), "portico-ram.tsv").unwrap();
        assert_eq!(rows, [("T".to_owned(), Status::Skipped)].into());
        assert!(parse("T\tperhaps\t\n").is_err());
    }
}
