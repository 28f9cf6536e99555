//! Opening a block device: `HANDLER vdisk_blockio`. Always past the page cache.

use super::error::OpenError;
use super::{Opened, check_block_length, holder, is_rotational, store, system, untorn_bytes};
use crate::Geometry;
use crate::file::{Caching, DEPTH_DEFAULT, PUNTED_DEFAULT};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// How a block device is to be opened.
#[derive(Clone, Debug)]
pub struct BlockOptions {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that are served, from the first on; `None` serves all there are.
    pub size_bytes: Option<u64>,
    /// Bytes of a logical block; `None` takes the device's own.
    pub block_length: Option<u32>,
    /// Writes are refused.
    pub read_only: bool,
    /// Every write is durable before it completes.
    pub write_through: bool,
    /// Nothing is synced: the device's cache survives a power cut.
    pub nv_cache: bool,
    /// Shards that will open a queue.
    pub queues: u32,
    /// Requests in flight per queue.
    pub depth: u32,
    /// Flushes in flight per queue.
    pub punted_max: u32,
}

impl BlockOptions {
    /// `path`, in its own blocks.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            size_bytes: None,
            block_length: None,
            read_only: false,
            write_through: false,
            nv_cache: false,
            queues: 0,
            depth: DEPTH_DEFAULT,
            punted_max: PUNTED_DEFAULT,
        }
    }
}

/// Opens a block device for exclusive use. Blocks.
///
/// # Errors
/// Where somebody else uses it (it is mounted, or part of another device), it is no block device, has fewer bytes than are
/// to be served, or blocks are smaller than its sectors: it is never read, changed and written back.
pub fn open_block(options: &BlockOptions) -> Result<Opened, OpenError> {
    let BlockOptions { path, read_only, .. } = options;
    let kernel = |step| move |error| OpenError::Kernel { step, path: path.clone(), error };
    options.block_length.map_or(Ok(()), check_block_length)?;
    let named = fs::metadata(path).map_err(kernel("look at"))?;
    if !named.file_type().is_block_device() {
        return Err(OpenError::NotABlockDevice(path.clone()));
    }
    let mut how = OpenOptions::new();
    how.read(true).write(!read_only).custom_flags(libc::O_EXCL | libc::O_DIRECT | libc::O_NONBLOCK);
    let file = how.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            OpenError::Held { path: path.clone(), holder: holder::of_block_device(path, named.rdev()) }
        }
        _ => OpenError::Kernel { step: "open", path: path.clone(), error },
    })?;
    let metadata = file.metadata().map_err(kernel("look at"))?;
    let (logical, physical) = system::sector_bytes(&file).map_err(kernel("ask the sector size of"))?;
    let found_bytes = system::block_device_bytes(&file).map_err(kernel("ask the size of"))?;
    let direct = system::direct_alignment(&file).map_err(kernel("look at"))?;
    let block_length = options.block_length.unwrap_or(logical);
    check_block_length(block_length)?;
    // A device whose driver does not say takes its sectors anywhere on a page's fraction.
    let (memory_alignment, offset_alignment) = match direct {
        Some(alignment) if alignment.offset <= logical => (alignment.memory, alignment.offset),
        _ => (logical, logical),
    };
    if block_length < offset_alignment {
        let block_length_min = offset_alignment;
        return Err(OpenError::BlockTooSmall { path: path.clone(), block_length, block_length_min });
    }
    let geometry = Geometry {
        block_length,
        blocks: served_blocks(options, found_bytes, block_length)?,
        physical_block_bytes: physical.max(block_length),
        memory_alignment,
        offset_alignment,
        rotational: is_rotational(metadata.rdev()),
        volatile_cache: !options.write_through && !options.nv_cache && !read_only,
        read_only: *read_only,
    };
    let caching = Caching {
        direct: true,
        write_through: options.write_through,
        nv_cache: options.nv_cache,
        untorn_bytes: untorn_bytes(&file, &geometry).map_err(kernel("look at"))?,
        writes_punt: false,
        depth: options.depth,
        punted_max: options.punted_max,
    };
    let store = store(file, options.queues, geometry, caching).map_err(kernel("open"))?;
    Ok(Opened { store, created: false, warnings: Vec::new() })
}

/// The whole blocks of a device of `found_bytes` that are served.
fn served_blocks(options: &BlockOptions, found_bytes: u64, block_length: u32) -> Result<u64, OpenError> {
    let path = &options.path;
    let size_bytes = options.size_bytes.unwrap_or(found_bytes);
    if size_bytes > found_bytes {
        return Err(OpenError::TooSmall {
            path: path.clone(),
            size_bytes: found_bytes,
            asked_bytes: size_bytes,
        });
    }
    match size_bytes / u64::from(block_length) {
        0 => Err(OpenError::Empty(path.clone())),
        blocks => Ok(blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_serves_the_beginning_of_a_device_and_never_more_than_it_has() {
        let served = |size_bytes, found_bytes| {
            let options = BlockOptions { size_bytes, ..BlockOptions::new("/dev/disk") };
            served_blocks(&options, found_bytes, 4096)
        };
        assert_eq!(served(None, 4096 * 10 + 512).unwrap(), 10);
        assert_eq!(served(Some(4096 * 3), 4096 * 10).unwrap(), 3);
        assert_eq!(served(Some(4096 * 10), 4096 * 10).unwrap(), 10);
        let error = served(Some(4096 * 10 + 1), 4096 * 10).unwrap_err();
        assert_eq!(error.to_string(), "/dev/disk has 40960 bytes, fewer than the 40961 to be served");
        assert!(matches!(served(Some(4095), 4096 * 10), Err(OpenError::Empty(_))));
        assert!(matches!(served(None, 0), Err(OpenError::Empty(_))));
    }
}
