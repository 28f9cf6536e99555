//! Each floor answers an initiator as a target would: login, size, reads, writes with and without R2T, logout.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::initiator::{
    Command, Direction, Event, Login, LoginPlan, Payload, Placement, Progress, Session,
};
use portico_iscsi::wire::{BHS_BYTES, Bhs, LogoutReason, LunField, ServiceResponse, TaskAttribute};

use super::{Memory, Settings};

const SIZE_BYTES: u64 = 8 << 20;

struct Client {
    stream: TcpStream,
    session: Session,
}

fn settings(is_whole: bool) -> Settings {
    let memory = if is_whole { Memory::whole(SIZE_BYTES) } else { Memory::null() };
    Settings { size_bytes: SIZE_BYTES, window: 128, polls: false, memory: Arc::new(memory) }
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap()
}

fn at(user: u64) -> usize {
    usize::try_from(user).unwrap()
}

fn pdu(stream: &mut TcpStream) -> (Bhs, Vec<u8>) {
    let mut bhs = [0; BHS_BYTES];
    stream.read_exact(&mut bhs).unwrap();
    let lengths = Lengths::of(&bhs, Digests::NONE, 1 << 20).unwrap();
    let mut data = vec![0; size(lengths.pdu_bytes()) - BHS_BYTES];
    stream.read_exact(&mut data).unwrap();
    data.truncate(size(lengths.data_segment_bytes));
    (bhs, data)
}

impl Client {
    fn log_in(portal: SocketAddr) -> Client {
        let mut stream = TcpStream::connect(portal).unwrap();
        let mut login = Login::new(LoginPlan::normal("iqn.2026-11.test:i", "iqn.2026-11.test:t"));
        loop {
            let mut request = Vec::new();
            while login.next_pdu(&mut request) {}
            stream.write_all(&request).unwrap();
            let (bhs, data) = pdu(&mut stream);
            if let Progress::Done(established) = login.receive(&bhs, &data).unwrap() {
                return Client { stream, session: Session::new(&established, 64) };
            }
        }
    }

    /// Sends `count` commands at once; all data that came back, and how many R2Ts came on the way.
    fn run(&mut self, cdb: &[u8], direction: Direction, length: u32, count: u64) -> (Vec<Vec<u8>>, u32) {
        for user in 0..count {
            let command = Command {
                lun: LunField::default(),
                cdb,
                direction,
                expected_length: length,
                attribute: TaskAttribute::Simple,
                immediate: false,
                user,
            };
            self.session.submit(&command).unwrap();
        }
        let mut data = vec![Vec::new(); at(count)];
        let (mut done, mut r2ts) = (0, 0);
        while done < count {
            self.flush();
            let (bhs, bytes) = pdu(&mut self.stream);
            r2ts += u32::from(bhs[0] == 0x31);
            let placement = self.session.receive_header(&bhs).unwrap();
            let staged = if let Placement::ReadBuffer { user, offset, .. } = placement {
                assert_eq!(data[at(user)].len(), size(offset), "data comes in order");
                data[at(user)].extend_from_slice(&bytes);
                &[][..]
            } else {
                &bytes
            };
            if let Event::Completed(completion) = self.session.receive_done(staged).unwrap() {
                assert_eq!(completion.response, ServiceResponse::CommandCompleted);
                assert_eq!(completion.status, 0);
                done += 1;
            }
        }
        (data, r2ts)
    }

    fn flush(&mut self) {
        let mut bhs = [0; BHS_BYTES];
        let mut out = Vec::new();
        while let Some(outgoing) = self.session.next_pdu(&mut bhs) {
            out.extend_from_slice(&bhs);
            out.extend_from_slice(outgoing.ahs());
            match outgoing.payload {
                Payload::Bytes(bytes) => out.extend_from_slice(bytes),
                Payload::WriteBuffer { length, .. } => out.resize(out.len() + size(length), 7),
                Payload::None => {}
            }
            out.resize(out.len().next_multiple_of(4), 0);
        }
        self.stream.write_all(&out).unwrap();
    }
}

/// A whole conversation.
fn converse(portal: SocketAddr) {
    let mut client = Client::log_in(portal);
    client.run(&[0; 6], Direction::None, 0, 1);
    let capacity = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    let (data, _) = client.run(&capacity, Direction::Read, 32, 1);
    assert_eq!(data[0][..8], (SIZE_BYTES / 512 - 1).to_be_bytes());
    assert_eq!(data[0][8..12], [0, 0, 2, 0]);
    let (data, _) = client.run(&[0x28, 0, 0, 0, 0, 8, 0, 0, 8, 0], Direction::Read, 4096, 64);
    assert!(data.iter().all(|data| *data == [0x5a; 4096]));
    // Beyond what one PDU carries, and beyond what a socket takes at once.
    let (data, _) = client.run(&[0x28, 0, 0, 0, 0, 8, 0, 4, 0, 0], Direction::Read, 1024 * 512, 16);
    assert!(data.iter().all(|data| data.len() == 1024 * 512));
    let (_, r2ts) = client.run(&[0x2a, 0, 0, 0, 0, 8, 0, 0, 8, 0], Direction::Write, 4096, 64);
    assert_eq!(r2ts, 0, "immediate data is enough for 4 KiB");
    let (_, r2ts) = client.run(&[0x2a, 0, 0, 0, 0, 8, 0, 1, 0, 0], Direction::Write, 256 * 512, 16);
    assert_eq!(r2ts, 16, "one R2T for what is beyond FirstBurstLength");
    client.session.log_out(LogoutReason::CloseSession).unwrap();
    client.flush();
    let (bhs, _) = pdu(&mut client.stream);
    assert_eq!(bhs[0], 0x26);
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "and the connection is closed");
}

#[test]
fn the_floor_on_a_ring_serves_an_initiator() {
    for is_whole in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let portal = listener.local_addr().unwrap();
        thread::spawn(move || super::ring::serve(listener, &settings(is_whole)));
        converse(portal);
        converse(portal);
    }
}

#[test]
fn the_floor_on_epoll_serves_an_initiator() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let portal = listener.local_addr().unwrap();
    thread::spawn(move || super::epoll::serve(listener, &settings(false)));
    converse(portal);
    converse(portal);
}

#[cfg(feature = "glommio")]
#[test]
fn the_floor_on_glommio_serves_an_initiator() {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let tell = move |portal| sender.send(portal).unwrap();
        super::glommio::serve("127.0.0.1:0".parse().unwrap(), &settings(false), tell)
    });
    let portal = receiver.recv().unwrap();
    converse(portal);
    converse(portal);
}

#[test]
fn a_file_is_read_and_written_as_often_as_its_ring_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("medium");
    std::fs::write(&path, vec![1; 1 << 20]).unwrap();
    let (sender, receiver) = channel();
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    thread::spawn(move || {
        let load = super::medium::Load {
            depth: 4,
            io_bytes: 4096,
            writes: true,
            time: std::time::Duration::from_millis(20),
        };
        sender.send(super::medium::run(file, 1 << 20, load).unwrap()).unwrap();
    });
    let outcome = receiver.recv().unwrap();
    assert!(outcome.count >= 4);
    let written = std::fs::read(&path).unwrap();
    let blocks = written.chunks(4096).filter(|block| *block == [0; 4096]).count();
    assert!(blocks >= 1 && written.len() == 1 << 20, "fresh buffers are zeroes");
}
