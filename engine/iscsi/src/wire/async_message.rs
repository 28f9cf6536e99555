//! Asynchronous Message: what a target says unasked (RFC 7143 §11.9).
//!
//! For a SCSI event the data segment is SenseLength (2 bytes), sense data, and iSCSI event data.

use super::field::{Half, Octet, Octets, Word};
use super::{
    Bhs, FINAL, INITIATOR_TASK_TAG, InitiatorTaskTag, LunField, begin, data_segment_length, refuse_ahs,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       0               1               2               3
//    0 |.|.| 0x32      |1| Reserved                                    |
//    4 |TotalAHSLength | DataSegmentLength                             |
//    8 | LUN or Reserved                                               |
//   16 | 0xffffffff                                                    |
//   20 | Reserved                                                      |
//   24 | StatSN                                                        |
//   28 | ExpCmdSN                                                      |
//   32 | MaxCmdSN                                                      |
//   36 | AsyncEvent    | AsyncVCode    | Parameter1 or Reserved        |
//   40 | Parameter2 or Reserved        | Parameter3 or Reserved        |
//   44 | Reserved                                                      |
const LUN: Octets<8> = Octets::at(8);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const ASYNC_EVENT: Octet = Octet::at(36);
const ASYNC_VCODE: Octet = Octet::at(37);
const PARAMETER_1: Half = Half::at(38);
const PARAMETER_2: Half = Half::at(40);
const PARAMETER_3: Half = Half::at(42);

/// What happened (§11.9.1). The meaning of the parameters stands beside each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// 0: a SCSI event; sense data follows.
    Scsi,
    /// 1: the initiator is to log out within Parameter3 seconds.
    LogoutRequested,
    /// 2: the connection Parameter1 is dropped. Reconnect after Parameter2 seconds, within Parameter3 more.
    ConnectionDropped,
    /// 3: all connections of the session are dropped. Parameters 2 and 3 as above.
    SessionDropped,
    /// 4: parameters are to be negotiated again, within Parameter3 seconds.
    NegotiationRequested,
    /// 5: all tasks of the LUN are ended; the initiator answers with a NOP-Out (§4.2.3.4).
    TasksTerminated,
    /// 255: vendor specific, by AsyncVCode.
    Vendor,
    /// Any other code; reserved.
    Other(u8),
}

impl AsyncEvent {
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Scsi,
            1 => Self::LogoutRequested,
            2 => Self::ConnectionDropped,
            3 => Self::SessionDropped,
            4 => Self::NegotiationRequested,
            5 => Self::TasksTerminated,
            255 => Self::Vendor,
            code => Self::Other(code),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Scsi => 0,
            Self::LogoutRequested => 1,
            Self::ConnectionDropped => 2,
            Self::SessionDropped => 3,
            Self::NegotiationRequested => 4,
            Self::TasksTerminated => 5,
            Self::Vendor => 255,
            Self::Other(code) => code,
        }
    }
}

/// Asynchronous Message (§11.9). Its task tag is always the reserved one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncMessage {
    /// AsyncEvent.
    pub event: AsyncEvent,
    /// AsyncVCode.
    pub vendor_code: u8,
    /// Parameter1.
    pub parameter_1: u16,
    /// Parameter2.
    pub parameter_2: u16,
    /// Parameter3.
    pub parameter_3: u16,
    /// Bytes of sense and event data.
    pub data_segment_length: u32,
    /// The logical unit that the event is about; else reserved.
    pub lun: LunField,
    /// StatSN; a message uses one up.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub maximum_cmd_sn: CmdSn,
}

impl AsyncMessage {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x32;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        Ok(Self {
            event: AsyncEvent::from_code(ASYNC_EVENT.read(bhs)),
            vendor_code: ASYNC_VCODE.read(bhs),
            parameter_1: PARAMETER_1.read(bhs),
            parameter_2: PARAMETER_2.read(bhs),
            parameter_3: PARAMETER_3.read(bhs),
            data_segment_length: data_segment_length(bhs),
            lun: LunField(LUN.read(bhs)),
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        begin(bhs, Self::OPCODE, false, FINAL, self.data_segment_length);
        LUN.write(bhs, self.lun.0);
        INITIATOR_TASK_TAG.write(bhs, InitiatorTaskTag::RESERVED.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        ASYNC_EVENT.write(bhs, self.event.code());
        ASYNC_VCODE.write(bhs, self.vendor_code);
        PARAMETER_1.write(bhs, self.parameter_1);
        PARAMETER_2.write(bhs, self.parameter_2);
        PARAMETER_3.write(bhs, self.parameter_3);
    }
}
