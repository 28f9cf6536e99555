//! The full feature phase from the initiator's side: the tasks of a connection, and what may still be sent
//! (RFC 7143 §4).
//!
//! A command is `submit`ted into a slot; `next_pdu` (in `transmit`) says what goes out, `receive_header` and
//! `receive_done` (in `receive`) take what comes in, and an event ends the task. Slots and queue are made
//! once; SCSI commands allocate nothing.
//!
//! What goes out is one FIFO. That keeps commands in the order of their CmdSN, unsolicited data in the order
//! of their commands (§4.2.5.2), and the answers to R2Ts in the order in which they came (§11.8).

use std::collections::VecDeque;
use std::sync::Arc;

use super::fault::TargetFault;
use super::login::Established;
use super::order::Order;
use crate::framing::Digests;
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, CommandWindow, DataSn, R2tSn, StatSn};
use crate::text::{Incoming, Outgoing as OutgoingText, Pairs, STEP_BYTES_MAX};
use crate::wire::{
    Cid, InitiatorTaskTag, LogoutReason, LunField, TargetPdu, TargetTransferTag, TaskAttribute,
    TaskManagementFunction,
};

/// The most SCSI commands that a session keeps outstanding.
pub const COMMANDS_MAX: u16 = 4096;
/// How many pings, task management functions, text exchanges and logouts may be outstanding beside them.
pub const CONTROL_TASKS_MAX: u16 = 8;
/// The most connections that a session may have in its life.
pub const CONNECTIONS_MAX: u16 = 8;
/// How often a slot is used before its tags come again.
const GENERATIONS: u16 = 1 << 13;
/// How many unanswered pings of the target are kept.
pub const PINGS_PENDING_MAX: u16 = 8;
/// The longest CDB that a command may have.
pub const CDB_BYTES_MAX: usize = 32;
/// The most ping data.
pub const PING_BYTES_MAX: u32 = 512;
/// The most that a target may say in one text exchange: some ten thousand targets.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// The most PDUs that a text exchange may take.
pub const TEXT_EXCHANGES_MAX: u32 = 4096;
/// Entries of the outgoing queue that are made beforehand. A session of many commands and a MaxOutstandingR2T
/// to match may need more, and then allocates.
pub const WORK_RESERVED_MAX: usize = 1 << 16;

const _: () = assert!(COMMANDS_MAX + CONTROL_TASKS_MAX < u16::MAX, "no tag is 0xffffffff");
const _: () = assert!(CONNECTIONS_MAX as u32 * GENERATIONS as u32 == 1 << 16);

/// What the caller knows a command by.
pub type UserData = u64;

/// Names an outstanding task; a number that is not used again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub(super) u32);

impl Tag {
    pub(super) const fn new(slot: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | slot as u32)
    }

    /// The Initiator Task Tag on the wire.
    #[must_use]
    pub const fn initiator_task_tag(self) -> InitiatorTaskTag {
        InitiatorTaskTag(self.0)
    }

    pub(super) const fn slot(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Where the data of a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nowhere.
    None,
    /// From the target, into the command's read buffer.
    Read,
    /// To the target, out of the command's write buffer.
    Write,
}

/// What becomes of faults that endanger no data: a burst of Data-In beyond MaxBurstLength or without its F
/// bit, a wrong ExpDataSN, an answer that does not acknowledge its command. All others are faults in any
/// case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Faults as any other.
    Letter,
    /// Counted: for measuring other targets, some of which have such habits.
    Lenient,
}

/// Harmless faults that a lenient session has passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerated {
    /// How many.
    pub count: u64,
    /// The last one.
    pub last: Option<TargetFault>,
}

/// A SCSI command to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The logical unit.
    pub lun: LunField,
    /// The CDB, of at most [`CDB_BYTES_MAX`] bytes.
    pub cdb: &'a [u8],
    /// Where the data goes.
    pub direction: Direction,
    /// Bytes of the command's buffer; 0 without a direction.
    pub expected_length: u32,
    /// ATTR
    pub attribute: TaskAttribute,
    /// Past the command window.
    pub immediate: bool,
    /// Given back when the command completes.
    pub user: UserData,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) generation: u16,
    pub(super) task: Task,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Free,
    Scsi(ScsiTask),
    Management,
    Text,
    Logout,
    Ping { length: u32 },
}

/// A SCSI command between submission and completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScsiTask {
    pub(super) user: UserData,
    pub(super) lun: LunField,
    pub(super) cdb: [u8; CDB_BYTES_MAX],
    pub(super) cdb_bytes: u8,
    pub(super) direction: Direction,
    pub(super) expected_length: u32,
    pub(super) attribute: TaskAttribute,
    pub(super) immediate: bool,
    pub(super) cmd_sn: CmdSn,
    /// The command PDU has gone out.
    pub(super) emitted: bool,

    pub(super) next_data_sn: DataSn,
    pub(super) received: u32,
    /// Bytes of the sequence of Data-In that has not seen its F bit.
    pub(super) burst_received: u32,

    pub(super) next_r2t_sn: R2tSn,
    /// Up to where the data has been sent unasked, or asked for.
    pub(super) asked: u32,
    pub(super) sent: u32,
    pub(super) outstanding_r2ts: u16,
}

/// Something to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Command(Tag),
    Burst(Burst),
    TaskManagement {
        tag: Tag,
        function: TaskManagementFunction,
        lun: LunField,
        referenced_task_tag: InitiatorTaskTag,
        referenced_cmd_sn: CmdSn,
        cmd_sn: CmdSn,
    },
    Text {
        tag: Tag,
        lun: LunField,
        target_transfer_tag: TargetTransferTag,
        cmd_sn: CmdSn,
    },
    Logout {
        tag: Tag,
        reason: LogoutReason,
        cmd_sn: CmdSn,
    },
    Ping {
        tag: Tag,
        length: u32,
        cmd_sn: CmdSn,
    },
    /// Data-In has come up to here.
    DataAck {
        lun: LunField,
        target_transfer_tag: TargetTransferTag,
        next: DataSn,
    },
    Pong {
        lun: LunField,
        target_transfer_tag: TargetTransferTag,
        cmd_sn: CmdSn,
    },
}

/// A run of Data-Out PDUs: the answer to one R2T, or the unsolicited data of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    pub(super) tag: Tag,
    pub(super) lun: LunField,
    /// Reserved where nobody asked.
    pub(super) target_transfer_tag: TargetTransferTag,
    pub(super) offset: u32,
    pub(super) end: u32,
    pub(super) data_sn: DataSn,
}

/// One connection of a session. See the module.
#[derive(Debug)]
pub struct Session {
    pub(super) parameters: Parameters,
    cid: Cid,
    pub(super) slots: Box<[Slot]>,
    commands: u16,
    free_commands: Vec<u16>,
    free_control: Vec<u16>,
    pub(super) work: VecDeque<Work>,
    pub(super) pings_pending: u16,
    pub(super) order: Arc<Order>,
    pub(super) expected_stat_sn: StatSn,
    pub(super) text_out: OutgoingText,
    pub(super) text_in: Incoming,
    pub(super) text_exchanges: u32,
    /// A Text Request has gone out and has no response yet.
    pub(super) text_awaited: bool,
    pub(super) pending: Option<TargetPdu>,
    pub(super) strictness: Strictness,
    pub(super) tolerated: Tolerated,
    leaving: bool,
}

impl Session {
    /// Goes on where the login has ended, with room for `commands` SCSI commands, 1 to [`COMMANDS_MAX`].
    #[must_use]
    pub fn new(established: &Established, commands: u16) -> Self {
        Self::of(established, commands, Arc::new(Order::new(established.window)), established.parameters, 0)
    }

    /// The full feature phase of a connection that has joined this session. What is not a connection's alone stays as the
    /// first one has negotiated it (RFC 7143 §13).
    ///
    /// # Panics
    /// With more than [`CONNECTIONS_MAX`] connections in the life of a session: their tags would meet.
    #[must_use]
    pub fn join(&self, established: &Established, commands: u16) -> Self {
        let own = &established.parameters;
        let parameters = Parameters {
            header_digest: own.header_digest,
            data_digest: own.data_digest,
            own_max_recv_data_segment_length: own.own_max_recv_data_segment_length,
            peer_max_recv_data_segment_length: own.peer_max_recv_data_segment_length,
            ..self.parameters
        };
        let order = Arc::clone(&self.order);
        let number = u16::try_from(order.join()).ok().filter(|number| *number < CONNECTIONS_MAX);
        Self::of(established, commands, order, parameters, number.expect("a session has few connections"))
    }

    fn of(
        established: &Established,
        commands: u16,
        order: Arc<Order>,
        parameters: Parameters,
        number: u16,
    ) -> Self {
        assert!((1..=COMMANDS_MAX).contains(&commands), "{commands} commands");
        // Tags are a session's: the generations of each connection are its own.
        let generation = number * GENERATIONS;
        let tasks = commands + CONTROL_TASKS_MAX;
        // A command, its unsolicited burst, its R2Ts.
        let per_command = 2 + usize::from(parameters.max_outstanding_r2t);
        let work = usize::from(commands) * per_command + usize::from(CONTROL_TASKS_MAX + PINGS_PENDING_MAX);
        Self {
            parameters,
            cid: established.cid,
            slots: vec![Slot { generation, task: Task::Free }; usize::from(tasks)].into_boxed_slice(),
            commands,
            free_commands: (0..commands).rev().collect(),
            free_control: (commands..tasks).rev().collect(),
            work: VecDeque::with_capacity(work.min(WORK_RESERVED_MAX)),
            pings_pending: 0,
            order,
            expected_stat_sn: established.expected_stat_sn,
            text_out: OutgoingText::with_bound(STEP_BYTES_MAX),
            text_in: Incoming::with_bound(TEXT_BYTES_MAX),
            text_exchanges: 0,
            text_awaited: false,
            pending: None,
            strictness: Strictness::Letter,
            tolerated: Tolerated::default(),
            leaving: false,
        }
    }

    /// Takes a command, to be sent by `next_pdu`. `None`: the target's command window is closed, or all slots
    /// are taken, or a logout has begun. Try again after the next event.
    pub fn submit(&mut self, command: &Command<'_>) -> Option<Tag> {
        assert!((1..=CDB_BYTES_MAX).contains(&command.cdb.len()), "a CDB of {} bytes", command.cdb.len());
        assert!(
            command.direction != Direction::None || command.expected_length == 0,
            "data without a direction"
        );
        if self.leaving || !(command.immediate || self.window().admits(self.next_cmd_sn())) {
            return None;
        }
        let slot = self.free_commands.pop()?;
        let cmd_sn = if command.immediate { self.order.next_cmd_sn() } else { self.order.take_cmd_sn() };
        let mut cdb = [0; CDB_BYTES_MAX];
        cdb[..command.cdb.len()].copy_from_slice(command.cdb);
        let task = ScsiTask {
            user: command.user,
            lun: command.lun,
            cdb,
            cdb_bytes: u8::try_from(command.cdb.len()).expect("at most CDB_BYTES_MAX"),
            direction: command.direction,
            expected_length: command.expected_length,
            attribute: command.attribute,
            immediate: command.immediate,
            cmd_sn,
            emitted: false,
            next_data_sn: DataSn(0),
            received: 0,
            burst_received: 0,
            next_r2t_sn: R2tSn(0),
            asked: 0,
            sent: 0,
            outstanding_r2ts: 0,
        };
        let tag = self.occupy(slot, Task::Scsi(task));
        self.work.push_back(Work::Command(tag));
        Some(tag)
    }

    /// Sends a task management function, immediate. `referenced` is the task of ABORT TASK and QUERY TASK.
    pub fn manage_task(
        &mut self,
        function: TaskManagementFunction,
        lun: LunField,
        referenced: Option<Tag>,
    ) -> Option<Tag> {
        let tag = self.control(Task::Management)?;
        let referenced_cmd_sn =
            referenced.and_then(|tag| self.scsi_task(tag)).map_or(CmdSn(0), |task| task.cmd_sn);
        self.work.push_back(Work::TaskManagement {
            tag,
            function,
            lun,
            referenced_task_tag: referenced.map_or(InitiatorTaskTag::RESERVED, Tag::initiator_task_tag),
            referenced_cmd_sn,
            cmd_sn: self.next_cmd_sn(),
        });
        Some(tag)
    }

    /// Begins a text exchange of these keys, immediate. `None` while another one goes on, too.
    pub fn exchange_text(&mut self, keys: &[(&str, &str)]) -> Option<Tag> {
        if self.slots.iter().any(|slot| matches!(slot.task, Task::Text)) {
            return None;
        }
        let tag = self.control(Task::Text)?;
        self.text_in.clear();
        self.text_out.clear();
        self.text_exchanges = 0;
        self.text_awaited = false;
        for (key, value) in keys {
            self.text_out.push(key, value.as_bytes()).expect("a request fits into STEP_BYTES_MAX");
        }
        self.ask_for_text(tag, LunField::default(), TargetTransferTag::RESERVED);
        Some(tag)
    }

    pub(super) fn ask_for_text(&mut self, tag: Tag, lun: LunField, target_transfer_tag: TargetTransferTag) {
        self.work.push_back(Work::Text { tag, lun, target_transfer_tag, cmd_sn: self.next_cmd_sn() });
    }

    /// What the target said in the last text exchange.
    #[must_use]
    pub fn text(&self) -> Pairs<'_> {
        self.text_in.pairs()
    }

    /// Sends a NOP-Out with this many bytes of ping data (at most [`PING_BYTES_MAX`]), immediate.
    pub fn ping(&mut self, length: u32) -> Option<Tag> {
        assert!(length <= PING_BYTES_MAX, "{length} bytes of ping data");
        let tag = self.control(Task::Ping { length })?;
        self.work.push_back(Work::Ping { tag, length, cmd_sn: self.next_cmd_sn() });
        Some(tag)
    }

    /// Sends a Logout, immediate. Nothing is submitted after that; what is outstanding may still complete.
    pub fn log_out(&mut self, reason: LogoutReason) -> Option<Tag> {
        let tag = self.control(Task::Logout)?;
        self.leaving = true;
        self.work.push_back(Work::Logout { tag, reason, cmd_sn: self.next_cmd_sn() });
        Some(tag)
    }

    /// Gives up a SCSI command that a task management function has ended: its slot is free, and a later
    /// answer to it is a fault of the target. Gives back its user data.
    pub fn abandon(&mut self, tag: Tag) -> Option<UserData> {
        let user = self.scsi_task(tag)?.user;
        self.release(tag);
        Some(user)
    }

    /// The SCSI commands that are outstanding, with their user data.
    pub fn outstanding(&self) -> impl Iterator<Item = (Tag, UserData)> {
        (0..self.commands).zip(self.slots.iter()).filter_map(|(index, slot)| match slot.task {
            Task::Scsi(task) => Some((Tag::new(index, slot.generation), task.user)),
            _ => None,
        })
    }

    /// How many SCSI commands are outstanding.
    #[must_use]
    pub fn outstanding_count(&self) -> usize {
        usize::from(self.commands) - self.free_commands.len()
    }

    /// How the session takes a target's harmless faults from now on; [`Strictness::Letter`] until then.
    pub const fn judge(&mut self, strictness: Strictness) {
        self.strictness = strictness;
    }

    /// What has been tolerated.
    #[must_use]
    pub const fn tolerated(&self) -> Tolerated {
        self.tolerated
    }

    /// What both sides keep to.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What each PDU carries beside its bytes, both ways. The caller computes and checks them: it has the bytes. A PDU of the
    /// target whose digest is wrong is a [`TargetFault`] of an initiator at recovery level 0 (§7.8).
    #[must_use]
    pub const fn digests(&self) -> Digests {
        self.parameters.digests()
    }

    /// What the target takes now.
    #[must_use]
    pub fn window(&self) -> CommandWindow {
        self.order.window()
    }

    /// The CmdSN that the next command gets.
    #[must_use]
    pub fn next_cmd_sn(&self) -> CmdSn {
        self.order.next_cmd_sn()
    }

    /// The StatSN that the next response has to carry.
    #[must_use]
    pub const fn expected_stat_sn(&self) -> StatSn {
        self.expected_stat_sn
    }

    pub(super) const fn cid(&self) -> Cid {
        self.cid
    }

    fn control(&mut self, task: Task) -> Option<Tag> {
        if self.leaving {
            return None;
        }
        let slot = self.free_control.pop()?;
        Some(self.occupy(slot, task))
    }

    fn occupy(&mut self, slot: u16, task: Task) -> Tag {
        let entry = &mut self.slots[usize::from(slot)];
        assert!(matches!(entry.task, Task::Free), "slot {slot} is taken");
        entry.task = task;
        Tag::new(slot, entry.generation)
    }

    pub(super) fn release(&mut self, tag: Tag) {
        let index = u16::try_from(tag.slot()).expect("a slot's number has 16 bits");
        let entry = &mut self.slots[tag.slot()];
        assert!(
            Tag::new(index, entry.generation) == tag && !matches!(entry.task, Task::Free),
            "{tag:?} is stale"
        );
        entry.task = Task::Free;
        let connection = entry.generation - entry.generation % GENERATIONS;
        entry.generation = connection + (entry.generation + 1 - connection) % GENERATIONS;
        let free = if index < self.commands { &mut self.free_commands } else { &mut self.free_control };
        free.push(index);
    }

    /// The task of a tag; `None` for one that is stale, or was never ours.
    pub(super) fn task(&self, tag: Tag) -> Option<&Task> {
        let entry = self.slots.get(tag.slot())?;
        let current = u32::from(entry.generation) == tag.0 >> 16;
        (current && !matches!(entry.task, Task::Free)).then_some(&entry.task)
    }

    pub(super) fn scsi_task(&self, tag: Tag) -> Option<&ScsiTask> {
        match self.task(tag)? {
            Task::Scsi(task) => Some(task),
            _ => None,
        }
    }

    pub(super) fn scsi_task_mut(&mut self, tag: Tag) -> Option<&mut ScsiTask> {
        self.scsi_task(tag)?;
        match &mut self.slots[tag.slot()].task {
            Task::Scsi(task) => Some(task),
            _ => None,
        }
    }
}
