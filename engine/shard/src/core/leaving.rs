//! How connections leave a session, and sessions end with them (RFC 7143 §6.3.4, §7.6, §7.14, §11.14).

use portico_iscsi::session::{Leaving, Seat, TaskId};
use portico_iscsi::wire::LogoutResult;
use portico_model::identity::{Ticket, UnitId};
use portico_model::message::{EndReason, LoginQuestion, ToControl};
use portico_scsi::original::Change;
use portico_scsi::reservation::Reservation;

use super::Core;
use super::manage::RESET_TICKET;
use crate::driver::Driver;
use crate::management::{Answer, Management};
use crate::outgoing::Rare;
use crate::session::Session;
use crate::slab::Key;
use crate::task::Task;

impl<D: Driver> Core<D> {
    /// A Logout Request whose turn it is.
    pub fn log_out(&mut self, session_key: Key<Session>, name: TaskId, asked: Result<Leaving, LogoutResult>) {
        let leaving = match asked {
            Err(result) => {
                return self.answer_rare(session_key, Rare::Logout { name, result, leaving: None });
            }
            Ok(leaving) => leaving,
        };
        let Some(session) = self.sessions.get(session_key) else { return };
        // With its last connection the session ends.
        let leaving = match leaving {
            Leaving::ForRecovery(seat) => return self.log_out_for_recovery((session_key, seat), name),
            Leaving::Connection(_) if session.connections().count() > 1 || session.has_lost() => leaving,
            _ => Leaving::Session,
        };
        let seat = session.wire.seat_of_task(name);
        let answer = Answer::Logout { name, leaving };
        let key = self.managements.insert(Management::new(session_key, seat, answer, self.now));
        match leaving {
            Leaving::Session => self.release_reservations(session_key, key),
            Leaving::Connection(leaves) | Leaving::ForRecovery(leaves) => {
                self.log_out_connection((session_key, leaves), name, key);
            }
        }
        self.answer_management(key);
    }

    pub(super) fn release_reservations(&mut self, session_key: Key<Session>, key: Key<Management>) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let nexus = session.nexus;
        let mut held: Vec<UnitId> = session
            .luns
            .iter()
            .filter_map(|lun| self.units.get(lun.unit))
            .filter(|unit| {
                matches!(unit.state.reservation, Reservation::Exclusive { holder: Some(holder) } if holder == nexus)
            })
            .map(|unit| unit.id)
            .collect();
        held.dedup();
        for unit in held {
            let management = self.managements.get_mut(key).expect("it was just put there");
            management.resets += 1;
            self.outbox.push_back(ToControl::Change {
                shard: self.shard,
                ticket: Ticket(key.to_bits() | RESET_TICKET),
                unit,
                nexus,
                change: Change::Release,
            });
        }
    }

    /// §7.6: the tasks of a connection that is logged out end without an answer. The logout is answered when nothing of them
    /// is at a medium any more.
    fn log_out_connection(
        &mut self,
        (session_key, seat): (Key<Session>, Seat),
        request: TaskId,
        management: Key<Management>,
    ) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let Some(link) = session.link_mut(seat) else { return };
        link.leaves = true;
        link.outgoing.clear();
        let connection = link.connection;
        let own = session.wire.seat_of_task(request) == seat;
        self.end_requests((session_key, seat), Some(management), own.then_some(request));
        if self.sessions.get(session_key).is_some_and(|session| session.wire.cid_of_lost(seat).is_some()) {
            return self.forget_lost((session_key, seat));
        }
        if !own {
            self.ending.push((connection, EndReason::Logout));
        }
    }

    /// A logout has been answered, on the connection of `seat`: nothing follows on what it closes (§11.15.1).
    pub(super) fn logged_out(&mut self, session_key: Key<Session>, seat: Seat, leaving: Leaving) {
        match leaving {
            Leaving::Session => self.end_with(session_key, EndReason::Logout),
            Leaving::Connection(leaves) if leaves == seat => {
                let Some(session) = self.sessions.get_mut(session_key) else { return };
                let Some(link) = session.link_mut(seat) else { return };
                link.outgoing.clear();
                self.ending.push((link.connection, EndReason::Logout));
            }
            Leaving::Connection(_) | Leaving::ForRecovery(_) => {}
        }
    }

    /// The connections of a session close when they have sent what is in the message at hand, and it ends with the last.
    pub(super) fn end_with(&mut self, session_key: Key<Session>, reason: EndReason) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.over = Some(reason);
        for link in session.links.iter_mut().flatten() {
            link.outgoing.clear();
            self.ending.push((link.connection, reason));
        }
    }

    /// The session ends, and not by its initiator's will: its tasks at once, its connections when the initiator was told so
    /// on each (§7.14, §11.9.1 event 3).
    pub fn drop_session(&mut self, session_key: Key<Session>, reason: EndReason) {
        self.end_with(session_key, reason);
        self.forget_managements(|_, management| management.session == session_key);
        let tasks: Vec<Key<Task>> = self.tasks_where(|task| task.session == session_key);
        tasks.into_iter().for_each(|task| self.abort(task, None));
        for seat in Seat::all() {
            self.list_rare(session_key, seat, Rare::Dropped);
        }
    }

    /// A connection takes the place of the one of the same CID (§6.3.4), whose tasks end without an answer. It joins when
    /// nothing of them is at a medium any more. The old connection is closed already.
    pub fn reinstate_connection(
        &mut self,
        (session_key, seat): (Key<Session>, Seat),
        question: Box<LoginQuestion>,
    ) {
        let answer = Answer::Join(question);
        let key = self.managements.insert(Management::new(session_key, seat, answer, self.now));
        self.end_requests((session_key, seat), Some(key), None);
        self.leave((session_key, seat));
        self.answer_management(key);
    }

    /// A connection is no longer there.
    pub fn leave(&mut self, (session_key, seat): (Key<Session>, Seat)) {
        self.end_requests((session_key, seat), None, None);
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if let Some(link) = session.links.get_mut(seat.index()).and_then(Option::take) {
            self.seated -= 1;
            session.wire.leave(seat);
            self.unbook_kept(&link);
        }
        self.drop_fences(session_key, seat);
        self.look_at_fences(session_key);
    }

    /// Aborts what came by a connection, but for one request. `management` waits for what of it is at a medium; the functions
    /// that were asked for on this connection cannot be answered any more.
    fn end_requests(
        &mut self,
        (session_key, seat): (Key<Session>, Seat),
        management: Option<Key<Management>>,
        except: Option<TaskId>,
    ) {
        self.forget_managements(|key, other| {
            // A withheld status may be that of a command which waits for another connection, or has found one.
            let stays = matches!(other.answer, Answer::Join(_) | Answer::Status(_));
            other.session == session_key && other.seat == seat && !stays && Some(key) != management
        });
        let Some(session) = self.sessions.get(session_key) else { return };
        let tasks: Vec<Key<Task>> = self
            .tasks
            .iter()
            .filter(|(_, task)| {
                let waits = management.is_some() || !task.aborted;
                waits
                    && task.session == session_key
                    && !task.is_behind()
                    && Some(task.name) != except
                    && session.wire.seat_of_task(task.name) == seat
            })
            .map(|(key, _)| key)
            .collect();
        tasks.into_iter().for_each(|task| self.abort(task, management));
    }

    pub(super) fn forget_managements(&mut self, forgotten: impl Fn(Key<Management>, &Management) -> bool) {
        let found = self.managements.iter().filter(|(key, management)| forgotten(*key, management));
        let keys: Vec<Key<Management>> = found.map(|(key, _)| key).collect();
        for key in keys {
            self.managements.remove(key);
        }
    }
}
