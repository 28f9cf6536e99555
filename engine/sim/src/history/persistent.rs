//! Who is registered with a unit and who has it reserved (SPC-4 §5.13), as far as initiators can know.
//!
//! What is answered while nobody else asks for a change is in force. What is answered while somebody does, or not at all,
//! may or may not be: then nothing is known until it is said anew.

use std::collections::{BTreeMap, BTreeSet};

use super::{End, History, Oracle, Serial, Step, Write};

/// The type of a persistent reservation. Those that refuse reads are left out: an audit reads everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    WriteExclusive,
    WriteExclusiveRegistrants,
}

impl Kind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::WriteExclusive => 1,
            Self::WriteExclusiveRegistrants => 5,
        }
    }
}

/// What a PERSISTENT RESERVE OUT does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Register { ignores: bool },
    Unregister,
    Reserve(Kind),
    Release(Kind),
    Clear,
    Preempt { victim: usize, kind: Kind, aborts: bool },
}

/// What is known of a unit.
#[derive(Debug)]
pub(super) struct Persistent {
    /// Whether initiators register at all.
    is_used: bool,
    /// It outlives a power cut (APTPL).
    persists: bool,
    /// Ports that surely are registered, or surely are not; of all others `others` is known, or nothing.
    registered: BTreeMap<usize, bool>,
    others: Option<bool>,
    /// Ports that believe that they are registered, as far as they were told.
    believers: BTreeSet<usize>,
    /// Who surely has it reserved, or that surely nobody has.
    holder: Option<Option<(usize, Kind)>>,
    /// Since when that is so.
    since: Step,
    open: Vec<Open>,
    /// When something last happened that makes what is being asked unsure.
    stirred: Step,
    /// A PREEMPT AND ABORT was never answered: whatever it aborts may be aborted at any time.
    may_abort: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    port: usize,
    session: Serial,
    asked: Step,
    action: Action,
    /// Who is preempted has a write at the medium.
    meets: bool,
}

impl Open {
    const fn aborts(&self) -> bool {
        matches!(self.action, Action::Preempt { aborts: true, .. })
    }
}

impl Persistent {
    pub(super) fn new(registers: Option<bool>) -> Self {
        Self {
            is_used: registers.is_some(),
            persists: registers == Some(true),
            registered: BTreeMap::new(),
            others: Some(false),
            believers: BTreeSet::new(),
            holder: Some(None),
            since: 0,
            open: Vec::new(),
            stirred: 0,
            may_abort: false,
        }
    }

    fn is_registered(&self, port: usize) -> Option<bool> {
        self.registered.get(&port).copied().or(self.others)
    }

    /// Whether what is in force surely refuses this port's writes.
    fn refuses(&self, port: usize) -> bool {
        let (Some(Some((holder, kind))), true) = (self.holder, self.open.is_empty()) else { return false };
        match kind {
            Kind::WriteExclusive => holder != port,
            Kind::WriteExclusiveRegistrants => self.is_registered(port) == Some(false),
        }
    }

    /// Whether what is in force surely refuses this port nothing.
    fn admits(&self, port: usize) -> bool {
        self.is_used
            && self.open.is_empty()
            && match self.holder {
                None => false,
                Some(None) => true,
                Some(Some((holder, _))) if holder == port => true,
                Some(Some((_, Kind::WriteExclusive))) => false,
                Some(Some((_, Kind::WriteExclusiveRegistrants))) => self.is_registered(port) == Some(true),
            }
    }

    fn believe(&mut self, port: usize, action: Action) {
        match action {
            Action::Register { .. } => drop(self.believers.insert(port)),
            Action::Unregister => drop(self.believers.remove(&port)),
            Action::Clear => self.believers.clear(),
            Action::Preempt { victim, .. } => drop(self.believers.remove(&victim)),
            Action::Reserve(_) | Action::Release(_) => {}
        }
    }

    /// Nothing is known any more.
    fn unsettle(&mut self, now: Step) {
        self.registered.clear();
        (self.others, self.holder, self.since, self.stirred) = (None, None, now, now);
    }

    fn take(&mut self, session: Serial, asked: Step) -> Open {
        let is_it = |open: &Open| open.session == session && open.asked == asked;
        let at = self.open.iter().position(is_it).expect("it was asked for");
        self.open.remove(at)
    }

    fn done(&mut self, port: usize, action: Action) {
        let before = self.holder;
        match action {
            Action::Register { .. } => drop(self.registered.insert(port, true)),
            Action::Unregister => {
                self.registered.insert(port, false);
                if matches!(before, Some(Some((holder, _))) if holder == port) {
                    self.holder = Some(None);
                }
            }
            Action::Reserve(kind) => {
                self.registered.insert(port, true);
                self.holder = Some(Some((port, kind)));
            }
            Action::Release(kind) => {
                self.registered.insert(port, true);
                if before == Some(Some((port, kind))) {
                    self.holder = Some(None);
                }
            }
            Action::Clear => {
                self.registered.clear();
                (self.others, self.holder) = (Some(false), Some(None));
            }
            Action::Preempt { victim, kind, .. } => {
                self.registered.insert(port, true);
                self.registered.insert(victim, false);
                if matches!(before, Some(Some((holder, _))) if holder == victim) {
                    self.holder = Some(Some((port, kind)));
                }
            }
        }
    }

    pub(super) fn restart(&mut self, end: End, now: Step) {
        if !self.open.is_empty() {
            self.unsettle(now);
        } else if end == End::PowerCut && !self.persists {
            self.registered.clear();
            (self.others, self.holder) = (Some(false), Some(None));
        }
        self.open.clear();
        // Those who had a session have none: what is in force was so before whatever they ask for next.
        (self.stirred, self.may_abort) = (now, false);
    }
}

impl History {
    /// Whether this port may well be registered with a unit.
    pub(crate) fn believes(&self, unit: usize, port: usize) -> bool {
        self.units[unit].persistent.believers.contains(&port)
    }

    /// Whether a write of this port is at the medium, and not answered.
    pub(crate) fn is_at_medium(&self, unit: usize, port: usize) -> bool {
        let is = |write: &Write| write.unit == unit && write.port == port && write.handed < write.done;
        self.writes.values().any(|write| write.over.is_none() && is(write))
    }

    /// Whether somebody asks for a change.
    pub(crate) fn is_registering(&self, unit: usize) -> bool {
        !self.units[unit].persistent.open.is_empty()
    }

    /// Whether commands may be aborted without a word, by PREEMPT AND ABORT (TAS is zero).
    pub(crate) fn is_being_preempted(&self, unit: usize) -> bool {
        let state = &self.units[unit].persistent;
        state.may_abort || state.open.iter().any(Open::aborts)
    }

    /// A PERSISTENT RESERVE OUT is on its way.
    pub(crate) fn register_asked(
        &mut self,
        unit: usize,
        (port, session): (usize, Serial),
        action: Action,
    ) -> Step {
        let asked = self.step();
        let meets = matches!(action, Action::Preempt { victim, .. } if self.is_at_medium(unit, victim));
        let open = Open { port, session, asked, action, meets };
        self.units[unit].reserved.resets += u32::from(open.aborts());
        self.units[unit].persistent.open.push(open);
        asked
    }

    /// GOOD.
    pub(crate) fn register_done(&mut self, unit: usize, session: Serial, asked: Step) {
        let now = self.step();
        let state = &mut self.units[unit];
        let open = state.persistent.take(session, asked);
        state.reserved.resets += u32::from(open.aborts());
        state.persistent.believe(open.port, open.action);
        self.tally.registrations += 1;
        if let Action::Preempt { victim, aborts, .. } = open.action {
            self.tally.preemptions += 1;
            if aborts {
                self.tally.aborting_preemptions += 1;
                self.tally.preempted_at_medium += u64::from(open.meets);
                // One that is asked for again when its session was lost joins what is under way, and aborts no more than that.
                if !self.units[unit].persistent.may_abort {
                    self.is_aborted(unit, victim, asked);
                }
            }
        }
        let state = &mut self.units[unit].persistent;
        if state.open.is_empty() && state.stirred < asked && !self.units[unit].has_left {
            let state = &mut self.units[unit].persistent;
            state.done(open.port, open.action);
            (state.since, state.stirred) = (now, now);
        } else {
            self.units[unit].persistent.unsettle(now);
        }
    }

    /// GOOD for a PREEMPT AND ABORT of this port, asked for at `asked`: nothing of what the port had at the medium then may
    /// land any more (SPC-4 §5.13.11.2.6).
    fn is_aborted(&mut self, unit: usize, port: usize, asked: Step) {
        let reached = |write: &&mut Write| {
            write.unit == unit && write.port == port && write.handed < asked && !write.of_unit_before
        };
        for write in self.writes.values_mut().filter(reached) {
            write.over.get_or_insert("was aborted by a preemption");
        }
    }

    /// It was refused, and has changed nothing; with a conflict, perhaps since the port is not registered.
    pub(crate) fn register_refused(&mut self, unit: usize, session: Serial, asked: Step, conflict: bool) {
        let state = &mut self.units[unit];
        let open = state.persistent.take(session, asked);
        if conflict {
            state.persistent.believers.remove(&open.port);
        }
        state.reserved.resets += u32::from(open.aborts());
    }

    /// What becomes of it is not known.
    pub(crate) fn register_lost(&mut self, unit: usize, session: Serial, asked: Step) {
        let now = self.step();
        let state = &mut self.units[unit];
        let open = state.persistent.take(session, asked);
        state.persistent.may_abort |= open.aborts();
        state.persistent.unsettle(now);
    }

    /// The port has another session: what those before had asked for has been done, or is done before anything that is
    /// asked later.
    pub(super) fn registrations_are_left(&mut self, port: usize, session: Serial) {
        let now = self.step();
        for state in self.units.iter_mut().map(|unit| &mut unit.persistent) {
            let left = |open: &Open| open.port == port && open.session != session;
            if state.open.iter().any(left) {
                state.may_abort |= state.open.iter().any(|open| left(open) && open.aborts());
                state.open.retain(|open| !left(open));
                state.unsettle(now);
            }
        }
    }

    /// The unit leaves the configuration.
    pub(super) fn registrations_unsettle(&mut self, unit: usize, now: Step) {
        self.units[unit].persistent.unsettle(now);
    }

    /// A write of this port, asked for at `asked` where that matters, reached the medium or was answered GOOD.
    pub(super) fn judge_registrant(&mut self, unit: usize, port: usize, asked: Option<Step>, what: &str) {
        let state = &self.units[unit].persistent;
        if state.refuses(port) && asked.is_none_or(|asked| state.since < asked) {
            let holder = state.holder;
            let what = format!("unit {unit}: {what} of initiator {port}, which {holder:?} keeps from it");
            self.violate(Oracle::Fence, what);
        }
    }

    /// RESERVATION CONFLICT for a command, no PERSISTENT RESERVE OUT, that this port asked for at `asked`.
    pub(super) fn judge_conflict(&mut self, unit: usize, port: usize, asked: Step) {
        let state = &self.units[unit].persistent;
        if state.admits(port) && state.since < asked && state.stirred < asked {
            let what = format!("unit {unit} is refused to initiator {port}, whom {:?} admits", state.holder);
            self.violate(Oracle::Fence, what);
        }
    }
}
