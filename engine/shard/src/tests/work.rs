//! Work on all of a unit's medium.

use portico_ring::{Buffer, Class};
use portico_scsi::unit::Readiness;
use portico_scsi::work::{Fill, Work, WorkKind};

use super::*;

fn sanitize(fill: Fill) -> ToShard<Medium> {
    let work = Work { kind: WorkKind::Sanitize, immediate: true, unrestricted: false, fill };
    ToShard::Work { unit: UnitId(1), work: Arc::new(work) }
}

/// The unit is being sanitized, as an Install says.
fn under_way(bench: &mut Bench, generation: u64) {
    let state = LogicalUnit { readiness: Readiness::UnderWay(WorkKind::Sanitize, 0), ..disk() };
    bench.install_with(1, generation, state, Vec::new());
}

/// What control has heard of the work since somebody looked: the last progress, and how it ended.
fn told(bench: &Bench) -> (Option<u16>, Option<bool>) {
    let sent = std::mem::take(&mut bench.world.borrow_mut().sent);
    let progress = sent.iter().rev().find_map(|mail| match mail {
        ToControl::WorkIsAt { progress, .. } => Some(*progress),
        _ => None,
    });
    let ended = sent.iter().find_map(|mail| match mail {
        ToControl::WorkEnded { well, .. } => Some(*well),
        _ => None,
    });
    (progress, ended)
}

#[test]
fn work_waits_for_everybodys_pieces_and_what_comes_later_is_refused() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.write(&mut peer, 0, 1, 512, &[1; 512]);
    bench.read(&mut peer, 0, 2, 512);
    told(&bench);
    under_way(&mut bench, 2);
    let installed = |bench: &Bench| {
        bench.world.borrow().sent.iter().any(|mail| matches!(mail, ToControl::Installed { .. }))
    };
    assert!(!installed(&bench));
    bench.land();
    assert!(!installed(&bench), "the read is at the medium");
    bench.land();
    assert!(installed(&bench));
    bench.heard(&peer);
    bench.write(&mut peer, 0, 3, 512, &[1; 512]);
    assert_eq!(bench.heard(&peer), [Heard::Status(3, CHECK_CONDITION)]);
    assert!(bench.world.borrow().at_medium.is_empty());
}

#[test]
fn an_erase_clears_all_of_the_medium_and_makes_it_stable() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    under_way(&mut bench, 2);
    bench.mail(sanitize(Fill::Zeroes { deallocate: true }));
    bench.settle();
    told(&bench);
    let mut at = 0;
    while at < BLOCKS * 512 {
        let What::Clear { offset_bytes, length_bytes, deallocate: true } = bench.land() else {
            panic!("what is erased is cleared");
        };
        assert_eq!(offset_bytes, at);
        at += length_bytes;
    }
    assert_eq!(told(&bench), (Some(u16::MAX), None));
    assert_eq!(bench.land(), What::Sync);
    assert_eq!(told(&bench), (None, Some(true)));
    assert!(bench.world.borrow().at_medium.is_empty());
}

#[test]
fn a_medium_that_cannot_clear_is_overwritten_and_one_that_fails_is_told_of() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    under_way(&mut bench, 2);
    bench.mail(sanitize(Fill::Zeroes { deallocate: true }));
    bench.settle();
    bench.world.borrow_mut().refuse_to_clear();
    bench.settle();
    assert!(matches!(bench.land(), What::Write { offset_bytes: 0, durable: false, .. }));
    bench.world.borrow_mut().run_out_of_space();
    bench.settle();
    assert_eq!(told(&bench).1, Some(false));
    assert!(bench.world.borrow().at_medium.is_empty(), "it goes no further");
}

#[test]
fn work_that_has_no_memory_lets_the_shard_sleep_until_there_is_some() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    under_way(&mut bench, 2);
    let arena = bench.shard.core.driver.arena.clone();
    let mut all: Vec<Buffer> = Vec::new();
    for class in Class::ALL {
        all.extend(std::iter::from_fn(|| arena.take(class)));
    }
    bench.mail(sanitize(Fill::Pattern { pattern: [1].into(), passes: 1, invert: false }));
    bench.settle();
    assert!(bench.world.borrow().at_medium.is_empty());
    assert!(!bench.shard.core.has_something_due());
    drop(all);
    bench.shard.core.note_released();
    assert!(bench.shard.core.has_something_due());
    bench.settle();
    assert!(matches!(bench.land(), What::Write { offset_bytes: 0, .. }));
}
