//! Writes: immediate and unsolicited data, R2Ts, and what a target may ask for.

use super::*;
use crate::sn::{DataSn, R2tSn};
use crate::wire::{DataOut, R2t, Residual, ScsiResponse, TargetTransferTag};

impl Dialogue {
    fn r2t(&self, tag: Tag, r2t_sn: u32, buffer_offset: u32, length: u32) -> R2t {
        R2t {
            lun: LUN,
            initiator_task_tag: tag.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(900 + r2t_sn),
            stat_sn: self.stat_sn,
            expected_cmd_sn: self.expected_cmd_sn,
            maximum_cmd_sn: self.maximum_cmd_sn,
            r2t_sn: R2tSn(r2t_sn),
            buffer_offset,
            desired_data_transfer_length: length,
        }
    }

    fn sends_data(&mut self) -> (DataOut, (u32, u32)) {
        match self.sends() {
            Some(Sent { pdu: InitiatorPdu::DataOut(data), write: Some(place), .. }) => (data, place),
            other => panic!("{other:?} is no Data-Out"),
        }
    }

    /// Sends a Data-Out PDU of this transfer tag, number, place and F bit.
    fn sends_data_of(&mut self, ttt: TargetTransferTag, data_sn: u32, place: (u32, u32), is_final: bool) {
        let (data, sent) = self.sends_data();
        assert_eq!((sent, data.buffer_offset, data.data_segment_length), (place, place.0, place.1));
        let lun = if ttt.is_reserved() { LunField::default() } else { LUN };
        assert_eq!(
            (data.target_transfer_tag, data.data_sn, data.is_final, data.lun),
            (ttt, DataSn(data_sn), is_final, lun)
        );
    }
}

const UNASKED: TargetTransferTag = TargetTransferTag::RESERVED;

#[test]
fn a_small_write_goes_with_its_command() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 4096, 7);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.write, Some((0, 4096)));
    assert!(command_of(Some(sent)).is_final);
    dialogue.sends_nothing();
    let response = dialogue.response(tag, 0, 0);
    let good = Heard::Completed { user: 7, status: 0, sense: vec![], residual: Residual::None, moved: 4096 };
    assert_eq!(dialogue.hears(TargetPdu::ScsiResponse(response)), Ok(good));
}

#[test]
fn a_large_write_sends_its_first_burst_unasked_and_the_rest_when_asked() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 20_000, 7);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.write, Some((0, 4096)));
    assert!(!command_of(Some(sent)).is_final);
    dialogue.sends_data_of(UNASKED, 0, (4096, 4096), true);
    dialogue.sends_nothing();

    assert_eq!(dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, 0, 8192, 8192))), Ok(Heard::Nothing));
    assert_eq!(dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, 1, 16_384, 3616))), Ok(Heard::Nothing));
    dialogue.sends_data_of(TargetTransferTag(900), 0, (8192, 4096), false);
    dialogue.sends_data_of(TargetTransferTag(900), 1, (12_288, 4096), true);
    dialogue.sends_data_of(TargetTransferTag(901), 0, (16_384, 3616), true);
    dialogue.sends_nothing();

    let response = dialogue.response(tag, 0, 0);
    let good =
        Heard::Completed { user: 7, status: 0, sense: vec![], residual: Residual::None, moved: 20_000 };
    assert_eq!(dialogue.hears(TargetPdu::ScsiResponse(response)), Ok(good));
}

#[test]
fn with_initial_r2t_only_the_immediate_data_goes_unasked() {
    let mut dialogue = Dialogue::begin(|parameters| parameters.initial_r2t = true);
    dialogue.submit(&WRITE_CDB, Direction::Write, 20_000, 7);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.write, Some((0, 4096)));
    assert!(command_of(Some(sent)).is_final);
    dialogue.sends_nothing();
}

#[test]
fn without_immediate_data_the_burst_follows_the_command() {
    let mut dialogue = Dialogue::begin(|parameters| parameters.immediate_data = false);
    dialogue.submit(&WRITE_CDB, Direction::Write, 5000, 7);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.write, None);
    assert!(!command_of(Some(sent)).is_final);
    dialogue.sends_data_of(UNASKED, 0, (0, 4096), false);
    dialogue.sends_data_of(UNASKED, 1, (4096, 904), true);
    dialogue.sends_nothing();
}

#[test]
fn with_neither_nothing_goes_unasked() {
    let mut dialogue = Dialogue::begin(|parameters| {
        parameters.initial_r2t = true;
        parameters.immediate_data = false;
    });
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 512, 7);
    let sent = dialogue.sends().unwrap();
    assert_eq!(sent.write, None);
    assert!(command_of(Some(sent)).is_final);
    dialogue.sends_nothing();
    dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, 0, 0, 512))).unwrap();
    dialogue.sends_data_of(TargetTransferTag(900), 0, (0, 512), true);
}

#[test]
fn unsolicited_data_of_two_commands_keeps_their_order() {
    let mut dialogue = Dialogue::begin(|parameters| parameters.immediate_data = false);
    let first = dialogue.submit(&WRITE_CDB, Direction::Write, 5000, 1);
    let second = dialogue.submit(&WRITE_CDB, Direction::Write, 5000, 2);
    let mut order = Vec::new();
    while let Some(sent) = dialogue.sends() {
        match sent.pdu {
            InitiatorPdu::ScsiCommand(command) => order.push(command.initiator_task_tag),
            InitiatorPdu::DataOut(data) => order.push(data.initiator_task_tag),
            other => panic!("{other:?}"),
        }
    }
    let (first, second) = (first.initiator_task_tag(), second.initiator_task_tag());
    assert_eq!(order, [first, first, first, second, second, second]);
}

/// What the session makes of one R2T that a test has spoilt, for a write of 20,000 bytes whose first 8192 are
/// sent.
fn spoilt(spoil: impl FnOnce(&mut R2t)) -> TargetFault {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 20_000, 7);
    while dialogue.sends().is_some() {}
    let mut r2t = dialogue.r2t(tag, 0, 8192, 8192);
    spoil(&mut r2t);
    dialogue.hears(TargetPdu::R2t(r2t)).unwrap_err()
}

#[test]
fn an_r2t_that_may_not_be_is_a_fault() {
    assert_eq!(
        spoilt(|r2t| r2t.r2t_sn = R2tSn(1)),
        TargetFault::R2tSnWrong { expected: R2tSn(0), received: R2tSn(1) }
    );
    assert_eq!(
        spoilt(|r2t| r2t.buffer_offset = 4096),
        TargetFault::R2tOutOfOrder { expected: 8192, offset: 4096 }
    );
    assert_eq!(
        spoilt(|r2t| r2t.desired_data_transfer_length = 8193),
        TargetFault::R2tTooLong { length: 8193, maximum: 8192 }
    );
    assert_eq!(
        spoilt(|r2t| r2t.buffer_offset = 16_384),
        TargetFault::R2tBeyondBuffer { end: 24_576, expected: 20_000 }
    );
    assert_eq!(
        spoilt(|r2t| r2t.stat_sn = StatSn(101)),
        TargetFault::StatSnWrong { opcode: 0x31, expected: StatSn(100), received: StatSn(101) }
    );
}

#[test]
fn more_r2ts_than_negotiated_are_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 20_000, 7);
    while dialogue.sends().is_some() {}
    for (r2t_sn, offset) in [(0, 8192), (1, 9192)] {
        dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, r2t_sn, offset, 1000))).unwrap();
    }
    assert_eq!(
        dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, 2, 10_192, 1000))),
        Err(TargetFault::TooManyR2ts { maximum: 2 })
    );
}

#[test]
fn an_r2t_for_a_read_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&READ_CDB, Direction::Read, 512, 7);
    dialogue.sends();
    assert_eq!(dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, 0, 0, 512))), Err(TargetFault::R2tForNoWrite));
}

#[test]
fn good_for_a_write_whose_data_was_not_asked_for_is_a_fault() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 20_000, 7);
    while dialogue.sends().is_some() {}
    let response = dialogue.response(tag, 0, 0);
    assert_eq!(
        dialogue.hears(TargetPdu::ScsiResponse(response)),
        Err(TargetFault::ResidualWrong { expected: 20_000, moved: 8192, residual: Residual::None })
    );
}

#[test]
fn a_write_that_the_target_cuts_short_stops_sending() {
    let mut dialogue = Dialogue::begin(|_| {});
    let tag = dialogue.submit(&WRITE_CDB, Direction::Write, 20_000, 7);
    while dialogue.sends().is_some() {}
    dialogue.hears(TargetPdu::R2t(dialogue.r2t(tag, 0, 8192, 8192))).unwrap();
    dialogue.sends_data_of(TargetTransferTag(900), 0, (8192, 4096), false);
    let residual = Residual::Underflow(20_000);
    let response = ScsiResponse { residual, ..dialogue.response(tag, 0x18, 0) };
    let conflict = Heard::Completed { user: 7, status: 0x18, sense: vec![], residual, moved: 12_288 };
    assert_eq!(dialogue.hears(TargetPdu::ScsiResponse(response)), Ok(conflict));
    dialogue.sends_nothing();
}
