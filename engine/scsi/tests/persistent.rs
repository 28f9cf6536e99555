//! Persistent reservations as initiators see them: dialogues over PERSISTENT RESERVE IN and OUT (SPC-4 §5.13).

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use std::sync::Arc;

use common::*;
use portico_scsi::attention::UnitAttention;
use portico_scsi::ledger::{Ledger, NexusName, REGISTRANTS_MAX, TargetPort, Whom};
use portico_scsi::original::Original;
use portico_scsi::reservation::{NexusId, Reservation};
use portico_scsi::sense::{AdditionalSense, Outcome, Sense};
use portico_scsi::unit::Readiness;
use proptest::prelude::*;

const REGISTER: u8 = 0;
const HOLD: u8 = 1;
const LET_GO: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const IGNORE: u8 = 6;
const MOVE: u8 = 7;

const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE_ACCESS: u8 = 3;
const WRITE_EXCLUSIVE_REGISTRANTS: u8 = 5;
const WRITE_EXCLUSIVE_ALL: u8 = 7;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const KEY_A: u64 = 0xaaaa;
const KEY_B: u64 = 0xbbbb;
const KEY_C: u64 = 0xcccc;

const PORT_1: &str = "iqn.test:t,t,0x1";
const PORT_2: &str = "iqn.test:u,t,0x1";

/// Three nexuses at one port of two; the first two are registered.
fn two_registered() -> World {
    let mut world = World::new(disk());
    world.join("iqn.test:3,i,0x000000000001", PORT_1);
    let ports = [(PORT_1, 1), (PORT_2, 2)];
    let ports = ports.map(|(name, relative_id)| TargetPort { name: name.to_owned(), relative_id });
    assert_eq!(world.original.set_ports(Arc::new(ports)), None);
    assert_eq!(world.out(A, REGISTER, 0, 0, KEY_A), GOOD);
    assert_eq!(world.out(B, REGISTER, 0, 0, KEY_B), GOOD);
    world
}

/// What a PERSISTENT RESERVE IN answers, whatever else the nexus is to be told.
fn asked(world: &mut World, action: u8) -> Vec<u8> {
    let pending = std::mem::take(&mut world.nexuses[C].1.attentions);
    let data = world.data(C, &in_cdb(action));
    world.nexuses[C].1.attentions = pending;
    data
}

fn keys(world: &mut World) -> (u32, Vec<u64>) {
    let data = asked(world, 0);
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let length = u32::from_be_bytes(data[4..8].try_into().unwrap()) as usize;
    assert_eq!(length, data.len() - 8, "ADDITIONAL LENGTH");
    (u32::from_be_bytes(data[..4].try_into().unwrap()), data[8..].chunks(8).map(number).collect())
}

/// Key and type of the reservation.
fn held(world: &mut World) -> Option<(u64, u8)> {
    let data = asked(world, 1);
    match data.len() {
        8 => None,
        24 => Some((u64::from_be_bytes(data[8..16].try_into().unwrap()), data[21])),
        length => panic!("{length} bytes"),
    }
}

fn all_pending(world: &mut World) -> [Option<UnitAttention>; 3] {
    [A, B, C].map(|who| world.pending(who))
}

fn wrong_parameter(at: u16, bit: Option<u8>) -> Answer {
    Answer::Ended(Outcome::check(Sense::invalid_parameter(at, bit)))
}

#[test]
fn a_nexus_registers_changes_its_key_and_leaves() {
    let mut world = World::new(disk());
    world.join("iqn.test:3,i,0x1", PORT_1);
    assert_eq!(keys(&mut world), (0, vec![]));
    assert_eq!(world.out(A, REGISTER, 0, 7, KEY_A), CONFLICT, "it has no key to name");
    assert_eq!(world.out(A, REGISTER, 0, 0, 0), GOOD);
    assert_eq!(keys(&mut world), (0, vec![]), "nothing was done");
    assert_eq!(world.out(A, REGISTER, 0, 0, KEY_A), GOOD);
    assert_eq!(world.out(A, REGISTER, 0, KEY_B, 9), CONFLICT);
    assert_eq!(world.out(A, REGISTER, 0, 0, 9), CONFLICT);
    assert_eq!(world.out(A, REGISTER, 0, KEY_A, 9), GOOD);
    assert_eq!(keys(&mut world), (2, vec![9]));
    assert_eq!(world.out(A, IGNORE, 0, 0x1234, KEY_A), GOOD);
    assert_eq!(keys(&mut world), (3, vec![KEY_A]));
    assert_eq!(world.out(A, REGISTER, 0, KEY_A, 0), GOOD);
    assert_eq!(keys(&mut world), (4, vec![]));
    assert_eq!(world.out(B, IGNORE, 0, 5, KEY_B), GOOD);
    assert_eq!(world.out(B, IGNORE, 0, 6, 0), GOOD);
    assert_eq!(keys(&mut world), (6, vec![]));
    assert_eq!(all_pending(&mut world), [None; 3]);
}

#[test]
fn a_reservation_is_its_holders_until_it_lets_go() {
    let mut world = two_registered();
    assert_eq!(world.out(C, HOLD, WRITE_EXCLUSIVE, 0, 0), CONFLICT, "it is not registered");
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE, KEY_B, 0), CONFLICT, "not its key");
    assert_eq!(world.out(A, HOLD, 2, KEY_A, 0), wrong_field(2, Some(3)));
    assert_eq!(world.out(A, HOLD, 0x11, KEY_A, 0), wrong_field(2, Some(7)), "an extent");
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD, "once more");
    assert_eq!(world.out(A, HOLD, EXCLUSIVE_ACCESS, KEY_A, 0), CONFLICT, "of another type");
    assert_eq!(world.out(B, HOLD, WRITE_EXCLUSIVE, KEY_B, 0), CONFLICT);
    assert_eq!(held(&mut world), Some((KEY_A, WRITE_EXCLUSIVE)));
    assert_eq!(world.send(B, &write10(0, 1)), CONFLICT);
    world.medium(B, &read10(0, 1));
    assert_eq!(world.out(B, LET_GO, WRITE_EXCLUSIVE, KEY_B, 0), GOOD, "not its to release");
    assert_eq!(held(&mut world), Some((KEY_A, WRITE_EXCLUSIVE)));
    let wrong_type = AdditionalSense { code: 0x26, qualifier: 0x04 };
    assert_eq!(world.out(A, LET_GO, EXCLUSIVE_ACCESS, KEY_A, 0), illegal(wrong_type));
    assert_eq!(world.out(A, LET_GO, WRITE_EXCLUSIVE, KEY_B, 0), CONFLICT);
    assert_eq!(world.out(A, LET_GO, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
    assert_eq!(all_pending(&mut world), [None; 3], "nobody is told of these two types");
    assert_eq!(world.out(A, LET_GO, WRITE_EXCLUSIVE, KEY_A, 0), GOOD, "nothing is held");
    world.medium(B, &write10(0, 1));
    assert_eq!(keys(&mut world).0, 2, "RESERVE and RELEASE do not count");
}

#[test]
fn registrants_hear_that_a_reservation_of_registrants_was_released() {
    use UnitAttention::ReservationsReleased;
    for kind in [5, 6, 7, 8] {
        let mut world = two_registered();
        assert_eq!(world.out(A, HOLD, kind, KEY_A, 0), GOOD);
        assert_eq!(world.out(A, LET_GO, kind, KEY_A, 0), GOOD);
        assert_eq!(all_pending(&mut world), [None, Some(ReservationsReleased), None], "{kind}");
    }
    // By unregistering, too, where one nexus holds it.
    let mut world = two_registered();
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE_REGISTRANTS, KEY_A, 0), GOOD);
    assert_eq!(world.out(A, REGISTER, 0, KEY_A, 0), GOOD);
    assert_eq!(all_pending(&mut world), [None, Some(ReservationsReleased), None]);
    assert_eq!(held(&mut world), None);
    let mut world = two_registered();
    assert_eq!(world.out(A, HOLD, EXCLUSIVE_ACCESS, KEY_A, 0), GOOD);
    assert_eq!(world.out(A, REGISTER, 0, KEY_A, 0), GOOD);
    assert_eq!((all_pending(&mut world), held(&mut world)), ([None; 3], None));
}

#[test]
fn a_reservation_of_all_registrants_ends_with_the_last_of_them() {
    let mut world = two_registered();
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE_ALL, KEY_A, 0), GOOD);
    assert_eq!(world.out(B, HOLD, WRITE_EXCLUSIVE_ALL, KEY_B, 0), GOOD, "every registrant holds it");
    assert_eq!(held(&mut world), Some((0, WRITE_EXCLUSIVE_ALL)), "and none has the key");
    world.medium(B, &write10(0, 1));
    assert_eq!(world.send(C, &write10(0, 1)), CONFLICT);
    assert_eq!(world.out(C, REGISTER, 0, 0, KEY_C), GOOD);
    world.medium(C, &write10(0, 1));
    assert_eq!(world.out(A, REGISTER, 0, KEY_A, 0), GOOD);
    assert_eq!(world.out(C, REGISTER, 0, KEY_C, 0), GOOD);
    assert_eq!(held(&mut world), Some((0, WRITE_EXCLUSIVE_ALL)));
    assert_eq!(world.out(B, REGISTER, 0, KEY_B, 0), GOOD);
    assert_eq!((held(&mut world), all_pending(&mut world)), (None, [None; 3]));
    world.medium(C, &write10(0, 1));
}

#[test]
fn clearing_ends_everything_and_tells_the_others() {
    let mut world = two_registered();
    assert_eq!(world.out(A, HOLD, EXCLUSIVE_ACCESS, KEY_A, 0), GOOD);
    assert_eq!(world.out(C, CLEAR, 0, 0, 0), CONFLICT);
    assert_eq!(world.out(B, CLEAR, 0, KEY_A, 0), CONFLICT);
    assert_eq!(world.out(B, CLEAR, 0, KEY_B, 0), GOOD);
    assert_eq!(keys(&mut world), (3, vec![]));
    assert_eq!(held(&mut world), None);
    assert_eq!(all_pending(&mut world), [Some(UnitAttention::ReservationsPreempted), None, None]);
}

#[test]
fn a_preempted_holder_loses_the_unit_and_its_registration() {
    let mut world = two_registered();
    assert_eq!(world.out(C, REGISTER, 0, 0, KEY_C), GOOD);
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
    assert_eq!(world.out(B, PREEMPT, WRITE_EXCLUSIVE, KEY_A, KEY_A), CONFLICT, "not its key");
    assert_eq!(world.out(B, PREEMPT, WRITE_EXCLUSIVE, KEY_B, 0xdead), CONFLICT, "nobody has that key");
    assert_eq!(world.out(B, PREEMPT, WRITE_EXCLUSIVE, KEY_B, 0), wrong_parameter(8, None));
    assert_eq!(world.out(B, PREEMPT, 2, KEY_B, KEY_A), wrong_field(2, Some(3)));
    assert_eq!(world.out(B, PREEMPT, WRITE_EXCLUSIVE, KEY_B, KEY_A), GOOD);
    assert_eq!(held(&mut world), Some((KEY_B, WRITE_EXCLUSIVE)));
    assert_eq!(keys(&mut world), (4, vec![KEY_B, KEY_C]));
    assert_eq!(world.last.as_ref().unwrap().aborts, None, "PREEMPT ends no tasks");
    assert_eq!(world.send(A, &write10(0, 1)), CONFLICT);
    assert_eq!(all_pending(&mut world), [Some(UnitAttention::RegistrationsPreempted), None, None]);
    // To another type: those that stay hear of it.
    let kind = WRITE_EXCLUSIVE_REGISTRANTS;
    assert_eq!(world.out(C, PREEMPT_AND_ABORT, kind, KEY_C, KEY_B), GOOD);
    assert_eq!(all_pending(&mut world), [None, Some(UnitAttention::RegistrationsPreempted), None]);
    assert_eq!(world.last.as_ref().unwrap().aborts, Some(Whom::These(vec![NexusId(2)])));
    assert_eq!(world.out(A, REGISTER, 0, 0, KEY_A), GOOD);
    assert_eq!(world.out(C, PREEMPT, WRITE_EXCLUSIVE, KEY_C, KEY_C), GOOD, "its own, to change the type");
    assert_eq!(held(&mut world), Some((KEY_C, WRITE_EXCLUSIVE)));
    assert_eq!(keys(&mut world).1, [KEY_A, KEY_C]);
    assert_eq!(all_pending(&mut world), [Some(UnitAttention::ReservationsReleased), None, None]);
}

#[test]
fn whose_commands_are_aborted_prevents_no_removal_any_more() {
    let mut world = World::new(removable());
    assert_eq!(world.out(A, REGISTER, 0, 0, KEY_A), GOOD);
    assert_eq!(world.out(B, REGISTER, 0, 0, KEY_B), GOOD);
    assert_eq!(world.send(B, &PREVENT), GOOD);
    assert_eq!(world.out(A, PREEMPT, WRITE_EXCLUSIVE, KEY_A, KEY_B), GOOD);
    assert_eq!(
        world.send(A, &EJECT),
        Answer::Ended(Outcome::illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED))
    );
    world.told(B, UnitAttention::RegistrationsPreempted);
    assert_eq!(world.out(B, REGISTER, 0, 0, KEY_B), GOOD);
    assert_eq!(world.out(A, PREEMPT_AND_ABORT, WRITE_EXCLUSIVE, KEY_A, KEY_B), GOOD);
    assert_eq!(world.send(A, &EJECT), GOOD);
}

#[test]
fn preempting_who_holds_nothing_only_removes_registrations() {
    let mut world = two_registered();
    assert_eq!(world.out(C, REGISTER, 0, 0, KEY_A), GOOD, "two with one key");
    assert_eq!(world.out(B, HOLD, WRITE_EXCLUSIVE, KEY_B, 0), GOOD);
    // SCOPE and TYPE are not looked at.
    assert_eq!(world.out(B, PREEMPT_AND_ABORT, 0xff, KEY_B, KEY_A), GOOD);
    assert_eq!(keys(&mut world).1, [KEY_B]);
    assert_eq!(held(&mut world), Some((KEY_B, WRITE_EXCLUSIVE)));
    let told = Some(UnitAttention::RegistrationsPreempted);
    assert_eq!(all_pending(&mut world), [told, None, told]);
    assert_eq!(world.last.as_ref().unwrap().aborts, Some(Whom::These(vec![NexusId(1), NexusId(3)])));
    // With nothing held, it may be the asker's own.
    let mut world = two_registered();
    assert_eq!(world.out(A, PREEMPT_AND_ABORT, 1, KEY_A, KEY_A), GOOD);
    assert_eq!(keys(&mut world).1, [KEY_B]);
    assert_eq!(all_pending(&mut world), [None; 3]);
    assert_eq!(world.last.as_ref().unwrap().aborts, Some(Whom::These(vec![])));
}

#[test]
fn all_registrants_are_preempted_by_no_key_and_one_of_them_by_its_own() {
    let mut world = two_registered();
    assert_eq!(world.out(C, REGISTER, 0, 0, KEY_C), GOOD);
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE_ALL, KEY_A, 0), GOOD);
    assert_eq!(world.out(B, PREEMPT, EXCLUSIVE_ACCESS, KEY_B, KEY_C), GOOD);
    assert_eq!(held(&mut world), Some((0, WRITE_EXCLUSIVE_ALL)), "it stays as it is");
    assert_eq!(keys(&mut world).1, [KEY_A, KEY_B]);
    let told = Some(UnitAttention::RegistrationsPreempted);
    assert_eq!(all_pending(&mut world), [None, None, told]);
    assert_eq!(world.out(B, PREEMPT, EXCLUSIVE_ACCESS, KEY_B, 0), GOOD);
    assert_eq!(held(&mut world), Some((KEY_B, EXCLUSIVE_ACCESS)));
    assert_eq!(keys(&mut world).1, [KEY_B]);
    assert_eq!(all_pending(&mut world), [told, None, None]);
}

fn move_list(key: u64, action_key: u64, flags: u8, port: u16, initiator: &str) -> Vec<u8> {
    let mut list = [key.to_be_bytes(), action_key.to_be_bytes()].concat();
    let length = (initiator.len() + 1).next_multiple_of(4).max(20);
    list.extend([0, flags]);
    list.extend(port.to_be_bytes());
    list.extend(u32::try_from(4 + length).unwrap().to_be_bytes());
    list.extend([0x45, 0]);
    list.extend(u16::try_from(length).unwrap().to_be_bytes());
    list.extend(initiator.as_bytes());
    list.resize(28 + length, 0);
    list
}

#[test]
fn a_holder_moves_its_reservation_to_another_port() {
    let send = |world: &mut World, who, list: &[u8]| {
        world.send_with(who, &out_cdb(MOVE, 0, u32::try_from(list.len()).unwrap()), list)
    };
    let mut world = two_registered();
    let there = "iqn.test:3,i,0x1";
    let good = move_list(KEY_A, KEY_C, 0, 1, there);
    assert_eq!(send(&mut world, A, &good), wrong_field(1, Some(4)), "nobody holds anything");
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
    assert_eq!(send(&mut world, B, &move_list(KEY_B, KEY_C, 0, 1, there)), CONFLICT);
    assert_eq!(send(&mut world, A, &move_list(KEY_B, KEY_C, 0, 1, there)), CONFLICT);
    assert_eq!(send(&mut world, A, &move_list(KEY_A, 0, 0, 1, there)), wrong_parameter(8, None));
    assert_eq!(send(&mut world, A, &move_list(KEY_A, KEY_C, 0, 9, there)), wrong_parameter(18, None));
    assert_eq!(send(&mut world, A, &good), GOOD);
    assert_eq!(held(&mut world), Some((KEY_C, WRITE_EXCLUSIVE)));
    assert_eq!(keys(&mut world), (3, vec![KEY_A, KEY_B, KEY_C]));
    world.medium(C, &write10(0, 1));
    assert_eq!(world.send(A, &write10(0, 1)), CONFLICT);
    // And to a nexus that is not here, leaving.
    assert_eq!(send(&mut world, C, &move_list(KEY_C, 5, 2, 2, "iqn.test:4,i,0x1")), GOOD);
    assert_eq!(keys(&mut world).1, [KEY_A, KEY_B, 5]);
    assert_eq!(held(&mut world), Some((5, WRITE_EXCLUSIVE)));
    let fourth = world.join("iqn.test:4,i,0x000000000001", PORT_2);
    world.medium(fourth, &write10(0, 1));
    assert_eq!(all_pending(&mut world), [None; 3]);
}

#[test]
fn a_reservation_of_all_registrants_cannot_be_moved_nor_one_to_its_holder() {
    let mut world = two_registered();
    let list = move_list(KEY_A, KEY_C, 0, 1, "iqn.test:1,i,0x1");
    let cdb = out_cdb(MOVE, 0, u32::try_from(list.len()).unwrap());
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE_ALL, KEY_A, 0), GOOD);
    assert_eq!(world.send_with(A, &cdb, &list), CONFLICT);
    let mut world = World::new(disk());
    let me = world.join("iqn.test:9,i,0x000000000001", PORT_1);
    let ports = [(PORT_1, 1), (PORT_2, 2)];
    let ports = ports.map(|(name, relative_id)| TargetPort { name: name.to_owned(), relative_id });
    world.original.set_ports(Arc::new(ports));
    assert_eq!(world.out(me, REGISTER, 0, 0, KEY_A), GOOD);
    assert_eq!(world.out(me, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
    for port in [1, 2] {
        let list = move_list(KEY_A, KEY_C, 0, port, "iqn.test:9,i,0x1");
        assert_eq!(world.send_with(me, &cdb, &list), wrong_parameter(24, None), "its own initiator port");
    }
}

/// A REGISTER with SPEC_I_PT.
fn register_for(action_key: u64, flags: u8, ids: &[&[u8]]) -> Vec<u8> {
    let ids = ids.concat();
    let mut list = basic(0, action_key, 0x08 | flags);
    list.extend(u32::try_from(ids.len()).unwrap().to_be_bytes());
    list.extend(ids);
    list
}

#[test]
fn a_nexus_registers_others_which_are_bound_at_once() {
    let mut world = World::new(disk());
    world.join("iqn.test:3,i,0x000000000001", PORT_1);
    world.join("iqn.test:3,i,0x000000000002", PORT_1);
    world.join("iqn.test:3,i,0x000000000003", PORT_2);
    let device = b"\x05\0\0\x14iqn.test:3\0\0\0\0\0\0\0\0\0\0";
    let port = b"\x45\0\0\x14iqn.test:5,i,0x7\0\0\0\0";
    let list = register_for(KEY_A, 0, &[device, port]);
    let cdb = out_cdb(REGISTER, 0, u32::try_from(list.len()).unwrap());
    assert_eq!(world.send_with(A, &cdb, &list), GOOD);
    assert_eq!(
        keys(&mut world),
        (1, vec![KEY_A; 4]),
        "all ports of a device that are known at this target port"
    );
    let late = world.join("iqn.test:5,i,0x000000000007", PORT_1);
    assert_eq!(world.out(late, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
    assert_eq!(world.send_with(A, &cdb, &list), CONFLICT, "it is registered, and 0 is not its key");
    let mut again = list.clone();
    again[..8].copy_from_slice(&KEY_A.to_be_bytes());
    assert_eq!(world.send_with(A, &cdb, &again), wrong_parameter(20, Some(3)));
    let before = keys(&mut world);
    let one_more = b"\x45\0\0\x14iqn.test:6,i,0x7\0\0\0\0";
    for known in [device, port] {
        let list = register_for(KEY_B, 0, &[one_more, known]);
        assert_eq!(
            world.send_with(B, &cdb, &list),
            wrong_parameter(28, None),
            "a registered one is among them"
        );
    }
    let none = register_for(0, 0, &[port]);
    let cdb = out_cdb(REGISTER, 0, u32::try_from(none.len()).unwrap());
    assert_eq!(world.send_with(B, &cdb, &none), GOOD, "a key of 0 registers nobody");
    assert_eq!(keys(&mut world), before);
}

#[test]
fn a_registration_at_all_target_ports_counts_at_each() {
    let mut world = two_registered();
    let elsewhere = world.join("iqn.test:3,i,0x000000000001", PORT_2);
    let all = |key, action_key| basic(key, action_key, 0x04);
    let cdb = out_cdb(REGISTER, 0, 24);
    assert_eq!(world.send_with(C, &cdb, &all(0, KEY_C)), GOOD);
    assert_eq!(keys(&mut world), (3, vec![KEY_A, KEY_B, KEY_C, KEY_C]));
    assert_eq!(world.out(elsewhere, HOLD, EXCLUSIVE_ACCESS, KEY_C, 0), GOOD);
    let full = world.data(C, &in_cdb(3));
    let mut descriptors = Vec::new();
    let mut rest = &full[8..];
    while let Some(one) = rest.get(..24) {
        let key = u64::from_be_bytes(one[..8].try_into().unwrap());
        descriptors.push((key, one[12], one[13], u16::from_be_bytes([one[18], one[19]])));
        let length = u32::from_be_bytes(one[20..24].try_into().unwrap()) as usize;
        rest = &rest[24 + length..];
    }
    assert_eq!(descriptors.len(), 4);
    assert_eq!(descriptors[2..], [(KEY_C, 0, 0, 1), (KEY_C, 1, EXCLUSIVE_ACCESS, 2)]);
    assert_eq!(world.send_with(C, &cdb, &all(KEY_C, 0)), GOOD);
    assert_eq!(keys(&mut world).1, [KEY_A, KEY_B]);
    // One that differs at a port conflicts there, so that nothing is done.
    assert_eq!(world.out(elsewhere, REGISTER, 0, 0, 5), GOOD);
    assert_eq!(world.send_with(C, &cdb, &all(0, KEY_C)), CONFLICT);
    assert_eq!(world.send_with(C, &out_cdb(IGNORE, 0, 24), &all(0, KEY_C)), GOOD);
    assert_eq!(keys(&mut world).1, [KEY_A, KEY_B, KEY_C, KEY_C]);
}

#[test]
fn what_can_be_done_is_reported_as_it_is() {
    let mut world = two_registered();
    assert_eq!(world.data(C, &in_cdb(2)), [0, 8, 0x1d, 0x90, 0xea, 0x01, 0, 0]);
    assert_eq!(world.send_with(A, &out_cdb(IGNORE, 0, 24), &basic(0, KEY_A, 0x01)), GOOD);
    assert_eq!(world.data(C, &in_cdb(2))[3], 0x91, "PTPL_A");
    assert_eq!(world.out(B, IGNORE, 0, 0, KEY_B), GOOD);
    assert_eq!(world.data(C, &in_cdb(2))[3], 0x90, "the last registration decides");
    let mut short = in_cdb(0);
    short[7..9].copy_from_slice(&[0, 4]);
    assert_eq!(world.data(C, &short), [0, 0, 0, 4], "PRGENERATION alone");
    assert_eq!(world.send(C, &in_cdb(4)), wrong_field(1, Some(4)));
    assert_eq!(world.send(C, &out_cdb(8, 0, 24)), wrong_field(1, Some(4)));
}

#[test]
fn registrations_stay_when_sessions_end_and_units_are_reset() {
    let mut world = two_registered();
    assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE_REGISTRANTS, KEY_A, 0), GOOD);
    assert_eq!(world.original.nexus_lost(NexusId(1)), None);
    world.original.reset(UnitAttention::LogicalUnitReset);
    assert_eq!(held(&mut world), Some((KEY_A, WRITE_EXCLUSIVE_REGISTRANTS)));
    assert_eq!(world.send(C, &write10(0, 1)), CONFLICT);
    // The same names under another number.
    let again = world.join("iqn.test:1,i,0x1", "iqn.test:t,t,0x1");
    world.medium(again, &write10(0, 1));
    assert_eq!(world.out(again, LET_GO, WRITE_EXCLUSIVE_REGISTRANTS, KEY_A, 0), GOOD);
}

#[test]
fn nothing_is_answered_while_the_ledger_is_not_known() {
    for (readiness, answered) in [
        (Readiness::BecomingReady, false),
        (Readiness::InterventionRequired, false),
        (Readiness::CauseNotReportable, false),
        (Readiness::MediumNotPresent, true),
    ] {
        let mut unit = removable();
        unit.readiness = readiness;
        let mut world = World::new(unit);
        assert_eq!(matches!(world.send(A, &in_cdb(0)), Answer::Data(_)), answered, "{readiness:?}");
        assert_eq!(world.out(A, REGISTER, 0, 0, 1) == GOOD, answered, "{readiness:?}");
    }
}

#[test]
fn registrations_are_bounded() {
    let mut world = World::new(disk());
    let mut last = 0;
    for number in 0..REGISTRANTS_MAX {
        last = world.join(&format!("iqn.test:x{number},i,0x000000000001"), PORT_1);
        assert_eq!(world.out(last, REGISTER, 0, 0, 1 + number as u64), GOOD);
    }
    let full = AdditionalSense { code: 0x55, qualifier: 0x04 };
    assert_eq!(world.out(A, REGISTER, 0, 0, KEY_A), illegal(full));
    assert_eq!(world.out(last, REGISTER, 0, REGISTRANTS_MAX as u64, 7), GOOD, "a key may change");
    let data = world.data(B, &in_cdb(3));
    let whole = u32::from_be_bytes(data[4..8].try_into().unwrap()) as usize;
    assert_eq!(data.len(), (8 + whole).min(usize::from(u16::MAX)));
}

const BOOT: [u8; 16] = [3; 16];
const LATER: [u8; 16] = [4; 16];

#[test]
fn aptpl_decides_over_a_reboot_and_over_nothing_else() {
    for (flags, survives) in [(0x00, false), (0x01, true)] {
        let mut world = two_registered();
        assert_eq!(world.send_with(A, &out_cdb(IGNORE, 0, 24), &basic(0, KEY_A, flags)), GOOD);
        assert_eq!(world.out(A, HOLD, WRITE_EXCLUSIVE, KEY_A, 0), GOOD);
        let bytes = world.original.ledger().encode(BOOT);
        for (boot, is_there, generation) in [(BOOT, true, 3), (LATER, survives, 0)] {
            let ledger = Ledger::restore(&bytes, boot).unwrap();
            let original = Original::new(disk(), ledger);
            let Reservation::Persistent(kept) = &original.unit().reservation else {
                assert!(!is_there);
                continue;
            };
            assert!(is_there && kept.nexuses.is_empty());
            assert_eq!((kept.generation, kept.persists), (generation, survives));
            assert_eq!(kept.registrants.iter().map(|one| one.key).collect::<Vec<_>>(), [KEY_A, KEY_B]);
            assert_eq!(kept.held.map(|kind| kind.code()), Some(WRITE_EXCLUSIVE));
        }
    }
}

proptest! {
    /// Whatever is asked: a holder is registered, no key is 0, what is kept reads back, and who is refused changed nothing.
    #[test]
    fn a_ledger_stays_sound(steps in proptest::collection::vec((0..3_usize, 0..7_u8, 0..10_u8, 0..3_u64, 0..3_u64, any::<bool>()), 1..40)) {
        let mut world = two_registered();
        for (who, action, kind, key, action_key, persists) in steps {
            let list = basic(key, action_key, u8::from(persists));
            let before = world.original.clone();
            let answer = world.send_with(who, &out_cdb(action, kind, 24), &list);
            world.nexuses.iter_mut().for_each(|(_, state)| while state.attentions.take().is_some() {});
            let ledger = world.original.ledger();
            if answer != GOOD {
                prop_assert_eq!(before.ledger(), ledger);
            }
            let Reservation::Persistent(seen) = ledger.view() else {
                return Err(TestCaseError::fail("somebody was registered"));
            };
            prop_assert_eq!(&world.original.unit().reservation, &ledger.view());
            prop_assert!(seen.registrants.iter().all(|one| one.key != 0));
            let holders = seen.registrants.iter().filter(|one| one.holder).count();
            match seen.held {
                None => prop_assert_eq!(holders, 0),
                Some(kind) if kind.all_registrants() => prop_assert_eq!(holders, seen.registrants.len()),
                Some(_) => prop_assert_eq!(holders, 1),
            }
            let (kept, boot) = Ledger::decode(&ledger.encode(BOOT)).unwrap();
            prop_assert_eq!((kept.encode(BOOT), boot), (ledger.encode(BOOT), BOOT));
        }
    }
}

#[test]
fn a_name_that_comes_back_is_what_it_was() {
    let mut ledger = Ledger::new();
    let name = NexusName::new("iqn.x:a,i,0x000000000001", PORT_1);
    ledger.attach(NexusId(1), name.clone());
    ledger.nexus_lost(NexusId(1));
    assert_eq!(ledger.attach(NexusId(2), name), Reservation::None);
}
