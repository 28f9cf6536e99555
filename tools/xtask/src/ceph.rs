//! RBD images of a real Ceph cluster as LUNs, and every way in which the cluster lets the gateway down that a machine of
//! one OSD can show: it hangs, it shuts the gateway's client out, it answers too late, it is not there yet.
//!
//! Beside the images stands a RAM disk. Whatever the cluster does, each of its commands completes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::ci;
use crate::lab::ceph::{Cluster, Daemon};
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{self, Initiator, Io, sense_of};
use crate::lab::random::Random;
use crate::lab::{Failure, Result, halt};
use crate::tree::Tree;

/// The command line's way in; `true` if every scenario passed.
pub(crate) fn command() -> Result<bool> {
    let tree = Tree::find()?;
    ci::build_release(&tree)?;
    let (passed, failed) = run(&tree, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// All scenarios, each on images of its own; how many passed and failed.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let cluster = Cluster::start(tree)?;
    let (mut passed, mut failed) = (0, 0);
    for (name, scenario) in SCENARIOS {
        let start = Instant::now();
        match Site::new(tree, &cluster).and_then(|mut site| {
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
    ("what initiators write is what `rbd export` reads, and the other way round", writes_and_exports),
    ("a snapshot is read-only and keeps what it was", serves_a_snapshot),
    ("an OSD hangs and comes back: what was outstanding completes", rides_out_a_hang),
    ("an OSD answers too late: the image is closed until the old client is shut out", closes_in_doubt),
    ("the client is put on the blocklist under load: a new one goes on", replaces_its_client),
    ("the monitor is away at the start: the image becomes ready by itself", waits_for_the_monitor),
    ("an image that is not there yet is named, and becomes ready when it is made", waits_for_the_image),
];

/// A gateway and the images that it serves, made anew for each scenario.
struct Site<'a> {
    cluster: &'a Cluster,
    gateway: Gateway,
}

impl<'a> Site<'a> {
    fn new(tree: &Tree, cluster: &'a Cluster) -> Result<Site<'a>> {
        let _ = cluster.rbd(&["snap", "purge", "--no-progress", IMAGE]);
        let _ = cluster.rbd(&["remove", "--no-progress", IMAGE]);
        cluster.rbd(&["create", "--size", "64M", IMAGE])?;
        let mut gateway = Gateway::prepare(tree)?;
        gateway.argue(&["--cores", "0,1"]);
        Ok(Site { cluster, gateway })
    }

    /// Starts the gateway with a RAM disk as LUN 0 and the image, with these further attributes, as LUN 1.
    fn start(&mut self, attributes: &[&str]) -> Result<()> {
        let mut lines = vec!["pool rbd".to_owned(), format!("image {IMAGE}")];
        lines.push(format!("conf {}", self.cluster.conf().display()));
        lines.extend(attributes.iter().map(|line| (*line).to_owned()));
        let memory = vec!["size 16777216".to_owned()];
        let devices = [
            Device { handler: "vdisk_ram", name: "memory", attributes: memory },
            Device { handler: "vdisk_rbd", name: "image", attributes: lines },
        ];
        self.gateway.configure(&gateway::configuration(&devices))?;
        self.gateway.start()
    }

    fn log_in(&self, number: u16) -> Result<Initiator> {
        let mut initiator = Initiator::log_in(self.gateway.portal(), initiator::plan(IQN, number))?;
        initiator.patience(HANG_LIMIT)?;
        initiator.clear_attentions(RAM)?;
        Ok(initiator)
    }

    /// Logs in, and waits until the image answers READs with GOOD.
    fn log_in_to_image(&self, number: u16) -> Result<Initiator> {
        let mut initiator = self.log_in(number)?;
        until(|| Ok(one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?.is_good()), "the image is ready")?;
        Ok(initiator)
    }

    /// Runs `work` while another session uses the RAM disk, whose every command has to complete.
    fn beside_memory<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        let served = AtomicU64::new(0);
        let mut initiator = self.log_in(99)?;
        thread::scope(|scope| {
            let witness = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    one(&mut initiator, Io::write(RAM, 8, vec![7; CELL_BYTES]))?.expect_good()?;
                    served.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            });
            let before = served.load(Ordering::Relaxed);
            let outcome = work();
            over.store(true, Ordering::Relaxed);
            witness.join().map_err(|_| Failure::new("the witness panicked"))??;
            if served.load(Ordering::Relaxed) == before {
                return Err(Failure::new("the RAM disk completed nothing meanwhile"));
            }
            outcome
        })
    }
}

fn writes_and_exports(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let mut data = vec![0; IMAGE_BYTES];
    Random::new(1).fill(&mut data);
    let piece = 256 << 10;
    let mut ios: Vec<Io> = (0..)
        .zip(data.chunks(piece))
        .map(|(at, chunk)| Io::write(DISK, lba(at * piece), chunk.to_vec()))
        .collect();
    initiator.run(&mut ios)?;
    ios.iter().try_for_each(Io::expect_good)?;
    if site.cluster.export(IMAGE)? != data {
        return Err(Failure::new("`rbd export` reads something else than was written"));
    }
    let mut ios: Vec<Io> =
        (0..IMAGE_BYTES / piece).map(|at| Io::read(DISK, lba(at * piece), piece)).collect();
    initiator.run(&mut ios)?;
    for (io, chunk) in ios.iter().zip(data.chunks(piece)) {
        io.expect_good()?;
        if io.data != chunk {
            return Err(Failure::new("READ gives something else than was written"));
        }
    }
    Ok(())
}

fn serves_a_snapshot(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    write(&mut initiator, 0, 1)?.expect_good()?;
    site.cluster.rbd(&["snap", "create", "--no-progress", &format!("{IMAGE}@before")])?;
    write(&mut initiator, 0, 2)?.expect_good()?;
    drop(initiator);
    site.gateway.stop()?;
    site.start(&["snapshot before"])?;
    let mut initiator = site.log_in_to_image(2)?;
    let read = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    if read.data != content(0, 1) {
        return Err(Failure::new("the snapshot does not show what was there when it was taken"));
    }
    let refused = write(&mut initiator, 0, 3)?;
    expect_sense(&refused, (7, 0x27, 0), "a WRITE to a snapshot")
}

fn rides_out_a_hang(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    site.beside_memory(|| {
        let hanging = site.cluster.suspend(Daemon::Osd)?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<()> {
                let mut ios: Vec<Io> =
                    (0..CELLS).map(|cell| Io::write(DISK, lba_of(cell), content(cell, 5))).collect();
                initiator.run(&mut ios)?;
                ios.iter().try_for_each(Io::expect_good)
            });
            thread::sleep(HANG);
            let waited = !writer.is_finished();
            drop(hanging);
            writer.join().map_err(|_| Failure::new("the writer panicked"))??;
            if waited { Ok(()) } else { Err(Failure::new("the WRITEs ended while the OSD hung")) }
        })
    })?;
    check(&mut initiator, |_| 5)
}

fn closes_in_doubt(site: &mut Site<'_>) -> Result<()> {
    site.start(&["option \"rados_osd_op_timeout 2\""])?;
    let mut initiator = site.log_in_to_image(1)?;
    let old = site.cluster.watcher(IMAGE)?;
    for cell in 0..CELLS {
        write(&mut initiator, cell, 1)?.expect_good()?;
    }
    site.beside_memory(|| {
        let hanging = site.cluster.suspend(Daemon::Osd)?;
        let late = write(&mut initiator, 0, 2)?;
        expect_sense(&late, (2, 4, 1), "a WRITE whose outcome is unknown")?;
        let closed = one(&mut initiator, Io::read(DISK, lba_of(1), CELL_BYTES))?;
        expect_sense(&closed, (2, 4, 1), "a READ of a closed image")?;
        drop(hanging);
        // The first that goes through is newer than the one whose outcome is unknown.
        until(|| Ok(write(&mut initiator, 0, 3)?.is_good()), "the image is open again")
    })?;
    let shut_out = site.cluster.ceph(&["osd", "blocklist", "ls"])?;
    if !shut_out.contains(&old) {
        return Err(Failure::new(format!("the old client {old} is not on the blocklist: {shut_out}")));
    }
    // Time for the late write to land, if it could.
    thread::sleep(Duration::from_secs(1));
    check(&mut initiator, |cell| if cell == 0 { 3 } else { 1 })
}

fn replaces_its_client(site: &mut Site<'_>) -> Result<()> {
    site.start(&[])?;
    let mut initiator = site.log_in_to_image(1)?;
    let old = site.cluster.watcher(IMAGE)?;
    let version = site.beside_memory(|| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<(u64, u64)> {
                let (mut version, mut refused) = (0, 0);
                while !over.load(Ordering::Relaxed) {
                    version += 1;
                    for cell in 0..CELLS {
                        until(
                            || {
                                let good = write(&mut initiator, cell, version)?.is_good();
                                refused += u64::from(!good);
                                Ok(good)
                            },
                            "a WRITE goes through",
                        )?;
                    }
                }
                Ok((version, refused))
            });
            thread::sleep(Duration::from_millis(500));
            let listed = site.cluster.ceph(&["osd", "blocklist", "add", &old]);
            let replaced = listed.and_then(|_| {
                until(
                    || Ok(site.cluster.watcher(IMAGE).is_ok_and(|new| new != old)),
                    "a new client has the image",
                )
            });
            over.store(true, Ordering::Relaxed);
            let (version, refused) = writer.join().map_err(|_| Failure::new("the writer panicked"))??;
            replaced?;
            if refused == 0 {
                return Err(Failure::new("no WRITE noticed that the client was shut out"));
            }
            Ok(version)
        })
    })?;
    check(&mut initiator, |_| version)
}

fn waits_for_the_monitor(site: &mut Site<'_>) -> Result<()> {
    let hanging = site.cluster.suspend(Daemon::Monitor)?;
    site.start(&["option \"client_mount_timeout 2\""])?;
    let mut initiator = site.log_in(1)?;
    let early = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    if early.is_good() {
        return Err(Failure::new("a READ ended with GOOD although the cluster is away"));
    }
    site.beside_memory(|| {
        thread::sleep(HANG);
        drop(hanging);
        drop(site.log_in_to_image(2)?);
        Ok(())
    })
}

fn waits_for_the_image(site: &mut Site<'_>) -> Result<()> {
    site.cluster.rbd(&["remove", "--no-progress", IMAGE])?;
    site.start(&[])?;
    let mut initiator = site.log_in(1)?;
    // The first answer is the unit attention of the login.
    one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    let early = one(&mut initiator, Io::read(DISK, 0, CELL_BYTES))?;
    expect_key(&early, 2, "a READ of an image that is not there")?;
    let named = |log: &str| log.contains(&format!("rbd/{IMAGE}: there is none of that name"));
    until(|| Ok(named(&site.gateway.log())), "the log names the image")?;
    site.cluster.rbd(&["create", "--size", "64M", IMAGE])?;
    drop(site.log_in_to_image(2)?);
    Ok(())
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

const IMAGE: &str = "lab";
const IMAGE_BYTES: usize = 64 << 20;
const RAM: u8 = 0;
const DISK: u8 = 1;
const CELLS: usize = 16;
const CELL_BYTES: usize = 8192;
/// So that they lie in several objects.
const CELL_STRIDE: usize = IMAGE_BYTES / CELLS;
const HANG: Duration = Duration::from_secs(3);
/// How long an initiator waits for an answer while the cluster hangs.
const HANG_LIMIT: Duration = Duration::from_secs(60);
const COMES_BACK_IN: Duration = Duration::from_secs(45);
