//! [`Ring`]: one io_uring, owned by the thread that made it. Operations go in with a caller's tag, one turn of the ring
//! is one system call, and completions are taken one by one.
//!
//! What is set up and why: SINGLE_ISSUER and DEFER_TASKRUN (completions are made when we ask for them, on our thread),
//! TASKRUN_FLAG (whether there is something to ask for can be seen without a call), SUBMIT_ALL (one bad entry does not
//! hold the others back), CLAMP. Linux 6.1 is the first with all of them.
#![expect(
    unsafe_code,
    reason = "submits entries that point to memory, and takes descriptors that the kernel made"
)]

use crate::arena::Arena;
use crate::files::{Fd, Files};
use crate::in_flight::{InFlight, Operation, PIECE_BYTES, Registered, Slot};
use crate::message::Message;
use crate::probe::Unsupported;
use crate::segments::Segments;
use crate::waker::Waker;
use io_uring::{IoUring, opcode, squeue, types};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Entries that fit in one submission. More may be queued: they are submitted in between. Small stays in the cache.
    pub entries: u32,
    /// Completions that the kernel can post before it must queue them itself; at least [`COMPLETION_ENTRIES_MIN`].
    pub completion_entries: u32,
    /// Operations in flight at most; one more is refused with [`Full`].
    pub operations_max: u32,
    /// Sockets and files that the ring can own.
    pub files_max: u32,
    /// Kernel threads for operations on files that would block (per NUMA node); 0 leaves the kernel's choice, 4 per CPU.
    pub workers_bounded: u32,
    /// Registers descriptors with the kernel, which saves a look-up per operation. Before Linux 6.13 a closed descriptor
    /// then lives on until older operations of the ring have ended, so this is off unless asked for.
    pub fixed_files: bool,
}

/// Least completion entries, so that a burst of completions does not overflow.
pub const COMPLETION_ENTRIES_MIN: u32 = 4096;

impl Default for Options {
    fn default() -> Self {
        Self {
            entries: 256,
            completion_entries: COMPLETION_ENTRIES_MIN,
            operations_max: 8192,
            files_max: 4096,
            workers_bounded: 0,
            fixed_files: false,
        }
    }
}

/// How long a turn may wait for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// So long.
    Until(Duration),
    /// Until there is one.
    Forever,
}

/// One more operation than [`Options::operations_max`], or one more file than [`Options::files_max`]. Gives back what it
/// was handed.
#[derive(Debug)]
pub struct Full<T>(pub T);

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The operation was cancelled.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// The process has as many open files as it may.
    pub const TOO_MANY_FILES: Self = Self(libc::EMFILE);
    /// The machine has.
    pub const TOO_MANY_FILES_IN_ALL: Self = Self(libc::ENFILE);
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {})", self.0, io::Error::from_raw_os_error(self.0))
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// An operation has ended, or, where `more` says so, has had one of several results.
#[derive(Debug)]
pub struct Completion {
    /// As the caller gave it; 0 for [`Payload::Woken`].
    pub tag: u64,
    /// Bytes moved (0 at a socket: the peer has closed its side), 0 where bytes are not the point; or the error.
    /// A send's result is all its bytes or an error. Receives, reads and writes may be short.
    pub result: Result<u32, Errno>,
    /// What comes back.
    pub payload: Payload,
    /// The operation goes on: only an accept does.
    pub more: bool,
}

/// What comes back with a completion.
#[derive(Debug)]
pub enum Payload {
    /// Nothing was handed in.
    None,
    /// A connection.
    Accepted(OwnedFd),
    /// Of a receive, a read or a write.
    Segments(Segments),
    /// Of a send.
    Message(Message),
    /// Somebody used a [`Waker`] of this ring, once or more often.
    Woken,
}

/// What becomes of the space of a range that is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clearing {
    /// It is given back.
    Deallocate,
    /// It stays allocated.
    Zero,
}

/// What the ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries submitted.
    pub submissions: u64,
    /// System calls, to submit, to wait or both.
    pub enters: u64,
    /// Completions taken from the kernel.
    pub completions: u64,
    /// Sends that the kernel took in part, and that were continued.
    pub sends_continued: u64,
}

/// Another ring that this one can wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(u32);

/// Rings that one ring can wake.
pub const PEERS_MAX: usize = 1024;

/// An io_uring with the operations that are in flight on it. It stays on the thread that made it.
pub struct Ring {
    io: IoUring,
    in_flight: InFlight,
    files: Files,
    fixed_files: bool,
    registered: Registered,
    /// Entries for which the submission queue had no room while the kernel would take none.
    backlog: VecDeque<squeue::Entry>,
    waker: Waker,
    peers: Vec<(Waker, WokenAt)>,
    counters: Counters,
    /// SINGLE_ISSUER: the kernel refuses any other thread.
    _single_thread: PhantomData<Rc<()>>,
}

/// How often the ring had entered the kernel when a wake was last queued. While it still has, that wake is queued.
type WokenAt = Option<u64>;

/// What a completion belongs to, beside the slots (whose indices are the small numbers).
const WOKEN: u64 = u64::MAX;
/// A cancellation: its own result says nothing that the cancelled operation does not say.
const IGNORED: u64 = u64::MAX - 1;
/// A wake that could not be delivered by the other ring; the low half is the peer.
const UNDELIVERED: u64 = 1 << 62;

impl Ring {
    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    /// What the kernel lacks or forbids, and the remedy.
    pub fn new(options: Options) -> Result<Self, Unsupported> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .dontfork()
            .setup_cqsize(options.completion_entries.max(COMPLETION_ENTRIES_MIN))
            .build(options.entries)
            .map_err(|error| Unsupported::setup(&error))?;
        if options.workers_bounded > 0 {
            let mut workers = [options.workers_bounded, 0];
            io.submitter().register_iowq_max_workers(&mut workers).map_err(|e| Unsupported::workers(&e))?;
        }
        // Optional: without it the kernel looks descriptors up.
        let fixed_files =
            options.fixed_files && io.submitter().register_files_sparse(options.files_max).is_ok();
        // SAFETY: the descriptor belongs to `io` and is open; the borrow ends with this statement.
        let descriptor = unsafe { BorrowedFd::borrow_raw(io.as_raw_fd()) };
        let waker = Waker::new(descriptor).map_err(|error| Unsupported::setup(&error))?;
        let operations_max = options.operations_max.clamp(1, OPERATIONS_MAX);
        let mut ring = Self {
            io,
            // One more, for the ring's own.
            in_flight: InFlight::new(operations_max + 1),
            files: Files::new(options.files_max),
            fixed_files,
            registered: Registered::default(),
            // An entry and a cancellation for each.
            backlog: VecDeque::with_capacity(2 * operations_max as usize),
            waker,
            peers: Vec::with_capacity(PEERS_MAX),
            counters: Counters::default(),
            _single_thread: PhantomData,
        };
        ring.doze(Box::new(0));
        Ok(ring)
    }

    /// A handle that ends this ring's sleep from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What has been done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Operations in flight, without the ring's own.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.taken() - 1
    }

    /// Sockets and files that the ring owns.
    pub fn files(&self) -> u32 {
        self.files.open()
    }

    // --- Descriptors -------------------------------------------------------------------------------------------

    /// Takes over a socket or file, so that operations can name it.
    ///
    /// # Errors
    /// The descriptor, where the ring owns as many as it can.
    pub fn adopt(&mut self, file: OwnedFd) -> Result<Fd, Full<OwnedFd>> {
        let raw = file.as_raw_fd();
        let fd = self.files.adopt(file).map_err(Full)?;
        if self.fixed_files && self.io.submitter().register_files_update(fd.index(), &[raw]).is_err() {
            let file = self.files.close(fd).expect("nothing was started on it");
            return Err(Full(file));
        }
        Ok(fd)
    }

    /// The descriptor itself, for socket options and addresses.
    ///
    /// # Panics
    /// Where `fd` was closed or released.
    pub fn descriptor(&self, fd: Fd) -> BorrowedFd<'_> {
        self.files.file(fd).expect("an Fd is not used after close or release")
    }

    /// Gives the descriptor back, to be taken to another ring.
    ///
    /// # Errors
    /// `fd` itself, while operations on it are in flight.
    ///
    /// # Panics
    /// Where `fd` was closed or released.
    pub fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd> {
        assert!(self.files.file(fd).is_some(), "an Fd is not used after close or release");
        if self.files.in_flight(fd.index()) > 0 {
            return Err(fd);
        }
        let file = self.files.close(fd).expect("nothing is in flight on it");
        self.forget_fixed(fd.index());
        Ok(file)
    }

    /// Closes `fd`: at once where nothing is in flight on it, else its operations are cancelled, complete as such with
    /// their payloads, and the last one closes it.
    ///
    /// # Panics
    /// Where `fd` was closed or released.
    pub fn close(&mut self, fd: Fd) {
        assert!(self.files.file(fd).is_some(), "an Fd is not used after close or release");
        if self.files.in_flight(fd.index()) > 0 {
            self.cancel_where(|slot| slot.file == Some(fd));
        }
        if self.files.close(fd).is_some() {
            self.forget_fixed(fd.index());
        }
    }

    /// Shuts a socket down, both ways or one: a pending receive ends with 0, a pending send with EPIPE.
    ///
    /// # Errors
    /// As `shutdown(2)`; `NotConnected` is usual where the peer was faster.
    ///
    /// # Panics
    /// Where `fd` was closed or released.
    pub fn shutdown(&self, fd: Fd, how: Shutdown) -> io::Result<()> {
        socket2::SockRef::from(&self.descriptor(fd)).shutdown(how)
    }

    fn forget_fixed(&mut self, index: u32) {
        if self.fixed_files {
            // It can fail only for an index that is not in the table.
            let _ = self.io.submitter().register_files_update(index, &[-1]);
        }
    }

    /// Registers an arena with the kernel: its pages are pinned (all of them, at once) and need not be looked up for each
    /// read and write of one segment. Optional: without it everything works, a little slower.
    ///
    /// # Errors
    /// `OutOfMemory` where the limit of locked memory forbids it ([`crate::probe()`] names the remedy), `AlreadyExists`
    /// for a second arena.
    pub fn register(&mut self, arena: &Arena) -> io::Result<()> {
        if self.registered.arena.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let pieces = arena.pieces(PIECE_BYTES);
        // SAFETY: the pieces are mapped, and stay so: `registered` holds the arena as long as the ring lives. That others
        // read and write the memory meanwhile is what it is for; the kernel does so only within operations.
        unsafe { self.io.submitter().register_buffers(&pieces) }?;
        self.registered = Registered::new(arena.clone(), &pieces);
        Ok(())
    }

    // --- Operations --------------------------------------------------------------------------------------------

    /// Accepts connections at a listening socket until it is cancelled: many completions with [`Payload::Accepted`],
    /// `more` set. One without `more` (cancelled, or out of descriptors) ends it.
    ///
    /// # Errors
    /// [`Full`].
    pub fn accept(&mut self, fd: Fd, tag: u64) -> Result<(), Full<()>> {
        self.start(fd, tag, Operation::Accept).map_err(|_| Full(()))
    }

    /// Receives what there is, at least one byte, into `segments` in order.
    ///
    /// # Errors
    /// [`Full`], with the list.
    ///
    /// # Panics
    /// Where the list has no byte, whose receipt could not be told from the end of the stream.
    pub fn receive(&mut self, fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>> {
        assert!(segments.length_bytes() > 0, "a receive into nothing");
        self.start(fd, tag, Operation::Receive(segments)).map_err(Full::segments)
    }

    /// Sends all of `message`. What the kernel takes in part is continued here, so that the completion says that all
    /// bytes are with the kernel, or that the connection broke. One send at a time per socket: two would interleave.
    ///
    /// # Errors
    /// [`Full`], with the message.
    ///
    /// # Panics
    /// Where the message is empty.
    pub fn send(&mut self, fd: Fd, tag: u64, mut message: Message) -> Result<(), Full<Message>> {
        assert!(!message.is_empty(), "a send of nothing");
        message.name_parts();
        self.start(fd, tag, Operation::Send(message)).map_err(|operation| match operation {
            Operation::Send(message) => Full(message),
            _ => unreachable!("gives back what it was given"),
        })
    }

    /// Reads from `offset_bytes` into `segments`, less their first `skip_bytes`, which an earlier read has filled. May
    /// be short.
    ///
    /// # Errors
    /// [`Full`], with the list.
    pub fn read(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Full<Segments>> {
        self.start(fd, tag, Operation::Read { segments, offset_bytes, skip_bytes }).map_err(Full::segments)
    }

    /// Writes `segments`, less their first `skip_bytes`, which an earlier write has written, at `offset_bytes` (of the
    /// list's first byte). `durable`: complete only when they survive a power cut (RWF_DSYNC). May be short.
    ///
    /// # Errors
    /// [`Full`], with the list.
    pub fn write(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Full<Segments>> {
        let operation = Operation::Write { segments, offset_bytes, skip_bytes, durable, untorn: false };
        self.start(fd, tag, operation).map_err(Full::segments)
    }

    /// Writes `segments`, which are one, so that after a loss of power all of their bytes are there or none (RWF_ATOMIC).
    ///
    /// # Errors
    /// [`Full`], with the list.
    pub fn write_untorn(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Full<Segments>> {
        let operation = Operation::Write { segments, offset_bytes, skip_bytes: 0, durable, untorn: true };
        self.start(fd, tag, operation).map_err(Full::segments)
    }

    /// Makes all written data of a file durable, `data_only` without its times.
    ///
    /// # Errors
    /// [`Full`].
    pub fn sync(&mut self, fd: Fd, tag: u64, data_only: bool) -> Result<(), Full<()>> {
        self.start(fd, tag, Operation::Sync { data_only }).map_err(|_| Full(()))
    }

    /// As `fallocate(2)` with `mode`: allocates, punches a hole, writes zeroes.
    ///
    /// # Errors
    /// [`Full`].
    pub fn allocate(
        &mut self,
        fd: Fd,
        tag: u64,
        mode: i32,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<(), Full<()>> {
        self.start(fd, tag, Operation::Allocate { mode, offset_bytes, length_bytes }).map_err(|_| Full(()))
    }

    /// Makes a range of a file read as zeroes, without changing the file's size.
    ///
    /// # Errors
    /// [`Full`].
    pub fn clear(
        &mut self,
        fd: Fd,
        tag: u64,
        how: Clearing,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<(), Full<()>> {
        let mode = match how {
            Clearing::Deallocate => libc::FALLOC_FL_PUNCH_HOLE,
            Clearing::Zero => libc::FALLOC_FL_ZERO_RANGE,
        };
        self.allocate(fd, tag, mode | libc::FALLOC_FL_KEEP_SIZE, offset_bytes, length_bytes)
    }

    /// Asks the kernel to end all operations with this tag. Each completes as usual, with `ECANCELED` where the kernel
    /// could; an operation at a disk may run to its end. Returns how many were asked.
    pub fn cancel(&mut self, tag: u64) -> usize {
        self.cancel_where(|slot| slot.file.is_some() && slot.tag == tag)
    }

    /// Asks for the last receive on `fd` back, if it is still in flight: it completes with `ECANCELED`, or with the bytes that
    /// came first. Takes as long however many operations there are.
    ///
    /// # Panics
    /// Where `fd` was closed or released.
    pub fn recall(&mut self, fd: Fd) {
        assert!(self.files.file(fd).is_some(), "an Fd is not used after close or release");
        let index = self.files.receive(fd.index());
        if let Some(slot) = self.in_flight.get_mut(index)
            && slot.file == Some(fd)
            && matches!(slot.operation, Operation::Receive(_))
            && !slot.cancelled
        {
            slot.cancelled = true;
            let builder = types::CancelBuilder::user_data(u64::from(index));
            self.push(opcode::AsyncCancel2::new(builder).build().user_data(IGNORED));
        }
    }

    /// Makes another ring known, once, so that [`Ring::wake`] can name it.
    ///
    /// # Errors
    /// [`Full`], at [`PEERS_MAX`].
    pub fn introduce(&mut self, waker: Waker) -> Result<Peer, Full<Waker>> {
        if self.peers.len() == PEERS_MAX {
            return Err(Full(waker));
        }
        self.peers.push((waker, None));
        Ok(Peer(u32::try_from(self.peers.len() - 1).expect("below PEERS_MAX")))
    }

    /// Wakes another ring, with this ring's next submission. Asked twice before that, it is one entry.
    pub fn wake(&mut self, peer: Peer) {
        let now = Some(self.counters.enters);
        let (waker, at) = &mut self.peers[peer.0 as usize];
        if *at == now {
            return;
        }
        *at = now;
        let target = types::Fd(waker.ring());
        let entry = opcode::MsgRingData::new(target, 0, WOKEN, None).build();
        self.push(entry.user_data(UNDELIVERED | u64::from(peer.0)).flags(squeue::Flags::SKIP_SUCCESS));
    }

    // --- The turn ----------------------------------------------------------------------------------------------

    /// Submits what is queued and waits for the first completion, in one call. Before it sleeps it watches for `spin`,
    /// where that is not zero, whether there is work. Completions are then taken with [`Ring::next_completion`]; while
    /// some are left from before, it does not wait.
    ///
    /// # Errors
    /// What `io_uring_enter` says and no later call would mend. Being interrupted, late or busy is no error.
    pub fn turn(&mut self, wait: Wait, spin: Duration) -> io::Result<()> {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        let wait = if self.is_ready() { Wait::Poll } else { wait };
        match wait {
            Wait::Poll => self.enter_without_wait(),
            Wait::Until(Duration::ZERO) => self.enter_without_wait(),
            Wait::Until(_) | Wait::Forever if !spin.is_zero() => {
                self.enter_without_wait()?;
                let began = Instant::now();
                let spin = if let Wait::Until(limit) = wait { spin.min(limit) } else { spin };
                loop {
                    if self.is_ready() {
                        return Ok(());
                    }
                    if self.io.submission().taskrun() {
                        self.enter_without_wait()?;
                    } else if began.elapsed() >= spin {
                        break;
                    } else {
                        std::hint::spin_loop();
                    }
                }
                match wait {
                    Wait::Until(limit) => self.enter_and_wait(Some(limit.saturating_sub(began.elapsed()))),
                    _ => self.enter_and_wait(None),
                }
            }
            Wait::Until(limit) => self.enter_and_wait(Some(limit)),
            Wait::Forever => self.enter_and_wait(None),
        }
    }

    /// The next completion, without a system call. `None`: take another turn.
    pub fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let cqe = self.io.completion().next()?;
            self.counters.completions += 1;
            match cqe.user_data() {
                IGNORED => {}
                WOKEN => return Some(Completion::woken()),
                unsent if unsent & UNDELIVERED != 0 => {
                    // The other ring could not take it (it has overflowed, or ended): its eventfd always can.
                    let peer = usize::try_from(unsent & !UNDELIVERED).expect("made from an index");
                    self.peers[peer].0.wake();
                }
                index => {
                    let index = u32::try_from(index).expect("made from an index");
                    let more = io_uring::cqueue::more(cqe.flags());
                    if let Some(completion) = self.completed(index, cqe.result(), more) {
                        return Some(completion);
                    }
                }
            }
        }
    }

    /// Whether [`Ring::next_completion`] has something.
    pub fn is_ready(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    fn completed(&mut self, index: u32, result: i32, more: bool) -> Option<Completion> {
        let result = u32::try_from(result).map_err(|_| Errno(-result));
        let Self { in_flight, files, fixed_files, registered, .. } = self;
        let slot = in_flight.slot(index);
        if more {
            assert!(matches!(slot.operation, Operation::Accept), "only an accept has several results");
            let tag = slot.tag;
            return Some(Completion { tag, result: result.map(|_| 0), payload: accepted(result), more });
        }
        if let (Operation::Send(message), Ok(sent)) = (&mut slot.operation, result)
            && !message.sent(sent as usize)
            && sent > 0
            && !slot.cancelled
        {
            let entry = submission(slot, index, files, *fixed_files, registered);
            self.counters.sends_continued += 1;
            self.push(entry);
            return None;
        }
        let slot = self.in_flight.remove(index);
        if let Some(fd) = slot.file
            && self.files.ended(fd.index()).is_some()
        {
            self.forget_fixed(fd.index());
        }
        let (result, payload) = match slot.operation {
            Operation::Accept => (result.map(|_| 0), accepted(result)),
            Operation::Receive(segments)
            | Operation::Read { segments, .. }
            | Operation::Write { segments, .. } => (result, Payload::Segments(segments)),
            Operation::Send(message) => (whole(&message, result), Payload::Message(message)),
            Operation::Sync { .. } | Operation::Allocate { .. } => (result, Payload::None),
            Operation::Doze { count, .. } => {
                self.doze(count);
                return Some(Completion::woken());
            }
        };
        Some(Completion { tag: slot.tag, result, payload, more: false })
    }

    // --- Submission --------------------------------------------------------------------------------------------

    /// Moves `operation` into a slot and queues its entry; gives it back where no slot is free.
    fn start(&mut self, fd: Fd, tag: u64, operation: Operation) -> Result<(), Operation> {
        assert!(self.files.file(fd).is_some(), "an Fd is not used after close or release");
        if self.in_flight.is_full() {
            return Err(operation);
        }
        self.files.started(fd.index());
        let slot = Slot { tag, file: Some(fd), cancelled: false, operation };
        let (index, slot) = self.in_flight.insert(slot);
        if let Operation::Receive(_) = slot.operation {
            self.files.receives(fd.index(), index);
        }
        let entry = submission(slot, index, &self.files, self.fixed_files, &self.registered);
        self.push(entry);
        Ok(())
    }

    /// Arms the read of the eventfd that wakers write. There is always a slot: it is the first operation of a new ring,
    /// and after that takes the one it has just left.
    fn doze(&mut self, count: Box<u64>) {
        let event = types::Fd(self.waker.event());
        let operation = Operation::Doze { count, event };
        let (index, slot) = self.in_flight.insert(Slot { tag: 0, file: None, cancelled: false, operation });
        let entry = slot.operation.entry(event, &Registered::default());
        self.push(entry.user_data(u64::from(index)));
    }

    fn cancel_where(&mut self, mut wanted: impl FnMut(&Slot) -> bool) -> usize {
        let mut cancelled = 0;
        for (index, slot) in self.in_flight.iter_mut() {
            if wanted(slot) && !slot.cancelled {
                slot.cancelled = true;
                cancelled += 1;
                // Queued in order: should this slot be used again meanwhile, its new operation is submitted after this,
                // and is not what is cancelled.
                let builder = types::CancelBuilder::user_data(u64::from(index));
                self.backlog.push_back(opcode::AsyncCancel2::new(builder).build().user_data(IGNORED));
            }
        }
        cancelled
    }

    /// Queues an entry. The submission queue being full, submits it first; nothing is lost where even that fails.
    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        for attempt in 0..2 {
            // SAFETY: entries are made by `Operation::entry` from an operation that already sits in its slot (or by us
            // without any pointer). What they point to is in boxes and chunks that the slot owns; `completed` takes the
            // slot's contents out only after the kernel has said that it is done, and `drop` waits for that or leaks.
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                self.counters.submissions += 1;
                return true;
            }
            if attempt == 0 && self.enter_without_wait().is_err() {
                return false;
            }
        }
        false
    }

    fn enter_without_wait(&mut self) -> io::Result<()> {
        let queue = self.io.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle {
            return Ok(());
        }
        self.counters.enters += 1;
        tolerate(self.io.submit())
    }

    fn enter_and_wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.counters.enters += 1;
        match limit {
            None => tolerate(self.io.submit_and_wait(1)),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                let arguments = types::SubmitArgs::new().timespec(&limit);
                tolerate(self.io.submitter().submit_with_args(1, &arguments))
            }
        }
    }
}

/// The entry for an operation that sits in its slot.
fn submission(
    slot: &mut Slot,
    index: u32,
    files: &Files,
    fixed: bool,
    registered: &Registered,
) -> squeue::Entry {
    let fd = slot.file.expect("only the ring's own operation has none");
    let entry = if fixed {
        let index = RawFd::try_from(fd.index()).expect("the kernel took a table of this length");
        slot.operation.entry(types::Fd(index), registered).flags(squeue::Flags::FIXED_FILE)
    } else {
        let file = files.file(fd).expect("operations are not started, nor continued, on a closed file");
        slot.operation.entry(types::Fd(file.as_raw_fd()), registered)
    };
    entry.user_data(u64::from(index))
}

/// Operations that a ring can have in flight, whatever its options say: slot indices stay far below the marks.
const OPERATIONS_MAX: u32 = 1 << 20;

const _: () = assert!((OPERATIONS_MAX as u64) < UNDELIVERED && IGNORED & UNDELIVERED != 0);

/// Interrupted, late and busy are all answered by another turn.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

fn accepted(result: Result<u32, Errno>) -> Payload {
    let Ok(descriptor) = result else { return Payload::None };
    let descriptor = RawFd::try_from(descriptor).expect("it was an i32");
    // SAFETY: the kernel made this descriptor for us, in the completion of an accept; nobody else has its number.
    Payload::Accepted(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A send's result: all bytes, or why not.
fn whole(message: &Message, result: Result<u32, Errno>) -> Result<u32, Errno> {
    match result {
        Ok(_) if message.sent_bytes() < message.length_bytes() => Err(Errno::CANCELED),
        Ok(_) => Ok(u32::try_from(message.length_bytes()).unwrap_or(u32::MAX)),
        Err(errno) => Err(errno),
    }
}

impl Full<Segments> {
    fn segments(operation: Operation) -> Self {
        match operation {
            Operation::Receive(segments)
            | Operation::Read { segments, .. }
            | Operation::Write { segments, .. } => Self(segments),
            _ => unreachable!("gives back what it was given"),
        }
    }
}

impl Completion {
    fn woken() -> Self {
        Self { tag: 0, result: Ok(0), payload: Payload::Woken, more: false }
    }
}

impl Drop for Ring {
    /// Cancels what is in flight and waits for it, since the kernel may write to its memory until then. Where an
    /// operation does not end (a disk that hangs cannot be cancelled), the memory of all that is left is leaked on
    /// purpose: a leak is bounded, a write into memory of somebody else is not.
    fn drop(&mut self) {
        self.cancel_where(|_| true);
        let began = Instant::now();
        while self.in_flight.taken() > 0 && began.elapsed() < DROP_PATIENCE {
            if self.turn(Wait::Until(Duration::from_millis(50)), Duration::ZERO).is_err() {
                break;
            }
            while let Some(cqe) = self.io.completion().next() {
                let Ok(index) = u32::try_from(cqe.user_data()) else { continue };
                if io_uring::cqueue::more(cqe.flags()) {
                    drop(accepted(u32::try_from(cqe.result()).map_err(|_| Errno(-cqe.result()))));
                } else {
                    let slot = self.in_flight.remove(index);
                    if matches!(slot.operation, Operation::Accept) {
                        drop(accepted(u32::try_from(cqe.result()).map_err(|_| Errno(-cqe.result()))));
                    }
                }
            }
        }
        if self.in_flight.taken() > 0 {
            self.in_flight.leak();
        }
        if self.fixed_files {
            // Wakers keep the io_uring itself alive; it shall not keep the files.
            let _ = self.io.submitter().unregister_files();
        }
    }
}

/// How long a ring that is dropped waits for operations that cannot be cancelled.
const DROP_PATIENCE: Duration = Duration::from_secs(5);
