//! Task management (SAM-5 §7, RFC 7143 §11.5). What concerns one nexus is done here; what others can see, the resets, goes
//! through control and its fence.
//!
//! TST is 001b: each nexus has its own task set, so CLEAR TASK SET clears that of the nexus that asks (SPC-4 §7.5.8).

use portico_iscsi::session::{Leaving, Referenced, Seat, TaskId};
use portico_iscsi::wire::{
    LoginStatus, LogoutResult, LunField, TaskManagementFunction, TaskManagementRequest, TaskManagementResult,
};
use portico_model::identity::Ticket;
use portico_model::message::{EndReason, ToControl};
use portico_scsi::lun::Lun;
use portico_scsi::sense::Outcome;

use super::{Core, Joiner};
use crate::driver::Driver;
use crate::management::{Answer, Management};
use crate::outgoing::{Outgoing, Rare};
use crate::session::Session;
use crate::slab::Key;
use crate::task::Task;
use crate::unit::Unit;

/// Marks the tickets of resets, so that they are not taken for tasks: keys use 56 bits.
pub(super) const RESET_TICKET: u64 = 1 << 63;

impl<D: Driver> Core<D> {
    /// A task management request whose turn it is.
    pub fn manage(&mut self, session_key: Key<Session>, name: TaskId, request: &TaskManagementRequest) {
        if request.function == TaskManagementFunction::TaskReassign {
            return self.reassign(session_key, name, request);
        }
        let Some(session) = self.sessions.get(session_key) else { return };
        let answer = Answer::of_function(name, TaskManagementResult::Complete);
        let seat = session.wire.seat_of_task(name);
        let writes = session.wire.live_commands().filter(|(_, command)| command.write);
        let asked = writes.fold(0, |seats, (task, _)| seats | 1 << session.wire.seat_of_task(task).index());
        let management = Management { asked, ..Management::new(session_key, seat, answer, self.now) };
        let key = self.managements.insert(management);
        let (result, additional) = self.carry_out(session_key, key, request);
        if let Some(management) = self.managements.get_mut(key) {
            management.answer = Answer::TaskManagement { name, result, additional };
        }
        self.answer_management(key);
    }

    /// Does what a function asks for. What it answers once nothing is waited for any more, and Additional Response Information.
    fn carry_out(
        &mut self,
        session_key: Key<Session>,
        key: Key<Management>,
        request: &TaskManagementRequest,
    ) -> (TaskManagementResult, [u8; 3]) {
        let Some(session) = self.sessions.get(session_key) else {
            return (TaskManagementResult::Rejected, [0; 3]);
        };
        let unit = self.unit_at(session, request.lun);
        let updated = session.wire.parameters().has_features_update();
        let result = match (request.function, unit) {
            (TaskManagementFunction::AbortTask, _) => self.abort_one(session_key, key, request),
            (TaskManagementFunction::AbortTaskSet | TaskManagementFunction::ClearTaskSet, Some(unit)) => {
                self.abort_task_set(session_key, unit, key, request);
                TaskManagementResult::Complete
            }
            (TaskManagementFunction::LogicalUnitReset, Some(unit)) => {
                self.ask_reset(key, unit);
                TaskManagementResult::Complete
            }
            (
                TaskManagementFunction::AbortTaskSet
                | TaskManagementFunction::ClearTaskSet
                | TaskManagementFunction::LogicalUnitReset
                | TaskManagementFunction::ClearAca,
                None,
            ) => TaskManagementResult::LunDoesNotExist,
            (TaskManagementFunction::TargetWarmReset, _) => self.ask_resets(session_key, key),
            (TaskManagementFunction::TargetColdReset, _) => {
                self.ends_with(key, EndReason::ColdReset);
                self.ask_resets(session_key, key)
            }
            (TaskManagementFunction::ClearAca, Some(_)) => self.clear_aca(session_key, request.lun, key),
            (TaskManagementFunction::ITNexusReset, _) if updated => self.reset_nexus(session_key, key),
            (
                TaskManagementFunction::QueryTask
                | TaskManagementFunction::QueryTaskSet
                | TaskManagementFunction::QueryAsynchronousEvent,
                _,
            ) if updated => return self.query(session_key, request),
            // RFC 7144 §6: its functions are not for sessions of a lower iSCSIProtocolLevel.
            (
                TaskManagementFunction::QueryTask
                | TaskManagementFunction::QueryTaskSet
                | TaskManagementFunction::ITNexusReset
                | TaskManagementFunction::QueryAsynchronousEvent
                | TaskManagementFunction::TaskReassign
                | TaskManagementFunction::Other(_),
                _,
            ) => TaskManagementResult::FunctionNotSupported,
        };
        (result, [0; 3])
    }

    fn unit_at(&self, session: &Session, lun: LunField) -> Option<Key<Unit>> {
        let at = session.find(Lun::from_bytes(lun.0).number()?)?;
        Some(session.luns[at].unit)
    }

    /// ABORT TASK (RFC 7143 §11.5.5 and §11.6.1).
    fn abort_one(
        &mut self,
        session_key: Key<Session>,
        management: Key<Management>,
        request: &TaskManagementRequest,
    ) -> TaskManagementResult {
        let Some(session) = self.sessions.get_mut(session_key) else {
            return TaskManagementResult::TaskDoesNotExist;
        };
        match session.wire.referenced(request) {
            Referenced::Task(name) => {
                if let Some(task) = session.task(name) {
                    self.abort(task, Some(management));
                }
                TaskManagementResult::Complete
            }
            Referenced::NeverArrived => TaskManagementResult::Complete,
            Referenced::Nothing => match self.lingering(session_key, request) {
                // Aborted before, by whomever: it is over when nothing of it is at the medium.
                Some(task) => {
                    self.abort(task, Some(management));
                    TaskManagementResult::Complete
                }
                None => TaskManagementResult::TaskDoesNotExist,
            },
        }
    }

    /// The task that the request names, where it was aborted already and is still at a medium.
    pub(super) fn lingering(
        &self,
        session_key: Key<Session>,
        request: &TaskManagementRequest,
    ) -> Option<Key<Task>> {
        let session = self.sessions.get(session_key)?;
        let is_it = |task: &Task| {
            if task.is_behind() {
                return false;
            }
            let command = session.wire.command(task.name);
            command.initiator_task_tag == request.referenced_task_tag && command.lun == request.lun
        };
        let mut tasks = self.tasks.iter();
        tasks
            .find(|(_, task)| {
                task.session == session_key && task.aborted && task.at_medium > 0 && is_it(task)
            })
            .map(|(key, _)| key)
    }

    fn abort_task_set(
        &mut self,
        session: Key<Session>,
        unit: Key<Unit>,
        management: Key<Management>,
        request: &TaskManagementRequest,
    ) {
        let Some(wire) = self.sessions.get(session).map(|session| &session.wire) else { return };
        // §11.5.1: what has a later number is not covered, though it came first, by another connection. What has none is.
        let is_covered = |task: &Task| {
            if task.is_behind() {
                return true;
            }
            let command = wire.command(task.name);
            command.immediate || command.cmd_sn.precedes(request.cmd_sn)
        };
        // Those too that were aborted before and are still at a medium: they are in the set until they have left it.
        let of_set = |task: &Task| task.session == session && task.unit == Some(unit) && is_covered(task);
        let tasks: Vec<Key<Task>> =
            self.tasks.iter().filter(|(_, task)| of_set(task)).map(|(key, _)| key).collect();
        for task in tasks {
            self.abort(task, Some(management));
        }
        self.end_copies_at(unit, Some(management), |task| task.session == session);
    }

    pub(super) fn tasks_where(&self, wanted: impl Fn(&Task) -> bool) -> Vec<Key<Task>> {
        self.tasks.iter().filter(|(_, task)| !task.aborted && wanted(task)).map(|(key, _)| key).collect()
    }

    /// Aborts a task: nothing of it is answered any more and nothing more goes to the medium. What is there already is
    /// waited for by `management`.
    pub(super) fn abort(&mut self, key: Key<Task>, management: Option<Key<Management>>) {
        self.await_pieces(key, management);
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.aborted {
            return;
        }
        task.aborted = true;
        task.inflow.clear();
        task.inflow_bytes = 0;
        task.outflow.clear();
        let (session_key, name, is_behind) = (task.session, task.name, task.is_behind());
        if let Some(session) = self.sessions.get_mut(session_key).filter(|_| !is_behind) {
            session.wire.abort(name);
            session.forget_sent(name);
        }
        self.book_kept(session_key);
        self.settle(key);
    }

    /// `management` waits for the pieces of a task that are at the medium.
    pub(super) fn await_pieces(&mut self, key: Key<Task>, management: Option<Key<Management>>) {
        if let Some(task) = self.tasks.get_mut(key).filter(|task| task.at_medium > 0)
            && let Some(management_key) = management
            && let Some(management) = self.managements.get_mut(management_key)
        {
            task.awaited_by.push(management_key);
            management.tasks += 1;
        }
    }

    /// A request that was discarded as it came in: nothing of it is left.
    pub fn forget(&mut self, key: Key<Task>) {
        self.abort(key, None);
    }

    fn ask_resets(&mut self, session_key: Key<Session>, management: Key<Management>) -> TaskManagementResult {
        let Some(session) = self.sessions.get(session_key) else { return TaskManagementResult::Rejected };
        let units: Vec<Key<Unit>> = session.luns.iter().map(|lun| lun.unit).collect();
        for unit in units {
            self.ask_reset(management, unit);
        }
        TaskManagementResult::Complete
    }

    fn ask_reset(&mut self, key: Key<Management>, unit: Key<Unit>) {
        let Some(unit) = self.units.get(unit) else { return };
        let Some(management) = self.managements.get_mut(key) else { return };
        let Some(session) = self.sessions.get(management.session) else { return };
        management.resets += 1;
        self.outbox.push_back(ToControl::Reset {
            shard: self.shard,
            ticket: Ticket(key.to_bits() | RESET_TICKET),
            unit: unit.id,
            nexus: session.nexus,
        });
    }

    /// Control's answer to a reset; `false` when the ticket is not one of a reset.
    pub(super) fn reset_answered(&mut self, ticket: Ticket, outcome: Result<(), Outcome>) -> bool {
        if ticket.0 & RESET_TICKET == 0 {
            return false;
        }
        let key = Key::from_bits(ticket.0 & !RESET_TICKET);
        if let Some(management) = self.managements.get_mut(key) {
            management.resets = management.resets.saturating_sub(1);
            if let (Err(_), Answer::TaskManagement { result, .. }) = (outcome, &mut management.answer) {
                *result = TaskManagementResult::Rejected;
                management.ends = None;
            }
        }
        self.answer_management(key);
        true
    }

    pub(super) fn management_task_done(&mut self, key: Key<Management>) {
        if let Some(management) = self.managements.get_mut(key) {
            management.tasks = management.tasks.saturating_sub(1);
        }
        self.answer_management(key);
    }

    pub(super) fn answer_management(&mut self, key: Key<Management>) {
        let Some(management) = self.managements.get(key) else { return };
        if management.tasks > 0 || management.resets > 0 || self.waits_at_fence(key) {
            return;
        }
        let management = self.managements.remove(key).expect("it was just there");
        let session = management.session;
        match management.answer {
            Answer::TaskManagement { name, result, additional } => {
                self.answer_rare(session, Rare::TaskManagement { name, result, additional });
            }
            Answer::Logout { name, leaving } => {
                let late = management.late && leaving != Leaving::Session;
                let result = if late { LogoutResult::CleanupFailed } else { LogoutResult::Closed };
                self.answer_rare(session, Rare::Logout { name, result, leaving: Some(leaving) });
            }
            Answer::Status(task) => self.send_withheld(task),
            Answer::Join(question) => {
                let refused = management.late.then_some(LoginStatus::TARGET_ERROR);
                self.joining.push(Joiner { session, question, refused });
            }
        }
        if let Some(reason) = management.ends {
            self.end_by_function(session, reason);
        }
    }

    /// Of commands that ended before the function, answers may be on their way on other connections, and of those that it ended
    /// requests for data. RFC 7143 §4.2.3.3: the function is answered when the initiator has acknowledged them; a ping asks it
    /// to, whose answer also tells that what has no StatSN of its own has come. The data need not: who asked for them is gone.
    fn waits_at_fence(&mut self, key: Key<Management>) -> bool {
        let Some(management) = self.managements.get_mut(key) else { return false };
        let Some(session) = self.sessions.get(management.session) else { return false };
        if management.late || !matches!(management.answer, Answer::TaskManagement { .. }) {
            return false;
        }
        let (session_key, own, asked) = (management.session, management.seat, management.asked);
        if let Some(fence) = &management.fence {
            return Seat::all().any(|seat| !session.wire.has_acknowledged(fence, seat));
        }
        let mut fence = session.wire.fence(own);
        let others: Vec<Seat> = session.wire.seats().filter(|seat| *seat != own).collect();
        for seat in others.iter().copied() {
            let Some(session) = self.sessions.get(session_key) else { break };
            let Some(link) = session.link(seat) else { continue };
            if !link.outgoing.is_empty() || asked & 1 << seat.index() != 0 {
                let before = link.outgoing.iter().filter(|entry| entry.is_ping()).count();
                fence.note_ping(seat, session.wire.number_of_ping(seat, u16::try_from(before).unwrap_or(0)));
                self.list_rare(session_key, seat, Rare::Ping);
            } else if !session.wire.has_acknowledged(&fence, seat) {
                self.ping(session_key, seat);
            }
        }
        let Some(session) = self.sessions.get(session_key) else { return false };
        let waits = others.into_iter().any(|seat| !session.wire.has_acknowledged(&fence, seat));
        if let Some(management) = self.managements.get_mut(key) {
            management.fence = Some(fence);
        }
        waits
    }

    /// Pings an initiator on a connection, if that is not about to be done.
    pub(crate) fn ping(&mut self, session: Key<Session>, seat: Seat) {
        let link = self.sessions.get(session).and_then(|session| session.link(seat));
        if link.is_some_and(|link| !link.outgoing.iter().any(Outgoing::is_ping)) {
            self.list_rare(session, seat, Rare::Ping);
        }
    }

    /// An initiator may have acknowledged what functions wait for, or a connection has left that they waited for.
    pub fn look_at_fences(&mut self, session: Key<Session>) {
        self.look_at_fenced(session);
        if self.managements.is_empty() {
            return;
        }
        let waits = |management: &Management| management.session == session && management.fence.is_some();
        let fenced: Vec<Key<Management>> =
            self.managements.iter().filter(|(_, management)| waits(management)).map(|(key, _)| key).collect();
        fenced.into_iter().for_each(|key| self.answer_management(key));
    }

    /// Gives up on functions whose medium does not answer.
    pub fn expire_managements(&mut self) {
        if self.managements.is_empty() {
            return;
        }
        let now = self.now;
        let late: Vec<Key<Management>> = self
            .managements
            .iter()
            .filter(|(_, management)| management.deadline <= now)
            .map(|(key, _)| key)
            .collect();
        for key in late {
            let Some(management) = self.managements.get_mut(key) else { continue };
            (management.tasks, management.resets, management.ends) = (0, 0, None);
            management.late = true;
            if let Answer::TaskManagement { result, .. } = &mut management.answer {
                tracing::warn!("a task management function was rejected: its tasks hang at the medium");
                *result = TaskManagementResult::Rejected;
            }
            self.answer_management(key);
        }
    }
}
