//! Who logs in, and to what: the declarations of the first step (RFC 7143 §6.3, §13.4, §13.5, §13.21).

use super::directory::{Admission, Directory, Lookup, Relocation};
use super::{Options, SessionType};
use crate::negotiate::Key;
use crate::text::Incoming;
use crate::violation::{LoginViolation, Violation};
use crate::wire::LoginStatus;

/// The longest iSCSI name (§4.2.7.2).
const NAME_BYTES_MAX: usize = 223;

/// What the first step said, and what the directory said to that.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) session_type: SessionType,
    pub(super) initiator_name: String,
    pub(super) initiator_alias: Option<String>,
    pub(super) target_name: Option<String>,
    pub(super) admission: Admission,
    /// The tag of the portal group that serves the target which was named; `None` where none was, or none that this initiator
    /// may know of.
    pub(super) served_by: Option<u16>,
    /// The first step has been read to its end once: the names are settled.
    settled: bool,
}

/// Why an initiator that says nothing wrong gets no session here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unwelcome {
    /// The status of the refusal.
    pub(super) status: LoginStatus,
    /// Which target it asked for.
    pub(super) target_name: Option<String>,
    /// TargetAddress, where the target is elsewhere.
    address: Option<String>,
}

impl Unwelcome {
    const fn with(status: LoginStatus) -> Self {
        Self { status, target_name: None, address: None }
    }

    /// The text of the refusal: §11.13.5 has one for redirection alone.
    pub(super) fn text(&self) -> Vec<u8> {
        let said = |address| format!("{}={address}\0", Key::TargetAddress.name()).into_bytes();
        self.address.as_ref().map_or_else(Vec::new, said)
    }
}

impl From<Relocation> for Unwelcome {
    fn from(Relocation { address, permanent }: Relocation) -> Self {
        let status = if permanent {
            LoginStatus::TARGET_MOVED_PERMANENTLY
        } else {
            LoginStatus::TARGET_MOVED_TEMPORARILY
        };
        Self { status, target_name: None, address: Some(address) }
    }
}

/// Reads the names out of the first step, wherever in it they stand, and looks them up.
///
/// # Errors
/// Outside: the peer is wrong. Inside: it is right, but not welcome.
pub(super) fn read(
    step: &Incoming,
    directory: &dyn Directory,
    options: &Options,
) -> Result<Result<Identity, Unwelcome>, Violation> {
    let (mut initiator, mut target, mut session_type) = (None, None, SessionType::Normal);
    for pair in step.pairs() {
        let pair = pair?;
        match Key::named(pair.key) {
            Some(Key::InitiatorName) => initiator = Some(name(Key::InitiatorName, pair.value)?),
            Some(Key::TargetName) => target = Some(name(Key::TargetName, pair.value)?),
            Some(Key::SessionType) => session_type = type_of_session(pair.value)?,
            _ => {}
        }
    }
    // §6.3: InitiatorName in every first request, TargetName in those of normal sessions.
    let initiator_name = initiator.ok_or(Violation::Login(LoginViolation::KeyMissing(Key::InitiatorName)))?;
    let lookup = match (session_type, &target) {
        (SessionType::Normal, None) => {
            return Err(Violation::Login(LoginViolation::KeyMissing(Key::TargetName)));
        }
        (SessionType::Normal, Some(target_name)) => directory.target(&initiator_name, target_name),
        (SessionType::Discovery, _) => Lookup::Admitted(Admission {
            keys: options.discovery,
            portal_group_tag: 0,
            alias: None,
            queued_commands: options.discovery_queued_commands,
        }),
    };
    let unwelcome = match lookup {
        Lookup::Admitted(admission) => {
            let served_by = match (session_type, &target) {
                (SessionType::Normal, _) => Some(admission.portal_group_tag),
                (SessionType::Discovery, None) => None,
                (SessionType::Discovery, Some(named)) => match directory.target(&initiator_name, named) {
                    Lookup::Admitted(admission) => Some(admission.portal_group_tag),
                    _ => None,
                },
            };
            return Ok(Ok(Identity {
                session_type,
                initiator_name,
                initiator_alias: None,
                target_name: target,
                admission,
                served_by,
                settled: false,
            }));
        }
        Lookup::NotFound => Unwelcome::with(LoginStatus::NOT_FOUND),
        Lookup::Forbidden => Unwelcome::with(LoginStatus::AUTHORIZATION_FAILURE),
        Lookup::Disabled => Unwelcome::with(LoginStatus::SERVICE_UNAVAILABLE),
        Lookup::Moved(relocation) => relocation.into(),
    };
    Ok(Err(Unwelcome { target_name: target, ..unwelcome }))
}

impl Identity {
    /// Takes a declaration that the negotiator has let through. The names of the first step have been read already;
    /// in a later one they come too late (§6.3).
    pub(super) fn declared(&mut self, key: Key, value: &[u8]) -> Result<(), Violation> {
        match key {
            Key::InitiatorAlias => self.initiator_alias = Some(String::from_utf8_lossy(value).into_owned()),
            Key::InitiatorName | Key::TargetName | Key::SessionType if self.settled => {
                return Err(Violation::Login(LoginViolation::KeyTooLate(key)));
            }
            _ => {}
        }
        Ok(())
    }

    /// The target that the session is with; none in discovery, whatever name was given.
    pub(super) fn target_of_session(&self) -> Option<&str> {
        self.target_name.as_deref().filter(|_| self.session_type == SessionType::Normal)
    }

    /// The first step has been read to its end.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }
}

/// §4.2.7: a name is text without whitespace or control characters. Its form (iqn., eui., naa.) is nobody's business
/// here: a name that no directory knows is refused there.
fn name(key: Key, value: &[u8]) -> Result<String, Violation> {
    let text =
        core::str::from_utf8(value).map_err(|_| Violation::Login(LoginViolation::NameMalformed(key)))?;
    let well_formed = !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.chars().any(|character| character.is_whitespace() || character.is_control());
    if well_formed { Ok(text.to_owned()) } else { Err(Violation::Login(LoginViolation::NameMalformed(key))) }
}

fn type_of_session(value: &[u8]) -> Result<SessionType, Violation> {
    match value {
        b"Normal" => Ok(SessionType::Normal),
        b"Discovery" => Ok(SessionType::Discovery),
        _ => Err(Violation::Login(LoginViolation::SessionTypeUnknown)),
    }
}
