//! WRITE: data as they come, handed to the medium in pieces; and SYNCHRONIZE CACHE.

use std::collections::VecDeque;

use portico_backstores::{Queue as _, Request};
use portico_ring::{Buffer, Class, Segments};
use portico_scsi::sense::{AdditionalSense, Outcome};

use super::medium::Refused;
use super::{Core, Line, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::inbound::LARGE_DATA_BYTES;
use crate::outgoing::Outgoing;
use crate::slab::Key;
use crate::task::{PIECE_BYTES_MAX, Task, Verify, Work, Write};
use crate::unit::Blocks;

/// Bytes of one WRITE that are asked for and not on the medium yet.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Bytes of one WRITE that it can go on with.
const WRITE_BYTES_MIN: u32 = 256 << 10;

/// Bytes of the medium that one VERIFY has in memory: with as many of its data they are what any command can go on with.
pub(super) const VERIFY_BYTES_MAX: u32 = WRITE_BYTES_MIN / 2;

const _: () = assert!(WRITE_BYTES_MIN as usize == PIECE_BYTES_MAX && WRITE_BYTES_MAX >= WRITE_BYTES_MIN);

impl<D: Driver> Core<D> {
    /// A WRITE of `required_bytes` at `offset_bytes`. An initiator that sends fewer writes the whole blocks among them.
    pub(super) fn begin_write(
        &mut self,
        key: Key<Task>,
        offset_bytes: u64,
        required_bytes: u64,
        block_bytes: u32,
        durable: bool,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let progress = session.wire.want_data(task.name, required_bytes);
        if progress.is_complete
            && progress.is_settled
            && self.store_at_once(key, offset_bytes, required_bytes, block_bytes)
        {
            return;
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let moved = session.moved_bytes(task.name, required_bytes);
        let unsolicited_bytes = session.unsolicited_bytes(task.name);
        if moved.saturating_sub(unsolicited_bytes) as usize >= LARGE_DATA_BYTES
            && let Some(link) = session.link_mut(session.wire.seat_of_task(task.name))
        {
            link.asks_for_data = true;
        }
        task.work = Work::Write(Write {
            offset_bytes,
            moved_bytes: moved,
            length_bytes: moved - moved % block_bytes,
            handed_bytes: 0,
            stored_bytes: 0,
            called_bytes: unsolicited_bytes,
            booked_bytes: 0,
            durable,
        });
        self.book_data(key, moved, unsolicited_bytes);
    }

    /// A WRITE whose data are all here, to a medium in memory: it is judged and stored in one, and never was at the medium for
    /// anybody to see. `false`: it goes the way of all others, on which it hears what is in its way; nothing has happened.
    fn store_at_once(
        &mut self,
        key: Key<Task>,
        offset_bytes: u64,
        required_bytes: u64,
        block_bytes: u32,
    ) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return false };
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a WRITE has a unit");
        let Some(queue) = &unit.queue else { return false };
        let length = task.inflow_bytes;
        if length as u64 != required_bytes
            || length > PIECE_BYTES_MAX
            || length == 0
            || task.early_bytes > 0
            || !unit.arbiter.is_open()
        {
            return false;
        }
        let session = self.sessions.get(task.session).expect("a task has a session");
        let blocks = Blocks::at(offset_bytes, required_bytes, block_bytes);
        if unit.admits(session.nexus, session.relative_target_port, task.class, blocks).is_err()
            || !queue.store(offset_bytes, length, task.inflow.iter().map(|buffer| &buffer[..]))
        {
            return false;
        }
        let bytes = u32::try_from(length).expect("a piece is small");
        task.work = Work::Write(Write {
            offset_bytes,
            moved_bytes: bytes,
            length_bytes: bytes,
            handed_bytes: bytes,
            stored_bytes: bytes,
            called_bytes: bytes,
            booked_bytes: 0,
            durable: false,
        });
        (task.inflow_bytes, task.listed) = (0, true);
        task.inflow.clear();
        (task.times.handed, task.times.back) = (Some(self.now), Some(self.now));
        task.ended = Some(Outcome::GOOD);
        let (session, name) = (task.session, task.name);
        self.answer(session, name, Outgoing::Status(key));
        true
    }

    /// Books memory for the Data-Out of a command, of which some has come or comes unasked, and goes on as far as that leads.
    pub(super) fn book_data(&mut self, key: Key<Task>, moved: u32, unsolicited_bytes: u32) {
        self.unshelve(key);
        // R2Ts are withheld until there is memory for what they ask for. What came without being asked for is here; where
        // there is no place for that either, it is let go: the last defence (ARCHITECTURE, Scarcity).
        let asks = moved > unsolicited_bytes;
        if asks && self.book_asked(key) {
            return self.data_came(key);
        }
        // Whoever waits for more reads nothing yet that it could compare.
        let beside = if asks { 0 } else { self.to_compare_with(key) };
        let unasked = unsolicited_bytes + beside;
        if self.book(key, unasked.into(), Kind::Swift).is_err() {
            self.counters.refused_for_memory += 1;
            return self.finish(key, Outcome::TASK_SET_FULL);
        }
        if !asks {
            self.note_booked(key, unsolicited_bytes);
        }
        self.data_came(key);
    }

    /// Books the memory that Data-Out may fill at a time, as much as can be used or enough to go on; a task that gets none waits.
    pub(super) fn book_asked(&mut self, key: Key<Task>) -> bool {
        if self.queue_behind(key, Line::Patient) {
            return false;
        }
        let (moved, called) = match self.tasks.get(key).map(|task| &task.work) {
            Some(Work::Write(write)) => (write.moved_bytes, write.called_bytes),
            Some(Work::Verify(Verify { compare: Some(compare), .. })) => {
                (compare.data_bytes, compare.called_bytes)
            }
            _ => return false,
        };
        let at_a_time = |most: u32| moved.min(most).max(called);
        let beside = self.to_compare_with(key);
        let mut booked_bytes = at_a_time(WRITE_BYTES_MAX);
        let mut booked = self.book(key, (booked_bytes + beside).into(), Kind::Patient);
        if booked.is_err() {
            booked_bytes = at_a_time(WRITE_BYTES_MIN - beside);
            booked = self.book(key, (booked_bytes + beside).into(), Kind::Patient);
        }
        match booked {
            Ok(()) => self.note_booked(key, booked_bytes),
            Err(short) => self.wait_for(key, Some(Line::Patient), short),
        }
        booked.is_ok()
    }

    fn note_booked(&mut self, key: Key<Task>, bytes: u32) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.progressed = self.now;
        match &mut task.work {
            Work::Write(write) => write.booked_bytes = bytes,
            Work::Verify(Verify { compare: Some(compare), .. }) => compare.booked_bytes = bytes,
            _ => {}
        }
    }

    /// Bytes of the medium that a VERIFY has beside its data.
    fn to_compare_with(&self, key: Key<Task>) -> u32 {
        match self.tasks.get(key).map(|task| &task.work) {
            Some(Work::Verify(verify)) => {
                let length = u32::try_from(verify.length_bytes).unwrap_or(u32::MAX);
                length.min(VERIFY_BYTES_MAX)
            }
            _ => 0,
        }
    }

    /// How many bytes an R2T of this task may ask for now.
    pub(super) fn r2t_room_bytes(&self, key: Key<Task>) -> u32 {
        match self.tasks.get(key).map(|task| &task.work) {
            Some(Work::Write(write)) => {
                (write.booked_bytes + write.stored_bytes).saturating_sub(write.called_bytes)
            }
            Some(Work::Verify(Verify { compare: Some(compare), .. })) => {
                (compare.booked_bytes + compare.compared_bytes).saturating_sub(compare.called_bytes)
            }
            Some(Work::Series(series)) if series.gathers_bytes == 0 => 0,
            Some(Work::Atomic(atomic)) if !atomic.has_place => 0,
            Some(Work::Parameters(_) | Work::Series(_) | Work::Atomic(_)) => u32::MAX,
            _ => 0,
        }
    }

    /// An R2T for so many bytes has gone out.
    pub(super) fn called(&mut self, key: Key<Task>, bytes: u32) {
        match self.tasks.get_mut(key).map(|task| &mut task.work) {
            Some(Work::Write(write)) => write.called_bytes += bytes,
            Some(Work::Verify(Verify { compare: Some(compare), .. })) => compare.called_bytes += bytes,
            _ => {}
        }
    }

    /// Hands over what has come: whole pieces, and the rest once all of it is there.
    pub(super) fn pump_write(&mut self, key: Key<Task>) {
        let Some(Task { work: Work::Write(write), waits: None, .. }) = self.tasks.get(key) else { return };
        if write.booked_bytes == 0 && write.moved_bytes > 0 {
            if !self.book_asked(key) {
                return;
            }
            self.list_r2t(key);
        }
        loop {
            let Some(task) = self.tasks.get_mut(key) else { return };
            let Work::Write(write) = &task.work else { return };
            if task.ended.is_some() || task.aborted {
                return;
            }
            let rest = (write.length_bytes - write.handed_bytes) as usize;
            let session = self.sessions.get(task.session).expect("a task has a session");
            let complete = session.wire.progress(task.name).is_complete;
            if rest == 0 {
                if complete && task.at_medium == 0 {
                    self.finish(key, Outcome::GOOD);
                }
                return;
            }
            let length = rest.min(PIECE_BYTES_MAX);
            if task.inflow_bytes < length {
                if complete {
                    // The initiator ended its data early; nothing of the blocks that are not whole is written.
                    let why = AdditionalSense::NOT_ENOUGH_UNSOLICITED_DATA;
                    self.finish(key, Outcome::aborted(why));
                }
                return;
            }
            if !self.hand_over_inflow(key, length) {
                return;
            }
        }
    }

    /// Hands the first `length` bytes of a task's data to the medium; tells whether they went.
    fn hand_over_inflow(&mut self, key: Key<Task>, length: usize) -> bool {
        if self.queue_behind(key, Line::Room) {
            return false;
        }
        let Some(segments) = self.piece_of_inflow(key, length) else {
            // In no line: those before it in one may wait for what this piece sets free.
            self.wait_for(key, None, Short::Unit);
            return false;
        };
        let Some(task) = self.tasks.get_mut(key) else { return false };
        let Work::Write(write) = &mut task.work else { return false };
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a WRITE has a unit");
        let block_bytes = unit.state.geometry.block_length();
        let offset_bytes = write.offset_bytes + u64::from(write.handed_bytes);
        write.handed_bytes += u32::try_from(length).expect("a piece is small");
        // By the state of now: the write cache may have been turned off while the data were on their way.
        let durable = unit.state.mode.write_cache.must_be_stable(write.durable);
        let blocks = Blocks::at(offset_bytes, length as u64, block_bytes);
        let kind = OpKind::Store { length_bytes: length as u64 };
        let request = Request::Write { offset_bytes, segments, durable };
        match self.hand_over(key, kind, blocks, request) {
            Ok(()) => true,
            Err(Refused::Ends(outcome)) => {
                self.finish(key, outcome);
                false
            }
            Err(refused) => {
                let (list, line) = refused.waits();
                self.put_back(key, list.expect("a write's list comes back"), length);
                self.wait_for(key, line, Short::Unit);
                false
            }
        }
    }

    /// The queue had no room: the data wait in front of what has come meanwhile.
    fn put_back(&mut self, key: Key<Task>, mut list: Segments, length: usize) {
        if let Some(task) = self.tasks.get_mut(key) {
            if let Work::Write(write) = &mut task.work {
                write.handed_bytes -= u32::try_from(length).expect("a piece is small");
            }
            while let Some(segment) = list.pop() {
                task.inflow.push_front(segment.into_buffer());
            }
            task.inflow_bytes += length;
        }
        self.pool.keep_list(list);
    }

    /// The first `length` bytes of a task's data as the medium wants them: as they are, or copied where they are not
    /// aligned or in too many parts. `None` when there is no memory for that now; then nothing was taken.
    fn piece_of_inflow(&mut self, key: Key<Task>, length: usize) -> Option<Segments> {
        let task = self.tasks.get_mut(key)?;
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a WRITE has a unit");
        let alignment = unit.memory_alignment.max(1);
        let mut list = self.pool.list();
        let mut rest = length;
        let mut fits = true;
        while rest > 0 {
            let Some(buffer) = task.inflow.front_mut() else { unreachable!("the bytes were counted") };
            if list.len() == list.capacity() {
                fits = false;
                break;
            }
            let part = if buffer.len() > rest {
                buffer.split_to(rest)
            } else {
                task.inflow.pop_front().expect("it was just there")
            };
            rest -= part.len();
            fits &= part.is_aligned(alignment - 1) && part.len().is_multiple_of(alignment);
            list.push(part).expect("there was room for one more");
        }
        if fits {
            task.inflow_bytes -= length;
            return Some(list);
        }
        // Copy: into memory of the right alignment, in few parts.
        while let Some(segment) = list.pop() {
            task.inflow.push_front(segment.into_buffer());
        }
        self.pool.keep_list(list);
        let mut copy = self.take_memory(length).or_else(|| self.take_last_chunk(length))?;
        let task = self.tasks.get_mut(key).expect("it was just there");
        for target in copy.slices_mut() {
            copy_from(&mut task.inflow, 0, target);
        }
        task.inflow_bytes -= length;
        self.counters.copied_bytes += length as u64;
        Some(copy)
    }

    fn take_last_chunk(&mut self, length: usize) -> Option<Segments> {
        let mut buffer = self.last_chunk.take()?;
        buffer.set_len(length);
        let mut list = self.pool.list();
        list.push(buffer).expect("the list is empty");
        Some(list)
    }

    /// Sees to it that the last chunk is there, if there is one. Said before anybody else gets what was given back.
    pub(super) fn keep_last_chunk(&mut self) {
        if self.last_chunk.is_none() {
            self.last_chunk = self.driver.arena().take(Class::Large);
        }
    }

    /// A piece is on the medium.
    pub(super) fn stored(&mut self, key: Key<Task>, length_bytes: u64) {
        match self.tasks.get_mut(key).map(|task| &mut task.work) {
            Some(Work::Write(write)) => {
                write.stored_bytes += u32::try_from(length_bytes).expect("a piece is small");
            }
            Some(Work::Series(_)) => return self.series_stored(key, length_bytes),
            Some(Work::Copy(_)) => return self.copy_cleared(key, length_bytes),
            _ => {}
        }
        self.list_r2t(key);
        self.pump_write(key);
    }

    /// Hands a flush to the medium.
    pub(super) fn pump_flush(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        if task.at_medium > 0 || task.ended.is_some() || task.aborted || task.waits.is_some() {
            return;
        }
        if self.queue_behind(key, Line::Room) {
            return;
        }
        match self.hand_over(key, OpKind::Flush, Blocks { lba: 0, count: 0 }, Request::Flush) {
            Ok(()) => {}
            Err(Refused::Ends(outcome)) => self.finish(key, outcome),
            Err(Refused::Full(_) | Refused::Closed(_)) => {
                self.wait_for(key, Some(Line::Room), Short::Unit);
            }
        }
    }

    /// GOOD waits until what was handed over before the write cache was turned off is stable.
    pub(super) fn flush_before_good(&mut self, key: Key<Task>) {
        if self.queue_behind(key, Line::Room) {
            return;
        }
        self.set_flush_due(key, false);
        match self.hand_over(key, OpKind::Flush, Blocks { lba: 0, count: 0 }, Request::Flush) {
            Ok(()) => {}
            Err(Refused::Ends(outcome)) => self.finish(key, outcome),
            Err(Refused::Full(_) | Refused::Closed(_)) => {
                self.set_flush_due(key, true);
                self.wait_for(key, Some(Line::Room), Short::Unit);
            }
        }
    }

    fn set_flush_due(&mut self, key: Key<Task>, due: bool) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.flush_due = due;
        }
    }

    /// Lets the flushes of a task go on without it.
    pub(super) fn disown_flushes(&mut self, key: Key<Task>) {
        for (_, op) in self.ops.iter_mut() {
            if op.task == key && op.kind == OpKind::Flush {
                op.task = Key::nobody();
            }
        }
    }
}

/// Fills `target` from the buffers from index `at` on, and takes away what was copied.
pub(super) fn copy_from(buffers: &mut VecDeque<Buffer>, at: usize, mut target: &mut [u8]) {
    while !target.is_empty() {
        let front = &mut buffers[at];
        let length = front.len().min(target.len());
        let (now, later) = target.split_at_mut(length);
        now.copy_from_slice(&front[..length]);
        target = later;
        drop(front.split_to(length));
        if front.is_empty() {
            buffers.remove(at);
        }
    }
}
