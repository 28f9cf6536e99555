//! A shard's ring in a simulated world: the same buffers, lists and messages, and no kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use portico_backstores::Source;
use portico_iscsi::moment::Moment;
use portico_ring::{Arena, Completion, Counters, Errno, Fd, Full, Message, Payload, Segments, Wait};
use portico_shard::driver::Driver;

use crate::hub::{Event, File, Hub, Shared, Side, Thing, Work};
use crate::media::Transfer;
use crate::network::inode_of;
use crate::random::Random;

/// Where every gateway listens.
pub(crate) fn portal() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 3260))
}

/// The world of one shard.
#[derive(Debug)]
pub(crate) struct SimDriver {
    shard: usize,
    random: Random,
    arena: Arena,
    hub: Shared,
}

impl SimDriver {
    pub(crate) const fn new(shard: usize, arena: Arena, hub: Shared) -> Self {
        Self { shard, random: Random::new(shard as u64), arena, hub }
    }
}

fn place(fd: Fd) -> usize {
    usize::try_from(fd.to_bits()).expect("made from an index")
}

impl Hub {
    fn open_file(&mut self, shard: usize, thing: Thing, descriptor: Option<OwnedFd>) -> Fd {
        let files = &mut self.desks[shard].files;
        files.push(Some(File { thing, descriptor }));
        Fd::from_bits(files.len() as u64 - 1)
    }

    fn thing(&self, shard: usize, fd: Fd) -> Thing {
        self.desks[shard].files[place(fd)].as_ref().expect("an Fd is not used after close or release").thing
    }

    fn operations_on(&self, shard: usize, fd: Fd) -> Vec<u64> {
        let operations = self.desks[shard].operations.iter();
        operations.filter(|(_, operation)| operation.file == place(fd)).map(|(id, _)| *id).collect()
    }

    fn cancel(&mut self, shard: usize, id: u64) {
        let operation = self.desks[shard].operations.remove(&id).expect("it was just found");
        let payload = match operation.work {
            Work::Accept | Work::Sync(_) | Work::Clear(_) => Payload::None,
            Work::Receive(segments) => Payload::Segments(segments),
            Work::Send(message) => Payload::Message(message),
            Work::Transfer(transfer) => Payload::Segments(transfer.segments),
        };
        let result = Err(Errno::CANCELED);
        self.complete(shard, Completion { tag: operation.tag, result, payload, more: false });
    }
}

impl Driver for SimDriver {
    fn now(&mut self) -> Moment {
        self.hub.borrow().now
    }

    /// Nobody guesses here, and the world's own chance is not touched.
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random.next().to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn adopt(&mut self, file: OwnedFd) -> Result<Fd, Full<OwnedFd>> {
        let (file, inode) = inode_of(file);
        let hub = &mut *self.hub.borrow_mut();
        let thing = *hub.things.get(&inode).expect("only what the world made can be adopted");
        let fd = hub.open_file(self.shard, thing, Some(file));
        if let Thing::Connection(number) = thing {
            hub.set_home(number, Some((self.shard, place(fd))));
        }
        Ok(fd)
    }

    fn adopt_medium(&mut self, source: Source) -> io::Result<Fd> {
        match source {
            Source::Simulated(disk) => {
                let disk = usize::try_from(disk).expect("made from an index");
                Ok(self.hub.borrow_mut().open_file(self.shard, Thing::Disk(disk), None))
            }
            Source::Descriptor(_) => Err(io::Error::other("a real file in a simulated world")),
        }
    }

    fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd> {
        let hub = &mut *self.hub.borrow_mut();
        if !hub.operations_on(self.shard, fd).is_empty() {
            return Err(fd);
        }
        if let Thing::Connection(number) = hub.thing(self.shard, fd) {
            hub.set_home(number, None);
        }
        let file = hub.desks[self.shard].files[place(fd)].take().expect("it was just looked at");
        file.descriptor.ok_or(fd)
    }

    fn close(&mut self, fd: Fd) {
        let hub = &mut *self.hub.borrow_mut();
        let thing = hub.thing(self.shard, fd);
        let operations = hub.operations_on(self.shard, fd);
        match thing {
            Thing::Disk(_) => assert!(operations.is_empty(), "a medium is closed that is in use"),
            Thing::Connection(number) => hub.hang_up(number, Side::Target),
            Thing::Listener => {}
        }
        for id in operations {
            hub.cancel(self.shard, id);
        }
        hub.desks[self.shard].files[place(fd)] = None;
    }

    fn addresses(&mut self, fd: Fd) -> io::Result<(SocketAddr, SocketAddr)> {
        match self.hub.borrow().thing(self.shard, fd) {
            Thing::Connection(number) => {
                let port = u16::try_from(number % 50_000).expect("below 65536") + 10_000;
                Ok((SocketAddr::from(([10, 0, 1, 1], port)), portal()))
            }
            other => Err(io::Error::other(format!("{other:?} has no addresses"))),
        }
    }

    fn accept(&mut self, fd: Fd, tag: u64) -> Result<(), Full<()>> {
        self.hub.borrow_mut().start(self.shard, place(fd), tag, Work::Accept);
        Ok(())
    }

    fn receive(&mut self, fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>> {
        let hub = &mut *self.hub.borrow_mut();
        let Thing::Connection(number) = hub.thing(self.shard, fd) else { panic!("only connections receive") };
        if !hub.has_room(self.shard) {
            return Err(Full(segments));
        }
        hub.start(self.shard, place(fd), tag, Work::Receive(segments));
        hub.feed_receive(number);
        Ok(())
    }

    fn cancel(&mut self, tag: u64) {
        let hub = &mut *self.hub.borrow_mut();
        let operations = hub.desks[self.shard].operations.iter();
        let named: Vec<u64> =
            operations.filter(|(_, operation)| operation.tag == tag).map(|(id, _)| *id).collect();
        for id in named {
            hub.cancel(self.shard, id);
        }
    }

    fn recall(&mut self, fd: Fd) {
        let hub = &mut *self.hub.borrow_mut();
        for id in hub.operations_on(self.shard, fd) {
            if matches!(hub.desks[self.shard].operations[&id].work, Work::Receive(_)) {
                hub.cancel(self.shard, id);
            }
        }
    }

    fn send(&mut self, fd: Fd, tag: u64, message: Message) -> Result<(), Full<Message>> {
        let hub = &mut *self.hub.borrow_mut();
        if !hub.has_room(self.shard) {
            return Err(Full(message));
        }
        let operation = hub.start(self.shard, place(fd), tag, Work::Send(message));
        let after = hub.delay(hub.pace.network);
        hub.plan(after, Event::Transmit { shard: self.shard, operation });
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
        let hub = &mut *self.hub.borrow_mut();
        let Thing::Disk(disk) = hub.thing(self.shard, fd) else { panic!("only media are read") };
        if !hub.has_room(self.shard) {
            return Err(Full(segments));
        }
        let transfer = Transfer::new((disk, offset_bytes), segments, skip_bytes, false, false);
        hub.begin_transfer(self.shard, place(fd), tag, transfer);
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
        let hub = &mut *self.hub.borrow_mut();
        let Thing::Disk(disk) = hub.thing(self.shard, fd) else { panic!("only media are written") };
        if !hub.has_room(self.shard) {
            return Err(Full(segments));
        }
        let transfer = Transfer::new((disk, offset_bytes), segments, skip_bytes, true, durable);
        hub.begin_transfer(self.shard, place(fd), tag, transfer);
        Ok(())
    }

    fn write_untorn(
        &mut self,
        _: Fd,
        _: u64,
        _: u64,
        segments: Segments,
        _: bool,
    ) -> Result<(), Full<Segments>> {
        let _ = segments;
        unreachable!("no medium here says that it tears nothing")
    }

    fn sync(&mut self, fd: Fd, tag: u64, _data_only: bool) -> Result<(), Full<()>> {
        let hub = &mut *self.hub.borrow_mut();
        let Thing::Disk(disk) = hub.thing(self.shard, fd) else { panic!("only media are synced") };
        if !hub.has_room(self.shard) {
            return Err(Full(()));
        }
        hub.begin_sync(self.shard, place(fd), tag, disk);
        Ok(())
    }

    fn clear(
        &mut self,
        fd: Fd,
        tag: u64,
        offset_bytes: u64,
        length_bytes: u64,
        _deallocate: bool,
    ) -> Result<(), Full<()>> {
        let hub = &mut *self.hub.borrow_mut();
        let Thing::Disk(disk) = hub.thing(self.shard, fd) else { panic!("only media are cleared") };
        if !hub.has_room(self.shard) {
            return Err(Full(()));
        }
        hub.begin_clear(self.shard, place(fd), tag, disk, offset_bytes, length_bytes);
        Ok(())
    }

    fn turn(&mut self, wait: Wait, _spin: Duration) -> io::Result<()> {
        self.hub.borrow_mut().desks[self.shard].wait = Some(wait);
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.hub.borrow_mut().desks[self.shard].done.pop_front()
    }

    fn counters(&self) -> Counters {
        let completions = self.hub.borrow().desks[self.shard].completions;
        Counters { completions, ..Counters::default() }
    }
}
