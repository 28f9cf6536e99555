//! Writes: immediate and unsolicited data, R2Ts, faults, late data.

use super::*;
use crate::wire::Residual;

#[test]
fn a_small_write_brings_its_data_along() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 4096, 4096, true));
    let progress = dialogue.session.want_data(task, 4096);
    assert!(progress.is_complete && progress.is_settled);
    assert_eq!(dialogue.r2t(task, u32::MAX), None);
    let response = dialogue.respond(task, GOOD);
    assert_eq!((response.status, response.residual, response.data_segment_length), (0, Residual::None, 0));
    assert_eq!(response.stat_sn, StatSn(50));
}

#[test]
fn a_large_write_is_burst_then_asked_for() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 40_960, 4096, false));
    dialogue.session.want_data(task, 40_960);
    assert_eq!(dialogue.r2t(task, u32::MAX), None, "the burst is not over");
    let (segment, progress) = dialogue.data(burst(1, 0, 4096, 4096, true));
    assert_eq!((segment.offset_bytes, segment.keep_bytes, progress.received_bytes), (4096, 4096, 8192));

    let first = dialogue.r2t(task, u32::MAX).unwrap();
    let second = dialogue.r2t(task, u32::MAX).unwrap();
    assert_eq!((first.buffer_offset, first.desired_data_transfer_length, first.r2t_sn.0), (8192, 16_384, 0));
    assert_eq!(
        (second.buffer_offset, second.desired_data_transfer_length, second.r2t_sn.0),
        (24_576, 16_384, 1)
    );
    assert_ne!(first.target_transfer_tag, second.target_transfer_tag);
    assert_eq!((first.lun, first.stat_sn), (LUN, StatSn(50)));
    assert!(!dialogue.data(answer(&first)).1.is_complete);
    let (_, progress) = dialogue.data(answer(&second));
    assert_eq!(
        progress,
        Progress { received_bytes: 40_960, is_complete: true, is_settled: true, fault: None }
    );

    let response = dialogue.respond(task, GOOD);
    assert_eq!(response.expected_data_sn, 0, "R2Ts are not Data-In");
    assert_eq!(response.stat_sn, StatSn(50), "an R2T uses no StatSN up");
}

#[test]
fn r2ts_wait_for_room() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 40_960, 0, true));
    dialogue.session.want_data(task, 40_960);
    assert_eq!(dialogue.r2t(task, 0), None);
    assert_eq!(dialogue.r2t(task, 4096).unwrap().desired_data_transfer_length, 4096);
}

#[test]
fn data_may_come_before_the_command_is_delivered() {
    let mut dialogue = Dialogue::new();
    let waiting = dialogue.request(write(2, 2, 8192, 0, false));
    let (segment, progress) = dialogue.data(burst(2, 0, 0, 8192, true));
    assert_eq!((segment.keep_bytes, progress.is_complete), (8192, false));
    dialogue.deliver(plain(1, 1));
    assert_eq!(dialogue.session.next_request(), Some(waiting));
    assert!(dialogue.session.want_data(waiting, 8192).is_complete);
}

#[test]
fn residuals_of_writes_are_as_the_conformance_suite_wants_them() {
    // libiscsi's Write10Residuals: blocks of 512 bytes, whatever the initiator expects.
    for (expected, required, kept, residual) in [
        (0, 512, 0, Residual::Overflow(512)),
        (8000, 512, 8000, Residual::Underflow(7488)),
        (200, 512, 200, Residual::Overflow(312)),
        (512, 1024, 512, Residual::Overflow(512)),
        (1024, 512, 1024, Residual::Underflow(512)),
    ] {
        let mut dialogue = Dialogue::new();
        let Ok(Received::Request { task, segment }) = dialogue.send(write(1, 1, expected, expected, true))
        else {
            panic!()
        };
        assert_eq!(segment.keep_bytes, kept, "all may be wanted, until somebody says how much is");
        dialogue.session.data_arrived(Seat::LEADING, task);
        dialogue.session.next_request();
        assert!(dialogue.session.want_data(task, required).is_complete);
        assert_eq!(dialogue.respond(task, GOOD).residual, residual, "{expected} expected");
    }
}

#[test]
fn only_as_much_is_asked_for_as_the_command_writes() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 10_000, 0, true));
    dialogue.session.want_data(task, 512);
    let r2t = dialogue.r2t(task, u32::MAX).unwrap();
    assert_eq!(r2t.desired_data_transfer_length, 512);
    assert!(dialogue.data(answer(&r2t)).1.is_complete);
    assert_eq!(dialogue.respond(task, GOOD).residual, Residual::Underflow(9488));
}

#[test]
fn a_wrong_data_sn_fails_the_command_and_the_session_goes_on() {
    // libiscsi's iSCSIDataSnInvalid: the write must not succeed.
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 1024, 0, false));
    dialogue.session.want_data(task, 1024);
    let (segment, progress) = dialogue.data(burst(1, 0, 0, 512, false));
    assert_eq!((segment.keep_bytes, progress.fault), (512, None));
    let (segment, progress) = dialogue.data(burst(1, 0, 512, 512, true));
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, 512));
    assert_eq!(progress.fault, Some(TransferFault::DataSnOutOfOrder));
    assert!(progress.is_settled && !progress.is_complete);
    assert_eq!(dialogue.session.fault(task), progress.fault);
    assert_eq!(dialogue.respond(task, CHECK_CONDITION).status, 2);
    dialogue.deliver(plain(2, 2));
}

#[test]
fn immediate_data_that_was_negotiated_away_fails_the_command() {
    let strict = Parameters { immediate_data: false, ..parameters() };
    let mut dialogue = Dialogue::with(Start { parameters: strict, ..start() });
    let Ok(Received::Request { task, segment }) = dialogue.send(write(1, 1, 4096, 4096, true)) else {
        panic!()
    };
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, 4096));
    assert_eq!(
        dialogue.session.data_arrived(Seat::LEADING, task).fault,
        Some(TransferFault::ImmediateDataNotAllowed)
    );
    assert_eq!(dialogue.session.next_request(), Some(task));
    assert_eq!(dialogue.respond(task, CHECK_CONDITION).residual, Residual::Underflow(4096));
}

#[test]
fn the_data_of_a_command_that_was_answered_early_is_absorbed() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 8192, 0, false));
    dialogue.respond(task, CHECK_CONDITION);
    assert_eq!(dialogue.absorbed(InitiatorPdu::DataOut(burst(1, 0, 0, 4096, false))), 4096);
    dialogue.session.retire(task);
    assert_eq!(dialogue.absorbed(InitiatorPdu::DataOut(burst(1, 1, 4096, 4096, true))), 4096);
    let next = dialogue.deliver(write(1, 2, 4096, 0, false));
    assert!(dialogue.data(burst(1, 0, 0, 4096, true)).1.is_settled, "the tag is the next command's now");
    assert!(dialogue.session.want_data(next, 4096).is_complete);
}

#[test]
fn a_command_that_fails_on_sight_may_wait_until_its_burst_is_over() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 8192, 0, false));
    assert!(!dialogue.session.discard_data(task).is_settled);
    let (segment, progress) = dialogue.data(burst(1, 0, 0, 8192, true));
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, 8192));
    assert_eq!((progress.is_settled, progress.is_complete, progress.fault), (true, false, None));
    assert_eq!(dialogue.respond(task, CHECK_CONDITION).residual, Residual::Underflow(8192));
}

#[test]
fn the_data_of_an_aborted_write_is_absorbed_and_nothing_of_it_goes_out() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 16_384, 0, true));
    dialogue.session.want_data(task, 16_384);
    let r2t = dialogue.r2t(task, u32::MAX).unwrap();
    dialogue.session.abort(task);
    dialogue.session.abort(task);
    assert!(!dialogue.session.is_live(task));
    assert_eq!(dialogue.absorbed(InitiatorPdu::DataOut(answer(&r2t))), 16_384);
    dialogue.session.retire(task);
    let next = dialogue.deliver(plain(2, 2));
    assert_eq!(dialogue.respond(next, GOOD).maximum_cmd_sn, CmdSn(6), "the aborted one gave its place back");
}

#[test]
fn a_task_may_be_aborted_and_retired_while_its_segment_comes_in() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 8192, 0, false));
    let Ok(Received::Data { task: receiving, .. }) =
        dialogue.send(InitiatorPdu::DataOut(burst(1, 0, 0, 8192, true)))
    else {
        panic!()
    };
    assert_eq!(receiving, task);
    dialogue.session.abort(task);
    dialogue.session.retire(task);
    assert_eq!(dialogue.session.data_arrived(Seat::LEADING, task), Progress::default());
    dialogue.deliver(plain(2, 2));
}

#[test]
fn data_for_something_that_is_no_command_is_absorbed() {
    let mut dialogue = Dialogue::new();
    dialogue.request(InitiatorPdu::NopOut(ping(5, 1, 0)));
    assert_eq!(dialogue.absorbed(InitiatorPdu::DataOut(burst(5, 0, 0, 100, true))), 100);
    assert_eq!(dialogue.absorbed(InitiatorPdu::DataOut(burst(6, 0, 0, 100, true))), 100);
}
