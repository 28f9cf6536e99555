//! Task management functions that wait (RFC 7143 §11.5, §4.2.3.3): for tasks whose pieces are at a medium, or for control.

use portico_iscsi::moment::Moment;
use portico_iscsi::session::TaskId;
use portico_iscsi::wire::TaskManagementResult;

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
    /// Resets that control has not answered.
    pub resets: u32,
    /// The worst answer so far.
    pub result: TaskManagementResult,
    /// When it is given up.
    pub deadline: Moment,
    /// TARGET COLD RESET: all sessions of the target end when it is done.
    pub cold: bool,
}
