//! Files and block devices, through the page cache or past it.
//!
//! What this file guards:
//! - **Short transfers are continued**, so that a completion means all bytes or an error.
//! - **A failed sync means unknown data.** After it Linux marks the dirty pages clean and reports the error once; asking
//!   again would answer with success. So the store remembers it, for all shards, and every later flush fails until the
//!   medium is opened again. Each queue has an open file description of its own, because the kernel keeps "has been
//!   told" there: of two syncs that run at once, each must hear of the error.
//! - **What the kernel punts to its workers is capped.** Buffered writes, writes that allocate and syncs occupy a worker
//!   each while they block. Beyond [`Caching::punted_max`] they wait here, first come, first served, so that one hung
//!   file cannot take all the workers of a ring. Reads overtake them, which SAM allows to simple tasks.
//!
//! No request is ever widened to a larger block and written back: two shards would lose each other's sectors.

use crate::request::{Completion, MediumError, QueueFull, Request, Submitted, Tag};
use crate::ring::{FileHandle, Ring, Slot, Source};
use crate::{Backstore, BlockCount, Geometry, Queue};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Requests that one queue has in flight, unless the store says otherwise.
pub const DEPTH_DEFAULT: u32 = 256;

/// Requests of one queue that may occupy the kernel's workers at a time, unless the store says otherwise. Writes to one
/// inode share a worker, so this is mainly the number of syncs.
pub const PUNTED_DEFAULT: u32 = 8;

/// Times that an interrupted operation is begun again before its error counts.
pub const RETRIES_MAX: u8 = 8;

/// How writes are kept, and how many requests are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caching {
    /// Past the page cache (O_DIRECT).
    pub direct: bool,
    /// Every write is durable before it completes.
    pub write_through: bool,
    /// The administrator promises that caches survive a power cut: nothing is synced.
    pub nv_cache: bool,
    /// So many bytes at a multiple of as many the kernel writes untorn where it is asked to (RWF_ATOMIC): a power of two. 0:
    /// none.
    pub untorn_bytes: u32,
    /// Whether writes may be punted: through the page cache, or into holes.
    pub writes_punt: bool,
    /// Requests in flight per queue.
    pub depth: u32,
    /// Of these, how many that may be punted.
    pub punted_max: u32,
}

impl Default for Caching {
    /// Through the page cache.
    fn default() -> Self {
        Self {
            direct: false,
            write_through: false,
            nv_cache: false,
            untorn_bytes: 0,
            writes_punt: true,
            depth: DEPTH_DEFAULT,
            punted_max: PUNTED_DEFAULT,
        }
    }
}

/// An open file or block device.
#[derive(Debug)]
pub struct FileStore {
    geometry: Geometry,
    pub(crate) blocks: BlockCount,
    caching: Caching,
    /// It has grown, and may have holes that it had not when it was opened.
    pub(crate) grown: AtomicBool,
    medium: Held,
    /// A sync has failed. Read by flushes only.
    data_lost: AtomicBool,
}

/// What a store holds on to.
#[derive(Debug)]
enum Held {
    /// The description with the lock or the exclusive claim, and some that queues will take.
    Kernel {
        file: File,
        spare: Mutex<Vec<OwnedFd>>,
    },
    Simulated(u64),
}

impl FileStore {
    /// Of a file that is open for exclusive use, with descriptions of its own for as many queues.
    pub(crate) fn new(file: File, queues: Vec<OwnedFd>, geometry: Geometry, caching: Caching) -> Arc<Self> {
        Self::held(Held::Kernel { file, spare: Mutex::new(queues) }, geometry, caching)
    }

    /// Of a file in a simulated world, by its number there.
    pub fn simulated(file: u64, geometry: Geometry, caching: Caching) -> Arc<Self> {
        Self::held(Held::Simulated(file), geometry, caching)
    }

    fn held(medium: Held, geometry: Geometry, caching: Caching) -> Arc<Self> {
        assert!(caching.depth > 0 && caching.punted_max > 0, "a queue with room for nothing");
        let blocks = BlockCount::new(geometry.blocks);
        let (grown, data_lost) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { geometry, blocks, caching, grown, medium, data_lost })
    }

    /// How writes are kept.
    pub fn caching(&self) -> Caching {
        self.caching
    }

    /// Whether a sync has failed since the medium was opened, so that what it holds is unknown.
    pub fn has_lost_data(&self) -> bool {
        self.data_lost.load(Ordering::Acquire)
    }

    /// The file, to ask for its size again. It is not for I/O. `None` in a simulated world.
    pub fn file(&self) -> Option<&File> {
        match &self.medium {
            Held::Kernel { file, .. } => Some(file),
            Held::Simulated(_) => None,
        }
    }

    /// A block device's exclusive claim, which alone may clear ranges of it; `None` for files.
    fn claim(&self) -> io::Result<Option<Source>> {
        match self.file() {
            Some(file) if file.metadata()?.file_type().is_block_device() => {
                Ok(Some(Source::Descriptor(file.try_clone()?.into())))
            }
            _ => Ok(None),
        }
    }

    /// A description for one more queue.
    fn source(&self) -> io::Result<Source> {
        match &self.medium {
            Held::Simulated(file) => Ok(Source::Simulated(*file)),
            Held::Kernel { file, spare } => {
                let spare = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let opened = spare.map_or_else(|| crate::open::reopen(file, self.geometry, self.caching), Ok);
                opened.map(Source::Descriptor)
            }
        }
    }
}

impl Backstore for FileStore {
    type Queue<S> = FileQueue<S>;

    fn geometry(&self) -> Geometry {
        Geometry { blocks: self.blocks.now(), ..self.geometry }
    }

    fn open_queue<R: Ring>(self: &Arc<Self>, ring: &mut R) -> io::Result<FileQueue<R::Segments>> {
        let file = ring.adopt(self.source()?)?;
        let clearing = match self.claim()? {
            Some(claim) => ring.adopt(claim)?,
            None => file,
        };
        let depth = self.caching.depth;
        Ok(FileQueue {
            store: Arc::clone(self),
            file,
            clearing,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            waiting: VecDeque::with_capacity(depth as usize),
            punted: 0,
        })
    }
}

/// One shard's access to a file or block device.
#[derive(Debug)]
pub struct FileQueue<S> {
    store: Arc<FileStore>,
    file: FileHandle,
    /// What ranges are cleared by: `file`, or a block device's exclusive claim.
    clearing: FileHandle,
    slots: Box<[Option<Work<S>>]>,
    free: Vec<u32>,
    /// Slots of requests that may be punted and are not begun, first come, first served.
    waiting: VecDeque<u32>,
    /// Requests begun that may be punted.
    punted: u32,
}

/// A request in its slot.
#[derive(Debug)]
struct Work<S> {
    tag: Tag,
    kind: Kind,
    total_bytes: usize,
    done_bytes: usize,
    retries: u8,
    /// It is begun, and among the queue's `punted`.
    punted: bool,
    /// A durable write found no space. Was it the write, or the sync at its end? Written again without the sync, to see.
    probing: bool,
    /// While the ring does not have them.
    segments: Option<S>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Read { offset_bytes: u64 },
    Write { offset_bytes: u64, durable: bool, untorn: bool },
    Clear { offset_bytes: u64, deallocate: bool },
    Flush,
}

/// What an operation's end means for its request.
enum Next {
    Done(Result<(), MediumError>),
    Continue,
}

impl<S> FileQueue<S> {
    fn may_punt(&self, kind: Kind) -> bool {
        match kind {
            Kind::Read { .. } => false,
            Kind::Write { .. } => self.store.caching.writes_punt || self.store.grown.load(Ordering::Relaxed),
            Kind::Clear { .. } | Kind::Flush => true,
        }
    }

    /// What can be answered without the medium.
    fn judge(&self, kind: Kind, total_bytes: usize) -> Option<Result<(), MediumError>> {
        let geometry = self.store.geometry();
        match kind {
            Kind::Read { offset_bytes } if !geometry.contains(offset_bytes, total_bytes) => {
                Some(Err(MediumError::BeyondEnd))
            }
            Kind::Write { offset_bytes, .. } | Kind::Clear { offset_bytes, .. } => {
                match geometry.admits_write(offset_bytes, total_bytes) {
                    Ok(()) if total_bytes == 0 => Some(Ok(())),
                    Ok(()) => None,
                    refused => Some(refused),
                }
            }
            Kind::Read { .. } => (total_bytes == 0).then_some(Ok(())),
            Kind::Flush if self.store.has_lost_data() => Some(Err(MediumError::DataLost)),
            Kind::Flush => (self.store.caching.nv_cache || geometry.read_only).then_some(Ok(())),
        }
    }

    /// Hands the request in `slot` to the ring. False where the ring is full: it is as before.
    fn begin<R: Ring<Segments = S>>(&mut self, ring: &mut R, slot: u32) -> bool {
        let file = self.file;
        let work = self.slots[slot as usize].as_mut().expect("a request that is begun has a slot");
        let begun = match work.kind {
            Kind::Flush => ring.sync(file, Slot(slot)),
            Kind::Clear { offset_bytes, deallocate } => {
                let length_bytes = work.total_bytes as u64;
                ring.clear(self.clearing, Slot(slot), offset_bytes, length_bytes, deallocate)
            }
            Kind::Read { offset_bytes } => {
                let segments = work.segments.take().expect("the ring does not have them");
                let begun = ring.read(file, Slot(slot), offset_bytes, segments, work.done_bytes);
                begun.map_err(|segments| work.segments = Some(segments)).is_ok()
            }
            Kind::Write { offset_bytes, durable, untorn } => {
                let segments = work.segments.take().expect("the ring does not have them");
                let begun = if untorn {
                    ring.write_untorn(file, Slot(slot), offset_bytes, segments, durable)
                } else {
                    ring.write(file, Slot(slot), offset_bytes, segments, work.done_bytes, durable)
                };
                begun.map_err(|segments| work.segments = Some(segments)).is_ok()
            }
        };
        if begun && self.may_punt(self.kind(slot)) {
            self.punted += 1;
            self.slots[slot as usize].as_mut().expect("just looked at").punted = true;
        }
        begun
    }

    fn kind(&self, slot: u32) -> Kind {
        self.slots[slot as usize].as_ref().expect("a request in flight has a slot").kind
    }

    /// Begins what waits, as far as the cap and the ring allow.
    fn begin_waiting<R: Ring<Segments = S>>(&mut self, ring: &mut R) {
        while let Some(&slot) = self.waiting.front() {
            let held_back = self.may_punt(self.kind(slot)) && self.punted >= self.store.caching.punted_max;
            if held_back || !self.begin(ring, slot) {
                break;
            }
            self.waiting.pop_front();
        }
    }

    fn take(&mut self, slot: u32) -> Work<S> {
        self.free.push(slot);
        self.slots[slot as usize].take().expect("a request is done once")
    }

    /// Judges the end of an operation of the request in `slot`.
    fn judge_end(&mut self, slot: u32, result: Result<u32, i32>) -> Next {
        let (caching, alignment) = (self.store.caching, self.store.geometry.offset_alignment);
        let work = self.slots[slot as usize].as_mut().expect("an operation belongs to a request");
        match result {
            Err(libc::EINTR | libc::EAGAIN) if work.retries < RETRIES_MAX => {
                work.retries += 1;
                Next::Continue
            }
            Err(libc::ENOSPC | libc::EDQUOT) if !caching.direct && work.begin_probing() => Next::Continue,
            // EBUSY: a block device that somebody else has open exclusively.
            Err(libc::EOPNOTSUPP | libc::EINVAL | libc::EBUSY) if matches!(work.kind, Kind::Clear { .. }) => {
                Next::Done(Err(MediumError::Unsupported))
            }
            Err(errno) => Next::Done(Err(self.failed(slot, errno))),
            Ok(_) if work.probing => Next::Done(Err(self.lose_data())),
            Ok(_) if matches!(work.kind, Kind::Flush) => {
                // Another shard's sync may have failed while this one ran.
                let lost = self.store.has_lost_data();
                Next::Done(if lost { Err(MediumError::DataLost) } else { Ok(()) })
            }
            Ok(_) if matches!(work.kind, Kind::Clear { .. }) => Next::Done(Ok(())),
            Ok(0) => Next::Done(Err(match work.kind {
                Kind::Read { .. } => MediumError::BeyondEnd,
                _ => MediumError::Unrecovered,
            })),
            // What is missing would be a write of its own.
            Ok(moved)
                if matches!(work.kind, Kind::Write { untorn: true, .. })
                    && moved as usize != work.total_bytes =>
            {
                Next::Done(Err(MediumError::Unrecovered))
            }
            Ok(moved) => {
                let before = work.done_bytes;
                work.done_bytes += moved as usize;
                assert!(work.done_bytes <= work.total_bytes, "more bytes than were asked for");
                if work.done_bytes == work.total_bytes {
                    return Next::Done(Ok(()));
                }
                if caching.direct {
                    // It must go on at a whole block: what a block has in part is moved again.
                    work.done_bytes -= work.done_bytes % alignment as usize;
                }
                if work.done_bytes > before {
                    Next::Continue
                } else {
                    Next::Done(Err(MediumError::Unrecovered))
                }
            }
        }
    }

    /// What an error number means for the request in `slot`, and for the medium.
    fn failed(&self, slot: u32, errno: i32) -> MediumError {
        let error = MediumError::from_errno(errno);
        let syncs = match self.kind(slot) {
            Kind::Flush => true,
            // Through the page cache it ends with a sync, which may have failed for other writes' pages.
            Kind::Write { durable, .. } => durable && !self.store.caching.direct,
            Kind::Read { .. } | Kind::Clear { .. } => false,
        };
        let judged_before_any_sync = matches!(error, MediumError::Cancelled | MediumError::Refused);
        if syncs && !judged_before_any_sync { self.lose_data() } else { error }
    }

    /// From now on no flush of this medium succeeds, on any shard.
    fn lose_data(&self) -> MediumError {
        self.store.data_lost.store(true, Ordering::Release);
        MediumError::DataLost
    }
}

impl<S> Queue<S> for FileQueue<S> {
    fn submit<R: Ring<Segments = S>>(
        &mut self,
        ring: &mut R,
        tag: Tag,
        request: Request<S>,
    ) -> Result<Submitted<S>, QueueFull<S>> {
        let Caching { write_through, nv_cache, punted_max, .. } = self.store.caching;
        let cleared_bytes = match request {
            Request::Clear { length_bytes, .. } => usize::try_from(length_bytes).unwrap_or(usize::MAX),
            _ => 0,
        };
        let (kind, segments) = match request {
            Request::Read { offset_bytes, segments } => (Kind::Read { offset_bytes }, Some(segments)),
            Request::Write { offset_bytes, segments, durable } => {
                let durable = (durable || write_through) && !nv_cache;
                (Kind::Write { offset_bytes, durable, untorn: false }, Some(segments))
            }
            Request::WriteUntorn { offset_bytes, segments, durable } => {
                let unit = u64::from(self.store.caching.untorn_bytes);
                let fits = unit > 0
                    && offset_bytes.is_multiple_of(unit)
                    && R::length_bytes(&segments) as u64 == unit
                    && R::slices(&segments).count() == 1;
                if !fits {
                    return Ok(Submitted::done(tag, Err(MediumError::Unsupported), Some(segments)));
                }
                let durable = (durable || write_through) && !nv_cache;
                (Kind::Write { offset_bytes, durable, untorn: true }, Some(segments))
            }
            Request::Clear { offset_bytes, deallocate, .. } => {
                (Kind::Clear { offset_bytes, deallocate }, None)
            }
            Request::Repeat { .. } | Request::CompareAndWrite { .. } => {
                let segments = request.into_segments();
                return Ok(Submitted::done(tag, Err(MediumError::Unsupported), segments));
            }
            Request::Flush => (Kind::Flush, None),
        };
        let total_bytes = segments.as_ref().map_or(cleared_bytes, R::length_bytes);
        if let Some(result) = self.judge(kind, total_bytes) {
            return Ok(Submitted::done(tag, result, segments));
        }
        let work = Work {
            tag,
            kind,
            total_bytes,
            done_bytes: 0,
            retries: 0,
            punted: false,
            probing: false,
            segments,
        };
        let Some(slot) = self.free.pop() else { return Err(QueueFull(work.into_request())) };
        self.slots[slot as usize] = Some(work);
        if self.may_punt(kind) && (self.punted >= punted_max || !self.waiting.is_empty()) {
            self.waiting.push_back(slot);
        } else if !self.begin(ring, slot) {
            return Err(QueueFull(self.take(slot).into_request()));
        }
        Ok(Submitted::InFlight)
    }

    fn completed<R: Ring<Segments = S>>(
        &mut self,
        ring: &mut R,
        slot: Slot,
        result: Result<u32, i32>,
        segments: Option<S>,
    ) -> Option<Completion<S>> {
        let Slot(slot) = slot;
        let work = self.slots[slot as usize].as_mut().expect("an operation belongs to a request");
        if std::mem::take(&mut work.punted) {
            self.punted -= 1;
        }
        work.segments = segments;
        match self.judge_end(slot, result) {
            Next::Continue => {
                if !self.begin(ring, slot) {
                    // Its operation has just left the ring, so this is rare; it goes first when there is room.
                    self.waiting.push_front(slot);
                }
                None
            }
            Next::Done(result) => {
                let Work { tag, segments, .. } = self.take(slot);
                self.begin_waiting(ring);
                Some(Completion { tag, result, segments, library_ns: None })
            }
        }
    }

    fn reap<R: Ring<Segments = S>>(&mut self, ring: &mut R, _done: &mut Vec<Completion<S>>) {
        self.begin_waiting(ring);
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn close<R: Ring<Segments = S>>(self, ring: &mut R) {
        assert_eq!(self.free.len(), self.slots.len(), "requests are in flight");
        ring.release(self.file);
        if self.clearing != self.file {
            ring.release(self.clearing);
        }
    }
}

impl<S> Work<S> {
    /// Makes a durable write one that is not, to find out what had no space. False for other requests.
    fn begin_probing(&mut self) -> bool {
        match &mut self.kind {
            Kind::Write { durable, .. } if *durable => {
                *durable = false;
                self.probing = true;
                true
            }
            _ => false,
        }
    }

    /// As it was submitted (but for what the store's caching made of `durable`, which it would make again).
    fn into_request(self) -> Request<S> {
        let segments = self.segments;
        let segments = |why| segments.expect(why);
        match self.kind {
            Kind::Read { offset_bytes } => {
                Request::Read { offset_bytes, segments: segments("the ring gave them back") }
            }
            Kind::Write { offset_bytes, durable, untorn } => {
                let segments = segments("the ring gave them back");
                if untorn {
                    Request::WriteUntorn { offset_bytes, segments, durable }
                } else {
                    Request::Write { offset_bytes, segments, durable }
                }
            }
            Kind::Clear { offset_bytes, deallocate } => {
                Request::Clear { offset_bytes, length_bytes: self.total_bytes as u64, deallocate }
            }
            Kind::Flush => Request::Flush,
        }
    }
}
