//! Ledgers on disk: one file for each device, which tells the next process who had reserved what.
//!
//! A file is replaced as a whole or not at all: new file, fsync, rename over the old one, fsync of the folder. A name
//! always stands for the last complete ledger. What was there before stays beside it as `.bak`, for people only:
//! nothing here ever reads it. A file that is damaged in any way is reported and left alone; who may write to a unit
//! is never guessed at.
//!
//! Every call here blocks; control makes them on a helper thread.

mod folder;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use portico_scsi::ledger::{BootId, LEDGER_BYTES_MAX, Ledger, LedgerDamage};

pub use folder::{Folder, SystemFolder};

/// Bytes of a file name, its extension included (Linux's limit).
const FILE_NAME_BYTES_MAX: usize = 255;

const EXTENSION: &str = ".ledger";

/// The kernel's boot id, from the text of `/proc/sys/kernel/random/boot_id`: 32 hexadecimal digits and some dashes.
#[must_use]
pub fn boot_id(text: &str) -> Option<BootId> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// What a device's file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restored {
    /// There is none: nobody ever reserved anything.
    Nothing,
    /// Written since this kernel started: only the process was gone, and all of it still holds.
    SameBoot(Ledger),
    /// Written before this kernel started: this is what persists through loss of power.
    OtherBoot(Ledger),
}

/// Why a ledger could not be read.
#[derive(Debug)]
pub enum LedgerFault {
    /// The file is there and is not what was written.
    Damaged(LedgerDamage),
    /// The file is not there, and its backup is.
    TakenAway,
    /// The system refuses.
    Unreadable(io::Error),
}

impl fmt::Display for LedgerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => write!(f, "{damage}. {REMEDY}"),
            Self::TakenAway => write!(f, "the ledger of reservations is gone. {REMEDY}"),
            Self::Unreadable(error) => write!(f, "the ledger of reservations cannot be read: {error}"),
        }
    }
}

const REMEDY: &str = "Put the `.bak` beside it in its place, or remove both to start without reservations";

impl std::error::Error for LedgerFault {}

/// The ledgers of all devices: in one folder, but for those that the configuration puts elsewhere.
#[derive(Debug, Clone)]
pub struct LedgerStore<F> {
    folder: F,
    boot: BootId,
}

impl<F: Folder> LedgerStore<F> {
    /// The ledgers in `folder`, read under the kernel's `boot`.
    pub fn new(folder: F, boot: BootId) -> Self {
        Self { folder, boot }
    }

    /// What is known of a device, by its name or by the absolute path of its ledger.
    ///
    /// # Errors
    /// If there is a file and it cannot be relied on, or if there is none but a `.bak` says that there was one.
    pub fn read(&self, ledger: &str) -> Result<Restored, LedgerFault> {
        match Elsewhere::of(ledger) {
            None => self.read_named(&Names::of(ledger).map_err(LedgerFault::Unreadable)?),
            Some(Elsewhere { folder, names }) => {
                let folder = self.folder.elsewhere(folder).map_err(LedgerFault::Unreadable)?;
                LedgerStore { folder, boot: self.boot }.read_named(&names)
            }
        }
    }

    fn read_named(&self, names: &Names) -> Result<Restored, LedgerFault> {
        let content = match self.folder.read(&names.ledger, LEDGER_BYTES_MAX) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.absent(names),
            Err(error) => return Err(LedgerFault::Unreadable(error)),
        };
        let (_, written_under) = Ledger::decode(&content).map_err(LedgerFault::Damaged)?;
        let ledger = Ledger::restore(&content, self.boot).map_err(LedgerFault::Damaged)?;
        Ok(if written_under == self.boot { Restored::SameBoot(ledger) } else { Restored::OtherBoot(ledger) })
    }

    /// No step of [`LedgerStore::write`] leaves a `.bak` without a ledger: somebody took it away.
    fn absent(&self, names: &Names) -> Result<Restored, LedgerFault> {
        match self.folder.exists(&names.backup) {
            Ok(false) => Ok(Restored::Nothing),
            Ok(true) => Err(LedgerFault::TakenAway),
            Err(error) => Err(LedgerFault::Unreadable(error)),
        }
    }

    /// Replaces a ledger, named as for [`LedgerStore::read`], by `content`, which is [`Ledger::encode`]'s. When it returns, power may fail.
    ///
    /// # Errors
    /// What the system says. The old ledger or the new one is then in the file: write again before you rely on
    /// either.
    pub fn write(&self, ledger: &str, content: &[u8]) -> io::Result<()> {
        match Elsewhere::of(ledger) {
            None => self.write_named(&Names::of(ledger)?, content),
            Some(Elsewhere { folder, names }) => {
                let folder = self.folder.elsewhere(folder)?;
                LedgerStore { folder, boot: self.boot }.write_named(&names, content)
            }
        }
    }

    fn write_named(&self, names: &Names, content: &[u8]) -> io::Result<()> {
        self.folder.create(&names.fresh, content)?;
        self.folder.sync_file(&names.fresh)?;
        self.folder.remove(&names.backup)?;
        // The backup is a courtesy: a first ledger has no predecessor, and some file systems have no links.
        let _ = self.folder.link(&names.ledger, &names.backup);
        self.folder.rename(&names.fresh, &names.ledger)?;
        self.folder.sync_names()
    }
}

/// A ledger that the configuration gives a path of its own.
struct Elsewhere<'a> {
    folder: &'a str,
    names: Names,
}

impl<'a> Elsewhere<'a> {
    /// `None` for the name of a device, which does not begin with a `/`.
    fn of(ledger: &'a str) -> Option<Self> {
        let (folder, file) = ledger.rsplit_once('/').filter(|_| ledger.starts_with('/'))?;
        let names =
            Names { ledger: file.to_owned(), fresh: format!("{file}.new"), backup: format!("{file}.bak") };
        Some(Self { folder: if folder.is_empty() { "/" } else { folder }, names })
    }
}

/// The three names that a device's ledger has in its folder.
struct Names {
    ledger: String,
    fresh: String,
    backup: String,
}

impl Names {
    fn of(device: &str) -> io::Result<Self> {
        let stem = file_stem(device);
        let names = Self {
            ledger: format!("{stem}{EXTENSION}"),
            fresh: format!("{stem}{EXTENSION}.new"),
            backup: format!("{stem}{EXTENSION}.bak"),
        };
        if device.is_empty() || names.fresh.len() > FILE_NAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the device's name makes no file name"));
        }
        Ok(names)
    }
}

/// A device's name as a file name: what might mean something to a file system is `%` and two hex digits.
fn file_stem(device: &str) -> String {
    use fmt::Write;
    let mut stem = String::with_capacity(device.len());
    for (at, byte) in device.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0);
        if plain {
            stem.push(char::from(byte));
        } else {
            write!(stem, "%{byte:02x}").expect("a string takes everything");
        }
    }
    stem
}
