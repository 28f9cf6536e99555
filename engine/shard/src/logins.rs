//! Logins: from an accepted socket to a session at home, or to a refusal.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::chap::{NONCE_BYTES, Nonce};
use portico_iscsi::login::{
    Completed, LOGIN_DATA_SEGMENT_BYTES_MAX, LoginReply, Options, SessionType, Step, TargetLogin,
};
use portico_iscsi::session::{Joining, Loss, Seat};
use portico_iscsi::sn::StatSn;
use portico_iscsi::violation::{Answer, Violation};
use portico_iscsi::wire::{Bhs, InitiatorPdu, LoginStatus, opcode};
use portico_model::identity::SessionId;
use portico_model::login_failures::LoginFailure;
use portico_model::message::{Adoption, EndReason, LoginQuestion, Refusal, ToControl};

use crate::budget::Holding;
use crate::connection::{Connection, Framed, LOGIN_PATIENCE_S, Pdu, Phase};
use crate::core::{Core, Joiner};
use crate::directory::{Place, Portico, discovery_keys, target_ports};
use crate::driver::Driver;
use crate::full_feature::session_of;
use crate::penalties::Verdict;
use crate::purpose::Purpose;
use crate::session::{Link, SEND_BYTES_MAX, Session, spell, states};
use crate::slab::Key;
use crate::turn::{Mailbox, Shard};
use portico_ring::ArenaOptions;

/// Connections of one shard that have not logged in (CVE-2011-0001 and kin): one more takes the place of one of them.
const LOGINS_MAX: usize = 1024;

/// How many of them a shard with this memory has: what they receive into is a quarter of it at most.
pub(crate) fn logins_max(arena: ArenaOptions) -> usize {
    usize::try_from(arena.small / 4).expect("32 bits").clamp(1, LOGINS_MAX)
}

/// Commands of a discovery session: it sends one at a time.
const DISCOVERY_COMMANDS: u16 = 8;

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// A connection was accepted.
    pub(crate) fn greet(&mut self, socket: OwnedFd) {
        let logins = self.connections.len().saturating_sub(self.core.seated);
        if self.core.quiescing || logins >= self.logins_max && !self.make_place() {
            return;
        }
        let Ok(fd) = self.core.driver.adopt(socket) else { return };
        let Ok(addresses) = self.core.driver.addresses(fd) else {
            self.core.driver.close(fd);
            return;
        };
        let options = Options {
            stat_sn: StatSn(1),
            discovery: discovery_keys(),
            discovery_queued_commands: DISCOVERY_COMMANDS,
        };
        let mut nonce = [0; NONCE_BYTES];
        if let Err(error) = self.core.driver.random(&mut nonce) {
            // A challenge that can be guessed is worse than no login (CVE-2024-45751).
            tracing::error!(%error, "no randomness for a login");
            self.core.driver.close(fd);
            return;
        }
        let phase = Phase::Login(Box::new(TargetLogin::new(options, Nonce::new(nonce))));
        let deadline = self.core.now + Duration::from_secs(LOGIN_PATIENCE_S);
        let key = self.connections.insert(Connection::new(fd, addresses, phase, deadline));
        self.arm(key);
    }

    /// Closes the oldest login of the address that has most of them, so that who opens connections and says nothing takes
    /// places from nobody but himself; false where all are about to be answered.
    fn make_place(&mut self) -> bool {
        let waits = |connection: &Connection| {
            matches!(connection.phase, Phase::Login(_)) && connection.wants_bytes_or_has_them()
        };
        let mut logins: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| waits(connection))
            .map(|(key, connection)| (connection.peer.ip(), connection.login_deadline, key))
            .collect();
        logins.sort_unstable_by_key(|(address, deadline, _)| (*address, *deadline));
        let most = logins.chunk_by(|one, other| one.0 == other.0).max_by_key(|of_one| of_one.len());
        let Some((_, _, oldest)) = most.and_then(|of_one| of_one.first()) else { return false };
        self.close(*oldest, EndReason::Silent);
        true
    }

    /// Understands what has come on a connection that logs in: one PDU at a time.
    pub(crate) fn advance_login(&mut self, key: Key<Connection>) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.closing.is_some()
                || connection.is_answering()
                || !matches!(connection.phase, Phase::Login(_))
            {
                return;
            }
            match &connection.pdu {
                Pdu::Header => match connection.frame(LOGIN_DATA_SEGMENT_BYTES_MAX) {
                    Ok(Framed::Incomplete) => return,
                    Ok(Framed::Header(bhs, lengths)) => match InitiatorPdu::parse(&bhs) {
                        Ok(InitiatorPdu::Login(request)) => {
                            connection.begin_data(bhs, lengths, Purpose::Login(request));
                        }
                        Ok(_) => {
                            let Phase::Login(login) = &connection.phase else { return };
                            let violation = login.intruder(opcode(&bhs));
                            return self.fail_login(key, &bhs, &violation);
                        }
                        Err(violation) => return self.fail_login(key, &bhs, &violation),
                    },
                    Err(violation) => return self.fail_login(key, &[0; 48], &violation),
                },
                Pdu::Data { .. } if !connection.has_data() => return,
                Pdu::Data { .. } => {
                    if !self.may_be_judged(key) {
                        return;
                    }
                    self.login_request(key);
                }
            }
        }
    }

    /// Whether it is time for the request at hand: a proof waits for its turn where its address has failed before.
    fn may_be_judged(&mut self, key: Key<Connection>) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let Phase::Login(login) = &connection.phase else { return true };
        if let Some(at) = connection.judged_at {
            if at <= self.core.now {
                connection.judged_at = None;
            }
            return connection.judged_at.is_none();
        }
        if !login.awaits_proof() {
            return true;
        }
        match self.core.penalties.book(connection.peer.ip(), self.core.now) {
            Verdict::Now => true,
            Verdict::At(moment) => {
                connection.judged_at = Some(moment);
                false
            }
            Verdict::Never => {
                let target = login.target_name().map(str::to_owned);
                self.core.note_login_failure(target.as_deref(), LoginFailure::Slowed);
                tracing::info!(peer = %connection.peer, "too many wrong proofs wait: closed unanswered");
                self.close(key, EndReason::Violation);
                false
            }
        }
    }

    fn login_request(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Pdu::Data { purpose: Purpose::Login(request), lengths } =
            std::mem::replace(&mut connection.pdu, Pdu::Header)
        else {
            return;
        };
        let mut text = Vec::with_capacity(lengths.data_bytes() as usize);
        connection.inbound.take(lengths.data_bytes() as usize, |buffer| text.extend_from_slice(&buffer));
        text.truncate(lengths.data_segment_bytes as usize);
        let directory = Portico { configuration: &self.core.configuration, local: connection.local };
        let Phase::Login(login) = &mut connection.phase else { return };
        let proof = login.awaits_proof();
        match login.receive(&request, &text, &directory) {
            Ok(Step::More(reply)) => connection.replies.push(framed(reply)),
            Ok(Step::Refused(reply)) => {
                let target = login.target_name().map(str::to_owned);
                self.core.note_login_failure(target.as_deref(), LoginFailure::of(reply.response.status));
                connection.replies.push(framed(reply));
                connection.closing = Some(EndReason::Violation);
            }
            Ok(Step::Complete(completed)) => connection.phase = Phase::Leaving(completed),
            Err(violation) => {
                if proof && violation.answer() == Answer::LoginStatus(LoginStatus::AUTHENTICATION_FAILURE) {
                    self.core.penalties.failed(connection.peer.ip(), self.core.now);
                }
                let mut bhs = [0; 48];
                InitiatorPdu::Login(request).emit(&mut bhs);
                return self.fail_login(key, &bhs, &violation);
            }
        }
        self.core.to_flush.push(key);
        self.leave_if_still(key);
    }

    fn fail_login(&mut self, key: Key<Connection>, bhs: &Bhs, violation: &Violation) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.core.counters.violations += 1;
        tracing::info!(peer = %connection.peer, %violation, "login refused");
        let (mut failure, mut target) = (LoginFailure::Protocol, None);
        if let Phase::Login(login) = &connection.phase {
            target = login.target_name().map(str::to_owned);
            if let Some(reply) = login.refusal(bhs, violation) {
                failure = LoginFailure::of(reply.response.status);
                connection.replies.push(framed(reply));
            }
        }
        connection.closing = Some(EndReason::Violation);
        self.core.to_flush.push(key);
        self.core.note_login_failure(target.as_deref(), failure);
    }

    /// A complete login goes to control once nothing is in flight on its connection.
    pub(crate) fn leave_if_still(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Phase::Leaving(_) = connection.phase else { return };
        // One that control has refused waits for the end of its last reply only; asking again would go on for ever.
        let still = !connection.receiving && !connection.sending && connection.replies.is_empty();
        if !still || connection.closing.is_some() {
            return;
        }
        let connection = self.connections.remove(key).expect("it was just there");
        let Phase::Leaving(completed) = connection.phase else { return };
        let socket = match self.core.driver.release(connection.fd) {
            Ok(socket) => socket,
            Err(fd) => return self.core.driver.close(fd),
        };
        let question = LoginQuestion {
            shard: self.core.shard,
            completed: *completed,
            socket,
            unread: connection.inbound.into_bytes(),
            peer: connection.peer,
            local: connection.local,
        };
        self.core.outbox.push_back(ToControl::Login(Box::new(question)));
    }

    /// A session comes home.
    pub(crate) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { session, nexus, tsih, target, map, greeting, service, question } = adoption;
        let LoginQuestion { completed, socket, unread, peer, local, .. } = question;
        let reply = completed.accept(tsih);
        let Ok(fd) = self.core.driver.adopt(socket) else {
            let (reason, orphans) = (EndReason::ConnectionLost, Vec::new());
            self.core.outbox.push_back(ToControl::SessionEnded { session, reason, orphans });
            return;
        };
        let wire = session_of(&completed, tsih, &service, self.core.now);
        let place =
            Place::of(&self.core.configuration, completed.target_name.as_deref(), completed.portal_group_tag);
        let adopted = Session {
            id: session,
            nexus,
            target,
            target_name: completed.target_name.clone(),
            copies: Vec::new(),
            portal_group_tag: completed.portal_group_tag,
            initiator: Arc::from(completed.initiator_name.as_str()),
            tasks: vec![None; wire.task_slots()],
            wire,
            service,
            links: Vec::with_capacity(1),
            over: None,
            luns: states(&map, greeting, |unit| self.core.unit_keys.get(&unit).copied()),
            spelt: spell(&map, place.address_method),
            map,
            address_method: place.address_method,
            relative_target_port: place.relative_target_port,
            target_ports: target_ports(&self.core.configuration, completed.target_name.as_deref()),
            wants_aligned: false,
            lends: false,
            holding: Holding::default(),
            waiting: 0,
            fences: VecDeque::new(),
        };
        let home = self.core.adopt(adopted);
        let connection =
            Connection::new(fd, (peer, local), Phase::FullFeature(home, Seat::LEADING), self.core.now);
        self.seat(connection, &completed, &unread, reply);
    }

    /// A connection sits down in its session; the final Login Response is sent to it.
    fn seat(&mut self, connection: Connection, login: &Completed, unread: &[u8], reply: LoginReply) {
        let (session_key, seat) = connection.place().expect("it has a seat");
        let key = self.connections.insert(connection);
        let session = self.core.sessions.get_mut(session_key).expect("the caller has it");
        session.seat(seat, Link::new(key, login));
        self.core.seated += 1;
        let digests = session.wire.digests(seat);
        let connection = self.connections.get_mut(key).expect("it was just put there");
        // The final Login Response goes without (RFC 7143 §13.1): `replies` are sent as they are.
        connection.agree_on(digests);
        connection.replies.push(framed(reply));
        if !connection.inbound.inject(self.core.driver.arena(), unread) {
            // Without these bytes nothing that follows could be understood.
            return self.close(key, EndReason::ConnectionLost);
        }
        self.core.to_flush.push(key);
        self.make_ready(key);
    }

    /// A connection comes to its session (RFC 7143 §6.3.1, §6.3.4, §11.12.7).
    pub(crate) fn join(&mut self, id: SessionId, question: Box<LoginQuestion>) {
        let key = self.core.session_keys.get(&id).copied();
        let live =
            key.filter(|key| self.core.sessions.get(*key).is_some_and(|session| session.over.is_none()));
        let Some(key) = live.filter(|_| !self.core.quiescing) else {
            return self.refuse(Refusal { status: LoginStatus::SESSION_DOES_NOT_EXIST, question: *question });
        };
        let session = self.core.sessions.get(key).expect("it was just there");
        let cid = question.completed.cid;
        let Some(seat) = session.wire.seat_of(cid) else {
            self.core.log_out_lost(key, cid);
            return self.take_in(key, question);
        };
        tracing::info!(peer = %question.peer, "a connection takes the place of one with the same CID");
        if let Some(link) = session.link(seat)
            && let Some(before) = self.connections.remove(link.connection)
        {
            self.core.driver.close(before.fd);
        }
        if self.core.recovers_connections(key) {
            // §6.3.4: it logs the old one out for recovery.
            self.core.suspend((key, seat), Loss::LoggedOut(None));
            self.core.leave((key, seat));
            self.serve_requests(key);
            self.take_in(key, question);
            return self.core.end_if_empty(key);
        }
        self.core.reinstate_connection((key, seat), question);
        // Requests on other connections may have waited for one whose data were coming in on this.
        self.serve_requests(key);
    }

    /// Connections that waited for what their predecessors had at media.
    pub(crate) fn take_in_those_that_join(&mut self) {
        for Joiner { session: key, question, refused } in std::mem::take(&mut self.core.joining) {
            match refused {
                None => self.take_in(key, question),
                Some(status) => self.refuse(Refusal { status, question: *question }),
            }
            // The one that it had may be gone, and the one that was to take its place has not come.
            self.core.end_if_empty(key);
        }
    }

    fn take_in(&mut self, key: Key<Session>, question: Box<LoginQuestion>) {
        let mut parameters = question.completed.parameters;
        let longest = &mut parameters.peer_max_recv_data_segment_length;
        *longest = (*longest).min(SEND_BYTES_MAX);
        let joining = Joining {
            cid: question.completed.cid,
            stat_sn: question.completed.stat_sn.next(),
            parameters: &parameters,
            now: self.core.now,
        };
        let session = self.core.sessions.get_mut(key).filter(|session| session.over.is_none());
        let seat = match session {
            None => Err(LoginStatus::SESSION_DOES_NOT_EXIST),
            // Another of this CID may have come while it waited.
            Some(session) if session.wire.seat_of(joining.cid).is_some() => Err(LoginStatus::TARGET_ERROR),
            Some(session) => session.wire.join(&joining).ok_or(LoginStatus::TOO_MANY_CONNECTIONS),
        };
        let seat = match seat {
            Ok(seat) => seat,
            Err(status) => return self.refuse(Refusal { status, question: *question }),
        };
        let session = self.core.sessions.get_mut(key).expect("it was just there");
        let reply = question.completed.accept_joining(session.wire.window());
        let LoginQuestion { completed, socket, unread, peer, local, .. } = *question;
        let Ok(fd) = self.core.driver.adopt(socket) else { return session.wire.leave(seat) };
        let connection = Connection::new(fd, (peer, local), Phase::FullFeature(key, seat), self.core.now);
        self.seat(connection, &completed, &unread, reply);
    }

    /// A login that control refused.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        let Refusal { status, question } = refusal;
        let target = question.completed.target_name.as_deref();
        let target = target.filter(|_| question.completed.session_type == SessionType::Normal);
        self.core.note_login_failure(target, LoginFailure::of(status));
        let Ok(fd) = self.core.driver.adopt(question.socket) else { return };
        let completed = Box::new(question.completed);
        let reply = completed.refuse(status);
        let deadline = self.core.now + Duration::from_secs(LOGIN_PATIENCE_S);
        let addresses = (question.peer, question.local);
        let mut connection = Connection::new(fd, addresses, Phase::Leaving(completed), deadline);
        connection.replies.push(framed(reply));
        connection.closing = Some(EndReason::Violation);
        let key = self.connections.insert(connection);
        self.core.to_flush.push(key);
    }
}

impl<D: Driver> Core<D> {
    /// Counts a login that came to nothing; what is no target of ours is not told apart.
    fn note_login_failure(&mut self, target: Option<&str>, failure: LoginFailure) {
        self.counters.logins_refused += 1;
        let target = target.and_then(|name| self.configuration.target(name));
        self.login_failures.count(target.map(|target| target.name.as_str()), failure);
    }
}

fn framed(reply: LoginReply) -> (Bhs, Vec<u8>) {
    let mut bhs = [0; 48];
    reply.response.emit(&mut bhs);
    (bhs, reply.text)
}
