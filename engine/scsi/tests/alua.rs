//! Asymmetric access: what each state lets pass against a second reading of SPC-4 §5.15.2.4, and dialogues over two target
//! ports.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use std::sync::Arc;

use common::*;
use portico_scsi::alua::{AccessState, ChangedBy, TargetPortGroups};
use portico_scsi::attention::UnitAttention;
use portico_scsi::ledger::TargetPort;
use portico_scsi::opcodes;
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::{AdditionalSense, Outcome, Sense, SenseKey};
use portico_scsi::unit::LogicalUnit;

use AccessState::{ActiveNonOptimized, ActiveOptimized, Offline, Standby, Transitioning, Unavailable};

/// Nexuses of [`two_ports`]: 0 and 1 at port 1, this one at port 2.
const OTHER_PORT: usize = 2;

/// A unit by two target ports, each in a group of its own.
fn two_ports(first: AccessState, second: AccessState) -> World {
    let groups = grouped(&[(256, first, &[1]), (257, second, &[2])]);
    let mut world = World::new(LogicalUnit { target_port_groups: groups, ..disk() });
    let port = |name: &str, relative_id| TargetPort { name: name.into(), relative_id };
    let ports = [port("iqn.test:t,t,0x1", 1), port("iqn.test:u,t,0x1", 2)];
    world.original.set_ports(Arc::new(ports));
    assert_eq!(world.join("iqn.test:3,i,0x1", "iqn.test:u,t,0x1"), OTHER_PORT);
    world
}

fn not_ready(additional: AdditionalSense) -> Answer {
    Answer::Ended(Outcome::check(Sense::new(SenseKey::NotReady, additional)))
}

/// SET TARGET PORT GROUPS of these states and identifiers.
fn set(world: &mut World, who: usize, wanted: &[(u8, u16)]) -> Answer {
    let mut list = vec![0; 4];
    for (state, id) in wanted {
        list.extend([*state, 0]);
        list.extend(id.to_be_bytes());
    }
    let length = u8::try_from(list.len()).unwrap();
    world.send_with(who, &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, length, 0, 0], &list)
}

const REPORT: [u8; 12] = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
const REPORT_EXTENDED: [u8; 12] = [0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// STATE and STATUS CODE of each group, as reported.
fn states(world: &mut World, who: usize) -> Vec<(u8, u8)> {
    let data = world.data(who, &REPORT);
    let mut rest = &data[4..];
    let mut states = Vec::new();
    while let [state, _, _, _, _, status, _, ports, after @ ..] = rest {
        states.push((state & 0x0f, *status));
        rest = &after[4 * usize::from(*ports)..];
    }
    states
}

/// Rows of the opcode table.
type Rows = &'static [(u8, Option<u16>)];

/// Commands that a device server shall support in standby, and those that it may and that this one does: operation code and
/// service action.
const STANDBY: Rows = &[
    (0x12, None),
    (0x4c, None),
    (0x4d, None),
    (0x15, None),
    (0x55, None),
    (0x1a, None),
    (0x5a, None),
    (0xa0, None),
    (0x1c, None),
    (0x1d, None),
    (0xa3, Some(0x0a)),
    (0xa4, Some(0x0a)),
    (0x03, None),
    (0x5e, Some(0)),
    (0x5e, Some(1)),
    (0x5e, Some(2)),
    (0x5e, Some(3)),
    (0x5f, Some(0)),
    (0x5f, Some(1)),
    (0x5f, Some(2)),
    (0x5f, Some(3)),
    (0x5f, Some(4)),
    (0x5f, Some(5)),
    (0x5f, Some(6)),
    (0x5f, Some(7)),
    // May be: how large the unit is, and what it serves, an initiator wants to know of every path.
    (0x25, None),
    (0x9e, Some(0x10)),
    (0xa3, Some(0x0c)),
    (0xa3, Some(0x0d)),
];
const UNAVAILABLE: Rows = &[(0x12, None), (0xa0, None), (0xa3, Some(0x0a)), (0xa4, Some(0x0a)), (0x03, None)];
const TRANSITIONING: Rows = &[(0x12, None), (0xa0, None), (0xa3, Some(0x0a)), (0x03, None)];

#[test]
fn every_command_served_keeps_to_the_lists_of_the_states() {
    let cases: [(AccessState, Rows, AdditionalSense); 4] = [
        (Standby, STANDBY, AdditionalSense { code: 0x04, qualifier: 0x0b }),
        (Unavailable, UNAVAILABLE, AdditionalSense { code: 0x04, qualifier: 0x0c }),
        (Offline, UNAVAILABLE, AdditionalSense { code: 0x04, qualifier: 0x12 }),
        (Transitioning, TRANSITIONING, AdditionalSense { code: 0x04, qualifier: 0x0a }),
    ];
    for row in opcodes::TABLE {
        let mut cdb = row.usage.to_vec();
        cdb[1] &= 0x1f;
        for (state, passing, additional) in cases {
            let groups = grouped(&[(256, state, &[PORT])]);
            let mut world = World::new(LogicalUnit { target_port_groups: groups, ..thin() });
            let passes = passing.contains(&(row.operation_code, row.service_action));
            let answer = world.send_with(0, &cdb, &[0; 8192]);
            assert_eq!(answer == not_ready(additional), !passes, "{} in {state:?}: {answer:?}", row.name);
        }
    }
}

#[test]
fn both_active_states_let_everything_pass() {
    for state in [ActiveOptimized, ActiveNonOptimized] {
        let mut world = two_ports(state, Standby);
        world.medium(0, &read10(0, 1));
        assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
        assert_eq!(world.data(0, &INQUIRY)[0], 0);
    }
}

#[test]
fn a_port_that_is_in_no_group_is_active() {
    let groups = grouped(&[(256, Standby, &[7])]);
    let mut world = World::new(LogicalUnit { target_port_groups: groups, ..disk() });
    world.medium(0, &write10(0, 1));
    assert_eq!(world.data(0, &inquiry_page(0x83)), World::new(disk()).data(0, &inquiry_page(0x83)));
}

#[test]
fn inquiry_tells_how_access_is_managed_and_that_nothing_is_connected() {
    let mut world = two_ports(Unavailable, ActiveOptimized);
    assert_eq!((world.data(0, &INQUIRY)[0], world.data(OTHER_PORT, &INQUIRY)[0]), (0x20, 0x00));
    assert_eq!(world.data(0, &inquiry_page(0x00))[0], 0x20);
    assert_eq!(world.data(0, &INQUIRY)[5] & 0x30, 0x30, "explicit and implicit");
    assert_eq!(World::new(disk()).data(0, &INQUIRY)[5] & 0x30, 0);
    let mut groups = TargetPortGroups::clone(&grouped(&[(1, Standby, &[1])]).unwrap());
    groups.explicit = false;
    let unit = LogicalUnit { target_port_groups: Some(Arc::new(groups)), ..disk() };
    let mut world = World::new(unit);
    assert_eq!(world.data(0, &INQUIRY)[5] & 0x30, 0x10, "implicit alone");
    assert_eq!(set(&mut world, 0, &[(0, 1)]), illegal(AdditionalSense::INVALID_OPERATION_CODE));
}

#[test]
fn a_unit_in_no_group_has_neither_command() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &REPORT), wrong_field(1, Some(4)));
    assert_eq!(set(&mut world, 0, &[(0, 1)]), illegal(AdditionalSense::INVALID_OPERATION_CODE));
}

#[test]
fn both_formats_of_the_report() {
    let mut groups =
        TargetPortGroups::clone(&grouped(&[(256, Standby, &[1, 7]), (257, Offline, &[])]).unwrap());
    groups.groups[0].preferred = true;
    groups.groups[1].changed_by = ChangedBy::Target;
    let mut world = World::new(LogicalUnit { target_port_groups: Some(Arc::new(groups)), ..disk() });
    let descriptors = [0x82, 0xcf, 1, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7, 0x0e, 0xcf, 1, 1, 0, 2, 0, 0];
    let mut expected = vec![0, 0, 0, 24];
    expected.extend(descriptors);
    assert_eq!(world.data(0, &REPORT), expected);
    let mut expected = vec![0, 0, 0, 28, 0x10, 60, 0, 0];
    expected.extend(descriptors);
    assert_eq!(world.data(0, &REPORT_EXTENDED), expected);
    assert_eq!(world.data(0, &[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0]), expected[..6]);
    assert_eq!(world.send(0, &[0xa3, 0x4a, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0]), wrong_field(1, Some(7)));
}

#[test]
fn the_largest_report_fits_its_buffer() {
    use portico_scsi::alua::{GROUPS_MAX, PORTS_MAX};
    let ports: Vec<u16> = (0..u16::try_from(PORTS_MAX).unwrap()).collect();
    let many: Vec<_> = (0..u16::try_from(GROUPS_MAX).unwrap()).map(|id| (id, Standby, &*ports)).collect();
    let mut world = World::new(LogicalUnit { target_port_groups: grouped(&many), ..disk() });
    let all = [0xa3, 0x2a, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(world.data(0, &all).len(), 8 + GROUPS_MAX * (8 + 4 * PORTS_MAX));
    let mut groups = TargetPortGroups::clone(&grouped(&many).unwrap());
    groups.offline = ports;
    let mut world = World::new(LogicalUnit { target_port_groups: Some(Arc::new(groups)), ..disk() });
    assert_eq!(world.data(0, &all).len(), 8 + (GROUPS_MAX + 1) * (8 + 4 * PORTS_MAX));
}

#[test]
fn an_initiator_moves_the_access_from_one_port_to_the_other() {
    let mut world = two_ports(ActiveOptimized, Standby);
    assert_eq!(
        world.send(OTHER_PORT, &read10(0, 1)),
        not_ready(AdditionalSense::TARGET_PORT_IN_STANDBY_STATE)
    );
    assert_eq!(set(&mut world, OTHER_PORT, &[(2, 256), (0, 257)]), GOOD);
    assert_eq!(world.pending(OTHER_PORT), None, "who asked knows");
    world.medium(OTHER_PORT, &write10(0, 1));
    for nexus in [0, 1] {
        assert_eq!(
            world.send(nexus, &write10(0, 1)),
            Answer::Ended(UnitAttention::AsymmetricAccessChanged.outcome())
        );
        let refusal = not_ready(AdditionalSense::TARGET_PORT_IN_STANDBY_STATE);
        assert_eq!(world.send(nexus, &write10(0, 1)), refusal);
    }
    assert_eq!(states(&mut world, 0), [(2, 1), (0, 1)]);
    let unit = world.unit();
    let id = world.nexuses[0].0;
    assert!(unit.recheck(id, 1, CommandClass::Write).is_err(), "a piece that was on its way does not pass");
    assert_eq!(unit.recheck(id, 2, CommandClass::Write), Ok(()));
    assert_eq!(set(&mut world, 0, &[(2, 256)]), GOOD, "a path in standby may ask, too");
    assert_eq!(world.pending(OTHER_PORT), None, "and nothing is another now");
}

#[test]
fn a_port_is_taken_offline_by_its_identifier_and_brought_back_by_its_groups() {
    let mut world = two_ports(ActiveOptimized, ActiveOptimized);
    assert_eq!(set(&mut world, 0, &[(0x0e, 2)]), GOOD);
    assert_eq!(states(&mut world, 0), [(0, 0), (0, 0), (0x0e, 1)]);
    world.told(OTHER_PORT, UnitAttention::AsymmetricAccessChanged);
    assert_eq!(world.send(OTHER_PORT, &TEST_UNIT_READY), not_ready(AdditionalSense::LOGICAL_UNIT_OFFLINE));
    assert_eq!(set(&mut world, OTHER_PORT, &[(1, 257)]), GOOD);
    assert_eq!(world.send(OTHER_PORT, &TEST_UNIT_READY), GOOD);
}

#[test]
fn one_port_of_several_goes_offline_alone_and_stays_in_its_group() {
    let groups = grouped(&[(0xffff, ActiveOptimized, &[1]), (257, Standby, &[2, 3])]);
    let mut world = World::new(LogicalUnit { target_port_groups: groups.clone(), ..disk() });
    assert_eq!(set(&mut world, 0, &[(0x0e, 3), (0x0e, 3)]), GOOD);
    let expected = [
        [0, 0, 0, 40, 0, 0xcf, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1].as_slice(),
        &[2, 0xcf, 1, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3],
        &[0x0e, 0xcf, 0xff, 0xfe, 0, 1, 0, 1, 0, 0, 0, 3],
    ];
    assert_eq!(world.data(0, &REPORT), expected.concat(), "the offline ports are a secondary group");
    let unit = world.unit();
    let id = world.nexuses[0].0;
    let offline = Outcome::check(Sense::new(SenseKey::NotReady, AdditionalSense::LOGICAL_UNIT_OFFLINE));
    assert_eq!(unit.recheck(id, 3, CommandClass::Read), Err(offline));
    assert_eq!(unit.recheck(id, 1, CommandClass::Read), Ok(()));
    assert_eq!(world.original.set_target_port_groups(groups.clone()), None, "the file says nothing new");
    let installment = world.original.set_target_port_groups(groups);
    assert_eq!(installment, None, "nor the next time");
    assert_eq!(set(&mut world, 0, &[(1, 257)]), GOOD);
    assert_eq!(states(&mut world, 0), [(0, 0), (1, 1)], "it comes back with its group");
    assert_eq!(world.unit().recheck(id, 3, CommandClass::Read), Ok(()));
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let groups = grouped(&[(256, ActiveOptimized, &[1]), (257, Standby, &[2, 3])]);
    let mut world = World::new(LogicalUnit { target_port_groups: groups, ..disk() });
    let parameter = |byte, bit| Answer::Ended(Outcome::invalid_parameter(byte, bit));
    assert_eq!(set(&mut world, 0, &[(2, 256), (0, 99)]), parameter(10, None), "a group that there is not");
    assert_eq!(set(&mut world, 0, &[(0x0e, 9)]), parameter(6, None), "a port that there is not");
    assert_eq!(set(&mut world, 0, &[(2, 256), (0x0f, 257)]), parameter(8, Some(3)), "transitioning");
    assert_eq!(set(&mut world, 0, &[(4, 256)]), parameter(4, Some(3)), "logical block dependent");
    let short = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0];
    let length_error = illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    assert_eq!(world.send_with(0, &short, &[0; 6]), length_error);
    assert_eq!(world.send(0, &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), GOOD, "no list");
    assert_eq!(states(&mut world, 0), [(0, 0), (2, 0)]);
    assert_eq!(world.pending(1), None);
}

#[test]
fn the_configuration_changes_states_and_leaves_alone_what_it_says_nothing_new_of() {
    let file = |first, second| grouped(&[(256, first, &[1]), (257, second, &[2])]);
    let mut world = two_ports(ActiveOptimized, Standby);
    assert_eq!(set(&mut world, 0, &[(1, 257)]), GOOD);
    world.told(OTHER_PORT, UnitAttention::AsymmetricAccessChanged);
    world.told(1, UnitAttention::AsymmetricAccessChanged);
    let same = world.original.set_target_port_groups(file(ActiveOptimized, Standby));
    assert_eq!(same, None, "the file is applied again, and the initiator's state stays");
    let installment = world.original.set_target_port_groups(file(Transitioning, Standby));
    world.install(installment);
    for nexus in [0, 1, OTHER_PORT] {
        assert_eq!(world.pending(nexus), Some(UnitAttention::AsymmetricAccessChanged), "{nexus}");
        assert_eq!(world.pending(nexus), None);
    }
    assert_eq!(states(&mut world, 0), [(0x0f, 2), (1, 1)]);
    let refusal = not_ready(AdditionalSense::ASYMMETRIC_ACCESS_STATE_TRANSITION);
    assert_eq!(set(&mut world, 0, &[(0, 256)]), refusal);
    let installment = world.original.set_target_port_groups(None);
    world.install(installment);
    assert_eq!(world.pending(0), Some(UnitAttention::InquiryDataChanged));
    assert_eq!(world.pending(0), Some(UnitAttention::AsymmetricAccessChanged));
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
}

#[test]
fn a_reset_leaves_the_states_and_so_does_another_configuration_of_the_unit() {
    let mut world = two_ports(ActiveOptimized, Standby);
    assert_eq!(set(&mut world, 0, &[(1, 257)]), GOOD);
    world.original.reset(UnitAttention::LogicalUnitReset);
    world.original.reconfigure(&LogicalUnit { rotational: false, ..disk() });
    assert_eq!(world.unit().target_port_groups.as_ref().unwrap().state_of(2), ActiveNonOptimized);
}

#[test]
fn request_sense_tells_why_a_path_is_no_way_to_the_unit() {
    let mut world = two_ports(ActiveOptimized, Unavailable);
    let sense = world.data(OTHER_PORT, &[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((sense[2], sense[12], sense[13]), (2, 0x04, 0x0c));
    assert_eq!(world.data(0, &[0x03, 1, 0, 0, 252, 0]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_self_test_by_a_port_that_is_not_active_is_good_without_the_medium() {
    let self_test = [0x1d, 0x04, 0, 0, 0, 0];
    let mut world = two_ports(Standby, ActiveOptimized);
    assert_eq!(world.send(0, &self_test), GOOD);
    assert!(matches!(world.send(OTHER_PORT, &self_test), Answer::Medium(_)));
}

#[test]
fn a_group_of_more_ports_than_can_be_counted_is_reported_as_far_as_they_can() {
    let ports: Vec<u16> = (1..=300).collect();
    let groups = grouped(&[(256, Standby, &ports)]);
    let mut world = World::new(LogicalUnit { target_port_groups: groups, ..disk() });
    let report = world.data(0, &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!((report[11], report.len()), (255, 4 + 8 + 4 * 255));
    assert_eq!(world.unit().target_port_groups.as_ref().unwrap().state_of(300), Standby);
}

#[test]
fn a_state_that_an_initiator_set_goes_when_none_may_set_states_any_more() {
    let mut world = two_ports(ActiveOptimized, ActiveOptimized);
    assert_eq!(set(&mut world, 0, &[(2, 257)]), GOOD);
    let groups = grouped(&[(256, ActiveOptimized, &[1]), (257, ActiveOptimized, &[2])]).unwrap();
    let implicit = |id| Some(Arc::new(TargetPortGroups { explicit: false, ..TargetPortGroups::clone(id) }));
    world.original.set_target_port_groups(implicit(&groups));
    let now = world.unit().target_port_groups.clone().unwrap();
    assert_eq!((now.state_of(2), now.groups[1].changed_by), (ActiveOptimized, ChangedBy::Target));
    assert_eq!(world.original.set_target_port_groups(implicit(&groups)), None, "nothing is another");
}
