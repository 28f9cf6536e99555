//! The same floor in epoll: a read of what has come, one writev with all answers to it.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::batch::Batch;
use super::peer::Peer;
use super::{Arrival, STAGING_BYTES, Settings, receive_arrivals};

/// Serves until epoll fails.
///
/// # Errors
/// What the kernel said.
pub fn serve(listener: TcpListener, settings: &Settings) -> io::Result<()> {
    let (mut bell, ringer) = io::pipe()?;
    let arrivals = receive_arrivals(listener, settings, ringer);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut staging = vec![0; STAGING_BYTES];
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        events.clear();
        let timeout = settings.polls.then_some(&now);
        match epoll::wait(&epoll, spare_capacity(&mut events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            if event.data.u64() == BELL {
                quieten(&mut bell)?;
                while let Ok(arrival) = arrivals.try_recv() {
                    admit(&epoll, &mut connections, arrival)?;
                }
                continue;
            }
            let index = usize::try_from(event.data.u64()).expect("made from an index");
            let Some(connection) = &mut connections[index] else { continue };
            match connection.serve(&mut staging, settings) {
                Ok(is_blocked) if is_blocked != connection.waits_for_room => {
                    connection.waits_for_room = is_blocked;
                    // While answers do not fit into the socket, no command is read.
                    let flags = if is_blocked { EventFlags::OUT } else { EventFlags::IN };
                    epoll::modify(&epoll, &connection.socket, event.data, flags)?;
                }
                Ok(_) => {}
                Err(error) => {
                    if error.kind() != ErrorKind::UnexpectedEof {
                        eprintln!("a session ends: {error}");
                    }
                    connections[index] = None;
                }
            }
        }
    }
}

struct Connection {
    socket: TcpStream,
    peer: Peer,
    batch: Batch,
    /// Of the batch.
    sent: usize,
    waits_for_room: bool,
}

impl Connection {
    /// Reads once where nothing is left to send, and sends what there is; whether some of it found no room. The end of the
    /// session is `UnexpectedEof`.
    fn serve(&mut self, staging: &mut [u8], settings: &Settings) -> io::Result<bool> {
        if self.batch.is_empty() {
            match self.socket.read(staging) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    let taken = self.peer.receive(&staging[..length], &settings.memory, &mut self.batch);
                    taken.map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        while self.sent < self.batch.length_bytes() {
            let slices = self.batch.slices(settings.memory.bytes(), self.sent);
            match (&self.socket).write_vectored(&slices) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        let is_over = self.batch.is_last;
        self.batch.clear();
        self.sent = 0;
        if is_over { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(false) }
    }
}

fn quieten(bell: &mut PipeReader) -> io::Result<()> {
    let mut bytes = [0; 64];
    bell.read(&mut bytes).map(drop)
}

fn admit(epoll: impl AsFd, connections: &mut Vec<Option<Connection>>, arrival: Arrival) -> io::Result<()> {
    let Arrival { stream: socket, peer } = arrival;
    socket.set_nonblocking(true)?;
    let index = match connections.iter().position(Option::is_none) {
        Some(index) => index,
        None => {
            connections.push(None);
            connections.len() - 1
        }
    };
    epoll::add(epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
    connections[index] =
        Some(Connection { socket, peer, batch: Batch::default(), sent: 0, waits_for_room: false });
    Ok(())
}

const BELL: u64 = u64::MAX;
const EVENTS_MAX: usize = 256;
