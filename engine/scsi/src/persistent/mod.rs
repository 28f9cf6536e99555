//! Persistent reservations (SPC-4 §5.13): the six types, what a replica knows of registrants, and the two commands.
//!
//! | file | what |
//! |---|---|
//! | `out` | the parameter list of PERSISTENT RESERVE OUT as a value |
//! | `report` | what PERSISTENT RESERVE IN answers |
//! | `transport_id` | the names of initiator ports as bytes (§7.6.4.6) |
//!
//! What a service action comes to is the [`Ledger`](crate::ledger::Ledger)'s business.

pub(crate) mod out;
pub(crate) mod report;
mod transport_id;

use crate::reservation::{CommandClass, NexusId};

pub use out::{OutAction, PersistentOut, Registering};
pub use transport_id::TransportId;

/// TYPE of a persistent reservation (SPC-4 §6.15.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PersistentType {
    /// 1h.
    WriteExclusive = 0x1,
    /// 3h.
    ExclusiveAccess = 0x3,
    /// 5h.
    WriteExclusiveRegistrantsOnly = 0x5,
    /// 6h.
    ExclusiveAccessRegistrantsOnly = 0x6,
    /// 7h.
    WriteExclusiveAllRegistrants = 0x7,
    /// 8h.
    ExclusiveAccessAllRegistrants = 0x8,
}

impl PersistentType {
    /// Every type, by its code.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// The type of this code; the others are obsolete or reserved.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Its code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it keeps others from writing only.
    pub const fn lets_others_read(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive | Self::WriteExclusiveRegistrantsOnly | Self::WriteExclusiveAllRegistrants
        )
    }

    /// Whether every registrant may do what its holder may.
    pub const fn lets_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether every registrant holds it.
    pub const fn all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }
}

/// Whether a CDB is PERSISTENT RESERVE OUT with PREEMPT AND ABORT.
#[must_use]
pub fn is_preempt_and_abort(cdb: &[u8]) -> bool {
    matches!(cdb, [0x5f, action, ..] if action & 0x1f == 0x05)
}

/// SCOPE and TYPE of a CDB's byte 2, as they came: some service actions ignore them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeType(pub u8);

impl ScopeType {
    /// SCOPE; LU_SCOPE, 0h, is the only one that there is.
    pub const fn scope(self) -> u8 {
        self.0 >> 4
    }

    /// TYPE, where it is one.
    pub fn kind(self) -> Option<PersistentType> {
        PersistentType::from_code(self.0 & 0x0f)
    }
}

/// One registration, as PERSISTENT RESERVE IN shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Its reservation key; never 0.
    pub key: u64,
    /// Whether it holds the reservation, alone or with all others.
    pub holder: bool,
    /// RELATIVE TARGET PORT IDENTIFIER of its target port; 0 when that port is not configured any more.
    pub relative_target_port: u16,
    /// Name of its initiator port.
    pub initiator_port: String,
}

/// What a replica knows of registrations and the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrations {
    /// PRGENERATION.
    pub generation: u32,
    /// PTPL_A: everything here survives a loss of power.
    pub persists: bool,
    /// TYPE of the reservation, if there is one.
    pub held: Option<PersistentType>,
    /// In the order of their names.
    pub registrants: Vec<Registrant>,
    /// Of those that have a session: the nexus, and whether it holds the reservation. Ascending.
    pub nexuses: Vec<(NexusId, bool)>,
}

impl Registrations {
    /// Whether a command of `class` from `me` passes (SPC-4 §5.13.1, SBC-3 §4.17).
    pub fn admits(&self, me: NexusId, class: CommandClass) -> bool {
        match class {
            CommandClass::Unrestricted | CommandClass::Inspect | CommandClass::PersistentReserve => true,
            // SPC-2 §5.5.1: with anybody registered both conflict, whoever sends them, but for the exceptions of SPC-4.
            CommandClass::Reserve | CommandClass::Release => self.registrants.is_empty() || self.entitled(me),
            CommandClass::Read => self.held.is_none_or(|kind| kind.lets_others_read()) || self.entitled(me),
            CommandClass::Configure | CommandClass::Write => self.held.is_none() || self.entitled(me),
        }
    }

    /// Whether the reservation is `me`'s to use: its holder, or a registrant where registrants may. Likewise the nexuses
    /// for which RESERVE and RELEASE are GOOD and do nothing (SPC-4 §5.13.3).
    fn entitled(&self, me: NexusId) -> bool {
        let Some(kind) = self.held else { return false };
        match self.nexuses.binary_search_by_key(&me, |(nexus, _)| *nexus) {
            Ok(at) => kind.lets_registrants() || self.nexuses[at].1,
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_by_its_code_and_nothing_else_is_one() {
        for code in 0..=u8::MAX {
            let found = PersistentType::from_code(code);
            assert_eq!(found.is_some(), [1, 3, 5, 6, 7, 8].contains(&code), "{code}");
            assert!(found.is_none_or(|kind| kind.code() == code));
        }
    }
}
