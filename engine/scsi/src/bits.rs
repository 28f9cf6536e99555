//! Codes and field readers that several chapters of this crate share: status codes (SAM-5 §5.3.1), peripheral
//! qualifiers and device types (SPC-4 §6.6.2), and big-endian access to fields of bytes.
//!
//! Nothing here decides anything.

/// How a command ended (SAM-5 §5.3.1). The number is the one that travels in the SCSI Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Completed without an error.
    Good = 0x00,
    /// Sense data says what happened.
    CheckCondition = 0x02,
    /// The compared condition was met (PRE-FETCH).
    ConditionMet = 0x04,
    /// The logical unit cannot accept the command just now.
    Busy = 0x08,
    /// A reservation held by another I_T nexus refuses the command.
    ReservationConflict = 0x18,
    /// The task set has no room.
    TaskSetFull = 0x28,
    /// An auto contingent allegiance refuses the command.
    AcaActive = 0x30,
    /// The task was aborted by another I_T nexus, and TAS is one.
    TaskAborted = 0x40,
}

impl Status {
    /// The code of SAM-5 table 42.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Peripheral qualifier 000b, direct-access block device (type 00h).
pub(crate) const PERIPHERAL_DISK: u8 = 0x00;
/// Peripheral qualifier 001b, direct-access block device: not connected by this path.
pub(crate) const PERIPHERAL_DISK_NOT_CONNECTED: u8 = 0x20;
/// Peripheral qualifier 001b, type 1Fh: a logical unit to which no device is connected (SPC-4 §6.6.2).
pub(crate) const PERIPHERAL_NOT_CONNECTED: u8 = 0x3f;
/// Peripheral qualifier 000b, well known logical unit (type 1Eh).
pub(crate) const PERIPHERAL_WELL_KNOWN: u8 = 0x1e;
/// Peripheral qualifier 011b, type 1Fh: this LUN cannot hold a logical unit here.
pub(crate) const PERIPHERAL_ABSENT: u8 = 0x7f;
/// VERSION field of standard INQUIRY data: SPC-4.
pub(crate) const VERSION_SPC4: u8 = 0x06;
/// RESPONSE DATA FORMAT 2, the only one that SPC-2 and later have.
pub(crate) const RESPONSE_DATA_FORMAT: u8 = 0x02;

/// Big-endian field of `N` bytes at `at`, as a number.
///
/// # Panics
/// When the field does not lie inside `bytes`: callers have checked the length.
pub(crate) fn be<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    const { assert!(N <= 8) };
    bytes[at..at + N].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Big-endian 16-bit field.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Big-endian 32-bit field.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `value`, or all ones where the field is too narrow for it (READ CAPACITY (10), short block descriptors).
pub(crate) fn saturate32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
