//! I_T nexuses: the names of both ends, and the number by which the data path compares them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use portico_scsi::ledger::NexusName;
use portico_scsi::reservation::NexusId;

/// Names that are remembered after the last hold was let go: the oldest are forgotten first.
pub(crate) const REMEMBERED_MAX: usize = 16_384;

/// The name of the nexus between an initiator port (name and ISID) and a target port (RFC 7143 §4.4.2).
pub(crate) fn nexus_name(initiator: &str, isid: [u8; 6], target: &str, tag: u16) -> NexusName {
    let isid = isid.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    NexusName::new(format!("{initiator},i,0x{isid:012x}"), target_port_name(target, tag))
}

/// The name of the target port of a target: the portal group of this tag (RFC 7143 §4.4.2).
pub(crate) fn target_port_name(target: &str, tag: u16) -> String {
    format!("{target},t,0x{tag:04x}")
}

/// The numbers of all nexuses that anything refers to.
#[derive(Debug, Default)]
pub(crate) struct Nexuses {
    by_name: BTreeMap<NexusName, Nexus>,
    names: BTreeMap<NexusId, NexusName>,
    next: u64,
    remembered: BTreeSet<NexusName>,
    by_age: VecDeque<NexusName>,
}

#[derive(Debug)]
struct Nexus {
    id: NexusId,
    holders: u32,
}

impl Nexuses {
    /// The number of a nexus, made if it is new, and a hold on it: it stays the same until the last hold is let go.
    pub(crate) fn hold(&mut self, name: &NexusName) -> NexusId {
        if let Some(nexus) = self.by_name.get_mut(name) {
            nexus.holders += 1;
            return nexus.id;
        }
        self.next += 1;
        let id = NexusId(self.next);
        self.by_name.insert(name.clone(), Nexus { id, holders: 1 });
        self.names.insert(id, name.clone());
        id
    }

    /// One more hold on a nexus that somebody holds.
    pub(crate) fn hold_again(&mut self, id: NexusId) {
        let name = self.names.get(&id).expect("a nexus that is held is known");
        self.by_name.get_mut(name).expect("both maps have the same nexuses").holders += 1;
    }

    /// Lets a hold go.
    pub(crate) fn release(&mut self, id: NexusId) {
        let name = self.names.get(&id).expect("a nexus that is held is known");
        let nexus = self.by_name.get_mut(name).expect("both maps have the same nexuses");
        nexus.holders -= 1;
        if nexus.holders == 0 {
            self.by_name.remove(name);
            let name = self.names.remove(&id).expect("it was just there");
            self.remember(name);
        }
    }

    /// Whether a nexus of this name is, or lately was, known: what was between it and a unit was lost since.
    pub(crate) fn was_here_before(&self, name: &NexusName) -> bool {
        self.remembered.contains(name) || self.by_name.get(name).is_some_and(|nexus| nexus.holders > 1)
    }

    fn remember(&mut self, name: NexusName) {
        if !self.remembered.insert(name.clone()) {
            return;
        }
        self.by_age.push_back(name);
        if self.by_age.len() > REMEMBERED_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.remembered.remove(&oldest);
        }
    }

    /// Whether nothing refers to any nexus.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.names.is_empty()
    }

    #[cfg(test)]
    fn name(&self, id: NexusId) -> Option<&NexusName> {
        self.names.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(initiator: &str, isid: u8) -> NexusName {
        nexus_name(initiator, [isid; 6], "iqn.t", 1)
    }

    #[test]
    fn a_nexus_is_named_as_the_standard_has_it() {
        let name = nexus_name("iqn.a", [0x40, 0, 1, 0x37, 0, 2], "iqn.t", 1);
        assert_eq!(name.initiator_port(), "iqn.a,i,0x400001370002");
        assert_eq!(name.target_port(), "iqn.t,t,0x0001");
    }

    #[test]
    fn the_same_ports_are_the_same_nexus_while_anybody_refers_to_it() {
        let mut nexuses = Nexuses::default();
        let session = nexuses.hold(&port("a", 1));
        assert_eq!(nexuses.hold(&port("a", 1)), session);
        assert_ne!(nexuses.hold(&port("a", 2)), session, "another ISID is another initiator port");
        nexuses.release(session);
        assert_eq!(nexuses.hold(&port("a", 1)), session, "one hold was left");
    }

    #[test]
    fn names_are_remembered_within_a_bound() {
        let mut nexuses = Nexuses::default();
        for number in 0..=REMEMBERED_MAX {
            let name = port(&format!("iqn.{number}"), 1);
            assert!(!nexuses.was_here_before(&name));
            let id = nexuses.hold(&name);
            nexuses.release(id);
        }
        assert!(!nexuses.was_here_before(&port("iqn.0", 1)), "the oldest had to go");
        assert!(nexuses.was_here_before(&port("iqn.1", 1)));
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut nexuses = Nexuses::default();
        let before = nexuses.hold(&port("a", 1));
        nexuses.release(before);
        assert_eq!(nexuses.name(before), None);
        assert_ne!(nexuses.hold(&port("a", 1)), before);
    }
}
