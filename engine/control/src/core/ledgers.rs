//! Reads and writes of ledgers, those of one file one after the other.
//!
//! A unit can go while a helper still writes its ledger, and another one come in its place, of the same device and with the
//! same file: what the helper writes must be seen by the newcomer, and must not replace what the newcomer writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use portico_model::identity::UnitId;

use super::{Control, Order, Orders};

/// What is to be done with a file.
#[derive(Debug)]
pub(super) enum Work {
    Read,
    Write(Vec<u8>),
}

/// The files that are being read or written, each with what waits for it. Bounded: a unit has one such work at a time.
#[derive(Debug, Default)]
pub(super) struct Ledgers {
    files: BTreeMap<Arc<str>, VecDeque<(UnitId, Work)>>,
    /// The file that a unit's helper has in hand.
    in_hand: BTreeMap<UnitId, Arc<str>>,
}

impl<M: Clone> Control<M> {
    /// Has a ledger read or written, when nobody else is at its file.
    pub(super) fn at_ledger(&mut self, unit: UnitId, ledger: &Arc<str>, work: Work, orders: &mut Orders<M>) {
        if let Some(waiting) = self.ledgers.files.get_mut(ledger) {
            waiting.push_back((unit, work));
        } else {
            self.ledgers.files.insert(Arc::clone(ledger), VecDeque::new());
            self.begin_at_ledger(unit, Arc::clone(ledger), work, orders);
        }
    }

    fn begin_at_ledger(&mut self, unit: UnitId, ledger: Arc<str>, work: Work, orders: &mut Orders<M>) {
        self.ledgers.in_hand.insert(unit, Arc::clone(&ledger));
        orders.push(match work {
            Work::Read => Order::ReadLedger { unit, ledger },
            Work::Write(content) => Order::WriteLedger { unit, ledger, content },
        });
    }

    /// A helper is through with the file of a unit.
    pub(super) fn ledger_is_free(&mut self, unit: UnitId, orders: &mut Orders<M>) {
        let ledger = self.ledgers.in_hand.remove(&unit).expect("a helper is asked before it answers");
        let waiting = self.ledgers.files.get_mut(&ledger).expect("a file in hand is listed");
        match waiting.pop_front() {
            Some((unit, work)) => self.begin_at_ledger(unit, ledger, work, orders),
            None => {
                self.ledgers.files.remove(&ledger);
            }
        }
    }
}
