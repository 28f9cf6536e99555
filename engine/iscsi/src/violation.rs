//! Every way a peer can be wrong, and the answer it earns on the wire (RFC 7143 §7, §11.13.5, §11.17).
//!
//! A variant names one rule that was broken, its doc the section that makes it a rule. [`Violation::answer`] is the one
//! place that decides what follows; whoever meets a violation carries the answer out and decides nothing. [`table`] lists them
//! all, with sections and tests.

mod login;
mod session;
pub mod table;

pub use login::LoginViolation;
pub use session::SessionViolation;

use crate::wire::{LoginStatus, RejectReason, Stage};

/// What the receiver does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A Login Response of this status, then the connection is closed (§7.12, §11.13.5).
    LoginStatus(LoginStatus),
    /// A Reject PDU of this reason; the connection goes on (§7.3, §11.17).
    Reject(RejectReason),
    /// The connection is closed; where the stream cannot be followed any further there is nobody to answer to (§7.14).
    DropConnection,
    /// All connections of the session are closed (§7.7).
    DropSession,
    /// Nothing.
    Ignore,
}

/// A rule that the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    // The 48 bytes.
    /// The opcode is none that this end's peer may send (§11.2.1.2; §11.17.1: "Command not supported").
    UnknownOpcode {
        /// The 6 bits.
        opcode: u8,
    },
    /// TotalAHSLength of a PDU that has no AHS is not 0 (§11.2.1.5).
    AhsNotAllowed {
        /// Of which PDU.
        opcode: u8,
    },
    /// DataSegmentLength of a PDU that has no data is not 0 (§11.2.1.6, §11.5.2, §11.8.1).
    DataSegmentNotAllowed {
        /// Of which PDU.
        opcode: u8,
    },
    /// More data than this end declared as MaxRecvDataSegmentLength (§13.12).
    DataSegmentTooLong {
        /// Of which PDU.
        opcode: u8,
        /// DataSegmentLength.
        length: u32,
        /// What was declared.
        maximum: u32,
    },
    /// The Initiator Task Tag 0xffffffff on a PDU that names a task (§11.2.1.8).
    ReservedInitiatorTaskTag {
        /// Of which PDU.
        opcode: u8,
    },

    // Digests.
    /// The header digest is not that of the header: where the next PDU begins is not known any more (§7.8).
    HeaderDigestWrong,
    /// The data digest is not that of the data segment; the PDU is discarded (§7.8, §11.17.1).
    DataDigestWrong,

    // Additional Header Segments.
    /// More AHS than one of each type (§11.2.2).
    AhsTooLong {
        /// In bytes.
        length: u32,
    },
    /// An AHS ends beyond TotalAHSLength (§11.2.2.2).
    AhsTruncated,
    /// A reserved AHSType (§11.2.2.1).
    AhsTypeUnknown {
        /// The 6 bits.
        kind: u8,
    },
    /// An AHSLength that its type does not allow (§11.2.2.3, §11.2.2.4).
    AhsLengthWrong {
        /// AHSType.
        kind: u8,
        /// AHSLength.
        length: usize,
    },
    /// Two AHS of one type (§11.2.2).
    AhsRepeated {
        /// AHSType.
        kind: u8,
    },

    /// A command that reads and writes, without a Bidirectional Read Expected Data Transfer Length (§11.3.4).
    BidirectionalLengthMissing,
    /// That AHS on a command that does not both read and write (§11.2.2.4).
    BidirectionalLengthOfNothing,

    // SCSI Command.
    /// ATTR is 5 to 7 (§11.3.1).
    ReservedTaskAttribute {
        /// The 3 bits.
        attribute: u8,
    },
    /// F and W are both 0: unsolicited data announced on a command that writes nothing (§11.3.1).
    UnsolicitedDataWithoutWrite,
    /// Data in the PDU of a command that writes nothing (§11.3.1).
    ImmediateDataWithoutWrite,
    /// More immediate data than the command moves in all (§11.3.4).
    ImmediateDataBeyondExpectedLength {
        /// DataSegmentLength.
        length: u32,
        /// Expected Data Transfer Length.
        expected: u32,
    },
    /// R and W are both 0 and the length is not (§11.3.1).
    LengthWithoutDirection {
        /// Expected Data Transfer Length.
        length: u32,
    },

    // Data.
    /// Buffer Offset and length add up to 2^32 or more (§11.7.6, §11.8.4).
    DataBeyondAddressSpace {
        /// Buffer Offset.
        offset: u32,
        /// The length at that offset.
        length: u32,
    },
    /// Data-In with S but without F (§11.7.1).
    StatusWithoutFinal,
    /// Data-In with A but without a Target Transfer Tag (§11.7.4).
    AcknowledgeWithoutTransferTag,
    /// O and U, or o and u, both set (§11.4.1).
    OverflowAndUnderflow,
    /// Response is 0x02 to 0x7f (§11.4.3).
    ReservedServiceResponse {
        /// The byte.
        code: u8,
    },
    /// R2T with the Target Transfer Tag 0xffffffff (§11.8.5).
    R2tWithoutTransferTag,
    /// R2T with a Desired Data Transfer Length of 0 (§11.8.4).
    R2tForNothing,

    // Others.
    /// A NOP-Out that wants no answer, without the I bit (§11.18.1).
    NopOutNotImmediate,
    /// The reason code is 3 to 127 (§11.14.1).
    ReservedLogoutReason {
        /// The 7 bits.
        reason: u8,
    },
    /// Type is 4 to 15 (§11.16.1).
    ReservedSnackType {
        /// The 4 bits.
        code: u8,
    },
    /// Text with both F and C (§11.10.2).
    FinalWithContinue,

    // Login.
    /// CSG or NSG is 2 (§11.12.3).
    ReservedLoginStage {
        /// The 2 bits.
        stage: u8,
    },
    /// CSG is the full feature phase (§11.12.3).
    LoginInFullFeatureStage,
    /// T and NSG ask for the present stage or an earlier one (§11.12.3).
    LoginStageBackward {
        /// CSG.
        current: Stage,
        /// NSG.
        next: Stage,
    },
    /// Login with both T and C (§11.12.2).
    TransitWithContinue,

    // Text, in login and after it.
    /// A pair without "=" (§6.1).
    TextWithoutEquals,
    /// A key that is empty, or longer than 63 bytes (§6.1).
    TextKeyLength {
        /// In bytes.
        length: usize,
    },
    /// A key with a byte that is none of letters, digits, ".", "-", "+", "@", "_", "#" (§6.1).
    TextKeyCharacter {
        /// The byte.
        byte: u8,
    },
    /// A value longer than its kind allows, 255 bytes unless stated otherwise (§6.1).
    TextValueTooLong {
        /// In bytes.
        length: usize,
        /// What is allowed.
        maximum: usize,
    },
    /// More text in one negotiation step than this end takes (§6.1).
    TextTooLong {
        /// What is taken, in bytes.
        maximum: usize,
    },

    /// Text while the answer to the text before it goes on (§6.2).
    TextBeforeAnswer,

    /// Login Requests each of which is well-formed, and that do not make a login.
    Login(LoginViolation),
    /// PDUs of the full feature phase each of which is well-formed, and that have no place in the session.
    Session(SessionViolation),
}

impl Violation {
    /// What the receiver does about it. In the login phase, and wherever a PDU is met by its initiator, less is possible:
    /// there, whatever is not a [`Answer::LoginStatus`] drops the connection.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        match self {
            Self::UnknownOpcode { .. } => Answer::Reject(RejectReason::CommandNotSupported),

            // Where the next PDU begins is not known, or there is no room to skip it. The lengths are looked at before the header
            // digest can be: such a header may be a damaged one (§7.8), and is no format error of the whole session yet (§7.7).
            Self::AhsTooLong { .. } | Self::DataSegmentTooLong { .. } | Self::HeaderDigestWrong => {
                Answer::DropConnection
            }
            Self::DataDigestWrong => Answer::Reject(RejectReason::DataDigestError),

            // "Illegal contents of any PDU header field", "inconsistent field contents" (§7.7). A Data-Out PDU among them
            // is not rejected: its command would wait for ever for the F bit that it may have had.
            Self::AhsNotAllowed { .. }
            | Self::DataSegmentNotAllowed { .. }
            | Self::DataBeyondAddressSpace { .. } => Answer::DropSession,

            // "A target should use this reason code for all invalid values of PDU fields that are meant to describe a task, a
            // response, or a data transfer" (§11.17.1, note 2).
            Self::ReservedInitiatorTaskTag { .. }
            | Self::AhsTruncated
            | Self::AhsTypeUnknown { .. }
            | Self::AhsLengthWrong { .. }
            | Self::AhsRepeated { .. }
            | Self::BidirectionalLengthMissing
            | Self::BidirectionalLengthOfNothing
            | Self::ReservedTaskAttribute { .. }
            | Self::UnsolicitedDataWithoutWrite
            | Self::ImmediateDataWithoutWrite
            | Self::ImmediateDataBeyondExpectedLength { .. }
            | Self::LengthWithoutDirection { .. }
            | Self::ReservedLogoutReason { .. }
            | Self::ReservedSnackType { .. } => Answer::Reject(RejectReason::InvalidPduField),

            Self::NopOutNotImmediate | Self::FinalWithContinue => Answer::Reject(RejectReason::ProtocolError),

            // Only a target can commit these; its initiator leaves (§7.7).
            Self::StatusWithoutFinal
            | Self::AcknowledgeWithoutTransferTag
            | Self::OverflowAndUnderflow
            | Self::ReservedServiceResponse { .. }
            | Self::R2tWithoutTransferTag
            | Self::R2tForNothing => Answer::DropSession,

            Self::ReservedLoginStage { .. }
            | Self::LoginInFullFeatureStage
            | Self::LoginStageBackward { .. }
            | Self::TransitWithContinue => Answer::LoginStatus(LoginStatus::INITIATOR_ERROR),

            // In the full feature phase a text negotiation that fails is reset by a Reject (§7.12); in login it ends it.
            Self::TextWithoutEquals
            | Self::TextKeyLength { .. }
            | Self::TextKeyCharacter { .. }
            | Self::TextValueTooLong { .. }
            | Self::TextTooLong { .. }
            | Self::TextBeforeAnswer => Answer::Reject(RejectReason::ProtocolError),

            Self::Login(violation) => violation.answer(),
            Self::Session(violation) => violation.answer(),
        }
    }
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownOpcode { opcode } => write!(f, "opcode {opcode:#04x} is not for this peer to send"),
            Self::AhsNotAllowed { opcode } => write!(f, "a PDU of opcode {opcode:#04x} announces an AHS"),
            Self::DataSegmentNotAllowed { opcode } => {
                write!(f, "a PDU of opcode {opcode:#04x} announces data")
            }
            Self::DataSegmentTooLong { opcode, length, maximum } => write!(
                f,
                "a PDU of opcode {opcode:#04x} has {length} bytes of data, MaxRecvDataSegmentLength is {maximum}"
            ),
            Self::ReservedInitiatorTaskTag { opcode } => {
                write!(f, "a PDU of opcode {opcode:#04x} has the reserved Initiator Task Tag")
            }
            Self::HeaderDigestWrong => f.write_str("a header digest that is not the header's"),
            Self::DataDigestWrong => f.write_str("a data digest that is not the data's"),
            Self::AhsTooLong { length } => write!(f, "{length} bytes of AHS"),
            Self::AhsTruncated => f.write_str("an AHS ends beyond TotalAHSLength"),
            Self::AhsTypeUnknown { kind } => write!(f, "AHSType {kind} is reserved"),
            Self::AhsLengthWrong { kind, length } => {
                write!(f, "AHSLength {length} is wrong for AHSType {kind}")
            }
            Self::AhsRepeated { kind } => write!(f, "a second AHS of type {kind}"),
            Self::BidirectionalLengthMissing => f.write_str("R and W without a length to be read"),
            Self::BidirectionalLengthOfNothing => f.write_str("a bidirectional length without both R and W"),
            Self::ReservedTaskAttribute { attribute } => write!(f, "task attribute {attribute} is reserved"),
            Self::UnsolicitedDataWithoutWrite => f.write_str("a command with neither F nor W"),
            Self::ImmediateDataWithoutWrite => f.write_str("immediate data without W"),
            Self::ImmediateDataBeyondExpectedLength { length, expected } => {
                write!(f, "{length} bytes of immediate data for a command that moves {expected}")
            }
            Self::LengthWithoutDirection { length } => {
                write!(f, "{length} bytes expected with neither R nor W")
            }
            Self::DataBeyondAddressSpace { offset, length } => {
                write!(f, "{length} bytes at buffer offset {offset} end beyond 2^32")
            }
            Self::StatusWithoutFinal => f.write_str("Data-In with S but without F"),
            Self::AcknowledgeWithoutTransferTag => {
                f.write_str("Data-In with A but without a Target Transfer Tag")
            }
            Self::OverflowAndUnderflow => f.write_str("residual overflow and underflow at once"),
            Self::ReservedServiceResponse { code } => write!(f, "iSCSI response {code:#04x} is reserved"),
            Self::R2tWithoutTransferTag => f.write_str("R2T without a Target Transfer Tag"),
            Self::R2tForNothing => f.write_str("R2T for 0 bytes"),
            Self::NopOutNotImmediate => f.write_str("NOP-Out without a task tag is not immediate"),
            Self::ReservedLogoutReason { reason } => write!(f, "logout reason {reason} is reserved"),
            Self::ReservedSnackType { code } => write!(f, "SNACK type {code} is reserved"),
            Self::FinalWithContinue => f.write_str("text with both F and C"),
            Self::ReservedLoginStage { stage } => write!(f, "login stage {stage} is reserved"),
            Self::LoginInFullFeatureStage => {
                f.write_str("login with the full feature phase as its current stage")
            }
            Self::LoginStageBackward { current, next } => {
                write!(f, "login from stage {current:?} to {next:?}")
            }
            Self::TransitWithContinue => f.write_str("login with both T and C"),
            Self::TextWithoutEquals => f.write_str("text without \"=\""),
            Self::TextKeyLength { length } => write!(f, "a key of {length} bytes"),
            Self::TextKeyCharacter { byte } => write!(f, "a key with the byte {byte:#04x}"),
            Self::TextValueTooLong { length, maximum } => {
                write!(f, "a value of {length} bytes where {maximum} are allowed")
            }
            Self::TextTooLong { maximum } => write!(f, "more than {maximum} bytes of text"),
            Self::TextBeforeAnswer => f.write_str("text while the answer to the last goes on"),
            Self::Login(violation) => violation.fmt(f),
            Self::Session(violation) => violation.fmt(f),
        }
    }
}

impl core::error::Error for Violation {}
