//! How PDUs of the full feature phase that are each well-formed have no place in the session (RFC 7143 §4.3, §11).
//!
//! A write whose data is wrong is none of these: it fails its command (`transfer::TransferFault`), not the session.

use super::{Answer, Violation};
use crate::negotiate::Misuse;
use crate::wire::{InitiatorTaskTag, RejectReason, TargetTransferTag};

/// A rule of the session's dialogue that the initiator broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionViolation {
    /// A Login Request on a connection that has logged in (§11.12).
    LoginInFullFeaturePhase,
    /// A PDU that a discovery session has no use for (§4.3).
    NotInDiscovery {
        /// Of which kind.
        opcode: u8,
    },
    /// The tag of a new task names one that has not ended (§11.2.1.8).
    TaskTagInUse(InitiatorTaskTag),
    /// Data-Out came on another connection than its command (§4.2.5.1).
    DataOnAnotherConnection(InitiatorTaskTag),
    /// More immediate requests at once than this end takes (§4.2.2.1).
    TooManyImmediateRequests,
    /// A SNACK that the negotiated recovery level does not have (§11.16).
    SnackNotSupported,
    /// A SNACK for what was never sent, or was acknowledged (§11.16).
    SnackOutOfRun,
    /// A SNACK for what is not kept any more, or one too many at once (§11.17.1: it may be sent again).
    SnackNotServed,
    /// A Text Request goes on with an exchange that there is not (§11.10.4).
    TextTransferTagUnknown(TargetTransferTag),
    /// In the full feature phase, a key where, when, or by whom it may not be sent (§13).
    TextKeyMisused(Misuse),
}

impl SessionViolation {
    pub(super) const fn answer(&self) -> Answer {
        match self {
            Self::LoginInFullFeaturePhase
            | Self::DataOnAnotherConnection(_)
            | Self::SnackOutOfRun
            | Self::TextTransferTagUnknown(_)
            | Self::TextKeyMisused(_) => Answer::Reject(RejectReason::ProtocolError),
            Self::NotInDiscovery { .. } => Answer::Reject(RejectReason::CommandNotSupported),
            Self::TaskTagInUse(_) => Answer::Reject(RejectReason::InvalidPduField),
            Self::TooManyImmediateRequests => Answer::Reject(RejectReason::ImmediateCommandReject),
            Self::SnackNotSupported | Self::SnackNotServed => Answer::Reject(RejectReason::SnackReject),
        }
    }
}

impl From<SessionViolation> for Violation {
    fn from(violation: SessionViolation) -> Self {
        Self::Session(violation)
    }
}

impl core::fmt::Display for SessionViolation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::LoginInFullFeaturePhase => f.write_str("a Login Request in the full feature phase"),
            Self::NotInDiscovery { opcode } => {
                write!(f, "a PDU of opcode {opcode:#04x} in a discovery session")
            }
            Self::TaskTagInUse(tag) => write!(f, "task tag {:#010x} names a task that has not ended", tag.0),
            Self::DataOnAnotherConnection(tag) => {
                write!(f, "data of task {:#010x} on another connection than its command", tag.0)
            }
            Self::TooManyImmediateRequests => f.write_str("too many immediate requests at once"),
            Self::SnackNotSupported => f.write_str("SNACK at recovery level 0"),
            Self::SnackOutOfRun => f.write_str("SNACK for what was never sent, or was acknowledged"),
            Self::SnackNotServed => f.write_str("SNACK for what is not kept"),
            Self::TextTransferTagUnknown(tag) => {
                write!(f, "no text exchange has the transfer tag {:#010x}", tag.0)
            }
            Self::TextKeyMisused(misuse) => write!(f, "{misuse}"),
        }
    }
}
