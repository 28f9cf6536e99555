//! Reservations: what a shard's replica knows of them, and the rules by class of command.
//!
//! The classes are those of SPC-4 table 82 and SBC-3 table 34 (persistent reservations), and of SPC-2 §5.5.1 (RESERVE and
//! RELEASE). A command's class is data in the opcode table; its fate under a reservation is decided here and nowhere
//! else, so a command cannot slip past by being forgotten in a list. Names of initiators and what outlives the process
//! are the [`Ledger`](crate::ledger::Ledger)'s.

/// An I_T nexus, as the data path compares it: control hands these out and never reuses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusId(pub u64);

/// What a command does, as far as reservations and write protection care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandClass {
    /// Passes every reservation: INQUIRY, REPORT LUNS, REQUEST SENSE, READ CAPACITY, RELEASE.
    Unrestricted,
    /// Passes persistent reservations, not RESERVE: TEST UNIT READY.
    Inspect,
    /// Reads the medium.
    Read,
    /// Neither reads nor writes blocks and yet conflicts: mode parameters, SYNCHRONIZE CACHE, RESERVE.
    Configure,
    /// Writes the medium; write protection refuses it too.
    Write,
}

impl CommandClass {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Unrestricted, Self::Inspect, Self::Read, Self::Configure, Self::Write];
}

/// Who holds the unit, as a replica knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reservation {
    /// Nobody.
    #[default]
    None,
    /// RESERVE (6) or (10): this nexus and no other; `None` when the holder has no session at present, so that the
    /// reservation refuses everybody.
    Exclusive {
        /// The holder.
        holder: Option<NexusId>,
    },
}

impl Reservation {
    /// Whether a command of `class` from `me` passes.
    #[inline]
    pub fn admits(&self, me: NexusId, class: CommandClass) -> bool {
        match self {
            Self::None => true,
            Self::Exclusive { holder } => *holder == Some(me) || class == CommandClass::Unrestricted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOLDER: NexusId = NexusId(1);
    const OTHER: NexusId = NexusId(2);

    #[test]
    fn reserve_lets_others_do_only_what_harms_nobody() {
        let reservation = Reservation::Exclusive { holder: Some(HOLDER) };
        for class in CommandClass::ALL {
            assert!(reservation.admits(HOLDER, class), "the holder: {class:?}");
            assert_eq!(reservation.admits(OTHER, class), class == CommandClass::Unrestricted, "{class:?}");
        }
    }

    #[test]
    fn an_absent_holder_is_still_a_holder() {
        let reservation = Reservation::Exclusive { holder: None };
        assert!(!reservation.admits(HOLDER, CommandClass::Write));
        assert!(reservation.admits(OTHER, CommandClass::Unrestricted));
    }

    proptest! {
        #[test]
        fn without_a_reservation_everything_passes(me: u64, class in 0usize..5) {
            prop_assert!(Reservation::None.admits(NexusId(me), CommandClass::ALL[class]));
        }
    }
}
