//! What is written is what was read, and looks as scstadmin's files do.

use portico_model::configuration::{
    Configuration, IscsiName, LunMapping, Secret, Target, User, embedded_default,
};
use proptest::prelude::*;

use super::parse;
use crate::scst_conf::{Colour, write};

/// Reads what was written. Order among devices and targets means nothing, and no file names portals.
fn again(configuration: &Configuration) -> Configuration {
    let text = write(configuration).unwrap();
    let parsed = parse("written", text.as_bytes());
    let report = parsed.report(Colour::Off);
    let read = parsed.configuration.unwrap_or_else(|| panic!("{text}\n{report}"));
    sorted(Configuration { portals: configuration.portals.clone(), ..read })
}

fn sorted(mut configuration: Configuration) -> Configuration {
    let handler = |name: &str| {
        ["vdisk_blockio", "vdisk_fileio", "vdisk_nullio", "vdisk_ram", "vdisk_rbd"]
            .iter()
            .position(|h| *h == name)
    };
    configuration.devices.sort_by_key(|device| (handler(device.handler.name()), device.name.clone()));
    configuration.targets.sort_by(|a, b| a.name.cmp(&b.name));
    configuration.foreign.sort_by(|a, b| a.words.cmp(&b.words));
    configuration
}

#[test]
fn a_file_is_written_in_scstadmins_order_and_only_what_is_no_default() {
    let text = "TARGET_DRIVER iscsi {\n enabled 1\n TARGET iqn.2026-11.com.example:t {\n  rel_tgt_id 7\n  enabled 1\n  \
                  IncomingUser \"zoe a\\#secret-of-hers\"\n  IncomingUser \"amy other-secret-1\"\n  NopInInterval 30\n  LUN 10 z\n  LUN 2 a { read_only 1 }\n  \
                  GROUP g {\n   INITIATOR iqn.*\n   LUN 0 z\n  }\n }\n}\n\
                HANDLER vdisk_nullio {\n DEVICE z {\n  rotational 1\n  dummy 1\n }\n DEVICE a {\n  prod_id \"two words\"\n }\n}\n\
                setup_id 0x10\nthreads 2\n";
    let configuration = parse("f", text.as_bytes()).configuration.unwrap();
    assert_eq!(
        write(&configuration).unwrap(),
        "setup_id 0x10\nthreads 2\n\n\
         HANDLER vdisk_nullio {\n\
         \tDEVICE a {\n\t\tprod_id \"two words\"\n\t}\n\n\
         \tDEVICE z {\n\t\tdummy 1\n\t}\n\
         }\n\n\
         TARGET_DRIVER iscsi {\n\
         \tenabled 1\n\n\
         \tTARGET iqn.2026-11.com.example:t {\n\
         \t\tIncomingUser \"zoe a\\#secret-of-hers\"\n\t\tIncomingUser \"amy other-secret-1\"\n\t\tenabled 1\n\t\trel_tgt_id 7\n\n\
         \t\tLUN 2 a {\n\t\t\tread_only 1\n\t\t}\n\
         \t\tLUN 10 z\n\n\
         \t\tGROUP g {\n\t\t\tLUN 0 z\n\t\t\tINITIATOR iqn.*\n\t\t}\n\
         \t}\n\
         }\n"
    );
}

#[test]
fn the_five_files_and_the_embedded_default_survive_being_written() {
    for text in [
        include_str!("../../../tests/scst_conf/minimal.conf"),
        include_str!("../../../tests/scst_conf/masked_chap.conf"),
        include_str!("../../../tests/scst_conf/alua_pair.conf"),
        include_str!("../../../tests/scst_conf/vmware_rbd.conf"),
        include_str!("../../../tests/scst_conf/field.conf"),
    ] {
        let configuration = parse("f", text.as_bytes()).configuration.unwrap();
        assert_eq!(again(&configuration), sorted(configuration));
    }
    let embedded = embedded_default(std::path::Path::new("/var/lib/a b"));
    assert_eq!(again(&embedded), sorted(embedded));
}

#[test]
fn a_line_end_in_a_value_is_refused_and_not_told() {
    let mut configuration = Configuration::default();
    let mut target = Target::new(IscsiName::parse("iqn.2026-11.com.example:t").unwrap());
    target.incoming_users.push(User { name: "joe".into(), secret: Secret::new("open\nenabled 1") });
    configuration.targets.push(target);
    let refusal = write(&configuration).unwrap_err().to_string();
    assert_eq!(refusal, "IncomingUser holds a control character, and cannot be written");
}

/// Text with everything in it that means something to the reader.
fn awkward() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", "[\\\\\"#{} \t]{0,8}", "[^\\p{C}]{0,12}"]
        .prop_filter("U+FFFD stands for what was no text", |text| !text.contains('\u{fffd}'))
}

proptest! {
    #[test]
    fn any_values_survive_being_written(
        alias in awkward(),
        comment in awkward(),
        user in "[!-~]{1,12}",
        secret in "[!-~][ -~]{0,20}[!-~]",
        device in "[!-.0-~]{1,20}",
        group in awkward().prop_filter("not empty", |name| !name.is_empty()),
        initiator in "[!-~]{2,20}",
        read_only in any::<bool>(),
        number in 0..16_384u16,
    ) {
        let mut configuration = embedded_default(std::path::Path::new("/srv"));
        configuration.devices[1].name.clone_from(&device);
        let target = &mut configuration.targets[0];
        target.alias = Some(alias);
        target.kept.push(portico_model::configuration::KeptAttribute { name: "comment".into(), value: comment });
        target.incoming_users.push(User { name: user, secret: Secret::new(secret) });
        target.luns = vec![LunMapping { read_only, ..LunMapping::new(number, &*device) }];
        let mut members = portico_model::configuration::Group::new(group);
        members.initiators.extend(portico_model::configuration::Pattern::parse(&initiator));
        target.groups.push(members);
        let read = again(&configuration);
        prop_assert_eq!(read, sorted(configuration));
    }
}
