//! How much the pool below a thin unit has left: asked for again and again as long as the device can tell.

use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::identity::UnitId;
use portico_scsi::space::Space;

use super::units::Medium;
use super::{Control, Level, Order, Orders};
use crate::fence::Errand;

/// How long after an answer the pool is asked about again.
pub(super) const SURVEY_INTERVAL: Duration = Duration::from_secs(10);

impl<M: Clone> Control<M> {
    /// Asks how much the pool below a unit has left, if it is a thin one.
    pub(super) fn survey(&mut self, id: UnitId, orders: &mut Orders<M>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.survey_at = Moment::NEVER;
        if let Medium::Open { medium, .. } = &unit.medium
            && unit.device.thin_provisioned
            && unit.closing.is_none()
        {
            orders.push(Order::SurveySpace { unit: id, medium: medium.clone() });
        }
    }

    /// The answer; `None` where the device cannot tell, which is not asked again.
    pub(super) fn surveyed(&mut self, id: UnitId, space: Option<Space>, now: Moment, orders: &mut Orders<M>) {
        let (Some(unit), Some(space)) = (self.units.get_mut(&id), space) else { return };
        unit.survey_at = now + SURVEY_INTERVAL;
        let was_low = unit.fence.space_is_low();
        self.errand(id, Errand::Space(space), now, orders);
        if let Some(unit) = self.units.get(&id).filter(|unit| !was_low && unit.fence.space_is_low()) {
            let (name, bytes) = (&unit.name, space.available_bytes);
            let line = format!("device {name}: what it lies on has {bytes} bytes left. Initiators are told");
            orders.push(Order::Log(Level::Warning, line));
        }
    }
}
