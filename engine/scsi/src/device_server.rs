//! The device server: one CDB in, one [`Action`] out (SAM-5 §4.6, §5).
//!
//! A pure function over a replica. It answers itself what it can, and hands on what needs data-out, the medium, or the
//! single writer. It never waits, never allocates, and knows no transport: a LUN and a CDB are bytes.
//!
//! Order of checks, each before the next: resets pending, reservation, other unit attentions (SAM-5 §5.3.3), operation
//! code, the path's asymmetric access state, readiness, the CDB's fields, range, write protection.

use std::sync::Arc;

use crate::alua;
use crate::attention::{Attentions, UnitAttention};
use crate::block::{self, MediumCommand};
use crate::capacity;
use crate::cdb::{self, Command, LogSense, ModeSense, Sanitizing};
use crate::copy::{self, ExtendedCopy};
use crate::copy_results::CopyResults;
use crate::inquiry;
use crate::ledger::TargetPort;
use crate::log;
use crate::lun::Lun;
use crate::mode;
use crate::opcodes::{self, Attention, Lookup, Needs, Opcode};
use crate::original::Change;
use crate::persistent::{self, ScopeType};
use crate::reply::{REPLY_BYTES_MAX, Reply};
use crate::report;
use crate::reservation::{CommandClass, NexusId};
use crate::sense::{AdditionalSense, Outcome, Sense, SenseFormat, SenseKey};
use crate::token::{PopulateToken, WriteUsingToken};
use crate::unit::{Lba, LogicalUnit, ModeChange, Readiness};
use crate::vpd;
use crate::work::{self, Fill, Work, WorkKind};

/// What this shard keeps for one I_T_L nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NexusState {
    /// Unit attentions that the initiator has not been told.
    pub attentions: Attentions,
}

impl NexusState {
    /// A nexus that is new to the unit: the first command is told 29/00.
    pub fn new() -> Self {
        let mut attentions = Attentions::NONE;
        attentions.establish(UnitAttention::PowerOn);
        Self { attentions }
    }

    /// A unit attention condition arises for this nexus.
    pub fn establish(&mut self, attention: UnitAttention) {
        self.attentions.establish(attention);
    }
}

impl Default for NexusState {
    fn default() -> Self {
        Self::new()
    }
}

/// What a command can see beyond the unit itself: the path that it came by.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Every LUN that this nexus may see, spelt as REPORT LUNS shall have it, ascending; at most
    /// [`LUNS_MAX`](crate::report::LUNS_MAX).
    pub luns: &'a [Lun],
    /// RELATIVE TARGET PORT IDENTIFIER of the target port.
    pub relative_target_port: u16,
    /// All ports of the SCSI device that it came to, that one among them; their names as ledgers have them.
    pub target_ports: &'a [TargetPort],
    /// The LUN map lets this nexus read only.
    pub read_only: bool,
    /// Its transport carries QUERY TASK, QUERY TASK SET, QUERY ASYNCHRONOUS EVENT and I_T NEXUS RESET.
    pub carries_queries: bool,
}

/// What is to be done about a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing more: it ended so.
    Finish(Outcome),
    /// GOOD, with the first `length` bytes of the reply buffer as data-in.
    Reply {
        /// Bytes.
        length: usize,
    },
    /// Gather this much data-out, then call [`parameters`].
    Parameters(ParameterList),
    /// Take it to the medium; [`LogicalUnit::recheck`] before each piece.
    Medium(MediumCommand),
    /// Send it to the single writer.
    Change(Change),
    /// Copy between the units that its nexus sees.
    Copy(ExtendedCopy),
    /// Make a token.
    Populate(PopulateToken),
    /// Write what a token stands for.
    WriteUsingToken(WriteUsingToken),
    /// End the copy of this nexus that has this LIST IDENTIFIER; INVALID FIELD IN CDB there if there is none.
    AbortCopy {
        /// LIST IDENTIFIER.
        list_id: u32,
    },
    /// Tell of a copy of this nexus: [`CopyRecord::tell`](crate::copy_results::CopyRecord::tell), or INVALID FIELD IN CDB at
    /// the LIST IDENTIFIER where there is none.
    CopyResults {
        /// What.
        results: CopyResults,
        /// LIST IDENTIFIER.
        list_id: u32,
        /// ALLOCATION LENGTH.
        allocation_length: u32,
    },
}

/// Data-out that the device server wants for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterList {
    /// PARAMETER LIST LENGTH, bytes: from 1 to [`PARAMETER_BYTES_MAX`].
    pub length: usize,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    ModeSelect { long_header: bool, save: bool },
    PersistentReserveOut { service_action: u8, scope_type: ScopeType },
    Unmap,
    SetTargetPortGroups,
    Overwrite { immediate: bool, unrestricted: bool },
    Format { long_list: bool },
    ExtendedCopy { long: bool },
    PopulateToken { list_id: u32 },
    WriteUsingToken { list_id: u32 },
}

/// Longest parameter list that is taken.
pub const PARAMETER_BYTES_MAX: usize = 8192;

/// How large a reply buffer `cdb` needs at most; zero for most commands of the data path.
pub fn reply_bytes_max(cdb: &[u8], context: &Context<'_>) -> usize {
    match cdb.first() {
        Some(0x08 | 0x0a | 0x28 | 0x2a | 0x88 | 0x8a | 0xa8 | 0xaa) => 0,
        Some(0x5e) => persistent::report::REPLY_BYTES_MAX,
        Some(0xa3) if cdb.get(1).is_some_and(|action| action & 0x1f == 0x0a) => alua::REPLY_BYTES_MAX,
        Some(0x12) => vpd::ports_bytes(context.target_ports).max(REPLY_BYTES_MAX),
        Some(0xa0) => report::luns_bytes(context.luns.len()).max(REPLY_BYTES_MAX),
        _ => REPLY_BYTES_MAX,
    }
}

/// Judges a CDB. `reply` has at least [`reply_bytes_max`] bytes.
///
/// # Panics
/// When `reply` is too small for a reply.
pub fn begin(
    unit: &LogicalUnit,
    nexus: &mut NexusState,
    me: NexusId,
    context: &Context<'_>,
    cdb: &[u8],
    reply: &mut [u8],
) -> Action {
    match judge(unit, nexus, me, context, cdb, reply) {
        Ok(action) => action,
        Err(outcome) => Action::Finish(outcome),
    }
}

/// Judges the CDB of a READ that is answered where it is understood: its first block and how many there are, at least one, where
/// [`begin`] would say [`MediumCommand::Read`]. `None` where it would say anything else, or the CDB is another one's: nothing
/// has happened then, and [`begin`] is to be asked.
#[inline]
pub fn read_at_once(
    unit: &LogicalUnit,
    nexus: &NexusState,
    me: NexusId,
    context: &Context<'_>,
    cdb: &[u8],
) -> Option<(Lba, u32)> {
    // Who is told of an attention is not the same afterwards.
    if nexus.attentions.pending() {
        return None;
    }
    let Lookup::Served(row) = opcodes::look_up(cdb) else { return None };
    let extent = cdb::read_extent(row, cdb)?;
    let is_admitted = row.is_served_by(unit)
        && unit.reservation.admits(me, row.class_of(cdb))
        && unit.pass(context.relative_target_port, row.access).is_ok()
        && ready(unit, row).is_ok();
    if !is_admitted {
        return None;
    }
    match block::read(unit, extent, false, false) {
        Ok(Some(MediumCommand::Read { lba, blocks, .. })) => Some((lba, blocks)),
        _ => None,
    }
}

fn judge(
    unit: &LogicalUnit,
    nexus: &mut NexusState,
    me: NexusId,
    context: &Context<'_>,
    cdb: &[u8],
    reply: &mut [u8],
) -> Result<Action, Outcome> {
    let lookup = opcodes::look_up(cdb).at(unit);
    let (row, class) = match lookup {
        Lookup::Served(row) => (Some(row), row.class_of(cdb)),
        // What nobody can say is harmless conflicts.
        Lookup::UnknownServiceAction(first) => (Some(first), CommandClass::Configure),
        Lookup::UnknownOperationCode => (None, CommandClass::Unrestricted),
    };
    admit(unit, nexus, me, row, class)?;
    let row = match lookup {
        Lookup::Served(row) => row,
        Lookup::UnknownServiceAction(first) => {
            ready(unit, first)?;
            let (byte, bit) = opcodes::service_action_at(first.operation_code);
            return Err(Outcome::invalid_cdb_field(byte, bit));
        }
        Lookup::UnknownOperationCode => {
            return Err(Outcome::illegal(AdditionalSense::INVALID_OPERATION_CODE));
        }
    };
    unit.pass(context.relative_target_port, row.access)?;
    ready(unit, row)?;
    let command = cdb::decode(row, cdb)?;
    let action = serve(unit, nexus, context, command, reply)?;
    // A write of nothing ended already, and harms nothing.
    if class == CommandClass::Write && !matches!(action, Action::Finish(_)) {
        protect(unit, context)?;
    }
    Ok(action)
}

/// Unit attentions and reservations, in the precedence of SAM-5 §5.3.3.
fn admit(
    unit: &LogicalUnit,
    nexus: &mut NexusState,
    me: NexusId,
    row: Option<&Opcode>,
    class: CommandClass,
) -> Result<(), Outcome> {
    let reports = nexus.attentions.pending() && row.is_none_or(|row| row.attention == Attention::Reported);
    if reports && let Some(attention) = nexus.attentions.take_reset() {
        return Err(attention.outcome());
    }
    if !unit.reservation.admits(me, class) {
        return Err(Outcome::RESERVATION_CONFLICT);
    }
    match reports.then(|| nexus.attentions.take()).flatten() {
        Some(attention) => Err(attention.outcome()),
        None => Ok(()),
    }
}

fn ready(unit: &LogicalUnit, row: &Opcode) -> Result<(), Outcome> {
    if matches!(unit.readiness, Readiness::UnderWay(..) | Readiness::WorkFailed(_)) {
        let begins_anew = matches!(row.operation_code, opcodes::SANITIZE | opcodes::FORMAT_UNIT)
            && matches!(unit.readiness, Readiness::WorkFailed(_));
        return match unit.readiness.sense() {
            Some(sense) if !row.during_work && !begins_anew => Err(Outcome::check(sense)),
            _ => Ok(()),
        };
    }
    let needed = match row.needs {
        Needs::ReadyUnit => true,
        Needs::Ledger => unit.readiness != Readiness::MediumNotPresent,
        Needs::Nothing => false,
    };
    match unit.readiness.sense() {
        Some(sense) if needed => Err(Outcome::check(sense)),
        _ => Ok(()),
    }
}

fn protect(unit: &LogicalUnit, context: &Context<'_>) -> Result<(), Outcome> {
    if context.read_only {
        return Err(Outcome::check(Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED)));
    }
    unit.write_protection().map_or(Ok(()), Err)
}

fn serve(
    unit: &LogicalUnit,
    nexus: &mut NexusState,
    context: &Context<'_>,
    command: Command,
    buffer: &mut [u8],
) -> Result<Action, Outcome> {
    Ok(match command {
        Command::Read { .. }
        | Command::Write { .. }
        | Command::Verify { .. }
        | Command::WriteAndVerify { .. }
        | Command::PreFetch { .. }
        | Command::WriteSame { .. }
        | Command::Atomic(_)
        | Command::GetLbaStatus { .. }
        | Command::SynchronizeCache { .. } => {
            transfer(unit, command)?.map_or(Action::Finish(Outcome::GOOD), Action::Medium)
        }
        Command::Unmap { parameter_list_length: length } => parameter_list(Purpose::Unmap, length.into())?,
        Command::Sanitize { .. } | Command::FormatUnit { .. } => whole_medium(unit, command)?,
        Command::SendDiagnostic { self_test } => send_diagnostic(unit, context, self_test),
        Command::TestUnitReady => Action::Finish(Outcome::GOOD),
        Command::ModeSelect { long_header, save, parameter_list_length } => {
            mode_select(long_header, save, usize::from(parameter_list_length))?
        }
        Command::ExtendedCopy { .. }
        | Command::PopulateToken { .. }
        | Command::WriteUsingToken { .. }
        | Command::CopyOperationAbort { .. }
        | Command::ReceiveCopyResults { .. } => third_party(command)?,
        Command::SetTargetPortGroups { parameter_list_length } => {
            let length = usize::try_from(parameter_list_length).unwrap_or(usize::MAX);
            parameter_list(Purpose::SetTargetPortGroups, length)?
        }
        Command::Reserve => Action::Change(Change::Reserve),
        Command::Release => Action::Change(Change::Release),
        Command::PersistentReserveOut { service_action, scope_type, parameter_list_length } => {
            persistent_reserve_out(service_action, scope_type, parameter_list_length)?
        }
        Command::StartStopUnit { immediate, power_condition, no_flush, load_eject, start } => {
            // POWER CONDITION other than 0h: no power conditions are implemented, none is entered, and LOEJ and START
            // are to be ignored (SBC-3 §5.28).
            let active = power_condition == 0;
            start_stop(unit, immediate, no_flush, active.then_some((load_eject, start)))?
        }
        // A medium that cannot leave needs no preventing; initiators send this to every disk.
        Command::PreventAllow { .. } if !unit.removable => Action::Finish(Outcome::GOOD),
        Command::PreventAllow { prevent } => Action::Change(Change::PreventRemoval { prevent }),
        Command::RequestSense { .. }
        | Command::Inquiry { .. }
        | Command::ModeSense(_)
        | Command::LogSense(_)
        | Command::ReadDefectData { .. }
        | Command::PersistentReserveIn { .. }
        | Command::ReadCapacity10
        | Command::ReadCapacity16 { .. }
        | Command::ReportLuns { .. }
        | Command::ReportTargetPortGroups { .. }
        | Command::ReceiveCopyOperatingParameters { .. }
        | Command::ReportSupportedOperationCodes { .. }
        | Command::ReportSupportedTaskManagementFunctions { .. } => {
            let length = answer(unit, nexus, context, command, buffer)?;
            Action::Reply { length }
        }
    })
}

/// Commands that are the copy manager's (SPC-4 §5.16).
fn third_party(command: Command) -> Result<Action, Outcome> {
    let list = |purpose, length: u32| parameter_list(purpose, usize::try_from(length).unwrap_or(usize::MAX));
    match command {
        Command::ExtendedCopy { long, parameter_list_length } => {
            list(Purpose::ExtendedCopy { long }, parameter_list_length)
        }
        Command::PopulateToken { list_id, parameter_list_length } => {
            list(Purpose::PopulateToken { list_id }, parameter_list_length)
        }
        Command::WriteUsingToken { list_id, parameter_list_length } => {
            list(Purpose::WriteUsingToken { list_id }, parameter_list_length)
        }
        Command::CopyOperationAbort { list_id } => Ok(Action::AbortCopy { list_id }),
        Command::ReceiveCopyResults { results, list_id, allocation_length } => {
            Ok(Action::CopyResults { results, list_id, allocation_length })
        }
        other => unreachable!("{other:?} is none of the copy manager's"),
    }
}

/// Commands that are the medium's: what is to be done there, if anything.
fn transfer(unit: &LogicalUnit, command: Command) -> Result<Option<MediumCommand>, Outcome> {
    match command {
        Command::Read { extent, force_unit_access, disable_page_out } => {
            block::read(unit, extent, force_unit_access, disable_page_out)
        }
        Command::Write { extent, force_unit_access, disable_page_out } => {
            block::write(unit, extent, force_unit_access, disable_page_out)
        }
        Command::Verify { extent, compare } => block::verify(unit, extent, compare),
        Command::WriteAndVerify { extent, compare } => block::write_and_verify(unit, extent, compare),
        Command::PreFetch { extent, immediate } => block::pre_fetch(unit, extent, immediate),
        Command::WriteSame { extent, unmap, anchor, no_data_out } => {
            block::write_same(unit, extent, unmap, anchor, no_data_out).map(Some)
        }
        Command::Atomic(atomic) => block::atomic(unit, atomic),
        Command::GetLbaStatus { lba, scan_blocks, allocation_length } => {
            block::get_lba_status(unit, lba, scan_blocks, allocation_length).map(Some)
        }
        Command::SynchronizeCache { extent, immediate } => block::synchronize(unit, extent, immediate),
        other => unreachable!("{other:?} is none of the medium's"),
    }
}

/// Commands that this module answers with data-in: the length of it.
fn answer(
    unit: &LogicalUnit,
    nexus: &mut NexusState,
    context: &Context<'_>,
    command: Command,
    buffer: &mut [u8],
) -> Result<usize, Outcome> {
    let mut reply = Reply::new(buffer, allocation_length(command));
    match command {
        Command::RequestSense { descriptor, .. } => {
            request_sense(unit, nexus, context, descriptor, &mut reply);
        }
        Command::Inquiry { vital_product_data: None, .. } => inquiry::standard(unit, context, &mut reply),
        Command::Inquiry { vital_product_data: Some(code), .. } => {
            if !vpd::page(code, unit, context, &mut reply) {
                return Err(Outcome::invalid_cdb_field(2, None));
            }
        }
        Command::ModeSense(sense) => mode::sense(unit, context.read_only, &sense, &mut reply)?,
        Command::LogSense(sense) => log::sense(unit, &sense, &mut reply)?,
        Command::ReadDefectData { long_header, lists, .. } => {
            report::defects(long_header, lists, &mut reply);
        }
        Command::PersistentReserveIn { service_action, .. } => {
            persistent::report::answer(service_action, &unit.reservation, &mut reply);
        }
        Command::ReadCapacity10 => capacity::read_capacity_10(unit, &mut reply),
        Command::ReadCapacity16 { .. } => capacity::read_capacity_16(unit, &mut reply),
        Command::ReportLuns { select, .. } => {
            report::luns(select, context.luns, &mut reply)?;
            // SPC-4 §6.33: who has read the list needs no word that it changed.
            nexus.attentions.withdraw(UnitAttention::ReportedLunsChanged);
        }
        Command::ReportSupportedOperationCodes {
            reporting,
            timeouts,
            operation_code,
            service_action,
            ..
        } => {
            let (code, action) = (operation_code, service_action);
            report::operation_codes(unit, reporting, timeouts, code, action, &mut reply)?;
        }
        Command::ReportSupportedTaskManagementFunctions { extended, .. } => {
            report::task_management_functions(context.carries_queries, extended, &mut reply);
        }
        Command::ReportTargetPortGroups { extended, .. } => {
            let groups = unit.target_port_groups.as_ref().expect("it is offered by units in groups alone");
            groups.report(extended, &mut reply);
        }
        Command::ReceiveCopyOperatingParameters { .. } => copy::operating_parameters(&mut reply),
        other => unreachable!("{other:?} has no data-in of its own"),
    }
    Ok(reply.finish())
}

/// ALLOCATION LENGTH, bytes; READ CAPACITY (10) has none and always sends eight.
fn allocation_length(command: Command) -> usize {
    let long = |length: u32| usize::try_from(length).unwrap_or(usize::MAX);
    match command {
        Command::RequestSense { allocation_length, .. } => usize::from(allocation_length),
        Command::Inquiry { allocation_length, .. }
        | Command::PersistentReserveIn { allocation_length, .. }
        | Command::LogSense(LogSense { allocation_length, .. })
        | Command::ModeSense(ModeSense { allocation_length, .. }) => usize::from(allocation_length),
        Command::ReadCapacity16 { allocation_length }
        | Command::ReadDefectData { allocation_length, .. }
        | Command::ReportLuns { allocation_length, .. }
        | Command::ReportTargetPortGroups { allocation_length, .. }
        | Command::ReceiveCopyOperatingParameters { allocation_length }
        | Command::ReportSupportedOperationCodes { allocation_length, .. }
        | Command::ReportSupportedTaskManagementFunctions { allocation_length, .. } => {
            long(allocation_length)
        }
        _ => usize::MAX,
    }
}

/// SPC-4 §6.39: a pending unit attention as data, which reports it; else why the unit cannot be reached by this path, or
/// is not ready; else nothing.
fn request_sense(
    unit: &LogicalUnit,
    nexus: &mut NexusState,
    context: &Context<'_>,
    descriptor: bool,
    reply: &mut Reply<'_>,
) {
    let nothing = Sense::new(SenseKey::NoSense, AdditionalSense::NONE);
    let sense = match nexus.attentions.take() {
        Some(attention) => attention.sense(),
        None => {
            let groups = unit.target_port_groups.as_ref();
            let path = groups.and_then(|groups| groups.sense_of(context.relative_target_port));
            path.or(unit.readiness.sense()).unwrap_or(nothing)
        }
    };
    let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
    reply.bytes(sense.encode(format).as_bytes());
}

/// By a port that is not active the medium is out of reach, and there is nothing to be tested.
fn send_diagnostic(unit: &LogicalUnit, context: &Context<'_>, self_test: bool) -> Action {
    let active = unit.pass(context.relative_target_port, alua::Access::Active).is_ok();
    if self_test && active { Action::Medium(block::SELF_TEST) } else { Action::Finish(Outcome::GOOD) }
}

/// SANITIZE and FORMAT UNIT.
fn whole_medium(unit: &LogicalUnit, command: Command) -> Result<Action, Outcome> {
    match command {
        Command::Sanitize { action, immediate, unrestricted } => {
            sanitize(unit, action, immediate, unrestricted)
        }
        Command::FormatUnit { data: true, long_list } => {
            parameter_list(Purpose::Format { long_list }, work::format_header_bytes(long_list))
        }
        _ => Ok(format(unit, false)),
    }
}

/// SBC-3 §5.29.
fn sanitize(
    unit: &LogicalUnit,
    action: Sanitizing,
    immediate: bool,
    unrestricted: bool,
) -> Result<Action, Outcome> {
    match action {
        Sanitizing::ExitFailureMode => Ok(Action::Change(Change::ExitFailureMode)),
        Sanitizing::BlockErase => {
            let fill = Fill::Zeroes { deallocate: true };
            Ok(whole(WorkKind::Sanitize, immediate, unrestricted, fill))
        }
        Sanitizing::Overwrite(length) => {
            let length = work::overwrite_length(length, unit.geometry.block_length())?;
            parameter_list(Purpose::Overwrite { immediate, unrestricted }, length)
        }
    }
}

/// SBC-3 §5.2: the default initialization pattern is zeroes.
fn format(unit: &LogicalUnit, immediate: bool) -> Action {
    whole(WorkKind::Format, immediate, false, Fill::Zeroes { deallocate: unit.thin_provisioned })
}

fn whole(kind: WorkKind, immediate: bool, unrestricted: bool, fill: Fill) -> Action {
    Action::Change(Change::Work(Arc::new(Work { kind, immediate, unrestricted, fill })))
}

/// SPC-4 §6.11: SP saves what is, whether or not pages come along.
fn mode_select(long_header: bool, save: bool, length: usize) -> Result<Action, Outcome> {
    if save && length == 0 {
        return Ok(Action::Change(Change::ModeSelect(ModeChange { save, ..ModeChange::default() })));
    }
    parameter_list(Purpose::ModeSelect { long_header, save }, length)
}

fn persistent_reserve_out(
    service_action: u8,
    scope_type: ScopeType,
    parameter_list_length: u32,
) -> Result<Action, Outcome> {
    let purpose = Purpose::PersistentReserveOut { service_action, scope_type };
    match usize::try_from(parameter_list_length) {
        Ok(length @ persistent::out::BASIC_BYTES..=PARAMETER_BYTES_MAX) => {
            Ok(Action::Parameters(ParameterList { length, purpose }))
        }
        _ => Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)),
    }
}

fn parameter_list(purpose: Purpose, length: usize) -> Result<Action, Outcome> {
    match length {
        // SPC-4 §6.11, SBC-3 §5.35: no parameter list is no error, and changes nothing.
        0 => Ok(Action::Finish(Outcome::GOOD)),
        1..=PARAMETER_BYTES_MAX => Ok(Action::Parameters(ParameterList { length, purpose })),
        _ => Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)),
    }
}

/// SBC-3 §5.28, with LOEJ and START where they count. A unit that several initiators share is not stopped by one of
/// them: STOP writes the cache back and leaves the unit ready.
fn start_stop(
    unit: &LogicalUnit,
    immediate: bool,
    no_flush: bool,
    load_start: Option<(bool, bool)>,
) -> Result<Action, Outcome> {
    Ok(match load_start {
        Some((true, _)) if !unit.removable => return Err(Outcome::invalid_cdb_field(4, Some(1))),
        Some((true, true)) => Action::Change(Change::Load),
        Some((true, false)) => Action::Change(Change::Eject),
        Some((false, false)) if !no_flush => {
            block::flush_all(unit, immediate).map_or(Action::Finish(Outcome::GOOD), Action::Medium)
        }
        Some((false, _)) | None => Action::Finish(Outcome::GOOD),
    })
}

/// Judges the data-out that [`Action::Parameters`] asked for. `data` may be shorter than asked: an initiator can send
/// less than its CDB says.
pub fn parameters(unit: &LogicalUnit, list: ParameterList, data: &[u8]) -> Action {
    let data = &data[..data.len().min(list.length)];
    match list.purpose {
        Purpose::ModeSelect { long_header, save } => match mode::select(unit, long_header, save, data) {
            Ok(change) => Action::Change(Change::ModeSelect(change)),
            Err(outcome) => Action::Finish(outcome),
        },
        Purpose::PersistentReserveOut { service_action, scope_type } => {
            match persistent::out::read(service_action, scope_type, data) {
                Ok(out) => Action::Change(Change::PersistentReserve(Box::new(out))),
                Err(outcome) => Action::Finish(outcome),
            }
        }
        Purpose::ExtendedCopy { long } => match ExtendedCopy::read_either(data, long) {
            Ok(copy) => Action::Copy(copy),
            Err(outcome) => Action::Finish(outcome),
        },
        Purpose::PopulateToken { list_id } => match PopulateToken::read(unit, list_id, data) {
            Ok(populate) => Action::Populate(populate),
            Err(outcome) => Action::Finish(outcome),
        },
        Purpose::WriteUsingToken { list_id } => match WriteUsingToken::read(unit, list_id, data) {
            Ok(write) => Action::WriteUsingToken(write),
            Err(outcome) => Action::Finish(outcome),
        },
        Purpose::SetTargetPortGroups => match alua::wanted_states(data) {
            Ok(wanted) => Action::Change(Change::SetTargetPortGroups(wanted)),
            Err(outcome) => Action::Finish(outcome),
        },
        Purpose::Overwrite { immediate, unrestricted } => {
            match work::overwrite(data, unit.geometry.block_length()) {
                Ok(fill) => whole(WorkKind::Sanitize, immediate, unrestricted, fill),
                Err(outcome) => Action::Finish(outcome),
            }
        }
        Purpose::Format { long_list } => match work::format(data, long_list) {
            Ok(immediate) => format(unit, immediate),
            Err(outcome) => Action::Finish(outcome),
        },
        Purpose::Unmap => match block::unmap(unit, data) {
            Ok(Some(command)) => Action::Medium(command),
            Ok(None) => Action::Finish(Outcome::GOOD),
            Err(outcome) => Action::Finish(outcome),
        },
    }
}
