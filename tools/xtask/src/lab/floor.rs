//! The comparison servers of `bench`, as processes: `portico-floor`.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::{self, Running};
use super::target::Target;
use super::{Context, Failure, Result};
use crate::tree::Tree;

/// Which server, and what it serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// `ring`, `epoll` or `glommio`.
    pub(crate) name: &'static str,
    pub(crate) polls: bool,
    /// Reads are answered from a place of their own for each block.
    pub(crate) has_memory: bool,
    pub(crate) size_bytes: u64,
}

/// A server that runs; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Floor {
    running: Running,
    portal: SocketAddr,
}

impl Floor {
    /// Starts one on these processors, and waits until it listens.
    pub(crate) fn start(tree: &Tree, way: &Way, cores: &[usize]) -> Result<Floor> {
        let mut command = pinned(tree, cores);
        command.arg(way.name).args(["--size", &way.size_bytes.to_string()]);
        command.args(way.polls.then_some("--poll")).args(way.has_memory.then_some("--memory"));
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let said = super::target::portico::announcement(&mut running)?;
        let line = said.lines().last().unwrap_or_default().to_owned();
        let portal = line.strip_prefix("ready portal=").ok_or_else(|| Failure::new(line.clone()))?;
        Ok(Floor { running, portal: portal.trim().parse().context(&line)? })
    }

    /// Its one unit.
    pub(crate) fn url(&self) -> String {
        format!("iscsi://{}/{}/0", self.portal, Target::IQN)
    }

    /// The process, for /proc.
    pub(crate) fn process_id(&self) -> u32 {
        self.running.id()
    }
}

/// Reads or writes of a file or device by a bare ring, past the page cache: how many, in how many seconds.
pub(crate) fn measure_medium(
    tree: &Tree,
    path: &std::path::Path,
    words: &[String],
    cores: &[usize],
    time: Duration,
) -> Result<(u64, f64)> {
    let mut command = pinned(tree, cores);
    command.arg("medium").arg(path).args(words).args(["--time", &time.as_millis().to_string()]);
    let finished = process::run(&mut command, time + Duration::from_secs(30))?;
    let output = finished.expect_success("portico-floor medium")?;
    counted(&output).ok_or_else(|| Failure::new(format!("portico-floor says {output:?}")))
}

/// `count=N time_ns=N`.
fn counted(output: &str) -> Option<(u64, f64)> {
    let (count, time) = output.trim().strip_prefix("count=")?.split_once(" time_ns=")?;
    Some((count.parse().ok()?, time.parse::<f64>().ok()? / 1e9))
}

fn pinned(tree: &Tree, cores: &[usize]) -> Command {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &cores.join(",")]).arg(tree.target.join("release/portico-floor"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ring_says_is_understood() {
        assert_eq!(counted("count=1200 time_ns=2500000000\n"), Some((1200, 2.5)));
        assert_eq!(counted("count=x time_ns=1"), None);
    }
}
