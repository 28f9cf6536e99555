//! Reads: Data-In PDUs, the status in the last of them, residuals.

use super::*;
use crate::wire::{DataInStatus, Residual};

#[test]
fn a_read_goes_in_segments_and_bursts_and_the_last_carries_good() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(read(1, 1, 20_000));
    assert_eq!(dialogue.session.begin_data_in(task, 20_000), 20_000);
    let pdus: Vec<_> = core::iter::from_fn(|| dialogue.data_in(task, 20_000)).collect();
    let seen: Vec<_> = pdus
        .iter()
        .map(|pdu| (pdu.data_sn.0, pdu.buffer_offset, pdu.data_segment_length, pdu.is_final))
        .collect();
    assert_eq!(
        seen,
        [
            (0, 0, 4096, false),
            (1, 4096, 4096, false),
            (2, 8192, 4096, false),
            (3, 12_288, 4096, true), // 16384, a whole burst
            (4, 16_384, 3616, true),
        ]
    );
    assert!(pdus[..4].iter().all(|pdu| pdu.status.is_none()));
    assert_eq!(
        pdus[4].status,
        Some(DataInStatus { status: 0, stat_sn: StatSn(50), residual: Residual::None })
    );
    assert_eq!((pdus[4].expected_cmd_sn, pdus[4].maximum_cmd_sn), (CmdSn(2), CmdSn(5)));
    assert_eq!(pdus[0].maximum_cmd_sn, CmdSn(4), "the task was still in work");
    assert!(!dialogue.session.is_live(task));
    assert_eq!(dialogue.session.task_by_itt(InitiatorTaskTag(1)), None, "the tag is free");
    dialogue.session.retire(task);
}

#[test]
fn data_goes_out_as_it_becomes_available() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(read(1, 1, 8192));
    dialogue.session.begin_data_in(task, 8192);
    assert_eq!(dialogue.data_in(task, 0), None);
    assert_eq!(dialogue.data_in(task, 5000).unwrap().data_segment_length, 4096);
    assert_eq!(dialogue.data_in(task, 5000), None);
    assert!(dialogue.data_in(task, 8192).unwrap().status.is_some());
}

#[test]
fn a_read_that_fails_half_way_ends_with_a_response() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(read(1, 1, 8192));
    dialogue.session.begin_data_in(task, 8192);
    dialogue.data_in(task, 4096).unwrap();
    let response = dialogue.respond(task, CHECK_CONDITION);
    assert_eq!((response.status, response.data_segment_length), (2, 20));
    assert_eq!(response.expected_data_sn, 1, "one Data-In went out");
    assert_eq!(response.residual, Residual::Underflow(4096));
}

#[test]
fn residuals_of_reads_are_as_the_conformance_suite_wants_them() {
    // libiscsi's Read10Residuals: one block of 512 bytes, whatever the initiator expects.
    for (expected, required, sent, residual) in [
        (0, 512, 0, Residual::Overflow(512)),
        (10_000, 512, 512, Residual::Underflow(9488)),
        (200, 512, 200, Residual::Overflow(312)),
        (512, 1024, 512, Residual::Overflow(512)),
        (512, 512, 512, Residual::None),
    ] {
        let mut dialogue = Dialogue::new();
        let task = dialogue.deliver(read(1, 1, expected));
        assert_eq!(dialogue.session.begin_data_in(task, required), sent);
        let seen = match dialogue.data_in(task, sent) {
            Some(pdu) => pdu.status.unwrap().residual,
            None => dialogue.respond(task, GOOD).residual,
        };
        assert_eq!(seen, residual, "{expected} expected");
    }
}

#[test]
fn a_read_that_the_initiator_calls_a_write_moves_nothing_and_overflows() {
    // libiscsi's Read10Invalid, last part: READ (10) with the W bit, and its data.
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(write(1, 1, 512, 512, true));
    assert_eq!(dialogue.session.begin_data_in(task, 512), 0);
    assert!(dialogue.session.discard_data(task).is_settled);
    assert_eq!(dialogue.data_in(task, 512), None);
    let response = dialogue.respond(task, GOOD);
    assert_eq!((response.status, response.residual), (0, Residual::Overflow(512)));
}

#[test]
fn a_command_without_data_underflows_by_all_that_was_expected() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(read(1, 1, 512));
    assert_eq!(dialogue.respond(task, CHECK_CONDITION).residual, Residual::Underflow(512));
}

#[test]
fn a_new_segment_length_holds_from_the_next_pdu_on() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(read(1, 1, 16_384));
    dialogue.session.begin_data_in(task, 16_384);
    assert_eq!(dialogue.data_in(task, 16_384).unwrap().data_segment_length, 4096);
    dialogue.session.set_peer_segment_bytes_max(Seat::LEADING, 8192);
    assert_eq!(dialogue.data_in(task, 16_384).unwrap().data_segment_length, 8192);
}

#[test]
fn stat_sn_counts_answers_and_not_data() {
    let mut dialogue = Dialogue::new();
    let first = dialogue.deliver(read(1, 1, 8192));
    let second = dialogue.deliver(plain(2, 2));
    dialogue.session.begin_data_in(first, 8192);
    dialogue.data_in(first, 8192).unwrap();
    assert_eq!(dialogue.respond(second, GOOD).stat_sn, StatSn(50));
    assert_eq!(dialogue.data_in(first, 8192).unwrap().status.unwrap().stat_sn, StatSn(51));
    assert_eq!(dialogue.session.stat_sn(Seat::LEADING), StatSn(52));
}

#[test]
fn a_target_that_failed_says_so_without_a_status() {
    let mut dialogue = Dialogue::new();
    let task = dialogue.deliver(plain(1, 1));
    let pdu = dialogue.emitted(|session, header| session.target_failure(task, header));
    let TargetPdu::ScsiResponse(response) = pdu else { panic!("{pdu:?}") };
    assert_eq!(response.response, crate::wire::ServiceResponse::TargetFailure);
}
