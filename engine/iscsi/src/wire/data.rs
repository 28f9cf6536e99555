//! SCSI Data-Out and SCSI Data-In: the data segment belongs into the command's buffer at the Buffer Offset
//! (RFC 7143 §11.7).

use super::field::{Octet, Octets, Word};
use super::scsi_response::{OVERFLOW, Residual, UNDERFLOW};
use super::{
    Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, TargetTransferTag, begin,
    data_segment_length, flag, has_flag, refuse_ahs, task_tag,
};
use crate::sn::{CmdSn, DataSn, StatSn};
use crate::violation::Violation;

//       Data-Out                                                         Data-In
//    0 |.|.| 0x05      |F| Reserved                                    | |.|.| 0x25 |F|A|0 0 0|O|U|S| Reserved | Status |
//    4 |TotalAHSLength | DataSegmentLength                             |   the same
//    8 | LUN or Reserved                                               |   the same
//   16 | Initiator Task Tag                                            |   the same
//   20 | Target Transfer Tag or 0xffffffff                             |   the same
//   24 | Reserved                                                      |   StatSN or Reserved
//   28 | ExpStatSN                                                     |   ExpCmdSN
//   32 | Reserved                                                      |   MaxCmdSN
//   36 | DataSN                                                        |   the same
//   40 | Buffer Offset                                                 |   the same
//   44 | Reserved                                                      |   Residual Count
const LUN: Octets<8> = Octets::at(8);
const TARGET_TRANSFER_TAG: Word = Word::at(20);
const EXP_STAT_SN: Word = Word::at(28);
const STATUS: Octet = Octet::at(3);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const DATA_SN: Word = Word::at(36);
const BUFFER_OFFSET: Word = Word::at(40);
const RESIDUAL_COUNT: Word = Word::at(44);

const ACKNOWLEDGE: u8 = 0x40;
const STATUS_PRESENT: u8 = 0x01;

/// SCSI Data-Out (§11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOut {
    /// F: the last PDU of this R2T's data, or of the unsolicited burst.
    pub is_final: bool,
    /// Bytes of data.
    pub data_segment_length: u32,
    /// Copied from the R2T; reserved in unsolicited data.
    pub lun: LunField,
    /// The command.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Copied from the R2T; reserved in unsolicited data.
    pub target_transfer_tag: TargetTransferTag,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
    /// Counts from 0 in the answer to each R2T, and in the unsolicited burst.
    pub data_sn: DataSn,
    /// Where the data goes, in bytes from the start of the command's buffer.
    pub buffer_offset: u32,
}

impl DataOut {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x05;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a reserved task tag, data that would end beyond the 2^32 bytes a buffer can have.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        Ok(Self {
            is_final: has_flag(bhs, FINAL),
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
            data_sn: DataSn(DATA_SN.read(bhs)),
            buffer_offset: bounded_offset(bhs)?,
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, flag(self.is_final, FINAL), self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
        DATA_SN.write(bhs, self.data_sn.0);
        BUFFER_OFFSET.write(bhs, self.buffer_offset);
    }

    /// The first byte of the buffer after this data; never beyond 2^32 - 1, as `parse` has seen.
    #[must_use]
    pub const fn buffer_end(&self) -> u32 {
        self.buffer_offset.saturating_add(self.data_segment_length)
    }
}

/// What a Data-In PDU carries when it ends its command: S set (§11.7.2, §11.7.3). Sense data it cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataInStatus {
    /// The SCSI status code.
    pub status: u8,
    /// StatSN.
    pub stat_sn: StatSn,
    /// Residual of the transfer.
    pub residual: Residual,
}

/// SCSI Data-In (§11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataIn {
    /// F: the last PDU of a sequence.
    pub is_final: bool,
    /// A: the target wants a DataACK SNACK; only at recovery level 1 and 2.
    pub acknowledge: bool,
    /// Bytes of data.
    pub data_segment_length: u32,
    /// Qualifies the Target Transfer Tag; reserved where that is.
    pub lun: LunField,
    /// The command.
    pub initiator_task_tag: InitiatorTaskTag,
    /// To be copied into the DataACK; valid where A is set.
    pub target_transfer_tag: TargetTransferTag,
    /// S: the command has ended with this status; F is then set too.
    pub status: Option<DataInStatus>,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
    /// Counts the Data-In PDUs of the command from 0.
    pub data_sn: DataSn,
    /// Where the data goes, in bytes from the start of the command's buffer.
    pub buffer_offset: u32,
}

impl DataIn {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x25;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a reserved task tag, S without F, A without a transfer tag, O and U both set, data that would
    /// end beyond the 2^32 bytes a buffer can have.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let is_final = has_flag(bhs, FINAL);
        let data = Self {
            is_final,
            acknowledge: has_flag(bhs, ACKNOWLEDGE),
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            status: status(bhs)?,
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
            data_sn: DataSn(DATA_SN.read(bhs)),
            buffer_offset: bounded_offset(bhs)?,
        };
        if data.status.is_some() && !is_final {
            return Err(Violation::StatusWithoutFinal);
        }
        if data.acknowledge && data.target_transfer_tag.is_reserved() {
            return Err(Violation::AcknowledgeWithoutTransferTag);
        }
        Ok(data)
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        let flags = flag(self.is_final, FINAL) | flag(self.acknowledge, ACKNOWLEDGE);
        let ending = self.status.map_or(0, |it| STATUS_PRESENT | it.residual.flags(OVERFLOW, UNDERFLOW));
        begin(bhs, Self::OPCODE, false, flags | ending, self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        if let Some(ending) = self.status {
            STATUS.write(bhs, ending.status);
            STAT_SN.write(bhs, ending.stat_sn.0);
            RESIDUAL_COUNT.write(bhs, ending.residual.count());
        }
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        DATA_SN.write(bhs, self.data_sn.0);
        BUFFER_OFFSET.write(bhs, self.buffer_offset);
    }

    /// The first byte of the buffer after this data; never beyond 2^32 - 1, as `parse` has seen.
    #[must_use]
    pub const fn buffer_end(&self) -> u32 {
        self.buffer_offset.saturating_add(self.data_segment_length)
    }
}

/// Status, StatSN and residual "only have meaningful content if the S bit is set to 1" (§11.7.3).
fn status(bhs: &Bhs) -> Result<Option<DataInStatus>, Violation> {
    if !has_flag(bhs, STATUS_PRESENT) {
        return Ok(None);
    }
    let residual =
        Residual::parse(has_flag(bhs, OVERFLOW), has_flag(bhs, UNDERFLOW), RESIDUAL_COUNT.read(bhs))?;
    Ok(Some(DataInStatus { status: STATUS.read(bhs), stat_sn: StatSn(STAT_SN.read(bhs)), residual }))
}

fn bounded_offset(bhs: &Bhs) -> Result<u32, Violation> {
    let (offset, length) = (BUFFER_OFFSET.read(bhs), data_segment_length(bhs));
    match offset.checked_add(length) {
        Some(_) => Ok(offset),
        None => Err(Violation::DataBeyondAddressSpace { offset, length }),
    }
}
