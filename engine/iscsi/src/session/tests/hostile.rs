//! Peers that keep to no rule, and callers that do everything they may: no panic, and the numbers stay right.

use super::*;
use crate::violation::Answer;
use proptest::prelude::*;

/// Any PDU, with numbers from so small a choice that they often mean something.
fn any_pdu() -> impl Strategy<Value = Bhs> {
    let opcode = prop_oneof![
        4 => Just(0x01_u8),
        4 => Just(0x05),
        3 => prop::sample::select(vec![0x00, 0x02, 0x03, 0x04, 0x06, 0x10]),
    ];
    (opcode, any::<[u8; 4]>(), 0_u32..3, 0_u32..6, 0_u32..3, 0_u32..4, any::<bool>()).prop_map(
        |(opcode, [flags, tags, offset, lun], tag, cmd_sn, data_sn, length, immediate)| {
            let mut bhs: Bhs = [0; BHS_BYTES];
            bhs[0] = opcode | if immediate { 0x40 } else { 0 };
            bhs[1] = flags & 0xe3;
            bhs[4..8].copy_from_slice(&(length * 512).to_be_bytes());
            bhs[9] = lun % 2 * 3;
            bhs[16..20].copy_from_slice(&tag.to_be_bytes());
            // Bytes 20 to 23: a transfer tag, a referenced tag, or an expected length.
            let ttt = match tags % 4 {
                0 => u32::MAX,
                1 => u32::from(tags / 4 % 3) << 16,
                2 => u32::from(tags / 4 % 3) << 16 | 1,
                _ => u32::from(tags) * 64,
            };
            bhs[20..24].copy_from_slice(&ttt.to_be_bytes());
            // CmdSN; in a Data-Out it means nothing.
            bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
            bhs[36..40].copy_from_slice(&data_sn.to_be_bytes());
            bhs[40..44].copy_from_slice(&(u32::from(offset % 8) * 512).to_be_bytes());
            bhs
        },
    )
}

struct Caller {
    session: Session,
    delivered: Vec<TaskId>,
    ended: Vec<TaskId>,
    begun: Vec<TaskId>,
    stat_sn: StatSn,
    maximum_cmd_sn: CmdSn,
}

impl Caller {
    fn new() -> Self {
        let session = Session::new(start());
        let (stat_sn, maximum_cmd_sn) = (session.stat_sn(Seat::LEADING), session.window().maximum());
        Self { session, delivered: vec![], ended: vec![], begun: vec![], stat_sn, maximum_cmd_sn }
    }

    fn receive(&mut self, bhs: &Bhs) {
        let pdu = InitiatorPdu::parse(bhs);
        match pdu.and_then(|pdu| self.session.receive(Seat::LEADING, &pdu, &[], Moment::ORIGIN)) {
            Ok(Received::Request { task, .. } | Received::Data { task, .. }) => {
                self.session.data_arrived(Seat::LEADING, task);
            }
            Ok(Received::Snack(_) | Received::Absorb { .. }) => {}
            Err(violation) => {
                if let Answer::Reject(reason) = violation.answer() {
                    self.emit(|session, header| session.reject(Seat::LEADING, reason, bhs, header));
                }
            }
        }
    }

    /// Whatever goes out is well-formed; StatSN counts each answer once; MaxCmdSN never falls.
    fn emit(&mut self, emit: impl FnOnce(&mut Session, &mut Bhs)) {
        let mut header = [0xff; BHS_BYTES];
        emit(&mut self.session, &mut header);
        let (stat_sn, uses_one, maximum) = match TargetPdu::parse(&header).expect("a target's PDU") {
            TargetPdu::ScsiResponse(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::TaskManagement(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::NopIn(pdu) => {
                (Some(pdu.stat_sn), !pdu.initiator_task_tag.is_reserved(), pdu.maximum_cmd_sn)
            }
            TargetPdu::Text(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::Logout(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::Reject(pdu) => (Some(pdu.stat_sn), true, pdu.maximum_cmd_sn),
            TargetPdu::R2t(pdu) => (Some(pdu.stat_sn), false, pdu.maximum_cmd_sn),
            TargetPdu::DataIn(pdu) => {
                (pdu.status.map(|status| status.stat_sn), pdu.status.is_some(), pdu.maximum_cmd_sn)
            }
            other => panic!("{other:?}"),
        };
        if let Some(stat_sn) = stat_sn {
            assert_eq!(stat_sn, self.stat_sn);
        }
        self.stat_sn = if uses_one { self.stat_sn.next() } else { self.stat_sn };
        assert!(!maximum.precedes(self.maximum_cmd_sn));
        self.maximum_cmd_sn = maximum;
    }

    /// One of the things that a caller may do with the task it chooses.
    fn act(&mut self, action: u8, choice: u8) {
        while let Some(task) = self.session.next_request() {
            self.delivered.push(task);
        }
        let pick = |tasks: &[TaskId]| tasks.get(usize::from(choice) % tasks.len().max(1)).copied();
        let Some(task) = pick(&self.delivered) else { return };
        let begun = self.begun.contains(&task);
        match (action % 6, *self.session.request(task)) {
            (0, Request::Command(command)) if !begun => {
                self.begun.push(task);
                if command.write {
                    self.session.want_data(task, u64::from(choice) * 64);
                } else {
                    self.session.begin_data_in(task, u64::from(choice) * 64);
                }
            }
            (1, Request::Command(_)) => {
                let mut header = [0; BHS_BYTES];
                if self.session.next_r2t(task, u32::from(choice) * 64, &mut header).is_some() {
                    self.emit(|_, copy| *copy = header);
                }
            }
            (2, Request::Command(_)) => {
                let mut header = [0; BHS_BYTES];
                if let Some(segment) = self.session.next_data_in(task, u32::from(choice) * 64, &mut header) {
                    self.emit(|_, copy| *copy = header);
                    if segment.ends_task {
                        self.finished(task);
                    }
                }
            }
            (3, request) => {
                self.emit(|session, header| match request {
                    Request::Command(_) => session.response(task, CHECK_CONDITION, header),
                    Request::TaskManagement(request) => {
                        let result = match session.referenced(&request) {
                            Referenced::Nothing => crate::wire::TaskManagementResult::TaskDoesNotExist,
                            Referenced::Task(_) | Referenced::NeverArrived => {
                                crate::wire::TaskManagementResult::Complete
                            }
                        };
                        session.task_management_response(task, result, [0; 3], header);
                    }
                    Request::NopOut(ping) => session.nop_in(task, ping.data_segment_length, header),
                    Request::Text(_) => {
                        session.reject_text(task, &Violation::TextWithoutEquals, header);
                    }
                    Request::Logout(logout) => {
                        let result =
                            session.logout(&logout).err().unwrap_or(crate::wire::LogoutResult::Closed);
                        session.logout_response(task, result, header);
                    }
                });
                self.finished(task);
            }
            (4, _) => {
                self.session.abort(task);
                self.finished(task);
            }
            _ => {
                if let Some(ended) = self.ended.pop() {
                    self.session.retire(ended);
                }
            }
        }
    }

    fn finished(&mut self, task: TaskId) {
        self.delivered.retain(|other| *other != task);
        self.begun.retain(|other| *other != task);
        self.ended.push(task);
        assert!(!self.session.is_live(task));
    }
}

/// A session of three connections, on each of which a PDU may be half in.
struct Crowd {
    session: Session,
    seats: Vec<Seat>,
    incoming: [Option<TaskId>; 3],
    delivered: Vec<TaskId>,
    parameters: Parameters,
}

impl Crowd {
    fn new(error_recovery_level: u8) -> Self {
        let parameters = Parameters { max_connections: 3, error_recovery_level, ..parameters() };
        let mut session = Session::new(Start { parameters, ..start() });
        for cid in 1..3 {
            let (stat_sn, now) = (StatSn(900), Moment::ORIGIN);
            let joining = Joining { cid: Cid(cid), stat_sn, parameters: &parameters, now };
            session.join(&joining).expect("there is room");
        }
        let seats = session.seats().collect();
        Self { session, seats, incoming: [None; 3], delivered: vec![], parameters }
    }

    /// A connection is lost, and comes again.
    fn lose(&mut self, at: usize, is_logged_out: bool) {
        if let Some(oldest) = self.session.crowded_out() {
            self.forget(oldest);
        }
        let (seat, cid) = (self.seats[at], self.session.cid(self.seats[at]));
        let loss = if is_logged_out { Loss::LoggedOut(None) } else { Loss::Failed };
        let suspended = self.session.suspend(seat, loss, Moment::ORIGIN);
        self.incoming[at] = None;
        assert_eq!(self.session.may_reassign_from(suspended.seat), is_logged_out);
        for task in suspended.ended {
            self.delivered.retain(|other| *other != task);
            self.session.retire(task);
        }
        self.session.leave(seat);
        let joining =
            Joining { cid, stat_sn: StatSn(900), parameters: &self.parameters, now: Moment::ORIGIN };
        self.seats[at] = self.session.join(&joining).expect("there is room");
        self.delivered.extend(core::iter::from_fn(|| self.session.next_request()));
    }

    fn forget(&mut self, lost: Seat) {
        for tag in 0..3 {
            let task = self.session.task_by_itt(InitiatorTaskTag(tag));
            if let Some(task) = task.filter(|task| self.session.seat_of_task(*task) == lost) {
                self.end(task);
            }
        }
        self.session.forget_lost(lost);
    }

    /// A command that waits goes on with a connection.
    fn take_over(&mut self, at: usize, task: TaskId, expected: u32) {
        let waits_at = self.session.seat_of_task(task);
        if self.session.lost().any(|(lost, _)| lost == waits_at) {
            self.session.reassign(task, self.seats[at], DataSn(expected), None);
        }
    }

    /// A header comes in on a connection, or the data segment of the one before it, which may be spoilt.
    fn advance(&mut self, at: usize, bhs: &Bhs, is_spoilt: bool) {
        let seat = self.seats[at];
        if let Some(task) = self.incoming[at].take() {
            let was_live = self.session.is_live(task);
            if !is_spoilt {
                self.session.data_arrived(seat, task);
            } else if self.session.data_spoilt(seat, task) == Spoilt::Request && was_live {
                self.session.retire(task);
            }
        } else if let Ok(InitiatorPdu::ScsiCommand(command)) = InitiatorPdu::parse(bhs)
            && let Some((task, _)) = self.session.receive_in_turn(seat, &command, Moment::ORIGIN)
        {
            self.delivered.push(task);
        } else {
            let pdu = InitiatorPdu::parse(bhs);
            match pdu.and_then(|pdu| self.session.receive(seat, &pdu, &[], Moment::ORIGIN)) {
                Ok(Received::Request { task, .. } | Received::Data { task, .. }) => {
                    self.incoming[at] = Some(task);
                }
                Ok(Received::Snack(_) | Received::Absorb { .. }) => {}
                Err(_) => self.session.consume_cmd_sn(bhs),
            }
        }
        self.delivered.extend(core::iter::from_fn(|| self.session.next_request()));
    }

    /// Ends a task, whether it was delivered or not.
    fn end(&mut self, task: TaskId) {
        if let Request::TaskManagement(request) = *self.session.request(task) {
            self.session.referenced(&request);
        }
        self.delivered.retain(|other| *other != task);
        self.session.abort(task);
        self.session.retire(task);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_interleaving_of_connections_breaks_a_session(
        steps in proptest::collection::vec((0_usize..3, any_pdu(), any::<(u8, u8)>()), 1..80), recovers: bool,
    ) {
        let mut crowd = Crowd::new(if recovers { 2 } else { 0 });
        for (at, bhs, (luck, tag)) in steps {
            crowd.advance(at, &bhs, luck % 4 == 0);
            if recovers && luck % 7 == 0 {
                crowd.lose(at, tag % 2 == 0);
            }
            if luck % 6 == 0
                && let Some(task) = crowd.session.task_by_itt(InitiatorTaskTag(u32::from(tag % 3)))
            {
                crowd.take_over(at, task, u32::from(tag % 4));
            }
            if luck % 3 == 0 && let Some(&task) = crowd.delivered.first() {
                crowd.end(task);
            }
            if luck % 5 == 0
                && let Some(task) = crowd.session.task_by_itt(InitiatorTaskTag(u32::from(tag % 3)))
            {
                crowd.end(task);
            }
        }
        for at in 0..3 {
            if crowd.incoming[at].is_some() {
                crowd.advance(at, &[0; BHS_BYTES], false);
            }
        }
        let live: Vec<TaskId> =
            (0..3).filter_map(|tag| crowd.session.task_by_itt(InitiatorTaskTag(tag))).collect();
        live.into_iter().for_each(|task| crowd.end(task));
        let mut header = [0; BHS_BYTES];
        crowd.session.window_update(Seat::LEADING, &mut header);
        prop_assert_eq!(crowd.session.window().size(), 4);
    }

    #[test]
    fn no_sequence_of_pdus_and_actions_breaks_a_session(
        steps in proptest::collection::vec((any_pdu(), any::<(u8, u8)>()), 1..80),
    ) {
        let mut caller = Caller::new();
        for (bhs, (action, choice)) in steps {
            caller.receive(&bhs);
            caller.act(action, choice);
        }
        // Whatever came, the window is not lost: once all tasks have ended it is as wide as at the start.
        while let Some(task) = caller.session.next_request() {
            caller.delivered.push(task);
        }
        for task in core::mem::take(&mut caller.delivered) {
            caller.session.abort(task);
            caller.ended.push(task);
        }
        for task in core::mem::take(&mut caller.ended) {
            caller.session.retire(task);
        }
        let mut header = [0; BHS_BYTES];
        caller.session.window_update(Seat::LEADING, &mut header);
        prop_assert_eq!(caller.session.window().size(), 4);
    }

    #[test]
    fn random_headers_never_panic(headers: Vec<[u8; 16]>) {
        let mut caller = Caller::new();
        for bytes in headers {
            let mut bhs = [0; BHS_BYTES];
            bhs[..4].copy_from_slice(&bytes[..4]);
            bhs[7] = bytes[4];
            bhs[16..28].copy_from_slice(&bytes[4..]);
            bhs[36..48].copy_from_slice(&bytes[4..]);
            caller.receive(&bhs);
        }
    }
}
