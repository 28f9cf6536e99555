//! One medium of any kind: dispatch by enum, without boxes.

use crate::file::{FileQueue, FileStore};
use crate::memory::Lent;
use crate::null::{NullQueue, NullStore};
use crate::ram::{RamQueue, RamStore};
use crate::rbd::{RbdQueue, RbdStore};
use crate::request::{Completion, QueueFull, Request, Submitted, Tag};
use crate::ring::{Ring, Slot};
use crate::{Backstore, Geometry, Queue};
use std::io;
use std::sync::Arc;

/// A logical unit's medium. Cloning shares it.
#[derive(Clone, Debug)]
pub enum Medium {
    /// Keeps nothing.
    Null(Arc<NullStore>),
    /// Memory of this process.
    Ram(Arc<RamStore>),
    /// A file or a block device.
    File(Arc<FileStore>),
    /// An image of a Ceph cluster.
    Rbd(Arc<RbdStore>),
}

impl Medium {
    /// Its size and its wishes.
    pub fn geometry(&self) -> Geometry {
        match self {
            Self::Null(store) => store.geometry(),
            Self::Ram(store) => store.geometry(),
            Self::File(store) => store.geometry(),
            Self::Rbd(store) => store.geometry(),
        }
    }

    /// How many bytes it keeps whole over a loss of power where it is asked to; `None` where nobody knows which writes are
    /// torn.
    pub fn untorn_bytes(&self) -> Option<u32> {
        match self {
            Self::File(store) => Some(store.caching().untorn_bytes).filter(|bytes| *bytes > 0),
            Self::Rbd(store) => store.untorn_bytes(),
            Self::Null(_) | Self::Ram(_) => None,
        }
    }

    /// Opens a shard's access.
    ///
    /// # Errors
    /// As [`Backstore::open_queue`].
    pub fn open_queue<R: Ring>(&self, ring: &mut R) -> io::Result<MediumQueue<R::Segments>> {
        Ok(match self {
            Self::Null(store) => MediumQueue::Null(store.open_queue(ring)?),
            Self::Ram(store) => MediumQueue::Ram(store.open_queue(ring)?),
            Self::File(store) => MediumQueue::File(store.open_queue(ring)?),
            Self::Rbd(store) => MediumQueue::Rbd(store.open_queue(ring)?),
        })
    }
}

/// One shard's access to a medium of any kind.
#[derive(Debug)]
pub enum MediumQueue<S> {
    /// To a null medium.
    Null(NullQueue<S>),
    /// To a RAM disk.
    Ram(RamQueue<S>),
    /// To a file or a block device.
    File(FileQueue<S>),
    /// To an image of a Ceph cluster.
    Rbd(RbdQueue<S>),
}

impl<S> Queue<S> for MediumQueue<S> {
    #[inline]
    fn submit<R: Ring<Segments = S>>(
        &mut self,
        ring: &mut R,
        tag: Tag,
        request: Request<S>,
    ) -> Result<Submitted<S>, QueueFull<S>> {
        match self {
            Self::Null(queue) => queue.submit(ring, tag, request),
            Self::Ram(queue) => queue.submit(ring, tag, request),
            Self::File(queue) => queue.submit(ring, tag, request),
            Self::Rbd(queue) => queue.submit(ring, tag, request),
        }
    }

    #[inline]
    fn completed<R: Ring<Segments = S>>(
        &mut self,
        ring: &mut R,
        slot: Slot,
        result: Result<u32, i32>,
        segments: Option<S>,
    ) -> Option<Completion<S>> {
        match self {
            Self::Null(queue) => queue.completed(ring, slot, result, segments),
            Self::Ram(queue) => queue.completed(ring, slot, result, segments),
            Self::File(queue) => queue.completed(ring, slot, result, segments),
            Self::Rbd(queue) => queue.completed(ring, slot, result, segments),
        }
    }

    #[inline]
    fn reap<R: Ring<Segments = S>>(&mut self, ring: &mut R, done: &mut Vec<Completion<S>>) {
        match self {
            Self::Null(queue) => queue.reap(ring, done),
            Self::Ram(queue) => queue.reap(ring, done),
            Self::File(queue) => queue.reap(ring, done),
            Self::Rbd(queue) => queue.reap(ring, done),
        }
    }

    #[inline]
    fn lend(&self, offset_bytes: u64, length_bytes: usize) -> Option<Lent> {
        match self {
            Self::Null(queue) => queue.lend(offset_bytes, length_bytes),
            Self::Ram(queue) => queue.lend(offset_bytes, length_bytes),
            Self::File(queue) => queue.lend(offset_bytes, length_bytes),
            Self::Rbd(queue) => queue.lend(offset_bytes, length_bytes),
        }
    }

    #[inline]
    fn store<'a>(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        match self {
            Self::Null(queue) => Queue::<S>::store(queue, offset_bytes, length_bytes, parts),
            Self::Ram(queue) => Queue::<S>::store(queue, offset_bytes, length_bytes, parts),
            Self::File(_) | Self::Rbd(_) => false,
        }
    }

    fn compares(&self, offset_bytes: u64, length_bytes: u64) -> bool {
        match self {
            Self::Null(queue) => queue.compares(offset_bytes, length_bytes),
            Self::Rbd(queue) => queue.compares(offset_bytes, length_bytes),
            Self::Ram(_) | Self::File(_) => false,
        }
    }

    fn repeats(&self) -> bool {
        match self {
            Self::Null(queue) => queue.repeats(),
            Self::Rbd(queue) => queue.repeats(),
            Self::Ram(_) | Self::File(_) => false,
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Null(queue) => Queue::<S>::in_flight(queue),
            Self::Ram(queue) => Queue::<S>::in_flight(queue),
            Self::File(queue) => Queue::<S>::in_flight(queue),
            Self::Rbd(queue) => Queue::<S>::in_flight(queue),
        }
    }

    fn close<R: Ring<Segments = S>>(self, ring: &mut R) {
        match self {
            Self::Null(queue) => queue.close(ring),
            Self::Ram(queue) => queue.close(ring),
            Self::File(queue) => queue.close(ring),
            Self::Rbd(queue) => queue.close(ring),
        }
    }
}
