//! The log of dm-log-writes, and the medium as a power cut leaves it.
//!
//! The device-mapper target writes down every write, flush and discard of a device, and marks between them (the
//! kernel's Documentation/admin-guide/device-mapper/log-writes.rst). The replay is strict: a write without FUA lies in
//! the medium's volatile cache until a FLUSH comes after it, and at the cut the whole cache is lost.

use crate::lab::{Failure, Result};

/// A log, read as a whole.
pub(crate) struct Log {
    bytes: Vec<u8>,
    /// How many entries it holds.
    entries: u64,
    sector_bytes: usize,
}

impl Log {
    /// Reads the superblock; `Err` if this is no log, or one of another version.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Log> {
        let superblock = (field(&bytes, 0)?, field(&bytes, 8)?);
        if superblock != (MAGIC, VERSION) {
            return Err(Failure::new(format!("not a log of dm-log-writes: {superblock:x?}")));
        }
        let entries = field(&bytes, 16)?;
        let sector_bytes = usize::try_from(field(&bytes, 24)? & u64::from(u32::MAX)).unwrap_or(0);
        if sector_bytes < ENTRY_BYTES {
            return Err(Failure::new(format!("a log with sectors of {sector_bytes} bytes")));
        }
        Ok(Log { bytes, entries, sector_bytes })
    }

    /// Replays all of it onto an empty medium, and stops at each numbered mark for `at_mark` to look at the medium.
    pub(crate) fn replay(
        &self,
        medium_bytes: usize,
        mut at_mark: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut medium = Medium::empty(medium_bytes);
        let mut position = self.sector_bytes;
        for _ in 0..self.entries {
            let entry = Entry::parse(&self.bytes, position)?;
            position += self.sector_bytes;
            if entry.flags & MARK != 0 {
                if let Some(number) = self.mark(position - self.sector_bytes, &entry)? {
                    at_mark(number, &medium.durable)?;
                }
                continue;
            }
            let length = entry.sectors.saturating_mul(self.sector_bytes);
            let offset = entry.sector.saturating_mul(self.sector_bytes);
            let data = if entry.flags & DISCARD != 0 {
                Data::Zeros
            } else {
                let from = position;
                position = position.saturating_add(length);
                Data::Logged(slice(&self.bytes, from, length)?)
            };
            medium.take(entry.flags, Write { offset, length, data })?;
        }
        Ok(())
    }

    /// The number that a mark carries; `None` for the one that the kernel sets at the end.
    fn mark(&self, position: usize, entry: &Entry) -> Result<Option<u64>> {
        if entry.data_bytes > self.sector_bytes - ENTRY_BYTES {
            return Err(Failure::new(format!("a mark of {} bytes", entry.data_bytes)));
        }
        let text = String::from_utf8_lossy(slice(&self.bytes, position + ENTRY_BYTES, entry.data_bytes)?);
        if text == LAST_MARK {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| Failure::new(format!("a mark {text:?}")))
    }
}

/// What stands before each write's data.
struct Entry {
    sector: usize,
    sectors: usize,
    flags: u64,
    data_bytes: usize,
}

impl Entry {
    fn parse(bytes: &[u8], position: usize) -> Result<Entry> {
        let number = |offset| {
            let value = field(bytes, position + offset)?;
            usize::try_from(value)
                .map_err(|_| Failure::new(format!("{value} in the log's entry at {position}")))
        };
        Ok(Entry {
            sector: number(0)?,
            sectors: number(8)?,
            flags: field(bytes, position + 16)?,
            data_bytes: number(24)?,
        })
    }
}

#[derive(Clone, Copy)]
struct Write<'a> {
    offset: usize,
    length: usize,
    data: Data<'a>,
}

#[derive(Clone, Copy)]
enum Data<'a> {
    Logged(&'a [u8]),
    Zeros,
}

/// A medium with a volatile cache.
struct Medium<'a> {
    durable: Vec<u8>,
    cached: Vec<Write<'a>>,
}

impl<'a> Medium<'a> {
    fn empty(bytes: usize) -> Medium<'a> {
        Medium { durable: vec![0; bytes], cached: Vec::new() }
    }

    /// A flush is of what came before it: the data of the same entry is durable by FUA only.
    fn take(&mut self, flags: u64, write: Write<'a>) -> Result<()> {
        if flags & FLUSH != 0 {
            for cached in std::mem::take(&mut self.cached) {
                self.write(cached)?;
            }
        }
        if flags & FUA != 0 {
            self.write(write)?;
        }
        if write.length > 0 {
            // Also with FUA: an older write of the same place must not come over it at the next flush.
            self.cached.push(write);
        }
        Ok(())
    }

    fn write(&mut self, write: Write<'_>) -> Result<()> {
        let end = write.offset.saturating_add(write.length);
        let size = self.durable.len();
        let place = self
            .durable
            .get_mut(write.offset..end)
            .ok_or_else(|| Failure::new(format!("a write up to {end} on a medium of {size} bytes")))?;
        match write.data {
            Data::Logged(data) => place.copy_from_slice(data),
            Data::Zeros => place.fill(0),
        }
        Ok(())
    }
}

fn slice(bytes: &[u8], from: usize, length: usize) -> Result<&[u8]> {
    bytes
        .get(from..from.saturating_add(length))
        .ok_or_else(|| Failure::new(format!("the log ends before {length} bytes at {from}")))
}

/// A number of 64 bits, little endian as all of the format.
fn field(bytes: &[u8], position: usize) -> Result<u64> {
    let bytes = slice(bytes, position, 8)?.try_into().expect("a slice of 8 bytes");
    Ok(u64::from_le_bytes(bytes))
}

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const ENTRY_BYTES: usize = 32;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
const LAST_MARK: &str = "dm-log-writes-end";

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;

    /// A log under construction.
    struct Draft {
        bytes: Vec<u8>,
        entries: u64,
    }

    impl Draft {
        fn new() -> Draft {
            Draft { bytes: vec![0; SECTOR], entries: 0 }
        }

        fn entry(mut self, sector: u64, sectors: u64, flags: u64, mark: &str, data: &[u8]) -> Draft {
            let start = self.bytes.len();
            for value in [sector, sectors, flags, u64::try_from(mark.len()).unwrap()] {
                self.bytes.extend(value.to_le_bytes());
            }
            self.bytes.extend(mark.bytes());
            self.bytes.resize(start + SECTOR, 0);
            self.bytes.extend(data);
            self.entries += 1;
            self
        }

        fn write(self, sector: u64, flags: u64, filler: u8) -> Draft {
            self.entry(sector, 1, flags, "", &[filler; SECTOR])
        }

        fn flush(self) -> Draft {
            self.entry(0, 0, FLUSH, "", &[])
        }

        fn mark(self, text: &str) -> Draft {
            self.entry(0, 0, MARK, text, &[])
        }

        fn log(mut self) -> Log {
            self.bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
            self.bytes[8..16].copy_from_slice(&VERSION.to_le_bytes());
            self.bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
            self.bytes[24..28].copy_from_slice(&512_u32.to_le_bytes());
            Log::parse(self.bytes).unwrap()
        }

        /// The first byte of each of the medium's four sectors, at each mark.
        fn seen(self) -> Vec<(u64, [u8; 4])> {
            let mut seen = Vec::new();
            self.log()
                .replay(4 * SECTOR, |number, medium| {
                    seen.push((number, [0, 1, 2, 3].map(|sector| medium[sector * SECTOR])));
                    Ok(())
                })
                .unwrap();
            seen
        }
    }

    #[test]
    fn a_write_is_lost_at_a_mark_before_its_flush_and_there_after_it() {
        let draft = Draft::new().write(1, 0, 7).mark("1").flush().mark("2");
        assert_eq!(draft.seen(), [(1, [0, 0, 0, 0]), (2, [0, 7, 0, 0])]);
    }

    #[test]
    fn a_write_with_fua_is_there_at_once_and_takes_no_other_along() {
        let draft = Draft::new().write(0, 0, 5).write(2, FUA, 6).mark("1");
        assert_eq!(draft.seen(), [(1, [0, 0, 6, 0])]);
    }

    #[test]
    fn a_flush_that_carries_data_is_of_what_came_before() {
        let draft =
            Draft::new().write(0, 0, 5).write(1, FLUSH, 6).mark("1").write(2, FLUSH | FUA, 7).mark("2");
        assert_eq!(draft.seen(), [(1, [5, 0, 0, 0]), (2, [5, 6, 7, 0])]);
    }

    #[test]
    fn an_older_write_does_not_come_over_a_newer_one_with_fua() {
        let draft = Draft::new().write(3, 0, 1).write(3, FUA, 2).flush().mark("1");
        assert_eq!(draft.seen(), [(1, [0, 0, 0, 2])]);
    }

    #[test]
    fn a_discard_has_no_data_behind_it_and_leaves_zeros() {
        let draft = Draft::new().write(0, FUA, 1).entry(0, 2, DISCARD, "", &[]).flush().mark("1");
        assert_eq!(draft.seen(), [(1, [0, 0, 0, 0])]);
    }

    #[test]
    fn the_kernels_own_last_mark_is_no_numbered_one() {
        assert_eq!(Draft::new().mark("3").mark(LAST_MARK).seen(), [(3, [0; 4])]);
    }

    #[test]
    fn what_is_no_log_or_ends_too_early_or_writes_beyond_the_medium_is_refused() {
        assert!(Log::parse(vec![0; SECTOR]).is_err());
        assert!(Log::parse(vec![0; 3]).is_err());
        let mut short = Draft::new().write(0, FUA, 1).log();
        short.bytes.truncate(2 * SECTOR + 100);
        assert!(short.replay(SECTOR, |_, _| Ok(())).is_err());
        assert!(Draft::new().write(4, FUA, 1).log().replay(4 * SECTOR, |_, _| Ok(())).is_err());
    }
}
