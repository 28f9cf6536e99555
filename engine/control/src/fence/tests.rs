//! Dialogues with one fence on two shards.

use portico_model::configuration::{Device, Handler};
use portico_model::identity::Ticket;
use portico_scsi::attention::UnitAttention;
use portico_scsi::original::Change;
use portico_scsi::persistent::{OutAction, PersistentOut, Registering, ScopeType};
use portico_scsi::reservation::Reservation;
use portico_scsi::unit::{ModeChange, Readiness, WriteCache};
use portico_scsi::work::{Fill, Work, WorkKind};

use super::*;
use crate::identity::{Extent, logical_unit};

const UNIT: UnitId = UnitId(7);
const A: NexusId = NexusId(1);
const B: NexusId = NexusId(2);
const BOOT: BootId = [9; 16];
const S0: ShardId = ShardId(0);
const S1: ShardId = ShardId(1);
const RESERVE: Request = Request::Change(Change::Reserve);
const RELEASE: Request = Request::Change(Change::Release);

fn unit(size_bytes: u64) -> LogicalUnit {
    let device = Device::new("disk", Handler::FileIo { filename: "/disk".into(), size_bytes: None });
    logical_unit(
        &device,
        0,
        Some(Extent { size_bytes, physical_block_bytes: None, read_only: false, untorn_bytes: None }),
    )
    .unwrap()
}

fn name(initiator: &str) -> NexusName {
    NexusName::new(initiator, "target")
}

fn asker(ticket: u64) -> Asker {
    Asker { shard: S0, ticket: Ticket(ticket) }
}

/// A fence, the clock, and what came out since somebody looked.
struct Stage {
    fence: Fence,
    now: Moment,
    effects: Vec<Effect>,
}

impl Stage {
    /// A ready unit that A and B have attached to, with nothing reserved.
    fn ready() -> Self {
        Self::restored(Ledger::new(), true)
    }

    fn restored(ledger: Ledger, kept: bool) -> Self {
        let mut stage = Self::unknown();
        stage.errand(Errand::Restored { ledger, kept });
        stage.effects.clear();
        stage
    }

    /// The same before its ledger was read.
    fn unknown() -> Self {
        let mut stage = Self {
            fence: Fence::new(UNIT, unit(1 << 20), 2, BOOT),
            now: Moment::from_millis(1000),
            effects: Vec::new(),
        };
        stage.errand(Errand::NexusFound(A, name("a")));
        stage.errand(Errand::NexusFound(B, name("b")));
        stage
    }

    fn errand(&mut self, errand: Errand) {
        self.fence.errand(errand, self.now, &mut self.effects);
    }

    fn ask(&mut self, ticket: u64, nexus: NexusId, request: Request) {
        self.fence.request(asker(ticket), nexus, request, self.now, &mut self.effects);
    }

    fn written(&mut self, durable: bool) {
        self.fence.written(durable, self.now, &mut self.effects);
    }

    fn installed(&mut self, shard: ShardId, generation: u64) {
        self.fence.installed(shard, Generation(generation), self.now, &mut self.effects);
    }

    fn everywhere(&mut self, generation: u64) {
        self.installed(S0, generation);
        self.installed(S1, generation);
    }

    /// Lets time pass, stopping wherever the fence wants to be looked at.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.fence.next_deadline() <= end {
            let at = self.fence.next_deadline();
            assert!(
                at > self.now || self.now == end || self.fence.next_deadline() <= self.now,
                "time runs on"
            );
            self.now = at.max(self.now);
            self.fence.expire(self.now, &mut self.effects);
            assert!(self.fence.next_deadline() > self.now, "what was due is done");
        }
        self.now = end;
    }

    /// What came out, in words.
    fn said(&mut self) -> Vec<String> {
        self.effects.drain(..).map(|effect| word(&effect)).collect()
    }
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Persist(bytes) => {
            let ledger = Ledger::restore(bytes, BOOT).unwrap();
            let holder = ledger.absent_holder().map_or("nobody", |name| name.initiator_port());
            format!("persist {holder}")
        }
        Effect::Install(install) => {
            let holder = match &install.state.reservation {
                Reservation::None => String::new(),
                Reservation::Exclusive { holder: Some(holder) } => format!(" held by {}", holder.0),
                Reservation::Exclusive { holder: None } => " held by somebody absent".to_owned(),
                Reservation::Persistent(registrations) => {
                    let keys: Vec<u64> = registrations.registrants.iter().map(|one| one.key).collect();
                    let here: Vec<u64> = registrations.nexuses.iter().map(|(nexus, _)| nexus.0).collect();
                    let held = registrations.held.map_or(String::new(), |kind| format!(" {kind:?}"));
                    format!(" keys {keys:?} here {here:?}{held}")
                }
            };
            assert_eq!(install.state.generation, install.generation.0);
            let aborts = if install.aborts.is_some() { " aborting" } else { "" };
            let orphans = match install.orphans.len() {
                0 => String::new(),
                count => format!(" with {count} orphans"),
            };
            format!("install {}{holder}{aborts}{orphans}", install.generation.0)
        }
        Effect::Answer(asker, Ok(())) => format!("{} good", asker.ticket.0),
        Effect::Answer(asker, Err(Outcome::BUSY)) => format!("{} busy", asker.ticket.0),
        Effect::Answer(asker, Err(Outcome::RESERVATION_CONFLICT)) => format!("{} conflict", asker.ticket.0),
        Effect::Answer(asker, Err(Outcome::TASK_ABORTED)) => format!("{} aborted", asker.ticket.0),
        Effect::Answer(asker, Err(outcome)) => {
            let sense = outcome.sense.expect("what is left is a CHECK CONDITION");
            format!(
                "{} check {:02x}/{:02x}",
                asker.ticket.0, sense.additional.code, sense.additional.qualifier
            )
        }
        Effect::Forget(asker) => format!("forget {}", asker.ticket.0),
        Effect::Release(nexus) => format!("release {}", nexus.0),
        Effect::Work(shard, work) => format!("{:?} at shard {}", work.kind, shard.0),
        Effect::Completed => "completed".to_owned(),
        Effect::Overdue => "overdue".to_owned(),
    }
}

fn orphan(serial: u64) -> Orphan {
    Orphan { shard: S1, serial, unit: UNIT, lba: 100, blocks: 8 }
}

#[test]
fn good_leaves_when_the_ledger_is_durable_and_every_shard_has_installed_the_change() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    assert_eq!(stage.said(), ["persist a"], "nothing is installed before it is durable");
    stage.written(true);
    assert_eq!(stage.said(), ["install 1 held by 1"]);
    stage.installed(S1, 1);
    assert_eq!(stage.said(), [""; 0]);
    stage.installed(S0, 1);
    assert_eq!(stage.said(), ["1 good", "completed"]);
}

#[test]
fn two_changes_of_one_unit_never_overlap_and_the_second_is_judged_after_the_first() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.ask(2, B, RESERVE);
    stage.written(true);
    stage.installed(S0, 1);
    assert_eq!(stage.said(), ["persist a", "install 1 held by 1"]);
    stage.installed(S1, 1);
    assert_eq!(stage.said(), ["1 good", "completed", "2 conflict"]);
}

#[test]
fn what_changes_nothing_is_good_at_once() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RELEASE);
    stage.ask(2, A, Request::Change(Change::PreventRemoval { prevent: true }));
    assert_eq!(stage.said(), ["1 good", "2 good"]);
    stage.ask(3, A, Request::Change(Change::Eject));
    assert_eq!(stage.said(), ["3 check 53/02"], "the prevention was kept though no shard needed to know");
}

#[test]
fn a_ledger_that_cannot_be_written_changes_nothing_and_is_mended() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(false);
    assert_eq!(stage.said(), ["persist a", "1 check 44/00"]);
    assert_eq!(stage.fence.state().reservation, Reservation::None);
    stage.pass(LEDGER_RETRY_MIN);
    assert_eq!(stage.said(), ["persist nobody"], "the file may have the one or the other");
    stage.written(false);
    stage.pass(LEDGER_RETRY_MIN);
    assert_eq!(stage.said(), [""; 0], "the next attempt takes longer");
    stage.pass(LEDGER_RETRY_MIN);
    assert_eq!(stage.said(), ["persist nobody"]);
    stage.written(true);
    stage.pass(LEDGER_RETRY_MAX);
    assert_eq!(stage.said(), [""; 0]);
}

#[test]
fn what_changes_nothing_is_good_only_when_the_file_says_so_too() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.everywhere(1);
    stage.ask(2, A, RELEASE);
    stage.written(false);
    stage.said();
    // The file may have the release.
    stage.ask(3, A, RESERVE);
    assert_eq!(stage.said(), ["persist a"]);
    stage.written(false);
    assert_eq!(stage.said(), ["3 check 44/00"]);
    stage.ask(4, A, RESERVE);
    stage.written(true);
    assert_eq!(stage.said(), ["persist a", "4 good"]);
    stage.ask(5, A, RESERVE);
    assert_eq!(stage.said(), ["5 good"]);
}

#[test]
fn after_the_limit_the_new_state_stays_and_the_asker_hears_that_it_drains() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.installed(S0, 1);
    stage.said();
    stage.pass(CHANGE_PATIENCE);
    assert_eq!(stage.said(), ["1 check 2e/02", "overdue"]);
    assert!(stage.fence.draining());
    assert_eq!(stage.fence.state().reservation, Reservation::Exclusive { holder: Some(A) });

    stage.ask(2, A, RESERVE);
    stage.ask(3, B, RESERVE);
    assert_eq!(stage.said(), [""; 0], "the same of the same nexus joins, another one waits");
    stage.installed(S1, 1);
    assert_eq!(stage.said(), ["2 good", "completed", "3 conflict"]);
    assert!(!stage.fence.draining());
}

#[test]
fn a_repetition_that_joined_hears_the_limit_again() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.pass(CHANGE_PATIENCE);
    stage.ask(2, A, RESERVE);
    assert_eq!(stage.said(), ["persist a", "install 1 held by 1", "1 check 2e/02", "overdue"]);
    stage.pass(CHANGE_PATIENCE);
    assert_eq!(stage.said(), ["2 check 2e/02"]);
}

#[test]
fn a_repeated_reset_aborts_also_what_came_since_the_one_that_drains() {
    let mut stage = Stage::ready();
    stage.ask(1, A, Request::Reset);
    stage.fence.withdraw(asker(1));
    stage.ask(2, A, Request::Reset);
    assert_eq!(stage.said(), ["install 1 aborting"]);
    stage.everywhere(1);
    assert_eq!(stage.said(), ["completed", "install 2 aborting"]);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["2 good", "completed"]);
}

#[test]
fn a_repetition_by_a_withdrawn_asker_joins_too() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.fence.withdraw(asker(1));
    stage.ask(2, A, RESERVE);
    stage.everywhere(1);
    assert_eq!(stage.said(), ["persist a", "install 1 held by 1", "2 good", "completed"]);
}

#[test]
fn a_cache_that_could_not_be_flushed_is_off_and_the_asker_hears_that_what_it_held_may_be_lost() {
    let mut stage = Stage::ready();
    let off = ModeChange { write_cache: Some(WriteCache::WriteThrough), ..ModeChange::default() };
    stage.ask(1, A, Request::Change(Change::ModeSelect(off)));
    stage.fence.flush_failed(Generation(1));
    stage.everywhere(1);
    assert_eq!(stage.said(), ["install 1", "1 check 0c/00", "completed"]);
    assert_eq!(stage.fence.state().mode.write_cache, WriteCache::WriteThrough);
}

#[test]
fn saved_mode_values_are_durable_before_any_shard_hears_of_them() {
    let mut stage = Stage::ready();
    let save =
        ModeChange { write_cache: Some(WriteCache::WriteThrough), save: true, ..ModeChange::default() };
    stage.ask(1, A, Request::Change(Change::ModeSelect(save)));
    assert_eq!(stage.said(), ["persist nobody"]);
    stage.written(false);
    assert_eq!(stage.said(), ["1 check 44/00"]);
    assert_eq!(stage.fence.state().mode.write_cache, WriteCache::WriteBack, "nothing changed");
    stage.ask(2, A, Request::Change(Change::ModeSelect(save)));
    stage.written(true);
    stage.everywhere(1);
    assert_eq!(stage.said(), ["persist nobody", "install 1", "2 good", "completed"]);
    assert_eq!(stage.fence.state().mode_saved.write_cache, WriteCache::WriteThrough);
}

fn sanitize(immediate: bool) -> Request {
    let fill = Fill::Zeroes { deallocate: true };
    let work = Work { kind: WorkKind::Sanitize, immediate, unrestricted: false, fill };
    Request::Change(Change::Work(Arc::new(work)))
}

#[test]
fn work_on_the_medium_begins_when_every_shard_has_drained_and_is_answered_at_its_end() {
    let mut stage = Stage::ready();
    stage.ask(1, A, sanitize(false));
    stage.written(true);
    stage.installed(S0, 1);
    assert_eq!(stage.said(), ["persist nobody", "install 1"]);
    stage.installed(S1, 1);
    assert_eq!(stage.said(), ["Sanitize at shard 0", "completed"]);
    stage.ask(2, B, RESERVE);
    assert_eq!(stage.said(), ["2 check 04/1b"], "nothing changes meanwhile");
    stage.errand(Errand::WorkIsAt(0x8000));
    stage.everywhere(2);
    assert_eq!(stage.fence.state().readiness, Readiness::UnderWay(WorkKind::Sanitize, 0x8000));
    stage.pass(CHANGE_PATIENCE * 10);
    assert_eq!(stage.said(), ["install 2", "completed"], "however long it takes");
    stage.errand(Errand::WorkEnded(true));
    stage.written(true);
    assert_eq!(stage.said(), ["persist nobody", "install 3"]);
    stage.everywhere(3);
    assert_eq!(stage.said(), ["1 good", "completed"]);
    assert_eq!(stage.fence.state().readiness, Readiness::Ready);
}

#[test]
fn work_that_failed_is_told_to_who_waits_and_to_everybody_after_a_restart_too() {
    let mut stage = Stage::ready();
    stage.ask(1, A, sanitize(false));
    let Some(Effect::Persist(kept)) = stage.effects.pop() else { panic!("durable before it begins") };
    stage.written(true);
    stage.everywhere(1);
    stage.said();
    stage.errand(Errand::WorkEnded(false));
    stage.everywhere(2);
    assert_eq!(stage.said(), ["install 2", "1 check 31/03", "completed"]);
    stage.ask(2, B, RESERVE);
    assert_eq!(stage.said(), ["2 check 31/03"]);
    let mut again = Stage::restored(Ledger::restore(&kept, BOOT).unwrap(), true);
    assert_eq!(again.fence.original.unit().readiness, Readiness::WorkFailed(WorkKind::Sanitize));
    again.ask(3, A, Request::Change(Change::ExitFailureMode));
    assert_eq!(again.said(), ["3 check 24/00"], "it was in restricted mode");
    again.ask(4, A, sanitize(true));
    again.everywhere(1);
    assert_eq!(again.said(), ["install 1", "Sanitize at shard 0", "4 good", "completed"]);
}

#[test]
fn who_waits_for_work_may_go_and_the_work_goes_on() {
    let mut stage = Stage::ready();
    stage.ask(1, A, sanitize(false));
    stage.written(true);
    stage.everywhere(1);
    stage.said();
    stage.fence.withdraw(asker(1));
    stage.errand(Errand::WorkEnded(true));
    stage.written(true);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["persist nobody", "install 2", "completed"]);
}

#[test]
fn joined_repetitions_are_bounded() {
    let mut stage = Stage::ready();
    stage.ask(0, A, RESERVE);
    stage.written(true);
    stage.fence.withdraw(asker(0));
    for ticket in 1..=JOINED_MAX + QUEUE_MAX {
        stage.ask(ticket as u64, A, RESERVE);
    }
    assert_eq!(stage.said(), ["persist a", "install 1 held by 1"]);
    stage.ask(9999, A, RESERVE);
    assert_eq!(stage.said(), ["9999 busy"]);
}

#[test]
fn a_queue_that_is_full_and_a_wait_that_is_too_long_are_busy() {
    let mut stage = Stage::ready();
    stage.ask(0, A, RESERVE);
    for ticket in 1..=QUEUE_MAX {
        stage.ask(ticket as u64, B, RESERVE);
    }
    stage.ask(9999, B, RESERVE);
    assert_eq!(stage.said(), ["persist a", "9999 busy"]);
    stage.pass(CHANGE_PATIENCE);
    let said = stage.said();
    assert_eq!(said.len(), QUEUE_MAX + 2, "everybody hears something");
    assert!(said[2..].iter().all(|word| word.ends_with(" busy")), "what has not begun may be tried again");
}

#[test]
fn a_change_that_was_withdrawn_before_its_turn_is_not_made() {
    let mut stage = Stage::ready();
    stage.ask(1, A, Request::Reset);
    stage.ask(2, B, RESERVE);
    stage.fence.withdraw(asker(2));
    stage.everywhere(1);
    assert_eq!(stage.said(), ["install 1 aborting", "1 good", "completed"]);
}

#[test]
fn a_change_that_was_withdrawn_while_it_was_made_is_made() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.fence.withdraw(asker(1));
    stage.written(true);
    stage.everywhere(1);
    assert_eq!(stage.said(), ["persist a", "install 1 held by 1", "completed"]);
}

#[test]
fn a_reset_ends_reservations_aborts_everybody_and_tells_everybody() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.everywhere(1);
    stage.said();
    stage.ask(2, B, Request::Reset);
    stage.written(true);
    let Some(Effect::Install(install)) = stage.effects.last() else { panic!("{:?}", stage.effects) };
    assert_eq!(install.aborts, Some(Whom::All));
    assert_eq!(install.attentions, [(Whom::All, UnitAttention::LogicalUnitReset)]);
    assert_eq!(stage.said(), ["persist nobody", "install 2 aborting"]);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["2 good", "completed"]);
}

#[test]
fn a_reset_aborts_commands_that_wait_here_and_no_other_reset() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.ask(2, B, Request::Reset);
    stage.ask(3, B, RESERVE);
    stage.ask(4, A, Request::Reset);
    stage.written(true);
    stage.everywhere(1);
    stage.said();
    stage.written(true);
    assert_eq!(stage.said(), ["3 aborted", "install 2 aborting"]);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["2 good", "completed", "install 3 aborting"]);
}

#[test]
fn a_lost_nexus_takes_its_reservation_along_before_anything_that_waits() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.installed(S0, 1);
    stage.ask(2, B, RESERVE);
    stage.errand(Errand::NexusLost(A));
    stage.said();
    stage.installed(S1, 1);
    assert_eq!(stage.said(), ["completed", "release 1", "persist nobody"], "nobody is there to be told");
    stage.written(true);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["install 2", "completed", "persist b"]);
}

#[test]
fn a_release_holds_though_its_ledger_cannot_be_written() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.everywhere(1);
    stage.said();
    stage.errand(Errand::NexusLost(A));
    stage.written(false);
    assert_eq!(stage.said(), ["release 1", "persist nobody", "install 2"], "it is a fact");
    stage.everywhere(2);
    stage.pass(LEDGER_RETRY_MIN);
    assert_eq!(stage.said(), ["completed", "persist nobody"]);
}

#[test]
fn nexuses_that_come_and_go_during_a_drain_leave_nothing_behind() {
    let mut stage = Stage::ready();
    stage.ask(1, A, Request::Reset);
    for round in 0..100 {
        let nexus = NexusId(100 + round);
        stage.errand(Errand::NexusFound(nexus, name("c")));
        stage.errand(Errand::NexusLost(nexus));
    }
    assert!(stage.fence.errands.is_empty());
    assert_eq!(stage.said().iter().filter(|word| word.starts_with("release")).count(), 100);
    assert_eq!(stage.fence.held().collect::<Vec<_>>(), [A, B]);
}

#[test]
fn a_nexus_that_is_back_before_its_loss_was_seen_to_is_attached_once() {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    stage.written(true);
    stage.errand(Errand::NexusLost(A));
    stage.errand(Errand::NexusFound(A, name("a")));
    stage.ask(2, A, RESERVE);
    stage.said();
    stage.everywhere(1);
    // It does not join what its former session asked for: that goes with the session.
    assert_eq!(stage.said(), ["completed", "release 1", "persist nobody"]);
    stage.written(true);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["install 2", "completed", "persist a"]);
    stage.written(true);
    stage.everywhere(3);
    assert_eq!(stage.said(), ["install 3 held by 1", "2 good", "completed"]);
}

#[test]
fn orphans_are_told_at_once_even_while_a_medium_hangs() {
    let mut stage = Stage::ready();
    stage.ask(1, A, Request::Reset);
    stage.installed(S0, 1);
    stage.pass(CHANGE_PATIENCE);
    stage.said();
    stage.fence.orphaned(&[orphan(1), orphan(2)], &mut stage.effects);
    assert_eq!(stage.said(), ["install 2 with 2 orphans"]);
    stage.installed(S0, 2);
    stage.fence.orphan_done(orphan(1), &mut stage.effects);
    assert_eq!(stage.said(), ["install 3 with 1 orphans"], "nobody is to answer BUSY any longer");
    stage.installed(S1, 1);
    assert_eq!(stage.said(), ["completed"]);
    stage.installed(S1, 2);
    assert_eq!(stage.said(), [""; 0]);
    stage.fence.orphan_done(orphan(2), &mut stage.effects);
    stage.everywhere(3);
    assert_eq!(stage.said(), ["install 4"]);
    stage.everywhere(4);
    assert_eq!(stage.said(), [""; 0]);
}

#[test]
fn a_change_carries_the_orphans_of_the_moment() {
    let mut stage = Stage::ready();
    stage.fence.orphaned(&[orphan(1)], &mut stage.effects);
    stage.ask(1, A, RESERVE);
    stage.written(true);
    assert_eq!(stage.said(), ["install 1 with 1 orphans", "persist a", "install 2 held by 1 with 1 orphans"]);
    stage.everywhere(2);
    assert_eq!(stage.said(), ["1 good", "completed"], "the answer to 2 is one to 1");
}

fn out(action: OutAction, key: u64, action_key: u64) -> Request {
    let out = PersistentOut { reservation_key: key, action_key, action };
    Request::Change(Change::PersistentReserve(Box::new(out)))
}

fn register(key: u64) -> Request {
    let registering =
        Registering { ignore_existing: true, initiators: None, all_target_ports: false, persists: false };
    out(OutAction::Register(registering), 0, key)
}

/// Write Exclusive, registrants only.
const TYPE: ScopeType = ScopeType(5);

fn preempt(key: u64, victim_key: u64) -> Request {
    out(OutAction::Preempt { scope_type: TYPE, abort: true }, key, victim_key)
}

/// A unit that A, with key 1, holds against all who are not registered; B is, with key 2.
fn held_for_registrants() -> Stage {
    let mut stage = Stage::ready();
    for (generation, nexus, request) in
        [(1, A, register(1)), (2, B, register(2)), (3, A, out(OutAction::Reserve(TYPE), 1, 0))]
    {
        stage.ask(generation, nexus, request);
        stage.written(true);
        stage.everywhere(generation);
    }
    let last = stage.said().pop();
    assert_eq!(last.as_deref(), Some("completed"));
    stage
}

#[test]
fn a_preemption_is_durable_then_everywhere_then_good() {
    let mut stage = held_for_registrants();
    stage.ask(9, B, preempt(2, 1));
    assert_eq!(stage.said(), ["persist nobody"]);
    stage.written(true);
    let installed = "install 4 keys [2] here [2] WriteExclusiveRegistrantsOnly aborting";
    assert_eq!(stage.said(), [installed]);
    stage.installed(S1, 4);
    assert_eq!(stage.said(), [""; 0]);
    stage.installed(S0, 4);
    assert_eq!(stage.said(), ["9 good", "completed"]);
}

#[test]
fn the_same_preemption_once_more_joins_the_drain_and_another_is_judged_after_it() {
    let mut stage = held_for_registrants();
    stage.ask(10, B, preempt(2, 1));
    stage.written(true);
    stage.installed(S0, 4);
    stage.said();
    stage.pass(CHANGE_PATIENCE);
    assert_eq!(stage.said(), ["10 check 2e/02", "overdue"]);
    stage.ask(11, B, preempt(2, 1));
    stage.ask(12, B, preempt(2, 7));
    stage.ask(13, A, preempt(1, 2));
    assert_eq!(stage.said(), [""; 0]);
    stage.installed(S1, 4);
    assert_eq!(
        stage.said(),
        ["11 good", "completed", "12 conflict", "13 conflict"],
        "nobody has key 7, and who was preempted has none"
    );
}

#[test]
fn what_the_preempted_had_parked_is_aborted() {
    let mut stage = held_for_registrants();
    stage.ask(10, B, preempt(2, 1));
    stage.ask(11, A, register(5));
    stage.ask(12, B, register(6));
    stage.written(true);
    let installed = "install 4 keys [2] here [2] WriteExclusiveRegistrantsOnly aborting";
    assert_eq!(stage.said(), ["persist nobody", "11 aborted", installed]);
    stage.everywhere(4);
    assert_eq!(stage.said(), ["10 good", "completed", "persist nobody"]);
}

#[test]
fn a_registrant_that_comes_back_while_a_medium_hangs_is_one_at_once() {
    let mut stage = held_for_registrants();
    stage.ask(10, A, register(3));
    stage.written(true);
    stage.said();
    stage.errand(Errand::NexusLost(B));
    stage.errand(Errand::NexusFound(NexusId(8), name("b")));
    let back = "install 5 keys [3, 2] here [1, 8] WriteExclusiveRegistrantsOnly";
    assert_eq!(stage.said(), ["release 2", back]);
    stage.everywhere(4);
    assert_eq!(stage.said(), ["10 good", "completed"], "which waits for its own generation alone");
}

#[test]
fn registrations_outlive_the_process_and_wait_for_their_nexuses() {
    let mut stage = held_for_registrants();
    stage.ask(10, A, register(3));
    let Some(Effect::Persist(bytes)) = stage.effects.pop() else { panic!("it is persisted") };
    let mut stage = Stage::unknown();
    stage.fence = Fence::new(UNIT, unit(1 << 20), 2, BOOT);
    stage.errand(Errand::NexusFound(B, name("b")));
    stage.errand(Errand::Restored { ledger: Ledger::restore(&bytes, BOOT).unwrap(), kept: true });
    stage.effects.clear();
    stage.errand(Errand::NexusFound(NexusId(4), name("a")));
    let back = "install 1 keys [3, 2] here [2, 4] WriteExclusiveRegistrantsOnly";
    assert_eq!(stage.said(), [back]);
    stage.pass(ABSENT_HOLDER_PATIENCE * 2);
    assert_eq!(stage.said(), [""; 0], "nobody's registration ends by itself");
}

#[test]
fn before_its_ledger_is_known_a_unit_takes_no_change() {
    let mut stage = Stage::unknown();
    stage.ask(1, A, RESERVE);
    assert_eq!(stage.said(), ["1 check 04/01"]);
}

/// A ledger as a process left it in which A held the unit.
fn held_by_a() -> Ledger {
    let mut stage = Stage::ready();
    stage.ask(1, A, RESERVE);
    let Some(Effect::Persist(bytes)) = stage.effects.pop() else { panic!("a RESERVE is persisted") };
    Ledger::restore(&bytes, BOOT).unwrap()
}

#[test]
fn a_restart_does_not_unfence_a_node() {
    let mut stage = Stage {
        fence: Fence::new(UNIT, unit(1 << 20), 2, BOOT),
        now: Moment::from_millis(1000),
        effects: Vec::new(),
    };
    stage.errand(Errand::Restored { ledger: held_by_a(), kept: true });
    stage.errand(Errand::Device(Readiness::BecomingReady, None));
    stage.errand(Errand::NexusFound(B, name("b")));
    stage.everywhere(1);
    stage.said();
    stage.ask(1, B, RESERVE);
    assert_eq!(stage.said(), ["1 conflict"]);
    stage.errand(Errand::NexusFound(A, name("a")));
    assert_eq!(stage.said(), ["install 2 held by 1"], "its holder is back");
    stage.pass(ABSENT_HOLDER_PATIENCE);
    assert_eq!(stage.said(), [""; 0], "and keeps it");
}

#[test]
fn a_holder_that_does_not_come_back_after_a_restart_loses_the_unit() {
    let mut stage = Stage::ready();
    stage.fence = Fence::new(UNIT, unit(1 << 20), 2, BOOT);
    stage.errand(Errand::Restored { ledger: held_by_a(), kept: true });
    stage.pass(ABSENT_HOLDER_PATIENCE - Duration::from_millis(1));
    assert_eq!(stage.said(), [""; 0]);
    stage.pass(Duration::from_millis(1));
    assert_eq!(stage.said(), ["persist nobody"]);
}

#[test]
fn a_ledger_of_another_boot_is_written_anew() {
    let mut stage = Stage::unknown();
    stage.errand(Errand::Restored { ledger: Ledger::new(), kept: false });
    assert_eq!(stage.said(), ["persist nobody"]);
}

#[test]
fn a_unit_that_left_the_sessions_map_is_not_there() {
    let mut stage = Stage::ready();
    stage.errand(Errand::NexusLost(B));
    stage.said();
    stage.ask(1, B, RESERVE);
    assert_eq!(stage.said(), ["1 check 25/00"]);
}

#[test]
fn a_new_size_is_installed_with_its_attention() {
    let mut stage = Stage::ready();
    stage.errand(Errand::Reconfigured(Box::new(unit(2 << 20))));
    let Some(Effect::Install(install)) = stage.effects.last() else { panic!("{:?}", stage.effects) };
    assert_eq!(install.state.geometry.blocks(), 4096);
    assert_eq!(install.attentions, [(Whom::All, UnitAttention::CapacityChanged)]);
}

#[test]
fn who_comes_while_a_ledger_is_written_is_known_at_once_and_afterwards() {
    let mut stage = held_for_registrants();
    stage.errand(Errand::NexusLost(B));
    stage.ask(10, A, register(3));
    assert_eq!(stage.said(), ["release 2", "persist nobody"]);
    stage.errand(Errand::NexusFound(NexusId(8), name("b")));
    let before = "install 4 keys [1, 2] here [1, 8] WriteExclusiveRegistrantsOnly";
    assert_eq!(stage.said(), [before], "it is a registrant, and was one all the while");
    stage.written(true);
    assert_eq!(stage.said(), ["install 5 keys [3, 2] here [1, 8] WriteExclusiveRegistrantsOnly"]);
    stage.everywhere(5);
    assert_eq!(stage.said(), ["10 good", "completed"]);
}

#[test]
fn who_comes_passes_what_waits_that_has_nothing_to_do_with_it() {
    let mut stage = held_for_registrants();
    stage.errand(Errand::NexusLost(B));
    stage.ask(10, A, register(3));
    stage.written(true);
    stage.said();
    stage.errand(Errand::Device(Readiness::BecomingReady, None));
    stage.errand(Errand::NexusFound(NexusId(8), name("b")));
    assert_eq!(stage.said(), ["install 5 keys [3, 2] here [1, 8] WriteExclusiveRegistrantsOnly"]);
    stage.everywhere(4);
    let ready = "install 6 keys [3, 2] here [1, 8] WriteExclusiveRegistrantsOnly";
    assert_eq!(stage.said(), ["10 good", "completed", ready]);
}

#[test]
fn a_unit_is_never_ready_in_a_shape_that_is_out_of_date() {
    let mut stage = Stage::ready();
    stage.errand(Errand::Device(Readiness::BecomingReady, None));
    stage.everywhere(1);
    stage.ask(1, A, RESERVE);
    stage.errand(Errand::Reconfigured(Box::new(unit(4 << 20))));
    stage.errand(Errand::Device(Readiness::Ready, None));
    stage.errand(Errand::Reconfigured(Box::new(unit(2 << 20))));
    stage.written(true);
    (2..5).for_each(|generation| stage.everywhere(generation));
    let ready = stage.effects.iter().find_map(|effect| match effect {
        Effect::Install(install) if install.generation.0 > 1 => {
            (install.state.readiness == Readiness::Ready).then(|| install.state.geometry.blocks())
        }
        _ => None,
    });
    assert_eq!(ready, Some(4096));
}
