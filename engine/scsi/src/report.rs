//! REPORT LUNS, REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 §6.33, §6.35,
//! §6.36); READ DEFECT DATA (SBC-3 §5.17, §5.18).

use crate::cdb::Reporting;
use crate::lun::Lun;
use crate::opcodes::{self, Opcode};
use crate::reply::{REPLY_BYTES_MAX, Reply};
use crate::sense::Outcome;
use crate::unit::LogicalUnit;

/// Most logical units that one nexus can see: what REPORT LUNS lists fits 64 KiB.
pub const LUNS_MAX: usize = 4096;

/// Bytes of a REPORT LUNS list of `luns` units, the well known one included.
pub(crate) const fn luns_bytes(luns: usize) -> usize {
    8 + 8 * (luns + 1)
}

const _: () = assert!(luns_bytes(LUNS_MAX) <= 64 * 1024);

/// REPORT LUNS of those that the nexus may see (SPC-4 table 254).
///
/// # Errors
/// INVALID FIELD IN CDB for a SELECT REPORT that is not served.
pub(crate) fn luns(select: u8, luns: &[Lun], reply: &mut Reply<'_>) -> Result<(), Outcome> {
    let (units, well_known): (&[Lun], &[Lun]) = match select {
        0x00 => (luns, &[]),
        0x01 => (&[], &[Lun::REPORT_LUNS]),
        0x02 => (luns, &[Lun::REPORT_LUNS]),
        _ => return Err(Outcome::invalid_cdb_field(2, None)),
    };
    assert!(luns.len() <= LUNS_MAX, "a LUN map of {} units", luns.len());
    let length = u32::try_from(8 * (units.len() + well_known.len())).expect("bounded by LUNS_MAX");
    reply.be32(length);
    reply.be32(0);
    units.iter().chain(well_known).for_each(|lun| reply.bytes(&lun.to_bytes()));
    Ok(())
}

/// A command timeouts descriptor with no timeout reported (SPC-4 §6.35.4).
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SERVICE_ACTION_VALID: u8 = 0x01;
const TIMEOUTS_PRESENT: u8 = 0x02;
const ONE_TIMEOUTS_PRESENT: u8 = 0x80;
const SUPPORTED: u8 = 0x03;
const NOT_SUPPORTED: u8 = 0x01;

/// REPORT SUPPORTED OPERATION CODES.
///
/// # Errors
/// INVALID FIELD IN CDB when the reporting option does not fit the operation code (SPC-4 table 256).
pub(crate) fn operation_codes(
    unit: &LogicalUnit,
    reporting: Reporting,
    timeouts: bool,
    operation_code: u8,
    service_action: u16,
    reply: &mut Reply<'_>,
) -> Result<(), Outcome> {
    let rows = || opcodes::rows(operation_code).iter().filter(|row| row.is_served_by(unit));
    let is_served = rows().next().is_some();
    let has_service_actions = rows().any(|row| row.service_action.is_some());
    let with = |action| rows().find(|row| row.service_action == Some(action));
    let found = match reporting {
        Reporting::All => {
            all_commands(unit, timeouts, reply);
            return Ok(());
        }
        // The option and the operation code do not go together: point at REPORTING OPTIONS.
        Reporting::OperationCode if has_service_actions => {
            return Err(Outcome::invalid_cdb_field(2, Some(2)));
        }
        Reporting::ServiceAction if is_served && !has_service_actions => {
            return Err(Outcome::invalid_cdb_field(2, Some(2)));
        }
        Reporting::OperationCode => rows().next(),
        Reporting::ServiceAction => with(service_action),
        Reporting::Either if has_service_actions => with(service_action),
        Reporting::Either => rows().next().filter(|_| service_action == 0),
    };
    one_command(found, timeouts, reply);
    Ok(())
}

fn all_commands(unit: &LogicalUnit, timeouts: bool, reply: &mut Reply<'_>) {
    reply.be32(0);
    for row in opcodes::TABLE.iter().filter(|row| row.is_served_by(unit)) {
        let valid = if row.service_action.is_some() { SERVICE_ACTION_VALID } else { 0 };
        reply.bytes(&[row.operation_code, 0]);
        reply.be16(row.service_action.unwrap_or(0));
        reply.bytes(&[0, valid | if timeouts { TIMEOUTS_PRESENT } else { 0 }]);
        reply.be16(cdb_length(row));
        if timeouts {
            reply.bytes(&TIMEOUTS);
        }
    }
    let length = u32::try_from(reply.position() - 4).expect("the table is bounded");
    reply.patch(0, &length.to_be_bytes());
}

const _: () = assert!(4 + opcodes::TABLE.len() * (8 + TIMEOUTS.len()) <= REPLY_BYTES_MAX);

fn one_command(row: Option<&Opcode>, timeouts: bool, reply: &mut Reply<'_>) {
    let Some(row) = row else {
        reply.bytes(&[0, NOT_SUPPORTED, 0, 0]);
        return;
    };
    reply.bytes(&[0, SUPPORTED | if timeouts { ONE_TIMEOUTS_PRESENT } else { 0 }]);
    reply.be16(cdb_length(row));
    reply.bytes(row.usage);
    if timeouts {
        reply.bytes(&TIMEOUTS);
    }
}

fn cdb_length(row: &Opcode) -> u16 {
    u16::try_from(row.usage.len()).expect("a CDB has at most 260 bytes")
}

/// ABORT TASK, ABORT TASK SET, CLEAR ACA, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET (SPC-4 table 263).
const TASK_MANAGEMENT: u8 = 0x80 | 0x40 | 0x20 | 0x10 | 0x08 | 0x02;

/// QUERY TASK, in the same byte.
const QUERY_TASK: u8 = 0x04;
/// QUERY ASYNCHRONOUS EVENT, QUERY TASK SET, I_T NEXUS RESET: in the byte after it.
const QUERIES: u8 = 0x04 | 0x02 | 0x01;

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: what can be asked for by this path.
pub(crate) fn task_management_functions(queries: bool, extended: bool, reply: &mut Reply<'_>) {
    match queries {
        true => reply.bytes(&[TASK_MANAGEMENT | QUERY_TASK, QUERIES, 0, 0]),
        false => reply.bytes(&[TASK_MANAGEMENT, 0, 0, 0]),
    }
    if extended {
        // REPORT SUPPORTED TMFS DATA LENGTH counts what follows; no timeouts are reported.
        reply.patch(3, &[0x0c]);
        reply.zeros_to(16);
    }
}

/// READ DEFECT DATA: the lists that were asked for, in the format that was asked for. Both are empty, for the medium below
/// keeps its defects to itself.
pub(crate) fn defects(long_header: bool, lists: u8, reply: &mut Reply<'_>) {
    reply.bytes(&[0, lists]);
    reply.zeros_to(if long_header { 8 } else { 4 });
}
