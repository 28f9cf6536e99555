//! A distribution of times: how many commands took how long, sorted, only what occurred.
//!
//! It comes from an HdrHistogram in its V2 encoding, and keeps its steps. Cumulative ones are subtracted from each other.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// Times and how often each occurred, ascending. A time is the upper end of its histogram's step, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    steps: Vec<(u64, u64)>,
    count: u64,
}

/// Why a text is no distribution.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(&'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a histogram {}", self.0)
    }
}

/// The precision that the gateway uses; a finer one could make the decoder take any amount of memory.
const SIGNIFICANT_DIGITS_MAX: u32 = 3;
/// The cookie of V2 with counts of variable length.
const V2_COOKIE: u32 = 0x1c84_9313;
/// The encoding's head: cookie, payload length, normalising offset, digits, lowest, highest, ratio.
const HEAD_BYTES: usize = 40;
const DIGITS_AT: usize = 12;

impl Distribution {
    /// Reads base64 of an HdrHistogram's V2 encoding.
    pub(crate) fn decode(text: &str) -> Result<Self, Unreadable> {
        let bytes = STANDARD.decode(text).map_err(|_| Unreadable("that is no base64"))?;
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
        };
        if bytes.len() < HEAD_BYTES || word(0) != Some(V2_COOKIE) {
            return Err(Unreadable("of an unknown encoding"));
        }
        if word(DIGITS_AT).is_none_or(|digits| digits > SIGNIFICANT_DIGITS_MAX) {
            return Err(Unreadable("finer than the gateway's"));
        }
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut io::Cursor::new(bytes))
            .map_err(|_| Unreadable("that is damaged"))?;
        let steps = histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        Self::from_steps(steps.collect()).ok_or(Unreadable("of more commands than there are"))
    }

    fn from_steps(steps: Vec<(u64, u64)>) -> Option<Self> {
        let count = steps.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count))?;
        Some(Self { steps, count })
    }

    /// What has been added since `earlier`; `None` where something has vanished, so that `earlier` is of something else.
    pub(crate) fn since(&self, earlier: &Self) -> Option<Self> {
        let mut earlier_steps = earlier.steps.iter().peekable();
        let mut steps = Vec::with_capacity(self.steps.len());
        for &(time_ns, count) in &self.steps {
            let before = match earlier_steps.peek() {
                Some(&&(earlier_ns, _)) if earlier_ns < time_ns => return None,
                Some(&&(earlier_ns, before)) if earlier_ns == time_ns => {
                    earlier_steps.next();
                    before
                }
                _ => 0,
            };
            let added = count.checked_sub(before)?;
            if added > 0 {
                steps.push((time_ns, added));
            }
        }
        if earlier_steps.next().is_some() {
            return None;
        }
        Self::from_steps(steps)
    }

    /// How many commands there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The time within which so many of 100,000 commands ended; `None` without commands.
    pub(crate) fn quantile(&self, per_100_000: u32) -> Option<u64> {
        let rank = (u128::from(self.count) * u128::from(per_100_000)).div_ceil(100_000).max(1);
        let mut below = 0_u128;
        for &(time_ns, count) in &self.steps {
            below += u128::from(count);
            if below >= rank {
                return Some(time_ns);
            }
        }
        None
    }

    /// The longest time.
    pub(crate) fn longest(&self) -> Option<u64> {
        self.steps.last().map(|(time_ns, _)| *time_ns)
    }

    /// The shortest time.
    pub(crate) fn shortest(&self) -> Option<u64> {
        self.steps.first().map(|(time_ns, _)| *time_ns)
    }

    /// How many commands took longer than `above_ns` and not longer than `to_ns`.
    pub(crate) fn between(&self, above_ns: u64, to_ns: u64) -> u64 {
        let from = self.steps.partition_point(|(time_ns, _)| *time_ns <= above_ns);
        let steps = self.steps[from..].iter().take_while(|(time_ns, _)| *time_ns <= to_ns);
        steps.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hdrhistogram::serialization::{Serializer as _, V2Serializer};

    use super::*;

    /// As the gateway encodes it.
    pub(crate) fn encoded(times_ns: &[(u64, u64)]) -> String {
        let mut histogram = Histogram::<u64>::new_with_bounds(256, 100_000_000_000, 2).unwrap();
        for &(time_ns, count) in times_ns {
            histogram.record_n(time_ns, count).unwrap();
        }
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        STANDARD.encode(bytes)
    }

    fn decoded(times_ns: &[(u64, u64)]) -> Distribution {
        Distribution::decode(&encoded(times_ns)).unwrap()
    }

    #[test]
    fn a_distribution_has_every_command_within_one_percent_of_its_time() {
        let distribution = decoded(&[(90_000, 200), (3_000_000_000, 1)]);
        assert_eq!(distribution.count(), 201);
        let median = distribution.quantile(50_000).unwrap();
        assert!((90_000..=90_900).contains(&median), "{median}");
        assert!(distribution.quantile(99_900).unwrap() >= 3_000_000_000);
        assert_eq!(distribution.quantile(99_000), Some(median), "199 of 201");
    }

    #[test]
    fn what_was_there_before_is_subtracted() {
        let before = decoded(&[(90_000, 200), (1_000_000, 5)]);
        let after = decoded(&[(40_000, 3), (90_000, 300), (1_000_000, 5), (7_000_000, 1)]);
        let added = after.since(&before).unwrap();
        assert_eq!(added, decoded(&[(40_000, 3), (90_000, 100), (7_000_000, 1)]));
        assert_eq!(after.since(&Distribution::default()), Some(after.clone()));
        assert_eq!(after.since(&after).unwrap().count(), 0);
    }

    #[test]
    fn what_has_vanished_says_that_it_is_another_ones() {
        let more = decoded(&[(90_000, 200), (1_000_000, 5)]);
        for less in [decoded(&[(90_000, 199), (1_000_000, 5)]), decoded(&[(90_000, 300)]), decoded(&[])] {
            assert_eq!(less.since(&more), None);
        }
        let other = decoded(&[(95_000, 300), (1_000_000, 9)]);
        assert_eq!(other.since(&more), None, "90 µs are missing");
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Distribution::default().quantile(50_000), None);
        assert_eq!(Distribution::default().between(0, u64::MAX), 0);
    }

    #[test]
    fn ranges_cover_every_command_once() {
        let distribution = decoded(&[(1_000, 1), (90_000, 20), (1_000_000, 300)]);
        assert_eq!(distribution.between(0, 50_000), 1);
        assert_eq!(distribution.between(50_000, 100_000), 20);
        assert_eq!(distribution.between(100_000, u64::MAX), 300);
    }

    #[test]
    fn a_hostile_text_is_refused_before_it_costs_memory() {
        let bytes = STANDARD.decode(encoded(&[(1_000, 1)])).unwrap();
        let spoilt = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            Distribution::decode(&STANDARD.encode(bytes)).unwrap_err().0
        };
        assert_eq!(spoilt(&|bytes| bytes[DIGITS_AT + 3] = 5), "finer than the gateway's");
        assert_eq!(spoilt(&|bytes| bytes[0] = 0), "of an unknown encoding");
        assert_eq!(spoilt(&|bytes| bytes.truncate(20)), "of an unknown encoding");
        assert_eq!(spoilt(&|bytes| bytes.truncate(41)), "that is damaged");
        assert_eq!(Distribution::decode("*").unwrap_err().0, "that is no base64");
    }
}
