//! Control: one thread, no data path. It reads the configuration, plans changes, and is the single writer of all that
//! shards share.

pub mod plan;
pub mod scst_conf;
