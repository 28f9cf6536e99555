//! A Ceph cluster of one monitor, one manager and one OSD, as plain processes on 127.0.0.1: `tools/lab/ceph-up` and
//! `tools/lab/ceph-down`. It needs no root. Its daemons are ended by their pids, with all of their data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::namespace::Namespace;
use super::process::Running;
use super::target::portico::announcement;
use super::{Context, Failure, Result, process};
use crate::tree::Tree;

/// A cluster that runs. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Cluster {
    scripts: PathBuf,
    folder: TempDir,
    /// The namespace that it runs in, if not in ours.
    namespace: Option<String>,
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
        Cluster::start_in(tree, None)
    }

    /// Starts one on the loopback of a namespace.
    pub(crate) fn start_inside(tree: &Tree, namespace: &Namespace) -> Result<Cluster> {
        Cluster::start_in(tree, Some(namespace.name().to_owned()))
    }

    fn start_in(tree: &Tree, namespace: Option<String>) -> Result<Cluster> {
        // Its Unix sockets lie there, whose names are short.
        let folder = tempfile::Builder::new().prefix("portico-ceph-").tempdir()?;
        let cluster = Cluster { scripts: tree.root.join("tools/lab"), folder, namespace };
        let mut command = cluster.command(&cluster.scripts.join("ceph-up"));
        command.arg(cluster.folder());
        process::run(&mut command, START_LIMIT)?.expect_success("ceph-up")?;
        Ok(cluster)
    }

    /// A command where the cluster runs.
    fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// Ceph's configuration file, for clients.
    pub(crate) fn conf(&self) -> PathBuf {
        self.folder().join("ceph.conf")
    }

    /// The same for clients that know no better: librbd's cache is off, as it is under the gateway.
    pub(crate) fn client_conf(&self) -> Result<PathBuf> {
        let path = self.folder().join("client.conf");
        let text = fs::read_to_string(self.conf()).context(self.conf().display())?;
        fs::write(&path, text + "\n[client]\nrbd_cache = false\n").context(path.display())?;
        Ok(path)
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
        let mut command = self.command(Path::new(program));
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

    /// Takes the image's exclusive lock away from whoever has it, and keeps it until the process is ended.
    pub(crate) fn hold_lock(&self, image: &str) -> Result<Running> {
        // Not the first python3 of the path, which may be one without Ceph's modules.
        let mut command = self.command(Path::new("/usr/bin/python3"));
        command.arg(self.scripts.join("rbd-lock-holder")).arg(self.conf()).arg(image);
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        announcement(&mut running)?;
        Ok(running)
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
