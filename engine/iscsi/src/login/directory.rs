//! What a login has to know of the gateway, as a question: may this initiator use that target here, and on which terms?

use crate::chap::Users;
use crate::negotiate::TargetKeys;

/// The most commands that a session may have in its window at once.
pub const QUEUED_COMMANDS_MAX: u16 = 2048;

/// Who may use what, through the portal at which the connection was accepted.
pub trait Directory {
    /// Looks up a target for an initiator. Both names are as they came: not normalised, 1 to 223 bytes of text.
    fn target(&self, initiator_name: &str, target_name: &str) -> Lookup;

    /// Who may prove what to a target, or, without a name, for discovery (§12.1.3).
    fn users(&self, target_name: Option<&str>) -> Users<'_>;
}

/// What a [`Directory`] says of one initiator and one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The initiator may log in, on these terms.
    Admitted(Admission),
    /// There is no such target at this portal: status 02/03.
    NotFound,
    /// There is, but not for this initiator: status 02/02.
    Forbidden,
    /// There is, but it is not in service: status 03/01.
    Disabled,
    /// It is elsewhere: status 01/01 or 01/02.
    Moved(Relocation),
}

/// Where a target is now (§11.13.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// TargetAddress: an address, with its port if it is not 3260; without a portal group tag (§13.8).
    pub address: String,
    /// Moved for good.
    pub permanent: bool,
}

/// The terms on which a target takes a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The target's own values, which are admissible.
    pub keys: TargetKeys,
    /// The tag of the portal group that the connection came through (§13.9).
    pub portal_group_tag: u16,
    /// A name for people (§13.6), at most 255 bytes.
    pub alias: Option<String>,
    /// How many commands the target takes at once, from 1 to [`QUEUED_COMMANDS_MAX`].
    pub queued_commands: u16,
}
