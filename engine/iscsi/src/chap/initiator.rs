//! The initiator's side of CHAP (RFC 7143 §12.1.3): it proves who it is, and may ask the target to.

use super::{Algorithm, Buffer, Keys, Nonce, Refusal, Said, User, binary, hexadecimal};
use crate::text::value::LARGE_BINARY_BYTES_MAX;

/// What an initiator logs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Who it is.
    pub user: User,
    /// Who the target has to prove to be, if it is asked.
    pub target: Option<User>,
    /// CHAP_A, in the order of preference.
    pub algorithms: Vec<Algorithm>,
}

impl Credentials {
    /// One way, every algorithm.
    #[must_use]
    pub fn new(user: User) -> Self {
        Self { user, target: None, algorithms: Algorithm::ALL.to_vec() }
    }

    /// The target has to prove to be this one.
    #[must_use]
    pub fn mutual(self, target: User) -> Self {
        Self { target: Some(target), ..self }
    }

    /// With this algorithm alone.
    #[must_use]
    pub fn with(self, algorithm: Algorithm) -> Self {
        Self { algorithms: vec![algorithm], ..self }
    }
}

/// One exchange, after `AuthMethod=CHAP` was agreed.
#[derive(Debug)]
pub struct Prover {
    credentials: Credentials,
    /// For the challenge to the target; there where it is asked.
    nonce: Option<Nonce>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For CHAP_A, CHAP_I and CHAP_C.
    AwaitsChallenge,
    /// For CHAP_N and CHAP_R of the target.
    AwaitsProof(Algorithm),
    /// All is said and proven.
    Done,
}

impl Prover {
    /// Begins. What is said first is [`Prover::offer`].
    ///
    /// # Panics
    /// Where the target is to prove itself and there is no randomness to ask it with.
    #[must_use]
    pub fn new(credentials: Credentials, nonce: Option<Nonce>) -> Self {
        assert!(credentials.target.is_none() || nonce.is_some(), "a target is asked with a challenge");
        Self { credentials, nonce, state: State::AwaitsChallenge }
    }

    /// The first step: CHAP_A.
    #[must_use]
    pub fn offer(&self) -> Said {
        let codes: Vec<String> =
            self.credentials.algorithms.iter().map(|algorithm| algorithm.code().to_string()).collect();
        vec![("CHAP_A", codes.join(","))]
    }

    /// Whether the next step that we say is the last of the exchange.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.state != State::AwaitsChallenge
    }

    /// Whether all that had to be proven was.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the CHAP keys of one step of the target; what goes back.
    ///
    /// # Errors
    /// The target is wrong, or not who it has to be.
    pub fn receive(&mut self, keys: &Keys<'_>) -> Result<Said, Refusal> {
        if keys.is_empty() && self.state != State::AwaitsChallenge {
            return Ok(Said::new());
        }
        match self.state {
            State::AwaitsChallenge => self.answer(keys),
            State::AwaitsProof(algorithm) => self.judge(algorithm, keys).map(|()| Said::new()),
            State::Done => Err(Refusal::OutOfPlace),
        }
    }

    fn answer(&mut self, keys: &Keys<'_>) -> Result<Said, Refusal> {
        let (Some(code), None, None) = (keys.algorithms, keys.name, keys.response) else {
            return Err(Refusal::OutOfPlace);
        };
        let algorithm = Algorithm::of_code(code)
            .filter(|algorithm| self.credentials.algorithms.contains(algorithm))
            .ok_or(Refusal::NoCommonAlgorithm)?;
        let mut buffer: Buffer = [0; LARGE_BINARY_BYTES_MAX];
        let (identifier, challenge) = keys.question(&mut buffer)?.ok_or(Refusal::OutOfPlace)?;
        let user = &self.credentials.user;
        let response = algorithm.response(identifier, &user.secret, challenge);
        let mut said = vec![("CHAP_N", user.name.clone()), ("CHAP_R", hexadecimal(response.as_bytes()))];
        self.state = State::Done;
        if let (Some(target), Some(nonce)) = (&self.credentials.target, &self.nonce) {
            // §9.2.1: the other direction has another secret and another challenge.
            if target.secret == user.secret {
                return Err(Refusal::SameSecret);
            }
            if nonce.challenge(algorithm) == challenge {
                return Err(Refusal::Reflected);
            }
            said.push(("CHAP_I", nonce.identifier().to_string()));
            said.push(("CHAP_C", hexadecimal(nonce.challenge(algorithm))));
            self.state = State::AwaitsProof(algorithm);
        }
        Ok(said)
    }

    fn judge(&mut self, algorithm: Algorithm, keys: &Keys<'_>) -> Result<(), Refusal> {
        let (name, response) = keys.proof()?;
        let (Some(target), Some(nonce)) = (&self.credentials.target, &self.nonce) else {
            return Err(Refusal::OutOfPlace);
        };
        let mut buffer: Buffer = [0; LARGE_BINARY_BYTES_MAX];
        let claimed = binary(response, &mut buffer)?;
        let expected = algorithm.response(nonce.identifier(), &target.secret, nonce.challenge(algorithm));
        if !expected.is(claimed) {
            return Err(Refusal::ResponseWrong);
        }
        if name != target.name.as_bytes() {
            return Err(Refusal::UserUnknown);
        }
        self.state = State::Done;
        Ok(())
    }
}
