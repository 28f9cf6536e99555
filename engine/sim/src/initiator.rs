//! An initiator that does as its chance says: logs in, reads and writes what it can check, reserves, resets, aborts, falls
//! silent, breaks its connection, comes back. How it keeps to RFC 7143, and what it demands of the target, is
//! [`portico_iscsi::initiator`]'s.

use std::collections::BTreeMap;
use std::time::Duration;

use portico_iscsi::digest;
use portico_iscsi::framing::{Lengths, padding};
use portico_iscsi::initiator::{
    Completion, Event, Login, LoginFault, LoginPlan, Offer, Payload, Placement, Progress, Session, Tag,
};
use portico_iscsi::moment::Moment;
use portico_iscsi::violation::Violation;
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, Cid, DATA_SEGMENT_BYTES_MAX, Isid, LogoutReason, LunField, TaskAttribute, Tsih,
    data_segment_length,
};

use crate::command::{Menu, REFUSED, What, Wish};
use crate::history::{Oracle, Serial, Step};
use crate::hub::{self, Hub, Side};
use crate::management::Managing;
use crate::plant::Plant;

/// The target of every world.
pub(crate) const TARGET: &str = "iqn.2026-11.io.portico:sim";

/// Commands that an initiator keeps open at most.
const COMMANDS: u16 = 32;
/// A login that is not answered for so long is a failure of the gateway.
const LOGIN_PATIENCE: Duration = Duration::from_secs(60);
/// A command that is not answered for so long was aborted by somebody, or is a failure of the gateway. Media hang for less.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// Writes that an initiator asks for again at most.
const LOST_MAX: usize = 8;
/// How often an initiator looks that only waits.
const IDLE: Duration = Duration::from_secs(1);
/// How long it leaves a unit alone that refused something.
const REST: Duration = Duration::from_millis(50);

/// What an initiator is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Commands that it wants to have done.
    pub(crate) commands: u32,
    /// Open at a time.
    pub(crate) depth: usize,
    /// Of a session, where the target lets it have so many.
    pub(crate) connections: usize,
    /// Reserves, releases and resets.
    pub(crate) fences: bool,
    /// Loses connections, falls silent.
    pub(crate) unsteady: bool,
    /// Turns write caches on and off.
    pub(crate) tunes: bool,
    /// Asks now and then what targets there are.
    pub(crate) discovers: bool,
    /// Only reads, all there is, until it has read it.
    pub(crate) audits: bool,
    /// How long it thinks.
    pub(crate) thinks: Duration,
    pub(crate) menu: Menu,
}

#[derive(Debug)]
enum Phase {
    Away,
    LoggingIn {
        connection: usize,
        login: Box<Login>,
        since: Moment,
        discovers: bool,
    },
    Serving {
        /// Of one session. Where one of them is lost the session is left.
        lines: Vec<Line>,
        joining: Option<Joining>,
        tsih: Tsih,
        leaving: Option<Moment>,
    },
    /// A discovery session, which asks once and leaves.
    Discovering {
        line: Line,
        since: Moment,
    },
    Gone,
}

/// A connection in its full feature phase.
#[derive(Debug)]
struct Line {
    connection: usize,
    session: Box<Session>,
    inbox: Vec<u8>,
    frame: Option<Frame>,
}

/// A connection that is to be one more of the session.
#[derive(Debug)]
struct Joining {
    connection: usize,
    login: Box<Login>,
    inbox: Vec<u8>,
    since: Moment,
}

/// A command in flight.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) tag: Tag,
    /// Of its connection.
    pub(crate) line: usize,
    pub(crate) wish: Wish,
    pub(crate) asked: Step,
    since: Moment,
    /// Resets and preemptions of its unit before it; none where one was under way, which may have aborted it.
    resets: Option<u32>,
    buffer: Vec<u8>,
}

/// What follows a header.
#[derive(Debug)]
struct Frame {
    bhs: Bhs,
    placement: Option<Placement>,
    data_bytes: usize,
    rest_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Initiator {
    pub(crate) number: usize,
    pub(crate) habits: Habits,
    phase: Phase,
    pub(crate) serial: Serial,
    /// While it logs in.
    inbox: Vec<u8>,
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) managing: Vec<Managing>,
    /// Writes that sessions before this one were not answered.
    lost: Vec<Wish>,
    pub(crate) next_user: u64,
    /// Of its last login.
    plan: Option<LoginPlan>,
    mute_until: Moment,
    away_until: Moment,
    rest_until: Moment,
    /// When it looks again in any case.
    alarm: Moment,
    /// Where an audit is: unit and sector.
    pub(crate) audited: (usize, u64),
}

impl Initiator {
    pub(crate) const fn new(number: usize, habits: Habits) -> Self {
        Self {
            number,
            habits,
            phase: Phase::Away,
            serial: Serial(0),
            inbox: Vec::new(),
            pending: BTreeMap::new(),
            managing: Vec::new(),
            lost: Vec::new(),
            next_user: 0,
            plan: None,
            mute_until: Moment::ORIGIN,
            away_until: Moment::ORIGIN,
            rest_until: Moment::ORIGIN,
            alarm: Moment::NEVER,
            audited: (0, 0),
        }
    }

    pub(crate) const fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Looks what there is to do.
    pub(crate) fn wake(&mut self, hub: &mut Hub) {
        if self.alarm <= hub.now {
            self.alarm = Moment::NEVER;
        }
        match self.phase {
            Phase::Away if self.away_until <= hub.now => self.connect(hub),
            Phase::Away => {}
            Phase::LoggingIn { .. } => self.log_in(hub),
            Phase::Serving { .. } => self.serve(hub),
            Phase::Discovering { .. } => self.discover(hub),
            Phase::Gone => {}
        }
    }

    /// The connections of the session that serves, or asks what there is.
    fn lines(&mut self) -> &mut [Line] {
        match &mut self.phase {
            Phase::Serving { lines, .. } => lines,
            Phase::Discovering { line, .. } => std::slice::from_mut(line),
            Phase::Away | Phase::LoggingIn { .. } | Phase::Gone => &mut [],
        }
    }

    /// What a connection of the session is to it.
    pub(crate) fn session(&mut self, line: usize) -> Option<&mut Session> {
        self.lines().get_mut(line).map(|line| &mut *line.session)
    }

    /// Any of its connections.
    pub(crate) fn any_line(&mut self, hub: &mut Hub) -> usize {
        match self.lines().len() {
            0 | 1 => 0,
            several => hub.random.index(several),
        }
    }

    /// Looks again within that time.
    fn again(&mut self, hub: &mut Hub, longest: Duration) {
        let at = hub.now + hub.delay(longest);
        self.again_at(hub, at);
    }

    fn again_at(&mut self, hub: &mut Hub, at: Moment) {
        if at < self.alarm {
            self.alarm = at;
            hub.plan_at(at, hub::Event::Initiator(self.number));
        }
    }

    // --- Coming and going --------------------------------------------------------------------------------------

    fn connect(&mut self, hub: &mut Hub) {
        let serial = Serial(hub.history.step());
        let Some(connection) = hub.connect(self.number, serial) else {
            return self.stay_away(hub, Duration::from_secs(1));
        };
        self.serial = serial;
        let number = u8::try_from(self.number).expect("few initiators");
        let name = format!("iqn.2026-11.io.portico:initiator-{}", self.number);
        let discovers = self.habits.discovers && hub.random.chance(1, 4);
        let mut plan = if discovers {
            LoginPlan::discovery(&name)
        } else {
            hub.history.comes(self.number, serial);
            let offer = offer(hub).with("MaxConnections", &self.habits.connections.to_string());
            LoginPlan { offer, ..LoginPlan::normal(&name, TARGET) }
        };
        plan.isid = Isid([0x80, 0, 0, 0, 0, number]);
        self.plan = Some(plan.clone());
        let login = Box::new(Login::new(plan));
        self.phase = Phase::LoggingIn { connection, login, since: hub.now, discovers };
        self.log_in(hub);
        hub.plan(LOGIN_PATIENCE + Duration::from_secs(1), hub::Event::Initiator(self.number));
    }

    /// The connection is over. What was open on it is nobody's.
    fn lose(&mut self, hub: &mut Hub) {
        hub.history.ends(self.serial);
        if let Phase::Serving { lines, joining, .. } = std::mem::replace(&mut self.phase, Phase::Away) {
            let joining = joining.iter().map(|joining| joining.connection);
            for connection in lines.iter().skip(1).map(|line| line.connection).chain(joining) {
                // Or it leaves it as it is, and the target has to see to it.
                match hub.random.below(3) {
                    0 => hub.cut(connection),
                    1 => hub.hang_up(connection, Side::Initiator),
                    _ => {}
                }
            }
        }
        self.inbox.clear();
        // Asked for again, as real ones do: over what may still be under way.
        let writes = self.pending.values().map(|pending| pending.wish).filter(Wish::writes);
        self.lost.extend(writes);
        self.lost.truncate(LOST_MAX);
        self.pending.clear();
        self.managing.clear();
        self.mute_until = Moment::ORIGIN;
        self.stay_away(hub, Duration::from_millis(500));
    }

    fn stay_away(&mut self, hub: &mut Hub, longest: Duration) {
        let after = hub.delay(longest);
        self.away_until = hub.now + after;
        self.alarm = self.away_until;
        hub.plan_at(self.away_until, hub::Event::Initiator(self.number));
    }

    fn protocol(&self, hub: &mut Hub, what: String) {
        let what = format!("session {} of initiator {}: {what}", self.serial.0, self.number);
        hub.history.violate(Oracle::Protocol, what);
    }

    fn log_in(&mut self, hub: &mut Hub) {
        let Phase::LoggingIn { connection, login, since, discovers } = &mut self.phase else { return };
        let (connection, discovers) = (*connection, *discovers);
        let late = hub.now.since(*since) > LOGIN_PATIENCE;
        let mut out = Vec::new();
        while login.next_pdu(&mut out) {}
        hub.post(connection, Side::Initiator, out);
        let ended = hub.collect(connection, &mut self.inbox);
        while let Some((bhs, data)) = take_pdu(&mut self.inbox) {
            let Phase::LoggingIn { login, .. } = &mut self.phase else { return };
            match login.receive(&bhs, &data) {
                Ok(Progress::Send) => {
                    let mut out = Vec::new();
                    while login.next_pdu(&mut out) {}
                    hub.post(connection, Side::Initiator, out);
                }
                Ok(Progress::Done(established)) => {
                    let session = Box::new(Session::new(&established, COMMANDS));
                    let inbox = std::mem::take(&mut self.inbox);
                    let mut line = Line { connection, session, inbox, frame: None };
                    if discovers {
                        let asked = line.session.exchange_text(&[("SendTargets", "All")]);
                        asked.expect("there is room for one");
                        self.phase = Phase::Discovering { line, since: hub.now };
                        return self.discover(hub);
                    }
                    hub.history.port_is_back(self.number, self.serial);
                    let (lines, tsih) = (vec![line], established.tsih);
                    self.phase = Phase::Serving { lines, joining: None, tsih, leaving: None };
                    return self.serve(hub);
                }
                Err(LoginFault::Refused(_)) => {
                    hub.hang_up(connection, Side::Initiator);
                    return self.lose(hub);
                }
                Err(fault) => return self.protocol(hub, fault.to_string()),
            }
        }
        if ended {
            self.lose(hub);
        } else if late {
            let what = format!("a login of initiator {} is not answered", self.number);
            hub.history.violate(Oracle::Answers, what);
        }
    }

    // --- Discovering -------------------------------------------------------------------------------------------

    fn discover(&mut self, hub: &mut Hub) {
        let Phase::Discovering { line, since } = &mut self.phase else { return };
        let since = *since;
        let ended = hub.collect(line.connection, &mut line.inbox);
        if let Err(fault) = self.receive(hub, 0) {
            return self.protocol(hub, fault);
        }
        if !matches!(self.phase, Phase::Discovering { .. }) {
            return;
        }
        if ended {
            return self.lose(hub);
        }
        if hub.now.since(since) > LOGIN_PATIENCE {
            let what = format!("a discovery session of initiator {} is not answered", self.number);
            return hub.history.violate(Oracle::Answers, what);
        }
        self.again(hub, IDLE);
        self.transmit(hub);
    }

    /// SendTargets is answered: the target is there, at the portal, unless the configuration was changed.
    fn discovered(&mut self, hub: &mut Hub) {
        let Phase::Discovering { line: Line { session, .. }, .. } = &mut self.phase else { return };
        let mut found = Vec::new();
        for pair in session.text() {
            let known = match &pair {
                Ok(pair) if pair.key == "TargetName" => pair.value == TARGET.as_bytes(),
                Ok(pair) => pair.key == "TargetAddress" && pair.value.starts_with(b"10.0.0.1:3260"),
                Err(_) => false,
            };
            if !known {
                let what = format!("SendTargets of initiator {} brought {pair:?}", self.number);
                return hub.history.violate(Oracle::Protocol, what);
            }
            found.extend(pair.ok().map(|pair| pair.key.to_owned()));
        }
        hub.history.tally.discoveries += 1;
        if hub.history.tally.reloads == 0 && found != ["TargetName", "TargetAddress"] {
            let what = format!("SendTargets of initiator {} brought {found:?}", self.number);
            return hub.history.violate(Oracle::Protocol, what);
        }
        session.log_out(LogoutReason::CloseSession).expect("there is room for one");
    }

    // --- Serving -----------------------------------------------------------------------------------------------

    fn serve(&mut self, hub: &mut Hub) {
        let Phase::Serving { lines, .. } = &mut self.phase else { return };
        let mut ended = false;
        for line in &mut *lines {
            ended |= hub.collect(line.connection, &mut line.inbox);
        }
        for at in 0..lines.len() {
            if let Err(fault) = self.receive(hub, at) {
                return self.protocol(hub, fault);
            }
        }
        if !matches!(self.phase, Phase::Serving { .. }) {
            return;
        }
        if ended {
            return self.lose(hub);
        }
        self.join(hub);
        self.be_impatient(hub);
        if self.habits.unsteady && self.misbehave(hub) {
            return;
        }
        self.ask(hub);
        self.transmit(hub);
    }

    /// Opens one more connection of the session, where it may have more.
    fn join(&mut self, hub: &mut Hub) {
        let number = self.number;
        let Phase::Serving { lines, joining, tsih, leaving } = &mut self.phase else { return };
        let most = self.habits.connections.min(usize::from(lines[0].session.parameters().max_connections));
        if joining.is_none() && leaving.is_none() && lines.len() < most && hub.random.chance(1, 8) {
            // No session of the oracles' ends with it alone.
            let serial = Serial(hub.history.step());
            let Some(connection) = hub.connect(number, serial) else { return };
            let mut plan = self.plan.clone().expect("it has logged in");
            plan.offer = plan.offer.of_a_connection();
            plan.cid = Cid(u16::try_from(lines.len()).expect("few connections"));
            (plan.tsih, plan.first_cmd_sn) = (*tsih, lines[0].session.next_cmd_sn());
            let login = Box::new(Login::new(plan));
            *joining = Some(Joining { connection, login, inbox: Vec::new(), since: hub.now });
        }
        let Some(one) = joining else { return };
        let mut out = Vec::new();
        while one.login.next_pdu(&mut out) {}
        hub.post(one.connection, Side::Initiator, std::mem::take(&mut out));
        let ended = hub.collect(one.connection, &mut one.inbox);
        while let Some((bhs, data)) = take_pdu(&mut one.inbox) {
            match one.login.receive(&bhs, &data) {
                Ok(Progress::Send) => {
                    while one.login.next_pdu(&mut out) {}
                    hub.post(one.connection, Side::Initiator, std::mem::take(&mut out));
                }
                Ok(Progress::Done(established)) => {
                    let session = Box::new(lines[0].session.join(&established, COMMANDS));
                    let inbox = std::mem::take(&mut one.inbox);
                    lines.push(Line { connection: one.connection, session, inbox, frame: None });
                    hub.history.tally.connections_joined += 1;
                    *joining = None;
                    return;
                }
                // The target takes none, or the session is about to end.
                Err(LoginFault::Refused(_)) => {
                    hub.hang_up(one.connection, Side::Initiator);
                    self.habits.connections = lines.len();
                    *joining = None;
                    return;
                }
                Err(fault) => return self.protocol(hub, fault.to_string()),
            }
        }
        if ended {
            *joining = None;
        } else if hub.now.since(one.since) > LOGIN_PATIENCE {
            let what = format!("a connection that joins a session of initiator {number} is not answered");
            hub.history.violate(Oracle::Answers, what);
        }
    }

    /// Breaks something, seldom. True: the session is left.
    fn misbehave(&mut self, hub: &mut Hub) -> bool {
        if self.mute_until > hub.now || !hub.random.chance(1, 80) {
            return false;
        }
        let line = self.any_line(hub);
        let Some(connection) = self.lines().get(line).map(|line| line.connection) else { return false };
        match hub.random.below(4) {
            // The connection breaks.
            0 => hub.cut(connection),
            // It closes, and what it said arrives.
            1 => hub.hang_up(connection, Side::Initiator),
            // It forgets the connection and comes back: the old session is reinstated.
            2 => {}
            _ => {
                let seconds = hub.random.below(25);
                self.mute_until = hub.now + Duration::from_secs(seconds);
                hub.plan_at(self.mute_until, hub::Event::Initiator(self.number));
                return false;
            }
        }
        self.lose(hub);
        true
    }

    /// Understands what has come.
    fn receive(&mut self, hub: &mut Hub, at: usize) -> Result<(), String> {
        loop {
            let Some(line) = self.lines().get_mut(at) else { return Ok(()) };
            let Some((frame, mut data)) = line.next_pdu()? else { return Ok(()) };
            if let Some(Placement::ReadBuffer { user, offset, .. }) = frame.placement {
                let pending = self.pending.get_mut(&user).expect("the session knows what is open");
                let offset = offset as usize;
                pending.buffer[offset..offset + data.len()].copy_from_slice(&data);
                data.clear();
            }
            let Some(session) = self.session(at) else { return Ok(()) };
            let event = session.receive_done(&data).map_err(|fault| format!("{fault:?} {:?}", frame.bhs))?;
            match event {
                Event::Completed(completion) => self.completed(hub, &completion),
                Event::TaskManaged { tag, result, .. } => self.managed(hub, tag, result),
                Event::LoggedOut { .. } => self.logged_out(hub),
                Event::Text(_) => self.discovered(hub),
                Event::Rejected { reason, .. } => return Err(format!("rejected: {reason:?}")),
                Event::None | Event::Pong(_) | Event::Async { .. } => {}
            }
        }
    }

    fn completed(&mut self, hub: &mut Hub, completion: &Completion<'_>) {
        let pending = self.pending.remove(&completion.user).expect("the session knows what is open");
        let session = self.serial;
        self.judge_order(hub, (completion.user, pending.line), pending.wish, completion.status);
        tracing::debug!(
            now = hub.now.0, initiator = self.number, session = session.0, wish = ?pending.wish, asked = pending.asked,
            status = completion.status, sense = ?completion.sense, "answered"
        );
        let verdict =
            pending.wish.judge(hub, (self.number, session), pending.asked, completion, &pending.buffer);
        if !verdict {
            // It is refused, or not ready: trying again at once would change nothing.
            self.rest_until = hub.now + if self.habits.audits { IDLE } else { hub.delay(REST) };
        }
        if let What::Read { first, sectors } = pending.wish.what
            && self.habits.audits
            && verdict
        {
            let end = hub.disks[pending.wish.unit].character.sectors as u64;
            let next = first + sectors;
            self.audited = if next == end { (pending.wish.unit + 1, 0) } else { (pending.wish.unit, next) };
        }
    }

    /// SAM-5 §8.6, at the ends of commands: their statuses come in the order in which they ended. Commands that came before and
    /// are still open, and that nobody may have aborted, have not ended; those on another connection may have, and their status is
    /// on its way.
    fn judge_order(&self, hub: &mut Hub, (user, line): (u64, usize), wish: Wish, status: u8) {
        if REFUSED.contains(&status) || !self.managing.is_empty() {
            return;
        }
        let waits_for = |before: TaskAttribute| match wish.attribute {
            TaskAttribute::Ordered => true,
            TaskAttribute::HeadOfQueue => false,
            _ => matches!(before, TaskAttribute::Ordered | TaskAttribute::HeadOfQueue),
        };
        let passed = self.pending.range(..user).find(|(_, before)| {
            before.wish.unit == wish.unit
                && before.line == line
                && waits_for(before.wish.attribute)
                && Some(hub.history.resets(wish.unit)) == before.resets
        });
        if let Some((_, before)) = passed {
            let what = format!("initiator {}: {wish:?} ended before {:?}", self.number, before.wish);
            return hub.history.violate(Oracle::Order, what);
        }
        hub.history.tally.ordered += u64::from(wish.attribute == TaskAttribute::Ordered);
    }

    fn logged_out(&mut self, hub: &mut Hub) {
        for line in self.lines() {
            hub.hang_up(line.connection, Side::Initiator);
        }
        let through = matches!(self.phase, Phase::Serving { .. }) && self.habits.commands == 0;
        if through {
            self.phase = Phase::Gone;
        } else {
            self.lose(hub);
        }
    }

    /// What should have been answered.
    fn be_impatient(&mut self, hub: &mut Hub) {
        // Who says nothing cannot expect an answer.
        let silent_until = self.mute_until;
        let late = |since: Moment| hub.now.since(since.max(silent_until)) > COMMAND_PATIENCE;
        if self.managing.iter().any(|managing| late(managing.since)) {
            let what = format!("a task management function of initiator {} is not answered", self.number);
            return hub.history.violate(Oracle::Answers, what);
        }
        if let Phase::Serving { leaving: Some(since), .. } = self.phase {
            if late(since) {
                let what = format!("a logout of initiator {} is not answered", self.number);
                hub.history.violate(Oracle::Answers, what);
            }
            // Commands that it has left behind are nobody's.
            return;
        }
        let Some((user, pending)) = self.pending.iter().find(|(_, pending)| late(pending.since)) else {
            return;
        };
        let user = *user;
        if Some(hub.history.resets(pending.wish.unit)) == pending.resets {
            let what = format!("initiator {}: {:?} is not answered", self.number, pending.wish.what);
            return hub.history.violate(Oracle::Answers, what);
        }
        self.abort(hub, user);
    }

    /// Asks for more.
    fn ask(&mut self, hub: &mut Hub) {
        if matches!(self.phase, Phase::Serving { leaving: Some(_), .. }) {
            return self.again(hub, IDLE);
        }
        let full = self.habits.commands == 0 || self.pending.len() >= self.habits.depth;
        if self.rest_until > hub.now {
            self.again_at(hub, self.rest_until);
        } else {
            self.again(hub, if full { IDLE } else { self.habits.thinks });
        }
        if self.habits.audits && self.audited.0 == hub.disks.len() {
            self.habits.commands = 0;
        }
        let through = self.habits.commands == 0 && self.pending.is_empty() && self.managing.is_empty();
        let walks_out = self.habits.unsteady && !self.pending.is_empty() && hub.random.chance(1, 150);
        if through || walks_out {
            let line = self.any_line(hub);
            let Phase::Serving { lines, leaving, .. } = &mut self.phase else { return };
            if lines[line].session.log_out(LogoutReason::CloseSession).is_some() {
                *leaving = Some(hub.now);
                hub.history.ends(self.serial);
                hub.history.tally.logouts += u64::from(walks_out);
            }
            return;
        }
        if self.rest_until > hub.now {
            return;
        }
        let burst = 1 + hub.random.below(4);
        for _ in 0..burst {
            if self.habits.commands == 0 || self.pending.len() >= self.habits.depth {
                return;
            }
            match hub.random.below(60) {
                0..4 if self.habits.fences && self.habits.menu != Menu::Fencing => self.manage_any(hub),
                _ => self.submit(hub),
            }
        }
    }

    fn submit(&mut self, hub: &mut Hub) {
        let again = self.lost.pop();
        let Some(wish) = again.or_else(|| Wish::drawn(self, hub)) else { return };
        let user = self.next_user;
        let cdb = wish.cdb();
        let line = self.any_line(hub);
        let Some(session) = self.session(line) else { return };
        // A command that is asked for again by a new session is as it was.
        let lost = hub.plant == Some(Plant::AttributesLost);
        let attribute = if lost { TaskAttribute::Simple } else { wish.attribute };
        let Some(tag) = session.submit(&cdb.command(wish.unit, attribute, user)) else {
            // The window is closed.
            self.lost.extend(again);
            return;
        };
        let (asked, wish, buffer) = wish.begin(hub, (self.number, self.serial));
        self.next_user += 1;
        if !self.habits.audits {
            self.habits.commands -= 1;
        }
        let ends = hub.history.is_being_reset(wish.unit) || hub.history.is_being_preempted(wish.unit);
        let resets = (!ends).then(|| hub.history.resets(wish.unit));
        self.pending.insert(user, Pending { tag, line, wish, asked, since: hub.now, resets, buffer });
    }

    /// Sends what waits, unless it is silent.
    fn transmit(&mut self, hub: &mut Hub) {
        if self.mute_until > hub.now {
            return;
        }
        let Self { phase, pending, .. } = self;
        let lines = match phase {
            Phase::Serving { lines, .. } => &mut lines[..],
            Phase::Discovering { line, .. } => std::slice::from_mut(line),
            Phase::Away | Phase::LoggingIn { .. } | Phase::Gone => return,
        };
        lines.iter_mut().for_each(|line| line.transmit(hub, pending));
    }
}

impl Line {
    /// The next PDU that is whole, with its data.
    fn next_pdu(&mut self) -> Result<Option<(Frame, Vec<u8>)>, String> {
        let digests = self.session.digests();
        if self.frame.is_none() {
            let Some(bhs) = self.inbox.first_chunk::<BHS_BYTES>().copied() else { return Ok(None) };
            let lengths = Lengths::of(&bhs, digests, DATA_SEGMENT_BYTES_MAX).map_err(faulty)?;
            assert_eq!(lengths.ahs_bytes, 0, "our target has nothing to say in an AHS");
            let Some(header) = self.inbox.get(..lengths.header_bytes() as usize) else { return Ok(None) };
            digests.check_header(header).map_err(faulty)?;
            self.inbox.drain(..lengths.header_bytes() as usize);
            let data_bytes = lengths.data_segment_bytes as usize;
            let rest_bytes = lengths.data_bytes() as usize;
            let placement = self.session.receive_header(&bhs).map_err(|fault| format!("{fault:?}"))?;
            self.frame = Some(Frame { bhs, placement: Some(placement), data_bytes, rest_bytes });
        }
        let Some(frame) = self.frame.take_if(|frame| frame.rest_bytes <= self.inbox.len()) else {
            return Ok(None);
        };
        let mut data: Vec<u8> = self.inbox.drain(..frame.rest_bytes).collect();
        if digests.data
            && let Some((bytes, field)) = data.split_last_chunk()
            && digest::field_of(bytes) != *field
        {
            return Err("a wrong data digest".to_owned());
        }
        data.truncate(frame.data_bytes);
        Ok(Some((frame, data)))
    }

    /// Sends what waits.
    fn transmit(&mut self, hub: &mut Hub, pending: &BTreeMap<u64, Pending>) {
        let Self { connection, session, .. } = self;
        let digests = session.digests();
        let mut bhs = [0; BHS_BYTES];
        while let Some(outgoing) = session.next_pdu(&mut bhs) {
            let mut bytes = bhs.to_vec();
            bytes.extend_from_slice(outgoing.ahs());
            bytes.extend(outgoing.header_digest(&bhs, digests).iter().flatten());
            let data_at = bytes.len();
            match outgoing.payload {
                Payload::None => {}
                Payload::Bytes(data) => bytes.extend_from_slice(data),
                Payload::WriteBuffer { user, offset, length, .. } => {
                    let range = offset as usize..(offset + length) as usize;
                    bytes.extend_from_slice(&pending[&user].buffer[range]);
                }
            }
            bytes.resize(bytes.len() + outgoing.padding_bytes as usize, 0);
            if digests.data && bytes.len() > data_at {
                bytes.extend(digest::field_of(&bytes[data_at..]));
            }
            hub.post(*connection, Side::Initiator, bytes);
        }
    }
}

fn faulty(violation: Violation) -> String {
    format!("{violation:?}")
}

/// A whole PDU of a login, if it is there.
pub(crate) fn take_pdu(inbox: &mut Vec<u8>) -> Option<(Bhs, Vec<u8>)> {
    let bhs = *inbox.first_chunk::<BHS_BYTES>()?;
    let length = data_segment_length(&bhs);
    let whole = BHS_BYTES + (length + padding(length)) as usize;
    if inbox.len() < whole {
        return None;
    }
    let mut data: Vec<u8> = inbox.drain(..whole).skip(BHS_BYTES).collect();
    data.truncate(length as usize);
    Some((bhs, data))
}

/// Addressing by the peripheral method (SAM-5 §4.7.7.2).
pub(crate) fn lun_of(unit: usize) -> LunField {
    let mut field = [0; 8];
    field[1] = u8::try_from(unit).expect("few units");
    LunField(field)
}

/// Some way to move data: all kinds that the keys allow.
fn offer(hub: &mut Hub) -> Offer {
    let mut yes_or_no = || if hub.random.chance(1, 2) { "Yes" } else { "No" };
    let offer = Offer::default().with("InitialR2T", yes_or_no()).with("ImmediateData", yes_or_no());
    let sizes = ["512", "4096", "65536", "262144"];
    let segment = sizes[hub.random.index(4)];
    let burst = ["4096", "65536", "1048576"][hub.random.index(3)];
    let first = ["512", "4096", "65536"][hub.random.index(3)];
    let first = if first.len() > burst.len() { burst } else { first };
    let first = if first == "65536" && burst == "4096" { burst } else { first };
    let outstanding = ["1", "2", "8"][hub.random.index(3)];
    let mut digest = || ["None", "CRC32C,None"][hub.random.index(2)];
    let offer = offer.with("HeaderDigest", digest()).with("DataDigest", digest());
    // At level 2 a session outlives its connection, and ends where its initiator logs in anew.
    let level = ["0", "1", "2"][hub.random.index(3)];
    let retain = ["0", "20"][hub.random.index(2)];
    offer
        .with("DefaultTime2Retain", retain)
        .with("ErrorRecoveryLevel", level)
        .with("MaxRecvDataSegmentLength", segment)
        .with("MaxBurstLength", burst)
        .with("FirstBurstLength", first)
        .with("MaxOutstandingR2T", outstanding)
}
