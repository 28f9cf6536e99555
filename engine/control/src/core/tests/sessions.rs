//! Logins granted, refused and reinstated; sessions that end.

use portico_iscsi::wire::Tsih;

use super::*;

#[test]
fn a_login_is_granted_and_sees_its_luns() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    assert_eq!(world.said(), ["shard 0 adopts iqn.a seeing [0 1]"]);
}

#[test]
fn the_sessions_of_a_target_are_spread_over_the_shards() {
    let mut world = World::serving(PLAIN);
    for initiator in ["iqn.a", "iqn.b", "iqn.c", "iqn.d"] {
        world.login(initiator);
    }
    let homes: Vec<u16> = world.adopted.iter().map(|(_, _, shard)| shard.0).collect();
    assert_eq!(homes, [0, 1, 0, 1], "though one shard accepted them all");
}

#[test]
fn a_login_before_the_first_configuration_is_told_to_wait() {
    let mut world = World::new(2);
    world.login("iqn.a");
    assert_eq!(world.said(), ["shard 0 refuses iqn.a 03/01"]);
}

#[test]
fn a_target_that_is_not_there_and_one_that_is_not_enabled_are_told_apart() {
    let mut world =
        World::serving(&PLAIN.replace("enabled 1\n            LUN", "enabled 0\n            LUN"));
    world.tell_login("iqn.a", Some("iqn.2026-11.io.portico:other"), Tsih::NEW);
    world.login("iqn.a");
    assert_eq!(world.said(), ["shard 0 refuses iqn.a 02/03", "shard 0 refuses iqn.a 03/01"]);
}

#[test]
fn names_are_compared_without_regard_to_case() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.said();
    world.tell_login("IQN.A", Some(&TARGET.to_ascii_uppercase()), Tsih::NEW);
    let said = world.said();
    assert!(said[0].contains("ends session 1: Reinstated"), "the same initiator: {said:?}");
}

const MASKED: &str = "
    HANDLER vdisk_nullio {
        DEVICE a
        DEVICE b
    }
    TARGET_DRIVER iscsi {
        enabled 1
        TARGET iqn.2026-11.io.portico:t {
            enabled 1
            MaxSessions 2
            GROUP g {
                LUN 0 b
                INITIATOR iqn.g*
            }
        }
        TARGET iqn.2026-11.io.portico:elsewhere {
            enabled 1
            allowed_portal 10.*
            LUN 0 a
        }
    }
";

#[test]
fn an_initiator_without_luns_is_forbidden_and_a_portal_that_is_not_allowed_knows_no_target() {
    let mut world = World::serving(MASKED);
    world.login("iqn.stranger");
    world.login("iqn.guest");
    world.tell_login("iqn.guest", Some("iqn.2026-11.io.portico:elsewhere"), Tsih::NEW);
    let said = [
        "shard 0 refuses iqn.stranger 02/02",
        "shard 0 adopts iqn.guest seeing [0]",
        "shard 0 refuses iqn.guest 02/03",
    ];
    assert_eq!(world.said(), said);
}

#[test]
fn max_sessions_is_a_limit_that_a_reinstatement_does_not_meet() {
    let mut world = World::serving(MASKED);
    for initiator in ["iqn.g1", "iqn.g2", "iqn.g3"] {
        world.login(initiator);
    }
    assert_eq!(world.said()[2], "shard 0 refuses iqn.g3 03/02");
    world.login("iqn.g2");
    let said = world.said();
    assert_eq!(said[1], "shard 1 adopts iqn.g2 seeing [0]", "{said:?}");
}

#[test]
fn a_session_that_is_named_is_joined_at_its_home_by_its_initiator_alone() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.login("iqn.b");
    assert_eq!(world.last().2, ShardId(1));
    world.said();
    world.tell_login("iqn.a", Some(TARGET), Tsih(1));
    world.tell_login("iqn.a", Some(TARGET), Tsih(77));
    world.tell_login("iqn.b", Some(TARGET), Tsih(1));
    world.tell_login("iqn.b", Some(TARGET), Tsih(2));
    let said = [
        "shard 0 lets iqn.a join session 1",
        "shard 0 refuses iqn.a 02/0a",
        "shard 0 refuses iqn.b 02/0a",
        "shard 1 lets iqn.b join session 2",
    ];
    assert_eq!(world.said(), said);
}

#[test]
fn a_session_that_ends_is_joined_by_nobody_and_one_of_discovery_never() {
    let mut world = World::serving(PLAIN);
    world.manners.ends = false;
    world.login("iqn.a");
    world.login("iqn.a");
    world.said();
    world.tell_login("iqn.a", Some(TARGET), Tsih(1));
    world.tell_login("iqn.a", None, Tsih(1));
    assert_eq!(world.said(), ["shard 0 refuses iqn.a 02/0a", "shard 0 refuses iqn.a 02/0a"]);
}

#[test]
fn a_reinstated_session_ends_before_its_successor_begins_on_the_same_shard() {
    let mut world = World::serving(PLAIN);
    world.manners.ends = false;
    world.login("iqn.other");
    world.login("iqn.a");
    let (old, _, home) = world.last();
    world.said();
    world.login("iqn.a");
    assert_eq!(world.said(), [format!("shard {home} ends session {old}: Reinstated")]);
    world.end(old, Vec::new());
    assert_eq!(world.said(), [format!("shard {home} adopts iqn.a seeing [0 1]")]);
    assert_ne!(world.last().0, old);
}

#[test]
fn of_two_logins_that_wait_for_the_same_end_the_later_one_is_meant() {
    let mut world = World::serving(PLAIN);
    world.manners.ends = false;
    world.login("iqn.a");
    let (old, _, _) = world.last();
    world.login("iqn.a");
    world.said();
    world.login("iqn.a");
    assert_eq!(world.said(), ["shard 0 refuses iqn.a 03/00"]);
    world.end(old, Vec::new());
    assert_eq!(world.said().len(), 1);
    assert_eq!(world.adopted.len(), 2);
}

#[test]
fn a_connection_that_is_lost_while_its_login_waits_is_not_missed() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    let (session, _, _) = world.last();
    world.end(session, Vec::new());
    world.end(session, Vec::new());
    world.login("iqn.a");
    assert_eq!(world.adopted.len(), 2);
}

#[test]
fn a_discovery_session_stays_where_it_was_accepted_and_sees_nothing() {
    let mut world = World::serving(PLAIN);
    for initiator in ["iqn.a", "iqn.b"] {
        world.tell_login(initiator, None, Tsih::NEW);
    }
    assert_eq!(world.said(), ["shard 0 adopts iqn.a seeing []", "shard 0 adopts iqn.b seeing []"]);
}

/// RFC 7143 §7.4: one per initiator port and portal, of those that name no target.
#[test]
fn a_discovery_session_reinstates_the_one_of_the_same_port_at_the_same_portal() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.tell_login("iqn.a", None, Tsih::NEW);
    let (first, _, _) = world.last();
    world.said();
    let elsewhere = "127.0.0.1:3261".parse().unwrap();
    let question = LoginQuestion { local: elsewhere, ..question("iqn.a", None, Tsih::NEW) };
    world.hear(ToControl::Login(Box::new(question)));
    assert_eq!(world.said(), ["shard 0 adopts iqn.a seeing []"], "neither the normal one nor that elsewhere");
    world.tell_login("iqn.a", None, Tsih::NEW);
    let said = world.said();
    assert_eq!(said[0], format!("shard 0 ends session {first}: Reinstated"));
    assert_eq!(said[1], "shard 0 adopts iqn.a seeing []");
}

fn orphan(world: &World, serial: u64) -> Orphan {
    Orphan { shard: ShardId(0), serial, unit: world.unit("a"), lba: 0, blocks: 8 }
}

#[test]
fn every_shard_knows_of_the_orphans_before_the_successor_can_write() {
    let mut world = World::serving(PLAIN);
    world.manners = Manners { ends: false, installs: false, ..world.manners };
    world.login("iqn.a");
    let (old, _, _) = world.last();
    world.login("iqn.a");
    world.said();
    let orphans = vec![orphan(&world, 1), orphan(&world, 2)];
    world.end(old, orphans);
    let said = world.said();
    assert!(said[0].starts_with("install") && said[0].ends_with("of a with 2 orphans"), "{said:?}");
    assert_eq!(said[1], "shard 0 adopts iqn.a seeing [0 1]", "and nobody waits for a medium");
}

#[test]
fn a_nexus_is_the_same_one_while_its_change_is_being_installed() {
    let mut world = World::serving(PLAIN);
    world.manners = Manners { installs: false, ..world.manners };
    world.login("iqn.a");
    let (session, nexus, shard) = world.last();
    let unit = world.unit("a");
    world.hear(ToControl::Reset { shard, ticket: Ticket(1), unit, nexus });
    world.end(session, Vec::new());
    world.login("iqn.a");
    assert_eq!(world.last().1, nexus, "so that its repetition joins the drain");
}

#[test]
fn a_nexus_that_nobody_refers_to_is_forgotten() {
    let mut world = World::serving(PLAIN);
    for _ in 0..3 {
        world.login("iqn.a");
        let (session, _, _) = world.last();
        world.end(session, Vec::new());
    }
    let ids: std::collections::BTreeSet<_> = world.adopted.iter().map(|(_, nexus, _)| nexus.0).collect();
    assert_eq!(ids.len(), 3);
    assert!(world.control.registry.nexuses.is_empty());
}

#[test]
fn a_cold_reset_ends_the_sessions_of_the_target_on_every_shard() {
    let mut world = World::serving(PLAIN);
    for initiator in ["iqn.a", "iqn.b", "iqn.c"] {
        world.login(initiator);
    }
    let (session, _, _) = world.adopted[0];
    world.said();
    world.hear(ToControl::SessionEnded { session, reason: EndReason::ColdReset, orphans: Vec::new() });
    let said = ["shard 1 ends session 2: ColdReset", "shard 0 ends session 3: ColdReset"];
    assert_eq!(world.said(), said);
    assert_eq!(world.control.registry.iter().count(), 0);
}

#[test]
fn who_was_here_before_is_told_that_the_nexus_was_lost() {
    use portico_scsi::attention::UnitAttention;
    let mut world = World::serving(PLAIN);
    let greeting = |world: &mut World| {
        let mut orders = Orders::new();
        let question = Box::new(question("iqn.a", Some(TARGET), Tsih::NEW));
        world.control.handle(Mail::FromShard(ToControl::Login(question)), world.now, &mut orders);
        let adoption = orders.into_iter().find_map(|order| match order {
            Order::ToShard(_, ToShard::Adopt(adoption)) => Some(adoption),
            _ => None,
        });
        let adoption = adoption.unwrap();
        world.end(adoption.session, Vec::new());
        adoption.greeting
    };
    assert_eq!(greeting(&mut world), UnitAttention::PowerOn);
    assert_eq!(greeting(&mut world), UnitAttention::NexusLoss);
}
