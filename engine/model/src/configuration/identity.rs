//! What a device is called by initiators: SCST's defaults, byte for byte, unless the file says otherwise.
//!
//! A changed identity breaks multipath and makes VMFS datastores look like snapshots, so the derivation is fixed:
//! n = `setup_id` in the upper half, in the lower the CRC32C (register 0, no final xor) of the name *with its NUL*.

use super::{Device, DeviceIdentifier, Handler};

/// Characters of `t10_dev_id`, SCST's bound.
pub const T10_DEV_ID_LENGTH_MAX: usize = 25;

/// A device's complete identity. All texts are ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION, not padded, at most 8 characters.
    pub t10_vend_id: String,
    /// PRODUCT IDENTIFICATION, not padded, at most 16.
    pub prod_id: String,
    /// PRODUCT REVISION LEVEL, not padded, at most 4.
    pub prod_rev_lvl: String,
    /// PRODUCT SERIAL NUMBER (VPD page 80h).
    pub usn: String,
    /// Behind the vendor in the T10 vendor ID designator.
    pub t10_dev_id: String,
    /// The vendor specific designator.
    pub vend_specific_id: String,
    /// NAA designator, if the file sets one.
    pub naa_id: Option<DeviceIdentifier>,
    /// EUI-64 designator that the file sets, or, with neither that nor an NAA, the head of `t10_dev_id`.
    pub eui64_id: Option<DeviceIdentifier>,
}

impl Identity {
    /// The identity of a device in a gateway with that `setup_id`.
    #[must_use]
    pub fn of(device: &Device, setup_id: u32) -> Self {
        let set = &device.identity;
        let number = u64::from(setup_id) << 32 | u64::from(name_crc(&device.name));
        let usn = format!("{number:x}");
        let t10_dev_id = set
            .t10_dev_id
            .clone()
            .unwrap_or_else(|| cut(&format!("{usn}-{}", device.name), T10_DEV_ID_LENGTH_MAX));
        let eui64_id = match (&set.naa_id, &set.eui64_id) {
            (None, None) => Some(eui64_of(&t10_dev_id)),
            (_, eui64) => eui64.clone(),
        };
        Self {
            t10_vend_id: set.t10_vend_id.clone().unwrap_or_else(|| vendor(&device.handler).to_owned()),
            prod_id: set.prod_id.clone().unwrap_or_else(|| cut(&device.name, 16)),
            prod_rev_lvl: set.prod_rev_lvl.clone().unwrap_or_else(|| "3110".to_owned()),
            usn: set.usn.clone().unwrap_or(usn),
            vend_specific_id: set.vend_specific_id.clone().unwrap_or_else(|| t10_dev_id.clone()),
            t10_dev_id,
            naa_id: set.naa_id.clone(),
            eui64_id,
        }
    }
}

fn vendor(handler: &Handler) -> &'static str {
    match handler {
        Handler::FileIo { .. } | Handler::NullIo { .. } => "SCST_FIO",
        // An image that SCST served was mapped by the kernel, and a block device: its disks keep their name.
        Handler::BlockIo { .. } | Handler::Rbd(_) => "SCST_BIO",
        // Not SCST's: no disk of an existing setup can change its name by this.
        Handler::Ram { .. } => "PORTICO",
    }
}

/// The first eight ASCII bytes; a shorter text is filled up with zeros.
fn eui64_of(t10_dev_id: &str) -> DeviceIdentifier {
    let hex: String =
        (0..8).map(|at| format!("{:02x}", t10_dev_id.as_bytes().get(at).copied().unwrap_or(0))).collect();
    DeviceIdentifier::from_hex(&hex).expect("sixteen hexadecimal digits were just written")
}

/// The first `length` characters: names of devices are ASCII.
fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

/// CRC32C of a name and its NUL, with the register at 0 and no final xor. Bit by bit: it runs once per device.
fn name_crc(name: &str) -> u32 {
    const POLYNOMIAL_REFLECTED: u32 = 0x82F6_3B78;
    name.bytes().chain([0]).fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL_REFLECTED * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fileio(name: &str) -> Device {
        Device::new(name, Handler::FileIo { filename: "/disk".into(), size_bytes: None })
    }

    /// Computed apart, by a program whose CRC32C gives the catalogue's check value E3069283 for "123456789".
    #[test]
    fn the_serial_number_of_a_known_name_never_changes() {
        assert_eq!(name_crc("disk1"), 0xb8fdbd32);
        assert_eq!(Identity::of(&fileio("disk1"), 0).t10_dev_id, "b8fdbd32-disk1");
    }

    #[test]
    fn the_defaults_are_scsts() {
        let identity = Identity::of(&fileio("disk1"), 0);
        let crc = format!("{:x}", name_crc("disk1"));
        assert_eq!(identity.usn, crc);
        assert_eq!(identity.t10_dev_id, format!("{crc}-disk1"));
        assert_eq!(identity.vend_specific_id, identity.t10_dev_id);
        assert_eq!(identity.t10_vend_id, "SCST_FIO");
        assert_eq!(identity.prod_id, "disk1");
        assert_eq!(identity.prod_rev_lvl, "3110");
        assert_eq!(identity.eui64_id.unwrap().bytes(), &identity.t10_dev_id.as_bytes()[..8]);
        assert_eq!(identity.naa_id, None);
    }

    #[test]
    fn the_setup_id_stands_above_the_names_checksum() {
        let identity = Identity::of(&fileio("disk1"), 0x1234);
        assert_eq!(identity.usn, format!("1234{:08x}", name_crc("disk1")));
    }

    #[test]
    fn a_long_name_is_cut_at_25_and_16_characters() {
        let name = "a_volume_with_a_rather_long_name";
        let identity = Identity::of(&fileio(name), 0);
        assert_eq!(identity.t10_dev_id.len(), T10_DEV_ID_LENGTH_MAX);
        assert_eq!(identity.prod_id, &name[..16]);
    }

    #[test]
    fn an_naa_of_the_file_leaves_no_made_up_eui() {
        let mut device = fileio("disk1");
        device.identity.naa_id = DeviceIdentifier::from_hex("5000c500a1b2c3d4");
        let identity = Identity::of(&device, 0);
        assert_eq!(identity.eui64_id, None);
        assert_eq!(identity.naa_id, device.identity.naa_id);
    }

    #[test]
    fn a_t10_dev_id_of_the_file_is_followed_by_what_hangs_on_it() {
        let mut device = fileio("disk1");
        device.identity.t10_dev_id = Some("rbd00001-vol".into());
        let identity = Identity::of(&device, 0);
        assert_eq!(identity.vend_specific_id, "rbd00001-vol");
        assert_eq!(identity.eui64_id.unwrap().bytes(), b"rbd00001");
        assert_ne!(identity.usn, "rbd00001-vol");
    }
}
