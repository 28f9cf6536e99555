//! COMPARE AND WRITE (SBC-3 §5.2): what initiators believe to be there is replaced, or nothing is.

use portico_iscsi::initiator::Direction;

use crate::history::{Serial, Step};
use crate::hub::Hub;
use crate::stamp::{Content, SECTOR_BYTES, WriteId};

use super::data::{area, fill};
use super::{Cdb, Ended, What};

/// One COMPARE AND WRITE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compare {
    id: WriteId,
    first: u64,
    sectors: u64,
    fua: bool,
}

/// Of a few blocks.
pub(super) fn draw(hub: &mut Hub, unit: usize) -> What {
    let (first, sectors) = area(hub, unit);
    let sectors = sectors.min(3 * hub.disks[unit].character.block_sectors);
    What::Compare(Compare { id: WriteId::NONE, first, sectors, fua: hub.random.chance(1, 4) })
}

impl Compare {
    pub(super) fn cdb(self, block_sectors: u64) -> Cdb {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (0x89, u8::from(self.fua) << 3);
        bytes[2..10].copy_from_slice(&(self.first / block_sectors).to_be_bytes());
        bytes[13] = u8::try_from(self.sectors / block_sectors).expect("they are few");
        let data_bytes = u32::try_from(2 * self.sectors * 512).expect("they are few");
        Cdb { bytes, direction: Direction::Write, data_bytes }
    }

    pub(super) fn begin(&mut self, hub: &mut Hub, unit: usize, by: (usize, Serial), buffer: &mut [u8]) {
        let (compared, written) = buffer.split_at_mut(buffer.len() / 2);
        fill(compared, self.first, |sector| hub.history.guess(unit, sector));
        self.id = hub.history.begin_write(unit, by, (self.first, self.sectors), Content::Placed);
        fill(written, self.first, |_| self.id);
    }

    pub(super) fn judge(
        self,
        hub: &mut Hub,
        (unit, port): (usize, usize),
        asked: Step,
        end: Ended,
        buffer: &[u8],
    ) {
        let compared = &buffer[..buffer.len() / 2];
        assert!(compared.len().is_multiple_of(SECTOR_BYTES));
        match end {
            Ended::Good => {
                hub.history.judge_read(unit, port, self.first, compared, asked);
                hub.history.judge_exchange(unit, self.first, compared, self.id);
                hub.history.wrote(self.id, self.fua);
                hub.history.tally.exchanges += 1;
            }
            Ended::Miscompare => {
                hub.history.judge_miscompare(unit, self.first, compared, asked);
                hub.history.never_wrote(self.id, "was a miscompare");
                hub.history.tally.miscompares += 1;
            }
            _ => hub.history.failed(self.id, "was refused, or failed"),
        }
    }

    pub(super) const fn id(self) -> WriteId {
        self.id
    }
}
