//! What a session does next: which block, read or written. Pure choice, repeatable from a seed.

use crate::ledger::Ledger;
use crate::options::Plan;
use crate::random::Random;

/// The next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) is_write: bool,
    /// Of the region.
    pub(crate) block: u64,
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
    /// Reading back what was written.
    is_reading_back: bool,
    /// In steps of this many blocks.
    stride: u64,
}

impl Workload {
    /// The choices of `session`.
    pub(crate) fn new(plan: &Plan, session: u32) -> Self {
        let (first, length) = plan.part(session);
        // Sequences that share a region begin at different places.
        let cursor = if plan.shared { length / u64::from(plan.sessions) * u64::from(session) } else { 0 };
        Self {
            random: Random::new(plan.seed ^ u64::from(session) << 32),
            is_random: plan.is_random,
            reads_percent: u64::from(plan.reads_percent),
            first,
            length,
            cursor,
            left: plan.count_of(session),
            is_reading_back: false,
            stride: 1,
        }
    }

    /// From now on every block that was written is read once; blocks that several sessions share are divided among them.
    pub(crate) fn read_back(&mut self, plan: &Plan, session: u32) {
        (self.is_reading_back, self.left) = (true, None);
        (self.cursor, self.stride) =
            if plan.shared { (session.into(), plan.sessions.into()) } else { (0, 1) };
    }

    /// The next command; `None`: there is nothing more to do. `is_being_written` says which blocks this session is writing:
    /// no write begins there.
    pub(crate) fn next(
        &mut self,
        ledger: Option<&Ledger>,
        is_being_written: impl Fn(u64) -> bool,
    ) -> Option<Operation> {
        if self.is_reading_back {
            return self.next_touched(ledger?);
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let is_write = self.random.below(100) >= self.reads_percent;
        let mut offset = if self.is_random { self.random.below(self.length) } else { self.advance() };
        // Ends: there are twice as many blocks as commands, where this matters.
        while is_write && is_being_written(self.first + offset) {
            offset = if self.is_random { (offset + 1) % self.length } else { self.advance() };
        }
        Some(Operation { is_write, block: self.first + offset })
    }

    /// Whether it reads back what was written.
    pub(crate) fn is_reading_back(&self) -> bool {
        self.is_reading_back
    }

    fn advance(&mut self) -> u64 {
        let offset = self.cursor;
        self.cursor = (offset + 1) % self.length;
        offset
    }

    fn next_touched(&mut self, ledger: &Ledger) -> Option<Operation> {
        while self.cursor < self.length {
            let block = self.first + self.cursor;
            self.cursor += self.stride;
            if ledger.was_touched(block) {
                return Some(Operation { is_write: false, block });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Geometry, Options};

    fn plan(arguments: &str) -> Plan {
        let command = "portico-load --target iscsi://127.0.0.1/iqn.x/0 --depth 2 ".to_owned() + arguments;
        let options = Options::try_parse_from(command.split_whitespace()).unwrap();
        options.plan(Geometry { block_bytes: 512, blocks: 800 }).unwrap()
    }

    fn blocks(workload: &mut Workload, count: usize) -> Vec<u64> {
        (0..count).filter_map(|_| workload.next(None, |_| false)).map(|operation| operation.block).collect()
    }

    #[test]
    fn a_sequence_goes_through_its_part_and_begins_again() {
        let plan = plan("--rw read --disjoint --sessions 20");
        let mut workload = Workload::new(&plan, 2);
        assert_eq!(blocks(&mut workload, 7), [10, 11, 12, 13, 14, 10, 11]);
    }

    #[test]
    fn sequences_that_share_a_region_begin_at_different_places() {
        let plan = plan("--rw read --sessions 2");
        let starts = [0, 1].map(|session| blocks(&mut Workload::new(&plan, session), 1)[0]);
        assert_eq!(starts, [0, 50]);
    }

    #[test]
    fn random_blocks_stay_in_the_part_and_reach_all_of_it() {
        let plan = plan("--disjoint --sessions 10");
        let mut seen = blocks(&mut Workload::new(&plan, 3), 1000);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (30..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_mix_has_its_share_of_reads() {
        let plan = plan("--rw randrw --mix 70");
        let mut workload = Workload::new(&plan, 0);
        let writes = (0..10_000).filter(|_| workload.next(None, |_| false).unwrap().is_write).count();
        assert!((2_800..3_200).contains(&writes), "{writes}");
    }

    #[test]
    fn a_count_ends() {
        let plan = plan("--count 5 --sessions 2");
        assert_eq!(blocks(&mut Workload::new(&plan, 0), 100).len(), 3);
        assert_eq!(blocks(&mut Workload::new(&plan, 1), 100).len(), 2);
    }

    #[test]
    fn no_write_begins_where_one_is_under_way() {
        let plan = plan("--rw randwrite --disjoint --sessions 20");
        let mut workload = Workload::new(&plan, 0);
        for _ in 0..100 {
            assert_eq!(workload.next(None, |block| block != 4).unwrap().block, 4);
        }
    }

    #[test]
    fn what_was_written_is_read_back_once_by_somebody() {
        let plan = plan("--rw randwrite --verify --shared --sessions 3");
        let ledger = Ledger::new(&plan, 1);
        for block in [0, 1, 5, 99] {
            ledger.issue(2, block);
        }
        let mut read = Vec::new();
        for session in 0..3 {
            let mut workload = Workload::new(&plan, session);
            workload.read_back(&plan, session);
            while let Some(operation) = workload.next(Some(&ledger), |_| false) {
                assert!(!operation.is_write);
                read.push(operation.block);
            }
        }
        read.sort_unstable();
        assert_eq!(read, [0, 1, 5, 99]);
    }
}
