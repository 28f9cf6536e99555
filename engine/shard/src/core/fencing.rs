//! Responses that are fenced (RFC 7143 §4.2.2.3.4), where TaskReporting says so and a session has several connections.

use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Fence, Request, Seat};
use portico_iscsi::wire::TaskManagementFunction;
use portico_model::message::EndReason;
use portico_scsi::bits::Status;
use portico_scsi::opcodes;
use portico_scsi::persistent;
use portico_scsi::sense::SenseKey;

use super::Core;
use crate::driver::Driver;
use crate::fencing::{Fencing, Stage};
use crate::management::PATIENCE_S;
use crate::outgoing::{Outgoing, Rare};
use crate::session::{Link, Session};
use crate::slab::Key;

impl<D: Driver> Core<D> {
    /// Whether a response is one of §4.2.2.3.4's list. Of unit attentions those alone are meant that follow an abort of
    /// several tasks; all are fenced, for they are rare, and what follows any of them is better heard after it. Functions that
    /// end the session are followed by nothing.
    pub(super) fn is_fenced(&self, session_key: Key<Session>, entry: &Outgoing) -> bool {
        let Some(session) = self.sessions.get(session_key) else { return false };
        match entry {
            Outgoing::Status(key) => {
                let Some(task) = self.tasks.get(*key).filter(|task| !task.aborted) else { return false };
                let cdb = &session.wire.command(task.name).cdb;
                let Some(outcome) = task.ended else { return false };
                match outcome.status {
                    Status::CheckCondition => {
                        let key = outcome.sense.map(|sense| sense.key);
                        key == Some(SenseKey::UnitAttention) || opcodes::establishes_aca(cdb)
                    }
                    Status::AcaActive => true,
                    _ => persistent::is_preempt_and_abort(cdb),
                }
            }
            Outgoing::Rare(rare) => {
                let Rare::TaskManagement { name, .. } = **rare else { return false };
                let Request::TaskManagement(request) = session.wire.request(name) else { return false };
                matches!(
                    request.function,
                    TaskManagementFunction::AbortTaskSet
                        | TaskManagementFunction::ClearTaskSet
                        | TaskManagementFunction::LogicalUnitReset
                        | TaskManagementFunction::TargetWarmReset
                        | TaskManagementFunction::ClearAca
                )
            }
            Outgoing::DataIn(_) | Outgoing::R2t(_) => false,
        }
    }

    /// Lists a response with its fence.
    #[cold]
    pub(super) fn list_fenced(&mut self, session_key: Key<Session>, seat: Seat, entry: Outgoing) {
        let serial = self.serial();
        let deadline = self.now + Duration::from_secs(PATIENCE_S);
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let seats: Vec<Seat> = session.wire.seats().collect();
        if seats.len() < 2 || !seats.contains(&seat) {
            return self.enlist(session_key, seat, entry);
        }
        self.fenced_until = self.fenced_until.min(deadline);
        session.fences.push_back(Fencing { serial, seat, stage: Stage::Gathers, deadline });
        let fence = || Outgoing::Rare(Box::new(Rare::Fence { serial }));
        for other in seats {
            self.enlist(session_key, other, fence());
        }
        self.enlist(session_key, seat, entry);
        self.enlist(session_key, seat, fence());
    }

    /// Whether the list of a connection begins with a fence that it may not pass now.
    #[cold]
    pub(super) fn is_held_at_fence(&mut self, (session_key, seat): (Key<Session>, Seat)) -> bool {
        loop {
            let link = self.sessions.get(session_key).and_then(|session| session.link(seat));
            let Some(serial) = link.and_then(Link::first_fence) else { return false };
            let passes = self.passes_fence((session_key, seat), serial);
            let link = self.sessions.get_mut(session_key).and_then(|session| session.link_mut(seat));
            let Some(link) = link else { return true };
            if !passes {
                // A ping may stand before it by now.
                return link.first_fence().is_some();
            }
            let at = link.outgoing.iter().position(|entry| entry.fence() == Some(serial));
            at.and_then(|at| link.outgoing.remove(at));
        }
    }

    /// The list of a connection has come to a fence: whether what stands behind it may be sent.
    fn passes_fence(&mut self, (session_key, seat): (Key<Session>, Seat), serial: u64) -> bool {
        let deadline = self.now + Duration::from_secs(PATIENCE_S);
        let Some(session) = self.sessions.get_mut(session_key) else { return true };
        let Some(first) = session.fences.front().filter(|_| session.over.is_none()) else { return true };
        if first.serial != serial {
            return first.serial > serial;
        }
        let own = first.seat == seat;
        let stage = match &first.stage {
            Stage::Gathers if session.has_come_to_fence(serial) => {
                Stage::Precedes(session.wire.fence_of_all())
            }
            Stage::Passes if own => Stage::Goes,
            Stage::Goes if own => Stage::Follows(session.wire.fence_of_all()),
            _ => return false,
        };
        let passes = matches!(stage, Stage::Goes);
        (session.fences[0].stage, session.fences[0].deadline) = (stage, deadline);
        if passes {
            return true;
        }
        self.ask_for_acknowledgement(session_key);
        self.go_on_at_fence(session_key);
        // It may be the response's own list that goes on at once.
        let Some(session) = self.sessions.get_mut(session_key) else { return true };
        match session.fences.front_mut() {
            Some(first) if first.serial == serial => {
                let goes = own && matches!(first.stage, Stage::Passes);
                if goes {
                    first.stage = Stage::Goes;
                }
                goes
            }
            _ => true,
        }
    }

    /// Pings what has not acknowledged what the first fence waits for; ahead of what waits there.
    fn ask_for_acknowledgement(&mut self, session_key: Key<Session>) {
        for seat in self.silent_at_fence(session_key) {
            let Some(session) = self.sessions.get_mut(session_key) else { return };
            let Some(link) = session.link_mut(seat) else { continue };
            link.outgoing.push_front(Outgoing::Rare(Box::new(Rare::Ping)));
            self.flush_link(session_key, seat);
        }
    }

    fn silent_at_fence(&self, session_key: Key<Session>) -> Vec<Seat> {
        let Some(session) = self.sessions.get(session_key) else { return Vec::new() };
        let Some(fence) = session.fences.front().and_then(Fencing::awaited) else { return Vec::new() };
        session.wire.seats().filter(|seat| !session.wire.has_acknowledged(fence, *seat)).collect()
    }

    /// Something was acknowledged, or a connection has left.
    pub(super) fn look_at_fenced(&mut self, session_key: Key<Session>) {
        if self.sessions.get(session_key).is_some_and(|session| !session.fences.is_empty()) {
            self.go_on_at_fence(session_key);
        }
    }

    #[cold]
    fn go_on_at_fence(&mut self, session_key: Key<Session>) {
        let silent = !self.silent_at_fence(session_key).is_empty();
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let Some(first) = session.fences.front_mut() else { return };
        match first.stage {
            Stage::Precedes(_) if !silent => first.stage = Stage::Passes,
            Stage::Follows(_) if !silent => {
                session.fences.pop_front();
            }
            // A connection that has left may be the one that was waited for.
            Stage::Gathers => {}
            _ => return,
        }
        self.flush_links(session_key);
    }

    /// A connection has left, and its fenced responses with it, those that wait for the first, too: whoever sits down in its seat
    /// has none of them in its list.
    pub(super) fn drop_fences(&mut self, session_key: Key<Session>, seat: Seat) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let before = session.fences.len();
        session.fences.retain(|fencing| fencing.seat != seat);
        if session.fences.len() < before {
            self.flush_links(session_key);
        }
    }

    fn flush_links(&mut self, session_key: Key<Session>) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let seats: Vec<Seat> = session.wire.seats().collect();
        seats.into_iter().for_each(|seat| self.flush_link(session_key, seat));
    }

    fn flush_link(&mut self, session_key: Key<Session>, seat: Seat) {
        let link = self.sessions.get_mut(session_key).and_then(|session| session.link_mut(seat));
        let Some(link) = link.filter(|link| !link.flush_listed && !link.is_lost()) else { return };
        link.flush_listed = true;
        self.to_flush.push(link.connection);
    }

    /// Gives up connections on which what a fence waits for is not acknowledged, though it was asked for.
    pub fn expire_fenced(&mut self) {
        if self.now < self.fenced_until {
            return;
        }
        self.fenced_until = Moment::NEVER;
        for index in 0..self.sessions.places() {
            let Some(key) = self.sessions.key_at(index) else { continue };
            let Some(session) = self.sessions.get(key).filter(|session| session.over.is_none()) else {
                continue;
            };
            let Some(first) = session.fences.front() else { continue };
            // One that waits for a connection which takes nothing is RspTimeout's, and is looked at again.
            let next =
                if first.deadline > self.now { first.deadline } else { self.now + Duration::from_secs(1) };
            self.fenced_until = self.fenced_until.min(next);
            if first.deadline > self.now {
                continue;
            }
            for seat in self.silent_at_fence(key) {
                let link = self.sessions.get_mut(key).and_then(|session| session.link_mut(seat));
                let Some(link) = link else { continue };
                link.outgoing.clear();
                self.ending.push((link.connection, EndReason::Silent));
            }
        }
    }
}

impl Fencing {
    fn awaited(&self) -> Option<&Fence> {
        match &self.stage {
            Stage::Precedes(fence) | Stage::Follows(fence) => Some(fence),
            Stage::Gathers | Stage::Passes | Stage::Goes => None,
        }
    }
}

impl Link {
    /// The fence that its list begins with.
    fn first_fence(&self) -> Option<u64> {
        self.outgoing.front().and_then(Outgoing::fence)
    }
}

impl Session {
    /// Whether all lists have come to a fence.
    fn has_come_to_fence(&self, serial: u64) -> bool {
        let at = |link: &Link| link.outgoing.iter().position(|entry| entry.fence() == Some(serial));
        Seat::all().filter_map(|seat| self.link(seat)).all(|link| matches!(at(link), None | Some(0)))
    }
}
