//! TARGET_DRIVER iscsi and copy_manager: targets, groups, LUNs and initiators.

use std::collections::HashMap;
use std::net::IpAddr;

use portico_model::configuration::{
    Configuration, Group, GroupedPortal, IscsiDriver, IscsiName, KeptAttribute, LUN_NUMBER_MAX, LUNS_MAX,
    LunMapping, NegotiatedKeys, Pattern, QUEUED_COMMANDS_DEFAULT, Source, TARGETS_MAX, Target, Timers,
    UnservedLun, User,
};

use super::attributes::Attributes;
use super::device_groups::refuse_contents;
use super::sections::{Expected, last_of_each, last_of_each_by, sections};
use super::{Context, KnownDevice, checks};
use crate::scst_conf::NotInEffect;
use crate::scst_conf::diagnostic::{Code, Diagnostic, quoted};
use crate::scst_conf::schema::Level;
use crate::scst_conf::syntax::Statement;
use crate::scst_conf::text::Span;
use crate::scst_conf::value;

/// Where the parts of a target are written, for the checks between targets.
pub(super) struct TargetSpans {
    pub(super) name: Span,
    pub(super) rel_tgt_id: Option<Span>,
}

/// Reads `TARGET_DRIVER iscsi`.
pub(super) fn read_iscsi(
    context: &mut Context<'_>,
    configuration: &mut Configuration,
    spans: &mut Vec<TargetSpans>,
    section: &Statement,
) {
    let level = Level::Driver;
    let place = "TARGET_DRIVER `iscsi`";
    let attributes = Attributes::read(context, level, place, section.body());
    checks::users(context, &attributes);
    configuration.iscsi = IscsiDriver {
        enabled: attributes.flag(level, "enabled"),
        incoming_users: incoming_users(&attributes),
        outgoing_user: attributes.user("OutgoingUser"),
        portals: portals(&attributes),
        internal_portal: attributes.read_with("internal_portal", |text| value::address(text).ok()),
        link_local: attributes.flag(level, "link_local"),
        kept: attributes.kept(),
        source: Source { line: section.span().line },
    };
    let found = sections(context, place, &[Expected::named("TARGET")], level, section.body());
    let normal = |section: &Statement| section.words[1].text.to_ascii_lowercase();
    for section in last_of_each_by(context, found, normal) {
        if configuration.targets.len() >= TARGETS_MAX {
            let message = format!("a configuration has at most {TARGETS_MAX} targets");
            return context.report(Diagnostic::error(Code::TooLarge, section.span(), message));
        }
        if let Some((target, span)) = target(context, section) {
            configuration.targets.push(target);
            spans.push(span);
        }
    }
    if !configuration.iscsi.enabled && configuration.targets.iter().any(|target| target.enabled) {
        let message = "the iscsi driver is not enabled: none of its targets is served";
        let warning = Diagnostic::warning(Code::NotEnabled, section.head_span(), message);
        context.report(warning.hint("add `enabled 1` to the TARGET_DRIVER, beside that of the targets"));
    }
}

/// Reads `TARGET_DRIVER copy_manager { TARGET copy_manager_tgt { LUN n device } }`.
pub(super) fn read_copy_manager(
    context: &mut Context<'_>,
    configuration: &mut Configuration,
    section: &Statement,
) {
    let level = Level::CopyManager;
    let place = "TARGET_DRIVER `copy_manager`";
    Attributes::read(context, level, place, section.body());
    let found = sections(context, place, &[Expected::named("TARGET")], level, section.body());
    for section in last_of_each(context, found) {
        let name = &section.words[1];
        let place = format!("TARGET {}", quoted(&name.text));
        if name.text != "copy_manager_tgt" {
            let message = format!("the copy manager has no {place}");
            let error = Diagnostic::error(Code::BadValue, name.span, message);
            context.report(error.hint("its one target is `copy_manager_tgt`"));
            continue;
        }
        Attributes::read(context, level, &place, section.body());
        let found = sections(context, &place, &[Expected::LUN], level, section.body());
        let (luns, _) = luns(context, &found);
        if !luns.is_empty() {
            context.not_in_effect.push(NotInEffect {
                what: place,
                instead: "EXTENDED COPY reaches every LUN that the initiator sees, and no other",
                place: "the file".to_owned(),
                line: name.span.line,
            });
        }
        configuration.copy_manager = luns;
    }
}

/// Each address once: the last line that names it says its group.
fn portals(attributes: &Attributes) -> Vec<GroupedPortal> {
    let mut portals = Vec::<GroupedPortal>::new();
    for given in attributes.all("portal").filter_map(|given| value::portal(&given.value).ok()) {
        match portals.iter_mut().find(|known| known.portal == given.portal) {
            Some(known) => *known = given,
            None => portals.push(given),
        }
    }
    portals
}

fn incoming_users(attributes: &Attributes) -> Vec<User> {
    attributes.all("IncomingUser").filter_map(|given| value::user(&given.value).ok()).collect()
}

fn target(context: &mut Context<'_>, section: &Statement) -> Option<(Target, TargetSpans)> {
    let level = Level::Target;
    let word = &section.words[1];
    let place = format!("TARGET {}", quoted(&word.text));
    let attributes = Attributes::read(context, level, &place, section.body());
    let expected = [
        Expected { keyword: "HW_TARGET", words_min: 1, words_max: 2 },
        Expected::LUN,
        Expected::named("GROUP"),
    ];
    let found = sections(context, &place, &expected, level, section.body());
    let of = |keyword: &str| {
        found.iter().copied().filter(|section| section.keyword() == keyword).collect::<Vec<&Statement>>()
    };
    let (luns, unserved_luns) = luns(context, &of("LUN"));
    let groups = groups(context, of("GROUP"));
    let name = target_name(context, section)?;

    let mut target = Target::new(name);
    target.enabled = attributes.flag(level, "enabled");
    target.luns = luns;
    target.unserved_luns = unserved_luns;
    target.allowed_portals =
        attributes.all("allowed_portal").filter_map(|given| Pattern::parse(&given.value).ok()).collect();
    target.per_portal_acl = attributes.flag(level, "per_portal_acl");
    target.incoming_users = incoming_users(&attributes);
    target.outgoing_user = attributes.user("OutgoingUser");
    target.negotiated = negotiated(&attributes);
    target.queued_commands = attributes.number("QueuedCommands").unwrap_or(QUEUED_COMMANDS_DEFAULT);
    target.max_sessions = attributes.number("MaxSessions").filter(|&sessions: &u32| sessions != 0);
    target.timers = timers(&attributes);
    target.aen_disabled = attributes.flag(level, "aen_disabled");
    target.alias = attributes.text("alias");
    target.redirect = attributes.read_with("redirect", |text| value::redirect(text).ok());
    target.rel_tgt_id = attributes.number("rel_tgt_id");
    target.address_method =
        attributes.read_with("addr_method", |text| value::address_method(text).ok()).unwrap_or_default();
    target.kept = attributes.kept();
    target.source = Source { line: word.span.line };
    for hardware in of("HW_TARGET") {
        let value = hardware.word(1).map_or(String::new(), |word| word.text.clone());
        target.kept.push(KeptAttribute { name: "HW_TARGET".into(), value });
    }

    checks::users(context, &attributes);
    checks::portals(context, &attributes);
    checks::bursts(context, &target.negotiated, &attributes);
    let spans: Vec<Span> = groups.iter().map(|(_, span)| *span).collect();
    target.groups = groups.into_iter().map(|(group, _)| group).collect();
    checks::lun_zero(context, &target, word.span, &spans);
    Some((target, TargetSpans { name: word.span, rel_tgt_id: attributes.span("rel_tgt_id") }))
}

fn target_name(context: &mut Context<'_>, section: &Statement) -> Option<IscsiName> {
    let word = &section.words[1];
    let name = match IscsiName::parse(&word.text) {
        Ok(name) => name,
        Err(_) if word.broken => return None,
        Err(fault) => {
            let message = format!("{} is no target name: {fault}", quoted(&word.text));
            let error = Diagnostic::error(Code::IscsiName, word.span, message);
            context.report(error.hint("write it like `iqn.2026-11.com.example:disks`"));
            return None;
        }
    };
    if let Some(departure) = name.departure() {
        let message = format!("some initiators will not take this name: {departure}");
        context.report(Diagnostic::warning(Code::IscsiName, word.span, message));
    } else if name.as_str() != word.text {
        let message = format!("the target shows as {}", quoted(name.as_str()));
        let warning = Diagnostic::warning(Code::IscsiName, word.span, message);
        context.report(warning.hint("iSCSI names are compared in lower case (RFC 7143 §4.2.7)"));
    }
    Some(name)
}

fn negotiated(attributes: &Attributes) -> NegotiatedKeys {
    let digests = |name| attributes.read_with(name, |text| value::digests(text).ok()).unwrap_or_default();
    NegotiatedKeys {
        initial_r2t: attributes.yes_no("InitialR2T"),
        immediate_data: attributes.yes_no("ImmediateData"),
        max_recv_data_segment_length: attributes.number("MaxRecvDataSegmentLength"),
        max_xmit_data_segment_length: attributes.number("MaxXmitDataSegmentLength"),
        max_burst_length: attributes.number("MaxBurstLength"),
        first_burst_length: attributes.number("FirstBurstLength"),
        max_outstanding_r2t: attributes.number("MaxOutstandingR2T"),
        max_connections: attributes.number("MaxConnections"),
        error_recovery_level: attributes.number("ErrorRecoveryLevel"),
        header_digest: digests("HeaderDigest"),
        data_digest: digests("DataDigest"),
    }
}

fn timers(attributes: &Attributes) -> Timers {
    let default = Timers::default();
    Timers {
        nop_in_interval_s: attributes.number("NopInInterval").unwrap_or(default.nop_in_interval_s),
        nop_in_timeout_s: attributes.number("NopInTimeout").unwrap_or(default.nop_in_timeout_s),
        rsp_timeout_s: attributes.number("RspTimeout").unwrap_or(default.rsp_timeout_s),
    }
}

/// Reads `LUN n device` lines, sorted by number.
fn luns(context: &mut Context<'_>, sections_found: &[&Statement]) -> (Vec<LunMapping>, Vec<UnservedLun>) {
    let (mut served, mut unserved) = (Vec::new(), Vec::new());
    if let Some(beyond) = sections_found.get(LUNS_MAX) {
        let message = format!("a target or group has at most {LUNS_MAX} LUNs");
        context.report(Diagnostic::error(Code::TooLarge, beyond.span(), message));
        return (served, unserved);
    }
    let mut numbered = Vec::new();
    for section in sections_found {
        let word = &section.words[1];
        match value::ranged(&word.text, 0, u64::from(LUN_NUMBER_MAX)).ok().and_then(|n| u16::try_from(n).ok())
        {
            Some(number) => numbered.push((number, *section)),
            None if section.broken => {}
            None => {
                let message = format!("a LUN is a number from 0 to {LUN_NUMBER_MAX}");
                let mut error = Diagnostic::error(Code::BadValue, word.span, message);
                if value::number(&section.words[2].text).is_ok() {
                    error = error.hint("the number comes first: `LUN number device`");
                }
                context.report(error);
            }
        }
    }
    for (number, section) in unique_luns(context, &numbered) {
        let level = Level::Lun;
        let place = format!("LUN {number}");
        let attributes = Attributes::read(context, level, &place, section.body());
        sections(context, &place, &[], level, section.body());
        let read_only = attributes.flag(level, "read_only");
        let device = section.words[2].text.clone();
        match resolve(context, section, number) {
            Some(KnownDevice::Served(_)) => {
                let source = Source { line: section.span().line };
                served.push(LunMapping { lun: number, device, read_only, source });
            }
            Some(KnownDevice::Unserved(_)) => unserved.push(UnservedLun { lun: number, device, read_only }),
            None => {}
        }
    }
    served.sort_by_key(|lun| lun.lun);
    unserved.sort_by_key(|lun| lun.lun);
    (served, unserved)
}

/// One line for each number: the last if they name one device, and an error if they name two.
fn unique_luns<'s>(
    context: &mut Context<'_>,
    numbered: &[(u16, &'s Statement)],
) -> Vec<(u16, &'s Statement)> {
    let mut at: HashMap<u16, usize> = HashMap::new();
    let mut unique: Vec<(u16, &Statement)> = Vec::new();
    for &(number, section) in numbered {
        let Some(&before) = at.get(&number) else {
            at.insert(number, unique.len());
            unique.push((number, section));
            continue;
        };
        let first = unique[before].1;
        if first.words[2].text == section.words[2].text {
            let kept = last_of_each_by(context, vec![first, section], |_| number);
            unique[before].1 = kept[0];
            continue;
        }
        let error = Diagnostic::error(
            Code::DuplicateLun,
            section.head_span(),
            format!("LUN {number} is given twice"),
        )
        .label("again here")
        .related(first.head_span(), "first given here")
        .hint("give one of the two another number");
        context.report(error);
    }
    unique
}

fn resolve(context: &mut Context<'_>, section: &Statement, number: u16) -> Option<KnownDevice> {
    let word = &section.words[2];
    let known = context.devices.get(&word.text).copied();
    match known {
        Some(KnownDevice::Served(_)) => {}
        Some(KnownDevice::Unserved(span)) => {
            let message = format!("LUN {number} is not served: device {} is not", quoted(&word.text));
            let warning = Diagnostic::warning(Code::UnservedLun, word.span, message);
            context.report(warning.related(span, "its handler is not in effect"));
        }
        None if word.broken => {}
        None => {
            let message = format!("there is no device {}", quoted(&word.text));
            let mut error = Diagnostic::error(Code::UnknownDevice, word.span, message);
            if let Some(near) = context.nearest_device(&word.text) {
                error = error.label(format!("did you mean {}?", quoted(near)));
            } else {
                error = error.hint("a device is made by `DEVICE name { … }` inside a HANDLER");
            }
            context.report(error);
        }
    }
    known
}

fn groups(context: &mut Context<'_>, sections_found: Vec<&Statement>) -> Vec<(Group, Span)> {
    let mut groups = Vec::new();
    let mut initiators = Vec::new();
    for section in last_of_each(context, sections_found) {
        let level = Level::Group;
        let name = &section.words[1];
        let place = format!("GROUP {}", quoted(&name.text));
        let attributes = Attributes::read(context, level, &place, section.body());
        let expected = [Expected::LUN, Expected::named("INITIATOR")];
        let found = sections(context, &place, &expected, level, section.body());
        let (initiator_lines, lun_lines): (Vec<&Statement>, Vec<&Statement>) =
            found.iter().partition(|section| section.keyword() == "INITIATOR");

        let mut group = Group::new(name.text.clone());
        (group.luns, group.unserved_luns) = luns(context, &lun_lines);
        group.address_method = attributes.read_with("addr_method", |text| value::address_method(text).ok());
        group.kept = attributes.kept();
        group.source = Source { line: name.span.line };
        let lowered = |section: &Statement| section.words[1].text.to_ascii_lowercase();
        for line in last_of_each_by(context, initiator_lines, lowered) {
            refuse_contents(context, line, "an INITIATOR has no attributes");
            let word = &line.words[1];
            match Pattern::parse(&word.text) {
                Ok(pattern) => {
                    initiators.push(checks::Initiator {
                        pattern: pattern.clone(),
                        span: word.span,
                        group: groups.len(),
                    });
                    group.initiators.push(pattern);
                }
                Err(fault) => context.report(Diagnostic::error(Code::BadValue, word.span, fault.to_string())),
            }
        }
        groups.push((group, name.span));
    }
    checks::initiators(context, &groups, &initiators);
    groups
}

/// Whether a pattern of `allowed_portal` can match an address at all, as far as one can tell.
pub(super) fn may_match_an_address(pattern: &str) -> bool {
    pattern.contains(['*', '?']) || pattern.trim_start_matches('!').parse::<IpAddr>().is_ok()
}
