//! A write: immediate data, the unsolicited burst, R2Ts and their answers (RFC 7143 §4.2.5.2, §11.7, §11.8).

use super::{OUTSTANDING_R2T_MAX, Progress, Segment, TransferFault};
use crate::negotiate::Parameters;
use crate::sn::{DataSn, R2tSn};
use crate::wire::{DataOut, LunField, ScsiCommand, TargetTransferTag};

/// The data that comes from the initiator for one task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Expected Data Transfer Length; 0 where the W bit is not set.
    expected: u32,
    /// What the command itself moves, once the device server knows.
    required: Option<u64>,
    /// Data that comes from now on is of no use.
    discarding: bool,
    /// Bytes from offset 0 on whose PDU has been admitted.
    admitted: u32,
    /// Bytes from offset 0 on that are in.
    received: u32,
    /// Unsolicited Data-Out PDUs are still to come.
    unsolicited_open: bool,
    /// Where unsolicited data ends at the latest.
    unsolicited_end: u32,
    /// The next DataSN of the sequence that is coming in.
    data_sn: DataSn,
    /// Where the last R2T ends, or the unsolicited data where there was none.
    solicited: u32,
    r2t_sn: R2tSn,
    /// R2TSN after the last R2T that went out on a connection that was lost.
    lost_r2t_sn: R2tSn,
    outstanding: Outstanding,
    /// Data was discarded for its digest: what comes is discarded too, until nothing is on its way; then it is asked for
    /// again.
    recovering: bool,
    fault: Option<TransferFault>,
}

/// An R2T to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Solicitation {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) r2t_sn: R2tSn,
}

/// Where each outstanding R2T ends, the earliest first.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    ends: [u32; OUTSTANDING_R2T_MAX as usize],
    first: u8,
    count: u8,
}

impl Write {
    /// A task that takes no data.
    pub(crate) const NONE: Self = Self {
        expected: 0,
        required: None,
        discarding: false,
        admitted: 0,
        received: 0,
        unsolicited_open: false,
        unsolicited_end: 0,
        data_sn: DataSn(0),
        solicited: 0,
        r2t_sn: R2tSn(0),
        lost_r2t_sn: R2tSn(0),
        outstanding: Outstanding { ends: [0; OUTSTANDING_R2T_MAX as usize], first: 0, count: 0 },
        recovering: false,
        fault: None,
    };

    /// The transfer that a command begins, and what to do with its immediate data.
    pub(crate) fn begin(command: &ScsiCommand, parameters: &Parameters) -> (Self, Segment) {
        let immediate = command.data_segment_length;
        let expected = if command.write { command.expected_data_transfer_length } else { 0 };
        let mut write = Self {
            expected,
            unsolicited_open: !command.is_final,
            unsolicited_end: expected.min(parameters.first_burst_length),
            ..Self::NONE
        };
        if immediate > 0 && !parameters.immediate_data {
            write.fail(TransferFault::ImmediateDataNotAllowed);
        } else if immediate > expected {
            write.fail(TransferFault::BeyondExpectedLength);
        } else if immediate > write.unsolicited_end {
            write.fail(TransferFault::BeyondFirstBurst);
        } else if write.unsolicited_open && parameters.initial_r2t {
            // §13.10: nothing but immediate data comes unasked.
            write.fail(TransferFault::UnsolicitedDataNotAllowed);
        }
        let segment = write.admit(0, immediate);
        write.solicited = write.admitted;
        (write, segment)
    }

    /// What to do with the data of a Data-Out PDU. `ttt_base` marks this task's transfer tags: the tag of an R2T is this
    /// plus the low 16 bits of its R2TSN.
    pub(crate) fn data_out(
        &mut self,
        pdu: &DataOut,
        lun: LunField,
        ttt_base: u32,
        recovers: bool,
    ) -> Segment {
        let unsolicited = pdu.target_transfer_tag.is_reserved();
        let verdict =
            if unsolicited { self.judge_unsolicited(pdu) } else { self.judge_solicited(pdu, lun, ttt_base) };
        match verdict {
            Err(fault) if recovers && self.misses(pdu, fault, ttt_base) => {}
            Err(fault) => self.fail(fault),
            Ok(()) => {}
        }
        self.data_sn = self.data_sn.next();
        let segment = self.admit(pdu.buffer_offset, pdu.data_segment_length);
        let ends = pdu.is_final || verdict == Err(TransferFault::FinalMissing);
        if ends {
            self.end_sequence(unsolicited);
        }
        segment
    }

    fn judge_unsolicited(&self, pdu: &DataOut) -> Result<(), TransferFault> {
        if !self.unsolicited_open {
            return Err(TransferFault::UnsolicitedDataNotAllowed);
        }
        self.judge_order(pdu)?;
        let end = pdu.buffer_end();
        if end > self.expected {
            return Err(TransferFault::BeyondExpectedLength);
        }
        if end > self.unsolicited_end {
            return Err(TransferFault::BeyondFirstBurst);
        }
        // §11.4.7.2: where there is more data than FirstBurstLength, the unsolicited data is all of FirstBurstLength.
        // Where there is not, the rest of it can be asked for.
        if pdu.is_final && end < self.unsolicited_end && self.expected > self.unsolicited_end {
            return Err(TransferFault::FinalTooEarly);
        }
        Ok(())
    }

    fn judge_solicited(&self, pdu: &DataOut, lun: LunField, ttt_base: u32) -> Result<(), TransferFault> {
        let tag = |behind: u8| {
            let r2t_sn = self.r2t_sn.0.wrapping_sub(u32::from(self.outstanding.count - behind));
            transfer_tag(ttt_base, R2tSn(r2t_sn))
        };
        match (0..self.outstanding.count).position(|behind| tag(behind) == pdu.target_transfer_tag) {
            None => return Err(TransferFault::TransferTagUnknown),
            Some(0) => {}
            Some(_) => return Err(TransferFault::R2tOutOfOrder),
        }
        if pdu.lun != lun {
            return Err(TransferFault::LunMismatch);
        }
        self.judge_order(pdu)?;
        let (end, wanted_end) = (pdu.buffer_end(), self.outstanding.front().expect("the tag was found"));
        match (end.cmp(&wanted_end), pdu.is_final) {
            (core::cmp::Ordering::Greater, _) => Err(TransferFault::BeyondR2t),
            (core::cmp::Ordering::Less, true) => Err(TransferFault::FinalTooEarly),
            (core::cmp::Ordering::Equal, false) => Err(TransferFault::FinalMissing),
            _ => Ok(()),
        }
    }

    fn judge_order(&self, pdu: &DataOut) -> Result<(), TransferFault> {
        if pdu.data_sn != self.data_sn {
            return Err(TransferFault::DataSnOutOfOrder);
        }
        if pdu.buffer_offset != self.admitted {
            return Err(TransferFault::OffsetOutOfOrder);
        }
        Ok(())
    }

    /// Whether a fault means that PDUs before this one are lost, above recovery level 0 (§7.9): their data are asked for again, as
    /// those are whose digest was wrong.
    fn misses(&mut self, pdu: &DataOut, fault: TransferFault, ttt_base: u32) -> bool {
        if pdu.buffer_end() > self.expected || self.fault.is_some() {
            return false;
        }
        match fault {
            TransferFault::DataSnOutOfOrder | TransferFault::OffsetOutOfOrder => {}
            // §13.19: sequences come in order, so that the end of those before it will not come.
            TransferFault::R2tOutOfOrder => {
                while self.front_tag(ttt_base) != pdu.target_transfer_tag {
                    self.outstanding.pop();
                }
            }
            _ => return false,
        }
        self.data_sn = pdu.data_sn;
        self.recovering = true;
        true
    }

    /// The tag of the first R2T that is outstanding.
    fn front_tag(&self, ttt_base: u32) -> TargetTransferTag {
        transfer_tag(ttt_base, R2tSn(self.r2t_sn.0.wrapping_sub(u32::from(self.outstanding.count))))
    }

    /// The first fault counts; the ones after it are its consequences.
    fn fail(&mut self, fault: TransferFault) {
        self.fault = self.fault.or(Some(fault));
    }

    fn admit(&mut self, offset: u32, length: u32) -> Segment {
        let keep_bytes = if self.fault.is_some() {
            0
        } else {
            self.admitted = offset + length;
            let useful_end = if self.discarding || self.recovering { 0 } else { self.wanted() };
            length.min(useful_end.saturating_sub(offset))
        };
        Segment { offset_bytes: offset, keep_bytes, discard_bytes: length - keep_bytes }
    }

    /// §11.7.1: F ends the unsolicited burst, or the answer to one R2T. After a fault the F bits are still counted, so
    /// that it is known when the last one has come (§11.17.1), whatever else of the PDU was wrong.
    fn end_sequence(&mut self, unsolicited: bool) {
        match (unsolicited, self.unsolicited_open) {
            (true, true) => {
                self.unsolicited_open = false;
                self.solicited = self.admitted;
            }
            (true, false) => return,
            (false, _) => self.outstanding.pop(),
        }
        self.data_sn = DataSn(0);
    }

    /// The data segment of the last PDU is in.
    pub(crate) fn arrived(&mut self) -> Progress {
        if self.fault.is_none() && !self.recovering {
            self.received = self.admitted;
        }
        self.rewind();
        self.progress()
    }

    /// The data segment of the last PDU is in, and its digest is wrong (§7.8). F bits count on all the same. Above recovery
    /// level 0 the data is asked for again.
    pub(crate) fn spoilt(&mut self, recovers: bool) -> Progress {
        if recovers {
            self.recovering = true;
            self.rewind();
        } else {
            self.fail(TransferFault::DataDigestWrong);
        }
        self.progress()
    }

    /// §7.8 a: once nothing is on its way, recovery R2Ts begin where the last good data ended.
    fn rewind(&mut self) {
        if self.recovering && !self.unsolicited_open && self.outstanding.count == 0 {
            self.recovering = false;
            self.admitted = self.received;
            self.solicited = self.received;
            self.data_sn = DataSn(0);
        }
    }

    /// The connection is lost, and with it what was on its way: nothing more comes before it is asked for on another.
    pub(crate) fn suspend(&mut self) {
        self.lost_r2t_sn = self.r2t_sn;
        self.r2t_sn = R2tSn(self.r2t_sn.0.wrapping_sub(u32::from(self.outstanding.count)));
        self.outstanding.count = 0;
        self.unsolicited_open = false;
        self.recovering = true;
        self.rewind();
    }

    /// It goes on with another connection. R2Ts are numbered from the one that the initiator expects next (§7.2.2); where it does
    /// not say, from the first that was not answered in full.
    pub(crate) fn resume(&mut self, expected: u32) {
        if expected > 0 && expected <= self.lost_r2t_sn.0 {
            self.r2t_sn = R2tSn(expected);
        }
    }

    /// Whether no more data comes unasked.
    pub(crate) fn is_unsolicited_over(&self) -> bool {
        !self.unsolicited_open
    }

    /// Bytes from offset 0 on that came unasked or have been asked for, once the unsolicited data has ended.
    pub(crate) fn solicited(&self) -> u32 {
        self.solicited
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            received_bytes: self.received,
            is_complete: self.fault.is_none()
                && !self.discarding
                && !self.recovering
                && self.required.is_some()
                && self.received >= self.wanted(),
            is_settled: !self.unsolicited_open && self.outstanding.count == 0,
            fault: self.fault,
        }
    }

    /// The device server says how much data the command takes, whatever the initiator expects.
    pub(crate) fn want(&mut self, required: u64) {
        assert!(self.required.is_none(), "a command says once how much data it takes");
        self.required = Some(required);
    }

    /// The task has failed, or has been answered: what still comes is of no use, and nothing is asked for any more.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
    }

    /// The next R2T, of at most `budget` bytes, if one is due now. Unsolicited data comes to its end first: data sequences
    /// come in order (§13.19), and only the F bit says that the burst is over.
    pub(crate) fn solicit(&mut self, budget: u32, parameters: &Parameters) -> Option<Solicitation> {
        let outstanding_max = parameters.max_outstanding_r2t.min(u16::from(OUTSTANDING_R2T_MAX));
        let idle = self.required.is_none()
            || self.discarding
            || self.fault.is_some()
            || self.unsolicited_open
            || self.recovering;
        if idle || u16::from(self.outstanding.count) >= outstanding_max {
            return None;
        }
        let left = self.wanted().saturating_sub(self.solicited);
        let length = left.min(parameters.max_burst_length).min(budget);
        if length == 0 {
            return None;
        }
        let solicitation = Solicitation { offset: self.solicited, length, r2t_sn: self.r2t_sn };
        self.solicited += length;
        self.r2t_sn = self.r2t_sn.next();
        self.outstanding.push(self.solicited);
        Some(solicitation)
    }

    /// Bytes that the device server takes and the initiator has; all that the initiator has, until it is known.
    fn wanted(&self) -> u32 {
        self.required
            .map_or(self.expected, |required| u32::try_from(required).unwrap_or(u32::MAX).min(self.expected))
    }

    /// The number of the next R2T.
    pub(crate) fn r2t_sn(&self) -> R2tSn {
        self.r2t_sn
    }

    pub(crate) fn expected(&self) -> u32 {
        self.expected
    }

    pub(crate) fn required(&self) -> Option<u64> {
        self.required
    }

    /// Bytes that were put to use.
    pub(crate) fn moved(&self) -> u32 {
        if self.required.is_some() { self.received.min(self.wanted()) } else { 0 }
    }

    pub(crate) fn fault(&self) -> Option<TransferFault> {
        self.fault
    }
}

/// The Target Transfer Tag of an R2T: the task's slot above, R2TSN below. Never the reserved one, as no slot is 0xffff.
pub(crate) fn transfer_tag(ttt_base: u32, r2t_sn: R2tSn) -> TargetTransferTag {
    TargetTransferTag(ttt_base | (r2t_sn.0 & 0xffff))
}

/// The Target Transfer Tag of Data-In that is to be acknowledged: a read has no R2Ts, so that all of its task's are free. It is
/// another one after the data were cut anew, when DataSN counts other PDUs.
pub(crate) fn data_in_tag(ttt_base: u32, resegmentations: u16) -> TargetTransferTag {
    TargetTransferTag(ttt_base | u32::from(resegmentations))
}

impl Outstanding {
    fn front(&self) -> Option<u32> {
        (self.count > 0).then(|| self.ends[usize::from(self.first)])
    }

    fn push(&mut self, end: u32) {
        assert!(self.count < OUTSTANDING_R2T_MAX, "the caller has counted");
        self.ends[usize::from((self.first + self.count) % OUTSTANDING_R2T_MAX)] = end;
        self.count += 1;
    }

    fn pop(&mut self) {
        if self.count > 0 {
            self.first = (self.first + 1) % OUTSTANDING_R2T_MAX;
            self.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
