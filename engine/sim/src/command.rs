//! The commands that initiators send, and what each expects of its answer.

use portico_iscsi::initiator::{Command, Completion, Direction};
use portico_iscsi::wire::{ServiceResponse, TaskAttribute};

use crate::history::{Oracle, Serial, Step};
use crate::hub::Hub;
use crate::initiator::{Initiator, lun_of};
use crate::stamp::{self, SECTOR_BYTES, WriteId};

const GOOD: u8 = 0;

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) unit: usize,
    pub(crate) what: What,
    /// Of the unit.
    block_sectors: u64,
}

/// What it is to do. Sectors are 512 bytes, whatever the blocks of the unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Write { id: WriteId, first: u64, sectors: u64, fua: bool },
    Read { first: u64, sectors: u64 },
    Synchronize { immediate: bool },
    Reserve,
    Release,
    TestUnitReady,
}

impl Wish {
    /// What this initiator wants next.
    pub(crate) fn drawn(initiator: &Initiator, hub: &mut Hub) -> Option<Self> {
        if initiator.habits.audits {
            return Self::audit(initiator, hub);
        }
        let unit = hub.random.index(hub.disks.len());
        let block_sectors = hub.disks[unit].character.block_sectors;
        let (first, sectors) = area(hub, unit);
        let waits_for = |wanted: fn(&What) -> bool| {
            initiator.pending.values().any(|pending| pending.wish.unit == unit && wanted(&pending.wish.what))
        };
        let fences = waits_for(|what| matches!(what, What::Reserve | What::Release));
        let what = match hub.random.below(100) {
            0..45 => {
                let fua = hub.random.chance(1, 4);
                What::Write { id: WriteId::NONE, first, sectors, fua }
            }
            45..80 => What::Read { first, sectors },
            80..86 => What::Synchronize { immediate: hub.random.chance(1, 4) },
            86..91 if initiator.habits.fences && !fences => What::Reserve,
            91..97 if initiator.habits.fences && !fences => What::Release,
            _ => What::TestUnitReady,
        };
        Some(Self { unit, what, block_sectors })
    }

    /// The next part of everything.
    fn audit(initiator: &Initiator, hub: &Hub) -> Option<Self> {
        let (unit, first) = initiator.audited;
        let disk = hub.disks.get(unit)?;
        let sectors = (disk.character.sectors as u64 - first).min(256);
        let what = What::Read { first, sectors };
        initiator.pending.is_empty().then_some(Self {
            unit,
            what,
            block_sectors: disk.character.block_sectors,
        })
    }

    /// Its CDB, where its data go, and how many bytes there are.
    pub(crate) fn cdb(&self) -> ([u8; 10], Direction, u32) {
        let mut cdb = [0; 10];
        let mut transfer = |opcode: u8, flags: u8, first: u64, sectors: u64| {
            let lba = u32::try_from(first / self.block_sectors).expect("a simulated medium is small");
            let blocks = u16::try_from(sectors / self.block_sectors).expect("a command is small");
            (cdb[0], cdb[1]) = (opcode, flags);
            cdb[2..6].copy_from_slice(&lba.to_be_bytes());
            cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
            u32::try_from(sectors).expect("a command is small") * SECTOR_BYTES_32
        };
        match self.what {
            What::Write { first, sectors, fua, .. } => {
                let length = transfer(0x2a, u8::from(fua) << 3, first, sectors);
                (cdb, Direction::Write, length)
            }
            What::Read { first, sectors } => {
                let length = transfer(0x28, 0, first, sectors);
                (cdb, Direction::Read, length)
            }
            What::Synchronize { immediate } => {
                (cdb[0], cdb[1]) = (0x35, u8::from(immediate) << 1);
                (cdb, Direction::None, 0)
            }
            What::Reserve => (with_opcode(0x56), Direction::None, 0),
            What::Release => (with_opcode(0x57), Direction::None, 0),
            What::TestUnitReady => (cdb, Direction::None, 0),
        }
    }

    /// The command as the initiator's session takes it.
    pub(crate) fn command<'a>(&self, cdb: &'a [u8; 10], user: u64) -> Command<'a> {
        let (_, direction, expected_length) = self.cdb();
        let cdb = match self.what {
            What::TestUnitReady => &cdb[..6],
            _ => &cdb[..],
        };
        Command {
            lun: lun_of(self.unit),
            cdb,
            direction,
            expected_length,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user,
        }
    }

    /// It is on its way: when that was, and its buffer.
    pub(crate) fn begin(mut self, hub: &mut Hub, (port, session): (usize, Serial)) -> (Step, Self, Vec<u8>) {
        let asked = hub.history.step();
        let (_, _, length) = self.cdb();
        let mut buffer = vec![0; length as usize];
        match &mut self.what {
            What::Write { id, first, sectors, .. } => {
                *id = hub.history.begin_write(self.unit, (port, session), *first, *sectors);
                for (sector, place) in (*first..).zip(buffer.chunks_exact_mut(SECTOR_BYTES)) {
                    stamp::emit(*id, sector, place);
                }
            }
            What::Release => hub.history.releases(self.unit, session),
            What::Read { .. } | What::Synchronize { .. } | What::Reserve | What::TestUnitReady => {}
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
        let good = completion.response == ServiceResponse::CommandCompleted && completion.status == GOOD;
        match self.what {
            What::Write { id, fua, .. } if good => hub.history.wrote(id, fua),
            What::Write { id, .. } => hub.history.failed(id, "was refused, or failed"),
            What::Read { first, .. } if good => {
                if completion.moved as usize == buffer.len() {
                    hub.history.judge_read(self.unit, port, first, buffer, asked);
                } else {
                    let what = format!("GOOD for {} of {} bytes", completion.moved, buffer.len());
                    hub.history.violate(Oracle::Data, what);
                }
            }
            What::Synchronize { immediate: false } if good => hub.history.synchronized(self.unit, asked),
            What::Reserve if good => hub.history.reserved(self.unit, (port, session), asked),
            _ => {}
        }
        good
    }
}

const SECTOR_BYTES_32: u32 = 512;
const _: () = assert!(SECTOR_BYTES_32 as usize == SECTOR_BYTES);

const fn with_opcode(opcode: u8) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb
}

/// Where a READ or WRITE goes: mostly few blocks at few places, so that commands meet; now and then many.
fn area(hub: &mut Hub, unit: usize) -> (u64, u64) {
    let character = hub.disks[unit].character;
    let block = character.block_sectors;
    let blocks = character.sectors as u64 / block;
    let count = match hub.random.below(20) {
        0 => 1 + hub.random.below((blocks / 2).min(1_200 / block)),
        1..5 => 1 + hub.random.below(16),
        _ => 1 + hub.random.below(3),
    };
    let count = count.min(blocks);
    let places = if hub.random.chance(3, 4) { (blocks - count + 1).min(12) } else { blocks - count + 1 };
    (hub.random.below(places) * block, count * block)
}
