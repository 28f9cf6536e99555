//! Who a logical unit says it is: by default byte for byte what SCST says for the same scst.conf, so that a migrated
//! disk stays the same disk for multipath, VMFS and Windows.
//!
//! n = setup_id << 32 | crc32c(seed 0, no final inversion, the device's name with its NUL); the unit serial number is n in
//! hex, the T10 device id is the serial number, a dash and the name, cut to 25 characters. An override in the
//! configuration wins over each.

use std::fmt;

/// ASCII text of at most `N` bytes, in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ascii<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Ascii<N> {
    const EMPTY: Self = Self { bytes: [0; N], length: 0 };

    /// The first `N` bytes of `text`.
    fn cut(text: &str) -> Self {
        let mut ascii = Self::EMPTY;
        ascii.length = text.len().min(N);
        ascii.bytes[..ascii.length].copy_from_slice(&text.as_bytes()[..ascii.length]);
        ascii
    }

    /// The text's bytes, without padding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Left-aligned in `W` bytes, filled up with spaces, cut where it is longer (SPC-4 §4.3.1).
    pub(crate) fn padded<const W: usize>(&self) -> [u8; W] {
        let mut field = [b' '; W];
        let length = self.length.min(W);
        field[..length].copy_from_slice(&self.bytes[..length]);
        field
    }
}

impl<const N: usize> fmt::Debug for Ascii<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A binary designator of up to 16 bytes: NAA or EUI-64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BinaryId {
    bytes: [u8; 16],
    length: u8,
}

impl BinaryId {
    fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, length: u8::try_from(id.len()).ok()? })
    }

    /// The designator's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for BinaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which vendor the unit names by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// vdisk_fileio, and vdisk_nullio, which SCST gives the same vendor.
    FileIo,
    /// vdisk_blockio, and an RBD image: one that SCST served was mapped by the kernel, and a block device.
    BlockIo,
    /// Our RAM disk, which is not SCST's: no disk of an existing setup can change its name by this.
    Ram,
}

/// What the configuration says about a unit's identity; `None` and empty mean SCST's default.
#[derive(Clone, Debug)]
pub struct IdentityOptions<'a> {
    /// The core's `setup_id`.
    pub setup_id: u32,
    /// The DEVICE's name.
    pub name: &'a str,
    /// The HANDLER's kind.
    pub handler: Handler,
    /// `t10_vend_id`, at most 8 characters.
    pub t10_vend_id: Option<&'a str>,
    /// `prod_id`, at most 16 characters.
    pub prod_id: Option<&'a str>,
    /// `prod_rev_lvl`, at most 4 characters.
    pub prod_rev_lvl: Option<&'a str>,
    /// `t10_dev_id`, at most 25 characters.
    pub t10_dev_id: Option<&'a str>,
    /// `vend_specific_id`, at most 128 characters.
    pub vend_specific_id: Option<&'a str>,
    /// `usn`, at most 48 characters.
    pub usn: Option<&'a str>,
    /// `naa_id`, 8 or 16 bytes.
    pub naa_id: Option<&'a [u8]>,
    /// `eui64_id`, 8, 12 or 16 bytes.
    pub eui64_id: Option<&'a [u8]>,
    /// `inq_vend_specific`, at most 160 bytes.
    pub inq_vend_specific: &'a [u8],
    /// `scsi_device_name`, at most 128 characters.
    pub scsi_device_name: &'a str,
}

impl<'a> IdentityOptions<'a> {
    /// SCST's defaults for a device of this name.
    pub const fn new(setup_id: u32, name: &'a str, handler: Handler) -> Self {
        Self {
            setup_id,
            name,
            handler,
            t10_vend_id: None,
            prod_id: None,
            prod_rev_lvl: None,
            t10_dev_id: None,
            vend_specific_id: None,
            usn: None,
            naa_id: None,
            eui64_id: None,
            inq_vend_specific: &[],
            scsi_device_name: "",
        }
    }
}

/// Why an identity cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The attribute is longer than its field.
    TooLong {
        /// Name of the attribute.
        attribute: &'static str,
        /// What it may hold, in bytes.
        bytes_max: usize,
    },
    /// The attribute holds something else than printable ASCII (SPC-4 §4.3.1).
    NotAscii {
        /// Name of the attribute.
        attribute: &'static str,
    },
    /// A NAA designator has 8 bytes, not beginning with 6, or 16 bytes, beginning with 6 (SPC-4 §7.8.6.6).
    Naa,
    /// An EUI-64 designator has 8, 12 or 16 bytes (SPC-4 §7.8.6.5).
    Eui64,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { attribute, bytes_max } => {
                write!(f, "{attribute} holds at most {bytes_max} characters")
            }
            Self::NotAscii { attribute } => write!(f, "{attribute} must be printable ASCII"),
            Self::Naa => write!(f, "naa_id must have 8 bytes that do not begin with 6, or 16 bytes that do"),
            Self::Eui64 => write!(f, "eui64_id must have 8, 12 or 16 bytes"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// SCST's `t10_dev_id` field.
pub const T10_DEVICE_ID_MAX: usize = 25;
/// SCST's `vend_specific_id` and `scsi_device_name` fields.
pub const LONG_NAME_MAX: usize = 128;
/// The unit serial number.
pub const SERIAL_NUMBER_MAX: usize = 48;
/// Vendor specific INQUIRY data: up to 20 bytes go to byte 36, more to byte 96 (SPC-4 §6.6.2).
pub const INQUIRY_VENDOR_SPECIFIC_MAX: usize = 160;

/// SCST's answer for PRODUCT REVISION LEVEL.
const REVISION: &str = "3110";

/// Who a logical unit says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION.
    pub vendor: Ascii<8>,
    /// PRODUCT IDENTIFICATION.
    pub product: Ascii<16>,
    /// PRODUCT REVISION LEVEL.
    pub revision: Ascii<4>,
    /// PRODUCT SERIAL NUMBER of VPD 80.
    pub serial_number: Ascii<SERIAL_NUMBER_MAX>,
    /// SCST's `t10_dev_id`.
    pub t10_device_id: Ascii<T10_DEVICE_ID_MAX>,
    /// VENDOR SPECIFIC IDENTIFIER of the T10 designator.
    pub vendor_specific_id: Ascii<LONG_NAME_MAX>,
    /// NAA designator.
    pub naa: Option<BinaryId>,
    /// EUI-64 designator, as it is reported.
    pub eui64: Option<BinaryId>,
    /// Vendor specific bytes of standard INQUIRY data.
    pub inquiry_vendor_specific: Ascii<INQUIRY_VENDOR_SPECIFIC_MAX>,
    /// Target device SCSI name string; empty for none.
    pub scsi_device_name: Ascii<LONG_NAME_MAX>,
}

impl Identity {
    /// The identity that the configuration describes.
    ///
    /// # Errors
    /// The attribute that cannot be what it is.
    pub fn new(options: &IdentityOptions<'_>) -> Result<Self, IdentityError> {
        let serial_default = format!("{:x}", device_number(options.setup_id, options.name));
        let serial = options.usn.unwrap_or(&serial_default);
        let t10_default = format!("{serial_default}-{}", options.name);
        let t10_device_id = match options.t10_dev_id {
            Some(id) => checked("t10_dev_id", id)?,
            None => Ascii::cut(&t10_default),
        };
        let vendor_specific_id = match options.vend_specific_id {
            Some(id) => checked("vend_specific_id", id)?,
            None => widen(&t10_device_id),
        };
        let vendor = match options.handler {
            Handler::FileIo => "SCST_FIO",
            Handler::BlockIo => "SCST_BIO",
            Handler::Ram => "PORTICO",
        };
        let naa = options.naa_id.map(naa).transpose()?;
        Ok(Self {
            vendor: checked("t10_vend_id", options.t10_vend_id.unwrap_or(vendor))?,
            product: match options.prod_id {
                Some(id) => checked("prod_id", id)?,
                None => Ascii::cut(options.name),
            },
            revision: checked("prod_rev_lvl", options.prod_rev_lvl.unwrap_or(REVISION))?,
            serial_number: checked("usn", serial)?,
            t10_device_id,
            vendor_specific_id,
            naa,
            eui64: match options.eui64_id {
                Some(id) => Some(eui64(id)?),
                None if naa.is_some() => None,
                None => Some(compatible_eui64(&t10_device_id)),
            },
            inquiry_vendor_specific: vendor_specific(options.inq_vend_specific)?,
            scsi_device_name: checked("scsi_device_name", options.scsi_device_name)?,
        })
    }
}

/// SCST's number of a device.
fn device_number(setup_id: u32, name: &str) -> u64 {
    // The kernel's crc32c(0, …) neither starts with all ones nor inverts at the end; the crate does both.
    let crc = crc32c::crc32c_append(u32::MAX, name.as_bytes());
    u64::from(setup_id) << 32 | u64::from(!crc32c::crc32c_append(crc, &[0]))
}

fn checked<const N: usize>(attribute: &'static str, text: &str) -> Result<Ascii<N>, IdentityError> {
    if text.len() > N {
        return Err(IdentityError::TooLong { attribute, bytes_max: N });
    }
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(IdentityError::NotAscii { attribute });
    }
    Ok(Ascii::cut(text))
}

fn widen<const N: usize, const W: usize>(text: &Ascii<N>) -> Ascii<W> {
    const { assert!(W >= N) };
    let mut wide = Ascii::EMPTY;
    wide.length = text.length;
    wide.bytes[..text.length].copy_from_slice(text.as_bytes());
    wide
}

fn naa(id: &[u8]) -> Result<BinaryId, IdentityError> {
    let extended = id.first().is_some_and(|first| first >> 4 == 6);
    match (id.len(), extended) {
        (8, false) | (16, true) => BinaryId::new(id).ok_or(IdentityError::Naa),
        _ => Err(IdentityError::Naa),
    }
}

fn eui64(id: &[u8]) -> Result<BinaryId, IdentityError> {
    match id.len() {
        8 | 12 | 16 => BinaryId::new(id).ok_or(IdentityError::Eui64),
        _ => Err(IdentityError::Eui64),
    }
}

/// SCST's designator for who has set none: eight ASCII bytes that are no EUI-64, and must stay.
fn compatible_eui64(t10_device_id: &Ascii<T10_DEVICE_ID_MAX>) -> BinaryId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&t10_device_id.bytes[..8]);
    BinaryId { bytes, length: 8 }
}

fn vendor_specific(bytes: &[u8]) -> Result<Ascii<INQUIRY_VENDOR_SPECIFIC_MAX>, IdentityError> {
    let mut field = Ascii::EMPTY;
    let bytes_max = INQUIRY_VENDOR_SPECIFIC_MAX;
    let place = field.bytes.get_mut(..bytes.len());
    let place = place.ok_or(IdentityError::TooLong { attribute: "inq_vend_specific", bytes_max })?;
    place.copy_from_slice(bytes);
    field.length = bytes.len();
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC32C bit by bit, from the polynomial alone, with seed 0 and no inversion.
    fn plain_crc32c(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0, |crc: u32, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        })
    }

    fn of(name: &str) -> Identity {
        Identity::new(&IdentityOptions::new(0, name, Handler::FileIo)).unwrap()
    }

    #[test]
    fn the_number_of_a_device_is_the_kernels_crc_of_its_name_with_the_nul() {
        for name in ["disk1", "a", "a very long name of a device indeed"] {
            let expected = plain_crc32c(&[name.as_bytes(), &[0]].concat());
            assert_eq!(device_number(0, name), u64::from(expected), "{name}");
            assert_eq!(device_number(7, name), 7 << 32 | u64::from(expected), "{name}");
        }
        // Computed apart, by a program whose CRC32C gives the catalogue's check value E3069283 for "123456789".
        assert_eq!(device_number(0, "disk1"), 0xb8fd_bd32);
        // The NUL matters, and so does the missing inversion: the usual crc32c is another number.
        assert_ne!(device_number(0, "disk1"), u64::from(crc32c::crc32c(b"disk1\0")));
    }

    #[test]
    fn serial_number_and_t10_id_come_from_that_number() {
        let identity = of("disk1");
        let hex = format!("{:x}", plain_crc32c(b"disk1\0"));
        assert_eq!(identity.serial_number.as_bytes(), hex.as_bytes());
        assert_eq!(identity.t10_device_id.as_bytes(), format!("{hex}-disk1").as_bytes());
        assert_eq!(identity.vendor_specific_id.as_bytes(), identity.t10_device_id.as_bytes());
        assert_eq!(identity.eui64.unwrap().as_bytes(), &identity.t10_device_id.as_bytes()[..8]);
    }

    #[test]
    fn a_long_name_is_cut_to_25_characters_of_id_and_16_of_product() {
        let identity = of("a-device-with-a-long-name");
        assert_eq!(identity.t10_device_id.as_bytes().len(), 25);
        assert_eq!(identity.product.as_bytes(), b"a-device-with-a-");
    }

    #[test]
    fn the_handler_chooses_the_vendor() {
        let block = Identity::new(&IdentityOptions::new(0, "d", Handler::BlockIo)).unwrap();
        assert_eq!(block.vendor.as_bytes(), b"SCST_BIO");
        assert_eq!(of("d").vendor.as_bytes(), b"SCST_FIO");
        let ram = Identity::new(&IdentityOptions::new(0, "d", Handler::Ram)).unwrap();
        assert_eq!(ram.vendor.as_bytes(), b"PORTICO");
        assert_eq!(of("d").revision.as_bytes(), b"3110");
    }

    #[test]
    fn a_given_naa_takes_the_place_of_the_ascii_eui64() {
        let mut options = IdentityOptions::new(0, "d", Handler::FileIo);
        options.naa_id = Some(&[0x30, 1, 2, 3, 4, 5, 6, 7]);
        let identity = Identity::new(&options).unwrap();
        assert_eq!(identity.naa.unwrap().as_bytes()[0], 0x30);
        assert_eq!(identity.eui64, None);
    }

    #[test]
    fn what_hangs_on_a_given_t10_device_id_follows_it() {
        let mut options = IdentityOptions::new(0, "disk1", Handler::FileIo);
        options.t10_dev_id = Some("rbd00001-vol");
        let identity = Identity::new(&options).unwrap();
        assert_eq!(identity.vendor_specific_id.as_bytes(), b"rbd00001-vol");
        assert_eq!(identity.eui64.unwrap().as_bytes(), b"rbd00001");
        assert_eq!(identity.serial_number, of("disk1").serial_number);
    }

    #[test]
    fn a_usn_override_leaves_the_t10_id_alone() {
        let mut options = IdentityOptions::new(0, "disk1", Handler::FileIo);
        options.usn = Some("my-serial");
        let identity = Identity::new(&options).unwrap();
        assert_eq!(identity.serial_number.as_bytes(), b"my-serial");
        assert_eq!(identity.t10_device_id, of("disk1").t10_device_id);
    }

    #[test]
    fn what_does_not_fit_or_is_not_ascii_is_refused_by_name() {
        let mut options = IdentityOptions::new(0, "d", Handler::FileIo);
        options.t10_vend_id = Some("NINECHARS");
        assert_eq!(
            Identity::new(&options).unwrap_err(),
            IdentityError::TooLong { attribute: "t10_vend_id", bytes_max: 8 },
        );
        options.t10_vend_id = Some("é");
        assert_eq!(
            Identity::new(&options).unwrap_err(),
            IdentityError::NotAscii { attribute: "t10_vend_id" }
        );
        options.t10_vend_id = None;
        options.naa_id = Some(&[0x60; 8]);
        assert_eq!(Identity::new(&options).unwrap_err(), IdentityError::Naa);
        options.naa_id = Some(&[0x60; 16]);
        assert!(Identity::new(&options).is_ok());
        options.eui64_id = Some(&[1; 9]);
        assert_eq!(Identity::new(&options).unwrap_err(), IdentityError::Eui64);
    }
}
