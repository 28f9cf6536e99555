//! The full feature phase as the target sees it (RFC 7143 §4.2, §11).
//!
//! A [`Session`] is a value on the data path. Headers of PDUs go in as soon as they are there, and out comes what to do with
//! the bytes that follow; commands come out in the order of their CmdSN; headers of PDUs are written for what the device
//! server has to say. It never sees a byte of SCSI data, never interprets a CDB, keeps no clock, and after
//! [`Session::new`] never allocates: its tables are as large as `queued_commands` makes them.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | what comes in: [`Session::receive`], [`Session::data_arrived`], [`Session::next_request`] |
//! | `emit` | what goes out: one method per PDU, with StatSN, ExpCmdSN, MaxCmdSN |
//! | `at_once` | a read that comes and is answered in one |
//! | `connection` | what is a connection's and not its session's; joining, leaving |
//! | `window` | the command window and the order of delivery |
//! | `tasks` | the task table |
//! | `abort` | what a task management request refers to; aborting, retiring |
//! | `recovery` | lost connections, and tasks that wait for another |
//! | `keepalive` | pings |
//!
//! # The life of a task
//! `receive` makes it. `next_request` delivers it, once all requests before it have been delivered and its own data segment
//! is in. Its status ([`Session::response`], the last [`Session::next_data_in`], or another response) or
//! [`Session::abort`] ends it: its tag is free, its place in the window is given back, late data is absorbed. The caller
//! keeps the [`TaskId`] as long as it has buffers to clean up, and then calls [`Session::retire`].
//!
//! # Several connections
//! A session has one command window and one task table, however many connections it has. Each connection has a [`Seat`], by
//! which the caller names it where a PDU comes in, or one goes out that answers no task. A task is allegiant to the
//! connection that brought it (§4.2.5.1): its PDUs go there ([`Session::seat_of_task`]), and its data come from there.
//!
//! # Recovery
//! At level 1 data of a write with a wrong digest is asked for again by recovery R2Ts, and status never travels in Data-In,
//! so that it can be asked for by itself. What a SNACK asks for is kept by the caller, who has the data; it goes out again by
//! [`Session::again`]. At level 2 the commands of a connection that is lost wait for another ([`Session::suspend`],
//! [`Session::reassign`]).
//!
//! # Deviation
//! §4.2.3.3 wants a target to wait for the answers to outstanding R2Ts before it answers a task management function that
//! ends their tasks. Ours does not: initiators in the field stop sending that data (Linux with its default of FastAbort),
//! and the function would time out. Late data is absorbed.

mod abort;
mod at_once;
mod connection;
mod emit;
mod keepalive;
mod recovery;
mod tasks;
#[cfg(test)]
mod tests;

mod window;

pub use abort::{Leaving, Referenced};
pub use at_once::ReadInTurn;
pub use connection::{CONNECTIONS_MAX, Fence, Joining, SEATS_MAX, Seat};
pub use emit::{Completion, DataInSegment, R2tRange, TextPart};
pub use keepalive::{Expired, KeepaliveTimes};
pub use recovery::{LOST_MAX, Loss, Suspended};
pub use tasks::{Request, TaskId};

use crate::framing::Digests;
use crate::login::{Completed, QUEUED_COMMANDS_MAX, SessionType};
use crate::moment::Moment;
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, CommandWindow, DataSn, StatSn};
use crate::transfer::read::Read;
use crate::transfer::write::Write;
use crate::transfer::{Progress, Segment, TransferFault};
use crate::violation::{SessionViolation, Violation};
use crate::wire::ahs::AdditionalHeaders;
use crate::wire::{
    Cid, DataOut, InitiatorPdu, InitiatorTaskTag, Isid, LoginRequest, NopOut, ScsiCommand, Snack,
    TaskManagementFunction, TaskManagementRequest, Tsih,
};
use connection::{Connections, Incoming};
use recovery::Lost;
use tasks::{Stage, Tasks};
use window::Window;

/// How many immediate requests may be unretired at once, whoever sent them.
const IMMEDIATE_SHARED: u16 = 16;

/// How many there are at most: beyond the shared ones each connection may have one task management function and one other
/// request, however many the rest has (§4.2.2.1).
pub const IMMEDIATE_REQUESTS_MAX: u16 = IMMEDIATE_SHARED + 2 * CONNECTIONS_MAX;

/// What a session begins with.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// What was negotiated.
    pub parameters: Parameters,
    /// Normal or discovery.
    pub session_type: SessionType,
    /// The session's handle.
    pub tsih: Tsih,
    /// The initiator's half of its name.
    pub isid: Isid,
    /// The leading connection.
    pub cid: Cid,
    /// The CmdSN of the first request.
    pub cmd_sn: CmdSn,
    /// The StatSN of the first response: the one after the final Login Response's.
    pub stat_sn: StatSn,
    /// The width of the command window, from 1 to [`QUEUED_COMMANDS_MAX`]; the same that the final Login Response told.
    pub queued_commands: u16,
    /// When to ping.
    pub keepalive: KeepaliveTimes,
    /// When this is.
    pub now: Moment,
}

impl Start {
    /// What follows from a login that was accepted under this handle.
    #[must_use]
    pub fn after(login: &Completed, tsih: Tsih, keepalive: KeepaliveTimes, now: Moment) -> Self {
        Self {
            parameters: login.parameters,
            session_type: login.session_type,
            tsih,
            isid: login.isid,
            cid: login.cid,
            cmd_sn: login.cmd_sn,
            stat_sn: login.stat_sn.next(),
            queued_commands: login.queued_commands,
            keepalive,
            now,
        }
    }
}

/// What to do with the bytes that follow a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A new task. Its data segment (immediate data, ping data, text) is next; then [`Session::data_arrived`], which is to
    /// be called for an empty segment too.
    Request {
        /// The new task.
        task: TaskId,
        /// What to do with its data segment.
        segment: Segment,
    },
    /// Data for a write. [`Session::data_arrived`] when it is in, even where it is empty.
    Data {
        /// Whose.
        task: TaskId,
        /// What to do with it.
        segment: Segment,
    },
    /// What is to be sent again, or has come (§11.16). No data segment follows.
    Snack(Snack),
    /// Bytes that are nobody's: late data of a task that has ended, a request outside of the window, a ping's answer.
    Absorb {
        /// How many.
        length_bytes: u32,
    },
}

/// The full feature phase of one session.
pub struct Session {
    parameters: Parameters,
    session_type: SessionType,
    tsih: Tsih,
    isid: Isid,
    window: Window,
    tasks: Tasks,
    /// Immediate requests that have not been delivered, the oldest first.
    immediate: Vec<TaskId>,
    connections: Connections,
    /// Those that were lost and whose tasks wait for another.
    lost: [Option<Lost>; LOST_MAX as usize],
    /// When to ping on each of them.
    keepalive_times: KeepaliveTimes,
}

/// What becomes of a PDU whose data digest was wrong. A Reject is sent in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoilt {
    /// A request: it is as if it had never come. Its task has ended, and is the caller's to retire. The initiator may send
    /// it again under its number, or plugs the gap with an abort (§7.3).
    Request,
    /// Data of a write: the command ends with [`TransferFault::DataDigestWrong`] when all of its data has come.
    Data(Progress),
}

impl Session {
    /// A session whose final Login Response is going out. Allocates all that it will ever need.
    #[must_use]
    pub fn new(start: Start) -> Self {
        assert!((1..=QUEUED_COMMANDS_MAX).contains(&start.queued_commands));
        let leading =
            Joining { cid: start.cid, stat_sn: start.stat_sn, parameters: &start.parameters, now: start.now };
        Self {
            connections: Connections::new(&leading, start.keepalive),
            lost: [None; LOST_MAX as usize],
            keepalive_times: start.keepalive,
            parameters: start.parameters,
            session_type: start.session_type,
            tsih: start.tsih,
            isid: start.isid,
            window: Window::new(start.cmd_sn, u32::from(start.queued_commands)),
            // Twice the window: a task that has been answered gives its place to the next one while its buffers are
            // still on their way out.
            tasks: Tasks::new(2 * start.queued_commands + IMMEDIATE_REQUESTS_MAX),
            immediate: Vec::with_capacity(usize::from(IMMEDIATE_REQUESTS_MAX)),
        }
    }

    /// Takes the header of a PDU, BHS and `ahs`, before its data segment. An extended CDB is the caller's to keep: it is
    /// `AdditionalHeaders::extended_cdb` of the same bytes.
    ///
    /// # Errors
    /// The PDU is not taken, and its data segment belongs nowhere. Where the violation earns a Reject, that is
    /// [`Session::reject`].
    pub fn receive(
        &mut self,
        seat: Seat,
        pdu: &InitiatorPdu,
        ahs: &[u8],
        now: Moment,
    ) -> Result<Received, Violation> {
        let connection = self.connections.at_mut(seat);
        assert!(connection.incoming.is_none(), "the last data segment has not been reported");
        connection.keepalive.heard(now);
        connection.acknowledge(pdu.expected_stat_sn());
        match pdu {
            InitiatorPdu::ScsiCommand(command) => {
                let headers = AdditionalHeaders::parse(ahs)?;
                command.agrees_with(&headers)?;
                self.command_received(seat, command, headers.bidirectional_read_length)
            }
            InitiatorPdu::DataOut(data) => self.data_received(seat, data),
            InitiatorPdu::TaskManagement(request) => {
                self.refuse_in_discovery(TaskManagementRequest::OPCODE)?;
                self.request_received(seat, Request::TaskManagement(*request), 0)
            }
            InitiatorPdu::NopOut(ping) => self.nop_received(seat, ping),
            InitiatorPdu::Text(text) => {
                self.request_received(seat, Request::Text(*text), text.data_segment_length)
            }
            InitiatorPdu::Logout(logout) => self.request_received(seat, Request::Logout(*logout), 0),
            // §11.12: login is over.
            InitiatorPdu::Login(LoginRequest { .. }) => {
                Err(Violation::Session(SessionViolation::LoginInFullFeaturePhase))
            }
            InitiatorPdu::Snack(snack) if self.recovers() => Ok(Received::Snack(*snack)),
            // §11.16: SNACK comes with the levels above 0.
            InitiatorPdu::Snack(_) => Err(Violation::Session(SessionViolation::SnackNotSupported)),
        }
    }

    /// [`Session::receive`], [`Session::data_arrived`] and [`Session::next_request`] in one, for what nearly all commands of
    /// the data path are: without AHS, its data segment here and unspoilt, and its turn now, with nothing that waits before or
    /// behind it; at recovery level 0. `None`: it is another, and nothing has happened.
    pub fn receive_in_turn(
        &mut self,
        seat: Seat,
        command: &ScsiCommand,
        now: Moment,
    ) -> Option<(TaskId, Segment)> {
        if !self.is_in_turn(command) {
            return None;
        }
        let (mut write, segment) = Write::begin(command, &self.parameters);
        if write.arrived().fault.is_some() {
            return None;
        }
        let connection = self.connections.at_mut(seat);
        assert!(connection.incoming.is_none(), "the last data segment has not been reported");
        connection.keepalive.heard(now);
        connection.acknowledge(command.expected_stat_sn);
        let read = Read::new(if command.read { command.expected_data_transfer_length } else { 0 });
        self.window.pass();
        let task = self.tasks.insert(seat, Request::Command(*command), write, read);
        self.tasks.task_mut(task).stage = Stage::Delivered;
        Some((task, segment))
    }

    /// Whether a command is what [`Session::receive_in_turn`] takes, but for its data segment.
    fn is_in_turn(&self, command: &ScsiCommand) -> bool {
        let is_special = command.immediate
            || command.total_ahs_words > 0
            || command.read && command.write
            || self.recovers()
            || self.session_type == SessionType::Discovery;
        !is_special
            && self.immediate.is_empty()
            && self.window.is_next(command.cmd_sn)
            && !(self.parameters.max_connections > 1 && self.is_claimed(command.cmd_sn))
            && self.tasks.find(command.initiator_task_tag).is_none()
    }

    fn command_received(
        &mut self,
        seat: Seat,
        command: &ScsiCommand,
        bidirectional: Option<u32>,
    ) -> Result<Received, Violation> {
        self.refuse_in_discovery(ScsiCommand::OPCODE)?;
        if !self.is_admissible(seat, &Request::Command(*command))? {
            return Ok(Received::Absorb { length_bytes: command.data_segment_length });
        }
        let (write, segment) = Write::begin(command, &self.parameters);
        let read = match (command.read, command.write) {
            (true, false) => Read::new(command.expected_data_transfer_length),
            _ => Read::bidirectional(bidirectional),
        };
        Ok(self.take(seat, Request::Command(*command), write, read, segment))
    }

    fn request_received(&mut self, seat: Seat, request: Request, length: u32) -> Result<Received, Violation> {
        if !self.is_admissible(seat, &request)? {
            return Ok(Received::Absorb { length_bytes: length });
        }
        let segment = Segment { offset_bytes: 0, keep_bytes: length, discard_bytes: 0 };
        Ok(self.take(seat, request, Write::NONE, Read::default(), segment))
    }

    fn nop_received(&mut self, seat: Seat, ping: &NopOut) -> Result<Received, Violation> {
        if ping.initiator_task_tag.is_reserved() {
            // §11.18: the answer to a ping of ours, or no more than an ExpStatSN.
            self.connections.at_mut(seat).keepalive.answered(ping.target_transfer_tag);
            return Ok(Received::Absorb { length_bytes: ping.data_segment_length });
        }
        self.refuse_in_discovery(NopOut::OPCODE)?;
        if !self.is_admissible(seat, &Request::NopOut(*ping))? {
            return Ok(Received::Absorb { length_bytes: ping.data_segment_length });
        }
        // §11.18.3: as much of the data comes back as the initiator can take.
        let keep_bytes = ping.data_segment_length.min(self.connections.at(seat).segment_bytes_max);
        let discard_bytes = ping.data_segment_length - keep_bytes;
        let segment = Segment { offset_bytes: 0, keep_bytes, discard_bytes };
        Ok(self.take(seat, Request::NopOut(*ping), Write::NONE, Read::default(), segment))
    }

    fn data_received(&mut self, seat: Seat, data: &DataOut) -> Result<Received, Violation> {
        let absorb = Ok(Received::Absorb { length_bytes: data.data_segment_length });
        // A task that has ended, or a command that was outside of the window: its data comes all the same.
        let Some(task) = self.tasks.find(data.initiator_task_tag) else { return absorb };
        let state = self.tasks.task_mut(task);
        let Request::Command(command) = &state.request else { return absorb };
        // §4.2.5.1: the data of a write go over the connection that the command went over.
        if state.seat != seat {
            return Err(Violation::Session(SessionViolation::DataOnAnotherConnection(
                data.initiator_task_tag,
            )));
        }
        // §7.2.1: a command that is sent once more, though it had come, brings its unsolicited data once more.
        if self.parameters.error_recovery_level > 0
            && data.target_transfer_tag.is_reserved()
            && state.write.is_unsolicited_over()
        {
            return absorb;
        }
        let recovers = self.parameters.error_recovery_level > 0;
        let segment = state.write.data_out(data, command.lun, task.ttt_base(), recovers);
        self.connections.at_mut(seat).incoming = Some(Incoming { task, takes: None, is_data: true });
        Ok(Received::Data { task, segment })
    }

    /// Whether a request is to be taken. One outside of the window, or a duplicate inside, is silently ignored
    /// (§4.2.2.1).
    fn is_admissible(&self, seat: Seat, request: &Request) -> Result<bool, Violation> {
        if !request.is_immediate()
            && (!self.window.admits(request.cmd_sn()) || self.is_claimed(request.cmd_sn()))
        {
            return Ok(false);
        }
        if self.tasks.find(request.task_tag()).is_some() {
            return Err(Violation::Session(SessionViolation::TaskTagInUse(request.task_tag())));
        }
        if request.is_immediate()
            && self.tasks.immediate() >= IMMEDIATE_SHARED
            && self.tasks.has_immediate_like(seat, request)
        {
            return Err(Violation::Session(SessionViolation::TooManyImmediateRequests));
        }
        Ok(true)
    }

    /// Whether a request of this number has come on some connection, all but the rest of its data segment, with which it
    /// takes its place in the window: until then no other takes it.
    fn is_claimed(&self, cmd_sn: CmdSn) -> bool {
        self.connections
            .iter()
            .any(|(_, connection)| connection.incoming.is_some_and(|incoming| incoming.takes == Some(cmd_sn)))
    }

    /// Considers a number as received that no request has, nor is about to have.
    fn skip(&mut self, cmd_sn: CmdSn) -> bool {
        !self.is_claimed(cmd_sn) && self.window.skip(cmd_sn)
    }

    fn take(&mut self, seat: Seat, request: Request, write: Write, read: Read, segment: Segment) -> Received {
        let task = self.tasks.insert(seat, request, write, read);
        let immediate = request.is_immediate();
        if immediate {
            self.immediate.push(task);
        }
        // §7.3, §7.8: the number of a request that may yet be discarded is not acknowledged.
        let takes = (!immediate).then(|| request.cmd_sn());
        self.connections.at_mut(seat).incoming = Some(Incoming { task, takes, is_data: false });
        Received::Request { task, segment }
    }

    fn refuse_in_discovery(&self, opcode: u8) -> Result<(), Violation> {
        match self.session_type {
            SessionType::Normal => Ok(()),
            SessionType::Discovery => Err(Violation::Session(SessionViolation::NotInDiscovery { opcode })),
        }
    }

    /// The data segment of the last [`Received::Request`] or [`Received::Data`] is in, kept and discarded bytes both. Of a
    /// task that was retired meanwhile there is no progress to tell.
    pub fn data_arrived(&mut self, seat: Seat, task: TaskId) -> Progress {
        let takes = self.take_incoming(seat, task).takes;
        if let Some(cmd_sn) = takes {
            if self.is_live(task) {
                self.window.insert(cmd_sn, task);
            } else {
                // Aborted meanwhile: it has come, and there is nothing to deliver.
                self.window.skip(cmd_sn);
            }
        }
        if self.tasks.lookup(task).is_none() {
            return Progress::default();
        }
        self.tasks.task_mut(task).write.arrived()
    }

    /// The data segment of the last [`Received::Request`] or [`Received::Data`] is in, and its digest is wrong.
    pub fn data_spoilt(&mut self, seat: Seat, task: TaskId) -> Spoilt {
        let incoming = self.take_incoming(seat, task);
        if incoming.is_data {
            let known = self.tasks.lookup(task).is_some();
            return Spoilt::Data(if known {
                let recovers = self.recovers();
                self.tasks.task_mut(task).write.spoilt(recovers)
            } else {
                Progress::default()
            });
        }
        if self.is_live(task) {
            self.tasks.end(task);
            self.immediate.retain(|&queued| queued != task);
        }
        Spoilt::Request
    }

    fn take_incoming(&mut self, seat: Seat, task: TaskId) -> Incoming {
        let incoming = self.connections.at_mut(seat).incoming.take();
        let incoming = incoming.expect("a segment is coming in");
        assert_eq!(incoming.task, task, "segments come in one at a time");
        incoming
    }

    /// Bytes have come from the initiator, though no whole header: it lives.
    pub fn heard(&mut self, seat: Seat, now: Moment) {
        self.connections.at_mut(seat).keepalive.heard(now);
    }

    /// The next request for the caller: immediate ones as they came, the others in the order of CmdSN. Call until there is
    /// none.
    pub fn next_request(&mut self) -> Option<TaskId> {
        let task = self.next_immediate().or_else(|| {
            let connections = &self.connections;
            self.window.deliver(|task| !connections.are_receiving(task))
        })?;
        let state = self.tasks.task_mut(task);
        assert_eq!(state.stage, Stage::Queued);
        state.stage = Stage::Delivered;
        Some(task)
    }

    fn next_immediate(&mut self) -> Option<TaskId> {
        let position = self.immediate.iter().position(|&task| {
            !self.connections.are_receiving(task)
                && match &self.tasks.task(task).request {
                    // §4.2.3.3: a function on a whole task set waits for the commands that were sent before it.
                    Request::TaskManagement(request) if affects_task_set(request.function) => {
                        self.window.has_delivered_all_before(request.cmd_sn)
                    }
                    _ => true,
                }
        })?;
        Some(self.immediate.remove(position))
    }

    /// The request of a task that has not been retired.
    #[must_use]
    pub fn request(&self, task: TaskId) -> &Request {
        &self.tasks.task(task).request
    }

    /// The command of a task that has not been retired, and is one.
    #[must_use]
    pub fn command(&self, task: TaskId) -> &ScsiCommand {
        match self.request(task) {
            Request::Command(command) => command,
            other => panic!("{other:?} is no command"),
        }
    }

    /// Whether the task has neither been answered nor aborted.
    #[must_use]
    pub fn is_live(&self, task: TaskId) -> bool {
        self.tasks.lookup(task).is_some_and(|task| matches!(task.stage, Stage::Queued | Stage::Delivered))
    }

    /// The task that has this tag and has not ended.
    #[must_use]
    pub fn task_by_itt(&self, tag: InitiatorTaskTag) -> Option<TaskId> {
        self.tasks.find(tag)
    }

    /// The commands that have not ended, in no order: what a function on a task set, or the end of the session, is about.
    pub fn live_commands(&self) -> impl Iterator<Item = (TaskId, &ScsiCommand)> {
        self.tasks.live().filter_map(|(id, task)| match &task.request {
            Request::Command(command) => Some((id, command)),
            _ => None,
        })
    }

    /// The device server takes `required_bytes` of data with this command, whatever Expected Data Transfer Length says. Said
    /// once. Bytes beyond it are discarded; R2Ts ask for no more than it.
    pub fn want_data(&mut self, task: TaskId, required_bytes: u64) -> Progress {
        let write = &mut self.tasks.task_mut(task).write;
        write.want(required_bytes);
        write.progress()
    }

    /// The data that still comes for this task is of no use. Wait until it is settled all the same: an initiator that gets
    /// a status in the middle of its own burst may trip over it.
    pub fn discard_data(&mut self, task: TaskId) -> Progress {
        let write = &mut self.tasks.task_mut(task).write;
        write.discard();
        write.progress()
    }

    /// Whether errors within a command are recovered from: ErrorRecoveryLevel is above 0.
    #[must_use]
    pub const fn recovers(&self) -> bool {
        self.parameters.error_recovery_level > 0
    }

    /// Bytes of a write that came unasked or have been asked for, where nothing is on its way: fewer than before, after some
    /// were discarded for their digest.
    #[must_use]
    pub fn solicited_bytes(&self, task: TaskId) -> u32 {
        self.tasks.task(task).write.solicited()
    }

    /// The Data-In PDUs of a read that is not answered yet were cut anew, up to this DataSN (§11.16: R-Data SNACK).
    pub fn resegmented(&mut self, task: TaskId, data_sn: DataSn, snack_tag: u32) {
        self.tasks.task_mut(task).read.resegmented(data_sn, snack_tag);
    }

    /// How far the data of a write has come.
    #[must_use]
    pub fn progress(&self, task: TaskId) -> Progress {
        self.tasks.task(task).write.progress()
    }

    /// Why the data of a write cannot be used, if it cannot.
    #[must_use]
    pub fn fault(&self, task: TaskId) -> Option<TransferFault> {
        self.tasks.task(task).write.fault()
    }

    /// The device server has `required_bytes` of data for the initiator, whatever Expected Data Transfer Length says. Said
    /// once, before the first [`Session::next_data_in`]. Returns how many of them are sent.
    pub fn begin_data_in(&mut self, task: TaskId, required_bytes: u64) -> u32 {
        let read = &mut self.tasks.task_mut(task).read;
        read.begin(required_bytes);
        read.total()
    }

    /// How many requests may be in work at once, from 1 to the `queued_commands` of the start. A smaller number takes
    /// effect as requests end: what MaxCmdSN has granted stays granted.
    pub fn set_window(&mut self, queued_commands: u16) {
        assert!(queued_commands >= 1 && usize::from(queued_commands) <= self.window_max());
        self.window.set_limit(u32::from(queued_commands));
    }

    fn window_max(&self) -> usize {
        (self.tasks.slots() - usize::from(IMMEDIATE_REQUESTS_MAX)) / 2
    }

    /// While held, MaxCmdSN stays where it is, because memory is scarce; only a session with nothing in work gets one place,
    /// so that it lives.
    pub fn hold_window(&mut self, held: bool) {
        self.window.hold(held);
    }

    /// ExpCmdSN and MaxCmdSN.
    #[must_use]
    pub fn window(&self) -> CommandWindow {
        self.window.bounds()
    }

    /// When [`Session::expire`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self, seat: Seat) -> Moment {
        self.connections.at(seat).keepalive.deadline()
    }

    /// What the passing of time asks for.
    #[must_use]
    pub fn expire(&self, seat: Seat, now: Moment) -> Expired {
        self.connections.at(seat).keepalive.expire(now)
    }

    /// How many slots the task table has: what [`TaskId::slot`] stays below.
    #[must_use]
    pub fn task_slots(&self) -> usize {
        self.tasks.slots()
    }

    /// What was negotiated for the session; what is a connection's is that of the first.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What each PDU of a connection carries beside its bytes, both ways.
    #[must_use]
    pub fn digests(&self, seat: Seat) -> Digests {
        self.connections.at(seat).digests
    }

    /// The longest data segment that may come on a connection.
    #[must_use]
    pub fn own_segment_bytes_max(&self, seat: Seat) -> u32 {
        self.connections.at(seat).own_segment_bytes_max
    }

    /// The longest data segment that may go out on a connection.
    #[must_use]
    pub fn peer_segment_bytes_max(&self, seat: Seat) -> u32 {
        self.connections.at(seat).segment_bytes_max
    }

    /// The initiator has declared a new MaxRecvDataSegmentLength on a connection (§13.12).
    pub fn set_peer_segment_bytes_max(&mut self, seat: Seat, length_bytes: u32) {
        self.connections.at_mut(seat).segment_bytes_max = length_bytes;
    }

    /// The session's handle.
    #[must_use]
    pub fn tsih(&self) -> Tsih {
        self.tsih
    }

    /// The initiator's half of the session's name.
    #[must_use]
    pub fn isid(&self) -> Isid {
        self.isid
    }

    /// The name of a connection.
    #[must_use]
    pub fn cid(&self, seat: Seat) -> Cid {
        self.connections.at(seat).cid
    }

    /// Normal or discovery.
    #[must_use]
    pub fn session_type(&self) -> SessionType {
        self.session_type
    }
}

/// §11.5.1: the functions that end more than one task.
const fn affects_task_set(function: TaskManagementFunction) -> bool {
    matches!(
        function,
        TaskManagementFunction::AbortTaskSet
            | TaskManagementFunction::ClearTaskSet
            | TaskManagementFunction::LogicalUnitReset
            | TaskManagementFunction::TargetWarmReset
            | TaskManagementFunction::TargetColdReset
            | TaskManagementFunction::ITNexusReset
    )
}
