//! The keys of RFC 7143 §13 (and §13.25's obsolete ones, and RFC 7144's protocol level) as one table.
//!
//! Data only: who may send a key, in which phase, how its value is read, how the result is computed, and its default.
//! What is done with a row is in [`super`]. A key that is not in this table is not understood (§6.2).

/// A key of §13. The discriminant is the row in [`RULES`] and the slot in [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the standard's; each row of RULES cites its section.
pub enum Key {
    HeaderDigest,
    DataDigest,
    MaxConnections,
    SendTargets,
    TargetName,
    InitiatorName,
    TargetAlias,
    InitiatorAlias,
    TargetAddress,
    TargetPortalGroupTag,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPduInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    SessionType,
    AuthMethod,
    TaskReporting,
    ProtocolLevel,
    IfMarker,
    OfMarker,
    IfMarkInt,
    OfMarkInt,
}

/// How many keys the table has.
pub(super) const KEYS: usize = 29;

/// One number per key: a boolean is 0 or 1, a choice is its index, a set of supported choices is a bit mask.
/// Keys that carry names have an unused slot.
pub(super) type Values = [u32; KEYS];

/// Who may send a key ("Senders" in §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Senders {
    Initiator,
    Target,
    Both,
}

/// In which phases a key may be sent ("Use" in §13, with the rule of §13 on the security stage).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phases(pub(super) u8);

pub(super) const SECURITY: Phases = Phases(1);
pub(super) const OPERATIONAL: Phases = Phases(2);
pub(super) const FULL_FEATURE: Phases = Phases(4);
/// Either stage of login: the declarations that §13 admits in the security stage too.
const LOGIN: Phases = Phases(1 | 2);
/// "ALL" in §13, for a key that the security stage does not admit.
const OPERATIONAL_AND_LATER: Phases = Phases(2 | 4);
/// "ALL" in §13, for a declaration that the security stage admits.
const ALL: Phases = Phases(1 | 2 | 4);

/// How a value is read, and how the result is computed of the two sides' values (§6.2.1, §6.2.2).
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A list in the proposer's order of preference; the first that the acceptor supports wins.
    Choice(&'static [&'static str]),
    /// Yes or No; the result is Yes when both say Yes.
    And,
    /// Yes or No; the result is Yes when either says Yes.
    Or,
    /// A number in this range; the smaller wins.
    Least(u32, u32),
    /// A number in this range; the larger wins.
    Greatest(u32, u32),
    /// A number in this range that its sender declares; nothing is answered.
    DeclaredNumber(u32, u32),
    /// A text that its sender declares and the caller keeps; nothing is answered.
    DeclaredText,
    /// An obsolete key, always answered with this (§13.25).
    Obsolete(&'static str),
}

/// One row: all that §13 says of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) key: Key,
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) phases: Phases,
    pub(super) senders: Senders,
    /// "Irrelevant when: SessionType=Discovery".
    pub(super) normal_session_only: bool,
    /// What holds when the key is not negotiated.
    pub(super) default: u32,
}

/// The digests of §13.1; the index is what [`Values`] keeps.
pub(super) const DIGESTS: &[&str] = &["None", "CRC32C"];
/// The authentication methods of §12.1 that are still in force.
pub(super) const AUTH_METHODS: &[&str] = &["None", "CHAP", "SRP", "KRB5"];
/// The task reporting semantics of §13.23.
pub(super) const TASK_REPORTING: &[&str] = &["RFC3720", "ResponseFence", "FastAbort"];

/// The largest length that a 24-bit field carries; the upper end of every length key.
pub const DATA_LENGTH_MAX: u32 = (1 << 24) - 1;
/// The lower end of every length key.
pub const DATA_LENGTH_MIN: u32 = 512;
/// MaxRecvDataSegmentLength before anybody declares it, and the limit of every Login PDU (§13.12).
pub const DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH: u32 = 8192;

const LENGTH: Form = Form::Least(DATA_LENGTH_MIN, DATA_LENGTH_MAX);

const fn operational(key: Key, name: &'static str, form: Form, default: u32) -> Rule {
    Rule { key, name, form, phases: OPERATIONAL, senders: Senders::Both, normal_session_only: true, default }
}

const fn any_session(key: Key, name: &'static str, form: Form, default: u32) -> Rule {
    Rule { normal_session_only: false, ..operational(key, name, form, default) }
}

const fn declared(key: Key, name: &'static str, phases: Phases, senders: Senders) -> Rule {
    Rule { phases, senders, ..any_session(key, name, Form::DeclaredText, 0) }
}

/// The table, in the order of [`Key`].
pub(super) const RULES: [Rule; KEYS] = [
    /* 13.1  */ any_session(Key::HeaderDigest, "HeaderDigest", Form::Choice(DIGESTS), 0),
    /* 13.1  */ any_session(Key::DataDigest, "DataDigest", Form::Choice(DIGESTS), 0),
    /* 13.2  */ operational(Key::MaxConnections, "MaxConnections", Form::Least(1, 65535), 1),
    /* 13.3  */ declared(Key::SendTargets, "SendTargets", FULL_FEATURE, Senders::Initiator),
    /* 13.4  */ declared(Key::TargetName, "TargetName", LOGIN, Senders::Both),
    /* 13.5  */ declared(Key::InitiatorName, "InitiatorName", LOGIN, Senders::Initiator),
    /* 13.6  */ declared(Key::TargetAlias, "TargetAlias", ALL, Senders::Target),
    /* 13.7  */ declared(Key::InitiatorAlias, "InitiatorAlias", ALL, Senders::Initiator),
    /* 13.8  */ declared(Key::TargetAddress, "TargetAddress", ALL, Senders::Target),
    /* 13.9  */ declared(Key::TargetPortalGroupTag, "TargetPortalGroupTag", LOGIN, Senders::Target),
    /* 13.10 */ operational(Key::InitialR2T, "InitialR2T", Form::Or, 1),
    /* 13.11 */ operational(Key::ImmediateData, "ImmediateData", Form::And, 1),
    /* 13.12 */
    Rule {
        phases: OPERATIONAL_AND_LATER,
        ..any_session(
            Key::MaxRecvDataSegmentLength,
            "MaxRecvDataSegmentLength",
            Form::DeclaredNumber(DATA_LENGTH_MIN, DATA_LENGTH_MAX),
            DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH,
        )
    },
    /* 13.13 */ operational(Key::MaxBurstLength, "MaxBurstLength", LENGTH, 262_144),
    /* 13.14 */ operational(Key::FirstBurstLength, "FirstBurstLength", LENGTH, 65_536),
    /* 13.15 */ any_session(Key::DefaultTime2Wait, "DefaultTime2Wait", Form::Greatest(0, 3600), 2),
    /* 13.16 */ any_session(Key::DefaultTime2Retain, "DefaultTime2Retain", Form::Least(0, 3600), 20),
    /* 13.17 */ operational(Key::MaxOutstandingR2T, "MaxOutstandingR2T", Form::Least(1, 65535), 1),
    /* 13.18 */ operational(Key::DataPduInOrder, "DataPDUInOrder", Form::Or, 1),
    /* 13.19 */ operational(Key::DataSequenceInOrder, "DataSequenceInOrder", Form::Or, 1),
    /* 13.20 */ any_session(Key::ErrorRecoveryLevel, "ErrorRecoveryLevel", Form::Least(0, 2), 0),
    /* 13.21 */ declared(Key::SessionType, "SessionType", LOGIN, Senders::Initiator),
    /* 12.1  */
    Rule { phases: SECURITY, ..any_session(Key::AuthMethod, "AuthMethod", Form::Choice(AUTH_METHODS), 0) },
    /* 13.23 */ operational(Key::TaskReporting, "TaskReporting", Form::Choice(TASK_REPORTING), 0),
    /* 13.24 */ operational(Key::ProtocolLevel, "iSCSIProtocolLevel", Form::Least(0, 31), 1),
    // §13.25: the marker booleans MAY be answered "No", which initiators of RFC 3720 read without surprise; the
    // marker intervals MUST be answered "Reject".
    /* 13.25 */
    any_session(Key::IfMarker, "IFMarker", Form::Obsolete("No"), 0),
    /* 13.25 */ any_session(Key::OfMarker, "OFMarker", Form::Obsolete("No"), 0),
    /* 13.25 */ any_session(Key::IfMarkInt, "IFMarkInt", Form::Obsolete("Reject"), 0),
    /* 13.25 */ any_session(Key::OfMarkInt, "OFMarkInt", Form::Obsolete("Reject"), 0),
];

const _: () = {
    let mut row = 0;
    while row < KEYS {
        assert!(RULES[row].key as usize == row, "the table is in the order of Key");
        row += 1;
    }
    assert!(KEYS <= 32, "one bit of a u32 says whether a key has been seen");
};

impl Phases {
    pub(super) const fn admits(self, phase: Phases) -> bool {
        self.0 & phase.0 == phase.0
    }
}

impl Key {
    /// Whether only the first connection of a session negotiates it (§13, "Use: LO"). SessionType is one of them, too, and is
    /// no negotiation.
    pub(super) const fn is_leading_only(self) -> bool {
        let rule = &RULES[self as usize];
        rule.normal_session_only
            || matches!(self, Self::DefaultTime2Wait | Self::DefaultTime2Retain | Self::ErrorRecoveryLevel)
    }

    /// The key with this name; names are case-sensitive (§6.1).
    #[must_use]
    pub fn named(name: &str) -> Option<Key> {
        RULES.iter().find(|rule| rule.name == name).map(|rule| rule.key)
    }

    /// The standard's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    pub(super) fn rule(self) -> &'static Rule {
        &RULES[self as usize]
    }
}
