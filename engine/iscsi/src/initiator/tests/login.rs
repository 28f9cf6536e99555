//! Logins, with a target that says what the test wants.

use super::*;
use crate::text::{Outgoing as OutgoingText, STEP_BYTES_MAX, pairs};
use crate::wire::{Isid, LoginRequest, LoginResponse, LoginStatus, Stage};

const OPERATIONAL: Stage = Stage::LoginOperationalNegotiation;
const SECURITY: Stage = Stage::SecurityNegotiation;

struct Script {
    login: Login,
    stat_sn: u32,
}

impl Script {
    fn begin(plan: LoginPlan) -> Self {
        Self { login: Login::new(plan), stat_sn: 5000 }
    }

    /// The next request, and its text.
    fn hears(&mut self) -> (LoginRequest, Vec<u8>) {
        let mut bytes = Vec::new();
        assert!(self.login.next_pdu(&mut bytes), "the initiator says nothing");
        assert!(!self.login.next_pdu(&mut bytes), "one request at a time");
        let (bhs, rest) = bytes.split_first_chunk().unwrap();
        let request = LoginRequest::parse(bhs).unwrap();
        let length = request.data_segment_length as usize;
        assert_eq!(rest.len(), length.next_multiple_of(4));
        (request, rest[..length].to_vec())
    }

    /// A response that goes along with the request.
    fn agrees(&mut self, request: &LoginRequest) -> LoginResponse {
        self.stat_sn += 1;
        let is_last = request.next_stage == Some(Stage::FullFeaturePhase);
        LoginResponse {
            current_stage: request.current_stage,
            next_stage: request.next_stage,
            continues: false,
            version_max: 0,
            version_active: 0,
            data_segment_length: 0,
            isid: request.isid,
            tsih: Tsih(if is_last { 0x1234 } else { 0 }),
            initiator_task_tag: request.initiator_task_tag,
            stat_sn: StatSn(self.stat_sn),
            expected_cmd_sn: request.cmd_sn,
            maximum_cmd_sn: request.cmd_sn.advanced_by(31),
            status: LoginStatus::SUCCESS,
        }
    }

    fn says(&mut self, response: LoginResponse, said: &[(&str, &str)]) -> Result<Progress, LoginFault> {
        self.says_bytes(response, &text(said))
    }

    fn says_bytes(&mut self, response: LoginResponse, data: &[u8]) -> Result<Progress, LoginFault> {
        let mut bhs = [0; BHS_BYTES];
        let data_segment_length = u32::try_from(data.len()).unwrap();
        LoginResponse { data_segment_length, ..response }.emit(&mut bhs);
        self.login.receive(&bhs, data)
    }
}

fn text(said: &[(&str, &str)]) -> Vec<u8> {
    let mut text = OutgoingText::with_bound(STEP_BYTES_MAX);
    for (key, value) in said {
        text.push(key, value.as_bytes()).unwrap();
    }
    text.take_piece(STEP_BYTES_MAX).bytes.to_vec()
}

fn keys(text: &[u8]) -> Vec<(String, String)> {
    let word = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    pairs(text).map(Result::unwrap).map(|pair| (pair.key.to_owned(), word(pair.value))).collect()
}

fn plan(offer: Offer) -> LoginPlan {
    LoginPlan { offer, ..LoginPlan::normal("iqn.2026-11.io.portico:host", "iqn.2026-11.io.portico:disk") }
}

fn done(progress: Result<Progress, LoginFault>) -> Established {
    match progress {
        Ok(Progress::Done(established)) => *established,
        other => panic!("{other:?}"),
    }
}

/// The first request is answered with this text and these changes.
fn answered(offer: Offer, said: &[(&str, &str)], spoil: impl FnOnce(&mut LoginResponse)) -> LoginFault {
    let mut script = Script::begin(plan(offer));
    let (request, _) = script.hears();
    let mut response = script.agrees(&request);
    spoil(&mut response);
    script.says(response, said).unwrap_err()
}

#[test]
fn one_exchange_is_enough_where_both_agree() {
    let offer =
        Offer::none().with("MaxBurstLength", "65536").with("InitialR2T", "No").with("ImmediateData", "Yes");
    let mut script = Script::begin(plan(offer));
    let (request, said) = script.hears();
    assert_eq!((request.current_stage, request.next_stage), (OPERATIONAL, Some(Stage::FullFeaturePhase)));
    assert_eq!(
        keys(&said)[..3],
        [
            ("InitiatorName".into(), "iqn.2026-11.io.portico:host".into()),
            ("SessionType".into(), "Normal".into()),
            ("TargetName".into(), "iqn.2026-11.io.portico:disk".into()),
        ]
    );
    let response = script.agrees(&request);
    let established = done(script.says(
        response,
        &[
            ("TargetPortalGroupTag", "3"),
            ("MaxRecvDataSegmentLength", "16384"),
            ("MaxBurstLength", "32768"),
            ("InitialR2T", "No"),
            ("ImmediateData", "No"),
        ],
    ));
    let parameters = established.parameters;
    assert_eq!((parameters.max_burst_length, parameters.first_burst_length), (32_768, 32_768));
    assert_eq!((parameters.initial_r2t, parameters.immediate_data), (false, false));
    assert_eq!(parameters.peer_max_recv_data_segment_length, 16_384);
    assert_eq!(parameters.own_max_recv_data_segment_length, 8192);
    assert_eq!((established.portal_group_tag, established.tsih), (Some(3), Tsih(0x1234)));
    assert_eq!(established.expected_stat_sn, StatSn(5002));
    assert_eq!(established.window.size(), 32);
}

#[test]
fn a_login_through_the_security_stage_offers_its_keys_after_it() {
    let mut script = Script::begin(LoginPlan {
        first_stage: FirstStage::Security,
        ..plan(Offer::none().with("MaxConnections", "1"))
    });
    let (request, said) = script.hears();
    assert_eq!((request.current_stage, request.next_stage), (SECURITY, Some(OPERATIONAL)));
    assert_eq!(keys(&said).last(), Some(&("AuthMethod".into(), "None".into())));
    let response = script.agrees(&request);
    assert_eq!(script.says(response, &[("AuthMethod", "None")]), Ok(Progress::Send));
    let (request, said) = script.hears();
    assert_eq!((request.current_stage, request.expected_stat_sn), (OPERATIONAL, StatSn(5002)));
    assert_eq!(keys(&said), [("MaxConnections".into(), "1".into())]);
    let response = script.agrees(&request);
    done(script.says(response, &[("MaxConnections", "1")]));
}

#[test]
fn a_target_may_take_several_exchanges_and_propose_keys_of_its_own() {
    let mut script = Script::begin(plan(Offer::none().with("MaxBurstLength", "65536")));
    let (request, _) = script.hears();
    let not_yet = LoginResponse { next_stage: None, tsih: Tsih::NEW, ..script.agrees(&request) };
    let proposals = [("MaxBurstLength", "512"), ("HeaderDigest", "CRC32C,None"), ("X-com.example.x", "1")];
    assert_eq!(script.says(not_yet, &proposals), Ok(Progress::Send));
    let (request, said) = script.hears();
    let answers =
        [("HeaderDigest".into(), "None".into()), ("X-com.example.x".into(), "NotUnderstood".into())];
    assert_eq!(keys(&said), answers);
    let response = script.agrees(&request);
    assert_eq!(done(script.says(response, &[])).parameters.max_burst_length, 512);
}

#[test]
fn a_text_that_the_target_continues_is_listened_to() {
    let mut script = Script::begin(plan(Offer::none().with("MaxBurstLength", "65536")));
    let (request, _) = script.hears();
    let more =
        LoginResponse { next_stage: None, continues: true, tsih: Tsih::NEW, ..script.agrees(&request) };
    assert_eq!(script.says_bytes(more, b"MaxBurstLength=40"), Ok(Progress::Send));
    let (request, said) = script.hears();
    assert_eq!((request.next_stage, said.len()), (None, 0));
    let rest = LoginResponse { next_stage: None, tsih: Tsih::NEW, ..script.agrees(&request) };
    assert_eq!(script.says_bytes(rest, b"96\0"), Ok(Progress::Send));
    let (request, _) = script.hears();
    let response = script.agrees(&request);
    assert_eq!(done(script.says(response, &[])).parameters.max_burst_length, 4096);
}

#[test]
fn a_long_offer_is_sent_in_pieces_and_not_answered_before_its_end() {
    let long = (0..12)
        .fold(Offer::none(), |offer, index| offer.with(&format!("X-com.example.{index}"), &"v".repeat(1000)));
    let mut script = Script::begin(plan(long.clone()));
    let (request, said) = script.hears();
    assert!(request.continues && request.next_stage.is_none());
    assert_eq!(said.len(), 8192);
    let response = script.agrees(&request);
    assert_eq!(script.says(response, &[]), Ok(Progress::Send));
    let (request, _) = script.hears();
    assert!(!request.continues && request.next_stage.is_some());

    assert_eq!(answered(long, &[("X-com.example.0", "1")], |_| {}), LoginFault::AnsweredBeforeEnd);
}

#[test]
fn a_refusal_and_a_redirection_say_why_and_where() {
    let refused = answered(Offer::none(), &[], |response| response.status = LoginStatus::NOT_FOUND);
    assert_eq!(refused, LoginFault::Refused(LoginStatus::NOT_FOUND));
    let status = LoginStatus::TARGET_MOVED_TEMPORARILY;
    let moved =
        answered(Offer::none(), &[("TargetAddress", "[::1]:3261,1")], |response| response.status = status);
    assert_eq!(moved, LoginFault::Redirected { status, address: Some("[::1]:3261,1".into()) });
}

#[test]
fn a_value_that_may_not_come_to_the_offer_is_a_fault() {
    let offer = || Offer::none().with("MaxBurstLength", "65536");
    assert_eq!(
        answered(offer(), &[("MaxBurstLength", "65537")], |_| {}),
        LoginFault::AnswerInadmissible {
            key: "MaxBurstLength".into(),
            offered: "65536".into(),
            answer: "65537".into()
        }
    );
    assert_eq!(answered(offer(), &[], |_| {}), LoginFault::KeyUnanswered("MaxBurstLength".into()));
    let twice = [("MaxBurstLength", "512"), ("MaxBurstLength", "512")];
    assert_eq!(answered(offer(), &twice, |_| {}), LoginFault::KeyRepeated("MaxBurstLength".into()));
    assert!(matches!(
        answered(Offer::none(), &[("MaxRecvDataSegmentLength", "511")], |_| {}),
        LoginFault::AnswerInadmissible { .. }
    ));
}

#[test]
fn a_header_that_does_not_fit_the_login_is_a_fault() {
    let spoilt = |spoil: fn(&mut LoginResponse)| answered(Offer::none(), &[], spoil);
    assert_eq!(spoilt(|response| response.isid = Isid([9; 6])), LoginFault::NotAnEcho("ISID"));
    assert_eq!(spoilt(|response| response.current_stage = SECURITY), LoginFault::NotAnEcho("CSG"));
    assert_eq!(spoilt(|response| response.version_active = 1), LoginFault::VersionWrong(1));
    assert_eq!(spoilt(|response| response.tsih = Tsih::NEW), LoginFault::TsihWrong(Tsih::NEW));
    assert_eq!(
        spoilt(|response| response.next_stage = None),
        LoginFault::TsihWrong(Tsih(0x1234)),
        "a handle before the end"
    );
    assert_eq!(
        spoilt(|response| response.maximum_cmd_sn = CmdSn(0xffff_fff0)),
        LoginFault::WindowWrong { expected: CmdSn(1), maximum: CmdSn(0xffff_fff0) }
    );
}

#[test]
fn a_stat_sn_that_skips_ends_the_login() {
    let mut script = Script::begin(plan(Offer::none()));
    let (request, _) = script.hears();
    let not_yet = LoginResponse { next_stage: None, tsih: Tsih::NEW, ..script.agrees(&request) };
    script.says(not_yet, &[]).unwrap();
    let (request, _) = script.hears();
    script.stat_sn += 1;
    let response = script.agrees(&request);
    let skipped = LoginFault::StatSnWrong { expected: StatSn(5002), received: StatSn(5003) };
    assert_eq!(script.says(response, &[]), Err(skipped));
}

#[test]
fn a_target_that_never_transits_ends_the_login() {
    let mut script = Script::begin(plan(Offer::none()));
    let fault = loop {
        let (request, _) = script.hears();
        let not_yet = LoginResponse { next_stage: None, tsih: Tsih::NEW, ..script.agrees(&request) };
        if let Err(fault) = script.says(not_yet, &[]) {
            break fault;
        }
    };
    assert_eq!(fault, LoginFault::Endless);
}
