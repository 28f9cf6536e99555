//! What this crate needs of an io_uring. A shard implements it on the real ring, the simulator on one of its own.

use std::io;
use std::os::fd::OwnedFd;

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

    /// Begins to make all data of the file durable, as `fdatasync(2)`. False where the ring is full.
    #[must_use]
    fn sync(&mut self, file: FileHandle, slot: Slot) -> bool;

    /// Bytes in all segments.
    fn length_bytes(segments: &Self::Segments) -> usize;

    /// The bytes, segment by segment.
    fn slices(segments: &Self::Segments) -> impl Iterator<Item = &[u8]>;

    /// The bytes, segment by segment.
    fn slices_mut(segments: &mut Self::Segments) -> impl Iterator<Item = &mut [u8]>;
}
