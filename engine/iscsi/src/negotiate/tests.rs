//! What an initiator proposes, and what it gets back.

use super::*;

fn normal() -> Negotiator {
    Negotiator::new(&TargetKeys::default(), false)
}

/// Proposes in the operational stage and renders the answer as it goes over the wire.
fn answer(negotiator: &mut Negotiator, key: &str, value: &str) -> String {
    match negotiator.receive(key, value.as_bytes(), Phase::Operational).expect("the key may be sent here") {
        Answer::Declared(..) => String::new(),
        Answer::Value(key, Value::Text(text)) => format!("{}={text}", key.name()),
        Answer::Value(key, Value::Number(number)) => format!("{}={number}", key.name()),
        Answer::Answered => String::new(),
        Answer::NotUnderstood => format!("{key}=NotUnderstood"),
    }
}

#[test]
fn what_open_iscsi_proposes_is_answered_with_the_result_functions() {
    let mut login = normal();
    for (key, value, expected) in [
        ("HeaderDigest", "None", "HeaderDigest=None"),
        ("DataDigest", "None", "DataDigest=None"),
        ("DefaultTime2Wait", "2", "DefaultTime2Wait=2"),
        ("DefaultTime2Retain", "0", "DefaultTime2Retain=0"),
        ("IFMarker", "No", "IFMarker=No"),
        ("OFMarker", "No", "OFMarker=No"),
        ("ErrorRecoveryLevel", "0", "ErrorRecoveryLevel=0"),
        ("InitialR2T", "No", "InitialR2T=No"),
        ("ImmediateData", "Yes", "ImmediateData=Yes"),
        ("MaxBurstLength", "16776192", "MaxBurstLength=1048576"),
        ("FirstBurstLength", "262144", "FirstBurstLength=65536"),
        ("MaxOutstandingR2T", "1", "MaxOutstandingR2T=1"),
        ("MaxConnections", "1", "MaxConnections=1"),
        ("DataPDUInOrder", "Yes", "DataPDUInOrder=Yes"),
        ("DataSequenceInOrder", "Yes", "DataSequenceInOrder=Yes"),
        ("MaxRecvDataSegmentLength", "262144", ""),
    ] {
        assert_eq!(answer(&mut login, key, value), expected);
    }
    let parameters = login.parameters();
    assert!(!parameters.initial_r2t);
    assert!(parameters.immediate_data);
    assert_eq!(parameters.peer_max_recv_data_segment_length, 262_144);
    assert_eq!(parameters.own_max_recv_data_segment_length, 1 << 20);
    assert_eq!(parameters.first_burst_length, 65_536);
    assert_eq!(parameters.default_time2retain, 0);
}

#[test]
fn a_silent_initiator_gets_the_standards_defaults() {
    let parameters = normal().parameters();
    assert!(parameters.initial_r2t && parameters.immediate_data);
    assert!(parameters.data_pdu_in_order && parameters.data_sequence_in_order);
    assert_eq!(parameters.peer_max_recv_data_segment_length, 8192);
    assert_eq!(parameters.max_burst_length, 262_144);
    assert_eq!(parameters.first_burst_length, 65_536);
    assert_eq!(parameters.max_outstanding_r2t, 1);
    assert_eq!((parameters.default_time2wait, parameters.default_time2retain), (2, 20));
    assert_eq!((parameters.max_connections, parameters.error_recovery_level), (1, 0));
    assert_eq!((parameters.task_reporting, parameters.protocol_level), (TaskReporting::Rfc3720, 1));
    assert!(!parameters.header_digest && !parameters.data_digest);
}

#[test]
fn booleans_are_joined_by_and_or_as_the_key_asks() {
    let strict = TargetKeys { initial_r2t: true, immediate_data: false, ..TargetKeys::default() };
    for (key, theirs, ours_is_strict, result) in [
        ("InitialR2T", "No", false, "No"),
        ("InitialR2T", "Yes", false, "Yes"),
        ("InitialR2T", "No", true, "Yes"),
        ("ImmediateData", "Yes", false, "Yes"),
        ("ImmediateData", "No", false, "No"),
        ("ImmediateData", "Yes", true, "No"),
        ("DataPDUInOrder", "No", false, "Yes"),
        ("DataSequenceInOrder", "No", false, "Yes"),
    ] {
        let keys = if ours_is_strict { strict } else { TargetKeys::default() };
        let mut login = Negotiator::new(&keys, false);
        assert_eq!(answer(&mut login, key, theirs), format!("{key}={result}"));
    }
}

/// RFC 7143 §13.24: the lower of both sides' levels, 1 where nothing is said.
#[test]
fn the_protocol_level_is_the_lower_of_both() {
    assert!(!normal().parameters().has_features_update());
    for (theirs, level) in [(0, 0), (1, 1), (2, 2), (31, 2)] {
        let mut login = normal();
        let answered = answer(&mut login, "iSCSIProtocolLevel", &theirs.to_string());
        assert_eq!(answered, format!("iSCSIProtocolLevel={level}"));
        assert_eq!(login.parameters().protocol_level, level);
        assert_eq!(login.parameters().has_features_update(), level == 2);
    }
}

#[test]
fn what_we_do_not_have_is_negotiated_away() {
    let mut login = normal();
    assert_eq!(answer(&mut login, "MaxConnections", "8"), "MaxConnections=1");
    assert_eq!(answer(&mut login, "ErrorRecoveryLevel", "2"), "ErrorRecoveryLevel=0");
    assert_eq!(
        answer(&mut login, "TaskReporting", "FastAbort,ResponseFence,RFC3720"),
        "TaskReporting=ResponseFence"
    );
    assert_eq!(
        login.receive("AuthMethod", b"CHAP,None", Phase::Security),
        Ok(Answer::Value(Key::AuthMethod, Value::Text("None")))
    );
}

/// §13.19: with DataSequenceInOrder=Yes, more than one R2T at a time goes with recovery level 0 alone.
#[test]
fn recovery_and_several_r2ts_at_a_time_exclude_each_other_in_whichever_order_they_come() {
    let keys = TargetKeys { error_recovery_level: 1, ..TargetKeys::default() };
    let level = ("ErrorRecoveryLevel", "2");
    let r2ts = ("MaxOutstandingR2T", "16");
    for step in [[level, r2ts], [r2ts, level]] {
        let mut login = Negotiator::new(&keys, false);
        step.iter().for_each(|(key, value)| login.foresee(key, value.as_bytes()));
        step.iter().for_each(|(key, value)| drop(answer(&mut login, key, value)));
        let parameters = login.parameters();
        assert_eq!((parameters.error_recovery_level, parameters.max_outstanding_r2t), (1, 1), "{step:?}");
    }
    let mut login = Negotiator::new(&keys, false);
    assert_eq!(answer(&mut login, r2ts.0, r2ts.1), "MaxOutstandingR2T=16", "in a step of its own");
    assert_eq!(answer(&mut login, level.0, level.1), "ErrorRecoveryLevel=0");
    let mut login = Negotiator::new(&keys, false);
    login.foresee("ErrorRecoveryLevel", b"0");
    assert_eq!(answer(&mut login, r2ts.0, r2ts.1), "MaxOutstandingR2T=16");
}

/// §7.4
#[test]
fn a_discovery_session_has_nothing_to_recover() {
    let keys = TargetKeys { error_recovery_level: 1, ..TargetKeys::default() };
    let mut login = Negotiator::new(&keys, true);
    assert_eq!(answer(&mut login, "ErrorRecoveryLevel", "2"), "ErrorRecoveryLevel=0");
}

#[test]
fn the_first_digest_of_the_initiators_list_that_the_target_takes_is_chosen() {
    for (choice, offer, result, has) in [
        (DigestChoice::Either, "CRC32C,None", "CRC32C", true),
        (DigestChoice::Either, "None,CRC32C", "None", false),
        (DigestChoice::Either, "X-sha,CRC32C", "CRC32C", true),
        (DigestChoice::Crc32c, "None,CRC32C", "CRC32C", true),
        (DigestChoice::Crc32c, "None", "Reject", false),
        (DigestChoice::None, "CRC32C,None", "None", false),
        (DigestChoice::None, "CRC32C", "Reject", false),
    ] {
        let keys = TargetKeys { header_digest: choice, data_digest: choice, ..TargetKeys::default() };
        let mut login = Negotiator::new(&keys, false);
        assert_eq!(answer(&mut login, "HeaderDigest", offer), format!("HeaderDigest={result}"));
        assert_eq!(login.parameters().digests(), Digests { header: has, data: false });
        assert_eq!(answer(&mut login, "DataDigest", offer), format!("DataDigest={result}"));
        assert_eq!(login.parameters().digests(), Digests { header: has, data: has });
    }
}

#[test]
fn an_initiator_that_insists_on_chap_finds_no_common_method() {
    assert_eq!(normal().receive("AuthMethod", b"CHAP", Phase::Security), Err(Misuse::NoCommonAuthMethod));
    assert_eq!(normal().receive("AuthMethod", b"", Phase::Security), Err(Misuse::NoCommonAuthMethod));
}

#[test]
fn numbers_may_be_hexadecimal_and_those_out_of_range_are_rejected() {
    let mut login = normal();
    assert_eq!(answer(&mut login, "MaxBurstLength", "0x4000"), "MaxBurstLength=16384");
    for (key, value) in [
        ("MaxConnections", "0"),
        ("MaxOutstandingR2T", "65536"),
        ("DefaultTime2Wait", "3601"),
        ("ErrorRecoveryLevel", "3"),
        ("MaxRecvDataSegmentLength", "511"),
        ("FirstBurstLength", "16777216"),
        ("DefaultTime2Retain", "-1"),
        ("ImmediateData", "yes"),
        ("InitialR2T", ""),
    ] {
        assert_eq!(answer(&mut login, key, value), format!("{key}=Reject"));
    }
    let parameters = login.parameters();
    assert_eq!(
        parameters.peer_max_recv_data_segment_length, 8192,
        "the rejected declaration left the default"
    );
    assert_eq!(parameters.default_time2retain, 20);
}

#[test]
fn a_first_burst_never_exceeds_the_burst() {
    let mut login = normal();
    answer(&mut login, "MaxBurstLength", "4096");
    assert_eq!(login.parameters().first_burst_length, 4096, "the default of 65536 does not fit any more");

    let mut login = normal();
    answer(&mut login, "MaxBurstLength", "4096");
    assert_eq!(answer(&mut login, "FirstBurstLength", "65536"), "FirstBurstLength=4096");
}

#[test]
fn in_a_discovery_session_the_keys_of_normal_sessions_are_irrelevant() {
    let mut login = Negotiator::new(&TargetKeys::default(), true);
    for key in ["MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "TaskReporting"] {
        assert_eq!(answer(&mut login, key, "1"), format!("{key}=Irrelevant"));
    }
    assert_eq!(answer(&mut login, "DefaultTime2Wait", "5"), "DefaultTime2Wait=5");
    assert_eq!(answer(&mut login, "HeaderDigest", "None"), "HeaderDigest=None");
}

#[test]
fn obsolete_marker_keys_are_never_not_understood() {
    let mut login = normal();
    assert_eq!(answer(&mut login, "OFMarker", "Yes"), "OFMarker=No");
    assert_eq!(answer(&mut login, "OFMarkInt", "2048~8192"), "OFMarkInt=Reject");
    assert_eq!(answer(&mut login, "IFMarkInt", "2048~8192"), "IFMarkInt=Reject");
}

#[test]
fn unknown_and_private_keys_are_not_understood() {
    let mut login = normal();
    for key in ["X-com.example.turbo", "X#NodeArchitecture", "headerdigest", ""] {
        assert_eq!(answer(&mut login, key, "1"), format!("{key}=NotUnderstood"));
    }
}

#[test]
fn a_key_sent_twice_ends_the_login() {
    let mut login = normal();
    answer(&mut login, "ImmediateData", "Yes");
    assert_eq!(
        login.receive("ImmediateData", b"Yes", Phase::Operational),
        Err(Misuse::Repeated(Key::ImmediateData))
    );
}

#[test]
fn a_key_outside_its_phase_ends_the_login() {
    for (key, phase) in [
        ("HeaderDigest", Phase::Security),
        ("MaxRecvDataSegmentLength", Phase::Security),
        ("AuthMethod", Phase::Operational),
        ("SendTargets", Phase::Operational),
        ("ImmediateData", Phase::FullFeature),
        ("InitiatorName", Phase::FullFeature),
    ] {
        let misuse = normal().receive(key, b"None", phase).unwrap_err();
        assert_eq!(misuse, Misuse::WrongPhase(Key::named(key).unwrap()), "{key} in {phase:?}");
    }
}

#[test]
fn a_key_that_only_targets_send_ends_the_login() {
    for key in ["TargetAlias", "TargetAddress", "TargetPortalGroupTag"] {
        let misuse = normal().receive(key, b"1", Phase::Operational).unwrap_err();
        assert_eq!(misuse, Misuse::WrongSender(Key::named(key).unwrap()));
    }
}

#[test]
fn in_the_full_feature_phase_a_new_segment_length_may_be_declared() {
    let mut text = normal();
    let declared = text.receive("MaxRecvDataSegmentLength", b"65536", Phase::FullFeature);
    assert_eq!(declared, Ok(Answer::Declared(Key::MaxRecvDataSegmentLength, b"65536")));
    assert_eq!(text.peer_max_recv_data_segment_length(), 65_536);
}

#[test]
fn every_default_in_the_table_lies_in_its_own_range() {
    for rule in &RULES {
        if let Form::Least(min, max) | Form::Greatest(min, max) | Form::DeclaredNumber(min, max) = rule.form {
            assert!((min..=max).contains(&rule.default), "{}", rule.name);
        }
    }
}

#[test]
fn configuration_out_of_range_is_seen_before_anybody_logs_in() {
    assert!(TargetKeys::default().are_admissible());
    for bad in [
        TargetKeys { max_recv_data_segment_length: 511, ..TargetKeys::default() },
        TargetKeys { max_burst_length: 1 << 24, ..TargetKeys::default() },
        TargetKeys { max_outstanding_r2t: 0, ..TargetKeys::default() },
        TargetKeys { default_time2wait: 3601, ..TargetKeys::default() },
        TargetKeys { first_burst_length: 65_536, max_burst_length: 32_768, ..TargetKeys::default() },
    ] {
        assert!(!bad.are_admissible(), "{bad:?}");
    }
}
