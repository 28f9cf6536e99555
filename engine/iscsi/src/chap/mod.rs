//! CHAP: who proves what to whom in the security stage of a login (RFC 7143 §12.1.3, RFC 1994).
//!
//! Both ends as values: [`target`](Challenger) asks and is asked back, [`initiator`](Prover) proves and may ask. What is
//! random comes from outside as a [`Nonce`], which is taken by value and so serves one exchange. Secrets are wiped when
//! they are dropped, compared in constant time, and shown by nothing.
//!
//! A response is the digest of the identifier, the secret and the challenge, in this order (RFC 1994 §4.1).

mod initiator;
mod secret;
mod target;
#[cfg(test)]
mod tests;

pub use initiator::{Credentials, Prover};
pub use secret::{Secret, User};
pub use target::{Challenger, Users};

use core::fmt::Write as _;

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::text::value::{self, LARGE_BINARY_BYTES_MAX};

/// The bytes of the longest response, and of the longest challenge that this end makes.
const DIGEST_BYTES_MAX: usize = 32;
/// The bytes of randomness that one exchange takes: an identifier and a challenge.
pub const NONCE_BYTES: usize = 1 + DIGEST_BYTES_MAX;

/// What CHAP_A names (§12.1.3 and IANA's registry "iSCSI CHAP algorithms", RFC 7143 §14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 5: what RFC 1994 asks every end to have.
    Md5,
    /// 6
    Sha1,
    /// 7
    Sha256,
    /// 8
    Sha3_256,
}

impl Algorithm {
    /// All of them, the strongest first: the order in which an initiator of ours offers them.
    pub const ALL: [Self; 4] = [Self::Sha3_256, Self::Sha256, Self::Sha1, Self::Md5];

    /// The number in CHAP_A.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Md5 => 5,
            Self::Sha1 => 6,
            Self::Sha256 => 7,
            Self::Sha3_256 => 8,
        }
    }

    /// The algorithm of a number in CHAP_A.
    fn of_code(code: &[u8]) -> Option<Self> {
        let code = value::number(code)?;
        Self::ALL.into_iter().find(|algorithm| u64::from(algorithm.code()) == code)
    }

    /// How long a response is; a challenge of ours is as long.
    const fn digest_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sha3_256 => 32,
        }
    }

    /// The response to a challenge (RFC 1994 §4.1).
    #[must_use]
    pub fn response(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Response {
        match self {
            Self::Md5 => digest::<Md5>(identifier, secret, challenge),
            Self::Sha1 => digest::<Sha1>(identifier, secret, challenge),
            Self::Sha256 => digest::<Sha256>(identifier, secret, challenge),
            Self::Sha3_256 => digest::<Sha3_256>(identifier, secret, challenge),
        }
    }
}

fn digest<D: Digest>(identifier: u8, secret: &Secret, challenge: &[u8]) -> Response {
    let digest =
        D::new().chain_update([identifier]).chain_update(secret.expose()).chain_update(challenge).finalize();
    let mut bytes = Zeroizing::new([0; DIGEST_BYTES_MAX]);
    bytes[..digest.len()].copy_from_slice(&digest);
    Response { bytes, length: digest.len() }
}

/// What only somebody who knows the secret can say. `Debug` does not show it.
pub struct Response {
    bytes: Zeroizing<[u8; DIGEST_BYTES_MAX]>,
    length: usize,
}

impl Response {
    /// The bytes of CHAP_R.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Whether these bytes are the response, in a time that does not depend on how much of them is right.
    #[must_use]
    pub fn is(&self, claimed: &[u8]) -> bool {
        self.as_bytes().ct_eq(claimed).into()
    }
}

impl core::fmt::Debug for Response {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Response(…)")
    }
}

/// Randomness for one exchange. It cannot be copied: a challenge is used once (RFC 1994 §2.3).
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// Takes bytes that nobody can predict, from the kernel's generator.
    #[must_use]
    pub const fn new(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    /// CHAP_I
    const fn identifier(&self) -> u8 {
        self.0[0]
    }

    /// CHAP_C, as long as a digest of the algorithm.
    fn challenge(&self, algorithm: Algorithm) -> &[u8] {
        &self.0[1..=algorithm.digest_bytes()]
    }
}

impl core::fmt::Debug for Nonce {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Nonce(…)")
    }
}

/// Why an exchange ends without a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The initiator leaves the security stage, or leaves it out, and has not offered to prove anything.
    NotOffered,
    /// None of the algorithms offered is one of ours.
    NoCommonAlgorithm,
    /// No user of that name.
    UserUnknown,
    /// The response is not that of the user's secret.
    ResponseWrong,
    /// The other end sent our challenge back (§9.2.1).
    Reflected,
    /// Both directions have one secret (§9.2.1).
    SameSecret,
    /// The initiator wants a proof, and we have no name and secret to prove.
    NothingToProve,
    /// The other end was asked for a proof and gave none, or half of one.
    ProofMissing,
    /// A key that has no place in this step of the exchange.
    OutOfPlace,
    /// A key twice in one step.
    Repeated,
    /// A value that is no number, no binary value, or too long.
    Malformed,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::NotOffered,
        Self::NoCommonAlgorithm,
        Self::UserUnknown,
        Self::ResponseWrong,
        Self::Reflected,
        Self::SameSecret,
        Self::NothingToProve,
        Self::ProofMissing,
        Self::OutOfPlace,
        Self::Repeated,
        Self::Malformed,
    ];

    /// Whether the keys are wrong, not the proof: "initiator error" (02/00) and not "authentication failure" (02/01).
    #[must_use]
    pub const fn is_of_form(self) -> bool {
        matches!(self, Self::OutOfPlace | Self::Repeated | Self::Malformed)
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "CHAP is demanded and was not offered",
            Self::NoCommonAlgorithm => "none of the CHAP algorithms offered is ours",
            Self::UserUnknown => "CHAP: no such user",
            Self::ResponseWrong => "CHAP: the response is wrong",
            Self::Reflected => "CHAP: our own challenge was sent back",
            Self::SameSecret => "CHAP: one secret in both directions",
            Self::NothingToProve => "CHAP: we are asked for a proof, and have no OutgoingUser",
            Self::ProofMissing => "CHAP: the proof that was asked for is missing",
            Self::OutOfPlace => "CHAP: a key that has no place in this step",
            Self::Repeated => "CHAP: a key twice in one step",
            Self::Malformed => "CHAP: a value is malformed",
        })
    }
}

/// The CHAP keys of one step.
#[derive(Default)]
pub struct Keys<'a> {
    algorithms: Option<&'a [u8]>,
    identifier: Option<&'a [u8]>,
    challenge: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
}

impl<'a> Keys<'a> {
    /// Takes a pair, if it is one of CHAP's.
    ///
    /// # Errors
    /// [`Refusal::Repeated`]
    pub fn take(&mut self, key: &str, value: &'a [u8]) -> Result<bool, Refusal> {
        let slot = match key {
            "CHAP_A" => &mut self.algorithms,
            "CHAP_I" => &mut self.identifier,
            "CHAP_C" => &mut self.challenge,
            "CHAP_N" => &mut self.name,
            "CHAP_R" => &mut self.response,
            _ => return Ok(false),
        };
        match slot.replace(value) {
            Some(_) => Err(Refusal::Repeated),
            None => Ok(true),
        }
    }

    const fn is_empty(&self) -> bool {
        self.algorithms.is_none()
            && self.identifier.is_none()
            && self.challenge.is_none()
            && self.name.is_none()
            && self.response.is_none()
    }

    /// The name and response of who proves himself.
    fn proof(&self) -> Result<(&'a [u8], &'a [u8]), Refusal> {
        self.name.zip(self.response).ok_or(Refusal::ProofMissing)
    }

    /// The question to the other end: an identifier and a challenge.
    fn question<'b>(&self, buffer: &'b mut Buffer) -> Result<Option<(u8, &'b [u8])>, Refusal> {
        match (self.identifier, self.challenge) {
            (None, None) => Ok(None),
            (Some(identifier), Some(challenge)) => {
                let identifier = value::number(identifier).and_then(|number| u8::try_from(number).ok());
                Ok(Some((identifier.ok_or(Refusal::Malformed)?, binary(challenge, buffer)?)))
            }
            _ => Err(Refusal::Malformed),
        }
    }
}

/// What a step says in return: keys and values, in their order.
pub type Said = Vec<(&'static str, String)>;

/// Room for a decoded binary value.
type Buffer = [u8; LARGE_BINARY_BYTES_MAX];

fn binary<'a>(text: &[u8], buffer: &'a mut Buffer) -> Result<&'a [u8], Refusal> {
    let length = value::binary(text, buffer).ok_or(Refusal::Malformed)?;
    Ok(&buffer[..length])
}

/// A binary value as everybody reads it: hexadecimal (§6.1).
fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all text");
    }
    text
}
