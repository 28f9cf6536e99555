//! What answers where no logical unit is: at a LUN that the nexus's map does not have, and at the REPORT LUNS well known
//! logical unit (SPC-4 §6.6.2, §6.33, §6.39; SAM-5 §4.7.3, §5.11).
//!
//! REPORT LUNS is served at every LUN, so that an initiator finds the others even where LUN 0 is absent.

use crate::bits::{PERIPHERAL_ABSENT, PERIPHERAL_WELL_KNOWN, RESPONSE_DATA_FORMAT, VERSION_SPC4};
use crate::cdb::{self, Command};
use crate::device_server::{Action, Context};
use crate::lun::Lun;
use crate::opcodes::{self, Lookup};
use crate::reply::Reply;
use crate::report;
use crate::sense::{AdditionalSense, Outcome, Sense, SenseFormat, SenseKey};

/// Judges a CDB that was addressed to `lun`, where no unit is. `reply` as for
/// [`begin`](crate::device_server::begin). Never [`Action::Parameters`], [`Action::Medium`] or [`Action::Change`].
pub fn begin(lun: Lun, context: &Context<'_>, cdb: &[u8], reply: &mut [u8]) -> Action {
    match judge(lun == Lun::REPORT_LUNS, context, cdb, reply) {
        Ok(action) => action,
        Err(outcome) => Action::Finish(outcome),
    }
}

fn judge(well_known: bool, context: &Context<'_>, cdb: &[u8], buffer: &mut [u8]) -> Result<Action, Outcome> {
    let refusal = Outcome::illegal(if well_known {
        AdditionalSense::INVALID_OPERATION_CODE
    } else {
        AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED
    });
    let Lookup::Served(row) = opcodes::look_up(cdb) else {
        return Err(refusal);
    };
    let length = match cdb::decode(row, cdb) {
        Ok(Command::Inquiry { vital_product_data, allocation_length }) => {
            let mut reply = Reply::new(buffer, allocation_length);
            inquiry(well_known, vital_product_data, &mut reply)?;
            reply.finish()
        }
        Ok(Command::RequestSense { descriptor, allocation_length }) => {
            let sense = if well_known {
                Sense::new(SenseKey::NoSense, AdditionalSense::NONE)
            } else {
                Sense::new(SenseKey::IllegalRequest, AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED)
            };
            let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
            let mut reply = Reply::new(buffer, allocation_length);
            reply.bytes(sense.encode(format).as_bytes());
            reply.finish()
        }
        Ok(Command::ReportLuns { select, allocation_length }) => {
            let mut reply = Reply::new(buffer, allocation_length);
            report::luns(select, context.luns, &mut reply)?;
            reply.finish()
        }
        Ok(Command::TestUnitReady) if well_known => return Ok(Action::Finish(Outcome::GOOD)),
        // A wrong field in a command that is served here is told; of any other the absence of the unit is.
        Err(outcome) if row.needs == opcodes::Needs::Nothing && is_served_here(row.operation_code) => {
            return Err(outcome);
        }
        _ => return Err(refusal),
    };
    Ok(Action::Reply { length })
}

/// REQUEST SENSE, INQUIRY, REPORT LUNS.
fn is_served_here(operation_code: u8) -> bool {
    matches!(operation_code, 0x03 | 0x12 | 0xa0)
}

fn inquiry(well_known: bool, page: Option<u8>, reply: &mut Reply<'_>) -> Result<(), Outcome> {
    let peripheral = if well_known { PERIPHERAL_WELL_KNOWN } else { PERIPHERAL_ABSENT };
    match page {
        None => {
            reply.bytes(&[peripheral, 0, VERSION_SPC4, RESPONSE_DATA_FORMAT, 31, 0, 0, 0x02]);
            reply.bytes(b"PORTICO ");
            reply.bytes(if well_known { b"REPORT LUNS     " } else { b"NO LOGICAL UNIT " });
            reply.bytes(b"1   ");
        }
        Some(0x00) => reply.bytes(&[peripheral, 0x00, 0, 1, 0x00]),
        Some(_) => return Err(Outcome::invalid_cdb_field(2, None)),
    }
    Ok(())
}
