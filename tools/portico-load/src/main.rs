//! `portico-load`, the load generator: many sessions on an iSCSI logical unit, of any target.
//!
//! ```text
//!   options ──▶ plan ──▶ worker (a thread, a ring) ──▶ connection (a session) ──▶ workload, verify ──▶ tally ──▶ report
//! ```
//! The protocol is that of `portico_iscsi::initiator`, the system calls are those of `portico_ring`; `link` does with blocking
//! calls what comes before and after the load. A load is always bounded, in time and where asked in number; it ends early
//! when a session is lost.

mod address;
mod connection;
mod inbound;
mod ledger;
mod link;
mod options;
mod quantity;
mod random;
mod report;
mod scsi;
mod sector;
mod tally;
#[cfg(test)]
mod tests;
mod verify;
mod worker;
mod workload;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use ledger::Ledger;
use link::{Link, Strictness};
use options::{Options, Plan};
use tally::Tally;
use worker::{Field, Gauges};

/// From one progress line to the next.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
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
    let (plan, tally) = match load(&options, &is_interrupted, worker::SILENCE_MAX) {
        Ok(outcome) => outcome,
        Err(why) => {
            eprintln!("portico-load: {why}");
            return ExitCode::from(EXIT_NOT_BEGUN);
        }
    };
    let is_interrupted = is_interrupted.load(Ordering::SeqCst);
    if let Err(error) = tell(&options, &plan, &tally, is_interrupted, file) {
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
    plan: &Plan,
    tally: &Tally,
    is_interrupted: bool,
    file: Option<fs::File>,
) -> io::Result<()> {
    let text = report::text(options, plan, tally);
    if options.json.is_none() {
        return io::stdout().write_all(text.as_bytes());
    }
    let json = report::json(options, plan, tally, is_interrupted).to_string() + "\n";
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
) -> Result<(Plan, Tally), String> {
    let portal = options.target.resolve()?;
    let run = getrandom::u64().map_err(|error| format!("no random numbers: {error}"))?;
    let threads = options.cores.as_ref().map_or(1, |cores| cores.0.len());
    let threads = u32::try_from(threads).expect("the list of cores is bounded").min(options.sessions);
    let mut field = Field {
        plan: options.plan(options::Geometry { block_bytes: 512, blocks: u64::MAX / 512 })?,
        portal,
        lun: options.target.lun(),
        initiator: options.initiator.clone(),
        target: options.target.target.clone(),
        strictness: if options.strict { Strictness::Strict } else { Strictness::Usual },
        silence_max,
        ledger: None,
        run,
        threads,
        is_interrupted: Arc::clone(is_interrupted),
        is_aborted: AtomicBool::new(false),
        gates: [AtomicU32::new(0), AtomicU32::new(0)],
        origin: Instant::now(),
        gauges: Gauges::default(),
    };
    // A first session asks how large the unit is; no session of the load has its number.
    let mut link = Link::log_in(portal, field.login(PROBE), 1, field.strictness)?;
    let geometry = link.make_ready(field.lun).and_then(|()| link.geometry(field.lun))?;
    link.log_out();
    field.plan = options.plan(geometry)?;
    field.ledger = field.plan.verify.then(|| Ledger::new(&field.plan, run));
    let tally = run_threads(options, &field)?;
    Ok((field.plan, tally))
}

/// The number of the first session: all that fits into an ISID's qualifier.
const PROBE: u32 = 0xffff;

fn run_threads(options: &Options, field: &Field) -> Result<Tally, String> {
    let mut tally = Tally::new();
    thread::scope(|scope| {
        let mut handles = Vec::new();
        for thread in 0..field.threads {
            let core = options.cores.as_ref().map(|cores| cores.0[usize::try_from(thread).expect("32 bits")]);
            let work = move || {
                if let Some(id) = core
                    && !core_affinity::set_for_current(core_affinity::CoreId { id })
                {
                    field.is_aborted.store(true, Ordering::SeqCst);
                    return Err(format!("no thread can be put on core {id}"));
                }
                Ok(worker::run(field, thread))
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
        watch(options, field, || handles.iter().all(thread::ScopedJoinHandle::is_finished));
        for handle in handles {
            match handle.join() {
                Ok(outcome) => tally.add(outcome?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    if !field.has_begun() {
        return Err(tally.failures.into_iter().next().unwrap_or_else(|| "ended before it began".to_owned()));
    }
    Ok(tally)
}

/// A line each second, until the threads have ended.
fn watch(options: &Options, field: &Field, has_ended: impl Fn() -> bool) {
    let mut last = [0; 3];
    let mut next = Instant::now() + PROGRESS_INTERVAL;
    let mut seconds = 0;
    while !has_ended() {
        thread::sleep(WATCH_INTERVAL);
        if Instant::now() < next {
            continue;
        }
        next += PROGRESS_INTERVAL;
        seconds += 1;
        let Gauges { reads, writes, read_back, errors, bad } = &field.gauges;
        let now = [reads, writes, read_back].map(|gauge| gauge.load(Ordering::Relaxed));
        let [reads, writes, read_back] = [0, 1, 2].map(|at: usize| now[at] - last[at]);
        last = now;
        if options.quiet {
            continue;
        }
        let bytes = (reads + writes + read_back).saturating_mul(u64::from(field.plan.io_bytes));
        let what = if read_back > 0 {
            format!("read back {}", quantity::count(read_back))
        } else {
            format!("read {} IOPS, write {} IOPS", quantity::count(reads), quantity::count(writes))
        };
        let mut line = format!("{seconds:>4} s  {what}, {}", quantity::bandwidth(bytes));
        for (name, gauge) in [("errors", errors), ("bad blocks", bad)] {
            let count = gauge.load(Ordering::Relaxed);
            if count > 0 {
                line += &format!(", {count} {name}");
            }
        }
        eprintln!("{line}");
    }
}
