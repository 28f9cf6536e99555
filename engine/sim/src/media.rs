//! Operations at simulated media: they take their time, land in parts, fall short, fail, or hang.

use std::collections::VecDeque;
use std::ops::Range;

use portico_ring::{Completion, Errno, Payload, Segments};

use crate::hub::{Event, Hub, Work};
use crate::plant::Plant;
use crate::stamp::SECTOR_BYTES;

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

/// A read or a write.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) disk: usize,
    pub(crate) writes: bool,
    pub(crate) durable: bool,
    pub(crate) segments: Segments,
    pub(crate) skip_bytes: usize,
    /// On the disk, of the first byte after those skipped.
    pub(crate) first_sector: u64,
    /// Sectors that are moved at the next stages; counted from `first_sector`.
    stages: VecDeque<Range<u64>>,
    moved: u64,
    fate: Option<i32>,
}

/// A sync.
#[derive(Debug)]
pub(crate) struct Sync {
    disk: usize,
    /// What was written before it began.
    sequence: u64,
    fails: bool,
}

/// A range that becomes zeroes.
#[derive(Debug)]
pub(crate) struct Clear {
    pub(crate) disk: usize,
    /// Sectors that are cleared at the next stages.
    stages: VecDeque<Range<u64>>,
    fate: Option<i32>,
}

impl Clear {
    /// The parts that have not been cleared yet.
    pub(crate) fn take_stages(&mut self) -> VecDeque<Range<u64>> {
        std::mem::take(&mut self.stages)
    }
}

impl Hub {
    /// Begins to make a range zeroes.
    pub(crate) fn begin_clear(
        &mut self,
        shard: usize,
        file: usize,
        tag: u64,
        disk: usize,
        offset_bytes: u64,
        length_bytes: u64,
    ) {
        let sector = SECTOR_BYTES as u64;
        let sectors = offset_bytes / sector..(offset_bytes + length_bytes) / sector;
        let character = self.disks[disk].character;
        assert!(sectors.end <= character.sectors as u64, "beyond the end of the medium");
        sectors.clone().for_each(|sector| self.history.handed(disk, sector, &[0; SECTOR_BYTES]));
        let (mut end, mut fate) = (sectors.end, None);
        if character.trouble_one_in > 0 && self.random.chance(1, character.trouble_one_in) {
            fate = Some([EIO, ENOSPC, EINTR, EOPNOTSUPP][self.random.index(4)]);
            let whole = sectors.end - sectors.start;
            let done = if fate == Some(EOPNOTSUPP) { 0 } else { self.random.below(whole + 1) };
            end = sectors.start + done;
        }
        let cut = if self.random.chance(1, 2) { sectors.start } else { (sectors.start + end) / 2 };
        let stages = [sectors.start..cut, cut..end].into_iter().filter(|part| !part.is_empty()).collect();
        let id = self.start(shard, file, tag, Work::Clear(Clear { disk, stages, fate }));
        self.plan_stage(shard, id);
    }

    /// Begins a read or write of what `segments` hold after the first `skip_bytes`.
    pub(crate) fn begin_transfer(&mut self, shard: usize, file: usize, tag: u64, mut transfer: Transfer) {
        let sectors = (transfer.segments.length_bytes() - transfer.skip_bytes) / SECTOR_BYTES;
        let whole = sectors as u64;
        let end = transfer.first_sector + whole;
        let disk = &self.disks[transfer.disk];
        assert!(end <= disk.character.sectors as u64, "beyond the end of the medium");
        let trouble = disk.character.trouble_one_in;
        let mut moved = whole;
        if trouble > 0 && self.random.chance(1, trouble) {
            match self.random.below(5) {
                0 => transfer.fate = Some(EIO),
                1 if transfer.writes => transfer.fate = Some(ENOSPC),
                2 => (transfer.fate, moved) = (Some(EINTR), 0),
                3 => (transfer.fate, moved) = (Some(EAGAIN), 0),
                _ => moved = 1 + self.random.below(whole),
            }
            if transfer.fate.is_some() && moved > 0 {
                moved = self.random.below(whole + 1);
            }
        }
        if transfer.writes {
            let sector = transfer.first_sector;
            let mut bytes = vec![0; SECTOR_BYTES];
            transfer.copy_out(0, &mut bytes);
            self.history.handed(transfer.disk, sector, &bytes);
        }
        let cut = if moved > 1 && self.random.chance(1, 2) { self.random.below(moved) } else { 0 };
        transfer.stages = [0..cut, cut..moved].into_iter().filter(|part| !part.is_empty()).collect();
        if transfer.writes && self.random.chance(1, 4) {
            // Parts land in any order.
            transfer.stages.make_contiguous().reverse();
        }
        transfer.moved = moved;
        tracing::debug!(
            now = self.now.0,
            shard,
            writes = transfer.writes,
            first = transfer.first_sector,
            moved,
            fate = transfer.fate,
            "begun at the medium"
        );
        let id = self.start(shard, file, tag, Work::Transfer(transfer));
        self.plan_stage(shard, id);
    }

    /// Begins a sync.
    pub(crate) fn begin_sync(&mut self, shard: usize, file: usize, tag: u64, disk: usize) {
        let sequence = self.disks[disk].sequence();
        let trouble = self.disks[disk].character.trouble_one_in;
        let fails = trouble > 0 && self.random.chance(1, trouble * 4);
        let id = self.start(shard, file, tag, Work::Sync(Sync { disk, sequence, fails }));
        self.plan_stage(shard, id);
    }

    fn plan_stage(&mut self, shard: usize, operation: u64) {
        let after = self.delay(self.pace.medium);
        self.plan(after, Event::Stage { shard, operation });
    }

    /// An operation at a medium goes on.
    pub(crate) fn stage(&mut self, shard: usize, id: u64) {
        let Some(mut operation) = self.desks[shard].operations.remove(&id) else { return };
        let disk = match &operation.work {
            Work::Transfer(transfer) => transfer.disk,
            Work::Sync(sync) => sync.disk,
            Work::Clear(clear) => clear.disk,
            other => unreachable!("not at a medium: {other:?}"),
        };
        if self.disks[disk].hangs_until > self.now {
            let at = self.disks[disk].hangs_until;
            self.desks[shard].operations.insert(id, operation);
            return self.plan_at(at, Event::Stage { shard, operation: id });
        }
        if let Work::Transfer(transfer) = &mut operation.work
            && let Some(part) = transfer.stages.pop_front()
        {
            self.move_part(transfer, part);
            self.desks[shard].operations.insert(id, operation);
            return self.plan_stage(shard, id);
        }
        if let Work::Clear(clear) = &mut operation.work
            && let Some(part) = clear.stages.pop_front()
        {
            self.clear_part(clear.disk, part);
            self.desks[shard].operations.insert(id, operation);
            return self.plan_stage(shard, id);
        }
        let (result, payload) = match operation.work {
            Work::Transfer(transfer) => self.end_transfer(transfer),
            Work::Sync(sync) => (self.end_sync(&sync), Payload::None),
            Work::Clear(clear) => (clear.fate.map_or(Ok(0), |errno| Err(Errno(errno))), Payload::None),
            other => unreachable!("not at a medium: {other:?}"),
        };
        self.complete(shard, Completion { tag: operation.tag, result, payload, more: false });
    }

    /// The sectors `part` of a transfer are moved.
    pub(crate) fn move_part(&mut self, transfer: &mut Transfer, part: Range<u64>) {
        let mut bytes = vec![0; SECTOR_BYTES];
        for at in part {
            let sector = transfer.first_sector + at;
            let offset = usize::try_from(at).expect("a transfer is small") * SECTOR_BYTES;
            if transfer.writes {
                transfer.copy_out(offset, &mut bytes);
                tracing::trace!(now = self.now.0, sector, write = ?crate::stamp::parse(sector, &bytes), "lands");
                self.history.landing(transfer.disk, sector, &bytes);
                self.disks[transfer.disk].write(sector, &bytes);
            } else {
                transfer.copy_in(offset, self.disks[transfer.disk].sector(sector));
            }
        }
    }

    /// The sectors `part` become zeroes.
    pub(crate) fn clear_part(&mut self, disk: usize, part: Range<u64>) {
        for sector in part {
            tracing::trace!(now = self.now.0, sector, "is cleared");
            self.history.landing(disk, sector, &[0; SECTOR_BYTES]);
            self.disks[disk].write(sector, &[0; SECTOR_BYTES]);
        }
    }

    fn end_transfer(&mut self, transfer: Transfer) -> (Result<u32, Errno>, Payload) {
        if transfer.durable {
            let sequence = self.disks[transfer.disk].sequence();
            if self.plant == Some(Plant::ReplyBeforeSync) {
                self.plan_late_sync(transfer.disk, sequence);
            } else if transfer.fate == Some(EIO) {
                self.disks[transfer.disk].fail_sync(sequence);
            } else if transfer.fate.is_none() {
                for sector in transfer.first_sector..transfer.first_sector + transfer.moved {
                    self.disks[transfer.disk].sync_sector(sector, sequence);
                }
            }
        }
        let result = match transfer.fate {
            Some(errno) => Err(Errno(errno)),
            None => Ok(u32::try_from(transfer.moved).expect("small") * SECTOR_BYTES_32),
        };
        (result, Payload::Segments(transfer.segments))
    }

    fn end_sync(&mut self, sync: &Sync) -> Result<u32, Errno> {
        if sync.fails {
            self.disks[sync.disk].fail_sync(sync.sequence);
            return Err(Errno(EIO));
        }
        if self.plant == Some(Plant::ReplyBeforeSync) {
            self.plan_late_sync(sync.disk, sync.sequence);
        } else {
            self.disks[sync.disk].sync(sync.sequence);
        }
        Ok(0)
    }

    fn plan_late_sync(&mut self, disk: usize, sequence: u64) {
        let after = self.pace.medium * 4;
        self.plan(after, Event::LateSync { disk, sequence });
    }
}

const SECTOR_BYTES_32: u32 = 512;
const _: () = assert!(SECTOR_BYTES_32 as usize == SECTOR_BYTES);

impl Transfer {
    pub(crate) fn new(
        (disk, offset_bytes): (usize, u64),
        segments: Segments,
        skip_bytes: usize,
        writes: bool,
        durable: bool,
    ) -> Self {
        let offset = offset_bytes + skip_bytes as u64;
        assert!(offset.is_multiple_of(SECTOR_BYTES as u64), "an operation begins at a whole sector");
        assert!(segments.length_bytes().is_multiple_of(SECTOR_BYTES), "an operation has whole sectors");
        Self {
            disk,
            writes,
            durable,
            segments,
            skip_bytes,
            first_sector: offset / SECTOR_BYTES as u64,
            stages: VecDeque::new(),
            moved: 0,
            fate: None,
        }
    }

    /// The parts that have not been moved yet.
    pub(crate) fn take_stages(&mut self) -> VecDeque<Range<u64>> {
        std::mem::take(&mut self.stages)
    }

    /// Bytes of the segments from `offset` on, not counting those skipped.
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let mut skip = self.skip_bytes + offset;
        let mut filled = 0;
        for slice in self.segments.slices() {
            let from = skip.min(slice.len());
            skip -= from;
            let length = (slice.len() - from).min(into.len() - filled);
            into[filled..filled + length].copy_from_slice(&slice[from..from + length]);
            filled += length;
            if filled == into.len() {
                return;
            }
        }
        panic!("the segments are shorter than they said");
    }

    fn copy_in(&mut self, offset: usize, content: &[u8]) {
        let mut skip = self.skip_bytes + offset;
        let mut taken = 0;
        for slice in self.segments.slices_mut() {
            let from = skip.min(slice.len());
            skip -= from;
            let length = (slice.len() - from).min(content.len() - taken);
            slice[from..from + length].copy_from_slice(&content[taken..taken + length]);
            taken += length;
            if taken == content.len() {
                return;
            }
        }
        panic!("the segments are shorter than they said");
    }
}
