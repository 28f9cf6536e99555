//! The oracles: what every sector may hold, what must have survived, and what may land.
//!
//! Initiators tell when they ask and when they are answered, media tell what lands. Time here is a count of steps, so that
//! of two things one was first. A write that was not answered may have happened or not, until it is known to be over.

mod cache;
mod exchange;
mod persistent;
mod reservations;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

use crate::stamp::{self, Content, SECTOR_BYTES, WriteId};

use cache::Cache;
use persistent::Persistent;
pub(crate) use persistent::{Action, Kind};
use reservations::Reserved;

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
    /// Commands of one task set did not end in the order that their attributes ask for.
    Order,
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
    /// RESERVEs in force when the process ended and the kernel did not.
    pub reservations_kept: u64,
    /// PERSISTENT RESERVE OUTs answered GOOD.
    pub registrations: u64,
    /// PREEMPTs among them, with and without ABORT.
    pub preemptions: u64,
    /// PREEMPT AND ABORTs among these.
    pub aborting_preemptions: u64,
    /// And of these, those that came while who was preempted had a write at the medium.
    pub preempted_at_medium: u64,
    /// VERIFYs answered GOOD or with a miscompare.
    pub verifies: u64,
    /// UNMAPs and WRITE SAMEs answered GOOD.
    pub fills: u64,
    /// COMPARE AND WRITEs answered GOOD.
    pub exchanges: u64,
    /// COMPARE AND WRITEs that found something else.
    pub miscompares: u64,
    /// MODE SELECTs answered GOOD.
    pub mode_selects: u64,
    /// Targets that were reset.
    pub target_resets: u64,
    /// ORDERED commands that were answered.
    pub ordered: u64,
    /// Task sets that were aborted or cleared.
    pub task_sets: u64,
    /// SendTargets that were answered.
    pub discoveries: u64,
    /// Logouts with commands in flight.
    pub logouts: u64,
    /// Ledgers that could not be written, or took their time.
    pub ledger_faults: u64,
    /// Processes that ended while a ledger was written.
    pub ledgers_cut: u64,
    /// Resets that were complete, of one unit each.
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
    /// Connections that have joined sessions.
    pub connections_joined: u64,
    /// Faults that struck a PDU of a dialogue.
    pub faults: u64,
    /// Commands that another connection has taken over.
    pub reassigned: u64,
    /// Sessions that were lost by a fault.
    pub sessions_lost: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.synchronizations += other.synchronizations;
        self.reservations += other.reservations;
        self.reservations_kept += other.reservations_kept;
        self.registrations += other.registrations;
        self.preemptions += other.preemptions;
        self.aborting_preemptions += other.aborting_preemptions;
        self.preempted_at_medium += other.preempted_at_medium;
        self.verifies += other.verifies;
        self.fills += other.fills;
        self.exchanges += other.exchanges;
        self.miscompares += other.miscompares;
        self.mode_selects += other.mode_selects;
        self.target_resets += other.target_resets;
        self.task_sets += other.task_sets;
        self.discoveries += other.discoveries;
        self.logouts += other.logouts;
        self.ledger_faults += other.ledger_faults;
        self.ledgers_cut += other.ledgers_cut;
        self.resets += other.resets;
        self.resets_refused += other.resets_refused;
        self.hangs += other.hangs;
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.reloads += other.reloads;
        self.restarts += other.restarts;
        self.connections_joined += other.connections_joined;
        self.faults += other.faults;
        self.reassigned += other.reassigned;
        self.sessions_lost += other.sessions_lost;
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
    first: u64,
    sectors: u64,
    /// From here on another session has followed its own: what of it is at the medium has its blocks to itself.
    followed: Step,
    /// Sectors of it that have landed, and each as often as it has.
    landed: u64,
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
    /// The last that was asked for of what was answered, and had to do with it.
    touched: Step,
}

impl Sector {
    const fn holding(base: WriteId) -> Self {
        Self { base, writes: Vec::new(), touched: 0 }
    }
}

/// What a unit is to initiators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// It comes up with WCE 1: what is written is stable when it is synchronized.
    pub(crate) volatile_cache: bool,
    /// It keeps nothing, and reads as zeros.
    pub(crate) keeps: bool,
    /// Initiators register, with this APTPL, and none has it by RESERVE.
    pub(crate) registers: Option<bool>,
}

#[derive(Debug)]
struct UnitHistory {
    sectors: Vec<Sector>,
    keeps: bool,
    /// What COMPARE AND WRITE has replaced in a sector, and which one.
    replaced: BTreeMap<(usize, WriteId), WriteId>,
    cache: Cache,
    reserved: Reserved,
    persistent: Persistent,
    /// It has left the configuration in this process.
    has_left: bool,
}

impl UnitHistory {
    /// What was asked for then, and had to do with these sectors, is answered.
    fn touched(&mut self, first: u64, sectors: u64, asked: Step) {
        if self.keeps {
            for sector in &mut self.sectors[range(first, sectors)] {
                sector.touched = sector.touched.max(asked);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    step: Step,
    writes: BTreeMap<WriteId, Write>,
    units: Vec<UnitHistory>,
    /// Sessions that have ended, or are about to.
    ended: BTreeSet<Serial>,
    first_violation: Option<Violation>,
    pub(crate) tally: Tally,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            step: 0,
            writes: BTreeMap::new(),
            units: Vec::new(),
            ended: BTreeSet::new(),
            first_violation: None,
            tally: Tally::default(),
        }
    }

    pub(crate) fn add_unit(&mut self, sectors: usize, promise: Promise) {
        self.units.push(UnitHistory {
            sectors: (0..sectors).map(|_| Sector::holding(WriteId::NONE)).collect(),
            keeps: promise.keeps,
            replaced: BTreeMap::new(),
            cache: Cache::new(promise.volatile_cache),
            reserved: Reserved::default(),
            persistent: Persistent::new(promise.registers),
            has_left: false,
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
        (first, sectors): (u64, u64),
        content: Content,
    ) -> WriteId {
        let invoked = self.step();
        let id = WriteId::new(self.writes.len() as u64 + 1, content);
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
            first,
            sectors,
            followed: NEVER,
            landed: 0,
            over: None,
        };
        self.writes.insert(id, write);
        if self.units[unit].keeps {
            for sector in range(first, sectors) {
                self.units[unit].sectors[sector].writes.push(id);
            }
        }
        id
    }

    /// GOOD.
    pub(crate) fn wrote(&mut self, id: WriteId, fua: bool) {
        let done = self.step();
        let write = self.writes.get_mut(&id).expect("it was begun");
        (write.done, write.certain, write.over) = (done, true, Some("was answered GOOD"));
        let unit = &mut self.units[write.unit];
        unit.touched(write.first, write.sectors, write.invoked);
        self.tally.writes += 1;
        write.durable = fua || unit.cache.promises(write.invoked);
        if let Some(holder) = unit.reserved.holder
            && holder.port != write.port
            && holder.since < write.invoked
        {
            let what = format!("{id:?} was asked for after GOOD of another's RESERVE, and answered GOOD");
            self.violate(Oracle::Fence, what);
        }
        let write = &self.writes[&id];
        let (unit, port, invoked) = (write.unit, write.port, write.invoked);
        self.judge_registrant(unit, port, Some(invoked), "GOOD for a write");
    }

    /// Any other end: some of it may have happened, nothing more will.
    pub(crate) fn failed(&mut self, id: WriteId, why: &'static str) {
        let done = self.step();
        let write = self.writes.get_mut(&id).expect("it was begun");
        write.done = write.done.min(done);
        write.over = Some(why);
    }

    /// How many sectors of a write have landed, twice where they did so twice.
    pub(crate) fn landed(&self, id: WriteId) -> u64 {
        self.writes[&id].landed
    }

    /// The initiator port is back with another session: writes of those before are over, or nobody may touch their blocks.
    pub(crate) fn port_is_back(&mut self, port: usize, session: Serial) {
        let done = self.step();
        let before = |write: &&mut Write| write.port == port && write.session != session;
        for write in self.writes.values_mut().filter(before) {
            write.done = write.done.min(done);
            write.followed = write.followed.min(done);
        }
        self.caches_are_left(port, session);
        self.registrations_are_left(port, session);
        self.has_come(session);
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
        self.units[unit].touched(first, (data.len() / SECTOR_BYTES) as u64, asked);
        for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR_BYTES)) {
            if let Err(what) = self.may_read(unit, sector, bytes, asked, now) {
                let what = format!("unit {unit} sector {sector} as read by initiator {port}: {what}");
                return self.violate(Oracle::Data, what);
            }
        }
        self.judge_access(unit, port, asked);
    }

    /// The medium was read for a command that was asked for at `asked`.
    pub(crate) fn judge_access(&mut self, unit: usize, port: usize, asked: Step) {
        if let Some(holder) = self.units[unit].reserved.holder
            && holder.port != port
            && holder.since < asked
        {
            let what = format!("initiator {port} read unit {unit}, which another has reserved");
            self.violate(Oracle::Fence, what);
        }
    }

    /// VERIFY, asked for at `asked`, found other data than these.
    pub(crate) fn judge_miscompare(&mut self, unit: usize, first: u64, data: &[u8], asked: Step) {
        let now = self.step();
        let surely_equal = (first..).zip(data.chunks_exact(SECTOR_BYTES)).all(|(sector, bytes)| {
            let state = &self.units[unit].sectors[index(sector)];
            let mut found = state.writes.iter().chain([&state.base]);
            found.all(|&id| {
                let mut other = [0; SECTOR_BYTES];
                stamp::emit(id, sector, &mut other);
                other == bytes || self.may_read(unit, sector, &other, asked, now).is_err()
            })
        });
        if surely_equal {
            let what = format!("unit {unit} sector {first} on: a miscompare of what is surely equal");
            self.violate(Oracle::Data, what);
        }
    }

    /// What a sector may well hold.
    pub(crate) fn guess(&self, unit: usize, sector: u64) -> WriteId {
        let state = &self.units[unit].sectors[index(sector)];
        state.writes.last().copied().unwrap_or(state.base)
    }

    fn may_read(&self, unit: usize, sector: u64, bytes: &[u8], asked: Step, now: Step) -> Result<(), String> {
        self.first_apt(unit, sector, bytes, |id, found| {
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
        })
        .map(drop)
    }

    /// Of the writes that leave this content in a sector, one that `judge` finds nothing against; `None` for what was there
    /// before all that still count. Of zeroes there may be several.
    fn first_apt<'a>(
        &'a self,
        unit: usize,
        sector: u64,
        bytes: &[u8],
        judge: impl Fn(WriteId, Option<&'a Write>) -> Result<(), String>,
    ) -> Result<WriteId, String> {
        let id = stamp::parse(sector, bytes).ok_or_else(|| "torn, or of another place".to_owned())?;
        let state = &self.units[unit].sectors[index(sector)];
        let leaves = |other: WriteId| if id == WriteId::NONE { other.is_zeroes() } else { other == id };
        let writes = state.writes.iter().rev().filter(|other| leaves(**other));
        let writes = writes.map(|other| (*other, Some(&self.writes[other])));
        let base = leaves(state.base).then_some((state.base, None));
        let mut verdict = Err(format!("{id:?}, which was never there or is long gone"));
        for (other, found) in writes.chain(base) {
            verdict = judge(other, found).map(|()| id);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
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
        let now = self.step();
        for write in self.writes.values_mut().filter(|write| write.unit == unit) {
            write.of_unit_before = true;
        }
        let state = &mut self.units[unit];
        state.has_left = true;
        state.reserved.holder = None;
        state.cache.unsettle(now);
        self.registrations_unsettle(unit, now);
    }

    /// A new process, with these units from the first in its configuration.
    pub(crate) fn begins_with(&mut self, units: usize) {
        for (number, unit) in self.units.iter_mut().enumerate() {
            unit.has_left = number >= units;
        }
    }

    /// A medium was closed, or its process killed, after a sync had failed. The kernel tells that once: whoever opens it
    /// anew cannot know what an earlier sync has lost.
    pub(crate) fn forgive(&mut self, unit: usize) {
        for write in self.writes.values_mut().filter(|write| write.unit == unit) {
            write.forgiven |= !write.durable;
        }
    }

    /// What a sector may hold after the gateway's end, as far as its medium goes.
    pub(crate) fn judge_outcome(&mut self, unit: usize, sector: u64, bytes: &[u8], end: End) {
        if let Err(what) = self.may_survive(unit, sector, bytes, end) {
            let what = format!("unit {unit} sector {sector} may be left by the crash with {what}");
            self.violate(Oracle::Durability, what);
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
        if end == End::PowerCut {
            // What was there before may be there again.
            self.units[unit].replaced.clear();
        }
        self.unit_restarts(unit, end);
    }

    fn may_survive(&self, unit: usize, sector: u64, bytes: &[u8], end: End) -> Result<WriteId, String> {
        self.first_apt(unit, sector, bytes, |id, found| {
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
            Ok(())
        })
    }

    // --- The medium --------------------------------------------------------------------------------------------

    /// A write of this content was handed to the medium of `unit`.
    pub(crate) fn handed(&mut self, unit: usize, sector: u64, bytes: &[u8]) {
        let step = self.step();
        let ids = self.landed_from(unit, sector, bytes);
        if ids.is_empty() {
            let what = format!("unit {unit} sector {sector}: what is handed to the medium is no write's");
            return self.violate(Oracle::Data, what);
        }
        // Of zeroes it is not known whose they are, where several ask for them.
        if let [id] = ids[..] {
            let write = self.writes.get_mut(&id).expect("it was just found");
            write.handed = write.handed.min(step);
        }
    }

    /// The writes that this content may come from which lands in a sector. Of zeroes those are named that are not over, and
    /// the last one where all are.
    fn landed_from(&self, unit: usize, sector: u64, bytes: &[u8]) -> Vec<WriteId> {
        match stamp::parse(sector, bytes) {
            None => Vec::new(),
            Some(WriteId::NONE) => {
                let list = &self.units[unit].sectors[index(sector)].writes;
                let zeroes: Vec<WriteId> = list.iter().copied().filter(|id| id.is_zeroes()).collect();
                let open: Vec<WriteId> =
                    zeroes.iter().copied().filter(|id| self.writes[id].over.is_none()).collect();
                if open.is_empty() { zeroes.last().copied().into_iter().collect() } else { open }
            }
            Some(id) => self.writes.contains_key(&id).then_some(id).into_iter().collect(),
        }
    }

    /// A sector lands on the medium.
    pub(crate) fn landing(&mut self, unit: usize, sector: u64, bytes: &[u8]) {
        self.step();
        let ids = self.landed_from(unit, sector, bytes);
        let &[id] = &ids[..] else {
            // Of several that zeroes may come from, none is over.
            if ids.is_empty() {
                let what = format!("unit {unit} sector {sector}: what lands is no write's");
                self.violate(Oracle::Data, what);
            }
            return;
        };
        let write = self.writes.get_mut(&id).expect("it was just found");
        write.landed += 1;
        let write = &self.writes[&id];
        if write.followed < self.units[unit].sectors[index(sector)].touched {
            let what = format!(
                "unit {unit} sector {sector}: {id:?} of a session before lands where a later command has been"
            );
            return self.violate(Oracle::Fence, what);
        }
        if let Some(over) = write.over {
            let what = format!("unit {unit} sector {sector}: {id:?} lands after it {over}");
            return self.violate(Oracle::Fence, what);
        }
        if let Some(holder) = self.units[unit].reserved.holder
            && holder.port != write.port
        {
            let what = format!(
                "unit {unit} sector {sector}: {id:?} of initiator {} lands while initiator {} has it reserved",
                write.port, holder.port
            );
            return self.violate(Oracle::Fence, what);
        }
        let port = write.port;
        self.judge_registrant(unit, port, None, "a write lands");
    }
}

impl History {
    /// Forgets what was written: the medium was memory, and is gone.
    pub(crate) fn forget(&mut self, unit: usize, end: End) {
        self.units[unit].sectors.fill_with(|| Sector::holding(WriteId::NONE));
        self.units[unit].replaced.clear();
        self.unit_restarts(unit, end);
    }
}

fn range(first: u64, sectors: u64) -> std::ops::Range<usize> {
    index(first)..index(first + sectors)
}

fn index(sector: u64) -> usize {
    usize::try_from(sector).expect("a simulated medium is small")
}
