//! The login phase from the initiator's side (RFC 7143 §6.3, §11.12, §11.13).
//!
//! `next_pdu` whenever it has something to send, `receive` for each PDU that comes, until that gives
//! [`Progress::Done`] or a [`LoginFault`]. AuthMethod is CHAP where the plan has credentials, else None.

use super::keys::{self, Offer};
use crate::chap::{Credentials, Keys, Nonce, Prover, Refusal};
use crate::framing;
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, CommandWindow, StatSn};
use crate::text::{Incoming, Outgoing, Pair, STEP_BYTES_MAX};
use crate::violation::Violation;
use crate::wire::login::VERSION;
use crate::wire::{
    BHS_BYTES, Bhs, Cid, InitiatorTaskTag, Isid, LoginRequest, LoginResponse, LoginStatus, RejectReason,
    Stage, TargetPdu, Tsih,
};

/// The most requests of one login; a target that wants more is not getting anywhere.
pub const EXCHANGES_MAX: u32 = 32;
/// What a Login PDU carries at most (§13.12: the default, until the full feature phase).
pub const LOGIN_SEGMENT_BYTES_MAX: usize = 8192;

/// The tag of all requests of the login.
const LOGIN_TASK_TAG: InitiatorTaskTag = InitiatorTaskTag(0);

/// What the session is for (§13.21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// SessionType=Discovery
    Discovery,
    /// SessionType=Normal
    Normal {
        /// TargetName
        target_name: String,
    },
}

/// Where the login starts (§6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstStage {
    /// Security negotiation, then operational negotiation.
    Security,
    /// Operational negotiation at once.
    Operational,
}

/// All that a login says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginPlan {
    /// InitiatorName
    pub initiator_name: String,
    /// Discovery, or a target.
    pub kind: SessionKind,
    /// ISID
    pub isid: Isid,
    /// TSIH; [`Tsih::NEW`] for a leading login.
    pub tsih: Tsih,
    /// CID
    pub cid: Cid,
    /// The CmdSN of the first command.
    pub first_cmd_sn: CmdSn,
    /// Where to start.
    pub first_stage: FirstStage,
    /// What to offer in the operational stage.
    pub offer: Offer,
    /// What to log in with; the login then starts in the security stage.
    pub credentials: Option<Credentials>,
}

impl LoginPlan {
    /// A leading login of a normal session, straight to the operational stage, with the default offer.
    #[must_use]
    pub fn normal(initiator_name: &str, target_name: &str) -> Self {
        Self {
            initiator_name: initiator_name.to_owned(),
            kind: SessionKind::Normal { target_name: target_name.to_owned() },
            isid: Isid([0x80, 0, 0, 0, 0, 0]),
            tsih: Tsih::NEW,
            cid: Cid(0),
            first_cmd_sn: CmdSn(1),
            first_stage: FirstStage::Operational,
            offer: Offer::default(),
            credentials: None,
        }
    }

    /// A discovery session, which offers no more than its segment length.
    #[must_use]
    pub fn discovery(initiator_name: &str) -> Self {
        let offer = Offer::none().with("MaxRecvDataSegmentLength", "262144");
        Self { kind: SessionKind::Discovery, offer, ..Self::normal(initiator_name, "") }
    }
}

/// Why a login ended without a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// Status-Class 2 or 3: no.
    Refused(LoginStatus),
    /// Status-Class 1: elsewhere (§13.8).
    Redirected {
        /// For now, or for good.
        status: LoginStatus,
        /// TargetAddress, if the target gave one as it MUST.
        address: Option<String>,
    },
    /// The target sent a Reject.
    Rejected(RejectReason),
    /// A PDU that breaks a rule by itself, or text that does.
    Malformed(Violation),
    /// A PDU that has no place in a login, or that nobody asked for.
    Unexpected {
        /// Of which PDU.
        opcode: u8,
    },
    /// A field that has to repeat the request's does not (§11.13): ISID, Initiator Task Tag, CSG.
    NotAnEcho(&'static str),
    /// Version-active is none that was offered (§11.13.2).
    VersionWrong(u8),
    /// TSIH is not 0, before the end, or is, at the end (§11.13.3).
    TsihWrong(Tsih),
    /// StatSN skips or repeats a number (§11.13.4).
    StatSnWrong {
        /// The next number.
        expected: StatSn,
        /// The PDU's.
        received: StatSn,
    },
    /// ExpCmdSN and MaxCmdSN of the final response are no window that begins with the first CmdSN.
    WindowWrong {
        /// ExpCmdSN.
        expected: CmdSn,
        /// MaxCmdSN.
        maximum: CmdSn,
    },
    /// The target goes to a stage that was not asked for (§11.13: T, NSG).
    TransitUnasked(Stage),
    /// The target answers before the initiator's text is complete (§6.2: C bit).
    AnsweredBeforeEnd,
    /// A value that may not come to what was offered.
    AnswerInadmissible {
        /// The key.
        key: String,
        /// What was offered; empty where the target declares.
        offered: String,
        /// What came.
        answer: String,
    },
    /// CHAP went wrong, or the target is not who it has to be (§12.1.3).
    Unproven(Refusal),
    /// A key twice (§6.3).
    KeyRepeated(String),
    /// A key that was offered and never answered (§6.2).
    KeyUnanswered(String),
    /// No end after [`EXCHANGES_MAX`] requests.
    Endless,
}

impl core::fmt::Display for LoginFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Refused(status) => {
                write!(f, "login refused, status {:#04x}{:02x}", status.class, status.detail)
            }
            Self::Redirected { address: Some(address), .. } => write!(f, "the target has moved to {address}"),
            Self::Malformed(violation) => write!(f, "malformed login response: {violation}"),
            Self::Unproven(refusal) => write!(f, "{refusal}"),
            fault => write!(f, "login failed: {fault:?}"),
        }
    }
}

impl core::error::Error for LoginFault {}

impl From<Violation> for LoginFault {
    fn from(violation: Violation) -> Self {
        Self::Malformed(violation)
    }
}

/// A session, as the login has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// What both sides keep to.
    pub parameters: Parameters,
    /// Whether this is a discovery session.
    pub discovery: bool,
    /// TSIH, not 0.
    pub tsih: Tsih,
    /// CID
    pub cid: Cid,
    /// What the target takes.
    pub window: CommandWindow,
    /// The next StatSN.
    pub expected_stat_sn: StatSn,
    /// TargetPortalGroupTag, if the target said it.
    pub portal_group_tag: Option<u16>,
    /// TargetAlias, if the target said it.
    pub target_alias: Option<String>,
    /// All that the target said, in its order: for tests, and for whoever offered keys of his own.
    pub said: Vec<(String, Vec<u8>)>,
}

/// How far the login is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is a PDU to send.
    Send,
    /// The full feature phase has begun.
    Done(Box<Established>),
}

/// One login. See the module.
#[derive(Debug)]
pub struct Login {
    plan: LoginPlan,
    stage: Stage,
    outgoing: Outgoing,
    incoming: Incoming,
    /// What was offered and has not been answered.
    unanswered: Vec<(String, String)>,
    settled: Vec<String>,
    parameters: Parameters,
    said: Vec<(String, Vec<u8>)>,
    /// What credentials are good for, until CHAP is agreed and where it is not.
    nonce: Option<Nonce>,
    prover: Option<Prover>,
    stat_sn: Option<StatSn>,
    requests: u32,
    turn: Turn,
}

/// Whose turn it is, and what was said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// To say the next piece.
    Ours,
    /// To say nothing, so that the target goes on with its text.
    OursToListen,
    /// `asked`: the stage of the T bit; `continues`: our C bit.
    Theirs { asked: Option<Stage>, continues: bool },
    /// The login has ended.
    Nobodys,
}

impl Login {
    /// Begins; the first PDU waits to be sent. A plan in which the target has to prove itself takes
    /// [`Login::with_challenge`].
    #[must_use]
    pub fn new(plan: LoginPlan) -> Self {
        Self::begin(plan, None)
    }

    /// Begins, with randomness to challenge the target with.
    #[must_use]
    pub fn with_challenge(plan: LoginPlan, nonce: Nonce) -> Self {
        Self::begin(plan, Some(nonce))
    }

    fn begin(plan: LoginPlan, nonce: Option<Nonce>) -> Self {
        let own_length = plan
            .offer
            .value_of("MaxRecvDataSegmentLength")
            .and_then(|text| keys::number_within(text.as_bytes(), 512, (1 << 24) - 1));
        let mut parameters = Parameters::default();
        if let Some(length) = own_length {
            parameters.own_max_recv_data_segment_length = length;
        }
        let stage = match plan.first_stage {
            FirstStage::Operational if plan.credentials.is_none() => Stage::LoginOperationalNegotiation,
            _ => Stage::SecurityNegotiation,
        };
        let mut login = Self {
            plan,
            stage,
            outgoing: Outgoing::with_bound(STEP_BYTES_MAX),
            incoming: Incoming::default(),
            unanswered: Vec::new(),
            settled: Vec::new(),
            parameters,
            said: Vec::new(),
            nonce,
            prover: None,
            stat_sn: None,
            requests: 0,
            turn: Turn::Ours,
        };
        login.introduce();
        login.open_stage();
        login
    }

    /// The declarations of the first request (§6.3: InitiatorName, SessionType, TargetName).
    fn introduce(&mut self) {
        let name = self.plan.initiator_name.clone();
        self.say("InitiatorName", &name);
        match self.plan.kind.clone() {
            SessionKind::Discovery => self.say("SessionType", "Discovery"),
            SessionKind::Normal { target_name } => {
                self.say("SessionType", "Normal");
                self.say("TargetName", &target_name);
            }
        }
    }

    fn open_stage(&mut self) {
        if self.stage == Stage::SecurityNegotiation {
            // A target that has to prove itself cannot do so with None.
            let methods = match &self.plan.credentials {
                None => "None",
                Some(credentials) if credentials.target.is_some() => "CHAP",
                Some(_) => "CHAP,None",
            };
            self.propose("AuthMethod", methods);
            return;
        }
        for (key, value) in self.plan.offer.clone().pairs() {
            if keys::is_declared(key) || DECLARED_TEXTS.contains(&key) {
                self.say(key, value);
            } else {
                self.propose(key, value);
            }
        }
    }

    fn propose(&mut self, key: &str, value: &str) {
        self.say(key, value);
        self.unanswered.push((key.to_owned(), value.to_owned()));
    }

    fn say(&mut self, key: &str, value: &str) {
        self.outgoing.push(key, value.as_bytes()).expect("a plan fits into STEP_BYTES_MAX");
    }

    /// Appends the next PDU, whole and padded, to `out`; false where it is the target's turn.
    pub fn next_pdu(&mut self, out: &mut Vec<u8>) -> bool {
        let listen = match self.turn {
            Turn::Ours => false,
            Turn::OursToListen => true,
            Turn::Theirs { .. } | Turn::Nobodys => return false,
        };
        let next = match self.stage {
            Stage::SecurityNegotiation => Stage::LoginOperationalNegotiation,
            _ => Stage::FullFeaturePhase,
        };
        let may_leave = self.may_leave_stage();
        let (bytes, continues): (&[u8], bool) = if listen {
            (&[], false)
        } else {
            let piece = self.outgoing.take_piece(LOGIN_SEGMENT_BYTES_MAX);
            (piece.bytes, piece.continues)
        };
        let asked = (!listen && !continues && may_leave).then_some(next);
        let length = u32::try_from(bytes.len()).expect("a piece is at most LOGIN_SEGMENT_BYTES_MAX");
        let request = LoginRequest {
            current_stage: self.stage,
            next_stage: asked,
            continues,
            version_max: VERSION,
            version_min: VERSION,
            data_segment_length: length,
            isid: self.plan.isid,
            tsih: self.plan.tsih,
            initiator_task_tag: LOGIN_TASK_TAG,
            cid: self.plan.cid,
            cmd_sn: self.plan.first_cmd_sn,
            expected_stat_sn: self.stat_sn.map_or(StatSn(0), StatSn::next),
        };
        let mut bhs = [0; BHS_BYTES];
        request.emit(&mut bhs);
        out.extend_from_slice(&bhs);
        out.extend_from_slice(bytes);
        out.resize(out.len() + framing::padding(length) as usize, 0);
        self.requests += 1;
        self.turn = Turn::Theirs { asked, continues };
        true
    }

    /// T waits in the security stage until the method is agreed and its last step is said.
    fn may_leave_stage(&self) -> bool {
        match (&self.prover, &self.plan.credentials) {
            _ if self.stage != Stage::SecurityNegotiation => true,
            (Some(prover), _) => prover.has_answered(),
            (None, Some(_)) => self.settled.iter().any(|key| key == "AuthMethod"),
            (None, None) => true,
        }
    }

    /// Takes a PDU with its data segment (without padding).
    ///
    /// # Errors
    /// The login is over; the connection is to be closed.
    pub fn receive(&mut self, bhs: &Bhs, data: &[u8]) -> Result<Progress, LoginFault> {
        let progress = self.advance(bhs, data);
        if progress.is_err() {
            self.turn = Turn::Nobodys;
        }
        progress
    }

    fn advance(&mut self, bhs: &Bhs, data: &[u8]) -> Result<Progress, LoginFault> {
        let opcode = crate::wire::opcode(bhs);
        let response = match TargetPdu::parse(bhs)? {
            TargetPdu::Login(response) => response,
            TargetPdu::Reject(reject) => return Err(LoginFault::Rejected(reject.reason)),
            _ => return Err(LoginFault::Unexpected { opcode }),
        };
        assert_eq!(data.len(), response.data_segment_length as usize, "the data segment of the PDU");
        let Turn::Theirs { asked, continues } = self.turn else {
            return Err(LoginFault::Unexpected { opcode });
        };
        if !response.status.is_success() {
            return Err(refusal(response.status, data));
        }
        self.check_echo(&response)?;
        match response.next_stage {
            Some(next) if asked.is_none_or(|asked| next > asked) => {
                return Err(LoginFault::TransitUnasked(next));
            }
            _ => {}
        }
        if continues {
            // To a text that goes on, the answer is an empty one (§6.2).
            if response.continues || !data.is_empty() {
                return Err(LoginFault::AnsweredBeforeEnd);
            }
            return self.send(Turn::Ours);
        }
        self.incoming.append(data)?;
        if response.continues {
            return self.send(Turn::OursToListen);
        }
        self.outgoing.clear();
        self.hear()?;
        if response.next_stage.is_some() {
            self.target_is_proven()?;
        }
        match response.next_stage {
            Some(Stage::FullFeaturePhase) => self.finish(&response),
            Some(stage) => {
                self.every_offer_is_answered()?;
                self.stage = stage;
                self.open_stage();
                self.send(Turn::Ours)
            }
            None => self.send(Turn::Ours),
        }
    }

    fn send(&mut self, turn: Turn) -> Result<Progress, LoginFault> {
        if self.requests >= EXCHANGES_MAX {
            return Err(LoginFault::Endless);
        }
        self.turn = turn;
        Ok(Progress::Send)
    }

    fn check_echo(&mut self, response: &LoginResponse) -> Result<(), LoginFault> {
        if response.initiator_task_tag != LOGIN_TASK_TAG {
            return Err(LoginFault::NotAnEcho("Initiator Task Tag"));
        }
        if response.isid != self.plan.isid {
            return Err(LoginFault::NotAnEcho("ISID"));
        }
        if response.current_stage != self.stage {
            return Err(LoginFault::NotAnEcho("CSG"));
        }
        if response.version_active != VERSION {
            return Err(LoginFault::VersionWrong(response.version_active));
        }
        if let Some(expected) = self.stat_sn.map(StatSn::next)
            && response.stat_sn != expected
        {
            return Err(LoginFault::StatSnWrong { expected, received: response.stat_sn });
        }
        self.stat_sn = Some(response.stat_sn);
        // "MUST be set only in the Login-Final-Response" of a leading login; in all others it repeats the
        // request's.
        let leading = self.plan.tsih == Tsih::NEW;
        let is_last = response.next_stage == Some(Stage::FullFeaturePhase);
        let fits = match (leading, is_last) {
            (true, true) => response.tsih != Tsih::NEW,
            _ => response.tsih == self.plan.tsih,
        };
        if fits { Ok(()) } else { Err(LoginFault::TsihWrong(response.tsih)) }
    }

    /// Reads a complete step of the target.
    fn hear(&mut self) -> Result<(), LoginFault> {
        let incoming = core::mem::take(&mut self.incoming);
        let mut chap = Keys::default();
        for pair in incoming.pairs() {
            let pair = pair?;
            if self.prover.is_some() && chap.take(pair.key, pair.value).map_err(LoginFault::Unproven)? {
                continue;
            }
            self.said.push((pair.key.to_owned(), pair.value.to_vec()));
            self.hear_pair(pair)?;
        }
        self.prove(&chap)
    }

    /// One step of CHAP, if that was agreed.
    fn prove(&mut self, keys: &Keys<'_>) -> Result<(), LoginFault> {
        if self.stage != Stage::SecurityNegotiation {
            return Ok(());
        }
        let agreed = self.agreed_on_chap();
        let said = match (&mut self.prover, agreed) {
            (Some(prover), _) => prover.receive(keys).map_err(LoginFault::Unproven)?,
            (None, Some(credentials)) => {
                let nonce = self.nonce.take();
                self.prover.insert(Prover::new(credentials, nonce)).offer()
            }
            (None, None) => return Ok(()),
        };
        for (key, value) in said {
            self.say(key, &value);
        }
        Ok(())
    }

    fn agreed_on_chap(&self) -> Option<Credentials> {
        self.plan.credentials.clone().filter(|_| self.value_said("AuthMethod") == Some(b"CHAP"))
    }

    /// A target that has to prove itself has done so before the stage ends (§12.1.3).
    fn target_is_proven(&self) -> Result<(), LoginFault> {
        let proven = match (&self.prover, &self.plan.credentials) {
            (Some(prover), _) => prover.is_done(),
            (None, Some(credentials)) => credentials.target.is_none(),
            (None, None) => true,
        };
        if proven { Ok(()) } else { Err(LoginFault::Unproven(Refusal::ProofMissing)) }
    }

    fn hear_pair(&mut self, Pair { key, value }: Pair<'_>) -> Result<(), LoginFault> {
        if DECLARED_TEXTS.contains(&key) {
            return Ok(());
        }
        if let Some(index) = self.unanswered.iter().position(|(offered, _)| offered == key) {
            let (_, offered) = self.unanswered.remove(index);
            self.settled.push(key.to_owned());
            if NO_RESULT.contains(&value) {
                return Ok(());
            }
            return self.settle(key, &offered, value);
        }
        if self.settled.iter().any(|settled| settled == key) {
            return Err(LoginFault::KeyRepeated(key.to_owned()));
        }
        self.settled.push(key.to_owned());
        if NO_RESULT.contains(&value) {
            return Ok(());
        }
        match keys::answer_to_proposal(key, value) {
            None => self.settle(key, "512", value),
            Some(answer) => {
                if !NO_RESULT.contains(&answer.as_slice()) {
                    keys::settle(&mut self.parameters, key, &answer);
                }
                self.outgoing.push(key, &answer).map_err(|_| LoginFault::Endless)
            }
        }
    }

    fn settle(&mut self, key: &str, offered: &str, answer: &[u8]) -> Result<(), LoginFault> {
        if !keys::admits(key, offered, answer) {
            let answer = String::from_utf8_lossy(answer).into_owned();
            return Err(LoginFault::AnswerInadmissible {
                key: key.to_owned(),
                offered: offered.to_owned(),
                answer,
            });
        }
        keys::settle(&mut self.parameters, key, answer);
        Ok(())
    }

    fn every_offer_is_answered(&self) -> Result<(), LoginFault> {
        match self.unanswered.first() {
            Some((key, _)) => Err(LoginFault::KeyUnanswered(key.clone())),
            None => Ok(()),
        }
    }

    fn finish(&mut self, response: &LoginResponse) -> Result<Progress, LoginFault> {
        self.every_offer_is_answered()?;
        let (expected, maximum) = (response.expected_cmd_sn, response.maximum_cmd_sn);
        let window = CommandWindow::new(expected, maximum)
            .filter(|_| expected == self.plan.first_cmd_sn || self.plan.tsih != Tsih::NEW)
            .ok_or(LoginFault::WindowWrong { expected, maximum })?;
        self.turn = Turn::Nobodys;
        let mut parameters = self.parameters;
        // §13.14; the two may have been negotiated one by one.
        parameters.first_burst_length = parameters.first_burst_length.min(parameters.max_burst_length);
        let text = |key| self.value_said(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let portal_group_tag = self
            .value_said("TargetPortalGroupTag")
            .and_then(|value| keys::number_within(value, 0, 65_535))
            .and_then(|tag| u16::try_from(tag).ok());
        Ok(Progress::Done(Box::new(Established {
            parameters,
            discovery: self.plan.kind == SessionKind::Discovery,
            tsih: response.tsih,
            cid: self.plan.cid,
            window,
            expected_stat_sn: response.stat_sn.next(),
            portal_group_tag,
            target_alias: text("TargetAlias"),
            said: core::mem::take(&mut self.said),
        })))
    }

    fn value_said(&self, key: &str) -> Option<&[u8]> {
        self.said.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }
}

/// Keys that are told, not negotiated (§13).
const DECLARED_TEXTS: [&str; 7] = [
    "InitiatorName",
    "InitiatorAlias",
    "SessionType",
    "TargetName",
    "TargetAlias",
    "TargetAddress",
    "TargetPortalGroupTag",
];

/// Answers after which the default holds (§6.2).
const NO_RESULT: [&[u8]; 3] = [b"NotUnderstood", b"Irrelevant", b"Reject"];

/// Status-Class 1 comes with a TargetAddress; what else such text says does not matter.
fn refusal(status: LoginStatus, data: &[u8]) -> LoginFault {
    if status.class != LoginStatus::TARGET_MOVED_TEMPORARILY.class {
        return LoginFault::Refused(status);
    }
    let address = crate::text::pairs(data)
        .filter_map(Result::ok)
        .find(|pair| pair.key == "TargetAddress")
        .map(|pair| String::from_utf8_lossy(pair.value).into_owned());
    LoginFault::Redirected { status, address }
}
