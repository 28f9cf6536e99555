//! The commands that initiators send, and what each expects of its answer.
//!
//! A command is a variant of [`What`], a row of [`EVERYTHING`], and an arm each where its CDB is made ([`Wish::cdb`]), its data
//! and what is noted of it when it goes out ([`Wish::begin`]), and its end ([`Wish::judge`]). What commands of a kind have
//! in common is in `data`, `space`, `compare`, `cache` and `reservation`.

mod cache;
mod compare;
mod data;
mod persistent;
mod reservation;
mod space;

use portico_iscsi::initiator::{Command, Completion, Direction};
use portico_iscsi::wire::{ServiceResponse, TaskAttribute};

use crate::history::{End, Serial, Step};
use crate::hub::Hub;
use crate::initiator::{Initiator, lun_of};
use crate::stamp::{Content, WriteId};

use cache::ModeSelect;
use compare::Compare;
use space::Fill;

const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const RESERVATION_CONFLICT: u8 = 0x18;
const TASK_SET_FULL: u8 = 0x28;
/// Statuses of commands that never came into their task set.
pub(crate) const REFUSED: [u8; 2] = [BUSY, TASK_SET_FULL];

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) unit: usize,
    pub(crate) what: What,
    pub(crate) attribute: TaskAttribute,
    /// Of the unit.
    block_sectors: u64,
}

/// What it is to do. Sectors are 512 bytes, whatever the blocks of the unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Write { id: WriteId, first: u64, sectors: u64, fua: bool },
    Read { first: u64, sectors: u64 },
    Verify { first: u64, sectors: u64, compares: bool },
    Fill(Fill),
    Compare(Compare),
    Synchronize { immediate: bool },
    Stop { immediate: bool },
    ModeSelect(ModeSelect),
    Reserve,
    Release,
    PersistentReserve(persistent::Out),
    TestUnitReady,
}

/// Draws a command for a unit; `None` where it is not apt now.
type Draw = fn(&Initiator, &mut Hub, usize) -> Option<What>;

/// What an initiator chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Menu {
    Everything,
    /// WRITEs without FUA, and READs.
    Writes,
    /// The same, most of the WRITEs with FUA.
    Fua,
    /// The same without FUA, and SYNCHRONIZE CACHE.
    Synchronize,
    /// The same without FUA, and MODE SELECTs of the write cache.
    Tune,
    /// UNMAP and WRITE SAME among WRITEs, and SYNCHRONIZE CACHE.
    Space,
    /// WRITEs, and PERSISTENT RESERVE OUT, every PREEMPT of which aborts.
    Fencing,
}

impl Menu {
    const fn rows(self) -> &'static [Row] {
        match self {
            Self::Everything => &EVERYTHING,
            Self::Writes | Self::Fencing => &WRITES,
            Self::Fua => &FUA,
            Self::Synchronize => &SYNCHRONIZE,
            Self::Tune => &TUNE,
            Self::Space => &SPACE,
        }
    }
}

/// How often a command is drawn, in parts of all. Where it is not apt, TEST UNIT READY takes its place.
type Row = (u64, Draw);

const WRITES: [Row; 2] = [
    (8, |_, hub, unit| Some(data::write(hub, unit, NEVER))),
    (1, |_, hub, unit| Some(data::read(hub, unit))),
];

const FUA: [Row; 2] = [
    (8, |_, hub, unit| Some(data::write(hub, unit, MOSTLY))),
    (1, |_, hub, unit| Some(data::read(hub, unit))),
];

const SYNCHRONIZE: [Row; 3] = [
    (8, |_, hub, unit| Some(data::write(hub, unit, NEVER))),
    (1, |_, hub, unit| Some(data::read(hub, unit))),
    (4, |_, hub, _| Some(What::Synchronize { immediate: hub.random.chance(1, 8) })),
];

const TUNE: [Row; 3] = [
    (8, |_, hub, unit| Some(data::write(hub, unit, NEVER))),
    (1, |_, hub, unit| Some(data::read(hub, unit))),
    (4, cache::mode_select),
];

const SPACE: [Row; 5] = [
    (5, |_, hub, unit| Some(data::write(hub, unit, NOW_AND_THEN))),
    (1, |_, hub, unit| Some(data::read(hub, unit))),
    (4, |_, hub, unit| space::unmap(hub, unit)),
    (4, |_, hub, unit| Some(space::write_same(hub, unit))),
    (4, |_, _, _| Some(What::Synchronize { immediate: false })),
];

/// Of four WRITEs, those with FUA.
const NEVER: u64 = 0;
const NOW_AND_THEN: u64 = 1;
const MOSTLY: u64 = 3;

const EVERYTHING: [Row; 12] = [
    (43, |_, hub, unit| Some(data::write(hub, unit, NOW_AND_THEN))),
    (30, |_, hub, unit| Some(data::read(hub, unit))),
    (4, |_, hub, unit| Some(data::verify(hub, unit))),
    (4, |_, hub, unit| space::unmap(hub, unit)),
    (4, |_, hub, unit| Some(space::write_same(hub, unit))),
    (6, |_, hub, unit| Some(compare::draw(hub, unit))),
    (5, |_, hub, _| Some(What::Synchronize { immediate: hub.random.chance(1, 4) })),
    (2, |_, hub, _| Some(What::Stop { immediate: hub.random.chance(1, 4) })),
    (2, cache::mode_select),
    (5, |initiator, hub, unit| reservation::draw(initiator, hub, unit, What::Reserve)),
    (6, |initiator, hub, unit| reservation::draw(initiator, hub, unit, What::Release)),
    (3, |_, _, _| None),
];

/// A CDB, where its data go, and how many bytes there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cdb {
    bytes: [u8; 16],
    direction: Direction,
    pub(crate) data_bytes: u32,
}

impl Cdb {
    fn without_data(short: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(&short);
        Self { bytes, direction: Direction::None, data_bytes: 0 }
    }

    /// As long as the group of its operation code says (SPC-4 §4.2.5.1).
    fn bytes(&self) -> &[u8] {
        match self.bytes[0] >> 5 {
            0 => &self.bytes[..6],
            4 => &self.bytes,
            _ => &self.bytes[..10],
        }
    }

    /// The command as the initiator's session takes it.
    pub(crate) fn command(&self, unit: usize, attribute: TaskAttribute, user: u64) -> Command<'_> {
        Command {
            lun: lun_of(unit),
            cdb: self.bytes(),
            direction: self.direction,
            expected_length: self.data_bytes,
            attribute,
            immediate: false,
            user,
        }
    }
}

/// Mostly SIMPLE.
fn attribute(hub: &mut Hub) -> TaskAttribute {
    match hub.random.below(24) {
        0 | 1 => TaskAttribute::Ordered,
        2 => TaskAttribute::HeadOfQueue,
        3 => TaskAttribute::Untagged,
        _ => TaskAttribute::Simple,
    }
}

impl Wish {
    /// What this initiator wants next.
    pub(crate) fn drawn(initiator: &Initiator, hub: &mut Hub) -> Option<Self> {
        if initiator.habits.audits {
            return Self::audit(initiator, hub);
        }
        let unit = hub.random.index(hub.disks.len());
        if let Some(what) = persistent::draw(initiator, hub, unit) {
            return Some(Self::of(hub, unit, what));
        }
        let rows = initiator.habits.menu.rows();
        let mut at = hub.random.below(rows.iter().map(|(weight, _)| weight).sum());
        let drawn = rows.iter().find(|(weight, _)| at.checked_sub(*weight).map(|rest| at = rest).is_none());
        let (_, draw) = drawn.expect("it is less than the sum");
        let what = draw(initiator, hub, unit).unwrap_or(What::TestUnitReady);
        let attribute = match initiator.habits.menu {
            Menu::Everything => attribute(hub),
            _ => TaskAttribute::Simple,
        };
        Some(Self { attribute, ..Self::of(hub, unit, what) })
    }

    fn of(hub: &Hub, unit: usize, what: What) -> Self {
        let block_sectors = hub.disks[unit].character.block_sectors;
        Self { unit, what, attribute: TaskAttribute::Simple, block_sectors }
    }

    /// The next part of everything.
    fn audit(initiator: &Initiator, hub: &Hub) -> Option<Self> {
        let (unit, first) = initiator.audited;
        let disk = hub.disks.get(unit)?;
        let sectors = (disk.character.sectors as u64 - first).min(256);
        let what = What::Read { first, sectors };
        initiator.pending.is_empty().then(|| Self::of(hub, unit, what))
    }

    /// Whether it writes: a session that loses it asks for it again.
    pub(crate) const fn writes(&self) -> bool {
        matches!(self.what, What::Write { .. } | What::Fill(_) | What::Compare(_))
    }

    pub(crate) fn cdb(&self) -> Cdb {
        match self.what {
            What::Write { first, sectors, fua, .. } => {
                self.transfer(0x2a, u8::from(fua) << 3, (first, sectors), Direction::Write)
            }
            What::Read { first, sectors } => self.transfer(0x28, 0, (first, sectors), Direction::Read),
            What::Verify { first, sectors, compares } => {
                let direction = if compares { Direction::Write } else { Direction::None };
                self.transfer(0x2f, u8::from(compares) << 1, (first, sectors), direction)
            }
            What::Fill(fill) => fill.cdb(self.block_sectors),
            What::Compare(compare) => compare.cdb(self.block_sectors),
            What::Synchronize { immediate } => {
                Cdb::without_data([0x35, u8::from(immediate) << 1, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            What::Stop { immediate } => {
                Cdb::without_data([0x1b, u8::from(immediate), 0, 0, 0, 0, 0, 0, 0, 0])
            }
            What::ModeSelect(_) => cache::mode_select_cdb(),
            What::Reserve => Cdb::without_data([0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            What::Release => Cdb::without_data([0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            What::PersistentReserve(out) => out.cdb(),
            What::TestUnitReady => Cdb::without_data([0; 10]),
        }
    }

    /// It is on its way: when that was, and its buffer.
    pub(crate) fn begin(mut self, hub: &mut Hub, (port, session): (usize, Serial)) -> (Step, Self, Vec<u8>) {
        let asked = hub.history.step();
        let mut buffer = vec![0; self.cdb().data_bytes as usize];
        match &mut self.what {
            What::Write { id, first, sectors, .. } => {
                let area = (*first, *sectors);
                *id = hub.history.begin_write(self.unit, (port, session), area, Content::Placed);
                data::fill(&mut buffer, *first, |_| *id);
            }
            What::Verify { first, .. } => {
                data::fill(&mut buffer, *first, |sector| hub.history.guess(self.unit, sector));
            }
            What::Fill(fill) => {
                fill.begin(hub, self.unit, (port, session), self.block_sectors, &mut buffer);
            }
            What::Compare(compare) => compare.begin(hub, self.unit, (port, session), &mut buffer),
            What::ModeSelect(select) => select.begin(hub, self.unit, (port, session), &mut buffer),
            What::Release => hub.history.releases(self.unit, session),
            What::PersistentReserve(out) => out.begin(hub, self.unit, (port, session), &mut buffer),
            What::Read { .. }
            | What::Synchronize { .. }
            | What::Stop { .. }
            | What::Reserve
            | What::TestUnitReady => {}
        }
        (asked, self, buffer)
    }

    /// Its end. True: GOOD.
    pub(crate) fn judge(
        &self,
        hub: &mut Hub,
        (port, session): (usize, Serial),
        asked: Step,
        completion: &Completion<'_>,
        buffer: &[u8],
    ) -> bool {
        let end = Ended::of(completion);
        if end == Ended::Conflict && !matches!(self.what, What::Release | What::PersistentReserve(_)) {
            hub.history.conflicted(self.unit, port, asked);
        }
        let good = end == Ended::Good;
        match self.what {
            What::Write { id, fua, .. } if good => hub.history.wrote(id, fua),
            What::Fill(fill) if good => {
                hub.history.wrote(fill.id, false);
                hub.history.tally.fills += 1;
            }
            What::Write { id, .. } | What::Fill(Fill { id, .. }) => {
                hub.history.failed(id, "was refused, or failed");
            }
            What::Compare(compare) => compare.judge(hub, (self.unit, port), asked, end, buffer),
            What::Read { first, .. } if good => {
                data::judge_read(hub, (self.unit, port), first, asked, completion.moved, buffer);
            }
            What::Verify { first, compares, .. } => {
                data::judge_verify(hub, (self.unit, port), first, asked, end, compares.then_some(buffer));
            }
            What::Synchronize { immediate: false } | What::Stop { immediate: false } if good => {
                hub.history.synchronized(self.unit, asked);
            }
            What::ModeSelect(select) => select.judge(hub, self.unit, session, end),
            What::PersistentReserve(out) => out.judge(hub, self.unit, session, end),
            What::Reserve if good => {
                hub.history.reserved(self.unit, (port, session), asked);
                hub.opportune = Some(End::Killed);
            }
            _ => {}
        }
        good
    }

    /// It was aborted (`over` says how), or gave no sign of life: no answer comes.
    pub(crate) fn abandon(&self, hub: &mut Hub, session: Serial, over: Option<&'static str>) {
        match (self.what, over) {
            (What::Write { id, .. } | What::Fill(Fill { id, .. }), Some(over)) => {
                hub.history.failed(id, over)
            }
            (What::Compare(compare), Some(over)) => hub.history.failed(compare.id(), over),
            // What has been taken up is done before anything that is asked later.
            (What::ModeSelect(select), Some(_)) => select.judge(hub, self.unit, session, Ended::Otherwise),
            (What::PersistentReserve(out), _) => out.judge(hub, self.unit, session, Ended::Otherwise),
            _ => {}
        }
    }
}

/// How a command ended, as far as anybody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Good,
    Conflict,
    Miscompare,
    /// Nothing was done.
    Refused,
    Otherwise,
}

impl Ended {
    fn of(completion: &Completion<'_>) -> Self {
        if completion.response != ServiceResponse::CommandCompleted {
            return Self::Otherwise;
        }
        // Fixed format (SPC-4 §4.5.3): nobody here asks for another one.
        let key = completion.sense.get(2).map_or(0, |byte| byte & 0x0f);
        match (completion.status, key) {
            (GOOD, _) => Self::Good,
            (RESERVATION_CONFLICT, _) => Self::Conflict,
            (BUSY | TASK_SET_FULL, _) => Self::Refused,
            // NOT READY, ILLEGAL REQUEST, UNIT ATTENTION.
            (CHECK_CONDITION, 0x02 | 0x05 | 0x06) => Self::Refused,
            (CHECK_CONDITION, 0x0e) => Self::Miscompare,
            _ => Self::Otherwise,
        }
    }
}
