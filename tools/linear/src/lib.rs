//! Whether a history of commands on a few blocks could have happened one command at a time: linearisability (Herlihy and
//! Wing), judged as Wing and Gong do, at each answer, with all states that are possible so far (Lowe's "just in time").
//!
//! It knows nothing of SCSI but what the commands do to blocks. A block is one number, which fills it; commands on several
//! blocks are one operation, so that half of one is no state. Whoever records a history reads the clock before he sends a
//! command and after he has its answer.

use std::collections::HashSet;

/// Blocks of a region that is judged by itself.
pub const BLOCKS: usize = 4;

/// What the blocks of a region hold.
pub type State = [u64; BLOCKS];

/// Clients that may have a command under way at a time.
pub const CLIENTS_MAX: usize = 32;

/// A command and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who sent it; he has one at a time.
    pub client: usize,
    /// When it was sent.
    pub begun: u64,
    /// When its answer was there.
    pub ended: u64,
    /// What it was.
    pub operation: Operation,
}

/// What a command did, by its answer, from the block `first` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It read this.
    Read {
        /// Of the region.
        first: usize,
        /// Of each block.
        values: Vec<u64>,
    },
    /// It wrote this.
    Write {
        /// Of the region.
        first: usize,
        /// Of each block.
        values: Vec<u64>,
    },
    /// It added these bits.
    Or {
        /// Of the region.
        first: usize,
        /// To each block.
        bits: Vec<u64>,
    },
    /// It compared, and wrote where all was equal.
    CompareAndWrite {
        /// Of the region.
        first: usize,
        /// What was to be there.
        expected: Vec<u64>,
        /// What is there then.
        new: Vec<u64>,
        /// Where it differed: the block, from `first` on, and the byte of its number, most significant first.
        differs: Option<(usize, usize)>,
    },
}

impl Operation {
    /// What the blocks hold after it, if it could have had this answer with `state` before it.
    fn apply(&self, mut state: State) -> Option<State> {
        match self {
            Self::Read { first, values } => {
                (state.get(*first..first + values.len())? == &values[..]).then_some(state)
            }
            Self::Write { first, values } => {
                state.get_mut(*first..first + values.len())?.copy_from_slice(values);
                Some(state)
            }
            Self::Or { first, bits } => {
                let blocks = state.get_mut(*first..first + bits.len())?;
                blocks.iter_mut().zip(bits).for_each(|(block, bits)| *block |= bits);
                Some(state)
            }
            Self::CompareAndWrite { first, expected, new, differs } => {
                let blocks = state.get_mut(*first..first + expected.len())?;
                let found = blocks.iter().zip(expected).position(|(there, wanted)| there != wanted);
                let place = found.map(|block| {
                    let (there, wanted) = (blocks[block].to_be_bytes(), expected[block].to_be_bytes());
                    let byte = there.iter().zip(wanted).position(|(there, wanted)| *there != wanted);
                    (block, byte.expect("they are not equal"))
                });
                if place != *differs {
                    return None;
                }
                if place.is_none() {
                    blocks.copy_from_slice(new);
                }
                Some(state)
            }
        }
    }
}

/// An answer that no order of the commands explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The call that was answered so.
    pub call: Call,
    /// What was under way then, itself included.
    pub beside: Vec<Call>,
    /// What the blocks may have held before it and those beside it.
    pub states: Vec<State>,
}

/// Judges a history that began with `initial`. Each client's calls are in order.
///
/// # Errors
/// The first answer that cannot be.
///
/// # Panics
/// Where there are more clients than [`CLIENTS_MAX`], or one has two commands at a time.
pub fn check(initial: State, calls: &[Call]) -> Result<(), Box<Violation>> {
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * calls.len());
    for (at, call) in calls.iter().enumerate() {
        assert!(call.client < CLIENTS_MAX && call.begun <= call.ended, "{call:?}");
        events.push((call.begun, false, at));
        events.push((call.ended, true, at));
    }
    // At the same moment one may be beside the other: beginnings come first.
    events.sort_unstable();
    let mut pending: [Option<usize>; CLIENTS_MAX] = [None; CLIENTS_MAX];
    let mut possible: HashSet<(State, u32)> = HashSet::from([(initial, 0)]);
    for (_, ends, at) in events {
        let client = calls[at].client;
        if !ends {
            assert!(pending[client].replace(at).is_none(), "client {client} has two commands at a time");
            continue;
        }
        let after = answered(&possible, &pending, calls, client);
        if after.is_empty() {
            let beside = pending.iter().flatten().map(|at| calls[*at].clone()).collect();
            let mut states: Vec<State> = possible.iter().map(|(state, _)| *state).collect();
            states.sort_unstable();
            states.dedup();
            return Err(Box::new(Violation { call: calls[at].clone(), beside, states }));
        }
        possible = after;
        pending[client] = None;
    }
    Ok(())
}

/// What is possible when this client has its answer: commands under way may have happened before it, in any order.
fn answered(
    possible: &HashSet<(State, u32)>,
    pending: &[Option<usize>; CLIENTS_MAX],
    calls: &[Call],
    client: usize,
) -> HashSet<(State, u32)> {
    let mut seen = possible.clone();
    let mut rest: Vec<(State, u32)> = possible.iter().copied().collect();
    let mut after = HashSet::new();
    while let Some((state, done)) = rest.pop() {
        if done & 1 << client != 0 {
            after.insert((state, done & !(1 << client)));
            continue;
        }
        for (other, at) in pending.iter().enumerate() {
            let Some(at) = at.filter(|_| done & 1 << other == 0) else { continue };
            let Some(next) = calls[at].operation.apply(state) else { continue };
            let next = (next, done | 1 << other);
            if seen.insert(next) {
                rest.push(next);
            }
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(client: usize, begun: u64, ended: u64, operation: Operation) -> Call {
        Call { client, begun, ended, operation }
    }

    fn read(first: usize, values: &[u64]) -> Operation {
        Operation::Read { first, values: values.to_vec() }
    }

    fn swap(expected: &[u64], new: &[u64], differs: Option<(usize, usize)>) -> Operation {
        Operation::CompareAndWrite { first: 0, expected: expected.to_vec(), new: new.to_vec(), differs }
    }

    #[test]
    fn commands_beside_each_other_may_have_any_order_and_others_only_theirs() {
        let write = Operation::Write { first: 1, values: vec![7] };
        for seen in [0, 7] {
            let beside = [call(0, 1, 5, write.clone()), call(1, 2, 4, read(1, &[seen]))];
            assert_eq!(check([0; BLOCKS], &beside), Ok(()));
        }
        let after = [call(0, 1, 2, write), call(1, 3, 4, read(1, &[0]))];
        let violation = check([0; BLOCKS], &after).unwrap_err();
        assert_eq!((violation.call.client, violation.states), (1, vec![[0, 7, 0, 0]]));
    }

    #[test]
    fn of_two_that_compare_with_the_same_one_alone_succeeds() {
        let both = [call(0, 1, 9, swap(&[0], &[1], None)), call(1, 2, 8, swap(&[0], &[2], None))];
        assert!(check([0; BLOCKS], &both).is_err());
        let one = [call(0, 1, 9, swap(&[0], &[1], None)), call(1, 2, 8, swap(&[0], &[2], Some((0, 7))))];
        assert_eq!(check([0; BLOCKS], &one), Ok(()));
    }

    #[test]
    fn the_offset_of_a_difference_is_judged() {
        let at =
            |place| check([0x0100, 0x01ff, 0, 0], &[call(0, 1, 2, swap(&[0x0100, 0x0100], &[1, 1], place))]);
        assert_eq!(at(Some((1, 7))), Ok(()));
        for wrong in [None, Some((1, 6)), Some((0, 7))] {
            assert!(at(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn half_of_a_command_is_no_state() {
        let history = |values: &[u64]| {
            [
                call(0, 1, 9, Operation::Or { first: 0, bits: vec![1, 1] }),
                call(1, 2, 8, Operation::Write { first: 0, values: vec![4, 4] }),
                call(2, 3, 7, read(0, values)),
            ]
        };
        for right in [[0, 0], [1, 1], [4, 4], [5, 5]] {
            assert_eq!(check([0; BLOCKS], &history(&right)), Ok(()), "{right:?}");
        }
        for torn in [[0, 1], [4, 0], [5, 4]] {
            assert!(check([0; BLOCKS], &history(&torn)).is_err(), "{torn:?}");
        }
    }

    #[test]
    fn what_one_has_read_nobody_unreads() {
        let history = [
            call(0, 1, 9, Operation::Write { first: 0, values: vec![3] }),
            call(1, 2, 3, read(0, &[3])),
            call(1, 4, 5, read(0, &[0])),
        ];
        assert_eq!(check([0; BLOCKS], &history).unwrap_err().call, history[2]);
    }
}
