//! What a session receives: every PDU of the target is checked against what it may be now, then turned into
//! an event.
//!
//! Two steps, because the data of a read goes straight into the caller's buffer: `receive_header` checks the
//! BHS and says where the data segment belongs; `receive_done`, once that is there, takes effect.

use super::fault::TargetFault;
use super::session::{
    Burst, Direction, PINGS_PENDING_MAX, ScsiTask, Session, Strictness, TEXT_EXCHANGES_MAX, Tag, Task,
    Tolerated, UserData, Work,
};
use crate::sn::{CmdSn, CommandWindow, DataSn, StatSn};
use crate::wire::{
    AsyncMessage, BHS_BYTES, Bhs, DataIn, InitiatorTaskTag, LogoutRequest, LogoutResponse, NopIn, NopOut,
    R2t, Reject, RejectReason, Residual, ScsiCommand, ScsiResponse, ServiceResponse, TargetPdu,
    TaskManagementRequest, TaskManagementResponse, TaskManagementResult, TextRequest, TextResponse, opcode,
};

/// Where the data segment of a PDU belongs. Padding and digests are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// There is none.
    None,
    /// A range of a command's read buffer.
    ReadBuffer {
        /// The command.
        tag: Tag,
        /// Its user data.
        user: UserData,
        /// In bytes.
        offset: u32,
        /// In bytes, not 0.
        length: u32,
    },
    /// Anywhere, to be handed to `receive_done`.
    Staging {
        /// In bytes, not 0.
        length: u32,
    },
}

/// How a SCSI command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<'a> {
    /// The command; its tag is free again.
    pub tag: Tag,
    /// Its user data.
    pub user: UserData,
    /// Whether there is a SCSI status.
    pub response: ServiceResponse,
    /// The SCSI status.
    pub status: u8,
    /// Sense data; empty without an exception.
    pub sense: &'a [u8],
    /// Residual.
    pub residual: Residual,
    /// Bytes that were received, or sent.
    pub moved: u32,
}

/// What a PDU meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing to be told: data has come, something waits to be sent, or the command window has moved.
    None,
    /// A SCSI command has ended.
    Completed(Completion<'a>),
    /// A task management function has ended. Commands that it has ended are to be abandoned by the caller.
    TaskManaged {
        /// Of the function.
        tag: Tag,
        /// How.
        result: TaskManagementResult,
        /// RFC 7144's additional information.
        additional: [u8; 3],
    },
    /// A ping is back.
    Pong(Tag),
    /// A text exchange is complete; `text` reads it.
    Text(Tag),
    /// A logout has ended.
    LoggedOut {
        /// Of the logout.
        tag: Tag,
        /// The response.
        response: LogoutResponse,
    },
    /// An Asynchronous Message, with its sense and event data.
    Async {
        /// The message.
        message: AsyncMessage,
        /// Its data segment.
        data: &'a [u8],
    },
    /// A Reject. Where a request was rejected its task has ended.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// The rejected header.
        header: Bhs,
        /// The task that has ended.
        task: Option<(Tag, Option<UserData>)>,
    },
}

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;

/// The statuses that are no exception (§11.7.3): GOOD, CONDITION MET, INTERMEDIATE, INTERMEDIATE-CONDITION
/// MET.
const fn is_exception(status: u8) -> bool {
    !matches!(status, GOOD | 0x04 | 0x10 | 0x14)
}

impl Session {
    /// Checks the header of the next PDU of the target and says where its data segment belongs.
    /// `receive_done` has to follow before the next header.
    ///
    /// # Errors
    /// The target broke a rule; the connection is to be closed.
    pub fn receive_header(&mut self, bhs: &Bhs) -> Result<Placement, TargetFault> {
        assert!(self.pending.is_none(), "receive_done has been left out");
        let pdu = TargetPdu::parse(bhs)?;
        let placement = match &pdu {
            TargetPdu::DataIn(data) => self.place(data)?,
            _ => match crate::wire::data_segment_length(bhs) {
                0 => Placement::None,
                length => Placement::Staging { length },
            },
        };
        self.pending = Some(pdu);
        Ok(placement)
    }

    /// Takes the PDU whose header came last, now that its data segment is where it belongs. `staged` is the
    /// segment that was to be staged, without padding; else it is empty.
    ///
    /// # Errors
    /// The target broke a rule; the connection is to be closed.
    pub fn receive_done<'a>(&mut self, staged: &'a [u8]) -> Result<Event<'a>, TargetFault> {
        let pdu = self.pending.take().expect("receive_header comes first");
        match pdu {
            TargetPdu::DataIn(data) => {
                if let Some(ending) = data.status {
                    self.take_stat_sn(DataIn::OPCODE, ending.stat_sn)?;
                }
                self.move_window(data.expected_cmd_sn, data.maximum_cmd_sn)?;
                self.data_arrived(&data)
            }
            TargetPdu::ScsiResponse(response) => {
                self.number(
                    ScsiResponse::OPCODE,
                    response.stat_sn,
                    response.expected_cmd_sn,
                    response.maximum_cmd_sn,
                )?;
                self.answered(&response, staged)
            }
            TargetPdu::R2t(r2t) => {
                self.expect_stat_sn(R2t::OPCODE, r2t.stat_sn)?;
                self.move_window(r2t.expected_cmd_sn, r2t.maximum_cmd_sn)?;
                self.asked(&r2t)
            }
            TargetPdu::NopIn(nop) => self.nop(&nop),
            TargetPdu::TaskManagement(response) => {
                let opcode = TaskManagementResponse::OPCODE;
                self.number(opcode, response.stat_sn, response.expected_cmd_sn, response.maximum_cmd_sn)?;
                let is_right = |task: &Task| matches!(task, Task::Management);
                let tag = self.control_task(opcode, response.initiator_task_tag, is_right)?;
                self.release(tag);
                let additional = response.additional_information;
                Ok(Event::TaskManaged { tag, result: response.result, additional })
            }
            TargetPdu::Text(response) => {
                self.number(
                    TextResponse::OPCODE,
                    response.stat_sn,
                    response.expected_cmd_sn,
                    response.maximum_cmd_sn,
                )?;
                self.told(&response, staged)
            }
            TargetPdu::Logout(response) => {
                let opcode = LogoutResponse::OPCODE;
                self.number(opcode, response.stat_sn, response.expected_cmd_sn, response.maximum_cmd_sn)?;
                let is_right = |task: &Task| matches!(task, Task::Logout);
                let tag = self.control_task(opcode, response.initiator_task_tag, is_right)?;
                self.release(tag);
                Ok(Event::LoggedOut { tag, response })
            }
            TargetPdu::Async(message) => {
                self.number(
                    AsyncMessage::OPCODE,
                    message.stat_sn,
                    message.expected_cmd_sn,
                    message.maximum_cmd_sn,
                )?;
                Ok(Event::Async { message, data: staged })
            }
            TargetPdu::Reject(reject) => {
                self.number(Reject::OPCODE, reject.stat_sn, reject.expected_cmd_sn, reject.maximum_cmd_sn)?;
                self.rejected(&reject, staged)
            }
            TargetPdu::Login(_) => {
                Err(TargetFault::OutOfPhase { opcode: crate::wire::LoginResponse::OPCODE })
            }
        }
    }

    // Numbering (§4.2.2).

    fn number(
        &mut self,
        opcode: u8,
        stat_sn: StatSn,
        expected: CmdSn,
        maximum: CmdSn,
    ) -> Result<(), TargetFault> {
        self.take_stat_sn(opcode, stat_sn)?;
        self.move_window(expected, maximum)
    }

    fn take_stat_sn(&mut self, opcode: u8, received: StatSn) -> Result<(), TargetFault> {
        self.expect_stat_sn(opcode, received)?;
        self.expected_stat_sn = received.next();
        Ok(())
    }

    fn expect_stat_sn(&self, opcode: u8, received: StatSn) -> Result<(), TargetFault> {
        let expected = self.expected_stat_sn;
        if received == expected {
            Ok(())
        } else {
            Err(TargetFault::StatSnWrong { opcode, expected, received })
        }
    }

    /// §4.2.2.1: each of the two only ever moves forward; an older value is passed over.
    fn move_window(&mut self, expected: CmdSn, maximum: CmdSn) -> Result<(), TargetFault> {
        if CommandWindow::new(expected, maximum).is_none() {
            return Err(TargetFault::CommandWindowInverted { expected, maximum });
        }
        let next = self.next_cmd_sn();
        if next.precedes(expected) {
            return Err(TargetFault::AcknowledgedUnsent { expected, next });
        }
        let later = |old: CmdSn, new: CmdSn| if old.precedes(new) { new } else { old };
        let (expected, maximum) =
            (later(self.window().expected(), expected), later(self.window().maximum(), maximum));
        if let Some(window) = CommandWindow::new(expected, maximum) {
            self.order.set_window(window);
        }
        Ok(())
    }

    // SCSI commands.

    /// The outstanding command of a PDU.
    fn command(&mut self, opcode: u8, tag: InitiatorTaskTag) -> Result<(Tag, &mut ScsiTask), TargetFault> {
        let ours = Tag(tag.0);
        let is_known = self.task(ours).is_some();
        match self.scsi_task_mut(ours) {
            Some(task) if task.emitted => Ok((ours, task)),
            None if is_known => Err(TargetFault::WrongKindOfTask { opcode, tag }),
            _ => Err(TargetFault::UnknownTask { opcode, tag }),
        }
    }

    /// The answer to a command acknowledges it (§4.2.2.1), unless it went past the window.
    fn check_acknowledged(&mut self, task: &ScsiTask, expected: CmdSn) -> Result<(), TargetFault> {
        if task.immediate || task.cmd_sn.precedes(expected) {
            return Ok(());
        }
        self.tolerate(TargetFault::AnsweredUnacknowledged { expected, cmd_sn: task.cmd_sn })
    }

    /// A fault that endangers no data.
    fn tolerate(&mut self, fault: TargetFault) -> Result<(), TargetFault> {
        match self.strictness {
            Strictness::Letter => Err(fault),
            Strictness::Lenient => {
                self.tolerated = Tolerated { count: self.tolerated.count + 1, last: Some(fault) };
                Ok(())
            }
        }
    }

    /// Checks a Data-In PDU against its command and counts it.
    fn place(&mut self, data: &DataIn) -> Result<Placement, TargetFault> {
        let parameters = self.parameters;
        let (tag, task) = self.command(DataIn::OPCODE, data.initiator_task_tag)?;
        let (length, end) = (data.data_segment_length, data.buffer_end());
        if task.direction != Direction::Read {
            return Err(TargetFault::DataInForNoRead);
        }
        if data.data_sn != task.next_data_sn {
            return Err(TargetFault::DataSnWrong { expected: task.next_data_sn, received: data.data_sn });
        }
        if data.acknowledge && parameters.error_recovery_level == 0 {
            return Err(TargetFault::AcknowledgeAtLevel0);
        }
        if parameters.data_pdu_in_order
            && parameters.data_sequence_in_order
            && data.buffer_offset != task.received
        {
            return Err(TargetFault::DataInOutOfOrder {
                expected: task.received,
                offset: data.buffer_offset,
            });
        }
        if end > task.expected_length {
            return Err(TargetFault::DataInBeyondBuffer { end, expected: task.expected_length });
        }
        let burst = task.burst_received.saturating_add(length);
        task.next_data_sn = task.next_data_sn.next();
        task.received = task.received.saturating_add(length);
        task.burst_received = if data.is_final { 0 } else { burst };
        let user = task.user;
        if burst > parameters.max_burst_length {
            self.tolerate(TargetFault::BurstTooLong { length: burst, maximum: parameters.max_burst_length })?;
        }
        Ok(match length {
            0 => Placement::None,
            _ => Placement::ReadBuffer { tag, user, offset: data.buffer_offset, length },
        })
    }

    fn data_arrived<'a>(&mut self, data: &DataIn) -> Result<Event<'a>, TargetFault> {
        if data.acknowledge {
            // §11.7.2: there is no hole before it, or it would have been a fault.
            let (lun, target_transfer_tag, next) = (data.lun, data.target_transfer_tag, data.data_sn.next());
            self.work.push_back(Work::DataAck { lun, target_transfer_tag, next });
        }
        let Some(ending) = data.status else { return Ok(Event::None) };
        if is_exception(ending.status) {
            return Err(TargetFault::ExceptionInDataIn { status: ending.status });
        }
        let (tag, task) = self.command(DataIn::OPCODE, data.initiator_task_tag)?;
        let task = *task;
        self.check_acknowledged(&task, data.expected_cmd_sn)?;
        check_residual(&task, ending.status, ending.residual)?;
        self.release(tag);
        Ok(Event::Completed(Completion {
            tag,
            user: task.user,
            response: ServiceResponse::CommandCompleted,
            status: ending.status,
            sense: &[],
            residual: ending.residual,
            moved: task.received,
        }))
    }

    fn answered<'a>(&mut self, response: &ScsiResponse, staged: &'a [u8]) -> Result<Event<'a>, TargetFault> {
        let (tag, task) = self.command(ScsiResponse::OPCODE, response.initiator_task_tag)?;
        let task = *task;
        self.check_acknowledged(&task, response.expected_cmd_sn)?;
        let mut sense: &[u8] = &[];
        if response.response == ServiceResponse::CommandCompleted {
            sense = sense_of(staged)?;
            if response.status == CHECK_CONDITION && sense.is_empty() {
                return Err(TargetFault::SenseMissing);
            }
            if response.bidirectional_read_residual != Residual::None {
                return Err(TargetFault::BidirectionalResidual);
            }
            if task.burst_received != 0 {
                self.tolerate(TargetFault::BurstWithoutEnd)?;
            }
            // 0 for a write; some targets count R2Ts, as RFC 3720 could be read.
            let counts = match task.direction {
                Direction::Write => [0, task.next_r2t_sn.0],
                _ => [task.next_data_sn.0; 2],
            };
            if !counts.contains(&response.expected_data_sn) {
                let (claimed, received) = (response.expected_data_sn, counts[1]);
                self.tolerate(TargetFault::ExpectedDataSnWrong { claimed, received })?;
            }
            check_residual(&task, response.status, response.residual)?;
        }
        self.release(tag);
        Ok(Event::Completed(Completion {
            tag,
            user: task.user,
            response: response.response,
            status: response.status,
            sense,
            residual: response.residual,
            moved: task.received.max(task.sent),
        }))
    }

    /// An R2T becomes a burst in the queue.
    fn asked<'a>(&mut self, r2t: &R2t) -> Result<Event<'a>, TargetFault> {
        let parameters = self.parameters;
        let (tag, task) = self.command(R2t::OPCODE, r2t.initiator_task_tag)?;
        let (length, end) = (r2t.desired_data_transfer_length, r2t.buffer_end());
        if task.direction != Direction::Write {
            return Err(TargetFault::R2tForNoWrite);
        }
        if r2t.r2t_sn != task.next_r2t_sn {
            return Err(TargetFault::R2tSnWrong { expected: task.next_r2t_sn, received: r2t.r2t_sn });
        }
        if length > parameters.max_burst_length {
            return Err(TargetFault::R2tTooLong { length, maximum: parameters.max_burst_length });
        }
        if end > task.expected_length {
            return Err(TargetFault::R2tBeyondBuffer { end, expected: task.expected_length });
        }
        if parameters.data_sequence_in_order && r2t.buffer_offset != task.asked {
            return Err(TargetFault::R2tOutOfOrder { expected: task.asked, offset: r2t.buffer_offset });
        }
        if task.outstanding_r2ts >= parameters.max_outstanding_r2t {
            return Err(TargetFault::TooManyR2ts { maximum: parameters.max_outstanding_r2t });
        }
        task.next_r2t_sn = task.next_r2t_sn.next();
        task.asked = task.asked.max(end);
        task.outstanding_r2ts += 1;
        self.work.push_back(Work::Burst(Burst {
            tag,
            lun: r2t.lun,
            target_transfer_tag: r2t.target_transfer_tag,
            offset: r2t.buffer_offset,
            end,
            data_sn: DataSn(0),
        }));
        Ok(Event::None)
    }

    // Everything else.

    fn control_task(
        &self,
        opcode: u8,
        tag: InitiatorTaskTag,
        is_right: impl Fn(&Task) -> bool,
    ) -> Result<Tag, TargetFault> {
        match self.task(Tag(tag.0)) {
            Some(task) if is_right(task) => Ok(Tag(tag.0)),
            Some(_) => Err(TargetFault::WrongKindOfTask { opcode, tag }),
            None => Err(TargetFault::UnknownTask { opcode, tag }),
        }
    }

    fn nop<'a>(&mut self, nop: &NopIn) -> Result<Event<'a>, TargetFault> {
        let opcode = NopIn::OPCODE;
        if nop.initiator_task_tag.is_reserved() {
            // A ping of the target, or news of the window: no StatSN is used up (§11.19.2).
            self.expect_stat_sn(opcode, nop.stat_sn)?;
            self.move_window(nop.expected_cmd_sn, nop.maximum_cmd_sn)?;
            if nop.data_segment_length != 0 {
                return Err(TargetFault::PingWithData);
            }
            return self.pinged(nop);
        }
        self.number(opcode, nop.stat_sn, nop.expected_cmd_sn, nop.maximum_cmd_sn)?;
        if !nop.target_transfer_tag.is_reserved() {
            return Err(TargetFault::TransferTagWrong { opcode });
        }
        let is_right = |task: &Task| matches!(task, Task::Ping { .. });
        let tag = self.control_task(opcode, nop.initiator_task_tag, is_right)?;
        if let Some(&Task::Ping { length }) = self.task(tag)
            && length != nop.data_segment_length
        {
            return Err(TargetFault::PingDataLength { expected: length, received: nop.data_segment_length });
        }
        self.release(tag);
        Ok(Event::Pong(tag))
    }

    fn pinged<'a>(&mut self, nop: &NopIn) -> Result<Event<'a>, TargetFault> {
        if !nop.target_transfer_tag.is_reserved() {
            if self.pings_pending >= PINGS_PENDING_MAX {
                return Err(TargetFault::TooManyPings);
            }
            self.pings_pending += 1;
            let (lun, target_transfer_tag) = (nop.lun, nop.target_transfer_tag);
            self.work.push_back(Work::Pong { lun, target_transfer_tag, cmd_sn: self.next_cmd_sn() });
        }
        Ok(Event::None)
    }

    fn told<'a>(&mut self, response: &TextResponse, staged: &[u8]) -> Result<Event<'a>, TargetFault> {
        let opcode = TextResponse::OPCODE;
        let is_right = |task: &Task| matches!(task, Task::Text);
        let tag = self.control_task(opcode, response.initiator_task_tag, is_right)?;
        if !core::mem::take(&mut self.text_awaited) {
            return Err(TargetFault::UnknownTask { opcode, tag: response.initiator_task_tag });
        }
        // §11.11.4: the tag is valid exactly where the exchange goes on.
        if response.is_final != response.target_transfer_tag.is_reserved() {
            return Err(TargetFault::TransferTagWrong { opcode });
        }
        self.text_in.append(staged)?;
        if response.is_final {
            self.release(tag);
            return Ok(Event::Text(tag));
        }
        self.text_exchanges += 1;
        if self.text_exchanges >= TEXT_EXCHANGES_MAX {
            return Err(TargetFault::TextWithoutEnd);
        }
        self.ask_for_text(tag, response.lun, response.target_transfer_tag);
        Ok(Event::None)
    }

    /// A request that was rejected has no other answer; a Data-Out that was rejected leaves its command to be
    /// answered (§7.3).
    fn rejected<'a>(&mut self, reject: &Reject, staged: &[u8]) -> Result<Event<'a>, TargetFault> {
        let header = staged.first_chunk::<BHS_BYTES>().ok_or(TargetFault::RejectWithoutHeader)?;
        let tag = Tag(crate::wire::initiator_task_tag(header).0);
        let is_request = matches!(
            opcode(header),
            ScsiCommand::OPCODE
                | TaskManagementRequest::OPCODE
                | TextRequest::OPCODE
                | LogoutRequest::OPCODE
                | NopOut::OPCODE
        );
        let task = (is_request && self.task(tag).is_some()).then(|| {
            let user = self.scsi_task(tag).map(|task| task.user);
            self.release(tag);
            (tag, user)
        });
        Ok(Event::Rejected { reason: reject.reason, header: *header, task })
    }
}

/// §11.4.5. Without an exception, what was moved and the residual add up to what was expected; a write may
/// have sent more than the target took.
fn check_residual(task: &ScsiTask, status: u8, residual: Residual) -> Result<(), TargetFault> {
    let expected = task.expected_length;
    let due = match residual {
        Residual::None | Residual::Overflow(_) => expected,
        Residual::Underflow(count) => {
            expected.checked_sub(count).ok_or(TargetFault::ResidualImpossible { expected, residual })?
        }
    };
    let (moved, fits) = match task.direction {
        Direction::None => (0, true),
        Direction::Read => (task.received, task.received == due),
        Direction::Write => (task.sent, task.sent >= due),
    };
    if fits || is_exception(status) {
        Ok(())
    } else {
        Err(TargetFault::ResidualWrong { expected, moved, residual })
    }
}

/// §11.4.7: SenseLength, then so many bytes.
fn sense_of(staged: &[u8]) -> Result<&[u8], TargetFault> {
    let Some((length, rest)) = staged.split_first_chunk::<2>() else { return Ok(&[]) };
    let length = u16::from_be_bytes(*length);
    rest.get(..usize::from(length)).ok_or(TargetFault::SenseTruncated { length, available: rest.len() })
}
