//! Outcomes of commands and their sense data, in fixed and in descriptor format (SPC-4 §4.5).
//!
//! Everything is `Copy` and of fixed size: an error costs the data path no allocation. The format is chosen when the
//! bytes are made, from the control mode page's D_SENSE at that moment, so an [`Outcome`] outlives a mode change.

use crate::bits::Status;

/// Sense key (SPC-4 table 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SenseKey {
    /// Nothing to report.
    NoSense = 0x0,
    /// Done, with some recovery.
    RecoveredError = 0x1,
    /// The logical unit is not accessible.
    NotReady = 0x2,
    /// The medium failed.
    MediumError = 0x3,
    /// The device failed.
    HardwareError = 0x4,
    /// The command or its parameters are wrong.
    IllegalRequest = 0x5,
    /// Something happened that this nexus has not been told yet.
    UnitAttention = 0x6,
    /// The medium is protected against this access.
    DataProtect = 0x7,
    /// A copy ended with an error at its source or its destination.
    CopyAborted = 0xa,
    /// The device server gave the command up.
    AbortedCommand = 0xb,
    /// The data did not compare.
    Miscompare = 0xe,
}

/// Additional sense code and its qualifier (SPC-4 annex F), as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdditionalSense {
    /// ADDITIONAL SENSE CODE.
    pub code: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub qualifier: u8,
}

macro_rules! additional_sense {
    ($($(#[$doc:meta])* $name:ident = $code:literal / $qualifier:literal;)*) => {
        impl AdditionalSense {
            $($(#[$doc])* pub const $name: Self = Self { code: $code, qualifier: $qualifier };)*
        }
    };
}

additional_sense! {
    /// Nothing to add.
    NONE = 0x00 / 0x00;
    /// OPERATION IN PROGRESS.
    OPERATION_IN_PROGRESS = 0x00 / 0x16;
    /// LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE.
    NOT_READY_CAUSE_NOT_REPORTABLE = 0x04 / 0x00;
    /// LOGICAL UNIT IS IN PROCESS OF BECOMING READY.
    BECOMING_READY = 0x04 / 0x01;
    /// LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED.
    INITIALIZING_COMMAND_REQUIRED = 0x04 / 0x02;
    /// LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED.
    MANUAL_INTERVENTION_REQUIRED = 0x04 / 0x03;
    /// LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION.
    ASYMMETRIC_ACCESS_STATE_TRANSITION = 0x04 / 0x0a;
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE.
    TARGET_PORT_IN_STANDBY_STATE = 0x04 / 0x0b;
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE.
    TARGET_PORT_IN_UNAVAILABLE_STATE = 0x04 / 0x0c;
    /// LOGICAL UNIT NOT READY, OFFLINE.
    LOGICAL_UNIT_OFFLINE = 0x04 / 0x12;
    /// LOGICAL UNIT NOT READY, FORMAT IN PROGRESS.
    FORMAT_IN_PROGRESS = 0x04 / 0x04;
    /// LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
    SANITIZE_IN_PROGRESS = 0x04 / 0x1b;
    /// LOGICAL UNIT COMMUNICATION FAILURE.
    COMMUNICATION_FAILURE = 0x08 / 0x00;
    /// LOGICAL UNIT COMMUNICATION TIME-OUT.
    LOGICAL_UNIT_COMMUNICATION_TIMEOUT = 0x08 / 0x01;
    /// WRITE ERROR.
    WRITE_ERROR = 0x0c / 0x00;
    /// WRITE ERROR - UNEXPECTED UNSOLICITED DATA (RFC 7143 §11.4.7.2).
    UNEXPECTED_UNSOLICITED_DATA = 0x0c / 0x0c;
    /// WRITE ERROR - NOT ENOUGH UNSOLICITED DATA (RFC 7143 §11.4.7.2).
    NOT_ENOUGH_UNSOLICITED_DATA = 0x0c / 0x0d;
    /// THIRD PARTY DEVICE FAILURE.
    THIRD_PARTY_DEVICE_FAILURE = 0x0d / 0x01;
    /// COPY TARGET DEVICE NOT REACHABLE.
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0d / 0x02;
    /// INCORRECT COPY TARGET DEVICE TYPE.
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0d / 0x03;
    /// UNRECOVERED READ ERROR.
    UNRECOVERED_READ_ERROR = 0x11 / 0x00;
    /// READ ERROR - FAILED RETRANSMISSION REQUEST: a SNACK was rejected (RFC 7143 §11.4.7.2).
    SNACK_REJECTED = 0x11 / 0x13;
    /// PARAMETER LIST LENGTH ERROR.
    PARAMETER_LIST_LENGTH_ERROR = 0x1a / 0x00;
    /// MISCOMPARE DURING VERIFY OPERATION.
    MISCOMPARE_DURING_VERIFY = 0x1d / 0x00;
    /// INVALID COMMAND OPERATION CODE.
    INVALID_OPERATION_CODE = 0x20 / 0x00;
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    LBA_OUT_OF_RANGE = 0x21 / 0x00;
    /// UNSUPPORTED TOKEN TYPE.
    UNSUPPORTED_TOKEN_TYPE = 0x23 / 0x01;
    /// REMOTE TOKEN USAGE NOT SUPPORTED.
    REMOTE_TOKEN_USAGE_NOT_SUPPORTED = 0x23 / 0x02;
    /// TOKEN UNKNOWN.
    TOKEN_UNKNOWN = 0x23 / 0x04;
    /// TOKEN CORRUPT.
    TOKEN_CORRUPT = 0x23 / 0x05;
    /// TOKEN REVOKED.
    TOKEN_REVOKED = 0x23 / 0x06;
    /// TOKEN EXPIRED.
    TOKEN_EXPIRED = 0x23 / 0x07;
    /// TOKEN DELETED.
    TOKEN_DELETED = 0x23 / 0x09;
    /// INVALID TOKEN LENGTH.
    INVALID_TOKEN_LENGTH = 0x23 / 0x0a;
    /// INVALID FIELD IN CDB.
    INVALID_FIELD_IN_CDB = 0x24 / 0x00;
    /// LOGICAL UNIT NOT SUPPORTED.
    LOGICAL_UNIT_NOT_SUPPORTED = 0x25 / 0x00;
    /// INVALID FIELD IN PARAMETER LIST.
    INVALID_FIELD_IN_PARAMETER_LIST = 0x26 / 0x00;
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x26 / 0x04;
    /// TOO MANY TARGET DESCRIPTORS.
    TOO_MANY_TARGET_DESCRIPTORS = 0x26 / 0x06;
    /// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE = 0x26 / 0x07;
    /// TOO MANY SEGMENT DESCRIPTORS.
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x26 / 0x08;
    /// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE = 0x26 / 0x09;
    /// UNEXPECTED INEXACT SEGMENT.
    UNEXPECTED_INEXACT_SEGMENT = 0x26 / 0x0a;
    /// WRITE PROTECTED.
    WRITE_PROTECTED = 0x27 / 0x00;
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    SOFTWARE_WRITE_PROTECTED = 0x27 / 0x02;
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    SPACE_ALLOCATION_FAILED = 0x27 / 0x07;
    /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
    MEDIUM_MAY_HAVE_CHANGED = 0x28 / 0x00;
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    POWER_ON_OR_RESET = 0x29 / 0x00;
    /// SCSI BUS RESET OCCURRED: a target reset, as iSCSI has it.
    HARD_RESET = 0x29 / 0x02;
    /// BUS DEVICE RESET FUNCTION OCCURRED: a logical unit reset.
    LOGICAL_UNIT_RESET = 0x29 / 0x03;
    /// I_T NEXUS LOSS OCCURRED.
    NEXUS_LOSS = 0x29 / 0x07;
    /// MODE PARAMETERS CHANGED.
    MODE_PARAMETERS_CHANGED = 0x2a / 0x01;
    /// RESERVATIONS PREEMPTED.
    RESERVATIONS_PREEMPTED = 0x2a / 0x03;
    /// RESERVATIONS RELEASED.
    RESERVATIONS_RELEASED = 0x2a / 0x04;
    /// REGISTRATIONS PREEMPTED.
    REGISTRATIONS_PREEMPTED = 0x2a / 0x05;
    /// ASYMMETRIC ACCESS STATE CHANGED.
    ASYMMETRIC_ACCESS_CHANGED = 0x2a / 0x06;
    /// CAPACITY DATA HAS CHANGED.
    CAPACITY_CHANGED = 0x2a / 0x09;
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    COMMANDS_CLEARED = 0x2f / 0x00;
    /// MEDIUM FORMAT CORRUPTED.
    MEDIUM_FORMAT_CORRUPTED = 0x31 / 0x00;
    /// FORMAT COMMAND FAILED.
    FORMAT_FAILED = 0x31 / 0x01;
    /// SANITIZE COMMAND FAILED.
    SANITIZE_FAILED = 0x31 / 0x03;
    /// THIN PROVISIONING SOFT THRESHOLD REACHED.
    SOFT_THRESHOLD_REACHED = 0x38 / 0x07;
    /// SAVING PARAMETERS NOT SUPPORTED.
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x39 / 0x00;
    /// MEDIUM NOT PRESENT.
    MEDIUM_NOT_PRESENT = 0x3a / 0x00;
    /// INQUIRY DATA HAS CHANGED.
    INQUIRY_DATA_CHANGED = 0x3f / 0x03;
    /// REPORTED LUNS DATA HAS CHANGED.
    REPORTED_LUNS_CHANGED = 0x3f / 0x0e;
    /// INTERNAL TARGET FAILURE.
    INTERNAL_TARGET_FAILURE = 0x44 / 0x00;
    /// PROTOCOL SERVICE CRC ERROR (RFC 7143 §11.4.7.2).
    PROTOCOL_SERVICE_CRC_ERROR = 0x47 / 0x05;
    /// SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT (RFC 7143 §11.4.7.2).
    COMMANDS_CLEARED_BY_PROTOCOL = 0x47 / 0x7f;
    /// INVALID MESSAGE ERROR: a command with the ACA attribute where there is no ACA (SAM-5 §8.6.5).
    INVALID_MESSAGE_ERROR = 0x49 / 0x00;
    /// MEDIUM REMOVAL PREVENTED.
    MEDIUM_REMOVAL_PREVENTED = 0x53 / 0x02;
    /// INSUFFICIENT RESOURCES.
    INSUFFICIENT_RESOURCES = 0x55 / 0x03;
    /// INSUFFICIENT REGISTRATION RESOURCES.
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x55 / 0x04;
    /// SET TARGET PORT GROUPS COMMAND FAILED.
    SET_TARGET_PORT_GROUPS_FAILED = 0x67 / 0x0a;
}

/// Which field was wrong: sense-key-specific data of ILLEGAL REQUEST (SPC-4 §4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// C/D: the field is in the CDB (true) or in the parameter list (false).
    pub in_cdb: bool,
    /// Index of the byte that holds the field's first bit.
    pub byte: u16,
    /// The field's most significant bit in that byte (7 to 0), where it is not the whole byte.
    pub bit: Option<u8>,
}

/// Fixed format or descriptor format: the control mode page's D_SENSE, or REQUEST SENSE's DESC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SenseFormat {
    /// Response code 70h.
    #[default]
    Fixed,
    /// Response code 72h.
    Descriptor,
}

/// Sense data as a value, before a format is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: SenseKey,
    /// Additional sense code and qualifier.
    pub additional: AdditionalSense,
    /// INFORMATION: an LBA, or a byte offset for MISCOMPARE.
    pub information: Option<u64>,
    /// The field that is wrong.
    pub pointer: Option<FieldPointer>,
    /// What is particular to the sense key.
    pub detail: Option<Detail>,
}

/// What sense data say besides, which no two keys do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// PROGRESS INDICATION, parts of 65536, of a unit that is not ready for a while.
    Progress(u16),
    /// The segment at which a copy ended, and what a unit of it ended with.
    Segment(u16, Option<Forwarded>),
}

/// What a copy's source or destination answered the copy manager with (SPC-4 §5.16.7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// It is the destination.
    pub by_destination: bool,
    status: Status,
    /// Sense key, code and INFORMATION of its sense data, where it has any.
    sense: Option<(SenseKey, AdditionalSense, Option<u64>)>,
}

impl Forwarded {
    /// Of the unit that a command ended at with `outcome`.
    pub fn new(by_destination: bool, outcome: &Outcome) -> Self {
        let Outcome { status, sense } = outcome;
        let sense = sense.map(|sense| (sense.key, sense.additional, sense.information));
        Self { by_destination, status: *status, sense }
    }

    /// Its sense data, none with a status other than CHECK CONDITION.
    fn sense_data(&self, format: SenseFormat) -> Option<SenseData> {
        let (key, additional, information) = self.sense?;
        Some(Sense { information, ..Sense::new(key, additional) }.encode(format))
    }

    /// The status and the sense data, in fixed format as all of it: where they begin is told by COMMAND-SPECIFIC INFORMATION.
    fn append_fixed(&self, bytes: &mut [u8; SENSE_BYTES_MAX]) -> u8 {
        bytes[8 + usize::from(self.by_destination)] = FIXED_BYTES;
        let area = &mut bytes[usize::from(FIXED_BYTES)..];
        area[0] = self.status as u8;
        let Some(data) = self.sense_data(SenseFormat::Fixed) else { return 1 };
        area[1..=data.as_bytes().len()].copy_from_slice(data.as_bytes());
        1 + data.length
    }

    /// The forwarded sense data descriptor (SPC-4 §4.5.2.8), SENSE DATA SOURCE 1 for the source and 2 for the destination.
    fn append_descriptor(&self, bytes: &mut [u8]) -> u8 {
        let data = self.sense_data(SenseFormat::Descriptor);
        let data = data.as_ref().map_or(&[][..], |data| data.as_bytes());
        let length = u8::try_from(data.len()).expect("sense data are short");
        bytes[..4].copy_from_slice(&[0x0c, 2 + length, 1 + u8::from(self.by_destination), self.status as u8]);
        bytes[4..4 + data.len()].copy_from_slice(data);
        4 + length
    }
}

/// Bytes of sense data in fixed format, as far as the standard names them.
const FIXED_BYTES: u8 = 18;

impl Sense {
    /// Sense data with neither INFORMATION nor anything that is specific to its key.
    pub const fn new(key: SenseKey, additional: AdditionalSense) -> Self {
        Self { key, additional, information: None, pointer: None, detail: None }
    }

    /// The same with INFORMATION.
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    /// The same with PROGRESS INDICATION.
    pub(crate) const fn with_progress(mut self, progress: u16) -> Self {
        self.detail = Some(Detail::Progress(progress));
        self
    }

    /// The same with the segment of a copy, and what a unit of it ended with.
    pub const fn with_segment(mut self, segment: u16, forwarded: Option<Forwarded>) -> Self {
        self.detail = Some(Detail::Segment(segment, forwarded));
        self
    }

    /// The sense-key-specific bytes: a field pointer or a progress indication (SPC-4 §4.5.2.4).
    fn specific(&self) -> Option<[u8; 3]> {
        let progress = match self.detail {
            Some(Detail::Progress(progress)) => {
                let [high, low] = progress.to_be_bytes();
                Some([0x80, high, low])
            }
            Some(Detail::Segment(..)) | None => None,
        };
        self.pointer.map(FieldPointer::encode).or(progress)
    }

    /// INVALID FIELD IN CDB, pointing at `byte` and at `bit` of it.
    pub const fn invalid_cdb_field(byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Self::new(SenseKey::IllegalRequest, AdditionalSense::INVALID_FIELD_IN_CDB);
        sense.pointer = Some(FieldPointer { in_cdb: true, byte, bit });
        sense
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at `byte` and at `bit` of it.
    pub const fn invalid_parameter(byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Self::new(SenseKey::IllegalRequest, AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST);
        sense.pointer = Some(FieldPointer { in_cdb: false, byte, bit });
        sense
    }

    /// The bytes that travel: from 18 on in fixed format, from 8 on in descriptor format, [`SENSE_BYTES_MAX`] at most.
    pub fn encode(&self, format: SenseFormat) -> SenseData {
        match format {
            SenseFormat::Fixed => self.encode_fixed(),
            SenseFormat::Descriptor => self.encode_descriptors(),
        }
    }

    /// SPC-4 §4.5.3. VALID stays zero when INFORMATION does not fit its four bytes.
    fn encode_fixed(&self) -> SenseData {
        let mut bytes = [0; SENSE_BYTES_MAX];
        bytes[0] = 0x70;
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[2] = self.key as u8;
        let mut length = FIXED_BYTES;
        if let Some(Detail::Segment(segment, forwarded)) = self.detail {
            bytes[10..12].copy_from_slice(&segment.to_be_bytes());
            length += forwarded.map_or(0, |forwarded| forwarded.append_fixed(&mut bytes));
        }
        bytes[7] = length - 8;
        bytes[12] = self.additional.code;
        bytes[13] = self.additional.qualifier;
        if let Some(specific) = self.specific() {
            bytes[15..18].copy_from_slice(&specific);
        }
        SenseData { bytes, length }
    }

    /// SPC-4 §4.5.2.
    fn encode_descriptors(&self) -> SenseData {
        let mut bytes = [0; SENSE_BYTES_MAX];
        bytes[0] = 0x72;
        bytes[1] = self.key as u8;
        bytes[2] = self.additional.code;
        bytes[3] = self.additional.qualifier;
        let mut end: u8 = 8;
        if let Some(information) = self.information {
            let at = usize::from(end);
            bytes[at..at + 4].copy_from_slice(&[0x00, 0x0a, 0x80, 0]);
            bytes[at + 4..at + 12].copy_from_slice(&information.to_be_bytes());
            end += 12;
        }
        if let Some(Detail::Segment(segment, forwarded)) = self.detail {
            let at = usize::from(end);
            bytes[at..at + 2].copy_from_slice(&[0x01, 0x0a]);
            bytes[at + 10..at + 12].copy_from_slice(&segment.to_be_bytes());
            end += 12;
            end += forwarded.map_or(0, |forwarded| forwarded.append_descriptor(&mut bytes[at + 12..]));
        }
        if let Some(specific) = self.specific() {
            let at = usize::from(end);
            bytes[at..at + 2].copy_from_slice(&[0x02, 0x06]);
            bytes[at + 4..at + 7].copy_from_slice(&specific);
            end += 8;
        }
        bytes[7] = end - 8;
        SenseData { bytes, length: end }
    }
}

impl FieldPointer {
    /// SKSV, C/D, BPV, BIT POINTER, FIELD POINTER.
    fn encode(self) -> [u8; 3] {
        let target = if self.in_cdb { 0x40 } else { 0 };
        let bit = self.bit.map_or(0, |bit| 0x08 | bit & 0x07);
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | target | bit, high, low]
    }
}

/// Most bytes of sense data that this crate makes: header, a command-specific information descriptor and a forwarded sense
/// data descriptor, whose sense data have a header and an information descriptor.
pub const SENSE_BYTES_MAX: usize = 8 + 12 + (4 + 8 + 12);
/// An information, a command-specific information and a sense-key-specific descriptor are shorter, and so is fixed format.
const _: () = assert!(SENSE_BYTES_MAX >= 8 + 12 + 12 + 8 && SENSE_BYTES_MAX > 2 * FIXED_BYTES as usize);
/// What SPC-4 §4.5.1 allows at most.
const _: () = assert!(SENSE_BYTES_MAX <= 252);

/// Encoded sense data of up to [`SENSE_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenseData {
    bytes: [u8; SENSE_BYTES_MAX],
    length: u8,
}

impl SenseData {
    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// How a command ended: its status, and sense data with CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Status.
    pub status: Status,
    /// Sense data; present exactly with CHECK CONDITION.
    pub sense: Option<Sense>,
}

impl Outcome {
    /// GOOD.
    pub const GOOD: Self = Self::of(Status::Good);
    /// BUSY: try again.
    pub const BUSY: Self = Self::of(Status::Busy);
    /// RESERVATION CONFLICT.
    pub const RESERVATION_CONFLICT: Self = Self::of(Status::ReservationConflict);
    /// TASK SET FULL.
    pub const TASK_SET_FULL: Self = Self::of(Status::TaskSetFull);
    /// ACA ACTIVE.
    pub const ACA_ACTIVE: Self = Self::of(Status::AcaActive);
    /// TASK ABORTED.
    pub const TASK_ABORTED: Self = Self::of(Status::TaskAborted);

    const fn of(status: Status) -> Self {
        Self { status, sense: None }
    }

    /// CHECK CONDITION with `sense`.
    pub const fn check(sense: Sense) -> Self {
        Self { status: Status::CheckCondition, sense: Some(sense) }
    }

    /// ILLEGAL REQUEST with `additional`.
    pub const fn illegal(additional: AdditionalSense) -> Self {
        Self::check(Sense::new(SenseKey::IllegalRequest, additional))
    }

    /// INVALID FIELD IN CDB at `byte`, most significant wrong bit `bit`.
    pub const fn invalid_cdb_field(byte: u16, bit: Option<u8>) -> Self {
        Self::check(Sense::invalid_cdb_field(byte, bit))
    }

    /// COPY ABORTED.
    pub const fn copy_aborted(additional: AdditionalSense) -> Self {
        Self::check(Sense::new(SenseKey::CopyAborted, additional))
    }

    /// COPY ABORTED at this segment.
    pub const fn copy_failed(additional: AdditionalSense, segment: u16) -> Self {
        Self::check(Sense::new(SenseKey::CopyAborted, additional).with_segment(segment, None))
    }

    /// COPY ABORTED at this segment by what its source or destination ended with.
    pub const fn third_party_failed(segment: u16, forwarded: Forwarded) -> Self {
        let sense = Sense::new(SenseKey::CopyAborted, AdditionalSense::THIRD_PARTY_DEVICE_FAILURE);
        Self::check(sense.with_segment(segment, Some(forwarded)))
    }

    /// INVALID FIELD IN PARAMETER LIST at `byte`, most significant wrong bit `bit`.
    pub const fn invalid_parameter(byte: u16, bit: Option<u8>) -> Self {
        Self::check(Sense::invalid_parameter(byte, bit))
    }

    /// LOGICAL BLOCK ADDRESS OUT OF RANGE, INFORMATION naming the first LBA that is not there (SBC-3 §4.16).
    pub const fn out_of_range(lba: u64) -> Self {
        let sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense::LBA_OUT_OF_RANGE);
        Self::check(sense.with_information(lba))
    }

    /// MISCOMPARE, INFORMATION giving the offset in bytes of the first difference in the data-out buffer.
    pub const fn miscompare(offset_bytes: u64) -> Self {
        let sense = Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY);
        Self::check(sense.with_information(offset_bytes))
    }

    /// The medium could not be read at `lba`.
    pub const fn read_error(lba: u64) -> Self {
        let sense = Sense::new(SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR);
        Self::check(sense.with_information(lba))
    }

    /// The medium could not be written at `lba`.
    pub const fn write_error(lba: u64) -> Self {
        let sense = Sense::new(SenseKey::MediumError, AdditionalSense::WRITE_ERROR);
        Self::check(sense.with_information(lba))
    }

    /// There is no space left under a thin logical unit (SBC-3 §4.7.3.6).
    pub const fn out_of_space() -> Self {
        Self::check(Sense::new(SenseKey::DataProtect, AdditionalSense::SPACE_ALLOCATION_FAILED))
    }

    /// The device server gave the command up for a reason of the transport, as RFC 7143 §11.4.7.2 lists them.
    pub const fn aborted(additional: AdditionalSense) -> Self {
        Self::check(Sense::new(SenseKey::AbortedCommand, additional))
    }

    /// Something in the gateway failed that is neither the medium's nor the initiator's fault.
    pub const fn internal_failure() -> Self {
        Self::check(Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE))
    }

    /// Encoded sense data, where there is any.
    pub fn sense_data(&self, format: SenseFormat) -> Option<SenseData> {
        self.sense.map(|sense| sense.encode(format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_carries_a_small_lba_and_marks_it_valid() {
        let data = Outcome::out_of_range(0x1234).sense_data(SenseFormat::Fixed).unwrap();
        assert_eq!(data.as_bytes(), [0xf0, 0, 5, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0],);
    }

    #[test]
    fn fixed_format_leaves_an_lba_beyond_32_bits_out_and_valid_zero() {
        let data = Outcome::out_of_range(1 << 32).sense_data(SenseFormat::Fixed).unwrap();
        assert_eq!(data.as_bytes()[..7], [0x70, 0, 5, 0, 0, 0, 0]);
    }

    #[test]
    fn descriptor_format_carries_any_lba() {
        let data = Outcome::out_of_range(0x0102_0304_0506_0708).sense_data(SenseFormat::Descriptor).unwrap();
        assert_eq!(data.as_bytes(), [0x72, 5, 0x21, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8],);
    }

    #[test]
    fn a_wrong_cdb_field_is_pointed_at_in_both_formats() {
        let outcome = Outcome::invalid_cdb_field(2, Some(6));
        let fixed = outcome.sense_data(SenseFormat::Fixed).unwrap();
        assert_eq!(fixed.as_bytes()[12..], [0x24, 0, 0, 0xce, 0, 2]);
        let descriptors = outcome.sense_data(SenseFormat::Descriptor).unwrap();
        assert_eq!(descriptors.as_bytes()[7..], [8, 2, 6, 0, 0, 0xce, 0, 2, 0]);
    }

    #[test]
    fn progress_is_told_in_both_formats() {
        let sense =
            Sense::new(SenseKey::NotReady, AdditionalSense::SANITIZE_IN_PROGRESS).with_progress(0x1234);
        assert_eq!(sense.encode(SenseFormat::Fixed).as_bytes()[12..], [0x04, 0x1b, 0, 0x80, 0x12, 0x34]);
        let descriptors = sense.encode(SenseFormat::Descriptor);
        assert_eq!(descriptors.as_bytes()[7..], [8, 2, 6, 0, 0, 0x80, 0x12, 0x34, 0]);
    }

    /// The area of the status and the sense data is told by its first byte's number, source's and destination's apart.
    #[test]
    fn what_a_unit_of_a_copy_ended_with_is_told_in_both_formats() {
        let of_source = Forwarded::new(false, &Outcome::read_error(0x1234));
        let outcome = Outcome::third_party_failed(7, of_source);
        let fixed = outcome.sense_data(SenseFormat::Fixed).unwrap();
        assert_eq!(fixed.as_bytes()[..8], [0x70, 0, 0x0a, 0, 0, 0, 0, 29]);
        assert_eq!(fixed.as_bytes()[8..18], [18, 0, 0, 7, 0x0d, 0x01, 0, 0, 0, 0]);
        let read_error = [0xf0, 0, 0x03, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0];
        assert_eq!((fixed.as_bytes()[18], &fixed.as_bytes()[19..]), (0x02, &read_error[..]));

        let descriptors = outcome.sense_data(SenseFormat::Descriptor).unwrap();
        assert_eq!(descriptors.as_bytes().len(), SENSE_BYTES_MAX);
        assert_eq!(descriptors.as_bytes()[..8], [0x72, 0x0a, 0x0d, 0x01, 0, 0, 0, 36]);
        assert_eq!(descriptors.as_bytes()[8..20], [0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        let read_error = [0x72, 0x03, 0x11, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
        assert_eq!(descriptors.as_bytes()[20..24], [0x0c, 22, 0x01, 0x02]);
        assert_eq!(descriptors.as_bytes()[24..], read_error);
    }

    #[test]
    fn a_destination_that_is_reserved_has_a_status_and_no_sense_data() {
        let of_destination = Forwarded::new(true, &Outcome::RESERVATION_CONFLICT);
        let outcome = Outcome::third_party_failed(0, of_destination);
        let fixed = outcome.sense_data(SenseFormat::Fixed).unwrap();
        assert_eq!(fixed.as_bytes()[7..12], [11, 0, 18, 0, 0]);
        assert_eq!(fixed.as_bytes()[18..], [0x18]);
        let descriptors = outcome.sense_data(SenseFormat::Descriptor).unwrap();
        assert_eq!(descriptors.as_bytes()[20..], [0x0c, 2, 0x02, 0x18]);
    }

    #[test]
    fn a_wrong_parameter_field_is_not_said_to_be_in_the_cdb() {
        let sense = Sense::invalid_parameter(0x102, None);
        assert_eq!(sense.encode(SenseFormat::Fixed).as_bytes()[15..], [0x80, 1, 2]);
    }
}
