//! One shard's access to an RBD image: operations handed to librbd, and their ends, which come from librbd's threads.
//!
//! A thread of librbd's that ends an operation puts the slot's number and the result into this queue's [`Landing`], and
//! wakes the shard where it was not woken already. The shard takes them out in [`Queue::reap`].
#![expect(unsafe_code, reason = "hands memory to librbd, and takes its callbacks")]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use portico_librbd_sys::{Api, api};

use super::client::Image;
use super::store::RbdStore;
use crate::request::{Completion, MediumError, QueueFull, Request, Submitted, Tag};
use crate::ring::{Alarm, Ring, Slot};
use crate::{Backstore, Geometry, Queue};

/// Operations that one queue has at librbd at a time. librbd has no bound of its own.
pub const DEPTH_MAX: usize = 128;

/// Within which librbd compares in every version.
const SECTOR_BYTES: u64 = 512;

/// Segments of one operation for which room is made in advance: as many as a ring's list has.
const SEGMENTS_EXPECTED: usize = 72;

/// One shard's access to an image.
#[derive(Debug)]
pub struct RbdQueue<S> {
    store: Arc<RbdStore>,
    /// The image that new operations go to, and its number.
    image: Arc<Image>,
    epoch: u64,
    slots: Box<[Option<Work<S>>]>,
    /// Each slot's list of memory ranges. librbd reads them until the operation has ended.
    ranges: Box<[Vec<libc::iovec>]>,
    /// What each slot's callback is given. Boxed: their addresses are librbd's until the operation has ended.
    contexts: Box<[Context]>,
    free: Vec<u32>,
    landing: Arc<Landing>,
    /// Requests done outside of librbd while it was asked, to be told by `reap`.
    refused: VecDeque<End>,
}

// SAFETY: the ranges name memory that the segments in `slots` own, which move along.
unsafe impl<S: Send> Send for RbdQueue<S> {}

/// An operation at librbd.
#[derive(Debug)]
struct Work<S> {
    tag: Tag,
    kind: Kind,
    total_bytes: usize,
    segments: Option<S>,
    /// What librbd takes in one piece only, where the segments are not.
    joined: Vec<u8>,
    /// Open until the operation has ended, even if the store has gone on to another.
    image: Arc<Image>,
    epoch: u64,
    begun: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    /// Zeroes, and where it gives the space back: see `deallocate`.
    Clear {
        deallocate: bool,
    },
    Flush,
    /// The segments, again and again.
    Repeat,
    CompareAndWrite,
}

impl Kind {
    /// Whether one that timed out may still change what the image holds.
    pub(super) fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Clear { .. } | Self::Repeat | Self::CompareAndWrite)
    }
}

/// `RBD_WRITE_ZEROES_FLAG_THICK_PROVISION`: the space stays allocated.
const THICK_PROVISION: i32 = 1;

/// How an operation has ended.
#[derive(Clone, Copy, Debug)]
struct End {
    slot: u32,
    result: isize,
    at: Instant,
}

/// Where librbd's threads leave what has ended.
#[derive(Debug)]
struct Landing {
    ended: ArrayQueue<End>,
    /// The shard was woken and has not looked yet.
    rung: AtomicBool,
    alarm: Alarm,
}

impl Landing {
    /// Never blocks: called on librbd's threads.
    fn land(&self, slot: u32, result: isize) {
        // It has a place for each slot, and a slot ends once.
        let _ = self.ended.push(End { slot, result, at: Instant::now() });
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.alarm.ring();
        }
    }
}

/// What a slot's callback is given.
#[derive(Debug)]
struct Context {
    api: &'static Api,
    landing: Arc<Landing>,
    slot: u32,
    /// Where librbd writes at which byte a comparison failed: of the request, or of the object, as its version has it.
    /// It is not looked at.
    differs_at: UnsafeCell<u64>,
}

/// librbd's callback: an operation has ended.
///
/// # Safety
/// `context` is the [`Context`] of the slot whose operation `completion` is, and lives until that slot's end was reaped.
unsafe extern "C" fn ended(completion: api::Completion, context: *mut c_void) {
    // SAFETY: by the promise above.
    let context = unsafe { &*context.cast::<Context>() };
    // Once the end has landed, the queue may be closed: nothing of the context is touched behind that.
    let (landing, slot) = (Arc::clone(&context.landing), context.slot);
    // SAFETY: the completion is librbd's, has ended, and is given back once, here.
    let result = unsafe {
        let result = (context.api.rbd_aio_get_return_value)(completion);
        (context.api.rbd_aio_release)(completion);
        result
    };
    landing.land(slot, result);
}

impl Backstore for RbdStore {
    type Queue<S> = RbdQueue<S>;

    fn geometry(&self) -> Geometry {
        RbdStore::geometry(self)
    }

    fn open_queue<R: Ring>(self: &Arc<Self>, ring: &mut R) -> io::Result<RbdQueue<R::Segments>> {
        let (image, epoch) = self.current();
        let landing = Arc::new(Landing {
            ended: ArrayQueue::new(DEPTH_MAX),
            rung: AtomicBool::new(false),
            alarm: ring.alarm()?,
        });
        let slots = u32::try_from(DEPTH_MAX).expect("a small constant");
        let context = |slot| Context {
            api: image.api(),
            landing: Arc::clone(&landing),
            slot,
            differs_at: UnsafeCell::new(0),
        };
        Ok(RbdQueue {
            store: Arc::clone(self),
            slots: (0..slots).map(|_| None).collect(),
            ranges: (0..slots).map(|_| Vec::with_capacity(SEGMENTS_EXPECTED)).collect(),
            contexts: (0..slots).map(context).collect(),
            free: (0..slots).rev().collect(),
            refused: VecDeque::with_capacity(DEPTH_MAX),
            landing,
            image,
            epoch,
        })
    }
}

impl<S> RbdQueue<S> {
    /// What can be answered without the image.
    fn judge(&self, kind: Kind, offset_bytes: u64, total_bytes: usize) -> Option<Result<(), MediumError>> {
        let geometry = RbdStore::geometry(&self.store);
        let admitted = match kind {
            Kind::Read if geometry.contains(offset_bytes, total_bytes) => Ok(()),
            Kind::Read => Err(MediumError::BeyondEnd),
            Kind::Write | Kind::Clear { .. } | Kind::Repeat | Kind::CompareAndWrite => {
                geometry.admits_write(offset_bytes, total_bytes)
            }
            Kind::Flush => Ok(()),
        };
        match admitted {
            Err(error) => Some(Err(error)),
            Ok(()) if kind != Kind::Flush && total_bytes == 0 => Some(Ok(())),
            Ok(()) => self.store.refusal().map(Err),
        }
    }

    /// Goes on with the image that the store has now.
    fn follow(&mut self) {
        if self.store.epoch() != self.epoch {
            (self.image, self.epoch) = self.store.current();
        }
    }

    /// Hands the work in `slot` to librbd.
    fn begin(&mut self, slot: u32, offset_bytes: u64) {
        let index = slot as usize;
        let api = self.slots[index].as_ref().expect("what is begun has a slot").image.api();
        let context = (&raw const self.contexts[index]).cast_mut().cast::<c_void>();
        let mut completion = ptr::null_mut();
        // SAFETY: `ended` is given the slot's context, which lives as long as the queue, and the queue is not closed
        // while operations are in flight.
        let made = unsafe { (api.rbd_aio_create_completion)(context, ended, &raw mut completion) };
        let answer = if made < 0 {
            made
        } else {
            let answer = self.ask(index, offset_bytes, completion);
            if answer < 0 {
                // SAFETY: the operation was not begun: librbd will not call back.
                unsafe { (api.rbd_aio_release)(completion) };
            }
            answer
        };
        if answer < 0 {
            self.refused.push_back(End { slot, result: answer as isize, at: Instant::now() });
            self.landing.alarm.ring();
        }
    }

    /// Asks librbd for the operation in the slot.
    fn ask(&self, index: usize, offset_bytes: u64, completion: api::Completion) -> i32 {
        let work = self.slots[index].as_ref().expect("what is begun has a slot");
        let (api, image, length) = (work.image.api(), work.image.handle(), work.total_bytes);
        let ranges = &self.ranges[index];
        let (list, count) = (ranges.as_ptr(), i32::try_from(ranges.len()).expect("a list has few segments"));
        let (piece, piece_bytes) = in_one_piece(ranges, &work.joined);
        // SAFETY: the ranges stay as they are, and the memory that they and the piece name stays with the slot, until the
        // end was reaped. What is compared is as long as what is written behind it. The image is held by the slot as long.
        unsafe {
            match work.kind {
                Kind::Read => (api.rbd_aio_readv)(image, list, count, offset_bytes, completion),
                Kind::Write => (api.rbd_aio_writev)(image, list, count, offset_bytes, completion),
                Kind::Clear { deallocate } => {
                    let flags = if deallocate { 0 } else { THICK_PROVISION };
                    (api.rbd_aio_write_zeroes)(image, offset_bytes, length, completion, flags, 0)
                }
                Kind::Flush => (api.rbd_aio_flush)(image, completion),
                Kind::Repeat => {
                    (api.rbd_aio_writesame)(image, offset_bytes, length, piece, piece_bytes, completion, 0)
                }
                Kind::CompareAndWrite => {
                    let (written, at) = (piece.add(length), self.contexts[index].differs_at.get());
                    let compare = api.rbd_aio_compare_and_write;
                    let answer = compare(image, offset_bytes, length, piece, written, completion, at, 0);
                    i32::try_from(answer).unwrap_or(-libc::EIO)
                }
            }
        }
    }

    fn end(&mut self, End { slot, result, at }: End) -> Completion<S> {
        let work = self.slots[slot as usize].take().expect("an operation ends once");
        self.free.push(slot);
        let result = match usize::try_from(result) {
            Ok(bytes) if work.kind == Kind::Read && bytes != work.total_bytes => Err(MediumError::BeyondEnd),
            Ok(_) => {
                if work.kind.changes() {
                    self.store.written();
                }
                Ok(())
            }
            Err(_) if work.kind == Kind::CompareAndWrite && result == -(libc::EILSEQ as isize) => {
                Err(MediumError::Differs)
            }
            Err(_) if work.kind == Kind::CompareAndWrite && result == -(libc::EINVAL as isize) => {
                self.store.compares_at_most(SECTOR_BYTES);
                Err(MediumError::Unsupported)
            }
            Err(_) => {
                let errno = i32::try_from(-result).unwrap_or(libc::EIO);
                Err(self.store.failed(work.kind, work.epoch, errno))
            }
        };
        let library_ns = u64::try_from(at.duration_since(work.begun).as_nanos()).unwrap_or(u64::MAX);
        Completion { tag: work.tag, result, segments: work.segments, library_ns: Some(library_ns) }
    }
}

impl<S> Queue<S> for RbdQueue<S> {
    fn submit<R: Ring<Segments = S>>(
        &mut self,
        _ring: &mut R,
        tag: Tag,
        request: Request<S>,
    ) -> Result<Submitted<S>, QueueFull<S>> {
        let (kind, offset, length) = match &request {
            Request::Read { offset_bytes, segments } => {
                (Kind::Read, *offset_bytes, R::length_bytes(segments))
            }
            // What lies in one object is one transaction of its OSDs (`RbdStore::untorn_bytes`).
            Request::Write { offset_bytes, segments, .. }
            | Request::WriteUntorn { offset_bytes, segments, .. } => {
                (Kind::Write, *offset_bytes, R::length_bytes(segments))
            }
            Request::Clear { offset_bytes, length_bytes, deallocate } => {
                let length = usize::try_from(*length_bytes).unwrap_or(usize::MAX);
                (Kind::Clear { deallocate: *deallocate }, *offset_bytes, length)
            }
            Request::Repeat { offset_bytes, length_bytes, .. } => {
                (Kind::Repeat, *offset_bytes, usize::try_from(*length_bytes).unwrap_or(usize::MAX))
            }
            Request::CompareAndWrite { offset_bytes, segments } => {
                (Kind::CompareAndWrite, *offset_bytes, R::length_bytes(segments) / 2)
            }
            Request::Flush => (Kind::Flush, 0, 0),
        };
        if let Some(result) = self.judge(kind, offset, length) {
            return Ok(Submitted::done(tag, result, request.into_segments()));
        }
        let Some(slot) = self.free.pop() else { return Err(QueueFull(request)) };
        self.follow();
        let mut segments = request.into_segments();
        let ranges = &mut self.ranges[slot as usize];
        ranges.clear();
        match &mut segments {
            Some(segments) if kind == Kind::Read => ranges.extend(
                R::slices_mut(segments)
                    .map(|slice| libc::iovec { iov_base: slice.as_mut_ptr().cast(), iov_len: slice.len() }),
            ),
            Some(segments) => ranges.extend(R::slices(segments).map(|slice| {
                // librbd reads from it only.
                libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() }
            })),
            None => {}
        }
        // Rare commands, and short: the segments are booked, so is in effect what is copied out of them.
        let mut joined = Vec::new();
        if let (Kind::Repeat | Kind::CompareAndWrite, Some(segments)) = (kind, &segments)
            && ranges.len() > 1
        {
            R::slices(segments).for_each(|slice| joined.extend_from_slice(slice));
        }
        let image = Arc::clone(&self.image);
        let begun = Instant::now();
        let work = Work { tag, kind, total_bytes: length, segments, joined, image, epoch: self.epoch, begun };
        self.slots[slot as usize] = Some(work);
        self.begin(slot, offset);
        Ok(Submitted::InFlight)
    }

    fn completed<R: Ring<Segments = S>>(
        &mut self,
        _ring: &mut R,
        slot: Slot,
        _result: Result<u32, i32>,
        _segments: Option<S>,
    ) -> Option<Completion<S>> {
        unreachable!("an RBD image begins no operation of the ring, hence not {slot:?}")
    }

    fn reap<R: Ring<Segments = S>>(&mut self, _ring: &mut R, done: &mut Vec<Completion<S>>) {
        if self.in_flight() == 0 {
            return;
        }
        // First this, then the look: what lands behind the look rings again.
        self.landing.rung.store(false, Ordering::SeqCst);
        while let Some(end) = self.refused.pop_front().or_else(|| self.landing.ended.pop()) {
            let completion = self.end(end);
            done.push(completion);
        }
    }

    /// librbd compares within one object, or one unit of a striped image; an older one within a sector.
    fn compares(&self, offset_bytes: u64, length_bytes: u64) -> bool {
        let unit = self.store.compared_unit_bytes();
        offset_bytes / unit == (offset_bytes + length_bytes.max(1) - 1) / unit
    }

    fn repeats(&self) -> bool {
        true
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn close<R: Ring<Segments = S>>(self, _ring: &mut R) {
        assert_eq!(self.free.len(), self.slots.len(), "requests are in flight");
    }
}

impl<S> Drop for RbdQueue<S> {
    /// A shard that ends with operations in flight leaves their memory to librbd, which may still write to it.
    fn drop(&mut self) {
        if self.free.len() < self.slots.len() {
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(std::mem::take(&mut self.ranges));
            std::mem::forget(std::mem::replace(&mut self.contexts, Box::new([])));
        }
    }
}

/// What the ranges hold, where librbd takes one pointer: theirs if there is one, or that of the copy.
fn in_one_piece(ranges: &[libc::iovec], joined: &[u8]) -> (*const c_char, usize) {
    match ranges {
        [one] => (one.iov_base.cast_const().cast(), one.iov_len),
        _ => (joined.as_ptr().cast(), joined.len()),
    }
}
