//! The steps inside one target that stays: attributes, groups, LUNs.

use std::collections::HashSet;

use portico_model::configuration::{Group, LunMapping, Target};

use super::step::{Place, Step, When};

/// Every list of LUNs of a target, with its place.
pub(super) fn places(target: &Target) -> impl Iterator<Item = (Place, &[LunMapping])> {
    let own = (Place { target: target.name.clone(), group: None }, target.luns.as_slice());
    let groups = target.groups.iter().map(|group| {
        (Place { target: target.name.clone(), group: Some(group.name.clone()) }, group.luns.as_slice())
    });
    std::iter::once(own).chain(groups)
}

/// What leads from one state of a target to another. `early` are devices whose LUNs have been unmapped before.
pub(super) fn steps(old: &Target, new: &Target, early: &HashSet<&str>, when: When) -> Vec<Step> {
    let mut steps = Vec::new();
    let changed = changed_attributes(old, new);
    if !changed.is_empty() {
        steps.push(Step::ChangeTarget { target: new.clone(), changed });
    }
    let own = Place { target: new.name.clone(), group: None };
    let mut luns = lun_steps(&own, &old.luns, &new.luns, early, when);
    for group in &new.groups {
        let Some(before) = find(&old.groups, &group.name) else {
            steps.push(Step::AddGroup { target: new.name.clone(), group: group.clone() });
            continue;
        };
        let changed = changed_in_group(before, group);
        if !changed.is_empty() {
            steps.push(Step::ChangeGroup { target: new.name.clone(), group: group.clone(), changed });
        }
        let place = Place { target: new.name.clone(), group: Some(group.name.clone()) };
        luns.extend(lun_steps(&place, &before.luns, &group.luns, early, when));
    }
    steps.extend(luns);
    for group in old.groups.iter().filter(|group| find(&new.groups, &group.name).is_none()) {
        steps.push(Step::RemoveGroup { target: new.name.clone(), group: group.name.clone(), when });
    }
    steps.extend(order(old, new));
    steps
}

/// The target with another's attributes, and its own LUNs and groups.
pub(super) fn with_attributes_of(target: &Target, other: &Target) -> Target {
    let mut changed = other.clone();
    changed.enabled = target.enabled;
    changed.luns.clone_from(&target.luns);
    changed.groups.clone_from(&target.groups);
    changed
}

fn changed_attributes(old: &Target, new: &Target) -> Vec<&'static str> {
    let (was, is) = (&old.negotiated, &new.negotiated);
    let compared = [
        ("allowed_portal", old.allowed_portals != new.allowed_portals),
        ("per_portal_acl", old.per_portal_acl != new.per_portal_acl),
        ("IncomingUser", old.incoming_users != new.incoming_users),
        ("OutgoingUser", old.outgoing_user != new.outgoing_user),
        ("InitialR2T", was.initial_r2t != is.initial_r2t),
        ("ImmediateData", was.immediate_data != is.immediate_data),
        ("MaxRecvDataSegmentLength", was.max_recv_data_segment_length != is.max_recv_data_segment_length),
        ("MaxXmitDataSegmentLength", was.max_xmit_data_segment_length != is.max_xmit_data_segment_length),
        ("MaxBurstLength", was.max_burst_length != is.max_burst_length),
        ("FirstBurstLength", was.first_burst_length != is.first_burst_length),
        ("MaxOutstandingR2T", was.max_outstanding_r2t != is.max_outstanding_r2t),
        ("MaxConnections", was.max_connections != is.max_connections),
        ("ErrorRecoveryLevel", was.error_recovery_level != is.error_recovery_level),
        ("HeaderDigest", was.header_digest != is.header_digest),
        ("DataDigest", was.data_digest != is.data_digest),
        ("QueuedCommands", old.queued_commands != new.queued_commands),
        ("MaxSessions", old.max_sessions != new.max_sessions),
        ("NopInInterval", old.timers.nop_in_interval_s != new.timers.nop_in_interval_s),
        ("NopInTimeout", old.timers.nop_in_timeout_s != new.timers.nop_in_timeout_s),
        ("RspTimeout", old.timers.rsp_timeout_s != new.timers.rsp_timeout_s),
        ("aen_disabled", old.aen_disabled != new.aen_disabled),
        ("alias", old.alias != new.alias),
        ("redirect", old.redirect != new.redirect),
        ("rel_tgt_id", old.rel_tgt_id != new.rel_tgt_id),
        ("addr_method", old.address_method != new.address_method),
        ("LUNs that are not served", old.unserved_luns != new.unserved_luns),
        ("what is not in effect", old.kept != new.kept),
    ];
    compared.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn changed_in_group(old: &Group, new: &Group) -> Vec<&'static str> {
    let compared = [
        ("INITIATOR", old.initiators != new.initiators),
        ("addr_method", old.address_method != new.address_method),
        ("LUNs that are not served", old.unserved_luns != new.unserved_luns),
        ("what is not in effect", old.kept != new.kept),
    ];
    compared.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// New numbers first, so that an initiator that looks again finds its disk under both; then changes, then removals.
fn lun_steps(
    place: &Place,
    old: &[LunMapping],
    new: &[LunMapping],
    early: &HashSet<&str>,
    when: When,
) -> Vec<Step> {
    let before = |number: u16| {
        let found = old.binary_search_by_key(&number, |lun| lun.lun).ok().map(|at| &old[at]);
        found.filter(|lun| !early.contains(lun.device.as_str()))
    };
    let (mut mapped, mut changed) = (Vec::new(), Vec::new());
    for lun in new {
        let (place, lun) = (place.clone(), lun.clone());
        match before(lun.lun) {
            None => mapped.push(Step::MapLun { place, lun }),
            Some(there) if there.device != lun.device => changed.push(Step::ReplaceLun { place, lun, when }),
            Some(there) if there.read_only != lun.read_only => changed.push(Step::ChangeLun { place, lun }),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|lun| {
        !early.contains(lun.device.as_str()) && new.binary_search_by_key(&lun.lun, |lun| lun.lun).is_err()
    });
    let unmapped = gone.map(|lun| Step::UnmapLun { place: place.clone(), lun: lun.lun, when });
    mapped.into_iter().chain(changed).chain(unmapped).collect()
}

/// A step that brings the groups into the new order, if keeping the old ones and adding the others does not.
fn order(old: &Target, new: &Target) -> Option<Step> {
    let wanted: Vec<&str> = new.groups.iter().map(|group| group.name.as_str()).collect();
    let kept = old.groups.iter().filter(|group| find(&new.groups, &group.name).is_some());
    let added = new.groups.iter().filter(|group| find(&old.groups, &group.name).is_none());
    let comes_out: Vec<&str> = kept.chain(added).map(|group| group.name.as_str()).collect();
    let groups = wanted.iter().map(|name| (*name).to_owned()).collect();
    (wanted != comes_out).then(|| Step::OrderGroups { target: new.name.clone(), groups })
}

fn find<'a>(groups: &'a [Group], name: &str) -> Option<&'a Group> {
    groups.iter().find(|group| group.name == name)
}
