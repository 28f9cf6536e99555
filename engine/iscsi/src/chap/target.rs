//! The target's side of CHAP (RFC 7143 §12.1.3): it challenges, and answers an initiator that challenges it back.

use super::{Algorithm, Buffer, Keys, Nonce, Refusal, Said, Secret, User, binary, hexadecimal};
use crate::text::value::{self, LARGE_BINARY_BYTES_MAX};

/// Who may prove what to a target, or for discovery.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users<'a> {
    /// IncomingUser: initiators prove to be one of them. Nobody in it: no proof is asked for.
    pub incoming: &'a [User],
    /// OutgoingUser: who we are towards an initiator that asks.
    pub outgoing: Option<&'a User>,
}

/// One exchange, after `AuthMethod=CHAP` was agreed.
#[derive(Debug)]
pub struct Challenger {
    nonce: Nonce,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// For CHAP_A.
    AwaitsAlgorithms,
    /// For CHAP_N and CHAP_R.
    AwaitsProof(Algorithm),
    /// The initiator is who it says.
    Proven { name: String },
}

impl Challenger {
    /// Begins, with randomness for this exchange alone.
    #[must_use]
    pub const fn new(nonce: Nonce) -> Self {
        Self { nonce, state: State::AwaitsAlgorithms }
    }

    /// Whether the next step is to be the proof.
    #[must_use]
    pub fn awaits_proof(&self) -> bool {
        matches!(self.state, State::AwaitsProof(_))
    }

    /// The name of the user that the initiator has proven to be.
    #[must_use]
    pub fn proven(&self) -> Option<&str> {
        match &self.state {
            State::Proven { name } => Some(name),
            _ => None,
        }
    }

    /// Takes the CHAP keys of one step; what goes back. A step without any changes nothing.
    ///
    /// # Errors
    /// The login fails.
    pub fn receive(&mut self, keys: &Keys<'_>, users: Users<'_>) -> Result<Said, Refusal> {
        if keys.is_empty() {
            return Ok(Said::new());
        }
        match self.state {
            State::AwaitsAlgorithms => self.challenge(keys),
            State::AwaitsProof(algorithm) => self.judge(algorithm, keys, users),
            State::Proven { .. } => Err(Refusal::OutOfPlace),
        }
    }

    fn challenge(&mut self, keys: &Keys<'_>) -> Result<Said, Refusal> {
        let Keys { algorithms: Some(offered), identifier: None, challenge: None, name: None, response: None } =
            keys
        else {
            return Err(Refusal::OutOfPlace);
        };
        let algorithm =
            value::list(offered).find_map(Algorithm::of_code).ok_or(Refusal::NoCommonAlgorithm)?;
        self.state = State::AwaitsProof(algorithm);
        Ok(vec![
            ("CHAP_A", algorithm.code().to_string()),
            ("CHAP_I", self.nonce.identifier().to_string()),
            ("CHAP_C", hexadecimal(self.nonce.challenge(algorithm))),
        ])
    }

    fn judge(&mut self, algorithm: Algorithm, keys: &Keys<'_>, users: Users<'_>) -> Result<Said, Refusal> {
        if keys.algorithms.is_some() {
            return Err(Refusal::OutOfPlace);
        }
        let (name, response) = keys.proof()?;
        let mut buffer: Buffer = [0; LARGE_BINARY_BYTES_MAX];
        let claimed = binary(response, &mut buffer)?;
        let challenge = self.nonce.challenge(algorithm);
        let user = users.incoming.iter().find(|user| user.name.as_bytes() == name);
        // A name that nobody has takes as long as one that somebody has.
        let nobody = Secret::new(NOBODYS_SECRET);
        let secret = user.map_or(&nobody, |user| &user.secret);
        let right = algorithm.response(self.nonce.identifier(), secret, challenge).is(claimed);
        let user = user.ok_or(Refusal::UserUnknown)?;
        if !right {
            return Err(Refusal::ResponseWrong);
        }
        let mut buffer: Buffer = [0; LARGE_BINARY_BYTES_MAX];
        let said = match keys.question(&mut buffer)? {
            None => Said::new(),
            Some((identifier, asked)) => {
                // §9.2.1: who cannot answer our challenge might get the answer from us.
                if asked == challenge {
                    return Err(Refusal::Reflected);
                }
                let outgoing = users.outgoing.ok_or(Refusal::NothingToProve)?;
                if outgoing.secret == user.secret {
                    return Err(Refusal::SameSecret);
                }
                let response = algorithm.response(identifier, &outgoing.secret, asked);
                vec![("CHAP_N", outgoing.name.clone()), ("CHAP_R", hexadecimal(response.as_bytes()))]
            }
        };
        self.state = State::Proven { name: user.name.clone() };
        Ok(said)
    }
}

/// As long as a secret should be (§9.2.1: 96 bits and more).
const NOBODYS_SECRET: &str = "0000000000000000";
