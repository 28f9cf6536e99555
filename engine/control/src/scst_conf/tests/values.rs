//! Values, and what must hold between sections.

use portico_model::configuration::Handler;

use super::{Code, findings, parse, read, refused, sound, warned, with_device, with_target};
use crate::scst_conf::{DIAGNOSTICS_MAX, FILE_SIZE_BYTES_MAX};

fn refused_device(handler: &str, lines: &str) -> (Code, u32) {
    let error = refused(&with_device(handler, lines));
    (error.code, error.span.line)
}

fn refused_target(lines: &str) -> (Code, u32) {
    let error = refused(&with_target(lines));
    (error.code, error.span.line)
}

#[test]
fn a_ram_disk_is_our_own_handler_and_needs_a_size() {
    let device = sound(&with_device("vdisk_ram", "size 1048576")).devices.remove(0);
    assert_eq!((device.handler.name(), device.handler.size_bytes()), ("vdisk_ram", Some(1 << 20)));
    assert_eq!(sound(&with_device("vdisk_ram", "size_mb 1")).devices[0], device);
    assert_eq!(refused_device("vdisk_ram", ""), (Code::MissingAttribute, 2));
}

#[test]
fn an_rbd_image_is_named_by_its_parts_or_by_a_file_name() {
    let by_parts = "pool rbd\nimage disk\nsnapshot monday\nclient gate\nconf /etc/ceph/b.conf\noption \"rados_osd_op_timeout 30\"";
    let device = sound(&with_device("vdisk_rbd", by_parts)).devices.remove(0);
    assert_eq!(device.handler.filename(), Some("rbd:rbd/disk@monday:conf=/etc/ceph/b.conf"));
    let Handler::Rbd(image) = &device.handler else { panic!("{:?}", device.handler) };
    assert_eq!(
        (image.client.as_str(), &image.options[..]),
        ("gate", &[("rados_osd_op_timeout".into(), "30".into())][..])
    );
    let by_name = sound(&with_device("vdisk_rbd", "filename rbd:rbd/disk")).devices.remove(0);
    assert_eq!(
        by_name.handler,
        sound(&with_device("vdisk_rbd", "pool rbd\nimage disk")).devices.remove(0).handler
    );
    assert_eq!(refused_device("vdisk_rbd", "pool rbd"), (Code::MissingAttribute, 2));
    assert_eq!(refused_device("vdisk_rbd", "filename rbd:rbd/disk\npool rbd"), (Code::Conflict, 4));
    assert_eq!(refused_device("vdisk_rbd", "pool rbd\nimage disk\nsnapshot a/b"), (Code::BadValue, 5));
    let cached = "filename rbd:rbd/disk\noption \"rbd_cache true\"";
    assert_eq!(refused_device("vdisk_rbd", cached), (Code::Conflict, 4));
}

#[test]
fn one_rbd_image_is_not_written_to_by_two_devices() {
    let text =
        "HANDLER vdisk_rbd {\n DEVICE a {\n  filename rbd:p/i\n }\n DEVICE b {\n  pool p\n  image i\n }\n}\n";
    assert_eq!(refused(text).code, Code::SharedMedium);
}

#[test]
fn a_file_or_block_device_needs_an_absolute_filename() {
    assert_eq!(refused_device("vdisk_fileio", ""), (Code::MissingAttribute, 2));
    let parsed = read(&with_device("vdisk_blockio", "filename dev/sda"));
    assert!(findings(&parsed).contains(&(3, Code::BadValue)));
}

#[test]
fn the_block_size_divides_the_size() {
    assert_eq!(refused_device("vdisk_ram", "size 1000"), (Code::BadValue, 3));
    assert_eq!(refused_device("vdisk_ram", "blocksize 4096\nsize 512"), (Code::BadValue, 4));
    assert_eq!(refused_device("vdisk_ram", "size 1048576\nsize_mb 2"), (Code::Conflict, 4));
    assert_eq!(refused_device("vdisk_nullio", "blocksize 1000"), (Code::BadValue, 3));
}

#[test]
fn read_only_refuses_what_is_about_writing() {
    for other in ["write_through", "nv_cache"] {
        let lines = format!("filename /a\nread_only 1\n{other} 1");
        assert_eq!(refused_device("vdisk_fileio", &lines), (Code::Conflict, 5));
        sound(&with_device("vdisk_fileio", &lines.replace("read_only 1", "read_only 0")));
    }
}

#[test]
fn identifiers_have_their_lengths_and_a_short_naa_does_not_begin_with_6() {
    let naa = |id: &str| format!("naa_id {id}");
    assert_eq!(refused_device("vdisk_nullio", &naa("0x6000c500a1b2c3d4")), (Code::BadValue, 3));
    sound(&with_device("vdisk_nullio", &naa("0x6000c500a1b2c3d46000c500a1b2c3d4")));
    sound(&with_device("vdisk_nullio", &naa("5000c500a1b2c3d4")));
    assert_eq!(refused_device("vdisk_nullio", &naa("5000c500a1b2c3d45000c500")), (Code::BadValue, 3));
    sound(&with_device("vdisk_nullio", "eui64_id 5000c500a1b2c3d45000c500"));
    assert_eq!(refused_device("vdisk_nullio", "prod_id seventeen_letters"), (Code::BadValue, 3));
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_what_is_wanted() {
    for (lines, wants) in [
        ("read_only yes", "`read_only` wants 0 or 1"),
        ("size 64G", "`size` wants a size in bytes, from 1 to 9223372036854775807"),
        ("tst 2", "`tst` wants a number from 0 to 1"),
    ] {
        assert_eq!(refused(&with_device("vdisk_nullio", lines)).message, wants);
    }
    assert_eq!(refused_target("  LUN 0 a\n  InitialR2T 1"), (Code::BadValue, 9));
    assert_eq!(refused_target("  LUN 0 a\n  QueuedCommands 2049"), (Code::BadValue, 9));
    assert_eq!(refused_target("  LUN 0 a\n  rel_tgt_id 0"), (Code::BadValue, 9));
    assert_eq!(refused_target("  LUN 0 a\n  alias"), (Code::MissingValue, 9));
    assert_eq!(refused_target("  LUN 0 a\n  alias two words"), (Code::BadValue, 9));
    sound(&with_target("  LUN 0 a\n  alias \"\""));
}

#[test]
fn an_order_is_no_part_of_a_configuration() {
    assert_eq!(refused_device("vdisk_nullio", "resync_size 1"), (Code::RefusedAttribute, 3));
}

#[test]
fn a_lun_names_a_device_that_there_is() {
    let error = refused(
        &with_target("  LUN 0 a").replace("LUN 0 a", "LUN 0 disk10").replace("DEVICE a", "DEVICE disk01"),
    );
    assert_eq!((error.code, error.span.line), (Code::UnknownDevice, 8));
    assert_eq!(error.label, "did you mean `disk01`?");
    assert_eq!(refused_target("  LUN a 0"), (Code::BadValue, 8));
    assert_eq!(refused_target("  LUN 0"), (Code::SectionWords, 8));
    assert_eq!(refused_target("  LUN 16384 a"), (Code::BadValue, 8));
}

#[test]
fn a_lun_number_names_one_device() {
    let error = refused(&with_target("  LUN 0 a\n  LUN 0 b"));
    assert_eq!((error.code, error.span.line, error.related[0].0.line), (Code::DuplicateLun, 9, 8));
    warned(&with_target("  LUN 0 a\n  LUN 0 a"), &[Code::RepeatedSection]);
    sound(&with_target("  LUN 0 a\n  LUN 1 a\n  GROUP g {\n   LUN 0 b\n  }"));
}

#[test]
fn luns_are_sorted_by_their_number() {
    let configuration = sound(&with_target("  LUN 10 c\n  LUN 9 b\n  LUN 0 a"));
    let numbers: Vec<_> = configuration.targets[0].luns.iter().map(|lun| lun.lun).collect();
    assert_eq!(numbers, [0, 9, 10]);
}

#[test]
fn a_device_name_is_unique_across_handlers() {
    let text = "HANDLER vdisk_nullio {\n DEVICE d\n}\nHANDLER vdisk_ram {\n DEVICE d { size 512 }\n}\n";
    let error = refused(text);
    assert_eq!((error.code, error.span.line, error.related[0].0.line), (Code::DuplicateName, 5, 2));
}

#[test]
fn one_file_has_one_writer() {
    let two = |first: &str, second: &str| {
        format!(
            "HANDLER vdisk_fileio {{\n DEVICE a {{\n  filename /srv/disk\n{first} }}\n}}\n\
             HANDLER vdisk_blockio {{\n DEVICE b {{\n  filename /srv/x/../disk\n{second} }}\n}}\n"
        )
    };
    let error = refused(&two("", ""));
    assert_eq!((error.code, error.span.line, error.related[0].0.line), (Code::SharedMedium, 8, 3));
    sound(&two("  read_only 1\n", "  read_only 1\n"));
}

#[test]
fn two_devices_of_one_identity_are_refused_and_of_one_head_told() {
    let two = |first: &str, second: &str| {
        format!(
            "HANDLER vdisk_nullio {{\n DEVICE a {{ t10_dev_id {first} }}\n DEVICE b {{ t10_dev_id {second} }}\n}}\n"
        )
    };
    let error = refused(&two("same", "same"));
    assert_eq!((error.code, error.span.line, error.related[0].0.line), (Code::SameIdentity, 3, 2));
    warned(&two("datastore-1", "datastore-2"), &[Code::SameIdentity]);
    sound(&two("1-datastore", "2-datastore"));
}

#[test]
fn an_initiator_is_in_one_group() {
    let groups = |first: &str, second: &str| {
        with_target(&format!(
            "  LUN 0 a\n  GROUP g {{\n   INITIATOR {first}\n  }}\n  GROUP h {{\n   INITIATOR {second}\n  }}"
        ))
    };
    let error = refused(&groups("iqn.a*", "IQN.A*"));
    assert_eq!((error.code, error.span.line, error.related[0].0.line), (Code::InitiatorTwice, 13, 10));
    let parsed = read(&groups("iqn.a*", "iqn.abc"));
    assert_eq!(findings(&parsed), [(13, Code::InitiatorTwice)]);
    assert_eq!(parsed.diagnostics[0].message, "`iqn.abc` matches two groups: it gets the LUNs of `g`");
    sound(&groups("iqn.a*", "iqn.b*"));
}

#[test]
fn a_target_or_group_without_lun_0_is_a_warning() {
    warned(&with_target("  LUN 1 a"), &[Code::NoLunZero]);
    warned(&with_target(""), &[Code::NoLunZero]);
    warned(&with_target("  GROUP g {\n   LUN 1 a\n  }"), &[Code::NoLunZero]);
    sound(&with_target("  GROUP g {\n   LUN 0 a\n  }"));
    sound(&with_target("  LUN 0 a\n  GROUP nothing {\n   INITIATOR iqn.x\n  }"));
}

#[test]
fn rel_tgt_id_is_unique_on_both_nodes() {
    let pair = |own: u16, other: u16| {
        with_target(&format!("  LUN 0 a\n  rel_tgt_id {own}"))
            + &format!(
                "DEVICE_GROUP g {{\n TARGET_GROUP h {{\n  group_id 1\n  TARGET iqn.other {{\n   rel_tgt_id {other}\n  }}\n }}\n}}\n"
            )
    };
    sound(&pair(1, 2));
    let error = refused(&pair(1, 1));
    assert_eq!((error.code, error.span.line, error.related[0].0.line), (Code::DuplicateName, 16, 9));
}

#[test]
fn a_device_group_is_checked() {
    let group = |lines: &str| with_target("  LUN 0 a") + "DEVICE_GROUP g {\n" + lines + "}\n";
    sound(&group(" DEVICE a\n"));
    assert_eq!(refused(&group(" DEVICE x\n")).code, Code::UnknownDevice);
    assert_eq!(refused(&group(" TARGET_GROUP t {\n  state active\n }\n")).code, Code::MissingAttribute);
    let error = refused(&group(" TARGET_GROUP t {\n  group_id 1\n  state aktiv\n }\n"));
    assert!(error.message.contains("`active`, `nonoptimized`"), "{}", error.message);
    let twice = " TARGET_GROUP t {\n  group_id 1\n }\n TARGET_GROUP u {\n  group_id 1\n }\n";
    assert_eq!(refused(&group(twice)).code, Code::DuplicateName);
    let target = " TARGET_GROUP t {\n  group_id 1\n  TARGET iqn.x\n }\n TARGET_GROUP u {\n  group_id 2\n  TARGET iqn.X\n }\n";
    assert_eq!(refused(&group(target)).code, Code::DuplicateName);
    let two_groups = group(" DEVICE a\n") + "DEVICE_GROUP h {\n DEVICE a\n}\n";
    assert_eq!(refused(&two_groups).code, Code::DuplicateName);
    let many: String = (0..33).map(|id| format!(" TARGET_GROUP t{id} {{\n  group_id {id}\n }}\n")).collect();
    assert_eq!(refused(&group(&many)).code, Code::TooLarge);
}

#[test]
fn a_target_has_an_iscsi_name() {
    let named = |name: &str| {
        format!(
            "HANDLER vdisk_nullio {{\n DEVICE a\n}}\nTARGET_DRIVER iscsi {{\n TARGET {name} {{\n  LUN 0 a\n }}\n}}\n"
        )
    };
    assert_eq!(refused(&named("disk1")).code, Code::IscsiName);
    assert_eq!(refused(&named("eui.0123")).code, Code::IscsiName);
    warned(&named("iqn.2006-10.net.vlnb:tgt_1"), &[Code::IscsiName]);
    let configuration = warned(&named("iqn.2006-10.net.VLNB:Tgt"), &[Code::IscsiName]);
    assert_eq!(configuration.targets[0].name.as_str(), "iqn.2006-10.net.vlnb:tgt");
}

#[test]
fn a_driver_that_is_not_enabled_serves_none_of_its_targets() {
    let text = with_target("  LUN 0 a").replace("iscsi { enabled 1", "iscsi {");
    let configuration = warned(&text, &[Code::NotEnabled]);
    assert!(!configuration.serves(&configuration.targets[0]));
}

#[test]
fn weak_secrets_are_told_and_one_in_both_directions_is_refused() {
    let users = |lines: &str| warned_codes(&with_target(&format!("  LUN 0 a\n{lines}")));
    assert_eq!(users("  IncomingUser \"joe short\""), [Code::WeakSecret]);
    assert_eq!(users("  IncomingUser \"joe twelve-bytes\"\n  OutgoingUser \"me other-twelve\""), []);
    assert_eq!(users("  OutgoingUser \"me twelve-bytes\""), [Code::NoAuthentication]);
    let same = "  LUN 0 a\n  IncomingUser \"joe twelve-bytes\"\n  OutgoingUser \"me twelve-bytes\"";
    assert_eq!(refused_target(same), (Code::SameSecret, 10));
    let twice = "  LUN 0 a\n  IncomingUser \"joe twelve-bytes\"\n  IncomingUser \"joe other-twelve-bytes\"";
    assert_eq!(refused_target(twice), (Code::DuplicateName, 10));
}

fn warned_codes(text: &str) -> Vec<Code> {
    let parsed = read(text);
    assert!(parsed.configuration.is_some());
    findings(&parsed).into_iter().map(|(_, code)| code).collect()
}

#[test]
fn keywords_have_their_places_and_their_spelling() {
    assert_eq!(refused("LUN 0 a\n").hint.unwrap(), "it stands in a TARGET or a GROUP");
    assert_eq!(refused("handler vdisk_nullio {\n DEVICE d\n}\n").label, "did you mean `HANDLER`?");
    let error = refused(&with_target("  LUN 0 a\n  GROUP g {\n   INITATOR iqn.x\n  }"));
    assert_eq!(error.label, "did you mean `INITIATOR`?");
    let parsed = read(&with_device("vdisk_fileio", "filename /a {\n}"));
    assert_eq!(findings(&parsed), [(2, Code::MissingAttribute), (3, Code::UnknownSection)]);
}

#[test]
fn the_copy_manager_is_a_driver_with_one_target() {
    let with = |target: &str| {
        format!(
            "HANDLER vdisk_nullio {{\n DEVICE a\n}}\nTARGET_DRIVER copy_manager {{\n TARGET {target} {{\n  LUN 0 a\n }}\n}}\n"
        )
    };
    assert_eq!(sound(&with("copy_manager_tgt")).copy_manager[0].device, "a");
    assert_eq!(refused(&with("tgt")).code, Code::BadValue);
}

#[test]
fn an_empty_file_is_an_error_and_no_order_to_remove_everything() {
    for text in ["", "\n\n", "# nothing\n", "\u{feff}"] {
        assert_eq!(refused(text).code, Code::EmptyFile, "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_pointed_at() {
    let parsed = parse("f", b"setup_id 1\ncluster_name gr\xfcn\nsetup_id \xff");
    assert_eq!(parsed.diagnostics.len(), 1);
    let error = &parsed.diagnostics[0];
    assert_eq!((error.code, error.span.line, error.span.column), (Code::NotUtf8, 2, 16));
    assert_eq!(
        (error.message.as_str(), error.label.as_str()),
        ("the byte 0xfc is no UTF-8", "and 1 more such places")
    );
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let comments = ("#".repeat(8_191) + "\n").repeat(FILE_SIZE_BYTES_MAX / 8_192);
    assert_eq!(findings(&parse("f", comments.as_bytes())), [(1, Code::EmptyFile)]);
    assert_eq!(findings(&parse("f", (comments + "x").as_bytes())), [(1, Code::TooLarge)]);
}

#[test]
fn all_errors_are_counted_and_a_hundred_are_shown() {
    let parsed = read(&"foo 1\n".repeat(250));
    assert_eq!((parsed.errors, parsed.diagnostics.len()), (250, DIAGNOSTICS_MAX));
    assert!(parsed.report(crate::scst_conf::Colour::Off).ends_with("… and 150 more that are not shown\n\n"));
}

#[test]
fn a_file_of_reservations_is_nothing_else() {
    let two = |first: &str, second: &str| {
        format!(
            "HANDLER vdisk_fileio {{\n DEVICE a {{\n  filename /a\n  pr_file_name {first}\n }}\n DEVICE b {{\n  filename /b\n  pr_file_name {second}\n }}\n}}\n{}",
            "TARGET_DRIVER iscsi { enabled 1\n TARGET iqn.2026-11.com.example:t {\n  enabled 1\n  LUN 0 a\n }\n}\n"
        )
    };
    let read = sound(&two("/pr/a", "/pr/b"));
    assert_eq!(read.devices[1].pr_file_name.as_deref(), Some("/pr/b"));
    for other in ["/pr/a", "/pr//a", "/a", "/pr/a.new", "/pr/a.bak"] {
        let error = refused(&two("/pr/a", other));
        assert_eq!((error.code, error.span.line), (Code::Conflict, 8), "{other}");
    }
}

#[test]
fn what_is_written_beside_a_file_of_reservations_is_no_medium() {
    for medium in ["/pr/a.new", "/pr/a.bak"] {
        let error = refused(&with_device("vdisk_fileio", &format!("filename {medium}\npr_file_name /pr/a")));
        assert_eq!(error.code, Code::Conflict, "{medium}");
    }
}

#[test]
fn a_target_group_has_no_more_ports_than_one_byte_counts() {
    let file = |targets: usize, portals: &str| {
        let own: String = (1..targets)
            .map(|at| format!(" TARGET iqn.2026-11.com.example:t{at} {{\n  LUN 0 a\n }}\n"))
            .collect();
        let members: String =
            (1..targets).map(|at| format!("  TARGET iqn.2026-11.com.example:t{at}\n")).collect();
        format!(
            "HANDLER vdisk_nullio {{\n DEVICE a\n}}\nTARGET_DRIVER iscsi {{\n{portals}{own}}}\nDEVICE_GROUP g {{\n DEVICE a\n TARGET_GROUP h {{\n  group_id 1\n{members} }}\n}}\n"
        )
    };
    let two_groups = " portal \"10.0.0.1:3260 1\"\n portal \"10.0.0.2:3260 2\"\n";
    sound(&file(129, ""));
    sound(&file(128, two_groups));
    assert_eq!(refused(&file(129, two_groups)).code, Code::TooLarge);
}
