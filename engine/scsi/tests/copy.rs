//! EXTENDED COPY: parameter lists read and refused, and what they come to between units.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::copy::{ExtendedCopy, Run};
use portico_scsi::copy_results::CopyResults;
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::unit::{Geometry, LogicalUnit, WriteCache};

/// An identification descriptor of the EUI-64 that `unit` has.
fn cscd(unit: &LogicalUnit) -> [u8; 32] {
    let mut bytes = [0; 32];
    (bytes[0], bytes[4], bytes[5], bytes[7]) = (0xe4, 1, 2, 8);
    bytes[8..16].copy_from_slice(unit.identity.eui64.unwrap().as_bytes());
    bytes[28..].copy_from_slice(&unit.geometry.block_length().to_be_bytes());
    bytes
}

/// A segment from block device to block device.
fn segment(from: u16, to: u16, blocks: u16, source: u64, destination: u64) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[0] = 0x02;
    bytes[3] = 24;
    bytes[4..6].copy_from_slice(&from.to_be_bytes());
    bytes[6..8].copy_from_slice(&to.to_be_bytes());
    bytes[10..12].copy_from_slice(&blocks.to_be_bytes());
    bytes[12..20].copy_from_slice(&source.to_be_bytes());
    bytes[20..].copy_from_slice(&destination.to_be_bytes());
    bytes
}

fn list(cscds: &[[u8; 32]], segments: &[[u8; 28]]) -> Vec<u8> {
    let mut list = vec![7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    list[2..4].copy_from_slice(&u16::try_from(cscds.len() * 32).unwrap().to_be_bytes());
    list[8..12].copy_from_slice(&u32::try_from(segments.len() * 28).unwrap().to_be_bytes());
    list.extend(cscds.as_flattened());
    list.extend(segments.as_flattened());
    list
}

fn send(list: &[u8]) -> Answer {
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[10..14].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
    World::new(disk()).send_with(0, &cdb, list)
}

fn read(list: &[u8]) -> ExtendedCopy {
    match send(list) {
        Answer::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

fn aborted(code: u8, qualifier: u8) -> Outcome {
    Outcome::copy_aborted(AdditionalSense { code, qualifier })
}

/// A unit of this name and block length, 1 MiB in size.
fn unit(name: &str, block_length: u32) -> LogicalUnit {
    let identity = Identity::new(&IdentityOptions::new(0, name, Handler::FileIo)).unwrap();
    let geometry = Geometry::new(block_length, (1 << 20) / u64::from(block_length), 0, 1 << 20).unwrap();
    LogicalUnit::new(identity, geometry, WriteCache::WriteBack)
}

#[test]
fn segments_become_bytes_between_the_units_that_are_named() {
    let (small, large) = (unit("a", 512), unit("b", 4096));
    let mut backwards = segment(1, 0, 8, 1, 16);
    backwards[1] = 0x02; // DC: the blocks are the destination's
    let copy = read(&list(&[cscd(&small), cscd(&large)], &[segment(0, 1, 16, 8, 3), backwards]));
    assert_eq!(copy.list_id, Some(7));
    assert!(copy.cscds[0].names(&small.identity) && !copy.cscds[0].names(&large.identity));
    let runs = copy.runs(&[Some(&small), Some(&large)]).unwrap();
    let there = Run {
        segment: 0,
        source: 0,
        destination: 1,
        source_bytes: 4096,
        destination_bytes: 3 * 4096,
        length_bytes: 8192,
    };
    let back = Run {
        segment: 1,
        source: 1,
        destination: 0,
        source_bytes: 4096,
        destination_bytes: 8192,
        length_bytes: 4096,
    };
    assert_eq!(runs, [there, back]);
}

#[test]
fn what_is_not_there_or_not_whole_aborts_the_copy_before_it_begins() {
    let (small, large) = (unit("a", 512), unit("b", 4096));
    let failed = |code, qualifier| Outcome::copy_failed(AdditionalSense { code, qualifier }, 0);
    let runs = |segment: [u8; 28], units: &[Option<&LogicalUnit>]| {
        read(&list(&[cscd(&small), cscd(&large)], &[segment])).runs(units).unwrap_err()
    };
    let both = [Some(&small), Some(&large)];
    assert_eq!(runs(segment(0, 2, 8, 0, 0), &both), failed(0x0d, 0x02), "no such descriptor");
    assert_eq!(runs(segment(0, 1, 8, 0, 0), &[Some(&small), None]), failed(0x0d, 0x02), "not seen");
    assert_eq!(runs(segment(0, 1, 8, 2041, 0), &both), failed(0, 0), "beyond the source");
    assert_eq!(runs(segment(0, 1, 8, 0, 256), &both), failed(0, 0), "beyond the destination");
    assert_eq!(runs(segment(0, 1, 8, 0, u64::MAX), &both), failed(0, 0));
    assert_eq!(runs(segment(0, 1, 7, 0, 0), &both), failed(0x26, 0x0a), "no whole block");
    let exchanged = [Some(&large), Some(&small)];
    assert_eq!(runs(segment(0, 1, 8, 0, 0), &exchanged), failed(0x0d, 0x03), "another block length");
}

#[test]
fn lists_that_are_wrong_are_refused() {
    let (one, part) = (cscd(&disk()), segment(0, 0, 1, 0, 8));
    let refused = |cscds: &[[u8; 32]], segments: &[[u8; 28]]| send(&list(cscds, segments));
    let illegal = |code, qualifier| illegal(AdditionalSense { code, qualifier });
    assert_eq!(refused(&[one; 17], &[part]), illegal(0x26, 0x06));
    assert_eq!(refused(&[one], &[part; 65]), illegal(0x26, 0x08));
    assert_eq!(refused(&[one; 17], &[part; 65]), illegal(0x1a, 0x00));
    assert!(matches!(refused(&[one; 16], &[part; 64]), Answer::Copy(_)));
    let whole = list(&[one], &[part]);
    assert_eq!(send(&whole[..47]), illegal(0x1a, 0x00), "a descriptor that is not whole");
    assert_eq!(send(&whole[..whole.len() - 1]), illegal(0x1a, 0x00));
    assert_eq!(send(&[]), GOOD);
    let with = |at: usize, value: u8| {
        let mut list = whole.clone();
        list[at] = value;
        send(&list)
    };
    assert_eq!(with(16, 0xe0), illegal(0x26, 0x07), "a Fibre Channel name");
    assert_eq!(with(48, 0x04), illegal(0x26, 0x09), "to a stream");
    assert!(matches!(with(17, 0xe0), Answer::Copy(_)), "LU ID TYPE and NUL mean nothing here");
    assert_eq!(with(17, 0x01), Answer::Ended(aborted(0x0d, 0x02)), "to a tape");
    assert_eq!(with(15, 4), illegal(0x1a, 0x00), "inline data");
    assert_eq!(with(1, 0x18), Answer::Ended(Outcome::invalid_parameter(0, None)), "no identifier, and one");
}

#[test]
fn operating_parameters_and_the_page_tell_the_limits() {
    let mut world = World::new(disk());
    let parameters = world.data(0, &[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(parameters.len(), 46);
    assert_eq!(parameters[..4], [0, 0, 0, 42]);
    assert_eq!(parameters[8..12], [0, 16, 0, 64]);
    assert_eq!(parameters[43..], [2, 0x02, 0xe4]);
    let page = world.data(0, &inquiry_page(0x8f));
    let commands = [0, 1, 0, 16, 14, 0x83, 5, 0, 1, 0x10, 0x11, 0x1c, 0x84, 5, 0, 3, 4, 5, 7];
    assert!(page.windows(19).any(|descriptor| descriptor == commands), "{page:02x?}");
    let own = [0, 0x0c, 0, 4, 0, 2, 0xff, 0xff];
    assert!(page.windows(8).any(|descriptor| descriptor == own), "{page:02x?}");
    assert_eq!(world.data(0, &INQUIRY)[5] & 0x08, 0x08, "3PC");
}

#[test]
fn what_is_asked_of_a_copy_names_it_by_one_byte_or_four() {
    let mut world = World::new(disk());
    let mut asked = |action, id: [u8; 4]| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x84, action, 12);
        cdb[2..6].copy_from_slice(&id);
        world.send(0, &cdb)
    };
    assert_eq!(asked(0, [9, 0, 0, 0]), Answer::CopyResults(CopyResults::Status, 9));
    assert_eq!(asked(4, [9, 0, 0, 0]), Answer::CopyResults(CopyResults::FailureDetails, 9));
    assert_eq!(asked(5, [1, 2, 3, 4]), Answer::CopyResults(CopyResults::LongStatus, 0x0102_0304));
    assert_eq!(asked(0, [9, 1, 0, 0]), wrong_field(3, Some(0)));
    let abort = [0x83, 0x1c, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(world.send(0, &abort), Answer::CopyAborted(0x0102_0304));
}

/// A list of EXTENDED COPY (LID4).
fn long_list(cscds: &[[u8; 32]], segments: &[[u8; 28]]) -> Vec<u8> {
    let mut list = vec![0; 48];
    (list[0], list[3], list[16]) = (0x01, 0x20, 0xff);
    list[20..24].copy_from_slice(&[1, 2, 3, 4]);
    list[42..44].copy_from_slice(&u16::try_from(cscds.len() * 32).unwrap().to_be_bytes());
    list[44..46].copy_from_slice(&u16::try_from(segments.len() * 28).unwrap().to_be_bytes());
    list.extend(cscds.as_flattened());
    list.extend(segments.as_flattened());
    list
}

fn send_long(list: &[u8]) -> Answer {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, 0x01);
    cdb[10..14].copy_from_slice(&u32::try_from(list.len()).unwrap().to_be_bytes());
    World::new(disk()).send_with(0, &cdb, list)
}

#[test]
fn the_long_list_says_the_same_with_an_identifier_of_four_bytes() {
    let (small, large) = (unit("a", 512), unit("b", 4096));
    let (cscds, segments) = ([cscd(&small), cscd(&large)], [segment(0, 1, 16, 8, 3)]);
    let Answer::Copy(long) = send_long(&long_list(&cscds, &segments)) else { panic!("it is right") };
    assert_eq!((long.list_id, long.service_action, long.immediate), (Some(0x0102_0304), 1, false));
    let short = read(&list(&cscds, &segments));
    let both = [Some(&small), Some(&large)];
    assert_eq!(long.runs(&both), short.runs(&both));
    let with = |at: usize, value: u8| {
        let mut list = long_list(&cscds, &segments);
        list[at] = value;
        send_long(&list)
    };
    let Answer::Copy(immediate) = with(15, 0x01) else { panic!("IMMED") };
    assert!(immediate.immediate);
    let refused = |at| Answer::Ended(Outcome::invalid_parameter(at, None));
    assert_eq!(with(0, 0), refused(0), "another format");
    assert_eq!((with(2, 1), with(3, 0x1f)), (refused(2), refused(2)));
    assert_eq!(with(16, 0xe4), refused(16));
    assert_eq!(with(1, 0x18), refused(20), "no identifier, and one");
    let illegal = |code, qualifier| illegal(AdditionalSense { code, qualifier });
    assert_eq!(with(47, 1), illegal(0x1a, 0x00), "inline data");
    assert_eq!(with(43, 0x60), illegal(0x1a, 0x00), "descriptors that are not there");
    assert_eq!(send_long(&long_list(&cscds, &segments)[..47]), illegal(0x1a, 0x00));
    assert_eq!(send_long(&[]), GOOD);
    let most = long_list(&[cscds[0]; 16], &[segments[0]; 64]);
    assert!(matches!(send_long(&most), Answer::Copy(_)));
}

#[test]
fn a_segment_may_name_the_unit_that_the_command_came_to() {
    let (small, large) = (unit("a", 512), unit("b", 4096));
    let Answer::Copy(copy) = send_long(&long_list(&[cscd(&small)], &[segment(0, 0xffff, 16, 8, 3)])) else {
        panic!("it is right")
    };
    let own: Vec<bool> = copy.cscds.iter().map(|cscd| cscd.is_own).collect();
    assert_eq!(own, [false, true]);
    let runs = copy.runs(&[Some(&small), Some(&large)]).unwrap();
    assert_eq!((runs[0].destination, runs[0].destination_bytes), (1, 3 * 4096));
    let beside = long_list(&[cscd(&small)], &[segment(0xffff, 0, 1, 0, 0), segment(1, 0, 1, 0, 8)]);
    let Answer::Copy(copy) = send_long(&beside) else { panic!("it is right") };
    let unreachable = Outcome::copy_failed(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE, 1);
    assert_eq!(copy.runs(&[Some(&small), Some(&small)]), Err(unreachable), "there is no second descriptor");
}
