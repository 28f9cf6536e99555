//! What the gateway promised in the guest, and whether a medium keeps it.
//!
//! Each line of the guest's record says that a block's version was answered with GOOD, durably, before a mark. On the
//! medium every sector of a block bears the block's number and its version (`stamped` in `tools/lab/guest-power`).

use std::collections::BTreeMap;

use crate::lab::{Failure, Result};

/// The record of one logical unit.
#[derive(Debug)]
pub(crate) struct Promises {
    /// By mark: the blocks that it covers, and their versions.
    by_mark: BTreeMap<u64, Vec<(u64, u64)>>,
    /// The highest version of each block that was ever sent and answered.
    highest: BTreeMap<u64, u64>,
}

impl Promises {
    /// Reads lines `MARK BLOCK VERSION`.
    pub(crate) fn parse(text: &str) -> Result<Promises> {
        let mut promises = Promises { by_mark: BTreeMap::new(), highest: BTreeMap::new() };
        for line in text.lines() {
            let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            let [mark, block, version] = numbers[..] else {
                return Err(Failure::new(format!("the guest's record has a line {line:?}")));
            };
            promises.by_mark.entry(mark).or_default().push((block, version));
            let highest = promises.highest.entry(block).or_default();
            *highest = version.max(*highest);
        }
        Ok(promises)
    }

    /// How many marks it has.
    pub(crate) fn marks(&self) -> usize {
        self.by_mark.len()
    }

    /// The blocks that the medium owes at a mark and does not hold, each with what is wrong. `read` gives a block's
    /// bytes, shorter if the medium ends before.
    pub(crate) fn broken_at<'a>(&self, mark: u64, read: impl Fn(u64) -> &'a [u8]) -> Vec<String> {
        let mut owed = BTreeMap::new();
        for &(block, version) in self.by_mark.range(..=mark).flat_map(|(_, covered)| covered) {
            let owed_version = owed.entry(block).or_insert(version);
            *owed_version = version.max(*owed_version);
        }
        owed.iter()
            .filter_map(|(&block, &version)| {
                let highest = self.highest.get(&block).copied().unwrap_or(version);
                let wrong = wrong(read(block), block, version, highest)?;
                Some(format!("mark {mark}: block {block}, version {version} answered: {wrong}"))
            })
            .collect()
    }
}

/// What is wrong with a block that has to be of one version from `least` to `most`.
fn wrong(bytes: &[u8], block: u64, least: u64, most: u64) -> Option<String> {
    if bytes.len() != BLOCK_BYTES {
        return Some(format!("only {} bytes are there", bytes.len()));
    }
    let versions: Vec<u64> = bytes
        .chunks_exact(SECTOR_BYTES)
        .map_while(|sector| {
            stamp(sector).filter(|(stamped, _)| *stamped == block).map(|(_, version)| version)
        })
        .collect();
    match versions[..] {
        [] if bytes.iter().all(|byte| *byte == 0) => Some("never written".to_owned()),
        [first, ..] if versions.len() * SECTOR_BYTES == BLOCK_BYTES => {
            let whole = versions.iter().all(|version| *version == first);
            (!whole || first < least || first > most).then(|| format!("versions {versions:?}"))
        }
        _ => Some("foreign bytes".to_owned()),
    }
}

/// Block and version of a sector whose every byte is as it was sent.
fn stamp(sector: &[u8]) -> Option<(u64, u64)> {
    let (magic, rest) = sector.split_first_chunk::<8>()?;
    let (block, rest) = rest.split_first_chunk()?;
    let (version, filler) = rest.split_first_chunk()?;
    let (block, version) = (u64::from_le_bytes(*block), u64::from_le_bytes(*version));
    let fill = block.wrapping_add(version) % 256;
    let intact = magic == MAGIC && filler.iter().all(|byte| u64::from(*byte) == fill);
    intact.then_some((block, version))
}

/// The unit of the record.
pub(crate) const BLOCK_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"portico!";

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(block: u64, version: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(block.to_le_bytes());
        bytes.extend(version.to_le_bytes());
        bytes.resize(SECTOR_BYTES, u8::try_from((block + version) % 256).unwrap());
        bytes
    }

    fn block(block: u64, version: u64) -> Vec<u8> {
        sector(block, version).repeat(BLOCK_BYTES / SECTOR_BYTES)
    }

    #[test]
    fn a_medium_owes_at_a_mark_what_was_answered_up_to_it_and_no_more() {
        let promises = Promises::parse("1 7 1\n2 7 2\n2 9 1\n").unwrap();
        assert_eq!(promises.marks(), 2);
        let (old, empty) = (block(7, 1), vec![0; BLOCK_BYTES]);
        let medium = |number| if number == 7 { old.as_slice() } else { empty.as_slice() };
        assert!(promises.broken_at(0, medium).is_empty());
        assert!(promises.broken_at(1, medium).is_empty());
        assert_eq!(promises.broken_at(2, medium).len(), 2);
    }

    #[test]
    fn a_newer_version_than_owed_is_kept_but_none_that_was_never_sent() {
        let promises = Promises::parse("1 7 1\n5 7 3\n").unwrap();
        for (version, broken) in [(1, 0), (3, 0), (4, 1)] {
            let bytes = block(7, version);
            assert_eq!(promises.broken_at(1, |_| &bytes).len(), broken, "version {version}");
        }
    }

    #[test]
    fn a_torn_a_misplaced_a_spoilt_and_a_cut_off_block_are_broken() {
        let promises = Promises::parse("1 7 1\n2 7 2\n").unwrap();
        let mut torn = block(7, 1);
        torn[SECTOR_BYTES..2 * SECTOR_BYTES].copy_from_slice(&sector(7, 2));
        let mut spoilt = block(7, 1);
        spoilt[BLOCK_BYTES - 1] ^= 1;
        let short = block(7, 1)[..SECTOR_BYTES].to_vec();
        for bytes in [torn, block(8, 1), spoilt, short] {
            assert_eq!(promises.broken_at(1, |_| &bytes).len(), 1);
        }
        let whole = block(7, 1);
        assert!(promises.broken_at(1, |_| &whole).is_empty());
    }

    #[test]
    fn a_line_that_is_no_record_is_refused() {
        assert!(Promises::parse("1 2\n").is_err());
        assert!(Promises::parse("1 2 x\n").is_err());
    }
}
