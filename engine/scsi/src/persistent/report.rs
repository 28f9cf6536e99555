//! PERSISTENT RESERVE IN (SPC-4 §6.15), answered from a replica.

use crate::persistent::{PersistentType, Registrant, Registrations, transport_id};
use crate::reply::Reply;
use crate::reservation::Reservation;

pub(crate) const READ_KEYS: u8 = 0x00;
pub(crate) const READ_RESERVATION: u8 = 0x01;
pub(crate) const REPORT_CAPABILITIES: u8 = 0x02;
pub(crate) const READ_FULL_STATUS: u8 = 0x03;

/// Longest answer: ALLOCATION LENGTH has 16 bits.
pub(crate) const REPLY_BYTES_MAX: usize = u16::MAX as usize;

/// A unit of which nothing is known holds nothing.
static NOTHING: Registrations = Registrations {
    generation: 0,
    persists: false,
    held: None,
    registrants: Vec::new(),
    nexuses: Vec::new(),
};

/// The answer to one service action.
pub(crate) fn answer(service_action: u8, reservation: &Reservation, reply: &mut Reply<'_>) {
    let registrations = match reservation {
        Reservation::Persistent(registrations) => &**registrations,
        Reservation::None | Reservation::Exclusive { .. } => &NOTHING,
    };
    match service_action {
        READ_KEYS => {
            let keys = registrations.registrants.iter().map(|registrant| registrant.key);
            listed(registrations, reply, |reply| keys.for_each(|key| reply.be64(key)));
        }
        READ_RESERVATION => {
            listed(registrations, reply, |reply| reservation_descriptor(registrations, reply))
        }
        REPORT_CAPABILITIES => capabilities(registrations, reply),
        READ_FULL_STATUS => {
            let registrants = registrations.registrants.iter();
            listed(registrations, reply, |reply| {
                registrants.for_each(|registrant| full_status(registrant, registrations.held, reply));
            });
        }
        other => unreachable!("the table serves no service action {other:#04x}"),
    }
}

/// PRGENERATION, ADDITIONAL LENGTH, and what it counts.
fn listed(registrations: &Registrations, reply: &mut Reply<'_>, write: impl FnOnce(&mut Reply<'_>)) {
    reply.be32(registrations.generation);
    reply.be32(0);
    write(reply);
    let length = u32::try_from(reply.position() - 8).expect("registrants are bounded");
    reply.patch(4, &length.to_be_bytes());
}

/// §6.15.3: where all registrants hold it, the key is 0.
fn reservation_descriptor(registrations: &Registrations, reply: &mut Reply<'_>) {
    let Some(kind) = registrations.held else { return };
    let holder = registrations.registrants.iter().find(|registrant| registrant.holder);
    let key = holder.filter(|_| !kind.all_registrants()).map_or(0, |holder| holder.key);
    reply.be64(key);
    reply.be32(0);
    reply.bytes(&[0, kind.code(), 0, 0]);
}

/// CRH, SIP_C, ATP_C, PTPL_C.
const CAPABLE: u8 = 0x10 | 0x08 | 0x04 | 0x01;
/// TMV, and ALLOW COMMANDS 001b: TEST UNIT READY passes Write Exclusive and Exclusive Access.
const TYPES_AND_COMMANDS: u8 = 0x80 | 0x10;
const PTPL_ACTIVATED: u8 = 0x01;

/// §6.15.4.
fn capabilities(registrations: &Registrations, reply: &mut Reply<'_>) {
    let activated = if registrations.persists { PTPL_ACTIVATED } else { 0 };
    reply.be16(8);
    reply.bytes(&[CAPABLE, TYPES_AND_COMMANDS | activated]);
    reply.bytes(&TYPE_MASK);
    reply.be16(0);
}

/// PERSISTENT RESERVATION TYPE MASK: the bit of a code, low codes in the first byte.
const TYPE_MASK: [u8; 2] = {
    let mut mask = 0_u16;
    let mut at = 0;
    while at < PersistentType::ALL.len() {
        mask |= 1 << PersistentType::ALL[at].code();
        at += 1;
    }
    mask.to_le_bytes()
};

/// §6.15.5: each registration is at one target port, so ALL_TG_PT is 0 and the port is named.
fn full_status(registrant: &Registrant, held: Option<PersistentType>, reply: &mut Reply<'_>) {
    let held = held.filter(|_| registrant.holder);
    reply.be64(registrant.key);
    reply.be32(0);
    reply.bytes(&[u8::from(held.is_some()), held.map_or(0, PersistentType::code)]);
    reply.be32(0);
    reply.be16(registrant.relative_target_port);
    let name = &registrant.initiator_port;
    reply.be32(u32::try_from(transport_id::length(name)).expect("a port's name is short"));
    transport_id::write(name, reply);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_types_is_that_of_the_standard() {
        assert_eq!(TYPE_MASK, [0xea, 0x01]);
    }
}
