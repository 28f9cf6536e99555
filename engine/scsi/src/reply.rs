//! Data-in that the device server makes itself: a writer that cuts at the ALLOCATION LENGTH (SPC-4 §4.2.5.6).
//!
//! What is cut is still counted, so that length fields tell the whole length, as the standard wants.

/// Most bytes of any reply but REPORT LUNS: see [`crate::device_server::reply_bytes_max`].
pub const REPLY_BYTES_MAX: usize = 4096;

/// Writes a reply into the caller's buffer.
pub(crate) struct Reply<'a> {
    buffer: &'a mut [u8],
    allocation_length: usize,
    written: usize,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(buffer: &'a mut [u8], allocation_length: impl TryInto<usize>) -> Self {
        Self { buffer, allocation_length: allocation_length.try_into().unwrap_or(usize::MAX), written: 0 }
    }

    /// Bytes written so far, those cut off included.
    pub(crate) fn position(&self) -> usize {
        self.written
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.buffer.len().min(self.allocation_length);
        if let Some(room) = self.buffer.get_mut(self.written..end) {
            let kept = bytes.len().min(room.len());
            room[..kept].copy_from_slice(&bytes[..kept]);
        }
        self.written += bytes.len();
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn be16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn be32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Zeros up to `position`.
    pub(crate) fn zeros_to(&mut self, position: usize) {
        while self.written < position {
            self.byte(0);
        }
    }

    /// Writes over what was written at `at`.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        let position = std::mem::replace(&mut self.written, at);
        self.bytes(bytes);
        self.written = position;
    }

    /// Fills the big-endian 16-bit length field at `at` with the number of bytes that follow it.
    pub(crate) fn length16(&mut self, at: usize) {
        let length = u16::try_from(self.written - at - 2).expect("replies are shorter than 64 KiB");
        self.patch(at, &length.to_be_bytes());
    }

    /// How many bytes of the buffer are the reply.
    ///
    /// # Panics
    /// When the caller's buffer was too small for it, which is the caller's bug.
    pub(crate) fn finish(self) -> usize {
        let length = self.written.min(self.allocation_length);
        assert!(
            length <= self.buffer.len(),
            "a reply of {length} bytes in a buffer of {}",
            self.buffer.len()
        );
        length
    }
}
