//! What tasks have of the shard's memory: bookings of their unit and session, and data before their command's turn.

use super::{Core, Line};
use crate::budget::{Kind, Short};
use crate::driver::Driver;
use crate::inbound::take_fitting;
use crate::slab::Key;
use crate::task::{Task, Work};

impl<D: Driver> Core<D> {
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

    fn refuse_early(&mut self, key: Key<Task>) {
        self.unshelve(key);
        self.counters.refused_for_memory += 1;
        let Some(task) = self.tasks.get_mut(key) else { return };
        (task.inflow_bytes, task.is_refused) = (0, true);
        task.inflow.clear();
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        session.wire.discard_data(task.name);
        if matches!(task.work, Work::Parameters(_)) {
            self.finish(key, portico_scsi::sense::Outcome::TASK_SET_FULL);
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
