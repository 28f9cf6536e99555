//! A session on its home shard: the protocol's session, the nexus, and the logical units that it sees.

use std::collections::VecDeque;
use std::sync::Arc;

use portico_iscsi::discovery::TextExchange;
use portico_iscsi::login::{Completed, SessionType};
use portico_iscsi::session::{CONNECTIONS_MAX, Seat, TaskId};
use portico_model::identity::{SessionId, TargetId, UnitId};
use portico_model::lun_map::{LunEntry, LunMap};
use portico_model::message::{EndReason, Service};
use portico_scsi::attention::{Attentions, UnitAttention};
use portico_scsi::copy_results::CopyRecord;
use portico_scsi::device_server::{Context, NexusState};
use portico_scsi::ledger::TargetPort;
use portico_scsi::lun::{AddressMethod, Lun};
use portico_scsi::reservation::NexusId;

use crate::budget::Holding;
use crate::connection::Connection;
use crate::core::Lines;
use crate::fencing::Fencing;
use crate::kept::{KEPT_BYTES_MAX, Kept};
use crate::outgoing::{Outgoing, Rare};
use crate::slab::Key;
use crate::task::{PIECE_BYTES_MAX, PIECES_MAX, Task};
use crate::task_set::TaskSet;
use crate::unit::Unit;

/// The longest data segment that we send: what a READ has ready at a time fills it.
pub const SEND_BYTES_MAX: u32 = 256 << 10;

const _: () = assert!(SEND_BYTES_MAX as usize <= PIECES_MAX * PIECE_BYTES_MAX);

/// One session.
pub struct Session {
    /// Its name between threads.
    pub id: SessionId,
    /// Its I_T nexus.
    pub nexus: NexusId,
    /// The target; `None` for discovery.
    pub target: Option<TargetId>,
    /// The target's name, by which the configuration tells its port.
    pub target_name: Option<String>,
    /// The tag of the portal group that it came through: with the target's name, the target port (RFC 7143 §4.4.1).
    pub portal_group_tag: u16,
    /// The initiator's name, for discovery and for messages.
    pub initiator: Arc<str>,
    /// RFC 7143's half.
    pub wire: portico_iscsi::session::Session,
    /// Its timers, and whether it hears of events.
    pub service: Service,
    /// Its connections, by their seats; behind them what is left of those that were lost.
    pub links: Vec<Option<Link>>,
    /// It ends when its last connection does, for this reason: nothing more is understood of what comes.
    pub over: Option<EndReason>,
    /// The logical units that it sees, ascending by LUN.
    pub luns: Vec<LunState>,
    /// As control gave it.
    pub map: Arc<LunMap>,
    /// The same, as REPORT LUNS spells them.
    pub spelt: Vec<Lun>,
    /// How it spells them.
    pub address_method: AddressMethod,
    /// What RECEIVE COPY RESULTS tells of its copies, the oldest first.
    pub copies: Vec<CopyRecord>,
    /// RELATIVE TARGET PORT IDENTIFIER of its target port.
    pub relative_target_port: u16,
    /// All ports of its target.
    pub target_ports: Box<[TargetPort]>,
    /// The task of each name in `wire`.
    pub tasks: Vec<Option<Key<Task>>>,
    /// Whether one of its units wants memory aligned.
    pub wants_aligned: bool,
    /// Whether one of its units' media lends its memory.
    pub lends: bool,
    /// What it has of the shard's memory.
    pub holding: Holding,
    /// Commands that wait because it has had its share.
    pub waiting: u32,
    /// Responses that are fenced, in the order in which they are sent.
    pub fences: VecDeque<Fencing>,
}

/// A connection as its session sees it.
#[derive(Debug)]
pub struct Link {
    /// Which one.
    pub connection: Key<Connection>,
    /// PDUs to send, in order.
    pub outgoing: VecDeque<Outgoing>,
    /// What text it exchanges.
    pub exchange: TextExchange,
    /// Whether it stands in the list of those to flush.
    pub flush_listed: bool,
    /// A write has begun whose data will be asked for: it is to expect them.
    pub asks_for_data: bool,
    /// What may be asked for again, above recovery level 0.
    pub kept: Option<Box<Kept>>,
    /// It was logged out: nothing more is understood of what comes, and its end is not the session's.
    pub leaves: bool,
}

/// One logical unit as one nexus sees it.
#[derive(Debug)]
pub struct LunState {
    /// From the map.
    pub entry: LunEntry,
    /// The unit on this shard.
    pub unit: Key<Unit>,
    /// What the device server keeps of the nexus.
    pub nexus: NexusState,
    /// Commands in hand.
    pub tasks: u32,
    /// Of them, copies in the background: no commands any more.
    pub behind: u32,
    /// In what order commands begin.
    pub set: TaskSet,
    /// Those of them that wait because the session has had its share of memory.
    pub lines: Lines,
}

impl Link {
    /// A connection that has nothing to send yet, logged in like this.
    #[must_use]
    pub fn new(connection: Key<Connection>, login: &Completed) -> Self {
        Self {
            connection,
            outgoing: VecDeque::new(),
            exchange: TextExchange::new(login.session_type, login.target_name.clone()),
            flush_listed: false,
            asks_for_data: false,
            kept: None,
            leaves: false,
        }
    }

    /// What is left of a connection that was lost: PDUs of commands that wait for another.
    #[must_use]
    pub fn lost(outgoing: VecDeque<Outgoing>, kept: Option<Box<Kept>>) -> Self {
        Self {
            connection: Key::nobody(),
            outgoing,
            exchange: TextExchange::new(SessionType::Normal, None),
            flush_listed: false,
            asks_for_data: false,
            kept,
            leaves: false,
        }
    }

    /// Whether nobody sits there.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.connection == Key::nobody()
    }
}

impl Session {
    /// The connection of a seat, if it has not left.
    #[must_use]
    pub fn link(&self, seat: Seat) -> Option<&Link> {
        self.links.get(seat.index())?.as_ref()
    }

    /// The same, to be changed.
    pub fn link_mut(&mut self, seat: Seat) -> Option<&mut Link> {
        self.links.get_mut(seat.index())?.as_mut()
    }

    /// What a connection has sent and is about to send, of the commands that wait for another, sits down where it was lost.
    pub fn seat_lost(&mut self, seat: Seat, link: Link) {
        self.put(seat, link);
        self.shed_lost();
    }

    /// All that were lost keep no more than one connection does: the earliest give theirs.
    fn shed_lost(&mut self) {
        let mut lost: Vec<_> = self.wire.lost().map(|(seat, until)| (until, seat)).collect();
        lost.sort_unstable();
        let mut room_bytes = KEPT_BYTES_MAX;
        for (_, seat) in lost.into_iter().rev() {
            if let Some(kept) = self.link_mut(seat).and_then(|link| link.kept.as_mut()) {
                kept.shed(room_bytes);
                room_bytes = room_bytes.saturating_sub(kept.data_bytes());
            }
        }
    }

    /// A connection sits down.
    pub fn seat(&mut self, seat: Seat, mut link: Link) {
        link.kept = self.wire.recovers().then(Box::default);
        let fences = self.fences.iter().map(|fencing| Rare::Fence { serial: fencing.serial });
        link.outgoing.extend(fences.map(|fence| Outgoing::Rare(Box::new(fence))));
        self.put(seat, link);
    }

    fn put(&mut self, seat: Seat, link: Link) {
        if self.links.len() <= seat.index() {
            self.links.resize_with(seat.index() + 1, || None);
        }
        let before = self.links[seat.index()].replace(link);
        assert!(before.is_none(), "a seat has one connection");
    }

    /// Its connections.
    pub fn connections(&self) -> impl Iterator<Item = Key<Connection>> {
        self.links.iter().take(usize::from(CONNECTIONS_MAX)).flatten().map(|link| link.connection)
    }

    /// Whether connections were lost whose state is kept.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.links.iter().skip(usize::from(CONNECTIONS_MAX)).any(Option::is_some)
    }

    /// Where something is to be said that no connection in particular is for: that of `seat`, or any.
    #[must_use]
    pub fn speaker(&self, seat: Seat) -> Option<Key<Connection>> {
        let link = self.link(seat).filter(|link| !link.is_lost());
        link.map(|link| link.connection).or_else(|| self.connections().next())
    }

    /// Nothing of a task that was aborted is sent again.
    pub fn forget_sent(&mut self, name: TaskId) {
        let (seat, tag) = (self.wire.seat_of_task(name), self.wire.request(name).task_tag());
        let Some(link) = self.link_mut(seat) else { return };
        if let Some(kept) = &mut link.kept {
            kept.forget(tag);
            link.outgoing.retain(|entry| !entry.moves(tag));
        }
    }

    /// The initiator takes data segments of this length on a connection from now on.
    pub fn declare_segment_bytes(&mut self, seat: Seat, length_bytes: u32) {
        self.wire.set_peer_segment_bytes_max(seat, length_bytes.min(SEND_BYTES_MAX));
    }

    /// The index of the unit at `lun`.
    #[must_use]
    pub fn find(&self, lun: u16) -> Option<usize> {
        match self.luns.get(usize::from(lun)) {
            Some(state) if state.entry.lun == lun => Some(usize::from(lun)),
            _ => self.luns.binary_search_by_key(&lun, |state| state.entry.lun).ok(),
        }
    }

    /// Queues an attention on all logical units.
    pub fn establish_everywhere(&mut self, attention: UnitAttention) {
        self.luns.iter_mut().for_each(|state| state.nexus.establish(attention));
    }

    /// Puts another map in place. A LUN that still leads to the same unit keeps what is pending on it; the others begin
    /// as a nexus that is new to the unit. `unit_of` finds the unit on this shard. Commands in hand are the caller's to count
    /// again.
    pub fn remap(&mut self, map: Arc<LunMap>, unit_of: impl Fn(UnitId) -> Option<Key<Unit>>) {
        let mut before = std::mem::take(&mut self.luns);
        self.luns = states(&map, UnitAttention::PowerOn, unit_of);
        for state in &mut self.luns {
            let same = |old: &&mut LunState| old.entry.lun == state.entry.lun && old.unit == state.unit;
            if let Some(old) = before.iter_mut().find(same) {
                state.nexus = old.nexus;
                state.set = std::mem::take(&mut old.set);
            }
        }
        self.spelt = spell(&map, self.address_method);
        self.map = map;
    }

    /// What a command sees of the path that it came by; `at` is its index among the LUNs.
    #[must_use]
    pub fn context(&self, at: Option<usize>) -> Context<'_> {
        Context {
            luns: &self.spelt,
            relative_target_port: self.relative_target_port,
            target_ports: &self.target_ports,
            read_only: at.is_some_and(|at| self.luns[at].entry.read_only),
            carries_queries: self.wire.parameters().has_features_update(),
        }
    }

    /// Bytes of a write's data that count: no more than the initiator has, nor than the command takes.
    #[must_use]
    pub fn moved_bytes(&self, name: TaskId, required_bytes: u64) -> u32 {
        let command = self.wire.command(name);
        let expected = if command.write { command.expected_data_transfer_length } else { 0 };
        u32::try_from(required_bytes).map_or(expected, |required| required.min(expected))
    }

    /// Bytes of a write's data that the initiator has.
    #[must_use]
    pub fn announced_bytes(&self, name: TaskId) -> u32 {
        let command = self.wire.command(name);
        if command.write { command.expected_data_transfer_length } else { 0 }
    }

    /// Bytes of a write's data that come without an R2T (RFC 7143 §13.10, §13.11, §13.14).
    #[must_use]
    pub fn unsolicited_bytes(&self, name: TaskId) -> u32 {
        let command = self.wire.command(name);
        if self.wire.recovers() && self.wire.progress(name).is_settled {
            // Some of it may have been discarded for its digest, and is to be asked for.
            self.wire.solicited_bytes(name)
        } else if command.is_final {
            command.data_segment_length
        } else {
            command.expected_data_transfer_length.min(self.wire.parameters().first_burst_length)
        }
    }

    /// Whether it has had its share of the shard's memory, or data of it wait for a command that has not come: its window
    /// grows no further.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.holding.is_early() || self.waiting > 0
    }

    /// The task of this name.
    #[must_use]
    pub fn task(&self, name: TaskId) -> Option<Key<Task>> {
        self.tasks.get(name.slot()).copied().flatten()
    }
}

/// The state of a new nexus at each unit of `map`, with `greeting` pending (SAM-5 §5.14). A unit that this shard does not have
/// is left out; control opens units before it maps them.
pub fn states(
    map: &LunMap,
    greeting: UnitAttention,
    unit_of: impl Fn(UnitId) -> Option<Key<Unit>>,
) -> Vec<LunState> {
    map.entries()
        .iter()
        .filter_map(|entry| {
            let mut nexus = NexusState { attentions: Attentions::NONE };
            nexus.establish(greeting);
            Some(LunState {
                entry: *entry,
                unit: unit_of(entry.unit)?,
                nexus,
                tasks: 0,
                behind: 0,
                set: TaskSet::default(),
                lines: Lines::default(),
            })
        })
        .collect()
}

/// The LUNs of `map` as REPORT LUNS has them.
///
/// # Panics
/// Never: the numbers of a map are below what one level of addressing holds.
#[must_use]
pub fn spell(map: &LunMap, method: AddressMethod) -> Vec<Lun> {
    let spell = |entry: &LunEntry| Lun::encode(entry.lun, method).expect("a map's LUNs fit one level");
    map.entries().iter().map(spell).collect()
}
