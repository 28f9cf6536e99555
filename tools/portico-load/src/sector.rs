//! What a verified sector of 512 bytes looks like: everything that is needed to tell whose it is, and whether it is whole.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | a magic word |
//! | 8..16 | the run |
//! | 16..24 | the sector's address, in sectors from the start of the logical unit |
//! | 24..28 | the session that wrote it |
//! | 28..32 | which of that session's writes, from 1 |
//! | 32..496 | words that follow from all that |
//! | 496..508 | session, version and the address's low half again, so that a sector of two halves can be told |
//! | 508..512 | CRC32C of all before |
//!
//! Numbers are little-endian.

use crate::options::SECTOR_BYTES;
use crate::random::{STEP, mixed};

/// Bytes of a sector.
pub(crate) const BYTES: usize = 512;
const _: () = assert!(BYTES as u64 == SECTOR_BYTES);

const MAGIC: [u8; 8] = *b"portico\x01";
const FILL: std::ops::Range<usize> = 32..496;
const TAIL: usize = 496;
const CHECKSUM: usize = 508;

/// Who wrote a sector, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u64,
    /// In sectors from the start of the logical unit.
    pub(crate) address: u64,
    pub(crate) session: u32,
    /// From 1.
    pub(crate) version: u32,
}

/// What a sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Whole, and this.
    Intact(Stamp),
    /// Its beginning and its end are of two writes.
    Torn {
        /// What its beginning says.
        head: Stamp,
        /// The session of its end.
        tail_session: u32,
        /// The version of its end.
        tail_version: u32,
    },
    /// It begins like one of ours, and its checksum is wrong.
    Damaged(Stamp),
    /// Nothing but zeroes.
    Zeroes,
    /// Not one of ours.
    Foreign,
}

impl Stamp {
    /// Writes the sector.
    pub(crate) fn write(&self, sector: &mut [u8; BYTES]) {
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..16].copy_from_slice(&self.run.to_le_bytes());
        sector[16..24].copy_from_slice(&self.address.to_le_bytes());
        sector[24..28].copy_from_slice(&self.session.to_le_bytes());
        sector[28..32].copy_from_slice(&self.version.to_le_bytes());
        let mut word = self.seed();
        for bytes in sector[FILL].chunks_exact_mut(8) {
            word = word.wrapping_add(STEP);
            bytes.copy_from_slice(&mixed(word).to_le_bytes());
        }
        sector[TAIL..TAIL + 12].copy_from_slice(&self.tail());
        let checksum = crc32c::crc32c(&sector[..CHECKSUM]);
        sector[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    }

    fn seed(&self) -> u64 {
        let writer = u64::from(self.session) << 32 | u64::from(self.version);
        mixed(self.run ^ mixed(self.address ^ mixed(writer)))
    }

    fn tail(&self) -> [u8; 12] {
        let mut tail = [0; 12];
        tail[..4].copy_from_slice(&self.session.to_le_bytes());
        tail[4..8].copy_from_slice(&self.version.to_le_bytes());
        tail[8..].copy_from_slice(&self.address.to_le_bytes()[..4]);
        tail
    }
}

/// Reads a sector.
pub(crate) fn read(sector: &[u8; BYTES]) -> Sector {
    if sector[..8] != MAGIC {
        return if sector.iter().all(|byte| *byte == 0) { Sector::Zeroes } else { Sector::Foreign };
    }
    let word = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes"));
    let stamp = Stamp { run: word(8), address: word(16), session: half(24), version: half(28) };
    if half(CHECKSUM) == crc32c::crc32c(&sector[..CHECKSUM]) {
        return Sector::Intact(stamp);
    }
    // The end of another write to the same place: it has that place's address, and another writer.
    let (tail_session, tail_version) = (half(TAIL), half(TAIL + 4));
    let same_place = sector[TAIL + 8..TAIL + 12] == stamp.address.to_le_bytes()[..4];
    if same_place && (tail_session, tail_version) != (stamp.session, stamp.version) {
        return Sector::Torn { head: stamp, tail_session, tail_version };
    }
    Sector::Damaged(stamp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp { run: 99, address: 1 << 33, session: 5, version: 17 };

    fn written(stamp: Stamp) -> [u8; BYTES] {
        let mut sector = [0xee; BYTES];
        stamp.write(&mut sector);
        sector
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&written(STAMP)), Sector::Intact(STAMP));
    }

    #[test]
    fn zeroes_and_strangers_are_told_apart() {
        assert_eq!(read(&[0; BYTES]), Sector::Zeroes);
        let mut stranger = [0; BYTES];
        stranger[511] = 1;
        assert_eq!(read(&stranger), Sector::Foreign);
    }

    #[test]
    fn a_sector_of_two_writes_is_torn() {
        let later = Stamp { version: 18, ..STAMP };
        for cut in [32, 100, 256, 496] {
            let mut sector = written(STAMP);
            sector[cut..].copy_from_slice(&written(later)[cut..]);
            assert_eq!(
                read(&sector),
                Sector::Torn { head: STAMP, tail_session: 5, tail_version: 18 },
                "{cut}"
            );
        }
    }

    #[test]
    fn two_writes_share_no_word() {
        let (one, other) = (written(STAMP), written(Stamp { version: 18, ..STAMP }));
        assert!(FILL.step_by(8).all(|at| one[at..at + 8] != other[at..at + 8]));
    }

    proptest! {
        #[test]
        fn a_byte_that_is_wrong_is_seen(at in 0..BYTES, by in 1_u8..) {
            let mut sector = written(STAMP);
            sector[at] ^= by;
            prop_assert!(!matches!(read(&sector), Sector::Intact(_)));
        }

        #[test]
        fn any_stamp_comes_back(run: u64, address: u64, session: u32, version: u32) {
            let stamp = Stamp { run, address, session, version };
            prop_assert_eq!(read(&written(stamp)), Sector::Intact(stamp));
        }
    }
}
