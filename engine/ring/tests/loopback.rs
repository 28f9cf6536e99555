//! A real ring over loopback sockets and files in a temporary folder: what goes in comes back, buffers included.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use portico_ring::{
    Arena, ArenaOptions, Class, Completion, Errno, Fd, Lent, Message, MessageLimits, Options, Payload, Ring,
    Segments, Wait, socket,
};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, Shutdown};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// A ring, an arena, and the two ends of a connection, both on that ring.
struct Bench {
    ring: Ring,
    arena: Arena,
    listener: Fd,
    client: Fd,
    server: Fd,
}

const ACCEPT: u64 = 1;
const SEND: u64 = 2;
const RECEIVE: u64 = 3;

impl Bench {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let mut ring = Ring::new(options).unwrap();
        let arena = Arena::new(ArenaOptions { small: 64, medium: 16, large: 8 }).unwrap();
        let listener = socket::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket::local_address(&listener).unwrap();
        let listener = ring.adopt(listener).unwrap();
        ring.accept(listener, ACCEPT).unwrap();
        let client = ring.adopt(socket::connect(address, PATIENCE).unwrap()).unwrap();
        let accepted = next(&mut ring);
        assert_eq!((accepted.tag, accepted.more), (ACCEPT, true));
        let Payload::Accepted(server) = accepted.payload else { panic!("{accepted:?}") };
        let server = ring.adopt(server).unwrap();
        Self { ring, arena, listener, client, server }
    }

    fn list(&self, class: Class, lengths: &[usize]) -> Segments {
        let mut segments = Segments::with_capacity(lengths.len());
        for &length in lengths {
            segments.push_range(self.arena.take(class).unwrap(), 0..length).unwrap();
        }
        segments
    }

    fn used(&self) -> u32 {
        Class::ALL.into_iter().map(|class| self.arena.usage(class).used).sum()
    }
}

/// The next completion, waited for.
fn next(ring: &mut Ring) -> Completion {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.turn(Wait::Until(PATIENCE), Duration::ZERO).unwrap();
    }
    panic!("nothing completes");
}

fn segments(completion: Completion) -> (u32, Segments) {
    match completion.payload {
        Payload::Segments(segments) => (completion.result.unwrap(), segments),
        other => panic!("{other:?}"),
    }
}

fn message_of(text: &[u8]) -> Message {
    let mut message = Message::new(MessageLimits::default());
    message.push_header(text.len()).unwrap().copy_from_slice(text);
    message
}

#[test]
fn what_one_end_sends_the_other_receives_and_echoes() {
    let mut bench = Bench::new();
    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    bench.ring.send(bench.client, SEND, message_of(b"a header of 48 bytes, or so")).unwrap();

    let (mut sent, mut received) = (None, None);
    while sent.is_none() || received.is_none() {
        let completion = next(&mut bench.ring);
        match completion.tag {
            SEND => sent = Some(completion.result.unwrap()),
            RECEIVE => received = Some(segments(completion)),
            tag => panic!("tag {tag}"),
        }
    }
    let (n, list) = received.unwrap();
    assert_eq!(Some(n), sent);
    assert_eq!(&list.as_slice()[0].bytes()[..n as usize], b"a header of 48 bytes, or so");
}

#[test]
fn a_receive_fills_its_segments_in_order_and_no_byte_beyond_them() {
    let mut bench = Bench::new();
    let mut list = Segments::with_capacity(3);
    for range in [100..110, 0..5, 7..4096] {
        let mut buffer = bench.arena.take(Class::Small).unwrap();
        buffer.fill(b'.');
        list.push_range(buffer, range).unwrap();
    }
    bench.ring.send(bench.client, SEND, message_of(b"0123456789abcdefgh")).unwrap();
    assert!(next(&mut bench.ring).result.is_ok());
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    let (n, mut list) = segments(next(&mut bench.ring));
    assert_eq!(n, 18);
    let buffers: Vec<_> = list.drain().map(|segment| (segment.range(), segment.into_buffer())).collect();
    assert_eq!(buffers[0].1[99..111], *b".0123456789.");
    assert_eq!(buffers[1].1[..6], *b"abcde.");
    assert_eq!(buffers[2].1[6..11], *b".fgh.");
}

#[test]
fn a_send_larger_than_the_socket_takes_completes_once_and_whole() {
    let mut bench = Bench::new();
    let mut message = Message::new(MessageLimits { parts: 9, header_bytes: 96 });
    let mut expected = Vec::new();
    for chunk in 0..8u8 {
        let mut buffer = bench.arena.take(Class::Large).unwrap();
        for (position, byte) in buffer.iter_mut().enumerate() {
            *byte = u8::try_from(position % 251).unwrap() ^ chunk;
        }
        expected.extend_from_slice(&buffer);
        message.push_buffer(buffer).unwrap();
    }
    message.push_header(48).unwrap().fill(b'h');
    expected.extend_from_slice(&[b'h'; 48]);
    let total = u32::try_from(expected.len()).unwrap();
    bench.ring.send(bench.client, SEND, message).unwrap();

    let mut got = Vec::new();
    let mut list = Some(bench.list(Class::Medium, &[65536]));
    let mut sends = 0;
    while sends == 0 || got.len() < expected.len() {
        if let Some(list) = list.take() {
            bench.ring.receive(bench.server, RECEIVE, list).unwrap();
        }
        let completion = next(&mut bench.ring);
        if completion.tag == SEND {
            assert_eq!(completion.result, Ok(total));
            sends += 1;
        } else {
            let (n, back) = segments(completion);
            got.extend_from_slice(&back.as_slice()[0].bytes()[..n as usize]);
            list = Some(back);
        }
    }
    assert!(got == expected, "the bytes differ");
    assert_eq!(sends, 1);
}

#[test]
fn lent_memory_is_sent_without_a_copy_and_let_go_of_afterwards() {
    struct Disk(Box<[AtomicU8]>);
    impl AsRef<[AtomicU8]> for Disk {
        fn as_ref(&self) -> &[AtomicU8] {
            &self.0
        }
    }
    let disk = Rc::new(Disk((0..64).map(AtomicU8::new).collect()));
    let mut bench = Bench::new();
    let mut message = message_of(b"head");
    message.push_lent(Lent::new(Rc::clone(&disk), 10..20)).unwrap();
    // The memory is a disk's: what is written before the send is what is sent.
    disk.0[19].store(b'!', Ordering::Relaxed);
    bench.ring.send(bench.client, SEND, message).unwrap();
    let completion = next(&mut bench.ring);
    assert_eq!(completion.result, Ok(14));
    assert_eq!(Rc::strong_count(&disk), 2);
    drop(completion);
    assert_eq!(Rc::strong_count(&disk), 1);
    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    let (n, list) = segments(next(&mut bench.ring));
    assert_eq!(list.as_slice()[0].bytes()[..n as usize], *b"head\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12!");
}

#[test]
fn a_cancelled_receive_gives_its_buffers_back() {
    let mut bench = Bench::new();
    let list = bench.list(Class::Small, &[4096, 4096]);
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    bench.ring.turn(Wait::Poll, Duration::ZERO).unwrap();
    assert_eq!(bench.used(), 2);
    assert_eq!(bench.ring.cancel(RECEIVE), 1);
    let completion = next(&mut bench.ring);
    assert_eq!((completion.tag, completion.result), (RECEIVE, Err(Errno::CANCELED)));
    drop(completion);
    assert_eq!(bench.used(), 0);
    assert_eq!(bench.ring.cancel(RECEIVE), 0);
}

#[test]
fn closing_ends_what_is_in_flight_and_only_then_the_socket() {
    let mut bench = Bench::new();
    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    bench.ring.turn(Wait::Poll, Duration::ZERO).unwrap();
    assert_eq!(bench.ring.release(bench.server).unwrap_err(), bench.server);
    bench.ring.close(bench.server);
    assert_eq!(bench.ring.files(), 3);
    let completion = next(&mut bench.ring);
    assert_eq!((completion.tag, completion.result), (RECEIVE, Err(Errno::CANCELED)));
    assert_eq!(bench.ring.files(), 2);

    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.client, RECEIVE, list).unwrap();
    assert_eq!(segments(next(&mut bench.ring)).0, 0, "the peer sees the end of the stream");
}

#[test]
fn a_released_socket_goes_on_elsewhere() {
    let mut bench = Bench::new();
    let server = bench.ring.release(bench.server).unwrap();
    let server = bench.ring.adopt(server).unwrap();
    assert_ne!(server, bench.server, "the old name is found out");
    bench.ring.send(server, SEND, message_of(b"x")).unwrap();
    assert_eq!(next(&mut bench.ring).result, Ok(1));
}

#[test]
fn a_send_to_a_peer_that_is_gone_fails_without_a_signal() {
    let mut bench = Bench::new();
    bench.ring.shutdown(bench.client, Shutdown::Write).unwrap();
    bench.ring.send(bench.client, SEND, message_of(b"x")).unwrap();
    let completion = next(&mut bench.ring);
    assert_eq!(completion.result, Err(Errno(libc::EPIPE)));
    assert!(matches!(completion.payload, Payload::Message(_)));
}

/// Fills all that the two sockets hold, so that a send stays in flight.
fn stuck_send(bench: &mut Bench) -> usize {
    let mut message = Message::new(MessageLimits::default());
    while let Some(buffer) = bench.arena.take(Class::Large) {
        message.push_buffer(buffer).unwrap();
    }
    let length = message.length_bytes();
    socket::configure(
        &bench.ring.descriptor(bench.client),
        socket::ConnectionOptions { send_buffer_bytes: Some(16 << 10), ..Default::default() },
    )
    .unwrap();
    bench.ring.send(bench.client, SEND, message).unwrap();
    bench.ring.turn(Wait::Until(Duration::from_millis(20)), Duration::ZERO).unwrap();
    assert!(bench.ring.next_completion().is_none(), "the peer reads nothing, so it cannot be done");
    length
}

#[test]
fn a_cancelled_send_is_never_taken_for_a_whole_one() {
    let mut bench = Bench::new();
    let length = stuck_send(&mut bench);
    bench.ring.cancel(SEND);
    let completion = next(&mut bench.ring);
    assert_eq!(completion.result, Err(Errno::CANCELED));
    let Payload::Message(message) = completion.payload else { panic!("the message comes back") };
    assert!(message.sent_bytes() < length);
    drop(message);
    assert_eq!(bench.used(), 0);
}

#[test]
fn a_send_that_the_peer_breaks_off_fails_and_gives_its_message_back() {
    let mut bench = Bench::new();
    stuck_send(&mut bench);
    // Closing with unread bytes resets the connection.
    bench.ring.close(bench.server);
    let completion = next(&mut bench.ring);
    let Err(errno) = completion.result else { panic!("{completion:?}") };
    assert!([libc::ECONNRESET, libc::EPIPE].contains(&errno.0), "{errno:?}");
    let Payload::Message(mut message) = completion.payload else { panic!("the message comes back") };
    assert_eq!(message.drain_segments().count(), 8);
    assert!(message.is_empty());
    assert_eq!(bench.used(), 0);
}

#[test]
fn waking_a_ring_that_is_gone_harms_nobody() {
    let gone = std::thread::spawn(|| Ring::new(Options::default()).unwrap().waker()).join().unwrap();
    gone.wake();
    let mut ring = Ring::new(Options::default()).unwrap();
    let peer = ring.introduce(gone).unwrap();
    for _ in 0..3 {
        ring.wake(peer);
        ring.turn(Wait::Until(Duration::from_millis(2)), Duration::ZERO).unwrap();
        assert!(ring.next_completion().is_none());
    }
}

#[test]
fn a_cancelled_accept_says_that_it_is_over() {
    let mut bench = Bench::new();
    bench.ring.turn(Wait::Poll, Duration::ZERO).unwrap();
    bench.ring.cancel(ACCEPT);
    let completion = next(&mut bench.ring);
    assert_eq!((completion.tag, completion.more), (ACCEPT, false));
    assert_eq!(completion.result, Err(Errno::CANCELED));
    bench.ring.close(bench.listener);
    assert_eq!(bench.ring.in_flight(), 0);
}

#[test]
fn another_thread_ends_the_sleep_again_and_again() {
    let mut ring = Ring::new(Options::default()).unwrap();
    for _ in 0..3 {
        let waker = ring.waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
        assert!(matches!(next(&mut ring).payload, Payload::Woken));
        thread.join().unwrap();
    }
}

#[test]
fn a_wake_before_the_sleep_is_not_lost() {
    let mut ring = Ring::new(Options::default()).unwrap();
    ring.waker().wake();
    assert!(matches!(next(&mut ring).payload, Payload::Woken));
    let began = Instant::now();
    ring.turn(Wait::Until(Duration::from_millis(20)), Duration::ZERO).unwrap();
    assert!(ring.next_completion().is_none(), "one wake is seen once");
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[test]
fn one_ring_wakes_another_with_its_next_submission() {
    let (send, receive) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let mut ring = Ring::new(Options::default()).unwrap();
        send.send(ring.waker()).unwrap();
        matches!(next(&mut ring).payload, Payload::Woken)
    });
    let mut ring = Ring::new(Options::default()).unwrap();
    let peer = ring.introduce(receive.recv().unwrap()).unwrap();
    let before = ring.counters().submissions;
    ring.wake(peer);
    ring.wake(peer);
    assert_eq!(ring.counters().submissions, before + 1, "wakes that are not yet submitted merge");
    ring.turn(Wait::Poll, Duration::ZERO).unwrap();
    assert!(sleeper.join().unwrap());
    ring.turn(Wait::Until(Duration::from_millis(5)), Duration::ZERO).unwrap();
    assert!(ring.next_completion().is_none(), "who wakes hears nothing of it");
}

#[test]
fn a_file_is_written_made_durable_and_read_back() {
    let folder = Folder::new("file");
    let mut bench = Bench::new();
    let path = folder.0.join("medium");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    let file = bench.ring.adopt(file.into()).unwrap();
    let mut list = bench.list(Class::Small, &[4096, 512]);
    for (slice, byte) in list.slices_mut().zip([b'a', b'b']) {
        slice.fill(byte);
    }
    bench.ring.write(file, 10, 8192, list, 0, true).unwrap();
    let (n, list) = segments(next(&mut bench.ring));
    assert_eq!(n, 4608);
    bench.ring.sync(file, 11, true).unwrap();
    assert_eq!(next(&mut bench.ring).result, Ok(0));
    drop(list);

    // The first 4,000 bytes are skipped, as after a short read.
    let mut list = bench.list(Class::Small, &[4096, 512]);
    list.slices_mut().for_each(|slice| slice.fill(b'.'));
    bench.ring.read(file, 12, 8192, list, 4000).unwrap();
    let (n, list) = segments(next(&mut bench.ring));
    assert_eq!(n, 608);
    let read: Vec<_> = list.slices().map(<[u8]>::to_vec).collect();
    assert!(read[0][..4000].iter().all(|&byte| byte == b'.'));
    assert!(read[0][4000..].iter().all(|&byte| byte == b'a'));
    assert!(read[1].iter().all(|&byte| byte == b'b'));

    bench.ring.allocate(file, 13, 0, 0, 1 << 20).unwrap();
    assert_eq!(next(&mut bench.ring).result, Ok(0));
}

#[test]
fn registered_memory_is_read_and_written_like_other() {
    let folder = Folder::new("registered");
    let mut bench = Bench::new();
    // Small, so that it fits the usual limit of locked memory.
    let arena = Arena::new(ArenaOptions { small: 4, medium: 1, large: 1 }).unwrap();
    bench.ring.register(&arena).unwrap();
    assert!(bench.ring.register(&arena).is_err(), "one arena per ring");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(folder.0.join("m")).unwrap();
    let file = bench.ring.adopt(file.into()).unwrap();
    for class in Class::ALL {
        let (mut out, mut back) = (Segments::with_capacity(1), Segments::with_capacity(1));
        let mut buffer = arena.take(class).unwrap();
        buffer.fill(b'r');
        // The last byte of the chunk too: no chunk straddles two registered pieces.
        out.push(buffer).unwrap();
        bench.ring.write(file, 1, 0, out, 0, false).unwrap();
        let (written, out) = segments(next(&mut bench.ring));
        assert_eq!(written as usize, class.bytes());
        drop(out);
        let mut buffer = arena.take(class).unwrap();
        buffer.fill(0);
        back.push(buffer).unwrap();
        bench.ring.read(file, 2, 0, back, 0).unwrap();
        let (read, back) = segments(next(&mut bench.ring));
        assert_eq!(read as usize, class.bytes());
        assert!(back.as_slice()[0].bytes().iter().all(|&byte| byte == b'r'));
    }
}

#[test]
fn more_operations_than_fit_in_a_submission_are_all_done() {
    let folder = Folder::new("many");
    let mut bench = Bench::with(Options { entries: 4, operations_max: 64, ..Options::default() });
    let file = std::fs::File::create(folder.0.join("medium")).unwrap();
    let file = bench.ring.adopt(file.into()).unwrap();
    let room = 64 - 1;
    for tag in 100..100 + room {
        bench.ring.sync(file, tag, true).unwrap();
    }
    assert!(bench.ring.sync(file, 0, true).is_err(), "one more than the ring was made for");
    let mut done: Vec<u64> = (0..room).map(|_| next(&mut bench.ring).tag).collect();
    done.sort_unstable();
    assert_eq!(done, (100..100 + room).collect::<Vec<_>>());
    assert!(bench.ring.sync(file, 0, true).is_ok());
}

#[test]
fn registered_descriptors_work_like_others() {
    let mut bench = Bench::with(Options { fixed_files: true, ..Options::default() });
    bench.ring.send(bench.server, SEND, message_of(b"fixed")).unwrap();
    assert_eq!(next(&mut bench.ring).result, Ok(5));
    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.client, RECEIVE, list).unwrap();
    assert_eq!(segments(next(&mut bench.ring)).0, 5);
    bench.ring.close(bench.server);
    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.client, RECEIVE, list).unwrap();
    assert_eq!(segments(next(&mut bench.ring)).0, 0);
}

#[test]
fn a_dropped_ring_waits_for_the_kernel_and_returns_every_buffer() {
    let mut bench = Bench::new();
    let list = bench.list(Class::Small, &[4096, 4096]);
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    bench.ring.turn(Wait::Poll, Duration::ZERO).unwrap();
    let list = bench.list(Class::Medium, &[65536]);
    bench.ring.receive(bench.client, RECEIVE, list).unwrap();
    assert_eq!(bench.used(), 3);
    let Bench { ring, arena, .. } = bench;
    drop(ring);
    for class in Class::ALL {
        assert_eq!(arena.usage(class).used, 0);
    }
}

#[test]
fn spinning_sees_work_without_sleeping() {
    let mut bench = Bench::new();
    bench.ring.turn(Wait::Poll, Duration::ZERO).unwrap();
    let list = bench.list(Class::Small, &[4096]);
    bench.ring.receive(bench.server, RECEIVE, list).unwrap();
    bench.ring.send(bench.client, SEND, message_of(b"x")).unwrap();
    let began = Instant::now();
    bench.ring.turn(Wait::Forever, Duration::from_secs(5)).unwrap();
    assert!(bench.ring.next_completion().is_some());
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// A folder of this test's own, removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portico-ring-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
