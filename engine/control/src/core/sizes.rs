//! Another size of a device while it is open: the configuration asks for one, an administrator made a file or a disk longer,
//! a cluster tells of an image that was resized.
//!
//! Whichever it was, it comes to [`Control::resized`]: *this device now has so many bytes*. The new capacity goes through
//! the unit's fence like every change of shared state. Every shard answers commands by it, tells every nexus (2A/09
//! CAPACITY DATA HAS CHANGED), and lets what is at the medium beyond the new end come back before it says `Installed`. A
//! medium that grows is made longer before that, one that shrinks is not made shorter at all.

use std::sync::Arc;

use portico_iscsi::moment::Moment;
use portico_model::identity::UnitId;

use super::units::Medium;
use super::{Control, Level, Order, Orders};
use crate::fence::Errand;
use crate::identity::{Extent, logical_unit};

/// What is under way about a unit's size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizing {
    /// An order is with a helper.
    ordered: bool,
    /// Something has changed since: once more when it is back.
    again: bool,
    /// What was announced while the device was being opened: the opening may have looked before that.
    pub(super) announced_bytes: Option<u64>,
}

impl<M: Clone> Control<M> {
    /// The configuration was read again: a device may be asked to have another size, or may have got one.
    pub(super) fn look_at_size(&mut self, id: UnitId, orders: &mut Orders<M>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let Medium::Open { medium, .. } = &unit.medium else { return };
        if std::mem::replace(&mut unit.sizing.ordered, true) {
            unit.sizing.again = true;
            return;
        }
        let (device, medium) = (Arc::clone(&unit.device), medium.clone());
        orders.push(Order::ResizeDevice { unit: id, device, medium });
    }

    /// A helper thread has looked, and made the medium longer where it was to.
    pub(super) fn device_resized(
        &mut self,
        id: UnitId,
        result: Result<u64, String>,
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| unit.closing.is_none()) else { return };
        unit.sizing.ordered = false;
        if std::mem::take(&mut unit.sizing.again) {
            return self.look_at_size(id, orders);
        }
        match result {
            Ok(size_bytes) => self.resized(id, size_bytes, now, orders),
            Err(reason) => {
                let line = format!("device {} keeps its size: {reason}", unit.name);
                orders.push(Order::Log(Level::Error, line));
            }
        }
    }

    /// This device now has so many bytes, and its medium takes them.
    pub(super) fn resized(&mut self, id: UnitId, size_bytes: u64, now: Moment, orders: &mut Orders<M>) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| unit.closing.is_none()) else { return };
        // A helper may have looked before this: what it comes back with is looked up once more.
        unit.sizing.again |= unit.sizing.ordered;
        let extent = match &mut unit.medium {
            Medium::Open { extent, .. } => extent,
            Medium::Opening { .. } => {
                unit.sizing.announced_bytes = Some(size_bytes);
                return;
            }
            Medium::Failed { .. } | Medium::Never => return,
        };
        let resized = Extent { size_bytes, ..*extent };
        if resized == *extent {
            return;
        }
        match logical_unit(&unit.device, self.setup_id, Some(resized)) {
            Ok(state) => {
                *extent = resized;
                let (before, blocks) = (unit.fence.state().geometry.blocks(), state.geometry.blocks());
                if blocks != before {
                    let line = format!("device {} has {blocks} blocks now, and had {before}", unit.name);
                    orders.push(Order::Log(Level::Info, line));
                }
                self.errand(id, Errand::Reconfigured(Box::new(state)), now, orders);
            }
            Err(reason) => {
                let line = format!("device {} keeps its size: {reason}", unit.name);
                orders.push(Order::Log(Level::Error, line));
            }
        }
    }
}
