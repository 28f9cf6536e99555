//! What shards say to each other about the blocks of a logical unit, so that a command can have some of them for itself on
//! all shards (COMPARE AND WRITE, SBC-3 §5.2), and about tokens that stand for some of them. Nobody else says anything from shard to shard.

use portico_scsi::sense::AdditionalSense;
use portico_scsi::token::{Range, TokenBytes};

use crate::identity::{ShardId, UnitId};

/// One letter from a shard to another. Letters of one shard to one other arrive in order, and none is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLetter {
    /// Who says it.
    pub from: ShardId,
    /// Of which unit.
    pub unit: UnitId,
    /// What.
    pub word: Word,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// I am about to touch the unit's medium, and do not before you have answered.
    Join,
    /// The answer to `Join`.
    Welcome {
        /// I touch the medium too.
        is_member: bool,
        /// The highest clock that I know of.
        clock: u64,
        /// What I claim.
        claims: Vec<Claim>,
    },
    /// I do not touch the medium any more.
    Leave,
    /// I want these blocks for myself. Hand nothing more of them to the medium; answered by `Yield`.
    Claim(Claim),
    /// Nothing of mine is at those blocks, and nothing will be until you open them.
    Yield(Stamp),
    /// I want them no more.
    Open(Stamp),
    /// Something about a token that stands for blocks of the unit.
    Token(TokenWord),
}

/// What is said about tokens (SPC-4 §5.16.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenWord {
    /// A token of mine stands for these blocks.
    Watch {
        /// Which.
        name: TokenName,
        /// The first block.
        lba: u64,
        /// How many.
        blocks: u64,
    },
    /// I am about to change blocks of your token, and do not before you have said `Forget`.
    Touch(TokenName),
    /// A token of mine is no more.
    Forget(TokenName),
    /// What does this token of yours stand for?
    Redeem {
        /// Comes back with the answer.
        question: u64,
        /// As it came.
        token: Box<TokenBytes>,
    },
    /// For this, or why it is no good.
    Redeemed {
        /// From the question.
        question: u64,
        /// The answer.
        answer: Result<Vec<Range>, AdditionalSense>,
    },
    /// Is this token of yours good still?
    Vouch {
        /// Comes back with the answer.
        question: u64,
        /// Which.
        name: TokenName,
    },
    /// It is, or why it is not.
    Vouched {
        /// From the question.
        question: u64,
        /// The answer.
        answer: Result<(), AdditionalSense>,
    },
    /// Nobody wants this token of yours any more.
    Delete(TokenName),
}

/// Names a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenName {
    /// The shard that made it.
    pub home: ShardId,
    /// Which of its tokens.
    pub serial: u64,
}

/// Blocks that a shard wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its name and its place in the order of all claims.
    pub stamp: Stamp,
    /// The first block.
    pub lba: u64,
    /// How many.
    pub blocks: u64,
}

/// The order of all claims of a unit: a logical clock (each new claim is later than all that its shard has heard of), then
/// the number of the shard. No two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The time.
    pub clock: u64,
    /// Whose.
    pub shard: ShardId,
}
