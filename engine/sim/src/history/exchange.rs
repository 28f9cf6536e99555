//! COMPARE AND WRITE: of those that found the same, one alone can have replaced it.

use super::{History, Oracle, index};
use crate::stamp::{self, SECTOR_BYTES, WriteId};

impl History {
    /// COMPARE AND WRITE found `compared` from sector `first` on, and has replaced it by what `id` names.
    ///
    /// What was there comes back only when a write of it lands once more: one that was over before either was asked for
    /// does not.
    pub(crate) fn judge_exchange(&mut self, unit: usize, first: u64, compared: &[u8], id: WriteId) {
        if !self.units[unit].keeps {
            return;
        }
        let invoked = self.writes[&id].invoked;
        for (sector, bytes) in (first..).zip(compared.chunks_exact(SECTOR_BYTES)) {
            let found = stamp::parse(sector, bytes).and_then(|id| Some((id, self.writes.get(&id)?)));
            let Some((was, _)) = found.filter(|(_, write)| write.done < invoked) else { continue };
            let replaced = &mut self.units[unit].replaced;
            if let Some(other) = replaced.insert((index(sector), was), id) {
                let what =
                    format!("unit {unit} sector {sector}: {other:?} and {id:?} have both replaced {was:?}");
                return self.violate(Oracle::Data, what);
            }
        }
    }

    /// A COMPARE AND WRITE has found something else, and has written nothing.
    pub(crate) fn never_wrote(&mut self, id: WriteId, why: &'static str) {
        self.failed(id, why);
        let write = &self.writes[&id];
        if write.handed < write.done {
            let what = format!("unit {}: {id:?} {why}, and was handed to the medium", write.unit);
            self.violate(Oracle::Data, what);
        }
    }
}
