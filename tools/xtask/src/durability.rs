//! SIGKILL and SIGTERM under write load: whatever was answered with GOOD is there after a restart.
//!
//! Each block of the unit carries the version of its last write. After SIGKILL a block may hold the version that was
//! answered last, or one that was on its way when the process died; nothing older, nothing else. After SIGTERM nothing is
//! on its way: each command in flight was answered, GOOD or, if it came too late, BUSY; what was refused left no trace,
//! and the process ended with status 0. (The page cache outlives the process, so this is half of what durability means;
//! the other half, the loss of power after either, is the simulator's and the guest's.)

use std::thread;
use std::time::Duration;

use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{self, BLOCK_BYTES, Initiator, Io};
use crate::lab::loop_device::LoopDevice;
use crate::lab::random::Random;
use crate::lab::{Context, Failure, Result, is_root};
use crate::tree::Tree;

/// `cargo xtask durability`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often it is killed, for each medium
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// How often it is told to end, for each medium, before that
    #[arg(long, default_value_t = 5)]
    terms: u64,
}

/// How often the gateway ends in each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    /// By SIGTERM; these come first.
    pub(crate) terms: u64,
    /// By SIGKILL.
    pub(crate) kills: u64,
}

/// How many media passed, failed, and were left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// The command line's way in; `true` if nothing was lost.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    super::ci::build_release(&tree)?;
    let rounds = Rounds { terms: arguments.terms, kills: arguments.kills };
    let sum = run(&tree, rounds, &mut |line| println!("{line}"))?;
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(sum.failed == 0)
}

/// All media, the gateway ended so often on each.
pub(crate) fn run(tree: &Tree, rounds: Rounds, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let mut sum = Sum::default();
    for (name, attributes) in MEDIA {
        judge(name, survives(tree, attributes, false, rounds), &mut sum, say);
    }
    if is_root() {
        judge("a loop device", survives(tree, &[], true, rounds), &mut sum, say);
    } else {
        sum.skipped += 1;
        say("SKIPPED a loop device: needs root to set it up");
    }
    Ok(sum)
}

fn judge(name: &str, outcome: Result<Writes>, sum: &mut Sum, say: &mut dyn FnMut(&str)) {
    match outcome {
        Ok(Writes { answered, refused }) => {
            sum.passed += 1;
            say(&format!(
                "ok     {name}: all of {answered} answered writes were there after each SIGTERM and SIGKILL, none of the \
                 {refused} that SIGTERM had refused"
            ));
        }
        Err(failure) => {
            sum.failed += 1;
            say(&format!("FAILED {name}: {failure}"));
        }
    }
}

/// What became of writes.
#[derive(Clone, Copy, Debug, Default)]
struct Writes {
    /// With GOOD.
    answered: u64,
    /// With BUSY.
    refused: u64,
}

/// Ends it, restarts it and looks, again and again; what became of the writes in all.
fn survives(tree: &Tree, attributes: &[&str], loops: bool, rounds: Rounds) -> Result<Writes> {
    let mut gateway = Gateway::prepare(tree)?;
    let file = gateway.folder().join("medium.img");
    std::fs::File::create(&file).and_then(|file| file.set_len(UNIT_BYTES)).context(file.display())?;
    // It is taken down after the gateway, which holds it open and is declared behind it.
    let device = if loops { Some(LoopDevice::attach(&file)?) } else { None };
    let (handler, path) = match &device {
        Some(device) => ("vdisk_blockio", device.path()),
        None => ("vdisk_fileio", file.as_path()),
    };
    let mut lines = vec![format!("filename {}", path.display())];
    lines.extend(attributes.iter().map(|line| (*line).to_owned()));
    gateway.configure(&gateway::configuration(&[Device { handler, name: "unit", attributes: lines }]))?;
    gateway.argue(&["--cores", "0,1"]);
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..rounds.terms + rounds.kills {
        gateway.start()?;
        writers.iter_mut().try_for_each(|writer| writer.check(&gateway))?;
        let after = Duration::from_millis(100 + 130 * (round % 5));
        if round < rounds.terms {
            write_until_refused(&mut gateway, &mut writers, after)?;
        } else {
            write_until_killed(&mut gateway, &mut writers, after)?;
        }
    }
    gateway.start()?;
    writers.iter_mut().try_for_each(|writer| writer.check(&gateway))?;
    gateway.check()?;
    gateway.stop()?;
    Ok(writers.iter().fold(Writes::default(), |sum, Writer { writes, .. }| Writes {
        answered: sum.answered + writes.answered,
        refused: sum.refused + writes.refused,
    }))
}

fn write_until_killed(gateway: &mut Gateway, writers: &mut [Writer], after: Duration) -> Result<()> {
    let mut initiators = writers.iter().map(|writer| writer.log_in(gateway)).collect::<Result<Vec<_>>>()?;
    let refused = |writers: &[Writer]| writers.iter().map(|writer| writer.writes.refused).sum::<u64>();
    let before = refused(writers);
    thread::scope(|scope| {
        for (writer, initiator) in writers.iter_mut().zip(&mut initiators) {
            scope.spawn(move || while writer.write(initiator).is_ok() {});
        }
        thread::sleep(after);
        gateway.kill()
    })?;
    if refused(writers) > before {
        return Err(Failure::new("a write was refused"));
    }
    nothing_else(writers)
}

/// SIGTERM: it ends with status 0, and no writer has lost its session before each of its commands was answered.
fn write_until_refused(gateway: &mut Gateway, writers: &mut [Writer], after: Duration) -> Result<()> {
    let initiators = writers.iter().map(|writer| writer.log_in(gateway)).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let at_work: Vec<_> = writers
            .iter_mut()
            .zip(initiators)
            .map(|(writer, initiator)| scope.spawn(move || writer.write_until_refused(initiator)))
            .collect();
        thread::sleep(after);
        let stopped = gateway.stop();
        for work in at_work {
            work.join().unwrap_or_else(|_| Err(Failure::new("a writer panicked")))?;
        }
        stopped
    })?;
    nothing_else(writers)
}

/// `Err` if a write ended in a way that no write may.
fn nothing_else(writers: &[Writer]) -> Result<()> {
    match writers.iter().find_map(|writer| writer.wrong) {
        None => Ok(()),
        Some(status) => Err(Failure::new(format!("a write ended with status {status:#04x}"))),
    }
}

/// A session with cells of its own.
struct Writer {
    number: u16,
    random: Random,
    cells: Vec<Cell>,
    writes: Writes,
    /// A status that is neither GOOD nor BUSY.
    wrong: Option<u8>,
}

/// What is known of a cell.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Answered with GOOD; 0 is never written.
    answered: u64,
    /// The last that was sent.
    sent: u64,
}

impl Writer {
    fn new(number: u16) -> Writer {
        let random = Random::new(number.into());
        Writer { number, random, cells: vec![Cell::default(); CELLS], writes: Writes::default(), wrong: None }
    }

    fn log_in(&self, gateway: &Gateway) -> Result<Initiator> {
        let mut initiator = Initiator::log_in(gateway.portal(), initiator::plan(IQN, 1 + self.number))?;
        initiator.clear_attentions(0)?;
        Ok(initiator)
    }

    /// Batches until one is refused, which is the end of the session. `Err` if it ends before.
    fn write_until_refused(&mut self, mut initiator: Initiator) -> Result<()> {
        let before = self.writes.refused;
        while self.writes.refused == before && self.wrong.is_none() {
            self.write(&mut initiator).context("writes were not answered before the end")?;
        }
        Ok(())
    }

    /// One batch. `Err` when the target is gone; what was answered before that counts.
    fn write(&mut self, initiator: &mut Initiator) -> Result<()> {
        let first = self.random.index(CELLS - BATCH);
        let mut ios: Vec<Io> = (first..first + BATCH)
            .map(|cell| {
                let known = &mut self.cells[cell];
                known.sent += 1;
                Io::write(0, self.lba(cell), self.content(cell, self.cells[cell].sent))
            })
            .collect();
        let outcome = initiator.run(&mut ios);
        for (cell, io) in (first..).zip(&ios) {
            let known = &mut self.cells[cell];
            match io.outcome {
                Some((GOOD, _)) => {
                    known.answered = known.sent;
                    self.writes.answered += 1;
                }
                Some((BUSY, _)) => {
                    known.sent -= 1;
                    self.writes.refused += 1;
                }
                Some((status, _)) => self.wrong = Some(status),
                None => {}
            }
        }
        outcome
    }

    /// Reads all cells. What is found is what counts from now on.
    fn check(&mut self, gateway: &Gateway) -> Result<()> {
        let mut initiator = self.log_in(gateway)?;
        let mut ios: Vec<Io> = (0..CELLS).map(|cell| Io::read(0, self.lba(cell), CELL_BYTES)).collect();
        initiator.run(&mut ios)?;
        for (cell, io) in ios.iter().enumerate() {
            io.expect_good()?;
            let known = self.cells[cell];
            let found =
                (known.answered..=known.sent).rev().find(|version| io.data == self.content(cell, *version));
            // Of a write that was under way a part may be there; it is written again before it is looked at again.
            let torn = known.sent > known.answered && self.is_torn(cell, known, &io.data);
            if let Some(version) = found {
                self.cells[cell] = Cell { answered: version, sent: version };
            } else if !torn {
                let (number, Cell { answered, sent }) = (self.number, known);
                return Err(Failure::new(format!(
                    "writer {number}, cell {cell}: neither version {answered}, which was answered, nor {sent}"
                )));
            }
        }
        Ok(())
    }

    /// Whether each block is of the answered version or a later one that was sent.
    fn is_torn(&self, cell: usize, known: Cell, data: &[u8]) -> bool {
        let versions: Vec<Vec<u8>> =
            (known.answered..=known.sent).map(|version| self.content(cell, version)).collect();
        (0..CELL_BYTES).step_by(BLOCK_BYTES).all(|at| {
            let block = at..at + BLOCK_BYTES;
            versions.iter().any(|version| version[block.clone()] == data[block.clone()])
        })
    }

    /// Zeros for what was never written.
    fn content(&self, cell: usize, version: u64) -> Vec<u8> {
        let mut data = vec![0; CELL_BYTES];
        if version > 0 {
            let place = u64::try_from(cell).expect("small") << 8 | u64::from(self.number);
            Random::new(version << 32 | place).fill(&mut data);
        }
        data
    }

    fn lba(&self, cell: usize) -> u64 {
        let index = usize::from(self.number) * CELLS + cell;
        u64::try_from(index * CELL_BYTES / BLOCK_BYTES).expect("small")
    }
}

/// Each with its attributes.
const MEDIA: &[(&str, &[&str])] = &[
    ("a file through the page cache", &[]),
    ("a file that is written through", &["write_through 1"]),
    ("a file past the page cache", &["o_direct 1"]),
];
/// SAM-5 §5.3.1.
const GOOD: u8 = 0x00;
const BUSY: u8 = 0x08;
const WRITERS: u16 = 4;
const CELLS: usize = 512;
const CELL_BYTES: usize = 8192;
const BATCH: usize = 32;
const UNIT_BYTES: u64 = 32 << 20;
