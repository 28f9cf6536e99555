//! The table of operations that the kernel works on: what it may touch has been moved in here, and stays at its address
//! until the completion. Nothing here is freed or moved while its slot is taken.

use crate::arena::Arena;
use crate::files::Fd;
use crate::message::Message;
use crate::segments::Segments;
use io_uring::{opcode, squeue, types};

/// What the kernel is asked to do, with all that it may touch meanwhile.
pub(crate) enum Operation {
    /// Connections, until it is cancelled.
    Accept,
    Receive(Segments),
    Send(Message),
    Read {
        segments: Segments,
        offset_bytes: u64,
        skip_bytes: usize,
    },
    Write {
        segments: Segments,
        offset_bytes: u64,
        skip_bytes: usize,
        durable: bool,
        untorn: bool,
    },
    Sync {
        data_only: bool,
    },
    Allocate {
        mode: i32,
        offset_bytes: u64,
        length_bytes: u64,
    },
    /// The ring's own: reads the eventfd that wakers write.
    Doze {
        count: Box<u64>,
        event: types::Fd,
    },
}

pub(crate) struct Slot {
    pub(crate) tag: u64,
    /// Of the file table; none for the ring's own operation.
    pub(crate) file: Option<Fd>,
    /// Cancelled by us: what is short is not continued.
    pub(crate) cancelled: bool,
    pub(crate) operation: Operation,
}

impl Operation {
    /// The submission for this operation as it now stands in its slot. Pointers are made here, after the move into the
    /// slot, and nobody uses the operation again before its completion.
    pub(crate) fn entry(&mut self, fd: types::Fd, registered: &Registered) -> squeue::Entry {
        match self {
            Self::Accept => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
            Self::Receive(segments) => match *segments.vectors(0) {
                [one] => opcode::Recv::new(fd, one.iov_base.cast(), narrow(one.iov_len)).build(),
                _ => opcode::RecvMsg::new(fd, segments.header()).build(),
            },
            Self::Send(message) => match *message.vectors() {
                [one] => {
                    let send = opcode::Send::new(fd, one.iov_base.cast::<u8>(), narrow(one.iov_len));
                    send.flags(SEND_FLAGS).build()
                }
                _ => opcode::SendMsg::new(fd, message.header()).flags(SEND_FLAGS.cast_unsigned()).build(),
            },
            Self::Read { segments, offset_bytes, skip_bytes } => {
                let offset = *offset_bytes + *skip_bytes as u64;
                match *segments.vectors(*skip_bytes) {
                    [one] => {
                        let (start, length) = (one.iov_base.cast::<u8>(), narrow(one.iov_len));
                        match registered.piece_of(start.addr()) {
                            Some(piece) => {
                                opcode::ReadFixed::new(fd, start, length, piece).offset(offset).build()
                            }
                            None => opcode::Read::new(fd, start, length).offset(offset).build(),
                        }
                    }
                    ref all => opcode::Readv::new(fd, all.as_ptr(), narrow(all.len())).offset(offset).build(),
                }
            }
            Self::Write { segments, offset_bytes, skip_bytes, durable, untorn } => {
                let offset = *offset_bytes + *skip_bytes as u64;
                let atomic = if *untorn { libc::RWF_ATOMIC } else { 0 };
                let flags = if *durable { libc::RWF_DSYNC } else { 0 } | atomic;
                match *segments.vectors(*skip_bytes) {
                    [one] => {
                        let (start, length) = (one.iov_base.cast::<u8>(), narrow(one.iov_len));
                        // The kernel writes nothing untorn out of registered memory.
                        match registered.piece_of(start.addr()).filter(|_| !*untorn) {
                            Some(piece) => {
                                let write = opcode::WriteFixed::new(fd, start, length, piece);
                                write.offset(offset).rw_flags(flags).build()
                            }
                            None => {
                                let write = opcode::Write::new(fd, start, length);
                                write.offset(offset).rw_flags(flags).build()
                            }
                        }
                    }
                    ref all => {
                        let write = opcode::Writev::new(fd, all.as_ptr(), narrow(all.len()));
                        write.offset(offset).rw_flags(flags).build()
                    }
                }
            }
            Self::Sync { data_only } => {
                let flags = if *data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
                opcode::Fsync::new(fd).flags(flags).build()
            }
            Self::Allocate { mode, offset_bytes, length_bytes } => {
                opcode::Fallocate::new(fd, *length_bytes).offset(*offset_bytes).mode(*mode).build()
            }
            Self::Doze { count, event } => {
                let count: *mut u64 = &mut **count;
                opcode::Read::new(*event, count.cast(), 8).build()
            }
        }
    }
}

/// Memory that the kernel has pinned and knows by number: one arena, in pieces.
#[derive(Default)]
pub(crate) struct Registered {
    pub(crate) arena: Option<Arena>,
    start: usize,
    length: usize,
}

/// The kernel takes pieces of a GiB at most.
pub(crate) const PIECE_BYTES: usize = 1 << 30;

impl Registered {
    pub(crate) fn new(arena: Arena, pieces: &[libc::iovec]) -> Self {
        let start = pieces.first().map_or(0, |piece| piece.iov_base.addr());
        Self { arena: Some(arena), start, length: pieces.iter().map(|piece| piece.iov_len).sum() }
    }

    /// The piece in which a buffer that begins at `address` lies, all of it: no chunk straddles two.
    fn piece_of(&self, address: usize) -> Option<u16> {
        let offset = address.checked_sub(self.start).filter(|&offset| offset < self.length)?;
        u16::try_from(offset / PIECE_BYTES).ok()
    }
}

/// All of the message or an error, and no signal where the peer has gone.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(PIECE_MAX)
}

/// Longer pieces (only lent memory could be) are sent in several goes.
const PIECE_MAX: u32 = 1 << 30;

/// Slots, as many as the ring was made for.
pub(crate) struct InFlight {
    slots: Box<[Entry]>,
    first_free: u32,
    taken: u32,
    /// No slot from here on was ever taken: the one that became free last is taken first.
    untouched: u32,
}

enum Entry {
    Taken(Slot),
    Free { next: u32 },
}

impl InFlight {
    pub(crate) fn new(operations_max: u32) -> Self {
        Self {
            slots: (1..=operations_max).map(|next| Entry::Free { next }).collect(),
            first_free: 0,
            taken: 0,
            untouched: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.first_free as usize == self.slots.len()
    }

    /// Operations in flight.
    pub(crate) fn taken(&self) -> u32 {
        self.taken
    }

    /// Moves `slot` to where it stays until [`InFlight::remove`]. The table is not full: the caller has asked.
    pub(crate) fn insert(&mut self, slot: Slot) -> (u32, &mut Slot) {
        let index = self.first_free;
        let entry = &mut self.slots[index as usize];
        let Entry::Free { next } = *entry else { unreachable!("a taken slot in the list of free ones") };
        *entry = Entry::Taken(slot);
        self.first_free = next;
        self.taken += 1;
        self.untouched = self.untouched.max(index + 1);
        let Entry::Taken(slot) = entry else { unreachable!("just taken") };
        (index, slot)
    }

    pub(crate) fn slot(&mut self, index: u32) -> &mut Slot {
        match &mut self.slots[index as usize] {
            Entry::Taken(slot) => slot,
            Entry::Free { .. } => panic!("a completion for operation {index}, which is not in flight"),
        }
    }

    /// What is in flight in this slot, if something is.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        match self.slots.get_mut(index as usize)? {
            Entry::Taken(slot) => Some(slot),
            Entry::Free { .. } => None,
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Slot {
        let freed = std::mem::replace(&mut self.slots[index as usize], Entry::Free { next: self.first_free });
        let Entry::Taken(slot) = freed else { panic!("operation {index} ended twice") };
        self.first_free = index;
        self.taken -= 1;
        slot
    }

    /// The slots in flight, with their indices. Looks at as many as were ever in flight at a time, not at all.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Slot)> {
        (0..).zip(self.slots[..self.untouched as usize].iter_mut()).filter_map(|(index, entry)| match entry {
            Entry::Taken(slot) => Some((index, slot)),
            Entry::Free { .. } => None,
        })
    }

    /// Gives up all slots without freeing what they hold.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}
