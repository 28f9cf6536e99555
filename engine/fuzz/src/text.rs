//! Text: key=value pairs in segments (RFC 7143 §6.1), values, and whole exchanges in the full feature phase (§11.10).

use std::net::SocketAddr;

use portico_iscsi::discovery::{ANSWER_BYTES_MAX, Asked, TargetRecord, TextExchange};
use portico_iscsi::login::SessionType;
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::text::value::{self, LARGE_BINARY_BYTES_MAX};
use portico_iscsi::text::{Incoming, KEY_BYTES_MAX, Outgoing, STEP_BYTES_MAX};
use portico_iscsi::wire::{BHS_BYTES, InitiatorTaskTag, LunField, TargetTransferTag, TextRequest};

use crate::wire::told;
use crate::{Fuzzer, Source, Trace};

/// See the module.
pub const FUZZER: Fuzzer = Fuzzer { name: "text", run, dictionary: WORDS, bytes_max: 4096 };

pub(crate) const WORDS: &[&[u8]] = &[
    b"InitiatorName=iqn.1993-08.org.debian:01:abc\0",
    b"TargetName=iqn.2026-11.io.portico:default\0",
    b"TargetName=iqn.2026-11.io.portico:proof\0",
    b"SessionType=Discovery\0",
    b"SessionType=Normal\0",
    b"AuthMethod=CHAP,None\0",
    b"AuthMethod=None\0",
    b"CHAP_A=5\0",
    b"CHAP_A=8,7,6,5\0",
    b"CHAP_N=joe\0CHAP_R=0x00112233445566778899aabbccddeeff\0",
    b"CHAP_I=1\0CHAP_C=0x0102030405060708\0",
    b"SendTargets=All\0",
    b"SendTargets=\0",
    b"SendTargets=iqn.2026-11.io.portico:default\0",
    b"HeaderDigest=CRC32C,None\0",
    b"DataDigest=None,CRC32C\0",
    b"MaxRecvDataSegmentLength=262144\0",
    b"MaxBurstLength=16776192\0",
    b"FirstBurstLength=0x40000\0",
    b"InitialR2T=No\0",
    b"ImmediateData=Yes\0",
    b"MaxConnections=8\0",
    b"MaxOutstandingR2T=1\0",
    b"DefaultTime2Wait=2\0",
    b"DefaultTime2Retain=20\0",
    b"ErrorRecoveryLevel=2\0",
    b"DataPDUInOrder=Yes\0",
    b"DataSequenceInOrder=No\0",
    b"IFMarker=No\0OFMarker=No\0",
    b"OFMarkInt=Irrelevant\0",
    b"iSCSIProtocolLevel=1\0",
    b"TaskReporting=RFC3720\0",
    b"X-com.example.key=1\0",
    b"=",
    b"\0",
    b"0x",
    b"0b",
    b"Reject",
    b"NotUnderstood",
    b"Irrelevant",
    b",",
    b"~",
];

fn run(input: &[u8], trace: &mut Trace) {
    let mut source = Source::new(input);
    match source.below(3) {
        0 => pairs(&mut source, trace),
        1 => values(source.take(usize::MAX), trace),
        _ => exchange(&mut source, trace),
    }
}

/// Segments come in, pairs come out; written again and cut into other pieces they are the same pairs.
fn pairs(source: &mut Source<'_>, trace: &mut Trace) {
    let mut incoming = Incoming::with_bound(STEP_BYTES_MAX);
    while !source.is_empty() {
        let length = usize::from(source.byte());
        if let Err(violation) = incoming.append(source.take(length)) {
            return told(&violation, trace);
        }
    }
    let mut known = Vec::new();
    for pair in incoming.pairs() {
        match pair {
            Ok(pair) => {
                assert!(pair.key.len() <= KEY_BYTES_MAX && !pair.value.contains(&0));
                known.push((pair.key.to_owned(), pair.value.to_vec()));
            }
            Err(violation) => return told(&violation, trace),
        }
    }
    trace.mark(known.len().min(4));
    let mut outgoing = Outgoing::with_bound(STEP_BYTES_MAX);
    for (key, value) in &known {
        if outgoing.push(key, value).is_err() {
            return trace.mark("full");
        }
    }
    let piece_bytes = 1 + known.len() * 7 % 61;
    let mut again = Incoming::with_bound(STEP_BYTES_MAX);
    loop {
        let piece = outgoing.take_piece(piece_bytes);
        assert!(piece.bytes.len() <= piece_bytes);
        again.append(piece.bytes).expect("no more than there was");
        if !piece.continues {
            break;
        }
    }
    let back: Vec<_> = again.pairs().map(|pair| pair.expect("it was a pair")).collect();
    assert_eq!(back.len(), known.len());
    assert!(back.iter().zip(&known).all(|(back, (key, value))| back.key == key && back.value == value));
}

fn values(bytes: &[u8], trace: &mut Trace) {
    trace.mark(value::boolean(bytes));
    let number = value::number(bytes);
    if let Some(number) = number {
        assert_eq!(value::number(number.to_string().as_bytes()), Some(number));
        assert_eq!(value::number(format!("0x{number:x}").as_bytes()), Some(number));
    }
    let range = value::range(bytes);
    let mut binary = [0; LARGE_BINARY_BYTES_MAX];
    let length = value::binary(bytes, &mut binary);
    if let Some(length) = length {
        let hex: String = binary[..length].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut again = [0; LARGE_BINARY_BYTES_MAX];
        if length > 0 {
            assert_eq!(value::binary(format!("0x{hex}").as_bytes(), &mut again), Some(length));
            assert_eq!(binary[..length], again[..length]);
        }
    }
    let list = value::list(bytes).count();
    trace.mark((number.is_some(), range.is_some(), length.is_some(), list.min(3)));
}

/// Text Requests in any order: each is answered within its bounds, or ends the exchange.
fn exchange(source: &mut Source<'_>, trace: &mut Trace) {
    let (session_type, own) = match source.flag() {
        true => (SessionType::Discovery, None),
        false => (SessionType::Normal, Some("iqn.2026-11.io.portico:default".to_owned())),
    };
    let mut exchange = TextExchange::new(session_type, own);
    let segment_bytes_max = source.pick(&[512, 513, 8192, 262_144]);
    let targets = usize::from(source.byte()) * 8;
    let mut tag = TargetTransferTag::RESERVED;
    while !source.is_empty() {
        let choice = source.byte();
        let length = usize::from(source.half()) % 600;
        let data = source.take(length);
        let request = TextRequest {
            immediate: choice & 1 != 0,
            is_final: choice & 2 != 0,
            continues: choice & 4 != 0,
            data_segment_length: u32::try_from(data.len()).expect("short"),
            lun: LunField::default(),
            initiator_task_tag: InitiatorTaskTag(u32::from(choice >> 6)),
            target_transfer_tag: match choice >> 3 & 3 {
                0 => TargetTransferTag::RESERVED,
                3 => TargetTransferTag(u32::from(choice)),
                _ => tag,
            },
            cmd_sn: CmdSn(1),
            expected_stat_sn: StatSn(1),
        };
        let mut bhs = [0; BHS_BYTES];
        request.emit(&mut bhs);
        let Ok(request) = TextRequest::parse(&bhs) else { continue };
        match exchange.receive(&request, data, segment_bytes_max, &|asked| list(asked, targets)) {
            Ok(reply) => {
                assert!(
                    reply.text.len() <= segment_bytes_max as usize && reply.text.len() <= ANSWER_BYTES_MAX
                );
                assert_eq!(reply.part.length_bytes as usize, reply.text.len());
                assert!(!(reply.part.is_final && reply.part.continues));
                assert!(!reply.part.is_final || request.is_final, "F is the initiator's to say first");
                assert_eq!(reply.part.target_transfer_tag.is_reserved(), reply.part.is_final);
                tag = reply.part.target_transfer_tag;
                trace.mark((reply.part.is_final, reply.part.continues, reply.text.is_empty(), reply.is_cut));
            }
            Err(violation) => {
                tag = TargetTransferTag::RESERVED;
                told(&violation, trace);
            }
        }
    }
}

fn list(asked: Asked<'_>, targets: usize) -> Vec<TargetRecord> {
    let portals = vec![(SocketAddr::from(([10, 0, 0, 1], 3260)), 1)];
    let record =
        |number: usize| TargetRecord { name: format!("iqn.2026-11.test:{number}"), portals: portals.clone() };
    match asked {
        Asked::All => (0..targets).map(record).collect(),
        Asked::Named(name) => vec![TargetRecord { name: name.chars().take(223).collect(), portals }],
    }
}
