//! SNACK Request: please send these again, or: these have come (RFC 7143 §11.16). Legal above recovery level
//! 0 only.

use super::field::{Octets, Word};
use super::{
    Bhs, FINAL, FLAGS, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, begin, initiator_task_tag,
    refuse_payload,
};
use crate::sn::StatSn;
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|.| 0x10      |1|.|.|.| Type  | Reserved                      |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | LUN or Reserved                                               |
//   16 | Initiator Task Tag or 0xffffffff                              |
//   20 | Target Transfer Tag or SNACK Tag or 0xffffffff                |
//   24 | Reserved                                                      |
//   28 | ExpStatSN                                                     |
//   32 | Reserved                                                      |
//   40 | BegRun                                                        |
//   44 | RunLength                                                     |
const LUN: Octets<8> = Octets::at(8);
const TRANSFER_OR_SNACK_TAG: Word = Word::at(20);
const EXP_STAT_SN: Word = Word::at(28);
const BEG_RUN: Word = Word::at(40);
const RUN_LENGTH: Word = Word::at(44);

const TYPE_MASK: u8 = 0x0f;

/// What the run counts, and what is asked of it (§11.16.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnackType {
    /// 0: Data-In or R2T PDUs again.
    DataOrR2t,
    /// 1: numbered responses again.
    Status,
    /// 2: Data-In PDUs have come.
    DataAck,
    /// 3: Data-In PDUs again, in segments of another size if need be.
    RData,
}

impl SnackType {
    fn parse(code: u8) -> Result<Self, Violation> {
        match code {
            0 => Ok(Self::DataOrR2t),
            1 => Ok(Self::Status),
            2 => Ok(Self::DataAck),
            3 => Ok(Self::RData),
            code => Err(Violation::ReservedSnackType { code }),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::DataOrR2t => 0,
            Self::Status => 1,
            Self::DataAck => 2,
            Self::RData => 3,
        }
    }
}

/// SNACK Request (§11.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snack {
    /// Type.
    pub kind: SnackType,
    /// Copied from the Data-In PDU, in a DataACK; else reserved.
    pub lun: LunField,
    /// The command; reserved in Status SNACK and DataACK.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag of a DataACK, SNACK Tag of an R-Data SNACK, else 0xffffffff.
    pub transfer_or_snack_tag: u32,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
    /// BegRun: the first StatSN, DataSN or R2TSN of the run; in a DataACK the next one expected.
    pub run_begin: u32,
    /// RunLength: how many; 0 means all from `run_begin` on.
    pub run_length: u32,
}

impl Snack {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x10;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a data segment, a reserved type.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_payload(bhs)?;
        Ok(Self {
            kind: SnackType::parse(FLAGS.read(bhs) & TYPE_MASK)?,
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: initiator_task_tag(bhs),
            transfer_or_snack_tag: TRANSFER_OR_SNACK_TAG.read(bhs),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
            run_begin: BEG_RUN.read(bhs),
            run_length: RUN_LENGTH.read(bhs),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL | self.kind.code(), 0);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        TRANSFER_OR_SNACK_TAG.write(bhs, self.transfer_or_snack_tag);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
        BEG_RUN.write(bhs, self.run_begin);
        RUN_LENGTH.write(bhs, self.run_length);
    }
}
