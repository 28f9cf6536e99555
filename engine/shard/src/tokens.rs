//! ROD tokens of one unit (SPC-4 §5.16.6): those that were made on this shard, and the blocks of those made on others.
//!
//! The shard that made a token is its home, and alone says whether it is good. Whoever is about to change a block that a token
//! stands for asks its home first to give it up, once for each token, and waits for the answer. So what somebody has read
//! of these blocks before its home says that it is good, they had when it was made; and a unit of which there are no tokens
//! asks nobody. A value without clock or queue.

use std::collections::VecDeque;
use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::identity::{ShardId, ShardSet};
use portico_model::peer::{TokenName, TokenWord, Word};
use portico_scsi::sense::AdditionalSense;

use crate::arbiter::Words;
use crate::unit::Blocks;

/// Tokens of one unit that have their home on one shard. One more takes the place of that which has not been used for
/// the longest.
pub const TOKENS_MAX: usize = 64;

/// Tokens that are no more, of which is known why.
const OVER_MAX: usize = 256;

/// What one shard knows of the tokens of a unit.
#[derive(Debug, Default)]
pub struct Tokens {
    own: Vec<Own>,
    over: VecDeque<(u64, AdditionalSense)>,
    watched: Vec<Watched>,
}

/// A token that has its home here.
#[derive(Debug)]
struct Own {
    name: TokenName,
    blocks: Vec<Blocks>,
    timeout: Duration,
    used: Moment,
}

/// Blocks of a token that has its home elsewhere.
#[derive(Debug, Clone, Copy)]
struct Watched {
    name: TokenName,
    blocks: Blocks,
    asked: bool,
}

impl Tokens {
    /// Whether there is none that anybody has to be asked about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.watched.is_empty()
    }

    /// A token begins that stands for nothing yet.
    pub fn begin(&mut self, name: TokenName, timeout: Duration, now: Moment, out: &mut Out<'_>) {
        if self.own.len() >= TOKENS_MAX
            && let Some(least) = self.own.iter().min_by_key(|own| own.used).map(|own| own.name)
        {
            self.give_up(least, AdditionalSense::TOKEN_REVOKED, out);
        }
        self.own.push(Own { name, blocks: Vec::new(), timeout, used: now });
    }

    /// It stands for these blocks as well, which nobody can touch at this moment: `members` hear of it before they can.
    pub fn add(&mut self, name: TokenName, blocks: Blocks, members: ShardSet, words: &mut Words) {
        let Some(own) = self.own.iter_mut().find(|own| own.name == name) else { return };
        own.blocks.push(blocks);
        words.extend(members.iter().map(|shard| (shard, watch(name, blocks))));
    }

    /// What the token stands for, as long as it is there.
    #[must_use]
    pub fn blocks_of(&self, name: TokenName) -> Option<&[Blocks]> {
        self.own.iter().find(|own| own.name == name).map(|own| &own.blocks[..])
    }

    /// It is used: its time begins anew.
    ///
    /// # Errors
    /// Why it is no good.
    pub fn vouch(&mut self, name: TokenName, now: Moment, out: &mut Out<'_>) -> Result<(), AdditionalSense> {
        self.expire(now, out);
        let Some(own) = self.own.iter_mut().find(|own| own.name == name) else {
            let over = self.over.iter().find(|(serial, _)| *serial == name.serial);
            return Err(over.map_or(AdditionalSense::TOKEN_UNKNOWN, |(_, why)| *why));
        };
        own.used = now;
        Ok(())
    }

    /// The token is no more, and whoever watches it hears so.
    pub fn give_up(&mut self, name: TokenName, why: AdditionalSense, out: &mut Out<'_>) {
        let Some(at) = self.own.iter().position(|own| own.name == name) else { return };
        self.own.swap_remove(at);
        if self.over.len() == OVER_MAX {
            self.over.pop_front();
        }
        self.over.push_back((name.serial, why));
        let forget = |shard| (shard, Word::Token(TokenWord::Forget(name)));
        out.words.extend(out.others.iter().map(forget));
    }

    /// All of them.
    pub fn give_up_all(&mut self, out: &mut Out<'_>) {
        while let Some(name) = self.own.last().map(|own| own.name) {
            self.give_up(name, AdditionalSense::TOKEN_REVOKED, out);
        }
    }

    /// Gives up those that nobody has used for long.
    pub fn expire(&mut self, now: Moment, out: &mut Out<'_>) {
        let late = |own: &&Own| own.used + own.timeout <= now;
        while let Some(name) = self.own.iter().find(late).map(|own| own.name) {
            self.give_up(name, AdditionalSense::TOKEN_EXPIRED, out);
        }
    }

    /// These blocks are about to change here. Tokens that have their home here are no more; where others stand for them,
    /// whoever changes them has to wait.
    pub fn touch(&mut self, blocks: Blocks, out: &mut Out<'_>) -> bool {
        let stands = |own: &&Own| own.blocks.iter().any(|range| range.overlaps(blocks));
        while let Some(name) = self.own.iter().find(stands).map(|own| own.name) {
            self.give_up(name, AdditionalSense::TOKEN_REVOKED, out);
        }
        let mut waits = false;
        for at in 0..self.watched.len() {
            let Watched { name, blocks: range, asked } = self.watched[at];
            if !range.overlaps(blocks) {
                continue;
            }
            waits = true;
            if !asked {
                out.words.push((name.home, Word::Token(TokenWord::Touch(name))));
                self.watched.iter_mut().filter(|one| one.name == name).for_each(|one| one.asked = true);
            }
        }
        waits
    }

    /// Another shard's token stands for these blocks.
    pub fn watch(&mut self, name: TokenName, blocks: Blocks) {
        if !self.watched.iter().any(|one| one.name == name && one.blocks == blocks) {
            self.watched.push(Watched { name, blocks, asked: false });
        }
    }

    /// Another shard's token is no more.
    pub fn forget(&mut self, name: TokenName) {
        self.watched.retain(|one| one.name != name);
    }

    /// This shard does not touch the medium any more: it hears of the tokens of others before it does again.
    pub fn leave(&mut self) {
        self.watched.clear();
    }

    /// Another shard is about to touch the medium.
    pub fn tell(&self, shard: ShardId, words: &mut Words) {
        for own in &self.own {
            words.extend(own.blocks.iter().map(|blocks| (shard, watch(own.name, *blocks))));
        }
    }
}

/// Where words go: to all other shards.
#[derive(Debug)]
pub struct Out<'a> {
    /// The other shards.
    pub others: ShardSet,
    /// What they hear.
    pub words: &'a mut Words,
}

fn watch(name: TokenName, blocks: Blocks) -> Word {
    Word::Token(TokenWord::Watch { name, lba: blocks.lba, blocks: blocks.count })
}

/// What a shard says of a unit that it does not have: there are no tokens of it.
pub fn answer_for_nobody(from: ShardId, word: &TokenWord, words: &mut Words) {
    let answer = match word {
        TokenWord::Touch(name) => TokenWord::Forget(*name),
        TokenWord::Redeem { question, .. } => {
            TokenWord::Redeemed { question: *question, answer: Err(AdditionalSense::TOKEN_UNKNOWN) }
        }
        TokenWord::Vouch { question, .. } => {
            TokenWord::Vouched { question: *question, answer: Err(AdditionalSense::TOKEN_REVOKED) }
        }
        TokenWord::Watch { .. }
        | TokenWord::Forget(_)
        | TokenWord::Redeemed { .. }
        | TokenWord::Vouched { .. }
        | TokenWord::Delete(_) => return,
    };
    words.push((from, Word::Token(answer)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ShardId = ShardId(0);
    const OTHER: ShardId = ShardId(1);

    fn others() -> ShardSet {
        let mut others = ShardSet::default();
        others.insert(OTHER);
        others
    }

    fn name(serial: u64) -> TokenName {
        TokenName { home: ME, serial }
    }

    fn blocks(lba: u64, count: u64) -> Blocks {
        Blocks { lba, count }
    }

    #[test]
    fn the_home_gives_a_token_up_before_a_block_of_it_changes_and_says_why_later() {
        let (mut tokens, mut words) = (Tokens::default(), Words::new());
        let mut out = Out { others: others(), words: &mut words };
        tokens.begin(name(1), Duration::from_secs(30), Moment::ORIGIN, &mut out);
        tokens.add(name(1), blocks(8, 8), others(), out.words);
        assert_eq!(out.words.drain(..).collect::<Vec<_>>(), [(OTHER, watch(name(1), blocks(8, 8)))]);
        assert!(!tokens.touch(blocks(16, 8), &mut out));
        assert_eq!(tokens.vouch(name(1), Moment::ORIGIN, &mut out), Ok(()), "it was beside it");
        assert!(!tokens.touch(blocks(15, 1), &mut out), "whoever changes it at home need not wait");
        assert_eq!(out.words[..], [(OTHER, Word::Token(TokenWord::Forget(name(1))))]);
        let revoked = AdditionalSense::TOKEN_REVOKED;
        assert_eq!(tokens.vouch(name(1), Moment::ORIGIN, &mut out), Err(revoked));
        assert_eq!(tokens.vouch(name(2), Moment::ORIGIN, &mut out), Err(AdditionalSense::TOKEN_UNKNOWN));
        assert!(tokens.is_empty());
    }

    #[test]
    fn another_shard_waits_until_the_home_has_given_it_up_and_asks_once() {
        let (mut tokens, mut words) = (Tokens::default(), Words::new());
        let name = TokenName { home: OTHER, serial: 7 };
        tokens.watch(name, blocks(0, 4));
        tokens.watch(name, blocks(8, 4));
        let mut out = Out { others: others(), words: &mut words };
        assert!(!tokens.touch(blocks(4, 4), &mut out));
        assert!(tokens.touch(blocks(0, 1), &mut out) && tokens.touch(blocks(8, 1), &mut out));
        assert_eq!(out.words[..], [(OTHER, Word::Token(TokenWord::Touch(name)))]);
        tokens.forget(name);
        assert!(!tokens.touch(blocks(0, 1), &mut out) && tokens.is_empty());
    }

    #[test]
    fn a_token_expires_when_it_is_not_used_and_the_least_used_makes_room() {
        let (mut tokens, mut words) = (Tokens::default(), Words::new());
        let mut out = Out { others: others(), words: &mut words };
        let second = |second| Moment::ORIGIN + Duration::from_secs(second);
        tokens.begin(name(0), Duration::from_secs(30), second(0), &mut out);
        assert_eq!(tokens.vouch(name(0), second(29), &mut out), Ok(()));
        assert_eq!(tokens.vouch(name(0), second(58), &mut out), Ok(()), "each use begins it anew");
        assert_eq!(tokens.vouch(name(0), second(88), &mut out), Err(AdditionalSense::TOKEN_EXPIRED));
        for serial in 1..=TOKENS_MAX as u64 + 1 {
            tokens.begin(name(serial), Duration::from_secs(30), second(100 + serial % 2), &mut out);
        }
        assert_eq!(tokens.vouch(name(2), second(110), &mut out), Err(AdditionalSense::TOKEN_REVOKED));
        assert_eq!(tokens.vouch(name(1), second(110), &mut out), Ok(()));
    }
}
