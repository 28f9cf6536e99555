//! Reservations: what a shard's replica knows of them, and the rules by class of command.
//!
//! The classes are those of SPC-4 §5.13.1 and SBC-3 §4.17 (persistent reservations), and of SPC-2 §5.5.1
//! (RESERVE and RELEASE). A command's class is data in the opcode table; its fate under a reservation is decided here and nowhere
//! else, so a command cannot slip past by being forgotten in a list. Names of initiators and what outlives the process
//! are the [`Ledger`](crate::ledger::Ledger)'s.

use std::sync::Arc;

use crate::persistent::Registrations;

/// An I_T nexus, as the data path compares it: control hands these out and never reuses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusId(pub u64);

/// What a command does, as far as reservations and write protection care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandClass {
    /// Passes every reservation: INQUIRY, REPORT LUNS, REQUEST SENSE, READ CAPACITY.
    Unrestricted,
    /// Passes persistent reservations, not RESERVE: TEST UNIT READY.
    Inspect,
    /// Reads the medium, or what only somebody needs to know who may read it: READ, VERIFY, MODE SENSE, the reports of
    /// what is supported.
    Read,
    /// Writes no blocks and conflicts as if it did: MODE SELECT, SYNCHRONIZE CACHE.
    Configure,
    /// RESERVE: conflicts with whatever else is held, but for the exceptions of SPC-4 §5.13.3.
    Reserve,
    /// RELEASE: passes a RESERVE; as RESERVE while anybody is registered.
    Release,
    /// PERSISTENT RESERVE IN and OUT: conflict with a RESERVE, their own holder's too (SPC-2 §5.5.1). Whether a service
    /// action conflicts with a persistent reservation (SPC-4 §5.13.1) is the ledger's to say.
    PersistentReserve,
    /// Writes the medium; write protection refuses it too.
    Write,
}

impl CommandClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Unrestricted,
        Self::Inspect,
        Self::Read,
        Self::Configure,
        Self::Reserve,
        Self::Release,
        Self::PersistentReserve,
        Self::Write,
    ];
}

/// Who holds the unit, as a replica knows it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
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
    /// Somebody is, or was, registered.
    Persistent(Arc<Registrations>),
}

impl Reservation {
    /// Whether a command of `class` from `me` passes.
    #[inline]
    pub fn admits(&self, me: NexusId, class: CommandClass) -> bool {
        match self {
            Self::None => true,
            Self::Exclusive { holder } => match class {
                CommandClass::Unrestricted | CommandClass::Release => true,
                CommandClass::PersistentReserve => false,
                _ => *holder == Some(me),
            },
            Self::Persistent(registrations) => registrations.admits(me, class),
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
            let harmless = matches!(class, CommandClass::Unrestricted | CommandClass::Release);
            let persistent = class == CommandClass::PersistentReserve;
            assert_eq!(reservation.admits(HOLDER, class), !persistent, "the holder: {class:?}");
            assert_eq!(reservation.admits(OTHER, class), harmless, "{class:?}");
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
        fn without_a_reservation_everything_passes(me: u64, class in 0usize..8) {
            prop_assert!(Reservation::None.admits(NexusId(me), CommandClass::ALL[class]));
        }
    }
}
