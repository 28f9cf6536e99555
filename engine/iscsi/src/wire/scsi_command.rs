//! SCSI Command: a CDB, its direction and length, and perhaps its first data (RFC 7143 §11.3; the priority is
//! RFC 7144's).

use super::ahs::AdditionalHeaders;
use super::field::{Octet, Octets, Word};
use super::{
    Bhs, FINAL, FLAGS, INITIATOR_TASK_TAG, InitiatorTaskTag, LENGTHS, LunField, begin, data_segment_length,
    flag, has_flag, is_immediate, opcode, task_tag, total_ahs_words,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|I| 0x01      |F|R|W|. .|ATTR | PRI   | Reserved              |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | Logical Unit Number (LUN)                                     |
//   16 | Initiator Task Tag                                            |
//   20 | Expected Data Transfer Length                                 |
//   24 | CmdSN                                                         |
//   28 | ExpStatSN                                                     |
//   32 / SCSI Command Descriptor Block (CDB)                           /
const PRIORITY: Octet = Octet::at(2);
const LUN: Octets<8> = Octets::at(8);
const EXPECTED_DATA_TRANSFER_LENGTH: Word = Word::at(20);
const CMD_SN: Word = Word::at(24);
const EXP_STAT_SN: Word = Word::at(28);
const CDB: Octets<16> = Octets::at(32);

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
const ATTRIBUTE_MASK: u8 = 0x07;
const PRIORITY_SHIFT: u32 = 4;

/// The largest task priority (SAM-5 §8.7).
pub const PRIORITY_MAX: u8 = 15;

/// How the task joins its task set (§11.3.1, SAM-5 §8.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskAttribute {
    /// None given; treated as simple.
    Untagged = 0,
    /// SIMPLE
    #[default]
    Simple = 1,
    /// ORDERED
    Ordered = 2,
    /// HEAD OF QUEUE
    HeadOfQueue = 3,
    /// ACA
    Aca = 4,
}

impl TaskAttribute {
    fn parse(code: u8) -> Result<Self, Violation> {
        Ok(match code {
            0 => Self::Untagged,
            1 => Self::Simple,
            2 => Self::Ordered,
            3 => Self::HeadOfQueue,
            4 => Self::Aca,
            attribute => return Err(Violation::ReservedTaskAttribute { attribute }),
        })
    }

    const fn code(self) -> u8 {
        match self {
            Self::Untagged => 0,
            Self::Simple => 1,
            Self::Ordered => 2,
            Self::HeadOfQueue => 3,
            Self::Aca => 4,
        }
    }
}

/// SCSI Command (§11.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiCommand {
    /// I: outside of the command window; CmdSN does not advance.
    pub immediate: bool,
    /// F: no unsolicited Data-Out PDU follows. False only on a write.
    pub is_final: bool,
    /// R: data is expected from the target.
    pub read: bool,
    /// W: data is expected by the target.
    pub write: bool,
    /// ATTR.
    pub attribute: TaskAttribute,
    /// PRI, 0 (none) to [`PRIORITY_MAX`] (RFC 7144). To be ignored unless iSCSIProtocolLevel is 2 or
    /// more.
    pub priority: u8,
    /// TotalAHSLength, in words of 4 bytes.
    pub total_ahs_words: u8,
    /// Bytes of immediate data.
    pub data_segment_length: u32,
    /// The addressed logical unit.
    pub lun: LunField,
    /// Names the task; never reserved.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Bytes that the initiator expects to move: out where W is set, else in (§11.3.4). On a bidirectional
    /// command the read length is in an AHS.
    pub expected_data_transfer_length: u32,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
    /// The CDB, or the first 16 bytes of one that goes on in an AHS.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x01;

    /// Whether a BHS is that of a command which reads, does not write and has its place in the command window. The rest of it
    /// may be wrong.
    #[must_use]
    #[inline]
    pub fn reads(bhs: &Bhs) -> bool {
        opcode(bhs) == Self::OPCODE && !is_immediate(bhs) && FLAGS.read(bhs) & (READ | WRITE) == READ
    }

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// A reserved attribute or task tag; F and W both 0; a length with neither R nor W; immediate data
    /// without W, or beyond the expected length (§11.3.1, §11.3.4, §11.3.6).
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        let command = Self {
            immediate: is_immediate(bhs),
            is_final: has_flag(bhs, FINAL),
            read: has_flag(bhs, READ),
            write: has_flag(bhs, WRITE),
            attribute: TaskAttribute::parse(FLAGS.read(bhs) & ATTRIBUTE_MASK)?,
            priority: PRIORITY.read(bhs) >> PRIORITY_SHIFT,
            total_ahs_words: total_ahs_words(bhs),
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            expected_data_transfer_length: EXPECTED_DATA_TRANSFER_LENGTH.read(bhs),
            cmd_sn: CmdSn(CMD_SN.read(bhs)),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
            cdb: CDB.read(bhs),
        };
        command.agrees_with_itself()?;
        Ok(command)
    }

    fn agrees_with_itself(&self) -> Result<(), Violation> {
        if !self.is_final && !self.write {
            return Err(Violation::UnsolicitedDataWithoutWrite);
        }
        if !self.read && !self.write && self.expected_data_transfer_length != 0 {
            return Err(Violation::LengthWithoutDirection { length: self.expected_data_transfer_length });
        }
        if self.data_segment_length != 0 && !self.write {
            return Err(Violation::ImmediateDataWithoutWrite);
        }
        if self.data_segment_length > self.expected_data_transfer_length {
            return Err(Violation::ImmediateDataBeyondExpectedLength {
                length: self.data_segment_length,
                expected: self.expected_data_transfer_length,
            });
        }
        Ok(())
    }

    /// Checks the AHS that came with it.
    ///
    /// # Errors
    /// R and W without the length that is read, or that length without both (§11.2.2.4, §11.3.4).
    pub const fn agrees_with(&self, headers: &AdditionalHeaders<'_>) -> Result<(), Violation> {
        match (self.read && self.write, headers.bidirectional_read_length.is_some()) {
            (true, false) => Err(Violation::BidirectionalLengthMissing),
            (false, true) => Err(Violation::BidirectionalLengthOfNothing),
            _ => Ok(()),
        }
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        assert!(self.priority <= PRIORITY_MAX, "priority {} has more than 4 bits", self.priority);
        let flags = flag(self.is_final, FINAL) | flag(self.read, READ) | flag(self.write, WRITE);
        begin(bhs, Self::OPCODE, self.immediate, flags | self.attribute.code(), self.data_segment_length);
        PRIORITY.write(bhs, self.priority << PRIORITY_SHIFT);
        LENGTHS.write(bhs, u32::from(self.total_ahs_words) << 24 | self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        EXPECTED_DATA_TRANSFER_LENGTH.write(bhs, self.expected_data_transfer_length);
        CMD_SN.write(bhs, self.cmd_sn.0);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
        CDB.write(bhs, self.cdb);
    }
}
