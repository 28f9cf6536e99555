//! Text in the full feature phase: SendTargets, and what little else may be said then (RFC 7143 §6.2, §11.10, §11.11,
//! Appendix C).
//!
//! A [`TextExchange`] lives as long as its connection and holds at most one exchange at a time (§11.10.3): text comes in over
//! several requests, and goes out over as many responses as the initiator's segments need, each asked for by an empty
//! request. It knows neither who may see which target nor where targets are: the caller's list says both. Not data path:
//! it allocates, within [`ANSWER_BYTES_MAX`].

use core::net::SocketAddr;

use crate::login::SessionType;
use crate::negotiate::{Answer, Key, Negotiator, Phase, TargetKeys, Value};
use crate::session::TextPart;
use crate::text::{Incoming, Outgoing, Pair, TextFull};
use crate::violation::{SessionViolation, Violation};
use crate::wire::{InitiatorTaskTag, TargetTransferTag, TextRequest};

/// The longest answer, in bytes: some ten thousand targets. A list beyond it is cut after the last target that fits.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// One target, and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRecord {
    /// Its iSCSI name, at most 223 bytes.
    pub name: String,
    /// Its portals, each with the tag of its portal group (§13.8).
    pub portals: Vec<(SocketAddr, u16)>,
}

/// What SendTargets asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Every target that this initiator may see here.
    All,
    /// This one, if the initiator may see it.
    Named(&'a str),
}

/// One PDU of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextReply {
    /// For [`Session::text_response`](crate::session::Session::text_response).
    pub part: TextPart,
    /// The data segment.
    pub text: Vec<u8>,
    /// The initiator has declared a new MaxRecvDataSegmentLength (§13.12); it holds from the next PDU on.
    pub declared_segment_bytes: Option<u32>,
    /// The list of targets did not fit into the answer.
    pub is_cut: bool,
}

/// The text exchanges of one connection.
#[derive(Clone, Debug)]
pub struct TextExchange {
    session_type: SessionType,
    /// The target that a normal session is logged in to.
    target_name: Option<String>,
    current: Option<Current>,
    last_tag: u32,
}

#[derive(Clone, Debug)]
struct Current {
    initiator_task_tag: InitiatorTaskTag,
    target_transfer_tag: TargetTransferTag,
    incoming: Incoming,
    negotiator: Negotiator,
    /// SendTargets has come.
    asks: bool,
    /// The answer on its way out.
    outgoing: Option<Outgoing>,
    is_cut: bool,
}

impl TextExchange {
    /// A connection on which no text has been exchanged yet. `target_name` is that of a normal session.
    #[must_use]
    pub fn new(session_type: SessionType, target_name: Option<String>) -> Self {
        Self { session_type, target_name, current: None, last_tag: 0 }
    }

    /// Takes one Text Request with its data segment, and answers it. `segment_bytes_max` is the initiator's
    /// MaxRecvDataSegmentLength; `list` is asked at most once per SendTargets.
    ///
    /// # Errors
    /// The exchange is over: [`Session::reject_text`](crate::session::Session::reject_text).
    pub fn receive(
        &mut self,
        request: &TextRequest,
        data: &[u8],
        segment_bytes_max: u32,
        list: &dyn Fn(Asked<'_>) -> Vec<TargetRecord>,
    ) -> Result<TextReply, Violation> {
        let mut current = self.resume(request)?;
        let mut declared_segment_bytes = None;
        if current.outgoing.is_some() {
            // §11.11.4: while the answer goes on, requests are empty and ask for more of it.
            if !data.is_empty() || request.continues {
                return Err(Violation::TextBeforeAnswer);
            }
        } else {
            current.incoming.append(data)?;
            if request.continues {
                // §11.10.2: the text goes on; there is nothing to say to half of it.
                let part = TextPart {
                    is_final: false,
                    continues: false,
                    target_transfer_tag: current.target_transfer_tag,
                    length_bytes: 0,
                };
                self.current = Some(current);
                return Ok(TextReply { part, text: Vec::new(), declared_segment_bytes: None, is_cut: false });
            }
            let asks = |pair: Result<Pair<'_>, _>| pair.is_ok_and(|pair| pair.key == Key::SendTargets.name());
            current.asks |= current.incoming.pairs().any(asks);
            if self.session_type == SessionType::Discovery && request.is_final && !current.asks {
                // §4.3: text with SendTargets, and no other.
                let opcode = TextRequest::OPCODE;
                return Err(Violation::Session(SessionViolation::NotInDiscovery { opcode }));
            }
            declared_segment_bytes = self.answer(&mut current, list)?;
        }
        Ok(TextReply { declared_segment_bytes, ..self.send(current, request, segment_bytes_max) })
    }

    /// The exchange that a request belongs to, taken out: whatever fails ends it.
    fn resume(&mut self, request: &TextRequest) -> Result<Current, Violation> {
        let tag = request.target_transfer_tag;
        let current = self.current.take();
        if tag.is_reserved() {
            // §11.10.4: begins a new exchange, and forgets one that was left unfinished.
            self.last_tag = self.last_tag.wrapping_add(1) & 0x7fff_ffff;
            return Ok(Current {
                initiator_task_tag: request.initiator_task_tag,
                target_transfer_tag: TargetTransferTag(self.last_tag),
                incoming: Incoming::default(),
                negotiator: Negotiator::new(
                    &TargetKeys::default(),
                    self.session_type == SessionType::Discovery,
                ),
                asks: false,
                outgoing: None,
                is_cut: false,
            });
        }
        current
            .filter(|current| {
                current.target_transfer_tag == tag && current.initiator_task_tag == request.initiator_task_tag
            })
            .ok_or(Violation::Session(SessionViolation::TextTransferTagUnknown(tag)))
    }

    /// Reads the text, which is all there, and writes the answer. The new MaxRecvDataSegmentLength, where one is declared.
    fn answer(
        &self,
        current: &mut Current,
        list: &dyn Fn(Asked<'_>) -> Vec<TargetRecord>,
    ) -> Result<Option<u32>, Violation> {
        let mut declared_segment_bytes = None;
        let too_long = |TextFull| Violation::TextTooLong { maximum: ANSWER_BYTES_MAX };
        let incoming = core::mem::take(&mut current.incoming);
        let mut outgoing = Outgoing::with_bound(ANSWER_BYTES_MAX);
        for pair in incoming.pairs() {
            let pair = pair?;
            let answer = current
                .negotiator
                .receive(pair.key, pair.value, Phase::FullFeature)
                .map_err(SessionViolation::TextKeyMisused)?;
            match answer {
                Answer::Declared(Key::SendTargets, value) => match self.asked(value) {
                    Some(asked) => current.is_cut |= !write_targets(&mut outgoing, &list(asked)),
                    None => outgoing.push(Key::SendTargets.name(), b"Reject").map_err(too_long)?,
                },
                Answer::Declared(Key::MaxRecvDataSegmentLength, _) => {
                    declared_segment_bytes = Some(current.negotiator.peer_max_recv_data_segment_length());
                }
                Answer::Declared(..) | Answer::Answered => {}
                Answer::Value(key, Value::Text(value)) => {
                    outgoing.push(key.name(), value.as_bytes()).map_err(too_long)?;
                }
                Answer::Value(key, Value::Number(value)) => {
                    outgoing.push(key.name(), value.to_string().as_bytes()).map_err(too_long)?;
                }
                Answer::NotUnderstood => outgoing.push(pair.key, b"NotUnderstood").map_err(too_long)?,
            }
        }
        current.outgoing = Some(outgoing);
        Ok(declared_segment_bytes)
    }

    /// Appendix C: All "MUST NOT be supported" outside of discovery sessions, no value at all asks for the session's own
    /// target, and a session "MUST NOT return targets other than the one to which the session is logged in".
    fn asked<'a>(&'a self, value: &'a [u8]) -> Option<Asked<'a>> {
        let named = core::str::from_utf8(value).ok()?;
        match (self.session_type, named) {
            (SessionType::Discovery, "All") => Some(Asked::All),
            (SessionType::Discovery, "") => None,
            (SessionType::Discovery, name) => Some(Asked::Named(name)),
            (SessionType::Normal, name) => {
                let own = self.target_name.as_deref()?;
                (name.is_empty() || name == own).then_some(Asked::Named(own))
            }
        }
    }

    /// The next piece of the answer. F goes out with the last one, if the initiator has set it too (§11.11.1).
    fn send(&mut self, mut current: Current, request: &TextRequest, segment_bytes_max: u32) -> TextReply {
        let outgoing = current.outgoing.as_mut().expect("the answer has been written");
        let piece = outgoing.take_piece(segment_bytes_max as usize);
        let (text, continues) = (piece.bytes.to_vec(), piece.continues);
        let is_final = request.is_final && !continues;
        let target_transfer_tag =
            if is_final { TargetTransferTag::RESERVED } else { current.target_transfer_tag };
        let length_bytes = u32::try_from(text.len()).expect("at most ANSWER_BYTES_MAX");
        let is_cut = current.is_cut;
        if !is_final {
            if !continues {
                current.outgoing = None;
            }
            self.current = Some(current);
        }
        TextReply {
            part: TextPart { is_final, continues, target_transfer_tag, length_bytes },
            text,
            declared_segment_bytes: None,
            is_cut,
        }
    }
}

/// Writes each target that fits as a whole; false where not all do.
fn write_targets(outgoing: &mut Outgoing, targets: &[TargetRecord]) -> bool {
    const PAIR_OVERHEAD: usize = "TargetAddress=".len() + 1;
    let mut room = ANSWER_BYTES_MAX - outgoing.remaining();
    for target in targets {
        let addresses: Vec<_> =
            target.portals.iter().map(|(portal, tag)| format!("{portal},{tag}")).collect();
        let values = target.name.len() + addresses.iter().map(String::len).sum::<usize>();
        let length = values + PAIR_OVERHEAD * (1 + addresses.len());
        if length > room {
            return false;
        }
        room -= length;
        let fits = "it was measured";
        outgoing.push(Key::TargetName.name(), target.name.as_bytes()).expect(fits);
        for address in &addresses {
            outgoing.push(Key::TargetAddress.name(), address.as_bytes()).expect(fits);
        }
    }
    true
}

#[cfg(test)]
mod tests;
