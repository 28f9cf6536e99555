//! The floor on a bare io_uring: one ring, one thread, a receive armed on each connection, one SENDMSG in flight with all
//! that is ready, one call into the kernel per turn. The ring is set up as the gateway's is.
#![expect(unsafe_code, reason = "submits entries that point to memory which the connections own")]

use std::io::{self, PipeReader};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use super::batch::{ANSWERS_MAX, Batch};
use super::peer::Peer;
use super::{Arrival, Memory, STAGING_BYTES, Settings, receive_arrivals};

/// Serves until the ring fails.
///
/// # Errors
/// What the kernel said.
pub fn serve(listener: TcpListener, settings: &Settings) -> io::Result<()> {
    let (bell, ringer) = io::pipe()?;
    let arrivals = receive_arrivals(listener, settings, ringer);
    let mut server = Server::new(bell, settings)?;
    server.listen_to_bell()?;
    loop {
        server.turn(settings.polls)?;
        while let Some((data, result)) = server.next_completion() {
            match data {
                BELL => {
                    server.listen_to_bell()?;
                    while let Ok(arrival) = arrivals.try_recv() {
                        server.admit(arrival)?;
                    }
                }
                _ => {
                    let index = usize::try_from(data / 2).expect("made from an index");
                    if data % 2 == RECEIVED {
                        server.received(index, result)
                    } else {
                        server.sent(index, result)
                    }
                }
            }
        }
        server.flush()?;
    }
}

/// The user data of the read of the bell; that of the others is twice the index of a connection, or one more.
const BELL: u64 = u64::MAX;
const RECEIVED: u64 = 0;
const SENT: u64 = 1;

struct Server {
    ring: IoUring,
    /// The kernel may hold addresses in here: what is in flight is never dropped, only forgotten.
    connections: ManuallyDrop<Vec<Option<Box<Connection>>>>,
    /// Those with something to do in this turn.
    dirty: Vec<usize>,
    memory: ManuallyDrop<Arc<Memory>>,
    bell: PipeReader,
    rung: ManuallyDrop<Box<[u8; 64]>>,
}

struct Connection {
    socket: TcpStream,
    peer: Peer,
    staging: Box<[u8]>,
    /// Being filled.
    next: Batch,
    /// With the kernel, from `first` on for `count` answers.
    leaving: Batch,
    first: usize,
    count: usize,
    iovecs: Vec<libc::iovec>,
    message: libc::msghdr,
    is_receiving: bool,
    is_sending: bool,
    is_over: bool,
}

impl Server {
    fn new(bell: PipeReader, settings: &Settings) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(4096)
            .build(256)?;
        Ok(Self {
            ring,
            connections: ManuallyDrop::new(Vec::new()),
            dirty: Vec::new(),
            memory: ManuallyDrop::new(Arc::clone(&settings.memory)),
            bell,
            rung: ManuallyDrop::new(Box::new([0; 64])),
        })
    }

    /// Submits what is queued, and waits for a completion or looks for one.
    fn turn(&mut self, polls: bool) -> io::Result<()> {
        if !polls {
            return tolerate(self.ring.submit_and_wait(1));
        }
        tolerate(self.ring.submit())?;
        while self.ring.completion().is_empty() {
            if self.ring.submission().taskrun() {
                tolerate(self.ring.submit())?;
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        let cqe = self.ring.completion().next()?;
        Some((cqe.user_data(), cqe.result()))
    }

    fn listen_to_bell(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.rung.len()).expect("small");
        let entry =
            opcode::Read::new(types::Fd(self.bell.as_raw_fd()), self.rung.as_mut_ptr(), length).build();
        self.push(&entry.user_data(BELL))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entry points to lies in boxes of a `Connection`, in `memory` or in `rung`. The first is
            // freed only when neither a receive nor a send of it is in flight, the others never.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            tolerate(self.ring.submit())?;
        }
    }

    fn admit(&mut self, arrival: Arrival) -> io::Result<()> {
        let connection = Box::new(Connection {
            socket: arrival.stream,
            peer: arrival.peer,
            staging: vec![0; STAGING_BYTES].into_boxed_slice(),
            next: Batch::default(),
            leaving: Batch::default(),
            first: 0,
            count: 0,
            iovecs: Vec::with_capacity(2 * ANSWERS_MAX),
            // SAFETY: a msghdr of zeroes is an empty one: null pointers with no length.
            message: unsafe { std::mem::zeroed() },
            is_receiving: false,
            is_sending: false,
            is_over: false,
        });
        let index = match self.connections.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.connections.push(None);
                self.connections.len() - 1
            }
        };
        self.connections[index] = Some(connection);
        self.receive(index)
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let connection = self.connections[index].as_mut().expect("it is there while it is in use");
        connection.is_receiving = true;
        let length = u32::try_from(connection.staging.len()).expect("small");
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Recv::new(socket, connection.staging.as_mut_ptr(), length).build();
        self.push(&entry.user_data(2 * index as u64 + RECEIVED))
    }

    fn received(&mut self, index: usize, result: i32) {
        let connection = self.connections[index].as_mut().expect("the kernel had it");
        connection.is_receiving = false;
        let length = usize::try_from(result).unwrap_or(0);
        let Connection { peer, staging, next, .. } = &mut **connection;
        if length == 0 {
            connection.is_over = true;
        } else if let Err(error) = peer.receive(&staging[..length], &self.memory, next) {
            eprintln!("a session ends: {error}");
            connection.is_over = true;
        }
        self.dirty.push(index);
    }

    fn sent(&mut self, index: usize, result: i32) {
        let connection = self.connections[index].as_mut().expect("the kernel had it");
        connection.is_sending = false;
        let expected: usize = connection.iovecs.iter().map(|iovec| iovec.iov_len).sum();
        // MSG_WAITALL: less than all is an error that the next call would tell.
        connection.is_over |= usize::try_from(result) != Ok(expected);
        connection.first += connection.count;
        if connection.first == connection.leaving.answers.len() {
            connection.is_over |= connection.leaving.is_last;
            connection.leaving.clear();
            connection.first = 0;
        }
        self.dirty.push(index);
    }

    /// Arms what is to be armed on the connections of this turn.
    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let Some(connection) = &mut self.connections[index] else { continue };
            if connection.is_over {
                if connection.is_receiving || connection.is_sending {
                    // Ends what is in flight.
                    let _ = connection.socket.shutdown(std::net::Shutdown::Both);
                } else {
                    self.connections[index] = None;
                }
                continue;
            }
            let has_some = !connection.next.is_empty() || !connection.leaving.is_empty();
            let is_due = has_some && !connection.is_sending;
            if !connection.is_receiving && !connection.next.is_last {
                self.receive(index)?;
            }
            if is_due {
                self.send(index)?;
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut **self.connections[index].as_mut().expect("it is there while it is in use");
        if connection.leaving.is_empty() {
            std::mem::swap(&mut connection.next, &mut connection.leaving);
        }
        connection.iovecs.clear();
        let answers = &connection.leaving.answers[connection.first..];
        connection.count = answers.len().min(ANSWERS_MAX);
        let mut part = |bytes: &[u8]| {
            let iov_base = bytes.as_ptr().cast_mut().cast();
            connection.iovecs.push(libc::iovec { iov_base, iov_len: bytes.len() });
        };
        for answer in &answers[..connection.count] {
            part(&answer.bytes[..answer.length]);
            let data = answer.data();
            if !data.is_empty() {
                part(&self.memory.bytes()[data]);
            }
        }
        connection.message.msg_iov = connection.iovecs.as_mut_ptr();
        connection.message.msg_iovlen = connection.iovecs.len() as _;
        connection.is_sending = true;
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL).cast_unsigned();
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::SendMsg::new(socket, &raw const connection.message).flags(flags).build();
        self.push(&entry.user_data(2 * index as u64 + SENT))
    }
}

fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
