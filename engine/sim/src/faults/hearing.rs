//! What the player hears, what may happen to it on its way, and what it makes of it.

use std::time::Duration;

use portico_iscsi::digest;
use portico_iscsi::framing::padding;
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, DataIn, InitiatorPdu, LogoutResult, Reject, RejectReason, Residual, ScsiResponse,
    ServiceResponse, TargetPdu, TaskManagementResult, data_segment_length, initiator_task_tag,
};

use crate::command::REFUSED;
use crate::history::Oracle;
use crate::hub::{self, Hub};

use super::Fate;
use super::player::{PLAYER, Player, Reach};

const GOOD: u8 = 0;
const DIGEST_BYTES: usize = 4;
/// ABORTED COMMAND, NOT READY and UNIT ATTENTION (SPC-4 §4.5.6).
const ABORTED: u8 = 0x0b;
const NOT_READY: u8 = 0x02;
const ATTENTION: u8 = 0x06;
/// How long a unit is left alone that refused something: an orphan has its blocks, or its medium is not open yet.
const REST: Duration = Duration::from_millis(50);

impl Player {
    /// The next PDU on a connection, with its digests judged.
    fn next_pdu(&mut self, hub: &mut Hub, way: usize) -> Option<(Bhs, Vec<u8>)> {
        let inbox = &mut self.ways[way].inbox;
        let bhs = *inbox.first_chunk::<BHS_BYTES>()?;
        let length = data_segment_length(&bhs);
        let padded = (length + padding(length)) as usize;
        let tail = if length > 0 { padded + DIGEST_BYTES } else { 0 };
        let whole = BHS_BYTES + DIGEST_BYTES + tail;
        if inbox.len() < whole {
            return None;
        }
        let bytes: Vec<u8> = inbox.drain(..whole).collect();
        let (header, rest) = bytes.split_at(BHS_BYTES + DIGEST_BYTES);
        let (mut data, field) = rest.split_at(tail.saturating_sub(DIGEST_BYTES));
        if header[BHS_BYTES..] != digest::field_of(&bhs) || length > 0 && *field != digest::field_of(data) {
            self.violate(hub, Oracle::Protocol, "a wrong digest");
            return None;
        }
        data = &data[..length as usize];
        Some((bhs, data.to_vec()))
    }

    /// Takes what has come on an open connection.
    pub(super) fn listen(&mut self, hub: &mut Hub, way: usize) {
        while matches!(self.ways[way].reach, Reach::Open { .. }) {
            let Some((bhs, data)) = self.next_pdu(hub, way) else { return };
            self.hear(hub);
            let is_lost =
                self.strikes(hub, Fate::Lost) || !data.is_empty() && self.strikes(hub, Fate::DataSpoilt);
            // §7.8: where the next PDU begins is not known any more.
            let is_cut = self.strikes(hub, Fate::Cut)
                || self.strikes(hub, Fate::Abandoned)
                || self.strikes(hub, Fate::HeaderSpoilt);
            if is_cut {
                return self.lose(hub, way);
            }
            if !is_lost {
                self.take(hub, way, &bhs, &data);
            }
        }
    }

    fn take(&mut self, hub: &mut Hub, way: usize, bhs: &Bhs, data: &[u8]) {
        let pdu = match TargetPdu::parse(bhs) {
            Ok(pdu) => pdu,
            Err(violation) => return self.violate(hub, Oracle::Protocol, &format!("{violation:?}")),
        };
        let expected = CmdSn(u32::from_be_bytes([bhs[28], bhs[29], bhs[30], bhs[31]]));
        if expected.follows(self.expected_cmd_sn) {
            self.expected_cmd_sn = expected;
        }
        let tag = initiator_task_tag(bhs).0;
        let at = self.orders.iter().position(|order| order.tag == tag && !order.has_ended);
        match (pdu, at) {
            (TargetPdu::DataIn(pdu), Some(at)) => self.take_data(hub, way, at, &pdu, data),
            (TargetPdu::R2t(r2t), Some(at)) if r2t.r2t_sn.0 == self.orders[at].next_r2t_sn => {
                self.orders[at].next_r2t_sn += 1;
                let end = r2t.buffer_offset + r2t.desired_data_transfer_length;
                if end as usize > self.orders[at].data.len() {
                    return self.violate(hub, Oracle::Protocol, "an R2T for more than there is");
                }
                self.burst(hub, at, r2t.target_transfer_tag, r2t.buffer_offset, end);
            }
            (TargetPdu::ScsiResponse(response), at) => self.take_response(hub, way, at, &response, data),
            (TargetPdu::Reject(reject), _) => self.take_reject(hub, way, &reject, data),
            (TargetPdu::TaskManagement(answer), _) if self.is_next(hub, way, answer.stat_sn) => {
                let is_known = self.reassigned.remove(&tag).is_some();
                if !is_known || answer.result != TaskManagementResult::Complete {
                    let what = format!("a reassignment ends with {:?}", answer.result);
                    self.violate(hub, Oracle::Answers, &what);
                }
            }
            (TargetPdu::Logout(answer), _) if self.is_next(hub, way, answer.stat_sn) => {
                if answer.result != LogoutResult::Closed {
                    let what = format!("a logout ends with {:?}", answer.result);
                    self.violate(hub, Oracle::Protocol, &what);
                }
                if self.leaving { self.go(hub) } else { self.logged_out_from(hub, Some(tag)) }
            }
            (TargetPdu::NopIn(nop), _) if !nop.target_transfer_tag.is_reserved() => {
                self.pong(hub, way, &nop);
            }
            // At levels 0 and 1 the other connections hear that the session is dropped.
            (TargetPdu::Async(message), _) => {
                self.is_next(hub, way, message.stat_sn);
            }
            // Once more, or before its turn: it is asked for again.
            (
                TargetPdu::R2t(_)
                | TargetPdu::DataIn(_)
                | TargetPdu::TaskManagement(_)
                | TargetPdu::Logout(_)
                | TargetPdu::NopIn(_),
                _,
            ) => {}
            (other, _) => self.violate(hub, Oracle::Protocol, &format!("{other:?}")),
        }
    }

    /// Whether a status is the next one of its connection, which it is then no more.
    fn is_next(&mut self, hub: &mut Hub, way: usize, stat_sn: StatSn) -> bool {
        let expected = self.ways[way].expected_stat_sn;
        if stat_sn == expected {
            self.ways[way].expected_stat_sn = expected.next();
        } else if self.has_struck() == 0 {
            self.violate(hub, Oracle::Protocol, &format!("{stat_sn:?}, where {expected:?} is next"));
        }
        stat_sn == expected
    }

    fn take_data(&mut self, hub: &mut Hub, way: usize, at: usize, pdu: &DataIn, data: &[u8]) {
        let order = &mut self.orders[at];
        if pdu.data_sn.0 != order.next_data_sn {
            return;
        }
        if pdu.buffer_offset as usize != order.data.len() {
            return self.violate(hub, Oracle::Data, "Data-In that is no continuation");
        }
        order.next_data_sn += 1;
        order.data.extend_from_slice(data);
        if let Some(ending) = pdu.status
            && self.is_next(hub, way, ending.stat_sn)
        {
            self.end(hub, at, ending.status, ending.residual);
        }
    }

    fn take_response(
        &mut self,
        hub: &mut Hub,
        way: usize,
        at: Option<usize>,
        response: &ScsiResponse,
        data: &[u8],
    ) {
        if let Some(at) = at
            && response.expected_data_sn > self.orders[at].next_data_sn
            && !self.orders[at].line.writes
        {
            // Some of it is missing: both are asked for again.
            return;
        }
        if !self.is_next(hub, way, response.stat_sn) {
            return;
        }
        let Some(at) = at else {
            return self.violate(hub, Oracle::Answers, "a command ends twice, or was never asked for");
        };
        if response.response != ServiceResponse::CommandCompleted {
            return self.violate(hub, Oracle::Answers, &format!("{:?}", response.response));
        }
        if response.status == GOOD {
            return self.end(hub, at, GOOD, response.residual);
        }
        // Fixed format, after the length (RFC 7143 §11.4.7).
        let key = data.get(4).map_or(0, |byte| byte & 0x0f);
        let may_fail = self.level() == 0 && matches!(self.play.fault.fate, Fate::DataSpoilt | Fate::Lost);
        let refused = REFUSED.contains(&response.status) || [ATTENTION, NOT_READY].contains(&key);
        let is_excused = refused || may_fail && key == ABORTED;
        if !is_excused {
            let what = format!("{:?} ends with {:#x} {data:02x?}", self.orders[at].line, response.status);
            return self.violate(hub, Oracle::Answers, &what);
        }
        let order = &mut self.orders[at];
        order.is_submitted = false;
        order.rests_until = hub.now + REST;
        hub.plan_at(order.rests_until, hub::Event::Initiator(PLAYER));
        if order.line.writes {
            hub.history.failed(order.id, "was refused, or failed");
        }
    }

    /// GOOD, once.
    fn end(&mut self, hub: &mut Hub, at: usize, status: u8, residual: Residual) {
        let order = &mut self.orders[at];
        order.has_ended = true;
        let whole = order.data.len() as u64 == order.line.sectors * 512;
        if status != GOOD || residual != Residual::None || !whole {
            let what = format!("{:?} ends with {status:#x}, {residual:?}", self.orders[at].line);
            return self.violate(hub, Oracle::Data, &what);
        }
        if order.line.writes {
            hub.history.wrote(order.id, false);
            let (landed, sectors) = (hub.history.landed(order.id), order.line.sectors);
            if landed != sectors {
                let what = format!("GOOD for a write of {sectors} sectors of which {landed} have landed");
                self.violate(hub, Oracle::Data, &what);
            }
        } else {
            hub.history.judge_read(0, PLAYER, order.line.first, &order.data, order.asked);
        }
    }

    fn take_reject(&mut self, hub: &mut Hub, way: usize, reject: &Reject, data: &[u8]) {
        if !self.is_next(hub, way, reject.stat_sn) {
            return;
        }
        let rejected = data.first_chunk::<BHS_BYTES>();
        let Some(Ok(rejected)) = rejected.map(InitiatorPdu::parse) else {
            return self.violate(hub, Oracle::Protocol, "a Reject without a header");
        };
        if let InitiatorPdu::ScsiCommand(command) = rejected {
            let is_it = |order: &super::player::Order| order.tag == command.initiator_task_tag.0;
            match self.orders.iter().position(is_it) {
                // §7.2.1: the same command, under the same number.
                Some(at) if reject.reason == RejectReason::DataDigestError => self.transmit(hub, at),
                _ => self.violate(hub, Oracle::Protocol, &format!("{reject:?}")),
            }
        }
    }
}
