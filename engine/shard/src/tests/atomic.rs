//! Commands that have their blocks for themselves, on one shard and on one of two, whose other is played by the test.

use portico_backstores::{NullStore, RamStore};
use portico_model::peer::{Claim, PeerLetter, Stamp, Word};
use portico_scsi::unit::AtomicWrites;

use super::*;

const OTHER: ShardId = ShardId(1);

/// COMPARE AND WRITE of `blocks` blocks at `lba`; they hold what the disks hold where `equal`.
fn compare_and_write(bench: &mut Bench, peer: &mut Peer, tag: u32, (lba, blocks): (u64, u8), equal: bool) {
    let mut cdb = transfer(0x89, lba, 0);
    cdb[13] = blocks;
    let length = usize::from(blocks) * 512;
    let mut data: Vec<u8> = (0..length as u64).map(|at| world::block_byte(lba * 512 + at)).collect();
    if !equal {
        data[length - 27] ^= 1;
    }
    data.resize(2 * length, 0xaa);
    bench.command(peer, 0, tag, cdb, u32::try_from(2 * length).expect("short"), &data);
}

fn write(bench: &mut Bench, peer: &mut Peer, tag: u32, lba: u64) {
    bench.command(peer, 0, tag, transfer(0x8a, lba, 512), 512, &[7; 512]);
}

fn read_of(lba: u64, blocks: usize) -> What {
    What::Read { offset_bytes: lba * 512, length_bytes: blocks * 512 }
}

fn write_of(lba: u64, blocks: usize) -> What {
    What::Write { offset_bytes: lba * 512, length_bytes: blocks * 512, durable: false }
}

fn one_shard() -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    (bench, peer)
}

/// One shard of two, whose other answers to everything at once from now on only where the test says so.
fn one_of_two() -> (Bench, Peer) {
    let mut bench = Bench::one_of(2);
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    write(&mut bench, &mut peer, 99, 5000);
    assert_eq!(told(&bench), [Word::Join], "nothing is at the medium before the other has answered");
    assert!(bench.world.borrow().at_medium.is_empty());
    say(&mut bench, Word::Welcome { is_member: true, clock: 40, claims: Vec::new() });
    assert_eq!(bench.land(), write_of(5000, 1));
    assert_eq!(bench.heard(&peer), [Heard::Status(99, GOOD)]);
    (bench, peer)
}

fn told(bench: &Bench) -> Vec<Word> {
    let letters = std::mem::take(&mut bench.world.borrow_mut().told);
    letters.into_iter().map(|(to, letter)| (assert_eq!(to, OTHER), letter.word).1).collect()
}

fn say(bench: &mut Bench, word: Word) {
    bench.mail(ToShard::Peer(PeerLetter { from: OTHER, unit: UnitId(1), word }));
}

#[test]
fn equal_blocks_are_written() {
    let (mut bench, mut peer) = one_shard();
    compare_and_write(&mut bench, &mut peer, 1, (3, 2), true);
    let booked =
        |bench: &Bench| bench.shard.core.tasks.iter().map(|(_, task)| task.booked_bytes).sum::<u64>();
    assert_eq!(booked(&bench), 2048 + 1024, "its data, and the piece");
    assert_eq!(bench.land(), read_of(3, 2));
    assert_eq!(bench.heard(&peer), []);
    assert_eq!(bench.land(), write_of(3, 2));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(bench.world.borrow().told.is_empty(), "there is nobody to tell");
}

#[test]
fn a_difference_is_told_with_its_offset_and_nothing_is_written() {
    let (mut bench, mut peer) = one_shard();
    compare_and_write(&mut bench, &mut peer, 1, (3, 2), false);
    assert_eq!(bench.land(), read_of(3, 2));
    assert!(bench.world.borrow().at_medium.is_empty());
    let answer: Vec<u8> = bench.world.borrow_mut().sockets[peer.socket].from_shard.drain(..).collect();
    let sense = &answer[BHS_BYTES + 2..];
    assert_eq!((answer[3], sense[0], sense[2]), (CHECK_CONDITION, 0xf0, 0x0e), "VALID; MISCOMPARE");
    assert_eq!(sense[3..7], (1024u32 - 27).to_be_bytes());
    assert_eq!(sense[12..14], [0x1d, 0]);
}

/// A medium that compares by itself, and holds zeroes.
fn one_that_compares() -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open_medium(1, Medium::Null(NullStore::new(512, BLOCKS, false).expect("zeroes can be had")));
    let peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    (bench, peer)
}

fn compare_with_zeroes(bench: &mut Bench, peer: &mut Peer, wrong_at: Option<usize>) {
    let mut cdb = transfer(0x89, 3, 0);
    cdb[13] = 2;
    let mut data = vec![0; 2048];
    data[1024..].fill(0xaa);
    if let Some(at) = wrong_at {
        data[at] = 1;
    }
    bench.command(peer, 0, 1, cdb, 2048, &data);
}

#[test]
fn a_medium_that_compares_by_itself_has_one_request() {
    let (mut bench, mut peer) = one_that_compares();
    compare_with_zeroes(&mut bench, &mut peer, None);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert_eq!(bench.shard.core.tasks.iter().count(), 0, "its blocks and its memory are free again");
}

#[test]
fn what_it_finds_different_is_read_to_tell_where() {
    let (mut bench, mut peer) = one_that_compares();
    compare_with_zeroes(&mut bench, &mut peer, Some(1000));
    let answer: Vec<u8> = bench.world.borrow_mut().sockets[peer.socket].from_shard.drain(..).collect();
    let sense = &answer[BHS_BYTES + 2..];
    assert_eq!((answer[3], sense[0], sense[2]), (CHECK_CONDITION, 0xf0, 0x0e), "VALID; MISCOMPARE");
    assert_eq!(sense[3..7], 1000u32.to_be_bytes());
    assert_eq!(bench.shard.core.tasks.iter().count(), 0);
}

#[test]
fn data_that_are_asked_for_are_gathered_before_anything_is_read() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    let mut cdb = transfer(0x89, 0, 0);
    cdb[13] = 255;
    bench.command(&mut peer, 0, 1, cdb, 2 * 255 * 512, &[]);
    let half = 255 * 512;
    let byte = |at: u32| if at < half { world::block_byte(at.into()) } else { 0xaa };
    for _ in 0..TURNS_MAX {
        let heard = bench.heard(&peer);
        if heard.is_empty() {
            break;
        }
        assert!(bench.world.borrow().at_medium.is_empty());
        heard.iter().for_each(|r2t| bench.answer_with(&peer, r2t, byte));
    }
    assert_eq!(bench.land(), read_of(0, 255));
    assert_eq!(bench.land(), write_of(0, 255));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn more_or_fewer_data_than_its_blocks_are_refused() {
    let (mut bench, mut peer) = one_shard();
    let mut cdb = transfer(0x89, 0, 0);
    for (tag, blocks) in [(1, 1), (2, 3)] {
        cdb[13] = blocks;
        bench.command(&mut peer, 0, tag, cdb, 2048, &[0; 2048]);
        assert_eq!(bench.heard(&peer), [Heard::Status(tag, CHECK_CONDITION)]);
    }
    cdb[13] = 0;
    bench.command(&mut peer, 0, 3, cdb, 512, &[0; 512]);
    assert_eq!(bench.heard(&peer), [Heard::Status(3, GOOD)], "no blocks are no error");
}

#[test]
fn orwrite_adds_bits_to_what_is_there() {
    let (mut bench, mut peer) = one_shard();
    bench.command(&mut peer, 0, 1, transfer(0x8b, 4, 1024), 1024, &[0xa0; 1024]);
    assert_eq!(bench.land(), read_of(4, 2));
    assert_eq!(bench.world.borrow().at_medium[0].bytes(), [[0xa4; 512], [0xa5; 512]].concat());
    assert_eq!(bench.land(), write_of(4, 2));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn it_waits_for_the_pieces_in_its_blocks_and_later_ones_wait_for_it() {
    let (mut bench, mut peer) = one_shard();
    write(&mut bench, &mut peer, 1, 4);
    compare_and_write(&mut bench, &mut peer, 2, (3, 2), true);
    write(&mut bench, &mut peer, 3, 3);
    bench.read(&mut peer, 0, 4, 4096);
    write(&mut bench, &mut peer, 5, 100);
    assert_eq!(bench.world.borrow().at_medium.len(), 2, "the first write, and the one elsewhere");
    assert_eq!(bench.land(), write_of(4, 1));
    assert_eq!(bench.land(), write_of(100, 1));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD), Heard::Status(5, GOOD)]);
    assert_eq!(bench.land(), read_of(3, 2));
    assert_eq!(bench.land(), write_of(3, 2));
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)]);
    assert_eq!([bench.land(), bench.land()], [write_of(3, 1), read_of(0, 8)]);
}

#[test]
fn two_of_the_same_blocks_go_one_after_the_other() {
    let (mut bench, mut peer) = one_shard();
    compare_and_write(&mut bench, &mut peer, 1, (3, 2), true);
    compare_and_write(&mut bench, &mut peer, 2, (4, 2), true);
    compare_and_write(&mut bench, &mut peer, 3, (6, 1), true);
    assert_eq!(bench.world.borrow().at_medium.len(), 2, "other blocks do not wait");
    assert_eq!([bench.land(), bench.land()], [read_of(3, 2), read_of(6, 1)]);
    assert_eq!([bench.land(), bench.land()], [write_of(3, 2), write_of(6, 1)]);
    assert_eq!([bench.land(), bench.land()], [read_of(4, 2), write_of(4, 2)]);
    let all = [1, 3, 2].map(|tag| Heard::Status(tag, GOOD));
    assert_eq!(bench.heard(&peer), all);
}

#[test]
fn a_session_that_ends_in_the_middle_opens_its_blocks() {
    let (mut bench, mut peer) = one_shard();
    let mut other = bench.log_in(&[(0, 1)], IMMEDIATE);
    compare_and_write(&mut bench, &mut peer, 1, (3, 2), true);
    compare_and_write(&mut bench, &mut peer, 2, (3, 2), true);
    write(&mut bench, &mut other, 3, 3);
    let (session, reason) = (peer.session, portico_model::message::EndReason::Reinstated);
    bench.mail(ToShard::EndSession { session, reason });
    assert_eq!(bench.heard(&other), []);
    assert_eq!(bench.land(), read_of(3, 2));
    assert_eq!(bench.land(), write_of(3, 1), "neither of its commands writes any more");
    assert_eq!(bench.heard(&other), [Heard::Status(3, GOOD)]);
}

#[test]
fn other_shards_are_asked_before_and_told_after() {
    let (mut bench, mut peer) = one_of_two();
    compare_and_write(&mut bench, &mut peer, 1, (3, 2), true);
    let stamp = Stamp { clock: 41, shard: ShardId(0) };
    assert_eq!(told(&bench), [Word::Claim(Claim { stamp, lba: 3, blocks: 2 })]);
    assert!(bench.world.borrow().at_medium.is_empty());
    say(&mut bench, Word::Yield(stamp));
    assert_eq!([bench.land(), bench.land()], [read_of(3, 2), write_of(3, 2)]);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert_eq!(told(&bench), [Word::Open(stamp)]);
}

#[test]
fn another_shard_is_yielded_to_when_nothing_is_in_its_blocks() {
    let (mut bench, mut peer) = one_of_two();
    write(&mut bench, &mut peer, 1, 4);
    let stamp = Stamp { clock: 50, shard: OTHER };
    say(&mut bench, Word::Claim(Claim { stamp, lba: 3, blocks: 2 }));
    assert_eq!(told(&bench), [], "a write is at the medium");
    write(&mut bench, &mut peer, 2, 3);
    assert_eq!(bench.land(), write_of(4, 1));
    assert_eq!(told(&bench), [Word::Yield(stamp)]);
    assert!(bench.world.borrow().at_medium.is_empty(), "the second write waits");
    say(&mut bench, Word::Open(stamp));
    assert_eq!(bench.land(), write_of(3, 1));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD), Heard::Status(2, GOOD)]);
}

#[test]
fn a_command_that_is_given_up_while_it_waits_is_told_to_others() {
    let (mut bench, mut peer) = one_of_two();
    compare_and_write(&mut bench, &mut peer, 1, (3, 2), true);
    let (session, reason) = (peer.session, portico_model::message::EndReason::Reinstated);
    bench.mail(ToShard::EndSession { session, reason });
    assert!(matches!(told(&bench)[..], [Word::Claim(_), Word::Open(_)]));
    assert!(bench.world.borrow().at_medium.is_empty());
}

#[test]
fn what_is_being_sent_from_the_medium_is_not_yielded_by_one_that_else_only_answers() {
    let mut bench = Bench::one_of(2);
    bench.open_medium(1, Medium::Ram(RamStore::new(512, 2048, false).expect("1 MiB can be had")));
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.read(&mut peer, 0, 1, 4096);
    say(&mut bench, Word::Welcome { is_member: true, clock: 1, claims: Vec::new() });
    told(&bench);
    let stamp = |clock| Stamp { clock, shard: OTHER };
    let claim = |clock, lba| Word::Claim(Claim { stamp: stamp(clock), lba, blocks: 8 });
    // As many as make it leave, the last of which is held for long.
    for clock in 2..67 {
        say(&mut bench, claim(clock, 1000));
        bench.settle();
        assert_eq!(told(&bench), [Word::Yield(stamp(clock))]);
        if clock < 66 {
            say(&mut bench, Word::Open(stamp(clock)));
        }
    }
    let now = bench.world.borrow().now + Duration::from_secs(11);
    bench.world.borrow_mut().now = now;
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    bench.read(&mut peer, 0, 2, 4096);
    say(&mut bench, Word::Open(stamp(66)));
    say(&mut bench, claim(67, 0));
    assert_eq!(told(&bench), [], "the READ's bytes are on their way");
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    assert_eq!(told(&bench), [Word::Yield(stamp(67))]);
    say(&mut bench, Word::Open(stamp(67)));
    assert_eq!(told(&bench), [Word::Leave], "now it may");
}

#[test]
fn what_nothing_is_known_of_is_yielded_at_once() {
    let mut bench = Bench::one_of(2);
    let stamp = Stamp { clock: 1, shard: OTHER };
    say(&mut bench, Word::Claim(Claim { stamp, lba: 0, blocks: 1 }));
    assert_eq!(told(&bench), [Word::Yield(stamp)]);
    say(&mut bench, Word::Join);
    assert_eq!(told(&bench), [Word::Welcome { is_member: false, clock: 0, claims: Vec::new() }]);
}

/// A unit whose medium keeps 16 KiB whole over a loss of power, and what is on it.
fn one_untorn() -> (Bench, Peer, Rc<RefCell<Vec<u8>>>) {
    let mut bench = Bench::new();
    let caching = Caching { writes_punt: false, depth: 8, untorn_bytes: 16 << 10, ..Caching::default() };
    bench.open_cached(1, 512, caching);
    let atomic_writes = AtomicWrites::Whole(32.try_into().expect("not zero"));
    bench.install_state(1, 2, WriteCache::WriteBack, LogicalUnit { atomic_writes, ..disk() });
    let medium = Rc::new(RefCell::new(vec![0xaa; 64 * 512]));
    bench.world.borrow_mut().disk = Some(Rc::clone(&medium));
    let peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    (bench, peer, medium)
}

fn write_atomic(bench: &mut Bench, peer: &mut Peer, tag: u32, lba: u64, blocks: u16) {
    let mut cdb = transfer(0x9c, lba, 0);
    (cdb[10..12]).fill(0);
    cdb[12..14].copy_from_slice(&blocks.to_be_bytes());
    let data = vec![0xbb; usize::from(blocks) * 512];
    bench.command(peer, 0, tag, cdb, u32::try_from(data.len()).expect("short"), &data);
}

/// After a loss of power at any moment, with as much of each write on the medium as there may be.
#[test]
fn a_loss_of_power_tears_a_write_and_no_atomic_write() {
    for kept_bytes in [0, 512, 8192, 16384 - 512] {
        let (mut bench, mut peer, medium) = one_untorn();
        write_atomic(&mut bench, &mut peer, 1, 32, 32);
        bench.world.borrow_mut().cut_power(&mut medium.borrow_mut(), kept_bytes);
        assert!(medium.borrow().iter().all(|byte| *byte == 0xaa), "{kept_bytes}: none of it");

        let (mut bench, mut peer, medium) = one_untorn();
        let data = vec![0xbb; 16 << 10];
        bench.command(&mut peer, 0, 1, transfer(0x8a, 32, 16 << 10), 16 << 10, &data);
        bench.world.borrow_mut().cut_power(&mut medium.borrow_mut(), kept_bytes);
        let new = medium.borrow().iter().filter(|byte| **byte == 0xbb).count();
        assert_eq!(new, kept_bytes, "of a WRITE there is what there is");
    }
}

#[test]
fn an_atomic_write_is_one_write_of_the_medium_and_only_of_the_length_that_it_keeps_whole() {
    let (mut bench, mut peer, medium) = one_untorn();
    write_atomic(&mut bench, &mut peer, 1, 32, 32);
    let whole = What::WriteUntorn { offset_bytes: 32 * 512, length_bytes: 16 << 10, durable: false };
    assert_eq!(bench.land(), whole);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(medium.borrow()[32 * 512..].iter().all(|byte| *byte == 0xbb));
    for (tag, lba, blocks) in [(2, 32, 16), (3, 16, 32), (4, 0, 33), (5, 0, 64)] {
        write_atomic(&mut bench, &mut peer, tag, lba, blocks);
        assert_eq!(bench.heard(&peer), [Heard::Status(tag, CHECK_CONDITION)], "{blocks} blocks at {lba}");
    }
    assert!(bench.world.borrow().at_medium.is_empty());
}
