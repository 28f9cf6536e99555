//! The oracles: what every sector may hold, what must have survived, and what may land.
//!
//! Initiators tell when they ask and when they are answered, media tell what lands. Time here is a count of steps, so that
//! of two things one was first. A write that was not answered may have happened or not, until it is known to be over.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::stamp::{self, SECTOR_BYTES, WriteId};

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// Data that are wrong, old or torn.
    Data,
    /// What was promised to survive a power cut did not.
    Durability,
    /// A command that the state in force refuses, or that is over, touched the medium.
    Fence,
    /// A command was not answered.
    Answers,
    /// A target said what RFC 7143 forbids.
    Protocol,
    /// Something was not given back.
    Leaks,
    /// The gateway did not come to an end, or failed.
    Life,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub oracle: Oracle,
    /// How, for people.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.oracle, self.what)
    }
}

/// What initiators got done, and what the world did to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// WRITEs answered GOOD.
    pub writes: u64,
    /// READs answered GOOD, and judged.
    pub reads: u64,
    /// SYNCHRONIZE CACHEs answered GOOD.
    pub synchronizations: u64,
    /// RESERVEs answered GOOD.
    pub reservations: u64,
    /// Resets that were complete.
    pub resets: u64,
    /// Resets that were answered otherwise.
    pub resets_refused: u64,
    /// Media that hung for a while.
    pub hangs: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Times the configuration was applied again.
    pub reloads: u64,
    /// Shutdowns under load.
    pub restarts: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.synchronizations += other.synchronizations;
        self.reservations += other.reservations;
        self.resets += other.resets;
        self.resets_refused += other.resets_refused;
        self.hangs += other.hangs;
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.reloads += other.reloads;
        self.restarts += other.restarts;
    }
}

/// How a gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// What was promised to be durable is there, and nothing else counts any more.
    PowerCut,
    /// The process was killed: everything that was answered is there, though not durable.
    Killed,
    /// It said that all was finished and flushed: everything that it answered is durable.
    Clean,
}

/// A point in the order of things.
pub(crate) type Step = u64;

const NEVER: Step = Step::MAX;

/// One session as an initiator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(pub(crate) u64);

#[derive(Debug)]
struct Write {
    unit: usize,
    port: usize,
    session: Serial,
    invoked: Step,
    /// From here on it cannot happen any more to what is asked later.
    done: Step,
    /// It did happen.
    certain: bool,
    /// It was promised to survive a power cut.
    durable: bool,
    /// A sync failed after it, and who knew of that is gone: no later sync promises it.
    forgiven: bool,
    /// The process that answered it was killed: the next one may end without ever having opened its medium.
    inherited: bool,
    /// Its unit has left the configuration: a reset of the unit that takes its place is none of it. That one gets the
    /// medium, and can be read and written, only when this is through.
    of_unit_before: bool,
    /// The first of it reached the medium.
    handed: Step,
    /// Nothing of it may land any more.
    over: Option<&'static str>,
}

/// What a sector may hold.
#[derive(Debug)]
struct Sector {
    /// What was surely there before all of these.
    base: WriteId,
    /// Oldest first.
    writes: Vec<WriteId>,
}

impl Sector {
    const fn holding(base: WriteId) -> Self {
        Self { base, writes: Vec::new() }
    }
}

/// Who has a unit reserved: a nexus, which is the same for all sessions of an initiator port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    port: usize,
    session: Serial,
    since: Step,
}

#[derive(Debug)]
struct UnitHistory {
    sectors: Vec<Sector>,
    write_through: bool,
    /// Who surely has it reserved.
    holder: Option<Holder>,
    resets_open: u32,
    resets: u32,
    reset_done: Step,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    step: Step,
    writes: BTreeMap<WriteId, Write>,
    units: Vec<UnitHistory>,
    first_violation: Option<Violation>,
    pub(crate) tally: Tally,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            step: 0,
            writes: BTreeMap::new(),
            units: Vec::new(),
            first_violation: None,
            tally: Tally::default(),
        }
    }

    pub(crate) fn add_unit(&mut self, sectors: usize, write_through: bool) {
        self.units.push(UnitHistory {
            sectors: (0..sectors).map(|_| Sector::holding(WriteId::NONE)).collect(),
            write_through,
            holder: None,
            resets_open: 0,
            resets: 0,
            reset_done: 0,
        });
    }

    /// The next point in the order of things.
    pub(crate) const fn step(&mut self) -> Step {
        self.step += 1;
        self.step
    }

    pub(crate) fn violate(&mut self, oracle: Oracle, what: String) {
        self.first_violation.get_or_insert(Violation { oracle, what });
    }

    pub(crate) const fn violation(&self) -> Option<&Violation> {
        self.first_violation.as_ref()
    }

    // --- Writes ------------------------------------------------------------------------------------------------

    pub(crate) fn begin_write(
        &mut self,
        unit: usize,
        (port, session): (usize, Serial),
        first: u64,
        sectors: u64,
    ) -> WriteId {
        let invoked = self.step();
        let id = WriteId(self.writes.len() as u64 + 1);
        let write = Write {
            unit,
            port,
            session,
            invoked,
            done: NEVER,
            certain: false,
            durable: false,
            forgiven: false,
            inherited: false,
            of_unit_before: false,
            handed: NEVER,
            over: None,
        };
        self.writes.insert(id, write);
        for sector in range(first, sectors) {
            self.units[unit].sectors[sector].writes.push(id);
        }
        id
    }

    /// GOOD.
    pub(crate) fn wrote(&mut self, id: WriteId, fua: bool) {
        let done = self.step();
        let write = self.writes.get_mut(&id).expect("it was begun");
        (write.done, write.certain, write.over) = (done, true, Some("was answered GOOD"));
        let unit = &self.units[write.unit];
        self.tally.writes += 1;
        write.durable = fua || unit.write_through;
        if let Some(holder) = unit.holder
            && holder.port != write.port
            && holder.since < write.invoked
        {
            let what = format!("{id:?} was asked for after GOOD of another's RESERVE, and answered GOOD");
            self.violate(Oracle::Fence, what);
        }
    }

    /// Any other end: some of it may have happened, nothing more will.
    pub(crate) fn failed(&mut self, id: WriteId, why: &'static str) {
        let done = self.step();
        let write = self.writes.get_mut(&id).expect("it was begun");
        write.done = write.done.min(done);
        write.over = Some(why);
    }

    /// The initiator port is back with another session: writes of those before are over, or nobody may touch their blocks.
    pub(crate) fn port_is_back(&mut self, port: usize, session: Serial) {
        let done = self.step();
        let before = |write: &&mut Write| write.port == port && write.session != session;
        for write in self.writes.values_mut().filter(before) {
            write.done = write.done.min(done);
        }
    }

    /// Whether `late` was surely asked for when `early` was surely over.
    fn follows(late: &Write, early: Option<&Write>) -> bool {
        early.is_none_or(|early| early.done < late.invoked)
    }

    // --- Reads -------------------------------------------------------------------------------------------------

    /// What a READ that was asked for at `asked` brought now.
    pub(crate) fn judge_read(&mut self, unit: usize, port: usize, first: u64, data: &[u8], asked: Step) {
        let now = self.step();
        self.tally.reads += 1;
        for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR_BYTES)) {
            if let Err(what) = self.may_read(unit, sector, bytes, asked, now) {
                let what = format!("unit {unit} sector {sector} as read by initiator {port}: {what}");
                return self.violate(Oracle::Data, what);
            }
        }
        if let Some(holder) = self.units[unit].holder
            && holder.port != port
            && holder.since < asked
        {
            let what = format!("initiator {port} read unit {unit}, which another has reserved");
            self.violate(Oracle::Fence, what);
        }
    }

    fn may_read(&self, unit: usize, sector: u64, bytes: &[u8], asked: Step, now: Step) -> Result<(), String> {
        let id = stamp::parse(sector, bytes).ok_or_else(|| "torn, or of another place".to_owned())?;
        let found = self.find(id, unit, sector)?;
        if found.is_some_and(|found| found.invoked > now) {
            return Err(format!("{id:?} was not asked for yet"));
        }
        for later in self.writes_of(unit, sector) {
            let (later_id, later) = later;
            if later.certain && later.done < asked && Self::follows(later, found) {
                return Err(format!("{id:?}, which {later_id:?} has replaced"));
            }
        }
        Ok(())
    }

    /// The write of that name; `None` for what was there before all that still count.
    fn find(&self, id: WriteId, unit: usize, sector: u64) -> Result<Option<&Write>, String> {
        let state = &self.units[unit].sectors[index(sector)];
        if state.writes.contains(&id) {
            Ok(Some(&self.writes[&id]))
        } else if state.base == id {
            Ok(None)
        } else {
            Err(format!("{id:?}, which was never there or is long gone"))
        }
    }

    fn writes_of(&self, unit: usize, sector: u64) -> impl Iterator<Item = (WriteId, &Write)> {
        let list = &self.units[unit].sectors[index(sector)].writes;
        list.iter().map(|id| (*id, &self.writes[id]))
    }

    // --- Durability --------------------------------------------------------------------------------------------

    /// SYNCHRONIZE CACHE, asked for at `asked`, was answered GOOD.
    pub(crate) fn synchronized(&mut self, unit: usize, asked: Step) {
        self.step();
        self.tally.synchronizations += 1;
        for write in self.writes.values_mut() {
            write.durable |= write.unit == unit && write.certain && !write.forgiven && write.done < asked;
        }
    }

    /// A unit leaves the configuration.
    pub(crate) fn leaves(&mut self, unit: usize) {
        for write in self.writes.values_mut().filter(|write| write.unit == unit) {
            write.of_unit_before = true;
        }
    }

    /// A medium was closed, or its process killed, after a sync had failed. The kernel tells that once: whoever opens it
    /// anew cannot know what an earlier sync has lost.
    pub(crate) fn forgive(&mut self, unit: usize) {
        for write in self.writes.values_mut().filter(|write| write.unit == unit) {
            write.forgiven |= !write.durable;
        }
    }

    /// What is on a medium after the gateway's end. What the kind of end lets expect must be there.
    pub(crate) fn judge_survivors<'a>(
        &mut self,
        unit: usize,
        contents: impl Iterator<Item = &'a [u8]>,
        end: End,
    ) {
        let now = self.step();
        for (sector, bytes) in (0..).zip(contents) {
            let survivor = match self.may_survive(unit, sector, bytes, end) {
                Ok(survivor) => survivor,
                Err(what) => {
                    let what = format!("unit {unit} sector {sector} after the crash: {what}");
                    return self.violate(Oracle::Durability, what);
                }
            };
            if end != End::Killed {
                self.units[unit].sectors[index(sector)] = Sector::holding(survivor);
            }
        }
        for write in self.writes.values_mut().filter(|write| write.unit == unit) {
            write.done = write.done.min(now);
            write.over.get_or_insert("was lost in a crash");
            write.inherited |= end == End::Killed;
        }
        let unit = &mut self.units[unit];
        (unit.holder, unit.resets_open, unit.reset_done) = (None, 0, now);
    }

    fn may_survive(&self, unit: usize, sector: u64, bytes: &[u8], end: End) -> Result<WriteId, String> {
        let id = stamp::parse(sector, bytes).ok_or_else(|| "torn, or of another place".to_owned())?;
        let found = self.find(id, unit, sector)?;
        for (later_id, later) in self.writes_of(unit, sector) {
            let promised = match end {
                End::PowerCut => later.durable,
                End::Killed => later.certain,
                End::Clean => later.durable || later.certain && !later.inherited,
            };
            if promised && Self::follows(later, found) {
                return Err(format!("{id:?}, but {later_id:?} was answered and promised"));
            }
        }
        Ok(id)
    }

    // --- The medium --------------------------------------------------------------------------------------------

    /// A write of this content was handed to the medium of `unit`.
    pub(crate) fn handed(&mut self, unit: usize, sector: u64, bytes: &[u8]) {
        let step = self.step();
        let Some(write) = stamp::parse(sector, bytes).and_then(|id| self.writes.get_mut(&id)) else {
            let what = format!("unit {unit} sector {sector}: what is handed to the medium is no write's");
            return self.violate(Oracle::Data, what);
        };
        write.handed = write.handed.min(step);
    }

    /// A sector lands on the medium.
    pub(crate) fn landing(&mut self, unit: usize, sector: u64, bytes: &[u8]) {
        self.step();
        let found = stamp::parse(sector, bytes).and_then(|id| Some((id, self.writes.get(&id)?)));
        let Some((id, write)) = found else {
            let what = format!("unit {unit} sector {sector}: what lands is no write's");
            return self.violate(Oracle::Data, what);
        };
        if let Some(over) = write.over {
            let what = format!("unit {unit} sector {sector}: {id:?} lands after it {over}");
            return self.violate(Oracle::Fence, what);
        }
        if let Some(holder) = self.units[unit].holder
            && holder.port != write.port
        {
            let what = format!(
                "unit {unit} sector {sector}: {id:?} of initiator {} lands while initiator {} has it reserved",
                write.port, holder.port
            );
            self.violate(Oracle::Fence, what);
        }
    }

    // --- Reservations and resets -------------------------------------------------------------------------------

    /// GOOD for a RESERVE of this session, which asks nothing else about it meanwhile.
    pub(crate) fn reserved(&mut self, unit: usize, (port, session): (usize, Serial), asked: Step) {
        let since = self.step();
        self.tally.reservations += 1;
        let state = &mut self.units[unit];
        if state.resets_open > 0 || state.reset_done > asked {
            return;
        }
        match state.holder {
            Some(holder) if holder.port != port => {
                let what =
                    format!("unit {unit} is reserved by initiators {} and {port} at once", holder.port);
                self.violate(Oracle::Fence, what);
            }
            Some(Holder { since, .. }) => state.holder = Some(Holder { port, session, since }),
            None => state.holder = Some(Holder { port, session, since }),
        }
    }

    /// A RELEASE of this session is on its way.
    pub(crate) fn releases(&mut self, unit: usize, session: Serial) {
        self.step();
        self.units[unit].holder.take_if(|holder| holder.session == session);
    }

    /// This session may be over.
    pub(crate) fn ends(&mut self, session: Serial) {
        for unit in 0..self.units.len() {
            self.releases(unit, session);
        }
    }

    /// A LOGICAL UNIT RESET is on its way.
    pub(crate) fn reset_asked(&mut self, unit: usize) -> Step {
        let state = &mut self.units[unit];
        state.holder = None;
        state.resets_open += 1;
        state.resets += 1;
        self.step()
    }

    /// How many resets have been asked for or answered: where this is another number, commands may have been aborted.
    pub(crate) fn resets(&self, unit: usize) -> u32 {
        self.units[unit].resets
    }

    /// Whether a reset may be under way.
    pub(crate) fn is_being_reset(&self, unit: usize) -> bool {
        self.units[unit].resets_open > 0
    }

    /// Forgets what was written: the medium was memory, and is gone.
    pub(crate) fn forget(&mut self, unit: usize) {
        let now = self.step();
        let unit = &mut self.units[unit];
        unit.sectors.fill_with(|| Sector::holding(WriteId::NONE));
        (unit.holder, unit.resets_open, unit.reset_done) = (None, 0, now);
    }

    /// A reset that was asked for at `asked` was answered; `complete` or with an excuse.
    pub(crate) fn reset_done(&mut self, unit: usize, asked: Step, complete: bool) {
        let now = self.step();
        let state = &mut self.units[unit];
        state.resets_open -= 1;
        state.resets += 1;
        state.reset_done = now;
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

fn range(first: u64, sectors: u64) -> std::ops::Range<usize> {
    index(first)..index(first + sectors)
}

fn index(sector: u64) -> usize {
    usize::try_from(sector).expect("a simulated medium is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: (usize, Serial) = (0, Serial(10));
    const OTHER: (usize, Serial) = (1, Serial(20));

    fn history() -> History {
        let mut history = History::new();
        history.add_unit(4, false);
        history
    }

    fn content(write: WriteId, sector: u64) -> [u8; SECTOR_BYTES] {
        let mut bytes = [0; SECTOR_BYTES];
        if write != WriteId::NONE {
            stamp::emit(write, sector, &mut bytes);
        }
        bytes
    }

    fn found(history: &History) -> Option<Oracle> {
        history.violation().map(|violation| violation.oracle)
    }

    #[test]
    fn a_read_may_bring_what_is_being_written_or_what_was_there_and_nothing_older() {
        let mut history = history();
        let first = history.begin_write(0, ME, 0, 1);
        history.wrote(first, false);
        let second = history.begin_write(0, OTHER, 0, 1);
        let asked = history.step();
        history.judge_read(0, 0, 0, &content(first, 0), asked);
        history.judge_read(0, 0, 0, &content(second, 0), asked);
        assert_eq!(found(&history), None);
        history.judge_read(0, 0, 0, &content(WriteId::NONE, 0), asked);
        assert_eq!(found(&history), Some(Oracle::Data));
    }

    #[test]
    fn a_write_that_failed_may_be_there_until_one_that_came_later_is_through() {
        let mut history = history();
        let failed = history.begin_write(0, ME, 0, 1);
        history.failed(failed, "failed");
        let asked = history.step();
        history.judge_read(0, 0, 0, &content(failed, 0), asked);
        history.judge_read(0, 0, 0, &content(WriteId::NONE, 0), asked);
        assert_eq!(found(&history), None);
        let later = history.begin_write(0, ME, 0, 1);
        history.wrote(later, false);
        let asked = history.step();
        history.judge_read(0, 0, 0, &content(failed, 0), asked);
        assert_eq!(found(&history), Some(Oracle::Data));
    }

    #[test]
    fn a_power_cut_may_take_what_was_not_promised_and_nothing_else() {
        for (fua, synchronized, lost) in [(true, false, true), (false, true, true), (false, false, false)] {
            let mut history = history();
            let write = history.begin_write(0, ME, 0, 1);
            history.wrote(write, fua);
            if synchronized {
                let asked = history.step();
                history.synchronized(0, asked);
            }
            let left = [content(WriteId::NONE, 0)];
            history.judge_survivors(0, left.iter().map(|bytes| &bytes[..]), End::PowerCut);
            assert_eq!(found(&history), lost.then_some(Oracle::Durability), "{fua} {synchronized}");
        }
    }

    #[test]
    fn a_synchronization_promises_nothing_that_was_answered_after_it_was_asked_for() {
        let mut history = history();
        let write = history.begin_write(0, ME, 0, 1);
        let asked = history.step();
        history.wrote(write, false);
        history.synchronized(0, asked);
        let left = [content(WriteId::NONE, 0)];
        history.judge_survivors(0, left.iter().map(|bytes| &bytes[..]), End::PowerCut);
        assert_eq!(found(&history), None);
    }

    #[test]
    fn what_anothers_reservation_refuses_may_not_land_from_its_good_until_its_release() {
        let mut history = history();
        let write = history.begin_write(0, OTHER, 0, 1);
        let asked = history.step();
        history.landing(0, 0, &content(write, 0));
        history.reserved(0, ME, asked);
        history.releases(0, ME.1);
        history.landing(0, 0, &content(write, 0));
        assert_eq!(found(&history), None);
        let asked = history.step();
        history.reserved(0, ME, asked);
        history.landing(0, 0, &content(write, 0));
        assert_eq!(found(&history), Some(Oracle::Fence));
    }

    #[test]
    fn what_a_reset_found_at_the_medium_may_not_land_after_its_answer() {
        let mut history = history();
        let write = history.begin_write(0, OTHER, 0, 1);
        history.handed(0, 0, &content(write, 0));
        let asked = history.reset_asked(0);
        history.landing(0, 0, &content(write, 0));
        history.reset_done(0, asked, true);
        assert_eq!(found(&history), None);
        history.landing(0, 0, &content(write, 0));
        assert_eq!(found(&history), Some(Oracle::Fence));
    }
}
