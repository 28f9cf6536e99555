//! Task sets as the shard keeps to them: commands that wait for their turn begin, and what a fault of one does to the others
//! of its set (SAM-5 §5.9, §8; SPC-4 §7.5.8, QERR and TAS).
//!
//! A command that is blocked by an ACA hands nothing more to the medium, and what of it is back is not sent: it waits
//! ([`Wait::BLOCKED`]) and is withheld: it counts as listed, though it stands in no list. Commands that hold what other nexuses
//! wait for, claims of blocks and places to gather data, are withheld alone, and give that back. A READ that is half sent from
//! memory that was lent goes on.

use portico_iscsi::session::TaskId;
use portico_iscsi::wire::{LunField, TaskManagementResult};
use portico_model::message::{Install, ToControl};
use portico_scsi::attention::UnitAttention;
use portico_scsi::bits::Status;
use portico_scsi::lun::Lun;
use portico_scsi::opcodes;
use portico_scsi::sense::{AdditionalSense, Outcome};

use super::{Core, Wait};
use crate::driver::Driver;
use crate::management::{Answer, Management};
use crate::session::Session;
use crate::slab::Key;
use crate::task::{Task, Work};
use crate::task_set::{Entered, Faulted};
use crate::unit::Unit;

/// A task set: the session, and the index of its LUN there.
type Set = (Key<Session>, usize);

impl<D: Driver> Core<D> {
    /// Begins the commands whose turn has come, since others of their sets have ended.
    pub(super) fn go_on_with_task_sets(&mut self) {
        while let Some(session_key) = self.task_sets_due.pop() {
            let mut at = 0;
            while let Some(lun) =
                self.sessions.get_mut(session_key).and_then(|session| session.luns.get_mut(at))
            {
                match lun.set.next(lun.tasks - lun.behind) {
                    Some(task) => self.begin_dormant(session_key, task),
                    None => at += 1,
                }
            }
        }
    }

    fn begin_dormant(&mut self, session_key: Key<Session>, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        // Another nexus may have ended it before it began.
        if task.ended.is_none() && !task.aborted {
            let (name, at) = (task.name, task.lun);
            self.begin(session_key, name, key, at);
        }
    }

    /// The other commands in a task's set, those too that were aborted and are still at a medium.
    fn others_in_set(&self, (session, at): Set, but: Key<Task>) -> Vec<Key<Task>> {
        let of_set = |task: &Task| task.session == session && task.lun == Some(at) && !task.is_behind();
        let tasks = self.tasks.iter().filter(|(key, task)| *key != but && of_set(task));
        tasks.map(|(key, _)| key).collect()
    }

    /// A command ends with CHECK CONDITION: an ACA is established where it asks for one, and QERR says what becomes of the
    /// others of its set. One that an ACA blocks has its fault when that is cleared.
    #[cold]
    pub(super) fn fault(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        let (session_key, name, Some(at), Some(unit)) = (task.session, task.name, task.lun, task.unit) else {
            return;
        };
        let aborts = self.units.get(unit).is_some_and(|unit| unit.state.mode.queue_error.aborts());
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let blocking = &session.luns[at].set;
        if blocking.has_aca() && blocking.aca_command() != Some(key) {
            return;
        }
        let naca = opcodes::establishes_aca(&session.wire.command(name).cdb);
        if !naca && !aborts && !session.luns[at].set.is_restrained() {
            return;
        }
        let faulted = session.luns[at].set.fault(key, naca);
        let set = (session_key, at);
        if aborts {
            self.abort_others(key, set);
        }
        match faulted {
            Faulted::Nothing => {}
            Faulted::Established => {
                for other in self.others_in_set(set, key) {
                    self.block(other);
                }
            }
            Faulted::Cleared => self.unblock_set(set),
        }
    }

    /// QERR other than 00b. The status waits until nothing of the others is at a medium any more: who hears it may do all
    /// anew.
    fn abort_others(&mut self, key: Key<Task>, set: Set) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(session) = self.sessions.get(set.0) else { return };
        let seat = session.wire.seat_of_task(task.name);
        let waits = Management::new(set.0, seat, Answer::Status(key), self.now);
        let management = self.managements.insert(waits);
        for other in self.others_in_set(set, key) {
            self.abort(other, Some(management));
        }
        if self.managements.get(management).is_some_and(|waits| waits.tasks > 0) {
            self.withhold(key);
        } else {
            self.managements.remove(management);
        }
    }

    /// Nothing more of a command is sent for now.
    fn withhold(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.listed = true;
        let (session, name) = (task.session, task.name);
        let Some(session) = self.sessions.get_mut(session) else { return };
        if let Some(link) = session.link_mut(session.wire.seat_of_task(name)) {
            link.outgoing.retain(|entry| !entry.answers(key));
        }
    }

    /// It is sent again, as far as it is there.
    pub(super) fn send_withheld(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.listed = false;
        let (session, name, aborted) = (task.session, task.name, task.aborted);
        let Some(session) = self.sessions.get(session) else { return };
        if !aborted && session.wire.command(name).read {
            self.list_data_in(key);
        } else {
            self.settle(key);
        }
    }

    fn block(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        let dormant = |session: &Session| task.lun.is_some_and(|at| session.luns[at].set.is_dormant(key));
        let is_dormant = self.sessions.get(task.session).is_some_and(dormant);
        if task.aborted || is_dormant || task.waits.is_some_and(|wait| wait.is_blocked) {
            return;
        }
        // It had ended before the fault, and claims wait until what a medium lent is through.
        if matches!(&task.work, Work::Read(read) if read.lent && read.sent_bytes > 0) {
            return;
        }
        let claims = matches!(&task.work, Work::Copy(copying) if copying.populates.is_some());
        if claims || matches!(task.work, Work::Atomic(_) | Work::Series(_)) {
            return self.withhold(key);
        }
        if task.waits.is_some() {
            self.stop_waiting(key);
            self.starved.retain(|waiting| *waiting != key);
        }
        self.withhold(key);
        if let Some(task) = self.tasks.get_mut(key) {
            task.waits = Some(Wait::BLOCKED);
        }
    }

    /// There is no ACA any more: what it blocked goes on.
    fn unblock_set(&mut self, set: Set) {
        self.task_sets_due.push(set.0);
        for key in self.others_in_set(set, Key::nobody()) {
            let session = self.sessions.get(set.0);
            if session.is_none_or(|session| session.luns[set.1].set.has_aca()) {
                // One that failed meanwhile has established another.
                return;
            }
            self.unblock(key);
        }
    }

    fn unblock(&mut self, key: Key<Task>) {
        let is_withheld = self.is_withheld(key);
        let Some(task) = self.tasks.get_mut(key).filter(|_| is_withheld) else { return };
        task.waits.take_if(|wait| wait.is_blocked);
        if task.ended.is_some_and(|outcome| outcome.status == Status::CheckCondition) {
            task.listed = false;
            self.fault(key);
            if self.tasks.get(key).is_some_and(|task| !task.listed) {
                self.settle(key);
            }
            return;
        }
        let (reads_list, waits) = (matches!(task.work, Work::Parameters(_)), task.waits.is_some());
        self.send_withheld(key);
        if reads_list {
            self.data_came(key);
        } else if !waits {
            self.try_again(key);
        }
    }

    /// Whether an ACA keeps back what a command has to send.
    fn is_withheld(&self, key: Key<Task>) -> bool {
        let Some(task) = self.tasks.get(key).filter(|task| task.listed) else { return false };
        let Some(session) = self.sessions.get(task.session) else { return false };
        let link = session.link(session.wire.seat_of_task(task.name));
        let waits = |management: &Management| matches!(management.answer, Answer::Status(of) if of == key);
        link.is_some_and(|link| !link.outgoing.iter().any(|entry| entry.answers(key)))
            && !self.managements.iter().any(|(_, management)| waits(management))
    }

    /// CLEAR ACA (SAM-5 §7.4): a command with the ACA attribute is aborted, what was blocked goes on. Without an ACA it is
    /// complete as well.
    pub(super) fn clear_aca(
        &mut self,
        session_key: Key<Session>,
        lun: LunField,
        management: Key<Management>,
    ) -> TaskManagementResult {
        let Some(session) = self.sessions.get(session_key) else { return TaskManagementResult::Rejected };
        let Some(at) = Lun::from_bytes(lun.0).number().and_then(|number| session.find(number)) else {
            return TaskManagementResult::LunDoesNotExist;
        };
        if let Some(command) = session.luns[at].set.aca_command() {
            self.abort(command, Some(management));
        }
        self.end_aca((session_key, at));
        TaskManagementResult::Complete
    }

    fn end_aca(&mut self, set: Set) {
        let lun = self.sessions.get_mut(set.0).and_then(|session| session.luns.get_mut(set.1));
        if lun.is_some_and(|lun| lun.set.clear_aca()) {
            self.unblock_set(set);
        }
    }

    /// Tasks that an Install aborts. Those of other nexuses than the one that asked end with TASK ABORTED where TAS was one;
    /// else their nexuses are told that there were some (SAM-5 §5.6.3). An ACA of who is aborted is over (§5.9.5).
    pub(super) fn abort_by_install(&mut self, key: Key<Unit>, install: &Install, with_status: bool) {
        let Some(scope) = &install.aborts else { return };
        let mut sets = Vec::new();
        for (session_key, session) in
            self.sessions.iter().filter(|(_, session)| scope.includes(session.nexus))
        {
            let at_unit = session.luns.iter().enumerate().filter(|(_, lun)| lun.unit == key);
            sets.extend(at_unit.map(|(at, _)| (session_key, at, session.nexus)));
        }
        for (session_key, at, nexus) in sets {
            let by_another = install.asker.is_some_and(|asker| asker != nexus);
            // One that is parked still was mailed after control had taken this up, though it may have come before it was
            // asked for: it is withdrawn before control judges it. No asker but one that resets is within the scope of its
            // own change.
            let tasks = self.tasks_where(|task| {
                task.session == session_key && task.unit == Some(key) && task.lun == Some(at)
            });
            let told = by_another && !with_status && !tasks.is_empty();
            for task in tasks {
                match by_another && with_status {
                    true => self.abort_with_status(task),
                    false => self.abort(task, None),
                }
            }
            let lun = self.sessions.get_mut(session_key).and_then(|session| session.luns.get_mut(at));
            if let Some(lun) = lun.filter(|_| told) {
                lun.nexus.establish(UnitAttention::CommandsCleared);
            }
            self.end_aca((session_key, at));
        }
        let aborted: Vec<Key<Session>> = self
            .sessions
            .iter()
            .filter(|(_, session)| scope.includes(session.nexus))
            .map(|(key, _)| key)
            .collect();
        self.end_copies_at(key, None, |task| aborted.contains(&task.session));
    }

    /// Nothing more of the command is handed to a medium, and all that its initiator hears is TASK ABORTED, when nothing of it
    /// is there any more.
    fn abort_with_status(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let Work::Parked(ticket) = task.work {
            task.work = Work::None;
            self.outbox.push_back(ToControl::Withdraw { shard: self.shard, ticket });
        }
        task.outflow.clear();
        match &mut task.ended {
            None => self.finish(key, Outcome::TASK_ABORTED),
            Some(outcome) => {
                *outcome = Outcome::TASK_ABORTED;
                self.settle(key);
            }
        }
    }

    /// A command comes into its task set, or is kept out of it; `None`: it begins.
    #[cold]
    pub(super) fn enter_task_set(&mut self, key: Key<Task>, name: TaskId) -> Option<Entrance> {
        let task = self.tasks.get(key)?;
        let (at, session) = (task.lun?, self.sessions.get_mut(task.session)?);
        let attribute = session.wire.command(name).attribute;
        let lun = &mut session.luns[at];
        match lun.set.enter(key, attribute, lun.tasks - lun.behind - 1) {
            Entered::Begins => None,
            Entered::Waits => Some(Entrance::Waits),
            Entered::Nonsense => {
                Some(Entrance::Refused(Outcome::illegal(AdditionalSense::INVALID_MESSAGE_ERROR)))
            }
        }
    }
}

/// What keeps a command from beginning.
pub(super) enum Entrance {
    /// It waits for others of its task set.
    Waits,
    /// It ends like this.
    Refused(Outcome),
}
