//! SIGKILL under write load: whatever was answered with GOOD is there after a restart.
//!
//! Each block of the unit carries the version of its last write. A block may hold the version that was answered last, or
//! one that was on its way when the process died; nothing older, nothing else. (The page cache outlives the process, so
//! this is half of what durability means; the other half, the loss of power, is the simulator's and the guest's.)

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
    let sum = run(&tree, arguments.kills, &mut |line| println!("{line}"))?;
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(sum.failed == 0)
}

/// All media, each killed so often.
pub(crate) fn run(tree: &Tree, kills: u64, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let mut sum = Sum::default();
    for (name, attributes) in MEDIA {
        judge(name, survives(tree, attributes, false, kills), &mut sum, say);
    }
    if is_root() {
        judge("a loop device", survives(tree, &[], true, kills), &mut sum, say);
    } else {
        sum.skipped += 1;
        say("SKIPPED a loop device: needs root to set it up");
    }
    Ok(sum)
}

fn judge(name: &str, outcome: Result<u64>, sum: &mut Sum, say: &mut dyn FnMut(&str)) {
    match outcome {
        Ok(writes) => {
            sum.passed += 1;
            say(&format!("ok     {name}: all of {writes} answered writes were there after each kill"));
        }
        Err(failure) => {
            sum.failed += 1;
            say(&format!("FAILED {name}: {failure}"));
        }
    }
}

/// Kills, restarts and looks, again and again; how many writes were answered in all.
fn survives(tree: &Tree, attributes: &[&str], loops: bool, kills: u64) -> Result<u64> {
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
    for round in 0..kills {
        gateway.start()?;
        writers.iter_mut().try_for_each(|writer| writer.check(&gateway))?;
        write_until_killed(&mut gateway, &mut writers, Duration::from_millis(100 + 130 * (round % 5)))?;
    }
    gateway.start()?;
    writers.iter_mut().try_for_each(|writer| writer.check(&gateway))?;
    gateway.check()?;
    gateway.stop()?;
    Ok(writers.iter().map(|writer| writer.answered).sum())
}

fn write_until_killed(gateway: &mut Gateway, writers: &mut [Writer], after: Duration) -> Result<()> {
    let mut initiators = writers.iter().map(|writer| writer.log_in(gateway)).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for (writer, initiator) in writers.iter_mut().zip(&mut initiators) {
            scope.spawn(move || while writer.write(initiator).is_ok() {});
        }
        thread::sleep(after);
        gateway.kill()
    })?;
    if writers.iter().any(|writer| writer.refused) {
        return Err(Failure::new("a write ended with another status than GOOD"));
    }
    Ok(())
}

/// A session with cells of its own.
struct Writer {
    number: u16,
    random: Random,
    cells: Vec<Cell>,
    answered: u64,
    refused: bool,
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
        Writer { number, random, cells: vec![Cell::default(); CELLS], answered: 0, refused: false }
    }

    fn log_in(&self, gateway: &Gateway) -> Result<Initiator> {
        let mut initiator = Initiator::log_in(gateway.portal(), initiator::plan(IQN, 1 + self.number))?;
        initiator.clear_attentions(0)?;
        Ok(initiator)
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
            if io.is_good() {
                self.cells[cell].answered = self.cells[cell].sent;
                self.answered += 1;
            } else if io.outcome.is_some() {
                self.refused = true;
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
const WRITERS: u16 = 4;
const CELLS: usize = 512;
const CELL_BYTES: usize = 8192;
const BATCH: usize = 32;
const UNIT_BYTES: u64 = 32 << 20;
