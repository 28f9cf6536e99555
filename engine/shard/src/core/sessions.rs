//! Sessions that come, change their map, and end.

use std::sync::Arc;

use portico_model::identity::SessionId;
use portico_model::lun_map::LunMap;
use portico_model::message::{EndReason, Orphan, ToControl};
use portico_scsi::attention::UnitAttention;

use super::Core;
use super::claims::lends;
use crate::directory::{Place, target_ports};
use crate::driver::Driver;
use crate::session::Session;
use crate::slab::Key;
use crate::task::{End, Task, Work};

impl<D: Driver> Core<D> {
    /// Takes a session in; its connection is already there.
    pub fn adopt(&mut self, session: Session) -> Key<Session> {
        let id = session.id;
        let key = self.sessions.insert(session);
        self.session_keys.insert(id, key);
        self.note_alignment(key);
        key
    }

    fn note_alignment(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let wants = |unit| self.units.get(unit).is_some_and(|unit| unit.memory_alignment > SEGMENT_ALIGNMENT);
        session.wants_aligned = session.luns.iter().any(|lun| wants(lun.unit));
        session.lends = session.luns.iter().any(|lun| self.units.get(lun.unit).is_some_and(lends));
    }

    /// A medium has come or gone: sessions that see it may want other memory.
    pub fn note_alignments(&mut self) {
        for index in 0..self.sessions.places() {
            if let Some(key) = self.sessions.key_at(index) {
                self.note_alignment(key);
            }
        }
    }

    /// The configuration is another one: target ports may have come, gone, or have other relative identifiers, of which
    /// page 88 tells (SPC-4 §7.8.14).
    pub fn renumber_ports(&mut self) {
        for (_, session) in self.sessions.iter_mut() {
            let target_name = session.target_name.as_deref();
            let place = Place::of(&self.configuration, target_name, session.portal_group_tag);
            // A session whose target is gone ends.
            if place.relative_target_port != 0 {
                session.relative_target_port = place.relative_target_port;
                let ports = target_ports(&self.configuration, target_name);
                if ports != session.target_ports {
                    session.target_ports = ports;
                    session.establish_everywhere(UnitAttention::InquiryDataChanged);
                }
            }
        }
    }

    /// Another map for a session. The initiator is told that the inventory is another (SPC-4 §6.33).
    pub fn remap(&mut self, id: SessionId, map: Arc<LunMap>) {
        let Some(&key) = self.session_keys.get(&id) else { return };
        let gone = self.tasks_where(|task| {
            let Some(at) = task.lun.filter(|_| task.session == key) else { return false };
            let session = self.sessions.get(key).expect("a session with a name is there");
            let before = session.luns.get(at).map(|lun| lun.entry);
            before.is_none_or(|entry| map.find(entry.lun).map(|now| now.unit) != Some(entry.unit))
        });
        for task in gone {
            self.abort(task, None);
        }
        self.remap_copies(key, &map);
        let session = self.sessions.get_mut(key).expect("a session with a name is there");
        let before: Vec<u16> = session.luns.iter().map(|state| state.entry.lun).collect();
        session.remap(map, |unit| self.unit_keys.get(&unit).copied());
        session.establish_everywhere(UnitAttention::ReportedLunsChanged);
        self.renumber_tasks(key, &before);
        self.announce_inventory(key);
        self.note_alignment(key);
    }

    /// A copy reaches the units of the new map and no others: its next piece finds nobody at an end that was taken out, and
    /// may not be written where the map lets the nexus read only.
    fn remap_copies(&mut self, key: Key<Session>, map: &LunMap) {
        for (_, task) in self.tasks.iter_mut().filter(|(_, task)| task.session == key) {
            let Work::Copy(copying) = &mut task.work else { continue };
            for end in &mut copying.ends {
                let Some(unit) = self.units.get(end.unit) else { continue };
                let mut entries = map.entries().iter().filter(|entry| entry.unit == unit.id).peekable();
                if entries.peek().is_none() {
                    *end = End::default();
                }
                end.read_only = entries.all(|entry| entry.read_only);
            }
        }
    }

    /// Tasks remember the index of their LUN, which a new map may have moved, and are counted there. One whose LUN leads
    /// elsewhere now, and that waits for its pieces at the medium, is counted nowhere.
    fn renumber_tasks(&mut self, key: Key<Session>, before: &[u16]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        for (_, task) in self.tasks.iter_mut().filter(|(_, task)| task.session == key) {
            let at = task.lun.and_then(|at| session.find(before[at]));
            task.lun = at.filter(|at| Some(session.luns[*at].unit) == task.unit);
            let Some(at) = task.lun else { continue };
            session.luns[at].tasks += 1;
            session.luns[at].behind += u32::from(task.is_behind());
            session.luns[at].lines.join(task.waits);
        }
    }

    /// A session is over: its tasks are aborted, what it writes or clears at a medium becomes orphans, control is told.
    pub fn end_session(&mut self, key: Key<Session>, reason: EndReason) {
        let Some(session) = self.sessions.get(key) else { return };
        let id = session.id;
        self.forget_managements(|_, management| management.session == key);
        let tasks: Vec<Key<Task>> = self.tasks_where(|task| task.session == key);
        for task in tasks {
            self.abort(task, None);
        }
        let orphans = self.orphan_writes(key);
        let session = self.sessions.remove(key).expect("it was just there");
        self.seated -= session.connections().count();
        session.links.iter().flatten().for_each(|link| self.unbook_kept(link));
        self.session_keys.remove(&id);
        self.outbox.push_back(ToControl::SessionEnded { session: id, reason, orphans });
    }

    /// The session ends with its last connection, and each of these when its list is sent.
    pub fn end_after_list(&mut self, key: Key<Session>, reason: EndReason) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.over = Some(reason);
        self.ending.extend(session.connections().map(|connection| (connection, reason)));
        if session.connections().next().is_none() {
            self.end_session(key, reason);
        }
    }

    /// Makes orphans of a session's pieces at a medium that modify it.
    fn orphan_writes(&mut self, key: Key<Session>) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for index in 0..self.ops.places() {
            let Some(op_key) = self.ops.key_at(index) else { continue };
            let op = self.ops.get(op_key).expect("it was just found");
            let of_session = self.tasks.get(op.task).is_some_and(|task| task.session == key);
            if !of_session || !op.kind.modifies() || op.orphan.is_some() {
                continue;
            }
            let serial = self.serial();
            let op = self.ops.get_mut(op_key).expect("it was just found");
            op.orphan = Some(serial);
            let Some(unit) = self.units.get_mut(op.unit) else { continue };
            let orphan = Orphan {
                shard: self.shard,
                serial,
                unit: unit.id,
                lba: op.blocks.lba,
                blocks: op.blocks.count,
            };
            unit.add_orphan(orphan);
            orphans.push(orphan);
        }
        orphans
    }
}

/// Alignment that any place in a connection's staging has: PDUs are padded to 4 bytes (RFC 7143 §11.1).
const SEGMENT_ALIGNMENT: usize = 4;
