//! Commands that take their blocks in several passes: WRITE AND VERIFY, WRITE SAME, UNMAP, PRE-FETCH, GET LBA STATUS (SBC-3
//! §5.4, §5.9, §5.35, §5.45, §5.48).
//!
//! They are rare or long: Data-Out is gathered first, on the heap and within the transfer limit, then one piece at a time is
//! at the medium, and after each piece others have their turn. A piece is judged by the state of its moment like any other,
//! so a fence or an abort meets at most one of them.

use portico_backstores::Request;
use portico_ring::Segments;
use portico_scsi::block;
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::unit::Lba;

use super::medium::Refused;
use super::verify::first_difference;
use super::{Core, Line, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{PIECE_BYTES_MAX, Pass, Series, Task, Work};
use crate::unit::Blocks;

impl<D: Driver> Core<D> {
    /// `length_bytes` at `offset_bytes`, with `required_bytes` of Data-Out.
    pub(super) fn begin_series(
        &mut self,
        key: Key<Task>,
        offset_bytes: u64,
        mut length_bytes: u64,
        required_bytes: u64,
        series: block::Series,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a medium command has a unit");
        let block_bytes = unit.state.geometry.block_length();
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let moved = session.moved_bytes(task.name, required_bytes);
        if let block::Series::WriteAndVerify { .. } = series {
            // Fewer bytes than the CDB names: the whole blocks among them are written, as with WRITE.
            length_bytes = length_bytes.min(u64::from(moved - moved % block_bytes));
        } else if u64::from(session.announced_bytes(task.name)) != required_bytes && required_bytes > 0 {
            // What the bytes mean hangs on how many there are: neither a part nor an excess can be guessed at.
            return self.finish(key, Outcome::invalid_cdb_field(0, None));
        }
        let unsolicited_bytes = session.unsolicited_bytes(task.name).min(moved);
        if required_bytes > 0 {
            session.wire.want_data(task.name, required_bytes);
        }
        task.work = Work::Series(Box::new(Series {
            offset_bytes,
            length_bytes,
            data: Vec::new(),
            gathers_bytes: 0,
            data_bytes: moved,
            more: Vec::new(),
            passes: passes(series),
            at_bytes: 0,
            unstable: false,
            piece_bytes: 0,
        }));
        // What comes unasked is booked; R2Ts are withheld until it is its turn to gather all of it.
        self.unshelve(key);
        if self.book(key, unsolicited_bytes.into(), Kind::Swift).is_err() {
            self.counters.refused_for_memory += 1;
            return self.finish(key, Outcome::TASK_SET_FULL);
        }
        self.data_came(key);
    }

    /// UNMAP of the descriptors in `list`, which the device server has checked.
    pub(super) fn begin_unmap(&mut self, key: Key<Task>, list: &[u8]) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.class = CommandClass::Write;
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a medium command has a unit");
        let block = u64::from(unit.state.geometry.block_length());
        let ranges = block::unmap_descriptors(list).filter(|(_, blocks)| *blocks > 0);
        let mut more: Vec<(u64, u64)> =
            ranges.map(|(lba, blocks)| (lba.0 * block, u64::from(blocks) * block)).collect();
        more.reverse();
        let (offset_bytes, length_bytes) = more.pop().expect("a list of nothing ends at the device server");
        task.work = Work::Series(Box::new(Series {
            offset_bytes,
            length_bytes,
            data: Vec::new(),
            gathers_bytes: 0,
            data_bytes: 0,
            more,
            passes: passes(block::Series::Unmap),
            at_bytes: 0,
            unstable: false,
            piece_bytes: 0,
        }));
        self.pump_series(key);
    }

    /// Hands the next piece over, once the Data-Out is there.
    pub(super) fn pump_series(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        let Work::Series(series) = &task.work else { return };
        if task.ended.is_some() || task.aborted || task.at_medium > 0 || task.waits.is_some() {
            return;
        }
        if series.data_bytes > 0 && series.gathers_bytes == 0 {
            // A place for the piece as well, which may be longer than the data.
            let piece_bytes = series.length_bytes.min(PIECE_BYTES_MAX as u64);
            if !self.may_gather(key, piece_bytes.max(series.data_bytes.into())) {
                return self.wait_for(key, None, Short::Unit);
            }
            self.list_r2t(key);
        }
        self.go_on_with_series(key);
    }

    fn go_on_with_series(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Series(series) = &mut task.work else { return };
        if series.data_bytes > 0 {
            task.inflow.drain(..).for_each(|buffer| series.data.extend_from_slice(&buffer));
            task.inflow_bytes = 0;
            let session = self.sessions.get(task.session).expect("a task has a session");
            if !session.wire.progress(task.name).is_complete {
                return;
            }
            if series.data.len() < series.data_bytes as usize {
                return self.finish(key, Outcome::aborted(AdditionalSense::NOT_ENOUGH_UNSOLICITED_DATA));
            }
        }
        if series.at_bytes == series.length_bytes {
            series.at_bytes = 0;
            if let Some((offset_bytes, length_bytes)) = series.more.pop() {
                (series.offset_bytes, series.length_bytes) = (offset_bytes, length_bytes);
            } else {
                series.passes.rotate_left(1);
                series.passes[PASSES_MAX - 1] = None;
            }
        }
        if let Some(Pass::Same { deallocate }) = series.passes[0] {
            let zeroes = series.data.iter().all(|byte| *byte == 0);
            let pass = if zeroes { Pass::Clear { deallocate } } else { Pass::Store { durable: false } };
            series.passes[0] = Some(pass);
        }
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a series has a unit");
        if series.passes[0].is_none()
            && std::mem::take(&mut series.unstable)
            && unit.state.mode.write_cache.must_be_stable(false)
        {
            // By the state of now: the write cache may have been turned off meanwhile.
            series.passes[0] = Some(Pass::Flush);
        }
        let Some(pass) = series.passes[0].filter(|_| series.length_bytes > 0) else {
            return self.finish(key, Outcome::GOOD);
        };
        if self.queue_behind(key, Line::Room) {
            return;
        }
        let refused = match pass {
            Pass::Store { .. } if self.repeats_by_itself(key) => self.repeat_piece(key),
            Pass::Store { durable } => self.store_piece(key, durable),
            Pass::Check | Pass::Compare | Pass::Survey { .. } => self.fetch_piece(key),
            Pass::Same { .. } => unreachable!("it has just become one of the others"),
            Pass::Clear { deallocate } => self.clear_piece(key, deallocate),
            Pass::Flush => self.hand_over(key, OpKind::Flush, Blocks { lba: 0, count: 0 }, Request::Flush),
        };
        if refused.is_err() {
            // What waits holds no memory.
            self.unbook_piece_of_series(key);
        }
        match refused {
            Ok(()) => {}
            Err(Refused::Ends(outcome)) => self.finish(key, outcome),
            Err(Refused::Closed(list)) => {
                self.pool.keep_list_if(list);
                self.wait_for(key, None, Short::Unit);
            }
            Err(Refused::Full(list)) => {
                // Without a list it was the buffers that there were too few of, where it takes any.
                let takes_none = matches!(pass, Pass::Clear { .. } | Pass::Flush);
                let line = if list.is_some() || takes_none { Line::Room } else { Line::Swift };
                self.pool.keep_list_if(list);
                self.wait_for(key, Some(line), Short::Unit);
            }
        }
    }

    /// Writes the next piece of the data, which begin anew where they are shorter than the blocks.
    fn store_piece(&mut self, key: Key<Task>, durable: bool) -> Result<(), Refused> {
        let (offset_bytes, at_bytes, length, blocks, durable) =
            self.next_piece(key, durable, PIECE_BYTES_MAX);
        let Some(mut segments) = self.take_piece(key, length)? else { return Ok(()) };
        let task = self.tasks.get_mut(key).expect("the caller has it");
        let Work::Series(series) = &mut task.work else { unreachable!("the caller has seen it") };
        series.unstable |= !durable;
        fill(segments.slices_mut(), &series.data, at_bytes);
        self.counters.copied_bytes += length as u64;
        let request = Request::Write { offset_bytes, segments, durable };
        self.hand_over(key, OpKind::Store { length_bytes: length as u64 }, blocks, request)
    }

    /// Whether the data are shorter than the blocks, and the medium repeats them by itself.
    fn repeats_by_itself(&self, key: Key<Task>) -> bool {
        let Some(Task { work: Work::Series(series), unit: Some(unit), .. }) = self.tasks.get(key) else {
            return false;
        };
        let queue = self.units.get(*unit).and_then(|unit| unit.queue.as_ref());
        !series.data.is_empty()
            && (series.data.len() as u64) < series.length_bytes
            && queue.is_some_and(portico_backstores::Queue::repeats)
    }

    /// Has the medium fill the next piece with the data.
    fn repeat_piece(&mut self, key: Key<Task>) -> Result<(), Refused> {
        let (offset_bytes, _, length, blocks, _) = self.next_piece(key, false, CLEAR_BYTES_MAX);
        let Some(Task { work: Work::Series(series), .. }) = self.tasks.get(key) else { return Ok(()) };
        let data_bytes = series.data.len();
        let mut segments = self.take_memory(data_bytes).ok_or(Refused::Full(None))?;
        let Some(Task { work: Work::Series(series), .. }) = self.tasks.get_mut(key) else { return Ok(()) };
        series.unstable = true;
        fill(segments.slices_mut(), &series.data, 0);
        self.counters.copied_bytes += data_bytes as u64;
        let length_bytes = length as u64;
        let request = Request::Repeat { offset_bytes, length_bytes, segments };
        self.hand_over(key, OpKind::Store { length_bytes }, blocks, request)
    }

    fn fetch_piece(&mut self, key: Key<Task>) -> Result<(), Refused> {
        let (offset_bytes, at_bytes, length, blocks, _) = self.next_piece(key, false, PIECE_BYTES_MAX);
        let Some(segments) = self.take_piece(key, length)? else { return Ok(()) };
        self.hand_over(key, OpKind::Fetch { at_bytes }, blocks, Request::Read { offset_bytes, segments })
    }

    /// Memory for a piece, and its booking; none where the task has to wait for that.
    ///
    /// A series that gathers has a place as large as a piece among those who do. It does not wait for a booking: the
    /// memory may be booked by those who wait to gather.
    fn take_piece(&mut self, key: Key<Task>, length: usize) -> Result<Option<Segments>, Refused> {
        let bytes = length as u64;
        let Some(Task { work: Work::Series(series), .. }) = self.tasks.get(key) else {
            unreachable!("the caller has seen it")
        };
        if series.gathers_bytes > 0 {
            self.charge(key, bytes);
        } else if !self.book_in_line(key, bytes, Kind::Swift) {
            return Ok(None);
        }
        if let Some(Task { work: Work::Series(series), .. }) = self.tasks.get_mut(key) {
            series.piece_bytes = bytes;
        }
        self.take_memory(length).map(Some).ok_or(Refused::Full(None))
    }

    /// The memory of the piece at hand is free.
    fn unbook_piece_of_series(&mut self, key: Key<Task>) {
        let Some(Task { work: Work::Series(series), .. }) = self.tasks.get_mut(key) else { return };
        let bytes = std::mem::take(&mut series.piece_bytes);
        self.unbook(key, bytes);
    }

    fn clear_piece(&mut self, key: Key<Task>, deallocate: bool) -> Result<(), Refused> {
        let (offset_bytes, _, length, blocks, _) = self.next_piece(key, false, CLEAR_BYTES_MAX);
        let length_bytes = length as u64;
        if let Some(Task { work: Work::Series(series), .. }) = self.tasks.get_mut(key) {
            series.unstable = true;
        }
        let request = Request::Clear { offset_bytes, length_bytes, deallocate };
        self.hand_over(key, OpKind::Clear { length_bytes }, blocks, request)
    }

    /// The medium cannot clear ranges: zeroes are written, from where the series stands.
    pub(super) fn write_zeroes_instead(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let Work::Copy(_) = &task.work {
            return self.copy_zeroes_instead(key);
        }
        if let Work::Series(series) = &mut task.work {
            series.data.clear();
            series.data_bytes = 0;
            series.passes[0] = Some(Pass::Store { durable: false });
        }
        self.series_stored(key, 0);
    }

    /// Where the next piece is on the medium and in the series, how long, and whether it is to be durable.
    fn next_piece(
        &self,
        key: Key<Task>,
        durable: bool,
        length_bytes_max: usize,
    ) -> (u64, u64, usize, Blocks, bool) {
        let task = self.tasks.get(key).expect("the caller has it");
        let Work::Series(series) = &task.work else { unreachable!("the caller has seen it") };
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a series has a unit");
        let length_bytes = (series.length_bytes - series.at_bytes).min(length_bytes_max as u64);
        let offset_bytes = series.offset_bytes + series.at_bytes;
        let blocks = Blocks::at(offset_bytes, length_bytes, unit.state.geometry.block_length());
        let length = usize::try_from(length_bytes).expect("a piece is small");
        let durable = unit.state.mode.write_cache.must_be_stable(durable);
        (offset_bytes, series.at_bytes, length, blocks, durable)
    }

    /// A piece is on the medium. The next one in the next turn: a medium that is done at once would have the shard for
    /// itself.
    pub(super) fn series_stored(&mut self, key: Key<Task>, length_bytes: u64) {
        if let Some(Task { work: Work::Series(series), .. }) = self.tasks.get_mut(key) {
            series.at_bytes += length_bytes;
        }
        self.unbook_piece_of_series(key);
        self.wait_for(key, None, Short::Unit);
        self.note_released();
    }

    /// A piece is read.
    pub(super) fn series_fetched(&mut self, key: Key<Task>, at_bytes: u64, segments: Segments) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Series(series) = &mut task.work else { return };
        let length_bytes = segments.length_bytes() as u64;
        if let Some(Pass::Survey { allocation_length }) = series.passes[0] {
            return self.surveyed(key, segments, allocation_length);
        }
        let difference = match series.passes[0] {
            Some(Pass::Compare) => {
                let at = usize::try_from(at_bytes).expect("what is compared was sent");
                first_difference(segments.slices(), std::iter::once(&series.data[at..]))
                    .map(|place| at + place)
            }
            _ => None,
        };
        self.pool.keep_list(segments);
        match difference {
            Some(at) => self.finish(key, Outcome::miscompare(at as u64)),
            None => self.series_stored(key, length_bytes),
        }
    }

    /// A piece is read: blocks of zeroes are reported as deallocated. With LBPRZ a device server may take any block of zeroes
    /// for one at any time (SBC-3 §4.7.3.5), so that holes need not be looked up in the file system, which could block. As
    /// long as all are zeroes, the run may go on in the next piece.
    fn surveyed(&mut self, key: Key<Task>, segments: Segments, allocation_length: u32) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Series(series) = &task.work else { return };
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a series has a unit");
        let block_bytes = unit.state.geometry.block_length();
        let length_bytes = segments.length_bytes() as u64;
        if series.at_bytes + length_bytes < series.length_bytes && is_zero(segments.slices()) {
            self.pool.keep_list(segments);
            return self.series_stored(key, length_bytes);
        }
        let lba = Lba(series.offset_bytes / u64::from(block_bytes));
        let before = series.at_bytes / u64::from(block_bytes);
        let before = u32::try_from(before).expect("what one command looks at is bounded");
        let scratch = &mut self.pool.scratch;
        if scratch.len() < block::LBA_STATUS_BYTES_MAX {
            scratch.resize(block::LBA_STATUS_BYTES_MAX, 0);
        }
        let zeroes = zero_blocks(segments.slices(), block_bytes as usize);
        let length = block::lba_status(lba, before, zeroes, allocation_length, scratch);
        self.pool.keep_list(segments);
        self.reply(key, length);
    }
}

/// Bytes that one request clears at most.
pub(super) const CLEAR_BYTES_MAX: usize = 16 << 20;

/// Passes that a series takes at most.
pub const PASSES_MAX: usize = 2;

/// What is done to all of the blocks before the next thing is.
fn passes(series: block::Series) -> [Option<Pass>; PASSES_MAX] {
    match series {
        // What is read back must have been on the medium, not in a cache above it (SBC-3 §5.45).
        block::Series::WriteAndVerify { compare: false } => {
            [Some(Pass::Store { durable: true }), Some(Pass::Check)]
        }
        block::Series::WriteAndVerify { compare: true } => {
            [Some(Pass::Store { durable: true }), Some(Pass::Compare)]
        }
        block::Series::PreFetch => [Some(Pass::Check), None],
        block::Series::WriteSame { unmap } => [Some(Pass::Same { deallocate: unmap }), None],
        block::Series::WriteZeroes { unmap } => [Some(Pass::Clear { deallocate: unmap }), None],
        block::Series::Unmap => [Some(Pass::Clear { deallocate: true }), None],
        block::Series::LbaStatus { allocation_length } => [Some(Pass::Survey { allocation_length }), None],
    }
}

/// Whether there is nothing but zeroes.
fn is_zero<'a>(mut slices: impl Iterator<Item = &'a [u8]>) -> bool {
    slices.all(|slice| {
        let (chunks, rest) = slice.as_chunks::<64>();
        chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
            && rest.iter().all(|byte| *byte == 0)
    })
}

/// The blocks of `bytes`, each whether it is all zeroes.
fn zero_blocks<'a>(slices: impl Iterator<Item = &'a [u8]>, block_bytes: usize) -> impl Iterator<Item = bool> {
    let mut bytes = slices.flatten().copied();
    std::iter::from_fn(move || {
        let first = bytes.next()?;
        // All of the block is taken, whatever its first bytes are.
        Some(bytes.by_ref().take(block_bytes - 1).fold(first, |all, byte| all | byte) == 0)
    })
}

/// Fills `target` with `data` from `at` on, which begins anew at its end; no data are zeroes.
pub(super) fn fill<'a>(target: impl Iterator<Item = &'a mut [u8]>, data: &[u8], at: u64) {
    let length = data.len().max(1) as u64;
    let mut at = usize::try_from(at % length).expect("less than the data's length");
    for mut slice in target {
        if data.is_empty() {
            slice.fill(0);
            continue;
        }
        while !slice.is_empty() {
            let part = slice.len().min(data.len() - at);
            let (now, later) = slice.split_at_mut(part);
            now.copy_from_slice(&data[at..at + part]);
            at = (at + part) % data.len();
            slice = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fill, is_zero, zero_blocks};

    #[test]
    fn a_block_is_zero_when_all_of_it_is_however_it_is_cut() {
        let found = |slices: &[&[u8]]| zero_blocks(slices.iter().copied(), 2).collect::<Vec<bool>>();
        assert_eq!(found(&[&[0, 0, 0], &[1, 1, 0], &[0, 0]]), [true, false, false, true]);
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn a_byte_anywhere_is_found() {
        for at in [0, 63, 64, 130] {
            let mut bytes = [0; 131];
            assert!(is_zero([&bytes[..], &bytes[..3]].into_iter()));
            bytes[at] = 1;
            assert!(!is_zero([&[0][..], &bytes[..]].into_iter()), "{at}");
        }
    }

    #[test]
    fn data_begin_anew_across_the_cuts_of_the_memory() {
        let mut bytes = [0xee; 7];
        let (first, second) = bytes.split_at_mut(2);
        fill([first, second].into_iter(), &[1, 2, 3], 4);
        assert_eq!(bytes, [2, 3, 1, 2, 3, 1, 2]);
    }

    #[test]
    fn no_data_are_zeroes() {
        let mut bytes = [0xee; 3];
        fill([&mut bytes[..]].into_iter(), &[], 5);
        assert_eq!(bytes, [0; 3]);
    }
}
