//! One shard: a core, its ring, and everything on the data path that happens there.
//!
//! [`turn::Shard`] is the loop. It owns connections, which understand PDUs as far as their frame ([`connection`],
//! [`inbound`]); [`core::Core`] owns sessions, tasks, logical units and what is at their media. Nothing here is shared
//! with another thread, locks, blocks, or, once it is warm, allocates. What a shard needs of the world it declares as
//! [`driver::Driver`], which is an io_uring in porticod and a seeded world in the simulator, and as [`turn::Mailbox`].

pub mod arbiter;
pub mod budget;
pub mod connection;
pub mod core;
mod debts;
pub mod directory;
pub mod drain;
pub mod driver;
pub mod fencing;
pub mod inbound;
pub mod kept;
pub mod management;
pub mod outgoing;
pub mod penalties;
pub mod pool;
pub mod purpose;
pub mod session;
pub mod slab;
pub mod tag;
pub mod task;
pub mod task_set;
pub mod tokens;
pub mod turn;
pub mod unit;

mod endings;
mod full_feature;
mod logins;
mod pdu;
#[cfg(test)]
mod tests;
mod text;
