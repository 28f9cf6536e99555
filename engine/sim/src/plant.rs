//! Faults that are planted, to show that the oracles find them. They are faults of the world around the gateway, never of
//! its code.

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// `Installed` is answered before the shard has drained.
    DrainRemoved,
    /// Syncs and durable writes end before anything is durable.
    ReplyBeforeSync,
    /// What one session is answered goes to another now and then.
    RepliesSwapped,
}
