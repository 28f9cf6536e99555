//! The ledger of a logical unit: who holds it, by name, and what outlives the process; the saved mode values are kept with it.
//!
//! Pure: the single writer applies one change at a time, makes the bytes of [`Ledger::encode`] durable, and installs the
//! view that shards compare [`NexusId`]s against. Only here does a nexus have a name. RESERVE and RELEASE (SPC-2 §5.5.1)
//! are in this file, registrations and persistent reservations in `persistent`, the bytes that are kept in `keeping`.

mod keeping;
mod persistent;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::attention::UnitAttention;
use crate::persistent::{PersistentOut, Registrant, Registrations};
use crate::reservation::{NexusId, Reservation};
use crate::sense::Outcome;
use crate::unit::SavedModes;
use crate::work::Unfinished;

pub use keeping::{BootId, LEDGER_BYTES_MAX, LedgerDamage};
use persistent::Persistent;
pub use persistent::REGISTRANTS_MAX;

/// An I_T nexus by the names of its ends, as they stay the same over a new login (RFC 7143 §4.2.7, §10.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusName {
    initiator_port: String,
    target_port: String,
}

/// Longest name of a port, bytes: an iSCSI name of 223, its separator, and an ISID or a portal group tag.
pub const PORT_NAME_BYTES_MAX: usize = 256;
const _: () = assert!(PORT_NAME_BYTES_MAX <= u16::MAX as usize);

impl NexusName {
    /// The nexus between an initiator port (name and ISID) and a target port (name and portal group tag).
    ///
    /// # Panics
    /// When a name is longer than [`PORT_NAME_BYTES_MAX`]: login has bounded both.
    pub fn new(initiator_port: impl Into<String>, target_port: impl Into<String>) -> Self {
        let name = Self { initiator_port: initiator_port.into(), target_port: target_port.into() };
        assert!(name.initiator_port.len() <= PORT_NAME_BYTES_MAX, "initiator port: {}", name.initiator_port);
        assert!(name.target_port.len() <= PORT_NAME_BYTES_MAX, "target port: {}", name.target_port);
        name
    }

    /// Name of the initiator port.
    pub fn initiator_port(&self) -> &str {
        &self.initiator_port
    }

    /// Name of the target port.
    pub fn target_port(&self) -> &str {
        &self.target_port
    }
}

impl fmt::Display for NexusName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.initiator_port, self.target_port)
    }
}

/// A target port through which the unit may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// Its name, as [`NexusName`] has it.
    pub name: String,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_id: u16,
}

/// Which nexuses something is for. A nexus that the single writer has not granted yet is in none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Every nexus.
    All,
    /// Every nexus but the one that caused it.
    AllBut(NexusId),
    /// These.
    These(Vec<NexusId>),
}

impl Whom {
    /// Whether `nexus` is one of them.
    pub fn includes(&self, nexus: NexusId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(one) => *one != nexus,
            Self::These(these) => these.contains(&nexus),
        }
    }
}

/// A change that the ledger judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationChange {
    /// RESERVE.
    Reserve,
    /// RELEASE.
    Release,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the ledger is another one now: then it is made durable, and the view installed.
    pub changed: bool,
    /// The reservation as replicas shall know it.
    pub view: Reservation,
    /// Unit attentions due.
    pub attentions: Vec<(Whom, UnitAttention)>,
    /// Whose tasks are aborted.
    pub aborts: Option<Whom>,
}

/// Reservations of one logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Nexuses that have a session now. Not part of what is kept.
    attached: BTreeMap<NexusId, NexusName>,
    /// The target ports that there are now. Not part of what is kept.
    ports: Arc<[TargetPort]>,
    /// The holder of a RESERVE.
    reserved_by: Option<NexusName>,
    /// Registrations, and the persistent reservation.
    persistent: Persistent,
    /// What MODE SELECT saved.
    saved_modes: Option<SavedModes>,
    /// Work on the whole medium that is not known to have ended well.
    unfinished: Option<Unfinished>,
}

impl Ledger {
    /// Nobody holds anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session opens: from now on `id` stands for `name`. Returns the view, which changes when the nexus that holds the
    /// unit comes back.
    ///
    /// # Panics
    /// When `id` is attached already, or when `name` is, by a session whose loss was not told.
    pub fn attach(&mut self, id: NexusId, name: NexusName) -> Reservation {
        // Not in what is shipped: with thousands of nexuses each new one would look at all.
        debug_assert!(!self.attached.values().any(|other| *other == name), "{name} is attached twice");
        let before = self.attached.insert(id, name);
        assert!(before.is_none(), "{id:?} is attached twice");
        self.view()
    }

    /// The target ports through which the unit may be reached from now on. Returns the view, which names them.
    pub fn set_ports(&mut self, ports: Arc<[TargetPort]>) -> Reservation {
        self.ports = ports;
        self.view()
    }

    /// The target ports that it was told of.
    pub fn ports(&self) -> &Arc<[TargetPort]> {
        &self.ports
    }

    /// What MODE SELECT saved, if it ever did.
    pub fn saved_modes(&self) -> Option<SavedModes> {
        self.saved_modes
    }

    /// MODE SELECT saves these. Whether they are others than before: then the ledger is made durable.
    pub fn save_modes(&mut self, saved: SavedModes) -> bool {
        self.saved_modes.replace(saved) != Some(saved)
    }

    /// RELATIVE TARGET PORT IDENTIFIER of the port that a nexus comes by; `None` for one that is configured no more.
    ///
    /// # Panics
    /// When `nexus` is not attached.
    pub fn port_of(&self, nexus: NexusId) -> Option<u16> {
        let name = self.attached.get(&nexus).expect("a change comes from an attached nexus");
        self.ports.iter().find(|port| port.name == name.target_port).map(|port| port.relative_id)
    }

    /// Work on the whole medium that is not known to have ended well.
    pub fn unfinished(&self) -> Option<Unfinished> {
        self.unfinished
    }

    /// Such work begins, or is over. Whether that is news: then the ledger is made durable.
    pub fn set_unfinished(&mut self, unfinished: Option<Unfinished>) -> bool {
        std::mem::replace(&mut self.unfinished, unfinished) != unfinished
    }

    /// The reservation as replicas shall know it.
    pub fn view(&self) -> Reservation {
        match &self.reserved_by {
            Some(holder) => {
                let attached = self.attached.iter().find(|(_, name)| *name == holder);
                Reservation::Exclusive { holder: attached.map(|(id, _)| *id) }
            }
            None if self.persistent == Persistent::default() => Reservation::None,
            None => Reservation::Persistent(Arc::new(self.registrations())),
        }
    }

    fn registrations(&self) -> Registrations {
        let kept = &self.persistent;
        let relative_id = |name: &NexusName| {
            self.ports.iter().find(|port| port.name == name.target_port).map_or(0, |port| port.relative_id)
        };
        let registrants = kept.registrants.iter().map(|(name, key)| Registrant {
            key: *key,
            holder: kept.is_holder(name),
            relative_target_port: relative_id(name),
            initiator_port: name.initiator_port.clone(),
        });
        let here = self.attached.iter().filter(|(_, name)| kept.registrants.contains_key(name));
        Registrations {
            generation: kept.generation,
            persists: kept.persists,
            held: kept.held.as_ref().map(|held| held.kind),
            registrants: registrants.collect(),
            nexuses: here.map(|(id, name)| (*id, kept.is_holder(name))).collect(),
        }
    }

    /// Who holds the unit without having a session: restored from a former process.
    pub fn absent_holder(&self) -> Option<&NexusName> {
        self.reserved_by.as_ref().filter(|holder| !self.attached.values().any(|name| name == *holder))
    }

    /// Applies `change` from `me`.
    ///
    /// # Errors
    /// RESERVATION CONFLICT for RESERVE while another nexus holds the unit. RELEASE by who does not hold it is no error
    /// and changes nothing (SPC-2 §7.16). While anybody is registered both conflict, but for those whom SPC-4 §5.13.3
    /// excepts: for them both are GOOD and change nothing.
    ///
    /// # Panics
    /// When `me` is not attached.
    pub fn apply(&mut self, change: ReservationChange, me: NexusId) -> Result<Applied, Outcome> {
        let name = self.attached.get(&me).expect("a change comes from an attached nexus");
        if !self.persistent.registrants.is_empty() {
            return match self.persistent.is_entitled(name) {
                true => Ok(self.applied(false)),
                false => Err(Outcome::RESERVATION_CONFLICT),
            };
        }
        let mine = self.reserved_by.as_ref() == Some(name);
        match change {
            ReservationChange::Reserve if self.reserved_by.is_some() && !mine => {
                Err(Outcome::RESERVATION_CONFLICT)
            }
            ReservationChange::Reserve => {
                self.reserved_by = Some(name.clone());
                Ok(self.applied(!mine))
            }
            ReservationChange::Release => {
                if mine {
                    self.reserved_by = None;
                }
                Ok(self.applied(mine))
            }
        }
    }

    /// Applies a PERSISTENT RESERVE OUT from `me`.
    ///
    /// # Errors
    /// What the command ends with; nothing changes (SPC-4 §5.13, §6.16).
    ///
    /// # Panics
    /// When `me` is not attached.
    pub fn persistent_reserve_out(&mut self, out: &PersistentOut, me: NexusId) -> Result<Applied, Outcome> {
        let name = self.attached.get(&me).expect("a change comes from an attached nexus");
        // SPC-2 §5.5.1: a RESERVE keeps everybody from it, its holder too.
        if self.reserved_by.is_some() {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        let mut persistent = self.persistent.clone();
        let around = persistent::Around { me: name, attached: &self.attached, ports: &self.ports };
        let done = persistent.apply(out, &around)?;
        let attentions = done.attentions.into_iter().filter_map(|(names, attention)| {
            let these = self.sessions_of(&names);
            (!these.is_empty()).then_some((Whom::These(these), attention))
        });
        let attentions = attentions.collect();
        let aborts = done.aborted.map(|names| Whom::These(self.sessions_of(&names)));
        let changed = persistent != self.persistent;
        self.persistent = persistent;
        Ok(Applied { attentions, aborts, ..self.applied(changed) })
    }

    fn sessions_of(&self, names: &BTreeSet<NexusName>) -> Vec<NexusId> {
        self.attached.iter().filter(|(_, name)| names.contains(name)).map(|(id, _)| *id).collect()
    }

    /// The session of `id` is gone: logout, connection lost for good, or reinstated. A RESERVE goes with it (SPC-2 §5.5.1,
    /// SAM-5 §6.3.4), registrations stay (SPC-4 §5.13.1).
    pub fn nexus_lost(&mut self, id: NexusId) -> Applied {
        let name = self.attached.remove(&id);
        let held = name.is_some() && name == self.reserved_by;
        if held {
            self.reserved_by = None;
        }
        self.applied(held)
    }

    /// The holder that a restart left without a session did not come back in time: the same as the loss of its nexus.
    pub fn absent_holder_lost(&mut self) -> Applied {
        let absent = self.absent_holder().is_some();
        if absent {
            self.reserved_by = None;
        }
        self.applied(absent)
    }

    /// Logical unit reset, or target reset: a RESERVE ends (SPC-2 §5.5.1).
    pub fn logical_unit_reset(&mut self) -> Applied {
        let held = self.reserved_by.take().is_some();
        self.applied(held)
    }

    fn applied(&self, changed: bool) -> Applied {
        Applied { changed, view: self.view(), attentions: Vec::new(), aborts: None }
    }
}
