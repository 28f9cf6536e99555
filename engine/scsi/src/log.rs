//! LOG SENSE (SPC-4 §6.8, §7.3): the log pages, none of which keeps anything that LOG SELECT could reset or save.
//!
//! Error counters are not among them: what the medium below corrects is not known here.

use crate::cdb::LogSense;
use crate::reply::Reply;
use crate::sense::Outcome;
use crate::space::Space;
use crate::unit::LogicalUnit;

type Writer = fn(&LogicalUnit, u16, &mut Reply<'_>);

struct Page {
    code: u8,
    /// Whether a unit has it.
    present: fn(&LogicalUnit) -> bool,
    /// The highest PARAMETER CODE.
    last: u16,
    /// Writes the parameters from a PARAMETER POINTER on.
    write: Writer,
}

/// Pages in ascending order.
const PAGES: [Page; 3] = [
    Page { code: 0x00, present: |_| true, last: 0, write: supported_pages },
    Page { code: 0x0c, present: |unit| unit.space.is_some(), last: USED, write: logical_block_provisioning },
    Page { code: 0x2f, present: |_| true, last: 0, write: informational_exceptions },
];

/// PARAMETER CODEs of page 0C.
const AVAILABLE: u16 = 1;
const USED: u16 = 2;

fn pages(unit: &LogicalUnit) -> impl Iterator<Item = &'static Page> {
    PAGES.iter().filter(|page| (page.present)(unit))
}

const ALL_SUBPAGES: u8 = 0xff;
/// SPF.
const SUBPAGE_FORMAT: u8 = 0x40;
/// DS: what the page has is never saved.
const DISABLE_SAVE: u8 = 0x80;
/// FORMAT AND LINKING 11b: a binary list, which is never reset.
const BINARY_LIST: u8 = 0x03;

/// LOG SENSE. All parameters are lists, which PC has no bearing on.
///
/// # Errors
/// INVALID FIELD IN CDB for a page or parameter that is not there (SPC-4 §6.8).
pub(crate) fn sense(unit: &LogicalUnit, request: &LogSense, reply: &mut Reply<'_>) -> Result<(), Outcome> {
    let page = pages(unit).find(|page| page.code == request.page);
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
        reply.bytes(&[0, 0, 0, ALL_SUBPAGES]);
        pages(unit).skip(1).for_each(|page| reply.bytes(&[page.code, 0]));
    } else {
        let save = if page.code == 0 { 0 } else { DISABLE_SAVE };
        reply.bytes(&[save | page.code, 0, 0, 0]);
        (page.write)(unit, request.pointer, reply);
    }
    reply.length16(2);
    Ok(())
}

fn supported_pages(unit: &LogicalUnit, _: u16, reply: &mut Reply<'_>) {
    pages(unit).for_each(|page| reply.byte(page.code));
}

/// SBC-3 §6.4.4: available and used resources, in threshold sets.
fn logical_block_provisioning(unit: &LogicalUnit, pointer: u16, reply: &mut Reply<'_>) {
    /// SCOPE: the pool may have other users.
    const SHARED: u8 = 2;
    /// SCOPE: they are the unit's own.
    const DEDICATED: u8 = 1;
    type Count = fn(&Space, &crate::unit::Geometry) -> u32;
    let counts: [(u16, Count, u8); 2] =
        [(AVAILABLE, Space::available_sets, SHARED), (USED, Space::used_sets, DEDICATED)];
    let Some(space) = &unit.space else { return };
    for (code, count, scope) in counts.into_iter().filter(|(code, ..)| *code >= pointer) {
        reply.be16(code);
        reply.bytes(&[BINARY_LIST, 8]);
        reply.be32(count(space, &unit.geometry));
        reply.bytes(&[scope, 0, 0, 0]);
    }
}

/// SPC-4 §7.3.8: DEXCPT of the mode page is one, so there never is an exception; no temperature is known.
fn informational_exceptions(_: &LogicalUnit, _: u16, reply: &mut Reply<'_>) {
    const NO_TEMPERATURE: u8 = 0xff;
    reply.bytes(&[0, 0, BINARY_LIST, 4, 0, 0, NO_TEMPERATURE, 0]);
}
