//! Additional Header Segments: the rest of a long CDB, and the read length of a bidirectional command (RFC
//! 7143 §11.2.2).

use crate::violation::Violation;

//       0               1               2               3
//    0 | AHSLength                     | AHSType       | AHS-Specific  |
//    4 / AHS-Specific, padded to 4 bytes                               /
//
// AHSLength counts from byte 3 on, without the padding.
const HEAD_BYTES: usize = 3;
const WORD_BYTES: usize = 4;
const TYPE_MASK: u8 = 0x3f;

/// AHSType of an extended CDB (§11.2.2.3).
const EXTENDED_CDB: u8 = 1;
/// AHSType of a bidirectional read length (§11.2.2.4).
const BIDIRECTIONAL_READ_LENGTH: u8 = 2;
/// AHSLength of the latter: a reserved byte and 4 of length.
const BIDIRECTIONAL_READ_AHS_LENGTH: usize = 5;

/// The bytes of a CDB that lie in the BHS.
pub const CDB_BYTES_IN_BHS: usize = 16;
/// The longest CDB (SPC-4: variable length, ADDITIONAL CDB LENGTH up to 252).
pub const CDB_BYTES_MAX: usize = 260;
/// The longest run of AHS that means anything: one of each type.
pub const AHS_BYTES_MAX: usize = WORD_BYTES + (CDB_BYTES_MAX - CDB_BYTES_IN_BHS) + 2 * WORD_BYTES;

const _: () = assert!(CDB_BYTES_MAX.is_multiple_of(WORD_BYTES), "the longest extended CDB needs no padding");
const _: () = assert!(AHS_BYTES_MAX <= 255 * WORD_BYTES, "TotalAHSLength can say it");

/// What the AHS bytes of one SCSI Command say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdditionalHeaders<'a> {
    /// The CDB from byte 16 on; where it is there, it has 1 to 244 bytes.
    pub extended_cdb: Option<&'a [u8]>,
    /// Bidirectional Read Expected Data Transfer Length.
    pub bidirectional_read_length: Option<u32>,
}

impl<'a> AdditionalHeaders<'a> {
    /// Reads all of the AHS bytes of a PDU, TotalAHSLength × 4 of them.
    ///
    /// # Errors
    /// An AHS that is cut off, of a reserved type, of a length its type does not allow, or the second of its
    /// type.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, Violation> {
        let mut headers = Self::default();
        while !bytes.is_empty() {
            let [high, low, kind, rest @ ..] = bytes else { return Err(Violation::AhsTruncated) };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let padded = (HEAD_BYTES + length).next_multiple_of(WORD_BYTES);
            let specific = rest.get(..length).ok_or(Violation::AhsTruncated)?;
            headers.take(kind & TYPE_MASK, specific)?;
            bytes = bytes.get(padded..).ok_or(Violation::AhsTruncated)?;
        }
        Ok(headers)
    }

    fn take(&mut self, kind: u8, specific: &'a [u8]) -> Result<(), Violation> {
        let length = specific.len();
        let repeated = match (kind, specific) {
            (EXTENDED_CDB, [_, cdb @ ..]) if (1..=CDB_BYTES_MAX - CDB_BYTES_IN_BHS).contains(&cdb.len()) => {
                self.extended_cdb.replace(cdb).is_some()
            }
            (BIDIRECTIONAL_READ_LENGTH, &[_, a, b, c, d]) => {
                self.bidirectional_read_length.replace(u32::from_be_bytes([a, b, c, d])).is_some()
            }
            (EXTENDED_CDB | BIDIRECTIONAL_READ_LENGTH, _) => {
                return Err(Violation::AhsLengthWrong { kind, length });
            }
            _ => return Err(Violation::AhsTypeUnknown { kind }),
        };
        if repeated { Err(Violation::AhsRepeated { kind }) } else { Ok(()) }
    }

    /// How many bytes [`emit`](Self::emit) writes; a multiple of 4, at most [`AHS_BYTES_MAX`].
    #[must_use]
    pub fn emitted_bytes(&self) -> usize {
        let cdb = self.extended_cdb.map_or(0, |cdb| (WORD_BYTES + cdb.len()).next_multiple_of(WORD_BYTES));
        cdb + self.bidirectional_read_length.map_or(0, |_| 2 * WORD_BYTES)
    }

    /// Writes the AHS, padding zeroed, and returns how many bytes that took.
    pub fn emit(&self, out: &mut [u8; AHS_BYTES_MAX]) -> usize {
        let mut end = 0;
        out.fill(0);
        if let Some(cdb) = self.extended_cdb {
            assert!((1..=CDB_BYTES_MAX - CDB_BYTES_IN_BHS).contains(&cdb.len()), "{} CDB bytes", cdb.len());
            put_head(&mut out[end..], cdb.len() + 1, EXTENDED_CDB);
            out[end + WORD_BYTES..end + WORD_BYTES + cdb.len()].copy_from_slice(cdb);
            end = (end + WORD_BYTES + cdb.len()).next_multiple_of(WORD_BYTES);
        }
        if let Some(length) = self.bidirectional_read_length {
            put_head(&mut out[end..], BIDIRECTIONAL_READ_AHS_LENGTH, BIDIRECTIONAL_READ_LENGTH);
            out[end + WORD_BYTES..end + 2 * WORD_BYTES].copy_from_slice(&length.to_be_bytes());
            end += 2 * WORD_BYTES;
        }
        end
    }
}

fn put_head(out: &mut [u8], length: usize, kind: u8) {
    let length = u16::try_from(length).expect("no AHS is longer than AHS_BYTES_MAX");
    out[..2].copy_from_slice(&length.to_be_bytes());
    out[2] = kind;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cdb_of_32_bytes_and_a_read_length_come_out_as_they_went_in() {
        let bytes = [
            0x00, 0x11, 0x01, 0x00, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
            15, // extended CDB
            0x00, 0x05, 0x02, 0x00, 0x00, 0x01, 0x00, 0x00, // 64 KiB to be read
        ];
        let headers = AdditionalHeaders::parse(&bytes).unwrap();
        assert_eq!(headers.extended_cdb, Some(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15][..]));
        assert_eq!(headers.bidirectional_read_length, Some(65_536));
        let mut out = [0xff; AHS_BYTES_MAX];
        assert_eq!(headers.emit(&mut out), bytes.len());
        assert_eq!(out[..bytes.len()], bytes);
    }

    #[test]
    fn no_bytes_are_no_headers() {
        assert_eq!(AdditionalHeaders::parse(&[]), Ok(AdditionalHeaders::default()));
    }

    #[test]
    fn an_ahs_longer_than_its_bytes_is_truncated() {
        assert_eq!(AdditionalHeaders::parse(&[0, 5, 2, 0]), Err(Violation::AhsTruncated));
        assert_eq!(AdditionalHeaders::parse(&[0xff, 0xff, 1, 0]), Err(Violation::AhsTruncated));
    }

    #[test]
    fn an_ahs_of_length_0_does_not_loop_for_ever() {
        assert_eq!(
            AdditionalHeaders::parse(&[0, 0, 1, 0]),
            Err(Violation::AhsLengthWrong { kind: 1, length: 0 })
        );
    }

    #[test]
    fn a_reserved_type_and_a_repeated_type_are_refused() {
        assert_eq!(AdditionalHeaders::parse(&[0, 1, 3, 0]), Err(Violation::AhsTypeUnknown { kind: 3 }));
        let twice = [0, 5, 2, 0, 0, 0, 0, 1, 0, 5, 2, 0, 0, 0, 0, 1];
        assert_eq!(AdditionalHeaders::parse(&twice), Err(Violation::AhsRepeated { kind: 2 }));
    }

    proptest! {
        #[test]
        fn whatever_is_emitted_parses_back(
            cdb in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=244)),
            bidirectional_read_length: Option<u32>,
        ) {
            let headers = AdditionalHeaders { extended_cdb: cdb.as_deref(), bidirectional_read_length };
            let mut out = [0; AHS_BYTES_MAX];
            let length = headers.emit(&mut out);
            prop_assert_eq!(length, headers.emitted_bytes());
            prop_assert_eq!(AdditionalHeaders::parse(&out[..length]), Ok(headers));
        }

        #[test]
        fn random_bytes_never_panic(words in proptest::collection::vec(any::<[u8; 4]>(), 0..=255)) {
            let _ = AdditionalHeaders::parse(words.as_flattened());
        }
    }
}
