//! [`Segments`]: a bounded list of buffer ranges, in the order of the bytes. Received into, read into, written from.
//!
//! A list is made once and used again and again; it moves as one pointer. While the kernel works on it, it sits in the
//! ring, and comes back in the completion with the same buffers.

use crate::arena::Buffer;
use std::ops::Range;

/// Segments that one list can hold: the 64 large chunks of a 16 MiB transfer, and some for unaligned edges.
pub const SEGMENTS_MAX: usize = 72;

/// A range of a buffer.
#[derive(Debug)]
pub struct Segment {
    buffer: Buffer,
    start: u32,
    end: u32,
}

impl Segment {
    /// `range` of `buffer`.
    ///
    /// # Panics
    /// Where the range is not inside the buffer's length.
    pub fn new(buffer: Buffer, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= buffer.len(), "{range:?} of {} bytes", buffer.len());
        let narrow = |n: usize| u32::try_from(n).expect("a buffer is 256 KiB at most");
        Self { start: narrow(range.start), end: narrow(range.end), buffer }
    }

    /// Bytes in the range.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the range has no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The range, as positions in the buffer.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of the range.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range()]
    }

    /// The bytes of the range.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        &mut self.buffer[range]
    }

    /// The whole buffer.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Gives the whole buffer back.
    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// Address of the first byte.
    #[inline]
    fn address(&self) -> usize {
        self.buffer.address() + self.start as usize
    }

    /// For the kernel: where the range lies.
    #[inline]
    pub(crate) fn iovec(&mut self) -> libc::iovec {
        let start = self.buffer.start().as_ptr().wrapping_add(self.start as usize);
        libc::iovec { iov_base: start.cast(), iov_len: self.len() }
    }
}

/// A list of at most [`SEGMENTS_MAX`] segments, made once and reused.
#[derive(Debug)]
pub struct Segments(Box<Inner>);

struct Inner {
    list: Vec<Segment>,
    length_bytes: usize,
    /// Filled by [`Segments::vectors`] for one operation.
    iovecs: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Segments {
    /// An empty list for up to `segments` segments. This is the only call that allocates.
    ///
    /// # Panics
    /// Where `segments` is zero or above [`SEGMENTS_MAX`].
    pub fn with_capacity(segments: usize) -> Self {
        assert!((1..=SEGMENTS_MAX).contains(&segments), "a list of {segments} segments");
        Self(Box::new(Inner {
            list: Vec::with_capacity(segments),
            length_bytes: 0,
            iovecs: Vec::with_capacity(segments),
            header: empty_header(),
        }))
    }

    /// Appends all that `buffer` shows.
    ///
    /// # Errors
    /// The segment, where the list is full.
    #[inline]
    pub fn push(&mut self, buffer: Buffer) -> Result<(), Segment> {
        let length = buffer.len();
        self.push_segment(Segment::new(buffer, 0..length))
    }

    /// Appends `range` of `buffer`.
    ///
    /// # Errors
    /// The segment, where the list is full.
    #[inline]
    pub fn push_range(&mut self, buffer: Buffer, range: Range<usize>) -> Result<(), Segment> {
        self.push_segment(Segment::new(buffer, range))
    }

    /// Appends `segment`.
    ///
    /// # Errors
    /// The segment, where the list is full.
    #[inline]
    pub fn push_segment(&mut self, segment: Segment) -> Result<(), Segment> {
        let inner = &mut *self.0;
        if inner.list.len() == inner.list.capacity().min(SEGMENTS_MAX) {
            return Err(segment);
        }
        inner.length_bytes += segment.len();
        inner.list.push(segment);
        Ok(())
    }

    /// Takes the last segment off.
    pub fn pop(&mut self) -> Option<Segment> {
        let segment = self.0.list.pop()?;
        self.0.length_bytes -= segment.len();
        Some(segment)
    }

    /// Empties the list, giving its segments in order. Those that are not taken are dropped.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Segment> + '_ {
        self.0.length_bytes = 0;
        self.0.list.drain(..)
    }

    /// Drops all segments. Their chunks are free unless somebody else holds a range of them.
    pub fn clear(&mut self) {
        self.0.length_bytes = 0;
        self.0.list.clear();
    }

    /// The segments, in order.
    #[inline]
    pub fn as_slice(&self) -> &[Segment] {
        &self.0.list
    }

    /// The bytes of each segment, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.0.list.iter().map(Segment::bytes)
    }

    /// The bytes of each segment, in order.
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [u8]> + '_ {
        self.0.list.iter_mut().map(Segment::bytes_mut)
    }

    /// Segments in the list.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.list.len()
    }

    /// Whether the list has no segment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }

    /// Segments that the list can hold.
    pub fn capacity(&self) -> usize {
        self.0.list.capacity().min(SEGMENTS_MAX)
    }

    /// Bytes in all segments together.
    #[inline]
    pub fn length_bytes(&self) -> usize {
        self.0.length_bytes
    }

    /// Whether every segment begins and ends at a multiple of `mask` + 1, as O_DIRECT wants it.
    pub fn is_aligned(&self, mask: usize) -> bool {
        self.0.list.iter().all(|segment| (segment.address() | segment.len()) & mask == 0)
    }

    /// The ranges without their first `skip_bytes`, for an operation that is about to be submitted. They point into the
    /// buffers: the caller has moved this list into its in-flight slot.
    pub(crate) fn vectors(&mut self, skip_bytes: usize) -> &[libc::iovec] {
        let Inner { list, iovecs, .. } = &mut *self.0;
        let mut skip = skip_bytes;
        iovecs.clear();
        for segment in list {
            let mut iovec = segment.iovec();
            let skipped = skip.min(iovec.iov_len);
            skip -= skipped;
            iovec.iov_base = iovec.iov_base.cast::<u8>().wrapping_add(skipped).cast();
            iovec.iov_len -= skipped;
            if iovec.iov_len > 0 {
                iovecs.push(iovec);
            }
        }
        iovecs
    }

    /// A message header that names the vectors made last.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        let Inner { header, iovecs, .. } = &mut *self.0;
        header.msg_iov = iovecs.as_mut_ptr();
        header.msg_iovlen = iovecs.len();
        header
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

/// A message header that names nothing.
pub(crate) const fn empty_header() -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}
