//! The steps, and what each makes of a configuration.

use std::fmt;

use portico_model::configuration::{
    Configuration, Core, Device, DeviceGroup, ForeignSection, Group, IscsiDriver, IscsiName, LunMapping,
    Portal, Target,
};

use super::target;

/// When a thing may be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// If no session uses it, and nothing else needs it; else it is kept and named.
    Unused,
    /// Whoever uses it: tasks are drained, and sessions told (3F/0E, REPORTED LUNS DATA HAS CHANGED).
    Now,
}

/// A list of LUNs: a target's own, or one of its groups'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The target.
    pub target: IscsiName,
    /// The group's name; `None` is the target itself.
    pub group: Option<String>,
}

/// One thing to do. Each leaves a configuration behind it that could be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The target takes no more logins.
    DisableTarget {
        /// Its name.
        target: IscsiName,
    },
    /// The target goes, with its groups and LUNs.
    RemoveTarget {
        /// Its name.
        target: IscsiName,
        /// Whether its sessions hinder that.
        when: When,
    },
    /// A LUN goes.
    UnmapLun {
        /// From where.
        place: Place,
        /// Its number.
        lun: u16,
        /// Whether sessions that see it hinder that.
        when: When,
    },
    /// The device is closed. Never while a LUN still maps it, whatever `when` says.
    CloseDevice {
        /// Its name.
        device: String,
        /// Whether sessions hinder that.
        when: When,
    },
    /// Attributes of an open device change.
    ChangeDevice {
        /// The device as it is from then on.
        device: Device,
        /// What changes, as scst.conf spells it.
        changed: Vec<&'static str>,
    },
    /// Devices are all closed and then all opened, under the LUNs that map them; only in a forced plan.
    ReopenDevices {
        /// The devices as they are from then on.
        devices: Vec<Device>,
    },
    /// A device is opened.
    OpenDevice {
        /// The device.
        device: Device,
    },
    /// A target appears, with its groups and LUNs, and not yet enabled.
    AddTarget {
        /// The target.
        target: Target,
    },
    /// Attributes of a target change, for sessions to come: what is negotiated stays.
    ChangeTarget {
        /// The target with its new attributes; its LUNs, its groups and whether it is enabled do not count.
        target: Target,
        /// What changes, as scst.conf spells it.
        changed: Vec<&'static str>,
    },
    /// A group appears.
    AddGroup {
        /// In which target.
        target: IscsiName,
        /// The group, with its LUNs.
        group: Group,
    },
    /// The initiators or attributes of a group change.
    ChangeGroup {
        /// In which target.
        target: IscsiName,
        /// The group as it will be; its LUNs do not count.
        group: Group,
        /// What changes, as scst.conf spells it.
        changed: Vec<&'static str>,
    },
    /// A LUN appears. Not while another has its number, which was to be unmapped and is kept for its sessions.
    MapLun {
        /// Where.
        place: Place,
        /// The LUN.
        lun: LunMapping,
    },
    /// A LUN becomes read-only, or no longer is.
    ChangeLun {
        /// Where.
        place: Place,
        /// The LUN as it will be; its device stays.
        lun: LunMapping,
    },
    /// A LUN gets another device.
    ReplaceLun {
        /// Where.
        place: Place,
        /// The LUN as it will be.
        lun: LunMapping,
        /// Whether sessions that see it hinder that: they would write to another disk.
        when: When,
    },
    /// A group goes.
    RemoveGroup {
        /// From which target.
        target: IscsiName,
        /// Its name.
        group: String,
        /// Whether sessions in it hinder that.
        when: When,
    },
    /// Groups are asked in another order: the first that matches decides.
    OrderGroups {
        /// In which target.
        target: IscsiName,
        /// Names, in the new order. Groups that are kept and not named stand behind them.
        groups: Vec<String>,
    },
    /// What EXTENDED COPY may reach.
    ChangeCopyManager {
        /// All of it.
        luns: Vec<LunMapping>,
    },
    /// ALUA.
    ChangeDeviceGroups {
        /// All of them.
        groups: Vec<DeviceGroup>,
    },
    /// Sections that we only keep.
    ChangeForeign {
        /// All of them.
        sections: Vec<ForeignSection>,
    },
    /// Where the gateway listens. Connections that are there stay.
    ChangePortals {
        /// To be opened, before any is closed.
        open: Vec<Portal>,
        /// To be closed.
        close: Vec<Portal>,
    },
    /// The target takes logins.
    EnableTarget {
        /// Its name.
        target: IscsiName,
    },
    /// The driver's attributes, with whether it serves at all.
    ChangeDriver {
        /// The driver as it will be.
        driver: IscsiDriver,
    },
    /// The core's attributes.
    ChangeCore {
        /// The core as it will be.
        core: Core,
    },
}

impl Step {
    /// Does to a configuration what the step does to the gateway. A step that names what is not there changes nothing.
    pub fn apply(&self, configuration: &mut Configuration) {
        match self {
            Self::OpenDevice { device } => configuration.devices.push(device.clone()),
            Self::ChangeDevice { device, .. } => replace_device(configuration, device),
            Self::ReopenDevices { devices } => {
                devices.iter().for_each(|device| replace_device(configuration, device));
            }
            Self::CloseDevice { device, .. } => configuration.devices.retain(|open| open.name != *device),
            Self::AddTarget { target } => configuration.targets.push(target.clone()),
            Self::RemoveTarget { target, .. } => configuration.targets.retain(|there| there.name != *target),
            Self::ChangeCopyManager { luns } => configuration.copy_manager.clone_from(luns),
            Self::ChangeDeviceGroups { groups } => configuration.device_groups.clone_from(groups),
            Self::ChangeForeign { sections } => configuration.foreign.clone_from(sections),
            Self::ChangePortals { open, close } => {
                configuration.portals.extend(open);
                configuration.portals.retain(|portal| !close.contains(portal));
            }
            Self::ChangeDriver { driver } => configuration.iscsi = driver.clone(),
            Self::ChangeCore { core } => configuration.core = core.clone(),
            Self::DisableTarget { .. }
            | Self::EnableTarget { .. }
            | Self::ChangeTarget { .. }
            | Self::AddGroup { .. }
            | Self::ChangeGroup { .. }
            | Self::RemoveGroup { .. }
            | Self::OrderGroups { .. }
            | Self::MapLun { .. }
            | Self::ChangeLun { .. }
            | Self::ReplaceLun { .. }
            | Self::UnmapLun { .. } => self.apply_to_target(configuration),
        }
    }

    fn apply_to_target(&self, configuration: &mut Configuration) {
        let Some(name) = self.target() else { return };
        let Some(there) = configuration.targets.iter_mut().find(|there| there.name == *name) else { return };
        match self {
            Self::DisableTarget { .. } => there.enabled = false,
            Self::EnableTarget { .. } => there.enabled = true,
            Self::ChangeTarget { target, .. } => *there = target::with_attributes_of(there, target),
            Self::AddGroup { group, .. } => there.groups.push(group.clone()),
            Self::RemoveGroup { group, .. } => there.groups.retain(|other| other.name != *group),
            Self::ChangeGroup { group, .. } => {
                if let Some(other) = there.groups.iter_mut().find(|other| other.name == group.name) {
                    *other = Group { luns: std::mem::take(&mut other.luns), ..group.clone() };
                }
            }
            Self::OrderGroups { groups, .. } => {
                let rank = |group: &Group| {
                    groups.iter().position(|name| *name == group.name).unwrap_or(groups.len())
                };
                there.groups.sort_by_key(rank);
            }
            Self::MapLun { place, lun }
            | Self::ChangeLun { place, lun }
            | Self::ReplaceLun { place, lun, .. } => {
                set_lun(there, place, lun.lun, Some(lun));
            }
            Self::UnmapLun { place, lun, .. } => set_lun(there, place, *lun, None),
            _ => unreachable!("the caller sends only steps of a target that is there"),
        }
    }

    /// The target that the step is about, if it is about one that is there.
    #[must_use]
    pub fn target(&self) -> Option<&IscsiName> {
        match self {
            Self::DisableTarget { target }
            | Self::EnableTarget { target }
            | Self::RemoveTarget { target, .. }
            | Self::AddGroup { target, .. }
            | Self::ChangeGroup { target, .. }
            | Self::RemoveGroup { target, .. }
            | Self::OrderGroups { target, .. } => Some(target),
            Self::ChangeTarget { target, .. } => Some(&target.name),
            Self::MapLun { place, .. }
            | Self::ChangeLun { place, .. }
            | Self::ReplaceLun { place, .. }
            | Self::UnmapLun { place, .. } => Some(&place.target),
            _ => None,
        }
    }
}

fn replace_device(configuration: &mut Configuration, device: &Device) {
    if let Some(open) = configuration.devices.iter_mut().find(|open| open.name == device.name) {
        *open = device.clone();
    }
}

/// Puts a LUN in the place of whatever had its number, or nothing.
fn set_lun(target: &mut Target, place: &Place, number: u16, lun: Option<&LunMapping>) {
    let luns = match &place.group {
        None => &mut target.luns,
        Some(name) => match target.groups.iter_mut().find(|group| group.name == *name) {
            Some(group) => &mut group.luns,
            None => return,
        },
    };
    luns.retain(|there| there.lun != number);
    luns.extend(lun.cloned());
    luns.sort_by_key(|lun| lun.lun);
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            None => write!(f, "{}", self.target),
            Some(group) => write!(f, "{} group {group}", self.target),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unused => " (if no session uses it)",
            Self::Now => "",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisableTarget { target } => write!(f, "disable target {target}"),
            Self::RemoveTarget { target, when } => write!(f, "remove target {target}{when}"),
            Self::UnmapLun { place, lun, when } => write!(f, "unmap LUN {lun} of {place}{when}"),
            Self::CloseDevice { device, when } => write!(f, "close device {device}{when}"),
            Self::ChangeDevice { device, changed } => {
                write!(f, "change {} of device {}", changed.join(", "), device.name)
            }
            Self::ReopenDevices { devices } => {
                let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
                write!(f, "reopen {}", names.join(", "))
            }
            Self::OpenDevice { device } => write!(f, "open device {}", device.name),
            Self::AddTarget { target } => write!(f, "add target {}", target.name),
            Self::ChangeTarget { target, changed } => {
                write!(f, "change {} of target {}", changed.join(", "), target.name)
            }
            Self::AddGroup { target, group } => write!(f, "add group {} to {target}", group.name),
            Self::ChangeGroup { target, group, changed } => {
                write!(f, "change {} of {target} group {}", changed.join(", "), group.name)
            }
            Self::MapLun { place, lun } => write!(f, "map LUN {} of {place} to {}", lun.lun, lun.device),
            Self::ChangeLun { place, lun } => {
                let access = if lun.read_only { "read only" } else { "writable" };
                write!(f, "make LUN {} of {place} {access}", lun.lun)
            }
            Self::ReplaceLun { place, lun, when } => {
                write!(f, "replace LUN {} of {place} by {}{when}", lun.lun, lun.device)
            }
            Self::RemoveGroup { target, group, when } => write!(f, "remove group {group} of {target}{when}"),
            Self::OrderGroups { target, groups } => {
                write!(f, "order the groups of {target}: {}", groups.join(", "))
            }
            Self::ChangeCopyManager { .. } => f.write_str("change the LUNs of the copy manager"),
            Self::ChangeDeviceGroups { .. } => f.write_str("change the device groups"),
            Self::ChangeForeign { .. } => f.write_str("keep the sections that are not in effect"),
            Self::ChangePortals { open, close } => {
                let names = |portals: &[Portal]| {
                    portals.iter().map(|portal| portal.0.to_string()).collect::<Vec<_>>().join(", ")
                };
                write!(f, "open portals [{}], close portals [{}]", names(open), names(close))
            }
            Self::EnableTarget { target } => write!(f, "enable target {target}"),
            Self::ChangeDriver { driver } => {
                write!(
                    f,
                    "change the iscsi driver, which is {}",
                    if driver.enabled { "enabled" } else { "not enabled" }
                )
            }
            Self::ChangeCore { .. } => f.write_str("change the core's attributes"),
        }
    }
}
