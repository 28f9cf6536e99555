//! EXTENDED COPY (LID1), what RECEIVE COPY RESULTS tells of it, and the Third-party Copy VPD page (SPC-4 §6.4, §6.24, §6.25,
//! §7.8.17).
//!
//! One kind of CSCD descriptor is served, the identification descriptor (E4h), and one kind of segment, from block device to
//! block device (02h): what VMware and `sg_xcopy` use. Which units a designator may mean is the caller's to say: those that
//! the nexus sees, and no others.

use crate::bits::{be, be16, be32};
use crate::identity::Identity;
use crate::reply::Reply;
use crate::sense::{AdditionalSense, Outcome};
use crate::unit::{Lba, LogicalUnit};

/// CSCD descriptors that one command may have.
pub const CSCDS_MAX: usize = 16;
/// Segment descriptors that one command may have.
pub const SEGMENTS_MAX: usize = 64;
/// Bytes of one segment: what READ and WRITE move at most.
pub const SEGMENT_BYTES_MAX: u32 = 16 << 20;

const HEADER_BYTES: usize = 16;
const CSCD_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 28;
const DESCRIPTORS_BYTES_MAX: usize = CSCDS_MAX * CSCD_BYTES + SEGMENTS_MAX * SEGMENT_BYTES;

const _: () = assert!(HEADER_BYTES + DESCRIPTORS_BYTES_MAX <= crate::device_server::PARAMETER_BYTES_MAX);

const CSCD_IDENTIFICATION: u8 = 0xe4;
const SEGMENT_BLOCK_TO_BLOCK: u8 = 0x02;
/// Blocks are copied in multiples of 512 bytes.
const GRANULARITY_LOG2: u8 = 9;

/// LIST ID USAGE 11b: there is no list identifier.
const NO_LIST_ID: u8 = 0b11;

/// What EXTENDED COPY is to do, as its parameter list says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedCopy {
    /// LIST IDENTIFIER; `None` where the initiator wants to ask for nothing later.
    pub list_id: Option<u8>,
    /// The copy sources and copy destinations.
    pub cscds: Vec<Cscd>,
    segments: Vec<Segment>,
}

/// A copy source or copy destination by its designator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cscd {
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

/// What is kept of a copy for RECEIVE COPY STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRecord {
    /// LIST IDENTIFIER.
    pub list_id: u8,
    /// How it stands.
    pub state: CopyState,
    /// SEGMENTS PROCESSED.
    pub segments: u16,
    /// TRANSFER COUNT, in bytes.
    pub bytes: u64,
}

/// COPY MANAGER STATUS (SPC-4 table 197).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CopyState {
    /// 00h.
    InProgress = 0,
    /// 01h.
    Completed = 1,
    /// 02h.
    Failed = 2,
}

impl ExtendedCopy {
    /// Reads a parameter list.
    ///
    /// # Errors
    /// What SPC-4 §6.4 ends the command with: lists that are too long or not whole, descriptors of other kinds.
    pub(crate) fn read(list: &[u8]) -> Result<Self, Outcome> {
        let wrong_length = Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
        let header = list.get(..HEADER_BYTES).ok_or(wrong_length)?;
        let cscd_bytes = usize::from(be16(header, 2));
        let long = |at| usize::try_from(be32(header, at)).unwrap_or(usize::MAX);
        let (segment_bytes, inline_bytes) = (long(8), long(12));
        let descriptors = cscd_bytes.saturating_add(segment_bytes);
        if descriptors > DESCRIPTORS_BYTES_MAX || inline_bytes > 0 || cscd_bytes % CSCD_BYTES != 0 {
            return Err(wrong_length);
        }
        let cscds = list.get(HEADER_BYTES..HEADER_BYTES + cscd_bytes).ok_or(wrong_length)?;
        let rest = &list[HEADER_BYTES + cscd_bytes..];
        let segments = rest.get(..segment_bytes).ok_or(wrong_length)?;
        if cscds.len() / CSCD_BYTES > CSCDS_MAX {
            return Err(Outcome::illegal(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS));
        }
        let list_id = (header[1] >> 3 & 0b11 != NO_LIST_ID).then_some(header[0]);
        if list_id.is_none() && header[0] != 0 {
            return Err(Outcome::invalid_parameter(0, None));
        }
        let cscds = cscds.chunks_exact(CSCD_BYTES).map(Cscd::read).collect::<Result<_, _>>()?;
        Ok(Self { list_id, cscds, segments: Segment::read_all(segments)? })
    }

    /// The segments as bytes between these units, one for each CSCD.
    ///
    /// # Errors
    /// COPY ABORTED for a CSCD that there is not or that was not found, for blocks that a unit does not have, and where the
    /// bytes are no whole blocks of the destination.
    pub fn runs(&self, units: &[Option<&LogicalUnit>]) -> Result<Vec<Run>, Outcome> {
        let aborted = Outcome::copy_aborted;
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
        let mut runs = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
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
            runs.push(Run {
                source: usize::from(segment.source),
                destination: usize::from(segment.destination),
                source_bytes: segment.source_lba.0 * block(source),
                destination_bytes: segment.destination_lba.0 * block(destination),
                length_bytes,
            });
        }
        Ok(runs)
    }
}

impl Cscd {
    fn read(bytes: &[u8]) -> Result<Self, Outcome> {
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

/// RECEIVE COPY OPERATING PARAMETERS (SPC-4 §6.24).
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

/// RECEIVE COPY STATUS (LID1) (SPC-4 §6.25): the bytes of it in `buffer`, cut at the ALLOCATION LENGTH.
pub fn copy_status(record: &CopyRecord, allocation_length: u32, buffer: &mut [u8]) -> usize {
    let mut reply = Reply::new(buffer, allocation_length);
    reply.be32(8);
    reply.byte(record.state as u8);
    reply.be16(record.segments);
    // TRANSFER COUNT UNITS: bytes, or KiB where four bytes do not count them.
    let (units, count) = match u32::try_from(record.bytes) {
        Ok(bytes) => (0x00, bytes),
        Err(_) => (0x01, u32::try_from(record.bytes >> 10).unwrap_or(u32::MAX)),
    };
    reply.byte(units);
    reply.be32(count);
    reply.finish()
}

/// Bytes of [`copy_status`].
pub const COPY_STATUS_BYTES: usize = 12;

/// Third-party Copy VPD page, after its header.
pub(crate) fn third_party_copy(reply: &mut Reply<'_>) {
    descriptor(reply, 0x0001, |reply| {
        let commands = [0x83, 1, 0x00, 0x84, 2, 0x00, 0x03];
        reply.byte(u8::try_from(commands.len()).expect("a short list"));
        reply.bytes(&commands);
    });
    descriptor(reply, 0x0004, |reply| {
        reply.be32(0);
        counts(reply);
        reply.bytes(&[0; 16]);
    });
    descriptor(reply, 0x0008, |reply| reply.bytes(&[2, SEGMENT_BLOCK_TO_BLOCK, CSCD_IDENTIFICATION]));
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
