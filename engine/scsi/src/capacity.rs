//! READ CAPACITY (10) and (16) (SBC-3 §5.15, §5.16).

use crate::bits::saturate32;
use crate::reply::Reply;
use crate::unit::LogicalUnit;

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
    // LBPME and LBPRZ: what is given back reads as zeroes.
    reply.byte(if unit.thin_provisioned { 0xc0 } else { 0 });
    reply.byte(0); // the lowest aligned LBA is 0
    reply.zeros_to(32);
}
