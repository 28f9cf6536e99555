//! VERIFY: blocks are read and, with BYTCHK, compared with Data-Out (SBC-3 §5.36).
//!
//! It moves nothing to the medium and is rare: one piece at a time, and Data-Out on the heap within the transfer limit.

use portico_backstores::Request;
use portico_ring::Segments;
use portico_scsi::block::MediumCommand;
use portico_scsi::sense::Outcome;

use super::medium::Refused;
use super::{Core, Line, OpKind};
use crate::budget::Short;
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Comparison, PIECE_BYTES_MAX, Task, Verify, Work};
use crate::unit::Blocks;

impl<D: Driver> Core<D> {
    pub(super) fn begin_verify(&mut self, key: Key<Task>, command: MediumCommand, block_bytes: u32) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let (lba, blocks) = command.range();
        let required_bytes = command.transfer_bytes(block_bytes);
        let compare = (required_bytes > 0).then(|| {
            session.wire.want_data(task.name, required_bytes);
            let data_bytes = session.moved_bytes(task.name, required_bytes);
            Comparison { data: Vec::with_capacity(data_bytes as usize), data_bytes }
        });
        let mut length_bytes = blocks * u64::from(block_bytes);
        if let Some(compare) = &compare
            && u64::from(compare.data_bytes) < required_bytes
        {
            // Fewer bytes than the CDB names: what came is compared, whole blocks of it.
            length_bytes = length_bytes.min(u64::from(compare.data_bytes - compare.data_bytes % block_bytes));
        }
        let offset_bytes = lba.0 * u64::from(block_bytes);
        task.work = Work::Verify(Verify { offset_bytes, length_bytes, handed_bytes: 0, compare });
        self.data_came(key);
    }

    /// Reads the next piece, once the Data-Out is there.
    pub(super) fn pump_verify(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Verify(verify) = &mut task.work else { return };
        if task.ended.is_some() || task.aborted || task.at_medium > 0 || task.waits.is_some() {
            return;
        }
        if let Some(compare) = &mut verify.compare {
            task.inflow.drain(..).for_each(|buffer| compare.data.extend_from_slice(&buffer));
            task.inflow_bytes = 0;
            let session = self.sessions.get(task.session).expect("a task has a session");
            if !session.wire.progress(task.name).is_complete {
                return;
            }
        }
        let rest = verify.length_bytes - verify.handed_bytes;
        if rest == 0 {
            return self.finish(key, Outcome::GOOD);
        }
        let length = rest.min(PIECE_BYTES_MAX as u64);
        let (at_bytes, offset_bytes) = (verify.handed_bytes, verify.offset_bytes + verify.handed_bytes);
        verify.handed_bytes += length;
        self.fetch_to_verify(key, at_bytes, offset_bytes, length);
    }

    fn fetch_to_verify(&mut self, key: Key<Task>, at_bytes: u64, offset_bytes: u64, length: u64) {
        let piece = usize::try_from(length).expect("a piece is small");
        let mut line = Line::Room;
        let refused = match self.take_memory(piece) {
            None => {
                line = Line::Swift;
                Refused::Full(None)
            }
            Some(segments) => {
                let task = self.tasks.get(key).expect("the caller has it");
                let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a VERIFY has a unit");
                let blocks = Blocks::at(offset_bytes, length, unit.state.geometry.block_length());
                let request = Request::Read { offset_bytes, segments };
                match self.hand_over(key, OpKind::Fetch { at_bytes }, blocks, request) {
                    Ok(()) => return,
                    Err(refused) => refused,
                }
            }
        };
        match refused {
            Refused::Ends(outcome) => self.finish(key, outcome),
            Refused::Full(list) => {
                self.pool.keep_list_if(list);
                if let Some(Task { work: Work::Verify(verify), .. }) = self.tasks.get_mut(key) {
                    verify.handed_bytes = at_bytes;
                }
                self.wait_for(key, Some(line), Short::Unit);
            }
        }
    }

    /// A piece is read: it compares or it does not.
    pub(super) fn verified(&mut self, key: Key<Task>, at_bytes: u64, segments: Segments) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Verify(verify) = &mut task.work else { return };
        let difference = verify.compare.as_ref().and_then(|compare| {
            first_difference(segments.slices(), &compare.data, usize::try_from(at_bytes).ok()?)
        });
        self.pool.keep_list(segments);
        match difference {
            Some(at) => self.finish(key, Outcome::miscompare(at as u64)),
            None => {
                // The next piece in the next turn: a medium that is done at once would have the shard for itself.
                self.wait_for(key, None, Short::Unit);
                self.note_released();
            }
        }
    }
}

/// Where the medium's bytes, which begin at `at` of what is verified, first differ from `data`, as an offset into `data`;
/// `data` begins anew where it is shorter.
pub(super) fn first_difference<'a>(
    medium: impl Iterator<Item = &'a [u8]>,
    data: &[u8],
    at: usize,
) -> Option<usize> {
    let expected = data.iter().copied().cycle().skip(at % data.len().max(1));
    medium
        .flatten()
        .copied()
        .zip(expected)
        .position(|(found, wanted)| found != wanted)
        .map(|position| (at + position) % data.len())
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn equal_bytes_do_not_differ_however_they_are_cut() {
        let data: Vec<u8> = (0..100).collect();
        assert_eq!(first_difference([&data[..30], &data[30..]].into_iter(), &data, 0), None);
        assert_eq!(first_difference([&data[50..]].into_iter(), &data, 50), None);
    }

    #[test]
    fn the_offset_counts_from_the_beginning_of_the_data() {
        let data = [1, 2, 3, 4];
        assert_eq!(first_difference([&[3, 9][..]].into_iter(), &data, 2), Some(3));
    }

    #[test]
    fn one_block_is_compared_with_each() {
        let data = [1, 2];
        assert_eq!(first_difference([&[1, 2, 1, 2, 1, 7][..]].into_iter(), &data, 0), Some(1));
    }
}
