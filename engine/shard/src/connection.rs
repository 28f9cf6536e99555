//! A connection: a socket, the bytes that came and are not understood yet, and what phase it is in.
//!
//! It understands PDUs as far as their frame; what they mean is the login's or the session's. One receive and one send
//! are in flight at most.

use std::net::SocketAddr;

use portico_iscsi::digest::Crc32c;
use portico_iscsi::framing::{DIGEST_BYTES, Digests, HEADER_BYTES_MAX, Lengths};
use portico_iscsi::login::{Completed, TargetLogin};
use portico_iscsi::moment::Moment;
use portico_iscsi::session::Seat;
use portico_iscsi::violation::Violation;
use portico_iscsi::wire::{BHS_BYTES, Bhs};
use portico_model::message::EndReason;
use portico_ring::Fd;

use crate::full_feature::RARE_MAX;
use crate::inbound::{Expectation, Frame, Inbound};
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
    /// What its PDUs carry beside their bytes; none until the full feature phase.
    pub digests: Digests,
    /// What it is doing.
    pub phase: Phase,
    /// The PDU at hand.
    pub pdu: Pdu,
    /// The header of the PDU at hand, once it is there.
    pub header: Bhs,
    /// The AHS behind it.
    pub ahs: Vec<u8>,
    /// Since when its data segment is on its way.
    pub data_since: Moment,
    checked: Checked,
    /// PDUs of the login that are to be sent.
    pub replies: Vec<(Bhs, Vec<u8>)>,
    /// A receive is in flight.
    pub receiving: bool,
    /// That receive is asked back, since nothing came for long: its places are given up.
    pub recalled: bool,
    /// When bytes came last.
    pub heard_at: Moment,
    /// A send is in flight.
    pub sending: bool,
    /// Since when, or when the last one began.
    pub sent_at: Moment,
    /// It closes, for this reason, when nothing is left to send.
    pub closing: Option<EndReason>,
    /// It has more to send than it may, since the initiator does not read: nothing more is understood until it does.
    pub stalled: bool,
    /// Rare PDUs that it may send before the next tick.
    pub rare_left: u16,
    /// It has sent as many: nothing more is understood before the next tick.
    pub is_tired: bool,
    /// It stands in the list of those to advance.
    pub listed: bool,
    /// When the login is given up.
    pub login_deadline: Moment,
    /// The proof at hand is judged then, and nothing is understood before.
    pub judged_at: Option<Moment>,
}

/// What a connection does.
pub enum Phase {
    /// It logs in.
    Login(Box<TargetLogin>),
    /// Its login is complete; it goes to control when nothing is in flight.
    Leaving(Box<Completed>),
    /// It belongs to a session, and has this seat in it.
    FullFeature(Key<Session>, Seat),
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

/// How far a data segment has been gone through: its digest follows the bytes as they come.
#[derive(Debug, Clone, Copy, Default)]
struct Checked {
    crc: Crc32c,
    /// Bytes that the digest covers so far.
    bytes: usize,
    /// Bytes that were thrown away so far.
    skipped: usize,
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
            digests: Digests::NONE,
            phase,
            pdu: Pdu::Header,
            header: [0; BHS_BYTES],
            ahs: Vec::new(),
            data_since: Moment::ORIGIN,
            checked: Checked::default(),
            replies: Vec::new(),
            receiving: false,
            recalled: false,
            heard_at: Moment::ORIGIN,
            sending: false,
            sent_at: Moment::ORIGIN,
            closing: None,
            stalled: false,
            rare_left: RARE_MAX,
            is_tired: false,
            listed: false,
            login_deadline,
            judged_at: None,
        }
    }

    /// Takes the next header off the bytes that came, if all of it is there.
    ///
    /// # Errors
    /// A data segment or AHS that is longer than we take, or a wrong header digest.
    pub fn frame(&mut self, data_bytes_max: u32) -> Result<Framed, Violation> {
        let mut bhs = [0; BHS_BYTES];
        if !self.inbound.peek(&mut bhs) {
            return Ok(Framed::Incomplete);
        }
        let lengths = Lengths::of(&bhs, self.digests, data_bytes_max)?;
        self.ahs.clear();
        if lengths.header_bytes() as usize > BHS_BYTES && !self.frame_rest(lengths)? {
            return Ok(Framed::Incomplete);
        }
        self.inbound.skip(lengths.header_bytes() as usize);
        self.inbound.saw(lengths.data_segment_bytes as usize);
        Ok(Framed::Header(bhs, lengths))
    }

    /// Of a header that is longer than its BHS: the AHS, and the digest. `false` where not all of it has come.
    fn frame_rest(&mut self, lengths: Lengths) -> Result<bool, Violation> {
        let mut header = [0; HEADER_BYTES_MAX];
        let header = &mut header[..lengths.header_bytes() as usize];
        if !self.inbound.peek(header) {
            return Ok(false);
        }
        self.digests.check_header(header)?;
        self.ahs.extend_from_slice(&header[BHS_BYTES..BHS_BYTES + lengths.ahs_bytes as usize]);
        Ok(true)
    }

    /// Whether all of the data segment at hand has come.
    #[must_use]
    pub fn has_data(&self) -> bool {
        match &self.pdu {
            Pdu::Header => false,
            Pdu::Data { lengths, .. } => self.arrived_bytes() >= lengths.data_bytes() as usize,
        }
    }

    /// Bytes of the data segment at hand that have come, with those behind it.
    fn arrived_bytes(&self) -> usize {
        self.inbound.len() + self.checked.skipped
    }

    /// Bytes of the data segment at hand that are still here or to come.
    #[must_use]
    pub fn rest_bytes(&self) -> usize {
        match &self.pdu {
            Pdu::Header => 0,
            Pdu::Data { lengths, .. } => lengths.data_bytes() as usize - self.checked.skipped,
        }
    }

    /// Throws away what has come of a data segment that nobody wants; its digest has been computed as far.
    pub fn skip_unwanted(&mut self) {
        let Pdu::Data { purpose, lengths } = &self.pdu else { return };
        if purpose.keeps() {
            return;
        }
        let covered = (lengths.data_segment_bytes + lengths.padding_bytes) as usize;
        let length = (covered - self.checked.skipped).min(self.inbound.len());
        self.inbound.skip(length);
        self.checked.skipped += length;
    }

    /// The data segment behind this header is to come.
    pub fn begin_data(&mut self, header: Bhs, lengths: Lengths, purpose: Purpose) {
        self.pdu = Pdu::Data { purpose, lengths };
        self.header = header;
        self.checked = Checked::default();
    }

    /// From here on PDUs carry these digests.
    pub fn agree_on(&mut self, digests: Digests) {
        let bytes = |has: bool| if has { DIGEST_BYTES as usize } else { 0 };
        self.digests = digests;
        self.inbound.frame_by(Frame {
            header_bytes: BHS_BYTES + bytes(digests.header),
            trailer_bytes: bytes(digests.data),
        });
    }

    /// Computes the data digest as far as data have come, while they are in the processor's cache.
    pub fn check_arrived(&mut self) {
        let Pdu::Data { lengths, .. } = &self.pdu else { return };
        if lengths.data_digest_bytes == 0 {
            return;
        }
        let covered = (lengths.data_segment_bytes + lengths.padding_bytes) as usize;
        let end = covered.min(self.arrived_bytes());
        let Checked { crc, bytes, skipped } = &mut self.checked;
        self.inbound.view(*bytes - *skipped..end - *skipped, |piece| crc.update(piece));
        *bytes = end;
    }

    /// Whether the data segment at hand, all of which has come, has the digest that it came with.
    #[must_use]
    pub fn data_digest_holds(&self) -> bool {
        let Pdu::Data { lengths, .. } = &self.pdu else { return true };
        if lengths.data_digest_bytes == 0 {
            return true;
        }
        let (mut field, mut at) = ([0; DIGEST_BYTES as usize], 0);
        let digest = self.checked.bytes - self.checked.skipped..self.rest_bytes();
        self.inbound.view(digest, |bytes| {
            field[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        });
        field == self.checked.crc.field()
    }

    /// What the next receive is for.
    #[must_use]
    pub fn expectation(&self, aligned: bool) -> Expectation {
        match &self.pdu {
            Pdu::Header => Expectation { aligned, ..Expectation::default() },
            Pdu::Data { lengths, purpose } => Expectation {
                missing_bytes: (lengths.data_bytes() as usize).saturating_sub(self.arrived_bytes()),
                arrived_data_bytes: self.inbound.len(),
                aligned: aligned && purpose.is_for_a_task(),
                is_unwanted: !purpose.keeps(),
            },
        }
    }

    /// The session that it belongs to, and its seat there.
    #[must_use]
    pub fn place(&self) -> Option<(Key<Session>, Seat)> {
        match self.phase {
            Phase::FullFeature(session, seat) => Some((session, seat)),
            Phase::Login(_) | Phase::Leaving(_) => None,
        }
    }

    /// Whether it holds places for much, has brought nothing since `before`, and nothing of it is under way.
    #[must_use]
    pub fn could_rest(&self, before: Moment) -> bool {
        self.receiving
            && !self.recalled
            && !self.sending
            && self.heard_at <= before
            && matches!(self.pdu, Pdu::Header)
            && self.inbound.could_rest()
    }

    /// Whether it wants to receive.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        let waits = match self.phase {
            Phase::Login(_) => self.is_answering() || self.judged_at.is_some(),
            Phase::Leaving(_) => true,
            Phase::FullFeature(..) => false,
        };
        !self.receiving && self.closing.is_none() && !waits
    }

    /// Whether it is the peer's turn, or its words have not been looked at.
    #[must_use]
    pub fn wants_bytes_or_has_them(&self) -> bool {
        self.closing.is_none() && !self.is_answering() && self.judged_at.is_none()
    }

    /// Whether an answer is on its way: a login goes on when it is sent, one request at a time (RFC 7143 §6.3).
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.sending || !self.replies.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_iscsi::digest::field_of;
    use portico_iscsi::violation::Answer;
    use portico_ring::{Arena, ArenaOptions};
    use std::net::Ipv4Addr;

    const BOTH: Digests = Digests { header: true, data: true };
    const HEADER: usize = BHS_BYTES + 8 + 4;
    const DATA_AND_PADDING: usize = 1021 + 3;

    /// BHS with an AHS of 8 bytes, data, padding and both digests: all parts that a PDU can have.
    fn pdu() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..56).collect();
        bytes[4..8].copy_from_slice(&[2, 0, 3, 0xfd]);
        bytes.extend(field_of(&bytes));
        bytes.extend((0..=250u8).cycle().take(1021));
        bytes.resize(HEADER + DATA_AND_PADDING, 0);
        bytes.extend(field_of(&bytes[HEADER..]));
        bytes
    }

    /// What becomes of a PDU that comes in pieces of `step` bytes: whether its data digest holds. Nobody wants its data.
    fn received(bytes: &[u8], step: usize) -> Result<bool, Violation> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let phase = Phase::FullFeature(Key::nobody(), Seat::LEADING);
        let mut connection = Connection::new(Fd::from_bits(0), (address, address), phase, Moment::NEVER);
        connection.agree_on(BOTH);
        let arena = Arena::new(ArenaOptions { small: 2048, medium: 1, large: 1 }).unwrap();
        for piece in bytes.chunks(step) {
            assert!(connection.inbound.inject(&arena, piece));
            if let Pdu::Header = connection.pdu
                && let Framed::Header(header, lengths) = connection.frame(1 << 20)?
            {
                connection.begin_data(header, lengths, Purpose::Absorbed);
            }
            connection.check_arrived();
            connection.skip_unwanted();
            assert!(connection.inbound.len() <= HEADER.max(4), "what has come is thrown away");
        }
        assert!(connection.has_data(), "all of it has come");
        let Pdu::Data { lengths, .. } = &connection.pdu else { panic!("its header is right") };
        assert_eq!(lengths.header_bytes() as usize, HEADER);
        Ok(connection.data_digest_holds())
    }

    #[test]
    fn a_right_pdu_is_right_however_it_is_cut() {
        for step in [1, 3, 48, 59, 60, 61, 500, 4096] {
            assert_eq!(received(&pdu(), step), Ok(true), "in pieces of {step}");
        }
    }

    #[test]
    fn a_bit_that_is_flipped_in_bhs_ahs_or_header_digest_loses_the_connection() {
        // But for the lengths, which say how far the header goes: they are told apart below.
        for at in (0..HEADER).filter(|at| !(4..8).contains(at)) {
            let mut bytes = pdu();
            bytes[at] ^= 1 << (at % 8);
            let lost = received(&bytes, 4096);
            assert_eq!(lost, Err(Violation::HeaderDigestWrong), "byte {at}");
            assert_eq!(Violation::HeaderDigestWrong.answer(), Answer::DropConnection);
        }
    }

    #[test]
    fn a_bit_that_is_flipped_in_a_length_loses_the_connection_too() {
        for (at, bit) in [(4, 0), (4, 1), (4, 3), (5, 2), (5, 7), (6, 0), (7, 0)] {
            let mut bytes = pdu();
            bytes[at] ^= 1 << bit;
            let lost = received(&bytes, 4096).unwrap_err();
            assert_eq!(lost.answer(), Answer::DropConnection, "byte {at}: {lost}");
        }
    }

    #[test]
    fn a_bit_that_is_flipped_in_data_padding_or_data_digest_costs_this_pdu_alone() {
        let length = pdu().len();
        for at in (HEADER..length).step_by(7).chain(length - 8..length) {
            let mut bytes = pdu();
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(received(&bytes, 100), Ok(false), "byte {at}");
        }
    }
}
