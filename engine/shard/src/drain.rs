//! The shard's half of the fence: which pieces at the medium a new state still waits for.
//!
//! A piece that the new state refuses, or whose task it aborts, is marked with the generation that waits for it. An
//! `Installed` leaves only when the pieces of its generation, and of every generation before it, are off the medium.

use std::collections::VecDeque;

use portico_model::identity::Generation;

/// The generations of one logical unit that are not yet answered.
#[derive(Debug, Default)]
pub struct Drains {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    generation: Generation,
    pieces: u32,
}

impl Drains {
    /// A new generation that waits for `pieces` which no earlier one waits for already.
    pub fn begin(&mut self, generation: Generation, pieces: u32) {
        debug_assert!(self.waiting.back().is_none_or(|last| last.generation < generation));
        self.waiting.push_back(Waiting { generation, pieces });
    }

    /// A piece that `generation` waited for is off the medium.
    ///
    /// # Panics
    /// When nobody waited for it: the mark on the piece was wrong.
    pub fn piece_done(&mut self, generation: Generation) {
        let waiting = self
            .waiting
            .iter_mut()
            .find(|waiting| waiting.generation == generation)
            .expect("a marked piece is waited for");
        waiting.pieces = waiting.pieces.checked_sub(1).expect("each piece is waited for once");
    }

    /// The next generation that may be answered, in order.
    pub fn next_installed(&mut self) -> Option<Generation> {
        if self.waiting.front()?.pieces > 0 {
            return None;
        }
        self.waiting.pop_front().map(|waiting| waiting.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_generation_waits_for_the_pieces_of_an_earlier_one() {
        let mut drains = Drains::default();
        drains.begin(Generation(1), 2);
        drains.begin(Generation(2), 0);
        assert_eq!(drains.next_installed(), None);
        drains.piece_done(Generation(1));
        assert_eq!(drains.next_installed(), None, "one piece of generation 1 is still out");
        drains.piece_done(Generation(1));
        assert_eq!(drains.next_installed(), Some(Generation(1)));
        assert_eq!(drains.next_installed(), Some(Generation(2)));
        assert_eq!(drains.next_installed(), None);
    }
}
