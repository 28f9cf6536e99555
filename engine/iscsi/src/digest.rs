//! The CRC32C digests of headers and data segments (RFC 7143 §13.1, §11.2.3, Appendix A.4).
//!
//! A header digest covers BHS and AHS, a data digest the data segment and its padding. The 4 bytes go over the wire with the
//! least significant one first. Which digests a connection has is [`Digests`](crate::framing::Digests)' business, where the
//! bytes lie the caller's.

use crc_fast::{CrcAlgorithm, Digest};

use crate::framing::DIGEST_BYTES;

/// A digest as it stands on the wire.
pub type DigestField = [u8; DIGEST_BYTES as usize];

/// A CRC32C in the making, for bytes that come or go piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// Of no byte yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Goes on over `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What the digest field says of all bytes so far.
    #[must_use]
    pub fn field(&self) -> DigestField {
        let value = u32::try_from(self.0.finalize()).expect("a CRC of 32 bits");
        value.to_le_bytes()
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// The digest field of these bytes, which are all.
#[must_use]
pub fn field_of(bytes: &[u8]) -> DigestField {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.field()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_standard_come_out_byte_by_byte() {
        let ascending: [u8; 32] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        let descending: [u8; 32] = core::array::from_fn(|at| u8::try_from(31 - at).unwrap());
        assert_eq!(field_of(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(field_of(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(field_of(&ascending), [0x4e, 0x79, 0xdd, 0x46]);
        assert_eq!(field_of(&descending), [0x5c, 0xdb, 0x3f, 0x11]);
    }

    #[test]
    fn the_read_command_of_the_standard_has_the_digest_that_it_prints() {
        let mut bhs = [0; 48];
        for (at, byte) in
            [(0, 0x01), (1, 0xc0), (16, 0x14), (22, 0x04), (27, 0x14), (31, 0x18), (32, 0x28), (40, 0x02)]
        {
            bhs[at] = byte;
        }
        assert_eq!(field_of(&bhs), [0x56, 0x3a, 0x96, 0xd9]);
    }

    #[test]
    fn no_bytes_have_a_digest_too() {
        assert_eq!(field_of(&[]), [0; 4]);
        assert_eq!(field_of(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_bytes_are_cut(bytes: Vec<u8>, cuts: Vec<u8>) {
            let mut crc = Crc32c::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (now, later) = rest.split_at(rest.len().min(cut.into()));
                crc.update(now);
                rest = later;
            }
            crc.update(rest);
            prop_assert_eq!(crc.field(), field_of(&bytes));
        }

        #[test]
        fn one_flipped_bit_shows(mut bytes in proptest::collection::vec(any::<u8>(), 1..5000), at: usize, bit in 0_u32..8) {
            let right = field_of(&bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_ne!(field_of(&bytes), right);
        }
    }
}
