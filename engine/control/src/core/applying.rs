//! Bringing a configuration into force: devices first, then what initiators see, portals last.
//!
//! ```text
//!  opening ──every new device is open or has failed, or patience is at an end──▶ binding ──every portal answered──▶ done
//! ```
//! Where portals go, shards close them before others are bound: on one port there is either a portal at every address or
//! one at each of some. A shard closes in its own turn, so that a portal on such a port is tried for a while.
//!
//! The step between the two is one: shards get the configuration, sessions that lose their target or their access end,
//! sessions whose LUNs are others are remapped, everybody else notices nothing. What is then not used any more is closed
//! when the last session has let go of it; nobody waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::configuration::{Configuration, Portal, Target};
use portico_model::identity::{SessionId, TargetId, UnitId};
use portico_model::lun_map::LunMap;
use portico_model::message::{EndReason, ToShard};
use portico_scsi::ledger::TargetPort;

use super::login::units_of;
use super::units::Unit;
use super::{Bound, Control, Exit, Level, Listening, Order, Orders, Stage};
use crate::access::target_port_groups;
use crate::fence::Errand;
use crate::registry::{Ending, target_port_name};

/// How long a new configuration waits for devices that are being opened before it goes on without them.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a portal is tried on the port of one that shards are closing.
pub(super) const BIND_PATIENCE: Duration = Duration::from_secs(5);
/// How long after such an attempt the next one is made.
pub(super) const BIND_RETRY: Duration = Duration::from_millis(100);

/// A configuration on its way into force.
#[derive(Debug)]
pub(super) struct Applying {
    configuration: Arc<Configuration>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Opening {
        until: Moment,
        /// Devices of which neither the medium nor the lack of it is known.
        unsettled: BTreeSet<UnitId>,
    },
    Binding(Binding),
}

/// Portals that do not listen yet.
#[derive(Debug)]
struct Binding {
    missing: BTreeSet<Portal>,
    /// Those of them that were refused, and are tried again at [`Binding::retry_at`].
    refused: BTreeSet<Portal>,
    retry_at: Moment,
    /// Ports that shards were told to close, and until when they may take for it.
    closing: BTreeSet<u16>,
    until: Moment,
}

impl Binding {
    /// Whether a refused portal is tried again.
    fn tries_again(&mut self, portal: Portal, now: Moment) -> bool {
        let tries = self.closing.contains(&portal.0.port()) && now < self.until;
        if tries {
            self.refused.insert(portal);
            self.retry_at = now + BIND_RETRY;
        }
        tries
    }

    /// The portals that are due.
    fn due(&mut self, now: Moment) -> BTreeSet<Portal> {
        if now < self.retry_at {
            return BTreeSet::new();
        }
        self.retry_at = Moment::NEVER;
        std::mem::take(&mut self.refused)
    }
}

impl Applying {
    pub(super) fn next_deadline(&self) -> Moment {
        match &self.phase {
            Phase::Opening { until, .. } => *until,
            Phase::Binding(binding) => binding.retry_at,
        }
    }
}

impl<M: Clone> Control<M> {
    /// Begins to bring a configuration into force, or keeps it until the one before is.
    pub(super) fn apply(
        &mut self,
        configuration: Box<Configuration>,
        force: bool,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        if matches!(self.stage, Stage::Quiescing { .. }) {
            return;
        }
        if self.applying.is_some() {
            self.next_apply = Some((configuration, force));
            return;
        }
        let (wanted, kept) = self.reachable(&configuration, force);
        orders.extend(kept.into_iter().map(|line| Order::Log(Level::Warning, line)));
        self.setup_id = wanted.core.setup_id;
        self.reread_ledgers(orders);
        let groups = target_port_groups(&wanted);
        for device in &wanted.devices {
            let groups = groups.get(device.name.as_str()).cloned();
            match self.unit_ids.get(device.name.as_str()) {
                Some(unit) => self.revise_unit(*unit, device, groups, now, orders),
                None => self.create_unit(device, groups, None, now, orders),
            }
        }
        let named = wanted.devices.iter().filter_map(|device| self.unit_ids.get(device.name.as_str()));
        let phase = Phase::Opening { until: now + OPEN_PATIENCE, unsettled: named.copied().collect() };
        self.applying = Some(Box::new(Applying { configuration: Arc::new(wanted), phase }));
        self.advance(now, orders);
    }

    /// Goes on where something was waited for.
    pub(super) fn advance(&mut self, now: Moment, orders: &mut Orders<M>) {
        if let Some(applying) = &mut self.applying {
            match &mut applying.phase {
                Phase::Opening { until, unsettled } => {
                    let settled = |id: &UnitId| self.units.get(id).is_none_or(Unit::is_settled);
                    while unsettled.first().is_some_and(settled) {
                        unsettled.pop_first();
                    }
                    if *until <= now || unsettled.is_empty() {
                        self.put_in_force(now, orders);
                    }
                }
                Phase::Binding(binding) if binding.missing.is_empty() => self.applied(now, orders),
                Phase::Binding(binding) => orders.extend(binding.due(now).into_iter().map(Order::Bind)),
            }
        }
        self.sweep_units(orders);
    }

    /// From one moment to the next, for logins and discovery, for sessions, and for portals that are no more.
    fn put_in_force(&mut self, now: Moment, orders: &mut Orders<M>) {
        let applying = self.applying.as_mut().expect("the caller has seen it");
        let configuration = Arc::clone(&applying.configuration);
        let missing: BTreeSet<Portal> = configuration
            .portals
            .iter()
            .filter(|portal| !self.portals.contains_key(portal))
            .copied()
            .collect();
        let goes = |portal: &&Portal| !configuration.portals.contains(*portal);
        let gone: Vec<Portal> = self.portals.keys().filter(goes).copied().collect();
        let closing: BTreeSet<u16> = gone
            .iter()
            .filter_map(|portal| self.portals.remove(portal))
            .map(|listening| listening.address.port())
            .collect();
        let listens_on = missing.is_empty() || !closing.is_empty();
        applying.phase = Phase::Binding(Binding {
            missing: missing.clone(),
            refused: BTreeSet::new(),
            retry_at: Moment::NEVER,
            closing,
            until: now + BIND_PATIENCE,
        });
        self.configuration = Arc::clone(&configuration);
        self.name_targets();
        // Sessions learn from it by which port they come; the next says what these ports are.
        self.broadcast(orders, || ToShard::Configure(Arc::clone(&configuration)));
        self.tell_ports(now, orders);
        self.remap_sessions(now, orders);
        let named: BTreeSet<&str> = configuration.devices.iter().map(|device| device.name.as_str()).collect();
        let unnamed = self.unit_ids.iter().filter(|(name, _)| !named.contains(&***name));
        self.doomed.extend(unnamed.map(|(_, id)| *id));
        if listens_on {
            self.listen(orders);
        }
        orders.extend(missing.into_iter().map(Order::Bind));
        self.advance(now, orders);
    }

    /// Gives every target an identity for as long as it is configured.
    fn name_targets(&mut self) {
        let mut named = BTreeMap::new();
        for target in &self.configuration.targets {
            let id = self.target_ids.get(&target.name).copied().unwrap_or_else(|| {
                self.last_target += 1;
                TargetId(self.last_target)
            });
            named.insert(target.name.clone(), id);
        }
        self.target_ids = named;
    }

    /// Tells every unit through which target ports it may be reached, all those of the gateway, as its initiators know them
    /// by their relative identifiers; and how, where it is in a DEVICE_GROUP.
    fn tell_ports(&mut self, now: Moment, orders: &mut Orders<M>) {
        let ports = self.configuration.target_ports();
        let ports: Vec<TargetPort> = ports
            .iter()
            .map(|port| TargetPort {
                name: target_port_name(port.target.name.as_str(), port.tag),
                relative_id: port.relative_id,
            })
            .collect();
        let ports: Arc<[TargetPort]> = ports.into();
        let configuration = Arc::clone(&self.configuration);
        let groups = target_port_groups(&configuration);
        let units: Vec<(UnitId, Arc<str>)> =
            self.units.iter().map(|(id, unit)| (*id, Arc::clone(&unit.name))).collect();
        for (unit, name) in units {
            self.errand(unit, Errand::Ports(Arc::clone(&ports)), now, orders);
            self.errand(unit, Errand::Groups(groups.get(&*name).cloned()), now, orders);
        }
    }

    /// Ends or remaps each session that the configuration in force treats differently.
    fn remap_sessions(&mut self, now: Moment, orders: &mut Orders<M>) {
        let targets: BTreeMap<TargetId, &Target> = self
            .configuration
            .targets
            .iter()
            .filter_map(|target| Some((*self.target_ids.get(&target.name)?, target)))
            .filter(|(_, target)| self.configuration.serves(target))
            .collect();
        let mut verdicts = Vec::<(SessionId, Option<Arc<LunMap>>)>::new();
        for (id, session) in self.registry.iter().filter(|(_, session)| session.ending.is_none()) {
            let Some(target) = session.target else { continue };
            let target = targets.get(&target).filter(|target| target.allows_portal(session.portal));
            let map = target.and_then(|target| self.map_of(target, &session.initiator, session.portal));
            if map.as_ref() != Some(&session.map) {
                verdicts.push((id, map));
            }
        }
        for (id, map) in verdicts {
            match map {
                Some(map) => self.remap(id, map, now, orders),
                None => self.end_session(id, EndReason::TargetRemoved, orders),
            }
        }
    }

    pub(super) fn end_session(&mut self, id: SessionId, reason: EndReason, orders: &mut Orders<M>) {
        let session = self.registry.session_mut(id).expect("the caller has just seen it");
        session.ending = Some(Ending { successor: None });
        orders.push(Order::ToShard(session.shard, ToShard::EndSession { session: id, reason }));
    }

    fn remap(&mut self, id: SessionId, map: Arc<LunMap>, now: Moment, orders: &mut Orders<M>) {
        let session = self.registry.session_mut(id).expect("the caller has just seen it");
        let before = std::mem::replace(&mut session.map, Arc::clone(&map));
        let (nexus, shard, name) = (session.nexus, session.shard, session.name().clone());
        let (old, new) = (units_of(&before), units_of(&map));
        let user_count = |control: &mut Self, unit: &UnitId, more: bool| {
            let users = &mut control.units.get_mut(unit).expect("a map has units that are open").users;
            *users = if more { *users + 1 } else { *users - 1 };
        };
        for unit in new.difference(&old) {
            user_count(self, unit, true);
            self.registry.nexuses.hold_again(nexus);
            self.errand(*unit, Errand::NexusFound(nexus, name.clone()), now, orders);
        }
        orders.push(Order::ToShard(shard, ToShard::Remap { session: id, map }));
        for unit in old.difference(&new) {
            user_count(self, unit, false);
            self.errand(*unit, Errand::NexusLost(nexus), now, orders);
        }
    }

    /// The daemon has bound a portal, or could not.
    pub(super) fn bound(
        &mut self,
        portal: Portal,
        result: Result<Bound, String>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        let Some(Phase::Binding(binding)) = self.applying.as_mut().map(|applying| &mut applying.phase) else {
            return;
        };
        if !binding.missing.contains(&portal) || (result.is_err() && binding.tries_again(portal, now)) {
            return;
        }
        binding.missing.remove(&portal);
        let last = binding.missing.is_empty();
        match result {
            Ok(Bound { socket, address }) => {
                self.portals.insert(portal, Listening { socket: Arc::new(socket), address });
            }
            Err(reason) if self.stage == Stage::Starting => {
                return self.end(Exit::Unclean(format!("cannot listen on {}: {reason}", portal.0)), orders);
            }
            Err(reason) => {
                let line = format!("cannot listen on {}: {reason}", portal.0);
                orders.push(Order::Log(Level::Error, line));
            }
        }
        if last {
            self.listen(orders);
        }
        self.advance(now, orders);
    }

    fn listen(&mut self, orders: &mut Orders<M>) {
        let sockets: Vec<_> = self.portals.values().map(|listening| Arc::clone(&listening.socket)).collect();
        self.broadcast(orders, || ToShard::Listen(sockets.clone()));
    }

    fn applied(&mut self, now: Moment, orders: &mut Orders<M>) {
        self.applying = None;
        self.counters.configurations_applied += 1;
        if self.stage == Stage::Starting {
            self.stage = Stage::Serving;
            orders.push(Order::Ready(Box::new(self.summary())));
        } else {
            orders.push(Order::Log(Level::Info, "the configuration is in force".to_owned()));
        }
        if let Some((configuration, force)) = self.next_apply.take() {
            self.apply(configuration, force, now, orders);
        }
    }
}
