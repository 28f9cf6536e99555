//! What this crate needs of an io_uring. A shard implements it on the real ring, the simulator on one of its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A file that the ring has adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle(pub u64);

/// A queue's own name for an operation that it has begun. The ring returns it with the completion; unique within the
/// queue, which the implementor adds a name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// What a ring is to work on.
#[derive(Debug)]
pub enum Source {
    /// A file of the kernel.
    Descriptor(OwnedFd),
    /// A file of a simulated world, by its number there. A real ring refuses it.
    Simulated(u64),
}

/// Ends the sleep of the shard whose ring it is from, from any thread. The shard then reaps its queues.
#[derive(Clone, Debug)]
pub struct Alarm(Arc<File>);

impl Alarm {
    /// An alarm that adds to this eventfd.
    pub fn new(event: OwnedFd) -> Self {
        Self(Arc::new(File::from(event)))
    }

    /// Wakes the shard, or keeps it from falling asleep.
    pub fn ring(&self) {
        // The counter could overflow only after 2^64 wakes that nobody reads; no other error is possible.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }
}

/// Reads, writes and syncs files. Nothing here blocks; an operation's end is told to
/// [`Queue::completed`](crate::Queue::completed).
pub trait Ring {
    /// A list of buffer ranges, in the order of the bytes. It moves into an operation and back.
    type Segments;

    /// Takes over a file.
    ///
    /// # Errors
    /// Where the ring has no room for it.
    fn adopt(&mut self, source: Source) -> io::Result<FileHandle>;

    /// Closes an adopted file, on which nothing is in flight.
    fn release(&mut self, file: FileHandle);

    /// Begins to read from `offset_bytes` + `skip_bytes` into the segments less their first `skip_bytes`.
    ///
    /// # Errors
    /// The segments, where the ring is full.
    fn read(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Self::Segments,
        skip_bytes: usize,
    ) -> Result<(), Self::Segments>;

    /// Begins to write the segments less their first `skip_bytes` at `offset_bytes` + `skip_bytes`. `durable`: as with
    /// RWF_DSYNC.
    ///
    /// # Errors
    /// The segments, where the ring is full.
    fn write(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Self::Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Self::Segments>;

    /// The same without a part to skip, as with RWF_ATOMIC beside: after a loss of power all of the bytes are there, or
    /// none. The file takes as many at that place, and they are one segment.
    ///
    /// # Errors
    /// The segments, where the ring is full.
    fn write_untorn(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Self::Segments,
        durable: bool,
    ) -> Result<(), Self::Segments>;

    /// Begins to make all data of the file durable, as `fdatasync(2)`. False where the ring is full.
    #[must_use]
    fn sync(&mut self, file: FileHandle, slot: Slot) -> bool;

    /// What media whose completions do not come by the ring wake the shard with.
    ///
    /// # Errors
    /// Where this ring cannot be woken, or no descriptor is left.
    fn alarm(&self) -> io::Result<Alarm> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Begins to make a range of the file read as zeroes, as `fallocate(2)` with PUNCH_HOLE (`deallocate`) or ZERO_RANGE,
    /// in either case with KEEP_SIZE. False where the ring is full.
    #[must_use]
    fn clear(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> bool;

    /// Bytes in all segments.
    fn length_bytes(segments: &Self::Segments) -> usize;

    /// The bytes, segment by segment.
    fn slices(segments: &Self::Segments) -> impl Iterator<Item = &[u8]>;

    /// The bytes, segment by segment.
    fn slices_mut(segments: &mut Self::Segments) -> impl Iterator<Item = &mut [u8]>;
}
