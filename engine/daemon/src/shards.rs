//! The threads of the shards: a core, a ring, memory, two queues of mail.

use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use portico_backstores::Medium;
use portico_control::runtime::{ControlMailbox, Shards};
use portico_model::identity::ShardId;
use portico_model::message::{ToControl, ToShard};
use portico_model::peer::PeerLetter;
use portico_ring::{Arena, ArenaOptions, Options, Pages, Ring, Waker};
use portico_shard::driver::Reactor;
use portico_shard::turn::{Mail, Mailbox, Settings, Shard};

/// Letters from control that a shard has not opened yet. Control sends what shards asked for and what is configured; a
/// shard opens its mail first in every turn.
const LETTERS_MAX: usize = 65_536;

/// Operations that one ring can have in flight: a receive and a send for each connection, and requests at media.
const OPERATIONS_MAX: u32 = 32_768;

/// Sockets and files of one shard.
const FILES_MAX: u32 = 16_384;

/// Kernel threads of one ring for file operations that would block; each unit caps what may be punted below it.
const WORKERS_BOUNDED: u32 = 64;

/// How the shards are made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The processors, one shard on each.
    pub cores: Vec<usize>,
    /// Memory of each for data, in MiB.
    pub memory_mib: u32,
    /// What pages it is made of.
    pub pages: Pages,
    /// Whether it is registered with the kernel.
    pub registers_memory: bool,
    /// How long a shard watches for work before it sleeps.
    pub spin: Duration,
    /// The beginning of time, the same for all.
    pub origin: Instant,
    /// Whether latencies are recorded.
    pub measures: bool,
}

/// Each shard's queue, and what wakes it.
type Ends = Vec<(Sender<Mail>, Waker)>;

/// Control's way to the shards.
#[derive(Debug)]
pub(crate) struct Queues {
    ends: Ends,
}

impl Shards<Medium> for Queues {
    fn send(&self, shard: ShardId, message: ToShard<Medium>) {
        let (sender, waker) = &self.ends[usize::from(shard.0)];
        // A shard that ended has nobody left to answer to.
        let _ = sender.send(message);
        waker.wake();
    }
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Threads {
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Waits for all of them to end.
    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a shard ended in panic");
            }
        }
    }
}

/// Starts one shard on each core of the plan.
///
/// # Errors
/// What the kernel lacks or forbids, with the remedy.
pub(crate) fn start(plan: &Plan, control: &ControlMailbox) -> Result<(Queues, Threads), String> {
    let mut ends = Vec::with_capacity(plan.cores.len());
    let peers = Arc::new(OnceLock::new());
    let mut threads = Vec::with_capacity(plan.cores.len());
    for (number, &core) in (0u16..).zip(&plan.cores) {
        let (sender, letters) = bounded(LETTERS_MAX);
        let (tell, told) = mpsc::sync_channel(1);
        let (plan, control, peers) = (plan.clone(), control.clone(), Arc::clone(&peers));
        let thread = thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || run(ShardId(number), core, &plan, PostOffice { letters, control, peers }, &tell))
            .map_err(|error| format!("no thread for shard {number}: {error}"))?;
        let waker = told.recv().map_err(|_| format!("shard {number} ended at its start"))??;
        ends.push((sender, waker));
        threads.push(thread);
    }
    // Before the first session: nobody has had anything to say to another shard.
    let _ = peers.set(ends.clone());
    Ok((Queues { ends }, Threads { threads }))
}

/// The shard's thread.
fn run(
    shard: ShardId,
    core: usize,
    plan: &Plan,
    mailbox: PostOffice,
    tell: &mpsc::SyncSender<Result<Waker, String>>,
) {
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!(shard = shard.0, core, "the thread could not be pinned to its processor");
    }
    let arena = arena_of(plan.memory_mib);
    let made =
        make(plan, arena).map(|(ring, memory)| (ring.waker(), Reactor::new(ring, memory, plan.origin)));
    let (waker, reactor) = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    if tell.send(Ok(waker)).is_err() {
        return;
    }
    let control = mailbox.control.clone();
    let shards = plan.cores.len();
    let settings = Settings { shard, shards, arena, spin: plan.spin, measures: plan.measures };
    let mut served = Shard::new(settings, reactor, mailbox);
    #[cfg(feature = "count-allocations")]
    crate::allocations::count_this_thread(shard);
    if let Err(error) = served.run() {
        let _ = control.try_send(ToControl::Failed { shard, reason: error.to_string() });
    }
}

fn make(plan: &Plan, arena: ArenaOptions) -> Result<(Ring, Arena), String> {
    let options = Options {
        operations_max: OPERATIONS_MAX,
        files_max: FILES_MAX,
        workers_bounded: WORKERS_BOUNDED,
        ..Options::default()
    };
    let mut ring = Ring::new(options).map_err(|unsupported| unsupported.to_string())?;
    let memory = memory_of(arena, plan.pages).map_err(|error| format!("memory for data: {error}"))?;
    if plan.registers_memory
        && let Err(error) = ring.register(&memory)
    {
        let needed = memory.length_bytes() >> 10;
        tracing::warn!(
            "--registered-memory: {error}; it takes `ulimit -l {needed}` for each shard. Goes on without"
        );
    }
    Ok((ring, memory))
}

/// Of these pages, or of those that there are.
fn memory_of(arena: ArenaOptions, pages: Pages) -> std::io::Result<Arena> {
    match Arena::with_pages(arena, pages) {
        Err(error) if pages == Pages::Reserved => {
            tracing::warn!(
                "--huge-pages reserved: {error}; `sysctl vm.nr_hugepages` sets some aside. Goes on as advised"
            );
            Arena::new(arena)
        }
        made => made,
    }
}

/// An eighth of the memory in small chunks, as much in medium ones, the rest in large ones.
fn arena_of(memory_mib: u32) -> ArenaOptions {
    const KIB_PER_MIB: u32 = 1 << 10;
    let kib = memory_mib * KIB_PER_MIB;
    let (small, medium) = (kib / 8 / 4, kib / 8 / 64);
    ArenaOptions { small, medium, large: (kib - small * 4 - medium * 64) / 256 }
}

/// A shard's mail.
struct PostOffice {
    letters: Receiver<Mail>,
    control: ControlMailbox,
    /// The queues of all shards, once all are there.
    peers: Arc<OnceLock<Ends>>,
}

impl Mailbox for PostOffice {
    #[inline]
    fn receive(&mut self) -> Option<Mail> {
        self.letters.try_recv().ok()
    }

    fn send(&mut self, letter: ToControl) -> Result<(), Box<ToControl>> {
        self.control.try_send(letter).map_err(Box::new)
    }

    fn tell(&mut self, shard: ShardId, letter: PeerLetter) -> Result<(), PeerLetter> {
        let ends = self.peers.get().and_then(|ends| ends.get(usize::from(shard.0)));
        let Some((sender, waker)) = ends else { return Err(letter) };
        match sender.try_send(ToShard::Peer(letter)) {
            Err(TrySendError::Full(ToShard::Peer(letter))) => return Err(letter),
            // A shard that ended touches no medium any more, and its process ends.
            Err(_) => {}
            Ok(()) => waker.wake(),
        }
        Ok(())
    }
}

/// The processors to use: those that were named, or all that this process may run on.
///
/// # Errors
/// When one that was named is not there, or none is.
pub(crate) fn cores(named: Option<&[usize]>) -> Result<Vec<usize>, String> {
    let there: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    match named {
        None if there.is_empty() => Ok(vec![0]),
        None => Ok(there.into_iter().take(portico_model::identity::SHARDS_MAX).collect()),
        Some(named) => match named.iter().find(|core| !there.contains(core)) {
            Some(missing) => {
                Err(format!("--cores: processor {missing} is not one that this process may use ({there:?})"))
            }
            None => Ok(named.to_vec()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_ring::Class;

    #[test]
    fn a_shard_has_its_memory_whether_or_not_huge_pages_are_set_aside() {
        let arena = memory_of(arena_of(16), Pages::Reserved).expect("16 MiB can be had");
        assert!(arena.take(Class::Large).is_some_and(|chunk| chunk.iter().all(|byte| *byte == 0)));
    }

    #[test]
    fn memory_is_divided_without_a_rest_of_a_large_chunk() {
        for mib in [16, 256, 1000] {
            let arena = arena_of(mib);
            let total = arena.total_bytes();
            let asked = u64::from(mib) << 20;
            assert!(total <= asked && asked - total < 256 << 10, "{mib} MiB: {total}");
        }
    }
}
