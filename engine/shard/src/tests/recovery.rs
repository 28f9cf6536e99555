//! Recovery within a command, at level 1 (RFC 7143 §7.8, §11.16): what is asked for again comes again, as it was.

use super::*;
use portico_iscsi::digest;
use portico_iscsi::wire::{
    DataIn, InitiatorPdu, NopOut, Reject, RejectReason, ScsiResponse, Snack, SnackType,
};

const LEVEL_1: &str = "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=4096|MaxBurstLength=8192|\
                       FirstBurstLength=8192|ErrorRecoveryLevel=1|";

fn bench(keys: &str) -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let peer = bench.log_in(&[(0, 1)], keys);
    (bench, peer)
}

/// What has come; with data digests, these are right.
pub(super) fn hear(bench: &mut Bench, peer: &Peer, digests: bool) -> Vec<(TargetPdu, Vec<u8>)> {
    let bytes: Vec<u8> = bench.world.borrow_mut().sockets[peer.socket].from_shard.drain(..).collect();
    let mut rest = &bytes[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (bhs, after) = rest.split_at(BHS_BYTES);
        let bhs: &Bhs = bhs.try_into().expect("a whole header");
        let length = data_segment_length(bhs) as usize;
        let padded = length.next_multiple_of(4);
        let digest_bytes = if digests && length > 0 { 4 } else { 0 };
        assert_eq!(after[padded..padded + digest_bytes], digest::field_of(&after[..padded])[..digest_bytes]);
        all.push((TargetPdu::parse(bhs).expect("the shard speaks as it should"), after[..length].to_vec()));
        rest = &after[padded + digest_bytes..];
    }
    all
}

pub(super) fn send(bench: &mut Bench, peer: &Peer, pdu: InitiatorPdu) {
    let mut bhs = [0; BHS_BYTES];
    pdu.emit(&mut bhs);
    bench.post(peer, bhs, &[]);
}

fn snack(kind: SnackType, tag: u32, transfer: u32, run: (u32, u32)) -> InitiatorPdu {
    InitiatorPdu::Snack(Snack {
        kind,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        transfer_or_snack_tag: transfer,
        expected_stat_sn: StatSn(0),
        run_begin: run.0,
        run_length: run.1,
    })
}

/// NOP-Out that acknowledges all responses before this one.
pub(super) fn acknowledge(bench: &mut Bench, peer: &Peer, expected: StatSn) {
    let nop = NopOut {
        immediate: true,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: expected,
    };
    send(bench, peer, InitiatorPdu::NopOut(nop));
}

/// §11.16: what was never sent or was acknowledged is rejected as a protocol error; the number that goes with it.
fn rejected(bench: &mut Bench, peer: &Peer) -> Option<u32> {
    let heard = hear(bench, peer, false);
    match heard[..] {
        [(TargetPdu::Reject(Reject { reason: RejectReason::ProtocolError, data_sn_or_r2t_sn, .. }), _)] => {
            Some(data_sn_or_r2t_sn)
        }
        _ => None,
    }
}

fn is_rejected(bench: &mut Bench, peer: &Peer) -> bool {
    rejected(bench, peer).is_some()
}

/// A read of 16 KiB that has been sent: four Data-In PDUs in two sequences, then its response.
fn read_16k(bench: &mut Bench, peer: &mut Peer) -> Vec<(TargetPdu, Vec<u8>)> {
    bench.read(peer, 0, 9, 16 << 10);
    bench.land_all();
    let heard = hear(bench, peer, false);
    assert_eq!(heard.len(), 5);
    heard
}

pub(super) fn data_in(pdu: &TargetPdu) -> &DataIn {
    let TargetPdu::DataIn(data) = pdu else { panic!("{pdu:?}") };
    data
}

pub(super) fn response(pdu: &TargetPdu) -> &ScsiResponse {
    let TargetPdu::ScsiResponse(response) = pdu else { panic!("{pdu:?}") };
    response
}

#[test]
fn a_response_is_sent_again_until_it_is_acknowledged() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    bench.command(&mut peer, 0, 5, [0; 16], 0, &[]);
    let heard = hear(&mut bench, &peer, false);
    let stat_sn = response(&heard[0].0).stat_sn;
    for run in [(stat_sn.0, 1), (stat_sn.0, 0)] {
        send(&mut bench, &peer, snack(SnackType::Status, u32::MAX, u32::MAX, run));
        let again = hear(&mut bench, &peer, false);
        assert_eq!(again.len(), 1);
        assert_eq!(response(&again[0].0).stat_sn, stat_sn);
        assert_eq!(response(&again[0].0).initiator_task_tag, InitiatorTaskTag(5));
    }
    acknowledge(&mut bench, &peer, stat_sn.next());
    send(&mut bench, &peer, snack(SnackType::Status, u32::MAX, u32::MAX, (stat_sn.0, 1)));
    assert!(is_rejected(&mut bench, &peer));
}

/// RFC 7143 §11.16: BegRun and RunLength of 0 ask for all that is not acknowledged, whatever its numbers are.
#[test]
fn all_that_is_not_acknowledged_is_asked_for_by_zeroes() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    let first = read_16k(&mut bench, &mut peer);
    let stat_sn = response(&first[4].0).stat_sn;
    acknowledge(&mut bench, &peer, stat_sn);
    send(&mut bench, &peer, snack(SnackType::Status, u32::MAX, u32::MAX, (0, 0)));
    let again = hear(&mut bench, &peer, false);
    assert_eq!((again.len(), response(&again[0].0).stat_sn), (1, stat_sn));
    let transfer = data_in(&first[1].0).target_transfer_tag.0;
    send(&mut bench, &peer, snack(SnackType::DataAck, u32::MAX, transfer, (2, 0)));
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 0)));
    let again = hear(&mut bench, &peer, false);
    assert_eq!(again.iter().map(|(pdu, _)| data_in(pdu).data_sn.0).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn while_much_waits_to_be_sent_again_a_further_snack_is_rejected() {
    const SNACKS: usize = 100;
    let (mut bench, mut peer) = bench(LEVEL_1);
    let first = read_16k(&mut bench, &mut peer);
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    for _ in 0..SNACKS {
        send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 0)));
    }
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    let heard = hear(&mut bench, &peer, false);
    let again = heard.iter().filter(|(pdu, _)| matches!(pdu, TargetPdu::DataIn(_))).count();
    let rejected = heard.iter().filter(|(pdu, _)| matches!(pdu, TargetPdu::Reject(_))).count();
    assert_eq!((again, rejected), (4 * (1 + 64), SNACKS - 65), "the first is on its way, 256 PDUs wait");
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 1)));
    assert_eq!(hear(&mut bench, &peer, false)[0].1, first[0].1, "they have gone");
}

/// What is kept is in an account: a connection beyond its share gives up its own oldest data, and a SNACK for these is rejected
/// (§11.17.1), while another one keeps what it has.
#[test]
fn what_is_kept_is_bounded_for_all_connections_together_and_the_oldest_gives_way() {
    const MIB: u64 = 1 << 20;
    const KEYS: &str = "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=65536|MaxBurstLength=262144|\
                        ErrorRecoveryLevel=1|";
    fn read(bench: &mut Bench, peer: &mut Peer, tag: u32) -> Vec<(TargetPdu, Vec<u8>)> {
        bench.read(peer, 0, tag, 1 << 20);
        bench.land_all();
        let heard = hear(bench, peer, false);
        assert_eq!(heard.len(), 17, "16 of Data-In, and a response");
        heard
    }
    let (mut bench, first) = bench(KEYS);
    let mut greedy = [first, bench.log_in(&[(0, 1)], KEYS)];
    let mut late = bench.log_in(&[(0, 1)], KEYS);
    for peer in [&greedy[0], &greedy[1], &late] {
        // The unit attention of the beginning.
        acknowledge(&mut bench, peer, StatSn(3));
    }
    assert_eq!(bench.shard.core.budget.kept(), 0);
    for peer in &mut greedy {
        for tag in 1..=5 {
            read(&mut bench, peer, tag);
        }
    }
    assert_eq!(bench.shard.core.budget.kept(), 8 * MIB, "of 16, two connections have a half");
    let first = read(&mut bench, &mut late, 9);
    assert_eq!(bench.shard.core.budget.kept(), 8 * MIB + MIB / 2, "the share of one");
    send(&mut bench, &late, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 1)));
    let heard = hear(&mut bench, &late, false);
    let rejected =
        |pdu: &TargetPdu| matches!(pdu, TargetPdu::Reject(Reject { reason: RejectReason::SnackReject, .. }));
    assert!(heard.len() == 1 && rejected(&heard[0].0));
    send(&mut bench, &late, snack(SnackType::DataOrR2t, 9, u32::MAX, (8, 8)));
    let again: Vec<Vec<u8>> = hear(&mut bench, &late, false).into_iter().map(|(_, data)| data).collect();
    assert!(again == first[8..16].iter().map(|(_, data)| data.clone()).collect::<Vec<_>>());
    let stat_sn = response(&first[16].0).stat_sn;
    for peer in &greedy {
        acknowledge(&mut bench, peer, stat_sn.next().next().next().next().next());
    }
    // The header in the Reject.
    let rejected_bytes = BHS_BYTES as u64;
    assert_eq!(bench.shard.core.budget.kept(), MIB / 2 + rejected_bytes, "acknowledged");
    let second = read(&mut bench, &mut late, 10);
    assert_eq!(bench.shard.core.budget.kept(), MIB + MIB / 2 + rejected_bytes);
    send(&mut bench, &late, snack(SnackType::DataOrR2t, 10, u32::MAX, (0, 0)));
    assert_eq!(hear(&mut bench, &late, false).len(), second.len() - 1);
    bench.world.borrow_mut().cut(late.socket);
    bench.settle();
    assert_eq!(bench.shard.core.budget.kept(), 0);
}

#[test]
fn data_in_is_sent_again_as_it_was_and_its_status_goes_by_itself() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    let first = read_16k(&mut bench, &mut peer);
    assert!(first[..4].iter().all(|(pdu, _)| data_in(pdu).status.is_none()));
    assert_eq!(response(&first[4].0).expected_data_sn, 4);
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (1, 2)));
    let again = hear(&mut bench, &peer, false);
    assert_eq!(again.len(), 2);
    for (one, other) in first[1..3].iter().zip(&again) {
        let refreshed = DataIn {
            expected_cmd_sn: data_in(&other.0).expected_cmd_sn,
            maximum_cmd_sn: data_in(&other.0).maximum_cmd_sn,
            ..*data_in(&one.0)
        };
        assert_eq!((&refreshed, &one.1), (data_in(&other.0), &other.1));
    }
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (3, 2)));
    assert!(is_rejected(&mut bench, &peer), "a fifth was never sent");
    acknowledge(&mut bench, &peer, response(&first[4].0).stat_sn.next());
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 0)));
    assert!(is_rejected(&mut bench, &peer), "its response is acknowledged");
}

#[test]
fn a_data_ack_lets_go_of_what_has_come() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    let first = read_16k(&mut bench, &mut peer);
    let asks: Vec<bool> = first[..4].iter().map(|(pdu, _)| data_in(pdu).acknowledge).collect();
    assert_eq!(asks, [false, true, false, false], "at the end of each sequence but the last");
    let transfer = data_in(&first[1].0).target_transfer_tag.0;
    send(&mut bench, &peer, snack(SnackType::DataAck, u32::MAX, transfer, (2, 0)));
    assert_eq!(hear(&mut bench, &peer, false), []);
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (1, 1)));
    assert!(is_rejected(&mut bench, &peer));
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (2, 0)));
    assert_eq!(hear(&mut bench, &peer, false).len(), 2);
}

#[test]
fn an_r_data_snack_brings_all_of_the_data_and_a_response_with_its_tag() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    let first = read_16k(&mut bench, &mut peer);
    send(&mut bench, &peer, snack(SnackType::RData, 9, 0x55, (0, 0)));
    let again = hear(&mut bench, &peer, false);
    let data: Vec<u8> = again[..4].iter().flat_map(|(_, data)| data.iter().copied()).collect();
    assert_eq!(data, first[..4].iter().flat_map(|(_, data)| data.iter().copied()).collect::<Vec<_>>());
    let (old, new) = (response(&first[4].0), response(&again[4].0));
    assert_eq!((new.snack_tag, new.stat_sn, new.expected_data_sn), (0x55, old.stat_sn, 4));
}

#[test]
fn an_r2t_is_sent_again_and_is_answered_once() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    bench.write(&mut peer, 0, 9, 4096, &[]);
    let first = bench.heard(&peer);
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 1)));
    assert_eq!(bench.heard(&peer), first);
    bench.answer(&peer, &first[0]);
    bench.land_all();
    assert_eq!(bench.heard(&peer), [Heard::Status(9, GOOD)]);
}

#[test]
fn nothing_of_an_aborted_command_is_sent_again() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    bench.write(&mut peer, 0, 9, 4096, &[]);
    assert_eq!(bench.heard(&peer).len(), 1);
    let abort = TaskManagementRequest {
        immediate: true,
        function: TaskManagementFunction::AbortTask,
        lun: lun_field(0),
        initiator_task_tag: InitiatorTaskTag(0x77),
        referenced_task_tag: InitiatorTaskTag(9),
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: StatSn(0),
        referenced_cmd_sn: peer.cmd_sn.previous(),
        expected_data_sn: DataSn(0),
    };
    send(&mut bench, &peer, InitiatorPdu::TaskManagement(abort));
    assert_eq!(bench.heard(&peer), [Heard::Managed(TaskManagementResult::Complete)]);
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (0, 0)));
    assert!(is_rejected(&mut bench, &peer));
}

#[test]
fn a_snack_for_what_is_not_kept_earns_a_reject() {
    let (mut bench, peer) = bench(LEVEL_1);
    for kind in [SnackType::Status, SnackType::DataOrR2t, SnackType::RData] {
        send(&mut bench, &peer, snack(kind, 4, 4, (7, 1)));
        assert!(is_rejected(&mut bench, &peer), "{kind:?}");
    }
    send(&mut bench, &peer, snack(SnackType::DataAck, u32::MAX, 4, (7, 0)));
    assert_eq!(bench.heard(&peer), [], "what has come has come");
}

/// §11.17.2: the Reject has the next DataSN or R2TSN that the target would send.
#[test]
fn a_snack_for_what_was_never_sent_tells_the_next_number() {
    let (mut bench, mut peer) = bench(LEVEL_1);
    bench.write(&mut peer, 0, 9, 4096, &[]);
    assert_eq!(bench.heard(&peer).len(), 1);
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 9, u32::MAX, (1, 1)));
    assert_eq!(rejected(&mut bench, &peer), Some(1), "R2T 0 was sent");
    bench.read(&mut peer, 0, 10, 4096);
    send(&mut bench, &peer, snack(SnackType::DataOrR2t, 10, u32::MAX, (0, 1)));
    assert_eq!(rejected(&mut bench, &peer), Some(0), "its data are still at the medium");
}

/// Answers an R2T in one PDU, with a data digest that is right or not.
fn answer(bench: &mut Bench, peer: &Peer, r2t: &R2t, is_right: bool) {
    let length = r2t.desired_data_transfer_length;
    let mut bhs = [0; BHS_BYTES];
    DataOut {
        is_final: true,
        data_segment_length: length,
        lun: r2t.lun,
        initiator_task_tag: r2t.initiator_task_tag,
        target_transfer_tag: r2t.target_transfer_tag,
        expected_stat_sn: StatSn(0),
        data_sn: DataSn(0),
        buffer_offset: r2t.buffer_offset,
    }
    .emit(&mut bhs);
    let data = vec![0x5a; length as usize];
    let mut field = digest::field_of(&data);
    if !is_right {
        field[0] ^= 1;
    }
    {
        let world = &mut *bench.world.borrow_mut();
        let to_shard = &mut world.sockets[peer.socket].to_shard;
        to_shard.extend(bhs);
        to_shard.extend(data);
        to_shard.extend(field);
        world.feed(peer.socket);
    }
    bench.settle();
}

/// Each R2T of a write in its turn is answered wrongly once; the write ends with GOOD, and has all of its data once.
#[test]
fn data_with_a_wrong_digest_is_asked_for_again_whichever_it_is() {
    const R2TS: usize = 4;
    for spoilt in 0..R2TS {
        let (mut bench, mut peer) = bench(&format!("{LEVEL_1}DataDigest=CRC32C|MaxOutstandingR2T=2|"));
        let length = u32::try_from(R2TS).unwrap() * 8192;
        bench.write(&mut peer, 0, 9, length, &[]);
        let (mut answered, mut rejected, mut status) = (0, 0, None);
        let mut r2ts = std::collections::VecDeque::new();
        while status.is_none() {
            for (pdu, _) in hear(&mut bench, &peer, true) {
                match pdu {
                    TargetPdu::R2t(r2t) => r2ts.push_back(r2t),
                    TargetPdu::Reject(reject) => {
                        assert_eq!(reject.reason, RejectReason::DataDigestError);
                        rejected += 1;
                    }
                    TargetPdu::ScsiResponse(response) => status = Some(response.status),
                    other => panic!("{other:?}"),
                }
            }
            if let Some(r2t) = r2ts.pop_front() {
                answer(&mut bench, &peer, &r2t, answered != spoilt);
                answered += 1;
            } else if status.is_none() {
                let landed = bench.land();
                assert!(
                    matches!(landed, What::Write { offset_bytes: 0, length_bytes: 32_768, .. }),
                    "{landed:?}"
                );
            }
        }
        assert_eq!((status, rejected), (Some(GOOD), 1), "R2T {spoilt}");
        assert!(bench.world.borrow().at_medium.is_empty(), "all of it was written once");
    }
}
