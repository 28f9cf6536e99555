//! What control tells of itself and of everything: rounds of collection, snapshots, the summary of what is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_iscsi::moment::Moment;
use portico_model::configuration::LunMapping;
use portico_model::identity::UnitId;
use portico_model::message::ToShard;

use super::units::{Medium, Unit};
use super::{Control, LunSummary, Order, Orders, QueryId, Summary, TargetSummary};
use crate::metrics::{LunLabel, SessionSnapshot, Snapshot, TargetSnapshot, UnitSnapshot};

impl<M: Clone> Control<M> {
    /// Somebody wants a snapshot: all shards are asked first.
    pub(super) fn ask(&mut self, query: QueryId, now: Moment, orders: &mut Orders<M>) {
        if self.collection.ask(query) {
            self.begin_round(now, orders);
        } else {
            orders.push(Order::Answer(query, None));
        }
    }

    pub(super) fn begin_round(&mut self, now: Moment, orders: &mut Orders<M>) {
        let units = self.units.iter().filter(|(_, unit)| unit.closing.is_none()).map(|(id, _)| *id);
        for (shard, spare) in self.collection.begin(units, now) {
            orders.push(Order::ToShard(shard, ToShard::CollectMeters(spare)));
        }
    }

    pub(super) fn finish_round(&mut self, now: Moment, orders: &mut Orders<M>) {
        let (waiting, late) = self.collection.finish();
        if waiting.is_empty() {
            return;
        }
        let snapshot = Arc::new(self.snapshot(late, now));
        orders.extend(waiting.into_iter().map(|query| Order::Answer(query, Some(Arc::clone(&snapshot)))));
    }

    fn snapshot(&self, shards_late: u32, now: Moment) -> Snapshot {
        let names: BTreeMap<_, Arc<str>> =
            self.target_ids.iter().map(|(name, id)| (*id, name.as_str().into())).collect();
        let mut labels = self.lun_labels();
        Snapshot {
            taken: now,
            units: self
                .units
                .iter()
                .map(|(id, unit)| self.unit_snapshot(*id, unit, labels.remove(id).unwrap_or_default()))
                .collect(),
            shards: self.collection.shards(),
            sessions: self
                .registry
                .iter()
                .map(|(id, session)| SessionSnapshot {
                    session: id,
                    initiator: Arc::clone(&session.initiator),
                    target: session.target.and_then(|target| names.get(&target).cloned()),
                    shard: session.shard,
                    peer: session.peer,
                })
                .collect(),
            targets: self
                .configuration
                .targets
                .iter()
                .map(|target| {
                    let id = self.target_ids.get(&target.name);
                    TargetSnapshot {
                        name: target.name.as_str().into(),
                        enabled: self.configuration.serves(target),
                        sessions: id.map_or(0, |id| self.registry.count_of(*id) as u64),
                    }
                })
                .collect(),
            login_failures: self.collection.login_failures(),
            control: self.counters,
            shards_late,
        }
    }

    fn unit_snapshot(&self, id: UnitId, unit: &Unit<M>, luns: Vec<LunLabel>) -> UnitSnapshot {
        let geometry = &unit.fence.state().geometry;
        let open = matches!(unit.medium, Medium::Open { .. });
        UnitSnapshot {
            unit: id,
            device: Arc::clone(&unit.name),
            luns,
            ready: unit.is_ready(),
            draining: unit.fence.draining(),
            block_bytes: geometry.block_length(),
            capacity_blocks: if open { geometry.blocks() } else { 0 },
            in_flight: self.collection.in_flight(id),
            totals: self.collection.totals(id),
        }
    }

    /// Where each unit is mapped.
    fn lun_labels(&self) -> BTreeMap<UnitId, Vec<LunLabel>> {
        let mut labels = BTreeMap::<UnitId, Vec<LunLabel>>::new();
        for target in &self.configuration.targets {
            let name: Arc<str> = target.name.as_str().into();
            let groups =
                target.groups.iter().map(|group| (Some(Arc::<str>::from(&*group.name)), &group.luns));
            for (group, luns) in std::iter::once((None, &target.luns)).chain(groups) {
                for mapping in luns {
                    if let Some(unit) = self.unit_ids.get(mapping.device.as_str()) {
                        let label =
                            LunLabel { target: Arc::clone(&name), group: group.clone(), lun: mapping.lun };
                        labels.entry(*unit).or_default().push(label);
                    }
                }
            }
        }
        labels
    }

    pub(super) fn summary(&self) -> Summary {
        let luns =
            |mappings: &[LunMapping]| mappings.iter().map(|mapping| self.lun_summary(mapping)).collect();
        let targets = self.configuration.targets.iter().map(|target| TargetSummary {
            name: target.name.as_str().to_owned(),
            enabled: self.configuration.serves(target),
            luns: luns(&target.luns),
            groups: target.groups.iter().map(|group| (group.name.clone(), luns(&group.luns))).collect(),
        });
        Summary {
            portals: self.portals.values().map(|listening| listening.address).collect(),
            targets: targets.collect(),
        }
    }

    fn lun_summary(&self, mapping: &LunMapping) -> LunSummary {
        let unit = self.unit_ids.get(mapping.device.as_str()).and_then(|id| self.units.get(id));
        let size_bytes = unit.filter(|unit| unit.is_ready()).map(|unit| {
            let geometry = &unit.fence.state().geometry;
            geometry.blocks().saturating_mul(u64::from(geometry.block_length()))
        });
        LunSummary { lun: mapping.lun, device: mapping.device.clone(), size_bytes }
    }
}
