//! Our initiator does I/O with our target, every PDU in bytes: whatever was negotiated, however much each side expects, and
//! in whatever order the two get their turns, each byte arrives where it belongs, and neither finds fault with the other.

use super::*;
use crate::initiator::{self, Command, Direction, Established, Event, Payload, Placement};
use crate::wire::Residual;
use proptest::prelude::*;

/// One command of the initiator's: what it expects to move, and what the command itself moves.
#[derive(Clone, Copy, Debug)]
struct Order {
    direction: Direction,
    expected: u32,
    required: u32,
}

impl Order {
    fn moves(self) -> u32 {
        self.expected.min(self.required)
    }

    fn residual(self) -> Residual {
        match self.required.checked_sub(self.expected) {
            None => Residual::Underflow(self.expected - self.required),
            Some(0) => Residual::None,
            Some(more) => Residual::Overflow(more),
        }
    }
}

/// What the byte at this place of this command's data is.
fn pattern(user: u64, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ usize::try_from(user).unwrap().wrapping_mul(77)).to_le_bytes()[0]
}

/// A task at the target.
struct Work {
    task: TaskId,
    user: u64,
    order: Order,
    data: Vec<u8>,
}

struct World {
    orders: Vec<Order>,
    initiator: initiator::Session,
    target: Session,
    work: Vec<Work>,
    /// Per slot of the target's table, what has come for it.
    slots: Vec<Vec<u8>>,
    to_initiator: std::collections::VecDeque<(Bhs, Vec<u8>)>,
    read: Vec<Vec<u8>>,
    submitted: usize,
    completed: usize,
}

impl World {
    fn new(parameters: Parameters, queued_commands: u16, orders: Vec<Order>) -> Self {
        let target = Session::new(Start { parameters, queued_commands, ..start() });
        let established = Established {
            parameters: Parameters {
                own_max_recv_data_segment_length: parameters.peer_max_recv_data_segment_length,
                peer_max_recv_data_segment_length: parameters.own_max_recv_data_segment_length,
                ..parameters
            },
            discovery: false,
            tsih: Tsih(1),
            cid: Cid(0),
            window: target.window(),
            expected_stat_sn: target.stat_sn(Seat::LEADING),
            portal_group_tag: Some(1),
            target_alias: None,
            said: Vec::new(),
        };
        Self {
            initiator: initiator::Session::new(&established, 8),
            slots: vec![Vec::new(); target.task_slots()],
            read: orders.iter().map(|order| vec![0; order.expected as usize]).collect(),
            target,
            orders,
            work: Vec::new(),
            to_initiator: std::collections::VecDeque::new(),
            submitted: 0,
            completed: 0,
        }
    }

    fn submit(&mut self) {
        let Some(order) = self.orders.get(self.submitted) else { return };
        let mut cdb = [0; 16];
        cdb[2..6].copy_from_slice(&order.required.to_be_bytes());
        let command = Command {
            lun: LUN,
            cdb: &cdb,
            direction: order.direction,
            expected_length: order.expected,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user: self.submitted as u64,
        };
        self.submitted += usize::from(self.initiator.submit(&command).is_some());
    }

    /// The initiator sends one PDU, and the target takes it.
    fn initiator_sends(&mut self) {
        let mut bhs = [0; BHS_BYTES];
        let Some(outgoing) = self.initiator.next_pdu(&mut bhs) else { return };
        let bytes = match outgoing.payload {
            Payload::None => Vec::new(),
            Payload::Bytes(bytes) => bytes.to_vec(),
            Payload::WriteBuffer { user, offset, length, .. } => {
                (offset..offset + length).map(|at| pattern(user, at as usize)).collect()
            }
        };
        let pdu = InitiatorPdu::parse(&bhs).unwrap();
        let (task, segment) = match self.target.receive(Seat::LEADING, &pdu, &[], Moment::ORIGIN).unwrap() {
            Received::Request { task, segment } => {
                self.slots[task.slot()].clear();
                (task, segment)
            }
            Received::Data { task, segment } => (task, segment),
            Received::Snack(_) | Received::Absorb { .. } => {
                panic!("an initiator that keeps to the rules sends nothing in vain")
            }
        };
        assert_eq!((segment.keep_bytes + segment.discard_bytes) as usize, bytes.len());
        let slot = &mut self.slots[task.slot()];
        if segment.keep_bytes > 0 {
            assert_eq!(slot.len(), segment.offset_bytes as usize, "data comes in one run");
            slot.extend_from_slice(&bytes[..segment.keep_bytes as usize]);
        }
        let progress = self.target.data_arrived(Seat::LEADING, task);
        assert_eq!(progress.fault, None);
    }

    /// The target begins all that is ready.
    fn target_begins(&mut self) {
        while let Some(task) = self.target.next_request() {
            let command = self.target.command(task);
            let user = u64::from(command.cmd_sn.0 - 1);
            let order = self.orders[usize::try_from(user).unwrap()];
            assert_eq!(command.cdb[2..6], order.required.to_be_bytes(), "in the order of submission");
            let mut data = Vec::new();
            match order.direction {
                Direction::Read => {
                    assert_eq!(self.target.begin_data_in(task, u64::from(order.required)), order.moves());
                    data = (0..order.moves() as usize).map(|at| pattern(user, at)).collect();
                }
                Direction::Write => {
                    self.target.want_data(task, u64::from(order.required));
                }
                Direction::None => {}
            }
            self.work.push(Work { task, user, order, data });
        }
    }

    /// The target sends what it can for one of its tasks, within a budget of bytes.
    fn target_sends(&mut self, choice: usize, budget: u32) {
        if self.work.is_empty() {
            return;
        }
        let index = choice % self.work.len();
        let Work { task, order, .. } = self.work[index];
        let mut header = [0; BHS_BYTES];
        if order.direction == Direction::Read && order.moves() > 0 {
            let Some(segment) = self.target.next_data_in(task, order.moves(), &mut header) else { return };
            let range = segment.offset_bytes as usize..(segment.offset_bytes + segment.length_bytes) as usize;
            self.to_initiator.push_back((header, self.work[index].data[range].to_vec()));
            if segment.ends_task {
                self.target.retire(task);
                self.work.swap_remove(index);
            }
            return;
        }
        if self.target.next_r2t(task, budget, &mut header).is_some() {
            self.to_initiator.push_back((header, Vec::new()));
            return;
        }
        let progress = self.target.progress(task);
        let is_write = order.direction == Direction::Write;
        if is_write && !(progress.is_complete && progress.is_settled) {
            return;
        }
        if is_write {
            let kept = &self.slots[task.slot()];
            let user = self.work[index].user;
            assert!(kept.len() >= order.moves() as usize);
            assert!(kept.iter().enumerate().all(|(at, &byte)| byte == pattern(user, at)));
        }
        self.target.response(task, GOOD, &mut header);
        self.to_initiator.push_back((header, Vec::new()));
        self.target.retire(task);
        self.work.swap_remove(index);
    }

    /// The initiator hears one PDU.
    fn initiator_hears(&mut self) {
        let Some((header, bytes)) = self.to_initiator.pop_front() else { return };
        let staged = match self.initiator.receive_header(&header).expect("our target keeps to the rules") {
            Placement::ReadBuffer { user, offset, length, .. } => {
                let buffer = &mut self.read[usize::try_from(user).unwrap()];
                buffer[offset as usize..(offset + length) as usize].copy_from_slice(&bytes);
                &[][..]
            }
            Placement::Staging { .. } | Placement::None => &bytes[..],
        };
        let event = self.initiator.receive_done(staged).expect("our target keeps to the rules");
        let Event::Completed(completion) = event else {
            assert!(matches!(event, Event::None), "{event:?}");
            return;
        };
        let order = self.orders[usize::try_from(completion.user).unwrap()];
        assert_eq!((completion.status, completion.residual), (0, order.residual()));
        if order.direction == Direction::Read {
            assert_eq!(completion.moved, order.moves());
            let read = &self.read[usize::try_from(completion.user).unwrap()][..order.moves() as usize];
            assert!(read.iter().enumerate().all(|(at, &byte)| byte == pattern(completion.user, at)));
        }
        self.completed += 1;
    }

    /// Turns in the order of the schedule, and then in a fixed one until all is done.
    fn run(&mut self, schedule: &[(u8, u32)]) {
        const ROUNDS_MAX: usize = 2_000_000;
        let mut turns = schedule.iter().copied().chain((0_u8..=u8::MAX).cycle().map(|turn| (turn, u32::MAX)));
        for _ in 0..ROUNDS_MAX {
            if self.completed == self.orders.len() {
                assert_eq!(self.target.live_commands().count(), 0);
                return;
            }
            let (turn, budget) = turns.next().expect("endless");
            match turn % 5 {
                0 => self.submit(),
                1 => self.initiator_sends(),
                2 => self.target_begins(),
                3 => self.target_sends(usize::from(turn), budget),
                _ => self.initiator_hears(),
            }
        }
        panic!("{} of {} commands never ended", self.orders.len() - self.completed, self.orders.len());
    }
}

fn any_order() -> impl Strategy<Value = Order> {
    let length = || prop_oneof![Just(0_u32), 1_u32..600, 600_u32..40_000];
    prop_oneof![
        (length(), length()).prop_map(|(expected, required)| (Direction::Read, expected, required)),
        (length(), length()).prop_map(|(expected, required)| (Direction::Write, expected, required)),
        length().prop_map(|both| (Direction::Write, both, both)),
        Just((Direction::None, 0, 0)),
    ]
    .prop_map(|(direction, expected, required)| Order { direction, expected, required })
}

fn any_parameters() -> impl Strategy<Value = Parameters> {
    (any::<(bool, bool)>(), 512_u32..9000, 512_u32..9000, 512_u32..20_000, 512_u32..20_000, 1_u16..6)
        .prop_map(|((initial_r2t, immediate_data), own, peer, burst, first, outstanding)| Parameters {
            initial_r2t,
            immediate_data,
            own_max_recv_data_segment_length: own,
            peer_max_recv_data_segment_length: peer,
            max_burst_length: burst,
            first_burst_length: first.min(burst),
            max_outstanding_r2t: outstanding,
            ..Parameters::default()
        })
}

proptest! {
    #[test]
    fn every_byte_arrives_and_nobody_finds_fault(
        parameters in any_parameters(),
        queued_commands in 1_u16..6,
        orders in proptest::collection::vec(any_order(), 1..12),
        schedule in proptest::collection::vec((any::<u8>(), 1_u32..10_000), 0..400),
    ) {
        World::new(parameters, queued_commands, orders).run(&schedule);
    }
}
