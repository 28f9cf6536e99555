//! READ, WRITE, VERIFY: where they go, what they carry, what they may bring.

use portico_iscsi::initiator::Direction;

use crate::history::{Oracle, Step};
use crate::hub::Hub;
use crate::stamp::{self, SECTOR_BYTES, WriteId};

use super::{Cdb, Ended, What, Wish};

const SECTOR_BYTES_32: u32 = 512;
const _: () = assert!(SECTOR_BYTES_32 as usize == SECTOR_BYTES);

/// A WRITE; of four, so many have FUA.
pub(super) fn write(hub: &mut Hub, unit: usize, fua_of_four: u64) -> What {
    let (first, sectors) = area(hub, unit);
    What::Write { id: WriteId::NONE, first, sectors, fua: hub.random.chance(fua_of_four, 4) }
}

pub(super) fn read(hub: &mut Hub, unit: usize) -> What {
    let (first, sectors) = area(hub, unit);
    What::Read { first, sectors }
}

pub(super) fn verify(hub: &mut Hub, unit: usize) -> What {
    let (first, sectors) = area(hub, unit);
    What::Verify { first, sectors, compares: hub.random.chance(3, 4) }
}

/// Where a command goes: mostly few blocks at few places, so that commands meet; now and then many.
pub(super) fn area(hub: &mut Hub, unit: usize) -> (u64, u64) {
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

impl Wish {
    /// A CDB of ten bytes with LBA and length. The length counts data where there are some.
    pub(super) fn transfer(
        &self,
        opcode: u8,
        flags: u8,
        (first, sectors): (u64, u64),
        direction: Direction,
    ) -> Cdb {
        let lba = u32::try_from(first / self.block_sectors).expect("a simulated medium is small");
        let blocks = u16::try_from(sectors / self.block_sectors).expect("a command is small");
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (opcode, flags);
        bytes[2..6].copy_from_slice(&lba.to_be_bytes());
        bytes[7..9].copy_from_slice(&blocks.to_be_bytes());
        let data_bytes = match direction {
            Direction::None => 0,
            _ => u32::try_from(sectors).expect("a command is small") * SECTOR_BYTES_32,
        };
        Cdb { bytes, direction, data_bytes }
    }
}

/// Fills sectors from `first` on with what `content` names.
pub(super) fn fill(buffer: &mut [u8], first: u64, content: impl Fn(u64) -> WriteId) {
    for (sector, place) in (first..).zip(buffer.chunks_exact_mut(SECTOR_BYTES)) {
        stamp::emit(content(sector), sector, place);
    }
}

/// GOOD for a READ.
pub(super) fn judge_read(
    hub: &mut Hub,
    (unit, port): (usize, usize),
    first: u64,
    asked: Step,
    moved: u32,
    buffer: &[u8],
) {
    if moved as usize == buffer.len() {
        hub.history.judge_read(unit, port, first, buffer, asked);
    } else {
        let what = format!("GOOD for {moved} of {} bytes", buffer.len());
        hub.history.violate(Oracle::Data, what);
    }
}

/// The end of a VERIFY, which has compared the medium with `compared` or only read it.
pub(super) fn judge_verify(
    hub: &mut Hub,
    (unit, port): (usize, usize),
    first: u64,
    asked: Step,
    end: Ended,
    compared: Option<&[u8]>,
) {
    match (end, compared) {
        // As if it had brought them.
        (Ended::Good, Some(data)) => hub.history.judge_read(unit, port, first, data, asked),
        (Ended::Good, None) => hub.history.judge_access(unit, port, asked),
        (Ended::Miscompare, Some(data)) => {
            hub.history.judge_miscompare(unit, first, data, asked);
            hub.history.judge_access(unit, port, asked);
        }
        (Ended::Miscompare, None) => {
            hub.history.violate(Oracle::Data, "a miscompare where nothing was compared".to_owned());
        }
        _ => return,
    }
    hub.history.tally.verifies += 1;
}
