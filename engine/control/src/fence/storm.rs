//! Random lives of one fence on three shards, against what must hold in each of them: every asker hears once, GOOD means
//! that every shard has it, one ledger is written at a time, generations have no gaps, and everything comes to rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use portico_model::configuration::{Device, Handler};
use portico_model::identity::Ticket;
use portico_scsi::original::Change;
use portico_scsi::reservation::Reservation;
use proptest::prelude::*;

use super::*;
use crate::identity::logical_unit;

const SHARDS: usize = 3;
const NEXUSES: u64 = 3;
const BOOT: BootId = [1; 16];

/// One thing that happens; numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask { nexus: u64, request: u8 },
    Withdraw { which: usize },
    Lose { nexus: u64 },
    Find { nexus: u64 },
    Install { shard: usize },
    Write { durable: bool },
    Pass { millis: u64 },
    Orphan,
    OrphanDone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..NEXUSES, 0..4u8).prop_map(|(nexus, request)| Event::Ask { nexus, request }),
        1 => (0..8usize).prop_map(|which| Event::Withdraw { which }),
        1 => (0..NEXUSES).prop_map(|nexus| Event::Lose { nexus }),
        2 => (0..NEXUSES).prop_map(|nexus| Event::Find { nexus }),
        9 => (0..SHARDS).prop_map(|shard| Event::Install { shard }),
        4 => prop::bool::weighted(0.8).prop_map(|durable| Event::Write { durable }),
        1 => (1..15_000u64).prop_map(|millis| Event::Pass { millis }),
        1 => Just(Event::Orphan),
        1 => Just(Event::OrphanDone),
    ]
}

/// What a shard was sent and has not answered, and the state that it answered last.
#[derive(Default)]
struct Shard {
    sent: VecDeque<(Generation, Reservation)>,
    has: Reservation,
}

struct World {
    fence: Fence,
    now: Moment,
    shards: Vec<Shard>,
    writing: bool,
    generation: u64,
    /// Who waits: the nexus and what it wants.
    waiting: BTreeMap<u64, (NexusId, u8)>,
    attached: BTreeSet<u64>,
    tickets: u64,
    orphans: Vec<Orphan>,
    effects: Vec<Effect>,
}

impl World {
    fn new() -> Self {
        let device = Device::new("disk", Handler::Ram { size_bytes: 1 << 20 });
        let unit = logical_unit(&device, 0, None).unwrap();
        let mut world = Self {
            fence: Fence::new(UnitId(1), unit, SHARDS, BOOT),
            now: Moment::from_millis(1),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            writing: false,
            generation: 0,
            waiting: BTreeMap::new(),
            attached: BTreeSet::new(),
            tickets: 0,
            orphans: Vec::new(),
            effects: Vec::new(),
        };
        let restored = Errand::Restored { ledger: Ledger::new(), kept: true };
        world.fence.errand(restored, world.now, &mut world.effects);
        world
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Ask { nexus, request } if self.attached.contains(&nexus) => {
                self.tickets += 1;
                self.waiting.insert(self.tickets, (NexusId(nexus), request));
                let asker = Asker { shard: ShardId(0), ticket: Ticket(self.tickets) };
                let what = match request {
                    0 => Request::Change(Change::Reserve),
                    1 => Request::Change(Change::Release),
                    2 => Request::Change(Change::PreventRemoval { prevent: true }),
                    _ => Request::Reset,
                };
                self.fence.request(asker, NexusId(nexus), what, self.now, &mut self.effects);
            }
            Event::Withdraw { which } => {
                if let Some(&ticket) = self.waiting.keys().nth(which) {
                    self.waiting.remove(&ticket);
                    self.fence.withdraw(Asker { shard: ShardId(0), ticket: Ticket(ticket) });
                }
            }
            Event::Lose { nexus } if self.attached.remove(&nexus) => {
                self.fence.errand(Errand::NexusLost(NexusId(nexus)), self.now, &mut self.effects);
            }
            Event::Find { nexus } if self.attached.insert(nexus) => {
                let name = NexusName::new(format!("initiator {nexus}"), "target");
                self.fence.errand(Errand::NexusFound(NexusId(nexus), name), self.now, &mut self.effects);
            }
            Event::Install { shard } => {
                if let Some((generation, has)) = self.shards[shard].sent.pop_front() {
                    self.shards[shard].has = has;
                    let shard = ShardId(u16::try_from(shard).unwrap());
                    self.fence.installed(shard, generation, self.now, &mut self.effects);
                }
            }
            Event::Write { durable } => {
                if std::mem::take(&mut self.writing) {
                    self.fence.written(durable, self.now, &mut self.effects);
                }
            }
            Event::Pass { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                if self.fence.next_deadline() <= self.now {
                    self.fence.expire(self.now, &mut self.effects);
                    prop_assert!(self.fence.next_deadline() > self.now, "what was due is done");
                }
            }
            Event::Orphan => {
                let serial = self.orphans.len() as u64 + self.tickets * 1000;
                let orphan = Orphan { shard: ShardId(1), serial, unit: UnitId(1), lba: 0, blocks: 1 };
                if !self.orphans.contains(&orphan) {
                    self.orphans.push(orphan);
                    self.fence.orphaned(&[orphan], &mut self.effects);
                }
            }
            Event::OrphanDone => {
                if let Some(orphan) = self.orphans.pop() {
                    self.fence.orphan_done(orphan, &mut self.effects);
                }
            }
            Event::Ask { .. } | Event::Lose { .. } | Event::Find { .. } => {}
        }
        self.judge()
    }

    fn judge(&mut self) -> Result<(), TestCaseError> {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Persist(_) => {
                    prop_assert!(!std::mem::replace(&mut self.writing, true), "one ledger at a time");
                }
                Effect::Install(install) => {
                    self.generation += 1;
                    prop_assert_eq!(install.generation.0, self.generation);
                    for shard in &mut self.shards {
                        shard.sent.push_back((install.generation, install.state.reservation.clone()));
                    }
                }
                Effect::Answer(asker, outcome) => {
                    let asked = self.waiting.remove(&asker.ticket.0);
                    let Some((nexus, request)) = asked else {
                        return Err(TestCaseError::fail(format!("{asker:?} hears twice, or was withdrawn")));
                    };
                    if outcome.is_ok() && request != 2 {
                        let everywhere = self.shards.iter().all(|shard| match (request, &shard.has) {
                            (0, has) => *has == Reservation::Exclusive { holder: Some(nexus) },
                            (1, has) => *has != Reservation::Exclusive { holder: Some(nexus) },
                            _ => shard.has == Reservation::None,
                        });
                        prop_assert!(everywhere, "GOOD before every shard has it");
                    }
                }
                Effect::Forget(asker) => {
                    prop_assert!(self.waiting.remove(&asker.ticket.0).is_some());
                }
                Effect::Work(..) => return Err(TestCaseError::fail("nobody asked for work")),
                Effect::Release(_) | Effect::Completed | Effect::Overdue => {}
            }
        }
        Ok(())
    }

    /// Everything answers until nothing is left to answer.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            let busy = self.writing || self.shards.iter().any(|shard| !shard.sent.is_empty());
            if !busy && self.fence.ledger.kept {
                return Ok(());
            }
            self.happen(Event::Write { durable: true })?;
            for shard in 0..SHARDS {
                self.happen(Event::Install { shard })?;
            }
            self.happen(Event::Pass { millis: 100 })?;
        }
        Err(TestCaseError::fail("no rest"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_asker_hears_the_truth_once(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in events {
            world.happen(event)?;
        }
        world.rest()?;
        prop_assert!(world.waiting.is_empty(), "somebody was forgotten: {:?}", world.waiting);
        prop_assert!(world.fence.queue.is_empty() && world.fence.errands.is_empty());
        prop_assert_eq!(world.fence.held().count(), world.attached.len());
        prop_assert_eq!(&world.fence.orphans, &world.orphans);
        let state = &world.fence.state().reservation;
        prop_assert!(world.shards.iter().all(|shard| shard.has == *state), "every shard has the last state");
    }
}
