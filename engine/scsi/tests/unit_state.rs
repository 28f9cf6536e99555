//! Dialogues about the state that nexuses share: attentions, reservations, mode values, the medium coming and going.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod common;

use common::*;
use portico_scsi::attention::UnitAttention;
use portico_scsi::block::MediumCommand;
use portico_scsi::device_server::{self, Action, Context, NexusState};
use portico_scsi::ledger::{Ledger, Whom};
use portico_scsi::opcodes;
use portico_scsi::original::{Change, Original};
use portico_scsi::sense::{AdditionalSense, Outcome, SenseFormat, SenseKey};
use portico_scsi::space::Space;
use portico_scsi::unit::{Geometry, LogicalUnit, Readiness, WriteCache};
use portico_scsi::work::{Fill, WorkKind};

const MODE_SENSE_CONTROL: [u8; 6] = [0x1a, 0x08, 0x0a, 0, 255, 0];
const MODE_SELECT: [u8; 6] = [0x15, 0x10, 0, 0, 16, 0];

/// MODE SELECT (6) of the control page with `d_sense` and `swp`.
fn control(d_sense: u8, swp: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0x0a, 0x0a, 0x20 | d_sense, 0x10, swp, 0, 0, 0, 0, 0, 0, 0]
}

#[test]
fn a_new_nexus_is_told_of_the_power_on_once() {
    let mut world = World::fresh(disk());
    assert_eq!(world.data(0, &INQUIRY).len(), 66, "INQUIRY passes");
    assert_eq!(world.data(0, &REPORT_LUNS).len(), 32, "REPORT LUNS passes");
    world.told(0, UnitAttention::PowerOn);
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
    world.told(1, UnitAttention::PowerOn);
}

#[test]
fn a_command_that_is_not_served_reports_an_attention_first() {
    let mut world = World::fresh(disk());
    assert_eq!(world.send(0, &[0xff; 16]), Answer::Ended(UnitAttention::PowerOn.outcome()));
    assert_eq!(world.send(0, &[0xff; 16]), illegal(AdditionalSense::INVALID_OPERATION_CODE));
}

#[test]
fn request_sense_reports_an_attention_as_data_and_it_is_gone() {
    let mut world = World::fresh(disk());
    let sense = world.data(0, &[0x03, 0, 0, 0, 252, 0]);
    assert_eq!((sense.len(), sense[0], sense[2], sense[12], sense[13]), (18, 0x70, 6, 0x29, 0));
    let sense = world.data(0, &[0x03, 1, 0, 0, 252, 0]);
    assert_eq!(sense, [0x72, 0, 0, 0, 0, 0, 0, 0], "DESC, and nothing more to say");
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
}

#[test]
fn who_reads_the_list_of_luns_needs_no_word_that_it_changed() {
    let mut world = World::new(disk());
    world.nexuses[0].1.establish(UnitAttention::ReportedLunsChanged);
    world.data(0, &REPORT_LUNS);
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
}

#[test]
fn reserve_keeps_the_second_nexus_out_until_release() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &RESERVE), GOOD);
    assert!(world.last.as_ref().unwrap().durable, "the ledger is kept before it is installed");
    assert_eq!(world.send(0, &RESERVE), GOOD, "again");
    assert_eq!(world.send(1, &RESERVE), CONFLICT);
    assert_eq!(world.send(1, &RELEASE), GOOD, "a nop");
    assert_eq!(world.send(1, &MODE_SENSE_CONTROL), CONFLICT);
    assert_eq!(world.send(1, &TEST_UNIT_READY), CONFLICT);
    assert_eq!(world.send(1, &write10(0, 1)), CONFLICT);
    assert_eq!(world.data(1, &INQUIRY).len(), 66);
    assert_eq!(world.data(0, &MODE_SENSE_CONTROL).len(), 16);
    assert_eq!(world.send(0, &RELEASE), GOOD);
    assert_eq!(world.send(1, &RESERVE), GOOD);
}

#[test]
fn logout_ends_a_reservation_and_so_does_a_reset() {
    let mut world = World::new(disk());
    world.send(0, &RESERVE);
    let me = world.nexuses[0].0;
    let lost = world.original.nexus_lost(me);
    world.install(lost);
    assert_eq!(world.send(1, &RESERVE), GOOD);
    let reset = world.original.reset(UnitAttention::LogicalUnitReset);
    assert_eq!((reset.durable, reset.aborts.clone()), (true, Some(Whom::All)));
    world.install(Some(reset));
    world.told(1, UnitAttention::LogicalUnitReset);
    assert_eq!(world.unit().reservation, portico_scsi::reservation::Reservation::None);
}

#[test]
fn a_reset_is_told_before_a_conflict_and_a_conflict_before_other_news() {
    let mut world = World::new(disk());
    world.send(0, &RESERVE);
    world.nexuses[1].1.establish(UnitAttention::CapacityChanged);
    world.nexuses[1].1.establish(UnitAttention::NexusLoss);
    world.told(1, UnitAttention::NexusLoss);
    assert_eq!(world.send(1, &TEST_UNIT_READY), CONFLICT);
    world.send(0, &RELEASE);
    world.told(1, UnitAttention::CapacityChanged);
}

#[test]
fn a_change_that_waited_while_its_nexus_was_fenced_is_refused() {
    use portico_scsi::original::Change;
    let mut world = World::new(removable());
    let (a, b) = (world.nexuses[0].0, world.nexuses[1].0);
    world.original.apply(Change::Reserve, a).unwrap();
    assert_eq!(world.original.apply(Change::Eject, b), Err(Outcome::RESERVATION_CONFLICT));
    assert_eq!(world.original.apply(Change::Release, b), Ok(None));
}

#[test]
fn software_write_protect_refuses_writes_and_the_others_are_told() {
    let mut world = World::new(disk());
    assert_eq!(world.send_with(0, &MODE_SELECT, &control(0, 0x08)), GOOD);
    assert_eq!(world.data(0, &MODE_SENSE_CONTROL)[8], 0x08);
    let sense = world.sense(0, &write10(0, 1));
    assert_eq!(
        (sense.key, sense.additional),
        (SenseKey::DataProtect, AdditionalSense::SOFTWARE_WRITE_PROTECTED)
    );
    assert!(matches!(world.send(0, &read10(0, 1)), Answer::Medium(_)));
    world.told(1, UnitAttention::ModeParametersChanged);
    assert_eq!(world.send_with(0, &MODE_SELECT, &control(0, 0)), GOOD);
    assert!(matches!(world.send(0, &write10(0, 1)), Answer::Medium(_)));
}

#[test]
fn d_sense_changes_the_format_of_sense_data() {
    let mut world = World::new(disk());
    assert_eq!(world.unit().sense_format(), SenseFormat::Fixed);
    assert_eq!(world.send_with(0, &MODE_SELECT, &control(0x04, 0)), GOOD);
    assert_eq!(world.unit().sense_format(), SenseFormat::Descriptor);
    let reset = world.original.reset(UnitAttention::LogicalUnitReset);
    assert_eq!(reset.unit.sense_format(), SenseFormat::Fixed, "a reset restores the default");
}

/// MODE SELECT (6) with SP.
const MODE_SAVE: [u8; 6] = [0x15, 0x11, 0, 0, 16, 0];
/// MODE SENSE of the control page's saved values.
const MODE_SENSE_SAVED: [u8; 6] = [0x1a, 0x08, 0xca, 0, 255, 0];

#[test]
fn saved_values_come_back_with_a_reset_a_restart_and_a_reboot() {
    let mut world = World::new(disk());
    assert_eq!(world.send_with(0, &MODE_SAVE, &control(0x04, 0)), GOOD);
    assert!(world.last.take().unwrap().durable, "before GOOD");
    world.told(1, UnitAttention::ModeParametersChanged);
    assert_eq!(world.send_with(0, &MODE_SAVE, &control(0x04, 0)), GOOD);
    assert!(world.last.is_none(), "they were the same before");
    assert_eq!(world.send_with(0, &MODE_SELECT, &control(0, 0x08)), GOOD);
    assert!(!world.last.take().unwrap().durable);
    assert_eq!(world.data(0, &MODE_SENSE_SAVED)[6..9], [0x24, 0x10, 0], "D_SENSE, and no SWP");
    assert_eq!(world.data(0, &MODE_SENSE_CONTROL)[6..9], [0x20, 0x10, 0x08]);
    let reset = world.original.reset(UnitAttention::LogicalUnitReset);
    assert!(reset.unit.mode.descriptor_sense && !reset.unit.mode.software_write_protect);
    let kept = world.original.ledger().encode([7; 16]);
    for boot in [[7; 16], [8; 16]] {
        let again = Original::new(disk(), Ledger::restore(&kept, boot).unwrap());
        assert!(again.unit().mode.descriptor_sense);
        assert!(!again.unit().mode_default.descriptor_sense);
    }
}

#[test]
fn a_pool_that_runs_low_is_told_of_once_until_it_has_grown() {
    use UnitAttention::SoftThresholdReached;
    let mut world = World::new(thin());
    let space = |available_bytes: u64| Space { available_bytes, used_bytes: 0 };
    let is = |world: &mut World, available_bytes: u64| {
        let installment = world.original.space_is(space(available_bytes));
        world.install(installment);
        (world.pending(0), world.pending(1))
    };
    let told = (Some(SoftThresholdReached), Some(SoftThresholdReached));
    assert_eq!(is(&mut world, 4 << 20), (None, None));
    assert_eq!(is(&mut world, 1 << 19), told);
    assert_eq!(is(&mut world, 1 << 18), (None, None));
    assert!(world.original.space_is(space(1 << 18)).is_none(), "no news");
    assert_eq!(is(&mut world, 1 << 20), (None, None), "not armed yet");
    assert_eq!(is(&mut world, 1 << 19), (None, None));
    assert_eq!(is(&mut world, 2 << 20), (None, None));
    assert_eq!(is(&mut world, 1 << 19), told);
}

const ERASE: [u8; 10] = [0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];

fn overwrite(pattern: &[u8]) -> ([u8; 10], Vec<u8>) {
    let length = u8::try_from(pattern.len()).unwrap();
    ([0x48, 0x01, 0, 0, 0, 0, 0, 0, 4 + length, 0], [&[0x01, 0, 0, length][..], pattern].concat())
}

#[test]
fn while_a_unit_is_sanitized_few_commands_are_served_and_the_others_hear_how_far_it_is() {
    let mut world = World::new(thin());
    let (cdb, list) = overwrite(&[7, 8]);
    assert_eq!(world.send_with(0, &cdb, &list), GOOD);
    let begun = world.last.take().unwrap();
    let work = begun.work.unwrap();
    assert!(begun.durable && !work.immediate && !work.unrestricted);
    assert_eq!(work.fill, Fill::Pattern { pattern: [7, 8].into(), passes: 1, invert: false });
    let installment = world.original.work_is_at(0x4000);
    world.install(installment);
    let under_way = Readiness::UnderWay(WorkKind::Sanitize, 0x4000).sense().unwrap();
    assert_eq!((under_way.additional.code, under_way.additional.qualifier), (0x04, 0x1b));
    for row in opcodes::TABLE {
        let mut cdb = row.usage.iter().map(|_| 0).collect::<Vec<u8>>();
        (cdb[0], cdb[1]) =
            (row.operation_code, row.usage[1] & if row.service_action.is_some() { 0x1f } else { 0 });
        let refused = world.send(1, &cdb) == Answer::Ended(Outcome::check(under_way));
        assert_eq!(refused, !row.during_work, "{}", row.name);
    }
    let sense = world.data(1, &[0x03, 0, 0, 0, 18, 0]);
    assert_eq!((sense[2], sense[12], sense[13], &sense[15..18]), (2, 0x04, 0x1b, &[0x80, 0x40, 0][..]));
    let reset = world.original.reset(UnitAttention::LogicalUnitReset);
    assert_eq!(reset.unit.readiness, Readiness::UnderWay(WorkKind::Sanitize, 0x4000), "it goes on");
    let (outcome, ended) = world.original.work_ended(true);
    assert_eq!((outcome, ended.unwrap().unit.readiness), (Ok(()), Readiness::Ready));
}

#[test]
fn a_sanitize_that_failed_is_left_only_as_its_mode_allows() {
    let failed = |cdb: &[u8]| {
        let mut world = World::new(thin());
        assert_eq!(world.send(0, cdb), GOOD);
        let (outcome, installment) = world.original.work_ended(false);
        assert_eq!(outcome, Err(WorkKind::Sanitize.failure()));
        world.install(installment);
        world
    };
    let unrestricted = [0x48, 0xa2, 0, 0, 0, 0, 0, 0, 0, 0];
    let exit = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut world = failed(&ERASE);
    let refused = Answer::Ended(Outcome::check(Readiness::WorkFailed(WorkKind::Sanitize).sense().unwrap()));
    assert_eq!(world.send(1, &read10(0, 1)), refused);
    assert_eq!(world.send(1, &RESERVE), refused);
    assert_eq!(world.send(1, &[0x04, 0, 0, 0, 0, 0]), refused, "FORMAT UNIT does not help");
    assert_eq!(world.send(1, &exit), wrong_field(1, Some(4)));
    assert_eq!(world.send(1, &unrestricted), wrong_field(1, Some(5)));
    assert_eq!(world.send(1, &ERASE), GOOD);
    let installment = world.original.work_ended(true).1;
    world.install(installment);
    assert!(matches!(world.send(1, &read10(0, 1)), Answer::Medium(_)));
    assert_eq!(world.send(1, &exit), GOOD, "there is no failure to be left");
    let mut world = failed(&unrestricted);
    assert_eq!(world.send(1, &exit), GOOD);
    assert!(matches!(world.send(1, &read10(0, 1)), Answer::Medium(_)));
}

#[test]
fn a_format_is_zeroes_and_a_failed_one_leaves_the_medium_corrupted_until_another() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &[0x04, 0, 0, 0, 0, 0]), GOOD);
    let work = world.last.take().unwrap().work.unwrap();
    assert_eq!((work.fill.clone(), work.immediate), (Fill::Zeroes { deallocate: false }, false));
    let (outcome, installment) = world.original.work_ended(false);
    assert_eq!(outcome, Err(WorkKind::Format.failure()));
    world.install(installment);
    let sense = world.sense(1, &read10(0, 1));
    assert_eq!(
        (sense.key, sense.additional.code, sense.additional.qualifier),
        (SenseKey::MediumError, 0x31, 0)
    );
    // CMPLST: the defect list, of which there is none, is complete.
    assert_eq!(world.send_with(1, &[0x04, 0x18, 0, 0, 0, 0], &[0, 0x02, 0, 0]), GOOD);
    assert!(world.last.take().unwrap().work.unwrap().immediate);
}

#[test]
fn what_is_write_protected_is_neither_sanitized_nor_formatted() {
    let mut world = World::new(LogicalUnit { read_only: true, ..thin() });
    let protected = Answer::Ended(world.unit().write_protection().unwrap());
    assert_eq!(world.send(0, &ERASE), protected);
    assert_eq!(world.send(0, &[0x04, 0, 0, 0, 0, 0]), protected);
    let (cdb, list) = overwrite(&[1]);
    assert_eq!(world.send_with(0, &cdb, &list), protected);
    assert_eq!(World::new(disk()).send(0, &ERASE), wrong_field(1, Some(4)), "thin units alone");
}

/// The change that a command asks the single writer for, which it has not heard of yet.
fn parked(world: &mut World, cdb: &[u8]) -> Change {
    let context = Context {
        luns: &[],
        relative_target_port: 1,
        target_ports: &[],
        read_only: false,
        carries_queries: false,
    };
    let (me, state) = &mut world.nexuses[0];
    match device_server::begin(world.original.unit(), state, *me, &context, cdb, &mut []) {
        Action::Change(change) => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nor_is_what_becomes_so_or_loses_its_medium_while_the_command_waits() {
    for cdb in [&ERASE[..], &[0x04, 0, 0, 0, 0, 0]] {
        let mut world = World::new(LogicalUnit { removable: true, ..thin() });
        let me = world.nexuses[0].0;
        let change = parked(&mut world, cdb);
        assert_eq!(world.send_with(1, &MODE_SELECT, &control(0, 0x08)), GOOD);
        let protected = world.unit().write_protection().unwrap();
        assert_eq!(world.original.apply(change.clone(), me), Err(protected));
        assert_eq!(world.send_with(1, &MODE_SELECT, &control(0, 0)), GOOD);
        assert_eq!(world.send(1, &EJECT), GOOD);
        let absent = Outcome::check(Readiness::MediumNotPresent.sense().unwrap());
        assert_eq!(world.original.apply(change.clone(), me), Err(absent));
        assert_eq!(world.send(1, &LOAD), GOOD);
        assert!(world.original.apply(change, me).unwrap().unwrap().work.is_some());
    }
}

#[test]
fn a_medium_that_grows_while_it_is_sanitized_has_blocks_that_were_not() {
    let mut world = World::new(thin());
    assert_eq!(world.send(0, &ERASE), GOOD);
    let geometry = Geometry::new(512, 2500, 3, 1 << 20).unwrap();
    let installment = world.original.reconfigure(&LogicalUnit { geometry, ..thin() });
    world.install(installment);
    let (outcome, installment) = world.original.work_ended(true);
    assert_eq!(outcome, Err(WorkKind::Sanitize.failure()));
    assert_eq!(installment.unwrap().unit.readiness, Readiness::WorkFailed(WorkKind::Sanitize));
    world.told(0, UnitAttention::CapacityChanged);
    assert_eq!(world.send(0, &ERASE), GOOD, "of the size of now");
    assert_eq!(world.original.work_ended(true).0, Ok(()));
}

#[test]
fn saving_without_pages_saves_what_is_and_tells_nobody() {
    let mut world = World::new(disk());
    assert_eq!(world.send_with(0, &MODE_SELECT, &control(0x04, 0)), GOOD);
    world.told(1, UnitAttention::ModeParametersChanged);
    assert_eq!(world.data(0, &MODE_SENSE_SAVED)[6], 0x20);
    assert_eq!(world.send(0, &[0x15, 0x11, 0, 0, 0, 0]), GOOD);
    assert_eq!(world.data(0, &MODE_SENSE_SAVED)[6], 0x24);
    assert_eq!(world.send(1, &TEST_UNIT_READY), GOOD);
}

#[test]
fn a_write_cache_that_was_saved_gives_way_to_another_one_in_the_file() {
    let mut world = World::new(disk());
    let mut caching = [0; 24];
    (caching[4], caching[5]) = (0x08, 0x12);
    assert_eq!(world.send_with(0, &MODE_SELECT, &control(0x04, 0)), GOOD);
    assert_eq!(world.send_with(0, &[0x15, 0x11, 0, 0, 24, 0], &caching), GOOD);
    let ledger = world.original.ledger().clone();
    let same = Original::new(disk(), ledger.clone());
    assert_eq!(same.unit().mode.write_cache, WriteCache::WriteThrough);
    let vouched = LogicalUnit::new(disk().identity, disk().geometry, WriteCache::NonVolatile);
    let other = Original::new(vouched, ledger);
    assert_eq!(other.unit().mode.write_cache, WriteCache::NonVolatile);
    assert!(other.unit().mode.descriptor_sense, "what the file does not say stays");
}

#[test]
fn mode_selects_of_different_pages_that_cross_each_other_both_take_effect() {
    use portico_scsi::original::Change;
    use portico_scsi::unit::{ControlValues, ModeChange, QueueError};
    let mut world = World::new(disk());
    let control = ControlValues {
        descriptor_sense: true,
        software_write_protect: false,
        queue_error: QueueError::AbortNexus,
        task_aborted_status: true,
    };
    let first = ModeChange { control: Some(control), ..ModeChange::default() };
    let second = ModeChange { write_cache: Some(WriteCache::WriteThrough), ..ModeChange::default() };
    let (a, b) = (world.nexuses[0].0, world.nexuses[1].0);
    world.original.apply(Change::ModeSelect(first), a).unwrap();
    let last = world.original.apply(Change::ModeSelect(second), b).unwrap().unwrap();
    assert!(last.unit.mode.descriptor_sense && last.unit.mode.task_aborted_status);
    assert_eq!(last.unit.mode.queue_error, QueueError::AbortNexus);
    assert!(last.flush, "WCE went from one to zero");
}

#[test]
fn mode_select_changes_only_what_may_change() {
    let mut world = World::new(disk());
    let mut refused = |list: &[u8], byte: u16, bit: Option<u8>| {
        let answer = world.send_with(0, &[0x15, 0x10, 0, 0, 100, 0], list);
        let sense = portico_scsi::sense::Sense::invalid_parameter(byte, bit);
        assert_eq!(answer, Answer::Ended(Outcome::check(sense)), "{list:02x?}");
    };
    let mut tst = control(0, 0);
    tst[6] = 0;
    refused(&tst, 6, Some(5));
    let mut queue_error = control(0, 0);
    queue_error[7] |= 0b10 << 1;
    refused(&queue_error, 7, Some(2));
    let mut restricted = control(0, 0);
    restricted[7] = 0;
    refused(&restricted, 7, Some(4));
    refused(&[0, 7, 0, 0], 1, None);
    refused(&[0, 0, 0, 0, 0x19, 0x0a], 4, Some(5));
    refused(&[0, 0, 0, 0, 0x4a, 0x01], 4, Some(6));
    refused(&[0, 0, 0, 0, 0x0a, 0x09], 5, None);
    refused(&[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 2, 0], 4, None);
    refused(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 4, 0], 9, None);
}

#[test]
fn each_queue_error_and_task_aborted_status_are_kept_as_they_were_selected() {
    for code in [0b00, 0b01, 0b11] {
        for status in [0, 0x40] {
            let mut world = World::new(disk());
            let mut list = control(0, 0);
            list[7] |= code << 1;
            list[9] = status;
            assert_eq!(world.send_with(0, &[0x15, 0x11, 0, 0, 16, 0], &list), GOOD);
            let page = |world: &mut World, kind: u8| {
                let page = world.data(0, &[0x1a, 0x08, kind << 6 | 0x0a, 0, 255, 0]);
                (page[7], page[9])
            };
            assert_eq!(page(&mut world, 0), (0x10 | code << 1, status), "current");
            assert_eq!(page(&mut world, 3), (0x10 | code << 1, status), "saved");
            assert_eq!(page(&mut world, 2), (0x10, 0), "default");
        }
    }
}

#[test]
fn a_mode_parameter_list_that_breaks_off_is_refused() {
    let mut world = World::new(disk());
    let whole = control(0, 0x08);
    for length in 1..whole.len() {
        let answer = world.send_with(0, &[0x15, 0x10, 0, 0, 100, 0], &whole[..length]);
        match length {
            4 => assert_eq!(answer, GOOD, "a header alone changes nothing"),
            _ => assert_eq!(answer, illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR), "{length} bytes"),
        }
    }
    assert_eq!(world.send(0, &[0x15, 0x10, 0, 0, 0, 0]), GOOD, "no list at all");
}

#[test]
fn what_mode_sense_returned_can_be_selected_again() {
    let mut world = World::new(disk());
    let sensed = world.data(0, &[0x5a, 0x10, 0x3f, 0, 0, 0, 0, 1, 0, 0]);
    let length = u8::try_from(sensed.len()).unwrap();
    assert_eq!(world.send_with(0, &[0x55, 0x10, 0, 0, 0, 0, 0, 0, length, 0], &sensed), GOOD);
    assert!(world.last.is_none(), "nothing changed, nothing is installed");
}

#[test]
fn write_cache_enable_is_changed_by_mode_select_unless_the_cache_is_vouched_for() {
    let caching = |wce: u8| {
        let mut list = [0; 24];
        (list[4], list[5], list[6]) = (0x08, 0x12, wce);
        list
    };
    let mut world = World::new(disk());
    assert_eq!(world.send_with(0, &[0x15, 0x10, 0, 0, 24, 0], &caching(0)), GOOD);
    assert_eq!(world.unit().mode.write_cache, WriteCache::WriteThrough);
    let mut world = World::new(LogicalUnit::new(disk().identity, disk().geometry, WriteCache::NonVolatile));
    let answer = world.send_with(0, &[0x15, 0x10, 0, 0, 24, 0], &caching(0x04));
    assert!(matches!(answer, Answer::Ended(Outcome { sense: Some(_), .. })));
}

#[test]
fn a_cache_is_not_turned_off_while_nobody_can_write_it_back() {
    let mut list = [0; 24];
    (list[4], list[5]) = (0x08, 0x12);
    let select = [0x15, 0x10, 0, 0, 24, 0];
    let mut world = World::new(disk());
    let gone = world.original.device_is(Readiness::BecomingReady);
    world.install(gone);
    let refused = Answer::Ended(Outcome::check(Readiness::BecomingReady.sense().unwrap()));
    assert_eq!(world.send_with(0, &select, &list), refused);
    assert!(world.unit().mode.write_cache.enabled(), "what a process before this one wrote may be in it");
    let back = world.original.device_is(Readiness::Ready);
    world.install(back);
    assert_eq!(world.send_with(0, &select, &list), GOOD);
    assert!(world.last.as_ref().is_some_and(|installment| installment.flush));
}

#[test]
fn an_ejected_medium_is_missed_by_every_medium_command_and_comes_back() {
    let mut world = World::new(removable());
    assert_eq!(world.send(0, &EJECT), GOOD);
    assert_eq!(world.send(0, &EJECT), GOOD, "it is out already");
    let lengths =
        [read10(0, 1), write10(0, 1), rw10(0x2f, 2, 0, 1), rw10(0x35, 6, 0, 1), rw10(0x25, 0, 0, 0)];
    let absent = Answer::Ended(Outcome::check(Readiness::MediumNotPresent.sense().unwrap()));
    for cdb in lengths
        .map(|cdb| cdb.to_vec())
        .into_iter()
        .chain([TEST_UNIT_READY.to_vec(), rw16(0x9e, 0x10, 0, 0).to_vec()])
    {
        assert_eq!(world.send(0, &cdb), absent, "{cdb:02x?}");
    }
    assert_eq!(world.send(0, &rw16(0x9e, 0x12, 0, 0)), absent, "a service action that is not served");
    assert_eq!(world.send(0, &[0x42; 10]), illegal(AdditionalSense::INVALID_OPERATION_CODE));
    assert_eq!(world.data(0, &INQUIRY)[1], 0x80, "RMB");
    assert_eq!(world.send(0, &LOAD), GOOD);
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD, "who loaded it knows");
    world.told(1, UnitAttention::MediumMayHaveChanged);
}

#[test]
fn one_nexus_prevents_removal_by_every_other_until_it_allows_it_or_is_gone() {
    let mut world = World::new(removable());
    let prevented = illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED);
    assert_eq!(world.send(0, &PREVENT), GOOD);
    assert_eq!(world.send(0, &EJECT), prevented);
    assert_eq!(world.send(1, &EJECT), prevented);
    assert_eq!(world.send(1, &ALLOW), GOOD);
    assert_eq!(world.send(1, &EJECT), prevented, "not its prevention");
    assert_eq!(world.send(0, &ALLOW), GOOD);
    assert_eq!(world.send(1, &EJECT), GOOD);
    world.send(1, &LOAD);
    world.told(0, UnitAttention::MediumMayHaveChanged);
    world.send(0, &PREVENT);
    let me = world.nexuses[0].0;
    world.original.nexus_lost(me);
    assert_eq!(world.send(1, &EJECT), GOOD);
    world.send(1, &LOAD);
    world.send(1, &PREVENT);
    let reset = world.original.reset(UnitAttention::LogicalUnitReset);
    world.install(Some(reset));
    world.told(1, UnitAttention::LogicalUnitReset);
    assert_eq!(world.send(1, &EJECT), GOOD);
}

#[test]
fn what_is_kept_from_leaving_is_kept_from_coming() {
    let mut world = World::new(removable());
    world.send(0, &EJECT);
    world.send(0, &PREVENT);
    assert_eq!(world.send(0, &LOAD), illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED));
    world.send(0, &ALLOW);
    assert_eq!(world.send(0, &LOAD), GOOD);
}

#[test]
fn a_fixed_medium_is_not_ejected_and_needs_no_preventing() {
    let mut world = World::new(disk());
    assert_eq!(world.send(0, &EJECT), wrong_field(4, Some(1)));
    assert_eq!(world.send(0, &PREVENT), GOOD);
    assert_eq!(world.send(0, &[0x1e, 0, 0, 0, 2, 0]), wrong_field(4, Some(1)));
}

#[test]
fn stopping_writes_the_cache_back_and_leaves_the_unit_ready() {
    let mut world = World::new(removable());
    let stop = |immed: u8, bits: u8| [0x1b, immed, 0, 0, bits, 0];
    assert!(matches!(
        world.send(0, &stop(0, 0)),
        Answer::Medium(MediumCommand::Flush { immediate: false, .. })
    ));
    assert!(matches!(
        world.send(0, &stop(1, 0)),
        Answer::Medium(MediumCommand::Flush { immediate: true, .. })
    ));
    assert_eq!(world.send(0, &stop(0, 0x04)), GOOD, "NO_FLUSH");
    assert_eq!(world.send(0, &stop(0, 0x01)), GOOD, "START");
    for power_condition in 1..16 {
        assert_eq!(world.send(0, &stop(1, power_condition << 4 | 0x02)), GOOD, "LOEJ is ignored");
    }
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
}

#[test]
fn a_device_that_is_not_ready_says_why_and_still_answers_inquiry() {
    let mut world = World::new(disk());
    let gone = world.original.device_is(Readiness::InterventionRequired);
    world.install(gone);
    let sense = world.sense(0, &read10(0, 1));
    assert_eq!(
        (sense.key, sense.additional),
        (SenseKey::NotReady, AdditionalSense::MANUAL_INTERVENTION_REQUIRED)
    );
    assert_eq!(world.data(0, &[0x03, 0, 0, 0, 18, 0])[12..14], [0x04, 0x03], "REQUEST SENSE says so too");
    assert_eq!(world.data(0, &INQUIRY).len(), 66);
    let back = world.original.device_is(Readiness::Ready);
    world.install(back);
    assert_eq!(world.send(0, &TEST_UNIT_READY), GOOD);
    assert_eq!(world.original.device_is(Readiness::Ready), None, "no news");
}

#[test]
fn a_new_size_is_told_to_everybody() {
    let mut world = World::new(disk());
    let geometry = Geometry::new(512, 4000, 3, 1 << 20).unwrap();
    let grown = world.original.reconfigure(&LogicalUnit { geometry, ..disk() });
    world.install(grown);
    world.told(0, UnitAttention::CapacityChanged);
    world.told(1, UnitAttention::CapacityChanged);
    assert_eq!(world.data(0, &rw10(0x25, 0, 0, 0)), [0, 0, 0x0f, 0x9f, 0, 0, 2, 0]);
    assert_eq!(world.original.reconfigure(&LogicalUnit { geometry, ..disk() }), None, "the same again");
}

#[test]
fn a_reconfigured_unit_keeps_who_holds_it_and_what_initiators_set() {
    let mut world = World::new(disk());
    world.send(0, &RESERVE);
    world.send_with(0, &MODE_SELECT, &control(0x04, 0));
    let before = world.unit().clone();
    let installment = world.original.reconfigure(&LogicalUnit { rotational: false, ..disk() }).unwrap();
    assert_eq!(installment.unit.reservation, before.reservation);
    assert_eq!(installment.unit.mode, before.mode);
    assert!(installment.attentions.is_empty());
    assert_eq!(installment.unit.generation, before.generation + 1);
}

#[test]
fn a_nexus_state_is_small_enough_to_copy() {
    assert!(size_of::<NexusState>() <= 8);
}
