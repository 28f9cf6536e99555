//! What is asked of a fence, by whom, and what it gives out.

use std::sync::Arc;

use portico_iscsi::moment::Moment;
use portico_model::identity::{ShardId, Ticket};
use portico_model::message::Install;
use portico_scsi::alua::TargetPortGroups;
use portico_scsi::attention::UnitAttention;
use portico_scsi::ledger::{Ledger, NexusName, TargetPort};
use portico_scsi::original::Change;
use portico_scsi::reservation::NexusId;
use portico_scsi::sense::Outcome;
use portico_scsi::space::Space;
use portico_scsi::unit::{LogicalUnit, Readiness};
use portico_scsi::work::Work;

/// Who waits for an answer: a task parked on its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asker {
    pub(crate) shard: ShardId,
    pub(crate) ticket: Ticket,
}

/// What an initiator asks of a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// A command changes what every shard sees.
    Change(Change),
    /// LOGICAL UNIT RESET.
    Reset,
}

/// A request in the queue.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) joined: Joined,
    pub(super) nexus: NexusId,
    pub(super) request: Request,
}

/// Somebody who waits, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) asker: Asker,
    pub(super) deadline: Moment,
}

/// What control itself wants done to a unit. Never refused, ahead of every request, answered to nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// What was kept of the unit is known. Before it, every request is refused.
    Restored {
        /// Who had reserved it.
        ledger: Ledger,
        /// Whether the file says just that, under this kernel.
        kept: bool,
    },
    /// The nexus has a session that maps the unit. The fence holds on to it.
    NexusFound(NexusId, NexusName),
    /// It has none any more.
    NexusLost(NexusId),
    /// The holder that a restart left without a session did not come back in time.
    AbsentHolderLost,
    /// The device below can be used or cannot, and what every nexus is told when that changes.
    Device(Readiness, Option<UnitAttention>),
    /// The configuration or the size of the device is another one.
    Reconfigured(Box<LogicalUnit>),
    /// The unit may be reached through these target ports.
    Ports(Arc<[TargetPort]>),
    /// They are in these target port groups.
    Groups(Option<Arc<TargetPortGroups>>),
    /// What the pool below a thin unit has.
    Space(Space),
    /// The shard that works on all of the medium has come so far, in parts of 65536.
    WorkIsAt(u16),
    /// It is through, well or not.
    WorkEnded(bool),
}

/// What the fence wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Make this ledger durable, then call `written`. At most one at a time.
    Persist(Vec<u8>),
    /// To every shard, in this order.
    Install(Install),
    /// To one shard: nothing of anybody else's is at the medium any more.
    Work(ShardId, Arc<Work>),
    /// To the asker's shard.
    Answer(Asker, Result<(), Outcome>),
    /// This asker is forgotten unanswered: its nexus is lost.
    Forget(Asker),
    /// The fence lets go of a nexus that was found.
    Release(NexusId),
    /// Every shard has installed a change.
    Completed,
    /// A medium, or a disk that does not take the ledger, holds a change up.
    Overdue,
}
