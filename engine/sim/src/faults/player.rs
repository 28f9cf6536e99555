//! Who plays a dialogue and recovers as its level lets it: how it comes, what it does when a connection is lost or nothing
//! comes any more, how it leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use portico_iscsi::initiator::{Established, Login, LoginFault, LoginPlan, Offer, Progress};
use portico_iscsi::moment::Moment;
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::wire::{Cid, Isid, Tsih};

use crate::history::{Oracle, Serial, Step};
use crate::hub::{self, Hub, Side};
use crate::initiator::{TARGET, take_pdu};
use crate::stamp::WriteId;

use super::{Fate, Line, Play};

/// Its number among the initiators, which are fewer.
pub(crate) const PLAYER: usize = 40;

/// Where nothing has come for so long something is lost: media and network are faster.
const QUIET: Duration = Duration::from_secs(2);
/// What is not through by then is not answered. The target waits for a Data-Out for less.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long it stays away at most when a connection is lost, which is less than the session waits for it.
const AWAY: Duration = Duration::from_millis(500);

/// One command, until it has ended.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) line: Line,
    pub(super) id: WriteId,
    pub(super) asked: Step,
    pub(super) tag: u32,
    pub(super) cmd_sn: CmdSn,
    pub(super) next_data_sn: u32,
    pub(super) next_r2t_sn: u32,
    /// What is written, or what has been read so far.
    pub(super) data: Vec<u8>,
    pub(super) is_submitted: bool,
    /// It was refused, and is asked for again then.
    pub(super) rests_until: Moment,
    pub(super) has_ended: bool,
}

/// Where a connection of the session is.
#[derive(Debug)]
pub(super) enum Reach {
    /// Nowhere; it may be opened from then on.
    Down(Moment),
    /// The lost one is logged out from another connection, by the request of this tag.
    LoggedOut(u32),
    LoggingIn {
        connection: usize,
        login: Box<Login>,
        since: Moment,
    },
    Open {
        connection: usize,
    },
}

#[derive(Debug)]
pub(super) struct Way {
    pub(super) reach: Reach,
    pub(super) expected_stat_sn: StatSn,
    pub(super) inbox: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Player {
    pub(super) play: Play,
    pub(super) serial: Serial,
    /// The session's; `Tsih::NEW` where there is none.
    pub(super) tsih: Tsih,
    pub(super) ways: Vec<Way>,
    pub(super) orders: Vec<Order>,
    pub(super) cmd_sn: CmdSn,
    /// ExpCmdSN, as it was told last.
    pub(super) expected_cmd_sn: CmdSn,
    pub(super) first_burst: u32,
    pub(super) data_out: u32,
    pub(super) next_tag: u32,
    /// What each task management function is about.
    pub(super) reassigned: BTreeMap<u32, usize>,
    /// PDUs until the fault strikes; `None` where none will.
    left: Option<u64>,
    again: Option<u64>,
    losses: u64,
    struck: u64,
    heard_at: Moment,
    began_at: Moment,
    alarm: Moment,
    pub(super) leaving: bool,
    gone: bool,
}

impl Player {
    pub(crate) fn new(play: Play) -> Self {
        let way =
            || Way { reach: Reach::Down(Moment::ORIGIN), expected_stat_sn: StatSn(0), inbox: Vec::new() };
        let order = |line: &Line| Order {
            line: *line,
            id: WriteId::NONE,
            asked: 0,
            tag: 0,
            cmd_sn: CmdSn(0),
            next_data_sn: 0,
            next_r2t_sn: 0,
            data: Vec::new(),
            is_submitted: false,
            rests_until: Moment::ORIGIN,
            has_ended: false,
        };
        Self {
            serial: Serial(0),
            tsih: Tsih::NEW,
            ways: (0..play.ways).map(|_| way()).collect(),
            orders: play.lines.iter().map(order).collect(),
            cmd_sn: CmdSn(1),
            expected_cmd_sn: CmdSn(1),
            first_burst: 0,
            data_out: 0,
            next_tag: 100,
            reassigned: BTreeMap::new(),
            left: Some(play.fault.at),
            again: play.fault.again,
            losses: 0,
            struck: 0,
            heard_at: Moment::ORIGIN,
            began_at: Moment::ORIGIN,
            alarm: Moment::NEVER,
            leaving: false,
            gone: false,
            play,
        }
    }

    pub(crate) const fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) const fn level(&self) -> u8 {
        self.play.fault.level
    }

    pub(super) fn violate(&self, hub: &mut Hub, oracle: Oracle, what: &str) {
        hub.history.violate(oracle, format!("session {} of the player: {what}", self.serial.0));
    }

    /// Something has come.
    pub(super) const fn hear(&mut self, hub: &Hub) {
        self.heard_at = hub.now;
    }

    /// How often the fault has struck.
    pub(super) const fn has_struck(&self) -> u64 {
        self.struck
    }

    /// Looks what there is to do.
    pub(crate) fn wake(&mut self, hub: &mut Hub) {
        if self.alarm <= hub.now {
            self.alarm = Moment::NEVER;
        }
        if self.began_at == Moment::ORIGIN {
            (self.began_at, self.heard_at) = (hub.now, hub.now);
        }
        for way in 0..self.ways.len() {
            self.attend(hub, way);
        }
        if self.gone {
            return;
        }
        self.open_ways(hub);
        if self.is_whole() {
            for at in 0..self.orders.len() {
                let order = &self.orders[at];
                let waits = order.is_submitted || order.rests_until > hub.now;
                if !waits && self.is_open(order.line.way) {
                    self.submit(hub, at);
                }
            }
            if !self.leaving && self.is_whole() && self.orders.iter().all(|order| order.has_ended) {
                self.leaving = true;
                self.log_out(hub);
            }
        }
        if hub.now.since(self.heard_at) >= QUIET && !self.gone {
            self.heard_at = hub.now;
            self.recover(hub);
        }
        if hub.now.since(self.began_at) > PATIENCE {
            self.violate(hub, Oracle::Answers, "not everything is answered");
        }
        if !self.gone && self.alarm == Moment::NEVER {
            self.alarm = hub.now + AWAY;
            hub.plan_at(self.alarm, hub::Event::Initiator(PLAYER));
        }
    }

    fn is_open(&self, way: usize) -> bool {
        matches!(self.ways[way].reach, Reach::Open { .. })
    }

    /// The session is there, with all of its connections.
    fn is_whole(&self) -> bool {
        self.tsih != Tsih::NEW && (0..self.ways.len()).all(|way| self.is_open(way))
    }

    /// Whether the fault strikes this PDU, to which it can happen.
    pub(super) fn strikes(&mut self, hub: &mut Hub, fate: Fate) -> bool {
        if self.play.fault.fate != fate {
            return false;
        }
        match self.left {
            Some(0) => {
                self.left = self.again.take();
                self.struck += 1;
                hub.history.tally.faults += 1;
                true
            }
            Some(left) => {
                self.left = Some(left - 1);
                false
            }
            None => false,
        }
    }

    // --- Coming ------------------------------------------------------------------------------------------------

    /// Connects where nothing is: the leading connection first.
    fn open_ways(&mut self, hub: &mut Hub) {
        let ready = |way: &Way| matches!(way.reach, Reach::Down(until) if until <= hub.now);
        let ready: Vec<usize> = (0..self.ways.len()).filter(|way| ready(&self.ways[*way])).collect();
        if self.tsih != Tsih::NEW {
            for way in ready {
                self.connect(hub, way);
                if self.tsih == Tsih::NEW {
                    return;
                }
            }
        } else if ready.first() == Some(&0) {
            self.connect(hub, 0);
        }
    }

    fn connect(&mut self, hub: &mut Hub, way: usize) {
        if self.tsih == Tsih::NEW {
            self.serial = Serial(hub.history.step());
            hub.history.comes(PLAYER, self.serial);
        }
        let Some(connection) = hub.connect(PLAYER, self.serial) else {
            return self.rest(hub, way, AWAY);
        };
        let offer = self.offer();
        let plan = LoginPlan {
            isid: Isid([0x80, 0, 0, 0, 0, 0x40]),
            tsih: self.tsih,
            cid: Cid(u16::try_from(way).expect("few connections")),
            first_cmd_sn: self.cmd_sn,
            offer: if self.tsih == Tsih::NEW { offer } else { offer.of_a_connection() },
            ..LoginPlan::normal("iqn.2026-11.io.portico:player", TARGET)
        };
        self.ways[way].inbox.clear();
        let login = Box::new(Login::new(plan));
        self.ways[way].reach = Reach::LoggingIn { connection, login, since: hub.now };
        self.heard_at = hub.now;
        self.say_login(hub, way);
    }

    fn offer(&self) -> Offer {
        let yes = |yes: bool| if yes { "Yes" } else { "No" };
        let connections = self.ways.len().to_string();
        Offer::default()
            .with("HeaderDigest", "CRC32C")
            .with("DataDigest", "CRC32C")
            .with("MaxConnections", &connections)
            .with("InitialR2T", yes(self.play.initial_r2t))
            .with("ImmediateData", yes(self.play.immediate_data))
            .with("MaxRecvDataSegmentLength", self.play.segment)
            .with("MaxBurstLength", self.play.burst)
            .with("FirstBurstLength", self.play.first_burst)
            .with("MaxOutstandingR2T", self.play.outstanding)
            .with("DefaultTime2Wait", "0")
            .with("DefaultTime2Retain", "20")
            .with("ErrorRecoveryLevel", &self.level().to_string())
    }

    /// It may be opened again some time later.
    fn rest(&mut self, hub: &mut Hub, way: usize, longest: Duration) {
        let until = hub.now + hub.delay(longest);
        self.ways[way].reach = Reach::Down(until);
        hub.plan_at(until, hub::Event::Initiator(PLAYER));
    }

    /// Sends what a login has to say, through whatever happens to it.
    fn say_login(&mut self, hub: &mut Hub, way: usize) {
        loop {
            let mut out = Vec::new();
            let Reach::LoggingIn { connection, login, .. } = &mut self.ways[way].reach else { return };
            let connection = *connection;
            if !login.next_pdu(&mut out) {
                return;
            }
            if self.strikes(hub, Fate::Cut) || self.strikes(hub, Fate::Abandoned) {
                return self.lose(hub, way);
            }
            if !self.strikes(hub, Fate::Lost) {
                hub.post(connection, Side::Initiator, out);
            }
        }
    }

    /// Takes what has come on a connection.
    fn attend(&mut self, hub: &mut Hub, way: usize) {
        let (Reach::LoggingIn { connection, .. } | Reach::Open { connection }) = self.ways[way].reach else {
            return;
        };
        let ended = hub.collect(connection, &mut self.ways[way].inbox);
        while let Reach::LoggingIn { connection: same, .. } = self.ways[way].reach {
            assert_eq!(same, connection, "a login does not change its connection");
            let Some((bhs, data)) = take_pdu(&mut self.ways[way].inbox) else { break };
            self.heard_at = hub.now;
            if self.strikes(hub, Fate::Cut) || self.strikes(hub, Fate::Abandoned) {
                return self.lose(hub, way);
            }
            if self.strikes(hub, Fate::Lost) {
                continue;
            }
            let Reach::LoggingIn { login, .. } = &mut self.ways[way].reach else { return };
            match login.receive(&bhs, &data) {
                Ok(Progress::Send) => self.say_login(hub, way),
                Ok(Progress::Done(established)) => self.established(hub, way, &established),
                Err(LoginFault::Refused(status)) => {
                    hub.hang_up(connection, Side::Initiator);
                    return self.refused(hub, way, &format!("{status:?}"));
                }
                // The answer was lost, and what came after it is the session's.
                Err(_) if self.struck > self.losses => return self.lose(hub, way),
                Err(fault) => return self.violate(hub, Oracle::Protocol, &fault.to_string()),
            }
        }
        self.listen(hub, way);
        let same = match self.ways[way].reach {
            Reach::LoggingIn { connection: now, .. } | Reach::Open { connection: now } => now == connection,
            Reach::Down(_) | Reach::LoggedOut(_) => false,
        };
        // The one that is answered last closes with the others, and its answer may come last.
        let closes = self.leaving && way > 0;
        if ended && same && !self.gone && !closes {
            self.lose(hub, way);
        }
    }

    fn refused(&mut self, hub: &mut Hub, way: usize, status: &str) {
        if self.tsih != Tsih::NEW && self.level() == 2 {
            let what = format!("connection {way} may not come back: {status}");
            return self.violate(hub, Oracle::Answers, &what);
        }
        if self.tsih == Tsih::NEW {
            return self.rest(hub, way, AWAY);
        }
        // The session ended meanwhile, with another connection of it.
        self.begin_anew(hub);
    }

    fn established(&mut self, hub: &mut Hub, way: usize, established: &Established) {
        let Reach::LoggingIn { connection, .. } = self.ways[way].reach else { return };
        self.ways[way].reach = Reach::Open { connection };
        self.ways[way].expected_stat_sn = established.expected_stat_sn;
        let expected = established.window.expected();
        if self.tsih == Tsih::NEW {
            let parameters = &established.parameters;
            if parameters.error_recovery_level != self.level() {
                return self.violate(hub, Oracle::Protocol, "it is at another recovery level");
            }
            self.first_burst = parameters.first_burst_length;
            // Several of them make a burst.
            self.data_out = parameters.peer_max_recv_data_segment_length.min(DATA_OUT_BYTES);
            self.tsih = established.tsih;
            (self.cmd_sn, self.expected_cmd_sn) = (expected, expected);
            return hub.history.port_is_back(PLAYER, self.serial);
        }
        if expected.follows(self.expected_cmd_sn) {
            self.expected_cmd_sn = expected;
        }
        self.resume(hub, way, expected);
    }

    /// What was open on the connection before this one goes on here (§7.2.2).
    fn resume(&mut self, hub: &mut Hub, way: usize, expected: CmdSn) {
        for at in 0..self.orders.len() {
            if !self.is_open(way) {
                // Whoever saw to that has seen to the rest, or will.
                return;
            }
            let order = &self.orders[at];
            if order.line.way != way || order.has_ended || !order.is_submitted {
                continue;
            }
            if order.cmd_sn.precedes(expected) {
                hub.history.tally.reassigned += 1;
                self.reassign(hub, at);
            } else {
                self.transmit(hub, at);
            }
        }
    }

    // --- Losing ------------------------------------------------------------------------------------------------

    /// A connection is lost. At level 2 another one goes on with its commands; below, the session is lost with it.
    pub(super) fn lose(&mut self, hub: &mut Hub, way: usize) {
        self.losses += 1;
        if self.losses > self.struck {
            return self.violate(hub, Oracle::Protocol, "a connection is lost without need");
        }
        let was_open = self.is_open(way);
        self.let_go(hub, way);
        self.heard_at = hub.now;
        if self.leaving {
            return self.go(hub);
        }
        if self.level() < 2 || self.tsih == Tsih::NEW {
            return self.begin_anew(hub);
        }
        let others: Vec<usize> = (0..self.ways.len()).filter(|other| self.is_open(*other)).collect();
        if was_open && self.play.fault.fate.cuts() && !others.is_empty() && hub.random.chance(1, 2) {
            let speaker = others[hub.random.index(others.len())];
            return self.log_out_from(hub, speaker, way);
        }
        self.rest(hub, way, AWAY);
    }

    /// Gives a connection up, as the fault has it.
    fn let_go(&mut self, hub: &mut Hub, way: usize) {
        let reach = std::mem::replace(&mut self.ways[way].reach, Reach::Down(Moment::NEVER));
        self.ways[way].inbox.clear();
        let (Reach::LoggingIn { connection, .. } | Reach::Open { connection }) = reach else { return };
        match self.play.fault.fate {
            // It is left without a word.
            Fate::Abandoned => {}
            Fate::Cut => hub.cut(connection),
            _ if hub.random.chance(1, 2) => {}
            _ => hub.hang_up(connection, Side::Initiator),
        }
    }

    /// Another connection has said that the lost one is gone; `None`: it never will, whichever.
    pub(super) fn logged_out_from(&mut self, hub: &mut Hub, tag: Option<u32>) {
        for way in 0..self.ways.len() {
            if let Reach::LoggedOut(by) = self.ways[way].reach
                && tag.is_none_or(|tag| tag == by)
            {
                self.rest(hub, way, AWAY);
            }
        }
    }

    /// The session is lost: what has not ended is asked for in another.
    fn begin_anew(&mut self, hub: &mut Hub) {
        hub.history.tally.sessions_lost += u64::from(self.tsih != Tsih::NEW);
        for way in 0..self.ways.len() {
            self.let_go(hub, way);
            self.rest(hub, way, AWAY);
        }
        self.tsih = Tsih::NEW;
        self.reassigned.clear();
        for order in self.orders.iter_mut().filter(|order| !order.has_ended) {
            order.is_submitted = false;
        }
    }

    /// Nothing comes any more, and not all is done.
    fn recover(&mut self, hub: &mut Hub) {
        for way in 0..self.ways.len() {
            if let Reach::LoggingIn { since, .. } = self.ways[way].reach
                && hub.now.since(since) >= QUIET
            {
                return self.lose(hub, way);
            }
        }
        self.logged_out_from(hub, None);
        if !self.is_whole() {
            return;
        }
        if self.leaving {
            return self.lose(hub, 0);
        }
        let Some(order) = self.orders.iter().find(|order| order.is_submitted && !order.has_ended) else {
            return;
        };
        match self.level() {
            0 => self.lose(hub, order.line.way),
            _ => self.ask_again(hub),
        }
    }

    /// Everything is done, and the session is over.
    pub(super) fn go(&mut self, hub: &mut Hub) {
        for way in &self.ways {
            if let Reach::LoggingIn { connection, .. } | Reach::Open { connection } = way.reach {
                hub.hang_up(connection, Side::Initiator);
            }
        }
        self.gone = true;
    }
}

/// The length of each Data-Out at most.
const DATA_OUT_BYTES: u32 = 1536;
