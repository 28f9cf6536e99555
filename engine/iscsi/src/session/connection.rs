//! What belongs to a connection, and not to its session (RFC 7143 §4.2.5.1, §13): CID, StatSN, digests, lengths, keepalive.

use super::keepalive::{Keepalive, KeepaliveTimes};
use super::recovery::LOST_MAX;
use super::{Session, TaskId};
use crate::framing::Digests;
use crate::moment::Moment;
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, StatSn};
use crate::wire::Cid;

/// How many connections a session may have, whatever MaxConnections would allow.
pub const CONNECTIONS_MAX: u16 = 8;

/// How many places there are: one for each connection, then one for each that was lost and whose tasks wait for another.
pub const SEATS_MAX: u16 = CONNECTIONS_MAX + LOST_MAX;

/// A connection's place in its session, below [`CONNECTIONS_MAX`]; that of a lost one is above, below [`SEATS_MAX`]. Given again
/// when the connection has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(u8);

impl Seat {
    /// That of the connection that a session begins with.
    pub const LEADING: Self = Self(0);

    /// All that connections can have.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CONNECTIONS_MAX).map(|seat| Self(u8::try_from(seat).expect("few")))
    }

    /// That of the lost connection at this place.
    pub(super) fn of_lost(place: usize) -> Self {
        Self(u8::try_from(usize::from(CONNECTIONS_MAX) + place).expect("few"))
    }

    /// The place among those of lost connections, if it is one.
    pub(super) const fn lost_place(self) -> Option<usize> {
        self.index().checked_sub(CONNECTIONS_MAX as usize)
    }

    /// As an index of the caller's own tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a connection begins with that joins a session.
#[derive(Clone, Copy, Debug)]
pub struct Joining<'a> {
    /// Its name.
    pub cid: Cid,
    /// The StatSN of its first response: the one after the final Login Response's.
    pub stat_sn: StatSn,
    /// What its login has negotiated; of this, what is a connection's alone (§13: keys whose scope is not the session).
    pub parameters: &'a Parameters,
    /// When this is.
    pub now: Moment,
}

/// One connection.
pub(super) struct Connection {
    pub(super) cid: Cid,
    pub(super) stat_sn: StatSn,
    /// The highest ExpStatSN that the initiator has told.
    acknowledged: StatSn,
    pub(super) digests: Digests,
    /// MaxRecvDataSegmentLength of the initiator, which may declare a new one at any time (§13.12).
    pub(super) segment_bytes_max: u32,
    /// Ours on this connection.
    pub(super) own_segment_bytes_max: u32,
    /// The task whose data segment is coming in.
    pub(super) incoming: Option<Incoming>,
    pub(super) keepalive: Keepalive,
    /// Tells connections apart that have had one seat.
    serial: u32,
}

/// A data segment that is coming in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) task: TaskId,
    /// The number that the request takes in the window once its segment has come unspoilt; `None` of a Data-Out PDU and of
    /// an immediate request.
    pub(super) takes: Option<CmdSn>,
    /// A Data-Out PDU.
    pub(super) is_data: bool,
}

/// The connections of a session, by seat.
pub(super) struct Connections {
    seats: [Option<Connection>; CONNECTIONS_MAX as usize],
    joined: u32,
}

/// What has been answered on connections at some moment: a fence is cleared when the initiator has acknowledged all of it
/// (§4.2.3.3, §4.2.2.3.3).
#[derive(Clone, Copy, Debug)]
pub struct Fence {
    noted: [Option<(u32, StatSn)>; CONNECTIONS_MAX as usize],
    /// Numbers of pings that are to be answered, too.
    pinged: [Option<u16>; CONNECTIONS_MAX as usize],
}

impl Fence {
    /// Does not clear before a ping of this number is answered on a connection: what has no StatSN of its own, as an R2T,
    /// or has none yet, has come to the initiator then.
    pub fn note_ping(&mut self, seat: Seat, number: u16) {
        self.pinged[seat.index()] = Some(number);
    }
}

impl Connection {
    fn new(joining: &Joining<'_>, times: KeepaliveTimes, serial: u32) -> Self {
        Self {
            cid: joining.cid,
            stat_sn: joining.stat_sn,
            acknowledged: joining.stat_sn,
            digests: joining.parameters.digests(),
            segment_bytes_max: joining.parameters.peer_max_recv_data_segment_length,
            own_segment_bytes_max: joining.parameters.own_max_recv_data_segment_length,
            incoming: None,
            keepalive: Keepalive::new(times, joining.now),
            serial,
        }
    }

    /// The initiator has seen all responses before this number. One that was never sent, or was acknowledged long ago, says
    /// nothing.
    pub(super) fn acknowledge(&mut self, expected: StatSn) {
        if expected.follows(self.acknowledged) && !expected.follows(self.stat_sn) {
            self.acknowledged = expected;
        }
    }
}

impl Connections {
    pub(super) fn new(joining: &Joining<'_>, times: KeepaliveTimes) -> Self {
        let mut seats = [const { None }; CONNECTIONS_MAX as usize];
        seats[Seat::LEADING.index()] = Some(Connection::new(joining, times, 0));
        Self { seats, joined: 0 }
    }

    /// The connection, which has not left.
    pub(super) fn at(&self, seat: Seat) -> &Connection {
        self.seats[seat.index()].as_ref().expect("the connection has not left")
    }

    pub(super) fn at_mut(&mut self, seat: Seat) -> &mut Connection {
        self.seats[seat.index()].as_mut().expect("the connection has not left")
    }

    /// What is coming in on the connection of this seat, if it is there.
    pub(super) fn incoming(&self, seat: Seat) -> Option<Incoming> {
        self.seats.get(seat.index())?.as_ref()?.incoming
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Seat, &Connection)> {
        Seat::all().zip(&self.seats).filter_map(|(seat, place)| Some((seat, place.as_ref()?)))
    }

    /// Whether the data segment of this task is coming in, on whichever connection.
    pub(super) fn are_receiving(&self, task: TaskId) -> bool {
        self.iter().any(|(_, connection)| connection.incoming.is_some_and(|incoming| incoming.task == task))
    }
}

impl Session {
    /// A connection joins (§6.3.1). `None` where MaxConnections are there already. One of the same CID has to have
    /// left before.
    pub fn join(&mut self, joining: &Joining<'_>) -> Option<Seat> {
        assert!(self.seat_of(joining.cid).is_none(), "a CID names one connection");
        if self.connections.iter().count() >= usize::from(self.parameters.max_connections) {
            return None;
        }
        let index = self.connections.seats.iter().position(Option::is_none)?;
        self.connections.joined += 1;
        let serial = self.connections.joined;
        self.connections.seats[index] = Some(Connection::new(joining, self.keepalive_times, serial));
        Seat::all().nth(index)
    }

    /// A connection leaves. What was allegiant to it has ended before.
    pub fn leave(&mut self, seat: Seat) {
        assert!(
            !self.tasks.live().any(|(_, task)| task.seat == seat),
            "tasks end before the connection that they are allegiant to"
        );
        let left = self.connections.seats[seat.index()].take();
        assert!(left.is_some(), "a connection leaves once");
    }

    /// The connections that are there.
    pub fn seats(&self) -> impl Iterator<Item = Seat> {
        self.connections.iter().map(|(seat, _)| seat)
    }

    /// The connection of this name.
    #[must_use]
    pub fn seat_of(&self, cid: Cid) -> Option<Seat> {
        self.connections.iter().find(|(_, connection)| connection.cid == cid).map(|(seat, _)| seat)
    }

    /// The connection that a task is allegiant to (§4.2.5.1): what belongs to it goes there, and comes from there.
    #[must_use]
    pub fn seat_of_task(&self, task: TaskId) -> Seat {
        self.tasks.task(task).seat
    }

    /// The responses of a connection before this one have been seen by the initiator (§4.2.2.2).
    #[must_use]
    pub fn acknowledged(&self, seat: Seat) -> StatSn {
        self.connections.at(seat).acknowledged
    }

    /// Notes what has been answered on all connections but `seat`, whose order is its own.
    #[must_use]
    pub fn fence(&self, seat: Seat) -> Fence {
        let mut fence = self.fence_of_all();
        fence.noted[seat.index()] = None;
        fence
    }

    /// Notes what has been answered on all connections.
    #[must_use]
    pub fn fence_of_all(&self) -> Fence {
        let mut noted = [None; CONNECTIONS_MAX as usize];
        for (seat, connection) in self.connections.iter() {
            noted[seat.index()] = Some((connection.serial, connection.stat_sn));
        }
        Fence { noted, pinged: [None; CONNECTIONS_MAX as usize] }
    }

    /// The number of the next ping on a connection, where `more` are sent before it.
    #[must_use]
    pub fn number_of_ping(&self, seat: Seat, more: u16) -> u16 {
        self.connections.at(seat).keepalive.number_behind(more)
    }

    /// Whether the initiator has acknowledged what `fence` noted of a connection, or that connection has left.
    #[must_use]
    pub fn has_acknowledged(&self, fence: &Fence, seat: Seat) -> bool {
        match (&self.connections.seats[seat.index()], fence.noted[seat.index()]) {
            (Some(connection), Some((serial, noted))) => {
                let pinged = fence.pinged[seat.index()];
                serial != connection.serial
                    || !noted.follows(connection.acknowledged)
                        && pinged.is_none_or(|number| connection.keepalive.has_answered(number))
            }
            _ => true,
        }
    }
}
