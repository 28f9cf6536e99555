//! The ratios that were promised, each on one cell: what it is of, how large it may or must be, and what the run says.

use super::contender::{Contender, FLOOR};
use super::matrix::{Cell, Direction, Media};
use super::sample::Sample;
use super::statistics::Interval;

/// What two contenders are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Processor time for each command.
    Cpu,
    /// Commands per second.
    Iops,
    /// The median latency.
    P50,
}

impl Measure {
    fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Measure::Cpu => sample.cpu_us(),
            Measure::Iops => Some(sample.iops()),
            Measure::P50 => sample.percentile_us(0.5),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Measure::Cpu => "CPU per I/O",
            Measure::Iops => "IOPS",
            Measure::P50 => "p50",
        }
    }
}

/// One promise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    cell: Cell,
    measure: Measure,
    ours: Contender,
    theirs: Contender,
    at_least: f64,
    aim: f64,
}

/// All of them.
pub(super) fn all() -> Vec<Claim> {
    use Contender::{Digests, Medium, Polling, Portico, Shards, Tgt, Unmeasured};
    use Measure::{Cpu, Iops, P50};
    let null = Cell::new(Media::Null, 4, Direction::Read, 4, 64);
    let cell = Cell::new;
    let claim =
        |cell, measure, (ours, theirs), at_least, aim| Claim { cell, measure, ours, theirs, at_least, aim };
    let polling = (Polling, Contender::Floor { polls: true });
    vec![
        claim(null, Cpu, (Portico, FLOOR), 2.0, 1.4),
        claim(null, Iops, (Portico, Tgt), 8.0, 12.0),
        claim(cell(Media::Ram, 4, Direction::Read, 4, 64), Iops, (Portico, Tgt), 10.0, 15.0),
        claim(cell(Media::Ram, 4, Direction::Write, 4, 64), Iops, (Portico, Tgt), 8.0, 12.0),
        claim(cell(Media::Null, 4, Direction::Read, 1, 1), P50, polling, 1.25, 1.1),
        claim(cell(Media::Ram, 128, Direction::Read, 1, 8), Cpu, (Portico, FLOOR), 1.3, 1.1),
        claim(cell(Media::Ram, 128, Direction::Write, 1, 8), Cpu, (Portico, FLOOR), 1.3, 1.1),
        claim(cell(Media::File, 4, Direction::Read, 1, 32), Iops, (Portico, Medium), 0.95, 1.0),
        claim(Cell { is_paced: true, ..null }, Cpu, (Shards(2), Portico), 1.1, 1.05),
        claim(null, Cpu, (Portico, Unmeasured), 1.02, 1.01),
        claim(cell(Media::Ram, 4, Direction::Read, 4, 64), Cpu, (Digests, Portico), 1.25, 1.1),
    ]
}

/// The ratio of the two in each pair that has both.
pub(super) fn ratio(
    samples: &[Sample],
    cell: Cell,
    measure: Measure,
    (ours, theirs): (Contender, Contender),
) -> Option<Interval> {
    let of =
        |contender| samples.iter().filter(move |sample| sample.cell == cell && sample.contender == contender);
    let ratios = of(ours).filter_map(|ours| {
        let theirs = of(theirs).find(|theirs| theirs.pair == ours.pair)?;
        Some(measure.of(ours)? / measure.of(theirs)?)
    });
    Interval::of(ratios.collect())
}

impl Claim {
    /// A row of the table; `None` where the run has nothing to it.
    pub(super) fn row(&self, samples: &[Sample]) -> Option<String> {
        let Claim { cell, measure, ours, theirs, at_least, aim } = *self;
        let ratio = ratio(samples, cell, measure, (ours, theirs))?;
        let sign = if measure == Measure::Iops { "≥" } else { "≤" };
        let what = measure.name();
        Some(format!(
            "| {cell} | {what}: {ours} / {theirs} | {sign} {at_least} | {sign} {aim} | {} | {} |",
            ratio.text(),
            verdict(ratio, measure, at_least, aim)
        ))
    }
}

/// The whole interval decides.
fn verdict(ratio: Interval, measure: Measure, at_least: f64, aim: f64) -> &'static str {
    let Some((low, high)) = ratio.bounds else { return "undecided: too few pairs" };
    // Turned round, so that more is better.
    let (worst, best, at_least, aim) = match measure {
        Measure::Iops => (low, high, at_least, aim),
        Measure::Cpu | Measure::P50 => (-high, -low, -at_least, -aim),
    };
    if worst >= aim {
        "reached, and what was aimed for"
    } else if worst >= at_least {
        "reached"
    } else if best < at_least {
        "missed"
    } else {
        "undecided"
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn every_claim_is_measured_by_the_run_that_is_made_for_them() {
        let plan = super::super::plan::claims();
        for claim in all() {
            let row = plan.iter().find(|(cell, _)| *cell == claim.cell);
            let contenders = &row.expect("its cell is measured").1;
            assert!(contenders.contains(&claim.ours) && contenders.contains(&claim.theirs), "{claim:?}");
        }
    }

    #[test]
    fn a_ratio_is_that_of_one_pair() {
        let samples = [
            sample(0, Contender::Portico, 100, 1.0),
            sample(0, FLOOR, 100, 2.0),
            sample(1, FLOOR, 100, 1.0),
            sample(1, Contender::Portico, 100, 3.0),
            sample(2, Contender::Portico, 100, 9.0),
        ];
        let ratio = ratio(&samples, samples[0].cell, Measure::Cpu, (Contender::Portico, FLOOR)).unwrap();
        assert_eq!((ratio.median, ratio.bounds), (1.75, None));
        assert!(all()[0].row(&samples).unwrap().contains("≤ 2 | ≤ 1.4 | 1.75 [too few] | undecided"));
        assert!(all()[2].row(&samples).is_none());
    }

    #[test]
    fn the_whole_interval_has_to_be_on_the_right_side() {
        let verdict = |low, high, measure, at_least, aim| {
            verdict(Interval { median: low, bounds: Some((low, high)) }, measure, at_least, aim)
        };
        assert_eq!(verdict(8.5, 9.0, Measure::Iops, 8.0, 12.0), "reached");
        assert_eq!(verdict(7.9, 9.0, Measure::Iops, 8.0, 12.0), "undecided");
        assert_eq!(verdict(6.0, 7.9, Measure::Iops, 8.0, 12.0), "missed");
        assert_eq!(verdict(1.2, 1.3, Measure::Cpu, 2.0, 1.4), "reached, and what was aimed for");
        assert_eq!(verdict(1.9, 2.1, Measure::Cpu, 2.0, 1.4), "undecided");
        assert_eq!(verdict(2.1, 2.2, Measure::P50, 2.0, 1.4), "missed");
    }
}
