//! Commands that change who may use a unit.

use crate::hub::Hub;
use crate::initiator::Initiator;

use super::What;

/// RESERVE or RELEASE, as `what` says, where initiators do not register.
pub(super) fn draw(initiator: &Initiator, hub: &Hub, unit: usize, what: What) -> Option<What> {
    let registers = hub.disks[unit].character.registers.is_some();
    (!registers && may_ask(initiator, unit)).then_some(what)
}

/// Whether this initiator may ask for such a change now: one at a time, so that it knows what its answer means.
fn may_ask(initiator: &Initiator, unit: usize) -> bool {
    let asks = |what: &What| matches!(what, What::Reserve | What::Release);
    let mut pending = initiator.pending.values();
    initiator.habits.fences && !pending.any(|one| one.wish.unit == unit && asks(&one.wish.what))
}
