//! Reads: what Data-In may do, and what it may not.

use super::*;
use crate::sn::DataSn;
use crate::wire::{
    DataIn, DataInStatus, InitiatorTaskTag, Residual, ScsiResponse, ServiceResponse, SnackType,
    TargetTransferTag,
};

/// A session with one read of 8 KiB sent.
fn reading() -> (Dialogue, Tag) {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::Read, 8192, 7);
    let command = command_of(dialogue.sends());
    assert!(command.read && !command.write && command.is_final);
    assert_eq!((command.cmd_sn, command.expected_data_transfer_length), (CmdSn(10), 8192));
    (dialogue, tag)
}

impl Dialogue {
    fn data_in(&self, tag: Tag, data_sn: u32, offset: u32, length: u32) -> DataIn {
        DataIn {
            is_final: false,
            acknowledge: false,
            data_segment_length: length,
            lun: LunField::default(),
            initiator_task_tag: tag.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag::RESERVED,
            status: None,
            expected_cmd_sn: self.expected_cmd_sn,
            maximum_cmd_sn: self.maximum_cmd_sn,
            data_sn: DataSn(data_sn),
            buffer_offset: offset,
        }
    }

    fn last_data_in(
        &mut self,
        tag: Tag,
        data_sn: u32,
        offset: u32,
        length: u32,
        residual: Residual,
    ) -> DataIn {
        let status = Some(DataInStatus { status: 0, stat_sn: self.next_stat_sn(), residual });
        DataIn { is_final: true, status, ..self.data_in(tag, data_sn, offset, length) }
    }

    pub(super) fn response(&mut self, tag: Tag, status: u8, expected_data_sn: u32) -> ScsiResponse {
        ScsiResponse {
            response: ServiceResponse::CommandCompleted,
            status,
            status_qualifier: 0,
            data_segment_length: 0,
            initiator_task_tag: tag.initiator_task_tag(),
            snack_tag: 0,
            stat_sn: self.next_stat_sn(),
            expected_cmd_sn: self.expected_cmd_sn,
            maximum_cmd_sn: self.maximum_cmd_sn,
            expected_data_sn,
            bidirectional_read_residual: Residual::None,
            residual: Residual::None,
        }
    }
}

fn good(moved: u32) -> Heard {
    Heard::Completed { user: 7, status: 0, sense: vec![], residual: Residual::None, moved }
}

#[test]
fn a_read_comes_in_two_pdus_the_last_with_its_status() {
    let (mut dialogue, tag) = reading();
    let first = dialogue.data_in(tag, 0, 0, 4096);
    let mut bhs = [0; BHS_BYTES];
    first.emit(&mut bhs);
    let placed = Placement::ReadBuffer { tag, user: 7, offset: 0, length: 4096 };
    assert_eq!(dialogue.session.receive_header(&bhs), Ok(placed));
    assert_eq!(dialogue.session.receive_done(&[]), Ok(Event::None));
    let last = dialogue.last_data_in(tag, 1, 4096, 4096, Residual::None);
    assert_eq!(dialogue.hears(TargetPdu::DataIn(last)), Ok(good(8192)));
    assert_eq!(dialogue.session.outstanding_count(), 0);
}

/// §11.7.2, §11.16: above recovery level 0.
#[test]
fn data_that_is_to_be_acknowledged_is_and_at_level_0_that_is_a_fault() {
    for level in [1, 0] {
        let mut dialogue = Dialogue::begin(|parameters| parameters.error_recovery_level = level);
        let tag = dialogue.submit(&READ_CDB, Direction::Read, 8192, 7);
        dialogue.sends();
        let target_transfer_tag = TargetTransferTag(0x44);
        let plain = dialogue.data_in(tag, 0, 0, 4096);
        let asking = DataIn { acknowledge: true, is_final: true, lun: LUN, target_transfer_tag, ..plain };
        if level == 0 {
            assert_eq!(dialogue.hears(TargetPdu::DataIn(asking)), Err(TargetFault::AcknowledgeAtLevel0));
            continue;
        }
        assert_eq!(dialogue.hears(TargetPdu::DataIn(asking)), Ok(Heard::Nothing));
        let Some(Sent { pdu: InitiatorPdu::Snack(snack), .. }) = dialogue.sends() else {
            panic!("no DataACK")
        };
        assert_eq!((snack.kind, snack.lun, snack.transfer_or_snack_tag), (SnackType::DataAck, LUN, 0x44));
        assert_eq!((snack.run_begin, snack.run_length), (1, 0));
    }
}

#[test]
fn a_read_may_end_with_a_response_of_its_own() {
    let (mut dialogue, tag) = reading();
    let data = DataIn { is_final: true, ..dialogue.data_in(tag, 0, 0, 8192) };
    assert_eq!(dialogue.hears(TargetPdu::DataIn(data)), Ok(Heard::Nothing));
    let response = dialogue.response(tag, 0, 1);
    assert_eq!(dialogue.hears(TargetPdu::ScsiResponse(response)), Ok(good(8192)));
}

#[test]
fn a_check_condition_brings_its_sense() {
    let (mut dialogue, tag) = reading();
    let sense = [&[0, 18, 0x70, 0, 5][..], &[0; 15]].concat();
    let response = ScsiResponse { data_segment_length: 20, ..dialogue.response(tag, 2, 0) };
    let heard = dialogue.hears_with(TargetPdu::ScsiResponse(response), &sense).unwrap();
    let sense = sense[2..].to_vec();
    assert_eq!(heard, Heard::Completed { user: 7, status: 2, sense, residual: Residual::None, moved: 0 });
}

#[test]
fn a_short_read_says_by_how_much() {
    let (mut dialogue, tag) = reading();
    let last = dialogue.last_data_in(tag, 0, 0, 512, Residual::Underflow(7680));
    let heard = dialogue.hears(TargetPdu::DataIn(last)).unwrap();
    let residual = Residual::Underflow(7680);
    assert_eq!(heard, Heard::Completed { user: 7, status: 0, sense: vec![], residual, moved: 512 });
}

/// What the session makes of one Data-In PDU that a test has spoilt.
fn spoilt(spoil: impl FnOnce(&mut DataIn)) -> TargetFault {
    let (mut dialogue, tag) = reading();
    let mut data = dialogue.data_in(tag, 0, 0, 4096);
    spoil(&mut data);
    dialogue.hears(TargetPdu::DataIn(data)).unwrap_err()
}

#[test]
fn data_in_out_of_its_place_is_a_fault() {
    assert_eq!(
        spoilt(|data| data.data_sn = DataSn(1)),
        TargetFault::DataSnWrong { expected: DataSn(0), received: DataSn(1) }
    );
    assert_eq!(
        spoilt(|data| data.buffer_offset = 512),
        TargetFault::DataInOutOfOrder { expected: 0, offset: 512 }
    );
    assert_eq!(
        spoilt(|data| data.data_segment_length = 8193),
        TargetFault::DataInBeyondBuffer { end: 8193, expected: 8192 }
    );
    let stranger = InitiatorTaskTag(0x77);
    assert_eq!(
        spoilt(|data| data.initiator_task_tag = stranger),
        TargetFault::UnknownTask { opcode: 0x25, tag: stranger }
    );
    assert_eq!(
        spoilt(|data| {
            data.acknowledge = true;
            data.target_transfer_tag = TargetTransferTag(1);
        }),
        TargetFault::AcknowledgeAtLevel0
    );
}

#[test]
fn a_burst_beyond_its_maximum_is_a_fault_unless_f_divides_it() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::Read, 16_384, 7);
    dialogue.sends();
    for (data_sn, is_final) in [(0, false), (1, true), (2, false), (3, false)] {
        let data = DataIn { is_final, ..dialogue.data_in(tag, data_sn, data_sn * 4000, 4000) };
        assert_eq!(dialogue.hears(TargetPdu::DataIn(data)), Ok(Heard::Nothing));
    }
    let data = dialogue.data_in(tag, 4, 16_000, 193);
    assert_eq!(
        dialogue.hears(TargetPdu::DataIn(data)),
        Err(TargetFault::BurstTooLong { length: 8193, maximum: 8192 })
    );
}

#[test]
fn a_lenient_session_counts_a_long_burst_and_goes_on() {
    let mut dialogue = Dialogue::begin(|_| {});
    dialogue.session.judge(Strictness::Lenient);
    let tag = dialogue.submit(&READ_CDB, Direction::Read, 12_000, 7);
    dialogue.sends();
    for data_sn in 0..2 {
        let data = dialogue.data_in(tag, data_sn, data_sn * 4000, 4000);
        assert_eq!(dialogue.hears(TargetPdu::DataIn(data)), Ok(Heard::Nothing));
    }
    let last = dialogue.last_data_in(tag, 2, 8000, 4000, Residual::None);
    assert_eq!(dialogue.hears(TargetPdu::DataIn(last)), Ok(good(12_000)));
    let last = Some(TargetFault::BurstTooLong { length: 12_000, maximum: 8192 });
    assert_eq!(dialogue.session.tolerated(), Tolerated { count: 1, last });
}

#[test]
fn good_without_all_the_data_is_a_fault() {
    let (mut dialogue, tag) = reading();
    let last = dialogue.last_data_in(tag, 0, 0, 4096, Residual::None);
    assert_eq!(
        dialogue.hears(TargetPdu::DataIn(last)),
        Err(TargetFault::ResidualWrong { expected: 8192, moved: 4096, residual: Residual::None })
    );
    let (mut dialogue, tag) = reading();
    let last = dialogue.last_data_in(tag, 0, 0, 4096, Residual::Underflow(8193));
    assert_eq!(
        dialogue.hears(TargetPdu::DataIn(last)),
        Err(TargetFault::ResidualImpossible { expected: 8192, residual: Residual::Underflow(8193) })
    );
}

#[test]
fn an_exception_in_data_in_is_a_fault() {
    let (mut dialogue, tag) = reading();
    let mut last = dialogue.last_data_in(tag, 0, 0, 4096, Residual::Underflow(4096));
    last.status.as_mut().unwrap().status = 2;
    assert_eq!(dialogue.hears(TargetPdu::DataIn(last)), Err(TargetFault::ExceptionInDataIn { status: 2 }));
}

#[test]
fn a_response_that_miscounts_is_a_fault() {
    let (mut dialogue, tag) = reading();
    let data = DataIn { is_final: true, ..dialogue.data_in(tag, 0, 0, 8192) };
    dialogue.hears(TargetPdu::DataIn(data)).unwrap();
    let response = dialogue.response(tag, 0, 2);
    assert_eq!(
        dialogue.hears(TargetPdu::ScsiResponse(response)),
        Err(TargetFault::ExpectedDataSnWrong { claimed: 2, received: 1 })
    );
}

#[test]
fn a_response_before_the_burst_has_ended_is_a_fault() {
    let (mut dialogue, tag) = reading();
    let data = dialogue.data_in(tag, 0, 0, 4096);
    dialogue.hears(TargetPdu::DataIn(data)).unwrap();
    let response = dialogue.response(tag, 8, 1);
    assert_eq!(dialogue.hears(TargetPdu::ScsiResponse(response)), Err(TargetFault::BurstWithoutEnd));
}

#[test]
fn a_check_condition_without_sense_or_with_half_of_it_is_a_fault() {
    let (mut dialogue, tag) = reading();
    let response = dialogue.response(tag, 2, 0);
    assert_eq!(dialogue.hears(TargetPdu::ScsiResponse(response)), Err(TargetFault::SenseMissing));
    let (mut dialogue, tag) = reading();
    let response = ScsiResponse { data_segment_length: 4, ..dialogue.response(tag, 2, 0) };
    assert_eq!(
        dialogue.hears_with(TargetPdu::ScsiResponse(response), &[0, 18, 0x70, 0]),
        Err(TargetFault::SenseTruncated { length: 18, available: 2 })
    );
}

#[test]
fn a_tag_that_has_been_answered_is_not_answered_again() {
    let (mut dialogue, tag) = reading();
    let last = dialogue.last_data_in(tag, 0, 0, 8192, Residual::None);
    dialogue.hears(TargetPdu::DataIn(last)).unwrap();
    let again = dialogue.response(tag, 0, 1);
    let tag = tag.initiator_task_tag();
    assert_eq!(
        dialogue.hears(TargetPdu::ScsiResponse(again)),
        Err(TargetFault::UnknownTask { opcode: 0x21, tag })
    );
}

#[test]
fn data_in_for_a_write_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 512, 7);
    dialogue.sends();
    let data = dialogue.data_in(tag, 0, 0, 512);
    assert_eq!(dialogue.hears(TargetPdu::DataIn(data)), Err(TargetFault::DataInForNoRead));
}

#[test]
fn a_command_that_has_not_left_yet_cannot_be_answered() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::Read, 512, 7);
    let data = dialogue.data_in(tag, 0, 0, 512);
    let tag = tag.initiator_task_tag();
    assert_eq!(dialogue.hears(TargetPdu::DataIn(data)), Err(TargetFault::UnknownTask { opcode: 0x25, tag }));
}
