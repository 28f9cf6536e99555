//! The command line of porticod, and what it stands for.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use portico_ring::Pages;

/// An iSCSI storage gateway in user space.
///
/// Without a configuration it serves three LUNs on loopback: a sparse file that keeps its data, a RAM disk, and a null
/// disk. It serves until SIGINT or SIGTERM; SIGHUP reads the configuration file again.
#[derive(Parser, Debug)]
#[command(name = "porticod", version)]
pub(crate) struct Cli {
    /// Configuration in the format of scst.conf.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Says what is wrong with a configuration file and what it would serve, and starts nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "portal", "metrics", "cores"])]
    pub check: Option<PathBuf>,

    /// Listens here (repeatable), beside what the configuration names; port 0 takes a free one. By default port 3260, on
    /// every address where a configuration is given that names none, on loopback where there is no configuration.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub portal: Vec<SocketAddr>,

    /// Serves metrics here.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9877")]
    pub metrics: SocketAddr,

    /// Keeps ledgers, and the data of the embedded default, in this folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Runs one shard on each of these processors, as in 0,2-5. By default on all that this process may use.
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,

    /// Memory of each shard for data, in MiB. It is taken as it is used.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65536))]
    pub shard_memory: u32,

    /// What pages that memory is made of.
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub huge_pages: HugePages,

    /// Has the kernel pin that memory once, at the start and all of it, instead of with each read and write past the page
    /// cache. It needs a limit of locked memory (`ulimit -l`) that is as high; where it is not, it is told and goes on without.
    #[arg(long)]
    pub registered_memory: bool,

    /// Records no latencies, for who wants to know what that costs.
    #[arg(long, hide = true)]
    pub no_histograms: bool,
}

/// What pages a shard's memory is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HugePages {
    /// Huge ones where the kernel has them at hand (transparent huge pages), taken as they are used.
    #[default]
    Advised,
    /// Huge ones that were set aside (`vm.nr_hugepages`), taken at the start; where there are too few, as advised.
    Reserved,
    /// None.
    Off,
}

impl HugePages {
    /// As an arena knows them.
    pub(crate) fn pages(self) -> Pages {
        match self {
            Self::Advised => Pages::Advised,
            Self::Reserved => Pages::Reserved,
            Self::Off => Pages::Small,
        }
    }
}

/// Processors by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores(pub Vec<usize>);

impl Cli {
    /// The folder for what is kept: as told, else `$XDG_STATE_HOME/portico`, else `~/.local/state/portico`.
    ///
    /// # Errors
    /// When neither is set.
    pub(crate) fn data_folder(&self) -> Result<PathBuf, String> {
        if let Some(folder) = &self.data {
            return std::path::absolute(folder)
                .map_err(|error| format!("--data {}: {error}", folder.display()));
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG base directory specification has relative paths ignored.
        let state = set("XDG_STATE_HOME").filter(|path| path.is_absolute());
        let state = state.or_else(|| set("HOME").map(|home| home.join(".local/state")));
        let state = state.ok_or("neither --data nor XDG_STATE_HOME nor HOME says where to keep data")?;
        Ok(state.join("portico"))
    }
}

/// Most processors that a list may name.
const CORES_MAX: usize = portico_model::identity::SHARDS_MAX;

fn parse_cores(text: &str) -> Result<Cores, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let number =
            |digits: &str| digits.trim().parse::<usize>().map_err(|_| format!("{part:?} is no processor"));
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("{part:?} runs backwards"));
        }
        if last - first >= CORES_MAX {
            return Err(format!("{part:?} names more than {CORES_MAX} processors"));
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("processor {core} is named twice"));
            }
            cores.push(core);
        }
    }
    if cores.len() > CORES_MAX {
        return Err(format!("more than {CORES_MAX} processors"));
    }
    Ok(Cores(cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_has_numbers_and_ranges() {
        assert_eq!(parse_cores("0,2-5"), Ok(Cores(vec![0, 2, 3, 4, 5])));
        assert_eq!(parse_cores("7"), Ok(Cores(vec![7])));
    }

    #[test]
    fn a_list_that_makes_no_sense_says_which_part() {
        for (text, part) in [("1,x", "x"), ("3-1", "3-1"), ("0-100000", "0-100000"), ("", ""), ("1,1", "1")] {
            let error = parse_cores(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
