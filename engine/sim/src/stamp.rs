//! What initiators write: every sector tells which write it comes from and where it belongs, in every word of it.
//!
//! What WRITE SAME repeats belongs nowhere, and what UNMAP leaves are zeroes, which tell nothing: the name of a write says
//! what it leaves.

use crate::random::mix;

/// The unit in which media write atomically, and in which what is read is judged.
pub(crate) const SECTOR_BYTES: usize = 512;

/// Which write. 0 is what a new medium holds: zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WriteId(pub(crate) u64);

impl WriteId {
    pub(crate) const NONE: Self = Self(0);

    const ZEROES: u64 = 1 << 63;
    const REPEATED: u64 = 1 << 62;

    /// The name of the write of that number, which leaves such content.
    pub(crate) const fn new(number: u64, content: Content) -> Self {
        match content {
            Content::Placed => Self(number),
            Content::Repeated => Self(number | Self::REPEATED),
            Content::Zeroes => Self(number | Self::ZEROES),
        }
    }

    /// Whether it leaves zeroes, or it is what a new medium holds.
    pub(crate) const fn is_zeroes(self) -> bool {
        self.0 == 0 || self.0 & Self::ZEROES != 0
    }
}

/// What a write leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Each sector tells where it belongs.
    Placed,
    /// All sectors are the same.
    Repeated,
    Zeroes,
}

/// Fills a sector.
pub(crate) fn emit(write: WriteId, sector: u64, into: &mut [u8]) {
    assert_eq!(into.len(), SECTOR_BYTES);
    let word = if write.is_zeroes() { [0; 16] } else { word_of(write, sector) };
    for place in into.chunks_exact_mut(16) {
        place.copy_from_slice(&word);
    }
}

fn word_of(write: WriteId, sector: u64) -> [u8; 16] {
    let sector = if write.0 & WriteId::REPEATED == 0 { sector } else { 0 };
    let mut word = [0; 16];
    word[..8].copy_from_slice(&write.0.to_be_bytes());
    word[8..].copy_from_slice(&mix(write.0 ^ sector.rotate_left(40)).to_be_bytes());
    word
}

/// Which write the content of a sector comes from, [`WriteId::NONE`] for zeroes; `None` where it is none of this sector, or a
/// mixture.
pub(crate) fn parse(sector: u64, bytes: &[u8]) -> Option<WriteId> {
    assert_eq!(bytes.len(), SECTOR_BYTES);
    let (first, _) = bytes.split_first_chunk::<8>()?;
    let write = WriteId(u64::from_be_bytes(*first));
    let mut whole = [0; SECTOR_BYTES];
    emit(write, sector, &mut whole);
    (whole == bytes).then_some(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_in_another_place_and_a_torn_one_are_nobodys() {
        let mut sector = [0; SECTOR_BYTES];
        assert_eq!(parse(3, &sector), Some(WriteId::NONE));
        emit(WriteId(7), 3, &mut sector);
        assert_eq!(parse(3, &sector), Some(WriteId(7)));
        assert_eq!(parse(4, &sector), None);
        sector[500] ^= 1;
        assert_eq!(parse(3, &sector), None);
    }

    #[test]
    fn what_is_repeated_is_right_everywhere_and_zeroes_are_nobodys() {
        let mut sector = [0; SECTOR_BYTES];
        let same = WriteId::new(7, Content::Repeated);
        emit(same, 3, &mut sector);
        assert_eq!((parse(3, &sector), parse(4, &sector)), (Some(same), Some(same)));
        emit(WriteId::new(8, Content::Zeroes), 3, &mut sector);
        assert_eq!(parse(3, &sector), Some(WriteId::NONE));
    }
}
