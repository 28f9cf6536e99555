//! The command line, and the plan that comes of it once the size of the logical unit is known.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::address::Address;
use crate::quantity;

/// Loads an iSCSI logical unit with many sessions, measures it, and on request checks every byte that it reads.
///
/// The loop is closed: each session keeps its queue depth of commands outstanding. Writing destroys what is on the logical unit.
///
/// Exit status: 0 all went well, 1 there were errors or wrong data, 2 the load could not begin, 130 it was interrupted.
#[derive(Clone, Debug, Parser)]
#[command(name = "portico-load", version, about)]
pub(crate) struct Options {
    /// The logical unit, as iscsi://HOST:PORT/IQN/LUN.
    #[arg(long, value_name = "URL")]
    pub(crate) target: Address,
    /// Sessions, each with one connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SESSIONS_MAX))]
    pub(crate) sessions: u32,
    /// One thread on each of these cores, as 0,2-5; the sessions are divided among them. Without it one thread, anywhere.
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub(crate) cores: Option<Cores>,
    /// Commands that each session keeps outstanding.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=DEPTH_MAX))]
    pub(crate) depth: u16,
    /// What to do.
    #[arg(long, value_enum, default_value_t = Pattern::Randread)]
    pub(crate) rw: Pattern,
    /// Reads out of 100 commands, where both are mixed.
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) mix: u8,
    /// Bytes of a command, to 4m.
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = quantity::parse_size)]
    pub(crate) bs: u64,
    /// How long; 10s where neither this nor --count is given. To 24h.
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_time)]
    pub(crate) time: Option<Duration>,
    /// How many commands, of all sessions together; then --time is only a limit, of 1h where it is not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
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
    /// Marks every sector that is written with its address, session, version and a checksum, and checks every sector that is
    /// read; at the end reads back all that was written.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Writes the result to this file as JSON; `-` is standard output, and the text then goes to standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The name to log in with.
    #[arg(long, value_name = "IQN", default_value = "iqn.2026-11.io.portico:load")]
    pub(crate) initiator: String,
    /// Of the random numbers, to repeat a run's choice of blocks.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Ends when the target sends longer bursts than MaxBurstLength, which initiators usually take.
    #[arg(long)]
    pub(crate) strict: bool,
    /// No progress line.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// The most sessions.
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

/// All that the workers need to know, checked. Its blocks are those of `--bs`, counted from the start of the logical unit.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sessions: u32,
    pub(crate) depth: u16,
    pub(crate) is_random: bool,
    pub(crate) reads_percent: u8,
    /// Bytes of a command.
    pub(crate) io_bytes: u32,
    /// Logical blocks of a command.
    pub(crate) io_blocks: u32,
    pub(crate) geometry: Geometry,
    /// The first byte of the region.
    pub(crate) first_byte: u64,
    /// Commands that the region is long.
    pub(crate) region: u64,
    pub(crate) shared: bool,
    pub(crate) verify: bool,
    pub(crate) count: Option<u64>,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
}

impl Options {
    /// The plan for a logical unit of this geometry.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn plan(&self, geometry: Geometry) -> Result<Plan, String> {
        let block_bytes = u64::from(geometry.block_bytes);
        let unit = if self.verify { block_bytes.max(SECTOR_BYTES) } else { block_bytes };
        if self.bs == 0 || self.bs > BLOCK_BYTES_MAX || !self.bs.is_multiple_of(unit) {
            return Err(format!("--bs {} is no multiple of {unit} up to 4m", self.bs));
        }
        if !self.offset.is_multiple_of(unit) {
            return Err(format!("--offset {} is no multiple of {unit}", self.offset));
        }
        if self.verify && self.rw.reads_percent(self.mix) == 100 {
            return Err("--verify checks what it has written: it needs a --rw that writes".to_owned());
        }
        let shared = if self.verify { self.shared } else { !self.disjoint };
        let capacity = geometry.blocks.saturating_mul(block_bytes);
        let rest = capacity.saturating_sub(self.offset);
        let region_bytes = match self.size {
            Some(size) if size > rest => {
                return Err(format!("the logical unit ends at {capacity}, before --offset and --size"));
            }
            Some(size) => size,
            None if self.verify => rest.min(VERIFIED_BYTES_DEFAULT),
            None => rest,
        };
        let mut region = region_bytes / self.bs;
        let writers = if shared { u64::from(self.sessions) } else { 1 };
        if self.verify && region.saturating_mul(writers) > VERSIONS_MAX {
            if self.size.is_some() {
                let most = VERSIONS_MAX / writers * self.bs;
                return Err(format!(
                    "--verify remembers every block: --size may be {} here",
                    quantity::size(most)
                ));
            }
            region = VERSIONS_MAX / writers;
        }
        let part = if shared { region } else { region / u64::from(self.sessions) };
        // Two writes of one session never meet in one block: there is always another block.
        let least = if self.verify { 2 * u64::from(self.depth) } else { 1 };
        if part < least {
            return Err(format!("a session has {part} blocks of --bs to itself, and needs {least}"));
        }
        let time = match (self.time, self.count) {
            (Some(time), _) if time.is_zero() || time > TIME_MAX => {
                return Err("--time is up to 24h".to_owned());
            }
            (Some(time), _) => time,
            (None, Some(_)) => TIME_FOR_COUNT,
            (None, None) => TIME_DEFAULT,
        };
        let io_bytes = u32::try_from(self.bs).expect("at most BLOCK_BYTES_MAX");
        Ok(Plan {
            sessions: self.sessions,
            depth: self.depth,
            is_random: self.rw.is_random(),
            reads_percent: self.rw.reads_percent(self.mix),
            io_bytes,
            io_blocks: io_bytes / geometry.block_bytes,
            geometry,
            first_byte: self.offset,
            region,
            shared,
            verify: self.verify,
            count: self.count,
            time,
            seed: self.seed,
        })
    }
}

impl Plan {
    /// The blocks of a session: the first, in the region, and how many.
    pub(crate) fn part(&self, session: u32) -> (u64, u64) {
        if self.shared {
            return (0, self.region);
        }
        let length = self.region / u64::from(self.sessions);
        (u64::from(session) * length, length)
    }

    /// How many commands a session has to do, if that is given.
    pub(crate) fn count_of(&self, session: u32) -> Option<u64> {
        let (sessions, session) = (u64::from(self.sessions), u64::from(session));
        self.count.map(|count| count / sessions + u64::from(session < count % sessions))
    }

    /// The logical block at which a block of the region begins.
    pub(crate) fn lba(&self, block: u64) -> u64 {
        self.byte(block) / u64::from(self.geometry.block_bytes)
    }

    /// The byte at which a block of the region begins.
    pub(crate) fn byte(&self, block: u64) -> u64 {
        self.first_byte + block * u64::from(self.io_bytes)
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

    fn refused(arguments: &str) -> String {
        options(arguments).plan(DISK).unwrap_err()
    }

    #[test]
    fn without_options_it_reads_at_random_for_ten_seconds() {
        let plan = options("").plan(DISK).unwrap();
        assert_eq!((plan.is_random, plan.reads_percent, plan.shared, plan.verify), (true, 100, true, false));
        assert_eq!((plan.io_bytes, plan.io_blocks, plan.region), (4096, 8, 1 << 18));
        assert_eq!((plan.time, plan.count), (Duration::from_secs(10), None));
    }

    #[test]
    fn disjoint_parts_cover_the_region_without_meeting() {
        let plan = options("--verify --sessions 3 --size 1m --offset 64k --rw randwrite").plan(DISK).unwrap();
        assert_eq!([0, 1, 2].map(|session| plan.part(session)), [(0, 85), (85, 85), (170, 85)]);
        assert_eq!((plan.lba(0), plan.byte(1)), (128, 65536 + 4096));
        let shared = options("--verify --shared --sessions 3 --size 1m --rw randrw").plan(DISK).unwrap();
        assert_eq!(shared.part(2), (0, 256));
    }

    #[test]
    fn a_count_is_divided_among_the_sessions() {
        let plan = options("--count 10 --sessions 4").plan(DISK).unwrap();
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
        let plan = options("--verify --rw write --shared --sessions 128").plan(DISK).unwrap();
        assert_eq!(plan.region, VERSIONS_MAX / 128);
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
