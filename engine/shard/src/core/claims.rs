//! What the arbiter of a unit asks of this shard, and what it tells it: pieces that wait for a claim, claims that wait for
//! pieces, words to other shards.
//!
//! While nobody claims anything, a piece on its way to the medium asks one flag ([`Arbiter::is_open`]). A task that meets a claim
//! waits in no line: whoever claims has all that it needs, but room in the medium's queue, and may not wait for those who
//! wait for it.
//!
//! [`Arbiter::is_open`]: crate::arbiter::Arbiter::is_open

use std::collections::VecDeque;
use std::time::Duration;

use portico_backstores::Queue as _;
use portico_model::identity::{ShardId, ShardSet, UnitId};
use portico_model::peer::{PeerLetter, Word};

use super::{Core, OpKind};
use crate::arbiter::{self, Words};
use crate::connection::Connection;
use crate::driver::Driver;
use crate::slab::{Key, Slab};
use crate::task::{Task, Work};
use crate::tokens::Out;
use crate::unit::{Blocks, Unit};

/// Mail for other shards that their queues have not taken yet.
#[derive(Debug)]
pub struct PeerMail {
    me: ShardId,
    pub(super) words: Words,
    /// To whom, and what.
    pub letters: VecDeque<(ShardId, PeerLetter)>,
}

impl PeerMail {
    pub(super) fn new(me: ShardId) -> Self {
        Self { me, words: Words::new(), letters: VecDeque::new() }
    }

    /// Puts words about a unit into letters.
    pub(super) fn post(&mut self, unit: UnitId) {
        let from = self.me;
        let letter = |(to, word)| (to, PeerLetter { from, unit, word });
        self.letters.extend(self.words.drain(..).map(letter));
    }
}

/// A unit whose medium lent bytes that are perhaps still being sent: nobody has its blocks for himself before they are
/// through.
#[derive(Debug)]
pub struct LentWait {
    unit: Key<Unit>,
    /// Connections on which they may be; not known while a READ is half in its message.
    sending: Option<Vec<Key<Connection>>>,
}

/// How long after a claim a unit in memory lends nothing: a READ is copied, which claims do not have to wait for.
const LENDS_AFTER: Duration = Duration::from_secs(10);

/// Whether a claim is in the way of a piece of `task`, or this shard may not touch the medium yet.
#[cold]
pub(super) fn is_closed(
    task: &Task,
    unit: &mut Unit,
    (kind, blocks): (OpKind, Blocks),
    (mail, shards): (&mut PeerMail, usize),
) -> bool {
    let own = match &task.work {
        Work::Atomic(atomic) => atomic.claim,
        _ => None,
    };
    if blocks.count == 0 {
        return false;
    }
    if unit.arbiter.admits(own, blocks) {
        return kind.modifies() && waits_for_token(unit, blocks, mail, shards);
    }
    unit.arbiter.join(&mut mail.words);
    mail.post(unit.id);
    true
}

/// Whether a token stands for some of these blocks, which are about to change, and its home has to give it up first.
fn waits_for_token(unit: &mut Unit, blocks: Blocks, mail: &mut PeerMail, shards: usize) -> bool {
    if unit.tokens.is_empty() {
        return false;
    }
    let mut others = ShardSet::first(shards);
    others.remove(mail.me);
    let waits = unit.tokens.touch(blocks, &mut Out { others, words: &mut mail.words });
    unit.arbiter.watch(!unit.tokens.is_empty());
    mail.post(unit.id);
    waits
}

/// Whether the medium is memory that READs are sent from.
pub(super) fn lends(unit: &Unit) -> bool {
    let block_bytes = unit.state.geometry.block_length() as usize;
    unit.queue.as_ref().is_some_and(|queue| queue.lend(0, block_bytes).is_some())
}

impl<D: Driver> Core<D> {
    /// What another shard says.
    pub fn hear_peer(&mut self, letter: PeerLetter) {
        let PeerLetter { from, unit: id, word } = letter;
        if let Word::Token(word) = word {
            return self.hear_of_token(from, id, word);
        }
        let Some(&key) = self.unit_keys.get(&id) else {
            arbiter::answer_for_nobody(from, &word, &mut self.peer_mail.words);
            return self.peer_mail.post(id);
        };
        let claims = match &word {
            Word::Claim(_) => true,
            Word::Welcome { claims, .. } => !claims.is_empty(),
            _ => false,
        };
        if claims {
            self.stop_lending(key);
        }
        let may_be_sending = self.may_be_sending(key);
        let unit = self.units.get_mut(key).expect("a unit with a name is there");
        if word == Word::Join {
            // Before it is welcome.
            unit.tokens.tell(from, &mut self.peer_mail.words);
        }
        unit.arbiter.hear(from, word, &mut self.peer_mail.words);
        if unit.tasks > 0 || unit.at_medium > 0 {
            unit.arbiter.note_work();
        } else if unit.arbiter.is_bored() && !may_be_sending {
            unit.arbiter.leave(&mut self.peer_mail.words);
            if unit.arbiter.is_absent() {
                unit.tokens.leave();
                unit.arbiter.watch(!unit.tokens.is_empty());
            }
        }
        self.advance_arbiter(key);
        // Blocks may be open again, or this shard a member.
        self.note_released();
    }

    /// Yields and grants where nothing is in the way any more.
    pub(super) fn advance_arbiter(&mut self, key: Key<Unit>) {
        let Some(unit) = self.units.get_mut(key) else { return };
        let (ops, at_medium) = (&self.ops, unit.at_medium);
        let lent = self.lent.iter().any(|wait| wait.unit == key);
        let is_busy = |blocks: Blocks| {
            lent || at_medium > 0 && ops.iter().any(|(_, op)| op.unit == key && op.blocks.overlaps(blocks))
        };
        let granted = unit.arbiter.advance(is_busy, &mut self.peer_mail.words);
        self.peer_mail.post(unit.id);
        if granted {
            self.note_released();
        }
    }

    /// Whether these blocks are this task's alone; it claims them first, and waits.
    pub(super) fn has_claim(&mut self, key: Key<Task>, blocks: Blocks) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return false };
        let Some(claim) = task.work.claim() else { return false };
        let unit_key = task.unit.expect("only commands of a unit claim blocks");
        let unit = self.units.get_mut(unit_key).expect("a unit stays while it has tasks");
        if !unit.arbiter.is_member() {
            unit.arbiter.join(&mut self.peer_mail.words);
            self.peer_mail.post(unit.id);
            return false;
        }
        if let Some(stamp) = *claim {
            return unit.arbiter.is_granted(stamp);
        }
        let stamp = unit.arbiter.claim(blocks, &mut self.peer_mail.words);
        *claim = Some(stamp);
        self.stop_lending(unit_key);
        self.advance_arbiter(unit_key);
        self.units.get(unit_key).is_some_and(|unit| unit.arbiter.is_granted(stamp))
    }

    /// A task that had blocks for itself has ended, and nothing of it is at the medium.
    pub(super) fn give_back_claim(&mut self, key: Key<Task>) {
        if let Some(Task { work: Work::Atomic(atomic), .. }) = self.tasks.get_mut(key) {
            atomic.buffers.clear();
        }
        self.open_claim(key);
    }

    /// The blocks are everybody's again.
    pub(super) fn open_claim(&mut self, key: Key<Task>) {
        let Some(Task { work, unit: Some(unit_key), .. }) = self.tasks.get_mut(key) else { return };
        let (claim, unit_key) = (work.claim().and_then(Option::take), *unit_key);
        if let (Some(stamp), Some(unit)) = (claim, self.units.get_mut(unit_key)) {
            unit.arbiter.open(stamp, &mut self.peer_mail.words);
            self.advance_arbiter(unit_key);
            self.note_released();
        }
    }

    /// The unit goes: nobody is to wait for this shard.
    pub(super) fn close_arbiter(&mut self, key: Key<Unit>) {
        let Some(unit) = self.units.get_mut(key) else { return };
        unit.arbiter.close(&mut self.peer_mail.words);
        self.peer_mail.post(unit.id);
        self.lent.retain(|wait| wait.unit != key);
    }

    // --- Media that lend -------------------------------------------------------------------------------------------

    /// Whether a connection may be sending bytes that the medium lent: a READ is over before they are through.
    fn may_be_sending(&self, key: Key<Unit>) -> bool {
        let Some(unit) = self.units.get(key) else { return false };
        unit.lends_from <= self.now && lends(unit) || self.lent.iter().any(|wait| wait.unit == key)
    }

    /// Bytes that are lent change under a READ while they are sent: from now on it has a copy.
    fn stop_lending(&mut self, key: Key<Unit>) {
        let now = self.now;
        let Some(unit) = self.units.get_mut(key) else { return };
        if !lends(unit) {
            return;
        }
        if unit.lends_from <= now {
            self.lent.push(LentWait { unit: key, sending: None });
        }
        unit.lends_from = now + LENDS_AFTER;
    }

    /// Sees whether bytes are sent that were lent before a claim. Asked in each turn between what has completed and what
    /// is sent next, so that a connection that is sending still sends what it sent before.
    pub fn settle_lent(&mut self, connections: &Slab<Connection>) {
        let mut lent = std::mem::take(&mut self.lent);
        lent.retain_mut(|wait| {
            let half_sent = |task: &Task| match &task.work {
                Work::Read(read) => {
                    read.lent && read.sent_bytes > 0 && read.sent_bytes < read.length_bytes && !task.aborted
                }
                _ => false,
            };
            let mut tasks = self.tasks.iter();
            if wait.sending.is_none()
                && tasks.any(|(_, task)| task.unit == Some(wait.unit) && half_sent(task))
            {
                return true;
            }
            let sending = wait.sending.get_or_insert_with(|| {
                connections.iter().filter(|(_, one)| one.sending).map(|(key, _)| key).collect()
            });
            sending.retain(|key| connections.get(*key).is_some_and(|one| one.sending));
            if sending.is_empty() {
                self.released = true;
            }
            !sending.is_empty()
        });
        self.lent = lent;
        for index in 0..self.units.places() {
            if let Some(key) = self.units.key_at(index)
                && self.units.get(key).is_some_and(|unit| !unit.arbiter.is_open())
            {
                self.advance_arbiter(key);
            }
        }
    }
}
