//! A medium that keeps nothing: reads are zeroes, writes are gone. It measures everything but a medium.

use crate::memory::{Lent, Memory, SharedMemory};
use crate::request::{Completion, MediumError, QueueFull, Request, Submitted, Tag};
use crate::ring::{Ring, Slot};
use crate::{Backstore, BlockCount, Geometry, Queue};
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// Zeroes that can be lent at once; a longer READ takes several, or segments.
pub const LENT_BYTES_MAX: usize = 16 << 20;

/// A null medium of some size.
#[derive(Debug)]
pub struct NullStore {
    geometry: Geometry,
    pub(crate) blocks: BlockCount,
    zeroes: Arc<SharedMemory>,
}

impl NullStore {
    /// Of `blocks` blocks of `block_length` bytes.
    ///
    /// # Errors
    /// Where the address space for [`LENT_BYTES_MAX`] zeroes is refused.
    pub fn new(block_length: u32, blocks: u64, read_only: bool) -> io::Result<Arc<Self>> {
        let zeroes = Arc::new(SharedMemory::zeroes(LENT_BYTES_MAX)?);
        let geometry = Geometry::in_memory(block_length, blocks, read_only);
        Ok(Arc::new(Self { geometry, blocks: BlockCount::new(blocks), zeroes }))
    }
}

impl Backstore for NullStore {
    type Queue<S> = NullQueue<S>;

    fn geometry(&self) -> Geometry {
        Geometry { blocks: self.blocks.now(), ..self.geometry }
    }

    fn open_queue<R: Ring>(self: &Arc<Self>, _ring: &mut R) -> io::Result<NullQueue<R::Segments>> {
        let zeroes = Rc::new(Memory::new(Arc::clone(&self.zeroes)));
        Ok(NullQueue { store: Arc::clone(self), zeroes, _segments: PhantomData })
    }
}

/// A shard's access to a null medium. All requests are done at once.
#[derive(Debug)]
pub struct NullQueue<S> {
    store: Arc<NullStore>,
    zeroes: Rc<Memory>,
    _segments: PhantomData<S>,
}

impl<S> Queue<S> for NullQueue<S> {
    fn submit<R: Ring<Segments = S>>(
        &mut self,
        _ring: &mut R,
        tag: Tag,
        request: Request<S>,
    ) -> Result<Submitted<S>, QueueFull<S>> {
        Ok(match request {
            Request::Read { offset_bytes, mut segments } => {
                let inside = self.store.geometry().contains(offset_bytes, R::length_bytes(&segments));
                if inside {
                    R::slices_mut(&mut segments).for_each(|slice| slice.fill(0));
                }
                let result = if inside { Ok(()) } else { Err(MediumError::BeyondEnd) };
                Submitted::done(tag, result, Some(segments))
            }
            Request::Write { offset_bytes, segments, .. }
            | Request::WriteUntorn { offset_bytes, segments, .. } => {
                let result = self.store.geometry().admits_write(offset_bytes, R::length_bytes(&segments));
                Submitted::done(tag, result, Some(segments))
            }
            Request::Clear { offset_bytes, length_bytes, .. } => {
                let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
                Submitted::done(tag, self.store.geometry().admits_write(offset_bytes, length), None)
            }
            Request::Repeat { offset_bytes, length_bytes, segments } => {
                let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
                Submitted::done(tag, self.store.geometry().admits_write(offset_bytes, length), Some(segments))
            }
            Request::CompareAndWrite { offset_bytes, segments } => {
                let length = R::length_bytes(&segments) / 2;
                let are_zeroes = R::slices(&segments).flatten().take(length).all(|byte| *byte == 0);
                let result = self.store.geometry().admits_write(offset_bytes, length);
                let result = result.and_then(|()| are_zeroes.then_some(()).ok_or(MediumError::Differs));
                Submitted::done(tag, result, Some(segments))
            }
            Request::Flush => Submitted::done(tag, Ok(()), None),
        })
    }

    fn compares(&self, _offset_bytes: u64, _length_bytes: u64) -> bool {
        true
    }

    fn repeats(&self) -> bool {
        true
    }

    fn completed<R: Ring<Segments = S>>(
        &mut self,
        _ring: &mut R,
        slot: Slot,
        _result: Result<u32, i32>,
        _segments: Option<S>,
    ) -> Option<Completion<S>> {
        unreachable!("a null medium begins no operation, hence not {slot:?}")
    }

    fn lend(&self, offset_bytes: u64, length_bytes: usize) -> Option<Lent> {
        let inside = self.store.geometry().contains(offset_bytes, length_bytes);
        // All zeroes are alike, and the first ones are warm.
        inside.then(|| Lent::new(&self.zeroes, 0, length_bytes)).flatten()
    }

    fn store<'a>(&self, offset_bytes: u64, length_bytes: usize, _: impl Iterator<Item = &'a [u8]>) -> bool {
        self.store.geometry().admits_write(offset_bytes, length_bytes).is_ok()
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn close<R: Ring<Segments = S>>(self, _ring: &mut R) {}
}
