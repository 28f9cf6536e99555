//! What the data segment of a PDU is for, remembered from its header until it has come.

use portico_iscsi::session::TaskId;
use portico_iscsi::wire::LoginRequest;

use crate::slab::Key;
use crate::task::Task;

/// What a data segment is for.
#[derive(Debug)]
pub enum Purpose {
    /// Data of a request: the first `keep_bytes` are its task's.
    Request {
        /// The task on this shard.
        task: Key<Task>,
        /// Its name in the session.
        name: TaskId,
        /// Bytes that are kept; those after them are thrown away.
        keep_bytes: u32,
    },
    /// Nobody's: it is thrown away, and its digest matters all the same (RFC 7143 §7.8).
    Absorbed,
    /// Nothing: its header was answered.
    Nothing,
    /// Text of a Login Request.
    Login(LoginRequest),
}

impl Purpose {
    /// Whether any of the data are of use to somebody.
    #[must_use]
    pub fn keeps(&self) -> bool {
        match self {
            Purpose::Request { keep_bytes, .. } => *keep_bytes > 0,
            Purpose::Login(_) => true,
            Purpose::Absorbed | Purpose::Nothing => false,
        }
    }

    /// Whether a medium may get these data.
    #[must_use]
    pub fn is_for_a_task(&self) -> bool {
        matches!(self, Purpose::Request { .. })
    }
}
