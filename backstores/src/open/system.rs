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

/// What is asked of the target of a mapped device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// How it stands.
    Status,
    /// What it was made of.
    Table,
}

/// The type of the only target of a device of the device mapper, and what it says; `None` where it has several or none. ENXIO
/// for any other device.
pub(super) fn mapped_target(device: u64, asks: Asks) -> io::Result<Option<(String, String)>> {
    let control = File::options().read(true).write(true).open("/dev/mapper/control")?;
    let mut bytes = [0; DM_BYTES];
    // struct dm_ioctl of <linux/dm-ioctl.h>: version, data_size, data_start, …, flags at 28, dev at 40. A pool does not write
    // its metadata first.
    let flags = DM_NOFLUSH | if asks == Asks::Table { DM_STATUS_TABLE } else { 0 };
    let numbers = [(0, 4), (12, DM_BYTES), (16, DM_HEADER_BYTES), (28, flags)];
    for (at, number) in numbers {
        bytes[at..at + 4].copy_from_slice(&u32::try_from(number).expect("a small number").to_ne_bytes());
    }
    bytes[40..48].copy_from_slice(&device.to_ne_bytes());
    let mut request = DmRequest(bytes);
    // SAFETY: DM_TABLE_STATUS reads and writes as many bytes as data_size says, all of which are ours and live through the
    // call, and which are aligned as the structure is.
    check(unsafe { libc::ioctl(control.as_raw_fd(), DM_TABLE_STATUS, request.0.as_mut_ptr()) })?;
    Ok(target_of(&request.0))
}

/// struct dm_target_spec, and the text behind it.
fn target_of(answer: &[u8; DM_BYTES]) -> Option<(String, String)> {
    let number =
        |at: usize| answer.get(at..at + 4).map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("four")));
    let start = usize::try_from(number(16)?).ok()?;
    let is_whole = number(28)? & DM_BUFFER_FULL == 0;
    if number(20)? != 1 || !is_whole {
        return None;
    }
    let text = |bytes: &[u8]| -> Option<String> {
        let length = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes[..length].to_vec()).ok()
    };
    let name = answer.get(start + DM_TYPE_AT..start + DM_TARGET_BYTES)?;
    Some((text(name)?, text(answer.get(start + DM_TARGET_BYTES..)?)?))
}

/// Aligned as struct dm_ioctl.
#[repr(align(8))]
struct DmRequest([u8; DM_BYTES]);

const DM_BYTES: usize = 4096;
/// Bytes of struct dm_ioctl.
const DM_HEADER_BYTES: usize = 312;
/// Bytes of struct dm_target_spec, whose last sixteen are the type's name.
const DM_TARGET_BYTES: usize = 40;
const DM_TYPE_AT: usize = 24;
/// `_IOWR(0xfd, 12, struct dm_ioctl)`.
const DM_TABLE_STATUS: libc::Ioctl = 0xc138_fd0c;
const DM_STATUS_TABLE: usize = 1 << 4;
const DM_BUFFER_FULL: u32 = 1 << 8;
const DM_NOFLUSH: usize = 1 << 11;

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
