//! Task management functions that wait (RFC 7143 §11.5, §4.2.3.3), and what waits likewise: for tasks whose pieces are at a
//! medium, or for control.

use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Fence, Leaving, Seat, TaskId};
use portico_iscsi::wire::TaskManagementResult;
use portico_model::message::{EndReason, LoginQuestion};

use crate::session::Session;
use crate::slab::Key;
use crate::task::Task;

/// How long a function waits for a medium before it is answered "function rejected": never as complete.
pub const PATIENCE_S: u64 = 20;

/// One function that is under way.
#[derive(Debug)]
pub struct Management {
    /// Who asked.
    pub session: Key<Session>,
    /// The connection that the answer goes to, or that is to join.
    pub seat: Seat,
    /// Aborted tasks that are still at a medium.
    pub tasks: u32,
    /// Resets and releases that control has not answered.
    pub resets: u32,
    /// What is answered when nothing is waited for any more.
    pub answer: Answer,
    /// What the initiator has to acknowledge first, once nothing else is waited for (RFC 7143 §4.2.3.3).
    pub fence: Option<Fence>,
    /// Connections of which data may have been asked before: a bit for each seat.
    pub asked: u8,
    /// When it is given up.
    pub deadline: Moment,
    /// It was given up: nothing is waited for any more.
    pub late: bool,
    /// What ends when it is done, and why: all sessions of the target by TARGET COLD RESET, its own by I_T NEXUS RESET.
    pub ends: Option<EndReason>,
}

/// What is answered in the end.
#[derive(Debug)]
pub enum Answer {
    /// A Task Management Function Response.
    TaskManagement {
        /// The request.
        name: TaskId,
        /// The worst result so far.
        result: TaskManagementResult,
        /// Additional Response Information, of QUERY ASYNCHRONOUS EVENT (RFC 7144).
        additional: [u8; 3],
    },
    /// A Logout Response. Where the session ends, it waits until what the nexus had reserved is free on every shard: whoever
    /// hears of the logout may reserve it (SPC-2 §5.5.1).
    Logout {
        /// The request.
        name: TaskId,
        /// What ends.
        leaving: Leaving,
    },
    /// The CHECK CONDITION of a command whose fault has aborted the others of its task set.
    Status(Key<Task>),
    /// The final Login Response of a connection that takes the place of one of the same CID (RFC 7143 §6.3.4).
    Join(Box<LoginQuestion>),
}

impl Answer {
    /// A Task Management Function Response without further information.
    #[must_use]
    pub const fn of_function(name: TaskId, result: TaskManagementResult) -> Self {
        Self::TaskManagement { name, result, additional: [0; 3] }
    }
}

impl Management {
    /// One that waits for nothing yet.
    #[must_use]
    pub fn new(session: Key<Session>, seat: Seat, answer: Answer, now: Moment) -> Self {
        let deadline = now + Duration::from_secs(PATIENCE_S);
        let (fence, ends) = (None, None);
        Self { session, seat, tasks: 0, resets: 0, answer, fence, asked: 0, deadline, late: false, ends }
    }
}
