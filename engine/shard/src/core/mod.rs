//! Everything of a shard but its connections: sessions, tasks, units, and what moves between them.
//!
//! Connections hand in what they understood ([`Core::start`], [`Core::data`], …); the medium and control hand in what came
//! of it; both leave PDUs in the sessions' lists, from which `emit` makes messages.

mod answers;
mod atomic;
mod booking;
mod claims;
mod copy;
mod emit;
mod events;
mod execute;
mod fencing;
mod install;
mod leaving;
mod manage;
mod medium;
mod queries;
mod read;
mod recovery;
mod series;
mod sessions;
mod snack;
mod task_sets;
mod tokens;
mod using;
mod verify;
mod waiting;
mod work;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Seat, TaskId};
use portico_iscsi::wire::LoginStatus;
use portico_model::configuration::Configuration;
use portico_model::identity::{Generation, SessionId, ShardId, Ticket, UnitId};
use portico_model::login_failures::LoginFailures;
use portico_model::message::{EndReason, LoginQuestion, ToControl};
use portico_model::meter::{Operation, ShardCounters};
use portico_ring::{ArenaOptions, Buffer, Class};
use portico_scsi::bits::Status;
use portico_scsi::sense::{Outcome, SenseKey};

use crate::budget::Budget;
use crate::connection::Connection;
use crate::driver::Driver;
use crate::full_feature::PDUS_PER_TURN;
use crate::management::Management;
use crate::outgoing::{Outgoing, Rare};
use crate::penalties::Penalties;
use crate::pool::Pool;
use crate::session::{Link, Session};
use crate::slab::{Key, Slab};
use crate::task::{PIECE_BYTES_MAX, Task, Times, Work};
use crate::unit::{Closing, Lasted, Unit};

use answers::Answers;
use booking::Gathering;
pub use claims::{LentWait, PeerMail};
pub use medium::{Op, OpKind};
pub use series::PASSES_MAX;
pub use waiting::{Line, Lines, Wait};
pub use work::Job;

/// The state of a shard without its connections.
pub struct Core<D> {
    /// Which shard.
    pub shard: ShardId,
    /// The world.
    pub driver: D,
    /// The clock as of the beginning of this turn.
    pub now: Moment,
    /// What logins and discovery are answered from.
    pub configuration: Arc<Configuration>,
    /// Sessions homed here.
    pub sessions: Slab<Session>,
    /// By their names between threads.
    pub session_keys: BTreeMap<SessionId, Key<Session>>,
    /// Commands in hand.
    pub tasks: Slab<Task>,
    /// Logical units.
    pub units: Slab<Unit>,
    /// By their names between threads.
    pub unit_keys: BTreeMap<UnitId, Key<Unit>>,
    /// Requests at media.
    pub ops: Slab<Op>,
    /// Task management functions that wait.
    pub managements: Slab<Management>,
    /// Who may hold how much of the arena.
    pub budget: Budget,
    /// Reusable messages, lists and queues.
    pub pool: Pool,
    /// Tasks that wait for memory or for room in a queue, first come first served.
    pub starved: VecDeque<Key<Task>>,
    /// Sessions in whose task sets commands may begin, since others have ended.
    pub task_sets_due: Vec<Key<Session>>,
    /// Connections that have got something to send.
    pub to_flush: Vec<Key<Connection>>,
    /// Which connection has sent last, and until when there are others beside it.
    pub speaker: Key<Connection>,
    company_until: Moment,
    /// Bytes after which a message takes no further PDU.
    longest_message: usize,
    /// Lines of the log that peers may still cause before the next tick.
    pub complaints_left: u32,
    /// Connections for whose next receive there was no memory.
    pub thirsty: Vec<Key<Connection>>,
    /// Connections that have got something to send, for which there was no memory.
    pub unsent: Vec<Key<Connection>>,
    /// Units whose last flush failed.
    pub failed_flushes: Vec<UnitId>,
    /// What is answered where it is understood.
    pub answers: Answers,
    /// Units with requests at their media, and some that had.
    pub at_work: Vec<Key<Unit>>,
    /// Flushes that Installs wait for and media have no room for.
    pub flushes_due: Vec<(Key<Unit>, Generation)>,
    /// Units whose work on all of the medium wants to go on.
    pub works_due: Vec<Key<Unit>>,
    /// Those of them for which there was no room.
    pub works_stalled: Vec<Key<Unit>>,
    /// Connections that end when what they have to send is sent.
    pub ending: Vec<(Key<Connection>, EndReason)>,
    /// Connections that have waited to join their session, and how that ended.
    pub joining: Vec<Joiner>,
    /// Connections of sessions.
    pub seated: usize,
    /// Mail for control that its queue has not taken yet.
    pub outbox: VecDeque<ToControl>,
    /// Mail for other shards that their queues have not taken yet.
    pub peer_mail: PeerMail,
    /// Units whose claims wait for bytes that their media have lent.
    pub lent: Vec<LentWait>,
    /// How many shards there are.
    pub shards: usize,
    /// What the shard counts about itself.
    pub counters: ShardCounters,
    /// Logins that came to nothing here.
    pub login_failures: LoginFailures,
    /// Who waits before his next proof is judged.
    pub penalties: Penalties,
    /// New commands are refused.
    pub quiescing: bool,
    /// When the state of the next lost connection is discarded, or earlier.
    pub lost_until: Moment,
    /// When a connection is given up that does not acknowledge what a fence waits for, or earlier.
    pub fenced_until: Moment,
    /// Sessions of which nobody is connected and something is kept, the earliest first, and some that were such.
    abandoned: VecDeque<Key<Session>>,
    /// Whether latencies are recorded.
    pub measures: bool,
    arena_bytes: u64,
    next_serial: u64,
    released: bool,
    /// Counts the times that those who wait were let try again.
    round: u64,
    /// Who tries again now.
    feeding: Option<Key<Task>>,
    spare_starved: VecDeque<Key<Task>>,
    /// A chunk that nothing but the copy of a WRITE's piece may take, when there is none else: data lie as they came, each
    /// byte in a chunk of its own at worst, so that what a WRITE has may be all there is.
    last_chunk: Option<Buffer>,
    gathering: Gathering,
    /// What tokens that were made here are known by, once there are any.
    seal: Option<tokens::Seal>,
}

const _: () = assert!(PIECE_BYTES_MAX <= Class::Large.bytes(), "a piece fits into the last chunk");

/// Lines of the log that peers may cause in a tenth of a second: who is wrong a million times is told of a few times.
pub const COMPLAINTS_PER_TICK: u32 = 5;

/// Sessions of one shard that wait for an initiator of which nothing is connected: no descriptor bounds them, and the time that
/// they wait is up to their initiators (§13.15). The one that has waited longest gives way.
pub const ABANDONED_MAX: usize = 256;

/// A connection that has waited for what the one of its CID had at media.
#[derive(Debug)]
pub struct Joiner {
    /// What it joins.
    pub session: Key<Session>,
    /// Its login.
    pub question: Box<LoginQuestion>,
    /// Why it does not, if it does not.
    pub refused: Option<LoginStatus>,
}

impl<D: Driver> Core<D> {
    /// Whether what a peer did is worth a line of the log, now.
    pub fn may_complain(&mut self) -> bool {
        let left = self.complaints_left;
        self.complaints_left = left.saturating_sub(1);
        left > 0
    }

    /// An empty shard, alone in its process.
    pub fn new(shard: ShardId, driver: D, arena: ArenaOptions, configuration: Arc<Configuration>) -> Self {
        Self {
            peer_mail: PeerMail::new(shard),
            lent: Vec::new(),
            shards: 1,
            shard,
            last_chunk: driver.arena().take(Class::Large),
            gathering: Gathering::new(arena.total_bytes()),
            seal: None,
            driver,
            now: Moment::ORIGIN,
            configuration,
            sessions: Slab::with_capacity(64),
            session_keys: BTreeMap::new(),
            tasks: Slab::with_capacity(1024),
            units: Slab::with_capacity(64),
            unit_keys: BTreeMap::new(),
            ops: Slab::with_capacity(4096),
            managements: Slab::with_capacity(16),
            budget: Budget::new(arena.total_bytes()),
            pool: Pool::default(),
            starved: VecDeque::with_capacity(1024),
            task_sets_due: Vec::new(),
            to_flush: Vec::with_capacity(256),
            speaker: Key::nobody(),
            company_until: Moment::ORIGIN,
            longest_message: usize::MAX,
            complaints_left: COMPLAINTS_PER_TICK,
            thirsty: Vec::new(),
            unsent: Vec::new(),
            failed_flushes: Vec::new(),
            answers: Answers::with_capacity(PDUS_PER_TURN),
            at_work: Vec::with_capacity(64),
            flushes_due: Vec::new(),
            works_due: Vec::new(),
            works_stalled: Vec::new(),
            ending: Vec::new(),
            joining: Vec::new(),
            seated: 0,
            outbox: VecDeque::with_capacity(1024),
            counters: ShardCounters::default(),
            login_failures: LoginFailures::default(),
            penalties: Penalties::default(),
            quiescing: false,
            lost_until: Moment::NEVER,
            fenced_until: Moment::NEVER,
            abandoned: VecDeque::new(),
            measures: true,
            arena_bytes: arena.total_bytes(),
            next_serial: 0,
            released: false,
            round: 0,
            feeding: None,
            spare_starved: VecDeque::with_capacity(1024),
        }
    }

    /// A number that this shard gives out once.
    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Puts an entry into the list of a session's connection, with a fence around it where it wants one.
    pub fn list(&mut self, session_key: Key<Session>, seat: Seat, entry: Outgoing) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if session.wire.parameters().fences_responses() {
            return match self.is_fenced(session_key, &entry) {
                true => self.list_fenced(session_key, seat, entry),
                false => self.enlist(session_key, seat, entry),
            };
        }
        if let Some(link) = session.link_mut(seat) {
            put(link, entry, &mut self.to_flush);
        }
    }

    fn enlist(&mut self, session: Key<Session>, seat: Seat, entry: Outgoing) {
        let link = self.sessions.get_mut(session).and_then(|session| session.link_mut(seat));
        if let Some(link) = link {
            put(link, entry, &mut self.to_flush);
        }
    }

    /// Puts the answer to a request into the list of its connection (RFC 7143 §4.2.5.1).
    pub fn answer(&mut self, session: Key<Session>, name: TaskId, entry: Outgoing) {
        let seat = self.sessions.get(session).map(|session| session.wire.seat_of_task(name));
        if let Some(seat) = seat {
            self.list(session, seat, entry);
        }
    }

    /// The same for an answer that is rare.
    ///
    /// # Panics
    /// When it answers nothing.
    pub fn answer_rare(&mut self, session: Key<Session>, rare: Rare) {
        let name = rare.request().expect("an answer has a request");
        self.answer(session, name, Outgoing::Rare(Box::new(rare)));
    }

    /// Puts a rare PDU that answers no request into the list of a connection.
    pub fn list_rare(&mut self, session: Key<Session>, seat: Seat, rare: Rare) {
        self.list(session, seat, Outgoing::Rare(Box::new(rare)));
    }

    /// Makes a task of the request of this name, before it is its turn.
    ///
    /// # Panics
    /// When the session gives out names beyond its bound.
    pub fn arrive(&mut self, session_key: Key<Session>, name: TaskId) -> Key<Task> {
        let (key, task) = self.tasks.renew(Task::blank);
        task.begin(session_key, name, self.now);
        let session = self.sessions.get_mut(session_key).expect("a command has a session");
        let place = session.tasks.get_mut(name.slot()).expect("a name is below the session's bound");
        *place = Some(key);
        key
    }

    /// Data-Out of a task, in the order of its bytes. Not wanted any more where the task has ended.
    pub fn data(&mut self, key: Key<Task>, buffer: Buffer) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.ended.is_none() && !task.aborted && !task.is_refused {
            task.progressed = self.now;
            task.inflow_bytes += buffer.len();
            task.inflow.push_back(buffer);
        }
    }

    /// The task ends like this: its status goes out when nothing of it is at the medium any more, and the data that the
    /// initiator was going to send for it has come.
    pub fn finish(&mut self, key: Key<Task>, mut outcome: Outcome) {
        self.stop_waiting(key);
        if let Some(Task { work: Work::Copy(_), ended: None, name, .. }) = self.tasks.get(key) {
            let is_behind = *name == TaskId::NOBODY;
            outcome = self.end_copy(key, outcome);
            if is_behind {
                return self.finish_behind(key, outcome);
            }
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.ended.is_none() && task.flush_due && outcome == Outcome::GOOD {
            return self.flush_before_good(key);
        }
        if task.ended.is_none() {
            task.ended = Some(outcome);
            task.inflow.clear();
            task.inflow_bytes = 0;
            let session = self.sessions.get_mut(task.session).expect("a task has a session");
            if session.wire.is_live(task.name) {
                session.wire.discard_data(task.name);
            }
            self.unshelve(key);
            self.gathered(key);
            if outcome.status == Status::CheckCondition {
                self.fault(key);
            }
        }
        self.settle(key);
    }

    /// Lets a task go on whose pieces may all be back: sends its status, or lets go of it where it was aborted.
    fn settle(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.at_medium > 0 {
            return;
        }
        if let Work::Atomic(atomic) = &task.work
            && atomic.claim.is_some()
            && (task.aborted || task.ended.is_some())
        {
            self.give_back_claim(key);
            return self.settle(key);
        }
        if task.aborted && task.is_behind() {
            self.release_behind(key);
        } else if task.aborted {
            self.release(key);
        } else if task.ended.is_some() && !task.listed {
            let session = self.sessions.get(task.session).expect("a task has a session");
            if session.wire.progress(task.name).is_settled {
                task.listed = true;
                let (session, name) = (task.session, task.name);
                self.answer(session, name, Outgoing::Status(key));
            }
        }
    }

    /// Lets go of a task: its memory, its place in its session and unit. Whoever waited for it hears of it.
    fn release(&mut self, key: Key<Task>) {
        if let Some(Task { work: Work::Copy(_), ended: None, .. }) = self.tasks.get(key) {
            self.end_copy(key, Outcome::TASK_ABORTED);
        }
        self.gathered(key);
        let Some(task) = self.tasks.get(key) else { return };
        if task.waits.is_some() || task.booked_bytes > 0 || task.early_bytes > 0 {
            self.stop_waiting(key);
            self.unbook_all(key);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let awaited_by = std::mem::take(&mut task.awaited_by);
        if let Work::Parked(ticket) = task.work {
            self.outbox.push_back(ToControl::Withdraw { shard: self.shard, ticket });
        }
        if matches!(task.work, Work::Atomic(_))
            && let Work::Atomic(atomic) = std::mem::replace(&mut task.work, Work::None)
        {
            self.pool.keep_atomic(atomic);
        }
        task.end();
        let Task { session: session_key, name, lun, unit, aborted, .. } = *task;
        self.tasks.leave(key);
        self.released = true;
        let mut closing = Closing::No;
        if let Some(unit) = unit.and_then(|unit| self.units.get_mut(unit)) {
            unit.tasks -= 1;
            closing = unit.closing;
        }
        if let Some(session) = self.sessions.get_mut(session_key) {
            if aborted {
                // Its place in the window may be the one that the initiator waits for.
                self.to_flush.extend(session.speaker(session.wire.seat_of_task(name)));
            }
            if let Some(lun) = lun.and_then(|at| session.luns.get_mut(at)) {
                lun.tasks -= 1;
                if lun.set.is_restrained() && lun.set.leave(key, session.wire.command(name).attribute) {
                    self.task_sets_due.push(session_key);
                }
            }
            session.wire.retire(name);
            if let Some(place) = session.tasks.get_mut(name.slot()).filter(|place| **place == Some(key)) {
                *place = None;
            }
        }
        for management in awaited_by {
            self.management_task_done(management);
        }
        if let Some(unit) = unit.filter(|_| closing != Closing::No) {
            self.close_if_idle(unit);
        }
    }

    /// Records a task whose status has been handed to the connection.
    #[inline]
    fn record(&mut self, record: &Record) {
        let Some(unit) = record.unit.and_then(|unit| self.units.get_mut(unit)) else { return };
        let Times { arrived, handed, back } = record.times;
        let total_ns = self.now.nanoseconds_since(arrived);
        if self.measures {
            unit.furnish(record.operation);
            let at_medium_ns = handed.map(|handed| back.unwrap_or(self.now).nanoseconds_since(handed));
            let waited_ns = handed.map(|handed| handed.nanoseconds_since(arrived));
            unit.note(record.operation, Lasted { waited_ns, at_medium_ns, total_ns }, 1);
        }
        let meter = unit.meter.operation(record.operation);
        meter.commands += 1;
        match record.ended {
            Some(outcome) if outcome.status == Status::CheckCondition => {
                let attention = outcome.sense.is_some_and(|sense| sense.key == SenseKey::UnitAttention);
                meter.errors += u64::from(!attention);
            }
            _ => meter.bytes += record.moved_bytes,
        }
        if self.measures {
            meter.total_ns += total_ns;
        }
    }

    /// The ticket by which control's answer finds a task.
    fn ticket_of(key: Key<Task>) -> Ticket {
        Ticket(key.to_bits())
    }
}

/// What the histograms keep of a task.
struct Record {
    unit: Option<Key<Unit>>,
    operation: Operation,
    times: Times,
    ended: Option<Outcome>,
    moved_bytes: u64,
}

/// Puts an entry into the list of a connection, which is to send it.
fn put(link: &mut Link, entry: Outgoing, to_flush: &mut Vec<Key<Connection>>) {
    if link.is_lost() {
        // What is due of its commands is said when they are reassigned.
        if matches!(entry, Outgoing::DataIn(_) | Outgoing::Status(_)) {
            link.outgoing.push_back(entry);
        }
        return;
    }
    link.outgoing.push_back(entry);
    if !link.flush_listed {
        link.flush_listed = true;
        to_flush.push(link.connection);
    }
}
