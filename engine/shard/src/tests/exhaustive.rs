//! One fault at each position of a dialogue, one after the other: a PDU whose data digest is wrong, one that the initiator
//! discards, a connection that is cut (RFC 7143 §7.1, §7.8, §11.16). At recovery levels 0 and 1 every command ends once, and
//! with the right data.

use super::*;
use portico_iscsi::digest;
use portico_iscsi::wire::{
    DataIn, InitiatorPdu, NopOut, RejectReason, Residual, ScsiResponse, Snack, SnackType, initiator_task_tag,
};
use portico_model::message::ToControl;

/// What happens to the PDU at the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes to the shard, has data, and its digest is not theirs.
    Spoilt,
    /// It comes from the shard, and the initiator discards it.
    Discarded,
    /// The connection is cut before it, whichever way it goes.
    Cut,
}

/// One command, until it has ended.
#[derive(Clone)]
struct Order {
    is_write: bool,
    lba: u64,
    length: u32,
    tag: u32,
    cmd_sn: CmdSn,
    next_data_sn: u32,
    next_r2t_sn: u32,
    data: Vec<u8>,
    has_ended: bool,
}

/// An initiator that recovers as its level lets it, and a shard.
struct Play {
    bench: Bench,
    peer: Peer,
    level: u8,
    fate: Fate,
    /// PDUs of the kind in question that are left until it strikes; `None` once it has.
    left: Option<usize>,
    orders: Vec<Order>,
    next_tag: u32,
    expected_stat_sn: StatSn,
    /// Times that it had to log in again.
    logins: u32,
}

/// Immediate data of a write, the length of each Data-Out, and what comes unasked in all.
const IMMEDIATE_BYTES: u32 = 2048;
const DATA_OUT_BYTES: u32 = 3072;
const FIRST_BURST: u32 = 8192;
/// More turns than any play needs.
const STEPS_MAX: usize = 400;

fn write_byte(at: u64) -> u8 {
    (at / 7).to_le_bytes()[0] ^ 0xa5
}

impl Play {
    fn new(level: u8, fate: Fate, position: usize) -> Self {
        let mut bench = Bench::new();
        bench.open(1, 8);
        let peer = bench.log_in(&[(0, 1)], &keys(level));
        let order = |is_write, lba, length| Order {
            is_write,
            lba,
            length,
            tag: 0,
            cmd_sn: CmdSn(0),
            next_data_sn: 0,
            next_r2t_sn: 0,
            data: Vec::new(),
            has_ended: false,
        };
        let orders = vec![
            order(true, 0, 20 << 10),
            order(false, 1000, 20 << 10),
            order(true, 4000, 512),
            order(false, 5000, 512),
        ];
        // The final Login Response and the answer to the first TEST UNIT READY went before.
        let expected_stat_sn = StatSn(3);
        Self {
            bench,
            peer,
            level,
            fate,
            left: Some(position),
            orders,
            next_tag: 100,
            expected_stat_sn,
            logins: 0,
        }
    }

    /// Plays to the end; whether the fault has struck.
    fn run(mut self) -> bool {
        for at in 0..self.orders.len() {
            // Where the connection was cut, all of them are asked for already.
            if self.logins == 0 {
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
        panic!("level {} {:?}: the play has no end", self.level, self.fate);
    }

    /// Whether the fault strikes here.
    fn strikes(&mut self, fate: Fate) -> bool {
        if self.fate != fate {
            return false;
        }
        match self.left {
            Some(0) => {
                self.left = None;
                true
            }
            Some(left) => {
                self.left = Some(left - 1);
                false
            }
            None => false,
        }
    }

    fn post(&mut self, mut bhs: Bhs, data: &[u8]) {
        if self.strikes(Fate::Cut) {
            return self.log_in_again();
        }
        let length = u32::try_from(data.len()).expect("a segment is small");
        bhs[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        let is_spoilt = !data.is_empty() && self.strikes(Fate::Spoilt);
        let mut field = digest::field_of(data);
        field[1] ^= u8::from(is_spoilt);
        {
            let world = &mut *self.bench.world.borrow_mut();
            let to_shard = &mut world.sockets[self.peer.socket].to_shard;
            to_shard.extend(bhs);
            to_shard.extend(data);
            if !data.is_empty() {
                to_shard.extend(field);
            }
            world.feed(self.peer.socket);
        }
        self.bench.settle();
    }

    /// A command takes its number, and is sent.
    fn submit(&mut self, at: usize) {
        self.next_tag += 1;
        let (tag, cmd_sn) = (self.next_tag, self.peer.cmd_sn);
        self.peer.cmd_sn = cmd_sn.next();
        let order = &mut self.orders[at];
        (order.tag, order.cmd_sn, order.next_data_sn, order.next_r2t_sn) = (tag, cmd_sn, 0, 0);
        order.data.clear();
        self.transmit(at);
    }

    /// Sends a command with its unsolicited data, under the number that it has.
    fn transmit(&mut self, at: usize) {
        let Order { is_write, lba, length, tag, cmd_sn, .. } = self.orders[at];
        let immediate = if is_write { length.min(IMMEDIATE_BYTES) } else { 0 };
        let unasked = if is_write { length.min(FIRST_BURST) } else { 0 };
        let opcode = if is_write { 0x8a } else { 0x88 };
        let mut bhs = [0; BHS_BYTES];
        ScsiCommand {
            is_final: unasked == immediate,
            read: !is_write,
            write: is_write,
            cmd_sn,
            expected_stat_sn: self.expected_stat_sn,
            ..command(0, tag, transfer(opcode, lba, length), length)
        }
        .emit(&mut bhs);
        let logins = self.logins;
        self.post(bhs, &bytes_of(lba, 0, immediate));
        if unasked > immediate && logins == self.logins {
            self.burst(at, TargetTransferTag::RESERVED, immediate, unasked);
        }
    }

    fn burst(&mut self, at: usize, transfer: TargetTransferTag, begin: u32, end: u32) {
        let Order { lba, tag, .. } = self.orders[at];
        let (mut offset, mut data_sn, logins) = (begin, 0, self.logins);
        while offset < end && logins == self.logins {
            let length = (end - offset).min(DATA_OUT_BYTES);
            let mut bhs = [0; BHS_BYTES];
            DataOut {
                is_final: offset + length == end,
                data_segment_length: length,
                lun: if transfer.is_reserved() { LunField::default() } else { lun_field(0) },
                initiator_task_tag: InitiatorTaskTag(tag),
                target_transfer_tag: transfer,
                expected_stat_sn: self.expected_stat_sn,
                data_sn: DataSn(data_sn),
                buffer_offset: offset,
            }
            .emit(&mut bhs);
            self.post(bhs, &bytes_of(lba, offset, length));
            (offset, data_sn) = (offset + length, data_sn + 1);
        }
    }

    /// Takes what has come; whether there was anything.
    fn listen(&mut self) -> bool {
        let mut any = false;
        loop {
            let pdu = {
                let world = &mut *self.bench.world.borrow_mut();
                take_pdu(&mut world.sockets[self.peer.socket].from_shard)
            };
            let Some((bhs, data)) = pdu else { return any };
            any = true;
            if self.strikes(Fate::Cut) {
                self.log_in_again();
            } else if !self.strikes(Fate::Discarded) {
                self.take(&bhs, &data);
            }
        }
    }

    fn take(&mut self, bhs: &Bhs, data: &[u8]) {
        let tag = initiator_task_tag(bhs).0;
        let at = self.orders.iter().position(|order| order.tag == tag && !order.has_ended);
        match (TargetPdu::parse(bhs).expect("the shard speaks as it should"), at) {
            (TargetPdu::DataIn(pdu), Some(at)) => self.take_data(at, &pdu, data),
            (TargetPdu::R2t(r2t), Some(at)) if r2t.r2t_sn.0 == self.orders[at].next_r2t_sn => {
                self.orders[at].next_r2t_sn += 1;
                let end = r2t.buffer_offset + r2t.desired_data_transfer_length;
                self.burst(at, r2t.target_transfer_tag, r2t.buffer_offset, end);
            }
            (TargetPdu::ScsiResponse(response), Some(at)) => self.take_response(at, &response),
            (TargetPdu::Reject(reject), _) if reject.stat_sn == self.expected_stat_sn => {
                self.expected_stat_sn = reject.stat_sn.next();
                let rejected: &Bhs = data[..BHS_BYTES].try_into().expect("the header that was rejected");
                if let Ok(InitiatorPdu::ScsiCommand(command)) = InitiatorPdu::parse(rejected) {
                    assert_eq!(reject.reason, RejectReason::DataDigestError);
                    let is_it = |order: &Order| order.tag == command.initiator_task_tag.0;
                    let at = self.orders.iter().position(is_it).expect("one of ours");
                    // §7.2.1: the same command, under the same number.
                    self.transmit(at);
                }
            }
            // Once more, or before its turn: it is asked for again.
            (
                TargetPdu::R2t(_) | TargetPdu::Reject(_) | TargetPdu::DataIn(_) | TargetPdu::ScsiResponse(_),
                _,
            ) => {}
            (TargetPdu::NopIn(_), _) => {}
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
            if ending.stat_sn == self.expected_stat_sn {
                self.expected_stat_sn = ending.stat_sn.next();
                self.orders[at].has_ended = true;
            }
        }
    }

    fn take_response(&mut self, at: usize, response: &ScsiResponse) {
        let order = &self.orders[at];
        if response.stat_sn != self.expected_stat_sn || response.expected_data_sn > order.next_data_sn {
            return;
        }
        self.expected_stat_sn = response.stat_sn.next();
        if response.status == GOOD {
            assert_eq!(response.residual, Residual::None);
            self.orders[at].has_ended = true;
        } else {
            assert_eq!((self.level, self.fate), (0, Fate::Spoilt), "what fails at level 1");
            self.submit(at);
        }
    }

    /// Nothing comes any more, and not all is done.
    fn recover(&mut self) {
        if self.level == 0 {
            return self.log_in_again();
        }
        let snack = |kind, tag, run_begin| {
            InitiatorPdu::Snack(Snack {
                kind,
                lun: LunField::default(),
                initiator_task_tag: tag,
                transfer_or_snack_tag: u32::MAX,
                expected_stat_sn: self.expected_stat_sn,
                run_begin,
                run_length: 0,
            })
        };
        let mut snacks = Vec::new();
        for order in self.orders.iter().filter(|order| !order.has_ended) {
            let next = if order.is_write { order.next_r2t_sn } else { order.next_data_sn };
            snacks.push(snack(SnackType::DataOrR2t, InitiatorTaskTag(order.tag), next));
        }
        snacks.push(snack(SnackType::Status, InitiatorTaskTag::RESERVED, self.expected_stat_sn.0));
        for pdu in snacks {
            let mut bhs = [0; BHS_BYTES];
            pdu.emit(&mut bhs);
            self.post(bhs, &[]);
            self.listen();
        }
    }

    /// The connection is lost, and with it the session: what has not ended is asked for in another.
    fn log_in_again(&mut self) {
        self.logins += 1;
        assert!(self.logins <= 1, "one fault costs one session");
        self.bench.world.borrow_mut().cut(self.peer.socket);
        self.bench.settle();
        self.bench.land_all();
        let ends = self.bench.world.borrow().sent.iter().filter(|letter| is_end(letter)).count();
        assert_eq!(ends, 1, "the session ends once");
        self.peer = self.bench.log_in(&[(0, 1)], &keys(self.level));
        self.expected_stat_sn = StatSn(3);
        for at in 0..self.orders.len() {
            if !self.orders[at].has_ended {
                self.submit(at);
            }
        }
    }

    /// Every command has ended: what was read is what is there, what was written is there.
    fn check(&mut self) {
        // What is acknowledged is kept no longer, and nothing more comes.
        let nop = NopOut {
            immediate: true,
            data_segment_length: 0,
            lun: LunField::default(),
            initiator_task_tag: InitiatorTaskTag::RESERVED,
            target_transfer_tag: TargetTransferTag::RESERVED,
            cmd_sn: self.peer.cmd_sn,
            expected_stat_sn: self.expected_stat_sn,
        };
        let mut bhs = [0; BHS_BYTES];
        InitiatorPdu::NopOut(nop).emit(&mut bhs);
        self.post(bhs, &[]);
        let world = self.bench.world.borrow();
        assert!(world.sockets[self.peer.socket].from_shard.is_empty(), "everything was answered once");
        assert!(world.at_medium.is_empty());
        let ends = world.sent.iter().filter(|letter| is_end(letter)).count();
        assert_eq!(ends, self.logins as usize);
        let is_recovered = self.level == 1 && self.fate != Fate::Cut;
        assert!(!is_recovered || self.logins == 0, "no session is lost for a digest");
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

fn keys(level: u8) -> String {
    format!(
        "InitialR2T=No|ImmediateData=Yes|FirstBurstLength={FIRST_BURST}|MaxBurstLength=8192|MaxOutstandingR2T=2|\
         MaxRecvDataSegmentLength=4096|DataDigest=CRC32C|ErrorRecoveryLevel={level}|"
    )
}

/// A whole PDU, whose data digest is right.
fn take_pdu(bytes: &mut std::collections::VecDeque<u8>) -> Option<(Bhs, Vec<u8>)> {
    if bytes.is_empty() {
        return None;
    }
    let bhs: Vec<u8> = bytes.drain(..BHS_BYTES).collect();
    let bhs: Bhs = bhs[..].try_into().expect("48 bytes");
    let length = data_segment_length(&bhs) as usize;
    let mut data: Vec<u8> = bytes.drain(..length.next_multiple_of(4)).collect();
    if length > 0 {
        let field: Vec<u8> = bytes.drain(..4).collect();
        assert_eq!(field, digest::field_of(&data));
    }
    data.truncate(length);
    Some((bhs, data))
}

/// The fault at every position that there is; how many.
fn at_every_position(level: u8, fate: Fate) -> usize {
    let mut position = 0;
    while Play::new(level, fate, position).run() {
        position += 1;
    }
    position
}

#[test]
fn a_wrong_data_digest_at_any_pdu_costs_no_command() {
    for level in [0, 1] {
        // Two commands with immediate data, two Data-Out unasked and four that were asked for.
        assert!(at_every_position(level, Fate::Spoilt) >= 8, "level {level}");
    }
}

#[test]
fn whichever_pdu_the_initiator_discards_everything_ends_once() {
    for level in [0, 1] {
        // Six Data-In and two R2Ts at least, and at level 1 four responses.
        assert!(at_every_position(level, Fate::Discarded) >= 8 + 4 * usize::from(level), "level {level}");
    }
}

#[test]
fn wherever_the_connection_is_cut_everything_ends_once() {
    for level in [0, 1] {
        assert!(at_every_position(level, Fate::Cut) >= 18, "level {level}");
    }
}
