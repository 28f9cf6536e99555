//! Text exchanges as a dialogue; `|` stands for NUL.

use super::*;
use crate::negotiate::Misuse;
use crate::sn::{CmdSn, StatSn};
use crate::wire::LunField;

const DISK: &str = "iqn.2026-11.io.portico:disk";
const TAPE: &str = "iqn.2026-11.io.portico:tape";

fn targets() -> Vec<TargetRecord> {
    let portals = vec![("10.0.0.1:3260".parse().unwrap(), 1), ("[fe80::1]:3261".parse().unwrap(), 2)];
    vec![
        TargetRecord { name: DISK.to_owned(), portals },
        TargetRecord { name: TAPE.to_owned(), portals: vec![("10.0.0.1:3260".parse().unwrap(), 1)] },
    ]
}

fn list(asked: Asked<'_>) -> Vec<TargetRecord> {
    let mut targets = targets();
    if let Asked::Named(name) = asked {
        targets.retain(|target| target.name == name);
    }
    targets
}

fn request() -> TextRequest {
    TextRequest {
        immediate: false,
        is_final: true,
        continues: false,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(4),
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(1),
    }
}

struct Dialogue {
    exchange: TextExchange,
    segment_bytes_max: u32,
}

impl Dialogue {
    fn discovery() -> Self {
        Self { exchange: TextExchange::new(SessionType::Discovery, None), segment_bytes_max: 8192 }
    }

    fn normal() -> Self {
        let exchange = TextExchange::new(SessionType::Normal, Some(DISK.to_owned()));
        Self { exchange, segment_bytes_max: 8192 }
    }

    fn send(&mut self, request: TextRequest, text: &str) -> Result<TextReply, Violation> {
        let data = text.replace('|', "\0").into_bytes();
        self.exchange.receive(&request, &data, self.segment_bytes_max, &list)
    }

    fn hear(&mut self, request: TextRequest, text: &str) -> (TextPart, String) {
        let reply = self.send(request, text).expect("an answer");
        assert_eq!(reply.part.length_bytes as usize, reply.text.len());
        assert!(!(reply.part.is_final && reply.part.continues));
        assert_eq!(reply.part.is_final, reply.part.target_transfer_tag.is_reserved());
        (reply.part, String::from_utf8(reply.text).unwrap().replace('\0', "|"))
    }

    /// Sends one request, and empty ones as long as the answer goes on; the whole answer, and in how many PDUs.
    fn ask(&mut self, text: &str) -> (String, usize) {
        let (mut part, mut answer) = self.hear(request(), text);
        let mut pdus = 1;
        while !part.is_final {
            assert!(part.continues);
            let next = TextRequest { target_transfer_tag: part.target_transfer_tag, ..request() };
            let (next_part, more) = self.hear(next, "");
            (part, answer, pdus) = (next_part, answer + &more, pdus + 1);
        }
        (answer, pdus)
    }
}

const EVERYTHING: &str = "TargetName=iqn.2026-11.io.portico:disk|TargetAddress=10.0.0.1:3260,1|\
     TargetAddress=[fe80::1]:3261,2|TargetName=iqn.2026-11.io.portico:tape|TargetAddress=10.0.0.1:3260,1|";
const DISK_ALONE: &str = "TargetName=iqn.2026-11.io.portico:disk|TargetAddress=10.0.0.1:3260,1|\
     TargetAddress=[fe80::1]:3261,2|";

#[test]
fn send_targets_all_lists_names_and_addresses() {
    assert_eq!(Dialogue::discovery().ask("SendTargets=All|"), (EVERYTHING.to_owned(), 1));
}

#[test]
fn send_targets_by_name_lists_one_or_nothing() {
    assert_eq!(Dialogue::discovery().ask(&format!("SendTargets={DISK}|")).0, DISK_ALONE);
    assert_eq!(Dialogue::discovery().ask("SendTargets=iqn.2026-11.io.portico:none|").0, "");
}

#[test]
fn a_normal_session_sees_its_own_target_and_no_other() {
    assert_eq!(Dialogue::normal().ask("SendTargets=|").0, DISK_ALONE);
    assert_eq!(Dialogue::normal().ask(&format!("SendTargets={DISK}|")).0, DISK_ALONE);
    assert_eq!(Dialogue::normal().ask("SendTargets=All|").0, "SendTargets=Reject|");
    assert_eq!(Dialogue::normal().ask(&format!("SendTargets={TAPE}|")).0, "SendTargets=Reject|");
    assert_eq!(Dialogue::discovery().ask("SendTargets=|").0, "SendTargets=Reject|");
}

#[test]
fn a_long_answer_goes_out_in_pieces_that_the_initiator_asks_for() {
    let mut dialogue = Dialogue::discovery();
    dialogue.segment_bytes_max = 50;
    let (answer, pdus) = dialogue.ask("SendTargets=All|");
    assert_eq!((answer.as_str(), pdus), (EVERYTHING, EVERYTHING.len().div_ceil(50)));
    assert_eq!(dialogue.ask("SendTargets=All|").0, EVERYTHING, "the exchange was over, and this is the next");
}

#[test]
fn a_request_cut_by_the_c_bit_is_answered_when_it_has_ended() {
    let mut dialogue = Dialogue::discovery();
    let cut = TextRequest { is_final: false, continues: true, ..request() };
    let (part, text) = dialogue.hear(cut, "SendTar");
    assert_eq!((part.is_final, part.continues, text.as_str()), (false, false, ""));
    let rest = TextRequest { target_transfer_tag: part.target_transfer_tag, ..request() };
    assert_eq!(dialogue.hear(rest, "gets=All|").1, EVERYTHING);
}

#[test]
fn an_empty_text_with_the_c_bit_is_a_normal_case() {
    // CVE-2021-28361: a crash.
    let mut dialogue = Dialogue::normal();
    let cut = TextRequest { is_final: false, continues: true, ..request() };
    let (part, _) = dialogue.hear(cut, "");
    let rest = TextRequest { target_transfer_tag: part.target_transfer_tag, ..request() };
    assert_eq!(dialogue.hear(rest, "").1, "");
}

#[test]
fn an_initiator_that_is_not_done_keeps_its_exchange() {
    let mut dialogue = Dialogue::discovery();
    let (part, text) = dialogue.hear(TextRequest { is_final: false, ..request() }, "InitiatorAlias=me|");
    assert_eq!((part.is_final, part.continues, text.as_str()), (false, false, ""));
    let next = TextRequest { target_transfer_tag: part.target_transfer_tag, ..request() };
    let (part, text) = dialogue.hear(next, "SendTargets=All|");
    assert_eq!((part.is_final, text.as_str()), (true, EVERYTHING));
}

#[test]
fn a_new_exchange_forgets_one_that_was_left_unfinished() {
    let mut dialogue = Dialogue::discovery();
    dialogue.segment_bytes_max = 50;
    let (left, _) = dialogue.hear(request(), "SendTargets=All|");
    dialogue.segment_bytes_max = 8192;
    assert_eq!(dialogue.ask("SendTargets=All|").0, EVERYTHING);
    let stale = TextRequest { target_transfer_tag: left.target_transfer_tag, ..request() };
    assert_eq!(
        dialogue.send(stale, ""),
        Err(Violation::Session(SessionViolation::TextTransferTagUnknown(left.target_transfer_tag)))
    );
}

#[test]
fn an_exchange_goes_on_under_its_own_tags_only() {
    let unfinished = || {
        let mut dialogue = Dialogue::discovery();
        dialogue.segment_bytes_max = 50;
        let (part, _) = dialogue.hear(request(), "SendTargets=All|");
        (dialogue, part.target_transfer_tag)
    };
    let (mut dialogue, target_transfer_tag) = unfinished();
    let other = TextRequest { initiator_task_tag: InitiatorTaskTag(5), target_transfer_tag, ..request() };
    assert!(matches!(
        dialogue.send(other, ""),
        Err(Violation::Session(SessionViolation::TextTransferTagUnknown(_)))
    ));

    let (mut dialogue, _) = unfinished();
    let unknown = TextRequest { target_transfer_tag: TargetTransferTag(99), ..request() };
    assert!(matches!(
        dialogue.send(unknown, ""),
        Err(Violation::Session(SessionViolation::TextTransferTagUnknown(_)))
    ));
}

#[test]
fn text_while_the_answer_goes_on_ends_the_exchange() {
    let mut dialogue = Dialogue::discovery();
    dialogue.segment_bytes_max = 50;
    let (part, _) = dialogue.hear(request(), "SendTargets=All|");
    let next = TextRequest { target_transfer_tag: part.target_transfer_tag, ..request() };
    assert_eq!(dialogue.send(next, "InitiatorAlias=me|"), Err(Violation::TextBeforeAnswer));
}

#[test]
fn a_new_segment_length_may_be_declared_and_nothing_else_renegotiated() {
    let mut dialogue = Dialogue::normal();
    let reply = dialogue.send(request(), "MaxRecvDataSegmentLength=65536|").unwrap();
    assert_eq!((reply.declared_segment_bytes, reply.text.len()), (Some(65_536), 0));

    let reply = dialogue.send(request(), "X-com.example.k=1|MaxRecvDataSegmentLength=1|").unwrap();
    assert_eq!(reply.declared_segment_bytes, None);
    assert_eq!(reply.text, b"X-com.example.k=NotUnderstood\0MaxRecvDataSegmentLength=Reject\0");
}

#[test]
fn a_key_of_the_login_is_refused() {
    let refused = Dialogue::normal().send(request(), "ImmediateData=No|");
    assert_eq!(
        refused,
        Err(Violation::Session(SessionViolation::TextKeyMisused(Misuse::WrongPhase(Key::ImmediateData))))
    );
}

#[test]
fn a_list_beyond_the_bound_is_cut_after_a_whole_target() {
    let many = |_: Asked<'_>| {
        (0..30_000)
            .map(|n| TargetRecord {
                name: format!("iqn.2026-11.io.portico:{n}"),
                portals: vec![("10.0.0.1:3260".parse().unwrap(), 1)],
            })
            .collect()
    };
    let mut exchange = TextExchange::new(SessionType::Discovery, None);
    let reply = exchange.receive(&request(), b"SendTargets=All\0", u32::MAX, &many).unwrap();
    assert!(reply.is_cut && reply.part.is_final);
    assert!(reply.text.len() <= ANSWER_BYTES_MAX);
    assert!(reply.text.ends_with(b"TargetAddress=10.0.0.1:3260,1\0"));
}

/// §4.3: "The target MUST ONLY accept Text Requests with the SendTargets key".
#[test]
fn a_discovery_session_takes_no_text_without_send_targets() {
    let refused = Err(Violation::Session(SessionViolation::NotInDiscovery { opcode: TextRequest::OPCODE }));
    assert_eq!(Dialogue::discovery().send(request(), "MaxRecvDataSegmentLength=65536|"), refused);
    assert_eq!(Dialogue::discovery().send(request(), ""), refused);
    assert!(Dialogue::discovery().send(request(), "MaxRecvDataSegmentLength=65536|SendTargets=All|").is_ok());
    assert!(Dialogue::normal().send(request(), "MaxRecvDataSegmentLength=65536|").is_ok());
}
