//! Every way a peer can break RFC 7143, what it earns, and the test that shows it.
//!
//! A login status goes out in a Login Response, and the connection closes; in the full feature phase, text that is wrong is
//! rejected, and in login it is answered with status 02/00 (§7.12). An initiator that meets any of these leaves.
//!
//! | violation | what the peer did | section | what it earns | shown by |
//! |---|---|---|---|---|
//! | `UnknownOpcode` | The opcode is none that this end's peer may send | §11.2.1.2, §11.17.1 | Reject: command not supported | `an_opcode_of_the_other_direction_or_of_nobody_is_unknown` |
//! | `AhsNotAllowed` | TotalAHSLength of a PDU that has no AHS is not 0 | §11.2.1.5 | session dropped | `payload_where_there_is_none_is_refused` |
//! | `DataSegmentNotAllowed` | DataSegmentLength of a PDU that has no data is not 0 | §11.2.1.6, §11.5.2, §11.8.1 | session dropped | `payload_where_there_is_none_is_refused` |
//! | `DataSegmentTooLong` | More data than this end declared as MaxRecvDataSegmentLength | §7.8, §13.12 | connection dropped | `one_byte_more_than_declared_is_too_long` |
//! | `ReservedInitiatorTaskTag` | The Initiator Task Tag 0xffffffff on a PDU that names a task | §11.2.1.8 | Reject: invalid PDU field | `a_header_that_breaks_a_rule_is_named` |
//! | `HeaderDigestWrong` | The header digest is not that of the header: where the next PDU begins is not known any more | §7.8 | connection dropped | `a_wrong_header_digest_is_a_violation` |
//! | `DataDigestWrong` | The data digest is not that of the data segment; the PDU is discarded | §7.8, §11.17.1 | Reject: data digest error | `a_wrong_data_digest_earns_a_reject_with_its_reason` |
//! | `AhsTooLong` | More AHS than one of each type | §7.8, §11.2.2 | connection dropped | `more_ahs_than_can_mean_anything_is_too_long` |
//! | `AhsTruncated` | An AHS ends beyond TotalAHSLength | §11.2.2.2 | Reject: invalid PDU field | `ahs_that_cannot_be_read_are_refused` |
//! | `AhsTypeUnknown` | A reserved AHSType | §11.2.2.1 | Reject: invalid PDU field | `a_reserved_type_and_a_repeated_type_are_refused` |
//! | `AhsLengthWrong` | An AHSLength that its type does not allow | §11.2.2.3, §11.2.2.4 | Reject: invalid PDU field | `an_ahs_of_length_0_does_not_loop_for_ever` |
//! | `AhsRepeated` | Two AHS of one type | §11.2.2 | Reject: invalid PDU field | `a_reserved_type_and_a_repeated_type_are_refused` |
//! | `BidirectionalLengthMissing` | A command that reads and writes, without a Bidirectional Read Expected Data Transfer Length | §11.3.4 | Reject: invalid PDU field | `lengths_that_do_not_fit_the_direction_are_refused_and_leave_no_task` |
//! | `BidirectionalLengthOfNothing` | That AHS on a command that does not both read and write | §11.2.2.4 | Reject: invalid PDU field | `lengths_that_do_not_fit_the_direction_are_refused_and_leave_no_task` |
//! | `ReservedTaskAttribute` | ATTR is 5 to 7 | §11.3.1 | Reject: invalid PDU field | `a_command_whose_fields_disagree_is_refused` |
//! | `UnsolicitedDataWithoutWrite` | F and W are both 0: unsolicited data announced on a command that writes nothing | §11.3.1 | Reject: invalid PDU field | `a_command_whose_fields_disagree_is_refused` |
//! | `ImmediateDataWithoutWrite` | Data in the PDU of a command that writes nothing | §11.3.1 | Reject: invalid PDU field | `a_command_whose_fields_disagree_is_refused` |
//! | `ImmediateDataBeyondExpectedLength` | More immediate data than the command moves in all | §11.3.4 | Reject: invalid PDU field | `a_command_whose_fields_disagree_is_refused` |
//! | `LengthWithoutDirection` | R and W are both 0 and the length is not | §11.3.1 | Reject: invalid PDU field | `a_command_whose_fields_disagree_is_refused` |
//! | `DataBeyondAddressSpace` | Buffer Offset and length add up to 2^32 or more | §11.7.6, §11.8.4 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `StatusWithoutFinal` | Data-In with S but without F | §11.7.1 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `AcknowledgeWithoutTransferTag` | Data-In with A but without a Target Transfer Tag | §11.7.4 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `OverflowAndUnderflow` | O and U, or o and u, both set | §11.4.1 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `ReservedServiceResponse` | Response is 0x02 to 0x7f | §11.4.3 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `R2tWithoutTransferTag` | R2T with the Target Transfer Tag 0xffffffff | §11.8.5 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `R2tForNothing` | R2T with a Desired Data Transfer Length of 0 | §11.8.4 | session dropped | `a_header_that_breaks_a_rule_is_named` |
//! | `NopOutNotImmediate` | A NOP-Out that wants no answer, without the I bit | §11.18.1 | Reject: protocol error | `a_header_that_breaks_a_rule_is_named` |
//! | `ReservedLogoutReason` | The reason code is 3 to 127 | §11.14.1 | Reject: invalid PDU field | `a_header_that_breaks_a_rule_is_named` |
//! | `ReservedSnackType` | Type is 4 to 15 | §11.16.1 | Reject: invalid PDU field | `a_header_that_breaks_a_rule_is_named` |
//! | `FinalWithContinue` | Text with both F and C | §11.10.2 | Reject: protocol error | `a_header_that_breaks_a_rule_is_named` |
//! | `ReservedLoginStage` | CSG or NSG is 2 | §11.12.3 | login status 02/00 | `a_login_that_goes_nowhere_or_backward_is_refused` |
//! | `LoginInFullFeatureStage` | CSG is the full feature phase | §11.12.3 | login status 02/00 | `a_login_that_goes_nowhere_or_backward_is_refused` |
//! | `LoginStageBackward` | T and NSG ask for the present stage or an earlier one | §11.12.3 | login status 02/00 | `a_login_that_goes_nowhere_or_backward_is_refused` |
//! | `TransitWithContinue` | Login with both T and C | §11.12.2 | login status 02/00 | `a_login_that_goes_nowhere_or_backward_is_refused` |
//! | `TextWithoutEquals` | A pair without "=" | §6.1 | Reject: protocol error | `what_is_no_pair_is_named` |
//! | `TextKeyLength` | A key that is empty, or longer than 63 bytes | §6.1 | Reject: protocol error | `a_key_of_63_bytes_is_read_and_one_of_64_is_not` |
//! | `TextKeyCharacter` | A key with a byte that is none of letters, digits, ".", "-", "+", "@", "_", "#" | §6.1 | Reject: protocol error | `what_is_no_pair_is_named` |
//! | `TextValueTooLong` | A value longer than its kind allows, 255 bytes unless stated otherwise | §6.1 | Reject: protocol error | `a_value_longer_than_255_bytes_is_an_initiator_error` |
//! | `TextTooLong` | More text in one negotiation step than this end takes | §6.1 | Reject: protocol error | `a_step_has_a_bound` |
//! | `TextBeforeAnswer` | Text while the answer to the text before it goes on | §6.2 | Reject: protocol error | `text_while_the_answer_goes_on_ends_the_exchange` |
//! | `NotLoggedIn` | Something else came before the first Login Request | §6.3 | connection dropped | `another_pdu_before_the_login_drops_the_connection_and_during_it_is_answered` |
//! | `InvalidDuringLogin` | Something else came between two Login Requests | §6.3 | login status 02/0b | `another_pdu_before_the_login_drops_the_connection_and_during_it_is_answered` |
//! | `LoginTooLong` | More Login Requests than this end takes in one login | §6.3 | login status 02/00 | `a_login_that_never_ends_is_ended` |
//! | `UnsupportedVersion` | Version-min is beyond the only version there is | §11.12.4 | login status 02/05 | `a_version_of_the_future_is_unsupported` |
//! | `LoginFieldChanged` | ISID, TSIH, CID, CmdSN or Initiator Task Tag differ from those of the first request | §11.12.5, §11.12.8 | login status 02/00 | `a_login_keeps_its_name_from_the_first_request_to_the_last` |
//! | `LoginStageMismatch` | CSG is not the stage that both sides are in | §11.12.3 | login status 02/00 | `a_stage_out_of_order_is_an_initiator_error` |
//! | `KeyMisused` | A key where, when, or by whom it may not be sent | §6.3, §13 | login status 02/00 | `an_initiator_that_insists_on_chap_fails_to_authenticate` |
//! | `DigestMissing` | A login that ends without a digest that the target demands | §13.1 | login status 02/00 | `nobody_gets_in_without_a_digest_that_is_demanded` |
//! | `KeyMissing` | A key that the first step has to have is not there | §6.3 | login status 02/07 | `a_login_without_a_name_misses_a_parameter` |
//! | `KeyTooLate` | A name that belongs into the first step came later | §6.3 | login status 02/00 | `names_and_the_session_type_may_not_come_late_or_twice` |
//! | `NameMalformed` | The name is no iSCSI name | §4.2.7 | login status 02/00 | `a_name_that_is_none_is_an_initiator_error` |
//! | `SessionTypeUnknown` | SessionType is neither Normal nor Discovery | §13.21 | login status 02/09 | `a_session_of_an_unknown_type_is_not_supported` |
//! | `Unproven` | The initiator has not proven who it is (a CHAP key that is malformed or out of place: 02/00) | §12.1.3 | login status 02/01 | `a_wrong_or_missing_proof_fails_to_authenticate` |
//! | `LoginInFullFeaturePhase` | A Login Request on a connection that has logged in | §11.12 | Reject: protocol error | `what_a_session_has_no_use_for_is_rejected` |
//! | `NotInDiscovery` | A PDU that a discovery session has no use for | §4.3 | Reject: command not supported | `a_discovery_session_takes_text_and_logout_and_no_commands` |
//! | `TaskTagInUse` | The tag of a new task names one that has not ended | §11.2.1.8 | Reject: invalid PDU field | `a_task_tag_in_use_is_rejected_and_its_number_is_used_up` |
//! | `DataOnAnotherConnection` | Data-Out came on another connection than its command | §4.2.5.1 | Reject: protocol error | `data_of_a_write_come_over_the_connection_of_its_command` |
//! | `TooManyImmediateRequests` | More immediate requests at once than this end takes | §4.2.2.1 | Reject: immediate command reject | `immediate_requests_have_a_bound_and_the_next_is_told_so` |
//! | `SnackNotSupported` | A SNACK that the negotiated recovery level does not have | §11.16 | Reject: SNACK reject | `what_a_session_has_no_use_for_is_rejected` |
//! | `SnackOutOfRun` | A SNACK for what was never sent, or was acknowledged | §11.16 | Reject: protocol error | `a_snack_is_for_the_caller_to_serve_or_to_refuse` |
//! | `SnackNotServed` | A SNACK for what is not kept any more, or one too many at once | §11.16, §11.17.1 | Reject: SNACK reject | `a_snack_is_for_the_caller_to_serve_or_to_refuse` |
//! | `TextTransferTagUnknown` | A Text Request goes on with an exchange that there is not | §11.10.4 | Reject: protocol error | `a_new_exchange_forgets_one_that_was_left_unfinished` |
//! | `TextKeyMisused` | In the full feature phase, a key where, when, or by whom it may not be sent | §13 | Reject: protocol error | `a_key_of_the_login_is_refused` |

#[cfg(test)]
mod tests {
    use crate::chap::Refusal;
    use crate::framing::Digests;
    use crate::negotiate::{Key, Misuse};
    use crate::violation::{Answer, LoginViolation, SessionViolation, Violation};
    use crate::wire::{
        BHS_BYTES, Bhs, InitiatorPdu, InitiatorTaskTag, RejectReason, Stage, TargetPdu, TargetTransferTag,
    };
    use std::path::Path;

    /// The cells of a row.
    fn rows() -> Vec<Vec<&'static str>> {
        let lines = include_str!("table.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        lines.map(|line| line.trim_end_matches(" |").split(" | ").collect()).collect()
    }

    fn row_of(name: &str) -> Vec<&'static str> {
        let found = rows().into_iter().find(|row| row[0].trim_end_matches('`') == name);
        found.unwrap_or_else(|| panic!("violation/table.rs has no row for {name}"))
    }

    #[test]
    fn every_violation_has_its_row() {
        let sources = [include_str!("../violation.rs"), include_str!("login.rs"), include_str!("session.rs")];
        let mut count = 0;
        for source in sources {
            let body = source.split_once("Violation {\n").expect("an enum").1;
            let body = body.split_once("\n}\n").expect("its end").0;
            for line in body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
                let name: String = line.trim().chars().take_while(char::is_ascii_alphanumeric).collect();
                // The two that hold the other enums, and what is no variant at all.
                if name.is_empty() || name == "Login" || name == "Session" {
                    continue;
                }
                let row = row_of(&name);
                assert_eq!(row.len(), 5, "{name}");
                assert!(row[2].starts_with('§'), "{name} names its section");
                count += 1;
            }
        }
        assert_eq!(count, rows().len(), "no row is about nothing");
    }

    #[test]
    fn every_row_names_a_test_that_there_is() {
        let mut sources = String::new();
        gather(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut sources);
        for row in rows() {
            let test = row[4].trim_matches('`');
            assert!(sources.contains(&format!("fn {test}(")), "{}: no test {test}", row[0]);
        }
    }

    fn gather(folder: &Path, sources: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, sources);
            } else {
                sources.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn told(answer: Answer) -> String {
        match answer {
            Answer::LoginStatus(status) => format!("login status {:02x}/{:02x}", status.class, status.detail),
            Answer::DropConnection => "connection dropped".to_owned(),
            Answer::DropSession => "session dropped".to_owned(),
            Answer::Ignore => "ignored".to_owned(),
            Answer::Reject(reason) => format!(
                "Reject: {}",
                match reason {
                    RejectReason::DataDigestError => "data digest error",
                    RejectReason::SnackReject => "SNACK reject",
                    RejectReason::ProtocolError => "protocol error",
                    RejectReason::CommandNotSupported => "command not supported",
                    RejectReason::ImmediateCommandReject => "immediate command reject",
                    RejectReason::InvalidPduField => "invalid PDU field",
                    other => panic!("{other:?} is not earned by a violation"),
                }
            ),
        }
    }

    #[test]
    fn what_a_row_says_is_earned_is_what_is_answered() {
        for violation in samples() {
            let debug = match violation {
                Violation::Login(inner) => format!("{inner:?}"),
                Violation::Session(inner) => format!("{inner:?}"),
                other => format!("{other:?}"),
            };
            let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert_eq!(row_of(&name)[3], told(violation.answer()), "{name}");
            assert!(!violation.to_string().is_empty());
        }
    }

    /// One of each.
    fn samples() -> Vec<Violation> {
        let (opcode, length) = (1, 1);
        let mut samples = vec![
            Violation::UnknownOpcode { opcode },
            Violation::AhsNotAllowed { opcode },
            Violation::DataSegmentNotAllowed { opcode },
            Violation::DataSegmentTooLong { opcode, length, maximum: 0 },
            Violation::ReservedInitiatorTaskTag { opcode },
            Violation::HeaderDigestWrong,
            Violation::DataDigestWrong,
            Violation::AhsTooLong { length },
            Violation::AhsTruncated,
            Violation::AhsTypeUnknown { kind: 3 },
            Violation::AhsLengthWrong { kind: 1, length: 0 },
            Violation::AhsRepeated { kind: 1 },
            Violation::BidirectionalLengthMissing,
            Violation::BidirectionalLengthOfNothing,
            Violation::ReservedTaskAttribute { attribute: 7 },
            Violation::UnsolicitedDataWithoutWrite,
            Violation::ImmediateDataWithoutWrite,
            Violation::ImmediateDataBeyondExpectedLength { length, expected: 0 },
            Violation::LengthWithoutDirection { length },
            Violation::ReservedLoginStage { stage: 2 },
            Violation::LoginInFullFeatureStage,
            Violation::LoginStageBackward {
                current: Stage::LoginOperationalNegotiation,
                next: Stage::SecurityNegotiation,
            },
            Violation::TransitWithContinue,
            Violation::TextWithoutEquals,
            Violation::TextKeyLength { length: 64 },
            Violation::TextKeyCharacter { byte: 0 },
            Violation::TextValueTooLong { length: 256, maximum: 255 },
            Violation::TextTooLong { maximum: 1 },
            Violation::TextBeforeAnswer,
        ];
        samples.extend(malformed().into_iter().map(|(_, _, violation)| violation));
        samples.extend(
            [
                LoginViolation::NotLoggedIn { opcode },
                LoginViolation::InvalidDuringLogin { opcode },
                LoginViolation::LoginTooLong { maximum: 1 },
                LoginViolation::UnsupportedVersion { minimum: 1 },
                LoginViolation::LoginFieldChanged,
                LoginViolation::LoginStageMismatch {
                    expected: Stage::LoginOperationalNegotiation,
                    actual: Stage::SecurityNegotiation,
                },
                LoginViolation::KeyMisused(Misuse::Repeated(Key::MaxConnections)),
                LoginViolation::DigestMissing(Key::HeaderDigest),
                LoginViolation::KeyMissing(Key::InitiatorName),
                LoginViolation::KeyTooLate(Key::InitiatorName),
                LoginViolation::NameMalformed(Key::InitiatorName),
                LoginViolation::SessionTypeUnknown,
                LoginViolation::Unproven(Refusal::ResponseWrong),
            ]
            .map(Violation::Login),
        );
        samples.extend(
            [
                SessionViolation::LoginInFullFeaturePhase,
                SessionViolation::NotInDiscovery { opcode },
                SessionViolation::TaskTagInUse(InitiatorTaskTag(1)),
                SessionViolation::TooManyImmediateRequests,
                SessionViolation::SnackNotSupported,
                SessionViolation::SnackOutOfRun,
                SessionViolation::SnackNotServed,
                SessionViolation::TextTransferTagUnknown(TargetTransferTag(1)),
                SessionViolation::TextKeyMisused(Misuse::Repeated(Key::MaxConnections)),
            ]
            .map(Violation::Session),
        );
        samples
    }

    /// A header of this opcode and second byte, with words at these places.
    fn header(opcode: u8, flags: u8, words: &[(usize, u32)]) -> Bhs {
        let mut bhs = [0; BHS_BYTES];
        (bhs[0], bhs[1]) = (opcode, flags);
        for (at, word) in words {
            bhs[*at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        bhs
    }

    /// Headers that are wrong by themselves: whether an initiator sends it, the header, what is wrong.
    fn malformed() -> Vec<(bool, Bhs, Violation)> {
        const NONE: u32 = u32::MAX;
        let beyond = Violation::DataBeyondAddressSpace { offset: NONE, length: 1 };
        vec![
            (true, header(0x01, 0x80, &[(16, NONE)]), Violation::ReservedInitiatorTaskTag { opcode: 1 }),
            (true, header(0x05, 0x80, &[(4, 1), (20, 7), (40, NONE)]), beyond),
            (true, header(0x00, 0x80, &[(16, NONE), (20, NONE)]), Violation::NopOutNotImmediate),
            (true, header(0x06, 0x83, &[]), Violation::ReservedLogoutReason { reason: 3 }),
            (true, header(0x10, 0x84, &[]), Violation::ReservedSnackType { code: 4 }),
            (true, header(0x04, 0xc0, &[(20, NONE)]), Violation::FinalWithContinue),
            (false, header(0x25, 0x01, &[(20, NONE)]), Violation::StatusWithoutFinal),
            (false, header(0x25, 0xc0, &[(20, NONE)]), Violation::AcknowledgeWithoutTransferTag),
            (false, header(0x21, 0x86, &[]), Violation::OverflowAndUnderflow),
            (false, header(0x21, 0x80, &[(0, 0x2180_0200)]), Violation::ReservedServiceResponse { code: 2 }),
            (false, header(0x31, 0x80, &[(20, NONE), (44, 1)]), Violation::R2tWithoutTransferTag),
            (false, header(0x31, 0x80, &[(20, 1)]), Violation::R2tForNothing),
        ]
    }

    #[test]
    fn a_header_that_breaks_a_rule_is_named() {
        for (from_initiator, bhs, violation) in malformed() {
            let found = match from_initiator {
                true => InitiatorPdu::parse(&bhs).map(drop),
                false => TargetPdu::parse(&bhs).map(drop),
            };
            assert_eq!(found, Err(violation));
        }
    }

    #[test]
    fn a_wrong_header_digest_is_a_violation() {
        let digests = Digests { header: true, data: false };
        let bhs = [1; BHS_BYTES];
        let mut header = [&bhs[..], &digests.of_header(&bhs).unwrap()].concat();
        assert_eq!(digests.check_header(&header), Ok(()));
        for at in 0..header.len() {
            header[at] ^= 0x10;
            assert_eq!(digests.check_header(&header), Err(Violation::HeaderDigestWrong));
            header[at] ^= 0x10;
        }
        assert_eq!(Digests::NONE.check_header(&bhs), Ok(()));
    }
}
