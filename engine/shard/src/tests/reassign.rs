//! Connection recovery, at level 2 (RFC 7143 §6.3.4, §6.3.6, §7.2.2, §7.5, §7.6): commands outlive their connection.

use super::recovery::{acknowledge, data_in, hear, response, send};
use super::*;
use crate::core::ABANDONED_MAX;
use portico_iscsi::wire::{
    InitiatorPdu, LoginStatus, LogoutReason, LogoutRequest, LogoutResult, TaskManagementFunction,
    TaskManagementRequest, TaskManagementResult,
};
use portico_model::message::{EndReason, ToControl};
use portico_scsi::unit::QueueError;

/// Data-In of 4 KiB, sequences of 8; DefaultTime2Wait is 2, DefaultTime2Retain 20.
const LEVEL_2: &str = "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=4096|MaxBurstLength=8192|\
                       FirstBurstLength=8192|ErrorRecoveryLevel=2|MaxConnections=3|";
const SECOND: Duration = Duration::from_secs(1);

fn bench(keys: &str) -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let peer = bench.log_in(&[(0, 1)], keys);
    (bench, peer)
}

fn cut(bench: &mut Bench, peer: &Peer) {
    bench.world.borrow_mut().cut(peer.socket);
    bench.settle();
}

/// A connection comes to the session, and takes smaller segments than the first. What it is told, and its ExpCmdSN.
fn join(bench: &mut Bench, peer: &Peer, cid: u16, segment_bytes: u32) -> (Peer, LoginStatus, CmdSn) {
    let keys = format!("MaxRecvDataSegmentLength={segment_bytes}|");
    let completed = completed_as(peer.session.0, (Tsih(1), Cid(cid)), &keys);
    let socket = bench.world.borrow().sockets.len();
    bench.mail(ToShard::Join { session: peer.session, question: Box::new(question(completed)) });
    let joined = Peer { socket, session: peer.session, cmd_sn: peer.cmd_sn };
    let bytes: Vec<u8> = bench.world.borrow_mut().sockets[socket].from_shard.drain(..).collect();
    let bhs: &Bhs = bytes[..BHS_BYTES].try_into().expect("a header");
    match TargetPdu::parse(bhs).expect("the shard speaks as it should") {
        TargetPdu::Login(login) => (joined, login.status, login.expected_cmd_sn),
        other => panic!("{other:?}"),
    }
}

fn rejoin(bench: &mut Bench, peer: &Peer, cid: u16) -> Peer {
    let (joined, status, _) = join(bench, peer, cid, 4096);
    assert_eq!(status, LoginStatus::SUCCESS);
    joined
}

/// What TASK REASSIGN is answered with, and what follows.
fn reassign(
    bench: &mut Bench,
    peer: &Peer,
    tag: u32,
    expected_data_sn: u32,
) -> (TaskManagementResult, Vec<(TargetPdu, Vec<u8>)>) {
    ask_to_reassign(bench, peer, tag, expected_data_sn);
    let mut heard = hear(bench, peer, false);
    assert!(!heard.is_empty(), "the answer goes before all else (§7.2.2)");
    match heard.remove(0).0 {
        TargetPdu::TaskManagement(answer) => (answer.result, heard),
        other => panic!("{other:?}"),
    }
}

fn ask_to_reassign(bench: &mut Bench, peer: &Peer, tag: u32, expected_data_sn: u32) {
    let request = TaskManagementRequest {
        immediate: true,
        function: TaskManagementFunction::TaskReassign,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(0x7000 + tag),
        referenced_task_tag: InitiatorTaskTag(tag),
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: StatSn(0),
        referenced_cmd_sn: CmdSn(0),
        expected_data_sn: DataSn(expected_data_sn),
    };
    send(bench, peer, InitiatorPdu::TaskManagement(request));
}

/// How a logout is answered, and how long the tasks are kept.
fn log_out(bench: &mut Bench, peer: &Peer, reason: LogoutReason, cid: u16) -> (LogoutResult, u16, u16) {
    let request = LogoutRequest {
        immediate: true,
        reason,
        initiator_task_tag: InitiatorTaskTag(0x99),
        cid: Cid(cid),
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: StatSn(0),
    };
    send(bench, peer, InitiatorPdu::Logout(request));
    match hear(bench, peer, false)[..] {
        [(TargetPdu::Logout(answer), _)] => (answer.result, answer.time_2_wait_s, answer.time_2_retain_s),
        ref other => panic!("{other:?}"),
    }
}

fn ended(bench: &Bench) -> Option<EndReason> {
    bench.world.borrow().sent.iter().find_map(|letter| match letter {
        ToControl::SessionEnded { reason, .. } => Some(*reason),
        _ => None,
    })
}

fn data_sns(heard: &[(TargetPdu, Vec<u8>)]) -> Vec<u32> {
    let data = heard.iter().filter(|(pdu, _)| matches!(pdu, TargetPdu::DataIn(_)));
    data.map(|(pdu, _)| data_in(pdu).data_sn.0).collect()
}

fn bytes_of(heard: &[(TargetPdu, Vec<u8>)]) -> Vec<u8> {
    let data = heard.iter().filter(|(pdu, _)| matches!(pdu, TargetPdu::DataIn(_)));
    data.flat_map(|(_, data)| data.iter().copied()).collect()
}

fn blocks(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(world::block_byte).collect()
}

#[test]
fn a_read_that_was_answered_is_answered_again_from_the_data_on_that_its_initiator_lacks() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.read(&mut first, 0, 9, 16 << 10);
    bench.land_all();
    let sent = hear(&mut bench, &first, false);
    cut(&mut bench, &first);
    assert_eq!(ended(&bench), None, "the session lives on (§6.3.6)");
    let again = rejoin(&mut bench, &first, 0);
    let (result, heard) = reassign(&mut bench, &again, 9, 2);
    assert_eq!((result, data_sns(&heard)), (TaskManagementResult::Complete, vec![2, 3]));
    assert_eq!(bytes_of(&heard), blocks(8192, 16_384));
    let answer = response(&heard[2].0);
    assert_eq!((answer.status, answer.expected_data_sn, answer.snack_tag), (GOOD, 4, 0));
    // The final Login Response had StatSN 1, the answer to the function 2: the new connection counts by itself.
    assert_eq!(answer.stat_sn, StatSn(3));
    assert_ne!(answer.stat_sn, response(&sent[4].0).stat_sn.next());
    acknowledge(&mut bench, &again, StatSn(4));
    assert_eq!(reassign(&mut bench, &again, 9, 0).0, TaskManagementResult::TaskDoesNotExist);
}

#[test]
fn a_read_whose_data_are_at_the_medium_goes_on_with_the_new_connection_in_its_segments() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.read(&mut first, 0, 9, 12 << 10);
    cut(&mut bench, &first);
    let (again, status, _) = join(&mut bench, &first, 0, 2048);
    assert_eq!(status, LoginStatus::SUCCESS);
    assert_eq!(reassign(&mut bench, &again, 9, 0), (TaskManagementResult::Complete, Vec::new()));
    bench.land_all();
    let heard = hear(&mut bench, &again, false);
    assert_eq!((data_sns(&heard), bytes_of(&heard)), (vec![0, 1, 2, 3, 4, 5], blocks(0, 12_288)));
    assert_eq!(response(&heard[6].0).expected_data_sn, 6);
}

#[test]
fn data_that_had_been_sent_in_longer_segments_are_cut_anew() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.read(&mut first, 0, 9, 16 << 10);
    bench.land_all();
    cut(&mut bench, &first);
    let (again, ..) = join(&mut bench, &first, 0, 1024);
    let (_, heard) = reassign(&mut bench, &again, 9, 1);
    assert_eq!((data_sns(&heard), bytes_of(&heard)), ((1..13).collect(), blocks(4096, 16_384)));
    assert_eq!(response(&heard[12].0).expected_data_sn, 13);
}

#[test]
fn an_answer_that_came_while_nobody_was_there_waits() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.read(&mut first, 0, 9, 4096);
    bench.command(&mut first, 0, 10, [0; 16], 0, &[]);
    cut(&mut bench, &first);
    bench.land_all();
    let again = rejoin(&mut bench, &first, 0);
    assert_eq!(hear(&mut bench, &again, false), [], "nobody's before it is reassigned");
    let (_, heard) = reassign(&mut bench, &again, 9, 0);
    assert_eq!((bytes_of(&heard), heard.len()), (blocks(0, 4096), 2));
    let (_, heard) = reassign(&mut bench, &again, 10, 0);
    assert_eq!(response(&heard[0].0).status, GOOD);
}

#[test]
fn what_a_write_lacks_is_asked_for_again_from_the_last_good_byte_on() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.write(&mut first, 0, 9, 16 << 10, &[]);
    let [Heard::R2t { transfer, .. }] = bench.heard(&first)[..] else { panic!("one R2T") };
    bench.send_data(&first, 9, transfer, (0, 0), &[0x5a; 4096], false);
    cut(&mut bench, &first);
    let again = rejoin(&mut bench, &first, 0);
    let (result, mut heard) = reassign(&mut bench, &again, 9, 1);
    assert_eq!(result, TaskManagementResult::Complete);
    for range in [(1, 4096, 8192), (2, 12_288, 4096)] {
        let [(TargetPdu::R2t(r2t), _)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((r2t.r2t_sn.0, r2t.buffer_offset, r2t.desired_data_transfer_length), range);
        let data = vec![0x5a; r2t.desired_data_transfer_length as usize];
        bench.send_data(&again, 9, r2t.target_transfer_tag, (0, r2t.buffer_offset), &data, true);
        if range.0 == 1 {
            heard = hear(&mut bench, &again, false);
        }
    }
    bench.land_all();
    assert_eq!(bench.heard(&again), [Heard::Status(9, GOOD)]);
    let world = bench.world.borrow();
    assert_eq!(world.written, [(0, vec![0x5a; 16 << 10])], "all of it, once");
}

/// An initiator that says nothing of R2Ts has them numbered from the first that it did not answer in full.
#[test]
fn r2ts_that_nobody_speaks_of_are_sent_under_their_numbers() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.write(&mut first, 0, 9, 16 << 10, &[]);
    let heard = bench.heard(&first);
    bench.answer(&first, &heard[0]);
    cut(&mut bench, &first);
    let again = rejoin(&mut bench, &first, 0);
    let (_, heard) = reassign(&mut bench, &again, 9, 0);
    let [(TargetPdu::R2t(r2t), _)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((r2t.r2t_sn.0, r2t.buffer_offset), (1, 8192));
}

#[test]
fn a_command_that_is_not_acknowledged_never_came_and_comes_again() {
    let (mut bench, first) = bench(LEVEL_2);
    let mut later = Peer { cmd_sn: first.cmd_sn.next(), ..first };
    bench.read(&mut later, 0, 9, 512);
    assert_eq!(bench.heard(&later), [], "the one before it has not come");
    cut(&mut bench, &later);
    let (mut again, _, expected) = join(&mut bench, &later, 0, 4096);
    assert_eq!(expected, CmdSn(2));
    assert_eq!(reassign(&mut bench, &again, 9, 0).0, TaskManagementResult::TaskDoesNotExist);
    again.cmd_sn = expected;
    bench.command(&mut again, 0, 8, [0; 16], 0, &[]);
    bench.read(&mut again, 0, 9, 512);
    bench.land_all();
    let heard = hear(&mut bench, &again, false);
    assert_eq!((heard.len(), bytes_of(&heard)), (3, blocks(0, 512)));
}

#[test]
fn before_the_old_connection_is_logged_out_its_commands_are_still_allegiant_to_it() {
    let (mut bench, mut first) = bench(LEVEL_2);
    let second = rejoin(&mut bench, &first, 1);
    bench.read(&mut first, 0, 9, 4096);
    assert_eq!(reassign(&mut bench, &second, 9, 0).0, TaskManagementResult::TaskStillAllegiant, "it lives");
    cut(&mut bench, &first);
    assert_eq!(reassign(&mut bench, &second, 9, 0).0, TaskManagementResult::TaskStillAllegiant);
    let reason = LogoutReason::RemoveConnectionForRecovery;
    assert_eq!(log_out(&mut bench, &second, reason, 7), (LogoutResult::CidNotFound, 2, 0));
    assert_eq!(log_out(&mut bench, &second, reason, 0), (LogoutResult::Closed, 2, 20));
    assert_eq!(reassign(&mut bench, &second, 9, 0).0, TaskManagementResult::Complete);
    bench.land_all();
    assert_eq!(bytes_of(&hear(&mut bench, &second, false)), blocks(0, 4096));
    assert_eq!(ended(&bench), None, "the others are not told, and the session goes on");
}

#[test]
fn a_connection_is_taken_out_for_recovery_from_another_or_by_itself() {
    for by_itself in [false, true] {
        let (mut bench, mut first) = bench(LEVEL_2);
        let second = rejoin(&mut bench, &first, 1);
        bench.read(&mut first, 0, 9, 4096);
        let reason = LogoutReason::RemoveConnectionForRecovery;
        let by = if by_itself { &first } else { &second };
        assert_eq!(log_out(&mut bench, by, reason, 0), (LogoutResult::Closed, 2, 20));
        bench.land_all();
        assert!(bench.world.borrow().sockets[first.socket].is_closed);
        assert_eq!(bench.heard(&first), [], "transfers are suspended (§11.14)");
        let (_, heard) = reassign(&mut bench, &second, 9, 0);
        assert_eq!((bytes_of(&heard), heard.len()), (blocks(0, 4096), 2));
    }
}

#[test]
fn a_connection_that_is_thought_to_be_there_gives_its_commands_to_the_one_that_replaces_it() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.write(&mut first, 0, 9, 4096, &[]);
    assert_eq!(bench.heard(&first).len(), 1);
    let again = rejoin(&mut bench, &first, 0);
    assert!(bench.world.borrow().sockets[first.socket].is_closed);
    let (result, heard) = reassign(&mut bench, &again, 9, 1);
    assert!(matches!((result, &heard[..]), (TaskManagementResult::Complete, [(TargetPdu::R2t(_), _)])));
}

#[test]
fn what_nobody_takes_over_ends_when_its_time_is_over_and_the_session_with_it() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.write(&mut first, 0, 9, 4096, &[]);
    cut(&mut bench, &first);
    bench.pass(21 * SECOND);
    assert_eq!(ended(&bench), None);
    bench.pass(2 * SECOND);
    assert_eq!(ended(&bench), Some(EndReason::ConnectionLost));
    assert_eq!(join(&mut bench, &first, 0, 4096).1, LoginStatus::SESSION_DOES_NOT_EXIST);
}

#[test]
fn where_others_are_connected_only_the_tasks_end_and_their_numbers_stay_used() {
    let (mut bench, mut first) = bench(LEVEL_2);
    let mut second = rejoin(&mut bench, &first, 1);
    bench.write(&mut first, 0, 9, 4096, &[]);
    second.cmd_sn = first.cmd_sn;
    cut(&mut bench, &first);
    bench.pass(23 * SECOND);
    assert_eq!(ended(&bench), None);
    let reason = LogoutReason::RemoveConnectionForRecovery;
    assert_eq!(log_out(&mut bench, &second, reason, 0), (LogoutResult::CidNotFound, 2, 0));
    assert_eq!(reassign(&mut bench, &second, 9, 0).0, TaskManagementResult::TaskDoesNotExist);
    bench.command(&mut second, 0, 11, [0; 16], 0, &[]);
    assert_eq!(bench.heard(&second), [Heard::Status(11, GOOD)]);
    assert!(bench.world.borrow().written.is_empty());
}

#[test]
fn a_session_of_which_nothing_is_to_be_kept_ends_with_its_last_connection() {
    let (mut bench, mut first) = bench(&format!("{LEVEL_2}DefaultTime2Retain=0|"));
    bench.write(&mut first, 0, 9, 4096, &[]);
    let mut second = rejoin(&mut bench, &first, 1);
    second.cmd_sn = first.cmd_sn;
    cut(&mut bench, &first);
    bench.command(&mut second, 0, 11, [0; 16], 0, &[]);
    assert_eq!(bench.heard(&second), [Heard::Status(11, GOOD)], "the other goes on");
    assert_eq!(reassign(&mut bench, &second, 9, 0).0, TaskManagementResult::ReassignmentNotSupported);
    cut(&mut bench, &second);
    assert_eq!(ended(&bench), Some(EndReason::ConnectionLost));
}

#[test]
fn a_lost_connection_that_is_closed_takes_its_tasks_with_it() {
    let (mut bench, mut first) = bench(LEVEL_2);
    let second = rejoin(&mut bench, &first, 1);
    bench.read(&mut first, 0, 9, 4096);
    cut(&mut bench, &first);
    send(
        &mut bench,
        &second,
        InitiatorPdu::Logout(LogoutRequest {
            immediate: true,
            reason: LogoutReason::CloseConnection,
            initiator_task_tag: InitiatorTaskTag(0x99),
            cid: Cid(0),
            cmd_sn: second.cmd_sn,
            expected_stat_sn: StatSn(0),
        }),
    );
    assert_eq!(bench.heard(&second), [], "something of it is at the medium (§7.6 a)");
    bench.land_all();
    assert_eq!(bench.heard(&second), [Heard::Other(0x26)]);
    assert_eq!(reassign(&mut bench, &second, 9, 0).0, TaskManagementResult::TaskDoesNotExist);
}

#[test]
fn below_level_2_nothing_is_reassigned() {
    let (mut bench, peer) = bench(&LEVEL_2.replace("Level=2", "Level=1"));
    assert_eq!(reassign(&mut bench, &peer, 9, 0).0, TaskManagementResult::ReassignmentNotSupported);
}

/// More than a connection keeps: the command ends, once, with a status that says why.
#[test]
fn a_read_of_which_too_much_was_sent_to_be_kept_ends_and_is_read_again() {
    let keys = "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=262144|ErrorRecoveryLevel=2|";
    let (mut bench, mut first) = bench(keys);
    bench.read(&mut first, 0, 9, 8 << 20);
    bench.land_all();
    assert_eq!(hear(&mut bench, &first, false).len(), 33);
    cut(&mut bench, &first);
    let again = rejoin(&mut bench, &first, 0);
    let (result, heard) = reassign(&mut bench, &again, 9, 1);
    assert_eq!((result, heard.len()), (TaskManagementResult::Complete, 1));
    let answer = response(&heard[0].0);
    assert_eq!((answer.status, heard[0].1[14], heard[0].1[15]), (CHECK_CONDITION, 0x47, 0x7f));
}

/// What is kept of lost connections is bounded for all of them: the later one's is whole.
#[test]
fn of_two_connections_that_are_lost_the_earlier_gives_what_it_kept() {
    let keys = "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=262144|ErrorRecoveryLevel=2|MaxConnections=3|";
    let (mut bench, mut first) = bench(keys);
    let (mut second, ..) = join(&mut bench, &first, 1, 262_144);
    bench.read(&mut first, 0, 9, 3 << 20);
    second.cmd_sn = first.cmd_sn;
    bench.read(&mut second, 0, 10, 3 << 20);
    bench.land_all();
    for peer in [&first, &second] {
        assert_eq!(hear(&mut bench, peer, false).len(), 13);
        cut(&mut bench, peer);
        bench.pass(SECOND);
    }
    let (second, ..) = join(&mut bench, &second, 1, 262_144);
    let (_, heard) = reassign(&mut bench, &second, 10, 0);
    assert_eq!((bytes_of(&heard), heard.len()), (blocks(0, 3 << 20), 13));
    let (first, ..) = join(&mut bench, &first, 0, 262_144);
    let (_, heard) = reassign(&mut bench, &first, 9, 0);
    assert_eq!((response(&heard[0].0).status, heard.len()), (CHECK_CONDITION, 1));
}

/// One that takes its only connection out for recovery itself comes back to its commands.
#[test]
fn the_only_connection_is_taken_out_for_recovery() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.read(&mut first, 0, 9, 4096);
    let reason = LogoutReason::RemoveConnectionForRecovery;
    assert_eq!(log_out(&mut bench, &first, reason, 0), (LogoutResult::Closed, 2, 20));
    bench.land_all();
    assert!(bench.world.borrow().sockets[first.socket].is_closed);
    assert_eq!(ended(&bench), None);
    let again = rejoin(&mut bench, &first, 5);
    let (_, heard) = reassign(&mut bench, &again, 9, 0);
    assert_eq!((bytes_of(&heard), heard.len()), (blocks(0, 4096), 2));
}

#[test]
fn connections_may_be_lost_again_and_again() {
    let (mut bench, mut peer) = bench(LEVEL_2);
    bench.read(&mut peer, 0, 9, 4096);
    for _ in 0..20 {
        cut(&mut bench, &peer);
        let again = rejoin(&mut bench, &peer, 0);
        assert_eq!(reassign(&mut bench, &again, 9, 0).0, TaskManagementResult::Complete);
        peer = again;
    }
    bench.land_all();
    assert_eq!(bytes_of(&hear(&mut bench, &peer, false)), blocks(0, 4096));
}

#[test]
fn a_shutdown_waits_for_no_initiator_that_might_come_back() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.write(&mut first, 0, 9, 4096, &[]);
    cut(&mut bench, &first);
    bench.mail(ToShard::Quiesce);
    assert_eq!(ended(&bench), Some(EndReason::ConnectionLost));
    bench.land_all();
    let world = bench.world.borrow();
    assert!(world.sent.iter().any(|letter| matches!(letter, ToControl::Quiesced { .. })));
}

/// Its turn comes while its connection is lost.
#[test]
fn a_read_whose_turn_comes_while_it_waits_for_a_connection_begins() {
    let (mut bench, mut first) = bench(LEVEL_2);
    for (tag, attribute) in [(1, TaskAttribute::Simple), (2, TaskAttribute::Ordered)] {
        let cdb = task_sets::read(u64::from(tag), false);
        task_sets::send(&mut bench, &mut first, tag, attribute, cdb);
    }
    cut(&mut bench, &first);
    let again = rejoin(&mut bench, &first, 0);
    assert_eq!(reassign(&mut bench, &again, 1, 0).0, TaskManagementResult::Complete);
    bench.land_all();
    assert_eq!(hear(&mut bench, &again, false).len(), 2, "the first");
    let (_, heard) = reassign(&mut bench, &again, 2, 0);
    assert_eq!((bytes_of(&heard), heard.len()), (blocks(2 * 512, 3 * 512), 2));
}

/// It waits for the commands that it has aborted, and for another connection.
#[test]
fn a_status_that_is_withheld_is_sent_on_the_new_connection() {
    let (mut bench, mut first) = bench(LEVEL_2);
    task_sets::set_modes(&mut bench, 2, QueueError::AbortAll, false);
    bench.read(&mut first, 0, 1, 4096);
    task_sets::send(&mut bench, &mut first, 2, TaskAttribute::Simple, task_sets::wrong(false));
    assert_eq!(bench.heard(&first), [], "the other is at the medium still");
    cut(&mut bench, &first);
    let again = rejoin(&mut bench, &first, 0);
    assert_eq!(reassign(&mut bench, &again, 2, 0), (TaskManagementResult::Complete, Vec::new()));
    bench.land_all();
    assert_eq!(bench.heard(&again), [Heard::Status(2, CHECK_CONDITION)]);
}

#[test]
fn what_was_to_be_sent_again_is_sent_after_another_loss() {
    let (mut bench, mut first) = bench(LEVEL_2);
    bench.read(&mut first, 0, 9, 16 << 10);
    bench.land_all();
    cut(&mut bench, &first);
    let mut second = rejoin(&mut bench, &first, 0);
    bench.world.borrow_mut().sockets[second.socket].is_deaf = true;
    bench.command(&mut second, 0, 10, [0; 16], 0, &[]);
    ask_to_reassign(&mut bench, &second, 9, 0);
    cut(&mut bench, &second);
    let third = rejoin(&mut bench, &second, 0);
    let (result, heard) = reassign(&mut bench, &third, 9, 0);
    assert_eq!((result, bytes_of(&heard)), (TaskManagementResult::Complete, blocks(0, 16 << 10)));
    assert_eq!((data_sns(&heard), response(&heard[4].0).status), (vec![0, 1, 2, 3], GOOD));
}

#[test]
fn a_segment_that_is_half_here_when_its_connection_is_taken_out_is_asked_for_again() {
    let (mut bench, mut first) = bench(LEVEL_2);
    let second = rejoin(&mut bench, &first, 1);
    bench.write(&mut first, 0, 9, 4096, &[]);
    let [Heard::R2t { transfer, .. }] = bench.heard(&first)[..] else { panic!("an R2T") };
    let mut half = [0; BHS_BYTES];
    DataOut {
        is_final: true,
        data_segment_length: 4096,
        lun: lun_field(0),
        initiator_task_tag: InitiatorTaskTag(9),
        target_transfer_tag: transfer,
        expected_stat_sn: StatSn(0),
        data_sn: DataSn(0),
        buffer_offset: 0,
    }
    .emit(&mut half);
    let part = |bench: &mut Bench, peer: &Peer, bytes: &[u8]| {
        let world = &mut *bench.world.borrow_mut();
        world.sockets[peer.socket].to_shard.extend(bytes);
        world.feed(peer.socket);
    };
    part(&mut bench, &first, &half);
    part(&mut bench, &first, &[0x11; 100]);
    bench.settle();
    let mut logout = [0; BHS_BYTES];
    InitiatorPdu::Logout(LogoutRequest {
        immediate: true,
        reason: LogoutReason::RemoveConnectionForRecovery,
        initiator_task_tag: InitiatorTaskTag(0x99),
        cid: Cid(0),
        cmd_sn: second.cmd_sn,
        expected_stat_sn: StatSn(0),
    })
    .emit(&mut logout);
    // Both in one turn: what is left of the segment comes when its connection is on its way out.
    part(&mut bench, &second, &logout);
    part(&mut bench, &first, &[0x11; 3996]);
    bench.settle();
    assert_eq!(bench.heard(&second), [Heard::Other(0x26)]);
    let (_, heard) = reassign(&mut bench, &second, 9, 0);
    let [(TargetPdu::R2t(r2t), _)] = &heard[..] else { panic!("{heard:?}") };
    bench.send_data(&second, 9, r2t.target_transfer_tag, (0, 0), &[0x5a; 4096], true);
    bench.land_all();
    assert_eq!(bench.heard(&second), [Heard::Status(9, GOOD)]);
    assert_eq!(bench.world.borrow().written, [(0, vec![0x5a; 4096])]);
}

#[test]
fn so_many_sessions_wait_without_a_connection_and_the_earliest_gives_way() {
    let (mut bench, first) = bench(LEVEL_2);
    let others: Vec<Peer> = (0..ABANDONED_MAX).map(|_| bench.log_in(&[(0, 1)], LEVEL_2)).collect();
    cut(&mut bench, &first);
    for other in &others[1..] {
        cut(&mut bench, other);
    }
    // One that came back is not counted, and is the latest when it goes again.
    let again = rejoin(&mut bench, &first, 0);
    cut(&mut bench, &again);
    assert_eq!(ended(&bench), None);
    cut(&mut bench, &others[0]);
    let gone = bench.world.borrow().sent.iter().find_map(|letter| match letter {
        ToControl::SessionEnded { session, .. } => Some(*session),
        _ => None,
    });
    assert_eq!(gone, Some(others[1].session));
    let (_, status, _) = join(&mut bench, &first, 0, 4096);
    assert_eq!(status, LoginStatus::SUCCESS);
}

/// Who hears that it is gone may write something else there.
#[test]
fn a_write_whose_time_is_over_is_gone_when_it_has_left_the_medium() {
    let (mut bench, mut first) = bench(LEVEL_2);
    let mut second = rejoin(&mut bench, &first, 1);
    bench.write(&mut first, 0, 9, 4096, &[]);
    let heard = bench.heard(&first);
    bench.answer(&first, &heard[0]);
    second.cmd_sn = first.cmd_sn;
    cut(&mut bench, &first);
    bench.pass(23 * SECOND);
    ask_to_reassign(&mut bench, &second, 9, 0);
    assert_eq!(hear(&mut bench, &second, false), []);
    bench.land_all();
    let gone = Heard::Managed(TaskManagementResult::TaskDoesNotExist);
    assert_eq!(bench.heard(&second), [gone]);
}
