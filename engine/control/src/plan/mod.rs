//! From the configuration that holds to the one that is wanted: the steps between, in a safe order. Pure: it looks at
//! nothing but the two configurations, and does nothing.
//!
//! What did not change has no step. What the file no longer names goes away only if no session uses it, a condition
//! that the step carries ([`When::Unused`]), unless it is forced. What is fixed when a device is opened is not changed
//! under its sessions, but named in a [`Note`].
//!
//! Whoever carries a step out applies it to the configuration that it keeps ([`Step::apply`]); a step that was not
//! carried out is not applied, so that the kept configuration always says what really holds.

mod device;
mod step;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use portico_model::configuration::{Configuration, Core, Device, Portal, Source, Target};

use crate::scst_conf::plain_path;

pub use step::{Place, Step, When};

/// What leads from one configuration to another.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// To be carried out one after the other. One that fails does not stop those behind it.
    pub steps: Vec<Step>,
    /// What stays as it is, and why.
    pub notes: Vec<Note>,
}

/// Something that is wanted and stays undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// These attributes of a device are fixed while it is open. It keeps the old ones until it is closed and opened anew.
    NeedsReopen {
        /// The device.
        device: String,
        /// The attributes, as scst.conf spells them.
        attributes: Vec<&'static str>,
        /// Where the device is written.
        source: Source,
    },
    /// `setup_id` is part of the identity of devices that stay open, and stays with them.
    SetupIdStays {
        /// The one that holds.
        holds: u32,
        /// The one that was wanted.
        wanted: u32,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeedsReopen { device, attributes, .. } => {
                write!(f, "device {device} must be reopened for its new {}", attributes.join(", "))
            }
            Self::SetupIdStays { holds, wanted } => {
                write!(f, "setup_id stays {holds:#x} and does not become {wanted:#x} while devices are open")
            }
        }
    }
}

/// The steps that disturb nobody: removals wait for sessions to end, and nothing is reopened.
#[must_use]
pub fn plan(old: &Configuration, new: &Configuration) -> Plan {
    Planner::new(old, new, false).plan()
}

/// The steps that reach the wanted configuration whatever sessions there are.
#[must_use]
pub fn plan_forced(old: &Configuration, new: &Configuration) -> Plan {
    Planner::new(old, new, true).plan()
}

struct Planner<'a> {
    old: &'a Configuration,
    new: &'a Configuration,
    forced: bool,
    /// When a thing may go that the file no longer names.
    when: When,
    old_devices: HashMap<&'a str, &'a Device>,
    new_devices: HashMap<&'a str, &'a Device>,
    old_targets: HashMap<&'a str, &'a Target>,
    new_targets: HashMap<&'a str, &'a Target>,
    /// Devices that must be closed before others are opened, because those want the same medium.
    early: HashSet<&'a str>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(old: &'a Configuration, new: &'a Configuration, forced: bool) -> Self {
        fn devices(configuration: &Configuration) -> HashMap<&str, &Device> {
            configuration.devices.iter().map(|device| (device.name.as_str(), device)).collect()
        }
        fn targets(configuration: &Configuration) -> HashMap<&str, &Target> {
            configuration.targets.iter().map(|target| (target.name.as_str(), target)).collect()
        }
        let mut planner = Self {
            old,
            new,
            forced,
            when: if forced { When::Now } else { When::Unused },
            old_devices: devices(old),
            new_devices: devices(new),
            old_targets: targets(old),
            new_targets: targets(new),
            early: HashSet::new(),
            plan: Plan::default(),
        };
        planner.early = planner.early_closes();
        planner
    }

    /// The order: what is refused from now on; what makes room; what others need; who may see it; what is no longer
    /// needed; then doors are opened, targets before drivers, and the core's attributes come last.
    fn plan(mut self) -> Plan {
        self.disable_targets();
        self.remove_targets();
        self.make_room();
        self.change_devices();
        self.open_devices();
        self.add_targets();
        self.change_targets();
        self.replace_the_rest();
        self.close_devices();
        self.change_portals();
        self.enable_targets();
        self.change_driver();
        self.change_core();
        self.plan
    }

    fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// Old devices that go, and whose medium a device wants that is opened or reopened.
    fn early_closes(&self) -> HashSet<&'a str> {
        let medium = |device: &Device| device.handler.filename().map(plain_path);
        let wanted: HashSet<String> = self
            .new
            .devices
            .iter()
            .filter(|device| {
                self.old_devices.get(device.name.as_str()).is_none_or(|old| medium(old) != medium(device))
            })
            .filter_map(medium)
            .collect();
        let goes = |device: &&Device| !self.new_devices.contains_key(device.name.as_str());
        let gone = self.old.devices.iter().filter(goes);
        gone.filter(|device| medium(device).is_some_and(|medium| wanted.contains(&medium)))
            .map(|device| device.name.as_str())
            .collect()
    }

    fn disable_targets(&mut self) {
        for new in &self.new.targets {
            let was_enabled = self.old_targets.get(new.name.as_str()).is_some_and(|old| old.enabled);
            if was_enabled && !new.enabled {
                self.step(Step::DisableTarget { target: new.name.clone() });
            }
        }
    }

    fn remove_targets(&mut self) {
        for old in &self.old.targets {
            if !self.new_targets.contains_key(old.name.as_str()) {
                self.step(Step::RemoveTarget { target: old.name.clone(), when: self.when });
            }
        }
    }

    /// Closes what stands in the way of an opening.
    fn make_room(&mut self) {
        if self.early.is_empty() {
            return;
        }
        let mut steps = Vec::new();
        for old in self.old.targets.iter().filter(|old| self.new_targets.contains_key(old.name.as_str())) {
            for (place, luns) in target::places(old) {
                for lun in luns.iter().filter(|lun| self.early.contains(lun.device.as_str())) {
                    steps.push(Step::UnmapLun { place: place.clone(), lun: lun.lun, when: self.when });
                }
            }
        }
        for old in self.old.devices.iter().filter(|old| self.early.contains(old.name.as_str())) {
            steps.push(Step::CloseDevice { device: old.name.clone(), when: self.when });
        }
        self.plan.steps.extend(steps);
    }

    fn change_devices(&mut self) {
        let mut reopened = Vec::new();
        for new in &self.new.devices {
            let Some(old) = self.old_devices.get(new.name.as_str()) else { continue };
            let changed = device::differences(old, new);
            if !changed.fixed.is_empty() {
                if self.forced {
                    reopened.push(new.clone());
                    continue;
                }
                self.plan.notes.push(Note::NeedsReopen {
                    device: new.name.clone(),
                    attributes: changed.fixed,
                    source: new.source,
                });
            }
            if !changed.running.is_empty() {
                let device = device::with_running_attributes(old, new);
                self.step(Step::ChangeDevice { device, changed: changed.running });
            }
        }
        if !reopened.is_empty() {
            self.step(Step::ReopenDevices { devices: reopened });
        }
    }

    fn open_devices(&mut self) {
        for new in &self.new.devices {
            if !self.old_devices.contains_key(new.name.as_str()) {
                self.step(Step::OpenDevice { device: new.clone() });
            }
        }
    }

    fn add_targets(&mut self) {
        for new in &self.new.targets {
            if !self.old_targets.contains_key(new.name.as_str()) {
                self.step(Step::AddTarget { target: Target { enabled: false, ..new.clone() } });
            }
        }
    }

    fn change_targets(&mut self) {
        for new in &self.new.targets {
            if let Some(old) = self.old_targets.get(new.name.as_str()).copied() {
                let steps = target::steps(old, new, &self.early, self.when);
                self.plan.steps.extend(steps);
            }
        }
    }

    fn close_devices(&mut self) {
        for old in &self.old.devices {
            let name = old.name.as_str();
            if !self.new_devices.contains_key(name) && !self.early.contains(name) {
                self.step(Step::CloseDevice { device: old.name.clone(), when: self.when });
            }
        }
    }

    /// What is accepted and not in effect is taken over as a whole.
    fn replace_the_rest(&mut self) {
        if self.old.copy_manager != self.new.copy_manager {
            self.step(Step::ChangeCopyManager { luns: self.new.copy_manager.clone() });
        }
        if self.old.device_groups != self.new.device_groups {
            self.step(Step::ChangeDeviceGroups { groups: self.new.device_groups.clone() });
        }
        if self.old.foreign != self.new.foreign {
            self.step(Step::ChangeForeign { sections: self.new.foreign.clone() });
        }
    }

    fn change_portals(&mut self) {
        let missing = |from: &[Portal], of: &[Portal]| -> Vec<Portal> {
            of.iter().filter(|portal| !from.contains(portal)).copied().collect()
        };
        let open = missing(&self.old.portals, &self.new.portals);
        let close = missing(&self.new.portals, &self.old.portals);
        if !open.is_empty() || !close.is_empty() {
            self.step(Step::ChangePortals { open, close });
        }
    }

    fn enable_targets(&mut self) {
        for new in self.new.targets.iter().filter(|new| new.enabled) {
            if self.old_targets.get(new.name.as_str()).is_none_or(|old| !old.enabled) {
                self.step(Step::EnableTarget { target: new.name.clone() });
            }
        }
    }

    fn change_driver(&mut self) {
        if self.old.iscsi != self.new.iscsi {
            self.step(Step::ChangeDriver { driver: self.new.iscsi.clone() });
        }
    }

    fn change_core(&mut self) {
        let mut core: Core = self.new.core.clone();
        let stays_open = |device: &Device| self.new_devices.contains_key(device.name.as_str());
        // Devices that wait for their sessions to end are open as well.
        let any_open =
            !self.old.devices.is_empty() && (!self.forced || self.old.devices.iter().any(stays_open));
        if any_open && core.setup_id != self.old.core.setup_id {
            let (holds, wanted) = (self.old.core.setup_id, core.setup_id);
            self.plan.notes.push(Note::SetupIdStays { holds, wanted });
            core.setup_id = holds;
        }
        if core != self.old.core {
            self.step(Step::ChangeCore { core });
        }
    }
}
