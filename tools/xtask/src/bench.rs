//! `cargo xtask bench`: the gateway beside tgt and the comparison servers, in the same run, kept as a dated record.
//!
//! A cell is a medium, a block size, a direction, and sessions × queue depth (`matrix`). In each pair of repetitions every
//! contender of every cell is started afresh, warmed up and loaded by portico-load for the same time; the next pair takes the
//! contenders in another order, so that whatever drifts on the machine meets all. Ratios are those of one pair, and their
//! median is told with its confidence interval (`statistics`). Processor time is that of the whole target process.

pub(crate) mod beside;
pub(crate) mod ceph;
mod claims;
mod contender;
mod matrix;
mod measure;
mod plan;
mod plot;
pub(crate) mod report;
mod sample;
mod statistics;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::ci;
use crate::lab::target::Peer;
use crate::lab::{Context, Failure, Result, halt, has_program, process};
use crate::tree::Tree;
use contender::{Contender, Given};
use measure::Measuring;
use sample::Sample;

/// `cargo xtask bench`.
#[derive(Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Only cells whose name has this in it, as null-4k-read-4x64; `*` stands for anything; may be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Only what the table of promised ratios needs
    #[arg(long, conflicts_with_all = ["quick", "target", "scaling"])]
    claims: bool,
    /// Few cells, one pair, one second: whether everything works
    #[arg(long, conflicts_with_all = ["target", "scaling"])]
    quick: bool,
    /// 4 KiB reads by 16 sessions on one core, on two, to all of --target-cores
    #[arg(long, conflicts_with = "target")]
    scaling: bool,
    /// Beside the gateway only these, by name; may be given several times
    #[arg(long, value_name = "CONTENDER")]
    against: Vec<String>,
    /// Repetitions, each with all contenders
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: Option<u32>,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// A logical unit of any target, as iscsi://HOST:PORT/IQN/LUN, to be measured beside the gateway's RAM disk
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// That target's process, if it runs on this machine: its processor time is told
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// Writes to that target too, which destroys its data
    #[arg(long, requires = "target")]
    destroy: bool,
    /// Processors of the target; the first one is used where nothing else is said
    #[arg(long, value_name = "LIST", default_value = "0", value_delimiter = ',')]
    target_cores: Vec<usize>,
    /// Processors of the load generator, a thread on each; the one behind the target's if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    load_cores: Vec<usize>,
    /// Where the record's folder is made; perf-results of the tree if not given
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Measure although the machine does other things
    #[arg(long)]
    anyway: bool,
    /// List the cells and their contenders, and end
    #[arg(long)]
    list: bool,
}

impl Arguments {
    fn pairs(&self) -> u32 {
        self.pairs.unwrap_or(if self.quick { 1 } else { 10 })
    }

    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 3 })
    }
}

/// The command line's way in.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    let plan = plan::of(arguments)?;
    if arguments.list {
        for (cell, contenders) in &plan {
            let names: Vec<String> = contenders.iter().map(Contender::to_string).collect();
            println!("{:26} {}", cell.to_string(), names.join(" "));
        }
        return Ok(true);
    }
    let load = load()?;
    if load > QUIET_LOAD_MAX && !arguments.anyway {
        return Err(Failure::new(format!(
            "the machine is busy (load {load}); `--anyway` measures all the same"
        )));
    }
    ci::build_release(&tree)?;
    ci::build_load(&tree)?;
    let has_glommio = build_floor(&tree)?;
    let (plan, skipped) = plan::possible(plan, &|contender| obstacle(contender, has_glommio));
    for line in &skipped {
        println!("SKIPPED {line}");
    }
    let given = arguments.target.clone().map(|url| Given { url, process: arguments.pid });
    let measuring = Measuring::new(&tree, arguments, given)?;
    let samples = run(arguments, measuring, &plan)?;
    let parent = arguments.to.clone().unwrap_or_else(|| tree.root.join("perf-results"));
    let folder =
        report::write(&tree, &parent, &samples, &report::Run { arguments, load, skipped: &skipped })?;
    println!("{}", fs::read_to_string(folder.join("summary.md")).context("summary.md")?);
    println!("recorded in {}", folder.display());
    Ok(true)
}

fn run(arguments: &Arguments, mut measuring: Measuring<'_>, plan: &[plan::Row]) -> Result<Vec<Sample>> {
    measuring.find_rate(plan)?;
    let mut samples = Vec::new();
    for pair in 0..arguments.pairs() {
        for (cell, contenders) in plan {
            for contender in in_turns(contenders, pair) {
                halt::go_on()?;
                let sample = measuring.sample(*cell, pair, contender)?;
                println!(
                    "{pair:3} {:24} {:14} {:9.0}/s {:>9} µs of processor, p50 {:>8} µs, {} saturated",
                    cell.to_string(),
                    contender.to_string(),
                    sample.iops(),
                    sample.cpu_us().map_or("–".to_owned(), statistics::number),
                    sample.percentile_us(0.5).map_or("–".to_owned(), statistics::number),
                    sample.saturated(),
                );
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// Each pair begins with another contender, and every second one goes backwards.
fn in_turns<T: Clone>(contenders: &[T], pair: u32) -> Vec<T> {
    let mut turned = contenders.to_vec();
    if !turned.is_empty() {
        let by = usize::try_from(pair / 2).expect("32 bits") % turned.len();
        turned.rotate_left(by);
    }
    if pair % 2 == 1 {
        turned.reverse();
    }
    turned
}

/// Why a contender cannot run here, if so.
fn obstacle(contender: Contender, has_glommio: bool) -> Option<&'static str> {
    match contender {
        Contender::Tgt => Peer::Tgt.obstacle(),
        Contender::Glommio if !has_glommio => Some("the server on glommio could not be built"),
        _ if !has_program("taskset") => Some("taskset is not installed (Debian package util-linux)"),
        _ => None,
    }
}

/// Builds the comparison servers; whether the one on glommio too.
fn build_floor(tree: &Tree) -> Result<bool> {
    let words = ["--locked", "--release", "--quiet", "--package", "portico-bench", "--bin", "portico-floor"];
    let build = |more: &[&str]| {
        let mut command = ci::cargo(tree, "build", &words);
        process::run(command.args(more), BUILD_LIMIT)
    };
    let finished = build(&["--features", "glommio"])?;
    if finished.succeeded() {
        return Ok(true);
    }
    println!("without glommio, which does not build:\n{}", finished.output);
    build(&[])?.expect_success("cargo build --package portico-bench").map(|_| false)
}

/// The load average of the last minute.
fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    text.split(' ').next().unwrap_or_default().parse().context("/proc/loadavg")
}

const QUIET_LOAD_MAX: f64 = 0.5;
const BUILD_LIMIT: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_contender_always_comes_first_and_all_come_in_each_pair() {
        let contenders = contender::of(plan::claims()[0].0);
        let mut firsts = Vec::new();
        for pair in 0..10 {
            let turned = in_turns(&contenders, pair);
            assert_eq!(turned.len(), contenders.len());
            assert!(contenders.iter().all(|contender| turned.contains(contender)));
            firsts.push(turned[0]);
        }
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), contenders.len());
        assert!(in_turns::<Contender>(&[], 3).is_empty());
    }
}
