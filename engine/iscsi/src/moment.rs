//! Time as the caller tells it: nanoseconds of a monotonic clock that this crate never reads.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point on the caller's monotonic clock, in nanoseconds from an origin that is the caller's own. 2^64 ns
/// are 584 years; arithmetic saturates at both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The origin of the clock.
    pub const ORIGIN: Self = Self(0);
    /// Later than everything: a deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment this many milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// How long ago `earlier` was; zero if it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds_since(earlier))
    }

    /// How many nanoseconds ago `earlier` was; zero if it was not.
    #[must_use]
    pub const fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_moment_and_a_duration() {
        let deadline = Moment::from_millis(5) + Duration::from_secs(2);
        assert_eq!(deadline, Moment(2_005_000_000));
        assert_eq!(deadline.since(Moment::from_millis(5)), Duration::from_secs(2));
        assert_eq!(deadline - Duration::from_secs(2), Moment::from_millis(5));
    }

    #[test]
    fn time_saturates_at_both_ends_of_the_clock() {
        assert_eq!(Moment(3) + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment(3) - Duration::from_secs(1), Moment::ORIGIN);
        assert_eq!(Moment(3).since(Moment(4)), Duration::ZERO);
    }
}
