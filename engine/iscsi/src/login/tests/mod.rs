//! Logins as a dialogue of PDUs: the initiator's lines are text with `|` for NUL, and so are the target's.

mod authentication;
mod dialogues;
mod golden;
mod hostile;
mod refusals;

use super::*;
use crate::chap::{NONCE_BYTES, Users};
use crate::negotiate::DigestChoice;
use crate::sn::{CmdSn, StatSn};
use crate::wire::{BHS_BYTES, Cid, InitiatorTaskTag, Isid, RejectReason, Tsih};

pub(super) const INITIATOR: &str = "InitiatorName=iqn.1993-08.org.debian:01:abc|";
pub(super) const TARGET: &str = "TargetName=iqn.2026-11.io.portico:default|";

/// One target for everybody, and one of each unwelcoming sort.
pub(super) struct Lobby;

impl Directory for Lobby {
    fn target(&self, initiator_name: &str, target_name: &str) -> Lookup {
        match target_name {
            "iqn.2026-11.io.portico:default" => Lookup::Admitted(Admission {
                keys: TargetKeys::default(),
                portal_group_tag: 1,
                alias: None,
                queued_commands: 32,
            }),
            "iqn.2026-11.io.portico:named" => Lookup::Admitted(Admission {
                keys: TargetKeys::default(),
                portal_group_tag: 7,
                alias: Some("the blue one".to_owned()),
                queued_commands: 1,
            }),
            "iqn.2026-11.io.portico:closed" => Lookup::Disabled,
            "iqn.2026-11.io.portico:private" if initiator_name.ends_with("abc") => Lookup::Forbidden,
            "iqn.2026-11.io.portico:away" => {
                Lookup::Moved(Relocation { address: "10.0.0.2:3261".to_owned(), permanent: false })
            }
            "iqn.2026-11.io.portico:gone" => {
                Lookup::Moved(Relocation { address: "[fe80::2]".to_owned(), permanent: true })
            }
            "iqn.2026-11.io.portico:proof" => Lookup::Admitted(Admission {
                keys: TargetKeys::default(),
                portal_group_tag: 1,
                alias: None,
                queued_commands: 32,
            }),
            "iqn.2026-11.io.portico:summed" => Lookup::Admitted(Admission {
                keys: TargetKeys {
                    header_digest: DigestChoice::Crc32c,
                    data_digest: DigestChoice::Crc32c,
                    ..TargetKeys::default()
                },
                portal_group_tag: 1,
                alias: None,
                queued_commands: 32,
            }),
            _ => Lookup::NotFound,
        }
    }

    fn users(&self, target_name: Option<&str>) -> Users<'_> {
        match target_name {
            Some("iqn.2026-11.io.portico:proof") => authentication::users(),
            _ => Users::default(),
        }
    }
}

/// The identifier 0x2a and the challenge 00 01 02 ….
pub(super) const NONCE: [u8; NONCE_BYTES] = {
    let mut bytes = [0x2a; NONCE_BYTES];
    let mut at: u8 = 0;
    while (at as usize) < NONCE_BYTES - 1 {
        bytes[at as usize + 1] = at;
        at += 1;
    }
    bytes
};

pub(super) fn request() -> LoginRequest {
    LoginRequest {
        current_stage: Stage::SecurityNegotiation,
        next_stage: None,
        continues: false,
        version_max: 0,
        version_min: 0,
        data_segment_length: 0,
        isid: Isid([0, 2, 0x3d, 0, 0, 1]),
        tsih: Tsih::NEW,
        initiator_task_tag: InitiatorTaskTag(9),
        cid: Cid(0),
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(0),
    }
}

pub(super) fn security(next: Option<Stage>) -> LoginRequest {
    LoginRequest { next_stage: next, ..request() }
}

pub(super) fn operational(next: Option<Stage>) -> LoginRequest {
    LoginRequest { current_stage: Stage::LoginOperationalNegotiation, next_stage: next, ..request() }
}

pub(super) const OPERATIONAL: Option<Stage> = Some(Stage::LoginOperationalNegotiation);
pub(super) const FULL_FEATURE: Option<Stage> = Some(Stage::FullFeaturePhase);

/// A connection that is logging in, and the texts that went over it.
pub(super) struct Dialogue {
    pub(super) login: TargetLogin,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        let options =
            Options { stat_sn: StatSn(100), discovery: TargetKeys::default(), discovery_queued_commands: 4 };
        Self { login: TargetLogin::new(options, Nonce::new(NONCE)) }
    }

    /// Sends a request with `text` and gives back what follows.
    pub(super) fn send(&mut self, request: LoginRequest, text: &str) -> Result<Step, Violation> {
        let data = text.replace('|', "\0").into_bytes();
        let request = LoginRequest { data_segment_length: length_of(&data), ..request };
        let mut bhs = [0; BHS_BYTES];
        request.emit(&mut bhs);
        self.login.receive(&LoginRequest::parse(&bhs)?, &data, &Lobby)
    }

    /// Sends a request that goes on; the response and its text, with `|` for NUL.
    pub(super) fn exchange(&mut self, request: LoginRequest, text: &str) -> (LoginResponse, String) {
        match self.send(request, text) {
            Ok(Step::More(reply)) => rendered(&reply),
            other => panic!("the login should go on: {other:?}"),
        }
    }

    /// Sends the last request.
    pub(super) fn finish(&mut self, request: LoginRequest, text: &str) -> Completed {
        match self.send(request, text) {
            Ok(Step::Complete(completed)) => *completed,
            other => panic!("the login should be complete: {other:?}"),
        }
    }

    /// Sends a request that fails; the status of the refusal, or nothing where the connection is dropped.
    pub(super) fn fail(&mut self, request: LoginRequest, text: &str) -> (Violation, Option<LoginStatus>) {
        let mut bhs = [0; BHS_BYTES];
        request.emit(&mut bhs);
        let violation = self.send(request, text).expect_err("the login should fail");
        let refusal = self.login.refusal(&bhs, &violation);
        if let Some(reply) = &refusal {
            rendered(reply);
            assert_eq!(reply.response.initiator_task_tag, request.initiator_task_tag);
        }
        (violation, refusal.map(|reply| reply.response.status))
    }
}

/// Every response must survive its own 48 bytes.
pub(super) fn rendered(reply: &LoginReply) -> (LoginResponse, String) {
    let mut bhs = [0; BHS_BYTES];
    reply.response.emit(&mut bhs);
    assert_eq!(LoginResponse::parse(&bhs), Ok(reply.response));
    assert_eq!(reply.text.len(), reply.response.data_segment_length as usize);
    (reply.response, String::from_utf8(reply.text.clone()).unwrap().replace('\0', "|"))
}

#[test]
fn what_would_earn_a_reject_later_ends_the_login() {
    let reject = Violation::TextWithoutEquals;
    assert_eq!(reject.answer(), Verdict::Reject(RejectReason::ProtocolError));
    let reply = Dialogue::new().login.refusal(&[0; BHS_BYTES], &reject).unwrap();
    assert_eq!(reply.response.status, LoginStatus::INITIATOR_ERROR);
}
