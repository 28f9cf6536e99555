//! The conflict rules against a second reading of the standards' tables, written out as data: SPC-2 §5.5.1 for RESERVE,
//! SPC-4 §5.13.1 and SBC-3 §4.17 for persistent reservations.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::opcodes::{self, Opcode};
use proptest::prelude::*;

/// One row of the tables of commands that are allowed in the presence of various reservations.
struct Row {
    code: u8,
    service_action: Option<u8>,
    /// Persistent reservation of another nexus: from any nexus with Write Exclusive and Exclusive Access, from a registered
    /// one with all others, from one that is not with Write Exclusive and Exclusive Access of registrants. A or C.
    persistent: &'static str,
    /// With a RESERVE of another nexus.
    reserve: char,
}

const fn row(code: u8, persistent: &'static str, reserve: char) -> Row {
    Row { code, service_action: None, persistent, reserve }
}

const fn action(code: u8, action: u8, persistent: &'static str, reserve: char) -> Row {
    Row { code, service_action: Some(action), persistent, reserve }
}

const PASSES: &str = "AAAAA";
const READS: &str = "ACAAC";
const WRITES: &str = "CCACC";

/// Commands of both standards that a disk may serve, whether or not they are served here.
const TABLE: &[Row] = &[
    row(0x00, PASSES, 'C'),          // TEST UNIT READY
    row(0x03, PASSES, 'A'),          // REQUEST SENSE
    row(0x04, WRITES, 'C'),          // FORMAT UNIT
    row(0x07, WRITES, 'C'),          // REASSIGN BLOCKS
    row(0x08, READS, 'C'),           // READ (6)
    row(0x0a, WRITES, 'C'),          // WRITE (6)
    row(0x12, PASSES, 'A'),          // INQUIRY
    row(0x15, WRITES, 'C'),          // MODE SELECT (6)
    row(0x1a, READS, 'C'),           // MODE SENSE (6)
    row(0x1c, READS, 'C'),           // RECEIVE DIAGNOSTIC RESULTS
    row(0x1d, WRITES, 'C'),          // SEND DIAGNOSTIC
    row(0x25, PASSES, 'A'),          // READ CAPACITY (10)
    row(0x28, READS, 'C'),           // READ (10)
    row(0x2a, WRITES, 'C'),          // WRITE (10)
    row(0x2e, WRITES, 'C'),          // WRITE AND VERIFY (10)
    row(0x2f, READS, 'C'),           // VERIFY (10)
    row(0x34, READS, 'C'),           // PRE-FETCH (10)
    row(0x35, WRITES, 'C'),          // SYNCHRONIZE CACHE (10)
    row(0x37, READS, 'C'),           // READ DEFECT DATA (10)
    row(0x41, WRITES, 'C'),          // WRITE SAME (10)
    row(0x42, WRITES, 'C'),          // UNMAP
    row(0x48, WRITES, 'C'),          // SANITIZE
    row(0x4c, WRITES, 'C'),          // LOG SELECT
    row(0x4d, PASSES, 'A'),          // LOG SENSE
    row(0x55, WRITES, 'C'),          // MODE SELECT (10)
    row(0x5a, READS, 'C'),           // MODE SENSE (10)
    action(0x7f, 0x09, READS, 'C'),  // READ (32)
    action(0x7f, 0x0a, READS, 'C'),  // VERIFY (32)
    action(0x7f, 0x0b, WRITES, 'C'), // WRITE (32)
    action(0x7f, 0x0c, WRITES, 'C'), // WRITE AND VERIFY (32)
    action(0x7f, 0x0d, WRITES, 'C'), // WRITE SAME (32)
    action(0x7f, 0x12, READS, 'C'),  // GET LBA STATUS (32)
    row(0x83, WRITES, 'C'),          // EXTENDED COPY
    row(0x84, PASSES, 'C'),          // RECEIVE COPY RESULTS
    row(0x88, READS, 'C'),           // READ (16)
    row(0x89, WRITES, 'C'),          // COMPARE AND WRITE
    row(0x8a, WRITES, 'C'),          // WRITE (16)
    row(0x8b, WRITES, 'C'),          // ORWRITE
    row(0x8e, WRITES, 'C'),          // WRITE AND VERIFY (16)
    row(0x8f, READS, 'C'),           // VERIFY (16)
    row(0x90, READS, 'C'),           // PRE-FETCH (16)
    row(0x91, WRITES, 'C'),          // SYNCHRONIZE CACHE (16)
    row(0x93, WRITES, 'C'),          // WRITE SAME (16)
    row(0x9c, WRITES, 'C'),          // WRITE ATOMIC (16)
    action(0x9e, 0x10, PASSES, 'A'), // READ CAPACITY (16)
    action(0x9e, 0x12, READS, 'C'),  // GET LBA STATUS (16)
    row(0xa0, PASSES, 'A'),          // REPORT LUNS
    action(0xa3, 0x0a, PASSES, 'C'), // REPORT TARGET PORT GROUPS
    action(0xa3, 0x0c, READS, 'C'),  // REPORT SUPPORTED OPERATION CODES
    action(0xa3, 0x0d, READS, 'C'),  // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    action(0xa4, 0x0a, WRITES, 'C'), // SET TARGET PORT GROUPS
    row(0xa8, READS, 'C'),           // READ (12)
    row(0xaa, WRITES, 'C'),          // WRITE (12)
    row(0xae, WRITES, 'C'),          // WRITE AND VERIFY (12)
    row(0xaf, READS, 'C'),           // VERIFY (12)
    row(0xb7, READS, 'C'),           // READ DEFECT DATA (12)
];

/// What the tables say of `cdb`. PERSISTENT RESERVE and RESERVE have tables of their own below.
fn reading(opcode: &Opcode, cdb: &[u8]) -> Option<(&'static str, char)> {
    match opcode.operation_code {
        0x16 | 0x17 | 0x56 | 0x57 | 0x5e | 0x5f => return None,
        // START STOP UNIT: starting, with POWER CONDITION 0h, passes.
        0x1b if cdb[4] & 0x01 != 0 && cdb[4] >> 4 == 0 => return Some((PASSES, 'A')),
        // PREVENT ALLOW MEDIUM REMOVAL: allowing passes.
        0x1e if cdb[4] & 0x03 == 0 => return Some((PASSES, 'A')),
        0x1b | 0x1e => return Some((WRITES, 'C')),
        _ => {}
    }
    let found = TABLE.iter().find(|row| {
        let same_action =
            row.service_action.is_none() || row.service_action.map(u16::from) == opcode.service_action;
        row.code == opcode.operation_code && same_action
    });
    let found = found.unwrap_or_else(|| panic!("{}: look it up in the standard's table", opcode.name));
    Some((found.persistent, found.reserve))
}

const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];
/// Nexuses of [`held`].
const HOLDER: usize = 0;
const REGISTERED: usize = 1;
const STRANGER: usize = 2;

/// A unit whose reservation of this type nexus 0 holds, nexus 1 being registered as well and nexus 2 not.
fn held(kind: u8) -> World {
    let mut world = World::new(thin());
    world.join("iqn.test:3,i,0x1", "iqn.test:t,t,0x1");
    assert_eq!(world.out(HOLDER, 0, 0, 0, 0xa), GOOD);
    assert_eq!(world.out(REGISTERED, 0, 0, 0, 0xb), GOOD);
    assert_eq!(world.out(HOLDER, 1, kind, 0xa, 0), GOOD);
    world
}

fn any_form(opcode: &Opcode, bytes: [u8; 16]) -> Vec<u8> {
    let noise = bytes.into_iter().cycle();
    let mut cdb: Vec<u8> = opcode.usage.iter().zip(noise).map(|(usage, byte)| usage & byte).collect();
    cdb[0] = opcode.operation_code;
    match opcode.service_action {
        Some(_) if cdb.len() > 16 => cdb[8..10].copy_from_slice(&opcode.usage[8..10]),
        Some(_) => cdb[1] = opcode.usage[1],
        None => {}
    }
    cdb
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_command_served_keeps_to_the_table_of_persistent_reservations(
        row in 0..opcodes::TABLE.len(), bytes: [u8; 16], kind in 0..TYPES.len(), who in 0..3_usize,
    ) {
        let (opcode, kind) = (&opcodes::TABLE[row], TYPES[kind]);
        let cdb = any_form(opcode, bytes);
        let Some((columns, _)) = reading(opcode, &cdb) else { return Ok(()) };
        let column = match (who, kind) {
            (HOLDER, _) | (REGISTERED, 7 | 8) => None,
            (_, 1) => Some(0),
            (_, 3) => Some(1),
            (REGISTERED, _) => Some(2),
            (_, 5 | 7) => Some(3),
            _ => Some(4),
        };
        let refused = column.is_some_and(|column| columns.as_bytes()[column] == b'C');
        let answer = held(kind).send(who, &cdb);
        prop_assert_eq!(answer == CONFLICT, refused, "{} from {} with {}: {:02x?}", opcode.name, who, kind, cdb);
    }

    #[test]
    fn every_command_served_keeps_to_the_table_of_reserve(row in 0..opcodes::TABLE.len(), bytes: [u8; 16]) {
        let opcode = &opcodes::TABLE[row];
        let cdb = any_form(opcode, bytes);
        let mut world = World::new(thin());
        prop_assert_eq!(world.send(0, &RESERVE), GOOD);
        let (other, holder) = match opcode.operation_code {
            0x16 | 0x56 => ('C', 'A'),
            0x17 | 0x57 => ('A', 'A'),
            // Whoever asks.
            0x5e | 0x5f => ('C', 'C'),
            _ => (reading(opcode, &cdb).unwrap().1, 'A'),
        };
        prop_assert_eq!(world.send(1, &cdb) == CONFLICT, other == 'C', "{} {:02x?}", opcode.name, cdb);
        prop_assert_eq!(world.send(0, &cdb) == CONFLICT, holder == 'C', "the holder: {}", opcode.name);
    }
}

#[test]
fn every_service_action_keeps_to_its_table() {
    // SERVICE ACTION; from a registered nexus that does not hold it, from one that is not registered.
    let table = [
        (0x00, 'A', 'A'), // REGISTER
        (0x01, 'C', 'C'), // RESERVE
        (0x02, 'A', 'C'), // RELEASE
        (0x03, 'A', 'C'), // CLEAR
        (0x04, 'A', 'C'), // PREEMPT
        (0x05, 'A', 'C'), // PREEMPT AND ABORT
        (0x06, 'A', 'A'), // REGISTER AND IGNORE EXISTING KEY
        (0x07, 'C', 'C'), // REGISTER AND MOVE
    ];
    let served = opcodes::TABLE.iter().filter(|row| row.operation_code == 0x5f);
    assert_eq!(served.count(), table.len());
    for (action, registered, stranger) in table {
        for kind in [1, 3, 5, 6] {
            for (who, key, verdict) in [(REGISTERED, 0xb, registered), (STRANGER, 0, stranger)] {
                let mut list = basic(key, 0xa, 0);
                if action == 7 {
                    list[23] = 24;
                    list.extend(b"\x45\0\0\x14iqn.x:a,i,0x1\0\0\0\0\0\0\0");
                }
                let length = u32::try_from(list.len()).unwrap();
                let answer = held(kind).send_with(who, &out_cdb(action, kind, length), &list);
                let place = format!("{action} from {who} with {kind}: {answer:?}");
                assert_eq!(answer == CONFLICT, verdict == 'C', "{place}");
            }
        }
    }
}

#[test]
fn the_reports_pass_every_persistent_reservation() {
    for kind in TYPES {
        for who in [HOLDER, REGISTERED, STRANGER] {
            for action in 0..4 {
                assert!(!held(kind).data(who, &in_cdb(action)).is_empty());
            }
        }
    }
}

#[test]
fn reserve_and_release_conflict_with_registrations_but_for_the_exceptions() {
    for command in
        [&RESERVE[..], &RELEASE, &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        for kind in TYPES {
            let mut world = held(kind);
            let before = world.data(STRANGER, &in_cdb(3));
            assert_eq!(world.send(HOLDER, command), GOOD, "the holder of {kind}");
            let registered = if kind < 5 { CONFLICT } else { GOOD };
            assert_eq!(world.send(REGISTERED, command), registered, "a registrant under {kind}");
            assert_eq!(world.send(STRANGER, command), CONFLICT);
            assert_eq!(world.data(STRANGER, &in_cdb(3)), before, "none of them does anything");
        }
        let mut world = World::new(thin());
        assert_eq!(world.out(0, 0, 0, 0, 1), GOOD);
        assert_eq!(world.send(0, command), CONFLICT, "registered, and nothing held");
        assert_eq!(world.send(1, command), CONFLICT);
        assert_eq!(world.out(0, 0, 0, 1, 0), GOOD);
        assert_eq!(world.send(1, command), GOOD, "nobody is registered any more");
    }
}
