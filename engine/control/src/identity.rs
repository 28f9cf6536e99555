//! From a configured DEVICE and the size of what stands behind it to the logical unit that initiators see.

use std::num::NonZeroU32;

use portico_model::configuration::{self, Device, Handler};
use portico_scsi::unit::{AtomicWrites, Geometry, LogicalUnit, Readiness, WriteCache};

/// The most bytes that one command may move (MAXIMUM TRANSFER LENGTH of the Block Limits VPD page).
pub const TRANSFER_BYTES_MAX: u32 = 16 << 20;

const _: () = assert!(TRANSFER_BYTES_MAX >= configuration::BLOCK_SIZE_BYTES_MAX);

/// What is known of an open device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Its size; what is left of the last block is not served.
    pub size_bytes: u64,
    /// The size of its physical blocks, where it says so.
    pub physical_block_bytes: Option<u32>,
    /// Whether it can only be read.
    pub read_only: bool,
    /// How many bytes, at a multiple of as many, one write keeps whole over a loss of power; `None` where nobody knows.
    pub untorn_bytes: Option<u32>,
}

/// The logical unit that a device is configured to be. Without an extent it is one block long and not ready.
///
/// # Errors
/// What cannot be, for people.
pub fn logical_unit(device: &Device, setup_id: u32, extent: Option<Extent>) -> Result<LogicalUnit, String> {
    let geometry = match extent {
        Some(extent) => geometry(device, extent)?,
        None => {
            Geometry::new(device.block_size_bytes, 1, 0, TRANSFER_BYTES_MAX).map_err(|e| e.to_string())?
        }
    };
    let identity = configuration::identity(device, setup_id).map_err(|error| error.to_string())?;
    let mut unit = LogicalUnit::new(identity, geometry, write_cache(device));
    unit.read_only = device.read_only || extent.is_some_and(|extent| extent.read_only);
    unit.rotational = device.rotational;
    unit.thin_provisioned = device.thin_provisioned;
    unit.atomic_writes = atomic_writes(device, extent);
    unit.removable = device.removable;
    unit.dummy = device.handler.is_dummy();
    unit.readiness = if extent.is_some() { Readiness::Ready } else { Readiness::BecomingReady };
    Ok(unit)
}

/// SBC-4 §4.29: after a loss of power all of an atomic write is there, or nothing. A disk in memory keeps nothing at all. Of a
/// file or a block device the kernel says how much it keeps so; where it does not, nobody knows which writes are torn.
fn atomic_writes(device: &Device, extent: Option<Extent>) -> AtomicWrites {
    let blocks = |bytes: u32| NonZeroU32::new(bytes / device.block_size_bytes);
    match (&device.handler, extent.and_then(|extent| extent.untorn_bytes).and_then(blocks)) {
        (Handler::NullIo { .. } | Handler::Ram { .. }, _) => AtomicWrites::Any,
        (_, Some(blocks)) => AtomicWrites::Whole(blocks),
        (_, None) => AtomicWrites::None,
    }
}

fn geometry(device: &Device, extent: Extent) -> Result<Geometry, String> {
    let block = device.block_size_bytes;
    let blocks = extent.size_bytes / u64::from(block);
    let exponent = match extent.physical_block_bytes {
        Some(physical) if device.lb_per_pb_exp && physical.is_power_of_two() && physical > block => {
            (physical / block).ilog2()
        }
        _ => 0,
    };
    let exponent = u8::try_from(exponent).expect("the logarithm of 32 bits");
    Geometry::new(block, blocks, exponent, TRANSFER_BYTES_MAX)
        .map(|geometry| geometry.with_optimal_transfer_bytes(device.opt_trans_len_bytes))
        .map_err(|error| error.to_string())
}

fn write_cache(device: &Device) -> WriteCache {
    match device.handler {
        // There is nothing that a flush could save.
        Handler::NullIo { .. } | Handler::Ram { .. } => WriteCache::NonVolatile,
        // librbd's cache is off: what has completed is durable.
        Handler::Rbd(_) => WriteCache::WriteThrough,
        _ if device.nv_cache => WriteCache::NonVolatile,
        _ if device.write_through => WriteCache::WriteThrough,
        _ => WriteCache::WriteBack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fileio() -> Device {
        Device::new("disk1", Handler::FileIo { filename: "/disk".into(), size_bytes: None })
    }

    fn extent(size_bytes: u64) -> Option<Extent> {
        Some(Extent { size_bytes, physical_block_bytes: Some(4096), read_only: false, untorn_bytes: None })
    }

    #[test]
    fn writes_are_atomic_where_the_medium_says_that_it_tears_none_of_so_many_bytes() {
        let atomic = |handler, extent| {
            let mut device = Device::new("d", handler);
            device.block_size_bytes = 4096;
            logical_unit(&device, 0, extent).unwrap().atomic_writes
        };
        let whole = |untorn_bytes| extent(1 << 20).map(|extent| Extent { untorn_bytes, ..extent });
        assert_eq!(atomic(fileio().handler, whole(None)), AtomicWrites::None);
        assert_eq!(atomic(fileio().handler, None), AtomicWrites::None, "it is not open");
        let four = AtomicWrites::Whole(NonZeroU32::new(4).unwrap());
        assert_eq!(atomic(fileio().handler, whole(Some(16384))), four);
        let block = Handler::BlockIo { filename: "/disk".into(), size_bytes: None };
        assert_eq!(atomic(block, whole(Some(16384))), four);
        assert_eq!(atomic(Handler::Ram { size_bytes: 1 << 20 }, whole(None)), AtomicWrites::Any);
    }

    #[test]
    fn a_dummy_has_no_device_and_any_other_has_one() {
        let null = |dummy| Device::new("d", Handler::NullIo { size_bytes: 1 << 20, dummy });
        assert!(logical_unit(&null(true), 0, extent(1 << 20)).unwrap().dummy);
        assert!(!logical_unit(&null(false), 0, extent(1 << 20)).unwrap().dummy);
        assert!(!logical_unit(&fileio(), 0, extent(1 << 20)).unwrap().dummy);
    }

    #[test]
    fn the_rest_of_a_last_block_is_not_served() {
        let mut device = fileio();
        device.block_size_bytes = 4096;
        let unit = logical_unit(&device, 0, extent(4096 * 10 + 4095)).unwrap();
        assert_eq!(unit.geometry.blocks(), 10);
    }

    #[test]
    fn physical_blocks_are_told_unless_the_file_forbids_it() {
        let mut device = fileio();
        let exponent = |device: &Device| {
            logical_unit(device, 0, extent(1 << 20)).unwrap().geometry.physical_block_exponent()
        };
        assert_eq!(exponent(&device), 3);
        device.lb_per_pb_exp = false;
        assert_eq!(exponent(&device), 0);
        device.lb_per_pb_exp = true;
        device.block_size_bytes = 8192;
        assert_eq!(exponent(&device), 0, "larger than the medium's own");
    }

    #[test]
    fn a_device_smaller_than_a_block_is_none() {
        let error = logical_unit(&fileio(), 0, extent(511)).unwrap_err();
        assert!(error.contains("0 blocks"), "{error}");
    }

    #[test]
    fn the_write_cache_is_as_the_file_says() {
        let cache = |change: fn(&mut Device)| {
            let mut device = fileio();
            change(&mut device);
            logical_unit(&device, 0, None).unwrap().mode.write_cache
        };
        assert_eq!(cache(|_| {}), WriteCache::WriteBack);
        assert_eq!(cache(|device| device.write_through = true), WriteCache::WriteThrough);
        assert_eq!(cache(|device| device.nv_cache = true), WriteCache::NonVolatile);
        assert_eq!(cache(|device| device.o_direct = true), WriteCache::WriteBack, "ours flushes");
        assert_eq!(
            cache(|device| device.handler = Handler::Ram { size_bytes: 1 << 20 }),
            WriteCache::NonVolatile
        );
    }

    #[test]
    fn a_device_that_is_not_open_is_not_ready() {
        assert_eq!(logical_unit(&fileio(), 0, None).unwrap().readiness, Readiness::BecomingReady);
        assert_eq!(logical_unit(&fileio(), 0, extent(1 << 20)).unwrap().readiness, Readiness::Ready);
    }
}
