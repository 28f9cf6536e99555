//! What a PERSISTENT RESERVE OUT comes to (SPC-4 §5.13.5 to §5.13.11), on names alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{NexusName, TargetPort};
use crate::attention::UnitAttention;
use crate::persistent::{OutAction, PersistentOut, PersistentType, Registering, ScopeType, TransportId};
use crate::reservation::NexusId;
use crate::sense::{AdditionalSense, Outcome, Sense};

/// Most registrations of one unit; beyond it, INSUFFICIENT REGISTRATION RESOURCES.
pub const REGISTRANTS_MAX: usize = 256;
const _: () = assert!(REGISTRANTS_MAX < u16::MAX as usize);

/// Registrations and the persistent reservation of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Persistent {
    /// PRGENERATION.
    pub(super) generation: u32,
    /// Reservation keys, none of them 0.
    pub(super) registrants: BTreeMap<NexusName, u64>,
    pub(super) held: Option<Held>,
    /// APTPL of the last registration: all this survives a loss of power.
    pub(super) persists: bool,
}

/// A persistent reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) kind: PersistentType,
    /// A registrant; `None` where all of them hold it.
    pub(super) holder: Option<NexusName>,
}

/// Who asks, and what there is around.
pub(super) struct Around<'a> {
    pub(super) me: &'a NexusName,
    pub(super) attached: &'a BTreeMap<NexusId, NexusName>,
    pub(super) ports: &'a [TargetPort],
}

/// What follows from a change beside itself.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) attentions: Vec<(BTreeSet<NexusName>, UnitAttention)>,
    /// Whose tasks end.
    pub(super) aborted: Option<BTreeSet<NexusName>>,
}

/// Where parameter lists have their SERVICE ACTION RESERVATION KEY, RELATIVE TARGET PORT IDENTIFIER, TransportID, SPEC_I_PT and
/// the TransportIDs after it.
const ACTION_KEY: u16 = 8;
const TARGET_PORT: u16 = 18;
const TRANSPORT_ID: u16 = 24;
const FLAGS: u16 = 20;
const FIRST_OF_OTHERS: u16 = 28;

fn wrong_parameter(at: u16) -> Outcome {
    Outcome::check(Sense::invalid_parameter(at, None))
}

/// TYPE of a reservation that is to be made.
fn kind_of(scope_type: ScopeType) -> Result<PersistentType, Outcome> {
    match scope_type.scope() {
        0 => scope_type.kind().ok_or(Outcome::invalid_cdb_field(2, Some(3))),
        _ => Err(Outcome::invalid_cdb_field(2, Some(7))),
    }
}

impl Persistent {
    /// Whether `name` holds the reservation.
    pub(super) fn is_holder(&self, name: &NexusName) -> bool {
        self.held.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => holder == name,
            None => self.registrants.contains_key(name),
        })
    }

    /// Whether RESERVE and RELEASE of `name` are GOOD (§5.13.3).
    pub(super) fn is_entitled(&self, name: &NexusName) -> bool {
        let registrants_may = self.held.as_ref().is_some_and(|held| held.kind.lets_registrants());
        self.is_holder(name) || registrants_may && self.registrants.contains_key(name)
    }

    /// Applies one command. What it leaves behind after an error is not to be used.
    pub(super) fn apply(&mut self, out: &PersistentOut, around: &Around<'_>) -> Result<Done, Outcome> {
        if let OutAction::Register(registering) = &out.action {
            return self.register(out, registering, around);
        }
        // A reservation that cannot be is refused whoever asks.
        if let OutAction::Reserve(scope_type) = out.action {
            kind_of(scope_type)?;
        }
        // §5.13.5 and on: all others want a registered nexus that knows its key.
        if self.registrants.get(around.me) != Some(&out.reservation_key) {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        match &out.action {
            OutAction::Register(_) => unreachable!("it was dealt with above"),
            OutAction::Reserve(scope_type) => self.reserve(*scope_type, around.me),
            OutAction::Release(scope_type) => self.release(*scope_type, around.me),
            OutAction::Clear => Ok(self.clear(around.me)),
            OutAction::Preempt { scope_type, abort } => {
                self.preempt(out.action_key, *scope_type, *abort, around.me)
            }
            OutAction::RegisterAndMove { unregister, persists, relative_target_port, initiator } => {
                let to = self.destination(out.action_key, *relative_target_port, initiator, around)?;
                self.persists = *persists;
                self.move_to(to, out.action_key, unregister.then_some(around.me))
            }
        }
    }

    /// REGISTER and REGISTER AND IGNORE EXISTING KEY (§5.13.7).
    fn register(
        &mut self,
        out: &PersistentOut,
        registering: &Registering,
        around: &Around<'_>,
    ) -> Result<Done, Outcome> {
        let mine = self.registrants.get(around.me).copied();
        let ignore = registering.ignore_existing;
        if !ignore && mine.unwrap_or(0) != out.reservation_key {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        if mine.is_none() && out.action_key == 0 {
            return Ok(Done::default());
        }
        if registering.initiators.is_some() && mine.is_some() {
            return Err(Outcome::check(Sense::invalid_parameter(FLAGS, Some(3))));
        }
        let mut ports = BTreeSet::from([around.me.target_port()]);
        if registering.all_target_ports {
            ports.extend(around.ports.iter().map(|port| port.name.as_str()));
        }
        let own: Vec<NexusName> =
            ports.iter().map(|port| NexusName::new(around.me.initiator_port(), *port)).collect();
        // As if each port had been asked by itself.
        let known =
            |name: &NexusName| self.registrants.get(name).is_some_and(|key| *key != out.reservation_key);
        if !ignore && own.iter().any(known) {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        let mut done = Done::default();
        if out.action_key == 0 {
            own.iter().for_each(|name| self.unregister(name, &mut done));
        } else {
            // Table 67: others are registered where none of them is.
            let mut news = BTreeSet::new();
            for initiator in registering.initiators.iter().flatten() {
                let others = specified(initiator, &ports, around);
                if others.iter().any(|name| self.registrants.contains_key(name)) {
                    return Err(wrong_parameter(FIRST_OF_OTHERS));
                }
                news.extend(others);
            }
            self.registrants.extend(news.into_iter().map(|name| (name, out.action_key)));
            self.registrants.extend(own.into_iter().map(|name| (name, out.action_key)));
            self.bounded()?;
        }
        self.persists = registering.persists;
        self.generation = self.generation.wrapping_add(1);
        Ok(done)
    }

    fn bounded(&self) -> Result<(), Outcome> {
        match self.registrants.len() {
            ..=REGISTRANTS_MAX => Ok(()),
            _ => Err(Outcome::illegal(AdditionalSense::INSUFFICIENT_REGISTRATION_RESOURCES)),
        }
    }

    /// §5.13.11: a reservation goes with its holder, one of all registrants with the last of them.
    fn unregister(&mut self, name: &NexusName, done: &mut Done) {
        self.registrants.remove(name);
        let released = self.held.take_if(|held| match &held.holder {
            Some(holder) => holder == name,
            None => self.registrants.is_empty(),
        });
        if released.is_some_and(|held| held.kind.lets_registrants()) {
            self.tell_others(name, UnitAttention::ReservationsReleased, done);
        }
    }

    fn tell_others(&self, me: &NexusName, attention: UnitAttention, done: &mut Done) {
        let others = self.registrants.keys().filter(|name| *name != me);
        done.attentions.push((others.cloned().collect(), attention));
    }

    /// §5.13.9: the same reservation once more is no error.
    fn reserve(&mut self, scope_type: ScopeType, me: &NexusName) -> Result<Done, Outcome> {
        let kind = kind_of(scope_type)?;
        match &self.held {
            None => self.held = Some(held_by(me, kind)),
            Some(held) if held.kind == kind && self.is_holder(me) => {}
            Some(_) => return Err(Outcome::RESERVATION_CONFLICT),
        }
        Ok(Done::default())
    }

    /// §5.13.11: nothing to release is no error, the wrong SCOPE or TYPE is.
    fn release(&mut self, scope_type: ScopeType, me: &NexusName) -> Result<Done, Outcome> {
        let mut done = Done::default();
        let Some(held) = &self.held else { return Ok(done) };
        let kind = held.kind;
        if !self.is_holder(me) {
            return Ok(done);
        }
        if scope_type.scope() != 0 || scope_type.kind() != Some(kind) {
            return Err(Outcome::illegal(AdditionalSense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION));
        }
        self.held = None;
        if kind.lets_registrants() {
            self.tell_others(me, UnitAttention::ReservationsReleased, &mut done);
        }
        Ok(done)
    }

    /// CLEAR (§5.13.11).
    fn clear(&mut self, me: &NexusName) -> Done {
        let mut done = Done::default();
        self.tell_others(me, UnitAttention::ReservationsPreempted, &mut done);
        self.held = None;
        self.registrants.clear();
        self.generation = self.generation.wrapping_add(1);
        done
    }

    /// §5.13.11: whoever takes a reservation, and whoever only removes registrations.
    fn preempt(
        &mut self,
        victim_key: u64,
        scope_type: ScopeType,
        abort: bool,
        me: &NexusName,
    ) -> Result<Done, Outcome> {
        let takes = self.held.as_ref().is_some_and(|held| match &held.holder {
            None => victim_key == 0,
            Some(holder) => self.registrants.get(holder) == Some(&victim_key),
        });
        if victim_key == 0 && !takes {
            return Err(wrong_parameter(ACTION_KEY));
        }
        let everybody = victim_key == 0;
        let victims = self.registrants.iter().filter(|(name, key)| {
            // Who takes the reservation stays registered; who only removes registrations may remove its own.
            (everybody || **key == victim_key) && !(takes && *name == me)
        });
        let mut victims: BTreeSet<NexusName> = victims.map(|(name, _)| name.clone()).collect();
        if !takes && victims.is_empty() {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        let mut done = Done::default();
        self.registrants.retain(|name, _| !victims.contains(name));
        if takes {
            let kind = kind_of(scope_type)?;
            let before = self.held.replace(held_by(me, kind));
            if before.is_some_and(|before| before.kind != kind) {
                self.tell_others(me, UnitAttention::ReservationsReleased, &mut done);
            }
        } else if self.registrants.is_empty() {
            self.held = None;
        }
        victims.remove(me);
        self.generation = self.generation.wrapping_add(1);
        done.aborted = abort.then(|| victims.clone());
        done.attentions.push((victims, UnitAttention::RegistrationsPreempted));
        Ok(done)
    }

    /// The nexus to which REGISTER AND MOVE moves (§5.13.8).
    fn destination(
        &self,
        key: u64,
        relative_target_port: u16,
        initiator: &TransportId,
        around: &Around<'_>,
    ) -> Result<NexusName, Outcome> {
        let Some(held) = &self.held else { return Err(Outcome::invalid_cdb_field(1, Some(4))) };
        // By another, or by all registrants.
        if held.holder.as_ref() != Some(around.me) {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        if key == 0 {
            return Err(wrong_parameter(ACTION_KEY));
        }
        let port = around.ports.iter().find(|port| port.relative_id == relative_target_port);
        let port = port.ok_or(wrong_parameter(TARGET_PORT))?;
        match initiator {
            // Its own initiator port is nowhere to move to, not even at another target port.
            TransportId::Port(to) if to != around.me.initiator_port() => Ok(NexusName::new(to, &port.name)),
            TransportId::Port(_) | TransportId::Device(_) => Err(wrong_parameter(TRANSPORT_ID)),
        }
    }

    fn move_to(&mut self, to: NexusName, key: u64, leaving: Option<&NexusName>) -> Result<Done, Outcome> {
        self.registrants.insert(to.clone(), key);
        if let Some(leaving) = leaving {
            self.registrants.remove(leaving);
        }
        self.bounded()?;
        self.held.as_mut().expect("its holder has asked").holder = Some(to);
        self.generation = self.generation.wrapping_add(1);
        Ok(Done::default())
    }
}

fn held_by(me: &NexusName, kind: PersistentType) -> Held {
    Held { kind, holder: (!kind.all_registrants()).then(|| me.clone()) }
}

/// The nexuses that one TransportID after SPEC_I_PT names, at these target ports.
fn specified(initiator: &TransportId, ports: &BTreeSet<&str>, around: &Around<'_>) -> BTreeSet<NexusName> {
    match initiator {
        TransportId::Port(name) => ports.iter().map(|port| NexusName::new(name, *port)).collect(),
        TransportId::Device(_) => {
            let known = around.attached.values();
            let known = known.filter(|name| initiator.names(name) && ports.contains(name.target_port()));
            known.cloned().collect()
        }
    }
}
