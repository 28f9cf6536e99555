//! What a plan does, step by step, and that it always arrives.

use std::collections::HashSet;

use portico_model::configuration::{Configuration, Portal};
use proptest::prelude::*;

use super::{Note, Plan, Step, When, plan, plan_forced};
use crate::scst_conf::parse;

fn configuration(text: &str) -> Configuration {
    let parsed = parse("f", text.as_bytes());
    let report = parsed.report(crate::scst_conf::Colour::Off);
    parsed.configuration.unwrap_or_else(|| panic!("{text}\n{report}"))
}

/// Devices `a`, `b` and `c`, and a target with these lines.
fn serving(devices: &str, target: &str) -> Configuration {
    configuration(&format!(
        "HANDLER vdisk_fileio {{\n{devices}\n}}\nTARGET_DRIVER iscsi {{\nenabled 1\nTARGET iqn.2026-11.com.example:t {{\nenabled 1\n{target}\n}}\n}}\n"
    ))
}

const A: &str = "DEVICE a { \n filename /a\n }\n";
const B: &str = "DEVICE b { \n filename /b\n }\n";

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

#[test]
fn what_did_not_change_has_no_step() {
    let here = serving(A, "LUN 0 a");
    assert_eq!(plan(&here, &serving(&format!("# moved\n\n{A}"), "LUN 0 a")), Plan::default());
}

#[test]
fn from_nothing_devices_come_first_then_targets_then_they_are_enabled_then_the_driver() {
    let plan = plan(&Configuration::default(), &serving(&format!("{A}{B}"), "LUN 0 a\nLUN 1 b"));
    assert_eq!(
        lines(&plan),
        [
            "open device a",
            "open device b",
            "add target iqn.2026-11.com.example:t",
            "open portals [0.0.0.0:3260, [::]:3260], close portals []",
            "enable target iqn.2026-11.com.example:t",
            "change the iscsi driver, which is enabled",
        ]
    );
}

#[test]
fn what_the_file_no_longer_names_goes_if_no_session_uses_it() {
    let old = serving(&format!("{A}{B}"), "LUN 0 a\nLUN 1 b\nGROUP g {\nLUN 0 b\n}");
    let new = serving(A, "LUN 0 a");
    let steps = [
        "unmap LUN 1 of iqn.2026-11.com.example:t (if no session uses it)",
        "remove group g of iqn.2026-11.com.example:t (if no session uses it)",
        "close device b (if no session uses it)",
    ];
    assert_eq!(lines(&plan(&old, &new)), steps);
    assert_eq!(
        lines(&plan_forced(&old, &new)),
        steps.map(|line| line.replace(" (if no session uses it)", ""))
    );
}

#[test]
fn a_lun_that_gets_another_device_waits_for_its_sessions() {
    let both = format!("{A}{B}");
    let plan = plan(&serving(&both, "LUN 0 a"), &serving(&both, "LUN 0 b"));
    assert_eq!(lines(&plan), ["replace LUN 0 of iqn.2026-11.com.example:t by b (if no session uses it)"]);
}

#[test]
fn a_lun_becomes_read_only_at_once() {
    let plan = plan(&serving(A, "LUN 0 a"), &serving(A, "LUN 0 a {\nread_only 1\n}"));
    assert_eq!(lines(&plan), ["make LUN 0 of iqn.2026-11.com.example:t read only"]);
}

#[test]
fn a_size_changes_while_the_device_runs_and_a_block_size_does_not() {
    let with = |attributes: &str| serving(&format!("DEVICE a {{\nfilename /a\n{attributes}\n}}"), "LUN 0 a");
    let (old, new) = (with("size 4096"), with("size 8192\nblocksize 4096"));
    let plan = plan(&old, &new);
    assert_eq!(lines(&plan), ["change size of device a"]);
    let [Note::NeedsReopen { device, attributes, .. }] = plan.notes.as_slice() else {
        panic!("{:?}", plan.notes)
    };
    assert_eq!((device.as_str(), attributes.as_slice()), ("a", &["blocksize"][..]));
    let after = applied(&old, &plan);
    assert_eq!(after.devices[0].handler.size_bytes(), Some(8192));
    assert_eq!(after.devices[0].block_size_bytes, 512);

    let forced = plan_forced(&old, &new);
    assert_eq!((lines(&forced), forced.notes.len()), (vec!["reopen a".to_owned()], 0));
    assert_eq!(applied(&old, &forced), new);
}

#[test]
fn a_file_that_moves_to_another_device_is_closed_before_it_is_opened() {
    let renamed = A.replace("DEVICE a", "DEVICE z");
    let plan = plan(&serving(A, "LUN 0 a"), &serving(&renamed, "LUN 0 z"));
    assert_eq!(
        lines(&plan),
        [
            "unmap LUN 0 of iqn.2026-11.com.example:t (if no session uses it)",
            "close device a (if no session uses it)",
            "open device z",
            "map LUN 0 of iqn.2026-11.com.example:t to z",
        ]
    );
}

#[test]
fn a_target_that_is_disabled_stops_first_and_one_that_is_enabled_starts_last() {
    let text = |first: u8, second: u8| {
        configuration(&format!(
            "HANDLER vdisk_nullio {{\nDEVICE a\n}}\nTARGET_DRIVER iscsi {{\nTARGET iqn.2026-11.com.example:x {{\nLUN 0 a\nenabled {first}\n}}\n\
             TARGET iqn.2026-11.com.example:y {{\nLUN 0 a\nenabled {second}\nalias n{second}\n}}\n}}\n"
        ))
    };
    assert_eq!(
        lines(&plan(&text(1, 0), &text(0, 1))),
        [
            "disable target iqn.2026-11.com.example:x",
            "change alias of target iqn.2026-11.com.example:y",
            "enable target iqn.2026-11.com.example:y",
        ]
    );
}

#[test]
fn the_order_of_groups_is_part_of_who_sees_what() {
    let groups = |first: &str, second: &str| {
        serving(A, &format!("LUN 0 a\nGROUP {first} {{\nLUN 0 a\n}}\nGROUP {second} {{\nLUN 0 a\n}}"))
    };
    let plan = plan(&groups("g", "h"), &groups("h", "g"));
    assert_eq!(lines(&plan), ["order the groups of iqn.2026-11.com.example:t: h, g"]);
}

#[test]
fn the_setup_id_stays_with_devices_that_are_open() {
    let with = |id: u32| {
        let mut configuration = serving(A, "LUN 0 a");
        configuration.core.setup_id = id;
        configuration
    };
    let plan_of_change = plan(&with(1), &with(2));
    assert_eq!(plan_of_change.notes, [Note::SetupIdStays { holds: 1, wanted: 2 }]);
    assert_eq!(plan_of_change.steps, []);
    let from_nothing = plan(&Configuration::default(), &with(2));
    assert!(from_nothing.notes.is_empty());
    assert_eq!(lines(&from_nothing).last().unwrap(), "change the core's attributes");
}

#[test]
fn portals_are_opened_and_closed_by_what_differs() {
    let mut old = serving(A, "LUN 0 a");
    old.portals = Portal::loopback();
    let mut new = old.clone();
    new.portals.push(Portal("127.0.0.2:3260".parse().unwrap()));
    assert_eq!(lines(&plan(&old, &new)), ["open portals [127.0.0.2:3260], close portals []"]);
}

#[test]
fn a_plan_shows_no_secret() {
    let old = serving(A, "LUN 0 a");
    let new = serving(A, "LUN 0 a\nIncomingUser \"joe open-sesame-1\"");
    let plan = plan(&old, &new);
    assert_eq!(lines(&plan), ["change IncomingUser of target iqn.2026-11.com.example:t"]);
    assert!(!format!("{plan:?}").contains("open-sesame"));
}

fn applied(old: &Configuration, plan: &Plan) -> Configuration {
    let mut configuration = old.clone();
    plan.steps.iter().for_each(|step| step.apply(&mut configuration));
    configuration
}

/// Devices and targets in the order of their names: their order means nothing.
fn sorted(mut configuration: Configuration) -> Configuration {
    configuration.devices.sort_by(|a, b| a.name.cmp(&b.name));
    configuration.targets.sort_by(|a, b| a.name.cmp(&b.name));
    configuration.portals.sort();
    configuration
}

/// Carries a plan out, and after every step looks whether what is there could be served.
fn carry_out(old: &Configuration, plan: &Plan) -> Result<Configuration, TestCaseError> {
    let mut configuration = old.clone();
    for step in &plan.steps {
        if let Step::OpenDevice { device } = step {
            prop_assert!(configuration.device(&device.name).is_none(), "{} is open already", device.name);
        }
        step.apply(&mut configuration);
        let open: HashSet<&str> = configuration.devices.iter().map(|device| device.name.as_str()).collect();
        let files = configuration.devices.iter().filter_map(|device| device.handler.filename());
        let writers = files.clone().count();
        prop_assert_eq!(files.collect::<HashSet<_>>().len(), writers, "after {}", step);
        for target in &configuration.targets {
            for (place, luns) in super::target::places(target) {
                prop_assert!(
                    luns.iter().all(|lun| open.contains(lun.device.as_str())),
                    "{} after {}",
                    place,
                    step
                );
                prop_assert!(luns.is_sorted_by(|a, b| a.lun < b.lun), "{} after {}", place, step);
            }
        }
    }
    Ok(configuration)
}

/// Files of a few devices, targets, groups and LUNs, whose names come from small pools so that two of them overlap.
fn any_configuration() -> impl Strategy<Value = Configuration> {
    let device = (0..4usize, prop::option::of(0..3u32), 0..3u8, prop::bool::ANY);
    let devices = prop::collection::btree_map(0..4u8, device, 1..5);
    let luns = || prop::collection::btree_map(0..3u16, (0..4usize, prop::bool::ANY), 0..3);
    let groups = prop::collection::btree_map(0..3u8, (0..2u8, luns()), 0..3);
    let target = (prop::bool::ANY, 0..2u8, luns(), groups, prop::bool::ANY);
    let targets = prop::collection::btree_map(0..3u8, target, 0..3);
    (devices, targets, 0..3u32, prop::bool::ANY).prop_map(|(devices, targets, setup_id, enabled)| {
        use std::fmt::Write;
        let mut text = format!("setup_id {setup_id}\nHANDLER vdisk_fileio {{\n");
        let mut names = Vec::new();
        let mut files = HashSet::new();
        for (name, (file, size, attribute, flag)) in &devices {
            // The first of the four files that is free, so that no two devices hold one.
            let file = (0..4).map(|step| (file + step) % 4).find(|file| files.insert(*file)).unwrap();
            let size = size.map_or(String::new(), |size| format!("size {}\n", 4096 * (size + 1)));
            let attribute = ["blocksize 4096", "prod_id p", "nv_cache 1"][usize::from(*attribute)];
            let attribute = if *flag { attribute } else { "" };
            writeln!(text, "DEVICE d{name} {{\nfilename /f{file}\n{size}{attribute}\n}}").unwrap();
            names.push(format!("d{name}"));
        }
        writeln!(text, "}}\nTARGET_DRIVER iscsi {{\nenabled {}", u8::from(enabled)).unwrap();
        let luns = |text: &mut String, luns: &std::collections::BTreeMap<u16, (usize, bool)>| {
            for (lun, (device, read_only)) in luns {
                let device = &names[device % names.len()];
                writeln!(text, "LUN {lun} {device} {{\nread_only {}\n}}", u8::from(*read_only)).unwrap();
            }
        };
        for (name, (enabled, alias, own, groups, backwards)) in &targets {
            writeln!(
                text,
                "TARGET iqn.2026-11.com.example:t{name} {{\nenabled {}\nalias {alias}",
                u8::from(*enabled)
            )
            .unwrap();
            luns(&mut text, own);
            let mut groups: Vec<_> = groups.iter().collect();
            if *backwards {
                groups.reverse();
            }
            for (group, (initiator, own)) in groups {
                writeln!(text, "GROUP g{group} {{\nINITIATOR iqn.i{initiator}-{group}").unwrap();
                luns(&mut text, own);
                writeln!(text, "}}").unwrap();
            }
            writeln!(text, "}}").unwrap();
        }
        configuration(&(text + "}\n"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_leads_from_a_configuration_to_itself(here in any_configuration()) {
        prop_assert_eq!(plan(&here, &here), Plan::default());
        prop_assert_eq!(plan_forced(&here, &here), Plan::default());
    }

    #[test]
    fn a_forced_plan_arrives_and_every_step_of_it_could_be_served(old in any_configuration(), new in any_configuration()) {
        let plan = plan_forced(&old, &new);
        let mut there = carry_out(&old, &plan)?;
        if let [Note::SetupIdStays { holds, wanted }] = plan.notes.as_slice() {
            prop_assert_eq!((there.core.setup_id, new.core.setup_id), (*holds, *wanted));
            there.core.setup_id = *wanted;
        } else {
            prop_assert_eq!(&plan.notes, &[]);
        }
        prop_assert_eq!(sorted(there), sorted(new));
    }

    #[test]
    fn a_plan_arrives_but_for_what_it_names(old in any_configuration(), new in any_configuration()) {
        let plan = plan(&old, &new);
        let mut there = sorted(applied(&old, &plan));
        let mut wanted = sorted(new.clone());
        for note in &plan.notes {
            match note {
                Note::SetupIdStays { .. } => there.core.setup_id = wanted.core.setup_id,
                Note::NeedsReopen { device, attributes, .. } => {
                    prop_assert!(!attributes.is_empty());
                    let kept = there.device(device).unwrap().clone();
                    let before = old.device(device).unwrap();
                    prop_assert_eq!(kept.handler.filename(), before.handler.filename());
                    prop_assert_eq!(kept.block_size_bytes, before.block_size_bytes);
                    there.devices.retain(|other| other.name != *device);
                    wanted.devices.retain(|other| other.name != *device);
                }
            }
        }
        prop_assert_eq!(there, wanted);
    }

    #[test]
    fn every_removal_of_a_plan_waits_for_sessions(old in any_configuration(), new in any_configuration()) {
        for step in plan(&old, &new).steps {
            if let Step::RemoveTarget { when, .. } | Step::RemoveGroup { when, .. } | Step::UnmapLun { when, .. }
                | Step::CloseDevice { when, .. } | Step::ReplaceLun { when, .. } = &step
            {
                prop_assert_eq!(*when, When::Unused, "{}", step);
            }
            prop_assert!(!matches!(step, Step::ReopenDevices { .. }), "nothing is reopened");
        }
    }
}
