//! Worlds from seeds: all promises hold; and where a fault is planted, an oracle finds it.
//!
//! `SIM_SEED=4711 cargo test -p portico-sim` runs that seed alone; `SIM_SEEDS=1000` runs more than the usual few.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use portico_sim::{Oracle, Plant, Story, Violation, run};

/// Seeds of a usual run: some seconds.
const SEEDS: u64 = 100;
/// Seeds within which a planted fault has to be found.
const PLANTED_SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

fn replayed_by(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test -p portico-sim")
}

fn run_telling_the_seed(seed: u64) -> Result<Story, Violation> {
    catch_unwind(AssertUnwindSafe(|| run(seed, None))).unwrap_or_else(|panic| {
        eprintln!("the gateway panicked; replay: {}", replayed_by(seed));
        resume_unwind(panic)
    })
}

#[test]
fn every_promise_holds_in_every_world() {
    let (first, count) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SIM_SEEDS").unwrap_or(SEEDS)),
    };
    for seed in first..first + count {
        if let Err(violation) = run_telling_the_seed(seed) {
            panic!("{violation}; replay: {}", replayed_by(seed));
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    let runs: Vec<_> = (0..8).map(|seed| run(seed, None)).collect();
    assert_eq!(runs, (0..8).map(|seed| run(seed, None)).collect::<Vec<_>>());
    assert_ne!(runs[0], runs[1], "different seeds, different runs");
}

/// The first violation that this fault leads to.
fn finding(plant: Plant) -> Violation {
    (0..PLANTED_SEEDS)
        .find_map(|seed| run(seed, Some(plant)).err())
        .unwrap_or_else(|| panic!("{plant:?} is not found within {PLANTED_SEEDS} seeds"))
}

#[test]
fn a_fence_that_does_not_drain_is_found() {
    assert_eq!(finding(Plant::DrainRemoved).oracle, Oracle::Fence);
}

#[test]
fn a_preemption_that_does_not_drain_is_found() {
    assert_eq!(finding(Plant::PreemptionNotDrained).oracle, Oracle::Fence);
}

#[test]
fn a_reply_before_the_sync_is_found() {
    assert_eq!(finding(Plant::ReplyBeforeSync).oracle, Oracle::Durability);
}

#[test]
fn replies_that_go_to_another_session_are_found() {
    let found = finding(Plant::RepliesSwapped).oracle;
    assert!(matches!(found, Oracle::Protocol | Oracle::Data), "{found:?}");
}

#[test]
fn an_orphan_that_nobody_else_hears_of_is_found() {
    let found = finding(Plant::OrphanForgotten).oracle;
    assert!(matches!(found, Oracle::Data | Oracle::Durability), "{found:?}");
}

#[test]
fn a_ledger_that_is_never_synced_is_found() {
    // A ledger that is damaged, or registrations that are gone.
    let found = finding(Plant::LedgerNotSynced).oracle;
    assert!(matches!(found, Oracle::Durability | Oracle::Fence), "{found:?}");
}

#[test]
fn a_ledger_that_is_written_after_its_good_is_found() {
    assert_eq!(finding(Plant::LedgerLate).oracle, Oracle::Fence);
}

#[test]
fn a_cache_that_is_turned_off_and_not_flushed_is_found() {
    assert_eq!(finding(Plant::CacheNotFlushed).oracle, Oracle::Durability);
}
