//! EXTENDED COPY (LID4), its copies in the background, and what ends a copy from outside.

use portico_iscsi::sn::DataSn;
use portico_iscsi::wire::{InitiatorPdu, TaskManagementFunction, TaskManagementRequest};
use portico_model::message::EndReason;

use super::*;

/// Units 1 and 2, and a session that sees both as LUN 0 and 1.
fn two_units() -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.open(2, 8);
    let identity = Identity::new(&IdentityOptions::new(0, "other", Handler::FileIo)).expect("a right name");
    bench.install_state(2, 2, WriteCache::WriteBack, LogicalUnit { identity, ..disk() });
    let peer = bench.log_in(&[(0, 1), (1, 2)], IMMEDIATE);
    (bench, peer)
}

/// Sends LUN 1 a list by which 16 blocks come to it from the unit of LUN 0.
fn copy(bench: &mut Bench, peer: &mut Peer, tag: u32, immediate: bool) {
    let mut list = vec![0; 48];
    (list[0], list[3], list[15], list[16]) = (0x01, 0x20, u8::from(immediate), 0xff);
    list[20..24].copy_from_slice(&tag.to_be_bytes());
    (list[43], list[45]) = (32, 28);
    let mut cscd = [0; 32];
    (cscd[0], cscd[4], cscd[5], cscd[7]) = (0xe4, 1, 2, 8);
    cscd[8..16].copy_from_slice(disk().identity.eui64.expect("it has one").as_bytes());
    list.extend(cscd);
    list.extend([2, 0, 0, 24, 0, 0, 0xff, 0xff, 0, 0, 0, 16]);
    list.extend([0; 16]);
    let length = u32::try_from(list.len()).expect("a short list");
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, 0x01);
    cdb[10..14].copy_from_slice(&length.to_be_bytes());
    bench.command(peer, 1, tag, cdb, length, &list);
}

/// RECEIVE COPY STATUS (LID4): COPY OPERATION STATUS and what follows it.
fn status(bench: &mut Bench, peer: &mut Peer, tag: u32, list_id: u32) -> Vec<u8> {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x84, 0x05, 255);
    cdb[2..6].copy_from_slice(&list_id.to_be_bytes());
    let asked = ScsiCommand { cmd_sn: peer.cmd_sn, read: true, ..command(0, tag, cdb, 0) };
    peer.cmd_sn = peer.cmd_sn.next();
    let mut bhs = [0; BHS_BYTES];
    ScsiCommand { expected_data_transfer_length: 255, ..asked }.emit(&mut bhs);
    bench.post(peer, bhs, &[]);
    let Some(Heard::Data(_, data, true)) = bench.heard(peer).pop() else { panic!("it is there") };
    data[5..].to_vec()
}

fn manage(bench: &mut Bench, peer: &Peer, lun: u16, function: TaskManagementFunction) {
    let request = TaskManagementRequest {
        immediate: true,
        function,
        lun: lun_field(lun),
        initiator_task_tag: InitiatorTaskTag(0x77),
        referenced_task_tag: InitiatorTaskTag::RESERVED,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: StatSn(0),
        referenced_cmd_sn: CmdSn(0),
        expected_data_sn: DataSn(0),
    };
    let mut bhs = [0; BHS_BYTES];
    InitiatorPdu::TaskManagement(request).emit(&mut bhs);
    bench.post(peer, bhs, &[]);
}

fn abort_copy(bench: &mut Bench, peer: &mut Peer, tag: u32, list_id: u32) {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, 0x1c);
    cdb[2..6].copy_from_slice(&list_id.to_be_bytes());
    bench.command(peer, 0, tag, cdb, 0, &[]);
}

fn tasks_of_unit(bench: &Bench, unit: u32) -> u32 {
    let core = &bench.shard.core;
    core.units.get(core.unit_keys[&UnitId(unit)]).expect("it is open").tasks
}

const DATA: What = What::Read { offset_bytes: 0, length_bytes: 8192 };

#[test]
fn a_copy_in_the_background_has_its_status_first_and_tells_later_how_it_ended() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 0x102, true);
    assert_eq!(bench.heard(&peer), [Heard::Status(0x102, GOOD)]);
    assert_eq!(status(&mut bench, &mut peer, 2, 0x102)[0], 0x12, "in progress in the background");
    copy(&mut bench, &mut peer, 0x102, true);
    assert_eq!(bench.heard(&peer), [Heard::Status(0x102, CHECK_CONDITION)], "its identifier is taken");
    assert_eq!(bench.land(), DATA);
    assert_eq!(bench.land(), What::Write { offset_bytes: 0, length_bytes: 8192, durable: false });
    assert_eq!(bench.heard(&peer), []);
    let told = status(&mut bench, &mut peer, 3, 0x102);
    assert_eq!((told[0], &told[1..3], told[7]), (0x01, &[0, 1][..], GOOD));
    assert_eq!((&told[11..19], &told[19..21]), (&[0, 0, 0, 0, 0, 0, 0x20, 0][..], &[0, 1][..]));
    assert_eq!((tasks_of_unit(&bench, 2), bench.shard.core.tasks.len()), (0, 0), "nothing is left of it");
}

#[test]
fn a_copy_in_the_background_is_known_however_many_others_begin() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 0x100, true);
    for tag in 1..=16 {
        copy(&mut bench, &mut peer, tag, false);
    }
    assert_eq!(bench.heard(&peer), [Heard::Status(0x100, GOOD)], "they go on");
    assert_eq!(status(&mut bench, &mut peer, 0x200, 0x100)[0], 0x12, "in progress in the background");
    bench.land_all();
    assert_eq!(bench.heard(&peer).len(), 16);
    assert_eq!(status(&mut bench, &mut peer, 0x201, 0x100)[0], 0x01);
}

#[test]
fn a_copy_in_the_background_that_fails_tells_why() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, true);
    assert_eq!(bench.land(), DATA);
    bench.world.borrow_mut().run_out_of_space();
    bench.settle();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    let told = status(&mut bench, &mut peer, 2, 1);
    assert_eq!((told[0], told[7], told[8], told[9]), (0x02, CHECK_CONDITION, 37, 37));
    assert_eq!((told[27 + 2], told[27 + 12], told[27 + 13]), (0x0a, 0x0d, 0x01));
    // The destination's status and sense data: DATA PROTECT, SPACE ALLOCATION FAILED.
    assert_eq!((told[27 + 9], told[27 + 18], told[27 + 21]), (18, CHECK_CONDITION, 0x07));
    assert_eq!(told[27 + 31..27 + 33], [0x27, 0x07]);
    assert_eq!((tasks_of_unit(&bench, 2), bench.shard.core.tasks.len()), (0, 0));
}

#[test]
fn an_abort_of_a_copy_is_good_when_nothing_of_it_is_at_a_medium() {
    for behind in [false, true] {
        let (mut bench, mut peer) = two_units();
        copy(&mut bench, &mut peer, 1, behind);
        let _ = bench.heard(&peer);
        abort_copy(&mut bench, &mut peer, 2, 9);
        assert_eq!(bench.heard(&peer), [Heard::Status(2, CHECK_CONDITION)], "there is no such copy");
        abort_copy(&mut bench, &mut peer, 3, 1);
        assert_eq!(bench.heard(&peer), []);
        assert_eq!(bench.land(), DATA);
        let heard = bench.heard(&peer);
        assert!(heard.contains(&Heard::Status(3, GOOD)), "{heard:?}");
        assert_eq!(heard.contains(&Heard::Status(1, CHECK_CONDITION)), !behind, "{heard:?}");
        assert!(bench.world.borrow().at_medium.is_empty(), "it is not written");
        assert_eq!(status(&mut bench, &mut peer, 4, 1)[0], 0x60);
        abort_copy(&mut bench, &mut peer, 5, 1);
        assert_eq!(bench.heard(&peer), [Heard::Status(5, CHECK_CONDITION)], "it is over");
        assert_eq!((tasks_of_unit(&bench, 2), bench.shard.core.tasks.len()), (0, 0));
    }
}

#[test]
fn a_task_set_that_is_aborted_at_one_end_ends_the_copy_that_came_to_the_other() {
    for behind in [false, true] {
        let (mut bench, mut peer) = two_units();
        copy(&mut bench, &mut peer, 1, behind);
        let _ = bench.heard(&peer);
        manage(&mut bench, &peer, 0, TaskManagementFunction::AbortTaskSet);
        assert_eq!(bench.heard(&peer), [], "a piece of it is at the medium");
        assert_eq!(bench.land(), DATA);
        let heard = bench.heard(&peer);
        assert_eq!(heard.contains(&Heard::Status(1, CHECK_CONDITION)), !behind, "{heard:?}");
        assert!(bench.world.borrow().at_medium.is_empty(), "it is not written");
        assert_eq!(status(&mut bench, &mut peer, 2, 1)[0], 0x02);
    }
}

#[test]
fn a_copy_in_the_background_ends_with_its_session() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, true);
    let session = bench.shard.core.session_keys[&peer.session];
    bench.shard.core.end_session(session, EndReason::ConnectionLost);
    assert_eq!(tasks_of_unit(&bench, 2), 1, "a piece of it is at the medium");
    assert_eq!(bench.land(), DATA);
    assert!(bench.world.borrow().at_medium.is_empty(), "it is not written");
    assert_eq!((tasks_of_unit(&bench, 2), bench.shard.core.tasks.len()), (0, 0));
}
