//! EXTENDED COPY, with list identifiers of one and of four bytes, and what tells of its limits: RECEIVE COPY OPERATING
//! PARAMETERS and the Third-party Copy VPD page (SPC-4 §6.4, §6.5, §6.22, §7.8.17).
//!
//! One kind of CSCD descriptor is served, the identification descriptor (E4h), beside the CSCD descriptor ID of the unit that
//! the command came to, and one kind of segment, from block device to block device (02h): what VMware and `sg_xcopy` use.
//! Which units a designator may mean is the caller's to say: those that the nexus sees, and no others.

use crate::bits::{be, be16, be32};
use crate::identity::Identity;
use crate::opcodes;
use crate::reply::Reply;
use crate::sense::{AdditionalSense, Outcome};
use crate::token;
use crate::unit::{Lba, LogicalUnit};

/// CSCD descriptors that one command may have.
pub const CSCDS_MAX: usize = 16;
/// Segment descriptors that one command may have.
pub const SEGMENTS_MAX: usize = 64;
/// Bytes of one segment: what READ and WRITE move at most.
pub const SEGMENT_BYTES_MAX: u32 = 16 << 20;

const HEADER_BYTES: usize = 16;
const LONG_HEADER_BYTES: usize = 48;
const CSCD_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 28;
const DESCRIPTORS_BYTES_MAX: usize = CSCDS_MAX * CSCD_BYTES + SEGMENTS_MAX * SEGMENT_BYTES;

const _: () = assert!(LONG_HEADER_BYTES + DESCRIPTORS_BYTES_MAX <= crate::device_server::PARAMETER_BYTES_MAX);

pub(crate) const CSCD_IDENTIFICATION: u8 = 0xe4;
const SEGMENT_BLOCK_TO_BLOCK: u8 = 0x02;
/// Blocks are copied in multiples of 512 bytes.
const GRANULARITY_LOG2: u8 = 9;

/// LIST ID USAGE 11b: there is no list identifier.
const NO_LIST_ID: u8 = 0b11;

/// The CSCD descriptor ID of the unit that the command came to (SPC-4 §6.4.5.1).
const OWN_CSCD: u16 = 0xffff;

/// SERVICE ACTION of EXTENDED COPY (LID1).
pub const SHORT: u8 = 0x00;
/// SERVICE ACTION of EXTENDED COPY (LID4).
pub const LONG: u8 = 0x01;

/// What EXTENDED COPY is to do, as its parameter list says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedCopy {
    /// LIST IDENTIFIER; `None` where the initiator wants to ask for nothing later.
    pub list_id: Option<u32>,
    /// SERVICE ACTION: [`SHORT`] or [`LONG`].
    pub service_action: u8,
    /// IMMED: the command has its status when the copy begins.
    pub immediate: bool,
    /// The copy sources and copy destinations.
    pub cscds: Vec<Cscd>,
    segments: Vec<Segment>,
}

/// A copy source or copy destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// It is the unit that the command came to; there is no designator.
    pub is_own: bool,
    code_set: u8,
    kind: u8,
    designator: Vec<u8>,
    block_length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    source: u16,
    destination: u16,
    /// DC: the number of blocks counts those of the destination.
    by_destination: bool,
    blocks: u16,
    source_lba: Lba,
    destination_lba: Lba,
}

/// One segment, resolved: bytes from here to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which segment.
    pub segment: u16,
    /// Index of the source among the CSCDs.
    pub source: usize,
    /// Index of the destination.
    pub destination: usize,
    /// Where in the source.
    pub source_bytes: u64,
    /// Where in the destination.
    pub destination_bytes: u64,
    /// How much.
    pub length_bytes: u64,
}

impl ExtendedCopy {
    /// Reads a parameter list of EXTENDED COPY (LID4) or (LID1).
    ///
    /// # Errors
    /// As of each.
    pub(crate) fn read_either(list: &[u8], long: bool) -> Result<Self, Outcome> {
        if long { Self::read_long(list) } else { Self::read(list) }
    }

    /// Reads a parameter list of EXTENDED COPY (LID1).
    ///
    /// # Errors
    /// What SPC-4 §6.5 ends the command with: lists that are too long or not whole, descriptors of other kinds.
    fn read(list: &[u8]) -> Result<Self, Outcome> {
        let header = list.get(..HEADER_BYTES).ok_or(WRONG_LENGTH)?;
        let lengths = Lengths {
            header: HEADER_BYTES,
            cscds: be16(header, 2).into(),
            segments: be32(header, 8),
            inline: be32(header, 12),
        };
        let (cscds, segments) = lengths.cut(list)?;
        let list_id = list_id(header[1], header[0].into(), 0)?;
        Ok(Self { list_id, service_action: SHORT, immediate: false, cscds, segments })
    }

    /// Reads a parameter list of EXTENDED COPY (LID4).
    ///
    /// # Errors
    /// As of the other, and a header of another format.
    fn read_long(list: &[u8]) -> Result<Self, Outcome> {
        let header = list.get(..LONG_HEADER_BYTES).ok_or(WRONG_LENGTH)?;
        // PARAMETER LIST FORMAT, HEADER CSCD DESCRIPTOR LIST LENGTH and TYPE CODE have one value each.
        for (at, value) in [(0, 0x01), (2, 0), (3, 0x20), (16, 0xff)] {
            if header[at] != value {
                return Err(Outcome::invalid_parameter(u16::try_from(at & !1).expect("a small index"), None));
            }
        }
        let lengths = Lengths {
            header: LONG_HEADER_BYTES,
            cscds: be16(header, 42).into(),
            segments: be16(header, 44).into(),
            inline: be16(header, 46).into(),
        };
        let (cscds, segments) = lengths.cut(list)?;
        let list_id = list_id(header[1], be32(header, 20), 20)?;
        // G_SENSE lets sense data come with GOOD, and does not ask for any.
        let immediate = header[15] & 0x01 != 0;
        Ok(Self { list_id, service_action: LONG, immediate, cscds, segments })
    }

    /// The segments as bytes between these units, one for each CSCD.
    ///
    /// # Errors
    /// COPY ABORTED for a CSCD that there is not or that was not found, for blocks that a unit does not have, and where the
    /// bytes are no whole blocks of the destination.
    pub fn runs(&self, units: &[Option<&LogicalUnit>]) -> Result<Vec<Run>, Outcome> {
        (0u16..).zip(&self.segments).map(|(at, segment)| self.run(segment, at, units)).collect()
    }

    fn run(&self, segment: &Segment, number: u16, units: &[Option<&LogicalUnit>]) -> Result<Run, Outcome> {
        let aborted = |additional| Outcome::copy_failed(additional, number);
        let unreachable = aborted(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE);
        let unit_of = |index: u16| {
            let at = usize::from(index);
            let (cscd, unit) = self.cscds.get(at).zip(units.get(at)).ok_or(unreachable)?;
            let unit = unit.ok_or(unreachable)?;
            match cscd.block_length == 0 || cscd.block_length == unit.geometry.block_length() {
                true => Ok(unit),
                false => Err(aborted(AdditionalSense::INCORRECT_COPY_TARGET_DEVICE_TYPE)),
            }
        };
        let (source, destination) = (unit_of(segment.source)?, unit_of(segment.destination)?);
        let block = |unit: &LogicalUnit| u64::from(unit.geometry.block_length());
        let counted = if segment.by_destination { destination } else { source };
        let length_bytes = u64::from(segment.blocks) * block(counted);
        if length_bytes > u64::from(SEGMENT_BYTES_MAX) {
            return Err(Outcome::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST));
        }
        for (unit, lba) in [(source, segment.source_lba), (destination, segment.destination_lba)] {
            if length_bytes % block(unit) != 0 {
                return Err(aborted(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT));
            }
            let end = lba.0.checked_add(length_bytes / block(unit));
            if end.is_none_or(|end| end > unit.geometry.blocks()) {
                return Err(aborted(AdditionalSense::NONE));
            }
        }
        Ok(Run {
            segment: number,
            source: usize::from(segment.source),
            destination: usize::from(segment.destination),
            source_bytes: segment.source_lba.0 * block(source),
            destination_bytes: segment.destination_lba.0 * block(destination),
            length_bytes,
        })
    }
}

/// Lengths of the parts of a parameter list.
struct Lengths {
    header: usize,
    cscds: u32,
    segments: u32,
    inline: u32,
}

impl Lengths {
    /// The descriptors. One of the unit itself is added where a segment names it.
    fn cut(&self, list: &[u8]) -> Result<(Vec<Cscd>, Vec<Segment>), Outcome> {
        let long = |length| usize::try_from(length).unwrap_or(usize::MAX);
        let (cscd_bytes, segment_bytes) = (long(self.cscds), long(self.segments));
        let descriptors = cscd_bytes.saturating_add(segment_bytes);
        if descriptors > DESCRIPTORS_BYTES_MAX || self.inline > 0 || cscd_bytes % CSCD_BYTES != 0 {
            return Err(WRONG_LENGTH);
        }
        let cscds = list.get(self.header..self.header + cscd_bytes).ok_or(WRONG_LENGTH)?;
        let rest = &list[self.header + cscd_bytes..];
        let segments = rest.get(..segment_bytes).ok_or(WRONG_LENGTH)?;
        if cscds.len() / CSCD_BYTES > CSCDS_MAX {
            return Err(Outcome::illegal(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS));
        }
        let mut cscds: Vec<Cscd> =
            cscds.chunks_exact(CSCD_BYTES).map(Cscd::read).collect::<Result<_, _>>()?;
        let mut segments = Segment::read_all(segments)?;
        let own = u16::try_from(cscds.len()).expect("bounded above");
        let mut names_own = false;
        for end in segments.iter_mut().flat_map(|one| [&mut one.source, &mut one.destination]) {
            if *end == own {
                // No descriptor has this number: it shall not come to mean the unit.
                *end = OWN_CSCD - 1;
            } else if *end == OWN_CSCD {
                (*end, names_own) = (own, true);
            }
        }
        cscds.extend(names_own.then(Cscd::own));
        Ok((cscds, segments))
    }
}

const WRONG_LENGTH: Outcome = Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

/// LIST IDENTIFIER, which is at byte `at` of the list, under the LIST ID USAGE in `usage`.
fn list_id(usage: u8, list_id: u32, at: u16) -> Result<Option<u32>, Outcome> {
    match (usage >> 3 & 0b11, list_id) {
        (NO_LIST_ID, 0) => Ok(None),
        (NO_LIST_ID, _) => Err(Outcome::invalid_parameter(at, None)),
        (_, list_id) => Ok(Some(list_id)),
    }
}

impl Cscd {
    fn own() -> Self {
        Self { is_own: true, code_set: 0, kind: 0, designator: Vec::new(), block_length: 0 }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Outcome> {
        if bytes[0] != CSCD_IDENTIFICATION {
            return Err(Outcome::illegal(AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE));
        }
        let aborted = Outcome::copy_aborted(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE);
        // Something else than a disk, or a name of something else than a logical unit. LU ID TYPE does not count with this
        // kind of descriptor, and NUL is obsolete.
        if bytes[1] & 0x1f != 0 || bytes[5] >> 4 & 0b11 != 0 {
            return Err(aborted);
        }
        let designator = bytes.get(8..8 + usize::from(bytes[7])).filter(|designator| designator.len() <= 20);
        Ok(Self {
            is_own: false,
            code_set: bytes[4] & 0x0f,
            kind: bytes[5] & 0x0f,
            designator: designator.ok_or(aborted)?.to_vec(),
            block_length: u32::try_from(be::<3>(bytes, 29)).expect("three bytes"),
        })
    }

    /// Whether it is this unit's: one of the designators of its VPD page 83h.
    pub fn names(&self, identity: &Identity) -> bool {
        match (self.code_set, self.kind) {
            (2, 1) => {
                let (vendor, id) = (identity.vendor.padded::<8>(), identity.vendor_specific_id.as_bytes());
                self.designator.strip_prefix(&vendor) == Some(id)
            }
            (1, 2) => identity.eui64.is_some_and(|id| id.as_bytes() == self.designator),
            (1, 3) => identity.naa.is_some_and(|id| id.as_bytes() == self.designator),
            _ => false,
        }
    }
}

impl Segment {
    fn read_all(mut list: &[u8]) -> Result<Vec<Self>, Outcome> {
        let mut segments = Vec::new();
        while let Some(kind) = list.first() {
            if *kind != SEGMENT_BLOCK_TO_BLOCK {
                return Err(Outcome::illegal(AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE));
            }
            let Some((bytes, rest)) = list.split_at_checked(SEGMENT_BYTES) else {
                return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
            };
            if usize::from(be16(bytes, 2)) != SEGMENT_BYTES - 4 {
                return Err(Outcome::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST));
            }
            segments.push(Self {
                source: be16(bytes, 4),
                destination: be16(bytes, 6),
                by_destination: bytes[1] & 0x02 != 0,
                blocks: be16(bytes, 10),
                source_lba: Lba::read::<8>(bytes, 12),
                destination_lba: Lba::read::<8>(bytes, 20),
            });
            list = rest;
        }
        match segments.len() {
            ..=SEGMENTS_MAX => Ok(segments),
            _ => Err(Outcome::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS)),
        }
    }
}

/// RECEIVE COPY OPERATING PARAMETERS (SPC-4 §6.22).
pub(crate) fn operating_parameters(reply: &mut Reply<'_>) {
    let start = reply.position();
    reply.be32(0); // AVAILABLE DATA, below
    reply.bytes(&[0x01, 0, 0, 0]); // SNLID: LIST ID USAGE 11b is served
    counts(reply);
    reply.be32(SEGMENT_BYTES_MAX);
    reply.be32(0); // no inline data
    reply.be32(0); // HELD DATA LIMIT: no held data but the status
    reply.be32(0); // no streams
    reply.be16(0);
    reply.be16(CONCURRENT_COPIES);
    reply.byte(u8::try_from(CONCURRENT_COPIES).expect("a small number"));
    reply.bytes(&[GRANULARITY_LOG2, 0, 0, 0, 0, 0]);
    reply.bytes(&[2, SEGMENT_BLOCK_TO_BLOCK, CSCD_IDENTIFICATION]);
    let available = u32::try_from(reply.position() - start - 4).expect("a short reply");
    reply.patch(start, &available.to_be_bytes());
}

/// Copies of one session whose status is kept.
pub const CONCURRENT_COPIES: u16 = 16;

fn counts(reply: &mut Reply<'_>) {
    let count = |count: usize| u16::try_from(count).expect("bounded above");
    reply.be16(count(CSCDS_MAX));
    reply.be16(count(SEGMENTS_MAX));
    reply.be32(u32::try_from(DESCRIPTORS_BYTES_MAX).expect("bounded above"));
}

/// Third-party Copy VPD page, after its header.
pub(crate) fn third_party_copy(reply: &mut Reply<'_>, block: u64) {
    descriptor(reply, 0x0000, |reply| token::limits(reply, block));
    descriptor(reply, 0x0001, |reply| {
        let mut commands = Vec::new();
        for code in [0x83, 0x84] {
            let actions = opcodes::rows(code).iter().filter_map(|row| row.service_action);
            let actions: Vec<u8> = actions.filter_map(|action| u8::try_from(action).ok()).collect();
            commands.extend([code, u8::try_from(actions.len()).expect("a short list")]);
            commands.extend(actions);
        }
        reply.byte(u8::try_from(commands.len()).expect("a short list"));
        reply.bytes(&commands);
    });
    descriptor(reply, 0x0004, |reply| {
        reply.be32(0);
        counts(reply);
        reply.bytes(&[0; 16]);
    });
    descriptor(reply, 0x0008, |reply| reply.bytes(&[2, SEGMENT_BLOCK_TO_BLOCK, CSCD_IDENTIFICATION]));
    descriptor(reply, 0x000c, |reply| {
        reply.be16(2);
        reply.be16(OWN_CSCD);
    });
    descriptor(reply, 0x0106, token::features);
    descriptor(reply, 0x0108, token::types);
    descriptor(reply, 0x8001, |reply| {
        reply.be32(u32::from(CONCURRENT_COPIES));
        reply.be32(u32::from(CONCURRENT_COPIES));
        reply.be32(SEGMENT_BYTES_MAX);
        reply.bytes(&[GRANULARITY_LOG2, 0]);
        reply.bytes(&[0; 18]);
    });
}

/// Type, length, and content up to a multiple of four.
fn descriptor(reply: &mut Reply<'_>, kind: u16, write: impl FnOnce(&mut Reply<'_>)) {
    reply.be16(kind);
    let at = reply.position();
    reply.be16(0);
    write(reply);
    reply.zeros_to(at + 2 + (reply.position() - at - 2).next_multiple_of(4));
    reply.length16(at);
}
