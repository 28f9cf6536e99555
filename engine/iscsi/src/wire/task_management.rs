//! Task Management Function Request and Response (RFC 7143 §11.5, §11.6; functions 9 to 12 and response 7 are
//! RFC 7144's).

use super::field::{Octet, Octets, Word};
use super::{
    Bhs, FINAL, FLAGS, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, begin, is_immediate, refuse_payload,
    task_tag,
};
use crate::sn::{CmdSn, DataSn, StatSn};
use crate::violation::Violation;

//       Request                                                          Response
//    0 |.|I| 0x02      |1| Function    | Reserved                      | |.|.| 0x22 |1| Reserved | Response | Reserved |
//    4 |TotalAHSLength | DataSegmentLength                             |   the same
//    8 | LUN or Reserved                                               |   Additional Response Information (3), Reserved
//   16 | Initiator Task Tag                                            |   the same
//   20 | Referenced Task Tag or 0xffffffff                             |   Reserved
//   24 | CmdSN                                                         |   StatSN
//   28 | ExpStatSN                                                     |   ExpCmdSN
//   32 | RefCmdSN or Reserved                                          |   MaxCmdSN
//   36 | ExpDataSN or Reserved                                         |   Reserved
//   40 | Reserved                                                      |   Reserved
const LUN: Octets<8> = Octets::at(8);
const REFERENCED_TASK_TAG: Word = Word::at(20);
const CMD_SN: Word = Word::at(24);
const EXP_STAT_SN: Word = Word::at(28);
const REF_CMD_SN: Word = Word::at(32);
const EXP_DATA_SN: Word = Word::at(36);
const RESPONSE: Octet = Octet::at(2);
const ADDITIONAL_INFORMATION: Octets<3> = Octets::at(8);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);

const FUNCTION_MASK: u8 = 0x7f;

/// What is asked (§11.5.1, RFC 7144).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagementFunction {
    /// 1: the task that the Referenced Task Tag names.
    AbortTask,
    /// 2: all tasks of this nexus on the LUN.
    AbortTaskSet,
    /// 3: the auto contingent allegiance of the LUN.
    ClearAca,
    /// 4: all tasks on the LUN, of whatever nexus.
    ClearTaskSet,
    /// 5
    LogicalUnitReset,
    /// 6
    TargetWarmReset,
    /// 7: a warm reset that also drops all sessions.
    TargetColdReset,
    /// 8: moves a task to this connection.
    TaskReassign,
    /// 9: is this task here?
    QueryTask,
    /// 10: is any task here?
    QueryTaskSet,
    /// 11
    ITNexusReset,
    /// 12: is a unit attention pending?
    QueryAsynchronousEvent,
    /// Any other code of 7 bits; the answer is "function not supported", not a Reject (§11.6.1).
    Other(u8),
}

impl TaskManagementFunction {
    /// The function that `code`, of 7 bits, names.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::AbortTask,
            2 => Self::AbortTaskSet,
            3 => Self::ClearAca,
            4 => Self::ClearTaskSet,
            5 => Self::LogicalUnitReset,
            6 => Self::TargetWarmReset,
            7 => Self::TargetColdReset,
            8 => Self::TaskReassign,
            9 => Self::QueryTask,
            10 => Self::QueryTaskSet,
            11 => Self::ITNexusReset,
            12 => Self::QueryAsynchronousEvent,
            code => Self::Other(code),
        }
    }

    /// Its code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::AbortTask => 1,
            Self::AbortTaskSet => 2,
            Self::ClearAca => 3,
            Self::ClearTaskSet => 4,
            Self::LogicalUnitReset => 5,
            Self::TargetWarmReset => 6,
            Self::TargetColdReset => 7,
            Self::TaskReassign => 8,
            Self::QueryTask => 9,
            Self::QueryTaskSet => 10,
            Self::ITNexusReset => 11,
            Self::QueryAsynchronousEvent => 12,
            Self::Other(code) => code,
        }
    }
}

/// Task Management Function Request (§11.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagementRequest {
    /// I: outside of the command window.
    pub immediate: bool,
    /// Function.
    pub function: TaskManagementFunction,
    /// The addressed logical unit; reserved for target resets and TASK REASSIGN.
    pub lun: LunField,
    /// Names this request; never reserved.
    pub initiator_task_tag: InitiatorTaskTag,
    /// The task to abort, reassign or query; else reserved.
    pub referenced_task_tag: InitiatorTaskTag,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub expected_stat_sn: StatSn,
    /// The CmdSN of the referenced task, for ABORT TASK; it lets the target tell "never seen" from "done"
    /// (§11.5.5).
    pub referenced_cmd_sn: CmdSn,
    /// The next Data-In or R2T that the initiator expects, for TASK REASSIGN (§11.5.6).
    pub expected_data_sn: DataSn,
}

impl TaskManagementRequest {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x02;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a data segment (both lengths MUST be 0, §11.5.2), a reserved task tag.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_payload(bhs)?;
        Ok(Self {
            immediate: is_immediate(bhs),
            function: TaskManagementFunction::from_code(FLAGS.read(bhs) & FUNCTION_MASK),
            lun: LunField(LUN.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            referenced_task_tag: InitiatorTaskTag(REFERENCED_TASK_TAG.read(bhs)),
            cmd_sn: CmdSn(CMD_SN.read(bhs)),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
            referenced_cmd_sn: CmdSn(REF_CMD_SN.read(bhs)),
            expected_data_sn: DataSn(EXP_DATA_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        assert!(self.function.code() <= FUNCTION_MASK, "{:?} has more than 7 bits", self.function);
        begin(bhs, Self::OPCODE, self.immediate, FINAL | self.function.code(), 0);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        REFERENCED_TASK_TAG.write(bhs, self.referenced_task_tag.0);
        CMD_SN.write(bhs, self.cmd_sn.0);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
        REF_CMD_SN.write(bhs, self.referenced_cmd_sn.0);
        EXP_DATA_SN.write(bhs, self.expected_data_sn.0);
    }
}

/// How the function ended (§11.6.1, RFC 7144).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagementResult {
    /// 0; to a query: no.
    Complete,
    /// 1
    TaskDoesNotExist,
    /// 2
    LunDoesNotExist,
    /// 3
    TaskStillAllegiant,
    /// 4
    ReassignmentNotSupported,
    /// 5
    FunctionNotSupported,
    /// 6
    AuthorizationFailed,
    /// 7; to a query: yes.
    Succeeded,
    /// 255
    Rejected,
    /// Any other code; reserved.
    Other(u8),
}

impl TaskManagementResult {
    /// The result that `code` names.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Complete,
            1 => Self::TaskDoesNotExist,
            2 => Self::LunDoesNotExist,
            3 => Self::TaskStillAllegiant,
            4 => Self::ReassignmentNotSupported,
            5 => Self::FunctionNotSupported,
            6 => Self::AuthorizationFailed,
            7 => Self::Succeeded,
            255 => Self::Rejected,
            code => Self::Other(code),
        }
    }

    /// Its code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::TaskDoesNotExist => 1,
            Self::LunDoesNotExist => 2,
            Self::TaskStillAllegiant => 3,
            Self::ReassignmentNotSupported => 4,
            Self::FunctionNotSupported => 5,
            Self::AuthorizationFailed => 6,
            Self::Succeeded => 7,
            Self::Rejected => 255,
            Self::Other(code) => code,
        }
    }
}

/// Task Management Function Response (§11.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagementResponse {
    /// Response.
    pub result: TaskManagementResult,
    /// What SAM-5 calls Additional Response Information, for QUERY ASYNCHRONOUS EVENT (RFC 7144).
    pub additional_information: [u8; 3],
    /// The request answered.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
}

impl TaskManagementResponse {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x22;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a data segment, a reserved task tag.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_payload(bhs)?;
        Ok(Self {
            result: TaskManagementResult::from_code(RESPONSE.read(bhs)),
            additional_information: ADDITIONAL_INFORMATION.read(bhs),
            initiator_task_tag: task_tag(bhs)?,
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL, 0);
        RESPONSE.write(bhs, self.result.code());
        ADDITIONAL_INFORMATION.write(bhs, self.additional_information);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
    }
}
