//! Histograms drawn with characters: a row for each bucket of time, a bar for how many commands fell into it.
//!
//! Times are on a logarithmic scale, 1-2-5 for each power of ten, or whole powers where there are few rows.

use super::distribution::Distribution;
use crate::figures;

/// A bucket: commands that took longer than `above_ns` and at most `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) above_ns: u64,
    pub(crate) to_ns: u64,
}

/// The upper ends on a 1-2-5 scale are these times every power of ten.
const FINE: [u64; 3] = [1, 2, 5];
const COARSE: [u64; 1] = [1];
/// The lowest upper end: what is faster is as fast as can be told.
const FIRST_NS: u64 = 1_000;
/// No histogram of the gateway goes further.
const LAST_NS: u64 = 100_000_000_000;

impl Bucket {
    /// The upper end, as a label.
    pub(crate) fn label(self) -> String {
        match self.to_ns {
            u64::MAX => format!("> {}", figures::time_ns(LAST_NS)),
            to_ns => {
                let (number, unit) = match to_ns {
                    0..1_000_000 => (to_ns / 1_000, "µs"),
                    1_000_000..1_000_000_000 => (to_ns / 1_000_000, "ms"),
                    _ => (to_ns / 1_000_000_000, "s"),
                };
                format!("≤ {number} {unit}")
            }
        }
    }
}

/// The buckets that show all of `distributions`, at most `rows` of them, finer where that fits. If even the coarse ones do
/// not fit, the slowest are shown.
pub(crate) fn buckets(distributions: &[Distribution], rows: usize) -> Vec<Bucket> {
    let shortest = distributions.iter().filter_map(Distribution::shortest).min();
    let longest = distributions.iter().filter_map(Distribution::longest).max();
    let (Some(shortest), Some(longest)) = (shortest, longest) else { return Vec::new() };
    let fine = scale(&FINE, shortest, longest);
    let mut buckets = if fine.len() <= rows { fine } else { scale(&COARSE, shortest, longest) };
    buckets.drain(..buckets.len().saturating_sub(rows));
    buckets
}

fn scale(steps: &[u64], shortest: u64, longest: u64) -> Vec<Bucket> {
    let powers = std::iter::successors(Some(FIRST_NS), |power| Some(power * 10));
    let ends = powers
        .take_while(|power| *power <= LAST_NS)
        .flat_map(|power| steps.iter().map(move |step| power * step));
    let mut above_ns = 0;
    let mut buckets = Vec::new();
    for to_ns in ends.take_while(|end| *end <= LAST_NS).chain([u64::MAX]) {
        if shortest <= to_ns && above_ns < longest {
            buckets.push(Bucket { above_ns, to_ns });
        }
        above_ns = to_ns;
    }
    buckets
}

/// A bar of `count` out of `most`, at most `width` characters long; whatever is not nothing can be seen.
pub(crate) fn bar(count: u64, most: u64, width: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths_max = u128::try_from(width).unwrap_or(0) * 8;
    let eighths = u128::from(count) * eighths_max / u128::from(most.max(1));
    let eighths = if count > 0 { eighths.max(1) } else { 0 }.min(eighths_max);
    let whole = usize::try_from(eighths / 8).unwrap_or(width);
    "█".repeat(whole) + PARTS[usize::try_from(eighths % 8).expect("less than 8")]
}

#[cfg(test)]
mod tests {
    use super::super::distribution::tests::encoded;
    use super::*;

    fn distribution(times_ns: &[(u64, u64)]) -> Distribution {
        Distribution::decode(&encoded(times_ns)).unwrap()
    }

    fn labels(buckets: &[Bucket]) -> Vec<String> {
        buckets.iter().map(|bucket| bucket.label()).collect()
    }

    #[test]
    fn buckets_go_from_the_fastest_to_the_slowest() {
        let both = [distribution(&[(3_000, 1)]), distribution(&[(90_000, 5), (150_000, 1)])];
        let buckets = buckets(&both, 20);
        assert_eq!(labels(&buckets), ["≤ 5 µs", "≤ 10 µs", "≤ 20 µs", "≤ 50 µs", "≤ 100 µs", "≤ 200 µs"]);
    }

    #[test]
    fn few_rows_make_them_coarse_and_then_leave_out_the_fastest() {
        let wide = [distribution(&[(300, 1), (3_000_000_000, 1)])];
        assert_eq!(buckets(&wide, 100).len(), 21);
        let coarse = buckets(&wide, 10);
        assert_eq!(labels(&coarse)[..2], ["≤ 1 µs", "≤ 10 µs"]);
        assert_eq!(labels(&coarse).last().unwrap(), "≤ 10 s");
        assert_eq!(labels(&buckets(&wide, 2)), ["≤ 1 s", "≤ 10 s"]);
    }

    #[test]
    fn every_command_is_in_one_bucket() {
        let wide = [distribution(&[(256, 3), (1_000, 5), (99_000_000, 7), (100_000_000_000, 11)])];
        for rows in [100, 12] {
            let counts =
                buckets(&wide, rows).into_iter().map(|bucket| wide[0].between(bucket.above_ns, bucket.to_ns));
            assert_eq!(counts.sum::<u64>(), 26);
        }
    }

    #[test]
    fn nothing_has_no_buckets() {
        assert_eq!(buckets(&[Distribution::default()], 10), []);
    }

    #[test]
    fn bars_are_in_proportion_and_the_least_can_be_seen() {
        assert_eq!(bar(0, 100, 10), "");
        assert_eq!(bar(1, 1_000_000, 10), "▏");
        assert_eq!(bar(55, 100, 10), "█████▌");
        assert_eq!(bar(100, 100, 10), "██████████");
        assert_eq!(bar(u64::MAX, u64::MAX, 3), "███");
        assert_eq!(bar(5, 0, 2), "██");
    }
}
