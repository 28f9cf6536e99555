//! Connections that were lost at recovery level 2, and the tasks that wait for another (RFC 7143 §7.2.2, §7.5, §11.14).
//!
//! When a connection fails, is logged out for recovery, or is replaced by one of its CID, its commands move to a [`Seat`] where
//! nobody sits. There they go on as far as they can without an initiator. TASK REASSIGN makes them allegiant to another
//! connection; those that are left when Time2Wait and Time2Retain are over end without an answer (§7.6 b, c).

use core::time::Duration;

use super::tasks::{Stage, TaskId};
use super::{Request, Seat, Session};
use crate::moment::Moment;
use crate::sn::{DataSn, StatSn};
use crate::wire::{Bhs, Cid, ScsiResponse, opcode};

/// How many lost connections have tasks that wait, at most; the oldest gives way.
pub const LOST_MAX: u16 = 8;

/// The level at which connections are recovered.
const CONNECTION_RECOVERY: u8 = 2;

/// A connection that was lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    cid: Cid,
    /// A recovery logout has been performed, by a Logout Request or a connection of the same CID: its tasks may be reassigned.
    logged_out: bool,
    /// When its state is discarded.
    until: Moment,
}

/// Why a connection is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It failed. Its tasks are allegiant to it until it is logged out.
    Failed,
    /// It was logged out for recovery, explicitly or by a connection that takes its place (§6.3.4). The request that did it stays
    /// with the connection, where it came on that.
    LoggedOut(Option<TaskId>),
}

/// What becomes of a connection's tasks.
#[derive(Debug)]
pub struct Suspended {
    /// Where its commands wait.
    pub seat: Seat,
    /// Requests that have ended, the caller's to retire: those that are not acknowledged by ExpCmdSN, which the initiator sends
    /// again, and those that are no commands.
    pub ended: Vec<TaskId>,
}

impl Session {
    /// Whether a connection that is lost can be recovered from: ErrorRecoveryLevel is 2, and Time2Retain is not 0 (§13.16).
    #[must_use]
    pub const fn recovers_connections(&self) -> bool {
        self.parameters.error_recovery_level >= CONNECTION_RECOVERY && self.parameters.default_time2retain > 0
    }

    /// Whether the session fails with any of its connections (§7.14).
    #[must_use]
    pub const fn fails_with_a_connection(&self) -> bool {
        self.parameters.error_recovery_level < CONNECTION_RECOVERY
    }

    /// How long a lost connection's state is kept.
    fn retention(&self) -> Duration {
        let (wait, retain) = (self.parameters.default_time2wait, self.parameters.default_time2retain);
        Duration::from_secs(u64::from(wait) + u64::from(retain))
    }

    /// The connections that were lost, and until when their state is kept.
    pub fn lost(&self) -> impl Iterator<Item = (Seat, Moment)> {
        let places = self.lost.iter().enumerate();
        places.filter_map(|(place, lost)| Some((Seat::of_lost(place), lost.as_ref()?.until)))
    }

    /// The lost connection that gives way to another one, where there are as many as there may be.
    #[must_use]
    pub fn crowded_out(&self) -> Option<Seat> {
        let is_full = self.lost.iter().all(Option::is_some);
        let oldest = self.lost().min_by_key(|(_, until)| *until);
        oldest.filter(|_| is_full).map(|(seat, _)| seat)
    }

    /// A connection's commands wait for another connection from now on. It is still the caller's to let it leave.
    ///
    /// # Panics
    /// Where [`Session::crowded_out`] names one that has to give way first.
    pub fn suspend(&mut self, seat: Seat, loss: Loss, now: Moment) -> Suspended {
        let (logged_out, except) = match loss {
            Loss::Failed => (false, None),
            Loss::LoggedOut(request) => (true, request),
        };
        let until = now + self.retention();
        let connection = self.connections.at_mut(seat);
        let (cid, incoming) = (connection.cid, connection.incoming.take());
        let place = self.lost.iter().position(Option::is_none).expect("there is a place");
        self.lost[place] = Some(Lost { cid, logged_out, until });
        let waits_at = Seat::of_lost(place);
        let of_seat: Vec<TaskId> =
            self.tasks.live().filter(|(_, task)| task.seat == seat).map(|(id, _)| id).collect();
        let mut ended = Vec::new();
        for task in of_seat.into_iter().filter(|task| Some(*task) != except) {
            let is_half = incoming.is_some_and(|incoming| incoming.task == task && !incoming.is_data);
            if is_half || self.is_unacknowledged(task) {
                self.discard(task, is_half);
                ended.push(task);
            } else if matches!(self.request(task), Request::Command(_)) {
                let state = self.tasks.task_mut(task);
                state.seat = waits_at;
                state.write.suspend();
            } else {
                self.end(task);
                ended.push(task);
            }
        }
        Suspended { seat: waits_at, ended }
    }

    /// Whether a request has been received and nobody was told so (§11.14: such requests are discarded).
    fn is_unacknowledged(&self, task: TaskId) -> bool {
        let state = self.tasks.task(task);
        if state.request.is_immediate() {
            return state.stage == Stage::Queued;
        }
        !state.request.cmd_sn().precedes(self.window.bounds().expected())
    }

    /// A request is as if it had never come.
    fn discard(&mut self, task: TaskId, is_half: bool) {
        let request = *self.request(task);
        self.tasks.end(task);
        if request.is_immediate() {
            self.immediate.retain(|&queued| queued != task);
        } else if !is_half {
            self.window.vacate(request.cmd_sn());
        }
    }

    /// A recovery logout of a connection that was lost before (§6.3.4, §11.14); the time in which its tasks are kept begins anew
    /// (§7.5.2).
    pub fn log_out_lost(&mut self, cid: Cid, now: Moment) {
        let until = now + self.retention();
        for lost in self.lost.iter_mut().flatten().filter(|lost| lost.cid == cid) {
            (lost.logged_out, lost.until) = (true, until);
        }
    }

    /// A lost connection of this name.
    #[must_use]
    pub fn lost_seat_of(&self, cid: Cid) -> Option<Seat> {
        let is_it = |lost: &Option<Lost>| lost.is_some_and(|lost| lost.cid == cid);
        self.lost.iter().position(is_it).map(Seat::of_lost)
    }

    /// The name of the lost connection of a seat, if it is that of one.
    #[must_use]
    pub fn cid_of_lost(&self, seat: Seat) -> Option<Cid> {
        seat.lost_place().and_then(|place| self.lost[place]).map(|lost| lost.cid)
    }

    /// Whether what waits at a seat may be reassigned: it is that of a lost connection, which was logged out (§7.2.2).
    ///
    /// Whether Time2Wait is over is not asked. It is the initiator that has to wait (§13.15: the least time before *it* attempts a
    /// logout or a reassignment; §11.15.3), so that a target has time to get ready for one. No answer is laid down for one that
    /// comes early (§11.6.1 has none), and this target is ready as soon as the connection is logged out: with that, all that
    /// waits for reassignment is at its seat.
    #[must_use]
    pub fn may_reassign_from(&self, seat: Seat) -> bool {
        let lost = seat.lost_place().and_then(|place| self.lost[place]);
        lost.is_some_and(|lost| lost.logged_out)
    }

    /// The state of a lost connection is discarded. Its commands have ended before.
    pub fn forget_lost(&mut self, seat: Seat) {
        assert!(
            !self.tasks.live().any(|(_, task)| task.seat == seat),
            "tasks end before the connection is forgotten that they were allegiant to"
        );
        let lost = seat.lost_place().and_then(|place| self.lost[place].take());
        assert!(lost.is_some(), "a lost connection is forgotten once");
    }

    /// TASK REASSIGN: a command that waits is allegiant to the connection of `seat` from now on. `expected_data_sn` is the
    /// request's ExpDataSN, which for a write is the R2TSN that the initiator expects next; `data_sn` is the DataSN after the
    /// Data-In that has been sent, where that was cut anew.
    pub fn reassign(&mut self, task: TaskId, seat: Seat, expected_data_sn: DataSn, data_sn: Option<DataSn>) {
        assert!(self.is_live(task) && seat.lost_place().is_none());
        let state = self.tasks.task_mut(task);
        state.seat = seat;
        state.write.resume(expected_data_sn.0);
        state.read.reassigned(data_sn);
    }

    /// Writes the header of a PDU that a lost connection had, for the connection of `seat`: a response gets a StatSN of that.
    pub fn moved(&mut self, seat: Seat, kept: &Bhs, header: &mut Bhs) {
        self.again(seat, kept, header);
        if opcode(kept) == ScsiResponse::OPCODE {
            let stat_sn: StatSn = self.next_stat_sn(seat);
            header[super::emit::STAT_SN].copy_from_slice(&stat_sn.0.to_be_bytes());
        }
    }
}
