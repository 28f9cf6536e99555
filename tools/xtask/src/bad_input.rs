//! Peers that are broken or hostile, against the real porticod: each gets the answer that RFC 7143 prescribes, and
//! nobody else notices.
//!
//! While the cases run, a [`witness`] reads and writes with verification; an error, a wrong byte or an answer that
//! is late fails the stage. All cases run twice, with two seeds: memory that is only kept shows in the first round,
//! memory that is lost grows in the second. At the end porticod has to be alive, without a panic, within its bound
//! of memory, without a session or descriptor too many, and has to end on SIGTERM with status 0.

mod after_login;
mod before_login;
mod floods;
pub(crate) mod neighbours;
mod peer;
mod transfers;
mod witness;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::gateway::{self, Device, Gateway};
use crate::lab::{Failure, Result, halt};
use crate::tree::Tree;
use witness::Witness;

/// `cargo xtask bad-input`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// The seed of the first round; the second has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One way to be wrong, and the check of what comes of it.
struct Case {
    name: &'static str,
    run: fn(&Scene) -> Result<()>,
}

/// Where a case plays.
struct Scene {
    portal: SocketAddr,
    seed: u64,
}

/// The command line's way in; `true` if every case passed.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    super::ci::build_release(&tree)?;
    let (passed, failed) = run(&tree, &arguments.only, arguments.seed, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// All cases, twice; how many passed and failed.
pub(crate) fn run(tree: &Tree, only: &str, seed: u64, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let mut gateway = Gateway::prepare(tree)?;
    gateway.configure(&gateway::configuration(&devices(&gateway)))?;
    gateway.argue(&["--cores", "0,1", "--shard-memory", SHARD_MEMORY_MIB]);
    gateway.start()?;
    let mut judge = Judge { passed: 0, failed: 0, say };
    let witness = Witness::start(gateway.portal())?;
    let before = Usage::of(&mut gateway)?;
    let silent: Vec<_> = peer::SILENCES.iter().map(|silence| silence.begin(gateway.portal())).collect();
    let mut rounds = Vec::new();
    for seed in [seed, seed + 1] {
        round(&mut gateway, only, seed, &mut judge)?;
        thread::sleep(SETTLING);
        rounds.push(Usage::of(&mut gateway)?);
    }
    for silence in silent {
        let (name, outcome) = silence.end();
        judge.judge(name, outcome);
    }
    judge.judge("the witness noticed nothing", witness.end());
    judge.judge("memory stays within its bound", check_memory(&before, &rounds));
    judge.judge("no session and no descriptor is left over", settled(&mut gateway, &before));
    judge.judge("porticod is alive and never panicked", gateway.check());
    judge.judge("and ends on SIGTERM", gateway.stop());
    Ok((judge.passed, judge.failed))
}

fn round(gateway: &mut Gateway, only: &str, seed: u64, judge: &mut Judge<'_>) -> Result<()> {
    let scene = Scene { portal: gateway.portal(), seed };
    let chapters = [before_login::CASES, after_login::CASES, transfers::CASES, floods::CASES];
    for case in chapters.into_iter().flatten().filter(|case| case.name.contains(only)) {
        halt::go_on()?;
        let start = Instant::now();
        let outcome = (case.run)(&scene).and_then(|()| gateway.check());
        judge.judge(&format!("{} (seed {seed}, {:.1} s)", case.name, start.elapsed().as_secs_f64()), outcome);
        gateway.check()?;
    }
    Ok(())
}

/// LUN 0 is memory, LUN 1 a file.
fn devices(gateway: &Gateway) -> [Device; 2] {
    let file = gateway.folder().join("medium.img");
    [
        Device { handler: "vdisk_ram", name: "memory", attributes: vec![format!("size {UNIT_BYTES}")] },
        Device {
            handler: "vdisk_fileio",
            name: "file",
            attributes: vec![format!("filename {}", file.display()), format!("size {UNIT_BYTES}")],
        },
    ]
}

/// Counts and tells outcomes.
struct Judge<'a> {
    passed: u32,
    failed: u32,
    say: &'a mut dyn FnMut(&str),
}

impl Judge<'_> {
    fn judge(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                (self.say)(&format!("ok     {name}"));
            }
            Err(failure) => {
                self.failed += 1;
                (self.say)(&format!("FAILED {name}: {failure}"));
            }
        }
    }
}

/// What porticod holds.
#[derive(Clone, Copy, Debug)]
struct Usage {
    resident_kib: u64,
    peak_kib: u64,
    descriptors: usize,
}

impl Usage {
    fn of(gateway: &mut Gateway) -> Result<Usage> {
        Ok(Usage {
            resident_kib: gateway.status_kib("VmRSS")?,
            peak_kib: gateway.status_kib("VmHWM")?,
            descriptors: gateway.descriptors()?,
        })
    }
}

fn check_memory(before: &Usage, rounds: &[Usage]) -> Result<()> {
    let [first, second] = rounds else { return Err(Failure::new("there were two rounds")) };
    if second.peak_kib > before.resident_kib + GROWTH_KIB_MAX {
        let (from, to) = (before.resident_kib, second.peak_kib);
        return Err(Failure::new(format!("it grew from {from} to {to} KiB; {GROWTH_KIB_MAX} are allowed")));
    }
    if second.resident_kib > first.resident_kib + LEAK_KIB_MAX {
        let (one, two) = (first.resident_kib, second.resident_kib);
        return Err(Failure::new(format!("{one} KiB after the first round, {two} KiB after the same again")));
    }
    Ok(())
}

/// Waits until what the peers left behind is cleaned away.
fn settled(gateway: &mut Gateway, before: &Usage) -> Result<()> {
    let start = Instant::now();
    loop {
        // The witness has left, too: its socket was among those of the beginning.
        let (sessions, descriptors) = (gateway.metric("portico_sessions")?, gateway.descriptors()?);
        if sessions == 0 && descriptors <= before.descriptors {
            return Ok(());
        }
        if start.elapsed() > SETTLED_LIMIT {
            let allowed = before.descriptors;
            return Err(Failure::new(format!(
                "{sessions} sessions, {descriptors} descriptors; at the beginning there were {allowed}"
            )));
        }
        thread::sleep(SETTLING);
    }
}

const UNIT_BYTES: u64 = 64 << 20;
/// Of each of two shards.
const SHARD_MEMORY_MIB: &str = "32";
/// What porticod may grow by at its worst: the memory of both shards, the RAM disk, and as much again for tables, the
/// heap and kernel-shared rings.
const GROWTH_KIB_MAX: u64 = (2 * 32 + 64 + 64) << 10;
/// What may differ between two rounds that do the same.
const LEAK_KIB_MAX: u64 = 16 << 10;
const SETTLING: Duration = Duration::from_millis(500);
const SETTLED_LIMIT: Duration = Duration::from_secs(10);
