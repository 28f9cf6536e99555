//! One session on the ring: its slots of commands, what it sends, what comes back.
//!
//! It never waits. The worker hands in what was received and what was sent; everything that can go out then goes out in one
//! send.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::AtomicU8;

use portico_iscsi::initiator::{Command, Completion, Direction, Event, Payload, Session, TargetFault};
use portico_iscsi::wire::{BHS_BYTES, LunField, Residual, ServiceResponse, TaskAttribute};
use portico_ring::{Arena, Buffer, Class, Fd, Lent, Message, MessageLimits};

use crate::inbound::{Inbound, Receiver};
use crate::ledger::{Expectation, Ledger};
use crate::options::Plan;
use crate::scsi::{Answer, Transfer};
use crate::tally::Tally;
use crate::verify::{self, Judgement, Reading};
use crate::workload::{Operation, Workload};

/// How often one command is sent again after BUSY, TASK SET FULL or a unit attention.
const RETRIES_MAX: u32 = 10_000;
/// What a header takes at most: BHS, AHS, padding.
const HEADER_BYTES_MAX: usize = BHS_BYTES + 20 + 4;
/// Header bytes of one send, at most.
const SEND_HEADER_BYTES_MAX: usize = 64 << 10;
/// Parts of one send.
const SEND_PARTS_MAX: usize = portico_ring::message::PARTS_MAX;

/// What writes that are not verified send: the same bytes each time, lent to the kernel.
pub(crate) struct Pattern(Box<[AtomicU8]>);

impl Pattern {
    /// So many bytes that no compression makes less of.
    pub(crate) fn new(length: u32, seed: u64) -> Rc<Self> {
        let mut random = crate::random::Random::new(seed);
        Rc::new(Self((0..length).map(|_| AtomicU8::new(random.next().to_le_bytes()[0])).collect()))
    }
}

impl AsRef<[AtomicU8]> for Pattern {
    fn as_ref(&self) -> &[AtomicU8] {
        &self.0
    }
}

/// What all connections of a thread use.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    /// Of a verified run.
    pub(crate) ledger: Option<&'a Ledger>,
    pub(crate) lun: LunField,
    pub(crate) arena: Arena,
    pub(crate) pattern: Rc<Pattern>,
}

/// The class of the buffers that verified writes are made in, and how many of them one command takes.
pub(crate) fn write_buffers(plan: &Plan) -> (Class, u32) {
    let bytes = usize::try_from(plan.io_bytes).expect("32 bits");
    let class = Class::fitting(bytes).unwrap_or(Class::Large);
    (class, u32::try_from(bytes.div_ceil(class.bytes())).expect("at most 16"))
}

/// One command, or room for one.
#[derive(Debug)]
struct Slot {
    operation: Operation,
    started_ns: u64,
    retries: u32,
    /// Of a verified write.
    version: u32,
    /// Of a verified read.
    expected: Expectation,
    /// Where a verified read collects its data.
    data: Vec<u8>,
    /// What a verified write has still to send.
    outgoing: VecDeque<Buffer>,
}

/// One session.
pub(crate) struct Connection {
    /// The session's number in the run.
    pub(crate) number: u32,
    pub(crate) fd: Fd,
    session: Session,
    inbound: Inbound,
    /// `None` while it is being sent.
    message: Option<Message>,
    slots: Box<[Slot]>,
    idle: Vec<u16>,
    /// To be sent again.
    again: Vec<u16>,
    workload: Workload,
    /// The workload has nothing more.
    is_exhausted: bool,
    /// No command is sent any more, or none yet.
    is_over: bool,
    /// Commands that ended well.
    pub(crate) did: u64,
    /// When the last command ended, or the first was sent after a pause.
    last_answer_ns: u64,
    /// Why the session is lost.
    pub(crate) failure: Option<String>,
}

impl Connection {
    /// A session that has logged in, on the ring as `fd`.
    pub(crate) fn new(number: u32, fd: Fd, session: Session, inbound: Inbound, plan: &Plan) -> Self {
        let depth = usize::from(plan.depth);
        let parts = (depth * (parts_per_pdu(plan) + 1)).clamp(64, SEND_PARTS_MAX);
        let header_bytes = ((depth + 16) * HEADER_BYTES_MAX).clamp(4096, SEND_HEADER_BYTES_MAX);
        let slot = |_| Slot {
            operation: Operation { is_write: false, block: 0 },
            started_ns: 0,
            retries: 0,
            version: 0,
            expected: Expectation::default(),
            data: Vec::new(),
            outgoing: VecDeque::new(),
        };
        Self {
            number,
            fd,
            session,
            inbound,
            message: Some(Message::new(MessageLimits { parts, header_bytes })),
            slots: (0..depth).map(slot).collect(),
            idle: (0..plan.depth).rev().collect(),
            again: Vec::with_capacity(depth),
            workload: Workload::new(plan, number),
            is_exhausted: false,
            is_over: true,
            did: 0,
            last_answer_ns: 0,
            failure: None,
        }
    }

    /// Session and stream, for who logs out.
    pub(crate) fn into_parts(self) -> (Fd, Session, Inbound) {
        (self.fd, self.session, self.inbound)
    }

    /// Commands that have been sent and have no answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.slots.len() - self.idle.len() - self.again.len()
    }

    /// Whether nothing more will happen by itself.
    pub(crate) fn is_quiet(&self) -> bool {
        let has_nothing = self.is_over || (self.is_exhausted && self.again.is_empty());
        has_nothing && self.outstanding() == 0 && self.message.is_some()
    }

    /// Begins with the load.
    pub(crate) fn begin(&mut self) {
        self.is_over = false;
    }

    /// Begins to read back what was written.
    pub(crate) fn read_back(&mut self, plan: &Plan) {
        self.finish();
        self.workload.read_back(plan, self.number);
        (self.is_over, self.is_exhausted) = (false, false);
    }

    /// Sends no more; commands that were to be sent again are given up.
    pub(crate) fn finish(&mut self) {
        self.is_over = true;
        while let Some(slot) = self.again.pop() {
            self.slots[usize::from(slot)].end();
            self.idle.push(slot);
        }
    }

    /// For how long no command has ended, where some are waited for.
    pub(crate) fn silence_ns(&self, now_ns: u64) -> u64 {
        if self.outstanding() == 0 { 0 } else { now_ns.saturating_sub(self.last_answer_ns) }
    }

    /// Takes what was received.
    pub(crate) fn received(&mut self, bytes: &[u8], context: &Context<'_>, tally: &mut Tally, now_ns: u64) {
        let mut desk = Desk {
            context,
            tally,
            number: self.number,
            slots: &mut self.slots,
            idle: &mut self.idle,
            again: &mut self.again,
            now_ns,
            answered: 0,
            is_reading_back: self.workload.is_reading_back(),
            failure: None,
        };
        let taken: Result<(), TargetFault> = self.inbound.take(bytes, &mut self.session, &mut desk);
        let (answered, failure) = (desk.answered, desk.failure.take());
        self.did += answered;
        if answered > 0 {
            self.last_answer_ns = now_ns;
        }
        if let Err(fault) = taken {
            self.failure = Some(fault.to_string());
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
    pub(crate) fn next_message(&mut self, context: &Context<'_>, now_ns: u64) -> Option<Message> {
        self.submit(context, now_ns);
        let mut message = self.message.take()?;
        let parts = parts_per_pdu(context.plan);
        let mut bhs = [0; BHS_BYTES];
        while message.admits(parts, HEADER_BYTES_MAX) {
            let Some(outgoing) = self.session.next_pdu(&mut bhs) else { break };
            let ahs = outgoing.ahs();
            let header = message.push_header(BHS_BYTES + ahs.len()).expect("there is room");
            header[..BHS_BYTES].copy_from_slice(&bhs);
            header[BHS_BYTES..].copy_from_slice(ahs);
            match outgoing.payload {
                Payload::None => {}
                Payload::Bytes(bytes) => {
                    let place = message.push_header(bytes.len()).expect("pings of ours have no data");
                    place.copy_from_slice(bytes);
                }
                Payload::WriteBuffer { user, offset, length, .. } => {
                    self.slots[index(user)].push_data(&mut message, context, offset, length);
                }
            }
            if outgoing.padding_bytes > 0 {
                let padding = usize::try_from(outgoing.padding_bytes).expect("up to 3");
                // It comes zeroed.
                let _ = message.push_header(padding).expect("there is room");
            }
        }
        if message.is_empty() {
            self.message = Some(message);
            return None;
        }
        Some(message)
    }

    fn submit(&mut self, context: &Context<'_>, now_ns: u64) {
        if self.outstanding() == 0 {
            self.last_answer_ns = now_ns;
        }
        while !self.is_over && self.session.window().admits(self.session.next_cmd_sn()) {
            let Some(slot) = self.again.pop().or_else(|| self.begin_next(context, now_ns)) else { return };
            self.slots[usize::from(slot)].prepare(context, self.number);
            self.submit_slot(slot, context);
        }
    }

    /// Puts the next operation into an idle slot.
    fn begin_next(&mut self, context: &Context<'_>, now_ns: u64) -> Option<u16> {
        if self.is_exhausted {
            return None;
        }
        let slot = self.idle.pop()?;
        match self.choose(context) {
            Some(operation) => {
                self.slots[usize::from(slot)].begin(operation, context, self.number, now_ns);
                Some(slot)
            }
            None => {
                self.is_exhausted = true;
                self.idle.push(slot);
                None
            }
        }
    }

    fn choose(&mut self, context: &Context<'_>) -> Option<Operation> {
        let slots = &self.slots;
        // Only where versions are counted does it matter that two writes do not meet.
        let is_being_written = |block| {
            let write = Operation { is_write: true, block };
            context.ledger.is_some() && slots.iter().any(|slot| slot.operation == write)
        };
        self.workload.next(context.ledger, is_being_written)
    }

    fn submit_slot(&mut self, slot: u16, context: &Context<'_>) {
        let Operation { is_write, block } = self.slots[usize::from(slot)].operation;
        let transfer = Transfer::new(is_write, context.plan.lba(block), context.plan.io_blocks);
        let command = Command {
            lun: context.lun,
            cdb: transfer.cdb(),
            direction: if is_write { Direction::Write } else { Direction::Read },
            expected_length: context.plan.io_bytes,
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

fn index(user: u64) -> usize {
    usize::try_from(user).expect("made from a slot's number")
}

impl Slot {
    /// The command has ended, or was given up.
    fn end(&mut self) {
        self.operation.is_write = false;
        self.outgoing.clear();
    }

    /// A new command; what is promised of its block is noted before it is sent.
    fn begin(&mut self, operation: Operation, context: &Context<'_>, session: u32, now_ns: u64) {
        (self.operation, self.started_ns, self.retries) = (operation, now_ns, 0);
        let Some(ledger) = context.ledger else { return };
        if operation.is_write {
            self.version = ledger.issue(session, operation.block);
        } else {
            self.expected = ledger.expect(session, operation.block, now_ns);
            self.data.resize(usize::try_from(context.plan.io_bytes).expect("32 bits"), 0);
        }
    }

    /// Makes the data of a verified write, also of one that is sent again.
    fn prepare(&mut self, context: &Context<'_>, session: u32) {
        let Some(ledger) = context.ledger else { return };
        if !self.operation.is_write {
            // What a read that is sent again does not bring shall not be taken from the last one.
            self.data.fill(0);
            return;
        }
        self.outgoing.clear();
        let (class, _) = write_buffers(context.plan);
        let mut left = usize::try_from(context.plan.io_bytes).expect("32 bits");
        let mut skip = 0;
        while left > 0 {
            let mut buffer = context.arena.take(class).expect("there are twice as many as commands");
            buffer.truncate(left);
            let block = self.operation.block;
            verify::stamp(context.plan, ledger.run, session, block, self.version, &mut buffer, skip);
            left -= buffer.len();
            skip += buffer.len() as u64;
            self.outgoing.push_back(buffer);
        }
    }

    /// Appends a range of the command's data, which is asked for in order (RFC 7143 §13.19).
    fn push_data(&mut self, message: &mut Message, context: &Context<'_>, offset: u32, length: u32) {
        let mut left = usize::try_from(length).expect("32 bits");
        if context.ledger.is_none() {
            let start = usize::try_from(offset).expect("32 bits");
            let lent = Lent::new(Rc::clone(&context.pattern), start..start + left);
            message.push_lent(lent).expect("there is room");
            return;
        }
        while left > 0 {
            let front = self.outgoing.front_mut().expect("the session asks for each byte once");
            let piece = if front.len() > left {
                front.split_to(left)
            } else {
                self.outgoing.pop_front().expect("it is there")
            };
            left -= piece.len();
            message.push_buffer(piece).expect("there is room");
        }
    }
}

/// Where answers are taken.
struct Desk<'a, 'b> {
    context: &'a Context<'b>,
    tally: &'a mut Tally,
    number: u32,
    slots: &'a mut [Slot],
    idle: &'a mut Vec<u16>,
    again: &'a mut Vec<u16>,
    now_ns: u64,
    answered: u64,
    is_reading_back: bool,
    failure: Option<String>,
}

impl Receiver for Desk<'_, '_> {
    fn data(&mut self, user: u64, offset: u32, bytes: &[u8]) {
        if self.context.ledger.is_some() {
            let at = usize::try_from(offset).expect("32 bits");
            self.slots[index(user)].data[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::None | Event::Pong(_) => {}
            Event::Completed(completion) => self.completed(completion),
            Event::Rejected { reason, .. } => {
                self.failure = Some(format!("the target rejected a PDU: {reason:?}"))
            }
            Event::Async { message, .. } => self.failure = Some(format!("the target sent {message:?}")),
            other => self.failure = Some(format!("the target sent {other:?}, which nobody asked for")),
        }
    }
}

impl Desk<'_, '_> {
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
        self.answered += 1;
        let Operation { is_write, block } = slot.operation;
        slot.end();
        let is_whole =
            completion.moved == self.context.plan.io_bytes && completion.residual == Residual::None;
        if !(is_delivered && answer == Answer::Good && is_whole) {
            let (number, lba) = (self.number, self.context.plan.lba(block));
            self.tally.error(|| {
                let name = if is_write { "WRITE" } else { "READ" };
                let how = if !is_delivered {
                    "TARGET FAILURE".to_owned()
                } else if answer == Answer::Good {
                    format!("GOOD after {} bytes", completion.moved)
                } else {
                    answer.to_string()
                };
                format!("{name} at LBA {lba}: {how} (session {number})")
            });
            return;
        }
        self.succeeded(usize::from(at), is_write, block);
    }

    fn succeeded(&mut self, at: usize, is_write: bool, block: u64) {
        let slot = &self.slots[at];
        let time_ns = self.now_ns.saturating_sub(slot.started_ns);
        let bytes = self.context.plan.io_bytes;
        if is_write {
            self.tally.writes.record(bytes, time_ns);
        } else if self.is_reading_back {
            self.tally.read_back += 1;
        } else {
            self.tally.reads.record(bytes, time_ns);
        }
        let Some(ledger) = self.context.ledger else { return };
        if is_write {
            ledger.acknowledge(self.number, block, slot.version, self.now_ns);
            return;
        }
        let reading = Reading { session: self.number, block, expected: slot.expected, data: &slot.data };
        let verified = &mut self.tally.verified;
        match verify::judge(self.context.plan, ledger, &reading) {
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
