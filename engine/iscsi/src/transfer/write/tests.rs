//! The data of a write as it comes, PDU by PDU.

use super::*;
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, StatSn};
use crate::wire::{InitiatorTaskTag, TaskAttribute};
use proptest::prelude::*;

const TTT_BASE: u32 = 7 << 16;
const LUN: LunField = LunField([0, 1, 0, 0, 0, 0, 0, 0]);

/// FirstBurst 8 KiB, MaxBurst 16 KiB, all unsolicited data allowed, two R2Ts at once.
fn lax() -> Parameters {
    Parameters {
        initial_r2t: false,
        immediate_data: true,
        first_burst_length: 8192,
        max_burst_length: 16_384,
        max_outstanding_r2t: 2,
        ..Parameters::default()
    }
}

fn command(length: u32, immediate: u32, is_final: bool) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final,
        read: false,
        write: true,
        attribute: TaskAttribute::Simple,
        priority: 0,
        total_ahs_words: 0,
        data_segment_length: immediate,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(3),
        expected_data_transfer_length: length,
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(1),
        cdb: [0x2a; 16],
    }
}

/// An unsolicited Data-Out PDU.
fn burst(data_sn: u32, offset: u32, length: u32, is_final: bool) -> DataOut {
    DataOut {
        is_final,
        data_segment_length: length,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(3),
        target_transfer_tag: TargetTransferTag::RESERVED,
        expected_stat_sn: StatSn(1),
        data_sn: DataSn(data_sn),
        buffer_offset: offset,
    }
}

/// A Data-Out PDU in answer to the R2T of this number.
fn answer(r2t_sn: u32, data_sn: u32, offset: u32, length: u32, is_final: bool) -> DataOut {
    let target_transfer_tag = transfer_tag(TTT_BASE, R2tSn(r2t_sn));
    DataOut { target_transfer_tag, ..burst(data_sn, offset, length, is_final) }
}

/// Takes a PDU and its data.
fn take(write: &mut Write, pdu: &DataOut) -> Progress {
    write.data_out(pdu, LUN, TTT_BASE, false);
    write.arrived()
}

fn r2t(offset: u32, length: u32, r2t_sn: u32) -> Option<Solicitation> {
    Some(Solicitation { offset, length, r2t_sn: R2tSn(r2t_sn) })
}

/// A write of which nothing has come, and all is wanted.
fn awaited(length: u32, parameters: &Parameters) -> Write {
    let (mut write, _) = Write::begin(&command(length, 0, true), parameters);
    write.arrived();
    write.want(u64::from(length));
    write
}

#[test]
fn immediate_data_may_be_all_of_it() {
    let (mut write, segment) = Write::begin(&command(4096, 4096, true), &lax());
    assert_eq!(segment, Segment { offset_bytes: 0, keep_bytes: 4096, discard_bytes: 0 });
    let progress = write.arrived();
    assert!(!progress.is_complete, "nobody has said yet how much is wanted");
    assert_eq!((progress.received_bytes, progress.is_settled), (4096, true));
    write.want(4096);
    assert!(write.progress().is_complete);
    assert_eq!(write.solicit(u32::MAX, &lax()), None);
}

#[test]
fn an_unsolicited_burst_goes_on_to_its_f_bit_and_r2ts_ask_for_the_rest() {
    let (mut write, _) = Write::begin(&command(40_960, 4096, false), &lax());
    write.arrived();
    write.want(40_960);
    assert_eq!(write.solicit(u32::MAX, &lax()), None, "unsolicited data is still to come");
    assert!(!take(&mut write, &burst(0, 4096, 2048, false)).is_settled);
    assert!(take(&mut write, &burst(1, 6144, 2048, true)).is_settled);
    assert_eq!(write.solicit(u32::MAX, &lax()), r2t(8192, 16_384, 0));
    assert_eq!(write.solicit(u32::MAX, &lax()), r2t(24_576, 16_384, 1));
    assert_eq!(write.solicit(u32::MAX, &lax()), None, "all has been asked for");

    assert_eq!(take(&mut write, &answer(0, 0, 8192, 8192, false)).received_bytes, 16_384);
    let progress = take(&mut write, &answer(0, 1, 16_384, 8192, true));
    assert!(!progress.is_complete && !progress.is_settled);
    let progress = take(&mut write, &answer(1, 0, 24_576, 16_384, true));
    assert_eq!(
        progress,
        Progress { received_bytes: 40_960, is_complete: true, is_settled: true, fault: None }
    );
}

#[test]
fn max_outstanding_r2t_holds_the_next_one_back() {
    let mut write = awaited(65_536, &lax());
    assert_eq!(write.solicit(u32::MAX, &lax()), r2t(0, 16_384, 0));
    assert_eq!(write.solicit(u32::MAX, &lax()), r2t(16_384, 16_384, 1));
    assert_eq!(write.solicit(u32::MAX, &lax()), None);
    take(&mut write, &answer(0, 0, 0, 16_384, true));
    assert_eq!(write.solicit(u32::MAX, &lax()), r2t(32_768, 16_384, 2));
}

#[test]
fn a_budget_makes_r2ts_shorter_and_no_budget_makes_none() {
    let mut write = awaited(65_536, &lax());
    assert_eq!(write.solicit(0, &lax()), None);
    assert_eq!(write.solicit(4096, &lax()), r2t(0, 4096, 0));
    assert_eq!(write.solicit(8192, &lax()), r2t(4096, 8192, 1));
}

#[test]
fn only_what_the_device_server_wants_is_kept_and_asked_for() {
    let (mut write, segment) = Write::begin(&command(16_384, 8192, true), &lax());
    assert_eq!(segment.keep_bytes, 8192, "nobody has said yet how much is wanted");
    write.arrived();
    write.want(512);
    assert!(write.progress().is_complete);
    assert_eq!(write.moved(), 512);
    assert_eq!(write.solicit(u32::MAX, &lax()), None);

    let (mut write, _) = Write::begin(&command(8192, 0, false), &lax());
    write.want(5000);
    let segment = write.data_out(&burst(0, 0, 8192, true), LUN, TTT_BASE, false);
    assert_eq!(segment, Segment { offset_bytes: 0, keep_bytes: 5000, discard_bytes: 3192 });
}

#[test]
fn a_device_server_that_wants_more_than_the_initiator_has_gets_what_there_is() {
    let (mut write, _) = Write::begin(&command(200, 200, true), &lax());
    write.arrived();
    write.want(512);
    assert!(write.progress().is_complete);
    assert_eq!(write.moved(), 200);
}

#[test]
fn a_write_of_nothing_is_complete_when_it_is_wanted() {
    let (mut write, _) = Write::begin(&command(0, 0, true), &lax());
    write.arrived();
    write.want(512);
    assert!(write.progress().is_complete && write.progress().is_settled);
}

#[test]
fn data_of_a_task_that_has_failed_is_discarded_until_the_f_bit() {
    let (mut write, _) = Write::begin(&command(8192, 0, false), &lax());
    write.discard();
    assert!(!write.progress().is_settled);
    let segment = write.data_out(&burst(0, 0, 4096, false), LUN, TTT_BASE, false);
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, 4096));
    assert!(!write.arrived().is_settled);
    let progress = take(&mut write, &burst(1, 4096, 4096, true));
    assert!(progress.is_settled && !progress.is_complete);
    assert_eq!(progress.fault, None, "the initiator did nothing wrong");
}

#[test]
fn immediate_data_that_was_negotiated_away_is_a_fault() {
    let strict = Parameters { immediate_data: false, ..lax() };
    let (mut write, segment) = Write::begin(&command(4096, 4096, true), &strict);
    assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, 4096));
    assert_eq!(write.arrived().fault, Some(TransferFault::ImmediateDataNotAllowed));
    assert!(write.progress().is_settled, "nothing more will come");
}

#[test]
fn unsolicited_data_under_initial_r2t_is_a_fault_that_is_settled_by_the_f_bit() {
    let strict = Parameters { initial_r2t: true, ..lax() };
    let (mut write, _) = Write::begin(&command(8192, 4096, false), &strict);
    assert_eq!(write.fault(), Some(TransferFault::UnsolicitedDataNotAllowed));
    assert!(!write.arrived().is_settled);
    let progress = take(&mut write, &burst(0, 4096, 4096, true));
    assert_eq!((progress.is_settled, progress.received_bytes), (true, 0));
}

#[test]
fn more_immediate_data_than_first_burst_is_a_fault() {
    let (write, _) = Write::begin(&command(65_536, 8193, true), &lax());
    assert_eq!(write.fault(), Some(TransferFault::BeyondFirstBurst));
}

#[test]
fn each_wrong_data_out_pdu_has_its_own_fault_and_is_discarded() {
    let lun = LunField([9; 8]);
    for (pdu, fault) in [
        (answer(0, 1, 0, 4096, false), TransferFault::DataSnOutOfOrder),
        (answer(0, 0, 512, 4096, false), TransferFault::OffsetOutOfOrder),
        (answer(1, 0, 0, 4096, false), TransferFault::R2tOutOfOrder),
        (answer(9, 0, 0, 4096, false), TransferFault::TransferTagUnknown),
        (answer(0, 0, 0, 16_385, true), TransferFault::BeyondR2t),
        (answer(0, 0, 0, 16_000, true), TransferFault::FinalTooEarly),
        (answer(0, 0, 0, 16_384, false), TransferFault::FinalMissing),
        (DataOut { lun, ..answer(0, 0, 0, 16_384, true) }, TransferFault::LunMismatch),
        (burst(0, 0, 4096, false), TransferFault::UnsolicitedDataNotAllowed),
    ] {
        let mut write = awaited(65_536, &lax());
        write.solicit(u32::MAX, &lax());
        write.solicit(u32::MAX, &lax());
        let segment = write.data_out(&pdu, LUN, TTT_BASE, false);
        assert_eq!((segment.keep_bytes, segment.discard_bytes), (0, pdu.data_segment_length));
        let progress = write.arrived();
        assert_eq!(progress.fault, Some(fault));
        assert_eq!((progress.received_bytes, progress.is_complete, progress.is_settled), (0, false, false));
        assert_eq!(write.solicit(u32::MAX, &lax()), None, "a task that has failed asks for nothing more");
    }
}

#[test]
fn an_unsolicited_burst_keeps_to_its_limits() {
    for (length, pdu, fault) in [
        (65_536, burst(0, 4096, 4097, true), Some(TransferFault::BeyondFirstBurst)),
        (65_536, burst(0, 4096, 2048, true), Some(TransferFault::FinalTooEarly)),
        (65_536, burst(0, 4096, 4096, true), None),
        (6000, burst(0, 4096, 1905, true), Some(TransferFault::BeyondExpectedLength)),
        (6000, burst(0, 4096, 1904, true), None),
        // §11.4.7.2 speaks of writes longer than FirstBurstLength: the rest of a shorter one can be asked for.
        (6000, burst(0, 4096, 1000, true), None),
        (6000, burst(1, 4096, 1904, true), Some(TransferFault::DataSnOutOfOrder)),
        (6000, burst(0, 0, 1904, true), Some(TransferFault::OffsetOutOfOrder)),
    ] {
        let (mut write, _) = Write::begin(&command(length, 4096, false), &lax());
        write.arrived();
        assert_eq!(take(&mut write, &pdu).fault, fault, "{pdu:?}");
    }
}

#[test]
fn after_a_fault_the_last_outstanding_f_bit_settles_the_task() {
    let mut write = awaited(65_536, &lax());
    write.solicit(u32::MAX, &lax());
    write.solicit(u32::MAX, &lax());
    assert!(!take(&mut write, &answer(0, 27, 0, 8192, false)).is_settled);
    assert!(
        !take(&mut write, &answer(0, 1, 8192, 8192, true)).is_settled,
        "the second R2T is still to be answered"
    );
    let progress = take(&mut write, &answer(1, 0, 16_384, 16_384, true));
    assert!(progress.is_settled && !progress.is_complete);
    assert_eq!(progress.fault, Some(TransferFault::DataSnOutOfOrder), "the first fault counts");
}

#[test]
fn an_unsolicited_f_bit_answers_no_r2t() {
    let mut write = awaited(65_536, &lax());
    write.solicit(u32::MAX, &lax());
    let progress = take(&mut write, &burst(0, 0, 512, true));
    assert_eq!(progress.fault, Some(TransferFault::UnsolicitedDataNotAllowed));
    assert!(!progress.is_settled, "the answer to the R2T is still on its way");
    assert!(take(&mut write, &answer(0, 0, 0, 16_384, true)).is_settled);
}

#[test]
fn two_data_out_pdus_in_reverse_order_fail_the_write() {
    // libiscsi's iSCSIDataSnInvalid: (0,0), 27, -1 and (1,0) must none of them be taken for data.
    for numbers in [[0, 0], [27, 28], [u32::MAX, 0], [1, 0]] {
        let (mut write, _) = Write::begin(&command(1024, 0, false), &lax());
        write.arrived();
        write.want(1024);
        take(&mut write, &burst(numbers[0], 0, 512, false));
        let progress = take(&mut write, &burst(numbers[1], 512, 512, true));
        assert_eq!(progress.fault, Some(TransferFault::DataSnOutOfOrder), "{numbers:?}");
        assert!(progress.is_settled && !progress.is_complete);
    }
}

/// RFC 7143 §7.9: above level 0 what was lost is asked for again, whether it was in a sequence or all of one.
#[test]
fn data_out_that_is_missing_is_asked_for_again_where_errors_are_recovered_from() {
    let parameters = Parameters { max_burst_length: 8192, max_outstanding_r2t: 2, ..lax() };
    let mut write = awaited(24_576, &parameters);
    assert_eq!(write.solicit(u32::MAX, &parameters), r2t(0, 8192, 0));
    assert_eq!(write.solicit(u32::MAX, &parameters), r2t(8192, 8192, 1));
    let mut lacking = |pdu: &DataOut| {
        let segment = write.data_out(pdu, LUN, TTT_BASE, true);
        assert_eq!(segment.keep_bytes, 0);
        write.arrived();
        write.solicit(u32::MAX, &parameters)
    };
    // The first half of R2T 0's answer never came; nor does its end.
    assert_eq!(lacking(&answer(0, 1, 4096, 2048, false)), None);
    assert_eq!(lacking(&answer(1, 0, 8192, 4096, false)), None, "more is on its way");
    assert_eq!(lacking(&answer(1, 1, 12_288, 4096, true)), r2t(0, 8192, 2));
    assert_eq!(write.fault(), None);
}

#[test]
fn an_empty_data_out_pdu_is_a_normal_case() {
    let (mut write, _) = Write::begin(&command(4096, 4096, false), &lax());
    write.arrived();
    write.want(4096);
    let progress = take(&mut write, &burst(0, 4096, 0, true));
    assert!(progress.is_complete && progress.is_settled);
}

proptest! {
    /// An initiator that keeps to the rules, whatever the limits are and however it cuts its data, is never found at
    /// fault, is asked for each byte once, and has given all of it in the end.
    #[test]
    fn a_rightful_write_is_always_complete(
        length in 1_u32..200_000, first_burst in 512_u32..70_000, max_burst in 512_u32..70_000,
        immediate in 0_u32..70_000, burst_follows: bool, outstanding in 1_u16..40, cut in 512_u32..20_000,
        budget in 1_u32..100_000,
    ) {
        let parameters = Parameters {
            first_burst_length: first_burst.min(max_burst), max_burst_length: max_burst,
            max_outstanding_r2t: outstanding, ..lax()
        };
        let unsolicited = length.min(parameters.first_burst_length);
        let immediate = immediate.min(unsolicited);
        let (mut write, _) = Write::begin(&command(length, immediate, !burst_follows), &parameters);
        write.arrived();
        write.want(u64::from(length));
        let (mut at, mut data_sn) = (immediate, 0);
        let mut open = burst_follows;
        while open {
            let piece = cut.min(unsolicited - at);
            open = at + piece < unsolicited;
            take(&mut write, &burst(data_sn, at, piece, !open));
            at += piece;
            data_sn += 1;
        }
        let mut queue = std::collections::VecDeque::new();
        loop {
            while let Some(asked) = write.solicit(budget, &parameters) {
                prop_assert!(asked.length <= max_burst.min(budget));
                queue.push_back(asked);
                prop_assert!(queue.len() <= usize::from(outstanding));
            }
            let Some(asked) = queue.pop_front() else { break };
            prop_assert_eq!(asked.offset, at);
            let mut data_sn = 0;
            let end = at + asked.length;
            while at < end {
                let piece = cut.min(end - at);
                take(&mut write, &answer(asked.r2t_sn.0, data_sn, at, piece, at + piece == end));
                at += piece;
                data_sn += 1;
            }
        }
        let progress = write.progress();
        prop_assert_eq!(progress, Progress { received_bytes: length, is_complete: true, is_settled: true, fault: None });
    }

    /// Whatever comes, and however often the connection is lost: no panic, nothing is kept beyond what the initiator announced,
    /// and what is kept is one run of bytes.
    #[test]
    fn any_sequence_of_data_out_pdus_is_survived(
        length in 0_u32..100_000, immediate in 0_u32..100_000, is_final: bool, wanted in 0_u64..200_000,
        pdus: Vec<(u8, u8, u32, u16, bool)>, recovers: bool,
    ) {
        let (mut write, segment) = Write::begin(&command(length, immediate, is_final), &lax());
        prop_assert!(segment.keep_bytes <= length);
        let mut kept = segment.keep_bytes;
        write.arrived();
        write.want(wanted);
        for (tag, data_sn, offset, bytes, last) in pdus {
            write.solicit(u32::MAX, &lax());
            let (sn, offset, bytes) = (u32::from(data_sn % 3), offset % 100_000, u32::from(bytes));
            let pdu = match tag % 4 {
                3 => burst(sn, offset, bytes, last),
                tag => answer(u32::from(tag), sn, offset, bytes, last),
            };
            let segment = write.data_out(&pdu, LUN, TTT_BASE, recovers);
            if recovers && tag > 240 {
                // Its data segment never comes.
                write.suspend();
                write.resume(sn);
                prop_assert!(write.progress().is_settled);
                continue;
            }
            prop_assert!(segment.keep_bytes == 0 || segment.offset_bytes == kept);
            kept += segment.keep_bytes;
            prop_assert_eq!(segment.keep_bytes + segment.discard_bytes, bytes);
            prop_assert!(segment.keep_bytes == 0 || segment.offset_bytes + segment.keep_bytes <= length);
            let progress = write.arrived();
            prop_assert!(progress.received_bytes <= length);
            prop_assert!(progress.fault.is_none() || !progress.is_complete);
        }
    }
}
