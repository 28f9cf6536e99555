//! What a run has brought: counts, times, errors and findings of one thread, added up at the end.
//!
//! Commands are recorded into the interval at hand; that is added to the totals when it is over, so that a command is recorded once.

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
    /// Of those commands: from their submission, or the time at which they were to be sent, until their answer was received, in
    /// nanoseconds, three digits.
    pub(crate) times: Histogram<u64>,
}

impl Direction {
    fn new() -> Self {
        let times = Histogram::new_with_bounds(1, TIME_NS_MAX, 3).expect("the bounds are constants");
        Self { commands: 0, bytes: 0, times }
    }

    fn clear(&mut self) {
        (self.commands, self.bytes) = (0, 0);
        self.times.reset();
    }

    /// A command has ended well.
    pub(crate) fn record(&mut self, bytes: u32, time_ns: u64) {
        self.commands += 1;
        self.bytes += u64::from(bytes);
        self.times.saturating_record(time_ns);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.bytes += other.bytes;
        self.times.add(&other.times).expect("of the same bounds");
    }
}

/// What one interval has brought.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) reads: Direction,
    pub(crate) writes: Direction,
    /// Commands that failed.
    pub(crate) errors: u64,
    /// Commands that were on their way when their connection was lost.
    pub(crate) lost: u64,
}

impl Interval {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { reads: Direction::new(), writes: Direction::new(), errors: 0, lost: 0 }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.reads.clear();
        self.writes.clear();
        (self.errors, self.lost) = (0, 0);
    }

    /// Adds what another thread did in it.
    pub(crate) fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.errors += other.errors;
        self.lost += other.lost;
    }
}

/// Connections that were lost and made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) connections: u64,
    /// Reads that were on their way.
    pub(crate) reads: u64,
    /// Writes that were on their way: nobody knows whether they were done.
    pub(crate) writes: u64,
    /// The longest time that a session was without a connection.
    pub(crate) longest: Duration,
}

/// How an open loop kept to its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lateness {
    /// Commands whose time had come and that were never sent.
    pub(crate) unsent: u64,
    /// For how long the first of them had waited at the end.
    pub(crate) unsent_ns: u64,
    /// Commands that were sent more than [`LATE_NS`] after their time although the target would have taken them: the generator's
    /// own fault.
    pub(crate) late: u64,
    /// The longest such time.
    pub(crate) latest_ns: u64,
}

/// From so much on it is told that the generator sends late.
pub(crate) const LATE_NS: u64 = 1_000_000;

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
    /// Of the interval at hand, not yet in the totals.
    pub(crate) interval: Interval,
    pub(crate) lost: Lost,
    /// Why the first of them were lost.
    pub(crate) told_losses: Vec<String>,
    pub(crate) lateness: Lateness,
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
            interval: Interval::new(),
            lost: Lost::default(),
            told_losses: Vec::new(),
            lateness: Lateness::default(),
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
        self.interval.errors += 1;
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

    /// Why a connection was lost.
    pub(crate) fn tell_loss(&mut self, tell: impl FnOnce() -> String) {
        if self.told_losses.len() < TOLD_MAX {
            self.told_losses.push(tell());
        }
    }

    /// Commands were on their way when their connection was lost.
    pub(crate) fn lose(&mut self, reads: u64, writes: u64) {
        self.lost.connections += 1;
        self.lost.reads += reads;
        self.lost.writes += writes;
        self.interval.lost += reads + writes;
    }

    /// A command of an open loop goes out so long after its time, for no reason of the target's.
    pub(crate) fn sent_late(&mut self, late_ns: u64) {
        self.lateness.late += u64::from(late_ns > LATE_NS);
        self.lateness.latest_ns = self.lateness.latest_ns.max(late_ns);
    }

    /// The interval at hand is over: it is added to the totals.
    pub(crate) fn roll(&mut self) {
        self.reads.add(&self.interval.reads);
        self.writes.add(&self.interval.writes);
        self.interval.clear();
    }

    /// The warm-up is over: what was measured is forgotten; what went wrong is not.
    pub(crate) fn begin_measuring(&mut self) {
        self.reads.clear();
        self.writes.clear();
        self.interval.clear();
        self.lateness = Lateness::default();
    }

    /// Commands that ended well, with their bytes: reads, writes, both.
    pub(crate) fn done(&self) -> [u64; 3] {
        let Interval { reads, writes, .. } = &self.interval;
        [
            self.reads.commands + reads.commands,
            self.writes.commands + writes.commands,
            self.reads.bytes + reads.bytes + self.writes.bytes + writes.bytes,
        ]
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
        self.interval.add(&other.interval);
        let room = TOLD_MAX - self.told_losses.len();
        self.told_losses.extend(other.told_losses.into_iter().take(room));
        self.lost.connections += other.lost.connections;
        self.lost.reads += other.lost.reads;
        self.lost.writes += other.lost.writes;
        self.lost.longest = self.lost.longest.max(other.lost.longest);
        self.lateness.unsent += other.lateness.unsent;
        self.lateness.unsent_ns = self.lateness.unsent_ns.max(other.lateness.unsent_ns);
        self.lateness.late += other.lateness.late;
        self.lateness.latest_ns = self.lateness.latest_ns.max(other.lateness.latest_ns);
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
    fn an_interval_counts_once_and_a_warm_up_not_at_all() {
        let mut tally = Tally::new();
        tally.interval.reads.record(4096, 1_000);
        tally.roll();
        tally.interval.writes.record(512, 1_000);
        assert_eq!(tally.done(), [1, 1, 4608]);
        tally.begin_measuring();
        assert_eq!((tally.done(), tally.reads.times.len()), ([0; 3], 0));
        tally.interval.reads.record(4096, 1_000);
        tally.roll();
        assert_eq!((tally.reads.commands, tally.reads.times.len(), tally.interval.reads.commands), (1, 1, 0));
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
