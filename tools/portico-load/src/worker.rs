//! One thread of the load: a ring, and the sessions that it drives.
//!
//! All threads begin together, once every session has logged in, and in a verified run read back together, once nobody
//! writes any more. While one waits for the others it goes on serving its connections. Nothing here waits for ever: the time
//! is over at some point, commands that are not answered end the run or the connection, and one thread's failure ends all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use portico_iscsi::chap::Credentials;
use portico_iscsi::framing::Digests;
use portico_iscsi::initiator::{LoginPlan, Offer};
use portico_iscsi::wire::{Isid, LogoutReason, Tsih};
use portico_ring::{
    Arena, ArenaOptions, Class, Completion, Options as RingOptions, Payload, Ring, Segments, Wait,
};

use crate::connection::{self, Connection, Context, Failure, Pattern};
use crate::link::{Link, Strictness};
use crate::meter::Meter;
use crate::reconnect::{Attempt, Recipe};
use crate::series::Sample;
use crate::tally::Tally;
use crate::unit::Unit;

/// How often a thread looks at the clock when nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// The same while it waits for the other threads, which shall begin together.
const GATE_TICK: Duration = Duration::from_millis(1);
/// How long a session may have commands outstanding of which none ends.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const SILENCE_LOOK_INTERVAL_NS: u64 = 500_000_000;
/// How often the gauges are told.
const SHOW_INTERVAL_NS: u64 = 20_000_000;
/// How long the logins of all sessions of a thread may take together.
const LOGINS_MAX: Duration = Duration::from_secs(300);
/// How long the logouts of all sessions of a thread may take together; sessions that are left over are just closed.
const LOGOUTS_MAX: Duration = Duration::from_secs(10);
/// Sessions of one thread up to which each has the larger buffer to receive into.
const LARGE_RECEIVES_MAX: usize = 4;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) units: Vec<Unit>,
    /// Of all units together.
    pub(crate) sessions: u32,
    /// Of each session; `sessions` counts them where these are several.
    pub(crate) connections: u32,
    pub(crate) initiator: String,
    /// For CHAP; `None`: not offered.
    pub(crate) credentials: Option<Credentials>,
    /// Which both sides have to agree to.
    pub(crate) digests: Digests,
    /// ErrorRecoveryLevel that is offered.
    pub(crate) recovery_level: u8,
    pub(crate) strictness: Strictness,
    /// How long a session may have commands outstanding of which none ends.
    pub(crate) silence_max: Duration,
    /// How long it is tried to make a lost connection again; `None`: not at all.
    pub(crate) reconnect: Option<Duration>,
    /// From one sample to the next.
    pub(crate) interval: Duration,
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
    /// When the last thread had its sessions: the load begins.
    pub(crate) begin_ns: AtomicU64,
    pub(crate) gauges: Gauges,
}

/// What is shown while it runs; each thread adds to it.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) read_back: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) bad: AtomicU64,
    pub(crate) lost: AtomicU64,
    /// Sessions without a connection.
    pub(crate) down: AtomicU64,
}

const LOGGED_IN: usize = 0;
const WRITTEN: usize = 1;

impl Field {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn arrive(&self, gate: usize) {
        if gate == LOGGED_IN {
            self.begin_ns.fetch_max(self.now_ns(), Ordering::SeqCst);
        }
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

    /// Whether what was written is read back at the end.
    fn is_verified(&self) -> bool {
        self.units.iter().any(|unit| unit.plan.verify)
    }

    /// How session `session` logs in to a target. Each is an initiator port of its own, and no other run's (RFC 7143 §4.4.3.1).
    pub(crate) fn login(&self, session: u32, target: &str) -> LoginPlan {
        let run = self.run.to_le_bytes();
        let of_connection = if session == crate::PROBE { session } else { session / self.connections };
        let [_, _, high, low] = of_connection.to_be_bytes();
        let isid = Isid([0x80, run[0], run[1], run[2], high, low]);
        let digest = |demanded: bool| if demanded { "CRC32C" } else { "None" };
        let offer = Offer::default()
            .with("HeaderDigest", digest(self.digests.header))
            .with("DataDigest", digest(self.digests.data))
            .with("MaxConnections", &self.connections.to_string())
            .with("ErrorRecoveryLevel", &self.recovery_level.to_string());
        let credentials = self.credentials.clone();
        LoginPlan { isid, offer, credentials, ..LoginPlan::normal(&self.initiator, target) }
    }

    /// The unit of a session, by its place.
    fn unit_of(&self, session: u32) -> usize {
        self.units.partition_point(|unit| unit.plan.first_session <= session) - 1
    }

    /// How a session of a unit is made.
    fn recipe(&self, session: u32, unit: &Unit) -> Recipe {
        Recipe {
            portal: unit.portal(session),
            login: self.login(session, unit.target()),
            lun: unit.lun,
            commands: unit.plan.depth,
            strictness: self.strictness,
        }
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

/// Runs thread `thread` of `field.threads`: every session whose number it is modulo that. What it did in each interval goes to
/// `samples`.
pub(crate) fn run(field: &Field, thread: u32, samples: Option<SyncSender<Sample>>) -> Tally {
    let _alarm = Alarm(field);
    let mut tally = Tally::new();
    let outcome = Worker::new(field, thread, samples).and_then(|mut worker| {
        let outcome = worker.work(&mut tally);
        worker.leave();
        outcome
    });
    if let Err(failure) = outcome {
        field.is_aborted.store(true, Ordering::SeqCst);
        tally.failures.push(failure);
    }
    tally.roll();
    tally
}

struct Worker<'a> {
    field: &'a Field,
    ring: Ring,
    context: Context<'a>,
    connections: Vec<Connection>,
    /// What each connection receives into; `None` while it is in the ring.
    buffers: Vec<Option<Segments>>,
    /// Connections that are lost, and are to come back.
    down: Vec<Down>,
    /// Connections that may have something to send.
    dirty: Vec<usize>,
    is_dirty: Vec<bool>,
    /// Connections of an open loop that wait for their time.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    is_waiting: Vec<bool>,
    meter: Option<Meter>,
    samples: Option<SyncSender<Sample>>,
    /// What the gauges have been told, and when they are told again.
    shown: [u64; 7],
    next_show_ns: u64,
    /// When it is looked for silence again.
    next_look_ns: u64,
    /// When the last turn had its completions.
    now_ns: u64,
}

/// A session that was lost, with all of its connections.
struct Down {
    locals: Range<usize>,
    since: Instant,
    attempt: Option<Attempt>,
}

/// When a drive does what.
#[derive(Clone, Copy)]
struct Schedule {
    measure_ns: u64,
    end_ns: u64,
}

const RECEIVE: u64 = 0;
const SEND: u64 = 1;

impl<'a> Worker<'a> {
    /// Logs all sessions in.
    fn new(field: &'a Field, thread: u32, samples: Option<SyncSender<Sample>>) -> Result<Self, String> {
        // All connections of a session are one thread's.
        let is_ours = |number: &u32| number / field.connections % field.threads == thread;
        let numbers: Vec<u32> = (0..field.sessions).filter(is_ours).collect();
        let sessions = u32::try_from(numbers.len()).expect("at most all");
        let options = RingOptions {
            operations_max: 2 * sessions + 16,
            files_max: 2 * sessions + 16,
            ..RingOptions::default()
        };
        let mut ring = Ring::new(options).map_err(|unsupported| unsupported.to_string())?;
        let class = if numbers.len() <= LARGE_RECEIVES_MAX { Class::Large } else { Class::Medium };
        let options = arena(&field.units, &numbers, class).ok_or("these options take too much memory")?;
        let arena = Arena::new(options).map_err(|error| format!("no memory for buffers: {error}"))?;
        let longest = field.units.iter().map(|unit| unit.plan.bytes_max()).max().unwrap_or(0);
        let context = Context { units: &field.units, arena, pattern: Pattern::new(longest, field.run) };
        let mut connections = Vec::with_capacity(numbers.len());
        let deadline = Instant::now() + LOGINS_MAX;
        let mut tsih = Tsih::NEW;
        for (local, number) in numbers.into_iter().enumerate() {
            if Instant::now() >= deadline {
                return Err(format!("after {} s session {number} had not logged in", LOGINS_MAX.as_secs()));
            }
            if field.is_aborted() || field.is_interrupted.load(Ordering::Relaxed) {
                return Err(format!("ended before session {number} had logged in"));
            }
            let at = field.unit_of(number);
            let unit = &field.units[at];
            let recipe = field.recipe(number, unit);
            let cid = u16::try_from(number % field.connections).expect("few connections");
            let first = connections.len().checked_sub(usize::from(cid)).and_then(|at| connections.get(at));
            let link = match first.filter(|_| cid > 0) {
                Some(first) => recipe.join(Connection::session(first), tsih, cid),
                None => recipe.make(),
            };
            let link = link.map_err(|failure| format!("session {number}: {failure}"))?;
            tsih = link.tsih();
            let (socket, session, inbound) = link.into_parts();
            let fd = ring.adopt(socket).expect("the ring has room for every session");
            let buffer = context.arena.take(class).expect("there is one for every session");
            let mut segments = Segments::with_capacity(1);
            segments.push(buffer).expect("the list has room for one");
            ring.receive(fd, tag(local, RECEIVE), segments).expect("the ring has room for every session");
            connections.push(Connection::new(number, at, fd, session, inbound, &unit.plan));
        }
        let count = connections.len();
        Ok(Self {
            field,
            ring,
            context,
            connections,
            buffers: (0..count).map(|_| None).collect(),
            down: Vec::new(),
            dirty: Vec::new(),
            is_dirty: vec![false; count],
            due: BinaryHeap::new(),
            is_waiting: vec![false; count],
            meter: None,
            samples,
            shown: [0; 7],
            next_show_ns: 0,
            next_look_ns: 0,
            now_ns: field.now_ns(),
        })
    }

    /// All that is to be done.
    fn work(&mut self, tally: &mut Tally) -> Result<(), String> {
        let field = self.field;
        self.serve(tally, LOGGED_IN)?;
        let begin_ns = field.begin_ns.load(Ordering::SeqCst);
        let plan = &field.units[0].plan;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).expect("at most 24 h");
        let measure_ns = begin_ns + nanoseconds(plan.ramp);
        let schedule = Schedule { measure_ns, end_ns: measure_ns + nanoseconds(plan.time) };
        if plan.rate.is_some() {
            wake_exactly();
        }
        self.connections.iter_mut().for_each(|connection| connection.begin(begin_ns));
        let outcome = self.drive(tally, Some(schedule));
        self.conclude(tally);
        if outcome? && (plan.count.is_some() || plan.amount.is_some()) {
            tally.failures.push("the time was over before all commands were done".to_owned());
        }
        self.serve(tally, WRITTEN)?;
        if field.is_verified() && !field.is_interrupted.load(Ordering::Relaxed) {
            for connection in &mut self.connections {
                connection.read_back(&field.units[connection.unit].plan);
            }
            self.drive(tally, None)?;
        }
        Ok(())
    }

    /// The warm-up is over, or there is none.
    fn begin_measuring(&mut self, tally: &mut Tally, measure_ns: u64) {
        tally.begin_measuring();
        self.shown[..3].fill(0);
        self.meter = Some(Meter::new(measure_ns, self.field.interval));
        for connection in &mut self.connections {
            connection.begin_measuring(&self.field.units[connection.unit].plan, measure_ns);
        }
        // Who had nothing more to do may have now.
        (0..self.connections.len()).for_each(|local| self.mark(local));
    }

    /// What was measured is complete.
    fn conclude(&mut self, tally: &mut Tally) {
        let now_ns = self.field.now_ns();
        match self.meter.take() {
            None => tally.begin_measuring(),
            Some(mut meter) => {
                meter.roll(now_ns, tally, self.samples.as_ref());
                meter.end(now_ns, tally, self.samples.as_ref());
            }
        }
        self.samples = None;
        self.connections.iter().for_each(|connection| tally.session_did(connection.did));
    }

    /// Until every session has done its part and all is answered. Whether the time was over before.
    fn drive(&mut self, tally: &mut Tally, schedule: Option<Schedule>) -> Result<bool, String> {
        let (mut is_over, mut was_late) = (false, false);
        let mut is_measuring = schedule.is_none();
        self.now_ns = self.field.now_ns();
        (0..self.connections.len()).for_each(|local| self.mark(local));
        loop {
            if let Some(schedule) = schedule.filter(|_| !is_measuring)
                && self.now_ns >= schedule.measure_ns
            {
                is_measuring = true;
                self.begin_measuring(tally, schedule.measure_ns);
            }
            self.flush(tally)?;
            if is_measuring && self.connections.iter().all(Connection::is_quiet) {
                return Ok(was_late);
            }
            self.turn(tally, TICK)?;
            if is_over {
                continue;
            }
            was_late = schedule.is_some_and(|schedule| self.now_ns >= schedule.end_ns);
            is_over = was_late || self.field.is_interrupted.load(Ordering::Relaxed);
            if is_over {
                is_measuring = true;
                let now_ns = self.now_ns;
                self.connections.iter_mut().for_each(|connection| connection.end(tally, now_ns));
            }
        }
    }

    /// Answers pings until all threads have arrived at `gate`.
    fn serve(&mut self, tally: &mut Tally, gate: usize) -> Result<(), String> {
        self.field.arrive(gate);
        while !self.field.is_open(gate) {
            self.turn(tally, GATE_TICK)?;
            self.flush(tally)?;
        }
        Ok(())
    }

    /// One pass: waits for something to happen, a tick at most, and takes all that has.
    fn turn(&mut self, tally: &mut Tally, tick: Duration) -> Result<(), String> {
        let wait = Wait::Until(self.until_due(tick));
        self.ring.turn(wait, Duration::ZERO).map_err(|error| format!("the ring failed: {error}"))?;
        self.now_ns = self.field.now_ns();
        if let Some(meter) = &mut self.meter {
            meter.roll(self.now_ns, tally, self.samples.as_ref());
        }
        while let Some(completion) = self.ring.next_completion() {
            self.completed(completion, tally)?;
        }
        self.mark_due();
        if !self.down.is_empty() {
            self.mend(tally)?;
        }
        if self.field.is_aborted() {
            return Err("ended, because another thread failed".to_owned());
        }
        if self.now_ns >= self.next_show_ns {
            self.next_show_ns = self.now_ns + SHOW_INTERVAL_NS;
            self.show(tally);
        }
        if self.now_ns >= self.next_look_ns {
            self.next_look_ns = self.now_ns + SILENCE_LOOK_INTERVAL_NS;
            self.look_for_silence(tally)?;
        }
        Ok(())
    }

    /// How long nothing is to be sent, at most `tick`.
    fn until_due(&self, tick: Duration) -> Duration {
        match self.due.peek() {
            None => tick,
            Some(Reverse((due_ns, _))) => {
                Duration::from_nanos(due_ns.saturating_sub(self.field.now_ns())).min(tick)
            }
        }
    }

    /// Sessions of an open loop whose time has come.
    fn mark_due(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let now_ns = self.field.now_ns();
        while let Some(Reverse((due_ns, local))) = self.due.peek().copied()
            && due_ns <= now_ns
        {
            self.due.pop();
            self.is_waiting[local] = false;
            self.mark(local);
        }
    }

    fn look_for_silence(&mut self, tally: &mut Tally) -> Result<(), String> {
        let now_ns = self.field.now_ns();
        let silence_max_ns = u64::try_from(self.field.silence_max.as_nanos()).expect("seconds");
        for local in 0..self.connections.len() {
            let connection = &self.connections[local];
            if connection.is_up() && connection.silence_ns(now_ns) > silence_max_ns {
                let (count, seconds) = (connection.outstanding(), self.field.silence_max.as_secs());
                let why = format!("{count} commands without an answer for {seconds} s");
                self.fail(local, Failure::Lost(why), tally)?;
            }
        }
        Ok(())
    }

    fn completed(&mut self, completion: Completion, tally: &mut Tally) -> Result<(), String> {
        let local = usize::try_from(completion.tag / 2).expect("made from an index");
        let connection = &mut self.connections[local];
        let lost = |errno| Failure::Lost(std::io::Error::from(errno).to_string());
        match completion.payload {
            Payload::Segments(segments) => {
                let outcome = match completion.result {
                    _ if !connection.is_up() => None,
                    Err(errno) => Some(lost(errno)),
                    Ok(0) => Some(Failure::Lost("the target closed the connection".to_owned())),
                    Ok(length) => return self.received(local, segments, length, tally),
                };
                self.buffers[local] = Some(segments);
                outcome.map_or(Ok(()), |failure| self.fail(local, failure, tally))
            }
            Payload::Message(message) => {
                connection.sent(message);
                match completion.result {
                    Err(errno) if connection.is_up() => self.fail(local, lost(errno), tally),
                    _ => {
                        self.mark(local);
                        Ok(())
                    }
                }
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
        connection.received(&segments.as_slice()[0].bytes()[..length], &self.context, tally, now_ns);
        if let Some(failure) = connection.failure.take() {
            self.buffers[local] = Some(segments);
            return self.fail(local, failure, tally);
        }
        let fd = connection.fd;
        self.ring.receive(fd, tag(local, RECEIVE), segments).expect("its place has just become free");
        self.mark(local);
        Ok(())
    }

    /// A connection is of no more use: it is made again where that is wanted and helps.
    fn fail(&mut self, local: usize, failure: Failure, tally: &mut Tally) -> Result<(), String> {
        let connection = &mut self.connections[local];
        let number = connection.number;
        let why = match failure {
            Failure::Lost(why) if self.field.reconnect.is_some() => why,
            Failure::Lost(why) | Failure::Fault(why) => return Err(format!("session {number}: {why}")),
        };
        tally.tell_loss(|| format!("session {number}: {why}"));
        let locals = self.of_session(local);
        for connection in &mut self.connections[locals.clone()] {
            connection.lose(tally);
            self.ring.close(connection.fd);
            self.field.gauges.down.fetch_add(1, Ordering::Relaxed);
        }
        self.down.push(Down { locals, since: Instant::now(), attempt: None });
        Ok(())
    }

    /// All connections of a connection's session: they have neighbouring numbers, and places.
    fn of_session(&self, local: usize) -> Range<usize> {
        let count = self.field.connections;
        let place = |number: u32| usize::try_from(number).expect("32 bits");
        let first = local - place(self.connections[local].number % count);
        first..first + place(count)
    }

    /// Whether nothing of what the session's old connections were doing is under way.
    fn is_over(&self, mut locals: Range<usize>) -> bool {
        locals.all(|local| self.buffers[local].is_some() && self.connections[local].has_message())
    }

    /// Takes lost connections a step further.
    fn mend(&mut self, tally: &mut Tally) -> Result<(), String> {
        for mut down in std::mem::take(&mut self.down) {
            let locals = down.locals.clone();
            let number = self.connections[locals.start].number;
            let of_session = |why| format!("session {number}: not connected again: {why}");
            match down.attempt.as_ref().and_then(Attempt::poll) {
                Some(made) => {
                    for (local, link) in locals.zip(made.map_err(of_session)?) {
                        self.attach(local, link);
                    }
                    tally.lost.longest = tally.lost.longest.max(down.since.elapsed());
                    continue;
                }
                None if down.attempt.is_none() && self.is_over(locals.clone()) => {
                    let recipe = |connection: &Connection| {
                        self.field.recipe(connection.number, &self.field.units[connection.unit])
                    };
                    let until = down.since + self.field.reconnect.unwrap_or_default();
                    let recipes = self.connections[locals].iter().map(recipe).collect();
                    let attempt = Attempt::start(recipes, until);
                    down.attempt = Some(attempt.map_err(of_session)?);
                }
                None => {}
            }
            self.down.push(down);
        }
        Ok(())
    }

    fn attach(&mut self, local: usize, link: Link) {
        let (socket, session, inbound) = link.into_parts();
        let fd = self.ring.adopt(socket).expect("the ring has room for every session twice");
        let segments = self.buffers[local].take().expect("nothing was received meanwhile");
        self.ring.receive(fd, tag(local, RECEIVE), segments).expect("the ring has room for every session");
        self.connections[local].attach(fd, session, inbound, self.field.now_ns());
        self.field.gauges.down.fetch_sub(1, Ordering::Relaxed);
        self.mark(local);
    }

    fn mark(&mut self, local: usize) {
        if !std::mem::replace(&mut self.is_dirty[local], true) {
            self.dirty.push(local);
        }
    }

    /// One send for every connection that has something to say.
    fn flush(&mut self, tally: &mut Tally) -> Result<(), String> {
        let now_ns = self.field.now_ns();
        let mut failed = None;
        for local in self.dirty.drain(..) {
            self.is_dirty[local] = false;
            let connection = &mut self.connections[local];
            if let Some(message) = connection.next_message(&self.context, tally, now_ns) {
                self.ring
                    .send(connection.fd, tag(local, SEND), message)
                    .expect("one send for each session has room");
            }
            failed = connection.failure.take().map(|failure| (local, failure)).or(failed);
            if let Some(due_ns) = connection.next_due_ns().filter(|_| !self.is_waiting[local]) {
                self.is_waiting[local] = true;
                self.due.push(Reverse((due_ns, local)));
            }
        }
        failed.map_or(Ok(()), |(local, failure)| self.fail(local, failure, tally))
    }

    fn show(&mut self, tally: &Tally) {
        let [done_reads, done_writes, done_bytes] = tally.done();
        let now = [
            done_reads,
            done_writes,
            done_bytes,
            tally.read_back,
            tally.errors,
            tally.verified.bad(),
            tally.lost.connections,
        ];
        let Gauges { reads, writes, bytes, read_back, errors, bad, lost, down: _ } = &self.field.gauges;
        for ((gauge, now), shown) in
            [reads, writes, bytes, read_back, errors, bad, lost].into_iter().zip(now).zip(&mut self.shown)
        {
            if now > *shown {
                gauge.fetch_add(now - *shown, Ordering::Relaxed);
                *shown = now;
            }
        }
    }

    /// Logs every session out that can still be talked to.
    fn leave(&mut self) {
        self.down.clear();
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
            if connection.is_up() && connection.is_quiet() && connection.failure.is_none() {
                quiet.push(connection);
            }
        }
        let deadline = Instant::now() + LOGOUTS_MAX;
        let several = self.field.connections > 1;
        let reason = if several { LogoutReason::CloseConnection } else { LogoutReason::CloseSession };
        for connection in quiet {
            if Instant::now() >= deadline {
                return;
            }
            let (fd, session, inbound) = connection.into_parts();
            if let Ok(socket) = self.ring.release(fd) {
                Link::from_parts(socket, session, inbound).log_out(reason);
            }
        }
    }
}

fn tag(local: usize, kind: u64) -> u64 {
    u64::try_from(local).expect("an index") * 2 + kind
}

/// Without this the kernel puts a thread's timers off by up to 50 µs, which an open loop would measure.
fn wake_exactly() {
    // Where it is not possible, commands go out that much later, and their latency says so.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// A buffer to receive for every session; in a verified run, twice what its writes take, since an answer may come before the
/// kernel gives a send's buffers back.
fn arena(units: &[Unit], sessions: &[u32], receive: Class) -> Option<ArenaOptions> {
    let mut options = ArenaOptions { small: 0, medium: 0, large: 0 };
    let mut add = |class, chunks: u32| {
        let place = match class {
            Class::Tiny | Class::Small => &mut options.small,
            Class::Medium => &mut options.medium,
            Class::Large => &mut options.large,
        };
        *place = place.checked_add(chunks)?;
        Some(())
    };
    add(receive, u32::try_from(sessions.len()).ok()?)?;
    for unit in units.iter().map(|unit| &unit.plan).filter(|plan| plan.verify && plan.reads_percent < 100) {
        let range = unit.first_session..unit.first_session + unit.sessions;
        let count = u32::try_from(sessions.iter().filter(|number| range.contains(number)).count()).ok()?;
        let (class, buffers) = connection::write_buffers(unit);
        add(class, count.checked_mul(u32::from(unit.depth))?.checked_mul(buffers)?.checked_mul(2)?)?;
    }
    Some(options).filter(|options| options.total_bytes() <= ARENA_BYTES_MAX)
}

/// Memory of one thread's buffers.
const ARENA_BYTES_MAX: u64 = 16 << 30;
