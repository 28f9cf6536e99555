//! Logical units from the DEVICE's appearance in the configuration to the closing of its medium.
//!
//! A unit is there at once, for every shard, and not ready; its ledger is read and its device opened on helper threads,
//! and when both are known it becomes ready through its fence. An open that fails is tried again; one that hangs holds up
//! nobody else. A unit goes when the configuration does not name it any more and no session maps it: every shard closes
//! it, then its medium is closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::configuration::{Device, Handler};
use portico_model::identity::{Generation, ShardId, ShardSet, Ticket, UnitId};
use portico_model::message::{Opening, Orphan, ToShard};
use portico_scsi::alua::TargetPortGroups;
use portico_scsi::attention::UnitAttention;
use portico_scsi::reservation::NexusId;
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::unit::Readiness;

use super::ledgers::Work;
use super::sizes::Sizing;
use super::{Control, Level, Opened, Order, Orders};
use crate::fence::{Asker, Effect, Errand, Fence, Request};
use crate::identity::{Extent, logical_unit};
use crate::ledger_store::Restored;

/// Commands that one nexus may have in hand at one unit, if the file does not say (`max_tgt_dev_commands`): no less than
/// the widest command window.
pub const NEXUS_COMMANDS_MAX_DEFAULT: u32 = portico_model::configuration::QUEUED_COMMANDS_MAX;
/// How long after a failed open the next attempt is made; it doubles up to [`OPEN_RETRY_MAX`].
pub const OPEN_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest time between two attempts.
pub const OPEN_RETRY_MAX: Duration = Duration::from_secs(60);

/// One logical unit.
#[derive(Debug)]
pub(super) struct Unit<M> {
    pub(super) device: Arc<Device>,
    pub(super) name: Arc<str>,
    pub(super) fence: Fence,
    pub(super) medium: Medium<M>,
    /// Why it could not be opened, as was said last; empty if it could.
    closed_because: String,
    pub(super) sizing: Sizing,
    pub(super) ledger: LedgerKnown,
    /// Whether its ledger was written under this kernel: its initiators have been here before.
    pub(super) known_before: bool,
    /// Sessions that map it.
    pub(super) users: usize,
    /// When the pool below a thin unit is looked at again.
    pub(super) survey_at: Moment,
    /// Shards that have not closed it; `None` while it is open.
    pub(super) closing: Option<ShardSet>,
}

/// What is known of the device below a unit.
#[derive(Debug)]
pub(super) enum Medium<M> {
    /// Being opened, in vain so often.
    Opening { failures: u32 },
    /// It failed so often; the next attempt is due then.
    Failed { failures: u32, retry_at: Moment },
    /// Open.
    Open { medium: M, extent: Extent },
    /// It will not be opened: what it is configured to be cannot be.
    Never,
}

/// What is known of a unit's ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LedgerKnown {
    /// It is being read.
    Reading,
    /// The fence has it.
    Restored,
    /// It cannot be relied on. It is read again with the next configuration.
    Damaged,
}

impl<M> Unit<M> {
    pub(super) fn is_ready(&self) -> bool {
        self.fence.state().readiness == Readiness::Ready
    }

    /// Whether nothing is to be waited for: it is open, or there is a reason why it is not.
    pub(super) fn is_settled(&self) -> bool {
        match (&self.medium, self.ledger) {
            (_, LedgerKnown::Damaged) | (Medium::Never | Medium::Failed { .. }, _) => true,
            (Medium::Opening { failures }, _) => *failures > 0,
            (Medium::Open { .. }, LedgerKnown::Reading) => false,
            (Medium::Open { .. }, LedgerKnown::Restored) => {
                let readiness = self.fence.state().readiness;
                self.is_ready()
                    || matches!(
                        readiness,
                        Readiness::MediumNotPresent | Readiness::UnderWay(..) | Readiness::WorkFailed(_)
                    )
            }
        }
    }

    fn next_deadline(&self) -> Moment {
        match self.medium {
            Medium::Failed { retry_at, .. } if self.closing.is_none() => {
                retry_at.min(self.fence.next_deadline())
            }
            Medium::Open { .. } => self.survey_at.min(self.fence.next_deadline()),
            _ => self.fence.next_deadline(),
        }
    }
}

impl<M: Clone> Control<M> {
    /// Brings a unit into being, on every shard. Its device is opened at once, or `later`.
    pub(super) fn create_unit(
        &mut self,
        device: &Device,
        groups: Option<Arc<TargetPortGroups>>,
        later: Option<Moment>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        self.last_unit += 1;
        let id = UnitId(self.last_unit);
        let name: Arc<str> = device.name.as_str().into();
        let device = Arc::new(device.clone());
        let later = later.or_else(|| self.is_held(&device, id).then(|| now + OPEN_RETRY_MIN));
        let (mut unit, medium) = match logical_unit(&device, self.setup_id, None) {
            Ok(unit) => match later {
                None => (unit, Medium::Opening { failures: 0 }),
                Some(retry_at) => (unit, Medium::Failed { failures: 0, retry_at }),
            },
            Err(reason) => {
                orders.push(Order::Log(Level::Error, format!("device {name}: {reason}")));
                let plain = Device::new(&*device.name, device.handler.clone());
                let mut unit = logical_unit(&plain, self.setup_id, None)
                    .expect("a device without attributes is possible");
                unit.readiness = Readiness::InterventionRequired;
                (unit, Medium::Never)
            }
        };
        unit.target_port_groups = groups;
        let opens = matches!(medium, Medium::Opening { .. });
        let fence = Fence::new(id, unit, self.shards, self.boot);
        let opening = Opening {
            unit: id,
            state: Arc::clone(fence.state()),
            generation: Generation(0),
            medium: None,
            device: Arc::clone(&name),
            nexus_commands_max: device.max_tgt_dev_commands.unwrap_or(NEXUS_COMMANDS_MAX_DEFAULT),
        };
        self.broadcast(orders, || ToShard::Open(opening.clone()));
        self.collection.open(id);
        self.unit_ids.insert(Arc::clone(&name), id);
        self.at_ledger(id, &ledger_of(&device), Work::Read, orders);
        if opens {
            orders.push(Order::OpenDevice { unit: id, device: Arc::clone(&device) });
        }
        let unit = Unit {
            device,
            name,
            fence,
            medium,
            sizing: Sizing::default(),
            ledger: LedgerKnown::Reading,
            known_before: false,
            users: 0,
            closed_because: String::new(),
            survey_at: Moment::NEVER,
            closing: None,
        };
        self.deadlines.set(id, unit.next_deadline());
        self.units.insert(id, unit);
    }

    /// A helper thread has opened the device, or not.
    pub(super) fn device_opened(
        &mut self,
        id: UnitId,
        result: Result<Opened<M>, String>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| unit.closing.is_none()) else {
            // Nobody waits for it any more.
            if let Ok(opened) = result {
                orders.push(Order::CloseDevice { unit: id, medium: opened.medium });
            }
            return;
        };
        let Medium::Opening { failures } = unit.medium else { unreachable!("it was not being opened") };
        let checked = result.and_then(|opened| {
            let extent = Extent {
                size_bytes: unit.sizing.announced_bytes.take().unwrap_or(opened.size_bytes),
                physical_block_bytes: opened.physical_block_bytes,
                read_only: opened.read_only,
                untorn_bytes: opened.untorn_bytes,
            };
            match logical_unit(&unit.device, self.setup_id, Some(extent)) {
                Ok(_) => Ok((opened.medium, extent)),
                Err(reason) => {
                    orders.push(Order::CloseDevice { unit: id, medium: opened.medium });
                    Err(reason)
                }
            }
        });
        match checked {
            Ok((medium, extent)) => {
                unit.medium = Medium::Open { medium, extent };
                unit.closed_because.clear();
                self.make_ready(id, now, orders);
            }
            Err(reason) => {
                let after = OPEN_RETRY_MIN.saturating_mul(1 << failures.min(16)).min(OPEN_RETRY_MAX);
                unit.medium = Medium::Failed { failures: failures + 1, retry_at: now + after };
                self.counters.opens_failed += 1;
                // Each reason once: it may go on for days.
                if unit.closed_because != reason {
                    let line = format!("device {} is not ready: {reason}. It is tried again", unit.name);
                    orders.push(Order::Log(Level::Error, line));
                    unit.closed_because = reason;
                }
                self.errand(id, Errand::Device(Readiness::CauseNotReportable, None), now, orders);
            }
        }
        self.advance(now, orders);
    }

    /// A helper thread has read the ledger, or not.
    pub(super) fn ledger_read(
        &mut self,
        id: UnitId,
        result: Result<Restored, String>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let (ledger, kept) = match result {
            Ok(Restored::Nothing) => (portico_scsi::ledger::Ledger::new(), true),
            Ok(Restored::SameBoot(ledger)) => {
                unit.known_before = true;
                (ledger, true)
            }
            Ok(Restored::OtherBoot(ledger)) => (ledger, false),
            Err(reason) => {
                unit.ledger = LedgerKnown::Damaged;
                let line = format!("device {} is not ready: {reason}", unit.name);
                orders.push(Order::Log(Level::Error, line));
                self.errand(id, Errand::Device(Readiness::InterventionRequired, None), now, orders);
                self.advance(now, orders);
                return;
            }
        };
        unit.ledger = LedgerKnown::Restored;
        self.errand(id, Errand::Restored { ledger, kept }, now, orders);
        self.make_ready(id, now, orders);
        self.advance(now, orders);
    }

    /// Makes a unit ready when everything is known that must be.
    fn make_ready(&mut self, id: UnitId, now: Moment, orders: &mut Orders<M>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let Medium::Open { medium, extent } = &unit.medium else { return };
        if unit.ledger != LedgerKnown::Restored {
            return;
        }
        let opening = Opening {
            unit: id,
            state: Arc::clone(unit.fence.state()),
            generation: unit.fence.generation(),
            medium: Some(medium.clone()),
            device: Arc::clone(&unit.name),
            nexus_commands_max: unit.device.max_tgt_dev_commands.unwrap_or(NEXUS_COMMANDS_MAX_DEFAULT),
        };
        let state = logical_unit(&unit.device, self.setup_id, Some(*extent))
            .expect("it was checked when the device was opened");
        let attention = (unit.users > 0).then_some(UnitAttention::MediumMayHaveChanged);
        self.broadcast(orders, || ToShard::Open(opening.clone()));
        self.errand(id, Errand::Reconfigured(Box::new(state)), now, orders);
        self.errand(id, Errand::Device(Readiness::Ready, attention), now, orders);
        self.survey(id, orders);
    }

    /// The configuration names a device that is there.
    pub(super) fn revise_unit(
        &mut self,
        id: UnitId,
        device: &Device,
        groups: Option<Arc<TargetPortGroups>>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        self.doomed.remove(&id);
        let unit = self.units.get_mut(&id).expect("the caller has just found it");
        if *unit.device == *device {
            return self.look_at_size(id, orders);
        }
        if is_reopened(&unit.device, device) {
            // Another unit under the same name: sessions are remapped to it, and it opens when the old one has let go.
            self.doomed.insert(id);
            self.at_fence(id, now, orders, Fence::retire);
            return self.create_unit(device, groups, Some(now + OPEN_RETRY_MIN), now, orders);
        }
        unit.device = Arc::new(device.clone());
        let extent = match &unit.medium {
            Medium::Open { extent, .. } => Some(*extent),
            _ => None,
        };
        match logical_unit(device, self.setup_id, extent) {
            Ok(state) => self.errand(id, Errand::Reconfigured(Box::new(state)), now, orders),
            Err(reason) => {
                let line = format!("device {} stays as it was: {reason}", device.name);
                orders.push(Order::Log(Level::Error, line));
            }
        }
        self.look_at_size(id, orders);
    }

    /// Reads damaged ledgers again: an administrator may have mended them.
    pub(super) fn reread_ledgers(&mut self, orders: &mut Orders<M>) {
        let damaged = self.units.iter_mut().filter(|(_, unit)| unit.ledger == LedgerKnown::Damaged);
        let mut again = Vec::new();
        for (id, unit) in damaged {
            unit.ledger = LedgerKnown::Reading;
            again.push((*id, ledger_of(&unit.device)));
        }
        for (id, ledger) in again {
            self.at_ledger(id, &ledger, Work::Read, orders);
        }
    }

    /// Closes every unit that is not wanted and that no session maps any more.
    pub(super) fn sweep_units(&mut self, orders: &mut Orders<M>) {
        let idle: Vec<UnitId> = self.doomed.iter().filter(|id| self.units[id].users == 0).copied().collect();
        for id in idle {
            self.doomed.remove(&id);
            let unit = self.units.get_mut(&id).expect("what is doomed is there");
            unit.closing = Some(ShardSet::first(self.shards));
            // The name may stand for its successor already.
            if self.unit_ids.get(&unit.name) == Some(&id) {
                self.unit_ids.remove(&unit.name);
            }
            self.broadcast(orders, || ToShard::Close(id));
        }
    }

    /// A shard has closed a unit.
    pub(super) fn closed(&mut self, shard: ShardId, id: UnitId, now: Moment, orders: &mut Orders<M>) {
        let unit = self.units.get_mut(&id).expect("a unit is there until every shard has closed it");
        let missing = unit.closing.as_mut().expect("it is being closed");
        missing.remove(shard);
        if !missing.is_empty() {
            return;
        }
        let unit = self.units.remove(&id).expect("it was just there");
        self.deadlines.set(id, Moment::NEVER);
        self.parked.retain(|_, parked| *parked != id);
        self.collection.close(id);
        unit.fence.held().for_each(|nexus| self.registry.nexuses.release(nexus));
        if let Medium::Open { medium, .. } = unit.medium {
            orders.push(Order::CloseDevice { unit: id, medium });
        }
        orders.push(Order::Log(Level::Info, format!("device {} is closed", unit.name)));
        self.advance(now, orders);
    }

    /// A shard asks for a change or a reset.
    pub(super) fn request(
        &mut self,
        asker: Asker,
        id: UnitId,
        nexus: NexusId,
        request: Request,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        let mut effects = Vec::new();
        match self.units.get_mut(&id).filter(|unit| unit.closing.is_none()) {
            Some(unit) => {
                self.parked.insert((asker.shard, asker.ticket), id);
                unit.fence.request(asker, nexus, request, now, &mut effects);
            }
            None => {
                let gone = Outcome::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED);
                effects.push(Effect::Answer(asker, Err(gone)));
            }
        }
        self.carry_out(id, effects, now, orders);
    }

    /// Nobody waits for an answer any more.
    pub(super) fn withdraw(&mut self, shard: ShardId, ticket: Ticket) {
        // Otherwise the answer is on its way.
        if let Some(id) = self.parked.remove(&(shard, ticket))
            && let Some(unit) = self.units.get_mut(&id)
        {
            unit.fence.withdraw(Asker { shard, ticket });
            self.deadlines.set(id, unit.next_deadline());
        }
    }

    pub(super) fn errand(&mut self, id: UnitId, errand: Errand, now: Moment, orders: &mut Orders<M>) {
        self.at_fence(id, now, orders, |fence, effects| fence.errand(errand, now, effects));
    }

    pub(super) fn orphaned(&mut self, orphans: &[Orphan], now: Moment, orders: &mut Orders<M>) {
        let mut by_unit = BTreeMap::<UnitId, Vec<Orphan>>::new();
        for orphan in orphans {
            by_unit.entry(orphan.unit).or_default().push(*orphan);
        }
        for (unit, orphans) in by_unit {
            self.at_fence(unit, now, orders, |fence, effects| fence.orphaned(&orphans, effects));
        }
    }

    pub(super) fn ledger_written(
        &mut self,
        id: UnitId,
        result: Result<(), String>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        let durable = result.is_ok();
        match result {
            Ok(()) => self.counters.ledgers_written += 1,
            Err(reason) => {
                self.counters.ledgers_failed += 1;
                let name = self.units.get(&id).map_or("", |unit| &*unit.name);
                let line = format!("device {name}: the ledger of reservations cannot be written: {reason}");
                orders.push(Order::Log(Level::Error, line));
            }
        }
        self.at_fence(id, now, orders, |fence, effects| fence.written(durable, now, effects));
    }

    /// Time has passed for one unit.
    pub(super) fn expire_unit(&mut self, id: UnitId, now: Moment, orders: &mut Orders<M>) {
        let Some(unit) = self.units.get(&id) else { return };
        let survey_due = unit.survey_at <= now;
        if let Medium::Failed { failures, retry_at } = unit.medium
            && retry_at <= now
            && unit.closing.is_none()
        {
            let held = self.is_held(&unit.device, id);
            let unit = self.units.get_mut(&id).expect("it was just there");
            if held {
                unit.medium = Medium::Failed { failures, retry_at: now + OPEN_RETRY_MIN };
            } else {
                unit.medium = Medium::Opening { failures };
                orders.push(Order::OpenDevice { unit: id, device: Arc::clone(&unit.device) });
            }
        }
        if survey_due {
            self.survey(id, orders);
        }
        self.at_fence(id, now, orders, |fence, effects| fence.expire(now, effects));
    }

    /// Whether a unit that is on its way out has what this device opens: its last writes may be at the medium still, and not
    /// every medium keeps a second one from being opened.
    fn is_held(&self, device: &Device, by_other_than: UnitId) -> bool {
        let goes = |id: &UnitId, unit: &Unit<M>| unit.closing.is_some() || self.doomed.contains(id);
        let has = |unit: &Unit<M>| {
            device.handler.filename().is_some() && unit.device.handler.filename() == device.handler.filename()
        };
        self.units.iter().any(|(id, unit)| *id != by_other_than && goes(id, unit) && has(unit))
    }

    /// Does something to the fence of a unit, if there is one, and carries out what comes of it.
    pub(super) fn at_fence(
        &mut self,
        id: UnitId,
        now: Moment,
        orders: &mut Orders<M>,
        act: impl FnOnce(&mut Fence, &mut Vec<Effect>),
    ) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let mut effects = Vec::new();
        act(&mut unit.fence, &mut effects);
        self.carry_out(id, effects, now, orders);
    }

    fn carry_out(&mut self, id: UnitId, effects: Vec<Effect>, now: Moment, orders: &mut Orders<M>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Persist(content) => {
                    let unit = self.units.get_mut(&id).expect("its fence has just spoken");
                    let is_successors = self.unit_ids.get(&unit.name).is_some_and(|current| *current != id);
                    if is_successors || unit.fence.is_retired() {
                        // What control does to it meanwhile, the loss of a nexus say, happens to its successor as well.
                        let mut more = Vec::new();
                        unit.fence.written(true, now, &mut more);
                        effects.extend(more);
                    } else {
                        let ledger = ledger_of(&unit.device);
                        self.at_ledger(id, &ledger, Work::Write(content), orders);
                    }
                }
                Effect::Install(install) => {
                    let install = Arc::new(install);
                    self.broadcast(orders, || ToShard::Install(Arc::clone(&install)));
                }
                Effect::Work(shard, work) => {
                    orders.push(Order::ToShard(shard, ToShard::Work { unit: id, work }));
                }
                Effect::Answer(Asker { shard, ticket }, outcome) => {
                    self.parked.remove(&(shard, ticket));
                    orders.push(Order::ToShard(shard, ToShard::Changed { ticket, outcome }));
                }
                Effect::Forget(Asker { shard, ticket }) => {
                    self.parked.remove(&(shard, ticket));
                }
                Effect::Release(nexus) => self.registry.nexuses.release(nexus),
                Effect::Completed => self.counters.changes_installed += 1,
                Effect::Overdue => {
                    self.counters.changes_timed_out += 1;
                    let line = format!("device {}: a change waits for the medium", self.units[&id].name);
                    orders.push(Order::Log(Level::Warning, line));
                }
            }
        }
        if let Some(unit) = self.units.get(&id) {
            self.deadlines.set(id, unit.next_deadline());
        }
    }
}

/// What its ledger is found by: `pr_file_name`, else the device's name, in which there is no `/`.
fn ledger_of(device: &Device) -> Arc<str> {
    device.pr_file_name.as_deref().unwrap_or(&device.name).into()
}

/// Whether a device is another one below: what is fixed when it is opened differs.
fn is_reopened(old: &Device, new: &Device) -> bool {
    let rbd = |device: &Device| matches!(device.handler, Handler::Rbd(_));
    old.handler.name() != new.handler.name()
        || (rbd(old) && old.handler != new.handler)
        || old.handler.filename() != new.handler.filename()
        || old.handler.is_dummy() != new.handler.is_dummy()
        || old.block_size_bytes != new.block_size_bytes
        || old.read_only != new.read_only
        || old.write_through != new.write_through
        || old.nv_cache != new.nv_cache
        || old.o_direct != new.o_direct
        || old.rotational != new.rotational
        || old.thin_provisioned != new.thin_provisioned
        || old.removable != new.removable
        || old.pr_file_name != new.pr_file_name
        || old.identity.t10_dev_id != new.identity.t10_dev_id
}
