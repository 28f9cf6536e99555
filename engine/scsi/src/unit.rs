//! A logical unit as a shard sees it: plain data, replaced as a whole by an Install, never changed in place.
//!
//! The original lives with the single writer ([`crate::original`]); everything here is a copy with a generation.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::alua::{Access, TargetPortGroups};
use crate::bits::{PERIPHERAL_DISK, PERIPHERAL_DISK_NOT_CONNECTED, PERIPHERAL_NOT_CONNECTED, be};
use crate::identity::Identity;
use crate::reservation::{CommandClass, NexusId, Reservation};
use crate::sense::{AdditionalSense, Outcome, Sense, SenseFormat, SenseKey};
use crate::space::Space;
use crate::work::WorkKind;

/// Whether the unit can be accessed now, and if not, what an initiator is told (SPC-4 §5.11, table 58).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Readiness {
    /// Medium commands are served.
    #[default]
    Ready,
    /// The device is being opened, or a drain has not ended: 04/01.
    BecomingReady,
    /// A person must decide, as with a damaged ledger: 04/03.
    InterventionRequired,
    /// Something else is wrong: 04/00.
    CauseNotReportable,
    /// A removable medium was ejected: 3A/00.
    MediumNotPresent,
    /// All of the medium is being worked on: 04/1B or 04/04, with the progress in parts of 65536.
    UnderWay(WorkKind, u16),
    /// Such work began and did not end well: 31/03 or 31/00.
    WorkFailed(WorkKind),
}

impl Readiness {
    /// Sense data of a command that needs the unit ready; `None` when it is.
    #[inline]
    pub const fn sense(self) -> Option<Sense> {
        let additional = match self {
            Self::Ready => return None,
            Self::BecomingReady => AdditionalSense::BECOMING_READY,
            Self::InterventionRequired => AdditionalSense::MANUAL_INTERVENTION_REQUIRED,
            Self::CauseNotReportable => AdditionalSense::NOT_READY_CAUSE_NOT_REPORTABLE,
            Self::MediumNotPresent => AdditionalSense::MEDIUM_NOT_PRESENT,
            Self::UnderWay(kind, progress) => return Some(kind.under_way(progress)),
            Self::WorkFailed(kind) => return Some(kind.failed_before()),
        };
        Some(Sense::new(SenseKey::NotReady, additional))
    }
}

/// Size and shape of the medium (SBC-3 §4.5, §6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_length: u32,
    blocks: u64,
    physical_block_exponent: u8,
    transfer_blocks_max: u32,
    optimal_transfer_blocks: u32,
}

/// Why a [`Geometry`] cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// Logical blocks must be a power of two from 512 to 65536 bytes.
    BlockLength(u32),
    /// A unit has at least one block, and fewer bytes than 2⁶³.
    Blocks(u64),
    /// A physical block has at most 2¹⁵ logical ones (READ CAPACITY (16) has four bits for it).
    PhysicalBlockExponent(u8),
    /// The longest transfer holds at least one block.
    TransferBytes(u32),
}

impl std::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BlockLength(length) => {
                write!(f, "a block of {length} bytes: it must be a power of two from 512 to 65536")
            }
            Self::Blocks(blocks) => {
                write!(f, "{blocks} blocks: there must be at least one and fewer than 2^63 bytes")
            }
            Self::PhysicalBlockExponent(exponent) => {
                write!(f, "2^{exponent} logical blocks per physical one: at most 2^15")
            }
            Self::TransferBytes(bytes) => {
                write!(f, "a longest transfer of {bytes} bytes is shorter than a block")
            }
        }
    }
}

impl std::error::Error for GeometryError {}

/// SCST's opt_trans_len, bytes.
const OPTIMAL_TRANSFER_BYTES: u32 = 512 * 1024;

impl Geometry {
    /// `blocks` logical blocks of `block_length` bytes, 2^`physical_block_exponent` of them in a physical block, and at
    /// most `transfer_bytes_max` bytes in one command.
    ///
    /// # Errors
    /// The bound that one of the numbers breaks.
    pub fn new(
        block_length: u32,
        blocks: u64,
        physical_block_exponent: u8,
        transfer_bytes_max: u32,
    ) -> Result<Self, GeometryError> {
        if !block_length.is_power_of_two() || !(512..=65536).contains(&block_length) {
            return Err(GeometryError::BlockLength(block_length));
        }
        let bytes = blocks.checked_mul(u64::from(block_length));
        if blocks == 0 || bytes.is_none_or(|bytes| i64::try_from(bytes).is_err()) {
            return Err(GeometryError::Blocks(blocks));
        }
        if physical_block_exponent > 15 {
            return Err(GeometryError::PhysicalBlockExponent(physical_block_exponent));
        }
        let transfer_blocks_max = transfer_bytes_max / block_length;
        if transfer_blocks_max == 0 {
            return Err(GeometryError::TransferBytes(transfer_bytes_max));
        }
        let optimal_transfer_blocks = (OPTIMAL_TRANSFER_BYTES / block_length).min(transfer_blocks_max);
        Ok(Self {
            block_length,
            blocks,
            physical_block_exponent,
            transfer_blocks_max,
            optimal_transfer_blocks,
        })
    }

    /// The same with another OPTIMAL TRANSFER LENGTH (scst.conf's `opt_trans_len`), cut to what a command may move.
    pub fn with_optimal_transfer_bytes(mut self, bytes: u32) -> Self {
        self.optimal_transfer_blocks = (bytes / self.block_length).min(self.transfer_blocks_max);
        self
    }

    /// Bytes in a logical block.
    pub const fn block_length(&self) -> u32 {
        self.block_length
    }

    /// Logical blocks of the unit.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
    pub const fn physical_block_exponent(&self) -> u8 {
        self.physical_block_exponent
    }

    /// MAXIMUM TRANSFER LENGTH, blocks.
    pub const fn transfer_blocks_max(&self) -> u32 {
        self.transfer_blocks_max
    }

    /// OPTIMAL TRANSFER LENGTH, blocks.
    pub const fn optimal_transfer_blocks(&self) -> u32 {
        self.optimal_transfer_blocks
    }
}

/// Where a write is when GOOD is sent, and what SYNCHRONIZE CACHE does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WriteCache {
    /// WCE 1: in a volatile cache until flushed, or at once with FUA.
    #[default]
    WriteBack,
    /// WCE 0: every write is on stable storage before GOOD.
    WriteThrough,
    /// WCE 0 and no flush: an administrator vouches for the power (`nv_cache 1`), or there is nothing to keep.
    NonVolatile,
}

impl WriteCache {
    /// WCE of the caching mode page.
    pub const fn enabled(self) -> bool {
        matches!(self, Self::WriteBack)
    }

    /// Whether a write with this FUA bit must be stable before GOOD.
    pub const fn must_be_stable(self, force_unit_access: bool) -> bool {
        match self {
            Self::WriteBack => force_unit_access,
            Self::WriteThrough => true,
            Self::NonVolatile => false,
        }
    }

    /// Whether SYNCHRONIZE CACHE reaches the medium.
    pub const fn flushes(self) -> bool {
        !matches!(self, Self::NonVolatile)
    }
}

/// What MODE SELECT may change: the values behind the mode pages (SPC-4 §7.5, SBC-3 §6.5).
///
/// TST is 001b, one task set per I_T nexus, and no value here: it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ModeValues {
    /// D_SENSE: sense data goes out in descriptor format.
    pub descriptor_sense: bool,
    /// SWP: software write protect.
    pub software_write_protect: bool,
    /// QERR: what a CHECK CONDITION does to the other commands of its task set.
    pub queue_error: QueueError,
    /// TAS: commands that another nexus aborts end with TASK ABORTED, and not without a word.
    pub task_aborted_status: bool,
    /// Write cache, of which MODE SELECT changes WCE.
    pub write_cache: WriteCache,
}

impl ModeValues {
    /// The format in which sense data goes out.
    pub const fn sense_format(&self) -> SenseFormat {
        if self.descriptor_sense { SenseFormat::Descriptor } else { SenseFormat::Fixed }
    }
}

/// QERR (SPC-4 §7.5.8). The task set is that of one I_T nexus, so that 01b, all of it, and 11b, what of it is of the nexus
/// that got the CHECK CONDITION, do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QueueError {
    /// 00b: nothing; an ACA blocks them as long as it lasts.
    #[default]
    Resume,
    /// 01b: they are aborted.
    AbortAll,
    /// 11b: those of the nexus are aborted.
    AbortNexus,
}

impl QueueError {
    /// The two bits.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Resume => 0b00,
            Self::AbortAll => 0b01,
            Self::AbortNexus => 0b11,
        }
    }

    /// What the two bits say; 10b is reserved.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0b00 => Some(Self::Resume),
            0b01 => Some(Self::AbortAll),
            0b11 => Some(Self::AbortNexus),
            _ => None,
        }
    }

    /// Whether the others are aborted.
    pub const fn aborts(self) -> bool {
        !matches!(self, Self::Resume)
    }
}

/// What MODE SELECT with SP saved: it outlives resets, restarts and power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedModes {
    /// The values, which were current then.
    pub values: ModeValues,
    /// The write cache that the configuration gave the unit then. Where it gives another one now, that one counts.
    pub configured: WriteCache,
}

impl SavedModes {
    /// The saved values of a unit with these defaults.
    pub fn of(saved: Option<Self>, default: ModeValues) -> ModeValues {
        match saved {
            None => default,
            Some(Self { values, configured }) if configured == default.write_cache => values,
            Some(Self { values, .. }) => ModeValues { write_cache: default.write_cache, ..values },
        }
    }
}

/// What one MODE SELECT changes: whole pages, as the standard has it, so that two of them that name different pages and
/// cross each other on the way to the single writer both take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ModeChange {
    /// From the caching page.
    pub write_cache: Option<WriteCache>,
    /// From the control page.
    pub control: Option<ControlValues>,
    /// SP: the values of all pages that can be saved are saved afterwards (SPC-4 §6.11).
    pub save: bool,
}

/// The changeable values of the control mode page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlValues {
    /// D_SENSE.
    pub descriptor_sense: bool,
    /// SWP.
    pub software_write_protect: bool,
    /// QERR.
    pub queue_error: QueueError,
    /// TAS.
    pub task_aborted_status: bool,
}

impl ModeChange {
    /// `values` with this change made.
    pub fn applied_to(&self, mut values: ModeValues) -> ModeValues {
        values.write_cache = self.write_cache.unwrap_or(values.write_cache);
        if let Some(control) = self.control {
            values.descriptor_sense = control.descriptor_sense;
            values.software_write_protect = control.software_write_protect;
            values.queue_error = control.queue_error;
            values.task_aborted_status = control.task_aborted_status;
        }
        values
    }
}

/// What WRITE ATOMIC may write (SBC-4 §4.29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicWrites {
    /// Nothing: it is not served.
    None,
    /// What any WRITE may.
    Any,
    /// So many blocks, no more and no fewer, at a multiple of as many.
    Whole(NonZeroU32),
}

/// A shard's replica of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalUnit {
    /// Counts the Installs of this unit.
    pub generation: u64,
    /// Who it says it is.
    pub identity: Identity,
    /// Size and shape.
    pub geometry: Geometry,
    /// Current mode values.
    pub mode: ModeValues,
    /// Default mode values: the configuration's.
    pub mode_default: ModeValues,
    /// Saved mode values, which a reset restores; the default ones as long as nothing was saved.
    pub mode_saved: ModeValues,
    /// Never written, whatever mode pages say (`read_only 1`).
    pub read_only: bool,
    /// VPD B1 reports a disk that spins.
    pub rotational: bool,
    /// Backed by less than it shows.
    pub thin_provisioned: bool,
    /// Which writes of it are torn neither by another command nor by a loss of power.
    pub atomic_writes: AtomicWrites,
    /// What the pool below a thin unit has; `None` where nobody can tell.
    pub space: Option<Space>,
    /// RMB: the medium can be ejected.
    pub removable: bool,
    /// No disk, for initiators that want something at LUN 0: INQUIRY tells of a unit without a device (SCST's `dummy 1`).
    pub dummy: bool,
    /// Whether it can be accessed.
    pub readiness: Readiness,
    /// Who may access it.
    pub reservation: Reservation,
    /// By which target ports it can be reached how; `None` for all alike.
    pub target_port_groups: Option<Arc<TargetPortGroups>>,
}

impl LogicalUnit {
    /// A unit in its first generation: ready, unreserved, a fixed medium on rotating storage (SCST's default).
    pub fn new(identity: Identity, geometry: Geometry, write_cache: WriteCache) -> Self {
        let mode = ModeValues { write_cache, ..ModeValues::default() };
        Self {
            generation: 1,
            identity,
            geometry,
            mode,
            mode_default: mode,
            mode_saved: mode,
            read_only: false,
            rotational: true,
            thin_provisioned: false,
            atomic_writes: AtomicWrites::None,
            space: None,
            removable: false,
            dummy: false,
            readiness: Readiness::Ready,
            reservation: Reservation::None,
            target_port_groups: None,
        }
    }

    /// PERIPHERAL QUALIFIER and PERIPHERAL DEVICE TYPE. By a port that is unavailable or offline no device is connected
    /// (SPC-4 §5.15.2.4.5).
    pub(crate) fn peripheral(&self, port: u16) -> u8 {
        let groups = self.target_port_groups.as_ref();
        if self.dummy {
            PERIPHERAL_NOT_CONNECTED
        } else if groups.is_some_and(|groups| groups.state_of(port).disconnects()) {
            PERIPHERAL_DISK_NOT_CONNECTED
        } else {
            PERIPHERAL_DISK
        }
    }

    /// The format in which this unit's sense data goes out.
    pub const fn sense_format(&self) -> SenseFormat {
        self.mode.sense_format()
    }

    /// Why a write is refused, if it is.
    #[inline]
    pub const fn write_protection(&self) -> Option<Outcome> {
        let additional = if self.read_only {
            AdditionalSense::WRITE_PROTECTED
        } else if self.mode.software_write_protect {
            AdditionalSense::SOFTWARE_WRITE_PROTECTED
        } else {
            return None;
        };
        Some(Outcome::check(Sense::new(SenseKey::DataProtect, additional)))
    }

    /// Whether a command may come by this target port.
    ///
    /// # Errors
    /// NOT READY, with the state of the port.
    #[inline]
    pub fn pass(&self, port: u16, access: Access) -> Result<(), Outcome> {
        self.target_port_groups.as_ref().map_or(Ok(()), |groups| groups.pass(port, access))
    }

    /// Whether what is shared between nexuses lets a command of `class` from `me`, which comes by `port`, have the medium.
    ///
    /// # Errors
    /// The outcome with which the task ends instead.
    #[inline]
    pub fn admits(&self, me: NexusId, port: u16, class: CommandClass) -> Result<(), Outcome> {
        if !self.reservation.admits(me, class) {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        self.pass(port, Access::Active)
    }

    /// Whether a command of `class` from `me`, which comes by `port`, may touch the medium under this replica: the check
    /// that is made again each time a piece of a task is handed to the medium.
    ///
    /// # Errors
    /// The outcome with which the task ends instead.
    #[inline]
    pub fn recheck(&self, me: NexusId, port: u16, class: CommandClass) -> Result<(), Outcome> {
        self.admits(me, port, class)?;
        if let Some(sense) = self.readiness.sense() {
            return Err(Outcome::check(sense));
        }
        match self.write_protection() {
            Some(refusal) if class == CommandClass::Write => Err(refusal),
            _ => Ok(()),
        }
    }
}

/// A logical block address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lba(pub u64);

impl Lba {
    /// The field of `N` bytes at `at`.
    pub(crate) fn read<const N: usize>(cdb: &[u8], at: usize) -> Self {
        Self(be::<N>(cdb, at))
    }
}

impl std::fmt::Display for Lba {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
