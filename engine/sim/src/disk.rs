//! A disk, or a file behind a page cache: what is written is visible at once, and durable after a sync or a durable write.
//!
//! At a power cut each sector falls back to what was durable, or to any version since. A sync that fails leaves what it
//! should have written visible and never durable, as Linux does with the pages of a file.

use portico_iscsi::moment::Moment;

use crate::random::Random;
use crate::stamp::SECTOR_BYTES;

/// How a disk is, and how it misbehaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Character {
    /// Sectors.
    pub(crate) sectors: usize,
    /// Sectors in a logical block.
    pub(crate) block_sectors: u64,
    /// Nothing of this: memory of the gateway, gone with it.
    pub(crate) memory: bool,
    /// What is written survives a power cut at once.
    pub(crate) nonvolatile: bool,
    /// Through a page cache: a failed sync loses what was not durable.
    pub(crate) page_cache: bool,
    /// It serves UNMAP.
    pub(crate) thin: bool,
    /// One operation in so many fails or falls short; 0: none.
    pub(crate) trouble_one_in: u64,
    /// Initiators do not RESERVE it, they register, with this APTPL.
    pub(crate) registers: Option<bool>,
}

#[derive(Debug)]
struct Version {
    sequence: u64,
    /// Counted as written back by a sync that failed.
    lost: bool,
    content: Box<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) character: Character,
    /// Until then nothing moves.
    pub(crate) hangs_until: Moment,
    /// The gateway has it open, for itself alone.
    pub(crate) is_open: bool,
    /// Of each sector: what is durable, then what came since.
    sectors: Vec<Vec<Version>>,
    sequence: u64,
    /// A sync has failed and left something that no later one will write.
    has_lost: bool,
}

impl Disk {
    pub(crate) fn new(character: Character) -> Self {
        let blank = || vec![Version { sequence: 0, lost: false, content: vec![0; SECTOR_BYTES].into() }];
        let sectors = (0..character.sectors).map(|_| blank()).collect();
        Self { character, hangs_until: Moment::ORIGIN, is_open: false, sectors, sequence: 0, has_lost: false }
    }

    /// What a reader sees.
    pub(crate) fn sector(&self, sector: u64) -> &[u8] {
        &self.versions(sector).last().expect("a sector has content").content
    }

    /// What a reader sees of all sectors.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.sectors.iter().map(|versions| &*versions.last().expect("a sector has content").content)
    }

    fn versions(&self, sector: u64) -> &[Version] {
        &self.sectors[usize::try_from(sector).expect("a disk is small")]
    }

    fn versions_mut(&mut self, sector: u64) -> &mut Vec<Version> {
        &mut self.sectors[usize::try_from(sector).expect("a disk is small")]
    }

    /// A sector lands.
    pub(crate) fn write(&mut self, sector: u64, content: &[u8]) {
        self.sequence += 1;
        let version = Version { sequence: self.sequence, lost: false, content: content.into() };
        self.versions_mut(sector).push(version);
    }

    /// The number of the last write.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes durable what was written up to and with `sequence`.
    pub(crate) fn sync(&mut self, sequence: u64) {
        for sector in 0..self.sectors.len() as u64 {
            self.sync_sector(sector, sequence);
        }
    }

    /// The same for one sector.
    pub(crate) fn sync_sector(&mut self, sector: u64, sequence: u64) {
        let versions = self.versions_mut(sector);
        let written = |version: &Version| version.sequence <= sequence && !version.lost;
        // None: a durable write has overtaken the sync.
        let last = versions.iter().rposition(written).unwrap_or(0);
        versions.drain(..last);
    }

    /// A sync of what was written up to and with `sequence` fails.
    pub(crate) fn fail_sync(&mut self, sequence: u64) {
        if !self.character.page_cache {
            return;
        }
        self.has_lost = true;
        for versions in &mut self.sectors {
            for version in versions.iter_mut().skip(1) {
                version.lost |= version.sequence <= sequence;
            }
        }
    }

    /// What each sector may hold after a power cut at this moment: all that [`Disk::cut_power`] may choose from.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let nonvolatile = self.character.nonvolatile;
        (0..).zip(&self.sectors).flat_map(move |(sector, versions)| {
            let first = if nonvolatile { versions.len() - 1 } else { 0 };
            versions[first..].iter().map(move |version| (sector, &*version.content))
        })
    }

    /// The power fails: each sector keeps what was durable, or one of the versions since.
    pub(crate) fn cut_power(&mut self, random: &mut Random) {
        let mercy = random.below(3);
        for versions in &mut self.sectors {
            let kept = match mercy {
                _ if self.character.nonvolatile => versions.len() - 1,
                0 => 0,
                1 => random.index(versions.len()),
                _ if random.chance(9, 10) => versions.len() - 1,
                _ => random.index(versions.len()),
            };
            let survivor = versions.swap_remove(kept);
            versions.clear();
            versions.push(Version { sequence: 0, lost: false, ..survivor });
        }
        self.restart();
    }

    /// Whether a sync has failed since this was asked last.
    pub(crate) const fn take_loss(&mut self) -> bool {
        std::mem::replace(&mut self.has_lost, false)
    }

    /// The process is gone, and with it what it had open.
    pub(crate) const fn restart(&mut self) {
        self.hangs_until = Moment::ORIGIN;
        self.is_open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHARACTER: Character = Character {
        sectors: 2,
        block_sectors: 1,
        memory: false,
        nonvolatile: false,
        page_cache: true,
        thin: false,
        trouble_one_in: 0,
        registers: None,
    };

    fn sector(byte: u8) -> [u8; SECTOR_BYTES] {
        [byte; SECTOR_BYTES]
    }

    #[test]
    fn what_was_synced_survives_every_power_cut_and_what_was_not_survives_some() {
        let mut kept = 0;
        for seed in 0..100 {
            let mut disk = Disk::new(CHARACTER);
            disk.write(0, &sector(1));
            disk.sync(disk.sequence());
            disk.write(0, &sector(2));
            disk.write(1, &sector(3));
            disk.cut_power(&mut Random::new(seed));
            assert_ne!(disk.sector(0), sector(0));
            kept += u32::from(disk.sector(1) == sector(3));
        }
        assert!((1..100).contains(&kept), "{kept}");
    }

    #[test]
    fn what_a_failed_sync_dropped_is_visible_and_no_later_sync_makes_it_durable() {
        let mut disk = Disk::new(CHARACTER);
        disk.write(0, &sector(1));
        disk.fail_sync(disk.sequence());
        disk.sync(disk.sequence());
        assert_eq!(disk.sector(0), sector(1));
        let lost = (0..50).any(|seed| {
            let mut disk = Disk::new(CHARACTER);
            disk.write(0, &sector(1));
            disk.fail_sync(disk.sequence());
            disk.sync(disk.sequence());
            disk.cut_power(&mut Random::new(seed));
            disk.sector(0) == sector(0)
        });
        assert!(lost);
    }
}
