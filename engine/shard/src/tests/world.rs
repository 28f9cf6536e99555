//! A world for one shard: sockets that are queues of bytes, media that do nothing until they are told, mail by hand.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use portico_backstores::Source;
use portico_iscsi::moment::Moment;
use portico_model::identity::ShardId;
use portico_model::message::ToControl;
use portico_model::peer::PeerLetter;
use portico_ring::{Arena, Completion, Counters, Errno, Fd, Full, Message, Payload, Segments, Wait};

use crate::driver::Driver;
use crate::turn::{Mail, Mailbox};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

pub(super) type Shared = Rc<RefCell<World>>;

/// What the test and the shard share.
#[derive(Default)]
pub(super) struct World {
    pub(super) now: Moment,
    /// By descriptor.
    files: Vec<Thing>,
    /// In the order in which they were adopted.
    pub(super) sockets: Vec<Socket>,
    done: VecDeque<Completion>,
    /// Operations at media, in the order in which they were handed over.
    pub(super) at_medium: VecDeque<Operation>,
    /// What was written, in the order in which it landed: offset and bytes.
    pub(super) written: Vec<(u64, Vec<u8>)>,
    pub(super) letters: VecDeque<Mail>,
    pub(super) sent: Vec<ToControl>,
    /// What it says to other shards.
    pub(super) told: Vec<(ShardId, PeerLetter)>,
    /// What the disks hold, where it is more than the numbers of their blocks.
    pub(super) disk: Option<Rc<RefCell<Vec<u8>>>>,
}

#[derive(Clone, Copy)]
enum Thing {
    Socket(usize),
    Disk(u64),
}

/// A connection: what flies to the shard, what it has sent.
#[derive(Default)]
pub(super) struct Socket {
    pub(super) to_shard: VecDeque<u8>,
    pub(super) from_shard: VecDeque<u8>,
    receive: Option<(u64, Segments)>,
    /// Its sends wait, as they do where the peer reads nothing.
    pub(super) is_deaf: bool,
    unsent: Option<(u64, Message)>,
    pub(super) is_closed: bool,
}

/// An operation at a medium.
pub(super) struct Operation {
    tag: u64,
    pub(super) disk: u64,
    pub(super) what: What,
    segments: Option<Segments>,
    skip_bytes: usize,
}

impl Operation {
    /// What it writes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.segments.iter().flat_map(Segments::slices).flatten().copied().collect()
    }
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Read { offset_bytes: u64, length_bytes: usize },
    Write { offset_bytes: u64, length_bytes: usize, durable: bool },
    WriteUntorn { offset_bytes: u64, length_bytes: usize, durable: bool },
    Clear { offset_bytes: u64, length_bytes: u64, deallocate: bool },
    Sync,
}

impl World {
    /// Gives what has come to the receive that waits for it.
    pub(super) fn feed(&mut self, socket: usize) {
        let place = &mut self.sockets[socket];
        if place.to_shard.is_empty() {
            return;
        }
        let Some((tag, mut segments)) = place.receive.take() else { return };
        let mut length = 0;
        for slice in segments.slices_mut() {
            for byte in slice {
                let Some(next) = place.to_shard.pop_front() else { break };
                *byte = next;
                length += 1;
            }
        }
        let payload = Payload::Segments(segments);
        self.done.push_back(Completion { tag, result: Ok(length), payload, more: false });
    }

    /// The connection is lost.
    pub(super) fn cut(&mut self, socket: usize) {
        if let Some((tag, segments)) = self.sockets[socket].receive.take() {
            let payload = Payload::Segments(segments);
            self.done.push_back(Completion { tag, result: Ok(0), payload, more: false });
        }
    }

    /// The peer reads again.
    pub(super) fn hear(&mut self, socket: usize) {
        self.sockets[socket].is_deaf = false;
        if let Some((tag, message)) = self.sockets[socket].unsent.take() {
            self.transmit(socket, tag, message);
        }
    }

    fn transmit(&mut self, socket: usize, tag: u64, message: Message) {
        let mut bytes = Vec::new();
        message.copy_to(&mut bytes);
        let length = u32::try_from(bytes.len()).expect("a message is small");
        self.sockets[socket].from_shard.extend(bytes);
        let payload = Payload::Message(message);
        self.done.push_back(Completion { tag, result: Ok(length), payload, more: false });
    }

    /// The first operation at a medium is done. What is read is the low byte of each block's number.
    pub(super) fn land(&mut self) -> Option<What> {
        let operation = self.at_medium.pop_front()?;
        let Operation { tag, what, segments, skip_bytes, .. } = operation;
        let length = match what {
            What::Sync | What::Clear { .. } => 0,
            What::Write { length_bytes, .. }
            | What::WriteUntorn { length_bytes, .. }
            | What::Read { length_bytes, .. } => length_bytes,
        };
        let mut segments = segments;
        if let (Some(disk), Some(segments)) = (&self.disk, &mut segments) {
            assert_eq!(skip_bytes, 0, "such a disk moves all at once");
            move_bytes(&mut disk.borrow_mut(), what, segments);
        } else if let (What::Read { offset_bytes, .. }, Some(segments)) = (what, &mut segments) {
            let bytes = segments.slices_mut().flatten().skip(skip_bytes);
            for (byte, at) in bytes.zip(offset_bytes + skip_bytes as u64..) {
                *byte = block_byte(at);
            }
        }
        if let (What::Write { offset_bytes, .. }, Some(segments)) = (what, &mut segments) {
            let bytes = segments.slices_mut().flatten().skip(skip_bytes).map(|byte| *byte).collect();
            self.written.push((offset_bytes, bytes));
        }
        let payload = segments.map_or(Payload::None, Payload::Segments);
        let result = Ok(u32::try_from(length).expect("a piece is small"));
        self.done.push_back(Completion { tag, result, payload, more: false });
        Some(what)
    }

    /// The power fails while something is at the medium: of each write its first `kept_bytes` are there, of an untorn one
    /// nothing, for not all of it is.
    pub(super) fn cut_power(&mut self, medium: &mut [u8], kept_bytes: usize) {
        for operation in self.at_medium.drain(..) {
            if let What::Write { offset_bytes, .. } = operation.what {
                let at = usize::try_from(offset_bytes).expect("a small disk");
                let bytes = operation.bytes();
                let kept_bytes = kept_bytes.min(bytes.len());
                medium[at..at + kept_bytes].copy_from_slice(&bytes[..kept_bytes]);
            }
        }
    }

    /// The first operation at a medium, which is a sync, fails.
    pub(super) fn fail(&mut self) {
        let operation = self.at_medium.pop_front().expect("something is at a medium");
        assert_eq!(operation.what, What::Sync);
        let completion =
            Completion { tag: operation.tag, result: Err(Errno(EIO)), payload: Payload::None, more: false };
        self.done.push_back(completion);
    }

    /// The first operation at a medium, which is a write, finds no space.
    pub(super) fn run_out_of_space(&mut self) {
        let operation = self.at_medium.pop_front().expect("something is at a medium");
        assert!(matches!(operation.what, What::Write { .. }));
        let payload = operation.segments.map_or(Payload::None, Payload::Segments);
        self.done.push_back(Completion {
            tag: operation.tag,
            result: Err(Errno(ENOSPC)),
            payload,
            more: false,
        });
    }

    /// The first operation at a medium, which is a clearing, is none that the medium can do.
    pub(super) fn refuse_to_clear(&mut self) {
        let operation = self.at_medium.pop_front().expect("something is at a medium");
        assert!(matches!(operation.what, What::Clear { .. }));
        let result = Err(Errno(EOPNOTSUPP));
        self.done.push_back(Completion { tag: operation.tag, result, payload: Payload::None, more: false });
    }

    /// Something ends on the ring.
    pub(super) fn complete(&mut self, completion: Completion) {
        self.done.push_back(completion);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.done.is_empty() && self.letters.is_empty()
    }
}

/// Reads from the disk, or writes to it.
fn move_bytes(disk: &mut [u8], what: What, segments: &mut Segments) {
    let (What::Read { offset_bytes, .. }
    | What::Write { offset_bytes, .. }
    | What::WriteUntorn { offset_bytes, .. }) = what
    else {
        return;
    };
    let mut at = usize::try_from(offset_bytes).expect("a small disk");
    for slice in segments.slices_mut() {
        let place = &mut disk[at..at + slice.len()];
        match what {
            What::Read { .. } => slice.copy_from_slice(place),
            _ => place.copy_from_slice(slice),
        }
        at += slice.len();
    }
}

/// What the disks hold at this byte.
pub(super) fn block_byte(at: u64) -> u8 {
    (at / 512).to_le_bytes()[0]
}

/// The world as the shard sees it.
pub(super) struct TestDriver {
    pub(super) arena: Arena,
    pub(super) world: Shared,
}

impl TestDriver {
    fn open(&self, thing: Thing) -> Fd {
        let world = &mut *self.world.borrow_mut();
        world.files.push(thing);
        Fd::from_bits(world.files.len() as u64 - 1)
    }

    fn thing(&self, fd: Fd) -> Thing {
        self.world.borrow().files[usize::try_from(fd.to_bits()).expect("made from an index")]
    }

    fn socket(&self, fd: Fd) -> usize {
        match self.thing(fd) {
            Thing::Socket(socket) => socket,
            Thing::Disk(_) => panic!("a disk is no socket"),
        }
    }

    fn begin(&self, fd: Fd, tag: u64, what: What, segments: Option<Segments>, skip_bytes: usize) {
        let Thing::Disk(disk) = self.thing(fd) else { panic!("a socket is no disk") };
        self.world.borrow_mut().at_medium.push_back(Operation { tag, disk, what, segments, skip_bytes });
    }
}

impl Driver for TestDriver {
    fn now(&mut self) -> Moment {
        self.world.borrow().now
    }

    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(7);
        Ok(())
    }

    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn adopt(&mut self, _file: OwnedFd) -> Result<Fd, Full<OwnedFd>> {
        self.world.borrow_mut().sockets.push(Socket::default());
        let socket = self.world.borrow().sockets.len() - 1;
        Ok(self.open(Thing::Socket(socket)))
    }

    fn adopt_medium(&mut self, source: Source) -> io::Result<Fd> {
        match source {
            Source::Simulated(disk) => Ok(self.open(Thing::Disk(disk))),
            Source::Descriptor(_) => Err(io::Error::other("a real file in a simulated world")),
        }
    }

    fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd> {
        File::open("/dev/null").map(OwnedFd::from).map_err(|_| fd)
    }

    fn close(&mut self, fd: Fd) {
        if let Thing::Socket(socket) = self.thing(fd) {
            let world = &mut *self.world.borrow_mut();
            let place = &mut world.sockets[socket];
            (place.is_closed, place.receive, place.unsent) = (true, None, None);
        }
    }

    fn addresses(&mut self, _fd: Fd) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((SocketAddr::from(([10, 0, 1, 1], 1)), SocketAddr::from(([10, 0, 0, 1], 3260))))
    }

    fn accept(&mut self, _fd: Fd, _tag: u64) -> Result<(), Full<()>> {
        Ok(())
    }

    fn receive(&mut self, fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>> {
        let socket = self.socket(fd);
        let world = &mut *self.world.borrow_mut();
        world.sockets[socket].receive = Some((tag, segments));
        world.feed(socket);
        Ok(())
    }

    fn cancel(&mut self, _tag: u64) {}

    fn recall(&mut self, fd: Fd) {
        let socket = self.socket(fd);
        let world = &mut *self.world.borrow_mut();
        if let Some((tag, segments)) = world.sockets[socket].receive.take() {
            let payload = Payload::Segments(segments);
            world.done.push_back(Completion { tag, result: Err(Errno::CANCELED), payload, more: false });
        }
    }

    fn send(&mut self, fd: Fd, tag: u64, message: Message) -> Result<(), Full<Message>> {
        let socket = self.socket(fd);
        let world = &mut *self.world.borrow_mut();
        if world.sockets[socket].is_deaf {
            world.sockets[socket].unsent = Some((tag, message));
        } else {
            world.transmit(socket, tag, message);
        }
        Ok(())
    }

    fn read(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Full<Segments>> {
        let what = What::Read { offset_bytes, length_bytes: segments.length_bytes() - skip_bytes };
        self.begin(fd, tag, what, Some(segments), skip_bytes);
        Ok(())
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
        let what = What::Write { offset_bytes, length_bytes: segments.length_bytes() - skip_bytes, durable };
        self.begin(fd, tag, what, Some(segments), skip_bytes);
        Ok(())
    }

    fn write_untorn(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Full<Segments>> {
        assert_eq!(segments.slices().count(), 1, "the kernel takes one piece of memory");
        let what = What::WriteUntorn { offset_bytes, length_bytes: segments.length_bytes(), durable };
        self.begin(fd, tag, what, Some(segments), 0);
        Ok(())
    }

    fn sync(&mut self, fd: Fd, tag: u64, _data_only: bool) -> Result<(), Full<()>> {
        self.begin(fd, tag, What::Sync, None, 0);
        Ok(())
    }

    fn clear(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), Full<()>> {
        self.begin(fd, tag, What::Clear { offset_bytes, length_bytes, deallocate }, None, 0);
        Ok(())
    }

    fn turn(&mut self, _wait: Wait, _spin: Duration) -> io::Result<()> {
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.world.borrow_mut().done.pop_front()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// The shard's ends of its mail.
pub(super) struct TestMailbox(pub(super) Shared);

impl Mailbox for TestMailbox {
    fn receive(&mut self) -> Option<Mail> {
        self.0.borrow_mut().letters.pop_front()
    }

    fn send(&mut self, letter: ToControl) -> Result<(), Box<ToControl>> {
        self.0.borrow_mut().sent.push(letter);
        Ok(())
    }

    fn tell(&mut self, shard: ShardId, letter: PeerLetter) -> Result<(), PeerLetter> {
        self.0.borrow_mut().told.push((shard, letter));
        Ok(())
    }
}
