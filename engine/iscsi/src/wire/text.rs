//! Text Request and Text Response: key=value pairs in the full feature phase (RFC 7143 §11.10, §11.11).
//!
//! What the data segment means is `crate::text`; here are the 48 bytes.

use super::field::{Octets, Word};
use super::{
    Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, TargetTransferTag, begin,
    data_segment_length, flag, has_flag, is_immediate, refuse_ahs, task_tag,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|I| 0x04/0x24 |F|C| Reserved                                  |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | LUN or Reserved                                               |
//   16 | Initiator Task Tag                                            |
//   20 | Target Transfer Tag or 0xffffffff                             |
//   24 | Request: CmdSN      Response: StatSN                          |
//   28 | Request: ExpStatSN  Response: ExpCmdSN                        |
//   32 | Request: Reserved   Response: MaxCmdSN                        |
//   36 | Reserved                                                      |
const LUN: Octets<8> = Octets::at(8);
const TARGET_TRANSFER_TAG: Word = Word::at(20);
const CMD_SN: Word = Word::at(24);
const EXP_STAT_SN: Word = Word::at(28);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);

const CONTINUE: u8 = 0x40;

/// Text Request (§11.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextRequest {
    /// I: outside of the command window.
    pub immediate: bool,
    /// F: the initiator has nothing to add.
    pub is_final: bool,
    /// C: the text goes on in the next request; excludes F.
    pub continues: bool,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// Copied from the response that it follows; else reserved.
    pub lun: LunField,
    /// The same in all requests of one exchange; never reserved.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Copied from the response that it follows; reserved in the first, and to start over.
    pub target_transfer_tag: TargetTransferTag,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
}

impl TextRequest {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x04;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a reserved task tag, F together with C (§11.10.2).
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let (is_final, continues) = ends(bhs)?;
        Ok(Self {
            immediate: is_immediate(bhs),
            is_final,
            continues,
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            cmd_sn: CmdSn(CMD_SN.read(bhs)),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        let flags = flag(self.is_final, FINAL) | flag(self.continues, CONTINUE);
        begin(bhs, Self::OPCODE, self.immediate, flags, self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        CMD_SN.write(bhs, self.cmd_sn.0);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
    }
}

/// Text Response (§11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextResponse {
    /// F: the target has nothing to add; the Target Transfer Tag is then reserved.
    pub is_final: bool,
    /// C: the text goes on in the next response; excludes F.
    pub continues: bool,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// Qualifies the Target Transfer Tag; reserved where that is.
    pub lun: LunField,
    /// That of the request.
    pub initiator_task_tag: InitiatorTaskTag,
    /// The target's name of this exchange, to be copied into the next request.
    pub target_transfer_tag: TargetTransferTag,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
}

impl TextResponse {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x24;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a reserved task tag, F together with C (§11.11.2).
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let (is_final, continues) = ends(bhs)?;
        Ok(Self {
            is_final,
            continues,
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            target_transfer_tag: TargetTransferTag(TARGET_TRANSFER_TAG.read(bhs)),
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        let flags = flag(self.is_final, FINAL) | flag(self.continues, CONTINUE);
        begin(bhs, Self::OPCODE, false, flags, self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TARGET_TRANSFER_TAG.write(bhs, self.target_transfer_tag.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
    }
}

/// F and C, which exclude each other.
const fn ends(bhs: &Bhs) -> Result<(bool, bool), Violation> {
    match (has_flag(bhs, FINAL), has_flag(bhs, CONTINUE)) {
        (true, true) => Err(Violation::FinalWithContinue),
        ends => Ok(ends),
    }
}
