//! How far a wanted configuration can be brought into force now: the plan's steps, less what sessions still use.

use std::collections::{BTreeMap, BTreeSet};

use portico_model::configuration::{Configuration, Device, LunMapping, Target};
use portico_model::identity::SessionId;

use super::Control;
use crate::plan::{Note, Place, Plan, Step, When, plan, plan_forced};
use crate::registry::Session;
use crate::scst_conf::plain_path;

impl<M: Clone> Control<M> {
    /// The configuration that comes into force, and what of the wanted one does not, for people.
    pub(super) fn reachable(&self, wanted: &Configuration, force: bool) -> (Configuration, Vec<String>) {
        let Plan { steps, notes } = match force {
            true => plan_forced(&self.configuration, wanted),
            false => plan(&self.configuration, wanted),
        };
        let mut kept: Vec<String> = notes.iter().map(Note::to_string).collect();
        let mut reached = Reached::new((*self.configuration).clone());
        for step in steps {
            match self.hindrance(&step, &reached) {
                None => reached.take(step, &mut kept),
                Some(why) => kept.push(format!("not done: {step}: {why}")),
            }
        }
        (reached.configuration, kept)
    }

    /// Why a step cannot be taken now.
    fn hindrance(&self, step: &Step, reached: &Reached) -> Option<String> {
        let used = |users: BTreeSet<SessionId>| {
            (!users.is_empty()).then(|| format!("{} sessions use it", users.len()))
        };
        match step {
            Step::RemoveTarget { target, when: When::Unused } => {
                used(self.users(|there, _, _| there.name == *target))
            }
            Step::UnmapLun { place, lun, when: When::Unused }
            | Step::ReplaceLun { place, lun: LunMapping { lun, .. }, when: When::Unused } => {
                used(self.users(|there, group, session| {
                    is_place(place, there, group) && session.map.find(*lun).is_some()
                }))
            }
            Step::RemoveGroup { target, group: name, when: When::Unused } => {
                used(self.users(|there, group, _| there.name == *target && group == Some(name)))
            }
            Step::CloseDevice { device, .. } => {
                let mapped = luns_of(&reached.configuration).any(|mapping| mapping.device == *device);
                mapped.then(|| "a LUN maps it".to_owned())
            }
            Step::OpenDevice { device } => {
                let path = device.handler.filename().map(plain_path)?;
                let holder = reached.holders.get(&path)?;
                Some(format!("device {holder} has {path} open"))
            }
            Step::MapLun { place, lun } => {
                let target =
                    reached.configuration.targets.iter().find(|target| target.name == place.target)?;
                let group = place.group.as_deref();
                let luns = match group {
                    None => &target.luns,
                    Some(name) => &target.groups.iter().find(|group| group.name == name)?.luns,
                };
                luns.iter()
                    .any(|there| there.lun == lun.lun)
                    .then(|| "its number is still taken by the one before".to_owned())
                    .or_else(|| reached.no_such_device(lun))
            }
            Step::ReplaceLun { lun, .. } => reached.no_such_device(lun),
            _ => None,
        }
    }

    /// The sessions that are for this target, group and session, in the configuration in force.
    fn users(&self, uses: impl Fn(&Target, Option<&str>, &Session) -> bool) -> BTreeSet<SessionId> {
        let names: BTreeMap<_, _> = self.target_ids.iter().map(|(name, id)| (*id, name)).collect();
        self.registry
            .iter()
            .filter(|(_, session)| session.ending.is_none())
            .filter(|(_, session)| {
                let name = session.target.and_then(|id| names.get(&id));
                let target = name.and_then(|name| self.configuration.target(name.as_str()));
                target.is_some_and(|target| {
                    let group = target.group_of(&session.initiator, session.portal);
                    uses(target, group.map(|group| group.name.as_str()), session)
                })
            })
            .map(|(id, _)| id)
            .collect()
    }
}

fn is_place(place: &Place, target: &Target, group: Option<&str>) -> bool {
    place.target == target.name && place.group.as_deref() == group
}

fn luns_of(configuration: &Configuration) -> impl Iterator<Item = &LunMapping> {
    configuration
        .targets
        .iter()
        .flat_map(|target| target.luns.iter().chain(target.groups.iter().flat_map(|group| &group.luns)))
}

/// A configuration as far as it is reached, with what is looked up in it often.
struct Reached {
    configuration: Configuration,
    devices: BTreeSet<String>,
    /// Which device has a path open.
    holders: BTreeMap<String, String>,
}

impl Reached {
    fn new(configuration: Configuration) -> Self {
        let mut reached = Self { configuration, devices: BTreeSet::new(), holders: BTreeMap::new() };
        reached.look();
        reached
    }

    fn look(&mut self) {
        let devices = &self.configuration.devices;
        self.devices = devices.iter().map(|device| device.name.clone()).collect();
        let path = |device: &Device| device.handler.filename().map(plain_path);
        self.holders =
            devices.iter().filter_map(|device| Some((path(device)?, device.name.clone()))).collect();
    }

    fn take(&mut self, step: Step, kept: &mut Vec<String>) {
        let step = self.with_devices_that_are_there(step, kept);
        step.apply(&mut self.configuration);
        match step {
            Step::OpenDevice { device } => {
                let path = device.handler.filename().map(plain_path);
                self.holders.extend(path.map(|path| (path, device.name.clone())));
                self.devices.insert(device.name);
            }
            Step::CloseDevice { .. } | Step::ReopenDevices { .. } => self.look(),
            _ => {}
        }
    }

    fn no_such_device(&self, lun: &LunMapping) -> Option<String> {
        (!self.devices.contains(&lun.device))
            .then(|| format!("device {} could not be opened yet", lun.device))
    }

    /// The step without LUNs of devices that an earlier step could not bring.
    fn with_devices_that_are_there(&self, mut step: Step, kept: &mut Vec<String>) -> Step {
        let mut cut = |luns: &mut Vec<LunMapping>| {
            luns.retain(|lun| match self.no_such_device(lun) {
                None => true,
                Some(why) => {
                    kept.push(format!("LUN {} is not mapped: {why}", lun.lun));
                    false
                }
            });
        };
        match &mut step {
            Step::AddTarget { target } => {
                cut(&mut target.luns);
                target.groups.iter_mut().for_each(|group| cut(&mut group.luns));
            }
            Step::AddGroup { group, .. } => cut(&mut group.luns),
            _ => {}
        }
        step
    }
}
