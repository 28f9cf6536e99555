//! The other end: an initiator for the load generator, the simulator
//! and tests.
//!
//! [`Login`] takes a connection to the full feature phase; [`Session`] runs it. Both are values: PDUs in,
//! PDUs out, the sockets and the buffers are the caller's. Both trust nothing: whatever a target does against
//! RFC 7143 comes out as a [`LoginFault`] or a [`TargetFault`] that names the rule.
//!
//! The keys are read here by a table of its own, not by `negotiate`'s: two readings of §13 check each other.
//!
//! A [`Session`] is one connection; [`Session::join`] makes another of the same session, which shares its CmdSN and window.
//!
//! At recovery level 1 it acknowledges data that it is asked to acknowledge (DataACK), and recovers from nothing: what it lacks
//! is a [`TargetFault`] as at level 0.
//!
//! What it does not do: recovery, bidirectional commands.

mod fault;
mod keys;
mod login;
mod order;
mod receive;
mod session;
mod transmit;

#[cfg(test)]
mod tests;

pub use fault::TargetFault;
pub use keys::Offer;
pub use login::{
    EXCHANGES_MAX, Established, FirstStage, LOGIN_SEGMENT_BYTES_MAX, Login, LoginFault, LoginPlan, Progress,
    SessionKind,
};
pub use receive::{Completion, Event, Placement};
pub use session::{
    CDB_BYTES_MAX, COMMANDS_MAX, CONNECTIONS_MAX, CONTROL_TASKS_MAX, Command, Direction, PING_BYTES_MAX,
    PINGS_PENDING_MAX, Session, Strictness, TEXT_BYTES_MAX, TEXT_EXCHANGES_MAX, Tag, Tolerated, UserData,
    WORK_RESERVED_MAX,
};
pub use transmit::{AHS_BYTES_MAX, Outgoing, Payload};
