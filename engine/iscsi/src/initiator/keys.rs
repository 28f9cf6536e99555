//! The keys that an initiator offers, and what an answer to each may be (RFC 7143 §13).
//!
//! An offer is a list of any keys with any values, sensible or not: tests need both. Where an offer is
//! well-formed, the answer is checked against it.

use crate::negotiate::{Parameters, TaskReporting};
use crate::text::value;

/// What an initiator says in the operational stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    keys: Vec<(String, String)>,
}

impl Default for Offer {
    /// What a modern initiator offers: 256 KiB segments, 1 MiB bursts, immediate and unsolicited data, 8
    /// R2Ts.
    fn default() -> Self {
        Self::none()
            .with("HeaderDigest", "None")
            .with("DataDigest", "None")
            .with("MaxConnections", "1")
            .with("InitialR2T", "No")
            .with("ImmediateData", "Yes")
            .with("MaxRecvDataSegmentLength", "262144")
            .with("MaxBurstLength", "1048576")
            .with("FirstBurstLength", "262144")
            .with("DefaultTime2Wait", "2")
            .with("DefaultTime2Retain", "0")
            .with("MaxOutstandingR2T", "8")
            .with("DataPDUInOrder", "Yes")
            .with("DataSequenceInOrder", "Yes")
            .with("ErrorRecoveryLevel", "0")
    }
}

impl Offer {
    /// Nothing; the standard's defaults hold.
    #[must_use]
    pub const fn none() -> Self {
        Self { keys: Vec::new() }
    }

    /// Adds a key, or replaces its value.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.keys.push((key.to_owned(), value.to_owned())),
        }
        self
    }

    /// What of it a connection that joins a session may offer (§13: no key that only the first one negotiates).
    #[must_use]
    pub fn of_a_connection(mut self) -> Self {
        self.keys.retain(|(name, _)| {
            matches!(name.as_str(), "HeaderDigest" | "DataDigest" | "MaxRecvDataSegmentLength")
        });
        self
    }

    /// Leaves a key out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(name, _)| name != key);
        self
    }

    /// The keys and their values, in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value offered for a key.
    #[must_use]
    pub fn value_of(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// How the result comes of the two values (§6.2.1, §6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The result is one of the offered list.
    Choice,
    /// Yes where both say so.
    And,
    /// Yes where one says so.
    Or,
    /// The lesser number, of this range.
    Least(u32, u32),
    /// The greater number, of this range.
    Greatest(u32, u32),
    /// Each side declares its own, of this range; no answer.
    Declared(u32, u32),
}

const LENGTH_MIN: u32 = 512;
const LENGTH_MAX: u32 = (1 << 24) - 1;

const RULES: [(&str, Rule); 17] = [
    ("HeaderDigest", Rule::Choice),
    ("DataDigest", Rule::Choice),
    ("TaskReporting", Rule::Choice),
    ("MaxConnections", Rule::Least(1, 65_535)),
    ("InitialR2T", Rule::Or),
    ("ImmediateData", Rule::And),
    ("MaxRecvDataSegmentLength", Rule::Declared(LENGTH_MIN, LENGTH_MAX)),
    ("MaxBurstLength", Rule::Least(LENGTH_MIN, LENGTH_MAX)),
    ("FirstBurstLength", Rule::Least(LENGTH_MIN, LENGTH_MAX)),
    ("DefaultTime2Wait", Rule::Greatest(0, 3600)),
    ("DefaultTime2Retain", Rule::Least(0, 3600)),
    ("MaxOutstandingR2T", Rule::Least(1, 65_535)),
    ("DataPDUInOrder", Rule::Or),
    ("DataSequenceInOrder", Rule::Or),
    ("ErrorRecoveryLevel", Rule::Least(0, 2)),
    ("iSCSIProtocolLevel", Rule::Least(0, 31)),
    ("AuthMethod", Rule::Choice),
];

/// Whether a key is declared by each side for itself, so that no answer comes.
pub(super) fn is_declared(key: &str) -> bool {
    matches!(rule(key), Some(Rule::Declared(..)))
}

fn rule(key: &str) -> Option<Rule> {
    RULES.iter().find(|(name, _)| *name == key).map(|(_, rule)| *rule)
}

/// Whether `answer` may come to `offered` (§6.2): well-formed, and on the side of the offer that the rule
/// allows. Of a key that has no rule here, or of an offer that is malformed itself, any answer may come.
pub(super) fn admits(key: &str, offered: &str, answer: &[u8]) -> bool {
    let Some(rule) = rule(key) else { return true };
    match rule {
        Rule::Choice => offered.as_bytes().split(|&byte| byte == b',').any(|choice| choice == answer),
        Rule::And | Rule::Or => match (value::boolean(offered.as_bytes()), value::boolean(answer)) {
            (None, _) => true,
            (_, None) => false,
            (Some(ours), Some(result)) if rule == Rule::And => ours || !result,
            (Some(ours), Some(result)) => !ours || result,
        },
        Rule::Least(low, high) | Rule::Greatest(low, high) | Rule::Declared(low, high) => {
            let Some(ours) = number_within(offered.as_bytes(), low, high) else { return true };
            number_within(answer, low, high).is_some_and(|result| match rule {
                Rule::Least(..) => result <= ours,
                Rule::Greatest(..) => result >= ours,
                _ => true,
            })
        }
    }
}

/// What to say to a key that the target proposes of its own: the standard's default is as good to us as any
/// (§6.2).
pub(super) fn answer_to_proposal(key: &str, proposed: &[u8]) -> Option<Vec<u8>> {
    let defaults = Parameters::default();
    let number = |low, high| number_within(proposed, low, high);
    let reject = || b"Reject".to_vec();
    Some(match rule(key) {
        None => b"NotUnderstood".to_vec(),
        Some(Rule::Declared(..)) => return None,
        Some(Rule::Choice) => {
            let none: &[u8] = if key == "TaskReporting" { b"RFC3720" } else { b"None" };
            if value::list(proposed).any(|choice| choice == none) { none.to_vec() } else { reject() }
        }
        // Yes to InitialR2T and both orders is the default and the safe side; ImmediateData stays as
        // proposed.
        Some(Rule::Or) => value::boolean(proposed).map_or_else(reject, |_| b"Yes".to_vec()),
        Some(Rule::And) => {
            value::boolean(proposed).map_or_else(reject, |yes| value::boolean_text(yes).to_vec())
        }
        Some(Rule::Least(low, high)) => number(low, high).map_or_else(reject, |theirs| {
            theirs.min(default_number(key, &defaults)).to_string().into_bytes()
        }),
        Some(Rule::Greatest(low, high)) => number(low, high).map_or_else(reject, |theirs| {
            theirs.max(default_number(key, &defaults)).to_string().into_bytes()
        }),
    })
}

fn default_number(key: &str, defaults: &Parameters) -> u32 {
    match key {
        "MaxConnections" => u32::from(defaults.max_connections),
        "MaxBurstLength" => defaults.max_burst_length,
        "FirstBurstLength" => defaults.first_burst_length,
        "DefaultTime2Wait" => u32::from(defaults.default_time2wait),
        "DefaultTime2Retain" => u32::from(defaults.default_time2retain),
        "MaxOutstandingR2T" => u32::from(defaults.max_outstanding_r2t),
        "ErrorRecoveryLevel" => u32::from(defaults.error_recovery_level),
        "iSCSIProtocolLevel" => u32::from(defaults.protocol_level),
        key => unreachable!("{key} has no number"),
    }
}

/// Writes a result into the parameters. The value has been admitted; what has no place there is passed over.
pub(super) fn settle(parameters: &mut Parameters, key: &str, result: &[u8]) {
    let yes = value::boolean(result) == Some(true);
    let number = number_within(result, 0, u32::MAX).unwrap_or(0);
    let short = u16::try_from(number).unwrap_or(u16::MAX);
    let byte = u8::try_from(number).unwrap_or(u8::MAX);
    match key {
        "HeaderDigest" => parameters.header_digest = result == b"CRC32C",
        "DataDigest" => parameters.data_digest = result == b"CRC32C",
        "MaxConnections" => parameters.max_connections = short,
        "InitialR2T" => parameters.initial_r2t = yes,
        "ImmediateData" => parameters.immediate_data = yes,
        // The target's declaration; our own is set when it is sent.
        "MaxRecvDataSegmentLength" => parameters.peer_max_recv_data_segment_length = number,
        "MaxBurstLength" => parameters.max_burst_length = number,
        "FirstBurstLength" => parameters.first_burst_length = number,
        "DefaultTime2Wait" => parameters.default_time2wait = short,
        "DefaultTime2Retain" => parameters.default_time2retain = short,
        "MaxOutstandingR2T" => parameters.max_outstanding_r2t = short,
        "DataPDUInOrder" => parameters.data_pdu_in_order = yes,
        "DataSequenceInOrder" => parameters.data_sequence_in_order = yes,
        "ErrorRecoveryLevel" => parameters.error_recovery_level = byte,
        "TaskReporting" => {
            parameters.task_reporting = match result {
                b"ResponseFence" => TaskReporting::ResponseFence,
                b"FastAbort" => TaskReporting::FastAbort,
                _ => TaskReporting::Rfc3720,
            }
        }
        "iSCSIProtocolLevel" => parameters.protocol_level = byte,
        _ => {}
    }
}

/// A number of this range.
pub(super) fn number_within(text: &[u8], low: u32, high: u32) -> Option<u32> {
    let number = u32::try_from(value::number(text)?).ok()?;
    (low..=high).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_lies_on_the_side_of_the_offer_that_the_rule_allows() {
        for (key, offered, answer, admitted) in [
            ("MaxBurstLength", "65536", "65536", true),
            ("MaxBurstLength", "65536", "512", true),
            ("MaxBurstLength", "65536", "65537", false),
            ("MaxBurstLength", "65536", "511", false),
            ("DefaultTime2Wait", "2", "3600", true),
            ("DefaultTime2Wait", "2", "1", false),
            ("InitialR2T", "Yes", "No", false),
            ("InitialR2T", "No", "Yes", true),
            ("ImmediateData", "No", "Yes", false),
            ("ImmediateData", "Yes", "No", true),
            ("ImmediateData", "Yes", "maybe", false),
            ("HeaderDigest", "CRC32C,None", "None", true),
            ("HeaderDigest", "None", "CRC32C", false),
            ("X-io.portico.test", "1", "anything", true),
            ("MaxBurstLength", "malformed", "anything", true),
        ] {
            assert_eq!(
                admits(key, offered, answer.as_bytes()),
                admitted,
                "{key}={offered}, answered {answer}"
            );
        }
    }

    #[test]
    fn a_targets_own_proposal_is_answered_with_the_safe_side() {
        let answer = |key, proposed: &str| answer_to_proposal(key, proposed.as_bytes());
        assert_eq!(answer("HeaderDigest", "CRC32C,None").as_deref(), Some(&b"None"[..]));
        assert_eq!(answer("HeaderDigest", "CRC32C").as_deref(), Some(&b"Reject"[..]));
        assert_eq!(answer("MaxBurstLength", "16776192").as_deref(), Some(&b"262144"[..]));
        assert_eq!(answer("InitialR2T", "No").as_deref(), Some(&b"Yes"[..]));
        assert_eq!(answer("X-unheard.of", "1").as_deref(), Some(&b"NotUnderstood"[..]));
        assert_eq!(answer("MaxRecvDataSegmentLength", "8192"), None);
    }
}
