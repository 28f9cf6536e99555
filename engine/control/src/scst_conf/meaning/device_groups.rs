//! DEVICE_GROUP, TARGET_GROUP and the targets in them.

use std::collections::{HashMap, HashSet};

use portico_model::configuration::{Configuration, DeviceGroup, Source, TargetGroup, TargetReference};
use portico_scsi::alua::{GROUPS_MAX, PORTS_MAX};

use super::attributes::Attributes;
use super::sections::{Expected, last_of_each, sections};
use super::{Context, KnownDevice};
use crate::scst_conf::diagnostic::{Code, Diagnostic, quoted};
use crate::scst_conf::lexer::Word;
use crate::scst_conf::schema::Level;
use crate::scst_conf::syntax::Statement;
use crate::scst_conf::text::Span;
use crate::scst_conf::value;

/// The target ports of this gateway, as far as the file says.
pub(super) struct OwnPorts {
    targets: HashSet<String>,
    /// Each target has one port through each.
    portal_groups: usize,
}

impl OwnPorts {
    pub(super) fn of(configuration: &Configuration) -> Self {
        let tags: HashSet<u16> = configuration.iscsi.portals.iter().map(|given| given.tag).collect();
        let targets = configuration.targets.iter().map(|target| target.name.as_str().to_owned());
        Self { targets: targets.collect(), portal_groups: tags.len().max(1) }
    }

    /// How many ports these targets are.
    fn count(&self, targets: &[TargetReference]) -> usize {
        let is_own = |target: &TargetReference| self.targets.contains(&target.name.to_ascii_lowercase());
        targets.iter().map(|target| if is_own(target) { self.portal_groups } else { 1 }).sum()
    }
}

/// Reads one DEVICE_GROUP.
pub(super) fn read(context: &mut Context<'_>, own: &OwnPorts, section: &Statement) -> DeviceGroup {
    let name = &section.words[1];
    let place = format!("DEVICE_GROUP {}", quoted(&name.text));
    Attributes::read(context, Level::Nothing, &place, section.body());
    let expected = [Expected::named("DEVICE"), Expected::named("TARGET_GROUP")];
    let found = sections(context, &place, &expected, Level::Nothing, section.body());
    let mut group = DeviceGroup {
        name: name.text.clone(),
        devices: Vec::new(),
        target_groups: Vec::new(),
        kept: Vec::new(),
        source: Source { line: name.span.line },
    };
    let mut taken = Taken::default();
    for section in last_of_each(context, found) {
        let word = &section.words[1];
        if section.keyword() == "TARGET_GROUP" {
            let target_group = target_group(context, own, section, &mut taken);
            group.target_groups.extend(target_group);
            continue;
        }
        refuse_contents(context, section, "a DEVICE in a DEVICE_GROUP is a reference, and has no attributes");
        if resolve(context, section) && is_first_group_of(context, word) {
            group.devices.push(word.text.clone());
        }
    }
    if group.target_groups.len() > GROUPS_MAX {
        let message = format!("a DEVICE_GROUP has at most {GROUPS_MAX} TARGET_GROUPs");
        context.report(Diagnostic::error(Code::TooLarge, name.span, message));
    }
    group
}

/// What is unique in a DEVICE_GROUP.
#[derive(Default)]
struct Taken {
    group_ids: HashMap<u16, Span>,
    targets: HashMap<String, Span>,
}

/// A device is in one DEVICE_GROUP: its target port groups could contradict each other otherwise.
fn is_first_group_of(context: &mut Context<'_>, word: &Word) -> bool {
    match context.grouped_devices.insert(word.text.clone(), word.span) {
        None => true,
        Some(first) => {
            let message = format!("device {} is in two DEVICE_GROUPs", quoted(&word.text));
            let error = Diagnostic::error(Code::DuplicateName, word.span, message);
            context.report(error.related(first, "it is in this one already"));
            false
        }
    }
}

/// A section that may have braces, and nothing between them.
pub(super) fn refuse_contents(context: &mut Context<'_>, section: &Statement, message: &str) {
    if let Some(first) = section.body().first() {
        context.report(Diagnostic::error(Code::UnknownAttribute, first.span(), message));
    }
}

fn resolve(context: &mut Context<'_>, section: &Statement) -> bool {
    let word = &section.words[1];
    match context.devices.get(&word.text) {
        Some(KnownDevice::Served(_)) => true,
        Some(KnownDevice::Unserved(_)) => false,
        None => {
            let message = format!("there is no device {}", quoted(&word.text));
            let mut error = Diagnostic::error(Code::UnknownDevice, word.span, message);
            if let Some(near) = context.nearest_device(&word.text) {
                error = error.label(format!("did you mean {}?", quoted(near)));
            }
            if !word.broken {
                context.report(error);
            }
            false
        }
    }
}

fn target_group(
    context: &mut Context<'_>,
    own: &OwnPorts,
    section: &Statement,
    taken: &mut Taken,
) -> Option<TargetGroup> {
    let level = Level::TargetGroup;
    let name = &section.words[1];
    let place = format!("TARGET_GROUP {}", quoted(&name.text));
    let attributes = Attributes::read(context, level, &place, section.body());
    let found = sections(context, &place, &[Expected::named("TARGET")], level, section.body());
    let mut targets = Vec::new();
    for section in last_of_each(context, found) {
        let level = Level::TargetReference;
        let place = format!("TARGET {} in a TARGET_GROUP", quoted(&section.words[1].text));
        let attributes = Attributes::read(context, level, &place, section.body());
        sections(context, &place, &[], level, section.body());
        let name = section.words[1].text.clone();
        if let Some(first) = taken.targets.insert(name.to_ascii_lowercase(), section.words[1].span) {
            let message = format!("target {} is in two TARGET_GROUPs of one DEVICE_GROUP", quoted(&name));
            let error = Diagnostic::error(Code::DuplicateName, section.words[1].span, message);
            context.report(error.related(first, "it is in this one already"));
        }
        targets.push(TargetReference { name, rel_tgt_id: attributes.number("rel_tgt_id") });
    }

    let Some(group_id) = attributes.number("group_id") else {
        if attributes.one("group_id").is_none() {
            let message = format!("{place} has no group_id");
            let error = Diagnostic::error(Code::MissingAttribute, name.span, message);
            context.report(error.hint("add `group_id number` to it, from 0 to 65535"));
        }
        return None;
    };
    let span = attributes.span("group_id").unwrap_or(name.span);
    if own.count(&targets) > PORTS_MAX {
        let message =
            format!("a TARGET_GROUP has at most {PORTS_MAX} ports, one for each target and portal group");
        context.report(Diagnostic::error(Code::TooLarge, name.span, message));
    }
    if let Some(first) = taken.group_ids.insert(group_id, span) {
        let message = format!("group_id {group_id} is used twice in one DEVICE_GROUP");
        let error = Diagnostic::error(Code::DuplicateName, span, message).related(first, "first used here");
        context.report(error);
    }
    Some(TargetGroup {
        name: name.text.clone(),
        group_id,
        preferred: attributes.flag(level, "preferred"),
        state: attributes.read_with("state", |text| value::alua_state(text).ok()).unwrap_or_default(),
        targets,
        kept: attributes.kept(),
        source: Source { line: name.span.line },
    })
}
