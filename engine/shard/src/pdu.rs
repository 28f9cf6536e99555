//! One PDU on its way into a message: header, data, padding, and the digests that the connection has agreed on (RFC 7143
//! §11.2, §13.1). Digests are computed over the bytes where they lie.

use portico_iscsi::digest::Crc32c;
use portico_iscsi::framing::{DIGEST_BYTES, Digests, padding};
use portico_iscsi::wire::{BHS_BYTES, Bhs};
use portico_ring::{Buffer, Lent, Message};

/// What BHS and digests take of a message's slab; padding and what is pushed as bytes come on top.
pub(crate) const PDU_SLAB_BYTES: usize = BHS_BYTES + 2 * DIGEST_BYTES as usize;

/// A PDU whose data segment is being put together.
pub(crate) struct Pdu<'a> {
    message: &'a mut Message,
    data_digest: Option<Crc32c>,
    data_bytes: usize,
    /// The data segment once more, for who may have to send it again.
    copy: Option<Vec<u8>>,
}

impl<'a> Pdu<'a> {
    /// Appends a header and its digest.
    ///
    /// # Panics
    /// Here and below where the message has no room: the caller has asked it.
    #[inline]
    pub(crate) fn begin(message: &'a mut Message, header: &Bhs, digests: Digests) -> Self {
        assert!(message.push_copy(header), "there was room");
        if let Some(field) = digests.of_header(header) {
            push(message, &field);
        }
        Self { message, data_digest: digests.data.then(Crc32c::new), data_bytes: 0, copy: None }
    }

    /// Copies what is appended from here on.
    pub(crate) fn copied(mut self, copied: bool) -> Self {
        self.copy = copied.then(Vec::new);
        self
    }

    /// Appends data that are copied into the message's slab.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes);
        push(self.message, bytes);
    }

    /// Appends data in a buffer.
    pub(crate) fn buffer(&mut self, buffer: Buffer) {
        self.count(&buffer);
        self.message.push_buffer(buffer).expect("a PDU's parts fit");
    }

    /// Appends memory that is lent: it may change until it is sent, so that no digest could be true of it.
    pub(crate) fn lent(&mut self, lent: Lent) {
        assert!(self.data_digest.is_none(), "a READ with data digests is sent as a copy");
        assert!(self.copy.is_none(), "one that may be sent again goes through buffers");
        self.data_bytes += lent.len();
        self.message.push_lent(lent).expect("a PDU's parts fit");
    }

    /// Appends padding and data digest; gives the copy of the data where one was wanted.
    #[inline]
    pub(crate) fn end(mut self) -> Option<Vec<u8>> {
        let copy = self.copy.take();
        if self.data_digest.is_none() && self.data_bytes.is_multiple_of(4) {
            return copy;
        }
        let length = u32::try_from(self.data_bytes).expect("a data segment has a length of 24 bits");
        let zeroes = [0; 3];
        let zeroes = &zeroes[..padding(length) as usize];
        if !zeroes.is_empty() {
            self.bytes(zeroes);
        }
        if let Some(crc) = self.data_digest.filter(|_| length > 0) {
            push(self.message, &crc.field());
        }
        copy
    }

    fn count(&mut self, bytes: &[u8]) {
        self.data_bytes += bytes.len();
        if let Some(crc) = &mut self.data_digest {
            crc.update(bytes);
        }
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(bytes);
        }
    }
}

fn push(message: &mut Message, bytes: &[u8]) {
    message.push_header(bytes.len()).expect("there was room").copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_iscsi::digest::field_of;
    use portico_ring::{Arena, ArenaOptions, Class, MessageLimits};

    fn sent(digests: Digests, data: &[&[u8]]) -> Vec<u8> {
        let arena = Arena::new(ArenaOptions { small: 4, medium: 1, large: 1 }).unwrap();
        let mut message = Message::new(MessageLimits::default());
        let mut pdu = Pdu::begin(&mut message, &[7; BHS_BYTES], digests);
        for (at, part) in data.iter().enumerate() {
            if at % 2 == 0 {
                pdu.bytes(part);
            } else {
                let mut buffer = arena.take(Class::Small).unwrap();
                buffer.set_len(part.len());
                buffer.copy_from_slice(part);
                pdu.buffer(buffer);
            }
        }
        pdu.end();
        let mut bytes = Vec::new();
        message.copy_to(&mut bytes);
        bytes
    }

    #[test]
    fn without_digests_there_is_header_data_and_padding() {
        assert_eq!(sent(Digests::NONE, &[b"abc", b"de"]), [&[7; 48][..], b"abcde\0\0\0"].concat());
    }

    #[test]
    fn both_digests_cover_what_the_standard_says() {
        let both = Digests { header: true, data: true };
        let expected =
            [&[7; 48][..], &field_of(&[7; 48]), b"abcde\0\0\0", &field_of(b"abcde\0\0\0")].concat();
        assert_eq!(sent(both, &[b"abc", b"de"]), expected);
    }

    #[test]
    fn no_data_have_no_data_digest() {
        assert_eq!(sent(Digests { header: false, data: true }, &[]), [7; 48]);
    }
}
