//! A response that is fenced (RFC 7143 §4.2.2.3): what precedes it on any connection of its session has been acknowledged before it is
//! sent, and what follows it is sent when it has been acknowledged itself.
//!
//! The lists of the connections keep the order. Each gets a fence ([`Rare::Fence`](crate::outgoing::Rare::Fence)) where the
//! response was handed over, that of its own connection one before it and one behind it; what stands behind a fence stays in its list.

use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Fence, Seat};

/// How far a fenced response has come.
#[derive(Debug)]
pub struct Fencing {
    /// Tells fences apart; later ones have higher numbers.
    pub serial: u64,
    /// The connection that it goes to.
    pub seat: Seat,
    /// What it waits for.
    pub stage: Stage,
    /// When connections are given up that have not acknowledged what they should.
    pub deadline: Moment,
}

/// What is waited for.
#[derive(Debug)]
pub enum Stage {
    /// What precedes it is to be sent.
    Gathers,
    /// What precedes it is to be acknowledged.
    Precedes(Fence),
    /// It may go.
    Passes,
    /// It is on its way to the list's end.
    Goes,
    /// It is to be acknowledged.
    Follows(Fence),
}
