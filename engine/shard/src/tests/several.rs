//! Several connections in one session: what each hears, how they come and go (RFC 7143 §4.2.5.1, §6.3.4, §7.6, §7.14).

use super::*;
use crate::full_feature::RARE_MAX;
use portico_iscsi::wire::{
    InitiatorPdu, LoginResponse, LoginStatus, LogoutReason, LogoutRequest, LogoutResponse, LogoutResult,
    NopOut, Snack, SnackType,
};
use portico_model::message::{EndReason, ToControl};

const SEVERAL: &str = "InitialR2T=Yes|ImmediateData=Yes|MaxRecvDataSegmentLength=262144|MaxConnections=3|";
/// The same, with fenced responses.
const FENCED: &str = "InitialR2T=Yes|ImmediateData=Yes|MaxRecvDataSegmentLength=262144|MaxConnections=3|TaskReporting=FastAbort,ResponseFence,RFC3720|";
const LENGTH: &str = "MaxRecvDataSegmentLength=262144|";

const NOP_IN: Heard = Heard::Other(0x20);
const TASK_MANAGEMENT: Heard = Heard::Managed(TaskManagementResult::Complete);
const LOGIN: Heard = Heard::Other(0x23);
const LOGOUT: Heard = Heard::Other(0x26);
const ASYNC: Heard = Heard::Other(0x32);

/// A session of two connections, CIDs 0 and 1, to a file whose queue takes 8 requests.
fn two() -> (Bench, Peer, Peer) {
    two_with(SEVERAL)
}

fn two_with(keys: &str) -> (Bench, Peer, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let first = bench.log_in(&[(0, 1)], keys);
    let second = join(&mut bench, &first, 1);
    assert_eq!(bench.heard(&second), [LOGIN]);
    (bench, first, second)
}

/// A connection comes to the session; its answer is not read.
fn join(bench: &mut Bench, peer: &Peer, cid: u16) -> Peer {
    let completed = completed_as(peer.session.0, (Tsih(1), Cid(cid)), LENGTH);
    let socket = bench.world.borrow().sockets.len();
    bench.mail(ToShard::Join { session: peer.session, question: Box::new(question(completed)) });
    Peer { socket, session: peer.session, cmd_sn: peer.cmd_sn }
}

fn send(bench: &mut Bench, peer: &Peer, pdu: InitiatorPdu, data: &[u8]) {
    let mut bhs = [0; BHS_BYTES];
    pdu.emit(&mut bhs);
    bench.post(peer, bhs, data);
}

/// A write of 4096 bytes, all of them immediate. A session's first command is its second: TEST UNIT READY went before.
fn write(tag: u32, cmd_sn: u32) -> InitiatorPdu {
    let command = command(0, tag, transfer(0x8a, 0, 4096), 4096);
    InitiatorPdu::ScsiCommand(ScsiCommand { cmd_sn: CmdSn(cmd_sn), ..command })
}

fn test_unit_ready(tag: u32, cmd_sn: u32) -> InitiatorPdu {
    InitiatorPdu::ScsiCommand(ScsiCommand { cmd_sn: CmdSn(cmd_sn), ..command(0, tag, [0; 16], 0) })
}

fn logout(reason: LogoutReason, cid: u16, cmd_sn: u32) -> InitiatorPdu {
    InitiatorPdu::Logout(LogoutRequest {
        immediate: true,
        reason,
        initiator_task_tag: InitiatorTaskTag(0x99),
        cid: Cid(cid),
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(0),
    })
}

fn is_closed(bench: &Bench, peer: &Peer) -> bool {
    bench.world.borrow().sockets[peer.socket].is_closed
}

fn ended(bench: &Bench) -> Option<EndReason> {
    bench.world.borrow().sent.iter().find_map(|letter| match letter {
        ToControl::SessionEnded { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// The status of the login response that waits on a connection.
fn login_status(bench: &Bench, peer: &Peer) -> LoginStatus {
    let world = bench.world.borrow();
    let bytes: Vec<u8> = world.sockets[peer.socket].from_shard.iter().copied().take(BHS_BYTES).collect();
    LoginResponse::parse(bytes[..].try_into().expect("a header")).expect("a login response").status
}

#[test]
fn what_belongs_to_a_command_goes_over_its_connection() {
    let (mut bench, first, second) = two();
    let asked = ScsiCommand { cmd_sn: CmdSn(3), ..command(0, 21, transfer(0x8a, 8, 512), 512) };
    send(&mut bench, &second, InitiatorPdu::ScsiCommand(asked), &[]);
    assert_eq!(bench.heard(&second), [], "the command before it has not come");
    send(&mut bench, &first, write(11, 2), &[7; 4096]);
    let heard = bench.heard(&second);
    assert!(matches!(heard[..], [Heard::R2t { tag: 21, .. }]), "{heard:?}");
    bench.answer(&second, &heard[0]);
    bench.land_all();
    assert_eq!(bench.heard(&first), [Heard::Status(11, GOOD)]);
    assert_eq!(bench.heard(&second), [Heard::Status(21, GOOD)]);
}

#[test]
fn a_connection_that_is_logged_out_from_another_closes_and_its_writes_are_waited_for() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, write(21, 2), &[7; 4096]);
    send(&mut bench, &first, logout(LogoutReason::CloseConnection, 1, 3), &[]);
    assert!(is_closed(&bench, &second));
    assert_eq!(bench.heard(&first), [], "the write is at the medium");
    bench.land();
    assert_eq!(bench.heard(&first), [LOGOUT]);
    assert_eq!(bench.heard(&second), [], "a task that was terminated is not answered (§7.6)");
    send(&mut bench, &first, test_unit_ready(12, 3), &[]);
    assert_eq!(bench.heard(&first), [Heard::Status(12, GOOD)]);
    assert_eq!(ended(&bench), None, "the session goes on");
}

#[test]
fn a_connection_that_logs_itself_out_closes_and_the_session_goes_on() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, logout(LogoutReason::CloseConnection, 1, 2), &[]);
    assert_eq!(bench.heard(&second), [LOGOUT]);
    assert!(is_closed(&bench, &second));
    send(&mut bench, &first, test_unit_ready(12, 2), &[]);
    assert_eq!(bench.heard(&first), [Heard::Status(12, GOOD)]);
    send(&mut bench, &first, logout(LogoutReason::CloseConnection, 0, 3), &[]);
    assert_eq!(bench.heard(&first), [LOGOUT]);
    assert_eq!(ended(&bench), Some(EndReason::Logout), "with its last connection it ends");
}

#[test]
fn a_logout_of_a_connection_that_is_not_there_closes_nothing() {
    let (mut bench, first, second) = two();
    send(&mut bench, &first, logout(LogoutReason::CloseConnection, 7, 2), &[]);
    let bytes: Vec<u8> = bench.world.borrow_mut().sockets[first.socket].from_shard.drain(..).collect();
    let response = LogoutResponse::parse(bytes[..].try_into().expect("one header")).expect("an answer");
    assert_eq!(response.result, LogoutResult::CidNotFound);
    assert!(!is_closed(&bench, &first) && !is_closed(&bench, &second));
}

#[test]
fn a_logout_of_the_session_closes_all_of_its_connections() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, logout(LogoutReason::CloseSession, 0, 2), &[]);
    assert_eq!(bench.heard(&second), [LOGOUT]);
    assert_eq!(bench.heard(&first), []);
    assert!(is_closed(&bench, &first) && is_closed(&bench, &second));
    assert_eq!(ended(&bench), Some(EndReason::Logout));
}

#[test]
fn at_level_0_a_session_fails_with_any_of_its_connections_and_the_others_are_told() {
    let (mut bench, first, second) = two();
    send(&mut bench, &first, write(11, 2), &[7; 4096]);
    bench.world.borrow_mut().cut(second.socket);
    bench.settle();
    assert_eq!(bench.heard(&first), [ASYNC]);
    assert!(is_closed(&bench, &first));
    assert_eq!(ended(&bench), Some(EndReason::ConnectionLost));
    bench.land();
}

#[test]
fn a_connection_of_the_same_cid_takes_the_place_of_the_old_one_whose_writes_are_waited_for() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, write(21, 2), &[7; 4096]);
    let third = join(&mut bench, &first, 1);
    assert!(is_closed(&bench, &second));
    assert!(bench.world.borrow().sockets.len() == third.socket, "the write is at the medium");
    bench.land();
    assert_eq!(bench.heard(&third), [LOGIN]);
    send(&mut bench, &third, test_unit_ready(31, 3), &[]);
    assert_eq!(
        bench.heard(&third),
        [Heard::Status(31, GOOD)],
        "the terminated write took its number with it"
    );
    assert_eq!((bench.heard(&first), ended(&bench)), (Vec::new(), None));
}

#[test]
fn what_waited_for_data_on_a_connection_that_is_replaced_has_its_turn() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let keys = "InitialR2T=No|ImmediateData=Yes|MaxRecvDataSegmentLength=262144|FirstBurstLength=8192|MaxConnections=3|";
    let first = bench.log_in(&[(0, 1)], keys);
    let second = join(&mut bench, &first, 1);
    assert_eq!(bench.heard(&second), [LOGIN]);
    let unsolicited =
        ScsiCommand { is_final: false, cmd_sn: CmdSn(3), ..command(0, 21, transfer(0x8a, 0, 8192), 8192) };
    send(&mut bench, &second, InitiatorPdu::ScsiCommand(unsolicited), &[]);
    let data = DataOut {
        is_final: false,
        data_segment_length: 4096,
        lun: lun_field(0),
        initiator_task_tag: InitiatorTaskTag(21),
        target_transfer_tag: TargetTransferTag::RESERVED,
        expected_stat_sn: StatSn(0),
        data_sn: DataSn(0),
        buffer_offset: 0,
    };
    let mut bhs = [0; BHS_BYTES];
    data.emit(&mut bhs);
    {
        // Its header and no more.
        let world = &mut *bench.world.borrow_mut();
        world.sockets[second.socket].to_shard.extend(bhs);
        world.feed(second.socket);
    }
    bench.settle();
    send(&mut bench, &first, test_unit_ready(14, 4), &[]);
    send(&mut bench, &first, test_unit_ready(12, 2), &[]);
    assert_eq!(bench.heard(&first), [Heard::Status(12, GOOD)], "the write in between is not all there");
    let third = join(&mut bench, &first, 1);
    assert_eq!(bench.heard(&first), [Heard::Status(14, GOOD)]);
    assert_eq!(bench.heard(&third), [LOGIN]);
}

#[test]
fn the_only_connection_of_a_session_can_be_replaced() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let first = bench.log_in(&[(0, 1)], IMMEDIATE);
    let again = join(&mut bench, &first, 0);
    assert!(is_closed(&bench, &first));
    assert_eq!(bench.heard(&again), [LOGIN]);
    send(&mut bench, &again, test_unit_ready(31, 2), &[]);
    assert_eq!(bench.heard(&again), [Heard::Status(31, GOOD)]);
    bench.world.borrow_mut().cut(again.socket);
    bench.settle();
    assert_eq!(ended(&bench), Some(EndReason::ConnectionLost));
}

#[test]
fn there_are_no_more_connections_than_were_agreed_on() {
    let (mut bench, first, _) = two();
    let third = join(&mut bench, &first, 2);
    assert_eq!(login_status(&bench, &third), LoginStatus::SUCCESS);
    let fourth = join(&mut bench, &first, 3);
    assert_eq!(login_status(&bench, &fourth), LoginStatus::TOO_MANY_CONNECTIONS);
    assert!(is_closed(&bench, &fourth));
}

#[test]
fn a_session_that_is_not_there_any_more_is_not_joined() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, logout(LogoutReason::CloseSession, 0, 2), &[]);
    let late = join(&mut bench, &first, 2);
    assert_eq!(login_status(&bench, &late), LoginStatus::SESSION_DOES_NOT_EXIST);
}

/// Immediate: sent when the next command's number was this.
fn clear_task_set(cmd_sn: u32) -> InitiatorPdu {
    InitiatorPdu::TaskManagement(TaskManagementRequest {
        immediate: true,
        function: TaskManagementFunction::ClearTaskSet,
        lun: lun_field(0),
        initiator_task_tag: InitiatorTaskTag(0x77),
        referenced_task_tag: InitiatorTaskTag::RESERVED,
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(0),
        referenced_cmd_sn: CmdSn(0),
        expected_data_sn: DataSn(0),
    })
}

/// RFC 7143 §11.5.1: the function covers what has a lower number.
#[test]
fn what_was_sent_after_a_function_and_came_before_it_by_another_connection_is_answered() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, write(21, 2), &[7; 4096]);
    send(&mut bench, &second, write(22, 3), &[7; 4096]);
    send(&mut bench, &first, clear_task_set(3), &[]);
    bench.land_all();
    assert_eq!(bench.heard(&second), [NOP_IN, Heard::Status(22, GOOD)]);
    pong(&mut bench, &second, 1, 2);
    assert_eq!(bench.heard(&first), [TASK_MANAGEMENT]);
}

/// RFC 7143 §4.2.3.3: no R2T of what a function has ended comes behind its answer, on whatever connection. An R2T has no StatSN of
/// its own: that the initiator has it is told by the answer to a ping behind it.
#[test]
fn a_function_waits_until_what_was_asked_for_on_other_connections_has_come() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, write(21, 2), &[]);
    assert!(matches!(bench.heard(&second)[..], [Heard::R2t { tag: 21, .. }]));
    send(&mut bench, &first, clear_task_set(3), &[]);
    assert_eq!((bench.heard(&first), bench.heard(&second)), (Vec::new(), vec![NOP_IN]));
    acknowledge(&mut bench, &second, 2);
    assert_eq!(bench.heard(&first), [], "it may have been said before the request came");
    pong(&mut bench, &second, 1, 2);
    assert_eq!(bench.heard(&first), [TASK_MANAGEMENT]);
}

/// RFC 7143 §4.2.3.3: neither does a status that is being sent when the function comes.
#[test]
fn a_function_waits_for_an_answer_that_is_being_sent() {
    let (mut bench, first, second) = two();
    bench.world.borrow_mut().sockets[second.socket].is_deaf = true;
    send(&mut bench, &second, test_unit_ready(21, 2), &[]);
    send(&mut bench, &second, test_unit_ready(22, 3), &[]);
    send(&mut bench, &first, clear_task_set(4), &[]);
    assert_eq!(bench.heard(&first), []);
    bench.world.borrow_mut().hear(second.socket);
    bench.settle();
    assert_eq!(bench.heard(&second), [Heard::Status(21, GOOD), NOP_IN], "the other one was ended unsaid");
    acknowledge(&mut bench, &second, 2);
    assert_eq!(bench.heard(&first), []);
    pong(&mut bench, &second, 1, 3);
    assert_eq!(bench.heard(&first), [TASK_MANAGEMENT]);
}

/// RFC 7143 §4.2.3.3: answers that went out before a function on a task set are acknowledged before it is answered.
#[test]
fn a_function_waits_until_what_was_answered_on_other_connections_is_acknowledged() {
    let (mut bench, first, second) = two();
    send(&mut bench, &second, test_unit_ready(21, 2), &[]);
    assert_eq!(bench.heard(&second), [Heard::Status(21, GOOD)]);
    send(&mut bench, &first, clear_task_set(3), &[]);
    assert_eq!((bench.heard(&first), bench.heard(&second)), (Vec::new(), vec![NOP_IN]));
    acknowledge(&mut bench, &second, 3);
    assert_eq!(bench.heard(&first), [TASK_MANAGEMENT]);
}

/// Responses before this StatSN have come.
fn acknowledge(bench: &mut Bench, peer: &Peer, stat_sn: u32) {
    no_operation(bench, peer, TargetTransferTag::RESERVED, stat_sn);
}

/// The ping of this number on its connection has come, and responses before this StatSN.
fn pong(bench: &mut Bench, peer: &Peer, number: u32, stat_sn: u32) {
    no_operation(bench, peer, TargetTransferTag(0xfffe_0000 | number), stat_sn);
}

fn no_operation(bench: &mut Bench, peer: &Peer, target_transfer_tag: TargetTransferTag, stat_sn: u32) {
    let acknowledged = NopOut {
        immediate: true,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        target_transfer_tag,
        cmd_sn: CmdSn(3),
        expected_stat_sn: StatSn(stat_sn),
    };
    send(bench, peer, InitiatorPdu::NopOut(acknowledged), &[]);
}

/// A unit attention of an abort of several tasks by another nexus is about to be told on the first connection, while a status
/// on the second is not acknowledged.
fn tell_of_an_abort(keys: &str) -> (Bench, Peer, Peer) {
    let (mut bench, first, second) = two_with(keys);
    send(&mut bench, &second, test_unit_ready(21, 2), &[]);
    assert_eq!(bench.heard(&second), [Heard::Status(21, GOOD)]);
    bench.install_with(1, 2, disk(), vec![(Whom::All, UnitAttention::LogicalUnitReset)]);
    send(&mut bench, &first, test_unit_ready(11, 3), &[]);
    send(&mut bench, &second, test_unit_ready(22, 4), &[]);
    (bench, first, second)
}

/// RFC 7143 §4.2.2.3.3, §4.2.2.3.4 a: what precedes it on other connections is acknowledged before it goes, and it is
/// acknowledged before anything that follows goes.
#[test]
fn a_unit_attention_is_fenced_where_that_was_agreed_on() {
    let (mut bench, first, second) = tell_of_an_abort(FENCED);
    assert_eq!(bench.heard(&second), [NOP_IN]);
    let asked = bench.heard(&first);
    assert!(asked.iter().all(|heard| *heard == NOP_IN), "{asked:?}: a status before it is not acknowledged");
    acknowledge(&mut bench, &first, 3);
    assert_eq!(bench.heard(&first), [], "nor is that on the other connection");
    acknowledge(&mut bench, &second, 3);
    assert_eq!(bench.heard(&first), [Heard::Status(11, CHECK_CONDITION), NOP_IN]);
    send(&mut bench, &first, test_unit_ready(12, 5), &[]);
    assert_eq!((bench.heard(&first), bench.heard(&second)), (Vec::new(), Vec::new()), "they follow it");
    acknowledge(&mut bench, &first, 4);
    assert_eq!(bench.heard(&first), [Heard::Status(12, GOOD)]);
    assert_eq!(bench.heard(&second), [Heard::Status(22, GOOD)]);
}

/// §4.2.2.3.3: the fence is for those who have negotiated it.
#[test]
fn without_an_agreement_nothing_is_fenced() {
    let (mut bench, first, second) = tell_of_an_abort(SEVERAL);
    assert_eq!(bench.heard(&first), [Heard::Status(11, CHECK_CONDITION)]);
    assert_eq!(bench.heard(&second), [Heard::Status(22, GOOD)]);
}

/// §4.2.2.3.4 f, and two fences, one behind the other.
#[test]
fn the_answer_to_preempt_and_abort_is_fenced_and_the_next_fence_waits_for_it() {
    let (mut bench, first, second) = two_with(FENCED);
    let mut preempt = [0; 16];
    (preempt[0], preempt[1], preempt[8]) = (0x5f, 0x05, 24);
    let preempt = |tag, cmd_sn| {
        let command = command(0, tag, preempt, 24);
        InitiatorPdu::ScsiCommand(ScsiCommand { cmd_sn: CmdSn(cmd_sn), ..command })
    };
    acknowledge(&mut bench, &first, 3);
    bench.world.borrow_mut().sent.clear();
    for (peer, tag, cmd_sn) in [(&first, 11, 2), (&second, 21, 3)] {
        send(&mut bench, peer, preempt(tag, cmd_sn), &[0; 24]);
    }
    let tickets: Vec<_> = bench.world.borrow().sent.iter().filter_map(ticket_of).collect();
    for ticket in tickets {
        bench.mail(ToShard::Changed { ticket, outcome: Ok(()) });
    }
    assert_eq!(bench.heard(&first), [Heard::Status(11, GOOD), NOP_IN]);
    assert_eq!(bench.heard(&second), [], "it follows the other");
    acknowledge(&mut bench, &first, 4);
    assert_eq!(bench.heard(&second), [Heard::Status(21, GOOD), NOP_IN]);
    send(&mut bench, &first, test_unit_ready(12, 4), &[]);
    assert_eq!(bench.heard(&first), []);
    acknowledge(&mut bench, &second, 3);
    assert_eq!(bench.heard(&first), [Heard::Status(12, GOOD)]);
}

fn ticket_of(letter: &ToControl) -> Option<portico_model::identity::Ticket> {
    match letter {
        ToControl::Change { ticket, .. } => Some(*ticket),
        _ => None,
    }
}

#[test]
fn who_acknowledges_nothing_holds_nobody_up_for_ever() {
    let (mut bench, first, second) = tell_of_an_abort(FENCED);
    bench.heard(&first);
    bench.heard(&second);
    let patience = Duration::from_secs(crate::management::PATIENCE_S);
    let later = bench.shard.core.now + patience;
    bench.world.borrow_mut().now = later;
    bench.settle();
    assert!(is_closed(&bench, &first) && is_closed(&bench, &second), "the session fails with them (§7.14)");
    assert_eq!(ended(&bench), Some(EndReason::Silent));
}

/// At level 2 the response waits for another connection by itself, and holds up nobody meanwhile.
#[test]
fn a_fence_goes_with_the_connection_of_its_response() {
    let (mut bench, first, second) = tell_of_an_abort(&format!("{FENCED}ErrorRecoveryLevel=2|"));
    bench.world.borrow_mut().cut(first.socket);
    bench.settle();
    assert_eq!(bench.heard(&second), [NOP_IN, Heard::Status(22, GOOD)]);
    assert_eq!(ended(&bench), None);
}

/// A response that waits behind another one's fence leaves with its connection: who sits down in its seat has none to send.
#[test]
fn a_fence_whose_connection_was_replaced_holds_nobody_up() {
    let (mut bench, first, second) = tell_of_an_abort(FENCED);
    let third = join(&mut bench, &first, 2);
    assert_eq!(bench.heard(&third), [LOGIN]);
    bench.heard(&first);
    bench.heard(&second);
    bench.install_with(1, 3, disk(), vec![(Whom::All, UnitAttention::LogicalUnitReset)]);
    send(&mut bench, &second, test_unit_ready(23, 5), &[]);
    let again = join(&mut bench, &first, 1);
    acknowledge(&mut bench, &first, 3);
    assert!(bench.heard(&first).contains(&Heard::Status(11, CHECK_CONDITION)));
    acknowledge(&mut bench, &first, 4);
    send(&mut bench, &first, test_unit_ready(12, 6), &[]);
    assert_eq!(bench.heard(&first), [Heard::Status(12, GOOD)]);
    send(&mut bench, &again, test_unit_ready(24, 7), &[]);
    let heard = bench.heard(&again);
    assert!(heard.contains(&Heard::Status(24, GOOD)), "{heard:?}");
}

/// What waits at a fence is bounded as what waits for an initiator that does not read.
#[test]
fn who_asks_and_acknowledges_nothing_at_a_fence_is_heard_no_further() {
    let (mut bench, first, second) = tell_of_an_abort(FENCED);
    let snack = Snack {
        kind: SnackType::Status,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        transfer_or_snack_tag: u32::MAX,
        expected_stat_sn: StatSn(0),
        run_begin: 0,
        run_length: 0,
    };
    let mut bhs = [0; BHS_BYTES];
    InitiatorPdu::Snack(snack).emit(&mut bhs);
    let waiting = |bench: &Bench| {
        let sessions = bench.shard.core.sessions.iter();
        let links = sessions.flat_map(|(_, session)| session.links.iter().flatten());
        links.map(|link| link.outgoing.len()).max().unwrap_or(0)
    };
    for _ in 0..50 {
        for _ in 0..100 {
            let world = &mut *bench.world.borrow_mut();
            world.sockets[first.socket].to_shard.extend(bhs);
            world.feed(first.socket);
        }
        bench.settle();
        // It has time.
        for index in 0..bench.shard.connections.places() {
            let key = bench.shard.connections.key_at(index);
            let connection = key.and_then(|key| bench.shard.connections.get_mut(key));
            connection.into_iter().for_each(|connection| connection.rare_left = RARE_MAX);
        }
    }
    let most = waiting(&bench);
    assert!((4000..4200).contains(&most), "{most} of 5000");
    assert!(!is_closed(&bench, &first));
    acknowledge(&mut bench, &second, 3);
    bench.pass(Duration::from_secs(60));
    assert!(is_closed(&bench, &first), "its time at the fence is over");
}
