//! Requests at the media: handing them over, taking them back, and what a fence asks of them meanwhile.

use portico_backstores::{
    Alarm, Completion, FileHandle, MediumError, Queue as _, QueueFull, Request, Slot, Source, Submitted, Tag,
};
use portico_model::identity::Generation;
use portico_model::message::ToControl;
use portico_ring::{Fd, Segments};
use portico_scsi::reservation::{CommandClass, NexusId};
use portico_scsi::sense::{AdditionalSense, Outcome, Sense, SenseKey};

use super::claims::is_closed;
use super::{Core, Line};
use crate::driver::Driver;
use crate::slab::Key;
use crate::tag;
use crate::task::{Task, Work};
use crate::unit::{Blocks, Unit};

/// One request at a medium.
#[derive(Debug)]
pub struct Op {
    /// For whom. Gone, perhaps, when it comes back.
    pub task: Key<Task>,
    /// Where.
    pub unit: Key<Unit>,
    /// On whose behalf.
    pub nexus: NexusId,
    /// By which target port: its relative identifier.
    pub port: u16,
    /// What reservations think of it.
    pub class: CommandClass,
    /// Which blocks.
    pub blocks: Blocks,
    /// What it is to its task.
    pub kind: OpKind,
    /// The generation whose drain waits for it.
    pub fenced: Option<Generation>,
    /// Its serial number among the orphans.
    pub orphan: Option<u64>,
}

impl Op {
    /// A flush that the Install of `generation` waits for.
    pub(super) fn flush_for(unit: Key<Unit>, generation: Generation) -> Self {
        Self {
            task: Key::nobody(),
            unit,
            nexus: NexusId(0),
            port: 0,
            class: CommandClass::Unrestricted,
            blocks: Blocks { lba: 0, count: 0 },
            kind: OpKind::InstallFlush,
            fenced: Some(generation),
            orphan: None,
        }
    }

    /// A piece of work on all of the medium.
    pub(super) fn of_work(unit: Key<Unit>, blocks: Blocks, length_bytes: u64) -> Self {
        let kind = OpKind::Work { length_bytes };
        Self { fenced: None, kind, blocks, ..Self::flush_for(unit, Generation(0)) }
    }

    /// The flush before the shutdown.
    pub(super) fn last_flush(unit: Key<Unit>) -> Self {
        Self { fenced: None, kind: OpKind::LastFlush, ..Self::flush_for(unit, Generation(0)) }
    }
}

/// What a request is to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// A piece of a READ or VERIFY that begins here in the transfer.
    Fetch {
        /// In bytes.
        at_bytes: u64,
    },
    /// A piece of a WRITE.
    Store {
        /// Its length.
        length_bytes: u64,
    },
    /// A piece of blocks that become zeroes.
    Clear {
        /// Its length.
        length_bytes: u64,
    },
    /// SYNCHRONIZE CACHE.
    Flush,
    /// The flush that an Install waits for.
    InstallFlush,
    /// The flush of a medium before the shutdown.
    LastFlush,
    /// A piece of work on all of the medium, or its flush.
    Work {
        /// Its length.
        length_bytes: u64,
    },
}

impl OpKind {
    /// Whether it leaves other bytes on a command's blocks than it found.
    pub(super) fn modifies(self) -> bool {
        match self {
            Self::Store { .. } | Self::Clear { .. } => true,
            // Work is the unit's: no session that goes leaves it behind.
            Self::Fetch { .. } | Self::Flush | Self::InstallFlush | Self::LastFlush | Self::Work { .. } => {
                false
            }
        }
    }
}

/// Why a request was not handed over.
pub(super) enum Refused {
    /// The command ends like this.
    Ends(Outcome),
    /// The queue has no room now. The list that came with the request is back.
    Full(Option<Segments>),
    /// Another command has these blocks for itself now. The list is back.
    Closed(Option<Segments>),
}

impl Refused {
    /// The list that is back, and in which line the task waits.
    ///
    /// # Panics
    /// Where the command ends.
    pub(super) fn waits(self) -> (Option<Segments>, Option<Line>) {
        match self {
            Self::Full(list) => (list, Some(Line::Room)),
            // In no line: those behind it may want other blocks.
            Self::Closed(list) => (list, None),
            Self::Ends(_) => panic!("a command that has ended does not wait"),
        }
    }
}

impl<D: Driver> Core<D> {
    /// Asks the current state whether this piece may touch the medium, and hands it over if so.
    ///
    /// # Errors
    /// What the command ends with, or that there is no room.
    pub(super) fn hand_over(
        &mut self,
        key: Key<Task>,
        kind: OpKind,
        blocks: Blocks,
        request: Request<Segments>,
    ) -> Result<(), Refused> {
        let task = self.tasks.get(key).expect("a task that hands something over is there");
        let unit = task.unit.expect("only commands of a unit reach a medium");
        self.hand_over_at(key, (unit, task.class), kind, blocks, request)
    }

    /// The same at a unit that need not be the one that the command came to, in a class of its own.
    pub(super) fn hand_over_at(
        &mut self,
        key: Key<Task>,
        (unit_key, class): (Key<Unit>, CommandClass),
        kind: OpKind,
        blocks: Blocks,
        request: Request<Segments>,
    ) -> Result<(), Refused> {
        let task = self.tasks.get_mut(key).expect("a task that hands something over is there");
        let Some(unit) = self.units.get_mut(unit_key) else {
            self.drop_request(request);
            return Err(Refused::Ends(not_ready()));
        };
        let session = self.sessions.get(task.session).expect("tasks end before their session does");
        let (nexus, port) = (session.nexus, session.relative_target_port);
        if let Err(outcome) = unit.admits(nexus, port, class, blocks) {
            self.drop_request(request);
            return Err(Refused::Ends(outcome));
        }
        if !unit.arbiter.is_open()
            && is_closed(task, unit, (kind, blocks), (&mut self.peer_mail, self.shards))
        {
            return Err(Refused::Closed(request.into_segments()));
        }
        let Some(queue) = &mut unit.queue else {
            self.drop_request(request);
            return Err(Refused::Ends(not_ready()));
        };
        let op =
            Op { task: key, unit: unit_key, nexus, port, class, blocks, kind, fenced: None, orphan: None };
        let upcoming = self.ops.upcoming();
        let mut adapter = Adapter { driver: &mut self.driver, unit: unit_key };
        match queue.submit(&mut adapter, Tag(upcoming.to_bits()), request) {
            Err(QueueFull(request)) => {
                if unit.at_medium == 0 {
                    // It is another shard that is in the way, for a moment: nothing of ours will end.
                    self.released = true;
                }
                Err(Refused::Full(request.into_segments()))
            }
            Ok(submitted) => {
                unit.begun(unit_key, &mut self.at_work);
                task.at_medium += 1;
                task.times.handed.get_or_insert(self.now);
                match submitted {
                    Submitted::InFlight => {
                        self.ops.insert(op);
                    }
                    // A medium in memory: the request is in no table, nobody can have looked for it.
                    Submitted::Done(Completion { result, segments, .. }) => {
                        self.op_done(&op, result, segments)
                    }
                }
                Ok(())
            }
        }
    }

    fn drop_request(&mut self, request: Request<Segments>) {
        self.pool.keep_list_if(request.into_segments());
    }

    /// An operation of the ring that belongs to a unit's queue has ended.
    pub fn medium_completed(
        &mut self,
        unit_index: usize,
        slot: u32,
        result: Result<u32, i32>,
        segments: Option<Segments>,
    ) {
        let Some(unit_key) = self.units.key_at(unit_index) else { return };
        let unit = self.units.get_mut(unit_key).expect("it was just found");
        let Some(queue) = &mut unit.queue else { return };
        let mut adapter = Adapter { driver: &mut self.driver, unit: unit_key };
        if let Some(completion) = queue.completed(&mut adapter, Slot(slot), result, segments) {
            self.medium_done(completion);
        }
    }

    /// A request is done.
    pub(super) fn medium_done(&mut self, completion: Completion<Segments>) {
        let Completion { tag, result, segments, library_ns } = completion;
        let op = self.ops.remove(Key::from_bits(tag.0)).expect("a request is done once");
        self.note_library(&op, library_ns);
        self.op_done(&op, result, segments);
    }

    /// A flush that nobody's command waits for has failed.
    fn note_failed_flush(&mut self, op: &Op, error: &MediumError) {
        let Some(unit) = self.units.get(op.unit) else { return };
        if op.kind == OpKind::LastFlush {
            tracing::error!(
                device = &*unit.device,
                "the last flush failed: what was written last may be lost"
            );
            self.failed_flushes.push(unit.id);
        }
        if let (OpKind::InstallFlush, Some(generation)) = (op.kind, op.fenced) {
            tracing::error!(device = &*unit.device, %error, "the flush failed that turns a write cache off");
            self.outbox.push_back(ToControl::FlushFailed { unit: unit.id, generation });
        }
    }

    fn op_done(&mut self, op: &Op, result: Result<(), MediumError>, segments: Option<Segments>) {
        self.released = true;
        if let Err(error) = &result {
            self.note_failed_flush(op, error);
        }
        self.leave_medium(op);
        if let OpKind::Work { length_bytes } = op.kind {
            self.pool.keep_list_if(segments);
            return self.work_came_back(op.unit, length_bytes, result);
        }
        let Some(task) = self.tasks.get_mut(op.task) else {
            self.let_go(segments);
            return;
        };
        task.at_medium -= 1;
        task.times.back = Some(self.now);
        if task.aborted || task.ended.is_some() {
            self.let_go(segments);
            self.settle(op.task);
            return;
        }
        if result == Err(MediumError::Unsupported) && matches!(op.kind, OpKind::Clear { .. }) {
            return self.write_zeroes_instead(op.task);
        }
        if let Err(error @ (MediumError::Differs | MediumError::Unsupported)) = result
            && matches!(&task.work, Work::Atomic(atomic) if atomic.native)
        {
            return self.atomic_refused(op.task, error == MediumError::Differs, segments);
        }
        if let Err(error) = result {
            // A closed medium says once that it is closed, not for each request that finds it so.
            if !matches!(error, MediumError::BecomingReady | MediumError::Removed) {
                let device = task.unit.and_then(|unit| self.units.get(unit)).map(|unit| unit.device.clone());
                tracing::warn!(device = device.as_deref(), lba = op.blocks.lba, ?op.kind, %error, "medium error");
            }
            self.let_go(segments);
            self.finish(op.task, outcome_of(error, op.kind, op.blocks));
            return;
        }
        match op.kind {
            OpKind::Fetch { at_bytes } => {
                let segments = segments.expect("a read gives its segments back");
                self.fetched(op.task, at_bytes, segments);
            }
            OpKind::Store { length_bytes } if matches!(task.work, Work::Atomic(_)) => {
                self.atomic_stored(op.task, length_bytes, segments);
            }
            OpKind::Store { length_bytes } if matches!(task.work, Work::Copy(_)) => {
                self.copy_stored(op.task, length_bytes, segments);
            }
            OpKind::Store { length_bytes } => {
                self.let_go(segments);
                self.stored(op.task, length_bytes);
            }
            OpKind::Clear { length_bytes } => self.stored(op.task, length_bytes),
            OpKind::Flush | OpKind::InstallFlush | OpKind::LastFlush | OpKind::Work { .. } => {
                self.finish(op.task, Outcome::GOOD);
            }
        }
    }

    /// What a request had is free.
    pub(super) fn let_go(&mut self, segments: Option<Segments>) {
        self.pool.keep_list_if(segments);
        self.keep_last_chunk();
    }

    /// What of the time at the medium was a library's.
    fn note_library(&mut self, op: &Op, library_ns: Option<u64>) {
        if let Some(time_ns) = library_ns.filter(|_| self.measures)
            && let Some(task) = self.tasks.get(op.task)
            && let Some(unit) = self.units.get_mut(op.unit)
        {
            unit.note_library(task.operation, time_ns);
        }
    }

    /// What a fence, an orphan or a closing unit wants to know when a request is off the medium.
    fn leave_medium(&mut self, op: &Op) {
        let Some(unit) = self.units.get_mut(op.unit) else { return };
        unit.at_medium -= 1;
        if let Some(generation) = op.fenced {
            unit.drains.piece_done(generation);
        }
        let orphan = op.orphan.and_then(|serial| unit.remove_orphan(self.shard, serial));
        if let Some(orphan) = orphan {
            self.outbox.push_back(ToControl::OrphanDone { orphan });
        }
        let waits_for_pieces = !unit.arbiter.is_open();
        if op.fenced.is_some() {
            self.answer_installed(op.unit);
        }
        if waits_for_pieces {
            self.advance_arbiter(op.unit);
        }
        self.close_if_idle(op.unit);
    }

    /// Takes what does not come by the ring out of the queues that have something to do.
    pub fn reap_media(&mut self) {
        if self.at_work.is_empty() {
            return;
        }
        let mut at_work = std::mem::take(&mut self.at_work);
        let mut done = std::mem::take(&mut self.pool.done);
        at_work.retain(|unit_key| {
            let Some(unit) = self.units.get_mut(*unit_key) else { return false };
            unit.is_at_work = unit.at_medium > 0;
            if unit.is_at_work
                && let Some(queue) = &mut unit.queue
            {
                queue.reap(&mut Adapter { driver: &mut self.driver, unit: *unit_key }, &mut done);
            }
            unit.is_at_work
        });
        self.at_work = at_work;
        for completion in done.drain(..) {
            self.medium_done(completion);
        }
        self.pool.done = done;
    }
}

/// NOT READY, because the medium is not there.
pub(super) fn not_ready() -> Outcome {
    Outcome::check(Sense::new(SenseKey::NotReady, AdditionalSense::NOT_READY_CAUSE_NOT_REPORTABLE))
}

/// What a command ends with whose piece failed. The INFORMATION is the first block of the piece.
fn outcome_of(error: MediumError, kind: OpKind, blocks: Blocks) -> Outcome {
    match error {
        MediumError::NoSpace => Outcome::out_of_space(),
        MediumError::WriteProtected => {
            Outcome::check(Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED))
        }
        MediumError::Gone | MediumError::Removed => not_ready(),
        MediumError::BecomingReady => {
            Outcome::check(Sense::new(SenseKey::NotReady, AdditionalSense::BECOMING_READY))
        }
        MediumError::TimedOut => {
            let timed_out = AdditionalSense::LOGICAL_UNIT_COMMUNICATION_TIMEOUT;
            Outcome::check(Sense::new(SenseKey::AbortedCommand, timed_out))
        }
        MediumError::Refused
        | MediumError::Unsupported
        | MediumError::Differs
        | MediumError::Cancelled
        | MediumError::Other(_) => Outcome::internal_failure(),
        MediumError::Unrecovered | MediumError::DataLost | MediumError::BeyondEnd => match kind {
            OpKind::Fetch { .. } => Outcome::read_error(blocks.lba),
            OpKind::Store { .. } | OpKind::Clear { .. } => Outcome::write_error(blocks.lba),
            OpKind::Flush | OpKind::InstallFlush | OpKind::LastFlush | OpKind::Work { .. } => {
                Outcome::check(Sense::new(SenseKey::MediumError, AdditionalSense::WRITE_ERROR))
            }
        },
    }
}

/// The shard's ring as a medium's queue sees it: it adds the unit to the queue's own slot.
pub(crate) struct Adapter<'a, D> {
    pub(crate) driver: &'a mut D,
    pub(crate) unit: Key<Unit>,
}

impl<D> Adapter<'_, D> {
    fn tag(&self, slot: Slot) -> u64 {
        tag::of_medium(self.unit.index(), slot.0)
    }
}

impl<D: Driver> portico_backstores::Ring for Adapter<'_, D> {
    type Segments = Segments;

    fn adopt(&mut self, source: Source) -> std::io::Result<FileHandle> {
        self.driver.adopt_medium(source).map(|fd| FileHandle(fd.to_bits()))
    }

    fn release(&mut self, file: FileHandle) {
        self.driver.close(Fd::from_bits(file.0));
    }

    fn read(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Segments> {
        let tag = self.tag(slot);
        self.driver
            .read(Fd::from_bits(file.0), tag, offset_bytes, segments, skip_bytes)
            .map_err(|full| full.0)
    }

    fn write(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Segments> {
        let (fd, tag) = (Fd::from_bits(file.0), self.tag(slot));
        self.driver.write(fd, tag, offset_bytes, segments, skip_bytes, durable).map_err(|full| full.0)
    }

    fn write_untorn(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Segments> {
        let (fd, tag) = (Fd::from_bits(file.0), self.tag(slot));
        self.driver.write_untorn(fd, tag, offset_bytes, segments, durable).map_err(|full| full.0)
    }

    fn sync(&mut self, file: FileHandle, slot: Slot) -> bool {
        let tag = self.tag(slot);
        self.driver.sync(Fd::from_bits(file.0), tag, true).is_ok()
    }

    fn alarm(&self) -> std::io::Result<Alarm> {
        self.driver.alarm().map(Alarm::new)
    }

    fn clear(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> bool {
        let tag = self.tag(slot);
        self.driver.clear(Fd::from_bits(file.0), tag, offset_bytes, length_bytes, deallocate).is_ok()
    }

    fn length_bytes(segments: &Segments) -> usize {
        segments.length_bytes()
    }

    fn slices(segments: &Segments) -> impl Iterator<Item = &[u8]> {
        segments.slices()
    }

    fn slices_mut(segments: &mut Segments) -> impl Iterator<Item = &mut [u8]> {
        segments.slices_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_found_no_space_says_so_and_is_no_medium_error() {
        let blocks = Blocks { lba: 8, count: 1 };
        for kind in [OpKind::Store { length_bytes: 512 }, OpKind::Clear { length_bytes: 512 }] {
            let sense = outcome_of(MediumError::NoSpace, kind, blocks).sense.unwrap();
            let additional = sense.additional;
            assert_eq!(
                (sense.key, additional),
                (SenseKey::DataProtect, AdditionalSense::SPACE_ALLOCATION_FAILED)
            );
            assert_eq!((additional.code, additional.qualifier), (0x27, 0x07));
        }
    }
}
