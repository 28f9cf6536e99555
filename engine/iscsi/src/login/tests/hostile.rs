//! Initiators that keep to no rule: no panic, an end within the bounds, and every answer well-formed.

use super::*;
use proptest::prelude::*;

fn any_stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::SecurityNegotiation), Just(Stage::LoginOperationalNegotiation)]
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let pair = prop_oneof![
        Just(INITIATOR.to_owned()),
        Just(TARGET.to_owned()),
        Just("SessionType=Discovery|".to_owned()),
        Just("AuthMethod=None|".to_owned()),
        Just("MaxRecvDataSegmentLength=512|".to_owned()),
        "(HeaderDigest|MaxBurstLength|ImmediateData|ErrorRecoveryLevel|X-a)=[A-Za-z0-9,]{0,8}\\|?",
        "[ -~]{0,40}",
    ];
    let pairs = proptest::collection::vec(pair, 0..8)
        .prop_map(|pairs| pairs.concat().replace('|', "\0").into_bytes());
    prop_oneof![4 => pairs, 1 => proptest::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_login_ends_within_its_bounds(
        requests in proptest::collection::vec(
            (any_stage(), 0_u8..4, any::<bool>(), any_text()), 1..LOGIN_REQUESTS_MAX as usize + 8,
        ),
    ) {
        let mut dialogue = Dialogue::new();
        let mut stat_sn = StatSn(100);
        for (current_stage, next, continues, text) in requests {
            let request = LoginRequest {
                current_stage,
                next_stage: [None, OPERATIONAL, FULL_FEATURE, FULL_FEATURE][usize::from(next)],
                continues,
                data_segment_length: length_of(&text),
                ..request()
            };
            let mut bhs = [0; BHS_BYTES];
            request.emit(&mut bhs);
            let step = LoginRequest::parse(&bhs).and_then(|request| dialogue.login.receive(&request, &text, &Lobby));
            let reply = match step {
                Ok(Step::More(reply)) => {
                    prop_assert!(reply.text.len() <= LOGIN_DATA_SEGMENT_BYTES_MAX as usize);
                    prop_assert!(!(reply.response.continues && reply.response.next_stage.is_some()));
                    prop_assert!(reply.response.next_stage.is_none_or(|stage| Some(stage) == request.next_stage));
                    reply
                }
                Ok(Step::Refused(reply)) => {
                    rendered(&reply);
                    return Ok(());
                }
                Ok(Step::Complete(completed)) => {
                    let reply = completed.accept(Tsih(1));
                    rendered(&completed.refuse(LoginStatus::TARGET_ERROR));
                    prop_assert_eq!(reply.response.stat_sn, stat_sn);
                    rendered(&reply);
                    return Ok(());
                }
                Err(violation) => {
                    if let Some(reply) = dialogue.login.refusal(&bhs, &violation) {
                        prop_assert!(!reply.response.status.is_success());
                        prop_assert!(reply.text.is_empty());
                    }
                    return Ok(());
                }
            };
            prop_assert_eq!(reply.response.stat_sn, stat_sn);
            stat_sn = stat_sn.next();
            rendered(&reply);
        }
        prop_assert!(dialogue.login.requests <= LOGIN_REQUESTS_MAX);
    }
}
