//! Whether the initiator is still there: pings after silence, and an end to waiting for their answers (RFC 7143 §11.19).
//!
//! Every byte from the initiator proves that it lives, not only the answer to a ping: one that is busy sending data is not
//! cut off for want of a NOP-Out.

use core::time::Duration;

use crate::moment::Moment;
use crate::wire::TargetTransferTag;

/// When to ping, and for how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveTimes {
    /// Silence before a ping (NopInInterval); zero: never ping.
    pub interval: Duration,
    /// Silence after a ping before the initiator is given up (NopInTimeout).
    pub timeout: Duration,
}

/// What the passing of time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Nothing yet.
    Nothing,
    /// A ping is due: [`Session::ping`](super::Session::ping).
    Ping,
    /// The initiator has not been heard of since a ping. The connection is dead.
    PeerSilent,
}

pub(super) struct Keepalive {
    times: KeepaliveTimes,
    heard: Moment,
    /// The ping without an answer, and when it went.
    ping: Option<(TargetTransferTag, Moment)>,
    /// How many went, and the number of the latest that was answered.
    pings: u16,
    answered: u16,
}

/// The transfer tags of pings lie above those of any task.
const PING_TAGS: u32 = 0xfffe_0000;

/// Whether `number` is not after `other`, in numbers that begin again.
fn is_at_most(number: u16, other: u16) -> bool {
    other.wrapping_sub(number) < 1 << 15
}

impl Keepalive {
    pub(super) fn new(times: KeepaliveTimes, now: Moment) -> Self {
        Self { times, heard: now, ping: None, pings: 0, answered: 0 }
    }

    pub(super) fn heard(&mut self, now: Moment) {
        self.heard = now;
    }

    /// The tag of a new ping.
    pub(super) fn ping(&mut self, now: Moment) -> TargetTransferTag {
        self.pings = self.pings.wrapping_add(1);
        let tag = TargetTransferTag(PING_TAGS | u32::from(self.pings));
        self.ping = Some((tag, now));
        tag
    }

    /// A NOP-Out that answers a ping; one that answers none, or an old one, says no more than that the initiator lives.
    pub(super) fn answered(&mut self, tag: TargetTransferTag) {
        self.ping = self.ping.filter(|(awaited, _)| *awaited != tag);
        let number = u16::try_from(tag.0 & 0xffff).expect("16 bits");
        if tag.0 & !0xffff == PING_TAGS && is_at_most(number, self.pings) && is_at_most(self.answered, number)
        {
            self.answered = number;
        }
    }

    /// The number of the ping before which `more` others go.
    pub(super) fn number_behind(&self, more: u16) -> u16 {
        self.pings.wrapping_add(more).wrapping_add(1)
    }

    /// Whether the ping of this number, or one after it, was answered: all that was sent before it has come to the initiator.
    pub(super) fn has_answered(&self, number: u16) -> bool {
        is_at_most(number, self.answered)
    }

    pub(super) fn deadline(&self) -> Moment {
        match self.ping {
            Some((_, sent)) => sent.max(self.heard) + self.times.timeout,
            None if self.times.interval.is_zero() => Moment::NEVER,
            None => self.heard + self.times.interval,
        }
    }

    pub(super) fn expire(&self, now: Moment) -> Expired {
        match self.ping {
            _ if now < self.deadline() || self.deadline() == Moment::NEVER => Expired::Nothing,
            Some(_) => Expired::PeerSilent,
            None => Expired::Ping,
        }
    }
}
