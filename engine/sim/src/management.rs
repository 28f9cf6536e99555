//! Task management as an initiator asks for it (RFC 7143 §11.5, SAM-5 §7), and what its answers mean for what is open.
//!
//! A function is a variant of [`Managed`], its code and LUN in [`Initiator::manage`], and an arm in [`Initiator::managed`].

use portico_iscsi::initiator::Tag;
use portico_iscsi::moment::Moment;
use portico_iscsi::wire::{TaskManagementFunction, TaskManagementResult};

use crate::history::{Oracle, Step};
use crate::hub::Hub;
use crate::initiator::{Initiator, lun_of};

/// Functions that an initiator keeps open at most.
const FUNCTIONS_MAX: usize = 6;

/// A task management function in flight.
#[derive(Debug)]
pub(crate) struct Managing {
    tag: Tag,
    asked: Step,
    pub(crate) since: Moment,
    kind: Managed,
}

#[derive(Clone, Copy, Debug)]
enum Managed {
    /// ABORT TASK.
    Abort { user: u64 },
    /// ABORT TASK SET, or CLEAR TASK SET; with TST 001b they are the same (SPC-4 §7.5.8). Commands before this one.
    TaskSet { unit: usize, before: u64, clears: bool },
    /// LOGICAL UNIT RESET; commands before this one are over with it.
    Reset { unit: usize, before: u64 },
    /// TARGET WARM RESET, or COLD RESET.
    Target { before: u64, cold: bool },
}

impl Initiator {
    /// Aborts, clears or resets something.
    pub(crate) fn manage_any(&mut self, hub: &mut Hub) {
        let unit = hub.random.index(hub.disks.len());
        let before = self.next_user;
        let other = hub.random.chance(1, 2);
        match hub.random.below(16) {
            0..9 => self.abort_any(hub),
            9..12 => self.manage(hub, Managed::TaskSet { unit, before, clears: other }),
            12..15 => self.manage(hub, Managed::Reset { unit, before }),
            _ => self.manage(hub, Managed::Target { before, cold: other }),
        }
    }

    fn abort_any(&mut self, hub: &mut Hub) {
        if self.pending.is_empty() {
            return;
        }
        let at = hub.random.index(self.pending.len());
        let user = *self.pending.keys().nth(at).expect("there are so many");
        self.abort(hub, user);
    }

    /// Aborts a command, unless that is under way.
    pub(crate) fn abort(&mut self, hub: &mut Hub, user: u64) {
        let is_it = |managing: &Managing| matches!(managing.kind, Managed::Abort { user: of } if of == user);
        // Its end may be on its way.
        if !self.managing.iter().any(is_it) {
            self.manage(hub, Managed::Abort { user });
        }
    }

    fn manage(&mut self, hub: &mut Hub, kind: Managed) {
        // A target takes few that are immediate, whatever connections they come by.
        if self.managing.len() >= FUNCTIONS_MAX {
            return;
        }
        let (function, lun, referenced) = match kind {
            Managed::Abort { user } => {
                let pending = &self.pending[&user];
                (TaskManagementFunction::AbortTask, lun_of(pending.wish.unit), Some(pending.tag))
            }
            Managed::TaskSet { unit, clears: false, .. } => {
                (TaskManagementFunction::AbortTaskSet, lun_of(unit), None)
            }
            Managed::TaskSet { unit, clears: true, .. } => {
                (TaskManagementFunction::ClearTaskSet, lun_of(unit), None)
            }
            Managed::Reset { unit, .. } => (TaskManagementFunction::LogicalUnitReset, lun_of(unit), None),
            Managed::Target { cold: false, .. } => (TaskManagementFunction::TargetWarmReset, lun_of(0), None),
            Managed::Target { cold: true, .. } => (TaskManagementFunction::TargetColdReset, lun_of(0), None),
        };
        // §4.2.2.1: what names a task goes where the task went.
        let line = match kind {
            Managed::Abort { user } => self.pending[&user].line,
            _ => self.any_line(hub),
        };
        let Some(session) = self.session(line) else { return };
        let Some(tag) = session.manage_task(function, lun, referenced) else { return };
        let mut asked = hub.history.step();
        match kind {
            Managed::Reset { unit, .. } => asked = hub.history.reset_asked(unit),
            Managed::Target { .. } => {
                for unit in 0..hub.disks.len() {
                    hub.history.reset_asked(unit);
                }
            }
            Managed::Abort { .. } | Managed::TaskSet { .. } => {}
        }
        self.managing.push(Managing { tag, asked, since: hub.now, kind });
    }

    /// A function is answered.
    pub(crate) fn managed(&mut self, hub: &mut Hub, tag: Tag, result: TaskManagementResult) {
        let at = self.managing.iter().position(|managing| managing.tag == tag).expect("it was asked for");
        let managing = self.managing.remove(at);
        tracing::debug!(now = hub.now.0, initiator = self.number, ?managing, ?result, "managed");
        let complete = result == TaskManagementResult::Complete;
        match (managing.kind, result) {
            (
                Managed::Abort { user },
                TaskManagementResult::Complete | TaskManagementResult::TaskDoesNotExist,
            ) => self.abandon(hub, user, Some("was aborted")),
            // It hangs at the medium: nothing more is heard of it, and what becomes of it is not known.
            (Managed::Abort { user }, TaskManagementResult::Rejected) => self.abandon(hub, user, None),
            (
                Managed::TaskSet { unit, before, .. },
                TaskManagementResult::Complete | TaskManagementResult::Rejected,
            ) => {
                hub.history.tally.task_sets += 1;
                self.abandon_all(
                    hub,
                    Some(unit),
                    before,
                    complete.then_some("was aborted with its task set"),
                );
            }
            // The unit is not there just now.
            (Managed::TaskSet { .. }, TaskManagementResult::LunDoesNotExist) => {}
            (
                Managed::Reset { unit, before },
                TaskManagementResult::Complete
                | TaskManagementResult::Rejected
                | TaskManagementResult::LunDoesNotExist,
            ) => {
                hub.history.reset_done(unit, managing.asked, complete);
                if complete {
                    self.abandon_all(hub, Some(unit), before, Some("was aborted by a reset"));
                }
            }
            (
                Managed::Target { before, .. },
                TaskManagementResult::Complete | TaskManagementResult::Rejected,
            ) => {
                for unit in 0..hub.disks.len() {
                    // A unit that the session did not see for a while may not have been one of them.
                    let reached = complete && !hub.history.has_left(unit);
                    hub.history.reset_done(unit, managing.asked, reached);
                }
                if complete {
                    hub.history.tally.target_resets += 1;
                    self.abandon_all(hub, None, before, Some("was aborted by a reset of the target"));
                }
            }
            (kind, other) => {
                let what = format!("initiator {}: {kind:?} was answered {other:?}", self.number);
                hub.history.violate(Oracle::Protocol, what);
            }
        }
    }

    /// Commands to `unit`, or to any, before `before` are over.
    fn abandon_all(&mut self, hub: &mut Hub, unit: Option<usize>, before: u64, over: Option<&'static str>) {
        let over_now: Vec<u64> = self
            .pending
            .range(..before)
            .filter(|(_, pending)| unit.is_none_or(|unit| pending.wish.unit == unit))
            .map(|(user, _)| *user)
            .collect();
        for user in over_now {
            self.abandon(hub, user, over);
        }
    }

    fn abandon(&mut self, hub: &mut Hub, user: u64, over: Option<&'static str>) {
        let serial = self.serial;
        let Some(pending) = self.pending.remove(&user) else { return };
        let Some(session) = self.session(pending.line) else { return };
        session.abandon(pending.tag);
        pending.wish.abandon(hub, serial, over);
    }
}
