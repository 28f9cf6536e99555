//! Who gets memory, and who waits for it, when there is not enough for all (ARCHITECTURE, Scarcity).

use portico_iscsi::moment::Moment;
use portico_iscsi::wire::NopOut;
use portico_ring::{Buffer, Class};

use super::*;
use crate::task::PIECE_BYTES_MAX;

const PIECE: u32 = 256 << 10;
const _: () = assert!(PIECE as usize == PIECE_BYTES_MAX);
const MIB: u32 = 1 << 20;
/// Writes of 1 MiB that a session of this size may announce: the window.
const WINDOW: u32 = 32;

fn asks(heard: &[Heard]) -> u32 {
    heard.iter().map(|heard| if let Heard::R2t { length, .. } = heard { *length } else { 0 }).sum()
}

#[test]
fn large_writes_are_served_while_a_session_that_never_sends_has_announced_all_it_may() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut hostile = bench.log_in(&[(0, 1)], ASKED);
    for tag in 0..WINDOW {
        bench.write(&mut hostile, 0, tag, MIB, &[]);
    }
    let announced = asks(&bench.heard(&hostile));
    assert!(announced < WINDOW * MIB, "it waits for its own bookings");
    for keys in [ASKED, IMMEDIATE] {
        let mut modest = bench.log_in(&[(0, 1)], keys);
        bench.serve_write(&mut modest, 0, 1, MIB);
        bench.serve_write(&mut modest, 0, 2, 4 * MIB);
    }
    assert_eq!(bench.heard(&hostile), [], "nothing came back that it could have");
}

#[test]
fn many_such_sessions_leave_a_newcomer_its_share() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut hostile: Vec<Peer> = (0..10).map(|_| bench.log_in(&[(0, 1)], ASKED)).collect();
    for peer in &mut hostile {
        for tag in 0..WINDOW {
            bench.write(peer, 0, tag, MIB, &[]);
        }
    }
    let mut modest = bench.log_in(&[(0, 1)], ASKED);
    bench.serve_write(&mut modest, 0, 1, MIB);
}

#[test]
fn however_many_announce_and_never_send_a_newcomer_has_its_turn() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut hostile: Vec<Peer> = (0..40).map(|_| bench.log_in(&[(0, 1)], ASKED)).collect();
    for peer in &mut hostile {
        for tag in 0..4 {
            bench.write(peer, 0, tag, MIB, &[]);
        }
    }
    let mut modest = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut modest, 0, 1, MIB, &[]);
    assert_eq!(bench.heard(&modest), [], "all there is was announced");
    let mut open = Vec::new();
    let mut waited = 0;
    while open.is_empty() {
        // As long as all those take that were before it, one after the other, and not what else they announced.
        assert!(waited < 60, "it stands in line behind them");
        waited += 1;
        let now = bench.world.borrow().now + Duration::from_secs(1);
        bench.world.borrow_mut().now = now;
        bench.settle();
        open.extend(bench.heard(&modest));
    }
    while let Some(heard) = open.pop() {
        if heard == Heard::Status(1, GOOD) {
            return;
        }
        bench.answer(&modest, &heard);
        bench.land_all();
        open.extend(bench.heard(&modest));
    }
    panic!("the write is not answered");
}

#[test]
fn an_initiator_that_takes_its_time_loses_nothing_where_nobody_waits() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut peer, 0, 1, 4096, &[]);
    let now = bench.world.borrow().now + Duration::from_secs(60);
    bench.world.borrow_mut().now = now;
    bench.settle();
    let r2t = bench.heard(&peer).remove(0);
    bench.answer(&peer, &r2t);
    bench.land_all();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
}

#[test]
fn data_that_are_gathered_are_bounded_and_have_their_turn_in_order() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    for tag in 0..10 {
        // WRITE AND VERIFY (16), ORWRITE (16).
        let opcode = if tag % 2 == 0 { 0x8e } else { 0x8b };
        bench.command(&mut peer, 0, tag, transfer(opcode, 0, MIB), MIB, &[]);
    }
    let tags = |heard: &[Heard]| {
        let tag = |heard: &Heard| if let Heard::R2t { tag, .. } = heard { Some(*tag) } else { None };
        heard.iter().filter_map(tag).collect::<std::collections::BTreeSet<u32>>()
    };
    let mut open = bench.heard(&peer);
    assert!(tags(&open).into_iter().eq(0..4), "a quarter of 16 MiB: {open:?}");
    let mut good = Vec::new();
    while !open.is_empty() {
        match open.remove(0) {
            Heard::Status(tag, GOOD) => good.push(tag),
            heard => bench.answer(&peer, &heard),
        }
        bench.land_all();
        open.extend(bench.heard(&peer));
    }
    assert_eq!(good.len(), 10, "{good:?}");
}

#[test]
fn series_at_a_medium_that_hangs_do_not_take_all_memory() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    bench.install_thin(1, 2, WriteCache::WriteBack);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    // PRE-FETCH (16): of 1 MiB each. WRITE SAME (16), of as many blocks.
    for (opcode, data, most) in [(0x90, 0, 17), (0x93, 512, 16)] {
        for tag in 0..32 {
            let cdb = transfer(opcode, 0, MIB);
            bench.command(&mut peer, 0, tag, cdb, data, &vec![1; data as usize]);
        }
        let pieces = bench.world.borrow().at_medium.len();
        assert_eq!(pieces, most, "of command {opcode:#x}");
        bench.land_all();
        let heard = bench.heard(&peer);
        let all = (0..32).filter(|tag| heard.contains(&Heard::Status(*tag, GOOD)));
        assert_eq!(all.count(), 32, "of command {opcode:#x}: {heard:?}");
        let booked: u64 = bench.shard.core.tasks.iter().map(|(_, task)| task.booked_bytes).sum();
        assert_eq!(booked, 0);
    }
}

#[test]
fn who_gathers_and_never_sends_has_had_its_turn_and_what_came_unasked_needs_none() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut hostile = bench.log_in(&[(0, 1)], ASKED);
    for tag in 0..10 {
        bench.command(&mut hostile, 0, tag, transfer(0x8b, 0, MIB), MIB, &[]);
    }
    assert_eq!(asks(&bench.heard(&hostile)), 4 * PIECE, "four have their turn");
    let mut swift = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.command(&mut swift, 0, 1, transfer(0x8b, 8, 4096), 4096, &[1; 4096]);
    bench.land_all();
    assert_eq!(bench.heard(&swift), [Heard::Status(1, GOOD)]);
    let mut modest = bench.log_in(&[(0, 1)], ASKED);
    bench.command(&mut modest, 0, 1, transfer(0x8b, 8, 4096), 4096, &[]);
    assert_eq!(bench.heard(&modest), []);
    let now = bench.world.borrow().now + Duration::from_secs(11);
    bench.world.borrow_mut().now = now;
    bench.settle();
    let r2t = bench.heard(&modest).remove(0);
    bench.answer(&modest, &r2t);
    bench.land_all();
    assert_eq!(bench.heard(&modest), [Heard::Status(1, GOOD)]);
}

#[test]
fn where_memory_is_short_small_data_do_not_hold_the_chunks_that_they_came_in() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut peer, 0, 1, 65_536, &[]);
    let Heard::R2t { transfer, .. } = bench.heard(&peer).remove(0) else { panic!("it is to be asked for") };
    for number in 0..32 {
        bench.data_out(&peer, 1, transfer, number, 512, false);
        // So many pings a connection has in that time.
        let now = bench.world.borrow().now;
        bench.world.borrow_mut().now = now + Duration::from_millis(160);
        for _ in 0..16 {
            let mut ping = [0; BHS_BYTES];
            (ping[0], ping[1]) = (0x40, 0x80);
            ping[16..20].fill(0xff);
            ping[20..24].fill(0xff);
            bench.post(&peer, ping, &[0; 8192]);
        }
    }
    let before = used_bytes(&bench);
    assert!(before > 2 << 20, "16 KiB of data hold {before} bytes");
    let arena = bench.shard.core.driver.arena.clone();
    let mut others = Vec::new();
    while !arena.is_short() {
        others.extend([Class::Large, Class::Medium].into_iter().find_map(|class| arena.take(class)));
    }
    let taken: u64 = others.iter().map(|buffer| buffer.class().bytes() as u64).sum();
    bench.world.borrow_mut().now = Moment::from_millis(60_000);
    bench.settle();
    let after = used_bytes(&bench) - taken;
    assert!(after < 1 << 20, "16 KiB of data hold {after} bytes");
    drop(others);
    for number in 32..128 {
        bench.data_out(&peer, 1, transfer, number, 512, number == 127);
    }
    bench.land_all();
    assert_eq!(bench.heard(&peer).last(), Some(&Heard::Status(1, GOOD)));
}

#[test]
fn immediate_data_are_kept_while_the_rest_of_their_write_waits_for_memory() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    for tag in 0..20 {
        bench.write(&mut peer, 0, tag, MIB, &[0x5a; 65_536]);
    }
    let mut open: Vec<Heard> = bench.heard(&peer);
    assert!(
        open.iter().all(|heard| matches!(heard, Heard::R2t { .. })),
        "R2Ts are withheld, nobody is refused"
    );
    let mut good = 0;
    while let Some(heard) = open.pop() {
        match heard {
            Heard::R2t { .. } => bench.answer(&peer, &heard),
            other => {
                assert!(matches!(other, Heard::Status(_, GOOD)), "{other:?}");
                good += 1;
            }
        }
        bench.land_all();
        open.extend(bench.heard(&peer));
    }
    assert_eq!(good, 20);
}

#[test]
fn a_session_that_does_not_read_leaves_the_others_their_reads() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut deaf = bench.log_in(&[(0, 1)], ASKED);
    bench.world.borrow_mut().sockets[deaf.socket].is_deaf = true;
    for tag in 0..WINDOW {
        bench.read(&mut deaf, 0, tag, MIB);
        bench.land_all();
    }
    let mut modest = bench.log_in(&[(0, 1)], ASKED);
    bench.read(&mut modest, 0, 1, MIB);
    bench.land_all();
    let bytes: usize = bench.heard(&modest).iter().map(data_bytes).sum();
    assert_eq!(bytes, MIB as usize);
    bench.world.borrow_mut().hear(deaf.socket);
    bench.settle();
    bench.land_all();
    let bytes: usize = bench.heard(&deaf).iter().map(data_bytes).sum();
    assert_eq!(bytes, (WINDOW * MIB) as usize, "it gets everything once it listens");
}

fn data_bytes(heard: &Heard) -> usize {
    if let Heard::Data(_, data, _) = heard { data.len() } else { 0 }
}

/// Sends a command as the one `ahead` places after the next.
fn write_ahead(bench: &mut Bench, peer: &Peer, ahead: u32, tag: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a small write");
    let cmd_sn = peer.cmd_sn.advanced_by(ahead);
    let mut bhs = [0; BHS_BYTES];
    ScsiCommand { cmd_sn, ..command(0, tag, transfer(0x8a, 0, length), length) }.emit(&mut bhs);
    bench.post(peer, bhs, data);
}

#[test]
fn data_behind_a_gap_are_bounded_and_stop_nobody() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut hostile: Vec<Peer> = (0..8).map(|_| bench.log_in(&[(0, 1)], IMMEDIATE)).collect();
    for peer in &hostile {
        for ahead in 1..WINDOW {
            write_ahead(&mut bench, peer, ahead, ahead, &[0x5a; 65_536]);
        }
    }
    // 8 times 31 times 64 KiB would be nearly all of the arena.
    let used: u64 = used_bytes(&bench);
    assert!(used <= 4 << 20, "{used} bytes are held");
    let mut modest = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.write(&mut modest, 0, 1, 65_536, &[1; 65_536]);
    bench.land_all();
    assert_eq!(bench.heard(&modest), [Heard::Status(1, GOOD)]);
    bench.read(&mut modest, 0, 2, MIB);
    bench.land_all();
    assert_eq!(bench.heard(&modest).iter().map(data_bytes).sum::<usize>(), MIB as usize);
    let mut kept = 0;
    for peer in &mut hostile {
        // The gap closes: what was kept is written, the rest was let go.
        bench.write(peer, 0, 0, 65_536, &[1; 65_536]);
        bench.land_all();
        let heard = bench.heard(peer);
        let with = |wanted: u8| {
            heard
                .iter()
                .filter(|heard| matches!(heard, Heard::Status(_, status) if *status == wanted))
                .count()
        };
        assert_eq!(with(GOOD) + with(TASK_SET_FULL), WINDOW as usize, "{heard:?}");
        kept += with(GOOD) - 1;
    }
    assert_eq!(kept, (2 << 20) / 65_536, "a quarter of what is shared");
    assert_eq!(used_early(&bench), 0);
}

#[test]
fn small_data_behind_a_gap_do_not_hold_the_chunks_that_they_came_in() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    for ahead in 1..WINDOW {
        write_ahead(&mut bench, &peer, ahead, ahead, &[0x5a; 512]);
        // Pings that fill the rest of a chunk.
        for _ in 0..16 {
            let mut ping = [0; BHS_BYTES];
            (ping[0], ping[1]) = (0x40, 0x80);
            ping[16..20].fill(0xff);
            ping[20..24].fill(0xff);
            bench.post(&peer, ping, &[0; 8192]);
        }
    }
    let used = used_bytes(&bench);
    assert!(used <= 31 * 4096 + 2 * (256 << 10), "{used} bytes are held for 31 times 512");
}

#[test]
fn the_window_does_not_grow_while_data_wait_behind_a_gap() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let window = |bench: &Bench| {
        let session = bench.shard.core.sessions.iter().next().expect("there is one").1;
        session.wire.window().maximum()
    };
    let before = window(&bench);
    write_ahead(&mut bench, &peer, 1, 7, &[0x5a; 512]);
    let ping = |bench: &mut Bench| {
        let mut bhs = [0; BHS_BYTES];
        (bhs[0], bhs[1]) = (0x40, 0x80);
        bhs[20..24].fill(0xff);
        bench.post(&peer_of(bench), bhs, &[]);
    };
    ping(&mut bench);
    assert_eq!(window(&bench), before);
    bench.write(&mut peer, 0, 1, 512, &[1; 512]);
    bench.land_all();
    ping(&mut bench);
    assert_eq!(window(&bench), before.advanced_by(2));
}

fn peer_of(_bench: &Bench) -> Peer {
    Peer { socket: 0, session: SessionId(1), cmd_sn: CmdSn(0) }
}

/// Without the last chunk.
fn used_bytes(bench: &Bench) -> u64 {
    let arena = &bench.shard.core.driver.arena;
    let all = |class: &Class| u64::from(arena.usage(*class).used) * class.bytes() as u64;
    Class::ALL.iter().map(all).sum::<u64>() - Class::Large.bytes() as u64
}

/// Whatever is free is so no more.
fn take_everything(bench: &Bench) -> Vec<Buffer> {
    let arena = &bench.shard.core.driver.arena;
    let take = |class: Class| std::iter::from_fn(move || arena.take(class));
    Class::ALL.into_iter().flat_map(take).collect()
}

#[test]
fn a_long_answer_for_which_there_was_no_memory_goes_out_when_there_is() {
    const LENGTH: usize = 8192;
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    bench.command(&mut peer, 0, 1, [0; 16], 0, &[]);
    let mut ping = [0; BHS_BYTES];
    NopOut {
        immediate: true,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(2),
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: StatSn(0),
    }
    .emit(&mut ping);
    bench.post(&peer, ping, &[7; LENGTH]);
    let taken = take_everything(&bench);
    bench.world.borrow_mut().hear(peer.socket);
    bench.settle();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)], "nothing is left for the answer to the ping");
    drop(taken);
    bench.settle();
    assert_eq!(bench.heard(&peer), [Heard::Other(0x20)]);
}

#[test]
fn a_write_goes_on_though_nothing_is_left_for_the_copy_that_it_needs() {
    let mut bench = Bench::new();
    bench.open_aligned(1, 64, 512);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    for tag in 1..4 {
        bench.write(&mut peer, 0, tag, 2048, &[1; 1000]);
        let r2t = bench.heard(&peer).remove(0);
        let taken = take_everything(&bench);
        bench.answer(&peer, &r2t);
        assert_eq!(bench.world.borrow().at_medium.len(), 1, "the last chunk is for this");
        bench.land_all();
        assert_eq!(bench.heard(&peer), [Heard::Status(tag, GOOD)]);
        drop(taken);
    }
}

/// Sends a write of 64 KiB with so many bytes of its immediate data.
fn write_in_part(bench: &mut Bench, peer: &mut Peer, tag: u32, come: usize) {
    let mut bhs = [0; BHS_BYTES];
    ScsiCommand { cmd_sn: peer.cmd_sn, ..command(0, tag, transfer(0x8a, 0, 65_536), 65_536) }.emit(&mut bhs);
    peer.cmd_sn = peer.cmd_sn.next();
    bhs[5..8].copy_from_slice(&[1, 0, 0]);
    send_bytes(bench, peer, &[&bhs[..], &vec![1; come]].concat());
}

fn send_bytes(bench: &mut Bench, peer: &Peer, bytes: &[u8]) {
    {
        let world = &mut *bench.world.borrow_mut();
        world.sockets[peer.socket].to_shard.extend(bytes);
        world.feed(peer.socket);
    }
    bench.settle();
}

#[test]
fn segments_that_do_not_come_to_their_end_leave_the_others_memory() {
    for come in [0, 5_000, 65_000] {
        let mut bench = Bench::new();
        bench.open(1, 64);
        let mut hostile: Vec<Peer> = (0..150).map(|_| bench.log_in(&[(0, 1)], IMMEDIATE)).collect();
        for peer in &mut hostile {
            write_in_part(&mut bench, peer, 1, come);
        }
        // Three quarters, a slot, and what the connections receive into.
        let used = used_bytes(&bench);
        assert!((11 << 20..13 << 20).contains(&used), "{used} bytes are held, {come} of each have come");
        let mut modest = bench.log_in(&[(0, 1)], IMMEDIATE);
        bench.serve_write(&mut modest, 0, 1, MIB);
        bench.read(&mut modest, 0, 2, MIB);
        bench.land_all();
        assert_eq!(bench.heard(&modest).iter().map(data_bytes).sum::<usize>(), MIB as usize);
        // Large data that nobody asked for have no place now.
        bench.write(&mut modest, 0, 3, 65_536, &[1; 65_536]);
        assert_eq!(bench.heard(&modest), [Heard::Status(3, TASK_SET_FULL)]);
        // Whoever keeps others waiting is given up.
        let now = bench.world.borrow().now + Duration::from_secs(11);
        bench.world.borrow_mut().now = now;
        bench.settle();
        let used = used_bytes(&bench);
        assert!(used < 2 << 20, "{used} bytes are held");
        let is_closed = |peer: &&Peer| bench.world.borrow().sockets[peer.socket].is_closed;
        let given_up = hostile.iter().filter(is_closed).count();
        assert!((40..150).contains(&given_up), "{given_up}");
        bench.write(&mut modest, 0, 4, 65_536, &[1; 65_536]);
        bench.land_all();
        assert_eq!(bench.heard(&modest), [Heard::Status(4, GOOD)]);
    }
}

#[test]
fn a_segment_that_had_no_place_ends_its_command_alone_and_holds_nothing() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let arena = bench.shard.core.driver.arena.clone();
    let mut others = Vec::new();
    while !arena.is_short() {
        others.extend([Class::Large, Class::Medium].into_iter().find_map(|class| arena.take(class)));
    }
    let before = used_bytes(&bench);
    write_in_part(&mut bench, &mut peer, 1, 100);
    for _ in 0..65 {
        send_bytes(&mut bench, &peer, &[1; 1000]);
        assert!(used_bytes(&bench) <= before + 4096, "what comes is thrown away");
    }
    assert_eq!(bench.heard(&peer), []);
    // Memory comes back, and it is this command that is refused all the same.
    drop(others);
    send_bytes(&mut bench, &peer, &[1; 436]);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, TASK_SET_FULL)]);
    write_in_part(&mut bench, &mut peer, 2, 65_000);
    send_bytes(&mut bench, &peer, &[1; 536]);
    bench.land_all();
    assert_eq!(bench.heard(&peer), [Heard::Status(2, GOOD)]);
}

fn used_early(bench: &Bench) -> usize {
    bench.shard.core.sessions.iter().filter(|(_, session)| session.holding.is_early()).count()
}

#[test]
fn who_comes_later_does_not_overtake_a_read_that_waits_for_memory() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    bench.open(2, 64);
    let mut peers: Vec<Peer> = (0..20).map(|_| bench.log_in(&[(0, 1), (1, 2)], ASKED)).collect();
    // All memory of the unit is at the medium: one half is the first session's, the rest are the others' shares.
    for tag in 0..20 {
        bench.read(&mut peers[0], 0, tag, PIECE);
    }
    for peer in &mut peers[1..18] {
        bench.read(peer, 0, 0, PIECE);
    }
    let [.., first, second] = &mut peers[..] else { unreachable!() };
    bench.read(first, 0, 100, PIECE);
    bench.read(second, 0, 200, 4096);
    let waiting: Vec<u32> = waiting_tags(&bench);
    assert!(waiting.ends_with(&[100, 200]), "{waiting:?}");
    // Another unit is not concerned.
    bench.read(second, 1, 300, PIECE);
    let last = bench.world.borrow().at_medium.back().map(|operation| operation.disk);
    assert_eq!(last, Some(2));
    let order = landing_order(&mut bench, &peers[18..], &[100, 200]);
    assert_eq!(order, [100, 200]);
}

/// The initiators' tags of those that wait, in the order of the queue.
fn waiting_tags(bench: &Bench) -> Vec<u32> {
    let core = &bench.shard.core;
    let task = |key: &crate::slab::Key<crate::task::Task>| core.tasks.get(*key);
    let tag = |task: &crate::task::Task| {
        let session = core.sessions.get(task.session).expect("it has one");
        session.wire.command(task.name).initiator_task_tag.0
    };
    core.starved.iter().filter_map(task).map(tag).collect()
}

/// Lets everything end, and tells in which order these tasks had their status.
fn landing_order(bench: &mut Bench, peers: &[Peer], tags: &[u32]) -> Vec<u32> {
    let mut order = Vec::new();
    while !bench.world.borrow().at_medium.is_empty() {
        bench.land();
        for peer in peers {
            for heard in bench.heard(peer) {
                match heard {
                    Heard::Data(tag, _, true) | Heard::Status(tag, GOOD) if tags.contains(&tag) => {
                        order.push(tag)
                    }
                    _ => {}
                }
            }
        }
    }
    order
}

#[test]
fn who_comes_later_does_not_overtake_a_command_that_waits_for_room_at_the_medium() {
    let mut bench = Bench::new();
    bench.open(1, 2);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    for tag in 0..2 {
        bench.read(&mut peer, 0, tag, 4096);
    }
    bench.write(&mut peer, 0, 2, 65_536, &[1; 65_536]);
    bench.read(&mut peer, 0, 3, 4096);
    bench.write(&mut peer, 0, 4, 4096, &[1; 4096]);
    assert_eq!(waiting_tags(&bench), [2, 3, 4]);
    let peers = [peer];
    assert_eq!(landing_order(&mut bench, &peers, &[0, 1, 2, 3, 4]), [0, 1, 2, 3, 4]);
}

#[test]
fn the_writes_of_one_session_get_its_share_in_their_order() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    for tag in 0..20 {
        bench.write(&mut peer, 0, tag, MIB, &[]);
    }
    let waiting = waiting_tags(&bench);
    let first = waiting[0];
    assert!(waiting.iter().copied().eq(first..20));
    // A small one would fit, and does not go first.
    bench.write(&mut peer, 0, 20, 4096, &[]);
    assert_eq!(waiting_tags(&bench).last(), Some(&20));
    let mut asked: Vec<u32> = Vec::new();
    let mut open = bench.heard(&peer);
    while !open.is_empty() {
        let heard = open.remove(0);
        if let Heard::R2t { tag, offset: 0, .. } = heard {
            asked.push(tag);
        }
        if let Heard::R2t { .. } = heard {
            bench.answer(&peer, &heard);
        }
        bench.land_all();
        open.extend(bench.heard(&peer));
    }
    assert!(asked.iter().copied().eq(0..=20), "{asked:?}");
}

#[test]
fn a_crowd_whose_members_write_once_each_within_a_second_is_refused_nothing() {
    const CROWD: u64 = 700;
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut crowd: Vec<Peer> = (0..CROWD).map(|_| bench.log_in(&[(0, 1)], IMMEDIATE)).collect();
    let small = bench.shard.core.driver.arena.usage(Class::Small).total;
    assert!(u64::from(small) < CROWD, "not a chunk for each");
    let later = |bench: &mut Bench, duration: Duration| {
        let now = bench.world.borrow().now;
        bench.world.borrow_mut().now = now + duration;
    };
    for peer in &mut crowd {
        later(&mut bench, Duration::from_millis(1));
        bench.write(peer, 0, 1, 65_536, &[1; 65_536]);
        bench.land_all();
        assert_eq!(bench.heard(peer), [Heard::Status(1, GOOD)]);
        assert!(!bench.shard.core.driver.arena.is_short());
    }
    // Who is at work keeps what he has; of the others, long before they would rest anyhow, nobody has much.
    for _ in 0..3 {
        later(&mut bench, Duration::from_millis(99));
        bench.write(&mut crowd[0], 0, 2, 65_536, &[1; 65_536]);
        bench.land_all();
        assert_eq!(bench.heard(&crowd[0]), [Heard::Status(2, GOOD)]);
    }
    let used = bench.shard.core.driver.arena.usage(Class::Small).used;
    assert!(used <= small / 2, "{used} of {small} small chunks are held");
    assert!(used_bytes(&bench) <= u64::from(small / 2) * 4096, "and nothing else");
}

#[test]
fn where_memory_is_tight_those_that_were_quiet_for_longest_rest_and_nobody_where_it_is_not() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peers: Vec<Peer> = (0..2).map(|_| bench.log_in(&[(0, 1)], IMMEDIATE)).collect();
    let held = |bench: &Bench| bench.shard.core.driver.arena.usage(Class::Small).used;
    let idle = held(&bench);
    let write = |bench: &mut Bench, peer: &mut Peer| {
        bench.write(peer, 0, 1, 65_536, &[1; 65_536]);
        bench.land_all();
        assert_eq!(bench.heard(peer), [Heard::Status(1, GOOD)]);
    };
    peers.iter_mut().for_each(|peer| write(&mut bench, peer));
    assert_eq!(held(&bench), idle + 2);
    let later = |bench: &mut Bench, duration: Duration| {
        let now = bench.world.borrow().now;
        bench.world.borrow_mut().now = now + duration;
    };
    later(&mut bench, Duration::from_secs(1));
    bench.settle();
    assert_eq!(held(&bench), idle + 2, "there is memory enough");
    let arena = bench.shard.core.driver.arena.clone();
    let taken: Vec<Buffer> = (0..32).map(|_| arena.take(Class::Large).unwrap()).collect();
    later(&mut bench, Duration::from_millis(50));
    write(&mut bench, &mut peers[1]);
    later(&mut bench, Duration::from_millis(99));
    bench.settle();
    assert_eq!(held(&bench), idle + 1, "the first has rested");
    later(&mut bench, Duration::from_millis(200));
    bench.settle();
    assert_eq!(held(&bench), idle, "and then the second");
    drop(taken);
    peers.iter_mut().for_each(|peer| write(&mut bench, peer));
}
