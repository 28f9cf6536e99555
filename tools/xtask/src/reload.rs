//! SIGHUP while initiators are at work: what did not change is not touched, what is new is there, what is gone is gone
//! unless somebody uses it, and a file with an error changes nothing and says why, at start, at SIGHUP and at `--check`
//! alike (`changes` has what ends something, and the files that change nothing). On a target that is the same in every file
//! a session looks after each step: it never hears of anything.

mod changes;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{self, BLOCK_BYTES, Initiator, Io, sense_of};
use crate::lab::random::Random;
use crate::lab::{Context, Failure, Result, halt, process};
use crate::tree::Tree;

/// `cargo xtask reload`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The command line's way in; `true` if all steps passed.
pub(crate) fn command(_: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    super::ci::build_release(&tree)?;
    let (passed, failed) = run(&tree, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// One step: its name, and what it does and checks.
type Step = (&'static str, fn(&mut Stage) -> Result<()>);

/// What the steps work on.
struct Stage {
    gateway: Gateway,
    tree: Tree,
    /// A session that does nothing but be there.
    idle: Initiator,
    /// One on a target that nothing changes.
    witness: Initiator,
}

impl Stage {
    /// Sees the witness's block, and nothing else: not even a unit attention.
    fn undisturbed(&mut self) -> Result<()> {
        let seen = plainly(&mut self.witness, Io::read(0, 0, BLOCK_BYTES)).context("the witness")?;
        if seen.data == [WITNESSED; BLOCK_BYTES] {
            Ok(())
        } else {
            Err(Failure::new("the witness reads other bytes"))
        }
    }
}

/// All steps in their order, with a session at work on LUN 0; how many passed and failed.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let mut gateway = Gateway::prepare(tree)?;
    gateway.configure(&text(&gateway, &[Unit::Busy, Unit::Old], &[(0, Unit::Busy), (1, Unit::Old)]))?;
    gateway.argue(&["--cores", "0,1"]);
    gateway.start()?;
    let mut worker = Initiator::log_in(gateway.portal(), initiator::plan(IQN, 1))?;
    worker.clear_attentions(0)?;
    let idle = Initiator::log_in(gateway.portal(), initiator::plan(IQN, 2))?;
    let mut witness = Initiator::log_in(gateway.portal(), initiator::plan(STILL, 11))?;
    witness.clear_attentions(0)?;
    plainly(&mut witness, Io::write(0, 0, vec![WITNESSED; BLOCK_BYTES]))?;
    let mut stage = Stage { gateway, tree: tree.clone(), idle, witness };
    let stop = AtomicBool::new(false);
    let (mut passed, mut failed) = (0, 0);
    let mut judge = |name: &str, outcome: Result<()>| match outcome {
        Ok(()) => {
            passed += 1;
            say(&format!("ok     {name}"));
        }
        Err(failure) => {
            failed += 1;
            say(&format!("FAILED {name}: {failure}"));
        }
    };
    thread::scope(|scope| {
        let work = scope.spawn(|| work(&mut worker, &stop));
        for (name, step) in STEPS {
            let outcome = step(&mut stage).and_then(|()| stage.undisturbed());
            judge(name, outcome.and_then(|()| stage.gateway.check()));
        }
        stop.store(true, Ordering::Relaxed);
        let worked = work.join().unwrap_or_else(|_| Err(Failure::new("the worker panicked")));
        judge("the session at work noticed nothing but that ports and LUNs came and went", worked);
    });
    drop((worker, stage.idle, stage.witness));
    judge("porticod ends in order", stage.gateway.stop());
    Ok((passed, failed))
}

const STEPS: &[Step] = &[
    ("a new device is there at once, for old sessions and new ones", add),
    ("a LUN that sessions could use is kept, and named", keep),
    ("a file with an error changes nothing, and says where and why", refuse),
    ("`--check` says the same of the same file", check_refused),
    ("`--check` takes what porticod runs with", check_taken),
    ("the same file again changes nothing", again),
    ("a portal of another group comes and goes, and who came through it stays", portals),
    ("a portal at every address of a port becomes one at a single address, and back", narrow),
    ("a device grows and shrinks, and its sessions are told", resize),
    ("a LUN that comes is told once to who sees it", changes::add_lun),
    ("a target that is disabled ends its sessions, and comes back as it was", changes::disable),
    ("what is fixed while a device is open is named, and holds when it was opened anew", changes::reopen),
    ("an empty file changes nothing, and says why", changes::empty),
    ("a file that is not there changes nothing", changes::gone),
    ("two writable devices on one file are refused, whatever its names", changes::share),
    ("a target that nobody uses goes away", remove),
];

/// The devices that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Busy,
    Old,
    New,
    Still,
}

impl Unit {
    fn device(self, gateway: &Gateway) -> Device {
        let size = format!("size {UNIT_BYTES}");
        let file = |name, size| {
            let path = gateway.folder().join(format!("{name}.img"));
            let attributes = vec![format!("filename {}", path.display()), size];
            Device { handler: "vdisk_fileio", name, attributes }
        };
        match self {
            Unit::Busy => file("busy", size),
            Unit::Still => file("still", size),
            Unit::Old => Device { handler: "vdisk_ram", name: "old", attributes: vec![size] },
            Unit::New => Device { handler: "vdisk_ram", name: "new", attributes: vec![size] },
        }
    }
}

/// A configuration of these devices and LUNs, beside the witness's target.
fn text(gateway: &Gateway, units: &[Unit], luns: &[(usize, Unit)]) -> String {
    let units = units.iter().chain(&[Unit::Still]);
    let devices: Vec<Device> = units.map(|unit| unit.device(gateway)).collect();
    let luns: Vec<(usize, &str)> = luns.iter().map(|(lun, unit)| (*lun, unit.device(gateway).name)).collect();
    with_target(&gateway::configuration_with(&devices, &luns, &[]), STILL, "still")
}

/// The full configuration, with a second target that has the new device, too.
fn with_second(gateway: &Gateway) -> String {
    let luns = [(0, Unit::Busy), (1, Unit::Old), (2, Unit::New)];
    with_target(&text(gateway, &[Unit::Busy, Unit::Old, Unit::New], &luns), SECOND, "new")
}

/// This configuration, and one more target, with this device as its LUN 0.
fn with_target(whole: &str, target: &str, device: &str) -> String {
    let body = whole.strip_suffix("}\n").expect("it ends with the driver's section");
    format!("{body}\tTARGET {target} {{\n\t\tLUN 0 {device}\n\t\tenabled 1\n\t}}\n}}\n")
}

fn add(stage: &mut Stage) -> Result<()> {
    stage.gateway.configure(&with_second(&stage.gateway))?;
    stage.gateway.reload()?;
    until(|| Ok(stage.gateway.page("/metrics")?.contains("portico_device_ready{device=\"new\"} 1")))?;
    let mut new = Initiator::log_in(stage.gateway.portal(), initiator::plan(IQN, 3))?;
    let mut second = Initiator::log_in(stage.gateway.portal(), initiator::plan(SECOND, 4))?;
    let written = Io::write(2, 0, vec![7; BLOCK_BYTES]);
    new.clear_attentions(2)?;
    good(&mut new, written)?;
    second.clear_attentions(0)?;
    let read = good(&mut second, Io::read(0, 0, BLOCK_BYTES))?;
    // The session that was there before sees it, too, after it was told that its LUNs are others now.
    stage.idle.clear_attentions(2)?;
    let seen = good(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES))?;
    if read.data == seen.data && read.data == [7; BLOCK_BYTES] {
        return Ok(());
    }
    Err(Failure::new("the new unit is not the same for all"))
}

fn keep(stage: &mut Stage) -> Result<()> {
    let before = stage.gateway.log().len();
    let body = with_second(&stage.gateway).replace("\t\tLUN 1 old\n", "");
    stage.gateway.configure(&body)?;
    stage.gateway.reload()?;
    until(|| Ok(stage.gateway.log()[before..].contains("applied")))?;
    stage.idle.clear_attentions(1)?;
    good(&mut stage.idle, Io::read(1, 0, BLOCK_BYTES))?;
    until(|| {
        let log = stage.gateway.log();
        Ok(log[before..].lines().any(|line| line.contains("not done") && line.contains("LUN 1")))
    })
    .map_err(|failure| Failure::new(format!("{failure}: {}", &stage.gateway.log()[before..])))
}

fn broken(gateway: &Gateway) -> String {
    with_second(gateway)
        .replace("DEVICE new {", "DEVICE new {\n\t\tblocksise 4096")
        .replace("LUN 2 new", "LUN 2 old")
}

fn refuse(stage: &mut Stage) -> Result<()> {
    let before = stage.gateway.log().len();
    stage.gateway.configure(&broken(&stage.gateway))?;
    stage.gateway.reload()?;
    until(|| Ok(stage.gateway.log()[before..].contains("nothing was changed")))?;
    says_why(&stage.gateway.log()[before..])?;
    good(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES)).and_then(|io| match io.data[0] {
        7 => Ok(()),
        _ => Err(Failure::new("LUN 2 is another device now")),
    })
}

fn says_why(said: &str) -> Result<()> {
    for word in ["scst.conf", "blocksise", "blocksize"] {
        if !said.contains(word) {
            return Err(Failure::new(format!("it does not say {word:?}:\n{said}")));
        }
    }
    Ok(())
}

fn check_refused(stage: &mut Stage) -> Result<()> {
    let finished = check(stage)?;
    says_why(&finished.output)?;
    if finished.end == process::End::Exited(1) {
        Ok(())
    } else {
        Err(Failure::new(format!("{:?}", finished.end)))
    }
}

fn check_taken(stage: &mut Stage) -> Result<()> {
    stage.gateway.configure(&with_second(&stage.gateway))?;
    check(stage)?.expect_success("--check").map(drop)
}

fn check(stage: &Stage) -> Result<process::Finished> {
    let mut command = Command::new(stage.tree.target.join("release/porticod"));
    command.arg("--check").arg(stage.gateway.configuration_file());
    process::run(&mut command, Duration::from_secs(10))
}

fn again(stage: &mut Stage) -> Result<()> {
    let before = stage.gateway.log().len();
    stage.gateway.reload()?;
    until(|| Ok(stage.gateway.log()[before..].contains("applied")))?;
    // Nothing to tell anybody: not even a unit attention.
    good(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES)).map(drop)
}

/// A port that the system gave to somebody a moment ago: it is free, and soon ours.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The usual configuration, at this portal as well.
fn at_portal(gateway: &Gateway, portal: SocketAddr) -> String {
    let line = format!("TARGET_DRIVER iscsi {{\n\tportal \"{portal} 2\"\n");
    with_second(gateway).replacen("TARGET_DRIVER iscsi {\n", &line, 1)
}

fn portals(stage: &mut Stage) -> Result<()> {
    let portal = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let usual = with_second(&stage.gateway);
    stage.gateway.configure(&at_portal(&stage.gateway, portal))?;
    stage.gateway.reload()?;
    until(|| Ok(TcpStream::connect(portal).is_ok()))?;
    let mut through = Initiator::log_in(portal, initiator::plan(IQN, 6))?;
    through.clear_attentions(2)?;
    // The same initiator port at another target port is another nexus: neither takes the other's place.
    let mut beside = Initiator::log_in(stage.gateway.portal(), initiator::plan(IQN, 6))?;
    beside.clear_attentions(2)?;
    good(&mut through, Io::read(2, 0, BLOCK_BYTES))?;
    stage.gateway.configure(&usual)?;
    stage.gateway.reload()?;
    until(|| Ok(TcpStream::connect(portal).is_err()))?;
    good(&mut through, Io::read(2, 0, BLOCK_BYTES))?;
    good(&mut beside, Io::read(2, 0, BLOCK_BYTES))?;
    told_of_ports(stage)
}

fn narrow(stage: &mut Stage) -> Result<()> {
    let port = free_port()?;
    let at = |ip| SocketAddr::from((ip, port));
    let (one, other) = (at(Ipv4Addr::LOCALHOST), at(Ipv4Addr::new(127, 0, 0, 2)));
    let listens = |portal| TcpStream::connect(portal).is_ok();
    let every = at_portal(&stage.gateway, at(Ipv4Addr::UNSPECIFIED));
    stage.gateway.configure(&every)?;
    stage.gateway.reload()?;
    until(|| Ok(listens(other)))?;
    let mut through = Initiator::log_in(one, initiator::plan(IQN, 7))?;
    through.clear_attentions(2)?;
    stage.gateway.configure(&at_portal(&stage.gateway, one))?;
    stage.gateway.reload()?;
    until(|| Ok(!listens(other) && listens(one)))?;
    good(&mut through, Io::read(2, 0, BLOCK_BYTES))?;
    stage.gateway.configure(&every)?;
    stage.gateway.reload()?;
    until(|| Ok(listens(other)))?;
    good(&mut through, Io::read(2, 0, BLOCK_BYTES))?;
    stage.gateway.configure(&with_second(&stage.gateway))?;
    stage.gateway.reload()?;
    until(|| Ok(!listens(one)))?;
    told_of_ports(stage)
}

fn resize(stage: &mut Stage) -> Result<()> {
    let usual = with_second(&stage.gateway);
    let unit = format!("size {UNIT_BYTES}");
    for size in [2 * UNIT_BYTES, UNIT_BYTES / 2, UNIT_BYTES] {
        // All of them but the one at work, whose session is to notice nothing.
        let (busy, rest) = usual.split_once("HANDLER vdisk_ram").expect("there are RAM disks");
        let text = format!("{busy}HANDLER vdisk_ram{}", rest.replace(&unit, &format!("size {size}")));
        stage.gateway.configure(&text)?;
        stage.gateway.reload()?;
        let told = |stage: &mut Stage| {
            let mut ios = [Io::read(2, 0, BLOCK_BYTES)];
            stage.idle.run(&mut ios)?;
            Ok(matches!(&ios[0].outcome, Some((2, sense)) if sense_of(sense) == (6, 0x2a, 0x09)))
        };
        until(|| told(stage))?;
        let blocks = size / BLOCK_BYTES as u64;
        let capacity = good(&mut stage.idle, Io::read_capacity(2))?.data;
        if capacity[..8] != (blocks - 1).to_be_bytes() {
            return Err(Failure::new(format!("{size} bytes: READ CAPACITY says {capacity:02x?}")));
        }
        let mut ends = [blocks - 1, blocks].map(|lba| Io::read(2, lba, BLOCK_BYTES));
        stage.idle.run(&mut ends)?;
        ends[0].expect_good()?;
        if !matches!(&ends[1].outcome, Some((2, sense)) if sense_of(sense) == (5, 0x21, 0)) {
            return Err(Failure::new(format!("{size} bytes: behind the last block {:?}", ends[1].outcome)));
        }
    }
    Ok(())
}

fn remove(stage: &mut Stage) -> Result<()> {
    let luns = [(0, Unit::Busy), (1, Unit::Old), (2, Unit::New)];
    stage.gateway.configure(&text(&stage.gateway, &[Unit::Busy, Unit::Old, Unit::New], &luns))?;
    stage.gateway.reload()?;
    until(|| Ok(!stage.gateway.page("/metrics")?.contains(SECOND)))?;
    match Initiator::log_in(stage.gateway.portal(), initiator::plan(SECOND, 5)) {
        Ok(_) => Err(Failure::new("one may still log in to it")),
        Err(failure) if failure.to_string().contains("0x0203") => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Runs one command, which ends with GOOD; a unit attention about other LUNs or ports may come before it.
fn good(initiator: &mut Initiator, io: Io) -> Result<Io> {
    let mut ios = [io];
    initiator.run(&mut ios)?;
    if is_told(&ios[0], LUNS_CHANGED) || is_told(&ios[0], INQUIRY_CHANGED) {
        initiator.run(&mut ios)?;
    }
    let [io] = ios;
    io.expect_good().map(|()| io)
}

/// Runs one command, which ends with GOOD at once.
fn plainly(initiator: &mut Initiator, io: Io) -> Result<Io> {
    let mut ios = [io];
    initiator.run(&mut ios)?;
    let [io] = ios;
    io.expect_good().map(|()| io)
}

/// What a session is told once, and no error of what it does.
fn is_told(io: &Io, sense: (u8, u8, u8)) -> bool {
    matches!(&io.outcome, Some((2, told)) if sense_of(told) == sense)
}

/// The witness is told once that its target has, or had, other ports (SPC-4 §7.8.14: page 88 names them).
fn told_of_ports(stage: &mut Stage) -> Result<()> {
    let mut ios = [Io::read(0, 0, BLOCK_BYTES)];
    stage.witness.run(&mut ios)?;
    match is_told(&ios[0], INQUIRY_CHANGED) {
        true => Ok(()),
        false => Err(Failure::new("the witness is not told of the ports")),
    }
}

/// REPORTED LUNS DATA HAS CHANGED.
const LUNS_CHANGED: (u8, u8, u8) = (6, 0x3f, 0x0e);
/// INQUIRY DATA HAS CHANGED.
const INQUIRY_CHANGED: (u8, u8, u8) = (6, 0x3f, 0x03);

/// Writes and reads LUN 0 with verification until it is told to stop.
fn work(initiator: &mut Initiator, stop: &AtomicBool) -> Result<()> {
    let mut random = Random::new(1);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        halt::go_on()?;
        let lba = random.below(UNIT_BYTES / 65_536) * 128;
        let mut data = vec![0; 65_536];
        random.fill(&mut data);
        good(initiator, Io::write(0, lba, data.clone()))?;
        if good(initiator, Io::read(0, lba, data.len()))?.data != data {
            return Err(Failure::new("other bytes came back"));
        }
        rounds += 1;
    }
    if rounds < 10 { Err(Failure::new(format!("only {rounds} rounds"))) } else { Ok(()) }
}

/// Waits until it is so.
fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        halt::go_on()?;
        if start.elapsed() > LIMIT {
            return Err(Failure::new(format!("not within {} s", LIMIT.as_secs())));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

const SECOND: &str = "iqn.2026-11.test:second";
const THIRD: &str = "iqn.2026-11.test:third";
/// The same in every configuration.
const STILL: &str = "iqn.2026-11.test:still";
/// What fills the witness's block.
const WITNESSED: u8 = 0x57;
const UNIT_BYTES: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(5);
