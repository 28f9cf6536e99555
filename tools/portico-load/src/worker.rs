//! One thread of the load: a ring, and the sessions that it drives.
//!
//! All threads begin together, once every session has logged in, and in a verified run read back together, once nobody
//! writes any more. While one waits for the others it goes on serving its connections. Nothing here waits for ever: the time
//! is over at some point, commands that are not answered end the run, and one thread's failure ends all.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portico_iscsi::initiator::LoginPlan;
use portico_iscsi::wire::{Isid, LunField};
use portico_ring::{
    Arena, ArenaOptions, Class, Completion, Options as RingOptions, Payload, Ring, Segments, Wait,
};
use rustix::time::{ClockId, clock_gettime};

use crate::connection::{self, Connection, Context, Pattern};
use crate::ledger::Ledger;
use crate::link::{Link, Strictness};
use crate::options::Plan;
use crate::tally::Tally;

/// How often a thread looks at the clock when nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// How long a session may have commands outstanding of which none ends.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const SILENCE_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the logins of all sessions of a thread may take together.
const LOGINS_MAX: Duration = Duration::from_secs(300);
/// How long the logouts of all sessions of a thread may take together; sessions that are left over are just closed.
const LOGOUTS_MAX: Duration = Duration::from_secs(10);
/// Sessions of one thread up to which each has the larger buffer to receive into.
const LARGE_RECEIVES_MAX: usize = 4;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) plan: Plan,
    pub(crate) portal: std::net::SocketAddr,
    pub(crate) lun: LunField,
    pub(crate) initiator: String,
    pub(crate) target: String,
    pub(crate) strictness: Strictness,
    /// How long a session may have commands outstanding of which none ends.
    pub(crate) silence_max: Duration,
    /// Of a verified run.
    pub(crate) ledger: Option<Ledger>,
    /// Tells this run's sessions from another's.
    pub(crate) run: u64,
    pub(crate) threads: u32,
    /// The user wants it to end.
    pub(crate) is_interrupted: std::sync::Arc<AtomicBool>,
    /// A thread has failed: all end.
    pub(crate) is_aborted: AtomicBool,
    /// How many threads have all their sessions, and how many write no more.
    pub(crate) gates: [AtomicU32; 2],
    /// The origin of all times.
    pub(crate) origin: Instant,
    pub(crate) gauges: Gauges,
}

/// What is shown while it runs; each thread adds to it.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) read_back: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) bad: AtomicU64,
}

const LOGGED_IN: usize = 0;
const WRITTEN: usize = 1;

impl Field {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn arrive(&self, gate: usize) {
        self.gates[gate].fetch_add(1, Ordering::SeqCst);
    }

    fn is_open(&self, gate: usize) -> bool {
        self.gates[gate].load(Ordering::SeqCst) >= self.threads
    }

    /// Whether every session has logged in.
    pub(crate) fn has_begun(&self) -> bool {
        self.is_open(LOGGED_IN)
    }

    fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::SeqCst)
    }

    /// How `session` logs in. Each is an initiator port of its own, and no other run's (RFC 7143 §4.4.3.1).
    pub(crate) fn login(&self, session: u32) -> LoginPlan {
        let run = self.run.to_le_bytes();
        let [_, _, high, low] = session.to_be_bytes();
        let isid = Isid([0x80, run[0], run[1], run[2], high, low]);
        LoginPlan { isid, ..LoginPlan::normal(&self.initiator, &self.target) }
    }
}

/// Ends all threads where this one panics.
struct Alarm<'a>(&'a Field);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_aborted.store(true, Ordering::SeqCst);
        }
    }
}

/// Runs thread `thread` of `field.threads`: every session whose number it is modulo that.
pub(crate) fn run(field: &Field, thread: u32) -> Tally {
    let _alarm = Alarm(field);
    let mut tally = Tally::new();
    let outcome = Worker::new(field, thread).and_then(|mut worker| {
        let outcome = worker.work(&mut tally);
        worker.leave();
        outcome
    });
    if let Err(failure) = outcome {
        field.is_aborted.store(true, Ordering::SeqCst);
        tally.failures.push(failure);
    }
    tally
}

struct Worker<'a> {
    field: &'a Field,
    ring: Ring,
    context: Context<'a>,
    connections: Vec<Connection>,
    /// Connections that may have something to send.
    dirty: Vec<usize>,
    is_dirty: Vec<bool>,
    /// What the gauges have been told.
    shown: [u64; 5],
    /// When it is looked for silence again.
    next_look: Instant,
}

const RECEIVE: u64 = 0;
const SEND: u64 = 1;

impl<'a> Worker<'a> {
    /// Logs all sessions in.
    fn new(field: &'a Field, thread: u32) -> Result<Self, String> {
        let plan = &field.plan;
        let numbers: Vec<u32> =
            (thread..plan.sessions).step_by(usize::try_from(field.threads).unwrap_or(1)).collect();
        let sessions = u32::try_from(numbers.len()).expect("at most all");
        let options = RingOptions {
            operations_max: 2 * sessions + 16,
            files_max: sessions + 16,
            ..RingOptions::default()
        };
        let mut ring = Ring::new(options).map_err(|unsupported| unsupported.to_string())?;
        let class = if numbers.len() <= LARGE_RECEIVES_MAX { Class::Large } else { Class::Medium };
        let options = arena(plan, sessions, class).ok_or("these options take too much memory")?;
        let arena = Arena::new(options).map_err(|error| format!("no memory for buffers: {error}"))?;
        let context = Context {
            plan,
            ledger: field.ledger.as_ref(),
            lun: field.lun,
            arena,
            pattern: Pattern::new(plan.io_bytes, field.run),
        };
        let mut connections = Vec::with_capacity(numbers.len());
        let deadline = Instant::now() + LOGINS_MAX;
        for (local, number) in numbers.into_iter().enumerate() {
            if Instant::now() >= deadline {
                return Err(format!("after {} s session {number} had not logged in", LOGINS_MAX.as_secs()));
            }
            if field.is_aborted() || field.is_interrupted.load(Ordering::Relaxed) {
                return Err(format!("ended before session {number} had logged in"));
            }
            let of_session = |failure| format!("session {number}: {failure}");
            let mut link = Link::log_in(field.portal, field.login(number), plan.depth, field.strictness)
                .map_err(of_session)?;
            link.make_ready(field.lun).map_err(of_session)?;
            let (socket, session, inbound) = link.into_parts();
            let fd = ring.adopt(socket).expect("the ring has room for every session");
            let buffer = context.arena.take(class).expect("there is one for every session");
            let mut segments = Segments::with_capacity(1);
            segments.push(buffer).expect("the list has room for one");
            ring.receive(fd, tag(local, RECEIVE), segments).expect("the ring has room for every session");
            connections.push(Connection::new(number, fd, session, inbound, plan));
        }
        let is_dirty = vec![false; connections.len()];
        Ok(Self {
            field,
            ring,
            context,
            connections,
            dirty: Vec::new(),
            is_dirty,
            shown: [0; 5],
            next_look: Instant::now(),
        })
    }

    /// All that is to be done.
    fn work(&mut self, tally: &mut Tally) -> Result<(), String> {
        let field = self.field;
        self.serve(tally, LOGGED_IN)?;
        let (began, busy, held_up) = (Instant::now(), thread_time(), held_up_time());
        self.connections.iter_mut().for_each(Connection::begin);
        let deadline = began + field.plan.time;
        let was_late = self.drive(tally, Some(deadline))?;
        tally.elapsed = began.elapsed();
        let share = |time: Duration| {
            let thousandths = time.as_nanos() * 1000 / tally.elapsed.as_nanos().max(1);
            u64::try_from(thousandths).unwrap_or(u64::MAX)
        };
        tally.busy.push(share(thread_time().saturating_sub(busy)));
        tally.held_up.push(share(held_up_time().saturating_sub(held_up)));
        self.connections.iter().for_each(|connection| tally.session_did(connection.did));
        if was_late && field.plan.count.is_some() {
            tally.failures.push("the time was over before all commands were done".to_owned());
        }
        self.serve(tally, WRITTEN)?;
        if field.ledger.is_some() && !field.is_interrupted.load(Ordering::Relaxed) {
            for connection in &mut self.connections {
                connection.read_back(&field.plan);
            }
            self.drive(tally, None)?;
        }
        Ok(())
    }

    /// Until every session has done its part and all is answered. Whether the time was over before.
    fn drive(&mut self, tally: &mut Tally, deadline: Option<Instant>) -> Result<bool, String> {
        for local in 0..self.connections.len() {
            self.mark(local);
        }
        let (mut is_over, mut was_late) = (false, false);
        loop {
            self.flush();
            if self.connections.iter().all(Connection::is_quiet) {
                return Ok(was_late);
            }
            self.turn(tally)?;
            if is_over {
                continue;
            }
            was_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            is_over = was_late || self.field.is_interrupted.load(Ordering::Relaxed);
            if is_over {
                self.connections.iter_mut().for_each(Connection::finish);
            }
        }
    }

    /// Answers pings until all threads have arrived at `gate`.
    fn serve(&mut self, tally: &mut Tally, gate: usize) -> Result<(), String> {
        self.field.arrive(gate);
        while !self.field.is_open(gate) {
            self.turn(tally)?;
            self.flush();
        }
        Ok(())
    }

    /// One pass: waits for something to happen, a tick at most, and takes all that has.
    fn turn(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.ring
            .turn(Wait::Until(TICK), Duration::ZERO)
            .map_err(|error| format!("the ring failed: {error}"))?;
        while let Some(completion) = self.ring.next_completion() {
            self.completed(completion, tally)?;
        }
        self.show(tally);
        if self.field.is_aborted() {
            return Err("ended, because another thread failed".to_owned());
        }
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + SILENCE_LOOK_INTERVAL;
            self.look_for_silence()?;
        }
        Ok(())
    }

    fn look_for_silence(&self) -> Result<(), String> {
        let now_ns = self.field.now_ns();
        let silence_max_ns = u64::try_from(self.field.silence_max.as_nanos()).expect("seconds");
        match self.connections.iter().find(|connection| connection.silence_ns(now_ns) > silence_max_ns) {
            None => Ok(()),
            Some(silent) => Err(format!(
                "session {}: {} commands without an answer for {} s",
                silent.number,
                silent.outstanding(),
                self.field.silence_max.as_secs()
            )),
        }
    }

    fn completed(&mut self, completion: Completion, tally: &mut Tally) -> Result<(), String> {
        let local = usize::try_from(completion.tag / 2).expect("made from an index");
        match completion.payload {
            Payload::Segments(segments) => {
                let length = completion.result.map_err(|errno| {
                    format!("session {}: {}", self.connections[local].number, std::io::Error::from(errno))
                })?;
                self.received(local, segments, length, tally)
            }
            Payload::Message(message) => {
                let connection = &mut self.connections[local];
                if let Err(errno) = completion.result {
                    return Err(format!("session {}: {}", connection.number, std::io::Error::from(errno)));
                }
                connection.sent(message);
                self.mark(local);
                Ok(())
            }
            Payload::None | Payload::Accepted(_) | Payload::Woken => Ok(()),
        }
    }

    fn received(
        &mut self,
        local: usize,
        segments: Segments,
        length: u32,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let now_ns = self.field.now_ns();
        let connection = &mut self.connections[local];
        let length = usize::try_from(length).expect("32 bits");
        if length == 0 {
            return Err(format!("session {}: the target closed the connection", connection.number));
        }
        connection.received(&segments.as_slice()[0].bytes()[..length], &self.context, tally, now_ns);
        if let Some(failure) = connection.failure.take() {
            return Err(format!("session {}: {failure}", connection.number));
        }
        self.ring
            .receive(connection.fd, tag(local, RECEIVE), segments)
            .expect("its place has just become free");
        self.mark(local);
        Ok(())
    }

    fn mark(&mut self, local: usize) {
        if !std::mem::replace(&mut self.is_dirty[local], true) {
            self.dirty.push(local);
        }
    }

    /// One send for every connection that has something to say.
    fn flush(&mut self) {
        let now_ns = self.field.now_ns();
        for local in self.dirty.drain(..) {
            self.is_dirty[local] = false;
            let connection = &mut self.connections[local];
            if let Some(message) = connection.next_message(&self.context, now_ns) {
                self.ring
                    .send(connection.fd, tag(local, SEND), message)
                    .expect("one send for each session has room");
            }
        }
    }

    fn show(&mut self, tally: &Tally) {
        let now = [
            tally.reads.commands,
            tally.writes.commands,
            tally.read_back,
            tally.errors,
            tally.verified.bad(),
        ];
        let Gauges { reads, writes, read_back, errors, bad } = &self.field.gauges;
        for ((gauge, now), shown) in
            [reads, writes, read_back, errors, bad].into_iter().zip(now).zip(&mut self.shown)
        {
            if now > *shown {
                gauge.fetch_add(now - *shown, Ordering::Relaxed);
                *shown = now;
            }
        }
    }

    /// Logs every session out that can still be talked to.
    fn leave(&mut self) {
        for local in 0..self.connections.len() {
            self.ring.cancel(tag(local, RECEIVE));
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut quiet = Vec::new();
        let mut tally = Tally::new();
        while self.ring.in_flight() > 0 && Instant::now() < deadline {
            if self.ring.turn(Wait::Until(TICK), Duration::ZERO).is_err() {
                return;
            }
            while let Some(completion) = self.ring.next_completion() {
                let local = usize::try_from(completion.tag / 2).expect("made from an index");
                if let (Payload::Segments(segments), Ok(length)) = (&completion.payload, completion.result) {
                    let length = usize::try_from(length).expect("32 bits");
                    let now_ns = self.field.now_ns();
                    let bytes = &segments.as_slice()[0].bytes()[..length];
                    self.connections[local].received(bytes, &self.context, &mut tally, now_ns);
                }
            }
        }
        for connection in self.connections.drain(..) {
            if connection.is_quiet() && connection.failure.is_none() {
                quiet.push(connection);
            }
        }
        let deadline = Instant::now() + LOGOUTS_MAX;
        for connection in quiet {
            if Instant::now() >= deadline {
                return;
            }
            let (fd, session, inbound) = connection.into_parts();
            if let Ok(socket) = self.ring.release(fd) {
                Link::from_parts(socket, session, inbound).log_out();
            }
        }
    }
}

fn tag(local: usize, kind: u64) -> u64 {
    u64::try_from(local).expect("an index") * 2 + kind
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long this thread has been ready to run without a core; nothing where the kernel does not tell.
fn held_up_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or(0))
}

/// A buffer to receive for every session; in a verified run, twice what its writes take, since an answer may come before the
/// kernel gives a send's buffers back.
fn arena(plan: &Plan, sessions: u32, receive: Class) -> Option<ArenaOptions> {
    let mut options = ArenaOptions { small: 0, medium: 0, large: 0 };
    let mut add = |class, chunks: u32| {
        let place = match class {
            Class::Small => &mut options.small,
            Class::Medium => &mut options.medium,
            Class::Large => &mut options.large,
        };
        *place = place.checked_add(chunks)?;
        Some(())
    };
    add(receive, sessions)?;
    if plan.verify && plan.reads_percent < 100 {
        let (class, buffers) = connection::write_buffers(plan);
        add(class, sessions.checked_mul(u32::from(plan.depth))?.checked_mul(buffers)?.checked_mul(2)?)?;
    }
    Some(options).filter(|options| options.total_bytes() <= ARENA_BYTES_MAX)
}

/// Memory of one thread's buffers.
const ARENA_BYTES_MAX: u64 = 16 << 30;
