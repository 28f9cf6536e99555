//! Small worlds in which one fault strikes, at one PDU of a dialogue: a flipped bit in its data or its header, its loss, a
//! connection that is cut or given up there. They are run once for each PDU there is, of those of logins as well, at
//! every recovery level, with control and all shards; and once more with a second fault some PDUs after each cut.
//!
//! What has to hold: every command ends once, and with the right data; nothing of a lost session lands where a command of the
//! next one has been; a fault costs one connection; at level 2 it costs no session, and each write lands once.

mod hearing;
mod player;
mod saying;

use clap::ValueEnum;

pub(crate) use player::{PLAYER, Player};

use crate::history::{Tally, Violation};
use crate::plant::Plant;
use crate::random::{Random, mix};
use crate::scenario::{Cache, Kind, Scenario};
use crate::small;
use crate::world::{Story, World};

/// What happens to the PDU at the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fate {
    /// It has data, and their digest is not theirs.
    DataSpoilt,
    /// The digest of its header is not its own.
    HeaderSpoilt,
    /// It does not arrive.
    Lost,
    /// The connection is cut before it.
    Cut,
    /// The initiator gives the connection up before it, and the target does not see that.
    Abandoned,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::DataSpoilt, Self::HeaderSpoilt, Self::Lost, Self::Cut, Self::Abandoned];

    /// Whether it ends the connection, so that another may strike in the recovery.
    const fn cuts(self) -> bool {
        matches!(self, Self::Cut | Self::Abandoned)
    }
}

/// Which fault, where, at which recovery level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ErrorRecoveryLevel.
    pub level: u8,
    /// What happens.
    pub fate: Fate,
    /// To which PDU, of those that it can happen to.
    pub at: u64,
    /// And again, to which one after that.
    pub again: Option<u64>,
}

/// One command of a dialogue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) writes: bool,
    pub(crate) way: usize,
    pub(crate) first: u64,
    pub(crate) sectors: u64,
}

/// A dialogue, and the fault in it.
#[derive(Clone, Debug)]
pub(crate) struct Play {
    pub(crate) fault: Fault,
    /// Connections of the session.
    pub(crate) ways: usize,
    pub(crate) segment: &'static str,
    pub(crate) burst: &'static str,
    pub(crate) first_burst: &'static str,
    pub(crate) outstanding: &'static str,
    pub(crate) initial_r2t: bool,
    pub(crate) immediate_data: bool,
    pub(crate) lines: Vec<Line>,
}

impl Play {
    fn drawn(random: &mut Random, fault: Fault) -> Self {
        let ways = [1, 1, 2, 3][random.index(4)];
        let (burst, first_burst) =
            [("2048", "1024"), ("4096", "4096"), ("8192", "2048"), ("8192", "8192")][random.index(4)];
        let mut line = |at: usize| Line {
            writes: random.chance(3, 5),
            way: at % ways,
            // They meet now and then.
            first: random.below(4) * 8,
            sectors: [1, 8, 12, 24][random.index(4)],
        };
        let lines = (0..4).map(&mut line).collect();
        Self {
            fault,
            ways,
            segment: ["1024", "4096"][random.index(2)],
            burst,
            first_burst,
            outstanding: ["1", "2", "4"][random.index(3)],
            initial_r2t: random.chance(1, 2),
            immediate_data: random.chance(1, 2),
            lines,
        }
    }
}

fn scenario(seed: u64, plant: Option<Plant>, fault: Fault) -> Scenario {
    let random = &mut Random::new(seed ^ 0xfa17_0000);
    let cache = if random.chance(1, 2) { Cache::Back } else { Cache::Through };
    let kind = Kind::File { cache, direct: random.chance(1, 2) };
    Scenario {
        seed,
        shards: 1 + random.index(3),
        units: vec![small::unit(kind)],
        media_slow: random.chance(1, 2),
        play: Some(Play::drawn(random, fault)),
        plant,
        ..small::SMALL
    }
}

/// Runs the small world of a seed with one fault.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// Where the gateway does.
pub fn run_fault(seed: u64, plant: Option<Plant>, fault: Fault) -> Result<Story, Violation> {
    World::new(scenario(seed, plant, fault)).run()
}

/// What the faults in one small world came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Faults, or pairs of them, each in a run of its own.
    pub runs: u64,
    /// Events of all these runs.
    pub events: u64,
    /// What was done in them.
    pub tally: Tally,
}

impl Faults {
    fn add(&mut self, story: &Story) {
        self.runs += 1;
        self.events += story.events;
        self.tally += story.tally;
    }
}

/// PDUs within which the second fault comes after a first that has cut a connection.
const AGAIN_WITHIN: u64 = 24;

/// Runs the small world of a seed for each fault at each PDU, at each level.
///
/// # Errors
/// The first fault that broke a promise, and which.
///
/// # Panics
/// Where the gateway does.
pub fn fault_everywhere(seed: u64, plant: Option<Plant>) -> Result<Faults, (Fault, Violation)> {
    let mut faults = Faults::default();
    for level in 0..=2 {
        for fate in Fate::ALL {
            for at in 0.. {
                let fault = Fault { level, fate, at, again: None };
                let story = run_fault(seed, plant, fault).map_err(|violation| (fault, violation))?;
                faults.add(&story);
                if story.tally.faults == 0 {
                    break;
                }
                if !fate.cuts() {
                    continue;
                }
                let again = Some(mix(seed ^ at << 8) % AGAIN_WITHIN);
                let fault = Fault { again, ..fault };
                let story = run_fault(seed, plant, fault).map_err(|violation| (fault, violation))?;
                faults.add(&story);
            }
        }
    }
    Ok(faults)
}
