//! What the gateway serves when nobody has told it anything: three LUNs on loopback, the first of which keeps its data.

use std::path::Path;

use super::{Configuration, Device, Handler, IscsiName, LunMapping, Portal, Target};

/// The name of the embedded target.
pub const EMBEDDED_TARGET: &str = "iqn.2026-11.io.portico:default";

const FILE_SIZE_BYTES: u64 = 64 << 30;
const RAM_SIZE_BYTES: u64 = 256 << 20;
const NULL_SIZE_BYTES: u64 = 64 << 30;

/// The embedded default: LUN 0 a sparse file of 64 GiB in `data_dir`, LUN 1 256 MiB of memory, LUN 2 null.
///
/// Opens and makes nothing. `data_dir` should be absolute; characters of its name outside of UTF-8 are lost.
#[must_use]
pub fn embedded_default(data_dir: &Path) -> Configuration {
    let filename = data_dir.join("disk.img").to_string_lossy().into_owned();
    let mut disk = Device::new("disk", Handler::FileIo { filename, size_bytes: Some(FILE_SIZE_BYTES) });
    disk.rotational = false;
    let mut ram = Device::new("ram", Handler::Ram { size_bytes: RAM_SIZE_BYTES });
    ram.rotational = false;
    let mut null = Device::new("null", Handler::NullIo { size_bytes: NULL_SIZE_BYTES, dummy: false });
    null.rotational = false;

    let mut target =
        Target::new(IscsiName::parse(EMBEDDED_TARGET).expect("the embedded name is an iSCSI name"));
    target.enabled = true;
    target.luns = vec![LunMapping::new(0, "disk"), LunMapping::new(1, "ram"), LunMapping::new(2, "null")];

    let mut configuration = Configuration {
        devices: vec![disk, ram, null],
        targets: vec![target],
        portals: Portal::loopback(),
        ..Configuration::default()
    };
    configuration.iscsi.enabled = true;
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_default_serves_three_luns_to_everybody_on_loopback() {
        let configuration = embedded_default(Path::new("/var/lib/portico"));
        let target = configuration.target("iqn.2026-11.io.portico:default").unwrap();
        assert!(configuration.serves(target));
        let portal = configuration.portals[0].0;
        assert!(portal.ip().is_loopback());
        let luns = target.luns_for("iqn.any", portal.ip()).unwrap();
        let served: Vec<_> = luns
            .iter()
            .map(|lun| {
                let handler = &configuration.device(&lun.device).unwrap().handler;
                (lun.lun, handler.name(), handler.size_bytes().unwrap())
            })
            .collect();
        assert_eq!(
            served,
            [(0, "vdisk_fileio", 64 << 30), (1, "vdisk_ram", 256 << 20), (2, "vdisk_nullio", 64 << 30)]
        );
        let disk = configuration.device("disk").unwrap();
        assert_eq!(disk.handler.filename(), Some("/var/lib/portico/disk.img"));
    }
}
