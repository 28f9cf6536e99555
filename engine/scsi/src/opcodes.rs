//! Every command that this device server serves, as data.
//!
//! Decoding, the check of reserved bits, REPORT SUPPORTED OPERATION CODES, reservation conflicts, and what passes a unit
//! attention or a unit that is not ready are all read off [`TABLE`]. A later command is one more row.

use crate::alua::Access;
use crate::bits::be16;
use crate::persistent::{out, report};
use crate::reservation::CommandClass;
use crate::unit::{AtomicWrites, LogicalUnit};

/// Which decoder a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoder {
    TestUnitReady,
    RequestSense,
    Read6,
    Read10,
    Read12,
    Read16,
    Write6,
    Write10,
    Write12,
    Write16,
    Verify10,
    Verify12,
    Verify16,
    WriteAndVerify,
    PreFetch,
    WriteSame,
    CompareAndWrite,
    OrWrite,
    WriteAtomic,
    Unmap,
    GetLbaStatus,
    SynchronizeCache10,
    SynchronizeCache16,
    Inquiry,
    ModeSelect6,
    ModeSelect10,
    ModeSense6,
    ModeSense10,
    Reserve,
    Release,
    PersistentReserveIn,
    PersistentReserveOut,
    StartStopUnit,
    PreventAllow,
    ReadCapacity10,
    ReadCapacity16,
    ReportLuns,
    ExtendedCopy,
    PopulateToken,
    WriteUsingToken,
    CopyOperationAbort,
    ReceiveCopyResults,
    ReceiveCopyOperatingParameters,
    ReportTargetPortGroups,
    SetTargetPortGroups,
    ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions,
    SendDiagnostic,
    ReadDefectData,
    LogSense,
    Sanitize,
    FormatUnit,
}

/// Whether a row's command reports a pending unit attention instead of being served (SAM-5 §5.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// It ends with CHECK CONDITION, UNIT ATTENTION.
    Reported,
    /// INQUIRY, REPORT LUNS and REQUEST SENSE pass.
    Passed,
}

/// Whether a row's command needs the unit ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The medium must be accessible.
    ReadyUnit,
    /// The ledger must be known; the medium may be out.
    Ledger,
    /// Served whatever state the unit is in.
    Nothing,
}

/// Which units serve a row's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// All.
    Always,
    /// Those with logical block provisioning management.
    Thin,
    /// Those whose medium keeps atomic writes whole.
    Atomic,
    /// Those in target port groups.
    Grouped,
    /// Of them, those whose states initiators may set.
    ExplicitlyGrouped,
}

/// When a CDB is of another class than its row says: bits that single out the harmless form of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Index of the byte to look at.
    pub byte: usize,
    /// Bits of it that count.
    pub mask: u8,
    /// Their value in the harmless form.
    pub value: u8,
    /// Class of the harmless form.
    pub class: CommandClass,
}

/// One command that is served.
#[derive(Debug)]
pub struct Opcode {
    /// The standard's name.
    pub name: &'static str,
    /// OPERATION CODE.
    pub operation_code: u8,
    /// SERVICE ACTION, where the operation code has service actions.
    pub service_action: Option<u16>,
    /// CDB USAGE DATA (SPC-4 §6.35.3): one for each bit that is looked at, the operation code and the service action in
    /// their places. Its length is the CDB's. A bit that is zero here must be zero in a CDB.
    pub usage: &'static [u8],
    /// What a reservation thinks of it.
    pub class: CommandClass,
    /// The form of it that reservations think better of.
    pub exception: Option<Exception>,
    /// What a pending unit attention does to it.
    pub attention: Attention,
    /// What it needs of the unit.
    pub needs: Needs,
    /// The asymmetric access states in which it is served.
    pub access: Access,
    /// Which units serve it.
    pub offered: Offered,
    /// Served while all of the medium is being worked on, and after that has failed (SBC-3 §4.11.2).
    pub during_work: bool,
    pub(crate) decoder: Decoder,
    /// The bits that have to be zero among the first 16 bytes, the first byte lowest.
    reserved: u128,
}

/// What an operation code and its service action came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup {
    Served(&'static Opcode),
    /// The operation code is served, this service action of it is not. The row is the code's first.
    UnknownServiceAction(&'static Opcode),
    UnknownOperationCode,
}

impl Lookup {
    /// The same for this unit.
    pub(crate) fn at(self, unit: &LogicalUnit) -> Self {
        match self {
            Self::Served(row) if row.is_served_by(unit) => self,
            Self::Served(row) | Self::UnknownServiceAction(row) => {
                match rows(row.operation_code).iter().any(|row| row.is_served_by(unit)) {
                    true => Self::UnknownServiceAction(row),
                    false => Self::UnknownOperationCode,
                }
            }
            Self::UnknownOperationCode => self,
        }
    }
}

/// Position of SERVICE ACTION in byte 1.
const SERVICE_ACTION: u8 = 0x1f;
/// The operation code of CDBs of variable length, whose service actions are in bytes 8 and 9 (SPC-4 §4.2.3).
const VARIABLE_LENGTH: u8 = 0x7f;

/// Where SERVICE ACTION is, in a CDB of an operation code that has service actions: the byte, and the first bit of it.
pub(crate) fn service_action_at(operation_code: u8) -> (u16, Option<u8>) {
    if operation_code == VARIABLE_LENGTH { (8, None) } else { (1, Some(4)) }
}

/// NACA in CONTROL: CHECK CONDITION establishes an ACA (SAM-5 §5.2).
const NACA: u8 = 0x04;

/// Where CONTROL is in a CDB of this operation code: in the last byte but for CDBs of variable length (SPC-4 §4.2.5).
/// `None` for vendor-specific lengths.
const fn control_at(operation_code: u8) -> Option<usize> {
    match operation_code {
        VARIABLE_LENGTH => Some(1),
        0x00..=0x1f => Some(5),
        0x20..=0x5f => Some(9),
        0x80..=0x9f => Some(15),
        0xa0..=0xbf => Some(11),
        _ => None,
    }
}

/// Whether a CHECK CONDITION of this command establishes an ACA.
pub fn establishes_aca(cdb: &[u8]) -> bool {
    let control = cdb.first().and_then(|code| cdb.get(control_at(*code)?));
    control.is_some_and(|control| control & NACA != 0)
}

fn service_action_of(cdb: &[u8]) -> Option<u16> {
    match cdb.first() {
        Some(&VARIABLE_LENGTH) => cdb.get(8..10).map(|bytes| be16(bytes, 0)),
        _ => cdb.get(1).map(|byte| u16::from(byte & SERVICE_ACTION)),
    }
}

impl Opcode {
    /// Whether `unit` serves it.
    pub fn is_served_by(&self, unit: &LogicalUnit) -> bool {
        match self.offered {
            Offered::Always => true,
            Offered::Thin => unit.thin_provisioned,
            Offered::Atomic => unit.atomic_writes != AtomicWrites::None,
            Offered::Grouped => unit.target_port_groups.is_some(),
            Offered::ExplicitlyGrouped => {
                unit.target_port_groups.as_ref().is_some_and(|groups| groups.explicit)
            }
        }
    }

    /// Class of `cdb`, which is of this row.
    pub fn class_of(&self, cdb: &[u8]) -> CommandClass {
        match self.exception {
            Some(exception)
                if cdb.get(exception.byte).map(|byte| byte & exception.mask) == Some(exception.value) =>
            {
                exception.class
            }
            _ => self.class,
        }
    }

    /// The first bit that is set in `cdb` where this row has none: index of the byte, and bit.
    pub(crate) fn reserved_bit(&self, cdb: &[u8]) -> Option<(u16, u8)> {
        // Nearly always there is none, which one look tells.
        if self.usage.len() <= cdb.len()
            && let Some(first) = cdb.first_chunk()
            && self.usage.len() <= first.len()
            && u128::from_le_bytes(*first) & self.reserved == 0
        {
            return None;
        }
        for (index, (byte, usage)) in (0u16..).zip(cdb.iter().zip(self.usage)).skip(1) {
            let known = match self.service_action {
                Some(_) if self.operation_code == VARIABLE_LENGTH && matches!(index, 8 | 9) => u8::MAX,
                Some(_) if self.operation_code != VARIABLE_LENGTH && index == 1 => usage | SERVICE_ACTION,
                _ => *usage,
            };
            let wrong = byte & !known;
            if wrong != 0 {
                return Some((index, u8::try_from(wrong.ilog2()).expect("a bit of a byte")));
            }
        }
        None
    }
}

/// What `cdb` asks for.
pub(crate) fn look_up(cdb: &[u8]) -> Lookup {
    let Some(&operation_code) = cdb.first() else {
        return Lookup::UnknownOperationCode;
    };
    let Some(first) = TABLE.get(usize::from(FIRST_ROW[usize::from(operation_code)])) else {
        return Lookup::UnknownOperationCode;
    };
    if first.service_action.is_none() {
        return Lookup::Served(first);
    }
    let service_action = service_action_of(cdb);
    match rows(operation_code).iter().find(|row| row.service_action == service_action) {
        Some(row) => Lookup::Served(row),
        None => Lookup::UnknownServiceAction(first),
    }
}

/// The rows of one operation code.
pub(crate) fn rows(operation_code: u8) -> &'static [Opcode] {
    let first = usize::from(FIRST_ROW[usize::from(operation_code)]);
    let rest = TABLE.get(first..).unwrap_or_default();
    let count = rest.iter().take_while(|row| row.operation_code == operation_code).count();
    &rest[..count]
}

/// Whether any form of an operation code is served: what other pages promise is derived from this.
pub(crate) fn serves(operation_code: u8) -> bool {
    !rows(operation_code).is_empty()
}

/// Index of the first row of each operation code, or of none.
static FIRST_ROW: [u8; 256] = {
    let mut first = [NO_ROW; 256];
    let mut row = TABLE.len();
    while row > 0 {
        row -= 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the table is shorter than NO_ROW, as asserted below"
        )]
        let index = row as u8;
        first[TABLE[row].operation_code as usize] = index;
    }
    first
};
const NO_ROW: u8 = u8::MAX;
const _: () = assert!(TABLE.len() < NO_ROW as usize);

/// Rows are in the order of operation code, then of service action.
const _: () = {
    let mut row = 1;
    while row < TABLE.len() {
        let (before, after) = (&TABLE[row - 1], &TABLE[row]);
        assert!(before.operation_code <= after.operation_code);
        assert!(before.usage[0] == before.operation_code && after.usage[0] == after.operation_code);
        assert!(matches!(control_at(after.operation_code), Some(at) if after.usage[at] == NACA));
        row += 1;
    }
};

const fn row(name: &'static str, usage: &'static [u8], class: CommandClass, decoder: Decoder) -> Opcode {
    Opcode {
        name,
        operation_code: usage[0],
        service_action: None,
        usage,
        class,
        exception: None,
        attention: Attention::Reported,
        needs: Needs::ReadyUnit,
        access: Access::Active,
        offered: Offered::Always,
        during_work: false,
        decoder,
        reserved: reserved(usage),
    }
}

/// All bits of the first 16 bytes that `usage` has not, but for those of the operation code and behind the end.
const fn reserved(usage: &[u8]) -> u128 {
    let (mut bits, mut at) = (0, 1);
    while at < usage.len() && at < 16 {
        bits |= (!usage[at] as u128) << (8 * at);
        at += 1;
    }
    bits
}

impl Opcode {
    const fn service_action(mut self, service_action: u16) -> Self {
        self.service_action = Some(service_action);
        self.reserved &= !((SERVICE_ACTION as u128) << 8);
        self
    }

    const fn passes_attention(mut self) -> Self {
        self.attention = Attention::Passed;
        self
    }

    const fn thin_only(mut self) -> Self {
        self.offered = Offered::Thin;
        self
    }

    const fn offered(mut self, offered: Offered) -> Self {
        self.offered = offered;
        self
    }

    /// Served also where the path is not active.
    const fn reaches(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    const fn atomic_only(mut self) -> Self {
        self.offered = Offered::Atomic;
        self
    }

    const fn during_work(mut self) -> Self {
        self.during_work = true;
        self
    }

    const fn needs_nothing(mut self) -> Self {
        self.needs = Needs::Nothing;
        self
    }

    const fn needs_ledger(mut self) -> Self {
        self.needs = Needs::Ledger;
        self
    }

    const fn except(mut self, byte: usize, mask: u8, value: u8, class: CommandClass) -> Self {
        self.exception = Some(Exception { byte, mask, value, class });
        self
    }
}

const fn persistent_in_usage<const SERVICE_ACTION: u8>() -> [u8; 10] {
    [0x5e, SERVICE_ACTION, 0, 0, 0, 0, 0, 0xff, 0xff, NACA]
}

/// SCOPE and TYPE are there for all, and looked at by those that make or end a reservation.
const fn persistent_out_usage<const SERVICE_ACTION: u8>() -> [u8; 10] {
    [0x5f, SERVICE_ACTION, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, NACA]
}

const fn persistent_in(name: &'static str, usage: &'static [u8; 10]) -> Opcode {
    let row = row(name, usage, PersistentReserve, Decoder::PersistentReserveIn);
    row.service_action(usage[1] as u16).needs_ledger().reaches(Access::Standby)
}

const fn persistent_out(name: &'static str, usage: &'static [u8; 10]) -> Opcode {
    let row = row(name, usage, PersistentReserve, Decoder::PersistentReserveOut);
    row.service_action(usage[1] as u16).needs_ledger().reaches(Access::Standby)
}

/// Those that work on the whole medium, and that are judged by the single writer after such work has failed.
pub(crate) const FORMAT_UNIT: u8 = 0x04;
pub(crate) const SANITIZE: u8 = 0x48;

/// The service action lies among IMMED and AUSE.
const fn sanitize(name: &'static str, usage: &'static [u8; 10]) -> Opcode {
    row(name, usage, Write, Decoder::Sanitize).service_action((usage[1] & SERVICE_ACTION) as u16)
}

use CommandClass::{Configure, Inspect, PersistentReserve, Read, Release, Reserve, Unrestricted, Write};

/// The commands served: the tables of SPC-4 §5.13.1 and SBC-3 §4.17 say which classes they are of.
///
/// Of CONTROL there is NACA alone, nothing vendor-specific. GROUP NUMBER and the PROTECT fields are zero; with protection
/// information (row S15 of the feature table) the latter will come to be looked at.
pub static TABLE: &[Opcode] = &[
    row("TEST UNIT READY", &[0x00, 0, 0, 0, 0, NACA], Inspect, Decoder::TestUnitReady),
    row("REQUEST SENSE", &[0x03, 0x01, 0, 0, 0xff, NACA], Unrestricted, Decoder::RequestSense)
        .passes_attention()
        .reaches(Access::Transitioning)
        .needs_nothing()
        .during_work(),
    row("FORMAT UNIT", &[FORMAT_UNIT, 0x38, 0, 0, 0, NACA], Write, Decoder::FormatUnit),
    row("READ (6)", &[0x08, 0x1f, 0xff, 0xff, 0xff, NACA], Read, Decoder::Read6),
    row("WRITE (6)", &[0x0a, 0x1f, 0xff, 0xff, 0xff, NACA], Write, Decoder::Write6),
    row("INQUIRY", &[0x12, 0x01, 0xff, 0xff, 0xff, NACA], Unrestricted, Decoder::Inquiry)
        .passes_attention()
        .reaches(Access::Transitioning)
        .needs_nothing()
        .during_work(),
    row("MODE SELECT (6)", &[0x15, 0x11, 0, 0, 0xff, NACA], Configure, Decoder::ModeSelect6)
        .needs_nothing()
        .reaches(Access::Standby),
    row("RESERVE (6)", &[0x16, 0, 0, 0, 0, NACA], Reserve, Decoder::Reserve).needs_nothing(),
    row("RELEASE (6)", &[0x17, 0, 0, 0, 0, NACA], Release, Decoder::Release).needs_nothing(),
    row("MODE SENSE (6)", &[0x1a, 0x08, 0xff, 0xff, 0xff, NACA], Read, Decoder::ModeSense6)
        .needs_nothing()
        .reaches(Access::Standby)
        .during_work(),
    // SBC-3 §4.17: START with POWER CONDITION 0h passes, everything else conflicts.
    row("START STOP UNIT", &[0x1b, 0x01, 0, 0x0f, 0xf7, NACA], Configure, Decoder::StartStopUnit)
        .needs_nothing()
        .except(4, 0xf1, 0x01, Unrestricted),
    // Self-tests are the default one alone, and there are no diagnostic pages: no parameter list.
    row("SEND DIAGNOSTIC", &[0x1d, 0x17, 0, 0, 0, NACA], Configure, Decoder::SendDiagnostic)
        .reaches(Access::Standby),
    // SPC-4 §5.13.1: allowing removal passes, preventing it conflicts.
    row("PREVENT ALLOW MEDIUM REMOVAL", &[0x1e, 0, 0, 0, 0x03, NACA], Configure, Decoder::PreventAllow)
        .needs_nothing()
        .except(4, 0x03, 0x00, Unrestricted),
    row("READ CAPACITY (10)", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, NACA], Unrestricted, Decoder::ReadCapacity10)
        .reaches(Access::Standby)
        .during_work(),
    row("READ (10)", &[0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA], Read, Decoder::Read10),
    row("WRITE (10)", &[0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA], Write, Decoder::Write10),
    row(
        "WRITE AND VERIFY (10)",
        &[0x2e, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA],
        Write,
        Decoder::WriteAndVerify,
    ),
    row("VERIFY (10)", &[0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA], Read, Decoder::Verify10),
    row(
        "PRE-FETCH (10)",
        &[0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, NACA],
        Read,
        Decoder::PreFetch,
    ),
    // SYNC_NV is obsolete, and some initiators set it: a flush that does more than they ask is what they get.
    row(
        "SYNCHRONIZE CACHE (10)",
        &[0x35, 0x06, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA],
        Configure,
        Decoder::SynchronizeCache10,
    ),
    row(
        "READ DEFECT DATA (10)",
        &[0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, NACA],
        Read,
        Decoder::ReadDefectData,
    ),
    row(
        "WRITE SAME (10)",
        &[0x41, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA],
        Write,
        Decoder::WriteSame,
    ),
    row("UNMAP", &[0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, NACA], Write, Decoder::Unmap).thin_only(),
    sanitize("SANITIZE (OVERWRITE)", &[SANITIZE, 0xa0 | 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, NACA]),
    sanitize("SANITIZE (BLOCK ERASE)", &[SANITIZE, 0xa0 | 0x02, 0, 0, 0, 0, 0, 0, 0, NACA]).thin_only(),
    sanitize("SANITIZE (EXIT FAILURE MODE)", &[SANITIZE, 0xa0 | 0x1f, 0, 0, 0, 0, 0, 0, 0, NACA]),
    row(
        "LOG SENSE",
        &[0x4d, 0, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, NACA],
        Unrestricted,
        Decoder::LogSense,
    )
    .needs_nothing()
    .reaches(Access::Standby),
    row("MODE SELECT (10)", &[0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, NACA], Configure, Decoder::ModeSelect10)
        .needs_nothing()
        .reaches(Access::Standby),
    row("RESERVE (10)", &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, NACA], Reserve, Decoder::Reserve).needs_nothing(),
    row("RELEASE (10)", &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, NACA], Release, Decoder::Release).needs_nothing(),
    row("MODE SENSE (10)", &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, NACA], Read, Decoder::ModeSense10)
        .needs_nothing()
        .reaches(Access::Standby)
        .during_work(),
    persistent_in("PERSISTENT RESERVE IN (READ KEYS)", &persistent_in_usage::<{ report::READ_KEYS }>()),
    persistent_in(
        "PERSISTENT RESERVE IN (READ RESERVATION)",
        &persistent_in_usage::<{ report::READ_RESERVATION }>(),
    ),
    persistent_in(
        "PERSISTENT RESERVE IN (REPORT CAPABILITIES)",
        &persistent_in_usage::<{ report::REPORT_CAPABILITIES }>(),
    ),
    persistent_in(
        "PERSISTENT RESERVE IN (READ FULL STATUS)",
        &persistent_in_usage::<{ report::READ_FULL_STATUS }>(),
    ),
    persistent_out("PERSISTENT RESERVE OUT (REGISTER)", &persistent_out_usage::<{ out::REGISTER }>()),
    persistent_out("PERSISTENT RESERVE OUT (RESERVE)", &persistent_out_usage::<{ out::RESERVE }>()),
    persistent_out("PERSISTENT RESERVE OUT (RELEASE)", &persistent_out_usage::<{ out::RELEASE }>()),
    persistent_out("PERSISTENT RESERVE OUT (CLEAR)", &persistent_out_usage::<{ out::CLEAR }>()),
    persistent_out("PERSISTENT RESERVE OUT (PREEMPT)", &persistent_out_usage::<{ out::PREEMPT }>()),
    persistent_out(
        "PERSISTENT RESERVE OUT (PREEMPT AND ABORT)",
        &persistent_out_usage::<{ out::PREEMPT_AND_ABORT }>(),
    ),
    persistent_out(
        "PERSISTENT RESERVE OUT (REGISTER AND IGNORE EXISTING KEY)",
        &persistent_out_usage::<{ out::REGISTER_AND_IGNORE_EXISTING_KEY }>(),
    ),
    persistent_out(
        "PERSISTENT RESERVE OUT (REGISTER AND MOVE)",
        &persistent_out_usage::<{ out::REGISTER_AND_MOVE }>(),
    ),
    // ADDITIONAL CDB LENGTH is 18h. REPORT TYPE is taken and not processed, as RTP tells (SBC-4 §5.7).
    row(
        "GET LBA STATUS (32)",
        &[
            VARIABLE_LENGTH,
            NACA,
            0,
            0,
            0,
            0,
            0,
            0x18,
            0x00,
            0x12,
            0xff,
            0,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
            0xff,
            0xff,
            0xff,
            0xff,
        ],
        Read,
        Decoder::GetLbaStatus,
    )
    .service_action(0x12)
    .thin_only(),
    row(
        "EXTENDED COPY (LID1)",
        &[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Configure,
        Decoder::ExtendedCopy,
    )
    .service_action(0x00)
    .needs_nothing(),
    row(
        "EXTENDED COPY (LID4)",
        &[0x83, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Configure,
        Decoder::ExtendedCopy,
    )
    .service_action(0x01)
    .needs_nothing(),
    row(
        "POPULATE TOKEN",
        &[0x83, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Configure,
        Decoder::PopulateToken,
    )
    .service_action(0x10),
    row(
        "WRITE USING TOKEN",
        &[0x83, 0x11, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::WriteUsingToken,
    )
    .service_action(0x11),
    row(
        "COPY OPERATION ABORT",
        &[0x83, 0x1c, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, NACA],
        Configure,
        Decoder::CopyOperationAbort,
    )
    .service_action(0x1c)
    .needs_nothing(),
    row(
        "RECEIVE COPY STATUS (LID1)",
        &[0x84, 0x00, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Inspect,
        Decoder::ReceiveCopyResults,
    )
    .service_action(0x00)
    .needs_nothing(),
    row(
        "RECEIVE COPY OPERATING PARAMETERS",
        &[0x84, 0x03, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Inspect,
        Decoder::ReceiveCopyOperatingParameters,
    )
    .service_action(0x03)
    .needs_nothing(),
    row(
        "RECEIVE COPY FAILURE DETAILS (LID1)",
        &[0x84, 0x04, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Inspect,
        Decoder::ReceiveCopyResults,
    )
    .service_action(0x04)
    .needs_nothing(),
    row(
        "RECEIVE COPY STATUS (LID4)",
        &[0x84, 0x05, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Inspect,
        Decoder::ReceiveCopyResults,
    )
    .service_action(0x05)
    .needs_nothing(),
    row(
        "RECEIVE ROD TOKEN INFORMATION",
        &[0x84, 0x07, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Inspect,
        Decoder::ReceiveCopyResults,
    )
    .service_action(0x07)
    .needs_nothing(),
    row(
        "READ (16)",
        &[0x88, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::Read16,
    ),
    row(
        "COMPARE AND WRITE",
        &[0x89, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, NACA],
        Write,
        Decoder::CompareAndWrite,
    ),
    row(
        "WRITE (16)",
        &[0x8a, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::Write16,
    ),
    row(
        "ORWRITE (16)",
        &[0x8b, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::OrWrite,
    ),
    row(
        "WRITE AND VERIFY (16)",
        &[0x8e, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::WriteAndVerify,
    ),
    row(
        "VERIFY (16)",
        &[0x8f, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::Verify16,
    ),
    row(
        "PRE-FETCH (16)",
        &[0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, NACA],
        Read,
        Decoder::PreFetch,
    ),
    row(
        "SYNCHRONIZE CACHE (16)",
        &[0x91, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Configure,
        Decoder::SynchronizeCache16,
    ),
    row(
        "WRITE SAME (16)",
        &[0x93, 0x19, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::WriteSame,
    ),
    // ATOMIC BOUNDARY is zero: all of it is one atomic write.
    row(
        "WRITE ATOMIC (16)",
        &[0x9c, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::WriteAtomic,
    )
    .atomic_only(),
    row(
        "READ CAPACITY (16)",
        &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Unrestricted,
        Decoder::ReadCapacity16,
    )
    .service_action(0x10)
    .reaches(Access::Standby)
    .during_work(),
    row(
        "GET LBA STATUS",
        &[0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::GetLbaStatus,
    )
    .service_action(0x12)
    .thin_only(),
    row(
        "REPORT LUNS",
        &[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Unrestricted,
        Decoder::ReportLuns,
    )
    .passes_attention()
    .reaches(Access::Transitioning)
    .needs_nothing()
    .during_work(),
    row(
        "REPORT TARGET PORT GROUPS",
        &[0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Inspect,
        Decoder::ReportTargetPortGroups,
    )
    .service_action(0x0a)
    .needs_nothing()
    .offered(Offered::Grouped)
    .reaches(Access::Transitioning),
    row(
        "REPORT SUPPORTED OPERATION CODES",
        &[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::ReportSupportedOperationCodes,
    )
    .service_action(0x0c)
    .reaches(Access::Standby)
    .needs_nothing()
    .during_work(),
    row(
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        &[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::ReportSupportedTaskManagementFunctions,
    )
    .service_action(0x0d)
    .reaches(Access::Standby)
    .needs_nothing()
    .during_work(),
    row(
        "SET TARGET PORT GROUPS",
        &[0xa4, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Configure,
        Decoder::SetTargetPortGroups,
    )
    .service_action(0x0a)
    .needs_nothing()
    .offered(Offered::ExplicitlyGrouped)
    .reaches(Access::Unavailable),
    row(
        "READ (12)",
        &[0xa8, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::Read12,
    ),
    row(
        "WRITE (12)",
        &[0xaa, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::Write12,
    ),
    row(
        "WRITE AND VERIFY (12)",
        &[0xae, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Write,
        Decoder::WriteAndVerify,
    ),
    row(
        "VERIFY (12)",
        &[0xaf, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::Verify12,
    ),
    row(
        "READ DEFECT DATA (12)",
        &[0xb7, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA],
        Read,
        Decoder::ReadDefectData,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Handler, Identity, IdentityOptions};
    use crate::unit::{Geometry, WriteCache};

    fn unit() -> LogicalUnit {
        let identity = Identity::new(&IdentityOptions::new(0, "disk", Handler::FileIo)).unwrap();
        LogicalUnit::new(identity, Geometry::new(512, 8, 0, 4096).unwrap(), WriteCache::WriteBack)
    }

    #[test]
    fn every_row_is_found_by_its_own_cdb() {
        for row in TABLE {
            let Lookup::Served(found) = look_up(row.usage) else { panic!("{} is not found", row.name) };
            assert_eq!(found.name, row.name);
            assert_eq!(found.reserved_bit(row.usage), None, "{}", row.name);
        }
    }

    #[test]
    fn the_length_of_a_cdb_is_that_of_its_group() {
        for row in TABLE {
            let length = match row.operation_code >> 5 {
                0 => 6,
                1 | 2 => 10,
                // Variable: of those that are served all have 32 bytes.
                3 => 32,
                4 => 16,
                5 => 12,
                group => panic!("group {group} has no fixed length"),
            };
            assert_eq!(row.usage.len(), length, "{}", row.name);
        }
    }

    #[test]
    fn a_reserved_bit_is_found_where_it_is() {
        let Lookup::Served(read) = look_up(&[0x28]) else { panic!() };
        assert_eq!(read.reserved_bit(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0]), Some((1, 5)), "RDPROTECT");
        assert_eq!(read.reserved_bit(&[0x28, 0, 0, 0, 0, 0, 0x04, 0, 1, 0]), Some((6, 2)), "GROUP NUMBER");
        assert_eq!(read.reserved_bit(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0x80]), Some((9, 7)), "CONTROL");
        assert_eq!(read.reserved_bit(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0x04]), None, "NACA");
    }

    #[test]
    fn naca_is_found_in_cdbs_of_each_length() {
        let row = |code: u8| &rows(code)[0];
        for (code, control) in [(0x00, 5), (0x28, 9), (0x88, 15), (0xa8, 11), (0x7f, 1)] {
            let mut cdb = vec![0; row(code).usage.len()];
            cdb[0] = code;
            assert!(!establishes_aca(&cdb));
            cdb[control] = 0x04;
            assert!(establishes_aca(&cdb), "{code:#x}");
        }
        assert!(!establishes_aca(&[0xc0; 16]), "a vendor's length is not known");
        assert!(!establishes_aca(&[0x28, 0xff]), "nor what is not there");
    }

    #[test]
    fn a_service_action_that_is_not_served_is_told_from_a_code_that_is_not() {
        assert!(matches!(look_up(&[0x9e, 0x1f]), Lookup::UnknownServiceAction(_)));
        assert!(matches!(look_up(&[0x5e, 0x04]), Lookup::UnknownServiceAction(_)));
        assert!(matches!(look_up(&[0x5c, 0x00]), Lookup::UnknownOperationCode));
        assert!(matches!(look_up(&[0x9e, 0x12]), Lookup::Served(_)));
        let thick = unit();
        assert!(matches!(look_up(&[0x9e, 0x12]).at(&thick), Lookup::UnknownServiceAction(_)));
        assert!(matches!(look_up(&[0xa3, 0x0a]).at(&thick), Lookup::UnknownServiceAction(_)));
        assert!(matches!(look_up(&[0xa4, 0x0a]).at(&thick), Lookup::UnknownOperationCode));
        assert!(matches!(look_up(&[0x42]).at(&thick), Lookup::UnknownOperationCode));
        assert!(matches!(look_up(&[0x9c]).at(&thick), Lookup::UnknownOperationCode));
        let atomic = LogicalUnit { atomic_writes: AtomicWrites::Any, ..unit() };
        assert!(matches!(look_up(&[0x9c]).at(&atomic), Lookup::Served(_)));
        assert!(matches!(look_up(&[]), Lookup::UnknownOperationCode));
    }

    #[test]
    fn starting_a_unit_and_allowing_removal_are_harmless_forms() {
        let class = |cdb: &[u8]| match look_up(cdb) {
            Lookup::Served(row) => row.class_of(cdb),
            other => panic!("{other:?}"),
        };
        assert_eq!(class(&[0x1b, 0, 0, 0, 0x01, 0]), Unrestricted);
        assert_eq!(class(&[0x1b, 0, 0, 0, 0x11, 0]), Configure);
        assert_eq!(class(&[0x1b, 0, 0, 0, 0x02, 0]), Configure);
        assert_eq!(class(&[0x1e, 0, 0, 0, 0x00, 0]), Unrestricted);
        assert_eq!(class(&[0x1e, 0, 0, 0, 0x01, 0]), Configure);
    }
}
