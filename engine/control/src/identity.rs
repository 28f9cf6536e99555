//! From a configured DEVICE and the size of what stands behind it to the logical unit that initiators see.

use portico_model::configuration::{self, Device, Handler};
use portico_scsi::identity::{self, Identity, IdentityOptions};
use portico_scsi::unit::{Geometry, LogicalUnit, Readiness, WriteCache};

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
    let identity = identity(device, setup_id)?;
    let mut unit = LogicalUnit::new(identity, geometry, write_cache(device));
    unit.read_only = device.read_only || extent.is_some_and(|extent| extent.read_only);
    unit.rotational = device.rotational;
    unit.thin_provisioned = device.thin_provisioned;
    unit.removable = device.removable;
    unit.readiness = if extent.is_some() { Readiness::Ready } else { Readiness::BecomingReady };
    Ok(unit)
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

/// The configuration has made up its mind about every part: nothing is left to the defaults below.
fn identity(device: &Device, setup_id: u32) -> Result<Identity, String> {
    let whole = configuration::Identity::of(device, setup_id);
    let handler = match device.handler {
        Handler::BlockIo { .. } | Handler::Rbd(_) => identity::Handler::BlockIo,
        Handler::FileIo { .. } | Handler::NullIo { .. } | Handler::Ram { .. } => identity::Handler::FileIo,
    };
    let set = &device.identity;
    Identity::new(&IdentityOptions {
        t10_vend_id: Some(&whole.t10_vend_id),
        prod_id: Some(&whole.prod_id),
        prod_rev_lvl: Some(&whole.prod_rev_lvl),
        t10_dev_id: Some(&whole.t10_dev_id),
        vend_specific_id: Some(&whole.vend_specific_id),
        usn: Some(&whole.usn),
        naa_id: whole.naa_id.as_ref().map(|id| id.bytes()),
        eui64_id: whole.eui64_id.as_ref().map(|id| id.bytes()),
        inq_vend_specific: set.inq_vend_specific.as_deref().unwrap_or("").as_bytes(),
        scsi_device_name: set.scsi_device_name.as_deref().unwrap_or(""),
        ..IdentityOptions::new(setup_id, &device.name, handler)
    })
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
        Some(Extent { size_bytes, physical_block_bytes: Some(4096), read_only: false })
    }

    #[test]
    fn the_identity_is_the_configurations_to_the_last_byte() {
        let unit = logical_unit(&fileio(), 0, extent(1 << 20)).unwrap();
        let expected = configuration::Identity::of(&fileio(), 0);
        assert_eq!(unit.identity.serial_number.as_bytes(), expected.usn.as_bytes());
        assert_eq!(unit.identity.t10_device_id.as_bytes(), expected.t10_dev_id.as_bytes());
        assert_eq!(unit.identity.vendor.as_bytes(), b"SCST_FIO");
        assert_eq!(unit.identity.eui64.unwrap().as_bytes(), expected.eui64_id.unwrap().bytes());
    }

    #[test]
    fn scst_and_we_derive_the_same_identity() {
        let ours = logical_unit(&fileio(), 7, None).unwrap().identity;
        let scsts = Identity::new(&IdentityOptions::new(7, "disk1", identity::Handler::FileIo)).unwrap();
        assert_eq!(ours, scsts);
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
