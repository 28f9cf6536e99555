//! What a connection has to send, by reference to what it is about. A PDU is made when it goes into a message: its
//! StatSN, ExpCmdSN and MaxCmdSN are those of that moment (RFC 7143 §4.2.2).

use portico_iscsi::session::{Leaving, TaskId, TextPart};
use portico_iscsi::violation::Violation;
use portico_iscsi::wire::{
    Bhs, DataIn, InitiatorTaskTag, LogoutResult, LunField, RejectReason, TaskManagementResult,
    initiator_task_tag, opcode,
};

use crate::slab::Key;
use crate::task::Task;

/// One entry of a connection's list.
#[derive(Debug)]
pub enum Outgoing {
    /// Data-In of a task, as far as it is ready, its status in the last one if it can be.
    DataIn(Key<Task>),
    /// The SCSI Response of a task.
    Status(Key<Task>),
    /// An R2T of a task, as many as are due.
    R2t(Key<Task>),
    /// PDUs that are rare: they may allocate.
    Rare(Box<Rare>),
}

impl Outgoing {
    /// Whether it is a ping.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        matches!(self, Outgoing::Rare(rare) if matches!(**rare, Rare::Ping))
    }

    /// Whether it is about this task.
    #[must_use]
    pub fn is_of(&self, key: Key<Task>) -> bool {
        matches!(self, Outgoing::DataIn(task) | Outgoing::Status(task) | Outgoing::R2t(task) if *task == key)
    }

    /// Whether it is a PDU of this command that a lost connection had, and none that has ended.
    #[must_use]
    pub fn moves(&self, tag: InitiatorTaskTag) -> bool {
        let moves = |header: &Bhs| initiator_task_tag(header) == tag && opcode(header) == DataIn::OPCODE;
        matches!(self, Outgoing::Rare(rare) if matches!(&**rare, Rare::Moved { header, .. } if moves(header)))
    }

    /// Whether it is Data-In or the status of this task.
    #[must_use]
    pub fn answers(&self, task: Key<Task>) -> bool {
        matches!(self, Outgoing::DataIn(of) | Outgoing::Status(of) if *of == task)
    }

    /// The number of the fence that it is.
    #[must_use]
    pub fn fence(&self) -> Option<u64> {
        match self {
            Outgoing::Rare(rare) => match **rare {
                Rare::Fence { serial } => Some(serial),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it has been sent before.
    #[must_use]
    pub fn is_again(&self) -> bool {
        matches!(self, Outgoing::Rare(rare) if matches!(**rare, Rare::Again { .. }))
    }
}

/// PDUs that are not on the data path.
#[derive(Debug)]
pub enum Rare {
    /// The answer to a NOP-Out, with its data.
    Pong {
        /// The request.
        name: TaskId,
        /// What came with it, cut to what the initiator takes.
        data: Vec<u8>,
    },
    /// A NOP-In of our own that wants an answer.
    Ping,
    /// The answer to a task management request.
    TaskManagement {
        /// The request.
        name: TaskId,
        /// How it ended.
        result: TaskManagementResult,
        /// Additional Response Information (RFC 7144).
        additional: [u8; 3],
    },
    /// The answer to a Logout Request.
    Logout {
        /// The request.
        name: TaskId,
        /// How it ended.
        result: LogoutResult,
        /// What closes with it.
        leaving: Option<Leaving>,
    },
    /// The answer to a Text Request.
    Text {
        /// The request.
        name: TaskId,
        /// The text in this PDU.
        data: Vec<u8>,
        /// What the header says of it.
        part: TextPart,
    },
    /// The answer to a Text Request that was wrong.
    RejectText {
        /// The request.
        name: TaskId,
        /// How.
        violation: Violation,
    },
    /// A PDU that was not understood.
    Reject {
        /// Why.
        reason: RejectReason,
        /// Its header.
        header: Bhs,
    },
    /// A SCSI event.
    Event {
        /// Where.
        lun: LunField,
        /// SenseLength and sense data.
        data: Vec<u8>,
    },
    /// A PDU that has been sent before: its data are looked up among what is kept when it goes.
    Again {
        /// As it was sent.
        header: Bhs,
    },
    /// A PDU of a command that a lost connection had before this one.
    Moved {
        /// As it was sent there, or cut anew.
        header: Bhs,
        /// Its data segment.
        data: Vec<u8>,
    },
    /// No PDU: what stands behind it waits until a response is acknowledged that is fenced ([`crate::fencing`]).
    Fence {
        /// Which one.
        serial: u64,
    },
    /// The session is dropped: its connections close.
    Dropped,
    /// The initiator is asked to leave.
    AskForLogout {
        /// Within so many seconds.
        seconds: u16,
    },
}

impl Rare {
    /// The request that it answers, whose connection it goes to.
    #[must_use]
    pub fn request(&self) -> Option<TaskId> {
        match self {
            Rare::Pong { name, .. }
            | Rare::TaskManagement { name, .. }
            | Rare::Logout { name, .. }
            | Rare::Text { name, .. }
            | Rare::RejectText { name, .. } => Some(*name),
            Rare::Ping
            | Rare::Reject { .. }
            | Rare::Event { .. }
            | Rare::Again { .. }
            | Rare::Moved { .. }
            | Rare::Fence { .. }
            | Rare::Dropped
            | Rare::AskForLogout { .. } => None,
        }
    }
}
