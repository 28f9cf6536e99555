//! Who may hold how many bytes of the shard's arena.
//!
//! Each logical unit has a reserve that nobody else can take, and beyond it shares the rest with all. Bookings are of two
//! kinds: *swift* ones end by themselves (a READ, data that have come), *patient* ones wait for an initiator to send, who
//! may never do it. Patient ones get one half of each reserve and a part of what is shared: writers that announce much and send
//! nothing starve each other, and nobody who sends.
//!
//! Of what is shared each session has a share of its own, and takes more than it only while one half is free. So one session,
//! whatever it announces or does not read, leaves the others theirs. Data that have come before their command's turn, of which
//! nobody knows yet where they belong, are in an account of their own within what is shared (*early*), by the same rule.
//!
//! What is kept to be sent again (above recovery level 0) is copied and lies beside the arena: it has an account of its own, as
//! large as the arena, and each connection a share of it by the same rule.
//!
//! Nothing is allocated here: this is the account, the arena is the till. The order of defence when the account is short is
//! the caller's (ARCHITECTURE, Scarcity).

use crate::task::PIECE_BYTES_MAX;

/// The account of one shard.
#[derive(Debug)]
pub struct Budget {
    shared_total: u64,
    shared_used: u64,
    shared_patient: u64,
    /// Of `shared_used`: data before their command's turn.
    early: u64,
    /// Of each unit, for each kind of booking.
    reserve: u64,
    kept_total: u64,
    kept: u64,
}

/// One logical unit's part of the account.
#[derive(Debug, Default)]
pub struct Share {
    swift: u64,
    patient: u64,
}

/// What one session has booked, of all units.
#[derive(Debug, Default)]
pub struct Holding {
    swift: u64,
    patient: u64,
    early: u64,
}

/// What a booking waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A medium, or nothing.
    Swift,
    /// An initiator.
    Patient,
}

/// Why bytes are not to be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// There are none for anybody on this unit.
    Unit,
    /// The session has had its share; another one would get them.
    Session,
}

/// Logical units that get a reserve; with more than this the reserve of each shrinks.
const UNITS_PLANNED: u64 = 16;
/// Sessions whose shares make up the whole.
const SESSIONS_PLANNED: u64 = 32;
/// The least share of a session: with it any command goes on, piece by piece.
const SESSION_SHARE_MIN: u64 = PIECE_BYTES_MAX as u64;
/// The part of what is shared that patient bookings may take.
const PATIENT_PARTS: u64 = 3;
/// The part of what is shared that early data may take.
const EARLY_PARTS: u64 = 1;
/// Of so many.
const PARTS: u64 = 4;

const _: () =
    assert!(PATIENT_PARTS < PARTS && EARLY_PARTS < PARTS, "who sends in order always finds something");

impl Budget {
    /// An account of `arena_bytes`, half of which is set aside as reserves of the units.
    #[must_use]
    pub fn new(arena_bytes: u64) -> Self {
        Self {
            shared_total: arena_bytes / 2,
            shared_used: 0,
            shared_patient: 0,
            early: 0,
            reserve: reserve_of(arena_bytes, UNITS_PLANNED),
            kept_total: arena_bytes,
            kept: 0,
        }
    }

    /// Tells the account how many units divide the reserve. What is out stays out.
    pub fn set_units<'a>(&mut self, units: u64, shares: impl Iterator<Item = &'a Share>, arena_bytes: u64) {
        self.reserve = reserve_of(arena_bytes, units.max(UNITS_PLANNED));
        (self.shared_used, self.shared_patient) = (self.early, 0);
        for share in shares {
            let patient = share.patient.saturating_sub(self.reserve);
            self.shared_patient += patient;
            self.shared_used += patient + share.swift.saturating_sub(self.reserve);
        }
    }

    /// Books `bytes` for the unit and the session.
    ///
    /// # Errors
    /// They are not to be had now, and whom that concerns.
    pub fn take(
        &mut self,
        share: &mut Share,
        holding: &mut Holding,
        bytes: u64,
        kind: Kind,
    ) -> Result<(), Short> {
        let (used, held) = (*share.of(kind), *holding.of(kind));
        let more = self.shared_part(used, bytes);
        let all_left = self.shared_total.saturating_sub(self.shared_used);
        let (total, left) = match kind {
            Kind::Swift => (self.shared_total, all_left),
            Kind::Patient => {
                let total = self.shared_total * PATIENT_PARTS / PARTS;
                (total, all_left.min(total.saturating_sub(self.shared_patient)))
            }
        };
        // A single request larger than all there is must not wait for ever: with nothing else of its kind out it passes.
        if more > 0 && used > 0 {
            admit(held, bytes, more, left, total)?;
        }
        self.charge(share, holding, bytes, kind);
        Ok(())
    }

    /// The same for bytes that have a bound elsewhere, whether they are to be had or not.
    pub fn charge(&mut self, share: &mut Share, holding: &mut Holding, bytes: u64, kind: Kind) {
        let used = share.of(kind);
        let more = self.shared_part(*used, bytes);
        self.shared_used += more;
        if kind == Kind::Patient {
            self.shared_patient += more;
        }
        *used += bytes;
        *holding.of(kind) += bytes;
    }

    /// Of further bytes, those that are beyond the reserve of a unit that uses so many.
    fn shared_part(&self, used: u64, bytes: u64) -> u64 {
        (used + bytes).saturating_sub(self.reserve) - used.saturating_sub(self.reserve)
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

    /// Books `bytes` that have come before their command's turn.
    ///
    /// # Errors
    /// They are not to be had.
    pub fn take_early(&mut self, holding: &mut Holding, bytes: u64) -> Result<(), Short> {
        let total = self.shared_total * EARLY_PARTS / PARTS;
        let left = total.saturating_sub(self.early).min(self.shared_total.saturating_sub(self.shared_used));
        admit(holding.early, bytes, bytes, left, total)?;
        self.early += bytes;
        self.shared_used += bytes;
        holding.early += bytes;
        Ok(())
    }

    /// Gives early bytes back: of a session that has ended, without its holding.
    ///
    /// # Panics
    /// When more comes back than was taken.
    pub fn give_early(&mut self, holding: Option<&mut Holding>, bytes: u64) {
        self.early = self.early.checked_sub(bytes).expect("no more comes back than was taken");
        self.shared_used = self.shared_used.saturating_sub(bytes);
        if let Some(holding) = holding {
            holding.early -= bytes;
        }
    }

    /// Whether a connection that keeps `held` bytes may keep `bytes` more.
    #[must_use]
    pub fn has_room_to_keep(&self, held: u64, bytes: u64) -> bool {
        let left = self.kept_total.saturating_sub(self.kept);
        admit(held, bytes, bytes, left, self.kept_total).is_ok()
    }

    /// A connection keeps `now` bytes, where it kept `before`.
    ///
    /// # Panics
    /// When it did not.
    pub fn rebook_kept(&mut self, before: u64, now: u64) {
        self.kept = self.kept.checked_sub(before).expect("what was kept was booked") + now;
    }

    /// Bytes that all connections keep.
    #[must_use]
    pub const fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether less than a quarter of what is shared is left: then command windows stop growing.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.shared_used * 4 > self.shared_total * 3
    }
}

/// Whether a session that holds `held` of what is shared, `left` of `total`, gets `bytes` that need `more` of it.
fn admit(held: u64, bytes: u64, more: u64, left: u64, total: u64) -> Result<(), Short> {
    let share = (total / SESSIONS_PLANNED).max(SESSION_SHARE_MIN);
    if held + bytes > share && left.saturating_sub(more) < total / 2 {
        Err(Short::Session)
    } else if more > left {
        Err(Short::Unit)
    } else {
        Ok(())
    }
}

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

impl Holding {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Swift => &mut self.swift,
            Kind::Patient => &mut self.patient,
        }
    }

    /// The session has `bytes` less.
    ///
    /// # Panics
    /// When it did not have as many.
    pub fn give(&mut self, bytes: u64, kind: Kind) {
        let held = self.of(kind);
        *held = held.checked_sub(bytes).expect("a session gives back what it took");
    }

    /// Whether data of it came before their command's turn, and are still here.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.early > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Patient, Swift};

    const MIB: u64 = 1 << 20;

    /// An account of 64 MiB, and so many sessions on one unit.
    struct Bank<const SESSIONS: usize> {
        budget: Budget,
        share: Share,
        holdings: [Holding; SESSIONS],
    }

    impl<const SESSIONS: usize> Bank<SESSIONS> {
        fn new() -> Self {
            Self {
                budget: Budget::new(64 * MIB),
                share: Share::default(),
                holdings: std::array::from_fn(|_| Holding::default()),
            }
        }

        fn take(&mut self, session: usize, bytes: u64, kind: Kind) -> Result<(), Short> {
            self.budget.take(&mut self.share, &mut self.holdings[session], bytes, kind)
        }

        fn give(&mut self, session: usize, bytes: u64, kind: Kind) {
            self.budget.give(&mut self.share, bytes, kind);
            self.holdings[session].give(bytes, kind);
        }

        /// Takes as much as it gets; how much, and why no more.
        fn plunder(&mut self, session: usize, kind: Kind) -> (u64, Short) {
            for taken in 0.. {
                if let Err(short) = self.take(session, MIB / 4, kind) {
                    return (taken * MIB / 4, short);
                }
            }
            unreachable!("an account has an end")
        }
    }

    #[test]
    fn one_unit_cannot_take_what_is_reserved_for_another() {
        let mut bank = Bank::<64>::new();
        let taken: u64 = (0..64).map(|session| bank.plunder(session, Swift).0).sum();
        assert!(bank.budget.is_scarce());
        assert_eq!(taken, 32 * MIB + MIB, "all that is shared and its own reserve");
        let (mut modest, mut session) = (Share::default(), Holding::default());
        let mut take = |bank: &mut Bank<64>| bank.budget.take(&mut modest, &mut session, MIB, Swift);
        assert_eq!(take(&mut bank), Ok(()), "the other's reserve is there");
        assert_eq!(take(&mut bank), Err(Short::Session));
        bank.give(0, 17 * MIB, Swift);
        assert_eq!(take(&mut bank), Ok(()));
    }

    #[test]
    fn writers_that_never_send_starve_nobody_who_does() {
        let mut bank = Bank::<64>::new();
        let taken: u64 = (0..64).map(|session| bank.plunder(session, Patient).0).sum();
        assert_eq!(taken, 24 * MIB + MIB, "three quarters of what is shared, and half of the reserve");
        for _ in 0..36 {
            assert_eq!(bank.take(0, MIB / 4, Swift), Ok(()), "the same unit still takes data that have come");
            bank.holdings.rotate_left(1);
        }
        assert_eq!(bank.take(0, MIB / 4, Swift), Err(Short::Unit));
    }

    #[test]
    fn a_session_that_announces_all_it_may_leaves_the_others_their_shares() {
        for kind in [Swift, Patient] {
            let mut bank = Bank::<32>::new();
            let total = if kind == Swift { 32 * MIB } else { 24 * MIB };
            let (taken, short) = bank.plunder(0, kind);
            assert_eq!((taken, short), (total / 2 + MIB, Short::Session), "one half, and the unit's reserve");
            for session in 1..=16 {
                let (taken, short) = bank.plunder(session, kind);
                assert_eq!(taken, total / 32, "{kind:?} {session}");
                assert!(session == 16 || short == Short::Session);
            }
            assert_eq!(bank.plunder(17, kind), (0, Short::Unit), "{kind:?}");
        }
    }

    #[test]
    fn in_a_small_arena_a_share_is_still_one_piece() {
        let mut budget = Budget::new(4 * MIB);
        let (mut share, mut greedy, mut modest) = Default::default();
        while budget.take(&mut share, &mut greedy, MIB / 4, Patient).is_ok() {}
        assert_eq!(budget.take(&mut share, &mut modest, MIB / 4, Patient), Ok(()));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut bank = Bank::<1>::new();
        for kind in [Swift, Patient, Swift] {
            let (taken, _) = bank.plunder(0, kind);
            assert_eq!(taken, if kind == Swift { 17 * MIB } else { 13 * MIB });
            bank.give(0, taken, kind);
            assert!(!bank.budget.is_scarce());
        }
    }

    #[test]
    fn a_request_larger_than_everything_passes_alone() {
        let mut budget = Budget::new(MIB);
        let (mut share, mut session) = Default::default();
        assert_eq!(budget.take(&mut share, &mut session, 16 * MIB, Patient), Ok(()));
        assert!(budget.take(&mut share, &mut session, 1, Patient).is_err());
        budget.give(&mut share, 16 * MIB, Patient);
        session.give(16 * MIB, Patient);
        assert_eq!(budget.take(&mut share, &mut session, 1, Patient), Ok(()));
    }

    #[test]
    fn early_data_have_an_account_of_their_own_and_each_session_a_share_of_it() {
        let mut bank = Bank::<32>::new();
        let early = |bank: &mut Bank<32>, session: usize| {
            let mut taken = 0;
            while bank.budget.take_early(&mut bank.holdings[session], MIB / 8).is_ok() {
                taken += MIB / 8;
            }
            taken
        };
        assert_eq!(early(&mut bank, 0), 4 * MIB, "one half of a quarter of what is shared");
        for session in 1..=16 {
            assert_eq!(early(&mut bank, session), MIB / 4);
        }
        assert_eq!(early(&mut bank, 17), 0);
        assert!(!bank.budget.is_scarce());
        let shares = [Share::default()];
        bank.budget.set_units(1, shares.iter(), 64 * MIB);
        assert_eq!(bank.budget.shared_used, 8 * MIB, "another unit changes nothing about them");
        bank.budget.give_early(Some(&mut bank.holdings[0]), 4 * MIB);
        bank.budget.give_early(None, 4 * MIB);
        assert_eq!((bank.budget.shared_used, bank.holdings[0].is_early()), (0, false));
    }
}
