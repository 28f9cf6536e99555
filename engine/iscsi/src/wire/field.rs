//! The vocabulary of the field maps: where a field lies in the BHS, as a constant that is proved to be inside
//! of it.
//!
//! A map written with these words reads like the diagrams of RFC 7143 §11: `const CMD_SN: Word =
//! Word::at(24);`.

use super::{BHS_BYTES, Bhs};

/// One byte.
#[derive(Clone, Copy)]
pub(super) struct Octet(usize);

impl Octet {
    pub(super) const fn at(offset: usize) -> Self {
        assert!(offset < BHS_BYTES);
        Self(offset)
    }

    pub(super) const fn read(self, bhs: &Bhs) -> u8 {
        bhs[self.0]
    }

    pub(super) const fn write(self, bhs: &mut Bhs, value: u8) {
        bhs[self.0] = value;
    }
}

/// Two bytes, big-endian.
#[derive(Clone, Copy)]
pub(super) struct Half(usize);

impl Half {
    pub(super) const fn at(offset: usize) -> Self {
        assert!(offset.is_multiple_of(2) && offset + 2 <= BHS_BYTES);
        Self(offset)
    }

    pub(super) const fn read(self, bhs: &Bhs) -> u16 {
        u16::from_be_bytes([bhs[self.0], bhs[self.0 + 1]])
    }

    pub(super) fn write(self, bhs: &mut Bhs, value: u16) {
        bhs[self.0..self.0 + 2].copy_from_slice(&value.to_be_bytes());
    }
}

/// Four bytes, big-endian: one row of a diagram.
#[derive(Clone, Copy)]
pub(super) struct Word(usize);

impl Word {
    pub(super) const fn at(offset: usize) -> Self {
        assert!(offset.is_multiple_of(4) && offset + 4 <= BHS_BYTES);
        Self(offset)
    }

    pub(super) const fn read(self, bhs: &Bhs) -> u32 {
        u32::from_be_bytes([bhs[self.0], bhs[self.0 + 1], bhs[self.0 + 2], bhs[self.0 + 3]])
    }

    pub(super) fn write(self, bhs: &mut Bhs, value: u32) {
        bhs[self.0..self.0 + 4].copy_from_slice(&value.to_be_bytes());
    }
}

/// `N` bytes that are not a number.
#[derive(Clone, Copy)]
pub(super) struct Octets<const N: usize>(usize);

impl<const N: usize> Octets<N> {
    pub(super) const fn at(offset: usize) -> Self {
        assert!(offset + N <= BHS_BYTES);
        Self(offset)
    }

    pub(super) fn read(self, bhs: &Bhs) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&bhs[self.0..self.0 + N]);
        bytes
    }

    pub(super) fn write(self, bhs: &mut Bhs, bytes: [u8; N]) {
        bhs[self.0..self.0 + N].copy_from_slice(&bytes);
    }
}
