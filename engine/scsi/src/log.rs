//! LOG SENSE (SPC-4 §6.9, §7.3): the log pages, none of which keeps anything that LOG SELECT could reset or save.
//!
//! Error counters are not among them: what the medium below corrects is not known here.

use crate::cdb::LogSense;
use crate::reply::Reply;
use crate::sense::Outcome;
use crate::unit::LogicalUnit;

type Writer = fn(&LogicalUnit, u16, &mut Reply<'_>);

struct Page {
    code: u8,
    /// The highest PARAMETER CODE.
    last: u16,
    /// Writes the parameters from a PARAMETER POINTER on.
    write: Writer,
}

/// Pages in ascending order.
const PAGES: [Page; 2] = [
    Page { code: 0x00, last: 0, write: supported_pages },
    Page { code: 0x2f, last: 0, write: informational_exceptions },
];

const ALL_SUBPAGES: u8 = 0xff;
/// SPF.
const SUBPAGE_FORMAT: u8 = 0x40;
/// FORMAT AND LINKING 11b: a binary list, which is never reset.
const BINARY_LIST: u8 = 0x03;

/// LOG SENSE. All parameters are lists, which PC has no bearing on.
///
/// # Errors
/// INVALID FIELD IN CDB for a page or parameter that is not there (SPC-4 §6.9).
pub(crate) fn sense(unit: &LogicalUnit, request: &LogSense, reply: &mut Reply<'_>) -> Result<(), Outcome> {
    let page = PAGES.iter().find(|page| page.code == request.page);
    let page = page.ok_or(Outcome::invalid_cdb_field(2, Some(5)))?;
    let lists_subpages = request.subpage == ALL_SUBPAGES && page.code == 0;
    if request.subpage != 0 && !lists_subpages {
        return Err(Outcome::invalid_cdb_field(3, None));
    }
    if request.pointer > page.last {
        return Err(Outcome::invalid_cdb_field(5, None));
    }
    if lists_subpages {
        reply.bytes(&[SUBPAGE_FORMAT, ALL_SUBPAGES, 0, 0]);
        PAGES.iter().for_each(|page| reply.bytes(&[page.code, 0]));
        reply.bytes(&[0, ALL_SUBPAGES]);
    } else {
        reply.bytes(&[page.code, 0, 0, 0]);
        (page.write)(unit, request.pointer, reply);
    }
    reply.length16(2);
    Ok(())
}

fn supported_pages(_: &LogicalUnit, _: u16, reply: &mut Reply<'_>) {
    PAGES.iter().for_each(|page| reply.byte(page.code));
}

/// SPC-4 §7.3.8: DEXCPT of the mode page is one, so there never is an exception; no temperature is known.
fn informational_exceptions(_: &LogicalUnit, _: u16, reply: &mut Reply<'_>) {
    const NO_TEMPERATURE: u8 = 0xff;
    reply.bytes(&[0, 0, BINARY_LIST, 4, 0, 0, NO_TEMPERATURE, 0]);
}
