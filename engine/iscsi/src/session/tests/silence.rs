//! Pings of the target's own, and initiators that do not answer.

use super::*;

fn seconds(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

fn answer_to(ping: &NopIn) -> InitiatorPdu {
    InitiatorPdu::NopOut(NopOut {
        immediate: true,
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        target_transfer_tag: ping.target_transfer_tag,
        ..super::ping(0, 1, 0)
    })
}

#[test]
fn silence_earns_a_ping_and_its_answer_peace() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.session.next_deadline(Seat::LEADING), seconds(30));
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(29)), Expired::Nothing);
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(30)), Expired::Ping);

    let ping = nop_in(dialogue.emitted(|session, header| session.ping(Seat::LEADING, seconds(30), header)));
    assert!(ping.initiator_task_tag.is_reserved() && !ping.target_transfer_tag.is_reserved());
    assert_eq!(ping.stat_sn, StatSn(50));
    assert_eq!(dialogue.session.stat_sn(Seat::LEADING), StatSn(50), "a ping uses no StatSN up");
    assert_eq!(dialogue.session.next_deadline(Seat::LEADING), seconds(40));

    dialogue.now = seconds(31);
    assert_eq!(dialogue.absorbed(answer_to(&ping)), 0);
    assert_eq!(dialogue.session.next_deadline(Seat::LEADING), seconds(61));
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(40)), Expired::Nothing);
}

#[test]
fn a_ping_without_an_answer_ends_the_connection() {
    let mut dialogue = Dialogue::new();
    dialogue.emitted(|session, header| session.ping(Seat::LEADING, seconds(30), header));
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(39)), Expired::Nothing);
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(40)), Expired::PeerSilent);
}

#[test]
fn an_initiator_that_is_busy_sending_is_not_silent() {
    let mut dialogue = Dialogue::new();
    dialogue.emitted(|session, header| session.ping(Seat::LEADING, seconds(30), header));
    dialogue.now = seconds(38);
    dialogue.request(plain(1, 1));
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(40)), Expired::Nothing);
    dialogue.session.heard(Seat::LEADING, seconds(45));
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(54)), Expired::Nothing);
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(55)), Expired::PeerSilent);
}

#[test]
fn the_answer_to_an_older_ping_does_not_answer_this_one() {
    let mut dialogue = Dialogue::new();
    let first = nop_in(dialogue.emitted(|session, header| session.ping(Seat::LEADING, seconds(30), header)));
    dialogue.emitted(|session, header| session.ping(Seat::LEADING, seconds(31), header));
    dialogue.now = seconds(32);
    dialogue.absorbed(answer_to(&first));
    assert_eq!(dialogue.session.expire(Seat::LEADING, seconds(42)), Expired::PeerSilent);
}

#[test]
fn an_interval_of_zero_never_pings() {
    let keepalive = KeepaliveTimes { interval: Duration::ZERO, timeout: Duration::from_secs(10) };
    let dialogue = Dialogue::with(Start { keepalive, ..start() });
    assert_eq!(dialogue.session.next_deadline(Seat::LEADING), Moment::NEVER);
    assert_eq!(dialogue.session.expire(Seat::LEADING, Moment::NEVER), Expired::Nothing);
}
