//! What the player sends, and what happens to it on its way.

use portico_iscsi::digest;
use portico_iscsi::sn::{CmdSn, DataSn};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, Cid, DataOut, InitiatorPdu, InitiatorTaskTag, LogoutReason, LogoutRequest, LunField,
    NopIn, NopOut, ScsiCommand, Snack, SnackType, TargetTransferTag, TaskAttribute, TaskManagementFunction,
    TaskManagementRequest,
};

use crate::hub::{Hub, Side};
use crate::initiator::lun_of;
use crate::stamp::{self, Content, SECTOR_BYTES};

use super::Fate;
use super::player::{PLAYER, Player, Reach};

impl Player {
    /// Sends a PDU. False where the connection is lost.
    fn post(&mut self, hub: &mut Hub, way: usize, bhs: &Bhs, data: &[u8]) -> bool {
        let Reach::Open { connection } = self.ways[way].reach else { return false };
        if self.strikes(hub, Fate::Cut) || self.strikes(hub, Fate::Abandoned) {
            self.lose(hub, way);
            return false;
        }
        if self.strikes(hub, Fate::Lost) {
            return true;
        }
        let mut bytes = bhs.to_vec();
        let mut header_digest = digest::field_of(bhs);
        header_digest[1] ^= u8::from(self.strikes(hub, Fate::HeaderSpoilt)) << 3;
        bytes.extend(header_digest);
        if !data.is_empty() {
            assert!(data.len().is_multiple_of(4), "whole sectors need no padding");
            bytes.extend(data);
            let mut data_digest = digest::field_of(data);
            data_digest[2] ^= u8::from(self.strikes(hub, Fate::DataSpoilt)) << 5;
            bytes.extend(data_digest);
        }
        hub.post(connection, Side::Initiator, bytes);
        true
    }

    fn tell(&mut self, hub: &mut Hub, way: usize, pdu: InitiatorPdu) {
        let mut bhs = [0; BHS_BYTES];
        pdu.emit(&mut bhs);
        self.post(hub, way, &bhs, &[]);
    }

    fn new_tag(&mut self) -> u32 {
        self.next_tag += 1;
        self.next_tag
    }

    /// A command takes its number, and is sent.
    pub(super) fn submit(&mut self, hub: &mut Hub, at: usize) {
        let tag = self.new_tag();
        let session = self.serial;
        let order = &mut self.orders[at];
        let area = (order.line.first, order.line.sectors);
        (order.tag, order.cmd_sn) = (tag, self.cmd_sn);
        order.is_submitted = true;
        order.asked = hub.history.step();
        if order.line.writes {
            order.id = hub.history.begin_write(0, (PLAYER, session), area, Content::Placed);
            order.data.resize(usize::try_from(area.1).expect("few") * SECTOR_BYTES, 0);
            for (sector, place) in (area.0..).zip(order.data.chunks_exact_mut(SECTOR_BYTES)) {
                stamp::emit(order.id, sector, place);
            }
        }
        self.cmd_sn = self.cmd_sn.next();
        self.transmit(hub, at);
    }

    /// Sends a command with its unsolicited data, under the number that it has.
    pub(super) fn transmit(&mut self, hub: &mut Hub, at: usize) {
        let order = &mut self.orders[at];
        (order.next_data_sn, order.next_r2t_sn) = (0, 0);
        let line = order.line;
        if !line.writes {
            order.data.clear();
        }
        let length = u32::try_from(line.sectors).expect("few") * 512;
        let first_burst = if line.writes { length.min(self.first_burst) } else { 0 };
        let immediate = if self.play.immediate_data { first_burst.min(self.data_out) } else { 0 };
        let unasked = if self.play.initial_r2t { immediate } else { first_burst };
        let mut cdb = [0; 16];
        cdb[0] = if line.writes { 0x2a } else { 0x28 };
        cdb[2..6].copy_from_slice(&u32::try_from(line.first).expect("small").to_be_bytes());
        cdb[7..9].copy_from_slice(&u16::try_from(line.sectors).expect("few").to_be_bytes());
        let command = ScsiCommand {
            immediate: false,
            is_final: unasked == immediate,
            read: !line.writes,
            write: line.writes,
            attribute: TaskAttribute::Simple,
            priority: 0,
            total_ahs_words: 0,
            data_segment_length: immediate,
            lun: lun_of(0),
            initiator_task_tag: InitiatorTaskTag(order.tag),
            expected_data_transfer_length: length,
            cmd_sn: order.cmd_sn,
            expected_stat_sn: self.ways[line.way].expected_stat_sn,
            cdb,
        };
        let mut bhs = [0; BHS_BYTES];
        command.emit(&mut bhs);
        let data = self.orders[at].data[..immediate as usize].to_vec();
        if self.post(hub, line.way, &bhs, &data) && unasked > immediate {
            self.burst(hub, at, TargetTransferTag::RESERVED, immediate, unasked);
        }
    }

    /// The answer to an R2T, or the unsolicited data of a command.
    pub(super) fn burst(
        &mut self,
        hub: &mut Hub,
        at: usize,
        transfer: TargetTransferTag,
        begin: u32,
        end: u32,
    ) {
        let (way, tag) = (self.orders[at].line.way, self.orders[at].tag);
        let (mut offset, mut data_sn) = (begin, 0);
        while offset < end {
            let length = (end - offset).min(self.data_out);
            let mut bhs = [0; BHS_BYTES];
            DataOut {
                is_final: offset + length == end,
                data_segment_length: length,
                lun: if transfer.is_reserved() { LunField::default() } else { lun_of(0) },
                initiator_task_tag: InitiatorTaskTag(tag),
                target_transfer_tag: transfer,
                expected_stat_sn: self.ways[way].expected_stat_sn,
                data_sn: DataSn(data_sn),
                buffer_offset: offset,
            }
            .emit(&mut bhs);
            let data = self.orders[at].data[offset as usize..(offset + length) as usize].to_vec();
            if !self.post(hub, way, &bhs, &data) {
                return;
            }
            (offset, data_sn) = (offset + length, data_sn + 1);
        }
    }

    /// Sends again what is not acknowledged, and asks for what may not have come.
    pub(super) fn ask_again(&mut self, hub: &mut Hub) {
        for at in 0..self.orders.len() {
            let order = &self.orders[at];
            if order.is_submitted && !order.has_ended && !order.cmd_sn.precedes(self.expected_cmd_sn) {
                self.transmit(hub, at);
            }
        }
        for order in 0..self.orders.len() {
            let order = &self.orders[order];
            if order.is_submitted && !order.has_ended && order.cmd_sn.precedes(self.expected_cmd_sn) {
                let next = if order.line.writes { order.next_r2t_sn } else { order.next_data_sn };
                let (way, tag) = (order.line.way, InitiatorTaskTag(order.tag));
                self.snack(hub, way, SnackType::DataOrR2t, tag, next);
            }
        }
        for way in 0..self.ways.len() {
            let expected = self.ways[way].expected_stat_sn.0;
            self.snack(hub, way, SnackType::Status, InitiatorTaskTag::RESERVED, expected);
        }
    }

    fn snack(&mut self, hub: &mut Hub, way: usize, kind: SnackType, tag: InitiatorTaskTag, run_begin: u32) {
        let snack = Snack {
            kind,
            lun: LunField::default(),
            initiator_task_tag: tag,
            transfer_or_snack_tag: u32::MAX,
            expected_stat_sn: self.ways[way].expected_stat_sn,
            run_begin,
            run_length: 0,
        };
        self.tell(hub, way, InitiatorPdu::Snack(snack));
    }

    /// The answer to the target's ping.
    pub(super) fn pong(&mut self, hub: &mut Hub, way: usize, ping: &NopIn) {
        let pong = NopOut {
            immediate: true,
            data_segment_length: 0,
            lun: ping.lun,
            initiator_task_tag: InitiatorTaskTag::RESERVED,
            target_transfer_tag: ping.target_transfer_tag,
            cmd_sn: self.cmd_sn,
            expected_stat_sn: self.ways[way].expected_stat_sn,
        };
        self.tell(hub, way, InitiatorPdu::NopOut(pong));
    }

    pub(super) fn log_out(&mut self, hub: &mut Hub) {
        let tag = self.new_tag();
        self.say_logout(hub, 0, LogoutReason::CloseSession, (0, tag));
    }

    pub(super) fn log_out_from(&mut self, hub: &mut Hub, speaker: usize, lost: usize) {
        let tag = self.new_tag();
        self.ways[lost].reach = Reach::LoggedOut(tag);
        self.say_logout(hub, speaker, LogoutReason::RemoveConnectionForRecovery, (lost, tag));
    }

    fn say_logout(&mut self, hub: &mut Hub, speaker: usize, reason: LogoutReason, (way, tag): (usize, u32)) {
        let logout = LogoutRequest {
            immediate: true,
            reason,
            initiator_task_tag: InitiatorTaskTag(tag),
            cid: Cid(u16::try_from(way).expect("few connections")),
            cmd_sn: self.cmd_sn,
            expected_stat_sn: self.ways[speaker].expected_stat_sn,
        };
        self.tell(hub, speaker, InitiatorPdu::Logout(logout));
    }

    pub(super) fn reassign(&mut self, hub: &mut Hub, at: usize) {
        let tag = self.new_tag();
        self.reassigned.insert(tag, at);
        let order = &self.orders[at];
        let next = if order.line.writes { order.next_r2t_sn } else { order.next_data_sn };
        let way = order.line.way;
        let request = TaskManagementRequest {
            immediate: true,
            function: TaskManagementFunction::TaskReassign,
            lun: LunField::default(),
            initiator_task_tag: InitiatorTaskTag(tag),
            referenced_task_tag: InitiatorTaskTag(order.tag),
            cmd_sn: self.cmd_sn,
            expected_stat_sn: self.ways[way].expected_stat_sn,
            referenced_cmd_sn: CmdSn(0),
            expected_data_sn: DataSn(next),
        };
        self.tell(hub, way, InitiatorPdu::TaskManagement(request));
    }
}
