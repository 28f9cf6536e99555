//! Who may hold how many bytes of the shard's arena.
//!
//! Each logical unit has a reserve that nobody else can take, and beyond it shares the rest with all. Bookings are of two
//! kinds: *swift* ones end by themselves (a READ, data that have come), *patient* ones wait for an initiator to send, who
//! may never do it. Patient ones get one half of each reserve and a part of what is shared: writers that announce much and send
//! nothing starve each other, and nobody else.
//!
//! Nothing is allocated here: this is the account, the arena is the till. The order of defence when the account is short is
//! the caller's (ARCHITECTURE, Scarcity).

/// The account of one shard.
#[derive(Debug)]
pub struct Budget {
    shared_total: u64,
    shared_used: u64,
    shared_patient: u64,
    /// Of each unit, for each kind of booking.
    reserve: u64,
}

/// One logical unit's part of the account.
#[derive(Debug, Default)]
pub struct Share {
    swift: u64,
    patient: u64,
}

/// What a booking waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A medium, or nothing.
    Swift,
    /// An initiator.
    Patient,
}

/// Logical units that get a reserve; with more than this the reserve of each shrinks.
const UNITS_PLANNED: u64 = 16;

impl Budget {
    /// An account of `arena_bytes`, half of which is set aside as reserves of the units.
    #[must_use]
    pub fn new(arena_bytes: u64) -> Self {
        Self {
            shared_total: arena_bytes / 2,
            shared_used: 0,
            shared_patient: 0,
            reserve: reserve_of(arena_bytes, UNITS_PLANNED),
        }
    }

    /// Tells the account how many units divide the reserve. What is out stays out.
    pub fn set_units<'a>(&mut self, units: u64, shares: impl Iterator<Item = &'a Share>, arena_bytes: u64) {
        self.reserve = reserve_of(arena_bytes, units.max(UNITS_PLANNED));
        (self.shared_used, self.shared_patient) = (0, 0);
        for share in shares {
            let patient = share.patient.saturating_sub(self.reserve);
            self.shared_patient += patient;
            self.shared_used += patient + share.swift.saturating_sub(self.reserve);
        }
    }

    /// Books `bytes` for the unit, or says that they are not to be had now.
    pub fn take(&mut self, share: &mut Share, bytes: u64, kind: Kind) -> bool {
        let used = share.of(kind);
        let more = (*used + bytes).saturating_sub(self.reserve) - used.saturating_sub(self.reserve);
        let patient = if kind == Kind::Patient { more } else { 0 };
        let exceeds = self.shared_used + more > self.shared_total
            || self.shared_patient + patient > self.shared_total * PATIENT_PARTS / PARTS;
        // A single request larger than all there is must not wait for ever: with nothing else of its kind out it passes.
        if more > 0 && exceeds && *used > 0 {
            return false;
        }
        self.shared_used += more;
        self.shared_patient += patient;
        *used += bytes;
        true
    }

    /// Gives `bytes` back.
    ///
    /// # Panics
    /// When more comes back than was taken.
    pub fn give(&mut self, share: &mut Share, bytes: u64, kind: Kind) {
        let used = share.of(kind);
        let left = used.checked_sub(bytes).expect("no more comes back than was taken");
        let less = used.saturating_sub(self.reserve) - left.saturating_sub(self.reserve);
        *used = left;
        self.shared_used = self.shared_used.saturating_sub(less);
        if kind == Kind::Patient {
            self.shared_patient = self.shared_patient.saturating_sub(less);
        }
    }

    /// Whether less than a quarter of what is shared is left: then command windows stop growing.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.shared_used * 4 > self.shared_total * 3
    }
}

/// The part of what is shared that patient bookings may take.
const PATIENT_PARTS: u64 = 3;
/// Of so many.
const PARTS: u64 = 4;

fn reserve_of(arena_bytes: u64, units: u64) -> u64 {
    arena_bytes / 2 / units / 2
}

impl Share {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Swift => &mut self.swift,
            Kind::Patient => &mut self.patient,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Patient, Swift};

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_unit_cannot_take_what_is_reserved_for_another() {
        let mut budget = Budget::new(64 * MIB);
        let (mut greedy, mut modest) = (Share::default(), Share::default());
        while budget.take(&mut greedy, MIB, Swift) {}
        assert!(budget.is_scarce());
        assert_eq!(greedy.swift, 32 * MIB + MIB, "all that is shared and its own reserve");
        assert!(budget.take(&mut modest, MIB, Swift), "the other's reserve is there");
        assert!(!budget.take(&mut modest, MIB, Swift));
        budget.give(&mut greedy, 2 * MIB, Swift);
        assert!(budget.take(&mut modest, MIB, Swift));
    }

    #[test]
    fn writers_that_never_send_starve_nobody_who_does() {
        let mut budget = Budget::new(64 * MIB);
        let mut share = Share::default();
        while budget.take(&mut share, MIB, Patient) {}
        assert_eq!(
            share.patient,
            24 * MIB + MIB,
            "three quarters of what is shared, and half of the reserve"
        );
        for _ in 0..9 {
            assert!(budget.take(&mut share, MIB, Swift), "the same unit still takes data that have come");
        }
        assert!(!budget.take(&mut share, MIB, Swift));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut budget = Budget::new(64 * MIB);
        let mut share = Share::default();
        for kind in [Swift, Patient, Swift] {
            let mut taken = 0;
            while budget.take(&mut share, MIB, kind) {
                taken += 1;
            }
            assert_eq!(taken, if kind == Swift { 33 } else { 25 });
            budget.give(&mut share, taken * MIB, kind);
            assert!(!budget.is_scarce());
        }
    }

    #[test]
    fn a_request_larger_than_everything_passes_alone() {
        let mut budget = Budget::new(MIB);
        let mut share = Share::default();
        assert!(budget.take(&mut share, 16 * MIB, Patient));
        assert!(!budget.take(&mut share, 1, Patient));
        budget.give(&mut share, 16 * MIB, Patient);
        assert!(budget.take(&mut share, 1, Patient));
    }
}
