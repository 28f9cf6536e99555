//! Whether an initiator has to prove who it is, and whether it has (RFC 7143 §6.3.2, §12.1).

use super::directory::Directory;
use crate::chap::{Challenger, Keys, Nonce, Refusal, Said};
use crate::wire::Stage;

/// How far the authentication of one login is.
#[derive(Debug)]
pub(super) struct Authentication {
    nonce: Option<Nonce>,
    demanded: bool,
    exchange: Option<Challenger>,
}

impl Authentication {
    pub(super) const fn new(nonce: Nonce) -> Self {
        Self { nonce: Some(nonce), demanded: false, exchange: None }
    }

    /// The target is known, and with it whether somebody has to prove something.
    pub(super) fn settle(&mut self, demanded: bool, stage: Stage) -> Result<(), Refusal> {
        self.demanded = demanded;
        // §6.3: an initiator may leave the security stage out; a target need not take that.
        if demanded && stage != Stage::SecurityNegotiation { Err(Refusal::NotOffered) } else { Ok(()) }
    }

    /// `AuthMethod=CHAP` was agreed.
    pub(super) fn begin(&mut self) {
        self.exchange = self.nonce.take().map(Challenger::new);
    }

    /// Whether CHAP's keys mean anything.
    pub(super) const fn is_under_way(&self) -> bool {
        self.exchange.is_some()
    }

    /// A whole step is in; `leaves`: the initiator asks for the next stage.
    pub(super) fn advance(
        &mut self,
        keys: &Keys<'_>,
        leaves: bool,
        target_name: Option<&str>,
        directory: &dyn Directory,
    ) -> Result<Said, Refusal> {
        match &mut self.exchange {
            Some(exchange) => exchange.receive(keys, directory.users(target_name)),
            None if self.demanded && leaves => Err(Refusal::NotOffered),
            None => Ok(Said::new()),
        }
    }

    /// Whether the security stage cannot end yet.
    pub(super) fn holds(&self) -> bool {
        self.demanded && self.proven().is_none()
    }

    /// Whether the next step is to carry the proof.
    pub(super) fn awaits_proof(&self) -> bool {
        self.exchange.as_ref().is_some_and(Challenger::awaits_proof)
    }

    /// The user that the initiator has proven to be.
    pub(super) fn proven(&self) -> Option<&str> {
        self.exchange.as_ref().and_then(Challenger::proven)
    }
}
