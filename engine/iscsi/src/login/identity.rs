//! Who logs in, and to what: the declarations of the first step (RFC 7143 §6.3, §13.4, §13.5, §13.21).

use super::directory::{Admission, Directory, Lookup};
use super::{Options, SessionType};
use crate::negotiate::Key;
use crate::text::Incoming;
use crate::violation::{LoginViolation, Violation};
use crate::wire::LoginStatus;

/// The longest iSCSI name (§4.2.7.1).
const NAME_BYTES_MAX: usize = 223;

/// What the first step said, and what the directory said to that.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) session_type: SessionType,
    pub(super) initiator_name: String,
    pub(super) initiator_alias: Option<String>,
    pub(super) target_name: Option<String>,
    pub(super) admission: Admission,
    /// The first step has been read to its end once: the names are settled.
    settled: bool,
}

/// Reads the names out of the first step, wherever in it they stand, and looks them up.
///
/// # Errors
/// Outside: the peer is wrong. Inside: it is right, but not welcome.
pub(super) fn read(
    step: &Incoming,
    directory: &dyn Directory,
    options: &Options,
) -> Result<Result<Identity, LoginStatus>, Violation> {
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
    let admission = match lookup {
        Lookup::Admitted(admission) => admission,
        Lookup::NotFound => return Ok(Err(LoginStatus::NOT_FOUND)),
        Lookup::Forbidden => return Ok(Err(LoginStatus::AUTHORIZATION_FAILURE)),
        Lookup::Disabled => return Ok(Err(LoginStatus::SERVICE_UNAVAILABLE)),
    };
    Ok(Ok(Identity {
        session_type,
        initiator_name,
        initiator_alias: None,
        target_name: target,
        admission,
        settled: false,
    }))
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
