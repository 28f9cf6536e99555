//! The task set of one I_T_L nexus: in what order its commands begin, and whom an auto contingent allegiance keeps back
//! (SAM-5 §8, §5.9).
//!
//! TST is 001b: a task set is one session's at one LUN, and lies with all that is in it on one shard. As long as all commands
//! in it are SIMPLE and there is no ACA it is not restrained: every command begins as it comes, and nothing is kept of it
//! here.

use std::collections::VecDeque;

use portico_iscsi::wire::TaskAttribute;
use portico_scsi::sense::Outcome;

use crate::slab::Key;
use crate::task::Task;

/// What restrains the commands of a task set.
#[derive(Debug, Default)]
pub struct TaskSet {
    restrained: bool,
    /// Commands that have not begun, in the order in which they came.
    dormant: VecDeque<Dormant>,
    /// HEAD OF QUEUE commands.
    heads: u32,
    /// An ORDERED command has begun: nothing but HEAD OF QUEUE begins beside it.
    ordered: bool,
    aca: Option<Aca>,
}

#[derive(Debug, Clone, Copy)]
struct Dormant {
    task: Key<Task>,
    ordered: bool,
}

/// An auto contingent allegiance.
#[derive(Debug, Default)]
struct Aca {
    /// The command with the ACA attribute, of which there is one at a time.
    command: Option<Key<Task>>,
}

/// How a command enters its task set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It begins.
    Begins,
    /// It waits for its turn.
    Waits,
    /// It has the ACA attribute where there is no ACA.
    Nonsense,
}

/// What a CHECK CONDITION did to the ACA of its task set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faulted {
    /// Nothing.
    Nothing,
    /// There is one now, or another one.
    Established,
    /// There is none any more.
    Cleared,
}

impl TaskSet {
    /// Whether anything has to be asked here before a command begins, or told when one ends.
    #[must_use]
    #[inline]
    pub fn is_restrained(&self) -> bool {
        self.restrained
    }

    /// Whether an ACA keeps commands back.
    #[must_use]
    pub fn has_aca(&self) -> bool {
        self.aca.is_some()
    }

    /// The command with the ACA attribute.
    #[must_use]
    pub fn aca_command(&self) -> Option<Key<Task>> {
        self.aca.as_ref()?.command
    }

    /// Whether a command may come into the set: during an ACA one with the ACA attribute alone, one at a time (SAM-5 §5.9.3).
    ///
    /// # Errors
    /// ACA ACTIVE.
    pub fn admits(&self, attribute: TaskAttribute) -> Result<(), Outcome> {
        match (&self.aca, attribute) {
            (None, _) | (Some(Aca { command: None }), TaskAttribute::Aca) => Ok(()),
            (Some(_), _) => Err(Outcome::ACA_ACTIVE),
        }
    }

    /// A command that was admitted comes into the set, in which there are so many others.
    pub fn enter(&mut self, task: Key<Task>, attribute: TaskAttribute, others: u32) -> Entered {
        let entered = match attribute {
            TaskAttribute::Aca => match &mut self.aca {
                Some(aca) => {
                    aca.command = Some(task);
                    Entered::Begins
                }
                None => Entered::Nonsense,
            },
            TaskAttribute::HeadOfQueue => {
                self.heads += 1;
                Entered::Begins
            }
            TaskAttribute::Ordered if others == 0 => {
                self.ordered = true;
                Entered::Begins
            }
            TaskAttribute::Ordered => self.wait(task, true),
            TaskAttribute::Simple | TaskAttribute::Untagged => {
                if self.dormant.is_empty() && self.heads == 0 && !self.ordered {
                    Entered::Begins
                } else {
                    self.wait(task, false)
                }
            }
        };
        self.restrain();
        entered
    }

    fn wait(&mut self, task: Key<Task>, ordered: bool) -> Entered {
        self.dormant.push_back(Dormant { task, ordered });
        Entered::Waits
    }

    /// A command has ended, in whatever way, begun or not. Tells whether others may begin now.
    pub fn leave(&mut self, task: Key<Task>, attribute: TaskAttribute) -> bool {
        if let Some(at) = self.dormant.iter().position(|dormant| dormant.task == task) {
            self.dormant.remove(at);
        } else {
            match attribute {
                TaskAttribute::HeadOfQueue => self.heads -= 1,
                TaskAttribute::Ordered => self.ordered = false,
                TaskAttribute::Aca => {
                    let own = |aca: &&mut Aca| aca.command == Some(task);
                    self.aca.as_mut().filter(own).into_iter().for_each(|aca| aca.command = None);
                }
                TaskAttribute::Simple | TaskAttribute::Untagged => {}
            }
        }
        self.restrain();
        !self.dormant.is_empty()
    }

    /// Whether a command waits for its turn.
    #[must_use]
    pub fn is_dormant(&self, task: Key<Task>) -> bool {
        self.dormant.iter().any(|dormant| dormant.task == task)
    }

    /// The next command that begins, if one may, of a set in which there are `commands`: ORDERED ones when they are alone with
    /// those behind them, SIMPLE ones when no HEAD OF QUEUE and no earlier ORDERED one is left (SAM-5 §8.6).
    pub fn next(&mut self, commands: u32) -> Option<Key<Task>> {
        let first = *self.dormant.front()?;
        let begun = commands as usize - self.dormant.len();
        let begins = if first.ordered { begun == 0 } else { self.heads == 0 && !self.ordered };
        if !begins || self.aca.is_some() {
            return None;
        }
        self.dormant.pop_front();
        self.ordered |= first.ordered;
        self.restrain();
        Some(first.task)
    }

    /// A command of the set ended with CHECK CONDITION, with this NACA bit (SAM-5 §5.9.2, §5.9.5): one with the ACA attribute
    /// clears the ACA that there was.
    pub fn fault(&mut self, task: Key<Task>, naca: bool) -> Faulted {
        let clears = self.aca.as_ref().is_some_and(|aca| aca.command == Some(task));
        let faulted = match (naca, clears) {
            (true, _) => Faulted::Established,
            (false, true) => Faulted::Cleared,
            (false, false) => Faulted::Nothing,
        };
        if clears || naca {
            self.aca = naca.then(Aca::default);
        }
        self.restrain();
        faulted
    }

    /// There is no ACA any more; tells whether there was one.
    pub fn clear_aca(&mut self) -> bool {
        let cleared = self.aca.take().is_some();
        self.restrain();
        cleared
    }

    fn restrain(&mut self) {
        self.restrained = !self.dormant.is_empty() || self.heads > 0 || self.ordered || self.aca.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ATTRIBUTES: [TaskAttribute; 4] =
        [TaskAttribute::Untagged, TaskAttribute::Simple, TaskAttribute::Ordered, TaskAttribute::HeadOfQueue];

    fn key(number: u64) -> Key<Task> {
        Key::from_bits(number)
    }

    /// One that the model knows: when it came, how, and whether it has begun.
    #[derive(Debug, Clone, Copy)]
    struct Known {
        number: u64,
        attribute: TaskAttribute,
        begun: bool,
    }

    /// SAM-5 §8.6, read anew: whether the command at this place of a list in the order of coming may have begun.
    fn may_begin(set: &[Known], at: usize) -> bool {
        let heads = set.iter().any(|known| known.attribute == TaskAttribute::HeadOfQueue);
        match set[at].attribute {
            TaskAttribute::HeadOfQueue => true,
            TaskAttribute::Ordered => !heads && at == 0,
            _ => !heads && !set[..at].iter().any(|known| known.attribute == TaskAttribute::Ordered),
        }
    }

    proptest! {
        /// Commands come and end, in any order, those too that have not begun; what has begun might at some time, and nothing
        /// is left waiting that may begin.
        #[test]
        fn commands_begin_when_the_standard_lets_them(steps: Vec<(bool, u8)>) {
            let mut tested = TaskSet::default();
            let mut model: Vec<Known> = Vec::new();
            for (number, (comes, choice)) in (0..).zip(steps) {
                if comes || model.is_empty() {
                    let attribute = ATTRIBUTES[usize::from(choice) % ATTRIBUTES.len()];
                    let others = u32::try_from(model.len()).unwrap();
                    let begun = tested.enter(key(number), attribute, others) == Entered::Begins;
                    model.push(Known { number, attribute, begun });
                    prop_assert_eq!(begun, may_begin(&model, model.len() - 1));
                } else {
                    let gone = model.remove(usize::from(choice) % model.len());
                    tested.leave(key(gone.number), gone.attribute);
                    while let Some(next) = tested.next(u32::try_from(model.len()).unwrap()) {
                        let at = model.iter().position(|known| key(known.number) == next).unwrap();
                        prop_assert!(!model[at].begun && may_begin(&model, at));
                        model[at].begun = true;
                    }
                    let left = (0..model.len()).find(|at| !model[*at].begun && may_begin(&model, *at));
                    prop_assert_eq!(left, None);
                }
            }
            for known in model.clone() {
                tested.leave(key(known.number), known.attribute);
            }
            prop_assert!(!tested.is_restrained());
        }
    }

    #[test]
    fn during_an_aca_one_command_with_its_attribute_is_let_in_at_a_time() {
        let mut set = TaskSet::default();
        assert_eq!(set.enter(key(1), TaskAttribute::Aca, 0), Entered::Nonsense);
        assert!(!set.is_restrained());
        assert_eq!(set.fault(key(2), true), Faulted::Established);
        for attribute in ATTRIBUTES {
            assert_eq!(set.admits(attribute), Err(Outcome::ACA_ACTIVE));
        }
        assert_eq!(set.admits(TaskAttribute::Aca), Ok(()));
        assert_eq!(set.enter(key(3), TaskAttribute::Aca, 0), Entered::Begins);
        assert_eq!(set.admits(TaskAttribute::Aca), Err(Outcome::ACA_ACTIVE));
        set.leave(key(3), TaskAttribute::Aca);
        assert_eq!(set.admits(TaskAttribute::Aca), Ok(()));
        assert!(set.clear_aca() && !set.clear_aca());
        assert!(!set.is_restrained());
    }

    #[test]
    fn a_command_with_the_aca_attribute_that_fails_clears_the_aca_or_establishes_another() {
        let mut set = TaskSet::default();
        set.fault(key(1), true);
        set.enter(key(2), TaskAttribute::Aca, 0);
        assert_eq!(set.fault(key(2), true), Faulted::Established);
        assert_eq!(set.aca_command(), None);
        set.enter(key(3), TaskAttribute::Aca, 0);
        assert_eq!(set.fault(key(4), false), Faulted::Nothing);
        assert_eq!(set.fault(key(3), false), Faulted::Cleared);
        assert!(!set.has_aca());
    }

    #[test]
    fn nothing_begins_during_an_aca() {
        let mut set = TaskSet::default();
        set.enter(key(1), TaskAttribute::Ordered, 0);
        set.enter(key(2), TaskAttribute::Simple, 1);
        set.fault(key(1), true);
        assert!(set.leave(key(1), TaskAttribute::Ordered));
        assert_eq!(set.next(1), None);
        set.clear_aca();
        assert_eq!(set.next(1), Some(key(2)));
    }
}
