//! PDUs whose data digest was wrong (RFC 7143 §7.3, §7.8): what is discarded, what fails, and how the session goes on.

use super::*;
use crate::violation::Answer;
use crate::wire::{RejectReason, Residual};

/// A header comes in, and then data that do not belong to their digest.
fn spoil(dialogue: &mut Dialogue, pdu: InitiatorPdu) -> (TaskId, Spoilt) {
    match dialogue.send(pdu) {
        Ok(Received::Request { task, .. } | Received::Data { task, .. }) => {
            (task, dialogue.session.data_spoilt(Seat::LEADING, task))
        }
        other => panic!("{pdu:?} should have data: {other:?}"),
    }
}

fn header_of(pdu: InitiatorPdu) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    pdu.emit(&mut bhs);
    bhs
}

#[test]
fn a_wrong_data_digest_earns_a_reject_with_its_reason() {
    assert_eq!(Violation::DataDigestWrong.answer(), Answer::Reject(RejectReason::DataDigestError));
    assert_eq!(Violation::HeaderDigestWrong.answer(), Answer::DropConnection);
}

#[test]
fn a_command_with_spoilt_immediate_data_was_never_sent_and_may_be_sent_again() {
    let mut dialogue = Dialogue::new();
    let pdu = write(1, 1, 4096, 4096, true);
    let (task, spoilt) = spoil(&mut dialogue, pdu);
    assert_eq!(spoilt, Spoilt::Request);
    dialogue.session.retire(task);
    let reject = dialogue.emitted(|session, header| {
        session.reject(Seat::LEADING, RejectReason::DataDigestError, &header_of(pdu), header);
    });
    let TargetPdu::Reject(reject) = reject else { panic!("{reject:?}") };
    assert_eq!((reject.reason, reject.expected_cmd_sn), (RejectReason::DataDigestError, CmdSn(1)));
    assert_eq!(dialogue.session.next_request(), None);

    // What was sent behind it waits for the gap to be plugged.
    let behind = dialogue.request(plain(2, 2));
    assert_eq!(dialogue.session.next_request(), None);
    let again = dialogue.request(pdu);
    assert_eq!(dialogue.session.next_request(), Some(again));
    assert!(dialogue.session.want_data(again, 4096).is_complete);
    assert_eq!(dialogue.session.next_request(), Some(behind));
    assert_eq!(dialogue.respond(again, GOOD).residual, Residual::None);
}

#[test]
fn an_abort_plugs_the_gap_that_a_spoilt_command_leaves() {
    let mut dialogue = Dialogue::new();
    let (task, _) = spoil(&mut dialogue, write(1, 1, 512, 512, true));
    dialogue.session.retire(task);
    let behind = dialogue.request(plain(2, 2));
    let aborting = dialogue.deliver(InitiatorPdu::TaskManagement(abort(9, 3, (1, 1))));
    let Request::TaskManagement(request) = *dialogue.session.request(aborting) else { panic!() };
    assert_eq!(dialogue.session.referenced(&request), Referenced::NeverArrived);
    assert_eq!(dialogue.session.next_request(), Some(behind));
}

#[test]
fn a_number_is_acknowledged_only_when_the_data_behind_it_are_right() {
    let mut dialogue = Dialogue::new();
    let Ok(Received::Request { task, .. }) = dialogue.send(write(1, 1, 512, 512, true)) else { panic!() };
    assert_eq!(dialogue.session.window().expected(), CmdSn(1));
    dialogue.session.data_arrived(Seat::LEADING, task);
    assert_eq!(dialogue.session.window().expected(), CmdSn(2));
}

#[test]
fn a_command_that_is_aborted_while_its_data_come_has_come_and_is_not_delivered() {
    let mut dialogue = Dialogue::new();
    let Ok(Received::Request { task, .. }) = dialogue.send(write(1, 1, 512, 512, true)) else { panic!() };
    dialogue.session.abort(task);
    dialogue.session.retire(task);
    assert_eq!(dialogue.session.data_arrived(Seat::LEADING, task), Progress::default());
    assert_eq!(dialogue.session.window().expected(), CmdSn(2));
    dialogue.deliver(plain(2, 2));
}

#[test]
fn spoilt_requests_of_every_kind_are_forgotten() {
    for pdu in [
        InitiatorPdu::NopOut(ping(5, 1, 100)),
        InitiatorPdu::Text(text(5, 1, 100)),
        InitiatorPdu::NopOut(NopOut { immediate: true, ..ping(5, 1, 100) }),
        InitiatorPdu::Text(TextRequest { immediate: true, ..text(5, 1, 100) }),
    ] {
        let mut dialogue = Dialogue::new();
        let (task, spoilt) = spoil(&mut dialogue, pdu);
        assert_eq!(spoilt, Spoilt::Request);
        dialogue.session.retire(task);
        assert_eq!(dialogue.session.next_request(), None);
        assert_eq!(dialogue.session.task_by_itt(InitiatorTaskTag(5)), None);
        let again = dialogue.request(pdu);
        assert_eq!(dialogue.session.next_request(), Some(again));
    }
}

#[test]
fn a_write_with_spoilt_data_fails_when_all_of_its_data_has_come() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 32_768, 0, true));
    dialogue.session.want_data(task, 32_768);
    let first = dialogue.r2t(task, u32::MAX).unwrap();
    let second = dialogue.r2t(task, u32::MAX).unwrap();
    let (_, spoilt) = spoil(&mut dialogue, InitiatorPdu::DataOut(answer(&first)));
    let Spoilt::Data(progress) = spoilt else { panic!("{spoilt:?}") };
    assert_eq!(progress.fault, Some(TransferFault::DataDigestWrong));
    assert!(!progress.is_settled, "the answer to the second R2T is to come");
    let (segment, progress) = dialogue.data(answer(&second));
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, 16_384));
    assert!(progress.is_settled && !progress.is_complete);
    let condition = TransferFault::DataDigestWrong.condition();
    assert_eq!((condition.additional_sense_code, condition.additional_sense_code_qualifier), (0x47, 0x05));
    assert_eq!(dialogue.respond(task, CHECK_CONDITION).status, 2);
    dialogue.deliver(plain(2, 2));
}

#[test]
fn an_unsolicited_burst_that_is_spoilt_fails_its_write_before_it_is_delivered() {
    let mut dialogue = Dialogue::new();
    let waiting = dialogue.request(write(2, 2, 8192, 0, false));
    let (_, spoilt) = spoil(&mut dialogue, InitiatorPdu::DataOut(burst(2, 0, 0, 8192, true)));
    assert!(matches!(spoilt, Spoilt::Data(Progress { is_settled: true, .. })));
    assert_eq!(dialogue.session.fault(waiting), Some(TransferFault::DataDigestWrong));
    dialogue.deliver(plain(1, 1));
}

#[test]
fn spoilt_data_of_a_task_that_was_aborted_meanwhile_are_nobodys() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 8192, 0, false));
    let Ok(Received::Data { .. }) = dialogue.send(InitiatorPdu::DataOut(burst(1, 0, 0, 8192, true))) else {
        panic!()
    };
    dialogue.session.abort(task);
    dialogue.session.retire(task);
    assert_eq!(dialogue.session.data_spoilt(Seat::LEADING, task), Spoilt::Data(Progress::default()));
    dialogue.deliver(plain(2, 2));
}

/// At recovery level 1.
fn recovering() -> Dialogue {
    Dialogue::with(Start { parameters: Parameters { error_recovery_level: 1, ..parameters() }, ..start() })
}

/// §7.8 a: the data that was good is kept, the rest of the burst is discarded, and a recovery R2T asks for it.
#[test]
fn unsolicited_data_that_is_spoilt_is_asked_for_again_when_the_burst_is_over() {
    let mut dialogue = recovering();
    let task = dialogue.deliver(write(1, 1, 12_288, 0, false));
    dialogue.session.want_data(task, 12_288);
    dialogue.data(burst(1, 0, 0, 2048, false));
    let (_, spoilt) = spoil(&mut dialogue, InitiatorPdu::DataOut(burst(1, 1, 2048, 2048, false)));
    let Spoilt::Data(progress) = spoilt else { panic!("{spoilt:?}") };
    assert_eq!((progress.fault, progress.received_bytes, progress.is_settled), (None, 2048, false));
    assert_eq!(dialogue.r2t(task, u32::MAX), None, "the burst goes on");
    let (segment, progress) = dialogue.data(burst(1, 2, 4096, 4096, true));
    assert_eq!((segment.keep_bytes, progress.received_bytes), (0, 2048));
    let r2t = dialogue.r2t(task, u32::MAX).unwrap();
    assert_eq!((r2t.buffer_offset, r2t.desired_data_transfer_length), (2048, 10_240));
    let (segment, progress) = dialogue.data(answer(&r2t));
    assert_eq!((segment.offset_bytes, segment.keep_bytes), (2048, 10_240));
    assert!(progress.is_complete);
    assert_eq!(dialogue.respond(task, GOOD).residual, Residual::None);
}

#[test]
fn the_answers_to_r2ts_behind_a_spoilt_one_are_asked_for_again_too() {
    let mut dialogue = recovering();
    let task = dialogue.deliver(write(1, 1, 40_960, 8192, true));
    dialogue.session.want_data(task, 40_960);
    let (first, second) = (dialogue.r2t(task, u32::MAX).unwrap(), dialogue.r2t(task, u32::MAX).unwrap());
    spoil(&mut dialogue, InitiatorPdu::DataOut(answer(&first)));
    assert_eq!(dialogue.r2t(task, u32::MAX), None, "an answer is on its way");
    assert_eq!(dialogue.data(answer(&second)).0.keep_bytes, 0);
    let again = [dialogue.r2t(task, u32::MAX).unwrap(), dialogue.r2t(task, u32::MAX).unwrap()];
    for (r2t, before) in again.iter().zip([first, second]) {
        assert_eq!(r2t.buffer_offset, before.buffer_offset);
        assert_ne!(r2t.r2t_sn, before.r2t_sn);
        assert_eq!(dialogue.data(answer(r2t)).1.fault, None);
    }
    assert!(dialogue.session.progress(task).is_complete);
}

/// §7.2.1: the target discards what it has.
#[test]
fn a_command_that_is_sent_twice_is_executed_once_and_its_data_is_taken_once() {
    let mut dialogue = recovering();
    let task = dialogue.deliver(write(1, 1, 4096, 0, false));
    dialogue.session.want_data(task, 4096);
    assert!(dialogue.data(burst(1, 0, 0, 4096, true)).1.is_complete);
    assert_eq!(dialogue.absorbed(write(1, 1, 4096, 0, false)), 0);
    assert_eq!(dialogue.absorbed(InitiatorPdu::DataOut(burst(1, 0, 0, 4096, true))), 4096);
    let progress = dialogue.session.progress(task);
    assert!(progress.is_complete && progress.fault.is_none());
}
