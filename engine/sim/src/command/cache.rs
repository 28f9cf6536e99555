//! MODE SELECT with the caching page: the write cache on or off (SBC-3 §6.5.5).

use portico_iscsi::initiator::Direction;

use crate::history::{End, Serial, Step};
use crate::hub::Hub;
use crate::initiator::Initiator;

use super::{Cdb, Ended, What};

/// A header without block descriptors (SPC-4 §7.5.4), and the page.
const LIST_BYTES: u8 = 4 + 20;

/// One MODE SELECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModeSelect {
    /// WCE.
    on: bool,
    asked: Step,
}

pub(super) fn mode_select(initiator: &Initiator, hub: &mut Hub, _unit: usize) -> Option<What> {
    let on = hub.random.chance(1, 2);
    initiator.habits.tunes.then_some(What::ModeSelect(ModeSelect { on, asked: 0 }))
}

/// MODE SELECT (6) with PF.
pub(super) fn mode_select_cdb() -> Cdb {
    let cdb = Cdb::without_data([0x15, 0x10, 0, 0, LIST_BYTES, 0, 0, 0, 0, 0]);
    Cdb { direction: Direction::Write, data_bytes: LIST_BYTES.into(), ..cdb }
}

impl ModeSelect {
    pub(super) fn begin(
        &mut self,
        hub: &mut Hub,
        unit: usize,
        (port, session): (usize, Serial),
        list: &mut [u8],
    ) {
        self.asked = hub.history.cache_asked(unit, (port, session));
        list[4..7].copy_from_slice(&[0x08, 0x12, u8::from(self.on) << 2]);
    }

    pub(super) fn judge(self, hub: &mut Hub, unit: usize, session: Serial, end: Ended) {
        match end {
            Ended::Good => {
                hub.history.cache_set(unit, session, self.asked, self.on);
                if !self.on {
                    hub.opportune = Some(End::PowerCut);
                }
            }
            Ended::Conflict | Ended::Refused => hub.history.cache_kept(unit, session, self.asked, true),
            Ended::Miscompare | Ended::Otherwise => {
                hub.history.cache_kept(unit, session, self.asked, false);
            }
        }
    }
}
