//! What control has others do, in a simulated world: devices, listening sockets.

use portico_backstores::{Caching, FileStore, Geometry, Medium, NullStore, RamStore};
use portico_control::core::{Bound, Opened};
use portico_model::configuration::{Configuration, Device, Portal};

use crate::driver::portal;
use crate::hub::{Hub, Thing};
use crate::network::{inode_of, pair};
use crate::scenario::{Cache, Kind, Scenario};

/// What a reload changes of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// QueuedCommands.
    pub(crate) window: u32,
    /// So many of the last units are not there.
    pub(crate) units_hidden: usize,
    /// Whether the target takes logins.
    pub(crate) enabled: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { window: 32, units_hidden: 0, enabled: true }
    }
}

/// What the gateway of a scenario is told to be.
pub(crate) fn configuration(scenario: &Scenario, shape: Shape) -> Configuration {
    let (window, enabled) = (shape.window, u8::from(shape.enabled));
    let units = &scenario.units[..scenario.units.len() - shape.units_hidden];
    let mut files = String::new();
    let (mut memories, mut nulls) = (String::new(), String::new());
    let mut luns = String::new();
    for (number, unit) in units.iter().enumerate() {
        let block = unit.block_sectors * 512;
        let thin = if unit.thin { "thin_provisioned 1\n" } else { "" };
        luns += &format!("LUN {number} d{number}\n");
        match unit.kind {
            Kind::Memory | Kind::Null => {
                let size = unit.sectors * 512;
                let list = if unit.kind == Kind::Null { &mut nulls } else { &mut memories };
                *list += &format!("DEVICE d{number} {{\nsize {size}\nblocksize {block}\n{thin}}}\n");
            }
            Kind::File { cache, direct } => {
                let through = u8::from(cache == Cache::Through);
                let nonvolatile = u8::from(cache == Cache::NonVolatile);
                let direct = u8::from(direct);
                files += &format!(
                    "DEVICE d{number} {{\nfilename /sim/{number}\nblocksize {block}\n\
                     write_through {through}\nnv_cache {nonvolatile}\no_direct {direct}\n{thin}}}\n"
                );
            }
        }
    }
    let text = format!(
        "HANDLER vdisk_fileio {{\n{files}}}\nHANDLER vdisk_ram {{\n{memories}}}\nHANDLER vdisk_nullio {{\n{nulls}}}\n\
         TARGET_DRIVER iscsi {{\nenabled 1\nTARGET {} {{\nenabled {enabled}\nQueuedCommands {window}\n\
         ErrorRecoveryLevel 2\nMaxConnections 4\n{luns}}}\n}}\n",
        crate::initiator::TARGET
    );
    let parsed = portico_control::scst_conf::parse("sim", text.as_bytes());
    let report = parsed.report(portico_control::scst_conf::Colour::Off);
    let mut configuration = parsed.configuration.unwrap_or_else(|| panic!("{text}\n{report}"));
    configuration.portals = vec![Portal(portal())];
    configuration
}

/// The number of a device's medium.
pub(crate) fn number_of(device: &Device) -> usize {
    device.name.trim_start_matches('d').parse().expect("devices are named by number")
}

/// Opens a device, now and then not at the first time.
pub(crate) fn open(hub: &mut Hub, scenario: &Scenario, device: &Device) -> Result<Opened<Medium>, String> {
    if hub.random.chance(1, 8) {
        return Err("it does not want to yet".to_owned());
    }
    let number = number_of(device);
    if hub.disks[number].is_open {
        return Err("it is open still, it does not want to yet".to_owned());
    }
    let unit = scenario.units[number];
    let block_length = u32::try_from(unit.block_sectors * 512).expect("a block is small");
    let blocks = unit.sectors as u64 / unit.block_sectors;
    let medium = match unit.kind {
        Kind::Memory => {
            let store = RamStore::new(block_length, blocks, false);
            Medium::Ram(store.map_err(|error| error.to_string())?)
        }
        Kind::Null => {
            let store = NullStore::new(block_length, blocks, false);
            Medium::Null(store.map_err(|error| error.to_string())?)
        }
        Kind::File { cache, direct } => {
            let alignment = if direct { 512 } else { 1 };
            let geometry = Geometry {
                block_length,
                blocks,
                physical_block_bytes: block_length.max(4096),
                memory_alignment: alignment,
                offset_alignment: alignment,
                rotational: false,
                volatile_cache: cache == Cache::Back,
                read_only: false,
            };
            let caching = Caching {
                direct,
                write_through: cache == Cache::Through,
                nv_cache: cache == Cache::NonVolatile,
                untorn_bytes: 0,
                writes_punt: !direct,
                depth: unit.depth,
                punted_max: unit.punted_max,
            };
            Medium::File(FileStore::simulated(number as u64, geometry, caching))
        }
    };
    hub.disks[number].is_open = true;
    Ok(Opened {
        size_bytes: medium.geometry().size_bytes(),
        physical_block_bytes: Some(medium.geometry().physical_block_bytes),
        read_only: false,
        untorn_bytes: None,
        medium,
    })
}

/// A listening socket that is none.
pub(crate) fn bind(hub: &mut Hub, portal: Portal) -> Bound {
    let (anchor, theirs) = pair();
    let (socket, inode) = inode_of(theirs);
    hub.things.insert(inode, Thing::Listener);
    // A listener has no peer: nobody asks whether it was dropped.
    drop(anchor);
    Bound { socket, address: portal.0 }
}
