//! Connection recovery, at level 2 (RFC 7143 §6.3.4, §6.3.6, §7.2.2, §7.5, §7.6): commands outlive their connection, wait for
//! another, and go on there or end when their time is over.

use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Loss, Request, Seat, TaskId};
use portico_iscsi::sn::DataSn;
use portico_iscsi::wire::{
    Bhs, Cid, LogoutResult, ScsiResponse, TargetPdu, TaskManagementRequest, TaskManagementResult,
};
use portico_model::message::EndReason;
use portico_scsi::sense::{AdditionalSense, Outcome, SenseFormat};

use super::{ABANDONED_MAX, Core};
use crate::driver::Driver;
use crate::kept::{Kept, Moved};
use crate::management::{Answer, Management};
use crate::outgoing::{Outgoing, Rare};
use crate::session::{Link, Session};
use crate::slab::Key;
use crate::task::Task;

/// A session, and a seat in it.
type Place = (Key<Session>, Seat);

/// What a command ends with of whose data some is not kept any more when it is reassigned (§11.4.7.2).
const TORN: Outcome = Outcome::aborted(AdditionalSense::COMMANDS_CLEARED_BY_PROTOCOL);

impl<D: Driver> Core<D> {
    /// Whether the commands of a connection outlive it.
    pub fn recovers_connections(&self, session: Key<Session>) -> bool {
        !self.quiescing
            && self.sessions.get(session).is_some_and(|session| session.wire.recovers_connections())
    }

    /// A connection is lost, or logged out for recovery: its commands wait for another. It is still the caller's to let it leave.
    pub fn suspend(&mut self, (session_key, seat): Place, loss: Loss) {
        let stays = match loss {
            Loss::Failed => None,
            Loss::LoggedOut(request) => request,
        };
        self.forget_managements(|_, management| {
            let stays = matches!(management.answer, Answer::Join(_) | Answer::Status(_));
            management.session == session_key && management.seat == seat && !stays
        });
        let crowded_out = self.sessions.get(session_key).and_then(|session| session.wire.crowded_out());
        if let Some(oldest) = crowded_out {
            self.forget_lost((session_key, oldest));
        }
        let now = self.now;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let Some(link) = session.link_mut(seat) else { return };
        let outgoing = std::mem::take(&mut link.outgoing);
        let mut kept = link.kept.replace(Box::default());
        let due = outgoing.into_iter().filter_map(|entry| left_over(entry, kept.as_mut())).collect();
        let suspended = session.wire.suspend(seat, loss, now);
        session.seat_lost(suspended.seat, Link::lost(due, kept));
        let until = session.wire.lost().map(|(_, until)| until).min().unwrap_or(Moment::NEVER);
        self.lost_until = self.lost_until.min(until);
        self.book_kept(session_key);
        for name in suspended.ended.into_iter().filter(|name| Some(*name) != stays) {
            let task = self.sessions.get(session_key).and_then(|session| session.task(name));
            task.into_iter().for_each(|task| self.abort(task, None));
        }
        // What was on its way to them will not come.
        for key in self.tasks_at((session_key, suspended.seat)) {
            self.count_asked(key);
            self.data_came(key);
        }
    }

    fn tasks_at(&self, (session_key, seat): Place) -> Vec<Key<Task>> {
        let Some(session) = self.sessions.get(session_key) else { return Vec::new() };
        // What goes on in the background came by no connection that is left.
        let came = |task: &Task| !task.is_behind() && session.wire.seat_of_task(task.name) == seat;
        self.tasks_where(|task| task.session == session_key && came(task))
    }

    /// A recovery logout whose turn it is (§11.14): of a connection that is there, whose commands wait from now on, or of one
    /// that was lost before, whose commands may be reassigned from now on.
    pub(super) fn log_out_for_recovery(&mut self, (session_key, seat): Place, name: TaskId) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let own = session.wire.seat_of_task(name) == seat;
        match session.wire.cid_of_lost(seat) {
            Some(cid) => session.wire.log_out_lost(cid, self.now),
            None => {
                self.suspend((session_key, seat), Loss::LoggedOut(own.then_some(name)));
                let link = self.sessions.get_mut(session_key).and_then(|session| session.link_mut(seat));
                let Some(link) = link else { return };
                link.leaves = true;
                let connection = link.connection;
                if !own {
                    self.ending.push((connection, EndReason::Logout));
                }
            }
        }
        let leaving = Some(portico_iscsi::session::Leaving::Connection(seat));
        self.answer_rare(session_key, Rare::Logout { name, result: LogoutResult::Closed, leaving });
    }

    /// A connection comes of the name of one that was lost: it logs that out (§6.3.4).
    pub fn log_out_lost(&mut self, session: Key<Session>, cid: Cid) {
        let now = self.now;
        if let Some(session) = self.sessions.get_mut(session) {
            session.wire.log_out_lost(cid, now);
        }
    }

    /// TASK REASSIGN (§7.2.2, §11.5.1): the command goes on with the connection that asks.
    pub(super) fn reassign(
        &mut self,
        session_key: Key<Session>,
        name: TaskId,
        request: &TaskManagementRequest,
    ) {
        let found = self.reassignable(session_key, request);
        if let (Err(TaskManagementResult::TaskDoesNotExist), Some(task)) =
            (&found, self.lingering(session_key, request))
        {
            return self.deny_when_over(session_key, name, task);
        }
        let result = found.err().unwrap_or(TaskManagementResult::Complete);
        // §7.2.2: the answer goes first.
        let to = self.sessions.get(session_key).map(|session| session.wire.seat_of_task(name));
        self.answer_rare(session_key, Rare::TaskManagement { name, result, additional: [0; 3] });
        let (Ok((from, command)), Some(to)) = (found, to) else { return };
        let tag = request.referenced_task_tag;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let segment_bytes = session.wire.peer_segment_bytes_max(to);
        let kept = session.link_mut(from).and_then(|link| link.kept.as_mut());
        let take = |kept: &mut Box<Kept>| {
            kept.take(tag, request.expected_data_sn.0, segment_bytes, command.is_none())
        };
        let mut moved = kept.map(take).unwrap_or_default();
        self.book_kept(session_key);
        if moved.is_torn {
            moved.tear();
        }
        let Moved { data_in, next, response, is_torn } = moved;
        for (header, data) in data_in.into_iter().chain(response) {
            self.list_rare(session_key, to, Rare::Moved { header, data });
        }
        if let Some(command) = command {
            self.take_along((session_key, from), to, command, (request.expected_data_sn, next));
            let task = self.sessions.get(session_key).and_then(|session| session.task(command));
            if let Some(task) = task.filter(|_| is_torn) {
                self.tear(task);
            }
        }
    }

    /// A command that is gone, since its time was over, and still at a medium: its initiator hears so when nothing of it is
    /// there any more, and may do all anew.
    fn deny_when_over(&mut self, session_key: Key<Session>, name: TaskId, task: Key<Task>) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let seat = session.wire.seat_of_task(name);
        let answer = Answer::of_function(name, TaskManagementResult::TaskDoesNotExist);
        let key = self.managements.insert(Management::new(session_key, seat, answer, self.now));
        self.await_pieces(task, Some(key));
        self.answer_management(key);
    }

    /// Where the command of a TASK REASSIGN waits, and its name, if it has not been answered yet.
    fn reassignable(
        &self,
        session_key: Key<Session>,
        request: &TaskManagementRequest,
    ) -> Result<(Seat, Option<TaskId>), TaskManagementResult> {
        let tag = request.referenced_task_tag;
        let session = self.sessions.get(session_key).ok_or(TaskManagementResult::TaskDoesNotExist)?;
        if !session.wire.recovers_connections() {
            return Err(TaskManagementResult::ReassignmentNotSupported);
        }
        let command = session.wire.task_by_itt(tag);
        let command = command.filter(|task| matches!(session.wire.request(*task), Request::Command(_)));
        let seat = match command {
            Some(command) => session.wire.seat_of_task(command),
            // One that was answered, and whose answer is not acknowledged.
            None => {
                let has_answered = |seat: &Seat| {
                    let kept = session.link(*seat).and_then(|link| link.kept.as_ref());
                    kept.is_some_and(|kept| kept.has_response(tag))
                };
                let lost = session.wire.lost().map(|(seat, _)| seat);
                let found = lost.chain(Seat::all()).find(has_answered);
                found.ok_or(TaskManagementResult::TaskDoesNotExist)?
            }
        };
        if session.wire.may_reassign_from(seat) {
            Ok((seat, command))
        } else {
            Err(TaskManagementResult::TaskStillAllegiant)
        }
    }

    /// A command moves to another connection with what it has to say.
    fn take_along(
        &mut self,
        (session_key, from): Place,
        to: Seat,
        name: TaskId,
        (expected, next): (DataSn, Option<DataSn>),
    ) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.wire.reassign(name, to, expected, next);
        let Some(key) = session.task(name) else { return };
        let Some(link) = session.link_mut(from) else { return };
        let (due, rest): (Vec<Outgoing>, Vec<Outgoing>) =
            std::mem::take(&mut link.outgoing).into_iter().partition(|entry| entry.is_of(key));
        link.outgoing = rest.into();
        for entry in due {
            self.list(session_key, to, entry);
        }
        if let Some(task) = self.tasks.get_mut(key) {
            // RspTimeout and the like count from now on.
            task.progressed = self.now;
        }
        self.list_r2t(key);
    }

    /// Some of what a read had sent is lost: it ends, and its initiator reads again.
    fn tear(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.ended.is_some() {
            task.ended = Some(TORN);
            return;
        }
        self.finish(key, TORN);
    }

    /// The state of a lost connection is discarded: the commands that it still had end without an answer (§7.6 b, c).
    pub(super) fn forget_lost(&mut self, (session_key, seat): Place) {
        for task in self.tasks_at((session_key, seat)) {
            self.abort(task, None);
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let Some(link) = session.links.get_mut(seat.index()).and_then(Option::take) else { return };
        session.wire.forget_lost(seat);
        self.unbook_kept(&link);
    }

    /// Discards what was kept for as long as was agreed on, or all of it; a session ends with the last of it.
    pub fn expire_lost(&mut self, everything: bool) {
        if !everything && self.now < self.lost_until {
            return;
        }
        let now = self.now;
        self.lost_until = Moment::NEVER;
        for index in 0..self.sessions.places() {
            let Some(key) = self.sessions.key_at(index) else { continue };
            let Some(session) = self.sessions.get(key).filter(|session| session.has_lost()) else { continue };
            let lost: Vec<(Seat, Moment)> = session.wire.lost().collect();
            for (seat, until) in lost {
                if everything || until <= now {
                    self.forget_lost((key, seat));
                } else {
                    self.lost_until = self.lost_until.min(until);
                }
            }
            self.end_if_empty(key);
        }
    }

    /// A connection has left: where it was the last one, its session waits, and not with too many others.
    pub fn note_abandoned(&mut self, key: Key<Session>) {
        let sessions = &self.sessions;
        let is_abandoned = |key: &Key<Session>| {
            sessions.get(*key).is_some_and(|session| session.connections().next().is_none())
        };
        if !is_abandoned(&key) {
            return;
        }
        self.abandoned.retain(|other| *other != key && is_abandoned(other));
        self.abandoned.push_back(key);
        if self.abandoned.len() > ABANDONED_MAX
            && let Some(earliest) = self.abandoned.pop_front()
        {
            self.end_session(earliest, EndReason::ConnectionLost);
        }
    }

    /// Session timeout (§6.3.5): nobody is connected, and nothing waits for anybody.
    pub fn end_if_empty(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.connections().next().is_none() && !session.has_lost() {
            let reason = session.over.unwrap_or(EndReason::ConnectionLost);
            self.end_session(key, reason);
        }
    }
}

/// What stays of an entry in the list of a connection that is lost. What came from one before it, and has not been sent again,
/// is kept as if it had.
fn left_over(entry: Outgoing, kept: Option<&mut Box<Kept>>) -> Option<Outgoing> {
    match entry {
        Outgoing::DataIn(_) | Outgoing::Status(_) => return Some(entry),
        Outgoing::Rare(rare) => {
            if let (Rare::Moved { header, data }, Some(kept)) = (*rare, kept) {
                kept.keep(&header, data);
            }
        }
        Outgoing::R2t(_) => {}
    }
    None
}

impl Moved {
    /// Its data are incomplete, and go nowhere; where it was answered, the answer is another.
    fn tear(&mut self) {
        self.data_in.clear();
        let Some((header, data)) = &mut self.response else { return };
        let Ok(TargetPdu::ScsiResponse(response)) = TargetPdu::parse(header) else { return };
        let sense = TORN.sense_data(SenseFormat::default());
        let sense = sense.as_ref().map_or(&[][..], |sense| sense.as_bytes());
        let length = u16::try_from(sense.len()).expect("sense data is short");
        *data = [&length.to_be_bytes()[..], sense].concat();
        let data_segment_length = u32::from(length) + 2;
        let mut torn: Bhs = [0; 48];
        ScsiResponse { status: TORN.status.code(), data_segment_length, ..response }.emit(&mut torn);
        *header = torn;
    }
}
