//! What is kept of a third-party copy, and what RECEIVE COPY RESULTS tells of it (SPC-4 §5.16.4, §6.20 to §6.26).
//!
//! Records belong to an I_T nexus. A list identifier of one byte is the same as that number in four bytes, so that each of
//! these commands finds the copies of all others.

use crate::reply::Reply;
use crate::sense::{Outcome, SenseFormat};
use crate::token::{TOKEN_BYTES, TokenBytes};

/// What of a copy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyResults {
    /// RECEIVE COPY STATUS (LID1).
    Status,
    /// RECEIVE COPY FAILURE DETAILS (LID1).
    FailureDetails,
    /// RECEIVE COPY STATUS (LID4).
    LongStatus,
    /// RECEIVE ROD TOKEN INFORMATION.
    RodTokens,
}

/// What is kept of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRecord {
    /// LIST IDENTIFIER.
    pub list_id: u32,
    /// SERVICE ACTION of the command that it was begun by.
    pub service_action: u8,
    /// How it stands.
    pub state: CopyState,
    /// Its command had its status when it began.
    pub background: bool,
    /// SEGMENTS PROCESSED.
    pub segments: u16,
    /// TRANSFER COUNT, in bytes.
    pub bytes: u64,
    /// OPERATION COUNTER: pieces written.
    pub operations: u16,
    /// What it ended with.
    pub outcome: Outcome,
    /// Bytes of a block, where TRANSFER COUNT counts them.
    pub block_bytes: Option<u32>,
    /// The token that it made.
    pub token: Option<Box<TokenBytes>>,
}

/// How a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// It goes on.
    InProgress,
    /// It ended well.
    Completed,
    /// It ended otherwise.
    Failed,
    /// It was ended by another command or a task management function.
    Aborted,
}

impl CopyRecord {
    /// A copy that begins.
    pub const fn new(list_id: u32, service_action: u8, background: bool) -> Self {
        Self {
            list_id,
            service_action,
            state: CopyState::InProgress,
            background,
            segments: 0,
            bytes: 0,
            operations: 0,
            outcome: Outcome::GOOD,
            block_bytes: None,
            token: None,
        }
    }

    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.state == CopyState::InProgress
    }

    /// What it is told of, cut at the ALLOCATION LENGTH, in `buffer`, which has [`RESULTS_BYTES_MAX`]. `None` where there is
    /// nothing of that kind: failure details of a copy that goes on.
    pub fn tell(
        &self,
        results: CopyResults,
        format: SenseFormat,
        allocation_length: u32,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let mut reply = Reply::new(buffer, allocation_length);
        match results {
            CopyResults::Status => self.short_status(&mut reply),
            CopyResults::FailureDetails if self.is_running() => return None,
            CopyResults::FailureDetails => self.failure_details(format, &mut reply),
            CopyResults::LongStatus => {
                self.long_status(format, &mut reply);
                count_available(&mut reply);
            }
            CopyResults::RodTokens => {
                self.long_status(format, &mut reply);
                self.rod_tokens(&mut reply);
                count_available(&mut reply);
            }
        }
        Some(reply.finish())
    }

    fn short_status(&self, reply: &mut Reply<'_>) {
        reply.be32(8);
        reply.byte(match self.state {
            CopyState::InProgress => 0x00,
            CopyState::Completed => 0x01,
            CopyState::Failed | CopyState::Aborted => 0x02,
        });
        reply.be16(self.segments);
        // TRANSFER COUNT UNITS: bytes, or KiB where four bytes do not count them.
        let (units, count) = match u32::try_from(self.bytes) {
            Ok(bytes) => (0x00, bytes),
            Err(_) => (0x01, u32::try_from(self.bytes >> 10).unwrap_or(u32::MAX)),
        };
        reply.byte(units);
        reply.be32(count);
    }

    /// There are details of copies that failed; of one that ended well AVAILABLE DATA is zero.
    fn failure_details(&self, format: SenseFormat, reply: &mut Reply<'_>) {
        if self.state == CopyState::Completed {
            return reply.be32(0);
        }
        let sense = self.outcome.sense_data(format);
        let sense = sense.as_ref().map_or(&[][..], |sense| sense.as_bytes());
        let length = u16::try_from(sense.len()).expect("sense data are short");
        reply.be32(56 + u32::from(length));
        reply.zeros_to(56);
        reply.bytes(&[0x02, 0]);
        reply.be16(length);
        reply.bytes(sense);
    }

    fn long_status(&self, format: SenseFormat, reply: &mut Reply<'_>) {
        let sense = self.outcome.sense_data(format);
        let sense = sense.as_ref().map_or(&[][..], |sense| sense.as_bytes());
        let length = u8::try_from(sense.len()).expect("sense data are short");
        reply.be32(0); // AVAILABLE DATA: [`count_available`]
        reply.byte(self.service_action);
        reply.byte(match (self.state, self.background) {
            (CopyState::Completed, _) => 0x01,
            (CopyState::Failed, _) => 0x02,
            (CopyState::InProgress, false) => 0x11,
            (CopyState::InProgress, true) => 0x12,
            (CopyState::Aborted, _) => 0x60,
        });
        reply.be16(self.operations);
        reply.be32(if self.is_running() { UPDATE_DELAY_MS } else { 0 });
        reply.byte(if self.is_running() { 0 } else { self.outcome.status as u8 });
        reply.bytes(&[length, length]);
        // TRANSFER COUNT UNITS: bytes, or blocks.
        let (units, count) = match self.block_bytes {
            None => (0x00, self.bytes),
            Some(block_bytes) => (0xf1, self.bytes / u64::from(block_bytes)),
        };
        reply.byte(units);
        reply.be64(count);
        reply.be16(self.segments);
        reply.bytes(&[0; 6]);
        reply.bytes(sense);
    }

    fn rod_tokens(&self, reply: &mut Reply<'_>) {
        match &self.token {
            Some(token) => {
                reply.be32(2 + u32::try_from(TOKEN_BYTES).expect("a small number"));
                reply.be16(0);
                reply.bytes(&token[..]);
            }
            None => reply.be32(0),
        }
    }
}

/// AVAILABLE DATA: what follows the field.
fn count_available(reply: &mut Reply<'_>) {
    let available = u32::try_from(reply.position() - 4).expect("a short reply");
    reply.patch(0, &available.to_be_bytes());
}

/// ESTIMATED STATUS UPDATE DELAY of a copy that goes on.
const UPDATE_DELAY_MS: u32 = 100;

/// Bytes of what [`CopyRecord::tell`] writes.
pub const RESULTS_BYTES_MAX: usize = 60 + crate::sense::SENSE_BYTES_MAX + 6 + TOKEN_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::AdditionalSense;

    fn told(record: &CopyRecord, results: CopyResults, format: SenseFormat) -> Option<Vec<u8>> {
        let mut buffer = [0xee; RESULTS_BYTES_MAX];
        let length = record.tell(results, format, 1000, &mut buffer)?;
        Some(buffer[..length].to_vec())
    }

    fn failed() -> CopyRecord {
        let outcome = Outcome::copy_failed(AdditionalSense::THIRD_PARTY_DEVICE_FAILURE, 3);
        let state = CopyState::Failed;
        CopyRecord {
            state,
            segments: 3,
            bytes: 0x1000,
            operations: 4,
            outcome,
            ..CopyRecord::new(7, 1, true)
        }
    }

    #[test]
    fn the_short_status_counts_bytes_and_larger_units_where_they_do_not_fit() {
        let status = |record: &CopyRecord| told(record, CopyResults::Status, SenseFormat::Fixed).unwrap();
        let new = CopyRecord::new(7, 0, false);
        let done = CopyRecord { state: CopyState::Completed, segments: 2, bytes: 0x1_0000, ..new.clone() };
        assert_eq!(status(&done), [0, 0, 0, 8, 1, 0, 2, 0, 0, 1, 0, 0]);
        let long = CopyRecord { bytes: 5 << 30, segments: 2, ..new };
        assert_eq!(status(&long), [0, 0, 0, 8, 0, 0, 2, 1, 0, 0x50, 0, 0]);
        assert_eq!(status(&failed())[4], 2);
    }

    #[test]
    fn the_long_status_tells_how_a_copy_stands_and_what_it_failed_with() {
        let status = |record: &CopyRecord| told(record, CopyResults::LongStatus, SenseFormat::Fixed).unwrap();
        let mut record = CopyRecord::new(0x0102_0304, 1, true);
        assert_eq!(status(&record)[..16], [0, 0, 0, 28, 1, 0x12, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0]);
        record.background = false;
        assert_eq!(status(&record)[5], 0x11);
        let told = status(&failed());
        assert_eq!(told[..16], [0, 0, 0, 46, 1, 0x02, 0, 4, 0, 0, 0, 0, 2, 18, 18, 0]);
        assert_eq!(told[16..32], [0, 0, 0, 0, 0, 0, 0x10, 0, 0, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(told[32..46], [0x70, 0, 0x0a, 0, 0, 0, 0, 10, 0, 0, 0, 3, 0x0d, 0x01]);
        let done = CopyRecord { state: CopyState::Completed, ..CopyRecord::new(1, 1, false) };
        assert_eq!(status(&done)[4..6], [1, 0x01]);
        let aborted = CopyRecord { state: CopyState::Aborted, outcome: Outcome::TASK_ABORTED, ..done };
        assert_eq!((status(&aborted)[5], status(&aborted)[12]), (0x60, 0x40));
    }

    #[test]
    fn failure_details_are_the_sense_data_of_a_copy_that_failed() {
        let details =
            |record: &CopyRecord| told(record, CopyResults::FailureDetails, SenseFormat::Descriptor);
        assert_eq!(details(&CopyRecord::new(7, 0, false)), None, "it goes on");
        let done = CopyRecord { state: CopyState::Completed, ..CopyRecord::new(7, 0, false) };
        assert_eq!(details(&done).unwrap(), [0; 4]);
        let told = details(&failed()).unwrap();
        assert_eq!((told[..4].to_vec(), told.len()), (vec![0, 0, 0, 76], 80));
        assert_eq!(told[56..60], [0x02, 0, 0, 20]);
        let sense = [0x72, 0x0a, 0x0d, 0x01, 0, 0, 0, 12, 0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(told[60..], sense);
    }
}
