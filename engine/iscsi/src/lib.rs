//! RFC 7143 (with 7144 and 5048) as values: bytes and time in, PDUs and verdicts out.
//!
//! This crate holds both ends of the protocol, the target's and (in `initiator`) the other one. It never opens a
//! socket, reads a clock, starts a thread, or owns a receive buffer; the caller does all four and hands in what it got.
//!
//! | module | holds | section of RFC 7143 |
//! |---|---|---|
//! | [`wire`] | one file per PDU family: the 48 bytes of the BHS as a plain struct, and the AHS | 11 |
//! | [`framing`] | how long a PDU is, from its BHS | 11.2 |
//! | [`digest`] | CRC32C of headers and data | 13.1 |
//! | [`text`] | key=value data segments, split and joined over PDUs; number forms | 6.1 |
//! | [`sn`] | serial numbers that wrap and cannot be mixed up | 4.2.2 |
//! | [`moment`] | time as the caller tells it | – |
//! | [`negotiate`] | the key table and its result functions | 6.2, 13 |
//! | [`chap`] | proofs of who is at the other end, of both sides | 12.1.3, RFC 1994 |
//! | [`login`] | the target's side of the login phase, up to the last request | 6.3 |
//! | [`session`] | the target's side of the full feature phase: order, window, tasks, answers | 4.2, 11 |
//! | [`transfer`] | the data of one task, what came and what is to go | 4.2.5, 11.7, 11.8 |
//! | [`discovery`] | SendTargets and other text in the full feature phase | 11.10, Appendix C |
//! | [`initiator`] | the other end, for the load generator, the simulator and tests | 4, 6, 11 |
//! | [`violation`] | every way a peer can be wrong, and the answer it earns | 7 |
//!
//! # How it was held against the texts
//!
//! On 2026-11-21 every section number in this crate was looked up, and the code read against the text:
//!
//! | what | held against |
//! |---|---|
//! | the PDUs, field by field, and what is said of them (11.5 to 11.17) | RFC 3720 section 10 in full for Data, Task Management Response, Login Request, SNACK, Reject; RFC 7143's own table of Reject reasons as IANA has it |
//! | the keys: who sends them, when, results, defaults, what makes them irrelevant (13) | RFC 3720 section 12 in full |
//! | session types, what a discovery session takes (4.3) | RFC 3720 section 3.3, quoted by three other targets |
//! | reinstatement and recovery of discovery sessions (7.4), multi-task aborts (4.2.3), obsolete keys (13.25), protocol level (13.24) | RFC 5048 and 7143 as known; their text was not at hand |
//!
//! RFC 7143 numbers its sections as RFC 3720 does, one higher from 3 on (11.6 is 10.6 there), but for what it adds.

pub mod chap;
pub mod digest;
pub mod discovery;
pub mod framing;
pub mod initiator;
pub mod login;
pub mod moment;
pub mod negotiate;
pub mod session;
pub mod sn;
pub mod text;
pub mod transfer;
pub mod violation;
pub mod wire;
