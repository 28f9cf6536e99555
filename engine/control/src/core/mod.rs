//! The single writer: everything that more than one shard can see is decided here, by one value.
//!
//! [`Control`] takes [`Mail`] and time, and gives [`Order`]s. It owns no thread, no clock and no socket that it would read,
//! and nothing in it depends on anything but what it was told and in which order: `runtime` runs it in the daemon, the
//! simulator runs the same value from a seed.
//!
//! | file | what |
//! |---|---|
//! | `login` | sessions: granted, refused, reinstated, ended |
//! | `units` | logical units: opened, made ready, closed; what their fences want done |
//! | `sizes` | another size of a device while it is open |
//! | `ledgers` | who reads or writes which ledger now, and who waits for it |
//! | `planning`, `applying` | the configuration: how much of it can be now, and bringing that into force |
//! | `ending` | the end of the process |
//! | `telling` | snapshots and summaries |

mod applying;
mod deadlines;
mod ending;
mod ledgers;
mod login;
mod mail;
mod planning;
mod sizes;
mod space;
mod telling;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portico_iscsi::moment::Moment;
use portico_model::configuration::{Configuration, IscsiName, Portal};
use portico_model::identity::{SHARDS_MAX, ShardId, TargetId, Ticket, UnitId};
use portico_model::message::{ToControl, ToShard};
use portico_scsi::ledger::BootId;

pub use mail::{Bound, Exit, Level, LunSummary, Mail, Opened, Order, QueryId, Summary, TargetSummary};
pub use units::{NEXUS_COMMANDS_MAX_DEFAULT, OPEN_RETRY_MAX, OPEN_RETRY_MIN};

use crate::fence::{Asker, Errand, Request};
use crate::metrics::ControlCounters;
use crate::metrics::collection::Collection;
use crate::registry::Registry;
use applying::Applying;
use deadlines::Deadlines;
use ledgers::Ledgers;
use units::Unit;

pub use applying::OPEN_PATIENCE;
pub use ending::QUIESCE_PATIENCE;

/// What control wants done, in the order in which it is to be done.
pub type Orders<M> = Vec<Order<M>>;

/// The single writer.
#[derive(Debug)]
pub struct Control<M> {
    shards: usize,
    boot: BootId,
    stage: Stage,
    /// In force.
    configuration: Arc<Configuration>,
    /// Being brought into force.
    applying: Option<Box<Applying>>,
    /// To be brought into force next.
    next_apply: Option<(Box<Configuration>, bool)>,
    target_ids: BTreeMap<IscsiName, TargetId>,
    last_target: u32,
    units: BTreeMap<UnitId, Unit<M>>,
    unit_ids: BTreeMap<Arc<str>, UnitId>,
    last_unit: u32,
    /// Units that the configuration does not name any more and that sessions still map.
    doomed: BTreeSet<UnitId>,
    /// Part of the identity of every device.
    setup_id: u32,
    /// The unit whose fence a ticket waits at.
    parked: BTreeMap<(ShardId, Ticket), UnitId>,
    deadlines: Deadlines,
    ledgers: Ledgers,
    registry: Registry,
    portals: BTreeMap<Portal, Listening>,
    collection: Collection,
    counters: ControlCounters,
}

/// A portal that listens.
#[derive(Debug)]
struct Listening {
    socket: Arc<std::os::fd::OwnedFd>,
    address: std::net::SocketAddr,
}

/// Where the process is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The first configuration is not in force yet.
    Starting,
    /// As it should be.
    Serving,
    /// Shards finish what is in flight, until all have or the moment comes.
    Quiescing { missing: portico_model::identity::ShardSet, until: Moment, flushed: bool },
    /// [`Order::Exit`] was given.
    Over,
}

impl<M: Clone> Control<M> {
    /// Control over so many shards, which are there already, under this run of the kernel.
    ///
    /// # Panics
    /// When there is no shard, or more than [`SHARDS_MAX`].
    #[must_use]
    pub fn new(shards: usize, boot: BootId) -> Self {
        assert!((1..=SHARDS_MAX).contains(&shards), "{shards} shards");
        Self {
            shards,
            boot,
            stage: Stage::Starting,
            configuration: Arc::default(),
            applying: None,
            next_apply: None,
            target_ids: BTreeMap::new(),
            last_target: 0,
            units: BTreeMap::new(),
            unit_ids: BTreeMap::new(),
            last_unit: 0,
            doomed: BTreeSet::new(),
            setup_id: 0,
            parked: BTreeMap::new(),
            deadlines: Deadlines::default(),
            ledgers: Ledgers::default(),
            registry: Registry::new(shards),
            portals: BTreeMap::new(),
            collection: Collection::new(shards),
            counters: ControlCounters::default(),
        }
    }

    /// Takes one piece of mail.
    pub fn handle(&mut self, mail: Mail<M>, now: Moment, orders: &mut Orders<M>) {
        if self.stage == Stage::Over {
            return;
        }
        match mail {
            Mail::FromShard(mail) => self.hear(mail, now, orders),
            Mail::Apply { configuration, force } => self.apply(configuration, force, now, orders),
            Mail::DeviceOpened { unit, result } => self.device_opened(unit, result, now, orders),
            Mail::SpaceSurveyed { unit, space } => self.surveyed(unit, space, now, orders),
            Mail::Resized { unit, size_bytes } => self.resized(unit, size_bytes, now, orders),
            Mail::DeviceResized { unit, result } => self.device_resized(unit, result, now, orders),
            Mail::LedgerRead { unit, result } => {
                self.ledger_is_free(unit, orders);
                self.ledger_read(unit, result, now, orders);
            }
            Mail::LedgerWritten { unit, result } => {
                self.ledger_is_free(unit, orders);
                self.ledger_written(unit, result, now, orders);
            }
            Mail::Bound { portal, result } => self.bound(portal, result, now, orders),
            Mail::Ask(query) => self.ask(query, now, orders),
            Mail::Shutdown => self.shut_down(now, orders),
        }
    }

    /// Time has passed.
    pub fn expire(&mut self, now: Moment, orders: &mut Orders<M>) {
        if self.stage == Stage::Over {
            return;
        }
        for unit in self.deadlines.due(now) {
            self.expire_unit(unit, now, orders);
        }
        if self.collection.overdue(now) {
            self.finish_round(now, orders);
        }
        if self.collection.round_due(now) {
            self.begin_round(now, orders);
        }
        self.advance(now, orders);
        self.expire_ending(now, orders);
    }

    /// When [`Control::expire`] has something to do; [`Moment::NEVER`] for not at all.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        let ending = match self.stage {
            Stage::Over => return Moment::NEVER,
            Stage::Quiescing { until, .. } => until,
            Stage::Starting | Stage::Serving => Moment::NEVER,
        };
        let applying = self.applying.as_ref().map_or(Moment::NEVER, |applying| applying.next_deadline());
        ending.min(applying).min(self.deadlines.first()).min(self.collection.next_deadline())
    }

    /// A shard speaks.
    fn hear(&mut self, mail: ToControl, now: Moment, orders: &mut Orders<M>) {
        match mail {
            ToControl::Login(question) => self.login(question, now, orders),
            ToControl::SessionEnded { session, reason, orphans } => {
                self.session_ended(session, reason, &orphans, now, orders);
            }
            ToControl::OrphanDone { orphan } => {
                self.at_fence(orphan.unit, now, orders, |fence, effects| fence.orphan_done(orphan, effects));
            }
            ToControl::Change { shard, ticket, unit, nexus, change } => {
                let asker = Asker { shard, ticket };
                self.request(asker, unit, nexus, Request::Change(change), now, orders);
            }
            ToControl::Reset { shard, ticket, unit, nexus } => {
                self.request(Asker { shard, ticket }, unit, nexus, Request::Reset, now, orders);
            }
            ToControl::Withdraw { shard, ticket } => self.withdraw(shard, ticket),
            ToControl::FlushFailed { unit, generation } => {
                self.at_fence(unit, now, orders, |fence, _| fence.flush_failed(generation));
            }
            ToControl::Installed { shard, unit, generation } => {
                self.at_fence(unit, now, orders, |fence, effects| {
                    fence.installed(shard, generation, now, effects)
                });
                self.advance(now, orders);
            }
            ToControl::WorkIsAt { unit, progress } => {
                self.errand(unit, Errand::WorkIsAt(progress), now, orders);
            }
            ToControl::WorkEnded { unit, well } => {
                self.errand(unit, Errand::WorkEnded(well), now, orders);
                self.advance(now, orders);
            }
            ToControl::Closed { shard, unit } => self.closed(shard, unit, now, orders),
            ToControl::Meters { shard, meters } => {
                if self.collection.add(shard, meters) {
                    self.finish_round(now, orders);
                }
            }
            ToControl::Quiesced { shard, failed_flushes } => self.quiesced(shard, &failed_flushes, orders),
            ToControl::Failed { shard, reason } => self.shard_failed(shard, &reason, orders),
        }
    }

    fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<M> {
        (0..u16::try_from(self.shards).expect("at most SHARDS_MAX")).map(ShardId)
    }

    fn broadcast(&self, orders: &mut Orders<M>, message: impl Fn() -> ToShard<M>) {
        orders.extend(self.shard_ids().map(|shard| Order::ToShard(shard, message())));
    }
}
