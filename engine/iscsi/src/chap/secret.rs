//! CHAP users and their secrets. A secret is wiped when it is dropped, and shown by nothing.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A CHAP secret (RFC 7143 §12.1.3). `Debug` does not show it, nor its length.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The bytes that the digest is made of.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Secret {}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The two words of IncomingUser and OutgoingUser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The CHAP name (CHAP_N).
    pub name: String,
    /// Its secret.
    pub secret: Secret,
}

impl User {
    /// A user of that name and secret.
    #[must_use]
    pub fn new(name: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { name: name.into(), secret: Secret::new(secret) }
    }
}
