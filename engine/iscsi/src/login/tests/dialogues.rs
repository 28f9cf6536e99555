//! Logins that succeed, as the initiators of the field conduct them.

use super::*;
use crate::negotiate::Parameters;
use crate::sn::CommandWindow;

#[test]
fn open_iscsi_goes_through_both_stages() {
    let mut dialogue = Dialogue::new();
    let (response, text) = dialogue.exchange(
        security(OPERATIONAL),
        &format!("{INITIATOR}InitiatorAlias=host|{TARGET}SessionType=Normal|AuthMethod=None|"),
    );
    assert_eq!(text, "TargetPortalGroupTag=1|AuthMethod=None|");
    assert_eq!((response.current_stage, response.next_stage), (Stage::SecurityNegotiation, OPERATIONAL));
    assert_eq!(response.stat_sn, StatSn(100));
    assert_eq!(response.expected_cmd_sn, CmdSn(1));

    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
         ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=16776192|FirstBurstLength=262144|\
         MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|\
         MaxRecvDataSegmentLength=262144|",
    );
    assert_eq!(completed.initiator_name, "iqn.1993-08.org.debian:01:abc");
    assert_eq!(completed.initiator_alias.as_deref(), Some("host"));
    assert_eq!(completed.target_name.as_deref(), Some("iqn.2026-11.io.portico:default"));
    assert_eq!((completed.session_type, completed.tsih), (SessionType::Normal, Tsih::NEW));
    assert_eq!((completed.portal_group_tag, completed.queued_commands), (1, 32));

    let (response, text) = rendered(&completed.accept(Tsih(5)));
    assert_eq!(
        text,
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
         ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=1048576|FirstBurstLength=65536|\
         MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|\
         MaxRecvDataSegmentLength=1048576|"
    );
    assert_eq!(response.next_stage, FULL_FEATURE);
    assert_eq!((response.tsih, response.stat_sn), (Tsih(5), StatSn(101)));
    assert_eq!((response.expected_cmd_sn, response.maximum_cmd_sn), (CmdSn(1), CmdSn(32)));
    assert_eq!(response.status, LoginStatus::SUCCESS);
}

#[test]
fn libiscsi_offers_chap_only_where_it_has_a_user_and_digests_with_none() {
    let mut dialogue = Dialogue::new();
    let (_, text) = dialogue.exchange(
        security(OPERATIONAL),
        &format!("{INITIATOR}InitiatorAlias=libiscsi|{TARGET}SessionType=Normal|AuthMethod=None|"),
    );
    assert_eq!(text, "TargetPortalGroupTag=1|AuthMethod=None|");
    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        "HeaderDigest=None,CRC32C|DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
         FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=2|MaxOutstandingR2T=1|\
         ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|MaxRecvDataSegmentLength=262144|\
         DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
    );
    let Parameters { max_burst_length, first_burst_length, header_digest, .. } = completed.parameters;
    assert_eq!((max_burst_length, first_burst_length, header_digest), (262_144, 65_536, false));
}

#[test]
fn windows_begins_with_security_and_sends_its_keys_in_an_order_of_its_own() {
    let mut dialogue = Dialogue::new();
    let (response, text) = dialogue.exchange(
        security(OPERATIONAL),
        "InitiatorName=iqn.1991-05.com.microsoft:win|SessionType=Normal|\
         TargetName=iqn.2026-11.io.portico:named|AuthMethod=None,CHAP|",
    );
    assert_eq!(text, "TargetAlias=the blue one|TargetPortalGroupTag=7|AuthMethod=None|");
    assert_eq!(response.next_stage, OPERATIONAL);
    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        "HeaderDigest=None,CRC32C|DataDigest=None,CRC32C|MaxConnections=8|InitialR2T=No|ImmediateData=Yes|\
         MaxRecvDataSegmentLength=65536|MaxBurstLength=262144|FirstBurstLength=65536|DefaultTime2Wait=0|\
         DefaultTime2Retain=60|MaxOutstandingR2T=16|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|\
         ErrorRecoveryLevel=2|OFMarker=No|IFMarker=No|",
    );
    let (response, text) = rendered(&completed.accept(Tsih(1)));
    assert!(text.contains("MaxConnections=1|") && text.contains("ErrorRecoveryLevel=0|"));
    assert!(text.contains("DefaultTime2Wait=2|") && text.contains("DefaultTime2Retain=20|"));
    assert_eq!(response.maximum_cmd_sn, response.expected_cmd_sn, "this target takes one command at a time");
    assert_eq!(completed.parameters.max_outstanding_r2t, 16);
}

/// §13: what is "LO" is the first connection's to negotiate; what belongs to a connection, each one's.
#[test]
fn a_connection_that_joins_negotiates_what_is_its_own_and_is_told_the_window_of_the_session() {
    let mut dialogue = Dialogue::new();
    let joining = |request: LoginRequest| LoginRequest { tsih: Tsih(7), cid: Cid(1), ..request };
    let (response, _) = dialogue.exchange(
        joining(security(OPERATIONAL)),
        "InitiatorName=iqn.1991-05.com.microsoft:win|SessionType=Normal|\
         TargetName=iqn.2026-11.io.portico:named|AuthMethod=None|",
    );
    assert_eq!(
        CommandWindow::new(response.expected_cmd_sn, response.maximum_cmd_sn),
        None,
        "both are ignored"
    );
    let completed = dialogue.finish(
        joining(operational(FULL_FEATURE)),
        "DataDigest=CRC32C|MaxRecvDataSegmentLength=65536|MaxConnections=8|ErrorRecoveryLevel=2|InitialR2T=No|",
    );
    let window = CommandWindow::new(CmdSn(40), CmdSn(71)).unwrap();
    let (response, text) = rendered(&completed.accept_joining(window));
    assert_eq!((response.expected_cmd_sn, response.maximum_cmd_sn), (CmdSn(40), CmdSn(71)));
    assert_eq!((response.tsih, response.next_stage), (Tsih(7), FULL_FEATURE));
    for key in ["MaxConnections", "ErrorRecoveryLevel", "InitialR2T"] {
        assert!(text.contains(&format!("{key}=Irrelevant|")), "{text}");
    }
    assert!(text.contains("DataDigest=CRC32C|"));
    assert!(completed.parameters.data_digest && completed.parameters.initial_r2t);
}

#[test]
fn esxi_declares_its_lengths_and_keeps_to_its_order() {
    let mut dialogue = Dialogue::new();
    dialogue.exchange(
        security(OPERATIONAL),
        &format!("InitiatorName=iqn.1998-01.com.vmware:esx|{TARGET}InitiatorAlias=esx|SessionType=Normal|AuthMethod=None|"),
    );
    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=0|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
         ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|FirstBurstLength=262144|\
         MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|\
         MaxRecvDataSegmentLength=131072|TaskReporting=RFC3720|",
    );
    assert_eq!(completed.parameters.peer_max_recv_data_segment_length, 131_072);
    assert!(
        rendered(&completed.accept(Tsih(2)))
            .1
            .ends_with("TaskReporting=RFC3720|MaxRecvDataSegmentLength=1048576|")
    );
}

#[test]
fn an_initiator_may_leave_the_security_stage_out() {
    let mut dialogue = Dialogue::new();
    let completed = dialogue
        .finish(operational(FULL_FEATURE), &format!("{INITIATOR}{TARGET}SessionType=Normal|InitialR2T=Yes|"));
    let (response, text) = rendered(&completed.accept(Tsih(3)));
    assert_eq!(text, "TargetPortalGroupTag=1|InitialR2T=Yes|MaxRecvDataSegmentLength=1048576|");
    assert_eq!((response.current_stage, response.stat_sn), (Stage::LoginOperationalNegotiation, StatSn(100)));
}

#[test]
fn an_initiator_may_leave_the_operational_stage_out_and_then_the_defaults_hold_both_ways() {
    let mut dialogue = Dialogue::new();
    let completed = dialogue.finish(security(FULL_FEATURE), &format!("{INITIATOR}{TARGET}AuthMethod=None|"));
    assert_eq!(completed.parameters.own_max_recv_data_segment_length, 8192, "it was never told ours");
    assert_eq!(completed.parameters.peer_max_recv_data_segment_length, 8192);
    assert!(completed.parameters.initial_r2t);
}

#[test]
fn a_discovery_session_needs_no_target_and_is_told_no_portal_group() {
    let mut dialogue = Dialogue::new();
    let (_, text) = dialogue
        .exchange(security(OPERATIONAL), &format!("{INITIATOR}SessionType=Discovery|AuthMethod=None|"));
    assert_eq!(text, "AuthMethod=None|");
    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
         ErrorRecoveryLevel=0|MaxRecvDataSegmentLength=32768|",
    );
    assert_eq!(completed.session_type, SessionType::Discovery);
    assert_eq!(completed.target_name, None);
    assert_eq!(completed.queued_commands, 4);
}

#[test]
fn libiscsi_proposes_session_keys_in_discovery_and_they_are_irrelevant() {
    let mut dialogue = Dialogue::new();
    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        &format!(
            "{INITIATOR}SessionType=Discovery|InitialR2T=No|MaxBurstLength=262144|ErrorRecoveryLevel=0|"
        ),
    );
    let (_, text) = rendered(&completed.accept(Tsih(4)));
    assert_eq!(
        text,
        "InitialR2T=Irrelevant|MaxBurstLength=Irrelevant|ErrorRecoveryLevel=0|MaxRecvDataSegmentLength=1048576|"
    );
}

#[test]
fn keys_may_come_in_any_order_even_before_the_names() {
    let mut dialogue = Dialogue::new();
    let completed = dialogue.finish(
        operational(FULL_FEATURE),
        &format!("MaxBurstLength=65536|FirstBurstLength=4096|SessionType=Normal|{TARGET}{INITIATOR}"),
    );
    assert_eq!(completed.parameters.max_burst_length, 65_536);
    assert_eq!(completed.parameters.first_burst_length, 4096);
}

#[test]
fn an_initiator_that_is_not_ready_stays_in_its_stage() {
    let mut dialogue = Dialogue::new();
    let (response, text) = dialogue.exchange(operational(None), &format!("{INITIATOR}{TARGET}"));
    assert_eq!(
        (response.next_stage, text.as_str()),
        (None, "TargetPortalGroupTag=1|MaxRecvDataSegmentLength=1048576|")
    );
    let (response, text) = dialogue.exchange(operational(None), "ImmediateData=No|");
    assert_eq!((response.next_stage, text.as_str()), (None, "ImmediateData=No|"));
    let completed = dialogue.finish(operational(FULL_FEATURE), "");
    assert_eq!(rendered(&completed.accept(Tsih(6))).1, "");
    assert!(!completed.parameters.immediate_data);
    assert_eq!(completed.stat_sn, StatSn(102));
}

#[test]
fn a_text_cut_in_the_middle_of_a_key_is_joined() {
    let mut dialogue = Dialogue::new();
    let cut = LoginRequest { continues: true, ..operational(None) };
    let (response, text) = dialogue.exchange(cut, &format!("{INITIATOR}{TARGET}Immed"));
    assert_eq!((response.next_stage, text.as_str()), (None, ""), "nothing is answered before the step ends");
    let (response, text) = dialogue.exchange(cut, "");
    assert_eq!((response.continues, text.as_str()), (false, ""), "an empty request with C is a normal case");
    let completed = dialogue.finish(operational(FULL_FEATURE), "iateData=No|");
    assert!(!completed.parameters.immediate_data);
}

#[test]
fn an_answer_longer_than_a_segment_goes_out_in_pieces_and_t_waits_for_its_end() {
    let mut dialogue = Dialogue::new();
    let unknown: String = (0..80).map(|n| format!("X-com.example.k{n:02}=1|")).collect();
    let (response, first) = dialogue.exchange(
        operational(FULL_FEATURE),
        &format!("{INITIATOR}{TARGET}MaxRecvDataSegmentLength=512|{unknown}"),
    );
    assert!(response.continues);
    assert_eq!((response.next_stage, first.len()), (None, 512), "the piece fits what was just declared");

    let mut joined = first;
    loop {
        match dialogue.send(operational(FULL_FEATURE), "").unwrap() {
            Step::More(reply) => {
                let (response, text) = rendered(&reply);
                assert!(response.continues && response.next_stage.is_none());
                joined += &text;
            }
            Step::Complete(completed) => {
                joined += &rendered(&completed.accept(Tsih(8))).1;
                break;
            }
            Step::Refused(reply) => panic!("{reply:?}"),
        }
    }
    assert!(joined.starts_with("TargetPortalGroupTag=1|X-com.example.k00=NotUnderstood|"));
    assert!(joined.ends_with("X-com.example.k79=NotUnderstood|MaxRecvDataSegmentLength=1048576|"));
}

#[test]
fn a_joining_connection_names_its_session() {
    let mut dialogue = Dialogue::new();
    let join = LoginRequest { tsih: Tsih(9), cid: Cid(1), ..operational(FULL_FEATURE) };
    let completed = dialogue.finish(join, &format!("{INITIATOR}{TARGET}"));
    assert_eq!((completed.tsih, completed.cid), (Tsih(9), Cid(1)));
    let (response, text) = rendered(&completed.refuse(LoginStatus::SESSION_DOES_NOT_EXIST));
    assert_eq!((response.status, text.as_str()), (LoginStatus::SESSION_DOES_NOT_EXIST, ""));
    assert_eq!((response.tsih, response.next_stage), (Tsih(9), None));
}

#[test]
fn a_completed_login_may_cross_threads() {
    fn crosses<T: Send + 'static>(_: &T) {}
    let mut dialogue = Dialogue::new();
    crosses(&dialogue.finish(operational(FULL_FEATURE), &format!("{INITIATOR}{TARGET}")));
}

/// §13.9: the tag goes out where a target is named, in whichever type of session; of one that this initiator may not know, no
/// word is said.
#[test]
fn a_discovery_session_that_names_a_target_hears_the_tag_of_its_portal_group() {
    for (target, told) in [("named", "TargetPortalGroupTag=7|"), ("private", ""), ("nowhere", "")] {
        let (_, text) = Dialogue::new().exchange(
            security(OPERATIONAL),
            &format!(
                "{INITIATOR}SessionType=Discovery|TargetName=iqn.2026-11.io.portico:{target}|AuthMethod=None|"
            ),
        );
        assert_eq!(text, format!("{told}AuthMethod=None|"), "{target}");
    }
}
