//! Text requests: SendTargets (RFC 7143 §4.3, §11.10, appendix C).

use portico_iscsi::session::TaskId;

use crate::connection::Connection;
use crate::driver::Driver;
use crate::session::Session;
use crate::slab::Key;
use crate::turn::{Mailbox, Shard};

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// A Text Request whose turn it is.
    pub(crate) fn text(&mut self, key: Key<Connection>, session_key: Key<Session>, name: TaskId) {
        let _ = (key, session_key, name);
    }
}
