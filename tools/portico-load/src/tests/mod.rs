//! Whole loads against a target that a test plays, over loopback: what a good one brings, and what is said of a bad one.

mod authentication;
mod open_loop;
mod reconnect;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::options::Options;
use crate::report;
use crate::tally::Tally;
use crate::verify::Kind;
use target::{Fault, NAME};

/// Long enough for a busy machine, short enough for a test.
const SILENCE_MAX: Duration = Duration::from_secs(3);

fn options(fault: Fault, arguments: &str) -> Options {
    let (portal, _) = target::start(fault);
    options_for(&[portal], arguments)
}

fn options_for(portals: &[SocketAddr], arguments: &str) -> Options {
    let urls: Vec<String> =
        portals.iter().map(|portal| format!("--target iscsi://{portal}/{NAME}/0")).collect();
    let command = format!("portico-load --quiet {} {arguments}", urls.join(" "));
    Options::try_parse_from(command.split_whitespace()).unwrap()
}

fn run(fault: Fault, arguments: &str) -> Tally {
    run_options(&options(fault, arguments))
}

fn run_options(options: &Options) -> Tally {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let (units, tally) = crate::load(options, &is_interrupted, SILENCE_MAX).unwrap();
    // Whatever came, it can be told.
    let value = report::json(options, &units, &tally, false);
    assert_eq!(value["ok"], tally.is_clean());
    assert!(report::text(options, &units, &tally).starts_with("iscsi://127.0.0.1:"));
    tally
}

fn refused(fault: Fault, arguments: &str) -> String {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    crate::load(&options(fault, arguments), &is_interrupted, SILENCE_MAX).unwrap_err()
}

#[test]
fn a_count_of_reads_is_done_by_several_sessions() {
    let tally = run(Fault::None, "--count 500 --sessions 3 --depth 8");
    assert!(tally.is_clean(), "{tally:?}");
    assert_eq!((tally.reads.commands, tally.reads.bytes), (500, 500 * 4096));
    assert_eq!(tally.reads.times.len(), 500);
    assert_eq!(tally.least_and_most, Some((166, 167)));
}

#[test]
fn digests_are_made_and_checked_both_ways() {
    for digests in ["--header-digest", "--data-digest", "--header-digest --data-digest"] {
        for load in ["--rw randrw --verify --bs 12k", "--rw randrw"] {
            let tally = run(Fault::None, &format!("--count 100 --sessions 2 --depth 4 {load} {digests}"));
            assert!(tally.is_clean(), "{digests} {load}: {:?} {:?}", tally.findings, tally.failures);
        }
    }
}

#[test]
fn a_load_that_demands_digests_does_not_go_without() {
    let why = refused(Fault::NoDigests, "--count 1 --header-digest");
    assert!(why.contains("does not agree to the digests"), "{why}");
}

#[test]
fn sessions_are_divided_among_threads() {
    let cores = core_affinity::get_core_ids().unwrap();
    let list: Vec<String> = cores.iter().take(2).map(|core| core.id.to_string()).collect();
    let tally = run(Fault::None, &format!("--count 300 --sessions 5 --depth 2 --cores {}", list.join(",")));
    assert!(tally.is_clean(), "{tally:?}");
    assert_eq!((tally.reads.commands, tally.busy.len()), (300, list.len()));
}

#[test]
fn time_ends_a_load() {
    let began = Instant::now();
    let tally = run(Fault::None, "--time 200ms --rw read");
    assert!(tally.is_clean() && tally.reads.commands > 0);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(tally.elapsed >= Duration::from_millis(200));
}

#[test]
fn verified_writes_of_disjoint_parts_are_read_back() {
    let tally = run(Fault::None, "--count 400 --sessions 4 --depth 8 --rw randwrite --verify");
    assert!(tally.is_clean(), "{:?} {:?}", tally.findings, tally.failures);
    assert_eq!(tally.writes.commands, 400);
    assert!(tally.read_back > 0 && tally.verified.good == tally.read_back);
}

#[test]
fn verified_mixed_load_on_a_shared_region_is_sound() {
    let tally =
        run(Fault::None, "--count 600 --sessions 4 --depth 4 --rw randrw --verify --shared --size 64k");
    assert!(tally.is_clean(), "{:?} {:?}", tally.findings, tally.failures);
    assert!(tally.verified.good > tally.read_back, "reads were checked on the way, too");
    assert_eq!(tally.read_back, 16, "every block was written");
}

#[test]
fn writes_that_need_r2ts_and_reads_of_many_pdus_are_whole() {
    // 320 KiB is more than FirstBurstLength, two buffers, and 40 Data-In PDUs.
    let tally = run(Fault::None, "--count 12 --depth 1 --bs 320k --rw write --verify --sessions 2");
    assert!(tally.is_clean(), "{:?} {:?}", tally.findings, tally.failures);
    assert_eq!((tally.writes.commands, tally.verified.bad()), (12, 0));
    assert!(tally.verified.good > 0);
    let plain = run(Fault::None, "--count 4 --depth 1 --bs 320k --rw write");
    assert!(plain.is_clean(), "lent memory goes the same way: {:?}", plain.failures);
}

/// One session that writes 16 blocks of 4 KiB one after the other and reads them back, with this fault.
fn found(fault: Fault) -> Vec<(Kind, u64)> {
    let tally = run(fault, "--count 16 --depth 1 --rw write --verify --size 64k --sessions 1");
    assert_eq!((tally.errors, &tally.failures[..]), (0, &[][..]), "the target looked healthy");
    assert!(!tally.is_clean());
    tally.findings.iter().map(|finding| (finding.kind, finding.lba)).collect()
}

#[test]
fn a_write_that_was_lost_is_old() {
    assert_eq!(found(Fault::WriteLost(5)), [(Kind::Old, 40)]);
}

#[test]
fn a_write_that_was_done_in_part_is_torn() {
    assert_eq!(found(Fault::WriteTorn(5)), [(Kind::Torn, 44)]);
}

#[test]
fn a_write_to_the_wrong_place_is_missing_where_it_belongs() {
    // Block 6 was overwritten by its own write afterwards.
    assert_eq!(found(Fault::WriteAstray(5)), [(Kind::Old, 40)]);
    // Block 15 went to block 16, which nobody reads.
    assert_eq!(found(Fault::WriteAstray(15)), [(Kind::Old, 120)]);
}

#[test]
fn a_bit_that_was_flipped_is_wrong() {
    assert_eq!(found(Fault::BitFlipped(5)), [(Kind::Wrong, 41)]);
}

#[test]
fn a_lost_overwrite_is_old_by_its_version() {
    // The second round of a sequence over the same 16 blocks.
    let tally = run(Fault::WriteLost(20), "--count 32 --depth 1 --rw write --verify --size 64k");
    let finding = &tally.findings[0];
    assert_eq!((finding.kind, finding.lba, tally.findings.len()), (Kind::Old, 32, 1));
    assert_eq!(finding.detail, "write 5 of session 0, which a later one had replaced");
}

/// The same with commands of 4 and of 16 KiB.
fn found_among_sizes(fault: Fault) -> Vec<Kind> {
    let tally = run(fault, "--count 16 --depth 1 --rw write --verify --size 256k --bssplit 4k/50:16k/50");
    assert_eq!((tally.errors, &tally.failures[..]), (0, &[][..]), "the target looked healthy");
    tally.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn faults_are_told_apart_among_commands_of_several_lengths() {
    for nth in 0..8 {
        assert_eq!(found_among_sizes(Fault::WriteLost(nth))[0], Kind::Old, "write {nth}");
        let torn = found_among_sizes(Fault::WriteTorn(nth));
        // Where a long write lies in two of the pieces that are read back, the second piece lacks all of its part.
        assert!(torn.contains(&Kind::Torn) || torn == [Kind::Old], "write {nth}: {torn:?}");
        assert_eq!(found_among_sizes(Fault::BitFlipped(nth)), [Kind::Wrong], "write {nth}");
    }
}

#[test]
fn verified_load_of_several_lengths_is_sound() {
    for pattern in ["randrw", "rw", "randwrite"] {
        for region in ["--disjoint", "--shared"] {
            let arguments = format!(
                "--count 400 --sessions 4 --depth 1 --rw {pattern} --verify {region} --size 512k \
                 --bssplit 512/20:4k/50:6k/10:16k/20"
            );
            let tally = run(Fault::None, &arguments);
            assert!(tally.is_clean(), "{pattern} {region}: {:?} {:?}", tally.findings, tally.failures);
            assert_eq!(tally.reads.commands + tally.writes.commands, 400);
            assert!(tally.verified.good >= tally.read_back && tally.read_back > 0);
        }
    }
}

#[test]
fn several_units_have_their_own_sessions_and_data() {
    let portals = [Fault::None, Fault::WriteLost(3)].map(|fault| target::start(fault).0);
    let mut options =
        options_for(&portals, "--count 32 --depth 1 --rw write --verify --size 64k --sessions 2");
    // The target has one name and takes every LUN.
    options.target[1] = format!("iscsi://{}/{NAME}/1", portals[1]).parse().unwrap();
    let tally = run_options(&options);
    assert_eq!((tally.writes.commands, tally.failures.len()), (32, 0), "{:?}", tally.failures);
    assert_eq!(tally.findings.len(), 1, "{:?}", tally.findings);
    assert!(tally.findings[0].session >= 2, "the first two sessions are on the other unit");
}

#[test]
fn two_paths_lead_to_one_unit() {
    let (portal, disk) = target::start(Fault::None);
    let options =
        options_for(&[portal; 2], "--count 200 --depth 2 --rw randrw --verify --sessions 2 --size 1m");
    let tally = run_options(&options);
    assert!(tally.is_clean(), "{:?} {:?}", tally.findings, tally.failures);
    assert_eq!(tally.reads.commands + tally.writes.commands, 200);
    assert_eq!(disk.reads(), tally.reads.commands + tally.read_back);
}

#[test]
fn an_amount_of_bytes_is_done() {
    let tally = run(Fault::None, "--amount 1m --sessions 2 --depth 1 --rw randread --bssplit 4k/50:8k/50");
    assert!(tally.is_clean(), "{tally:?}");
    assert!((1 << 20..(1 << 20) + 16384).contains(&tally.reads.bytes), "{}", tally.reads.bytes);
}

#[test]
fn a_warm_up_is_not_measured() {
    let (portal, disk) = target::start(Fault::None);
    let tally = run_options(&options_for(&[portal], "--ramp 100ms --count 20 --rw read --depth 2"));
    assert!(tally.is_clean(), "{tally:?}");
    assert_eq!((tally.reads.commands, tally.least_and_most), (20, Some((20, 20))));
    assert!(disk.reads() > 20, "the warm-up reads, too");
}

#[test]
fn intervals_are_written_and_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, log) = (folder.path().join("a.csv"), folder.path().join("a.hlog"));
    let arguments = format!(
        "--time 250ms --interval 50ms --rw randrw --sessions 2 --csv {} --hdr-log {}",
        csv.display(),
        log.display()
    );
    let tally = run(Fault::None, &arguments);
    assert!(tally.is_clean() && tally.reads.commands > 0, "{tally:?}");
    let csv = std::fs::read_to_string(csv).unwrap();
    let rows: Vec<Vec<f64>> =
        csv.lines().skip(1).map(|row| row.split(',').map(|cell| cell.parse().unwrap()).collect()).collect();
    assert!(rows.len() >= 5, "{csv}");
    let reads: f64 = rows.iter().map(|row| row[1] * row[2]).sum();
    let commands = f64::from(u32::try_from(tally.reads.commands).unwrap());
    assert!((reads - commands).abs() <= 0.02 * commands + 50.0, "{reads} of {commands}");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("Tag=read,") && log.contains("Tag=write,"), "{log}");
}

#[test]
fn a_busy_target_is_asked_again_and_nothing_is_lost() {
    let tally = run(Fault::Busy, "--count 200 --sessions 2 --depth 4 --rw randrw --mix 50 --verify");
    assert!(tally.is_clean(), "{:?} {:?} {:?}", tally.findings, tally.failures, tally.told_errors);
    assert_eq!(tally.reads.commands + tally.writes.commands, 200);
    assert!(tally.retries > 20, "{}", tally.retries);
}

#[test]
fn a_command_that_fails_is_an_error_and_the_load_goes_on() {
    let tally = run(Fault::ReadFails(3), "--count 50 --depth 1 --rw read");
    assert_eq!((tally.errors, tally.reads.commands), (1, 49));
    let expected = "READ at LBA 24: CHECK CONDITION, sense key 3h, additional sense 11h/00h (session 0)";
    assert_eq!(tally.told_errors, [expected]);
}

#[test]
fn a_session_that_is_lost_ends_the_load_and_is_named() {
    let tally = run(Fault::Hangup(10), "--count 100000 --depth 4 --sessions 2");
    assert!(!tally.is_clean());
    let why = &tally.failures[0];
    assert!(why.starts_with("session "), "{why}");
    // Which of the three it is depends on what was under way.
    let ends = ["closed the connection", "Connection reset", "Broken pipe"];
    assert!(ends.iter().any(|end| why.contains(end)), "{why}");
    assert!(tally.reads.commands < 100_000);
}

#[test]
fn a_target_that_answers_no_more_ends_the_load() {
    let began = Instant::now();
    let tally = run(Fault::Mute(20), "--count 1000 --depth 4");
    assert_eq!(tally.failures, ["session 0: 4 commands without an answer for 3 s"]);
    assert_eq!(tally.reads.commands, 20);
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_unit_that_is_slow_to_start_is_waited_for() {
    let tally = run(Fault::SlowStart, "--count 10");
    assert!(tally.is_clean(), "{tally:?}");
}

#[test]
fn a_load_that_cannot_begin_says_why() {
    let none = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let command = format!("portico-load --target iscsi://{none}/{NAME}/0");
    let options = Options::try_parse_from(command.split_whitespace()).unwrap();
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let why = crate::load(&options, &is_interrupted, SILENCE_MAX).unwrap_err();
    assert!(why.contains("refused"), "{why}");
    let why = refused(Fault::None, "--size 1g");
    assert!(why.contains("the logical unit ends"), "{why}");
    let mut other = self::options(Fault::None, "");
    other.target[0].target = "iqn.2026-11.test:other".to_owned();
    let why = crate::load(&other, &is_interrupted, SILENCE_MAX).unwrap_err();
    assert!(why.contains("login refused, status 0x0203"), "{why}");
    assert!(refused(Fault::None, "--cores 1023").contains("core 1023"));
}

#[test]
fn an_interrupted_load_ends_at_once_and_is_told() {
    let options = options(Fault::None, "--time 1h --depth 2");
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let interrupter = Arc::clone(&is_interrupted);
    let began = Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        interrupter.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let (_, tally) = crate::load(&options, &is_interrupted, SILENCE_MAX).unwrap();
    assert!(tally.is_clean() && tally.reads.commands > 0, "{:?}", tally.failures);
    assert!(began.elapsed() < Duration::from_secs(20));
}
