//! From a session's list to a message: PDUs are made here, in the order in which they are sent.

use portico_backstores::Queue as _;
use portico_iscsi::moment::Moment;
use portico_iscsi::session::{Completion, Seat, TaskId};
use portico_iscsi::wire::{BHS_BYTES, Bhs};
use portico_ring::{Arena, Buffer, Class, Lent, Message};
use portico_scsi::sense::Outcome;

use super::{Core, Record};
use crate::connection::Connection;
use crate::driver::Driver;
use crate::inbound::take_fitting;
use crate::outgoing::{Outgoing, Rare};
use crate::pdu::{PDU_SLAB_BYTES, Pdu};
use crate::pool::MESSAGE_HEADER_BYTES;
use crate::session::{Link, Session};
use crate::slab::Key;
use crate::task::{Task, Work};
use crate::unit::{Blocks, Unit};

/// Bytes after which a message takes no further PDU: what one connection may keep from the others at a time, and how much
/// memory one that does not read can hold.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The same while other connections have something to send, too: as long as the kernel copies one's message, nobody else is
/// answered.
const MESSAGE_BYTES_IN_COMPANY: usize = 256 << 10;

/// How long after another one has spoken a connection counts as in company.
const COMPANY_NS: u64 = 10_000_000;

/// Parts that one PDU may need: its header, the buffers of a data segment of 256 KiB in the smallest chunks, padding.
const PARTS_PER_PDU: usize = 68;

/// Bytes of the slab that one PDU may need beside rare ones: header, sense, padding, digests.
const SLAB_PER_PDU: usize = PDU_SLAB_BYTES + 2 + portico_scsi::sense::SENSE_BYTES_MAX + 4;

/// Data of a rare PDU up to this length go into the slab, longer ones into buffers.
const RARE_SLAB_MAX: usize = 4096;

const _: () = assert!(RARE_SLAB_MAX + 2 * PDU_SLAB_BYTES <= MESSAGE_HEADER_BYTES);

/// A session, and the seat in it of the connection that speaks.
type Place = (Key<Session>, Seat);

/// What became of one entry of the list.
enum Emitted {
    /// It has said all that it has to say for now.
    Through,
    /// It has more, for which this message has no room.
    Full,
}

impl<D: Driver> Core<D> {
    /// Fills a message from the list of a session's connection.
    pub fn emit(&mut self, session_key: Key<Session>, seat: Seat, message: &mut Message) {
        let scarce = self.budget.is_scarce();
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.wire.hold_window(scarce || session.is_short());
        }
        self.note_flushed(session_key, seat);
        loop {
            let Some(mut session) = self.sessions.get_mut(session_key) else { return };
            let over = session.over.is_some();
            if !session.fences.is_empty() {
                if self.is_held_at_fence((session_key, seat)) {
                    return;
                }
                let Some(again) = self.sessions.get_mut(session_key) else { return };
                session = again;
            }
            let Some(link) = session.link_mut(seat) else { return };
            let Some(entry) = link.outgoing.pop_front() else {
                // With nothing in work there is no answer that would tell of a window that is open again.
                let mut bhs = [0; BHS_BYTES];
                let goes_on = !over && !link.leaves;
                if goes_on && message.admits(1, PDU_SLAB_BYTES) && session.wire.window_update(seat, &mut bhs)
                {
                    Pdu::begin(message, &bhs, session.wire.digests(seat)).end();
                }
                return;
            };
            let longest = self.longest_message;
            if !message.admits(PARTS_PER_PDU, SLAB_PER_PDU) || message.length_bytes() >= longest {
                link.outgoing.push_front(entry);
                return;
            }
            let emitted = match &entry {
                Outgoing::DataIn(task) => self.emit_data_in((session_key, seat), *task, message),
                Outgoing::Status(task) => self.emit_status((session_key, seat), *task, message),
                Outgoing::R2t(task) => self.emit_r2t((session_key, seat), *task, message),
                Outgoing::Rare(rare) => self.emit_rare((session_key, seat), rare, message),
            };
            if let Emitted::Full = emitted
                && let Some(link) =
                    self.sessions.get_mut(session_key).and_then(|session| session.link_mut(seat))
            {
                link.outgoing.push_front(entry);
                return;
            }
        }
    }

    /// A connection has its turn to send. Where another had it lately, messages are shorter.
    #[inline]
    pub fn note_speaker(&mut self, connection: Key<Connection>) {
        if connection != self.speaker {
            self.speaker = connection;
            self.company_until = Moment(self.now.0.saturating_add(COMPANY_NS));
        }
        let is_alone = self.company_until <= self.now;
        self.longest_message = if is_alone { MESSAGE_BYTES_MAX } else { MESSAGE_BYTES_IN_COMPANY };
    }

    /// A connection stands no longer in the list of those to flush.
    pub fn note_flushed(&mut self, session: Key<Session>, seat: Seat) {
        let link = self.sessions.get_mut(session).and_then(|session| session.link_mut(seat));
        link.into_iter().for_each(|link| link.flush_listed = false);
    }

    /// Nothing of what a connection has to send went into a message: there was no memory for it. It is tried again in every
    /// turn, since nobody says when some has come back.
    pub fn note_unsent(&mut self, connection: Key<Connection>, place: Option<Place>) {
        let Some((session, seat)) = place else { return };
        let link = self.sessions.get(session).and_then(|session| session.link(seat));
        // What waits at a fence is sent when somebody has acknowledged something, not when there is memory.
        let waits_for_memory =
            |link: &Link| link.outgoing.front().is_some_and(|first| first.fence().is_none());
        if link.is_some_and(waits_for_memory) && !self.unsent.contains(&connection) {
            self.unsent.push(connection);
        }
    }

    fn emit_data_in(&mut self, place: Place, key: Key<Task>, message: &mut Message) -> Emitted {
        let (session_key, seat) = place;
        loop {
            let Some(session) = self.sessions.get_mut(session_key) else { return Emitted::Through };
            let Some(task) = self.tasks.get_mut(key) else { return Emitted::Through };
            if task.aborted || task.ended.is_some_and(|outcome| outcome != Outcome::GOOD) {
                // It failed on the way: what is left to send is its status.
                task.listed = false;
                self.settle(key);
                return Emitted::Through;
            }
            if !message.admits(PARTS_PER_PDU, SLAB_PER_PDU) || message.length_bytes() >= self.longest_message
            {
                return Emitted::Full;
            }
            let unit = task.unit.and_then(|unit| self.units.get(unit));
            if let Some(refusal) = refusal_of_lent(task, session, unit, self.now) {
                (task.ended, task.listed) = (None, false);
                self.finish(key, refusal);
                return Emitted::Through;
            }
            let segment_max = session.wire.peer_segment_bytes_max(seat);
            let Some((available, place_of_copy)) = what_is_ready(task, self.driver.arena(), segment_max)
            else {
                return Emitted::Full;
            };
            let mut bhs = [0; BHS_BYTES];
            let Some(segment) = session.wire.next_data_in(task.name, available, &mut bhs) else {
                // What is missing is not there yet, or there was nothing to send at all.
                task.listed = false;
                self.pump_read(key);
                self.settle(key);
                return Emitted::Through;
            };
            let mut pdu =
                Pdu::begin(message, &bhs, session.wire.digests(seat)).copied(session.wire.recovers());
            let length = segment.length_bytes as usize;
            push_data(task, unit, segment.offset_bytes, length, place_of_copy, &mut pdu);
            let copy = pdu.end();
            let fetched = match &mut task.work {
                Work::Read(read) => {
                    read.sent_bytes += segment.length_bytes;
                    !read.lent
                }
                _ => false,
            };
            self.keep(place, &bhs, copy);
            if fetched {
                // What is in a message is bounded by the message: the task may fetch more.
                self.unbook(key, length as u64);
                self.note_released();
            }
            if segment.ends_task {
                let moved_bytes = u64::from(segment.offset_bytes + segment.length_bytes);
                self.retire(key, moved_bytes);
                return Emitted::Through;
            }
        }
    }

    fn emit_status(&mut self, place: Place, key: Key<Task>, message: &mut Message) -> Emitted {
        let (session_key, seat) = place;
        let Some(session) = self.sessions.get_mut(session_key) else { return Emitted::Through };
        let Some(task) = self.tasks.get(key).filter(|task| !task.aborted) else { return Emitted::Through };
        let outcome = task.ended.unwrap_or(Outcome::GOOD);
        let unit = task.unit.and_then(|unit| self.units.get(unit));
        let format = unit.map(|unit| unit.state.sense_format()).unwrap_or_default();
        let sense = outcome.sense_data(format);
        let sense = sense.as_ref().map_or(&[][..], |sense| sense.as_bytes());
        let sense_bytes = u16::try_from(sense.len()).expect("sense data is short");
        let mut bhs = [0; BHS_BYTES];
        let completion = Completion { status: outcome.status.code(), sense_bytes };
        session.wire.response(task.name, completion, &mut bhs);
        let mut pdu = Pdu::begin(message, &bhs, session.wire.digests(seat)).copied(session.wire.recovers());
        if sense_bytes > 0 {
            pdu.bytes(&sense_bytes.to_be_bytes());
            pdu.bytes(sense);
        }
        let copy = pdu.end();
        let moved_bytes = match &task.work {
            Work::Write(write) => write.stored_bytes.into(),
            Work::Read(read) => read.sent_bytes.into(),
            _ => 0,
        };
        self.keep(place, &bhs, copy);
        self.retire(key, moved_bytes);
        Emitted::Through
    }

    /// Keeps a PDU as long as it may be asked for again.
    fn keep(&mut self, (session, seat): Place, header: &Bhs, copy: Option<Vec<u8>>) {
        let Some(data) = copy else { return };
        let link = self.sessions.get_mut(session).and_then(|session| session.link_mut(seat));
        if let Some(kept) = link.and_then(|link| link.kept.as_mut()) {
            kept.keep_within(&mut self.budget, header, data);
        }
    }

    /// The status of a task has been put into a message: it is recorded, and gone.
    fn retire(&mut self, key: Key<Task>, moved_bytes: u64) {
        let Some(task) = self.tasks.get(key) else { return };
        let Task { unit, operation, times, ended, .. } = *task;
        self.record(&Record { unit, operation, times, ended, moved_bytes });
        self.release(key);
    }

    fn emit_r2t(&mut self, place: Place, key: Key<Task>, message: &mut Message) -> Emitted {
        let (session_key, seat) = place;
        loop {
            let room_bytes = self.r2t_room_bytes(key);
            let Some(session) = self.sessions.get_mut(session_key) else { return Emitted::Through };
            let Some(task) = self.tasks.get(key) else { return Emitted::Through };
            if task.aborted || task.ended.is_some() {
                return Emitted::Through;
            }
            if !message.admits(1, PDU_SLAB_BYTES) {
                return Emitted::Full;
            }
            let mut bhs = [0; BHS_BYTES];
            let Some(range) = session.wire.next_r2t(task.name, room_bytes, &mut bhs) else {
                return Emitted::Through;
            };
            let pdu = Pdu::begin(message, &bhs, session.wire.digests(seat)).copied(session.wire.recovers());
            let copy = pdu.end();
            self.keep(place, &bhs, copy);
            self.called(key, range.length_bytes);
        }
    }

    fn emit_rare(&mut self, place: Place, rare: &Rare, message: &mut Message) -> Emitted {
        let (session_key, seat) = place;
        if matches!(rare, Rare::Fence { .. }) {
            // Of one that is over.
            return Emitted::Through;
        }
        let now = self.now;
        let again;
        let data: &[u8] = match rare {
            Rare::Pong { data, .. }
            | Rare::Text { data, .. }
            | Rare::Event { data, .. }
            | Rare::Moved { data, .. } => data,
            Rare::Reject { header, .. } => header,
            Rare::Again { header } => match self.kept_data(place, header) {
                Some(kept) => {
                    again = kept;
                    &again
                }
                None => return Emitted::Through,
            },
            // What was refused goes back: its header, which is written below.
            Rare::RejectText { .. } => &[0; BHS_BYTES],
            Rare::Ping
            | Rare::TaskManagement { .. }
            | Rare::Logout { .. }
            | Rare::Fence { .. }
            | Rare::Dropped
            | Rare::AskForLogout { .. } => &[],
        };
        let Some(long) = self.long_data(data) else { return Emitted::Full };
        let slab = if long.is_empty() { data.len() } else { 0 };
        if !message.admits(2 + long.len(), PDU_SLAB_BYTES + slab + 4) {
            return Emitted::Full;
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return Emitted::Through };
        let mut bhs = [0; BHS_BYTES];
        let length_bytes = u32::try_from(data.len()).expect("a rare PDU's data are short");
        let (finished, rejected) = rare_header((session, seat), rare, now, length_bytes, &mut bhs);
        let keeps = session.wire.recovers() && !matches!(rare, Rare::Again { .. });
        let mut pdu = Pdu::begin(message, &bhs, session.wire.digests(seat)).copied(keeps);
        match rejected {
            Some(header) => pdu.bytes(&header),
            None if long.is_empty() => pdu.bytes(data),
            None => long.into_iter().for_each(|part| pdu.buffer(part)),
        }
        let copy = pdu.end();
        self.keep(place, &bhs, copy);
        if let Some(name) = finished {
            self.retire_request(session_key, name);
        }
        match rare {
            Rare::Logout { leaving: Some(leaving), .. } => self.logged_out(session_key, seat, *leaving),
            Rare::Again { header } => self.sent_again(place, header),
            _ => {}
        }
        Emitted::Through
    }

    /// The data of a PDU that goes out once more; `None` where it does not: its command may have been aborted, and its data
    /// let go of, since it was asked for.
    fn kept_data(&self, (session, seat): Place, header: &Bhs) -> Option<Vec<u8>> {
        let kept = self.sessions.get(session)?.link(seat)?.kept.as_ref()?;
        kept.data_of(header).map(<[u8]>::to_vec)
    }

    fn sent_again(&mut self, (session, seat): Place, header: &Bhs) {
        let link = self.sessions.get_mut(session).and_then(|session| session.link_mut(seat));
        link.and_then(|link| link.kept.as_mut()).into_iter().for_each(|kept| kept.redeem(header));
        self.book_kept(session);
    }

    /// Data of a rare PDU that are too long for a message's slab, in buffers; none where they are not. `None` when there
    /// is no memory for them now.
    fn long_data(&self, data: &[u8]) -> Option<Vec<Buffer>> {
        let mut parts = Vec::new();
        let mut rest = if data.len() > RARE_SLAB_MAX { data } else { &[] };
        while !rest.is_empty() {
            let mut buffer = take_fitting(self.driver.arena(), rest.len())?;
            let (now, later) = rest.split_at(rest.len().min(buffer.capacity()));
            buffer.set_len(now.len());
            buffer.copy_from_slice(now);
            parts.push(buffer);
            rest = later;
        }
        Some(parts)
    }

    /// A request that was no command has been answered.
    fn retire_request(&mut self, session_key: Key<Session>, name: TaskId) {
        let task = self.sessions.get(session_key).and_then(|session| session.task(name));
        task.into_iter().for_each(|task| self.release(task));
    }
}

/// Writes the header of a rare PDU; the request that it ends, and what it rejects.
fn rare_header(
    (session, seat): (&mut Session, Seat),
    rare: &Rare,
    now: Moment,
    length_bytes: u32,
    bhs: &mut Bhs,
) -> (Option<TaskId>, Option<Bhs>) {
    let mut rejected = None;
    let finished = match rare {
        Rare::Pong { name, .. } => {
            session.wire.nop_in(*name, length_bytes, bhs);
            Some(*name)
        }
        Rare::Ping => {
            session.wire.ping(seat, now, bhs);
            None
        }
        Rare::TaskManagement { name, result, additional } => {
            session.wire.task_management_response(*name, *result, *additional, bhs);
            Some(*name)
        }
        Rare::Logout { name, result, .. } => {
            session.wire.logout_response(*name, *result, bhs);
            Some(*name)
        }
        Rare::Text { name, part, .. } => {
            session.wire.text_response(*name, *part, bhs);
            Some(*name)
        }
        Rare::RejectText { name, violation } => {
            rejected = session.wire.reject_text(*name, violation, bhs);
            Some(*name)
        }
        Rare::Reject { reason, header } => {
            session.wire.reject(seat, *reason, header, bhs);
            None
        }
        Rare::Event { lun, .. } => {
            session.wire.scsi_event(seat, *lun, length_bytes, bhs);
            None
        }
        Rare::Again { header } => {
            session.wire.again(seat, header, bhs);
            None
        }
        Rare::Moved { header, .. } => {
            session.wire.moved(seat, header, bhs);
            None
        }
        Rare::Fence { .. } => unreachable!("a fence is no PDU"),
        Rare::Dropped => {
            session.wire.announce_drop(seat, bhs);
            None
        }
        Rare::AskForLogout { seconds } => {
            session.wire.ask_for_logout(seat, *seconds, bhs);
            None
        }
    };
    (finished, rejected)
}

/// What a READ ends with whose medium is read as it is sent, where the state of now does not admit it any more: it has
/// nothing at the medium for which a fence could wait. One of which nothing is sent gets a copy where a claim has come
/// meanwhile.
#[inline]
fn refusal_of_lent(task: &mut Task, session: &Session, unit: Option<&Unit>, now: Moment) -> Option<Outcome> {
    let Work::Read(read) = &mut task.work else { return None };
    let unit = unit.filter(|_| read.lent)?;
    let block_bytes = unit.state.geometry.block_length();
    let blocks = Blocks::at(read.offset_bytes, read.length_bytes.into(), block_bytes);
    let claimed = unit.lends_from > now || !unit.arbiter.is_open() && !unit.arbiter.admits(None, blocks);
    if claimed && read.sent_bytes == 0 {
        (read.lent, read.handed_bytes, read.ready_bytes) = (false, 0, 0);
        task.ended = None;
    }
    unit.admits(session.nexus, session.relative_target_port, task.class, blocks).err()
}

/// Bytes of a task's data-in that can be sent, and a chunk for the next PDU's where they are lent and are sent as a copy; what is in
/// a message is bounded by the message. `None`: there is none now, and half of it is sent.
#[inline]
fn what_is_ready(task: &mut Task, arena: &Arena, segment_max: u32) -> Option<(u32, Option<Buffer>)> {
    let Work::Read(read) = &mut task.work else { return Some((u32::MAX, None)) };
    if !read.lent || !read.copied {
        return Some((read.ready_bytes, None));
    }
    let length = (read.length_bytes - read.sent_bytes).min(segment_max) as usize;
    let begins = read.sent_bytes == 0;
    let mut classes = Class::ALL.into_iter().filter(|class| class.bytes() >= length);
    let is_scarce = begins && arena.is_short();
    match classes.find_map(|class| if is_scarce { None } else { arena.take(class) }) {
        None if begins => {
            // It waits for memory in line, as others do.
            (read.lent, read.handed_bytes, read.ready_bytes) = (false, 0, 0);
            task.ended = None;
            Some((0, None))
        }
        None => None,
        place => Some((read.ready_bytes, place)),
    }
}

/// Moves `length` bytes of a task's data-in, from `offset` on, into a PDU; through `place`, where they are copied.
fn push_data(
    task: &mut Task,
    unit: Option<&Unit>,
    offset: u32,
    length: usize,
    place: Option<Buffer>,
    pdu: &mut Pdu<'_>,
) {
    if let Work::Read(read) = &task.work
        && read.lent
    {
        let queue = unit.and_then(|unit| unit.queue.as_ref()).expect("a unit that lends has a queue");
        let lent = queue.lend(read.offset_bytes + u64::from(offset), length);
        let lent = lent.expect("a range that was lent as a whole is lent in parts");
        match place {
            None => pdu.lent(Lent::new(lent.owner, lent.range)),
            Some(mut copy) => {
                copy.truncate(length);
                lent.copy_to(&mut copy);
                pdu.buffer(copy);
            }
        }
        return;
    }
    let mut rest = length;
    while rest > 0 {
        let front = task.outflow.front_mut().expect("what is ready is there");
        let part = if front.len() > rest {
            front.split_to(rest)
        } else {
            task.outflow.pop_front().expect("it was just there")
        };
        rest -= part.len();
        pdu.buffer(part);
    }
}
