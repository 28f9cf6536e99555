//! What tasks have of the shard's memory: bookings of their unit and session, and data before their command's turn.

use std::collections::VecDeque;
use std::time::Duration;

use portico_iscsi::framing::Lengths;
use portico_ring::{Arena, Buffer, Class};
use portico_scsi::sense::Outcome;

use super::{Core, Line};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::inbound::take_fitting;
use crate::purpose::Purpose;
use crate::session::Session;
use crate::slab::Key;
use crate::task::{Task, Work};

/// How long an initiator may owe data that it was asked for, where others wait for the memory that is kept for them.
const DATA_PATIENCE: Duration = Duration::from_secs(10);

/// The part of the arena's size that Data-Out may take on the heap, of commands that need all of theirs at once.
const GATHERED_PARTS: u64 = 4;

/// A buffer whose chunk is more than so many times as large holds too much of it, where memory is short.
const WASTE_MAX: usize = 4;

/// Data-Out that is gathered on the heap, first come, first served.
#[derive(Debug)]
pub(super) struct Gathering {
    bytes: u64,
    bytes_max: u64,
    waiting: VecDeque<Key<Task>>,
}

impl Gathering {
    pub(super) fn new(arena_bytes: u64) -> Self {
        Self { bytes: 0, bytes_max: arena_bytes / GATHERED_PARTS, waiting: VecDeque::new() }
    }
}

impl<D: Driver> Core<D> {
    /// Whether it is a command's turn to gather so many bytes. One that needs more than there are gathers alone.
    pub(super) fn may_gather(&mut self, key: Key<Task>, bytes: u64) -> bool {
        let Gathering { bytes: gathered, bytes_max, waiting } = &mut self.gathering;
        let is_first = waiting.front().is_none_or(|first| *first == key);
        if !is_first || *gathered > 0 && *gathered + bytes > *bytes_max {
            if !waiting.contains(&key) {
                waiting.push_back(key);
            }
            return false;
        }
        waiting.pop_front();
        *gathered += bytes;
        let length = |bytes: u64| usize::try_from(bytes).expect("a transfer is bounded");
        if let Some(task) = self.tasks.get_mut(key) {
            task.progressed = self.now;
            match &mut task.work {
                Work::Series(series) => {
                    series.gathers_bytes = bytes;
                    series.data.reserve_exact(length(series.data_bytes.into()));
                }
                Work::Atomic(atomic) => {
                    (atomic.gathers_bytes, atomic.has_place) = (bytes, true);
                    atomic.data.reserve_exact(length(bytes));
                }
                _ => {}
            }
        }
        // The next one may have its turn as well.
        self.released = true;
        true
    }

    /// A command has no data any more, and wants none.
    pub(super) fn gathered(&mut self, key: Key<Task>) {
        let gathers_bytes = match self.tasks.get_mut(key).map(|task| &mut task.work) {
            Some(Work::Series(series)) => {
                series.data = Vec::new();
                &mut series.gathers_bytes
            }
            Some(Work::Atomic(atomic)) => {
                atomic.clear();
                &mut atomic.gathers_bytes
            }
            _ => return,
        };
        self.gathering.bytes -= std::mem::take(gathers_bytes);
        self.gathering.waiting.retain(|waiting| *waiting != key);
        self.released = true;
    }

    /// Where others wait for memory that initiators were asked to fill, those who have not begun to for long give it back,
    /// and their commands end with TASK SET FULL: so however many announce and never send, everybody else has a turn.
    pub fn expire_announcements(&mut self) {
        let waits = |key: &Key<Task>| {
            let wait = self.tasks.get(*key).and_then(|task| task.waits);
            wait.is_some_and(|wait| wait.line == Some(Line::Patient))
        };
        if self.gathering.waiting.is_empty() && !self.starved.iter().any(waits) {
            return;
        }
        let now = self.now;
        let late = self.tasks_where(|task| {
            let has = match &task.work {
                Work::Write(_) | Work::Verify(_) => task.booked_bytes > 0 && task.booked_as == Kind::Patient,
                Work::Series(series) => series.gathers_bytes > 0,
                Work::Atomic(atomic) => atomic.gathers_bytes > 0,
                _ => false,
            };
            has && task.at_medium == 0
                && task.waits.is_none_or(|wait| wait.is_blocked)
                && task.ended.is_none()
                && task.progressed + DATA_PATIENCE <= now
        });
        let mut owing = Vec::new();
        for key in late {
            let Some(task) = self.tasks.get(key) else { continue };
            let session = self.sessions.get(task.session).expect("a task has a session");
            if !session.wire.progress(task.name).is_complete {
                owing.push(task.session);
                self.counters.refused_for_memory += 1;
                self.finish(key, Outcome::TASK_SET_FULL);
                self.unbook_all(key);
                self.released = true;
            }
        }
        if !owing.is_empty() {
            self.stand_behind(&owing);
        }
    }

    /// What else these sessions wait for is behind what all others do: they have had their turn, and did not use it.
    fn stand_behind(&mut self, owing: &[Key<Session>]) {
        let tasks = &self.tasks;
        let owes = |key: &Key<Task>| tasks.get(*key).is_some_and(|task| owing.contains(&task.session));
        for queue in [&mut self.starved, &mut self.gathering.waiting] {
            let (behind, before): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(owes);
            queue.extend(before);
            queue.extend(behind);
        }
    }

    /// Where memory is short, data that wait are put into chunks of their size: they came in chunks with other things, of
    /// which the last byte that is left holds all.
    pub fn compact_inflows(&mut self) {
        if !self.driver.arena().is_short() {
            return;
        }
        for index in 0..self.tasks.places() {
            let Some(key) = self.tasks.key_at(index) else { continue };
            let task = self.tasks.get_mut(key).expect("it was just found");
            self.counters.copied_bytes += compact(self.driver.arena(), &mut task.inflow);
        }
        self.released = true;
    }

    /// Books `bytes` for a task. What it had booked in the other kind is part of them, and given back.
    ///
    /// # Errors
    /// They are not to be had now, and who stands still for that.
    pub(super) fn book(&mut self, key: Key<Task>, bytes: u64, kind: Kind) -> Result<(), Short> {
        let task = self.tasks.get_mut(key).expect("who books is there");
        let unit = task.unit.and_then(|unit| self.units.get_mut(unit)).expect("only commands of a unit book");
        let session = self.sessions.get_mut(task.session).expect("tasks book while their session lasts");
        self.budget.take(&mut unit.share, &mut session.holding, bytes, kind)?;
        if task.booked_as != kind {
            let before = std::mem::take(&mut task.booked_bytes);
            self.budget.give(&mut unit.share, before, task.booked_as);
            session.holding.give(before, task.booked_as);
        }
        task.booked_bytes += bytes;
        task.booked_as = kind;
        Ok(())
    }

    /// Books `bytes` for a task that have a bound elsewhere, whether they are to be had or not.
    pub(super) fn charge(&mut self, key: Key<Task>, bytes: u64) {
        let task = self.tasks.get_mut(key).expect("who books is there");
        let unit = task.unit.and_then(|unit| self.units.get_mut(unit)).expect("only commands of a unit book");
        let session = self.sessions.get_mut(task.session).expect("tasks book while their session lasts");
        self.budget.charge(&mut unit.share, &mut session.holding, bytes, task.booked_as);
        task.booked_bytes += bytes;
    }

    /// As [`Core::book`] by itself, after those who came before; a task that gets nothing waits.
    pub(super) fn book_in_line(&mut self, key: Key<Task>, bytes: u64, kind: Kind) -> bool {
        if self.queue_behind(key, Line::from(kind)) {
            return false;
        }
        match self.book(key, bytes, kind) {
            Ok(()) => true,
            Err(short) => {
                self.wait_for(key, Some(Line::from(kind)), short);
                false
            }
        }
    }

    /// Takes a booking of this task back, or what is left of it.
    pub(super) fn unbook(&mut self, key: Key<Task>, bytes: u64) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let bytes = bytes.min(task.booked_bytes);
        if bytes == 0 {
            return;
        }
        task.booked_bytes -= bytes;
        let kind = task.booked_as;
        if let Some(unit) = task.unit.and_then(|unit| self.units.get_mut(unit)) {
            self.budget.give(&mut unit.share, bytes, kind);
        }
        if let Some(session) = self.sessions.get_mut(task.session) {
            session.holding.give(bytes, kind);
        }
    }

    /// Takes everything back that this task has booked.
    pub(super) fn unbook_all(&mut self, key: Key<Task>) {
        self.unshelve(key);
        self.unbook(key, u64::MAX);
    }

    /// Data of a request that waits for its turn, or of a list of parameters that is not complete, are put into buffers of
    /// their size, so that they hold no more than they are, and into the account of early data. Where they have no place there,
    /// they are let go, and the command ends with TASK SET FULL when it has its turn. Said after each data segment.
    pub fn shelve(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let waits = matches!(task.work, Work::None | Work::Parameters(_)) && task.ended.is_none();
        let mut rest = task.inflow_bytes.saturating_sub(task.shelved_bytes);
        if !waits || task.aborted || rest == 0 {
            return;
        }
        let first = task.inflow.len() - buffers_of_tail(task, rest);
        self.counters.copied_bytes += rest as u64;
        let mut taken = 0;
        while rest > 0 {
            let buffer = take_fitting(self.driver.arena(), rest);
            let task = self.tasks.get_mut(key).expect("it was just there");
            let session = self.sessions.get_mut(task.session).expect("a task has a session");
            let booked = buffer.and_then(|buffer| {
                let bytes = buffer.class().bytes() as u64;
                self.budget.take_early(&mut session.holding, bytes).ok().map(|()| (buffer, bytes))
            });
            let Some((mut buffer, bytes)) = booked else { return self.refuse_early(key) };
            task.early_bytes += bytes;
            buffer.set_len(rest.min(buffer.capacity()));
            rest -= buffer.len();
            super::write::copy_from(&mut task.inflow, first + taken, &mut buffer);
            task.inflow.insert(first + taken, buffer);
            taken += 1;
        }
        let task = self.tasks.get_mut(key).expect("it was just there");
        task.shelved_bytes = task.inflow_bytes;
    }

    /// A data segment begins to come. Nobody knows when it ends, and as long as its command has not begun, nothing of it is
    /// in an account: where memory is short, a large one is thrown away as it comes, and the command ends with TASK SET FULL.
    /// So is what comes for a command that is over.
    pub fn welcome(&mut self, purpose: Purpose, lengths: Lengths) -> Purpose {
        let Purpose::Request { task: key, name, .. } = purpose else { return purpose };
        let nobody = Purpose::Request { task: key, name, keep_bytes: 0 };
        let Some(task) = self.tasks.get(key) else { return nobody };
        if task.ended.is_some() || task.aborted || task.is_refused {
            return nobody;
        }
        let has_begun = !matches!(task.work, Work::None | Work::Parameters(_));
        let is_small = lengths.data_segment_bytes as usize <= Class::Small.bytes();
        if has_begun || is_small || !self.driver.arena().is_short() {
            return purpose;
        }
        self.refuse_early(key);
        nobody
    }

    fn refuse_early(&mut self, key: Key<Task>) {
        self.unshelve(key);
        self.counters.refused_for_memory += 1;
        let Some(task) = self.tasks.get_mut(key) else { return };
        (task.inflow_bytes, task.is_refused) = (0, true);
        task.inflow.clear();
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        session.wire.discard_data(task.name);
        if matches!(task.work, Work::Parameters(_)) {
            self.finish(key, Outcome::TASK_SET_FULL);
        }
    }

    /// A task's data are booked from now on as its command wants it, or are gone.
    pub(super) fn unshelve(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let bytes = std::mem::take(&mut task.early_bytes);
        task.shelved_bytes = 0;
        if bytes > 0 {
            let holding = self.sessions.get_mut(task.session).map(|session| &mut session.holding);
            self.budget.give_early(holding, bytes);
        }
    }
}

/// How many of the last buffers hold the last `bytes`, which begin at the beginning of one.
fn buffers_of_tail(task: &Task, mut bytes: usize) -> usize {
    let mut count = 0;
    for buffer in task.inflow.iter().rev() {
        if bytes == 0 {
            break;
        }
        bytes -= buffer.len();
        count += 1;
    }
    count
}

/// Puts what lies in chunks that are much larger into small ones, as far as there are any; tells how much that was.
fn compact(arena: &Arena, inflow: &mut VecDeque<Buffer>) -> u64 {
    let mut copied = 0;
    let mut target: Option<Buffer> = None;
    for _ in 0..inflow.len() {
        let mut buffer = inflow.pop_front().expect("there are so many");
        let wasteful = buffer.class() != Class::Small && buffer.class().bytes() > WASTE_MAX * buffer.len();
        while wasteful && !buffer.is_empty() {
            if target.as_ref().is_none_or(|target| target.len() == target.capacity()) {
                inflow.extend(target.take());
                target = arena.take(Class::Small);
                target.iter_mut().for_each(|target| target.set_len(0));
            }
            let Some(target) = &mut target else { break };
            let at = target.len();
            let length = buffer.len().min(target.capacity() - at);
            target.set_len(at + length);
            target[at..].copy_from_slice(&buffer[..length]);
            drop(buffer.split_to(length));
            copied += length as u64;
        }
        if !buffer.is_empty() {
            inflow.extend(target.take());
            inflow.push_back(buffer);
        }
    }
    inflow.extend(target);
    copied
}
