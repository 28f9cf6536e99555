//! `cargo xtask bench-record`: processor time per 4 KiB read, ours and tgt's side by side, kept as a dated record.
//!
//! The target has one processor, the generators (`iscsi-perf`) another one. Each pair measures the gateway and tgt one
//! after the other, the next pair in the other order, so that whatever drifts on the machine meets both. What is compared
//! is the user and system time of the whole target process for each read; rates are told too, but where a target is faster
//! than its generator they say nothing. The ratio of each pair is taken by itself: its spread tells how much to believe.

mod generator;
mod plot;
mod record;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::ci;
use crate::lab::target::{Kind, Peer, Target};
use crate::lab::{Context, Failure, Result, halt};
use crate::tree::Tree;
use generator::Generators;

/// `cargo xtask bench-record`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Pairs of measurements for each case
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// How long each measurement takes, after a warm-up of 2 s
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Where the record's folder is made; perf-results of the tree if not given
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Measure although the machine does other things
    #[arg(long)]
    anyway: bool,
}

/// What is measured: one medium, so many sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    kind: Kind,
    sessions: usize,
}

impl Case {
    fn name(self) -> String {
        let plural = if self.sessions == 1 { "" } else { "s" };
        format!("{}, {} session{plural}", self.kind.name(), self.sessions)
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    case: Case,
    pair: u32,
    peer: Peer,
    seconds: f64,
    reads: f64,
    cpu_seconds: f64,
}

impl Sample {
    /// µs of processor time for each read.
    fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.reads
    }
}

/// The command line's way in.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    if let Some(obstacle) = Peer::Tgt.obstacle() {
        return Err(Failure::new(obstacle));
    }
    let load = load()?;
    if load > QUIET_LOAD_MAX && !arguments.anyway {
        return Err(Failure::new(format!(
            "the machine is busy (load {load}); `--anyway` measures all the same"
        )));
    }
    ci::build_release(&tree)?;
    let mut samples = Vec::new();
    for pair in 0..arguments.pairs {
        for case in CASES {
            let mut peers = [Peer::Portico, Peer::Tgt];
            if pair % 2 == 1 {
                peers.reverse();
            }
            for peer in peers {
                let sample = measure(&tree, case, pair, peer, Duration::from_secs(arguments.seconds))?;
                println!("{:16} {:8} {:6.2} µs", case.name(), peer.name(), sample.cpu_us());
                samples.push(sample);
            }
        }
    }
    let parent = arguments.to.clone().unwrap_or_else(|| tree.root.join("perf-results"));
    let folder = record::write(&tree, &parent, &samples, arguments.seconds, load)?;
    println!("{}", fs::read_to_string(folder.join("summary.md")).context("summary.md")?);
    println!("recorded in {}", folder.display());
    Ok(true)
}

/// One target, its generators, one window of time.
fn measure(tree: &Tree, case: Case, pair: u32, peer: Peer, time: Duration) -> Result<Sample> {
    let mut target = Target::start_pinned(tree, peer, case.kind, UNIT_BYTES, TARGET_CORE)?;
    let id = target.process_id().ok_or_else(|| Failure::new("the target is not running"))?;
    let mut generators = Generators::start(&target.url(), case.sessions, GENERATOR_CORE, DEPTH)?;
    generators.run_for(WARM_UP)?;
    let (start, cpu) = (Instant::now(), cpu_seconds(id)?);
    let reads = generators.run_for(time)?;
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), cpu_seconds(id)? - cpu);
    drop(generators);
    target.stop()?;
    halt::go_on()?;
    Ok(Sample { case, pair, peer, seconds, reads, cpu_seconds })
}

/// User and system time of a process with all of its threads, see proc(5).
fn cpu_seconds(id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("/proc/PID/stat")?;
    ticks(&stat)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .ok_or_else(|| Failure::new("/proc/PID/stat has changed"))
}

fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(field(11)? + field(12)?)
}

/// The load average of the last minute.
fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    text.split(' ').next().unwrap_or_default().parse().context("/proc/loadavg")
}

const CASES: [Case; 4] = [
    Case { kind: Kind::Null, sessions: 1 },
    Case { kind: Kind::Null, sessions: 4 },
    Case { kind: Kind::Ram, sessions: 1 },
    Case { kind: Kind::Ram, sessions: 4 },
];
const UNIT_BYTES: u64 = 256 << 20;
const TARGET_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;
const DEPTH: u32 = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const QUIET_LOAD_MAX: f64 = 0.5;
/// USER_HZ, the same on every architecture of Linux that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read_behind_its_name_whatever_that_is() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 100 200 300";
        assert_eq!(ticks(stat), Some(200.0));
        assert_eq!(ticks("42 (x) S 1"), None);
    }
}
