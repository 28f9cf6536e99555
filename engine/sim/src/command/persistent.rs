//! PERSISTENT RESERVE OUT (SPC-4 §5.13, §6.16): registrations, reservations, and who takes them from whom.

use portico_iscsi::initiator::Direction;

use crate::history::{Action, End, Kind, Serial, Step};
use crate::hub::Hub;
use crate::initiator::Initiator;

use super::{Cdb, Ended, Menu, What};

/// The basic parameter list.
const LIST_BYTES: u8 = 24;
const APTPL: u8 = 0x01;

/// One PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    action: Action,
    asked: Step,
}

/// What this initiator may want to change, at a unit where initiators register. Mostly nobody else asks for anything
/// meanwhile: so it is known afterwards what is in force.
pub(super) fn draw(initiator: &Initiator, hub: &mut Hub, unit: usize) -> Option<What> {
    let mine = initiator
        .pending
        .values()
        .any(|one| one.wish.unit == unit && matches!(one.wish.what, What::PersistentReserve(_)));
    let others = hub.history.is_registering(unit);
    let registers = hub.disks[unit].character.registers.is_some() && initiator.habits.fences;
    if !registers || !hub.random.chance(1, 3) || mine || others && !hub.random.chance(1, 8) {
        return None;
    }
    let me = initiator.number;
    let kind = if hub.random.chance(2, 3) { Kind::WriteExclusiveRegistrants } else { Kind::WriteExclusive };
    let registered = hub.history.believes(unit, me);
    let registrants = |port: &usize| *port != me && hub.history.believes(unit, *port);
    let mut victims: Vec<usize> = (0..hub.ports).filter(registrants).collect();
    // Those matter who have something at the medium.
    if victims.iter().any(|port| hub.history.is_at_medium(unit, *port)) {
        victims.retain(|port| hub.history.is_at_medium(unit, *port));
    }
    let action = match hub.random.below(24) {
        0..20 if !registered => Action::Register { ignores: hub.random.chance(3, 4) },
        0..6 => Action::Reserve(kind),
        6..20 if !victims.is_empty() => {
            let victim = victims[hub.random.index(victims.len())];
            let aborts = initiator.habits.menu == Menu::Fencing || hub.random.chance(1, 2);
            Action::Preempt { victim, kind, aborts }
        }
        20 | 21 => Action::Release(kind),
        22 => Action::Clear,
        23 => Action::Unregister,
        _ => return None,
    };
    Some(What::PersistentReserve(Out { action, asked: 0 }))
}

/// What a port registers.
const fn key(port: usize) -> u64 {
    0x9000 + port as u64
}

impl Out {
    pub(super) fn cdb(self) -> Cdb {
        let (action, kind) = match self.action {
            Action::Register { ignores: false } | Action::Unregister => (0, 0),
            Action::Reserve(kind) => (1, kind.code()),
            Action::Release(kind) => (2, kind.code()),
            Action::Clear => (3, 0),
            Action::Preempt { aborts: false, kind, .. } => (4, kind.code()),
            Action::Preempt { aborts: true, kind, .. } => (5, kind.code()),
            Action::Register { ignores: true } => (6, 0),
        };
        let cdb = Cdb::without_data([0x5f, action, kind, 0, 0, 0, 0, 0, LIST_BYTES, 0]);
        Cdb { direction: Direction::Write, data_bytes: LIST_BYTES.into(), ..cdb }
    }

    pub(super) fn begin(
        &mut self,
        hub: &mut Hub,
        unit: usize,
        (port, session): (usize, Serial),
        list: &mut [u8],
    ) {
        let persists = hub.disks[unit].character.registers == Some(true);
        self.asked = hub.history.register_asked(unit, (port, session), self.action);
        let (mine, other) = match self.action {
            // Who is not registered has no key to show.
            Action::Register { .. } => (0, key(port)),
            Action::Preempt { victim, .. } => (key(port), key(victim)),
            _ => (key(port), 0),
        };
        list[..8].copy_from_slice(&mine.to_be_bytes());
        list[8..16].copy_from_slice(&other.to_be_bytes());
        if matches!(self.action, Action::Register { .. } | Action::Unregister) && persists {
            list[20] = APTPL;
        }
    }

    pub(super) fn judge(self, hub: &mut Hub, unit: usize, session: Serial, end: Ended) {
        match end {
            Ended::Good => {
                hub.history.register_done(unit, session, self.asked);
                let persists = hub.disks[unit].character.registers == Some(true);
                let cut = persists && hub.random.chance(1, 2);
                hub.opportune = Some(if cut { End::PowerCut } else { End::Killed });
            }
            Ended::Conflict | Ended::Refused => {
                let conflict = end == Ended::Conflict;
                hub.history.register_refused(unit, session, self.asked, conflict);
            }
            Ended::Miscompare | Ended::Otherwise => {
                hub.history.register_lost(unit, session, self.asked);
            }
        }
    }
}
