//! Several connections in one session (RFC 7143 §4.2.2, §4.2.5.1, §6.3.4): one command window, tasks that stay with the
//! connection that brought them, StatSN of each connection.

use super::*;
use crate::violation::Answer;
use crate::wire::{LogoutResult, RejectReason};

/// A session of up to three connections; the second joins with segments of 512 bytes and a StatSN of its own.
fn two() -> (Dialogue, Seat) {
    let parameters = Parameters { max_connections: 3, ..parameters() };
    let mut dialogue = Dialogue::with(Start { parameters, ..start() });
    let second = join(&mut dialogue, 1).expect("there is room");
    (dialogue, second)
}

fn join(dialogue: &mut Dialogue, cid: u16) -> Option<Seat> {
    let parameters = Parameters { peer_max_recv_data_segment_length: 512, ..parameters() };
    let stat_sn = StatSn(900);
    dialogue.session.join(&Joining { cid: Cid(cid), stat_sn, parameters: &parameters, now: dialogue.now })
}

fn request_on(dialogue: &mut Dialogue, seat: Seat, pdu: InitiatorPdu) -> TaskId {
    let Ok(Received::Request { task, .. }) = dialogue.send_on(seat, pdu) else { panic!("{pdu:?}") };
    dialogue.session.data_arrived(seat, task);
    task
}

/// The connections that hold a fence up.
fn waiting(dialogue: &Dialogue, fence: &Fence) -> Vec<Seat> {
    Seat::all().filter(|&seat| !dialogue.session.has_acknowledged(fence, seat)).collect()
}

/// NOP-Out that wants no answer: it tells of an ExpStatSN.
fn acknowledge(dialogue: &mut Dialogue, seat: Seat, expected: u32) {
    let nop = NopOut { immediate: true, expected_stat_sn: StatSn(expected), ..ping(u32::MAX, 1, 0) };
    assert!(matches!(dialogue.send_on(seat, InitiatorPdu::NopOut(nop)), Ok(Received::Absorb { .. })));
}

#[test]
fn commands_are_delivered_in_the_order_of_their_numbers_whichever_connection_they_come_by() {
    let (mut dialogue, second) = two();
    let third_command = request_on(&mut dialogue, second, plain(13, 3));
    let second_command = request_on(&mut dialogue, Seat::LEADING, plain(12, 2));
    assert_eq!(dialogue.session.next_request(), None, "the first has not come");
    let first_command = request_on(&mut dialogue, second, plain(11, 1));
    let order: Vec<_> = core::iter::from_fn(|| dialogue.session.next_request()).collect();
    assert_eq!(order, [first_command, second_command, third_command]);
    assert_eq!(dialogue.session.window().expected(), CmdSn(4));
}

#[test]
fn a_number_whose_data_segment_is_still_coming_in_is_taken_on_no_other_connection() {
    let (mut dialogue, second) = two();
    let Ok(Received::Request { task, .. }) = dialogue.send(write(11, 1, 4096, 4096, true)) else { panic!() };
    let ignored = Ok(Received::Absorb { length_bytes: 0 });
    assert_eq!(dialogue.send_on(second, InitiatorPdu::NopOut(ping(12, 1, 0))), ignored);
    assert_eq!(dialogue.send_on(second, plain(11, 1)), ignored, "nor by itself, once more");
    assert_eq!(dialogue.session.receive_in_turn(second, &command(13, 1), dialogue.now), None);
    let mut rejected = [0; BHS_BYTES];
    plain(14, 1).emit(&mut rejected);
    dialogue.session.consume_cmd_sn(&rejected);
    assert_eq!(dialogue.session.referenced(&abort(15, 2, (14, 1))), Referenced::Nothing);
    dialogue.session.data_arrived(Seat::LEADING, task);
    assert_eq!(dialogue.session.next_request(), Some(task));
    assert_eq!(dialogue.session.next_request(), None);
    assert_eq!(dialogue.session.window().expected(), CmdSn(2));
}

#[test]
fn a_number_whose_request_was_aborted_on_its_way_is_used_up_when_the_rest_of_it_has_come() {
    let (mut dialogue, second) = two();
    let Ok(Received::Request { task, .. }) = dialogue.send(write(11, 1, 4096, 4096, true)) else { panic!() };
    dialogue.session.abort(task);
    dialogue.session.retire(task);
    assert_eq!(dialogue.send_on(second, plain(12, 1)), Ok(Received::Absorb { length_bytes: 0 }));
    dialogue.session.data_arrived(Seat::LEADING, task);
    let next = request_on(&mut dialogue, second, plain(12, 2));
    assert_eq!(dialogue.session.next_request(), Some(next));
}

#[test]
fn the_same_number_on_two_connections_is_one_command() {
    let (mut dialogue, second) = two();
    request_on(&mut dialogue, Seat::LEADING, plain(12, 2));
    assert_eq!(dialogue.send_on(second, plain(13, 2)), Ok(Received::Absorb { length_bytes: 0 }));
    let in_use = dialogue.send_on(second, plain(12, 3)).unwrap_err();
    assert_eq!(in_use, Violation::Session(SessionViolation::TaskTagInUse(InitiatorTaskTag(12))));
}

#[test]
fn an_answer_goes_over_the_connection_of_its_command_and_takes_its_numbers() {
    let (mut dialogue, second) = two();
    let here = request_on(&mut dialogue, Seat::LEADING, plain(11, 1));
    let there = request_on(&mut dialogue, second, plain(12, 2));
    while dialogue.session.next_request().is_some() {}
    assert_eq!(dialogue.session.seat_of_task(there), second);
    assert_eq!(dialogue.respond(there, GOOD).stat_sn, StatSn(900));
    let response = dialogue.respond(here, GOOD);
    assert_eq!(response.stat_sn, StatSn(50), "each connection counts for itself");
    assert_eq!(response.expected_cmd_sn, CmdSn(3), "the window is one");
}

#[test]
fn data_in_is_cut_to_what_its_connection_takes() {
    let (mut dialogue, second) = two();
    let task = request_on(&mut dialogue, second, read(11, 1, 1024));
    assert_eq!(dialogue.session.next_request(), Some(task));
    dialogue.session.begin_data_in(task, 1024);
    assert_eq!(dialogue.data_in(task, 1024).unwrap().data_segment_length, 512);
    assert_eq!(dialogue.data_in(task, 1024).unwrap().status.unwrap().stat_sn, StatSn(900));
}

#[test]
fn data_of_a_write_come_over_the_connection_of_its_command() {
    let (mut dialogue, second) = two();
    let task = request_on(&mut dialogue, second, write(11, 1, 1024, 0, false));
    let astray = dialogue.send(InitiatorPdu::DataOut(burst(11, 0, 0, 512, false))).unwrap_err();
    assert_eq!(astray.answer(), Answer::Reject(RejectReason::ProtocolError));
    // The write goes on as if it had not come.
    for (data_sn, is_final) in [(0, false), (1, true)] {
        let data = InitiatorPdu::DataOut(burst(11, data_sn, data_sn * 512, 512, is_final));
        assert!(matches!(dialogue.send_on(second, data), Ok(Received::Data { .. })));
        dialogue.session.data_arrived(second, task);
    }
    assert_eq!(dialogue.session.next_request(), Some(task));
    assert!(dialogue.session.want_data(task, 1024).is_complete);
}

#[test]
fn data_segments_come_in_on_several_connections_at_once() {
    let (mut dialogue, second) = two();
    let begin = |dialogue: &mut Dialogue, seat, pdu| {
        let Ok(Received::Request { task, .. }) = dialogue.send_on(seat, pdu) else { panic!() };
        task
    };
    let first_command = begin(&mut dialogue, Seat::LEADING, write(11, 1, 512, 512, true));
    let second_command = begin(&mut dialogue, second, write(12, 2, 512, 512, true));
    dialogue.session.data_arrived(second, second_command);
    assert_eq!(dialogue.session.next_request(), None);
    dialogue.session.data_arrived(Seat::LEADING, first_command);
    assert_eq!(dialogue.session.next_request(), Some(first_command));
    assert_eq!(dialogue.session.next_request(), Some(second_command));
}

#[test]
fn no_more_connections_join_than_were_agreed_on() {
    let (mut dialogue, second) = two();
    let third = join(&mut dialogue, 2).expect("three were agreed on");
    assert_eq!(join(&mut dialogue, 3), None);
    dialogue.session.leave(second);
    assert_eq!(dialogue.session.seat_of(Cid(1)), None);
    assert_eq!(join(&mut dialogue, 3), Some(second), "its seat is free");
    assert_eq!(dialogue.session.seats().collect::<Vec<_>>(), [Seat::LEADING, second, third]);
}

#[test]
fn one_connection_is_logged_out_from_another_and_the_commands_it_lost_come_again() {
    let (mut dialogue, second) = two();
    let lost = dialogue.send_on(second, write(11, 1, 512, 512, true));
    let Ok(Received::Request { task, .. }) = lost else { panic!("{lost:?}") };
    let behind = request_on(&mut dialogue, Seat::LEADING, plain(12, 2));

    let request =
        LogoutRequest { cid: Cid(1), immediate: true, ..logout(9, 3, LogoutReason::CloseConnection) };
    let leaving = request_on(&mut dialogue, Seat::LEADING, InitiatorPdu::Logout(request));
    assert_eq!(dialogue.session.next_request(), Some(leaving));
    assert_eq!(dialogue.session.logout(&request), Ok(Leaving::Connection(second)));
    dialogue.session.abort(task);
    dialogue.session.retire(task);
    dialogue.session.leave(second);
    assert_eq!(dialogue.session.logout(&request), Err(LogoutResult::CidNotFound), "once is enough");
    assert_eq!(dialogue.session.next_request(), None, "its number is missing (§7.2.1)");

    let again = request_on(&mut dialogue, Seat::LEADING, plain(13, 1));
    assert_eq!(dialogue.session.next_request(), Some(again));
    assert_eq!(dialogue.session.next_request(), Some(behind));
}

#[test]
fn a_fence_is_cleared_when_the_other_connections_have_acknowledged_what_was_sent_on_them() {
    let (mut dialogue, second) = two();
    for (seat, tag) in [(Seat::LEADING, 1), (second, 2), (second, 3)] {
        let task = request_on(&mut dialogue, seat, plain(tag, tag));
        assert_eq!(dialogue.session.next_request(), Some(task));
        dialogue.respond(task, GOOD);
    }
    let fence = dialogue.session.fence(Seat::LEADING);
    let waits = |dialogue: &Dialogue| waiting(dialogue, &fence);
    assert_eq!(waits(&dialogue), [second], "its own connection's order is enough");
    for (expected, clear) in [(901, false), (2000, false), (902, true), (900, true)] {
        acknowledge(&mut dialogue, second, expected);
        assert_eq!(waits(&dialogue).is_empty(), clear, "{expected}");
    }
}

#[test]
fn a_connection_that_leaves_and_one_that_takes_its_seat_hold_no_fence_up() {
    let (mut dialogue, second) = two();
    let task = request_on(&mut dialogue, second, plain(1, 1));
    assert_eq!(dialogue.session.next_request(), Some(task));
    dialogue.respond(task, GOOD);
    let fence = dialogue.session.fence(Seat::LEADING);
    dialogue.session.leave(second);
    assert_eq!(waiting(&dialogue, &fence), []);
    assert_eq!(join(&mut dialogue, 1), Some(second));
    assert_eq!(waiting(&dialogue, &fence), []);
}

#[test]
fn each_connection_is_pinged_for_itself() {
    let (mut dialogue, second) = two();
    let late = Moment::ORIGIN + Duration::from_secs(31);
    dialogue.session.heard(Seat::LEADING, late);
    assert_eq!(dialogue.session.expire(Seat::LEADING, late), Expired::Nothing);
    assert_eq!(dialogue.session.expire(second, late), Expired::Ping);
    let ping = nop_in(dialogue.emitted(|session, header| session.ping(second, late, header)));
    assert_eq!(ping.stat_sn, StatSn(900));
}
