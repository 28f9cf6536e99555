//! Asking every shard for its meters, and adding up what comes.
//!
//! One round at a time: each shard gets a spare, sends its full meters and goes on with the spare, so that neither side
//! ever waits or allocates while it counts. Whoever asks during a round is answered at its end. A shard that does not
//! answer in time is left out and its meters are added when they do come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::identity::{ShardId, ShardSet, UnitId};
use portico_model::login_failures::LoginFailures;
use portico_model::meter::{Meters, UnitMeter};

use super::{ShardSnapshot, UnitTotals};
use crate::core::QueryId;

/// How long a round waits for the slowest shard.
pub(crate) const ROUND_PATIENCE: Duration = Duration::from_millis(500);
/// Shards are asked at least this often, asked for or not: their counters are 32 bits wide.
pub(crate) const ROUND_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// Questions that may wait for a round; the HTTP server has fewer connections.
pub(crate) const QUESTIONS_MAX: usize = 256;

/// The meters of all shards, and the round that fetches them.
#[derive(Debug)]
pub(crate) struct Collection {
    shards: Vec<ShardMeters>,
    totals: BTreeMap<UnitId, Arc<UnitTotals>>,
    waiting: Vec<QueryId>,
    round: Option<Round>,
    last_round: Moment,
}

#[derive(Debug, Default)]
struct ShardMeters {
    /// Of the last collection.
    seen: ShardSnapshot,
    login_failures: LoginFailures,
    in_flight: BTreeMap<UnitId, u32>,
    /// `None` while the shard has it: its answer is still to come.
    spare: Option<Box<Meters>>,
}

#[derive(Debug)]
struct Round {
    missing: ShardSet,
    deadline: Moment,
}

impl Collection {
    pub(crate) fn new(shards: usize) -> Self {
        let fresh = || ShardMeters { spare: Some(Box::default()), ..ShardMeters::default() };
        Self {
            shards: (0..shards).map(|_| fresh()).collect(),
            totals: BTreeMap::new(),
            waiting: Vec::new(),
            round: None,
            last_round: Moment::ORIGIN,
        }
    }

    /// Somebody wants to know. `false` if too many do already.
    pub(crate) fn ask(&mut self, query: QueryId) -> bool {
        let room = self.waiting.len() < QUESTIONS_MAX;
        if room {
            self.waiting.push(query);
        }
        room
    }

    /// Begins a round unless one is running: the spares to send, each with a meter for every one of `units`.
    ///
    /// `units` ascend, and are those that each shard knows when the spare reaches it.
    pub(crate) fn begin(
        &mut self,
        units: impl Iterator<Item = UnitId> + Clone,
        now: Moment,
    ) -> Vec<(ShardId, Box<Meters>)> {
        if self.round.is_some() {
            return Vec::new();
        }
        self.last_round = now;
        let mut missing = ShardSet::default();
        let mut spares = Vec::new();
        for (shard, meters) in (0..).map(ShardId).zip(&mut self.shards) {
            let Some(mut spare) = meters.spare.take() else { continue };
            fit(&mut spare.units, units.clone());
            missing.insert(shard);
            spares.push((shard, spare));
        }
        self.round = Some(Round { missing, deadline: now + ROUND_PATIENCE });
        spares
    }

    /// A shard's full meters. True if the round is complete with them.
    pub(crate) fn add(&mut self, shard: ShardId, mut full: Box<Meters>) -> bool {
        let meters = &mut self.shards[usize::from(shard.0)];
        meters.seen = ShardSnapshot { sessions: full.sessions, counters: full.shard };
        meters.login_failures = std::mem::take(&mut full.login_failures);
        meters.in_flight.clear();
        for unit in &mut full.units {
            meters.in_flight.insert(unit.unit, unit.in_flight);
            if let Some(totals) = self.totals.get_mut(&unit.unit) {
                Arc::make_mut(totals).add(unit);
            }
            unit.clear();
        }
        meters.spare = Some(full);
        match &mut self.round {
            Some(round) => round.missing.remove(shard) && round.missing.is_empty(),
            None => false,
        }
    }

    /// When something is to be done though no mail comes.
    pub(crate) fn next_deadline(&self) -> Moment {
        match &self.round {
            Some(round) => round.deadline,
            None => self.last_round + ROUND_INTERVAL_MAX,
        }
    }

    /// Whether a round has waited long enough.
    pub(crate) fn overdue(&self, now: Moment) -> bool {
        self.round.as_ref().is_some_and(|round| round.deadline <= now)
    }

    /// Whether it is time for a round that nobody asked for.
    pub(crate) fn round_due(&self, now: Moment) -> bool {
        self.round.is_none() && self.last_round + ROUND_INTERVAL_MAX <= now
    }

    /// Ends the round: who is to be answered, and how many shards are not in the answer.
    pub(crate) fn finish(&mut self) -> (Vec<QueryId>, u32) {
        let late = self.round.take().map_or(0, |round| round.missing.len());
        (std::mem::take(&mut self.waiting), u32::try_from(late).unwrap_or(u32::MAX))
    }

    /// A unit begins: what is recorded of it counts from now on.
    pub(crate) fn open(&mut self, unit: UnitId) {
        self.totals.insert(unit, Arc::default());
    }

    /// A unit is gone.
    pub(crate) fn close(&mut self, unit: UnitId) {
        self.totals.remove(&unit);
    }

    /// Commands of a unit in hand on all shards.
    pub(crate) fn in_flight(&self, unit: UnitId) -> u64 {
        self.shards.iter().filter_map(|shard| shard.in_flight.get(&unit)).map(|&count| u64::from(count)).sum()
    }

    /// What a unit did.
    pub(crate) fn totals(&self, unit: UnitId) -> Arc<UnitTotals> {
        self.totals.get(&unit).cloned().unwrap_or_default()
    }

    /// Logins that came to nothing, on all shards.
    pub(crate) fn login_failures(&self) -> LoginFailures {
        let mut sum = LoginFailures::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.login_failures));
        sum
    }

    /// Each shard as it was seen last.
    pub(crate) fn shards(&self) -> Vec<ShardSnapshot> {
        self.shards.iter().map(|shard| shard.seen).collect()
    }
}

/// Makes `meters` those of `units`, which ascend: memory of what stays is kept.
fn fit(meters: &mut Vec<UnitMeter>, units: impl Iterator<Item = UnitId>) {
    let mut kept: BTreeMap<UnitId, UnitMeter> = meters.drain(..).map(|meter| (meter.unit, meter)).collect();
    meters.extend(units.map(|unit| kept.remove(&unit).unwrap_or_else(|| UnitMeter::new(unit))));
}

#[cfg(test)]
mod tests {
    use portico_model::meter::Operation;

    use super::*;

    const UNIT: UnitId = UnitId(3);

    fn full(reads: u64, units: &[UnitId]) -> Box<Meters> {
        let mut meters = Meters { sessions: 2, ..Meters::default() };
        for &unit in units {
            let mut meter = UnitMeter::new(unit);
            meter.operation(Operation::Read).commands = reads;
            meter.in_flight = 5;
            meters.units.push(meter);
        }
        Box::new(meters)
    }

    fn reads(collection: &Collection) -> u64 {
        collection.totals(UNIT).operation(Operation::Read).map_or(0, |totals| totals.commands)
    }

    #[test]
    fn a_round_is_complete_when_every_shard_has_answered() {
        let mut collection = Collection::new(2);
        collection.open(UNIT);
        assert!(collection.ask(QueryId(1)));
        let spares = collection.begin([UNIT].into_iter(), Moment(0));
        assert_eq!(spares.len(), 2);
        assert!(spares.iter().all(|(_, spare)| spare.units.len() == 1 && spare.units[0].unit == UNIT));
        assert!(collection.ask(QueryId(2)), "who asks during a round is answered with it");
        assert!(collection.begin([UNIT].into_iter(), Moment(0)).is_empty(), "one round at a time");
        assert!(!collection.add(ShardId(1), full(10, &[UNIT])));
        assert!(collection.add(ShardId(0), full(7, &[UNIT])));
        assert_eq!(collection.finish(), (vec![QueryId(1), QueryId(2)], 0));
        assert_eq!((reads(&collection), collection.in_flight(UNIT)), (17, 10));
    }

    #[test]
    fn a_shard_that_is_late_is_left_out_and_not_asked_again_until_it_answered() {
        let mut collection = Collection::new(2);
        collection.open(UNIT);
        collection.ask(QueryId(1));
        collection.begin([UNIT].into_iter(), Moment(0));
        collection.add(ShardId(0), full(1, &[UNIT]));
        assert!(!collection.overdue(Moment(0)));
        assert!(collection.overdue(Moment(0) + ROUND_PATIENCE));
        assert_eq!(collection.finish(), (vec![QueryId(1)], 1));

        let asked: Vec<_> =
            collection.begin([UNIT].into_iter(), Moment(1)).iter().map(|(shard, _)| *shard).collect();
        assert_eq!(asked, [ShardId(0)]);
        assert!(!collection.add(ShardId(1), full(100, &[UNIT])), "late, and not what this round waits for");
        assert!(collection.add(ShardId(0), full(1, &[UNIT])));
        assert_eq!(reads(&collection), 102, "nothing is lost");
    }

    #[test]
    fn spares_come_back_empty_and_follow_the_units() {
        let mut collection = Collection::new(1);
        collection.begin([UNIT].into_iter(), Moment(0));
        collection.add(ShardId(0), full(9, &[UNIT]));
        collection.finish();
        let spares = collection.begin([UNIT, UnitId(4)].into_iter(), Moment(0));
        let units = &spares[0].1.units;
        assert_eq!(units.iter().map(|meter| meter.unit).collect::<Vec<_>>(), [UNIT, UnitId(4)]);
        assert!(units.iter().all(|meter| meter.operations[0].commands == 0 && meter.in_flight == 0));
    }

    #[test]
    fn questions_are_bounded() {
        let mut collection = Collection::new(1);
        for query in 0..QUESTIONS_MAX {
            assert!(collection.ask(QueryId(query as u64)));
        }
        assert!(!collection.ask(QueryId(9999)));
    }
}
