//! DEVICE_GROUP: asymmetric logical unit access (SPC-5 §5.18), as scst.conf writes it.

use super::{KeptAttribute, Source};

/// Devices that share their target port groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceGroup {
    /// Its name: unique.
    pub name: String,
    /// Names of devices, each of which is known. A device is in one group at most.
    pub devices: Vec<String>,
    /// The target port groups, in the file's order.
    pub target_groups: Vec<TargetGroup>,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
    /// Where its section opens.
    pub source: Source,
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its name: unique in its device group.
    pub name: String,
    /// TARGET PORT GROUP; unique in its device group.
    pub group_id: u16,
    /// PREF.
    pub preferred: bool,
    /// ASYMMETRIC ACCESS STATE.
    pub state: AluaState,
    /// The target ports in it, of this gateway and of others.
    pub targets: Vec<TargetReference>,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
    /// Where its section opens.
    pub source: Source,
}

/// A target port in a target port group, by name: of this gateway, or of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetReference {
    /// The target's name, as written.
    pub name: String,
    /// RELATIVE TARGET PORT IDENTIFIER, for a port of another gateway.
    pub rel_tgt_id: Option<u16>,
}

/// ASYMMETRIC ACCESS STATE (SPC-5 table 249).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AluaState {
    /// `active`.
    #[default]
    Active,
    /// `nonoptimized`.
    NonOptimized,
    /// `standby`.
    Standby,
    /// `unavailable`.
    Unavailable,
    /// `offline`.
    Offline,
    /// `transitioning`.
    Transitioning,
}

impl AluaState {
    /// Every state with its word in scst.conf.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("active", Self::Active),
        ("nonoptimized", Self::NonOptimized),
        ("standby", Self::Standby),
        ("unavailable", Self::Unavailable),
        ("offline", Self::Offline),
        ("transitioning", Self::Transitioning),
    ];

    /// The state that a word of scst.conf means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, state)| *state)
    }
}
