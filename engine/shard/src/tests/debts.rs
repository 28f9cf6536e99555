//! Initiators that owe something: RspTimeout, in virtual time.

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
