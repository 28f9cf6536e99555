//! The pool below a thin unit: what the unit has of it, what is left, and when every nexus is told that it runs low (SBC-3
//! §4.7.3.7).
//!
//! There is one threshold, a tenth of the unit's capacity, armed decreasing: it is reached once and is armed again when the
//! pool has grown well above it. The mode page that describes it (SBC-3 §6.5.9) cannot be changed.

use crate::unit::Geometry;

/// What is known of the pool below a thin unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the pool has left, for whoever takes them first.
    pub available_bytes: u64,
    /// Bytes of it that the unit has.
    pub used_bytes: u64,
}

/// The part of its capacity that a unit wants to find in its pool.
const THRESHOLD_PART: u64 = 10;
/// Threshold sets are of this many bytes, unless the unit is so large that it would have too many.
const SET_BYTES: u32 = 1 << 20;
/// Most threshold sets of a unit: counts have 32 bits.
const SETS_MAX: u64 = 1 << 31;

impl Space {
    /// Whether so little is left that nexuses are to be told; `before` is the last answer. A unit that has all that it shows
    /// needs nothing more.
    pub(crate) fn is_low(&self, geometry: &Geometry, before: bool) -> bool {
        let set_bytes = set_bytes(geometry);
        let threshold = u64::from(threshold_count(geometry)).saturating_mul(set_bytes);
        let rearmed = threshold.saturating_add(threshold / 8);
        let limit = if before { rearmed } else { threshold };
        self.available_bytes < limit && self.used_bytes < size_bytes(geometry)
    }

    /// Available resources, in threshold sets.
    pub(crate) fn available_sets(&self, geometry: &Geometry) -> u32 {
        saturated(self.available_bytes / set_bytes(geometry))
    }

    /// Used resources, in threshold sets.
    pub(crate) fn used_sets(&self, geometry: &Geometry) -> u32 {
        saturated(self.used_bytes.div_ceil(set_bytes(geometry)))
    }
}

/// THRESHOLD EXPONENT: a threshold set has two to this power logical blocks.
pub(crate) fn threshold_exponent(geometry: &Geometry) -> u8 {
    let usual = (SET_BYTES / geometry.block_length()).ilog2();
    let needed = (geometry.blocks() / SETS_MAX).checked_ilog2().map_or(0, |power| power + 1);
    u8::try_from(usual.max(needed)).expect("a power of two of 64 bits")
}

/// THRESHOLD COUNT: where the threshold is, in threshold sets.
pub(crate) fn threshold_count(geometry: &Geometry) -> u32 {
    saturated((size_bytes(geometry) / THRESHOLD_PART).div_ceil(set_bytes(geometry)))
}

fn set_bytes(geometry: &Geometry) -> u64 {
    u64::from(geometry.block_length()) << threshold_exponent(geometry)
}

fn size_bytes(geometry: &Geometry) -> u64 {
    geometry.blocks() * u64::from(geometry.block_length())
}

fn saturated(sets: u64) -> u32 {
    u32::try_from(sets).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn geometry(block_length: u32, bytes: u64) -> Geometry {
        Geometry::new(block_length, bytes / u64::from(block_length), 0, 1 << 20).unwrap()
    }

    fn left(available_bytes: u64) -> Space {
        Space { available_bytes, used_bytes: GIB }
    }

    #[test]
    fn the_threshold_is_a_tenth_of_the_capacity_and_is_reached_once() {
        let unit = geometry(512, 10 * GIB);
        assert_eq!((threshold_exponent(&unit), threshold_count(&unit)), (11, 1024));
        assert!(!left(GIB).is_low(&unit, false));
        assert!(left(GIB - 1).is_low(&unit, false));
        assert!(left(GIB + GIB / 8 - 1).is_low(&unit, true), "not armed yet");
        assert!(!left(GIB + GIB / 8).is_low(&unit, true));
        assert!(
            !Space { available_bytes: 0, used_bytes: 10 * GIB }.is_low(&unit, false),
            "it has everything"
        );
    }

    #[test]
    fn counts_fit_whatever_the_size() {
        for (block, bytes) in [(512, 1 << 20), (4096, GIB), (65536, 1 << 50), (512, 1 << 62)] {
            let unit = geometry(block, bytes);
            let sets = unit.blocks() >> threshold_exponent(&unit);
            assert!(sets <= SETS_MAX && threshold_count(&unit) >= 1, "{bytes} bytes of {block}");
            let all = Space { available_bytes: bytes, used_bytes: bytes };
            assert_eq!(u64::from(all.used_sets(&unit)), bytes.div_ceil(set_bytes(&unit)));
            assert!(all.available_sets(&unit) <= all.used_sets(&unit));
        }
    }
}
