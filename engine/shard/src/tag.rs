//! What the tag of an operation of the ring says: its kind in the upper 8 bits, and for whom in the lower 56.

use crate::connection::Connection;
use crate::slab::Key;

/// What an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An accept at the listening socket of this index.
    Accept(u32),
    /// A receive of a connection.
    Receive(Key<Connection>),
    /// A send of a connection.
    Send(Key<Connection>),
    /// An operation that the queue of the unit at this index began under this slot.
    Medium {
        /// In the slab of units.
        unit_index: usize,
        /// In the queue.
        slot: u32,
    },
}

const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const MEDIUM: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;
/// Units that a shard may have at a time, so that an index has 24 bits.
pub const UNITS_MAX: usize = 1 << 24;

/// The tag of an accept.
#[must_use]
pub fn of_accept(listener: u32) -> u64 {
    ACCEPT | u64::from(listener)
}

/// The tag of a receive.
#[must_use]
pub fn of_receive(connection: Key<Connection>) -> u64 {
    RECEIVE | connection.to_bits()
}

/// The tag of a send.
#[must_use]
pub fn of_send(connection: Key<Connection>) -> u64 {
    SEND | connection.to_bits()
}

/// The tag of an operation of a unit's queue.
#[must_use]
pub fn of_medium(unit_index: usize, slot: u32) -> u64 {
    debug_assert!(unit_index < UNITS_MAX);
    MEDIUM | (unit_index as u64) << 32 | u64::from(slot)
}

impl Kind {
    /// What the tag says.
    ///
    /// # Panics
    /// When it is none of ours.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the parts of a 64-bit number are taken apart")]
    pub fn of(tag: u64) -> Self {
        let rest = tag & !KIND;
        match tag & KIND {
            ACCEPT => Kind::Accept(rest as u32),
            RECEIVE => Kind::Receive(Key::from_bits(rest)),
            SEND => Kind::Send(Key::from_bits(rest)),
            MEDIUM => Kind::Medium { unit_index: (rest >> 32) as usize, slot: rest as u32 },
            _ => unreachable!("a tag that no operation was given: {tag:#x}"),
        }
    }
}
