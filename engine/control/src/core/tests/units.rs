//! Units: changes through the fence, media that fail, hang and grow, ledgers that are damaged.

use portico_scsi::original::Change;
use portico_scsi::unit::Readiness;

use super::*;
use crate::fence::CHANGE_PATIENCE;

fn reserve(world: &World, ticket: u64, device: &str, at: usize) -> ToControl {
    let (_, nexus, shard) = world.adopted[at];
    let unit = world.unit(device);
    ToControl::Change { shard, ticket: Ticket(ticket), unit, nexus, change: Change::Reserve }
}

fn two_sessions() -> World {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.login("iqn.b");
    world.said();
    world
}

#[test]
fn a_reservation_is_durable_and_everywhere_before_it_is_good() {
    let mut world = two_sessions();
    world.manners = Manners { installs: false, ledgers: false, ..world.manners };
    let unit = world.unit("a");
    world.hear(reserve(&world, 9, "a", 1));
    assert_eq!(world.said(), ["write ledger a"]);
    world.tell(Mail::LedgerWritten { unit, result: Ok(()) });
    let generation = world.control.units[&unit].fence.generation();
    assert_eq!(world.said(), [format!("install {generation} of a")]);
    world.hear(ToControl::Installed { shard: ShardId(0), unit, generation });
    assert_eq!(world.said(), [""; 0]);
    world.hear(ToControl::Installed { shard: ShardId(1), unit, generation });
    assert_eq!(world.said(), ["shard 1 hears of 9: good"]);
}

#[test]
fn units_do_not_wait_for_each_other() {
    let mut world = two_sessions();
    world.manners.installs = false;
    world.hear(reserve(&world, 1, "a", 0));
    world.said();
    world.manners.installs = true;
    world.hear(reserve(&world, 2, "b", 0));
    assert!(world.said().contains(&"shard 0 hears of 2: good".to_owned()));
}

#[test]
fn a_medium_that_hangs_is_heard_of_and_named() {
    let mut world = two_sessions();
    world.manners.installs = false;
    world.hear(reserve(&world, 1, "a", 0));
    world.said();
    world.pass(CHANGE_PATIENCE);
    let said = ["shard 0 hears of 1: CheckCondition", "log: device a: a change waits for the medium"];
    assert_eq!(world.said(), said);
    assert_eq!(world.control.counters.changes_timed_out, 1);
}

#[test]
fn a_withdrawn_change_is_answered_to_nobody() {
    let mut world = two_sessions();
    world.manners.installs = false;
    world.hear(reserve(&world, 1, "a", 0));
    world.hear(ToControl::Withdraw { shard: ShardId(0), ticket: Ticket(1) });
    world.said();
    let unit = world.unit("a");
    let generation = world.control.units[&unit].fence.generation();
    for shard in [ShardId(0), ShardId(1)] {
        world.hear(ToControl::Installed { shard, unit, generation });
    }
    assert_eq!(world.said(), [""; 0]);
    assert!(world.control.parked.is_empty());
}

#[test]
fn the_end_of_a_session_releases_what_it_reserved() {
    let mut world = two_sessions();
    world.hear(reserve(&world, 1, "a", 0));
    world.hear(reserve(&world, 2, "a", 1));
    assert_eq!(world.said().last().unwrap(), "shard 1 hears of 2: ReservationConflict");
    let session = world.adopted[0].0;
    world.end(session, Vec::new());
    world.hear(reserve(&world, 3, "a", 1));
    assert_eq!(world.said().last().unwrap(), "shard 1 hears of 3: good");
}

#[test]
fn an_orphan_is_forgotten_when_it_is_through() {
    let mut world = two_sessions();
    let orphan = Orphan { shard: ShardId(0), serial: 4, unit: world.unit("b"), lba: 0, blocks: 8 };
    let session = world.adopted[0].0;
    world.end(session, vec![orphan]);
    assert!(world.said()[0].ends_with("of b with 1 orphans"));
    world.hear(ToControl::OrphanDone { orphan });
    let said = world.said();
    assert!(said[0].ends_with(" of b"), "an install without orphans: {said:?}");
}

#[test]
fn a_device_that_fails_to_open_is_not_ready_and_tried_again_ever_later() {
    let mut world = World::new(2);
    world.manners.opens = false;
    world.apply(PLAIN);
    let (a, b) = (world.unit("a"), world.unit("b"));
    world.open(b);
    world.tell(Mail::DeviceOpened { unit: a, result: Err("no such file".to_owned()) });
    let summary = world.summary.take().expect("one device holds up nobody");
    let sizes: Vec<_> = summary.targets[0].luns.iter().map(|lun| lun.size_bytes).collect();
    assert_eq!(sizes, [None, Some(1 << 20)]);
    let readiness = |world: &World| world.control.units[&a].fence.state().readiness;
    assert_eq!(readiness(&world), Readiness::CauseNotReportable);
    assert!(world.said().contains(&"log: device a is not ready: no such file. It is tried again".to_owned()));

    for (attempt, after) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        world.pass(Duration::from_secs(after) - Duration::from_millis(1));
        assert_eq!(world.said(), [""; 0], "attempt {attempt}");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.said(), ["open a"], "attempt {attempt}, and no line in the log each time");
        world.tell(Mail::DeviceOpened { unit: a, result: Err("no such file".to_owned()) });
    }
    world.pass(Duration::from_secs(60));
    world.said();
    world.tell(Mail::DeviceOpened { unit: a, result: Err("no permission".to_owned()) });
    let other = "log: device a is not ready: no permission. It is tried again".to_owned();
    assert!(world.said().contains(&other), "another reason is told");
    world.pass(Duration::from_secs(60));
    world.open(a);
    assert_eq!(readiness(&world), Readiness::Ready);
}

#[test]
fn a_device_whose_open_hangs_holds_the_start_up_for_a_moment_only() {
    let mut world = World::new(2);
    world.manners.opens = false;
    world.apply(PLAIN);
    world.open(world.unit("b"));
    assert!(world.summary.is_none());
    world.pass(OPEN_PATIENCE);
    assert!(world.summary.is_some());
    world.login("iqn.a");
    assert_eq!(world.adopted.len(), 1, "its LUN is there, and not ready");
    world.said();
    world.open(world.unit("a"));
    let said = world.said();
    assert!(said[0].starts_with("unit a with medium"), "{said:?}");
}

#[test]
fn a_unit_reads_its_ledger_when_the_one_before_it_has_written_it() {
    let mut world = two_sessions();
    world.manners.ledgers = false;
    let before = world.unit("a");
    world.hear(reserve(&world, 1, "a", 0));
    assert_eq!(world.said(), ["write ledger a"]);
    // It goes while a helper is at its file, and comes back as another one.
    let without = PLAIN.replace("LUN 0 a", "").replace("DEVICE a {\n            filename /a\n        }", "");
    world.apply_with(&without, true);
    world.apply(PLAIN);
    assert_ne!(world.unit("a"), before);
    assert!(!world.said().iter().any(|word| word.contains("ledger")), "the file is not free");
    world.tell(Mail::LedgerWritten { unit: before, result: Ok(()) });
    assert_eq!(world.said(), ["read ledger a"]);
}

#[test]
fn a_damaged_ledger_keeps_its_unit_from_being_used_until_somebody_has_mended_it() {
    let mut world = World::new(2);
    world.manners.ledgers = false;
    world.apply(PLAIN);
    let (a, b) = (world.unit("a"), world.unit("b"));
    world.tell(Mail::LedgerRead { unit: a, result: Err("the ledger is damaged".to_owned()) });
    world.tell(Mail::LedgerRead { unit: b, result: Ok(Restored::Nothing) });
    let readiness = |world: &World| world.control.units[&a].fence.state().readiness;
    assert_eq!(readiness(&world), Readiness::InterventionRequired);
    world.login("iqn.a");
    world.said();
    world.hear(reserve(&world, 1, "a", 0));
    assert_eq!(world.said(), ["shard 0 hears of 1: CheckCondition"], "nothing is written over it");

    world.apply(PLAIN);
    assert_eq!(world.said()[0], "read ledger a");
    world.tell(Mail::LedgerRead { unit: a, result: Ok(Restored::Nothing) });
    assert_eq!(readiness(&world), Readiness::Ready);
}

#[test]
fn a_restart_under_the_same_kernel_is_told_as_a_loss_of_the_nexus() {
    use portico_scsi::attention::UnitAttention;
    let greeting = |restored: Restored| {
        let mut world = World::new(2);
        world.manners.ledgers = false;
        world.apply(PLAIN);
        world.manners.ledgers = true;
        for device in ["a", "b"] {
            world.tell(Mail::LedgerRead { unit: world.unit(device), result: Ok(restored.clone()) });
        }
        let mut orders = Orders::new();
        let question = Box::new(question("iqn.a", Some(TARGET), Tsih::NEW));
        world.control.handle(Mail::FromShard(ToControl::Login(question)), world.now, &mut orders);
        orders
            .into_iter()
            .find_map(|order| match order {
                Order::ToShard(_, ToShard::Adopt(adoption)) => Some(adoption.greeting),
                _ => None,
            })
            .unwrap()
    };
    assert_eq!(greeting(Restored::Nothing), UnitAttention::PowerOn);
    let ledger = portico_scsi::ledger::Ledger::new();
    assert_eq!(greeting(Restored::OtherBoot(ledger.clone())), UnitAttention::PowerOn);
    assert_eq!(greeting(Restored::SameBoot(ledger)), UnitAttention::NexusLoss);
}

#[test]
fn a_reset_whose_session_ends_leaves_nothing_behind() {
    let mut world = two_sessions();
    world.manners.installs = false;
    let (session, nexus, shard) = world.adopted[0];
    for ticket in [1, 2] {
        let unit = world.unit("a");
        world.hear(ToControl::Reset { shard, ticket: Ticket(ticket), unit, nexus });
    }
    assert_eq!(world.control.parked.len(), 2);
    world.end(session, Vec::new());
    assert!(world.control.parked.is_empty());
}

/// `a` is another unit below: its successor reads the ledger when nobody writes it any more.
fn replace_a(world: &mut World) {
    world.apply_with(&PLAIN.replace("filename /a", "filename /a\n            rotational 0"), true);
}

#[test]
fn what_is_asked_of_a_unit_that_is_being_replaced_is_asked_again_and_not_lost() {
    let mut world = two_sessions();
    // The sessions keep their map for a while: another device of the new configuration takes its time to open.
    world.manners.opens = false;
    let before = world.unit("a");
    let slow = PLAIN.replace("DEVICE b {", "DEVICE c {\n filename /c\n }\n DEVICE b {");
    world.apply_with(&slow.replace("filename /a", "filename /a\n            rotational 0"), true);
    assert_ne!(world.unit("a"), before);
    assert!(!world.said().iter().any(|word| word.contains("remaps")), "c is not open");
    let (_, nexus, shard) = world.adopted[0];
    let change = Change::Reserve;
    world.hear(ToControl::Change { shard, ticket: Ticket(1), unit: before, nexus, change });
    assert_eq!(world.said(), ["shard 0 hears of 1: Busy"], "GOOD would be forgotten with the unit");
    world.open(world.unit("c"));
    assert!(world.said().iter().any(|word| word.contains("remaps")));
    world.hear(reserve(&world, 2, "a", 0));
    assert_eq!(world.said().last().unwrap(), "shard 0 hears of 2: good");
}

#[test]
fn what_waits_at_a_unit_that_is_replaced_is_asked_again_and_what_is_being_done_is_kept() {
    let mut world = two_sessions();
    world.manners.ledgers = false;
    let before = world.unit("a");
    world.hear(reserve(&world, 1, "a", 0));
    world.hear(reserve(&world, 2, "a", 1));
    assert_eq!(world.said(), ["write ledger a"]);
    replace_a(&mut world);
    let said = world.said();
    assert!(said.contains(&"shard 1 hears of 2: Busy".to_owned()), "{said:?}");
    assert!(!said.contains(&"read ledger a".to_owned()), "not before it is written: {said:?}");
    world.tell(Mail::LedgerWritten { unit: before, result: Ok(()) });
    let said = world.said();
    assert!(said.contains(&"read ledger a".to_owned()), "{said:?}");
}

#[test]
fn a_medium_is_not_opened_by_two_units() {
    let mut world = two_sessions();
    world.manners.closes = false;
    let before = world.unit("a");
    replace_a(&mut world);
    assert!(world.said().contains(&"close a".to_owned()));
    world.pass(OPEN_RETRY_MIN * 10);
    assert_eq!(world.said(), [""; 0], "the last write of the unit before may be at the medium");
    for shard in [ShardId(0), ShardId(1)] {
        world.hear(ToControl::Closed { shard, unit: before });
    }
    world.said();
    world.pass(OPEN_RETRY_MIN);
    assert!(world.said().contains(&"open a".to_owned()));
}

#[test]
fn a_medium_that_was_ejected_holds_up_no_configuration() {
    let removable = PLAIN.replace("filename /a", "filename /a\n            removable 1");
    let mut world = World::serving(&removable);
    world.login("iqn.a");
    let (_, nexus, shard) = world.last();
    let unit = world.unit("a");
    world.hear(ToControl::Change { shard, ticket: Ticket(1), unit, nexus, change: Change::Eject });
    assert_eq!(world.control.units[&unit].fence.state().readiness, Readiness::MediumNotPresent);
    world.said();
    world.apply(&removable);
    assert_eq!(world.said().last().unwrap(), "log: the configuration is in force");
}
