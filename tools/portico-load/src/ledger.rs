//! What was written where: for each block and each session that may write it, the writes that were sent and acknowledged.
//!
//! A session counts its writes; their numbers are the versions of the blocks. A write whose connection was lost stays sent and not
//! acknowledged: it may have been done or not, and is replaced by the next one that is acknowledged.
//!
//! All threads share it. An entry has one writer, its session's thread; everybody reads. Order matters, and is said at each
//! place; what a reader concludes may be too lenient by a moment, never too strict.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::options::Plan;

/// The versions of all blocks of the region.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Tells this run's data from what was there before.
    pub(crate) run: u64,
    shared: bool,
    region: u64,
    first_session: u32,
    entries: Box<[Entry]>,
    /// Per block: some session's write has been acknowledged.
    written: Box<[AtomicBool]>,
}

/// The writes of one session to one block.
#[derive(Debug, Default)]
struct Entry {
    /// The last version that was sent; 0: none.
    issued: AtomicU32,
    /// The last version that was acknowledged; 0: none.
    acknowledged: AtomicU32,
    /// When that was, not too early.
    acknowledged_ns: AtomicU64,
}

/// What a read may bring of one block, as far as that is known when it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// The last version of the reading session that was acknowledged; 0: none.
    pub(crate) own: u32,
    /// Somebody's write was acknowledged: what was there before the run cannot be there any more.
    pub(crate) written: bool,
}

impl Ledger {
    /// An empty one for the region of `plan`.
    pub(crate) fn new(plan: &Plan, run: u64) -> Self {
        let blocks = usize::try_from(plan.region).expect("a verified region is at most VERSIONS_MAX blocks");
        let writers = if plan.shared { usize::try_from(plan.sessions).expect("32 bits") } else { 1 };
        Self {
            run,
            shared: plan.shared,
            region: plan.region,
            first_session: plan.first_session,
            entries: (0..blocks * writers).map(|_| Entry::default()).collect(),
            written: (0..blocks).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn entry(&self, session: u32, block: u64) -> &Entry {
        let row = if self.shared { u64::from(session - self.first_session) } else { 0 };
        &self.entries[index(row * self.region + block)]
    }

    /// A write of `session` to `block` is about to be sent; `version` is higher than that of the one before.
    pub(crate) fn issue(&self, session: u32, block: u64, version: u32) {
        // Before the write can have any effect.
        self.entry(session, block).issued.store(version, Ordering::SeqCst);
    }

    /// The write of this version has been acknowledged; `now_ns` is not before that.
    pub(crate) fn acknowledge(&self, session: u32, block: u64, version: u32, now_ns: u64) {
        let entry = self.entry(session, block);
        // The moment first: who sees the version sees this moment or a later one, and concludes no more than it may.
        entry.acknowledged_ns.store(now_ns, Ordering::SeqCst);
        entry.acknowledged.store(version, Ordering::SeqCst);
        self.written[index(block)].store(true, Ordering::SeqCst);
    }

    /// For a read of `session` that is about to be sent.
    pub(crate) fn expect(&self, session: u32, block: u64) -> Expectation {
        Expectation {
            own: self.entry(session, block).acknowledged.load(Ordering::SeqCst),
            written: self.written[index(block)].load(Ordering::SeqCst),
        }
    }

    /// Whether `session` can have sent this version of `block`.
    pub(crate) fn was_issued(&self, session: u32, block: u64, version: u32) -> bool {
        version > 0 && version <= self.entry(session, block).issued.load(Ordering::SeqCst)
    }

    /// The later write of `session` that had replaced its `version` of `block` when `reader` sent a read at `sent_ns`, if there is
    /// one.
    pub(crate) fn replaced_by(
        &self,
        session: u32,
        block: u64,
        version: u32,
        reader: u32,
        expected: Expectation,
        sent_ns: u64,
    ) -> Option<u32> {
        if session == reader {
            return Some(expected.own).filter(|own| version < *own);
        }
        let entry = self.entry(session, block);
        // A session has one write to a block at a time, so what came before an acknowledged one is over.
        let acknowledged = entry.acknowledged.load(Ordering::SeqCst);
        let is_old = version < acknowledged && entry.acknowledged_ns.load(Ordering::SeqCst) < sent_ns;
        is_old.then_some(acknowledged)
    }

    /// Whether anybody has sent a write to `block`.
    pub(crate) fn was_touched(&self, block: u64) -> bool {
        let last = self.first_session + self.writers();
        (self.first_session..last).any(|session| self.entry(session, block).issued.load(Ordering::SeqCst) > 0)
    }

    /// How many sessions may write a block.
    pub(crate) fn writers(&self) -> u32 {
        u32::try_from(self.entries.len() / self.written.len()).expect("at most VERSIONS_MAX")
    }

    /// Whether `session` writes the blocks that `reader` reads.
    pub(crate) fn may_write(&self, session: u32, reader: u32) -> bool {
        if !self.shared {
            return session == reader;
        }
        session.checked_sub(self.first_session).is_some_and(|row| row < self.writers())
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("at most VERSIONS_MAX")
}
