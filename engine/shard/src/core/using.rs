//! WRITE USING TOKEN (SBC-3 §5.46): a copy of what a token stands for, or zeroes.
//!
//! The token's home says what it stands for, and of each piece, once it is read, that it is good still: then these bytes are
//! what they were when it was made, and are written. The source is a unit of this session's map, and is read like by a READ
//! of this nexus.

use portico_backstores::Request;
use portico_model::peer::TokenWord;
use portico_scsi::copy::Run;
use portico_scsi::copy_results::CopyRecord;
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::token::{self, Range, WriteUsingToken};

use super::copy::{end_of, keep_record, may_begin, note, write_protected};
use super::medium::Refused;
use super::series::CLEAR_BYTES_MAX;
use super::tokens::name_of;
use super::{Core, OpKind};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Asked, Copying, End, Fill, Task, Using, Work};
use crate::unit::Blocks;

/// Where the two ends of such a copy are among its ends.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;

impl<D: Driver> Core<D> {
    pub(super) fn begin_using(&mut self, key: Key<Task>, write: WriteUsingToken) {
        let Some(task) = self.tasks.get(key) else { return };
        let (unit_key, own) = (task.unit.expect("it came to a unit"), task.lun);
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        if let Err(outcome) = may_begin(session, write.list_id, write.immediate) {
            return self.finish(key, outcome);
        }
        let unit = self.units.get(unit_key).expect("a unit stays while it has tasks");
        let read_only = own.and_then(|at| session.luns.get(at)).is_none_or(|lun| lun.entry.read_only);
        let destination = End { unit: unit_key, read_only };
        let source = match write.token.as_deref().map(token::creator_of).transpose() {
            Ok(Some(creator)) => end_of(&creator, session, own, &self.units),
            Ok(None) => Some(destination),
            Err(outcome) => return self.finish(key, outcome),
        };
        let Some(source) = source else {
            // Of another copy manager, as far as this nexus can see.
            let remote = AdditionalSense::REMOTE_TOKEN_USAGE_NOT_SUPPORTED;
            return self.finish(key, Outcome::illegal(remote));
        };
        let geometry = &unit.state.geometry;
        let record = CopyRecord::new(write.list_id, token::WRITE_USING, write.immediate);
        keep_record(session, CopyRecord { block_bytes: Some(geometry.block_length()), ..record });
        let mut copying =
            Copying { list_id: Some(write.list_id), ends: vec![source, destination], ..Copying::default() };
        let immediate = write.immediate;
        let uses_token = write.token.is_some();
        if let Some(name) = write.token.as_deref().map(name_of) {
            copying.using = Some(Using { name, asked: Asked::Waits, write });
        } else {
            copying.fill = Fill::Clear { deallocate: unit.state.thin_provisioned };
            copying.runs = zero_runs(&write.ranges, u64::from(geometry.block_length()));
        }
        if let Some(task) = self.tasks.get_mut(key) {
            task.work = Work::Copy(Box::new(copying));
        }
        if uses_token {
            return self.ask_to_redeem(key, source);
        }
        let key = if immediate { self.go_on_behind(key) } else { key };
        self.pump_copy(key);
    }

    /// Asks the token's home what it stands for.
    fn ask_to_redeem(&mut self, key: Key<Task>, source: End) {
        let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get(key) else { return };
        let Some(Using { name, write, .. }) = &copying.using else { return };
        let (Some(token), home) = (write.token.clone(), name.home) else { return };
        let unit = self.units.get(source.unit).map(|unit| unit.id);
        match unit {
            Some(unit) if home != self.shard && usize::from(home.0) < self.shards => {
                self.tell_of_token(home, unit, TokenWord::Redeem { question: key.to_bits(), token });
            }
            Some(_) if home == self.shard => {
                let answer = self.redeem(source.unit, &token);
                self.redeemed(key, answer);
            }
            _ => self.redeemed(key, Err(AdditionalSense::TOKEN_UNKNOWN)),
        }
    }

    /// The token stands for these blocks, or is no good.
    pub(super) fn redeemed(&mut self, key: Key<Task>, answer: Result<Vec<Range>, AdditionalSense>) {
        let Some(Task { work: Work::Copy(copying), ended: None, aborted: false, .. }) =
            self.tasks.get_mut(key)
        else {
            return;
        };
        let Some(using) = &mut copying.using else { return };
        let block =
            |end: End| self.units.get(end.unit).map(|unit| u64::from(unit.state.geometry.block_length()));
        let blocks = block(copying.ends[SOURCE]).zip(block(copying.ends[DESTINATION]));
        let pairs = match (answer, blocks) {
            (Ok(ranges), Some((from, to))) => token::pair(&ranges, from, &using.write, to),
            (Err(why), _) => Err(Outcome::illegal(why)),
            (Ok(_), None) => Err(Outcome::copy_aborted(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE)),
        };
        let pairs = match pairs {
            Ok(pairs) => pairs,
            Err(outcome) => return self.finish(key, outcome),
        };
        let run = |&(source_bytes, destination_bytes, length_bytes): &(u64, u64, u64)| Run {
            segment: 0,
            source: SOURCE,
            destination: DESTINATION,
            source_bytes,
            destination_bytes,
            length_bytes,
        };
        copying.runs = pairs.iter().rev().map(run).collect();
        using.asked = Asked::Not;
        let immediate = using.write.immediate;
        let key = if immediate { self.go_on_behind(key) } else { key };
        self.pump_copy(key);
    }

    /// Whether the piece that was read may be written: its home says of the token, where there is one, that it is good.
    pub(super) fn is_vouched_for(&mut self, key: Key<Task>) -> bool {
        let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key) else { return false };
        let Some(using) = &mut copying.using else { return true };
        match using.asked {
            Asked::Good => return true,
            Asked::Waits => return false,
            Asked::Not => using.asked = Asked::Waits,
        }
        let (name, source) = (using.name, copying.ends[SOURCE].unit);
        let unit = self.units.get(source).map(|unit| unit.id);
        match unit {
            Some(unit) if name.home != self.shard => {
                self.tell_of_token(name.home, unit, TokenWord::Vouch { question: key.to_bits(), name });
                false
            }
            _ => {
                let answer = self.vouch(source, name);
                self.note_answer(key, answer)
            }
        }
    }

    /// The token's home has answered.
    pub(super) fn vouched(&mut self, key: Key<Task>, answer: Result<(), AdditionalSense>) {
        if self.note_answer(key, answer) {
            self.pump_copy(key);
        }
    }

    fn note_answer(&mut self, key: Key<Task>, answer: Result<(), AdditionalSense>) -> bool {
        let Some(Task { work: Work::Copy(copying), ended: None, aborted: false, .. }) =
            self.tasks.get_mut(key)
        else {
            return false;
        };
        match (answer, &mut copying.using) {
            (Ok(()), Some(using)) => using.asked = Asked::Good,
            (Ok(()), None) => return false,
            (Err(why), _) => {
                self.finish(key, Outcome::illegal(why));
                return false;
            }
        }
        true
    }

    /// A copy has ended well that was to delete its token.
    pub(super) fn delete_token(&mut self, key: Key<Task>) {
        let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get(key) else { return };
        let Some(Using { name, write, .. }) = &copying.using else { return };
        let (name, source) = (*name, copying.ends[SOURCE].unit);
        let Some(unit) = self.units.get(source).filter(|_| write.delete).map(|unit| unit.id) else { return };
        if name.home == self.shard {
            let why = AdditionalSense::TOKEN_DELETED;
            self.with_tokens(source, |tokens, out| tokens.give_up(name, why, out));
        } else {
            self.tell_of_token(name.home, unit, TokenWord::Delete(name));
        }
    }

    // --- Zeroes ----------------------------------------------------------------------------------------------------

    /// Clears the next blocks.
    pub(super) fn clear_copy(&mut self, key: Key<Task>, run: &Run, deallocate: bool) -> Result<(), Refused> {
        let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key) else { return Ok(()) };
        let End { unit: unit_key, read_only } = copying.ends[run.destination];
        if read_only {
            return Err(Refused::Ends(write_protected()));
        }
        copying.unstable = true;
        let length_bytes = (run.length_bytes - copying.at_bytes).min(CLEAR_BYTES_MAX as u64);
        let offset_bytes = run.destination_bytes + copying.at_bytes;
        let Some(unit) = self.units.get(unit_key) else { return Ok(()) };
        let blocks = Blocks::at(offset_bytes, length_bytes, unit.state.geometry.block_length());
        let request = Request::Clear { offset_bytes, length_bytes, deallocate };
        let kind = OpKind::Clear { length_bytes };
        self.hand_over_at(key, (unit_key, CommandClass::Write), kind, blocks, request)
    }

    /// Blocks are cleared. The next ones in the next turn, as of a series.
    pub(super) fn copy_cleared(&mut self, key: Key<Task>, length_bytes: u64) {
        let Some(Task { work: Work::Copy(copying), session, .. }) = self.tasks.get_mut(key) else { return };
        copying.at_bytes += length_bytes;
        note(&mut self.sessions, *session, copying.list_id, |record| {
            record.bytes += length_bytes;
            record.operations = record.operations.wrapping_add(1);
        });
        self.wait_for(key, None, Short::Unit);
        self.note_released();
    }

    /// The medium cannot clear ranges: zeroes are written, from where the copy stands.
    pub(super) fn copy_zeroes_instead(&mut self, key: Key<Task>) {
        if let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key) {
            copying.fill = Fill::Zeroes;
        }
        self.wait_for(key, None, Short::Unit);
        self.note_released();
    }

    pub(super) fn zeroes_to_copy(&mut self, key: Key<Task>, run: &Run) -> Result<(), Refused> {
        let (_, _, length) = self.piece(key, run);
        if !self.book_in_line(key, length as u64, Kind::Swift) {
            return Ok(());
        }
        let Some(mut segments) = self.take_memory(length) else {
            self.unbook(key, length as u64);
            return Err(Refused::Full(None));
        };
        segments.slices_mut().for_each(|slice| slice.fill(0));
        self.write_copy(key, run, segments)
    }
}

fn zero_runs(ranges: &[Range], block: u64) -> Vec<Run> {
    let run = |range: &Range| Run {
        segment: 0,
        source: DESTINATION,
        destination: DESTINATION,
        source_bytes: range.lba.0 * block,
        destination_bytes: range.lba.0 * block,
        length_bytes: range.blocks * block,
    };
    ranges.iter().rev().map(run).collect()
}
