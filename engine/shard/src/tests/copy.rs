//! EXTENDED COPY between two units of a session.

use portico_scsi::copy_results::CopyState;
use portico_scsi::reservation::Reservation;

use super::*;

const PIECE: usize = 256 << 10;

/// The second unit, which has another name.
fn other() -> LogicalUnit {
    let identity = Identity::new(&IdentityOptions::new(0, "other", Handler::FileIo)).expect("a right name");
    LogicalUnit { identity, ..disk() }
}

/// Units 1 and 2, and a session that sees both as LUN 0 and 1.
fn two_units() -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.open(2, 8);
    bench.install_state(2, 2, WriteCache::WriteBack, other());
    let peer = bench.log_in(&[(0, 1), (1, 2)], IMMEDIATE);
    (bench, peer)
}

/// Sends LUN 0 a list with one segment.
fn copy(bench: &mut Bench, peer: &mut Peer, tag: u32, ends: [&LogicalUnit; 2], place: [u64; 2], blocks: u16) {
    let mut list =
        vec![u8::try_from(tag).expect("few copies"), 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    for unit in ends {
        let mut cscd = [0; 32];
        (cscd[0], cscd[4], cscd[5], cscd[7]) = (0xe4, 1, 2, 8);
        cscd[8..16].copy_from_slice(unit.identity.eui64.expect("it has one").as_bytes());
        list.extend(cscd);
    }
    list.extend([2, 0, 0, 24, 0, 0, 0, 1, 0, 0]);
    list.extend(blocks.to_be_bytes());
    place.into_iter().for_each(|lba: u64| list.extend(lba.to_be_bytes()));
    let length = u32::try_from(list.len()).expect("a short list");
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[10..14].copy_from_slice(&length.to_be_bytes());
    bench.command(peer, 0, tag, cdb, length, &list);
}

/// The next operation at a medium ends: at which disk, what.
fn land(bench: &mut Bench) -> (u64, What) {
    let disk = bench.world.borrow().at_medium.front().expect("something is at a medium").disk;
    (disk, bench.land())
}

fn read(offset_bytes: u64, length_bytes: usize) -> What {
    What::Read { offset_bytes, length_bytes }
}

fn write(offset_bytes: u64, length_bytes: usize) -> What {
    What::Write { offset_bytes, length_bytes, durable: false }
}

#[test]
fn a_copy_goes_piece_by_piece_from_one_unit_to_the_other() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &other()], [8, 16], 1024);
    let mut rest = PIECE as u64;
    for at in [0, rest] {
        assert_eq!(land(&mut bench), (1, read(4096 + at, PIECE)));
        assert_eq!(land(&mut bench), (2, write(8192 + at, PIECE)));
        rest = 0;
    }
    assert_eq!((bench.heard(&peer), rest), (vec![Heard::Status(1, GOOD)], 0));
    let session = bench.shard.core.sessions.iter().next().expect("there is one").1;
    let record = &session.copies[0];
    assert_eq!((record.list_id, record.state), (1, CopyState::Completed));
    assert_eq!((record.segments, record.bytes), (1, 2 * PIECE as u64));
}

#[test]
fn a_copy_to_a_later_place_of_the_same_blocks_begins_at_its_end() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &disk()], [0, 8], 1024);
    let piece = PIECE as u64;
    assert_eq!(land(&mut bench), (1, read(piece, PIECE)));
    assert_eq!(land(&mut bench), (1, write(piece + 4096, PIECE)));
    assert_eq!(land(&mut bench), (1, read(0, PIECE)));
    assert_eq!(land(&mut bench), (1, write(4096, PIECE)));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn a_destination_that_is_reserved_meanwhile_is_not_written() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &other()], [0, 0], 1024);
    assert_eq!(land(&mut bench), (1, read(0, PIECE)));
    let reservation = Reservation::Exclusive { holder: Some(NexusId(77)) };
    bench.install_state(2, 3, WriteCache::WriteBack, LogicalUnit { reservation, ..other() });
    assert_eq!(land(&mut bench), (2, write(0, PIECE)), "it was there before");
    assert_eq!(land(&mut bench), (1, read(PIECE as u64, PIECE)));
    assert!(bench.world.borrow().at_medium.is_empty());
    assert_eq!(third_party_failure(&mut bench, &peer), ([0, 18], vec![0x18]));
    let session = bench.shard.core.sessions.iter().next().expect("there is one").1;
    assert_eq!(session.copies[0].state, CopyState::Failed);
}

/// Of the only answer, which is COPY ABORTED in its first segment: where it says that the source's and the destination's status
/// and sense data begin, and what is there.
fn third_party_failure(bench: &mut Bench, peer: &Peer) -> ([u8; 2], Vec<u8>) {
    let answers = bench.answers(peer);
    let [Answer { status: Some(CHECK_CONDITION), sense, .. }] = &answers[..] else {
        panic!("{} answers", answers.len())
    };
    assert_eq!((sense[2], &sense[10..14]), (0x0a, &[0, 0, 0x0d, 0x01][..]));
    assert_eq!(usize::from(sense[7]), sense.len() - 8, "ADDITIONAL SENSE LENGTH");
    ([sense[8], sense[9]], sense[18..].to_vec())
}

#[test]
fn what_the_destination_ended_with_is_told_with_its_own_sense_data() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &other()], [0, 0], 8);
    assert_eq!(land(&mut bench), (1, read(0, 4096)));
    bench.world.borrow_mut().run_out_of_space();
    bench.settle();
    let (places, told) = third_party_failure(&mut bench, &peer);
    assert_eq!(places, [0, 18]);
    assert_eq!((told[0], told[3], &told[13..15]), (CHECK_CONDITION, 0x07, &[0x27, 0x07][..]));
}

#[test]
fn what_the_source_ended_with_is_told_as_the_sources() {
    let (mut bench, mut peer) = two_units();
    let reservation = Reservation::Exclusive { holder: Some(NexusId(77)) };
    bench.install_state(2, 3, WriteCache::WriteBack, LogicalUnit { reservation, ..other() });
    copy(&mut bench, &mut peer, 1, [&other(), &disk()], [0, 0], 8);
    assert_eq!(third_party_failure(&mut bench, &peer), ([18, 0], vec![0x18]));
}

#[test]
fn a_unit_that_the_session_does_not_see_is_not_reached() {
    let (mut bench, _) = two_units();
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    copy(&mut bench, &mut peer, 1, [&other(), &disk()], [0, 0], 8);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
    assert!(bench.world.borrow().at_medium.is_empty());
}

/// A copy ends where the map becomes this one while a piece is being read.
fn is_not_written_under(map: Arc<LunMap>) {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &other()], [0, 0], 8);
    let session = peer.session;
    bench.mail(ToShard::Remap { session, map });
    assert_eq!(land(&mut bench), (1, read(0, 4096)));
    assert!(bench.world.borrow().at_medium.is_empty(), "it is written no more");
    assert!(bench.heard(&peer).contains(&Heard::Status(1, CHECK_CONDITION)));
}

#[test]
fn a_destination_that_leaves_the_map_is_written_no_more() {
    is_not_written_under(map(&[(0, 1)]));
}

#[test]
fn nor_is_one_that_becomes_read_only_there() {
    let entry = |lun: u16, read_only| LunEntry { lun, unit: UnitId(u32::from(lun) + 1), read_only };
    is_not_written_under(Arc::new(LunMap::new(vec![entry(0, false), entry(1, true)])));
}

#[test]
fn a_copy_whose_units_have_other_luns_goes_on() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &other()], [0, 0], 8);
    let session = peer.session;
    bench.mail(ToShard::Remap { session, map: map(&[(0, 1), (5, 2)]) });
    assert_eq!(land(&mut bench), (1, read(0, 4096)));
    assert_eq!(land(&mut bench), (2, write(0, 4096)));
    assert!(bench.heard(&peer).contains(&Heard::Status(1, GOOD)));
}

#[test]
fn a_write_cache_that_is_turned_off_meanwhile_has_the_piece_written_again() {
    let (mut bench, mut peer) = two_units();
    copy(&mut bench, &mut peer, 1, [&disk(), &other()], [0, 0], 8);
    assert_eq!(land(&mut bench), (1, read(0, 4096)));
    bench.install_state(2, 3, WriteCache::WriteThrough, other());
    assert_eq!(land(&mut bench), (2, write(0, 4096)));
    assert_eq!(land(&mut bench), (2, What::Sync), "of the change");
    assert_eq!(land(&mut bench), (2, What::Write { offset_bytes: 0, length_bytes: 4096, durable: true }));
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn a_copy_that_overlaps_itself_does_not_read_what_it_wrote() {
    let (mut bench, mut peer) = two_units();
    let before: Vec<u8> = (0..32 * 512).map(world::block_byte).collect();
    let medium = Rc::new(RefCell::new(before.clone()));
    bench.world.borrow_mut().disk = Some(Rc::clone(&medium));
    copy(&mut bench, &mut peer, 1, [&disk(), &disk()], [0, 8], 16);
    assert_eq!(land(&mut bench), (1, read(0, 16 * 512)));
    bench.install(1, 3, WriteCache::WriteThrough);
    bench.land_all();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(medium.borrow()[8 * 512..24 * 512] == before[..16 * 512], "the data are not shifted");
    assert_eq!(bench.world.borrow().written.len(), 2, "the second write is durable");
}

#[test]
fn copies_to_a_medium_that_hangs_do_not_take_all_memory() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    for _ in 0..2 {
        for tag in 1..=32 {
            copy(&mut bench, &mut peer, tag, [&disk(), &disk()], [0, 4096], 1024);
        }
        let pieces = bench.world.borrow().at_medium.len();
        assert_eq!(pieces, 17, "half of what is shared, and the unit's reserve");
        bench.land_all();
        let all = (1..=32).map(|tag| Heard::Status(tag, GOOD));
        let heard = bench.heard(&peer);
        assert!(all.into_iter().all(|status| heard.contains(&status)), "{heard:?}");
    }
}
