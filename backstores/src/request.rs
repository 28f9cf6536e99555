//! What is asked of a medium, and what it answers.

use std::fmt;

/// The caller's name for a request; it comes back with the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// One request. `S` is the ring's list of segments, in the order of the bytes.
#[derive(Debug)]
pub enum Request<S> {
    /// Fills all of `segments` from the medium.
    Read {
        /// Of the first byte.
        offset_bytes: u64,
        /// What is filled.
        segments: S,
    },
    /// Writes all of `segments` to the medium.
    Write {
        /// Of the first byte.
        offset_bytes: u64,
        /// What is written.
        segments: S,
        /// Complete only when the bytes survive a power cut (FUA).
        durable: bool,
    },
    /// The same for as many bytes as the store keeps whole (`Caching::untorn_bytes`), at a multiple of that: after a loss
    /// of power all of them are on the medium, or none.
    WriteUntorn {
        /// Of the first byte.
        offset_bytes: u64,
        /// What is written, in one piece of memory.
        segments: S,
        /// Complete only when the bytes survive a power cut (FUA).
        durable: bool,
    },
    /// Makes a range read as zeroes from now on, without writing them.
    Clear {
        /// Of the first byte.
        offset_bytes: u64,
        /// How many.
        length_bytes: u64,
        /// Whether the space below is given back; otherwise it stays allocated, where the medium knows the difference.
        deallocate: bool,
    },
    /// Writes `segments` again and again, until the range is full of them.
    Repeat {
        /// Of the first byte.
        offset_bytes: u64,
        /// A multiple of the segments' length.
        length_bytes: u64,
        /// What is written.
        segments: S,
    },
    /// Compares the first half of `segments` with the medium, and writes the second half over it where nothing differs, in
    /// one step for everybody who has the medium. Durable once it is complete.
    CompareAndWrite {
        /// Of the first byte.
        offset_bytes: u64,
        /// What is compared, then as many bytes to be written.
        segments: S,
    },
    /// Makes every write that has completed survive a power cut (SYNCHRONIZE CACHE).
    Flush,
}

impl<S> Request<S> {
    /// The memory that came with it.
    pub fn into_segments(self) -> Option<S> {
        match self {
            Self::Read { segments, .. }
            | Self::Write { segments, .. }
            | Self::WriteUntorn { segments, .. }
            | Self::Repeat { segments, .. }
            | Self::CompareAndWrite { segments, .. } => Some(segments),
            Self::Clear { .. } | Self::Flush => None,
        }
    }
}

/// A request that is done.
#[derive(Debug)]
pub struct Completion<S> {
    /// As submitted.
    pub tag: Tag,
    /// All bytes were moved, or why not. After an error it is unknown which of a write's bytes are on the medium.
    pub result: Result<(), MediumError>,
    /// As submitted; a clearing and a flush have none.
    pub segments: Option<S>,
    /// For how many nanoseconds a library below had the request: librbd, until it said that it has ended. `None` where
    /// there is none.
    pub library_ns: Option<u64>,
}

/// What became of a submitted request.
#[derive(Debug)]
pub enum Submitted<S> {
    /// It will be done by [`crate::Queue::completed`] or [`crate::Queue::reap`].
    InFlight,
    /// It is done.
    Done(Completion<S>),
}

impl<S> Submitted<S> {
    /// Done with this result.
    pub(crate) fn done(tag: Tag, result: Result<(), MediumError>, segments: Option<S>) -> Self {
        Self::Done(Completion { tag, result, segments, library_ns: None })
    }
}

/// The queue takes no more requests now; gives this one back.
#[derive(Debug)]
pub struct QueueFull<S>(pub Request<S>);

/// How a medium fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumError {
    /// The bytes could not be read or written: EIO and its kin.
    Unrecovered,
    /// A sync failed, now or before. The kernel has dropped pages that were reported as written, so what the medium
    /// holds is unknown; every flush fails until the medium is opened again.
    DataLost,
    /// A thin medium, or the file system below, is full.
    NoSpace,
    /// The medium or its file system is read-only.
    WriteProtected,
    /// The medium cannot do this by itself: clear a range, repeat, compare, write untorn. Nothing was changed.
    Unsupported,
    /// What was compared differs. Nothing was changed.
    Differs,
    /// The kernel refused the request's alignment or range.
    Refused,
    /// The request reaches beyond the medium, which has become shorter.
    BeyondEnd,
    /// The medium has gone: a device was removed.
    Gone,
    /// The medium was removed while it was served; it has said so itself.
    Removed,
    /// The medium is closed for now and comes back by itself: try again.
    BecomingReady,
    /// The medium did not answer in time. A write so answered never lands.
    TimedOut,
    /// The request was cancelled; what it did is unknown.
    Cancelled,
    /// An error number that none of these names.
    Other(i32),
}

impl MediumError {
    /// What an error number of a read, write or sync means.
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EIO | libc::EILSEQ | libc::EBADMSG | libc::ENODATA | libc::EREMOTEIO | libc::EUCLEAN => {
                Self::Unrecovered
            }
            libc::ENOSPC | libc::EDQUOT => Self::NoSpace,
            libc::EROFS | libc::EPERM | libc::EBADF => Self::WriteProtected,
            libc::EINVAL => Self::Refused,
            libc::EFBIG => Self::BeyondEnd,
            libc::ENXIO | libc::ENODEV | libc::ESTALE | libc::ENOMEDIUM => Self::Gone,
            libc::ECANCELED => Self::Cancelled,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unrecovered => "unrecovered error of the medium",
            Self::DataLost => "a sync failed, what the medium holds is unknown until it is opened again",
            Self::NoSpace => "no space left for the medium",
            Self::WriteProtected => "the medium is read-only",
            Self::Unsupported => "the medium cannot do this by itself",
            Self::Differs => "what was compared differs",
            Self::Refused => "the kernel refused the request's alignment or range",
            Self::BeyondEnd => "the medium has become shorter",
            Self::Gone => "the medium is gone",
            Self::Removed => "the medium was removed",
            Self::BecomingReady => "the medium is closed for now",
            Self::TimedOut => "the medium did not answer in time",
            Self::Cancelled => "cancelled",
            Self::Other(errno) => return write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        })
    }
}

impl std::error::Error for MediumError {}
