//! Opening media for exclusive use. Everything here may block, for long where a disk hangs, so it runs on a helper
//! thread, never on a shard.
//!
//! What is opened is ours alone: a block device by O_EXCL, a file by a lock on its open file description, shared where it
//! is read-only. Where the configuration can see that two names are of one medium it says so before.

mod block;
mod error;
mod holder;
mod regular;
mod system;
mod thin;

pub use block::{BlockOptions, open_block};
pub use error::{OpenError, Warning};
pub use regular::{FileOptions, open_file};

use crate::file::{Caching, FileStore};
use crate::{Backstore, Geometry};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;

/// Least bytes of a logical block.
pub const BLOCK_LENGTH_MIN: u32 = 512;

/// Most bytes of a logical block.
pub const BLOCK_LENGTH_MAX: u32 = 65_536;

/// An open medium.
#[derive(Debug)]
pub struct Opened {
    /// The medium.
    pub store: Arc<FileStore>,
    /// Whether the file was made just now.
    pub created: bool,
    /// What is not as it was asked for.
    pub warnings: Vec<Warning>,
}

/// The medium's size in bytes now, to find out that it was resized. `None` in a simulated world.
///
/// # Errors
/// What the kernel says.
pub fn current_size_bytes(store: &FileStore) -> io::Result<Option<u64>> {
    let Some(file) = store.file() else { return Ok(None) };
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        system::block_device_bytes(file).map(Some)
    } else {
        Ok(Some(metadata.len()))
    }
}

/// What the file system below a regular file has left, or the pool below a thin volume of the device mapper, and what of it is
/// taken by this medium, in bytes; `None` for anything else. May block.
///
/// # Errors
/// What the kernel says.
pub fn pool_bytes(store: &FileStore) -> io::Result<Option<(u64, u64)>> {
    /// What `stat` counts a file's blocks in.
    const STAT_BLOCK_BYTES: u64 = 512;
    let Some(file) = store.file() else { return Ok(None) };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return thin::pool_bytes(metadata.rdev());
    }
    Ok(Some((system::available_bytes(file)?, metadata.blocks() * STAT_BLOCK_BYTES)))
}

/// Another description of the same open file, for one queue: so the kernel tells each queue of a failed sync. The lock or
/// claim stays with the first.
pub(crate) fn reopen(file: &File, geometry: Geometry, caching: Caching) -> io::Result<OwnedFd> {
    let flags = if caching.direct { libc::O_DIRECT } else { 0 };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = OpenOptions::new();
    options.read(true).write(!geometry.read_only).custom_flags(flags);
    options.open(path).map(OwnedFd::from)
}

/// A store of `file`, with descriptions for as many queues.
fn store(file: File, queues: u32, geometry: Geometry, caching: Caching) -> io::Result<Arc<FileStore>> {
    let descriptions: io::Result<Vec<_>> = (0..queues).map(|_| reopen(&file, geometry, caching)).collect();
    let store = FileStore::new(file, descriptions?, geometry, caching);
    debug_assert_eq!(store.geometry(), geometry);
    Ok(store)
}

/// What one write of is kept whole over a loss of power: a database's page.
pub(crate) const UNTORN_BYTES_MAX: u32 = 16 << 10;

/// How many bytes the kernel writes untorn to this file, past the page cache: some whole blocks, 0 where it promises nothing.
/// Disks that say so do, and XFS (Linux 6.16) on any disk.
fn untorn_bytes(file: &File, geometry: &Geometry) -> io::Result<u32> {
    if geometry.read_only {
        return Ok(0);
    }
    let (least, most) = system::untorn_bytes(file)?;
    let bytes = most.min(UNTORN_BYTES_MAX);
    let fits = bytes.is_power_of_two() && bytes >= least && bytes.is_multiple_of(geometry.block_length);
    Ok(if fits { bytes } else { 0 })
}

/// Whether `block_length` can be one.
fn check_block_length(block_length: u32) -> Result<(), OpenError> {
    let fits = (BLOCK_LENGTH_MIN..=BLOCK_LENGTH_MAX).contains(&block_length);
    if fits && block_length.is_power_of_two() { Ok(()) } else { Err(OpenError::BlockLength(block_length)) }
}

/// Whether the disk behind this device number spins. Unknown ones (network, several disks) do not.
fn is_rotational(device: u64) -> bool {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let disk = format!("/sys/dev/block/{major}:{minor}");
    // A partition has no queue of its own, but lies in its disk's folder.
    ["queue/rotational", "../queue/rotational"]
        .into_iter()
        .find_map(|name| fs::read_to_string(format!("{disk}/{name}")).ok())
        .is_some_and(|text| text.trim() == "1")
}
