//! Who may hold how many bytes of the shard's arena.
//!
//! Each logical unit has a reserve that nobody else can take, and beyond it shares the rest with all. Nothing is
//! allocated here: this is the account, the arena is the till. The order of defence when the account is short is the
//! caller's (ARCHITECTURE, Scarcity).

/// The account of one shard.
#[derive(Debug)]
pub struct Budget {
    shared_total: u64,
    shared_used: u64,
    reserve_per_unit: u64,
}

/// One logical unit's part of the account.
#[derive(Debug, Default)]
pub struct Share {
    used: u64,
}

/// Logical units that get a reserve; with more than this the reserve of each shrinks.
const UNITS_PLANNED: u64 = 16;

impl Budget {
    /// An account of `arena_bytes`, half of which is set aside as reserves of `units` logical units.
    #[must_use]
    pub fn new(arena_bytes: u64) -> Self {
        Self {
            shared_total: arena_bytes / 2,
            shared_used: 0,
            reserve_per_unit: arena_bytes / 2 / UNITS_PLANNED,
        }
    }

    /// Tells the account how many units divide the reserve. Shares in use stay as they are.
    pub fn set_units(&mut self, units: u64, shares: impl Iterator<Item = u64>, arena_bytes: u64) {
        self.reserve_per_unit = arena_bytes / 2 / units.max(UNITS_PLANNED);
        self.shared_used = shares.map(|used| used.saturating_sub(self.reserve_per_unit)).sum();
    }

    /// Books `bytes` for the unit, or says that they are not to be had now.
    pub fn take(&mut self, share: &mut Share, bytes: u64) -> bool {
        let beyond_before = share.used.saturating_sub(self.reserve_per_unit);
        let beyond_after = (share.used + bytes).saturating_sub(self.reserve_per_unit);
        let more = beyond_after - beyond_before;
        // A single request larger than all there is must not wait for ever: with nothing else out it passes.
        if more > 0 && self.shared_used + more > self.shared_total && share.used > 0 {
            return false;
        }
        self.shared_used += more;
        share.used += bytes;
        true
    }

    /// Gives `bytes` back.
    ///
    /// # Panics
    /// When more comes back than was taken.
    pub fn give(&mut self, share: &mut Share, bytes: u64) {
        let beyond_before = share.used.saturating_sub(self.reserve_per_unit);
        share.used = share.used.checked_sub(bytes).expect("no more comes back than was taken");
        let beyond_after = share.used.saturating_sub(self.reserve_per_unit);
        self.shared_used = self.shared_used.saturating_sub(beyond_before - beyond_after);
    }

    /// Whether less than a quarter of what is shared is left: then command windows stop growing.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.shared_used * 4 > self.shared_total * 3
    }
}

impl Share {
    /// Bytes out.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_unit_cannot_take_what_is_reserved_for_another() {
        let mut budget = Budget::new(64 * MIB);
        let (mut greedy, mut modest) = (Share::default(), Share::default());
        while budget.take(&mut greedy, MIB) {}
        assert!(budget.is_scarce());
        assert_eq!(greedy.used(), 32 * MIB + 2 * MIB, "all that is shared and its own reserve");
        assert!(budget.take(&mut modest, 2 * MIB), "the other's reserve is there");
        assert!(!budget.take(&mut modest, MIB));
        budget.give(&mut greedy, 2 * MIB);
        assert!(budget.take(&mut modest, MIB));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut budget = Budget::new(64 * MIB);
        let mut share = Share::default();
        for _ in 0..3 {
            let mut taken = 0;
            while budget.take(&mut share, MIB) {
                taken += 1;
            }
            assert_eq!(taken, 34);
            budget.give(&mut share, taken * MIB);
            assert!(!budget.is_scarce());
        }
    }

    #[test]
    fn a_request_larger_than_everything_passes_alone() {
        let mut budget = Budget::new(MIB);
        let mut share = Share::default();
        assert!(budget.take(&mut share, 16 * MIB));
        assert!(!budget.take(&mut share, 1));
        budget.give(&mut share, 16 * MIB);
        assert!(budget.take(&mut share, 1));
    }
}
