//! Configurations that come into force, and what sessions notice.

use super::super::applying::{BIND_PATIENCE, BIND_RETRY};
use super::*;

#[test]
fn a_start_opens_then_configures_then_listens() {
    let mut world = World::new(2);
    world.apply(PLAIN);
    let said = world.said();
    let at =
        |word: &str| said.iter().position(|said| said == word).unwrap_or_else(|| panic!("{word}: {said:?}"));
    assert!(at("unit a") < at("open a"));
    assert!(at("unit a with medium 1") < at("configure"));
    assert!(at("configure") < at("listen at 1"));
    let summary = world.summary.unwrap();
    assert_eq!(summary.portals, ["127.0.0.1:3260".parse().unwrap()]);
    assert_eq!(summary.targets[0].luns[1].device, "b");
}

#[test]
fn the_same_configuration_again_disturbs_nobody() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.said();
    world.apply(PLAIN);
    assert_eq!(world.said(), ["configure", "listen at 1", "log: the configuration is in force"]);
}

#[test]
fn a_new_lun_is_seen_by_sessions_that_are_there() {
    let mut world = World::serving(&PLAIN.replace("LUN 1 b", ""));
    world.login("iqn.a");
    world.said();
    world.apply(PLAIN);
    let said = world.said();
    assert!(said.contains(&"shard 0 remaps session 1 to [0 1]".to_owned()), "{said:?}");
    let (_, nexus, shard) = world.last();
    let (unit, change) = (world.unit("b"), portico_scsi::original::Change::Reserve);
    world.hear(ToControl::Change { shard, ticket: Ticket(1), unit, nexus, change });
    assert_eq!(world.said().last().unwrap(), "shard 0 hears of 1: good", "the unit knows the nexus");
}

#[test]
fn what_a_session_uses_stays_and_is_named() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.said();
    let less = PLAIN.replace("LUN 1 b", "").replace("DEVICE b {\n            filename /b\n        }", "");
    world.apply(&less);
    let said = world.said();
    assert!(said[0].starts_with("log: not done: unmap LUN 1"), "{said:?}");
    assert!(said[1].starts_with("log: not done: close device b"), "{said:?}");
    assert!(!said.iter().any(|word| word.contains("remaps")));

    let (session, _, _) = world.last();
    world.end(session, Vec::new());
    world.said();
    world.apply(&less);
    let said = world.said();
    assert!(said.contains(&"close b".to_owned()) && said.contains(&"close medium 2".to_owned()), "{said:?}");
}

#[test]
fn a_forced_removal_drains_and_then_closes() {
    let mut world = World::serving(PLAIN);
    world.manners.closes = false;
    world.login("iqn.a");
    world.said();
    let less = PLAIN.replace("LUN 1 b", "").replace("DEVICE b {\n            filename /b\n        }", "");
    let unit = world.unit("b");
    world.apply_with(&less, true);
    let said = world.said();
    assert!(said.contains(&"shard 0 remaps session 1 to [0]".to_owned()), "{said:?}");
    assert!(said.contains(&"close b".to_owned()), "{said:?}");
    world.hear(ToControl::Closed { shard: ShardId(0), unit });
    assert_eq!(world.said(), [""; 0], "a shard has commands at it");
    world.hear(ToControl::Closed { shard: ShardId(1), unit });
    assert_eq!(world.said(), ["close medium 2", "log: device b is closed"]);
}

#[test]
fn a_target_that_is_disabled_ends_its_sessions() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.said();
    world.apply(&PLAIN.replace("enabled 1\n            LUN", "enabled 0\n            LUN"));
    assert!(world.said().contains(&"shard 0 ends session 1: TargetRemoved".to_owned()));
    world.login("iqn.a");
    assert_eq!(world.said(), ["shard 0 refuses iqn.a 03/01"]);
}

#[test]
fn a_configuration_that_comes_while_another_is_applied_is_applied_next() {
    let mut world = World::new(2);
    world.manners.opens = false;
    world.apply(PLAIN);
    world.apply(&PLAIN.replace("LUN 1 b", ""));
    world.open(world.unit("a"));
    world.open(world.unit("b"));
    assert_eq!(world.control.counters.configurations_applied, 2);
    world.login("iqn.a");
    assert_eq!(world.said().last().unwrap(), "shard 0 adopts iqn.a seeing [0]");
}

#[test]
fn a_device_that_is_reopened_is_another_unit_under_the_same_luns() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    let before = world.unit("b");
    world.said();
    world.apply_with(&PLAIN.replace("/b", "/c"), true);
    let said = world.said();
    assert!(said.contains(&"shard 0 remaps session 1 to [0 1]".to_owned()), "{said:?}");
    assert!(said.contains(&"close medium 2".to_owned()), "the old one: {said:?}");
    assert_ne!(world.unit("b"), before);
    world.pass(OPEN_RETRY_MIN);
    assert!(world.said().contains(&"open b".to_owned()), "the new one, when the old one has let go");
}

#[test]
fn an_identity_changes_while_the_device_runs() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.said();
    world.apply(&PLAIN.replace("filename /a", "filename /a\n            prod_id other"));
    let said = world.said();
    assert!(said[0].starts_with("install") && said[0].ends_with("of a"), "{said:?}");
    let unit = &world.control.units[&world.unit("a")];
    assert_eq!(unit.fence.state().identity.product.as_bytes(), b"other");
}

#[test]
fn a_portal_that_is_taken_ends_the_start_with_its_reason() {
    let portal = Portal("127.0.0.1:3260".parse().unwrap());
    let mut world = World::new(2);
    world.manners.opens = false;
    world.apply(PLAIN);
    let mut orders = Orders::new();
    world.now = world.now + OPEN_PATIENCE;
    world.control.expire(world.now, &mut orders);
    world.tell(Mail::Bound { portal, result: Err("the port is taken".to_owned()) });
    let said = world.said();
    let end = "exit Unclean(\"cannot listen on 127.0.0.1:3260: the port is taken\")";
    assert_eq!(said.last().unwrap(), end);
}

/// [`PLAIN`] with device a in a group in this state.
fn grouped(state: &str) -> String {
    let group = format!("group_id 1\n state {state}\n TARGET {TARGET}\n");
    PLAIN.to_owned() + &format!("DEVICE_GROUP g {{\n DEVICE a\n TARGET_GROUP x {{\n {group} }}\n}}\n")
}

#[test]
fn asymmetric_access_states_come_with_the_unit_and_change_with_the_file() {
    use portico_scsi::alua::AccessState::{self, ActiveOptimized, Standby};
    let state = |world: &World| -> Option<AccessState> {
        let unit = &world.control.units[&world.unit("a")];
        unit.fence.state().target_port_groups.as_ref().map(|groups| groups.state_of(1))
    };
    let mut world = World::serving(&grouped("standby"));
    assert_eq!(state(&world), Some(Standby));
    world.apply(&grouped("standby"));
    assert!(!world.said().iter().any(|word| word.starts_with("install")), "nothing is another");
    world.apply(&grouped("active"));
    let said = world.said();
    let installs = said.iter().filter(|word| word.starts_with("install")).count();
    assert_eq!(installs, 1, "{said:?}");
    assert_eq!(state(&world), Some(ActiveOptimized));
    world.apply(PLAIN);
    assert_eq!(state(&world), None);
}

/// A gateway everywhere on a port that is to be at one address of that port alone.
fn moving() -> (World, Portal) {
    let mut world = World::new(2);
    world.apply_at(PLAIN, &["0.0.0.0:3260"]);
    world.said();
    world.manners.binds = false;
    world.apply_at(PLAIN, &["127.0.0.1:3260"]);
    assert_eq!(world.said(), ["configure", "listen at 0", "bind 127.0.0.1:3260"], "the shards let go first");
    (world, Portal("127.0.0.1:3260".parse().unwrap()))
}

fn refusal(portal: Portal) -> Mail<Disk> {
    Mail::Bound { portal, result: Err("the port is taken".to_owned()) }
}

#[test]
fn a_portal_on_the_port_of_one_that_is_closed_is_tried_until_shards_have_let_go() {
    let (mut world, portal) = moving();
    for _ in 0..3 {
        world.tell(refusal(portal));
        assert_eq!(world.said(), [""; 0]);
        world.pass(BIND_RETRY);
        assert_eq!(world.said(), ["bind 127.0.0.1:3260"]);
    }
    let socket: OwnedFd = File::open("/dev/null").unwrap().into();
    world.tell(Mail::Bound { portal, result: Ok(Bound { socket, address: portal.0 }) });
    assert_eq!(world.said(), ["listen at 1", "log: the configuration is in force"]);
}

#[test]
fn a_portal_whose_port_is_taken_by_somebody_else_is_given_up() {
    let (mut world, portal) = moving();
    world.now = world.now + BIND_PATIENCE;
    world.tell(refusal(portal));
    let said = world.said();
    assert_eq!(said[0], "log: cannot listen on 127.0.0.1:3260: the port is taken");
    assert_eq!(said.last().unwrap(), "log: the configuration is in force");
}
