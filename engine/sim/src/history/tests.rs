//! The oracles themselves: what they let pass, and what they find.

use super::*;

const ME: (usize, Serial) = (0, Serial(10));
const OTHER: (usize, Serial) = (1, Serial(20));

fn history() -> History {
    let mut history = History::new();
    history.add_unit(4, Promise { volatile_cache: true, keeps: true, registers: Some(true) });
    history
}

fn content(write: WriteId, sector: u64) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    if write != WriteId::NONE {
        stamp::emit(write, sector, &mut bytes);
    }
    bytes
}

fn found(history: &History) -> Option<Oracle> {
    history.violation().map(|violation| violation.oracle)
}

#[test]
fn a_read_may_bring_what_is_being_written_or_what_was_there_and_nothing_older() {
    let mut history = history();
    let first = history.begin_write(0, ME, (0, 1), Content::Placed);
    history.wrote(first, false);
    let second = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    let asked = history.step();
    history.judge_read(0, 0, 0, &content(first, 0), asked);
    history.judge_read(0, 0, 0, &content(second, 0), asked);
    assert_eq!(found(&history), None);
    history.judge_read(0, 0, 0, &content(WriteId::NONE, 0), asked);
    assert_eq!(found(&history), Some(Oracle::Data));
}

#[test]
fn a_write_that_failed_may_be_there_until_one_that_came_later_is_through() {
    let mut history = history();
    let failed = history.begin_write(0, ME, (0, 1), Content::Placed);
    history.failed(failed, "failed");
    let asked = history.step();
    history.judge_read(0, 0, 0, &content(failed, 0), asked);
    history.judge_read(0, 0, 0, &content(WriteId::NONE, 0), asked);
    assert_eq!(found(&history), None);
    let later = history.begin_write(0, ME, (0, 1), Content::Placed);
    history.wrote(later, false);
    let asked = history.step();
    history.judge_read(0, 0, 0, &content(failed, 0), asked);
    assert_eq!(found(&history), Some(Oracle::Data));
}

#[test]
fn a_power_cut_may_take_what_was_not_promised_and_nothing_else() {
    for (fua, synchronized, lost) in [(true, false, true), (false, true, true), (false, false, false)] {
        let mut history = history();
        let write = history.begin_write(0, ME, (0, 1), Content::Placed);
        history.wrote(write, fua);
        if synchronized {
            let asked = history.step();
            history.synchronized(0, asked);
        }
        let left = [content(WriteId::NONE, 0)];
        history.judge_survivors(0, left.iter().map(|bytes| &bytes[..]), End::PowerCut);
        assert_eq!(found(&history), lost.then_some(Oracle::Durability), "{fua} {synchronized}");
    }
}

#[test]
fn a_synchronization_promises_nothing_that_was_answered_after_it_was_asked_for() {
    let mut history = history();
    let write = history.begin_write(0, ME, (0, 1), Content::Placed);
    let asked = history.step();
    history.wrote(write, false);
    history.synchronized(0, asked);
    let left = [content(WriteId::NONE, 0)];
    history.judge_survivors(0, left.iter().map(|bytes| &bytes[..]), End::PowerCut);
    assert_eq!(found(&history), None);
}

#[test]
fn what_anothers_reservation_refuses_may_not_land_from_its_good_until_its_release() {
    let mut history = history();
    let write = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    let asked = history.step();
    history.landing(0, 0, &content(write, 0));
    history.reserved(0, ME, asked);
    history.releases(0, ME.1);
    history.landing(0, 0, &content(write, 0));
    assert_eq!(found(&history), None);
    let asked = history.step();
    history.reserved(0, ME, asked);
    history.landing(0, 0, &content(write, 0));
    assert_eq!(found(&history), Some(Oracle::Fence));
}

#[test]
fn what_a_reset_found_at_the_medium_may_not_land_after_its_answer() {
    let mut history = history();
    let write = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    history.handed(0, 0, &content(write, 0));
    let asked = history.reset_asked(0);
    history.landing(0, 0, &content(write, 0));
    history.reset_done(0, asked, true);
    assert_eq!(found(&history), None);
    history.landing(0, 0, &content(write, 0));
    assert_eq!(found(&history), Some(Oracle::Fence));
}

#[test]
fn a_reservation_of_a_session_that_leaves_is_nobodys() {
    let mut history = history();
    let asked = history.step();
    history.ends(ME.1);
    history.reserved(0, ME, asked);
    let write = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    history.landing(0, 0, &content(write, 0));
    assert_eq!(found(&history), None);
}

fn registers(history: &mut History, who: (usize, Serial), action: Action) {
    let asked = history.register_asked(0, who, action);
    history.register_done(0, who.1, asked);
}

const REGISTER: Action = Action::Register { ignores: true };
const RESERVE: Action = Action::Reserve(Kind::WriteExclusiveRegistrants);
const PREEMPT: Action =
    Action::Preempt { victim: OTHER.0, kind: Kind::WriteExclusiveRegistrants, aborts: true };

#[test]
fn what_a_preempted_port_has_written_may_not_land_from_the_good_on() {
    let mut history = history();
    registers(&mut history, ME, REGISTER);
    registers(&mut history, OTHER, REGISTER);
    registers(&mut history, ME, RESERVE);
    let write = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    history.landing(0, 0, &content(write, 0));
    let asked = history.register_asked(0, ME, PREEMPT);
    history.landing(0, 0, &content(write, 0));
    assert_eq!(found(&history), None, "it is not answered");
    history.register_done(0, ME.1, asked);
    history.landing(0, 0, &content(write, 0));
    assert_eq!(found(&history), Some(Oracle::Fence));
}

#[test]
fn of_two_changes_that_are_asked_for_at_once_nothing_is_known() {
    let mut history = history();
    registers(&mut history, ME, REGISTER);
    registers(&mut history, OTHER, REGISTER);
    registers(&mut history, ME, RESERVE);
    let again = history.register_asked(0, OTHER, REGISTER);
    registers(&mut history, ME, PREEMPT);
    history.register_done(0, OTHER.1, again);
    let write = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    history.landing(0, 0, &content(write, 0));
    history.wrote(write, false);
    assert_eq!(found(&history), None);
}

#[test]
fn a_power_cut_takes_registrations_along_that_are_not_to_outlive_it() {
    for persists in [false, true] {
        let mut history = History::new();
        let promise = Promise { volatile_cache: true, keeps: true, registers: Some(persists) };
        history.add_unit(4, promise);
        registers(&mut history, ME, REGISTER);
        registers(&mut history, ME, RESERVE);
        let left = [content(WriteId::NONE, 0)];
        history.judge_survivors(0, left.iter().map(|bytes| &bytes[..]), End::PowerCut);
        let write = history.begin_write(0, OTHER, (0, 1), Content::Placed);
        history.landing(0, 0, &content(write, 0));
        assert_eq!(found(&history), persists.then_some(Oracle::Fence), "{persists}");
    }
}

#[test]
fn zeroes_may_be_of_any_that_leaves_them_and_are_old_when_all_of_these_are() {
    let zeroes = content(WriteId::NONE, 0);
    let mut history = history();
    let cleared = history.begin_write(0, ME, (0, 1), Content::Zeroes);
    history.wrote(cleared, false);
    let written = history.begin_write(0, ME, (0, 1), Content::Placed);
    history.wrote(written, false);
    let again = history.begin_write(0, OTHER, (0, 1), Content::Zeroes);
    let asked = history.step();
    history.judge_read(0, 0, 0, &zeroes, asked);
    assert_eq!(history.violation(), None, "the second one is under way");
    history.failed(again, "was refused");
    let third = history.begin_write(0, ME, (0, 1), Content::Placed);
    history.wrote(third, false);
    let asked = history.step();
    history.judge_read(0, 0, 0, &zeroes, asked);
    assert_eq!(history.violation().map(|violation| violation.oracle), Some(Oracle::Data));
}

#[test]
fn what_was_replaced_once_is_not_there_to_be_replaced_again() {
    let mut history = history();
    let before = history.begin_write(0, ME, (0, 1), Content::Placed);
    history.wrote(before, false);
    let first = history.begin_write(0, ME, (0, 1), Content::Placed);
    let second = history.begin_write(0, OTHER, (0, 1), Content::Placed);
    history.judge_exchange(0, 0, &content(before, 0), first);
    assert_eq!(history.violation(), None);
    history.judge_exchange(0, 0, &content(before, 0), second);
    assert_eq!(history.violation().map(|violation| violation.oracle), Some(Oracle::Data));
}
