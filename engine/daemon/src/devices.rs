//! How a DEVICE of the configuration becomes a medium. Runs on control's helper threads; may block.

use std::path::Path;
use std::sync::Arc;

use portico_backstores::open::{BlockOptions, FileOptions, open_block, open_file, pool_bytes};
use portico_backstores::rbd::open_rbd;
use portico_backstores::{Medium, NullStore, RamStore, RbdOptions};
use portico_control::core::Opened;
use portico_control::runtime::{Devices, SizeWatch};
use portico_model::configuration::{Device, Handler, RbdImage};
use portico_scsi::space::Space;

/// Opens devices for so many shards.
#[derive(Debug)]
pub(crate) struct Media {
    /// Shards, each of which opens a queue.
    pub shards: u32,
}

impl Devices for Media {
    type Medium = Medium;

    fn open(&self, device: &Device, watch: SizeWatch<Medium>) -> Result<Opened<Medium>, String> {
        let medium = self.medium(device, watch)?;
        let geometry = medium.geometry();
        Ok(Opened {
            untorn_bytes: medium.untorn_bytes(),
            medium,
            size_bytes: geometry.size_bytes(),
            physical_block_bytes: Some(geometry.physical_block_bytes),
            read_only: geometry.read_only,
        })
    }

    fn space(&self, medium: &Medium) -> Option<Space> {
        space_below(medium)
    }

    fn resize(&self, medium: &Medium, device: &Device) -> Result<u64, String> {
        medium.resize(match &device.handler {
            Handler::NullIo { size_bytes, .. } | Handler::Ram { size_bytes } => Some(*size_bytes),
            Handler::FileIo { size_bytes, .. } | Handler::BlockIo { size_bytes, .. } => *size_bytes,
            // The cluster says it.
            Handler::Rbd(_) => None,
        })
    }
}

/// What the file system below a file has.
fn space_below(medium: &Medium) -> Option<Space> {
    let Medium::File(store) = medium else { return None };
    match pool_bytes(store) {
        Ok(found) => found.map(|(available_bytes, used_bytes)| Space { available_bytes, used_bytes }),
        Err(error) => {
            tracing::warn!(%error, "a file system does not say how much it has left");
            None
        }
    }
}

impl Media {
    fn medium(&self, device: &Device, watch: SizeWatch<Medium>) -> Result<Medium, String> {
        let block = device.block_size_bytes;
        let blocks = |bytes: u64| bytes / u64::from(block);
        match &device.handler {
            Handler::NullIo { size_bytes, .. } => {
                let store = NullStore::new(block, blocks(*size_bytes), device.read_only);
                store.map(Medium::Null).map_err(|error| error.to_string())
            }
            Handler::Ram { size_bytes } => {
                let store = RamStore::new(block, blocks(*size_bytes), device.read_only);
                store.map(Medium::Ram).map_err(|error| format!("{size_bytes} bytes of memory: {error}"))
            }
            Handler::Rbd(image) => {
                open_rbd(options_of(image, device), move |size| watch.announce(size)).map(Medium::Rbd)
            }
            Handler::FileIo { filename, size_bytes } => self.file(device, filename, *size_bytes),
            Handler::BlockIo { filename, size_bytes } => {
                let opened = open_block(&BlockOptions {
                    size_bytes: *size_bytes,
                    block_length: Some(block),
                    read_only: device.read_only,
                    write_through: device.write_through,
                    nv_cache: device.nv_cache,
                    queues: self.shards,
                    ..BlockOptions::new(filename)
                });
                let opened = opened.map_err(|error| error.to_string())?;
                warn(device, &opened.warnings);
                Ok(Medium::File(opened.store))
            }
        }
    }

    fn file(&self, device: &Device, filename: &str, size_bytes: Option<u64>) -> Result<Medium, String> {
        if let Some(folder) = Path::new(filename).parent().filter(|folder| !folder.exists()) {
            return Err(format!("{filename}: the folder {} is not there", folder.display()));
        }
        let opened = open_file(&FileOptions {
            size_bytes,
            block_length: device.block_size_bytes,
            read_only: device.read_only,
            write_through: device.write_through,
            nv_cache: device.nv_cache,
            o_direct: device.o_direct,
            queues: self.shards,
            ..FileOptions::new(filename)
        });
        let opened = opened.map_err(|error| error.to_string())?;
        warn(device, &opened.warnings);
        if opened.created {
            tracing::info!(device = device.name, filename, "file created");
        }
        Ok(Medium::File(Arc::clone(&opened.store)))
    }
}

fn options_of(image: &RbdImage, device: &Device) -> RbdOptions {
    RbdOptions {
        namespace: image.namespace.clone(),
        snapshot: image.snapshot.clone(),
        client: image.client.clone(),
        conf: image.conf.clone(),
        keyring: image.keyring.clone(),
        settings: image.options.clone(),
        block_length: device.block_size_bytes,
        read_only: device.read_only,
        ..RbdOptions::new(&image.pool, &image.image)
    }
}

fn warn(device: &Device, warnings: &[portico_backstores::open::Warning]) {
    for warning in warnings {
        tracing::warn!(device = device.name, "{warning}");
    }
    if device.nv_cache {
        tracing::warn!(
            device = device.name,
            "nv_cache 1: SYNCHRONIZE CACHE flushes nothing, the administrator vouches for the power"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_that_is_written_beside_a_device_is_asked_of_its_medium() {
        let media = Media { shards: 1 };
        let medium = Medium::Null(NullStore::new(512, 2048, false).unwrap());
        let filename = String::from("/dev/disk");
        let sized = Handler::BlockIo { filename: filename.clone(), size_bytes: Some(512 << 10) };
        assert_eq!(media.resize(&medium, &Device::new("disk", sized)), Ok(512 << 10));
        let whole = Handler::BlockIo { filename, size_bytes: None };
        assert_eq!(media.resize(&medium, &Device::new("disk", whole)), Ok(1 << 20));
    }
}
