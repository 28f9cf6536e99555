//! What scstadmin makes of a doubtful line, and what we make of it: one test for each.

use super::{findings, read, refused, sound, warned, with_device, with_target};
use crate::scst_conf::Code;

#[test]
fn a_section_on_one_line_is_accepted_with_all_that_is_in_it() {
    let configuration = sound("HANDLER vdisk_nullio {\n DEVICE d { dummy 1 }\n}\n");
    let spread = sound(&with_device("vdisk_nullio", "dummy 1"));
    assert_eq!(configuration, spread);
}

#[test]
fn a_brace_on_the_next_line_is_an_error_with_the_mend() {
    let error = refused("HANDLER vdisk_nullio\n{\n DEVICE d { dummy 1 }\n}\n");
    assert_eq!((error.code, error.span.line), (Code::BraceOnNextLine, 2));
    assert_eq!(error.related[0].0.line, 1);
    assert_eq!(error.hint.unwrap(), "write `HANDLER vdisk_nullio {` on one line");
}

#[test]
fn of_the_same_section_twice_the_last_wins_and_what_is_lost_is_listed() {
    let text = with_target(
        "  LUN 0 a\n  GROUP g {\n   LUN 0 b\n   INITIATOR iqn.old\n   INITIATOR iqn.both\n  }\n  \
           GROUP g {\n   LUN 0 c\n   INITIATOR iqn.both\n  }",
    );
    let configuration = warned(&text, &[Code::RepeatedSection]);
    let group = &configuration.targets[0].groups[0];
    assert_eq!(group.initiators.len(), 1, "no initiator is revived");
    assert_eq!(group.luns[0].device, "c");
    let parsed = read(&text);
    let warning = &parsed.diagnostics[0];
    assert!(warning.message.ends_with("is lost: `LUN 0 b`, `INITIATOR iqn.old`"), "{}", warning.message);
    assert_eq!((warning.span.line, warning.related[0].0.line), (14, 9));
}

#[test]
fn a_hash_inside_quotes_is_an_error_that_says_how_to_escape_it() {
    let error = refused(&with_target("  LUN 0 a\n  IncomingUser \"joe pa#ss-and-more\""));
    assert_eq!((error.code, error.span.line, error.span.column), (Code::HashInWord, 9, 23));
    assert!(error.hint.unwrap().contains("`\\#`"));
    let configuration = sound(&with_target("  LUN 0 a\n  IncomingUser \"joe pa\\#ss-and-more\""));
    assert_eq!(configuration.targets[0].incoming_users[0].secret.expose(), b"pa#ss-and-more");
}

#[test]
fn a_hash_that_touches_a_value_is_an_error() {
    let error = refused(&with_device("vdisk_nullio", "blocksize 4096# c"));
    assert_eq!((error.code, error.span.line, error.span.column), (Code::HashInWord, 3, 15));
    sound(&with_device("vdisk_nullio", "blocksize 4096 # c"));
}

#[test]
fn a_stray_brace_is_an_error_and_reading_goes_on_behind_it() {
    let parsed = read("HANDLER vdisk_nullio {\n DEVICE d\n}\n}\nsetup_id x\n");
    assert_eq!(findings(&parsed), [(4, Code::StrayBrace), (5, Code::BadValue)]);
}

#[test]
fn a_missing_last_brace_is_an_error() {
    let error = refused("HANDLER vdisk_nullio {\n DEVICE d {\n  dummy 1\n }\n");
    assert_eq!((error.code, error.span.line), (Code::UnclosedBrace, 1));
}

#[test]
fn a_file_that_does_not_end_its_last_line_loses_nothing() {
    assert_eq!(sound("HANDLER vdisk_nullio {\n DEVICE d\n}\nsetup_id 7").core.setup_id, 7);
}

#[test]
fn a_fourth_word_is_an_error() {
    let error = refused(&with_target("  LUN 0 a b"));
    assert_eq!((error.code, error.span.line, error.span.column), (Code::FourthWord, 8, 11));
}

#[test]
fn a_user_and_a_secret_need_no_quotes() {
    let plain = sound(&with_target("  LUN 0 a\n  IncomingUser joe twelve-bytes"));
    let quotes = sound(&with_target("  LUN 0 a\n  IncomingUser \"joe twelve-bytes\""));
    assert_eq!(plain, quotes);
}

#[test]
fn the_same_attribute_again_is_a_list_in_order() {
    let configuration =
        sound(&with_target("  LUN 0 a\n  allowed_portal 10.0.0.2\n  allowed_portal 10.0.0.1"));
    let portals: Vec<_> =
        configuration.targets[0].allowed_portals.iter().map(|pattern| pattern.as_str()).collect();
    assert_eq!(portals, ["10.0.0.2", "10.0.0.1"]);
    let error = refused(&with_target("  LUN 0 a\n  alias one\n  alias two"));
    assert_eq!((error.code, error.span.line), (Code::RepeatedAttribute, 10));
    warned(&with_target("  LUN 0 a\n  alias one\n  alias one"), &[Code::RepeatedAttribute]);
}

#[test]
fn handlers_and_drivers_that_we_do_not_have_are_warnings_and_the_rest_is_read() {
    let text = "HANDLER vdisk_tape {\n DEVICE t {\n  reels 2\n }\n}\nTARGET_DRIVER ib_srpt {\n TARGET x {\n  y 1\n }\n}\n"
        .to_owned()
        + &with_target("  LUN 0 a");
    let configuration = warned(&text, &[Code::UnknownHandler, Code::UnknownDriver]);
    assert_eq!(configuration.targets.len(), 1);
    assert_eq!(configuration.foreign.len(), 2);
}

#[test]
fn what_is_skipped_is_still_checked_for_its_syntax() {
    let parsed = read("TARGET_DRIVER ib_srpt {\n TARGET x {\n  a b c d\n }\n}\n");
    assert_eq!(findings(&parsed), [(1, Code::UnknownDriver), (3, Code::FourthWord)]);
}

#[test]
fn an_unknown_attribute_is_an_error_that_names_the_nearest() {
    let error = refused(&with_device("vdisk_fileio", "filename /a\nnv_cahce 1"));
    assert_eq!((error.code, error.span.line), (Code::UnknownAttribute, 4));
    assert_eq!(error.label, "did you mean `nv_cache`?");
    let error = refused(&with_target("  LUN 0 a\n  IncomingUser1 \"joe twelve-bytes\""));
    assert_eq!((error.code, error.label.as_str()), (Code::UnknownAttribute, "did you mean `IncomingUser`?"));
}

#[test]
fn an_attribute_in_the_wrong_place_is_told_where_it_belongs() {
    let error = refused(&with_target("  LUN 0 a\n  write_through 1"));
    assert_eq!(error.hint.unwrap(), "`write_through` belongs into a DEVICE of vdisk_fileio or vdisk_blockio");
    let error = refused(&with_device("vdisk_blockio", "filename /dev/a\no_direct 1"));
    assert_eq!(error.hint.unwrap(), "`o_direct` belongs into a DEVICE of vdisk_fileio");
}
