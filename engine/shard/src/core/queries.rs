//! What RFC 7144 adds to task management (SAM-5 §7.6, §7.8 to §7.10): questions about a task set that change nothing, and the
//! reset of the nexus that asks.

use portico_iscsi::session::Request;
use portico_iscsi::wire::{TaskManagementFunction, TaskManagementRequest, TaskManagementResult};
use portico_model::message::EndReason;
use portico_scsi::lun::Lun;

use super::Core;
use crate::driver::Driver;
use crate::management::Management;
use crate::session::Session;
use crate::slab::Key;
use crate::task::Task;

const NO: (TaskManagementResult, [u8; 3]) = (TaskManagementResult::Complete, [0; 3]);
const YES: (TaskManagementResult, [u8; 3]) = (TaskManagementResult::Succeeded, [0; 3]);

impl<D: Driver> Core<D> {
    /// QUERY TASK, QUERY TASK SET, QUERY ASYNCHRONOUS EVENT: "function succeeded" is yes, "function complete" is no.
    pub(super) fn query(
        &self,
        session_key: Key<Session>,
        request: &TaskManagementRequest,
    ) -> (TaskManagementResult, [u8; 3]) {
        let nowhere = (TaskManagementResult::LunDoesNotExist, [0; 3]);
        let Some(session) = self.sessions.get(session_key) else { return nowhere };
        let number = Lun::from_bytes(request.lun.0).number();
        let Some(at) = number.and_then(|number| session.find(number)) else { return nowhere };
        if request.function == TaskManagementFunction::QueryAsynchronousEvent {
            let event = session.luns[at].nexus.attentions.asynchronous_event();
            return event.map_or(NO, |event| (TaskManagementResult::Succeeded, event));
        }
        let is_asked_for = request.function == TaskManagementFunction::QueryTaskSet;
        // A command is here from its arrival, though others may have to come before it, until its status has gone: an
        // initiator that hears of none takes it for lost. One that was aborted is here as long as it is at a medium.
        let is_here = session.wire.live_commands().any(|(_, command)| {
            let is_it = is_asked_for || command.initiator_task_tag == request.referenced_task_tag;
            is_it && Lun::from_bytes(command.lun.0).number() == number
        });
        let lingers = || match is_asked_for {
            true => self.tasks.iter().any(|(_, task)| {
                task.session == session_key && task.lun == Some(at) && !task.is_behind() && task.at_medium > 0
            }),
            false => self.lingering(session_key, request).is_some(),
        };
        if is_here || lingers() { YES } else { NO }
    }

    /// I_T NEXUS RESET (SAM-5 §7.6; RFC 7144 §6.2): what the loss of the nexus does, with an answer. Its commands and copies end
    /// without a word, what it had reserved by RESERVE is free on every shard before it is answered; registrations stay, and
    /// other nexuses hear of nothing. Then all connections of the session close, whatever Time2Wait and Time2Retain say;
    /// 29/07 is what its successor is told.
    pub(super) fn reset_nexus(
        &mut self,
        session_key: Key<Session>,
        management: Key<Management>,
    ) -> TaskManagementResult {
        self.ends_with(management, EndReason::NexusReset);
        self.end_commands(session_key, Some(management));
        self.release_reservations(session_key, management);
        TaskManagementResult::Complete
    }

    fn end_commands(&mut self, session_key: Key<Session>, management: Option<Key<Management>>) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let is_command = |task: &Task| {
            let wire = &session.wire;
            task.is_behind()
                || task.aborted
                || wire.is_live(task.name) && matches!(wire.request(task.name), Request::Command(_))
        };
        let of_session = self.tasks.iter().filter(|(_, task)| task.session == session_key);
        let commands: Vec<Key<Task>> =
            of_session.filter(|(_, task)| is_command(task)).map(|(key, _)| key).collect();
        commands.into_iter().for_each(|task| self.abort(task, management));
    }

    /// The session of a function is to end when that is answered.
    pub(super) fn ends_with(&mut self, management: Key<Management>, reason: EndReason) {
        if let Some(management) = self.managements.get_mut(management) {
            management.ends = Some(reason);
        }
    }

    /// A function has been answered that ends sessions. Of TARGET COLD RESET the others of the target are ended by control,
    /// when it hears of this one's end.
    pub(super) fn end_by_function(&mut self, session_key: Key<Session>, reason: EndReason) {
        if reason == EndReason::NexusReset {
            // What came while the function was waiting reaches no medium after its answer.
            self.end_commands(session_key, None);
        }
        self.end_after_list(session_key, reason);
    }
}
