//! The load whose rate and latency are measured, and others that run beside it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::Bench;
use crate::bench::measure::{LOAD_PATIENCE, Outcome, cpu_seconds, outcome};
use crate::bench::sample::{percentile, real};
use crate::lab::gateway::{Gateway, IQN};
use crate::lab::process::{self, Running};
use crate::lab::{Context, Failure, Result, has_program, is_root};

/// What one measurement came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) iops: f64,
    /// Of the gateway's whole process, for each command of the load.
    pub(super) cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p99_9_us: f64,
}

impl Figures {
    fn of(outcome: &Outcome, cpu_seconds: f64) -> Result<Figures> {
        let at = |share| {
            let time_ns = percentile(&outcome.histogram, share);
            time_ns.map(|ns| real(ns) / 1e3).ok_or_else(|| Failure::new("a load without latencies"))
        };
        Ok(Figures {
            iops: real(outcome.commands) / outcome.seconds,
            cpu_us: cpu_seconds * 1e6 / real(outcome.commands),
            p50_us: at(0.5)?,
            p99_us: at(0.99)?,
            p99_9_us: at(0.999)?,
        })
    }
}

/// A load that runs beside.
pub(super) struct Background {
    running: Running,
    json: NamedTempFile,
    time: Duration,
}

impl Background {
    /// Waits for its end; bytes per second.
    pub(super) fn end(mut self) -> Result<f64> {
        match self.running.wait(self.time + LOAD_PATIENCE)? {
            Some(status) if status.success() => {}
            status => return Err(Failure::new(format!("the load beside ended with {status:?}"))),
        }
        let text = fs::read_to_string(self.json.path()).context("portico-load's JSON")?;
        let outcome = outcome(&text)?;
        Ok(real(outcome.commands) / outcome.seconds)
    }
}

impl Bench<'_> {
    /// Measures the load that `words` describe at a LUN of the gateway, after a short warm-up.
    pub(super) fn measure(&self, gateway: &mut Gateway, lun: u8, words: &[&str]) -> Result<Figures> {
        self.run(gateway, lun, words, WARM_UP)?;
        let before = cpu_seconds(gateway.process_id()?)?;
        let outcome = self.run(gateway, lun, words, self.time)?;
        Figures::of(&outcome, cpu_seconds(gateway.process_id()?)? - before)
    }

    /// Runs a load to its end.
    pub(super) fn run(&self, gateway: &Gateway, lun: u8, words: &[&str], time: Duration) -> Result<Outcome> {
        let json = NamedTempFile::new()?;
        let mut command = self.load(gateway, lun, words, time, has_priority());
        let finished = process::run(command.arg("--json").arg(json.path()), time + LOAD_PATIENCE)?;
        finished.expect_success("portico-load")?;
        outcome(&fs::read_to_string(json.path()).context("portico-load's JSON")?)
    }

    /// Begins a load that the measured ones come before.
    pub(super) fn begin(
        &self,
        gateway: &Gateway,
        lun: u8,
        words: &[&str],
        time: Duration,
    ) -> Result<Background> {
        let json = NamedTempFile::new()?;
        let mut command = self.load(gateway, lun, words, time, false);
        let running = Running::start(command.arg("--json").arg(json.path()))?;
        Ok(Background { running, json, time })
    }

    /// Writes a unit once, so that no page of it is made while it is measured.
    pub(super) fn fill(&self, gateway: &Gateway, lun: u8, size_bytes: u64) -> Result<()> {
        let count = (size_bytes >> 20).to_string();
        let words = ["--rw", "write", "--bs", "1m", "--depth", "8", "--count", &count];
        self.run(gateway, lun, &words, LOAD_PATIENCE).map(drop)
    }

    fn load(
        &self,
        gateway: &Gateway,
        lun: u8,
        words: &[&str],
        time: Duration,
        has_priority: bool,
    ) -> Command {
        let program = self.tree.target.join("release/portico-load");
        let mut command = if has_priority { Command::new("chrt") } else { Command::new(&program) };
        if has_priority {
            command.args(["--fifo", "10"]).arg(&program);
        }
        let url = format!("iscsi://{}/{IQN}/{lun}", gateway.portal());
        command.args(["--target", &url, "--quiet", "--cores", GENERATOR_CORE]).args(words);
        command.args(["--time", &format!("{}ms", time.as_millis())]);
        command
    }
}

/// Whether the measured load may come before all others on its processor.
pub(super) fn has_priority() -> bool {
    is_root() && has_program("chrt")
}

const GENERATOR_CORE: &str = "1";
const WARM_UP: Duration = Duration::from_millis(300);
