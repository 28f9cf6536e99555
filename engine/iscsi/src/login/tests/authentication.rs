//! Who has to prove who it is (RFC 7143 §6.3.2, §12.1), and redirection (§11.13.5).

use std::sync::LazyLock;

use super::*;
use crate::chap::{Algorithm, Refusal, Secret, User};
use crate::negotiate::Misuse;

const PROOF: &str = "TargetName=iqn.2026-11.io.portico:proof|";
pub(super) const SECRET: &str = "open-sesame-1";
const OUTGOING_SECRET: &str = "shut-sesame-22";

static INCOMING: LazyLock<[User; 2]> =
    LazyLock::new(|| [User::new("ann", "another-secret"), User::new("joe", SECRET)]);
static OUTGOING: LazyLock<User> = LazyLock::new(|| User::new("gateway", OUTGOING_SECRET));

pub(in super::super) fn users() -> Users<'static> {
    Users { incoming: &*INCOMING, outgoing: Some(&OUTGOING) }
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// CHAP_R to the challenge that [`NONCE`] makes.
pub(super) fn response(algorithm: Algorithm, secret: &str, challenge_bytes: usize) -> String {
    hex(algorithm.response(NONCE[0], &Secret::new(secret), &NONCE[1..=challenge_bytes]).as_bytes())
}

/// A dialogue in which the challenge has come.
fn challenged(offer: &str) -> (Dialogue, String) {
    let mut dialogue = Dialogue::new();
    let (_, text) =
        dialogue.exchange(security(OPERATIONAL), &format!("{INITIATOR}{PROOF}AuthMethod=CHAP,None|"));
    assert_eq!(text, "TargetPortalGroupTag=1|AuthMethod=CHAP|");
    let (_, text) = dialogue.exchange(security(None), offer);
    (dialogue, text)
}

#[test]
fn one_way_with_md5_as_rfc_7143_appendix_b_tells_it() {
    let mut dialogue = Dialogue::new();
    let (said, text) =
        dialogue.exchange(security(OPERATIONAL), &format!("{INITIATOR}{PROOF}AuthMethod=KRB5,CHAP,None|"));
    assert_eq!(text, "TargetPortalGroupTag=1|AuthMethod=CHAP|");
    assert_eq!(said.next_stage, None, "not before the proof, whatever T says");
    let (said, text) = dialogue.exchange(security(None), "CHAP_A=5|");
    assert_eq!(said.next_stage, None);
    assert_eq!(text, "CHAP_A=5|CHAP_I=42|CHAP_C=0x000102030405060708090a0b0c0d0e0f|");
    assert!(dialogue.login.awaits_proof());
    let proof = format!("CHAP_N=joe|CHAP_R={}|", response(Algorithm::Md5, SECRET, 16));
    let (said, text) = dialogue.exchange(security(OPERATIONAL), &proof);
    assert_eq!((said.next_stage, text.as_str()), (OPERATIONAL, ""));
    assert!(!dialogue.login.awaits_proof());
    let completed = dialogue.finish(operational(FULL_FEATURE), "");
    assert_eq!(completed.authenticated_as.as_deref(), Some("joe"));
    assert!(rendered(&completed.accept(Tsih(1))).1.starts_with("MaxRecvDataSegmentLength="));
}

#[test]
fn both_ways_with_sha_256_and_straight_to_full_feature() {
    let (mut dialogue, text) = challenged("CHAP_A=7,5|");
    assert_eq!(
        text,
        "CHAP_A=7|CHAP_I=42|CHAP_C=0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f|"
    );
    let proof =
        format!("CHAP_N=joe|CHAP_R={}|CHAP_I=9|CHAP_C=0bAQIDBA==|", response(Algorithm::Sha256, SECRET, 32));
    let completed = dialogue.finish(security(FULL_FEATURE), &proof);
    assert_eq!(completed.authenticated_as.as_deref(), Some("joe"));
    let answer = Algorithm::Sha256.response(9, &Secret::new(OUTGOING_SECRET), &[1, 2, 3, 4]);
    let (said, text) = rendered(&completed.accept(Tsih(1)));
    assert_eq!(said.next_stage, FULL_FEATURE);
    assert_eq!(text, format!("CHAP_N=gateway|CHAP_R={}|", hex(answer.as_bytes())));
}

#[test]
fn a_wrong_or_missing_proof_fails_to_authenticate() {
    let wrong = format!("CHAP_N=joe|CHAP_R={}|", response(Algorithm::Md5, "open-sesame-2", 16));
    let stranger = format!("CHAP_N=jim|CHAP_R={}|", response(Algorithm::Md5, SECRET, 16));
    let reflected = format!(
        "CHAP_N=joe|CHAP_R={}|CHAP_I=1|CHAP_C={}|",
        response(Algorithm::Md5, SECRET, 16),
        hex(&NONCE[1..=16])
    );
    for (proof, refusal) in [
        (wrong.as_str(), Refusal::ResponseWrong),
        (&stranger, Refusal::UserUnknown),
        (&reflected, Refusal::Reflected),
        ("CHAP_N=joe|", Refusal::ProofMissing),
    ] {
        let (violation, status) = challenged("CHAP_A=5|").0.fail(security(OPERATIONAL), proof);
        assert_eq!(violation, Violation::Login(LoginViolation::Unproven(refusal)));
        assert_eq!(status, Some(LoginStatus::AUTHENTICATION_FAILURE), "{proof}");
    }
    let (_, status) = challenged("CHAP_A=5|").0.fail(security(OPERATIONAL), "CHAP_N=joe|CHAP_R=x|");
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR), "no binary value at all");
}

#[test]
fn a_target_that_demands_a_proof_takes_no_login_without_one() {
    let names = format!("{INITIATOR}{PROOF}");
    let unproven = |request, text: &str| {
        let (violation, status) = Dialogue::new().fail(request, text);
        assert_eq!(status, Some(LoginStatus::AUTHENTICATION_FAILURE), "{text}");
        violation
    };
    let not_offered = Violation::Login(LoginViolation::Unproven(Refusal::NotOffered));
    assert_eq!(unproven(operational(FULL_FEATURE), &names), not_offered, "the stage is left out");
    assert_eq!(unproven(operational(None), &names), not_offered);
    let mut dialogue = Dialogue::new();
    dialogue.fail(operational(None), &names);
    assert_eq!(dialogue.login.target_name(), Some("iqn.2026-11.io.portico:proof"), "for whoever counts");
    assert_eq!(unproven(security(OPERATIONAL), &names), not_offered, "the method is left out");
    assert_eq!(unproven(security(FULL_FEATURE), &names), not_offered);
    for methods in ["None", "SRP,None", "KRB5", ""] {
        let violation = unproven(security(OPERATIONAL), &format!("{names}AuthMethod={methods}|"));
        assert_eq!(violation, Violation::Login(LoginViolation::KeyMisused(Misuse::NoCommonAuthMethod)));
    }
    let (mut dialogue, _) = challenged("");
    let (_, status) = dialogue.fail(security(None), "CHAP_A=129|");
    assert_eq!(status, Some(LoginStatus::AUTHENTICATION_FAILURE));
}

#[test]
fn an_initiator_that_only_asks_to_go_on_stays_where_it_is() {
    let (mut dialogue, _) = challenged("CHAP_A=5|");
    for _ in 0..3 {
        let (said, text) = dialogue.exchange(security(FULL_FEATURE), "");
        assert_eq!((said.next_stage, text.as_str()), (None, ""));
    }
    let (_, status) = dialogue.fail(operational(FULL_FEATURE), "");
    assert_eq!(status, Some(LoginStatus::INITIATOR_ERROR), "nor can it walk past (§11.12.3)");
}

#[test]
fn where_no_proof_is_demanded_none_is_taken() {
    let mut dialogue = Dialogue::new();
    let (_, text) =
        dialogue.exchange(security(OPERATIONAL), &format!("{INITIATOR}{TARGET}AuthMethod=CHAP,None|"));
    assert_eq!(text, "TargetPortalGroupTag=1|AuthMethod=None|");
    let completed = Dialogue::new().finish(operational(FULL_FEATURE), &format!("{INITIATOR}{TARGET}"));
    assert_eq!(completed.authenticated_as, None);
    let discovery = format!("{INITIATOR}{PROOF}SessionType=Discovery|");
    let completed = Dialogue::new().finish(operational(FULL_FEATURE), &discovery);
    assert_eq!(completed.authenticated_as, None, "discovery has users of its own");
}

#[test]
fn a_target_that_moved_says_where_to_without_a_portal_group_tag() {
    // §11.13.5, §13.8
    for (name, status, address) in [
        ("away", LoginStatus::TARGET_MOVED_TEMPORARILY, "TargetAddress=10.0.0.2:3261|"),
        ("gone", LoginStatus::TARGET_MOVED_PERMANENTLY, "TargetAddress=[fe80::2]|"),
    ] {
        let text = format!("{INITIATOR}TargetName=iqn.2026-11.io.portico:{name}|AuthMethod=CHAP|");
        let Step::Refused(reply) = Dialogue::new().send(security(OPERATIONAL), &text).unwrap() else {
            panic!("{name} is elsewhere")
        };
        let (response, text) = rendered(&reply);
        assert_eq!((response.status, text.as_str()), (status, address));
    }
}
