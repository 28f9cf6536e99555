//! Commands that take their blocks in several passes.

use super::*;

/// A bench with one thin unit whose write cache is like this, and a session.
fn thin(write_cache: WriteCache) -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.install_thin(1, 2, write_cache);
    let peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    (bench, peer)
}

/// UNMAP of blocks 8 to 10 and 100 to 106.
fn unmap(bench: &mut Bench, peer: &mut Peer, tag: u32) {
    unmap_of(bench, peer, tag, 40, 100);
}

/// UNMAP of blocks 8 to 10 and of 7 from `second` on, whose CDB tells of so many bytes of that list.
fn unmap_of(bench: &mut Bench, peer: &mut Peer, tag: u32, length: u8, second: u64) {
    let descriptor =
        |lba: u64, blocks: u32| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat();
    let list = [vec![0, 38, 0, 32, 0, 0, 0, 0], descriptor(8, 3), descriptor(second, 7)].concat();
    let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, length, 0, 0, 0, 0, 0, 0, 0];
    bench.command(peer, 0, tag, cdb, 40, &list);
}

fn write_same(bench: &mut Bench, peer: &mut Peer, blocks: u32, data: &[u8]) {
    let mut cdb = [0; 16];
    cdb[0] = 0x93;
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    bench.command(peer, 0, 1, cdb, u32::try_from(data.len()).expect("short"), data);
}

fn cleared(lba: u64, blocks: u64) -> What {
    What::Clear { offset_bytes: lba * 512, length_bytes: blocks * 512, deallocate: true }
}

#[test]
fn unmap_clears_one_range_after_the_other() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    unmap(&mut bench, &mut peer, 1);
    assert_eq!(bench.land(), cleared(8, 3));
    assert_eq!(bench.heard(&peer), []);
    assert_eq!(bench.land(), cleared(100, 7));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn without_a_write_cache_what_was_cleared_is_made_stable_before_good() {
    let (mut bench, mut peer) = thin(WriteCache::WriteThrough);
    unmap(&mut bench, &mut peer, 1);
    assert_eq!([bench.land(), bench.land()], [cleared(8, 3), cleared(100, 7)]);
    assert_eq!(bench.heard(&peer), []);
    assert_eq!(bench.land(), What::Sync);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn so_it_is_where_the_cache_is_turned_off_meanwhile() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    unmap(&mut bench, &mut peer, 1);
    assert_eq!(bench.land(), cleared(8, 3));
    bench.install(1, 3, WriteCache::WriteThrough);
    assert_eq!(bench.land(), cleared(100, 7));
    assert_eq!(bench.land(), What::Sync, "the one that the Install waits for");
    let mut synced = 0;
    while bench.heard(&peer).is_empty() {
        assert_eq!(bench.land(), What::Sync);
        synced += 1;
    }
    assert!(synced >= 1);
}

#[test]
fn a_medium_that_cannot_clear_gets_zeroes_where_it_refused() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    unmap(&mut bench, &mut peer, 1);
    assert_eq!(bench.land(), cleared(8, 3));
    bench.world.borrow_mut().refuse_to_clear();
    bench.settle();
    assert_eq!(bench.land(), What::Write { offset_bytes: 100 * 512, length_bytes: 7 * 512, durable: false });
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn write_same_of_zeroes_clears_and_of_anything_else_writes_piece_by_piece() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    write_same(&mut bench, &mut peer, 4, &[0; 512]);
    let kept = What::Clear { offset_bytes: 0, length_bytes: 2048, deallocate: false };
    assert_eq!(bench.land(), kept, "without UNMAP the space stays");
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    write_same(&mut bench, &mut peer, 513, &[1; 512]);
    assert_eq!(bench.land(), What::Write { offset_bytes: 0, length_bytes: 262_144, durable: false });
    assert_eq!(bench.heard(&peer), []);
    assert_eq!(bench.land(), What::Write { offset_bytes: 262_144, length_bytes: 512, durable: false });
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn write_same_with_more_data_than_a_block_is_refused_and_touches_nothing() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    write_same(&mut bench, &mut peer, 4, &[1; 1024]);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
    assert!(bench.world.borrow().at_medium.is_empty());
}

#[test]
fn a_descriptor_beyond_the_parameter_list_that_the_cdb_tells_of_is_none() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    // 512 times that is 0, in 64 bits.
    unmap_of(&mut bench, &mut peer, 1, 24, 1 << 55);
    assert_eq!(bench.land(), cleared(8, 3));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(bench.world.borrow().at_medium.is_empty());
}

#[test]
fn blocks_that_a_lost_session_is_clearing_are_nobodys_until_they_are_clear() {
    let (mut bench, mut peer) = thin(WriteCache::WriteBack);
    unmap(&mut bench, &mut peer, 1);
    let (session, reason) = (peer.session, portico_model::message::EndReason::Reinstated);
    bench.mail(ToShard::EndSession { session, reason });
    let orphans =
        |bench: &Bench| bench.shard.core.units.iter().map(|(_, unit)| unit.orphans.len()).sum::<usize>();
    assert_eq!(orphans(&bench), 1);
    let mut next = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.command(&mut next, 0, 1, transfer(0x8a, 10, 512), 512, &[1; 512]);
    assert_eq!(bench.heard(&next), [Heard::Status(1, BUSY)], "a GOOD would be erased");
    assert_eq!(bench.land(), cleared(8, 3));
    assert_eq!(orphans(&bench), 0);
    bench.command(&mut next, 0, 2, transfer(0x8a, 10, 512), 512, &[1; 512]);
    assert_eq!(bench.land(), What::Write { offset_bytes: 5120, length_bytes: 512, durable: false });
    assert_eq!(bench.heard(&next), [Heard::Status(2, GOOD)]);
}
