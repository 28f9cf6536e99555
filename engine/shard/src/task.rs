//! A task: one command from its arrival to its status, as the shard that serves it sees it.
//!
//! The iSCSI session knows its transfer, the unit its state; here is what is between them: which bytes have come and
//! are not at the medium yet, which pieces are at the medium, which are back and wait to be sent.

use std::collections::VecDeque;

use portico_iscsi::moment::Moment;
use portico_iscsi::session::TaskId;
use portico_model::identity::Ticket;
use portico_model::meter::Operation;
use portico_model::peer::{Stamp, TokenName};
use portico_ring::{Buffer, Segments};
use portico_scsi::block::AtomicOperation;
use portico_scsi::copy::Run;
use portico_scsi::device_server::ParameterList;
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::Outcome;
use portico_scsi::token::WriteUsingToken;

use crate::budget::Kind;
use crate::core::{PASSES_MAX, Wait};
use crate::management::Management;
use crate::session::Session;
use crate::slab::Key;
use crate::unit::{Blocks, Unit};

/// Bytes that one request to a medium moves at most.
pub const PIECE_BYTES_MAX: usize = 256 << 10;

/// Pieces of one READ or VERIFY that are at the medium or wait to be sent.
pub const PIECES_MAX: usize = 4;

/// Bytes of Data-Out that a command which is over keeps room for, to be used again.
const ATOMIC_DATA_KEPT: usize = 16 << 10;

/// One command.
#[derive(Debug)]
pub struct Task {
    /// Whose.
    pub session: Key<Session>,
    /// Its name in the iSCSI session; nobody's in the background.
    pub name: TaskId,
    /// The index of its LUN in the session's map, where it addresses one.
    pub lun: Option<usize>,
    /// The unit behind it.
    pub unit: Option<Key<Unit>>,
    /// What reservations think of it.
    pub class: CommandClass,
    /// What the histograms file it under.
    pub operation: Operation,
    /// When it came, was first handed to the medium, came back last.
    pub times: Times,
    /// What is to be done.
    pub work: Work,
    /// The CDB from its byte 16 on; mostly there is none.
    pub cdb_rest: Vec<u8>,
    /// Data-Out that has come and is not at the medium, in order.
    pub inflow: VecDeque<Buffer>,
    /// Bytes in `inflow`.
    pub inflow_bytes: usize,
    /// Of them, in buffers of their own size and in the account of early data.
    pub shelved_bytes: usize,
    /// What these buffers count there.
    pub early_bytes: u64,
    /// Its data came before its turn and found no place: it ends with TASK SET FULL.
    pub is_refused: bool,
    /// The write cache was turned off while pieces of it were at the medium: it is flushed before GOOD.
    pub flush_due: bool,
    /// Data-In that is ready to be sent, in order.
    pub outflow: VecDeque<Buffer>,
    /// Requests at the medium.
    pub at_medium: u32,
    /// Bytes that count against its unit's budget.
    pub booked_bytes: u64,
    /// What that booking waits for.
    pub booked_as: Kind,
    /// How it ended, once it has; the status is sent when nothing of it is at the medium.
    pub ended: Option<Outcome>,
    /// Aborted: nothing of it is sent, and nothing more handed to the medium.
    pub aborted: bool,
    /// Task management functions that wait for its pieces at the medium.
    pub awaited_by: Vec<Key<Management>>,
    /// Whether it stands in its connection's list of PDUs to send.
    pub listed: bool,
    /// How it waits for memory or room in a queue, where it does.
    pub waits: Option<Wait>,
    /// When data of it came last, or could first.
    pub progressed: Moment,
    /// What of its Data-Out was there when somebody last looked, and since when.
    pub owed: Owed,
    /// Of a READ, in order; those that are back wait for the ones before them.
    pub pieces: VecDeque<Piece>,
}

/// How far Data-Out that was asked for had come, and since when nothing has: what RspTimeout is about.
#[derive(Debug, Clone, Copy)]
pub struct Owed {
    /// Bytes that had come.
    pub received_bytes: u32,
    /// When they were counted first, or nothing was owed.
    pub since: Moment,
}

/// The three moments that the histograms are made of.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The command's PDU was understood.
    pub arrived: Moment,
    /// Its first piece was handed to the medium.
    pub handed: Option<Moment>,
    /// Its last piece came back.
    pub back: Option<Moment>,
}

/// What a task does.
#[derive(Debug)]
pub enum Work {
    /// It waits for its turn, or has nothing more to do.
    None,
    /// Fetches a parameter list, which the device server then reads.
    Parameters(ParameterList),
    /// Moves blocks from the medium to the initiator.
    Read(Read),
    /// Moves blocks from the initiator to the medium.
    Write(Write),
    /// Compares or checks blocks.
    Verify(Verify),
    /// Takes its blocks in several passes. Boxed: such commands are rare.
    Series(Box<Series>),
    /// Has its blocks for itself. Boxed likewise, and used again.
    Atomic(Box<Atomic>),
    /// Copies between units. Boxed likewise.
    Copy(Box<Copying>),
    /// Waits for a copy that it has ended.
    CopyAbort(Key<Task>),
    /// Makes the medium durable.
    Flush,
    /// Waits for control.
    Parked(Ticket),
}

/// READ.
#[derive(Debug)]
pub struct Read {
    /// Where on the medium, in bytes.
    pub offset_bytes: u64,
    /// Bytes that the initiator gets.
    pub length_bytes: u32,
    /// Of them, handed to the medium.
    pub handed_bytes: u32,
    /// Of them, ready to be sent or sent.
    pub ready_bytes: u32,
    /// Of them, sent.
    pub sent_bytes: u32,
    /// The medium lends its memory: nothing is read, all is ready.
    pub lent: bool,
    /// It is lent, and copied as it goes into a message.
    pub copied: bool,
}

/// One request of a READ or VERIFY.
#[derive(Debug)]
pub struct Piece {
    /// Where its bytes begin in the transfer: what it is found by.
    pub at_bytes: u32,
    /// Its bytes, once they are there.
    pub filled: Option<Segments>,
}

/// WRITE.
#[derive(Debug)]
pub struct Write {
    /// Where on the medium, in bytes.
    pub offset_bytes: u64,
    /// Bytes that come from the initiator.
    pub moved_bytes: u32,
    /// Of them, those that go to the medium: whole blocks.
    pub length_bytes: u32,
    /// Of them, handed to the medium.
    pub handed_bytes: u32,
    /// Of them, on the medium.
    pub stored_bytes: u32,
    /// Bytes that came unasked or were asked for.
    pub called_bytes: u32,
    /// Bytes that it may hold at a time; 0 while it waits for memory, with what came unasked.
    pub booked_bytes: u32,
    /// On stable storage before GOOD.
    pub durable: bool,
}

/// VERIFY.
#[derive(Debug)]
pub struct Verify {
    /// Where on the medium, in bytes.
    pub offset_bytes: u64,
    /// Bytes that are looked at.
    pub length_bytes: u64,
    /// Of them, handed to the medium.
    pub handed_bytes: u64,
    /// Data-Out to compare with.
    pub compare: Option<Comparison>,
}

/// A command that takes its blocks in several passes.
#[derive(Debug)]
pub struct Series {
    /// Where on the medium, in bytes.
    pub offset_bytes: u64,
    /// Bytes of all its blocks.
    pub length_bytes: u64,
    /// The Data-Out that has come.
    pub data: Vec<u8>,
    /// Bytes that it may have of it: none before its turn.
    pub gathers_bytes: u64,
    /// Bytes of Data-Out that come.
    pub data_bytes: u32,
    /// Further ranges that the first pass goes over, last first: offset and length in bytes.
    pub more: Vec<(u64, u64)>,
    /// What is done to all of the blocks now, and after it.
    pub passes: [Option<Pass>; PASSES_MAX],
    /// How far the first pass has come, in bytes.
    pub at_bytes: u64,
    /// Something was written that a volatile cache may hold.
    pub unstable: bool,
    /// What is booked for the memory of the piece at hand.
    pub piece_bytes: u64,
}

/// A command that has its blocks for itself.
#[derive(Debug)]
pub struct Atomic {
    /// What is done with them.
    pub operation: AtomicOperation,
    /// Where on the medium, in bytes.
    pub offset_bytes: u64,
    /// Bytes of all its blocks.
    pub length_bytes: u64,
    /// Bytes of Data-Out.
    pub required_bytes: u64,
    /// On stable storage before GOOD.
    pub durable: bool,
    /// The Data-Out that has come.
    pub data: Vec<u8>,
    /// It may: it is booked, or gathered.
    pub has_place: bool,
    /// Bytes of it that are gathered: none where it came unasked, or before its turn.
    pub gathers_bytes: u64,
    /// All of it has come.
    pub is_gathered: bool,
    /// Memory for one piece, while none is at the medium.
    pub buffers: Vec<Buffer>,
    /// Its claim, granted or not.
    pub claim: Option<Stamp>,
    /// The medium compares and writes by itself, for everybody who has it. There is memory for both at once.
    pub native: bool,
    /// It has found a difference: the blocks are read, to see where.
    pub differs: bool,
    /// The blocks are being written, and no longer read.
    pub stores: bool,
    /// How far that has come, in bytes.
    pub at_bytes: u64,
}

impl Work {
    /// The claim of a command that claims blocks.
    pub fn claim(&mut self) -> Option<&mut Option<Stamp>> {
        match self {
            Self::Atomic(atomic) => Some(&mut atomic.claim),
            Self::Copy(copying) => copying.populates.as_mut().map(|populates| &mut populates.claim),
            _ => None,
        }
    }
}

impl Atomic {
    /// Lets go of its memory, but for what a short command's data take.
    pub fn clear(&mut self) {
        self.buffers.clear();
        self.data.clear();
        self.data.shrink_to(ATOMIC_DATA_KEPT);
    }
}

impl Default for Atomic {
    fn default() -> Self {
        Self {
            operation: AtomicOperation::Write,
            offset_bytes: 0,
            length_bytes: 0,
            required_bytes: 0,
            durable: false,
            data: Vec::new(),
            has_place: false,
            gathers_bytes: 0,
            is_gathered: false,
            buffers: Vec::new(),
            claim: None,
            native: false,
            differs: false,
            stores: false,
            at_bytes: 0,
        }
    }
}

/// EXTENDED COPY, POPULATE TOKEN, WRITE USING TOKEN.
#[derive(Debug, Default)]
pub struct Copying {
    /// Under which its status is asked for.
    pub list_id: Option<u32>,
    /// The unit of each of its descriptors.
    pub ends: Vec<End>,
    /// What is left to copy, the run at hand last.
    pub runs: Vec<Run>,
    /// How much of that run is copied.
    pub at_bytes: u64,
    /// The piece that was read and is not written.
    pub read: Option<Segments>,
    /// What is at a medium, or was last, is the destination's half of a piece.
    pub writes: bool,
    /// Whether the piece at the destination's medium is stable when it is written.
    pub durable: bool,
    /// The token that is made.
    pub populates: Option<Populating>,
    /// The token whose blocks are copied.
    pub using: Option<Using>,
    /// What is written.
    pub fill: Fill,
    /// Blocks were cleared that a volatile cache may hold.
    pub unstable: bool,
}

/// What a copy writes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// What its source has.
    #[default]
    Blocks,
    /// Nothing: the blocks become zeroes.
    Clear {
        /// Their space is given back.
        deallocate: bool,
    },
    /// Zeroes.
    Zeroes,
}

/// POPULATE TOKEN.
#[derive(Debug)]
pub struct Populating {
    /// The token.
    pub name: TokenName,
    /// Blocks that it does not stand for yet, the next ones last.
    pub ranges: Vec<Blocks>,
    /// How many it stands for.
    pub blocks: u64,
    /// The claim of the next ones, granted or not.
    pub claim: Option<Stamp>,
}

/// WRITE USING TOKEN.
#[derive(Debug)]
pub struct Using {
    /// The token.
    pub name: TokenName,
    /// How it stands with its home.
    pub asked: Asked,
    /// What was asked for.
    pub write: WriteUsingToken,
}

/// Whether the home of a token has vouched for the piece at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is to be asked.
    Not,
    /// It has not answered.
    Waits,
    /// The token was good when the piece had been read.
    Good,
}

/// A copy source or destination.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The unit.
    pub unit: Key<Unit>,
    /// The map lets this nexus read only.
    pub read_only: bool,
}

impl Default for End {
    /// Nobody: no run leads there.
    fn default() -> Self {
        Self { unit: Key::nobody(), read_only: true }
    }
}

/// One thing that is done to all of a series' blocks.
#[derive(Debug, Clone, Copy)]
pub enum Pass {
    /// Data-Out is written, again and again where it is shorter; zeroes where there is none.
    Store {
        /// On stable storage before the next pass.
        durable: bool,
    },
    /// As `Store`, or as `Clear` where the Data-Out are zeroes.
    Same {
        /// Their space is given back.
        deallocate: bool,
    },
    /// The blocks are read.
    Check,
    /// The blocks are read, and compared with Data-Out.
    Compare,
    /// The blocks become zeroes.
    Clear {
        /// Their space is given back.
        deallocate: bool,
    },
    /// The first blocks are read, and the initiator is told which are zeroes (GET LBA STATUS).
    Survey {
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
    /// All that was written is made durable.
    Flush,
}

/// What VERIFY compares the medium with: Data-Out, of which the task's inflow has what is not compared yet.
#[derive(Debug)]
pub struct Comparison {
    /// Bytes that come.
    pub data_bytes: u32,
    /// BYTCHK 11b: it is one block, with which each is compared.
    pub repeats: bool,
    /// Bytes that came unasked or were asked for.
    pub called_bytes: u32,
    /// Bytes of it that the task may hold at a time; 0 while it waits for memory, with what came unasked.
    pub booked_bytes: u32,
    /// Bytes that were compared, and are gone.
    pub compared_bytes: u32,
}

impl Task {
    /// Nobody's, to be begun.
    #[must_use]
    pub fn blank() -> Self {
        Self {
            session: Key::nobody(),
            name: TaskId::NOBODY,
            lun: None,
            unit: None,
            class: CommandClass::Unrestricted,
            operation: Operation::Other,
            times: Times { arrived: Moment::ORIGIN, handed: None, back: None },
            work: Work::None,
            cdb_rest: Vec::new(),
            inflow: VecDeque::new(),
            inflow_bytes: 0,
            shelved_bytes: 0,
            early_bytes: 0,
            is_refused: false,
            flush_due: false,
            outflow: VecDeque::new(),
            at_medium: 0,
            booked_bytes: 0,
            booked_as: Kind::Swift,
            ended: None,
            aborted: false,
            awaited_by: Vec::new(),
            listed: false,
            waits: None,
            owed: Owed { received_bytes: 0, since: Moment::ORIGIN },
            pieces: VecDeque::with_capacity(PIECES_MAX),
            progressed: Moment::ORIGIN,
        }
    }

    /// Whether it goes on behind a command that has its status.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.name == TaskId::NOBODY
    }

    /// Makes a command that has just come of one that is gone, whose queues are empty and keep their memory.
    pub fn begin(&mut self, session: Key<Session>, name: TaskId, arrived: Moment) {
        self.session = session;
        self.name = name;
        self.lun = None;
        self.unit = None;
        self.class = CommandClass::Unrestricted;
        self.operation = Operation::Other;
        self.times = Times { arrived, handed: None, back: None };
        self.inflow_bytes = 0;
        self.shelved_bytes = 0;
        self.early_bytes = 0;
        self.is_refused = false;
        self.flush_due = false;
        self.at_medium = 0;
        self.booked_bytes = 0;
        self.booked_as = Kind::Swift;
        self.ended = None;
        self.aborted = false;
        self.listed = false;
        self.waits = None;
        self.progressed = arrived;
        self.owed = Owed { received_bytes: 0, since: arrived };
        let is_empty = self.inflow.is_empty() && self.outflow.is_empty() && self.pieces.is_empty();
        debug_assert!(is_empty && self.cdb_rest.is_empty() && self.awaited_by.is_empty());
    }

    /// Lets go of what the task holds.
    #[inline]
    pub fn end(&mut self) {
        self.work = Work::None;
        self.cdb_rest.clear();
        for queue in [&mut self.inflow, &mut self.outflow] {
            if !queue.is_empty() {
                queue.clear();
            }
        }
        if !self.pieces.is_empty() {
            self.pieces.clear();
        }
    }
}
