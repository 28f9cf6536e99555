//! The fence of one logical unit: one change at a time, durable, on every shard, before anybody hears GOOD.
//!
//! A value: requests, acknowledgements and time go in, [`Effect`]s come out. It knows nothing of other units, so that
//! different units proceed independently, and it never waits for a medium without saying so: after
//! [`CHANGE_PATIENCE`] the new state *stays*, the asker hears CHECK CONDITION, the unit is *draining*, and the same
//! change repeated by the same nexus joins that drain. A repeated reset waits for its turn.
//!
//! ```text
//!  idle ──take up, judge──▶ persisting ──written──▶ installing ──every shard Installed──▶ GOOD, idle
//!    ▲        │ refused         │ could not be written: CHECK CONDITION, nothing changed
//!    └────────┴─────────────────┘
//! ```
//!
//! Orphans (writes whose session is gone and that may still land) do not wait for any of that: an Install that changes
//! nothing but their list goes out at once, also while another Install is being drained.

mod judge;
mod request;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::identity::{Generation, ShardId, UnitId};
use portico_model::message::{Install, Orphan};
use portico_scsi::ledger::{BootId, Ledger, NexusName, Whom};
use portico_scsi::original::{Change, Installment, Original};
use portico_scsi::reservation::{NexusId, Reservation};
use portico_scsi::sense::{AdditionalSense, Outcome, Sense, SenseKey};
use portico_scsi::unit::LogicalUnit;
use portico_scsi::work::Work;

use judge::Judged;
pub(crate) use request::{Asker, Effect, Errand, Request};
use request::{Joined, Waiting};

/// How long a change may take from the moment it is asked for, waiting for its turn included, before its asker hears
/// that it has not ended. Below the timeouts of initiators (30 s and more), so that it is heard.
pub const CHANGE_PATIENCE: Duration = Duration::from_secs(10);
/// Changes that wait for their turn; beyond it, BUSY.
pub const QUEUE_MAX: usize = 256;
/// Repetitions that wait for the same drain; beyond it, BUSY.
pub const JOINED_MAX: usize = 64;
/// How long after a restart a nexus that had reserved the unit may stay away: as long as the Linux initiator tries.
pub const ABSENT_HOLDER_PATIENCE: Duration = Duration::from_secs(120);
/// How long after a ledger that could not be written the next attempt is made; it doubles up to [`LEDGER_RETRY_MAX`].
pub const LEDGER_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest time between two attempts.
pub const LEDGER_RETRY_MAX: Duration = Duration::from_secs(60);

/// What a change that a medium holds up ends with: ABORTED COMMAND, COMMAND TIMEOUT DURING PROCESSING (SPC-4 annex F).
/// The change itself goes on.
const HELD_UP: Outcome =
    Outcome::check(Sense::new(SenseKey::AbortedCommand, AdditionalSense { code: 0x2e, qualifier: 0x02 }));

/// What a change ends with that is in force everywhere, and before which a volatile cache could not be written back.
const UNSTABLE: Outcome = Outcome::check(Sense::new(SenseKey::MediumError, AdditionalSense::WRITE_ERROR));

/// The fence of one unit.
#[derive(Debug)]
pub(crate) struct Fence {
    unit: UnitId,
    original: Original,
    state: Arc<LogicalUnit>,
    generation: Generation,
    /// The highest generation that each shard has answered.
    installed: Vec<Generation>,
    /// Nexuses that the original knows.
    attached: BTreeMap<NexusId, NexusName>,
    absent_holder_until: Option<Moment>,
    running: Option<Running>,
    errands: VecDeque<Errand>,
    queue: VecDeque<Waiting>,
    orphans: Vec<Orphan>,
    /// Who waits for the end of work on all of the medium.
    awaiting_work: Vec<(NexusId, Asker)>,
    ledger: LedgerFile,
    /// Another unit has its name, and its ledger's file.
    retired: bool,
}

/// The change in hand.
#[derive(Debug)]
struct Running {
    /// `None` for an errand of control's own, and for the repair of a ledger.
    request: Option<(NexusId, Request)>,
    asker: Option<Joined>,
    joined: Vec<Joined>,
    /// When it counts as held up.
    patience: Moment,
    overdue: bool,
    /// The session that asked is gone, and its loss will undo the change: who has come in its place asks anew.
    owner_lost: bool,
    /// What a volatile cache held before it may not be stable.
    flush_failed: bool,
    /// What a shard is to do when every shard has installed this.
    work: Option<Arc<Work>>,
    /// What those hear who wait.
    verdict: Result<(), Outcome>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Until the ledger is durable.
    Persisting(Box<(Original, Installment)>),
    /// Until the ledger of the state in force, which could not be written before, is durable.
    Repairing,
    /// Until every shard has answered this generation.
    Installing(Generation),
}

/// What is known of the unit's file.
#[derive(Debug)]
struct LedgerFile {
    boot: BootId,
    /// Before it, nobody may change anything: it would be written over what was kept.
    restored: bool,
    /// Whether it has the ledger in force, written under this kernel.
    kept: bool,
    retry_at: Moment,
    retry_after: Duration,
}

impl Fence {
    /// The fence of a unit in this state, on so many shards, whose ledger is not known yet.
    pub(crate) fn new(id: UnitId, unit: LogicalUnit, shards: usize, boot: BootId) -> Self {
        let generation = Generation(0);
        let original = Original::new(unit, Ledger::new());
        Self {
            unit: id,
            state: Arc::new(LogicalUnit { generation: generation.0, ..original.unit().clone() }),
            original,
            generation,
            installed: vec![generation; shards],
            attached: BTreeMap::new(),
            absent_holder_until: None,
            running: None,
            errands: VecDeque::new(),
            queue: VecDeque::new(),
            orphans: Vec::new(),
            awaiting_work: Vec::new(),
            ledger: LedgerFile {
                boot,
                restored: false,
                kept: true,
                retry_at: Moment::ORIGIN,
                retry_after: LEDGER_RETRY_MIN,
            },
            retired: false,
        }
    }

    /// Another unit takes its place, and has read what was kept, or will when what is being written is. What is asked here
    /// from now on would be lost with this unit: whoever asks is told to ask again, and asks the other one then.
    pub(crate) fn retire(&mut self, effects: &mut Vec<Effect>) {
        self.retired = true;
        let waiting = self.queue.drain(..).map(|waiting| waiting.joined.asker);
        effects.extend(waiting.map(|asker| Effect::Answer(asker, Err(Outcome::BUSY))));
    }

    /// Whether its ledger is kept by another unit.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired
    }

    /// The state in force: what a shard is given that asks now.
    pub(crate) fn state(&self) -> &Arc<LogicalUnit> {
        &self.state
    }

    /// The generation of [`Fence::state`].
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether nexuses were told that the pool below runs low.
    pub(crate) fn space_is_low(&self) -> bool {
        self.original.space_is_low()
    }

    /// Whether a change is held up.
    pub(crate) fn draining(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.overdue)
    }

    /// The nexuses that it holds on to.
    pub(crate) fn held(&self) -> impl Iterator<Item = NexusId> + '_ {
        let coming = self.errands.iter().filter_map(|errand| match errand {
            Errand::NexusFound(nexus, _) => Some(*nexus),
            _ => None,
        });
        self.attached.keys().copied().chain(coming)
    }

    /// A nexus asks for a change.
    pub(crate) fn request(
        &mut self,
        asker: Asker,
        nexus: NexusId,
        request: Request,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let joined = Joined { asker, deadline: now + CHANGE_PATIENCE };
        // Not a reset: it is to abort also what has come since the one that drains.
        let repeats = |running: &&mut Running| {
            request != Request::Reset
                && running.request.as_ref().is_some_and(|(asking, what)| (*asking, what) == (nexus, &request))
                && running.asker.is_none()
                && !running.owner_lost
                && running.joined.len() < JOINED_MAX
        };
        if let Some(running) = self.running.as_mut().filter(repeats) {
            running.joined.push(joined);
        } else if self.retired || self.queue.len() >= QUEUE_MAX {
            effects.push(Effect::Answer(asker, Err(Outcome::BUSY)));
        } else {
            self.queue.push_back(Waiting { joined, nexus, request });
            self.proceed(now, effects);
        }
    }

    /// Nobody waits for this answer any more. What has not begun is not done.
    pub(crate) fn withdraw(&mut self, asker: Asker) {
        self.queue.retain(|waiting| waiting.joined.asker != asker);
        self.awaiting_work.retain(|(_, waiting)| *waiting != asker);
        if let Some(running) = &mut self.running {
            running.asker.take_if(|joined| joined.asker == asker);
            running.joined.retain(|joined| joined.asker != asker);
        }
    }

    /// Whoever asked in this nexus is gone.
    fn forget(&mut self, nexus: NexusId, effects: &mut Vec<Effect>) {
        let queued =
            self.queue.iter().filter(|waiting| waiting.nexus == nexus).map(|waiting| waiting.joined.asker);
        effects.extend(queued.map(Effect::Forget));
        self.queue.retain(|waiting| waiting.nexus != nexus);
        let of_work = self.awaiting_work.extract_if(.., |(asking, _)| *asking == nexus);
        effects.extend(of_work.map(|(_, asker)| Effect::Forget(asker)));
        if let Some(running) = &mut self.running
            && running.request.as_ref().is_some_and(|(asking, _)| *asking == nexus)
        {
            // What a registrant does outlives its session: its successor, which is the same nexus, joins.
            running.owner_lost =
                matches!(running.request, Some((_, Request::Change(Change::Reserve | Change::Release))));
            let waiting = running.asker.take().into_iter().chain(running.joined.drain(..));
            effects.extend(waiting.map(|joined| Effect::Forget(joined.asker)));
        }
    }

    /// Control wants something done.
    pub(crate) fn errand(&mut self, errand: Errand, now: Moment, effects: &mut Vec<Effect>) {
        let is_reconfigured = |errand: &&mut Errand| matches!(errand, Errand::Reconfigured(_));
        match &errand {
            Errand::NexusLost(nexus) => {
                let nexus = *nexus;
                self.forget(nexus, effects);
                // It came and went while its turn had not come: so errands stay fewer than nexuses.
                let found =
                    |errand: &Errand| matches!(errand, Errand::NexusFound(found, _) if *found == nexus);
                if let Some(at) = self.errands.iter().position(found) {
                    self.errands.remove(at);
                    effects.push(Effect::Release(nexus));
                    return;
                }
            }
            Errand::Device(..) => self.errands.retain(|errand| !matches!(errand, Errand::Device(..))),
            Errand::Reconfigured(_) => {
                // In its place: behind it the unit may become ready, which is to be in its new shape.
                if let Some(waiting) = self.errands.iter_mut().find(is_reconfigured) {
                    *waiting = errand;
                    return;
                }
            }
            Errand::Ports(_) => self.errands.retain(|errand| !matches!(errand, Errand::Ports(_))),
            Errand::Groups(_) => self.errands.retain(|errand| !matches!(errand, Errand::Groups(_))),
            Errand::Space(_) => self.errands.retain(|errand| !matches!(errand, Errand::Space(_))),
            Errand::WorkIsAt(_) => self.errands.retain(|errand| !matches!(errand, Errand::WorkIsAt(_))),
            Errand::Restored { .. }
            | Errand::NexusFound(..)
            | Errand::AbsentHolderLost
            | Errand::WorkEnded(_) => {}
        }
        self.errands.push_back(errand);
        self.proceed(now, effects);
    }

    /// The ledger that [`Effect::Persist`] asked for is durable, or could not be made so.
    pub(crate) fn written(&mut self, durable: bool, now: Moment, effects: &mut Vec<Effect>) {
        let mut running = self.running.take().expect("a ledger is written for somebody");
        self.ledger.written(durable, now);
        match running.phase {
            // Control's own errands are facts: they hold whether or not a disk takes note of them.
            Phase::Persisting(judged) if durable || running.request.is_none() => {
                let (original, installment) = *judged;
                let asker = running.request.as_ref().map(|(nexus, _)| *nexus);
                running.phase = Phase::Installing(self.install(original, installment, asker, effects));
                self.running = Some(running);
                self.settle(now, effects);
            }
            Phase::Persisting(_) => {
                running.answer(Err(Outcome::internal_failure()), effects);
                self.proceed(now, effects);
            }
            Phase::Repairing => {
                running.answer(if durable { Ok(()) } else { Err(Outcome::internal_failure()) }, effects);
                self.proceed(now, effects);
            }
            Phase::Installing(_) => unreachable!("nothing was being written"),
        }
    }

    /// A shard has installed this generation, and all before it.
    pub(crate) fn installed(
        &mut self,
        shard: ShardId,
        generation: Generation,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        assert!(generation <= self.generation, "a shard cannot have installed what it was not sent");
        let seen = &mut self.installed[usize::from(shard.0)];
        *seen = generation.max(*seen);
        self.settle(now, effects);
    }

    /// The flush that a generation asked for has failed on a shard, which answers it next.
    pub(crate) fn flush_failed(&mut self, generation: Generation) {
        let asked = |phase: &Phase| matches!(phase, Phase::Installing(at) if *at == generation);
        if let Some(running) = self.running.as_mut().filter(|running| asked(&running.phase)) {
            running.flush_failed = true;
        }
    }

    /// Writes that are nobody's any more: every shard hears of them before anything that is sent to it later.
    pub(crate) fn orphaned(&mut self, orphans: &[Orphan], effects: &mut Vec<Effect>) {
        if !orphans.is_empty() {
            self.orphans.extend(orphans);
            self.tell_orphans(effects);
        }
    }

    /// An orphan is off the medium. Every shard hears of it at once: until then it answers BUSY for those blocks, and an
    /// Install that is still being drained has nothing to do with them.
    pub(crate) fn orphan_done(&mut self, orphan: Orphan, effects: &mut Vec<Effect>) {
        let before = self.orphans.len();
        self.orphans.retain(|known| (known.shard, known.serial) != (orphan.shard, orphan.serial));
        if self.orphans.len() < before {
            self.tell_orphans(effects);
        }
    }

    /// Time has passed: who has waited too long hears so.
    pub(crate) fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(running) = &mut self.running {
            running.expire(now, effects);
        }
        while let Some(waiting) = self.queue.front().filter(|waiting| waiting.joined.deadline <= now) {
            effects.push(Effect::Answer(waiting.joined.asker, Err(Outcome::BUSY)));
            self.queue.pop_front();
        }
        if self.absent_holder_until.take_if(|until| *until <= now).is_some() {
            self.errands.push_back(Errand::AbsentHolderLost);
        }
        self.proceed(now, effects);
    }

    /// When [`Fence::expire`] has something to do.
    pub(crate) fn next_deadline(&self) -> Moment {
        let queue = self.queue.front().map_or(Moment::NEVER, |waiting| waiting.joined.deadline);
        let absent = self.absent_holder_until.unwrap_or(Moment::NEVER);
        let running = match &self.running {
            Some(running) => running.next_deadline(),
            None if !self.ledger.kept => self.ledger.retry_at,
            None => Moment::NEVER,
        };
        queue.min(absent).min(running)
    }

    /// Every shard's answer counted: ends what is complete, and goes on.
    fn settle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let everywhere = self.installed.iter().copied().min().expect("there is a shard");
        let done = |running: &mut Running| matches!(running.phase, Phase::Installing(at) if at <= everywhere);
        if let Some(mut running) = self.running.take_if(done) {
            self.hand_over_work(&mut running, effects);
            // A reset promises nothing of what is stable.
            let unstable = running.flush_failed && !matches!(running.request, Some((_, Request::Reset)));
            let verdict = if unstable { Err(UNSTABLE) } else { running.verdict };
            running.answer(verdict, effects);
            effects.push(Effect::Completed);
            self.proceed(now, effects);
        }
    }

    /// Work on all of the medium begins when no shard has anything else there. Who does not want to hear at once waits for
    /// its end, however long that takes.
    fn hand_over_work(&mut self, running: &mut Running, effects: &mut Vec<Effect>) {
        let Some(work) = running.work.take() else { return };
        let asker = running.asker.map(|joined| joined.asker);
        let shard = asker.map_or(ShardId(0), |asker| asker.shard);
        if let (false, Some((nexus, _))) = (work.immediate, &running.request) {
            let waiting = running.asker.take().into_iter().chain(running.joined.drain(..));
            self.awaiting_work.extend(waiting.map(|joined| (*nexus, joined.asker)));
        }
        effects.push(Effect::Work(shard, work));
    }

    /// Takes up one thing after the other until one is under way: control's errands, requests, a ledger's repair.
    fn proceed(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        loop {
            if self.running.is_some() {
                let Some(at) = self.comes_or_goes_meanwhile() else { break };
                let errand = self.errands.remove(at).expect("it was just looked at");
                self.run(errand, now, effects);
            } else if let Some(errand) = self.errands.pop_front() {
                self.run(errand, now, effects);
            } else if let Some(waiting) = self.queue.pop_front() {
                self.take_up(waiting, now, effects);
            } else if !self.ledger.kept && self.ledger.retry_at <= now {
                effects.push(Effect::Persist(self.original.ledger().encode(self.ledger.boot)));
                self.running = Some(Running::new(None, None, Phase::Repairing, now));
            } else {
                break;
            }
        }
    }

    /// The errand of the next nexus that comes or goes, where nothing is to be made durable for it and so it may while
    /// something else is in hand: that may take as long as a medium hangs, or a disk, and who comes back is the holder, or a
    /// registrant, all the while. The nexus that asked for what is in hand stays: it is to be known again when it repeats
    /// its request.
    fn comes_or_goes_meanwhile(&self) -> Option<usize> {
        let running = self.running.as_ref()?;
        let moves = |errand: &Errand| matches!(errand, Errand::NexusFound(..) | Errand::NexusLost(_));
        let at = self.errands.iter().position(moves)?;
        let may = match (&self.errands[at], &running.phase) {
            (Errand::NexusLost(_), Phase::Persisting(_)) => false,
            // Where it is a loss that is being written, the nexus may be the very one that was lost.
            (_, Phase::Persisting(_)) => running.request.is_some(),
            (Errand::NexusLost(nexus), _) => {
                let asked = running.request.as_ref().is_some_and(|(asking, _)| asking == nexus);
                !asked && self.state.reservation != Reservation::Exclusive { holder: Some(*nexus) }
            }
            _ => true,
        };
        may.then_some(at)
    }

    fn run(&mut self, errand: Errand, now: Moment, effects: &mut Vec<Effect>) {
        match &errand {
            Errand::NexusFound(nexus, name) => {
                self.attached.insert(*nexus, name.clone());
                if let Some(Running { phase: Phase::Persisting(judged), .. }) = &mut self.running {
                    // What comes next knows it, too.
                    let (original, installment) = &mut **judged;
                    if let Some(seen) = original.attach(*nexus, name.clone()) {
                        installment.unit = seen.unit;
                    }
                }
            }
            Errand::NexusLost(nexus) => {
                if self.attached.remove(nexus).is_some() {
                    effects.push(Effect::Release(*nexus));
                }
            }
            Errand::Restored { ledger, kept } => {
                (self.ledger.restored, self.ledger.kept) = (true, *kept);
                let absent = ledger.absent_holder().is_some();
                self.absent_holder_until = absent.then(|| now + ABSENT_HOLDER_PATIENCE);
            }
            Errand::AbsentHolderLost
            | Errand::Device(..)
            | Errand::Reconfigured(_)
            | Errand::Ports(_)
            | Errand::Groups(_)
            | Errand::Space(_)
            | Errand::WorkIsAt(_)
            | Errand::WorkEnded(_) => {}
        }
        let ends_work = matches!(errand, Errand::WorkEnded(_));
        let Some(errand) = self.move_nexus(errand, effects) else { return };
        let judged = judge::errand(&self.original, &self.attached, errand);
        let Judged { original, installment, verdict } = judged;
        match installment {
            // Nobody waits for what no shard sees: it may happen beside a drain.
            None => self.original = original,
            _ => self.begin(None, None, Judged { original, installment, verdict }, now, effects),
        }
        if ends_work && let Some(running) = &mut self.running {
            let waiting = self.awaiting_work.drain(..).map(|(_, asker)| asker);
            running.joined.extend(waiting.map(|asker| Joined { asker, deadline: Moment::NEVER }));
        }
    }

    /// Nexuses that come, and those that go without a RESERVE, at once and not on a clone: it would be one of thousands of
    /// names for each of thousands. Gives back any other errand.
    fn move_nexus(&mut self, errand: Errand, effects: &mut Vec<Effect>) -> Option<Errand> {
        match errand {
            Errand::NexusFound(nexus, name) => {
                // Nobody waits for it: it takes nothing from anybody who has a session.
                if let Some(installment) = self.original.attach(nexus, name) {
                    self.install(self.original.clone(), installment, None, effects);
                }
                None
            }
            Errand::NexusLost(nexus)
                if !matches!(self.original.unit().reservation, Reservation::Exclusive { .. }) =>
            {
                let seen = self.original.nexus_lost(nexus);
                assert!(seen.is_none(), "it held nothing");
                None
            }
            other => Some(other),
        }
    }

    /// Judged now and not when it was asked: what came before it may have changed the answer.
    fn take_up(&mut self, waiting: Waiting, now: Moment, effects: &mut Vec<Effect>) {
        let Waiting { joined, nexus, request } = waiting;
        let refusal = if !self.attached.contains_key(&nexus) {
            // The unit was taken out of the session's map while the request was under way.
            Some(Outcome::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED))
        } else if self.ledger.restored {
            None
        } else {
            let sense = Sense::new(SenseKey::NotReady, AdditionalSense::BECOMING_READY);
            Some(Outcome::check(self.state.readiness.sense().unwrap_or(sense)))
        };
        match refusal.map_or_else(|| judge::request(&self.original, nexus, request.clone()), Err) {
            Ok(judged) => self.begin(Some((nexus, request)), Some(joined), judged, now, effects),
            Err(outcome) => effects.push(Effect::Answer(joined.asker, Err(outcome))),
        }
    }

    fn begin(
        &mut self,
        request: Option<(NexusId, Request)>,
        asker: Option<Joined>,
        judged: Judged,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        assert!(self.running.is_none(), "beside a drain nothing begins that it would have to wait for");
        let Judged { original, installment, verdict } = judged;
        let Some(installment) = installment else {
            // Nothing that a shard sees is another one.
            self.original = original;
            if asker.is_some() && !self.ledger.kept {
                // A write that failed may have left another ledger: a restart would bring that, in spite of this GOOD.
                effects.push(Effect::Persist(self.original.ledger().encode(self.ledger.boot)));
                self.running = Some(Running::new(request, asker, Phase::Repairing, now));
                return;
            }
            effects.extend(asker.map(|joined| Effect::Answer(joined.asker, Ok(()))));
            return;
        };
        let work = installment.work.clone();
        let phase = if installment.durable {
            // Until the answer comes the file may have the old one or the new one.
            self.ledger.kept = false;
            effects.push(Effect::Persist(original.ledger().encode(self.ledger.boot)));
            Phase::Persisting(Box::new((original, installment)))
        } else {
            let nexus = request.as_ref().map(|(nexus, _)| *nexus);
            Phase::Installing(self.install(original, installment, nexus, effects))
        };
        self.running = Some(Running { work, verdict, ..Running::new(request, asker, phase, now) });
    }

    fn install(
        &mut self,
        original: Original,
        installment: Installment,
        asker: Option<NexusId>,
        effects: &mut Vec<Effect>,
    ) -> Generation {
        if original.ledger().absent_holder().is_none() {
            self.absent_holder_until = None;
        }
        self.original = original;
        if let Some(whom) = &installment.aborts {
            self.abort_queue(whom, effects);
        }
        self.send(installment, asker, effects)
    }

    /// Commands that are parked here are tasks of their unit like all others. Task management functions are none.
    fn abort_queue(&mut self, whom: &Whom, effects: &mut Vec<Effect>) {
        self.queue.retain(|waiting| {
            let aborted = waiting.request != Request::Reset && whom.includes(waiting.nexus);
            if aborted {
                effects.push(Effect::Answer(waiting.joined.asker, Err(Outcome::TASK_ABORTED)));
            }
            !aborted
        });
    }

    /// The same state with another list of orphans: refuses nothing, so that no drain waits for it.
    fn tell_orphans(&mut self, effects: &mut Vec<Effect>) {
        let unit = self.original.unit().clone();
        let unchanged = Installment {
            unit,
            attentions: Vec::new(),
            aborts: None,
            durable: false,
            flush: false,
            work: None,
        };
        self.send(unchanged, None, effects);
    }

    fn send(
        &mut self,
        installment: Installment,
        asker: Option<NexusId>,
        effects: &mut Vec<Effect>,
    ) -> Generation {
        self.generation.0 += 1;
        self.state = Arc::new(LogicalUnit { generation: self.generation.0, ..installment.unit });
        effects.push(Effect::Install(Install {
            unit: self.unit,
            generation: self.generation,
            state: Arc::clone(&self.state),
            attentions: installment.attentions,
            aborts: installment.aborts,
            asker,
            flush: installment.flush,
            orphans: self.orphans.as_slice().into(),
        }));
        self.generation
    }
}

impl Running {
    fn new(request: Option<(NexusId, Request)>, asker: Option<Joined>, phase: Phase, now: Moment) -> Self {
        let patience = now + CHANGE_PATIENCE;
        Self {
            request,
            asker,
            joined: Vec::new(),
            patience,
            overdue: false,
            owner_lost: false,
            flush_failed: false,
            work: None,
            verdict: Ok(()),
            phase,
        }
    }

    /// Tells everybody who waits.
    fn answer(self, outcome: Result<(), Outcome>, effects: &mut Vec<Effect>) {
        let waiting = self.asker.into_iter().chain(self.joined);
        effects.extend(waiting.map(|joined| Effect::Answer(joined.asker, outcome)));
    }

    fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let late = self.asker.take_if(|joined| joined.deadline <= now).into_iter();
        let late = late.chain(self.joined.extract_if(.., |joined| joined.deadline <= now));
        effects.extend(late.map(|joined| Effect::Answer(joined.asker, Err(HELD_UP))));
        if !self.overdue && self.patience <= now {
            self.overdue = true;
            effects.push(Effect::Overdue);
        }
    }

    fn next_deadline(&self) -> Moment {
        let waiting = self.asker.iter().chain(&self.joined).map(|joined| joined.deadline);
        let patience = if self.overdue { Moment::NEVER } else { self.patience };
        waiting.fold(patience, Moment::min)
    }
}

impl LedgerFile {
    fn written(&mut self, durable: bool, now: Moment) {
        self.kept = durable;
        if durable {
            self.retry_after = LEDGER_RETRY_MIN;
        } else {
            self.retry_at = now + self.retry_after;
            self.retry_after = (self.retry_after * 2).min(LEDGER_RETRY_MAX);
        }
    }
}
