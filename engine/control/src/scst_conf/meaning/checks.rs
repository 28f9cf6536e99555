//! What must hold between sections: one holder of a medium, one device of an identity, one group of an initiator.

use std::collections::HashMap;

use portico_model::configuration::{
    Configuration, Device, Group, Handler, LunMapping, NegotiatedKeys, Pattern, Secret, Target,
    TargetReference, UnservedLun, identity,
};

use super::Context;
use super::attributes::{Attributes, Given};
use super::devices::DeviceSpans;
use super::targets::{TargetSpans, may_match_an_address};
use crate::scst_conf::diagnostic::{Code, Diagnostic, quoted};
use crate::scst_conf::syntax::Statement;
use crate::scst_conf::text::Span;
use crate::scst_conf::value;
use crate::scst_conf::{NotInEffect, plain_path};

/// A secret shorter than this is told (RFC 7143 §12.1.3: 96 bits).
const SECRET_LENGTH_BYTES_MIN: usize = 12;
/// Names against wildcards, in one target: beyond it they are not compared.
const COMPARISONS_MAX: usize = 4_000_000;

/// What must hold between devices.
pub(super) fn devices(context: &mut Context<'_>, configuration: &Configuration, spans: &[DeviceSpans]) {
    let all = || configuration.devices.iter().zip(spans);
    shared_media(context, all());
    ledgers(context, all());
    let place = |span: Option<Span>, spans: &DeviceSpans| span.unwrap_or(spans.name);
    let setup_id = configuration.core.setup_id;
    let t10_of = |device: &Device| {
        let identity = identity(device, setup_id).ok()?;
        Some(String::from_utf8_lossy(identity.t10_device_id.as_bytes()).into_owned())
    };
    let t10s: Vec<_> = all().filter_map(|(device, spans)| Some((t10_of(device)?, device, spans))).collect();

    let t10 = t10s.iter().map(|(t10, _, spans)| (t10.clone(), place(spans.t10_dev_id, spans)));
    same_identity(context, "t10_dev_id", t10);
    let naa = all().filter_map(|(device, spans)| {
        Some((device.identity.naa_id.as_ref()?.to_string(), place(spans.naa_id, spans)))
    });
    same_identity(context, "naa_id", naa);
    let eui = all().filter_map(|(device, spans)| {
        Some((device.identity.eui64_id.as_ref()?.to_string(), place(spans.eui64_id, spans)))
    });
    same_identity(context, "eui64_id", eui);

    let mut heads: HashMap<String, (Span, &String)> = HashMap::new();
    for (t10, device, spans) in &t10s {
        if device.identity.naa_id.is_some() || device.identity.eui64_id.is_some() {
            continue;
        }
        let head: String = t10.chars().take(8).collect();
        let span = place(spans.t10_dev_id, spans);
        let Some((first, other)) = heads.insert(head, (span, t10)) else { continue };
        if other == t10 {
            continue; // That was an error above.
        }
        let message =
            "two devices whose t10_dev_id begins with the same 8 characters look like one disk to VMware";
        let warning = Diagnostic::warning(Code::SameIdentity, span, message)
            .related(first, "the other")
            .hint("make the first 8 characters differ, or give each an `naa_id`");
        context.report(warning);
    }
}

/// One medium in two devices that write to it: each would overwrite what the other believes is there. By its path, and by
/// what the path names on this machine where that can be seen.
fn shared_media<'a>(context: &mut Context<'_>, devices: impl Iterator<Item = (&'a Device, &'a DeviceSpans)>) {
    let writers = devices.filter(|(device, _)| !device.read_only);
    let (mut paths, mut local, mut spans) = (HashMap::new(), Vec::new(), Vec::new());
    for (device, device_spans) in writers {
        let (Some(filename), Some(span)) = (device.handler.filename(), device_spans.filename) else {
            continue;
        };
        if let Some(first) = paths.insert(plain_path(filename), span) {
            shared_medium(context, "the same file", "again here", (first, span));
        } else if matches!(device.handler, Handler::FileIo { .. } | Handler::BlockIo { .. }) {
            local.push(filename.to_owned());
            spans.push(span);
        }
    }
    let mut holders = HashMap::new();
    for (identity, span) in (context.look)(local).into_iter().zip(spans) {
        let Some(first) = identity.and_then(|identity| holders.insert(identity, span)) else { continue };
        let what = "the same file under two names";
        shared_medium(context, what, "again here, by a link or another path", (first, span));
    }
}

fn shared_medium(context: &mut Context<'_>, what: &str, label: &str, (first, again): (Span, Span)) {
    let error = Diagnostic::error(Code::SharedMedium, again, format!("two writable devices hold {what}"))
        .label(label)
        .related(first, "first held here")
        .hint("map one device as several LUNs instead, or make both devices `read_only 1`");
    context.report(error);
}

/// A file of reservations is one device's, and nobody's medium: it is replaced as a whole.
fn ledgers<'a>(
    context: &mut Context<'_>,
    devices: impl Iterator<Item = (&'a Device, &'a DeviceSpans)> + Clone,
) {
    let media = devices.clone().filter_map(|(device, spans)| {
        Some((plain_path(device.handler.filename()?), spans.filename.unwrap_or(spans.name)))
    });
    let mut taken: HashMap<String, Span> = media.collect();
    for (device, spans) in devices {
        let (Some(path), Some(span)) = (&device.pr_file_name, spans.pr_file_name) else { continue };
        let path = plain_path(path);
        // Beside it lie what is being written and what was there before (`ledger_store`).
        let names = [path.clone(), format!("{path}.new"), format!("{path}.bak")];
        let taken_by = names.map(|name| taken.insert(name, span)).into_iter().flatten().next();
        if let Some(first) = taken_by {
            let message = "the file that keeps a device's reservations is nothing else's";
            let error = Diagnostic::error(Code::Conflict, span, message).related(first, "it is used here");
            context.report(error);
        }
    }
}

fn same_identity(context: &mut Context<'_>, what: &str, values: impl Iterator<Item = (String, Span)>) {
    let mut first_at: HashMap<String, Span> = HashMap::new();
    for (value, span) in values {
        if let Some(first) = first_at.insert(value, span) {
            let message =
                format!("two devices have the same {what}: initiators would take them for one disk");
            let error = Diagnostic::error(Code::SameIdentity, span, message).related(first, "the other");
            context.report(error);
        }
    }
}

/// Warns of weak secrets and of proofs that nobody asks for; refuses a name twice, and one secret in both directions.
pub(super) fn users(context: &mut Context<'_>, attributes: &Attributes) {
    if let (Some(outgoing), None) = (attributes.one("OutgoingUser"), attributes.one("IncomingUser")) {
        let message = "without an IncomingUser there is no CHAP, and nobody to prove OutgoingUser to";
        let warning = Diagnostic::warning(Code::NoAuthentication, outgoing.span, message);
        context.report(warning.hint("add `IncomingUser \"user secret\"` for each initiator"));
    }
    let mut names: HashMap<String, Span> = HashMap::new();
    let mut secrets: Vec<(Secret, Span)> = Vec::new();
    let outgoing = attributes.one("OutgoingUser");
    let all = attributes.all("IncomingUser").chain(outgoing);
    let users = all.filter_map(|given: &Given| Some((given, value::user(&given.value).ok()?)));
    for (given, user) in users {
        if user.secret.expose().len() < SECRET_LENGTH_BYTES_MIN {
            let message = format!("the secret has fewer than {SECRET_LENGTH_BYTES_MIN} bytes");
            let warning = Diagnostic::warning(Code::WeakSecret, given.span, message);
            context.report(warning.hint("Windows and others refuse it (RFC 7143 §12.1.3 wants 96 bits)"));
        }
        if given.row.name == "OutgoingUser" {
            if let Some(&(_, first)) = secrets.iter().find(|(secret, _)| *secret == user.secret) {
                let message = "one secret in both directions lets an initiator answer with what it asked for";
                let error = Diagnostic::error(Code::SameSecret, given.span, message);
                context.report(
                    error
                        .related(first, "used here as well")
                        .hint("give OutgoingUser a secret of its own (RFC 7143 §9.2.1)"),
                );
            }
            continue;
        }
        secrets.push((user.secret.clone(), given.span));
        if let Some(first) = names.insert(user.name.clone(), given.span) {
            let message = format!("the user {} is given twice", quoted(&user.name));
            let error = Diagnostic::error(Code::DuplicateName, given.span, message);
            context.report(error.related(first, "first given here").hint("remove one of the two lines"));
        }
    }
}

/// Warns of an `allowed_portal` that no address matches.
pub(super) fn portals(context: &mut Context<'_>, attributes: &Attributes) {
    for given in attributes.all("allowed_portal").filter(|given| !may_match_an_address(&given.value)) {
        let message = "no portal matches this: it is neither an address nor a pattern";
        let warning = Diagnostic::warning(Code::BadValue, given.span, message);
        context.report(warning.hint("write an address without a port, such as `10.0.0.1`, or `10.0.0.*`"));
    }
}

/// Warns where FirstBurstLength is larger than MaxBurstLength (RFC 7143 §13.14).
pub(super) fn bursts(context: &mut Context<'_>, keys: &NegotiatedKeys, attributes: &Attributes) {
    if let (Some(first), Some(largest)) = (keys.first_burst_length, keys.max_burst_length)
        && first > largest
        && let (Some(span), Some(other)) =
            (attributes.span("FirstBurstLength"), attributes.span("MaxBurstLength"))
    {
        let message = "FirstBurstLength is larger than MaxBurstLength, and is taken as that";
        context.report(
            Diagnostic::warning(Code::Conflict, span, message).related(other, "the most that it can be"),
        );
    }
}

/// Warns of a target or group that has LUNs, and none with the number 0.
pub(super) fn lun_zero(context: &mut Context<'_>, target: &Target, span: Span, group_spans: &[Span]) {
    let hint = "initiators look for LUN 0 first, and many see nothing without it";
    let lacks = |luns: &[LunMapping], unserved: &[UnservedLun]| {
        let mut numbers = luns.iter().map(|lun| lun.lun).chain(unserved.iter().map(|lun| lun.lun)).peekable();
        numbers.peek().is_some() && numbers.all(|number| number != 0)
    };
    let has_nothing = target.luns.is_empty() && target.unserved_luns.is_empty() && target.groups.is_empty();
    if has_nothing || lacks(&target.luns, &target.unserved_luns) {
        let message = format!("target {} has no LUN 0", quoted(target.name.as_str()));
        context.report(Diagnostic::warning(Code::NoLunZero, span, message).hint(hint));
    }
    for (group, span) in target.groups.iter().zip(group_spans) {
        if lacks(&group.luns, &group.unserved_luns) {
            let message = format!("group {} has no LUN 0", quoted(&group.name));
            context.report(Diagnostic::warning(Code::NoLunZero, *span, message).hint(hint));
        }
    }
}

/// An INITIATOR line.
pub(super) struct Initiator {
    pub(super) pattern: Pattern,
    pub(super) span: Span,
    /// Which of the target's groups it stands in.
    pub(super) group: usize,
}

/// An initiator may match one group of a target only.
pub(super) fn initiators(context: &mut Context<'_>, groups: &[(Group, Span)], initiators: &[Initiator]) {
    let mut first_at: HashMap<String, usize> = HashMap::new();
    for (at, initiator) in initiators.iter().enumerate() {
        let key = initiator.pattern.as_str().to_ascii_lowercase();
        let Some(&first) = first_at.get(&key) else {
            first_at.insert(key, at);
            continue;
        };
        let name = quoted(initiator.pattern.as_str());
        let message = format!("{name} is in two groups of one target");
        let error = Diagnostic::error(Code::InitiatorTwice, initiator.span, message)
            .label(format!("in group {}", quoted(&groups[initiator.group].0.name)))
            .related(
                initiators[first].span,
                format!("in group {}", quoted(&groups[initiators[first].group].0.name)),
            )
            .hint("an initiator may match one group only");
        context.report(error);
    }
    let (names, patterns): (Vec<&Initiator>, Vec<&Initiator>) =
        initiators.iter().partition(|initiator| initiator.pattern.is_literal());
    if names.len().saturating_mul(patterns.len()) > COMPARISONS_MAX {
        return;
    }
    for name in names {
        let rival = patterns
            .iter()
            .find(|rival| rival.group != name.group && rival.pattern.matches(name.pattern.as_str()));
        let Some(rival) = rival else { continue };
        let winner = quoted(&groups[name.group.min(rival.group)].0.name);
        let message =
            format!("{} matches two groups: it gets the LUNs of {winner}", quoted(name.pattern.as_str()));
        let warning = Diagnostic::warning(Code::InitiatorTwice, name.span, message)
            .related(rival.span, "this pattern matches it too")
            .hint("an initiator may match one group only; here the first in the file decides");
        context.report(warning);
    }
}

/// Names the devices of DEVICE_GROUPs that SCST would close as long as no port of this node is active for them, and open when
/// one is: bound to their state by `bind_alua_state`, as block devices are where the file says nothing.
pub(super) fn bound_devices(context: &mut Context<'_>, configuration: &Configuration) {
    let is_own = |target: &TargetReference| configuration.target(&target.name).is_some();
    for group in &configuration.device_groups {
        if !group.target_groups.iter().flat_map(|group| &group.targets).any(is_own) {
            continue;
        }
        let devices = configuration.devices.iter().filter(|device| group.devices.contains(&device.name));
        for device in devices.filter(|device| is_bound(device)) {
            context.not_in_effect.push(NotInEffect {
                what: format!("bind_alua_state 1 of device {}", quoted(&device.name)),
                instead: "it is opened at once and stays open, whatever the state of this node's ports",
                place: format!("DEVICE_GROUP {}", quoted(&group.name)),
                line: group.source.line,
            });
        }
    }
}

fn is_bound(device: &Device) -> bool {
    let given = device.kept.iter().find(|kept| kept.name == "bind_alua_state");
    given.map_or(matches!(device.handler, Handler::BlockIo { .. }), |given| given.value != "0")
}

/// rel_tgt_id is unique across this gateway's targets and those that TARGET_GROUPs name.
pub(super) fn target_ports(
    context: &mut Context<'_>,
    configuration: &Configuration,
    spans: &[TargetSpans],
    statements: &[Statement],
) {
    let mut ports: HashMap<u16, (String, Span)> = HashMap::new();
    let mut ids: HashMap<String, (u16, Span)> = HashMap::new();
    let own = configuration.targets.iter().zip(spans).filter_map(|(target, spans)| {
        Some((target.name.as_str().to_owned(), target.rel_tgt_id?, spans.rel_tgt_id.unwrap_or(spans.name)))
    });
    let places = reference_places(statements);
    let groups = configuration.device_groups.iter().flat_map(|group| &group.target_groups);
    let references = groups.flat_map(|group| &group.targets).filter_map(|target| {
        let name = target.name.to_ascii_lowercase();
        let span = places.get(&(name.clone(), target.rel_tgt_id?)).copied()?;
        Some((name, target.rel_tgt_id?, span))
    });
    for (name, id, span) in own.chain(references) {
        if let Some((other, first)) = ports.get(&id).filter(|(other, _)| *other != name) {
            let message = format!("rel_tgt_id {id} is used by two targets");
            let error = Diagnostic::error(Code::DuplicateName, span, message)
                .related(*first, format!("used here by {}", quoted(other)))
                .hint("it is unique across all nodes: initiators tell ports apart by it");
            context.report(error);
            continue;
        }
        ports.entry(id).or_insert_with(|| (name.clone(), span));
        if let Some((other, first)) = ids.get(&name).filter(|(other, _)| *other != id) {
            let message =
                format!("the target {} has two values of rel_tgt_id, {other} and {id}", quoted(&name));
            context.report(Diagnostic::error(Code::Conflict, span, message).related(*first, "the other"));
        }
        ids.entry(name).or_insert((id, span));
    }
}

/// Where TARGETs inside TARGET_GROUPs set their rel_tgt_id.
fn reference_places(statements: &[Statement]) -> HashMap<(String, u16), Span> {
    let mut places = HashMap::new();
    let inside =
        |statement: &Statement, keyword: &str| statement.is_section() && statement.keyword() == keyword;
    let tops = statements.iter().flat_map(|top| match top.keyword() {
        "ALUA" => top.body().iter().collect::<Vec<_>>(),
        _ => vec![top],
    });
    let groups = tops.filter(|top| inside(top, "DEVICE_GROUP")).flat_map(Statement::body);
    let targets = groups.filter(|group| inside(group, "TARGET_GROUP")).flat_map(Statement::body);
    for target in targets.filter(|target| inside(target, "TARGET")) {
        let Some(name) = target.word(1) else { continue };
        for id in target.body().iter().filter(|statement| statement.keyword() == "rel_tgt_id") {
            let number = id.word(1).and_then(|word| value::ranged(&word.text, 1, 65_535).ok());
            if let (Some(word), Some(number)) =
                (id.word(1), number.and_then(|number| u16::try_from(number).ok()))
            {
                places.insert((name.text.to_ascii_lowercase(), number), word.span);
            }
        }
    }
    places
}
