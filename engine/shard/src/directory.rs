//! The configuration as a login and a discovery see it: who may use which target, through which portal, on which terms.

use std::net::{IpAddr, SocketAddr};

use portico_iscsi::chap::Users;
use portico_iscsi::login::{Admission, Directory, Lookup, Relocation};
use portico_iscsi::negotiate::{DigestChoice, TargetKeys};
use portico_model::configuration::{self, Configuration, Digest, IscsiDriver, Portal, Target};
use portico_ring::Class;
use portico_scsi::ledger::TargetPort;
use portico_scsi::lun::AddressMethod;

/// What we declare as MaxRecvDataSegmentLength where the file does not say: one large chunk, so that a data segment is
/// received into one piece of memory.
const RECEIVE_BYTES_DEFAULT: u32 = 256 << 10;

const _: () = assert!(RECEIVE_BYTES_DEFAULT as usize == Class::Large.bytes());

/// The targets as seen through the portal at which a connection was accepted.
pub struct Portico<'a> {
    /// What is configured.
    pub configuration: &'a Configuration,
    /// Our address that the connection came to.
    pub local: SocketAddr,
}

impl Directory for Portico<'_> {
    fn target(&self, initiator_name: &str, target_name: &str) -> Lookup {
        let portal = self.local.ip().to_canonical();
        let target = self.configuration.target(target_name).filter(|target| target.allows_portal(portal));
        match target {
            None => Lookup::NotFound,
            Some(target) if !self.configuration.serves(target) => Lookup::Disabled,
            Some(target) if target.luns_for(initiator_name, portal).is_none() => Lookup::Forbidden,
            Some(target) => match &target.redirect {
                Some(redirect) if !redirect.leads_to(self.local) => Lookup::Moved(Relocation {
                    address: redirect.target_address(),
                    permanent: redirect.permanent,
                }),
                _ => Lookup::Admitted(self.admission(target)),
            },
        }
    }

    fn users(&self, target_name: Option<&str>) -> Users<'_> {
        let Some(name) = target_name else {
            let IscsiDriver { incoming_users, outgoing_user, .. } = &self.configuration.iscsi;
            return Users { incoming: incoming_users, outgoing: outgoing_user.as_ref() };
        };
        let target = self.configuration.target(name);
        target.map_or_else(Users::default, |target| Users {
            incoming: &target.incoming_users,
            outgoing: target.outgoing_user.as_ref(),
        })
    }
}

impl Portico<'_> {
    fn admission(&self, target: &Target) -> Admission {
        Admission {
            keys: keys_of(target),
            portal_group_tag: self.configuration.portal_group_tag(self.local),
            alias: target.alias.clone(),
            queued_commands: u16::try_from(target.queued_commands).unwrap_or(u16::MAX),
        }
    }

    /// The targets that an initiator may log in to here, with the addresses at which it reaches them: those that
    /// SendTargets names (RFC 7143 §4.3, appendix C). `named` asks for one of them alone.
    pub fn targets_for(&self, initiator_name: &str, named: Option<&str>) -> Vec<(String, Vec<SocketAddr>)> {
        let addresses = self.addresses();
        let mut list = Vec::new();
        for target in &self.configuration.targets {
            let name = target.name.as_str();
            if named.is_some_and(|named| !name.eq_ignore_ascii_case(named)) {
                continue;
            }
            // One that has moved tells where to at login.
            if !matches!(self.target(initiator_name, name), Lookup::Admitted(_) | Lookup::Moved(_)) {
                continue;
            }
            let shown = |address: &SocketAddr| target.allows_portal(address.ip().to_canonical());
            list.push((name.to_owned(), addresses.iter().copied().filter(shown).collect()));
        }
        list
    }

    /// Where we are reached: a portal on every address is named by the one that the initiator found.
    fn addresses(&self) -> Vec<SocketAddr> {
        let local = SocketAddr::new(self.local.ip().to_canonical(), self.local.port());
        let mut addresses = vec![local];
        for Portal(portal) in &self.configuration.portals {
            let meant = !portal.ip().is_unspecified() && portal.port() != 0;
            let shown = meant && self.configuration.shows(portal.ip());
            if shown && same_family(portal.ip(), local.ip()) && !addresses.contains(portal) {
                addresses.push(*portal);
            }
        }
        addresses
    }
}

fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

/// The target's own values: what the file fixes, else ours.
fn keys_of(target: &Target) -> TargetKeys {
    let file = &target.negotiated;
    let default = TargetKeys { max_recv_data_segment_length: RECEIVE_BYTES_DEFAULT, ..TargetKeys::default() };
    let max_burst_length = file.max_burst_length.unwrap_or(default.max_burst_length);
    TargetKeys {
        max_recv_data_segment_length: file
            .max_recv_data_segment_length
            .unwrap_or(default.max_recv_data_segment_length),
        max_burst_length,
        first_burst_length: file
            .first_burst_length
            .unwrap_or(default.first_burst_length)
            .min(max_burst_length),
        initial_r2t: file.initial_r2t.unwrap_or(default.initial_r2t),
        immediate_data: file.immediate_data.unwrap_or(default.immediate_data),
        max_connections: file.max_connections.unwrap_or(default.max_connections),
        error_recovery_level: file.error_recovery_level.unwrap_or(default.error_recovery_level),
        max_outstanding_r2t: file.max_outstanding_r2t.unwrap_or(default.max_outstanding_r2t),
        header_digest: digests_of(&file.header_digest),
        data_digest: digests_of(&file.data_digest),
        ..default
    }
}

/// The digests that the file allows; all where it is silent.
fn digests_of(file: &[Digest]) -> DigestChoice {
    match (file.contains(&Digest::None), file.contains(&Digest::Crc32c)) {
        (true, false) => DigestChoice::None,
        (false, true) => DigestChoice::Crc32c,
        _ => DigestChoice::Either,
    }
}

/// What a session's target says of how its logical units are addressed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// How REPORT LUNS spells a LUN.
    pub address_method: AddressMethod,
    /// RELATIVE TARGET PORT IDENTIFIER: the file's, else the target's place among all, from 1 (SPC-4 §7.8.6.7).
    pub relative_target_port: u16,
}

impl Place {
    /// That of a session to this target through this portal group; of a discovery session, nothing.
    #[must_use]
    pub fn of(configuration: &Configuration, target_name: Option<&str>, portal_group_tag: u16) -> Self {
        let found = target_name.and_then(|name| configuration.target(name));
        let Some(target) = found else { return Self::default() };
        let address_method = match target.address_method {
            configuration::AddressMethod::Peripheral => AddressMethod::Peripheral,
            configuration::AddressMethod::Flat => AddressMethod::Flat,
            configuration::AddressMethod::Lun => AddressMethod::LogicalUnit,
        };
        let relative_target_port = configuration.relative_target_port_at(target, portal_group_tag);
        Self { address_method, relative_target_port }
    }
}

/// All ports of a session's target, one for each portal group, with their names as designators have them (RFC 7143
/// §4.4.2); none for discovery.
#[must_use]
pub fn target_ports(configuration: &Configuration, target_name: Option<&str>) -> Box<[TargetPort]> {
    let Some(target) = target_name.and_then(|name| configuration.target(name)) else { return Box::default() };
    let ports = configuration.target_ports();
    let its = ports.iter().filter(|port| port.target.name == target.name);
    let name = |tag: u16| format!("{},t,0x{tag:04x}", target.name.as_str());
    its.map(|port| TargetPort { name: name(port.tag), relative_id: port.relative_id }).collect()
}

/// The values of a discovery session.
#[must_use]
pub fn discovery_keys() -> TargetKeys {
    TargetKeys { max_recv_data_segment_length: DISCOVERY_RECEIVE_BYTES, ..TargetKeys::default() }
}

/// What a discovery session may send us in one data segment: it sends names.
const DISCOVERY_RECEIVE_BYTES: u32 = 8192;
