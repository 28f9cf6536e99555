//! How Login Requests that are each well-formed do not make a login (RFC 7143 §6.3, §11.12, §11.13.5).

use super::{Answer, Violation};
use crate::chap::Refusal;
use crate::negotiate::{Key, Misuse};
use crate::wire::{LoginStatus, Stage};

/// A rule of the login's dialogue that the initiator broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginViolation {
    /// Something else came before the first Login Request (§6.3).
    NotLoggedIn {
        /// What came.
        opcode: u8,
    },
    /// Something else came between two Login Requests (§6.3).
    InvalidDuringLogin {
        /// What came.
        opcode: u8,
    },
    /// More Login Requests than this end takes in one login.
    LoginTooLong {
        /// How many are taken.
        maximum: u32,
    },
    /// Version-min is beyond the only version there is (§11.12.4).
    UnsupportedVersion {
        /// Version-min.
        minimum: u8,
    },
    /// ISID, TSIH, CID, CmdSN or Initiator Task Tag differ from those of the first request (§11.12.5 to §11.12.8).
    LoginFieldChanged,
    /// CSG is not the stage that both sides are in (§11.12.3).
    LoginStageMismatch {
        /// Where both sides are.
        expected: Stage,
        /// CSG.
        actual: Stage,
    },
    /// A key where, when, or by whom it may not be sent (§6.3, §13).
    KeyMisused(Misuse),
    /// A digest that is demanded was not agreed on (§13.1).
    DigestMissing(Key),
    /// A key that the first step has to have is not there (§6.3).
    KeyMissing(Key),
    /// A name that belongs into the first step came later (§6.3).
    KeyTooLate(Key),
    /// The name is no iSCSI name (§4.2.7).
    NameMalformed(Key),
    /// SessionType is neither Normal nor Discovery (§13.21).
    SessionTypeUnknown,
    /// The initiator has not proven who it is (§12.1.3).
    Unproven(Refusal),
}

impl LoginViolation {
    pub(super) const fn answer(&self) -> Answer {
        match self {
            Self::NotLoggedIn { .. } => Answer::DropConnection,
            Self::InvalidDuringLogin { .. } => Answer::LoginStatus(LoginStatus::INVALID_DURING_LOGIN),
            Self::UnsupportedVersion { .. } => Answer::LoginStatus(LoginStatus::UNSUPPORTED_VERSION),
            Self::KeyMissing(_) => Answer::LoginStatus(LoginStatus::MISSING_PARAMETER),
            Self::SessionTypeUnknown => Answer::LoginStatus(LoginStatus::SESSION_TYPE_NOT_SUPPORTED),
            Self::KeyMisused(Misuse::NoCommonAuthMethod) => {
                Answer::LoginStatus(LoginStatus::AUTHENTICATION_FAILURE)
            }
            Self::Unproven(refusal) if !refusal.is_of_form() => {
                Answer::LoginStatus(LoginStatus::AUTHENTICATION_FAILURE)
            }
            Self::Unproven(_)
            | Self::KeyMisused(_)
            | Self::DigestMissing(_)
            | Self::LoginTooLong { .. }
            | Self::LoginFieldChanged
            | Self::LoginStageMismatch { .. }
            | Self::KeyTooLate(_)
            | Self::NameMalformed(_) => Answer::LoginStatus(LoginStatus::INITIATOR_ERROR),
        }
    }
}

impl From<LoginViolation> for Violation {
    fn from(violation: LoginViolation) -> Self {
        Self::Login(violation)
    }
}

impl core::fmt::Display for LoginViolation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotLoggedIn { opcode } => write!(f, "a PDU of opcode {opcode:#04x} before the login"),
            Self::InvalidDuringLogin { opcode } => {
                write!(f, "a PDU of opcode {opcode:#04x} during the login")
            }
            Self::LoginTooLong { maximum } => write!(f, "more than {maximum} Login Requests"),
            Self::UnsupportedVersion { minimum } => write!(f, "version {minimum} or later is asked for"),
            Self::LoginFieldChanged => f.write_str("a Login Request is named differently from the first"),
            Self::LoginStageMismatch { expected, actual } => {
                write!(f, "a Login Request of stage {actual:?} in stage {expected:?}")
            }
            Self::KeyMisused(misuse) => write!(f, "{misuse}"),
            Self::DigestMissing(key) => write!(f, "{} is to be CRC32C, and is not", key.name()),
            Self::KeyMissing(key) => write!(f, "the first step is without {}", key.name()),
            Self::KeyTooLate(key) => write!(f, "{} after the first step", key.name()),
            Self::NameMalformed(key) => write!(f, "{} is no iSCSI name", key.name()),
            Self::SessionTypeUnknown => f.write_str("SessionType is neither Normal nor Discovery"),
            Self::Unproven(refusal) => write!(f, "{refusal}"),
        }
    }
}
