//! Fuzzers that know what they are feeding: bytes are read as choices ([`Source`]), so that a flipped bit is another
//! opcode, another length or another order of things, and not noise that the first check throws away.
//!
//! They run on the stable compiler and need nothing but this crate. Instead of the compiler's coverage they go by what
//! happened ([`Trace`]): which violations, which answers, which states. An input that brings about something new is
//! kept and changed further. What is worth keeping for good lies in `corpus/`, which the tests replay.
//!
//! | fuzzer | feeds | and holds that |
//! |---|---|---|
//! | [`wire`] | headers, AHS, lengths, digests | what is parsed is written and parsed to the same; lengths stay in their bounds |
//! | [`text`] | segments of text, whole exchanges | pairs survive being cut into pieces; answers are within their bounds |
//! | [`login`] | dialogues of Login Requests, and our own initiator on a line that garbles | every login ends, with an answer that is well formed |
//! | [`session`] | PDUs and everything a caller may do, in any order | numbers are used once, the window is never lost |
//! | [`cdb`] | commands to a whole shard with a RAM disk | sense is well formed, residuals add up, no block changes but those addressed |
//!
//! A failure is a panic; it is made smaller, and printed as bytes that `--replay` runs again.

pub mod cdb;
pub mod engine;
pub mod login;
mod random;
pub mod session;
mod source;
pub mod text;
mod trace;
pub mod wire;

pub use engine::{Campaign, Failure, Report};
pub use random::Random;
pub use source::Source;
pub use trace::Trace;

/// One fuzzer.
#[derive(Debug, Clone, Copy)]
pub struct Fuzzer {
    /// What the command line and the corpus call it.
    pub name: &'static str,
    /// Does what the bytes say. A panic is a finding.
    pub run: fn(&[u8], &mut Trace),
    /// Byte strings that mean something to it.
    pub dictionary: &'static [&'static [u8]],
    /// The longest input that makes sense.
    pub bytes_max: usize,
}

/// All of them.
pub const FUZZERS: &[Fuzzer] = &[wire::FUZZER, text::FUZZER, login::FUZZER, session::FUZZER, cdb::FUZZER];

/// The fuzzer of that name.
#[must_use]
pub fn fuzzer(name: &str) -> Option<&'static Fuzzer> {
    FUZZERS.iter().find(|fuzzer| fuzzer.name == name)
}
