//! Plain data that crosses threads: identities, validated configuration, every message on one page.
//!
//! Nothing here does anything. `control` makes these values, `shard` uses them, `daemon` carries them.

pub mod configuration;
pub mod identity;
pub mod login_failures;
pub mod lun_map;
pub mod message;
pub mod meter;
pub mod peer;
