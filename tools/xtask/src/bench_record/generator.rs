//! `iscsi-perf`, one process for each session, and what it says of its rate.
//!
//! It writes a line each second that ends in a carriage return, with the reads of that second. A window of time is the
//! mean of the lines that fell into it, times its length.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::process::Running;
use crate::lab::{Failure, Result, halt};

/// Generators at work. They end when they are dropped.
pub(super) struct Generators {
    running: Vec<Running>,
    rates: Vec<Receiver<f64>>,
}

impl Generators {
    /// Starts one for each session, all on one processor: reads of 4 KiB, anywhere, `depth` at a time.
    pub(super) fn start(url: &str, sessions: usize, core: usize, depth: u32) -> Result<Generators> {
        let mut generators = Generators { running: Vec::new(), rates: Vec::new() };
        for session in 0..sessions {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string(), "stdbuf", "-o0", "iscsi-perf"]);
            command.args(["-i", &format!("iqn.2026-11.test:perf-{session}")]);
            command.args(["-m", &depth.to_string(), "-b", "8", "-r", url]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut running = Running::start(&mut command)?;
            let stdout = running.stdout().ok_or_else(|| Failure::new("its output is not ours"))?;
            let (sender, receiver) = sync_channel(RATES_MAX);
            thread::spawn(move || follow(stdout, &sender));
            generators.running.push(running);
            generators.rates.push(receiver);
        }
        Ok(generators)
    }

    /// Lets them run, and says how many reads they did.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<f64> {
        for rates in &self.rates {
            while rates.try_recv().is_ok() {}
        }
        let start = Instant::now();
        while start.elapsed() < time {
            halt::go_on()?;
            thread::sleep(Duration::from_millis(5).min(time.saturating_sub(start.elapsed())));
        }
        let seconds = start.elapsed().as_secs_f64();
        for running in &mut self.running {
            if let Some(status) = running.ended()? {
                return Err(Failure::new(format!("iscsi-perf ended with {status}")));
            }
        }
        let mut reads = 0.0;
        for rates in &self.rates {
            let told: Vec<f64> = rates.try_iter().collect();
            if told.is_empty() {
                return Err(Failure::new("iscsi-perf does not tell its rate"));
            }
            let count = u32::try_from(told.len()).expect("one a second");
            reads += told.iter().sum::<f64>() / f64::from(count) * seconds;
        }
        Ok(reads)
    }
}

/// Reads lines to the end, and passes on the rate of each.
fn follow(mut stdout: impl Read, rates: &std::sync::mpsc::SyncSender<f64>) {
    let mut pending = String::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stdout.read(&mut bytes) {
        pending.push_str(&String::from_utf8_lossy(&bytes[..count]));
        // A line is whole when the next begins, or its last word is there.
        while let Some(end) = pending.find("busy") {
            let line: String = pending.drain(..end + "busy".len()).collect();
            if let Some(rate) = rate(&line)
                && rates.try_send(rate).is_err()
            {
                return;
            }
        }
    }
}

/// `… iops current 78017 (304 MB/s), …`.
fn rate(line: &str) -> Option<f64> {
    line.split_once("iops current ")?.1.split(' ').next()?.parse().ok()
}

/// More lines than the longest window has seconds.
const RATES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_each_line_is_passed_on_however_the_output_is_cut() {
        let line = |rate: u32| {
            format!(
                "\r00:00:01 - lba 7, iops current {rate} (3 MB/s), iops average 1 (2 MB/s), in_flight 32, busy 0   "
            )
        };
        let (sender, receiver) = sync_channel(8);
        let text = format!("FIXED transfer size of 8 blocks\n{}{}", line(100), line(250));
        let (first, second) = text.as_bytes().split_at(70);
        follow(first.chain(second), &sender);
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [100.0, 250.0]);
    }
}
