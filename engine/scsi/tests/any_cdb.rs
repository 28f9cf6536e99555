//! Whatever bytes come: the device server answers, the answer is well formed, and the medium is asked only for what it
//! has.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::Status;
use portico_scsi::alua::AccessState;
use portico_scsi::block::MediumCommand;
use portico_scsi::cdb::Compare;
use portico_scsi::device_server::{self, Action, Context, NexusState};
use portico_scsi::lun::Lun;
use portico_scsi::no_unit;
use portico_scsi::opcodes;
use portico_scsi::reservation::NexusId;
use portico_scsi::sense::{AdditionalSense, Outcome, SenseFormat, SenseKey};
use portico_scsi::unit::{Geometry, LogicalUnit, Readiness, WriteCache};
use proptest::prelude::*;

/// Bytes that begin with a served code more often than not, with most reserved bits zero.
fn any_cdb() -> impl Strategy<Value = Vec<u8>> {
    let served =
        (0..opcodes::TABLE.len(), any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(row, bytes, noise)| {
            let row = &opcodes::TABLE[row];
            let mut cdb: Vec<u8> = row.usage.iter().zip(bytes).map(|(usage, byte)| usage & byte).collect();
            cdb[0] = row.operation_code;
            if let Some(action) = row.service_action {
                cdb[1] |= u8::try_from(action).unwrap();
            }
            // One byte in four CDBs is anything at all.
            if noise[0] & 3 == 0 {
                let at = usize::from(noise[1]) % cdb.len();
                cdb[at] = noise[2];
            }
            cdb.resize(16, 0);
            cdb
        });
    prop_oneof![4 => served, 1 => proptest::collection::vec(any::<u8>(), 0..20)]
}

fn any_unit() -> impl Strategy<Value = LogicalUnit> {
    let geometry = (9u32..=12, 1u64..1 << 41, 0u8..16, 4096u32..1 << 24).prop_map(
        |(shift, blocks, exponent, transfer)| Geometry::new(1 << shift, blocks, exponent, transfer).unwrap(),
    );
    let cache = prop_oneof![
        Just(WriteCache::WriteBack),
        Just(WriteCache::WriteThrough),
        Just(WriteCache::NonVolatile),
    ];
    let state = proptest::option::of(0..AccessState::ALL.len());
    (geometry, cache, any::<[bool; 4]>(), state).prop_map(
        |(geometry, cache, [read_only, removable, thin, ready], state)| LogicalUnit {
            read_only,
            removable,
            thin_provisioned: thin,
            target_port_groups: state.and_then(|at| grouped(&[(9, AccessState::ALL[at], &[PORT])])),
            readiness: if ready { Readiness::Ready } else { Readiness::BecomingReady },
            ..LogicalUnit::new(disk().identity, geometry, cache)
        },
    )
}

fn context(luns: &[Lun]) -> Context<'_> {
    Context { luns, relative_target_port: PORT, target_ports: &[], read_only: false, carries_queries: false }
}

fn well_formed(outcome: &Outcome) {
    assert_eq!(outcome.sense.is_some(), outcome.status == Status::CheckCondition);
    for format in [SenseFormat::Fixed, SenseFormat::Descriptor] {
        let Some(data) = outcome.sense_data(format) else { continue };
        let bytes = data.as_bytes();
        let (key, length) = match format {
            SenseFormat::Fixed => (bytes[2] & 0x0f, 8 + usize::from(bytes[7])),
            SenseFormat::Descriptor => (bytes[1] & 0x0f, 8 + usize::from(bytes[7])),
        };
        assert_eq!((key, length), (outcome.sense.unwrap().key as u8, bytes.len()));
    }
}

fn within(unit: &LogicalUnit, command: &MediumCommand) {
    let (lba, blocks) = command.range();
    assert!(blocks > 0, "{command:?} asks for nothing");
    assert!(lba.0.checked_add(blocks).is_some_and(|end| end <= unit.geometry.blocks()), "{command:?}");
    let limit = u64::from(unit.geometry.transfer_blocks_max()) * u64::from(unit.geometry.block_length());
    assert!(command.transfer_bytes(unit.geometry.block_length()) <= limit, "{command:?}");
    if let MediumCommand::Write { .. } = command {
        assert!(unit.write_protection().is_none(), "a write to a protected unit");
    }
    if let MediumCommand::Verify { compare: Some(Compare::OneBlock), .. } = command {
        assert_eq!(
            command.transfer_bytes(unit.geometry.block_length()),
            u64::from(unit.geometry.block_length())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_cdb_is_answered_and_the_medium_is_asked_only_for_what_it_has(
        cdb in any_cdb(),
        unit in any_unit(),
        data_out in proptest::collection::vec(any::<u8>(), 0..64),
        attention: bool,
    ) {
        let luns = [Lun::from_bytes([0; 8])];
        let context = context(&luns);
        let mut nexus = NexusState::new();
        if !attention {
            nexus.attentions.take();
        }
        let mut reply = vec![0; device_server::reply_bytes_max(&cdb, &context)];
        match device_server::begin(&unit, &mut nexus, NexusId(1), &context, &cdb, &mut reply) {
            Action::Finish(outcome) => {
                well_formed(&outcome);
                if let Some(pointer) = outcome.sense.and_then(|sense| sense.pointer) {
                    // SERVICE ACTION of a CDB of variable length is in byte 8, where it breaks off before as well.
                    prop_assert!(pointer.in_cdb && usize::from(pointer.byte) <= cdb.len().max(8));
                }
            }
            Action::Reply { length } => prop_assert!(length <= reply.len()),
            Action::Medium(command) => within(&unit, &command),
            Action::Copy(_)
            | Action::Populate(_)
            | Action::WriteUsingToken(_)
            | Action::AbortCopy { .. }
            | Action::CopyResults { .. } => {}
            Action::Change(_) => {}
            Action::Parameters(list) => {
                prop_assert!((1..=device_server::PARAMETER_BYTES_MAX).contains(&list.length));
                match device_server::parameters(&unit, list, &data_out) {
                    Action::Finish(outcome) => well_formed(&outcome),
                    other => prop_assert!(matches!(other, Action::Change(_) | Action::Copy(_)), "{:?}", other),
                }
            }
        }
    }

    /// The short judgement of a READ says what the long one says, or nothing; of one that nothing is in the way of, it does.
    #[test]
    fn a_read_that_is_judged_at_once_is_judged_as_all_are(cdb in any_cdb(), unit in any_unit(), attention: bool) {
        let luns = [Lun::from_bytes([0; 8])];
        let context = context(&luns);
        let mut nexus = NexusState::new();
        if !attention {
            nexus.attentions.take();
        }
        let at_once = device_server::read_at_once(&unit, &nexus, NexusId(1), &context, &cdb);
        let mut reply = vec![0; device_server::reply_bytes_max(&cdb, &context)];
        let told = nexus;
        let long = match device_server::begin(&unit, &mut nexus, NexusId(1), &context, &cdb, &mut reply) {
            Action::Medium(MediumCommand::Read { lba, blocks, .. }) if told == nexus => Some((lba, blocks)),
            _ => None,
        };
        // A self-test is a READ, too, of another CDB.
        let reads = matches!(cdb.first(), Some(0x08 | 0x28 | 0xa8 | 0x88));
        prop_assert_eq!(at_once, if reads && !attention { long } else { None });
    }

    #[test]
    fn any_cdb_is_answered_where_there_is_no_unit(cdb in any_cdb(), lun: [u8; 8], well_known: bool) {
        let lun = if well_known { Lun::REPORT_LUNS } else { Lun::from_bytes(lun) };
        let mut reply = vec![0; 4096];
        match no_unit::begin(lun, &context(&[]), &cdb, &mut reply) {
            Action::Finish(outcome) => well_formed(&outcome),
            other => prop_assert!(matches!(other, Action::Reply { .. }), "{:?}", other),
        }
    }

    /// MODE SELECT of what MODE SENSE returned, with some bits flipped, changes changeable bits or nothing.
    #[test]
    fn no_mode_select_changes_what_is_not_changeable(flips in proptest::collection::vec((4usize..88, any::<u8>()), 1..4)) {
        let mut world = World::new(disk());
        let mut list = world.data(0, &[0x1a, 0x08, 0x3f, 0, 255, 0]);
        let mask = world.data(0, &[0x1a, 0x08, 0x7f, 0, 255, 0]);
        for (at, bits) in flips {
            if let Some(byte) = list.get_mut(at) {
                *byte ^= bits;
            }
        }
        let before = world.data(0, &[0x1a, 0x08, 0x3f, 0, 255, 0]);
        let answer = world.send_with(0, &[0x15, 0x10, 0, 0, 255, 0], &list);
        let after = world.data(0, &[0x1a, 0x08, 0x3f, 0, 255, 0]);
        for (at, ((before, after), mask)) in before.iter().zip(&after).zip(&mask).enumerate().skip(4) {
            let page_header = mask & 0x3f != 0 && at > 3 && before == mask;
            prop_assert!(page_header || (before ^ after) & !mask == 0, "byte {}", at);
        }
        if answer != GOOD {
            prop_assert_eq!(before, after);
        }
    }
}

#[test]
fn every_operation_code_that_is_not_in_the_table_is_invalid() {
    let mut world = World::new(disk());
    for code in 0..=255u8 {
        if opcodes::TABLE.iter().all(|row| row.operation_code != code) {
            let mut cdb = [0; 16];
            cdb[0] = code;
            assert_eq!(world.send(0, &cdb), illegal(AdditionalSense::INVALID_OPERATION_CODE), "{code:#04x}");
        }
    }
}

#[test]
fn every_bit_that_is_reserved_is_pointed_at() {
    for row in opcodes::TABLE {
        for byte in 1..row.usage.len() {
            for bit in 0..8 {
                let variable = row.operation_code == 0x7f;
                let in_service_action = row.service_action.is_some()
                    && if variable { matches!(byte, 8 | 9) } else { byte == 1 && bit < 5 };
                if row.usage[byte] & 1 << bit != 0 || in_service_action {
                    continue;
                }
                let mut cdb = vec![0; row.usage.len().max(16)];
                cdb[0] = row.operation_code;
                if variable {
                    cdb[7..10].copy_from_slice(&row.usage[7..10]);
                } else {
                    cdb[1] = if row.service_action.is_some() { row.usage[1] } else { 0 };
                }
                cdb[byte] |= 1 << bit;
                let sense = World::new(thin()).sense(0, &cdb);
                let pointer = sense.pointer.unwrap();
                assert_eq!(sense.key, SenseKey::IllegalRequest);
                assert_eq!((usize::from(pointer.byte), pointer.bit), (byte, Some(bit)), "{}", row.name);
            }
        }
    }
}

#[test]
fn a_cdb_that_breaks_off_is_refused_at_the_byte_that_is_missing() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &read10(0, 1)[..6]), wrong_field(6, None));
    assert_eq!(world.send(0, &[]), illegal(AdditionalSense::INVALID_OPERATION_CODE));
}
