//! Any text: no panic, every span inside the text, and no secret shown.

use proptest::prelude::*;

use crate::scst_conf::{Colour, Parsed, Span, parse, summarise};

/// Pieces of configuration files, whole and broken, between which anything may stand.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "HANDLER vdisk_fileio {",
        "HANDLER vdisk_nullio {",
        "HANDLER vdisk_ram {",
        "HANDLER vcdrom {",
        "HANDLER x {",
        "DEVICE a",
        "DEVICE a {",
        "DEVICE b { dummy 1 }",
        "DEVICE",
        "filename /a",
        "filename",
        "size 512",
        "size_mb 1",
        "TARGET_DRIVER iscsi {",
        "TARGET_DRIVER copy_manager {",
        "TARGET_DRIVER y {",
        "TARGET iqn.2026-11.com.example:t {",
        "TARGET copy_manager_tgt {",
        "TARGET t {",
        "LUN 0 a",
        "LUN 0 b {",
        "LUN 1 a b c",
        "LUN",
        "GROUP g {",
        "INITIATOR iqn.*",
        "INITIATOR iqn.x",
        "INITIATOR",
        "enabled 1",
        "enabled",
        "read_only 1",
        "nv_cache 1",
        "DEVICE_GROUP dg {",
        "TARGET_GROUP tg {",
        "group_id 1",
        "rel_tgt_id 1",
        "ALUA {",
        "HW_TARGET",
        "naa_id 6000c500a1b2c3d4",
        "IncomingUser \"joe secret\"",
        "allowed_portal 10.*",
        "t10_dev_id x",
        "{",
        "}",
        "\"",
        "\\",
        "#",
        "\t",
        "\r",
        "é\u{2003}",
    ]);
    prop_oneof![
        6 => known.prop_map(|line| format!("{line}\n")),
        2 => Just("}\n".to_owned()),
        1 => "[ -~\\n]{0,12}",
        1 => any::<char>().prop_map(String::from),
    ]
}

fn lies_inside(parsed: &Parsed, span: Span) -> bool {
    let line = usize::try_from(span.line).unwrap();
    let Some(text) = parsed.text.lines().nth(line - 1) else { return false };
    let end = usize::try_from(span.column - 1 + span.length).unwrap();
    end <= text.chars().count().max(1)
}

fn check_spans(parsed: &Parsed) -> Result<(), TestCaseError> {
    for found in &parsed.diagnostics {
        let spans = std::iter::once(found.span).chain(found.related.iter().map(|(span, _)| *span));
        for span in spans {
            prop_assert!(lies_inside(parsed, span), "{:?} of {:?}", span, found);
        }
    }
    prop_assert_eq!(parsed.configuration.is_some(), parsed.errors == 0);
    let _ = (parsed.report(Colour::On), summarise(parsed));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_a_panic_and_spans_lie_inside_it(pieces in prop::collection::vec(piece(), 0..40)) {
        check_spans(&parse("f", pieces.concat().as_bytes()))?;
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_spans(&parse("f", &bytes))?;
    }

    /// A line that was meant to be IncomingUser, with faults around and inside it.
    #[test]
    fn no_secret_is_ever_shown(
        before in prop::collection::vec(piece(), 0..6),
        keyword in prop::sample::select(vec!["IncomingUser", "OutgoingUser", "incominguser", "IncomingUser1", "\"IncomingUser"]),
        between in prop::sample::select(vec![" joe ", " \"joe ", " ", " \"", "\t\"joe\" ", " joe#", "\n", "\n\"joe ", " joe\\ ", " joe\u{a0}", ":"]),
        after in prop::sample::select(vec!["\n", "\"\n", " x\n", "\" y\n", "#\n", "\" }\n", " \\", "{\n", "}\n", ""]),
        behind in prop::collection::vec(piece(), 0..6),
    ) {
        // Where no user is written, a word behind the secret would make the secret the user, whose name may be shown.
        let after = if between.trim_matches(['"', ' ']).is_empty() { "\n" } else { after };
        let text = format!("{}\n{keyword}{between}XyZZy-opensesame{after}\n{}", before.concat(), behind.concat());
        let parsed = parse("f", text.as_bytes());
        check_spans(&parsed)?;
        let mut shown = parsed.report(Colour::Off) + &summarise(&parsed);
        shown += &format!("{:?}", parsed.configuration);
        prop_assert!(!shown.to_lowercase().contains("opensesame"), "{text}\n{shown}");
    }
}

/// As large as a gateway gets, and then all of it wrong: read in a time that nobody notices.
#[test]
fn a_large_file_is_read_and_a_large_file_of_errors_too() {
    use std::fmt::Write;
    let mut text = "HANDLER vdisk_fileio {\n".to_owned();
    for number in 0..2_000 {
        writeln!(text, "DEVICE disk{number} {{\nfilename /srv/{number}\n}}").unwrap();
    }
    text += "}\nTARGET_DRIVER iscsi {\nenabled 1\nTARGET iqn.2026-11.com.example:t {\nenabled 1\n";
    for number in 0..2_000 {
        writeln!(text, "LUN {number} disk{number}").unwrap();
    }
    text += "}\n}\n";
    let parsed = parse("f", text.as_bytes());
    assert_eq!((parsed.errors, parsed.warnings), (0, 0));
    assert_eq!(parsed.configuration.unwrap().targets[0].luns.len(), 2_000);

    let broken = parse("f", text.replace("DEVICE disk", "DEVICE dsik").as_bytes());
    assert_eq!(broken.errors, 2_000);
    assert_eq!(broken.diagnostics.len(), crate::scst_conf::DIAGNOSTICS_MAX + 1, "and a target without LUN 0");
}
