//! A TARGET of the iscsi driver: who may see which LUNs, and on what terms sessions are negotiated.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{ISCSI_PORT, IscsiName, KeptAttribute, Pattern, Source, User};

/// The largest LUN that the flat space addressing method can name (SAM-5 §4.6.8).
pub const LUN_NUMBER_MAX: u16 = 16_383;
/// Commands that one session may have open, if the file does not say: SCST's.
pub const QUEUED_COMMANDS_DEFAULT: u32 = 32;
/// The most that a file may ask for.
pub const QUEUED_COMMANDS_MAX: u32 = 2_048;

/// One TARGET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its iSCSI name, in normal form.
    pub name: IscsiName,
    /// Whether it takes logins. See also [`super::Configuration::serves`].
    pub enabled: bool,
    /// What initiators see that are in no group. Sorted by LUN number, which is unique.
    pub luns: Vec<LunMapping>,
    /// LUN lines whose device belongs to a handler that is not in effect.
    pub unserved_luns: Vec<UnservedLun>,
    /// Initiator groups, in the file's order: the first that matches decides.
    pub groups: Vec<Group>,
    /// Portals at which it shows; empty is everywhere.
    pub allowed_portals: Vec<Pattern>,
    /// Initiators match groups as `iqn#ip`, the address being the portal's.
    pub per_portal_acl: bool,
    /// Who may log in; empty is everybody.
    pub incoming_users: Vec<User>,
    /// Whom we claim to be towards an initiator that asks.
    pub outgoing_user: Option<User>,
    /// What the file fixes of the negotiation.
    pub negotiated: NegotiatedKeys,
    /// QueuedCommands: how far MaxCmdSN runs ahead, 1 to [`QUEUED_COMMANDS_MAX`].
    pub queued_commands: u32,
    /// MaxSessions; `None` (the file's 0) is no limit of its own.
    pub max_sessions: Option<u32>,
    /// NOP-In and response timers.
    pub timers: Timers,
    /// SCSI events are not sent; unit attentions tell the same.
    pub aen_disabled: bool,
    /// TargetAlias.
    pub alias: Option<String>,
    /// Logins are sent elsewhere.
    pub redirect: Option<Redirect>,
    /// RELATIVE TARGET PORT IDENTIFIER, from 1; `None` is ours to give.
    pub rel_tgt_id: Option<u16>,
    /// How REPORT LUNS writes a LUN.
    pub address_method: AddressMethod,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
    /// Where its section opens.
    pub source: Source,
}

/// One GROUP of a target: initiators that see LUNs of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name: unique in its target.
    pub name: String,
    /// Who is in it.
    pub initiators: Vec<Pattern>,
    /// What they see. Sorted by LUN number, which is unique. Empty: nothing.
    pub luns: Vec<LunMapping>,
    /// LUN lines whose device belongs to a handler that is not in effect.
    pub unserved_luns: Vec<UnservedLun>,
    /// How REPORT LUNS writes a LUN; `None` is as the target does.
    pub address_method: Option<AddressMethod>,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
    /// Where its section opens.
    pub source: Source,
}

/// LUN n device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LunMapping {
    /// 0 to [`LUN_NUMBER_MAX`].
    pub lun: u16,
    /// Name of a device that is in the configuration.
    pub device: String,
    /// Writes are refused through this LUN, though the device may take them through another.
    pub read_only: bool,
    /// Where it is written.
    pub source: Source,
}

/// A LUN line whose device we know of and cannot serve: kept so that it can be written back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedLun {
    /// 0 to [`LUN_NUMBER_MAX`].
    pub lun: u16,
    /// The device's name.
    pub device: String,
    /// As in [`LunMapping`].
    pub read_only: bool,
}

/// How a LUN is written (SAM-5 §4.6.6 to §4.6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AddressMethod {
    /// Peripheral device addressing; above 255, flat space.
    #[default]
    Peripheral,
    /// Flat space addressing.
    Flat,
    /// Logical unit addressing.
    Lun,
}

impl AddressMethod {
    /// Every method with its word in scst.conf.
    pub const WORDS: [(&'static str, Self); 3] =
        [("PERIPHERAL", Self::Peripheral), ("FLAT", Self::Flat), ("LUN", Self::Lun)];

    /// The method that a word of scst.conf means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, method)| *method)
    }
}

/// HeaderDigest and DataDigest (RFC 7143 §13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// `None`.
    None,
    /// `CRC32C`.
    Crc32c,
}

/// Keys that the file fixes; `None` is ours to choose. Lengths are in bytes (RFC 7143 §13).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NegotiatedKeys {
    /// InitialR2T.
    pub initial_r2t: Option<bool>,
    /// ImmediateData.
    pub immediate_data: Option<bool>,
    /// MaxRecvDataSegmentLength: what we declare.
    pub max_recv_data_segment_length: Option<u32>,
    /// MaxXmitDataSegmentLength: the most we send, whatever the initiator declares.
    pub max_xmit_data_segment_length: Option<u32>,
    /// MaxBurstLength.
    pub max_burst_length: Option<u32>,
    /// FirstBurstLength.
    pub first_burst_length: Option<u32>,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: Option<u16>,
    /// MaxConnections: how many connections a session may have; `None` is one.
    pub max_connections: Option<u16>,
    /// ErrorRecoveryLevel: the highest that is agreed to; `None` is 0.
    pub error_recovery_level: Option<u8>,
    /// HeaderDigest: those that may be used; empty is all. The order of preference is the initiator's (§13.1).
    pub header_digest: Vec<Digest>,
    /// DataDigest, likewise.
    pub data_digest: Vec<Digest>,
}

/// Timers of a target, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between NOP-Ins on a connection that is silent; 0 sends none.
    pub nop_in_interval_s: u32,
    /// How long the answer to a NOP-In may take.
    pub nop_in_timeout_s: u32,
    /// How long data that we asked for may stay out, and an answer of ours untaken.
    pub rsp_timeout_s: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self { nop_in_interval_s: 30, nop_in_timeout_s: 30, rsp_timeout_s: 90 }
    }
}

/// `redirect "ip[:port] temp|perm"` (RFC 7143 §11.13.5: Target Moved).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// TargetAddress: an address, with its port if the file names one.
    pub address: String,
    /// Moved for good.
    pub permanent: bool,
}

impl Redirect {
    /// TargetAddress: an IPv6 address stands in brackets (RFC 7143 §13.8).
    #[must_use]
    pub fn target_address(&self) -> String {
        match self.address.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => self.address.clone(),
        }
    }

    /// Whether a connection that came to this address of ours has arrived where it is sent.
    #[must_use]
    pub fn leads_to(&self, local: SocketAddr) -> bool {
        let bare = self.address.trim_matches(['[', ']']);
        let without_port = || Some(SocketAddr::new(bare.parse().ok()?, ISCSI_PORT));
        let address = self.address.parse().ok().or_else(without_port);
        address == Some(SocketAddr::new(local.ip().to_canonical(), local.port()))
    }
}

impl Target {
    /// A target with every attribute at its default: disabled, and with no LUN.
    #[must_use]
    pub fn new(name: IscsiName) -> Self {
        Self {
            name,
            enabled: false,
            luns: Vec::new(),
            unserved_luns: Vec::new(),
            groups: Vec::new(),
            allowed_portals: Vec::new(),
            per_portal_acl: false,
            incoming_users: Vec::new(),
            outgoing_user: None,
            negotiated: NegotiatedKeys::default(),
            queued_commands: QUEUED_COMMANDS_DEFAULT,
            max_sessions: None,
            timers: Timers::default(),
            aen_disabled: false,
            alias: None,
            redirect: None,
            rel_tgt_id: None,
            address_method: AddressMethod::default(),
            kept: Vec::new(),
            source: Source::default(),
        }
    }

    /// The group that this initiator belongs to: the first whose pattern matches.
    #[must_use]
    pub fn group_of(&self, initiator: &str, portal: IpAddr) -> Option<&Group> {
        let mut matched = String::new();
        let name = if self.per_portal_acl {
            write!(matched, "{initiator}#{portal}").expect("a String takes all text");
            &matched
        } else {
            initiator
        };
        self.groups.iter().find(|group| group.initiators.iter().any(|pattern| pattern.matches(name)))
    }

    /// What an initiator sees through the portal of that address: its group's LUNs, else the target's own.
    ///
    /// `None` is no access at all: nothing is mapped for it, and a group with no LUNs gives none. Runs at login, not
    /// on the data path.
    #[must_use]
    pub fn luns_for(&self, initiator: &str, portal: IpAddr) -> Option<&[LunMapping]> {
        let luns = match self.group_of(initiator, portal) {
            Some(group) => &group.luns,
            None => &self.luns,
        };
        (!luns.is_empty()).then_some(luns)
    }

    /// Whether the target shows at the portal of that address.
    #[must_use]
    pub fn allows_portal(&self, portal: IpAddr) -> bool {
        let address = portal.to_string();
        self.allowed_portals.is_empty()
            || self.allowed_portals.iter().any(|pattern| pattern.matches(&address))
    }

    /// Whether an initiator must prove who it is.
    #[must_use]
    pub fn demands_authentication(&self) -> bool {
        !self.incoming_users.is_empty()
    }
}

impl Group {
    /// A group with nobody and nothing in it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            initiators: Vec::new(),
            luns: Vec::new(),
            unserved_luns: Vec::new(),
            address_method: None,
            kept: Vec::new(),
            source: Source::default(),
        }
    }
}

impl LunMapping {
    /// A mapping that may be written to.
    #[must_use]
    pub fn new(lun: u16, device: impl Into<String>) -> Self {
        Self { lun, device: device.into(), read_only: false, source: Source::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn target_with_groups(groups: &[(&str, &str, &[u16])]) -> Target {
        let mut target = Target::new(IscsiName::parse("iqn.2026-11.io.portico:t").unwrap());
        target.luns = vec![LunMapping::new(0, "own")];
        for (name, pattern, luns) in groups {
            let mut group = Group::new(*name);
            group.initiators = vec![Pattern::parse(pattern).unwrap()];
            group.luns = luns.iter().map(|&lun| LunMapping::new(lun, *name)).collect();
            target.groups.push(group);
        }
        target
    }

    fn devices<'a>(target: &'a Target, initiator: &str) -> Option<Vec<&'a str>> {
        target.luns_for(initiator, PORTAL).map(|luns| luns.iter().map(|lun| &*lun.device).collect())
    }

    #[test]
    fn groups_come_first_and_then_the_targets_own_luns() {
        let target = target_with_groups(&[("a", "iqn.a*", &[0, 1]), ("b", "iqn.*", &[0])]);
        assert_eq!(devices(&target, "iqn.abc"), Some(vec!["a", "a"]), "the first group that matches decides");
        assert_eq!(devices(&target, "IQN.XYZ"), Some(vec!["b"]));
        assert_eq!(devices(&target, "eui.02004567A425678D"), Some(vec!["own"]));
    }

    #[test]
    fn a_group_with_no_luns_gives_no_access() {
        let target = target_with_groups(&[("empty", "iqn.a*", &[])]);
        assert_eq!(devices(&target, "iqn.abc"), None, "not even to the target's own LUNs");
        assert_eq!(devices(&target, "iqn.xyz"), Some(vec!["own"]));
    }

    #[test]
    fn a_target_without_luns_of_its_own_gives_strangers_nothing() {
        let mut target = target_with_groups(&[("a", "iqn.a*", &[0])]);
        target.luns.clear();
        assert_eq!(devices(&target, "iqn.xyz"), None);
    }

    #[test]
    fn with_per_portal_acl_the_portals_address_is_part_of_the_name() {
        let mut target = target_with_groups(&[("a", "iqn.a#10.0.0.1", &[0, 1])]);
        assert_eq!(devices(&target, "iqn.a"), Some(vec!["own"]));
        target.per_portal_acl = true;
        assert_eq!(devices(&target, "iqn.a"), Some(vec!["a", "a"]));
        assert_eq!(devices(&target, "iqn.ab"), Some(vec!["own"]));
    }

    #[test]
    fn a_redirect_to_where_the_connection_came_leads_nowhere() {
        let leads = |address: &str, local: &str| {
            Redirect { address: address.into(), permanent: false }.leads_to(local.parse().unwrap())
        };
        assert!(leads("10.0.0.1", "10.0.0.1:3260") && leads("10.0.0.1:3261", "[::ffff:10.0.0.1]:3261"));
        assert!(leads("fe80::1", "[fe80::1]:3260"));
        assert!(leads("[fe80::1]", "[fe80::1]:3260") && leads("[fe80::1]:1", "[fe80::1]:1"));
        assert!(!leads("10.0.0.1", "10.0.0.1:3261") && !leads("10.0.0.2", "10.0.0.1:3260"));
        let address = |address: &str| Redirect { address: address.into(), permanent: true }.target_address();
        assert_eq!(
            (address("fe80::1"), address("[fe80::1]:3261")),
            ("[fe80::1]".into(), "[fe80::1]:3261".into())
        );
        assert_eq!(address("10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn allowed_portals_are_patterns_and_none_means_all() {
        let mut target = target_with_groups(&[]);
        assert!(target.allows_portal(PORTAL));
        target.allowed_portals =
            vec![Pattern::parse("192.168.*").unwrap(), Pattern::parse("10.0.0.?").unwrap()];
        assert!(target.allows_portal(PORTAL));
        target.allowed_portals.pop();
        assert!(!target.allows_portal(PORTAL));
    }
}
