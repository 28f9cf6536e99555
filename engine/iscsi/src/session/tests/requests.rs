//! Pings, text, logout, task management, and what a session has no use for.

use super::*;
use crate::violation::Answer;
use crate::wire::{AsyncEvent, LogoutResult, RejectReason, Snack, SnackType, TaskManagementResult};

#[test]
fn a_ping_comes_back_with_its_data_as_far_as_the_initiator_takes_it() {
    let mut dialogue = Dialogue::new();
    let pdu = InitiatorPdu::NopOut(ping(5, 1, 6000));
    let Ok(Received::Request { task, segment }) = dialogue.send(pdu) else { panic!() };
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (4096, 1904));
    dialogue.session.data_arrived(Seat::LEADING, task);
    assert_eq!(dialogue.session.next_request(), Some(task));
    let nop = nop_in(dialogue.emitted(|session, header| session.nop_in(task, segment.keep_bytes, header)));
    assert_eq!((nop.initiator_task_tag, nop.data_segment_length), (InitiatorTaskTag(5), 4096));
    assert!(nop.target_transfer_tag.is_reserved());
    assert_eq!((nop.stat_sn, nop.expected_cmd_sn, nop.maximum_cmd_sn), (StatSn(50), CmdSn(2), CmdSn(5)));
}

#[test]
fn a_nop_out_that_wants_no_answer_gets_none() {
    let mut dialogue = Dialogue::new();
    let pdu = NopOut {
        immediate: true,
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        data_segment_length: 12,
        ..ping(0, 1, 0)
    };
    assert_eq!(dialogue.absorbed(InitiatorPdu::NopOut(pdu)), 12);
    assert_eq!(dialogue.session.next_request(), None);
}

#[test]
fn a_text_request_keeps_its_place_and_is_answered_with_a_part() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(InitiatorPdu::Text(text(5, 1, 16)));
    let part = TextPart {
        is_final: false,
        continues: true,
        target_transfer_tag: TargetTransferTag(77),
        length_bytes: 512,
    };
    let pdu = dialogue.emitted(|session, header| session.text_response(task, part, header));
    let TargetPdu::Text(response) = pdu else { panic!("{pdu:?}") };
    assert_eq!((response.is_final, response.continues, response.data_segment_length), (false, true, 512));
    assert_eq!((response.initiator_task_tag, response.target_transfer_tag.0), (InitiatorTaskTag(5), 77));
    dialogue.deliver(InitiatorPdu::Text(text(5, 2, 0)));
}

#[test]
fn a_text_request_that_is_wrong_is_rejected_with_its_header() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(InitiatorPdu::Text(text(5, 1, 16)));
    let mut header = [0; BHS_BYTES];
    let rejected = dialogue.session.reject_text(task, &Violation::TextWithoutEquals, &mut header).unwrap();
    let TargetPdu::Reject(reject) = TargetPdu::parse(&header).unwrap() else { panic!() };
    assert_eq!((reject.reason, reject.expected_cmd_sn), (RejectReason::ProtocolError, CmdSn(2)));
    assert_eq!(InitiatorPdu::parse(&rejected), Ok(InitiatorPdu::Text(text(5, 1, 16))));
    assert_eq!(dialogue.session.task_by_itt(InitiatorTaskTag(5)), None);
}

#[test]
fn a_logout_is_answered_by_its_reason() {
    for (reason, cid, result) in [
        (LogoutReason::CloseSession, 7, LogoutResult::Closed),
        (LogoutReason::CloseConnection, 0, LogoutResult::Closed),
        (LogoutReason::CloseConnection, 7, LogoutResult::CidNotFound),
        (LogoutReason::RemoveConnectionForRecovery, 0, LogoutResult::RecoveryNotSupported),
        (LogoutReason::RemoveConnectionForRecovery, 7, LogoutResult::CidNotFound),
    ] {
        let mut dialogue = Dialogue::new();
        let request = LogoutRequest { cid: Cid(cid), ..logout(5, 1, reason) };
        let task = dialogue.deliver(InitiatorPdu::Logout(request));
        assert_eq!(dialogue.session.logout(&request).err().unwrap_or(LogoutResult::Closed), result);
        let pdu = dialogue.emitted(|session, header| session.logout_response(task, result, header));
        let TargetPdu::Logout(response) = pdu else { panic!("{pdu:?}") };
        assert_eq!((response.result, response.time_2_wait_s, response.time_2_retain_s), (result, 2, 0));
        assert_eq!(response.stat_sn, StatSn(50));
    }
}

#[test]
fn abort_task_finds_the_command_by_its_tag() {
    let mut dialogue = Dialogue::new();
    let victim = dialogue.deliver(read(1, 1, 512));
    let request = abort(9, 2, (1, 1));
    let task = dialogue.deliver(InitiatorPdu::TaskManagement(request));
    assert_eq!(dialogue.session.referenced(&request), Referenced::Task(victim));
    dialogue.session.abort(victim);
    let pdu = dialogue.emitted(|session, header| {
        session.task_management_response(task, TaskManagementResult::Complete, [0; 3], header);
    });
    let TargetPdu::TaskManagement(response) = pdu else { panic!("{pdu:?}") };
    assert_eq!(
        (response.result, response.initiator_task_tag),
        (TaskManagementResult::Complete, InitiatorTaskTag(9))
    );
    assert_eq!((response.stat_sn, response.maximum_cmd_sn), (StatSn(50), CmdSn(5)));
}

#[test]
fn abort_task_of_a_command_that_has_been_answered_finds_nothing() {
    // libiscsi's AbortTaskSimpleAsync takes either: answered and "does not exist", or no answer and "complete".
    let mut dialogue = Dialogue::new();
    let done = dialogue.deliver(plain(1, 1));
    dialogue.respond(done, GOOD);
    assert_eq!(dialogue.session.referenced(&abort(9, 2, (1, 1))), Referenced::Nothing);
}

#[test]
fn abort_task_of_a_command_that_never_came_counts_it_as_received() {
    let mut dialogue = Dialogue::new();
    let second = dialogue.request(plain(2, 2));
    assert_eq!(dialogue.session.next_request(), None);
    assert_eq!(dialogue.session.referenced(&abort(9, 3, (1, 1))), Referenced::NeverArrived);
    assert_eq!(dialogue.session.next_request(), Some(second), "the gap is closed");
    dialogue.absorbed(plain(1, 1));
}

#[test]
fn abort_task_of_a_command_outside_of_the_window_finds_nothing() {
    let mut dialogue = Dialogue::new();
    for (cmd_sn, referenced) in [(3, 3), (3, 4), (3, 0), (3, 100)] {
        assert_eq!(dialogue.session.referenced(&abort(9, cmd_sn, (1, referenced))), Referenced::Nothing);
    }
    assert_eq!(dialogue.session.window().expected(), CmdSn(1), "nothing was taken out");
}

#[test]
fn abort_task_on_another_logical_unit_finds_nothing() {
    let mut dialogue = Dialogue::new();
    dialogue.deliver(plain(1, 1));
    let elsewhere = TaskManagementRequest { lun: LunField([0; 8]), ..abort(9, 2, (1, 1)) };
    assert_eq!(dialogue.session.referenced(&elsewhere), Referenced::Nothing);
}

#[test]
fn a_command_may_be_aborted_before_it_is_delivered() {
    let mut dialogue = Dialogue::new();
    let waiting = dialogue.request(plain(2, 2));
    dialogue.session.abort(waiting);
    dialogue.session.retire(waiting);
    let first = dialogue.deliver(plain(1, 1));
    assert_eq!(dialogue.session.next_request(), None);
    assert_eq!(dialogue.session.window().expected(), CmdSn(3));
    assert_eq!(dialogue.respond(first, GOOD).maximum_cmd_sn, CmdSn(6));
    dialogue.deliver(plain(3, 3));
}

#[test]
fn an_immediate_request_may_be_aborted_before_it_is_delivered() {
    let mut dialogue = Dialogue::new();
    let waiting = dialogue.request(immediate(2, 1));
    dialogue.session.abort(waiting);
    dialogue.session.retire(waiting);
    assert_eq!(dialogue.session.next_request(), None);
}

#[test]
fn the_live_commands_are_what_a_reset_is_about() {
    let mut dialogue = Dialogue::new();
    let delivered = dialogue.deliver(plain(1, 1));
    let answered = dialogue.deliver(plain(2, 2));
    let waiting = dialogue.request(plain(4, 4));
    dialogue.request(InitiatorPdu::TaskManagement(management(
        TaskManagementFunction::LogicalUnitReset,
        9,
        3,
    )));
    dialogue.respond(answered, GOOD);
    let mut live: Vec<_> = dialogue.session.live_commands().map(|(task, _)| task).collect();
    live.sort_by_key(|task| task.slot());
    assert_eq!(live, [delivered, waiting]);
}

/// §11.16, above recovery level 0.
#[test]
fn a_snack_is_for_the_caller_to_serve_or_to_refuse() {
    let snack = Snack {
        kind: SnackType::DataOrR2t,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(7),
        transfer_or_snack_tag: u32::MAX,
        expected_stat_sn: StatSn(50),
        run_begin: 3,
        run_length: 1,
    };
    let parameters = Parameters { error_recovery_level: 1, ..parameters() };
    let mut dialogue = Dialogue::with(Start { parameters, ..start() });
    assert_eq!(dialogue.send(InitiatorPdu::Snack(snack)), Ok(Received::Snack(snack)));
    let refused = |violation| Violation::Session(violation).answer();
    assert_eq!(refused(SessionViolation::SnackNotServed), Answer::Reject(RejectReason::SnackReject));
    assert_eq!(refused(SessionViolation::SnackOutOfRun), Answer::Reject(RejectReason::ProtocolError));
}

#[test]
fn what_a_session_has_no_use_for_is_rejected() {
    let snack = Snack {
        kind: SnackType::Status,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        transfer_or_snack_tag: u32::MAX,
        expected_stat_sn: StatSn(50),
        run_begin: 0,
        run_length: 0,
    };
    let violation = Dialogue::new().send(InitiatorPdu::Snack(snack)).unwrap_err();
    assert_eq!(violation.answer(), Answer::Reject(RejectReason::SnackReject));

    let login = LoginRequest {
        current_stage: crate::wire::Stage::LoginOperationalNegotiation,
        next_stage: None,
        continues: false,
        version_max: 0,
        version_min: 0,
        data_segment_length: 0,
        isid: Isid([0; 6]),
        tsih: Tsih(1),
        initiator_task_tag: InitiatorTaskTag(1),
        cid: Cid(0),
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(50),
    };
    let violation = Dialogue::new().send(InitiatorPdu::Login(login)).unwrap_err();
    assert_eq!(violation.answer(), Answer::Reject(RejectReason::ProtocolError));
}

#[test]
fn a_discovery_session_takes_text_and_logout_and_no_commands() {
    let mut dialogue = Dialogue::with(Start { session_type: SessionType::Discovery, ..start() });
    let violation = dialogue.send(plain(1, 1)).unwrap_err();
    assert_eq!(violation, Violation::Session(SessionViolation::NotInDiscovery { opcode: 1 }));
    assert_eq!(violation.answer(), Answer::Reject(RejectReason::CommandNotSupported));
    let reset = management(TaskManagementFunction::TargetWarmReset, 1, 1);
    assert!(dialogue.send(InitiatorPdu::TaskManagement(reset)).is_err());
    let ping = |tag| NopOut {
        immediate: true,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: tag,
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(50),
    };
    let violation = dialogue.send(InitiatorPdu::NopOut(ping(InitiatorTaskTag(7)))).unwrap_err();
    assert_eq!(violation, Violation::Session(SessionViolation::NotInDiscovery { opcode: 0 }));
    dialogue.absorbed(InitiatorPdu::NopOut(ping(InitiatorTaskTag::RESERVED)));
    dialogue.deliver(InitiatorPdu::Text(text(2, 1, 16)));
    dialogue.deliver(InitiatorPdu::Logout(logout(3, 2, LogoutReason::CloseSession)));
}

#[test]
fn asynchronous_messages_are_numbered() {
    let mut dialogue = Dialogue::new();
    let pdu = dialogue.emitted(|session, header| session.ask_for_logout(Seat::LEADING, 15, header));
    let TargetPdu::Async(message) = pdu else { panic!("{pdu:?}") };
    assert_eq!((message.event, message.parameter_3), (AsyncEvent::LogoutRequested, 15));
    assert_eq!(
        (message.stat_sn, message.expected_cmd_sn, message.maximum_cmd_sn),
        (StatSn(50), CmdSn(1), CmdSn(4))
    );
    let pdu = dialogue.emitted(|session, header| session.announce_drop(Seat::LEADING, header));
    let TargetPdu::Async(message) = pdu else { panic!("{pdu:?}") };
    assert_eq!((message.event, message.parameter_2), (AsyncEvent::SessionDropped, 2));
    assert_eq!(message.stat_sn, StatSn(51));
    let lun = LunField([0, 3, 0, 0, 0, 0, 0, 0]);
    let pdu = dialogue.emitted(|session, header| session.scsi_event(Seat::LEADING, lun, 20, header));
    let TargetPdu::Async(message) = pdu else { panic!("{pdu:?}") };
    assert_eq!((message.event, message.lun, message.data_segment_length), (AsyncEvent::Scsi, lun, 20));
    assert_eq!(message.stat_sn, StatSn(52));
}

#[test]
#[should_panic(expected = "the task has not been retired")]
fn a_task_that_was_retired_is_nobodys() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(plain(1, 1));
    dialogue.respond(task, GOOD);
    dialogue.session.retire(task);
    let _ = dialogue.session.command(task);
}

#[test]
#[should_panic(expected = "a task ends once")]
fn a_task_is_answered_once() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(plain(1, 1));
    dialogue.respond(task, GOOD);
    dialogue.respond(task, GOOD);
}
