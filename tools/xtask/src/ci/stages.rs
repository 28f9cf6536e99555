//! The stages, in the order in which they run: the cheap ones first.

use std::time::Duration;

use super::{Site, Tally, build_release, count, packages};
use crate::conformance::{Suite, Urls};
use crate::lab::reader::Whom;
use crate::lab::target::{Kind, Peer};
use crate::lab::xfs::Xfs;
use crate::lab::{Result, has_program, is_root};
use crate::{
    access, allocations, bad_input, capture, ceph, cluster, conformance, durability, fuzz, guest, images,
    instructions, linear, linux, peers, power, reload, sessions, tidy,
};

/// One stage.
pub(super) struct Stage {
    /// What `--only` calls it.
    pub(super) name: &'static str,
    /// What it does, for `--list`.
    pub(super) what: &'static str,
    /// The time after which what it runs is killed.
    pub(super) limit: Duration,
    /// Why it is root's alone, if it is.
    needs_root: Option<&'static str>,
    /// Programs that it runs, each with its Debian package.
    programs: &'static [(&'static str, &'static str)],
    pub(super) run: fn(&mut Site) -> Result<Tally>,
}

impl Stage {
    /// Why this stage has to be left out here, if so.
    pub(super) fn obstacle(&self) -> Option<String> {
        if let Some(reason) = self.needs_root.filter(|_| !is_root()) {
            return Some(format!("needs root {reason}"));
        }
        self.missing().filter(|_| !is_ci())
    }

    /// The program that is not here, where that is a failure.
    pub(super) fn missing_program(&self) -> Option<String> {
        self.missing().filter(|_| is_ci())
    }

    fn missing(&self) -> Option<String> {
        let reader = || missing(TSHARK).filter(|_| self.is_read() && is_root() && is_ci());
        missing(self.programs).or_else(reader)
    }

    fn is_read(&self) -> bool {
        READ.iter().any(|(name, ..)| *name == self.name)
    }

    /// Whether somebody is to read what this stage's initiators and gateways say to each other.
    pub(super) fn reader(&self) -> Reader {
        let Some((_, whom, limit)) = READ.iter().find(|(name, ..)| *name == self.name) else {
            return Reader::None;
        };
        if !is_root() {
            return Reader::Missing("needs root to capture".to_owned());
        }
        missing(TSHARK).map_or(Reader::Of(*whom, *limit), Reader::Missing)
    }
}

/// Who reads what is said in a stage.
pub(super) enum Reader {
    /// Nothing is said, or the stage has its own.
    None,
    /// Nobody, and why not.
    Missing(String),
    /// tshark, which has to find nothing wrong with what these say, and for how many MiB.
    Of(Whom, u64),
}

fn missing(programs: &[(&str, &str)]) -> Option<String> {
    let (program, package) = programs.iter().find(|(program, _)| !has_program(program))?;
    Some(format!("{program} is not installed (Debian package {package})"))
}

/// The stages in which initiators meet a gateway over a network, whose words have to be right there, and how many MiB are
/// listened to at most after each start of a gateway. Nobody asks it of the suite, which sends parameter lists that are too
/// short on purpose; and where a link is cut, a segment that was lost comes twice. In `cluster` and `power` both are in the
/// guest, in `capture` more is asked.
const READ: &[(&str, Whom, u64)] = &[
    ("images", Whom::Both, PART),
    ("access", Whom::Both, WHOLE),
    ("sessions", Whom::Both, PART),
    ("durability", Whom::Both, PART / 8),
    ("reload", Whom::Both, WHOLE),
    ("conformance-file", Whom::Target, WHOLE),
    ("conformance-ram", Whom::Target, PART),
    ("conformance-loop", Whom::Target, PART),
    ("conformance-kinds", Whom::Target, PART),
    ("linux", Whom::Target, WHOLE),
];
/// More than is said in them (for a run of the suite see `Target::listen_anew`).
const WHOLE: u64 = 2000;
/// Of a load, and of what is said once more of another medium, the beginning.
const PART: u64 = 64;

/// All stages.
pub(super) const STAGES: &[Stage] = &[
    Stage {
        name: "packages",
        what: "install the missing ones of tools/packages.txt",
        limit: minutes(10),
        needs_root: Some("to install Debian packages"),
        programs: &[],
        run: |site| packages::install(site).map(|()| Tally::default()),
    },
    Stage {
        name: "fmt",
        what: "cargo fmt --check",
        limit: minutes(2),
        needs_root: None,
        programs: &[],
        run: |site| {
            let mut command = site.cargo("fmt", &["--all", "--check", "--", "--color", "never"]);
            site.run(&mut command).map(Tally::one)
        },
    },
    Stage {
        name: "tidy",
        what: "the rules of the house",
        limit: minutes(2),
        needs_root: None,
        programs: &[],
        run: run_tidy,
    },
    Stage {
        name: "clippy",
        what: "cargo clippy, warnings denied",
        limit: minutes(15),
        needs_root: None,
        programs: &[],
        run: |site| {
            let mut command = site.cargo("clippy", &["--locked", "--workspace", "--all-targets", "--quiet"]);
            site.run(command.args(["--", "-D", "warnings"])).map(Tally::one)
        },
    },
    Stage {
        name: "test",
        what: "cargo test of the workspace",
        limit: minutes(20),
        needs_root: None,
        programs: &[],
        run: run_tests,
    },
    Stage {
        name: "build",
        what: "the gateway and its tools, as users build them",
        limit: minutes(15),
        needs_root: None,
        programs: &[],
        run: |site| {
            let mut command = site.cargo("build", &["--locked", "--release", "--workspace", "--quiet"]);
            site.run(&mut command).map(Tally::one)
        },
    },
    Stage {
        name: "peers",
        what: "what the start tells one to type, real I/O, and its figures",
        limit: minutes(10),
        needs_root: None,
        programs: &[LIBISCSI, ("dpkg-deb", "dpkg")],
        run: run_peers,
    },
    Stage {
        name: "images",
        what: "disk images through QEMU to every kind of unit and back",
        limit: minutes(10),
        needs_root: None,
        programs: &[("dpkg-deb", "dpkg"), ("mkfs.ext4", "e2fsprogs"), ("sfdisk", "fdisk")],
        run: run_images,
    },
    Stage {
        name: "access",
        what: "CHAP, access lists and redirection, with libiscsi and QEMU",
        limit: minutes(5),
        needs_root: None,
        programs: &[LIBISCSI, ("dpkg-deb", "dpkg")],
        run: run_access,
    },
    Stage {
        name: "bad-input",
        what: "broken and hostile peers, which nobody else notices",
        limit: minutes(5),
        needs_root: None,
        programs: &[],
        run: run_bad_input,
    },
    Stage {
        name: "fuzz",
        what: "each fuzzer for 30 s, from the corpus on",
        limit: minutes(5),
        needs_root: None,
        programs: &[],
        run: run_fuzz,
    },
    Stage {
        name: "capture",
        what: "tshark reads what initiators and the gateway say",
        limit: minutes(5),
        needs_root: Some("to capture on loopback"),
        programs: &[("tshark", "tshark"), ("dumpcap", "tshark"), LIBISCSI, ("dpkg-deb", "dpkg")],
        run: run_capture,
    },
    Stage {
        name: "allocations",
        what: "100,000 reads and writes without an allocation or a copy",
        limit: minutes(10),
        needs_root: None,
        programs: &[],
        run: run_allocations,
    },
    Stage {
        name: "instructions",
        what: "a command's instructions in a shard, none grown by 5 %",
        limit: minutes(15),
        needs_root: None,
        programs: &[("valgrind", "valgrind")],
        run: run_instructions,
    },
    Stage {
        name: "sessions",
        what: "64 sessions on one unit, over both shards, with verification",
        limit: minutes(10),
        needs_root: None,
        programs: &[],
        run: run_sessions,
    },
    Stage {
        name: "linear",
        what: "atomic commands from both shards could have happened one at a time",
        limit: minutes(3),
        needs_root: None,
        programs: &[],
        run: run_linear,
    },
    Stage {
        name: "durability",
        what: "SIGTERM and SIGKILL under write load; what was answered is there",
        limit: minutes(5),
        needs_root: None,
        programs: &[],
        run: run_durability,
    },
    Stage {
        name: "reload",
        what: "SIGHUP while initiators are at work",
        limit: minutes(3),
        needs_root: None,
        programs: &[],
        run: run_reload,
    },
    conformance_stage("conformance-file", "iscsi-test-cu against a file", None, |site| {
        run_suite(site, Kind::File)
    }),
    conformance_stage("conformance-ram", "iscsi-test-cu against a RAM disk", None, |site| {
        run_suite(site, Kind::Ram)
    }),
    conformance_stage("conformance-loop", "iscsi-test-cu against a loop device", LOOP, |site| {
        run_suite(site, Kind::Loop)
    }),
    conformance_stage("conformance-kinds", "iscsi-test-cu: thick, removable, read-only", None, |site| {
        let mut tally = Tally { passed: 0, failed: 0, skipped: 0 };
        for kind in [Kind::Thick, Kind::Removable, Kind::ReadOnly] {
            tally.add(run_suite(site, kind)?);
        }
        Ok(tally)
    }),
    Stage {
        name: "conformance-untorn",
        what: "iscsi-test-cu: WRITE ATOMIC to a file that the kernel writes untorn",
        limit: minutes(2),
        needs_root: Some("to mount a file system"),
        programs: &[LIBISCSI, ("mkfs.xfs", "xfsprogs")],
        run: run_untorn,
    },
    Stage {
        name: "ceph",
        what: "RBD images of a real cluster, which hangs, shuts out, comes back",
        limit: minutes(10),
        needs_root: None,
        programs: &[
            LIBISCSI,
            ("ceph-mon", "ceph-mon"),
            ("ceph-mgr", "ceph-mgr"),
            ("ceph-osd", "ceph-osd"),
            ("rbd", "ceph-common"),
            ("uuidgen", "uuid-runtime"),
        ],
        run: run_ceph,
    },
    Stage {
        name: "guest",
        what: "the Linux initiator in a guest, across a restart, and beside an OSD that hangs",
        limit: minutes(20),
        needs_root: Some("for a network namespace and to build the guest"),
        programs: &[
            ("mmdebstrap", "mmdebstrap"),
            ("ip", "iproute2"),
            ("depmod", "kmod"),
            ("ceph-osd", "ceph-osd"),
        ],
        run: run_guest,
    },
    Stage {
        name: "cluster",
        what: "two nodes in the guest: fencing, space given back, multipath",
        limit: minutes(20),
        needs_root: Some("to build the guest"),
        programs: &[("mmdebstrap", "mmdebstrap"), ("depmod", "kmod")],
        run: run_cluster,
    },
    Stage {
        name: "linux",
        what: "the Linux initiator: CHAP, digests, a cut link, a disk that grows, a LUN that comes",
        limit: minutes(5),
        needs_root: Some("for a network namespace and to build the guest"),
        programs: &[("mmdebstrap", "mmdebstrap"), ("ip", "iproute2"), ("depmod", "kmod")],
        run: run_linux,
    },
    Stage {
        name: "power",
        what: "power loss under a gateway in the guest, at every mark",
        limit: minutes(20),
        needs_root: Some("to build the guest"),
        programs: &[("mmdebstrap", "mmdebstrap"), ("depmod", "kmod"), ("debugfs", "e2fsprogs")],
        run: run_power,
    },
];

const fn conformance_stage(
    name: &'static str,
    what: &'static str,
    needs_root: Option<&'static str>,
    run: fn(&mut Site) -> Result<Tally>,
) -> Stage {
    Stage { name, what, limit: minutes(10), needs_root, programs: &[LIBISCSI], run }
}

fn run_tidy(site: &mut Site) -> Result<Tally> {
    let findings = tidy::check(&site.tree)?;
    for finding in &findings {
        site.say(&finding.to_string());
    }
    Ok(Tally::one(findings.is_empty()))
}

fn run_tests(site: &mut Site) -> Result<Tally> {
    let mut command = site.cargo("test", &["--locked", "--workspace", "--no-fail-fast"]);
    let succeeded = site.run(&mut command)?;
    let mut tally = count::cargo_test(&site.logged()?);
    if !succeeded && tally.failed == 0 {
        // It did not compile, or a test program died before it could count.
        tally.failed = 1;
    }
    Ok(tally)
}

fn run_suite(site: &mut Site, kind: Kind) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let mut tally = Tally { passed: 0, failed: 0, skipped: 0 };
    for urls in [Urls::One, Urls::Two] {
        let suite = Suite { peer: Peer::Portico, kind, urls, pattern: "" };
        let sum = conformance::run_and_judge(&tree, suite, &mut |line| site.say(line))?;
        tally.add(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped });
    }
    Ok(tally)
}

fn run_untorn(site: &mut Site) -> Result<Tally> {
    match Xfs::obstacle() {
        Some(obstacle) => {
            site.say(obstacle);
            Ok(Tally { passed: 0, failed: 0, skipped: 1 })
        }
        None => run_suite(site, Kind::Untorn),
    }
}

fn run_peers(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = peers::run(&tree, Peer::Portico, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_images(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let sum = images::run(&tree, Peer::Portico, &Kind::ALL, &mut |line| site.say(line))?;
    Ok(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped })
}

fn run_access(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = access::run(&tree, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_ceph(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = ceph::run(&tree, "", &mut |line| site.say(line))?;
    let mut tally = Tally { passed, failed, skipped: 0 };
    let sum = images::run(&tree, Peer::Portico, &[Kind::Rbd], &mut |line| site.say(line))?;
    tally.add(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped });
    tally.add(run_suite(site, Kind::Rbd)?);
    Ok(tally)
}

fn run_bad_input(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = bad_input::run(&tree, "", BAD_INPUT_SEED, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_fuzz(site: &mut Site) -> Result<Tally> {
    let tree = site.tree.clone();
    let (passed, failed) = fuzz::run(&tree, fuzz::SECONDS, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_capture(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = capture::run(&tree, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_allocations(site: &mut Site) -> Result<Tally> {
    let tree = site.tree.clone();
    let (passed, failed) = allocations::run(&tree, false, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_instructions(site: &mut Site) -> Result<Tally> {
    let tree = site.tree.clone();
    let (passed, failed) = instructions::run(&tree, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_sessions(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = sessions::run(&tree, SESSIONS_SECONDS, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_linear(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = linear::run(&tree, LINEAR_SECONDS, 1, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_durability(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let sum = durability::run(&tree, ENDS, &mut |line| site.say(line))?;
    Ok(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped })
}

fn run_reload(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let (passed, failed) = reload::run(&tree, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

fn run_guest(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let sum = guest::run(&tree, Peer::Portico, Kind::File, &mut |line| site.say(line))?;
    let mut tally = Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped };
    let sum = guest::embedded(&tree, &mut |line| site.say(line))?;
    tally.add(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped });
    let sum = guest::hang(&tree, &mut |line| site.say(line))?;
    tally.add(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped });
    Ok(tally)
}

fn run_cluster(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let program = tree.target.join("release/porticod");
    let sum = cluster::run(&tree, &program, &mut |line| site.say(line))?;
    Ok(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped })
}

fn run_linux(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let sum = linux::run(&tree, &mut |line| site.say(line))?;
    Ok(Tally { passed: sum.passed, failed: sum.failed, skipped: sum.skipped })
}

fn run_power(site: &mut Site) -> Result<Tally> {
    build_release(&site.tree)?;
    let tree = site.tree.clone();
    let program = tree.target.join("release/porticod");
    let (passed, failed) = power::run(&tree, &program, &mut |line| site.say(line))?;
    Ok(Tally { passed, failed, skipped: 0 })
}

/// CI services set `CI=true`.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const LINEAR_SECONDS: u64 = 15;

/// Of each of four runs: 60 s in all.
const SESSIONS_SECONDS: u64 = 15;
const ENDS: durability::Rounds = durability::Rounds { terms: 3, kills: 5 };
const BAD_INPUT_SEED: u64 = 1;
const LOOP: Option<&str> = Some("to set up a loop device");
const TSHARK: &[(&str, &str)] = &[("tshark", "tshark"), ("dumpcap", "tshark")];
const LIBISCSI: (&str, &str) = ("iscsi-test-cu", "libiscsi-bin");
