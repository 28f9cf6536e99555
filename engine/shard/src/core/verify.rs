//! VERIFY: blocks are read and, with BYTCHK, compared with Data-Out (SBC-3 §5.36).
//!
//! It moves nothing to the medium and is rare: one piece at a time. Data-Out is booked and asked for as that of a WRITE is, and
//! a piece is read when what it is compared with is there.

use std::collections::VecDeque;

use portico_backstores::Request;
use portico_ring::{Buffer, Segments};
use portico_scsi::block::MediumCommand;
use portico_scsi::sense::{AdditionalSense, Outcome};

use super::medium::Refused;
use super::write::VERIFY_BYTES_MAX;
use super::{Core, Line, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Comparison, Task, Verify, Work};
use crate::unit::Blocks;

impl<D: Driver> Core<D> {
    pub(super) fn begin_verify(&mut self, key: Key<Task>, command: MediumCommand, block_bytes: u32) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let (lba, blocks) = command.range();
        let required_bytes = command.transfer_bytes(block_bytes);
        let mut length_bytes = blocks * u64::from(block_bytes);
        let offset_bytes = lba.0 * u64::from(block_bytes);
        if required_bytes == 0 {
            task.work = Work::Verify(Verify { offset_bytes, length_bytes, handed_bytes: 0, compare: None });
            return self.data_came(key);
        }
        let repeats = required_bytes < length_bytes;
        if repeats && u64::from(session.announced_bytes(task.name)) != required_bytes {
            // One block is compared with all: neither a part nor an excess of it can be guessed at.
            return self.finish(key, Outcome::invalid_cdb_field(0, None));
        }
        session.wire.want_data(task.name, required_bytes);
        let data_bytes = session.moved_bytes(task.name, required_bytes);
        let called_bytes = session.unsolicited_bytes(task.name);
        if u64::from(data_bytes) < required_bytes {
            // Fewer bytes than the CDB names: what came is compared, whole blocks of it.
            length_bytes = length_bytes.min(u64::from(data_bytes - data_bytes % block_bytes));
        }
        let compare =
            Some(Comparison { data_bytes, repeats, called_bytes, booked_bytes: 0, compared_bytes: 0 });
        task.work = Work::Verify(Verify { offset_bytes, length_bytes, handed_bytes: 0, compare });
        self.book_data(key, data_bytes, called_bytes);
    }

    /// Reads the next piece, once what it is compared with is there.
    pub(super) fn pump_verify(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        let Work::Verify(verify) = &task.work else { return };
        if task.ended.is_some() || task.aborted || task.at_medium > 0 || task.waits.is_some() {
            return;
        }
        let session = self.sessions.get(task.session).expect("a task has a session");
        let complete = verify.compare.is_none() || session.wire.progress(task.name).is_complete;
        let rest = verify.length_bytes - verify.handed_bytes;
        let length = rest.min(VERIFY_BYTES_MAX.into());
        let (at_bytes, offset_bytes) = (verify.handed_bytes, verify.offset_bytes + verify.handed_bytes);
        if let Some(compare) = &verify.compare {
            let is_there = complete || !compare.repeats && task.inflow_bytes as u64 >= length;
            if compare.booked_bytes == 0 && compare.data_bytes > 0 {
                if self.book_asked(key) {
                    self.list_r2t(key);
                    self.pump_verify(key);
                }
                return;
            }
            if !is_there {
                return;
            }
            if !compare.repeats && (task.inflow_bytes as u64) < length {
                // The initiator ended its data early.
                return self.finish(key, Outcome::aborted(AdditionalSense::NOT_ENOUGH_UNSOLICITED_DATA));
            }
        }
        if rest == 0 {
            if complete {
                self.finish(key, Outcome::GOOD);
            }
            return;
        }
        self.fetch_to_verify(key, at_bytes, offset_bytes, length);
    }

    /// Without Data-Out nothing is booked before: each piece is, as one of a READ.
    fn book_piece(&mut self, key: Key<Task>, length: u64) -> bool {
        let compares = self.tasks.get(key).is_some_and(|task| task.compares());
        compares || self.book_in_line(key, length, Kind::Swift)
    }

    fn unbook_piece(&mut self, key: Key<Task>, length: u64) {
        if self.tasks.get(key).is_some_and(|task| !task.compares()) {
            self.unbook(key, length);
        }
    }

    fn note_handed(&mut self, key: Key<Task>, bytes: u64) {
        if let Some(Task { work: Work::Verify(verify), .. }) = self.tasks.get_mut(key) {
            verify.handed_bytes = bytes;
        }
    }

    fn fetch_to_verify(&mut self, key: Key<Task>, at_bytes: u64, offset_bytes: u64, length: u64) {
        if self.queue_behind(key, Line::Room) || !self.book_piece(key, length) {
            return;
        }
        let piece = usize::try_from(length).expect("a piece is small");
        let Some(segments) = self.take_memory(piece) else {
            self.unbook_piece(key, length);
            return self.wait_for(key, Some(Line::Swift), Short::Unit);
        };
        self.note_handed(key, at_bytes + length);
        let task = self.tasks.get(key).expect("the caller has it");
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a VERIFY has a unit");
        let blocks = Blocks::at(offset_bytes, length, unit.state.geometry.block_length());
        let request = Request::Read { offset_bytes, segments };
        match self.hand_over(key, OpKind::Fetch { at_bytes }, blocks, request) {
            Ok(()) => {}
            Err(Refused::Ends(outcome)) => self.finish(key, outcome),
            Err(refused) => {
                let (list, line) = refused.waits();
                self.pool.keep_list_if(list);
                self.unbook_piece(key, length);
                self.note_handed(key, at_bytes);
                self.wait_for(key, line, Short::Unit);
            }
        }
    }

    /// A piece is read: it compares or it does not.
    pub(super) fn verified(&mut self, key: Key<Task>, at_bytes: u64, segments: Segments) {
        let length = segments.length_bytes();
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Verify(verify) = &mut task.work else { return };
        let mut difference = None;
        if let Some(compare) = &mut verify.compare {
            let data = task.inflow.iter().map(|buffer| &buffer[..]);
            if compare.repeats {
                difference = first_difference(segments.slices(), data.cycle())
                    .map(|at| (at_bytes + at as u64) % u64::from(compare.data_bytes.max(1)));
            } else {
                difference = first_difference(segments.slices(), data).map(|at| at_bytes + at as u64);
                drop_front(&mut task.inflow, length);
                task.inflow_bytes -= length;
                compare.compared_bytes += u32::try_from(length).expect("a piece is small");
            }
        }
        self.pool.keep_list(segments);
        self.unbook_piece(key, length as u64);
        match difference {
            Some(at) => self.finish(key, Outcome::miscompare(at)),
            None => {
                self.list_r2t(key);
                // The next piece in the next turn: a medium that is done at once would have the shard for itself.
                self.wait_for(key, None, Short::Unit);
                self.note_released();
            }
        }
    }
}

impl Task {
    /// Whether it is a VERIFY with Data-Out.
    fn compares(&self) -> bool {
        matches!(&self.work, Work::Verify(verify) if verify.compare.is_some())
    }
}

/// Takes `length` bytes off the front.
fn drop_front(buffers: &mut VecDeque<Buffer>, mut length: usize) {
    while length > 0 {
        let front = buffers.front_mut().expect("the bytes were counted");
        let part = front.len().min(length);
        drop(front.split_to(part));
        length -= part;
        if front.is_empty() {
            buffers.pop_front();
        }
    }
}

/// Where the medium's bytes first differ from those that are wanted, of which there are as many or more.
pub(super) fn first_difference<'a>(
    medium: impl Iterator<Item = &'a [u8]>,
    mut wanted: impl Iterator<Item = &'a [u8]>,
) -> Option<usize> {
    let (mut at, mut next): (usize, &[u8]) = (0, &[]);
    for mut found in medium {
        while !found.is_empty() {
            while next.is_empty() {
                next = wanted.next()?;
            }
            let length = found.len().min(next.len());
            let ((here, later), (there, rest)) = (found.split_at(length), next.split_at(length));
            if here != there {
                return here.iter().zip(there).position(|(one, other)| one != other).map(|place| at + place);
            }
            (found, next) = (later, rest);
            at += length;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn equal_bytes_do_not_differ_however_they_are_cut() {
        let data: Vec<u8> = (0..100).collect();
        let cut = [&data[..30], &data[30..]];
        assert_eq!(first_difference(cut.into_iter(), [&data[..]].into_iter()), None);
        assert_eq!(first_difference([&data[..]].into_iter(), cut.into_iter()), None);
        assert_eq!(first_difference(cut.into_iter(), [&data[..7], &[], &data[7..]].into_iter()), None);
    }

    #[test]
    fn the_first_of_several_differences_counts() {
        let found = [&[1, 2][..], &[3, 9, 9]];
        assert_eq!(first_difference(found.into_iter(), [&[1, 2, 3, 4, 5][..]].into_iter()), Some(3));
    }

    #[test]
    fn one_block_is_compared_with_each() {
        let block = [&[1, 2][..]];
        assert_eq!(
            first_difference([&[1, 2, 1, 2, 1, 7][..]].into_iter(), block.into_iter().cycle()),
            Some(5)
        );
    }
}
