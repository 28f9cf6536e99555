//! `portico`, the administrator's tool: checks a configuration before it is applied, and shows what a gateway does.
//!
//! It holds no logic of the gateway: a check is control's, the figures are what the gateway tells on its metrics port. It
//! never changes anything, and needs no root.

mod figures;
mod top;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use portico_control::scst_conf::{self, Colour, Verdict};
use portico_ring::probe::tell_missing;

/// Checks configurations for, and looks into, the portico iSCSI gateway.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is wrong with a configuration, what it would serve, and what this machine lacks; starts and changes nothing.
    ///
    /// Exit status: 0 it would be taken, 1 it would be refused, 2 it cannot be read. As `porticod --check FILE`.
    Check {
        /// The file, in the format of scst.conf.
        file: PathBuf,
    },
    /// Shows what each logical unit does: operations, bandwidth, latency, and histograms of where the time went.
    ///
    /// On a terminal it is live; elsewhere it prints a table at each interval. All figures are those of the interval, except
    /// errors, which are counted since the unit was opened.
    Top {
        /// Where the gateway tells its metrics.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9877")]
        metrics: SocketAddr,
        /// From one look to the next: 200ms to 1h.
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
        interval: Duration,
        /// Prints one table, over one interval, and ends.
        #[arg(long)]
        once: bool,
    },
}

/// The shortest interval: what a round through all shards is worth.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
/// The longest.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

fn interval(text: &str) -> Result<Duration, String> {
    let time = figures::parse_time(text)?;
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&time) {
        Ok(time)
    } else {
        Err("an interval is 200ms to 1h".to_owned())
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { file } => check(&file),
        Command::Top { metrics, interval, once } => {
            let options = top::Options { metrics, interval, once };
            match top::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("portico top: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// The status that says that nothing is known of the file.
const UNREADABLE: u8 = 2;

fn check(file: &Path) -> ExitCode {
    let mut out = io::stdout().lock();
    let plain = !out.is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = if plain { Colour::Off } else { Colour::On };
    let verdict = scst_conf::check(file, &mut out, colour).and_then(|verdict| {
        tell_missing(&portico_ring::probe(), &mut out)?;
        out.flush()?;
        Ok(verdict)
    });
    match verdict {
        Ok(Verdict::Unreadable) => ExitCode::from(UNREADABLE),
        Ok(verdict) if verdict.is_taken() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("portico check: cannot print: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}
