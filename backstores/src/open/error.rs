//! Why a medium cannot be opened, and what is not as it was asked for.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a medium cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The kernel refused a step.
    Kernel {
        /// The step, as a verb: "open", "lock".
        step: &'static str,
        /// The medium.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else uses it.
    Held {
        /// The medium.
        path: PathBuf,
        /// Who, as far as it can be seen.
        holder: String,
    },
    /// It is neither a regular file nor a block device.
    NotAFile(PathBuf),
    /// It is no block device.
    NotABlockDevice(PathBuf),
    /// There is no such file, and no size to create it with.
    NoSize(PathBuf),
    /// Its size is no multiple of the block length.
    UnevenSize {
        /// The medium.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// Bytes of a block.
        block_length: u32,
    },
    /// It has fewer bytes than are to be served.
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The size that was asked for.
        asked_bytes: u64,
    },
    /// It has no block.
    Empty(PathBuf),
    /// No power of two from 512 to 65,536.
    BlockLength(u32),
    /// Blocks are smaller than what the device reads and writes.
    BlockTooSmall {
        /// The device.
        path: PathBuf,
        /// Bytes of a block that were asked for.
        block_length: u32,
        /// The least that the device takes.
        block_length_min: u32,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { step, path, error } => write!(f, "cannot {step} {}: {error}", path.display()),
            Self::Held { path, holder } => write!(f, "{} is in use: {holder}", path.display()),
            Self::NotAFile(path) => write!(f, "{} is neither a file nor a block device", path.display()),
            Self::NotABlockDevice(path) => write!(f, "{} is not a block device", path.display()),
            Self::NoSize(path) => {
                write!(f, "{} does not exist; give a size to create it", path.display())
            }
            Self::UnevenSize { path, size_bytes, block_length } => write!(
                f,
                "{} has {size_bytes} bytes, which is not a multiple of its block size {block_length}",
                path.display()
            ),
            Self::TooSmall { path, size_bytes, asked_bytes } => write!(
                f,
                "{} has {size_bytes} bytes, fewer than the {asked_bytes} to be served",
                path.display()
            ),
            Self::Empty(path) => write!(f, "{} is empty", path.display()),
            Self::BlockLength(block_length) => {
                write!(f, "a block of {block_length} bytes: it must be a power of two from 512 to 65536")
            }
            Self::BlockTooSmall { path, block_length, block_length_min } => write!(
                f,
                "{} reads and writes {block_length_min} bytes at a time; a block size of {block_length} is too small, \
                 use {block_length_min}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What is not as it was asked for. The medium works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// O_DIRECT needs larger blocks here (`None`: the file system has none at all), so I/O goes through the page cache.
    NotDirect {
        /// Bytes of a block that were asked for.
        block_length: u32,
        /// The least with which O_DIRECT works here.
        block_length_min: Option<u32>,
    },
    /// The medium is longer than what is to be served of it.
    ServedInPart {
        /// Its size.
        size_bytes: u64,
        /// The size that was asked for.
        asked_bytes: u64,
    },
    /// The medium is shorter than was asked for, and cannot be made longer.
    Shorter {
        /// Its size.
        size_bytes: u64,
        /// The size that was asked for.
        asked_bytes: u64,
    },
    /// The file system cannot allocate in advance.
    NotPreallocated,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDirect { block_length, block_length_min: Some(least) } => write!(
                f,
                "o_direct needs blocks of {least} bytes here, and they have {block_length}: using the page cache"
            ),
            Self::NotDirect { block_length_min: None, .. } => {
                f.write_str("the file system has no o_direct: using the page cache")
            }
            Self::ServedInPart { size_bytes, asked_bytes } => {
                write!(f, "{asked_bytes} bytes are served of the {size_bytes} that it has")
            }
            Self::Shorter { size_bytes, asked_bytes } => {
                write!(f, "it has {size_bytes} bytes, not the {asked_bytes} asked for")
            }
            Self::NotPreallocated => f.write_str("the file system cannot allocate space in advance"),
        }
    }
}
