//! How connections end, and what is done on time.

use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Loss, Seat};
use portico_model::message::EndReason;
use portico_ring::Message;

use crate::connection::{Connection, LOGIN_PATIENCE_S, Phase};
use crate::driver::Driver;
use crate::full_feature::{RARE_MAX, RARE_PER_TICK};
use crate::outgoing::Rare;
use crate::session::Session;
use crate::slab::Key;
use crate::turn::{LOGOUT_PATIENCE_S, Mailbox, Shard};

/// After so long without a byte a connection gives up what it has to receive into, but for a few headers' room.
const REST_AFTER_NS: u64 = 5_000_000_000;

/// Connections that do so at a time.
const RESTS_PER_TICK: usize = 64;

/// Where memory is tight, those that were quiet for longest do so, if it was for so long: none that is at work.
const REST_EARLY_AFTER_NS: u64 = 100_000_000;

/// Connections that do so early at a time: ten thousand that come one after the other within a second are kept up with.
const EARLY_RESTS_PER_TICK: usize = 1024;

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// Closes a connection now, and mostly ends its session with it.
    pub(crate) fn close(&mut self, key: Key<Connection>, reason: EndReason) {
        let Some(connection) = self.connections.remove(key) else { return };
        if reason == EndReason::Violation {
            self.core.counters.violations += 1;
        }
        tracing::debug!(peer = %connection.peer, ?reason, "connection closed");
        self.core.driver.close(connection.fd);
        if let Phase::FullFeature(session, seat) = connection.phase {
            self.left(session, seat, reason);
        }
    }

    /// A connection of a session is closed. At recovery levels 0 and 1 the session fails with any of its connections that was not
    /// logged out (RFC 7143 §7.14); at level 2 its commands wait for another (§6.3.6).
    fn left(&mut self, session_key: Key<Session>, seat: Seat, reason: EndReason) {
        let Some(session) = self.core.sessions.get(session_key) else { return };
        let over = session.over;
        let session_fails = session.wire.fails_with_a_connection();
        let leaves = session.link(seat).is_some_and(|link| link.leaves);
        if over.is_none() && !leaves && self.core.recovers_connections(session_key) {
            self.core.suspend((session_key, seat), Loss::Failed);
            self.core.leave((session_key, seat));
            self.core.note_abandoned(session_key);
            // Requests on other connections may have waited for one whose data were coming in on this.
            return self.serve_requests(session_key);
        }
        if session.connections().count() == 1 && (over.is_some() || !session.has_lost()) {
            return self.core.end_session(session_key, over.unwrap_or(reason));
        }
        self.core.leave((session_key, seat));
        self.core.note_abandoned(session_key);
        // At level 2 the others go on even where nothing is kept of this one.
        let fails = self.core.quiescing || session_fails;
        if over.is_none() && !leaves && fails {
            return self.core.drop_session(session_key, reason);
        }
        self.serve_requests(session_key);
    }

    /// Control ends a session. Where that is no answer to something that its initiator did, it is told first.
    pub(crate) fn end_by_order(&mut self, key: Key<Session>, reason: EndReason) {
        if reason == EndReason::TargetRemoved {
            for seat in Seat::all() {
                self.core.list_rare(key, seat, Rare::Dropped);
            }
            return self.core.end_after_list(key, reason);
        }
        let Some(session) = self.core.sessions.get_mut(key) else { return };
        session.over = Some(reason);
        let connections: Vec<Key<Connection>> = session.connections().collect();
        connections.into_iter().for_each(|connection| self.close(connection, reason));
        // One whose only connection was about to be replaced has none.
        self.core.end_session(key, reason);
    }

    /// Asks every initiator to log out (RFC 7143 §11.9.1, event 1).
    pub(crate) fn ask_for_logouts(&mut self) {
        for key in self.normal_sessions() {
            for seat in Seat::all() {
                self.core.list_rare(key, seat, Rare::AskForLogout { seconds: LOGOUT_PATIENCE_S });
            }
        }
    }

    /// Tells those who are still there that their sessions are dropped (event 3).
    pub(crate) fn announce_drops(&mut self) {
        for key in self.normal_sessions() {
            for seat in Seat::all() {
                self.core.list_rare(key, seat, Rare::Dropped);
            }
        }
    }

    /// Whether anybody is logged in to a target.
    pub(crate) fn has_normal_sessions(&self) -> bool {
        self.core.sessions.iter().any(|(_, session)| session.target.is_some())
    }

    /// Whether nothing is left to send to anybody who reads.
    pub(crate) fn has_said_all(&self) -> bool {
        self.core.to_flush.is_empty()
            && self.core.unsent.is_empty()
            && self.connections.iter().all(|(_, connection)| !connection.sending)
    }

    fn normal_sessions(&self) -> Vec<Key<Session>> {
        let sessions = self.core.sessions.iter().filter(|(_, session)| session.target.is_some());
        sessions.map(|(key, _)| key).collect()
    }

    /// Closes every connection.
    pub(crate) fn close_all(&mut self, reason: EndReason) {
        for index in 0..self.connections.places() {
            if let Some(key) = self.connections.key_at(index) {
                self.close(key, reason);
            }
        }
    }

    /// Closes a connection that was to close when everything was sent.
    pub(crate) fn close_if_through(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get(key) else { return };
        if let Some(reason) = connection.closing
            && !connection.sending
            && connection.replies.is_empty()
        {
            self.close(key, reason);
        }
    }

    /// Sessions that task management ends, once what they have to say is listed.
    pub(crate) fn end_those_that_end(&mut self) {
        for (key, reason) in std::mem::take(&mut self.core.ending) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.closing.get_or_insert(reason);
                connection.login_deadline = self.core.now + Duration::from_secs(LOGIN_PATIENCE_S);
                self.core.to_flush.push(key);
            }
        }
    }

    /// Logins that take too long, and initiators that do not answer.
    pub(crate) fn expire_connections(&mut self) {
        let before = self.core.now.0.checked_sub(REST_AFTER_NS).map(Moment);
        let mut rests = RESTS_PER_TICK;
        for index in 0..self.connections.places() {
            let Some(key) = self.connections.key_at(index) else { continue };
            let connection = self.connections.get_mut(key).expect("it was just found");
            connection.rare_left = (connection.rare_left + RARE_PER_TICK).min(RARE_MAX);
            let was_tired = std::mem::take(&mut connection.is_tired);
            if rests > 0 && before.is_some_and(|before| connection.could_rest(before)) {
                connection.recalled = true;
                self.core.driver.recall(connection.fd);
                rests -= 1;
            }
            match connection.phase {
                // Its peer does not read what it is waiting for.
                _ if connection.closing.is_some() && connection.login_deadline <= self.core.now => {
                    self.close(key, EndReason::Silent);
                }
                Phase::FullFeature(session, seat) => self.expire_session(key, (session, seat)),
                Phase::Login(_) | Phase::Leaving(_) if connection.login_deadline <= self.core.now => {
                    tracing::info!(peer = %connection.peer, "login took too long");
                    self.close(key, EndReason::Silent);
                }
                Phase::Login(_) | Phase::Leaving(_) => {
                    if connection.judged_at.is_some_and(|at| at <= self.core.now) {
                        self.make_ready(key);
                    }
                }
            }
            if was_tired {
                self.make_ready(key);
            }
        }
    }

    /// Where memory is tight, takes back what connections grew to receive into, from those that were quiet for longest first:
    /// else thousands that do something within a few seconds would hold it until they rest.
    pub(crate) fn rest_early(&mut self) {
        let before = self.core.now.0.checked_sub(REST_EARLY_AFTER_NS).map(Moment);
        let Some(before) = before.filter(|_| self.core.driver.arena().is_tight()) else { return };
        let mut quiet = std::mem::take(&mut self.quiet);
        for index in 0..self.connections.places() {
            if let Some(key) = self.connections.key_at(index)
                && let Some(connection) = self.connections.get_mut(key)
                && connection.could_rest(before)
            {
                quiet.push((connection.heard_at, key));
            }
        }
        if quiet.len() > EARLY_RESTS_PER_TICK {
            quiet.select_nth_unstable_by_key(EARLY_RESTS_PER_TICK, |&(heard_at, _)| heard_at);
        }
        for (_, key) in quiet.drain(..).take(EARLY_RESTS_PER_TICK) {
            let connection = self.connections.get_mut(key).expect("it was just found");
            connection.recalled = true;
            self.core.driver.recall(connection.fd);
        }
        self.quiet = quiet;
    }
}

impl Connection {
    /// Moves the PDUs of the login into a message.
    pub(crate) fn fill_replies(&mut self, message: &mut Message) {
        for (bhs, text) in self.replies.drain(..) {
            let padded = text.len().next_multiple_of(4);
            let place = message.push_header(bhs.len() + padded).expect("a login's replies fit a message");
            place[..bhs.len()].copy_from_slice(&bhs);
            place[bhs.len()..bhs.len() + text.len()].copy_from_slice(&text);
        }
    }
}
