//! Mode parameters: headers, block descriptors and pages, for MODE SENSE and MODE SELECT (SPC-4 §6.11, §6.13, §7.5; SBC-3
//! §6.5).
//!
//! Values are saved with the unit's ledger (`Original`), all of them at once, as SPC-4 §6.11 has it.
//!
//! A page is a template of bytes with its values laid over it; the mask of changeable bits is the same template with all
//! ones laid over nothing. MODE SELECT compares what came with what is, so a bit that is not in the mask cannot change.

use crate::bits::{be, be16, saturate32};
use crate::cdb::{ModeSense, PageControl};
use crate::reply::Reply;
use crate::sense::{AdditionalSense, Outcome, Sense};
use crate::space::threshold_count;
use crate::unit::{ControlValues, Geometry, LogicalUnit, ModeChange, ModeValues, QueueError, WriteCache};
use crate::vpd::rotation_rate;

/// A mode page in page_0 format: code, length and parameters.
#[derive(Clone, Copy)]
struct Page {
    code: u8,
    bytes: [u8; PAGE_BYTES_MAX],
    length: usize,
}

const PAGE_BYTES_MAX: usize = 24;

/// Page codes in ascending order, as 3Fh returns them.
const PAGES: [u8; 7] = [
    READ_WRITE_RECOVERY,
    DISCONNECT_RECONNECT,
    FORMAT_DEVICE,
    RIGID_DISK_GEOMETRY,
    CACHING,
    CONTROL,
    INFORMATIONAL_EXCEPTIONS,
];
const READ_WRITE_RECOVERY: u8 = 0x01;
const DISCONNECT_RECONNECT: u8 = 0x02;
const FORMAT_DEVICE: u8 = 0x03;
const RIGID_DISK_GEOMETRY: u8 = 0x04;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x1c;
/// SUBPAGE CODE of Logical Block Provisioning, of page 1Ch.
const PROVISIONING: u8 = 0x02;
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// SPF: sub_page format.
const SUBPAGE_FORMAT: u8 = 0x40;
/// LBPERE: nexuses are told of thresholds.
const REPORT_THRESHOLDS: u8 = 0x80;
/// PS: the page's values can be saved.
const SAVEABLE: u8 = 0x80;
const WCE: u8 = 0x04;
const D_SENSE: u8 = 0x04;
const SWP: u8 = 0x08;
/// QERR, two bits.
const QERR_AT: u8 = 1;
const QERR: u8 = 0b11 << QERR_AT;
const TAS: u8 = 0x40;
const WRITE_PROTECT: u8 = 0x80;
const DPOFUA: u8 = 0x10;

impl Page {
    /// The page with all that never changes.
    fn template(code: u8, unit: &LogicalUnit) -> Self {
        let mut bytes = [0; PAGE_BYTES_MAX];
        let length = match code {
            // AWRE and ARRE: the medium below relocates by itself.
            READ_WRITE_RECOVERY => {
                bytes[2] = 0xc0;
                bytes[7] = if unit.space.is_some() { REPORT_THRESHOLDS } else { 0 };
                12
            }
            DISCONNECT_RECONNECT => 16,
            FORMAT_DEVICE => format_device(unit, &mut bytes),
            RIGID_DISK_GEOMETRY => rigid_disk_geometry(unit, &mut bytes),
            CACHING => 20,
            CONTROL => {
                bytes[2] = 0x20; // TST 001b: one task set per I_T nexus
                bytes[3] = 0x10; // QUEUE ALGORITHM MODIFIER 1h: unrestricted reordering
                12
            }
            INFORMATIONAL_EXCEPTIONS => {
                bytes[2] = 0x08; // DEXCPT: no informational exceptions
                12
            }
            other => unreachable!("mode page {other:#04x} is not in PAGES"),
        };
        bytes[0] = if matches!(code, CACHING | CONTROL) { SAVEABLE | code } else { code };
        bytes[1] = u8::try_from(length - 2).expect("pages are short");
        Self { code, bytes, length }
    }

    fn with_values(code: u8, unit: &LogicalUnit, values: &ModeValues) -> Self {
        let mut page = Self::template(code, unit);
        match code {
            CACHING if values.write_cache.enabled() => page.bytes[2] |= WCE,
            CONTROL => {
                page.bytes[2] |= if values.descriptor_sense { D_SENSE } else { 0 };
                page.bytes[3] |= values.queue_error.code() << QERR_AT;
                page.bytes[4] |= if values.software_write_protect { SWP } else { 0 };
                page.bytes[5] |= if values.task_aborted_status { TAS } else { 0 };
            }
            _ => {}
        }
        page
    }

    /// Ones where MODE SELECT may change a bit. A cache that an administrator vouches for stays as it is.
    fn changeable(code: u8, unit: &LogicalUnit) -> Self {
        let mut page = Self::template(code, unit);
        page.bytes[2..].fill(0);
        match code {
            CACHING if unit.mode.write_cache != WriteCache::NonVolatile => page.bytes[2] = WCE,
            CONTROL => {
                page.bytes[2] = D_SENSE;
                page.bytes[3] = QERR;
                page.bytes[4] = SWP;
                page.bytes[5] = TAS;
            }
            _ => {}
        }
        page
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Tracks and cylinders of a disk that has none: those that SCST tells, for initiators that still ask.
const SECTORS_PER_TRACK: u16 = 56;
const HEADS: u8 = 255;

/// SCSI-2 §9.3.3.3 (obsolete since SBC-2); the length.
fn format_device(unit: &LogicalUnit, bytes: &mut [u8; PAGE_BYTES_MAX]) -> usize {
    const HARD_SECTORS: u8 = 0x40;
    const REMOVABLE: u8 = 0x20;
    bytes[10..12].copy_from_slice(&SECTORS_PER_TRACK.to_be_bytes());
    // Blocks of 64 KiB do not fit the field.
    let block_length = u16::try_from(unit.geometry.block_length()).unwrap_or(0);
    bytes[12..14].copy_from_slice(&block_length.to_be_bytes());
    bytes[20] = HARD_SECTORS | if unit.removable { REMOVABLE } else { 0 };
    24
}

/// SCSI-2 §9.3.3.7 (obsolete since SBC-3); the length.
fn rigid_disk_geometry(unit: &LogicalUnit, bytes: &mut [u8; PAGE_BYTES_MAX]) -> usize {
    const CYLINDERS_MAX: u32 = 0xff_ffff;
    let per_cylinder = u64::from(HEADS) * u64::from(SECTORS_PER_TRACK);
    let cylinders = saturate32(unit.geometry.blocks() / per_cylinder).min(CYLINDERS_MAX);
    bytes[2..5].copy_from_slice(&cylinders.to_be_bytes()[1..]);
    bytes[5] = HEADS;
    bytes[20..22].copy_from_slice(&rotation_rate(unit).to_be_bytes());
    24
}

/// MODE SENSE.
///
/// # Errors
/// INVALID FIELD IN CDB for a page that is not there.
pub(crate) fn sense(
    unit: &LogicalUnit,
    read_only: bool,
    request: &ModeSense,
    reply: &mut Reply<'_>,
) -> Result<(), Outcome> {
    let all = request.page == ALL_PAGES;
    if !all && !PAGES.contains(&request.page) {
        return Err(Outcome::invalid_cdb_field(2, Some(5)));
    }
    // 00h is the page, FFh is the page and all its subpages.
    let provisioning = provisioning(unit).filter(|_| all || request.page == INFORMATIONAL_EXCEPTIONS);
    let (page_0, provisioning) = match request.subpage {
        0 => (true, None),
        ALL_SUBPAGES => (true, provisioning),
        PROVISIONING if !all && provisioning.is_some() => (false, provisioning),
        _ => return Err(Outcome::invalid_cdb_field(3, None)),
    };
    header(unit, read_only, request, reply);
    for code in PAGES.into_iter().filter(|code| page_0 && (all || *code == request.page)) {
        let page = match request.control {
            PageControl::Changeable => Page::changeable(code, unit),
            PageControl::Default => Page::with_values(code, unit, &unit.mode_default),
            PageControl::Saved => Page::with_values(code, unit, &unit.mode_saved),
            PageControl::Current => Page::with_values(code, unit, &unit.mode),
        };
        reply.bytes(page.as_bytes());
    }
    if let Some(page) = provisioning {
        match request.control {
            PageControl::Changeable => {
                reply.bytes(&page[..4]);
                reply.zeros_to(reply.position() + page.len() - 4);
            }
            _ => reply.bytes(&page),
        }
    }
    if request.long_header {
        reply.length16(0);
    } else {
        let length =
            u8::try_from(reply.position() - 1).expect("all pages and a short descriptor fit a byte's count");
        reply.patch(0, &[length]);
    }
    Ok(())
}

const _: () = assert!(4 + 8 + PAGES.len() * PAGE_BYTES_MAX + PROVISIONING_BYTES <= u8::MAX as usize);

/// Logical Block Provisioning (SBC-3 §6.5.9), last of all pages: where the pool's state is known, one soft threshold of the
/// available resources, armed decreasing, of which every nexus is told (SITUA zero). It never changes.
fn provisioning(unit: &LogicalUnit) -> Option<[u8; PROVISIONING_BYTES]> {
    const ENABLED: u8 = 0x80;
    const AVAILABLE: u8 = 0x01;
    unit.space?;
    let mut page = [0; PROVISIONING_BYTES];
    page[..4].copy_from_slice(&[SUBPAGE_FORMAT | INFORMATIONAL_EXCEPTIONS, PROVISIONING, 0, 20]);
    page[16..18].copy_from_slice(&[ENABLED, AVAILABLE]);
    page[20..].copy_from_slice(&threshold_count(&unit.geometry).to_be_bytes());
    Some(page)
}

const PROVISIONING_BYTES: usize = 24;

/// Mode parameter header (SPC-4 §7.5.4) and block descriptor (SBC-3 §6.5.2).
fn header(unit: &LogicalUnit, read_only: bool, request: &ModeSense, reply: &mut Reply<'_>) {
    let protected = read_only || unit.write_protection().is_some();
    let device_specific = DPOFUA | if protected { WRITE_PROTECT } else { 0 };
    let long = request.long_lba_accepted;
    let descriptor: u8 = match (request.disable_block_descriptors, long) {
        (true, _) => 0,
        (false, false) => 8,
        (false, true) => 16,
    };
    if request.long_header {
        reply.be16(0);
        reply.bytes(&[0, device_specific, u8::from(descriptor == 16), 0, 0, descriptor]);
    } else {
        reply.bytes(&[0, 0, device_specific, descriptor]);
    }
    match descriptor {
        8 => {
            reply.be32(saturate32(unit.geometry.blocks()));
            reply.be32(unit.geometry.block_length());
        }
        16 => {
            reply.be64(unit.geometry.blocks());
            reply.be32(0);
            reply.be32(unit.geometry.block_length());
        }
        _ => {}
    }
}

/// MODE SELECT: what it changes.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a list that breaks off, INVALID FIELD IN PARAMETER LIST for what cannot be changed.
pub(crate) fn select(
    unit: &LogicalUnit,
    long_header: bool,
    save: bool,
    list: &[u8],
) -> Result<ModeChange, Outcome> {
    let broken_off = Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let header_length = if long_header { 8 } else { 4 };
    let header = list.get(..header_length).ok_or(broken_off)?;
    // MODE DATA LENGTH and the device-specific parameter count for nothing here: initiators send back what they read.
    let medium_type_at = if long_header { 2 } else { 1 };
    if header[medium_type_at] != 0 {
        return Err(Outcome::check(Sense::invalid_parameter(
            medium_type_at.try_into().expect("a small index"),
            None,
        )));
    }
    let long_lba = long_header && header[4] & 0x01 != 0;
    let descriptor_length = usize::from(if long_header { be16(header, 6) } else { u16::from(header[3]) });
    let pages_at = header_length + descriptor_length;
    let descriptor = list.get(header_length..pages_at).ok_or(broken_off)?;
    block_descriptor(&unit.geometry, long_lba, descriptor, header_length)?;
    let mut change = ModeChange { save, ..ModeChange::default() };
    let mut at = pages_at;
    while at < list.len() {
        at += page(unit, &mut change, &list[at..], at, broken_off)?;
    }
    Ok(change)
}

/// A block descriptor may repeat what is: this device server changes neither the size nor the length of blocks.
fn block_descriptor(geometry: &Geometry, long: bool, descriptor: &[u8], at: usize) -> Result<(), Outcome> {
    let refuse = |offset: usize| Err(Outcome::check(Sense::invalid_parameter(position(at + offset), None)));
    let (blocks, unlimited, length, length_at) = match (descriptor.len(), long) {
        (0, _) => return Ok(()),
        (8, false) => (be::<4>(descriptor, 0), u64::from(u32::MAX), be::<3>(descriptor, 5), 5),
        (16, true) => (be::<8>(descriptor, 0), u64::MAX, be::<4>(descriptor, 12), 12),
        _ => return Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)),
    };
    if blocks != 0 && blocks != unlimited && blocks != geometry.blocks() {
        return refuse(0);
    }
    if length != u64::from(geometry.block_length()) {
        return refuse(length_at);
    }
    Ok(())
}

/// One page of a MODE SELECT list, at `at` in it: adds its values to `change` and returns its length.
fn page(
    unit: &LogicalUnit,
    change: &mut ModeChange,
    list: &[u8],
    at: usize,
    broken_off: Outcome,
) -> Result<usize, Outcome> {
    let refuse =
        |offset: usize, bit| Err(Outcome::check(Sense::invalid_parameter(position(at + offset), bit)));
    // PS is reserved in MODE SELECT and initiators leave it as they read it.
    let code = list[0] & 0x3f;
    if list[0] & SUBPAGE_FORMAT != 0 {
        let Some(current) = provisioning(unit).filter(|_| code == INFORMATIONAL_EXCEPTIONS) else {
            return refuse(0, Some(6));
        };
        let new = list.get(..current.len()).ok_or(broken_off)?;
        let wrong = current.iter().zip(new).skip(1).position(|(current, new)| current != new);
        return wrong.map_or(Ok(current.len()), |offset| refuse(offset + 1, None));
    }
    if !PAGES.contains(&code) {
        return refuse(0, Some(5));
    }
    let current = Page::with_values(code, unit, &unit.mode);
    let mask = Page::changeable(code, unit);
    let &length = list.get(1).ok_or(broken_off)?;
    if length != current.bytes[1] {
        return refuse(1, None);
    }
    let new = list.get(..current.length).ok_or(broken_off)?;
    for (offset, byte) in new.iter().enumerate().skip(2) {
        let wrong = (byte ^ current.bytes[offset]) & !mask.bytes[offset];
        if wrong != 0 {
            return refuse(offset, Some(u8::try_from(wrong.ilog2()).expect("a bit of a byte")));
        }
    }
    match current.code {
        CACHING if unit.mode.write_cache != WriteCache::NonVolatile => {
            let write_back = new[2] & WCE != 0;
            change.write_cache =
                Some(if write_back { WriteCache::WriteBack } else { WriteCache::WriteThrough });
        }
        CONTROL => {
            let Some(queue_error) = QueueError::from_code((new[3] & QERR) >> QERR_AT) else {
                return refuse(3, Some(QERR_AT + 1));
            };
            change.control = Some(ControlValues {
                descriptor_sense: new[2] & D_SENSE != 0,
                software_write_protect: new[4] & SWP != 0,
                queue_error,
                task_aborted_status: new[5] & TAS != 0,
            });
        }
        _ => {}
    }
    Ok(current.length)
}

fn position(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}
