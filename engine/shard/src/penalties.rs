//! Guessing made slow: who has failed to prove who he is waits before his next proof is looked at (RFC 7143 §9.2.1).
//!
//! A table of addresses, each with the moment from which on it may have another verdict. Proofs of one address are
//! judged one after the other, however many connections bring them, and right ones wait as long as wrong ones: the
//! answer's time tells nothing. It keeps no clock; the shard waits by its timer, and nobody else waits with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portico_iscsi::moment::Moment;

/// Addresses that are remembered; beyond them the one that failed longest ago is forgotten.
pub const ADDRESSES_MAX: u32 = 1024;
/// The wait after the first failure; each further one doubles it.
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// The longest wait between two verdicts.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// The longest that a proof waits for its turn. It ends before the login's own time does.
const QUEUE_MAX: Duration = Duration::from_secs(10);
/// An address that has not failed for so long is as good as new.
const MEMORY: Duration = Duration::from_secs(60);

const _: () = assert!(QUEUE_MAX.as_secs() < crate::connection::LOGIN_PATIENCE_S);
const _: () = assert!(WAIT_MAX.as_secs() < QUEUE_MAX.as_secs());

/// When a proof is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At once.
    Now,
    /// When it is time.
    At(Moment),
    /// Never: too many wait before it.
    Never,
}

/// The addresses that have failed.
#[derive(Debug, Default)]
pub struct Penalties {
    addresses: BTreeMap<IpAddr, Penalty>,
}

#[derive(Clone, Copy, Debug)]
struct Penalty {
    failures: u32,
    last_failure: Moment,
    /// From when on the next proof may be judged.
    free: Moment,
}

impl Penalty {
    fn wait(&self) -> Duration {
        WAIT_FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(WAIT_MAX)
    }

    fn is_over(&self, now: Moment) -> bool {
        self.last_failure + MEMORY <= now
    }
}

impl Penalties {
    /// Books the next turn of an address.
    pub fn book(&mut self, peer: IpAddr, now: Moment) -> Verdict {
        let Some(penalty) = self.addresses.get_mut(&network_of(peer)) else { return Verdict::Now };
        if penalty.is_over(now) {
            self.addresses.remove(&network_of(peer));
            return Verdict::Now;
        }
        let at = penalty.free.max(now);
        if now + QUEUE_MAX < at {
            return Verdict::Never;
        }
        penalty.free = at + penalty.wait();
        if at == now { Verdict::Now } else { Verdict::At(at) }
    }

    /// A proof of this address was wrong.
    pub fn failed(&mut self, peer: IpAddr, now: Moment) {
        let peer = network_of(peer);
        if !self.addresses.contains_key(&peer) && self.addresses.len() >= ADDRESSES_MAX as usize {
            let oldest = self.addresses.iter().min_by_key(|(_, penalty)| penalty.last_failure);
            let oldest = oldest.map(|(address, _)| *address).expect("the table is full");
            self.addresses.remove(&oldest);
        }
        let fresh = Penalty { failures: 0, last_failure: now, free: now };
        let penalty = self.addresses.entry(peer).or_insert(fresh);
        if penalty.is_over(now) {
            *penalty = fresh;
        }
        penalty.failures = penalty.failures.saturating_add(1);
        penalty.last_failure = now;
        penalty.free = penalty.free.max(now + penalty.wait());
    }
}

/// An IPv6 host has a whole /64 to come from.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1_000);

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_never_failed_never_waits() {
        let mut penalties = Penalties::default();
        penalties.failed(peer("10.0.0.1"), NOW);
        for _ in 0..100 {
            assert_eq!(penalties.book(peer("10.0.0.2"), NOW), Verdict::Now);
        }
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_limit() {
        let (mut penalties, peer) = (Penalties::default(), peer("10.0.0.1"));
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(penalties.book(peer, now), Verdict::Now);
            penalties.failed(peer, now);
            let Verdict::At(at) = penalties.book(peer, now) else { panic!("it has just failed") };
            waits.push(at.since(now).as_millis());
            penalties.addresses.get_mut(&peer).unwrap().free = at;
            now = at;
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000, 4000]);
    }

    #[test]
    fn many_connections_of_one_address_wait_for_each_other_and_then_in_vain() {
        let (mut penalties, peer) = (Penalties::default(), peer("10.0.0.1"));
        (0..4).for_each(|_| penalties.failed(peer, NOW));
        let turns: Vec<_> = (0..1000).map(|_| penalties.book(peer, NOW)).collect();
        let later = |seconds| Verdict::At(NOW + Duration::from_secs(seconds));
        assert_eq!(turns[..6], [later(2), later(4), later(6), later(8), later(10), Verdict::Never]);
        assert!(turns[5..].iter().all(|turn| *turn == Verdict::Never));
        assert_eq!(penalties.book(peer, NOW + Duration::from_secs(12)), Verdict::Now, "its queue is through");
    }

    #[test]
    fn a_minute_without_a_failure_is_forgiveness() {
        let (mut penalties, peer) = (Penalties::default(), peer("10.0.0.1"));
        (0..9).for_each(|_| penalties.failed(peer, NOW));
        assert_eq!(penalties.book(peer, NOW + MEMORY), Verdict::Now);
        assert!(penalties.addresses.is_empty());
        (0..9).for_each(|_| penalties.failed(peer, NOW));
        penalties.failed(peer, NOW + MEMORY);
        let first = NOW + MEMORY + WAIT_FIRST;
        assert_eq!(penalties.book(peer, NOW + MEMORY), Verdict::At(first));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_failed_longest_ago() {
        let mut penalties = Penalties::default();
        let address = |number: u32| IpAddr::V4(number.into());
        for number in 0..=ADDRESSES_MAX {
            penalties.failed(address(number), NOW + Duration::from_millis(number.into()));
        }
        let now = NOW + Duration::from_millis(ADDRESSES_MAX.into());
        assert_eq!(penalties.addresses.len(), ADDRESSES_MAX as usize);
        assert_eq!(penalties.book(address(0), now), Verdict::Now);
        assert!(matches!(penalties.book(address(ADDRESSES_MAX), now), Verdict::At(_)));
    }

    #[test]
    fn an_ipv6_host_has_one_place_in_the_table_and_an_ipv4_host_one_in_both_forms() {
        let mut penalties = Penalties::default();
        penalties.failed(peer("2001:db8::1"), NOW);
        assert!(matches!(penalties.book(peer("2001:db8::ffff:2"), NOW), Verdict::At(_)));
        assert_eq!(penalties.book(peer("2001:db8:0:1::1"), NOW), Verdict::Now);
        penalties.failed(peer("::ffff:10.0.0.1"), NOW);
        assert!(matches!(penalties.book(peer("10.0.0.1"), NOW), Verdict::At(_)));
    }
}
