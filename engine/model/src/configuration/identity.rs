//! What a device is called by initiators: what the file sets of it, and SCST's defaults for the rest, which
//! [`portico_scsi::identity`] derives.

use portico_scsi::identity::{self, Identity, IdentityError, IdentityOptions};

use super::{Device, Handler};

/// The identity of a device in a gateway with that `setup_id`.
///
/// # Errors
/// An attribute of the file that cannot be what it is.
pub fn identity(device: &Device, setup_id: u32) -> Result<Identity, IdentityError> {
    let handler = match device.handler {
        Handler::FileIo { .. } | Handler::NullIo { .. } => identity::Handler::FileIo,
        Handler::BlockIo { .. } | Handler::Rbd(_) => identity::Handler::BlockIo,
        Handler::Ram { .. } => identity::Handler::Ram,
    };
    let set = &device.identity;
    Identity::new(&IdentityOptions {
        t10_vend_id: set.t10_vend_id.as_deref(),
        prod_id: set.prod_id.as_deref(),
        prod_rev_lvl: set.prod_rev_lvl.as_deref(),
        t10_dev_id: set.t10_dev_id.as_deref(),
        vend_specific_id: set.vend_specific_id.as_deref(),
        usn: set.usn.as_deref(),
        naa_id: set.naa_id.as_ref().map(|id| id.bytes()),
        eui64_id: set.eui64_id.as_ref().map(|id| id.bytes()),
        inq_vend_specific: set.inq_vend_specific.as_deref().unwrap_or("").as_bytes(),
        scsi_device_name: set.scsi_device_name.as_deref().unwrap_or(""),
        ..IdentityOptions::new(setup_id, &device.name, handler)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{DeviceIdentifier, IdentityOverrides, RbdImage};

    fn fileio(name: &str) -> Device {
        Device::new(name, Handler::FileIo { filename: "/disk".into(), size_bytes: None })
    }

    #[test]
    fn a_device_of_which_the_file_sets_nothing_is_scsts() {
        let scsts = Identity::new(&IdentityOptions::new(7, "disk1", identity::Handler::FileIo)).unwrap();
        assert_eq!(identity(&fileio("disk1"), 7).unwrap(), scsts);
        assert_eq!(identity(&fileio("disk1"), 0).unwrap().t10_device_id.as_bytes(), b"b8fdbd32-disk1");
    }

    #[test]
    fn all_that_the_file_sets_is_told() {
        let mut device = fileio("disk1");
        let text = |text: &str| Some(text.to_owned());
        device.identity = IdentityOverrides {
            t10_vend_id: text("vendor"),
            prod_id: text("product"),
            prod_rev_lvl: text("rev"),
            t10_dev_id: text("t10 device"),
            vend_specific_id: text("specific"),
            usn: text("serial"),
            naa_id: DeviceIdentifier::from_hex("5000c500a1b2c3d4"),
            eui64_id: DeviceIdentifier::from_hex("0011223344556677"),
            inq_vend_specific: text("inquiry"),
            scsi_device_name: text("name"),
        };
        let told = identity(&device, 0).unwrap();
        assert_eq!(told.vendor.as_bytes(), b"vendor");
        assert_eq!(told.product.as_bytes(), b"product");
        assert_eq!(told.revision.as_bytes(), b"rev");
        assert_eq!(told.t10_device_id.as_bytes(), b"t10 device");
        assert_eq!(told.vendor_specific_id.as_bytes(), b"specific");
        assert_eq!(told.serial_number.as_bytes(), b"serial");
        assert_eq!(told.naa.unwrap().as_bytes()[..3], [0x50, 0, 0xc5]);
        assert_eq!(told.eui64.unwrap().as_bytes()[..3], [0, 0x11, 0x22]);
        assert_eq!(told.inquiry_vendor_specific.as_bytes(), b"inquiry");
        assert_eq!(told.scsi_device_name.as_bytes(), b"name");
    }

    #[test]
    fn the_handler_chooses_the_vendor() {
        let vendor = |handler: Handler| identity(&Device::new("d", handler), 0).unwrap().vendor;
        assert_eq!(vendor(Handler::NullIo { size_bytes: 512, dummy: false }).as_bytes(), b"SCST_FIO");
        assert_eq!(vendor(Handler::Rbd(Box::new(RbdImage::new("rbd", "d")))).as_bytes(), b"SCST_BIO");
        assert_eq!(vendor(Handler::Ram { size_bytes: 512 }).as_bytes(), b"PORTICO");
    }
}
