//! Text negotiation as the acceptor sees it: the result functions of RFC 7143 §6.2 over the key table of §13.
//!
//! One [`Negotiator`] lives as long as one login (or one text exchange in the full feature phase). It is told each
//! key=value pair, keeps the result, and says what to answer. It never parses PDUs, proposes no key of its own but a digest
//! that is demanded ([`Negotiator::next_offer`]), and never allocates: the texts that a peer declares (names, aliases) are handed back to the caller.
//!
//! Where the initiator is silent on a key, the standard's default holds, even where our own value is stricter: §6.2
//! lets a target open a negotiation of its own, but several initiators in the field do not answer one.

mod table;

pub use table::{DATA_LENGTH_MAX, DATA_LENGTH_MIN, DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH, Key};
use table::{FULL_FEATURE, Form, KEYS, OPERATIONAL, RULES, Rule, SECURITY, Senders, Values};

use crate::framing::Digests;
use crate::text::value as form;

/// The target's own values: what it offers, per target, from its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetKeys {
    /// The longest data segment that this target takes, in bytes; declared to the initiator.
    pub max_recv_data_segment_length: u32,
    /// The longest sequence of Data-In or of solicited Data-Out, in bytes.
    pub max_burst_length: u32,
    /// The most unsolicited data per command, immediate data included, in bytes.
    pub first_burst_length: u32,
    /// Whether the initiator has to wait for an R2T before any Data-Out PDU.
    pub initial_r2t: bool,
    /// Whether the initiator may put data into the command's own PDU.
    pub immediate_data: bool,
    /// How many R2Ts of one task may be outstanding, from 1.
    pub max_outstanding_r2t: u16,
    /// How many connections a session may have, from 1.
    pub max_connections: u16,
    /// ErrorRecoveryLevel: 0 to 2.
    pub error_recovery_level: u8,
    /// The least time before a reconnection, in seconds, at most 3600.
    pub default_time2wait: u16,
    /// How long a task is kept for reassignment, in seconds, at most 3600.
    pub default_time2retain: u16,
    /// Which header digests it takes; the initiator's list decides among them.
    pub header_digest: DigestChoice,
    /// Which data digests it takes.
    pub data_digest: DigestChoice,
}

/// The digests of one key that a target takes (§13.1): at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestChoice {
    /// `None` alone.
    None,
    /// `CRC32C` alone: an initiator that is silent is offered it, one that offers only None is answered Reject, and none gets
    /// in without.
    Crc32c,
    /// Both.
    Either,
}

/// The result of a login: what both sides keep to from the full feature phase on. Lengths in bytes, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Whether headers carry a CRC32C (§13.1).
    pub header_digest: bool,
    /// Whether data segments carry a CRC32C (§13.1).
    pub data_digest: bool,
    /// §13.2
    pub max_connections: u16,
    /// §13.10
    pub initial_r2t: bool,
    /// §13.11
    pub immediate_data: bool,
    /// The longest data segment that we take (§13.12).
    pub own_max_recv_data_segment_length: u32,
    /// The longest data segment that the peer takes (§13.12).
    pub peer_max_recv_data_segment_length: u32,
    /// §13.13
    pub max_burst_length: u32,
    /// §13.14; never more than `max_burst_length`.
    pub first_burst_length: u32,
    /// §13.15
    pub default_time2wait: u16,
    /// §13.16
    pub default_time2retain: u16,
    /// §13.17
    pub max_outstanding_r2t: u16,
    /// §13.18
    pub data_pdu_in_order: bool,
    /// §13.19
    pub data_sequence_in_order: bool,
    /// §13.20
    pub error_recovery_level: u8,
    /// §13.23
    pub task_reporting: TaskReporting,
    /// §13.24: [`Parameters::has_features_update`] says what it means.
    pub protocol_level: u8,
}

/// The semantics of multi-task aborts (§13.23, §4.2.3.3, §4.2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskReporting {
    /// The standard multi-task abort semantics of RFC 3720.
    Rfc3720,
    /// Responses are fenced.
    ResponseFence,
    /// Third-party aborts are reported by an Asynchronous Message.
    FastAbort,
}

/// Where in the life of a connection a key was sent (§13, "Use").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Login, security negotiation stage.
    Security,
    /// Login, operational negotiation stage.
    Operational,
    /// After login, in a Text Request.
    FullFeature,
}

/// What is to be done about one key=value pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A declaration; nothing is answered, and a text is the caller's to keep (§6.2).
    Declared(Key, &'a [u8]),
    /// Negotiated; `key=value` goes back.
    Value(Key, Value),
    /// The peer's answer to what was offered to it: nothing goes back.
    Answered,
    /// No key of ours: `key=NotUnderstood` goes back (§6.2).
    NotUnderstood,
}

/// The value of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A constant or one of the values of a list.
    Text(&'static str),
    /// A number, written in decimal.
    Number(u32),
}

/// How a peer can misuse a key. Each ends the login with "initiator error" (§6.3), but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// The key belongs to another phase (§13).
    WrongPhase(Key),
    /// Only a target may send this key (§13).
    WrongSender(Key),
    /// The key was sent before in this login: renegotiation is forbidden (§6.3).
    Repeated(Key),
    /// None of the proposed authentication methods is one of ours (§12.1): "authentication failure".
    NoCommonAuthMethod,
}

/// The acceptor's side of one login, or of one text exchange in the full feature phase.
#[derive(Clone, Debug)]
pub struct Negotiator {
    own: Values,
    result: Values,
    seen: u32,
    /// What we have offered ourselves.
    offered: u32,
    discovery: bool,
    joins: bool,
}

impl Negotiator {
    /// A login to a target with these values. `discovery` makes the keys of normal sessions irrelevant.
    #[must_use]
    pub fn new(keys: &TargetKeys, discovery: bool) -> Self {
        let mut own = keys.values();
        if discovery {
            // §7.4: there is nothing to recover, whatever is proposed.
            own[Key::ErrorRecoveryLevel as usize] = 0;
        }
        Self { own, result: default_values(), seen: 0, offered: 0, discovery, joins: false }
    }

    /// Looks at a pair that is about to be received in the same step. Above recovery level 0 there is one R2T at a time
    /// (§13.19), and MaxOutstandingR2T may stand before the level.
    pub fn foresee(&mut self, name: &str, value: &[u8]) {
        let row = Key::ErrorRecoveryLevel as usize;
        if Key::named(name) == Some(Key::ErrorRecoveryLevel)
            && !self.joins
            && number_within(value, 0, 2).is_some_and(|level| level.min(self.own[row]) > 0)
        {
            self.own[Key::MaxOutstandingR2T as usize] = 1;
        }
    }

    /// The connection joins a session: what only the first one negotiates (§13, "Use: LO") stands.
    pub fn join_session(&mut self) {
        self.joins = true;
    }

    /// A digest that is demanded and of which the initiator has said nothing: the target proposes it, `CRC32C` and nothing else
    /// (§6.2, §13.1: the key is either side's to send). Each once; the default of None is no choice of the administrator's.
    pub fn next_offer(&mut self) -> Option<Key> {
        let key = self.lacking().find(|key| (self.seen | self.offered) & (1 << (*key as u32)) == 0)?;
        self.offered |= 1 << (key as u32);
        Some(key)
    }

    /// A digest that is demanded and was not agreed on.
    #[must_use]
    pub fn lacks(&self) -> Option<Key> {
        self.lacking().next()
    }

    fn lacking(&self) -> impl Iterator<Item = Key> {
        let is_lacking =
            |key: &Key| self.own[*key as usize] == ONLY_CRC32C && self.result[*key as usize] == 0;
        [Key::HeaderDigest, Key::DataDigest].into_iter().filter(is_lacking)
    }

    /// Of the authentication methods, CHAP alone is admitted, not None (§12.1).
    pub fn demand_chap(&mut self) {
        self.own[Key::AuthMethod as usize] = ONLY_CHAP;
    }

    /// Takes one pair and says what to answer. The result is kept until [`Negotiator::parameters`] reads it.
    ///
    /// # Errors
    /// [`Misuse`] when the pair may not be sent here; the login has failed.
    pub fn receive<'a>(&mut self, name: &str, value: &'a [u8], phase: Phase) -> Result<Answer<'a>, Misuse> {
        let Some(key) = Key::named(name) else { return Ok(Answer::NotUnderstood) };
        let rule = key.rule();
        if rule.senders == Senders::Target {
            return Err(Misuse::WrongSender(key));
        }
        if !rule.phases.admits(phase.bit()) {
            return Err(Misuse::WrongPhase(key));
        }
        let bit = 1 << (key as u32);
        if self.seen & bit != 0 {
            return Err(Misuse::Repeated(key));
        }
        self.seen |= bit;
        if self.offered & bit != 0 {
            // Anything else than what was offered leaves the default, with which nobody gets in.
            self.result[key as usize] = u32::from(value == OFFERED_DIGEST.as_bytes());
            return Ok(Answer::Answered);
        }
        if (self.discovery && rule.normal_session_only) || (self.joins && key.is_leading_only()) {
            return Ok(Answer::Value(key, Value::Text(IRRELEVANT)));
        }
        self.negotiate(rule, value)
    }

    fn negotiate<'a>(&mut self, rule: &'static Rule, value: &'a [u8]) -> Result<Answer<'a>, Misuse> {
        let key = rule.key;
        let own = self.own[key as usize];
        let result = match rule.form {
            Form::DeclaredText => return Ok(Answer::Declared(key, value)),
            Form::Obsolete(constant) => return Ok(Answer::Value(key, Value::Text(constant))),
            Form::DeclaredNumber(min, max) => {
                let Some(number) = number_within(value, min, max) else { return Ok(rejected(key)) };
                self.result[key as usize] = number;
                return Ok(Answer::Declared(key, value));
            }
            Form::Choice(choices) => first_supported(value, choices, own),
            Form::And => boolean(value).map(|theirs| theirs & own),
            Form::Or => boolean(value).map(|theirs| theirs | own),
            Form::Least(min, max) => number_within(value, min, max).map(|theirs| theirs.min(own)),
            Form::Greatest(min, max) => number_within(value, min, max).map(|theirs| theirs.max(own)),
        };
        match result {
            Some(result) => {
                self.result[key as usize] = result;
                self.keep_first_burst_within_burst();
                self.keep_recovery_to_one_r2t();
                Ok(Answer::Value(key, self.spoken(rule)))
            }
            None if key == Key::AuthMethod => Err(Misuse::NoCommonAuthMethod),
            // §6.2.1, §6.2.2: what is not admissible, or offers nothing that we have, MAY be answered "Reject"; the
            // current value stays.
            None => Ok(rejected(key)),
        }
    }

    /// §13.14: FirstBurstLength MUST NOT exceed MaxBurstLength. Both sides' values keep to it, but a peer may name
    /// only one of the two, and then the other's default may be too large.
    fn keep_first_burst_within_burst(&mut self) {
        let burst = self.result[Key::MaxBurstLength as usize];
        let first = &mut self.result[Key::FirstBurstLength as usize];
        *first = (*first).min(burst);
    }

    /// §13.19: where ErrorRecoveryLevel is not 0 and DataSequenceInOrder is Yes, as it always is here, MaxOutstandingR2T MUST
    /// be 1. What was negotiated in an earlier step stands.
    fn keep_recovery_to_one_r2t(&mut self) {
        if self.result[Key::ErrorRecoveryLevel as usize] > 0 {
            self.own[Key::MaxOutstandingR2T as usize] = 1;
        }
        if self.result[Key::MaxOutstandingR2T as usize] > 1 {
            self.own[Key::ErrorRecoveryLevel as usize] = 0;
        }
    }

    fn spoken(&self, rule: &Rule) -> Value {
        let result = self.result[rule.key as usize];
        match rule.form {
            Form::Choice(choices) => Value::Text(choices[result as usize]),
            Form::And | Form::Or => Value::Text(if result == 0 { "No" } else { "Yes" }),
            _ => Value::Number(result),
        }
    }

    /// The length that the peer declared for its side, or the default.
    #[must_use]
    pub fn peer_max_recv_data_segment_length(&self) -> u32 {
        self.result[Key::MaxRecvDataSegmentLength as usize]
    }

    /// The result so far; what was not negotiated has its default.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        let is = |key: Key| self.result[key as usize] != 0;
        let long = |key: Key| self.result[key as usize];
        let short = |key: Key| u16::try_from(long(key)).expect("the table's range ends within 16 bits");
        let byte = |key: Key| u8::try_from(long(key)).expect("the table's range ends within 8 bits");
        Parameters {
            header_digest: is(Key::HeaderDigest),
            data_digest: is(Key::DataDigest),
            max_connections: short(Key::MaxConnections),
            initial_r2t: is(Key::InitialR2T),
            immediate_data: is(Key::ImmediateData),
            own_max_recv_data_segment_length: self.own[Key::MaxRecvDataSegmentLength as usize],
            peer_max_recv_data_segment_length: long(Key::MaxRecvDataSegmentLength),
            max_burst_length: long(Key::MaxBurstLength),
            first_burst_length: long(Key::FirstBurstLength),
            default_time2wait: short(Key::DefaultTime2Wait),
            default_time2retain: short(Key::DefaultTime2Retain),
            max_outstanding_r2t: short(Key::MaxOutstandingR2T),
            data_pdu_in_order: is(Key::DataPduInOrder),
            data_sequence_in_order: is(Key::DataSequenceInOrder),
            error_recovery_level: byte(Key::ErrorRecoveryLevel),
            task_reporting: match long(Key::TaskReporting) {
                0 => TaskReporting::Rfc3720,
                1 => TaskReporting::ResponseFence,
                _ => TaskReporting::FastAbort,
            },
            protocol_level: byte(Key::ProtocolLevel),
        }
    }
}

impl DigestChoice {
    /// As a set of indices into the key's choices.
    const fn supported(self) -> u32 {
        match self {
            Self::None => 0b01,
            Self::Crc32c => 0b10,
            Self::Either => 0b11,
        }
    }
}

impl Parameters {
    /// Whether responses are fenced (§4.2.2.3.3): agreed on, and of use to several connections alone.
    #[must_use]
    pub const fn fences_responses(&self) -> bool {
        self.max_connections > 1 && !matches!(self.task_reporting, TaskReporting::Rfc3720)
    }

    /// Whether RFC 7144 holds: its task management functions, priorities and status qualifiers, which nobody may use below
    /// iSCSIProtocolLevel 2.
    #[must_use]
    pub const fn has_features_update(&self) -> bool {
        self.protocol_level >= PROTOCOL_LEVEL
    }

    /// What each PDU of the full feature phase carries beside its bytes.
    #[must_use]
    pub const fn digests(&self) -> Digests {
        Digests { header: self.header_digest, data: self.data_digest }
    }
}

impl TargetKeys {
    /// Whether every value lies in its key's range (§13), and FirstBurstLength within MaxBurstLength (§13.14).
    /// Configuration checks this before it hands the keys to anybody.
    #[must_use]
    pub fn are_admissible(&self) -> bool {
        let values = self.values();
        let in_range = RULES.iter().all(|rule| match rule.form {
            Form::Least(min, max) | Form::Greatest(min, max) | Form::DeclaredNumber(min, max) => {
                (min..=max).contains(&values[rule.key as usize])
            }
            _ => true,
        });
        in_range && self.first_burst_length <= self.max_burst_length
    }

    /// Our side of every row.
    fn values(&self) -> Values {
        let mut values = [0; KEYS];
        let mut own = |key: Key, value: u32| values[key as usize] = value;
        own(Key::HeaderDigest, self.header_digest.supported());
        own(Key::DataDigest, self.data_digest.supported());
        own(Key::AuthMethod, ONLY_THE_FIRST);
        own(Key::TaskReporting, UP_TO_RESPONSE_FENCE);
        own(Key::MaxConnections, u32::from(self.max_connections));
        own(Key::InitialR2T, u32::from(self.initial_r2t));
        own(Key::ImmediateData, u32::from(self.immediate_data));
        own(Key::MaxRecvDataSegmentLength, self.max_recv_data_segment_length);
        own(Key::MaxBurstLength, self.max_burst_length);
        own(Key::FirstBurstLength, self.first_burst_length);
        own(Key::DefaultTime2Wait, u32::from(self.default_time2wait));
        own(Key::DefaultTime2Retain, u32::from(self.default_time2retain));
        own(Key::MaxOutstandingR2T, u32::from(self.max_outstanding_r2t));
        own(Key::DataPduInOrder, 1);
        own(Key::DataSequenceInOrder, 1);
        own(Key::ErrorRecoveryLevel, u32::from(self.error_recovery_level));
        own(Key::ProtocolLevel, u32::from(PROTOCOL_LEVEL));
        values
    }
}

impl Default for TargetKeys {
    fn default() -> Self {
        Self {
            max_recv_data_segment_length: 1 << 20,
            max_burst_length: 1 << 20,
            first_burst_length: 65_536,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 32,
            max_connections: 1,
            error_recovery_level: 0,
            default_time2wait: 2,
            default_time2retain: 20,
            header_digest: DigestChoice::Either,
            data_digest: DigestChoice::Either,
        }
    }
}

impl Default for Parameters {
    /// The standard's defaults on both sides: what holds where nothing was negotiated.
    fn default() -> Self {
        let own = TargetKeys {
            max_recv_data_segment_length: DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH,
            ..TargetKeys::default()
        };
        Negotiator::new(&own, false).parameters()
    }
}

impl core::fmt::Display for Misuse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Misuse::WrongPhase(key) => write!(f, "{} has no place in this phase", key.name()),
            Misuse::WrongSender(key) => write!(f, "{} is for targets to send", key.name()),
            Misuse::Repeated(key) => write!(f, "{} is sent again", key.name()),
            Misuse::NoCommonAuthMethod => f.write_str("none of the proposed authentication methods is ours"),
        }
    }
}

impl Phase {
    fn bit(self) -> table::Phases {
        match self {
            Phase::Security => SECURITY,
            Phase::Operational => OPERATIONAL,
            Phase::FullFeature => FULL_FEATURE,
        }
    }
}

/// §6.2: the answer to a key that another choice has made meaningless.
const IRRELEVANT: &str = "Irrelevant";
/// The iSCSIProtocolLevel of RFC 7144.
const PROTOCOL_LEVEL: u8 = 2;
/// A set of choices with nothing in it but the first.
const ONLY_THE_FIRST: u32 = 1;
/// The digest that a target offers of its own.
pub const OFFERED_DIGEST: &str = "CRC32C";
/// CRC32C is the second of the digests.
const ONLY_CRC32C: u32 = 2;
/// RFC3720 and ResponseFence.
const UP_TO_RESPONSE_FENCE: u32 = 3;
/// CHAP is the second of the authentication methods.
const ONLY_CHAP: u32 = 2;

fn default_values() -> Values {
    RULES.map(|rule| rule.default)
}

fn rejected<'a>(key: Key) -> Answer<'a> {
    Answer::Value(key, Value::Text("Reject"))
}

fn boolean(value: &[u8]) -> Option<u32> {
    form::boolean(value).map(u32::from)
}

fn number_within(value: &[u8], min: u32, max: u32) -> Option<u32> {
    let number = u32::try_from(form::number(value)?).ok()?;
    (min..=max).contains(&number).then_some(number)
}

/// §6.2.1: the first value of the proposer's list that is among the supported ones; unknown values are ignored.
fn first_supported(value: &[u8], choices: &[&str], supported: u32) -> Option<u32> {
    form::list(value).find_map(|proposed| {
        let index = choices.iter().position(|choice| choice.as_bytes() == proposed)?;
        let index = u32::try_from(index).expect("a list of choices is short");
        (supported & (1 << index) != 0).then_some(index)
    })
}

#[cfg(test)]
mod tests;
