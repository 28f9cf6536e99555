//! Tasks that wait for memory or for room in a medium's queue, first come, first served.
//!
//! There is one queue for the whole shard, so that nobody waits for a unit that is not his. Within it the tasks of a unit
//! stand in [`Line`]s, one for each thing that there may be too little of: who comes later does not get it before them. A task
//! whose session has had its share waits in its session's line to that LUN alone: others go past it.
//!
//! No line may wait for another's end. A task that waits for memory therefore never holds what those before it in its line
//! wait for, and one whose data are here waits for room in the queue, or for a buffer to copy them into, and for nothing
//! else.

use super::Core;
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Task, Work};

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Memory that comes back by itself.
    Swift,
    /// Memory for data that an initiator is to send.
    Patient,
    /// Room in the medium's queue.
    Room,
}

const LINES: usize = 3;

impl From<Kind> for Line {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Swift => Line::Swift,
            Kind::Patient => Line::Patient,
        }
    }
}

/// The lines at one unit, or of one session to one LUN.
#[derive(Debug, Default)]
pub struct Lines {
    waiting: [u32; LINES],
    /// The round in which the first of the line got nothing: those behind it do not try.
    stalled: [u64; LINES],
}

impl Lines {
    /// Counts a task of a session's line that comes from another map.
    pub(super) fn join(&mut self, waits: Option<Wait>) {
        if let Some(Wait { line: Some(line), short: Short::Session, .. }) = waits {
            self.waiting[line as usize] += 1;
        }
    }
}

/// How a task waits.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// In which line; in none where it only lets others have the shard for a turn, or waits for a buffer.
    pub line: Option<Line>,
    /// Whether it is its session's or everybody's that stands still with it.
    pub short: Short,
    /// An ACA blocks it: it stands nowhere, and nobody tries it again before that is cleared.
    pub is_blocked: bool,
}

impl Wait {
    /// Until an ACA is cleared.
    pub const BLOCKED: Self = Self { line: None, short: Short::Unit, is_blocked: true };
}

impl<D: Driver> Core<D> {
    /// Lets a task stand in line where others stand there already; tells whether it has to wait.
    pub(super) fn queue_behind(&mut self, key: Key<Task>, line: Line) -> bool {
        let Some(task) = self.tasks.get(key) else { return false };
        let round = (self.feeding == Some(key)).then_some(self.round);
        let stands = |lines: &Lines| match round {
            Some(round) => lines.stalled[line as usize] == round,
            None => lines.waiting[line as usize] > 0,
        };
        let unit = task.unit.and_then(|unit| self.units.get(unit));
        let lun =
            task.lun.zip(self.sessions.get(task.session)).and_then(|(at, session)| session.luns.get(at));
        let short = if unit.is_some_and(|unit| stands(&unit.lines)) {
            Short::Unit
        } else if lun.is_some_and(|lun| stands(&lun.lines)) {
            Short::Session
        } else {
            return false;
        };
        self.wait_for(key, Some(line), short);
        true
    }

    /// Puts a task among those that wait, at the end.
    pub(super) fn wait_for(&mut self, key: Key<Task>, line: Option<Line>, short: Short) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.waits.is_some() {
            return;
        }
        task.waits = Some(Wait { line, short, is_blocked: false });
        // One that comes from elsewhere has not been tried: those before it in the line have not got nothing.
        let round = (self.feeding == Some(key)).then_some(self.round);
        if let Some((lines, line)) = self.lines_of(key) {
            lines.waiting[line as usize] += 1;
            lines.stalled[line as usize] = round.unwrap_or(lines.stalled[line as usize]);
        }
        self.note_short(key, |waiting| waiting + 1);
        self.starved.push_back(key);
    }

    /// A task waits no more: it is tried again, or has ended.
    #[inline]
    pub(super) fn stop_waiting(&mut self, key: Key<Task>) {
        if self.tasks.get(key).is_some_and(|task| task.waits.is_some()) {
            self.wait_no_more(key);
        }
    }

    fn wait_no_more(&mut self, key: Key<Task>) {
        if self.tasks.get(key).is_some_and(|task| task.waits.is_some_and(|wait| wait.is_blocked)) {
            return;
        }
        if let Some((lines, line)) = self.lines_of(key) {
            lines.waiting[line as usize] -= 1;
        }
        self.note_short(key, |waiting| waiting - 1);
        if let Some(task) = self.tasks.get_mut(key) {
            task.waits = None;
        }
    }

    /// The lines in one of which the task stands.
    fn lines_of(&mut self, key: Key<Task>) -> Option<(&mut Lines, Line)> {
        let task = self.tasks.get(key)?;
        let Wait { line, short, .. } = task.waits?;
        let lines = match short {
            Short::Unit => &mut self.units.get_mut(task.unit?)?.lines,
            Short::Session => &mut self.sessions.get_mut(task.session)?.luns.get_mut(task.lun?)?.lines,
        };
        Some((lines, line?))
    }

    fn note_short(&mut self, key: Key<Task>, count: impl Fn(u32) -> u32) {
        let Some(task) = self.tasks.get(key) else { return };
        if let (Some(Wait { short: Short::Session, .. }), Some(session)) =
            (task.waits, self.sessions.get_mut(task.session))
        {
            session.waiting = count(session.waiting);
        }
    }

    /// Whether the first of its line got nothing in this round.
    fn is_stalled(&self, task: &Task, wait: Wait) -> bool {
        let Some(line) = wait.line else { return false };
        let stalled = |lines: &Lines| lines.stalled[line as usize] == self.round;
        let unit = task.unit.and_then(|unit| self.units.get(unit));
        let session = self.sessions.get(task.session);
        let lun = task.lun.zip(session).and_then(|(at, session)| session.luns.get(at));
        unit.is_some_and(|unit| stalled(&unit.lines))
            || wait.short == Short::Session && lun.is_some_and(|lun| stalled(&lun.lines))
    }

    /// Lets commands begin whose turn has come in their task sets, and those who wait try again, if anything was given back since the last time.
    pub fn feed_starved(&mut self) {
        if !self.task_sets_due.is_empty() {
            self.go_on_with_task_sets();
        }
        if !std::mem::take(&mut self.released) || self.starved.is_empty() {
            return;
        }
        self.keep_last_chunk();
        self.round += 1;
        // Those who wait on keep their order; those who come to wait meanwhile stand behind them.
        let mut before = std::mem::replace(&mut self.starved, std::mem::take(&mut self.spare_starved));
        let mut kept = 0;
        for at in 0..before.len() {
            let key = before[at];
            let Some(task) = self.tasks.get(key) else { continue };
            let Some(wait) = task.waits.filter(|wait| !wait.is_blocked) else { continue };
            if self.is_stalled(task, wait) {
                before[kept] = key;
                kept += 1;
                continue;
            }
            self.stop_waiting(key);
            self.feeding = Some(key);
            self.try_again(key);
            self.feeding = None;
            if let Some(place) = self.starved.iter().rposition(|waiting| *waiting == key) {
                // It waits on, where it stood.
                self.starved.remove(place);
                before[kept] = key;
                kept += 1;
            }
        }
        before.truncate(kept);
        before.append(&mut self.starved);
        self.spare_starved = std::mem::replace(&mut self.starved, before);
    }

    pub(super) fn try_again(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        match task.work {
            Work::Read(_) => self.pump_read(key),
            Work::Write(_) => self.pump_write(key),
            Work::Verify(_) => self.pump_verify(key),
            Work::Series(_) => self.pump_series(key),
            Work::Atomic(_) => self.pump_atomic(key),
            Work::Copy(_) => self.pump_copy(key),
            Work::CopyAbort(_) => self.pump_copy_abort(key),
            Work::Flush => self.pump_flush(key),
            Work::None | Work::Parameters(_) | Work::Parked(_) => {}
        }
    }

    /// Something was given back: memory, or room in a queue.
    pub fn note_released(&mut self) {
        self.released = true;
    }

    /// Whether somebody waits and something was given back, or a turn has come: then another turn must not sleep first.
    pub fn is_hungry(&self) -> bool {
        self.released && !self.starved.is_empty() || !self.task_sets_due.is_empty()
    }
}
