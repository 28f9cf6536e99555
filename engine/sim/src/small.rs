//! Small worlds, each for one promise: those of a mode of durability, whose power is cut at each of their moments, and
//! those in which initiators preempt each other.

use std::time::Duration;

use clap::ValueEnum;

use crate::command::Menu;
use crate::history::{Tally, Violation};
use crate::initiator::Habits;
use crate::plant::Plant;
use crate::random::Random;
use crate::scenario::{Cache, Kind, Mischief, Scenario, UnitPlan};
use crate::world::{Story, World};

/// What is promised to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Every WRITE, of a file with `write_through`.
    WriteThrough,
    /// WRITEs with FUA, of a unit with a volatile cache.
    Fua,
    /// What came before SYNCHRONIZE CACHE.
    Synchronize,
    /// The three of them, past the page cache (`o_direct`).
    Direct,
    /// What came before and after MODE SELECT turned the write cache off.
    CacheOff,
    /// UNMAP and WRITE SAME, of units with and without a volatile cache.
    Space,
    /// Persistent reservations with APTPL.
    Registrations,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::WriteThrough,
        Self::Fua,
        Self::Synchronize,
        Self::Direct,
        Self::CacheOff,
        Self::Space,
        Self::Registrations,
    ];

    fn kind(self, random: &mut Random) -> (Kind, Menu) {
        let volatile = [(Cache::Back, Menu::Fua), (Cache::Back, Menu::Synchronize)];
        let (cache, menu) = match self {
            Self::WriteThrough => (Cache::Through, Menu::Writes),
            Self::Fua => volatile[0],
            Self::Synchronize => volatile[1],
            Self::Direct if random.chance(1, 3) => (Cache::Through, Menu::Writes),
            Self::Direct => volatile[random.index(2)],
            Self::CacheOff => (Cache::Back, Menu::Tune),
            Self::Space if random.chance(1, 2) => (Cache::Through, Menu::Space),
            Self::Space => (Cache::Back, Menu::Space),
            Self::Registrations => (Cache::Back, Menu::Writes),
        };
        (Kind::File { cache, direct: self == Self::Direct }, menu)
    }

    /// Two sessions on one unit, and nothing goes wrong but the power.
    fn scenario(self, seed: u64, plant: Option<Plant>) -> Scenario {
        let random = &mut Random::new(seed ^ 0xc075_0000);
        let (kind, menu) = self.kind(random);
        let registers = (self == Self::Registrations).then_some(true);
        let unit = UnitPlan { registers, thin: self == Self::Space, ..unit(kind) };
        let habits = Habits { commands: 6, fences: registers.is_some(), ..habits(menu) };
        Scenario {
            seed,
            shards: 1 + random.index(2),
            units: vec![unit],
            initiators: vec![habits; 2],
            plant,
            ..SMALL
        }
    }
}

/// Initiators that register, reserve, and preempt each other with ABORT, on several shards, at media that are slow and may hang.
fn preempting(seed: u64, plant: Option<Plant>) -> Scenario {
    let random = &mut Random::new(seed ^ 0xab07_0000);
    let cache = if random.chance(1, 2) { Cache::Back } else { Cache::Through };
    let kind = Kind::File { cache, direct: random.chance(1, 2) };
    let unit = UnitPlan { registers: Some(false), ..unit(kind) };
    let mut initiator = || {
        let commands = 12 + u32::try_from(random.below(12)).expect("few");
        Habits { commands, fences: true, unsteady: random.chance(1, 6), ..habits(Menu::Fencing) }
    };
    let initiators = (0..2 + usize::from(seed.is_multiple_of(3))).map(|_| initiator()).collect();
    Scenario {
        seed,
        shards: 2 + random.index(3),
        units: vec![unit],
        initiators,
        mischief: Mischief { hangs: u32::from(random.chance(1, 8)), ..Mischief::NONE },
        media_slow: true,
        calm: Duration::from_millis(20),
        plant,
        ..SMALL
    }
}

pub(crate) const fn unit(kind: Kind) -> UnitPlan {
    UnitPlan {
        kind,
        sectors: 64,
        block_sectors: 1,
        thin: false,
        trouble_one_in: 0,
        depth: 8,
        punted_max: 4,
        registers: None,
    }
}

const fn habits(menu: Menu) -> Habits {
    Habits {
        commands: 0,
        depth: 4,
        connections: 1,
        fences: false,
        unsteady: false,
        tunes: true,
        discovers: false,
        audits: false,
        thinks: Duration::from_micros(100),
        menu,
    }
}

/// Nothing goes wrong, and nobody is there.
pub(crate) const SMALL: Scenario = Scenario {
    seed: 0,
    shards: 1,
    arena_small: true,
    units: Vec::new(),
    initiators: Vec::new(),
    mischief: Mischief::NONE,
    media_slow: false,
    ledger_trouble_one_in: 0,
    operations_max: 4096,
    calm: Duration::from_millis(500),
    play: None,
    plant: None,
};

/// Runs a small world whose initiators preempt each other.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// Where the gateway does.
pub fn run_preempting(seed: u64, plant: Option<Plant>) -> Result<Story, Violation> {
    World::new(preempting(seed, plant)).run()
}

/// Runs the small world of a mode: whole, or with a power cut after so many events, from which it recovers.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// Where the gateway does.
pub fn run_cut(mode: Mode, seed: u64, plant: Option<Plant>, at: Option<u64>) -> Result<Story, Violation> {
    World::new(mode.scenario(seed, plant)).with_power_cut(at).run()
}

/// What the cuts of one small world came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Moments at which the power was cut, each in a run of its own.
    pub moments: u64,
    /// Events of all these runs.
    pub events: u64,
    /// What was done in them.
    pub tally: Tally,
}

/// Cuts the power of a small world at each of its moments: from before its first event to behind its last one.
///
/// # Errors
/// The moment of the first cut that broke a promise (none: it was broken without), and which.
///
/// # Panics
/// Where the gateway does.
pub fn cut_everywhere(mode: Mode, seed: u64, plant: Option<Plant>) -> Result<Cuts, (Option<u64>, Violation)> {
    let whole = run_cut(mode, seed, plant, None).map_err(|violation| (None, violation))?;
    let mut cuts = Cuts::default();
    for at in 0..=whole.events {
        let story = run_cut(mode, seed, plant, Some(at)).map_err(|violation| (Some(at), violation))?;
        assert!(story.tally.power_cuts == 1, "a run is the same up to its cut");
        cuts.moments += 1;
        cuts.events += story.events;
        cuts.tally += story.tally;
    }
    Ok(cuts)
}
