//! Lost connections that are made again.

use super::*;

/// Reads and writes that are checked, on two sessions.
const MIXED: &str =
    "--count 400 --sessions 2 --depth 4 --rw randrw --mix 50 --verify --size 128k --reconnect 30s";

fn run_through(fault: Fault) -> Tally {
    let tally = run(fault, MIXED);
    assert!(tally.is_clean(), "{:?} {:?} {:?}", tally.findings, tally.failures, tally.told_errors);
    assert_eq!((tally.lost.connections, tally.told_losses.len()), (1, 1));
    let lost = tally.lost.reads + tally.lost.writes;
    assert!((1..=4).contains(&lost), "{lost} commands were on their way");
    assert_eq!(tally.reads.commands + tally.writes.commands + lost, 400, "none is sent twice or forgotten");
    assert!(tally.verified.good > tally.read_back);
    tally
}

#[test]
fn a_session_that_is_lost_is_made_again() {
    let tally = run_through(Fault::Hangup(30));
    assert!(tally.lost.longest > Duration::ZERO);
    assert!(tally.told_losses[0].starts_with("session "), "{:?}", tally.told_losses);
}

#[test]
fn a_write_that_was_done_and_not_answered_is_no_fault() {
    assert!(run_through(Fault::HangupAfterWrite(30)).lost.writes >= 1);
}

#[test]
fn a_write_that_was_neither_done_nor_answered_is_no_fault() {
    assert!(run_through(Fault::HangupBeforeWrite(30)).lost.writes >= 1);
}

#[test]
fn reading_back_leaves_nothing_out() {
    // 32 writes, and the connection is lost while they are read back.
    let tally = run(Fault::Hangup(9), "--count 32 --depth 4 --rw write --verify --size 128k --reconnect 30s");
    assert!(tally.is_clean(), "{:?} {:?}", tally.findings, tally.failures);
    assert_eq!((tally.lost.connections, tally.lost.reads, tally.read_back), (1, 0, 32));
}

#[test]
fn a_connection_that_is_lost_again_and_again_is_made_as_often() {
    let tally = run(Fault::HangupAlways(20), "--count 200 --depth 2 --rw read --reconnect 30s");
    assert!(tally.is_clean(), "{:?}", tally.failures);
    assert!((5..=10).contains(&tally.lost.connections), "{:?}", tally.lost);
    assert_eq!(tally.reads.commands + tally.lost.reads, 200);
}

#[test]
fn silence_is_a_loss() {
    let tally = run(Fault::Mute(20), "--count 1000 --depth 4 --time 4s --reconnect 1s");
    assert_eq!(tally.told_losses[0], "session 0: 4 commands without an answer for 3 s");
    assert_eq!(tally.failures, ["the time was over before all commands were done"]);
}

#[test]
fn a_target_that_does_not_come_back_ends_the_load() {
    let tally = run(Fault::Gone(20), "--count 1000 --depth 4 --reconnect 200ms");
    let [failure] = &tally.failures[..] else { panic!("{:?}", tally.failures) };
    assert!(failure.starts_with("session 0: not connected again: 127.0.0.1:"), "{failure}");
    assert_eq!((tally.reads.commands, tally.lost.connections), (20, 1));
}
