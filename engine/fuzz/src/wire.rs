//! Headers, AHS, lengths and digests (RFC 7143 §11).

use portico_iscsi::digest;
use portico_iscsi::framing::{Digests, Lengths, PDU_BYTES_MAX};
use portico_iscsi::violation::Violation;
use portico_iscsi::wire::ahs::{AHS_BYTES_MAX, AdditionalHeaders};
use portico_iscsi::wire::{BHS_BYTES, Bhs, InitiatorPdu, TargetPdu, opcode};

use crate::{Fuzzer, Source, Trace};

/// See the module.
pub const FUZZER: Fuzzer = Fuzzer { name: "wire", run, dictionary: &[], bytes_max: 4 * 512 };

/// Opcodes of both ends (§11.2.1.2), and some of nobody.
const OPCODES: [u8; 22] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32,
    0x3f, 0x1c, 0x07, 0x1f, 0x30,
];
const LIMITS: [u32; 4] = [0, 512, 8192, 0x00ff_ffff];

fn run(input: &[u8], trace: &mut Trace) {
    let mut source = Source::new(input);
    for _ in 0..4 {
        let choice = source.byte();
        let mut bhs: Bhs = source.array();
        if choice & 1 == 0 {
            bhs[0] = source.pick(&OPCODES) | choice & 0x40;
        }
        if choice & 2 == 0 {
            // No AHS, and short data: most headers are like this.
            bhs[4..6].fill(0);
        }
        let digests = Digests { header: choice & 4 != 0, data: choice & 8 != 0 };
        lengths(&bhs, digests, source.pick(&LIMITS), trace);
        both_ways(&bhs, trace);
        let ahs = source.take(usize::from(source.clone().byte()) * 2);
        additional(ahs, trace);
        check_digest(&bhs, ahs, usize::from(choice), trace);
        if source.is_empty() {
            return;
        }
    }
}

fn lengths(bhs: &Bhs, digests: Digests, limit: u32, trace: &mut Trace) {
    match Lengths::of(bhs, digests, limit) {
        Ok(lengths) => {
            assert!(lengths.data_segment_bytes <= limit);
            assert!(lengths.pdu_bytes() <= PDU_BYTES_MAX && lengths.pdu_bytes().is_multiple_of(4));
            assert_eq!(lengths.pdu_bytes(), lengths.header_bytes() + lengths.data_bytes());
            trace.mark((lengths.ahs_bytes > 0, lengths.data_segment_bytes > 0, lengths.padding_bytes));
        }
        Err(violation) => told(&violation, trace),
    }
}

/// What was parsed is written, and parses to the same.
fn both_ways(bhs: &Bhs, trace: &mut Trace) {
    let mut again = [0xff; BHS_BYTES];
    match InitiatorPdu::parse(bhs) {
        Ok(pdu) => {
            pdu.emit(&mut again);
            assert_eq!(InitiatorPdu::parse(&again), Ok(pdu));
            assert_eq!(opcode(bhs), opcode(&again));
            trace.mark_kind(&pdu);
        }
        Err(violation) => told(&violation, trace),
    }
    again.fill(0xff);
    match TargetPdu::parse(bhs) {
        Ok(pdu) => {
            pdu.emit(&mut again);
            assert_eq!(TargetPdu::parse(&again), Ok(pdu));
            trace.mark_kind(&pdu);
        }
        Err(violation) => told(&violation, trace),
    }
}

fn additional(bytes: &[u8], trace: &mut Trace) {
    match AdditionalHeaders::parse(bytes) {
        Ok(headers) => {
            trace.mark((headers.extended_cdb.is_some(), headers.bidirectional_read_length.is_some()));
            if headers.emitted_bytes() <= AHS_BYTES_MAX {
                let mut again = [0; AHS_BYTES_MAX];
                let length = headers.emit(&mut again);
                assert_eq!(AdditionalHeaders::parse(&again[..length]), Ok(headers));
            }
        }
        Err(violation) => told(&violation, trace),
    }
}

/// A digest holds, and does not hold with one bit flipped.
fn check_digest(bhs: &Bhs, ahs: &[u8], flipped: usize, trace: &mut Trace) {
    let mut header = [&bhs[..], ahs].concat();
    let field = digest::field_of(&header);
    header.extend_from_slice(&field);
    let digests = Digests { header: true, data: true };
    assert_eq!(digests.check_header(&header), Ok(()));
    let at = flipped % header.len();
    header[at] ^= 1 << (flipped % 8);
    assert_eq!(digests.check_header(&header), Err(Violation::HeaderDigestWrong));
    trace.mark("digest");
}

/// A violation knows its answer, and what to say of itself.
pub(crate) fn told(violation: &Violation, trace: &mut Trace) {
    assert!(!violation.to_string().is_empty());
    trace.mark_kind(&violation.answer());
    trace.mark_kind(violation);
}
