//! Logins that fail, each with the status that RFC 7143 §11.13.5 has for it.

use super::*;
use crate::negotiate::Misuse;

#[test]
fn a_login_without_a_name_misses_a_parameter() {
    for text in [TARGET, INITIATOR, "", "SessionType=Discovery|"] {
        let (violation, status) = Dialogue::new().fail(security(OPERATIONAL), text);
        assert!(matches!(violation, Violation::Login(LoginViolation::KeyMissing(_))), "{text}");
        assert_eq!(status, Some(LoginStatus::MISSING_PARAMETER));
    }
}

#[test]
fn an_empty_login_request_is_answered_and_not_crashed_on() {
    let (violation, status) = Dialogue::new().fail(operational(FULL_FEATURE), "");
    assert_eq!(violation, Violation::Login(LoginViolation::KeyMissing(Key::InitiatorName)));
    assert_eq!(status, Some(LoginStatus::MISSING_PARAMETER));
}

#[test]
fn an_initiator_that_is_not_welcome_is_told_so_with_a_status() {
    for (target, status) in [
        ("nowhere", LoginStatus::NOT_FOUND),
        ("private", LoginStatus::AUTHORIZATION_FAILURE),
        ("closed", LoginStatus::SERVICE_UNAVAILABLE),
    ] {
        let text = format!("{INITIATOR}TargetName=iqn.2026-11.io.portico:{target}|");
        let Step::Refused(reply) = Dialogue::new().send(operational(FULL_FEATURE), &text).unwrap() else {
            panic!("{target} takes nobody")
        };
        let (response, text) = rendered(&reply);
        assert_eq!((response.status, text.as_str()), (status, ""));
    }
}

#[test]
fn an_initiator_that_insists_on_chap_fails_to_authenticate() {
    let text = format!("{INITIATOR}{TARGET}AuthMethod=CHAP|");
    let (violation, status) = Dialogue::new().fail(security(OPERATIONAL), &text);
    assert_eq!(violation, Violation::Login(LoginViolation::KeyMisused(Misuse::NoCommonAuthMethod)));
    assert_eq!(status, Some(LoginStatus::AUTHENTICATION_FAILURE));
}

#[test]
fn a_key_sent_again_in_a_later_request_is_an_initiator_error() {
    let mut dialogue = Dialogue::new();
    dialogue.exchange(operational(None), &format!("{INITIATOR}{TARGET}ImmediateData=Yes|"));
    let (violation, status) = dialogue.fail(operational(FULL_FEATURE), "ImmediateData=Yes|");
    assert_eq!(violation, Violation::Login(LoginViolation::KeyMisused(Misuse::Repeated(Key::ImmediateData))));
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
}

#[test]
fn names_and_the_session_type_may_not_come_late_or_twice() {
    let mut dialogue = Dialogue::new();
    dialogue.exchange(operational(None), &format!("{INITIATOR}{TARGET}"));
    let (violation, _) = dialogue.fail(operational(FULL_FEATURE), "SessionType=Discovery|");
    assert_eq!(violation, Violation::Login(LoginViolation::KeyTooLate(Key::SessionType)));

    let (violation, _) =
        Dialogue::new().fail(operational(FULL_FEATURE), &format!("{INITIATOR}{INITIATOR}{TARGET}"));
    assert_eq!(violation, Violation::Login(LoginViolation::KeyMisused(Misuse::Repeated(Key::InitiatorName))));
}

#[test]
fn a_name_that_is_none_is_an_initiator_error() {
    let long = format!("InitiatorName=iqn.{}|{TARGET}", "a".repeat(220));
    for text in ["InitiatorName=|", "InitiatorName=iqn.2026 spaced|", "InitiatorName=iqn.\u{7}|", &long] {
        let (violation, status) = Dialogue::new().fail(operational(FULL_FEATURE), text);
        assert_eq!(violation, Violation::Login(LoginViolation::NameMalformed(Key::InitiatorName)));
        assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
    }
}

#[test]
fn a_session_of_an_unknown_type_is_not_supported() {
    let (_, status) =
        Dialogue::new().fail(operational(FULL_FEATURE), &format!("{INITIATOR}{TARGET}SessionType=Boot|"));
    assert_eq!(status, Some(LoginStatus::SESSION_TYPE_NOT_SUPPORTED));
}

#[test]
fn a_version_of_the_future_is_unsupported() {
    let future = LoginRequest { version_min: 1, version_max: 2, ..operational(FULL_FEATURE) };
    let (_, status) = Dialogue::new().fail(future, &format!("{INITIATOR}{TARGET}"));
    assert_eq!(status, Some(LoginStatus::UNSUPPORTED_VERSION));

    let speaks_both = LoginRequest { version_max: 2, ..operational(FULL_FEATURE) };
    let completed = Dialogue::new().finish(speaks_both, &format!("{INITIATOR}{TARGET}"));
    assert_eq!(completed.accept(Tsih(1)).response.version_active, 0, "the lower of both highest versions");
}

#[test]
fn a_login_keeps_its_name_from_the_first_request_to_the_last() {
    let same = operational(FULL_FEATURE);
    for changed in [
        LoginRequest { isid: Isid([0; 6]), ..same },
        LoginRequest { tsih: Tsih(4), ..same },
        LoginRequest { cid: Cid(3), ..same },
        LoginRequest { cmd_sn: CmdSn(2), ..same },
    ] {
        let mut dialogue = Dialogue::new();
        dialogue.exchange(operational(None), &format!("{INITIATOR}{TARGET}"));
        let (violation, status) = dialogue.fail(changed, "");
        assert_eq!(violation, Violation::Login(LoginViolation::LoginFieldChanged));
        assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
    }
}

/// §11.12.8: commands on the session's other connections go on meanwhile.
#[test]
fn the_cmd_sn_of_a_login_that_joins_a_session_may_advance() {
    let joining = |login| LoginRequest { tsih: Tsih(5), cid: Cid(1), cmd_sn: CmdSn(500), ..login };
    let mut dialogue = Dialogue::new();
    dialogue.exchange(joining(security(OPERATIONAL)), &format!("{INITIATOR}{TARGET}AuthMethod=None|"));
    let later = LoginRequest { cmd_sn: CmdSn(507), ..joining(operational(FULL_FEATURE)) };
    assert_eq!(dialogue.finish(later, "").tsih, Tsih(5));
}

#[test]
fn a_stage_out_of_order_is_an_initiator_error() {
    let mut dialogue = Dialogue::new();
    dialogue.exchange(security(None), &format!("{INITIATOR}{TARGET}"));
    let (violation, status) = dialogue.fail(operational(FULL_FEATURE), "");
    assert_eq!(
        violation,
        Violation::Login(LoginViolation::LoginStageMismatch {
            expected: Stage::SecurityNegotiation,
            actual: Stage::LoginOperationalNegotiation
        })
    );
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));

    let mut dialogue = Dialogue::new();
    dialogue.exchange(security(OPERATIONAL), &format!("{INITIATOR}{TARGET}"));
    let (violation, _) = dialogue.fail(security(FULL_FEATURE), "");
    assert!(
        matches!(violation, Violation::Login(LoginViolation::LoginStageMismatch { .. })),
        "there is no way back"
    );
}

#[test]
fn a_login_that_never_ends_is_ended() {
    let mut dialogue = Dialogue::new();
    dialogue.exchange(operational(None), &format!("{INITIATOR}{TARGET}"));
    for _ in 1..LOGIN_REQUESTS_MAX {
        dialogue.exchange(operational(None), "");
    }
    let (violation, status) = dialogue.fail(operational(None), "");
    assert_eq!(violation, Violation::Login(LoginViolation::LoginTooLong { maximum: LOGIN_REQUESTS_MAX }));
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
}

#[test]
fn a_text_without_end_is_ended() {
    let mut dialogue = Dialogue::new();
    let more = LoginRequest { continues: true, ..operational(None) };
    let piece = "a".repeat(8192);
    dialogue.exchange(more, &piece);
    dialogue.exchange(more, &piece);
    let (violation, status) = dialogue.fail(more, "a");
    assert_eq!(violation, Violation::TextTooLong { maximum: STEP_BYTES_MAX });
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
}

#[test]
fn a_login_request_longer_than_8192_bytes_is_not_read() {
    let (violation, status) = Dialogue::new().fail(operational(FULL_FEATURE), &"a".repeat(8193));
    assert!(matches!(violation, Violation::DataSegmentTooLong { .. }));
    assert_eq!(status, None);
}

#[test]
fn a_long_unknown_key_does_not_overflow_the_answer() {
    // CVE-2013-2850: the key was echoed into a buffer of fixed size.
    let (violation, status) = Dialogue::new()
        .fail(operational(FULL_FEATURE), &format!("{INITIATOR}{TARGET}{}=1|", "K".repeat(4000)));
    assert_eq!(violation, Violation::TextKeyLength { length: 4000 });
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));

    let many: String = (0..1100).map(|n| format!("{n}=|")).collect();
    let (violation, _) =
        Dialogue::new().fail(operational(FULL_FEATURE), &format!("{INITIATOR}{TARGET}{many}"));
    assert_eq!(
        violation,
        Violation::TextTooLong { maximum: STEP_BYTES_MAX },
        "their answers have a bound too"
    );
}

#[test]
fn a_value_longer_than_255_bytes_is_an_initiator_error() {
    let text = format!("{INITIATOR}{TARGET}InitiatorAlias={}|", "a".repeat(256));
    let (violation, status) = Dialogue::new().fail(operational(FULL_FEATURE), &text);
    assert_eq!(violation, Violation::TextValueTooLong { length: 256, maximum: 255 });
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
}

#[test]
fn text_while_the_answer_goes_on_is_refused() {
    let mut dialogue = Dialogue::new();
    let unknown: String = (0..80).map(|n| format!("X-com.example.k{n:02}=1|")).collect();
    let (response, _) = dialogue.exchange(
        operational(FULL_FEATURE),
        &format!("{INITIATOR}{TARGET}MaxRecvDataSegmentLength=512|{unknown}"),
    );
    assert!(response.continues);
    let (violation, status) = dialogue.fail(operational(FULL_FEATURE), "ImmediateData=Yes|");
    assert_eq!(violation, Violation::TextBeforeAnswer);
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
}

#[test]
fn another_pdu_before_the_login_drops_the_connection_and_during_it_is_answered() {
    let mut dialogue = Dialogue::new();
    let violation = dialogue.login.intruder(0x01);
    assert_eq!(dialogue.login.refusal(&[0; BHS_BYTES], &violation), None);

    dialogue.exchange(security(None), &format!("{INITIATOR}{TARGET}"));
    let violation = dialogue.login.intruder(0x01);
    let reply = dialogue.login.refusal(&[0; BHS_BYTES], &violation).unwrap();
    assert_eq!(reply.response.status, LoginStatus::INVALID_DURING_LOGIN);
    assert_eq!(reply.response.initiator_task_tag, InitiatorTaskTag(9));
}

const SUMMED: &str = "TargetName=iqn.2026-11.io.portico:summed|";

/// RFC 7143 §13.1: either side may send the key; §6.2: the target's offer is to be answered, so it stays where it is.
#[test]
fn an_initiator_that_is_silent_on_a_digest_that_is_demanded_is_offered_it() {
    let mut dialogue = Dialogue::new();
    let (response, text) = dialogue
        .exchange(operational(FULL_FEATURE), &format!("{INITIATOR}{SUMMED}HeaderDigest=None,CRC32C|"));
    assert_eq!(response.next_stage, None);
    assert!(text.contains("|HeaderDigest=CRC32C|") && text.ends_with("|DataDigest=CRC32C|"), "{text}");
    let completed = dialogue.finish(operational(FULL_FEATURE), "DataDigest=CRC32C|");
    assert_eq!(completed.text, b"");
    assert!(completed.parameters.header_digest && completed.parameters.data_digest);
}

/// Silent once more, another answer, an offer of None alone, or no operational stage in which to say anything.
#[test]
fn nobody_gets_in_without_a_digest_that_is_demanded() {
    for answer in ["", "DataDigest=None|HeaderDigest=CRC32C|", "DataDigest=Reject|HeaderDigest=Reject|"] {
        let mut dialogue = Dialogue::new();
        dialogue.exchange(operational(FULL_FEATURE), &format!("{INITIATOR}{SUMMED}"));
        let (violation, status) = dialogue.fail(operational(FULL_FEATURE), answer);
        assert!(matches!(violation, Violation::Login(LoginViolation::DigestMissing(_))), "{answer}");
        assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR));
    }
    let none = format!("{INITIATOR}{SUMMED}HeaderDigest=None|DataDigest=None|");
    let (violation, _) = Dialogue::new().fail(operational(FULL_FEATURE), &none);
    assert_eq!(violation, Violation::Login(LoginViolation::DigestMissing(Key::HeaderDigest)));
    let (violation, _) = Dialogue::new().fail(security(FULL_FEATURE), &format!("{INITIATOR}{SUMMED}"));
    assert_eq!(violation, Violation::Login(LoginViolation::DigestMissing(Key::HeaderDigest)));
}
