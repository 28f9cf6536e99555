//! Which logical units one initiator sees of one target: the map that a session carries.

use crate::identity::UnitId;

/// LUNs that one initiator group may have. A LUN of a map is below this (flat space addressing, SAM-5 §4.7.7.3).
pub const LUNS_MAX: usize = 16_384;

/// One LUN of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LunEntry {
    /// The number, below [`LUNS_MAX`].
    pub lun: u16,
    /// The logical unit behind it.
    pub unit: UnitId,
    /// Whether this path may not write, whatever the unit itself allows.
    pub read_only: bool,
}

/// The logical units that one session sees, ascending by LUN.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LunMap {
    entries: Vec<LunEntry>,
}

impl LunMap {
    /// A map of these entries, in any order.
    ///
    /// # Panics
    /// When a LUN occurs twice or is beyond [`LUNS_MAX`]: the configuration was to be checked before.
    #[must_use]
    pub fn new(mut entries: Vec<LunEntry>) -> Self {
        entries.sort_by_key(|entry| entry.lun);
        assert!(entries.windows(2).all(|pair| pair[0].lun < pair[1].lun), "a LUN occurs twice");
        assert!(entries.last().is_none_or(|entry| usize::from(entry.lun) < LUNS_MAX));
        Self { entries }
    }

    /// What stands behind `lun`.
    #[must_use]
    pub fn find(&self, lun: u16) -> Option<LunEntry> {
        // Maps are dense from 0 as a rule: the first guess is nearly always right.
        match self.entries.get(usize::from(lun)) {
            Some(entry) if entry.lun == lun => Some(*entry),
            _ => self.entries.binary_search_by_key(&lun, |entry| entry.lun).ok().map(|at| self.entries[at]),
        }
    }

    /// All entries, ascending by LUN.
    #[must_use]
    pub fn entries(&self) -> &[LunEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lun: u16) -> LunEntry {
        LunEntry { lun, unit: UnitId(u32::from(lun) + 100), read_only: false }
    }

    #[test]
    fn a_lun_is_found_in_a_map_with_holes() {
        let map = LunMap::new(vec![entry(7), entry(0), entry(1), entry(300)]);
        for lun in [0, 1, 7, 300] {
            assert_eq!(map.find(lun), Some(entry(lun)));
        }
        for lun in [2, 3, 8, 299, 301, 16_383] {
            assert_eq!(map.find(lun), None);
        }
    }
}
