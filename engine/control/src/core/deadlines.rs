//! Which unit is to be looked at next, and when.

use std::collections::{BTreeMap, BTreeSet};

use portico_iscsi::moment::Moment;
use portico_model::identity::UnitId;

/// The deadline of each unit that has one.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_unit: BTreeMap<UnitId, Moment>,
    in_order: BTreeSet<(Moment, UnitId)>,
}

impl Deadlines {
    /// The unit is to be looked at then; [`Moment::NEVER`] for not at all.
    pub(super) fn set(&mut self, unit: UnitId, at: Moment) {
        let before = match at {
            Moment::NEVER => self.by_unit.remove(&unit),
            _ => self.by_unit.insert(unit, at),
        };
        if let Some(before) = before {
            self.in_order.remove(&(before, unit));
        }
        if at != Moment::NEVER {
            self.in_order.insert((at, unit));
        }
    }

    /// The first of all.
    pub(super) fn first(&self) -> Moment {
        self.in_order.first().map_or(Moment::NEVER, |(at, _)| *at)
    }

    /// Takes out the units that are due.
    pub(super) fn due(&mut self, now: Moment) -> Vec<UnitId> {
        let later = self.in_order.split_off(&(Moment(now.0.saturating_add(1)), UnitId(0)));
        let due = std::mem::replace(&mut self.in_order, later);
        due.into_iter()
            .map(|(_, unit)| {
                self.by_unit.remove(&unit);
                unit
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_in_the_order_of_their_deadlines_and_once() {
        let mut deadlines = Deadlines::default();
        deadlines.set(UnitId(1), Moment(30));
        deadlines.set(UnitId(2), Moment(20));
        deadlines.set(UnitId(3), Moment(40));
        deadlines.set(UnitId(1), Moment(10));
        deadlines.set(UnitId(3), Moment::NEVER);
        assert_eq!(deadlines.first(), Moment(10));
        assert_eq!(deadlines.due(Moment(9)), []);
        assert_eq!(deadlines.due(Moment(20)), [UnitId(1), UnitId(2)]);
        assert_eq!(deadlines.first(), Moment::NEVER);
    }
}
