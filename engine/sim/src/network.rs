//! Connections: two streams of bytes each, that arrive late and in any pieces, and can break.
//!
//! What stands for a connection between threads is a real descriptor, the one end of a socket pair. The other end is kept
//! here, and tells when somebody dropped it without a word, which a kernel would tell the peer.

use std::collections::VecDeque;
use std::fs::File as SystemFile;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use portico_iscsi::moment::Moment;
use portico_ring::{Completion, Errno, Payload};

use crate::history::Serial;
use crate::hub::{Event, Hub, Side, Thing, Work};
use crate::plant::Plant;

const ECONNRESET: i32 = 104;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    flying: VecDeque<(Moment, Vec<u8>)>,
    arrived: VecDeque<u8>,
    /// Nothing more is sent.
    ended: bool,
    /// The end has arrived.
    end_arrived: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// Our end of what stands for the target's end.
    anchor: UnixStream,
    pub(crate) initiator: usize,
    pub(crate) session: Serial,
    to_target: Stream,
    to_initiator: Stream,
    /// Where the target has it: the shard and the file there.
    home: Option<(usize, usize)>,
    /// One side has closed it.
    over: bool,
}

/// The inode behind a descriptor: the same for all of its duplicates.
pub(crate) fn inode_of(descriptor: OwnedFd) -> (OwnedFd, u64) {
    let file = SystemFile::from(descriptor);
    let inode = file.metadata().expect("a descriptor that is open has an inode").ino();
    (file.into(), inode)
}

/// Two descriptors that know of each other.
pub(crate) fn pair() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().expect("the system has two more descriptors");
    ours.set_nonblocking(true).expect("a socket can be asked without waiting");
    (ours, theirs.into())
}

impl Hub {
    /// An initiator connects: some shard that accepts gets the connection. `None`: nobody listens.
    pub(crate) fn connect(&mut self, initiator: usize, session: Serial) -> Option<usize> {
        let mut accepting = Vec::new();
        for (shard, desk) in self.desks.iter().enumerate() {
            for (id, operation) in &desk.operations {
                if matches!(operation.work, Work::Accept) {
                    accepting.push((shard, *id));
                }
            }
        }
        if accepting.is_empty() {
            return None;
        }
        let (shard, operation) = accepting[self.random.index(accepting.len())];
        let (anchor, theirs) = pair();
        let (theirs, inode) = inode_of(theirs);
        let number = self.connections.len();
        self.things.insert(inode, Thing::Connection(number));
        self.connections.push(Connection {
            anchor,
            initiator,
            session,
            to_target: Stream::default(),
            to_initiator: Stream::default(),
            home: None,
            over: false,
        });
        let tag = self.desks[shard].operations[&operation].tag;
        self.complete(
            shard,
            Completion { tag, result: Ok(0), payload: Payload::Accepted(theirs), more: true },
        );
        Some(number)
    }

    /// A shard has taken the connection over, or given it away.
    pub(crate) fn set_home(&mut self, connection: usize, home: Option<(usize, usize)>) {
        self.connections[connection].home = home;
    }

    /// Sends bytes from one side.
    pub(crate) fn post(&mut self, connection: usize, from: Side, bytes: Vec<u8>) {
        let after = self.delay(self.pace.network);
        let now = self.now;
        let stream = self.stream_from(connection, from);
        if stream.ended || bytes.is_empty() {
            return;
        }
        let at = stream.flying.back().map_or(Moment::ORIGIN, |(last, _)| *last).max(now + after);
        stream.flying.push_back((at, bytes));
        let at_side = if from == Side::Target { Side::Initiator } else { Side::Target };
        self.plan_at(at, Event::Arrive { connection, at: at_side });
    }

    fn stream_from(&mut self, connection: usize, from: Side) -> &mut Stream {
        let connection = &mut self.connections[connection];
        match from {
            Side::Target => &mut connection.to_initiator,
            Side::Initiator => &mut connection.to_target,
        }
    }

    /// What has flown long enough arrives.
    pub(crate) fn arrive(&mut self, number: usize, at: Side) {
        let now = self.now;
        let from = if at == Side::Target { Side::Initiator } else { Side::Target };
        let stream = self.stream_from(number, from);
        while stream.flying.front().is_some_and(|(due, _)| *due <= now) {
            let (_, bytes) = stream.flying.pop_front().expect("it was just there");
            stream.arrived.extend(bytes);
        }
        stream.end_arrived = stream.ended && stream.flying.is_empty();
        match at {
            Side::Target => self.feed_receive(number),
            Side::Initiator => {
                let initiator = self.connections[number].initiator;
                self.plan_at(now, Event::Initiator(initiator));
            }
        }
    }

    /// Gives what has arrived to the receive that waits for it, all or some.
    pub(crate) fn feed_receive(&mut self, number: usize) {
        let Some((shard, file)) = self.connections[number].home else { return };
        let stream = &self.connections[number].to_target;
        if stream.arrived.is_empty() && !stream.end_arrived {
            return;
        }
        let receives = |work: &Work| matches!(work, Work::Receive(_));
        let operations = &self.desks[shard].operations;
        let waiting =
            operations.iter().find(|(_, operation)| operation.file == file && receives(&operation.work));
        let Some(id) = waiting.map(|(id, _)| *id) else { return };
        let operation = self.desks[shard].operations.remove(&id).expect("it was just there");
        let Work::Receive(mut segments) = operation.work else { unreachable!("it receives") };
        let stream = &mut self.connections[number].to_target;
        let most = stream.arrived.len().min(segments.length_bytes());
        let cut = if most > 1 && self.random.chance(1, 3) { 1 + self.random.index(most) } else { most };
        let mut left = cut;
        for slice in segments.slices_mut() {
            let length = left.min(slice.len());
            for (place, byte) in slice[..length].iter_mut().zip(stream.arrived.drain(..length)) {
                *place = byte;
            }
            left -= length;
        }
        let result = Ok(u32::try_from(cut).expect("a receive is small"));
        let payload = Payload::Segments(segments);
        self.complete(shard, Completion { tag: operation.tag, result, payload, more: false });
    }

    /// A shard's send goes out, and its buffers come back.
    pub(crate) fn transmit(&mut self, shard: usize, id: u64) {
        let Some(operation) = self.desks[shard].operations.remove(&id) else { return };
        let Work::Send(message) = operation.work else { unreachable!("only sends are transmitted") };
        let file = self.desks[shard].files[operation.file].as_ref().expect("a file in use is open");
        let Thing::Connection(mut number) = file.thing else { unreachable!("only connections send") };
        let mut bytes = Vec::with_capacity(message.length_bytes());
        message.copy_to(&mut bytes);
        let result = if self.connections[number].over {
            Err(Errno(ECONNRESET))
        } else {
            if self.plant == Some(Plant::RepliesSwapped) {
                number = self.another_connection(number);
            }
            self.post(number, Side::Target, bytes);
            Ok(u32::try_from(message.length_bytes()).expect("a message is small"))
        };
        let payload = Payload::Message(message);
        self.complete(shard, Completion { tag: operation.tag, result, payload, more: false });
    }

    /// Mostly the same one.
    fn another_connection(&mut self, number: usize) -> usize {
        if !self.random.chance(1, 200) {
            return number;
        }
        let living: Vec<usize> = (0..self.connections.len())
            .filter(|other| !self.connections[*other].over && self.connections[*other].home.is_some())
            .collect();
        if living.is_empty() { number } else { living[self.random.index(living.len())] }
    }

    /// One side closes: what it has sent still arrives, then the end.
    pub(crate) fn hang_up(&mut self, number: usize, from: Side) {
        let session = self.connections[number].session;
        self.history.ends(session);
        self.connections[number].over = true;
        if from == Side::Target {
            self.connections[number].home = None;
        }
        self.end_stream(number, from);
    }

    /// The network loses a connection: what flies is gone, both ends hear of it.
    pub(crate) fn cut(&mut self, number: usize) {
        let session = self.connections[number].session;
        self.history.ends(session);
        self.connections[number].over = true;
        for side in [Side::Target, Side::Initiator] {
            let stream = self.stream_from(number, side);
            stream.flying.clear();
            stream.arrived.clear();
            self.end_stream(number, side);
        }
    }

    fn end_stream(&mut self, number: usize, from: Side) {
        let after = self.delay(self.pace.network);
        let now = self.now;
        let stream = self.stream_from(number, from);
        stream.ended = true;
        let at = stream.flying.back().map_or(Moment::ORIGIN, |(last, _)| *last).max(now + after);
        let to = if from == Side::Target { Side::Initiator } else { Side::Target };
        self.plan_at(at, Event::Arrive { connection: number, at: to });
    }

    /// What has arrived at the initiator; and whether that was the end.
    pub(crate) fn collect(&mut self, number: usize, into: &mut Vec<u8>) -> bool {
        let stream = &mut self.connections[number].to_initiator;
        into.extend(stream.arrived.drain(..));
        stream.end_arrived
    }

    /// Descriptors that were dropped without a word: the kernel would close their connections.
    pub(crate) fn find_dropped(&mut self) {
        for number in 0..self.connections.len() {
            let connection = &mut self.connections[number];
            if connection.home.is_some() || connection.to_initiator.ended {
                continue;
            }
            let dropped = matches!(connection.anchor.read(&mut [0]), Ok(0));
            if dropped {
                self.hang_up(number, Side::Target);
            }
        }
    }
}
