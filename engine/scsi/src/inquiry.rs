//! Standard INQUIRY data (SPC-4 §6.6.2), with SCST's version descriptors, so that a migrated disk reads the same.

use crate::bits::{RESPONSE_DATA_FORMAT, VERSION_SPC4};
use crate::device_server::Context;
use crate::opcodes;
use crate::reply::Reply;
use crate::unit::LogicalUnit;

/// SAM-4, iSCSI, SPC-4, SBC-3: the standards claimed (SPC-4 table 144).
const VERSION_DESCRIPTORS: [u16; 4] = [0x008b, 0x0960, 0x0463, 0x04c0];

/// EXTENDED COPY's operation code: 3PC is one when it is served.
const THIRD_PARTY_COPY_OUT: u8 = 0x83;

/// NORMACA: NACA is served.
const NORMAL_ACA: u8 = 0x20;

/// Vendor specific bytes up to this many lie at byte 36, more at byte 96.
const SHORT_VENDOR_SPECIFIC: usize = 20;

/// Standard INQUIRY data of a disk.
pub(crate) fn standard(unit: &LogicalUnit, context: &Context<'_>, reply: &mut Reply<'_>) {
    let identity = &unit.identity;
    let vendor_specific = identity.inquiry_vendor_specific.as_bytes();
    reply.byte(unit.peripheral(context.relative_target_port));
    reply.byte(if unit.removable { 0x80 } else { 0 });
    reply.byte(VERSION_SPC4);
    reply.byte(NORMAL_ACA | RESPONSE_DATA_FORMAT);
    reply.byte(0); // ADDITIONAL LENGTH, below
    let access = unit.target_port_groups.as_ref().map_or(0, |groups| groups.inquiry_bits());
    reply.byte(access | if opcodes::serves(THIRD_PARTY_COPY_OUT) { 0x08 } else { 0 });
    reply.byte(0x10); // MULTIP
    reply.byte(0x02); // CMDQUE
    reply.bytes(&identity.vendor.padded::<8>());
    reply.bytes(&identity.product.padded::<16>());
    reply.bytes(&identity.revision.padded::<4>());
    if vendor_specific.len() <= SHORT_VENDOR_SPECIFIC {
        reply.bytes(vendor_specific);
    }
    reply.zeros_to(58);
    VERSION_DESCRIPTORS.into_iter().for_each(|descriptor| reply.be16(descriptor));
    if vendor_specific.len() > SHORT_VENDOR_SPECIFIC {
        reply.zeros_to(96);
        reply.bytes(vendor_specific);
    }
    let additional = u8::try_from(reply.position() - 5).expect("96 bytes and at most 160 more, less five");
    reply.patch(4, &[additional]);
}

const _: () = assert!(96 + crate::identity::INQUIRY_VENDOR_SPECIFIC_MAX - 5 <= u8::MAX as usize);
