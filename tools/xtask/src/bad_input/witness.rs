//! The well-behaved session that must not notice anything: random reads and writes of both units, each byte verified,
//! each answer in time. Where peers hold all the memory that there is, its writes may be refused for a while, which it
//! takes as initiators do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::lab::gateway::IQN;
use crate::lab::initiator::{self, BLOCK_BYTES, Initiator, Io};
use crate::lab::random::Random;
use crate::lab::{Failure, Result};

/// A session on a thread of its own.
pub(super) struct Witness {
    thread: JoinHandle<Result<u64>>,
    stop: Arc<AtomicBool>,
}

impl Witness {
    /// Logs in and begins.
    pub(super) fn start(portal: SocketAddr) -> Result<Witness> {
        let mut initiator = Initiator::log_in(portal, initiator::plan(IQN, 1))?;
        initiator.patience(PATIENCE)?;
        for lun in LUNS {
            initiator.clear_attentions(lun)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut memory = Memory { random: Random::new(1), versions: LUNS.map(|_| [0; CELLS]) };
            let mut count = 0;
            while !seen.load(Ordering::Relaxed) {
                memory.round(&mut initiator)?;
                count += 1;
            }
            Ok(count)
        });
        Ok(Witness { thread, stop })
    }

    /// Ends it; `Err` with what it noticed.
    pub(super) fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self.thread.join().unwrap_or_else(|_| Err(Failure::new("the witness panicked")))?;
        if rounds < ROUNDS_MIN {
            Err(Failure::new(format!("it came to {rounds} rounds only")))
        } else {
            Ok(())
        }
    }
}

/// What each cell of each unit holds: the version that was written last, 0 for none.
struct Memory {
    random: Random,
    versions: [[u64; CELLS]; LUNS.len()],
}

impl Memory {
    /// Writes some cells, then reads some.
    fn round(&mut self, initiator: &mut Initiator) -> Result<()> {
        let mut writes = Vec::new();
        for _ in 0..DEPTH {
            let (lun, cell) = (self.random.index(LUNS.len()), self.random.index(CELLS));
            // Two writes of one cell at once could end in either order.
            if writes.iter().any(|(other, _, _)| *other == (lun, cell)) {
                continue;
            }
            let version = self.versions[lun][cell] + 1;
            writes.push(((lun, cell), version, content(lun, cell, version)));
        }
        let mut ios: Vec<Io> = writes
            .iter_mut()
            .map(|((lun, cell), _, data)| Io::write(LUNS[*lun], lba(*cell), std::mem::take(data)))
            .collect();
        initiator.run_patiently(&mut ios, PATIENCE)?;
        for (io, ((lun, cell), version, _)) in ios.iter().zip(&writes) {
            io.expect_good()?;
            self.versions[*lun][*cell] = *version;
        }
        let cells: Vec<(usize, usize)> =
            (0..DEPTH).map(|_| (self.random.index(LUNS.len()), self.random.index(CELLS))).collect();
        let mut ios: Vec<Io> =
            cells.iter().map(|(lun, cell)| Io::read(LUNS[*lun], lba(*cell), CELL_BYTES)).collect();
        initiator.run_patiently(&mut ios, PATIENCE)?;
        for (io, (lun, cell)) in ios.iter().zip(cells) {
            io.expect_good()?;
            let version = self.versions[lun][cell];
            let expected = if version == 0 { vec![0; CELL_BYTES] } else { content(lun, cell, version) };
            if io.data != expected {
                return Err(Failure::new(format!("LUN {lun}, cell {cell}: not what version {version} had")));
            }
        }
        Ok(())
    }
}

fn content(lun: usize, cell: usize, version: u64) -> Vec<u8> {
    let mut data = vec![0; CELL_BYTES];
    let seed = version << 20 | u64::try_from(lun << 16 | cell).expect("small numbers");
    Random::new(seed).fill(&mut data);
    data
}

fn lba(cell: usize) -> u64 {
    u64::try_from(FIRST_BLOCK + cell * CELL_BYTES / BLOCK_BYTES).expect("a block of a small unit")
}

const LUNS: [u8; 2] = [0, 1];
const CELLS: usize = 64;
const CELL_BYTES: usize = 16 << 10;
/// The broken peers have the first MiB and more.
const FIRST_BLOCK: usize = (32 << 20) / BLOCK_BYTES;
const DEPTH: usize = 8;
/// How long a witness waits for an answer, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(10);
const ROUNDS_MIN: u64 = 20;
