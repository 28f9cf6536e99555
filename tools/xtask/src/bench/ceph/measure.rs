//! One measurement: a contender started afresh, loaded, its processor read before and after.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::matrix::Direction;
use super::super::measure::{LOAD_PATIENCE, Outcome, cpu_seconds, outcome};
use super::super::sample::{percentile, real};
use super::{Cell, Contender};
use crate::lab::process::{self, Running};
use crate::lab::target::{Images, Peer, Target};
use crate::lab::{Context, Failure, Result};
use crate::tree::Tree;

/// What one contender did in one cell of one pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) cell: Cell,
    pub(super) pair: u32,
    pub(super) contender: Contender,
    pub(super) iops: f64,
    /// Of the whole process, for each I/O.
    pub(super) cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

pub(super) fn sample(
    tree: &Tree,
    images: &Images,
    cell: Cell,
    pair: u32,
    contender: Contender,
    seconds: u64,
) -> Result<Sample> {
    let time = Duration::from_secs(seconds);
    let peer = match contender {
        Contender::Portico => Peer::Portico,
        Contender::Tgt => Peer::Tgt,
        Contender::Fio => return fio(images, cell, pair, time),
    };
    let mut target = Target::start_images(tree, peer, images.clone())?;
    let urls: Vec<String> = (0..cell.images).map(|place| target.url_of(place)).collect();
    load(tree, &urls, cell.direction, cell.depth, RAMP)?;
    let process = target.process_id().ok_or_else(|| Failure::new("the target does not run"))?;
    let before = cpu_seconds(process)?;
    let outcome = load(tree, &urls, cell.direction, cell.depth, time)?;
    let cpu_us = (cpu_seconds(process)? - before) * 1e6 / real(outcome.commands);
    target.stop()?;
    let microseconds =
        |share| percentile(&outcome.histogram, share).map_or(0.0, |time_ns| real(time_ns) / 1000.0);
    let iops = real(outcome.commands) / outcome.seconds;
    Ok(Sample { cell, pair, contender, iops, cpu_us, p50_us: microseconds(0.5), p99_us: microseconds(0.99) })
}

/// Loads these units, each by a session of its own.
pub(super) fn load(
    tree: &Tree,
    urls: &[String],
    direction: Direction,
    depth: u32,
    time: Duration,
) -> Result<Outcome> {
    let json = tempfile::NamedTempFile::new()?;
    let mut command = loader(tree, urls, direction, depth, time);
    command.arg("--json").arg(json.path());
    process::run(&mut command, time + LOAD_PATIENCE)?.expect_success("portico-load")?;
    outcome(&fs::read_to_string(json.path()).context("portico-load's JSON")?)
}

/// The command that does.
pub(super) fn loader(
    tree: &Tree,
    urls: &[String],
    direction: Direction,
    depth: u32,
    time: Duration,
) -> Command {
    let mut command = Command::new(tree.target.join("release/portico-load"));
    urls.iter().for_each(|url| {
        command.args(["--target", url]);
    });
    command.args(["--quiet", "--rw", direction.pattern(), "--bs", "4k", "--depth", &depth.to_string()]);
    command.args(["--time", &format!("{}ms", time.as_millis())]);
    command
}

/// fio counts the processor time of its own threads, not of librbd's. So it is read from outside, over a part of the time in
/// which fio counts its I/Os; they are as many a second in that part as in the whole.
fn fio(images: &Images, cell: Cell, pair: u32, time: Duration) -> Result<Sample> {
    let json = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("fio");
    command.env("CEPH_CONF", images.cluster.client_conf()?);
    command.args([
        "--ioengine=rbd",
        "--clientname=admin",
        "--pool=rbd",
        "--bs=4k",
        "--thread",
        "--time_based",
    ]);
    command.args([
        "--group_reporting",
        "--lat_percentiles=1",
        "--percentile_list=50:99",
        "--output-format=json",
    ]);
    command.arg(format!("--output={}", json.path().display()));
    command.arg(format!("--rw={}", cell.direction.pattern())).arg(format!("--iodepth={}", cell.depth));
    command
        .arg(format!("--ramp_time={}ms", RAMP.as_millis()))
        .arg(format!("--runtime={}ms", time.as_millis()));
    for name in &images.names {
        command.args([format!("--name={name}"), format!("--rbdname={name}")]);
    }
    let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    // It opens its images first, and waits where another client's watch has yet to run out. Then it works at once.
    let opened = Instant::now();
    while cpu_seconds(running.id())? < FIO_OPENED_CPU {
        if opened.elapsed() > LOAD_PATIENCE {
            return Err(Failure::new("fio does not begin"));
        }
        thread::sleep(FIO_LOOK);
    }
    thread::sleep(RAMP);
    let (start, before) = (Instant::now(), cpu_seconds(running.id())?);
    thread::sleep(time.saturating_sub(FIO_START + FIO_END));
    let cpu_a_second = (cpu_seconds(running.id())? - before) / start.elapsed().as_secs_f64();
    match running.wait(time + LOAD_PATIENCE)? {
        Some(status) if status.success() => {}
        status => return Err(Failure::new(format!("fio ended with {status:?}"))),
    }
    let text = fs::read_to_string(json.path()).context("fio's JSON")?;
    let (iops, p50_us, p99_us) = fio_outcome(&text, cell.direction)?;
    Ok(Sample {
        cell,
        pair,
        contender: Contender::Fio,
        iops,
        cpu_us: cpu_a_second * 1e6 / iops,
        p50_us,
        p99_us,
    })
}

fn fio_outcome(json: &str, direction: Direction) -> Result<(f64, f64, f64)> {
    // What its engine has to say comes before the JSON.
    let from = json.find('{').unwrap_or_default();
    let value: Value = serde_json::from_str(&json[from..]).context("fio's JSON")?;
    let of = &value["jobs"][0][direction.name()];
    let percentile = |name: &str| of["lat_ns"]["percentile"][name].as_f64().map(|time_ns| time_ns / 1000.0);
    let missing = || Failure::new("fio's JSON has changed");
    let iops = of["iops"].as_f64().filter(|iops| *iops > 0.0).ok_or_else(missing)?;
    Ok((iops, percentile("50.000000").ok_or_else(missing)?, percentile("99.000000").ok_or_else(missing)?))
}

const RAMP: Duration = Duration::from_secs(1);
/// How long fio may be at work before it is seen, and how early its time may end.
const FIO_START: Duration = Duration::from_millis(500);
const FIO_END: Duration = Duration::from_millis(300);
/// More processor seconds than it takes to open the images.
const FIO_OPENED_CPU: f64 = 0.2;
const FIO_LOOK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_says_its_rate_and_its_latencies() {
        let json = r#"note: x
            {"jobs": [{"read": {"iops": 1000.5, "lat_ns": {"percentile": {"50.000000": 2000, "99.000000": 9000}}},
            "write": {"iops": 0.0}}]}"#;
        assert_eq!(fio_outcome(json, Direction::Read).unwrap(), (1000.5, 2.0, 9.0));
        assert!(fio_outcome(json, Direction::Write).is_err());
        assert!(fio_outcome("", Direction::Read).is_err());
    }
}
