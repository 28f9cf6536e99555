//! READs that are answered where they are understood.
//!
//! Most commands at a medium in memory are of one kind: a READ whose turn it is, of blocks that the medium lends, with one Data-In
//! PDU for all of its answer. Its header is written straight into the message of its connection, the bytes are lent to it, and
//! that was the command: no task is made, and nothing is looked up twice. What is different in any way takes the way of all
//! others from its beginning, for nothing has happened to it here.
//!
//! Such a READ is judged once. From then until its message is handed to the ring no letter is opened and no other connection is
//! heard: no state can come that refuses it, and no claim of its blocks that does not wait for the message
//! ([`Core::settle_lent`]). Therefore the message goes as soon as its connection has been heard (`Shard::send_answers`), and none
//! is begun while the connection is sending another.

use portico_backstores::Queue as _;
use portico_iscsi::framing::Digests;
use portico_iscsi::moment::Moment;
use portico_iscsi::session::{ReadInTurn, Seat};
use portico_iscsi::wire::{BHS_BYTES, ScsiCommand, TaskAttribute};
use portico_model::meter::Operation;
use portico_ring::{Lent, Message};
use portico_scsi::device_server;
use portico_scsi::lun::Lun;

use super::Core;
use crate::connection::Connection;
use crate::driver::Driver;
use crate::inbound::Inbound;
use crate::pdu::{PDU_SLAB_BYTES, Pdu};
use crate::session::Session;
use crate::slab::{Key, Slab};
use crate::unit::{Closing, Lasted, Unit};

/// Messages of such answers that one turn begins, beside those of all others.
const ANSWERS_PER_TURN: u32 = 128;

/// Parts of a message that an answer takes.
const PARTS_PER_ANSWER: usize = 2;

/// What the connection that is heard is answered.
#[derive(Default)]
pub struct Answers {
    message: Option<Message>,
    /// When its commands were understood.
    since: Moment,
    /// Its commands.
    given: Vec<Given>,
    /// Messages of this turn.
    messages: u32,
}

/// Commands in a row that were answered for one unit.
struct Given {
    unit: Key<Unit>,
    commands: u32,
    bytes: u64,
}

/// A READ that can be answered.
struct Read<'a> {
    turn: ReadInTurn<'a>,
    unit: Key<Unit>,
    /// Bytes that the device server has for the initiator.
    required_bytes: u64,
    /// What the initiator gets of them.
    lent: Lent,
}

impl Answers {
    /// With room for the commands of a turn, so that nothing is allocated later.
    #[must_use]
    pub fn with_capacity(commands: usize) -> Self {
        Self { given: Vec::with_capacity(commands), ..Self::default() }
    }

    /// Another turn has begun.
    pub fn begin_turn(&mut self) {
        self.messages = 0;
    }

    /// The message with the answers, if there are any.
    #[must_use]
    pub fn take(&mut self) -> Option<Message> {
        self.message.take()
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.is_none()
    }

    fn has_room(&self, message_bytes_max: usize) -> bool {
        match &self.message {
            None => self.messages < ANSWERS_PER_TURN,
            Some(message) => {
                message.admits(PARTS_PER_ANSWER, PDU_SLAB_BYTES) && message.length_bytes() < message_bytes_max
            }
        }
    }

    fn count(&mut self, unit: Key<Unit>, bytes: u64) {
        match self.given.last_mut().filter(|last| last.unit == unit) {
            Some(last) => (last.commands, last.bytes) = (last.commands + 1, last.bytes + bytes),
            None => self.given.push(Given { unit, commands: 1, bytes }),
        }
    }
}

impl<D: Driver> Core<D> {
    /// Answers the READs that have come next on a connection which is not sending, as far as they can be answered at once, and not
    /// more than `count_max`; how many.
    pub fn answer_reads(
        &mut self,
        key: Key<Connection>,
        (session, seat): (Key<Session>, Seat),
        inbound: &mut Inbound,
        count_max: usize,
    ) -> usize {
        let Some(state) = self.sessions.get(session).filter(|session| session.lends) else { return 0 };
        // What waits to be sent goes first.
        let is_silent = state.link(seat).is_some_and(|link| !link.leaves && link.outgoing.is_empty());
        if !is_silent || state.over.is_some() || self.quiescing || !self.managements.is_empty() {
            return 0;
        }
        self.note_speaker(key);
        let is_scarce = self.budget.is_scarce();
        let Self { sessions, units, answers, pool, now, longest_message, .. } = self;
        let Some(session) = sessions.get_mut(session) else { return 0 };
        session.wire.hold_window(is_scarce || session.is_short());
        let mut count = 0;
        while count < count_max
            && answers.has_room(*longest_message)
            && let Some(command) = inbound.front().and_then(read_command)
            && let Some(Read { turn, unit, required_bytes, lent }) =
                judge(session, seat, units, &command, *now)
        {
            answers.count(unit, lent.len() as u64);
            let message = answers.message.get_or_insert_with(|| {
                (answers.messages, answers.since) = (answers.messages + 1, *now);
                pool.message()
            });
            let mut header = [0; BHS_BYTES];
            turn.answer(required_bytes, *now, &mut header);
            let mut pdu = Pdu::begin(message, &header, Digests::NONE);
            pdu.lent(lent);
            pdu.end();
            inbound.skip(BHS_BYTES);
            inbound.saw(0);
            count += 1;
        }
        count
    }

    /// The answers of a connection are about to be sent: they are recorded.
    pub fn record_answers(&mut self) {
        let total_ns = self.now.nanoseconds_since(self.answers.since);
        let measures = self.measures;
        for Given { unit, commands, bytes } in self.answers.given.drain(..) {
            let Some(unit) = self.units.get_mut(unit) else { continue };
            if measures {
                unit.furnish(Operation::Read);
                let lasted = Lasted { waited_ns: Some(0), at_medium_ns: Some(0), total_ns };
                unit.note(Operation::Read, lasted, commands);
            }
            let meter = unit.meter.operation(Operation::Read);
            meter.commands += u64::from(commands);
            meter.bytes += bytes;
            if measures {
                meter.total_ns += total_ns * u64::from(commands);
            }
        }
    }
}

/// The command of a header, if it is one that reads.
#[inline]
fn read_command(header: &[u8; BHS_BYTES]) -> Option<ScsiCommand> {
    if ScsiCommand::reads(header) { ScsiCommand::parse(header).ok() } else { None }
}

/// Whether a READ can be answered at once, and with what. All that is asked of a READ on the way of all others is asked here.
#[inline]
fn judge<'a>(
    session: &'a mut Session,
    seat: Seat,
    units: &Slab<Unit>,
    command: &'a ScsiCommand,
    now: Moment,
) -> Option<Read<'a>> {
    let at = session.find(Lun::from_bytes(command.lun.0).number()?)?;
    let lun = &session.luns[at];
    let is_simple = matches!(command.attribute, TaskAttribute::Simple | TaskAttribute::Untagged);
    let unit_key = lun.unit;
    let unit = units.get(unit_key)?;
    let is_free = is_simple && !lun.set.is_restrained() && lun.tasks < unit.nexus_commands_max;
    let lends = unit.lends_from <= now && unit.arbiter.is_open();
    if !is_free || !lends || !unit.orphans.is_empty() || unit.closing != Closing::No {
        return None;
    }
    let context = session.context(Some(at));
    let (lba, blocks) =
        device_server::read_at_once(&unit.state, &lun.nexus, session.nexus, &context, &command.cdb)?;
    let block_bytes = u64::from(unit.state.geometry.block_length());
    let required_bytes = u64::from(blocks) * block_bytes;
    let turn = session.wire.read_in_turn(seat, command)?;
    let length = turn.data_in_bytes(required_bytes)?;
    let lent = unit.queue.as_ref()?.lend(lba.0 * block_bytes, length as usize)?;
    Some(Read { turn, unit: unit_key, required_bytes, lent: Lent::new(lent.owner, lent.range) })
}
