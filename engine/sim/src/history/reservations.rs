//! Who has a unit reserved, and what resets and restarts do to that.

use super::{End, History, Oracle, Serial, Step, Write};

/// Who has a unit reserved: a nexus, which is the same for all sessions of an initiator port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) port: usize,
    session: Serial,
    pub(super) since: Step,
    /// It has had no session since the process was started; the unit waits for it.
    absent: bool,
}

/// What is known of the reservation of a unit.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// Who surely has it reserved.
    pub(super) holder: Option<Holder>,
    resets_open: u32,
    pub(super) resets: u32,
    reset_done: Step,
}

impl Reserved {
    /// Whether no reset was under way since `asked`.
    pub(super) const fn is_unreset_since(&self, asked: Step) -> bool {
        self.resets_open == 0 && self.reset_done < asked
    }

    /// The process is another one: nothing that was asked of the one before is under way.
    pub(super) fn restart(&mut self, end: End, now: Step) {
        if end == End::PowerCut {
            self.holder = None;
        }
        (self.resets_open, self.reset_done) = (0, now);
    }
}

impl History {
    /// GOOD for a RESERVE of this session, which asks nothing else about it meanwhile.
    pub(crate) fn reserved(&mut self, unit: usize, (port, session): (usize, Serial), asked: Step) {
        let since = self.step();
        self.tally.reservations += 1;
        let state = &mut self.units[unit];
        // A unit that leaves the configuration takes its reservation along, and nobody says when. A session that is on its
        // way out with a RESERVE in flight has it until it is gone.
        if !state.reserved.is_unreset_since(asked) || state.has_left || self.ended.contains(&session) {
            return;
        }
        match state.reserved.holder {
            Some(holder) if holder.port != port => {
                let what =
                    format!("unit {unit} is reserved by initiators {} and {port} at once", holder.port);
                self.violate(Oracle::Fence, what);
            }
            before => {
                let since = before.map_or(since, |holder| holder.since);
                state.reserved.holder = Some(Holder { port, session, since, absent: false });
            }
        }
    }

    /// A RELEASE of this session is on its way.
    pub(crate) fn releases(&mut self, unit: usize, session: Serial) {
        self.step();
        self.units[unit].reserved.holder.take_if(|holder| holder.session == session);
    }

    /// RESERVATION CONFLICT for a command that this initiator asked for at `asked`.
    pub(crate) fn conflicted(&mut self, unit: usize, port: usize, asked: Step) {
        self.step();
        if let Some(holder) = self.units[unit].reserved.holder
            && holder.port == port
            && holder.since < asked
        {
            let what = format!("unit {unit} is reserved by initiator {port}, and was refused to it");
            self.violate(Oracle::Fence, what);
        }
        self.judge_conflict(unit, port, asked);
    }

    /// This session may be over.
    pub(crate) fn ends(&mut self, session: Serial) {
        self.ended.insert(session);
        for unit in 0..self.units.len() {
            self.releases(unit, session);
        }
    }

    /// The process is gone, and the kernel is not: what was reserved is reserved still. Told before the connections end.
    pub(crate) fn outlives(&mut self) {
        let now = self.step();
        for holder in self.units.iter_mut().filter_map(|unit| unit.reserved.holder.as_mut()) {
            // As the kept reservation, it is in force before anything that is asked later.
            (holder.session, holder.absent, holder.since) = (Serial(now), true, holder.since.min(now));
            self.tally.reservations_kept += 1;
        }
    }

    /// An initiator port logs in: what a restart has left of it goes with this session.
    pub(crate) fn comes(&mut self, port: usize, session: Serial) {
        let absent = |holder: &&mut super::reservations::Holder| holder.absent && holder.port == port;
        for holder in self.units.iter_mut().filter_map(|unit| unit.reserved.holder.as_mut()).filter(absent) {
            holder.session = session;
        }
    }

    /// The login is complete.
    pub(super) fn has_come(&mut self, session: Serial) {
        for holder in self.units.iter_mut().filter_map(|unit| unit.reserved.holder.as_mut()) {
            holder.absent &= holder.session != session;
        }
    }

    /// Who had a unit reserved before a restart has been away for long.
    pub(crate) fn patience_ends(&mut self) {
        for unit in &mut self.units {
            unit.reserved.holder.take_if(|holder| holder.absent);
        }
    }

    /// A LOGICAL UNIT RESET is on its way, or one of its target.
    pub(crate) fn reset_asked(&mut self, unit: usize) -> Step {
        let now = self.step();
        let state = &mut self.units[unit];
        state.reserved.holder = None;
        state.reserved.resets_open += 1;
        state.reserved.resets += 1;
        state.cache.unsettle(now);
        now
    }

    /// How many resets have been asked for or answered: where this is another number, commands may have been aborted.
    pub(crate) fn resets(&self, unit: usize) -> u32 {
        self.units[unit].reserved.resets
    }

    /// Whether a reset may be under way.
    pub(crate) fn is_being_reset(&self, unit: usize) -> bool {
        self.units[unit].reserved.resets_open > 0
    }

    /// Whether the unit has been there for all of this process: a session may not have seen it for a while otherwise.
    pub(crate) fn has_left(&self, unit: usize) -> bool {
        self.units[unit].has_left
    }

    /// A reset that was asked for at `asked` was answered; `complete` or with an excuse.
    pub(crate) fn reset_done(&mut self, unit: usize, asked: Step, complete: bool) {
        let now = self.step();
        let state = &mut self.units[unit];
        state.reserved.resets_open -= 1;
        state.reserved.resets += 1;
        state.reserved.reset_done = now;
        state.cache.unsettle(now);
        if !complete {
            self.tally.resets_refused += 1;
        } else {
            self.tally.resets += 1;
            let reached =
                |write: &&mut Write| write.unit == unit && write.handed < asked && !write.of_unit_before;
            for write in self.writes.values_mut().filter(reached) {
                write.over.get_or_insert("was aborted by a reset");
            }
        }
    }
}
