//! The calls of the kernel for which the standard library has none: locks of an open file description, the alignment
//! that O_DIRECT wants, allocation, and the size of block devices.
#![expect(unsafe_code, reason = "calls of the kernel")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// What O_DIRECT wants of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectAlignment {
    /// Of addresses and lengths in memory.
    pub(super) memory: u32,
    /// Of positions and lengths in the file.
    pub(super) offset: u32,
}

/// Locks the whole of `file` for us, exclusively or shared with other readers. False where somebody else has it. The
/// lock belongs to this open file description, and ends with its last descriptor.
pub(super) fn lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let lock = libc::flock {
        l_type: i16::try_from(kind).expect("a small constant"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("a small constant"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `lock` is what F_OFD_SETLK reads, and lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Bytes that the file system of `file` has left for users.
pub(super) fn available_bytes(file: &File) -> io::Result<u64> {
    let mut status = MaybeUninit::<libc::statvfs64>::zeroed();
    // SAFETY: `status` is written by the kernel, and lives through the call.
    if unsafe { libc::fstatvfs64(file.as_raw_fd(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers, which were zeroed before the kernel wrote them.
    let status = unsafe { status.assume_init() };
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// The alignment that O_DIRECT wants of `file`; `None` where there is no O_DIRECT. A file system that does not say is
/// assumed to want pages, which is enough for all.
pub(super) fn direct_alignment(file: &File) -> io::Result<Option<DirectAlignment>> {
    let status = status(file, libc::STATX_DIOALIGN)?;
    if status.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(Some(DirectAlignment { memory: PAGE, offset: PAGE }));
    }
    let alignment = DirectAlignment { memory: status.stx_dio_mem_align, offset: status.stx_dio_offset_align };
    Ok((alignment.memory > 0 && alignment.offset > 0).then_some(alignment))
}

const PAGE: u32 = 4096;

/// The least and the most bytes that RWF_ATOMIC writes to `file`, each a power of two; zeroes where the kernel promises
/// nothing of it (a file system or disk that cannot, a kernel before 6.11).
pub(super) fn untorn_bytes(file: &File) -> io::Result<(u32, u32)> {
    let status = status(file, libc::STATX_WRITE_ATOMIC)?;
    let is_told = status.stx_mask & libc::STATX_WRITE_ATOMIC != 0;
    Ok(if is_told { (status.stx_atomic_write_unit_min, status.stx_atomic_write_unit_max) } else { (0, 0) })
}

/// What the kernel says of `file`, as far as it knows what `mask` asks for.
fn status(file: &File, mask: u32) -> io::Result<libc::statx> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, which with AT_EMPTY_PATH means the descriptor; `status` is written by the
    // kernel, and lives through the call.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, status.as_mut_ptr())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers, which were zeroed before the kernel wrote them.
    Ok(unsafe { status.assume_init() })
}

/// Allocates the first `length_bytes` of `file`. False where the file system cannot.
pub(super) fn allocate(file: &File, length_bytes: u64) -> io::Result<bool> {
    let length = i64::try_from(length_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes no pointer.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(false) } else { Err(error) }
}

/// Bytes on a block device.
pub(super) fn block_device_bytes(file: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 where the pointer says, and `bytes` lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// Bytes of a logical and of a physical sector of a block device.
pub(super) fn sector_bytes(file: &File) -> io::Result<(u32, u32)> {
    let (mut logical, mut physical) = (0i32, 0u32);
    // SAFETY: BLKSSZGET writes one int where the pointer says, and `logical` lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut logical) })?;
    // SAFETY: BLKPBSZGET writes one unsigned int where the pointer says, and `physical` lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKPBSZGET, &raw mut physical) })?;
    let logical = u32::try_from(logical).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((logical, physical.max(logical)))
}

/// `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
