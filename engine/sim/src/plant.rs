//! Faults that are planted, to show that the oracles find them. They are faults of the world around the gateway, never of
//! its code.

use clap::ValueEnum;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// `Installed` is answered before the shard has drained.
    DrainRemoved,
    /// The same, of installs of a persistent reservation alone.
    PreemptionNotDrained,
    /// A session that gives way to another one counts as ended before it is.
    ReinstatementNotDrained,
    /// Syncs and durable writes end before anything is durable.
    ReplyBeforeSync,
    /// What one session is answered goes to another now and then.
    RepliesSwapped,
    /// Control hears of no orphan, and neither do the other shards.
    OrphanForgotten,
    /// What is written of a ledger is never made durable.
    LedgerNotSynced,
    /// A ledger counts as written before it is.
    LedgerLate,
    /// Task attributes are lost on the way: every command is SIMPLE.
    AttributesLost,
    /// A medium's volatile cache is not flushed when MODE SELECT turns it off.
    CacheNotFlushed,
}
