//! Where the blocks are: nothing ([`null`]), memory ([`ram`]), files and block devices ([`mod@file`]), a Ceph
//! cluster ([`rbd`]).
//!
//! A [`Backstore`] is one logical unit's medium, shared by all shards and unchanging. Each shard opens a [`Queue`] at it,
//! which never blocks and, once open, never allocates. This crate imports nothing of ours: what it needs of an io_uring
//! it declares as [`Ring`], which a shard implements on the real one and the simulator on its own.
//!
//! A request's segments, whatever type the ring has for them, move in with [`Queue::submit`] and come back in the
//! [`Completion`]. What the medium holds in memory can instead be lent ([`Queue::lend`]), and is then sent to the
//! initiator from where it lies.
//!
//! | module | holds |
//! |---|---|
//! | [`request`] | [`Request`], [`Completion`], [`MediumError`] |
//! | [`ring`] | [`Ring`], the part of an io_uring that is needed here |
//! | [`medium`] | [`Medium`], [`MediumQueue`]: one of the kinds below, by enum dispatch |
//! | [`null`], [`ram`] | media without I/O |
//! | [`rbd`] | images of a Ceph cluster, through librbd |
//! | [`mod@file`] | files and block devices: short transfers, failed syncs, the cap on what the kernel punts |
//! | [`resize`] | another size while they are open |
//! | [`open`] | opening them, on a helper thread: exclusive use, alignment, size |
//! | [`memory`] | [`SharedMemory`], which several shards read and write |
//!
//! `unsafe` lives in `memory` (a mapping and opaque copies), `open::system` (calls of the kernel) and `rbd` (calls of librbd);
//! nowhere else.

pub mod file;
pub mod medium;
pub mod memory;
pub mod null;
pub mod open;
pub mod ram;
pub mod rbd;
pub mod request;
pub mod resize;
pub mod ring;
mod stripes;

pub use file::{Caching, FileQueue, FileStore};
pub use medium::{Medium, MediumQueue};
pub use memory::{Lent, Memory, SharedMemory};
pub use null::{NullQueue, NullStore};
pub use ram::{RamQueue, RamStore};
pub use rbd::{RbdOptions, RbdQueue, RbdStore};
pub use request::{Completion, MediumError, QueueFull, Request, Submitted, Tag};
pub use resize::BlockCount;
pub use ring::{Alarm, FileHandle, Ring, Slot, Source};

use std::io;
use std::sync::Arc;

/// A medium: one per logical unit, shared by all shards.
pub trait Backstore: Send + Sync {
    /// One shard's access to it, for segments of type `S`.
    type Queue<S>: Queue<S>;

    /// Its size and its wishes.
    fn geometry(&self) -> Geometry;

    /// Opens a shard's access. Done when a logical unit comes to a shard, not while it serves.
    ///
    /// # Errors
    /// Where the kernel refuses another descriptor, or the ring has no room for it.
    fn open_queue<R: Ring>(self: &Arc<Self>, ring: &mut R) -> io::Result<Self::Queue<R::Segments>>;
}

/// One shard's access to a medium.
pub trait Queue<S> {
    /// Begins `request`. What needs no I/O is done at once and returned as such.
    ///
    /// # Errors
    /// [`QueueFull`] with the request: as many are in flight as the queue has room for, or the ring is full.
    fn submit<R: Ring<Segments = S>>(
        &mut self,
        ring: &mut R,
        tag: Tag,
        request: Request<S>,
    ) -> Result<Submitted<S>, QueueFull<S>>;

    /// An operation that this queue began on the ring has ended with `result` (bytes, or an error number), and gave
    /// `segments` back. Returns the request that is done by it; `None` while there is more to do.
    fn completed<R: Ring<Segments = S>>(
        &mut self,
        ring: &mut R,
        slot: Slot,
        result: Result<u32, i32>,
        segments: Option<S>,
    ) -> Option<Completion<S>>;

    /// Appends completions that do not come by the ring, and begins what waited for room in it.
    fn reap<R: Ring<Segments = S>>(&mut self, ring: &mut R, done: &mut Vec<Completion<S>>) {
        let _ = (ring, done);
    }

    /// Lends a range of the medium, where it lies in memory, so that a READ needs neither buffer nor copy. `None`: read
    /// it into segments.
    fn lend(&self, offset_bytes: u64, length_bytes: usize) -> Option<Lent> {
        let _ = (offset_bytes, length_bytes);
        None
    }

    /// Writes `parts`, which are `length_bytes` in all, where the medium is memory: a WRITE whose data are all here is done
    /// by that, without a request. `false`: nothing was written, and it has to be submitted (which also says why not).
    fn store<'a>(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        let _ = (offset_bytes, length_bytes, parts);
        false
    }

    /// Whether it takes [`Request::CompareAndWrite`] of so many bytes there. Others are for the caller to read, to
    /// compare and to write.
    fn compares(&self, offset_bytes: u64, length_bytes: u64) -> bool {
        let _ = (offset_bytes, length_bytes);
        false
    }

    /// Whether it takes [`Request::Repeat`].
    fn repeats(&self) -> bool {
        false
    }

    /// Requests that are begun and not done.
    fn in_flight(&self) -> usize;

    /// Ends the access and gives the ring its descriptor back to close.
    ///
    /// # Panics
    /// While requests are in flight.
    fn close<R: Ring<Segments = S>>(self, ring: &mut R);
}

/// What a medium is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical block.
    pub block_length: u32,
    /// Logical blocks that the medium has.
    pub blocks: u64,
    /// Bytes that the medium writes at a time without reading first; a multiple of the block length.
    pub physical_block_bytes: u32,
    /// Every segment must begin at a multiple of this many bytes in memory, and be a multiple of it long.
    pub memory_alignment: u32,
    /// Every request must begin and end at a multiple of this many bytes on the medium; divides the block length.
    pub offset_alignment: u32,
    /// Whether it is a spinning disk.
    pub rotational: bool,
    /// Whether a completed write may be lost at a power cut until it is flushed: a write cache (WCE).
    pub volatile_cache: bool,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl Geometry {
    /// Bytes on the medium.
    pub fn size_bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_length)
    }

    /// Whether so many bytes from `offset_bytes` on are all on the medium.
    pub fn contains(&self, offset_bytes: u64, length_bytes: usize) -> bool {
        let end = u64::try_from(length_bytes).ok().and_then(|length| offset_bytes.checked_add(length));
        end.is_some_and(|end| end <= self.size_bytes())
    }

    /// Whether a write may go there.
    fn admits_write(&self, offset_bytes: u64, length_bytes: usize) -> Result<(), MediumError> {
        if self.read_only {
            Err(MediumError::WriteProtected)
        } else if !self.contains(offset_bytes, length_bytes) {
            Err(MediumError::BeyondEnd)
        } else {
            Ok(())
        }
    }

    /// For media in memory.
    const fn in_memory(block_length: u32, blocks: u64, read_only: bool) -> Self {
        Self {
            block_length,
            blocks,
            physical_block_bytes: block_length,
            memory_alignment: 1,
            offset_alignment: 1,
            rotational: false,
            volatile_cache: false,
            read_only,
        }
    }
}
