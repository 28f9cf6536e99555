//! A deterministic world: a whole gateway, its initiators, its network and its media on one thread, from one seed.
//!
//! The shards are [`portico_shard`]'s and control is [`portico_control`]'s: the code that porticod runs, not a copy of it.
//! What is simulated is below and around them: the ring ([`portico_shard::driver::Driver`]), the queues of mail, the
//! helpers of control, time. Who says so is `scenario`: all of it is drawn from the seed, and a run depends
//! on nothing else, so a seed that fails once fails always.
//!
//! | module | what |
//! |---|---|
//! | `world` | the gateway's parts, the loop of events, crashes, the end |
//! | `hub` | what the parts share: clock, agenda, chance |
//! | `driver`, `network`, `media`, `disk` | a shard's ring; connections; operations at media; what a power cut leaves |
//! | `mailbox`, `office`, `folder` | mail; what control has others do; where it keeps ledgers |
//! | `initiator`, `command`, `management`, `stamp` | who uses the gateway, with what, and how it knows its data again |
//! | `history` | the oracles |
//! | `faults` | small worlds in which one fault strikes, at any PDU, and who recovers from it |
//! | `scenario`, `small`, `plant` | what a run is like; small worlds for one promise; faults that the oracles must find |
//!
//! What it never does: read a clock, open a file, wait.

mod command;
mod disk;
mod driver;
mod faults;
mod folder;
mod history;
mod hub;
mod initiator;
mod mailbox;
mod management;
mod media;
mod network;
mod office;
mod plant;
mod random;
mod scenario;
mod small;
mod stamp;
mod world;

pub use faults::{Fate, Fault, Faults, fault_everywhere, run_fault};
pub use history::{Oracle, Tally, Violation};
pub use plant::Plant;
pub use small::{Cuts, Mode, cut_everywhere, run_cut, run_preempting};
pub use world::Story;

/// Runs the scenario of a seed, with a fault planted or none.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// Where the gateway does, with the message of its assertion.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Story, Violation> {
    world::World::new(scenario::Scenario::drawn(seed, plant)).run()
}
