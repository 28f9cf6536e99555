//! What a session does next: which block, read or written. Pure choice, repeatable from a seed.

use crate::ledger::Ledger;
use crate::options::Plan;
use crate::random::Random;

/// The next command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) is_write: bool,
    /// The first block, of the region.
    pub(crate) block: u64,
    /// How many blocks.
    pub(crate) length: u32,
}

impl Operation {
    /// Whether they have a block in common.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.block < other.block + u64::from(other.length)
            && other.block < self.block + u64::from(self.length)
    }

    /// Its blocks.
    pub(crate) fn blocks(&self) -> std::ops::Range<u64> {
        self.block..self.block + u64::from(self.length)
    }
}

/// The choices of one session.
#[derive(Debug)]
pub(crate) struct Workload {
    random: Random,
    is_random: bool,
    reads_percent: u64,
    /// The blocks it may use.
    first: u64,
    length: u64,
    /// Where the sequence goes on, from `first`.
    cursor: u64,
    /// Commands that are still to be done; `None`: until the time is over.
    left: Option<u64>,
    /// The same of bytes.
    bytes_left: Option<u64>,
    /// Reading back what was written, in steps of this many blocks, of which the session reads the first so many.
    reading_back: Option<(u64, u64)>,
}

impl Workload {
    /// The choices of `session`, without an end.
    pub(crate) fn new(plan: &Plan, session: u32) -> Self {
        let (first, length) = plan.part(session);
        // Sequences that share a region begin at different places.
        let row = u64::from(session - plan.first_session);
        let cursor = if plan.shared { length / u64::from(plan.sessions) * row } else { 0 };
        Self {
            random: Random::new(plan.seed ^ u64::from(session) << 32),
            is_random: plan.is_random,
            reads_percent: u64::from(plan.reads_percent),
            first,
            length,
            cursor,
            left: None,
            bytes_left: None,
            reading_back: None,
        }
    }

    /// What the session is to do counts from now on.
    pub(crate) fn limit(&mut self, plan: &Plan, session: u32) {
        (self.left, self.bytes_left) = (plan.count_of(session), plan.amount_of(session));
    }

    /// From now on every block that was written is read once, in pieces as long as the longest command; pieces that several
    /// sessions share are divided among them.
    pub(crate) fn read_back(&mut self, plan: &Plan, session: u32) {
        (self.left, self.bytes_left) = (None, None);
        let piece = u64::from(plan.longest);
        let row = u64::from(session - plan.first_session);
        (self.cursor, self.reading_back) = if plan.shared {
            (row * piece, Some((u64::from(plan.sessions) * piece, piece)))
        } else {
            (0, Some((piece, piece)))
        };
    }

    /// The next command; `None`: there is nothing more to do. `is_being_written` says whether this session is writing where
    /// a command would write: no write begins there.
    pub(crate) fn next(
        &mut self,
        plan: &Plan,
        ledger: Option<&Ledger>,
        is_being_written: impl Fn(&Operation) -> bool,
    ) -> Option<Operation> {
        if let Some((stride, piece)) = self.reading_back {
            return self.next_touched(ledger?, stride, piece);
        }
        if self.bytes_left == Some(0) {
            return None;
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let is_write = match self.reads_percent {
            100 => false,
            0 => true,
            percent => self.random.below(100) >= percent,
        };
        let length = plan.choose_length(is_write, &mut self.random);
        if let Some(left) = &mut self.bytes_left {
            *left = left.saturating_sub(u64::from(length) * u64::from(plan.block_bytes));
        }
        let step = u64::from(length);
        let mut at =
            if self.is_random { self.random.below(self.length / step) * step } else { self.advance(step) };
        loop {
            let operation = Operation { is_write, block: self.first + at, length };
            // Ends: the plan has seen to it that there is always another place.
            if !is_write || !is_being_written(&operation) {
                return Some(operation);
            }
            at = if self.is_random {
                (at / step + 1) % (self.length / step) * step
            } else {
                self.advance(step)
            };
        }
    }

    /// Whether it reads back what was written.
    pub(crate) fn is_reading_back(&self) -> bool {
        self.reading_back.is_some()
    }

    fn advance(&mut self, step: u64) -> u64 {
        let at = if self.cursor + step > self.length { 0 } else { self.cursor };
        self.cursor = at + step;
        at
    }

    fn next_touched(&mut self, ledger: &Ledger, stride: u64, piece: u64) -> Option<Operation> {
        while self.cursor < self.length {
            let length = piece.min(self.length - self.cursor);
            let block = self.first + self.cursor;
            self.cursor += stride;
            if (block..block + length).any(|block| ledger.was_touched(block)) {
                let length = u32::try_from(length).expect("at most the longest command");
                return Some(Operation { is_write: false, block, length });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Geometry, Options, Share};

    fn plan(arguments: &str) -> Plan {
        let command = "portico-load --target iscsi://127.0.0.1/iqn.x/0 --depth 2 ".to_owned() + arguments;
        let options = Options::try_parse_from(command.split_whitespace()).unwrap();
        let share = Share { first: 0, sessions: options.sessions, in_all: options.sessions };
        options.plan(Geometry { block_bytes: 512, blocks: 800 }, share).unwrap()
    }

    fn blocks(plan: &Plan, workload: &mut Workload, count: usize) -> Vec<u64> {
        (0..count)
            .filter_map(|_| workload.next(plan, None, |_| false))
            .map(|operation| operation.block)
            .collect()
    }

    #[test]
    fn a_sequence_goes_through_its_part_and_begins_again() {
        let plan = plan("--rw read --disjoint --sessions 20");
        let mut workload = Workload::new(&plan, 2);
        assert_eq!(blocks(&plan, &mut workload, 7), [10, 11, 12, 13, 14, 10, 11]);
    }

    #[test]
    fn sequences_that_share_a_region_begin_at_different_places() {
        let plan = plan("--rw read --sessions 2");
        let starts = [0, 1].map(|session| blocks(&plan, &mut Workload::new(&plan, session), 1)[0]);
        assert_eq!(starts, [0, 50]);
    }

    #[test]
    fn random_blocks_stay_in_the_part_and_reach_all_of_it() {
        let plan = plan("--disjoint --sessions 10");
        let mut seen = blocks(&plan, &mut Workload::new(&plan, 3), 1000);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (30..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_mix_has_its_share_of_reads() {
        let plan = plan("--rw randrw --mix 70");
        let mut workload = Workload::new(&plan, 0);
        let writes = (0..10_000).filter(|_| workload.next(&plan, None, |_| false).unwrap().is_write).count();
        assert!((2_800..3_200).contains(&writes), "{writes}");
    }

    #[test]
    fn a_count_ends() {
        let plan = plan("--count 5 --sessions 2");
        for (session, count) in [(0, 3), (1, 2)] {
            let mut workload = Workload::new(&plan, session);
            assert_eq!(blocks(&plan, &mut workload, 10).len(), 10, "not before it is measured");
            workload.limit(&plan, session);
            assert_eq!(blocks(&plan, &mut workload, 100).len(), count);
        }
    }

    #[test]
    fn an_amount_ends_with_the_command_that_reaches_it() {
        let plan = plan("--amount 9k --bs 4k");
        let mut workload = Workload::new(&plan, 0);
        workload.limit(&plan, 0);
        assert_eq!(blocks(&plan, &mut workload, 100).len(), 3);
    }

    #[test]
    fn random_commands_of_several_lengths_begin_at_multiples_of_their_own() {
        let plan = plan("--bssplit 4k/50:16k/50 --disjoint --sessions 10");
        let mut workload = Workload::new(&plan, 3);
        for _ in 0..1000 {
            let operation = workload.next(&plan, None, |_| false).unwrap();
            let offset = operation.block - 30;
            assert!(offset.is_multiple_of(operation.length.into()), "{operation:?}");
            assert!(offset + u64::from(operation.length) <= 10, "{operation:?}");
        }
    }

    #[test]
    fn a_sequence_of_several_lengths_leaves_no_gap() {
        let plan = plan("--bssplit 4k/50:16k/50 --rw write");
        let mut workload = Workload::new(&plan, 0);
        let mut end = 0;
        for _ in 0..20 {
            let operation = workload.next(&plan, None, |_| false).unwrap();
            assert_eq!(operation.block, end);
            end = operation.blocks().end;
        }
    }

    #[test]
    fn commands_meet_where_they_have_a_block_in_common() {
        let at = |block, length| Operation { is_write: true, block, length };
        assert!(at(4, 4).meets(&at(7, 1)) && at(7, 1).meets(&at(4, 4)) && at(4, 4).meets(&at(0, 100)));
        assert!(!at(4, 4).meets(&at(8, 1)) && !at(4, 4).meets(&at(0, 4)));
    }

    #[test]
    fn no_write_begins_where_one_is_under_way() {
        let plan = plan("--rw randwrite --disjoint --sessions 20");
        let mut workload = Workload::new(&plan, 0);
        for _ in 0..100 {
            assert_eq!(workload.next(&plan, None, |write| write.block != 4).unwrap().block, 4);
        }
    }

    #[test]
    fn what_was_written_is_read_back_once_by_somebody() {
        let plan = plan("--rw randwrite --verify --shared --sessions 3");
        let ledger = Ledger::new(&plan, 1);
        for block in [0, 1, 5, 99] {
            ledger.issue(2, block, 1);
        }
        let mut read = Vec::new();
        for session in 0..3 {
            let mut workload = Workload::new(&plan, session);
            workload.read_back(&plan, session);
            while let Some(operation) = workload.next(&plan, Some(&ledger), |_| false) {
                assert!(!operation.is_write);
                read.push(operation.block);
            }
        }
        read.sort_unstable();
        assert_eq!(read, [0, 1, 5, 99]);
    }
}
