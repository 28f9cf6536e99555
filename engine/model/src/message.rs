//! Every message that crosses threads, on one page.
//!
//! Shards tell control ([`ToControl`]); control tells shards ([`ToShard`]). Shards tell each other nothing but which blocks
//! one of them wants for itself for a moment ([`PeerLetter`]). Each shard has one queue, first in first out, so that a session that is adopted after an `Install` sees its
//! effect in the state, and one adopted before it sees it as an attention: each change exactly once.
//!
//! `M` is the medium of a logical unit as the data path knows it; control only carries it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::login::Completed;
use portico_iscsi::wire::{LoginStatus, Tsih};
use portico_scsi::attention::UnitAttention;
use portico_scsi::ledger::Whom;
use portico_scsi::original::Change;
use portico_scsi::reservation::NexusId;
use portico_scsi::sense::Outcome;
use portico_scsi::unit::LogicalUnit;
use portico_scsi::work::Work;

use crate::configuration::Configuration;
use crate::identity::{Generation, SessionId, ShardId, TargetId, Ticket, UnitId};
use crate::lun_map::LunMap;
use crate::meter::Meters;
use crate::peer::PeerLetter;

/// What control tells a shard.
#[derive(Debug)]
pub enum ToShard<M> {
    /// The configuration that logins and discovery are answered from, from now on.
    Configure(Arc<Configuration>),
    /// Listening sockets to accept on, replacing the ones before. A portal not among them accepts nothing more.
    Listen(Vec<Arc<OwnedFd>>),
    /// A logical unit comes into being: every shard gets it before any session that maps it. Once more, with the medium,
    /// when a device that was not ready has opened; an `Install` then makes the unit ready.
    Open(Opening<M>),
    /// New shared state of a logical unit. The shard drains what the new state refuses and answers [`ToControl::Installed`].
    Install(Arc<Install>),
    /// Work on all of a unit's medium, where nothing of anybody else's is any more. Answered by [`ToControl::WorkEnded`], unless the
    /// unit or the process ends before it.
    Work {
        /// Which unit.
        unit: UnitId,
        /// What is done.
        work: Arc<Work>,
    },
    /// No session maps the unit any more. Answered by [`ToControl::Closed`] when nothing is at its medium.
    Close(UnitId),
    /// A session to serve: its final Login Response has not been sent, and is this shard's to send.
    Adopt(Box<Adoption>),
    /// A connection that is to join a session here, or to take the place of one of the same CID (RFC 7143 §6.3.4): the shard
    /// sends its final Login Response, or refuses it.
    Join {
        /// Which session: of the login's nexus.
        session: SessionId,
        /// The login with its connection.
        question: Box<LoginQuestion>,
    },
    /// A login that control refuses: send the refusal, close.
    Refuse(Box<Refusal>),
    /// The answer to [`ToControl::Change`] or [`ToControl::Reset`].
    Changed {
        /// As the shard gave it.
        ticket: Ticket,
        /// GOOD, or what the command ends with.
        outcome: Result<(), Outcome>,
    },
    /// The session's logical units are from now on these.
    Remap {
        /// Which session.
        session: SessionId,
        /// Its whole map.
        map: Arc<LunMap>,
    },
    /// End a session: its tasks are aborted; answered by [`ToControl::SessionEnded`].
    EndSession {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// Send the meters filled so far and go on with this spare.
    CollectMeters(Box<Meters>),
    /// Refuse new commands and logins, finish what is in flight, flush, then answer [`ToControl::Quiesced`].
    Quiesce,
    /// Leave the loop and end the thread.
    Stop,
    /// A word from another shard.
    Peer(PeerLetter),
}

/// What a shard tells control.
#[derive(Debug)]
pub enum ToControl {
    /// A login is complete but for its final response; the connection travels with the question.
    Login(Box<LoginQuestion>),
    /// A session is over on its home shard. Its nexus is lost.
    SessionEnded {
        /// Which session.
        session: SessionId,
        /// Why it ended.
        reason: EndReason,
        /// Writes of it that are still at a medium: nobody may write those blocks before they are through.
        orphans: Vec<Orphan>,
    },
    /// The orphaned write is off the medium.
    OrphanDone {
        /// Where.
        orphan: Orphan,
    },
    /// A command asks to change what all shards see of a logical unit.
    Change {
        /// Who asks, and gets [`ToShard::Changed`].
        shard: ShardId,
        /// Chosen by the shard.
        ticket: Ticket,
        /// Which unit.
        unit: UnitId,
        /// On whose behalf.
        nexus: NexusId,
        /// What.
        change: Change,
    },
    /// LOGICAL UNIT RESET, or one unit's share of TARGET WARM RESET.
    Reset {
        /// Who asks, and gets [`ToShard::Changed`].
        shard: ShardId,
        /// Chosen by the shard.
        ticket: Ticket,
        /// Which unit.
        unit: UnitId,
        /// On whose behalf.
        nexus: NexusId,
    },
    /// A parked change whose session or task is gone: control forgets who asked, not what was changed. A change that has
    /// not begun is not made. A shard withdraws what a session had parked before it says that the session ended.
    Withdraw {
        /// Who had asked.
        shard: ShardId,
        /// Its ticket.
        ticket: Ticket,
    },
    /// This shard has installed the generation, and nothing that it refuses is at the medium any more.
    Installed {
        /// Who.
        shard: ShardId,
        /// Which unit.
        unit: UnitId,
        /// Which generation.
        generation: Generation,
    },
    /// The flush that this generation asked for has failed, and it is not known what is stable. `Installed` follows.
    FlushFailed {
        /// Which unit.
        unit: UnitId,
        /// Which generation.
        generation: Generation,
    },
    /// How far [`ToShard::Work`] has come.
    WorkIsAt {
        /// Which unit.
        unit: UnitId,
        /// In parts of 65536.
        progress: u16,
    },
    /// [`ToShard::Work`] is through, or could not go on.
    WorkEnded {
        /// Which unit.
        unit: UnitId,
        /// Whether all of the medium is as it is to be, and stable.
        well: bool,
    },
    /// Answer to [`ToShard::Close`].
    Closed {
        /// Who.
        shard: ShardId,
        /// Which unit.
        unit: UnitId,
    },
    /// The full meters of a shard.
    Meters {
        /// Whose.
        shard: ShardId,
        /// Since the collection before.
        meters: Box<Meters>,
    },
    /// Answer to [`ToShard::Quiesce`]: nothing is in flight here and what was written is flushed, or could not be.
    Quiesced {
        /// Who.
        shard: ShardId,
        /// Units whose last flush failed.
        failed_flushes: Vec<UnitId>,
    },
    /// The shard cannot go on: its ring failed. The process ends; initiators come back to a new one.
    Failed {
        /// Who.
        shard: ShardId,
        /// Why.
        reason: String,
    },
}

/// A new logical unit as each shard gets it.
#[derive(Debug, Clone)]
pub struct Opening<M> {
    /// Its name from now on.
    pub unit: UnitId,
    /// Its state at generation [`Generation`] 0 or as restored.
    pub state: Arc<LogicalUnit>,
    /// The generation of `state`.
    pub generation: Generation,
    /// The medium; `None` while it is not ready (the state says so too).
    pub medium: Option<M>,
    /// The name of the DEVICE, for people.
    pub device: Arc<str>,
    /// Commands that the unit admits from one nexus before TASK SET FULL (`max_tgt_dev_commands`).
    pub nexus_commands_max: u32,
}

/// One change of a logical unit's shared state.
#[derive(Debug)]
pub struct Install {
    /// Which unit.
    pub unit: UnitId,
    /// The version that `state` is; always one more than the one before.
    pub generation: Generation,
    /// The whole new state.
    pub state: Arc<LogicalUnit>,
    /// Unit attentions to queue before the next command of these nexuses is looked at.
    pub attentions: Vec<(Whom, UnitAttention)>,
    /// Tasks that end with this change. Those that wait at control are control's to end; one that is parked still when this
    /// comes was mailed later, and is withdrawn.
    pub aborts: Option<Whom>,
    /// The nexus that asked for it. Its own tasks end in silence; others' may end with TASK ABORTED.
    pub asker: Option<NexusId>,
    /// The shard flushes the medium before it answers [`ToControl::Installed`]: what it answered GOOD from a volatile
    /// cache, before this state, is then stable.
    pub flush: bool,
    /// Block ranges at which a write without an owner may still land: all of the unit, those of the receiver included.
    /// An `Install` that changes nothing else may come while an earlier one still drains. A shard looks at what it
    /// received from control before what it received from initiators in the same turn: so a command that an initiator
    /// sends after it learned of a session's end meets the orphans of that session.
    pub orphans: Arc<[Orphan]>,
}

/// A write that was at the medium when its session ended: its blocks belong to nobody until it is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// The shard at whose queue the write is.
    pub shard: ShardId,
    /// Unique on that shard.
    pub serial: u64,
    /// Which unit.
    pub unit: UnitId,
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// A login that is complete on the shard that accepted it. Nothing is armed on its connection.
#[derive(Debug)]
pub struct LoginQuestion {
    /// Where it was accepted.
    pub shard: ShardId,
    /// The negotiated session.
    pub completed: Completed,
    /// The connection.
    pub socket: OwnedFd,
    /// What was received beyond the last Login Request.
    pub unread: Vec<u8>,
    /// The initiator's address.
    pub peer: SocketAddr,
    /// Our address that it came to.
    pub local: SocketAddr,
}

/// A granted login on its way to its home shard.
#[derive(Debug)]
pub struct Adoption {
    /// The name of the session from now on.
    pub session: SessionId,
    /// Its I_T nexus.
    pub nexus: NexusId,
    /// The handle that goes into the final Login Response; never 0 (RFC 7143 §11.13.3).
    pub tsih: Tsih,
    /// The target; `None` for a discovery session.
    pub target: Option<TargetId>,
    /// The logical units that this initiator sees.
    pub map: Arc<LunMap>,
    /// What each of these units tells the nexus first: 29/00, or 29/07 where it has been there before, in this process or
    /// in one before it under the same kernel.
    pub greeting: UnitAttention,
    /// The command window and the timers of the target.
    pub service: Service,
    /// The login with its connection.
    pub question: LoginQuestion,
}

/// What a target's configuration says of a session's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// QueuedCommands: the command window, 1 to 2048.
    pub queued_commands: u32,
    /// NopInInterval; zero is never.
    pub nop_in_interval: Duration,
    /// NopInTimeout; zero is never.
    pub nop_in_timeout: Duration,
    /// RspTimeout: how long the initiator may owe data that it was asked for, or not take what is sent to it; zero is for
    /// ever.
    pub response_timeout: Duration,
    /// Whether SCSI events are sent (RFC 7143 §11.9.1, event 0): off with `aen_disabled`.
    pub events: bool,
}

/// A refused login on its way back.
#[derive(Debug)]
pub struct Refusal {
    /// Why (RFC 7143 §11.13.5).
    pub status: LoginStatus,
    /// The login with its connection.
    pub question: LoginQuestion,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The initiator logged out.
    Logout,
    /// The connection was lost or closed by the peer.
    ConnectionLost,
    /// The peer broke the protocol.
    Violation,
    /// The peer did not answer a NOP-In in time, or owed something else for too long.
    Silent,
    /// The same initiator port logged in again (RFC 7143 §6.3.5).
    Reinstated,
    /// The target was disabled or removed.
    TargetRemoved,
    /// TARGET COLD RESET.
    ColdReset,
    /// I_T NEXUS RESET (RFC 7144).
    NexusReset,
    /// The gateway shuts down.
    Shutdown,
}
