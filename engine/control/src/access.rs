//! Which logical units are in target port groups, as the configuration's DEVICE_GROUPs say it (SPC-4 §5.15).

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_model::configuration::{
    AluaState, Configuration, DeviceGroup, TargetGroup, TargetPort, TargetReference,
};
use portico_scsi::alua::{AccessState, ChangedBy, TargetPortGroup, TargetPortGroups};

/// The target port groups of each device that is in a DEVICE_GROUP, by its name.
pub(crate) fn target_port_groups(configuration: &Configuration) -> BTreeMap<&str, Arc<TargetPortGroups>> {
    let explicit: BTreeMap<&str, bool> =
        configuration.devices.iter().map(|device| (device.name.as_str(), device.explicit_alua)).collect();
    let mut found = BTreeMap::new();
    for group in configuration.device_groups.iter().filter(|group| !group.target_groups.is_empty()) {
        let of = |explicit| Arc::new(groups_of(configuration, group, explicit));
        let (by_target, by_all) = (of(false), of(true));
        for device in &group.devices {
            if let Some(explicit) = explicit.get(device.as_str()) {
                found.insert(device.as_str(), Arc::clone(if *explicit { &by_all } else { &by_target }));
            }
        }
    }
    found
}

fn groups_of(configuration: &Configuration, group: &DeviceGroup, explicit: bool) -> TargetPortGroups {
    let ports = configuration.target_ports();
    let one = |group: &TargetGroup| TargetPortGroup {
        id: group.group_id,
        preferred: group.preferred,
        state: state_of(group.state),
        changed_by: ChangedBy::Nobody,
        ports: group.targets.iter().flat_map(|target| ports_of(&ports, target)).collect(),
    };
    let groups = group.target_groups.iter().map(one).collect();
    TargetPortGroups { explicit, groups, offline: Vec::new() }
}

/// A target of this gateway has identifiers of its own, one for each portal group; of another one only what the file says is
/// known.
fn ports_of(ports: &[TargetPort<'_>], reference: &TargetReference) -> Vec<u16> {
    let is_its = |port: &&TargetPort<'_>| port.target.name.as_str().eq_ignore_ascii_case(&reference.name);
    let own: Vec<u16> = ports.iter().filter(is_its).map(|port| port.relative_id).collect();
    if own.is_empty() { reference.rel_tgt_id.into_iter().collect() } else { own }
}

fn state_of(state: AluaState) -> AccessState {
    match state {
        AluaState::Active => AccessState::ActiveOptimized,
        AluaState::NonOptimized => AccessState::ActiveNonOptimized,
        AluaState::Standby => AccessState::Standby,
        AluaState::Unavailable => AccessState::Unavailable,
        AluaState::Offline => AccessState::Offline,
        AluaState::Transitioning => AccessState::Transitioning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scst_conf::parse;

    #[test]
    fn a_pair_has_its_own_port_and_the_other_nodes() {
        let text = include_bytes!("../tests/scst_conf/alua_pair.conf");
        let mut configuration = parse("alua_pair.conf", text).configuration.unwrap();
        let groups = Arc::clone(&target_port_groups(&configuration)["shared"]);
        let seen: Vec<_> = groups
            .groups
            .iter()
            .map(|group| (group.id, group.preferred, group.state, group.ports.as_slice()))
            .collect();
        let expected: [(u16, bool, AccessState, &[u16]); 2] =
            [(256, true, AccessState::ActiveOptimized, &[1]), (257, false, AccessState::Standby, &[2])];
        assert_eq!(seen, expected);
        assert!(!groups.explicit);
        configuration.devices[0].explicit_alua = true;
        assert!(target_port_groups(&configuration)["shared"].explicit);
        configuration.device_groups[0].target_groups.clear();
        assert!(target_port_groups(&configuration).is_empty(), "a group without ports manages nothing");
    }
}
