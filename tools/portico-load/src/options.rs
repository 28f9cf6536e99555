//! The command line, and the plan that comes of it once the size of the logical unit is known.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use portico_iscsi::chap::{Credentials, User};
use portico_iscsi::initiator::CONNECTIONS_MAX;

use crate::address::Address;
use crate::pace::{self, Arrival};
use crate::quantity;
use crate::random::Random;
use crate::sizes::{Mix, Sizes};

/// Loads iSCSI logical units with many sessions, measures them, and on request checks every byte that it reads.
///
/// Without --rate the loop is closed: each session keeps its queue depth of commands outstanding. With --rate it is open: commands
/// have their time, and their latency counts from then, however long the target keeps them from being sent. Writing destroys what is
/// on the logical unit. Options that fio has, too, go by fio's names as well: --iodepth, --numjobs, --rwmixread, --runtime,
/// --ramp_time, --bssplit, --rate_iops, --number_ios, --io_size, --randseed, --cpus_allowed.
///
/// Exit status: 0 all went well, 1 there were errors or wrong data, 2 the load could not begin, 130 it was interrupted.
#[derive(Clone, Debug, Parser)]
#[command(name = "portico-load", version, about)]
pub(crate) struct Options {
    /// A logical unit, as iscsi://HOST:PORT/IQN/LUN. Repeated: several, each with --sessions sessions; URLs that name the same
    /// target and LUN at several portals are paths to one unit.
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) target: Vec<Address>,
    /// Sessions for each URL.
    #[arg(long, alias = "numjobs", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SESSIONS_MAX))]
    pub(crate) sessions: u32,
    /// Connections of each session (MaxConnections); each is counted, and numbered, as a session is that has one.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub(crate) connections: u32,
    /// The ErrorRecoveryLevel that is offered: at 1, data are acknowledged that the target wants acknowledged.
    #[arg(long, default_value_t = 0, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) recovery_level: u8,
    /// One thread on each of these cores, as 0,2-5; the sessions are divided among them. Without it one thread, anywhere.
    #[arg(long, alias = "cpus_allowed", value_name = "LIST", value_parser = cores)]
    pub(crate) cores: Option<Cores>,
    /// Commands that each session keeps outstanding; with --rate, how many it may.
    #[arg(long, alias = "iodepth", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=DEPTH_MAX))]
    pub(crate) depth: u16,
    /// What to do.
    #[arg(long, alias = "readwrite", value_enum, default_value_t = Pattern::Randread)]
    pub(crate) rw: Pattern,
    /// Reads out of 100 commands, where both are mixed.
    #[arg(long, alias = "rwmixread", value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) mix: u8,
    /// Bytes of a command, to 4m; or several lengths with their percentages, as 4k/70:64k/30; or READS,WRITES of either. A
    /// random command begins at a multiple of its own length.
    #[arg(long, visible_alias = "bssplit", alias = "blocksize", value_name = "SIZE", default_value = "4k")]
    pub(crate) bs: Sizes,
    /// How long it is measured; 10s where neither this nor an amount is given. To 24h.
    #[arg(long, visible_alias = "runtime", value_name = "TIME", value_parser = quantity::parse_time)]
    pub(crate) time: Option<Duration>,
    /// How long it runs before it is measured.
    #[arg(long, visible_alias = "ramp_time", alias = "warmup", value_name = "TIME", default_value = "0", value_parser = quantity::parse_time)]
    pub(crate) ramp: Duration,
    /// How many commands, of all sessions together; then --time is only a limit, of 1h where it is not given.
    #[arg(long, aliases = ["number_ios", "io_count", "io-count"], value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// How many bytes, of all sessions together; with a limit of time as for --count.
    #[arg(long, alias = "io_size", value_name = "SIZE", conflicts_with = "count", value_parser = quantity::parse_size)]
    pub(crate) amount: Option<u64>,
    /// The open loop: commands per second, of all sessions together, whatever the target does.
    #[arg(long, visible_alias = "rate_iops", value_name = "IOPS", value_parser = clap::value_parser!(u64).range(1..=pace::RATE_MAX))]
    pub(crate) rate: Option<u64>,
    /// How the commands of --rate follow each other.
    #[arg(long, alias = "rate_process", value_enum, default_value_t = Arrival::Linear)]
    pub(crate) arrival: Arrival,
    /// Where the region begins that is used.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = quantity::parse_size)]
    pub(crate) offset: u64,
    /// How long that region is. Without it, to the end, or 1g of it with --verify.
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size)]
    pub(crate) size: Option<u64>,
    /// All sessions use the whole region (the default without --verify).
    #[arg(long, conflicts_with = "disjoint")]
    pub(crate) shared: bool,
    /// Each session has a part of the region to itself (the default with --verify).
    #[arg(long)]
    pub(crate) disjoint: bool,
    /// Marks every sector that is written with its address, session, write and a checksum, and checks every sector that is
    /// read; at the end reads back all that was written.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Makes lost connections again, each for so long; without it the loss of one ends the load. A session of several is lost with
    /// any of them. What was on its way is counted, not sent again; verification takes such writes for done or not done.
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_time)]
    pub(crate) reconnect: Option<Duration>,
    /// Writes the result to this file as JSON; `-` is standard output, and the text then goes to standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes a line for each interval to this file, as CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Writes the latencies of each interval to this file, in nanoseconds, in the log format of HdrHistogram's tools, with the
    /// tags `read` and `write`.
    #[arg(long, alias = "hdrlog", value_name = "FILE")]
    pub(crate) hdr_log: Option<PathBuf>,
    /// The interval of --csv, --hdr-log and the progress line.
    #[arg(long, alias = "status-interval", value_name = "TIME", default_value = "1s", value_parser = quantity::parse_time)]
    pub(crate) interval: Duration,
    /// The name to log in with.
    #[arg(long, value_name = "IQN", default_value = "iqn.2026-11.io.portico:load")]
    pub(crate) initiator: String,
    /// Logs in with CHAP, by this name.
    #[arg(long, value_name = "NAME", requires = "chap_secret_file")]
    pub(crate) chap_user: Option<String>,
    /// The file with that name's secret; a line's end behind it does not count.
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub(crate) chap_secret_file: Option<PathBuf>,
    /// Mutual CHAP: the target has to prove to be this one.
    #[arg(long, value_name = "NAME", requires_all = ["chap_user", "chap_target_secret_file"])]
    pub(crate) chap_target_user: Option<String>,
    /// The file with the target's secret.
    #[arg(long, value_name = "FILE", requires = "chap_target_user")]
    pub(crate) chap_target_secret_file: Option<PathBuf>,
    /// Of the random numbers, to repeat a run's choice of blocks.
    #[arg(long, alias = "randseed", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Demands CRC32C of all headers, both ways.
    #[arg(long)]
    pub(crate) header_digest: bool,
    /// Demands CRC32C of all data, both ways.
    #[arg(long)]
    pub(crate) data_digest: bool,
    /// Ends when the target sends longer bursts than MaxBurstLength, which initiators usually take.
    #[arg(long)]
    pub(crate) strict: bool,
    /// No progress line.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// The most sessions, of all URLs together, too.
const SESSIONS_MAX: i64 = 16_384;
/// The most commands that a session keeps outstanding.
const DEPTH_MAX: i64 = 1024;
/// The most threads.
const CORES_MAX: usize = 256;
/// Cores have lower numbers than this: it is as far as a mask of the kernel's interface goes.
const CORE_NUMBERS: usize = 1024;
/// The longest command.
pub(crate) const BLOCK_BYTES_MAX: u64 = 4 << 20;
/// The unit in which verified data is marked.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The longest run.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a run may take that has a number of commands to do.
const TIME_FOR_COUNT: Duration = Duration::from_secs(3600);
/// The length of a run without a number of commands.
const TIME_DEFAULT: Duration = Duration::from_secs(10);
/// The region of a verified run where none is given.
const VERIFIED_BYTES_DEFAULT: u64 = 1 << 30;
/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Blocks whose versions are remembered, times the sessions that may write each.
pub(crate) const VERSIONS_MAX: u64 = 1 << 24;

/// What the commands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Reads, anywhere.
    Randread,
    /// Writes, anywhere.
    Randwrite,
    /// Both, anywhere.
    Randrw,
    /// Reads, one after the other.
    Read,
    /// Writes, one after the other.
    Write,
    /// Both, one after the other.
    #[value(alias = "readwrite")]
    Rw,
}

impl Pattern {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Randread => "randread",
            Self::Randwrite => "randwrite",
            Self::Randrw => "randrw",
            Self::Read => "read",
            Self::Write => "write",
            Self::Rw => "rw",
        }
    }

    /// Whether the blocks come in no order.
    pub(crate) fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }

    /// Reads out of 100 commands.
    fn reads_percent(self, mix: u8) -> u8 {
        match self {
            Self::Randread | Self::Read => 100,
            Self::Randwrite | Self::Write => 0,
            Self::Randrw | Self::Rw => mix,
        }
    }
}

/// A list of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(pub(crate) Vec<usize>);

fn cores(text: &str) -> Result<Cores, String> {
    let mut cores = Vec::new();
    let number = |text: &str| {
        let core = text.parse::<usize>().ok().filter(|core| *core < CORE_NUMBERS);
        core.ok_or_else(|| format!("`{text}` is no core"))
    };
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last < first || last - first >= CORES_MAX {
            return Err(format!("`{part}` is no range of cores"));
        }
        cores.extend(first..=last);
    }
    let mut sorted = cores.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != cores.len() {
        return Err("a core is named twice".to_owned());
    }
    if cores.len() > CORES_MAX { Err("too many cores".to_owned()) } else { Ok(Cores(cores)) }
}

/// The geometry of the logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Of a logical block.
    pub(crate) block_bytes: u32,
    pub(crate) blocks: u64,
}

/// All that the workers need to know of one logical unit, checked.
///
/// Its blocks are counted from the start of the region. They are as long as all commands are multiples of: with one `--bs`, a command
/// is a block.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// On this unit.
    pub(crate) sessions: u32,
    /// The number of the first of them.
    pub(crate) first_session: u32,
    /// On all units.
    pub(crate) sessions_in_all: u32,
    pub(crate) depth: u16,
    pub(crate) is_random: bool,
    pub(crate) reads_percent: u8,
    pub(crate) sizes: Sizes,
    /// Bytes of a block.
    pub(crate) block_bytes: u32,
    /// Blocks of the longest command.
    pub(crate) longest: u32,
    pub(crate) geometry: Geometry,
    /// The first byte of the region.
    pub(crate) first_byte: u64,
    /// Blocks that the region is long.
    pub(crate) region: u64,
    pub(crate) shared: bool,
    pub(crate) verify: bool,
    pub(crate) count: Option<u64>,
    pub(crate) amount: Option<u64>,
    pub(crate) rate: Option<u64>,
    pub(crate) arrival: Arrival,
    pub(crate) ramp: Duration,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
}

/// Which sessions a unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The number of the first.
    pub(crate) first: u32,
    /// How many.
    pub(crate) sessions: u32,
    /// How many all units have.
    pub(crate) in_all: u32,
}

impl Options {
    /// How many connections all sessions of a URL have together.
    pub(crate) fn paths(&self) -> u32 {
        self.sessions.saturating_mul(self.connections)
    }

    /// How many sessions all URLs have together, or connections where each session has several.
    ///
    /// # Errors
    /// If these are too many.
    pub(crate) fn sessions_in_all(&self) -> Result<u32, String> {
        let urls = u32::try_from(self.target.len()).unwrap_or(u32::MAX);
        let all = self.paths().checked_mul(urls).filter(|all| i64::from(*all) <= SESSIONS_MAX);
        all.ok_or_else(|| format!("all URLs together have at most {SESSIONS_MAX} sessions"))
    }

    /// What to log in with.
    ///
    /// # Errors
    /// If a secret cannot be read.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, String> {
        let read = |name: &Option<String>, file: &Option<PathBuf>| {
            let (Some(name), Some(file)) = (name, file) else { return Ok(None) };
            let secret = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok::<_, String>(Some(User::new(name, secret.trim_end_matches(['\n', '\r']))))
        };
        let Some(user) = read(&self.chap_user, &self.chap_secret_file)? else { return Ok(None) };
        let target = read(&self.chap_target_user, &self.chap_target_secret_file)?;
        Ok(Some(Credentials { target, ..Credentials::new(user) }))
    }

    /// The lengths that commands really have.
    fn mixes(&self) -> impl Iterator<Item = &Mix> {
        let percent = self.rw.reads_percent(self.mix);
        let reads = (percent > 0).then_some(&self.bs.reads);
        reads.into_iter().chain((percent < 100).then_some(&self.bs.writes))
    }

    /// The plan for a logical unit of this geometry.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn plan(&self, geometry: Geometry, share: Share) -> Result<Plan, String> {
        self.check()?;
        let unit = u64::from(geometry.block_bytes).max(if self.verify { SECTOR_BYTES } else { 1 });
        let (mut block, mut longest) = (0, 0);
        for bytes in self.mixes().flat_map(Mix::lengths) {
            if bytes == 0 || bytes > BLOCK_BYTES_MAX || !bytes.is_multiple_of(unit) {
                return Err(format!("--bs {bytes} is no multiple of {unit} up to 4m"));
            }
            block = common_divisor(block, bytes);
            longest = longest.max(bytes);
        }
        if !self.offset.is_multiple_of(unit) {
            return Err(format!("--offset {} is no multiple of {unit}", self.offset));
        }
        let shared = if self.verify { self.shared } else { !self.disjoint };
        let region = self.region(geometry, block, if shared { share.sessions.into() } else { 1 })?;
        let part = if shared { region } else { region / u64::from(share.sessions) };
        let is_mixed = longest > block;
        // Two writes of one session never meet in one block: there is always another place. Commands that begin anywhere bar more
        // than their own length.
        let least = match (self.verify, is_mixed) {
            (true, false) => 2 * u64::from(self.depth),
            (true, true) => (4 * u64::from(self.depth) + 2) * (longest / block),
            (false, _) => longest / block,
        };
        if part < least {
            let name = if is_mixed { format!("{block} bytes") } else { "--bs".to_owned() };
            return Err(format!("a session has {part} blocks of {name} to itself, and needs {least}"));
        }
        let narrow = |bytes: u64| u32::try_from(bytes).expect("at most BLOCK_BYTES_MAX");
        Ok(Plan {
            sessions: share.sessions,
            first_session: share.first,
            sessions_in_all: share.in_all,
            depth: self.depth,
            is_random: self.rw.is_random(),
            reads_percent: self.rw.reads_percent(self.mix),
            sizes: self.bs.clone(),
            block_bytes: narrow(block),
            longest: narrow(longest / block),
            geometry,
            first_byte: self.offset,
            region,
            shared,
            verify: self.verify,
            count: self.count,
            amount: self.amount,
            rate: self.rate,
            arrival: self.arrival,
            ramp: self.ramp,
            time: self.duration(),
            seed: self.seed,
        })
    }

    /// What has nothing to do with the unit.
    fn check(&self) -> Result<(), String> {
        if self.verify && self.rw.reads_percent(self.mix) == 100 {
            return Err("--verify checks what it has written: it needs a --rw that writes".to_owned());
        }
        if self.time.is_some_and(|time| time.is_zero() || time > TIME_MAX) || self.ramp > TIME_MAX {
            return Err("--time and --ramp are up to 24h".to_owned());
        }
        if self.interval < INTERVAL_MIN {
            return Err("--interval is 10ms or more".to_owned());
        }
        Ok(())
    }

    /// How long it is measured at most.
    fn duration(&self) -> Duration {
        let has_amount = self.count.is_some() || self.amount.is_some();
        self.time.unwrap_or(if has_amount { TIME_FOR_COUNT } else { TIME_DEFAULT })
    }

    /// The length of the region in blocks of so many bytes, each of which so many sessions may write.
    fn region(&self, geometry: Geometry, block: u64, writers: u64) -> Result<u64, String> {
        let capacity = geometry.blocks.saturating_mul(u64::from(geometry.block_bytes));
        let rest = capacity.saturating_sub(self.offset);
        let region_bytes = match self.size {
            Some(size) if size > rest => {
                return Err(format!("the logical unit ends at {capacity}, before --offset and --size"));
            }
            Some(size) => size,
            None if self.verify => rest.min(VERIFIED_BYTES_DEFAULT),
            None => rest,
        };
        let region = region_bytes / block;
        let most = VERSIONS_MAX / writers;
        match self.size {
            _ if !self.verify || region <= most => Ok(region),
            None => Ok(most),
            Some(_) => {
                let most = quantity::size(most * block);
                Err(format!("--verify remembers every block: --size may be {most} here"))
            }
        }
    }
}

fn common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

impl Plan {
    /// The blocks of a session: the first, in the region, and how many.
    pub(crate) fn part(&self, session: u32) -> (u64, u64) {
        if self.shared {
            return (0, self.region);
        }
        let length = self.region / u64::from(self.sessions);
        (u64::from(session - self.first_session) * length, length)
    }

    /// How many commands a session has to do, if that is given.
    pub(crate) fn count_of(&self, session: u32) -> Option<u64> {
        self.count.map(|count| self.share_of(count, session))
    }

    /// How many bytes a session has to move, if that is given.
    pub(crate) fn amount_of(&self, session: u32) -> Option<u64> {
        self.amount.map(|bytes| self.share_of(bytes, session))
    }

    fn share_of(&self, whole: u64, session: u32) -> u64 {
        let (sessions, session) = (u64::from(self.sessions_in_all), u64::from(session));
        whole / sessions + u64::from(session < whole % sessions)
    }

    /// The blocks of a session's next command.
    pub(crate) fn choose_length(&self, is_write: bool, random: &mut Random) -> u32 {
        if self.longest == 1 {
            return 1;
        }
        let mix = if is_write { &self.sizes.writes } else { &self.sizes.reads };
        let blocks = mix.choose(random) / u64::from(self.block_bytes);
        u32::try_from(blocks).expect("at most the longest")
    }

    /// Bytes of the longest command.
    pub(crate) fn bytes_max(&self) -> u32 {
        self.longest * self.block_bytes
    }

    /// The logical block at which a block of the region begins.
    pub(crate) fn lba(&self, block: u64) -> u64 {
        // A power of two; one for each command counts.
        self.byte(block) >> self.geometry.block_bytes.trailing_zeros()
    }

    /// The byte at which a block of the region begins.
    pub(crate) fn byte(&self, block: u64) -> u64 {
        self.first_byte + block * u64::from(self.block_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Geometry = Geometry { block_bytes: 512, blocks: 1 << 21 };

    fn options(arguments: &str) -> Options {
        let command = "portico-load --target iscsi://127.0.0.1/iqn.x/0 ".to_owned() + arguments;
        Options::try_parse_from(command.split_whitespace()).unwrap()
    }

    fn plan(arguments: &str) -> Result<Plan, String> {
        let options = options(arguments);
        let in_all = options.sessions_in_all()?;
        options.plan(DISK, Share { first: 0, sessions: in_all, in_all })
    }

    fn refused(arguments: &str) -> String {
        plan(arguments).unwrap_err()
    }

    #[test]
    fn without_options_it_reads_at_random_for_ten_seconds() {
        let plan = plan("").unwrap();
        assert_eq!((plan.is_random, plan.reads_percent, plan.shared, plan.verify), (true, 100, true, false));
        assert_eq!((plan.block_bytes, plan.longest, plan.region), (4096, 1, 1 << 18));
        assert_eq!((plan.time, plan.count), (Duration::from_secs(10), None));
    }

    #[test]
    fn disjoint_parts_cover_the_region_without_meeting() {
        let disjoint = plan("--verify --sessions 3 --size 1m --offset 64k --rw randwrite").unwrap();
        assert_eq!([0, 1, 2].map(|session| disjoint.part(session)), [(0, 85), (85, 85), (170, 85)]);
        assert_eq!((disjoint.lba(0), disjoint.byte(1)), (128, 65536 + 4096));
        let shared = plan("--verify --shared --sessions 3 --size 1m --rw randrw").unwrap();
        assert_eq!(shared.part(2), (0, 256));
    }

    #[test]
    fn a_count_is_divided_among_the_sessions() {
        let plan = plan("--count 10 --sessions 4").unwrap();
        let counts: Vec<_> = (0..4).map(|session| plan.count_of(session).unwrap()).collect();
        assert_eq!((counts, plan.time), (vec![3, 3, 2, 2], TIME_FOR_COUNT));
    }

    #[test]
    fn what_does_not_fit_the_unit_is_refused() {
        assert!(refused("--bs 1000").contains("multiple of 512"));
        assert!(refused("--bs 8m").contains("up to 4m"));
        assert!(refused("--offset 100").contains("multiple of 512"));
        assert!(refused("--size 2g").contains("the logical unit ends"));
        assert!(refused("--verify").contains("--rw that writes"));
        assert!(refused("--verify --rw write --size 64k --depth 16").contains("needs 32"));
        assert!(
            refused("--verify --rw write --shared --size 1g --sessions 128")
                .contains("--size may be 512 MiB")
        );
        assert!(refused("--time 25h").contains("24h"));
    }

    #[test]
    fn a_verified_region_is_cut_to_what_can_be_remembered() {
        let plan = plan("--verify --rw write --shared --sessions 128").unwrap();
        assert_eq!(plan.region, VERSIONS_MAX / 128);
    }

    #[test]
    fn blocks_are_what_all_lengths_are_multiples_of() {
        let mixed = plan("--bssplit 4k/50:6k/50 --rw randwrite").unwrap();
        assert_eq!((mixed.block_bytes, mixed.longest, mixed.bytes_max()), (2048, 3, 6144));
        let apart = plan("--bs 4k,64k --rw randrw").unwrap();
        assert_eq!((apart.block_bytes, apart.longest), (4096, 16));
        let reads = plan("--bs 4k,64k --rw randread").unwrap();
        assert_eq!((reads.block_bytes, reads.longest), (4096, 1), "there are no writes");
        assert!(refused("--bs 4k/50:1000/50").contains("--bs 1000 is no multiple of 512"));
        let why = refused("--verify --rw write --bs 4k/50:64k/50 --size 1m --depth 4");
        assert!(why.contains("256 blocks of 4096 bytes to itself, and needs 288"), "{why}");
    }

    #[test]
    fn options_go_by_the_names_of_fio() {
        let options = options(
            "--rw=readwrite --bs=8k --iodepth=4 --numjobs=3 --runtime=5 --ramp_time=2 --rwmixread=30 \
             --rate_iops=1000 --number_ios=7 --randseed=9",
        );
        assert_eq!((options.rw, options.depth, options.sessions, options.mix), (Pattern::Rw, 4, 3, 30));
        assert_eq!((options.time, options.ramp), (Some(Duration::from_secs(5)), Duration::from_secs(2)));
        assert_eq!((options.rate, options.count, options.seed), (Some(1000), Some(7), 9));
        assert_eq!(self::options("--io_size 1g").amount, Some(1 << 30));
    }

    #[test]
    fn an_amount_is_divided_among_the_sessions_of_all_units() {
        let options = options("--amount 10k --sessions 2");
        let plan = options.plan(DISK, Share { first: 2, sessions: 2, in_all: 4 }).unwrap();
        assert_eq!([2, 3].map(|session| plan.amount_of(session)), [Some(2560); 2]);
        assert_eq!((plan.part(3), plan.time), ((0, 1 << 18), TIME_FOR_COUNT));
    }

    #[test]
    fn cores_are_numbers_and_ranges() {
        assert_eq!(cores("0,2-4"), Ok(Cores(vec![0, 2, 3, 4])));
        for wrong in ["", "x", "4-2", "0-9999", "1024", "1,1", "0-2,1"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
