//! A Ceph cluster of one monitor, one manager and one OSD, as plain processes on 127.0.0.1: `tools/lab/ceph-up` and
//! `tools/lab/ceph-down`. It needs no root. Its daemons are ended by their pids, with all of their data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Context, Failure, Result, process};
use crate::tree::Tree;

/// A cluster that runs. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Cluster {
    scripts: PathBuf,
    folder: TempDir,
}

/// A daemon of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// The monitor.
    Monitor,
    /// The OSD.
    Osd,
}

impl Cluster {
    /// Starts one, in a folder of its own.
    pub(crate) fn start(tree: &Tree) -> Result<Cluster> {
        // Its Unix sockets lie there, whose names are short.
        let folder = tempfile::Builder::new().prefix("portico-ceph-").tempdir()?;
        let cluster = Cluster { scripts: tree.root.join("tools/lab"), folder };
        let mut command = Command::new(cluster.scripts.join("ceph-up"));
        command.arg(cluster.folder());
        process::run(&mut command, START_LIMIT)?.expect_success("ceph-up")?;
        Ok(cluster)
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// Ceph's configuration file, for clients.
    pub(crate) fn conf(&self) -> PathBuf {
        self.folder().join("ceph.conf")
    }

    /// `rbd WORDS`; what it prints.
    pub(crate) fn rbd(&self, words: &[&str]) -> Result<String> {
        self.run("rbd", words)
    }

    /// `ceph WORDS`; what it prints.
    pub(crate) fn ceph(&self, words: &[&str]) -> Result<String> {
        self.run("ceph", words)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.env("CEPH_CONF", self.conf()).args(words);
        process::run(&mut command, COMMAND_LIMIT)?.expect_success(&format!("{program} {}", words.join(" ")))
    }

    /// The image's bytes, as `rbd export` has them.
    pub(crate) fn export(&self, image: &str) -> Result<Vec<u8>> {
        let path = self.folder.path().join("export.img");
        let _ = fs::remove_file(&path);
        self.rbd(&["export", "--no-progress", image, &path.to_string_lossy()])?;
        fs::read(&path).context(path.display())
    }

    /// The address of the client that has the image open for writing.
    pub(crate) fn watcher(&self, image: &str) -> Result<String> {
        let status = self.rbd(&["status", image])?;
        let found = status.split_whitespace().find_map(|word| word.strip_prefix("watcher="));
        found.map(str::to_owned).ok_or_else(|| Failure::new(format!("nobody watches {image}: {status}")))
    }

    /// Stops a daemon where it stands, as a machine that hangs.
    pub(crate) fn suspend(&self, daemon: Daemon) -> Result<Suspended<'_>> {
        self.signal(daemon, Signal::STOP)?;
        Ok(Suspended { cluster: self, daemon })
    }

    fn signal(&self, daemon: Daemon, signal: Signal) -> Result<()> {
        let name = match daemon {
            Daemon::Monitor => "mon.a",
            Daemon::Osd => "osd.0",
        };
        let pids = self.folder().join("pids");
        let text = fs::read_to_string(&pids).context(pids.display())?;
        let pid = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let pid =
            pid.and_then(Pid::from_raw).ok_or_else(|| Failure::new(format!("no {name} in {text:?}")))?;
        kill_process(pid, signal).context(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not by `process::run`, which refuses once we were told to stop.
        let mut command = Command::new(self.scripts.join("ceph-down"));
        if !command.arg(self.folder()).status().is_ok_and(|status| status.success()) {
            eprintln!("xtask: ceph-down {} failed", Path::new(&self.folder()).display());
        }
    }
}

/// A daemon that stands still. Dropped, it goes on.
#[derive(Debug)]
pub(crate) struct Suspended<'a> {
    cluster: &'a Cluster,
    daemon: Daemon,
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        if let Err(failure) = self.cluster.signal(self.daemon, Signal::CONT) {
            eprintln!("xtask: {failure}");
        }
    }
}

const START_LIMIT: Duration = Duration::from_secs(90);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
