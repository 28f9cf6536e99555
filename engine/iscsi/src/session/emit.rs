//! What goes out: each method writes the header of one PDU, numbered, and says what data segment goes with it.
//!
//! A header is written in the order in which PDUs go over the connection, never ahead of it: StatSN counts as it is
//! written. Before each one MaxCmdSN is moved as far as there is room, so that the answer to a command also brings the
//! place for the next one (RFC 7143 §4.2.2.1).

use super::tasks::TaskId;
use super::{IMMEDIATE_REQUESTS_MAX, Request, Seat, Session};
use crate::moment::Moment;
use crate::sn::{CmdSn, StatSn};
use crate::transfer::residual;
use crate::transfer::write::{data_in_tag, transfer_tag};
use crate::violation::Violation;
use crate::wire::{
    AsyncEvent, AsyncMessage, BHS_BYTES, Bhs, DataIn, DataInStatus, InitiatorTaskTag, LogoutReason,
    LogoutResponse, LogoutResult, LunField, NopIn, R2t, Reject, RejectReason, Residual, ScsiResponse,
    ServiceResponse, Snack, SnackType, TargetTransferTag, TaskManagementResponse, TaskManagementResult,
    TextResponse, opcode,
};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The SCSI status code (SAM-5 §5.3).
    pub status: u8,
    /// Bytes of sense data. The data segment is 2 bytes of SenseLength, big-endian, then the sense data; without sense data
    /// it is empty (§11.4.7).
    pub sense_bytes: u16,
}

/// A piece of a read's data, which follows the header just written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataInSegment {
    /// Where it starts in the task's data.
    pub offset_bytes: u32,
    /// How long it is; never 0.
    pub length_bytes: u32,
    /// The header carries status GOOD: the task has ended.
    pub ends_task: bool,
}

/// A piece of a write's data that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R2tRange {
    /// Where it starts in the task's data.
    pub offset_bytes: u32,
    /// How long it is; never 0.
    pub length_bytes: u32,
}

/// One PDU of the answer to a Text Request (§11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPart {
    /// F: the exchange is over.
    pub is_final: bool,
    /// C: the text goes on in the next PDU.
    pub continues: bool,
    /// Names the exchange; reserved where it is over.
    pub target_transfer_tag: TargetTransferTag,
    /// Bytes of text in the data segment.
    pub length_bytes: u32,
}

/// Where a PDU of ours has its StatSN.
pub(super) const STAT_SN: core::ops::Range<usize> = 24..28;

/// The SCSI status GOOD (SAM-5 §5.3.1).
pub(super) const GOOD: u8 = 0;

impl Session {
    /// The next Data-In PDU of a read, if all of its data is there: `available_bytes` of the task's data, from offset 0.
    /// At recovery level 0 the last one carries status GOOD and the residual, and ends the task (§11.4, §11.7.2). A read
    /// without data, one that fails, and any above that level ends with [`Session::response`].
    pub fn next_data_in(
        &mut self,
        task: TaskId,
        available_bytes: u32,
        header: &mut Bhs,
    ) -> Option<DataInSegment> {
        let seat = self.seat_of_task(task);
        let segment_max = self.connections.at(seat).segment_bytes_max;
        let burst_max = self.parameters.max_burst_length;
        let cut = self.tasks.task_mut(task).read.next(available_bytes, segment_max, burst_max)?;
        let initiator_task_tag = self.request(task).task_tag();
        // §11.16: above level 0 status and data are asked for again each by its own numbers.
        let recovers = self.recovers();
        let status = (cut.is_last && !recovers).then(|| {
            let residual = self.residual(task);
            self.end(task);
            DataInStatus { status: GOOD, stat_sn: self.next_stat_sn(seat), residual }
        });
        let ends_task = status.is_some();
        // §11.7.2: what the initiator has acknowledged needs to be kept no longer.
        let acknowledge = recovers && cut.ends_sequence && !cut.is_last;
        let (lun, target_transfer_tag) = if acknowledge {
            let cuts = self.tasks.task(task).read.resegmentations();
            (self.command(task).lun, data_in_tag(task.ttt_base(), cuts))
        } else {
            (LunField::default(), TargetTransferTag::RESERVED)
        };
        let (expected_cmd_sn, maximum_cmd_sn) = self.tell_window();
        DataIn {
            is_final: cut.ends_sequence,
            acknowledge,
            data_segment_length: cut.length,
            lun,
            initiator_task_tag,
            target_transfer_tag,
            status,
            expected_cmd_sn,
            maximum_cmd_sn,
            data_sn: cut.data_sn,
            buffer_offset: cut.offset,
        }
        .emit(header);
        Some(DataInSegment { offset_bytes: cut.offset, length_bytes: cut.length, ends_task })
    }

    /// The next R2T of a write, if one is due: the wanted data is known, the unsolicited burst is over, and
    /// MaxOutstandingR2T allows it. It asks for at most `budget_bytes`, which the caller has room for; with a budget of 0
    /// it waits.
    pub fn next_r2t(&mut self, task: TaskId, budget_bytes: u32, header: &mut Bhs) -> Option<R2tRange> {
        let state = self.tasks.task_mut(task);
        let Request::Command(command) = state.request else { return None };
        let solicitation = state.write.solicit(budget_bytes, &self.parameters)?;
        let (expected_cmd_sn, maximum_cmd_sn) = self.tell_window();
        R2t {
            lun: command.lun,
            initiator_task_tag: command.initiator_task_tag,
            target_transfer_tag: transfer_tag(task.ttt_base(), solicitation.r2t_sn),
            // §11.8.3: the next StatSN, which is not used up.
            stat_sn: self.stat_sn(self.seat_of_task(task)),
            expected_cmd_sn,
            maximum_cmd_sn,
            r2t_sn: solicitation.r2t_sn,
            buffer_offset: solicitation.offset,
            desired_data_transfer_length: solicitation.length,
        }
        .emit(header);
        Some(R2tRange { offset_bytes: solicitation.offset, length_bytes: solicitation.length })
    }

    /// Ends a command with a SCSI Response (§11.4). Residual and ExpDataSN are computed from what was moved.
    pub fn response(&mut self, task: TaskId, completion: Completion, header: &mut Bhs) {
        let residual = self.residual(task);
        let sense_length_bytes = if completion.sense_bytes == 0 { 0 } else { 2 };
        self.scsi_response(
            task,
            ScsiResponse {
                status: completion.status,
                data_segment_length: u32::from(completion.sense_bytes) + sense_length_bytes,
                // §11.4.8: Data-In PDUs alone; 0 where there was none, however many R2Ts.
                expected_data_sn: self.tasks.task(task).read.data_sn().0,
                residual,
                ..self.blank_response(task)
            },
            header,
        );
    }

    /// Ends a command that failed for a reason which is none of SCSI's: "target failure" (§11.4.3).
    pub fn target_failure(&mut self, task: TaskId, header: &mut Bhs) {
        let response = ServiceResponse::TargetFailure;
        self.scsi_response(task, ScsiResponse { response, ..self.blank_response(task) }, header);
    }

    fn blank_response(&self, task: TaskId) -> ScsiResponse {
        ScsiResponse {
            response: ServiceResponse::CommandCompleted,
            status: GOOD,
            status_qualifier: 0,
            data_segment_length: 0,
            initiator_task_tag: self.command(task).initiator_task_tag,
            snack_tag: self.tasks.task(task).read.snack_tag(),
            stat_sn: StatSn(0),
            expected_cmd_sn: CmdSn(0),
            maximum_cmd_sn: CmdSn(0),
            expected_data_sn: 0,
            bidirectional_read_residual: self.tasks.task(task).read.bidirectional_residual(),
            residual: Residual::None,
        }
    }

    fn scsi_response(&mut self, task: TaskId, response: ScsiResponse, header: &mut Bhs) {
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.finish(task);
        ScsiResponse { stat_sn, expected_cmd_sn, maximum_cmd_sn, ..response }.emit(header);
    }

    /// Answers a task management request (§11.6); `additional_information` is zero but where RFC 7144 says otherwise.
    pub fn task_management_response(
        &mut self,
        task: TaskId,
        result: TaskManagementResult,
        additional_information: [u8; 3],
        header: &mut Bhs,
    ) {
        let initiator_task_tag = self.request(task).task_tag();
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.finish(task);
        TaskManagementResponse {
            result,
            additional_information,
            initiator_task_tag,
            stat_sn,
            expected_cmd_sn,
            maximum_cmd_sn,
        }
        .emit(header);
    }

    /// Answers a ping. The data segment is what was kept of the ping's own (§11.18.3): `length_bytes` of it.
    pub fn nop_in(&mut self, task: TaskId, length_bytes: u32, header: &mut Bhs) {
        let initiator_task_tag = self.request(task).task_tag();
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.finish(task);
        NopIn {
            data_segment_length: length_bytes,
            lun: LunField::default(),
            initiator_task_tag,
            target_transfer_tag: TargetTransferTag::RESERVED,
            stat_sn,
            expected_cmd_sn,
            maximum_cmd_sn,
        }
        .emit(header);
    }

    /// Pings the initiator (§11.19), after [`Expired::Ping`](super::Expired::Ping).
    pub fn ping(&mut self, seat: Seat, now: Moment, header: &mut Bhs) {
        let tag = self.connections.at_mut(seat).keepalive.ping(now);
        self.unanswered_nop_in(seat, tag, header);
    }

    /// Tells the initiator that the window it believes closed is open again, if that is so: with nothing in work there is
    /// no answer that would bring the news (§4.2.2.1). True where a header was written, of a NOP-In without data.
    pub fn window_update(&mut self, seat: Seat, header: &mut Bhs) -> bool {
        self.grant();
        let news = self.window.is_open_untold();
        if news {
            self.unanswered_nop_in(seat, TargetTransferTag::RESERVED, header);
        }
        news
    }

    /// §11.19: a NOP-In that is no answer uses no StatSN up.
    fn unanswered_nop_in(&mut self, seat: Seat, target_transfer_tag: TargetTransferTag, header: &mut Bhs) {
        let (expected_cmd_sn, maximum_cmd_sn) = self.tell_window();
        NopIn {
            data_segment_length: 0,
            lun: LunField::default(),
            initiator_task_tag: InitiatorTaskTag::RESERVED,
            target_transfer_tag,
            stat_sn: self.stat_sn(seat),
            expected_cmd_sn,
            maximum_cmd_sn,
        }
        .emit(header);
    }

    /// Answers a Text Request with one PDU; the next request of the exchange is a task of its own.
    pub fn text_response(&mut self, task: TaskId, part: TextPart, header: &mut Bhs) {
        let initiator_task_tag = self.request(task).task_tag();
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.finish(task);
        TextResponse {
            is_final: part.is_final,
            continues: part.continues,
            data_segment_length: part.length_bytes,
            lun: LunField::default(),
            initiator_task_tag,
            target_transfer_tag: part.target_transfer_tag,
            stat_sn,
            expected_cmd_sn,
            maximum_cmd_sn,
        }
        .emit(header);
    }

    /// Answers a Logout Request (§11.15); after [`LogoutResult::Closed`] nothing more goes out.
    pub fn logout_response(&mut self, task: TaskId, result: LogoutResult, header: &mut Bhs) {
        let initiator_task_tag = self.request(task).task_tag();
        // §11.15.4: tasks are kept for reassignment after a recovery logout alone.
        let for_recovery = matches!(
            self.request(task),
            Request::Logout(request) if request.reason == LogoutReason::RemoveConnectionForRecovery
        );
        let retains = for_recovery && result == LogoutResult::Closed;
        let time_2_retain_s = if retains { self.parameters.default_time2retain } else { 0 };
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.finish(task);
        LogoutResponse {
            result,
            initiator_task_tag,
            stat_sn,
            expected_cmd_sn,
            maximum_cmd_sn,
            time_2_wait_s: self.parameters.default_time2wait,
            time_2_retain_s,
        }
        .emit(header);
    }

    /// Rejects a PDU (§11.17). The data segment is `rejected`, its header. A rejected request that has a place in the
    /// window is considered as received, unless it was discarded for its data digest: then the initiator may send all of it
    /// again (§7.3, §11.17.1 note 1).
    pub fn reject(&mut self, seat: Seat, reason: RejectReason, rejected: &Bhs, header: &mut Bhs) {
        if reason != RejectReason::DataDigestError {
            self.consume_cmd_sn(rejected);
        }
        let data_sn_or_r2t_sn = self.next_of_run(reason, rejected);
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.number(seat);
        Reject {
            reason,
            data_segment_length: u32::try_from(BHS_BYTES).expect("48"),
            stat_sn,
            expected_cmd_sn,
            maximum_cmd_sn,
            data_sn_or_r2t_sn,
        }
        .emit(header);
    }

    /// §11.17.2: of a Data/R2T SNACK that asks for what there is not, the next number that its task would send; else 0.
    fn next_of_run(&self, reason: RejectReason, rejected: &Bhs) -> u32 {
        let is_run =
            |snack: &Snack| snack.kind == SnackType::DataOrR2t && reason == RejectReason::ProtocolError;
        if opcode(rejected) != Snack::OPCODE {
            return 0;
        }
        let task = Snack::parse(rejected).ok().filter(is_run);
        let Some(task) = task.and_then(|snack| self.tasks.find(snack.initiator_task_tag)) else { return 0 };
        let state = self.tasks.task(task);
        match &state.request {
            Request::Command(command) if command.write => state.write.r2t_sn().0,
            _ => state.read.data_sn().0,
        }
    }

    /// Rejects a Text Request that was delivered and turned out to be wrong; its exchange is over (§11.17.1).
    pub fn reject_text(&mut self, task: TaskId, violation: &Violation, header: &mut Bhs) -> Option<Bhs> {
        let crate::violation::Answer::Reject(reason) = violation.answer() else { return None };
        let Request::Text(text) = *self.request(task) else { panic!("{task:?} is no Text Request") };
        let mut rejected = [0; BHS_BYTES];
        text.emit(&mut rejected);
        let seat = self.seat_of_task(task);
        self.end(task);
        self.reject(seat, reason, &rejected, header);
        Some(rejected)
    }

    /// Tells of a SCSI event at a logical unit (§11.9.1, event 0). The data segment is 2 bytes of SenseLength and the sense
    /// data (§11.9.4), `length_bytes` in all.
    pub fn scsi_event(&mut self, seat: Seat, lun: LunField, length_bytes: u32, header: &mut Bhs) {
        let message =
            AsyncMessage { event: AsyncEvent::Scsi, data_segment_length: length_bytes, lun, ..BLANK_MESSAGE };
        self.async_message(seat, message, header);
    }

    /// Writes the header of a PDU that goes out once more (§11.16): as it was, but for ExpCmdSN and MaxCmdSN, and the StatSN of
    /// an R2T, which is the next one's.
    pub fn again(&mut self, seat: Seat, kept: &Bhs, header: &mut Bhs) {
        const EXP_CMD_SN: core::ops::Range<usize> = 28..32;
        const MAX_CMD_SN: core::ops::Range<usize> = 32..36;
        let (expected, maximum) = self.tell_window();
        *header = *kept;
        header[EXP_CMD_SN].copy_from_slice(&expected.0.to_be_bytes());
        header[MAX_CMD_SN].copy_from_slice(&maximum.0.to_be_bytes());
        if opcode(kept) == R2t::OPCODE {
            header[STAT_SN].copy_from_slice(&self.stat_sn(seat).0.to_be_bytes());
        }
    }

    /// Asks the initiator to log out within `seconds` (§11.9.1, event 1).
    pub fn ask_for_logout(&mut self, seat: Seat, seconds: u16, header: &mut Bhs) {
        let message =
            AsyncMessage { event: AsyncEvent::LogoutRequested, parameter_3: seconds, ..BLANK_MESSAGE };
        self.async_message(seat, message, header);
    }

    /// Tells the initiator that the session is dropped, and when it may come back (§11.9.1, event 3).
    pub fn announce_drop(&mut self, seat: Seat, header: &mut Bhs) {
        let message = AsyncMessage {
            event: AsyncEvent::SessionDropped,
            parameter_2: self.parameters.default_time2wait,
            ..BLANK_MESSAGE
        };
        self.async_message(seat, message, header);
    }

    /// Sends any Asynchronous Message (§11.9), numbered.
    pub fn async_message(&mut self, seat: Seat, message: AsyncMessage, header: &mut Bhs) {
        let (stat_sn, expected_cmd_sn, maximum_cmd_sn) = self.number(seat);
        AsyncMessage { stat_sn, expected_cmd_sn, maximum_cmd_sn, ..message }.emit(header);
    }

    /// The StatSN of the next response on a connection.
    #[must_use]
    pub fn stat_sn(&self, seat: Seat) -> StatSn {
        self.connections.at(seat).stat_sn
    }

    /// Ends a task, and numbers its answer.
    fn finish(&mut self, task: TaskId) -> (StatSn, CmdSn, CmdSn) {
        let seat = self.seat_of_task(task);
        self.end(task);
        self.number(seat)
    }

    fn number(&mut self, seat: Seat) -> (StatSn, CmdSn, CmdSn) {
        let (expected, maximum) = self.tell_window();
        (self.next_stat_sn(seat), expected, maximum)
    }

    pub(super) fn next_stat_sn(&mut self, seat: Seat) -> StatSn {
        let connection = self.connections.at_mut(seat);
        let stat_sn = connection.stat_sn;
        connection.stat_sn = stat_sn.next();
        stat_sn
    }

    pub(super) fn tell_window(&mut self) -> (CmdSn, CmdSn) {
        self.grant();
        self.window.tell()
    }

    /// Room is what is free, less what is kept for immediate requests.
    fn grant(&mut self) {
        let reserved = IMMEDIATE_REQUESTS_MAX - self.tasks.immediate();
        let room = self.tasks.free().saturating_sub(usize::from(reserved));
        self.window.grant(u32::try_from(room).expect("slots are counted in 16 bits"));
    }

    /// §11.4.5. A command whose data goes the other way than the initiator announced moves none of it.
    fn residual(&self, task: TaskId) -> Residual {
        let writes = self.command(task).write;
        let state = self.tasks.task(task);
        let (write, read) = (&state.write, &state.read);
        match (writes, write.required(), read.required()) {
            (true, None, Some(required)) | (false, Some(required), None) => residual(0, required, 0),
            (true, required, _) => residual(write.expected(), required.unwrap_or(0), write.moved()),
            (false, _, required) => residual(read.expected(), required.unwrap_or(0), read.sent()),
        }
    }
}

const BLANK_MESSAGE: AsyncMessage = AsyncMessage {
    event: AsyncEvent::LogoutRequested,
    vendor_code: 0,
    parameter_1: 0,
    parameter_2: 0,
    parameter_3: 0,
    data_segment_length: 0,
    lun: LunField([0; 8]),
    stat_sn: StatSn(0),
    expected_cmd_sn: CmdSn(0),
    maximum_cmd_sn: CmdSn(0),
};
