//! Memory that several shards read and write: a RAM disk, or the zeroes of a null one.
//!
//! A disk promises nothing to two writers of one block, or to a reader beside a writer, but that the bytes are some of
//! theirs. Here those are threads of one process, so the memory must be one that Rust allows to be raced on. Nothing in
//! this file ever forms `&mut [u8]` or `&[u8]` of it. It is atomics to the language, and copied by code that the compiler
//! cannot look into or reorder with: assembly on x86-64, elsewhere relaxed atomic words.
//!
//! A disk is larger than the processor's cache, so what is written is mostly not in it. There, from [`STREAM_BYTES_MIN`] on,
//! stores go past the cache: it need not first read what is about to be written over, which takes half of the time of a
//! copy (`perf-results/2026-11-21-datapath`).
#![expect(unsafe_code, reason = "maps memory, and copies into and out of it behind the compiler's back")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A mapping that threads share. It begins as zeroes, and takes real memory as it is written. It may grow into addresses
/// that were reserved for it, and never shrinks.
pub struct SharedMemory {
    start: NonNull<u8>,
    /// Bytes that may be touched.
    length: AtomicUsize,
    /// Bytes of addresses that are ours.
    reserved: usize,
}

// SAFETY: the mapping belongs to no thread; `munmap` may be called by any.
unsafe impl Send for SharedMemory {}

// SAFETY: through `&self` the bytes are reached as atomics (`AsRef`) or by the opaque copies below, never as plain
// references, so any number of threads may do so at once.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `length_bytes` of zeroes.
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` for no bytes.
    pub fn new(length_bytes: usize) -> io::Result<Self> {
        Self::map(length_bytes, length_bytes, libc::MADV_HUGEPAGE)
    }

    /// Maps `length_bytes` of zeroes, with addresses behind them into which it can [`SharedMemory::grow`] up to
    /// `reserved_bytes`, where the system has as many.
    ///
    /// # Errors
    /// As [`SharedMemory::new`].
    pub fn growing(length_bytes: usize, reserved_bytes: usize) -> io::Result<Self> {
        let reserved = Self::map(length_bytes, reserved_bytes.max(length_bytes), libc::MADV_HUGEPAGE);
        reserved.or_else(|_| Self::new(length_bytes))
    }

    /// Maps `length_bytes` that are meant to stay zeroes: each page of it that is only read is the kernel's one page of
    /// zeroes, which takes no memory and is always in the cache.
    ///
    /// # Errors
    /// As [`SharedMemory::new`].
    pub fn zeroes(length_bytes: usize) -> io::Result<Self> {
        Self::map(length_bytes, length_bytes, libc::MADV_NOHUGEPAGE)
    }

    fn map(length: usize, reserved: usize, advice: i32) -> io::Result<Self> {
        let protection = libc::PROT_NONE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: asks for new memory at an address of the kernel's choice; no memory of ours is affected.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), reserved, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range was just mapped by us. The advice changes no contents, and a refusal costs only speed.
        unsafe { libc::madvise(mapped, reserved, advice) };
        let start = NonNull::new(mapped.cast()).expect("mmap maps address 0 only where it is asked to");
        let memory = Self { start, length: AtomicUsize::new(0), reserved };
        memory.grow(length)?;
        Ok(memory)
    }

    /// Makes sure that there are `length_bytes`; what is new are zeroes. There may be more.
    ///
    /// # Errors
    /// `OutOfMemory` beyond the addresses that were reserved, and what the kernel says.
    pub fn grow(&self, length_bytes: usize) -> io::Result<()> {
        if length_bytes > self.reserved {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is the beginning of our own mapping. Nothing of it loses a right that it had.
        let result = unsafe { libc::mprotect(self.start.as_ptr().cast(), length_bytes, protection) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // Whoever sees the new length sees memory that may be touched.
        self.length.fetch_max(length_bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Bytes that may be touched.
    pub fn length_bytes(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    /// Copies `source` to `offset_bytes`. Who reads meanwhile sees old and new bytes mixed.
    ///
    /// # Panics
    /// Where the range is not inside the memory.
    pub fn copy_in(&self, offset_bytes: usize, source: &[u8]) {
        let target = self.range(offset_bytes, source.len());
        // SAFETY: `range` has checked that so many bytes from `target` on are mapped, and all are writable. `source` is a
        // borrowed slice, and cannot overlap the mapping, of which no plain slices exist.
        unsafe { copy_to_shared(source, target) }
    }

    /// Makes `length` bytes from `offset` on zeroes, and gives the memory of whole pages among them back to the kernel. Who
    /// reads meanwhile sees old bytes and zeroes mixed.
    ///
    /// # Panics
    /// Where the range is not inside the memory.
    pub fn clear(&self, offset: usize, length: usize) {
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(PAGE_BYTES), end - end % PAGE_BYTES);
        if first >= last {
            return self.zero(offset, length);
        }
        self.zero(offset, first - offset);
        self.zero(last, end - last);
        let start = self.range(first, last - first);
        // SAFETY: whole pages inside our own private anonymous mapping, which begins at a page. They read as zeroes
        // afterwards and stay mapped; nobody holds a plain reference to them.
        let result = unsafe { libc::madvise(start.cast(), last - first, libc::MADV_DONTNEED) };
        if result != 0 {
            // Locked memory cannot be given back.
            self.zero(first, last - first);
        }
    }

    fn zero(&self, mut offset: usize, mut length: usize) {
        static ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        while length > 0 {
            let part = length.min(PAGE_BYTES);
            self.copy_in(offset, &ZEROES[..part]);
            offset += part;
            length -= part;
        }
    }

    /// Copies from `offset_bytes` to all of `target`. Bytes that are written meanwhile come out old or new.
    ///
    /// # Panics
    /// Where the range is not inside the memory.
    pub fn copy_out(&self, offset_bytes: usize, target: &mut [u8]) {
        let source = self.range(offset_bytes, target.len());
        // SAFETY: `range` has checked that so many bytes from `source` on are mapped. `target` is a slice borrowed
        // alone, and cannot overlap the mapping, of which no plain slices exist.
        unsafe { copy_from_shared(source, target) }
    }

    /// Where `length` bytes from `offset` on lie.
    fn range(&self, offset: usize, length: usize) -> *mut u8 {
        let end = offset.checked_add(length);
        let size = self.length_bytes();
        assert!(end.is_some_and(|end| end <= size), "{length} bytes at {offset} of {size}");
        // SAFETY: `offset` is at most the length of what is mapped and may be touched.
        unsafe { self.start.add(offset) }.as_ptr()
    }
}

/// What the kernel gives and takes memory by; larger pages are multiples of it.
const PAGE_BYTES: usize = 4096;

impl AsRef<[AtomicU8]> for SharedMemory {
    fn as_ref(&self) -> &[AtomicU8] {
        // SAFETY: so many bytes are mapped and may be touched for as long as `self` lives, were zeroed when made, and are
        // reached by nobody but as atomics and by the opaque copies. Atomics allow them to change under a shared reference.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length_bytes()) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this is what `mmap` gave. Every slice of it borrows from `self`, and whoever lends it to the kernel
        // holds the `Arc` that it is in.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.reserved) };
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} bytes)", self.length_bytes())
    }
}

/// Bytes from which on a copy to shared memory goes past the cache.
const STREAM_BYTES_MIN: usize = 2048;

/// What the stores that go past the cache move at a time, and are aligned to.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Copies `source` to shared memory.
///
/// # Safety
/// As many bytes from `target` on are mapped and writable, and are reached only as atomics or by these copies.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_to_shared(source: &[u8], target: *mut u8) {
    if source.len() < STREAM_BYTES_MIN {
        // SAFETY: the caller's promise.
        return unsafe { move_to_shared(source, target) };
    }
    let (head, rest) = source.split_at(target.addr().wrapping_neg() % LINE_BYTES);
    let (lines, tail) = rest.split_at(rest.len() - rest.len() % LINE_BYTES);
    // SAFETY: the three parts lie behind each other in the range that the caller promises, the lines at a multiple of
    // their length.
    unsafe {
        move_to_shared(head, target);
        let target = target.add(head.len());
        if std::arch::is_x86_feature_detected!("avx512f") {
            stream_wide_lines(lines, target);
        } else {
            stream_lines(lines, target);
        }
        move_to_shared(tail, target.add(lines.len()));
    }
}

/// Copies `source` to shared memory, by way of the cache.
///
/// # Safety
/// As [`copy_to_shared`].
#[cfg(target_arch = "x86_64")]
unsafe fn move_to_shared(source: &[u8], target: *mut u8) {
    // SAFETY: by the caller's promise and by `source` being a slice, all bytes touched are valid. Assembly is opaque to
    // the compiler, which must assume that it reads and writes any memory it has pointers to, so a race in it is one of
    // the machine, where bytes do not tear. The direction flag is clear, as the ABI has it.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") source.len() => _,
            inout("rsi") source.as_ptr() => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies whole lines to shared memory, past the cache.
///
/// # Safety
/// As [`copy_to_shared`]; `target` and the length are multiples of [`LINE_BYTES`], and there is a line at least.
#[cfg(target_arch = "x86_64")]
unsafe fn stream_lines(source: &[u8], target: *mut u8) {
    // SAFETY: as in `move_to_shared`. Such stores are ordered with no others: the fence makes them be over for everybody
    // before anything that follows, the mark that is given back above all (`stripes`).
    unsafe {
        std::arch::asm!(
            "2:",
            "movdqu {a}, [{source}]",
            "movdqu {b}, [{source} + 16]",
            "movdqu {c}, [{source} + 32]",
            "movdqu {d}, [{source} + 48]",
            "movntdq [{target}], {a}",
            "movntdq [{target} + 16], {b}",
            "movntdq [{target} + 32], {c}",
            "movntdq [{target} + 48], {d}",
            "add {source}, 64",
            "add {target}, 64",
            "sub {length}, 64",
            "jnz 2b",
            "sfence",
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            source = inout(reg) source.as_ptr() => _,
            target = inout(reg) target => _,
            length = inout(reg) source.len() => _,
            options(nostack)
        );
    }
}

/// The same a line at a time.
///
/// # Safety
/// As [`stream_lines`], on a processor that has AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stream_wide_lines(source: &[u8], target: *mut u8) {
    // SAFETY: as in `stream_lines`. The register is one of those that no other code is slower for.
    unsafe {
        std::arch::asm!(
            "2:",
            "vmovdqu64 zmm16, [{source}]",
            "vmovntdq [{target}], zmm16",
            "add {source}, 64",
            "add {target}, 64",
            "sub {length}, 64",
            "jnz 2b",
            "sfence",
            source = inout(reg) source.as_ptr() => _,
            target = inout(reg) target => _,
            length = inout(reg) source.len() => _,
            out("zmm16") _,
            options(nostack)
        );
    }
}

/// Copies from shared memory to all of `target`.
///
/// # Safety
/// As many bytes from `source` on are mapped, and are reached only as atomics or by these copies.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_from_shared(source: *const u8, target: &mut [u8]) {
    // SAFETY: as in `copy_to_shared`, with the roles exchanged.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") target.len() => _,
            inout("rsi") source => _,
            inout("rdi") target.as_mut_ptr() => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies `source` to shared memory.
///
/// # Safety
/// As many bytes from `target` on are mapped and writable, and are reached only as atomics or by these copies.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_to_shared(source: &[u8], target: *mut u8) {
    use std::sync::atomic::{AtomicU64, Ordering};
    if target.is_aligned_to_word() && source.len().is_multiple_of(8) {
        for (index, word) in source.chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(word.try_into().expect("chunks of 8"));
            // SAFETY: inside the range, aligned, and atomic.
            unsafe { AtomicU64::from_ptr(target.cast::<u64>().add(index)) }.store(word, Ordering::Relaxed);
        }
        return;
    }
    for (index, &byte) in source.iter().enumerate() {
        // SAFETY: inside the range, and atomic.
        unsafe { AtomicU8::from_ptr(target.add(index)) }.store(byte, Ordering::Relaxed);
    }
}

/// Copies from shared memory to all of `target`.
///
/// # Safety
/// As many bytes from `source` on are mapped, and are reached only as atomics or by these copies.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_from_shared(source: *const u8, target: &mut [u8]) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let source = source.cast_mut();
    if source.is_aligned_to_word() && target.len().is_multiple_of(8) {
        for (index, word) in target.chunks_exact_mut(8).enumerate() {
            // SAFETY: inside the range, aligned, and atomic.
            let shared = unsafe { AtomicU64::from_ptr(source.cast::<u64>().add(index)) };
            word.copy_from_slice(&shared.load(Ordering::Relaxed).to_ne_bytes());
        }
        return;
    }
    for (index, byte) in target.iter_mut().enumerate() {
        // SAFETY: inside the range, and atomic.
        *byte = unsafe { AtomicU8::from_ptr(source.add(index)) }.load(Ordering::Relaxed);
    }
}

#[cfg(not(target_arch = "x86_64"))]
trait WordAligned {
    fn is_aligned_to_word(&self) -> bool;
}

#[cfg(not(target_arch = "x86_64"))]
impl WordAligned for *mut u8 {
    fn is_aligned_to_word(&self) -> bool {
        self.addr().is_multiple_of(8)
    }
}

/// One shard's hold on shared memory, so that lending a range counts on this shard only: `Rc` outside, `Arc` inside.
#[derive(Clone, Debug)]
pub struct Memory(Arc<SharedMemory>);

impl Memory {
    /// A hold on `memory`.
    pub fn new(memory: Arc<SharedMemory>) -> Self {
        Self(memory)
    }
}

impl AsRef<[AtomicU8]> for Memory {
    fn as_ref(&self) -> &[AtomicU8] {
        self.0.as_ref().as_ref()
    }
}

/// A range of a medium that lies in memory, lent to be sent from there.
#[derive(Clone, Debug)]
pub struct Lent {
    /// What keeps it.
    pub owner: Rc<Memory>,
    /// Which of the owner's bytes.
    pub range: Range<usize>,
}

impl Lent {
    /// Copies the range to all of `target`. Bytes that are written meanwhile come out old or new.
    ///
    /// # Panics
    /// Where `target` is of another length.
    pub fn copy_to(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.range.len(), "as many bytes as were lent");
        self.owner.0.copy_out(self.range.start, target);
    }

    /// `length_bytes` from `offset_bytes` on, where all of them are in `owner`.
    pub(crate) fn new(owner: &Rc<Memory>, offset_bytes: u64, length_bytes: usize) -> Option<Self> {
        let start = usize::try_from(offset_bytes).ok()?;
        let end = start.checked_add(length_bytes)?;
        (end <= owner.0.length_bytes()).then(|| Self { owner: Rc::clone(owner), range: start..end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that tell where they belong.
    fn pattern(length: usize) -> Vec<u8> {
        (0..=252_u8).cycle().take(length).collect()
    }

    #[test]
    fn a_copy_is_of_all_its_bytes_and_no_others_wherever_it_begins_and_ends() {
        let lengths =
            [0, 1, 63, 64, STREAM_BYTES_MIN - 1, STREAM_BYTES_MIN, STREAM_BYTES_MIN + 65, 4096, 9000];
        for length in lengths {
            for offset in [0, 1, 15, 63, 64, 100, 512, 4095] {
                let memory = SharedMemory::new(16 << 10).expect("address space");
                let source = pattern(length + 3);
                memory.copy_in(offset, &source[3..]);
                let mut all = vec![0xff; 16 << 10];
                memory.copy_out(0, &mut all);
                let (before, rest) = all.split_at(offset);
                let (copied, behind) = rest.split_at(length);
                assert!(copied == &source[3..], "{length} bytes at {offset}");
                assert!(before.iter().chain(behind).all(|byte| *byte == 0), "{length} bytes at {offset}");
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_processor_without_wide_stores_copies_the_same() {
        let memory = SharedMemory::new(4096).expect("address space");
        let source = pattern(1024 + 7);
        // SAFETY: 16 lines from the second on are mapped and writable, and nobody else knows of them.
        unsafe { stream_lines(&source[7..], memory.range(LINE_BYTES, 1024)) };
        let mut all = vec![0; 4096];
        memory.copy_out(0, &mut all);
        assert!(all[LINE_BYTES..LINE_BYTES + 1024] == source[7..]);
        assert!(all[..LINE_BYTES].iter().chain(&all[LINE_BYTES + 1024..]).all(|byte| *byte == 0));
    }
}
