//! Commands that change who may use a unit.

use crate::initiator::Initiator;

use super::What;

/// Whether this initiator may ask for such a change now: one at a time, so that it knows what its answer means.
pub(super) fn may_ask(initiator: &Initiator, unit: usize) -> bool {
    let asks = |what: &What| matches!(what, What::Reserve | What::Release);
    let mut pending = initiator.pending.values();
    initiator.habits.fences && !pending.any(|one| one.wish.unit == unit && asks(&one.wish.what))
}
