//! Runs many seeds and says which one breaks a promise.
//!
//! `portico-sim --seeds 100000` is a long run; `portico-sim --from 4711 --trace` tells what happened in one;
//! `portico-sim --worlds cuts --seeds 50` cuts the power of small worlds at each of their moments; `--worlds faults` has a fault strike
//! each PDU of a small dialogue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use portico_sim::{Fate, Fault, Mode, Plant, Tally};

/// A whole gateway in a simulated world, from a seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Which worlds.
    #[arg(long, value_enum, default_value_t = Worlds::Any)]
    worlds: Worlds,
    /// Of `cuts`: one mode of durability, not all.
    #[arg(long, requires = "worlds")]
    mode: Option<Mode>,
    /// Of a mode: one cut alone, after so many events. Of `faults`: one fault alone, at that PDU.
    #[arg(long, requires = "worlds")]
    at: Option<u64>,
    /// Of `faults`, with `at`: which one.
    #[arg(long)]
    fate: Option<Fate>,
    /// The same: at which recovery level.
    #[arg(long, default_value_t = 2)]
    level: u8,
    /// The same: it strikes once more, so many PDUs later.
    #[arg(long)]
    again: Option<u64>,
    /// A fault to plant: then a seed that finds it is what is looked for.
    #[arg(long)]
    plant: Option<Plant>,
    /// Go on after a seed that fails.
    #[arg(long)]
    all: bool,
    /// Say what happens; with a single seed.
    #[arg(long)]
    trace: bool,
}

/// What is drawn from a seed.
#[derive(Clone, Copy, ValueEnum)]
enum Worlds {
    /// A world in which anything may happen.
    Any,
    /// A small one, in which initiators preempt each other and abort what the other has in hand.
    Preempting,
    /// A small one for each mode of durability, and for each of its moments a run with a power cut there.
    Cuts,
    /// A small one with a dialogue, and for each of its PDUs, each fault and each recovery level a run with that fault there.
    Faults,
}

/// What was done.
#[derive(Default)]
struct Done {
    events: u64,
    /// Or faults.
    cuts: u64,
    tally: Tally,
}

/// Seeds between two lines of progress.
const PROGRESS: u64 = 1_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        let filter = tracing_subscriber::EnvFilter::new("trace");
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let mut failed = 0_u64;
    let mut total = Done::default();
    for (done, seed) in (0..).zip(arguments.from..arguments.from.saturating_add(arguments.seeds)) {
        match catch_unwind(AssertUnwindSafe(|| run(&arguments, seed, &mut total))) {
            Ok(Ok(())) => {}
            Ok(Err(violation)) => {
                println!("seed {seed}: {violation}");
                failed += 1;
            }
            // The message is on stderr.
            Err(_) => {
                println!("seed {seed}: the gateway panicked");
                failed += 1;
            }
        }
        if failed > 0 && !arguments.all {
            break;
        }
        if (done + 1) % PROGRESS == 0 {
            println!("{} seeds, {} events, {failed} failed", done + 1, total.events);
        }
    }
    println!("{failed} failed; {} events, {} cuts; {:?}", total.events, total.cuts, total.tally);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs what a seed is, and adds to what was done.
fn run(arguments: &Arguments, seed: u64, total: &mut Done) -> Result<(), String> {
    let plant = arguments.plant;
    if let (Worlds::Cuts, None) = (arguments.worlds, arguments.at) {
        let all = &Mode::ALL[..];
        for &mode in arguments.mode.as_ref().map_or(all, std::slice::from_ref) {
            let cuts = portico_sim::cut_everywhere(mode, seed, plant)
                .map_err(|(at, violation)| format!("{mode:?}, cut at {at:?}: {violation}"))?;
            total.cuts += cuts.moments;
            total.events += cuts.events;
            total.tally += cuts.tally;
        }
        return Ok(());
    }
    if let (Worlds::Faults, None) = (arguments.worlds, arguments.at) {
        let faults = portico_sim::fault_everywhere(seed, plant)
            .map_err(|(fault, violation)| format!("{fault:?}: {violation}"))?;
        total.cuts += faults.runs;
        total.events += faults.events;
        total.tally += faults.tally;
        return Ok(());
    }
    let ran = match arguments.worlds {
        Worlds::Any => portico_sim::run(seed, plant),
        Worlds::Preempting => portico_sim::run_preempting(seed, plant),
        Worlds::Cuts => {
            portico_sim::run_cut(arguments.mode.expect("--at goes with --mode"), seed, plant, arguments.at)
        }
        Worlds::Faults => {
            let fate = arguments.fate.expect("--at goes with --fate");
            let (level, at, again) = (arguments.level, arguments.at.unwrap_or(0), arguments.again);
            portico_sim::run_fault(seed, plant, Fault { level, fate, at, again })
        }
    };
    let story = ran.map_err(|violation| violation.to_string())?;
    total.events += story.events;
    total.tally += story.tally;
    Ok(())
}
