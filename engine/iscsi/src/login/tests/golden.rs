//! Logins as initiators in the field send them: their stages, their keys, their order. Each ends in the full feature phase,
//! with nothing refused and with the parameters that the initiator expects.
//!
//! Composed, not captured, from what each documents:
//! - Linux: open-iscsi 2.1, `usr/login.c` (the order of keys) and the defaults of `etc/iscsid.conf`.
//! - Windows: the parameters of Microsoft's "iSCSI Software Initiator Users Guide", appendix on registry values, in the order
//!   in which its published traces have them.
//! - ESXi: "vSphere Storage", chapter on advanced parameters of the software adapter, whose initiator is of open-iscsi's kin.
//! - libiscsi 1.19: `lib/login.c`.

use super::*;

/// What one initiator says.
struct Initiator {
    name: &'static str,
    isid: [u8; 6],
    /// Its first words, in the security stage.
    security: &'static str,
    /// In the operational stage.
    operational: &'static str,
    /// Its MaxRecvDataSegmentLength, MaxBurstLength, FirstBurstLength and MaxOutstandingR2T.
    lengths: (u32, u32, u32, u16),
    /// What it takes for the result where the target has no preference: HeaderDigest and DataDigest.
    digests: (bool, bool),
}

const INITIATORS: [Initiator; 4] = [
    Initiator {
        name: "Linux",
        isid: [0x00, 0x02, 0x3d, 0, 0, 0],
        security: "InitiatorName=iqn.1993-08.org.debian:01:abc|InitiatorAlias=host|TargetName=iqn.2026-11.io.portico:default|\
                   SessionType=Normal|AuthMethod=None|",
        operational: "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
                      ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=16776192|\
                      FirstBurstLength=262144|MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|\
                      DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=262144|",
        lengths: (262_144, 16_776_192, 262_144, 1),
        digests: (false, false),
    },
    Initiator {
        name: "Windows",
        isid: [0x40, 0x00, 0x01, 0x37, 0, 0],
        security: "InitiatorName=iqn.1991-05.com.microsoft:host|SessionType=Normal|\
                   TargetName=iqn.2026-11.io.portico:default|AuthMethod=None|",
        operational: "HeaderDigest=None|DataDigest=None|ErrorRecoveryLevel=2|InitialR2T=No|ImmediateData=Yes|\
                      MaxRecvDataSegmentLength=65536|MaxBurstLength=262144|FirstBurstLength=65536|MaxConnections=32|\
                      DataPDUInOrder=Yes|DataSequenceInOrder=Yes|DefaultTime2Wait=0|DefaultTime2Retain=60|\
                      MaxOutstandingR2T=16|",
        lengths: (65_536, 262_144, 65_536, 16),
        digests: (false, false),
    },
    Initiator {
        name: "ESXi",
        isid: [0x00, 0x02, 0x3d, 0, 0, 1],
        security: "InitiatorName=iqn.1998-01.com.vmware:esx-1234|InitiatorAlias=esx|\
                   TargetName=iqn.2026-11.io.portico:default|SessionType=Normal|AuthMethod=CHAP,None|",
        operational: "HeaderDigest=None,CRC32C|DataDigest=None,CRC32C|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|\
                      OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
                      FirstBurstLength=262144|MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|\
                      DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=131072|",
        lengths: (131_072, 262_144, 262_144, 1),
        digests: (false, false),
    },
    Initiator {
        name: "libiscsi",
        isid: [0x80, 0x12, 0x34, 0x56, 0, 0],
        security: "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq|InitiatorAlias=iscsi-inq|\
                   TargetName=iqn.2026-11.io.portico:default|SessionType=Normal|AuthMethod=None|",
        operational: "HeaderDigest=CRC32C,None|DataDigest=CRC32C,None|InitialR2T=No|ImmediateData=Yes|\
                      MaxBurstLength=262144|FirstBurstLength=262144|MaxRecvDataSegmentLength=262144|\
                      DataPDUInOrder=Yes|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
                      MaxConnections=1|MaxOutstandingR2T=1|ErrorRecoveryLevel=0|DataSequenceInOrder=Yes|",
        lengths: (262_144, 262_144, 262_144, 1),
        digests: (true, true),
    },
];

#[test]
fn initiators_in_the_field_reach_the_full_feature_phase_with_what_they_expect() {
    for initiator in &INITIATORS {
        let name = initiator.name;
        let mut dialogue = Dialogue::new();
        let first = LoginRequest { isid: Isid(initiator.isid), ..security(OPERATIONAL) };
        let (response, said) = dialogue.exchange(first, initiator.security);
        assert_eq!(response.next_stage, OPERATIONAL, "{name}: the security stage is over at once");
        assert_eq!(said, "TargetPortalGroupTag=1|AuthMethod=None|", "{name}");
        let last = LoginRequest { isid: Isid(initiator.isid), ..operational(FULL_FEATURE) };
        let completed = dialogue.finish(last, initiator.operational);
        let (response, said) = rendered(&completed.accept(Tsih(7)));
        assert_eq!((response.next_stage, response.tsih), (FULL_FEATURE, Tsih(7)), "{name}");
        assert!(!said.contains("Reject") && !said.contains("NotUnderstood"), "{name}: {said}");
        agrees(initiator, &completed);
        // Every key that is negotiated is answered, once; markers are obsolete and answered No or Irrelevant (§13.25).
        for key in
            initiator.operational.split('|').filter_map(|pair| pair.split_once('=')).map(|(key, _)| key)
        {
            let answers = said.split('|').filter(|pair| pair.split('=').next() == Some(key)).count();
            assert_eq!(answers, 1, "{name}: {key} in {said}");
        }
    }
}

fn agrees(initiator: &Initiator, completed: &Completed) {
    let (name, own) = (initiator.name, TargetKeys::default());
    let (segment, max_burst, first_burst, r2ts) = initiator.lengths;
    let parameters = &completed.parameters;
    assert_eq!(parameters.peer_max_recv_data_segment_length, segment, "{name}");
    assert_eq!(parameters.max_burst_length, max_burst.min(own.max_burst_length), "{name}");
    assert_eq!(parameters.first_burst_length, first_burst.min(own.first_burst_length), "{name}");
    assert_eq!(parameters.max_outstanding_r2t, r2ts.min(own.max_outstanding_r2t), "{name}");
    assert_eq!(
        (parameters.initial_r2t, parameters.immediate_data),
        (own.initial_r2t, own.immediate_data),
        "{name}"
    );
    assert_eq!((parameters.header_digest, parameters.data_digest), initiator.digests, "{name}");
    assert!(parameters.data_pdu_in_order && parameters.data_sequence_in_order, "{name}");
}

#[test]
fn discovery_as_they_do_it_asks_for_no_target() {
    for (name, first) in [
        (
            "Linux",
            "InitiatorName=iqn.1993-08.org.debian:01:abc|InitiatorAlias=host|SessionType=Discovery|AuthMethod=None|",
        ),
        ("Windows", "InitiatorName=iqn.1991-05.com.microsoft:host|SessionType=Discovery|AuthMethod=None|"),
    ] {
        let mut dialogue = Dialogue::new();
        let (_, said) = dialogue.exchange(security(OPERATIONAL), first);
        assert_eq!(said, "AuthMethod=None|", "{name}: no portal group without a target (§13.9)");
        let keys = "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|\
                    ErrorRecoveryLevel=0|MaxRecvDataSegmentLength=32768|";
        let completed = dialogue.finish(operational(FULL_FEATURE), keys);
        assert_eq!(
            (completed.session_type, completed.target_name.as_deref()),
            (SessionType::Discovery, None)
        );
        assert_eq!(completed.parameters.peer_max_recv_data_segment_length, 32_768);
    }
}
