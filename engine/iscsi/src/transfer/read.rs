//! A read: how its data is cut into Data-In PDUs (RFC 7143 §11.7).

use crate::sn::DataSn;
use crate::wire::Residual;

/// The data that goes to the initiator for one task.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Read {
    /// Expected Data Transfer Length; 0 where the R bit is not set.
    expected: u32,
    /// What the command itself moves, once the device server knows.
    required: Option<u64>,
    /// Bidirectional Read Expected Data Transfer Length of a command that writes as well: no command that is served reads
    /// and writes, so nothing of it is ever moved.
    bidirectional: Option<u32>,
    sent: u32,
    /// Bytes sent since the last F bit.
    in_burst: u32,
    data_sn: DataSn,
    /// Of the last R-Data SNACK; 0 where there was none.
    snack_tag: u32,
    /// How often what was sent has been cut anew.
    resegmentations: u16,
}

/// One Data-In PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) data_sn: DataSn,
    /// F: the end of a sequence.
    pub(crate) ends_sequence: bool,
    /// The last data of the task: the status goes with it.
    pub(crate) is_last: bool,
}

impl Read {
    pub(crate) fn new(expected: u32) -> Self {
        Self { expected, ..Self::default() }
    }

    /// The read half of a command that writes as well.
    pub(crate) fn bidirectional(length: Option<u32>) -> Self {
        Self { bidirectional: length, ..Self::default() }
    }

    /// What is missing of the read half of a bidirectional command (§11.4.6).
    pub(crate) fn bidirectional_residual(&self) -> Residual {
        match self.bidirectional {
            None | Some(0) => Residual::None,
            Some(length) => Residual::Underflow(length),
        }
    }

    pub(crate) fn begin(&mut self, required: u64) {
        assert!(self.required.is_none() && self.sent == 0, "a read begins once");
        self.required = Some(required);
    }

    pub(crate) fn expected(&self) -> u32 {
        self.expected
    }

    pub(crate) fn required(&self) -> Option<u64> {
        self.required
    }

    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// How many Data-In PDUs have been cut.
    pub(crate) fn data_sn(&self) -> DataSn {
        self.data_sn
    }

    /// What was sent has been cut anew, up to this DataSN, for an R-Data SNACK of this tag (§11.16).
    pub(crate) fn resegmented(&mut self, data_sn: DataSn, snack_tag: u32) {
        (self.data_sn, self.snack_tag) = (data_sn, snack_tag);
        self.resegmentations = self.resegmentations.wrapping_add(1);
    }

    /// The command goes on with another connection; what was sent may have been cut anew for it, up to this DataSN. A SNACK Tag
    /// that it held is no more (§7.2.2).
    pub(crate) fn reassigned(&mut self, data_sn: Option<DataSn>) {
        self.snack_tag = 0;
        if let Some(data_sn) = data_sn {
            self.resegmented(data_sn, 0);
        }
    }

    /// How often what was sent has been cut anew: a DataACK counts by the last cut.
    pub(crate) fn resegmentations(&self) -> u16 {
        self.resegmentations
    }

    /// What the response carries as SNACK Tag (§11.4.4).
    pub(crate) fn snack_tag(&self) -> u32 {
        self.snack_tag
    }

    /// What is sent in all: no more than the initiator has room for (§11.4.5).
    pub(crate) fn total(&self) -> u32 {
        let required = self.required.unwrap_or(0);
        u32::try_from(required.min(u64::from(self.expected))).expect("no more than 32 bits of it")
    }

    /// The next PDU, if all of its data is there: `available` bytes from offset 0. A PDU is as long as the segment and the
    /// burst allow, and never shorter for want of data that is still to come.
    pub(crate) fn next(&mut self, available: u32, segment_max: u32, burst_max: u32) -> Option<Cut> {
        let left = self.total() - self.sent;
        let length = left.min(segment_max).min(burst_max - self.in_burst);
        if length == 0 || available.saturating_sub(self.sent) < length {
            return None;
        }
        let offset = self.sent;
        let data_sn = self.data_sn;
        self.sent += length;
        self.in_burst += length;
        self.data_sn = data_sn.next();
        let is_last = length == left;
        let ends_sequence = is_last || self.in_burst == burst_max;
        if ends_sequence {
            self.in_burst = 0;
        }
        Some(Cut { offset, length, data_sn, ends_sequence, is_last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(offset: u32, length: u32, data_sn: u32, ends_sequence: bool, is_last: bool) -> Option<Cut> {
        Some(Cut { offset, length, data_sn: DataSn(data_sn), ends_sequence, is_last })
    }

    #[test]
    fn data_is_cut_to_segments_and_each_burst_ends_with_f() {
        let mut read = Read::new(10_000);
        read.begin(10_000);
        assert_eq!(read.next(10_000, 4096, 6000), cut(0, 4096, 0, false, false));
        assert_eq!(read.next(10_000, 4096, 6000), cut(4096, 1904, 1, true, false));
        assert_eq!(read.next(10_000, 4096, 6000), cut(6000, 4000, 2, true, true));
        assert_eq!(read.next(10_000, 4096, 6000), None);
    }

    #[test]
    fn a_pdu_waits_until_all_of_its_data_is_there() {
        let mut read = Read::new(8192);
        read.begin(8192);
        assert_eq!(read.next(4095, 4096, 65_536), None);
        assert_eq!(read.next(4096, 4096, 65_536), cut(0, 4096, 0, false, false));
        assert_eq!(read.next(4096, 4096, 65_536), None);
        assert_eq!(read.next(8192, 4096, 65_536), cut(4096, 4096, 1, true, true));
    }

    #[test]
    fn no_more_is_sent_than_the_initiator_expects() {
        let mut read = Read::new(200);
        read.begin(512);
        assert_eq!(read.next(512, 4096, 65_536), cut(0, 200, 0, true, true));
        assert_eq!(read.next(512, 4096, 65_536), None);
    }

    #[test]
    fn a_read_of_nothing_has_no_data_in() {
        let mut read = Read::new(0);
        read.begin(512);
        assert_eq!(read.next(512, 4096, 65_536), None);
        let mut read = Read::new(512);
        read.begin(0);
        assert_eq!(read.next(512, 4096, 65_536), None);
    }

    proptest! {
        #[test]
        fn every_byte_goes_once_and_no_limit_is_passed(
            expected in 0_u32..200_000, required in 0_u64..200_000,
            segment_max in 512_u32..20_000, burst_max in 512_u32..70_000, step in 1_u32..50_000,
        ) {
            let mut read = Read::new(expected);
            read.begin(required);
            let total = expected.min(u32::try_from(required).unwrap());
            let (mut sent, mut available, mut in_burst, mut last) = (0, 0, 0, false);
            while available < total {
                available = (available + step).min(total);
                while let Some(cut) = read.next(available, segment_max, burst_max) {
                    prop_assert!(!last);
                    prop_assert_eq!(cut.offset, sent);
                    prop_assert!(cut.length <= segment_max);
                    sent += cut.length;
                    in_burst += cut.length;
                    prop_assert!(in_burst <= burst_max && sent <= available);
                    if cut.ends_sequence { in_burst = 0; }
                    last = cut.is_last;
                }
            }
            prop_assert_eq!(sent, total);
            prop_assert_eq!(last, total > 0);
        }
    }
}
