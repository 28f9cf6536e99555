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
