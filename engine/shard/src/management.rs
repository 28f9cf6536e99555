//! Task management functions that wait (RFC 7143 §11.5, §4.2.3.3): for tasks whose pieces are at a medium, or for control.

use portico_iscsi::moment::Moment;
use portico_iscsi::session::TaskId;
use portico_iscsi::wire::{LogoutResult, TaskManagementResult};

use crate::session::Session;
use crate::slab::Key;

/// How long a function waits for a medium before it is answered "function rejected": never as complete (DESIGN, A medium
/// that hangs).
pub const PATIENCE_S: u64 = 20;

/// One function that is under way.
#[derive(Debug)]
pub struct Management {
    /// Who asked.
    pub session: Key<Session>,
    /// The request.
    pub name: TaskId,
    /// Aborted tasks that are still at a medium.
    pub tasks: u32,
    /// Resets and releases that control has not answered.
    pub resets: u32,
    /// What is answered when nothing is waited for any more.
    pub answer: Answer,
    /// When it is given up.
    pub deadline: Moment,
    /// TARGET COLD RESET: all sessions of the target end when it is done.
    pub cold: bool,
}

/// What is answered in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A Task Management Function Response; the worst result so far.
    TaskManagement(TaskManagementResult),
    /// A Logout Response, which waits until what the nexus had reserved is free on every shard: whoever hears of the logout
    /// may reserve it (SPC-2 §5.5.1).
    Logout(LogoutResult),
}
