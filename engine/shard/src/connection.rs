//! A connection: a socket, the bytes that came and are not understood yet, and what phase it is in.
//!
//! It understands PDUs as far as their frame; what they mean is the login's or the session's. One receive and one send
//! are in flight at most.

use std::net::SocketAddr;

use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::login::{Completed, TargetLogin};
use portico_iscsi::moment::Moment;
use portico_iscsi::violation::Violation;
use portico_iscsi::wire::{BHS_BYTES, Bhs};
use portico_model::message::EndReason;
use portico_ring::Fd;

use crate::inbound::{Expectation, Inbound};
use crate::purpose::Purpose;
use crate::session::Session;
use crate::slab::Key;

/// How long a login may take in all, and how long its connection may be silent before that (CVE-2011-0001 and kin: what
/// is not authenticated is bounded in time as in memory).
pub const LOGIN_PATIENCE_S: u64 = 15;

/// One connection.
pub struct Connection {
    /// The socket.
    pub fd: Fd,
    /// The initiator's address.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
    /// What has come.
    pub inbound: Inbound,
    /// What it is doing.
    pub phase: Phase,
    /// The PDU at hand.
    pub pdu: Pdu,
    /// PDUs of the login that are to be sent.
    pub replies: Vec<(Bhs, Vec<u8>)>,
    /// A receive is in flight.
    pub receiving: bool,
    /// A send is in flight.
    pub sending: bool,
    /// It closes, for this reason, when nothing is left to send.
    pub closing: Option<EndReason>,
    /// It has more to send than it may, since the initiator does not read: nothing more is understood until it does.
    pub stalled: bool,
    /// It stands in the list of those to advance.
    pub listed: bool,
    /// When the login is given up.
    pub login_deadline: Moment,
}

/// What a connection does.
pub enum Phase {
    /// It logs in.
    Login(Box<TargetLogin>),
    /// Its login is complete; it goes to control when nothing is in flight.
    Leaving(Box<Completed>),
    /// It belongs to a session.
    FullFeature(Key<Session>),
}

/// How far the PDU at hand is understood.
#[derive(Debug)]
pub enum Pdu {
    /// Its header is to come.
    Header,
    /// Its data segment is to come, with padding and digest.
    Data {
        /// What the data are for.
        purpose: Purpose,
        /// How long.
        lengths: Lengths,
    },
}

/// What the bytes that came amount to.
pub enum Framed {
    /// Not even a header.
    Incomplete,
    /// A header, with what it says of the rest. Its bytes have been taken.
    Header(Bhs, Lengths),
}

impl Connection {
    /// A connection that was just accepted or adopted.
    #[must_use]
    pub fn new(
        fd: Fd,
        (peer, local): (SocketAddr, SocketAddr),
        phase: Phase,
        login_deadline: Moment,
    ) -> Self {
        Self {
            fd,
            peer,
            local,
            inbound: Inbound::new(),
            phase,
            pdu: Pdu::Header,
            replies: Vec::new(),
            receiving: false,
            sending: false,
            closing: None,
            stalled: false,
            listed: false,
            login_deadline,
        }
    }

    /// Takes the next header off the bytes that came, if all of it is there.
    ///
    /// # Errors
    /// A data segment or AHS that is longer than we take.
    pub fn frame(&mut self, digests: Digests, data_bytes_max: u32) -> Result<Framed, Violation> {
        let mut bhs = [0; BHS_BYTES];
        if !self.inbound.peek(&mut bhs) {
            return Ok(Framed::Incomplete);
        }
        let lengths = Lengths::of(&bhs, digests, data_bytes_max)?;
        if self.inbound.len() < lengths.header_bytes() as usize {
            return Ok(Framed::Incomplete);
        }
        self.inbound.skip(lengths.header_bytes() as usize);
        self.inbound.saw(lengths.data_segment_bytes as usize);
        Ok(Framed::Header(bhs, lengths))
    }

    /// Whether all of the data segment at hand has come.
    #[must_use]
    pub fn has_data(&self) -> bool {
        match &self.pdu {
            Pdu::Header => false,
            Pdu::Data { lengths, .. } => self.inbound.len() >= lengths.data_bytes() as usize,
        }
    }

    /// What the next receive is for.
    #[must_use]
    pub fn expectation(&self, aligned: bool) -> Expectation {
        match &self.pdu {
            Pdu::Header => Expectation { missing_bytes: 0, arrived_data_bytes: 0, aligned },
            Pdu::Data { lengths, purpose } => Expectation {
                missing_bytes: (lengths.data_bytes() as usize).saturating_sub(self.inbound.len()),
                arrived_data_bytes: self.inbound.len(),
                aligned: aligned && purpose.is_for_a_task(),
            },
        }
    }

    /// The session that it belongs to.
    #[must_use]
    pub fn session(&self) -> Option<Key<Session>> {
        match self.phase {
            Phase::FullFeature(session) => Some(session),
            Phase::Login(_) | Phase::Leaving(_) => None,
        }
    }

    /// Whether it wants to receive.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        let waits = match self.phase {
            Phase::Login(_) => self.is_answering(),
            Phase::Leaving(_) => true,
            Phase::FullFeature(_) => false,
        };
        !self.receiving && self.closing.is_none() && !waits
    }

    /// Whether an answer is on its way: a login goes on when it is sent, one request at a time (RFC 7143 §6.3).
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.sending || !self.replies.is_empty()
    }
}
