//! RBD images of a real Ceph cluster as LUNs, and every way in which the cluster lets the gateway down that a machine of
//! one OSD can show: it hangs, it shuts the gateway's client out, it answers too late, it is not there yet.
//!
//! Beside the images stands a RAM disk. Whatever the cluster does, each of its commands completes.

mod administered;
mod contents;
mod outages;
mod shared;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::ci;
use crate::lab::ceph::Cluster;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{self, Initiator, Io, sense_of};
use crate::lab::random::Random;
use crate::lab::{Failure, Result, halt};
use crate::tree::Tree;

/// `cargo xtask ceph`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only scenarios whose sentence has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// The command line's way in; `true` if every scenario passed.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    ci::build_release(&tree)?;
    let (passed, failed) = run(&tree, &arguments.only, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// The scenarios in whose sentences `pattern` is, each on images of its own; how many passed and failed.
pub(crate) fn run(tree: &Tree, pattern: &str, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let cluster = Cluster::start(tree)?;
    let (mut passed, mut failed) = (0, 0);
    let chosen = SCENARIOS.iter().enumerate().filter(|(_, (name, _))| name.contains(pattern));
    for (number, (name, scenario)) in chosen {
        let start = Instant::now();
        match Site::new(tree, &cluster, number).and_then(|mut site| {
            scenario(&mut site)?;
            site.gateway.check()?;
            site.gateway.stop()
        }) {
            Ok(()) => {
                passed += 1;
                say(&format!("ok     {name} ({:.1} s)", start.elapsed().as_secs_f64()));
            }
            Err(failure) => {
                failed += 1;
                say(&format!("FAILED {name}: {failure}"));
            }
        }
        halt::go_on()?;
    }
    Ok((passed, failed))
}

type Scenario = fn(&mut Site<'_>) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("what initiators write is what `rbd export` reads", contents::writes_and_exports),
    ("a snapshot is read-only and keeps what it was", contents::serves_a_snapshot),
    ("a clone shows its parent, and leaves it as it is", contents::serves_a_clone),
    ("an image in a namespace is another one than that in the pool", contents::serves_a_namespace),
    ("UNMAP gives the objects back, and zeroes what is less than one", contents::gives_space_back),
    ("WRITE SAME fills blocks over several objects", shared::repeats),
    (
        "a journaled image and one with a cache of its own are refused, an encrypted one is named",
        contents::refuses,
    ),
    ("COMPARE AND WRITE tells a difference: in a sector, in an object, over two", shared::compares),
    ("two gateways add to one number by COMPARE AND WRITE: nothing is lost", shared::counts_with_another),
    ("an OSD hangs and comes back: what was outstanding completes", outages::rides_out_a_hang),
    (
        "more is asked of an OSD that hangs than memory would hold: it waits, and completes",
        outages::bounds_what_waits,
    ),
    (
        "an OSD answers too late: the image is closed until the old client is shut out",
        outages::closes_in_doubt,
    ),
    ("the client is put on the blocklist under load: a new one goes on", outages::replaces_its_client),
    ("the monitor is away at the start: the image becomes ready by itself", outages::waits_for_the_monitor),
    (
        "an image that is not there yet is named, and becomes ready when it is made",
        outages::waits_for_the_image,
    ),
    ("the exclusive lock is taken for good: READs go on, WRITEs are not ready", outages::is_locked_out),
    ("the pool is full: WRITEs say so, and go on when there is room", outages::fills_the_pool),
    ("the image is resized under load: its sessions are told, and commands go on", outages::is_resized),
    (
        "the image is removed under load: another by its name is not taken for it, unless the device is put in anew",
        outages::loses_the_image,
    ),
    ("`rbd lock add`: WRITEs wait until the lock is removed, READs go on", administered::waits_for_a_locker),
    (
        "the image is demoted: it is closed until it is promoted, and may be served read-only",
        administered::is_demoted,
    ),
    (
        "an image that is served is not migrated; one in migration becomes ready when that is through",
        administered::is_migrated,
    ),
];

/// A gateway and the image that it serves, made anew for each scenario.
struct Site<'a> {
    tree: &'a Tree,
    cluster: &'a Cluster,
    gateway: Gateway,
    pool: &'static str,
    image: String,
}

impl<'a> Site<'a> {
    fn new(tree: &'a Tree, cluster: &'a Cluster, number: usize) -> Result<Site<'a>> {
        let image = format!("lab{number}");
        cluster.rbd(&["create", "--size", "64M", &image])?;
        let mut gateway = Gateway::prepare(tree)?;
        gateway.argue(&["--cores", "0,1"]);
        Ok(Site { tree, cluster, gateway, pool: "rbd", image })
    }

    /// Starts the gateway with a RAM disk, the image with these further attributes, and another image, as LUNs 0, 1, 2.
    fn start(&mut self, attributes: &[&str]) -> Result<()> {
        self.configure(attributes, true)?;
        self.gateway.start()
    }

    /// Writes the configuration for [`Site::start`], with the image or without it.
    fn configure(&self, attributes: &[&str], has_image: bool) -> Result<()> {
        let conf = format!("conf {}", self.cluster.conf().display());
        let mut lines = vec![format!("pool {}", self.pool), format!("image {}", self.image), conf.clone()];
        lines.extend(attributes.iter().map(|line| (*line).to_owned()));
        let memory = vec!["size 16777216".to_owned()];
        let other = vec![format!("filename rbd:rbd/{OTHER_IMAGE}"), conf];
        let mut devices = vec![
            Device { handler: "vdisk_ram", name: "memory", attributes: memory },
            Device { handler: "vdisk_rbd", name: "image", attributes: lines },
            Device { handler: "vdisk_rbd", name: "other", attributes: other },
        ];
        let mut luns = vec![(0, "memory"), (1, "image"), (2, "other")];
        if !has_image {
            devices.remove(1);
            luns.remove(1);
        }
        self.gateway.configure(&gateway::configuration_with(&devices, &luns, &[]))
    }

    fn log_in(&self, number: u16) -> Result<Initiator> {
        log_in(&self.gateway, number)
    }

    /// Logs in, and waits until the image answers READs with GOOD.
    fn log_in_to_image(&self, number: u16) -> Result<Initiator> {
        let mut initiator = self.log_in(number)?;
        readable(&mut initiator, DISK)?;
        Ok(initiator)
    }

    /// Runs `work` while another session uses the RAM disk, whose every command has to complete.
    fn beside_memory<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.beside(&[RAM], work)
    }

    /// Runs `work` while another session uses the RAM disk and the other image, whose every command has to complete.
    fn beside_others<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.beside(&[RAM, OTHER], work)
    }

    fn beside<T>(&self, luns: &[u8], work: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        let rounds = AtomicU64::new(0);
        let mut initiator = self.log_in(99)?;
        luns.iter().try_for_each(|lun| readable(&mut initiator, *lun))?;
        thread::scope(|scope| {
            let witness = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    for lun in luns {
                        one(&mut initiator, Io::write(*lun, 8, vec![7; CELL_BYTES]))?.expect_good()?;
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            });
            let before = rounds.load(Ordering::Relaxed);
            let outcome = work();
            over.store(true, Ordering::Relaxed);
            witness.join().map_err(|_| Failure::new("the witness panicked"))??;
            if rounds.load(Ordering::Relaxed) == before {
                return Err(Failure::new("the other units completed nothing meanwhile"));
            }
            outcome
        })
    }

    /// Waits until the gateway has said this.
    fn hear(&self, words: &str) -> Result<()> {
        until(|| Ok(self.gateway.log().contains(words)), &format!("the log has {words:?}"))
    }
}

fn log_in(gateway: &Gateway, number: u16) -> Result<Initiator> {
    let mut initiator = Initiator::log_in(gateway.portal(), initiator::plan(IQN, number))?;
    initiator.patience(HANG_LIMIT)?;
    initiator.clear_attentions(RAM)?;
    Ok(initiator)
}

/// Waits until READs end with GOOD.
fn readable(initiator: &mut Initiator, lun: u8) -> Result<()> {
    until(|| Ok(one(initiator, Io::read(lun, 0, CELL_BYTES))?.is_good()), "READs go through")
}

fn one(initiator: &mut Initiator, io: Io) -> Result<Io> {
    let mut ios = [io];
    initiator.run(&mut ios)?;
    let [io] = ios;
    Ok(io)
}

fn write(initiator: &mut Initiator, cell: usize, version: u64) -> Result<Io> {
    one(initiator, Io::write(DISK, lba_of(cell), content(cell, version)))
}

/// `Err` unless every cell holds the version that it should.
fn check(initiator: &mut Initiator, version: impl Fn(usize) -> u64) -> Result<()> {
    let mut ios: Vec<Io> = (0..CELLS).map(|cell| Io::read(DISK, lba_of(cell), CELL_BYTES)).collect();
    initiator.run(&mut ios)?;
    for (cell, io) in ios.iter().enumerate() {
        io.expect_good()?;
        if io.data != content(cell, version(cell)) {
            return Err(Failure::new(format!("cell {cell} does not hold version {}", version(cell))));
        }
    }
    Ok(())
}

/// Asks again and again, until the answer is yes.
fn until(mut question: impl FnMut() -> Result<bool>, what: &str) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < COMES_BACK_IN {
        halt::go_on()?;
        if question()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::new(format!("not within {} s: {what}", COMES_BACK_IN.as_secs())))
}

fn expect_sense(io: &Io, expected: (u8, u8, u8), what: &str) -> Result<()> {
    match &io.outcome {
        Some((0x02, sense)) if sense_of(sense) == expected => Ok(()),
        outcome => {
            Err(Failure::new(format!("{what} ended with {outcome:02x?}, not with sense {expected:x?}")))
        }
    }
}

fn expect_key(io: &Io, key: u8, what: &str) -> Result<()> {
    match &io.outcome {
        Some((0x02, sense)) if sense_of(sense).0 == key => Ok(()),
        outcome => Err(Failure::new(format!("{what} ended with {outcome:02x?}, not with sense key {key:x}"))),
    }
}

fn content(cell: usize, version: u64) -> Vec<u8> {
    let mut data = vec![0; CELL_BYTES];
    Random::new(version << 32 | u64::try_from(cell).expect("small")).fill(&mut data);
    data
}

fn lba_of(cell: usize) -> u64 {
    lba(cell * CELL_STRIDE)
}

fn lba(offset: usize) -> u64 {
    u64::try_from(offset / initiator::BLOCK_BYTES).expect("small")
}

/// What `ceph-up` makes.
const OTHER_IMAGE: &str = "test";
const IMAGE_BYTES: usize = 64 << 20;
const RAM: u8 = 0;
const DISK: u8 = 1;
const OTHER: u8 = 2;
const CELLS: usize = 16;
const CELL_BYTES: usize = 8192;
/// So that they lie in several objects.
const CELL_STRIDE: usize = IMAGE_BYTES / CELLS;
const HANG: Duration = Duration::from_secs(3);
/// How long an initiator waits for an answer while the cluster hangs.
const HANG_LIMIT: Duration = Duration::from_secs(60);
const COMES_BACK_IN: Duration = Duration::from_secs(45);
