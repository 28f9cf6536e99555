//! Asymmetric logical unit access (SPC-4 §5.15): target port groups and their states, what each state lets pass, and the
//! two commands that report and set them (§6.37, §6.45).
//!
//! A path is known by the RELATIVE TARGET PORT IDENTIFIER of its target port. Which ports are in which group is the
//! configuration's to say; an initiator may set states where the configuration lets it (explicit management).

use crate::bits::be16;
use crate::reply::Reply;
use crate::sense::{AdditionalSense, Outcome, Sense, SenseKey};

/// ASYMMETRIC ACCESS STATE (SPC-4 table 270).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessState {
    /// 0h.
    ActiveOptimized = 0x0,
    /// 1h.
    ActiveNonOptimized = 0x1,
    /// 2h.
    Standby = 0x2,
    /// 3h.
    Unavailable = 0x3,
    /// Eh.
    Offline = 0xe,
    /// Fh.
    Transitioning = 0xf,
}

impl AccessState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::ActiveOptimized,
        Self::ActiveNonOptimized,
        Self::Standby,
        Self::Unavailable,
        Self::Offline,
        Self::Transitioning,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == code)
    }

    /// What a command must be able to do without to pass (SPC-4 §5.15.2.4).
    const fn barrier(self) -> Access {
        match self {
            Self::ActiveOptimized | Self::ActiveNonOptimized => Access::Active,
            Self::Standby => Access::Standby,
            Self::Unavailable | Self::Offline => Access::Unavailable,
            Self::Transitioning => Access::Transitioning,
        }
    }

    /// What a command that this state does not let pass ends with: NOT READY, with why the path is no way to the unit.
    const fn sense(self) -> Sense {
        let additional = match self {
            Self::ActiveOptimized | Self::ActiveNonOptimized => AdditionalSense::NONE,
            Self::Standby => AdditionalSense::TARGET_PORT_IN_STANDBY_STATE,
            Self::Unavailable => AdditionalSense::TARGET_PORT_IN_UNAVAILABLE_STATE,
            Self::Offline => AdditionalSense::LOGICAL_UNIT_OFFLINE,
            Self::Transitioning => AdditionalSense::ASYMMETRIC_ACCESS_STATE_TRANSITION,
        };
        Sense::new(SenseKey::NotReady, additional)
    }

    /// Whether INQUIRY says that no device is connected by this path (PERIPHERAL QUALIFIER 001b).
    pub(crate) const fn disconnects(self) -> bool {
        matches!(self, Self::Unavailable | Self::Offline)
    }
}

/// The furthest from active that a path may be for a command to be served on it. In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Needs the medium, or what only an active path offers.
    Active,
    /// Served in standby as well.
    Standby,
    /// Served by ports that are unavailable or offline as well.
    Unavailable,
    /// Served in every state.
    Transitioning,
}

/// STATUS CODE: what the last change of a group's state came from (SPC-4 table 272).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum ChangedBy {
    /// 00h: nothing has changed it.
    #[default]
    Nobody = 0,
    /// 01h: SET TARGET PORT GROUPS.
    Initiator = 1,
    /// 02h: the configuration.
    Target = 2,
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortGroup {
    /// TARGET PORT GROUP.
    pub id: u16,
    /// PREF.
    pub preferred: bool,
    /// ASYMMETRIC ACCESS STATE.
    pub state: AccessState,
    /// STATUS CODE.
    pub changed_by: ChangedBy,
    /// Relative identifiers of the target ports in it, of this gateway and of others. No more than [`PORTS_MAX`] are reported.
    pub ports: Vec<u16>,
}

impl TargetPortGroup {
    /// The target port group descriptor (SPC-4 table 269).
    fn report(&self, reply: &mut Reply<'_>) {
        reply.bytes(&[if self.preferred { 0x80 } else { 0 } | self.state as u8, STATES_SUPPORTED]);
        reply.be16(self.id);
        let count = u8::try_from(self.ports.len()).unwrap_or(u8::MAX);
        reply.bytes(&[0, self.changed_by as u8, 0, count]);
        for port in &self.ports[..usize::from(count)] {
            reply.be16(0);
            reply.be16(*port);
        }
    }
}

/// Target ports of one group: their number has one byte (SPC-4 table 269).
pub const PORTS_MAX: usize = u8::MAX as usize;
/// Target port groups of one unit.
pub const GROUPS_MAX: usize = 32;

/// Longest answer of REPORT TARGET PORT GROUPS.
pub(crate) const REPLY_BYTES_MAX: usize = EXTENDED_HEADER_BYTES + (GROUPS_MAX + 1) * (8 + 4 * PORTS_MAX);
const EXTENDED_HEADER_BYTES: usize = 8;

/// IMPLICIT TRANSITION TIME, seconds: how long an initiator should give a group that is in transition. What the Linux
/// initiator assumes where a target says nothing.
const IMPLICIT_TRANSITION_S: u8 = 60;

/// T_SUP, O_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP.
const STATES_SUPPORTED: u8 = 0x80 | 0x40 | 0x08 | 0x04 | 0x02 | 0x01;

/// The target port groups of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortGroups {
    /// Whether SET TARGET PORT GROUPS is served (TPGS 11b), or states change by the configuration alone (01b).
    pub explicit: bool,
    /// At most [`GROUPS_MAX`], in the configuration's order. No port is in two of them.
    pub groups: Vec<TargetPortGroup>,
    /// Ports that an initiator took offline by themselves: the secondary target port group. Each is in one of `groups` as
    /// well.
    pub offline: Vec<u16>,
}

impl TargetPortGroups {
    /// The group of a target port; a port may be in none.
    pub fn group_of(&self, port: u16) -> Option<&TargetPortGroup> {
        self.groups.iter().find(|group| group.ports.contains(&port))
    }

    /// The state of a target port. One that is in no group is active.
    pub fn state_of(&self, port: u16) -> AccessState {
        if self.offline.contains(&port) {
            return AccessState::Offline;
        }
        self.group_of(port).map_or(AccessState::ActiveOptimized, |group| group.state)
    }

    /// TPGS, in its place in byte 5 of INQUIRY data.
    pub(crate) const fn inquiry_bits(&self) -> u8 {
        if self.explicit { 0x30 } else { 0x10 }
    }

    /// Whether a command may come by that port.
    ///
    /// # Errors
    /// What it ends with instead.
    pub fn pass(&self, port: u16, access: Access) -> Result<(), Outcome> {
        let state = self.state_of(port);
        if access >= state.barrier() { Ok(()) } else { Err(Outcome::check(state.sense())) }
    }

    /// Why the unit cannot be reached by that port, if it cannot.
    pub(crate) fn sense_of(&self, port: u16) -> Option<Sense> {
        let state = self.state_of(port);
        (state.barrier() > Access::Active).then(|| state.sense())
    }

    /// The same after SET TARGET PORT GROUPS; `None` where nothing is another. Offline is the state of a port by itself
    /// (SPC-4 §5.15.2.4.6); it goes on with its group when that is given a state.
    ///
    /// # Errors
    /// INVALID FIELD IN PARAMETER LIST for a group or port that there is not.
    pub(crate) fn set(&self, wanted: &[WantedState]) -> Result<Option<Self>, Outcome> {
        let mut new = self.clone();
        for (at, wanted) in (0u16..).zip(wanted) {
            let unknown = Outcome::invalid_parameter(4 + 4 * at + 2, None);
            if wanted.state == AccessState::Offline {
                new.group_of(wanted.id).ok_or(unknown)?;
                if !new.offline.contains(&wanted.id) {
                    new.offline.push(wanted.id);
                }
                continue;
            }
            let group = new.groups.iter_mut().find(|group| group.id == wanted.id).ok_or(unknown)?;
            new.offline.retain(|port| !group.ports.contains(port));
            if group.state != wanted.state {
                (group.state, group.changed_by) = (wanted.state, ChangedBy::Initiator);
            }
        }
        Ok((new != *self).then_some(new))
    }

    /// What holds when `configured` follows on `before` in the configuration: a group of which that says the same as before
    /// keeps the state that an initiator may have given it or a port of it, as long as one could set it back.
    pub(crate) fn reconfigured(&self, before: &Self, configured: &Self) -> Self {
        let mut new = configured.clone();
        for group in &mut new.groups {
            let same_id = |other: &&TargetPortGroup| other.id == group.id;
            let Some(now) = self.groups.iter().find(same_id) else { continue };
            let was = before.groups.iter().find(same_id);
            if configured.explicit && was.is_some_and(|was| was.state == group.state) {
                (group.state, group.changed_by) = (now.state, now.changed_by);
                new.offline.extend(self.offline.iter().filter(|port| group.ports.contains(port)));
            } else if now.state != group.state {
                group.changed_by = ChangedBy::Target;
            } else {
                group.changed_by = now.changed_by;
            }
        }
        new
    }

    /// REPORT TARGET PORT GROUPS (SPC-4 §6.37), with the extended header or the short one.
    pub(crate) fn report(&self, extended: bool, reply: &mut Reply<'_>) {
        reply.be32(0);
        if extended {
            reply.bytes(&[0x10, IMPLICIT_TRANSITION_S, 0, 0]);
        }
        for group in &self.groups {
            group.report(reply);
        }
        if !self.offline.is_empty() {
            let is_free = |id: &u16| self.groups.iter().all(|group| group.id != *id);
            let secondary = TargetPortGroup {
                id: (0..=u16::MAX).rev().find(is_free).expect("groups are few"),
                preferred: false,
                state: AccessState::Offline,
                changed_by: ChangedBy::Initiator,
                ports: self.offline.clone(),
            };
            secondary.report(reply);
        }
        let length = u32::try_from(reply.position() - 4).expect("groups and ports are bounded");
        reply.patch(0, &length.to_be_bytes());
    }
}

/// One descriptor of SET TARGET PORT GROUPS (SPC-4 table 295).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedState {
    /// ASYMMETRIC ACCESS STATE.
    pub state: AccessState,
    /// TARGET PORT GROUP; for offline, which is a port's, its relative identifier.
    pub id: u16,
}

/// The parameter list of SET TARGET PORT GROUPS.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a descriptor that is not whole, INVALID FIELD IN PARAMETER LIST for a state that
/// nobody can set.
pub(crate) fn wanted_states(list: &[u8]) -> Result<Vec<WantedState>, Outcome> {
    let descriptors = list.get(4..).filter(|rest| rest.len() % 4 == 0);
    let descriptors =
        descriptors.ok_or(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR))?.chunks_exact(4);
    let read = |(at, descriptor): (u16, &[u8])| {
        let state = AccessState::from_code(descriptor[0] & 0x0f);
        match state.filter(|state| *state != AccessState::Transitioning) {
            Some(state) => Ok(WantedState { state, id: be16(descriptor, 2) }),
            None => Err(Outcome::invalid_parameter(4 + 4 * at, Some(3))),
        }
    };
    (0u16..).zip(descriptors).map(read).collect()
}
