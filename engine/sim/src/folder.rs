//! The folder of ledgers: what is written is seen at once and durable when it is synced, names as well as contents.
//!
//! A write of a ledger takes several steps. A process can end between any two of them, and each can fail: the write is
//! made again from its beginning with the steps that were made before left out, so that the steps are
//! [`LedgerStore`](portico_control::ledger_store::LedgerStore)'s own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use portico_control::ledger_store::Folder;

use crate::random::Random;

/// Steps that the write of a ledger takes.
pub(crate) const STEPS: usize = 6;

/// A change of the names since they were made durable.
#[derive(Clone, Debug)]
enum Renaming {
    Made(String, usize),
    Gone(String),
    Moved(String, String),
}

#[derive(Debug)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since then. A power cut leaves some first ones of them.
    renamings: Vec<Renaming>,
    contents: Vec<Content>,
    /// The next step of the write in hand.
    step: usize,
    /// The steps of it that are made now.
    made: Range<usize>,
    /// The step that fails, and whether it does its work all the same.
    fails: Option<(usize, bool)>,
    /// Syncs do nothing.
    pub(crate) never_syncs: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimFolder(Rc<RefCell<State>>);

/// What comes of a step.
enum Step {
    Done,
    Make,
    /// Do it, and say that it failed.
    MakeAndFail,
    Fail(io::Error),
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// What a write ends with that goes on later.
pub(crate) const LATER: io::ErrorKind = io::ErrorKind::WouldBlock;

impl State {
    fn next_step(&mut self) -> Step {
        let step = self.step;
        self.step += 1;
        match self.fails {
            _ if step < self.made.start => Step::Done,
            _ if step >= self.made.end => Step::Fail(LATER.into()),
            Some((at, false)) if at == step => Step::Fail(io::Error::other("a simulated fault")),
            Some((at, true)) if at == step => Step::MakeAndFail,
            _ => Step::Make,
        }
    }

    fn rename(&mut self, renaming: Renaming) {
        apply(&mut self.names, &renaming);
        self.renamings.push(renaming);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, renaming: &Renaming) {
    match renaming {
        Renaming::Made(name, content) => {
            names.insert(name.clone(), *content);
        }
        Renaming::Gone(name) => {
            names.remove(name);
        }
        Renaming::Moved(from, to) => {
            if let Some(content) = names.remove(from) {
                names.insert(to.clone(), content);
            }
        }
    }
}

impl SimFolder {
    pub(crate) fn new(never_syncs: bool) -> Self {
        Self(Rc::new(RefCell::new(State { never_syncs, ..State::default() })))
    }

    /// A write begins, or goes on: these of its steps are made now.
    pub(crate) fn begin(&self, made: Range<usize>, fails: Option<(usize, bool)>) {
        let state = &mut *self.0.borrow_mut();
        (state.step, state.made, state.fails) = (0, made, fails);
    }

    /// The power fails.
    pub(crate) fn cut_power(&self, random: &mut Random) {
        let state = &mut *self.0.borrow_mut();
        let kept = random.index(state.renamings.len() + 1);
        for renaming in state.renamings.drain(..).take(kept) {
            apply(&mut state.durable_names, &renaming);
        }
        state.names.clone_from(&state.durable_names);
        for content in state.contents.iter_mut().filter(|content| content.seen != content.durable) {
            // All of it, nothing of it, or a part.
            match random.below(3) {
                0 => {}
                1 => content.seen.clone_from(&content.durable),
                _ => content.seen.truncate(random.index(content.seen.len().max(1))),
            }
            content.durable.clone_from(&content.seen);
        }
    }

    fn step(&self, make: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        match state.next_step() {
            Step::Done => Ok(()),
            Step::Make => make(state),
            Step::MakeAndFail => make(state).and(Err(io::Error::other("a simulated fault"))),
            Step::Fail(error) => Err(error),
        }
    }
}

impl Folder for SimFolder {
    fn elsewhere(&self, _path: &str) -> io::Result<Self> {
        Err(io::Error::other("the simulator has one folder"))
    }

    fn read(&self, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        let state = self.0.borrow();
        let content = &state.contents[*state.names.get(name).ok_or_else(not_found)?];
        Ok(content.seen.iter().take(bytes_max + 1).copied().collect())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.borrow().names.contains_key(name))
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.step(|state| {
            state.contents.push(Content { seen: content.to_vec(), durable: Vec::new() });
            state.rename(Renaming::Made(name.to_owned(), state.contents.len() - 1));
            Ok(())
        })
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        self.step(|state| {
            if !state.never_syncs {
                let at = *state.names.get(name).ok_or_else(not_found)?;
                let content = &mut state.contents[at];
                content.durable.clone_from(&content.seen);
            }
            Ok(())
        })
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        self.step(|state| {
            let content = *state.names.get(name).ok_or_else(not_found)?;
            state.rename(Renaming::Made(second.to_owned(), content));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|state| {
            state.rename(Renaming::Gone(name.to_owned()));
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|state| {
            state.names.get(from).ok_or_else(not_found)?;
            state.rename(Renaming::Moved(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.step(|state| {
            if !state.never_syncs {
                state.renamings.clear();
                state.durable_names.clone_from(&state.names);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use portico_control::ledger_store::{LedgerStore, Restored};
    use portico_scsi::ledger::Ledger;

    use super::*;

    const BOOT: [u8; 16] = [1; 16];

    #[test]
    fn a_write_takes_its_steps_in_two_parts_as_in_one() {
        for cut in 0..=STEPS {
            let folder = SimFolder::default();
            let store = LedgerStore::new(folder.clone(), BOOT);
            let content = Ledger::new().encode(BOOT);
            folder.begin(0..cut, None);
            let first = store.write("d0", &content);
            assert_eq!(first.is_ok(), cut == STEPS);
            folder.begin(cut..STEPS, None);
            store.write("d0", &content).expect("nothing is wrong");
            for seed in 0..20 {
                folder.cut_power(&mut Random::new(seed));
                assert_eq!(store.read("d0").expect("it is whole"), Restored::SameBoot(Ledger::new()));
            }
        }
    }

    #[test]
    fn a_power_cut_in_the_middle_leaves_a_ledger_that_can_be_relied_on() {
        for cut in 0..STEPS {
            for seed in 0..50 {
                let folder = SimFolder::default();
                let store = LedgerStore::new(folder.clone(), BOOT);
                let content = Ledger::new().encode(BOOT);
                folder.begin(0..STEPS, None);
                store.write("d0", &content).expect("nothing is wrong");
                folder.begin(0..cut, None);
                store.write("d0", &content).expect_err("it is not over");
                folder.cut_power(&mut Random::new(seed));
                assert_eq!(store.read("d0").expect("it is whole"), Restored::SameBoot(Ledger::new()));
            }
        }
    }
}
