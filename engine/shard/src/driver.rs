//! What a shard needs of the world: a clock, randomness, memory, sockets, files, and a place to wait for all of them.
//!
//! [`Reactor`] is the real one, over an io_uring. The simulator has another, with the same payloads: that is how it runs
//! this crate and no copy of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use portico_backstores::Source;
use portico_iscsi::moment::Moment;
use portico_ring::{Arena, Clearing, Completion, Counters, Fd, Full, Message, Ring, Segments, Wait, socket};

/// The world of one shard. The operations are those of [`Ring`], with its promises: what is handed in comes back in the
/// completion, and a send completes when all of it is sent or the connection broke.
pub trait Driver {
    /// The monotonic clock, from an origin that all shards of a process share.
    fn now(&mut self) -> Moment;
    /// Fills the bytes with what nobody can predict, for a challenge.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()>;
    /// The shard's memory for data.
    fn arena(&self) -> &Arena;
    /// Takes over a socket or file.
    ///
    /// # Errors
    /// The descriptor, where no more can be owned.
    fn adopt(&mut self, file: OwnedFd) -> Result<Fd, Full<OwnedFd>>;
    /// Takes over what a medium's queue works on.
    ///
    /// # Errors
    /// When no more can be owned, or the source belongs to another world.
    fn adopt_medium(&mut self, source: Source) -> io::Result<Fd>;
    /// The eventfd that ends this shard's sleep when it is added to.
    ///
    /// # Errors
    /// When no descriptor is left, or this world has none.
    fn alarm(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Gives a descriptor back, to go to another shard.
    ///
    /// # Errors
    /// The name, while operations are in flight on it.
    fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd>;
    /// Ends all operations on the descriptor and closes it when the last is over.
    fn close(&mut self, fd: Fd);
    /// The peer's address and ours.
    ///
    /// # Errors
    /// When the connection is gone.
    fn addresses(&mut self, fd: Fd) -> io::Result<(SocketAddr, SocketAddr)>;
    /// Accepts until it is cancelled.
    ///
    /// # Errors
    /// No room for another operation.
    fn accept(&mut self, fd: Fd, tag: u64) -> Result<(), Full<()>>;
    /// Asks for the end of the operations with this tag: each completes with `ECANCELED`, or as it would have.
    fn cancel(&mut self, tag: u64);
    /// Receives at least one byte into the list.
    ///
    /// # Errors
    /// The list, when there is no room for another operation.
    fn receive(&mut self, fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>>;
    /// Asks for the receive back that is in flight on the descriptor: it ends with `ECANCELED`, or with what came first.
    fn recall(&mut self, fd: Fd);
    /// Sends all of the message.
    ///
    /// # Errors
    /// The message, when there is no room for another operation.
    fn send(&mut self, fd: Fd, tag: u64, message: Message) -> Result<(), Full<Message>>;
    /// Reads into the list, less its first `skip_bytes`.
    ///
    /// # Errors
    /// The list, when there is no room for another operation.
    fn read(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Full<Segments>>;
    /// Writes the list, less its first `skip_bytes`, at `offset_bytes`.
    ///
    /// # Errors
    /// The list, when there is no room for another operation.
    fn write(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Full<Segments>>;
    /// Writes the list, which is one segment, untorn: after a loss of power all of it is there, or nothing.
    ///
    /// # Errors
    /// The list, when there is no room for another operation.
    fn write_untorn(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Full<Segments>>;
    /// Makes written data durable.
    ///
    /// # Errors
    /// No room for another operation.
    fn sync(&mut self, fd: Fd, tag: u64, data_only: bool) -> Result<(), Full<()>>;
    /// Makes a range of a file read as zeroes, giving its space back or keeping it.
    ///
    /// # Errors
    /// No room for another operation.
    fn clear(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), Full<()>>;
    /// Submits what is queued and waits for the first completion.
    ///
    /// # Errors
    /// When the ring is beyond repair.
    fn turn(&mut self, wait: Wait, spin: Duration) -> io::Result<()>;
    /// The next completion, without waiting.
    fn next_completion(&mut self) -> Option<Completion>;
    /// Calls, submissions and completions so far.
    fn counters(&self) -> Counters;
}

/// The real world of one shard.
pub struct Reactor {
    ring: Ring,
    arena: Arena,
    origin: Instant,
}

impl Reactor {
    /// On this thread, with `origin` as the beginning of time.
    #[must_use]
    pub fn new(ring: Ring, arena: Arena, origin: Instant) -> Self {
        Self { ring, arena, origin }
    }
}

impl Driver for Reactor {
    #[inline]
    fn now(&mut self) -> Moment {
        Moment(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }

    #[inline]
    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn adopt(&mut self, file: OwnedFd) -> Result<Fd, Full<OwnedFd>> {
        self.ring.adopt(file)
    }

    fn adopt_medium(&mut self, source: Source) -> io::Result<Fd> {
        match source {
            Source::Descriptor(file) => {
                self.ring.adopt(file).map_err(|_| io::Error::other("the ring owns as many files as it can"))
            }
            Source::Simulated(_) => Err(io::Error::other("a simulated file in the real world")),
        }
    }

    fn alarm(&self) -> io::Result<OwnedFd> {
        self.ring.waker().try_clone_event()
    }

    fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd> {
        self.ring.release(fd)
    }

    fn close(&mut self, fd: Fd) {
        self.ring.close(fd);
    }

    fn addresses(&mut self, fd: Fd) -> io::Result<(SocketAddr, SocketAddr)> {
        let descriptor = self.ring.descriptor(fd);
        Ok((socket::peer_address(&descriptor)?, socket::local_address(&descriptor)?))
    }

    fn accept(&mut self, fd: Fd, tag: u64) -> Result<(), Full<()>> {
        self.ring.accept(fd, tag)
    }

    fn cancel(&mut self, tag: u64) {
        self.ring.cancel(tag);
    }

    #[inline]
    fn receive(&mut self, fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>> {
        self.ring.receive(fd, tag, segments)
    }

    fn recall(&mut self, fd: Fd) {
        self.ring.recall(fd);
    }

    #[inline]
    fn send(&mut self, fd: Fd, tag: u64, message: Message) -> Result<(), Full<Message>> {
        self.ring.send(fd, tag, message)
    }

    fn read(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Full<Segments>> {
        self.ring.read(fd, tag, offset_bytes, segments, skip_bytes)
    }

    fn write(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Full<Segments>> {
        self.ring.write(fd, tag, offset_bytes, segments, skip_bytes, durable)
    }

    fn write_untorn(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Full<Segments>> {
        self.ring.write_untorn(fd, tag, offset_bytes, segments, durable)
    }

    fn sync(&mut self, fd: Fd, tag: u64, data_only: bool) -> Result<(), Full<()>> {
        self.ring.sync(fd, tag, data_only)
    }

    fn clear(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), Full<()>> {
        let how = if deallocate { Clearing::Deallocate } else { Clearing::Zero };
        self.ring.clear(fd, tag, how, offset_bytes, length_bytes)
    }

    fn turn(&mut self, wait: Wait, spin: Duration) -> io::Result<()> {
        self.ring.turn(wait, spin)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.ring.next_completion()
    }

    fn counters(&self) -> Counters {
        self.ring.counters()
    }
}
