//! The five files that must load.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use portico_model::configuration::{AluaState, Handler, identity};

use super::{findings, parse, severities, warned};
use crate::scst_conf::{Code, Colour, Severity, Verdict, check, load};

const PORTAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../../tests/scst_conf/", $name, ".conf"))
    };
}

#[test]
fn minimal_two_files_behind_one_target() {
    let configuration = super::sound(file!("minimal"));
    assert_eq!(configuration.devices.len(), 2);
    assert!(configuration.devices.iter().all(|device| device.nv_cache && !device.write_through));
    let target = configuration.target("iqn.2026-11.com.example:minimal").unwrap();
    assert!(configuration.serves(target));
    let luns = target.luns_for("iqn.anybody", PORTAL).unwrap();
    assert_eq!(
        luns.iter().map(|lun| (lun.lun, &*lun.device)).collect::<Vec<_>>(),
        [(0, "disk01"), (1, "disk02")]
    );
}

#[test]
fn masked_with_chap_gives_each_group_its_own() {
    let configuration = super::sound(file!("masked_chap"));
    let target = &configuration.targets[0];
    let users: Vec<_> =
        target.incoming_users.iter().map(|user| (&*user.name, user.secret.expose().to_vec())).collect();
    assert_eq!(users[1], ("bob", b"second-secret-with-a-#-in-it".to_vec()));
    assert_eq!(users[2], ("carol", b"third-secret-unquoted".to_vec()));
    assert_eq!(target.outgoing_user.as_ref().unwrap().name, "portico");
    assert_eq!(target.negotiated.header_digest.len(), 2);
    assert_eq!((target.queued_commands, target.max_sessions), (64, Some(4)));

    assert_eq!(target.luns_for("iqn.2005-03.org.open-iscsi:stranger", PORTAL), None);
    let accounting = target.luns_for("iqn.1991-05.com.microsoft:acc-07.example.com", PORTAL).unwrap();
    assert_eq!(accounting.iter().map(|lun| lun.read_only).collect::<Vec<_>>(), [false, true]);
    let studio = target.luns_for("iqn.1998-01.com.vmware:studio-3", PORTAL).unwrap();
    assert_eq!((studio.len(), &*studio[0].device, studio[0].read_only), (1, "media", false));
    assert!(target.allows_portal(PORTAL));
    assert!(!target.allows_portal(IpAddr::V4(Ipv4Addr::new(10, 0, 3, 1))));
    let file = configuration.device("accounts").unwrap().handler.filename();
    assert_eq!(file, Some("/srv/scst/with blank/accounts.img"));
}

#[test]
fn an_alua_pair_names_the_other_nodes_target() {
    let configuration = super::sound(file!("alua_pair"));
    assert_eq!(configuration.core.setup_id, 0x1234);
    let group = &configuration.device_groups[0];
    assert_eq!(group.devices, ["shared"]);
    let [this, other] = group.target_groups.as_slice() else { panic!("two target groups") };
    assert_eq!((this.group_id, this.preferred, this.state), (256, true, AluaState::Active));
    assert_eq!((other.group_id, other.preferred, other.state), (257, false, AluaState::Standby));
    assert_eq!(other.targets[0].rel_tgt_id, Some(2));
    let device = configuration.device("shared").unwrap();
    let identity = identity(device, configuration.core.setup_id).unwrap();
    assert!(identity.serial_number.as_bytes().starts_with(b"1234"));
}

#[test]
fn vmware_on_rbd_shows_one_product_and_two_disks() {
    let configuration = super::sound(file!("vmware_rbd"));
    let identities: Vec<_> =
        configuration.devices.iter().map(|device| identity(device, 0).unwrap()).collect();
    assert!(identities.iter().all(|identity| identity.product.as_bytes() == b"RBD"));
    assert!(identities.iter().all(|identity| identity.vendor.as_bytes() == b"EXAMPLE"));
    assert_ne!(identities[0].eui64, identities[1].eui64);
    assert!(configuration.devices.iter().all(|device| device.thin_provisioned && !device.rotational));
    assert_eq!(configuration.copy_manager.len(), 2);
}

#[test]
fn a_field_file_loads_beside_what_we_do_not_have() {
    let configuration =
        warned(file!("field"), &[Code::UnknownHandler, Code::UnservedLun, Code::UnknownDriver]);
    let size_bytes = |name| configuration.device(name).unwrap().handler.size_bytes();
    assert_eq!(size_bytes("lv_mail"), Some(100 << 30));
    assert!(matches!(configuration.device("dummy").unwrap().handler, Handler::NullIo { dummy: true, .. }));
    let target = &configuration.targets[0];
    let seen = |initiator| {
        target.luns_for(initiator, PORTAL).unwrap().iter().map(|lun| &*lun.device).collect::<Vec<_>>()
    };
    assert_eq!(seen("iqn.2005-03.org.open-iscsi:mail2"), ["dummy", "lv_mail"]);
    assert_eq!(seen("iqn.2005-03.org.open-iscsi:web17"), ["dummy", "lv_web"]);
    assert_eq!(seen("iqn.2005-03.org.open-iscsi:other"), ["dummy"]);
    assert_eq!(target.groups[1].unserved_luns[0].device, "rescue");
    assert_eq!(configuration.foreign.len(), 2, "the vcdrom and the FC card are kept");
}

#[test]
fn a_device_that_scst_would_close_with_its_ports_state_is_named() {
    let text = file!("alua_pair");
    let named = |text: &str| {
        let found = crate::scst_conf::parse("pair", text.as_bytes()).not_in_effect;
        let is_it = |item: &&crate::scst_conf::NotInEffect| item.what.contains("bind_alua_state");
        found.iter().find(is_it).map(|item| (item.what.clone(), item.line))
    };
    let expected = ("bind_alua_state 1 of device `shared`".to_owned(), 23);
    assert_eq!(named(text), Some(expected), "by default, where a device is in a group of this node's ports");
    let unbound = text.replace("cluster_mode 1", "bind_alua_state 0");
    assert_eq!(named(&unbound), None, "what is here is what 0 asks for");
    let file = text.replace("vdisk_blockio", "vdisk_fileio");
    assert_eq!(named(&file), None);
    assert!(named(&file.replace("cluster_mode 1", "bind_alua_state 1")).is_some());
    let elsewhere = text.replace(
        "TARGET iqn.2026-11.com.example:node-a\n\t}\n\n\tTARGET_GROUP",
        "TARGET other\n\t}\n\n\tTARGET_GROUP",
    );
    assert_ne!(elsewhere, text);
    assert_eq!(named(&elsewhere), None, "no port of this node has a state");
}

#[test]
fn a_check_says_what_a_file_would_serve() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scst_conf/field.conf"));
    let mut out = Vec::new();
    assert_eq!(check(path, &mut out, Colour::Off).unwrap(), Verdict::Warned { warnings: 3 });
    let out = String::from_utf8(out).unwrap();
    let summary = &out[out.find("can be applied").unwrap()..];
    assert_eq!(
        summary,
        "can be applied, 3 warnings\n\
         portals: 0.0.0.0:3260, [::]:3260 (--portal changes them)\n\
         devices: 3\n  \
           dummy    vdisk_nullio, dummy, blocks of 512 bytes\n  \
           lv_mail  vdisk_blockio, /dev/vg0/mail, 100 GiB, blocks of 512 bytes\n  \
           lv_web   vdisk_blockio, /dev/vg0/web, 50 GiB, blocks of 512 bytes, nv_cache: flushes nothing, the power is vouched for\n\
         targets: 1\n  \
           iqn.2026-11.com.example:field\n    \
             group mail: iqn.2005-03.org.open-iscsi:mail1, iqn.2005-03.org.open-iscsi:mail2\n      \
               LUN 0 dummy\n      \
               LUN 1 lv_mail\n    \
             group web: iqn.2005-03.org.open-iscsi:web*\n      \
               LUN 0 dummy\n      \
               LUN 1 lv_web\n      \
               LUN 2 rescue: not served\n    \
             every other initiator\n      \
               LUN 0 dummy\n\
         accepted, and not in effect yet:\n  \
           cpu_mask ff (line 35): one thread per core serves everything\n  \
           io_grouping_type this_group_only (line 49): one thread per core serves everything\n  \
           max_tasklet_cmd 10 (line 2): one thread per core serves everything\n  \
           threads 4 (line 4): one thread per core serves everything\n  \
           threads_num 4 (line 15): one thread per core serves everything\n"
    );
}

#[test]
fn a_check_of_a_file_that_is_not_there_says_so() {
    let mut out = Vec::new();
    let verdict = check(Path::new("/nonexistent/\u{1b}scst.conf"), &mut out, Colour::On).unwrap();
    assert_eq!(verdict, Verdict::Unreadable);
    assert!(String::from_utf8(out).unwrap().starts_with("/nonexistent/\u{fffd}scst.conf: cannot be read: "));
}

#[test]
fn no_secret_of_a_file_is_shown_by_anything() {
    let parsed = parse("masked.conf", file!("masked_chap").as_bytes());
    let mut shown = parsed.report(Colour::On) + &super::super::summarise(&parsed);
    shown += &format!("{:?} {:?}", parsed.configuration, parsed.not_in_effect);
    for secret in ["quite-a-long", "first-secret", "second-secret", "third-secret", "what-the-target"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(shown.contains("logins with CHAP as alice, bob, carol; proves to be portico"), "{shown}");
    assert!(shown.contains("discovery with CHAP as discoverer"), "{shown}");
}

#[test]
fn all_five_files_end_without_an_error_on_windows_line_ends_too() {
    for text in
        [file!("minimal"), file!("masked_chap"), file!("alua_pair"), file!("vmware_rbd"), file!("field")]
    {
        let unix = parse("f", text.as_bytes());
        let windows = parse("f", text.replace('\n', "\r\n").as_bytes());
        assert_eq!(findings(&unix), findings(&windows));
        assert_eq!(unix.configuration, windows.configuration);
        assert!(severities(&unix).iter().all(|(severity, _)| *severity == Severity::Warning));
    }
}

/// Two devices of these handlers, which can write.
fn two_devices(first: (&str, &Path), second: (&str, &Path)) -> String {
    let device = |name: &str, (handler, path): (&str, &Path)| {
        format!("HANDLER {handler} {{\n DEVICE {name} {{\n  filename {}\n }}\n}}\n", path.display())
    };
    device("a", first) + &device("b", second)
}

#[test]
fn one_file_under_two_names_is_found_by_who_looks_at_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("disk"), "").unwrap();
    std::fs::hard_link(at("disk"), at("hard")).unwrap();
    std::os::unix::fs::symlink(at("disk"), at("soft")).unwrap();
    std::os::unix::fs::symlink(folder.path(), at("around")).unwrap();
    let file = at("scst.conf");
    for (first, second) in
        [("disk", "hard"), ("disk", "soft"), ("around/disk", "disk"), ("new", "around/new")]
    {
        let text = two_devices(("vdisk_fileio", &at(first)), ("vdisk_blockio", &at(second)));
        std::fs::write(&file, &text).unwrap();
        let mut out = Vec::new();
        let verdict = check(&file, &mut out, Colour::Off).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(verdict, Verdict::Refused { errors: 1, warnings: 0 }, "{said}");
        assert!(said.contains("two writable devices hold the same file under two names"), "{said}");
        assert!(said.contains("scst.conf:8:12") && said.contains("\n3 |   filename"), "both lines: {said}");
        assert!(super::read(&text).configuration.is_some(), "the text alone does not say it");
        let readers = text.replace(" }\n", "  read_only 1\n }\n");
        std::fs::write(&file, readers).unwrap();
        assert!(load(&file).unwrap().configuration.is_some(), "readers disturb nobody");
    }
    let others = two_devices(("vdisk_fileio", &at("disk")), ("vdisk_blockio", &at("new")));
    std::fs::write(&file, others).unwrap();
    assert!(load(&file).unwrap().configuration.is_some(), "two files");
}
