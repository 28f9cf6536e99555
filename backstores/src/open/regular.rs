//! Opening a regular file, or a block device as if it were one: `HANDLER vdisk_fileio`.

use super::error::{OpenError, Warning};
use super::{Opened, check_block_length, holder, is_rotational, store, system, untorn_bytes};
use crate::Geometry;
use crate::file::{Caching, DEPTH_DEFAULT, PUNTED_DEFAULT};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a file is to be opened.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes of it are served: a file that is shorter, or is not there, is made as long, sparse; of a longer one
    /// the rest is left alone.
    pub size_bytes: Option<u64>,
    /// Bytes of a logical block.
    pub block_length: u32,
    /// Writes are refused, and other readers may share it.
    pub read_only: bool,
    /// Every write is durable before it completes.
    pub write_through: bool,
    /// Nothing is synced: caches survive a power cut.
    pub nv_cache: bool,
    /// Past the page cache, where alignment allows it.
    pub o_direct: bool,
    /// Allocates all of it now, so that no write runs out of space, nor is slowed by allocation.
    pub preallocate: bool,
    /// Shards that will open a queue.
    pub queues: u32,
    /// Requests in flight per queue.
    pub depth: u32,
    /// Of these, how many that the kernel may punt to its workers.
    pub punted_max: u32,
}

impl FileOptions {
    /// `path`, as it is, through the page cache, in blocks of 512 bytes.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            size_bytes: None,
            block_length: super::BLOCK_LENGTH_MIN,
            read_only: false,
            write_through: false,
            nv_cache: false,
            o_direct: false,
            preallocate: false,
            queues: 0,
            depth: DEPTH_DEFAULT,
            punted_max: PUNTED_DEFAULT,
        }
    }
}

/// Opens, and where it is to be created creates, a file for exclusive use. Blocks.
///
/// # Errors
/// Where somebody else uses it, it is neither a regular file nor a block device, or its size does not fit.
pub fn open_file(options: &FileOptions) -> Result<Opened, OpenError> {
    let FileOptions { path, block_length, read_only, .. } = options;
    let kernel = |step| move |error| OpenError::Kernel { step, path: path.clone(), error };
    check_block_length(*block_length)?;
    if let Some(asked) = options.size_bytes {
        check_size(asked, options)?;
    }
    let mut warnings = Vec::new();
    let existed = fs::exists(path).map_err(kernel("look for"))?;
    let file = claim(options)?;
    let size_bytes = settle_size(&file, options, &mut warnings)?;
    let is_device = file.metadata().map_err(kernel("look at"))?.file_type().is_block_device();
    if options.preallocate
        && !read_only
        && !is_device
        && !system::allocate(&file, size_bytes).map_err(kernel("allocate"))?
    {
        warnings.push(Warning::NotPreallocated);
    }
    if !existed {
        sync_creation(&file, path).map_err(kernel("sync"))?;
    }
    let metadata = file.metadata().map_err(kernel("look at"))?;
    let direct = choose_direct(&file, options, &mut warnings).map_err(kernel("look at"))?;
    let (memory_alignment, offset_alignment) = direct.map_or((1, 1), |d| (d.memory, d.offset));
    let geometry = Geometry {
        block_length: *block_length,
        blocks: size_bytes / u64::from(*block_length),
        physical_block_bytes: physical_block(*block_length, metadata.blksize()),
        memory_alignment,
        offset_alignment,
        rotational: is_rotational(if is_device { metadata.rdev() } else { metadata.dev() }),
        volatile_cache: !options.write_through && !options.nv_cache && !read_only,
        read_only: *read_only,
    };
    let has_holes = !is_device && metadata.blocks().saturating_mul(STAT_BLOCK_BYTES) < size_bytes;
    let caching = Caching {
        direct: direct.is_some(),
        write_through: options.write_through,
        nv_cache: options.nv_cache,
        untorn_bytes: if direct.is_some() {
            untorn_bytes(&file, &geometry).map_err(kernel("look at"))?
        } else {
            0
        },
        writes_punt: direct.is_none() || has_holes,
        depth: options.depth,
        punted_max: options.punted_max,
    };
    let store = store(file, options.queues, geometry, caching).map_err(kernel("open"))?;
    Ok(Opened { store, created: !existed, warnings })
}

/// The unit of `st_blocks`, whatever the file system's blocks are.
const STAT_BLOCK_BYTES: u64 = 512;

/// Opens or creates the file, for us alone.
fn claim(options: &FileOptions) -> Result<File, OpenError> {
    let FileOptions { path, read_only, .. } = options;
    let kernel = |step| move |error| OpenError::Kernel { step, path: path.clone(), error };
    let device = fs::metadata(path).ok().filter(|named| named.file_type().is_block_device());
    let create = options.size_bytes.is_some() && !read_only && device.is_none();
    // Without a creation, O_EXCL claims a block device. Non-blocking, since a FIFO without a writer would hang the open;
    // it means nothing to files and disks.
    let claim = if device.is_some() { libc::O_EXCL } else { 0 };
    let mut how = OpenOptions::new();
    how.read(true).write(!read_only).create(create).truncate(false).mode(0o600);
    let file = how.custom_flags(libc::O_NONBLOCK | claim).open(path).map_err(|error| {
        match (error.kind(), &device) {
            (io::ErrorKind::NotFound, _) if !create && !read_only => OpenError::NoSize(path.clone()),
            (io::ErrorKind::IsADirectory, _) => OpenError::NotAFile(path.clone()),
            (io::ErrorKind::ResourceBusy, Some(device)) => {
                OpenError::Held { path: path.clone(), holder: holder::of_block_device(path, device.rdev()) }
            }
            _ => OpenError::Kernel { step: "open", path: path.clone(), error },
        }
    })?;
    let kind = file.metadata().map_err(kernel("look at"))?.file_type();
    // What was claimed is what was looked at before: a path that changed meanwhile is refused.
    let as_expected = if device.is_some() { kind.is_block_device() } else { kind.is_file() };
    if !as_expected {
        return Err(OpenError::NotAFile(path.clone()));
    }
    if kind.is_file() && !system::lock(&file, !read_only).map_err(kernel("lock"))? {
        return Err(OpenError::Held { path: path.clone(), holder: holder::of_file(path) });
    }
    Ok(file)
}

/// How much is served. A file that is too short is made longer, never a long one shorter.
fn settle_size(file: &File, options: &FileOptions, warnings: &mut Vec<Warning>) -> Result<u64, OpenError> {
    let path = &options.path;
    let kernel = |step| move |error| OpenError::Kernel { step, path: path.clone(), error };
    let metadata = file.metadata().map_err(kernel("look at"))?;
    let is_file = metadata.is_file();
    let found =
        if is_file { metadata.len() } else { system::block_device_bytes(file).map_err(kernel("measure"))? };
    match options.size_bytes {
        Some(asked) if asked > found && is_file && !options.read_only => {
            file.set_len(asked).map_err(kernel("give a size to"))?;
            Ok(asked)
        }
        Some(asked) if asked < found => {
            warnings.push(Warning::ServedInPart { size_bytes: found, asked_bytes: asked });
            Ok(asked)
        }
        Some(asked) if asked > found => {
            warnings.push(Warning::Shorter { size_bytes: found, asked_bytes: asked });
            check_size(found, options)
        }
        _ => check_size(found, options),
    }
}

/// `size_bytes`, where it is some whole blocks.
fn check_size(size_bytes: u64, options: &FileOptions) -> Result<u64, OpenError> {
    let (path, block_length) = (&options.path, options.block_length);
    match size_bytes {
        0 => Err(OpenError::Empty(path.clone())),
        _ if size_bytes.is_multiple_of(u64::from(block_length)) => Ok(size_bytes),
        _ => Err(OpenError::UnevenSize { path: path.clone(), size_bytes, block_length }),
    }
}

/// The alignment for O_DIRECT, where it is asked for and possible.
fn choose_direct(
    file: &File,
    options: &FileOptions,
    warnings: &mut Vec<Warning>,
) -> io::Result<Option<system::DirectAlignment>> {
    if !options.o_direct {
        return Ok(None);
    }
    let block_length = options.block_length;
    let alignment = system::direct_alignment(file)?;
    let fits = alignment.filter(|alignment| alignment.offset <= block_length);
    if fits.is_none() {
        let block_length_min = alignment.map(|alignment| alignment.offset);
        warnings.push(Warning::NotDirect { block_length, block_length_min });
    }
    Ok(fits)
}

/// What the file system writes at a time, where that is a sensible physical block.
fn physical_block(block_length: u32, file_system_block: u64) -> u32 {
    match u32::try_from(file_system_block) {
        Ok(bytes) if bytes.is_power_of_two() && (block_length..=super::BLOCK_LENGTH_MAX).contains(&bytes) => {
            bytes
        }
        _ => block_length,
    }
}

/// Makes the new file and its name durable.
fn sync_creation(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
