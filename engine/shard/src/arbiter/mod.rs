//! Block ranges that one command has for itself on all shards (COMPARE AND WRITE, SBC-3 §5.2).
//!
//! Nobody is in charge. A shard that wants blocks claims them from every *member*, each shard that touches the unit's medium;
//! a member hands nothing more of them to the medium and yields when nothing of them is there. Claims of the same blocks
//! have an order ([`Stamp`]): a member does not yield to a claim before an earlier one of its own is through. So the first
//! of them gets every answer, and nobody waits in a circle. Claims of other blocks do not know each other. One message
//! each way is what it takes; where no other shard is a member, none.
//!
//! A shard becomes a member before its first piece, by asking all others what they claim, and stops being one when it has had
//! nothing to do for a while. A value without clock or queue: words in, words out. While nobody claims anything, all that
//! is asked of it is [`Arbiter::is_open`].

use portico_model::identity::{ShardId, ShardSet};
use portico_model::peer::{self, Stamp, Word};

use crate::tokens;
use crate::unit::Blocks;

#[cfg(test)]
mod storm;

/// Words to other shards, in order.
pub type Words = Vec<(ShardId, Word)>;

/// One shard's part in the claims of one unit.
#[derive(Debug)]
pub struct Arbiter {
    me: ShardId,
    others: ShardSet,
    standing: Standing,
    /// Other shards that touch the medium, as far as this one has to know: all of them while it is a member.
    members: ShardSet,
    clock: u64,
    claims: Vec<Claim>,
    /// Claims yielded to since there was last something to do here.
    idle_yields: u32,
    is_open: bool,
    /// Some blocks are a token's: whoever changes them looks first.
    is_watched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Absent,
    /// These have not answered yet.
    Joining(ShardSet),
    Member,
}

#[derive(Debug)]
struct Claim {
    stamp: Stamp,
    blocks: Blocks,
    side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Own {
        /// Members that have not yielded.
        awaited: ShardSet,
        /// Who has heard of it.
        told: ShardSet,
        granted: bool,
    },
    Foreign {
        yielded: bool,
    },
}

/// Claims that an idle member yields to before it stops being one.
const IDLE_YIELDS_MAX: u32 = 64;

impl Arbiter {
    /// Of the shard `me`, one of `shards`. Alone it is a member from the beginning.
    #[must_use]
    pub fn new(me: ShardId, shards: usize) -> Self {
        let mut others = ShardSet::first(shards);
        others.remove(me);
        let is_open = others.is_empty();
        Self {
            me,
            others,
            standing: if is_open { Standing::Member } else { Standing::Absent },
            members: ShardSet::default(),
            clock: 0,
            claims: Vec::new(),
            idle_yields: 0,
            is_open,
            is_watched: false,
        }
    }

    /// Whether any piece may be handed to the medium: this shard is a member, nobody claims anything, and there is no token.
    #[must_use]
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether there are tokens of the unit: none of its pieces goes past them unseen.
    pub fn watch(&mut self, is_watched: bool) {
        self.is_watched = is_watched;
        self.look();
    }

    /// Whether this shard neither touches the medium nor is about to.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.standing == Standing::Absent
    }

    /// Other shards that touch the medium, as far as this member knows.
    #[must_use]
    pub fn members(&self) -> ShardSet {
        self.members
    }

    /// Whether this shard may touch the medium where nothing is claimed.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.standing == Standing::Member
    }

    /// Whether a piece of a command may be handed over that itself claims them as `own`, or nothing.
    #[must_use]
    pub fn admits(&self, own: Option<Stamp>, blocks: Blocks) -> bool {
        if own.is_some_and(|own| self.is_granted(own)) {
            return true;
        }
        self.is_member() && !self.claims.iter().any(|claim| claim.blocks.overlaps(blocks))
    }

    /// Asks to be a member, if it is not asked yet.
    pub fn join(&mut self, words: &mut Words) {
        if self.standing == Standing::Absent {
            self.standing = Standing::Joining(self.others);
            words.extend(self.others.iter().map(|shard| (shard, Word::Join)));
        }
    }

    /// Claims `blocks`; [`Arbiter::advance`] tells when they are granted.
    ///
    /// # Panics
    /// Where this shard is no member.
    pub fn claim(&mut self, blocks: Blocks, words: &mut Words) -> Stamp {
        assert!(self.is_member(), "whoever claims touches the medium next");
        self.clock += 1;
        let stamp = Stamp { clock: self.clock, shard: self.me };
        let claim = peer::Claim { stamp, lba: blocks.lba, blocks: blocks.count };
        words.extend(self.members.iter().map(|shard| (shard, Word::Claim(claim))));
        let side = Side::Own { awaited: self.members, told: self.members, granted: false };
        self.claims.push(Claim { stamp, blocks, side });
        self.look();
        stamp
    }

    /// Whether this claim of our own is granted.
    #[must_use]
    pub fn is_granted(&self, stamp: Stamp) -> bool {
        let mut claims = self.claims.iter();
        claims.any(|claim| claim.stamp == stamp && matches!(claim.side, Side::Own { granted: true, .. }))
    }

    /// Gives a claim of our own back, granted or not.
    pub fn open(&mut self, stamp: Stamp, words: &mut Words) {
        let Some(at) = self.claims.iter().position(|claim| claim.stamp == stamp) else { return };
        if let Side::Own { told, .. } = self.claims.remove(at).side {
            words.extend(told.iter().map(|shard| (shard, Word::Open(stamp))));
        }
        self.look();
    }

    /// What another shard says.
    pub fn hear(&mut self, from: ShardId, word: Word, words: &mut Words) {
        match word {
            Word::Join => self.welcome(from, words),
            Word::Welcome { is_member, clock, claims } => {
                let Standing::Joining(awaited) = &mut self.standing else { return };
                awaited.remove(from);
                if awaited.is_empty() {
                    self.standing = Standing::Member;
                }
                self.clock = self.clock.max(clock);
                if is_member {
                    self.members.insert(from);
                }
                // This shard has nothing at the medium, and is not asked to yield to these.
                claims.into_iter().for_each(|claim| self.note(claim, true));
            }
            Word::Leave => {
                self.members.remove(from);
            }
            Word::Claim(claim) => {
                self.clock = self.clock.max(claim.stamp.clock);
                if self.standing == Standing::Absent {
                    words.push((from, Word::Yield(claim.stamp)));
                } else {
                    self.note(claim, false);
                }
            }
            Word::Yield(stamp) => {
                let mut claims = self.claims.iter_mut();
                if let Some(Claim { side: Side::Own { awaited, .. }, .. }) =
                    claims.find(|claim| claim.stamp == stamp)
                {
                    awaited.remove(from);
                }
            }
            Word::Open(stamp) => self.claims.retain(|claim| claim.stamp != stamp),
            Word::Token(_) => {}
        }
        self.look();
    }

    /// Another shard is about to touch the medium: it hears what is claimed here, and is asked from now on.
    fn welcome(&mut self, from: ShardId, words: &mut Words) {
        let is_member = self.standing != Standing::Absent;
        let mut claims = Vec::new();
        if is_member {
            self.members.insert(from);
            for claim in &mut self.claims {
                if let Side::Own { told, .. } = &mut claim.side {
                    told.insert(from);
                    let Blocks { lba, count } = claim.blocks;
                    claims.push(peer::Claim { stamp: claim.stamp, lba, blocks: count });
                }
            }
        }
        words.push((from, Word::Welcome { is_member, clock: self.clock, claims }));
    }

    fn note(&mut self, claim: peer::Claim, yielded: bool) {
        self.clock = self.clock.max(claim.stamp.clock);
        if self.claims.iter().all(|known| known.stamp != claim.stamp) {
            let blocks = Blocks { lba: claim.lba, count: claim.blocks };
            self.claims.push(Claim { stamp: claim.stamp, blocks, side: Side::Foreign { yielded } });
        }
    }

    /// Yields to others and grants our own claims where nothing is in the way any more: `is_busy` tells whether a piece of
    /// these blocks is at the medium here. Whether something was granted.
    pub fn advance(&mut self, is_busy: impl Fn(Blocks) -> bool, words: &mut Words) -> bool {
        let mut any = false;
        for at in 0..self.claims.len() {
            let Claim { stamp, blocks, side } = self.claims[at];
            let waits = match side {
                Side::Own { awaited, granted, .. } => !granted && awaited.is_empty(),
                Side::Foreign { yielded } => !yielded,
            };
            if !waits || self.claims.iter().any(|other| other.precedes(stamp, blocks)) || is_busy(blocks) {
                continue;
            }
            match &mut self.claims[at].side {
                Side::Own { granted, .. } => (*granted, any) = (true, true),
                Side::Foreign { yielded } => {
                    *yielded = true;
                    self.idle_yields = self.idle_yields.saturating_add(1);
                    words.push((stamp.shard, Word::Yield(stamp)));
                }
            }
        }
        any
    }

    /// Something is to be done here: it stays a member.
    pub fn note_work(&mut self) {
        self.idle_yields = 0;
    }

    /// Whether this member only answers others, and has done so for a while.
    #[must_use]
    pub fn is_bored(&self) -> bool {
        let own = |claim: &Claim| matches!(claim.side, Side::Own { .. });
        self.idle_yields > IDLE_YIELDS_MAX && self.is_member() && !self.claims.iter().any(own)
    }

    /// Nothing more of this member is at the medium, nor will be before it joins again.
    ///
    /// # Panics
    /// Where it claims something.
    pub fn leave(&mut self, words: &mut Words) {
        // Answers to an earlier `Join` would be taken for those to the next.
        if self.is_member() {
            self.close(words);
        }
    }

    /// As [`Arbiter::leave`], for good.
    ///
    /// # Panics
    /// Where it claims something.
    pub fn close(&mut self, words: &mut Words) {
        if self.others.is_empty() || self.standing == Standing::Absent {
            return;
        }
        for claim in self.claims.drain(..) {
            match claim.side {
                Side::Own { .. } => panic!("a claim ends before its shard leaves"),
                Side::Foreign { yielded: true } => {}
                Side::Foreign { yielded: false } => words.push((claim.stamp.shard, Word::Yield(claim.stamp))),
            }
        }
        // Those too that were asked to answer and have not: some of them count this shard already.
        words.extend(self.others.iter().map(|shard| (shard, Word::Leave)));
        self.members = ShardSet::default();
        self.standing = Standing::Absent;
        self.idle_yields = 0;
        self.look();
    }

    fn look(&mut self) {
        self.is_open = self.claims.is_empty() && self.is_member() && !self.is_watched;
    }
}

impl Claim {
    /// Whether it is one of our own that must be through before a claim of `blocks` with this stamp is.
    fn precedes(&self, stamp: Stamp, blocks: Blocks) -> bool {
        match self.side {
            Side::Own { granted, .. } => {
                self.stamp != stamp && (granted || self.stamp < stamp) && self.blocks.overlaps(blocks)
            }
            Side::Foreign { .. } => false,
        }
    }
}

/// What a shard says of a unit that it does not have: it touches nothing of it.
pub fn answer_for_nobody(from: ShardId, word: &Word, words: &mut Words) {
    match word {
        Word::Join => {
            words.push((from, Word::Welcome { is_member: false, clock: 0, claims: Vec::new() }));
        }
        Word::Claim(claim) => words.push((from, Word::Yield(claim.stamp))),
        Word::Token(word) => tokens::answer_for_nobody(from, word, words),
        Word::Welcome { .. } | Word::Leave | Word::Yield(_) | Word::Open(_) => {}
    }
}
