//! What the benchmarks work on: PDUs, CDBs and a unit as they occur on the data path, and the servers to compare with.
//!
//! `benches/` take the time of single steps and of whole turns of a shard with criterion (`cargo bench --package
//! portico-bench`); [`world`] is where those turns happen, and where `cargo xtask instructions` counts. [`floor`] holds what
//! `portico-floor` serves. Whole runs beside other targets are `cargo xtask bench`, whose records lie in `perf-results/`.

pub mod floor;
pub mod world;

use portico_iscsi::sn::{CmdSn, DataSn, StatSn};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, DataIn, DataInStatus, InitiatorTaskTag, LunField, Residual, ScsiCommand,
    TargetTransferTag, TaskAttribute,
};
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::unit::{Geometry, LogicalUnit, WriteCache};

/// READ(10) of 8 blocks.
pub const READ_10: [u8; 16] = [0x28, 0, 0, 0, 0x10, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];

/// The header of a SCSI Command PDU with [`READ_10`].
#[must_use]
pub fn read_command() -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    ScsiCommand {
        immediate: false,
        is_final: true,
        read: true,
        write: false,
        attribute: TaskAttribute::Simple,
        priority: 0,
        total_ahs_words: 0,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(7),
        expected_data_transfer_length: 4096,
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(1),
        cdb: READ_10,
    }
    .emit(&mut bhs);
    bhs
}

/// The Data-In PDU that answers it, status and all.
#[must_use]
pub fn data_in() -> DataIn {
    DataIn {
        is_final: true,
        acknowledge: false,
        data_segment_length: 4096,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(7),
        target_transfer_tag: TargetTransferTag::RESERVED,
        status: Some(DataInStatus { status: 0, stat_sn: StatSn(1), residual: Residual::None }),
        expected_cmd_sn: CmdSn(2),
        maximum_cmd_sn: CmdSn(33),
        data_sn: DataSn(0),
        buffer_offset: 0,
    }
}

/// A disk of 1 GiB.
///
/// # Panics
/// Never: its numbers are within all bounds.
#[must_use]
pub fn disk() -> LogicalUnit {
    let identity = Identity::new(&IdentityOptions::new(0, "disk", Handler::FileIo)).expect("a plain name");
    let geometry = Geometry::new(512, 1 << 21, 3, 1 << 20).expect("a plain disk");
    LogicalUnit::new(identity, geometry, WriteCache::WriteBack)
}
