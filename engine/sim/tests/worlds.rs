//! Worlds from seeds: all promises hold; and where a fault is planted, an oracle finds it.
//!
//! `SIM_SEED=4711 cargo test -p portico-sim` runs that seed alone; `SIM_SEEDS=1000` runs more than the usual few.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use portico_sim::{
    Mode, Oracle, Plant, Story, Violation, cut_everywhere, fault_everywhere, run, run_preempting,
};

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
fn commands_out_of_their_order_are_found() {
    assert_eq!(finding(Plant::AttributesLost).oracle, Oracle::Order);
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
    assert!(matches!(found, Oracle::Data | Oracle::Durability | Oracle::Fence), "{found:?}");
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

// --- Small worlds ----------------------------------------------------------------------------------------------

/// Seeds of small worlds within which a planted fault has to be found.
const SMALL_SEEDS: u64 = 100;

fn hold_at_every_cut(modes: &[Mode]) {
    for &mode in modes {
        let cuts = cut_everywhere(mode, 0, None).unwrap_or_else(|(at, violation)| {
            panic!(
                "{mode:?}, cut at {at:?}: {violation}; replay: portico-sim --worlds cuts --mode --at --trace"
            )
        });
        assert!(cuts.moments > 100 && cuts.tally.writes > 0, "{mode:?}: {cuts:?}");
    }
}

#[test]
fn a_power_cut_at_any_moment_keeps_what_was_promised_by_the_way_of_writing() {
    hold_at_every_cut(&[Mode::WriteThrough, Mode::Fua, Mode::Direct, Mode::Space]);
}

#[test]
fn a_power_cut_at_any_moment_keeps_what_was_promised_afterwards() {
    hold_at_every_cut(&[Mode::Synchronize, Mode::CacheOff, Mode::Registrations]);
}

/// What the cuts of the small worlds of a mode find of this fault.
fn finding_by_cuts(mode: Mode, plant: Plant) -> Oracle {
    let find = |seed| cut_everywhere(mode, seed, Some(plant)).err();
    let found = (0..SMALL_SEEDS).find_map(find);
    let (_, violation) = found.unwrap_or_else(|| panic!("{plant:?} is not found in mode {mode:?}"));
    violation.oracle
}

#[test]
fn a_reply_before_the_sync_is_found_by_the_cuts_of_each_mode() {
    for mode in [Mode::WriteThrough, Mode::Fua, Mode::Synchronize, Mode::Direct, Mode::Space] {
        assert_eq!(finding_by_cuts(mode, Plant::ReplyBeforeSync), Oracle::Durability, "{mode:?}");
    }
}

#[test]
fn a_cache_that_is_not_flushed_and_a_ledger_that_is_not_synced_are_found_by_cuts() {
    assert_eq!(finding_by_cuts(Mode::CacheOff, Plant::CacheNotFlushed), Oracle::Durability);
    let found = finding_by_cuts(Mode::Registrations, Plant::LedgerNotSynced);
    assert!(matches!(found, Oracle::Durability | Oracle::Fence), "{found:?}");
}

#[test]
fn nothing_of_who_was_preempted_and_aborted_lands_after_good() {
    let mut met = 0;
    for seed in 0..SMALL_SEEDS {
        let story = run_preempting(seed, None).unwrap_or_else(|violation| {
            panic!("{violation}; replay: portico-sim --worlds preempting --from {seed} --trace")
        });
        met += story.tally.preempted_at_medium;
    }
    assert!(met > 0, "nobody had anything at the medium");
}

#[test]
fn an_abort_that_does_not_drain_is_found_in_a_small_world() {
    let find = |seed| run_preempting(seed, Some(Plant::PreemptionNotDrained)).err();
    let found = (0..SMALL_SEEDS).find_map(find).expect("it is not found");
    assert_eq!(found.oracle, Oracle::Fence);
}

#[test]
fn whatever_happens_to_any_pdu_of_a_dialogue_every_command_ends_once() {
    let faults = fault_everywhere(0, None).unwrap_or_else(|(fault, violation)| {
        panic!("{fault:?}: {violation}; replay: portico-sim --worlds faults")
    });
    let tally = faults.tally;
    assert!(tally.faults > 500 && tally.reassigned > 0 && tally.sessions_lost > 0, "{faults:?}");
}
