//! In the full feature phase: a Reject with its reason where the connection can go on, the end of the connection where
//! it cannot, and silence where RFC 7143 wants silence (§4.2.2.1, §7, §11.17).

use portico_iscsi::initiator::LoginPlan;
use portico_iscsi::sn::DataSn;
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, DataOut, InitiatorTaskTag, LunField, ScsiCommand, TargetTransferTag,
    TaskManagementFunction, TaskManagementRequest, TextRequest,
};

use super::peer::{
    Heard, Peer, READ_10, REJECT, TASK_MANAGEMENT_RESPONSE, TEXT_RESPONSE, command, header, login_header,
    login_request, nop, pdu, plan, transfer, word,
};
use super::{Case, Scene};
use crate::lab::{Failure, Result};

pub(super) const CASES: &[Case] = &[
    Case { name: "an opcode that there is not is rejected", run: |scene| opcode_rejected(scene, 0x1f) },
    Case { name: "a target's opcode is rejected", run: |scene| opcode_rejected(scene, 0x21) },
    Case { name: "a login in the full feature phase is rejected", run: login_again },
    Case { name: "a SNACK at recovery level 0 is rejected", run: snack },
    Case { name: "a reserved task attribute is rejected", run: |scene| spoilt(scene, &|bhs| bhs[1] |= 7) },
    Case {
        name: "a command with neither F nor W is rejected",
        run: |scene| spoilt(scene, &|bhs| bhs[1] &= 0x7f),
    },
    Case { name: "a length without a direction is rejected", run: |scene| spoilt(scene, &|bhs| bhs[22] = 2) },
    Case {
        name: "the reserved task tag is rejected",
        run: |scene| spoilt(scene, &|bhs| bhs[16..20].fill(0xff)),
    },
    Case { name: "a command with an AHS of no known type is rejected or refused", run: unknown_ahs },
    Case { name: "more AHS than can mean anything drops the connection", run: too_much_ahs },
    Case { name: "one word more data than was declared drops the connection", run: too_much_data },
    Case { name: "a ping that announces 16 MiB drops the connection", run: largest_ping },
    Case { name: "a header that is cut short ends the session", run: header_cut },
    Case { name: "data that are cut short end the session", run: data_cut },
    Case {
        name: "a CmdSN beyond the window is passed over in silence",
        run: |scene| wrong_cmd_sn(scene, 5000),
    },
    Case {
        name: "a CmdSN of the past is passed over in silence",
        run: |scene| wrong_cmd_sn(scene, u32::MAX),
    },
    Case {
        name: "a CmdSN half way around is passed over in silence",
        run: |scene| wrong_cmd_sn(scene, 1 << 31),
    },
    Case { name: "an ExpStatSN of the future harms nobody", run: wrong_stat_sn },
    Case { name: "commands that come in the wrong order are served in the right one", run: out_of_order },
    Case { name: "a task tag that is in use is rejected", run: tag_in_use },
    Case { name: "Data-Out for no task is passed over in silence", run: data_for_nothing },
    Case { name: "a ping's answer with a made-up transfer tag is passed over", run: made_up_pong },
    Case { name: "a ping without task tag and I bit is rejected", run: silent_ping },
    Case { name: "text with both F and C is rejected", run: final_and_continues },
    Case { name: "text that begins with a made-up transfer tag is rejected", run: made_up_text },
    Case { name: "text that goes on for ever is rejected long before its end", run: endless_text },
    Case {
        name: "text without an equals sign is rejected",
        run: |scene| text_rejected(scene, b"SendTargets\0"),
    },
    Case { name: "a reserved logout reason is rejected", run: logout_reason },
    Case {
        name: "task management of a task that there is not says so",
        run: |scene| unknown_task(scene, 0, 1),
    },
    Case {
        name: "task management of a unit that there is not says so",
        run: |scene| unknown_task(scene, 99, 2),
    },
    Case { name: "a unit that there is not refuses a command", run: unknown_unit },
    Case { name: "an operation code that there is not is refused", run: unknown_operation },
    Case { name: "a discovery session has no use for commands", run: command_in_discovery },
    Case { name: "reads under way when the peer half-closes end the session", run: half_close_amid },
];

/// Sends one PDU, which is rejected for `reason`.
fn rejected(scene: &Scene, reason: u8, make: &dyn Fn(&Peer) -> Bhs) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let bhs = make(&peer);
    peer.send(&bhs)?;
    peer.expect_reject(reason, &bhs)
}

fn opcode_rejected(scene: &Scene, opcode: u8) -> Result<()> {
    rejected(scene, COMMAND_NOT_SUPPORTED, &|peer| {
        let mut bhs = nop(peer);
        bhs[0] = opcode;
        bhs
    })
}

fn login_again(scene: &Scene) -> Result<()> {
    rejected(scene, PROTOCOL_ERROR, &|_| login_header(login_request()))
}

fn snack(scene: &Scene) -> Result<()> {
    rejected(scene, SNACK_REJECT, &|peer| {
        let mut bhs = nop(peer);
        (bhs[0], bhs[1]) = (0x10, 0x81);
        bhs
    })
}

/// A command that is right but for `spoil` is rejected for an invalid field.
fn spoilt(scene: &Scene, spoil: &dyn Fn(&mut Bhs)) -> Result<()> {
    rejected(scene, INVALID_FIELD, &|peer| {
        let mut bhs = header(command(peer, 5));
        spoil(&mut bhs);
        bhs
    })
}

/// What an AHS of an unknown type means is not said. It may not be served as though it were not there, nor hang.
fn unknown_ahs(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let bhs = header(ScsiCommand { total_ahs_words: 2, ..command(&peer, 5) });
    peer.send(&[&bhs[..], &[0, 5, 0x3f, 0, 0, 0, 0, 0]].concat())?;
    match peer.hear()? {
        Heard::Closed => Ok(()),
        Heard::Pdu(reply, _) if reply[0] == REJECT && reply[2] == INVALID_FIELD => peer.ping(),
        Heard::Pdu(reply, _) if reply[0] == 0x21 && reply[3] != 0 => peer.ping(),
        Heard::Pdu(reply, _) => Err(Failure::new(format!("served all the same: {reply:02x?}"))),
    }
}

fn too_much_ahs(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let bhs = header(ScsiCommand { total_ahs_words: 255, ..command(&peer, 5) });
    peer.send(&[&bhs[..], &[0; 1020]].concat())?;
    peer.expect_closed()
}

fn too_much_data(scene: &Scene) -> Result<()> {
    let (mut peer, established) = Peer::log_in_as(scene.portal, plan(100))?;
    let limit = established.parameters.peer_max_recv_data_segment_length;
    let mut bhs = nop(&peer);
    bhs[4..8].copy_from_slice(&(limit + 4).to_be_bytes());
    peer.send(&bhs)?;
    peer.expect_closed()
}

fn largest_ping(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let mut bhs = nop(&peer);
    bhs[5..8].fill(0xff);
    peer.send(&bhs)?;
    peer.expect_closed()
}

fn header_cut(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    peer.send(&nop(&peer)[..20])?;
    peer.half_close();
    peer.expect_closed()
}

fn data_cut(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let whole = pdu(nop(&peer), &[7; 4096]);
    peer.send(&whole[..2000])?;
    peer.half_close();
    peer.expect_closed()
}

/// §4.2.2.1: "silently ignore any non-immediate command outside of this range".
fn wrong_cmd_sn(scene: &Scene, ahead: u32) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let cmd_sn = peer.cmd_sn.advanced_by(ahead);
    peer.send(&header(ScsiCommand { cmd_sn, ..command(&peer, 5) }))?;
    peer.ping()
}

fn wrong_stat_sn(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let mut bhs = nop(&peer);
    bhs[28..32].copy_from_slice(&0x7000_0000u32.to_be_bytes());
    peer.send(&bhs)?;
    peer.expect(super::peer::NOP_IN)?;
    peer.ping()
}

/// §4.2.2.1: delivery in the order of CmdSN, whatever came first.
fn out_of_order(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    for ahead in [3, 1, 2, 0] {
        let cmd_sn = peer.cmd_sn.advanced_by(ahead);
        peer.send(&header(ScsiCommand { cmd_sn, ..command(&peer, 10 + ahead) }))?;
        // Whatever is answered before its turn comes before this ping.
        if ahead != 0 {
            peer.ping()?;
        }
    }
    for tag in 10..14 {
        peer.expect_response(tag)?;
    }
    peer.ping()
}

fn tag_in_use(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    // It waits for those before it, so its tag stays taken.
    let ahead = peer.cmd_sn.advanced_by(1);
    peer.send(&header(ScsiCommand { cmd_sn: ahead, ..command(&peer, 5) }))?;
    let second = header(ScsiCommand { cmd_sn: ahead.next(), ..command(&peer, 5) });
    peer.send(&second)?;
    peer.expect_reject(INVALID_FIELD, &second)
}

fn data_for_nothing(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    for tag in [0, 0x1234_5678, 0xffff_fffe] {
        peer.send(&pdu(data_out(tag, 3, 0, 0, true), &[1; 4096]))?;
    }
    peer.ping()
}

fn made_up_pong(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let mut bhs = nop(&peer);
    bhs[16..20].fill(0xff);
    bhs[20..24].copy_from_slice(&77u32.to_be_bytes());
    peer.send(&pdu(bhs, b"you asked?"))?;
    peer.ping()
}

fn silent_ping(scene: &Scene) -> Result<()> {
    rejected(scene, PROTOCOL_ERROR, &|peer| {
        let mut bhs = nop(peer);
        bhs[0] = 0;
        bhs[16..20].fill(0xff);
        bhs
    })
}

fn text(peer: &Peer, flags: u8, transfer_tag: TargetTransferTag) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    TextRequest {
        immediate: true,
        is_final: false,
        continues: false,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(9),
        target_transfer_tag: transfer_tag,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: portico_iscsi::sn::StatSn(0),
    }
    .emit(&mut bhs);
    bhs[1] = flags;
    bhs
}

fn final_and_continues(scene: &Scene) -> Result<()> {
    rejected(scene, PROTOCOL_ERROR, &|peer| text(peer, FINAL | CONTINUES, TargetTransferTag::RESERVED))
}

fn made_up_text(scene: &Scene) -> Result<()> {
    rejected(scene, PROTOCOL_ERROR, &|peer| text(peer, FINAL, TargetTransferTag(0x3333)))
}

fn text_rejected(scene: &Scene, words: &[u8]) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let whole = pdu(text(&peer, FINAL, TargetTransferTag::RESERVED), words);
    peer.send(&whole)?;
    peer.expect_reject(PROTOCOL_ERROR, &whole)
}

/// The C bit without end; each piece but the last is answered by an empty one that hands on the transfer tag.
fn endless_text(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let mut transfer_tag = TargetTransferTag::RESERVED;
    for _ in 0..1000 {
        peer.send(&pdu(text(&peer, CONTINUES, transfer_tag), &[b't'; 4096]))?;
        match peer.hear()? {
            Heard::Pdu(bhs, data) if bhs[0] == TEXT_RESPONSE && bhs[1] & FINAL == 0 && data.is_empty() => {
                transfer_tag = TargetTransferTag(word(&bhs, 20));
            }
            Heard::Pdu(bhs, _) if bhs[0] == REJECT && bhs[2] == PROTOCOL_ERROR => return peer.ping(),
            other => return Err(Failure::new(format!("neither more nor Reject: {other:?}"))),
        }
    }
    Err(Failure::new("4 MB of text were taken"))
}

fn logout_reason(scene: &Scene) -> Result<()> {
    rejected(scene, INVALID_FIELD, &|peer| {
        let mut bhs = nop(peer);
        (bhs[0], bhs[1]) = (0x46, 0x80 | 0x7f);
        bhs
    })
}

fn unknown_task(scene: &Scene, lun: u8, result: u8) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let function =
        if lun == 0 { TaskManagementFunction::AbortTask } else { TaskManagementFunction::LogicalUnitReset };
    let mut bhs = [0; BHS_BYTES];
    TaskManagementRequest {
        immediate: true,
        function,
        lun: crate::lab::initiator::lun_field(lun),
        initiator_task_tag: InitiatorTaskTag(31),
        referenced_task_tag: if lun == 0 { InitiatorTaskTag(12_345) } else { InitiatorTaskTag::RESERVED },
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: portico_iscsi::sn::StatSn(0),
        // Outside of the window, or it would be a task that is still to come (§11.5.5).
        referenced_cmd_sn: peer.cmd_sn.advanced_by(1 << 20),
        expected_data_sn: DataSn(0),
    }
    .emit(&mut bhs);
    peer.send(&bhs)?;
    let (bhs, _) = peer.expect(TASK_MANAGEMENT_RESPONSE)?;
    if bhs[2] != result {
        return Err(Failure::new(format!("response {}", bhs[2])));
    }
    peer.ping()
}

fn unknown_unit(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    let read = transfer(&peer, 5, READ_10, 512);
    peer.send(&header(ScsiCommand { lun: LunField([0xff; 8]), ..read }))?;
    match peer.expect_response(5)? {
        (2, (5, 0x25, 0)) => peer.ping(),
        other => Err(Failure::new(format!("not LOGICAL UNIT NOT SUPPORTED: {other:x?}"))),
    }
}

fn unknown_operation(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    for (number, operation) in [0xff, 0xc1, 0x7f, 0x5d].into_iter().enumerate() {
        let tag = u32::try_from(number).expect("four");
        // All bits but NACA's, wherever CONTROL is: an ACA would have the next command hear of it.
        let mut cdb = [0xfb; 16];
        cdb[0] = operation;
        let cmd_sn = peer.cmd_sn;
        peer.send(&header(ScsiCommand { cmd_sn, cdb, ..command(&peer, tag) }))?;
        peer.cmd_sn = cmd_sn.next();
        match peer.expect_response(tag)? {
            // The first may find a unit attention instead.
            (2, (5, 0x20, 0) | (6, ..)) => {}
            other => return Err(Failure::new(format!("operation {operation:#x}: {other:x?}"))),
        }
    }
    peer.ping()
}

fn command_in_discovery(scene: &Scene) -> Result<()> {
    let discovery = LoginPlan::discovery("iqn.2026-11.test:rude");
    let (mut peer, _) = Peer::log_in_as(scene.portal, discovery)?;
    let bhs = header(command(&peer, 5));
    peer.send(&bhs)?;
    let (reply, _) = peer.expect(REJECT)?;
    if reply[2] == COMMAND_NOT_SUPPORTED { Ok(()) } else { Err(Failure::new(format!("for {:#x}", reply[2]))) }
}

fn half_close_amid(scene: &Scene) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 100)?;
    for tag in 0..16 {
        let read = header(transfer(&peer, tag, READ_10, 1 << 20));
        peer.cmd_sn = peer.cmd_sn.next();
        peer.send(&read)?;
    }
    peer.half_close();
    peer.drain()
}

/// A Data-Out header.
pub(super) fn data_out(tag: u32, transfer_tag: u32, data_sn: u32, offset: u32, is_final: bool) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    DataOut {
        is_final,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag(transfer_tag),
        expected_stat_sn: portico_iscsi::sn::StatSn(0),
        data_sn: DataSn(data_sn),
        buffer_offset: offset,
    }
    .emit(&mut bhs);
    bhs
}

const FINAL: u8 = 0x80;
const CONTINUES: u8 = 0x40;
const SNACK_REJECT: u8 = 0x03;
const PROTOCOL_ERROR: u8 = 0x04;
const COMMAND_NOT_SUPPORTED: u8 = 0x05;
const INVALID_FIELD: u8 = 0x09;
