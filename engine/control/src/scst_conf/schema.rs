//! Every attribute that scst.conf knows, as a table: where it stands, what it takes, its default, and whether it is in
//! effect here. What is not in this table is an error. Nothing else in this crate lists attributes.

use super::value::Kind;

/// Where an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Outside of every section.
    Core,
    /// In a HANDLER.
    Handler,
    /// In a DEVICE of one of those handlers (bits of [`FILE`] and its kin).
    Device(u8),
    /// In `TARGET_DRIVER iscsi`.
    Driver,
    /// In `TARGET_DRIVER copy_manager`.
    CopyManager,
    /// In a TARGET of the iscsi driver.
    Target,
    /// In a GROUP.
    Group,
    /// In a LUN.
    Lun,
    /// In a TARGET_GROUP.
    TargetGroup,
    /// In a TARGET inside a TARGET_GROUP.
    TargetReference,
    /// In a DEVICE_GROUP, an INITIATOR, …: no attributes at all.
    Nothing,
}

/// vdisk_fileio.
pub const FILE: u8 = 1;
/// vdisk_blockio.
pub const BLOCK: u8 = 2;
/// vdisk_nullio.
pub const NULL: u8 = 4;
/// vdisk_ram, our own.
pub const RAM: u8 = 8;
/// vcdrom.
pub const CDROM: u8 = 16;
/// vdisk_rbd, our own.
pub const RBD: u8 = 32;
/// Every disk of SCST's.
const DISKS: u8 = FILE | BLOCK | NULL;
/// Every disk of SCST's, and ours.
const ALL_DISKS: u8 = DISKS | RAM | RBD;

/// What an attribute does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it says.
    Here,
    /// Accepted, checked, kept, and named: nothing yet. The reason says what happens instead.
    NotYet(&'static str),
    /// An error. The reason says why.
    Refused(&'static str),
}

/// Whether an attribute may change under an open device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only by closing and opening it again.
    Reopen,
    /// While it runs.
    Running,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name, exactly.
    pub name: &'static str,
    /// Where it stands.
    pub level: Level,
    /// What it takes.
    pub kind: Kind,
    /// What it is if the file does not say; empty where there is none.
    pub default: &'static str,
    /// Whether it may stand there several times.
    pub repeatable: bool,
    /// What it does here.
    pub effect: Effect,
    /// When it may change.
    pub change: Change,
    /// The configuration keeps its text: it has no field of its own.
    pub kept: bool,
}

const fn row(level: Level, name: &'static str, kind: Kind, default: &'static str) -> Attribute {
    Attribute {
        name,
        level,
        kind,
        default,
        repeatable: false,
        effect: Effect::Here,
        change: Change::Running,
        kept: false,
    }
}

impl Attribute {
    const fn later(mut self, instead: &'static str) -> Self {
        self.effect = Effect::NotYet(instead);
        self.kept = true;
        self
    }

    /// Not in effect, and yet with a field of its own in the configuration.
    const fn held(mut self) -> Self {
        self.kept = false;
        self
    }

    const fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    const fn refused(mut self, why: &'static str) -> Self {
        self.effect = Effect::Refused(why);
        self
    }

    const fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    const fn fixed(mut self) -> Self {
        self.change = Change::Reopen;
        self
    }

    /// Whether it may stand at that level.
    #[must_use]
    pub fn stands_in(&self, level: Level) -> bool {
        match (self.level, level) {
            (Level::Device(mine), Level::Device(asked)) => mine & asked != 0,
            (mine, asked) => mine == asked,
        }
    }
}

const SHARDS: &str = "one thread per core serves everything";
const NO_TRACE: &str = "logging is set on the command line";
const NO_PI: &str = "protection information is not offered";
const NO_CLUSTER: &str = "reservations are not shared with other nodes";
const NO_ISNS: &str = "no iSNS server is told";
const AN_ORDER: &str = "it is an order to a running device, not part of a configuration";
const ONE_TASK_SET: &str = "TST is always 001b: one task set per nexus";
const NO_FORWARD: &str = "commands are never forwarded";

const TEXT: Kind = Kind::Text { length_max: 255 };
const COUNT: Kind = Kind::Number { min: 0, max: u32::MAX as u64 };
const SEGMENT: Kind = Kind::Number { min: 512, max: 0xFF_FFFF };

/// The table.
pub const ATTRIBUTES: &[Attribute] = &[
    // Core
    row(Level::Core, "setup_id", COUNT, "0"),
    row(Level::Core, "threads", COUNT, "").later(SHARDS),
    row(Level::Core, "max_tasklet_cmd", COUNT, "").later(SHARDS),
    row(Level::Core, "poll_us", COUNT, "0"),
    row(Level::Core, "measure_latency", Kind::Flag, "0").later("latency is always measured"),
    row(Level::Core, "cluster_name", TEXT, "").later(NO_CLUSTER),
    row(Level::Core, "trace_level", TEXT, "").repeatable().later(NO_TRACE),
    row(Level::Handler, "trace_level", TEXT, "").repeatable().later(NO_TRACE),
    // Device, when created
    row(Level::Device(FILE | BLOCK), "filename", Kind::Path, "").fixed(),
    row(Level::Device(CDROM), "filename", Kind::Path, ""),
    row(Level::Device(RBD), "filename", Kind::RbdName, "").fixed(),
    row(Level::Device(RBD), "pool", Kind::RbdPart, "").fixed(),
    row(Level::Device(RBD), "namespace", Kind::RbdPart, "").fixed(),
    row(Level::Device(RBD), "image", Kind::RbdPart, "").fixed(),
    row(Level::Device(RBD), "snapshot", Kind::RbdPart, "").fixed(),
    row(Level::Device(RBD), "client", Kind::RbdPart, "admin").fixed(),
    row(Level::Device(RBD), "conf", Kind::Path, "").fixed(),
    row(Level::Device(RBD), "keyring", Kind::Path, "").fixed(),
    row(Level::Device(RBD), "option", Kind::NameAndValue, "").repeatable().fixed(),
    row(Level::Device(ALL_DISKS), "blocksize", Kind::BlockSize, "512").fixed(),
    row(Level::Device(ALL_DISKS), "read_only", Kind::Flag, "0").fixed(),
    row(Level::Device(FILE | BLOCK), "write_through", Kind::Flag, "0").fixed(),
    row(Level::Device(FILE | BLOCK), "nv_cache", Kind::Flag, "0").fixed(),
    row(Level::Device(FILE), "o_direct", Kind::Flag, "0").fixed(),
    row(Level::Device(FILE), "async", Kind::Flag, "0").fixed().later("all input and output is asynchronous"),
    row(Level::Device(ALL_DISKS), "removable", Kind::Flag, "0").fixed(),
    row(Level::Device(ALL_DISKS), "rotational", Kind::Flag, "1").fixed(),
    row(Level::Device(FILE | BLOCK | RAM | RBD), "thin_provisioned", Kind::Flag, "0").fixed(),
    row(Level::Device(ALL_DISKS | CDROM), "tst", Kind::Number { min: 0, max: 1 }, "1")
        .fixed()
        .later(ONE_TASK_SET),
    row(Level::Device(FILE | BLOCK), "active", Kind::Flag, "1").fixed().later("a device is opened at once"),
    // 1 is not in effect, which is said where it matters (`checks::bound_devices`): of what a device is by default, too.
    row(Level::Device(FILE), "bind_alua_state", Kind::Flag, "0").fixed().kept(),
    row(Level::Device(BLOCK), "bind_alua_state", Kind::Flag, "1").fixed().kept(),
    row(Level::Device(DISKS), "cluster_mode", Kind::Flag, "0").fixed().later(NO_CLUSTER),
    row(Level::Device(DISKS), "numa_node_id", TEXT, "").fixed().later(SHARDS),
    row(Level::Device(DISKS), "dif_mode", TEXT, "").fixed().later(NO_PI),
    row(Level::Device(DISKS), "dif_type", Kind::Number { min: 0, max: 3 }, "0").fixed().later(NO_PI),
    row(Level::Device(DISKS), "dif_static_app_tag", TEXT, "").fixed().later(NO_PI),
    row(Level::Device(FILE | BLOCK), "dif_filename", Kind::Path, "").fixed().later(NO_PI),
    row(Level::Device(ALL_DISKS), "t10_dev_id", Kind::Ascii { length_max: 25 }, "").fixed(),
    row(Level::Device(NULL), "dummy", Kind::Flag, "0").fixed(),
    // Device, while it runs
    row(Level::Device(DISKS | RAM), "size", Kind::Bytes, ""),
    row(Level::Device(DISKS | RAM), "size_mb", Kind::Mebibytes, ""),
    row(Level::Device(ALL_DISKS), "opt_trans_len", COUNT, "524288"),
    row(Level::Device(ALL_DISKS), "expl_alua", Kind::Flag, "0"),
    row(Level::Device(ALL_DISKS | CDROM), "prod_id", Kind::Ascii { length_max: 16 }, ""),
    row(Level::Device(ALL_DISKS | CDROM), "prod_rev_lvl", Kind::Ascii { length_max: 4 }, ""),
    row(Level::Device(ALL_DISKS | CDROM), "t10_vend_id", Kind::Ascii { length_max: 8 }, ""),
    row(Level::Device(ALL_DISKS | CDROM), "vend_specific_id", Kind::Ascii { length_max: 32 }, ""),
    row(Level::Device(ALL_DISKS), "naa_id", Kind::Hex { lengths: &[8, 16] }, ""),
    row(Level::Device(ALL_DISKS), "eui64_id", Kind::Hex { lengths: &[8, 12, 16] }, ""),
    row(Level::Device(ALL_DISKS | CDROM), "usn", Kind::Ascii { length_max: 20 }, ""),
    row(Level::Device(ALL_DISKS | CDROM), "inq_vend_specific", Kind::Ascii { length_max: 158 }, ""),
    row(Level::Device(ALL_DISKS | CDROM), "scsi_device_name", Kind::Ascii { length_max: 255 }, ""),
    row(Level::Device(ALL_DISKS), "lb_per_pb_exp", Kind::Flag, "1"),
    row(Level::Device(ALL_DISKS), "max_tgt_dev_commands", Kind::Number { min: 1, max: 65_535 }, ""),
    row(Level::Device(DISKS), "threads_num", TEXT, "").later(SHARDS),
    row(Level::Device(DISKS), "threads_pool_type", Kind::OneOf(&["per_initiator", "shared"]), "")
        .later(SHARDS),
    row(Level::Device(ALL_DISKS), "pr_file_name", Kind::Path, "").fixed(),
    row(Level::Device(DISKS), "pr_state", TEXT, "").later("the ledger has a form of its own"),
    row(Level::Device(DISKS), "read_zero", Kind::Flag, "0").later("vdisk_nullio always reads zeros"),
    row(Level::Device(ALL_DISKS), "resync_size", Kind::Any, "").refused(AN_ORDER),
    row(Level::Device(ALL_DISKS), "sync", Kind::Any, "").refused(AN_ORDER),
    // Driver
    row(Level::Driver, "enabled", Kind::Flag, "0"),
    row(Level::Driver, "IncomingUser", Kind::User, "").repeatable(),
    row(Level::Driver, "OutgoingUser", Kind::User, ""),
    row(Level::Driver, "iSNSServer", Kind::IsnsServer, "").later(NO_ISNS),
    row(Level::Driver, "isns_entity_name", TEXT, "").later(NO_ISNS),
    row(Level::Driver, "portal", Kind::Portal, "").repeatable(),
    row(Level::Driver, "internal_portal", Kind::Address, ""),
    row(Level::Driver, "link_local", Kind::Flag, "1"),
    row(Level::Driver, "trace_level", TEXT, "").repeatable().later(NO_TRACE),
    // Target
    row(Level::Target, "enabled", Kind::Flag, "0"),
    row(Level::Target, "IncomingUser", Kind::User, "").repeatable(),
    row(Level::Target, "OutgoingUser", Kind::User, ""),
    row(Level::Target, "allowed_portal", Kind::Pattern, "").repeatable(),
    row(Level::Target, "per_portal_acl", Kind::Flag, "0"),
    row(Level::Target, "InitialR2T", Kind::YesNo, ""),
    row(Level::Target, "ImmediateData", Kind::YesNo, ""),
    row(Level::Target, "MaxRecvDataSegmentLength", SEGMENT, ""),
    row(Level::Target, "MaxXmitDataSegmentLength", SEGMENT, ""),
    row(Level::Target, "MaxBurstLength", SEGMENT, ""),
    row(Level::Target, "FirstBurstLength", SEGMENT, ""),
    row(Level::Target, "MaxOutstandingR2T", Kind::Number { min: 1, max: 65_535 }, ""),
    row(Level::Target, "HeaderDigest", Kind::Digests, "None"),
    row(Level::Target, "DataDigest", Kind::Digests, "None"),
    row(Level::Target, "QueuedCommands", Kind::Number { min: 1, max: 2_048 }, "32"),
    row(Level::Target, "MaxSessions", COUNT, "0"),
    row(Level::Target, "MaxConnections", Kind::Number { min: 1, max: 8 }, "1"),
    row(Level::Target, "ErrorRecoveryLevel", Kind::Number { min: 0, max: 2 }, "0"),
    row(Level::Target, "NopInInterval", Kind::Number { min: 0, max: 3_600 }, "30"),
    row(Level::Target, "NopInTimeout", Kind::Number { min: 1, max: 3_600 }, "30"),
    row(Level::Target, "RspTimeout", Kind::Number { min: 1, max: 3_600 }, "90"),
    row(Level::Target, "alias", TEXT, ""),
    row(Level::Target, "redirect", Kind::Redirect, ""),
    row(Level::Target, "rel_tgt_id", Kind::Number { min: 1, max: 65_535 }, ""),
    row(Level::Target, "addr_method", Kind::AddressMethod, "PERIPHERAL")
        .later("LUNs show as PERIPHERAL")
        .held(),
    row(Level::Target, "io_grouping_type", TEXT, "").later(SHARDS),
    row(Level::Target, "cpu_mask", TEXT, "").later(SHARDS),
    row(Level::Target, "comment", TEXT, "").kept(),
    row(Level::Target, "black_hole", Kind::Number { min: 0, max: 4 }, "0").later("no command is swallowed"),
    row(Level::Target, "aen_disabled", Kind::Flag, "0"),
    row(Level::Target, "forward_src", Kind::Flag, "0").later(NO_FORWARD),
    row(Level::Target, "forward_dst", Kind::Flag, "0").later(NO_FORWARD),
    // Group and LUN
    row(Level::Group, "addr_method", Kind::AddressMethod, "PERIPHERAL")
        .later("LUNs show as PERIPHERAL")
        .held(),
    row(Level::Group, "io_grouping_type", TEXT, "").later(SHARDS),
    row(Level::Group, "cpu_mask", TEXT, "").later(SHARDS),
    row(Level::Group, "black_hole", Kind::Number { min: 0, max: 4 }, "0").later("no command is swallowed"),
    row(Level::Lun, "read_only", Kind::Flag, "0"),
    // ALUA
    row(Level::TargetGroup, "group_id", Kind::Number { min: 0, max: 65_535 }, ""),
    row(Level::TargetGroup, "preferred", Kind::Flag, "0"),
    row(Level::TargetGroup, "state", Kind::AluaState, "active"),
    row(Level::TargetReference, "rel_tgt_id", Kind::Number { min: 1, max: 65_535 }, ""),
];

/// The row of an attribute at a level.
#[must_use]
pub fn attribute(level: Level, name: &str) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|attribute| attribute.name == name && attribute.stands_in(level))
}

/// Every name that is known at a level.
pub fn names(level: Level) -> impl Iterator<Item = &'static str> {
    ATTRIBUTES.iter().filter(move |attribute| attribute.stands_in(level)).map(|attribute| attribute.name)
}

/// What becomes of a HANDLER section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerKind {
    /// Its devices are served; the bit says which attributes they take.
    Served(u8),
    /// SCST's, and not in effect here.
    NotYet,
    /// Nobody's.
    Unknown,
}

/// SCST's handlers that are not in effect, with what they are for.
const HANDLERS_NOT_YET: [&str; 12] = [
    "vcdrom",
    "dev_disk",
    "dev_disk_perf",
    "dev_cdrom",
    "dev_tape",
    "dev_tape_perf",
    "dev_changer",
    "dev_modisk",
    "dev_modisk_perf",
    "dev_processor",
    "dev_raid",
    "dev_user",
];

/// The handlers whose devices are served, with their bits.
pub const HANDLERS: [(&str, u8); 5] = [
    ("vdisk_fileio", FILE),
    ("vdisk_blockio", BLOCK),
    ("vdisk_nullio", NULL),
    ("vdisk_ram", RAM),
    ("vdisk_rbd", RBD),
];

/// Looks a handler up.
#[must_use]
pub fn handler(name: &str) -> HandlerKind {
    match HANDLERS.iter().find(|(known, _)| *known == name) {
        Some((_, bit)) => HandlerKind::Served(*bit),
        None if HANDLERS_NOT_YET.contains(&name) => HandlerKind::NotYet,
        None => HandlerKind::Unknown,
    }
}

/// The handlers' names, known and served or not.
pub fn handler_names() -> impl Iterator<Item = &'static str> {
    HANDLERS.iter().map(|(name, _)| *name).chain(HANDLERS_NOT_YET)
}

/// The bit of a served handler's name as it stands in messages.
#[must_use]
pub fn handler_name(bit: u8) -> &'static str {
    HANDLERS.iter().find(|(_, known)| *known == bit).map_or("vcdrom", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attribute_stands_twice_at_one_level() {
        for (at, attribute) in ATTRIBUTES.iter().enumerate() {
            for other in &ATTRIBUTES[at + 1..] {
                let overlap = attribute.name == other.name && attribute.stands_in(other.level);
                assert!(!overlap, "{} at {:?}", attribute.name, attribute.level);
            }
        }
    }

    #[test]
    fn every_default_is_a_value_that_the_attribute_takes() {
        for attribute in ATTRIBUTES.iter().filter(|attribute| !attribute.default.is_empty()) {
            assert!(attribute.kind.check(attribute.default).is_ok(), "{}", attribute.name);
        }
    }

    /// Attribute lists as SCST's own handlers name them.
    #[test]
    fn the_handlers_take_what_scsts_take_when_a_device_is_created() {
        let file = "active async bind_alua_state blocksize cluster_mode dif_filename dif_mode dif_static_app_tag \
                    dif_type filename numa_node_id nv_cache o_direct read_only removable rotational \
                    thin_provisioned tst t10_dev_id write_through";
        let null = "blocksize cluster_mode dif_mode dif_static_app_tag dif_type dummy numa_node_id read_only \
                    removable rotational size size_mb tst t10_dev_id";
        for name in file.split_whitespace() {
            assert!(attribute(Level::Device(FILE), name).is_some(), "{name}");
            let in_block = attribute(Level::Device(BLOCK), name).is_some();
            assert_eq!(in_block, !matches!(name, "async" | "o_direct"), "{name}");
        }
        for name in null.split_whitespace() {
            assert!(attribute(Level::Device(NULL), name).is_some(), "{name}");
        }
        for name in
            ["filename", "write_through", "nv_cache", "o_direct", "async", "active", "thin_provisioned"]
        {
            assert!(attribute(Level::Device(NULL), name).is_none(), "{name}");
        }
        assert!(attribute(Level::Device(CDROM), "tst").is_some());
        assert!(attribute(Level::Device(CDROM), "blocksize").is_none());
    }
}
