//! READ: pieces from the medium, sent in order.

use portico_backstores::{Queue as _, Request};
use portico_ring::Segments;
use portico_scsi::sense::Outcome;

use super::medium::Refused;
use super::{Core, Line, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::inbound::take_fitting;
use crate::slab::Key;
use crate::task::{PIECE_BYTES_MAX, PIECES_MAX, Piece, Read, Task, Work};
use crate::unit::Blocks;

impl<D: Driver> Core<D> {
    /// A READ of `required_bytes` from `offset_bytes`; the initiator may have asked for fewer.
    pub(super) fn begin_read(&mut self, key: Key<Task>, offset_bytes: u64, required_bytes: u64) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let unit = task.unit.and_then(|unit| self.units.get_mut(unit)).expect("a READ has a unit");
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let length_bytes = session.wire.begin_data_in(task.name, required_bytes);
        if length_bytes == 0 {
            self.finish(key, Outcome::GOOD);
            return;
        }
        let block_bytes = unit.state.geometry.block_length();
        let blocks = Blocks::at(offset_bytes, length_bytes.into(), block_bytes);
        let queue = unit.queue.as_ref();
        // What is lent may be written by others until it is sent, and would not be the same when it is sent again; a digest
        // would be of other bytes, and is computed of a copy that is made as the PDU is, where that is one: no claim waits
        // for a READ that is half sent and finds no memory.
        let seat = session.wire.seat_of_task(task.name);
        // One that begins while it waits for another connection has none that it could be asked of.
        let recovers = session.wire.recovers();
        let copied = !recovers && session.wire.digests(seat).data;
        let longest_burst = session.wire.parameters().max_burst_length;
        let is_longer = copied && length_bytes > session.wire.peer_segment_bytes_max(seat).min(longest_burst);
        let lent = !(recovers || is_longer)
            && unit.lends_from <= self.now
            // One that meets a claim waits as one that has a copy does, and is one.
            && (unit.arbiter.is_open() || unit.arbiter.admits(None, blocks))
            && queue.is_some_and(|queue| queue.lend(offset_bytes, length_bytes as usize).is_some());
        // What is lent is ready at once, all of it.
        let ready_bytes = if lent { length_bytes } else { 0 };
        task.work = Work::Read(Read {
            offset_bytes,
            length_bytes,
            handed_bytes: ready_bytes,
            ready_bytes,
            sent_bytes: 0,
            lent,
            copied,
        });
        if !lent {
            return self.pump_read(key);
        }
        let admitted = unit.admits(session.nexus, session.relative_target_port, task.class, blocks);
        task.times.handed = Some(self.now);
        task.times.back = Some(self.now);
        match admitted {
            Err(outcome) => self.finish(key, outcome),
            Ok(()) => {
                task.ended = Some(Outcome::GOOD);
                self.list_data_in(key);
            }
        }
    }

    /// Hands as many pieces to the medium as there is room for.
    pub(super) fn pump_read(&mut self, key: Key<Task>) {
        loop {
            let Some(task) = self.tasks.get_mut(key) else { return };
            let Work::Read(read) = &mut task.work else { return };
            let rest = (read.length_bytes - read.handed_bytes) as usize;
            if task.ended.is_some()
                || task.aborted
                || task.waits.is_some()
                || rest == 0
                || task.pieces.len() >= PIECES_MAX
                || (read.handed_bytes - read.sent_bytes) as usize >= PIECES_MAX * PIECE_BYTES_MAX
            {
                return;
            }
            let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a READ has a unit");
            let block_bytes = unit.state.geometry.block_length();
            let length = rest.min(PIECE_BYTES_MAX);
            // A medium moves whole blocks, even where the initiator takes only a part of the last.
            let whole = length.next_multiple_of(block_bytes as usize);
            let at_bytes = read.handed_bytes;
            let offset_bytes = read.offset_bytes + u64::from(at_bytes);
            if self.queue_behind(key, Line::Room) || !self.book_in_line(key, whole as u64, Kind::Swift) {
                return;
            }
            let Some(segments) = self.take_memory(whole) else {
                self.unbook(key, whole as u64);
                return self.wait_for(key, Some(Line::Swift), Short::Unit);
            };
            let Some(Task { work: Work::Read(read), pieces, .. }) = self.tasks.get_mut(key) else { return };
            pieces.push_back(Piece { at_bytes, filled: None });
            read.handed_bytes += u32::try_from(length).expect("a piece is small");
            let blocks = Blocks::at(offset_bytes, whole as u64, block_bytes);
            let kind = OpKind::Fetch { at_bytes: at_bytes.into() };
            let request = Request::Read { offset_bytes, segments };
            match self.hand_over(key, kind, blocks, request) {
                Ok(()) => {}
                Err(Refused::Ends(outcome)) => return self.finish(key, outcome),
                Err(refused) => {
                    let (list, line) = refused.waits();
                    self.pool.keep_list_if(list);
                    self.unbook(key, whole as u64);
                    if let Some(Task { work: Work::Read(read), pieces, .. }) = self.tasks.get_mut(key) {
                        pieces.pop_back();
                        read.handed_bytes = at_bytes;
                    }
                    return self.wait_for(key, line, Short::Unit);
                }
            }
        }
    }

    /// A piece has come from the medium: for a READ it is sent when those before it are.
    pub(super) fn fetched(&mut self, key: Key<Task>, at_bytes: u64, segments: Segments) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let read = match &mut task.work {
            Work::Read(read) => read,
            Work::Verify(_) => return self.verified(key, at_bytes, segments),
            Work::Series(_) => return self.series_fetched(key, at_bytes, segments),
            Work::Atomic(_) => return self.atomic_fetched(key, at_bytes, segments),
            Work::Copy(_) => return self.copy_fetched(key, segments),
            _ => return self.pool.keep_list(segments),
        };
        if let Some(piece) = task.pieces.iter_mut().find(|piece| u64::from(piece.at_bytes) == at_bytes) {
            piece.filled = Some(segments);
        }
        while let Some(Piece { filled: Some(_), .. }) = task.pieces.front() {
            let piece = task.pieces.pop_front().expect("it was just there");
            let mut list = piece.filled.expect("it was just there");
            for segment in list.drain() {
                let mut buffer = segment.into_buffer();
                buffer.truncate((read.length_bytes - read.ready_bytes) as usize);
                read.ready_bytes += u32::try_from(buffer.len()).expect("a buffer is small");
                task.outflow.push_back(buffer);
            }
            self.pool.keep_list(list);
        }
        if read.ready_bytes == read.length_bytes {
            task.ended = Some(Outcome::GOOD);
        }
        self.list_data_in(key);
        self.pump_read(key);
    }

    /// Buffers for `length` bytes, in as few chunks as the arena has.
    pub(super) fn take_memory(&mut self, length: usize) -> Option<Segments> {
        let mut list = self.pool.list();
        let mut rest = length;
        while rest > 0 {
            let full = list.len() == list.capacity();
            let Some(mut buffer) = (!full).then(|| take_fitting(self.driver.arena(), rest)).flatten() else {
                self.pool.keep_list(list);
                return None;
            };
            buffer.set_len(rest.min(buffer.capacity()));
            rest -= buffer.len();
            list.push(buffer).expect("there was room for one more");
        }
        Some(list)
    }
}
