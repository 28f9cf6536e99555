//! What a session sends: the next PDU of its queue, as a header and the place of its data.
//!
//! ExpStatSN is filled in here, so that it acknowledges all that has come until the PDU leaves.

use super::session::{Burst, CDB_BYTES_MAX, Direction, PING_BYTES_MAX, Session, Tag, UserData, Work};
use crate::digest::{Crc32c, DigestField};
use crate::framing::{self, Digests};
use crate::sn::{CmdSn, DataSn};
use crate::wire::ahs::{self, AdditionalHeaders, CDB_BYTES_IN_BHS};
use crate::wire::{
    Bhs, DataOut, InitiatorTaskTag, LogoutReason, LogoutRequest, LunField, NopOut, ScsiCommand, Snack,
    SnackType, TargetTransferTag, TaskManagementFunction, TaskManagementRequest, TextRequest,
};

/// The most AHS bytes of a command: those of a CDB of [`CDB_BYTES_MAX`].
pub const AHS_BYTES_MAX: usize = 4 + CDB_BYTES_MAX - CDB_BYTES_IN_BHS;

/// What follows the BHS of a PDU that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    ahs: [u8; AHS_BYTES_MAX],
    ahs_bytes: usize,
    /// The data segment.
    pub payload: Payload<'a>,
    /// Zero bytes after it, 0 to 3.
    pub padding_bytes: u32,
}

/// Where the data segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// There is none.
    None,
    /// A range of a command's write buffer.
    WriteBuffer {
        /// The command.
        tag: Tag,
        /// Its user data.
        user: UserData,
        /// In bytes.
        offset: u32,
        /// In bytes, not 0.
        length: u32,
    },
    /// These bytes.
    Bytes(&'a [u8]),
}

impl<'a> Outgoing<'a> {
    /// The AHS, for between BHS and data segment; mostly empty.
    #[must_use]
    pub fn ahs(&self) -> &[u8] {
        &self.ahs[..self.ahs_bytes]
    }

    /// What stands between header and data segment besides the AHS: the digest of both, where there is one.
    #[must_use]
    pub fn header_digest(&self, bhs: &Bhs, digests: Digests) -> Option<DigestField> {
        digests.header.then(|| {
            let mut crc = Crc32c::new();
            crc.update(bhs);
            crc.update(self.ahs());
            crc.field()
        })
    }

    const fn new(payload: Payload<'a>, length: u32) -> Self {
        Self { ahs: [0; AHS_BYTES_MAX], ahs_bytes: 0, payload, padding_bytes: framing::padding(length) }
    }
}

static ZEROS: [u8; PING_BYTES_MAX as usize] = [0; PING_BYTES_MAX as usize];

/// What a TMF request carries.
#[derive(Clone, Copy)]
struct Management {
    tag: Tag,
    function: TaskManagementFunction,
    lun: LunField,
    referenced_task_tag: InitiatorTaskTag,
    referenced_cmd_sn: CmdSn,
    cmd_sn: CmdSn,
}

impl Session {
    /// Writes the header of the next PDU and says what follows it; `None` where nothing waits.
    pub fn next_pdu(&mut self, bhs: &mut Bhs) -> Option<Outgoing<'_>> {
        loop {
            let work = *self.work.front()?;
            // The front of the queue is left where it is while a burst goes on.
            if let Work::Burst(burst) = work {
                match self.emit_burst(burst, bhs) {
                    Some(payload) => return Some(payload_of(payload)),
                    None => continue,
                }
            }
            self.work.pop_front();
            match work {
                Work::Burst(_) => unreachable!("a burst has been served above"),
                Work::Command(tag) if self.scsi_task(tag).is_some() => {
                    return Some(self.emit_command(tag, bhs));
                }
                // Abandoned before it was sent.
                Work::Command(_) => {}
                Work::TaskManagement {
                    tag,
                    function,
                    lun,
                    referenced_task_tag,
                    referenced_cmd_sn,
                    cmd_sn,
                } => {
                    let request =
                        Management { tag, function, lun, referenced_task_tag, referenced_cmd_sn, cmd_sn };
                    self.emit_management(request, bhs);
                    return Some(payload_of(Payload::None));
                }
                Work::Text { tag, lun, target_transfer_tag, cmd_sn } => {
                    return Some(self.emit_text(tag, lun, target_transfer_tag, cmd_sn, bhs));
                }
                Work::Logout { tag, reason, cmd_sn } => {
                    self.emit_logout(tag, reason, cmd_sn, bhs);
                    return Some(payload_of(Payload::None));
                }
                Work::Ping { tag, length, cmd_sn } => {
                    let task_tag = tag.initiator_task_tag();
                    let reserved = TargetTransferTag::RESERVED;
                    self.emit_nop(task_tag, reserved, LunField::default(), length, cmd_sn, bhs);
                    return Some(payload_of(Payload::Bytes(&ZEROS[..length as usize])));
                }
                Work::DataAck { lun, target_transfer_tag, next } => {
                    self.emit_data_ack(lun, target_transfer_tag, next, bhs);
                    return Some(payload_of(Payload::None));
                }
                Work::Pong { lun, target_transfer_tag, cmd_sn } => {
                    self.pings_pending -= 1;
                    self.emit_nop(InitiatorTaskTag::RESERVED, target_transfer_tag, lun, 0, cmd_sn, bhs);
                    return Some(payload_of(Payload::None));
                }
            }
        }
    }

    /// Whether anything waits to be sent.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// The command PDU, with immediate data where ImmediateData allows it (§13.11). Unsolicited data, where
    /// InitialR2T allows it (§13.10), follows at once: F is 0 then. Both together are at most
    /// FirstBurstLength (§13.14).
    fn emit_command(&mut self, tag: Tag, bhs: &mut Bhs) -> Outgoing<'static> {
        let parameters = self.parameters;
        let expected_stat_sn = self.expected_stat_sn;
        let task = self.scsi_task_mut(tag).expect("the caller has looked");
        let writes = task.direction == Direction::Write;
        let first_burst = if writes { parameters.first_burst_length.min(task.expected_length) } else { 0 };
        let immediate = if parameters.immediate_data {
            first_burst.min(parameters.peer_max_recv_data_segment_length)
        } else {
            0
        };
        let unsolicited_end = if parameters.initial_r2t { immediate } else { first_burst };
        task.emitted = true;
        task.sent = immediate;
        task.asked = unsolicited_end;
        let (head, rest) = task.cdb.split_at(CDB_BYTES_IN_BHS);
        let mut outgoing = Outgoing::new(Payload::None, immediate);
        if usize::from(task.cdb_bytes) > CDB_BYTES_IN_BHS {
            let extended = &rest[..usize::from(task.cdb_bytes) - CDB_BYTES_IN_BHS];
            let headers = AdditionalHeaders { extended_cdb: Some(extended), bidirectional_read_length: None };
            let mut bytes = [0; ahs::AHS_BYTES_MAX];
            outgoing.ahs_bytes = headers.emit(&mut bytes);
            outgoing.ahs.copy_from_slice(&bytes[..AHS_BYTES_MAX]);
        }
        let command = ScsiCommand {
            immediate: task.immediate,
            is_final: unsolicited_end == immediate,
            read: task.direction == Direction::Read,
            write: writes,
            attribute: task.attribute,
            priority: 0,
            total_ahs_words: u8::try_from(outgoing.ahs_bytes / 4).expect("at most AHS_BYTES_MAX"),
            data_segment_length: immediate,
            lun: task.lun,
            initiator_task_tag: tag.initiator_task_tag(),
            expected_data_transfer_length: task.expected_length,
            cmd_sn: task.cmd_sn,
            expected_stat_sn,
            cdb: head.try_into().expect("CDB_BYTES_IN_BHS bytes"),
        };
        command.emit(bhs);
        if immediate > 0 {
            outgoing.payload = Payload::WriteBuffer { tag, user: task.user, offset: 0, length: immediate };
        }
        if unsolicited_end > immediate {
            self.work.push_front(Work::Burst(Burst {
                tag,
                lun: LunField::default(),
                target_transfer_tag: TargetTransferTag::RESERVED,
                offset: immediate,
                end: unsolicited_end,
                data_sn: DataSn(0),
            }));
        }
        outgoing
    }

    /// The next Data-Out PDU of the burst at the front of the queue; `None` where its command has ended in
    /// the meantime.
    fn emit_burst(&mut self, burst: Burst, bhs: &mut Bhs) -> Option<Payload<'static>> {
        let length = (burst.end - burst.offset).min(self.parameters.peer_max_recv_data_segment_length);
        let is_final = burst.offset + length == burst.end;
        let Some(task) = self.scsi_task_mut(burst.tag) else {
            self.work.pop_front();
            return None;
        };
        // Out of order, a target may ask for the same data again and again.
        task.sent = task.sent.saturating_add(length);
        if is_final && !burst.target_transfer_tag.is_reserved() {
            task.outstanding_r2ts -= 1;
        }
        let user = task.user;
        let data = DataOut {
            is_final,
            data_segment_length: length,
            lun: burst.lun,
            initiator_task_tag: burst.tag.initiator_task_tag(),
            target_transfer_tag: burst.target_transfer_tag,
            expected_stat_sn: self.expected_stat_sn,
            data_sn: burst.data_sn,
            buffer_offset: burst.offset,
        };
        data.emit(bhs);
        if is_final {
            self.work.pop_front();
        } else {
            let next = Burst { offset: burst.offset + length, data_sn: burst.data_sn.next(), ..burst };
            *self.work.front_mut().expect("the burst is there") = Work::Burst(next);
        }
        Some(Payload::WriteBuffer { tag: burst.tag, user, offset: burst.offset, length })
    }

    fn emit_management(&self, request: Management, bhs: &mut Bhs) {
        TaskManagementRequest {
            immediate: true,
            function: request.function,
            lun: request.lun,
            initiator_task_tag: request.tag.initiator_task_tag(),
            referenced_task_tag: request.referenced_task_tag,
            cmd_sn: request.cmd_sn,
            expected_stat_sn: self.expected_stat_sn,
            referenced_cmd_sn: request.referenced_cmd_sn,
            expected_data_sn: DataSn(0),
        }
        .emit(bhs);
    }

    fn emit_text(
        &mut self,
        tag: Tag,
        lun: LunField,
        target_transfer_tag: TargetTransferTag,
        cmd_sn: CmdSn,
        bhs: &mut Bhs,
    ) -> Outgoing<'_> {
        self.text_awaited = true;
        let segment_bytes_max = self.parameters.peer_max_recv_data_segment_length as usize;
        let piece = self.text_out.take_piece(segment_bytes_max);
        let length = u32::try_from(piece.bytes.len()).expect("a text is at most STEP_BYTES_MAX");
        TextRequest {
            immediate: true,
            is_final: !piece.continues,
            continues: piece.continues,
            data_segment_length: length,
            lun,
            initiator_task_tag: tag.initiator_task_tag(),
            target_transfer_tag,
            cmd_sn,
            expected_stat_sn: self.expected_stat_sn,
        }
        .emit(bhs);
        payload_of(Payload::Bytes(piece.bytes))
    }

    fn emit_logout(&self, tag: Tag, reason: LogoutReason, cmd_sn: CmdSn, bhs: &mut Bhs) {
        LogoutRequest {
            immediate: true,
            reason,
            initiator_task_tag: tag.initiator_task_tag(),
            cid: self.cid(),
            cmd_sn,
            expected_stat_sn: self.expected_stat_sn,
        }
        .emit(bhs);
    }

    fn emit_data_ack(&self, lun: LunField, transfer: TargetTransferTag, next: DataSn, bhs: &mut Bhs) {
        Snack {
            kind: SnackType::DataAck,
            lun,
            initiator_task_tag: InitiatorTaskTag::RESERVED,
            transfer_or_snack_tag: transfer.0,
            expected_stat_sn: self.expected_stat_sn,
            run_begin: next.0,
            run_length: 0,
        }
        .emit(bhs);
    }

    fn emit_nop(
        &self,
        initiator_task_tag: InitiatorTaskTag,
        target_transfer_tag: TargetTransferTag,
        lun: LunField,
        data_segment_length: u32,
        cmd_sn: CmdSn,
        bhs: &mut Bhs,
    ) {
        NopOut {
            immediate: true,
            data_segment_length,
            lun,
            initiator_task_tag,
            target_transfer_tag,
            cmd_sn,
            expected_stat_sn: self.expected_stat_sn,
        }
        .emit(bhs);
    }
}

/// A PDU without an AHS.
fn payload_of(payload: Payload<'_>) -> Outgoing<'_> {
    match payload {
        Payload::None => Outgoing::new(payload, 0),
        Payload::Bytes([]) => Outgoing::new(Payload::None, 0),
        Payload::Bytes(bytes) => Outgoing::new(payload, u32::try_from(bytes.len()).expect("below 2^24")),
        Payload::WriteBuffer { length, .. } => Outgoing::new(payload, length),
    }
}
