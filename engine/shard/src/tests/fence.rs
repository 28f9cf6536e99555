//! What a change that control makes does to commands that are under way.

use portico_scsi::alua::{AccessState, ChangedBy, TargetPortGroup, TargetPortGroups};

use super::*;

/// A write of 64 KiB that is at the medium, on a unit whose queue takes `depth` requests.
fn write_at_the_medium(depth: u32) -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.open(1, depth);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.write(&mut peer, 0, 1, 65_536, &[1; 65_536]);
    (bench, peer)
}

#[test]
fn a_write_at_the_medium_when_the_cache_is_turned_off_is_stable_before_its_good() {
    let (mut bench, mut peer) = write_at_the_medium(8);
    bench.install(1, 2, WriteCache::WriteThrough);
    assert_eq!(bench.land(), What::Write { offset_bytes: 0, length_bytes: 65_536, durable: false });
    assert_eq!(bench.heard(&peer), []);
    assert_eq!(
        bench.land(),
        What::Sync,
        "the one that the Install waits for, which began before the write was through"
    );
    assert_eq!(bench.heard(&peer), []);
    assert_eq!(bench.land(), What::Sync);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    bench.write(&mut peer, 0, 2, 512, &[1; 512]);
    assert_eq!(bench.land(), What::Write { offset_bytes: 0, length_bytes: 512, durable: true });
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)], "what comes later is stable by itself");
}

#[test]
fn so_it_is_where_the_queue_has_no_room_for_the_flush_at_first() {
    let (mut bench, mut peer) = write_at_the_medium(1);
    bench.read(&mut peer, 0, 2, 512);
    bench.install(1, 2, WriteCache::WriteThrough);
    assert!(matches!(bench.land(), What::Write { .. }));
    let mut synced = false;
    while !bench.heard(&peer).contains(&Heard::Status(1, GOOD)) {
        synced |= bench.land() == What::Sync;
    }
    assert!(synced);
}

#[test]
fn a_write_whose_flush_fails_is_not_good() {
    let (mut bench, peer) = write_at_the_medium(8);
    bench.install(1, 2, WriteCache::WriteThrough);
    bench.land();
    bench.land();
    bench.world.borrow_mut().fail();
    bench.settle();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
}

#[test]
fn a_cache_that_stays_on_flushes_nothing() {
    let (mut bench, peer) = write_at_the_medium(8);
    bench.install(1, 2, WriteCache::WriteBack);
    bench.land();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert!(bench.world.borrow().at_medium.is_empty());
}

/// Generations that the shard has said to have installed, since somebody looked.
fn installed(bench: &Bench) -> Vec<u64> {
    let sent = std::mem::take(&mut bench.world.borrow_mut().sent);
    let generation = |mail: &ToControl| match mail {
        ToControl::Installed { generation, .. } => Some(generation.0),
        _ => None,
    };
    sent.iter().filter_map(generation).collect()
}

#[test]
fn a_unit_that_shrinks_waits_for_what_is_at_the_medium_beyond_its_new_end_and_for_nothing_else() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.read(&mut peer, 0, 1, 4096);
    bench.command(&mut peer, 0, 2, transfer(0x8f, 1000, 4096), 0, &[]);
    installed(&bench);
    bench.resize(1, 2, 1000);
    assert_eq!(installed(&bench), [] as [u64; 0], "a VERIFY is at the medium beyond the end");
    bench.land();
    assert_eq!(installed(&bench), [] as [u64; 0], "that was the READ before it");
    bench.land();
    assert_eq!(installed(&bench), [2]);
    bench.resize(1, 3, 8);
    assert_eq!(installed(&bench), [3]);
}

#[test]
fn a_command_that_reaches_beyond_the_end_that_moved_ends_at_its_next_piece() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut peer, 0, 1, 4096, &[]);
    let [r2t] = &bench.heard(&peer)[..] else { panic!("one R2T") };
    bench.resize(1, 2, 7);
    assert_eq!(bench.heard(&peer), [Heard::Event([0, 0], 0x2a, 0x09)], "and it is told at once");
    bench.answer(&peer, r2t);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
    assert!(bench.world.borrow().at_medium.is_empty(), "nothing of it has reached the medium");
    bench.read(&mut peer, 0, 2, 3584);
    assert_eq!(bench.heard(&peer), [Heard::Status(2, CHECK_CONDITION)], "the unit attention");
    bench.read(&mut peer, 0, 3, 3584);
    bench.land_all();
    assert!(matches!(bench.heard(&peer)[..], [Heard::Data(3, _, true)]), "what is left is served");
}

/// Commands in hand at each LUN of the first session.
fn in_hand(bench: &Bench) -> Vec<(u16, u32)> {
    let session = bench.shard.core.sessions.iter().next().expect("there is one").1;
    session.luns.iter().map(|lun| (lun.entry.lun, lun.tasks)).collect()
}

#[test]
fn two_luns_that_lead_to_one_unit_count_their_commands_apart_in_another_map_too() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    bench.open(2, 64);
    let mut peer = bench.log_in(&[(0, 2), (1, 1), (3, 1)], ASKED);
    for (tag, lun) in [1, 3, 3, 0].into_iter().enumerate() {
        bench.read(&mut peer, lun, u32::try_from(tag).expect("few"), 4096);
    }
    assert_eq!(in_hand(&bench), [(0, 1), (1, 1), (3, 2)]);
    let session = peer.session;
    bench.mail(ToShard::Remap { session, map: map(&[(1, 1), (3, 1), (4, 1)]) });
    assert_eq!(in_hand(&bench), [(1, 1), (3, 2), (4, 0)]);
    bench.land_all();
    assert_eq!(in_hand(&bench), [(1, 0), (3, 0), (4, 0)]);
}

#[test]
fn a_command_whose_lun_leads_elsewhere_now_is_counted_nowhere() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    bench.open(2, 64);
    let mut peer = bench.log_in(&[(0, 1), (1, 2)], ASKED);
    bench.read(&mut peer, 0, 1, 4096);
    let session = peer.session;
    bench.mail(ToShard::Remap { session, map: map(&[(0, 2), (1, 1)]) });
    assert_eq!(in_hand(&bench), [(0, 0), (1, 0)]);
    bench.land_all();
    assert_eq!(in_hand(&bench), [(0, 0), (1, 0)]);
    assert_eq!(bench.heard(&peer), [Heard::Event([0, 0], 0x3f, 0x0e)], "it was aborted");
}

#[test]
fn another_inventory_is_told_at_once_and_by_the_next_command_too() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(1, 1)], ASKED);
    let session = peer.session;
    bench.mail(ToShard::Remap { session, map: map(&[(1, 1), (2, 1)]) });
    assert_eq!(bench.heard(&peer), [Heard::Event([0, 1], 0x3f, 0x0e)]);
    bench.read(&mut peer, 1, 1, 512);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
}

#[test]
fn an_initiator_that_reads_nothing_is_told_of_so_many_events_and_no_more() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    for generation in 2..1300 {
        bench.resize(1, generation, 1000 + generation);
    }
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    let told = bench.heard(&peer).len();
    assert!((1000..1100).contains(&told), "{told} events");
    bench.read(&mut peer, 0, 1, 512);
    assert_eq!(
        bench.heard(&peer),
        [Heard::Status(1, CHECK_CONDITION)],
        "the unit attention tells the last of it"
    );
}

#[test]
fn a_port_that_leaves_the_active_state_is_waited_for_and_takes_no_more() {
    let (mut bench, mut peer) = write_at_the_medium(8);
    bench.write(&mut peer, 0, 2, 65_536, &[1; 65_536]);
    let group = TargetPortGroup {
        id: 1,
        preferred: false,
        state: AccessState::Standby,
        changed_by: ChangedBy::Initiator,
        // That of a target that the configuration does not have.
        ports: vec![0],
    };
    let groups = TargetPortGroups { explicit: true, groups: vec![group], offline: Vec::new() };
    let state = LogicalUnit { target_port_groups: Some(Arc::new(groups)), ..disk() };
    bench.world.borrow_mut().sent.clear();
    bench.install_state(1, 2, WriteCache::WriteBack, state);
    let installed = |bench: &Bench| {
        bench.world.borrow().sent.iter().any(|letter| matches!(letter, ToControl::Installed { .. }))
    };
    let mut landed = 0;
    while !bench.world.borrow().at_medium.is_empty() {
        assert!(!installed(&bench), "a piece is at the medium still");
        bench.land();
        landed += 1;
    }
    assert!(installed(&bench) && landed == 2, "{landed} pieces");
    assert_eq!(
        bench.heard(&peer),
        [Heard::Status(1, GOOD), Heard::Status(2, GOOD)],
        "they were there before"
    );
    bench.read(&mut peer, 0, 3, 4096);
    assert!(bench.heard(&peer).contains(&Heard::Status(3, CHECK_CONDITION)));
    assert!(bench.world.borrow().at_medium.is_empty());
}
