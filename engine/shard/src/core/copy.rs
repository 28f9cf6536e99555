//! EXTENDED COPY: blocks go from one unit to another, or to another place of the same, without leaving the gateway (SPC-4 §6.4).
//!
//! The shard of the session has every unit's replica and queue, so the copy is made there. One piece at a time is read and
//! written; each half is judged like a READ or a WRITE of this nexus at its unit, by the state of its moment, and after each
//! piece others have their turn. A copy reaches the units of its session's map and no others.
//!
//! With IMMED it goes on in the background: as a task of its own that no request stands behind. It holds the unit like any
//! other, and ends with its session.

use portico_backstores::Request;
use portico_iscsi::session::TaskId;
use portico_ring::Segments;
use portico_scsi::copy::{CONCURRENT_COPIES, Cscd, ExtendedCopy, Run};
use portico_scsi::copy_results::{CopyRecord, CopyResults, CopyState, RESULTS_BYTES_MAX};
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::{AdditionalSense, Forwarded, Outcome, Sense, SenseKey};
use portico_scsi::unit::LogicalUnit;

use super::medium::Refused;
use super::{Core, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::management::Management;
use crate::session::Session;
use crate::slab::{Key, Slab};
use crate::task::{Asked, Copying, End, Fill, PIECE_BYTES_MAX, Task, Work};
use crate::unit::{Blocks, Unit};

impl<D: Driver> Core<D> {
    pub(super) fn begin_copy(&mut self, key: Key<Task>, copy: &ExtendedCopy) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        if let Some(list_id) = copy.list_id
            && let Err(outcome) = may_begin(session, list_id, copy.immediate)
        {
            return self.finish(key, outcome);
        }
        let own = task.lun;
        let ends: Vec<Option<End>> =
            copy.cscds.iter().map(|cscd| end_of(cscd, session, own, &self.units)).collect();
        let state = |end: &Option<End>| -> Option<&LogicalUnit> {
            self.units.get(end.as_ref()?.unit).map(|unit| &*unit.state)
        };
        let states: Vec<Option<&LogicalUnit>> = ends.iter().map(state).collect();
        let mut runs = match copy.runs(&states) {
            Ok(runs) => runs,
            Err(outcome) => return self.finish(key, outcome),
        };
        runs.reverse();
        if let Some(list_id) = copy.list_id {
            keep_record(session, CopyRecord::new(list_id, copy.service_action, copy.immediate));
        }
        let ends = ends.into_iter().map(|end| end.unwrap_or_default()).collect();
        task.work = Work::Copy(Box::new(Copying { list_id: copy.list_id, ends, runs, ..Copying::default() }));
        let key = if copy.immediate { self.go_on_behind(key) } else { key };
        self.pump_copy(key);
    }

    /// Hands the next half of a piece over.
    pub(super) fn pump_copy(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Copy(copying) = &mut task.work else { return };
        if task.ended.is_some() || task.aborted || task.at_medium > 0 || task.waits.is_some() {
            return;
        }
        if copying.populates.is_some() {
            return self.pump_populate(key);
        }
        if copying.using.as_ref().is_some_and(|using| using.asked == Asked::Waits) {
            return;
        }
        while copying.runs.last().is_some_and(|run| run.length_bytes == copying.at_bytes) {
            copying.runs.pop();
            copying.at_bytes = 0;
            note(&mut self.sessions, task.session, copying.list_id, |record| {
                record.segments += u16::from(record.block_bytes.is_none());
            });
        }
        let Some(run) = copying.runs.last().copied() else {
            return self.end_of_runs(key);
        };
        let handed = match (copying.fill, copying.read.is_some()) {
            (_, true) => {
                if !self.is_vouched_for(key) {
                    return;
                }
                match self.take_read(key) {
                    Some(segments) => self.write_copy(key, &run, segments),
                    None => return,
                }
            }
            (Fill::Blocks, false) => self.read_to_copy(key, &run),
            (Fill::Clear { deallocate }, false) => self.clear_copy(key, &run, deallocate),
            (Fill::Zeroes, false) => self.zeroes_to_copy(key, &run),
        };
        self.see_to_copy(key, handed);
    }

    fn take_read(&mut self, key: Key<Task>) -> Option<Segments> {
        match self.tasks.get_mut(key).map(|task| &mut task.work) {
            Some(Work::Copy(copying)) => copying.read.take(),
            _ => None,
        }
    }

    /// All is written: GOOD, once it is stable where it must be.
    fn end_of_runs(&mut self, key: Key<Task>) {
        let Some(Task { work: Work::Copy(copying), unit: Some(unit), .. }) = self.tasks.get_mut(key) else {
            return;
        };
        let (unstable, unit) = (std::mem::take(&mut copying.unstable), *unit);
        if !unstable || !self.must_be_stable(unit) {
            self.delete_token(key);
            return self.finish(key, Outcome::GOOD);
        }
        let handed = self.hand_over(key, OpKind::Flush, Blocks { lba: 0, count: 0 }, Request::Flush);
        if handed.is_err()
            && let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key)
        {
            copying.unstable = true;
        }
        self.see_to_copy(key, handed);
    }

    fn see_to_copy(&mut self, key: Key<Task>, handed: Result<(), Refused>) {
        match handed {
            Ok(()) => {}
            Err(Refused::Ends(outcome)) => self.finish(key, outcome),
            Err(refused) => {
                let (list, _) = refused.waits();
                // In no line: what is short may be another unit's than the one that the command came to.
                self.wait_for(key, None, Short::Unit);
                match self.tasks.get_mut(key).map(|task| &mut task.work) {
                    Some(Work::Copy(copying)) if list.as_ref().is_some_and(|list| !list.is_empty()) => {
                        copying.read = list;
                    }
                    _ => self.pool.keep_list_if(list),
                }
            }
        }
    }

    fn read_to_copy(&mut self, key: Key<Task>, run: &Run) -> Result<(), Refused> {
        let (end, place, length) = self.piece(key, run);
        if !self.book_in_line(key, length as u64, Kind::Swift) {
            return Ok(());
        }
        let Some(segments) = self.take_memory(length) else {
            self.unbook(key, length as u64);
            return Err(Refused::Full(None));
        };
        let source = end.source.unit;
        self.note_end(key, false);
        let offset_bytes = run.source_bytes + place;
        let blocks = self.blocks_of(source, offset_bytes, length)?;
        let request = Request::Read { offset_bytes, segments };
        let kind = OpKind::Fetch { at_bytes: place };
        match self.hand_over_at(key, (source, CommandClass::Read), kind, blocks, request) {
            // It is read anew: what waits holds no memory.
            Err(Refused::Full(list) | Refused::Closed(list)) => {
                self.pool.keep_list_if(list);
                self.unbook(key, length as u64);
                Err(Refused::Full(None))
            }
            other => other,
        }
    }

    pub(super) fn write_copy(
        &mut self,
        key: Key<Task>,
        run: &Run,
        segments: Segments,
    ) -> Result<(), Refused> {
        let (ends, place, length) = self.piece(key, run);
        let End { unit: destination, read_only } = ends.destination;
        self.note_end(key, true);
        if read_only {
            self.pool.keep_list(segments);
            return Err(Refused::Ends(write_protected()));
        }
        let offset_bytes = run.destination_bytes + place;
        let blocks = self.blocks_of(destination, offset_bytes, length)?;
        let durable = self.must_be_stable(destination);
        if let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key) {
            copying.durable = durable;
        }
        let request = Request::Write { offset_bytes, segments, durable };
        let kind = OpKind::Store { length_bytes: length as u64 };
        self.hand_over_at(key, (destination, CommandClass::Write), kind, blocks, request)
    }

    /// Whose turn it is: the source's, or the destination's.
    fn note_end(&mut self, key: Key<Task>, writes: bool) {
        if let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key) {
            copying.writes = writes;
        }
    }

    /// The units of a run, and the piece that is next: where it begins in the run, and its length. Of a copy to a later place of
    /// the same blocks the last piece comes first, so that nothing is read that was written.
    pub(super) fn piece(&self, key: Key<Task>, run: &Run) -> (Ends, u64, usize) {
        let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get(key) else {
            unreachable!("the caller has seen it")
        };
        let ends = Ends { source: copying.ends[run.source], destination: copying.ends[run.destination] };
        let length = (run.length_bytes - copying.at_bytes).min(PIECE_BYTES_MAX as u64);
        let backwards = copying.using.is_none()
            && ends.source.unit == ends.destination.unit
            && run.destination_bytes > run.source_bytes;
        let place = if backwards { run.length_bytes - copying.at_bytes - length } else { copying.at_bytes };
        (ends, place, usize::try_from(length).expect("a piece is small"))
    }

    fn blocks_of(&self, unit: Key<Unit>, offset_bytes: u64, length: usize) -> Result<Blocks, Refused> {
        let gone = Outcome::copy_aborted(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE);
        let unit = self.units.get(unit).ok_or(Refused::Ends(gone))?;
        Ok(Blocks::at(offset_bytes, length as u64, unit.state.geometry.block_length()))
    }

    fn must_be_stable(&self, unit: Key<Unit>) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.state.mode.write_cache.must_be_stable(false))
    }

    /// A piece is read.
    pub(super) fn copy_fetched(&mut self, key: Key<Task>, segments: Segments) {
        if let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key) {
            copying.read = Some(segments);
        }
        self.pump_copy(key);
    }

    /// A piece is written. The next one in the next turn, as of a series.
    pub(super) fn copy_stored(&mut self, key: Key<Task>, length_bytes: u64, segments: Option<Segments>) {
        let Some(Task { work: Work::Copy(copying), session, .. }) = self.tasks.get_mut(key) else { return };
        let destination = copying.runs.last().map(|run| copying.ends[run.destination].unit);
        // Where the write cache was turned off meanwhile, the flush of that change need not have seen this piece: once more.
        // Not read anew: where the copy overlaps itself, its source holds what was written.
        let again = !copying.durable
            && destination.is_some_and(|unit| {
                self.units.get(unit).is_some_and(|unit| unit.state.mode.write_cache.must_be_stable(false))
            });
        if again {
            copying.read = segments;
        } else {
            copying.at_bytes += length_bytes;
            if let Some(using) = &mut copying.using {
                using.asked = Asked::Not;
            }
            note(&mut self.sessions, *session, copying.list_id, |record| {
                record.bytes += length_bytes;
                record.operations = record.operations.wrapping_add(1);
            });
            self.let_go(segments);
            self.unbook(key, length_bytes);
        }
        self.wait_for(key, None, Short::Unit);
        self.note_released();
    }

    /// What a copy ends with: an error of a unit is one of a third party, at this segment, and told with what the unit said
    /// (SPC-4 §5.16.7.4). Whoever asks later is told.
    pub(super) fn end_copy(&mut self, key: Key<Task>, outcome: Outcome) -> Outcome {
        let Some(Task { work: Work::Copy(copying), session, .. }) = self.tasks.get_mut(key) else {
            return outcome;
        };
        let of_token = copying.populates.is_some() || copying.using.is_some() || copying.fill != Fill::Blocks;
        let segment = copying.runs.last().map_or(0, |run| run.segment);
        let (state, outcome) = match outcome.sense {
            _ if outcome == Outcome::GOOD => (CopyState::Completed, outcome),
            _ if outcome == Outcome::TASK_ABORTED => (CopyState::Aborted, outcome),
            // Of a token's copy the source and the destination are what the command is about, and no third party.
            _ if of_token => (CopyState::Failed, outcome),
            Some(sense) if sense.key == SenseKey::CopyAborted => {
                (CopyState::Failed, Outcome::copy_failed(sense.additional, segment))
            }
            _ => {
                let forwarded = Forwarded::new(copying.writes, &outcome);
                (CopyState::Failed, Outcome::third_party_failed(segment, forwarded))
            }
        };
        note(&mut self.sessions, *session, copying.list_id, |record| {
            (record.state, record.outcome) = (state, outcome);
        });
        let read = copying.read.take();
        self.pool.keep_list_if(read);
        self.end_populate(key, outcome == Outcome::GOOD);
        outcome
    }

    /// RECEIVE COPY STATUS and the like.
    pub(super) fn answer_copy_results(
        &mut self,
        key: Key<Task>,
        results: CopyResults,
        list_id: u32,
        allocation_length: u32,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let session = self.sessions.get(task.session).expect("a task has a session");
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("it came to a unit");
        let scratch = &mut self.pool.scratch;
        if scratch.len() < RESULTS_BYTES_MAX {
            scratch.resize(RESULTS_BYTES_MAX, 0);
        }
        let record = session.copies.iter().find(|record| record.list_id == list_id);
        let format = unit.state.sense_format();
        match record.and_then(|record| record.tell(results, format, allocation_length, scratch)) {
            Some(length) => self.reply(key, length),
            None => self.finish(key, Outcome::invalid_cdb_field(2, None)),
        }
    }

    /// COPY OPERATION ABORT: GOOD when nothing of the copy is at a medium any more.
    pub(super) fn abort_copy(&mut self, key: Key<Task>, list_id: u32) {
        let Some(&Task { session, .. }) = self.tasks.get(key) else { return };
        let is_it = |task: &Task| {
            let of_list = matches!(&task.work, Work::Copy(copying) if copying.list_id == Some(list_id));
            of_list && task.session == session && task.ended.is_none()
        };
        let Some(copy) = self.tasks_where(is_it).pop() else {
            return self.finish(key, Outcome::invalid_cdb_field(2, None));
        };
        self.finish(copy, Outcome::copy_aborted(AdditionalSense::NONE));
        note(&mut self.sessions, session, Some(list_id), |record| record.state = CopyState::Aborted);
        if let Some(task) = self.tasks.get_mut(key) {
            task.work = Work::CopyAbort(copy);
        }
        self.pump_copy_abort(key);
    }

    pub(super) fn pump_copy_abort(&mut self, key: Key<Task>) {
        let Some(&Task { work: Work::CopyAbort(copy), .. }) = self.tasks.get(key) else { return };
        if self.tasks.get(copy).is_some_and(|copy| copy.at_medium > 0) {
            return self.wait_for(key, None, Short::Unit);
        }
        self.finish(key, Outcome::GOOD);
    }

    /// What is at a unit is aborted: copies that came to other units and lead there end, and their initiators hear of it.
    /// `management` waits for their pieces.
    pub(super) fn end_copies_at(
        &mut self,
        unit: Key<Unit>,
        management: Option<Key<Management>>,
        includes: impl Fn(&Task) -> bool,
    ) {
        let found = self.tasks_where(|task| {
            let Work::Copy(copying) = &task.work else { return false };
            let leads_there = copying.ends.iter().any(|end| end.unit == unit);
            leads_there && task.unit != Some(unit) && task.ended.is_none() && includes(task)
        });
        for key in found {
            self.await_pieces(key, management);
            self.finish(key, Outcome::copy_aborted(AdditionalSense::THIRD_PARTY_DEVICE_FAILURE));
        }
    }

    // --- In the background -----------------------------------------------------------------------------------------

    /// The command ends well, and its copy goes on as another task.
    pub(super) fn go_on_behind(&mut self, key: Key<Task>) -> Key<Task> {
        let task = self.tasks.get_mut(key).expect("the caller has it");
        let work = std::mem::replace(&mut task.work, Work::None);
        let Task { session, lun, unit, .. } = *task;
        let (behind, task) = self.tasks.renew(Task::blank);
        task.begin(session, TaskId::NOBODY, self.now);
        (task.lun, task.unit, task.work) = (lun, unit, work);
        if let Some(unit) = unit.and_then(|unit| self.units.get_mut(unit)) {
            unit.tasks += 1;
        }
        if let Some(session) = self.sessions.get_mut(session)
            && let Some(lun) = lun.and_then(|at| session.luns.get_mut(at))
        {
            lun.tasks += 1;
            lun.behind += 1;
        }
        self.finish(key, Outcome::GOOD);
        behind
    }

    /// A copy in the background has ended like this: there is nobody to be told.
    pub(super) fn finish_behind(&mut self, key: Key<Task>, outcome: Outcome) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.ended = Some(outcome);
            task.aborted = true;
        }
        self.settle(key);
    }

    /// Lets go of a copy in the background of which nothing is at a medium.
    pub(super) fn release_behind(&mut self, key: Key<Task>) {
        if self.tasks.get(key).is_some_and(|task| task.ended.is_none()) {
            self.end_copy(key, Outcome::TASK_ABORTED);
        }
        self.stop_waiting(key);
        self.unbook_all(key);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let awaited_by = std::mem::take(&mut task.awaited_by);
        task.end();
        let Task { session, lun, unit, .. } = *task;
        self.tasks.leave(key);
        self.note_released();
        if let Some(session) = self.sessions.get_mut(session)
            && let Some(lun) = lun.and_then(|at| session.luns.get_mut(at))
        {
            lun.tasks -= 1;
            lun.behind -= 1;
        }
        for management in awaited_by {
            self.management_task_done(management);
        }
        if let Some(key) = unit
            && let Some(unit) = self.units.get_mut(key)
        {
            unit.tasks -= 1;
            self.close_if_idle(key);
        }
    }
}

/// Whether the session may begin a copy under this identifier.
pub(super) fn may_begin(session: &Session, list_id: u32, immediate: bool) -> Result<(), Outcome> {
    let running = |record: &&CopyRecord| record.is_running();
    if session.copies.iter().filter(running).any(|record| record.list_id == list_id) {
        return Err(Outcome::illegal(AdditionalSense::OPERATION_IN_PROGRESS));
    }
    // Of one in the background nothing else tells how it ended: it gives its place to nobody.
    let held = |record: &&CopyRecord| running(record) && (immediate || record.background);
    if session.copies.iter().filter(held).count() >= usize::from(CONCURRENT_COPIES) {
        return Err(Outcome::TASK_SET_FULL);
    }
    Ok(())
}

/// Keeps a record, in the place of the oldest of copies that are over, or that tell by their status how they end.
pub(super) fn keep_record(session: &mut Session, record: CopyRecord) {
    session.copies.retain(|before| before.list_id != record.list_id);
    if session.copies.len() >= usize::from(CONCURRENT_COPIES) {
        let over = session.copies.iter().position(|record| !record.is_running());
        let at = over.or_else(|| session.copies.iter().position(|record| !record.background));
        session.copies.remove(at.expect("not all go on in the background"));
    }
    session.copies.push(record);
}

/// The two units of a run.
pub(super) struct Ends {
    source: End,
    destination: End,
}

/// The unit of the session's map that a descriptor names, or that the command came to at `own`; none where two are.
pub(super) fn end_of(cscd: &Cscd, session: &Session, own: Option<usize>, units: &Slab<Unit>) -> Option<End> {
    if cscd.is_own {
        let lun = session.luns.get(own?)?;
        let mut same = session.luns.iter().filter(|other| other.unit == lun.unit);
        return Some(End { unit: lun.unit, read_only: same.all(|lun| lun.entry.read_only) });
    }
    let named = |lun: &&crate::session::LunState| {
        units.get(lun.unit).is_some_and(|unit| cscd.names(&unit.state.identity))
    };
    let mut found: Option<End> = None;
    for lun in session.luns.iter().filter(named) {
        let read_only = lun.entry.read_only;
        match &mut found {
            None => found = Some(End { unit: lun.unit, read_only }),
            Some(end) if end.unit == lun.unit => end.read_only &= read_only,
            Some(_) => return None,
        }
    }
    found
}

/// The session's map lets nobody write there.
pub(super) fn write_protected() -> Outcome {
    Outcome::check(Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED))
}

/// Changes what is kept of a copy.
pub(super) fn note(
    sessions: &mut Slab<Session>,
    session: Key<Session>,
    list_id: Option<u32>,
    change: impl FnOnce(&mut CopyRecord),
) {
    let records = sessions.get_mut(session).map(|session| &mut session.copies);
    let record =
        records.zip(list_id).and_then(|(records, id)| records.iter_mut().find(|one| one.list_id == id));
    if let Some(record) = record {
        change(record);
    }
}
