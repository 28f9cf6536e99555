//! The bytes of a ledger: what is written before anybody hears GOOD, and what of it holds in the next process.

use std::collections::BTreeMap;
use std::fmt;

use super::persistent::{Held, Persistent};
use super::{Ledger, NexusName, PORT_NAME_BYTES_MAX, REGISTRANTS_MAX};
use crate::bits::{be, be16, be32};
use crate::persistent::PersistentType;
use crate::unit::{ModeValues, QueueError, SavedModes, WriteCache};
use crate::work::{Unfinished, WorkKind};

/// Tells one run of the kernel from another: under the same id, the ledger is restored whole.
pub type BootId = [u8; 16];

/// Why kept bytes are no ledger. None of these is ever guessed at: the unit stays not ready until a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerDamage {
    /// Shorter than it says or than it can be.
    Truncated {
        /// Bytes that are there.
        bytes: usize,
    },
    /// Something else than a ledger.
    NotALedger,
    /// Written by a version that this one does not know.
    Version(u16),
    /// Something changed since it was written.
    Checksum {
        /// What the bytes say.
        stored: u32,
        /// What they come to.
        computed: u32,
    },
    /// The checksum is right and what it covers is not: a bug wrote it.
    Malformed {
        /// Index of the byte at which it stops making sense.
        at: usize,
    },
}

impl fmt::Display for LedgerDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { bytes } => write!(f, "the ledger breaks off after {bytes} bytes"),
            Self::NotALedger => write!(f, "this is not a ledger of reservations"),
            Self::Version(version) => {
                write!(f, "the ledger is of version {version}, and {VERSION} is what is known here")
            }
            Self::Checksum { stored, computed } => {
                write!(f, "the ledger's checksum is {stored:#010x}, its bytes come to {computed:#010x}")
            }
            Self::Malformed { at } => write!(f, "the ledger makes no sense at byte {at}"),
        }
    }
}

impl std::error::Error for LedgerDamage {}

const MAGIC: [u8; 8] = *b"pLedger\n";
const VERSION: u16 = 4;
/// It did not say what work was begun; all else is the same.
const VERSION_WITHOUT_WORK: u16 = 3;
/// It had no saved mode values either.
const VERSION_WITHOUT_MODES: u16 = 2;
/// It had no registrations either.
const VERSION_WITHOUT_REGISTRATIONS: u16 = 1;
/// Magic, version, boot id.
pub(super) const HEADER_BYTES: usize = 8 + 2 + 16;
const CHECKSUM_BYTES: usize = 4;
const NEXUS_BYTES_MAX: usize = 2 * (2 + PORT_NAME_BYTES_MAX);
/// PRGENERATION, flags, TYPE, holder, number of registrants.
const PERSISTENT_BYTES: usize = 4 + 1 + 1 + 2 + 2;
/// Longest encoding.
pub const LEDGER_BYTES_MAX: usize = HEADER_BYTES
    + 1
    + NEXUS_BYTES_MAX
    + PERSISTENT_BYTES
    + REGISTRANTS_MAX * (8 + NEXUS_BYTES_MAX)
    + MODES_BYTES_MAX
    + 1
    + CHECKSUM_BYTES;

const TAG_NONE: u8 = 0;
const TAG_RESERVE: u8 = 1;

/// A tag; the values and the configured write cache, where any are saved.
const MODES_BYTES_MAX: usize = 1 + 2;
const TAG_SAVED_MODES: u8 = 1;
/// What work is unfinished; the place in this list, from one on.
const WORKS: [Unfinished; 3] = [
    Unfinished { kind: WorkKind::Sanitize, unrestricted: false },
    Unfinished { kind: WorkKind::Sanitize, unrestricted: true },
    Unfinished { kind: WorkKind::Format, unrestricted: false },
];
pub(super) const CACHES: [WriteCache; 3] =
    [WriteCache::WriteBack, WriteCache::WriteThrough, WriteCache::NonVolatile];
const CACHE_MASK: u8 = 0x03;
const DESCRIPTOR_SENSE: u8 = 0x04;
const SOFTWARE_WRITE_PROTECT: u8 = 0x08;
/// QERR and TAS. Gateways that do not know them find a ledger that has one malformed, and are right.
const QUEUE_ERROR_AT: u8 = 4;
const QUEUE_ERROR: u8 = 0b11 << QUEUE_ERROR_AT;
const TASK_ABORTED_STATUS: u8 = 0x40;

const PERSISTS: u8 = 0x01;
/// TYPE where nothing is held.
const NOT_HELD: u8 = 0;
/// Holder where there is none, or where all registrants are.
const NO_HOLDER: u16 = u16::MAX;

impl Ledger {
    /// The bytes to keep: magic, version, the boot id under which this was written, the holder of a RESERVE, registrations
    /// and the persistent reservation, saved mode values, unfinished
    /// work, CRC32C of all that.
    pub fn encode(&self, boot: BootId) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(boot);
        match &self.reserved_by {
            None => bytes.push(TAG_NONE),
            Some(holder) => {
                bytes.push(TAG_RESERVE);
                encode_nexus(holder, &mut bytes);
            }
        }
        encode_persistent(&self.persistent, &mut bytes);
        match &self.saved_modes {
            None => bytes.push(TAG_NONE),
            Some(SavedModes { values, configured }) => {
                bytes.extend([TAG_SAVED_MODES, encode_values(values), cache_code(*configured)]);
            }
        }
        let work = self.unfinished.map(|work| WORKS.iter().position(|known| *known == work));
        let work = work.map_or(0, |place| 1 + place.expect("formats have no AUSE"));
        bytes.push(u8::try_from(work).expect("a short list"));
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        assert!(bytes.len() <= LEDGER_BYTES_MAX, "a ledger of {} bytes", bytes.len());
        bytes
    }

    /// The ledger in `bytes`, with nobody attached, and the boot id under which it was written.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<(Self, BootId), LedgerDamage> {
        let truncated = LedgerDamage::Truncated { bytes: bytes.len() };
        let magic = bytes.get(..MAGIC.len()).ok_or(truncated)?;
        if magic != MAGIC {
            return Err(LedgerDamage::NotALedger);
        }
        let body_end =
            bytes.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end >= HEADER_BYTES).ok_or(truncated)?;
        // The version comes before the checksum: a later one may be checked in another way.
        let version = u16::from_be_bytes([bytes[8], bytes[9]]);
        if !(VERSION_WITHOUT_REGISTRATIONS..=VERSION).contains(&version) {
            return Err(LedgerDamage::Version(version));
        }
        let (body, stored) = bytes.split_at(body_end);
        let stored = u32::from_be_bytes(stored.try_into().expect("four bytes"));
        let computed = crc32c::crc32c(body);
        if stored != computed {
            return Err(LedgerDamage::Checksum { stored, computed });
        }
        let boot = body[10..HEADER_BYTES].try_into().expect("sixteen bytes");
        let mut rest = Rest { body, at: HEADER_BYTES };
        let reserved_by = rest.reservation()?;
        let persistent =
            if version >= VERSION_WITHOUT_MODES { rest.persistent()? } else { Persistent::default() };
        let saved_modes = if version >= VERSION_WITHOUT_WORK { rest.saved_modes()? } else { None };
        let unfinished = if version == VERSION { rest.unfinished()? } else { None };
        match rest.at == body.len() {
            true => Ok((Self { reserved_by, persistent, saved_modes, unfinished, ..Self::new() }, boot)),
            false => Err(LedgerDamage::Malformed { at: rest.at }),
        }
    }

    /// What of a kept ledger holds under `boot`: all of it in the same run of the kernel. After a reboot a RESERVE is gone
    /// (SPC-2 §5.5.1), and so are registrations but with APTPL; PRGENERATION begins anew (SPC-4 §5.13.5, §6.15.2). Saved mode
    /// values stay, and so does work that was not ended.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn restore(bytes: &[u8], boot: BootId) -> Result<Self, LedgerDamage> {
        let (ledger, written_under) = Self::decode(bytes)?;
        let (saved_modes, unfinished) = (ledger.saved_modes, ledger.unfinished);
        let rebooted = Self { saved_modes, unfinished, ..Self::new() };
        Ok(match (written_under == boot, ledger.persistent.persists) {
            (true, _) => ledger,
            (false, true) => {
                Self { persistent: Persistent { generation: 0, ..ledger.persistent }, ..rebooted }
            }
            (false, false) => rebooted,
        })
    }
}

fn encode_nexus(nexus: &NexusName, bytes: &mut Vec<u8>) {
    for name in [&nexus.initiator_port, &nexus.target_port] {
        let length = u16::try_from(name.len()).expect("bounded by PORT_NAME_BYTES_MAX");
        bytes.extend(length.to_be_bytes());
        bytes.extend(name.as_bytes());
    }
}

fn encode_persistent(persistent: &Persistent, bytes: &mut Vec<u8>) {
    let Persistent { generation, registrants, held, persists } = persistent;
    let place = |holder: &NexusName| registrants.keys().position(|name| name == holder);
    let holder = held.as_ref().and_then(|held| held.holder.as_ref());
    let holder = holder.map(|holder| place(holder).expect("a holder is registered"));
    bytes.extend(generation.to_be_bytes());
    bytes.push(if *persists { PERSISTS } else { 0 });
    bytes.push(held.as_ref().map_or(NOT_HELD, |held| held.kind.code()));
    let holder = holder.map_or(NO_HOLDER, |at| u16::try_from(at).expect("bounded by REGISTRANTS_MAX"));
    bytes.extend(holder.to_be_bytes());
    let count = u16::try_from(registrants.len()).expect("bounded by REGISTRANTS_MAX");
    bytes.extend(count.to_be_bytes());
    for (name, key) in registrants {
        bytes.extend(key.to_be_bytes());
        encode_nexus(name, bytes);
    }
}

fn cache_code(cache: WriteCache) -> u8 {
    match cache {
        WriteCache::WriteBack => 0,
        WriteCache::WriteThrough => 1,
        WriteCache::NonVolatile => 2,
    }
}

fn encode_values(values: &ModeValues) -> u8 {
    let descriptor_sense = if values.descriptor_sense { DESCRIPTOR_SENSE } else { 0 };
    let protect = if values.software_write_protect { SOFTWARE_WRITE_PROTECT } else { 0 };
    let status = if values.task_aborted_status { TASK_ABORTED_STATUS } else { 0 };
    let queue_error = values.queue_error.code() << QUEUE_ERROR_AT;
    cache_code(values.write_cache) | descriptor_sense | protect | queue_error | status
}

/// What of the bytes has not been read.
struct Rest<'a> {
    body: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], LedgerDamage> {
        let malformed = LedgerDamage::Malformed { at: self.at };
        let taken = self.body.get(self.at..self.at + length).ok_or(malformed)?;
        self.at += length;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, LedgerDamage> {
        Ok(be::<N>(self.take(N)?, 0))
    }

    fn reservation(&mut self) -> Result<Option<NexusName>, LedgerDamage> {
        let malformed = LedgerDamage::Malformed { at: self.at };
        match self.take(1)?[0] {
            TAG_NONE => Ok(None),
            TAG_RESERVE => Ok(Some(self.nexus()?)),
            _ => Err(malformed),
        }
    }

    fn nexus(&mut self) -> Result<NexusName, LedgerDamage> {
        let initiator_port = self.name()?;
        let target_port = self.name()?;
        Ok(NexusName { initiator_port, target_port })
    }

    fn name(&mut self) -> Result<String, LedgerDamage> {
        let malformed = LedgerDamage::Malformed { at: self.at };
        let length = usize::from(be16(self.take(2)?, 0));
        if length > PORT_NAME_BYTES_MAX {
            return Err(malformed);
        }
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| malformed)
    }

    fn persistent(&mut self) -> Result<Persistent, LedgerDamage> {
        let malformed = LedgerDamage::Malformed { at: self.at };
        let generation = be32(self.take(4)?, 0);
        let flags = self.take(1)?[0];
        let kind = self.take(1)?[0];
        let holder = be16(self.take(2)?, 0);
        let count = usize::from(be16(self.take(2)?, 0));
        let mut registrants = BTreeMap::new();
        for _ in 0..count {
            let key = self.number::<8>()?;
            let name = self.nexus()?;
            if key == 0 || registrants.insert(name, key).is_some() {
                return Err(malformed);
            }
        }
        let holder = registrants.keys().nth(usize::from(holder)).cloned();
        let held = match (PersistentType::from_code(kind), holder) {
            (None, None) if kind == NOT_HELD => None,
            (Some(kind), holder) if kind.all_registrants() == holder.is_none() && count > 0 => {
                Some(Held { kind, holder })
            }
            _ => return Err(malformed),
        };
        if count > REGISTRANTS_MAX || flags & !PERSISTS != 0 {
            return Err(malformed);
        }
        Ok(Persistent { generation, registrants, held, persists: flags & PERSISTS != 0 })
    }
    fn unfinished(&mut self) -> Result<Option<Unfinished>, LedgerDamage> {
        let malformed = LedgerDamage::Malformed { at: self.at };
        match self.take(1)?[0] {
            0 => Ok(None),
            place => WORKS.get(usize::from(place) - 1).copied().map(Some).ok_or(malformed),
        }
    }

    fn saved_modes(&mut self) -> Result<Option<SavedModes>, LedgerDamage> {
        let malformed = LedgerDamage::Malformed { at: self.at };
        match self.take(1)?[0] {
            TAG_NONE => return Ok(None),
            TAG_SAVED_MODES => {}
            _ => return Err(malformed),
        }
        let [values, configured] = *self.take(2)? else { unreachable!("two were taken") };
        let cache = |code: u8| CACHES.get(usize::from(code)).copied().ok_or(malformed);
        const KNOWN: u8 =
            CACHE_MASK | DESCRIPTOR_SENSE | SOFTWARE_WRITE_PROTECT | QUEUE_ERROR | TASK_ABORTED_STATUS;
        if values & !KNOWN != 0 {
            return Err(malformed);
        }
        let values = ModeValues {
            descriptor_sense: values & DESCRIPTOR_SENSE != 0,
            software_write_protect: values & SOFTWARE_WRITE_PROTECT != 0,
            queue_error: QueueError::from_code((values & QUEUE_ERROR) >> QUEUE_ERROR_AT).ok_or(malformed)?,
            task_aborted_status: values & TASK_ABORTED_STATUS != 0,
            write_cache: cache(values & CACHE_MASK)?,
        };
        Ok(Some(SavedModes { values, configured: cache(configured)? }))
    }
}
