//! What control is told, and what it wants done: the whole of its contact with the world.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use portico_model::configuration::{Configuration, Device, Portal};
use portico_model::identity::{ShardId, UnitId};
use portico_model::message::{ToControl, ToShard};
use portico_scsi::space::Space;

use crate::ledger_store::Restored;
use crate::metrics::Snapshot;

/// What control is told.
#[derive(Debug)]
pub enum Mail<M> {
    /// A shard speaks.
    FromShard(ToControl),
    /// Bring the gateway to this configuration; the first one starts it.
    Apply {
        /// Checked.
        configuration: Box<Configuration>,
        /// Take away also what sessions use.
        force: bool,
    },
    /// Answer to [`Order::OpenDevice`].
    DeviceOpened {
        /// As ordered.
        unit: UnitId,
        /// The medium, or why there is none, for people.
        result: Result<Opened<M>, String>,
    },
    /// The device below a unit has got another size from outside. Its medium takes it already.
    Resized {
        /// Which.
        unit: UnitId,
        /// What it has now.
        size_bytes: u64,
    },
    /// Answer to [`Order::ResizeDevice`].
    DeviceResized {
        /// As ordered.
        unit: UnitId,
        /// How many bytes of it can be served from now on, or why it is as it was, for people.
        result: Result<u64, String>,
    },
    /// Answer to [`Order::SurveySpace`].
    SpaceSurveyed {
        /// As ordered.
        unit: UnitId,
        /// What the pool below has; `None` where nobody can tell.
        space: Option<Space>,
    },
    /// Answer to [`Order::ReadLedger`].
    LedgerRead {
        /// As ordered.
        unit: UnitId,
        /// What was kept, or why it is not known, for people.
        result: Result<Restored, String>,
    },
    /// Answer to [`Order::WriteLedger`].
    LedgerWritten {
        /// As ordered.
        unit: UnitId,
        /// Durable, or why not, for people.
        result: Result<(), String>,
    },
    /// Answer to [`Order::Bind`].
    Bound {
        /// As ordered.
        portal: Portal,
        /// A listening socket, or why there is none, for people.
        result: Result<Bound, String>,
    },
    /// Somebody wants a [`Snapshot`].
    Ask(QueryId),
    /// End: what is in flight is finished first. Told a second time, it is not.
    Shutdown,
}

/// A device that is open.
#[derive(Clone, Debug)]
pub struct Opened<M> {
    /// What shards work with.
    pub medium: M,
    /// Its size; what is left of the last block is not served.
    pub size_bytes: u64,
    /// The size of its physical blocks, where it says so; a power of two.
    pub physical_block_bytes: Option<u32>,
    /// Whether it can only be read, whatever the configuration says.
    pub read_only: bool,
    /// How many bytes, at a multiple of as many, one write keeps whole over a loss of power; `None` where nobody knows.
    pub untorn_bytes: Option<u32>,
}

/// A portal that listens.
#[derive(Debug)]
pub struct Bound {
    /// The listening socket.
    pub socket: OwnedFd,
    /// Where: the port that the system chose, if it was left to it.
    pub address: SocketAddr,
}

/// A question that awaits [`Order::Answer`]; chosen by who asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryId(pub u64);

/// What control wants done, in this order.
#[derive(Debug)]
pub enum Order<M> {
    /// Into that shard's queue.
    ToShard(ShardId, ToShard<M>),
    /// Blocks: on a helper thread of its own, answered by [`Mail::DeviceOpened`].
    OpenDevice {
        /// To be named in the answer.
        unit: UnitId,
        /// What to open.
        device: Arc<Device>,
    },
    /// Blocks: give the medium the size that the device is configured to have, or find out which one it has got from
    /// outside. Answered by [`Mail::DeviceResized`]. Of one device there is one at a time.
    ResizeDevice {
        /// To be named in the answer.
        unit: UnitId,
        /// As it is configured now.
        device: Arc<Device>,
        /// To be resized.
        medium: M,
    },
    /// Blocks: find out what the pool below a thin unit has. Answered by [`Mail::SpaceSurveyed`].
    SurveySpace {
        /// To be named in the answer.
        unit: UnitId,
        /// To be looked at.
        medium: M,
    },
    /// Blocks: no shard uses the medium any more.
    CloseDevice {
        /// Which.
        unit: UnitId,
        /// The last copy that control has.
        medium: M,
    },
    /// Blocks: answered by [`Mail::LedgerRead`].
    ReadLedger {
        /// To be named in the answer.
        unit: UnitId,
        /// Which: the device's name, or the absolute path of its `pr_file_name`.
        ledger: Arc<str>,
    },
    /// Blocks: answered by [`Mail::LedgerWritten`]. Of one ledger there is one at a time.
    WriteLedger {
        /// To be named in the answer.
        unit: UnitId,
        /// Which.
        ledger: Arc<str>,
        /// The file's content.
        content: Vec<u8>,
    },
    /// Listen there, answered by [`Mail::Bound`]. Where control lets the socket go, the system stops listening.
    Bind(Portal),
    /// To who asked; `None` where too many do.
    Answer(QueryId, Option<Arc<Snapshot>>),
    /// To the log.
    Log(Level, String),
    /// The first configuration is in force, as far as it can be.
    Ready(Box<Summary>),
    /// Nothing more will come: end the process.
    Exit(Exit),
}

/// How much a line of the log matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As things should be.
    Info,
    /// Something that an administrator should know.
    Warning,
    /// Something does not work.
    Error,
}

/// How the process is to end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All was finished and flushed.
    Clean,
    /// It was not, for this reason.
    Unclean(String),
}

/// What the gateway serves, for the line that says so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Where it listens.
    pub portals: Vec<SocketAddr>,
    /// What it serves.
    pub targets: Vec<TargetSummary>,
}

/// One target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetSummary {
    /// Its name.
    pub name: String,
    /// Whether it takes logins.
    pub enabled: bool,
    /// What initiators see that are in no group.
    pub luns: Vec<LunSummary>,
    /// Its groups, and what they see.
    pub groups: Vec<(String, Vec<LunSummary>)>,
}

/// One LUN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LunSummary {
    /// The number.
    pub lun: u16,
    /// The DEVICE.
    pub device: String,
    /// Its size; `None` while it is not ready.
    pub size_bytes: Option<u64>,
}
