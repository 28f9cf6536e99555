//! How long a PDU is, read from its first 48 bytes (RFC 7143 §11.2).
//!
//! `BHS | AHS | header digest | data segment | padding | data digest`, each part but the first optional. The bytes are the
//! caller's, and stay there: this module only counts.

use crate::digest::{self, DigestField};
use crate::violation::Violation;
use crate::wire::ahs::AHS_BYTES_MAX;
use crate::wire::{BHS_BYTES, Bhs, DATA_SEGMENT_BYTES_MAX, data_segment_length, opcode, total_ahs_words};

/// The unit of AHS and of padding (§11.1).
pub const WORD_BYTES: u32 = 4;
/// The length of a CRC32C digest (§11.2.3).
pub const DIGEST_BYTES: u32 = 4;
/// The longest header: BHS, AHS and digest.
pub const HEADER_BYTES_MAX: usize = BHS_BYTES + AHS_BYTES_MAX + DIGEST_BYTES as usize;
/// The longest PDU that passes [`Lengths::of`].
pub const PDU_BYTES_MAX: u32 = {
    assert!(BHS_BYTES + AHS_BYTES_MAX < 1 << 16);
    (1 << 16) + DIGEST_BYTES + DATA_SEGMENT_BYTES_MAX + (WORD_BYTES - 1) + DIGEST_BYTES
};

const BHS_BYTES_32: u32 = 48;
const _: () = assert!(BHS_BYTES_32 as usize == BHS_BYTES);

/// Which digests the connection has agreed on. They start with the full feature phase (§13.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// HeaderDigest=CRC32C
    pub header: bool,
    /// DataDigest=CRC32C
    pub data: bool,
}

impl Digests {
    /// As in every login phase.
    pub const NONE: Self = Self { header: false, data: false };

    /// The header digest that follows these bytes, BHS and AHS; `None` where there is none.
    #[must_use]
    pub fn of_header(self, header: &[u8]) -> Option<DigestField> {
        self.header.then(|| digest::field_of(header))
    }

    /// Checks a whole header, its digest included where it has one.
    ///
    /// # Errors
    /// The digest is not that of the bytes before it.
    pub fn check_header(self, header: &[u8]) -> Result<(), Violation> {
        if !self.header {
            return Ok(());
        }
        let (bytes, field) = header.split_last_chunk().expect("a header is longer than its digest");
        if digest::field_of(bytes) == *field { Ok(()) } else { Err(Violation::HeaderDigestWrong) }
    }
}

/// The parts of one PDU that follow its BHS, in the order in which they come, each in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Additional Header Segments; a multiple of 4.
    pub ahs_bytes: u32,
    /// 0 or 4.
    pub header_digest_bytes: u32,
    /// The data segment itself.
    pub data_segment_bytes: u32,
    /// 0 to 3, to the next multiple of 4.
    pub padding_bytes: u32,
    /// 0 or 4; a data segment of length 0 has none (§11.2.1.6).
    pub data_digest_bytes: u32,
}

impl Lengths {
    /// Reads the lengths of the PDU that `bhs` begins, before anything else of it is believed.
    ///
    /// `data_segment_bytes_max` is what this end declared as MaxRecvDataSegmentLength (during login 8192,
    /// §13.12).
    ///
    /// # Errors
    /// More AHS or more data than that; neither can be skipped within a bound, so the connection is lost.
    pub fn of(bhs: &Bhs, digests: Digests, data_segment_bytes_max: u32) -> Result<Self, Violation> {
        let ahs_bytes = u32::from(total_ahs_words(bhs)) * WORD_BYTES;
        if ahs_bytes as usize > AHS_BYTES_MAX {
            return Err(Violation::AhsTooLong { length: ahs_bytes });
        }
        let length = data_segment_length(bhs);
        if length > data_segment_bytes_max {
            let maximum = data_segment_bytes_max;
            return Err(Violation::DataSegmentTooLong { opcode: opcode(bhs), length, maximum });
        }
        Ok(Self::new(ahs_bytes, length, digests))
    }

    /// The lengths of a PDU that this end sends.
    #[must_use]
    pub fn new(ahs_bytes: u32, data_segment_bytes: u32, digests: Digests) -> Self {
        assert!(
            ahs_bytes.is_multiple_of(WORD_BYTES) && ahs_bytes as usize <= AHS_BYTES_MAX,
            "{ahs_bytes} of AHS"
        );
        assert!(data_segment_bytes <= DATA_SEGMENT_BYTES_MAX, "{data_segment_bytes} of data");
        Self {
            ahs_bytes,
            header_digest_bytes: if digests.header { DIGEST_BYTES } else { 0 },
            data_segment_bytes,
            padding_bytes: padding(data_segment_bytes),
            data_digest_bytes: if digests.data && data_segment_bytes != 0 { DIGEST_BYTES } else { 0 },
        }
    }

    /// BHS, AHS and header digest: what has to be there before the PDU means anything.
    #[must_use]
    pub const fn header_bytes(&self) -> u32 {
        BHS_BYTES_32 + self.ahs_bytes + self.header_digest_bytes
    }

    /// Data segment, padding and data digest: what follows the header.
    #[must_use]
    pub const fn data_bytes(&self) -> u32 {
        self.data_segment_bytes + self.padding_bytes + self.data_digest_bytes
    }

    /// The whole PDU; at most [`PDU_BYTES_MAX`], so none of these sums can overflow.
    #[must_use]
    pub const fn pdu_bytes(&self) -> u32 {
        self.header_bytes() + self.data_bytes()
    }
}

/// How many zero bytes follow a data segment of this length (§11.1: PDUs are padded to whole words).
#[must_use]
pub const fn padding(data_segment_bytes: u32) -> u32 {
    data_segment_bytes.wrapping_neg() % WORD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: Digests = Digests { header: true, data: true };

    fn bhs(ahs_words: u8, data: u32) -> Bhs {
        let mut bhs = [0; BHS_BYTES];
        bhs[4..8].copy_from_slice(&data.to_be_bytes());
        bhs[4] = ahs_words;
        bhs
    }

    #[test]
    fn five_bytes_of_data_are_padded_to_eight() {
        let lengths = Lengths::of(&bhs(0, 5), Digests::NONE, 8192).unwrap();
        assert_eq!((lengths.padding_bytes, lengths.header_bytes(), lengths.pdu_bytes()), (3, 48, 56));
    }

    #[test]
    fn a_pdu_without_data_has_no_data_digest() {
        let lengths = Lengths::of(&bhs(0, 0), BOTH, 8192).unwrap();
        assert_eq!((lengths.header_digest_bytes, lengths.data_digest_bytes, lengths.pdu_bytes()), (4, 0, 52));
    }

    #[test]
    fn every_part_counts() {
        let lengths = Lengths::of(&bhs(2, 8191), BOTH, 8192).unwrap();
        assert_eq!((lengths.header_bytes(), lengths.data_bytes()), (48 + 8 + 4, 8191 + 1 + 4));
    }

    #[test]
    fn one_byte_more_than_declared_is_too_long() {
        assert!(Lengths::of(&bhs(0, 8192), BOTH, 8192).is_ok());
        let refused = Violation::DataSegmentTooLong { opcode: 0, length: 8193, maximum: 8192 };
        assert_eq!(Lengths::of(&bhs(0, 8193), BOTH, 8192), Err(refused));
    }

    #[test]
    fn more_ahs_than_can_mean_anything_is_too_long() {
        assert!(Lengths::of(&bhs(64, 0), BOTH, 8192).is_ok());
        assert_eq!(Lengths::of(&bhs(65, 0), BOTH, 8192), Err(Violation::AhsTooLong { length: 260 }));
    }

    proptest! {
        #[test]
        fn no_header_overflows_the_sum(ahs_words: u8, data in 0..=DATA_SEGMENT_BYTES_MAX, header: bool, data_digest: bool) {
            let digests = Digests { header, data: data_digest };
            if let Ok(lengths) = Lengths::of(&bhs(ahs_words, data), digests, DATA_SEGMENT_BYTES_MAX) {
                prop_assert!(lengths.pdu_bytes() <= PDU_BYTES_MAX);
                prop_assert!(lengths.pdu_bytes().is_multiple_of(WORD_BYTES));
            }
        }
    }
}
