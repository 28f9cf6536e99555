//! What a task management request refers to, and how tasks end without a status (RFC 7143 §11.5, §11.6).

use super::tasks::{Stage, TaskId};
use super::{Request, Seat, Session};
use crate::sn::CmdSn;
use crate::wire::{Bhs, InitiatorTaskTag, LogoutReason, LogoutRequest, LogoutResult, TaskManagementRequest};
use crate::wire::{NopOut, ScsiCommand, TextRequest, opcode};

/// What an ABORT TASK, or a QUERY TASK, refers to (§11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referenced {
    /// A command that has not ended, of the same logical unit.
    Task(TaskId),
    /// A command that never came, though its CmdSN is one that was sent before the request's own. It is now considered as
    /// received, and the function as complete.
    NeverArrived,
    /// Nothing: "task does not exist".
    Nothing,
}

/// What a logout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The session with all of its connections.
    Session,
    /// One connection, with the tasks that are allegiant to it (§7.6). It may be one that was lost before.
    Connection(Seat),
    /// One connection, there or lost before, whose tasks are kept for reassignment.
    ForRecovery(Seat),
}

impl Session {
    /// Finds what an ABORT TASK refers to. A command that has not come is taken out of the window with this call.
    pub fn referenced(&mut self, request: &TaskManagementRequest) -> Referenced {
        if let Some(task) = self.command_tagged(request.referenced_task_tag) {
            return if self.command(task).lun == request.lun {
                Referenced::Task(task)
            } else {
                Referenced::Nothing
            };
        }
        // §11.6.1: "within the valid CmdSN window and less than the CmdSN of the Task Management Function Request itself".
        let sent_before = request.referenced_cmd_sn.precedes(request.cmd_sn);
        if sent_before && self.skip(request.referenced_cmd_sn) {
            Referenced::NeverArrived
        } else {
            Referenced::Nothing
        }
    }

    fn command_tagged(&self, tag: InitiatorTaskTag) -> Option<TaskId> {
        let task = self.tasks.find(tag)?;
        matches!(self.request(task), Request::Command(_)).then_some(task)
    }

    /// Ends a task without a status. Nothing of it goes out any more; its data is absorbed as it comes. It is still the
    /// caller's to retire. A task that has ended already stays as it is.
    pub fn abort(&mut self, task: TaskId) {
        if self.is_live(task) {
            self.end(task);
        }
    }

    /// Frees the slot of a task that has ended: its `TaskId` names nothing any more.
    pub fn retire(&mut self, task: TaskId) {
        self.tasks.retire(task);
    }

    /// The task has its status, or will never have one: its tag and its place in the window are free.
    pub(super) fn end(&mut self, task: TaskId) {
        let state = self.tasks.task(task);
        let (delivered, immediate) = (state.stage == Stage::Delivered, state.request.is_immediate());
        let cmd_sn = state.request.cmd_sn();
        assert!(delivered || state.stage == Stage::Queued, "a task ends once");
        self.tasks.end(task);
        if self.takes_number_later(task) {
            // Its segment is still to come, and with it its number.
        } else if !immediate {
            self.window.ended(cmd_sn, delivered);
        } else if !delivered {
            self.immediate.retain(|&queued| queued != task);
        }
    }

    fn takes_number_later(&self, task: TaskId) -> bool {
        let incoming = self.connections.incoming(self.tasks.task(task).seat);
        incoming.is_some_and(|incoming| incoming.task == task && incoming.takes.is_some())
    }

    /// A non-immediate request that was rejected is considered as received: an initiator that was told so sends something
    /// else, and not the same number again (§11.17.1). Without this its CmdSN would be missing for ever.
    pub fn consume_cmd_sn(&mut self, rejected: &Bhs) {
        const IMMEDIATE: u8 = 0x40;
        const CMD_SN: core::ops::Range<usize> = 24..28;
        let numbered = matches!(
            opcode(rejected),
            NopOut::OPCODE
                | ScsiCommand::OPCODE
                | TaskManagementRequest::OPCODE
                | TextRequest::OPCODE
                | LogoutRequest::OPCODE
        );
        if numbered && rejected[0] & IMMEDIATE == 0 {
            let bytes = rejected[CMD_SN].try_into().expect("4 bytes");
            self.skip(CmdSn(u32::from_be_bytes(bytes)));
        }
    }

    /// What a Logout Request asks for (§11.14), where it can be had.
    ///
    /// # Errors
    /// What is answered instead (§11.15.1).
    pub fn logout(&self, request: &LogoutRequest) -> Result<Leaving, LogoutResult> {
        match request.reason {
            LogoutReason::CloseSession => Ok(Leaving::Session),
            LogoutReason::CloseConnection | LogoutReason::RemoveConnectionForRecovery => {
                let seat = self.seat_of(request.cid).or_else(|| self.lost_seat_of(request.cid));
                let seat = seat.ok_or(LogoutResult::CidNotFound)?;
                match request.reason {
                    LogoutReason::RemoveConnectionForRecovery if self.recovers_connections() => {
                        Ok(Leaving::ForRecovery(seat))
                    }
                    // §11.14.1: it is for recovery level 2.
                    LogoutReason::RemoveConnectionForRecovery => Err(LogoutResult::RecoveryNotSupported),
                    _ => Ok(Leaving::Connection(seat)),
                }
            }
        }
    }
}
