//! Ready To Transfer: the target asks for a part of a write's data (RFC 7143 §11.8).

use super::field::{Octets, Word};
use super::{
    Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, TargetTransferTag, begin, refuse_payload,
    task_tag,
};
use crate::sn::{CmdSn, R2tSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|.| 0x31      |1| Reserved                                    |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | LUN                                                           |
//   16 | Initiator Task Tag                                            |
//   20 | Target Transfer Tag                                           |
//   24 | StatSN                                                        |
//   28 | ExpCmdSN                                                      |
//   32 | MaxCmdSN                                                      |
//   36 | R2TSN                                                         |
//   40 | Buffer Offset                                                 |
//   44 | Desired Data Transfer Length                                  |
const LUN: Octets<8> = Octets::at(8);
const TARGET_TRANSFER_TAG: Word = Word::at(20);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const R2T_SN: Word = Word::at(36);
const BUFFER_OFFSET: Word = Word::at(40);
const DESIRED_DATA_TRANSFER_LENGTH: Word = Word::at(44);

/// Ready To Transfer (§11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R2t {
    /// To be copied into the Data-Out PDUs.
    pub lun: LunField,
    /// The command.
    pub initiator_task_tag: InitiatorTaskTag,
    /// To be copied into the Data-Out PDUs; never reserved.
    pub target_transfer_tag: TargetTransferTag,
    /// The next StatSN of the connection, which an R2T does not use up (§11.8.3).
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
    /// Counts the R2Ts of the command from 0.
    pub r2t_sn: R2tSn,
    /// Where the wanted data starts, in bytes from the start of the command's buffer.
    pub buffer_offset: u32,
    /// Bytes wanted; never 0.
    pub desired_data_transfer_length: u32,
}

impl R2t {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x31;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a data segment, a reserved tag, a length of 0, a range beyond the 2^32 bytes a buffer can
    /// have.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_payload(bhs)?;
        let r2t = Self {
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
            r2t_sn: R2tSn(R2T_SN.read(bhs)),
            buffer_offset: BUFFER_OFFSET.read(bhs),
            desired_data_transfer_length: DESIRED_DATA_TRANSFER_LENGTH.read(bhs),
        };
        let (offset, length) = (r2t.buffer_offset, r2t.desired_data_transfer_length);
        if r2t.target_transfer_tag.is_reserved() {
            return Err(Violation::R2tWithoutTransferTag);
        }
        if length == 0 {
            return Err(Violation::R2tForNothing);
        }
        if offset.checked_add(length).is_none() {
            return Err(Violation::DataBeyondAddressSpace { offset, length });
        }
        Ok(r2t)
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL, 0);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        R2T_SN.write(bhs, self.r2t_sn.0);
        BUFFER_OFFSET.write(bhs, self.buffer_offset);
        DESIRED_DATA_TRANSFER_LENGTH.write(bhs, self.desired_data_transfer_length);
    }

    /// The first byte of the buffer after the wanted data; never beyond 2^32 - 1, as `parse` has seen.
    #[must_use]
    pub const fn buffer_end(&self) -> u32 {
        self.buffer_offset.saturating_add(self.desired_data_transfer_length)
    }
}
