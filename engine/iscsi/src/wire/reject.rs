//! Reject: a PDU could not be served as a PDU (RFC 7143 §11.17). Its data segment is the complete header of
//! that PDU.

use super::field::{Octet, Word};
use super::{Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, begin, data_segment_length, refuse_ahs};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|.| 0x3f      |1| Reserved    | Reason        | Reserved      |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | Reserved                                                      |
//   16 | 0xffffffff                                                    |
//   20 | Reserved                                                      |
//   24 | StatSN                                                        |
//   28 | ExpCmdSN                                                      |
//   32 | MaxCmdSN                                                      |
//   36 | DataSN/R2TSN or Reserved                                      |
//   40 | Reserved                                                      |
const REASON: Octet = Octet::at(2);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const DATA_SN_OR_R2T_SN: Word = Word::at(36);

/// Why (§11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// 0x02: the data digest did not match; the PDU may be sent again.
    DataDigestError,
    /// 0x03: the SNACK cannot be served now; it may be sent again.
    SnackReject,
    /// 0x04
    ProtocolError,
    /// 0x05
    CommandNotSupported,
    /// 0x06: too many immediate commands; the PDU may be sent again.
    ImmediateCommandReject,
    /// 0x07: a reassignment of a task that has not stopped.
    TaskInProgress,
    /// 0x08
    InvalidDataAck,
    /// 0x09: a field that describes a task, a response, or a data transfer has an invalid value.
    InvalidPduField,
    /// 0x0a: out of Target Transfer Tags; the PDU may be sent again.
    LongOperationReject,
    /// 0x0c: a Logout was asked for and nothing else is taken.
    WaitingForLogout,
    /// Any other code: reserved or deprecated.
    Other(u8),
}

impl RejectReason {
    /// The reason that `code` names.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0x02 => Self::DataDigestError,
            0x03 => Self::SnackReject,
            0x04 => Self::ProtocolError,
            0x05 => Self::CommandNotSupported,
            0x06 => Self::ImmediateCommandReject,
            0x07 => Self::TaskInProgress,
            0x08 => Self::InvalidDataAck,
            0x09 => Self::InvalidPduField,
            0x0a => Self::LongOperationReject,
            0x0c => Self::WaitingForLogout,
            code => Self::Other(code),
        }
    }

    /// Its code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::DataDigestError => 0x02,
            Self::SnackReject => 0x03,
            Self::ProtocolError => 0x04,
            Self::CommandNotSupported => 0x05,
            Self::ImmediateCommandReject => 0x06,
            Self::TaskInProgress => 0x07,
            Self::InvalidDataAck => 0x08,
            Self::InvalidPduField => 0x09,
            Self::LongOperationReject => 0x0a,
            Self::WaitingForLogout => 0x0c,
            Self::Other(code) => code,
        }
    }
}

/// Reject (§11.17). Its task tag is always the reserved one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Reason.
    pub reason: RejectReason,
    /// Bytes of the rejected header, and of vendor data after it.
    pub data_segment_length: u32,
    /// StatSN; a Reject uses one up.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
    /// For a rejected Data/R2T SNACK of a DataSN or R2TSN that will not be retransmitted: the next one that
    /// will be sent (§11.17.2); else 0.
    pub data_sn_or_r2t_sn: u32,
}

impl Reject {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x3f;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        Ok(Self {
            reason: RejectReason::from_code(REASON.read(bhs)),
            data_segment_length: data_segment_length(bhs),
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
            data_sn_or_r2t_sn: DATA_SN_OR_R2T_SN.read(bhs),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL, self.data_segment_length);
        REASON.write(bhs, self.reason.code());
        INITIATOR_TASK_TAG.write(bhs, InitiatorTaskTag::RESERVED.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        DATA_SN_OR_R2T_SN.write(bhs, self.data_sn_or_r2t_sn);
    }
}
