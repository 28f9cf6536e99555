//! Writes a configuration back, as scstadmin does: sections and attributes sorted, and only what differs from its
//! default. Reading the text again gives the same configuration.
//!
//! Groups keep their order, since the first that matches an initiator decides; so do values that are lists.
//! The text holds secrets: it belongs into a file that only its owner reads.

use std::fmt;

use portico_model::configuration::{
    AddressMethod, AluaState, Configuration, Device, DeviceGroup, Digest, ForeignSection, Group,
    GroupedPortal, Handler, KeptAttribute, LunMapping, PORTAL_GROUP_TAG_DEFAULT, RbdImage, Target,
    TargetGroup, UnservedLun, User,
};

use super::schema::{self, Level};

/// A name or value that no file can hold: it has a line end or another control character in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwritable {
    /// The attribute or section. Its value is not told: it may be a secret.
    pub what: String,
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} holds a control character, and cannot be written", self.what)
    }
}

impl std::error::Error for Unwritable {}

/// The text of a file that says what this configuration says, but for its portals, which no file names.
///
/// # Errors
/// If a name or a value holds a control character, which would end its line or worse.
pub fn write(configuration: &Configuration) -> Result<String, Unwritable> {
    let core = &configuration.core;
    let mut top = Section::new(&[]);
    top.attribute(Level::Core, "setup_id", &format!("{:#x}", core.setup_id), core.setup_id == 0);
    top.attribute(Level::Core, "poll_us", &core.poll_us.to_string(), core.poll_us == 0);
    top.kept(&core.kept);

    let foreign = |keyword: &'static str| {
        let of_keyword =
            move |section: &&ForeignSection| section.words.first().is_some_and(|word| word == keyword);
        configuration.foreign.iter().filter(of_keyword).map(foreign_section)
    };
    let mut handlers: Vec<Section> =
        schema::HANDLERS.iter().filter_map(|(name, _)| handler(configuration, name)).collect();
    handlers.extend(foreign("HANDLER"));
    handlers.sort_by(|a, b| a.words.cmp(&b.words));
    top.sections.extend(handlers);

    let mut drivers = vec![iscsi(configuration)];
    drivers.extend(copy_manager(configuration));
    drivers.extend(foreign("TARGET_DRIVER"));
    drivers.retain(|driver| !driver.is_empty() || driver.words[1] != "iscsi");
    drivers.sort_by(|a, b| a.words.cmp(&b.words));
    top.sections.extend(drivers);

    top.sections.extend(configuration.device_groups.iter().map(device_group));
    let mut out = String::new();
    top.body(0, &mut out)?;
    Ok(out)
}

/// A section to be written: its words, its attributes, its sections.
struct Section {
    words: Vec<String>,
    attributes: Vec<(String, String)>,
    sections: Vec<Section>,
}

impl Section {
    fn new(words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { words, attributes: Vec::new(), sections: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.sections.is_empty()
    }

    /// Adds an attribute, which must stand in the schema, unless it is at its default.
    fn attribute(&mut self, level: Level, name: &str, value: &str, is_default: bool) {
        let row = schema::attribute(level, name);
        assert!(row.is_some() || is_default, "{name} is written where the schema does not know it");
        let says_the_default = row.is_some_and(|row| !row.default.is_empty() && row.default == value);
        if !is_default && !says_the_default {
            self.attributes.push((name.to_owned(), value.to_owned()));
        }
    }

    fn flag(&mut self, level: Level, name: &str, value: bool) {
        let default = schema::attribute(level, name).is_some_and(|row| row.default == "1");
        self.attribute(level, name, if value { "1" } else { "0" }, value == default);
    }

    fn optional(&mut self, level: Level, name: &str, value: Option<&(impl fmt::Display + ?Sized)>) {
        if let Some(value) = value {
            self.attribute(level, name, &value.to_string(), false);
        }
    }

    fn kept(&mut self, kept: &[KeptAttribute]) {
        self.attributes.extend(kept.iter().map(|kept| (kept.name.clone(), kept.value.clone())));
    }

    fn rbd(&mut self, level: Level, image: &RbdImage) {
        self.attribute(level, "pool", &image.pool, false);
        self.optional(level, "namespace", image.namespace.as_ref());
        self.attribute(level, "image", &image.image, false);
        self.optional(level, "snapshot", image.snapshot.as_ref());
        self.attribute(level, "client", &image.client, false);
        self.optional(level, "conf", image.conf.as_ref());
        self.optional(level, "keyring", image.keyring.as_ref());
        for (name, value) in &image.options {
            self.attribute(level, "option", &format!("{name} {value}"), false);
        }
    }

    fn users(&mut self, level: Level, incoming: &[User], outgoing: Option<&User>) {
        let all = incoming.iter().map(|user| ("IncomingUser", user));
        for (name, user) in all.chain(outgoing.map(|user| ("OutgoingUser", user))) {
            let secret = String::from_utf8_lossy(user.secret.expose());
            self.attribute(level, name, &format!("{} {secret}", user.name), false);
        }
    }

    fn write(&self, depth: usize, out: &mut String) -> Result<(), Unwritable> {
        line(depth, &self.words, out)?;
        if self.is_empty() {
            out.push('\n');
            return Ok(());
        }
        out.push_str(" {\n");
        self.body(depth + 1, out)?;
        out.push_str(&"\t".repeat(depth));
        out.push_str("}\n");
        Ok(())
    }

    fn body(&self, depth: usize, out: &mut String) -> Result<(), Unwritable> {
        let mut attributes: Vec<_> = self.attributes.iter().collect();
        // Stable: the values of a list stay in their order.
        attributes.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in attributes {
            let is_section_without_name = value.is_empty() && name == "HW_TARGET";
            let words =
                if is_section_without_name { vec![name.clone()] } else { vec![name.clone(), value.clone()] };
            line(depth, &words, out)?;
            out.push('\n');
        }
        for (at, section) in self.sections.iter().enumerate() {
            if !section.is_empty() && (at > 0 || !self.attributes.is_empty()) {
                out.push('\n');
            }
            section.write(depth, out)?;
        }
        Ok(())
    }
}

fn handler(configuration: &Configuration, name: &str) -> Option<Section> {
    let mut section = Section::new(&["HANDLER", name]);
    section.sections =
        configuration.devices.iter().filter(|device| device.handler.name() == name).map(device).collect();
    section.sections.sort_by(|a, b| a.words.cmp(&b.words));
    (!section.is_empty()).then_some(section)
}

fn device(device: &Device) -> Section {
    let bit =
        schema::HANDLERS.iter().find(|(name, _)| *name == device.handler.name()).map_or(0, |(_, bit)| *bit);
    let level = Level::Device(bit);
    let mut section = Section::new(&["DEVICE", &device.name]);
    match &device.handler {
        Handler::Rbd(image) => section.rbd(level, image),
        handler => section.optional(level, "filename", handler.filename()),
    }
    match &device.handler {
        Handler::NullIo { size_bytes, dummy } => {
            section.flag(level, "dummy", *dummy);
            let is_default = *size_bytes == portico_model::configuration::NULLIO_SIZE_BYTES_DEFAULT;
            section.attribute(level, "size", &size_bytes.to_string(), is_default);
        }
        handler => section.optional(level, "size", handler.size_bytes().as_ref()),
    }
    section.attribute(level, "blocksize", &device.block_size_bytes.to_string(), false);
    section.flag(level, "read_only", device.read_only);
    section.flag(level, "write_through", device.write_through);
    section.flag(level, "nv_cache", device.nv_cache);
    section.flag(level, "o_direct", device.o_direct);
    section.flag(level, "rotational", device.rotational);
    section.flag(level, "thin_provisioned", device.thin_provisioned);
    section.flag(level, "removable", device.removable);
    section.flag(level, "lb_per_pb_exp", device.lb_per_pb_exp);
    section.attribute(level, "opt_trans_len", &device.opt_trans_len_bytes.to_string(), false);
    section.optional(level, "max_tgt_dev_commands", device.max_tgt_dev_commands.as_ref());
    section.flag(level, "expl_alua", device.explicit_alua);
    section.optional(level, "pr_file_name", device.pr_file_name.as_ref());
    let identity = &device.identity;
    let texts = [
        ("t10_vend_id", &identity.t10_vend_id),
        ("prod_id", &identity.prod_id),
        ("prod_rev_lvl", &identity.prod_rev_lvl),
        ("t10_dev_id", &identity.t10_dev_id),
        ("vend_specific_id", &identity.vend_specific_id),
        ("usn", &identity.usn),
        ("inq_vend_specific", &identity.inq_vend_specific),
        ("scsi_device_name", &identity.scsi_device_name),
    ];
    for (name, text) in texts {
        section.optional(level, name, text.as_ref());
    }
    for (name, identifier) in [("naa_id", &identity.naa_id), ("eui64_id", &identity.eui64_id)] {
        section.optional(
            level,
            name,
            identifier.as_ref().map(|identifier| format!("0x{identifier}")).as_ref(),
        );
    }
    section.kept(&device.kept);
    section
}

fn iscsi(configuration: &Configuration) -> Section {
    let (level, driver) = (Level::Driver, &configuration.iscsi);
    let mut section = Section::new(&["TARGET_DRIVER", "iscsi"]);
    section.flag(level, "enabled", driver.enabled);
    section.users(level, &driver.incoming_users, driver.outgoing_user.as_ref());
    for GroupedPortal { portal, tag } in &driver.portals {
        let tag = if *tag == PORTAL_GROUP_TAG_DEFAULT { String::new() } else { format!(" {tag}") };
        section.attribute(level, "portal", &format!("{}{tag}", portal.0), false);
    }
    section.optional(level, "internal_portal", driver.internal_portal.as_ref());
    section.flag(level, "link_local", driver.link_local);
    section.kept(&driver.kept);
    section.sections = configuration.targets.iter().map(target).collect();
    section.sections.sort_by(|a, b| a.words.cmp(&b.words));
    section
}

fn copy_manager(configuration: &Configuration) -> Option<Section> {
    let mut target = Section::new(&["TARGET", "copy_manager_tgt"]);
    target.sections = luns(&configuration.copy_manager, &[]);
    let mut section = Section::new(&["TARGET_DRIVER", "copy_manager"]);
    let is_empty = target.is_empty();
    section.sections.push(target);
    (!is_empty).then_some(section)
}

fn target(target: &Target) -> Section {
    let level = Level::Target;
    let mut section = Section::new(&["TARGET", target.name.as_str()]);
    section.flag(level, "enabled", target.enabled);
    section.users(level, &target.incoming_users, target.outgoing_user.as_ref());
    for pattern in &target.allowed_portals {
        section.attribute(level, "allowed_portal", pattern.as_str(), false);
    }
    section.flag(level, "per_portal_acl", target.per_portal_acl);
    let keys = &target.negotiated;
    let yes_no = |value: bool| if value { "Yes" } else { "No" };
    section.optional(level, "InitialR2T", keys.initial_r2t.map(yes_no));
    section.optional(level, "ImmediateData", keys.immediate_data.map(yes_no));
    section.optional(level, "MaxRecvDataSegmentLength", keys.max_recv_data_segment_length.as_ref());
    section.optional(level, "MaxXmitDataSegmentLength", keys.max_xmit_data_segment_length.as_ref());
    section.optional(level, "MaxBurstLength", keys.max_burst_length.as_ref());
    section.optional(level, "FirstBurstLength", keys.first_burst_length.as_ref());
    section.optional(level, "MaxOutstandingR2T", keys.max_outstanding_r2t.as_ref());
    section.optional(level, "MaxConnections", keys.max_connections.as_ref());
    section.optional(level, "ErrorRecoveryLevel", keys.error_recovery_level.as_ref());
    for (name, digests) in [("HeaderDigest", &keys.header_digest), ("DataDigest", &keys.data_digest)] {
        let words: Vec<&str> = digests.iter().map(digest).collect();
        if !words.is_empty() {
            // Not left out at its default: a file that says None is not one that says nothing.
            section.attributes.push((name.to_owned(), words.join(",")));
        }
    }
    section.attribute(level, "QueuedCommands", &target.queued_commands.to_string(), false);
    section.optional(level, "MaxSessions", target.max_sessions.as_ref());
    section.attribute(level, "NopInInterval", &target.timers.nop_in_interval_s.to_string(), false);
    section.attribute(level, "NopInTimeout", &target.timers.nop_in_timeout_s.to_string(), false);
    section.attribute(level, "RspTimeout", &target.timers.rsp_timeout_s.to_string(), false);
    section.flag(level, "aen_disabled", target.aen_disabled);
    section.optional(level, "alias", target.alias.as_ref());
    let redirect = |redirect: &portico_model::configuration::Redirect| {
        format!("{} {}", redirect.address, if redirect.permanent { "perm" } else { "temp" })
    };
    section.optional(level, "redirect", target.redirect.as_ref().map(redirect).as_ref());
    section.optional(level, "rel_tgt_id", target.rel_tgt_id.as_ref());
    section.attribute(level, "addr_method", address_method(target.address_method), false);
    section.kept(&target.kept);
    section.sections = luns(&target.luns, &target.unserved_luns);
    section.sections.extend(target.groups.iter().map(group));
    section
}

fn group(group: &Group) -> Section {
    let mut section = Section::new(&["GROUP", &group.name]);
    if let Some(method) = group.address_method {
        section.attributes.push(("addr_method".to_owned(), address_method(method).to_owned()));
    }
    section.kept(&group.kept);
    section.sections = luns(&group.luns, &group.unserved_luns);
    section
        .sections
        .extend(group.initiators.iter().map(|pattern| Section::new(&["INITIATOR", pattern.as_str()])));
    section
}

fn luns(served: &[LunMapping], unserved: &[UnservedLun]) -> Vec<Section> {
    let served = served.iter().map(|lun| (lun.lun, &lun.device, lun.read_only));
    let mut all: Vec<_> =
        served.chain(unserved.iter().map(|lun| (lun.lun, &lun.device, lun.read_only))).collect();
    all.sort_by_key(|(number, ..)| *number);
    let section = |(number, device, read_only): (u16, &String, bool)| {
        let mut section = Section::new(&["LUN", &number.to_string(), device]);
        section.flag(Level::Lun, "read_only", read_only);
        section
    };
    all.into_iter().map(section).collect()
}

fn device_group(group: &DeviceGroup) -> Section {
    let mut section = Section::new(&["DEVICE_GROUP", &group.name]);
    section.kept(&group.kept);
    section.sections = group.devices.iter().map(|device| Section::new(&["DEVICE", device])).collect();
    section.sections.extend(group.target_groups.iter().map(target_group));
    section
}

fn target_group(group: &TargetGroup) -> Section {
    let level = Level::TargetGroup;
    let mut section = Section::new(&["TARGET_GROUP", &group.name]);
    section.attribute(level, "group_id", &group.group_id.to_string(), false);
    section.flag(level, "preferred", group.preferred);
    let state = AluaState::WORDS.iter().find(|(_, state)| *state == group.state);
    section.optional(level, "state", state.map(|(word, _)| *word));
    section.kept(&group.kept);
    section.sections.extend(group.targets.iter().map(|target| {
        let mut section = Section::new(&["TARGET", &target.name]);
        section.optional(Level::TargetReference, "rel_tgt_id", target.rel_tgt_id.as_ref());
        section
    }));
    section
}

/// Foreign statements stay in their order, and keep their braces.
fn foreign_section(foreign: &ForeignSection) -> Section {
    let mut section = Section { words: foreign.words.clone(), attributes: Vec::new(), sections: Vec::new() };
    section.sections = foreign.body.iter().flatten().map(foreign_section).collect();
    section
}

fn digest(digest: &Digest) -> &'static str {
    match digest {
        Digest::None => "None",
        Digest::Crc32c => "CRC32C",
    }
}

fn address_method(method: AddressMethod) -> &'static str {
    let word = AddressMethod::WORDS.iter().find(|(_, known)| *known == method);
    word.expect("every method has a word").0
}

fn line(depth: usize, words: &[String], out: &mut String) -> Result<(), Unwritable> {
    out.push_str(&"\t".repeat(depth));
    for (at, text) in words.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        if !word(text, out) {
            let what: String = words[0].chars().filter(|c| !c.is_control()).collect();
            return Err(Unwritable { what });
        }
    }
    Ok(())
}

/// One word, escaped, in quotes if it needs them; `false` if no file can hold it.
fn word(text: &str, out: &mut String) -> bool {
    let quotes = text.is_empty() || text.contains([' ', '\t']);
    if quotes {
        out.push('"');
    }
    for (at, c) in text.chars().enumerate() {
        if c.is_control() && c != '\t' {
            return false;
        }
        let is_edge = at == 0 || at + 1 == text.chars().count();
        let ends = match c {
            '\\' | '#' => true,
            '"' => quotes || at == 0,
            '{' | '}' => !quotes && is_edge,
            _ => c == '\u{fffd}' || (c.is_whitespace() && !c.is_ascii()),
        };
        if ends {
            out.push('\\');
        }
        out.push(c);
    }
    if quotes {
        out.push('"');
    }
    true
}
