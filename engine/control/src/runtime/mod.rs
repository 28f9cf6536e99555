//! The control thread: mail in, [`Control`] decides, orders out. Everything that blocks is done by others.
//!
//! The daemon makes the [`mailboxes`], gives each shard a [`ControlMailbox`] and its own signal handlers a [`Post`], then
//! calls [`Runtime::run`] on the thread that shall be control's. What the daemon knows and control does not (how a device
//! is opened, how a shard's queue is reached, how a socket is bound) comes in by the traits [`Devices`], [`Shards`] and
//! [`Host`].
//!
//! Control waits for nothing but mail and time. Its two queues are bounded; a full one makes the sender keep its mail, see
//! [`ControlMailbox::try_send`].

mod helpers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use portico_iscsi::moment::Moment;
use portico_model::configuration::{Configuration, Device, Portal};
use portico_model::identity::{ShardId, UnitId};
use portico_model::message::{ToControl, ToShard};
use portico_scsi::ledger::BootId;
use portico_scsi::space::Space;
use tokio::sync::oneshot;

use crate::core::{Bound, Control, Exit, Level, Mail, Opened, Order, Orders, QueryId, Summary};
use crate::http::Source;
use crate::ledger_store::{Folder, LedgerStore};
use crate::metrics::Snapshot;
use helpers::Helpers;

/// Mail that each shard may have under way; beyond it the shard keeps it. A shard's parked changes, logins and ended
/// sessions are bounded by themselves, far below.
pub const MAIL_PER_SHARD_MAX: usize = 4_096;
/// Mail from helper threads, signals and the metrics port.
pub const LETTERS_MAX: usize = 4_096;
/// Pieces of mail that are taken before the clock is read again.
const BATCH_MAX: usize = 64;

/// How devices are opened. Used on helper threads; may block.
pub trait Devices: Send + Sync + 'static {
    /// The medium as the data path knows it: a handle, cheap to clone.
    type Medium: Clone + Send + 'static;

    /// Opens a device. A medium that hears by itself when it gets another size keeps the watch and tells it.
    ///
    /// # Errors
    /// Why not, for people, with the remedy where there is one.
    fn open(&self, device: &Device, watch: SizeWatch<Self::Medium>) -> Result<Opened<Self::Medium>, String>;

    /// Gives an open medium the size that its device is configured to have now, or finds out which size it has got from
    /// outside. How many bytes of it can be served from now on.
    ///
    /// # Errors
    /// Why not, for people.
    fn resize(&self, medium: &Self::Medium, device: &Device) -> Result<u64, String>;

    /// What the pool below a medium has, as a file system below a file; `None` where nobody can tell.
    fn space(&self, medium: &Self::Medium) -> Option<Space> {
        let _ = medium;
        None
    }

    /// Closes a medium that no shard uses any more.
    fn close(&self, medium: Self::Medium) {
        drop(medium);
    }
}

/// How shards are reached.
pub trait Shards<M>: Send {
    /// Puts a message at the end of a shard's queue and wakes it. Never blocks and never fails: what control may send is
    /// bounded by what shards have asked and by what is configured.
    fn send(&self, shard: ShardId, message: ToShard<M>);
}

/// What else control needs of the daemon.
pub trait Host: Send {
    /// Listens at a portal.
    ///
    /// # Errors
    /// Why not, for people, with the remedy where there is one.
    fn bind(&self, portal: Portal) -> Result<Bound, String>;

    /// The first configuration is in force: say so.
    fn ready(&self, summary: &Summary);
}

/// A shard's way to control.
#[derive(Clone, Debug)]
pub struct ControlMailbox {
    sender: Sender<ToControl>,
}

impl ControlMailbox {
    /// Sends; never blocks.
    ///
    /// # Errors
    /// The mail, if the queue is full: try again in the next turn, with all later mail behind it. When control is gone,
    /// the mail is dropped.
    pub fn try_send(&self, mail: ToControl) -> Result<(), ToControl> {
        match self.sender.try_send(mail) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(mail)) => Err(mail),
        }
    }
}

/// Everybody else's way to control: signal handlers, helper threads, the metrics port.
#[derive(Debug)]
pub struct Post<M> {
    sender: Sender<Letter<M>>,
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<M> Post<M> {
    /// Brings the gateway to this configuration. The first one starts it.
    pub fn apply(&self, configuration: Configuration, force: bool) {
        self.send(Mail::Apply { configuration: Box::new(configuration), force });
    }

    /// Ends the gateway; told a second time, at once.
    pub fn shut_down(&self) {
        self.send(Mail::Shutdown);
    }

    /// Sends a piece of mail; waits where the queue is full. When control is gone, nothing happens.
    pub fn send(&self, mail: Mail<M>) {
        let _ = self.sender.send(Letter::Mail(mail));
    }
}

/// By which a medium tells that it has got another size, as RBD images do: *this device now has so many bytes*.
#[derive(Clone, Debug)]
pub struct SizeWatch<M> {
    post: Post<M>,
    unit: UnitId,
}

impl<M> SizeWatch<M> {
    /// The medium has so many bytes now, and takes requests up to there already. What is told before
    /// [`Devices::open`] has returned counts more than the size that it returns, so that whoever registers for changes
    /// first and looks then misses none. The last word holds. Waits where control's queue is full.
    pub fn announce(&self, size_bytes: u64) {
        self.post.send(Mail::Resized { unit: self.unit, size_bytes });
    }
}

impl<M: Send + 'static> Source for Post<M> {
    async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let (answer, answered) = oneshot::channel();
        // The metrics port is not to wait for a queue.
        self.sender.try_send(Letter::Ask(answer)).ok()?;
        answered.await.ok().flatten()
    }
}

#[derive(Debug)]
enum Letter<M> {
    Mail(Mail<M>),
    Ask(oneshot::Sender<Option<Arc<Snapshot>>>),
    /// A helper thread has ended.
    HelperDone,
}

/// The receiving ends.
#[derive(Debug)]
pub struct Inbox<M> {
    shards: Receiver<ToControl>,
    letters: Receiver<Letter<M>>,
    post: Post<M>,
}

/// The queues to control, for so many shards.
#[must_use]
pub fn mailboxes<M>(shards: usize) -> (ControlMailbox, Post<M>, Inbox<M>) {
    let (sender, from_shards) = bounded(MAIL_PER_SHARD_MAX * shards);
    let (letters, from_others) = bounded(LETTERS_MAX);
    let post = Post { sender: letters };
    let inbox = Inbox { shards: from_shards, letters: from_others, post: post.clone() };
    (ControlMailbox { sender }, post, inbox)
}

/// Control and what it works with.
#[derive(Debug)]
pub struct Runtime<D: Devices, S, H, F> {
    control: Control<D::Medium>,
    inbox: Inbox<D::Medium>,
    devices: Arc<D>,
    shards: S,
    host: H,
    ledgers: Arc<LedgerStore<F>>,
    helpers: Helpers,
    questions: BTreeMap<QueryId, oneshot::Sender<Option<Arc<Snapshot>>>>,
    last_query: u64,
    start: Instant,
}

impl<D, S, H, F> Runtime<D, S, H, F>
where
    D: Devices,
    S: Shards<D::Medium>,
    H: Host,
    F: Folder + Send + Sync + 'static,
{
    /// Control over so many shards, which read their queues already.
    ///
    /// # Errors
    /// If the helper threads cannot be made.
    pub fn new(
        shard_count: usize,
        boot: BootId,
        inbox: Inbox<D::Medium>,
        devices: Arc<D>,
        shards: S,
        host: H,
        ledgers: LedgerStore<F>,
    ) -> std::io::Result<Self> {
        let wake = inbox.post.clone();
        let helpers = Helpers::new(move || {
            let _ = wake.sender.send(Letter::HelperDone);
        })?;
        Ok(Self {
            control: Control::new(shard_count, boot),
            inbox,
            devices,
            shards,
            host,
            ledgers: Arc::new(ledgers),
            helpers,
            questions: BTreeMap::new(),
            last_query: 0,
            start: Instant::now(),
        })
    }

    /// Runs until control says how the process is to end.
    pub fn run(mut self) -> Exit {
        let mut orders = Orders::new();
        loop {
            let deadline = self.control.next_deadline();
            let patience = deadline.since(self.now()).min(Duration::from_secs(3_600));
            select! {
                recv(self.inbox.shards) -> mail => {
                    // Shards outlive control; where they do not, their last word was said.
                    if let Ok(mail) = mail {
                        self.control.handle(Mail::FromShard(mail), self.now(), &mut orders);
                    } else {
                        return Exit::Unclean("every shard is gone".to_owned());
                    }
                }
                recv(self.inbox.letters) -> letter => {
                    let letter = letter.expect("the inbox has a sender of its own");
                    self.open(letter, &mut orders);
                }
                default(patience) => {}
            }
            for _ in 0..BATCH_MAX {
                let Ok(mail) = self.inbox.shards.try_recv() else { break };
                self.control.handle(Mail::FromShard(mail), self.now(), &mut orders);
            }
            if self.control.next_deadline() <= self.now() {
                self.control.expire(self.now(), &mut orders);
            }
            if let Some(exit) = self.carry_out(&mut orders) {
                return exit;
            }
        }
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn open(&mut self, letter: Letter<D::Medium>, orders: &mut Orders<D::Medium>) {
        match letter {
            Letter::Mail(mail) => self.control.handle(mail, self.now(), orders),
            Letter::Ask(answer) => {
                self.last_query += 1;
                let query = QueryId(self.last_query);
                self.questions.insert(query, answer);
                self.control.handle(Mail::Ask(query), self.now(), orders);
            }
            Letter::HelperDone => self.helpers.one_done(),
        }
    }

    /// Carries orders out. What they bring about at once is handled at once, so that the order of things stays.
    fn carry_out(&mut self, orders: &mut Orders<D::Medium>) -> Option<Exit> {
        while !orders.is_empty() {
            for order in std::mem::take(orders) {
                if let Order::Exit(exit) = order {
                    return Some(exit);
                }
                self.carry_out_one(order, orders);
            }
        }
        None
    }

    fn carry_out_one(&mut self, order: Order<D::Medium>, orders: &mut Orders<D::Medium>) {
        match order {
            Order::ToShard(shard, message) => self.shards.send(shard, message),
            Order::OpenDevice { unit, device } => {
                let (devices, post) = (Arc::clone(&self.devices), self.inbox.post.clone());
                self.helpers.lone(move || {
                    let watch = SizeWatch { post: post.clone(), unit };
                    let result = devices.open(&device, watch);
                    post.send(Mail::DeviceOpened { unit, result });
                });
            }
            Order::ResizeDevice { unit, device, medium } => {
                let (devices, post) = (Arc::clone(&self.devices), self.inbox.post.clone());
                self.helpers.lone(move || {
                    let result = devices.resize(&medium, &device);
                    // Before control hears of it: it may order the medium to be closed then.
                    drop(medium);
                    post.send(Mail::DeviceResized { unit, result });
                });
            }
            Order::SurveySpace { unit, medium } => {
                let (devices, post) = (Arc::clone(&self.devices), self.inbox.post.clone());
                self.helpers.survey(move || {
                    let space = devices.space(&medium);
                    // As with resizing: control may order the medium to be closed then.
                    drop(medium);
                    post.send(Mail::SpaceSurveyed { unit, space });
                });
            }
            Order::CloseDevice { unit: _, medium } => {
                let devices = Arc::clone(&self.devices);
                self.helpers.lone(move || devices.close(medium));
            }
            Order::ReadLedger { unit, ledger } => {
                let (ledgers, post) = (Arc::clone(&self.ledgers), self.inbox.post.clone());
                self.helpers.shared(move || {
                    let result = ledgers.read(&ledger).map_err(|fault| fault.to_string());
                    post.send(Mail::LedgerRead { unit, result });
                });
            }
            Order::WriteLedger { unit, ledger, content } => {
                let (ledgers, post) = (Arc::clone(&self.ledgers), self.inbox.post.clone());
                self.helpers.shared(move || {
                    let result = ledgers.write(&ledger, &content).map_err(|error| error.to_string());
                    post.send(Mail::LedgerWritten { unit, result });
                });
            }
            Order::Bind(portal) => {
                let result = self.host.bind(portal);
                self.control.handle(Mail::Bound { portal, result }, self.now(), orders);
            }
            Order::Answer(query, snapshot) => {
                if let Some(answer) = self.questions.remove(&query) {
                    // Who asked may have gone.
                    let _ = answer.send(snapshot);
                }
            }
            Order::Log(Level::Info, line) => tracing::info!("{line}"),
            Order::Log(Level::Warning, line) => tracing::warn!("{line}"),
            Order::Log(Level::Error, line) => tracing::error!("{line}"),
            Order::Ready(summary) => self.host.ready(&summary),
            Order::Exit(_) => unreachable!("the caller has taken it"),
        }
    }
}
