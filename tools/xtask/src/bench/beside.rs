//! `cargo xtask bench-beside`: what sessions have of their rate and latency beside others: beside thousands that are idle, beside
//! a stream of large commands on the same shard, beside peers that behave badly; and how long COMPARE AND WRITE takes.
//!
//! Each pair measures the same load alone and beside the others, the two in another order every second time. Ratios are
//! those of one pair, their median is told with its confidence interval (`statistics`). The gateway has one shard on the first
//! processor, the generator runs on the second, before everything else there where the kernel lets it: what the others' own
//! ends take of that processor is not what is measured.

mod atomic;
mod generator;
mod hostile;
mod idle;
mod report;
mod stream;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{QUIET_LOAD_MAX, load};
use crate::ci;
use crate::lab::{Context, Failure, Result};
use crate::tree::Tree;
use generator::Figures;

/// `cargo xtask bench-beside`.
#[derive(Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Only these; all if none is named
    #[arg(value_enum)]
    scenes: Vec<Scene>,
    /// Repetitions, each alone and beside the others
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many sessions are idle
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    idle: u16,
    /// Where the record's folder is made; perf-results of the tree if not given
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Measure although the machine does other things
    #[arg(long)]
    anyway: bool,
}

/// Beside whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Scene {
    /// Sessions by the thousand that do nothing
    Idle,
    /// A sequential stream of 1 MiB commands on another LUN
    Stream,
    /// Peers that read slowly or never, flood, or never come to an end
    Hostile,
    /// COMPARE AND WRITE on one shard and two, and while a sync hangs
    Atomic,
}

impl Scene {
    const ALL: [Scene; 4] = [Scene::Idle, Scene::Stream, Scene::Hostile, Scene::Atomic];

    fn name(self) -> &'static str {
        match self {
            Scene::Idle => "idle",
            Scene::Stream => "stream",
            Scene::Hostile => "hostile",
            Scene::Atomic => "atomic",
        }
    }
}

/// One load, alone and beside others.
#[derive(Clone, Debug)]
struct Pair {
    scene: Scene,
    /// What was beside what.
    row: String,
    pair: u32,
    alone: Figures,
    beside: Figures,
}

/// What the scenes found.
#[derive(Default)]
struct Found {
    pairs: Vec<Pair>,
    /// What is no pair: a title, and text as it stands in the summary.
    told: Vec<(String, String)>,
}

/// What all scenes have in common.
struct Bench<'a> {
    tree: &'a Tree,
    arguments: &'a Arguments,
    time: Duration,
}

/// The command line's way in; `true` if nothing that was promised was missed for certain.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    let load = load()?;
    if load > QUIET_LOAD_MAX && !arguments.anyway {
        return Err(Failure::new(format!(
            "the machine is busy (load {load}); `--anyway` measures all the same"
        )));
    }
    ci::build_release(&tree)?;
    ci::build_load(&tree)?;
    let bench = Bench { tree: &tree, arguments, time: Duration::from_secs(arguments.seconds) };
    let mut found = Found::default();
    for scene in Scene::ALL {
        if !arguments.scenes.is_empty() && !arguments.scenes.contains(&scene) {
            continue;
        }
        println!("-- {}", scene.name());
        match scene {
            Scene::Idle => idle::run(&bench, &mut found)?,
            Scene::Stream => stream::run(&bench, &mut found)?,
            Scene::Hostile => hostile::run(&bench, &mut found)?,
            Scene::Atomic => atomic::run(&bench, &mut found)?,
        }
    }
    let parent = arguments.to.clone().unwrap_or_else(|| tree.root.join("perf-results"));
    let folder = report::write(&tree, &parent, &found, arguments, load)?;
    println!("{}", fs::read_to_string(folder.join("summary.md")).context("summary.md")?);
    println!("recorded in {}", folder.display());
    Ok(!report::is_missed(&found))
}

impl Found {
    /// Notes a pair, and says so.
    fn note(&mut self, pair: Pair) {
        let Pair { scene, row, pair: number, alone, beside } = &pair;
        println!(
            "{number:3} {:8} {row:44} {:8.0}/s alone {:8.0}/s beside; p99 {:7.1} µs, {:7.1} µs",
            scene.name(),
            alone.iops,
            beside.iops,
            alone.p99_us,
            beside.p99_us
        );
        self.pairs.push(pair);
    }
}
