//! The end of the process, and what is told before it.

use portico_model::message::ToControl;

use super::*;

fn quiesced(shard: u16, failed_flushes: Vec<UnitId>) -> ToControl {
    ToControl::Quiesced { shard: ShardId(shard), failed_flushes }
}

#[test]
fn what_is_in_flight_is_finished_before_shards_stop() {
    let mut world = World::serving(PLAIN);
    world.tell(Mail::Shutdown);
    assert_eq!(world.said(), ["listen at 0", "quiesce"]);
    world.login("iqn.a");
    assert_eq!(world.said(), ["shard 0 refuses iqn.a 03/01"]);
    world.hear(quiesced(1, Vec::new()));
    assert_eq!(world.said(), [""; 0]);
    world.hear(quiesced(0, Vec::new()));
    assert_eq!(world.said(), ["stop", "close medium 1", "close medium 2", "exit Clean"]);
    world.login("iqn.a");
    assert_eq!(world.said(), [""; 0], "nothing more will come");
}

#[test]
fn a_flush_that_failed_is_no_clean_end() {
    let mut world = World::serving(PLAIN);
    world.tell(Mail::Shutdown);
    world.said();
    world.hear(quiesced(0, vec![world.unit("b")]));
    world.hear(quiesced(1, Vec::new()));
    let said = world.said();
    assert_eq!(said[0], "log: device b: the last flush failed: what was written may be lost");
    assert!(said.last().unwrap().starts_with("exit Unclean"), "{said:?}");
}

#[test]
fn an_end_that_takes_too_long_or_is_told_twice_is_none_the_less_one() {
    let mut world = World::serving(PLAIN);
    world.tell(Mail::Shutdown);
    world.pass(QUIESCE_PATIENCE);
    assert_eq!(world.said().last().unwrap(), "exit Unclean(\"2 shards did not finish in 60 s\")");

    let mut world = World::serving(PLAIN);
    world.tell(Mail::Shutdown);
    world.tell(Mail::Shutdown);
    assert!(world.said().last().unwrap().starts_with("exit Unclean"));
}

#[test]
fn a_shard_that_fails_ends_the_process() {
    let mut world = World::serving(PLAIN);
    world.hear(ToControl::Failed { shard: ShardId(1), reason: "no ring".to_owned() });
    assert_eq!(world.said().last().unwrap(), "exit Unclean(\"shard 1 failed: no ring\")");
}

#[test]
fn a_snapshot_says_what_there_is() {
    let mut world = World::serving(PLAIN);
    world.login("iqn.a");
    world.tell(Mail::Ask(QueryId(1)));
    let (query, snapshot) = world.answers.pop().unwrap();
    let snapshot = snapshot.unwrap();
    assert_eq!(query, QueryId(1));
    assert_eq!(snapshot.units.len(), 2);
    assert_eq!(snapshot.units[1].luns[0].lun, 1);
    assert_eq!(snapshot.units[0].capacity_blocks, 2048);
    assert_eq!(snapshot.targets[0].sessions, 1);
    assert_eq!(&*snapshot.sessions[0].initiator, "iqn.a");
    assert_eq!((snapshot.shards.len(), snapshot.shards_late), (2, 0));
}
