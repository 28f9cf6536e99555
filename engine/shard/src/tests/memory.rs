//! Disks in memory: what is written at once, and what is lent or copied as it is sent.

use portico_backstores::RamStore;
use portico_iscsi::digest;
use portico_model::peer::{Claim, PeerLetter, Stamp, Word};
use portico_ring::Class;

use super::*;

const OTHER: ShardId = ShardId(1);
const DIGESTS: &str = "InitialR2T=Yes|ImmediateData=Yes|MaxRecvDataSegmentLength=8192|DataDigest=CRC32C|";

/// Of 1 MiB, which the test sees from beside.
fn disk_in_memory(bench: &mut Bench) -> Arc<RamStore> {
    let store = RamStore::new(512, 2048, false).expect("1 MiB can be had");
    bench.open_medium(1, Medium::Ram(Arc::clone(&store)));
    store
}

fn bytes_at(store: &RamStore, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    store.memory().copy_out(offset, &mut bytes);
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

fn say(bench: &mut Bench, word: Word) {
    bench.mail(ToShard::Peer(PeerLetter { from: OTHER, unit: UnitId(1), word }));
}

#[test]
fn a_write_that_came_whole_is_in_memory_as_soon_as_it_is_understood() {
    let mut bench = Bench::new();
    let store = disk_in_memory(&mut bench);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let data = pattern(8192);
    bench.command(&mut peer, 0, 1, transfer(0x8a, 3, 8192), 8192, &data);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(bytes_at(&store, 3 * 512, 8192) == data);
    // Fewer bytes than the command's: the whole blocks among them, and no more.
    bench.command(&mut peer, 0, 2, transfer(0x8a, 100, 8192), 4096, &data[..4096]);
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)]);
    assert!(bytes_at(&store, 51_200, 8192) == [&data[..4096], &[0; 4096]].concat());
    // Beyond the end, nothing.
    bench.command(&mut peer, 0, 3, transfer(0x8a, 2047, 1024), 1024, &data[..1024]);
    assert_eq!(bench.heard(&peer), [Heard::Status(3, CHECK_CONDITION)]);
    assert!(bytes_at(&store, 2047 * 512, 512).iter().all(|byte| *byte == 0));
}

#[test]
fn a_write_that_came_whole_waits_for_who_has_its_blocks_for_himself() {
    let mut bench = Bench::one_of(2);
    let store = disk_in_memory(&mut bench);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let data = pattern(4096);
    bench.command(&mut peer, 0, 1, transfer(0x8a, 0, 4096), 4096, &data);
    assert_eq!(bench.heard(&peer), [], "nothing is written before the other shard has answered");
    assert!(bytes_at(&store, 0, 4096).iter().all(|byte| *byte == 0));
    say(&mut bench, Word::Welcome { is_member: true, clock: 1, claims: Vec::new() });
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    let stamp = Stamp { clock: 2, shard: OTHER };
    say(&mut bench, Word::Claim(Claim { stamp, lba: 7, blocks: 1 }));
    bench.command(&mut peer, 0, 2, transfer(0x8a, 0, 4096), 4096, &[9; 4096]);
    assert_eq!(bench.heard(&peer), []);
    assert!(bytes_at(&store, 0, 4096) == data);
    say(&mut bench, Word::Open(stamp));
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)]);
    assert!(bytes_at(&store, 0, 4096) == [9; 4096]);
}

/// The bytes of a command with the next CmdSN, and of its immediate data.
fn pdu(peer: &mut Peer, command: ScsiCommand, data: &[u8]) -> Vec<u8> {
    let data_segment_length = u32::try_from(data.len()).expect("a segment is small");
    let command = ScsiCommand { cmd_sn: peer.cmd_sn, data_segment_length, ..command };
    peer.cmd_sn = peer.cmd_sn.next();
    let mut bhs = [0; BHS_BYTES];
    command.emit(&mut bhs);
    [&bhs, data].concat()
}

fn read_of(tag: u32, lba: u64, length: u32) -> ScsiCommand {
    ScsiCommand { read: true, write: false, ..command(0, tag, transfer(0x88, lba, length), length) }
}

/// These bytes come at once.
fn deliver(bench: &mut Bench, peer: &Peer, bytes: &[u8]) {
    {
        let world = &mut *bench.world.borrow_mut();
        world.sockets[peer.socket].to_shard.extend(bytes);
        world.feed(peer.socket);
    }
    bench.settle();
}

#[test]
fn reads_that_come_with_others_are_answered_with_what_was_there_at_their_turn() {
    let mut bench = Bench::new();
    let store = disk_in_memory(&mut bench);
    let data = pattern(4096);
    store.memory().copy_in(4096, &data);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    // So that there is room for all of them to come at once.
    for tag in 1..4 {
        let pings: Vec<u8> =
            (0..40).flat_map(|at| pdu(&mut peer, read_of(tag * 100 + at, 0, 512), &[])).collect();
        deliver(&mut bench, &peer, &pings);
        assert_eq!(bench.heard(&peer).len(), 40);
    }
    let write = command(0, 4, transfer(0x8a, 8, 512), 512);
    let mut beyond = read_of(6, 2047, 1024);
    beyond.cdb[9] = 0xff;
    let bytes = [
        pdu(&mut peer, read_of(1, 8, 4096), &[]),
        // Fewer than the blocks have, and more.
        pdu(&mut peer, ScsiCommand { expected_data_transfer_length: 5, ..read_of(2, 8, 512) }, &[]),
        pdu(&mut peer, ScsiCommand { expected_data_transfer_length: 4096, ..read_of(3, 8, 512) }, &[]),
        pdu(&mut peer, write, &[9; 512]),
        pdu(&mut peer, read_of(5, 8, 512), &[]),
        pdu(&mut peer, beyond, &[]),
    ]
    .concat();
    deliver(&mut bench, &peer, &bytes);
    let heard = bench.heard(&peer);
    let of = |tag: u32| {
        heard.iter().find(|one| matches!(one, Heard::Data(of, ..) | Heard::Status(of, _) if *of == tag))
    };
    assert_eq!(heard.len(), 6);
    assert_eq!(of(2), Some(&Heard::Data(2, [9; 5].to_vec(), true)), "all of them leave after the write");
    assert_eq!(of(3), Some(&Heard::Data(3, [9; 512].to_vec(), true)));
    assert_eq!(of(1), Some(&Heard::Data(1, [&[9; 512], &data[512..]].concat(), true)));
    assert_eq!(of(4), Some(&Heard::Status(4, GOOD)));
    assert_eq!(of(5), Some(&Heard::Data(5, [9; 512].to_vec(), true)));
    assert_eq!(of(6), Some(&Heard::Status(6, CHECK_CONDITION)));
    assert!(bench.shard.core.tasks.is_empty());
}

#[test]
fn a_read_behind_a_message_that_is_not_sent_yet_is_judged_when_it_goes() {
    let mut bench = Bench::new();
    disk_in_memory(&mut bench);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    bench.read_at(&mut peer, 1, 100, 512);
    assert!(bench.shard.core.tasks.is_empty(), "it is in the message that nobody hears");
    bench.read_at(&mut peer, 2, 100, 512);
    assert_eq!(bench.shard.core.tasks.len(), 1);
    bench.resize(1, 2, 8);
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    let heard = bench.heard(&peer);
    assert!(heard.contains(&Heard::Data(1, vec![0; 512], true)), "{heard:?}");
    assert!(heard.contains(&Heard::Status(2, CHECK_CONDITION)), "{heard:?}");
}

#[test]
fn who_has_blocks_for_himself_waits_for_the_reads_that_were_answered_before_him() {
    let mut bench = Bench::new();
    let store = disk_in_memory(&mut bench);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let mut other = bench.log_in(&[(0, 1)], IMMEDIATE);
    let mut cdb = transfer(0x89, 0, 0);
    cdb[13] = 1;
    let halves = [[0; 512], [7; 512]].concat();
    for one in [&mut peer, &mut other] {
        bench.read(one, 0, 9, 512);
        bench.heard(one);
    }
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    // Behind a READ in what its own connection brings: it finds the READ answered, and its message under way.
    let bytes =
        [pdu(&mut peer, read_of(1, 0, 512), &[]), pdu(&mut peer, command(0, 2, cdb, 1024), &halves)].concat();
    deliver(&mut bench, &peer, &bytes);
    bench.read(&mut other, 0, 3, 512);
    assert_eq!(bench.heard(&other), [], "it waits for the claim");
    assert!(bytes_at(&store, 0, 512).iter().all(|byte| *byte == 0));
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    let heard = bench.heard(&peer);
    assert_eq!(heard, [Heard::Data(1, vec![0; 512], true), Heard::Status(2, GOOD)]);
    assert_eq!(bench.heard(&other), [Heard::Data(3, vec![7; 512], true)]);
    assert!(bytes_at(&store, 0, 512) == [7; 512]);
}

/// RFC 7143 §6.3: what has come behind the last Login Request is answered behind the last Login Response.
#[test]
fn a_read_that_came_with_the_login_is_answered_behind_it() {
    let mut bench = Bench::new();
    disk_in_memory(&mut bench);
    let mut first = bench.log_in(&[(0, 1)], &format!("{IMMEDIATE}MaxConnections=2|"));
    let unread = pdu(&mut first, read_of(1, 0, 512), &[]);
    let completed = completed_as(first.session.0, (Tsih(1), Cid(1)), "MaxRecvDataSegmentLength=8192|");
    let socket = bench.world.borrow().sockets.len();
    let question = Box::new(LoginQuestion { unread, ..question(completed) });
    bench.mail(ToShard::Join { session: first.session, question });
    let second = Peer { socket, session: first.session, cmd_sn: first.cmd_sn };
    assert_eq!(bench.heard(&second), [Heard::Other(0x23), Heard::Data(1, vec![0; 512], true)]);
}

#[test]
fn a_read_that_is_half_sent_keeps_nobody_waiting_for_the_end_of_an_aca() {
    const LENGTH: u32 = 3 << 20;
    let mut bench = Bench::new();
    let store = RamStore::new(512, 8192, false).expect("4 MiB can be had");
    bench.open_medium(1, Medium::Ram(store));
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let mut other = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    bench.read(&mut peer, 0, 1, LENGTH);
    let mut wrong = transfer(0x8a, 0, 0);
    (wrong[1], wrong[15]) = (0xe0, 0x04);
    bench.command(&mut peer, 0, 2, wrong, 0, &[]);
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    let heard = bench.heard(&peer);
    assert!(heard.contains(&Heard::Status(2, CHECK_CONDITION)));
    let mut compare_and_write = transfer(0x89, 0, 0);
    compare_and_write[13] = 1;
    bench.command(&mut other, 0, 1, compare_and_write, 1024, &[0; 1024]);
    assert_eq!(bench.heard(&other), [Heard::Status(1, GOOD)]);
    let sent: usize =
        heard.iter().map(|one| if let Heard::Data(1, data, _) = one { data.len() } else { 0 }).sum();
    assert_eq!(sent, LENGTH as usize, "what has begun to be sent is sent");
}

/// The data of what has come, whose digests are right.
fn checked(bench: &Bench, peer: &Peer) -> Vec<u8> {
    let bytes: Vec<u8> = bench.world.borrow_mut().sockets[peer.socket].from_shard.drain(..).collect();
    let (mut rest, mut all) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (bhs, after) = rest.split_at(BHS_BYTES);
        let length = data_segment_length(bhs.try_into().expect("a whole header")) as usize;
        let (data, after) = after.split_at(length);
        let digest = if length > 0 { 4 } else { 0 };
        assert_eq!(after[..digest], digest::field_of(data)[..digest]);
        all.extend_from_slice(data);
        rest = &after[digest..];
    }
    all
}

#[test]
fn a_digest_is_of_the_bytes_that_are_sent_however_long_the_read_and_however_little_memory_there_is() {
    let mut bench = Bench::new();
    let store = disk_in_memory(&mut bench);
    let data = pattern(64 << 10);
    store.memory().copy_in(0, &data);
    let mut peer = bench.log_in(&[(0, 1)], DIGESTS);
    for (tag, length) in (1..).zip([512, 4096, 8192, 8704, 64 << 10]) {
        bench.read(&mut peer, 0, tag, length);
        assert!(checked(&bench, &peer) == data[..length as usize], "{length} bytes");
    }
    let arena = bench.shard.core.driver.arena.clone();
    let mut held = Vec::new();
    while let Some(buffer) = Class::ALL.into_iter().find_map(|class| arena.take(class)) {
        held.push(buffer);
    }
    bench.read(&mut peer, 0, 10, 4096);
    assert_eq!(checked(&bench, &peer), [], "it waits for memory");
    drop(held);
    bench.shard.core.note_released();
    bench.settle();
    assert!(checked(&bench, &peer) == data[..4096]);
}
