//! Who writes which pages of a RAM disk now, so that two shards that write the same sectors at the same moment leave all of
//! one of them there, as a disk does.
//!
//! Nobody waits here: who finds a page taken leaves it, and comes again in his next turn. What is marked is a copy of some
//! microseconds. Pages share marks, many to one, so that a disk of any size costs the same 4 KiB.

use std::sync::atomic::{AtomicBool, Ordering};

/// The marks of one disk.
#[derive(Debug)]
pub(crate) struct Stripes(Box<[AtomicBool]>);

/// Pages that are taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    stripes: &'a Stripes,
    first: usize,
    count: usize,
}

const STRIPES: usize = 4096;
const PAGE_BYTES: usize = 4096;

impl Stripes {
    /// Nothing is taken.
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| AtomicBool::new(false)).collect())
    }

    /// Takes the pages of `length` bytes at `offset`, all or none.
    #[inline]
    pub(crate) fn take(&self, offset: usize, length: usize) -> Option<Taken<'_>> {
        let first = offset / PAGE_BYTES;
        let pages = (offset + length).div_ceil(PAGE_BYTES) - first;
        let mut taken = Taken { stripes: self, first, count: 0 };
        while taken.count < pages.min(STRIPES) {
            if self.mark(first + taken.count).swap(true, Ordering::Acquire) {
                return None;
            }
            taken.count += 1;
        }
        Some(taken)
    }

    fn mark(&self, page: usize) -> &AtomicBool {
        &self.0[page % STRIPES]
    }
}

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        for page in self.first..self.first + self.count {
            self.stripes.mark(page).store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_writers_until_he_has_done() {
        let stripes = Stripes::new();
        let first = stripes.take(5000, 4096).expect("pages 1 and 2 are free");
        assert!(stripes.take(0, 4097).is_none() && stripes.take(12_287, 1).is_none());
        let (before, behind) = (stripes.take(0, 4096), stripes.take(12_288, 1));
        assert!(before.is_some() && behind.is_some(), "a page is given back where the next was taken");
        drop(first);
        assert!(stripes.take(4096, 8192).is_some());
    }

    #[test]
    fn a_range_of_more_pages_than_marks_is_all_of_them_once() {
        let stripes = Stripes::new();
        let all = stripes.take(100, 3 * STRIPES * PAGE_BYTES).expect("nothing is taken");
        assert!(stripes.take(7 * PAGE_BYTES, 1).is_none());
        drop(all);
        assert!(stripes.take(7 * PAGE_BYTES, 1).is_some());
    }
}
