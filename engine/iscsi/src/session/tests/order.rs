//! The command window: what is taken, in which order it is delivered, and when there is room for more.

use super::*;
use crate::wire::{RejectReason, TaskManagementResult};
use proptest::prelude::*;

/// ExpCmdSN and MaxCmdSN.
fn bounds(dialogue: &Dialogue) -> (u32, u32) {
    let window = dialogue.session.window();
    (window.expected().0, window.maximum().0)
}

#[test]
fn commands_come_out_as_they_came_in() {
    let mut dialogue = Dialogue::new();
    let tasks: Vec<_> = (1..=4).map(|n| dialogue.request(plain(n, n))).collect();
    assert_eq!(bounds(&dialogue), (5, 4), "the window is closed");
    for task in tasks {
        assert_eq!(dialogue.session.next_request(), Some(task));
    }
    assert_eq!(dialogue.session.next_request(), None);
}

#[test]
fn commands_after_a_gap_wait_for_it_to_close() {
    let mut dialogue = Dialogue::new();
    let third = dialogue.request(plain(30, 3));
    let second = dialogue.request(plain(20, 2));
    assert_eq!(dialogue.session.next_request(), None);
    assert_eq!(bounds(&dialogue), (1, 4));
    let first = dialogue.request(plain(10, 1));
    assert_eq!(bounds(&dialogue), (4, 4));
    for task in [first, second, third] {
        assert_eq!(dialogue.session.next_request(), Some(task));
    }
}

#[test]
fn a_command_outside_of_the_window_is_silently_ignored() {
    // libiscsi's iSCSICmdSnTooHigh and iSCSICmdSnTooLow: no answer, and the session goes on.
    let mut dialogue = Dialogue::new();
    for outside in [0, 5, 100, u32::MAX] {
        assert_eq!(dialogue.absorbed(write(1, outside, 512, 512, true)), 512);
        assert_eq!(
            dialogue.absorbed(InitiatorPdu::DataOut(burst(1, 0, 512, 512, true))),
            512,
            "its data too"
        );
    }
    assert_eq!(dialogue.session.next_request(), None);
    dialogue.deliver(plain(1, 1));
}

#[test]
fn a_duplicate_inside_the_window_is_silently_ignored() {
    let mut dialogue = Dialogue::new();
    let waiting = dialogue.request(plain(20, 2));
    dialogue.absorbed(plain(21, 2));
    let first = dialogue.deliver(plain(10, 1));
    assert_eq!(dialogue.session.next_request(), Some(waiting));
    dialogue.absorbed(plain(11, 1));
    assert!(dialogue.session.is_live(first));
}

#[test]
fn an_immediate_command_overtakes_and_takes_no_place() {
    let mut dialogue = Dialogue::new();
    let waiting = dialogue.request(plain(20, 2));
    let urgent = dialogue.deliver(immediate(7, 1));
    assert_eq!(bounds(&dialogue), (1, 4), "its CmdSN was not used up");
    let first = dialogue.deliver(plain(10, 1));
    assert_eq!(dialogue.session.next_request(), Some(waiting));
    for task in [urgent, first, waiting] {
        dialogue.respond(task, GOOD);
        dialogue.session.retire(task);
    }
}

#[test]
fn immediate_requests_have_a_bound_and_the_next_is_told_so() {
    let mut dialogue = Dialogue::new();
    let tasks: Vec<_> =
        (0..IMMEDIATE_SHARED).map(|n| dialogue.deliver(immediate(100 + u32::from(n), 1))).collect();
    let violation = dialogue.send(immediate(7, 1)).unwrap_err();
    assert_eq!(violation, Violation::Session(SessionViolation::TooManyImmediateRequests));
    assert_eq!(violation.answer(), crate::violation::Answer::Reject(RejectReason::ImmediateCommandReject));
    for n in 1..=4 {
        dialogue.deliver(plain(n, n));
    }
    dialogue.respond(tasks[0], GOOD);
    assert!(dialogue.send(immediate(7, 1)).is_err(), "answered, but not retired");
    dialogue.session.retire(tasks[0]);
    dialogue.deliver(immediate(7, 1));
}

/// §4.2.2.1: one task management function and one other immediate request per connection, at any time.
#[test]
fn whoever_floods_a_session_leaves_each_connection_a_function_and_a_request() {
    let mut dialogue =
        Dialogue::with(Start { parameters: Parameters { max_connections: 2, ..parameters() }, ..start() });
    let joining = Joining { cid: Cid(1), stat_sn: StatSn(9), parameters: &parameters(), now: Moment::ORIGIN };
    let second = dialogue.session.join(&joining).unwrap();
    for n in 0..IMMEDIATE_SHARED {
        dialogue.deliver(immediate(100 + u32::from(n), 1));
    }
    let function = |tag| {
        let reset = management(TaskManagementFunction::TargetWarmReset, tag, 1);
        InitiatorPdu::TaskManagement(TaskManagementRequest { immediate: true, ..reset })
    };
    let takes = |dialogue: &mut Dialogue, seat, pdu| match dialogue.send_on(seat, pdu) {
        Ok(Received::Request { task, .. }) => {
            dialogue.session.data_arrived(seat, task);
            true
        }
        Err(Violation::Session(SessionViolation::TooManyImmediateRequests)) => false,
        other => panic!("{other:?}"),
    };
    assert!(!takes(&mut dialogue, Seat::LEADING, immediate(1, 1)));
    assert!(takes(&mut dialogue, Seat::LEADING, function(2)), "the first function");
    assert!(!takes(&mut dialogue, Seat::LEADING, function(3)));
    assert!(takes(&mut dialogue, second, immediate(4, 1)));
    assert!(takes(&mut dialogue, second, function(5)));
    assert!(!takes(&mut dialogue, second, immediate(6, 1)));
}

#[test]
fn the_answer_to_a_command_brings_the_place_for_the_next() {
    let mut dialogue = Dialogue::new();
    let tasks: Vec<_> = (1..=4).map(|n| dialogue.deliver(plain(n, n))).collect();
    let response = dialogue.respond(tasks[0], GOOD);
    assert_eq!((response.expected_cmd_sn, response.maximum_cmd_sn), (CmdSn(5), CmdSn(5)));
    dialogue.deliver(plain(5, 5));
    let response = dialogue.respond(tasks[1], GOOD);
    assert_eq!((response.expected_cmd_sn, response.maximum_cmd_sn), (CmdSn(6), CmdSn(6)));
}

#[test]
fn answered_tasks_whose_buffers_are_not_free_close_the_window_in_the_end() {
    let mut dialogue = Dialogue::new();
    let mut unretired = Vec::new();
    let mut cmd_sn = 1;
    while dialogue.session.window().admits(CmdSn(cmd_sn)) {
        let task = dialogue.deliver(plain(cmd_sn, cmd_sn));
        dialogue.respond(task, GOOD);
        unretired.push(task);
        cmd_sn += 1;
    }
    assert_eq!(unretired.len(), 8, "twice the window, and not one more");
    for task in unretired {
        dialogue.session.retire(task);
    }
    let mut header = [0; BHS_BYTES];
    assert!(dialogue.session.window_update(Seat::LEADING, &mut header), "nothing else would bring the news");
    let nop = nop_in(TargetPdu::parse(&header).unwrap());
    assert_eq!((nop.expected_cmd_sn, nop.maximum_cmd_sn), (CmdSn(9), CmdSn(12)));
    assert!(nop.initiator_task_tag.is_reserved() && nop.target_transfer_tag.is_reserved());
    assert!(!dialogue.session.window_update(Seat::LEADING, &mut header), "once is enough");
}

#[test]
fn a_held_window_does_not_move_and_a_released_one_does() {
    let mut dialogue = Dialogue::new();
    let tasks: Vec<_> = (1..=4).map(|n| dialogue.deliver(plain(n, n))).collect();
    dialogue.session.hold_window(true);
    assert_eq!(dialogue.respond(tasks[0], GOOD).maximum_cmd_sn, CmdSn(4));
    assert_eq!(dialogue.respond(tasks[1], GOOD).maximum_cmd_sn, CmdSn(4));
    let mut header = [0; BHS_BYTES];
    assert!(!dialogue.session.window_update(Seat::LEADING, &mut header));
    dialogue.session.hold_window(false);
    assert!(dialogue.session.window_update(Seat::LEADING, &mut header));
    assert_eq!(bounds(&dialogue), (5, 6));
}

#[test]
fn a_held_window_leaves_one_place_to_a_session_that_has_nothing_in_work() {
    let mut dialogue = Dialogue::new();
    dialogue.session.hold_window(true);
    let tasks: Vec<_> = (1..=4).map(|n| dialogue.deliver(plain(n, n))).collect();
    for &task in &tasks[..3] {
        assert_eq!(dialogue.respond(task, GOOD).maximum_cmd_sn, CmdSn(4));
    }
    assert_eq!(
        dialogue.respond(tasks[3], GOOD).maximum_cmd_sn,
        CmdSn(5),
        "or it would never hear of the release"
    );
    let last = dialogue.deliver(plain(5, 5));
    assert_eq!(dialogue.respond(last, GOOD).maximum_cmd_sn, CmdSn(6), "one at a time");
}

#[test]
fn a_smaller_window_takes_effect_as_commands_end_and_takes_nothing_back() {
    let mut dialogue = Dialogue::new();
    let tasks: Vec<_> = (1..=3).map(|n| dialogue.deliver(plain(n, n))).collect();
    dialogue.session.set_window(1);
    assert_eq!(dialogue.respond(tasks[0], GOOD).maximum_cmd_sn, CmdSn(4), "4 was granted");
    assert_eq!(dialogue.respond(tasks[1], GOOD).maximum_cmd_sn, CmdSn(4));
    assert_eq!(dialogue.respond(tasks[2], GOOD).maximum_cmd_sn, CmdSn(4));
    let last = dialogue.deliver(plain(4, 4));
    assert_eq!(dialogue.respond(last, GOOD).maximum_cmd_sn, CmdSn(5));
}

#[test]
fn places_that_nobody_has_passed_yet_are_not_granted_again() {
    let mut dialogue = Dialogue::new();
    for n in 1..=4 {
        let task = dialogue.request(plain(n, n));
        dialogue.session.abort(task);
        dialogue.session.retire(task);
    }
    let mut header = [0; BHS_BYTES];
    assert!(!dialogue.session.window_update(Seat::LEADING, &mut header));
    assert_eq!(bounds(&dialogue), (5, 4), "the four are still in the order of delivery");
    assert_eq!(dialogue.session.next_request(), None);
    assert!(dialogue.session.window_update(Seat::LEADING, &mut header));
    assert_eq!(bounds(&dialogue), (5, 8));
    dialogue.deliver(plain(5, 5));
}

#[test]
fn the_window_goes_on_across_the_wrap() {
    let mut dialogue = Dialogue::with(Start { cmd_sn: CmdSn(u32::MAX - 1), ..start() });
    for cmd_sn in [u32::MAX - 1, u32::MAX, 0, 1, 2, 3, 4] {
        let task = dialogue.deliver(plain(cmd_sn & 0xff, cmd_sn));
        let response = dialogue.respond(task, GOOD);
        assert_eq!(response.maximum_cmd_sn, CmdSn(cmd_sn).advanced_by(4));
        dialogue.session.retire(task);
    }
}

#[test]
fn a_command_whose_immediate_data_is_still_coming_is_not_delivered() {
    let mut dialogue = Dialogue::new();
    let Ok(Received::Request { task, segment }) = dialogue.send(write(1, 1, 4096, 4096, true)) else {
        panic!()
    };
    assert_eq!(segment, Segment { offset_bytes: 0, keep_bytes: 4096, discard_bytes: 0 });
    assert_eq!(dialogue.session.next_request(), None);
    dialogue.session.data_arrived(Seat::LEADING, task);
    assert_eq!(dialogue.session.next_request(), Some(task));
}

#[test]
fn an_immediate_request_whose_data_is_still_coming_is_not_delivered() {
    let mut dialogue = Dialogue::new();
    let urgent = NopOut { immediate: true, ..ping(5, 1, 64) };
    let Ok(Received::Request { task, .. }) = dialogue.send(InitiatorPdu::NopOut(urgent)) else { panic!() };
    assert_eq!(dialogue.session.next_request(), None);
    dialogue.session.data_arrived(Seat::LEADING, task);
    assert_eq!(dialogue.session.next_request(), Some(task));
}

#[test]
fn a_task_tag_in_use_is_rejected_and_its_number_is_used_up() {
    let mut dialogue = Dialogue::new();
    let first = dialogue.deliver(plain(9, 1));
    let again = plain(9, 2);
    assert_eq!(
        dialogue.send(again),
        Err(Violation::Session(SessionViolation::TaskTagInUse(InitiatorTaskTag(9))))
    );
    let mut rejected = [0; BHS_BYTES];
    again.emit(&mut rejected);
    let TargetPdu::Reject(reject) = dialogue.emitted(|session, header| {
        session.reject(Seat::LEADING, RejectReason::InvalidPduField, &rejected, header)
    }) else {
        panic!()
    };
    assert_eq!((reject.reason, reject.data_segment_length), (RejectReason::InvalidPduField, 48));
    assert_eq!((reject.stat_sn, reject.expected_cmd_sn), (StatSn(50), CmdSn(3)));
    dialogue.deliver(plain(10, 3));
    assert_eq!(dialogue.respond(first, GOOD).stat_sn, StatSn(51), "a Reject uses a StatSN up");
}

#[test]
fn a_rejected_immediate_request_uses_no_number_up() {
    let mut dialogue = Dialogue::new();
    let mut rejected = [0; BHS_BYTES];
    immediate(9, 1).emit(&mut rejected);
    dialogue.emitted(|session, header| {
        session.reject(Seat::LEADING, RejectReason::ImmediateCommandReject, &rejected, header)
    });
    assert_eq!(bounds(&dialogue), (1, 4));
}

#[test]
fn requests_of_all_kinds_keep_the_order_of_cmd_sn() {
    let mut dialogue = Dialogue::new();
    let logout = dialogue.request(InitiatorPdu::Logout(logout(4, 4, LogoutReason::CloseSession)));
    let management = TaskManagementRequest {
        immediate: false,
        ..management(TaskManagementFunction::LogicalUnitReset, 2, 2)
    };
    let reset = dialogue.request(InitiatorPdu::TaskManagement(management));
    let ping = dialogue.request(InitiatorPdu::NopOut(ping(3, 3, 8)));
    let command = dialogue.request(plain(1, 1));
    for task in [command, reset, ping, logout] {
        assert_eq!(dialogue.session.next_request(), Some(task));
    }
}

#[test]
fn a_reset_waits_for_the_commands_that_were_sent_before_it() {
    let mut dialogue = Dialogue::new();
    let reset = dialogue.request(InitiatorPdu::TaskManagement(management(
        TaskManagementFunction::LogicalUnitReset,
        9,
        3,
    )));
    let second = dialogue.request(plain(2, 2));
    assert_eq!(dialogue.session.next_request(), None, "command 1 is missing");
    let urgent = dialogue.deliver(immediate(8, 3));
    let first = dialogue.request(plain(1, 1));
    for task in [first, second, reset] {
        assert_eq!(dialogue.session.next_request(), Some(task));
    }
    assert!(dialogue.session.is_live(urgent));
    dialogue.emitted(|session, header| {
        session.task_management_response(reset, TaskManagementResult::Complete, [0; 3], header);
    });
}

#[test]
fn a_reset_with_an_impossible_number_does_not_wait_for_ever() {
    for cmd_sn in [0, 100, u32::MAX] {
        let mut dialogue = Dialogue::new();
        let reset = management(TaskManagementFunction::TargetWarmReset, 9, cmd_sn);
        dialogue.deliver(InitiatorPdu::TaskManagement(reset));
    }
}

proptest! {
    /// However the requests of a window are shuffled, and whenever they are answered and retired, they are delivered in
    /// their order, and MaxCmdSN never falls and never promises more than there is room for.
    #[test]
    fn order_and_room_hold_for_any_interleaving(steps: Vec<(u8, u8)>, first: u32, width in 1_u16..9) {
        let mut dialogue = Dialogue::with(Start { cmd_sn: CmdSn(first), queued_commands: width, ..start() });
        let (mut delivered, mut answered) = (Vec::new(), Vec::new());
        let (mut next, mut maximum) = (CmdSn(first), dialogue.session.window().maximum());
        for (step, choice) in steps {
            match step % 4 {
                0 => {
                    let cmd_sn = dialogue.session.window().expected().advanced_by(u32::from(choice % 12));
                    let admitted = dialogue.send(plain(cmd_sn.0 & 0x7fff_ffff, cmd_sn.0));
                    if let Ok(Received::Request { task, .. }) = admitted {
                        dialogue.session.data_arrived(Seat::LEADING, task);
                    }
                }
                1 => while let Some(task) = dialogue.session.next_request() {
                    prop_assert_eq!(dialogue.session.command(task).cmd_sn, next);
                    next = next.next();
                    delivered.push(task);
                    prop_assert!(delivered.len() <= usize::from(width));
                },
                2 if !delivered.is_empty() => {
                    let task = delivered.swap_remove(usize::from(choice) % delivered.len());
                    let response = dialogue.respond(task, GOOD);
                    prop_assert!(!response.maximum_cmd_sn.precedes(maximum));
                    maximum = response.maximum_cmd_sn;
                    answered.push(task);
                }
                3 if !answered.is_empty() => {
                    let task = answered.swap_remove(usize::from(choice) % answered.len());
                    dialogue.session.retire(task);
                }
                _ => {}
            }
        }
    }
}
