//! PERSISTENT RESERVE OUT (SPC-4 §6.16): its parameter list, read once, as a value that the ledger judges.

use crate::bits::{be, be16, be32};
use crate::persistent::{ScopeType, TransportId};
use crate::sense::{AdditionalSense, Outcome, Sense};

/// One PERSISTENT RESERVE OUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentOut {
    /// RESERVATION KEY: who the asker says it is.
    pub reservation_key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub action_key: u64,
    /// What is asked for.
    pub action: OutAction,
}

/// SERVICE ACTION with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutAction {
    /// REGISTER, and REGISTER AND IGNORE EXISTING KEY.
    Register(Registering),
    /// RESERVE.
    Reserve(ScopeType),
    /// RELEASE.
    Release(ScopeType),
    /// CLEAR.
    Clear,
    /// PREEMPT, and PREEMPT AND ABORT.
    Preempt {
        /// Used only where a reservation is preempted.
        scope_type: ScopeType,
        /// The tasks of the preempted nexuses end.
        abort: bool,
    },
    /// REGISTER AND MOVE.
    RegisterAndMove {
        /// UNREG: the asker's registration goes.
        unregister: bool,
        /// APTPL.
        persists: bool,
        /// RELATIVE TARGET PORT IDENTIFIER of the new holder's target port.
        relative_target_port: u16,
        /// The new holder's initiator port.
        initiator: TransportId,
    },
}

/// The parameters of the two REGISTERs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registering {
    /// RESERVATION KEY does not matter.
    pub ignore_existing: bool,
    /// SPEC_I_PT: these initiator ports, too.
    pub initiators: Option<Vec<TransportId>>,
    /// ALL_TG_PT: at every target port.
    pub all_target_ports: bool,
    /// APTPL.
    pub persists: bool,
}

pub(crate) const REGISTER: u8 = 0x00;
pub(crate) const RESERVE: u8 = 0x01;
pub(crate) const RELEASE: u8 = 0x02;
pub(crate) const CLEAR: u8 = 0x03;
pub(crate) const PREEMPT: u8 = 0x04;
pub(crate) const PREEMPT_AND_ABORT: u8 = 0x05;
pub(crate) const REGISTER_AND_IGNORE_EXISTING_KEY: u8 = 0x06;
pub(crate) const REGISTER_AND_MOVE: u8 = 0x07;

/// Length of the basic parameter list, and of what precedes a TransportID.
pub(crate) const BASIC_BYTES: usize = 24;
/// Where the flags of the basic list are.
const FLAGS: u16 = 20;
const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;
const UNREG: u8 = 0x02;

/// The command of this service action, SCOPE and TYPE, with its parameter list.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR, or INVALID FIELD IN PARAMETER LIST.
pub(crate) fn read(service_action: u8, scope_type: ScopeType, data: &[u8]) -> Result<PersistentOut, Outcome> {
    if data.len() < BASIC_BYTES {
        return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let action = match service_action {
        REGISTER_AND_MOVE => register_and_move(data)?,
        _ => basic(service_action, scope_type, data)?,
    };
    Ok(PersistentOut { reservation_key: be::<8>(data, 0), action_key: be::<8>(data, 8), action })
}

fn basic(service_action: u8, scope_type: ScopeType, data: &[u8]) -> Result<OutAction, Outcome> {
    let flags = data[usize::from(FLAGS)];
    let specified = flags & SPEC_I_PT != 0;
    // §6.16.3: only REGISTER takes a list of initiator ports, and without one the list has 24 bytes.
    if specified && service_action != REGISTER {
        return Err(Outcome::check(Sense::invalid_parameter(FLAGS, Some(3))));
    }
    if !specified && data.len() != BASIC_BYTES {
        return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    Ok(match service_action {
        REGISTER | REGISTER_AND_IGNORE_EXISTING_KEY => OutAction::Register(Registering {
            ignore_existing: service_action == REGISTER_AND_IGNORE_EXISTING_KEY,
            initiators: if specified { Some(initiators(data)?) } else { None },
            all_target_ports: flags & ALL_TG_PT != 0,
            persists: flags & APTPL != 0,
        }),
        RESERVE => OutAction::Reserve(scope_type),
        RELEASE => OutAction::Release(scope_type),
        CLEAR => OutAction::Clear,
        PREEMPT => OutAction::Preempt { scope_type, abort: false },
        PREEMPT_AND_ABORT => OutAction::Preempt { scope_type, abort: true },
        other => unreachable!("the table serves no service action {other:#04x}"),
    })
}

/// The TransportIDs after the basic list: all of them whole, or none counts.
fn initiators(data: &[u8]) -> Result<Vec<TransportId>, Outcome> {
    let length = data.get(BASIC_BYTES..BASIC_BYTES + 4).map(|field| be32(field, 0) as usize);
    let Some(length) = length.filter(|length| BASIC_BYTES + 4 + length == data.len()) else {
        return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    };
    let mut at = data.len() - length;
    let mut initiators = Vec::new();
    while at < data.len() {
        let (initiator, length) = TransportId::read(&data[at..]).ok_or_else(|| wrong(at))?;
        initiators.push(initiator);
        at += length;
    }
    Ok(initiators)
}

fn register_and_move(data: &[u8]) -> Result<OutAction, Outcome> {
    if be32(data, 20) as usize != data.len() - BASIC_BYTES {
        return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    match TransportId::read(&data[BASIC_BYTES..]) {
        // A reservation has one holder: a device with all of its ports is no place to move it to.
        Some((initiator @ TransportId::Port(_), length)) if BASIC_BYTES + length == data.len() => {
            Ok(OutAction::RegisterAndMove {
                unregister: data[17] & UNREG != 0,
                persists: data[17] & APTPL != 0,
                relative_target_port: be16(data, 18),
                initiator,
            })
        }
        _ => Err(wrong(BASIC_BYTES)),
    }
}

fn wrong(at: usize) -> Outcome {
    Outcome::check(Sense::invalid_parameter(u16::try_from(at).unwrap_or(u16::MAX), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(flags: u8) -> Vec<u8> {
        let mut data = vec![0; BASIC_BYTES];
        data[7] = 1;
        data[15] = 2;
        data[20] = flags;
        data
    }

    fn length_error() -> Outcome {
        Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)
    }

    #[test]
    fn the_basic_list_has_24_bytes_and_no_others() {
        for action in [REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
            for length in [0, 8, 23, 25, 28] {
                let mut data = list(0);
                data.resize(length, 0);
                assert_eq!(read(action, ScopeType(1), &data), Err(length_error()), "{action} {length}");
            }
            let out = read(action, ScopeType(1), &list(0)).unwrap();
            assert_eq!((out.reservation_key, out.action_key), (1, 2));
        }
    }

    #[test]
    fn only_register_takes_initiator_ports() {
        for action in [RESERVE, RELEASE, CLEAR, PREEMPT, REGISTER_AND_IGNORE_EXISTING_KEY] {
            let refused = Outcome::check(Sense::invalid_parameter(20, Some(3)));
            assert_eq!(read(action, ScopeType(1), &list(SPEC_I_PT)), Err(refused));
        }
        let mut data = list(SPEC_I_PT);
        assert_eq!(read(REGISTER, ScopeType(1), &data), Err(length_error()));
        data.extend([0, 0, 0, 24, 0x05, 0, 0, 20]);
        data.extend(b"iqn.2026-11.test:a\0\0");
        let registering = Registering {
            ignore_existing: false,
            initiators: Some(vec![TransportId::Device("iqn.2026-11.test:a".to_owned())]),
            all_target_ports: false,
            persists: false,
        };
        let out = read(REGISTER, ScopeType(1), &data).unwrap();
        assert_eq!(out.action, OutAction::Register(registering));
        data[28] = 0x06;
        assert_eq!(read(REGISTER, ScopeType(1), &data), Err(wrong(28)), "SAS is another transport");
        data.pop();
        assert_eq!(read(REGISTER, ScopeType(1), &data), Err(length_error()));
    }

    #[test]
    fn a_reservation_moves_to_one_port() {
        let mut data = list(0);
        data[17] = UNREG | APTPL;
        data[19] = 7;
        data[20..].copy_from_slice(&24_u32.to_be_bytes());
        data.extend([0x45, 0, 0, 20]);
        data.extend(b"iqn.x:a,i,0x1\0\0\0\0\0\0\0");
        let moved = OutAction::RegisterAndMove {
            unregister: true,
            persists: true,
            relative_target_port: 7,
            initiator: TransportId::Port("iqn.x:a,i,0x000000000001".to_owned()),
        };
        assert_eq!(read(REGISTER_AND_MOVE, ScopeType(0), &data).unwrap().action, moved);
        data[24] = 0x05;
        assert_eq!(read(REGISTER_AND_MOVE, ScopeType(0), &data), Err(wrong(24)));
        data[23] = 23;
        assert_eq!(read(REGISTER_AND_MOVE, ScopeType(0), &data), Err(length_error()));
    }
}
