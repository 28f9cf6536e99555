//! What a run has brought: counts, times, errors and findings of one thread, added up at the end.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::verify::{Finding, Kind};

/// Errors, and findings, that are told one by one; the rest is counted.
pub(crate) const TOLD_MAX: usize = 100;
/// The longest time that is told apart, in nanoseconds.
const TIME_NS_MAX: u64 = 1_000_000_000_000;

/// Reads, or writes.
#[derive(Clone, Debug)]
pub(crate) struct Direction {
    /// Commands that ended well.
    pub(crate) commands: u64,
    pub(crate) bytes: u64,
    /// Of those commands: from their submission until their answer was received, in nanoseconds, three digits.
    pub(crate) times: Histogram<u64>,
}

impl Direction {
    fn new() -> Self {
        let times = Histogram::new_with_bounds(1, TIME_NS_MAX, 3).expect("the bounds are constants");
        Self { commands: 0, bytes: 0, times }
    }

    /// A command has ended well.
    pub(crate) fn record(&mut self, bytes: u32, time_ns: u64) {
        self.commands += 1;
        self.bytes += u64::from(bytes);
        self.times.saturating_record(time_ns);
    }

    fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.bytes += other.bytes;
        self.times.add(&other.times).expect("of the same bounds");
    }
}

/// Of verified blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Blocks that were as they should be, `mixed` ones included.
    pub(crate) good: u64,
    /// Of these: made of several writes, which SCSI allows.
    pub(crate) mixed: u64,
    /// Blocks of which nothing was known.
    pub(crate) unwritten: u64,
    pub(crate) wrong: u64,
    pub(crate) old: u64,
    pub(crate) torn: u64,
}

impl Verified {
    /// Blocks that were not as they should be.
    pub(crate) fn bad(&self) -> u64 {
        self.wrong + self.old + self.torn
    }
}

/// Of one thread, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) reads: Direction,
    pub(crate) writes: Direction,
    /// Reads of the read-back at the end, which are not measured.
    pub(crate) read_back: u64,
    /// Commands sent again after BUSY, TASK SET FULL or a unit attention.
    pub(crate) retries: u64,
    /// Commands that failed.
    pub(crate) errors: u64,
    /// The first of them.
    pub(crate) told_errors: Vec<String>,
    pub(crate) verified: Verified,
    /// The first blocks that were not as they should be.
    pub(crate) findings: Vec<Finding>,
    /// Why sessions were lost, or the run ended before its time.
    pub(crate) failures: Vec<String>,
    /// Of the measured part.
    pub(crate) elapsed: Duration,
    /// How busy each thread was in the measured part, in thousandths of one core.
    pub(crate) busy: Vec<u64>,
    /// How long each thread was ready to run and got no core, in thousandths of the measured part.
    pub(crate) held_up: Vec<u64>,
    /// Commands of the session that did least, and of the one that did most.
    pub(crate) least_and_most: Option<(u64, u64)>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            reads: Direction::new(),
            writes: Direction::new(),
            read_back: 0,
            retries: 0,
            errors: 0,
            told_errors: Vec::new(),
            verified: Verified::default(),
            findings: Vec::new(),
            failures: Vec::new(),
            elapsed: Duration::ZERO,
            busy: Vec::new(),
            held_up: Vec::new(),
            least_and_most: None,
        }
    }

    /// A command has failed; `tell` says how.
    pub(crate) fn error(&mut self, tell: impl FnOnce() -> String) {
        self.errors += 1;
        if self.told_errors.len() < TOLD_MAX {
            self.told_errors.push(tell());
        }
    }

    /// A block is not as it should be.
    pub(crate) fn find(&mut self, finding: Finding) {
        match finding.kind {
            Kind::Wrong => self.verified.wrong += 1,
            Kind::Old => self.verified.old += 1,
            Kind::Torn => self.verified.torn += 1,
        }
        if self.findings.len() < TOLD_MAX {
            self.findings.push(finding);
        }
    }

    /// A session has done so many commands.
    pub(crate) fn session_did(&mut self, commands: u64) {
        let (least, most) = self.least_and_most.unwrap_or((commands, commands));
        self.least_and_most = Some((least.min(commands), most.max(commands)));
    }

    /// Adds what another thread did.
    pub(crate) fn add(&mut self, other: Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.read_back += other.read_back;
        self.retries += other.retries;
        self.errors += other.errors;
        let room = TOLD_MAX - self.told_errors.len();
        self.told_errors.extend(other.told_errors.into_iter().take(room));
        self.verified.good += other.verified.good;
        self.verified.mixed += other.verified.mixed;
        self.verified.unwritten += other.verified.unwritten;
        self.verified.wrong += other.verified.wrong;
        self.verified.old += other.verified.old;
        self.verified.torn += other.verified.torn;
        let room = TOLD_MAX - self.findings.len();
        self.findings.extend(other.findings.into_iter().take(room));
        self.failures.extend(other.failures);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.busy.extend(other.busy);
        self.held_up.extend(other.held_up);
        if let Some((least, most)) = other.least_and_most {
            self.session_did(least);
            self.session_did(most);
        }
    }

    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors == 0 && self.failures.is_empty() && self.verified.bad() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_add_up() {
        let mut one = Tally::new();
        one.reads.record(4096, 1_000);
        one.session_did(5);
        one.elapsed = Duration::from_secs(2);
        let mut other = Tally::new();
        other.reads.record(4096, 3_000);
        other.writes.record(512, 10);
        other.error(|| "x".to_owned());
        other.session_did(9);
        other.elapsed = Duration::from_secs(1);
        assert!(one.is_clean() && !other.is_clean());
        one.add(other);
        assert_eq!((one.reads.commands, one.reads.bytes, one.writes.bytes), (2, 8192, 512));
        assert_eq!((one.reads.times.len(), one.reads.times.max() / 1_000), (2, 3));
        assert_eq!((one.errors, one.least_and_most), (1, Some((5, 9))));
        assert_eq!(one.elapsed, Duration::from_secs(2));
    }

    #[test]
    fn what_is_told_is_bounded_and_what_is_counted_is_not() {
        let finding = Finding { kind: Kind::Old, lba: 1, session: 0, detail: String::new() };
        let mut one = Tally::new();
        for _ in 0..TOLD_MAX + 5 {
            one.error(|| "x".to_owned());
            one.find(finding.clone());
        }
        let other = one.clone();
        one.add(other);
        assert_eq!((one.told_errors.len(), one.findings.len()), (TOLD_MAX, TOLD_MAX));
        assert_eq!((one.errors, one.verified.old), (210, 210));
    }
}
