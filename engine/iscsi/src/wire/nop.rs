//! NOP-Out and NOP-In: are you there, and the answer (RFC 7143 §11.18, §11.19).
//!
//! A NOP-Out with a valid Initiator Task Tag asks for a NOP-In; one with a valid Target Transfer Tag answers
//! a NOP-In that asked. Ping data, if any, is the data segment.

use super::field::{Octets, Word};
use super::{
    Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, TargetTransferTag, begin,
    data_segment_length, initiator_task_tag, is_immediate, refuse_ahs,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|I| 0x00/0x20 |1| Reserved                                    |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | LUN or Reserved                                               |
//   16 | Initiator Task Tag or 0xffffffff                              |
//   20 | Target Transfer Tag or 0xffffffff                             |
//   24 | Out: CmdSN          In: StatSN                                |
//   28 | Out: ExpStatSN      In: ExpCmdSN                              |
//   32 | Out: Reserved       In: MaxCmdSN                              |
//   36 | Reserved                                                      |
const LUN: Octets<8> = Octets::at(8);
const TARGET_TRANSFER_TAG: Word = Word::at(20);
const OUT_CMD_SN: Word = Word::at(24);
const OUT_EXP_STAT_SN: Word = Word::at(28);
const IN_STAT_SN: Word = Word::at(24);
const IN_EXP_CMD_SN: Word = Word::at(28);
const IN_MAX_CMD_SN: Word = Word::at(32);

/// NOP-Out (§11.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NopOut {
    /// I: outside of the command window; CmdSN does not advance.
    pub immediate: bool,
    /// Bytes of ping data.
    pub data_segment_length: u32,
    /// Copied from the NOP-In that it answers; else reserved.
    pub lun: LunField,
    /// Valid where a NOP-In is wanted.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Valid where this answers a NOP-In.
    pub target_transfer_tag: TargetTransferTag,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
}

impl NopOut {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x00;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS; or a reserved task tag without the I bit, which §11.18.1 requires there.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let nop = Self {
            immediate: is_immediate(bhs),
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: initiator_task_tag(bhs),
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            cmd_sn: CmdSn(OUT_CMD_SN.read(bhs)),
            expected_stat_sn: StatSn(OUT_EXP_STAT_SN.read(bhs)),
        };
        if nop.initiator_task_tag.is_reserved() && !nop.immediate {
            return Err(Violation::NopOutNotImmediate);
        }
        Ok(nop)
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, self.immediate, FINAL, self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        OUT_CMD_SN.write(bhs, self.cmd_sn.0);
        OUT_EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
    }
}

/// NOP-In (§11.19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NopIn {
    /// Bytes of returned ping data; 0 where the target asks.
    pub data_segment_length: u32,
    /// The logical unit that qualifies the Target Transfer Tag; reserved where that is.
    pub lun: LunField,
    /// That of the NOP-Out answered; reserved where the target asks.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Valid where the target wants an answer.
    pub target_transfer_tag: TargetTransferTag,
    /// StatSN. It advances only where the task tag is valid (§11.19.2).
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
}

impl NopIn {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x20;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        Ok(Self {
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: initiator_task_tag(bhs),
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            stat_sn: StatSn(IN_STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(IN_EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(IN_MAX_CMD_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL, self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        IN_STAT_SN.write(bhs, self.stat_sn.0);
        IN_EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        IN_MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
    }
}
