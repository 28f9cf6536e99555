//! Answers that are ready, to leave in one call: headers in a slab, data by reference.

use std::io::IoSlice;
use std::ops::Range;

use portico_iscsi::wire::BHS_BYTES;

/// The most bytes that follow a header in its own slot: the data of READ CAPACITY (16), padded sense data.
pub(crate) const INLINE_BYTES_MAX: usize = 32;
/// Answers in one batch, so that they fit into one call of the kernel: 1024 parts.
pub(crate) const ANSWERS_MAX: usize = 512;

/// One PDU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// The header, and what follows it inline.
    pub(crate) bytes: [u8; BHS_BYTES + INLINE_BYTES_MAX],
    /// How much of `bytes` is sent.
    pub(crate) length: usize,
    /// What of the memory follows.
    start: usize,
    end: usize,
}

impl Answer {
    /// A header alone.
    pub(crate) fn header(bhs: &[u8; BHS_BYTES]) -> Self {
        let mut bytes = [0; BHS_BYTES + INLINE_BYTES_MAX];
        bytes[..BHS_BYTES].copy_from_slice(bhs);
        Self { bytes, length: BHS_BYTES, start: 0, end: 0 }
    }

    /// What of the memory follows the header.
    pub(crate) fn data(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Answers in their order.
#[derive(Debug)]
pub struct Batch {
    pub(crate) answers: Vec<Answer>,
    length_bytes: usize,
    /// The connection is closed when all of it is sent.
    pub(crate) is_last: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self { answers: Vec::with_capacity(ANSWERS_MAX), length_bytes: 0, is_last: false }
    }
}

impl Batch {
    /// Appends an answer with data of the memory behind it, in whole words.
    pub(crate) fn push(&mut self, mut answer: Answer, data: Range<usize>) {
        self.length_bytes += answer.length + data.len();
        (answer.start, answer.end) = (data.start, data.end);
        self.answers.push(answer);
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Bytes in all.
    #[must_use]
    pub fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.answers.clear();
        self.length_bytes = 0;
        self.is_last = false;
    }

    /// The parts, less the first `skip` bytes.
    #[must_use]
    pub fn slices<'a>(&'a self, memory: &'a [u8], mut skip: usize) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(2 * self.answers.len());
        for answer in &self.answers {
            for part in [&answer.bytes[..answer.length], &memory[answer.data()]] {
                let from = skip.min(part.len());
                skip -= from;
                if from < part.len() {
                    slices.push(IoSlice::new(&part[from..]));
                }
            }
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_already_is_left_out_wherever_that_ends() {
        let mut batch = Batch::default();
        batch.push(Answer::header(&[1; 48]), 0..100);
        batch.push(Answer::header(&[2; 48]), 0..0);
        let memory = [3; 100];
        let lengths =
            |skip| -> Vec<usize> { batch.slices(&memory, skip).iter().map(|slice| slice.len()).collect() };
        assert_eq!(batch.length_bytes(), 196);
        assert_eq!(lengths(0), [48, 100, 48]);
        assert_eq!(lengths(48), [100, 48]);
        assert_eq!(lengths(50), [98, 48]);
        assert_eq!(lengths(195), [1]);
        assert!(lengths(196).is_empty());
    }
}
