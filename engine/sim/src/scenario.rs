//! What a run is like, all of it drawn from its seed.

use std::time::Duration;

use crate::command::Menu;
use crate::faults::Play;
use crate::initiator::Habits;
use crate::plant::Plant;
use crate::random::Random;

/// What keeps a unit's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    /// Nothing keeps them.
    Null,
    File {
        cache: Cache,
        direct: bool,
    },
}

/// Where a write through a file is when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    Back,
    Through,
    /// As good as on the medium (`nv_cache`).
    NonVolatile,
}

/// A logical unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnitPlan {
    pub(crate) kind: Kind,
    pub(crate) sectors: usize,
    pub(crate) block_sectors: u64,
    pub(crate) thin: bool,
    pub(crate) trouble_one_in: u64,
    pub(crate) depth: u32,
    pub(crate) punted_max: u32,
    /// Initiators do not RESERVE, they register, with this APTPL.
    pub(crate) registers: Option<bool>,
}

/// What happens besides what initiators do; how often each may.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mischief {
    pub(crate) hangs: u32,
    pub(crate) power_cuts: u32,
    pub(crate) kills: u32,
    pub(crate) reloads: u32,
    pub(crate) restarts: u32,
    /// Ends of the process that come just when something was promised.
    pub(crate) chances: u32,
}

impl Mischief {
    pub(crate) const NONE: Self =
        Self { hangs: 0, power_cuts: 0, kills: 0, reloads: 0, restarts: 0, chances: 0 };

    pub(crate) const fn left(&self) -> u32 {
        self.hangs + self.power_cuts + self.kills + self.reloads + self.restarts
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) shards: usize,
    pub(crate) arena_small: bool,
    pub(crate) units: Vec<UnitPlan>,
    pub(crate) initiators: Vec<Habits>,
    pub(crate) mischief: Mischief,
    /// Media take longer than all else: what is at one when something changes is there for long.
    pub(crate) media_slow: bool,
    /// One ledger in so many cannot be written, or takes its time; 0: none.
    pub(crate) ledger_trouble_one_in: u64,
    /// Of each shard's ring.
    pub(crate) operations_max: usize,
    /// How long nothing of that happens, about.
    pub(crate) calm: Duration,
    /// A dialogue with a fault in it, which one more plays.
    pub(crate) play: Option<Play>,
    pub(crate) plant: Option<Plant>,
}

impl Scenario {
    pub(crate) fn drawn(seed: u64, plant: Option<Plant>) -> Self {
        let random = &mut Random::new(seed ^ 0x5ce0_a510);
        let shards = 1 + random.index(4);
        let troubled = random.chance(1, 4);
        let registers = random.chance(1, 3).then(|| random.chance(1, 2));
        let units = (0..1 + random.index(3)).map(|_| unit(random, troubled, registers)).collect();
        // Nobody can be preempted who is alone.
        let least = if registers.is_some() { 2 } else { 1 };
        let initiators =
            (0..least + random.index(5 - least)).map(|_| habits(random, registers.is_some())).collect();
        let media_slow = random.chance(1, 4);
        let mut some = |one_in: u64, most: u64| {
            let any = random.chance(1, one_in);
            if any { u32::try_from(1 + random.below(most)).expect("few") } else { 0 }
        };
        let mischief = Mischief {
            hangs: some(3, 2),
            power_cuts: some(3, 3),
            kills: some(4, 3),
            reloads: some(4, 3),
            restarts: some(5, 2),
            chances: some(2, 3),
        };
        let arena_small = random.chance(1, 4);
        let operations_max = [16, 64, 4096][random.index(3)];
        let calm = Duration::from_millis([2, 20, 500][random.index(3)]);
        let ledger_trouble_one_in = if random.chance(1, 3) { 1 + random.below(8) } else { 0 };
        Self {
            operations_max,
            calm,
            seed,
            shards,
            arena_small,
            units,
            initiators,
            mischief,
            media_slow,
            ledger_trouble_one_in,
            play: None,
            plant,
        }
    }
}

fn unit(random: &mut Random, troubled: bool, registers: Option<bool>) -> UnitPlan {
    let cache = match random.below(8) {
        0..5 => Cache::Back,
        5..7 => Cache::Through,
        _ => Cache::NonVolatile,
    };
    let kind = match random.below(16) {
        0..2 => Kind::Memory,
        2 => Kind::Null,
        _ => Kind::File { cache, direct: random.chance(1, 2) },
    };
    let block_sectors = if random.chance(1, 3) { 8 } else { 1 };
    let sectors = [64, 256, 2048][random.index(3)];
    let is_file = matches!(kind, Kind::File { .. });
    let trouble_one_in = if troubled && is_file { 20 + random.below(200) } else { 0 };
    let depth = [2, 8, 64][random.index(3)];
    let punted_max = [1, 4, 8][random.index(3)].min(depth);
    let thin = kind != Kind::Null && random.chance(1, 2);
    UnitPlan { kind, sectors, block_sectors, thin, trouble_one_in, depth, punted_max, registers }
}

fn habits(random: &mut Random, fences: bool) -> Habits {
    Habits {
        commands: u32::try_from(10 + random.below(60)).expect("few"),
        depth: [1, 4, 16][random.index(3)],
        connections: [1, 1, 2, 4][random.index(4)],
        fences: fences || random.chance(1, 2),
        unsteady: random.chance(1, 3),
        tunes: random.chance(1, 2),
        discovers: random.chance(1, 4),
        audits: false,
        thinks: Duration::from_micros([100, 5_000, 200_000][random.index(3)]),
        menu: Menu::Everything,
    }
}

/// The one who reads everything at the end.
pub(crate) const AUDITOR: Habits = Habits {
    commands: 1,
    depth: 1,
    connections: 1,
    fences: false,
    unsteady: false,
    tunes: false,
    discovers: false,
    audits: true,
    thinks: Duration::from_millis(1),
    menu: Menu::Everything,
};
