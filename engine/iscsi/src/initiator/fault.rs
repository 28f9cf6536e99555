//! Every way a target can be wrong towards an initiator, as precisely as a test or a log wants to have it.
//!
//! There is no answer to give, unlike to a [`Violation`] that a target meets: an initiator of recovery level
//! 0 leaves.

use crate::sn::{CmdSn, DataSn, R2tSn, StatSn};
use crate::violation::Violation;
use crate::wire::{InitiatorTaskTag, Residual};

/// A rule that the target broke in the full feature phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// The PDU breaks a rule by itself.
    Malformed(Violation),
    /// A PDU that a target may not send in the full feature phase (§4.1: a Login Response).
    OutOfPhase {
        /// Of which PDU.
        opcode: u8,
    },
    /// StatSN skips or repeats a number (§4.2.2.2); on a PDU that uses none up, it is not the next one.
    StatSnWrong {
        /// Of which PDU.
        opcode: u8,
        /// The next number.
        expected: StatSn,
        /// The PDU's.
        received: StatSn,
    },
    /// MaxCmdSN is below ExpCmdSN - 1 (§4.2.2.1).
    CommandWindowInverted {
        /// ExpCmdSN.
        expected: CmdSn,
        /// MaxCmdSN.
        maximum: CmdSn,
    },
    /// ExpCmdSN acknowledges a command that was never sent (§4.2.2.1).
    AcknowledgedUnsent {
        /// ExpCmdSN.
        expected: CmdSn,
        /// The number that the next command will get.
        next: CmdSn,
    },
    /// A command is answered by a PDU whose ExpCmdSN does not acknowledge it (§4.2.2.1).
    AnsweredUnacknowledged {
        /// ExpCmdSN.
        expected: CmdSn,
        /// The command's number.
        cmd_sn: CmdSn,
    },
    /// The Initiator Task Tag names no outstanding task (§11.2.1.8).
    UnknownTask {
        /// Of which PDU.
        opcode: u8,
        /// The tag.
        tag: InitiatorTaskTag,
    },
    /// The Initiator Task Tag names a task that this PDU cannot answer.
    WrongKindOfTask {
        /// Of which PDU.
        opcode: u8,
        /// The tag.
        tag: InitiatorTaskTag,
    },

    /// Data-In for a command that reads nothing (§11.7).
    DataInForNoRead,
    /// DataSN skips or repeats a number (§4.2.2.4).
    DataSnWrong {
        /// The next number.
        expected: DataSn,
        /// The PDU's.
        received: DataSn,
    },
    /// Data-In out of order where DataPDUInOrder and DataSequenceInOrder are Yes (§13.18, §13.19).
    DataInOutOfOrder {
        /// Where the next byte belongs.
        expected: u32,
        /// Buffer Offset.
        offset: u32,
    },
    /// Data-In beyond the Expected Data Transfer Length (§11.7.6).
    DataInBeyondBuffer {
        /// The end of the PDU's data.
        end: u32,
        /// The command's length.
        expected: u32,
    },
    /// A sequence of Data-In longer than MaxBurstLength (§13.13).
    BurstTooLong {
        /// Of the sequence so far.
        length: u32,
        /// MaxBurstLength.
        maximum: u32,
    },
    /// A SCSI Response while a sequence of Data-In lacks its F bit (§11.7.1).
    BurstWithoutEnd,
    /// The A bit at recovery level 0 (§11.7.2).
    AcknowledgeAtLevel0,
    /// A status in a Data-In PDU that ends with an exception (§11.7.3): only GOOD, CONDITION MET and the
    /// INTERMEDIATE ones fit.
    ExceptionInDataIn {
        /// The SCSI status.
        status: u8,
    },

    /// R2T for a command that writes nothing (§11.8).
    R2tForNoWrite,
    /// R2TSN skips or repeats a number (§11.8.2).
    R2tSnWrong {
        /// The next number.
        expected: R2tSn,
        /// The PDU's.
        received: R2tSn,
    },
    /// R2T out of order, or for data sent unasked, where DataSequenceInOrder is Yes (§13.19).
    R2tOutOfOrder {
        /// Where the next byte lies.
        expected: u32,
        /// Buffer Offset.
        offset: u32,
    },
    /// R2T for more than MaxBurstLength (§11.8.4).
    R2tTooLong {
        /// Desired Data Transfer Length.
        length: u32,
        /// MaxBurstLength.
        maximum: u32,
    },
    /// R2T beyond the Expected Data Transfer Length (§11.8.4).
    R2tBeyondBuffer {
        /// The end of the wanted data.
        end: u32,
        /// The command's length.
        expected: u32,
    },
    /// More R2Ts of one command than MaxOutstandingR2T (§13.17).
    TooManyR2ts {
        /// MaxOutstandingR2T.
        maximum: u16,
    },

    /// ExpDataSN is not the number of Data-In PDUs that came (§11.4.8).
    ExpectedDataSnWrong {
        /// ExpDataSN.
        claimed: u32,
        /// How many came.
        received: u32,
    },
    /// GOOD, and the residual does not account for the bytes that were moved (§11.4.5).
    ResidualWrong {
        /// Expected Data Transfer Length.
        expected: u32,
        /// Bytes received, or sent.
        moved: u32,
        /// What the target says.
        residual: Residual,
    },
    /// A residual of 0 bytes, or an underflow of more than was expected (§11.4.5).
    ResidualImpossible {
        /// Expected Data Transfer Length.
        expected: u32,
        /// What the target says.
        residual: Residual,
    },
    /// A bidirectional residual of a command that is not bidirectional (§11.4.1).
    BidirectionalResidual,
    /// CHECK CONDITION without sense data (§11.4.7).
    SenseMissing,
    /// SenseLength ends beyond the data segment (§11.4.7).
    SenseTruncated {
        /// SenseLength.
        length: u16,
        /// Bytes that follow it.
        available: usize,
    },

    /// A NOP-In that answers none carries data (§11.19).
    PingWithData,
    /// A NOP-In returns fewer or more bytes than were sent (§11.18).
    PingDataLength {
        /// Sent.
        expected: u32,
        /// Returned.
        received: u32,
    },
    /// More unanswered pings of the target than this end keeps.
    TooManyPings,
    /// A NOP-In, Text Response, … with a Target Transfer Tag that does not fit its bits (§11.11.1, §11.19.1).
    TransferTagWrong {
        /// Of which PDU.
        opcode: u8,
    },
    /// A text exchange that goes on without end.
    TextWithoutEnd,
    /// A Reject without the header that it rejects (§11.17).
    RejectWithoutHeader,
}

impl From<Violation> for TargetFault {
    fn from(violation: Violation) -> Self {
        Self::Malformed(violation)
    }
}

impl core::fmt::Display for TargetFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed(violation) => write!(f, "the target sent a malformed PDU: {violation}"),
            fault => write!(f, "the target broke the protocol: {fault:?}"),
        }
    }
}

impl core::error::Error for TargetFault {}
