//! Memory for data: one page-aligned arena per shard, cut into chunks of three classes, and [`Buffer`], the only
//! holder of a byte range of a chunk.
//!
//! After [`Arena::new`] nothing here allocates or frees memory. Taking and returning a chunk is O(1). Every count is a
//! plain cell: an arena, its buffers and the ring that they go into stay on one thread (`Rc` makes them `!Send`).
//!
//! Chunks are recycled as they are: a taken buffer may still hold the bytes of its previous use. Who sends one must have
//! written all of it.
#![expect(
    unsafe_code,
    reason = "maps memory, and makes slices of ranges whose exclusive owner is counted here"
)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

/// The size of a chunk. Its bytes are aligned to that size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 512 bytes: what a connection receives into that is idle. Not for data.
    Tiny,
    /// 4 KiB.
    Small,
    /// 64 KiB.
    Medium,
    /// 256 KiB.
    Large,
}

impl Class {
    /// All classes for data, the smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Bytes in a chunk of this class.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Tiny => 512,
            Self::Small => 4 << 10,
            Self::Medium => 64 << 10,
            Self::Large => 256 << 10,
        }
    }

    /// The smallest class whose chunk holds `length_bytes`, or `None` where even a large one does not.
    pub fn fitting(length_bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|class| length_bytes <= class.bytes())
    }

    const fn index(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Medium => 1,
            Self::Large => 2,
            Self::Tiny => 3,
        }
    }
}

/// How many chunks of each class an arena reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaOptions {
    /// Chunks of 4 KiB. Beside them there are twice as many tiny ones, which count nowhere.
    pub small: u32,
    /// Chunks of 64 KiB.
    pub medium: u32,
    /// Chunks of 256 KiB.
    pub large: u32,
}

impl ArenaOptions {
    /// Bytes of memory that such an arena can come to use. The kernel provides a page when it is first touched.
    pub fn total_bytes(&self) -> u64 {
        Class::ALL.into_iter().map(|class| u64::from(self.chunks(class)) * class.bytes() as u64).sum()
    }

    const fn chunks(&self, class: Class) -> u32 {
        match class {
            Class::Tiny => self.small.saturating_mul(2),
            Class::Small => self.small,
            Class::Medium => self.medium,
            Class::Large => self.large,
        }
    }
}

impl Default for ArenaOptions {
    /// 64 MiB: 4,096 small, 256 medium, 128 large.
    fn default() -> Self {
        Self { small: 4096, medium: 256, large: 128 }
    }
}

/// What pages an arena is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Huge ones where the kernel has some at hand (transparent huge pages), else small ones; provided on first touch.
    #[default]
    Advised,
    /// Small ones; provided on first touch.
    Small,
    /// Huge ones that the administrator set aside (`vm.nr_hugepages`): all of them are the arena's from the start.
    Reserved,
}

/// Chunks of one class, taken and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Chunks that a buffer holds.
    pub used: u32,
    /// Chunks that the class has.
    pub total: u32,
}

/// A shard's memory for data.
#[derive(Clone)]
pub struct Arena(Rc<Inner>);

impl Arena {
    /// Reserves address space for `options`; huge pages are asked for, and pages are provided on first touch.
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` where the sizes do not fit the address space.
    pub fn new(options: ArenaOptions) -> io::Result<Self> {
        Self::with_pages(options, Pages::default())
    }

    /// The same, of these pages.
    ///
    /// # Errors
    /// As [`Arena::new`]; `OutOfMemory` where not as many huge pages are set aside.
    pub fn with_pages(options: ArenaOptions, pages: Pages) -> io::Result<Self> {
        let tiny_bytes = u64::from(options.chunks(Class::Tiny)) * Class::Tiny.bytes() as u64;
        let length = usize::try_from(options.total_bytes() + tiny_bytes);
        let length = length.map_err(|_| io::ErrorKind::InvalidInput)?;
        let mapping = Mapping::new(length.max(HUGE_PAGE), pages)?;
        // Largest first, so that the start of each class is aligned to its own size.
        let mut offset = 0;
        let mut area = |class: Class| {
            let area = Area::new(class, offset, options.chunks(class));
            offset += area.length;
            area
        };
        let (large, medium, small) = (area(Class::Large), area(Class::Medium), area(Class::Small));
        let tiny = area(Class::Tiny);
        Ok(Self(Rc::new(Inner { mapping, areas: [small, medium, large, tiny] })))
    }

    /// A free chunk of `class`, whole, or `None` where all of them are taken. Other classes are not asked.
    #[inline]
    pub fn take(&self, class: Class) -> Option<Buffer> {
        let area = &self.0.areas[class.index()];
        let chunk = area.take()?;
        let offset = area.offset + chunk as usize * class.bytes();
        let length = u32::try_from(class.bytes()).expect("a chunk is 256 KiB at most");
        // SAFETY: `area.take` gives chunk numbers below the area's count, and the mapping is as long as all areas
        // together, so `offset` is inside it. It lives as long as `Inner`, of which the buffer holds an `Rc`.
        let start = unsafe { self.0.mapping.start.add(offset) };
        Some(Buffer { arena: Rc::clone(&self.0), start, length, capacity: length, chunk, class })
    }

    /// Bytes of memory that it can come to use, tiny chunks included: what is pinned when it is registered.
    pub fn length_bytes(&self) -> usize {
        self.0.areas.iter().map(|area| area.length).sum()
    }

    /// Chunks of `class`, taken and in all.
    pub fn usage(&self, class: Class) -> Usage {
        let area = &self.0.areas[class.index()];
        let total = u32::try_from(area.holders.len()).expect("made from a u32");
        Usage { used: total - area.free.get(), total }
    }

    /// Whether less than a quarter of its bytes for data is free.
    #[inline]
    pub fn is_short(&self) -> bool {
        let (free, total) = self.free_of_total();
        free < total / 4
    }

    /// Whether less than a half is free of its bytes for data, or of its small chunks, which thousands of connections can
    /// hold one each of while there are bytes enough.
    pub fn is_tight(&self) -> bool {
        let (free, total) = self.free_of_total();
        let small = &self.0.areas[Class::Small.index()];
        free < total / 2 || small.free.get() as usize * Class::Small.bytes() < small.length / 2
    }

    /// Bytes for data.
    #[inline]
    fn free_of_total(&self) -> (usize, usize) {
        let (mut free, mut total) = (0, 0);
        for class in Class::ALL {
            let area = &self.0.areas[class.index()];
            free += area.free.get() as usize * class.bytes();
            total += area.length;
        }
        (free, total)
    }
}

impl Arena {
    /// All of its memory, cut into pieces of at most `piece_bytes`, none of which ends inside a chunk: what a ring
    /// registers with the kernel.
    pub(crate) fn pieces(&self, piece_bytes: usize) -> Vec<libc::iovec> {
        assert!(piece_bytes.is_multiple_of(Class::Large.bytes()), "a chunk must not straddle two pieces");
        let length = self.0.areas.iter().map(|area| area.offset + area.length).max().unwrap_or(0);
        let piece = |offset: usize| libc::iovec {
            iov_base: self.0.mapping.start.as_ptr().wrapping_add(offset).cast(),
            iov_len: piece_bytes.min(length - offset),
        };
        (0..length).step_by(piece_bytes).map(piece).collect()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Class::ALL.map(|class| (class, self.usage(class)))).finish()
    }
}

struct Inner {
    mapping: Mapping,
    areas: [Area; 4],
}

/// The chunks of one class.
struct Area {
    /// Of the first chunk, from the start of the mapping.
    offset: usize,
    /// Of all chunks, in bytes.
    length: usize,
    /// Per chunk: how many buffers hold a range of it.
    holders: Box<[Cell<u32>]>,
    /// Per free chunk: the next free one. The last taken is the next given, it is the warmest.
    next: Box<[Cell<u32>]>,
    first: Cell<u32>,
    free: Cell<u32>,
}

impl Area {
    fn new(class: Class, offset: usize, chunks: u32) -> Self {
        debug_assert!(offset.is_multiple_of(class.bytes()));
        Self {
            length: class.bytes() * chunks as usize,
            offset,
            holders: (0..chunks).map(|_| Cell::new(0)).collect(),
            next: (1..=chunks).map(Cell::new).collect(),
            first: Cell::new(0),
            free: Cell::new(chunks),
        }
    }

    #[inline]
    fn take(&self) -> Option<u32> {
        let free = self.free.get().checked_sub(1)?;
        let chunk = self.first.get();
        assert_eq!(self.holders[chunk as usize].replace(1), 0, "a free chunk has a holder");
        self.first.set(self.next[chunk as usize].get());
        self.free.set(free);
        Some(chunk)
    }

    #[inline]
    fn hold(&self, chunk: u32) {
        let holders = &self.holders[chunk as usize];
        holders.set(holders.get().checked_add(1).expect("fewer holders than addresses"));
    }

    #[inline]
    fn release(&self, chunk: u32) {
        let holders = &self.holders[chunk as usize];
        let left = holders.get().checked_sub(1).expect("a buffer is counted as a holder of its chunk");
        holders.set(left);
        if left == 0 {
            self.next[chunk as usize].set(self.first.replace(chunk));
            self.free.set(self.free.get() + 1);
        }
    }
}

/// The one holder of a byte range of a chunk. Not `Clone`: to share a chunk, split it.
///
/// Its length is what it shows as a slice; its capacity is how far the length may be set again. When the last range of a
/// chunk is dropped, the chunk is free.
pub struct Buffer {
    arena: Rc<Inner>,
    start: NonNull<u8>,
    length: u32,
    capacity: u32,
    chunk: u32,
    class: Class,
}

impl Buffer {
    /// Bytes that it shows.
    #[inline]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether it shows no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that it holds: the greatest length it can be set to.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Of which class the chunk is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Address of its first byte.
    #[inline]
    pub fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    /// Whether its address has none of the bits of `mask` (an alignment less one).
    #[inline]
    pub fn is_aligned(&self, mask: usize) -> bool {
        self.address() & mask == 0
    }

    /// Shows only the first `length` bytes; does nothing where it shows fewer. The capacity stays.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        if length < self.len() {
            self.set_len(length);
        }
    }

    /// Shows the first `length` bytes of what it holds; bytes that come into view are whatever was last written there.
    ///
    /// # Panics
    /// Where `length` is beyond the capacity.
    #[inline]
    pub fn set_len(&mut self, length: usize) {
        assert!(length <= self.capacity(), "{length} bytes of a buffer of {}", self.capacity);
        self.length = narrow(length);
    }

    /// Cuts off and returns the first `at` bytes; `self` keeps the rest, and its spare capacity.
    ///
    /// # Panics
    /// Where `at` is beyond the length.
    #[inline]
    #[must_use = "the bytes that were cut off are released when this is dropped"]
    pub fn split_to(&mut self, at: usize) -> Self {
        let (front, rest) = self.cut(at);
        self.start = rest;
        self.length -= front.length;
        self.capacity -= front.length;
        front
    }

    /// Gives up the first `bytes`.
    ///
    /// # Panics
    /// Where it shows fewer.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len(), "{bytes} of {} bytes", self.length);
        // SAFETY: `bytes` is at most the length, hence inside the range or one past its end.
        self.start = unsafe { self.start.add(bytes) };
        self.length -= narrow(bytes);
        self.capacity -= narrow(bytes);
    }

    /// Cuts off and returns what follows the first `at` bytes, with the spare capacity; `self` keeps those `at` bytes.
    ///
    /// # Panics
    /// Where `at` is beyond the length.
    #[inline]
    #[must_use = "the bytes that were cut off are released when this is dropped"]
    pub fn split_off(&mut self, at: usize) -> Self {
        let (mut front, rest) = self.cut(at);
        front.start = rest;
        front.length = self.length - narrow(at);
        front.capacity = self.capacity - narrow(at);
        self.length = narrow(at);
        self.capacity = narrow(at);
        front
    }

    /// Takes `next` in where it begins right behind what `self` holds, in the same chunk: the undoing of a split.
    ///
    /// # Errors
    /// `next`, where it lies elsewhere, or where `self` has spare capacity between.
    #[inline]
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        let follows = Rc::ptr_eq(&self.arena, &next.arena)
            && (self.class, self.chunk) == (next.class, next.chunk)
            && self.length == self.capacity
            && self.address() + self.len() == next.address();
        if !follows {
            return Err(next);
        }
        self.length += next.length;
        self.capacity += next.capacity;
        Ok(())
    }

    /// Extends an only holder to its whole chunk, all of it shown; tells whether it was the only one.
    #[inline]
    pub fn reclaim(&mut self) -> bool {
        let area = &self.arena.areas[self.class.index()];
        if area.holders[self.chunk as usize].get() != 1 {
            return false;
        }
        let offset = area.offset + self.chunk as usize * self.class.bytes();
        // SAFETY: the chunk's offset is inside the mapping (see `Arena::take`), and no other buffer has a range of it.
        self.start = unsafe { self.arena.mapping.start.add(offset) };
        (self.length, self.capacity) = (narrow(self.class.bytes()), narrow(self.class.bytes()));
        true
    }

    /// A second, counted holder of this chunk, as yet of the first `at` bytes, and where the rest begins. The callers
    /// narrow the ranges so that they do not overlap before anybody else sees them.
    #[inline]
    fn cut(&self, at: usize) -> (Self, NonNull<u8>) {
        assert!(at <= self.len(), "cut at {at} of {} bytes", self.length);
        self.arena.areas[self.class.index()].hold(self.chunk);
        // SAFETY: `at` is at most the length, hence inside the range or one past its end.
        let rest = unsafe { self.start.add(at) };
        let (length, arena) = (narrow(at), Rc::clone(&self.arena));
        (
            Self { arena, start: self.start, length, capacity: length, chunk: self.chunk, class: self.class },
            rest,
        )
    }

    /// For the kernel: the first byte. Only who has moved the buffer into an in-flight slot may hand it on.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping that `arena` keeps alive, which the kernel gave zeroed, so every byte is
        // initialised. No other buffer has a byte of it: chunks are given once and `cut` divides. The kernel writes it
        // only while the buffer sits in an in-flight slot, where nobody can call this.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `&mut self` makes this the only slice of the range.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length as usize) }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        self.arena.areas[self.class.index()].release(self.chunk);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?} {} at {:#x}, {} bytes)", self.class, self.chunk, self.address(), self.length)
    }
}

#[inline]
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("a range of a chunk, which is 256 KiB at most")
}

/// Anonymous memory, its start aligned to a huge page.
struct Mapping {
    start: NonNull<u8>,
    /// What `mmap` gave, for `munmap`.
    whole: (NonNull<u8>, usize),
}

impl Mapping {
    fn new(length: usize, pages: Pages) -> io::Result<Self> {
        let whole = length.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (whole, flags) = match pages {
            Pages::Advised | Pages::Small => (whole, ANONYMOUS | libc::MAP_NORESERVE),
            // Set aside now, or refused now: a page that is not there when it is touched ends the process.
            Pages::Reserved => {
                (length.next_multiple_of(HUGE_PAGE), ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
            }
        };
        // SAFETY: asks for new memory at an address of the kernel's choice; no memory of ours is affected.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), whole, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped =
            NonNull::new(mapped.cast::<u8>()).expect("mmap maps address 0 only where it is asked to");
        let skip = mapped.as_ptr().align_offset(HUGE_PAGE);
        assert!(skip < HUGE_PAGE, "bytes can be aligned");
        // SAFETY: `skip` is less than the huge page that was asked for in addition.
        let start = unsafe { mapped.add(skip) };
        let advice = match pages {
            Pages::Advised => Some(libc::MADV_HUGEPAGE),
            Pages::Small => Some(libc::MADV_NOHUGEPAGE),
            Pages::Reserved => None,
        };
        if let Some(advice) = advice {
            // SAFETY: the range was just mapped by us. The advice changes no contents, and a refusal costs only speed.
            unsafe { libc::madvise(start.as_ptr().cast(), length, advice) };
        }
        Ok(Self { start, whole: (mapped, whole) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what `mmap` gave. It is dropped with `Inner`, when no `Buffer` (each holds an `Rc` of it) is
        // left, so neither we nor the kernel, which works only on buffers that sit in a slot, have a pointer into it.
        unsafe { libc::munmap(self.whole.0.as_ptr().cast(), self.whole.1) };
    }
}

const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Of x86-64 and of aarch64 with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

const _: () = assert!(Class::Large.bytes() <= HUGE_PAGE && HUGE_PAGE.is_multiple_of(Class::Large.bytes()));
