//! What control tells: units that come and go, their new states, answers to what was asked.

use std::sync::Arc;

use portico_backstores::{Medium, Queue as _, Request, Submitted, Tag};
use portico_model::identity::{Ticket, UnitId};
use portico_model::message::{Install, Opening, ToControl};
use portico_model::meter::{Meters, UnitMeter};
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::Outcome;
use portico_scsi::unit::Readiness;

use super::medium::Adapter;
use super::{Core, Op};
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Task, Work};
use crate::unit::{Closing, Unit};

impl<D: Driver> Core<D> {
    /// A unit comes into being, or gets its medium.
    pub fn open_unit(&mut self, opening: &Opening<Medium>) {
        let key = match self.unit_keys.get(&opening.unit) {
            Some(key) => *key,
            None => {
                let key = self.units.insert(Unit::new(opening, self.shard, self.shards));
                self.unit_keys.insert(opening.unit, key);
                key
            }
        };
        if let Some(medium) = &opening.medium {
            let mut adapter = Adapter { driver: &mut self.driver, unit: key };
            let queue = medium.open_queue(&mut adapter);
            let unit = self.units.get_mut(key).expect("it was just there");
            match queue {
                Ok(queue) => {
                    unit.queue = Some(queue);
                    unit.memory_alignment = medium.geometry().memory_alignment as usize;
                }
                // Its commands end with NOT READY, which is what they would if the device had not opened.
                Err(error) => tracing::error!(device = &*unit.device, %error, "no queue at the medium"),
            }
            unit.state = Arc::clone(&opening.state);
            unit.generation = opening.generation;
            self.with_tokens(key, |tokens, out| tokens.give_up_all(out));
        }
        let shares = self.units.iter().map(|(_, unit)| &unit.share);
        self.budget.set_units(self.units.len() as u64, shares, self.arena_bytes);
    }

    /// A new state: replaced, announced, and drained.
    pub fn install(&mut self, install: &Install) {
        let Some(&key) = self.unit_keys.get(&install.unit) else {
            // Closed on this shard already: nothing of it is at the medium.
            self.outbox.push_back(ToControl::Installed {
                shard: self.shard,
                unit: install.unit,
                generation: install.generation,
            });
            return;
        };
        let unit = self.units.get_mut(key).expect("a unit with a name is there");
        let was_stable = unit.state.mode.write_cache.must_be_stable(false);
        if !was_stable && install.state.mode.write_cache.must_be_stable(false) {
            // The flush below need not see a piece that is at the medium while it runs.
            let handed = |task: &&mut Task| task.class == CommandClass::Write && task.times.handed.is_some();
            let of_unit = self.tasks.iter_mut().map(|(_, task)| task).filter(|task| task.unit == Some(key));
            of_unit.filter(handed).for_each(|task| task.flush_due = true);
        }
        let work = |readiness: Readiness| matches!(readiness, Readiness::UnderWay(..));
        let work_begins = work(install.state.readiness) && !work(unit.state.readiness);
        let with_status = unit.state.mode.task_aborted_status;
        let stays =
            install.state.readiness == Readiness::Ready && install.state.geometry == unit.state.geometry;
        unit.state = Arc::clone(&install.state);
        unit.generation = install.generation;
        unit.install_orphans(&install.orphans, self.shard);
        if !stays {
            // Another medium, or work on all of it: no token stands for what it was.
            self.with_tokens(key, |tokens, out| tokens.give_up_all(out));
        }
        self.attract_attention(key, install);
        let fenced = self.mark_fenced(key, install, work_begins);
        let unit = self.units.get_mut(key).expect("a unit with a name is there");
        unit.drains.begin(install.generation, fenced + u32::from(install.flush));
        self.abort_by_install(key, install, with_status);
        if install.flush {
            self.flushes_due.push((key, install.generation));
            self.flush_for_installs();
        }
        self.answer_installed(key);
    }

    /// Hands the flushes to the media that Installs wait for; those for which there is no room are tried again.
    pub fn flush_for_installs(&mut self) {
        for (key, generation) in std::mem::take(&mut self.flushes_due) {
            let Some(unit) = self.units.get_mut(key) else { continue };
            let Some(queue) = &mut unit.queue else {
                unit.drains.piece_done(generation);
                self.answer_installed(key);
                continue;
            };
            let op = self.ops.insert(Op::flush_for(key, generation));
            let mut adapter = Adapter { driver: &mut self.driver, unit: key };
            match queue.submit(&mut adapter, Tag(op.to_bits()), Request::Flush) {
                Ok(submitted) => {
                    unit.begun(key, &mut self.at_work);
                    if let Submitted::Done(completion) = submitted {
                        self.medium_done(completion);
                    }
                }
                Err(_) => {
                    self.ops.remove(op);
                    self.flushes_due.push((key, generation));
                }
            }
        }
    }

    /// Marks the pieces at the medium that the new state refuses or aborts, or `all`; tells how many.
    fn mark_fenced(&mut self, key: Key<Unit>, install: &Install, all: bool) -> u32 {
        let mut fenced = 0;
        for (_, op) in self.ops.iter_mut().filter(|(_, op)| op.unit == key && op.fenced.is_none()) {
            // An orphan's nexus may have come back under another number: whoever fences waits for it in any case.
            let aborted =
                install.aborts.as_ref().is_some_and(|scope| scope.includes(op.nexus) || op.orphan.is_some());
            let refused = install.state.admits(op.nexus, op.port, op.class).is_err();
            let beyond = op.blocks.end() > install.state.geometry.blocks();
            if all || aborted || refused || beyond {
                op.fenced = Some(install.generation);
                fenced += 1;
            }
        }
        fenced
    }

    /// Tells control of generations that nothing is waited for any more.
    pub(super) fn answer_installed(&mut self, key: Key<Unit>) {
        let Some(unit) = self.units.get_mut(key) else { return };
        while let Some(generation) = unit.drains.next_installed() {
            self.outbox.push_back(ToControl::Installed { shard: self.shard, unit: unit.id, generation });
        }
    }

    /// Control's answer to a change or a reset.
    pub fn changed(&mut self, ticket: Ticket, outcome: Result<(), Outcome>) {
        if self.reset_answered(ticket, outcome) {
            return;
        }
        let key = Key::<Task>::from_bits(ticket.0);
        let Some(task) = self.tasks.get_mut(key) else { return };
        if matches!(task.work, Work::Parked(parked) if parked == ticket) {
            task.work = Work::None;
            match outcome {
                // Aborted while it was parked: the Install that does it comes next, and says whether anything is answered.
                Err(Outcome::TASK_ABORTED) => {}
                Err(outcome) => self.finish(key, outcome),
                Ok(()) => self.finish(key, Outcome::GOOD),
            }
        }
    }

    /// No session maps the unit any more: it goes when nothing is at its medium.
    pub fn close_unit(&mut self, id: UnitId) {
        match self.unit_keys.get(&id) {
            Some(&key) => {
                self.units.get_mut(key).expect("a unit with a name is there").closing = Closing::Wanted;
                self.close_if_idle(key);
            }
            None => self.outbox.push_back(ToControl::Closed { shard: self.shard, unit: id }),
        }
    }

    pub(super) fn close_if_idle(&mut self, key: Key<Unit>) {
        let Some(unit) = self.units.get_mut(key) else { return };
        if unit.closing == Closing::No || unit.at_medium > 0 || unit.tasks > 0 {
            return;
        }
        if unit.closing == Closing::Wanted {
            unit.closing = Closing::Flushing;
            self.last_flush(key);
            return self.close_if_idle(key);
        }
        self.close_arbiter(key);
        let unit = self.units.remove(key).expect("it was just there");
        self.unit_keys.remove(&unit.id);
        if let Some(queue) = unit.queue {
            queue.close(&mut Adapter { driver: &mut self.driver, unit: key });
        }
        self.outbox.push_back(ToControl::Closed { shard: self.shard, unit: unit.id });
    }

    /// Hands the meters over and goes on with the spare ones.
    pub fn collect_meters(&mut self, mut spare: Box<Meters>) {
        let mut blanks = std::mem::take(&mut spare.units);
        // Both ascend: each unit gets back the meter that it had before, with the room for latencies that it needs.
        let mut next = blanks.drain(..).peekable();
        for (id, key) in &self.unit_keys {
            let unit = self.units.get_mut(*key).expect("a unit with a name is there");
            while next.next_if(|blank| blank.unit < *id).is_some() {}
            let mut blank = next.next_if(|blank| blank.unit == *id).unwrap_or_else(|| UnitMeter::new(*id));
            blank.clear();
            let mut full = unit.turn_meter(blank);
            full.in_flight = unit.tasks;
            self.pool.full_meters.push(full);
        }
        // The spare's own list is filled again, so that neither side allocates once there are as many as units.
        drop(next);
        blanks.append(&mut self.pool.full_meters);
        spare.units = blanks;
        let counters = self.driver.counters();
        self.counters.enters = counters.enters;
        self.counters.submissions = counters.submissions;
        self.counters.completions = counters.completions;
        spare.shard = self.counters;
        spare.login_failures = self.login_failures.clone();
        spare.sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        self.outbox.push_back(ToControl::Meters { shard: self.shard, meters: spare });
    }

    /// Flushes every medium that has something to lose, for the shutdown.
    pub fn flush_everything(&mut self) {
        for index in 0..self.units.places() {
            if let Some(key) = self.units.key_at(index) {
                self.last_flush(key);
            }
        }
    }

    /// Hands a medium its last flush, if it has something to lose.
    fn last_flush(&mut self, key: Key<Unit>) {
        let Some(unit) = self.units.get_mut(key) else { return };
        if unit.state.read_only || !unit.state.mode.write_cache.enabled() {
            return;
        }
        let Some(queue) = &mut unit.queue else { return };
        let op = self.ops.insert(Op::last_flush(key));
        let mut adapter = Adapter { driver: &mut self.driver, unit: key };
        match queue.submit(&mut adapter, Tag(op.to_bits()), Request::Flush) {
            Ok(submitted) => {
                unit.begun(key, &mut self.at_work);
                if let Submitted::Done(completion) = submitted {
                    self.medium_done(completion);
                }
            }
            Err(_) => {
                self.ops.remove(op);
                self.failed_flushes.push(unit.id);
            }
        }
    }

    /// Whether nothing is at any medium and no task is in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.tasks.iter().all(|(_, task)| matches!(task.work, Work::Parked(_)))
    }
}
