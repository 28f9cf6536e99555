//! Writes whose data are wrong: the command ends with ABORTED COMMAND and what RFC 7143 §11.4.7.2 names, once its data
//! have settled; nothing is written, and the session goes on.

use portico_iscsi::initiator::{LoginPlan, Offer};
use portico_iscsi::wire::ScsiCommand;

use super::after_login::data_out;
use super::peer::{
    DATA_IN, Heard, Peer, R2T, READ_10, REJECT, SCSI_RESPONSE, WRITE_10, header, pdu, plan, transfer, word,
};
use super::{Case, Scene};
use crate::lab::{Failure, Result};

pub(super) const CASES: &[Case] = &[
    Case { name: "Data-Out with a made-up transfer tag spoils its command", run: made_up_tag },
    Case { name: "Data-Out that skips a DataSN spoils its command", run: skipped_data_sn },
    Case { name: "Data-Out at the wrong offset spoils its command", run: wrong_offset },
    Case { name: "more data than the R2T asked for spoil the command", run: beyond_r2t },
    Case { name: "an F bit before the last byte spoils the command", run: final_too_early },
    Case { name: "unsolicited data where none were agreed on spoil the command", run: unsolicited },
    Case { name: "immediate data where none were agreed on spoil the command", run: immediate },
    Case { name: "more immediate data than the command moves are rejected", run: immediate_beyond },
    Case { name: "data at an offset near 2^32 end the session", run: beyond_addresses },
    Case { name: "a write whose data never come is aborted by the session's end", run: abandoned },
    Case { name: "a right write is served after all that", run: right_write },
];

/// Begins a write of 8 KiB, and gives the transfer tag of its R2T.
fn begin(peer: &mut Peer) -> Result<u32> {
    peer.send(&header(transfer(peer, TAG, WRITE_10, LENGTH)))?;
    peer.cmd_sn = peer.cmd_sn.next();
    loop {
        let (bhs, _) = match peer.hear()? {
            Heard::Pdu(bhs, data) => (bhs, data),
            Heard::Closed => return Err(Failure::new("closed instead of R2T")),
        };
        match bhs[0] {
            R2T if word(&bhs, 44) == LENGTH => return Ok(word(&bhs, 20)),
            // A unit attention was first.
            SCSI_RESPONSE if bhs[3] == 2 => {
                peer.send(&header(transfer(peer, TAG, WRITE_10, LENGTH)))?;
                peer.cmd_sn = peer.cmd_sn.next();
            }
            _ => return Err(Failure::new(format!("no R2T for the whole: {bhs:02x?}"))),
        }
    }
}

/// Sends what `send` makes of the transfer tag, and expects ABORTED COMMAND with this ASC and ASCQ.
fn spoils(scene: &Scene, send: &dyn Fn(u32) -> Vec<Vec<u8>>, asc: u8, ascq: u8) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let transfer_tag = begin(&mut peer)?;
    for pdu in send(transfer_tag) {
        peer.send(&pdu)?;
    }
    expect_aborted(&mut peer, asc, ascq)?;
    peer.ping()
}

fn expect_aborted(peer: &mut Peer, asc: u8, ascq: u8) -> Result<()> {
    match peer.expect_response(TAG)? {
        (2, (0x0b, a, q)) if (a, q) == (asc, ascq) => Ok(()),
        other => Err(Failure::new(format!("{other:x?} instead of ABORTED COMMAND, {asc:02x}/{ascq:02x}"))),
    }
}

fn made_up_tag(scene: &Scene) -> Result<()> {
    let send = |tag: u32| {
        let wrong = pdu(data_out(TAG, tag ^ 0x5555, 0, 0, true), &BYTES);
        vec![wrong, pdu(data_out(TAG, tag, 0, 0, true), &BYTES)]
    };
    spoils(scene, &send, 0x47, 0x05)
}

fn skipped_data_sn(scene: &Scene) -> Result<()> {
    let half = BYTES.len() / 2;
    let send = |tag: u32| {
        vec![
            pdu(data_out(TAG, tag, 0, 0, false), &BYTES[half..]),
            pdu(data_out(TAG, tag, 2, LENGTH / 2, true), &BYTES[half..]),
        ]
    };
    spoils(scene, &send, 0x47, 0x05)
}

fn wrong_offset(scene: &Scene) -> Result<()> {
    let half = BYTES.len() / 2;
    let send = |tag: u32| {
        vec![
            pdu(data_out(TAG, tag, 0, LENGTH / 2, false), &BYTES[half..]),
            pdu(data_out(TAG, tag, 1, 0, true), &BYTES[half..]),
        ]
    };
    spoils(scene, &send, 0x47, 0x05)
}

fn beyond_r2t(scene: &Scene) -> Result<()> {
    let send = |tag: u32| {
        vec![pdu(data_out(TAG, tag, 0, 0, false), &BYTES), pdu(data_out(TAG, tag, 1, LENGTH, true), &BYTES)]
    };
    spoils(scene, &send, 0x0c, 0x0d)
}

fn final_too_early(scene: &Scene) -> Result<()> {
    spoils(scene, &|tag| vec![pdu(data_out(TAG, tag, 0, 0, true), &BYTES[..4096])], 0x0c, 0x0d)
}

fn unsolicited(scene: &Scene) -> Result<()> {
    let mut peer = ready(Peer::log_in(scene.portal, 100)?)?;
    let write = ScsiCommand { is_final: false, ..transfer(&peer, TAG, WRITE_10, LENGTH) };
    peer.send(&header(write))?;
    peer.send(&pdu(data_out(TAG, u32::MAX, 0, 0, true), &BYTES))?;
    expect_spoilt(&mut peer, 0x0c, 0x0c)
}

fn immediate(scene: &Scene) -> Result<()> {
    let mut peer = ready(Peer::log_in(scene.portal, 100)?)?;
    peer.send(&pdu(header(transfer(&peer, TAG, WRITE_10, LENGTH)), &BYTES))?;
    expect_spoilt(&mut peer, 0x0c, 0x0c)
}

/// As [`expect_aborted`], where the target may still ask for data first; it gets them.
fn expect_spoilt(peer: &mut Peer, asc: u8, ascq: u8) -> Result<()> {
    loop {
        match peer.hear()? {
            Heard::Pdu(bhs, _) if bhs[0] == R2T => {
                peer.send(&pdu(data_out(TAG, word(&bhs, 20), 0, word(&bhs, 40), true), &BYTES))?;
            }
            Heard::Pdu(bhs, data) if bhs[0] == SCSI_RESPONSE => {
                let sense = crate::lab::initiator::sense_of(data.get(2..).unwrap_or_default());
                let right = bhs[3] == 2 && sense == (0x0b, asc, ascq);
                return if right {
                    peer.ping()
                } else {
                    Err(Failure::new(format!("{:x} {sense:x?}", bhs[3])))
                };
            }
            other => return Err(Failure::new(format!("{other:?}"))),
        }
    }
}

fn immediate_beyond(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let whole = pdu(header(transfer(&peer, TAG, WRITE_10, 512)), &[1; 1024]);
    peer.send(&whole)?;
    let (bhs, _) = peer.expect(REJECT)?;
    if bhs[2] == 0x09 { peer.ping() } else { Err(Failure::new(format!("rejected for {:#x}", bhs[2]))) }
}

fn beyond_addresses(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let tag = begin(&mut peer)?;
    peer.send(&pdu(data_out(TAG, tag, 0, u32::MAX - 100, true), &BYTES))?;
    peer.expect_closed()
}

fn abandoned(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let tag = begin(&mut peer)?;
    peer.send(&pdu(data_out(TAG, tag, 0, 0, false), &BYTES[..1024]))?;
    drop(peer);
    right_write(scene)
}

/// What none of the others may have written is read back after it was written right.
fn right_write(scene: &Scene) -> Result<()> {
    let offer = Offer::default().with("MaxRecvDataSegmentLength", "262144");
    let mut peer = ready(Peer::log_in_as(scene.portal, LoginPlan { offer, ..plan(101) })?.0)?;
    let data: Vec<u8> = (0..LENGTH).map(|index| u8::try_from(index % 251).expect("below 256")).collect();
    peer.send(&pdu(header(transfer(&peer, TAG, WRITE_10, LENGTH)), &data))?;
    peer.cmd_sn = peer.cmd_sn.next();
    if peer.expect_response(TAG)?.0 != 0 {
        return Err(Failure::new("the write was refused"));
    }
    peer.send(&header(transfer(&peer, TAG, READ_10, LENGTH)))?;
    let (_, read) = peer.expect(DATA_IN)?;
    if read == data { Ok(()) } else { Err(Failure::new("other bytes came back")) }
}

/// Takes the unit attentions.
fn ready(mut peer: Peer) -> Result<Peer> {
    for tag in 50..58 {
        peer.send(&header(super::peer::command(&peer, tag)))?;
        peer.cmd_sn = peer.cmd_sn.next();
        if peer.expect_response(tag)?.0 == 0 {
            return Ok(peer);
        }
    }
    Err(Failure::new("unit attentions without end"))
}

const TAG: u32 = 0x600d;
const LENGTH: u32 = 8192;
const BYTES: [u8; 8192] = [0xbd; 8192];
