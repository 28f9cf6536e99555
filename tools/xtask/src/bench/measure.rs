//! One measurement: start a contender, warm it up, load it, read the clock of its processor before and after.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Arguments;
use super::contender::{self, Contender, Given, Standing};
use super::matrix::{Cell, Direction, Media};
use super::plan::Row;
use super::sample::{Sample, merged};
use crate::lab::loop_device::LoopDevice;
use crate::lab::target::Kind;
use crate::lab::{Context, Failure, Result, floor, process, target};
use crate::tree::Tree;

/// What all measurements have in common.
pub(super) struct Measuring<'a> {
    tree: &'a Tree,
    time: Duration,
    target_cores: Vec<usize>,
    load_cores: Vec<usize>,
    given: Option<Given>,
    /// Commands per second of the open loop, once it is known.
    rate: Option<u64>,
}

impl<'a> Measuring<'a> {
    pub(super) fn new(tree: &'a Tree, arguments: &Arguments, given: Option<Given>) -> Result<Measuring<'a>> {
        let count = std::thread::available_parallelism()?.get();
        let target_cores = arguments.target_cores.clone();
        let behind = target_cores.iter().max().map_or(0, |last| last + 1);
        let load_cores = match arguments.load_cores.as_slice() {
            [] => vec![behind.min(count - 1)],
            named => named.to_vec(),
        };
        let time = Duration::from_secs(arguments.seconds());
        Ok(Measuring { tree, time, target_cores, load_cores, given, rate: None })
    }

    /// Finds the rate of the cells that have one: half of what one core does when nothing paces it.
    pub(super) fn find_rate(&mut self, plan: &[Row]) -> Result<()> {
        let Some((paced, _)) = plan.iter().find(|(cell, _)| cell.is_paced) else { return Ok(()) };
        let cell = Cell { is_paced: false, ..*paced };
        let sample = self.sample(cell, 0, Contender::Portico)?;
        let whole = sample.commands / u64::try_from(self.time.as_millis()).expect("minutes") * 1000;
        self.rate = Some((whole / 2).max(1));
        Ok(())
    }

    /// Measures.
    pub(super) fn sample(&self, cell: Cell, pair: u32, contender: Contender) -> Result<Sample> {
        if contender == Contender::Medium {
            return self.medium(cell, pair);
        }
        let cores = self.cores(contender);
        let standing = Standing::start(self.tree, contender, cell, &cores, self.given.as_ref())?;
        if contender::kind(cell.media) == Kind::Ram && contender.has_blocks() {
            self.fill(&standing.url, contender::size_bytes(cell.media))?;
        }
        self.load(&standing.url, cell, contender, WARM_UP)?;
        let cpu = |when: &str| standing.process.map(cpu_seconds).transpose().context(when);
        let before = cpu("before the load")?;
        let outcome = self.load(&standing.url, cell, contender, self.time)?;
        let cpu_seconds = before.zip(cpu("after it")?).map(|(before, after)| after - before);
        Ok(Sample {
            cell,
            pair,
            contender,
            seconds: outcome.seconds,
            commands: outcome.commands,
            cpu_seconds,
            cores: u32::try_from(cores.len()).expect("processors are few"),
            generator_busy: Some(outcome.busy),
            histogram: outcome.histogram,
        })
    }

    /// One processor, or as many as the contender has shards: the generator's too where there are no others.
    fn cores(&self, contender: Contender) -> Vec<usize> {
        let count = match contender {
            Contender::Shards(count) => usize::try_from(count).expect("32 bits"),
            Contender::Given => self.target_cores.len(),
            _ => 1,
        };
        self.target_cores.iter().chain(&self.load_cores).copied().take(count).collect()
    }

    /// Writes a RAM disk once, so that no page of it is made while it is measured.
    fn fill(&self, url: &str, size_bytes: u64) -> Result<()> {
        let mut command = Command::new(self.tree.target.join("release/portico-load"));
        command.args(["--target", url, "--quiet", "--rw", "write", "--bs", "1m", "--depth", "8"]);
        command.args(["--count", &(size_bytes >> 20).to_string()]);
        process::run(&mut command, LOAD_PATIENCE)?.expect_success("portico-load").map(drop)
    }

    fn load(&self, url: &str, cell: Cell, contender: Contender, time: Duration) -> Result<Outcome> {
        let json = tempfile::NamedTempFile::new()?;
        let cores: Vec<String> = self.load_cores.iter().map(usize::to_string).collect();
        let mut command = Command::new(self.tree.target.join("release/portico-load"));
        command.args(["--target", url, "--quiet", "--cores", &cores.join(",")]);
        command.args(["--sessions", &cell.sessions.to_string(), "--depth", &cell.depth.to_string()]);
        command.args(["--rw", cell.direction.pattern(), "--mix", "70", "--bs", &format!("{}k", cell.kib)]);
        command.args(["--time", &format!("{}ms", time.as_millis())]).arg("--json").arg(json.path());
        if let Some(rate) = self.rate.filter(|_| cell.is_paced) {
            command.args(["--rate", &rate.to_string()]);
        }
        if contender == Contender::Digests {
            command.args(["--header-digest", "--data-digest"]);
        }
        let finished = process::run(&mut command, time + LOAD_PATIENCE)?;
        finished.expect_success("portico-load")?;
        let text = fs::read_to_string(json.path()).context("portico-load's JSON")?;
        outcome(&text)
    }

    /// The floor below a medium, at the depth that all sessions have together.
    fn medium(&self, cell: Cell, pair: u32) -> Result<Sample> {
        let folder = tempfile::Builder::new().prefix("portico-lab-").tempdir()?;
        let file = folder.path().join("medium.img");
        target::fill(&file, contender::size_bytes(cell.media))?;
        let device = if cell.media == Media::Loop { Some(LoopDevice::attach(&file)?) } else { None };
        let path = device.as_ref().map_or(file.as_path(), LoopDevice::path);
        let mut words = vec![format!("--depth={}", cell.sessions * cell.depth)];
        words.push(format!("--bs={}", cell.kib * 1024));
        words.extend((cell.direction == Direction::Write).then(|| "--write".to_owned()));
        let cores = self.cores(Contender::Medium);
        let (commands, seconds) = floor::measure_medium(self.tree, path, &words, &cores, self.time)?;
        let (contender, cores) = (Contender::Medium, 1);
        let (cpu_seconds, generator_busy, histogram) = (None, None, Vec::new());
        Ok(Sample { cell, pair, contender, seconds, commands, cpu_seconds, cores, generator_busy, histogram })
    }
}

/// What portico-load says.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) seconds: f64,
    pub(super) commands: u64,
    /// The share of its time for which the busiest thread ran.
    pub(super) busy: f64,
    pub(super) histogram: Vec<(u64, u64)>,
}

pub(super) fn outcome(json: &str) -> Result<Outcome> {
    let value: Value = serde_json::from_str(json).context("portico-load's JSON")?;
    let missing = || Failure::new("portico-load's JSON has changed");
    let elapsed_ns = value["elapsed_ns"].as_f64().ok_or_else(missing)?;
    let busy = value["busy_permille"].as_array().ok_or_else(missing)?;
    let mut commands = 0;
    let mut steps = Vec::new();
    for direction in ["read", "write"] {
        commands += value[direction]["commands"].as_u64().ok_or_else(missing)?;
        for step in value[direction]["histogram_ns"].as_array().ok_or_else(missing)? {
            steps.push(step[0].as_u64().zip(step[1].as_u64()).ok_or_else(missing)?);
        }
    }
    if commands == 0 {
        return Err(Failure::new("not one command came to its end"));
    }
    Ok(Outcome {
        seconds: elapsed_ns / 1e9,
        commands,
        busy: busy.iter().filter_map(Value::as_f64).fold(0.0, f64::max) / 1000.0,
        histogram: merged(steps),
    })
}

/// What all threads of a process have run so far, io_uring's workers too: the first field of each schedstat, in ns. A
/// target whose threads come and go while it is loaded would lose those that went.
pub(super) fn cpu_seconds(id: u32) -> Result<f64> {
    let start = Instant::now();
    let mut total = 0.0;
    for thread in fs::read_dir(format!("/proc/{id}/task")).context("the target's process")? {
        let path = thread?.path().join("schedstat");
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let ran_ns = text.split(' ').next().and_then(|field| field.parse::<f64>().ok());
        total += ran_ns.ok_or_else(|| Failure::new(format!("{} has changed", path.display())))?;
    }
    if start.elapsed() > READING_MAX {
        return Err(Failure::new("the machine is too busy to read a clock"));
    }
    Ok(total / 1e9)
}

const WARM_UP: Duration = Duration::from_millis(300);
pub(super) const LOAD_PATIENCE: Duration = Duration::from_secs(60);
const READING_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_taken_together() {
        let json = r#"{"elapsed_ns": 2000000000, "busy_permille": [300, 970],
            "read": {"commands": 3, "histogram_ns": [[10, 2], [30, 1]]},
            "write": {"commands": 2, "histogram_ns": [[20, 1], [30, 1]]}}"#;
        let expected =
            Outcome { seconds: 2.0, commands: 5, busy: 0.97, histogram: vec![(10, 2), (20, 1), (30, 2)] };
        assert_eq!(outcome(json).unwrap(), expected);
        assert!(outcome(&json.replace("histogram_ns", "other")).is_err());
        assert!(outcome("{}").is_err());
    }

    #[test]
    fn the_processor_time_of_this_process_grows() {
        let id = std::process::id();
        let before = cpu_seconds(id).unwrap();
        let mut sum = 0_u64;
        while cpu_seconds(id).unwrap() <= before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
