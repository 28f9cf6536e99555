//! The descriptors that a ring works on. The ring owns them, so that no descriptor is closed, and its number given to
//! another file, while an operation that names it is still to be submitted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A socket or file that a ring has adopted. It names it on that ring only, until it is closed or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fd {
    index: u32,
    generation: u32,
}

impl Fd {
    /// As one number, for interfaces that carry handles of several kinds.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// From [`Fd::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        let generation = u32::try_from(bits >> 32).expect("the upper half");
        Self { index: u32::try_from(bits & u64::from(u32::MAX)).expect("the lower half"), generation }
    }

    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// The table behind [`Fd`]. Its length is fixed when the ring is made.
pub(crate) struct Files {
    entries: Box<[Entry]>,
    first_free: u32,
    open: u32,
}

struct Entry {
    file: Option<OwnedFd>,
    /// Raised at each reuse, so that an old `Fd` is found out.
    generation: u32,
    in_flight: u32,
    /// The slot of the last receive that was started.
    receive: u32,
    closing: bool,
    next_free: u32,
}

impl Files {
    pub(crate) fn new(files_max: u32) -> Self {
        let entry = |next_free| Entry {
            file: None,
            generation: 0,
            in_flight: 0,
            receive: 0,
            closing: false,
            next_free,
        };
        Self { entries: (1..=files_max).map(entry).collect(), first_free: 0, open: 0 }
    }

    /// Takes `file` into the table; gives it back where the table is full.
    pub(crate) fn adopt(&mut self, file: OwnedFd) -> Result<Fd, OwnedFd> {
        let index = self.first_free;
        let Some(entry) = self.entries.get_mut(index as usize) else { return Err(file) };
        self.first_free = entry.next_free;
        entry.file = Some(file);
        self.open += 1;
        Ok(Fd { index, generation: entry.generation })
    }

    /// The file that `fd` names, or `None` once it is being closed or is gone.
    pub(crate) fn file(&self, fd: Fd) -> Option<BorrowedFd<'_>> {
        let entry = &self.entries[fd.index as usize];
        let named = entry.generation == fd.generation && !entry.closing;
        entry.file.as_ref().filter(|_| named).map(AsFd::as_fd)
    }

    /// Files in the table.
    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    /// Operations that work on the file of this index.
    pub(crate) fn in_flight(&self, index: u32) -> u32 {
        self.entries[index as usize].in_flight
    }

    pub(crate) fn started(&mut self, index: u32) {
        self.entries[index as usize].in_flight += 1;
    }

    /// A receive was started in this slot.
    pub(crate) fn receives(&mut self, index: u32, slot: u32) {
        self.entries[index as usize].receive = slot;
    }

    /// The slot of the last receive that was started.
    pub(crate) fn receive(&self, index: u32) -> u32 {
        self.entries[index as usize].receive
    }

    /// An operation on the file of this index has ended. Gives the file out where that was the last, and it is to be
    /// closed.
    #[must_use]
    pub(crate) fn ended(&mut self, index: u32) -> Option<OwnedFd> {
        let entry = &mut self.entries[index as usize];
        entry.in_flight = entry.in_flight.checked_sub(1).expect("an operation ends once");
        if entry.closing && entry.in_flight == 0 { self.remove(index) } else { None }
    }

    /// No new operation is started on the file; it leaves the table now, or when its last operation has ended.
    #[must_use]
    pub(crate) fn close(&mut self, fd: Fd) -> Option<OwnedFd> {
        let entry = &mut self.entries[fd.index as usize];
        entry.closing = true;
        if entry.in_flight == 0 { self.remove(fd.index) } else { None }
    }

    fn remove(&mut self, index: u32) -> Option<OwnedFd> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.closing = false;
        entry.next_free = self.first_free;
        self.first_free = index;
        self.open -= 1;
        entry.file.take()
    }
}
