//! `porticod`: the composition root. Reads the command line, makes the threads, and is the control thread from then on.

#[cfg(feature = "count-allocations")]
mod allocations;
mod cli;
mod devices;
mod host;
mod limits;
mod shards;

use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use portico_backstores::Medium;
use portico_backstores::rbd::wait_until_closed;
use portico_control::core::Exit;
use portico_control::http::{Limits, Server};
use portico_control::ledger_store::{LedgerStore, SystemFolder, boot_id};
use portico_control::runtime::{Post, Runtime, mailboxes};
use portico_control::scst_conf::{self, Colour, Verdict};
use portico_model::configuration::{Configuration, Portal, embedded_default};
use portico_ring::probe::{Feature, tell_missing};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use cli::Cli;
use devices::Media;
use host::Process;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(file) = &cli.check {
        return check(file);
    }
    log_to_stderr();
    match run(&cli) {
        Ok(Exit::Clean) => ExitCode::SUCCESS,
        Ok(Exit::Unclean(reason)) => {
            eprintln!("porticod: {reason}");
            ExitCode::FAILURE
        }
        Err(reason) => {
            eprintln!("porticod: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, String> {
    let data_folder = cli.data_folder()?;
    let configuration = configuration(cli, &data_folder)?;
    let cores = shards::cores(cli.cores.as_ref().map(|cores| &cores.0[..]))?;
    let folder = |name: &str| {
        let path = data_folder.join(name);
        SystemFolder::open(path.clone()).map_err(|error| format!("{}: {error}", path.display()))
    };
    folder("")?;
    let _alone = claim(&data_folder)?;
    let boot = std::fs::read_to_string(BOOT_ID).map_err(|error| format!("{BOOT_ID}: {error}"))?;
    let boot = boot_id(&boot).ok_or_else(|| format!("{BOOT_ID}: not a boot id: {boot:?}"))?;
    let ledgers = LedgerStore::new(folder("ledgers")?, boot);

    limits::raise_open_files();
    look_at_machine()?;
    let (mailbox, post, inbox) = mailboxes(cores.len());
    let plan = shards::Plan {
        cores,
        memory_mib: cli.shard_memory,
        pages: cli.huge_pages.pages(),
        registers_memory: cli.registered_memory,
        spin: Duration::from_micros(configuration.core.poll_us.into()),
        origin: Instant::now(),
        measures: !cli.no_histograms,
    };
    let (queues, threads) = shards::start(&plan, &mailbox)?;
    let listener = TcpListener::bind(cli.metrics).map_err(|error| {
        format!("metrics: {}", host::explain(cli.metrics, &error).replace("--portal", "--metrics"))
    })?;
    let metrics = Server::start(listener, post.clone(), Limits::default())
        .map_err(|error| format!("metrics: {error}"))?;
    if !cli.metrics.ip().is_loopback() {
        tracing::warn!("metrics are served beyond loopback, to anybody who asks");
    }
    let shards = plan.cores.len();
    let process =
        Process { metrics: metrics.local_addr(), data_folder, shards, embedded: cli.config.is_none() };
    let media = Arc::new(Media { shards: u32::try_from(shards).expect("at most SHARDS_MAX") });
    let runtime = Runtime::new(shards, boot, inbox, media, queues, process, ledgers)
        .map_err(|error| format!("no helper threads: {error}"))?;
    watch_signals(cli, post.clone())?;
    #[cfg(feature = "count-allocations")]
    allocations::tell_on_signal(shards)?;
    post.apply(configuration, false);
    let exit = runtime.run();
    threads.join();
    drop(metrics);
    if !wait_until_closed(IMAGES_CLOSE_IN) {
        tracing::warn!("Ceph does not answer: images are left to time out there, which takes half a minute");
    }
    Ok(exit)
}

/// Warns of what this machine could do better.
///
/// # Errors
/// What it lacks and cannot do without, with the remedy.
fn look_at_machine() -> Result<(), String> {
    let mut lacking = Vec::new();
    for Feature { name, required, found, remedy, .. } in
        portico_ring::probe().into_iter().filter(|feature| !feature.present)
    {
        if required {
            lacking.push(format!("this machine cannot run it: {name}: {found}; {remedy}"));
        } else {
            tracing::warn!(feature = name, "{found}; {remedy}");
        }
    }
    if lacking.is_empty() { Ok(()) } else { Err(lacking.join("\nporticod: ")) }
}

/// How long the end of the process waits for images to be closed.
const IMAGES_CLOSE_IN: Duration = Duration::from_secs(5);

/// Makes sure that no other gateway keeps its ledgers in this folder, for as long as the file is open.
fn claim(folder: &Path) -> Result<File, String> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{} belongs to a gateway that is running; end it, or choose another folder with --data DIR",
            folder.display()
        )),
        Err(TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
    }
}

/// Where Linux says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the command line asks for: a file, or the embedded default.
fn configuration(cli: &Cli, data_folder: &Path) -> Result<Configuration, String> {
    let mut configuration = match &cli.config {
        None => embedded_default(data_folder),
        Some(file) => {
            let mut configuration = read(file)?;
            configuration.portals = portals(&configuration, &cli.portal);
            configuration
        }
    };
    if cli.config.is_none() && !cli.portal.is_empty() {
        configuration.portals = cli.portal.iter().copied().map(Portal).collect();
    }
    Ok(configuration)
}

/// Where a configuration is served: what the command line and the file name; else everywhere.
fn portals(configuration: &Configuration, named: &[std::net::SocketAddr]) -> Vec<Portal> {
    let mut portals: Vec<Portal> = named.iter().copied().map(Portal).collect();
    let of_file = configuration.iscsi.portals.iter().map(|given| given.portal);
    for portal in of_file {
        if !portals.contains(&portal) {
            portals.push(portal);
        }
    }
    if portals.is_empty() { everywhere() } else { portals }
}

/// Port 3260 on every address of the families that this machine has.
fn everywhere() -> Vec<Portal> {
    let has_ipv6 = TcpListener::bind("[::]:0").is_ok();
    Portal::everywhere().into_iter().filter(|portal| has_ipv6 || portal.0.is_ipv4()).collect()
}

/// Reads a configuration file; what is wrong with it goes to standard error.
fn read(file: &Path) -> Result<Configuration, String> {
    let parsed = scst_conf::load(file).map_err(|error| format!("{}: {error}", file.display()))?;
    eprint!("{}", parsed.report(colour(&io::stderr())));
    for item in &parsed.not_in_effect {
        tracing::warn!(
            "{}:{}: {} is accepted and not in effect yet: {}",
            file.display(),
            item.line,
            item.what,
            item.instead
        );
    }
    match (parsed.verdict().is_taken(), parsed.configuration) {
        (true, Some(configuration)) => Ok(configuration),
        _ => Err(format!("{}: the configuration has errors; nothing was changed", file.display())),
    }
}

/// SIGINT and SIGTERM end the gateway, a second one at once; SIGHUP brings it to what the file says now.
fn watch_signals(cli: &Cli, post: Post<Medium>) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| format!("signals: {error}"))?;
    let (file, portal) = (cli.config.clone(), cli.portal.clone());
    let watcher = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => reload(file.as_ref(), &portal, &post),
                _ => post.shut_down(),
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watcher)
        .map(drop)
        .map_err(|error| format!("no thread for signals: {error}"))
}

fn reload(file: Option<&PathBuf>, portal: &[std::net::SocketAddr], post: &Post<Medium>) {
    let Some(file) = file else {
        tracing::warn!("SIGHUP: there is no configuration file to read again");
        return;
    };
    match read(file) {
        Ok(mut configuration) => {
            configuration.portals = portals(&configuration, portal);
            tracing::info!(file = %file.display(), "SIGHUP: the configuration is applied");
            post.apply(configuration, false);
        }
        Err(reason) => tracing::error!("SIGHUP: {reason}"),
    }
}

fn check(file: &Path) -> ExitCode {
    let out = &mut io::stdout().lock();
    let verdict = scst_conf::check(file, out, colour(&io::stdout()))
        .and_then(|verdict| tell_missing(&portico_ring::probe(), out).map(|()| verdict));
    match verdict {
        Ok(Verdict::Sound | Verdict::Warned { .. }) => ExitCode::SUCCESS,
        Ok(Verdict::Refused { .. }) => ExitCode::from(1),
        Ok(Verdict::Unreadable) | Err(_) => ExitCode::from(2),
    }
}

fn colour(stream: &impl IsTerminal) -> Colour {
    let plain = !stream.is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain { Colour::Off } else { Colour::On }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("PORTICO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour(&io::stderr()) == Colour::On)
        .with_target(false)
        .init();
}
