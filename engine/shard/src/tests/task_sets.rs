//! Task sets: the order of their commands, and what a CHECK CONDITION does to the others (SAM-5 §5.9, §8).

use portico_scsi::unit::QueueError;

use super::*;

const ACA_ACTIVE: u8 = 0x30;
const TASK_ABORTED: u8 = 0x40;
const COMPLETE: Heard = Heard::Managed(TaskManagementResult::Complete);

/// READ (16) of one block, with NACA where it is to be.
pub(super) fn read(lba: u64, naca: bool) -> [u8; 16] {
    let mut cdb = transfer(0x88, lba, 512);
    cdb[15] = if naca { 0x04 } else { 0 };
    cdb
}

/// One that is refused: INVALID FIELD IN CDB.
pub(super) fn wrong(naca: bool) -> [u8; 16] {
    let mut cdb = read(0, naca);
    cdb[1] = 0xe0;
    cdb
}

fn bench() -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let peer = bench.log_in(&[(0, 1)], ASKED);
    (bench, peer)
}

pub(super) fn send(bench: &mut Bench, peer: &mut Peer, tag: u32, attribute: TaskAttribute, cdb: [u8; 16]) {
    let read = ScsiCommand {
        read: true,
        attribute,
        cmd_sn: peer.cmd_sn,
        expected_data_transfer_length: 512,
        ..command(0, tag, cdb, 0)
    };
    peer.cmd_sn = peer.cmd_sn.next();
    let mut bhs = [0; BHS_BYTES];
    read.emit(&mut bhs);
    bench.post(peer, bhs, &[]);
}

/// LBAs of what is read at the medium.
fn at_medium(bench: &Bench) -> Vec<u64> {
    let lba = |what: &What| match what {
        What::Read { offset_bytes, .. } | What::Write { offset_bytes, .. } => offset_bytes / 512,
        other => panic!("{other:?} is neither"),
    };
    bench.world.borrow().at_medium.iter().map(|operation| lba(&operation.what)).collect()
}

/// Tags and statuses that have come since somebody listened.
fn ended(bench: &mut Bench, peer: &Peer) -> Vec<(u32, u8)> {
    let ended = |heard| match heard {
        Heard::Status(tag, status) => Some((tag, status)),
        Heard::Data(tag, _, true) => Some((tag, GOOD)),
        _ => None,
    };
    bench.heard(peer).into_iter().filter_map(ended).collect()
}

/// Mode values of another kind, of which nobody hears.
pub(super) fn set_modes(
    bench: &mut Bench,
    generation: u64,
    queue_error: QueueError,
    task_aborted_status: bool,
) {
    let mut state = disk();
    (state.mode.queue_error, state.mode.task_aborted_status) = (queue_error, task_aborted_status);
    bench.install_with(1, generation, state, Vec::new());
}

use TaskAttribute::{Aca, HeadOfQueue, Ordered, Simple};

#[test]
fn an_ordered_command_begins_when_all_before_it_have_ended_and_nothing_begins_before_it_has() {
    let (mut bench, mut peer) = bench();
    for (tag, attribute) in [(1, Simple), (2, Simple), (3, Ordered), (4, Simple), (5, Ordered), (6, Simple)] {
        send(&mut bench, &mut peer, tag, attribute, read(u64::from(tag), false));
    }
    assert_eq!(at_medium(&bench), [1, 2]);
    bench.land();
    assert_eq!(at_medium(&bench), [2]);
    bench.land();
    assert_eq!(at_medium(&bench), [3]);
    bench.land();
    assert_eq!(at_medium(&bench), [4]);
    bench.land();
    assert_eq!(at_medium(&bench), [5]);
    bench.land();
    assert_eq!(at_medium(&bench), [6]);
    bench.land();
    assert_eq!(ended(&mut bench, &peer), (1..=6).map(|tag| (tag, GOOD)).collect::<Vec<_>>());
    send(&mut bench, &mut peer, 7, Simple, read(7, false));
    send(&mut bench, &mut peer, 8, Simple, read(8, false));
    assert_eq!(at_medium(&bench), [7, 8], "and then all is as it was");
}

#[test]
fn a_head_of_queue_command_goes_past_those_that_wait_and_those_behind_it_wait_for_it() {
    let (mut bench, mut peer) = bench();
    for (tag, attribute) in [(1, Simple), (2, Ordered), (3, HeadOfQueue), (4, Simple)] {
        send(&mut bench, &mut peer, tag, attribute, read(u64::from(tag), false));
    }
    assert_eq!(at_medium(&bench), [1, 3]);
    bench.land();
    assert_eq!(at_medium(&bench), [3]);
    bench.land();
    assert_eq!(at_medium(&bench), [2]);
    bench.land();
    assert_eq!(at_medium(&bench), [4]);
    send(&mut bench, &mut peer, 5, HeadOfQueue, read(5, false));
    send(&mut bench, &mut peer, 6, Simple, read(6, false));
    assert_eq!(at_medium(&bench), [4, 5]);
}

#[test]
fn the_order_is_that_of_one_nexus_and_of_one_unit() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.open(2, 8);
    let mut one = bench.log_in(&[(0, 1), (1, 2)], ASKED);
    let mut other = bench.log_in(&[(0, 1)], ASKED);
    send(&mut bench, &mut one, 1, Ordered, read(1, false));
    send(&mut bench, &mut one, 2, Simple, read(2, false));
    bench.read_from(&mut one, (1, 3), 3, 512);
    send(&mut bench, &mut other, 4, Ordered, read(4, false));
    assert_eq!(at_medium(&bench), [1, 3, 4]);
}

#[test]
fn data_of_a_command_that_waits_are_kept_for_its_turn() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    let write = ScsiCommand {
        attribute: Ordered,
        cmd_sn: peer.cmd_sn,
        ..command(0, 2, transfer(0x8a, 9, 4096), 4096)
    };
    peer.cmd_sn = peer.cmd_sn.next();
    let mut bhs = [0; BHS_BYTES];
    write.emit(&mut bhs);
    bench.post(&peer, bhs, &[7; 4096]);
    assert_eq!(at_medium(&bench), [1]);
    bench.land_all();
    assert_eq!(bench.world.borrow().written, [(9 * 512, vec![7; 4096])]);
    assert_eq!(ended(&mut bench, &peer), [(1, GOOD), (2, GOOD)]);
}

#[test]
fn one_that_is_aborted_before_its_turn_never_begins_and_keeps_nobody_back() {
    let (mut bench, mut peer) = bench();
    for (tag, attribute) in [(1, Simple), (2, Ordered), (3, Simple)] {
        send(&mut bench, &mut peer, tag, attribute, read(u64::from(tag), false));
    }
    bench.manage(&peer, TaskManagementFunction::AbortTask, 2);
    assert_eq!(bench.heard(&peer), [COMPLETE]);
    assert_eq!(at_medium(&bench), [1, 3]);
    bench.land_all();
    assert_eq!(ended(&mut bench, &peer), [(1, GOOD), (3, GOOD)]);
}

#[test]
fn of_an_aborted_task_set_nothing_begins() {
    let (mut bench, mut peer) = bench();
    for (tag, attribute) in [(1, Ordered), (2, Simple), (3, Ordered), (4, Simple)] {
        send(&mut bench, &mut peer, tag, attribute, read(u64::from(tag), false));
    }
    bench.manage(&peer, TaskManagementFunction::AbortTaskSet, 0);
    assert_eq!(bench.heard(&peer), [], "one is at the medium");
    bench.land();
    assert_eq!(bench.heard(&peer), [COMPLETE]);
    assert!(bench.world.borrow().at_medium.is_empty());
    send(&mut bench, &mut peer, 5, Ordered, read(5, false));
    assert_eq!(at_medium(&bench), [5]);
}

#[test]
fn a_command_that_waits_keeps_its_turn_in_another_map() {
    let (mut bench, mut peer) = bench();
    bench.open(2, 8);
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    send(&mut bench, &mut peer, 2, Ordered, read(2, false));
    let session = peer.session;
    bench.mail(ToShard::Remap { session, map: map(&[(0, 1), (3, 2)]) });
    assert_eq!(at_medium(&bench), [1]);
    bench.land();
    assert_eq!(
        ended(&mut bench, &peer),
        [(1, GOOD), (2, CHECK_CONDITION)],
        "in its turn it hears of the map"
    );
}

#[test]
fn an_aca_blocks_what_there_is_and_lets_in_its_own_commands_alone() {
    let (mut bench, mut peer) = bench();
    let mut other = bench.log_in(&[(0, 1)], ASKED);
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    send(&mut bench, &mut peer, 2, Simple, wrong(true));
    assert_eq!(ended(&mut bench, &peer), [(2, CHECK_CONDITION)]);
    bench.land();
    assert_eq!(bench.heard(&peer), [], "what was read is kept back");
    for attribute in [Simple, Ordered, HeadOfQueue] {
        send(&mut bench, &mut peer, 3, attribute, read(3, false));
        assert_eq!(ended(&mut bench, &peer), [(3, ACA_ACTIVE)]);
    }
    send(&mut bench, &mut other, 4, Simple, read(4, false));
    bench.land();
    assert_eq!(ended(&mut bench, &other), [(4, GOOD)], "another nexus has another task set");
    send(&mut bench, &mut peer, 5, Aca, read(5, true));
    send(&mut bench, &mut peer, 6, Aca, read(6, true));
    assert_eq!(ended(&mut bench, &peer), [(6, ACA_ACTIVE)], "one at a time");
    bench.land();
    assert_eq!(ended(&mut bench, &peer), [(5, GOOD)]);
    bench.manage(&peer, TaskManagementFunction::ClearAca, 0);
    let heard = bench.heard(&peer);
    assert!(heard.contains(&COMPLETE) && matches!(heard[..], [_, _]), "{heard:?}");
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Data(1, _, true))), "{heard:?}");
    send(&mut bench, &mut peer, 7, Simple, read(7, false));
    bench.land();
    assert_eq!(ended(&mut bench, &peer), [(7, GOOD)]);
}

#[test]
fn a_blocked_write_goes_on_when_the_aca_is_cleared() {
    let mut bench = Bench::new();
    bench.open(1, 1);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut peer, 0, 1, 4096, &[]);
    bench.write(&mut peer, 0, 2, 4096, &[]);
    let r2ts = bench.heard(&peer);
    bench.answer(&peer, &r2ts[0]);
    send(&mut bench, &mut peer, 3, Simple, wrong(true));
    bench.answer(&peer, &r2ts[1]);
    bench.land();
    assert!(bench.world.borrow().at_medium.is_empty(), "the other write is not handed over");
    assert_eq!(ended(&mut bench, &peer), [(3, CHECK_CONDITION)]);
    bench.manage(&peer, TaskManagementFunction::ClearAca, 0);
    bench.land_all();
    let mut all = ended(&mut bench, &peer);
    all.sort_unstable();
    assert_eq!(all, [(1, GOOD), (2, GOOD)]);
}

#[test]
fn a_failing_command_with_the_aca_attribute_ends_the_aca_or_begins_another() {
    let (mut bench, mut peer) = bench();
    send(&mut bench, &mut peer, 1, Simple, wrong(true));
    send(&mut bench, &mut peer, 2, Aca, wrong(true));
    send(&mut bench, &mut peer, 3, Simple, read(3, false));
    assert_eq!(
        ended(&mut bench, &peer),
        [(1, CHECK_CONDITION), (2, CHECK_CONDITION), (3, ACA_ACTIVE)],
        "the new one is there as the old one was"
    );
    send(&mut bench, &mut peer, 4, Aca, wrong(false));
    send(&mut bench, &mut peer, 5, Simple, read(5, false));
    bench.land();
    assert_eq!(ended(&mut bench, &peer), [(4, CHECK_CONDITION), (5, GOOD)]);
    send(&mut bench, &mut peer, 6, Aca, read(6, false));
    assert_eq!(ended(&mut bench, &peer), [(6, CHECK_CONDITION)], "INVALID MESSAGE ERROR");
}

#[test]
fn clear_aca_aborts_the_command_that_the_aca_let_in() {
    let (mut bench, mut peer) = bench();
    send(&mut bench, &mut peer, 1, Simple, wrong(true));
    send(&mut bench, &mut peer, 2, Aca, read(2, false));
    bench.heard(&peer);
    bench.manage(&peer, TaskManagementFunction::ClearAca, 0);
    assert_eq!(bench.heard(&peer), [], "it is at the medium");
    bench.land();
    assert_eq!(bench.heard(&peer), [COMPLETE]);
    bench.manage(&peer, TaskManagementFunction::ClearAca, 0);
    assert_eq!(bench.heard(&peer), [COMPLETE], "there is none, and nothing to do");
}

#[test]
fn with_qerr_a_check_condition_aborts_the_others_and_is_told_when_nothing_of_them_is_at_the_medium() {
    for queue_error in [QueueError::AbortAll, QueueError::AbortNexus] {
        let (mut bench, mut peer) = bench();
        let mut other = bench.log_in(&[(0, 1)], ASKED);
        set_modes(&mut bench, 2, queue_error, false);
        send(&mut bench, &mut peer, 1, Simple, read(1, false));
        bench.write(&mut peer, 0, 2, 4096, &[]);
        send(&mut bench, &mut other, 3, Simple, read(3, false));
        let r2ts = bench.heard(&peer);
        send(&mut bench, &mut peer, 4, Simple, wrong(false));
        assert_eq!(bench.heard(&peer), []);
        bench.land();
        assert_eq!(bench.heard(&peer), [Heard::Status(4, CHECK_CONDITION)]);
        bench.answer(&peer, &r2ts[0]);
        assert_eq!(at_medium(&bench), [3], "nothing of the write gets there");
        bench.land();
        assert_eq!(ended(&mut bench, &other), [(3, GOOD)], "another nexus has another task set");
        assert_eq!(bench.heard(&peer), []);
        send(&mut bench, &mut peer, 5, Simple, read(5, false));
        bench.land();
        assert_eq!(ended(&mut bench, &peer), [(5, GOOD)]);
    }
}

#[test]
fn without_qerr_a_check_condition_is_nobody_elses() {
    let (mut bench, mut peer) = bench();
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    send(&mut bench, &mut peer, 2, Simple, wrong(false));
    bench.land();
    assert_eq!(ended(&mut bench, &peer), [(2, CHECK_CONDITION), (1, GOOD)]);
}

#[test]
fn with_qerr_a_check_condition_does_not_wait_for_ever() {
    let (mut bench, mut peer) = bench();
    set_modes(&mut bench, 2, QueueError::AbortAll, false);
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    send(&mut bench, &mut peer, 2, Simple, wrong(false));
    assert_eq!(bench.heard(&peer), []);
    bench.world.borrow_mut().now = bench.shard.core.now + Duration::from_secs(crate::management::PATIENCE_S);
    bench.settle();
    assert_eq!(bench.heard(&peer), [Heard::Status(2, CHECK_CONDITION)]);
}

/// PREEMPT AND ABORT by another nexus, as control tells of it.
fn abort_from_elsewhere(bench: &mut Bench, generation: u64, victim: u64, asker: u64) {
    let mut state = disk();
    let core = &bench.shard.core;
    state.mode = core.units.iter().next().expect("there is one").1.state.mode;
    bench.mail(ToShard::Install(Arc::new(Install {
        unit: UnitId(1),
        generation: Generation(generation),
        state: Arc::new(state),
        attentions: Vec::new(),
        aborts: Some(Whom::These(vec![NexusId(victim)])),
        asker: Some(NexusId(asker)),
        flush: false,
        orphans: Arc::from([]),
    })));
}

#[test]
fn what_another_nexus_aborts_ends_with_task_aborted_where_tas_is_one() {
    let (mut bench, mut peer) = bench();
    set_modes(&mut bench, 2, QueueError::Resume, true);
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    send(&mut bench, &mut peer, 2, Ordered, read(2, false));
    bench.write(&mut peer, 0, 3, 4096, &[]);
    abort_from_elsewhere(&mut bench, 3, 1, 77);
    assert_eq!(ended(&mut bench, &peer), [(2, TASK_ABORTED), (3, TASK_ABORTED)]);
    bench.land();
    assert_eq!(ended(&mut bench, &peer), [(1, TASK_ABORTED)], "when nothing of it is at the medium");
    send(&mut bench, &mut peer, 4, Simple, read(4, false));
    bench.land();
    assert_eq!(ended(&mut bench, &peer), [(4, GOOD)], "and there is no unit attention");
}

#[test]
fn where_tas_is_zero_it_ends_without_a_word_but_for_a_unit_attention() {
    let (mut bench, mut peer) = bench();
    abort_from_elsewhere(&mut bench, 2, 1, 77);
    send(&mut bench, &mut peer, 1, Simple, read(1, false));
    abort_from_elsewhere(&mut bench, 3, 1, 77);
    bench.land();
    assert_eq!(bench.heard(&peer), []);
    send(&mut bench, &mut peer, 2, Simple, read(2, false));
    let [answer] = &bench.answers(&peer)[..] else { panic!("one answer") };
    assert_eq!((answer.status, answer.sense[2], &answer.sense[12..14]), (Some(2), 6, &[0x2f, 0][..]));
}

#[test]
fn who_resets_hears_nothing_of_its_own_commands_even_where_tas_is_one() {
    let (mut bench, mut peer) = bench();
    set_modes(&mut bench, 2, QueueError::Resume, true);
    bench.write(&mut peer, 0, 1, 4096, &[]);
    bench.heard(&peer);
    abort_from_elsewhere(&mut bench, 3, 1, 1);
    assert_eq!(bench.heard(&peer), []);
}

#[test]
fn an_aca_is_over_when_its_nexus_is_aborted() {
    for with_status in [false, true] {
        let (mut bench, mut peer) = bench();
        set_modes(&mut bench, 2, QueueError::Resume, with_status);
        send(&mut bench, &mut peer, 1, Simple, read(1, false));
        send(&mut bench, &mut peer, 2, Simple, wrong(true));
        bench.land();
        assert_eq!(ended(&mut bench, &peer), [(2, CHECK_CONDITION)]);
        abort_from_elsewhere(&mut bench, 3, 1, 77);
        let expected: &[(u32, u8)] = if with_status { &[(1, TASK_ABORTED)] } else { &[] };
        assert_eq!(ended(&mut bench, &peer), expected);
        send(&mut bench, &mut peer, 3, Simple, read(3, false));
        bench.land_all();
        let status = if with_status { GOOD } else { CHECK_CONDITION };
        assert_eq!(ended(&mut bench, &peer), [(3, status)], "served, or told of what was aborted");
    }
}
