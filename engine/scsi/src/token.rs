//! POPULATE TOKEN and WRITE USING TOKEN (SBC-3 §5.12, §5.46), and what a ROD token looks like (SPC-4 §5.16.6, table 117).
//!
//! A token is of the type *point in time copy - change vulnerable*: it stands for the bytes that the blocks had when it was
//! made, and is revoked when one of them is about to change. Nothing is copied for it, and nothing else is promised. Beside
//! it there is the *block device zero* token, which nobody makes.
//!
//! Here are lists and layouts. Who keeps tokens, and how nobody forges one, is the caller's.

use crate::bits::{be16, be32};
use crate::copy::Cscd;
use crate::identity::Identity;
use crate::reply::Reply;
use crate::sense::{AdditionalSense, Outcome};
use crate::unit::{Geometry, Lba, LogicalUnit};

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 512;

/// A token as it travels.
pub type TokenBytes = [u8; TOKEN_BYTES];

/// SERVICE ACTION of POPULATE TOKEN.
pub const POPULATE: u8 = 0x10;
/// SERVICE ACTION of WRITE USING TOKEN.
pub const WRITE_USING: u8 = 0x11;

/// Range descriptors that one command may have.
pub const RANGES_MAX: usize = 32;
/// Bytes that one token stands for, and one command writes.
pub const TRANSFER_BYTES_MAX: u64 = 256 << 20;
const TRANSFER_BYTES_OPTIMAL: u64 = 64 << 20;
/// INACTIVITY TIMEOUT where the initiator leaves it to us, seconds.
const TIMEOUT_DEFAULT_S: u32 = 30;
const TIMEOUT_MAX_S: u32 = 600;

const POINT_IN_TIME_CHANGE_VULNERABLE: u32 = 0x0080_0001;
const BLOCK_DEVICE_ZERO: u32 = 0xffff_0001;

const POPULATE_HEADER_BYTES: usize = 16;
const WRITE_HEADER_BYTES: usize = 536;
const RANGE_BYTES: usize = 16;

const _: () =
    assert!(WRITE_HEADER_BYTES + RANGES_MAX * RANGE_BYTES <= crate::device_server::PARAMETER_BYTES_MAX);

/// Blocks one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub lba: Lba,
    /// How many: at least one.
    pub blocks: u64,
}

/// POPULATE TOKEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopulateToken {
    /// LIST IDENTIFIER.
    pub list_id: u32,
    /// IMMED.
    pub immediate: bool,
    /// How long the token is kept when nobody uses it.
    pub timeout_s: u32,
    /// What it stands for: within the unit, none twice.
    pub ranges: Vec<Range>,
}

/// WRITE USING TOKEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteUsingToken {
    /// LIST IDENTIFIER.
    pub list_id: u32,
    /// IMMED.
    pub immediate: bool,
    /// DEL_TKN: the token is of no use afterwards.
    pub delete: bool,
    /// OFFSET INTO ROD, in blocks of this unit.
    pub offset_blocks: u64,
    /// The token; `None` is the source of zeroes.
    pub token: Option<Box<TokenBytes>>,
    /// What is written: within the unit, none twice.
    pub ranges: Vec<Range>,
}

impl PopulateToken {
    /// Reads a parameter list.
    ///
    /// # Errors
    /// What SBC-3 §5.12 ends the command with.
    pub(crate) fn read(unit: &LogicalUnit, list_id: u32, list: &[u8]) -> Result<Self, Outcome> {
        const RTV: u8 = 0x02;
        let ranges = ranges(list, POPULATE_HEADER_BYTES, &unit.geometry)?;
        let timeout_s = be32(list, 4);
        if timeout_s > TIMEOUT_MAX_S {
            return Err(Outcome::invalid_parameter(4, None));
        }
        if list[2] & RTV != 0 && be32(list, 8) != POINT_IN_TIME_CHANGE_VULNERABLE {
            return Err(Outcome::invalid_parameter(8, None));
        }
        let timeout_s = if timeout_s == 0 { TIMEOUT_DEFAULT_S } else { timeout_s };
        Ok(Self { list_id, immediate: list[2] & 0x01 != 0, timeout_s, ranges })
    }
}

impl WriteUsingToken {
    /// Reads a parameter list.
    ///
    /// # Errors
    /// What SBC-3 §5.46 ends the command with; a token of another type or length.
    pub(crate) fn read(unit: &LogicalUnit, list_id: u32, list: &[u8]) -> Result<Self, Outcome> {
        let ranges = ranges(list, WRITE_HEADER_BYTES, &unit.geometry)?;
        let token: TokenBytes = list[16..16 + TOKEN_BYTES].try_into().expect("its length is right");
        if be16(&token, 6) != LENGTH {
            return Err(Outcome::illegal(AdditionalSense::INVALID_TOKEN_LENGTH));
        }
        let token = match be32(&token, 0) {
            BLOCK_DEVICE_ZERO => None,
            POINT_IN_TIME_CHANGE_VULNERABLE => Some(Box::new(token)),
            _ => return Err(Outcome::illegal(AdditionalSense::UNSUPPORTED_TOKEN_TYPE)),
        };
        let offset_blocks = u64::from(be32(list, 8)) << 32 | u64::from(be32(list, 12));
        let (immediate, delete) = (list[2] & 0x01 != 0, list[2] & 0x02 != 0);
        Ok(Self { list_id, immediate, delete, offset_blocks, token, ranges })
    }
}

/// The range descriptors of a list behind its header, the last two bytes of which are their length (SBC-3 §5.12.2). One of no
/// blocks is nothing, one that is not whole is ignored.
fn ranges(list: &[u8], header_bytes: usize, geometry: &Geometry) -> Result<Vec<Range>, Outcome> {
    let wrong_length = Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let header = list.get(..header_bytes).ok_or(wrong_length)?;
    let length_at = header_bytes - 2;
    let length = usize::from(be16(header, length_at));
    if length < RANGE_BYTES {
        return Err(Outcome::invalid_parameter(u16::try_from(length_at).expect("a header"), None));
    }
    if usize::from(be16(header, 0)) < length_at + length {
        return Err(Outcome::invalid_parameter(0, None));
    }
    let descriptors = list.get(header_bytes..header_bytes + length).ok_or(wrong_length)?;
    if length / RANGE_BYTES > RANGES_MAX {
        return Err(Outcome::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS));
    }
    let range = |bytes: &[u8]| Range { lba: Lba::read::<8>(bytes, 0), blocks: be32(bytes, 8).into() };
    let ranges: Vec<Range> = descriptors.chunks_exact(RANGE_BYTES).map(range).collect();
    for Range { lba, blocks } in &ranges {
        if lba.0.checked_add(*blocks).is_none_or(|end| end > geometry.blocks()) {
            return Err(Outcome::out_of_range(lba.0.max(geometry.blocks())));
        }
    }
    let ranges: Vec<Range> = ranges.into_iter().filter(|range| range.blocks > 0).collect();
    let overlap = |one: &Range, other: &Range| {
        one.lba.0 < other.lba.0 + other.blocks && other.lba.0 < one.lba.0 + one.blocks
    };
    let twice = (1..ranges.len()).any(|at| ranges[..at].iter().any(|before| overlap(before, &ranges[at])));
    let bytes = ranges.iter().map(|range| range.blocks).sum::<u64>() * u64::from(geometry.block_length());
    if twice || bytes > TRANSFER_BYTES_MAX {
        return Err(Outcome::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST));
    }
    Ok(ranges)
}

// --- Tokens ----------------------------------------------------------------------------------------------------------

/// ROD TOKEN LENGTH: what follows the field.
const LENGTH: u16 = 0x01f8;
const LBPME_LBPRZ: u8 = 0xc0;
const CREATOR_AT: usize = 16;
const CREATOR_BYTES: usize = 32;
/// Where the EXTENDED ROD TOKEN DATA is that the maker of a token fills to its end.
pub const EXTENDED_AT: usize = 416;

/// A token of `bytes` of this unit under this COPY MANAGER ROD TOKEN IDENTIFIER, without its extended data.
pub fn compose(unit: &LogicalUnit, identifier: u64, bytes: u64) -> TokenBytes {
    let LogicalUnit { identity, geometry, .. } = unit;
    let mut token = [0; TOKEN_BYTES];
    let mut reply = Reply::new(&mut token, TOKEN_BYTES);
    reply.be32(POINT_IN_TIME_CHANGE_VULNERABLE);
    reply.be16(0);
    reply.be16(LENGTH);
    reply.be64(identifier);
    reply.bytes(&creator(identity, geometry));
    // NUMBER OF BYTES REPRESENTED has sixteen bytes.
    reply.be64(0);
    reply.be64(bytes);
    // Device type specific data: READ CAPACITY (16)'s, without the capacity.
    reply.zeros_to(96);
    reply.be32(geometry.block_length());
    reply.byte(0);
    reply.byte(geometry.physical_block_exponent());
    reply.byte(if unit.thin_provisioned { LBPME_LBPRZ } else { 0 });
    reply.zeros_to(128);
    // TARGET DEVICE DESCRIPTOR: its name, as a SCSI name string.
    let name = identity.scsi_device_name.as_bytes();
    let padded = if name.is_empty() { 0 } else { name.len() + 4 - name.len() % 4 };
    reply.bytes(&[0x53, 0xa8, 0, u8::try_from(padded).expect("a name is short")]);
    reply.bytes(name);
    reply.finish();
    token
}

const _: () = assert!(132 + crate::identity::LONG_NAME_MAX + 4 <= EXTENDED_AT);

/// CREATOR LOGICAL UNIT DESCRIPTOR.
fn creator(identity: &Identity, geometry: &Geometry) -> [u8; CREATOR_BYTES] {
    let mut bytes = [0; CREATOR_BYTES];
    let (kind, designator) = match (&identity.eui64, &identity.naa) {
        (Some(id), _) => (2, id.as_bytes()),
        (None, Some(id)) => (3, id.as_bytes()),
        (None, None) => (0, &[][..]),
    };
    (bytes[0], bytes[4], bytes[5]) = (crate::copy::CSCD_IDENTIFICATION, 1, kind);
    bytes[7] = u8::try_from(designator.len()).expect("at most 16 bytes");
    bytes[8..8 + designator.len()].copy_from_slice(designator);
    bytes[28..].copy_from_slice(&geometry.block_length().to_be_bytes());
    bytes
}

/// The unit that a token says it was made by.
///
/// # Errors
/// TOKEN CORRUPT where that is no descriptor.
pub fn creator_of(token: &TokenBytes) -> Result<Cscd, Outcome> {
    let corrupt = Outcome::illegal(AdditionalSense::TOKEN_CORRUPT);
    Cscd::read(&token[CREATOR_AT..CREATOR_AT + CREATOR_BYTES]).map_err(|_| corrupt)
}

/// COPY MANAGER ROD TOKEN IDENTIFIER.
pub fn identifier_of(token: &TokenBytes) -> u64 {
    u64::from(be32(token, 8)) << 32 | u64::from(be32(token, 12))
}

/// What of the blocks in `sources`, of `source_block` bytes each, goes where: pieces of both that are as long as they can
/// be, as (from, to, length) in bytes.
///
/// # Errors
/// INVALID FIELD IN PARAMETER LIST where the token stands for less than is to be written.
pub fn pair(
    sources: &[Range],
    source_block: u64,
    write: &WriteUsingToken,
    block: u64,
) -> Result<Vec<(u64, u64, u64)>, Outcome> {
    let short = Outcome::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST);
    let mut skip = write.offset_blocks.checked_mul(block).ok_or(short)?;
    let mut pairs = Vec::new();
    let mut sources = sources.iter().map(|range| (range.lba.0 * source_block, range.blocks * source_block));
    let mut source = (0, 0);
    for range in &write.ranges {
        let (mut to, mut left) = (range.lba.0 * block, range.blocks * block);
        while left > 0 {
            if source.1 == 0 {
                source = sources.next().ok_or(short)?;
            }
            let skipped = skip.min(source.1);
            source = (source.0 + skipped, source.1 - skipped);
            skip -= skipped;
            let length = source.1.min(left);
            if length > 0 {
                pairs.push((source.0, to, length));
            }
            source = (source.0 + length, source.1 - length);
            (to, left) = (to + length, left - length);
        }
    }
    // Pieces of whole blocks of either: the one may be larger than the other.
    let whole = |(from, to, length): &(u64, u64, u64)| {
        from % source_block == 0 && length % source_block == 0 && to % block == 0 && length % block == 0
    };
    if pairs.iter().all(whole) { Ok(pairs) } else { Err(short) }
}

// --- What is told of it ----------------------------------------------------------------------------------------------

/// The descriptors of the Third-party Copy VPD page that are about tokens: in bytes, for blocks of `block`.
pub(crate) fn limits(reply: &mut Reply<'_>, block: u64) {
    reply.bytes(&[0; 6]);
    reply.be16(u16::try_from(RANGES_MAX).expect("bounded above"));
    reply.be32(TIMEOUT_MAX_S);
    reply.be32(TIMEOUT_DEFAULT_S);
    reply.be64(TRANSFER_BYTES_MAX / block);
    reply.be64(TRANSFER_BYTES_OPTIMAL / block);
}

/// ROD Token Features (SPC-4 §7.8.17.8).
pub(crate) fn features(reply: &mut Reply<'_>) {
    // REMOTE TOKENS is zero: a token is of use at this target alone.
    reply.bytes(&[0; 12]);
    reply.be32(0); // a change revokes it at once
    reply.be32(u32::MAX); // nothing but inactivity and changes ends it
    reply.be32(TIMEOUT_MAX_S);
    reply.bytes(&[0; 18]);
    reply.be16(48);
    reply.bytes(&[0, 0, 0, 44, 0, 0, 0, 0]);
    reply.be64(TRANSFER_BYTES_MAX);
    reply.be64(TRANSFER_BYTES_OPTIMAL);
    reply.be64(TRANSFER_BYTES_MAX);
    reply.be64(TRANSFER_BYTES_OPTIMAL);
    reply.bytes(&[0; 8]);
}

/// Supported ROD Types (SPC-4 §7.8.17.9).
pub(crate) fn types(reply: &mut Reply<'_>) {
    const TOKEN_IN: u8 = 0x02;
    const TOKEN_OUT: u8 = 0x01;
    reply.be16(0);
    reply.be16(2 * 64);
    for (kind, flags) in
        [(POINT_IN_TIME_CHANGE_VULNERABLE, TOKEN_IN | TOKEN_OUT), (BLOCK_DEVICE_ZERO, TOKEN_IN)]
    {
        reply.be32(kind);
        reply.byte(flags);
        reply.bytes(&[0; 59]);
    }
}
