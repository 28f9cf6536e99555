//! The command window, and the order in which requests leave it (RFC 7143 §4.2.2.1).
//!
//! A place for each CmdSN from the first that has not been delivered to MaxCmdSN. ExpCmdSN moves when a request comes in,
//! the delivery behind it when the caller takes one; MaxCmdSN moves when the caller has room again, and never back.

use super::tasks::TaskId;
use crate::sn::{CmdSn, CommandWindow};

pub(super) struct Window {
    /// ExpCmdSN: the first that has not come.
    expected: CmdSn,
    /// MaxCmdSN as it was last granted.
    maximum: CmdSn,
    /// The first that has not been delivered.
    deliver: CmdSn,
    places: Box<[Place]>,
    /// How many requests may be in work at once.
    limit: u32,
    /// Requests below ExpCmdSN that have not ended.
    in_work: u32,
    held: bool,
    /// MaxCmdSN as the initiator knows it.
    told: CmdSn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Has not come.
    Empty,
    /// Has come.
    Task(TaskId),
    /// Has come, or is considered to have, and there is nothing to deliver.
    Skip,
}

impl Window {
    /// A window that begins at `cmd_sn` and is `limit` wide, as the final Login Response said.
    pub(super) fn new(cmd_sn: CmdSn, limit: u32) -> Self {
        let maximum = cmd_sn.advanced_by(limit - 1);
        let places = (limit as usize).next_power_of_two();
        Self {
            expected: cmd_sn,
            maximum,
            deliver: cmd_sn,
            places: vec![Place::Empty; places].into_boxed_slice(),
            limit,
            in_work: 0,
            held: false,
            told: maximum,
        }
    }

    /// Whether a non-immediate request of this number is to be taken; any other is silently ignored.
    pub(super) fn admits(&self, cmd_sn: CmdSn) -> bool {
        self.bounds().admits(cmd_sn) && self.places[self.place(cmd_sn)] == Place::Empty
    }

    /// Takes a request into its place.
    pub(super) fn insert(&mut self, cmd_sn: CmdSn, task: TaskId) {
        self.fill(cmd_sn, Place::Task(task));
    }

    /// Considers a number as received, with nothing to deliver (§11.5.1, §11.17.1). False where it is outside of the
    /// window, or has come.
    pub(super) fn skip(&mut self, cmd_sn: CmdSn) -> bool {
        let admits = self.admits(cmd_sn);
        if admits {
            self.fill(cmd_sn, Place::Skip);
        }
        admits
    }

    /// Whether a request of this number would be delivered as soon as it comes, and would bring no other with it.
    #[inline]
    pub(super) fn is_next(&self, cmd_sn: CmdSn) -> bool {
        cmd_sn == self.expected
            && cmd_sn == self.deliver
            && cmd_sn != self.maximum.next()
            && self.places[self.place(cmd_sn)] == Place::Empty
            && self.places[self.place(cmd_sn.next())] == Place::Empty
    }

    /// A request for which [`Window::is_next`] has come and is delivered.
    #[inline]
    pub(super) fn pass(&mut self) {
        self.expected = self.expected.next();
        self.deliver = self.expected;
        self.in_work += 1;
    }

    /// A request for which [`Window::is_next`] has come, is delivered and has ended.
    #[inline]
    pub(super) fn pass_over(&mut self) {
        self.expected = self.expected.next();
        self.deliver = self.expected;
    }

    fn fill(&mut self, cmd_sn: CmdSn, place: Place) {
        assert!(self.admits(cmd_sn));
        let index = self.place(cmd_sn);
        self.places[index] = place;
        while self.expected != self.maximum.next() {
            match self.places[self.place(self.expected)] {
                Place::Empty => break,
                Place::Task(_) => self.in_work += 1,
                Place::Skip => {}
            }
            self.expected = self.expected.next();
        }
    }

    /// The next request in the order of CmdSN, if it has come and `ready` says so.
    pub(super) fn deliver(&mut self, ready: impl Fn(TaskId) -> bool) -> Option<TaskId> {
        while self.deliver != self.expected {
            let index = self.place(self.deliver);
            match self.places[index] {
                Place::Empty => unreachable!("all below ExpCmdSN have come"),
                Place::Task(task) if !ready(task) => return None,
                place => {
                    self.places[index] = Place::Empty;
                    self.deliver = self.deliver.next();
                    if let Place::Task(task) = place {
                        return Some(task);
                    }
                }
            }
        }
        None
    }

    /// A request has ended. One that was never delivered leaves its place to be skipped.
    pub(super) fn ended(&mut self, cmd_sn: CmdSn, delivered: bool) {
        if cmd_sn.precedes(self.expected) {
            self.in_work -= 1;
        }
        if !delivered {
            let index = self.place(cmd_sn);
            self.places[index] = Place::Skip;
        }
    }

    /// A request above ExpCmdSN is as if it had never come.
    pub(super) fn vacate(&mut self, cmd_sn: CmdSn) {
        assert!(!cmd_sn.precedes(self.expected), "what is acknowledged stays");
        let index = self.place(cmd_sn);
        self.places[index] = Place::Empty;
    }

    /// Moves MaxCmdSN as far as the limit and `room` (free slots for requests) allow. Never back: what was granted is the
    /// initiator's (§4.2.2.1).
    ///
    /// A held window stays, unless nothing is in work: then one place is granted, since no answer would ever tell the
    /// initiator that the hold is over.
    pub(super) fn grant(&mut self, room: u32) {
        let limit = if self.held { 1 } else { self.limit };
        let width = limit.saturating_sub(self.in_work).min(room);
        let maximum = self.expected.advanced_by(width).previous();
        // The places end where the ring of them does.
        let last_place =
            self.deliver.advanced_by(u32::try_from(self.places.len()).expect("at most 2048")).previous();
        let maximum = if maximum.follows(last_place) { last_place } else { maximum };
        if maximum.follows(self.maximum) {
            self.maximum = maximum;
        }
    }

    /// The numbers for a PDU that goes out now.
    pub(super) fn tell(&mut self) -> (CmdSn, CmdSn) {
        self.told = self.maximum;
        (self.expected, self.maximum)
    }

    /// Whether the initiator believes the window closed, and it is not.
    pub(super) fn is_open_untold(&self) -> bool {
        self.told.next() == self.expected && self.maximum != self.told
    }

    /// How many requests may be in work; not more than when the session began.
    pub(super) fn set_limit(&mut self, limit: u32) {
        assert!(limit >= 1 && limit as usize <= self.places.len());
        self.limit = limit;
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    pub(super) fn bounds(&self) -> CommandWindow {
        CommandWindow::new(self.expected, self.maximum).expect("MaxCmdSN never falls below ExpCmdSN - 1")
    }

    /// Whether every request below `cmd_sn` has been delivered. True also for a number that no request can have yet: the
    /// CmdSN of an immediate request may be any (§4.2.2.1).
    pub(super) fn has_delivered_all_before(&self, cmd_sn: CmdSn) -> bool {
        let ahead = self.deliver.steps_to(cmd_sn);
        ahead == 0 || ahead > self.deliver.steps_to(self.maximum.next())
    }

    fn place(&self, cmd_sn: CmdSn) -> usize {
        cmd_sn.0 as usize & (self.places.len() - 1)
    }
}
