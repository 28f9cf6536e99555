//! READ CAPACITY (10) and (16) (SBC-3 §5.15, §5.16).

use crate::bits::saturate32;
use crate::opcodes;
use crate::reply::Reply;
use crate::unit::LogicalUnit;

/// UNMAP's operation code: a thin unit says so only when it can be told to give space back (SBC-3 §4.7.3.1).
const UNMAP: u8 = 0x42;

/// Whether logical block provisioning management is implemented for this unit (LBPME).
pub(crate) fn provisioning_managed(unit: &LogicalUnit) -> bool {
    unit.thin_provisioned && opcodes::serves(UNMAP)
}

/// Eight bytes; a last LBA beyond 32 bits is all ones, which sends the initiator to READ CAPACITY (16).
pub(crate) fn read_capacity_10(unit: &LogicalUnit, reply: &mut Reply<'_>) {
    reply.be32(saturate32(unit.geometry.blocks() - 1));
    reply.be32(unit.geometry.block_length());
}

/// Thirty-two bytes.
pub(crate) fn read_capacity_16(unit: &LogicalUnit, reply: &mut Reply<'_>) {
    reply.be64(unit.geometry.blocks() - 1);
    reply.be32(unit.geometry.block_length());
    reply.byte(0); // no protection information
    reply.byte(unit.geometry.physical_block_exponent());
    reply.byte(if provisioning_managed(unit) { 0x80 } else { 0 });
    reply.byte(0); // the lowest aligned LBA is 0
    reply.zeros_to(32);
}
