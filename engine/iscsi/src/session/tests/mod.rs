//! Sessions as a dialogue of PDUs. Every PDU goes through its 48 bytes, both ways.

mod additional;
mod both_ends;
mod data_in;
mod data_out;
mod hostile;
mod in_turn;
mod order;
mod requests;
mod several;
mod silence;
mod spoilt;

use super::*;
use crate::sn::DataSn;
use crate::wire::ahs::AHS_BYTES_MAX;
use crate::wire::{
    BHS_BYTES, Bhs, DataIn, LogoutReason, LogoutRequest, LunField, NopIn, R2t, ScsiResponse, TargetPdu,
    TargetTransferTag, TaskAttribute, TextRequest,
};
use core::time::Duration;

pub(super) const LUN: LunField = LunField([0, 3, 0, 0, 0, 0, 0, 0]);
pub(super) const GOOD: Completion = Completion { status: 0, sense_bytes: 0 };
pub(super) const CHECK_CONDITION: Completion = Completion { status: 2, sense_bytes: 18 };

/// FirstBurst 8 KiB, MaxBurst 16 KiB, segments of 4 KiB, no R2T for the first burst.
pub(super) fn parameters() -> Parameters {
    Parameters {
        initial_r2t: false,
        immediate_data: true,
        first_burst_length: 8192,
        max_burst_length: 16_384,
        max_outstanding_r2t: 2,
        peer_max_recv_data_segment_length: 4096,
        own_max_recv_data_segment_length: 65_536,
        ..Parameters::default()
    }
}

pub(super) fn start() -> Start {
    Start {
        parameters: parameters(),
        session_type: SessionType::Normal,
        tsih: Tsih(1),
        isid: Isid([0, 2, 0x3d, 0, 0, 1]),
        cid: Cid(0),
        cmd_sn: CmdSn(1),
        stat_sn: StatSn(50),
        queued_commands: 4,
        keepalive: KeepaliveTimes { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) },
        now: Moment::ORIGIN,
    }
}

/// A target in the full feature phase, and what its initiator hears of it.
pub(super) struct Dialogue {
    pub(super) session: Session,
    pub(super) now: Moment,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        Self::with(start())
    }

    pub(super) fn with(start: Start) -> Self {
        Self { session: Session::new(start), now: Moment::ORIGIN }
    }

    /// A header comes in on the first connection.
    pub(super) fn send(&mut self, pdu: InitiatorPdu) -> Result<Received, Violation> {
        self.send_on(Seat::LEADING, pdu)
    }

    /// A header comes in.
    pub(super) fn send_on(&mut self, seat: Seat, pdu: InitiatorPdu) -> Result<Received, Violation> {
        let mut bhs = [0; BHS_BYTES];
        pdu.emit(&mut bhs);
        self.session.receive(seat, &InitiatorPdu::parse(&bhs)?, &[], self.now)
    }

    /// The header of a command comes in, with these AHS.
    pub(super) fn send_with(
        &mut self,
        command: ScsiCommand,
        headers: &AdditionalHeaders<'_>,
    ) -> Result<Received, Violation> {
        let mut ahs = [0; AHS_BYTES_MAX];
        let length = headers.emit(&mut ahs);
        let total_ahs_words = u8::try_from(length / 4).unwrap();
        let mut bhs = [0; BHS_BYTES];
        ScsiCommand { total_ahs_words, ..command }.emit(&mut bhs);
        self.session.receive(Seat::LEADING, &InitiatorPdu::parse(&bhs)?, &ahs[..length], self.now)
    }

    /// A request comes in with its data; its task.
    pub(super) fn request(&mut self, pdu: InitiatorPdu) -> TaskId {
        match self.send(pdu) {
            Ok(Received::Request { task, .. }) => {
                self.session.data_arrived(Seat::LEADING, task);
                task
            }
            other => panic!("{pdu:?} should make a task: {other:?}"),
        }
    }

    /// A request comes in with its data, and is delivered at once.
    pub(super) fn deliver(&mut self, pdu: InitiatorPdu) -> TaskId {
        let task = self.request(pdu);
        assert_eq!(self.session.next_request(), Some(task));
        task
    }

    /// Data for a write comes in.
    pub(super) fn data(&mut self, pdu: DataOut) -> (Segment, Progress) {
        match self.send(InitiatorPdu::DataOut(pdu)) {
            Ok(Received::Data { task, segment }) => (segment, self.session.data_arrived(Seat::LEADING, task)),
            other => panic!("{pdu:?} should be data: {other:?}"),
        }
    }

    /// A PDU comes in that is nobody's.
    pub(super) fn absorbed(&mut self, pdu: InitiatorPdu) -> u32 {
        match self.send(pdu) {
            Ok(Received::Absorb { length_bytes }) => length_bytes,
            other => panic!("{pdu:?} should be absorbed: {other:?}"),
        }
    }

    pub(super) fn respond(&mut self, task: TaskId, completion: Completion) -> ScsiResponse {
        match self.emitted(|session, header| session.response(task, completion, header)) {
            TargetPdu::ScsiResponse(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn r2t(&mut self, task: TaskId, budget: u32) -> Option<R2t> {
        let mut header = [0xff; BHS_BYTES];
        let range = self.session.next_r2t(task, budget, &mut header)?;
        let TargetPdu::R2t(r2t) = TargetPdu::parse(&header).unwrap() else { panic!("{header:?}") };
        assert_eq!(
            (range.offset_bytes, range.length_bytes),
            (r2t.buffer_offset, r2t.desired_data_transfer_length)
        );
        Some(r2t)
    }

    pub(super) fn data_in(&mut self, task: TaskId, available: u32) -> Option<DataIn> {
        let mut header = [0xff; BHS_BYTES];
        let segment = self.session.next_data_in(task, available, &mut header)?;
        let TargetPdu::DataIn(data) = TargetPdu::parse(&header).unwrap() else { panic!("{header:?}") };
        assert_eq!(
            (segment.offset_bytes, segment.length_bytes),
            (data.buffer_offset, data.data_segment_length)
        );
        assert_eq!(segment.ends_task, data.status.is_some());
        Some(data)
    }

    /// What goes out, as the initiator reads it.
    pub(super) fn emitted(&mut self, emit: impl FnOnce(&mut Session, &mut Bhs)) -> TargetPdu {
        let mut header = [0xff; BHS_BYTES];
        emit(&mut self.session, &mut header);
        TargetPdu::parse(&header).expect("a target's PDU")
    }
}

pub(super) fn command(tag: u32, cmd_sn: u32) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final: true,
        read: false,
        write: false,
        attribute: TaskAttribute::Simple,
        priority: 0,
        total_ahs_words: 0,
        data_segment_length: 0,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(tag),
        expected_data_transfer_length: 0,
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(50),
        cdb: [0; 16],
    }
}

/// TEST UNIT READY, or anything else without data.
pub(super) fn plain(tag: u32, cmd_sn: u32) -> InitiatorPdu {
    InitiatorPdu::ScsiCommand(command(tag, cmd_sn))
}

pub(super) fn immediate(tag: u32, cmd_sn: u32) -> InitiatorPdu {
    InitiatorPdu::ScsiCommand(ScsiCommand { immediate: true, ..command(tag, cmd_sn) })
}

pub(super) fn read(tag: u32, cmd_sn: u32, length: u32) -> InitiatorPdu {
    let command = ScsiCommand { read: true, expected_data_transfer_length: length, ..command(tag, cmd_sn) };
    InitiatorPdu::ScsiCommand(command)
}

pub(super) fn write(tag: u32, cmd_sn: u32, length: u32, immediate: u32, is_final: bool) -> InitiatorPdu {
    InitiatorPdu::ScsiCommand(ScsiCommand {
        write: true,
        is_final,
        data_segment_length: immediate,
        expected_data_transfer_length: length,
        ..command(tag, cmd_sn)
    })
}

/// An unsolicited Data-Out PDU.
pub(super) fn burst(tag: u32, data_sn: u32, offset: u32, length: u32, is_final: bool) -> DataOut {
    DataOut {
        is_final,
        data_segment_length: length,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag::RESERVED,
        expected_stat_sn: StatSn(50),
        data_sn: DataSn(data_sn),
        buffer_offset: offset,
    }
}

/// The whole answer to an R2T in one PDU.
pub(super) fn answer(r2t: &R2t) -> DataOut {
    DataOut {
        lun: r2t.lun,
        target_transfer_tag: r2t.target_transfer_tag,
        ..burst(r2t.initiator_task_tag.0, 0, r2t.buffer_offset, r2t.desired_data_transfer_length, true)
    }
}

pub(super) fn management(function: TaskManagementFunction, tag: u32, cmd_sn: u32) -> TaskManagementRequest {
    TaskManagementRequest {
        immediate: true,
        function,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(tag),
        referenced_task_tag: InitiatorTaskTag::RESERVED,
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(50),
        referenced_cmd_sn: CmdSn(0),
        expected_data_sn: DataSn(0),
    }
}

/// ABORT TASK of a command.
pub(super) fn abort(tag: u32, cmd_sn: u32, referenced: (u32, u32)) -> TaskManagementRequest {
    TaskManagementRequest {
        referenced_task_tag: InitiatorTaskTag(referenced.0),
        referenced_cmd_sn: CmdSn(referenced.1),
        ..management(TaskManagementFunction::AbortTask, tag, cmd_sn)
    }
}

pub(super) fn ping(tag: u32, cmd_sn: u32, length: u32) -> NopOut {
    NopOut {
        immediate: false,
        data_segment_length: length,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(50),
    }
}

pub(super) fn text(tag: u32, cmd_sn: u32, length: u32) -> TextRequest {
    TextRequest {
        immediate: false,
        is_final: true,
        continues: false,
        data_segment_length: length,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(50),
    }
}

pub(super) fn logout(tag: u32, cmd_sn: u32, reason: LogoutReason) -> LogoutRequest {
    LogoutRequest {
        immediate: false,
        reason,
        initiator_task_tag: InitiatorTaskTag(tag),
        cid: Cid(0),
        cmd_sn: CmdSn(cmd_sn),
        expected_stat_sn: StatSn(50),
    }
}

pub(super) fn nop_in(pdu: TargetPdu) -> NopIn {
    let TargetPdu::NopIn(nop) = pdu else { panic!("{pdu:?}") };
    nop
}
