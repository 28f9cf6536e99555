//! Guessing made slow, in virtual time: a login that failed makes the next proof of its address wait.

use portico_iscsi::chap::{Credentials, User};
use portico_iscsi::initiator::{FirstStage, Login, LoginFault, LoginPlan};
use portico_iscsi::wire::LoginStatus;
use portico_model::configuration::{Configuration, IscsiName, LunMapping, Source, Target};
use portico_ring::{Completion, Payload};

use super::*;
use crate::tag;

const NAME: &str = "iqn.2026-11.test:t";
const SECRET: &str = "open-sesame-1";

/// What a login came to so far.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// It waits for the target.
    Waits,
    /// It was refused.
    Refused(LoginStatus),
    /// It is complete, and with control.
    Complete,
}

/// A shard that accepts connections, and serves one target to who knows a secret.
fn guarded() -> Bench {
    let mut target = Target::new(IscsiName::parse(NAME).expect("a right name"));
    target.enabled = true;
    target.incoming_users = vec![User::new("joe", SECRET)];
    let mapping = LunMapping { lun: 0, device: "disk".into(), read_only: false, source: Source::default() };
    target.luns = vec![mapping];
    let mut configuration = Configuration { targets: vec![target], ..Configuration::default() };
    configuration.iscsi.enabled = true;
    let mut bench = Bench::new();
    bench.mail(ToShard::Configure(Arc::new(configuration)));
    bench.mail(ToShard::Listen(vec![Arc::new(nowhere())]));
    bench
}

fn nowhere() -> std::os::fd::OwnedFd {
    File::open("/dev/null").expect("there is one").into()
}

/// A connection comes, and says all that it can: how far it gets.
struct Caller {
    socket: usize,
    login: Login,
}

impl Caller {
    fn new(bench: &mut Bench, secret: &str) -> Self {
        let accepted = Completion {
            tag: tag::of_accept(0),
            result: Ok(0),
            payload: Payload::Accepted(nowhere()),
            more: true,
        };
        bench.world.borrow_mut().complete(accepted);
        bench.settle();
        let socket = bench.world.borrow().sockets.len() - 1;
        let credentials = Some(Credentials::new(User::new("joe", secret)));
        let plan = LoginPlan::normal("iqn.2026-11.test:i", NAME);
        let plan = LoginPlan { credentials, first_stage: FirstStage::Security, ..plan };
        Self { socket, login: Login::new(plan) }
    }

    fn go_on(&mut self, bench: &mut Bench) -> Came {
        loop {
            let mut said = Vec::new();
            self.login.next_pdu(&mut said);
            {
                let world = &mut *bench.world.borrow_mut();
                world.sockets[self.socket].to_shard.extend(said);
                world.feed(self.socket);
            }
            bench.settle();
            if bench.world.borrow().sent.iter().any(|mail| matches!(mail, ToControl::Login(_))) {
                return Came::Complete;
            }
            let heard: Vec<u8> = bench.world.borrow_mut().sockets[self.socket].from_shard.drain(..).collect();
            if heard.is_empty() {
                return Came::Waits;
            }
            let bhs: Bhs = heard[..BHS_BYTES].try_into().expect("a whole header");
            let length = data_segment_length(&bhs) as usize;
            match self.login.receive(&bhs, &heard[BHS_BYTES..BHS_BYTES + length]) {
                Err(LoginFault::Refused(status)) => return Came::Refused(status),
                Err(fault) => panic!("{fault}"),
                Ok(_) => {}
            }
        }
    }
}

#[test]
fn ten_thousand_connections_that_say_nothing_take_places_from_themselves_alone() {
    let mut bench = guarded();
    bench.open(1, 64);
    let mut busy = bench.log_in(&[(0, 1)], ASKED);
    bench.world.borrow_mut().sent.clear();
    let first = bench.world.borrow().sockets.len();
    for tag in 0..10_000 {
        drop(Caller::new(&mut bench, SECRET));
        if tag % 500 == 0 {
            bench.read(&mut busy, 0, tag, 512);
            bench.land_all();
            assert!(matches!(bench.heard(&busy)[..], [Heard::Data(at, _, true)] if at == tag), "at {tag}");
        }
    }
    let open = bench.world.borrow().sockets[first..].iter().filter(|socket| !socket.is_closed).count();
    assert_eq!(open, crate::logins::logins_max(ARENA));
    assert_eq!(
        Caller::new(&mut bench, SECRET).go_on(&mut bench),
        Came::Complete,
        "and one that speaks is let in"
    );
}

#[test]
fn a_login_at_one_byte_a_second_ends_when_its_time_is_over_and_disturbs_nobody() {
    let mut bench = guarded();
    bench.open(1, 64);
    let mut busy = bench.log_in(&[(0, 1)], ASKED);
    let mut slow = Caller::new(&mut bench, SECRET);
    let mut said = Vec::new();
    slow.login.next_pdu(&mut said);
    for (second, byte) in (0..60).zip(said) {
        {
            let world = &mut *bench.world.borrow_mut();
            world.sockets[slow.socket].to_shard.push_back(byte);
            world.feed(slow.socket);
        }
        pass(&mut bench, Duration::from_secs(1));
        bench.read(&mut busy, 0, second, 512);
        bench.land_all();
        assert!(matches!(bench.heard(&busy)[..], [Heard::Data(..)]), "second {second}");
        if bench.world.borrow().sockets[slow.socket].is_closed {
            return assert!((14..17).contains(&second), "closed after {second} s");
        }
    }
    panic!("it is still there");
}

fn pass(bench: &mut Bench, time: Duration) {
    let now = bench.world.borrow().now;
    bench.world.borrow_mut().now = now + time;
    bench.settle();
}

#[test]
fn who_knows_the_secret_waits_for_nothing() {
    let mut bench = guarded();
    assert_eq!(Caller::new(&mut bench, SECRET).go_on(&mut bench), Came::Complete);
}

#[test]
fn after_a_wrong_proof_the_next_one_of_that_address_is_judged_when_it_is_time() {
    let mut bench = guarded();
    let wrong = Caller::new(&mut bench, "open-sesame-2").go_on(&mut bench);
    assert_eq!(wrong, Came::Refused(LoginStatus::AUTHENTICATION_FAILURE));
    let mut right = Caller::new(&mut bench, SECRET);
    assert_eq!(right.go_on(&mut bench), Came::Waits);
    pass(&mut bench, Duration::from_millis(240));
    assert_eq!(right.go_on(&mut bench), Came::Waits, "a quarter of a second after the first failure");
    pass(&mut bench, Duration::from_millis(200));
    assert_eq!(right.go_on(&mut bench), Came::Complete);
}

#[test]
fn proofs_of_one_address_are_judged_one_after_the_other_and_too_many_never() {
    let mut bench = guarded();
    for _ in 0..6 {
        let mut guess = Caller::new(&mut bench, "open-sesame-2");
        while guess.go_on(&mut bench) == Came::Waits {
            pass(&mut bench, Duration::from_millis(100));
        }
    }
    // At four seconds each two wait; those behind them would wait for longer than ten.
    let mut queue: Vec<Caller> = (0..4).map(|_| Caller::new(&mut bench, SECRET)).collect();
    let came: Vec<Came> = queue.iter_mut().map(|caller| caller.go_on(&mut bench)).collect();
    assert!(came.iter().all(|came| *came == Came::Waits));
    let closed = |bench: &Bench| {
        queue.iter().filter(|caller| bench.world.borrow().sockets[caller.socket].is_closed).count()
    };
    assert_eq!(closed(&bench), 2, "closed unanswered");
}
