//! The open loop: a target that stalls cannot hide it.

use super::*;

#[test]
fn a_rate_is_kept_and_its_commands_are_all_done() {
    let tally = run(Fault::None, "--rate 2000 --count 400 --sessions 4 --depth 8");
    assert!(tally.is_clean(), "{tally:?}");
    assert_eq!((tally.reads.commands, tally.lateness.unsent), (400, 0));
    assert!(
        tally.elapsed >= Duration::from_millis(199),
        "no command comes before its time: {:?}",
        tally.elapsed
    );
}

#[test]
fn users_who_come_at_random_are_served() {
    let tally = run(Fault::None, "--rate 5000 --arrival poisson --count 300 --sessions 3 --depth 16");
    assert!(tally.is_clean() && tally.reads.commands == 300, "{tally:?}");
}

#[test]
fn a_stall_is_in_the_latency_of_all_commands_that_were_due_meanwhile() {
    let tally = run(Fault::Stall(50, 300), "--rate 1000 --count 600 --depth 4 --rw read");
    assert!(tally.is_clean(), "{tally:?}");
    assert_eq!(tally.reads.commands, 600);
    // All that were due in the first 200 ms of the stall waited 100 ms or more, though only 4 were on their way.
    let long = tally.reads.times.count_between(100_000_000, u64::MAX);
    assert!(long >= 190, "{long} commands took long");
}

#[test]
fn what_a_stalled_target_leaves_unsent_at_the_end_is_told() {
    let tally = run(Fault::Stall(10, 1000), "--rate 1000 --time 300ms --depth 4 --rw read");
    assert!(tally.is_clean(), "{tally:?}");
    assert!(tally.lateness.unsent >= 250, "{:?}", tally.lateness);
    assert!(tally.lateness.unsent_ns >= 200_000_000, "{:?}", tally.lateness);
}
