//! The end of the process: new work is refused, what is in flight is finished and flushed, then every shard stops.

use std::time::Duration;

use portico_iscsi::moment::Moment;
use portico_model::identity::{ShardId, ShardSet, UnitId};
use portico_model::message::ToShard;

use super::units::Medium;
use super::{Control, Exit, Level, Order, Orders, Stage};

/// How long shards may take to finish what is in flight. Below what service managers grant (90 s) and above what a slow
/// disk's cache takes.
pub const QUIESCE_PATIENCE: Duration = Duration::from_secs(60);

impl<M: Clone> Control<M> {
    pub(super) fn shut_down(&mut self, now: Moment, orders: &mut Orders<M>) {
        match self.stage {
            Stage::Starting | Stage::Serving => {
                self.applying = None;
                self.next_apply = None;
                let missing = ShardSet::first(self.shards);
                self.stage = Stage::Quiescing { missing, until: now + QUIESCE_PATIENCE, flushed: true };
                self.portals.clear();
                self.broadcast(orders, || ToShard::Listen(Vec::new()));
                self.broadcast(orders, || ToShard::Quiesce);
            }
            Stage::Quiescing { .. } => {
                self.end(
                    Exit::Unclean("told a second time to end: what was in flight is lost".to_owned()),
                    orders,
                );
            }
            Stage::Over => {}
        }
    }

    pub(super) fn quiesced(&mut self, shard: ShardId, failed_flushes: &[UnitId], orders: &mut Orders<M>) {
        let names: Vec<&str> =
            failed_flushes.iter().filter_map(|id| self.units.get(id)).map(|unit| &*unit.name).collect();
        for name in names {
            let line = format!("device {name}: the last flush failed: what was written may be lost");
            orders.push(Order::Log(Level::Error, line));
        }
        let Stage::Quiescing { missing, flushed, .. } = &mut self.stage else { return };
        missing.remove(shard);
        *flushed &= failed_flushes.is_empty();
        if missing.is_empty() {
            let exit = match *flushed {
                true => Exit::Clean,
                false => Exit::Unclean("what was written last could not be flushed".to_owned()),
            };
            self.end(exit, orders);
        }
    }

    pub(super) fn expire_ending(&mut self, now: Moment, orders: &mut Orders<M>) {
        if let Stage::Quiescing { missing, until, .. } = self.stage
            && until <= now
        {
            let reason =
                format!("{} shards did not finish in {} s", missing.len(), QUIESCE_PATIENCE.as_secs());
            self.end(Exit::Unclean(reason), orders);
        }
    }

    /// The other shards cannot go on without it: its sessions' state is lost, and initiators come back to a new process.
    pub(super) fn shard_failed(&mut self, shard: ShardId, reason: &str, orders: &mut Orders<M>) {
        self.end(Exit::Unclean(format!("shard {shard} failed: {reason}")), orders);
    }

    pub(super) fn end(&mut self, exit: Exit, orders: &mut Orders<M>) {
        if self.stage == Stage::Over {
            return;
        }
        self.stage = Stage::Over;
        self.broadcast(orders, || ToShard::Stop);
        let units = std::mem::take(&mut self.units);
        for (unit, state) in units {
            if let Medium::Open { medium, .. } = state.medium {
                orders.push(Order::CloseDevice { unit, medium });
            }
        }
        let (waiting, _) = self.collection.finish();
        orders.extend(waiting.into_iter().map(|query| Order::Answer(query, None)));
        orders.push(Order::Exit(exit));
    }
}
