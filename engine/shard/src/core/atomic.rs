//! COMPARE AND WRITE, ORWRITE, WRITE ATOMIC (SBC-3 §5.2, §5.7, SBC-4 §5.48): what is done with the blocks is done while they
//! are this command's alone, on all shards.
//!
//! All that a command needs is in hand before it claims its blocks: its Data-Out, on the heap, and memory for one piece.
//! Then nothing that it waits for can wait for it. Data-Out that come unasked have their place from the beginning, as they are
//! booked; others are gathered in their turn, as a series' are ([`Core::may_gather`]), and asked for then. Each piece is judged by the state of its moment like any other: what a
//! fence refuses between the comparison and the write is not written.

use portico_backstores::{Queue as _, Request};
use portico_ring::{Class, Segments};
use portico_scsi::block::AtomicOperation;
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::unit::AtomicWrites;

use super::medium::Refused;
use super::series::fill;
use super::verify::first_difference;
use super::{Core, Line, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Atomic, PIECE_BYTES_MAX, Task, Work};
use crate::unit::Blocks;

impl<D: Driver> Core<D> {
    /// `length_bytes` at `offset_bytes`, with `required_bytes` of Data-Out.
    pub(super) fn begin_atomic(
        &mut self,
        key: Key<Task>,
        (offset_bytes, length_bytes): (u64, u64),
        required_bytes: u64,
        operation: AtomicOperation,
        durable: bool,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        if u64::from(session.announced_bytes(task.name)) != required_bytes {
            // What the bytes mean hangs on how many there are: neither a part nor an excess can be guessed at.
            return self.finish(key, Outcome::invalid_cdb_field(0, None));
        }
        let unsolicited_bytes = u64::from(session.unsolicited_bytes(task.name)).min(required_bytes);
        session.wire.want_data(task.name, required_bytes);
        let mut atomic = self.pool.atomic();
        let Atomic { data, buffers, .. } = &mut *atomic;
        let (data, buffers) = (std::mem::take(data), std::mem::take(buffers));
        *atomic = Atomic {
            operation,
            offset_bytes,
            length_bytes,
            required_bytes,
            has_place: unsolicited_bytes == required_bytes,
            durable,
            data,
            buffers,
            ..Atomic::default()
        };
        task.work = Work::Atomic(atomic);
        self.unshelve(key);
        if self.book(key, unsolicited_bytes, Kind::Swift).is_err() {
            self.counters.refused_for_memory += 1;
            return self.finish(key, Outcome::TASK_SET_FULL);
        }
        self.data_came(key);
    }

    /// Goes on as far as it leads.
    pub(super) fn pump_atomic(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        if task.ended.is_some() || task.aborted || task.at_medium > 0 || task.waits.is_some() {
            return;
        }
        if !self.has_place(key) || !self.has_data(key) || !self.has_buffers(key) {
            return;
        }
        let Some(Task { work: Work::Atomic(atomic), unit: Some(unit), .. }) = self.tasks.get(key) else {
            return;
        };
        let unit = self.units.get(*unit).expect("a unit stays while it has tasks");
        let block_bytes = unit.state.geometry.block_length();
        let blocks = Blocks::at(atomic.offset_bytes, atomic.length_bytes, block_bytes);
        if !self.has_claim(key, blocks) {
            return self.wait_for(key, None, Short::Unit);
        }
        self.next_piece_of_atomic(key, block_bytes);
    }

    /// Whether the Data-Out may come to the heap; it waits for its turn, where others gather theirs.
    fn has_place(&mut self, key: Key<Task>) -> bool {
        let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get(key) else { return false };
        if atomic.has_place {
            return true;
        }
        if !self.may_gather(key, atomic.required_bytes) {
            self.wait_for(key, None, Short::Unit);
            return false;
        }
        self.list_r2t(key);
        true
    }

    /// Whether all of the Data-Out is here.
    fn has_data(&mut self, key: Key<Task>) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return false };
        let Work::Atomic(atomic) = &mut task.work else { return false };
        if atomic.is_gathered {
            return true;
        }
        task.inflow.drain(..).for_each(|buffer| atomic.data.extend_from_slice(&buffer));
        task.inflow_bytes = 0;
        let session = self.sessions.get(task.session).expect("a task has a session");
        if !session.wire.progress(task.name).is_complete {
            return false;
        }
        let is_whole = atomic.data.len() as u64 == atomic.required_bytes;
        atomic.is_gathered = true;
        if !is_whole {
            self.finish(key, Outcome::aborted(AdditionalSense::NOT_ENOUGH_UNSOLICITED_DATA));
        }
        is_whole
    }

    /// Whether there is memory for a piece; it takes it first, or waits.
    ///
    /// It is no more than the data, which have their bound, and booked whatever else is: who holds what others wait for
    /// that have booked something does not wait for that. For the same reason it stands in no line.
    fn has_buffers(&mut self, key: Key<Task>) -> bool {
        let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get(key) else { return false };
        if !atomic.buffers.is_empty() {
            return true;
        }
        let (native, untorn) = (self.compares_by_itself(key), self.is_untorn(key));
        let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) else { return false };
        atomic.native = native;
        let length = if native { atomic.data.len() } else { piece_length(atomic.length_bytes) };
        match if untorn { self.take_one_piece(length) } else { self.take_memory(length) } {
            Some(list) => {
                self.charge(key, length as u64);
                self.take_back(key, list);
                true
            }
            None => {
                self.wait_for(key, None, Short::Unit);
                false
            }
        }
    }

    /// Whether the medium takes comparison and write as one request: an RBD image, of which others may hold the same one.
    fn compares_by_itself(&self, key: Key<Task>) -> bool {
        let Some(Task { work: Work::Atomic(atomic), unit: Some(unit), .. }) = self.tasks.get(key) else {
            return false;
        };
        let queue = self.units.get(*unit).and_then(|unit| unit.queue.as_ref());
        atomic.operation == AtomicOperation::CompareAndWrite
            && atomic.data.len() <= PIECE_BYTES_MAX
            && queue.is_some_and(|queue| queue.compares(atomic.offset_bytes, atomic.length_bytes))
    }

    /// Whether its data reach the medium as one write that a loss of power does not tear (SBC-4 §4.29).
    fn is_untorn(&self, key: Key<Task>) -> bool {
        let Some(Task { work: Work::Atomic(atomic), unit: Some(unit), .. }) = self.tasks.get(key) else {
            return false;
        };
        let whole = self
            .units
            .get(*unit)
            .is_some_and(|unit| matches!(unit.state.atomic_writes, AtomicWrites::Whole(_)));
        atomic.operation == AtomicOperation::Write && whole
    }

    /// Memory for so many bytes in one piece, as the kernel wants them of such a write.
    fn take_one_piece(&mut self, length: usize) -> Option<Segments> {
        let arena = self.driver.arena();
        let mut buffer = Class::ALL
            .into_iter()
            .filter(|class| class.bytes() >= length)
            .find_map(|class| arena.take(class))?;
        buffer.set_len(length);
        let mut list = self.pool.list();
        list.push(buffer).expect("there is room for one");
        Some(list)
    }

    /// Buffers that come back from the medium, or have just been taken.
    fn take_back(&mut self, key: Key<Task>, mut list: Segments) {
        if let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) {
            atomic.buffers.extend(list.drain().map(|segment| segment.into_buffer()));
        }
        self.pool.keep_list(list);
    }

    /// The blocks are this command's: hands the next piece over.
    fn next_piece_of_atomic(&mut self, key: Key<Task>, block_bytes: u32) {
        let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) else { return };
        if atomic.at_bytes == atomic.length_bytes {
            if atomic.stores {
                return self.finish(key, Outcome::GOOD);
            }
            // Where the medium has found a difference that is gone, somebody else has written: it is asked again.
            (atomic.stores, atomic.at_bytes, atomic.differs) = (!atomic.native, 0, false);
        }
        if atomic.native && !atomic.differs {
            return self.compare_and_store(key, block_bytes);
        }
        atomic.stores |= atomic.operation == AtomicOperation::Write;
        if self.queue_behind(key, Line::Room) {
            return;
        }
        let untorn = self.is_untorn(key);
        let Some(Task { work: Work::Atomic(atomic), unit: Some(unit), .. }) = self.tasks.get_mut(key) else {
            return;
        };
        let unit = self.units.get(*unit).expect("a unit stays while it has tasks");
        let length = piece_length(atomic.length_bytes - atomic.at_bytes);
        let (offset_bytes, at_bytes) = (atomic.offset_bytes + atomic.at_bytes, atomic.at_bytes);
        let mut segments = self.pool.list();
        fill_list(&mut segments, atomic, length);
        let (kind, request) = if atomic.stores {
            let half = match atomic.operation {
                AtomicOperation::CompareAndWrite => atomic.data.len() / 2,
                AtomicOperation::Or | AtomicOperation::Write => 0,
            };
            let mut data = &atomic.data[half + position(at_bytes)..];
            for slice in segments.slices_mut() {
                let (now, later) = data.split_at(slice.len());
                slice.copy_from_slice(now);
                data = later;
            }
            let durable = unit.state.mode.write_cache.must_be_stable(atomic.durable);
            let kind = OpKind::Store { length_bytes: length as u64 };
            let request = if untorn {
                Request::WriteUntorn { offset_bytes, segments, durable }
            } else {
                Request::Write { offset_bytes, segments, durable }
            };
            (kind, request)
        } else {
            (OpKind::Fetch { at_bytes }, Request::Read { offset_bytes, segments })
        };
        let blocks = Blocks::at(offset_bytes, length as u64, block_bytes);
        match self.hand_over(key, kind, blocks, request) {
            Ok(()) => {}
            Err(Refused::Ends(outcome)) => self.finish(key, outcome),
            Err(refused) => {
                let (list, line) = refused.waits();
                self.take_back(key, list.expect("a request's list comes back"));
                self.wait_for(key, line, Short::Unit);
            }
        }
    }

    /// Hands comparison and write over as one request.
    fn compare_and_store(&mut self, key: Key<Task>, block_bytes: u32) {
        if self.queue_behind(key, Line::Room) {
            return;
        }
        let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) else { return };
        let Atomic { offset_bytes, length_bytes, .. } = **atomic;
        let mut segments = self.pool.list();
        fill_list(&mut segments, atomic, atomic.data.len());
        fill(segments.slices_mut(), &atomic.data, 0);
        // Before it is handed over: a medium in memory is done at once.
        atomic.stores = true;
        let blocks = Blocks::at(offset_bytes, length_bytes, block_bytes);
        let request = Request::CompareAndWrite { offset_bytes, segments };
        let refused = match self.hand_over(key, OpKind::Store { length_bytes }, blocks, request) {
            Ok(()) => return,
            Err(Refused::Ends(outcome)) => return self.finish(key, outcome),
            Err(refused) => refused,
        };
        let (list, line) = refused.waits();
        self.take_back(key, list.expect("a request's list comes back"));
        if let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) {
            atomic.stores = false;
        }
        self.wait_for(key, line, Short::Unit);
    }

    /// The medium has compared, and found a difference: where, each version of librbd says in its own way, so the blocks are
    /// read. Or it does not compare so much: then reading and writing are two requests.
    pub(super) fn atomic_refused(&mut self, key: Key<Task>, differs: bool, segments: Option<Segments>) {
        if let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) {
            (atomic.stores, atomic.differs, atomic.native) = (false, differs, differs);
        }
        self.take_back(key, segments.expect("a write gives its segments back"));
        self.pump_atomic(key);
    }

    /// A piece is read: it is compared, or goes into the data.
    pub(super) fn atomic_fetched(&mut self, key: Key<Task>, at_bytes: u64, segments: Segments) {
        let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) else { return };
        atomic.at_bytes += segments.length_bytes() as u64;
        let at = position(at_bytes);
        let difference = match atomic.operation {
            AtomicOperation::CompareAndWrite => {
                let wanted = &atomic.data[at..atomic.data.len() / 2];
                first_difference(segments.slices(), std::iter::once(wanted))
            }
            AtomicOperation::Or | AtomicOperation::Write => {
                let medium = segments.slices().flatten();
                atomic.data[at..].iter_mut().zip(medium).for_each(|(byte, there)| *byte |= there);
                None
            }
        };
        self.take_back(key, segments);
        match difference {
            // SBC-3 §5.2: INFORMATION is the offset of the first byte that differs.
            Some(place) => self.finish(key, Outcome::miscompare(at_bytes + place as u64)),
            None => self.pump_atomic(key),
        }
    }

    /// A piece is on the medium.
    pub(super) fn atomic_stored(&mut self, key: Key<Task>, length_bytes: u64, segments: Option<Segments>) {
        if let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) {
            atomic.at_bytes += length_bytes;
        }
        self.take_back(key, segments.expect("a write gives its segments back"));
        self.pump_atomic(key);
    }
}

/// Moves as many of the command's buffers into the list as hold `length` bytes.
fn fill_list(list: &mut Segments, atomic: &mut Atomic, length: usize) {
    let mut rest = length;
    while rest > 0 {
        let mut buffer = atomic.buffers.pop().expect("they hold a piece");
        buffer.set_len(rest.min(buffer.capacity()));
        rest -= buffer.len();
        list.push(buffer).expect("they came out of one list");
    }
}

/// Bytes of the next piece where so many are left.
fn piece_length(rest_bytes: u64) -> usize {
    position(rest_bytes).min(PIECE_BYTES_MAX)
}

fn position(bytes: u64) -> usize {
    usize::try_from(bytes).expect("less than a command moves")
}
