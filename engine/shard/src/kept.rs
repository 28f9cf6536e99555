//! What of a connection may be asked for again (RFC 7143 §11.16), above recovery level 0: each PDU as it was sent, until the
//! initiator has acknowledged it. At level 2 it goes with a command to the connection that this is reassigned to (§7.2.2).
//!
//! Responses are kept until ExpStatSN passes them, Data-In and R2Ts until their command's response is acknowledged, Data-In no
//! longer than until its DataACK. Of their data segments [`KEPT_BYTES_MAX`] are kept, the latest, those of Data-In as far as
//! others leave them room, and no more than the shard's account has ([`Budget::has_room_to_keep`]): there, too, the oldest Data-In of
//! the connection gives way. A SNACK for what is not kept is rejected. All of this is copied and allocates: level 0 has none of it.

use std::collections::VecDeque;

use portico_iscsi::sn::{DataSn, StatSn};
use portico_iscsi::wire::{
    Bhs, DataIn, InitiatorTaskTag, ScsiResponse, TargetPdu, TargetTransferTag, initiator_task_tag,
};

use crate::budget::Budget;

/// Bytes of data segments that one connection keeps.
pub const KEPT_BYTES_MAX: usize = 4 << 20;

/// PDUs that one connection keeps: more than the answers of any window and the bursts of what is kept of data.
const KEPT_PDUS_MAX: usize = 1 << 12;

/// What is kept of one connection.
#[derive(Debug, Default)]
pub struct Kept {
    pdus: VecDeque<Pdu>,
    data_bytes: usize,
    /// As many of them are booked.
    booked: u64,
    /// The last response that was let go of unacknowledged.
    missing: Option<StatSn>,
    /// Whole PDUs were let go of: what is not found may have been one of them.
    forgets: bool,
}

/// Why a SNACK is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// It was never sent, or was acknowledged.
    OutOfRun,
    /// It was let go of, or cannot go out as it is.
    NotKept,
}

/// What of a command goes to another connection.
#[derive(Debug, Default)]
pub struct Moved {
    /// Data-In that was not acknowledged.
    pub data_in: Vec<Cut>,
    /// The DataSN after it, where there was any.
    pub next: Option<DataSn>,
    /// Its response, where that had gone out.
    pub response: Option<Cut>,
    /// Some of it is not kept any more.
    pub is_torn: bool,
}

/// What an R-Data SNACK brings about.
#[derive(Debug)]
pub struct Resegmented {
    /// The headers of what is to be sent.
    pub pdus: Vec<Bhs>,
    /// The DataSN after the last.
    pub next: DataSn,
}

#[derive(Debug)]
struct Pdu {
    header: Bhs,
    /// `None`: let go of for want of room.
    data: Option<Vec<u8>>,
    tag: InitiatorTaskTag,
    number: Number,
    /// It is kept until the initiator has seen this response.
    until: Option<StatSn>,
    /// How often it is about to be sent again: so long its data stay.
    promised: u32,
}

/// Header and data of a PDU.
type Cut = (Bhs, Vec<u8>);

/// What a SNACK counts it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Status(StatSn),
    Data(u32),
    R2t(u32),
}

impl Kept {
    /// A PDU goes out; what nobody can ask for again is passed over.
    pub fn keep(&mut self, header: &Bhs, data: Vec<u8>) {
        let Some(number) = number_of(header) else { return };
        let tag = initiator_task_tag(header);
        let until = match number {
            Number::Status(stat_sn) => {
                self.answered(tag, stat_sn);
                Some(stat_sn)
            }
            // The tag has begun another command: what is left of the one before it was acknowledged with its answer.
            Number::Data(0) | Number::R2t(0) => {
                self.drop_where(|pdu| pdu.tag == tag && pdu.is_of_command());
                None
            }
            Number::Data(_) | Number::R2t(_) => None,
        };
        self.data_bytes += data.len();
        self.pdus.push_back(Pdu { header: *header, data: Some(data), tag, number, until, promised: 0 });
        self.let_go();
    }

    /// The same within the account. Data-In for which there is no room, though all older of this connection is given up for
    /// it, is kept without its data; all else is short, and bounded by the window.
    pub fn keep_within(&mut self, budget: &mut Budget, header: &Bhs, data: Vec<u8>) {
        let bytes = data.len() as u64;
        let mut has_room = true;
        if matches!(number_of(header), Some(Number::Data(_))) {
            self.book(budget);
            has_room = loop {
                if budget.has_room_to_keep(self.booked, bytes) {
                    break true;
                }
                if !self.give_up_oldest() {
                    break false;
                }
                self.book(budget);
            };
        }
        self.keep(header, data);
        if let Some(pdu) = self.pdus.back_mut().filter(|_| !has_room) {
            self.data_bytes -= pdu.data.take().map_or(0, |data| data.len());
        }
        self.book(budget);
    }

    /// Lets go of the oldest data of a read that nobody was promised.
    fn give_up_oldest(&mut self) -> bool {
        let has_data = |pdu: &&mut Pdu| {
            let is_due = matches!(pdu.number, Number::Data(_)) && pdu.promised == 0;
            is_due && pdu.data.as_ref().is_some_and(|data| !data.is_empty())
        };
        let Some(oldest) = self.pdus.iter_mut().find(has_data) else { return false };
        self.data_bytes -= oldest.data.take().map_or(0, |data| data.len());
        true
    }

    /// Brings the account up to date.
    pub fn book(&mut self, budget: &mut Budget) {
        let now = self.data_bytes as u64;
        budget.rebook_kept(self.booked, now);
        self.booked = now;
    }

    /// It is all let go of: so much comes back.
    pub fn unbook(&self, budget: &mut Budget) {
        budget.rebook_kept(self.booked, 0);
    }

    /// A response goes out: what belongs to its command is kept as long as it.
    fn answered(&mut self, tag: InitiatorTaskTag, stat_sn: StatSn) {
        let of_command = |pdu: &&mut Pdu| pdu.tag == tag && pdu.until.is_none();
        self.pdus.iter_mut().filter(of_command).for_each(|pdu| pdu.until = Some(stat_sn));
    }

    /// Its connection is lost, and nothing of what was promised there is sent: so many bytes of data are kept.
    pub fn shed(&mut self, bytes_max: usize) {
        self.pdus.iter_mut().for_each(|pdu| pdu.promised = 0);
        self.let_go_beyond(bytes_max);
    }

    /// Bytes of data segments that are kept.
    #[must_use]
    pub const fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    fn let_go(&mut self) {
        self.let_go_beyond(KEPT_BYTES_MAX);
    }

    fn let_go_beyond(&mut self, bytes_max: usize) {
        while self.data_bytes > bytes_max {
            // Data-In first: a read can be begun anew, sense data are told once.
            let has_data =
                |pdu: &Pdu| pdu.promised == 0 && pdu.data.as_ref().is_some_and(|data| !data.is_empty());
            let of_read = |pdu: &Pdu| matches!(pdu.number, Number::Data(_)) && has_data(pdu);
            let oldest = self.pdus.iter().position(of_read).or_else(|| self.pdus.iter().position(has_data));
            let Some(oldest) = oldest else { break };
            self.data_bytes -= self.pdus[oldest].data.take().map_or(0, |data| data.len());
        }
        while self.pdus.len() > KEPT_PDUS_MAX {
            let Some(gone) = self.pdus.pop_front() else { break };
            self.data_bytes -= gone.data.as_ref().map_or(0, Vec::len);
            self.note_missing(&gone);
            self.forgets = true;
        }
    }

    /// Nobody takes what is left for all that there was.
    fn note_missing(&mut self, gone: &Pdu) {
        match gone.number {
            Number::Status(stat_sn) => self.missing = Some(stat_sn),
            Number::Data(_) | Number::R2t(_) => {
                let next = self.pdus.iter_mut().find(|pdu| pdu.tag == gone.tag && pdu.until == gone.until);
                let data = next.filter(|pdu| pdu.is_of_command()).and_then(|pdu| pdu.data.take());
                self.data_bytes -= data.map_or(0, |data| data.len());
            }
        }
    }

    /// These are about to be sent again.
    pub fn promise(&mut self, again: &[Bhs]) {
        let promised = |pdu: &&mut Pdu| again.contains(&pdu.header);
        self.pdus.iter_mut().filter(promised).for_each(|pdu| pdu.promised += 1);
    }

    /// The initiator has seen all responses before this one.
    pub fn acknowledged(&mut self, expected: StatSn) {
        self.missing = self.missing.filter(|missing| !missing.precedes(expected));
        if self.pdus.iter().any(|pdu| pdu.is_seen(expected)) {
            self.drop_where(|pdu| pdu.is_seen(expected));
        }
    }

    /// A command was aborted: nothing of it goes out again.
    pub fn forget(&mut self, tag: InitiatorTaskTag) {
        self.drop_where(|pdu| pdu.tag == tag && pdu.until.is_none());
    }

    fn drop_where(&mut self, dropped: impl Fn(&Pdu) -> bool) {
        let data_bytes = &mut self.data_bytes;
        self.pdus.retain(|pdu| {
            let goes = dropped(pdu);
            if goes {
                *data_bytes -= pdu.data.as_ref().map_or(0, Vec::len);
            }
            !goes
        });
    }

    /// The data segment of a PDU that was to be sent again; `None` where it is not any more.
    #[must_use]
    pub fn data_of(&self, header: &Bhs) -> Option<&[u8]> {
        self.pdus.iter().find(|pdu| pdu.header == *header)?.data.as_deref()
    }

    /// It has been sent again.
    pub fn redeem(&mut self, header: &Bhs) {
        if let Some(pdu) = self.pdus.iter_mut().find(|pdu| pdu.header == *header) {
            pdu.promised = pdu.promised.saturating_sub(1);
            self.let_go();
        }
    }

    /// Whether anything of a command that is not answered has gone out and is not acknowledged.
    #[must_use]
    pub fn knows(&self, tag: InitiatorTaskTag) -> bool {
        self.pdus.iter().any(|pdu| pdu.tag == tag && pdu.is_of_command())
    }

    /// Whether a response to this tag has gone out and is not acknowledged.
    #[must_use]
    pub fn has_response(&self, tag: InitiatorTaskTag) -> bool {
        self.pdus.iter().any(|pdu| pdu.response(tag).is_some())
    }

    /// What is kept of a command goes to another connection: Data-In from `expected` on, where that is a DataSN that the
    /// initiator can expect (§11.5.6), cut to its segments, and the response. A command that was answered asks for no DataACK.
    pub fn take(
        &mut self,
        tag: InitiatorTaskTag,
        expected: u32,
        segment_bytes: u32,
        was_answered: bool,
    ) -> Moved {
        let of_it = |pdu: &Pdu| pdu.tag == tag && pdu.until.is_some() == was_answered;
        let (taken, rest) = std::mem::take(&mut self.pdus).into_iter().partition::<Vec<Pdu>, _>(of_it);
        self.pdus = rest.into();
        self.data_bytes -= taken.iter().filter_map(|pdu| pdu.data.as_ref()).map(Vec::len).sum::<usize>();
        let mut data_in: Vec<&Pdu> =
            taken.iter().filter(|pdu| matches!(pdu.number, Number::Data(_))).collect();
        let first = data_in.first().and_then(|pdu| pdu.count());
        let last = data_in.last().and_then(|pdu| pdu.count());
        let mut moved = Moved { next: last.map(|last| DataSn(last).next()), ..Moved::default() };
        if let (Some(first), Some(last)) = (first, last)
            && (first..=last + 1).contains(&expected)
        {
            data_in.retain(|pdu| pdu.count().is_some_and(|count| count >= expected));
        }
        let whole: Option<Vec<(DataIn, &Vec<u8>)>> = data_in
            .iter()
            .map(|pdu| {
                let shape = pdu.data_in()?;
                let acknowledge = shape.acknowledge && !was_answered;
                Some((DataIn { acknowledge, ..shape }, pdu.data.as_ref()?))
            })
            .collect();
        match whole {
            None => moved.is_torn = true,
            Some(old) => {
                if let Some((cut, next)) = recut(&old, segment_bytes as usize) {
                    (moved.data_in, moved.next) = (cut, Some(next));
                }
            }
        }
        let response = taken.iter().find_map(|pdu| Some((pdu, pdu.response(tag)?)));
        if let Some((pdu, response)) = response {
            moved.is_torn |= pdu.data.is_none();
            let mut header = [0; 48];
            let expected_data_sn = moved.next.map_or(response.expected_data_sn, |next| next.0);
            ScsiResponse { snack_tag: 0, expected_data_sn, ..response }.emit(&mut header);
            moved.response = Some((header, pdu.data.clone().unwrap_or_default()));
        }
        moved
    }

    /// Status SNACK: the headers of `length` responses from `begin` on, all where it is 0. Both 0: all that are not
    /// acknowledged (§11.16), whatever their numbers.
    ///
    /// # Errors
    /// One of them is not there, or not kept.
    pub fn statuses(&self, begin: StatSn, length: u32) -> Result<Vec<Bhs>, Unserved> {
        let is_all = begin == StatSn(0) && length == 0;
        let wanted = |pdu: &&Pdu| match pdu.number {
            Number::Status(_) if is_all => true,
            Number::Status(stat_sn) => is_in_run(begin.steps_to(stat_sn), length) && !stat_sn.precedes(begin),
            Number::Data(_) | Number::R2t(_) => false,
        };
        let found: Vec<&Pdu> = self.pdus.iter().filter(wanted).collect();
        if is_all {
            return if self.missing.is_some() { Err(Unserved::NotKept) } else { headers(&found) };
        }
        self.whole(&found, |pdu| matches!(pdu.number, Number::Status(stat_sn) if stat_sn == begin), length)
    }

    /// Data/R2T SNACK: the headers of `length` PDUs of a command from `begin` on, all where it is 0. Both 0: all that are not
    /// acknowledged, by a DataACK those before them may be.
    ///
    /// # Errors
    /// One of them is not there, or not kept, or is longer than the initiator takes by now: it has to ask by an R-Data SNACK
    /// (§11.16.3).
    pub fn run(
        &self,
        tag: InitiatorTaskTag,
        begin: u32,
        length: u32,
        segment_bytes: u32,
    ) -> Result<Vec<Bhs>, Unserved> {
        let found: Vec<&Pdu> = self
            .pdus
            .iter()
            .filter(|pdu| pdu.tag == tag && pdu.count().is_some_and(|count| count >= begin))
            .filter(|pdu| pdu.count().is_some_and(|count| is_in_run(count - begin, length)))
            .collect();
        let fits = |pdu: &&Pdu| pdu.data.as_ref().is_some_and(|data| data.len() <= segment_bytes as usize);
        if !found.iter().all(fits) {
            return Err(Unserved::NotKept);
        }
        let is_all = begin == 0 && length == 0;
        self.whole(&found, |pdu| is_all || pdu.count() == Some(begin), length)
    }

    /// DataACK: of the read that has this transfer tag, if there is one, all before `begin` has come. One that had the tag
    /// before it may be kept still, until its response is acknowledged.
    pub fn data_acknowledged(&mut self, transfer: TargetTransferTag, begin: u32) {
        let named = self
            .pdus
            .iter()
            .rev()
            .find(|pdu| pdu.data_in().is_some_and(|data| data.target_transfer_tag == transfer));
        let Some(tag) = named.map(|pdu| pdu.tag).filter(|_| !transfer.is_reserved()) else { return };
        self.drop_where(|pdu| pdu.tag == tag && matches!(pdu.number, Number::Data(count) if count < begin));
    }

    /// R-Data SNACK: all Data-In of a command that was not acknowledged, in segments of this length, and its response, where
    /// that has gone out, with the tag of the SNACK.
    ///
    /// # Errors
    /// There is none; or some of it is not kept, or would be too much.
    pub fn resegment(
        &mut self,
        tag: InitiatorTaskTag,
        segment_bytes: u32,
        snack_tag: u32,
    ) -> Result<Resegmented, Unserved> {
        let of_data = |pdu: &Pdu| pdu.tag == tag && matches!(pdu.number, Number::Data(_));
        let old = self.pdus.iter().filter(|pdu| of_data(pdu));
        let old: Option<Vec<(DataIn, &Vec<u8>)>> =
            old.map(|pdu| Some((pdu.data_in()?, pdu.data.as_ref()?))).collect();
        let old = old.ok_or(Unserved::NotKept)?;
        let (cut, next) = recut(&old, segment_bytes as usize).ok_or(self.not_found())?;
        let response = self.pdus.iter().find(|pdu| pdu.response(tag).is_some());
        if response.is_some_and(|pdu| pdu.data.is_none())
            || self.pdus.len() - old.len() + cut.len() > KEPT_PDUS_MAX
        {
            return Err(Unserved::NotKept);
        }
        let until = self.pdus.iter().find(|pdu| of_data(pdu)).and_then(|pdu| pdu.until);
        self.drop_where(of_data);
        let mut pdus = Vec::new();
        for (header, data) in cut {
            let number = number_of(&header).expect("it is Data-In");
            self.data_bytes += data.len();
            self.pdus.push_back(Pdu { header, data: Some(data), tag, number, until, promised: 0 });
            pdus.push(header);
        }
        let response = self.pdus.iter_mut().find_map(|pdu| Some((pdu.response(tag)?, pdu)));
        if let Some((response, pdu)) = response {
            // All responses that go out for it have one StatSN (§11.16).
            ScsiResponse { snack_tag, expected_data_sn: next.0, ..response }.emit(&mut pdu.header);
            pdus.push(pdu.header);
        }
        Ok(Resegmented { pdus, next })
    }

    /// A run of which nothing is missing.
    fn whole(
        &self,
        found: &[&Pdu],
        is_first: impl Fn(&Pdu) -> bool,
        length: u32,
    ) -> Result<Vec<Bhs>, Unserved> {
        let complete =
            found.first().is_some_and(|pdu| is_first(pdu)) && (length == 0 || found.len() == length as usize);
        if complete { headers(found) } else { Err(self.not_found()) }
    }

    const fn not_found(&self) -> Unserved {
        if self.forgets { Unserved::NotKept } else { Unserved::OutOfRun }
    }
}

impl Pdu {
    fn is_of_command(&self) -> bool {
        !matches!(self.number, Number::Status(_))
    }

    fn is_seen(&self, expected: StatSn) -> bool {
        self.until.is_some_and(|until| until.precedes(expected))
    }

    /// DataSN or R2TSN.
    fn count(&self) -> Option<u32> {
        match self.number {
            Number::Data(count) | Number::R2t(count) => Some(count),
            Number::Status(_) => None,
        }
    }

    fn data_in(&self) -> Option<DataIn> {
        match TargetPdu::parse(&self.header) {
            Ok(TargetPdu::DataIn(data)) => Some(data),
            _ => None,
        }
    }

    fn response(&self, tag: InitiatorTaskTag) -> Option<ScsiResponse> {
        // There may be many: few are looked into.
        if self.tag != tag {
            return None;
        }
        match TargetPdu::parse(&self.header) {
            Ok(TargetPdu::ScsiResponse(response)) => Some(response),
            _ => None,
        }
    }
}

/// Where the data of one are not kept any more, it is not served.
fn headers(found: &[&Pdu]) -> Result<Vec<Bhs>, Unserved> {
    found.iter().map(|pdu| pdu.data.as_ref().map(|_| pdu.header).ok_or(Unserved::NotKept)).collect()
}

const fn is_in_run(ahead: u32, length: u32) -> bool {
    length == 0 || ahead < length
}

/// What a SNACK would count a PDU by; `None`: nobody can ask for it again.
fn number_of(header: &Bhs) -> Option<Number> {
    let stat_sn = match TargetPdu::parse(header).ok()? {
        TargetPdu::DataIn(data) => return Some(Number::Data(data.data_sn.0)),
        TargetPdu::R2t(r2t) => return Some(Number::R2t(r2t.r2t_sn.0)),
        TargetPdu::ScsiResponse(pdu) => pdu.stat_sn,
        TargetPdu::TaskManagement(pdu) => pdu.stat_sn,
        TargetPdu::Text(pdu) => pdu.stat_sn,
        TargetPdu::Logout(pdu) => pdu.stat_sn,
        TargetPdu::Async(pdu) => pdu.stat_sn,
        TargetPdu::Reject(pdu) => pdu.stat_sn,
        TargetPdu::NopIn(pdu) if !pdu.initiator_task_tag.is_reserved() => pdu.stat_sn,
        TargetPdu::NopIn(_) | TargetPdu::Login(_) => return None,
    };
    Some(Number::Status(stat_sn))
}

/// Cuts data anew, sequence by sequence, from the first DataSN on.
fn recut(old: &[(DataIn, &Vec<u8>)], segment_bytes: usize) -> Option<(Vec<Cut>, DataSn)> {
    let (first, _) = old.first()?;
    let (mut data_sn, mut cut) = (first.data_sn, Vec::new());
    for sequence in old.chunk_by(|(before, _), _| !before.is_final) {
        let bytes: Vec<u8> = sequence.iter().flat_map(|(_, data)| data.iter().copied()).collect();
        let (begin, end) = (sequence.first()?.0, sequence.last()?.0);
        let pieces = bytes.len().div_ceil(segment_bytes);
        for (piece, data) in bytes.chunks(segment_bytes).enumerate() {
            let mut header = [0; 48];
            let is_last = piece + 1 == pieces;
            let at = u32::try_from(piece * segment_bytes).ok()?;
            let shape = if is_last { end } else { DataIn { is_final: false, acknowledge: false, ..begin } };
            let (lun, target_transfer_tag) = match shape.acknowledge {
                true => (shape.lun, cut_anew(shape.target_transfer_tag)),
                false => (Default::default(), TargetTransferTag::RESERVED),
            };
            DataIn {
                data_segment_length: u32::try_from(data.len()).ok()?,
                lun,
                target_transfer_tag,
                data_sn,
                buffer_offset: begin.buffer_offset + at,
                ..shape
            }
            .emit(&mut header);
            cut.push((header, data.to_vec()));
            data_sn = data_sn.next();
        }
    }
    Some((cut, data_sn))
}

/// What is acknowledged of data that were cut anew is named by another tag than what was before: DataSN counts other PDUs.
fn cut_anew(before: TargetTransferTag) -> TargetTransferTag {
    TargetTransferTag(before.0 & 0xffff_0000 | before.0.wrapping_add(1) & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_iscsi::sn::CmdSn;
    use portico_iscsi::wire::{LunField, NopIn, Residual, ServiceResponse};

    const TAG: InitiatorTaskTag = InitiatorTaskTag(9);

    fn data_in(data_sn: u32, offset: u32, length: u32, is_final: bool) -> (Bhs, Vec<u8>) {
        data_in_of(TAG, TargetTransferTag::RESERVED, (data_sn, offset), length, is_final)
    }

    /// One with a transfer tag asks for a DataACK.
    fn data_in_of(
        tag: InitiatorTaskTag,
        transfer: TargetTransferTag,
        (data_sn, offset): (u32, u32),
        length: u32,
        is_final: bool,
    ) -> (Bhs, Vec<u8>) {
        let mut header = [0; 48];
        DataIn {
            is_final,
            acknowledge: !transfer.is_reserved(),
            data_segment_length: length,
            lun: LunField::default(),
            initiator_task_tag: tag,
            target_transfer_tag: transfer,
            status: None,
            expected_cmd_sn: CmdSn(1),
            maximum_cmd_sn: CmdSn(4),
            data_sn: DataSn(data_sn),
            buffer_offset: offset,
        }
        .emit(&mut header);
        let byte = |at: u32| at.to_le_bytes()[0];
        (header, (offset..offset + length).map(byte).collect())
    }

    fn response(stat_sn: u32, expected_data_sn: u32) -> Bhs {
        let mut header = [0; 48];
        ScsiResponse {
            response: ServiceResponse::CommandCompleted,
            status: 0,
            status_qualifier: 0,
            data_segment_length: 0,
            initiator_task_tag: TAG,
            snack_tag: 0,
            stat_sn: StatSn(stat_sn),
            expected_cmd_sn: CmdSn(1),
            maximum_cmd_sn: CmdSn(4),
            expected_data_sn,
            bidirectional_read_residual: Residual::None,
            residual: Residual::None,
        }
        .emit(&mut header);
        header
    }

    /// 20 bytes in two sequences of two PDUs, and the response.
    fn kept() -> Kept {
        let mut kept = Kept::default();
        for (data_sn, offset, length, is_final) in
            [(0, 0, 6, false), (1, 6, 4, true), (2, 10, 6, false), (3, 16, 4, true)]
        {
            let (header, data) = data_in(data_sn, offset, length, is_final);
            kept.keep(&header, data);
        }
        kept.keep(&response(50, 4), Vec::new());
        kept
    }

    fn parts(kept: &Kept, pdus: &[Bhs]) -> Vec<(u32, u32, usize, bool)> {
        let part = |header: &Bhs| match TargetPdu::parse(header) {
            Ok(TargetPdu::DataIn(data)) => {
                let length = kept.data_of(header).unwrap().len();
                assert_eq!(data.data_segment_length as usize, length);
                (data.data_sn.0, data.buffer_offset, length, data.is_final)
            }
            other => panic!("{other:?}"),
        };
        pdus.iter().map(part).collect()
    }

    #[test]
    fn data_is_cut_anew_within_each_sequence_and_loses_no_byte() {
        let mut kept = kept();
        assert_eq!(kept.run(TAG, 0, 0, 5), Err(Unserved::NotKept), "longer than the initiator takes by now");
        let resegmented = kept.resegment(TAG, 5, 7).unwrap();
        let (data, answer) = resegmented.pdus.split_at(4);
        assert_eq!(
            parts(&kept, data),
            [(0, 0, 5, false), (1, 5, 5, true), (2, 10, 5, false), (3, 15, 5, true)]
        );
        let bytes: Vec<u8> = data.iter().flat_map(|header| kept.data_of(header).unwrap().to_vec()).collect();
        assert_eq!(bytes, (0..20).collect::<Vec<u8>>());
        let Ok(TargetPdu::ScsiResponse(response)) = TargetPdu::parse(&answer[0]) else { panic!() };
        assert_eq!((response.snack_tag, response.stat_sn, response.expected_data_sn), (7, StatSn(50), 4));
        let smaller = kept.resegment(TAG, 2, 8).unwrap();
        assert_eq!((smaller.next, smaller.pdus.len()), (DataSn(10), 11));
        assert_eq!(
            parts(&kept, &kept.run(TAG, 9, 1, 2).unwrap()),
            [(9, 18, 2, true)],
            "what was cut is what is kept"
        );
    }

    #[test]
    fn all_of_a_command_goes_with_the_acknowledgement_of_its_response() {
        let mut kept = kept();
        kept.acknowledged(StatSn(50));
        assert_eq!(kept.statuses(StatSn(50), 1).map(|found| found.len()), Ok(1));
        kept.acknowledged(StatSn(51));
        assert_eq!((kept.pdus.len(), kept.data_bytes), (0, 0));
    }

    #[test]
    fn beyond_the_bound_the_oldest_data_is_let_go_and_its_run_is_refused() {
        let mut kept = Kept::default();
        let length = u32::try_from(KEPT_BYTES_MAX / 2).unwrap();
        for data_sn in 0..3 {
            let (header, data) = data_in(data_sn, data_sn * length, length, false);
            kept.keep(&header, data);
        }
        assert!(kept.data_bytes <= KEPT_BYTES_MAX);
        assert_eq!(kept.run(TAG, 0, 1, length), Err(Unserved::NotKept));
        assert_eq!(kept.run(TAG, 1, 2, length).map(|found| found.len()), Ok(2));
        assert_eq!(kept.run(TAG, 2, 2, length), Err(Unserved::OutOfRun), "there is no fourth");
        assert_eq!(kept.resegment(TAG, length, 1).map(drop), Err(Unserved::NotKept));
    }

    #[test]
    fn what_was_let_go_of_as_a_whole_is_told_from_what_was_never_sent() {
        let mut kept = Kept::default();
        for stat_sn in 1..=u32::try_from(KEPT_PDUS_MAX).unwrap() {
            kept.keep(&response(stat_sn, 0), Vec::new());
        }
        assert_eq!(kept.statuses(StatSn(0), 1), Err(Unserved::OutOfRun));
        kept.keep(&response(u32::try_from(KEPT_PDUS_MAX).unwrap() + 1, 0), Vec::new());
        assert_eq!(kept.statuses(StatSn(1), 1), Err(Unserved::NotKept));
    }

    #[test]
    fn what_is_about_to_be_sent_again_stays_until_it_has_been() {
        let mut kept = Kept::default();
        let length = u32::try_from(KEPT_BYTES_MAX / 2).unwrap();
        let next = |kept: &mut Kept, data_sn: u32| {
            let (header, data) = data_in(data_sn, data_sn * length, length, false);
            kept.keep(&header, data);
        };
        next(&mut kept, 0);
        next(&mut kept, 1);
        let again = kept.run(TAG, 0, 2, length).unwrap();
        kept.promise(&again);
        next(&mut kept, 2);
        assert!(again.iter().all(|header| kept.data_of(header).is_some()));
        assert_eq!(kept.run(TAG, 2, 1, length), Err(Unserved::NotKept), "there was no room for it");
        again.iter().for_each(|header| kept.redeem(header));
        next(&mut kept, 3);
        assert!(kept.data_bytes <= KEPT_BYTES_MAX && kept.data_of(&again[0]).is_none());
    }

    /// BegRun and RunLength of 0 ask for everything: where some is not kept, what is left is not everything.
    #[test]
    fn zeroes_are_refused_where_something_was_let_go_of() {
        let mut kept = Kept::default();
        let pdus = u32::try_from(KEPT_PDUS_MAX).unwrap();
        for data_sn in 0..=pdus {
            let (header, data) = data_in(data_sn, data_sn, 1, false);
            kept.keep(&header, data);
        }
        assert_eq!(kept.run(TAG, 0, 0, 1), Err(Unserved::NotKept));
        assert!(kept.take(TAG, 0, 1, false).is_torn, "nor is a command that is reassigned whole");
        for stat_sn in 0..=pdus {
            kept.keep(&response(stat_sn, 0), Vec::new());
        }
        assert_eq!(kept.statuses(StatSn(0), 0), Err(Unserved::NotKept));
        kept.acknowledged(StatSn(1));
        assert_eq!(kept.statuses(StatSn(0), 0).map(|found| found.len()), Ok(KEPT_PDUS_MAX));
        assert_eq!(kept.data_bytes, 0);
    }

    /// DataSN counts other PDUs once the data were cut anew.
    #[test]
    fn a_data_ack_of_before_an_r_data_snack_says_nothing_of_what_came_after() {
        let mut kept = Kept::default();
        let transfer = TargetTransferTag(3 << 16);
        for (data_sn, offset) in [(0, 0), (1, 4)] {
            let (header, data) = data_in_of(TAG, transfer, (data_sn, offset), 4, true);
            kept.keep(&header, data);
        }
        kept.resegment(TAG, 2, 7).unwrap();
        kept.data_acknowledged(transfer, 2);
        assert_eq!(kept.run(TAG, 0, 0, 4).map(|found| found.len()), Ok(4));
        kept.data_acknowledged(TargetTransferTag(3 << 16 | 1), 2);
        assert_eq!(parts(&kept, &kept.run(TAG, 2, 0, 4).unwrap()), [(2, 4, 2, false), (3, 6, 2, true)]);
    }

    #[test]
    fn the_data_of_any_pdu_count_against_the_bound() {
        const PDUS: u32 = 20;
        let mut kept = Kept::default();
        let length = 256 << 10;
        for stat_sn in 1..=PDUS {
            let mut header = [0; 48];
            NopIn {
                data_segment_length: length,
                lun: LunField::default(),
                initiator_task_tag: TAG,
                target_transfer_tag: TargetTransferTag::RESERVED,
                stat_sn: StatSn(stat_sn),
                expected_cmd_sn: CmdSn(1),
                maximum_cmd_sn: CmdSn(4),
            }
            .emit(&mut header);
            kept.keep(&header, vec![7; length as usize]);
        }
        let held: usize = kept.pdus.iter().filter_map(|pdu| pdu.data.as_ref()).map(Vec::len).sum();
        assert_eq!((held, kept.data_bytes), (KEPT_BYTES_MAX, KEPT_BYTES_MAX));
        assert_eq!(kept.statuses(StatSn(1), 1), Err(Unserved::NotKept));
        assert_eq!(
            kept.statuses(StatSn(0), 0),
            Err(Unserved::NotKept),
            "some of what was asked for is not kept"
        );
        assert_eq!(kept.statuses(StatSn(PDUS), 1).map(|found| found.len()), Ok(1));
    }

    #[test]
    fn a_data_ack_is_for_the_latest_read_that_has_the_transfer_tag() {
        let mut kept = Kept::default();
        let (transfer, next) = (TargetTransferTag(3 << 16), InitiatorTaskTag(10));
        for tag in [TAG, next] {
            let (header, data) = data_in_of(tag, transfer, (0, 0), 4, true);
            kept.keep(&header, data);
        }
        kept.data_acknowledged(transfer, 1);
        assert_eq!(kept.run(next, 0, 1, 4), Err(Unserved::OutOfRun));
        assert_eq!(kept.run(TAG, 0, 1, 4).map(|found| found.len()), Ok(1));
    }

    #[test]
    fn a_tag_that_names_another_command_has_nothing_of_the_one_before() {
        let mut kept = kept();
        let (header, data) = data_in(0, 0, 3, true);
        kept.keep(&header, data);
        assert_eq!(parts(&kept, &kept.run(TAG, 0, 0, 100).unwrap()), [(0, 0, 3, true)]);
    }
}
