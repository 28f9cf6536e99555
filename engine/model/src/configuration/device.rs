//! A DEVICE: one logical unit's medium, how it is opened, and what it tells of itself.

use super::{KeptAttribute, Source};

/// Block size if the file names none.
pub const BLOCK_SIZE_BYTES_DEFAULT: u32 = 512;
/// Least block size.
pub const BLOCK_SIZE_BYTES_MIN: u32 = 512;
/// Largest block size: above it no initiator that we know takes a disk.
pub const BLOCK_SIZE_BYTES_MAX: u32 = 65_536;
/// OPTIMAL TRANSFER LENGTH (SBC-4, Block Limits VPD page) if the file names none.
pub const OPT_TRANS_LEN_BYTES_DEFAULT: u32 = 524_288;
/// Size of a vdisk_nullio device if the file names none: SCST's 2.5 TiB.
pub const NULLIO_SIZE_BYTES_DEFAULT: u64 = 5 * (1 << 40) / 2;

const _: () = assert!(BLOCK_SIZE_BYTES_MIN.is_power_of_two() && BLOCK_SIZE_BYTES_MAX.is_power_of_two());

/// One DEVICE of a handler that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name: unique, and the seed of its default identity.
    pub name: String,
    /// What keeps its data.
    pub handler: Handler,
    /// Logical block size: a power of two, [`BLOCK_SIZE_BYTES_MIN`] to [`BLOCK_SIZE_BYTES_MAX`].
    pub block_size_bytes: u32,
    /// Refuses every write. Never together with `write_through` or `nv_cache`.
    pub read_only: bool,
    /// No volatile cache: a write is on the medium before its GOOD.
    pub write_through: bool,
    /// The administrator vouches for the power: WCE 0, and SYNCHRONIZE CACHE flushes nothing.
    pub nv_cache: bool,
    /// Past the page cache (vdisk_fileio only; vdisk_blockio always is).
    pub o_direct: bool,
    /// A medium that turns: Block Device Characteristics VPD page.
    pub rotational: bool,
    /// UNMAP and its kin are offered. Not yet in effect.
    pub thin_provisioned: bool,
    /// RMB of INQUIRY.
    pub removable: bool,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT tells the physical block: SCST's `lb_per_pb_exp`.
    pub lb_per_pb_exp: bool,
    /// OPTIMAL TRANSFER LENGTH, in bytes.
    pub opt_trans_len_bytes: u32,
    /// Commands of one nexus that may be open on this device; `None` is ours to choose.
    pub max_tgt_dev_commands: Option<u32>,
    /// Initiators may set asymmetric access states: SCST's `expl_alua`.
    pub explicit_alua: bool,
    /// Absolute path of the file that keeps reservations: SCST's `pr_file_name`. `None` is ours to choose.
    pub pr_file_name: Option<String>,
    /// What the file sets of the identity.
    pub identity: IdentityOverrides,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
    /// Where its section opens.
    pub source: Source,
}

/// What keeps a device's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// vdisk_fileio: a file.
    FileIo {
        /// Absolute path.
        filename: String,
        /// Size in bytes: a file that is not there is made, sparse; `None` is the file's own size.
        size_bytes: Option<u64>,
    },
    /// vdisk_blockio: a block device, past the page cache.
    BlockIo {
        /// Absolute path.
        filename: String,
        /// Size in bytes that is served; `None` is the block device's own.
        size_bytes: Option<u64>,
    },
    /// vdisk_nullio: writes go nowhere, reads give zeros.
    NullIo {
        /// Size in bytes.
        size_bytes: u64,
        /// No medium at all: a LUN 0 that is there only to be there.
        dummy: bool,
    },
    /// vdisk_ram, our own: memory, gone with the process.
    Ram {
        /// Size in bytes.
        size_bytes: u64,
    },
    /// vdisk_rbd, our own: an image of a Ceph cluster.
    Rbd(Box<RbdImage>),
}

/// An RBD image, and the client under which it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RbdImage {
    /// The image as one file name: `rbd:pool/namespace/image@snapshot`, with `:conf=path` where `conf` is set, so that images
    /// of two clusters are two. Made by [`RbdImage::named`].
    filename: String,
    /// The pool.
    pub pool: String,
    /// The namespace in the pool.
    pub namespace: Option<String>,
    /// The image.
    pub image: String,
    /// A snapshot of it, which is read-only.
    pub snapshot: Option<String>,
    /// The client's name, without `client.`.
    pub client: String,
    /// Absolute path of Ceph's configuration; `None` is where Ceph looks by itself.
    pub conf: Option<String>,
    /// Absolute path of the client's keyring; `None` is where Ceph's configuration says.
    pub keyring: Option<String>,
    /// Options of Ceph's, in the file's order.
    pub options: Vec<(String, String)>,
}

/// The client of an RBD image if the file names none.
pub const RBD_CLIENT_DEFAULT: &str = "admin";

impl RbdImage {
    /// An image under the default client.
    #[must_use]
    pub fn new(pool: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            filename: String::new(),
            pool: pool.into(),
            namespace: None,
            image: image.into(),
            snapshot: None,
            client: RBD_CLIENT_DEFAULT.to_owned(),
            conf: None,
            keyring: None,
            options: Vec::new(),
        }
        .named()
    }

    /// With the file name that its parts make.
    #[must_use]
    pub fn named(mut self) -> Self {
        let part = |text: &Option<String>, lead: &str, end: &str| {
            text.as_ref().map_or_else(String::new, |text| format!("{lead}{text}{end}"))
        };
        self.filename = format!(
            "rbd:{}/{}{}{}{}",
            self.pool,
            part(&self.namespace, "", "/"),
            self.image,
            part(&self.snapshot, "@", ""),
            part(&self.conf, ":conf=", "")
        );
        self
    }

    /// Reads `rbd:pool/image`, `rbd:pool/namespace/image`, either with `@snapshot`. `None` where it is not of that form.
    #[must_use]
    pub fn from_filename(filename: &str) -> Option<Self> {
        let rest = filename.strip_prefix("rbd:")?;
        let (path, snapshot) = match rest.split_once('@') {
            Some((path, snapshot)) => (path, Some(snapshot.to_owned())),
            None => (rest, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (pool, namespace, image) = match parts[..] {
            [pool, image] => (pool, None, image),
            [pool, namespace, image] => (pool, Some(namespace.to_owned()), image),
            _ => return None,
        };
        let given = [Some(pool), namespace.as_deref(), Some(image), snapshot.as_deref()];
        if given.into_iter().flatten().any(|part| part.is_empty() || part.contains(['@', ':', '/'])) {
            return None;
        }
        Some(Self { namespace, snapshot, ..Self::new(pool, image) }.named())
    }
}

impl Handler {
    /// The handler's name in scst.conf.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::FileIo { .. } => "vdisk_fileio",
            Self::BlockIo { .. } => "vdisk_blockio",
            Self::NullIo { .. } => "vdisk_nullio",
            Self::Ram { .. } => "vdisk_ram",
            Self::Rbd(_) => "vdisk_rbd",
        }
    }

    /// The path that is opened, if there is one; of an RBD image, what names it.
    #[must_use]
    pub fn filename(&self) -> Option<&str> {
        match self {
            Self::FileIo { filename, .. } | Self::BlockIo { filename, .. } => Some(filename),
            Self::Rbd(image) => Some(&image.filename),
            Self::NullIo { .. } | Self::Ram { .. } => None,
        }
    }

    /// Whether it is vdisk_nullio with `dummy 1`.
    #[must_use]
    pub fn is_dummy(&self) -> bool {
        matches!(self, Self::NullIo { dummy: true, .. })
    }

    /// The size in bytes, where the configuration fixes it.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::FileIo { size_bytes, .. } | Self::BlockIo { size_bytes, .. } => *size_bytes,
            Self::NullIo { size_bytes, .. } | Self::Ram { size_bytes } => Some(*size_bytes),
            Self::Rbd(_) => None,
        }
    }
}

/// What a file may set of a device's identity; `None` is SCST's default, see [`super::Identity`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IdentityOverrides {
    /// T10 VENDOR IDENTIFICATION, at most 8 ASCII characters.
    pub t10_vend_id: Option<String>,
    /// PRODUCT IDENTIFICATION, at most 16.
    pub prod_id: Option<String>,
    /// PRODUCT REVISION LEVEL, at most 4.
    pub prod_rev_lvl: Option<String>,
    /// What the T10 vendor designator carries behind the vendor, at most 25.
    pub t10_dev_id: Option<String>,
    /// What the vendor specific designator carries, at most 32.
    pub vend_specific_id: Option<String>,
    /// PRODUCT SERIAL NUMBER of VPD page 80h, at most 20.
    pub usn: Option<String>,
    /// NAA designator: 8 or 16 bytes.
    pub naa_id: Option<DeviceIdentifier>,
    /// EUI-64 based designator: 8, 12 or 16 bytes.
    pub eui64_id: Option<DeviceIdentifier>,
    /// Vendor specific bytes of the standard INQUIRY data.
    pub inq_vend_specific: Option<String>,
    /// SCSI name string designator.
    pub scsi_device_name: Option<String>,
}

/// 8, 12 or 16 bytes that name a device to the world (SPC-5 §7.7.6).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceIdentifier(Box<[u8]>);

impl DeviceIdentifier {
    /// Reads hexadecimal digits, with or without `0x`; `None` if they are none, or not 8, 12 or 16 bytes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
        if !matches!(digits.len(), 16 | 24 | 32) {
            return None;
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let bytes: Option<Box<[u8]>> =
            digits.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect();
        bytes.map(Self)
    }

    /// The bytes, as they go into the designator.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for DeviceIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for DeviceIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{self}")
    }
}

impl Device {
    /// A device with every attribute at its default.
    #[must_use]
    pub fn new(name: impl Into<String>, handler: Handler) -> Self {
        Self {
            name: name.into(),
            handler,
            block_size_bytes: BLOCK_SIZE_BYTES_DEFAULT,
            read_only: false,
            write_through: false,
            nv_cache: false,
            o_direct: false,
            rotational: true,
            thin_provisioned: false,
            removable: false,
            lb_per_pb_exp: true,
            opt_trans_len_bytes: OPT_TRANS_LEN_BYTES_DEFAULT,
            max_tgt_dev_commands: None,
            explicit_alua: false,
            pr_file_name: None,
            identity: IdentityOverrides::default(),
            kept: Vec::new(),
            source: Source::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rbd_image_is_read_from_a_file_name_as_ceph_writes_it() {
        let image = RbdImage::from_filename("rbd:pool/space/disk@monday").unwrap();
        assert_eq!((image.pool.as_str(), image.image.as_str()), ("pool", "disk"));
        assert_eq!((image.namespace.as_deref(), image.snapshot.as_deref()), (Some("space"), Some("monday")));
        assert_eq!(Handler::Rbd(Box::new(image)).filename(), Some("rbd:pool/space/disk@monday"));
        assert_eq!(RbdImage::from_filename("rbd:rbd/disk"), Some(RbdImage::new("rbd", "disk")));
        for wrong in [
            "rbd/disk",
            "rbd:disk",
            "rbd:/disk",
            "rbd:a/",
            "rbd:a/b/c/d",
            "rbd:a/b@",
            "rbd:a/b@c@d",
            "rbd:a/b:id=x",
        ] {
            assert_eq!(RbdImage::from_filename(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn images_of_two_clusters_have_two_names() {
        let other =
            RbdImage { conf: Some("/etc/ceph/b.conf".to_owned()), ..RbdImage::new("rbd", "disk") }.named();
        assert_eq!(Handler::Rbd(Box::new(other)).filename(), Some("rbd:rbd/disk:conf=/etc/ceph/b.conf"));
    }

    #[test]
    fn an_identifier_is_read_from_hex_with_and_without_prefix() {
        let naa = DeviceIdentifier::from_hex("0x5000C500a1b2c3d4").unwrap();
        assert_eq!(naa.bytes(), [0x50, 0x00, 0xc5, 0x00, 0xa1, 0xb2, 0xc3, 0xd4]);
        assert_eq!(naa, DeviceIdentifier::from_hex("5000c500a1b2c3d4").unwrap());
        assert_eq!(naa.to_string(), "5000c500a1b2c3d4");
        assert_eq!(DeviceIdentifier::from_hex("5000c500a1b2c3d"), None);
        assert_eq!(DeviceIdentifier::from_hex("5000c500a1b2c3dg"), None);
        assert_eq!(DeviceIdentifier::from_hex(&"5".repeat(20)), None);
        assert_eq!(DeviceIdentifier::from_hex("+0000c500a1b2c3d"), None);
        assert_eq!(DeviceIdentifier::from_hex("ä0c500a1b2c3d44"), None);
    }
}
