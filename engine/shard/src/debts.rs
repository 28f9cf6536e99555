//! What initiators owe, and for how long they may: scst.conf's RspTimeout.
//!
//! An initiator owes the data that it was asked for by an R2T, or has announced unasked, and it owes to take what is sent to
//! it. One that has paid nothing of it for RspTimeout is given up, and its connection closed, as SCST does it: what it
//! keeps from others (buffers, places in a unit's queue) comes free. Pings (`NopInTimeout`) do not find such a peer: it
//! may answer them. Looked at once a second, so that nothing is spent on it on the data path.

use std::time::Duration;

use portico_iscsi::session::Request;
use portico_model::message::EndReason;

use crate::connection::{Connection, Pdu, Phase};
use crate::driver::Driver;
use crate::slab::Key;
use crate::turn::{Mailbox, Shard};

/// How much longer than RspTimeout it may take at most.
const DUNNING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a data segment may be on its way where memory is short.
const SEGMENT_PATIENCE: Duration = Duration::from_secs(10);

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// Closes the connections of those who have owed something for too long.
    pub(crate) fn expire_debts(&mut self) {
        let now = self.core.now;
        if now < self.next_dunning {
            return;
        }
        self.next_dunning = now + DUNNING_INTERVAL;
        let mut late = self.debtors_of_data();
        for (key, connection) in self.connections.iter_mut() {
            let Phase::FullFeature(session, _) = connection.phase else { continue };
            let Some(session) = self.core.sessions.get(session) else { continue };
            let timeout = session.service.response_timeout;
            if connection.sending && !timeout.is_zero() && connection.sent_at + timeout <= now {
                late.push(key);
            }
        }
        for key in late {
            if let Some(connection) = self.connections.get(key) {
                tracing::info!(peer = %connection.peer, "RspTimeout: nothing of what it owes has come");
                self.close(key, EndReason::Silent);
            }
        }
    }

    /// Where memory is short, who has begun to send a data segment has to come to its end: as long as it is on its way,
    /// it holds memory that is in no account.
    pub(crate) fn expire_segments(&mut self) {
        if !self.core.driver.arena().is_short() {
            return;
        }
        let now = self.core.now;
        let mut late = Vec::new();
        for (key, connection) in self.connections.iter_mut() {
            let Pdu::Data { purpose, .. } = &connection.pdu else { continue };
            // Who is not listened to cannot go on.
            let may_go_on = connection.receiving && connection.place().is_some();
            if may_go_on && purpose.keeps() && connection.data_since + SEGMENT_PATIENCE <= now {
                late.push(key);
            }
        }
        for key in late {
            if let Some(connection) = self.connections.get(key) {
                tracing::info!(peer = %connection.peer, "memory is short, and a data segment does not come to its end");
                self.close(key, EndReason::Silent);
            }
        }
    }

    fn debtors_of_data(&mut self) -> Vec<Key<Connection>> {
        let (now, sessions) = (self.core.now, &self.core.sessions);
        let mut late = Vec::new();
        for (_, task) in self.core.tasks.iter_mut() {
            let Some(session) = sessions.get(task.session) else { continue };
            let timeout = session.service.response_timeout;
            if timeout.is_zero() || !session.wire.is_live(task.name) {
                continue;
            }
            if !matches!(session.wire.request(task.name), Request::Command(command) if command.write) {
                continue;
            }
            let progress = session.wire.progress(task.name);
            if progress.is_settled || progress.received_bytes != task.owed.received_bytes {
                task.owed = crate::task::Owed { received_bytes: progress.received_bytes, since: now };
            } else if task.owed.since + timeout <= now {
                // Data come on the connection that brought the command (§4.2.5.1).
                late.extend(session.link(session.wire.seat_of_task(task.name)).map(|link| link.connection));
            }
        }
        late
    }
}
