//! The few CDBs that a load needs (SBC-4, SPC-4), and what the answers mean.

use std::fmt;

use crate::options::Geometry;

/// TEST UNIT READY.
pub(crate) const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// READ CAPACITY (16): SERVICE ACTION IN (16), service action 10h, with its allocation length.
pub(crate) const READ_CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
/// What it returns.
pub(crate) const READ_CAPACITY_16_BYTES: u32 = 32;
/// The sense key of a unit that has to become ready.
pub(crate) const NOT_READY: u8 = 2;
/// The sense key of a unit attention.
const UNIT_ATTENTION: u8 = 6;
/// The longest CDB here.
const CDB_BYTES: usize = 16;

/// A READ or WRITE, of 10 or 16 bytes as its address needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    bytes: [u8; CDB_BYTES],
    length: usize,
}

impl Transfer {
    /// A READ or WRITE of `blocks` logical blocks at `lba`.
    pub(crate) fn new(is_write: bool, lba: u64, blocks: u32) -> Self {
        let mut bytes = [0; CDB_BYTES];
        if let (Ok(lba), Ok(blocks)) = (u32::try_from(lba), u16::try_from(blocks)) {
            bytes[0] = if is_write { 0x2a } else { 0x28 };
            bytes[2..6].copy_from_slice(&lba.to_be_bytes());
            bytes[7..9].copy_from_slice(&blocks.to_be_bytes());
            return Self { bytes, length: 10 };
        }
        bytes[0] = if is_write { 0x8a } else { 0x88 };
        bytes[2..10].copy_from_slice(&lba.to_be_bytes());
        bytes[10..14].copy_from_slice(&blocks.to_be_bytes());
        Self { bytes, length: 16 }
    }

    /// The CDB.
    pub(crate) fn cdb(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Reads the data of READ CAPACITY (16) (SBC-4 §5.17.2); `None` where it makes no disk.
pub(crate) fn geometry(data: &[u8]) -> Option<Geometry> {
    let last = u64::from_be_bytes(data.get(..8)?.try_into().ok()?);
    let block_bytes = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?);
    let sensible = block_bytes.is_power_of_two() && (512..=65_536).contains(&block_bytes);
    Some(Geometry { block_bytes, blocks: last.checked_add(1)? }).filter(|_| sensible)
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Good,
    /// CHECK CONDITION with this sense key and additional sense.
    Check {
        key: u8,
        code: u8,
        qualifier: u8,
    },
    /// Another status.
    Status(u8),
}

const STATUS_CHECK_CONDITION: u8 = 0x02;
const STATUS_BUSY: u8 = 0x08;
const STATUS_TASK_SET_FULL: u8 = 0x28;

impl Answer {
    /// What a status and its sense data say, in both formats (SPC-4 §4.5).
    pub(crate) fn of(status: u8, sense: &[u8]) -> Self {
        let byte = |at: usize| sense.get(at).copied().unwrap_or(0);
        match (status, byte(0) & 0x7f) {
            (0, _) => Self::Good,
            (STATUS_CHECK_CONDITION, 0x72 | 0x73) => {
                Self::Check { key: byte(1) & 0x0f, code: byte(2), qualifier: byte(3) }
            }
            (STATUS_CHECK_CONDITION, _) => {
                Self::Check { key: byte(2) & 0x0f, code: byte(12), qualifier: byte(13) }
            }
            (status, _) => Self::Status(status),
        }
    }

    /// Whether the same command is worth sending again.
    pub(crate) fn is_passing(self) -> bool {
        match self {
            Self::Good => false,
            Self::Check { key, .. } => key == UNIT_ATTENTION,
            Self::Status(status) => matches!(status, STATUS_BUSY | STATUS_TASK_SET_FULL),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("GOOD"),
            Self::Check { key, code, qualifier } => {
                write!(
                    f,
                    "CHECK CONDITION, sense key {key:X}h, additional sense {code:02X}h/{qualifier:02X}h"
                )
            }
            Self::Status(STATUS_BUSY) => f.write_str("BUSY"),
            Self::Status(0x18) => f.write_str("RESERVATION CONFLICT"),
            Self::Status(STATUS_TASK_SET_FULL) => f.write_str("TASK SET FULL"),
            Self::Status(0x40) => f.write_str("TASK ABORTED"),
            Self::Status(status) => write!(f, "status {status:02X}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_takes_ten_bytes_where_its_address_fits() {
        assert_eq!(Transfer::new(false, 0x0102_0304, 8).cdb(), [0x28, 0, 1, 2, 3, 4, 0, 0, 8, 0]);
        assert_eq!(Transfer::new(true, u64::from(u32::MAX), 0xffff).cdb()[0], 0x2a);
        let long = Transfer::new(true, 1 << 32, 8);
        assert_eq!(long.cdb(), [0x8a, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
        assert_eq!(Transfer::new(false, 0, 0x1_0000).cdb()[0], 0x88);
    }

    #[test]
    fn a_geometry_is_one_more_than_the_last_block() {
        let mut data = [0; 32];
        data[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0x07, 0xff, 0, 0, 2, 0]);
        assert_eq!(geometry(&data), Some(Geometry { block_bytes: 512, blocks: 2048 }));
        assert_eq!(geometry(&data[..11]), None);
        data[11] = 1;
        assert_eq!(geometry(&data), None, "blocks of 513 bytes");
    }

    #[test]
    fn sense_is_read_in_both_formats() {
        let fixed = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 1, 0, 0, 0, 0];
        let descriptor = [0x72, 6, 0x29, 1, 0, 0, 0, 0];
        let expected = Answer::Check { key: 6, code: 0x29, qualifier: 1 };
        assert_eq!([Answer::of(2, &fixed), Answer::of(2, &descriptor)], [expected; 2]);
        assert!(expected.is_passing());
        assert_eq!(expected.to_string(), "CHECK CONDITION, sense key 6h, additional sense 29h/01h");
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        assert!(Answer::of(0x08, &[]).is_passing() && Answer::of(0x28, &[]).is_passing());
        assert!(!Answer::of(0x18, &[]).is_passing() && !Answer::of(0, &[]).is_passing());
        assert!(!Answer::of(2, &[0x70, 0, 3]).is_passing());
    }
}
