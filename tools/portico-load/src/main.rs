//! `portico-load`, the load generator: many sessions on an iSCSI logical unit, of any target.
//!
//! ```text
//!   options ──▶ plan ──▶ worker (a thread, a ring) ──▶ connection (a session) ──▶ workload, verify ──▶ tally ──▶ report
//! ```
//! The protocol is that of `portico_iscsi::initiator`, the system calls are those of `portico_ring`; `link` does with blocking
//! calls what comes before and after the load. A load is always bounded, in time and where asked in number; it ends early
//! when a session is lost, unless it is to be made again (`reconnect`). `series` writes what each interval has brought.

mod address;
mod connection;
mod inbound;
mod ledger;
mod link;
mod meter;
mod options;
mod pace;
mod quantity;
mod random;
mod reconnect;
mod report;
mod scsi;
mod sector;
mod series;
mod sizes;
mod tally;
#[cfg(test)]
mod tests;
mod unit;
mod verdict;
mod verify;
mod worker;
mod workload;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use portico_iscsi::framing::Digests;
use portico_iscsi::wire::LogoutReason;
use signal_hook::consts::{SIGINT, SIGTERM};

use ledger::Ledger;
use link::{Link, Strictness};
use options::{Options, Share};
use series::Files;
use tally::Tally;
use unit::Unit;
use worker::{Field, Gauges};

/// From one progress line to the next, at least.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How often it is seen whether the threads have ended.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

const EXIT_FAULTY: u8 = 1;
const EXIT_NOT_BEGUN: u8 = 2;
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Twice is meant: the second one ends at once.
        let twice = signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(EXIT_INTERRUPTED),
            Arc::clone(&is_interrupted),
        );
        let once = signal_hook::flag::register(signal, Arc::clone(&is_interrupted));
        if let Err(error) = twice.and(once) {
            eprintln!("portico-load: signals cannot be taken: {error}");
            return ExitCode::from(EXIT_NOT_BEGUN);
        }
    }
    // A result that could not be kept is noticed before the load, not after it.
    let file = options.json.as_ref().filter(|path| path.as_path() != Path::new("-")).map(fs::File::create);
    let file = match file.transpose() {
        Ok(file) => file,
        Err(error) => {
            eprintln!("portico-load: --json: {error}");
            return ExitCode::from(EXIT_NOT_BEGUN);
        }
    };
    let (units, tally) = match load(&options, &is_interrupted, worker::SILENCE_MAX) {
        Ok(outcome) => outcome,
        Err(why) => {
            eprintln!("portico-load: {why}");
            return ExitCode::from(EXIT_NOT_BEGUN);
        }
    };
    let is_interrupted = is_interrupted.load(Ordering::SeqCst);
    if let Err(error) = tell(&options, &units, &tally, is_interrupted, file) {
        eprintln!("portico-load: the report cannot be written: {error}");
        return ExitCode::from(EXIT_FAULTY);
    }
    match (tally.is_clean(), is_interrupted) {
        (false, _) => ExitCode::from(EXIT_FAULTY),
        (true, true) => ExitCode::from(EXIT_INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    }
}

fn tell(
    options: &Options,
    units: &[Unit],
    tally: &Tally,
    is_interrupted: bool,
    file: Option<fs::File>,
) -> io::Result<()> {
    let text = report::text(options, units, tally);
    if options.json.is_none() {
        return io::stdout().write_all(text.as_bytes());
    }
    let json = report::json(options, units, tally, is_interrupted).to_string() + "\n";
    match file {
        Some(mut file) => {
            file.write_all(json.as_bytes())?;
            io::stdout().write_all(text.as_bytes())
        }
        None => {
            io::stderr().write_all(text.as_bytes())?;
            io::stdout().write_all(json.as_bytes())
        }
    }
}

/// Runs the load that the options ask for.
///
/// # Errors
/// If it cannot begin.
fn load(
    options: &Options,
    is_interrupted: &Arc<AtomicBool>,
    silence_max: Duration,
) -> Result<(Vec<Unit>, Tally), String> {
    let sessions = options.sessions_in_all()?;
    let files = Files::create(options)?;
    let run = getrandom::u64().map_err(|error| format!("no random numbers: {error}"))?;
    let threads = options.cores.as_ref().map_or(1, |cores| cores.0.len());
    let threads =
        u32::try_from(threads).expect("the list of cores is bounded").min(sessions / options.connections);
    let mut field = Field {
        units: Vec::new(),
        sessions,
        connections: options.connections,
        initiator: options.initiator.clone(),
        credentials: options.credentials()?,
        digests: Digests { header: options.header_digest, data: options.data_digest },
        recovery_level: options.recovery_level,
        strictness: if options.strict { Strictness::Strict } else { Strictness::Usual },
        silence_max,
        reconnect: options.reconnect,
        interval: options.interval,
        run,
        threads,
        is_interrupted: Arc::clone(is_interrupted),
        is_aborted: AtomicBool::new(false),
        gates: [AtomicU32::new(0), AtomicU32::new(0)],
        origin: Instant::now(),
        begin_ns: AtomicU64::new(0),
        gauges: Gauges::default(),
    };
    field.units = units(options, &field)?;
    let tally = run_threads(options, &field, files)?;
    Ok((field.units, tally))
}

/// The logical units that the URLs name.
fn units(options: &Options, field: &Field) -> Result<Vec<Unit>, String> {
    let mut units = Vec::new();
    let mut first = 0;
    for group in unit::grouped(&options.target) {
        let portals: Vec<_> = group.iter().map(|url| url.resolve()).collect::<Result<_, _>>()?;
        let address = group[0].clone();
        let sessions = options.paths() * u32::try_from(group.len()).expect("at most all sessions");
        // A first session asks how large the unit is; no session of the load has its number.
        let login = field.login(PROBE, &address.target);
        let of_unit = |why: String| if options.target.len() > 1 { format!("{address}: {why}") } else { why };
        let mut link = Link::log_in(portals[0], login, 1, field.strictness, None).map_err(of_unit)?;
        let geometry = link.make_ready(address.lun()).and_then(|()| link.geometry(address.lun()));
        let geometry = geometry.map_err(of_unit)?;
        link.log_out(LogoutReason::CloseSession);
        let share = Share { first, sessions, in_all: field.sessions };
        let plan = options.plan(geometry, share).map_err(of_unit)?;
        let ledger = plan.verify.then(|| Ledger::new(&plan, field.run));
        units.push(Unit { lun: address.lun(), address, portals, plan, ledger });
        first += sessions;
    }
    Ok(units)
}

/// The number of the first session: all that fits into an ISID's qualifier.
pub(crate) const PROBE: u32 = 0xffff;

fn run_threads(options: &Options, field: &Field, files: Option<Files>) -> Result<Tally, String> {
    let mut tally = Tally::new();
    let (sender, samples) = sync_channel(series::WAITING_MAX);
    // Without a file nobody sends.
    let sender = files.is_some().then_some(sender);
    let mut written = Ok(());
    thread::scope(|scope| {
        let writer =
            files.map(|files| scope.spawn(move || files.write(&samples, field.threads, field.interval)));
        let mut handles = Vec::new();
        for thread in 0..field.threads {
            let core = options.cores.as_ref().map(|cores| cores.0[usize::try_from(thread).expect("32 bits")]);
            let sender = sender.clone();
            let work = move || {
                if let Some(id) = core
                    && !core_affinity::set_for_current(core_affinity::CoreId { id })
                {
                    field.is_aborted.store(true, Ordering::SeqCst);
                    return Err(format!("no thread can be put on core {id}"));
                }
                Ok(worker::run(field, thread, sender))
            };
            let spawned = thread::Builder::new().name(format!("load {thread}")).spawn_scoped(scope, work);
            match spawned {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    field.is_aborted.store(true, Ordering::SeqCst);
                    return Err(format!("no thread: {error}"));
                }
            }
        }
        // With the last sender, the writer ends.
        drop(sender);
        watch(options, field, || handles.iter().all(thread::ScopedJoinHandle::is_finished));
        for handle in handles {
            match handle.join() {
                Ok(outcome) => tally.add(outcome?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match writer.map(thread::ScopedJoinHandle::join) {
            Some(Ok(outcome)) => written = outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {}
        }
        Ok(())
    })?;
    if !field.has_begun() {
        return Err(tally.failures.into_iter().next().unwrap_or_else(|| "ended before it began".to_owned()));
    }
    if let Err(error) = written {
        tally.failures.push(format!("the intervals could not be written: {error}"));
    }
    Ok(tally)
}

/// A line for each interval, until the threads have ended.
fn watch(options: &Options, field: &Field, has_ended: impl Fn() -> bool) {
    let interval = options.interval.max(PROGRESS_INTERVAL_MIN);
    let (began, mut before) = (Instant::now(), Instant::now());
    let mut last = [0; 4];
    while !has_ended() {
        thread::sleep(WATCH_INTERVAL);
        let passed = before.elapsed();
        if passed < interval {
            continue;
        }
        before += passed;
        let Gauges { reads, writes, bytes, read_back, .. } = &field.gauges;
        let now = [reads, writes, bytes, read_back].map(|gauge| gauge.load(Ordering::Relaxed));
        let per_second = |at: usize| {
            let count = u128::from(now[at] - last[at]) * 1_000_000_000 / passed.as_nanos().max(1);
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        let rates = [0, 1, 2, 3].map(per_second);
        last = now;
        if !options.quiet {
            eprintln!("{:>4} s  {}", began.elapsed().as_secs(), progress(rates, &field.gauges));
        }
    }
}

/// One line: what was done per second, and what went wrong so far.
fn progress([reads, writes, bytes, read_back]: [u64; 4], gauges: &Gauges) -> String {
    let mut line = if read_back > 0 {
        format!("read back {} per second", quantity::count(read_back))
    } else {
        let (reads, writes) = (quantity::count(reads), quantity::count(writes));
        format!("read {reads} IOPS, write {writes} IOPS, {}", quantity::bandwidth(bytes))
    };
    let Gauges { errors, bad, lost, down, .. } = gauges;
    let told =
        [("errors", errors), ("bad blocks", bad), ("connections lost so far", lost), ("not connected", down)];
    for (name, gauge) in told {
        let count = gauge.load(Ordering::Relaxed);
        if count > 0 {
            line += &format!(", {count} {name}");
        }
    }
    line
}
