//! Faults planted in a capture: a reader that finds nothing wrong proves nothing unless it finds these.
//!
//! A capture is dumpcap's (pcapng): blocks of a type, a length, a body and the length again; a packet is a block of type 6
//! whose body has 20 bytes in front of it. On loopback a packet is Ethernet, IPv4, TCP.

use std::fs;

use crate::lab::reader::{self, Speaker};
use crate::lab::wiretap::Capture;
use crate::lab::{Context, Failure, Result};

/// What is done to a PDU of the target, and what the reader has to say of it.
struct Fault {
    name: &'static str,
    /// Whether it can be planted in this PDU, which is alone in its packet.
    fits: fn(&[u8]) -> bool,
    plant: fn(&mut [u8]),
    words: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "a byte of a header",
        fits: |pdu| has_digests(pdu),
        plant: |pdu| pdu[RESERVED] ^= 1,
        words: "HeaderDigest",
    },
    Fault {
        name: "a byte of data",
        fits: |pdu| has_digests(pdu),
        plant: |pdu| pdu[BHS_BYTES + DIGEST_BYTES] ^= 1,
        words: "DataDigest",
    },
    Fault {
        name: "a segment without its length",
        fits: is_bare_response,
        plant: |pdu| pdu[5..8].fill(0),
        words: "Malformed",
    },
    Fault {
        name: "an opcode that there is not",
        fits: is_bare_response,
        plant: |pdu| pdu[0] = 0x2a,
        words: "Data (",
    },
];

/// Plants each fault in a copy of this capture, which is right; how many the reader found.
pub(super) fn all_are_found(capture: &Capture) -> Result<usize> {
    let bytes = fs::read(&capture.packets).context(capture.packets.display())?;
    for Fault { name, fits, plant, words } in FAULTS {
        let mut changed = bytes.clone();
        let pdu = segments(&bytes, &capture.ports).find(|place| fits(&bytes[place.clone()]));
        let pdu = pdu.ok_or_else(|| Failure::new(format!("{name}: no PDU to plant it in")))?;
        plant(&mut changed[pdu]);
        let packets = capture.packets.with_extension("planted");
        fs::write(&packets, changed).context(packets.display())?;
        let wrong = reader::read(&Capture { packets, ..capture.clone() })?.wrong;
        if !wrong.iter().any(|(speaker, said)| *speaker == Some(Speaker::Target) && said.contains(words)) {
            return Err(Failure::new(format!("{name}: the reader has not found it, but {wrong:?}")));
        }
    }
    Ok(FAULTS.len())
}

/// Where what these ports sent lies, packet by packet.
fn segments<'a>(bytes: &'a [u8], ports: &'a [u16]) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(head) = bytes.get(at..at + PACKET_AT) {
            let (kind, length) = (word(head, 0), word(head, 4));
            let block = at;
            at += length.max(PACKET_AT);
            if kind == ENHANCED_PACKET {
                let captured = word(head, 20);
                if let Some(found) = segment(bytes, block + PACKET_AT, captured, ports) {
                    return Some(found);
                }
            }
        }
        None
    })
}

/// The payload of this packet, where it has one and one of these ports sent it.
fn segment(bytes: &[u8], at: usize, length: usize, ports: &[u16]) -> Option<std::ops::Range<usize>> {
    let packet = bytes.get(at..at + length)?;
    let tcp = ETHERNET_BYTES + 4 * usize::from(packet.get(ETHERNET_BYTES)? & 0xf);
    let source = u16::from_be_bytes([*packet.get(tcp)?, *packet.get(tcp + 1)?]);
    let payload = tcp + 4 * usize::from(packet.get(tcp + 12)? >> 4);
    (ports.contains(&source) && length >= payload + BHS_BYTES).then_some(at + payload..at + length)
}

/// Data-In that is alone in its packet, with both digests.
fn has_digests(pdu: &[u8]) -> bool {
    let data = data_bytes(pdu);
    pdu[0] == DATA_IN && data > 0 && pdu.len() == BHS_BYTES + DIGEST_BYTES + padded(data) + DIGEST_BYTES
}

/// A SCSI Response with sense data that is alone in its packet, without digests.
fn is_bare_response(pdu: &[u8]) -> bool {
    let data = data_bytes(pdu);
    pdu[0] == SCSI_RESPONSE && data > 2 && pdu.len() == BHS_BYTES + padded(data)
}

fn data_bytes(pdu: &[u8]) -> usize {
    usize::from(pdu[5]) << 16 | usize::from(pdu[6]) << 8 | usize::from(pdu[7])
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(4)
}

/// As dumpcap writes it: in the order of this machine.
fn word(bytes: &[u8], at: usize) -> usize {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    usize::try_from(u32::from_ne_bytes(word)).unwrap_or(usize::MAX)
}

const ENHANCED_PACKET: usize = 6;
/// Type and length of the block, the interface, the time (8), the length captured and the length on the wire.
const PACKET_AT: usize = 28;
const ETHERNET_BYTES: usize = 14;
const BHS_BYTES: usize = 48;
const DIGEST_BYTES: usize = 4;
const SCSI_RESPONSE: u8 = 0x21;
const DATA_IN: u8 = 0x25;
/// A byte of Data-In that no reader looks at (§11.7: the LUN's second half, reserved without DataACK).
const RESERVED: usize = 15;
