//! Commands with AHS: long CDBs, bidirectional lengths (RFC 7143 §11.2.2).

use super::*;
use crate::wire::Residual;

fn read_and_write(tag: u32, cmd_sn: u32) -> ScsiCommand {
    ScsiCommand { read: true, write: true, expected_data_transfer_length: 1024, ..command(tag, cmd_sn) }
}

#[test]
fn a_long_cdb_makes_a_task_as_any_other() {
    let mut dialogue = Dialogue::new();
    let rest = [7; 244];
    let headers = AdditionalHeaders { extended_cdb: Some(&rest), bidirectional_read_length: None };
    let Ok(Received::Request { task, .. }) = dialogue.send_with(command(1, 1), &headers) else { panic!() };
    dialogue.session.data_arrived(Seat::LEADING, task);
    assert_eq!(dialogue.session.next_request(), Some(task));
    assert_eq!(dialogue.session.command(task).total_ahs_words, 62);
    assert_eq!(dialogue.respond(task, GOOD).bidirectional_read_residual, Residual::None);
}

#[test]
fn a_bidirectional_command_names_both_lengths_and_hears_of_both_residuals() {
    let mut dialogue = Dialogue::new();
    let headers = AdditionalHeaders { extended_cdb: None, bidirectional_read_length: Some(4096) };
    let Ok(Received::Request { task, .. }) = dialogue.send_with(read_and_write(1, 1), &headers) else {
        panic!()
    };
    dialogue.session.data_arrived(Seat::LEADING, task);
    dialogue.session.next_request();
    let response = dialogue.respond(task, CHECK_CONDITION);
    assert_eq!(response.bidirectional_read_residual, Residual::Underflow(4096));
    assert_eq!(response.residual, Residual::Underflow(1024));
}

#[test]
fn lengths_that_do_not_fit_the_direction_are_refused_and_leave_no_task() {
    let with = AdditionalHeaders { extended_cdb: None, bidirectional_read_length: Some(u32::MAX) };
    let without = AdditionalHeaders::default();
    let reading = ScsiCommand { read: true, ..command(1, 1) };
    for (command, headers, violation) in [
        (read_and_write(1, 1), without, Violation::BidirectionalLengthMissing),
        (reading, with, Violation::BidirectionalLengthOfNothing),
        (command(1, 1), with, Violation::BidirectionalLengthOfNothing),
    ] {
        let mut dialogue = Dialogue::new();
        assert_eq!(dialogue.send_with(command, &headers), Err(violation));
        let invalid = crate::violation::Answer::Reject(crate::wire::RejectReason::InvalidPduField);
        assert_eq!(violation.answer(), invalid);
        assert_eq!(dialogue.session.task_by_itt(InitiatorTaskTag(1)), None);
    }
}

#[test]
fn ahs_that_cannot_be_read_are_refused() {
    let mut dialogue = Dialogue::new();
    let pdu = InitiatorPdu::ScsiCommand(ScsiCommand { total_ahs_words: 1, ..command(1, 1) });
    let refused = dialogue.session.receive(Seat::LEADING, &pdu, &[0, 5, 2, 0], Moment::ORIGIN);
    assert_eq!(refused, Err(Violation::AhsTruncated));
}
