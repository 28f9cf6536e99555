//! RBD images of a Ceph cluster, through librbd in user space, without a kernel mapping.
//!
//! | file | holds |
//! |---|---|
//! | `client` | a client of a cluster and an image open under it; closing them, on a thread of their own |
//! | `store` | [`RbdStore`]: one image for all shards, and how it comes back under a new client |
//! | `queue` | [`RbdQueue`]: one shard's operations, and the completions that librbd's threads bring |
//!
//! What this guards:
//! - **librbd's cache is off, always.** With it on, a write whose OSD operation timed out was answered as good. So a write
//!   that has completed is durable, and there is no volatile cache to promise anything about.
//! - **A write whose outcome is unknown closes the image.** An OSD operation that timed out may still land, on top of a newer
//!   write. Until the old client is on the cluster's blocklist, and the new client has seen the map that says so, no request is
//!   let through; all are answered "in process of becoming ready".
//! - **A client that was blocklisted** (ESHUTDOWN) is replaced by a new one.
//! - **No call that can block runs on a shard**: opening, locking, closing have threads of their own.
//! - Submitting to librbd has no bound of its own: each queue begins at most [`queue::DEPTH_MAX`] operations.

mod client;
pub mod queue;
pub mod store;

pub use queue::RbdQueue;
pub use store::{Health, RbdOptions, RbdStore, open_rbd, wait_until_closed};
