//! Sessions by the thousand that are logged in and do nothing but answer pings: what each of them costs, and whether those that
//! are at work notice. Two gateways stand all the while, one with them and one without.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Bench, Found, Pair, Scene};
use crate::bad_input::neighbours::pin;
use crate::bench::measure::cpu_seconds;
use crate::bench::statistics::number;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{Initiator, Io, plan};
use crate::lab::{Context, Failure, Result, halt};

pub(super) fn run(bench: &Bench<'_>, found: &mut Found) -> Result<()> {
    let count = bench.arguments.idle;
    raise_limit(u64::from(count) + DESCRIPTORS_BESIDE)?;
    let (mut crowded, mut empty) = (start(bench)?, start(bench)?);
    let mut told = Told::default();
    let before = Memory::of(&mut crowded)?;
    let begin = Instant::now();
    let sessions = log_in(crowded.portal(), count)?;
    told.line("logins a second, from four initiators", f64::from(count) / begin.elapsed().as_secs_f64());
    thread::sleep(SETTLING);
    told.memory("logged in", &before, &Memory::of(&mut crowded)?, count);
    let mut crowd = Crowd::begin(sessions);
    let cpu = cpu_seconds(crowded.process_id()?)?;
    thread::sleep(IDLE_TIME);
    let cpu = cpu_seconds(crowded.process_id()?)? - cpu;
    told.line("processor time in % of a core while all are idle", 100.0 * cpu / IDLE_TIME.as_secs_f64());
    pairs(bench, (&mut crowded, &mut empty), found)?;
    // Verified writes and reads beside them: whatever is wrong fails the run.
    let verified = ["--rw", "randrw", "--verify", "--size", "64m", "--sessions", "4", "--depth", "16"];
    bench.run(&crowded, 0, &verified, bench.time)?;
    let scrape = Instant::now();
    let sessions = crowded.metric("portico_sessions")?;
    told.line("ms for a page of metrics", scrape.elapsed().as_secs_f64() * 1e3);
    if sessions < u64::from(count) {
        return Err(Failure::new(format!("{sessions} sessions are left of {count}")));
    }
    let (mut sessions, pings) = crowd.end()?;
    told.line("pings that they answered", crate::bench::sample::real(pings));
    let mut again = 0;
    for session in &mut sessions {
        halt::go_on()?;
        again += work_once(session)?;
    }
    told.line(
        "times that one of them was told TASK SET FULL and asked again",
        crate::bench::sample::real(again),
    );
    let mut crowd = Crowd::begin(sessions);
    thread::sleep(REST_AFTER_WORK);
    let after = Memory::of(&mut crowded)?;
    told.memory("after each wrote and read 64 KiB, and was idle again", &before, &after, count);
    let (sessions, _) = crowd.end()?;
    let begin = Instant::now();
    drop(sessions);
    // As long as it has more to do than to answer, they are not gone.
    while crowded.metric("portico_sessions").map_or(true, |sessions| sessions > 0) {
        halt::go_on()?;
        if begin.elapsed() > PARTING {
            return Err(Failure::new("the sessions that hung up are not gone"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    told.line("ms until all are gone that hang up at once", begin.elapsed().as_secs_f64() * 1e3);
    crowded.check()?;
    crowded.stop()?;
    empty.stop()?;
    found.told.push((format!("{count} idle sessions on one shard"), told.0));
    Ok(())
}

/// Four sessions at work, on the gateway with the crowd and on the one without.
fn pairs(bench: &Bench<'_>, (crowded, empty): (&mut Gateway, &mut Gateway), found: &mut Found) -> Result<()> {
    for pair in 0..bench.arguments.pairs {
        for (name, words) in LOADS {
            halt::go_on()?;
            let (alone, beside);
            if pair % 2 == 0 {
                alone = bench.measure(empty, 0, words)?;
                beside = bench.measure(crowded, 0, words)?;
            } else {
                beside = bench.measure(crowded, 0, words)?;
                alone = bench.measure(empty, 0, words)?;
            }
            let row = format!("{name}, beside {} idle", bench.arguments.idle);
            found.note(Pair { scene: Scene::Idle, row, pair, alone, beside });
        }
    }
    Ok(())
}

fn start(bench: &Bench<'_>) -> Result<Gateway> {
    let attributes = vec![format!("size {UNIT_BYTES}")];
    let memory = Device { handler: "vdisk_ram", name: "memory", attributes };
    let mut gateway = Gateway::prepare(bench.tree)?;
    gateway.configure(&gateway::configuration(&[memory]))?;
    gateway.argue(&["--cores", "0"]);
    gateway.start()?;
    bench.fill(&gateway, 0, UNIT_BYTES)?;
    Ok(gateway)
}

/// Logs them in, from a few threads at once.
fn log_in(portal: SocketAddr, count: u16) -> Result<Vec<Initiator>> {
    let one = |number: u16| {
        halt::go_on()?;
        let mut initiator = Initiator::log_in_idle(portal, plan(IQN, number))?;
        initiator.clear_attentions(0)?;
        Ok(initiator)
    };
    let each = |first: u16| (first..count).step_by(LOGIN_THREADS).map(one).collect::<Result<Vec<_>>>();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..LOGIN_THREADS)
            .map(|first| scope.spawn(move || each(u16::try_from(first).expect("few threads"))))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("a thread that logs in")?);
        }
        Ok(all)
    })
}

/// 64 KiB there and back, asked for again where there is no room; how often that was.
fn work_once(session: &mut Initiator) -> Result<u64> {
    let mut again = 0;
    for mut io in [Io::write(0, 0, vec![7; WORK_BYTES]), Io::read(0, 0, WORK_BYTES)] {
        again += session.run_patiently(std::slice::from_mut(&mut io), WORK_PATIENCE)?;
        io.expect_good()?;
    }
    Ok(again)
}

/// Sessions, and how many PDUs had come for them.
type Attended = (Vec<Initiator>, u64);

/// Idle sessions, and a thread that answers pings for them.
struct Crowd {
    thread: Option<JoinHandle<Result<Attended>>>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    fn begin(mut sessions: Vec<Initiator>) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // Not where the gateway works.
            pin(CROWD_CORE)?;
            let mut pings = 0;
            while !seen.load(Ordering::Relaxed) {
                for session in &mut sessions {
                    pings += session.attend()?;
                }
                thread::sleep(ATTENTION_INTERVAL);
            }
            Ok((sessions, pings))
        });
        Crowd { thread: Some(thread), stop }
    }

    /// The sessions, all of which are there still, and how many PDUs had come.
    fn end(&mut self) -> Result<Attended> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a crowd ends once");
        thread.join().unwrap_or_else(|_| Err(Failure::new("the crowd's thread panicked")))
    }
}

/// What they take, in KiB.
struct Memory {
    /// Of the process: its own pages, and its part of those that are shared.
    proportional: u64,
    /// Kernel objects of the whole machine: sockets, files, requests, of both ends.
    slab: u64,
    /// What sockets of the whole machine hold.
    sockets: u64,
}

impl Memory {
    fn of(gateway: &mut Gateway) -> Result<Memory> {
        let rollup = format!("/proc/{}/smaps_rollup", gateway.process_id()?);
        let page = fs::read_to_string("/proc/net/sockstat").context("sockstat")?;
        let mut tcp = page.lines().filter_map(|line| line.strip_prefix("TCP: "));
        let pages = tcp.next().and_then(|line| line.split(" mem ").nth(1)?.trim().parse::<u64>().ok());
        Ok(Memory {
            proportional: kib(&rollup, "Pss:")?,
            slab: kib("/proc/meminfo", "Slab:")?,
            sockets: pages.ok_or_else(|| Failure::new("sockstat has changed"))? * 4,
        })
    }
}

fn kib(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).context(path)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Failure::new(format!("no {name} in {path}")))
}

/// Lines of a table.
struct Told(String);

impl Default for Told {
    fn default() -> Told {
        Told("| what | figure |\n|---|---|\n".to_owned())
    }
}

impl Told {
    fn line(&mut self, what: &str, figure: f64) {
        println!("    {what}: {}", number(figure));
        self.0.push_str(&format!("| {what} | {} |\n", number(figure)));
    }

    fn memory(&mut self, when: &str, before: &Memory, after: &Memory, count: u16) {
        let each = |before: u64, after: u64| {
            let grown = i64::try_from(after).expect("KiB") - i64::try_from(before).expect("KiB");
            crate::bench::sample::real(grown.unsigned_abs()) * grown.signum() as f64 / f64::from(count)
        };
        self.line(
            &format!("{when}: KiB of the gateway for each (PSS)"),
            each(before.proportional, after.proportional),
        );
        self.line(
            &format!("{when}: KiB of kernel objects for each, both ends"),
            each(before.slab, after.slab),
        );
        self.line(
            &format!("{when}: KiB in sockets' buffers for each, both ends"),
            each(before.sockets, after.sockets),
        );
    }
}

/// So many descriptors of our own.
fn raise_limit(count: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let maximum = maximum.map(|maximum| maximum.max(count));
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })
        .map_err(|error| Failure::new(format!("{count} open files are needed: {error}; raise `ulimit -Hn`")))
}

const LOADS: [(&str, &[&str]); 3] = [
    ("4 KiB reads, 4 × 32", &["--rw", "randread", "--sessions", "4", "--depth", "32"]),
    ("4 KiB writes, 4 × 32", &["--rw", "randwrite", "--sessions", "4", "--depth", "32"]),
    ("4 KiB reads, 4 × 1", &["--rw", "randread", "--sessions", "4", "--depth", "1"]),
];
const CROWD_CORE: usize = 1;
const UNIT_BYTES: u64 = 256 << 20;
const WORK_BYTES: usize = 64 << 10;
const WORK_PATIENCE: Duration = Duration::from_secs(20);
const LOGIN_THREADS: usize = 4;
/// For all that is no idle session.
const DESCRIPTORS_BESIDE: u64 = 200;
const SETTLING: Duration = Duration::from_secs(2);
/// Longer than NopInInterval.
const IDLE_TIME: Duration = Duration::from_secs(35);
const REST_AFTER_WORK: Duration = Duration::from_secs(20);
const PARTING: Duration = Duration::from_secs(60);
const ATTENTION_INTERVAL: Duration = Duration::from_secs(1);
