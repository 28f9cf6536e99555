//! A target under test: the gateway or one of its peers, as a process of its own with logical units that the
//! harness made.
//!
//! Every harness speaks to a [`Target`] and does not know which peer is behind it, so the same tests that judge the
//! gateway are proven against tgt. The data lies in a temporary folder, which goes when the target goes.

pub(in crate::lab) mod portico;
mod tgt;

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use super::ceph::Cluster;
use super::loop_device::LoopDevice;
use super::namespace::Namespace;
use super::process::{self, Running};
use super::wiretap::{self, Listening};
use super::xfs::Xfs;
use super::{Context, Failure, Result, http};
use crate::tree::Tree;

/// Whose target it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Ours.
    Portico,
    /// Debian's tgt 1.0.85; needs root.
    Tgt,
}

/// What a logical unit keeps its data on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A sparse file.
    File,
    /// Memory; forgotten when the target ends.
    Ram,
    /// A loop device; needs root.
    Loop,
    /// Nothing: what is written is forgotten, what is read is zeros. For measurements.
    Null,
    /// An image of a Ceph cluster that is started for it.
    Rbd,
    /// A file below a unit that is fully provisioned.
    Thick,
    /// A file below a unit whose medium can be ejected.
    Removable,
    /// A file below a unit that cannot be written.
    ReadOnly,
    /// A file past the page cache that the kernel writes untorn.
    Untorn,
}

impl Peer {
    /// The name that command lines and data files use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Portico => "portico",
            Peer::Tgt => "tgt",
        }
    }

    /// Why this machine cannot run it, if so.
    pub(crate) fn obstacle(self) -> Option<&'static str> {
        match self {
            Peer::Portico => None,
            Peer::Tgt if !super::is_root() => Some("tgtd needs root"),
            Peer::Tgt if !super::has_program("tgtd") => Some("tgtd is not installed (Debian package tgt)"),
            Peer::Tgt => None,
        }
    }
}

impl Kind {
    /// All that keep data by themselves, in the order in which the harnesses go through them.
    pub(crate) const ALL: [Kind; 3] = [Kind::File, Kind::Ram, Kind::Loop];

    /// The name that command lines and data files use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Ram => "ram",
            Kind::Loop => "loop",
            Kind::Null => "null",
            Kind::Rbd => "rbd",
            Kind::Thick => "thick",
            Kind::Removable => "removable",
            Kind::ReadOnly => "read-only",
            Kind::Untorn => "untorn",
        }
    }

    /// What the names of the tests of libiscsi's suite begin with that make sense on it.
    pub(crate) fn tests(self) -> &'static str {
        match self {
            Kind::ReadOnly => "ALL.ReadOnly.",
            Kind::Untorn => "ALL.WriteAtomic16.",
            _ => "ALL.",
        }
    }

    /// Whether its data is there again after a restart of the target.
    pub(crate) fn outlives_the_target(self) -> bool {
        !matches!(self, Kind::Ram | Kind::Null)
    }

    /// Whether setting it up is root's alone.
    pub(crate) fn needs_root(self) -> bool {
        matches!(self, Kind::Loop | Kind::Untorn)
    }
}

/// The medium of one logical unit.
#[derive(Debug)]
enum Medium {
    /// What the gateway makes itself when it has no configuration.
    Embedded,
    Ram {
        size_bytes: u64,
    },
    File(PathBuf),
    /// A file, and attributes of the gateway's DEVICE.
    Attributed(PathBuf, &'static str),
    /// A file in a file system of its own, past the page cache.
    Untorn(Xfs),
    Loop(LoopDevice),
    Null {
        size_bytes: u64,
    },
    Rbd(Images),
}

/// Images of the pool `rbd`; each is a LUN, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    /// Several targets may be at one cluster.
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) names: Vec<String>,
}

/// A target that runs, with one logical unit. The order of the fields is the order in which they go: the process
/// before the loop device that it holds open, that before the file below it, a cluster before its namespace.
#[derive(Debug)]
pub(crate) struct Target {
    peer: Peer,
    tree: Tree,
    running: Option<Running>,
    /// Who listens to it, if anybody.
    listening: Option<Listening>,
    portal: SocketAddr,
    metrics: Option<SocketAddr>,
    announcement: String,
    medium: Medium,
    place: Place,
    tuning: Tuning,
    folder: TempDir,
}

/// How a target is set up for a measurement or a conformance run; the default is as it comes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tuning {
    /// The processors that it may use; none are all.
    pub(crate) cores: Vec<usize>,
    /// The gateway's window of commands; tgt has 128 anyway.
    pub(crate) queued_commands: Option<u32>,
    /// Files and devices past the page cache, their blocks written before.
    pub(crate) is_direct: bool,
    /// How long the gateway looks for work before it sleeps.
    pub(crate) poll_us: u32,
    /// The gateway records no latencies.
    pub(crate) has_no_histograms: bool,
    /// The gateway has another TARGET with the same logical units.
    pub(crate) has_two_targets: bool,
}

/// Where a target listens.
#[derive(Debug)]
pub(crate) enum Place {
    /// On 127.0.0.1.
    Loopback,
    /// In a namespace, on its address that a guest reaches.
    Inside(Namespace),
}

impl Place {
    fn address(&self) -> IpAddr {
        match self {
            Place::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Place::Inside(_) => Namespace::HOST,
        }
    }

    fn namespace(&self) -> Option<&Namespace> {
        match self {
            Place::Loopback => None,
            Place::Inside(namespace) => Some(namespace),
        }
    }

    fn command(&self, program: &Path) -> Command {
        match self {
            Place::Loopback => Command::new(program),
            Place::Inside(namespace) => namespace.command(&program.to_string_lossy()),
        }
    }

    /// As [`Place::command`], on these processors where any are named.
    fn command_on(&self, cores: &[usize], program: &Path) -> Command {
        if cores.is_empty() {
            return self.command(program);
        }
        let mut command = self.command(Path::new("taskset"));
        command.args(["--cpu-list", &list(cores)]).arg(program);
        command
    }
}

/// As command lines take them.
fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

impl Target {
    /// The name of a target that is configured, the same for every peer.
    pub(crate) const IQN: &str = "iqn.2026-11.test:unit";
    /// Of the gateway's second one, where it has two.
    const SECOND_IQN: &str = "iqn.2026-11.test:other-path";
    /// The image of a [`Kind::Rbd`], in the pool `rbd`.
    pub(crate) const IMAGE: &str = "unit";

    /// Starts `peer` with one logical unit of `size_bytes` on a fresh medium, and waits until it is ready.
    pub(crate) fn start(
        tree: &Tree,
        peer: Peer,
        kind: Kind,
        size_bytes: u64,
        place: Place,
    ) -> Result<Target> {
        Target::start_on(tree, peer, kind, size_bytes, place, Tuning::default())
    }

    /// As [`Target::start`], on loopback, set up like this.
    pub(crate) fn start_tuned(
        tree: &Tree,
        peer: Peer,
        kind: Kind,
        size_bytes: u64,
        tuning: Tuning,
    ) -> Result<Target> {
        Target::start_on(tree, peer, kind, size_bytes, Place::Loopback, tuning)
    }

    fn start_on(
        tree: &Tree,
        peer: Peer,
        kind: Kind,
        size_bytes: u64,
        place: Place,
        tuning: Tuning,
    ) -> Result<Target> {
        let parent = match kind {
            Kind::Ram => PathBuf::from("/dev/shm"),
            _ => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new().prefix("portico-lab-").tempdir_in(parent)?;
        let medium = match kind {
            Kind::Rbd => Medium::Rbd(Images::make(tree, &place, size_bytes)?),
            _ => Medium::make(kind, size_bytes, folder.path(), tuning.is_direct)?,
        };
        Target::over(tree, peer, medium, place, tuning, folder)
    }

    /// Starts `peer` with these images, on loopback, for a measurement.
    pub(crate) fn start_images(tree: &Tree, peer: Peer, images: Images) -> Result<Target> {
        let folder = tempfile::Builder::new().prefix("portico-lab-").tempdir()?;
        Target::over(tree, peer, Medium::Rbd(images), Place::Loopback, Tuning::default(), folder)
    }

    /// Starts the gateway without a configuration.
    pub(crate) fn start_embedded(tree: &Tree, place: Place) -> Result<Target> {
        let folder = tempfile::Builder::new().prefix("portico-lab-").tempdir()?;
        Target::over(tree, Peer::Portico, Medium::Embedded, place, Tuning::default(), folder)
    }

    fn over(
        tree: &Tree,
        peer: Peer,
        medium: Medium,
        place: Place,
        tuning: Tuning,
        folder: TempDir,
    ) -> Result<Target> {
        let portal = SocketAddr::new(place.address(), 0);
        let tree = tree.clone();
        let announcement = String::new();
        let mut target = Target {
            peer,
            tree,
            running: None,
            listening: None,
            portal,
            metrics: None,
            announcement,
            medium,
            place,
            tuning,
            folder,
        };
        target.resume()?;
        Ok(target)
    }

    /// Starts the process again after [`Target::stop`] or a crash, over the same medium.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.running = None;
        self.listening = None;
        let started = match self.peer {
            Peer::Portico => portico::start(self)?,
            Peer::Tgt => tgt::start(self)?,
        };
        self.running = Some(started.running);
        self.listening = wiretap::listen(self.place.namespace(), &[started.portal.port()])?;
        self.portal = started.portal;
        self.metrics = started.metrics;
        self.announcement = started.announcement;
        self.wait_for_images()
    }

    /// A gateway is ready before its images are open.
    fn wait_for_images(&mut self) -> Result<()> {
        let Medium::Rbd(images) = &self.medium else { return Ok(()) };
        let start = Instant::now();
        for place in (0..).take(images.names.len()) {
            let mut command = self.place.command(Path::new("iscsi-readcapacity16"));
            command.arg(self.url_of(place));
            while !process::run(&mut command, ANSWER_LIMIT)?.succeeded() {
                if start.elapsed() > READY_LIMIT {
                    return Err(Failure::new(format!("its images are not ready{}", self.log())));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Ends the process as an administrator would. The gateway has to end by itself with status 0; tgtd knows
    /// SIGKILL only.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        if self.peer == Peer::Tgt {
            return running.kill();
        }
        let status = running.terminate(STOP_LIMIT)?;
        self.listening = None;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                Err(Failure::new(format!("after SIGTERM the gateway ended with {status}{}", self.log())))
            }
            None => Err(Failure::new(format!(
                "the gateway still ran {} s after SIGTERM{}",
                STOP_LIMIT.as_secs(),
                self.log()
            ))),
        }
    }

    /// Between two tests, while no initiator is connected: what is listened to goes on in another capture if this one is long.
    pub(crate) fn listen_anew(&mut self) -> Result<()> {
        if self.listening.as_ref().is_some_and(Listening::is_long) {
            self.listening = None;
            self.listening = wiretap::listen(self.place.namespace(), &[self.portal.port()])?;
        }
        Ok(())
    }

    /// The target's name.
    pub(crate) fn iqn(&self) -> &'static str {
        match self.medium {
            Medium::Embedded => "iqn.2026-11.io.portico:default",
            _ => Target::IQN,
        }
    }

    /// Where initiators find it.
    pub(crate) fn portal(&self) -> SocketAddr {
        self.portal
    }

    /// The namespace it runs in, if it does.
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.place.namespace()
    }

    /// The number of the logical unit: tgt keeps LUN 0 for its controller.
    pub(crate) fn lun(&self) -> u32 {
        match self.peer {
            Peer::Portico => 0,
            Peer::Tgt => 1,
        }
    }

    /// The logical unit as libiscsi and QEMU write it.
    pub(crate) fn url(&self) -> String {
        self.url_of(0)
    }

    /// The logical unit by the gateway's second target; by the same one of a peer.
    pub(crate) fn second_url(&self) -> String {
        let iqn = if self.peer == Peer::Portico { Target::SECOND_IQN } else { self.iqn() };
        format!("iscsi://{}/{iqn}/{}", self.portal, self.lun())
    }

    /// The logical unit of the image of that place.
    pub(crate) fn url_of(&self, place: u32) -> String {
        format!("iscsi://{}/{}/{}", self.portal, self.iqn(), self.lun() + place)
    }

    /// The cluster that its image is of, if it is one.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        if let Medium::Rbd(images) = &self.medium { Some(&images.cluster) } else { None }
    }

    /// The commands by which it says that one connects: who understands them, and their words.
    pub(crate) fn commands(&self) -> Vec<(String, Vec<String>)> {
        commands(&self.announcement)
    }

    /// Where the metrics page is, if the peer has one that is in reach.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The process, for /proc.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.running.as_ref().map(Running::id)
    }

    /// The metrics page, where the peer has one.
    pub(crate) fn metrics(&self) -> Option<Result<String>> {
        self.metrics.map(|address| http::get(address, "/metrics"))
    }

    /// `Err` unless the process is there and answers an initiator that asks for the unit's INQUIRY data.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let log = self.log();
        let running = self.running.as_mut().ok_or_else(|| Failure::new("the target is not running"))?;
        if let Some(status) = running.ended()? {
            return Err(Failure::new(format!("the target died with {status}{log}")));
        }
        let mut command = self.place.command(Path::new("iscsi-inq"));
        let finished = process::run(command.arg(self.url()), ANSWER_LIMIT)?;
        finished.expect_success("the target does not answer INQUIRY").map(drop)
    }

    /// The end of what the process wrote, to be put behind a failure's sentence.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        match lines.len() {
            0 => String::new(),
            count => format!("; its last words:\n{}", lines[count.saturating_sub(LOG_LINES)..].join("\n")),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("target.log")
    }
}

/// The lines between `connect with` and the last one. One that names nobody goes on with the one above it.
fn commands(announcement: &str) -> Vec<(String, Vec<String>)> {
    let lines = announcement.lines().skip_while(|line| *line != "connect with").skip(1);
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines.take_while(|line| line.starts_with(' ')) {
        let (name, words) = line.split_at(line.len().min(NAME_COLUMNS));
        let name = match (name.trim(), commands.last()) {
            ("", Some((above, _))) => above.clone(),
            (name, _) => name.to_owned(),
        };
        commands.push((name, words.split_whitespace().map(str::to_owned).collect()));
    }
    commands
}

impl Medium {
    fn make(kind: Kind, size_bytes: u64, folder: &Path, is_filled: bool) -> Result<Medium> {
        match kind {
            Kind::Ram => return Ok(Medium::Ram { size_bytes }),
            Kind::Null => return Ok(Medium::Null { size_bytes }),
            Kind::File | Kind::Loop | Kind::Thick | Kind::Removable | Kind::ReadOnly => {}
            Kind::Rbd => return Err(Failure::new("an image needs a cluster")),
            Kind::Untorn => {
                let xfs = Xfs::mount(folder)?;
                let path = xfs.folder().join(UNTORN_FILE);
                File::create(&path).and_then(|file| file.set_len(size_bytes)).context(path.display())?;
                return Ok(Medium::Untorn(xfs));
            }
        }
        let path = folder.join("medium.img");
        File::create(&path).and_then(|file| file.set_len(size_bytes)).context(path.display())?;
        if is_filled {
            fill(&path, size_bytes)?;
        }
        match kind {
            Kind::Loop => Ok(Medium::Loop(LoopDevice::attach(&path)?)),
            Kind::Thick => Ok(Medium::Attributed(path, "thin_provisioned 0")),
            Kind::Removable => Ok(Medium::Attributed(path, "thin_provisioned 1\n\t\tremovable 1")),
            Kind::ReadOnly => Ok(Medium::Attributed(path, "thin_provisioned 1\n\t\tread_only 1")),
            _ => Ok(Medium::File(path)),
        }
    }
}

impl Images {
    /// A cluster where the target's place is, with one image of this size.
    fn make(tree: &Tree, place: &Place, size_bytes: u64) -> Result<Images> {
        let cluster = match place {
            Place::Loopback => Cluster::start(tree)?,
            Place::Inside(namespace) => Cluster::start_inside(tree, namespace)?,
        };
        cluster.rbd(&["create", "--size", &format!("{}M", size_bytes >> 20), Target::IMAGE])?;
        Ok(Images { cluster: Arc::new(cluster), names: vec![Target::IMAGE.to_owned()] })
    }
}

/// Writes the whole file, and has the page cache forget it: what is read past the cache is on the disk, and no hole.
pub(crate) fn fill(path: &Path, size_bytes: u64) -> Result<()> {
    let mut file = File::create(path).context(path.display())?;
    let chunk = vec![0x5a; 1 << 20];
    let mut left = size_bytes;
    while left > 0 {
        let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&chunk[..length]).context(path.display())?;
        left -= u64::try_from(length).expect("64 bits");
    }
    file.sync_all().context(path.display())?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).context(path.display())
}

/// The file of [`Kind::Untorn`] in its file system.
const UNTORN_FILE: &str = "medium.img";

/// What a peer's start gives.
struct Started {
    running: Running,
    portal: SocketAddr,
    metrics: Option<SocketAddr>,
    /// What it said on standard output until it was ready.
    announcement: String,
}

/// How long the gateway may take to finish what is in flight and to flush.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a peer may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const LOG_LINES: usize = 20;
/// The width of the names before the commands of [`commands`].
const NAME_COLUMNS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_an_announcement_are_those_that_it_indents() {
        let said =
            "data in /d\nconnect with\n  Linux     a -p 1\n            b -l\n  libiscsi  c\nready portal=x\n";
        let command = |name: &str, words: &[&str]| {
            (name.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        let expected = [
            command("Linux", &["a", "-p", "1"]),
            command("Linux", &["b", "-l"]),
            command("libiscsi", &["c"]),
        ];
        assert_eq!(commands(said), expected);
        assert!(commands("ready portal=x\n").is_empty());
    }
}
