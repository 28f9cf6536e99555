//! Logout Request and Logout Response (RFC 7143 §11.14, §11.15).

use super::field::{Half, Octet, Word};
use super::{
    Bhs, Cid, FINAL, FLAGS, INITIATOR_TASK_TAG, InitiatorTaskTag, begin, is_immediate, refuse_payload,
    task_tag,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       Request                                                          Response
//    0 |.|I| 0x06      |1| Reason Code | Reserved                      | |.|.| 0x26 |1| Reserved | Response | Reserved |
//    4 |TotalAHSLength | DataSegmentLength                             |   the same
//    8 | Reserved                                                      |   the same
//   16 | Initiator Task Tag                                            |   the same
//   20 | CID or Reserved               | Reserved                      |   Reserved
//   24 | CmdSN                                                         |   StatSN
//   28 | ExpStatSN                                                     |   ExpCmdSN
//   32 | Reserved                                                      |   MaxCmdSN
//   36 | Reserved                                                      |   Reserved
//   40 | Reserved                                                      |   Time2Wait | Time2Retain
//   44 | Reserved                                                      |   Reserved
const CID: Half = Half::at(20);
const CMD_SN: Word = Word::at(24);
const EXP_STAT_SN: Word = Word::at(28);
const RESPONSE: Octet = Octet::at(2);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const TIME_2_WAIT: Half = Half::at(40);
const TIME_2_RETAIN: Half = Half::at(42);

const REASON_MASK: u8 = 0x7f;

/// What is to be closed, and why (§11.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutReason {
    /// 0: all connections; all tasks end.
    CloseSession,
    /// 1: one connection; its tasks end.
    CloseConnection,
    /// 2: one connection; its tasks wait to be reassigned.
    RemoveConnectionForRecovery,
}

impl LogoutReason {
    fn parse(code: u8) -> Result<Self, Violation> {
        match code {
            0 => Ok(Self::CloseSession),
            1 => Ok(Self::CloseConnection),
            2 => Ok(Self::RemoveConnectionForRecovery),
            reason => Err(Violation::ReservedLogoutReason { reason }),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::CloseSession => 0,
            Self::CloseConnection => 1,
            Self::RemoveConnectionForRecovery => 2,
        }
    }
}

/// Logout Request (§11.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutRequest {
    /// I: outside of the command window.
    pub immediate: bool,
    /// Reason Code.
    pub reason: LogoutReason,
    /// Names this request; never reserved.
    pub initiator_task_tag: InitiatorTaskTag,
    /// The connection to close; reserved where the session is.
    pub cid: Cid,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
}

impl LogoutRequest {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x06;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a data segment, a reserved task tag or reason.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_payload(bhs)?;
        Ok(Self {
            immediate: is_immediate(bhs),
            reason: LogoutReason::parse(FLAGS.read(bhs) & REASON_MASK)?,
            initiator_task_tag: task_tag(bhs)?,
            cid: Cid(CID.read(bhs)),
            cmd_sn: CmdSn(CMD_SN.read(bhs)),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, self.immediate, FINAL | self.reason.code(), 0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        CID.write(bhs, self.cid.0);
        CMD_SN.write(bhs, self.cmd_sn.0);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
    }
}

/// How the logout ended (§11.15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutResult {
    /// 0: the connection or session is closed.
    Closed,
    /// 1
    CidNotFound,
    /// 2: a connection cannot be recovered here.
    RecoveryNotSupported,
    /// 3
    CleanupFailed,
    /// Any other code; reserved.
    Other(u8),
}

impl LogoutResult {
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Closed,
            1 => Self::CidNotFound,
            2 => Self::RecoveryNotSupported,
            3 => Self::CleanupFailed,
            code => Self::Other(code),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::CidNotFound => 1,
            Self::RecoveryNotSupported => 2,
            Self::CleanupFailed => 3,
            Self::Other(code) => code,
        }
    }
}

/// Logout Response (§11.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutResponse {
    /// Response.
    pub result: LogoutResult,
    /// The request answered.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
    /// Time2Wait: seconds before reassignment may be tried.
    pub time_2_wait_s: u16,
    /// Time2Retain: seconds after that in which tasks are kept.
    pub time_2_retain_s: u16,
}

impl LogoutResponse {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x26;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a data segment, a reserved task tag.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_payload(bhs)?;
        Ok(Self {
            result: LogoutResult::from_code(RESPONSE.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
            time_2_wait_s: TIME_2_WAIT.read(bhs),
            time_2_retain_s: TIME_2_RETAIN.read(bhs),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL, 0);
        RESPONSE.write(bhs, self.result.code());
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        TIME_2_WAIT.write(bhs, self.time_2_wait_s);
        TIME_2_RETAIN.write(bhs, self.time_2_retain_s);
    }
}
