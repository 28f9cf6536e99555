//! Commands that reach the medium: what is checked before they do (SBC-3 §4.5, §5), and what is left to do.

use crate::cdb::{Compare, Extent};
use crate::reservation::CommandClass;
use crate::sense::Outcome;
use crate::unit::{Geometry, Lba, LogicalUnit};

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
    WriteSame,
    /// Make every block zero.
    WriteZeroes,
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
            Self::Series { series: Series::WriteAndVerify { .. }, blocks, .. } => {
                Transfer::Out { bytes: blocks * u64::from(block_length) }
            }
            Self::Series { series: Series::WriteSame, .. } => Transfer::Out { bytes: bytes(1) },
            Self::Series { series: Series::PreFetch | Series::WriteZeroes, .. }
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
            | Self::Verify { lba, blocks, .. } => (lba, u64::from(blocks)),
            Self::Series { lba, blocks, .. } | Self::Flush { lba, blocks, .. } => (lba, blocks),
        }
    }

    /// The class under which [`LogicalUnit::recheck`] judges it.
    pub fn class(&self) -> CommandClass {
        match self {
            Self::Read { .. } | Self::Verify { .. } | Self::Series { series: Series::PreFetch, .. } => {
                CommandClass::Read
            }
            Self::Write { .. } | Self::Series { .. } => CommandClass::Write,
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

/// VERIFY, likewise. Only what travels is bound by the longest transfer (SBC-3 §6.6.4).
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

/// Bytes that one WRITE SAME writes at most.
const WRITE_SAME_BYTES_MAX: u64 = 4 << 30;

/// MAXIMUM WRITE SAME LENGTH, blocks.
pub(crate) fn write_same_blocks_max(geometry: &Geometry) -> u64 {
    WRITE_SAME_BYTES_MAX / u64::from(geometry.block_length())
}

/// WRITE SAME (SBC-3 §5.48). WSNZ is one: zero blocks are refused, and so is more than MAXIMUM WRITE SAME LENGTH.
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
    if unmap {
        return Err(Outcome::invalid_cdb_field(1, Some(3)));
    }
    in_range(&unit.geometry, extent)?;
    let blocks = u64::from(extent.blocks);
    if blocks == 0 || blocks > write_same_blocks_max(&unit.geometry) {
        return Err(Outcome::invalid_cdb_field(extent.length_at, None));
    }
    let series = if no_data_out { Series::WriteZeroes } else { Series::WriteSame };
    Ok(MediumCommand::Series { lba: extent.lba, blocks, series })
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

/// The number of blocks, after the checks that a command with data passes.
fn transferred(geometry: &Geometry, extent: Extent) -> Result<u32, Outcome> {
    in_range(geometry, extent)?;
    if extent.blocks > geometry.transfer_blocks_max() {
        // SBC-3 §6.6.4: beyond MAXIMUM TRANSFER LENGTH, the field is invalid.
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
