//! What all parts of a world share: the clock, the agenda, chance, the network, the media, the mail.
//!
//! A world runs on one thread. The hub never calls into the gateway; it only notes what is to happen, and when.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portico_backstores::Medium;
use portico_control::core::Mail as ControlMail;
use portico_iscsi::moment::Moment;
use portico_model::identity::UnitId;
use portico_model::message::ToControl;
use portico_ring::{Completion, Message, Segments, Wait};
use portico_shard::turn::Mail;

use crate::disk::Disk;
use crate::history::{End, History};
use crate::network::Connection;
use crate::plant::Plant;
use crate::random::Random;

pub(crate) type Shared = Rc<RefCell<Hub>>;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A shard takes a turn, unless it has taken one since.
    Turn { shard: usize, version: u64 },
    /// Control reads its mail, or its clock.
    Control,
    /// A helper of control is done.
    Helper { incarnation: u64, mail: Box<ControlMail<Medium>> },
    /// Bytes arrive at an end of a connection.
    Arrive { connection: usize, at: Side },
    /// A shard's send goes out.
    Transmit { shard: usize, operation: u64 },
    /// The next stage of an operation at a medium.
    Stage { shard: usize, operation: u64 },
    /// The sync whose end was told too early.
    LateSync { disk: usize, sequence: u64 },
    /// An initiator looks what there is to do.
    Initiator(usize),
    /// The world does something that nobody asked for.
    Mischief,
    /// The process is killed, at a moment that somebody has chosen.
    Kill { incarnation: u64 },
    /// The configuration is again what it was.
    Restore,
    /// The write of a ledger begins, or goes on.
    Ledger { incarnation: u64, write: Box<LedgerWrite> },
    /// A holder that a restart left without a session is waited for no longer.
    PatienceEnds { incarnation: u64 },
}

/// A ledger on its way to the disk.
#[derive(Clone, Debug)]
pub(crate) struct LedgerWrite {
    pub(crate) unit: UnitId,
    pub(crate) device: Arc<str>,
    pub(crate) content: Vec<u8>,
    /// Steps that have been made.
    pub(crate) made: usize,
    /// The step after which it rests.
    pub(crate) rests_at: usize,
    /// The step that fails, and whether it does its work all the same.
    pub(crate) fails: Option<(usize, bool)>,
}

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Target,
    Initiator,
}

/// How long things take at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) network: Duration,
    pub(crate) medium: Duration,
    pub(crate) turn: Duration,
    pub(crate) control: Duration,
    pub(crate) helper: Duration,
}

impl Pace {
    pub(crate) fn drawn(random: &mut Random) -> Self {
        let mut any = |microseconds: [u64; 3]| Duration::from_micros(microseconds[random.index(3)]);
        Self {
            network: any([20, 200, 5_000]),
            medium: any([50, 2_000, 50_000]),
            turn: any([5, 50, 1_000]),
            control: any([5, 50, 5_000]),
            helper: any([100, 2_000, 50_000]),
        }
    }

    /// Media take longer than all else.
    pub(crate) fn with_slow_media(self) -> Self {
        let microseconds = Duration::from_micros;
        Self {
            network: self.network.min(microseconds(200)),
            medium: microseconds(50_000),
            turn: self.turn.min(microseconds(50)),
            control: self.control.min(microseconds(50)),
            helper: self.helper.min(microseconds(2_000)),
        }
    }
}

/// What an adopted descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Listener,
    Connection(usize),
    Disk(usize),
}

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) thing: Thing,
    pub(crate) descriptor: Option<OwnedFd>,
}

/// What a shard has in flight.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) tag: u64,
    pub(crate) file: usize,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    Accept,
    Receive(Segments),
    Send(Message),
    Transfer(crate::media::Transfer),
    Sync(crate::media::Sync),
    Clear(crate::media::Clear),
}

/// A shard's ring and its letters.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) files: Vec<Option<File>>,
    pub(crate) operations: BTreeMap<u64, Operation>,
    pub(crate) done: VecDeque<Completion>,
    pub(crate) letters: VecDeque<Mail>,
    /// How the last turn ended.
    pub(crate) wait: Option<Wait>,
    pub(crate) turn_at: Option<Moment>,
    pub(crate) turn_version: u64,
    pub(crate) completions: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) now: Moment,
    pub(crate) random: Random,
    pub(crate) pace: Pace,
    pub(crate) plant: Option<Plant>,
    /// Of each shard's ring.
    pub(crate) operations_max: usize,
    agenda: BTreeMap<(Moment, u64), Event>,
    entries: u64,
    next_operation: u64,
    pub(crate) desks: Vec<Desk>,
    pub(crate) control_mail: VecDeque<ToControl>,
    pub(crate) connections: Vec<Connection>,
    /// By the inode of the descriptor that stands for it.
    pub(crate) things: BTreeMap<u64, Thing>,
    pub(crate) disks: Vec<Disk>,
    /// Something was just promised that such an end would put to the test.
    pub(crate) opportune: Option<End>,
    /// Initiators.
    pub(crate) ports: usize,
    pub(crate) history: History,
}

impl Hub {
    pub(crate) fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed);
        let pace = Pace::drawn(&mut random);
        Self {
            now: Moment::from_millis(1),
            random,
            pace,
            plant,
            operations_max: usize::MAX,
            agenda: BTreeMap::new(),
            entries: 0,
            next_operation: 0,
            desks: Vec::new(),
            control_mail: VecDeque::new(),
            connections: Vec::new(),
            things: BTreeMap::new(),
            disks: Vec::new(),
            opportune: None,
            ports: 0,
            history: History::new(),
        }
    }

    /// Notes what is to happen after so long.
    pub(crate) fn plan(&mut self, after: Duration, event: Event) {
        self.plan_at(self.now + after, event);
    }

    pub(crate) fn plan_at(&mut self, at: Moment, event: Event) {
        self.entries += 1;
        self.agenda.insert((at.max(self.now), self.entries), event);
    }

    /// Goes on to what happens next.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let ((at, _), event) = self.agenda.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// Some time up to `longest`.
    pub(crate) fn delay(&mut self, longest: Duration) -> Duration {
        self.random.moment_within(longest)
    }

    /// A shard has something to do: it takes a turn soon.
    pub(crate) fn wake_shard(&mut self, shard: usize) {
        let after = self.delay(self.pace.turn);
        self.turn_at(shard, self.now + after);
    }

    /// A shard takes its next turn at that time, or before.
    pub(crate) fn turn_at(&mut self, shard: usize, at: Moment) {
        let desk = &mut self.desks[shard];
        if desk.turn_at.is_some_and(|planned| planned <= at) {
            return;
        }
        desk.turn_at = Some(at);
        desk.turn_version += 1;
        let version = desk.turn_version;
        self.plan_at(at, Event::Turn { shard, version });
    }

    pub(crate) fn wake_control(&mut self) {
        let after = self.delay(self.pace.control);
        self.plan(after, Event::Control);
    }

    /// Whether a shard's ring has room for one more operation.
    pub(crate) fn has_room(&self, shard: usize) -> bool {
        self.desks[shard].operations.len() < self.operations_max
    }

    /// Puts an operation in flight.
    pub(crate) fn start(&mut self, shard: usize, file: usize, tag: u64, work: Work) -> u64 {
        self.next_operation += 1;
        assert!(self.desks[shard].files[file].is_some(), "an Fd is not used after close or release");
        self.desks[shard].operations.insert(self.next_operation, Operation { tag, file, work });
        self.next_operation
    }

    /// Ends an operation: its completion waits for the shard.
    pub(crate) fn complete(&mut self, shard: usize, completion: Completion) {
        let desk = &mut self.desks[shard];
        desk.completions += 1;
        desk.done.push_back(completion);
        self.wake_shard(shard);
    }
}
