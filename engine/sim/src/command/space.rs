//! UNMAP and WRITE SAME (SBC-3 §5.35, §5.45): commands that leave zeroes, or the same everywhere.

use portico_iscsi::initiator::Direction;

use crate::history::Serial;
use crate::hub::Hub;
use crate::stamp::{self, Content, WriteId};

use super::data::area;
use super::{Cdb, What};

/// A parameter list with one descriptor.
const UNMAP_BYTES: u8 = 8 + 16;

/// One of these commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(super) id: WriteId,
    way: Way,
    first: u64,
    sectors: u64,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Unmap,
    Same { content: Content, unmap: bool },
}

/// UNMAP, where the unit is thin.
pub(super) fn unmap(hub: &mut Hub, unit: usize) -> Option<What> {
    let (first, sectors) = area(hub, unit);
    let fill = Fill { id: WriteId::NONE, way: Way::Unmap, first, sectors };
    hub.disks[unit].character.thin.then_some(What::Fill(fill))
}

pub(super) fn write_same(hub: &mut Hub, unit: usize) -> What {
    let (first, sectors) = area(hub, unit);
    let content = if hub.random.chance(1, 2) { Content::Zeroes } else { Content::Repeated };
    let unmap = hub.disks[unit].character.thin && hub.random.chance(1, 2);
    What::Fill(Fill { id: WriteId::NONE, way: Way::Same { content, unmap }, first, sectors })
}

impl Fill {
    pub(super) fn cdb(self, block_sectors: u64) -> Cdb {
        match self.way {
            Way::Unmap => Cdb {
                direction: Direction::Write,
                data_bytes: UNMAP_BYTES.into(),
                ..Cdb::without_data([0x42, 0, 0, 0, 0, 0, 0, 0, UNMAP_BYTES, 0])
            },
            Way::Same { unmap, .. } => {
                let (lba, blocks) = self.blocks(block_sectors);
                let mut bytes = [0; 10];
                (bytes[0], bytes[1]) = (0x41, u8::from(unmap) << 3);
                bytes[2..6].copy_from_slice(&lba.to_be_bytes());
                let blocks = u16::try_from(blocks).expect("a command is small");
                bytes[7..9].copy_from_slice(&blocks.to_be_bytes());
                let data_bytes = u32::try_from(block_sectors * 512).expect("a block is small");
                Cdb { direction: Direction::Write, data_bytes, ..Cdb::without_data(bytes) }
            }
        }
    }

    fn blocks(self, block_sectors: u64) -> (u32, u32) {
        let small =
            |sectors: u64| u32::try_from(sectors / block_sectors).expect("a simulated medium is small");
        (small(self.first), small(self.sectors))
    }

    pub(super) fn begin(
        &mut self,
        hub: &mut Hub,
        unit: usize,
        by: (usize, Serial),
        block_sectors: u64,
        buffer: &mut [u8],
    ) {
        let content = match self.way {
            Way::Unmap => Content::Zeroes,
            Way::Same { content, .. } => content,
        };
        self.id = hub.history.begin_write(unit, by, (self.first, self.sectors), content);
        if let Way::Same { .. } = self.way {
            for place in buffer.chunks_exact_mut(stamp::SECTOR_BYTES) {
                stamp::emit(self.id, 0, place);
            }
            return;
        }
        let (lba, blocks) = self.blocks(block_sectors);
        (buffer[1], buffer[3]) = (UNMAP_BYTES - 2, UNMAP_BYTES - 8);
        buffer[8..16].copy_from_slice(&u64::from(lba).to_be_bytes());
        buffer[16..20].copy_from_slice(&blocks.to_be_bytes());
    }
}
