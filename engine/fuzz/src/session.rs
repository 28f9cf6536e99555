//! The full feature phase (RFC 7143 §4.2, §11): any PDUs and any calls in any order.

use core::time::Duration;

use portico_iscsi::login::SessionType;
use portico_iscsi::moment::Moment;
use portico_iscsi::negotiate::Parameters;
use portico_iscsi::session::{
    Completion, Expired, Joining, KeepaliveTimes, Received, Referenced, Request, Seat, Session, Spoilt,
    Start, TaskId,
};
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::violation::{Answer, Violation};
use portico_iscsi::wire::ahs::AdditionalHeaders;
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, Cid, InitiatorPdu, Isid, LogoutResult, TargetPdu, TaskManagementResult, Tsih,
};

use crate::wire::told;
use crate::{Fuzzer, Source, Trace};

/// See the module.
pub const FUZZER: Fuzzer = Fuzzer { name: "session", run, dictionary: &[], bytes_max: 4096 };

const WINDOW: u16 = 4;
const FIRST_STAT_SN: StatSn = StatSn(50);

fn run(input: &[u8], trace: &mut Trace) {
    let mut source = Source::new(input);
    let mut caller = Caller::new(&mut source);
    while !source.is_empty() {
        if source.flag() {
            let bhs = any_pdu(&mut source);
            let (spoilt, seat) = (source.byte() == 0xff, source.byte());
            caller.receive(&bhs, caller.seats[usize::from(seat) % caller.seats.len()], spoilt, trace);
        } else {
            caller.act(source.byte(), source.byte(), trace);
        }
    }
    caller.end();
}

/// Any PDU, with numbers from so small a choice that they often mean something.
fn any_pdu(source: &mut Source<'_>) -> Bhs {
    let mut bhs: Bhs = [0; BHS_BYTES];
    let opcode = source.pick(&[0x01, 0x05, 0x01, 0x05, 0x00, 0x02, 0x03, 0x04, 0x06, 0x10]);
    let choice = source.byte();
    bhs[0] = opcode | if choice & 3 == 3 { 0x40 } else { 0 };
    bhs[1] = source.byte() & 0xe3;
    bhs[4..8].copy_from_slice(&(u32::from(choice >> 2 & 3) * 512).to_be_bytes());
    bhs[9] = (choice >> 4 & 1) * 3;
    bhs[19] = source.below(3);
    // Bytes 20 to 23: a transfer tag, a referenced tag, or an expected length.
    let tag = source.byte();
    let word = match tag & 3 {
        0 => u32::MAX,
        1 => u32::from(tag / 4 % 3) << 16,
        2 => u32::from(tag / 4 % 3) << 16 | 1,
        _ => u32::from(tag) * 64,
    };
    bhs[20..24].copy_from_slice(&word.to_be_bytes());
    bhs[27] = source.below(6);
    bhs[39] = source.below(3);
    bhs[40..44].copy_from_slice(&(u32::from(source.below(8)) * 512).to_be_bytes());
    if choice >> 5 == 7 {
        // Something quite else.
        let at = usize::from(source.byte()) % BHS_BYTES;
        bhs[at] = source.byte();
    }
    bhs
}

struct Caller {
    session: Session,
    now: Moment,
    delivered: Vec<TaskId>,
    ended: Vec<TaskId>,
    begun: Vec<TaskId>,
    /// Connections, and the StatSN that comes next on each.
    seats: Vec<Seat>,
    stat_sns: Vec<StatSn>,
    maximum_cmd_sn: CmdSn,
}

impl Caller {
    fn new(source: &mut Source<'_>) -> Self {
        let choice = source.byte();
        let parameters = Parameters {
            initial_r2t: choice & 1 != 0,
            immediate_data: choice & 2 == 0,
            first_burst_length: 2048,
            max_burst_length: 4096,
            max_outstanding_r2t: 1 + u16::from(choice >> 2 & 3),
            max_connections: 2,
            peer_max_recv_data_segment_length: 1024,
            own_max_recv_data_segment_length: 65_536,
            ..Parameters::default()
        };
        let times = KeepaliveTimes { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) };
        let mut session = Session::new(Start {
            parameters,
            session_type: if choice >> 4 == 15 { SessionType::Discovery } else { SessionType::Normal },
            tsih: Tsih(1),
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            cid: Cid(0),
            cmd_sn: CmdSn(1),
            stat_sn: FIRST_STAT_SN,
            queued_commands: WINDOW,
            keepalive: times,
            now: Moment::ORIGIN,
        });
        let mut seats = vec![Seat::LEADING];
        if choice & 0x10 != 0 {
            let joining =
                Joining { cid: Cid(1), stat_sn: FIRST_STAT_SN, parameters: &parameters, now: Moment::ORIGIN };
            seats.extend(session.join(&joining));
        }
        let maximum_cmd_sn = session.window().maximum();
        Self {
            session,
            now: Moment::ORIGIN,
            delivered: vec![],
            ended: vec![],
            begun: vec![],
            stat_sns: vec![FIRST_STAT_SN; seats.len()],
            seats,
            maximum_cmd_sn,
        }
    }

    fn receive(&mut self, bhs: &Bhs, seat: Seat, spoilt: bool, trace: &mut Trace) {
        let ahs = usize::from(bhs[4]) * 4;
        let headers = vec![0; ahs.min(64)];
        if AdditionalHeaders::parse(&headers).is_err() {
            return;
        }
        let pdu = InitiatorPdu::parse(bhs);
        match pdu.and_then(|pdu| self.session.receive(seat, &pdu, &headers, self.now)) {
            Ok(Received::Request { task, segment } | Received::Data { task, segment }) => {
                assert!(segment.keep_bytes + segment.discard_bytes < 1 << 24);
                trace.mark((segment.keep_bytes > 0, segment.discard_bytes > 0, spoilt));
                if spoilt {
                    // A request that was spoilt never came: it is the caller's to let go of.
                    if let Spoilt::Request = self.session.data_spoilt(seat, task) {
                        self.ended.push(task);
                    }
                } else {
                    self.session.data_arrived(seat, task);
                }
            }
            Ok(Received::Absorb { .. }) => trace.mark("absorbed"),
            Ok(Received::Snack(_)) => trace.mark("snack"),
            Err(violation) => {
                told(&violation, trace);
                if let Answer::Reject(reason) = violation.answer() {
                    self.emit(seat, |session, header| session.reject(seat, reason, bhs, header), trace);
                }
            }
        }
    }

    /// Whatever goes out is well formed; StatSN counts each answer once; MaxCmdSN never falls.
    fn emit(&mut self, seat: Seat, emit: impl FnOnce(&mut Session, &mut Bhs), trace: &mut Trace) {
        let mut header = [0xff; BHS_BYTES];
        emit(&mut self.session, &mut header);
        let pdu = TargetPdu::parse(&header).expect("a target's PDU");
        trace.mark_kind(&pdu);
        let (stat_sn, uses_one, maximum) = match pdu {
            TargetPdu::ScsiResponse(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::TaskManagement(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::NopIn(pdu) => {
                (Some(pdu.stat_sn), !pdu.initiator_task_tag.is_reserved(), pdu.maximum_cmd_sn)
            }
            TargetPdu::Text(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::Logout(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::Reject(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::Async(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::R2t(pdu) => (Some(pdu.stat_sn), false, pdu.maximum_cmd_sn),
            TargetPdu::DataIn(pdu) => {
                (pdu.status.map(|status| status.stat_sn), pdu.status.is_some(), pdu.maximum_cmd_sn)
            }
            TargetPdu::Login(_) => panic!("no login here"),
        };
        let next = &mut self.stat_sns[seat.index()];
        if let Some(stat_sn) = stat_sn {
            assert_eq!(stat_sn, *next);
        }
        *next = if uses_one { next.next() } else { *next };
        assert!(!maximum.precedes(self.maximum_cmd_sn));
        self.maximum_cmd_sn = maximum;
    }

    /// One of the things that a caller may do, with the task that it chooses.
    fn act(&mut self, action: u8, choice: u8, trace: &mut Trace) {
        while let Some(task) = self.session.next_request() {
            self.delivered.push(task);
        }
        trace.mark((action % 10, self.delivered.len().min(3)));
        let task = self.delivered.get(usize::from(choice) % self.delivered.len().max(1)).copied();
        match (action % 10, task) {
            (0, Some(task)) => self.begin(task, choice),
            (1, Some(task)) => self.ask(task, u32::from(choice) * 64, trace),
            (2, Some(task)) => self.send_data(task, u32::from(choice) * 64, trace),
            (3, Some(task)) => self.answer(task, trace),
            (4, Some(task)) => {
                self.session.abort(task);
                self.finished(task);
            }
            (5, Some(task)) if matches!(self.session.request(task), Request::Command(_)) => {
                self.session.discard_data(task);
            }
            (6, _) => {
                if let Some(ended) = self.ended.pop() {
                    self.session.retire(ended);
                }
            }
            (7, _) => self.pass(u64::from(choice), trace),
            (8, _) => self.session.hold_window(choice & 1 == 1),
            (9, _) => self.session.set_window(1 + u16::from(choice) % WINDOW),
            _ => {}
        }
    }

    fn begin(&mut self, task: TaskId, choice: u8) {
        let Request::Command(command) = *self.session.request(task) else { return };
        if self.begun.contains(&task) {
            return;
        }
        self.begun.push(task);
        if command.write {
            self.session.want_data(task, u64::from(choice) * 64);
        } else {
            let sent = self.session.begin_data_in(task, u64::from(choice) * 64);
            assert!(sent <= command.expected_data_transfer_length);
        }
    }

    fn ask(&mut self, task: TaskId, budget: u32, trace: &mut Trace) {
        let Request::Command(command) = *self.session.request(task) else { return };
        let mut header = [0; BHS_BYTES];
        if let Some(range) = self.session.next_r2t(task, budget, &mut header) {
            assert!(range.length_bytes <= budget && range.length_bytes > 0);
            let end = range.offset_bytes + range.length_bytes;
            assert!(end <= command.expected_data_transfer_length);
            self.emit(self.session.seat_of_task(task), |_, copy| *copy = header, trace);
        }
    }

    fn send_data(&mut self, task: TaskId, available: u32, trace: &mut Trace) {
        let Request::Command(command) = *self.session.request(task) else { return };
        let mut header = [0; BHS_BYTES];
        if let Some(segment) = self.session.next_data_in(task, available, &mut header) {
            let end = segment.offset_bytes + segment.length_bytes;
            assert!(end <= available && end <= command.expected_data_transfer_length.max(available));
            self.emit(self.session.seat_of_task(task), |_, copy| *copy = header, trace);
            if segment.ends_task {
                self.finished(task);
            }
        }
    }

    fn answer(&mut self, task: TaskId, trace: &mut Trace) {
        let request = *self.session.request(task);
        let failed = Completion { status: 2, sense_bytes: 18 };
        self.emit(
            self.session.seat_of_task(task),
            |session, header| match request {
                Request::Command(_) => session.response(task, failed, header),
                Request::TaskManagement(request) => {
                    let result = match session.referenced(&request) {
                        Referenced::Nothing => TaskManagementResult::TaskDoesNotExist,
                        Referenced::Task(_) | Referenced::NeverArrived => TaskManagementResult::Complete,
                    };
                    session.task_management_response(task, result, [0; 3], header);
                }
                Request::NopOut(ping) => session.nop_in(task, ping.data_segment_length, header),
                Request::Text(_) => {
                    session.reject_text(task, &Violation::TextWithoutEquals, header);
                }
                Request::Logout(logout) => {
                    let result = session.logout(&logout).err().unwrap_or(LogoutResult::Closed);
                    session.logout_response(task, result, header);
                }
            },
            trace,
        );
        self.finished(task);
    }

    fn pass(&mut self, seconds: u64, trace: &mut Trace) {
        self.now = self.now + Duration::from_secs(seconds);
        let seat = self.seats[usize::try_from(seconds).expect("a byte") % self.seats.len()];
        let expired = self.session.expire(seat, self.now);
        trace.mark_kind(&expired);
        match expired {
            Expired::Nothing => {}
            Expired::Ping => {
                let now = self.now;
                self.emit(seat, |session, header| session.ping(seat, now, header), trace);
            }
            // Whoever drives it closes the connection; here the peer is heard of again.
            Expired::PeerSilent => self.session.heard(seat, self.now),
        }
    }

    fn finished(&mut self, task: TaskId) {
        self.delivered.retain(|other| *other != task);
        self.begun.retain(|other| *other != task);
        self.ended.push(task);
        assert!(!self.session.is_live(task));
    }

    /// Whatever came, the window is not lost: once all tasks have ended it is as wide as it may be.
    fn end(mut self) {
        self.session.hold_window(false);
        self.session.set_window(WINDOW);
        while let Some(task) = self.session.next_request() {
            self.delivered.push(task);
        }
        for task in std::mem::take(&mut self.delivered) {
            self.session.abort(task);
            self.ended.push(task);
        }
        for task in std::mem::take(&mut self.ended) {
            self.session.retire(task);
        }
        let mut header = [0; BHS_BYTES];
        self.session.window_update(Seat::LEADING, &mut header);
        assert_eq!(self.session.window().size(), u32::from(WINDOW));
    }
}
