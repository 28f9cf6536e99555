//! One measurement, and its line in `raw.csv`.

use super::contender::Contender;
use super::matrix::Cell;

/// What one contender did in one cell of one pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) cell: Cell,
    pub(super) pair: u32,
    pub(super) contender: Contender,
    pub(super) seconds: f64,
    /// Commands that ended.
    pub(super) commands: u64,
    /// Of the whole process of the target; `None` where it is not one of this machine.
    pub(super) cpu_seconds: Option<f64>,
    /// Processors that the target may use.
    pub(super) cores: u32,
    /// The share of its time for which the busiest thread of the generator ran; `None` without one.
    pub(super) generator_busy: Option<f64>,
    /// Latencies in nanoseconds, ascending, and how often each occurred.
    pub(super) histogram: Vec<(u64, u64)>,
}

impl Sample {
    /// Commands per second.
    pub(super) fn iops(&self) -> f64 {
        real(self.commands) / self.seconds
    }

    /// µs of processor time for each command.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        Some(self.cpu_seconds? * 1e6 / real(self.commands))
    }

    /// The latency in µs below which that share of all commands was.
    pub(super) fn percentile_us(&self, share: f64) -> Option<f64> {
        percentile(&self.histogram, share).map(|time_ns| real(time_ns) / 1000.0)
    }

    fn target_busy(&self) -> Option<f64> {
        Some(self.cpu_seconds? / self.seconds / f64::from(self.cores))
    }

    /// Who had no time left.
    pub(super) fn saturated(&self) -> &'static str {
        let is_full = |busy: Option<f64>| busy.is_some_and(|busy| busy >= BUSY_MIN);
        match (is_full(self.target_busy()), is_full(self.generator_busy)) {
            (true, true) => "both",
            (true, false) => "target",
            (false, true) => "generator",
            (false, false) => "neither",
        }
    }

    /// The line, without its end.
    pub(super) fn line(&self) -> String {
        let told = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        let Sample { cell, pair, contender, seconds, commands, cores, .. } = self;
        format!(
            "{cell},{pair},{contender},{seconds:.3},{commands},{:.0},{},{},{},{},{},{cores},{},{},{}",
            self.iops(),
            told(self.cpu_seconds, 4),
            told(self.cpu_us(), 4),
            told(self.percentile_us(0.5), 2),
            told(self.percentile_us(0.99), 2),
            told(self.percentile_us(0.999), 2),
            told(self.target_busy(), 3),
            told(self.generator_busy, 3),
            self.saturated(),
        )
    }
}

/// The first line of `raw.csv`; a file with another one is of another kind of run.
pub(super) const COLUMNS: &str = "cell,pair,contender,seconds,commands,iops,cpu_seconds,cpu_us_per_command,p50_us,p99_us,\
    p99_9_us,target_cores,target_busy,generator_busy,saturated";

/// The value below or at which that share of all counts is.
pub(super) fn percentile(histogram: &[(u64, u64)], share: f64) -> Option<u64> {
    let total: u64 = histogram.iter().map(|(_, count)| count).sum();
    let mut left = real(total) * share;
    histogram
        .iter()
        .find(|(_, count)| {
            left -= real(*count);
            left <= 0.0
        })
        .map(|(value, _)| *value)
}

/// Both together.
pub(super) fn merged(histograms: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for (value, count) in histograms {
        *counts.entry(value).or_insert(0) += count;
    }
    counts.into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds stay far below 2^52")]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}

/// From this share of its processors on, a process is as fast as it can be.
const BUSY_MIN: f64 = 0.95;

#[cfg(test)]
pub(super) mod tests {
    use super::super::matrix::{Direction, Media};
    use super::*;

    pub(in super::super) fn sample(
        pair: u32,
        contender: Contender,
        commands: u64,
        cpu_seconds: f64,
    ) -> Sample {
        Sample {
            cell: Cell::new(Media::Null, 4, Direction::Read, 4, 64),
            pair,
            contender,
            seconds: 2.0,
            commands,
            cpu_seconds: Some(cpu_seconds),
            cores: 1,
            generator_busy: Some(0.5),
            histogram: vec![(1_000, commands / 2), (2_000, commands - commands / 2)],
        }
    }

    #[test]
    fn a_percentile_is_the_first_value_that_has_enough_below_it() {
        let histogram = [(10, 50), (20, 49), (30, 1)];
        let at = |share| percentile(&histogram, share);
        assert_eq!([at(0.5), at(0.51), at(0.99), at(0.999)], [Some(10), Some(20), Some(20), Some(30)]);
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn the_busy_side_is_named() {
        let mut sample = sample(0, Contender::Tgt, 1000, 1.99);
        assert_eq!(sample.saturated(), "target");
        sample.generator_busy = Some(1.0);
        assert_eq!(sample.saturated(), "both");
        sample.cores = 2;
        assert_eq!(sample.saturated(), "generator");
        sample.generator_busy = None;
        assert_eq!(sample.saturated(), "neither");
    }

    #[test]
    fn a_line_has_a_field_for_each_column() {
        let mut sample = sample(3, Contender::Floor { polls: true }, 100_000, 0.5);
        let line = sample.line();
        assert_eq!(line.split(',').count(), COLUMNS.split(',').count());
        assert!(
            line.starts_with("null-4k-read-4x64,3,floor-poll,2.000,100000,50000,0.5000,5.0000,1.00,2.00,")
        );
        sample.cpu_seconds = None;
        assert_eq!(sample.line().split(',').nth(7), Some(""));
    }
}
