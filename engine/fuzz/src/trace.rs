//! What happened while an input ran: marks, of which a campaign counts the different ones.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The marks of one run.
#[derive(Debug, Default)]
pub struct Trace {
    marks: HashSet<u64>,
    last: u64,
}

impl Trace {
    /// Something happened; and it happened after what was marked before.
    pub fn mark(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let mark = hasher.finish();
        self.marks.insert(mark);
        self.marks.insert(mark ^ self.last.rotate_left(1));
        self.last = mark;
    }

    /// A value happened, whatever its fields: the name of its variant counts.
    pub fn mark_kind(&mut self, what: &impl Debug) {
        let text = format!("{what:?}");
        let names = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).take(2);
        self.mark(names.collect::<Vec<_>>());
    }

    pub(crate) fn take(&mut self) -> HashSet<u64> {
        self.last = 0;
        std::mem::take(&mut self.marks)
    }
}
