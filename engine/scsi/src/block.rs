//! Commands that reach the medium: what is checked before they do (SBC-3 §4.5, §5), and what is left to do.

use crate::bits::{be16, be32};
use crate::cdb::{Atomic, Compare, Extent};
use crate::reservation::CommandClass;
use crate::sense::{AdditionalSense, Outcome, Sense};
use crate::unit::{AtomicWrites, Geometry, Lba, LogicalUnit};

/// What the medium is asked to do. Every range lies within the unit, and none is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumCommand {
    /// Read blocks for the data-in buffer.
    Read {
        /// First block.
        lba: Lba,
        /// Number of blocks, at least one.
        blocks: u32,
        /// FUA: from the medium, not from a volatile cache.
        fua: bool,
        /// DPO: the initiator will not read them again soon.
        dpo: bool,
    },
    /// Write blocks of the data-out buffer.
    Write {
        /// First block.
        lba: Lba,
        /// Number of blocks, at least one.
        blocks: u32,
        /// GOOD only once they are on stable storage: FUA, or WCE is zero. Never with `nv_cache`.
        fua: bool,
        /// DPO: the initiator will not read them again soon.
        dpo: bool,
    },
    /// Read blocks, for themselves or to compare them.
    Verify {
        /// First block.
        lba: Lba,
        /// Number of blocks, at least one.
        blocks: u32,
        /// With the data-out buffer, and how; `None`: only whether they can be read.
        compare: Option<Compare>,
    },
    /// Do several things to the blocks, one after the other.
    Series {
        /// First block.
        lba: Lba,
        /// Number of blocks, at least one.
        blocks: u64,
        /// What.
        series: Series,
    },
    /// Do something to the blocks that every other command finds done or not begun (SBC-3 §5.2, SBC-4 §4.29).
    Atomic {
        /// First block.
        lba: Lba,
        /// Number of blocks, at least one.
        blocks: u32,
        /// What.
        operation: AtomicOperation,
        /// As of [`MediumCommand::Write`].
        fua: bool,
    },
    /// Make what was written stable.
    Flush {
        /// First block.
        lba: Lba,
        /// Number of blocks, at least one.
        blocks: u64,
        /// IMMED: GOOD now, flush afterwards.
        immediate: bool,
    },
}

/// What is done in one with the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOperation {
    /// They are compared with the first half of the data-out buffer, and become the second half where they are equal.
    CompareAndWrite,
    /// They become their bitwise OR with the data-out buffer.
    Or,
    /// They become the data-out buffer.
    Write,
}

/// A command that takes more than one pass over its blocks, or more than a plain copy of its data-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// Write, make stable, read back.
    WriteAndVerify {
        /// What is read back is compared with the data-out buffer.
        compare: bool,
    },
    /// Read, so that a cache below has it.
    PreFetch,
    /// Write the one block of the data-out buffer to each block.
    WriteSame {
        /// Space may be given back where that block is zeroes.
        unmap: bool,
    },
    /// Make every block zero.
    WriteZeroes {
        /// Their space may be given back.
        unmap: bool,
    },
    /// Give the space of those blocks back that [`unmap_descriptors`] names, which read as zeroes from then on. The range is
    /// the first of them.
    Unmap,
    /// Tell which of the first blocks are mapped: [`lba_status`].
    LbaStatus {
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
}

/// Which way a command's data goes, with the bytes that SCSI moves: residuals are counted against these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// No data.
    None,
    /// To the initiator.
    In {
        /// Bytes.
        bytes: u64,
    },
    /// From the initiator.
    Out {
        /// Bytes.
        bytes: u64,
    },
}

impl MediumCommand {
    /// What the command moves over the wire, for blocks of `block_length` bytes.
    pub fn transfer(&self, block_length: u32) -> Transfer {
        let bytes = |blocks: u32| u64::from(blocks) * u64::from(block_length);
        match *self {
            Self::Read { blocks, .. } => Transfer::In { bytes: bytes(blocks) },
            Self::Write { blocks, .. } => Transfer::Out { bytes: bytes(blocks) },
            Self::Verify { blocks, compare: Some(Compare::EachBlock), .. } => {
                Transfer::Out { bytes: bytes(blocks) }
            }
            Self::Verify { compare: Some(Compare::OneBlock), .. } => Transfer::Out { bytes: bytes(1) },
            Self::Atomic { operation: AtomicOperation::CompareAndWrite, blocks, .. } => {
                Transfer::Out { bytes: 2 * bytes(blocks) }
            }
            Self::Atomic { blocks, .. } => Transfer::Out { bytes: bytes(blocks) },
            Self::Series { series: Series::WriteAndVerify { .. }, blocks, .. } => {
                Transfer::Out { bytes: blocks * u64::from(block_length) }
            }
            Self::Series { series: Series::WriteSame { .. }, .. } => Transfer::Out { bytes: bytes(1) },
            Self::Series { series: Series::LbaStatus { allocation_length }, .. } => {
                Transfer::In { bytes: u64::from(allocation_length).min(LBA_STATUS_BYTES_MAX as u64) }
            }
            Self::Series {
                series: Series::PreFetch | Series::WriteZeroes { .. } | Series::Unmap, ..
            }
            | Self::Verify { compare: None, .. }
            | Self::Flush { .. } => Transfer::None,
        }
    }

    /// Bytes that the command moves over the wire, in either direction.
    pub fn transfer_bytes(&self, block_length: u32) -> u64 {
        match self.transfer(block_length) {
            Transfer::None => 0,
            Transfer::In { bytes } | Transfer::Out { bytes } => bytes,
        }
    }

    /// First block and number of blocks.
    pub fn range(&self) -> (Lba, u64) {
        match *self {
            Self::Read { lba, blocks, .. }
            | Self::Write { lba, blocks, .. }
            | Self::Atomic { lba, blocks, .. }
            | Self::Verify { lba, blocks, .. } => (lba, u64::from(blocks)),
            Self::Series { lba, blocks, .. } | Self::Flush { lba, blocks, .. } => (lba, blocks),
        }
    }

    /// The class under which [`LogicalUnit::recheck`] judges it.
    pub fn class(&self) -> CommandClass {
        match self {
            Self::Read { .. }
            | Self::Verify { .. }
            | Self::Series { series: Series::PreFetch | Series::LbaStatus { .. }, .. } => CommandClass::Read,
            Self::Write { .. } | Self::Series { .. } | Self::Atomic { .. } => CommandClass::Write,
            Self::Flush { .. } => CommandClass::Configure,
        }
    }
}

/// READ: a [`MediumCommand`], or `None` where there is nothing to read and GOOD is the answer.
pub(crate) fn read(
    unit: &LogicalUnit,
    extent: Extent,
    fua: bool,
    dpo: bool,
) -> Result<Option<MediumCommand>, Outcome> {
    let blocks = transferred(&unit.geometry, extent)?;
    Ok((blocks > 0).then_some(MediumCommand::Read { lba: extent.lba, blocks, fua, dpo }))
}

/// WRITE, likewise.
pub(crate) fn write(
    unit: &LogicalUnit,
    extent: Extent,
    fua: bool,
    dpo: bool,
) -> Result<Option<MediumCommand>, Outcome> {
    let blocks = transferred(&unit.geometry, extent)?;
    let fua = unit.mode.write_cache.must_be_stable(fua);
    Ok((blocks > 0).then_some(MediumCommand::Write { lba: extent.lba, blocks, fua, dpo }))
}

/// VERIFY, likewise. Only what travels is bound by the longest transfer (SBC-3 §6.6).
pub(crate) fn verify(
    unit: &LogicalUnit,
    extent: Extent,
    compare: Option<Compare>,
) -> Result<Option<MediumCommand>, Outcome> {
    let blocks = match compare {
        Some(Compare::EachBlock) => transferred(&unit.geometry, extent)?,
        Some(Compare::OneBlock) | None => {
            in_range(&unit.geometry, extent)?;
            extent.blocks
        }
    };
    Ok((blocks > 0).then_some(MediumCommand::Verify { lba: extent.lba, blocks, compare }))
}

/// WRITE AND VERIFY, likewise.
pub(crate) fn write_and_verify(
    unit: &LogicalUnit,
    extent: Extent,
    compare: bool,
) -> Result<Option<MediumCommand>, Outcome> {
    let blocks = u64::from(transferred(&unit.geometry, extent)?);
    let series = Series::WriteAndVerify { compare };
    Ok((blocks > 0).then_some(MediumCommand::Series { lba: extent.lba, blocks, series }))
}

/// PRE-FETCH. With IMMED it is a hint and no more, and the status does not wait for it (SBC-3 §5.9). No cache here promises
/// room for the blocks, so the status is GOOD and never CONDITION MET.
pub(crate) fn pre_fetch(
    unit: &LogicalUnit,
    extent: Extent,
    immediate: bool,
) -> Result<Option<MediumCommand>, Outcome> {
    let blocks = to_the_end_if_zero(&unit.geometry, extent)?;
    let fetch = MediumCommand::Series { lba: extent.lba, blocks, series: Series::PreFetch };
    Ok((!immediate).then_some(fetch))
}

/// MAXIMUM WRITE SAME LENGTH, blocks: as many as a WRITE takes.
pub(crate) fn write_same_blocks_max(geometry: &Geometry) -> u64 {
    u64::from(geometry.transfer_blocks_max())
}

/// WRITE SAME (SBC-3 §5.48). WSNZ is zero: zero blocks mean to the end. More than MAXIMUM WRITE SAME LENGTH is refused.
pub(crate) fn write_same(
    unit: &LogicalUnit,
    extent: Extent,
    unmap: bool,
    anchor: bool,
    no_data_out: bool,
) -> Result<MediumCommand, Outcome> {
    if anchor {
        // ANC_SUP is zero.
        return Err(Outcome::invalid_cdb_field(1, Some(4)));
    }
    if unmap && !unit.thin_provisioned {
        // LBPWS and LBPWS10 are zero.
        return Err(Outcome::invalid_cdb_field(1, Some(3)));
    }
    let blocks = to_the_end_if_zero(&unit.geometry, extent)?;
    if blocks > write_same_blocks_max(&unit.geometry) {
        return Err(Outcome::invalid_cdb_field(extent.length_at, None));
    }
    let series = if no_data_out { Series::WriteZeroes { unmap } } else { Series::WriteSame { unmap } };
    Ok(MediumCommand::Series { lba: extent.lba, blocks, series })
}

/// MAXIMUM COMPARE AND WRITE LENGTH, blocks: what the CDB can name, of which two travel for each.
pub(crate) fn compare_and_write_blocks_max(geometry: &Geometry) -> u8 {
    u8::try_from(geometry.transfer_blocks_max() / 2).unwrap_or(u8::MAX)
}

/// MAXIMUM ATOMIC TRANSFER LENGTH, blocks, where WRITE ATOMIC is served: whole physical blocks.
pub(crate) fn atomic_blocks_max(geometry: &Geometry) -> u32 {
    const ATOMIC_BLOCKS_MAX: u32 = 256;
    let granularity = atomic_granularity(geometry);
    let most = geometry.transfer_blocks_max().min(ATOMIC_BLOCKS_MAX);
    (most - most % granularity).max(granularity)
}

/// ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY, blocks, of media that promise no length of their own: a physical block is what is
/// written at once, and a part of one would not be (SBC-4 §4.29). Initiators that write in its units never meet this.
pub(crate) fn atomic_granularity(geometry: &Geometry) -> u32 {
    1 << geometry.physical_block_exponent()
}

/// COMPARE AND WRITE (SBC-3 §5.2), ORWRITE (§5.7) or WRITE ATOMIC (SBC-4 §5.48), or `None` where it names no block.
pub(crate) fn atomic(unit: &LogicalUnit, atomic: Atomic) -> Result<Option<MediumCommand>, Outcome> {
    let Atomic { operation, extent, force_unit_access } = atomic;
    let geometry = &unit.geometry;
    in_range(geometry, extent)?;
    let blocks_max = match operation {
        AtomicOperation::CompareAndWrite => compare_and_write_blocks_max(geometry).into(),
        AtomicOperation::Or => geometry.transfer_blocks_max(),
        AtomicOperation::Write => atomic_blocks_max(geometry),
    };
    if extent.blocks > blocks_max {
        return Err(Outcome::invalid_cdb_field(extent.length_at, None));
    }
    if operation == AtomicOperation::Write {
        // ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY; media that promise one length have MAXIMUM ATOMIC TRANSFER
        // LENGTH the same.
        let (alignment, is_whole) = match unit.atomic_writes {
            AtomicWrites::Whole(whole) => (whole.get(), extent.blocks == whole.get()),
            AtomicWrites::Any | AtomicWrites::None => {
                let granularity = atomic_granularity(geometry);
                (granularity, extent.blocks.is_multiple_of(granularity))
            }
        };
        if !extent.lba.0.is_multiple_of(alignment.into()) {
            return Err(Outcome::invalid_cdb_field(ATOMIC_LBA_AT, None));
        }
        if extent.blocks != 0 && !is_whole {
            return Err(Outcome::invalid_cdb_field(extent.length_at, None));
        }
    }
    let fua = unit.mode.write_cache.must_be_stable(force_unit_access);
    let Extent { lba, blocks, .. } = extent;
    Ok((blocks > 0).then_some(MediumCommand::Atomic { lba, blocks, operation, fua }))
}

/// Where WRITE ATOMIC (16) has its LOGICAL BLOCK ADDRESS.
const ATOMIC_LBA_AT: u16 = 2;

/// MAXIMUM UNMAP LBA COUNT.
pub(crate) const UNMAP_BLOCKS_MAX: u32 = 1 << 20;
/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
pub(crate) const UNMAP_DESCRIPTORS_MAX: u32 = 256;
const UNMAP_HEADER_BYTES: usize = 8;
const UNMAP_DESCRIPTOR_BYTES: usize = 16;
const _: () = assert!(
    UNMAP_HEADER_BYTES + UNMAP_DESCRIPTORS_MAX as usize * UNMAP_DESCRIPTOR_BYTES
        <= crate::device_server::PARAMETER_BYTES_MAX
);

/// The UNMAP block descriptors of a parameter list: first block and number of blocks. One that is not all there is none
/// (SBC-3 §5.35.2).
pub fn unmap_descriptors(list: &[u8]) -> impl Iterator<Item = (Lba, u32)> {
    let claimed = list.get(2..4).map_or(0, |bytes| usize::from(be16(bytes, 0)));
    let descriptors = list.get(UNMAP_HEADER_BYTES..).unwrap_or_default();
    let (descriptors, _) =
        descriptors[..claimed.min(descriptors.len())].as_chunks::<UNMAP_DESCRIPTOR_BYTES>();
    descriptors.iter().map(|bytes| (Lba::read::<8>(bytes, 0), be32(bytes, 8)))
}

/// UNMAP with its parameter list, or `None` where it names no block.
pub(crate) fn unmap(unit: &LogicalUnit, list: &[u8]) -> Result<Option<MediumCommand>, Outcome> {
    if list.len() < UNMAP_HEADER_BYTES {
        return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let mut total = 0u64;
    let mut first = None;
    for (count, (lba, blocks)) in unmap_descriptors(list).enumerate() {
        if blocks > 0 || lba.0 > unit.geometry.blocks() {
            in_range(&unit.geometry, Extent { lba, blocks, length_at: 0 })?;
        }
        total += u64::from(blocks);
        if count >= UNMAP_DESCRIPTORS_MAX as usize || total > u64::from(UNMAP_BLOCKS_MAX) {
            return Err(Outcome::check(Sense::invalid_parameter(2, None)));
        }
        if blocks > 0 {
            first.get_or_insert((lba, u64::from(blocks)));
        }
    }
    Ok(first.map(|(lba, blocks)| MediumCommand::Series { lba, blocks, series: Series::Unmap }))
}

/// Bytes that one GET LBA STATUS looks at: it may report fewer blocks than there are (SBC-4 §5.6.1). So far it follows a run
/// of zeroes from its first block on; it goes no further than the piece in which something else is found. Who has room for one
/// descriptor asks what a place is like; who has room for more wants a map, and gets more of it.
const fn lba_status_surveyed_bytes(allocation_length: u32) -> u64 {
    const FIRST_BYTES: u64 = 1 << 20;
    const FURTHER_BYTES: u64 = 8 << 20;
    const SURVEYED_BYTES_MAX: u64 = 128 << 20;
    let further = (allocation_length.saturating_sub(8) / 16).saturating_sub(1);
    let bytes = FIRST_BYTES + FURTHER_BYTES * further as u64;
    if bytes < SURVEYED_BYTES_MAX { bytes } else { SURVEYED_BYTES_MAX }
}
const LBA_STATUS_DESCRIPTORS_MAX: usize = 255;
/// The longest parameter data of GET LBA STATUS.
pub const LBA_STATUS_BYTES_MAX: usize = 8 + 16 * LBA_STATUS_DESCRIPTORS_MAX;

/// GET LBA STATUS.
pub(crate) fn get_lba_status(
    unit: &LogicalUnit,
    lba: Lba,
    scan_blocks: u32,
    allocation_length: u32,
) -> Result<MediumCommand, Outcome> {
    let geometry = &unit.geometry;
    in_range(geometry, Extent { lba, blocks: 1, length_at: 2 })?;
    let blocks = lba_status_surveyed_bytes(allocation_length) / u64::from(geometry.block_length());
    let asked = if scan_blocks == 0 { u64::MAX } else { u64::from(scan_blocks) };
    let blocks = blocks.min(asked).min(geometry.blocks() - lba.0);
    Ok(MediumCommand::Series { lba, blocks, series: Series::LbaStatus { allocation_length } })
}

/// The parameter data of GET LBA STATUS (SBC-3 §5.4.2) for blocks from `lba` on, the first `before` of zeroes, then each as
/// `zeroes` says; written to `buffer`, which has [`LBA_STATUS_BYTES_MAX`] bytes. The bytes to send.
pub fn lba_status(
    lba: Lba,
    before: u32,
    zeroes: impl Iterator<Item = bool>,
    allocation_length: u32,
    buffer: &mut [u8],
) -> usize {
    const DEALLOCATED: u8 = 1;
    let mut end = 8;
    let mut last = None;
    if before > 0 {
        buffer[end..end + 8].copy_from_slice(&lba.0.to_be_bytes());
        buffer[end + 8..end + 12].copy_from_slice(&before.to_be_bytes());
        buffer[end + 12..end + 16].copy_from_slice(&[DEALLOCATED, 0, 0, 0]);
        end += 16;
        last = Some(true);
    }
    for (at, zero) in (lba.0 + u64::from(before)..).zip(zeroes) {
        if last != Some(zero) {
            if end == LBA_STATUS_BYTES_MAX {
                break;
            }
            buffer[end..end + 16].fill(0);
            buffer[end..end + 8].copy_from_slice(&at.to_be_bytes());
            buffer[end + 12] = if zero { DEALLOCATED } else { 0 };
            end += 16;
            last = Some(zero);
        }
        let blocks = be32(buffer, end - 8) + 1;
        buffer[end - 8..end - 4].copy_from_slice(&blocks.to_be_bytes());
    }
    let length = u32::try_from(end - 4).expect("bounded by LBA_STATUS_BYTES_MAX");
    buffer[..4].copy_from_slice(&length.to_be_bytes());
    buffer[4..8].fill(0);
    end.min(usize::try_from(allocation_length).unwrap_or(usize::MAX))
}

/// SYNCHRONIZE CACHE, or `None` where there is no volatile cache. Zero blocks mean to the end (SBC-3 §5.30).
pub(crate) fn synchronize(
    unit: &LogicalUnit,
    extent: Extent,
    immediate: bool,
) -> Result<Option<MediumCommand>, Outcome> {
    let blocks = to_the_end_if_zero(&unit.geometry, extent)?;
    let flushes = unit.mode.write_cache.flushes();
    Ok(flushes.then_some(MediumCommand::Flush { lba: extent.lba, blocks, immediate }))
}

/// Everything that the unit holds, as START STOP UNIT flushes it; `None` where there is no volatile cache.
pub(crate) fn flush_all(unit: &LogicalUnit, immediate: bool) -> Option<MediumCommand> {
    let flush = MediumCommand::Flush { lba: Lba(0), blocks: unit.geometry.blocks(), immediate };
    unit.mode.write_cache.flushes().then_some(flush)
}

/// SEND DIAGNOSTIC's default self-test (SPC-4 §6.42): the way to the medium and back, over its first block.
pub(crate) const SELF_TEST: MediumCommand = MediumCommand::Verify { lba: Lba(0), blocks: 1, compare: None };

/// The number of blocks, after the checks that a command with data passes.
fn transferred(geometry: &Geometry, extent: Extent) -> Result<u32, Outcome> {
    in_range(geometry, extent)?;
    if extent.blocks > geometry.transfer_blocks_max() {
        // SBC-3 §6.6: beyond MAXIMUM TRANSFER LENGTH, the field is invalid.
        return Err(Outcome::invalid_cdb_field(extent.length_at, None));
    }
    Ok(extent.blocks)
}

/// The number of blocks of a command for which zero means to the end.
fn to_the_end_if_zero(geometry: &Geometry, extent: Extent) -> Result<u64, Outcome> {
    in_range(geometry, extent)?;
    let rest = geometry.blocks() - extent.lba.0;
    Ok(if extent.blocks == 0 { rest } else { u64::from(extent.blocks) })
}

/// An LBA names a block of the unit even where no block is asked for (SBC-3 §4.5.1); zero blocks are no error.
fn in_range(geometry: &Geometry, extent: Extent) -> Result<(), Outcome> {
    let capacity = geometry.blocks();
    let Lba(first) = extent.lba;
    match first.checked_add(u64::from(extent.blocks)) {
        Some(end) if first < capacity && end <= capacity => Ok(()),
        _ => Err(Outcome::out_of_range(first.max(capacity))),
    }
}
