//! How diagnostics look, to the byte.

use super::{read, with_device, with_target};
use crate::scst_conf::Colour;

fn shown(text: &str) -> String {
    read(text).report(Colour::Off)
}

#[test]
fn an_error_shows_its_line_and_points_at_the_word() {
    assert_eq!(
        shown("HANDLER vdisk_fileio {\n\tDEVICE disk1 {\n\t\tfilename /a\n\t\tnv_cahce 1\n\t}\n}\n"),
        "\
error[unknown-attribute]: DEVICE `disk1` of vdisk_fileio has no attribute `nv_cahce`
 --> scst.conf:4:3
  |
4 |         nv_cahce 1
  |         ^^^^^^^^ did you mean `nv_cache`?

"
    );
}

#[test]
fn related_lines_are_shown_in_the_files_order() {
    let text = "HANDLER vdisk_fileio {\n DEVICE a {\n  filename /srv/disk\n }\n DEVICE b {\n  filename /srv//disk\n }\n}\n";
    assert_eq!(
        shown(text),
        "\
error[shared-medium]: two writable devices hold the same file
 --> scst.conf:6:12
  |
3 |   filename /srv/disk
  |            --------- first held here
...
6 |   filename /srv//disk
  |            ^^^^^^^^^^ again here
  = help: map one device as several LUNs instead, or make both devices `read_only 1`

"
    );
}

#[test]
fn two_marks_on_one_line_share_it() {
    assert_eq!(
        shown("HANDLER vdisk_nullio { DEVICE a DEVICE\n"),
        "\
error[unclosed-brace]: this `HANDLER` section is never closed
 --> scst.conf:1:22
  |
1 | HANDLER vdisk_nullio { DEVICE a DEVICE
  |                      ^ opened here
  = help: a section ends with a `}` on a line of its own

error[section-words]: a section of this kind is written `DEVICE name`
 --> scst.conf:1:24
  |
1 | HANDLER vdisk_nullio { DEVICE a DEVICE
  |                        ^^^^^^^^^^^^^^^

"
    );
}

#[test]
fn a_warning_with_colours_carries_the_escapes_that_terminals_know() {
    let text = "TARGET_DRIVER scst_local {\n}\n";
    let parsed = read(text);
    assert_eq!(
        parsed.report(Colour::On),
        "\u{1b}[1;33mwarning[unknown-driver]\u{1b}[0m\u{1b}[1m: target driver `scst_local` is not supported: \
         its targets are not served\u{1b}[0m\n \u{1b}[1;34m-->\u{1b}[0m scst.conf:1:15\n  \u{1b}[1;34m|\u{1b}[0m\n\
         \u{1b}[1;34m1\u{1b}[0m \u{1b}[1;34m|\u{1b}[0m TARGET_DRIVER scst_local {\n  \u{1b}[1;34m|\u{1b}[0m \
         \u{20}             \u{1b}[1;33m^^^^^^^^^^\u{1b}[0m\n\n"
    );
}

#[test]
fn a_line_with_a_secret_is_masked() {
    assert_eq!(
        shown(&with_target("  LUN 0 a\n  IncomingUser \"joe pa#ss\" # pa#ss")),
        "\
error[hash-in-word]: a `#` begins a comment here, and would cut what stands before it
 --> scst.conf:9:23
  |
9 |   IncomingUser \"joe ********
  |                    ^ the rest of the line is a comment
  = help: write `\\#` for the character itself, or a blank before a comment

"
    );
}

#[test]
fn a_long_line_is_shown_around_its_fault() {
    let text = format!("{} {}# c {}\n", "alias", "a".repeat(300), "b".repeat(300));
    let out = read(&text).report(Colour::Off);
    let line = out.lines().nth(3).unwrap();
    assert!(line.chars().count() < 140, "{line}");
    assert!(line.contains("a# c b"));
    let marks = out.lines().nth(4).unwrap();
    assert_eq!(line.chars().position(|c| c == '#'), marks.chars().position(|c| c == '^'));
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    let out = shown("\u{1b}]0;title\u{7} 1\nsetup_id \u{202e}1\n");
    assert!(!out.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{out:?}");
}

#[test]
fn the_same_file_is_reported_in_the_same_words_every_time() {
    let text =
        with_device("vdisk_fileio", "filename x\nsize 1\nfoo 1\nblocksize 3\nnaa_id 1") + "LUN 0 q\n}\n";
    let first = shown(&text);
    assert!((0..20).all(|_| shown(&text) == first));
}
