//! Work on all of a unit's medium, which control gives to one shard when nothing else is there any more: SANITIZE, FORMAT UNIT.
//!
//! It belongs to the unit and to no session: whoever asked may be gone. One piece at a time is at the medium, and after each the
//! shard has a turn for its other units. What is left of it at a shutdown stays undone, and is known to be (`Ledger`).

use std::sync::Arc;

use portico_backstores::{MediumError, Queue as _, QueueFull, Request, Submitted, Tag};
use portico_model::identity::UnitId;
use portico_model::message::ToControl;
use portico_ring::Segments;
use portico_scsi::work::{Fill, Work};

use super::medium::Adapter;
use super::series::{CLEAR_BYTES_MAX, fill};
use super::{Core, Op};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::PIECE_BYTES_MAX;
use crate::unit::{Blocks, Closing, Unit};

/// Such work under way.
#[derive(Debug)]
pub struct Job {
    work: Arc<Work>,
    pass: u8,
    at_bytes: u64,
    length_bytes: u64,
    /// One block as this pass leaves it; nothing where ranges are cleared.
    block: Vec<u8>,
    /// All is written; what is left is to make it stable.
    flushing: bool,
    /// What control was told last, in parts of 65536.
    told: u16,
}

/// Control is told of each of so many parts.
const PARTS: u64 = 64;

impl Job {
    fn new(work: Arc<Work>, length_bytes: u64, block_bytes: u32) -> Self {
        let block = match &work.fill {
            Fill::Zeroes { .. } => Vec::new(),
            Fill::Pattern { .. } => work.fill.block(0, block_bytes as usize),
        };
        Self { work, pass: 0, at_bytes: 0, length_bytes, block, flushing: false, told: 0 }
    }

    /// A piece is done; what control is to hear, if anything.
    fn advance(&mut self, length_bytes: u64, block_bytes: u32) -> Option<u16> {
        self.at_bytes += length_bytes;
        if self.at_bytes == self.length_bytes {
            self.pass += 1;
            self.at_bytes = 0;
            self.flushing = self.pass == self.work.fill.passes();
            if !self.flushing && !self.block.is_empty() {
                self.block = self.work.fill.block(self.pass, block_bytes as usize);
            }
        }
        let passes = u128::from(self.work.fill.passes());
        let done = u128::from(self.pass) * u128::from(self.length_bytes) + u128::from(self.at_bytes);
        let parts = done * u128::from(PARTS) / (passes * u128::from(self.length_bytes));
        let progress = parts * 65536 / u128::from(PARTS);
        let progress = u16::try_from(progress).unwrap_or(u16::MAX);
        let news = progress > self.told;
        self.told = self.told.max(progress);
        news.then_some(progress)
    }
}

impl<D: Driver> Core<D> {
    /// Control gives work out.
    pub fn begin_work(&mut self, id: UnitId, work: Arc<Work>) {
        let key = self.unit_keys.get(&id).copied();
        let Some(unit) = key.and_then(|key| self.units.get_mut(key)).filter(|unit| unit.queue.is_some())
        else {
            self.outbox.push_back(ToControl::WorkEnded { unit: id, well: false });
            return;
        };
        let geometry = &unit.state.geometry;
        let length_bytes = geometry.blocks() * u64::from(geometry.block_length());
        unit.job = Some(Box::new(Job::new(work, length_bytes, geometry.block_length())));
        self.works_due.extend(key);
    }

    /// Hands the next piece of each work over that waits for its turn, or for room.
    pub fn go_on_with_work(&mut self) {
        let due = std::mem::take(&mut self.works_due);
        let stalled = std::mem::take(&mut self.works_stalled);
        for key in due.into_iter().chain(stalled) {
            if let Some(unit) = self.units.get_mut(key)
                && (self.quiescing || unit.closing != Closing::No)
            {
                unit.job = None;
            }
            if !self.next_of_work(key) {
                self.works_stalled.push(key);
            }
        }
    }

    /// Whether the next turn has something to do although nothing comes in. Work for which there was no room has only when
    /// something was given back.
    #[must_use]
    pub fn has_something_due(&self) -> bool {
        !self.to_flush.is_empty()
            || !self.works_due.is_empty()
            || self.released && !self.works_stalled.is_empty()
    }

    /// False where there was no room.
    fn next_of_work(&mut self, key: Key<Unit>) -> bool {
        let Some(unit) = self.units.get(key) else { return true };
        let Some(job) = unit.job.as_deref() else { return true };
        let left_bytes = job.length_bytes - job.at_bytes;
        let (offset_bytes, clears) = (job.at_bytes, job.block.is_empty());
        let most = if clears { CLEAR_BYTES_MAX } else { PIECE_BYTES_MAX };
        let length_bytes = if job.flushing { 0 } else { left_bytes.min(most as u64) };
        let blocks = Blocks::at(offset_bytes, length_bytes, unit.state.geometry.block_length());
        let request = if job.flushing {
            Request::Flush
        } else if let (true, Fill::Zeroes { deallocate }) = (clears, &job.work.fill) {
            Request::Clear { offset_bytes, length_bytes, deallocate: *deallocate }
        } else {
            let length = usize::try_from(length_bytes).expect("a piece is small");
            let Some(mut segments) = self.take_memory(length) else { return false };
            let job = self.units.get(key).and_then(|unit| unit.job.as_deref()).expect("it was just there");
            fill(segments.slices_mut(), &job.block, offset_bytes);
            Request::Write { offset_bytes, segments, durable: false }
        };
        self.submit_work(key, blocks, length_bytes, request)
    }

    fn submit_work(
        &mut self,
        key: Key<Unit>,
        blocks: Blocks,
        length_bytes: u64,
        request: Request<Segments>,
    ) -> bool {
        let unit = self.units.get_mut(key).expect("the caller has it");
        let queue = unit.queue.as_mut().expect("work began with a queue, which stays");
        let op = self.ops.insert(Op::of_work(key, blocks, length_bytes));
        let mut adapter = Adapter { driver: &mut self.driver, unit: key };
        match queue.submit(&mut adapter, Tag(op.to_bits()), request) {
            Ok(submitted) => {
                unit.begun(key, &mut self.at_work);
                if let Submitted::Done(completion) = submitted {
                    self.medium_done(completion);
                }
                true
            }
            Err(QueueFull(request)) => {
                self.ops.remove(op);
                if unit.at_medium == 0 {
                    // It is another shard that is in the way, for a moment: nothing of ours will end.
                    self.released = true;
                }
                if let Request::Write { segments, .. } = request {
                    self.pool.keep_list(segments);
                }
                false
            }
        }
    }

    /// A piece is back.
    pub(super) fn work_came_back(
        &mut self,
        key: Key<Unit>,
        length_bytes: u64,
        result: Result<(), MediumError>,
    ) {
        let Some(unit) = self.units.get_mut(key) else { return };
        let block_bytes = unit.state.geometry.block_length();
        let Some(job) = unit.job.as_deref_mut() else { return };
        match result {
            // Ranges cannot be cleared here: zeroes are written instead, from where the work stands.
            Err(MediumError::Unsupported) if job.block.is_empty() && !job.flushing => {
                job.block = job.work.fill.block(0, block_bytes as usize);
            }
            Err(error) => {
                tracing::error!(device = &*unit.device, %error, "work on all of the medium has failed");
                return self.end_work(key, false);
            }
            Ok(()) if job.flushing => return self.end_work(key, true),
            Ok(()) => {
                if let Some(progress) = job.advance(length_bytes, block_bytes) {
                    self.outbox.push_back(ToControl::WorkIsAt { unit: unit.id, progress });
                }
            }
        }
        self.works_due.push(key);
    }

    fn end_work(&mut self, key: Key<Unit>, well: bool) {
        let Some(unit) = self.units.get_mut(key) else { return };
        unit.job = None;
        self.outbox.push_back(ToControl::WorkEnded { unit: unit.id, well });
    }
}

#[cfg(test)]
mod tests {
    use portico_scsi::work::WorkKind;

    use super::*;

    #[test]
    fn progress_is_told_in_parts_over_all_passes_and_never_twice() {
        let fill = Fill::Pattern { pattern: [1].into(), passes: 2, invert: true };
        let work = Work { kind: WorkKind::Sanitize, immediate: true, unrestricted: false, fill };
        let mut job = Job::new(Arc::new(work), 1 << 20, 512);
        assert_eq!(job.block, [!1; 512]);
        let mut told = Vec::new();
        while !job.flushing {
            told.extend(job.advance(1 << 12, 512));
        }
        assert_eq!(job.block, [1; 512], "the last pass leaves the pattern");
        assert_eq!(told.len(), 64);
        assert!(told.is_sorted_by(|before, after| before < after));
        assert_eq!((told[0], told[31], told[63]), (0x400, 0x8000, u16::MAX));
    }
}
