//! Which shard serves a new session.
//!
//! The one that serves the fewest of the target's sessions; among those the one with the fewest of all; among those the
//! one that accepted the connection, which then need not move; then the first. So the sessions of one target, and with
//! them those of one logical unit, are spread over all shards, whatever addresses they come from. Deterministic.

use std::collections::BTreeMap;

use portico_model::identity::{ShardId, TargetId};

/// How many sessions each shard serves. Discovery sessions do not count: they do nothing and soon end.
#[derive(Debug)]
pub(crate) struct Placement {
    all: Vec<u32>,
    of_target: BTreeMap<TargetId, Vec<u32>>,
}

impl Placement {
    pub(crate) fn new(shards: usize) -> Self {
        assert!(shards > 0, "somebody must serve");
        Self { all: vec![0; shards], of_target: BTreeMap::new() }
    }

    /// The shard for a new session of `target` on a connection that `accepted` accepted. Nothing is counted yet.
    pub(crate) fn choose(&self, target: Option<TargetId>, accepted: ShardId) -> ShardId {
        let Some(target) = target else { return accepted };
        let of_target = self.of_target.get(&target);
        let load = |shard: &ShardId| {
            let at = usize::from(shard.0);
            (of_target.map_or(0, |counts| counts[at]), self.all[at], *shard != accepted, *shard)
        };
        self.shards().min_by_key(load).expect("there is a shard")
    }

    /// A session of `target` is on `shard`.
    pub(crate) fn add(&mut self, target: Option<TargetId>, shard: ShardId) {
        let Some(target) = target else { return };
        let shards = self.all.len();
        self.all[usize::from(shard.0)] += 1;
        self.of_target.entry(target).or_insert_with(|| vec![0; shards])[usize::from(shard.0)] += 1;
    }

    /// A session of `target` is no longer on `shard`.
    pub(crate) fn remove(&mut self, target: Option<TargetId>, shard: ShardId) {
        let Some(target) = target else { return };
        self.all[usize::from(shard.0)] -= 1;
        let counts = self.of_target.get_mut(&target).expect("it was added");
        counts[usize::from(shard.0)] -= 1;
        if counts.iter().all(|&count| count == 0) {
            self.of_target.remove(&target);
        }
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..u16::try_from(self.all.len()).unwrap_or(u16::MAX)).map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<TargetId> = Some(TargetId(1));
    const B: Option<TargetId> = Some(TargetId(2));

    fn place(placement: &mut Placement, target: Option<TargetId>, accepted: u16) -> u16 {
        let shard = placement.choose(target, ShardId(accepted));
        placement.add(target, shard);
        shard.0
    }

    #[test]
    fn the_sessions_of_one_target_are_spread_though_one_shard_accepts_them_all() {
        let mut placement = Placement::new(4);
        let mut counts = [0; 4];
        for _ in 0..64 {
            counts[usize::from(place(&mut placement, A, 2))] += 1;
        }
        assert_eq!(counts, [16; 4]);
    }

    #[test]
    fn single_sessions_of_many_targets_are_spread_too() {
        let mut placement = Placement::new(2);
        let shards: Vec<_> = (0..4).map(|target| place(&mut placement, Some(TargetId(target)), 0)).collect();
        assert_eq!(shards, [0, 1, 0, 1]);
    }

    #[test]
    fn a_session_stays_where_it_was_accepted_if_that_is_as_good() {
        let mut placement = Placement::new(3);
        assert_eq!(place(&mut placement, A, 2), 2);
        assert_eq!(place(&mut placement, A, 2), 0);
    }

    #[test]
    fn a_target_is_spread_even_where_another_one_is_busy() {
        let mut placement = Placement::new(2);
        assert_eq!(place(&mut placement, A, 0), 0);
        placement.add(B, ShardId(1));
        placement.add(B, ShardId(1));
        assert_eq!(place(&mut placement, A, 0), 1, "target first, then the sum");
    }

    #[test]
    fn a_place_that_became_free_is_filled() {
        let mut placement = Placement::new(2);
        assert_eq!((place(&mut placement, A, 0), place(&mut placement, A, 0)), (0, 1));
        placement.remove(A, ShardId(1));
        assert_eq!(place(&mut placement, A, 0), 1);
    }

    #[test]
    fn a_discovery_session_stays_and_does_not_count() {
        let mut placement = Placement::new(2);
        for _ in 0..5 {
            assert_eq!(place(&mut placement, None, 1), 1);
        }
        assert_eq!(place(&mut placement, A, 1), 1);
    }
}
