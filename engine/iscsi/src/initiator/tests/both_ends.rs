//! Our initiator logs in to our target: two readings of §13 that must come to the same result.

use super::*;
use crate::chap::{Algorithm, Credentials, NONCE_BYTES, Nonce, Refusal, User, Users};
use crate::framing::Digests;
use crate::login::{
    Admission, Completed, Directory, LoginReply, Lookup, Options, SessionType, Step, TargetLogin,
};
use crate::negotiate::TargetKeys;
use crate::wire::{LoginRequest, LoginStatus};
use proptest::prelude::*;

struct House {
    keys: TargetKeys,
    incoming: Vec<User>,
    outgoing: Option<User>,
}

impl Directory for House {
    fn target(&self, _: &str, target_name: &str) -> Lookup {
        if target_name != "iqn.2026-11.io.portico:disk" {
            return Lookup::NotFound;
        }
        Lookup::Admitted(Admission {
            keys: self.keys,
            portal_group_tag: 1,
            alias: Some("disk".to_owned()),
            queued_commands: 32,
        })
    }

    fn users(&self, _: Option<&str>) -> Users<'_> {
        Users { incoming: &self.incoming, outgoing: self.outgoing.as_ref() }
    }
}

/// The login of `plan` at a target with these keys, from both ends.
fn meet(plan: LoginPlan, keys: TargetKeys) -> Result<(Established, Completed), LoginFault> {
    meet_in(House { keys, incoming: Vec::new(), outgoing: None }, plan)
}

fn meet_in(house: House, plan: LoginPlan) -> Result<(Established, Completed), LoginFault> {
    let mut initiator = Login::with_challenge(plan, Nonce::new([0x11; NONCE_BYTES]));
    let options = Options { stat_sn: StatSn(7), discovery: house.keys, discovery_queued_commands: 4 };
    let mut target = TargetLogin::new(options, Nonce::new([0x22; NONCE_BYTES]));
    let mut completed = None;
    loop {
        let mut bytes = Vec::new();
        assert!(initiator.next_pdu(&mut bytes));
        let (bhs, rest) = bytes.split_first_chunk().unwrap();
        let request = LoginRequest::parse(bhs).unwrap();
        let data = &rest[..request.data_segment_length as usize];
        let LoginReply { response, text } = match target.receive(&request, data, &house) {
            Ok(Step::More(reply) | Step::Refused(reply)) => reply,
            Ok(Step::Complete(it)) => {
                let reply = it.accept(Tsih(1));
                completed = Some(*it);
                reply
            }
            Err(violation) => target.refusal(bhs, &violation).expect("a login is refused with a response"),
        };
        let mut bhs = [0; BHS_BYTES];
        response.emit(&mut bhs);
        if let Progress::Done(established) = initiator.receive(&bhs, &text)? {
            return Ok((*established, completed.expect("the target has ended it too")));
        }
    }
}

fn plan(offer: Offer, first_stage: FirstStage) -> LoginPlan {
    let normal = LoginPlan::normal("iqn.2026-11.io.portico:host", "iqn.2026-11.io.portico:disk");
    LoginPlan { offer, first_stage, ..normal }
}

/// What the other side calls its own is what this side calls the peer's.
fn mirrored(parameters: Parameters) -> Parameters {
    Parameters {
        own_max_recv_data_segment_length: parameters.peer_max_recv_data_segment_length,
        peer_max_recv_data_segment_length: parameters.own_max_recv_data_segment_length,
        ..parameters
    }
}

#[test]
fn a_discovery_session_is_made() {
    let plan = LoginPlan::discovery("iqn.2026-11.io.portico:host");
    let (established, completed) = meet(plan, TargetKeys::default()).unwrap();
    assert!(established.discovery);
    assert_eq!(completed.session_type, SessionType::Discovery);
    assert_eq!(established.window.size(), 4);
}

#[test]
fn an_unknown_target_is_refused_as_not_found() {
    let plan = LoginPlan::normal("iqn.2026-11.io.portico:host", "iqn.2026-11.io.portico:gone");
    let refused = meet(plan, TargetKeys::default()).unwrap_err();
    assert_eq!(refused, LoginFault::Refused(crate::wire::LoginStatus::NOT_FOUND));
}

#[test]
fn what_the_gateway_does_not_do_is_negotiated_away() {
    let offer = Offer::default()
        .with("MaxConnections", "8")
        .with("ErrorRecoveryLevel", "2")
        .with("IFMarker", "No")
        .with("X-com.example.key", "1");
    let (established, _) = meet(plan(offer, FirstStage::Security), TargetKeys::default()).unwrap();
    let parameters = established.parameters;
    assert_eq!((parameters.max_connections, parameters.error_recovery_level), (1, 0));
    let said =
        |key: &str| established.said.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    assert_eq!(said("X-com.example.key").as_deref(), Some(&b"NotUnderstood"[..]));
}

#[test]
fn digests_are_agreed_on_each_for_itself() {
    let offer = Offer::default().with("HeaderDigest", "CRC32C,None").with("DataDigest", "None,CRC32C");
    let (established, completed) = meet(plan(offer, FirstStage::Operational), TargetKeys::default()).unwrap();
    assert_eq!(established.parameters.digests(), Digests { header: true, data: false });
    assert_eq!(completed.parameters.digests(), established.parameters.digests());
}

fn guarded(outgoing: Option<User>) -> House {
    let incoming = vec![User::new("joe", "open-sesame-1")];
    House { keys: TargetKeys::default(), incoming, outgoing }
}

fn with(credentials: Credentials) -> LoginPlan {
    LoginPlan { credentials: Some(credentials), ..plan(Offer::default(), FirstStage::Operational) }
}

#[test]
fn chap_lets_in_whom_the_target_knows_with_each_algorithm_and_either_way() {
    let joe = || Credentials::new(User::new("joe", "open-sesame-1"));
    let gateway = || User::new("gateway", "shut-sesame-22");
    for algorithm in Algorithm::ALL {
        for credentials in [joe().with(algorithm), joe().with(algorithm).mutual(gateway())] {
            let (established, completed) = meet_in(guarded(Some(gateway())), with(credentials)).unwrap();
            assert_eq!(completed.authenticated_as.as_deref(), Some("joe"));
            assert_eq!(established.parameters, mirrored(completed.parameters));
        }
    }
    let (_, completed) = meet(with(joe()), TargetKeys::default()).unwrap();
    assert_eq!(completed.authenticated_as, None, "None is agreed where the target asks for nothing");
}

#[test]
fn chap_keeps_out_who_proves_nothing_and_tells_targets_that_do_not() {
    let failed = LoginFault::Refused(LoginStatus::AUTHENTICATION_FAILURE);
    let joe = |secret: &str| Credentials::new(User::new("joe", secret));
    let gateway = || User::new("gateway", "shut-sesame-22");
    assert_eq!(meet_in(guarded(None), with(joe("wrong-sesame-1"))).unwrap_err(), failed);
    for first_stage in [FirstStage::Security, FirstStage::Operational] {
        assert_eq!(meet_in(guarded(None), plan(Offer::default(), first_stage)).unwrap_err(), failed);
    }
    let mutual = with(joe("open-sesame-1").mutual(gateway()));
    assert_eq!(meet_in(guarded(None), mutual.clone()).unwrap_err(), failed, "a target without OutgoingUser");
    let impostor = User::new("gateway", "some-other-secret");
    assert_eq!(
        meet_in(guarded(Some(impostor)), mutual.clone()).unwrap_err(),
        LoginFault::Unproven(Refusal::ResponseWrong)
    );
    assert_eq!(meet(mutual, TargetKeys::default()).unwrap_err(), failed, "a target that only knows None");
}

/// A length key's value, in both forms of numbers.
fn any_length() -> impl Strategy<Value = String> {
    (512_u32..1 << 24, any::<bool>())
        .prop_map(|(length, decimal)| if decimal { length.to_string() } else { format!("{length:#x}") })
}

fn yes_or_no() -> impl Strategy<Value = String> {
    any::<bool>().prop_map(|yes| if yes { "Yes".to_owned() } else { "No".to_owned() })
}

/// Any subset of the keys, in any order, with any legal values.
fn any_offer() -> impl Strategy<Value = Offer> {
    let key =
        |name: &'static str, value: BoxedStrategy<String>| value.prop_map(move |value| (name, value)).boxed();
    let digest =
        || proptest::sample::select(vec!["None", "CRC32C,None", "None,CRC32C"]).prop_map(str::to_owned);
    let keys = vec![
        key("HeaderDigest", digest().boxed()),
        key("DataDigest", digest().boxed()),
        key("MaxConnections", (1_u32..=65_535).prop_map(|count| count.to_string()).boxed()),
        key("InitialR2T", yes_or_no().boxed()),
        key("ImmediateData", yes_or_no().boxed()),
        key("MaxRecvDataSegmentLength", any_length().boxed()),
        key("MaxBurstLength", any_length().boxed()),
        key("FirstBurstLength", any_length().boxed()),
        key("DefaultTime2Wait", (0_u32..=3600).prop_map(|seconds| seconds.to_string()).boxed()),
        key("DefaultTime2Retain", (0_u32..=3600).prop_map(|seconds| seconds.to_string()).boxed()),
        key("MaxOutstandingR2T", (1_u32..=65_535).prop_map(|count| count.to_string()).boxed()),
        key("DataPDUInOrder", yes_or_no().boxed()),
        key("DataSequenceInOrder", yes_or_no().boxed()),
        key("ErrorRecoveryLevel", (0_u32..=2).prop_map(|level| level.to_string()).boxed()),
        key("TaskReporting", Just("RFC3720,FastAbort".to_owned()).boxed()),
        key("iSCSIProtocolLevel", (1_u32..=31).prop_map(|level| level.to_string()).boxed()),
    ];
    let count = keys.len();
    (keys, proptest::sample::subsequence((0..count).collect::<Vec<_>>(), 0..=count).prop_shuffle()).prop_map(
        |(keys, chosen)| {
            chosen.into_iter().fold(Offer::none(), |offer, index| {
                let (name, value) = &keys[index];
                offer.with(name, value)
            })
        },
    )
}

proptest! {
    #[test]
    fn both_ends_come_to_the_same_parameters(
        offer in any_offer(),
        security: bool,
        own in 512_u32..1 << 24,
        burst in 512_u32..1 << 24,
        first_burst in 512_u32..1 << 24,
        initial_r2t: bool,
        immediate_data: bool,
        max_outstanding_r2t in 1_u16..,
    ) {
        let keys = TargetKeys {
            max_recv_data_segment_length: own,
            max_burst_length: burst.max(first_burst),
            first_burst_length: first_burst,
            initial_r2t,
            immediate_data,
            max_outstanding_r2t,
            ..TargetKeys::default()
        };
        let first_stage = if security { FirstStage::Security } else { FirstStage::Operational };
        let (established, completed) = meet(plan(offer, first_stage), keys).unwrap();
        prop_assert_eq!(established.parameters, mirrored(completed.parameters));
        prop_assert_eq!(established.window.size(), 32);
        prop_assert_eq!(established.expected_stat_sn, completed.stat_sn.next());
    }
}
