//! Logins as initiators in the field send them: their stages, their keys, their order. Each ends in the full feature phase,
//! with nothing refused and with the parameters that the initiator expects.
//!
//! Where each comes from:
//! - Linux: captured, read by tshark: open-iscsi 2.1.8 of Debian 12 with its `iscsid.conf`, discovery and login. But for the
//!   names. Without CHAP it begins with the operational stage.
//! - libiscsi 1.19: captured, read by tshark: `iscsi-inq` without CHAP and with it, `iscsi-ls`. In QEMU: the same library's
//!   words (`lib/login.c`), with QEMU's name and another list of digests.
//! - Windows: the security stage, the initiator's ISID and the keys of discovery are those that
//!   others have captured and published (the login probe of Dingtaiqi's NVMe-oF bridge, 2026). The keys of a session for I/O
//!   are composed: values from Microsoft's "iSCSI Software Initiator Users Guide", appendix on registry values.
//! - ESXi: composed. Values are the defaults that `esxcli iscsi adapter param get` shows ("vSphere Storage", advanced parameters
//!   of iSCSI adapters; digests "prohibited" are offered as None alone), the order is that of open-iscsi, whose kin it is. Once
//!   more with what that chapter calls digests "preferred".

use super::*;
use crate::chap::Algorithm;

/// What one initiator says.
struct Initiator {
    name: &'static str,
    isid: [u8; 6],
    /// Its first words, in the security stage; none where it begins with the next one.
    security: &'static str,
    /// In the operational stage.
    operational: &'static str,
    /// Its MaxRecvDataSegmentLength, MaxBurstLength, FirstBurstLength and MaxOutstandingR2T.
    lengths: (u32, u32, u32, u16),
    /// What it takes for the result where the target has no preference: HeaderDigest and DataDigest.
    digests: (bool, bool),
}

const INITIATORS: [Initiator; 6] = [
    Initiator {
        name: "Linux",
        isid: [0x00, 0x02, 0x3d, 0, 0, 1],
        security: "",
        operational: "InitiatorName=iqn.1993-08.org.debian:01:abc|InitiatorAlias=host|TargetName=iqn.2026-11.io.portico:default|\
                      SessionType=Normal|HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|\
                      IFMarker=No|OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=16776192|\
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
        operational: "HeaderDigest=None,CRC32C|DataDigest=None,CRC32C|ErrorRecoveryLevel=2|InitialR2T=No|ImmediateData=Yes|\
                      MaxRecvDataSegmentLength=65536|MaxBurstLength=262144|FirstBurstLength=65536|MaxConnections=32|\
                      DataPDUInOrder=Yes|DataSequenceInOrder=Yes|DefaultTime2Wait=0|DefaultTime2Retain=60|\
                      MaxOutstandingR2T=16|",
        lengths: (65_536, 262_144, 65_536, 16),
        digests: (false, false),
    },
    Initiator {
        name: "ESXi",
        isid: [0x00, 0x02, 0x3d, 0, 0, 1],
        security: ESXI,
        operational: "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|\
                      OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
                      FirstBurstLength=262144|MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|\
                      DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=131072|",
        lengths: (131_072, 262_144, 262_144, 1),
        digests: (false, false),
    },
    Initiator {
        name: "ESXi that prefers digests",
        isid: [0x00, 0x02, 0x3d, 0, 0, 1],
        security: ESXI,
        operational: "HeaderDigest=CRC32C,None|DataDigest=CRC32C,None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|\
                      OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
                      FirstBurstLength=262144|MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|\
                      DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=131072|",
        lengths: (131_072, 262_144, 262_144, 1),
        digests: (true, true),
    },
    Initiator {
        name: "libiscsi's tools",
        isid: [0x80, 0x12, 0x34, 0x56, 0, 0],
        security: "",
        operational: "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq|\
                      TargetName=iqn.2026-11.io.portico:default|SessionType=Normal|HeaderDigest=None,CRC32C|DataDigest=None|\
                      InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|FirstBurstLength=262144|DefaultTime2Wait=2|\
                      DefaultTime2Retain=0|MaxOutstandingR2T=1|ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|\
                      MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
        lengths: (262_144, 262_144, 262_144, 1),
        digests: (false, false),
    },
    Initiator {
        name: "libiscsi in QEMU, header-digest=crc32c-none",
        isid: [0x80, 0x12, 0x34, 0x56, 0, 1],
        security: "",
        operational: "InitiatorName=iqn.2008-11.org.linux-kvm|TargetName=iqn.2026-11.io.portico:default|SessionType=Normal|\
                      HeaderDigest=CRC32C,None|DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
                      FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|MaxOutstandingR2T=1|\
                      ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|MaxRecvDataSegmentLength=262144|\
                      DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
        lengths: (262_144, 262_144, 262_144, 1),
        digests: (true, false),
    },
];

const ESXI: &str = "InitiatorName=iqn.1998-01.com.vmware:esx-1234|InitiatorAlias=esx|\
                    TargetName=iqn.2026-11.io.portico:default|SessionType=Normal|AuthMethod=None|";

#[test]
fn initiators_in_the_field_reach_the_full_feature_phase_with_what_they_expect() {
    for initiator in &INITIATORS {
        let name = initiator.name;
        let mut dialogue = Dialogue::new();
        if !initiator.security.is_empty() {
            let first = LoginRequest { isid: Isid(initiator.isid), ..security(OPERATIONAL) };
            let (response, said) = dialogue.exchange(first, initiator.security);
            assert_eq!(response.next_stage, OPERATIONAL, "{name}: the security stage is over at once");
            assert_eq!(said, "TargetPortalGroupTag=1|AuthMethod=None|", "{name}");
        }
        let last = LoginRequest { isid: Isid(initiator.isid), ..operational(FULL_FEATURE) };
        let completed = dialogue.finish(last, initiator.operational);
        is_complete(initiator, &completed);
    }
}

/// The last response: nothing is refused, and every key that is negotiated is answered, once; markers are obsolete and answered
/// No or Irrelevant (§13.25). Names are declared, and not answered.
fn is_complete(initiator: &Initiator, completed: &Completed) {
    let name = initiator.name;
    let (response, said) = rendered(&completed.accept(Tsih(7)));
    assert_eq!((response.next_stage, response.tsih), (FULL_FEATURE, Tsih(7)), "{name}");
    assert!(!said.contains("Reject") && !said.contains("NotUnderstood"), "{name}: {said}");
    agrees(initiator, completed);
    for key in initiator.operational.split('|').filter_map(|pair| pair.split_once('=')).map(|(key, _)| key) {
        let answers = said.split('|').filter(|pair| pair.split('=').next() == Some(key)).count();
        let expected =
            usize::from(!["InitiatorName", "InitiatorAlias", "TargetName", "SessionType"].contains(&key));
        assert_eq!(answers, expected, "{name}: {key} in {said}");
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

/// With CHAP, as `iscsi-inq` and QEMU do it: the algorithm is asked for in a request of its own, the last one proves and, where
/// the target is to prove itself too, asks back.
#[test]
fn libiscsi_proves_itself_and_asks_back() {
    for (ask, asked) in
        [("", ""), ("CHAP_I=1|CHAP_C=0xFFEDCB5DF5741565225F4C155C19E19C|", "CHAP_N=gateway|CHAP_R=0x")]
    {
        let mut dialogue = Dialogue::new();
        let names = "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq|\
                     TargetName=iqn.2026-11.io.portico:proof|SessionType=Normal|AuthMethod=CHAP,None|";
        let (response, said) = dialogue.exchange(security(OPERATIONAL), names);
        assert_eq!((response.next_stage, said.as_str()), (None, "TargetPortalGroupTag=1|AuthMethod=CHAP|"));
        let (_, said) = dialogue.exchange(security(None), "CHAP_A=5|");
        assert!(said.starts_with("CHAP_A=5|CHAP_I="), "{said}");
        // It writes digits above nine in upper case.
        let proof = authentication::response(Algorithm::Md5, authentication::SECRET, 16).to_uppercase();
        let proof = format!("CHAP_N=joe|CHAP_R={}|{ask}", proof.replace("0X", "0x"));
        let (response, said) = dialogue.exchange(security(OPERATIONAL), &proof);
        assert_eq!(response.next_stage, OPERATIONAL);
        assert!(said.starts_with(asked), "{said}");
        let keys = "HeaderDigest=None,CRC32C|DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
                    FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|MaxOutstandingR2T=1|ErrorRecoveryLevel=0|\
                    IFMarker=No|OFMarker=No|MaxConnections=1|MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|\
                    DataSequenceInOrder=Yes|";
        dialogue.finish(operational(FULL_FEATURE), keys);
    }
}

#[test]
fn discovery_as_they_do_it_asks_for_no_target() {
    let mut dialogue = Dialogue::new();
    let windows = "InitiatorName=iqn.1991-05.com.microsoft:host|SessionType=Discovery|AuthMethod=None|";
    let (_, said) = dialogue.exchange(security(OPERATIONAL), windows);
    assert_eq!(said, "AuthMethod=None|", "Windows: no portal group without a target (§13.9)");
    let windows = "HeaderDigest=None,CRC32C|DataDigest=None,CRC32C|MaxRecvDataSegmentLength=65536|DefaultTime2Wait=0|\
                   DefaultTime2Retain=60|";
    found("Windows", &dialogue.finish(operational(FULL_FEATURE), windows), 65_536);
    // The others begin with the operational stage; libiscsi sends what a session for I/O has, too.
    let linux = "InitiatorName=iqn.1993-08.org.debian:01:abc|InitiatorAlias=host|SessionType=Discovery|HeaderDigest=None|\
                 DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|OFMarker=No|ErrorRecoveryLevel=0|\
                 MaxRecvDataSegmentLength=32768|";
    found("Linux", &Dialogue::new().finish(operational(FULL_FEATURE), linux), 32_768);
    let libiscsi = "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls|SessionType=Discovery|HeaderDigest=None|\
                    DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|FirstBurstLength=262144|\
                    DefaultTime2Wait=2|DefaultTime2Retain=0|MaxOutstandingR2T=1|ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|\
                    MaxConnections=1|MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|";
    found("libiscsi", &Dialogue::new().finish(operational(FULL_FEATURE), libiscsi), 262_144);
}

fn found(name: &str, completed: &Completed, segment: u32) {
    assert_eq!(
        (completed.session_type, completed.target_name.as_deref()),
        (SessionType::Discovery, None),
        "{name}"
    );
    assert_eq!(completed.parameters.peer_max_recv_data_segment_length, segment, "{name}");
}
