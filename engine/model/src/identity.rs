//! The names by which threads speak of shards, units, targets and sessions. Never an index into somebody else's table:
//! a value here stays true when the thing it named is gone.

use std::fmt;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

identity!(
    /// One shard: a core, its thread, its ring. Dense from 0, at most [`SHARDS_MAX`].
    ShardId,
    u16
);
identity!(
    /// One logical unit for as long as it is open. Never reused in a process's life.
    UnitId,
    u32
);
identity!(
    /// One target for as long as it is configured. Never reused in a process's life.
    TargetId,
    u32
);
identity!(
    /// One session, from the grant of its login to its end. Never reused, unlike its TSIH.
    SessionId,
    u64
);
identity!(
    /// What a shard asked of control and awaits an answer to. The shard chooses the value and matches it again.
    Ticket,
    u64
);
identity!(
    /// The version of a logical unit's shared state: each `Install` raises it by one.
    Generation,
    u64
);

/// Shards a process may have. Sets of shards are bit masks of this width.
pub const SHARDS_MAX: usize = 64;

/// A set of shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardSet(u64);

const _: () = assert!(SHARDS_MAX <= u64::BITS as usize);

impl ShardSet {
    /// The first `count` shards.
    ///
    /// # Panics
    /// When `count` is beyond [`SHARDS_MAX`].
    #[must_use]
    pub fn first(count: usize) -> Self {
        assert!(count <= SHARDS_MAX);
        if count == SHARDS_MAX { Self(u64::MAX) } else { Self((1 << count) - 1) }
    }

    /// Takes a shard out; tells whether it was in.
    pub fn remove(&mut self, shard: ShardId) -> bool {
        let bit = 1u64 << shard.0;
        let was = self.0 & bit != 0;
        self.0 &= !bit;
        was
    }

    /// Puts a shard in.
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1u64 << shard.0;
    }

    /// Whether `shard` is in.
    #[must_use]
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 & (1u64 << shard.0) != 0
    }

    /// All that are in, ascending.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..).map(ShardId).take(SHARDS_MAX).filter(move |shard| self.contains(*shard))
    }

    /// Whether nobody is in.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_empties_one_by_one() {
        let mut set = ShardSet::first(3);
        assert_eq!(set.len(), 3);
        assert!(set.remove(ShardId(1)));
        assert!(!set.remove(ShardId(1)), "it was already out");
        assert!(set.contains(ShardId(2)) && !set.contains(ShardId(3)));
        assert!(set.iter().eq([ShardId(0), ShardId(2)]));
        assert!(set.remove(ShardId(0)) && set.remove(ShardId(2)));
        assert!(set.is_empty());
        assert_eq!(ShardSet::first(SHARDS_MAX).len(), SHARDS_MAX);
    }
}
