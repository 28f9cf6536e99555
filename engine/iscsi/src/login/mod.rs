//! The login phase as the target sees it (RFC 7143 §6.3, §11.12, §11.13).
//!
//! A [`TargetLogin`] is a value: Login Requests go in with their text, Login Responses come out with theirs, until a
//! [`Completed`] says what was agreed. It asks a [`Directory`] who may use what. It never reads a socket, never keeps
//! time (how long a login may last is the caller's), and never decides about sessions.
//!
//! Bounded before anybody is authenticated: [`LOGIN_REQUESTS_MAX`] requests of at most 8192 bytes of text each,
//! [`text::STEP_BYTES_MAX`](crate::text::STEP_BYTES_MAX) bytes per step in either direction.

mod authentication;
mod completed;
mod directory;
mod identity;
#[cfg(test)]
mod tests;

pub use completed::{Completed, SessionType};
pub use directory::{Admission, Directory, Lookup, QUEUED_COMMANDS_MAX, Relocation};

use crate::chap::{Keys, Nonce};
use crate::negotiate::{
    Answer, DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH, Key, Negotiator, OFFERED_DIGEST, Phase, TargetKeys, Value,
};
use crate::sn::{CmdSn, StatSn};
use crate::text::{self, Incoming, Outgoing, SIMPLE_VALUE_BYTES_MAX, STEP_BYTES_MAX};
use crate::violation::{Answer as Verdict, LoginViolation, Violation};
use crate::wire::login::VERSION;
use crate::wire::{Bhs, LoginRequest, LoginResponse, LoginStatus, Stage, Tsih, initiator_task_tag};
use authentication::Authentication;
use identity::{Identity, Unwelcome};

/// How many Login Requests one login may take. Dialogues in the field have 2 to 8.
pub const LOGIN_REQUESTS_MAX: u32 = 32;

/// The length of every data segment in the login phase, both ways, until a smaller one is declared (§13.12).
pub const LOGIN_DATA_SEGMENT_BYTES_MAX: u32 = DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH;

/// §11.13.5: where the status is no success, only it counts; the stage is sent as 0.
const STAGE_OF_A_REFUSAL: Stage = Stage::SecurityNegotiation;

/// What the caller settles before the first byte.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The StatSN of the first Login Response; any number (§11.13.4).
    pub stat_sn: StatSn,
    /// The values for a discovery session, which has no target to ask.
    pub discovery: TargetKeys,
    /// How many commands a discovery session takes at once, from 1 to [`QUEUED_COMMANDS_MAX`].
    pub discovery_queued_commands: u16,
}

/// A Login Response and its text, ready to be framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginReply {
    /// The 48 bytes; its data segment length is that of `text`.
    pub response: LoginResponse,
    /// The data segment.
    pub text: Vec<u8>,
}

/// What follows from a Login Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This goes back, and the login goes on.
    More(LoginReply),
    /// Nothing goes back yet: the caller accepts or refuses.
    Complete(Box<Completed>),
    /// This goes back, and the connection is closed.
    Refused(LoginReply),
}

/// One login, from the first Login Request on a connection to the last.
#[derive(Debug)]
pub struct TargetLogin {
    options: Options,
    /// The first request: what may not change from one to the next (§11.12).
    first: Option<LoginRequest>,
    stage: Stage,
    stat_sn: StatSn,
    requests: u32,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The step that `outgoing` answers has not been answered in full.
    answering: bool,
    identity: Option<Identity>,
    /// The name of the target that the session is to be with, though it may come to nothing.
    asked_for: Option<String>,
    negotiator: Option<Negotiator>,
    authentication: Authentication,
    own_length_declared: bool,
    /// Keys were offered to the initiator that it has not answered.
    offers: bool,
}

impl TargetLogin {
    /// A connection from which nothing has come. The randomness is for a challenge, should one be needed.
    #[must_use]
    pub fn new(options: Options, nonce: Nonce) -> Self {
        assert!((1..=QUEUED_COMMANDS_MAX).contains(&options.discovery_queued_commands));
        Self {
            options,
            first: None,
            stage: Stage::SecurityNegotiation,
            stat_sn: options.stat_sn,
            requests: 0,
            incoming: Incoming::default(),
            outgoing: Outgoing::with_bound(STEP_BYTES_MAX),
            answering: false,
            identity: None,
            asked_for: None,
            negotiator: None,
            authentication: Authentication::new(nonce),
            own_length_declared: false,
            offers: false,
        }
    }

    /// Takes one Login Request with its data segment.
    ///
    /// # Errors
    /// The login has failed; [`TargetLogin::refusal`] makes the response, and the connection is closed after it.
    pub fn receive(
        &mut self,
        request: &LoginRequest,
        data: &[u8],
        directory: &dyn Directory,
    ) -> Result<Step, Violation> {
        self.admit(request)?;
        if self.answering {
            // §6.2: while the answer goes on, the requests in between are empty.
            if request.data_segment_length != 0 || request.continues {
                return Err(Violation::TextBeforeAnswer);
            }
        } else {
            self.incoming.append(data)?;
            if request.continues {
                // §6.2: a step that goes on is answered with no text until it ends.
                return Ok(Step::More(self.reply(request)));
            }
            if let Some(unwelcome) = self.answer_step(request, directory)? {
                return Ok(Step::Refused(self.refused(request, &unwelcome)));
            }
        }
        self.conclude(request)
    }

    /// Whether the next Login Request is to carry a proof of who the initiator is: a caller that slows guessing waits
    /// before it hands that in.
    #[must_use]
    pub fn awaits_proof(&self) -> bool {
        self.authentication.awaits_proof()
    }

    /// The target's name as it was asked for, once it was; a discovery session has none.
    #[must_use]
    pub fn target_name(&self) -> Option<&str> {
        self.asked_for.as_deref()
    }

    /// A PDU that is no Login Request came instead of one (§6.3): before the first, the connection is closed without a
    /// word; after it, the login is rejected.
    #[must_use]
    pub fn intruder(&self, opcode: u8) -> Violation {
        if self.first.is_some() {
            Violation::Login(LoginViolation::InvalidDuringLogin { opcode })
        } else {
            Violation::Login(LoginViolation::NotLoggedIn { opcode })
        }
    }

    /// The Login Response that tells the initiator of a violation, or nothing where it is to be told nothing. `bhs` is
    /// the header in which, or after which, it was found. The connection is closed either way.
    #[must_use]
    pub fn refusal(&self, bhs: &Bhs, violation: &Violation) -> Option<LoginReply> {
        let status = match violation.answer() {
            Verdict::LoginStatus(status) => status,
            // What would earn a Reject later ends the login (§7.12).
            Verdict::Reject(_) => LoginStatus::INITIATOR_ERROR,
            Verdict::DropConnection | Verdict::DropSession | Verdict::Ignore => return None,
        };
        let request = self.first;
        let response = LoginResponse {
            current_stage: STAGE_OF_A_REFUSAL,
            next_stage: None,
            continues: false,
            version_max: VERSION,
            version_active: VERSION,
            data_segment_length: 0,
            isid: request.map(|request| request.isid).unwrap_or_default(),
            tsih: request.map(|request| request.tsih).unwrap_or_default(),
            initiator_task_tag: request.map_or(initiator_task_tag(bhs), |request| request.initiator_task_tag),
            stat_sn: self.stat_sn,
            expected_cmd_sn: request.map(|request| request.cmd_sn).unwrap_or_default(),
            maximum_cmd_sn: request.as_ref().map(maximum_before_the_end).unwrap_or_default(),
            status,
        };
        Some(LoginReply { response, text: Vec::new() })
    }

    /// The header on its own, and against those before it.
    fn admit(&mut self, request: &LoginRequest) -> Result<(), Violation> {
        self.requests += 1;
        if self.requests > LOGIN_REQUESTS_MAX {
            return Err(Violation::Login(LoginViolation::LoginTooLong { maximum: LOGIN_REQUESTS_MAX }));
        }
        // §11.12.4: there is one version, 0x00.
        if request.version_min > VERSION {
            return Err(Violation::Login(LoginViolation::UnsupportedVersion {
                minimum: request.version_min,
            }));
        }
        if request.data_segment_length > LOGIN_DATA_SEGMENT_BYTES_MAX {
            return Err(Violation::DataSegmentTooLong {
                opcode: LoginRequest::OPCODE,
                length: request.data_segment_length,
                maximum: LOGIN_DATA_SEGMENT_BYTES_MAX,
            });
        }
        let Some(first) = self.first else {
            // §6.3: the initiator may leave the security stage out; whether it may is settled with the target.
            self.stage = request.current_stage;
            self.first = Some(*request);
            return Ok(());
        };
        // §11.12.5 to §11.12.7: one login, one name. §11.12.8: the CmdSN of a leading login is that of the first command to
        // come, and stays; that of a login which joins a session goes on with the commands on its other connections.
        let same = first.isid == request.isid
            && first.tsih == request.tsih
            && first.cid == request.cid
            && first.initiator_task_tag == request.initiator_task_tag
            && (first.cmd_sn == request.cmd_sn || first.tsih != Tsih::NEW);
        if !same {
            return Err(Violation::Login(LoginViolation::LoginFieldChanged));
        }
        if request.current_stage != self.stage {
            return Err(Violation::Login(LoginViolation::LoginStageMismatch {
                expected: self.stage,
                actual: request.current_stage,
            }));
        }
        Ok(())
    }

    /// The whole step is in: reads it, and writes the answer. A status where the target is not for this initiator.
    fn answer_step(
        &mut self,
        request: &LoginRequest,
        directory: &dyn Directory,
    ) -> Result<Option<Unwelcome>, Violation> {
        let incoming = core::mem::take(&mut self.incoming);
        self.outgoing.clear();
        if self.identity.is_none() {
            let identity = match identity::read(&incoming, directory, &self.options)? {
                Ok(identity) => identity,
                Err(mut unwelcome) => {
                    self.asked_for = unwelcome.target_name.take();
                    return Ok(Some(unwelcome));
                }
            };
            let demanded = !directory.users(identity.target_of_session()).incoming.is_empty();
            self.asked_for = identity.target_of_session().map(str::to_owned);
            self.authentication.settle(demanded, self.stage).map_err(LoginViolation::Unproven)?;
            let discovery = identity.session_type == SessionType::Discovery;
            let mut negotiator = Negotiator::new(&identity.admission.keys, discovery);
            if demanded {
                negotiator.demand_chap();
            }
            if request.tsih != Tsih::NEW {
                negotiator.join_session();
            }
            self.negotiator = Some(negotiator);
            self.introduce(&identity)?;
            self.identity = Some(identity);
        }
        let keys = self.negotiate(&incoming)?;
        self.authenticate(&keys, request, directory)?;
        self.identity.as_mut().expect("made above").settle();
        self.declare_own_length(request)?;
        self.offer_digests(request)?;
        self.answering = true;
        Ok(None)
    }

    fn authenticate(
        &mut self,
        keys: &Keys<'_>,
        request: &LoginRequest,
        directory: &dyn Directory,
    ) -> Result<(), Violation> {
        let target = self.identity.as_ref().and_then(Identity::target_of_session);
        let leaves = request.next_stage.is_some();
        let said =
            self.authentication.advance(keys, leaves, target, directory).map_err(LoginViolation::Unproven)?;
        for (key, value) in said {
            say(&mut self.outgoing, key, value.as_bytes())?;
        }
        Ok(())
    }

    /// §13.9: TargetPortalGroupTag goes out with the answer to the first step, where that names a target; in a discovery
    /// session, too.
    fn introduce(&mut self, identity: &Identity) -> Result<(), Violation> {
        if let Some(alias) = &identity.admission.alias {
            say(&mut self.outgoing, Key::TargetAlias.name(), alias.as_bytes())?;
        }
        let Some(tag) = identity.served_by else { return Ok(()) };
        say_number(&mut self.outgoing, Key::TargetPortalGroupTag.name(), u32::from(tag))
    }

    /// Answers the pairs of a step, but for those of CHAP, which it gives back.
    fn negotiate<'a>(&mut self, incoming: &'a Incoming) -> Result<Keys<'a>, Violation> {
        let phase = match self.stage {
            Stage::LoginOperationalNegotiation => Phase::Operational,
            _ => Phase::Security,
        };
        let negotiator = self.negotiator.as_mut().expect("made with the identity");
        let identity = self.identity.as_mut().expect("made before");
        let mut chap = Keys::default();
        incoming.pairs().flatten().for_each(|pair| negotiator.foresee(pair.key, pair.value));
        for pair in incoming.pairs() {
            let pair = pair?;
            let under_way = phase == Phase::Security && self.authentication.is_under_way();
            if under_way && chap.take(pair.key, pair.value).map_err(LoginViolation::Unproven)? {
                continue;
            }
            match negotiator.receive(pair.key, pair.value, phase).map_err(LoginViolation::KeyMisused)? {
                Answer::Declared(key, value) => {
                    if value.len() > SIMPLE_VALUE_BYTES_MAX {
                        let (length, maximum) = (value.len(), SIMPLE_VALUE_BYTES_MAX);
                        return Err(Violation::TextValueTooLong { length, maximum });
                    }
                    identity.declared(key, value)?;
                }
                Answer::Value(key, Value::Text(value)) => {
                    if (key, value) == (Key::AuthMethod, "CHAP") {
                        self.authentication.begin();
                    }
                    say(&mut self.outgoing, key.name(), value.as_bytes())?
                }
                Answer::Value(key, Value::Number(value)) => {
                    say_number(&mut self.outgoing, key.name(), value)?
                }
                Answer::Answered => {}
                Answer::NotUnderstood => say(&mut self.outgoing, pair.key, b"NotUnderstood")?,
            }
        }
        Ok(chap)
    }

    /// §13.12: a declaration of the operational stage, made once.
    fn declare_own_length(&mut self, request: &LoginRequest) -> Result<(), Violation> {
        if self.own_length_declared || request.current_stage != Stage::LoginOperationalNegotiation {
            return Ok(());
        }
        self.own_length_declared = true;
        let identity = self.identity.as_ref().expect("made before");
        let length = identity.admission.keys.max_recv_data_segment_length;
        say_number(&mut self.outgoing, Key::MaxRecvDataSegmentLength.name(), length)
    }

    /// Sends the next piece of the answer; with the last one the stage changes, if the initiator asks for it.
    fn conclude(&mut self, request: &LoginRequest) -> Result<Step, Violation> {
        let fits = self.outgoing.remaining() <= self.piece_bytes_max();
        if fits && self.stage_after(request) == Some(Stage::FullFeaturePhase) {
            if let Some(digest) = self.negotiator.as_ref().and_then(Negotiator::lacks) {
                return Err(Violation::Login(LoginViolation::DigestMissing(digest)));
            }
            return Ok(Step::Complete(Box::new(self.complete(request))));
        }
        Ok(Step::More(self.reply(request)))
    }

    /// An initiator is about to leave the operational stage without a word on a digest that is demanded: it is asked for one,
    /// once, and stays until it has answered (§6.3.2: T is the target's to withhold).
    fn offer_digests(&mut self, request: &LoginRequest) -> Result<(), Violation> {
        self.offers = false;
        let leaves = request.next_stage == Some(Stage::FullFeaturePhase);
        if request.current_stage != Stage::LoginOperationalNegotiation || !leaves {
            return Ok(());
        }
        let negotiator = self.negotiator.as_mut().expect("made with the identity");
        while let Some(digest) = negotiator.next_offer() {
            say(&mut self.outgoing, digest.name(), OFFERED_DIGEST.as_bytes())?;
            self.offers = true;
        }
        Ok(())
    }

    /// Where both sides go after this request: the target stays until the initiator has proven itself, and has answered what it
    /// was asked (§6.3.2).
    fn stage_after(&self, request: &LoginRequest) -> Option<Stage> {
        request.next_stage.filter(|_| !self.authentication.holds() && !self.offers)
    }

    /// A response that goes on with the login. Text that is left goes out first: T waits for its end.
    fn reply(&mut self, request: &LoginRequest) -> LoginReply {
        let bytes_max = self.piece_bytes_max();
        let (text, continues) = if self.answering {
            let piece = self.outgoing.take_piece(bytes_max);
            (piece.bytes.to_vec(), piece.continues)
        } else {
            (Vec::new(), false)
        };
        self.answering = self.answering && continues;
        let next_stage = if continues || request.continues { None } else { self.stage_after(request) };
        let response = LoginResponse {
            next_stage,
            continues,
            data_segment_length: length_of(&text),
            ..self.success(request)
        };
        self.stage = next_stage.unwrap_or(self.stage);
        LoginReply { response, text }
    }

    fn complete(&mut self, request: &LoginRequest) -> Completed {
        let text = self.outgoing.take_piece(self.piece_bytes_max()).bytes.to_vec();
        let identity = self.identity.take().expect("made with the first step");
        let mut parameters = self.negotiator.as_ref().expect("made with the identity").parameters();
        if !self.own_length_declared {
            // A login that leaves the operational stage out: the initiator was never told ours.
            parameters.own_max_recv_data_segment_length = DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH;
        }
        Completed {
            session_type: identity.session_type,
            initiator_name: identity.initiator_name,
            initiator_alias: identity.initiator_alias,
            target_name: identity.target_name,
            portal_group_tag: identity.admission.portal_group_tag,
            authenticated_as: self.authentication.proven().map(str::to_owned),
            isid: request.isid,
            tsih: request.tsih,
            cid: request.cid,
            cmd_sn: request.cmd_sn,
            stat_sn: self.stat_sn,
            parameters,
            queued_commands: identity.admission.queued_commands,
            current_stage: request.current_stage,
            initiator_task_tag: request.initiator_task_tag,
            text,
        }
    }

    fn refused(&mut self, request: &LoginRequest, unwelcome: &Unwelcome) -> LoginReply {
        let text = unwelcome.text();
        let response = LoginResponse {
            status: unwelcome.status,
            current_stage: STAGE_OF_A_REFUSAL,
            data_segment_length: length_of(&text),
            ..self.success(request)
        };
        LoginReply { response, text }
    }

    /// A response without text, with the next StatSN. The command window is not open yet, so it is as small as it
    /// gets; the final response opens it.
    fn success(&mut self, request: &LoginRequest) -> LoginResponse {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.next();
        LoginResponse {
            current_stage: self.stage,
            next_stage: None,
            continues: false,
            version_max: VERSION,
            version_active: VERSION,
            data_segment_length: 0,
            isid: request.isid,
            tsih: request.tsih,
            initiator_task_tag: request.initiator_task_tag,
            stat_sn,
            expected_cmd_sn: request.cmd_sn,
            maximum_cmd_sn: maximum_before_the_end(request),
            status: LoginStatus::SUCCESS,
        }
    }

    fn piece_bytes_max(&self) -> usize {
        let declared =
            self.negotiator.as_ref().map_or(u32::MAX, Negotiator::peer_max_recv_data_segment_length);
        declared.min(LOGIN_DATA_SEGMENT_BYTES_MAX) as usize
    }
}

/// MaxCmdSN until the login is accepted. The window of a session that a connection would join is not known here: so far below
/// ExpCmdSN, both are ignored (§4.2.2.1), which else would acknowledge what has come on other connections.
fn maximum_before_the_end(request: &LoginRequest) -> CmdSn {
    match request.tsih {
        Tsih::NEW => request.cmd_sn,
        _ => request.cmd_sn.previous().previous(),
    }
}

/// The answers to a step of [`STEP_BYTES_MAX`] may be longer than the step ("NotUnderstood" is longer than most
/// values); who provokes more than the bound has sent too much (CVE-2013-2850 was such an answer without a bound).
fn say(outgoing: &mut Outgoing, key: &str, value: &[u8]) -> Result<(), Violation> {
    outgoing.push(key, value).map_err(|text::TextFull| Violation::TextTooLong { maximum: STEP_BYTES_MAX })
}

fn say_number(outgoing: &mut Outgoing, key: &str, number: u32) -> Result<(), Violation> {
    say(outgoing, key, number.to_string().as_bytes())
}

fn length_of(text: &[u8]) -> u32 {
    u32::try_from(text.len()).expect("a piece of text is at most 8192 bytes")
}
