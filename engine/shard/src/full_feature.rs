//! The full feature phase of a connection: PDUs that come, and the requests that they make.

use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::login::Completed;
use portico_iscsi::moment::Moment;
use portico_iscsi::session::KeepaliveTimes;
use portico_iscsi::session::{Expired, Received, Request, Seat, Spoilt, Start, TaskId};
use portico_iscsi::violation::{Answer, Violation};
use portico_iscsi::wire::ahs::AdditionalHeaders;
use portico_iscsi::wire::{Bhs, DataOut, InitiatorPdu, RejectReason, ScsiCommand, Tsih, opcode};
use portico_model::message::{EndReason, Service};

use crate::connection::{Connection, Framed, Pdu, Phase};
use crate::driver::Driver;
use crate::outgoing::Rare;
use crate::purpose::Purpose;
use crate::session::{SEND_BYTES_MAX, Session};
use crate::slab::Key;
use crate::turn::{Mailbox, Shard};

/// PDUs of one connection that one turn understands, so that its neighbours get their turn.
pub(crate) const PDUS_PER_TURN: usize = 128;

/// PDUs other than SCSI commands and their data, and wrong ones, that a connection may send in a tenth of a second, and how many
/// it may save: whoever sends more is heard later, so that pings and texts without end cost others nothing.
pub(crate) const RARE_PER_TICK: u16 = 100;
pub(crate) const RARE_MAX: u16 = 400;

/// PDUs that wait to be sent on one connection, after which it is not read any further: an initiator that asks and never
/// reads costs so much. More than any window's commands.
const OUTGOING_MAX: usize = 4096;

/// A session, and the seat in it of the connection at hand.
type Place = (Key<Session>, Seat);

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// Understands what has come on a connection.
    pub(crate) fn advance(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.phase {
            Phase::Login(_) => self.advance_login(key),
            Phase::Leaving(_) => self.leave_if_still(key),
            Phase::FullFeature(session, seat) => self.advance_session(key, (session, seat)),
        }
    }

    fn advance_session(&mut self, key: Key<Connection>, (session, seat): Place) {
        let mut pdus_left = PDUS_PER_TURN;
        while pdus_left > 0 {
            let answered = self.answer_reads(key, (session, seat), pdus_left);
            if answered > 0 {
                pdus_left -= answered;
                continue;
            }
            pdus_left -= 1;
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.closing.is_some() {
                return;
            }
            let Some(state) = self.core.sessions.get(session) else { return };
            // Nor is the rest of a segment understood, whose command may wait for another connection by now.
            let Some(link) = state.link(seat).filter(|link| !link.leaves) else { return };
            match connection.pdu {
                Pdu::Header => {
                    // At a fence it is not sending, and what it asks for waits all the same.
                    let waits = connection.sending || !state.fences.is_empty();
                    if waits && link.outgoing.len() >= OUTGOING_MAX {
                        connection.stalled = true;
                        return;
                    }
                    if connection.rare_left == 0 {
                        connection.is_tired = true;
                        return;
                    }
                    let limit = state.wire.own_segment_bytes_max(seat);
                    match connection.frame(limit) {
                        Ok(Framed::Incomplete) => return,
                        Ok(Framed::Header(bhs, lengths)) => {
                            let is_whole = connection.inbound.len() >= lengths.data_bytes() as usize;
                            if is_whole && self.serve_in_turn(key, (session, seat), &bhs, lengths) {
                                continue;
                            }
                            let Some(connection) = self.connections.get_mut(key) else { return };
                            let is_rare = !matches!(opcode(&bhs), ScsiCommand::OPCODE | DataOut::OPCODE);
                            connection.rare_left -= u16::from(is_rare);
                            let ahs = std::mem::take(&mut connection.ahs);
                            let purpose = match self.understand((session, seat), &bhs, &ahs) {
                                Ok(purpose) => purpose,
                                Err(violation) => {
                                    self.answer_violation(key, (session, seat), &bhs, &violation)
                                }
                            };
                            let purpose =
                                if is_whole { purpose } else { self.core.welcome(purpose, lengths) };
                            let Some(connection) = self.connections.get_mut(key) else { return };
                            connection.ahs = ahs;
                            connection.data_since = self.core.now;
                            connection.begin_data(bhs, lengths, purpose);
                        }
                        // The stream cannot be followed, so that there is no PDU to reject (RFC 7143 §7.8).
                        Err(violation) => return self.lose(key, &violation),
                    }
                }
                Pdu::Data { .. } => {
                    connection.check_arrived();
                    if !connection.has_data() {
                        connection.skip_unwanted();
                        return;
                    }
                    self.data_segment(key, (session, seat));
                }
            }
        }
        self.make_ready(key);
    }

    /// Answers the READs that come next, as far as they can be answered where they are understood, and at most so many; how many.
    fn answer_reads(&mut self, key: Key<Connection>, place: Place, count_max: usize) -> usize {
        let Some(connection) = self.connections.get_mut(key) else { return 0 };
        let is_read = matches!(connection.pdu, Pdu::Header)
            && connection.inbound.front().is_some_and(ScsiCommand::reads)
            && connection.digests == Digests::NONE;
        // What is being sent, and the final Login Response, go first.
        let waits = connection.is_answering() || connection.closing.is_some();
        if !is_read || waits || connection.rare_left == 0 {
            return 0;
        }
        self.core.answer_reads(key, place, &mut connection.inbound, count_max)
    }

    /// Begins the command of this header, where it is its turn and its data segment is here: the short way of most commands.
    /// `false`: it is another, and nothing has happened.
    fn serve_in_turn(
        &mut self,
        key: Key<Connection>,
        (session_key, seat): Place,
        bhs: &Bhs,
        lengths: Lengths,
    ) -> bool {
        if opcode(bhs) != ScsiCommand::OPCODE || lengths.data_digest_bytes > 0 {
            return false;
        }
        let Ok(command) = ScsiCommand::parse(bhs) else { return false };
        let Some(session) = self.core.sessions.get_mut(session_key) else { return false };
        let Some((name, segment)) = session.wire.receive_in_turn(seat, &command, self.core.now) else {
            return false;
        };
        self.core.look_at_fences(session_key);
        let task = self.core.arrive(session_key, name);
        let total = lengths.data_bytes() as usize;
        if total == 0 {
            self.core.start_task(session_key, name, task);
            return true;
        }
        if let Some(connection) = self.connections.get_mut(key) {
            let kept = segment.keep_bytes as usize;
            connection.inbound.take(kept, |buffer| self.core.data(task, buffer));
            connection.inbound.skip(total - kept);
        }
        self.core.start_task(session_key, name, task);
        self.core.shelve(task);
        true
    }

    /// What the data segment of a PDU is for.
    fn understand(&mut self, place: Place, bhs: &Bhs, ahs: &[u8]) -> Result<Purpose, Violation> {
        let (session_key, seat) = place;
        let pdu = InitiatorPdu::parse(bhs)?;
        let now = self.core.now;
        let session = self.core.sessions.get_mut(session_key).expect("the caller has it");
        let received = session.wire.receive(seat, &pdu, ahs, now);
        let acknowledged = session.wire.acknowledged(seat);
        if let Some(kept) = session.link_mut(seat).and_then(|link| link.kept.as_mut()) {
            kept.acknowledged(acknowledged);
            kept.book(&mut self.core.budget);
        }
        self.core.look_at_fences(session_key);
        match received? {
            Received::Request { task: name, segment } => {
                let task = self.core.arrive(session_key, name);
                if let Some(rest) = AdditionalHeaders::parse(ahs)?.extended_cdb {
                    self.core.extend_cdb(task, rest);
                }
                Ok(Purpose::Request { task, name, keep_bytes: segment.keep_bytes })
            }
            Received::Data { task: name, segment } => {
                let session = self.core.sessions.get(session_key).expect("it was just there");
                let task = session.task(name).unwrap_or_else(Key::nobody);
                Ok(Purpose::Request { task, name, keep_bytes: segment.keep_bytes })
            }
            Received::Snack(snack) => self.core.snack(place, &snack).map(|()| Purpose::Absorbed),
            Received::Absorb { .. } => Ok(Purpose::Absorbed),
        }
    }

    /// All of a data segment has come.
    fn data_segment(&mut self, key: Key<Connection>, place: Place) {
        let (session_key, seat) = place;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let holds = connection.data_digest_holds();
        let header = connection.header;
        let total = connection.rest_bytes();
        let Pdu::Data { purpose, .. } = std::mem::replace(&mut connection.pdu, Pdu::Header) else {
            return;
        };
        if !holds && !matches!(purpose, Purpose::Nothing) {
            connection.inbound.skip(total);
            self.spoilt(key, place, &header, &purpose);
            return self.serve_requests(session_key);
        }
        let Purpose::Request { task, name, keep_bytes } = purpose else {
            connection.inbound.skip(total);
            // A rejected request has used up its CmdSN: those behind it have their turn.
            return self.serve_requests(session_key);
        };
        let kept = keep_bytes as usize;
        connection.inbound.take(kept, |buffer| self.core.data(task, buffer));
        connection.inbound.skip(total - kept);
        let Some(session) = self.core.sessions.get_mut(session_key) else { return };
        session.wire.data_arrived(seat, name);
        self.core.count_asked(task);
        self.core.data_came(task);
        self.serve_requests(session_key);
        self.core.shelve(task);
    }

    /// A data segment came with a wrong digest: it is discarded, and the initiator hears of it (RFC 7143 §7.8). A request
    /// counts as never sent; a write fails when the rest of its data has come.
    fn spoilt(&mut self, key: Key<Connection>, place: Place, header: &Bhs, purpose: &Purpose) {
        let (session_key, seat) = place;
        self.answer_violation(key, place, header, &Violation::DataDigestWrong);
        let Purpose::Request { task, name, .. } = *purpose else { return };
        let Some(session) = self.core.sessions.get_mut(session_key) else { return };
        match session.wire.data_spoilt(seat, name) {
            Spoilt::Request => self.core.forget(task),
            Spoilt::Data(_) => {
                self.core.count_asked(task);
                self.core.data_came(task);
            }
        }
    }

    /// Requests whose turn it is, by whichever connection they came.
    pub(crate) fn serve_requests(&mut self, session_key: Key<Session>) {
        while let Some(session) = self.core.sessions.get_mut(session_key) {
            let Some(name) = session.wire.next_request() else { return };
            let task = session.task(name).and_then(|task| self.core.tasks.get(task));
            let refused = task.is_some_and(|task| task.is_refused);
            match *session.wire.request(name) {
                Request::Command(_) => self.core.start(session_key, name),
                Request::TaskManagement(request) => self.core.manage(session_key, name, &request),
                Request::NopOut(_) | Request::Text(_) if refused => {
                    // A command can be told; of anything else that comes in such numbers before its turn there is nothing
                    // to save.
                    let link = session.link(session.wire.seat_of_task(name));
                    let Some(connection) = link.map(|link| link.connection) else { return };
                    return self.close(connection, EndReason::Violation);
                }
                Request::NopOut(_) => {
                    let data = self.core.take_data(session_key, name);
                    self.core.answer_rare(session_key, Rare::Pong { name, data });
                }
                Request::Text(_) => self.text(session_key, name),
                Request::Logout(request) => {
                    let asked = session.wire.logout(&request);
                    self.core.log_out(session_key, name, asked);
                }
            }
        }
    }

    /// Carries out what a violation earns. What follows the header of the PDU is thrown away.
    fn answer_violation(
        &mut self,
        key: Key<Connection>,
        (session, seat): Place,
        bhs: &Bhs,
        violation: &Violation,
    ) -> Purpose {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.rare_left = connection.rare_left.saturating_sub(1);
        }
        match violation.answer() {
            Answer::Reject(reason) => {
                self.note_violation(key, violation);
                self.core.counters.violations += 1;
                if let Some(session) = self.core.sessions.get_mut(session)
                    && reason != RejectReason::DataDigestError
                {
                    session.wire.consume_cmd_sn(bhs);
                }
                self.core.list_rare(session, seat, Rare::Reject { reason, header: *bhs });
            }
            Answer::DropConnection | Answer::DropSession | Answer::LoginStatus(_) => {
                self.lose(key, violation);
            }
            Answer::Ignore => self.note_violation(key, violation),
        }
        Purpose::Nothing
    }

    /// A violation after which the connection cannot go on. The session fails with it (§7.14).
    fn lose(&mut self, key: Key<Connection>, violation: &Violation) {
        self.note_violation(key, violation);
        self.close(key, EndReason::Violation);
    }

    fn note_violation(&mut self, key: Key<Connection>, violation: &Violation) {
        if let Some(connection) = self.connections.get(key)
            && self.core.may_complain()
        {
            tracing::info!(peer = %connection.peer, %violation, "protocol violation");
        }
    }

    /// Pings an initiator that is silent, and gives up one that stays so. In a discovery session nothing but answers to text
    /// and logout SHOULD be sent (§7.4): there, silence is enough.
    pub(crate) fn expire_session(&mut self, key: Key<Connection>, (session_key, seat): Place) {
        let Some(session) = self.core.sessions.get(session_key) else { return };
        match session.wire.expire(seat, self.core.now) {
            Expired::Nothing => {}
            Expired::Ping if session.target.is_none() => self.close(key, EndReason::Silent),
            Expired::Ping => self.core.ping(session_key, seat),
            Expired::PeerSilent => self.close(key, EndReason::Silent),
        }
    }
}

/// The session that a completed login begins.
pub(crate) fn session_of(
    completed: &Completed,
    tsih: Tsih,
    service: &Service,
    now: Moment,
) -> portico_iscsi::session::Session {
    let keepalive = KeepaliveTimes { interval: service.nop_in_interval, timeout: service.nop_in_timeout };
    let mut start = Start::after(completed, tsih, keepalive, now);
    let longest = &mut start.parameters.peer_max_recv_data_segment_length;
    *longest = (*longest).min(SEND_BYTES_MAX);
    portico_iscsi::session::Session::new(start)
}

impl<D: Driver> crate::core::Core<D> {
    /// The data of a request that is no command.
    pub(crate) fn take_data(&mut self, session: Key<Session>, name: TaskId) -> Vec<u8> {
        let task = self.sessions.get(session).and_then(|session| session.task(name));
        let Some(task) = task.and_then(|task| self.tasks.get_mut(task)) else { return Vec::new() };
        task.inflow_bytes = 0;
        task.inflow.drain(..).flat_map(|buffer| buffer.to_vec()).collect()
    }
}
