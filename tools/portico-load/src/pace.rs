//! The open loop: when each command of a session is to be sent, whatever the target does meanwhile.
//!
//! A command that could not be sent in time keeps its time: its latency counts from then, so that a target that stalls
//! cannot hide what it makes others wait for.

use std::time::Duration;

use clap::ValueEnum;

use crate::random::Random;

/// The most commands per second.
pub(crate) const RATE_MAX: u64 = 100_000_000;

/// How commands follow each other in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// At equal distances; the sessions take turns.
    Linear,
    /// As independent users come: the distances are distributed exponentially.
    Poisson,
}

/// The times of one session's commands.
#[derive(Debug)]
pub(crate) struct Pace {
    arrival: Arrival,
    random: Random,
    /// Of all sessions together.
    rate: u64,
    sessions: u64,
    number: u64,
    /// Commands whose time was taken.
    taken: u64,
    /// Where the times begin.
    begin_ns: u64,
    next_ns: u64,
}

impl Pace {
    /// Of session `number` of `sessions`, which together send `rate` commands per second.
    pub(crate) fn new(arrival: Arrival, rate: u64, sessions: u32, number: u32, seed: u64) -> Self {
        let mut pace = Self {
            arrival,
            random: Random::new(!seed ^ u64::from(number) << 32),
            rate,
            sessions: sessions.into(),
            number: number.into(),
            taken: 0,
            begin_ns: 0,
            next_ns: 0,
        };
        pace.begin(0);
        pace
    }

    /// The times begin here.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        (self.begin_ns, self.next_ns, self.taken) = (now_ns, now_ns, 0);
        self.next_ns = match self.arrival {
            Arrival::Linear => self.linear(),
            Arrival::Poisson => now_ns + self.distance_ns(),
        };
    }

    /// When the next command is to be sent.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// That one has been sent.
    pub(crate) fn advance(&mut self) {
        self.taken += 1;
        self.next_ns = match self.arrival {
            Arrival::Linear => self.linear(),
            Arrival::Poisson => self.next_ns + self.distance_ns(),
        };
    }

    /// Passes over all commands whose time has come; how many there were, and the time of the first.
    pub(crate) fn skip(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let first = self.next_ns;
        let mut count = 0;
        while self.next_ns <= now_ns {
            count += 1;
            self.advance();
        }
        (count > 0).then_some((count, first))
    }

    fn linear(&self) -> u64 {
        let before = u128::from(self.taken) * u128::from(self.sessions) + u128::from(self.number);
        let offset = before * 1_000_000_000 / u128::from(self.rate);
        self.begin_ns.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    fn distance_ns(&mut self) -> u64 {
        let [high, low] = [self.random.next() >> 32, 1 << 32];
        // In units in which a u64 becomes an f64 without a cast; they cancel out.
        let wide = |number: u64| Duration::from_nanos(number).as_secs_f64();
        // Within (0, 1]; its logarithm is finite.
        let uniform = (wide(high) + wide(1)) / wide(low);
        let mean_s = wide(self.sessions) / wide(self.rate);
        let distance = Duration::from_secs_f64(-uniform.ln() * mean_s);
        u64::try_from(distance.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pace: &mut Pace, count: usize) -> Vec<u64> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(pace.next_ns());
            pace.advance();
        }
        times
    }

    #[test]
    fn sessions_take_turns_at_equal_distances() {
        let mut one = Pace::new(Arrival::Linear, 1_000_000, 2, 0, 1);
        let mut other = Pace::new(Arrival::Linear, 1_000_000, 2, 1, 1);
        one.begin(500);
        other.begin(500);
        assert_eq!(times(&mut one, 3), [500, 2_500, 4_500]);
        assert_eq!(times(&mut other, 3), [1_500, 3_500, 5_500]);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_kept_all_the_same() {
        let mut pace = Pace::new(Arrival::Linear, 3, 1, 0, 1);
        assert_eq!(times(&mut pace, 4), [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn users_come_as_often_as_they_should_and_not_regularly() {
        let mut pace = Pace::new(Arrival::Poisson, 1_000, 4, 2, 9);
        let times = times(&mut pace, 10_000);
        let seconds = times[9_999] / 1_000_000_000;
        assert!((38..43).contains(&seconds), "250 per second: {seconds} s");
        // Of exponential distances 37 % are longer than their mean.
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > 4_000_000).count();
        assert!((3_400..4_000).contains(&long), "{long}");
    }

    #[test]
    fn what_was_never_sent_is_counted() {
        let mut pace = Pace::new(Arrival::Linear, 10, 1, 0, 1);
        times(&mut pace, 3);
        assert_eq!(pace.skip(1_000_000_000), Some((8, 300_000_000)));
        assert_eq!((pace.skip(1_000_000_000), pace.next_ns()), (None, 1_100_000_000));
    }
}
