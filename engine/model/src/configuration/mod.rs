//! The validated configuration: plain data that control hands to every shard.
//!
//! What stands here has passed every check of `control::scst_conf`: names resolve, ranges hold, LUN numbers are
//! unique. A shard reads it behind an `Arc` and never changes it. Nothing here opens a file, looks up a name or
//! knows the text it came from, except for a [`Source`] that lets a message point at a line.
//!
//! The words are those of scst.conf (SCST's configuration file) and of RFC 7143; the defaults are SCST's.

mod device;
mod device_group;
mod embedded;
mod identity;
mod name;
mod pattern;
mod portal;
mod source;
mod target;

use std::net::IpAddr;

pub use device::{
    BLOCK_SIZE_BYTES_DEFAULT, BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES_MIN, Device, DeviceIdentifier, Handler,
    IdentityOverrides, NULLIO_SIZE_BYTES_DEFAULT, OPT_TRANS_LEN_BYTES_DEFAULT, RBD_CLIENT_DEFAULT, RbdImage,
};
pub use device_group::{AluaState, DeviceGroup, TargetGroup, TargetReference};
pub use embedded::{EMBEDDED_TARGET, embedded_default};
pub use identity::identity;
pub use name::{IscsiName, NAME_LENGTH_BYTES_MAX, NameDeparture, NameFault};
pub use pattern::{PATTERN_LENGTH_BYTES_MAX, Pattern, PatternFault};
pub use portal::{GroupedPortal, PORTAL_GROUP_TAG_DEFAULT, Portal, TargetPort};
pub use portico_iscsi::chap::{Secret, User};
pub use source::Source;
pub use target::{
    AddressMethod, Digest, Group, LUN_NUMBER_MAX, LunMapping, NegotiatedKeys, QUEUED_COMMANDS_DEFAULT,
    QUEUED_COMMANDS_MAX, Redirect, Target, Timers, UnservedLun,
};

/// The port of iSCSI (RFC 7143 §2.2; IANA).
pub const ISCSI_PORT: u16 = 3260;

/// DEVICEs that one configuration may hold.
pub const DEVICES_MAX: usize = 16_384;

/// TARGETs that one configuration may hold.
pub const TARGETS_MAX: usize = 4_096;

/// LUN lines of one target, or of one of its groups.
pub const LUNS_MAX: usize = 16_384;

const _: () = assert!(LUNS_MAX == LUN_NUMBER_MAX as usize + 1);

/// Everything that a configuration says, checked.
///
/// Two configurations are equal when they ask for the same gateway: where a thing is written ([`Source`]) does not count.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Configuration {
    /// The core's attributes, outside of every section.
    pub core: Core,
    /// DEVICEs of the handlers that are in effect, in the file's order. Names are unique.
    pub devices: Vec<Device>,
    /// The attributes of `TARGET_DRIVER iscsi`.
    pub iscsi: IscsiDriver,
    /// TARGETs of `TARGET_DRIVER iscsi`, in the file's order. Names are unique.
    pub targets: Vec<Target>,
    /// LUNs of `TARGET_DRIVER copy_manager`: what EXTENDED COPY may reach. Sorted by LUN number. Not yet in effect.
    pub copy_manager: Vec<LunMapping>,
    /// DEVICE_GROUPs (ALUA), in the file's order.
    pub device_groups: Vec<DeviceGroup>,
    /// Where the gateway listens: what the file and the command line name, else everywhere. Never empty once control has it.
    pub portals: Vec<Portal>,
    /// Sections of handlers and drivers that we do not have, kept so that they can be written back.
    pub foreign: Vec<ForeignSection>,
}

impl Configuration {
    /// The device of that name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// The target of that name, which is compared in its normal form (RFC 7143 §4.2.7).
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name.as_str().eq_ignore_ascii_case(name))
    }

    /// RELATIVE TARGET PORT IDENTIFIER of a target (SPC-4 §7.8.6.7): the file's, else the target's place among all, from 1,
    /// or the next that is free where the file gives that to another port.
    #[must_use]
    pub fn relative_target_port(&self, target: &Target) -> u16 {
        let derived = || {
            let place = self.targets.iter().position(|other| other.name == target.name)?;
            self.first_port_ids().get(place).copied()
        };
        target.rel_tgt_id.or_else(derived).unwrap_or(0)
    }

    /// Whether initiators may log in to this target: the target *and* the driver must be enabled.
    #[must_use]
    pub fn serves(&self, target: &Target) -> bool {
        self.iscsi.enabled && target.enabled
    }
}

/// The core's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Core {
    /// Tells gateways apart whose devices have the same names: the upper half of every default serial number.
    pub setup_id: u32,
    /// How long a shard may spin before it blocks, in microseconds; 0 is not at all.
    pub poll_us: u32,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
}

/// The attributes of `TARGET_DRIVER iscsi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiDriver {
    /// `enabled`: nothing is served while it is not.
    pub enabled: bool,
    /// Who may discover (discovery sessions only); empty is everybody.
    pub incoming_users: Vec<User>,
    /// Whom we claim to be towards an initiator that asks, in discovery.
    pub outgoing_user: Option<User>,
    /// Where the file says to listen, in its order; each address once.
    pub portals: Vec<GroupedPortal>,
    /// An address that discovery shows to nobody but who came to it.
    pub internal_portal: Option<IpAddr>,
    /// Whether discovery shows link-local addresses to who came to another.
    pub link_local: bool,
    /// Accepted attributes that are not in effect.
    pub kept: Vec<KeptAttribute>,
    /// Where the section opens.
    pub source: Source,
}

impl Default for IscsiDriver {
    fn default() -> Self {
        Self {
            enabled: false,
            incoming_users: Vec::new(),
            outgoing_user: None,
            portals: Vec::new(),
            internal_portal: None,
            link_local: true,
            kept: Vec::new(),
            source: Source::default(),
        }
    }
}

/// An attribute that was accepted and checked, and has no effect yet. Its value is kept so that it can be written back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptAttribute {
    /// Its name, as the schema spells it.
    pub name: String,
    /// Its value, unescaped.
    pub value: String,
}

/// A section of a handler or target driver that we do not have, or a statement inside one.
///
/// `Debug` shows no values: we do not know which of them are secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ForeignSection {
    /// One to three words, unescaped: `HANDLER dev_disk`, `LUN 0 disk`, `enabled 1`.
    pub words: Vec<String>,
    /// What stands between its braces; `None` if it has none.
    pub body: Option<Vec<ForeignSection>>,
}

impl std::fmt::Debug for ForeignSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keyword = self.words.first().map_or("", String::as_str);
        let statements = self.body.as_ref().map_or(0, Vec::len);
        f.debug_struct("ForeignSection").field("keyword", &keyword).field("statements", &statements).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crosses_threads<T: Send + Sync + 'static>() {}

    #[test]
    fn a_configuration_may_be_handed_to_every_shard() {
        crosses_threads::<Configuration>();
    }

    #[test]
    fn the_debug_form_of_a_configuration_holds_no_secret() {
        let user = User { name: "joe".into(), secret: Secret::new("opensesame12") };
        let mut configuration = Configuration::default();
        configuration.iscsi.incoming_users.push(user.clone());
        configuration.iscsi.outgoing_user = Some(user);
        configuration.foreign.push(ForeignSection {
            words: vec!["TARGET_DRIVER".into(), "other".into()],
            body: Some(vec![ForeignSection {
                words: vec!["IncomingUser".into(), "joe opensesame12".into()],
                body: None,
            }]),
        });
        let shown = format!("{configuration:?}");
        assert!(!shown.contains("opensesame12"), "{shown}");
        assert!(shown.contains("joe"), "the user's name is no secret: {shown}");
    }

    #[test]
    fn moving_a_line_changes_no_configuration() {
        let here = IscsiDriver { source: Source { line: 3 }, ..IscsiDriver::default() };
        let there = IscsiDriver { source: Source { line: 30 }, ..IscsiDriver::default() };
        assert_eq!(here, there);
    }
}
