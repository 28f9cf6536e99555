//! The login phase (RFC 7143 §6.3): dialogues that keep to no rule, and our own initiator on a line that garbles.

use std::sync::LazyLock;

use portico_iscsi::chap::{Credentials, NONCE_BYTES, Nonce, User, Users};
use portico_iscsi::initiator::{FirstStage, Login, LoginPlan, Offer, Progress};
use portico_iscsi::login::{
    Admission, Directory, LOGIN_DATA_SEGMENT_BYTES_MAX, LOGIN_REQUESTS_MAX, LoginReply, Lookup, Options,
    Relocation, Step, TargetLogin,
};
use portico_iscsi::negotiate::{DigestChoice, TargetKeys};
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::violation::{Answer, LoginViolation, Violation};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, Cid, InitiatorTaskTag, Isid, LoginRequest, LoginResponse, LoginStatus, Stage, Tsih,
    data_segment_length,
};

use crate::wire::told;
use crate::{Fuzzer, Source, Trace};

/// See the module.
pub const FUZZER: Fuzzer = Fuzzer { name: "login", run, dictionary: crate::text::WORDS, bytes_max: 8192 };

fn run(input: &[u8], trace: &mut Trace) {
    let mut source = Source::new(input);
    if source.flag() { garbled(&mut source, trace) } else { dialogue(&mut source, trace) }
}

/// A target for everybody, one that wants a proof, and one of each unwelcoming sort.
struct Lobby {
    keys: TargetKeys,
}

static JOE: LazyLock<[User; 1]> = LazyLock::new(|| [User::new("joe", "opensesame123")]);
static GATEWAY: LazyLock<User> = LazyLock::new(|| User::new("gateway", "sesameopen321"));

impl Directory for Lobby {
    fn target(&self, _initiator: &str, target: &str) -> Lookup {
        let (name, portal_group_tag) = (target.rsplit(':').next(), 1);
        match name {
            Some("default" | "proof") => Lookup::Admitted(Admission {
                keys: self.keys,
                portal_group_tag,
                alias: Some("the blue one".to_owned()),
                queued_commands: 32,
            }),
            Some("closed") => Lookup::Disabled,
            Some("private") => Lookup::Forbidden,
            Some("away") => {
                Lookup::Moved(Relocation { address: "10.0.0.2:3261".to_owned(), permanent: false })
            }
            _ => Lookup::NotFound,
        }
    }

    fn users(&self, target: Option<&str>) -> Users<'_> {
        match target {
            Some(name) if name.ends_with(":proof") => Users { incoming: &*JOE, outgoing: Some(&GATEWAY) },
            _ => Users::default(),
        }
    }
}

const FIRST_STAT_SN: StatSn = StatSn(100);

fn target(source: &mut Source<'_>) -> (TargetLogin, Lobby) {
    let choice = source.byte();
    let digest = |choice| match choice & 3 {
        0 => DigestChoice::Either,
        1 => DigestChoice::Crc32c,
        _ => DigestChoice::None,
    };
    let keys = TargetKeys {
        header_digest: digest(choice),
        data_digest: digest(choice >> 2),
        initial_r2t: choice & 16 != 0,
        immediate_data: choice & 32 == 0,
        ..TargetKeys::default()
    };
    let options = Options { stat_sn: FIRST_STAT_SN, discovery: keys, discovery_queued_commands: 4 };
    (TargetLogin::new(options, Nonce::new([7; NONCE_BYTES])), Lobby { keys })
}

/// Requests with any text, in any stage; what goes back is well formed and numbered, and there is an end.
fn dialogue(source: &mut Source<'_>, trace: &mut Trace) {
    let (mut login, lobby) = target(source);
    let mut stat_sn = FIRST_STAT_SN;
    for number in 0..=LOGIN_REQUESTS_MAX + 1 {
        let choice = source.byte();
        let odd = source.byte();
        let length = usize::from(source.half()) % 1500;
        let text = source.take(length);
        let stages =
            [Stage::SecurityNegotiation, Stage::LoginOperationalNegotiation, Stage::FullFeaturePhase];
        let request = LoginRequest {
            current_stage: stages[usize::from(choice & 1)],
            next_stage: match choice >> 1 & 3 {
                0 => None,
                next => Some(stages[usize::from(next) - 1]),
            },
            continues: choice & 8 != 0,
            version_max: 0,
            version_min: u8::from(odd == 0xff),
            data_segment_length: u32::try_from(text.len()).expect("short"),
            isid: Isid([0, 2, 0x3d, 0, 0, u8::from(odd == 0xfe)]),
            tsih: if odd == 0xfd { Tsih(1) } else { Tsih::NEW },
            initiator_task_tag: InitiatorTaskTag(9),
            cid: Cid(u16::from(odd == 0xfc)),
            cmd_sn: CmdSn(1),
            expected_stat_sn: StatSn(0),
        };
        let mut bhs = [0; BHS_BYTES];
        request.emit(&mut bhs);
        let parsed = LoginRequest::parse(&bhs);
        match parsed.and_then(|request| login.receive(&request, text, &lobby)) {
            Ok(Step::More(reply)) => {
                assert_eq!(reply.response.stat_sn, stat_sn);
                assert!(!(reply.response.continues && reply.response.next_stage.is_some()));
                assert!(reply.response.next_stage.is_none_or(|stage| Some(stage) == request.next_stage));
                assert!(number <= LOGIN_REQUESTS_MAX, "a login ends");
                stat_sn = stat_sn.next();
                rendered(&reply, trace);
            }
            Ok(Step::Refused(reply)) => return rendered(&reply, trace),
            Ok(Step::Complete(completed)) => {
                rendered(&completed.refuse(LoginStatus::TARGET_ERROR), trace);
                let reply = completed.accept(Tsih(1));
                assert_eq!(reply.response.stat_sn, stat_sn);
                let proven = completed.authenticated_as.as_deref() == Some("joe");
                let asked = completed.target_name.as_deref().is_some_and(|name| name.ends_with(":proof"));
                assert!(proven || !asked, "nobody gets in without the proof that is asked for");
                trace.mark_kind(&completed.session_type);
                return rendered(&reply, trace);
            }
            Err(violation) => {
                told(&violation, trace);
                if let Some(reply) = login.refusal(&bhs, &violation) {
                    assert!(!reply.response.status.is_success() && reply.text.is_empty());
                    rendered(&reply, trace);
                }
                return;
            }
        }
    }
    unreachable!("a login takes so many requests and no more");
}

fn rendered(reply: &LoginReply, trace: &mut Trace) {
    let mut bhs = [0; BHS_BYTES];
    reply.response.emit(&mut bhs);
    assert_eq!(LoginResponse::parse(&bhs), Ok(reply.response));
    assert_eq!(reply.text.len(), reply.response.data_segment_length as usize);
    assert!(reply.text.len() <= LOGIN_DATA_SEGMENT_BYTES_MAX as usize);
    let said = reply.text.split(|byte| *byte == 0).filter(|pair| pair.len() < 40);
    said.for_each(|pair| trace.mark(pair));
    trace.mark((
        reply.response.status.class,
        reply.response.status.detail,
        reply.response.next_stage.is_some(),
    ));
}

/// PDUs that pass in a login, at the most: each request is answered.
const ROUNDS_MAX: usize = 2 * LOGIN_REQUESTS_MAX as usize + 4;

/// Both ends, and bytes that change on the way. Where none did they agree; otherwise each comes to an end by itself.
fn garbled(source: &mut Source<'_>, trace: &mut Trace) {
    let (mut target, lobby) = target(source);
    let mut initiator = Login::with_challenge(plan(source), Nonce::new([9; NONCE_BYTES]));
    let mut is_garbled = false;
    for _ in 0..ROUNDS_MAX {
        let mut bytes = Vec::new();
        if !initiator.next_pdu(&mut bytes) {
            return;
        }
        let rules = source.byte();
        is_garbled |= garble(&mut bytes, rules & 15, source);
        let (bhs, data) = split(&bytes);
        let request = match LoginRequest::parse(&bhs) {
            Ok(request) if data.len() == request.data_segment_length as usize => request,
            _ => return trace.mark("no request"),
        };
        let (reply, completed) = match target.receive(&request, data, &lobby) {
            Ok(Step::More(reply)) => (reply, None),
            Ok(Step::Refused(reply)) => (reply, None),
            Ok(Step::Complete(completed)) => (completed.accept(Tsih(1)), Some(completed)),
            Err(violation) => {
                // A proof that is not offered, or that nobody asks for, is a plan that comes to nothing.
                let unproven = Answer::LoginStatus(LoginStatus::AUTHENTICATION_FAILURE);
                // So is one without a digest that is demanded.
                let unsummed = matches!(violation, Violation::Login(LoginViolation::DigestMissing(_)));
                let allowed = is_garbled || unsummed || violation.answer() == unproven;
                assert!(allowed, "our own initiator keeps to the rules: {violation}");
                return told(&violation, trace);
            }
        };
        let mut answer = [0; BHS_BYTES].to_vec();
        reply.response.emit((&mut answer[..]).try_into().expect("48 bytes"));
        answer.extend_from_slice(&reply.text);
        is_garbled |= garble(&mut answer, rules >> 4, source);
        let (bhs, data) = split(&answer);
        if data.len() != data_segment_length(&bhs) as usize {
            return trace.mark("the rest never comes");
        }
        match (initiator.receive(&bhs, data), completed) {
            (Ok(Progress::Done(established)), Some(completed)) if !is_garbled => {
                let (ours, theirs) = (completed.parameters, established.parameters);
                assert_eq!(ours.max_burst_length, theirs.max_burst_length);
                assert_eq!(ours.first_burst_length, theirs.first_burst_length);
                assert_eq!(
                    (ours.initial_r2t, ours.immediate_data),
                    (theirs.initial_r2t, theirs.immediate_data)
                );
                assert_eq!(ours.digests(), theirs.digests());
                return trace.mark(("agreed", ours.digests().header, completed.authenticated_as.is_some()));
            }
            (Ok(Progress::Done(_)), _) => return trace.mark("done"),
            (Ok(Progress::Send), _) => trace.mark("goes on"),
            (Err(fault), _) => return trace.mark_kind(&fault),
        }
    }
    panic!("a login of both our ends goes on for ever");
}

fn plan(source: &mut Source<'_>) -> LoginPlan {
    let name = source.pick(&["default", "proof", "closed", "private", "away", "nobody"]);
    let mut plan = match source.below(4) {
        0 => LoginPlan::discovery("iqn.2026-11.test:i"),
        _ => LoginPlan::normal("iqn.2026-11.test:i", &format!("iqn.2026-11.io.portico:{name}")),
    };
    let choice = source.byte();
    if choice & 1 != 0 {
        plan.first_stage = FirstStage::Security;
    }
    if choice & 2 != 0 {
        let credentials = Credentials::new(User::new("joe", "opensesame123"));
        plan.credentials = Some(match choice & 4 {
            0 => credentials,
            _ => credentials.mutual(User::new("gateway", "sesameopen321")),
        });
    }
    if choice & 8 != 0 {
        plan.offer = plan.offer.with("HeaderDigest", "CRC32C,None").with("DataDigest", "CRC32C");
    }
    if choice & 16 != 0 {
        plan.offer = Offer::none();
    }
    plan
}

/// Changes a few bytes, mostly none; tells whether it did.
fn garble(bytes: &mut Vec<u8>, rule: u8, source: &mut Source<'_>) -> bool {
    let before = bytes.clone();
    let length = bytes.len();
    match rule {
        1 => bytes[usize::from(source.half()) % length] = source.byte(),
        2 => bytes[usize::from(source.byte()) % BHS_BYTES] ^= 1 << source.below(8),
        3 if length > BHS_BYTES => {
            let at = BHS_BYTES + usize::from(source.half()) % (length - BHS_BYTES);
            bytes[at] = source.byte();
        }
        4 => bytes.truncate(BHS_BYTES),
        _ => {}
    }
    *bytes != before
}

/// The header, and as many of the bytes behind it as it says.
fn split(bytes: &[u8]) -> (Bhs, &[u8]) {
    let bhs: Bhs = bytes[..BHS_BYTES].try_into().expect("48 bytes");
    let length = data_segment_length(&bhs) as usize;
    (bhs, &bytes[BHS_BYTES..bytes.len().min(BHS_BYTES + length)])
}
