//! The PDUs of RFC 7143 §11 (and the fields that RFC 7144 adds): one file per family, the field map at its
//! head.
//!
//! Each PDU is a plain `Copy` struct of its 48-byte Basic Header Segment, with `parse` and `emit`. `parse`
//! takes any 48 bytes and either gives a value whose fields are each legal and agree with each other, or
//! names the [`Violation`]. `emit` writes all 48 bytes, the reserved ones as 0. Reserved fields are ignored
//! on the way in (§11: "any compliant receiver MUST ignore them"), and so is a bit that the diagrams draw as
//! a constant 1.
//!
//! Nothing here looks at AHS bytes (that is [`ahs`]), at data segments, at sequence, or at what was
//! negotiated.

pub mod ahs;
pub mod async_message;
pub mod data;
mod field;
pub mod login;
pub mod logout;
pub mod nop;
pub mod r2t;
pub mod reject;
pub mod scsi_command;
pub mod scsi_response;
pub mod snack;
pub mod task_management;
pub mod text;

#[cfg(test)]
mod tests;

pub use async_message::{AsyncEvent, AsyncMessage};
pub use data::{DataIn, DataInStatus, DataOut};
pub use login::{LoginRequest, LoginResponse, LoginStatus, Stage};
pub use logout::{LogoutReason, LogoutRequest, LogoutResponse, LogoutResult};
pub use nop::{NopIn, NopOut};
pub use r2t::R2t;
pub use reject::{Reject, RejectReason};
pub use scsi_command::{ScsiCommand, TaskAttribute};
pub use scsi_response::{Residual, ScsiResponse, ServiceResponse};
pub use snack::{Snack, SnackType};
pub use task_management::{
    TaskManagementFunction, TaskManagementRequest, TaskManagementResponse, TaskManagementResult,
};
pub use text::{TextRequest, TextResponse};

use crate::sn::StatSn;
use crate::violation::Violation;
use field::{Octet, Word};

/// The length of a Basic Header Segment (§11.2.1).
pub const BHS_BYTES: usize = 48;

/// The bytes of a Basic Header Segment.
pub type Bhs = [u8; BHS_BYTES];

/// The largest DataSegmentLength that 24 bits can say (§11.2.1.6).
pub const DATA_SEGMENT_BYTES_MAX: u32 = (1 << 24) - 1;

/// Names a task from its initiator (§11.2.1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InitiatorTaskTag(pub u32);

impl InitiatorTaskTag {
    /// "No task": 0xffffffff.
    pub const RESERVED: Self = Self(u32::MAX);

    /// Whether it names no task.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 == Self::RESERVED.0
    }
}

/// Names a transfer, a ping or a text exchange from the target (§11.7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetTransferTag(pub u32);

impl TargetTransferTag {
    /// "No transfer": 0xffffffff.
    pub const RESERVED: Self = Self(u32::MAX);

    /// Whether it names no transfer.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 == Self::RESERVED.0
    }
}

/// The initiator's half of a session's name, 6 bytes of type, authority and qualifier (§11.12.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Isid(pub [u8; 6]);

/// The target's handle of a session; 0 asks for a new one (§11.12.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tsih(pub u16);

impl Tsih {
    /// "No session yet."
    pub const NEW: Self = Self(0);
}

/// Names a connection inside its session (§11.12.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cid(pub u16);

/// The 8 bytes of a LUN field as they came (§11.2.1.7; SAM-5 §4.7 says what they mean).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LunField(pub [u8; 8]);

/// What an initiator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitiatorPdu {
    /// §11.18
    NopOut(NopOut),
    /// §11.3
    ScsiCommand(ScsiCommand),
    /// §11.5
    TaskManagement(TaskManagementRequest),
    /// §11.12
    Login(LoginRequest),
    /// §11.10
    Text(TextRequest),
    /// §11.7
    DataOut(DataOut),
    /// §11.14
    Logout(LogoutRequest),
    /// §11.16
    Snack(Snack),
}

impl InitiatorPdu {
    /// Reads a BHS that came from an initiator.
    ///
    /// # Errors
    /// [`Violation::UnknownOpcode`] where the opcode is none of an initiator's; else what the PDU's own
    /// `parse` says.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        match opcode(bhs) {
            NopOut::OPCODE => NopOut::parse(bhs).map(Self::NopOut),
            ScsiCommand::OPCODE => ScsiCommand::parse(bhs).map(Self::ScsiCommand),
            TaskManagementRequest::OPCODE => TaskManagementRequest::parse(bhs).map(Self::TaskManagement),
            LoginRequest::OPCODE => LoginRequest::parse(bhs).map(Self::Login),
            TextRequest::OPCODE => TextRequest::parse(bhs).map(Self::Text),
            DataOut::OPCODE => DataOut::parse(bhs).map(Self::DataOut),
            LogoutRequest::OPCODE => LogoutRequest::parse(bhs).map(Self::Logout),
            Snack::OPCODE => Snack::parse(bhs).map(Self::Snack),
            opcode => Err(Violation::UnknownOpcode { opcode }),
        }
    }

    /// ExpStatSN: all responses of this connection before it have been seen (§4.2.2.2).
    #[must_use]
    pub const fn expected_stat_sn(&self) -> StatSn {
        match self {
            Self::NopOut(pdu) => pdu.expected_stat_sn,
            Self::ScsiCommand(pdu) => pdu.expected_stat_sn,
            Self::TaskManagement(pdu) => pdu.expected_stat_sn,
            Self::Login(pdu) => pdu.expected_stat_sn,
            Self::Text(pdu) => pdu.expected_stat_sn,
            Self::DataOut(pdu) => pdu.expected_stat_sn,
            Self::Logout(pdu) => pdu.expected_stat_sn,
            Self::Snack(pdu) => pdu.expected_stat_sn,
        }
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        match self {
            Self::NopOut(pdu) => pdu.emit(bhs),
            Self::ScsiCommand(pdu) => pdu.emit(bhs),
            Self::TaskManagement(pdu) => pdu.emit(bhs),
            Self::Login(pdu) => pdu.emit(bhs),
            Self::Text(pdu) => pdu.emit(bhs),
            Self::DataOut(pdu) => pdu.emit(bhs),
            Self::Logout(pdu) => pdu.emit(bhs),
            Self::Snack(pdu) => pdu.emit(bhs),
        }
    }
}

/// What a target sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetPdu {
    /// §11.19
    NopIn(NopIn),
    /// §11.4
    ScsiResponse(ScsiResponse),
    /// §11.6
    TaskManagement(TaskManagementResponse),
    /// §11.13
    Login(LoginResponse),
    /// §11.11
    Text(TextResponse),
    /// §11.7
    DataIn(DataIn),
    /// §11.15
    Logout(LogoutResponse),
    /// §11.8
    R2t(R2t),
    /// §11.9
    Async(AsyncMessage),
    /// §11.17
    Reject(Reject),
}

impl TargetPdu {
    /// Reads a BHS that came from a target.
    ///
    /// # Errors
    /// [`Violation::UnknownOpcode`] where the opcode is none of a target's; else what the PDU's own `parse`
    /// says.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        match opcode(bhs) {
            NopIn::OPCODE => NopIn::parse(bhs).map(Self::NopIn),
            ScsiResponse::OPCODE => ScsiResponse::parse(bhs).map(Self::ScsiResponse),
            TaskManagementResponse::OPCODE => TaskManagementResponse::parse(bhs).map(Self::TaskManagement),
            LoginResponse::OPCODE => LoginResponse::parse(bhs).map(Self::Login),
            TextResponse::OPCODE => TextResponse::parse(bhs).map(Self::Text),
            DataIn::OPCODE => DataIn::parse(bhs).map(Self::DataIn),
            LogoutResponse::OPCODE => LogoutResponse::parse(bhs).map(Self::Logout),
            R2t::OPCODE => R2t::parse(bhs).map(Self::R2t),
            AsyncMessage::OPCODE => AsyncMessage::parse(bhs).map(Self::Async),
            Reject::OPCODE => Reject::parse(bhs).map(Self::Reject),
            opcode => Err(Violation::UnknownOpcode { opcode }),
        }
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        match self {
            Self::NopIn(pdu) => pdu.emit(bhs),
            Self::ScsiResponse(pdu) => pdu.emit(bhs),
            Self::TaskManagement(pdu) => pdu.emit(bhs),
            Self::Login(pdu) => pdu.emit(bhs),
            Self::Text(pdu) => pdu.emit(bhs),
            Self::DataIn(pdu) => pdu.emit(bhs),
            Self::Logout(pdu) => pdu.emit(bhs),
            Self::R2t(pdu) => pdu.emit(bhs),
            Self::Async(pdu) => pdu.emit(bhs),
            Self::Reject(pdu) => pdu.emit(bhs),
        }
    }
}

// The part of the diagram that all PDUs have (§11.2.1):
//
//      0               1               2               3
//    0 |.|I| Opcode    |F| Opcode-specific fields                      |
//    4 |TotalAHSLength | DataSegmentLength                             |
//   16 | Initiator Task Tag                                            |
const OPCODE: Octet = Octet::at(0);
const FLAGS: Octet = Octet::at(1);
const LENGTHS: Word = Word::at(4);
const INITIATOR_TASK_TAG: Word = Word::at(16);

const IMMEDIATE: u8 = 0x40;
const OPCODE_MASK: u8 = 0x3f;
/// F, the first bit of byte 1; several diagrams draw it as a constant 1.
const FINAL: u8 = 0x80;

/// The opcode of a BHS, without its I bit (§11.2.1.2).
#[must_use]
pub const fn opcode(bhs: &Bhs) -> u8 {
    OPCODE.read(bhs) & OPCODE_MASK
}

/// TotalAHSLength, in words of 4 bytes (§11.2.1.5).
#[must_use]
pub const fn total_ahs_words(bhs: &Bhs) -> u8 {
    LENGTHS.read(bhs).to_be_bytes()[0]
}

/// DataSegmentLength in bytes, without padding (§11.2.1.6).
#[must_use]
pub const fn data_segment_length(bhs: &Bhs) -> u32 {
    LENGTHS.read(bhs) & DATA_SEGMENT_BYTES_MAX
}

/// The Initiator Task Tag, which lies in the same place in every PDU (§11.2.1.8).
#[must_use]
pub const fn initiator_task_tag(bhs: &Bhs) -> InitiatorTaskTag {
    InitiatorTaskTag(INITIATOR_TASK_TAG.read(bhs))
}

const fn is_immediate(bhs: &Bhs) -> bool {
    OPCODE.read(bhs) & IMMEDIATE != 0
}

/// Whether `mask`, a single bit, is set in byte 1.
const fn has_flag(bhs: &Bhs, mask: u8) -> bool {
    FLAGS.read(bhs) & mask != 0
}

/// `mask` where `set`, else nothing: to build byte 1.
const fn flag(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}

/// Zeroes the header and writes what all PDUs have. A length beyond 24 bits is a bug of ours, not of a peer.
fn begin(bhs: &mut Bhs, opcode: u8, immediate: bool, flags: u8, data_segment_length: u32) {
    assert!(data_segment_length <= DATA_SEGMENT_BYTES_MAX, "a data segment of {data_segment_length} bytes");
    bhs.fill(0);
    OPCODE.write(bhs, opcode | flag(immediate, IMMEDIATE));
    FLAGS.write(bhs, flags);
    LENGTHS.write(bhs, data_segment_length);
}

/// Refuses a header that announces an AHS where only a SCSI Command may have one (§11.2.1.5).
const fn refuse_ahs(bhs: &Bhs) -> Result<(), Violation> {
    if total_ahs_words(bhs) == 0 { Ok(()) } else { Err(Violation::AhsNotAllowed { opcode: opcode(bhs) }) }
}

/// Refuses a header that announces an AHS or data on a PDU that has neither.
const fn refuse_payload(bhs: &Bhs) -> Result<(), Violation> {
    if data_segment_length(bhs) != 0 {
        return Err(Violation::DataSegmentNotAllowed { opcode: opcode(bhs) });
    }
    refuse_ahs(bhs)
}

/// The task tag of a request that starts a task, which is never the reserved one (§11.2.1.8).
const fn task_tag(bhs: &Bhs) -> Result<InitiatorTaskTag, Violation> {
    let tag = initiator_task_tag(bhs);
    if tag.is_reserved() { Err(Violation::ReservedInitiatorTaskTag { opcode: opcode(bhs) }) } else { Ok(tag) }
}
