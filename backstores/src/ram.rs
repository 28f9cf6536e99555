//! A RAM disk: memory of this process that all shards read and write. READs are sent from where the bytes lie; a WRITE
//! is one copy, of which other writers of its pages see all or nothing (`stripes`). What it holds ends with the process.

use crate::memory::{Lent, Memory, SharedMemory};
use crate::request::{Completion, MediumError, QueueFull, Request, Submitted, Tag};
use crate::ring::{Ring, Slot};
use crate::stripes::Stripes;
use crate::{Backstore, BlockCount, Geometry, Queue};
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// A RAM disk.
#[derive(Debug)]
pub struct RamStore {
    geometry: Geometry,
    pub(crate) blocks: BlockCount,
    pub(crate) memory: Arc<SharedMemory>,
    writers: Stripes,
}

/// A RAM disk may grow to so many times the size with which it was opened, or to [`GROWTH_BYTES_MIN`], while it is open.
pub const GROWTH: usize = 16;
/// A page.
const PHYSICAL_BLOCK_BYTES: u32 = 4096;
/// See [`GROWTH`]. Addresses only: memory is taken as it is written.
pub const GROWTH_BYTES_MIN: usize = 64 << 30;

impl RamStore {
    /// Of `blocks` blocks of `block_length` bytes, all zero. Memory is taken as it is first written.
    ///
    /// # Errors
    /// Where the size does not fit the address space, is zero, or is refused by the kernel.
    pub fn new(block_length: u32, blocks: u64, read_only: bool) -> io::Result<Arc<Self>> {
        let size = blocks.checked_mul(u64::from(block_length)).and_then(|bytes| usize::try_from(bytes).ok());
        let size = size.ok_or(io::ErrorKind::InvalidInput)?;
        let reserved = size.saturating_mul(GROWTH).max(GROWTH_BYTES_MIN);
        let memory = Arc::new(SharedMemory::growing(size, reserved)?);
        // A page is what it has its memory in, and what one writer has for himself.
        let physical_block_bytes = block_length.max(PHYSICAL_BLOCK_BYTES);
        let geometry =
            Geometry { physical_block_bytes, ..Geometry::in_memory(block_length, blocks, read_only) };
        Ok(Arc::new(Self { geometry, blocks: BlockCount::new(blocks), memory, writers: Stripes::new() }))
    }
}

impl RamStore {
    /// What it holds, for whoever looks at it from beside.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }
}

impl Backstore for RamStore {
    type Queue<S> = RamQueue<S>;

    fn geometry(&self) -> Geometry {
        Geometry { blocks: self.blocks.now(), ..self.geometry }
    }

    fn open_queue<R: Ring>(self: &Arc<Self>, _ring: &mut R) -> io::Result<RamQueue<R::Segments>> {
        let lender = Rc::new(Memory::new(Arc::clone(&self.memory)));
        Ok(RamQueue { store: Arc::clone(self), lender, _segments: PhantomData })
    }
}

/// A shard's access to a RAM disk. All requests are done at once.
#[derive(Debug)]
pub struct RamQueue<S> {
    store: Arc<RamStore>,
    lender: Rc<Memory>,
    _segments: PhantomData<S>,
}

impl<S> RamQueue<S> {
    fn read<R: Ring<Segments = S>>(&self, offset_bytes: u64, segments: &mut S) -> Result<(), MediumError> {
        if !self.store.geometry().contains(offset_bytes, R::length_bytes(segments)) {
            return Err(MediumError::BeyondEnd);
        }
        let mut offset = position(offset_bytes);
        for slice in R::slices_mut(segments) {
            self.store.memory.copy_out(offset, slice);
            offset += slice.len();
        }
        Ok(())
    }

    fn write<R: Ring<Segments = S>>(&self, offset_bytes: u64, segments: &S) -> Result<(), MediumError> {
        self.store.geometry().admits_write(offset_bytes, R::length_bytes(segments))?;
        let mut offset = position(offset_bytes);
        for slice in R::slices(segments) {
            self.store.memory.copy_in(offset, slice);
            offset += slice.len();
        }
        Ok(())
    }
}

/// An offset that the geometry contains, as a position in memory.
fn position(offset_bytes: u64) -> usize {
    usize::try_from(offset_bytes).expect("the whole disk is mapped")
}

impl<S> Queue<S> for RamQueue<S> {
    fn submit<R: Ring<Segments = S>>(
        &mut self,
        _ring: &mut R,
        tag: Tag,
        request: Request<S>,
    ) -> Result<Submitted<S>, QueueFull<S>> {
        Ok(match request {
            Request::Read { offset_bytes, mut segments } => {
                let result = self.read::<R>(offset_bytes, &mut segments);
                Submitted::done(tag, result, Some(segments))
            }
            Request::Write { offset_bytes, segments, durable } => {
                let store = &self.store;
                let length = R::length_bytes(&segments);
                let Some(_alone) = store.writers.take(position(offset_bytes), length) else {
                    return Err(QueueFull(Request::Write { offset_bytes, segments, durable }));
                };
                let result = self.write::<R>(offset_bytes, &segments);
                Submitted::done(tag, result, Some(segments))
            }
            Request::Clear { offset_bytes, length_bytes, .. } => {
                let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
                let admitted = self.store.geometry().admits_write(offset_bytes, length);
                if admitted.is_ok() {
                    let Some(_alone) = self.store.writers.take(position(offset_bytes), length) else {
                        return Err(QueueFull(request));
                    };
                    self.store.memory.clear(position(offset_bytes), length);
                }
                Submitted::done(tag, admitted, None)
            }
            Request::Repeat { .. } | Request::CompareAndWrite { .. } | Request::WriteUntorn { .. } => {
                Submitted::done(tag, Err(MediumError::Unsupported), request.into_segments())
            }
            Request::Flush => Submitted::done(tag, Ok(()), None),
        })
    }

    fn completed<R: Ring<Segments = S>>(
        &mut self,
        _ring: &mut R,
        slot: Slot,
        _result: Result<u32, i32>,
        _segments: Option<S>,
    ) -> Option<Completion<S>> {
        unreachable!("a RAM disk begins no operation, hence not {slot:?}")
    }

    fn lend(&self, offset_bytes: u64, length_bytes: usize) -> Option<Lent> {
        Lent::new(&self.lender, offset_bytes, length_bytes)
    }

    fn store<'a>(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        if self.store.geometry().admits_write(offset_bytes, length_bytes).is_err() {
            return false;
        }
        let mut offset = position(offset_bytes);
        let Some(_alone) = self.store.writers.take(offset, length_bytes) else { return false };
        for part in parts {
            self.store.memory.copy_in(offset, part);
            offset += part.len();
        }
        true
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn close<R: Ring<Segments = S>>(self, _ring: &mut R) {}
}
