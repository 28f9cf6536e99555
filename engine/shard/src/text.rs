//! Text requests: SendTargets and the little else that may be said in the full feature phase (RFC 7143 §11.10, appendix C).

use portico_iscsi::discovery::{Asked, TargetRecord};
use portico_iscsi::session::{Request, TaskId};

use crate::directory::Portico;
use crate::driver::Driver;
use crate::outgoing::Rare;
use crate::session::Session;
use crate::slab::Key;
use crate::turn::{Mailbox, Shard};

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// A Text Request whose turn it is.
    pub(crate) fn text(&mut self, session_key: Key<Session>, name: TaskId) {
        let data = self.core.take_data(session_key, name);
        let Some(session) = self.core.sessions.get_mut(session_key) else { return };
        let seat = session.wire.seat_of_task(name);
        let Some(connection) = session.link(seat).and_then(|link| self.connections.get(link.connection))
        else {
            return;
        };
        let Request::Text(request) = *session.wire.request(name) else { return };
        let directory = Portico { configuration: &self.core.configuration, local: connection.local };
        let initiator = std::sync::Arc::clone(&session.initiator);
        let list = |asked: Asked<'_>| {
            let named = match asked {
                Asked::All => None,
                Asked::Named(name) => Some(name),
            };
            let targets = directory.targets_for(&initiator, named);
            targets.into_iter().map(|(name, addresses)| directory.record(name, &addresses)).collect()
        };
        let segment_bytes = session.wire.peer_segment_bytes_max(seat);
        let Some(link) = session.link_mut(seat) else { return };
        let answer = link.exchange.receive(&request, &data, segment_bytes, &list);
        match answer {
            Ok(reply) => {
                if let Some(bytes) = reply.declared_segment_bytes {
                    session.declare_segment_bytes(seat, bytes);
                }
                if reply.is_cut {
                    tracing::warn!(initiator = &*initiator, "the list of targets is longer than an answer");
                }
                self.core.answer_rare(session_key, Rare::Text { name, data: reply.text, part: reply.part });
            }
            Err(violation) => {
                self.core.counters.violations += 1;
                if self.core.may_complain() {
                    tracing::info!(peer = %connection.peer, %violation, "text refused");
                }
                self.core.answer_rare(session_key, Rare::RejectText { name, violation });
            }
        }
    }
}

impl Portico<'_> {
    /// A target with its portals, each with the tag of its group (RFC 7143 §13.8).
    fn record(&self, name: String, addresses: &[std::net::SocketAddr]) -> TargetRecord {
        let tag = |address| self.configuration.portal_group_tag(address);
        TargetRecord { name, portals: addresses.iter().map(|address| (*address, tag(*address))).collect() }
    }
}
