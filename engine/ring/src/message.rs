//! [`Message`]: what one send carries, as a bounded list of parts: headers written in place into the message's own slab,
//! ranges of buffers, and memory that is lent ([`Lent`], a RAM disk's).
//!
//! A message is made once per connection and used again and again; it moves as one pointer. While the kernel sends it,
//! it sits in the ring; it comes back when the last byte is with the kernel, or the connection broke.
#![expect(unsafe_code, reason = "names lent memory by address, after proving that its owner stays")]

use crate::arena::Buffer;
use crate::segments::{Segment, empty_header};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Parts that one message can have: what the kernel takes in one SENDMSG (UIO_MAXIOV).
pub const PARTS_MAX: usize = 1024;

/// The size of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Parts, at most [`PARTS_MAX`]. Headers that follow each other count as one.
    pub parts: usize,
    /// Bytes of the slab that headers are written into.
    pub header_bytes: usize,
}

impl Default for MessageLimits {
    /// 64 parts, 4 KiB of headers.
    fn default() -> Self {
        Self { parts: 64, header_bytes: 4096 }
    }
}

/// Memory of somebody else, lent for a send without a copy: a range of a RAM disk, or of a region of zeroes.
///
/// Other threads may write it meanwhile, as they may in a real disk; hence atomics, which nobody takes for constant.
pub struct Lent {
    start: NonNull<AtomicU8>,
    length: usize,
    _owner: Rc<dyn Any>,
}

impl Lent {
    /// `range` of the memory that `owner` names. The owner is kept until the message lets go of this.
    ///
    /// # Panics
    /// Where the range is not inside that memory.
    pub fn new<T: AsRef<[AtomicU8]> + 'static>(owner: Rc<T>, range: Range<usize>) -> Self {
        let memory: &[AtomicU8] = &T::as_ref(&owner)[range];
        // SAFETY (of using `start` while `_owner` is held): the slice borrows from the `T` inside the `Rc`. That `T`
        // neither moves nor is dropped while this struct holds the `Rc`, and nobody obtains `&mut T`, since we are one
        // of its holders and never do. So the borrow can be extended for as long as we hold the `Rc`, as the borrow
        // checker would agree if a struct could borrow from its own field.
        let (start, length) = (NonNull::from(memory).cast(), memory.len());
        Self { start, length, _owner: owner }
    }

    /// Bytes lent.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no byte is lent.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes, which others may be writing.
    pub fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: see `new`: the memory is valid while `_owner` is held, and that is at least as long as `&self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({} bytes)", self.length)
    }
}

/// What one send carries. Made once and reused.
pub struct Message(Box<Inner>);

struct Inner {
    parts: Vec<Part>,
    headers: Box<[u8]>,
    headers_used: usize,
    length_bytes: usize,
    sent_bytes: usize,
    /// Filled by [`Message::vectors`] for one operation, and shortened by [`Message::sent`].
    iovecs: Vec<libc::iovec>,
    /// The first of `iovecs` that has not been sent whole.
    first: usize,
    header: libc::msghdr,
}

enum Part {
    Header { start: usize, end: usize },
    Segment(Segment),
    Lent(Lent),
}

impl Message {
    /// An empty message. This is the only call that allocates.
    ///
    /// # Panics
    /// Where the limits ask for no part or more than [`PARTS_MAX`].
    pub fn new(limits: MessageLimits) -> Self {
        assert!((1..=PARTS_MAX).contains(&limits.parts), "a message of {} parts", limits.parts);
        Self(Box::new(Inner {
            parts: Vec::with_capacity(limits.parts),
            headers: vec![0; limits.header_bytes].into_boxed_slice(),
            headers_used: 0,
            length_bytes: 0,
            sent_bytes: 0,
            iovecs: Vec::with_capacity(limits.parts),
            first: 0,
            header: empty_header(),
        }))
    }

    /// Whether `parts` more parts with `header_bytes` more of headers have room.
    #[inline]
    pub fn admits(&self, parts: usize, header_bytes: usize) -> bool {
        let inner = &*self.0;
        parts <= inner.parts.capacity().min(PARTS_MAX) - inner.parts.len()
            && header_bytes <= inner.headers.len() - inner.headers_used
    }

    /// Appends `length` zero bytes of the message's own slab, to be written in place: a header, padding, a digest.
    /// `None` where the slab or the list of parts is full.
    #[inline]
    #[must_use]
    pub fn push_header(&mut self, length: usize) -> Option<&mut [u8]> {
        let joins = matches!(self.0.parts.last(), Some(Part::Header { .. }));
        if !self.admits(usize::from(!joins), length) {
            return None;
        }
        let inner = &mut *self.0;
        let (start, end) = (inner.headers_used, inner.headers_used + length);
        match inner.parts.last_mut() {
            // The slab is handed out in order, so this header lies right behind that one.
            Some(Part::Header { end: last, .. }) => *last = end,
            _ => inner.parts.push(Part::Header { start, end }),
        }
        inner.headers_used = end;
        inner.length_bytes += length;
        let header = &mut inner.headers[start..end];
        header.fill(0);
        Some(header)
    }

    /// Appends a copy of `bytes` to the message's own slab. `false` where the slab or the list of parts is full.
    #[inline]
    #[must_use]
    pub fn push_copy<const N: usize>(&mut self, bytes: &[u8; N]) -> bool {
        let inner = &mut *self.0;
        let (start, end) = (inner.headers_used, inner.headers_used + N);
        let has_part = inner.parts.len() < inner.parts.capacity().min(PARTS_MAX);
        let Some(place) = inner.headers.get_mut(start..end) else { return false };
        match inner.parts.last_mut() {
            Some(Part::Header { end: last, .. }) => *last = end,
            _ if has_part => inner.parts.push(Part::Header { start, end }),
            _ => return false,
        }
        place.copy_from_slice(bytes);
        inner.headers_used = end;
        inner.length_bytes += N;
        true
    }

    /// Appends all that `buffer` shows.
    ///
    /// # Errors
    /// The segment, where the list of parts is full.
    #[inline]
    pub fn push_buffer(&mut self, buffer: Buffer) -> Result<(), Segment> {
        let length = buffer.len();
        self.push_segment(Segment::new(buffer, 0..length))
    }

    /// Appends a range of a buffer.
    ///
    /// # Errors
    /// The segment, where the list of parts is full.
    #[inline]
    pub fn push_segment(&mut self, segment: Segment) -> Result<(), Segment> {
        if !self.admits(1, 0) {
            return Err(segment);
        }
        self.0.length_bytes += segment.len();
        self.0.parts.push(Part::Segment(segment));
        Ok(())
    }

    /// Appends lent memory.
    ///
    /// # Errors
    /// The same, where the list of parts is full.
    #[inline]
    pub fn push_lent(&mut self, lent: Lent) -> Result<(), Lent> {
        if !self.admits(1, 0) {
            return Err(lent);
        }
        self.0.length_bytes += lent.len();
        self.0.parts.push(Part::Lent(lent));
        Ok(())
    }

    /// Drops all parts: buffers go back to their arena, lent memory to its owner.
    pub fn clear(&mut self) {
        let inner = &mut *self.0;
        inner.parts.clear();
        inner.iovecs.clear();
        (inner.headers_used, inner.length_bytes, inner.sent_bytes, inner.first) = (0, 0, 0, 0);
    }

    /// Empties the message, giving the buffer ranges among its parts in order, for who must keep Data-In for a
    /// retransmission.
    pub fn drain_segments(&mut self) -> impl Iterator<Item = Segment> + '_ {
        let inner = &mut *self.0;
        inner.iovecs.clear();
        (inner.headers_used, inner.length_bytes, inner.sent_bytes, inner.first) = (0, 0, 0, 0);
        inner.parts.drain(..).filter_map(|part| match part {
            Part::Segment(segment) => Some(segment),
            Part::Header { .. } | Part::Lent(_) => None,
        })
    }

    /// Bytes in all parts together.
    #[inline]
    pub fn length_bytes(&self) -> usize {
        self.0.length_bytes
    }

    /// Bytes that the kernel has taken. After a completed send that failed: how far it came.
    #[inline]
    pub fn sent_bytes(&self) -> usize {
        self.0.sent_bytes
    }

    /// Appends the bytes of all parts in order, as they are now, for a world that is not the kernel's.
    pub fn copy_to(&self, bytes: &mut Vec<u8>) {
        for part in &self.0.parts {
            match part {
                Part::Header { start, end } => bytes.extend_from_slice(&self.0.headers[*start..*end]),
                Part::Segment(segment) => bytes.extend_from_slice(segment.bytes()),
                Part::Lent(lent) => {
                    bytes.extend(lent.bytes().iter().map(|byte| byte.load(Ordering::Relaxed)));
                }
            }
        }
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.length_bytes == 0
    }

    /// Names all parts for the kernel. The caller has moved this message into its in-flight slot.
    pub(crate) fn name_parts(&mut self) {
        let Inner { parts, headers, iovecs, first, sent_bytes, .. } = &mut *self.0;
        let slab = headers.as_mut_ptr();
        iovecs.clear();
        (*first, *sent_bytes) = (0, 0);
        for part in parts {
            let iovec = match part {
                Part::Header { start, end } => {
                    libc::iovec { iov_base: slab.wrapping_add(*start).cast(), iov_len: *end - *start }
                }
                Part::Segment(segment) => segment.iovec(),
                Part::Lent(lent) => {
                    libc::iovec { iov_base: lent.start.as_ptr().cast(), iov_len: lent.length }
                }
            };
            if iovec.iov_len > 0 {
                iovecs.push(iovec);
            }
        }
    }

    /// The named parts without what was sent.
    pub(crate) fn vectors(&self) -> &[libc::iovec] {
        &self.0.iovecs[self.0.first..]
    }

    /// A message header that names the same.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        let Inner { header, iovecs, first, .. } = &mut *self.0;
        let rest = &mut iovecs[*first..];
        header.msg_iov = rest.as_mut_ptr();
        header.msg_iovlen = rest.len();
        header
    }

    /// The kernel took `sent` bytes of the named parts. Whether that was the rest.
    pub(crate) fn sent(&mut self, sent: usize) -> bool {
        let Inner { iovecs, first, sent_bytes, length_bytes, .. } = &mut *self.0;
        *sent_bytes += sent;
        if *sent_bytes == *length_bytes {
            // Nearly always: all of them are.
            *first = iovecs.len();
            return true;
        }
        let mut left = sent;
        while let Some(iovec) = iovecs.get_mut(*first) {
            let taken = left.min(iovec.iov_len);
            left -= taken;
            iovec.iov_base = iovec.iov_base.cast::<u8>().wrapping_add(taken).cast();
            iovec.iov_len -= taken;
            if iovec.iov_len > 0 {
                break;
            }
            *first += 1;
        }
        assert_eq!(left, 0, "the kernel sent more than it was given");
        *sent_bytes == *length_bytes
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} parts, {} bytes)", self.0.parts.len(), self.0.length_bytes)
    }
}
