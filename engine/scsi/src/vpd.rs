//! Vital product data pages (SPC-4 §7.8, SBC-3 §6.6).
//!
//! Each page has one writer, and [`PAGES`] is the list that page 00 shows and by which a page is found.

use crate::block;
use crate::copy;
use crate::device_server::Context;
use crate::ledger::TargetPort;
use crate::reply::Reply;
use crate::space;
use crate::unit::{AtomicWrites, LogicalUnit};

type Writer = fn(&LogicalUnit, &Context<'_>, &mut Reply<'_>);

/// Page code and writer, in ascending order as page 00 must have them.
const PAGES: [(u8, Writer); 12] = [
    (0x00, supported_pages),
    (0x80, serial_number),
    (0x83, device_identification),
    (0x85, management_network_addresses),
    (0x86, extended_inquiry),
    (0x87, mode_page_policy),
    (0x88, scsi_ports),
    (0x8f, third_party_copy),
    (0xb0, block_limits),
    (0xb1, block_device_characteristics),
    (0xb2, logical_block_provisioning),
    (0xb3, referrals),
];

/// Writes the page, or says that there is none of this code.
pub(crate) fn page(code: u8, unit: &LogicalUnit, context: &Context<'_>, reply: &mut Reply<'_>) -> bool {
    let Some((_, write)) = PAGES.iter().find(|(page, _)| *page == code) else {
        return false;
    };
    reply.byte(unit.peripheral(context.relative_target_port));
    reply.byte(code);
    reply.be16(0);
    write(unit, context, reply);
    reply.length16(2);
    true
}

fn supported_pages(_: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    PAGES.iter().for_each(|(code, _)| reply.byte(*code));
}

fn serial_number(unit: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    reply.bytes(unit.identity.serial_number.as_bytes());
}

/// CODE SET and ASSOCIATION | DESIGNATOR TYPE (SPC-4 table 589 and following).
const BINARY: u8 = 0x01;
const ASCII: u8 = 0x02;
const UTF8: u8 = 0x03;
const UNIT_T10: u8 = 0x01;
const UNIT_EUI64: u8 = 0x02;
const UNIT_NAA: u8 = 0x03;
const PORT_RELATIVE: u8 = 0x14;
const PORT_GROUP: u8 = 0x15;
const TARGET_NAME: u8 = 0x28;
/// The same of a target port, with PIV one.
const PORT_NAME: u8 = 0x98;
/// PROTOCOL IDENTIFIER 5h, iSCSI, above the code set.
const ISCSI: u8 = 0x50;

/// SCST's designators in SCST's order, and no others: a host that migrates must find the disk it knows. On every path the
/// same are the T10 designator and EUI-64 or NAA, by which multipath, VMware and Windows know that two paths lead to one
/// disk; the relative port identifier tells the paths apart. The name of the port, which SCST leaves out, is in page 88.
fn device_identification(unit: &LogicalUnit, context: &Context<'_>, reply: &mut Reply<'_>) {
    let identity = &unit.identity;
    let name = identity.scsi_device_name.as_bytes();
    if !name.is_empty() {
        designator(reply, UTF8, TARGET_NAME, |reply| name_string(name, reply));
    }
    designator(reply, ASCII, UNIT_T10, |reply| {
        reply.bytes(&identity.vendor.padded::<8>());
        reply.bytes(identity.vendor_specific_id.as_bytes());
    });
    designator(reply, BINARY, PORT_RELATIVE, |reply| {
        reply.be16(0);
        reply.be16(context.relative_target_port);
    });
    let groups = unit.target_port_groups.as_ref();
    if let Some(group) = groups.and_then(|groups| groups.group_of(context.relative_target_port)) {
        designator(reply, BINARY, PORT_GROUP, |reply| {
            reply.be16(0);
            reply.be16(group.id);
        });
    }
    if let Some(eui64) = identity.eui64 {
        designator(reply, BINARY, UNIT_EUI64, |reply| reply.bytes(eui64.as_bytes()));
    }
    if let Some(naa) = identity.naa {
        designator(reply, BINARY, UNIT_NAA, |reply| reply.bytes(naa.as_bytes()));
    }
}

/// NUL-terminated and padded to a multiple of four (SPC-4 §7.8.6.11): one to four zeros.
fn name_string(name: &[u8], reply: &mut Reply<'_>) {
    reply.bytes(name);
    reply.bytes(&[0; 4][name.len() % 4..]);
}

fn designator(reply: &mut Reply<'_>, code_set: u8, kind: u8, write: impl FnOnce(&mut Reply<'_>)) {
    reply.bytes(&[code_set, kind, 0, 0]);
    let start = reply.position();
    write(reply);
    let length = u8::try_from(reply.position() - start).expect("names are shorter than a designator may be");
    reply.patch(start - 1, &[length]);
}

const _: () = assert!(8 + crate::identity::LONG_NAME_MAX <= u8::MAX as usize);

/// SPC-4 §7.8.8. Administration is on no network: the list is empty.
fn management_network_addresses(_: &LogicalUnit, _: &Context<'_>, _: &mut Reply<'_>) {}

/// SPC-4 §7.8.9: all pages and subpages are shared by all nexuses, of this logical unit alone.
fn mode_page_policy(_: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    reply.bytes(&[0x3f, 0xff, 0, 0]);
}

/// Target ports that page 88 names: its length has 16 bits.
const PORTS_MAX: usize = 240;
const PORT_BYTES_MAX: usize = 12 + 4 + u8::MAX as usize;
const _: () = assert!(PORTS_MAX * PORT_BYTES_MAX <= u16::MAX as usize);

/// How long page 88 can be.
pub(crate) fn ports_bytes(ports: &[TargetPort]) -> usize {
    4 + ports.len().min(PORTS_MAX) * PORT_BYTES_MAX
}

/// SPC-4 §7.8.14: the ports of this SCSI device. That is the iSCSI target (RFC 7143 §4.4.1), which has one for each portal
/// group; another target with the same unit is another device, of which an initiator may know nothing.
fn scsi_ports(_: &LogicalUnit, context: &Context<'_>, reply: &mut Reply<'_>) {
    for port in context.target_ports.iter().take(PORTS_MAX) {
        reply.be16(0);
        reply.be16(port.relative_id);
        reply.be32(0); // it is no initiator port
        reply.be16(0);
        let length_at = reply.position();
        reply.be16(0);
        designator(reply, ISCSI | UTF8, PORT_NAME, |reply| name_string(port.name.as_bytes(), reply));
        reply.length16(length_at);
    }
}

/// SBC-3 §6.6. R_SUP is zero: there are no referrals, and so no user data segments.
fn referrals(_: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    reply.zeros_to(16);
}

/// SPC-4 §7.8.7.
fn extended_inquiry(unit: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    reply.byte(0); // no protection information
    reply.byte(0x07); // HEADSUP, ORDSUP, SIMPSUP
    reply.byte(u8::from(unit.mode.write_cache.enabled())); // V_SUP
    reply.zeros_to(64);
}

/// Optimal transfers begin and end at multiples of this many bytes.
const GRANULARITY_BYTES: u32 = 4096;

/// The UNMAP GRANULARITY ALIGNMENT field counts: from block 0.
const UGAVALID: u32 = 1 << 31;

fn third_party_copy(unit: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    copy::third_party_copy(reply, unit.geometry.block_length().into());
}

/// SBC-3 §6.6. Limits of commands that are not served are zero, "not reported".
fn block_limits(unit: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    let geometry = &unit.geometry;
    let granularity =
        (GRANULARITY_BYTES / geometry.block_length()).max(1 << geometry.physical_block_exponent());
    // WSNZ is zero: WRITE SAME of zero blocks goes to the end.
    reply.bytes(&[0, block::compare_and_write_blocks_max(geometry)]);
    reply.be16(u16::try_from(granularity).expect("at most 2^15 blocks"));
    reply.be32(geometry.transfer_blocks_max());
    reply.be32(geometry.optimal_transfer_blocks());
    reply.be32(0); // MAXIMUM PREFETCH LENGTH: any
    if unit.thin_provisioned {
        reply.be32(block::UNMAP_BLOCKS_MAX);
        reply.be32(block::UNMAP_DESCRIPTORS_MAX);
        reply.be32(granularity);
        reply.be32(UGAVALID);
    }
    reply.zeros_to(36);
    reply.be64(block::write_same_blocks_max(geometry));
    // MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT, ATOMIC TRANSFER LENGTH GRANULARITY; no boundaries.
    match unit.atomic_writes {
        AtomicWrites::None => {}
        AtomicWrites::Any => {
            let granularity =
                Some(block::atomic_granularity(geometry)).filter(|blocks| *blocks > 1).unwrap_or(0);
            reply.be32(block::atomic_blocks_max(geometry));
            reply.be32(granularity);
            reply.be32(granularity);
        }
        AtomicWrites::Whole(blocks) => (0..3).for_each(|_| reply.be32(blocks.get())),
    }
    reply.zeros_to(64);
}

/// MEDIUM ROTATION RATE (SBC-3 §6.6): 15,000 revolutions a minute, or 1 for a medium that does not rotate.
pub(crate) fn rotation_rate(unit: &LogicalUnit) -> u16 {
    if unit.rotational { 15_000 } else { 1 }
}

fn block_device_characteristics(unit: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    // WABEREQ 01b where there is a BLOCK ERASE: reads after it are read.
    let after_erase = if unit.thin_provisioned { 0x40 } else { 0 };
    reply.be16(rotation_rate(unit));
    reply.bytes(&[0, after_erase]);
    reply.zeros_to(64);
}

/// SBC-3 §6.6: PROVISIONING TYPE 2 for a thin unit.
fn logical_block_provisioning(unit: &LogicalUnit, _: &Context<'_>, reply: &mut Reply<'_>) {
    // LBPU, LBPWS, LBPWS10, LBPRZ. ANC_SUP is zero: GET LBA STATUS reads, and space that is kept reads like space that is not
    // (SBC-4 §4.7.4.7). A threshold where the pool's state is known, no provisioning group.
    let threshold = unit.space.map_or(0, |_| space::threshold_exponent(&unit.geometry));
    reply.bytes(&[threshold, if unit.thin_provisioned { 0xe4 } else { 0 }]);
    reply.byte(if unit.thin_provisioned { 0x02 } else { 0 });
    reply.byte(0);
}
