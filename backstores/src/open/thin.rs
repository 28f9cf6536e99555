//! What a thin volume of the device mapper (dm-thin, LVM's thin volumes) has of its pool, and what the pool has left.
//!
//! The kernel is asked as `dmsetup status` asks it, by the calls in [`system`]; here is what its answers mean (the kernel's
//! Documentation/admin-guide/device-mapper/thin-provisioning.rst). Whoever has no right to ask learns nothing.

use super::system::{self, Asks};
use std::fs;
use std::io;

/// What the device mapper counts in.
const SECTOR_BYTES: u64 = 512;

/// Bytes that the pool below a thin volume has left, and bytes of it that the volume has; `None` for any other device.
pub(super) fn pool_bytes(device: u64) -> io::Result<Option<(u64, u64)>> {
    let folder = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    if !fs::exists(format!("{folder}/dm"))? {
        return Ok(None);
    }
    let Some(used) = target(device, "thin", Asks::Status)?.as_deref().and_then(mapped_bytes) else {
        return Ok(None);
    };
    for slave in fs::read_dir(format!("{folder}/slaves"))? {
        let number = fs::read_to_string(slave?.path().join("dev"))?;
        let Some(below) = device_number(&number) else { continue };
        let Some(status) = target(below, "thin-pool", Asks::Status)? else { continue };
        let table = target(below, "thin-pool", Asks::Table)?.unwrap_or_default();
        let left = free_blocks(&status).zip(block_bytes(&table));
        return Ok(left.map(|(blocks, bytes)| (blocks.saturating_mul(bytes), used)));
    }
    Ok(None)
}

/// What the only target of a mapped device says of itself, where it is of this type. A device that is none is of none.
fn target(device: u64, of_type: &str, asks: Asks) -> io::Result<Option<String>> {
    match system::mapped_target(device, asks) {
        Ok(found) => Ok(found.filter(|(name, _)| name == of_type).map(|(_, text)| text)),
        // No device of the device mapper's.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `MAJOR:MINOR`.
fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The status of a thin volume: sectors that it has, and the highest of them. Another word stands there where it has failed.
fn mapped_bytes(status: &str) -> Option<u64> {
    let sectors: u64 = status.split_whitespace().next()?.parse().ok()?;
    Some(sectors.saturating_mul(SECTOR_BYTES))
}

/// The status of a pool: transaction, used/all of its metadata, used/all of its data, and more.
fn free_blocks(status: &str) -> Option<u64> {
    let (used, all) = status.split_whitespace().nth(2)?.split_once('/')?;
    all.parse::<u64>().ok()?.checked_sub(used.parse().ok()?)
}

/// The table of a pool: the devices of its metadata and of its data, sectors of a data block, and more.
fn block_bytes(table: &str) -> Option<u64> {
    let sectors: u64 = table.split_whitespace().nth(2)?.parse().ok()?;
    Some(sectors.saturating_mul(SECTOR_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_mapper_says_of_a_pool_and_its_volume_is_understood() {
        let status = "1 28/1024 614/2048 - rw discard_passdown queue_if_no_space - 1024 ";
        assert_eq!(free_blocks(status), Some(2048 - 614));
        assert_eq!(block_bytes("254:1 254:2 128 0 1 skip_block_zeroing "), Some(65536));
        assert_eq!(mapped_bytes("78592 131071"), Some(78592 * 512));
        assert_eq!(mapped_bytes("0 -"), Some(0));
        assert_eq!(device_number("254:3\n"), Some(libc::makedev(254, 3)));
    }

    #[test]
    fn of_one_that_has_failed_nothing_is_known() {
        assert_eq!((free_blocks("Fail"), block_bytes("Error"), mapped_bytes("Fail")), (None, None, None));
        assert_eq!(free_blocks("1 28/1024 7/3 - rw"), None);
    }

    #[test]
    fn a_device_that_is_not_the_device_mappers_has_no_pool() {
        assert_eq!(pool_bytes(libc::makedev(1, 0)).unwrap(), None);
    }
}
