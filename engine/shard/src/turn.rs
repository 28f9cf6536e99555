//! The turn: one pass of a shard's loop.
//!
//! Mail from control first, then completions, then the connections that got bytes, then what they and the media left to
//! send, then one call into the kernel that submits everything and waits. What control has said is therefore in force
//! before a byte is looked at that came later.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use portico_backstores::Medium;
use portico_iscsi::moment::Moment;
use portico_model::configuration::Configuration;
use portico_model::identity::ShardId;
use portico_model::message::{EndReason, ToControl, ToShard};
use portico_model::peer::PeerLetter;
use portico_ring::{ArenaOptions, Completion, Errno, Fd, Payload, Wait};

use crate::connection::{Connection, Phase};
use crate::core::{COMPLAINTS_PER_TICK, Core};
use crate::driver::Driver;
use crate::logins::logins_max;
use crate::slab::{Key, Slab};
use crate::tag::{self, Kind};

/// Mail for a shard, as control sends it.
pub type Mail = ToShard<Medium>;

/// The two ends of a shard's mail, whatever carries it.
pub trait Mailbox {
    /// The next letter from control.
    fn receive(&mut self) -> Option<Mail>;
    /// Hands a letter to control's queue; gives it back where the queue has no room now.
    ///
    /// # Errors
    /// The letter.
    fn send(&mut self, letter: ToControl) -> Result<(), Box<ToControl>>;
    /// Hands a letter to another shard's queue, likewise.
    ///
    /// # Errors
    /// The letter.
    fn tell(&mut self, shard: ShardId, letter: PeerLetter) -> Result<(), PeerLetter>;
}

/// Letters that one turn opens.
const LETTERS_PER_TURN: usize = 64;
/// Completions that one turn handles before it sends what came of them.
const COMPLETIONS_PER_TURN: usize = 512;
/// Messages that one turn sends: where thousands have something to hear at once, so many messages are made and no more.
const MESSAGES_PER_TURN: usize = 256;
/// The longest that a turn sleeps, so that timers of any kind are at most so late.
const SLEEP_MS_MAX: u64 = 200;
/// Connections that a shard accepts in a tenth of a second: a flood of them leaves the processor to those that are there. 10,000
/// initiators that come at once are all there after seven seconds, divided by the number of shards.
const ACCEPTS_PER_TICK: u32 = 150;
/// How long a shutdown waits for commands in hand before their connections are closed.
const QUIESCE_PATIENCE_S: u64 = 10;
/// How long a shutdown gives initiators to log out that were asked to.
pub(crate) const LOGOUT_PATIENCE_S: u16 = 2;
/// How long a turn sleeps that has letters for which control had no room.
const SLEEP_MS_FULL: u64 = 1;

/// How a shard is set up.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which one it is.
    pub shard: ShardId,
    /// How many there are.
    pub shards: usize,
    /// Its memory.
    pub arena: ArenaOptions,
    /// How long a turn watches for work before it sleeps.
    pub spin: Duration,
    /// Whether latencies are recorded.
    pub measures: bool,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// The loop goes on.
    On,
    /// Control said stop.
    Stopped,
}

/// One shard.
pub struct Shard<D, M> {
    pub(crate) core: Core<D>,
    pub(crate) mailbox: M,
    pub(crate) connections: Slab<Connection>,
    /// Connections to advance in this turn.
    pub(crate) ready: Vec<Key<Connection>>,
    listeners: BTreeMap<u32, Listener>,
    next_listener: u32,
    accepts_due: Vec<u32>,
    quiesce: Quiesce,
    quiesce_until: Moment,
    /// Until when a shutdown waits for initiators to log out.
    leave_until: Moment,
    spin: Duration,
    next_tick: Moment,
    /// When it is looked next at what initiators owe.
    pub(crate) next_dunning: Moment,
    /// Connections that are accepted before the next tick.
    accepts_left: u32,
    /// Connections that may be there without having logged in.
    pub(crate) logins_max: usize,
    spare_connections: Vec<Key<Connection>>,
    /// Those that could rest, and since when they are quiet: empty but for the moment in which they are chosen from.
    pub(crate) quiet: Vec<(Moment, Key<Connection>)>,
}

/// How far a shard's shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiesce {
    No,
    Finishing,
    Flushing,
    Done,
}

struct Listener {
    fd: Fd,
    socket: Arc<OwnedFd>,
}

impl<D: Driver, M: Mailbox> Shard<D, M> {
    /// A shard that knows nothing but its configuration's beginning.
    pub fn new(settings: Settings, driver: D, mailbox: M) -> Self {
        let configuration = Arc::new(Configuration::default());
        let mut core = Core::new(settings.shard, driver, settings.arena, configuration);
        core.measures = settings.measures;
        core.shards = settings.shards;
        Self {
            core,
            mailbox,
            connections: Slab::with_capacity(64),
            ready: Vec::with_capacity(256),
            listeners: BTreeMap::new(),
            next_listener: 0,
            accepts_due: Vec::new(),
            quiesce: Quiesce::No,
            quiesce_until: Moment::NEVER,
            leave_until: Moment::NEVER,
            spin: settings.spin,
            next_tick: Moment::ORIGIN,
            next_dunning: Moment::ORIGIN,
            accepts_left: ACCEPTS_PER_TICK,
            logins_max: logins_max(settings.arena),
            spare_connections: Vec::with_capacity(256),
            quiet: Vec::new(),
        }
    }

    /// Runs until control says stop.
    ///
    /// # Errors
    /// When the ring is beyond repair.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? == Turned::On {}
        Ok(())
    }

    /// One pass, sleeping at its end until there is something to do.
    ///
    /// # Errors
    /// When the ring is beyond repair.
    pub fn turn(&mut self) -> io::Result<Turned> {
        self.core.now = self.core.driver.now();
        self.core.counters.turns += 1;
        self.core.answers.begin_turn();
        if self.open_letters() == Turned::Stopped {
            return Ok(Turned::Stopped);
        }
        self.take_completions();
        self.core.reap_media();
        self.advance_ready();
        self.take_in_those_that_join();
        self.core.feed_starved();
        self.core.flush_for_installs();
        self.core.go_on_with_work();
        if !self.core.lent.is_empty() {
            self.core.settle_lent(&self.connections);
        }
        self.tick();
        self.flush();
        self.end_those_that_end();
        self.answer_quiesce();
        let room = self.send_letters();
        let wait = self.wait(room);
        self.core.driver.turn(wait, self.spin)?;
        Ok(Turned::On)
    }

    fn wait(&self, room: bool) -> Wait {
        if !self.ready.is_empty() || self.core.is_hungry() || self.core.has_something_due() {
            Wait::Poll
        } else if room {
            Wait::Until(Duration::from_millis(SLEEP_MS_MAX))
        } else {
            Wait::Until(Duration::from_millis(SLEEP_MS_FULL))
        }
    }

    // --- Mail --------------------------------------------------------------------------------------------------

    fn open_letters(&mut self) -> Turned {
        for _ in 0..LETTERS_PER_TURN {
            let Some(letter) = self.mailbox.receive() else { break };
            if self.open_letter(letter) == Turned::Stopped {
                return Turned::Stopped;
            }
        }
        Turned::On
    }

    fn open_letter(&mut self, letter: Mail) -> Turned {
        match letter {
            ToShard::Configure(configuration) => {
                self.core.login_failures.retain(|name| configuration.target(name).is_some());
                self.core.configuration = configuration;
                self.core.renumber_ports();
            }
            ToShard::Listen(sockets) => self.listen(sockets),
            ToShard::Open(opening) => {
                self.core.open_unit(&opening);
                self.core.note_alignments();
            }
            ToShard::Install(install) => self.core.install(&install),
            ToShard::Work { unit, work } => self.core.begin_work(unit, work),
            ToShard::Close(unit) => self.core.close_unit(unit),
            ToShard::Adopt(adoption) => self.adopt(*adoption),
            ToShard::Join { session, question } => self.join(session, question),
            ToShard::Refuse(refusal) => self.refuse(*refusal),
            ToShard::Changed { ticket, outcome } => self.core.changed(ticket, outcome),
            ToShard::Remap { session, map } => self.core.remap(session, map),
            ToShard::EndSession { session, reason } => {
                if let Some(&key) = self.core.session_keys.get(&session) {
                    self.end_by_order(key, reason);
                }
            }
            ToShard::CollectMeters(spare) => self.core.collect_meters(spare),
            ToShard::Quiesce => {
                self.core.quiescing = true;
                self.core.expire_lost(true);
                self.quiesce = Quiesce::Finishing;
                self.quiesce_until = self.core.now + Duration::from_secs(QUIESCE_PATIENCE_S);
                self.leave_until = self.core.now + Duration::from_secs(LOGOUT_PATIENCE_S.into());
                self.listen(Vec::new());
                self.ask_for_logouts();
            }
            ToShard::Stop => return Turned::Stopped,
            ToShard::Peer(letter) => self.core.hear_peer(letter),
        }
        Turned::On
    }

    /// Sends what is in the outbox; tells whether control's queue had room for all of it.
    fn send_letters(&mut self) -> bool {
        while let Some(letter) = self.core.outbox.pop_front() {
            if let Err(letter) = self.mailbox.send(letter) {
                self.core.outbox.push_front(*letter);
                return false;
            }
        }
        while let Some((shard, letter)) = self.core.peer_mail.letters.pop_front() {
            if let Err(letter) = self.mailbox.tell(shard, letter) {
                self.core.peer_mail.letters.push_front((shard, letter));
                return false;
            }
        }
        true
    }

    /// The shutdown, step by step: commands in hand end, then media are flushed, then control hears of it.
    fn answer_quiesce(&mut self) {
        if matches!(self.quiesce, Quiesce::No | Quiesce::Done) {
            return;
        }
        if self.quiesce == Quiesce::Finishing && !self.core.is_idle() && self.quiesce_until <= self.core.now {
            // Who sends no data, or reads no status, does not keep the others' writes from the medium.
            self.close_all(EndReason::Shutdown);
            self.core.expire_lost(true);
        }
        // Initiators that leave when they are asked to have nothing to recover from.
        let have_left = self.leave_until <= self.core.now || !self.has_normal_sessions();
        if self.quiesce == Quiesce::Finishing && self.core.is_idle() && have_left {
            self.announce_drops();
            self.core.flush_everything();
            self.quiesce = Quiesce::Flushing;
        }
        let has_said_all = self.quiesce_until <= self.core.now || self.has_said_all();
        if self.quiesce == Quiesce::Flushing && self.core.is_idle() && has_said_all {
            self.quiesce = Quiesce::Done;
            let failed_flushes = std::mem::take(&mut self.core.failed_flushes);
            let shard = self.core.shard;
            self.core.outbox.push_back(ToControl::Quiesced { shard, failed_flushes });
        }
    }

    // --- Listening sockets -------------------------------------------------------------------------------------

    /// Accepts on exactly these sockets from now on.
    fn listen(&mut self, sockets: Vec<Arc<OwnedFd>>) {
        let gone: Vec<u32> = self
            .listeners
            .iter()
            .filter(|(_, listener)| !sockets.iter().any(|socket| Arc::ptr_eq(socket, &listener.socket)))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            if let Some(listener) = self.listeners.remove(&index) {
                self.core.driver.close(listener.fd);
            }
        }
        for socket in sockets {
            if self.listeners.values().any(|listener| Arc::ptr_eq(&socket, &listener.socket)) {
                continue;
            }
            let fd = socket.try_clone().map_err(|error| error.to_string()).and_then(|socket| {
                self.core.driver.adopt(socket).map_err(|_| "too many files on the shard".to_owned())
            });
            match fd {
                Ok(fd) => {
                    let index = self.next_listener;
                    self.next_listener += 1;
                    self.listeners.insert(index, Listener { fd, socket });
                    self.accept_on(index);
                }
                Err(error) => tracing::error!(error, "a portal is not accepted on by this shard"),
            }
        }
    }

    fn accept_on(&mut self, index: u32) {
        let Some(listener) = self.listeners.get(&index) else { return };
        if self.core.driver.accept(listener.fd, tag::of_accept(index)).is_err() {
            self.accepts_due.push(index);
        }
    }

    fn accepted(&mut self, index: u32, completion: Completion) {
        if let Payload::Accepted(socket) = completion.payload {
            self.core.counters.accepted += 1;
            self.greet(socket);
            if self.accepts_left == 1 {
                // The others wait in the kernel's line.
                for index in self.listeners.keys() {
                    self.core.driver.cancel(tag::of_accept(*index));
                }
            }
            self.accepts_left = self.accepts_left.saturating_sub(1);
        } else if let Err(error) = completion.result {
            let is_out = matches!(error, Errno::TOO_MANY_FILES | Errno::TOO_MANY_FILES_IN_ALL);
            if is_out && self.core.may_complain() {
                tracing::warn!("no descriptor is left for another connection: raise the limit of open files");
            }
        }
        if !completion.more {
            // Out of descriptors, perhaps: not again at once.
            self.accepts_due.push(index);
        }
    }

    // --- Completions -------------------------------------------------------------------------------------------

    fn take_completions(&mut self) {
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.core.driver.next_completion() else { return };
            self.take_completion(completion);
        }
    }

    fn take_completion(&mut self, completion: Completion) {
        if matches!(completion.payload, Payload::Woken) {
            return;
        }
        match Kind::of(completion.tag) {
            Kind::Accept(index) => self.accepted(index, completion),
            Kind::Receive(key) => self.received(key, completion),
            Kind::Send(key) => self.sent(key, completion),
            Kind::Medium { unit_index, slot } => {
                let result = completion.result.map_err(|errno| errno.0);
                let segments = match completion.payload {
                    Payload::Segments(segments) => Some(segments),
                    _ => None,
                };
                self.core.medium_completed(unit_index, slot, result, segments);
            }
        }
    }

    fn received(&mut self, key: Key<Connection>, completion: Completion) {
        let Payload::Segments(mut list) = completion.payload else { return };
        let Some(connection) = self.connections.get_mut(key) else {
            self.core.pool.keep_receive_list(list);
            return;
        };
        connection.receiving = false;
        let was_recalled = std::mem::take(&mut connection.recalled);
        match completion.result {
            Ok(bytes) if bytes > 0 => {
                connection.heard_at = self.core.now;
                self.core.counters.received_bytes += u64::from(bytes);
                connection.inbound.fill(&mut list, bytes as usize);
                self.core.counters.copied_bytes += connection.inbound.copied_bytes();
                if let Some((session, seat)) = connection.place()
                    && let Some(session) = self.core.sessions.get_mut(session)
                {
                    session.wire.heard(seat, self.core.now);
                }
                self.make_ready(key);
            }
            Err(Errno::CANCELED) if was_recalled => {
                list.clear();
                connection.inbound.rest();
                self.make_ready(key);
            }
            Ok(_) | Err(_) => {
                list.clear();
                self.close(key, EndReason::ConnectionLost);
            }
        }
        self.core.pool.keep_receive_list(list);
    }

    fn sent(&mut self, key: Key<Connection>, completion: Completion) {
        let Payload::Message(message) = completion.payload else { return };
        self.core.pool.keep_message(message);
        self.core.note_released();
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.sending = false;
        match completion.result {
            Ok(bytes) => {
                self.core.counters.sent_bytes += u64::from(bytes);
                self.core.to_flush.push(key);
                let goes_on = matches!(connection.phase, Phase::Login(_));
                if std::mem::take(&mut connection.stalled) || goes_on {
                    self.make_ready(key);
                }
                self.leave_if_still(key);
            }
            Err(_) => self.close(key, EndReason::ConnectionLost),
        }
    }

    /// Puts a connection on the list of those that have something to understand.
    pub(crate) fn make_ready(&mut self, key: Key<Connection>) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.listed
        {
            connection.listed = true;
            self.ready.push(key);
        }
    }

    fn advance_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        std::mem::swap(&mut self.ready, &mut self.spare_connections);
        for key in ready.drain(..) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.listed = false;
                self.advance(key);
                self.send_answers(key);
                self.arm(key);
            }
        }
        // What was made ready meanwhile waits for the next turn: nobody has the shard for himself.
        self.spare_connections = ready;
    }

    /// Arms the next receive.
    pub(crate) fn arm(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.wants_bytes() || connection.listed || connection.stalled || connection.is_tired {
            return;
        }
        let mut aligned = false;
        if let Some((session, seat)) = connection.place()
            && let Some(session) = self.core.sessions.get_mut(session)
        {
            aligned = session.wants_aligned;
            if session.link_mut(seat).is_some_and(|link| std::mem::take(&mut link.asks_for_data)) {
                connection.inbound.expect_large_data();
            }
        }
        let expected = connection.expectation(aligned);
        let little = connection.inbound.plans_little(expected);
        let pool = &mut self.core.pool;
        let mut list = if little { pool.short_receive_list() } else { pool.receive_list() };
        connection.inbound.plan(self.core.driver.arena(), expected, &mut list);
        self.core.counters.copied_bytes += connection.inbound.copied_bytes();
        if list.length_bytes() == 0 {
            // No memory at all: it tries again when some has come back.
            self.core.pool.keep_receive_list(list);
            self.core.thirsty.push(key);
            return;
        }
        connection.receiving = true;
        if let Err(full) = self.core.driver.receive(connection.fd, tag::of_receive(key), list) {
            connection.receiving = false;
            self.core.pool.keep_receive_list(full.0);
            self.core.thirsty.push(key);
        }
    }

    // --- Sending -----------------------------------------------------------------------------------------------

    fn flush(&mut self) {
        // Time has passed since the turn began; a command that was served within it took some of it.
        self.core.now = self.core.driver.now();
        self.core.to_flush.append(&mut self.core.unsent);
        let mut list = std::mem::take(&mut self.core.to_flush);
        std::mem::swap(&mut self.core.to_flush, &mut self.spare_connections);
        for key in list.drain(..list.len().min(MESSAGES_PER_TURN)) {
            self.flush_one(key);
        }
        // The rest is first in the next turn.
        list.append(&mut self.core.to_flush);
        std::mem::swap(&mut self.core.to_flush, &mut list);
        self.spare_connections = list;
        let mut thirsty = std::mem::take(&mut self.core.thirsty);
        for key in thirsty.drain(..) {
            self.arm(key);
        }
        if self.core.thirsty.is_empty() {
            self.core.thirsty = thirsty;
        }
    }

    /// Sends what a connection was answered while it was understood, and what else it has to say.
    fn send_answers(&mut self, key: Key<Connection>) {
        if self.core.answers.is_empty() {
            return;
        }
        // As in `flush`.
        self.core.now = self.core.driver.now();
        self.core.record_answers();
        self.flush_one(key);
        if let Some(message) = self.core.answers.take() {
            // The connection is gone.
            self.core.pool.keep_message(message);
        }
    }

    fn flush_one(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.sending {
            // What is listed meanwhile goes with the next one.
            if let Some((session, seat)) = connection.place() {
                self.core.note_flushed(session, seat);
            }
            return;
        }
        self.core.note_speaker(key);
        let mut message = self.core.answers.take().unwrap_or_else(|| self.core.pool.message());
        connection.fill_replies(&mut message);
        let place = connection.place();
        if let Some((session, seat)) = place {
            self.core.emit(session, seat, &mut message);
        }
        if message.is_empty() {
            self.core.pool.keep_message(message);
            self.core.note_unsent(key, place);
            self.close_if_through(key);
            return;
        }
        connection.sending = true;
        connection.sent_at = self.core.now;
        if let Err(full) = self.core.driver.send(connection.fd, tag::of_send(key), message) {
            connection.sending = false;
            self.core.pool.keep_message(full.0);
            // What was to be sent is lost with the message: so is the connection.
            self.close(key, EndReason::ConnectionLost);
        }
    }

    // --- Time --------------------------------------------------------------------------------------------------

    fn tick(&mut self) {
        if self.core.now < self.next_tick {
            return;
        }
        self.next_tick = self.core.now + Duration::from_millis(SLEEP_MS_MAX / 2);
        self.core.complaints_left = COMPLAINTS_PER_TICK;
        self.accepts_left = ACCEPTS_PER_TICK;
        self.core.expire_lost(false);
        self.core.expire_managements();
        self.core.expire_fenced();
        self.core.expire_announcements();
        self.core.expire_tokens();
        self.core.compact_inflows();
        self.expire_connections();
        self.rest_early();
        self.expire_debts();
        self.expire_segments();
        for index in std::mem::take(&mut self.accepts_due) {
            self.accept_on(index);
        }
        // Memory also comes back where nobody says so: with a connection that closed, with bytes that were skipped.
        self.core.note_released();
    }
}
