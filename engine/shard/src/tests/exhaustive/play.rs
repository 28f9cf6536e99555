//! An initiator that recovers as its level lets it, a shard, and one fault.

use super::super::*;
use portico_iscsi::digest;
use portico_iscsi::wire::{
    DataIn, InitiatorPdu, LoginStatus, LogoutReason, LogoutRequest, LogoutResult, NopOut, RejectReason,
    Residual, ScsiResponse, Snack, SnackType, TaskManagementFunction, TaskManagementRequest,
    TaskManagementResult, initiator_task_tag,
};
use portico_model::message::ToControl;

/// What happens to the PDU at the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes either way, has data, and their digest is not theirs.
    DataSpoilt,
    /// It goes either way, and the digest of its header is not its own.
    HeaderSpoilt,
    /// It comes from the shard, and the initiator never sees it.
    AnswerLost,
    /// It goes to the shard, and never gets there.
    RequestLost,
    /// The connection is cut before it, whichever way it goes.
    Cut,
    /// The initiator gives the connection up before it, and the shard does not see that.
    Abandoned,
}

/// Commands, and on what terms they are served.
pub(super) struct Dialogue {
    pub(super) name: &'static str,
    /// How many connections.
    pub(super) ways: usize,
    pub(super) keys: &'static str,
    /// Bytes of a write that come unasked, and of them with the command.
    pub(super) unasked: u32,
    pub(super) immediate: u32,
    pub(super) orders: &'static [Order],
}

/// One command, until it has ended.
#[derive(Clone)]
pub(super) struct Order {
    is_write: bool,
    way: usize,
    lba: u64,
    length: u32,
    tag: u32,
    cmd_sn: CmdSn,
    next_data_sn: u32,
    next_r2t_sn: u32,
    data: Vec<u8>,
    is_submitted: bool,
    has_ended: bool,
}

impl Order {
    pub(super) const fn new(is_write: bool, way: usize, lba: u64, length: u32) -> Self {
        Self {
            is_write,
            way,
            lba,
            length,
            tag: 0,
            cmd_sn: CmdSn(0),
            next_data_sn: 0,
            next_r2t_sn: 0,
            data: Vec::new(),
            is_submitted: false,
            has_ended: false,
        }
    }
}

/// One connection, as the initiator sees it.
struct Way {
    socket: usize,
    expected_stat_sn: StatSn,
}

/// The dialogue under way.
pub(super) struct Play {
    bench: Bench,
    dialogue: &'static Dialogue,
    ways: Vec<Way>,
    session: SessionId,
    cmd_sn: CmdSn,
    /// ExpCmdSN, as the shard told it last.
    expected_cmd_sn: CmdSn,
    level: u8,
    fate: Fate,
    /// PDUs of the kind in question that are left until it strikes; `None` once it has.
    left: Option<usize>,
    /// The same until it strikes once more, counted from then on.
    again: Option<usize>,
    /// It strikes only where the dialogue itself is played.
    armed: bool,
    orders: Vec<Order>,
    next_tag: u32,
    /// Times that it had to begin another session, and that a connection was lost.
    logins: u32,
    losses: u32,
    /// How often the fault strikes.
    faults: u32,
}

/// The length of each Data-Out, and of each Data-In at most.
const DATA_OUT_BYTES: u32 = 3072;
/// More turns than any play needs.
const STEPS_MAX: usize = 400;
/// What the PDUs carry beside their bytes.
const DIGEST_BYTES: usize = 4;

fn write_byte(at: u64) -> u8 {
    (at / 7).to_le_bytes()[0] ^ 0xa5
}

impl Play {
    pub(super) fn new(dialogue: &'static Dialogue, level: u8, fate: Fate, position: usize) -> Self {
        let mut bench = Bench::new();
        bench.open(1, 8);
        let mut play = Self {
            bench,
            dialogue,
            ways: Vec::new(),
            session: SessionId(0),
            cmd_sn: CmdSn(1),
            expected_cmd_sn: CmdSn(1),
            level,
            fate,
            left: Some(position),
            again: None,
            armed: false,
            orders: dialogue.orders.to_vec(),
            next_tag: 100,
            logins: 0,
            losses: 0,
            faults: 1,
        };
        play.log_in();
        play
    }

    /// The fault strikes a second time, so many PDUs after the first.
    pub(super) fn and_again(self, after: usize) -> Self {
        Self { again: Some(after), faults: 2, ..self }
    }

    /// Plays to the end; whether the fault has struck.
    pub(super) fn run(mut self) -> bool {
        for at in 0..self.orders.len() {
            if !self.orders[at].is_submitted {
                self.submit(at);
            }
        }
        for _ in 0..STEPS_MAX {
            let is_quiet = !self.listen();
            if self.orders.iter().all(|order| order.has_ended) {
                let has_struck = self.left.take().is_none();
                self.check();
                return has_struck;
            }
            if !is_quiet {
                continue;
            }
            if self.bench.world.borrow().at_medium.is_empty() {
                self.recover();
            } else {
                self.bench.land();
            }
        }
        panic!("{} at level {}, {:?}: the play has no end", self.dialogue.name, self.level, self.fate);
    }

    fn keys(&self) -> String {
        let Self { dialogue, level, .. } = self;
        format!(
            "{}MaxRecvDataSegmentLength=4096|HeaderDigest=CRC32C|DataDigest=CRC32C|ErrorRecoveryLevel={level}|",
            dialogue.keys
        )
    }

    /// A session with all of its connections, whose unit attention is taken.
    fn log_in(&mut self) {
        let armed = std::mem::replace(&mut self.armed, false);
        let peer = self.bench.adopt(&[(0, 1)], &self.keys());
        (self.session, self.cmd_sn) = (peer.session, CmdSn(1));
        self.expected_cmd_sn = CmdSn(1);
        let mut bytes = self.bench.world.borrow_mut().sockets[peer.socket].from_shard.split_off(0);
        assert!(take_login(&mut bytes).is_some_and(|login| login.0 == LoginStatus::SUCCESS));
        // The final Login Response has StatSN 1.
        self.ways = vec![Way { socket: peer.socket, expected_stat_sn: StatSn(2) }];
        for way in 1..self.dialogue.ways {
            let (socket, _) = self.join(way);
            self.ways.push(Way { socket, expected_stat_sn: StatSn(2) });
        }
        let mut bhs = [0; BHS_BYTES];
        ScsiCommand { cmd_sn: self.cmd_sn, ..command(0, 0xffff, [0; 16], 0) }.emit(&mut bhs);
        self.cmd_sn = self.cmd_sn.next();
        self.post(0, bhs, &[]);
        let pdu = self.take_pdu(0).expect("a unit attention");
        assert!(matches!(TargetPdu::parse(&pdu.0), Ok(TargetPdu::ScsiResponse(_))));
        self.ways[0].expected_stat_sn = StatSn(3);
        self.armed = armed || self.logins == 0;
    }

    /// A connection comes to the session; its socket, and ExpCmdSN.
    fn join(&mut self, way: usize) -> (usize, CmdSn) {
        let cid = Cid(u16::try_from(way).expect("few"));
        let keys = "MaxRecvDataSegmentLength=4096|HeaderDigest=CRC32C|DataDigest=CRC32C|";
        let completed = completed_as(self.session.0, (Tsih(1), cid), keys);
        let socket = self.bench.world.borrow().sockets.len();
        self.bench.mail(ToShard::Join { session: self.session, question: Box::new(question(completed)) });
        let mut bytes = self.bench.world.borrow_mut().sockets[socket].from_shard.split_off(0);
        let (status, expected) = take_login(&mut bytes).expect("an answer");
        assert_eq!(status, LoginStatus::SUCCESS);
        self.bench.world.borrow_mut().sockets[socket].from_shard = bytes;
        (socket, expected)
    }

    /// Whether the fault strikes here.
    fn strikes(&mut self, fate: Fate) -> bool {
        if self.fate != fate || !self.armed {
            return false;
        }
        match self.left {
            Some(0) => {
                self.left = self.again.take();
                true
            }
            Some(left) => {
                self.left = Some(left - 1);
                false
            }
            None => false,
        }
    }

    /// Sends a PDU. False where the connection was lost.
    fn post(&mut self, way: usize, mut bhs: Bhs, data: &[u8]) -> bool {
        if self.strikes(Fate::Cut) || self.strikes(Fate::Abandoned) {
            self.lose(way);
            return false;
        }
        if self.strikes(Fate::RequestLost) {
            return true;
        }
        let length = u32::try_from(data.len()).expect("a segment is small");
        bhs[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        let mut header_digest = digest::field_of(&bhs);
        header_digest[1] ^= u8::from(self.strikes(Fate::HeaderSpoilt)) << 3;
        let mut data_digest = digest::field_of(data);
        data_digest[2] ^= u8::from(!data.is_empty() && self.strikes(Fate::DataSpoilt)) << 5;
        let socket = self.ways[way].socket;
        {
            let world = &mut *self.bench.world.borrow_mut();
            let to_shard = &mut world.sockets[socket].to_shard;
            to_shard.extend(bhs);
            to_shard.extend(header_digest);
            to_shard.extend(data);
            if !data.is_empty() {
                to_shard.extend(data_digest);
            }
            world.feed(socket);
        }
        self.bench.settle();
        true
    }

    /// A command takes its number, and is sent.
    fn submit(&mut self, at: usize) {
        self.next_tag += 1;
        let order = &mut self.orders[at];
        (order.tag, order.cmd_sn) = (self.next_tag, self.cmd_sn);
        order.is_submitted = true;
        self.cmd_sn = self.cmd_sn.next();
        self.transmit(at);
    }

    /// Sends a command with its unsolicited data, under the number that it has.
    fn transmit(&mut self, at: usize) {
        let order = &mut self.orders[at];
        (order.next_data_sn, order.next_r2t_sn) = (0, 0);
        order.data.clear();
        let Order { is_write, way, lba, length, tag, cmd_sn, .. } = self.orders[at];
        let immediate = if is_write { length.min(self.dialogue.immediate) } else { 0 };
        let unasked = if is_write { length.min(self.dialogue.unasked) } else { 0 };
        let opcode = if is_write { 0x8a } else { 0x88 };
        let mut bhs = [0; BHS_BYTES];
        ScsiCommand {
            is_final: unasked == immediate,
            read: !is_write,
            write: is_write,
            cmd_sn,
            expected_stat_sn: self.ways[way].expected_stat_sn,
            ..command(0, tag, transfer(opcode, lba, length), length)
        }
        .emit(&mut bhs);
        if self.post(way, bhs, &bytes_of(lba, 0, immediate)) && unasked > immediate {
            self.burst(at, TargetTransferTag::RESERVED, immediate, unasked);
        }
    }

    fn burst(&mut self, at: usize, transfer: TargetTransferTag, begin: u32, end: u32) {
        let Order { lba, tag, way, .. } = self.orders[at];
        let (mut offset, mut data_sn) = (begin, 0);
        while offset < end {
            let length = (end - offset).min(DATA_OUT_BYTES);
            let mut bhs = [0; BHS_BYTES];
            DataOut {
                is_final: offset + length == end,
                data_segment_length: length,
                lun: if transfer.is_reserved() { LunField::default() } else { lun_field(0) },
                initiator_task_tag: InitiatorTaskTag(tag),
                target_transfer_tag: transfer,
                expected_stat_sn: self.ways[way].expected_stat_sn,
                data_sn: DataSn(data_sn),
                buffer_offset: offset,
            }
            .emit(&mut bhs);
            if !self.post(way, bhs, &bytes_of(lba, offset, length)) {
                return;
            }
            (offset, data_sn) = (offset + length, data_sn + 1);
        }
    }

    /// The next PDU on a connection, whose digests are right.
    fn take_pdu(&mut self, way: usize) -> Option<(Bhs, Vec<u8>)> {
        let socket = self.ways[way].socket;
        let world = &mut *self.bench.world.borrow_mut();
        let bytes = &mut world.sockets[socket].from_shard;
        if bytes.is_empty() {
            return None;
        }
        let bhs: Vec<u8> = bytes.drain(..BHS_BYTES).collect();
        let field: Vec<u8> = bytes.drain(..DIGEST_BYTES).collect();
        assert_eq!(field, digest::field_of(&bhs));
        let bhs: Bhs = bhs[..].try_into().expect("48 bytes");
        let length = data_segment_length(&bhs) as usize;
        let mut data: Vec<u8> = bytes.drain(..length.next_multiple_of(4)).collect();
        if length > 0 {
            let field: Vec<u8> = bytes.drain(..DIGEST_BYTES).collect();
            assert_eq!(field, digest::field_of(&data));
        }
        data.truncate(length);
        Some((bhs, data))
    }

    /// Takes what has come; whether there was anything.
    fn listen(&mut self) -> bool {
        let mut any = false;
        for way in 0..self.ways.len() {
            while let Some((bhs, data)) = self.take_pdu(way) {
                any = true;
                let is_lost =
                    self.strikes(Fate::AnswerLost) || !data.is_empty() && self.strikes(Fate::DataSpoilt);
                // §7.8: where the next PDU begins is not known any more.
                let is_cut = self.strikes(Fate::Cut)
                    || self.strikes(Fate::Abandoned)
                    || self.strikes(Fate::HeaderSpoilt);
                if is_cut {
                    self.lose(way);
                } else if !is_lost {
                    self.take(way, &bhs, &data);
                }
            }
        }
        any
    }

    fn take(&mut self, way: usize, bhs: &Bhs, data: &[u8]) {
        let tag = initiator_task_tag(bhs).0;
        let at = self.orders.iter().position(|order| order.tag == tag && !order.has_ended);
        let expected = CmdSn(u32::from_be_bytes(bhs[28..32].try_into().expect("4 bytes")));
        if expected.follows(self.expected_cmd_sn) {
            self.expected_cmd_sn = expected;
        }
        match (TargetPdu::parse(bhs).expect("the shard speaks as it should"), at) {
            (TargetPdu::DataIn(pdu), Some(at)) => self.take_data(at, &pdu, data),
            (TargetPdu::R2t(r2t), Some(at)) if r2t.r2t_sn.0 == self.orders[at].next_r2t_sn => {
                self.orders[at].next_r2t_sn += 1;
                let end = r2t.buffer_offset + r2t.desired_data_transfer_length;
                self.burst(at, r2t.target_transfer_tag, r2t.buffer_offset, end);
            }
            (TargetPdu::ScsiResponse(response), Some(at)) => self.take_response(at, &response),
            (TargetPdu::Reject(reject), _) if reject.stat_sn == self.ways[way].expected_stat_sn => {
                self.ways[way].expected_stat_sn = reject.stat_sn.next();
                let rejected: &Bhs = data[..BHS_BYTES].try_into().expect("the header that was rejected");
                if let Ok(InitiatorPdu::ScsiCommand(command)) = InitiatorPdu::parse(rejected) {
                    assert_eq!(reject.reason, RejectReason::DataDigestError);
                    let is_it = |order: &Order| order.tag == command.initiator_task_tag.0;
                    let at = self.orders.iter().position(is_it).expect("one of ours");
                    // §7.2.1: the same command, under the same number.
                    self.transmit(at);
                }
            }
            (TargetPdu::TaskManagement(answer), _) => {
                assert_eq!(answer.result, TaskManagementResult::Complete, "it is the command's to go on");
                self.ways[way].expected_stat_sn = answer.stat_sn.next();
            }
            (TargetPdu::Logout(answer), _) => {
                assert_eq!(answer.result, LogoutResult::Closed);
                self.ways[way].expected_stat_sn = answer.stat_sn.next();
            }
            // Once more, or before its turn: it is asked for again.
            (
                TargetPdu::R2t(_) | TargetPdu::Reject(_) | TargetPdu::DataIn(_) | TargetPdu::ScsiResponse(_),
                _,
            ) => {}
            // At levels 0 and 1 the other connections hear that the session is dropped.
            (TargetPdu::NopIn(_) | TargetPdu::Async(_), _) => {}
            (other, _) => panic!("{other:?}"),
        }
    }

    fn take_data(&mut self, at: usize, pdu: &DataIn, data: &[u8]) {
        let order = &mut self.orders[at];
        if pdu.data_sn.0 != order.next_data_sn {
            return;
        }
        assert_eq!(pdu.buffer_offset as usize, order.data.len(), "one run of bytes");
        order.next_data_sn += 1;
        order.data.extend_from_slice(data);
        if let Some(ending) = pdu.status {
            assert_eq!((self.level, ending.status), (0, GOOD));
            let expected = &mut self.ways[order.way].expected_stat_sn;
            if ending.stat_sn == *expected {
                *expected = ending.stat_sn.next();
                order.has_ended = true;
            }
        }
    }

    fn take_response(&mut self, at: usize, response: &ScsiResponse) {
        let order = &mut self.orders[at];
        let expected = &mut self.ways[order.way].expected_stat_sn;
        if response.stat_sn != *expected || response.expected_data_sn > order.next_data_sn {
            return;
        }
        *expected = response.stat_sn.next();
        if response.status == GOOD {
            assert_eq!(response.residual, Residual::None);
            order.has_ended = true;
        } else {
            let may_fail = matches!(self.fate, Fate::DataSpoilt | Fate::RequestLost);
            assert!(self.level == 0 && may_fail, "what fails above level 0");
            self.submit(at);
        }
    }

    /// Nothing comes any more, and not all is done.
    fn recover(&mut self) {
        let closed = (0..self.ways.len())
            .find(|way| self.bench.world.borrow().sockets[self.ways[*way].socket].is_closed);
        if let Some(way) = closed {
            return self.lose(way);
        }
        if self.level == 0 {
            return self.lose(0);
        }
        let before = self.progress();
        self.ask_again();
        self.listen();
        let is_stuck = before == self.progress() && self.bench.world.borrow().at_medium.is_empty();
        if is_stuck && self.fate == Fate::RequestLost {
            // The end of a sequence is lost: nobody but the shard misses it, and gives up in the end.
            self.bench.pass(Duration::from_secs(1));
            self.bench.pass(RESPONSE_TIMEOUT);
        }
    }

    /// What changes as long as anything comes of what is asked for.
    fn progress(&self) -> u32 {
        let of_order = |order: &Order| order.next_data_sn + order.next_r2t_sn + u32::from(order.has_ended);
        self.orders.iter().map(of_order).sum()
    }

    /// Sends again what is not acknowledged, and asks for what may not have come.
    fn ask_again(&mut self) {
        for at in 0..self.orders.len() {
            let order = &self.orders[at];
            if !order.has_ended && !order.cmd_sn.precedes(self.expected_cmd_sn) {
                self.transmit(at);
                self.listen();
            }
        }
        for at in 0..self.orders.len() {
            let Order { is_write, way, tag, next_r2t_sn, next_data_sn, has_ended, .. } = self.orders[at];
            if !has_ended {
                let next = if is_write { next_r2t_sn } else { next_data_sn };
                self.snack(way, SnackType::DataOrR2t, InitiatorTaskTag(tag), next);
            }
        }
        for way in 0..self.ways.len() {
            let expected = self.ways[way].expected_stat_sn.0;
            self.snack(way, SnackType::Status, InitiatorTaskTag::RESERVED, expected);
        }
    }

    fn snack(&mut self, way: usize, kind: SnackType, tag: InitiatorTaskTag, run_begin: u32) {
        let snack = Snack {
            kind,
            lun: LunField::default(),
            initiator_task_tag: tag,
            transfer_or_snack_tag: u32::MAX,
            expected_stat_sn: self.ways[way].expected_stat_sn,
            run_begin,
            run_length: 0,
        };
        self.tell(way, InitiatorPdu::Snack(snack));
        self.listen();
    }

    fn tell(&mut self, way: usize, pdu: InitiatorPdu) {
        let mut bhs = [0; BHS_BYTES];
        pdu.emit(&mut bhs);
        self.post(way, bhs, &[]);
    }

    /// A connection is lost. At level 2 another one goes on with its commands; below, the session is lost with it.
    fn lose(&mut self, way: usize) {
        self.losses += 1;
        assert!(self.losses <= self.faults, "a fault costs one connection");
        // Bytes that were on their way to the initiator are lost as well.
        self.bench.world.borrow_mut().sockets[self.ways[way].socket].from_shard.clear();
        if self.fate != Fate::Abandoned {
            self.bench.world.borrow_mut().cut(self.ways[way].socket);
            self.bench.settle();
        }
        if self.level < 2 {
            return self.begin_anew();
        }
        // §7.2.2: from another connection where there is one, else by the one that takes its place.
        if self.ways.len() > 1 && self.fate != Fate::HeaderSpoilt {
            self.log_out_from((way + 1) % self.ways.len(), way);
        }
        let (socket, expected) = self.join(way);
        self.ways[way] = Way { socket, expected_stat_sn: StatSn(2) };
        self.expected_cmd_sn = expected;
        let losses = self.losses;
        for at in 0..self.orders.len() {
            if self.losses > losses {
                // Whoever saw to that has seen to the rest.
                return;
            }
            let order = &self.orders[at];
            if order.way != way || order.has_ended || !order.is_submitted {
                continue;
            }
            if order.cmd_sn.precedes(expected) {
                self.reassign(at);
            } else {
                self.transmit(at);
            }
        }
    }

    fn log_out_from(&mut self, speaker: usize, lost: usize) {
        let logout = LogoutRequest {
            immediate: true,
            reason: LogoutReason::RemoveConnectionForRecovery,
            initiator_task_tag: InitiatorTaskTag(0xeeee),
            cid: Cid(u16::try_from(lost).expect("few")),
            cmd_sn: self.cmd_sn,
            expected_stat_sn: self.ways[speaker].expected_stat_sn,
        };
        self.tell(speaker, InitiatorPdu::Logout(logout));
    }

    fn reassign(&mut self, at: usize) {
        let Order { is_write, way, tag, next_r2t_sn, next_data_sn, .. } = self.orders[at];
        let request = TaskManagementRequest {
            immediate: true,
            function: TaskManagementFunction::TaskReassign,
            lun: LunField::default(),
            initiator_task_tag: InitiatorTaskTag(0xf000 + tag),
            referenced_task_tag: InitiatorTaskTag(tag),
            cmd_sn: self.cmd_sn,
            expected_stat_sn: self.ways[way].expected_stat_sn,
            referenced_cmd_sn: CmdSn(0),
            expected_data_sn: DataSn(if is_write { next_r2t_sn } else { next_data_sn }),
        };
        self.tell(way, InitiatorPdu::TaskManagement(request));
    }

    /// The session is lost: what has not ended is asked for in another, and nothing of the old one lands after that has begun.
    fn begin_anew(&mut self) {
        self.logins += 1;
        for way in &self.ways {
            self.bench.world.borrow_mut().cut(way.socket);
        }
        self.bench.settle();
        self.bench.land_all();
        let written = self.bench.world.borrow().written.len();
        let ends = self.bench.world.borrow().sent.iter().filter(|letter| is_end(letter)).count();
        assert_eq!(ends, 1, "the session ends once");
        self.log_in();
        assert_eq!(self.bench.world.borrow().written.len(), written);
        for at in 0..self.orders.len() {
            if !self.orders[at].has_ended {
                self.submit(at);
            }
        }
    }

    /// Every command has ended: what was read is what is there, what was written is there.
    fn check(&mut self) {
        self.armed = false;
        for way in 0..self.ways.len() {
            // What is acknowledged is kept no longer, and nothing more comes.
            let nop = NopOut {
                immediate: true,
                data_segment_length: 0,
                lun: LunField::default(),
                initiator_task_tag: InitiatorTaskTag::RESERVED,
                target_transfer_tag: TargetTransferTag::RESERVED,
                cmd_sn: self.cmd_sn,
                expected_stat_sn: self.ways[way].expected_stat_sn,
            };
            self.tell(way, InitiatorPdu::NopOut(nop));
            while let Some((bhs, _)) = self.take_pdu(way) {
                let pdu = TargetPdu::parse(&bhs).expect("the shard speaks as it should");
                let is_idle = matches!(pdu, TargetPdu::NopIn(_) | TargetPdu::Logout(_));
                assert!(is_idle, "everything was answered once: {pdu:?}");
            }
        }
        self.check_data();
        let world = self.bench.world.borrow();
        assert!(world.at_medium.is_empty());
        let ends = world.sent.iter().filter(|letter| is_end(letter)).count();
        assert_eq!(ends, self.logins as usize);
        let costs_none =
            self.level == 2 || self.level == 1 && matches!(self.fate, Fate::DataSpoilt | Fate::AnswerLost);
        assert!(!costs_none || self.logins == 0, "no session is lost where it can be recovered");
        let stored: usize = world.written.iter().map(|(_, data)| data.len()).sum();
        let writes = self.orders.iter().filter(|order| order.is_write);
        let wanted: usize = writes.map(|order| order.length as usize).sum();
        assert!(self.level < 2 || stored == wanted, "each write lands once");
    }

    fn check_data(&self) {
        let world = self.bench.world.borrow();
        for order in &self.orders {
            let begin = order.lba * 512;
            let bytes = begin..begin + u64::from(order.length);
            if order.is_write {
                let mut stored = vec![None; order.length as usize];
                for (offset, data) in &world.written {
                    for (at, byte) in (*offset..).zip(data).filter(|(at, _)| bytes.contains(at)) {
                        stored[usize::try_from(at - begin).expect("small")] = Some(*byte);
                    }
                }
                assert!(stored.into_iter().eq(bytes.map(|at| Some(write_byte(at)))), "all of it, and right");
            } else {
                assert!(order.data.iter().copied().eq(bytes.map(world::block_byte)), "what is there");
            }
        }
    }
}

fn is_end(letter: &ToControl) -> bool {
    matches!(letter, ToControl::SessionEnded { .. })
}

fn bytes_of(lba: u64, offset: u32, length: u32) -> Vec<u8> {
    let begin = lba * 512 + u64::from(offset);
    (begin..begin + u64::from(length)).map(write_byte).collect()
}

/// The final Login Response, which goes without digests: its status and ExpCmdSN.
fn take_login(bytes: &mut std::collections::VecDeque<u8>) -> Option<(LoginStatus, CmdSn)> {
    let bhs: Vec<u8> = bytes.drain(..BHS_BYTES).collect();
    let bhs: &Bhs = bhs[..].try_into().ok()?;
    let length = data_segment_length(bhs) as usize;
    bytes.drain(..length.next_multiple_of(4));
    match TargetPdu::parse(bhs) {
        Ok(TargetPdu::Login(login)) => Some((login.status, login.expected_cmd_sn)),
        _ => None,
    }
}
