//! Initiators that owe something: RspTimeout, in virtual time.

use portico_ring::Class;

use super::*;

impl Bench {
    pub(super) fn pass(&mut self, time: Duration) {
        let now = self.world.borrow().now;
        self.world.borrow_mut().now = now + time;
        self.settle();
    }

    fn is_closed(&self, peer: &Peer) -> bool {
        self.world.borrow().sockets[peer.socket].is_closed
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_that_sends_nothing_of_what_it_was_asked_for_is_given_up() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    let other = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut peer, 0, 1, 65_536, &[]);
    assert!(matches!(bench.heard(&peer)[..], [Heard::R2t { .. }]));
    bench.pass(SECOND);
    bench.pass(RESPONSE_TIMEOUT - SECOND - SECOND);
    assert!(!bench.is_closed(&peer));
    bench.pass(SECOND + SECOND);
    assert!(bench.is_closed(&peer));
    assert!(!bench.is_closed(&other), "it owes nothing, however long");
}

#[test]
fn one_that_sends_some_of_it_has_its_time_again_and_one_that_waits_for_us_owes_nothing() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    let mut waiting = bench.log_in(&[(0, 1)], ASKED);
    bench.write(&mut peer, 0, 1, 65_536, &[]);
    bench.write(&mut waiting, 0, 1, 65_536, &[]);
    let [r2t] = &bench.heard(&waiting)[..] else { panic!("one R2T") };
    bench.answer(&waiting, r2t);
    let [Heard::R2t { transfer, .. }] = bench.heard(&peer)[..] else { panic!("one R2T") };
    for quarter in 0..4 {
        bench.pass(RESPONSE_TIMEOUT - SECOND - SECOND);
        assert!(!bench.is_closed(&peer), "quarter {quarter}");
        bench.data_out(&peer, 1, transfer, quarter, 16_384, quarter == 3);
        bench.pass(SECOND);
    }
    bench.pass(RESPONSE_TIMEOUT * 10);
    bench.land_all();
    assert_eq!(bench.heard(&peer), [Heard::Status(1, GOOD)]);
    assert_eq!(bench.heard(&waiting), [Heard::Status(1, GOOD)], "the medium took its time");
}

#[test]
fn one_that_reads_nothing_is_given_up() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    bench.world.borrow_mut().sockets[peer.socket].is_deaf = true;
    bench.read(&mut peer, 0, 1, 65_536);
    bench.land_all();
    bench.pass(RESPONSE_TIMEOUT - SECOND);
    assert!(!bench.is_closed(&peer));
    bench.pass(SECOND + SECOND);
    assert!(bench.is_closed(&peer));
}

/// What connections receive into, without the last chunk.
fn received_into(bench: &Bench) -> u64 {
    let arena = &bench.shard.core.driver.arena;
    let classes = [Class::Tiny, Class::Small, Class::Medium, Class::Large];
    let bytes = |class: Class| u64::from(arena.usage(class).used) * class.bytes() as u64;
    classes.into_iter().map(bytes).sum::<u64>() - Class::Large.bytes() as u64
}

#[test]
fn one_that_was_busy_and_is_silent_gives_back_what_it_received_into() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    let idle = received_into(&bench);
    assert!(idle <= 512, "{idle}");
    for tag in 0..20 {
        bench.write(&mut peer, 0, tag, 4096, &[7; 4096]);
        bench.land_all();
    }
    assert_eq!(bench.heard(&peer).len(), 20);
    assert!(received_into(&bench) >= 65_536, "staging grew with the load");
    bench.pass(SECOND * 4);
    assert!(received_into(&bench) >= 65_536);
    bench.pass(SECOND * 2);
    assert_eq!(received_into(&bench), idle);
    for tag in 0..3 {
        bench.write(&mut peer, 0, tag, 4096, &[8; 4096]);
        bench.land_all();
    }
    let good = (0..3).map(|tag| Heard::Status(tag, GOOD)).collect::<Vec<_>>();
    assert_eq!(bench.heard(&peer), good, "and goes on as if nothing had been");
}

#[test]
fn one_that_pings_without_end_is_heard_later_and_all_of_it() {
    let mut bench = Bench::new();
    bench.open(1, 64);
    let mut peer = bench.log_in(&[(0, 1)], ASKED);
    let mut bhs = [0; BHS_BYTES];
    (bhs[0], bhs[1]) = (0x40, 0x80);
    bhs[20..24].fill(0xff);
    for _ in 0..1000 {
        bench.post(&peer, bhs, &[]);
    }
    assert!(bench.shard.connections.iter().any(|(_, connection)| connection.is_tired));
    bench.read(&mut peer, 0, 1, 512);
    // Those that come faster than they are answered are rejected.
    let pong = |heard: &Heard| matches!(heard, Heard::Other(0x20 | 0x3f));
    let before = bench.heard(&peer);
    assert!(before.len() < 1000 && before.iter().all(pong), "{}", before.len());
    for _ in 0..20 {
        bench.pass(SECOND);
    }
    bench.land_all();
    let mut after = bench.heard(&peer);
    assert!(matches!(after.pop(), Some(Heard::Data(1, _, true))), "behind its pings");
    let others: Vec<&Heard> = after.iter().filter(|heard| !pong(heard)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(before.len() + after.len(), 1000);
}

/// RFC 7143 §7.4: a discovery session is not pinged; one whose initiator is gone without a word ends all the same.
#[test]
fn a_discovery_session_that_says_nothing_ends() {
    let mut bench = Bench::new();
    let question = question(completed(1, ""));
    let socket = bench.world.borrow().sockets.len();
    bench.mail(ToShard::Adopt(Box::new(Adoption {
        session: SessionId(1),
        nexus: NexusId(1),
        tsih: Tsih(1),
        target: None,
        map: map(&[]),
        greeting: UnitAttention::PowerOn,
        service: Service {
            queued_commands: 8,
            nop_in_interval: 60 * SECOND,
            nop_in_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
            events: false,
        },
        question,
    })));
    let peer = Peer { socket, session: SessionId(1), cmd_sn: CmdSn(1) };
    bench.world.borrow_mut().sockets[socket].from_shard.clear();
    bench.pass(59 * SECOND);
    assert!(!bench.is_closed(&peer));
    bench.pass(2 * SECOND);
    assert!(bench.is_closed(&peer));
    assert!(bench.world.borrow().sockets[socket].from_shard.is_empty(), "and it is told nothing");
}
