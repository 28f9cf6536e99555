//! Random lives of one unit on four shards: pieces come and go, claims are made, granted, given back or given up, shards
//! come and go, words are late. In each of them, nothing that overlaps a granted claim is at the medium, and everything
//! comes to rest.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const SHARDS: usize = 4;
const BLOCKS: u64 = 6;

/// One thing that happens; numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The first word on the way between these two arrives.
    Deliver { from: usize, to: usize },
    /// A piece is handed to the medium, if it may be.
    Hand { shard: usize, lba: u64, count: u64 },
    /// A piece is off the medium.
    Land { shard: usize, which: usize },
    /// Blocks are claimed, by a member.
    Claim { shard: usize, lba: u64, count: u64 },
    /// A claim is given back, granted or not.
    Open { shard: usize, which: usize },
    /// A shard with nothing in hand leaves.
    Leave { shard: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let shard = 0..SHARDS;
    let range = || (0..BLOCKS, 1..3u64);
    prop_oneof![
        20 => (shard.clone(), 0..SHARDS).prop_map(|(from, to)| Event::Deliver { from, to }),
        6 => (shard.clone(), range()).prop_map(|(shard, (lba, count))| Event::Hand { shard, lba, count }),
        6 => (shard.clone(), 0..8usize).prop_map(|(shard, which)| Event::Land { shard, which }),
        3 => (shard.clone(), range()).prop_map(|(shard, (lba, count))| Event::Claim { shard, lba, count }),
        3 => (shard.clone(), 0..8usize).prop_map(|(shard, which)| Event::Open { shard, which }),
        1 => shard.prop_map(|shard| Event::Leave { shard }),
    ]
}

struct World {
    arbiters: Vec<Arbiter>,
    /// What flies from each to each.
    air: Vec<VecDeque<Word>>,
    pieces: Vec<Vec<Blocks>>,
    own: Vec<Vec<(Stamp, Blocks)>>,
    grants: u32,
    /// The fault: members yield at once.
    careless: bool,
}

impl World {
    fn new(careless: bool) -> Self {
        let shard = |number: usize| ShardId(u16::try_from(number).expect("four"));
        Self {
            arbiters: (0..SHARDS).map(|number| Arbiter::new(shard(number), SHARDS)).collect(),
            air: vec![VecDeque::new(); SHARDS * SHARDS],
            pieces: vec![Vec::new(); SHARDS],
            own: vec![Vec::new(); SHARDS],
            grants: 0,
            careless,
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        let mut words = Words::new();
        let actor = match event {
            Event::Deliver { from, to } => {
                let Some(word) = self.air[from * SHARDS + to].pop_front() else { return Ok(()) };
                let from = self.arbiters[from].me;
                self.arbiters[to].hear(from, word, &mut words);
                to
            }
            Event::Hand { shard, lba, count } => {
                let blocks = Blocks { lba, count };
                self.arbiters[shard].join(&mut words);
                if self.arbiters[shard].admits(None, blocks) {
                    self.pieces[shard].push(blocks);
                }
                shard
            }
            Event::Land { shard, which } => {
                let count = self.pieces[shard].len().max(1);
                self.pieces[shard].get(which % count).is_some().then(|| {
                    self.pieces[shard].remove(which % count);
                });
                shard
            }
            Event::Claim { shard, lba, count } => {
                let blocks = Blocks { lba, count };
                self.arbiters[shard].join(&mut words);
                if self.arbiters[shard].is_member() {
                    let stamp = self.arbiters[shard].claim(blocks, &mut words);
                    self.own[shard].push((stamp, blocks));
                }
                shard
            }
            Event::Open { shard, which } => {
                let count = self.own[shard].len();
                if count > 0 {
                    let (stamp, _) = self.own[shard].remove(which % count);
                    self.arbiters[shard].open(stamp, &mut words);
                }
                shard
            }
            Event::Leave { shard } => {
                if self.own[shard].is_empty() && self.pieces[shard].is_empty() {
                    self.arbiters[shard].leave(&mut words);
                }
                shard
            }
        };
        let (pieces, careless) = (&self.pieces[actor], self.careless);
        let is_busy = |blocks: Blocks| !careless && pieces.iter().any(|piece| piece.overlaps(blocks));
        self.grants += u32::from(self.arbiters[actor].advance(is_busy, &mut words));
        for (to, word) in words {
            self.air[actor * SHARDS + usize::from(to.0)].push_back(word);
        }
        self.judge()
    }

    /// Nobody else is where a claim is granted.
    fn judge(&self) -> Result<(), TestCaseError> {
        let granted = |shard: usize| {
            let arbiter = &self.arbiters[shard];
            self.own[shard].iter().filter(|(stamp, _)| arbiter.is_granted(*stamp))
        };
        for shard in 0..SHARDS {
            for (stamp, blocks) in granted(shard) {
                for other in 0..SHARDS {
                    let piece = self.pieces[other].iter().find(|piece| piece.overlaps(*blocks));
                    prop_assert!(piece.is_none(), "{piece:?} of {other} in {blocks:?} of {shard}");
                    let claim = granted(other).find(|(also, there)| also != stamp && there.overlaps(*blocks));
                    prop_assert!(claim.is_none(), "{claim:?} of {other} beside {blocks:?} of {shard}");
                }
            }
        }
        Ok(())
    }

    /// Every word arrives, every piece lands, every claim is granted and given back.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..1000 {
            let at_rest = self.air.iter().all(VecDeque::is_empty) && self.own.iter().all(Vec::is_empty);
            if at_rest && self.pieces.iter().all(Vec::is_empty) {
                break;
            }
            for from in 0..SHARDS {
                for to in 0..SHARDS {
                    self.happen(Event::Deliver { from, to })?;
                }
                self.happen(Event::Land { shard: from, which: 0 })?;
                let arbiter = &self.arbiters[from];
                if let Some(which) = self.own[from].iter().position(|(stamp, _)| arbiter.is_granted(*stamp)) {
                    self.happen(Event::Open { shard: from, which })?;
                }
            }
        }
        prop_assert!(self.air.iter().all(VecDeque::is_empty), "words fly on");
        prop_assert!(self.own.iter().all(Vec::is_empty), "a claim is never granted: {:?}", self.own);
        for arbiter in &self.arbiters {
            prop_assert!(arbiter.claims.is_empty(), "a claim is left behind: {arbiter:?}");
            prop_assert!(arbiter.is_open() || arbiter.standing == Standing::Absent, "{arbiter:?}");
        }
        Ok(())
    }
}

fn life(events: &[Event], careless: bool) -> Result<u32, TestCaseError> {
    let mut world = World::new(careless);
    for event in events {
        world.happen(*event)?;
    }
    world.rest()?;
    Ok(world.grants)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whoever_is_granted_blocks_is_alone_there_and_everybody_is_in_the_end(
        events in prop::collection::vec(event(), 0..300),
    ) {
        life(&events, false)?;
    }
}

#[test]
fn lives_are_full_of_grants_and_one_without_a_drain_is_found_out() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut grants, mut found) = (0, 0);
    for _ in 0..300 {
        let events =
            prop::collection::vec(event(), 200..300).new_tree(&mut runner).expect("it can").current();
        grants += life(&events, false).expect("all is well");
        found += u32::from(life(&events, true).is_err());
    }
    assert!(grants > 300, "{grants} grants");
    assert!(found > 20, "the fault is found in {found} lives of 300");
}

#[test]
fn one_shard_says_nothing_to_anybody() {
    let mut words = Words::new();
    let mut alone = Arbiter::new(ShardId(0), 1);
    assert!(alone.is_open());
    let blocks = Blocks { lba: 0, count: 1 };
    let first = alone.claim(blocks, &mut words);
    let second = alone.claim(blocks, &mut words);
    let other = alone.claim(Blocks { lba: 1, count: 1 }, &mut words);
    assert!(alone.advance(|_| false, &mut words));
    assert!(alone.is_granted(first) && alone.is_granted(other) && !alone.is_granted(second));
    assert!(alone.admits(Some(first), blocks) && !alone.admits(Some(second), blocks));
    assert!(!alone.admits(None, blocks) && alone.admits(None, Blocks { lba: 2, count: 9 }));
    alone.open(first, &mut words);
    assert!(alone.advance(|_| false, &mut words) && alone.is_granted(second));
    assert_eq!(words, []);
}

#[test]
fn the_only_member_says_nothing_to_anybody() {
    let mut words = Words::new();
    let mut first = Arbiter::new(ShardId(0), 2);
    let mut second = Arbiter::new(ShardId(1), 2);
    first.join(&mut words);
    assert_eq!(std::mem::take(&mut words), [(ShardId(1), Word::Join)]);
    second.hear(ShardId(0), Word::Join, &mut words);
    let (_, welcome) = words.pop().expect("it answers");
    first.hear(ShardId(1), welcome, &mut words);
    let stamp = first.claim(Blocks { lba: 0, count: 1 }, &mut words);
    assert!(first.advance(|_| false, &mut words));
    first.open(stamp, &mut words);
    assert_eq!(words, []);
}
