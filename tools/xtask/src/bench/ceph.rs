//! `cargo xtask ceph-bench`: RBD images through the gateway, through tgt's backing store, and by fio's engine, which is
//! librbd alone: side by side on one cluster in one run, kept as a dated record.
//!
//! A cell is a direction, a number of images, and the depth at each. In each pair of repetitions all contenders of a cell are
//! started afresh and loaded for the same time, in another order each time. All run on the processors that the cluster
//! runs on. What is compared is compared within a pair; medians have their confidence intervals (`statistics`).
//!
//! Last it is measured what other units have left while an OSD hangs (`hang`).

mod hang;
mod measure;
mod report;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::matrix::Direction;
use super::{QUIET_LOAD_MAX, in_turns, load, statistics};
use crate::ci;
use crate::lab::ceph::Cluster;
use crate::lab::target::{Images, Peer};
use crate::lab::{Context, Failure, Result, halt, has_program};
use crate::tree::Tree;
use measure::Sample;

/// `cargo xtask ceph-bench`.
#[derive(Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Only cells whose name has this in it, as rbd-4k-read-1x16; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Repetitions, each with all contenders
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Without the measurement beside an OSD that hangs
    #[arg(long)]
    no_hang: bool,
    /// Where the record's folder is made; perf-results of the tree if not given
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Measure although the machine does other things
    #[arg(long)]
    anyway: bool,
    /// List the cells, and end
    #[arg(long)]
    list: bool,
}

/// Who moves the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Portico,
    /// Debian's, with its rbd engine: librbd, and nothing before it.
    Fio,
    /// Debian's, with its rbd backing store.
    Tgt,
}

impl Contender {
    const ALL: [Contender; 3] = [Contender::Portico, Contender::Fio, Contender::Tgt];

    /// Why it cannot run here, if so.
    fn obstacle(self) -> Option<&'static str> {
        match self {
            Contender::Portico => None,
            Contender::Fio if !has_program("fio") => Some("fio is not installed (Debian package fio)"),
            Contender::Tgt if !std::path::Path::new(TGT_RBD).exists() => {
                Some("tgt's backing store is not installed (Debian package tgt-rbd)")
            }
            Contender::Fio => None,
            Contender::Tgt => Peer::Tgt.obstacle(),
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Contender::Portico => "portico",
            Contender::Fio => "fio",
            Contender::Tgt => "tgt-rbd",
        })
    }
}

/// 4 KiB commands at random places of so many images, so deep at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    direction: Direction,
    images: u32,
    depth: u32,
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rbd-4k-{}-{}x{}", self.direction.name(), self.images, self.depth)
    }
}

fn cells() -> Vec<Cell> {
    let shapes = [(1, 1), (1, 16), (1, 32), (2, 16), (4, 16), (IMAGES, 16)];
    let directions = [Direction::Read, Direction::Write];
    let of = |direction| shapes.map(|(images, depth)| Cell { direction, images, depth });
    directions.into_iter().flat_map(of).collect()
}

/// The command line's way in.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    let is_chosen = |cell: &Cell| {
        let name = cell.to_string();
        arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part))
    };
    let cells: Vec<Cell> = cells().into_iter().filter(is_chosen).collect();
    if arguments.list {
        cells.iter().for_each(|cell| println!("{cell}"));
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
    let mut skipped = Vec::new();
    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| {
        let obstacle = contender.obstacle();
        skipped.extend(obstacle.map(|why| format!("{contender}: {why}")));
        obstacle.is_none()
    });
    skipped.iter().for_each(|line| println!("SKIPPED {line}"));
    let samples = run(&tree, arguments, &cells, &contenders)?;
    let beside =
        if arguments.no_hang { Vec::new() } else { hang::run(&tree, arguments.pairs, arguments.seconds)? };
    let parent = arguments.to.clone().unwrap_or_else(|| tree.root.join("perf-results"));
    let run = report::Run { arguments, load, skipped: &skipped, samples: &samples, beside: &beside };
    let folder = report::write(&tree, &parent, &run)?;
    println!("{}", std::fs::read_to_string(folder.join("summary.md")).context("summary.md")?);
    println!("recorded in {}", folder.display());
    Ok(true)
}

fn run(tree: &Tree, arguments: &Arguments, cells: &[Cell], contenders: &[Contender]) -> Result<Vec<Sample>> {
    if cells.is_empty() {
        return Ok(Vec::new());
    }
    let cluster = Arc::new(Cluster::start(tree)?);
    let names: Vec<String> = (0..IMAGES).map(|number| format!("bench{number}")).collect();
    for name in &names {
        cluster.rbd(&["create", "--size", &format!("{IMAGE_MIB}M"), name])?;
        // Written once, so that no object is made while it is measured.
        let total = format!("{IMAGE_MIB}M");
        let words =
            ["bench", "--io-type", "write", "--io-size", "4M", "--io-threads", "4", "--io-total", &total];
        cluster.rbd(&[&words[..], &["--io-pattern", "seq", name]].concat())?;
    }
    let mut samples = Vec::new();
    for pair in 0..arguments.pairs {
        for cell in cells {
            let count = usize::try_from(cell.images).expect("a handful");
            let images = Images { cluster: Arc::clone(&cluster), names: names[..count].to_vec() };
            for contender in in_turns(contenders, pair) {
                halt::go_on()?;
                let sample = measure::sample(tree, &images, *cell, pair, contender, arguments.seconds)?;
                println!(
                    "{pair:3} {:20} {:8} {:8.0}/s {:>7} µs of processor, p50 {:>7} µs",
                    cell.to_string(),
                    contender.to_string(),
                    sample.iops,
                    statistics::number(sample.cpu_us),
                    statistics::number(sample.p50_us),
                );
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// The most images of a cell.
const IMAGES: u32 = 8;
const IMAGE_MIB: u32 = 64;
/// Debian's place for it.
const TGT_RBD: &str = "/usr/lib/tgt/backing-store/bs_rbd.so";
