//! Runs many seeds and says which one breaks a promise.
//!
//! `portico-sim --seeds 100000` is a long run; `portico-sim --from 4711 --trace` tells what happened in one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use portico_sim::{Plant, Tally};

/// A whole gateway in a simulated world, from a seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// A fault to plant: then a seed that finds it is what is looked for.
    #[arg(long)]
    plant: Option<Fault>,
    /// Go on after a seed that fails.
    #[arg(long)]
    all: bool,
    /// Say what happens; with a single seed.
    #[arg(long)]
    trace: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fault {
    DrainRemoved,
    PreemptionNotDrained,
    ReplyBeforeSync,
    RepliesSwapped,
    OrphanForgotten,
    LedgerNotSynced,
    LedgerLate,
    CacheNotFlushed,
}

impl From<Fault> for Plant {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::DrainRemoved => Self::DrainRemoved,
            Fault::PreemptionNotDrained => Self::PreemptionNotDrained,
            Fault::ReplyBeforeSync => Self::ReplyBeforeSync,
            Fault::RepliesSwapped => Self::RepliesSwapped,
            Fault::OrphanForgotten => Self::OrphanForgotten,
            Fault::LedgerNotSynced => Self::LedgerNotSynced,
            Fault::LedgerLate => Self::LedgerLate,
            Fault::CacheNotFlushed => Self::CacheNotFlushed,
        }
    }
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
    let mut events = 0_u64;
    let mut tally = Tally::default();
    for (done, seed) in (0..).zip(arguments.from..arguments.from.saturating_add(arguments.seeds)) {
        let run = || portico_sim::run(seed, arguments.plant.map(Plant::from));
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(story)) => {
                events += story.events;
                tally += story.tally;
            }
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
            println!("{} seeds, {events} events, {failed} failed", done + 1);
        }
    }
    println!("{failed} failed; {tally:?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
