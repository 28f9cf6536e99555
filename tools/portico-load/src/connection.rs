//! One session on the ring: its slots of commands, what it sends, what comes back.
//!
//! It never waits. The worker hands in what was received and what was sent; everything that can go out then goes out in one
//! send.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::AtomicU8;

use portico_iscsi::digest::Crc32c;
use portico_iscsi::initiator::{Command, Completion, Direction, Event, Payload, Session, TargetFault};
use portico_iscsi::wire::{AsyncEvent, BHS_BYTES, Residual, ServiceResponse, TaskAttribute};
use portico_ring::{Arena, Buffer, Class, Fd, Lent, Message, MessageLimits};

use crate::inbound::{Inbound, Receiver};
use crate::ledger::Expectation;
use crate::options::Plan;
use crate::pace::Pace;
use crate::scsi::{Answer, Transfer};
use crate::tally::{Interval, LATE_NS, Tally};
use crate::unit::Unit;
use crate::verify::{self, Judgement, Reading};
use crate::workload::{Operation, Workload};

/// How often one command is sent again after BUSY, TASK SET FULL or a unit attention.
const RETRIES_MAX: u32 = 10_000;
/// What a header takes at most: BHS, AHS, padding, digests.
const HEADER_BYTES_MAX: usize = BHS_BYTES + 20 + 4 + 8;
/// Header bytes of one send, at most.
const SEND_HEADER_BYTES_MAX: usize = 64 << 10;
/// Bytes of one send, but for the rest of its last PDU: 64 blocks of 4 KiB with their headers. The kernel copies them in one
/// go, and where it does not preempt itself who else wants the processor waits for as long.
const SEND_BYTES_MAX: usize = 272 << 10;
/// Parts of one send.
const SEND_PARTS_MAX: usize = portico_ring::message::PARTS_MAX;

/// What writes that are not verified send: the same bytes each time, lent to the kernel.
pub(crate) struct Pattern {
    lent: Box<[AtomicU8]>,
    /// The same, for digests.
    bytes: Box<[u8]>,
}

impl Pattern {
    /// So many bytes that no compression makes less of.
    pub(crate) fn new(length: u32, seed: u64) -> Rc<Self> {
        let mut random = crate::random::Random::new(seed);
        let bytes: Box<[u8]> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        Rc::new(Self { lent: bytes.iter().copied().map(AtomicU8::new).collect(), bytes })
    }
}

impl AsRef<[AtomicU8]> for Pattern {
    fn as_ref(&self) -> &[AtomicU8] {
        &self.lent
    }
}

/// What all connections of a thread use.
pub(crate) struct Context<'a> {
    pub(crate) units: &'a [Unit],
    pub(crate) arena: Arena,
    pub(crate) pattern: Rc<Pattern>,
}

/// The class of the buffers that verified writes are made in, and how many of them one command takes at most.
pub(crate) fn write_buffers(plan: &Plan) -> (Class, u32) {
    let bytes = usize::try_from(plan.bytes_max()).expect("32 bits");
    let class = Class::fitting(bytes).unwrap_or(Class::Large);
    (class, u32::try_from(bytes.div_ceil(class.bytes())).expect("at most 16"))
}

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is lost: another one may do.
    Lost(String),
    /// The target broke a rule: that is a finding.
    Fault(String),
}

/// One command, or room for one. Small: with many of them, what is touched per command decides how fast it goes.
#[derive(Debug, Default)]
struct Slot {
    operation: Operation,
    /// When it was sent, or was to be sent.
    started_ns: u64,
    retries: u32,
    /// It was on its way when the warm-up ended.
    is_warm_up: bool,
    /// Of a verified run.
    check: Box<Check>,
}

/// What verification needs of a command.
#[derive(Debug, Default)]
struct Check {
    /// Of a write.
    version: u32,
    /// Of a read: when it was sent, and what its blocks may hold.
    sent_ns: u64,
    expected: Vec<Expectation>,
    /// Where a read collects its data.
    data: Vec<u8>,
    /// What a write has still to send.
    outgoing: VecDeque<Buffer>,
}

/// One session, which may be without its connection for a while.
pub(crate) struct Connection {
    /// The session's number in the run.
    pub(crate) number: u32,
    /// Of the context's units.
    pub(crate) unit: usize,
    pub(crate) fd: Fd,
    session: Session,
    inbound: Inbound,
    /// The connection is there.
    is_up: bool,
    /// `None` while it is being sent.
    message: Option<Message>,
    slots: Box<[Slot]>,
    idle: Vec<u16>,
    /// To be sent again.
    again: Vec<u16>,
    workload: Workload,
    /// Of an open loop.
    pace: Option<Pace>,
    /// A command's time has come and it could not be sent.
    is_barred: bool,
    /// Since when commands can be sent again.
    room_since_ns: u64,
    /// Writes that are verified, so far.
    versions: u32,
    /// The workload has nothing more.
    is_exhausted: bool,
    /// No command is sent any more, or none yet.
    is_over: bool,
    /// Commands that began before this are warm-up.
    measure_ns: u64,
    /// Commands that were answered.
    pub(crate) did: u64,
    /// When the last command ended, or the first was sent after a pause.
    last_answer_ns: u64,
    /// Why the connection is of no more use.
    pub(crate) failure: Option<Failure>,
}

impl Connection {
    /// A session of `unit` that has logged in, on the ring as `fd`.
    pub(crate) fn new(
        number: u32,
        unit: usize,
        fd: Fd,
        session: Session,
        inbound: Inbound,
        plan: &Plan,
    ) -> Self {
        let depth = usize::from(plan.depth);
        let parts = (depth * (parts_per_pdu(plan) + 1)).clamp(64, SEND_PARTS_MAX);
        let header_bytes = ((depth + 16) * HEADER_BYTES_MAX).clamp(4096, SEND_HEADER_BYTES_MAX);
        let pace =
            plan.rate.map(|rate| Pace::new(plan.arrival, rate, plan.sessions_in_all, number, plan.seed));
        Self {
            number,
            unit,
            fd,
            session,
            inbound,
            is_up: true,
            message: Some(Message::new(MessageLimits { parts, header_bytes })),
            slots: (0..depth).map(|_| Slot::default()).collect(),
            idle: (0..plan.depth).rev().collect(),
            again: Vec::with_capacity(depth),
            workload: Workload::new(plan, number),
            pace,
            is_barred: false,
            room_since_ns: 0,
            versions: 0,
            is_exhausted: false,
            is_over: true,
            measure_ns: 0,
            did: 0,
            last_answer_ns: 0,
            failure: None,
        }
    }

    /// Its half of the session, for connections that join.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Session and stream, for who logs out.
    pub(crate) fn into_parts(self) -> (Fd, Session, Inbound) {
        (self.fd, self.session, self.inbound)
    }

    /// Commands that have been sent and have no answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.slots.len() - self.idle.len() - self.again.len()
    }

    /// Whether the connection is there.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether nothing is being sent.
    pub(crate) fn has_message(&self) -> bool {
        self.message.is_some()
    }

    /// Whether nothing more will happen by itself.
    pub(crate) fn is_quiet(&self) -> bool {
        let has_nothing = self.is_over || (self.is_exhausted && self.again.is_empty());
        has_nothing && self.outstanding() == 0 && self.message.is_some()
    }

    /// Begins with the load, whose times count from `begin_ns`.
    pub(crate) fn begin(&mut self, begin_ns: u64) {
        self.is_over = false;
        if let Some(pace) = &mut self.pace {
            pace.begin(begin_ns);
        }
    }

    /// The warm-up is over: from now on it counts what is done.
    pub(crate) fn begin_measuring(&mut self, plan: &Plan, measure_ns: u64) {
        (self.did, self.measure_ns) = (0, measure_ns);
        // One that was sent after that moment, before anybody looked at the clock, is not of what it counts.
        self.slots.iter_mut().for_each(|slot| slot.is_warm_up = true);
        self.workload.limit(plan, self.number);
    }

    /// Begins to read back what was written.
    pub(crate) fn read_back(&mut self, plan: &Plan) {
        self.finish();
        self.workload.read_back(plan, self.number);
        self.pace = None;
        (self.is_over, self.is_exhausted) = (false, false);
    }

    /// The time is over: sends no more, and tells what an open loop still had to send.
    pub(crate) fn end(&mut self, tally: &mut Tally, now_ns: u64) {
        if let Some(pace) = self.pace.as_mut().filter(|_| !self.is_over && !self.is_exhausted)
            && let Some((count, first_ns)) = pace.skip(now_ns.saturating_sub(LATE_NS))
        {
            tally.lateness.unsent += count;
            tally.lateness.unsent_ns = tally.lateness.unsent_ns.max(now_ns - first_ns);
        }
        self.finish();
    }

    /// Sends no more; commands that were to be sent again are given up.
    fn finish(&mut self) {
        self.is_over = true;
        while let Some(slot) = self.again.pop() {
            self.slots[usize::from(slot)].end();
            self.idle.push(slot);
        }
    }

    /// The connection is lost, and all that was on its way with it.
    pub(crate) fn lose(&mut self, tally: &mut Tally) {
        self.is_up = false;
        let mut is_away = vec![true; self.slots.len()];
        self.idle.iter().chain(&self.again).for_each(|slot| is_away[usize::from(*slot)] = false);
        let (mut reads, mut writes) = (0, 0);
        for (number, slot) in
            (0..).zip(self.slots.iter_mut()).filter(|(number, _)| is_away[usize::from(*number)])
        {
            if self.workload.is_reading_back() {
                // What was written is to be seen, all of it.
                self.again.push(number);
                continue;
            }
            if slot.operation.is_write {
                writes += 1;
            } else {
                reads += 1;
            }
            slot.end();
            self.idle.push(number);
        }
        tally.lose(reads, writes);
    }

    /// The session has been made again.
    pub(crate) fn attach(&mut self, fd: Fd, session: Session, inbound: Inbound, now_ns: u64) {
        (self.fd, self.session, self.inbound) = (fd, session, inbound);
        (self.is_up, self.is_barred, self.last_answer_ns) = (true, true, now_ns);
    }

    /// When the next command of an open loop is to be sent, where nothing but time keeps it back.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        let is_waiting = self.is_up && !self.is_over && !self.is_exhausted && !self.is_barred;
        self.pace.as_ref().filter(|_| is_waiting).map(Pace::next_ns)
    }

    /// For how long no command has ended, where some are waited for.
    pub(crate) fn silence_ns(&self, now_ns: u64) -> u64 {
        if self.outstanding() == 0 { 0 } else { now_ns.saturating_sub(self.last_answer_ns) }
    }

    /// Takes what was received.
    pub(crate) fn received(&mut self, bytes: &[u8], context: &Context<'_>, tally: &mut Tally, now_ns: u64) {
        let mut desk = Desk {
            unit: &context.units[self.unit],
            tally,
            number: self.number,
            slots: &mut self.slots,
            idle: &mut self.idle,
            again: &mut self.again,
            now_ns,
            measure_ns: self.measure_ns,
            answered: 0,
            has_answer: false,
            is_reading_back: self.workload.is_reading_back(),
            failure: None,
        };
        let taken: Result<(), TargetFault> = self.inbound.take(bytes, &mut self.session, &mut desk);
        let (answered, has_answer, failure) = (desk.answered, desk.has_answer, desk.failure.take());
        self.did += answered;
        if has_answer {
            self.last_answer_ns = now_ns;
        }
        if let Err(fault) = taken {
            self.failure = Some(Failure::Fault(fault.to_string()));
        } else if failure.is_some() {
            self.failure = failure;
        }
    }

    /// The kernel has taken a send.
    pub(crate) fn sent(&mut self, mut message: Message) {
        message.clear();
        self.message = Some(message);
    }

    /// Submits what the window admits, and gives the next send; `None`: nothing to be sent, or one is on its way.
    pub(crate) fn next_message(
        &mut self,
        context: &Context<'_>,
        tally: &mut Tally,
        now_ns: u64,
    ) -> Option<Message> {
        if !self.is_up {
            return None;
        }
        self.submit(context, tally, now_ns);
        let mut message = self.message.take()?;
        let unit = &context.units[self.unit];
        let parts = parts_per_pdu(&unit.plan);
        let digests = self.session.digests();
        let mut bhs = [0; BHS_BYTES];
        while message.length_bytes() < SEND_BYTES_MAX && message.admits(parts, HEADER_BYTES_MAX) {
            let Some(outgoing) = self.session.next_pdu(&mut bhs) else { break };
            let ahs = outgoing.ahs();
            push(&mut message, &bhs);
            push(&mut message, ahs);
            if let Some(field) = outgoing.header_digest(&bhs, digests) {
                push(&mut message, &field);
            }
            let mut crc = (digests.data && outgoing.payload != Payload::None).then(Crc32c::new);
            match outgoing.payload {
                Payload::None => {}
                // Pings of ours have no data, and so no digest.
                Payload::Bytes(bytes) => {
                    push(&mut message, bytes);
                    crc = crc.filter(|_| !bytes.is_empty());
                }
                Payload::WriteBuffer { user, offset, length, .. } => {
                    let is_verified = unit.plan.verify;
                    let slot = &mut self.slots[index(user)];
                    slot.push_data(&mut message, context, is_verified, offset, length, &mut crc);
                }
            }
            if outgoing.padding_bytes > 0 {
                let padding = &[0; 3][..usize::try_from(outgoing.padding_bytes).expect("up to 3")];
                push(&mut message, padding);
                crc.iter_mut().for_each(|crc| crc.update(padding));
            }
            if let Some(crc) = crc {
                push(&mut message, &crc.field());
            }
        }
        if message.is_empty() {
            self.message = Some(message);
            return None;
        }
        Some(message)
    }

    fn submit(&mut self, context: &Context<'_>, tally: &mut Tally, now_ns: u64) {
        if self.outstanding() == 0 {
            self.last_answer_ns = now_ns;
        }
        let unit = &context.units[self.unit];
        while !self.is_over {
            let is_open = self.session.window().admits(self.session.next_cmd_sn());
            if self.pace.is_some() {
                self.note_room(is_open, now_ns);
            }
            if !is_open {
                return;
            }
            let Some(slot) = self.again.pop().or_else(|| self.begin_next(unit, tally, now_ns)) else {
                return;
            };
            self.slots[usize::from(slot)].prepare(context, unit, self.number);
            self.submit_slot(slot, unit);
        }
    }

    /// Of an open loop: whether a command whose time has come can go out.
    fn note_room(&mut self, is_open: bool, now_ns: u64) {
        let is_due = self.pace.as_ref().is_some_and(|pace| pace.next_ns() <= now_ns);
        let has_room = is_open && !self.idle.is_empty();
        if has_room && self.is_barred {
            self.room_since_ns = now_ns;
        }
        self.is_barred = !has_room && is_due;
    }

    /// Puts the next operation into an idle slot.
    fn begin_next(&mut self, unit: &Unit, tally: &mut Tally, now_ns: u64) -> Option<u16> {
        if self.is_exhausted {
            return None;
        }
        let due_ns = self.pace.as_ref().map_or(now_ns, Pace::next_ns);
        if due_ns > now_ns {
            return None;
        }
        let slot = self.idle.pop()?;
        let Some(operation) = self.choose(unit) else {
            self.is_exhausted = true;
            self.idle.push(slot);
            return None;
        };
        if let Some(pace) = &mut self.pace {
            pace.advance();
            tally.sent_late(now_ns - due_ns.max(self.room_since_ns).min(now_ns));
        }
        let Self { slots, versions, number, .. } = self;
        let place = &mut slots[usize::from(slot)];
        (place.operation, place.started_ns, place.retries) = (operation, due_ns, 0);
        place.is_warm_up = false;
        if unit.plan.verify {
            place.note(unit, *number, versions, now_ns);
        }
        Some(slot)
    }

    fn choose(&mut self, unit: &Unit) -> Option<Operation> {
        if self.versions == u32::MAX {
            self.failure =
                Some(Failure::Fault("2^32 verified writes are all that one session can count".to_owned()));
            return None;
        }
        let slots = &self.slots;
        // Only where versions are counted does it matter that two writes do not meet.
        let is_being_written = |write: &Operation| {
            let meets = |slot: &Slot| slot.operation.is_write && slot.operation.meets(write);
            unit.plan.verify && slots.iter().any(meets)
        };
        self.workload.next(&unit.plan, unit.ledger.as_ref(), is_being_written)
    }

    fn submit_slot(&mut self, slot: u16, unit: &Unit) {
        let Operation { is_write, block, length } = self.slots[usize::from(slot)].operation;
        let bytes = length * unit.plan.block_bytes;
        let transfer = Transfer::new(is_write, unit.plan.lba(block), bytes / unit.plan.geometry.block_bytes);
        let command = Command {
            lun: unit.lun,
            cdb: transfer.cdb(),
            direction: if is_write { Direction::Write } else { Direction::Read },
            expected_length: bytes,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user: u64::from(slot),
        };
        let tag = self.session.submit(&command);
        assert!(tag.is_some(), "the window is open, and the session has as many slots as there are here");
    }
}

/// Parts that one PDU of a write can take: its header, the buffers that its data lies in, padding.
fn parts_per_pdu(plan: &Plan) -> usize {
    let (_, buffers) = write_buffers(plan);
    usize::try_from(buffers).expect("at most 16") + 3
}

fn push(message: &mut Message, bytes: &[u8]) {
    if !bytes.is_empty() {
        message.push_header(bytes.len()).expect("there is room").copy_from_slice(bytes);
    }
}

fn index(user: u64) -> usize {
    usize::try_from(user).expect("made from a slot's number")
}

impl Slot {
    /// Whether it counts in what is measured from that time on.
    fn is_measured(&self, measure_ns: u64) -> bool {
        self.started_ns >= measure_ns && !self.is_warm_up
    }

    /// The command has ended, or was given up.
    fn end(&mut self) {
        self.operation.is_write = false;
    }

    /// Notes what is promised of the blocks of a verified command, before it is sent.
    fn note(&mut self, unit: &Unit, session: u32, versions: &mut u32, now_ns: u64) {
        let Some(ledger) = &unit.ledger else { return };
        let blocks = self.operation.blocks();
        if self.operation.is_write {
            *versions += 1;
            self.check.version = *versions;
            blocks.for_each(|block| ledger.issue(session, block, *versions));
        } else {
            let bytes = self.bytes(&unit.plan);
            let Check { sent_ns, expected, data, .. } = &mut *self.check;
            *sent_ns = now_ns;
            expected.clear();
            expected.extend(blocks.map(|block| ledger.expect(session, block)));
            data.resize(bytes, 0);
        }
    }

    /// Bytes of the command.
    fn bytes(&self, plan: &Plan) -> usize {
        usize::try_from(self.operation.length * plan.block_bytes).expect("32 bits")
    }

    /// Makes the data of a verified write, also of one that is sent again.
    fn prepare(&mut self, context: &Context<'_>, unit: &Unit, session: u32) {
        let Some(ledger) = &unit.ledger else { return };
        if !self.operation.is_write {
            // What a read that is sent again does not bring shall not be taken from the last one.
            self.check.data.fill(0);
            return;
        }
        let (block, mut left) = (self.operation.block, self.bytes(&unit.plan));
        let Check { version, outgoing, .. } = &mut *self.check;
        outgoing.clear();
        let (class, _) = write_buffers(&unit.plan);
        let mut skip = 0;
        while left > 0 {
            let mut buffer = context.arena.take(class).expect("there are twice as many as commands");
            buffer.truncate(left);
            verify::stamp(&unit.plan, ledger.run, session, block, *version, &mut buffer, skip);
            left -= buffer.len();
            skip += buffer.len() as u64;
            outgoing.push_back(buffer);
        }
    }

    /// Appends a range of the command's data, which is asked for in order (RFC 7143 §13.19).
    fn push_data(
        &mut self,
        message: &mut Message,
        context: &Context<'_>,
        is_verified: bool,
        offset: u32,
        length: u32,
        crc: &mut Option<Crc32c>,
    ) {
        let mut left = usize::try_from(length).expect("32 bits");
        if !is_verified {
            let start = usize::try_from(offset).expect("32 bits");
            crc.iter_mut().for_each(|crc| crc.update(&context.pattern.bytes[start..start + left]));
            let lent = Lent::new(Rc::clone(&context.pattern), start..start + left);
            message.push_lent(lent).expect("there is room");
            return;
        }
        while left > 0 {
            let front = self.check.outgoing.front_mut().expect("the session asks for each byte once");
            let piece = if front.len() > left {
                front.split_to(left)
            } else {
                self.check.outgoing.pop_front().expect("it is there")
            };
            left -= piece.len();
            crc.iter_mut().for_each(|crc| crc.update(&piece));
            message.push_buffer(piece).expect("there is room");
        }
    }
}

/// Where answers are taken.
struct Desk<'a> {
    unit: &'a Unit,
    tally: &'a mut Tally,
    number: u32,
    slots: &'a mut [Slot],
    idle: &'a mut Vec<u16>,
    again: &'a mut Vec<u16>,
    now_ns: u64,
    measure_ns: u64,
    answered: u64,
    has_answer: bool,
    is_reading_back: bool,
    failure: Option<Failure>,
}

impl Receiver for Desk<'_> {
    fn data(&mut self, user: u64, offset: u32, bytes: &[u8]) {
        if self.unit.plan.verify {
            let at = usize::try_from(offset).expect("32 bits");
            self.slots[index(user)].check.data[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::None | Event::Pong(_) => {}
            Event::Completed(completion) => self.completed(completion),
            Event::Rejected { reason, .. } => {
                self.failure = Some(Failure::Fault(format!("the target rejected a PDU: {reason:?}")));
            }
            // News about a unit, which its next command hears too.
            Event::Async { message, .. } if message.event == AsyncEvent::Scsi => {}
            // Whatever else it says, it asks for an end of the session (§11.9.1).
            Event::Async { message, .. } => {
                self.failure = Some(Failure::Lost(format!("the target sent {message:?}")));
            }
            other => {
                let what = format!("the target sent {other:?}, which nobody asked for");
                self.failure = Some(Failure::Fault(what));
            }
        }
    }
}

impl Desk<'_> {
    fn completed(&mut self, completion: &Completion<'_>) {
        let at = u16::try_from(completion.user).expect("a slot's number");
        let answer = Answer::of(completion.status, completion.sense);
        let slot = &mut self.slots[usize::from(at)];
        let is_delivered = completion.response == ServiceResponse::CommandCompleted;
        if is_delivered && answer.is_passing() && slot.retries < RETRIES_MAX {
            slot.retries += 1;
            self.tally.retries += 1;
            self.again.push(at);
            return;
        }
        self.idle.push(at);
        self.has_answer = true;
        self.answered += u64::from(slot.is_measured(self.measure_ns));
        let operation = slot.operation;
        slot.end();
        let plan = &self.unit.plan;
        let bytes = operation.length * plan.block_bytes;
        let is_whole = completion.moved == bytes && completion.residual == Residual::None;
        if is_delivered && answer == Answer::Good && is_whole {
            return self.succeeded(usize::from(at), operation, bytes);
        }
        let (number, lba) = (self.number, plan.lba(operation.block));
        self.tally.error(|| {
            let name = if operation.is_write { "WRITE" } else { "READ" };
            let how = if !is_delivered {
                "TARGET FAILURE".to_owned()
            } else if answer == Answer::Good {
                format!("GOOD after {} bytes", completion.moved)
            } else {
                answer.to_string()
            };
            format!("{name} at LBA {lba}: {how} (session {number})")
        });
    }

    fn succeeded(&mut self, at: usize, operation: Operation, bytes: u32) {
        let slot = &self.slots[at];
        let time_ns = self.now_ns.saturating_sub(slot.started_ns);
        if self.is_reading_back {
            self.tally.read_back += 1;
        } else if slot.is_measured(self.measure_ns) {
            let Interval { reads, writes, .. } = &mut self.tally.interval;
            if operation.is_write { writes } else { reads }.record(bytes, time_ns);
        }
        let Some(ledger) = &self.unit.ledger else { return };
        if operation.is_write {
            let acknowledge = |block| ledger.acknowledge(self.number, block, slot.check.version, self.now_ns);
            operation.blocks().for_each(acknowledge);
            return;
        }
        let reading = Reading {
            session: self.number,
            block: operation.block,
            sent_ns: slot.check.sent_ns,
            expected: &slot.check.expected,
            data: &slot.check.data,
        };
        let verified = &mut self.tally.verified;
        match verify::judge(&self.unit.plan, ledger, &reading) {
            Judgement::Good => verified.good += 1,
            Judgement::Mixed => {
                verified.good += 1;
                verified.mixed += 1;
            }
            Judgement::Unwritten => verified.unwritten += 1,
            Judgement::Bad(finding) => self.tally.find(finding),
        }
    }
}
