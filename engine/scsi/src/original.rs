//! The original of a logical unit's shared state, with the single writer: takes one [`Change`] at a time and makes the
//! next generation of the replicas out of it.

use crate::unit::ModeValues;

/// A command's effect that more than one shard can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// RESERVE (6) or (10).
    Reserve,
    /// RELEASE (6) or (10).
    Release,
    /// MODE SELECT: the values as they are to be.
    ModeSelect(ModeValues),
    /// START STOP UNIT: load the medium.
    Load,
    /// START STOP UNIT: eject the medium.
    Eject,
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventRemoval {
        /// Removal is prevented by this nexus, or no longer.
        prevent: bool,
    },
}
