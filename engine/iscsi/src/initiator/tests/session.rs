//! The command window, numbering, and the tasks that move no data.

use super::*;
use crate::wire::{
    AsyncEvent, AsyncMessage, InitiatorTaskTag, LogoutReason, LogoutResponse, LogoutResult, NopIn, Reject,
    RejectReason, TargetTransferTag, TaskManagementFunction, TaskManagementResponse, TaskManagementResult,
    TextResponse,
};

impl Dialogue {
    fn nop_in(&mut self, itt: InitiatorTaskTag, ttt: TargetTransferTag, length: u32) -> NopIn {
        let stat_sn = if itt.is_reserved() { self.stat_sn } else { self.next_stat_sn() };
        NopIn {
            data_segment_length: length,
            lun: LUN,
            initiator_task_tag: itt,
            target_transfer_tag: ttt,
            stat_sn,
            expected_cmd_sn: self.expected_cmd_sn,
            maximum_cmd_sn: self.maximum_cmd_sn,
        }
    }

    /// News of the command window and of nothing else.
    fn opens_window(&mut self, expected: u32, maximum: u32) -> Result<Heard, TargetFault> {
        (self.expected_cmd_sn, self.maximum_cmd_sn) = (CmdSn(expected), CmdSn(maximum));
        let nop = self.nop_in(InitiatorTaskTag::RESERVED, TargetTransferTag::RESERVED, 0);
        self.hears(TargetPdu::NopIn(nop))
    }

    fn text_response(&mut self, tag: Tag, is_final: bool, continues: bool, length: usize) -> TextResponse {
        TextResponse {
            is_final,
            continues,
            data_segment_length: u32::try_from(length).unwrap(),
            lun: LunField::default(),
            initiator_task_tag: tag.initiator_task_tag(),
            target_transfer_tag: if is_final { TargetTransferTag::RESERVED } else { TargetTransferTag(55) },
            stat_sn: self.next_stat_sn(),
            expected_cmd_sn: self.expected_cmd_sn,
            maximum_cmd_sn: self.maximum_cmd_sn,
        }
    }
}

/// Commands of both connections of a session are numbered in one row, and no two tasks of it have one tag.
#[test]
fn connections_of_a_session_share_its_numbers_and_its_window() {
    let mut first = Dialogue::begin(|_| {});
    let joined = Established {
        parameters: Parameters { data_digest: true, initial_r2t: true, ..Parameters::default() },
        cid: Cid(1),
        ..established(Parameters::default())
    };
    let mut second = first.session.join(&joined, 4);
    assert!(second.digests().data && !first.session.digests().data, "a connection's own");
    assert_eq!(second.parameters().initial_r2t, first.session.parameters().initial_r2t, "the session's");

    let command = |session: &mut Session| {
        let command = Command {
            lun: LUN,
            cdb: &READ_CDB,
            direction: Direction::Read,
            expected_length: 512,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user: 0,
        };
        let tag = session.submit(&command)?;
        let cmd_sn = session.scsi_task(tag).expect("it was just submitted").cmd_sn;
        Some((tag.initiator_task_tag(), cmd_sn.0))
    };
    let all = [0, 1, 1, 0].map(|which| {
        let session = if which == 0 { &mut first.session } else { &mut second };
        command(session).expect("the window is open")
    });
    assert_eq!(all.map(|(_, cmd_sn)| cmd_sn), [10, 11, 12, 13]);
    assert!((0..4).all(|one| (0..one).all(|other| all[one].0 != all[other].0)), "{all:?}");
    assert_eq!(command(&mut second), None, "the window is closed to both");
    first.opens_window(14, 14).unwrap();
    assert!(command(&mut second).is_some(), "and open to both");
}

#[test]
fn commands_wait_for_the_window_to_open() {
    let mut dialogue = Dialogue::begin(|_| {});
    for number in 10..=13 {
        dialogue.submit(&READ_CDB, Direction::Read, 512, number);
    }
    assert_eq!(dialogue.try_submit(&READ_CDB, Direction::Read, 512, 14), None);
    let numbers: Vec<_> = (0..4).map(|_| command_of(dialogue.sends()).cmd_sn.0).collect();
    assert_eq!(numbers, [10, 11, 12, 13]);
    assert_eq!(dialogue.opens_window(14, 13), Ok(Heard::Nothing));
    assert_eq!(dialogue.try_submit(&READ_CDB, Direction::Read, 512, 14), None);
    assert_eq!(dialogue.opens_window(14, 14), Ok(Heard::Nothing));
    assert!(dialogue.try_submit(&READ_CDB, Direction::Read, 512, 14).is_some());
}

#[test]
fn an_immediate_command_goes_past_a_closed_window_and_uses_no_number_up() {
    let mut dialogue = Dialogue::begin(|_| {});
    dialogue.opens_window(10, 13).unwrap();
    for number in 10..=13 {
        dialogue.submit(&READ_CDB, Direction::Read, 512, number);
    }
    let urgent = Command {
        lun: LUN,
        cdb: &[0; 6],
        direction: Direction::None,
        expected_length: 0,
        attribute: TaskAttribute::HeadOfQueue,
        immediate: true,
        user: 99,
    };
    let tag = dialogue.session.submit(&urgent).unwrap();
    assert_eq!(dialogue.session.next_cmd_sn(), CmdSn(14));
    let last = std::iter::from_fn(|| dialogue.sends()).last();
    let command = command_of(last);
    assert!(command.immediate);
    assert_eq!((command.cmd_sn, command.initiator_task_tag), (CmdSn(14), tag.initiator_task_tag()));
}

#[test]
fn an_older_window_is_passed_over_and_an_inverted_one_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    assert_eq!(dialogue.opens_window(9, 12), Ok(Heard::Nothing));
    assert_eq!(dialogue.session.window(), CommandWindow::new(CmdSn(10), CmdSn(13)).unwrap());
    assert_eq!(
        dialogue.opens_window(10, 8),
        Err(TargetFault::CommandWindowInverted { expected: CmdSn(10), maximum: CmdSn(8) })
    );
}

#[test]
fn a_command_that_was_never_sent_cannot_be_acknowledged() {
    let mut dialogue = Dialogue::begin(|_| {});
    assert_eq!(
        dialogue.opens_window(11, 20),
        Err(TargetFault::AcknowledgedUnsent { expected: CmdSn(11), next: CmdSn(10) })
    );
}

#[test]
fn an_answer_acknowledges_its_command() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::None, 0, 7);
    dialogue.sends();
    dialogue.expected_cmd_sn = CmdSn(10);
    let response = dialogue.response(tag, 0, 0);
    assert_eq!(
        dialogue.hears(TargetPdu::ScsiResponse(response)),
        Err(TargetFault::AnsweredUnacknowledged { expected: CmdSn(10), cmd_sn: CmdSn(10) })
    );
}

#[test]
fn a_stat_sn_that_skips_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::None, 0, 7);
    dialogue.sends();
    dialogue.next_stat_sn();
    let response = dialogue.response(tag, 0, 0);
    assert_eq!(
        dialogue.hears(TargetPdu::ScsiResponse(response)),
        Err(TargetFault::StatSnWrong { opcode: 0x21, expected: StatSn(100), received: StatSn(101) })
    );
}

#[test]
fn what_has_come_is_acknowledged_by_what_leaves() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::None, 0, 7);
    assert_eq!(command_of(dialogue.sends()).expected_stat_sn, StatSn(100));
    let response = dialogue.response(tag, 0, 0);
    dialogue.hears(TargetPdu::ScsiResponse(response)).unwrap();
    dialogue.submit(&READ_CDB, Direction::None, 0, 7);
    assert_eq!(command_of(dialogue.sends()).expected_stat_sn, StatSn(101));
}

#[test]
fn a_cdb_of_32_bytes_goes_on_in_an_ahs() {
    let mut dialogue = Dialogue::begin(|_| {});
    let cdb: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    dialogue.submit(&cdb, Direction::None, 0, 7);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.ahs[..4], [0, 17, 1, 0]);
    assert_eq!(sent.ahs[4..], cdb[16..]);
    assert_eq!(command_of(Some(sent)).total_ahs_words, 5);
}

#[test]
fn a_ping_comes_back_with_its_data() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.session.ping(5).unwrap();
    let sent = dialogue.sends().unwrap();
    assert!(
        matches!(sent.pdu, InitiatorPdu::NopOut(nop) if nop.immediate && nop.target_transfer_tag.is_reserved())
    );
    assert_eq!(sent.bytes, [0; 5]);
    let pong = dialogue.nop_in(tag.initiator_task_tag(), TargetTransferTag::RESERVED, 5);
    let heard = dialogue.hears_with(TargetPdu::NopIn(pong), &[0; 5]);
    assert_eq!(heard, Ok(Heard::Other(format!("{:?}", Event::Pong(tag)))));

    let tag = dialogue.session.ping(5).unwrap();
    dialogue.sends();
    let pong = dialogue.nop_in(tag.initiator_task_tag(), TargetTransferTag::RESERVED, 4);
    assert_eq!(
        dialogue.hears_with(TargetPdu::NopIn(pong), &[0; 4]),
        Err(TargetFault::PingDataLength { expected: 5, received: 4 })
    );
}

#[test]
fn a_ping_of_the_target_is_answered_with_its_tag_and_lun() {
    let mut dialogue = Dialogue::begin(|_| {});
    let ping = dialogue.nop_in(InitiatorTaskTag::RESERVED, TargetTransferTag(77), 0);
    assert_eq!(dialogue.hears(TargetPdu::NopIn(ping)), Ok(Heard::Nothing));
    let Some(Sent { pdu: InitiatorPdu::NopOut(pong), .. }) = dialogue.sends() else { panic!("no NOP-Out") };
    assert_eq!((pong.target_transfer_tag, pong.lun, pong.immediate), (TargetTransferTag(77), LUN, true));
    assert!(pong.initiator_task_tag.is_reserved());
}

#[test]
fn a_target_that_only_pings_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let ping = dialogue.nop_in(InitiatorTaskTag::RESERVED, TargetTransferTag(77), 0);
    for _ in 0..super::super::session::PINGS_PENDING_MAX {
        dialogue.hears(TargetPdu::NopIn(ping)).unwrap();
    }
    assert_eq!(dialogue.hears(TargetPdu::NopIn(ping)), Err(TargetFault::TooManyPings));
}

#[test]
fn an_aborted_task_is_abandoned_and_may_not_answer_any_more() {
    let mut dialogue = Dialogue::begin(|_| {});
    let read = dialogue.submit(&READ_CDB, Direction::Read, 512, 7);
    dialogue.sends();
    let abort = dialogue.session.manage_task(TaskManagementFunction::AbortTask, LUN, Some(read)).unwrap();
    let Some(Sent { pdu: InitiatorPdu::TaskManagement(request), .. }) = dialogue.sends() else {
        panic!("no TMF")
    };
    assert_eq!(
        (request.referenced_task_tag, request.referenced_cmd_sn, request.cmd_sn, request.immediate),
        (read.initiator_task_tag(), CmdSn(10), CmdSn(11), true)
    );
    let done = TaskManagementResponse {
        result: TaskManagementResult::Complete,
        additional_information: [0; 3],
        initiator_task_tag: abort.initiator_task_tag(),
        stat_sn: dialogue.next_stat_sn(),
        expected_cmd_sn: dialogue.expected_cmd_sn,
        maximum_cmd_sn: dialogue.maximum_cmd_sn,
    };
    let event = Event::TaskManaged { tag: abort, result: TaskManagementResult::Complete, additional: [0; 3] };
    assert_eq!(dialogue.hears(TargetPdu::TaskManagement(done)), Ok(Heard::Other(format!("{event:?}"))));
    assert_eq!(dialogue.session.outstanding().collect::<Vec<_>>(), [(read, 7)]);
    assert_eq!(dialogue.session.abandon(read), Some(7));
    assert_eq!(dialogue.session.abandon(read), None);
    let late = dialogue.response(read, 0, 0);
    let tag = read.initiator_task_tag();
    assert_eq!(
        dialogue.hears(TargetPdu::ScsiResponse(late)),
        Err(TargetFault::UnknownTask { opcode: 0x21, tag })
    );
}

#[test]
fn a_text_in_three_responses_is_joined() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.session.exchange_text(&[("SendTargets", "All")]).unwrap();
    assert_eq!(dialogue.session.exchange_text(&[]), None);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.bytes, b"SendTargets=All\0");
    for (text, is_final, continues) in [
        (&b"TargetName=iqn.20"[..], false, true),
        (b"26-11.io.portico:a\0", false, false),
        (b"", true, false),
    ] {
        let response = dialogue.text_response(tag, is_final, continues, text.len());
        let heard = dialogue.hears_with(TargetPdu::Text(response), text).unwrap();
        if is_final {
            assert_eq!(heard, Heard::Other(format!("{:?}", Event::Text(tag))));
            break;
        }
        let Some(Sent { pdu: InitiatorPdu::Text(request), .. }) = dialogue.sends() else { panic!("no Text") };
        assert_eq!(request.target_transfer_tag, TargetTransferTag(55));
        assert_eq!((request.is_final, request.data_segment_length), (true, 0));
    }
    let said: Vec<_> = dialogue.session.text().map(Result::unwrap).collect();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].key, said[0].value), ("TargetName", &b"iqn.2026-11.io.portico:a"[..]));
}

#[test]
fn a_final_text_response_with_a_transfer_tag_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.session.exchange_text(&[]).unwrap();
    dialogue.sends();
    let target_transfer_tag = TargetTransferTag(55);
    let response = TextResponse { target_transfer_tag, ..dialogue.text_response(tag, true, false, 0) };
    assert_eq!(
        dialogue.hears(TargetPdu::Text(response)),
        Err(TargetFault::TransferTagWrong { opcode: 0x24 })
    );
}

#[test]
fn after_a_logout_nothing_is_submitted() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.session.log_out(LogoutReason::CloseSession).unwrap();
    assert_eq!(dialogue.try_submit(&READ_CDB, Direction::Read, 512, 7), None);
    assert_eq!(dialogue.session.ping(0), None);
    assert!(matches!(dialogue.sends().unwrap().pdu, InitiatorPdu::Logout(logout) if logout.immediate));
    let response = LogoutResponse {
        result: LogoutResult::Closed,
        initiator_task_tag: tag.initiator_task_tag(),
        stat_sn: dialogue.next_stat_sn(),
        expected_cmd_sn: dialogue.expected_cmd_sn,
        maximum_cmd_sn: dialogue.maximum_cmd_sn,
        time_2_wait_s: 2,
        time_2_retain_s: 0,
    };
    let event = Event::LoggedOut { tag, response };
    assert_eq!(dialogue.hears(TargetPdu::Logout(response)), Ok(Heard::Other(format!("{event:?}"))));
}

#[test]
fn a_rejected_command_is_over_and_a_rejected_data_out_is_not() {
    let mut dialogue = Dialogue::begin(|parameters| parameters.immediate_data = false);
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 512, 7);
    let headers: Vec<Bhs> = std::iter::from_fn(|| dialogue.sends())
        .map(|sent| {
            let mut bhs = [0; BHS_BYTES];
            sent.pdu.emit(&mut bhs);
            bhs
        })
        .collect();
    let [command, data_out] = headers[..] else { panic!("a command and its data") };
    for (header, task) in [(data_out, None), (command, Some((tag, Some(7))))] {
        let reason = RejectReason::InvalidPduField;
        let reject = Reject {
            reason,
            data_segment_length: 48,
            stat_sn: dialogue.next_stat_sn(),
            expected_cmd_sn: dialogue.expected_cmd_sn,
            maximum_cmd_sn: dialogue.maximum_cmd_sn,
            data_sn_or_r2t_sn: 0,
        };
        let event = Event::Rejected { reason, header, task };
        let heard = dialogue.hears_with(TargetPdu::Reject(reject), &header);
        assert_eq!(heard, Ok(Heard::Other(format!("{event:?}"))));
    }
    assert_eq!(dialogue.session.outstanding_count(), 0);
}

#[test]
fn an_asynchronous_message_is_passed_on() {
    let mut dialogue = Dialogue::begin(|_| {});
    let message = AsyncMessage {
        event: AsyncEvent::LogoutRequested,
        vendor_code: 0,
        parameter_1: 0,
        parameter_2: 0,
        parameter_3: 10,
        data_segment_length: 0,
        lun: LunField::default(),
        stat_sn: dialogue.next_stat_sn(),
        expected_cmd_sn: dialogue.expected_cmd_sn,
        maximum_cmd_sn: dialogue.maximum_cmd_sn,
    };
    let event = Event::Async { message, data: &[] };
    assert_eq!(dialogue.hears(TargetPdu::Async(message)), Ok(Heard::Other(format!("{event:?}"))));
}

#[test]
fn slots_come_back_with_new_tags() {
    let mut dialogue = Dialogue::begin(|_| {});
    let mut tags = Vec::new();
    for _ in 0..20 {
        let tag = dialogue.submit(&READ_CDB, Direction::None, 0, 7);
        assert!(!tags.contains(&tag), "{tag:?} again");
        tags.push(tag);
        dialogue.sends();
        let response = dialogue.response(tag, 0, 0);
        dialogue.hears(TargetPdu::ScsiResponse(response)).unwrap();
    }
}
