//! SCSI Response: how a command ended, and how its lengths came out (RFC 7143 §11.4; the status qualifier is
//! RFC 7144's).
//!
//! The data segment, where there is one, is SenseLength (2 bytes), sense data, response data (§11.4.7).

use super::field::{Half, Octet, Word};
use super::{
    Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, begin, data_segment_length, flag, has_flag, refuse_ahs,
    task_tag,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|.| 0x21      |1|. .|o|u|O|U|.| Response      | Status        |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | Status Qualifier              | Reserved                      |
//   12 | Reserved                                                      |
//   16 | Initiator Task Tag                                            |
//   20 | SNACK Tag or Reserved                                         |
//   24 | StatSN                                                        |
//   28 | ExpCmdSN                                                      |
//   32 | MaxCmdSN                                                      |
//   36 | ExpDataSN or Reserved                                         |
//   40 | Bidirectional Read Residual Count or Reserved                 |
//   44 | Residual Count or Reserved                                    |
const RESPONSE: Octet = Octet::at(2);
const STATUS: Octet = Octet::at(3);
const STATUS_QUALIFIER: Half = Half::at(8);
const SNACK_TAG: Word = Word::at(20);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const EXP_DATA_SN: Word = Word::at(36);
const BIDIRECTIONAL_READ_RESIDUAL_COUNT: Word = Word::at(40);
const RESIDUAL_COUNT: Word = Word::at(44);

const BIDIRECTIONAL_READ_OVERFLOW: u8 = 0x10;
const BIDIRECTIONAL_READ_UNDERFLOW: u8 = 0x08;
pub(super) const OVERFLOW: u8 = 0x04;
pub(super) const UNDERFLOW: u8 = 0x02;

/// What the target as a whole says of the command (§11.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceResponse {
    /// 0x00: the status is a SCSI one.
    #[default]
    CommandCompleted,
    /// 0x01: the target failed; there is no SCSI status.
    TargetFailure,
    /// 0x80 to 0xff: vendor specific; there is no SCSI status.
    Vendor(u8),
}

impl ServiceResponse {
    fn parse(code: u8) -> Result<Self, Violation> {
        match code {
            0x00 => Ok(Self::CommandCompleted),
            0x01 => Ok(Self::TargetFailure),
            0x80.. => Ok(Self::Vendor(code)),
            code => Err(Violation::ReservedServiceResponse { code }),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::CommandCompleted => 0x00,
            Self::TargetFailure => 0x01,
            Self::Vendor(code) => code,
        }
    }
}

/// By how much the SCSI transfer missed the length that the initiator expected (§11.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    /// Both agree.
    #[default]
    None,
    /// The command would have moved this many bytes more (O bit).
    Overflow(u32),
    /// The command moved this many bytes less (U bit).
    Underflow(u32),
}

impl Residual {
    /// Reads the pair of bits and its count. O and U are mutually exclusive (§11.4.1).
    pub(super) const fn parse(overflow: bool, underflow: bool, count: u32) -> Result<Self, Violation> {
        match (overflow, underflow) {
            (false, false) => Ok(Self::None),
            (true, false) => Ok(Self::Overflow(count)),
            (false, true) => Ok(Self::Underflow(count)),
            (true, true) => Err(Violation::OverflowAndUnderflow),
        }
    }

    /// The bits to set in byte 1, chosen from `overflow` and `underflow`.
    pub(super) const fn flags(self, overflow: u8, underflow: u8) -> u8 {
        match self {
            Self::None => 0,
            Self::Overflow(_) => overflow,
            Self::Underflow(_) => underflow,
        }
    }

    /// The residual count; 0 where there is none.
    #[must_use]
    pub const fn count(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Overflow(count) | Self::Underflow(count) => count,
        }
    }
}

/// SCSI Response (§11.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiResponse {
    /// Response. Where it is not Command Completed, status and residuals are undefined and parsed as 0 and
    /// none.
    pub response: ServiceResponse,
    /// The SCSI status code (SAM-5 §5.3).
    pub status: u8,
    /// The SCSI status qualifier (RFC 7144). To be ignored unless iSCSIProtocolLevel is 2 or more.
    pub status_qualifier: u16,
    /// Bytes of SenseLength, sense data and response data.
    pub data_segment_length: u32,
    /// The command answered.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Copied from an R-Data SNACK; else 0 (§11.4.4).
    pub snack_tag: u32,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
    /// ExpDataSN: how many Data-In PDUs (on a bidirectional command R2Ts too) the target has sent for the
    /// command; 0 where it sent no Data-In, or the service failed (§11.4.8).
    pub expected_data_sn: u32,
    /// Residual of the read half of a bidirectional command.
    pub bidirectional_read_residual: Residual,
    /// Residual of the transfer.
    pub residual: Residual,
}

impl ScsiResponse {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x21;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a reserved task tag or Response, O and U (or o and u) both set.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let response = ServiceResponse::parse(RESPONSE.read(bhs))?;
        let mut parsed = Self {
            response,
            status: 0,
            status_qualifier: 0,
            data_segment_length: data_segment_length(bhs),
            initiator_task_tag: task_tag(bhs)?,
            snack_tag: SNACK_TAG.read(bhs),
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
            expected_data_sn: EXP_DATA_SN.read(bhs),
            bidirectional_read_residual: Residual::None,
            residual: Residual::None,
        };
        // Status and flags of any other response "are undefined and MUST be ignored on reception" (§11.4.3).
        if response == ServiceResponse::CommandCompleted {
            parsed.status = STATUS.read(bhs);
            parsed.status_qualifier = STATUS_QUALIFIER.read(bhs);
            parsed.bidirectional_read_residual = Residual::parse(
                has_flag(bhs, BIDIRECTIONAL_READ_OVERFLOW),
                has_flag(bhs, BIDIRECTIONAL_READ_UNDERFLOW),
                BIDIRECTIONAL_READ_RESIDUAL_COUNT.read(bhs),
            )?;
            parsed.residual =
                Residual::parse(has_flag(bhs, OVERFLOW), has_flag(bhs, UNDERFLOW), RESIDUAL_COUNT.read(bhs))?;
        }
        Ok(parsed)
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        let flags = flag(true, FINAL)
            | self.residual.flags(OVERFLOW, UNDERFLOW)
            | self
                .bidirectional_read_residual
                .flags(BIDIRECTIONAL_READ_OVERFLOW, BIDIRECTIONAL_READ_UNDERFLOW);
        begin(bhs, Self::OPCODE, false, flags, self.data_segment_length);
        RESPONSE.write(bhs, self.response.code());
        STATUS.write(bhs, self.status);
        STATUS_QUALIFIER.write(bhs, self.status_qualifier);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        SNACK_TAG.write(bhs, self.snack_tag);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        EXP_DATA_SN.write(bhs, self.expected_data_sn);
        BIDIRECTIONAL_READ_RESIDUAL_COUNT.write(bhs, self.bidirectional_read_residual.count());
        RESIDUAL_COUNT.write(bhs, self.residual.count());
    }
}
