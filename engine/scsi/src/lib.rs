//! SAM-5, SPC-4 and SBC-3 for disks, without I/O: a device server as a function from a CDB and a replica of a logical unit
//! to what is to be done about it.
//!
//! Who calls whom: a shard looks its LUN map up and calls [`device_server::begin`] with the unit's replica, or
//! [`no_unit::begin`] where the map has none; it takes a [`block::MediumCommand`] to the medium (asking
//! [`unit::LogicalUnit::recheck`] before each piece) and sends an [`original::Change`] to the single writer, control,
//! which lets [`original`] make the next generation of the replica.
//!
//! How it was held against the texts: on 21 November 2026 what the code says of CDBs, sense data, INQUIRY and its pages, mode
//! pages, persistent reservations and target port groups was compared, sentence by sentence, with the chapters of SPC-4
//! revision 36f, whose section numbers are those cited, but that §5.15 and §5.16 are its §5.16 and §5.17; and with sg3_utils,
//! libiscsi and the Linux headers where these have the field. Of SBC-3 there was no text: layouts are those of SBC-4 and of the
//! same sources, and section numbers with SBC-3 beside them have not been seen printed.
//!
//! This crate never reads a clock, a socket or a file, takes no lock, and knows nothing of iSCSI: LUNs and CDBs come as
//! bytes. On the data path it does not allocate.

pub mod alua;
pub mod attention;
pub mod bits;
pub mod block;
pub mod cdb;
pub mod copy;
pub mod copy_results;
pub mod device_server;
pub mod identity;
pub mod ledger;
pub mod lun;
pub mod no_unit;
pub mod opcodes;
pub mod original;
pub mod persistent;
pub mod reply;
pub mod report;
pub mod reservation;
pub mod sense;
pub mod space;
pub mod token;
pub mod unit;
pub mod work;

mod capacity;
mod inquiry;
mod log;
mod mode;
mod vpd;

pub use bits::Status;
