//! What happened between two answers: the later minus the earlier.

use super::answer::{Answer, Operation, TOTAL, Unit};
use super::distribution::Distribution;

/// The figures of one interval, and the answer at its end.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) length_ns: u64,
    pub(crate) end: Answer,
    /// As `end.units`.
    pub(crate) activities: Vec<[Activity; 3]>,
}

/// What one operation of one unit did in an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Commands that ended.
    pub(crate) commands: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    /// Of those commands.
    pub(crate) phases: [Distribution; 3],
    /// Of their requests to a library.
    pub(crate) in_library: Distribution,
}

impl Interval {
    /// The interval from `start` to `end`. `None` where there is none: the same answer twice, or the gateway was restarted.
    pub(crate) fn between(start: &Answer, end: Answer) -> Option<Self> {
        let length_ns = end.taken_ns.checked_sub(start.taken_ns).filter(|length| *length > 0)?;
        let activities = end.units.iter().map(|unit| activities(before(start, unit), unit)).collect();
        Some(Self { length_ns, end, activities })
    }

    /// So many in this interval, per second, to the nearest.
    pub(crate) fn per_second(&self, count: u64) -> u64 {
        let length = u128::from(self.length_ns);
        let rate = (u128::from(count) * 1_000_000_000 + length / 2) / length;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

impl Activity {
    /// The whole time of the commands.
    pub(crate) fn total(&self) -> &Distribution {
        &self.phases[TOTAL]
    }
}

fn before<'a>(start: &'a Answer, unit: &Unit) -> Option<&'a Unit> {
    let index = start.units.binary_search_by_key(&unit.unit, |unit| unit.unit).ok()?;
    Some(&start.units[index])
}

/// A unit that was not there before began with nothing.
fn activities(before: Option<&Unit>, after: &Unit) -> [Activity; 3] {
    std::array::from_fn(|operation| {
        let after = &after.operations[operation];
        let nothing = Operation::default();
        let before = before.map_or(&nothing, |unit| &unit.operations[operation]);
        // Less than before: the figures are of another unit, with the same number.
        since(before, after).or_else(|| since(&nothing, after)).unwrap_or_default()
    })
}

fn since(before: &Operation, after: &Operation) -> Option<Activity> {
    let [waited, at_medium, total] = &after.phases;
    let [waited_before, at_medium_before, total_before] = &before.phases;
    Some(Activity {
        commands: after.commands.checked_sub(before.commands)?,
        bytes: after.bytes.checked_sub(before.bytes)?,
        errors: after.errors.checked_sub(before.errors)?,
        phases: [
            waited.since(waited_before)?,
            at_medium.since(at_medium_before)?,
            total.since(total_before)?,
        ],
        in_library: after.in_library.since(&before.in_library)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::answer;
    use super::*;

    #[test]
    fn an_interval_has_what_was_added_in_it() {
        let interval = Interval::between(&answer(1_000_000_000, 200), answer(3_000_000_000, 5_200)).unwrap();
        let [read, write, other] = &interval.activities[0];
        assert_eq!((read.commands, read.bytes, read.errors), (5_000, 5_000 * 4096, 0));
        assert_eq!(read.total().count(), 5_000);
        assert_eq!(interval.per_second(read.commands), 2_500);
        assert_eq!((write, other), (&Activity::default(), &Activity::default()));
    }

    #[test]
    fn a_unit_that_is_new_counts_from_nothing() {
        let mut start = answer(1_000_000_000, 200);
        start.units[0].unit = 6;
        let interval = Interval::between(&start, answer(2_000_000_000, 300)).unwrap();
        assert_eq!(interval.activities[0][0].commands, 300);
    }

    #[test]
    fn a_unit_that_has_less_than_before_counts_from_nothing() {
        let interval = Interval::between(&answer(1_000_000_000, 200), answer(2_000_000_000, 50)).unwrap();
        assert_eq!(interval.activities[0][0].commands, 50);
    }

    #[test]
    fn a_gateway_that_was_restarted_gives_no_interval() {
        assert!(Interval::between(&answer(9_000_000_000, 200), answer(1_000_000_000, 5)).is_none());
        assert!(Interval::between(&answer(9_000_000_000, 200), answer(9_000_000_000, 200)).is_none());
    }
}
