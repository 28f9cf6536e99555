//! The original of a logical unit's shared state, with the single writer: takes one [`Change`] at a time and makes the
//! next generation of the replicas out of it.
//!
//! Pure, and the only place that makes a generation. The single writer clones it before a change whose ledger it may fail
//! to make durable, sends the [`Installment`] to every shard, and answers the asker when all have installed it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::alua::{Access, TargetPortGroups, WantedState};
use crate::attention::UnitAttention;
use crate::ledger::{Applied, Ledger, NexusName, ReservationChange, TargetPort, Whom};
use crate::persistent::PersistentOut;
use crate::reservation::{CommandClass, NexusId, Reservation};
use crate::sense::{AdditionalSense, Outcome};
use crate::space::Space;
use crate::unit::{LogicalUnit, ModeChange, ModeValues, Readiness, SavedModes};
use crate::work::{Progress, Unfinished, Work, WorkKind};

/// A command's effect that more than one shard can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// RESERVE (6) or (10).
    Reserve,
    /// RELEASE (6) or (10).
    Release,
    /// PERSISTENT RESERVE OUT.
    PersistentReserve(Box<PersistentOut>),
    /// SET TARGET PORT GROUPS.
    SetTargetPortGroups(Vec<WantedState>),
    /// MODE SELECT: pages as they are to be.
    ModeSelect(ModeChange),
    /// SANITIZE or FORMAT UNIT: all of the medium is worked on.
    Work(Arc<Work>),
    /// SANITIZE: a failure is left as it is.
    ExitFailureMode,
    /// START STOP UNIT: load the medium.
    Load,
    /// START STOP UNIT: eject the medium.
    Eject,
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventRemoval {
        /// Removal is prevented by this nexus, or no longer.
        prevent: bool,
    },
}

impl Change {
    /// The class of the command that it comes from: a change that waited is judged again by it.
    pub fn class(&self) -> CommandClass {
        match self {
            Self::Reserve => CommandClass::Reserve,
            Self::Release => CommandClass::Release,
            Self::PersistentReserve(_) => CommandClass::PersistentReserve,
            Self::Work(_) | Self::ExitFailureMode => CommandClass::Write,
            Self::Load | Self::PreventRemoval { prevent: false } => CommandClass::Unrestricted,
            Self::SetTargetPortGroups(_)
            | Self::ModeSelect(_)
            | Self::Eject
            | Self::PreventRemoval { prevent: true } => CommandClass::Configure,
        }
    }

    /// The asymmetric access states in which that command is served.
    fn access(&self) -> Access {
        match self {
            Self::SetTargetPortGroups(_) => Access::Unavailable,
            Self::PersistentReserve(_) | Self::ModeSelect(_) => Access::Standby,
            Self::Reserve
            | Self::Release
            | Self::Work(_)
            | Self::ExitFailureMode
            | Self::Load
            | Self::Eject
            | Self::PreventRemoval { .. } => Access::Active,
        }
    }
}

/// The next generation of a unit, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installment {
    /// The replica to install.
    pub unit: LogicalUnit,
    /// Unit attentions that shards raise when they install it.
    pub attentions: Vec<(Whom, UnitAttention)>,
    /// Whose tasks on this unit shards abort when they install it.
    pub aborts: Option<Whom>,
    /// The ledger changed: it is made durable before anything is sent.
    pub durable: bool,
    /// The volatile cache is written back before the asker is answered: WCE went from one to zero, or the medium leaves.
    pub flush: bool,
    /// Every piece at the medium is waited for, then one shard does this.
    pub work: Option<Arc<Work>>,
}

/// The original of a logical unit.
#[derive(Clone, Debug)]
pub struct Original {
    unit: LogicalUnit,
    ledger: Ledger,
    /// Nexuses that prevent the removal of the medium (PREVENT ALLOW MEDIUM REMOVAL, SBC-3).
    preventing: BTreeSet<NexusId>,
    /// What the device says, the medium aside.
    device: Readiness,
    /// Whether a removable medium is in.
    loaded: bool,
    /// What the configuration says of target port groups; initiators may have set other states since.
    configured_groups: Option<Arc<TargetPortGroups>>,
    /// Whether nexuses were told that the pool below runs low, and it has not grown since.
    space_is_low: bool,
    /// Work on the whole medium that goes on, or failed.
    work: Option<Progress>,
    /// The medium's size has changed since that work began, which is done over the size of then.
    resized: bool,
}

impl Original {
    /// The original of `unit`, with a restored or a new ledger.
    pub fn new(mut unit: LogicalUnit, ledger: Ledger) -> Self {
        unit.reservation = ledger.view();
        unit.mode_saved = SavedModes::of(ledger.saved_modes(), unit.mode_default);
        unit.mode = unit.mode_saved;
        let device = unit.readiness;
        let configured_groups = unit.target_port_groups.clone();
        let work = ledger.unfinished().map(Progress::Failed);
        let mut original = Self {
            unit,
            ledger,
            preventing: BTreeSet::new(),
            device,
            loaded: true,
            configured_groups,
            space_is_low: false,
            work,
            resized: false,
        };
        original.unit.readiness = original.readiness();
        original
    }

    /// The current generation.
    pub fn unit(&self) -> &LogicalUnit {
        &self.unit
    }

    /// The ledger, to be kept.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Applies `change` from `me`. `None`: GOOD, and nothing to install.
    ///
    /// # Errors
    /// The outcome with which the command ends instead; nothing changed.
    ///
    /// # Panics
    /// When `me` is not attached.
    pub fn apply(&mut self, change: Change, me: NexusId) -> Result<Option<Installment>, Outcome> {
        // The change may have waited while another one fenced its nexus.
        if !self.unit.reservation.admits(me, change.class()) {
            return Err(Outcome::RESERVATION_CONFLICT);
        }
        // A nexus at a port that is configured no more is in no group.
        self.unit.pass(self.ledger.port_of(me).unwrap_or(0), change.access())?;
        self.admitted_by_work(&change)?;
        if let Change::Work(_) = change {
            self.may_be_worked_on()?;
        }
        match change {
            Change::SetTargetPortGroups(wanted) => self.groups_set(&wanted, me),
            Change::Work(work) => Ok(Some(self.work_begins(work))),
            Change::ExitFailureMode => Ok(self.failure_left()),
            Change::Reserve => {
                self.ledger.apply(ReservationChange::Reserve, me).map(|applied| self.reserved(applied))
            }
            Change::Release => {
                self.ledger.apply(ReservationChange::Release, me).map(|applied| self.reserved(applied))
            }
            Change::PersistentReserve(out) => {
                self.ledger.persistent_reserve_out(&out, me).map(|applied| self.reserved(applied))
            }
            Change::ModeSelect(change) => self.mode_selected(&change, me),
            Change::Load => self.loaded(me),
            Change::Eject => self.ejected(),
            Change::PreventRemoval { prevent: true } => {
                self.preventing.insert(me);
                Ok(None)
            }
            Change::PreventRemoval { prevent: false } => {
                self.preventing.remove(&me);
                Ok(None)
            }
        }
    }

    /// A session opens. Something to install when the holder of the unit came back.
    ///
    /// # Panics
    /// As [`Ledger::attach`].
    pub fn attach(&mut self, id: NexusId, name: NexusName) -> Option<Installment> {
        let view = self.ledger.attach(id, name);
        self.seen(view)
    }

    /// The target ports through which the unit may be reached are these. Something to install when one that a registrant
    /// uses has got another identifier.
    pub fn set_ports(&mut self, ports: Arc<[TargetPort]>) -> Option<Installment> {
        let view = self.ledger.set_ports(ports);
        self.seen(view)
    }

    /// What the configuration says of the target port groups. States that initiators have set stay where it says nothing new
    /// of theirs.
    pub fn set_target_port_groups(
        &mut self,
        configured: Option<Arc<TargetPortGroups>>,
    ) -> Option<Installment> {
        let before = std::mem::replace(&mut self.configured_groups, configured.clone());
        let now = self.unit.target_port_groups.take();
        let new = match (&now, before, configured) {
            (Some(now), Some(before), Some(new)) => Some(Arc::new(now.reconfigured(&before, &new))),
            (_, _, new) => new,
        };
        self.unit.target_port_groups = new;
        let new = &self.unit.target_port_groups;
        if *new == now {
            return None;
        }
        let managed = |groups: &Option<Arc<TargetPortGroups>>| groups.as_ref().map(|groups| groups.explicit);
        let inquiry = managed(new) != managed(&now);
        let mut installment = self.next();
        installment.attentions = vec![(Whom::All, UnitAttention::AsymmetricAccessChanged)];
        if inquiry {
            installment.attentions.push((Whom::All, UnitAttention::InquiryDataChanged));
        }
        Some(installment)
    }

    /// SPC-4 §5.15.2.7: every nexus is told but the one that asked.
    fn groups_set(&mut self, wanted: &[WantedState], me: NexusId) -> Result<Option<Installment>, Outcome> {
        let Some(groups) = &self.unit.target_port_groups else {
            return Err(Outcome::illegal(AdditionalSense::INVALID_OPERATION_CODE));
        };
        let Some(groups) = groups.set(wanted)? else { return Ok(None) };
        self.unit.target_port_groups = Some(Arc::new(groups));
        let mut installment = self.next();
        installment.attentions = vec![(Whom::AllBut(me), UnitAttention::AsymmetricAccessChanged)];
        Ok(Some(installment))
    }

    fn seen(&mut self, view: Reservation) -> Option<Installment> {
        if view == self.unit.reservation {
            return None;
        }
        self.unit.reservation = view;
        Some(self.next())
    }

    /// The session of `id` is gone: what it held and what it prevented ends.
    pub fn nexus_lost(&mut self, id: NexusId) -> Option<Installment> {
        self.preventing.remove(&id);
        let applied = self.ledger.nexus_lost(id);
        self.reserved(applied)
    }

    /// The holder that a restart left without a session did not come back in time.
    pub fn absent_holder_lost(&mut self) -> Option<Installment> {
        let applied = self.ledger.absent_holder_lost();
        self.reserved(applied)
    }

    /// Logical unit reset (SAM-5 §6.3.3): tasks of every nexus end, reservations by RESERVE and preventions of removal end,
    /// mode values are the saved ones, and every nexus is told. `attention` is
    /// [`LogicalUnitReset`](UnitAttention::LogicalUnitReset) or [`HardReset`](UnitAttention::HardReset).
    pub fn reset(&mut self, attention: UnitAttention) -> Installment {
        self.preventing.clear();
        let applied = self.ledger.logical_unit_reset();
        let flush = cache_turned_off(self.unit.mode, self.unit.mode_saved);
        self.unit.mode = self.unit.mode_saved;
        self.unit.reservation = applied.view;
        let mut installment = self.next();
        installment.durable = applied.changed;
        installment.flush = flush;
        installment.aborts = Some(Whom::All);
        installment.attentions = vec![(Whom::All, attention)];
        installment
    }

    /// The device below becomes ready, or stops being so.
    pub fn device_is(&mut self, device: Readiness) -> Option<Installment> {
        self.device = device;
        let readiness = self.readiness();
        if readiness == self.unit.readiness {
            return None;
        }
        self.unit.readiness = readiness;
        // A cache that saved values have off from the start was on, perhaps, when the process before ended.
        let flush = readiness == Readiness::Ready && cache_turned_off(self.unit.mode_default, self.unit.mode);
        let mut installment = self.next();
        installment.flush = flush;
        Some(installment)
    }

    /// The configuration, or the size of the device below, is another one: everything of `configured` is taken over but its
    /// state, and the attentions due are raised.
    pub fn reconfigure(&mut self, configured: &LogicalUnit) -> Option<Installment> {
        let old = &self.unit;
        let mode_saved = SavedModes::of(self.ledger.saved_modes(), configured.mode_default);
        let mode = if old.mode_default == configured.mode_default { old.mode } else { mode_saved };
        let flush = cache_turned_off(old.mode, mode);
        let new = LogicalUnit {
            generation: old.generation,
            mode,
            mode_saved,
            readiness: old.readiness,
            space: old.space,
            reservation: old.reservation.clone(),
            target_port_groups: old.target_port_groups.clone(),
            ..configured.clone()
        };
        if new == *old {
            return None;
        }
        let due = [
            (
                new.identity != old.identity || new.removable != old.removable,
                UnitAttention::InquiryDataChanged,
            ),
            (new.geometry != old.geometry, UnitAttention::CapacityChanged),
            (new.mode != old.mode || new.read_only != old.read_only, UnitAttention::ModeParametersChanged),
        ];
        let size = |unit: &LogicalUnit| (unit.geometry.blocks(), unit.geometry.block_length());
        self.resized |= size(&new) != size(old);
        self.unit = new;
        let mut installment = self.next();
        installment.flush = flush;
        installment.attentions =
            due.into_iter().filter(|(due, _)| *due).map(|(_, what)| (Whom::All, what)).collect();
        Some(installment)
    }

    /// The pool below the unit has this much left. Every nexus is told when that is little (SBC-3 §4.7.3.7.6).
    pub fn space_is(&mut self, space: Space) -> Option<Installment> {
        let low = space.is_low(&self.unit.geometry, self.space_is_low);
        let reached = low && !self.space_is_low;
        self.space_is_low = low;
        if self.unit.space == Some(space) && !reached {
            return None;
        }
        self.unit.space = Some(space);
        let mut installment = self.next();
        if reached {
            installment.attentions = vec![(Whom::All, UnitAttention::SoftThresholdReached)];
        }
        Some(installment)
    }

    /// Whether the pool below has reached the threshold.
    pub fn space_is_low(&self) -> bool {
        self.space_is_low
    }

    fn reserved(&mut self, applied: Applied) -> Option<Installment> {
        if !applied.changed {
            return None;
        }
        self.unit.reservation = applied.view;
        // SPC-4 §5.13.11.2.6: whose commands PREEMPT AND ABORT ends prevents nothing any more.
        if let Some(aborted) = &applied.aborts {
            self.preventing.retain(|nexus| !aborted.includes(*nexus));
        }
        let mut installment = self.next();
        installment.durable = true;
        installment.attentions = applied.attentions;
        installment.aborts = applied.aborts;
        Some(installment)
    }

    /// SPC-4 §6.11: the others are told, the one that asked is not.
    fn mode_selected(&mut self, change: &ModeChange, me: NexusId) -> Result<Option<Installment>, Outcome> {
        let values = change.applied_to(self.unit.mode);
        let changed = values != self.unit.mode;
        let flush = cache_turned_off(self.unit.mode, values);
        if let (true, Some(sense)) = (flush, self.device.sense()) {
            // What was written before a restart may be in a volatile cache still, and nobody can write it back now.
            return Err(Outcome::check(sense));
        }
        let saved = SavedModes { values, configured: self.unit.mode_default.write_cache };
        let durable = change.save && self.ledger.save_modes(saved);
        if !changed && !durable {
            return Ok(None);
        }
        self.unit.mode = values;
        self.unit.mode_saved = SavedModes::of(self.ledger.saved_modes(), self.unit.mode_default);
        let mut installment = self.next();
        installment.durable = durable;
        installment.flush = flush;
        if changed {
            installment.attentions = vec![(Whom::AllBut(me), UnitAttention::ModeParametersChanged)];
        }
        Ok(Some(installment))
    }

    /// A medium that is kept from leaving is kept from coming as well, as drives do and initiators expect.
    fn loaded(&mut self, me: NexusId) -> Result<Option<Installment>, Outcome> {
        if self.loaded {
            return Ok(None);
        }
        self.removal_allowed()?;
        self.loaded = true;
        self.unit.readiness = self.readiness();
        let mut installment = self.next();
        installment.attentions = vec![(Whom::AllBut(me), UnitAttention::MediumMayHaveChanged)];
        Ok(Some(installment))
    }

    /// While all of the medium is worked on, nothing is changed. After a failure a SANITIZE may begin anew: one in restricted
    /// mode always, one in unrestricted mode and EXIT FAILURE MODE unless the one that failed was restricted (SBC-3 §5.29.1).
    fn admitted_by_work(&self, change: &Change) -> Result<(), Outcome> {
        let Some(Progress::Failed(failed)) = self.work else {
            return match (self.work, self.readiness().sense()) {
                (Some(_), Some(sense)) => Err(Outcome::check(sense)),
                _ => Ok(()),
            };
        };
        let restricted = failed.kind == WorkKind::Sanitize && !failed.unrestricted;
        match change {
            Change::Work(work) if restricted && work.unrestricted => {
                Err(Outcome::invalid_cdb_field(1, Some(5)))
            }
            Change::Work(work) if work.kind == WorkKind::Sanitize || failed.kind == WorkKind::Format => {
                Ok(())
            }
            Change::ExitFailureMode if failed.kind == WorkKind::Sanitize && !restricted => Ok(()),
            Change::ExitFailureMode => Err(Outcome::invalid_cdb_field(1, Some(4))),
            _ => Err(Outcome::check(failed.kind.failed_before())),
        }
    }

    /// The unit may have been write protected, or its medium have left, since the command was judged.
    fn may_be_worked_on(&self) -> Result<(), Outcome> {
        if let Some(refusal) = self.unit.write_protection() {
            return Err(refusal);
        }
        match self.readiness() {
            Readiness::WorkFailed(_) => Ok(()),
            other => other.sense().map_or(Ok(()), |sense| Err(Outcome::check(sense))),
        }
    }

    fn work_begins(&mut self, work: Arc<Work>) -> Installment {
        let unfinished = Unfinished { kind: work.kind, unrestricted: work.unrestricted };
        let durable = self.ledger.set_unfinished(Some(unfinished));
        self.work = Some(Progress::UnderWay(unfinished, 0));
        self.resized = false;
        self.unit.readiness = self.readiness();
        let mut installment = self.next();
        installment.durable = durable;
        installment.work = Some(work);
        installment
    }

    /// The shard that works on the medium has come so far, in parts of 65536.
    pub fn work_is_at(&mut self, progress: u16) -> Option<Installment> {
        let Some(Progress::UnderWay(unfinished, before)) = self.work else { return None };
        if progress <= before {
            return None;
        }
        self.work = Some(Progress::UnderWay(unfinished, progress));
        self.unit.readiness = self.readiness();
        Some(self.next())
    }

    /// That shard is through with it, or could not go on. What its command ends with, and what is to be installed. Blocks that
    /// came meanwhile were not worked on: then it has failed.
    pub fn work_ended(&mut self, well: bool) -> (Result<(), Outcome>, Option<Installment>) {
        let Some(Progress::UnderWay(unfinished, _)) = self.work else { return (Ok(()), None) };
        let well = well && !self.resized;
        let outcome = if well { Ok(()) } else { Err(unfinished.kind.failure()) };
        self.work = (!well).then_some(Progress::Failed(unfinished));
        let durable = well && self.ledger.set_unfinished(None);
        self.unit.readiness = self.readiness();
        let mut installment = self.next();
        installment.durable = durable;
        (outcome, Some(installment))
    }

    fn failure_left(&mut self) -> Option<Installment> {
        self.work.take()?;
        let durable = self.ledger.set_unfinished(None);
        self.unit.readiness = self.readiness();
        let mut installment = self.next();
        installment.durable = durable;
        Some(installment)
    }

    fn removal_allowed(&self) -> Result<(), Outcome> {
        if self.preventing.is_empty() {
            Ok(())
        } else {
            Err(Outcome::illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED))
        }
    }

    fn ejected(&mut self) -> Result<Option<Installment>, Outcome> {
        self.removal_allowed()?;
        if !self.loaded {
            return Ok(None);
        }
        self.loaded = false;
        self.unit.readiness = self.readiness();
        let mut installment = self.next();
        installment.flush = self.unit.mode.write_cache.flushes();
        Ok(Some(installment))
    }

    fn readiness(&self) -> Readiness {
        match self.work {
            _ if self.device != Readiness::Ready => self.device,
            _ if !self.loaded => Readiness::MediumNotPresent,
            Some(Progress::UnderWay(unfinished, progress)) => Readiness::UnderWay(unfinished.kind, progress),
            Some(Progress::Failed(unfinished)) => Readiness::WorkFailed(unfinished.kind),
            None => Readiness::Ready,
        }
    }

    fn next(&mut self) -> Installment {
        self.unit.generation += 1;
        let unit = self.unit.clone();
        Installment { unit, attentions: Vec::new(), aborts: None, durable: false, flush: false, work: None }
    }
}

/// What was written under WCE one is not stable yet (SBC-3 §6.5.5).
fn cache_turned_off(before: ModeValues, after: ModeValues) -> bool {
    before.write_cache.enabled() && !after.write_cache.enabled()
}
