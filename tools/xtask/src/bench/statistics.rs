//! What repetitions say: a spread, and how sure a median is. Pure functions.

/// The middle of several runs, and the least and the most of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        Some(Spread { median: middle(&values), least, most })
    }

    /// With as many digits as say something.
    pub(super) fn text(self) -> String {
        format!("{} ({}–{})", number(self.median), number(self.least), number(self.most))
    }
}

/// A median, and the bounds between which that of all conceivable runs lies, 95 times out of 100 or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) median: f64,
    /// `None`: too few values for any bounds.
    pub(super) bounds: Option<(f64, f64)>,
}

impl Interval {
    /// Bounds are order statistics, as in the sign test: whatever the values' distribution, the number of them below the true
    /// median is binomial with one half. `None` of nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Interval> {
        values.sort_by(f64::total_cmp);
        if values.is_empty() {
            return None;
        }
        let bounds = rank(values.len()).map(|rank| (values[rank - 1], values[values.len() - rank]));
        Some(Interval { median: middle(&values), bounds })
    }

    pub(super) fn text(self) -> String {
        match self.bounds {
            Some((low, high)) => format!("{} [{}, {}]", number(self.median), number(low), number(high)),
            None => format!("{} [too few]", number(self.median)),
        }
    }
}

/// The largest rank from below, and from above, whose values bound the median with 95 %; `None` for fewer than 6 values.
fn rank(count: usize) -> Option<usize> {
    // P(at most `below` of `count` values are below the median), term by term.
    let mut term = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut sum = 0.0;
    let mut rank = 0;
    for below in 0..count / 2 {
        sum += term;
        if 2.0 * sum > 1.0 - CONFIDENCE {
            break;
        }
        rank = below + 1;
        term *= real(count - below) / real(below + 1);
    }
    (rank > 0).then_some(rank)
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("repetitions are few"))
}

/// Of sorted values, at least one.
fn middle(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Three digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

const CONFIDENCE: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn the_ranks_are_those_of_the_tables() {
        // Conover, Practical Nonparametric Statistics, table of quantile intervals: n, rank.
        for (count, expected) in
            [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (15, 4), (20, 6), (25, 8), (40, 14)]
        {
            assert_eq!(rank(count), Some(expected), "{count} values");
        }
        assert!((1..6).all(|count| rank(count).is_none()));
    }

    #[test]
    fn ten_values_bound_their_median_by_the_second_from_each_end() {
        let values = (1..=10).rev().map(f64::from).collect();
        assert_eq!(Interval::of(values), Some(Interval { median: 5.5, bounds: Some((2.0, 9.0)) }));
        let few = Interval::of(vec![1.0, 3.0]).unwrap();
        assert_eq!((few.median, few.bounds), (2.0, None));
        assert_eq!(Interval::of(Vec::new()), None);
    }

    #[test]
    fn an_interval_holds_the_true_median_as_often_as_it_says() {
        // Uniform numbers, whose median is one half.
        let (mut state, mut held) = (7_u64, 0);
        for _ in 0..2000 {
            let values = (0..10).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(1_u32 << 31)
            });
            let (low, high) = Interval::of(values.collect()).unwrap().bounds.unwrap();
            held += u32::from(low <= 0.5 && 0.5 <= high);
        }
        // 97.9 % are to be expected of ten values.
        assert!((1930..=1985).contains(&held), "{held} of 2000");
    }
}
