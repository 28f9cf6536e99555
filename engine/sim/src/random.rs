//! The one source of chance of a world: everything that could be otherwise is drawn here, so that a seed is a run.

use std::time::Duration;

/// A generator of 64 bits of state (SplitMix64: a Weyl sequence and a mixing function).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        self.next() % bound
    }

    /// An index of a list of that length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("less than a usize")
    }

    /// True `part` times out of `whole`.
    pub(crate) const fn chance(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }

    /// Some time up to `longest`. Short ones are as frequent as long ones: it is the order of magnitude that is drawn.
    pub(crate) fn moment_within(&mut self, longest: Duration) -> Duration {
        let nanoseconds = u64::try_from(longest.as_nanos()).expect("a delay is short").max(1);
        let magnitude = self.below(u64::from(nanoseconds.ilog2()) + 1);
        Duration::from_nanos(self.below(nanoseconds >> magnitude) + 1)
    }
}

/// A number that looks like chance and is a function of `value`.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
