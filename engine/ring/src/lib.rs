//! The io_uring of one shard, and everything that the kernel may touch: buffers, socket addresses, wake-ups.
//!
//! This is the only crate that speaks to io_uring. It knows nothing of iSCSI or SCSI. Its promise to the rest: safe
//! calls only, and *what the kernel holds has been moved into the ring*. A buffer goes in with the operation and comes
//! back in the [`Completion`]; in between nobody else can see it.
//!
//! ```text
//!   Arena ── take ──▶ Buffer ── push ──▶ Segments ── receive / read / write ──┐
//!                        └───── push ──▶ Message  ── send ────────────────────┤
//!                                                                             ▼
//!   turn (one io_uring_enter) ──▶ next_completion ──▶ Completion { tag, result, payload }   Ring
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`arena`] | page-aligned memory in three classes; [`Buffer`], the exclusive owner of a range of it |
//! | [`segments`] | [`Segments`], a bounded list of buffer ranges to receive into, read into or write from |
//! | [`message`] | [`Message`], what one send carries: headers written in place, buffers, lent memory |
//! | [`ring`] | [`Ring`]: operations, the turn, completions |
//! | [`waker`] | [`Waker`], with which another thread or ring ends a ring's sleep |
//! | [`mod@probe`] | what the kernel must offer, and the remedy where it does not |
//! | [`socket`] | listening, connecting, options, addresses |
//!
//! `unsafe` lives in `arena` (mapped memory), `message` (lent memory), `ring` (submission, descriptors that the kernel
//! made) and `waker` (one eventfd); nowhere else.

pub mod arena;
mod files;
mod in_flight;
pub mod message;
pub mod probe;
pub mod ring;
pub mod segments;
pub mod socket;
pub mod waker;

pub use arena::{Arena, ArenaOptions, Buffer, Class, Pages, Usage};
pub use files::Fd;
pub use message::{Lent, Message, MessageLimits};
pub use probe::{Feature, Unsupported, probe};
pub use ring::{Clearing, Completion, Counters, Errno, Full, Options, Payload, Peer, Ring, Wait};
pub use segments::{SEGMENTS_MAX, Segment, Segments};
pub use waker::Waker;
