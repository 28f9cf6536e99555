//! What a file would serve, in a form that an administrator reads before applying it. Holds no secret.

use std::collections::BTreeMap;
use std::fmt::Write;

use portico_model::configuration::{
    Configuration, Device, Group, Handler, LunMapping, Target, UnservedLun, User,
};

use super::Parsed;
use super::text::printable;

/// The summary: one line on the verdict; then, unless the file is refused, portals, devices, targets and what is not in
/// effect.
#[must_use]
pub fn summarise(parsed: &Parsed) -> String {
    let mut out = Summary(String::new());
    let (errors, warnings) = (parsed.errors, parsed.warnings);
    let verdict = if errors == 0 { "can be applied" } else { "is refused" };
    let found = match (errors, warnings) {
        (0, 0) => String::new(),
        (0, _) => format!(", {}", counted(warnings, "warning")),
        (_, 0) => format!(", {}", counted(errors, "error")),
        _ => format!(", {} and {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    out.line(0, &format!("{}: {verdict}{found}", parsed.text.name()));
    if let Some(configuration) = &parsed.configuration {
        out.configuration(configuration);
        out.not_in_effect(parsed);
    }
    out.0
}

struct Summary(String);

impl Summary {
    fn line(&mut self, depth: usize, text: &str) {
        let text: String = text.chars().map(printable).collect();
        let depth = depth * 2;
        writeln!(self.0, "{:depth$}{text}", "").expect("a String takes all text");
    }

    fn configuration(&mut self, configuration: &Configuration) {
        let portals: Vec<String> = configuration.portals.iter().map(|portal| portal.0.to_string()).collect();
        self.line(0, &format!("portals: {} (--portal changes them)", portals.join(", ")));
        self.line(0, &format!("devices: {}", configuration.devices.len()));
        let width = |text: usize, device: &Device| text.max(device.name.chars().count());
        let width = configuration.devices.iter().fold(0, width).min(40);
        for device in &configuration.devices {
            self.line(1, &format!("{:width$}  {}", device.name, describe(device)));
        }
        let iscsi = &configuration.iscsi;
        self.users(0, "discovery", &iscsi.incoming_users, iscsi.outgoing_user.as_ref());
        self.line(0, &format!("targets: {}", configuration.targets.len()));
        for target in &configuration.targets {
            self.target(configuration, target);
        }
    }

    fn target(&mut self, configuration: &Configuration, target: &Target) {
        let state = match (configuration.iscsi.enabled, target.enabled) {
            (true, true) => "",
            (false, true) => " (not served: the driver is not enabled)",
            (_, false) => " (not enabled)",
        };
        self.line(1, &format!("{}{state}", target.name));
        if !target.allowed_portals.is_empty() {
            let portals: Vec<&str> = target.allowed_portals.iter().map(|pattern| pattern.as_str()).collect();
            self.line(2, &format!("only at {}", portals.join(", ")));
        }
        self.users(2, "logins", &target.incoming_users, target.outgoing_user.as_ref());
        if let Some(redirect) = &target.redirect {
            let how = if redirect.permanent { "for good" } else { "for now" };
            self.line(2, &format!("logins are sent to {}, {how}", redirect.target_address()));
        }
        for group in &target.groups {
            self.group(group);
        }
        let who = if target.groups.is_empty() { "every initiator" } else { "every other initiator" };
        self.luns(who, &target.luns, &target.unserved_luns);
    }

    /// Who proves what to whom; names are no secrets.
    fn users(&mut self, depth: usize, what: &str, incoming: &[User], outgoing: Option<&User>) {
        if incoming.is_empty() {
            return;
        }
        let names: Vec<&str> = incoming.iter().map(|user| user.name.as_str()).collect();
        let back = outgoing.map_or(String::new(), |user| format!("; proves to be {}", user.name));
        self.line(depth, &format!("{what} with CHAP as {}{back}", names.join(", ")));
    }

    fn group(&mut self, group: &Group) {
        let who: Vec<&str> = group.initiators.iter().map(|pattern| pattern.as_str()).collect();
        let who = if who.is_empty() { "nobody".to_owned() } else { who.join(", ") };
        self.luns(&format!("group {}: {who}", group.name), &group.luns, &group.unserved_luns);
    }

    fn luns(&mut self, who: &str, luns: &[LunMapping], unserved: &[UnservedLun]) {
        if luns.is_empty() && unserved.is_empty() {
            return self.line(2, &format!("{who}: no access"));
        }
        self.line(2, who);
        let read_only = |read_only: bool| if read_only { ", read only" } else { "" };
        for lun in luns {
            self.line(3, &format!("LUN {} {}{}", lun.lun, lun.device, read_only(lun.read_only)));
        }
        for lun in unserved {
            self.line(3, &format!("LUN {} {}: not served", lun.lun, lun.device));
        }
    }

    /// One line for each thing that is said, however often it is said.
    fn not_in_effect(&mut self, parsed: &Parsed) {
        if parsed.not_in_effect.is_empty() {
            return;
        }
        let mut places: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
        for item in &parsed.not_in_effect {
            places.entry((&item.what, item.instead)).or_default().push(item.line);
        }
        self.line(0, "accepted, and not in effect yet:");
        for ((what, instead), mut lines) in places {
            lines.sort_unstable();
            let more = if lines.len() > 1 { format!(" and {} more", lines.len() - 1) } else { String::new() };
            self.line(1, &format!("{what} (line {}{more}): {instead}", lines[0]));
        }
    }
}

fn describe(device: &Device) -> String {
    let mut parts = vec![device.handler.name().to_owned()];
    parts.extend(device.handler.filename().map(str::to_owned));
    match &device.handler {
        Handler::NullIo { dummy: true, .. } => parts.push("dummy".into()),
        handler => parts.extend(handler.size_bytes().map(size)),
    }
    parts.push(format!("blocks of {} bytes", device.block_size_bytes));
    let flags = [
        (device.read_only, "read only"),
        (device.write_through, "write through"),
        (device.nv_cache, "nv_cache: flushes nothing, the power is vouched for"),
        (device.o_direct, "past the page cache"),
    ];
    parts.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
    parts.join(", ")
}

/// A size in the largest unit that leaves nothing over.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fitting = units.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fitting.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
