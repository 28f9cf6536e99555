//! Where the gateway listens, and which portals belong together (RFC 7143 §2.2, §4.4.1).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Configuration, ISCSI_PORT, Target};

/// The tag of the portal group of every portal of which the file says no other.
pub const PORTAL_GROUP_TAG_DEFAULT: u16 = 1;

/// A network portal: where the gateway listens (RFC 7143 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Portal(pub SocketAddr);

/// A portal as the file names it: `portal "ADDRESS:PORT TAG"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupedPortal {
    /// Where.
    pub portal: Portal,
    /// The tag of its portal group (RFC 7143 §13.9); each group is a target port of its own to every target.
    pub tag: u16,
}

/// One target port: a target through the portals of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPort<'a> {
    /// Whose.
    pub target: &'a Target,
    /// The tag of the portal group.
    pub tag: u16,
    /// RELATIVE TARGET PORT IDENTIFIER (SPC-4 §7.8.6.7).
    pub relative_id: u16,
}

impl Portal {
    /// The default: port 3260 on every address, as SCST's daemon does it.
    #[must_use]
    pub fn everywhere() -> Vec<Self> {
        vec![
            Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ISCSI_PORT)),
            Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), ISCSI_PORT)),
        ]
    }

    /// Port 3260 on this machine only.
    #[must_use]
    pub fn loopback() -> Vec<Self> {
        vec![Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ISCSI_PORT))]
    }
}

impl Configuration {
    /// The tag of the portal group at one of our addresses: that of the portal that names it, else of one on every address
    /// or every port.
    #[must_use]
    pub fn portal_group_tag(&self, local: SocketAddr) -> u16 {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let portals = || self.iscsi.portals.iter().map(|given| (given.portal.0, given.tag));
        let port_fits = |at: SocketAddr| at.port() == local.port() || at.port() == 0;
        let exact = portals().find(|(at, _)| *at == local);
        let by_address = || portals().find(|(at, _)| at.ip() == local.ip() && port_fits(*at));
        let on_every = || portals().find(|(at, _)| at.ip().is_unspecified() && port_fits(*at));
        exact.or_else(by_address).or_else(on_every).map_or(PORTAL_GROUP_TAG_DEFAULT, |(_, tag)| tag)
    }

    /// The tags of all portal groups, ascending.
    #[must_use]
    pub fn portal_group_tags(&self) -> BTreeSet<u16> {
        let listening = self.portals.iter().map(|portal| self.portal_group_tag(portal.0));
        let named = self.iscsi.portals.iter().map(|given| given.tag);
        let tags: BTreeSet<u16> = listening.chain(named).collect();
        if tags.is_empty() { BTreeSet::from([PORTAL_GROUP_TAG_DEFAULT]) } else { tags }
    }

    /// All target ports. Through the first portal group a target has the identifier that
    /// [`Configuration::relative_target_port`] says, through each further one the next that is free.
    #[must_use]
    pub fn target_ports(&self) -> Vec<TargetPort<'_>> {
        let firsts = self.first_port_ids();
        let mut taken = self.given_port_ids();
        taken.extend(&firsts);
        let mut free = (1..=u16::MAX).filter(|id| !taken.contains(id));
        let mut ports = Vec::new();
        for (number, tag) in self.portal_group_tags().into_iter().enumerate() {
            for (target, first) in self.targets.iter().zip(&firsts) {
                let relative_id = if number == 0 { *first } else { free.next().unwrap_or(0) };
                ports.push(TargetPort { target, tag, relative_id });
            }
        }
        ports
    }

    /// The identifiers that the file gives: to targets of this gateway, and to those of others that are in a DEVICE_GROUP.
    fn given_port_ids(&self) -> BTreeSet<u16> {
        // In their normal form, as those of references need not be.
        let own: BTreeSet<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let groups = self.device_groups.iter().flat_map(|group| &group.target_groups);
        let others = groups
            .flat_map(|group| &group.targets)
            .filter(|reference| !own.contains(reference.name.to_ascii_lowercase().as_str()))
            .filter_map(|reference| reference.rel_tgt_id);
        self.targets.iter().filter_map(|target| target.rel_tgt_id).chain(others).collect()
    }

    /// The identifier of each target through the first portal group: what [`Configuration::relative_target_port`] says.
    pub(super) fn first_port_ids(&self) -> Vec<u16> {
        let mut taken = self.given_port_ids();
        let places = self.targets.iter().zip(1..=u16::MAX);
        let by_place: Vec<Option<u16>> = places
            .map(|(target, place)| target.rel_tgt_id.or_else(|| taken.insert(place).then_some(place)))
            .collect();
        let mut free = (1..=u16::MAX).filter(|id| !taken.contains(id));
        by_place.into_iter().map(|id| id.or_else(|| free.next()).unwrap_or(0)).collect()
    }

    /// RELATIVE TARGET PORT IDENTIFIER of a target through the portal group of this tag.
    #[must_use]
    pub fn relative_target_port_at(&self, target: &Target, tag: u16) -> u16 {
        if self.portal_group_tags().first() == Some(&tag) {
            return self.relative_target_port(target);
        }
        let ports = self.target_ports();
        let found = ports.iter().find(|port| port.tag == tag && port.target.name == target.name);
        found.map_or_else(|| self.relative_target_port(target), |port| port.relative_id)
    }

    /// Whether one of our addresses is told to an initiator that came to another: not a loopback address, which means
    /// something else to it, not `internal_portal`, and link-local ones only as `link_local` has it.
    #[must_use]
    pub fn shows(&self, address: IpAddr) -> bool {
        let hidden = address.is_loopback() || self.iscsi.internal_portal == Some(address);
        !hidden && (self.iscsi.link_local || !is_link_local(address))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => is_unicast_link_local(address),
    }
}

/// fe80::/10.
fn is_unicast_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{AluaState, DeviceGroup, IscsiName, Source, TargetGroup, TargetReference};

    fn with(portals: &[(&str, u16)]) -> Configuration {
        let grouped =
            |(at, tag): &(&str, u16)| GroupedPortal { portal: Portal(at.parse().unwrap()), tag: *tag };
        let mut configuration = Configuration::default();
        configuration.iscsi.portals = portals.iter().map(grouped).collect();
        for (name, id) in [("iqn.2026-11.test:a", None), ("iqn.2026-11.test:b", Some(3))] {
            let mut target = Target::new(IscsiName::parse(name).unwrap());
            target.rel_tgt_id = id;
            configuration.targets.push(target);
        }
        configuration
    }

    #[test]
    fn the_portal_that_names_an_address_says_its_group_before_one_on_every_address() {
        let configuration =
            with(&[("0.0.0.0:3260", 7), ("10.0.0.1:3260", 2), ("[::]:3261", 3), ("10.0.0.9:0", 4)]);
        let tag = |at: &str| configuration.portal_group_tag(at.parse().unwrap());
        assert_eq!(tag("10.0.0.1:3260"), 2);
        assert_eq!(tag("[::ffff:10.0.0.1]:3260"), 2);
        assert_eq!(tag("10.0.0.2:3260"), 7);
        assert_eq!(tag("[fe80::1]:3261"), 3);
        assert_eq!(tag("10.0.0.9:45678"), 4, "a port that the system chose");
        assert_eq!(tag("10.0.0.2:9999"), PORTAL_GROUP_TAG_DEFAULT);
    }

    #[test]
    fn each_target_through_each_group_is_a_port_with_an_identifier_of_its_own() {
        let configuration = with(&[("10.0.0.1:3260", 1), ("10.0.1.1:3260", 2)]);
        let ports: Vec<_> =
            configuration.target_ports().iter().map(|port| (port.tag, port.relative_id)).collect();
        assert_eq!(ports, [(1, 1), (1, 3), (2, 2), (2, 4)]);
        assert_eq!(configuration.relative_target_port_at(&configuration.targets[1], 2), 4);
        let plain = with(&[]);
        assert_eq!(plain.target_ports().len(), 2);
        assert_eq!(plain.relative_target_port_at(&plain.targets[1], 1), 3);
    }

    #[test]
    fn no_identifier_is_that_of_another_port_of_this_gateway_or_of_another_one() {
        let mut configuration = with(&[("10.0.0.1:3260", 1), ("10.0.1.1:3260", 2)]);
        for (name, id) in [("iqn.2026-11.test:c", None), ("iqn.2026-11.test:d", Some(1))] {
            let mut target = Target::new(IscsiName::parse(name).unwrap());
            target.rel_tgt_id = id;
            configuration.targets.push(target);
        }
        let references = [("iqn.2026-11.test:elsewhere", 5), ("iqn.2026-11.test:c", 2)];
        let reference = |(name, id): (&str, u16)| TargetReference { name: name.into(), rel_tgt_id: Some(id) };
        let source = Source { line: 1 };
        let group = TargetGroup {
            name: "x".into(),
            group_id: 1,
            preferred: false,
            state: AluaState::Active,
            targets: references.map(reference).into(),
            kept: Vec::new(),
            source,
        };
        let (name, target_groups) = ("g".into(), vec![group]);
        let group = DeviceGroup { name, devices: Vec::new(), target_groups, kept: Vec::new(), source };
        configuration.device_groups.push(group);
        let ports: Vec<_> =
            configuration.target_ports().iter().map(|port| (port.tag, port.relative_id)).collect();
        let expected = [(1, 2), (1, 3), (1, 4), (1, 1), (2, 6), (2, 7), (2, 8), (2, 9)];
        assert_eq!(ports, expected);
        let first = |at: usize| configuration.relative_target_port(&configuration.targets[at]);
        assert_eq!((0..4).map(first).collect::<Vec<_>>(), [2, 3, 4, 1]);
    }

    #[test]
    fn what_an_initiator_could_not_reach_or_is_not_to_is_not_told() {
        let mut configuration = with(&[]);
        configuration.iscsi.internal_portal = Some("10.0.0.5".parse().unwrap());
        configuration.iscsi.link_local = false;
        for (address, shown) in [
            ("10.0.0.4", true),
            ("10.0.0.5", false),
            ("127.0.0.1", false),
            ("fe80::1", false),
            ("169.254.1.1", false),
        ] {
            assert_eq!(configuration.shows(address.parse().unwrap()), shown, "{address}");
        }
        configuration.iscsi.link_local = true;
        assert!(configuration.shows("fe80::1".parse().unwrap()));
    }
}
