//! POPULATE TOKEN, and who asks whether a token is good (SBC-3 §5.12, SPC-4 §5.16.6; see [`crate::tokens`]).
//!
//! A token stands for its blocks from a moment on in which nobody can touch them: they are claimed for it, range by range, as
//! those of COMPARE AND WRITE are, and nothing is read. It carries what its home knows it by: a name, and a code over all of it
//! under a key that the home has from the kernel and tells nobody.

use std::time::Duration;

use portico_model::identity::{ShardId, ShardSet, UnitId};
use portico_model::peer::{TokenName, TokenWord, Word};
use portico_scsi::copy_results::CopyRecord;
use portico_scsi::reservation::CommandClass;
use portico_scsi::sense::{AdditionalSense, Outcome};
use portico_scsi::token::{self, PopulateToken, Range, TOKEN_BYTES, TokenBytes};
use portico_scsi::unit::Lba;
use sha3::{Digest, Sha3_256};
use subtle::ConstantTimeEq;

use super::Core;
use super::copy::{keep_record, may_begin, note};
use super::medium::not_ready;
use crate::budget::Short;
use crate::driver::Driver;
use crate::slab::Key;
use crate::task::{Copying, Populating, Task, Work};
use crate::tokens::{self, Out};
use crate::unit::{Blocks, Unit};

/// What tokens of this shard are known by.
#[derive(Debug)]
pub(super) struct Seal {
    /// Of this process: tokens of an earlier one are unknown.
    process: [u8; PROCESS_BYTES],
    key: [u8; KEY_BYTES],
}

const PROCESS_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const CODE_BYTES: usize = 32;
const CODE_AT: usize = TOKEN_BYTES - CODE_BYTES;
const _: () = assert!(token::EXTENDED_AT + PROCESS_BYTES <= CODE_AT);

/// In an identifier the home has the highest bits, above its serial numbers.
const HOME_SHIFT: u32 = 48;

impl Seal {
    /// SHA-3 is no hash that lengthens: its key before the text makes a code of it.
    fn code(&self, token: &TokenBytes) -> [u8; CODE_BYTES] {
        Sha3_256::new().chain_update(self.key).chain_update(&token[..CODE_AT]).finalize().into()
    }

    fn close(&self, token: &mut TokenBytes) {
        token[token::EXTENDED_AT..token::EXTENDED_AT + PROCESS_BYTES].copy_from_slice(&self.process);
        let code = self.code(token);
        token[CODE_AT..].copy_from_slice(&code);
    }

    fn verify(&self, token: &TokenBytes) -> Result<(), AdditionalSense> {
        if token[token::EXTENDED_AT..token::EXTENDED_AT + PROCESS_BYTES] != self.process {
            return Err(AdditionalSense::TOKEN_UNKNOWN);
        }
        match bool::from(self.code(token)[..].ct_eq(&token[CODE_AT..])) {
            true => Ok(()),
            false => Err(AdditionalSense::TOKEN_CORRUPT),
        }
    }
}

/// The name in a token, which may be anything.
pub(super) fn name_of(token: &TokenBytes) -> TokenName {
    let identifier = token::identifier_of(token);
    let home = u16::try_from(identifier >> HOME_SHIFT).expect("sixteen bits");
    TokenName { home: ShardId(home), serial: identifier & ((1 << HOME_SHIFT) - 1) }
}

impl<D: Driver> Core<D> {
    /// Lets the tokens of a unit do something, and sends what they say.
    pub(super) fn with_tokens<T>(
        &mut self,
        key: Key<Unit>,
        act: impl FnOnce(&mut tokens::Tokens, &mut Out<'_>) -> T,
    ) -> Option<T> {
        let mut others = ShardSet::first(self.shards);
        others.remove(self.shard);
        let unit = self.units.get_mut(key)?;
        let done = act(&mut unit.tokens, &mut Out { others, words: &mut self.peer_mail.words });
        unit.arbiter.watch(!unit.tokens.is_empty());
        self.peer_mail.post(unit.id);
        Some(done)
    }

    pub(super) fn begin_populate(&mut self, key: Key<Task>, populate: &PopulateToken) {
        let Some(task) = self.tasks.get(key) else { return };
        let unit_key = task.unit.expect("it came to a unit");
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        if let Err(outcome) = may_begin(session, populate.list_id, populate.immediate) {
            return self.finish(key, outcome);
        }
        let block = self.units.get(unit_key).map(|unit| unit.state.geometry.block_length());
        let record = CopyRecord::new(populate.list_id, token::POPULATE, populate.immediate);
        keep_record(session, CopyRecord { block_bytes: block, ..record });
        let name = TokenName { home: self.shard, serial: self.serial() };
        let (timeout, now) = (Duration::from_secs(populate.timeout_s.into()), self.now);
        self.with_tokens(unit_key, |tokens, out| tokens.begin(name, timeout, now, out));
        let ranges =
            populate.ranges.iter().rev().map(|range| Blocks { lba: range.lba.0, count: range.blocks });
        let populate_work = Populating { name, ranges: ranges.collect(), blocks: 0, claim: None };
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.work = Work::Copy(Box::new(Copying {
            list_id: Some(populate.list_id),
            populates: Some(populate_work),
            ..Copying::default()
        }));
        let key = if populate.immediate { self.go_on_behind(key) } else { key };
        self.pump_copy(key);
    }

    /// Takes the next ranges, as far as nobody is in the way.
    pub(super) fn pump_populate(&mut self, key: Key<Task>) {
        loop {
            let Some(Task { work: Work::Copy(copying), unit: Some(unit_key), session, .. }) =
                self.tasks.get(key)
            else {
                return;
            };
            let (Some(populates), unit_key) = (&copying.populates, *unit_key) else { return };
            let (name, Some(&blocks)) = (populates.name, populates.ranges.last()) else {
                return self.seal_token(key);
            };
            let session = self.sessions.get(*session).expect("a task has a session");
            let (nexus, port) = (session.nexus, session.relative_target_port);
            let unit = self.units.get(unit_key).expect("a unit stays while it has tasks");
            if let Err(outcome) = unit.admits(nexus, port, CommandClass::Read, blocks) {
                return self.finish(key, outcome);
            }
            if unit.queue.is_none() {
                return self.finish(key, not_ready());
            }
            if !self.has_claim(key, blocks) {
                return self.wait_for(key, None, Short::Unit);
            }
            let members = self.units.get(unit_key).map(|unit| unit.arbiter.members()).unwrap_or_default();
            self.with_tokens(unit_key, |tokens, out| tokens.add(name, blocks, members, out.words));
            // Said after that: whoever hears that the blocks are open knows of the token.
            self.open_claim(key);
            if let Some(Task { work: Work::Copy(copying), .. }) = self.tasks.get_mut(key)
                && let Some(populates) = &mut copying.populates
            {
                populates.ranges.pop();
                populates.blocks += blocks.count;
            }
        }
    }

    /// The token stands for all of its blocks: it is made, for whoever asks for it.
    fn seal_token(&mut self, key: Key<Task>) {
        if self.seal.is_none() {
            let mut random = [0; PROCESS_BYTES + KEY_BYTES];
            if let Err(error) = self.driver.random(&mut random) {
                tracing::error!(%error, "no randomness for a token");
                return self.finish(key, Outcome::internal_failure());
            }
            let (process, secret) = random.split_at(PROCESS_BYTES);
            let process = process.try_into().expect("its length is right");
            self.seal = Some(Seal { process, key: secret.try_into().expect("its length is right") });
        }
        let Some(Task { work: Work::Copy(copying), unit: Some(unit_key), session, .. }) = self.tasks.get(key)
        else {
            return;
        };
        let (Some(populates), Some(unit), Some(seal)) =
            (&copying.populates, self.units.get(*unit_key), &self.seal)
        else {
            return;
        };
        let TokenName { home, serial } = populates.name;
        let geometry = &unit.state.geometry;
        let bytes = populates.blocks * u64::from(geometry.block_length());
        let identifier = u64::from(home.0) << HOME_SHIFT | serial;
        let mut token = Box::new(token::compose(&unit.state, identifier, bytes));
        seal.close(&mut token);
        note(&mut self.sessions, *session, copying.list_id, |record| {
            (record.token, record.bytes) = (Some(token), bytes);
        });
        let (name, unit_key, now) = (populates.name, *unit_key, self.now);
        // Where something changed its blocks meanwhile it is revoked already, as it could be right afterwards.
        let _ = self.with_tokens(unit_key, |tokens, out| tokens.vouch(name, now, out));
        self.finish(key, Outcome::GOOD);
    }

    /// A token that is not made after all stands for nothing.
    pub(super) fn end_populate(&mut self, key: Key<Task>, is_good: bool) {
        let Some(Task { work: Work::Copy(copying), unit: Some(unit), .. }) = self.tasks.get(key) else {
            return;
        };
        let (Some(Populating { name, .. }), unit) = (&copying.populates, *unit) else { return };
        let name = *name;
        self.open_claim(key);
        if !is_good {
            self.with_tokens(unit, |tokens, out| tokens.give_up(name, AdditionalSense::TOKEN_UNKNOWN, out));
        }
    }

    // --- Whether a token is good -----------------------------------------------------------------------------------

    /// What a token stands for that has its home here.
    pub(super) fn redeem(
        &mut self,
        unit: Key<Unit>,
        token: &TokenBytes,
    ) -> Result<Vec<Range>, AdditionalSense> {
        let unknown = AdditionalSense::TOKEN_UNKNOWN;
        self.seal.as_ref().ok_or(unknown)?.verify(token)?;
        let (name, now) = (name_of(token), self.now);
        let found = self.with_tokens(unit, |tokens, out| -> Result<Vec<Range>, AdditionalSense> {
            tokens.vouch(name, now, out)?;
            let blocks = tokens.blocks_of(name).ok_or(unknown)?;
            let range = |blocks: &Blocks| Range { lba: Lba(blocks.lba), blocks: blocks.count };
            Ok(blocks.iter().map(range).collect())
        });
        found.unwrap_or(Err(unknown))
    }

    /// Whether a token that has its home here is good still.
    pub(super) fn vouch(&mut self, unit: Key<Unit>, name: TokenName) -> Result<(), AdditionalSense> {
        let now = self.now;
        let found = self.with_tokens(unit, |tokens, out| tokens.vouch(name, now, out));
        found.unwrap_or(Err(AdditionalSense::TOKEN_REVOKED))
    }

    /// What another shard says about a token.
    pub(super) fn hear_of_token(&mut self, from: ShardId, unit: UnitId, word: TokenWord) {
        match word {
            TokenWord::Redeemed { question, answer } => {
                return self.redeemed(Key::from_bits(question), answer);
            }
            TokenWord::Vouched { question, answer } => return self.vouched(Key::from_bits(question), answer),
            _ => {}
        }
        let Some(&key) = self.unit_keys.get(&unit) else {
            tokens::answer_for_nobody(from, &word, &mut self.peer_mail.words);
            return self.peer_mail.post(unit);
        };
        match word {
            TokenWord::Watch { name, lba, blocks } => {
                let absent = self.units.get(key).is_none_or(|unit| unit.arbiter.is_absent());
                if !absent {
                    let blocks = Blocks { lba, count: blocks };
                    self.with_tokens(key, |tokens, _| tokens.watch(name, blocks));
                }
            }
            TokenWord::Touch(name) => {
                self.with_tokens(key, |tokens, out| {
                    tokens.give_up(name, AdditionalSense::TOKEN_REVOKED, out);
                    // It may be no more already: whoever asks waits for a word.
                    out.words.push((from, Word::Token(TokenWord::Forget(name))));
                });
            }
            TokenWord::Forget(name) => {
                self.with_tokens(key, |tokens, _| tokens.forget(name));
                self.note_released();
            }
            TokenWord::Redeem { question, token } => {
                let answer = self.redeem(key, &token);
                self.tell_of_token(from, unit, TokenWord::Redeemed { question, answer });
            }
            TokenWord::Vouch { question, name } => {
                let answer = self.vouch(key, name);
                self.tell_of_token(from, unit, TokenWord::Vouched { question, answer });
            }
            TokenWord::Delete(name) => {
                let why = AdditionalSense::TOKEN_DELETED;
                self.with_tokens(key, |tokens, out| tokens.give_up(name, why, out));
            }
            TokenWord::Redeemed { .. } | TokenWord::Vouched { .. } => {}
        }
    }

    pub(super) fn tell_of_token(&mut self, to: ShardId, unit: UnitId, word: TokenWord) {
        self.peer_mail.words.push((to, Word::Token(word)));
        self.peer_mail.post(unit);
    }

    /// Tokens that nobody has used for long are no more.
    pub fn expire_tokens(&mut self) {
        let now = self.now;
        for index in 0..self.units.places() {
            if let Some(key) = self.units.key_at(index)
                && self.units.get(key).is_some_and(|unit| !unit.tokens.is_empty())
            {
                self.with_tokens(key, |tokens, out| tokens.expire(now, out));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_token_can_be_another_and_no_other_process_knows_it() {
        let seal = Seal { process: [1; 16], key: [2; 32] };
        let mut token = [7; TOKEN_BYTES];
        seal.close(&mut token);
        assert_eq!(seal.verify(&token), Ok(()));
        for at in 0..TOKEN_BYTES {
            let mut forged = token;
            forged[at] ^= 0x10;
            assert!(seal.verify(&forged).is_err(), "byte {at}");
        }
        let other_key = Seal { process: [1; 16], key: [3; 32] };
        assert_eq!(other_key.verify(&token), Err(AdditionalSense::TOKEN_CORRUPT));
        let later = Seal { process: [2; 16], key: [3; 32] };
        assert_eq!(later.verify(&token), Err(AdditionalSense::TOKEN_UNKNOWN));
    }
}
