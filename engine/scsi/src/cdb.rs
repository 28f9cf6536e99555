//! CDBs as typed commands (SPC-4 §4.2, SBC-3 §5): parsed once here, well formed ever after.
//!
//! Which bits a CDB may have is the opcode table's business; the fields' meaning is this file's. Ranges are not checked
//! here, for they depend on the unit.

use crate::bits::{be16, be32};
use crate::block::AtomicOperation;
use crate::copy_results::CopyResults;
use crate::opcodes::{Decoder, Opcode};
use crate::persistent::ScopeType;
use crate::sense::Outcome;
use crate::unit::Lba;

/// Blocks that a command names, as its CDB has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub lba: Lba,
    /// How many; for SYNCHRONIZE CACHE zero means to the end.
    pub blocks: u32,
    /// Index of the CDB's byte where the number of blocks begins.
    pub length_at: u16,
}

/// What VERIFY compares (BYTCHK, SBC-3 §5.37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// 01b: each block with its own data-out.
    EachBlock,
    /// 11b: each block with the one block of data-out.
    OneBlock,
}

/// A command that has its blocks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atomic {
    /// What it does with them.
    pub operation: AtomicOperation,
    /// Which.
    pub extent: Extent,
    /// FUA.
    pub force_unit_access: bool,
}

/// Which set of values MODE SENSE returns (PC, SPC-4 table 136).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// 00b.
    Current,
    /// 01b: a mask of what MODE SELECT may change.
    Changeable,
    /// 10b.
    Default,
    /// 11b.
    Saved,
}

/// MODE SENSE, either length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// The 10-byte command, with the 8-byte header.
    pub long_header: bool,
    /// DBD: no block descriptor.
    pub disable_block_descriptors: bool,
    /// LLBAA: a long block descriptor is welcome.
    pub long_lba_accepted: bool,
    /// Which values.
    pub control: PageControl,
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// ALLOCATION LENGTH.
    pub allocation_length: u16,
}

/// LOG SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSense {
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// PARAMETER POINTER.
    pub pointer: u16,
    /// ALLOCATION LENGTH.
    pub allocation_length: u16,
}

/// SERVICE ACTION of SANITIZE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sanitizing {
    /// OVERWRITE, with its PARAMETER LIST LENGTH.
    Overwrite(u16),
    /// BLOCK ERASE.
    BlockErase,
    /// EXIT FAILURE MODE.
    ExitFailureMode,
}

/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-4 table 256).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporting {
    /// 000b: all commands.
    All,
    /// 001b: one that has no service actions.
    OperationCode,
    /// 010b: one that has.
    ServiceAction,
    /// 011b: one of either kind.
    Either,
}

/// A command that is served, with its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// DESC: descriptor format.
        descriptor: bool,
        /// ALLOCATION LENGTH.
        allocation_length: u8,
    },
    /// INQUIRY; with the page code where EVPD is one.
    Inquiry {
        /// The VPD page, `None` for standard data.
        vital_product_data: Option<u8>,
        /// ALLOCATION LENGTH.
        allocation_length: u16,
    },
    /// READ.
    Read {
        /// What.
        extent: Extent,
        /// FUA.
        force_unit_access: bool,
        /// DPO.
        disable_page_out: bool,
    },
    /// WRITE.
    Write {
        /// Where.
        extent: Extent,
        /// FUA.
        force_unit_access: bool,
        /// DPO.
        disable_page_out: bool,
    },
    /// VERIFY.
    Verify {
        /// What.
        extent: Extent,
        /// With what, `None` for a check of the medium alone.
        compare: Option<Compare>,
    },
    /// WRITE AND VERIFY.
    WriteAndVerify {
        /// Where.
        extent: Extent,
        /// BYTCHK 01b: what is read back is compared with the data-out.
        compare: bool,
    },
    /// PRE-FETCH.
    PreFetch {
        /// What; zero blocks mean to the end.
        extent: Extent,
        /// IMMED: the status as soon as the CDB is checked.
        immediate: bool,
    },
    /// WRITE SAME.
    WriteSame {
        /// Where.
        extent: Extent,
        /// UNMAP: the blocks may be given back where they are to be zero.
        unmap: bool,
        /// ANCHOR.
        anchor: bool,
        /// NDOB: there is no data-out, the blocks are to be zero.
        no_data_out: bool,
    },
    /// COMPARE AND WRITE, ORWRITE or WRITE ATOMIC.
    Atomic(Atomic),
    /// UNMAP.
    Unmap {
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u16,
    },
    /// GET LBA STATUS.
    GetLbaStatus {
        /// STARTING LOGICAL BLOCK ADDRESS.
        lba: Lba,
        /// SCAN LENGTH; zero is no limit, as in the 16-byte command, which has none.
        scan_blocks: u32,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// SYNCHRONIZE CACHE.
    SynchronizeCache {
        /// What; zero blocks mean to the end.
        extent: Extent,
        /// IMMED: GOOD as soon as the CDB is checked.
        immediate: bool,
    },
    /// MODE SENSE.
    ModeSense(ModeSense),
    /// MODE SELECT.
    ModeSelect {
        /// The 10-byte command, with the 8-byte header.
        long_header: bool,
        /// SP: save the values of all pages.
        save: bool,
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u16,
    },
    /// LOG SENSE.
    LogSense(LogSense),
    /// SEND DIAGNOSTIC.
    SendDiagnostic {
        /// SELFTEST: the default self-test.
        self_test: bool,
    },
    /// READ DEFECT DATA.
    ReadDefectData {
        /// The 12-byte command, with the 8-byte header.
        long_header: bool,
        /// REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT.
        lists: u8,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// SANITIZE.
    Sanitize {
        /// SERVICE ACTION.
        action: Sanitizing,
        /// IMMED: the status does not wait for the end.
        immediate: bool,
        /// AUSE: a failure may be left by EXIT FAILURE MODE.
        unrestricted: bool,
    },
    /// FORMAT UNIT.
    FormatUnit {
        /// FMTDATA: a parameter list comes along.
        data: bool,
        /// LONGLIST: with the longer header.
        long_list: bool,
    },
    /// READ CAPACITY (10).
    ReadCapacity10,
    /// READ CAPACITY (16).
    ReadCapacity16 {
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// SELECT REPORT.
        select: u8,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// EXTENDED COPY.
    ExtendedCopy {
        /// LID4: the list identifier has four bytes.
        long: bool,
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// POPULATE TOKEN.
    PopulateToken {
        /// LIST IDENTIFIER.
        list_id: u32,
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// WRITE USING TOKEN.
    WriteUsingToken {
        /// LIST IDENTIFIER.
        list_id: u32,
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// COPY OPERATION ABORT.
    CopyOperationAbort {
        /// LIST IDENTIFIER.
        list_id: u32,
    },
    /// RECEIVE COPY STATUS and the like, of one copy.
    ReceiveCopyResults {
        /// Which of them.
        results: CopyResults,
        /// LIST IDENTIFIER.
        list_id: u32,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// RECEIVE COPY OPERATING PARAMETERS.
    ReceiveCopyOperatingParameters {
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// REPORT TARGET PORT GROUPS.
    ReportTargetPortGroups {
        /// PARAMETER DATA FORMAT 001b: with the extended header.
        extended: bool,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// SET TARGET PORT GROUPS.
    SetTargetPortGroups {
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// RESERVE (6) and (10).
    Reserve,
    /// RELEASE (6) and (10).
    Release,
    /// PERSISTENT RESERVE IN.
    PersistentReserveIn {
        /// SERVICE ACTION.
        service_action: u8,
        /// ALLOCATION LENGTH.
        allocation_length: u16,
    },
    /// PERSISTENT RESERVE OUT.
    PersistentReserveOut {
        /// SERVICE ACTION.
        service_action: u8,
        /// SCOPE and TYPE.
        scope_type: ScopeType,
        /// PARAMETER LIST LENGTH.
        parameter_list_length: u32,
    },
    /// START STOP UNIT.
    StartStopUnit {
        /// IMMED.
        immediate: bool,
        /// POWER CONDITION.
        power_condition: u8,
        /// NO_FLUSH.
        no_flush: bool,
        /// LOEJ: load or eject.
        load_eject: bool,
        /// START.
        start: bool,
    },
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventAllow {
        /// Removal is prevented.
        prevent: bool,
    },
    /// REPORT SUPPORTED OPERATION CODES.
    ReportSupportedOperationCodes {
        /// REPORTING OPTIONS.
        reporting: Reporting,
        /// RCTD: with timeouts descriptors.
        timeouts: bool,
        /// REQUESTED OPERATION CODE.
        operation_code: u8,
        /// REQUESTED SERVICE ACTION.
        service_action: u16,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportSupportedTaskManagementFunctions {
        /// REPD: the extended form.
        extended: bool,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
}

const DPO: u8 = 0x10;
const FUA: u8 = 0x08;
const IMMED: u8 = 0x02;

/// The command in `cdb`, which is of `row`. Bytes beyond the row's CDB length are not looked at: iSCSI pads CDBs to 16.
///
/// # Errors
/// INVALID FIELD IN CDB, pointing at the field.
pub(crate) fn decode(row: &Opcode, cdb: &[u8]) -> Result<Command, Outcome> {
    let padded = cdb;
    let Some(cdb) = cdb.get(..row.usage.len()) else {
        // The CDB ends before its fields do: point at the first that is missing.
        return Err(Outcome::invalid_cdb_field(u16::try_from(cdb.len()).unwrap_or(u16::MAX), None));
    };
    if let Some((byte, bit)) = row.reserved_bit(padded) {
        return Err(Outcome::invalid_cdb_field(byte, Some(bit)));
    }
    Ok(match row.decoder {
        Decoder::Read6 | Decoder::Read10 | Decoder::Read12 | Decoder::Read16 => read(cdb),
        Decoder::Write6 | Decoder::Write10 | Decoder::Write12 | Decoder::Write16 => write(cdb),
        Decoder::Verify10 | Decoder::Verify12 | Decoder::Verify16 => verify(cdb)?,
        Decoder::WriteAndVerify => write_and_verify(cdb)?,
        Decoder::PreFetch => Command::PreFetch { extent: extent(cdb), immediate: cdb[1] & IMMED != 0 },
        Decoder::WriteSame => Command::WriteSame {
            extent: extent(cdb),
            unmap: cdb[1] & 0x08 != 0,
            anchor: cdb[1] & 0x10 != 0,
            no_data_out: cdb[1] & 0x01 != 0,
        },
        Decoder::CompareAndWrite | Decoder::OrWrite | Decoder::WriteAtomic => {
            Command::Atomic(atomic(row, cdb))
        }
        Decoder::Unmap => Command::Unmap { parameter_list_length: be16(cdb, 7) },
        Decoder::GetLbaStatus => get_lba_status(cdb)?,
        Decoder::SynchronizeCache10 | Decoder::SynchronizeCache16 => {
            Command::SynchronizeCache { extent: extent(cdb), immediate: cdb[1] & IMMED != 0 }
        }
        Decoder::ReadCapacity10 => Command::ReadCapacity10,
        Decoder::ReadCapacity16 => Command::ReadCapacity16 { allocation_length: be32(cdb, 10) },
        Decoder::TestUnitReady => Command::TestUnitReady,
        Decoder::RequestSense => {
            Command::RequestSense { descriptor: cdb[1] & 0x01 != 0, allocation_length: cdb[4] }
        }
        Decoder::Inquiry => inquiry(cdb)?,
        Decoder::ModeSense6 | Decoder::ModeSense10 => Command::ModeSense(mode_sense(cdb)),
        Decoder::ModeSelect6 => mode_select(cdb, u16::from(cdb[4])),
        Decoder::ModeSelect10 => mode_select(cdb, be16(cdb, 7)),
        Decoder::LogSense => log_sense(cdb),
        Decoder::SendDiagnostic => Command::SendDiagnostic { self_test: cdb[1] & 0x04 != 0 },
        Decoder::ReadDefectData => read_defect_data(cdb)?,
        Decoder::Sanitize => sanitize(cdb),
        Decoder::FormatUnit => {
            Command::FormatUnit { data: cdb[1] & 0x10 != 0, long_list: cdb[1] & 0x20 != 0 }
        }
        Decoder::ReportLuns => Command::ReportLuns { select: cdb[2], allocation_length: be32(cdb, 6) },
        Decoder::ExtendedCopy
        | Decoder::PopulateToken
        | Decoder::WriteUsingToken
        | Decoder::CopyOperationAbort
        | Decoder::ReceiveCopyResults
        | Decoder::ReceiveCopyOperatingParameters => third_party(row, cdb),
        Decoder::ReportTargetPortGroups => report_target_port_groups(cdb)?,
        Decoder::SetTargetPortGroups => Command::SetTargetPortGroups { parameter_list_length: be32(cdb, 6) },
        Decoder::Reserve => Command::Reserve,
        Decoder::Release => Command::Release,
        Decoder::PersistentReserveIn => persistent_reserve_in(cdb),
        Decoder::PersistentReserveOut => persistent_reserve_out(cdb),
        Decoder::StartStopUnit => start_stop_unit(cdb),
        Decoder::PreventAllow => prevent_allow(cdb)?,
        Decoder::ReportSupportedOperationCodes => report_supported_operation_codes(cdb)?,
        Decoder::ReportSupportedTaskManagementFunctions => Command::ReportSupportedTaskManagementFunctions {
            extended: cdb[2] & 0x80 != 0,
            allocation_length: be32(cdb, 6),
        },
    })
}

/// LBA and length, which lie in the same place in every CDB of one length (SPC-4 §4.2.2).
fn extent(cdb: &[u8]) -> Extent {
    match cdb.len() {
        6 => Extent {
            lba: Lba(u64::from(be32(&[0, cdb[1] & 0x1f, cdb[2], cdb[3]], 0))),
            // SBC-3 §5.8: zero means 256, and only here.
            blocks: if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) },
            length_at: 4,
        },
        10 => Extent { lba: Lba::read::<4>(cdb, 2), blocks: u32::from(be16(cdb, 7)), length_at: 7 },
        12 => Extent { lba: Lba::read::<4>(cdb, 2), blocks: be32(cdb, 6), length_at: 6 },
        _ => Extent { lba: Lba::read::<8>(cdb, 2), blocks: be32(cdb, 10), length_at: 10 },
    }
}

/// The blocks of a READ whose CDB is one of this row, complete and without a bit that the row has not; `None` of any other.
#[inline]
pub(crate) fn read_extent(row: &Opcode, cdb: &[u8]) -> Option<Extent> {
    let reads = matches!(row.decoder, Decoder::Read6 | Decoder::Read10 | Decoder::Read12 | Decoder::Read16);
    let fields = cdb.get(..row.usage.len()).filter(|_| reads)?;
    row.reserved_bit(cdb).is_none().then(|| extent(fields))
}

fn read(cdb: &[u8]) -> Command {
    Command::Read {
        extent: extent(cdb),
        force_unit_access: cdb.len() > 6 && cdb[1] & FUA != 0,
        disable_page_out: cdb.len() > 6 && cdb[1] & DPO != 0,
    }
}

fn write(cdb: &[u8]) -> Command {
    Command::Write {
        extent: extent(cdb),
        force_unit_access: cdb.len() > 6 && cdb[1] & FUA != 0,
        disable_page_out: cdb.len() > 6 && cdb[1] & DPO != 0,
    }
}

/// COMPARE AND WRITE has its NUMBER OF LOGICAL BLOCKS in one byte, WRITE ATOMIC its TRANSFER LENGTH in two (SBC-3 §5.2, SBC-4
/// §5.48).
fn atomic(row: &Opcode, cdb: &[u8]) -> Atomic {
    let lba = Lba::read::<8>(cdb, 2);
    let (operation, extent) = match row.decoder {
        Decoder::CompareAndWrite => {
            (AtomicOperation::CompareAndWrite, Extent { lba, blocks: u32::from(cdb[13]), length_at: 13 })
        }
        Decoder::WriteAtomic => {
            (AtomicOperation::Write, Extent { lba, blocks: u32::from(be16(cdb, 12)), length_at: 12 })
        }
        _ => (AtomicOperation::Or, extent(cdb)),
    };
    Atomic { operation, extent, force_unit_access: cdb[1] & FUA != 0 }
}

fn verify(cdb: &[u8]) -> Result<Command, Outcome> {
    let compare = match cdb[1] >> 1 & 0x03 {
        0b00 => None,
        0b01 => Some(Compare::EachBlock),
        0b11 => Some(Compare::OneBlock),
        _ => return Err(Outcome::invalid_cdb_field(1, Some(2))),
    };
    Ok(Command::Verify { extent: extent(cdb), compare })
}

/// SBC-3 §5.45: of BYTCHK, 00b and 01b have a meaning here.
fn write_and_verify(cdb: &[u8]) -> Result<Command, Outcome> {
    match cdb[1] >> 1 & 0x03 {
        0b00 => Ok(Command::WriteAndVerify { extent: extent(cdb), compare: false }),
        0b01 => Ok(Command::WriteAndVerify { extent: extent(cdb), compare: true }),
        _ => Err(Outcome::invalid_cdb_field(1, Some(2))),
    }
}

fn inquiry(cdb: &[u8]) -> Result<Command, Outcome> {
    let vital_product_data = (cdb[1] & 0x01 != 0).then_some(cdb[2]);
    if vital_product_data.is_none() && cdb[2] != 0 {
        return Err(Outcome::invalid_cdb_field(2, None));
    }
    Ok(Command::Inquiry { vital_product_data, allocation_length: be16(cdb, 3) })
}

fn mode_sense(cdb: &[u8]) -> ModeSense {
    let long_header = cdb.len() == 10;
    ModeSense {
        long_header,
        disable_block_descriptors: cdb[1] & 0x08 != 0,
        long_lba_accepted: long_header && cdb[1] & 0x10 != 0,
        control: match cdb[2] >> 6 {
            0b00 => PageControl::Current,
            0b01 => PageControl::Changeable,
            0b10 => PageControl::Default,
            _ => PageControl::Saved,
        },
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        allocation_length: if long_header { be16(cdb, 7) } else { u16::from(cdb[4]) },
    }
}

fn mode_select(cdb: &[u8], parameter_list_length: u16) -> Command {
    Command::ModeSelect { long_header: cdb.len() == 10, save: cdb[1] & 0x01 != 0, parameter_list_length }
}

fn persistent_reserve_in(cdb: &[u8]) -> Command {
    Command::PersistentReserveIn { service_action: cdb[1] & 0x1f, allocation_length: be16(cdb, 7) }
}

fn persistent_reserve_out(cdb: &[u8]) -> Command {
    Command::PersistentReserveOut {
        service_action: cdb[1] & 0x1f,
        scope_type: ScopeType(cdb[2]),
        parameter_list_length: be32(cdb, 5),
    }
}

/// SBC-3 table 109; the table of commands has these service actions alone.
fn sanitize(cdb: &[u8]) -> Command {
    let action = match cdb[1] & 0x1f {
        0x01 => Sanitizing::Overwrite(be16(cdb, 7)),
        0x02 => Sanitizing::BlockErase,
        _ => Sanitizing::ExitFailureMode,
    };
    Command::Sanitize { action, immediate: cdb[1] & 0x80 != 0, unrestricted: cdb[1] & 0x20 != 0 }
}

/// SBC-3 §5.4, SBC-4 §5.7.
fn get_lba_status(cdb: &[u8]) -> Result<Command, Outcome> {
    const ADDITIONAL_LENGTH: u8 = 0x18;
    if cdb.len() == 16 {
        let (lba, allocation_length) = (Lba::read::<8>(cdb, 2), be32(cdb, 10));
        return Ok(Command::GetLbaStatus { lba, scan_blocks: 0, allocation_length });
    }
    if cdb[7] != ADDITIONAL_LENGTH {
        return Err(Outcome::invalid_cdb_field(7, None));
    }
    let (lba, scan_blocks, allocation_length) = (Lba::read::<8>(cdb, 12), be32(cdb, 20), be32(cdb, 28));
    Ok(Command::GetLbaStatus { lba, scan_blocks, allocation_length })
}

fn log_sense(cdb: &[u8]) -> Command {
    Command::LogSense(LogSense {
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        pointer: be16(cdb, 5),
        allocation_length: be16(cdb, 7),
    })
}

/// SBC-3 §5.17, §5.18. Of the DEFECT LIST FORMATs, 110b is vendor specific and 111b reserved.
fn read_defect_data(cdb: &[u8]) -> Result<Command, Outcome> {
    let long_header = cdb.len() == 12;
    let at = if long_header { 1 } else { 2 };
    if cdb[usize::from(at)] & 0x07 >= 0b110 {
        return Err(Outcome::invalid_cdb_field(at, Some(2)));
    }
    Ok(Command::ReadDefectData {
        long_header,
        lists: cdb[usize::from(at)],
        allocation_length: if long_header { be32(cdb, 6) } else { be16(cdb, 7).into() },
    })
}

fn start_stop_unit(cdb: &[u8]) -> Command {
    Command::StartStopUnit {
        immediate: cdb[1] & 0x01 != 0,
        power_condition: cdb[4] >> 4,
        no_flush: cdb[4] & 0x04 != 0,
        load_eject: cdb[4] & 0x02 != 0,
        start: cdb[4] & 0x01 != 0,
    }
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-3). The values 10b and 11b are obsolete and refused.
fn prevent_allow(cdb: &[u8]) -> Result<Command, Outcome> {
    match cdb[4] & 0x03 {
        0b00 => Ok(Command::PreventAllow { prevent: false }),
        0b01 => Ok(Command::PreventAllow { prevent: true }),
        _ => Err(Outcome::invalid_cdb_field(4, Some(1))),
    }
}

/// Commands of the copy manager (SPC-4 §5.16).
fn third_party(row: &Opcode, cdb: &[u8]) -> Command {
    match row.decoder {
        Decoder::ExtendedCopy => {
            Command::ExtendedCopy { long: cdb[1] & 0x1f == 0x01, parameter_list_length: be32(cdb, 10) }
        }
        Decoder::PopulateToken => {
            Command::PopulateToken { list_id: be32(cdb, 6), parameter_list_length: be32(cdb, 10) }
        }
        Decoder::WriteUsingToken => {
            Command::WriteUsingToken { list_id: be32(cdb, 6), parameter_list_length: be32(cdb, 10) }
        }
        Decoder::CopyOperationAbort => Command::CopyOperationAbort { list_id: be32(cdb, 2) },
        Decoder::ReceiveCopyResults => receive_copy_results(cdb),
        _ => Command::ReceiveCopyOperatingParameters { allocation_length: be32(cdb, 10) },
    }
}

/// SPC-4 §6.22 to §6.26.
fn receive_copy_results(cdb: &[u8]) -> Command {
    let (results, list_id) = match cdb[1] & 0x1f {
        0x00 => (CopyResults::Status, cdb[2].into()),
        0x04 => (CopyResults::FailureDetails, cdb[2].into()),
        0x05 => (CopyResults::LongStatus, be32(cdb, 2)),
        _ => (CopyResults::RodTokens, be32(cdb, 2)),
    };
    Command::ReceiveCopyResults { results, list_id, allocation_length: be32(cdb, 10) }
}

/// SPC-4 §6.37: the length only header, or the extended one.
fn report_target_port_groups(cdb: &[u8]) -> Result<Command, Outcome> {
    let extended = match cdb[1] >> 5 {
        0b000 => false,
        0b001 => true,
        _ => return Err(Outcome::invalid_cdb_field(1, Some(7))),
    };
    Ok(Command::ReportTargetPortGroups { extended, allocation_length: be32(cdb, 6) })
}

fn report_supported_operation_codes(cdb: &[u8]) -> Result<Command, Outcome> {
    let reporting = match cdb[2] & 0x07 {
        0b000 => Reporting::All,
        0b001 => Reporting::OperationCode,
        0b010 => Reporting::ServiceAction,
        0b011 => Reporting::Either,
        _ => return Err(Outcome::invalid_cdb_field(2, Some(2))),
    };
    Ok(Command::ReportSupportedOperationCodes {
        reporting,
        timeouts: cdb[2] & 0x80 != 0,
        operation_code: cdb[3],
        service_action: be16(cdb, 4),
        allocation_length: be32(cdb, 6),
    })
}
