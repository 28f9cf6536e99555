//! The data of one task: what came of a write and what is still to come, what went of a read and what is still to go
//! (RFC 7143 §4.2.5, §11.7, §11.8).
//!
//! [`write::Write`] and [`read::Read`] are plain values in a session's task table; they count bytes and sequence numbers
//! and never see one byte of data. Both are as large as they will ever be: nothing here allocates.
//!
//! DataPDUInOrder and DataSequenceInOrder are always negotiated to Yes, so the data of a write arrives as one run of
//! bytes from 0 on; whatever is out of its place is a [`TransferFault`].

pub(crate) mod read;
pub(crate) mod write;

use crate::wire::Residual;

/// How many R2Ts of one task are outstanding at most, whatever MaxOutstandingR2T would allow. With bursts of 1 MiB they ask
/// for 16 MiB at once; each costs every task 4 bytes.
pub const OUTSTANDING_R2T_MAX: u8 = 16;

/// What to do with the data segment of a PDU: its first `keep_bytes` belong into the task's data at `offset_bytes`, the
/// `discard_bytes` after them belong nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Where the kept bytes go, from the start of the task's data.
    pub offset_bytes: u32,
    /// How many bytes are kept.
    pub keep_bytes: u32,
    /// How many bytes after those are thrown away.
    pub discard_bytes: u32,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are in, in one run from offset 0.
    pub received_bytes: u32,
    /// All the data that the device server wants is in, and none of it is in doubt.
    pub is_complete: bool,
    /// Nothing more is on its way: neither unsolicited data nor an answer to an R2T. A task that failed over its data is
    /// answered only now (§11.17.1).
    pub is_settled: bool,
    /// Why the data cannot be used, if it cannot. The task ends with [`TransferFault::condition`].
    pub fault: Option<TransferFault>,
}

/// How the data of a write can be wrong. Recovery level 0 ends the task with CHECK CONDITION and keeps the session: the
/// stream of PDUs is intact (§7.8, §7.9, §11.4.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferFault {
    /// Immediate data where ImmediateData=No was agreed (§13.11).
    ImmediateDataNotAllowed,
    /// Unsolicited data where InitialR2T=Yes was agreed, after the F bit, or for a command that writes nothing (§13.10).
    UnsolicitedDataNotAllowed,
    /// More unsolicited data than FirstBurstLength (§13.14).
    BeyondFirstBurst,
    /// More data than Expected Data Transfer Length (§11.3.4).
    BeyondExpectedLength,
    /// More data than the R2T asked for (§11.8.4).
    BeyondR2t,
    /// The F bit before the last byte that was agreed or asked for (§11.4.7.2: "incorrect amount of data").
    FinalTooEarly,
    /// The last byte that was asked for, without the F bit (§11.7.1).
    FinalMissing,
    /// DataSN skips or repeats a number: a PDU was lost (§7.9).
    DataSnOutOfOrder,
    /// Buffer Offset is not where the last PDU ended (§13.18).
    OffsetOutOfOrder,
    /// The data of a later R2T came before that of an earlier one (§13.19).
    R2tOutOfOrder,
    /// No R2T of this task has the Target Transfer Tag (§11.7.4).
    TransferTagUnknown,
    /// The LUN is not that of the command (§11.7.4).
    LunMismatch,
    /// The data digest of a Data-Out PDU is wrong: its data are discarded (§7.8).
    DataDigestWrong,
}

/// The sense that a fault earns (§11.4.7.2); always ABORTED COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The sense key.
    pub sense_key: u8,
    /// ASC.
    pub additional_sense_code: u8,
    /// ASCQ.
    pub additional_sense_code_qualifier: u8,
}

impl TransferFault {
    /// The sense data with which the command ends.
    #[must_use]
    pub const fn condition(self) -> Condition {
        let (additional_sense_code, additional_sense_code_qualifier) = match self {
            // "Unexpected unsolicited data": WRITE ERROR - UNEXPECTED UNSOLICITED DATA.
            Self::ImmediateDataNotAllowed | Self::UnsolicitedDataNotAllowed => (0x0c, 0x0c),
            // "Incorrect amount of data": WRITE ERROR - NOT ENOUGH UNSOLICITED DATA.
            Self::BeyondFirstBurst
            | Self::BeyondExpectedLength
            | Self::BeyondR2t
            | Self::FinalTooEarly
            | Self::FinalMissing => (0x0c, 0x0d),
            // "Protocol Service CRC error": what is out of sequence, or names nothing, means that a PDU was lost (§7.9).
            Self::DataSnOutOfOrder
            | Self::OffsetOutOfOrder
            | Self::R2tOutOfOrder
            | Self::TransferTagUnknown
            | Self::LunMismatch
            | Self::DataDigestWrong => (0x47, 0x05),
        };
        Condition { sense_key: 0x0b, additional_sense_code, additional_sense_code_qualifier }
    }
}

impl core::fmt::Display for TransferFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::ImmediateDataNotAllowed => "immediate data, which was negotiated away",
            Self::UnsolicitedDataNotAllowed => "unsolicited data that was not announced or not allowed",
            Self::BeyondFirstBurst => "more unsolicited data than FirstBurstLength",
            Self::BeyondExpectedLength => "more data than Expected Data Transfer Length",
            Self::BeyondR2t => "more data than the R2T asked for",
            Self::FinalTooEarly => "the F bit before the last byte",
            Self::FinalMissing => "the last byte without the F bit",
            Self::DataSnOutOfOrder => "DataSN out of order",
            Self::OffsetOutOfOrder => "Buffer Offset out of order",
            Self::R2tOutOfOrder => "the data of a later R2T before that of an earlier one",
            Self::TransferTagUnknown => "no R2T of the task has the Target Transfer Tag",
            Self::LunMismatch => "the LUN is not the command's",
            Self::DataDigestWrong => "a data digest that is not the data's",
        })
    }
}

/// The residual of a transfer (§11.4.5): `expected` is the initiator's count, `required` what the command itself would
/// move, `moved` what was moved.
pub(crate) fn residual(expected: u32, required: u64, moved: u32) -> Residual {
    let expected = u64::from(expected);
    if required > expected {
        // A count that 32 bits cannot hold is as large as they can.
        return Residual::Overflow(u32::try_from(required - expected).unwrap_or(u32::MAX));
    }
    match u32::try_from(expected - u64::from(moved))
        .expect("both fit 32 bits, and no more is moved than expected")
    {
        0 => Residual::None,
        missing => Residual::Underflow(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_moves_what_was_expected_has_no_residual() {
        assert_eq!(residual(4096, 4096, 4096), Residual::None);
        assert_eq!(residual(0, 0, 0), Residual::None);
    }

    #[test]
    fn a_command_that_would_move_more_overflows_by_the_difference_even_if_it_failed() {
        assert_eq!(residual(0, 512, 0), Residual::Overflow(512));
        assert_eq!(residual(200, 512, 200), Residual::Overflow(312));
        assert_eq!(residual(200, 512, 0), Residual::Overflow(312));
        assert_eq!(residual(0, 1 << 40, 0), Residual::Overflow(u32::MAX));
    }

    #[test]
    fn a_command_that_moved_less_underflows_by_what_is_missing() {
        assert_eq!(residual(10_000, 512, 512), Residual::Underflow(9488));
        assert_eq!(residual(4096, 4096, 1024), Residual::Underflow(3072), "it failed half-way");
        assert_eq!(residual(4096, 0, 0), Residual::Underflow(4096));
    }

    #[test]
    fn each_fault_is_an_aborted_command_with_one_of_three_conditions() {
        for (fault, code) in [
            (TransferFault::ImmediateDataNotAllowed, (0x0c, 0x0c)),
            (TransferFault::FinalTooEarly, (0x0c, 0x0d)),
            (TransferFault::DataSnOutOfOrder, (0x47, 0x05)),
        ] {
            let condition = fault.condition();
            assert_eq!(condition.sense_key, 0x0b);
            assert_eq!((condition.additional_sense_code, condition.additional_sense_code_qualifier), code);
        }
    }
}
