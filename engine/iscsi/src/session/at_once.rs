//! A read that is answered where it is understood: it is received, delivered and answered with its only Data-In PDU in one, and
//! never is a task (RFC 7143 §11.7.2).
//!
//! Nothing can refer to it meanwhile: no PDU is understood between its header and its answer. What is left behind is what a
//! task leaves behind that has been retired: the numbers have moved on.

use super::emit::GOOD;
use super::{Seat, Session};
use crate::moment::Moment;
use crate::sn::DataSn;
use crate::transfer::residual;
use crate::wire::{Bhs, DataIn, DataInStatus, LunField, ScsiCommand, TargetTransferTag};

/// A read whose turn it is, with nothing that waits before or behind it. As long as nobody answers it, nothing has happened.
pub struct ReadInTurn<'a> {
    session: &'a mut Session,
    seat: Seat,
    command: &'a ScsiCommand,
}

impl Session {
    /// A command that reads and could be answered at once, as far as the session is concerned; `None` of any other. It is one of
    /// those that [`Session::receive_in_turn`] takes.
    #[inline]
    pub fn read_in_turn<'a>(&'a mut self, seat: Seat, command: &'a ScsiCommand) -> Option<ReadInTurn<'a>> {
        let reads = command.read && !command.write;
        (reads && self.is_in_turn(command)).then_some(ReadInTurn { session: self, seat, command })
    }
}

impl ReadInTurn<'_> {
    /// Bytes that are sent of the `required_bytes` that the device server has, where one PDU carries all of them. `None` where there
    /// are more of them, or none (§11.4.5, §13.12, §13.13).
    #[must_use]
    #[inline]
    pub fn data_in_bytes(&self, required_bytes: u64) -> Option<u32> {
        let expected = self.command.expected_data_transfer_length;
        let length = u32::try_from(required_bytes).map_or(expected, |required| required.min(expected));
        let longest = self.session.peer_segment_bytes_max(self.seat);
        let longest = longest.min(self.session.parameters.max_burst_length);
        (1..=longest).contains(&length).then_some(length)
    }

    /// Writes the header of its only Data-In PDU, with status GOOD and the residual of the `required_bytes`: the command has come and
    /// has ended.
    ///
    /// # Panics
    /// Where it is not one PDU, as [`ReadInTurn::data_in_bytes`] tells.
    #[inline]
    pub fn answer(self, required_bytes: u64, now: Moment, header: &mut Bhs) {
        let length = self.data_in_bytes(required_bytes).expect("one PDU has all of it");
        let Self { session, seat, command } = self;
        let connection = session.connections.at_mut(seat);
        assert!(connection.incoming.is_none(), "the last data segment has not been reported");
        connection.keepalive.heard(now);
        connection.acknowledge(command.expected_stat_sn);
        session.window.pass_over();
        let residual = residual(command.expected_data_transfer_length, required_bytes, length);
        let status = DataInStatus { status: GOOD, stat_sn: session.next_stat_sn(seat), residual };
        let (expected_cmd_sn, maximum_cmd_sn) = session.tell_window();
        DataIn {
            is_final: true,
            acknowledge: false,
            data_segment_length: length,
            lun: LunField::default(),
            initiator_task_tag: command.initiator_task_tag,
            target_transfer_tag: TargetTransferTag::RESERVED,
            status: Some(status),
            expected_cmd_sn,
            maximum_cmd_sn,
            data_sn: DataSn(0),
            buffer_offset: 0,
        }
        .emit(header);
    }
}
