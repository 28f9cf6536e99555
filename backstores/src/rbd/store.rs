//! One image for all shards: what it is asked to be, whether it may be used now, and how it comes back under a new client.

use std::ffi::CString;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub use super::client::wait_until_closed;
use super::client::{CephError, Client, Image};
use super::queue::Kind;
use crate::open::UNTORN_BYTES_MAX as UNTORN_BYTES;
use crate::request::MediumError;
use crate::{BlockCount, Geometry};

/// Bytes that OSDs write at a time without reading first, where the logical block is smaller.
const PHYSICAL_BLOCK_BYTES: u32 = 4096;

/// The first pause between two attempts to come back, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Which image, and under which client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RbdOptions {
    /// The pool.
    pub pool: String,
    /// The namespace in it; none is the pool's default one.
    pub namespace: Option<String>,
    /// The image.
    pub image: String,
    /// A snapshot of it, which is read-only.
    pub snapshot: Option<String>,
    /// The client's name without `client.`.
    pub client: String,
    /// Ceph's configuration file; none is where Ceph looks by itself.
    pub conf: Option<String>,
    /// The client's keyring; none is where the configuration says.
    pub keyring: Option<String>,
    /// Any of Ceph's options. `rbd_cache` is false whatever stands here.
    pub settings: Vec<(String, String)>,
    /// Bytes of a logical block.
    pub block_length: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl RbdOptions {
    /// An image under the client `admin`, with every option at its default.
    pub fn new(pool: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            pool: pool.into(),
            namespace: None,
            image: image.into(),
            snapshot: None,
            client: "admin".to_owned(),
            conf: None,
            keyring: None,
            settings: Vec::new(),
            block_length: 512,
            read_only: false,
        }
    }

    /// Whether it is opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only || self.snapshot.is_some()
    }
}

/// As Ceph writes it: `pool/namespace/image@snapshot`.
impl fmt::Display for RbdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.pool)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.image)?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

/// Whether an image may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may.
    Open,
    /// It has become a mirror's copy, which takes no writes; it comes back when it is promoted.
    Demoted,
    /// This client was put on the blocklist; a new one is on its way.
    ShutOut,
    /// A write's outcome is unknown. Nothing goes on until the client that sent it is shut out.
    InDoubt,
    /// It was removed.
    Gone,
}

/// One image for all shards.
#[derive(Debug)]
pub struct RbdStore {
    options: RbdOptions,
    /// The image's id. An image that was made anew under the same name has another, and other content.
    id: CString,
    /// Within how many bytes librbd compares and writes: those beside each other that lie in one object, or a sector. Which,
    /// it says when it is asked for more.
    compared_unit_bytes: AtomicU64,
    /// With the size that it had when it was opened first.
    geometry: Geometry,
    untorn_bytes: Option<u32>,
    pub(crate) blocks: BlockCount,
    /// What the keeper has told last.
    size_bytes: AtomicU64,
    /// [`Health`] as a number. Looked at by every request.
    health: AtomicU8,
    /// It was to be opened again, and is not there any more.
    is_gone: AtomicBool,
    /// The exclusive lock is another client's, and the last write was refused therefore.
    is_locked_out: AtomicBool,
    /// Counts the clients under which the image was open.
    epoch: AtomicU64,
    /// The image as it is open now. Taken by queues when the epoch has changed, and by the one who brings it back.
    image: Mutex<Arc<Image>>,
    /// Wakes the keeper, a thread that brings the image back. It ends with the store.
    keeper: SyncSender<()>,
}

/// Connects to the cluster and opens an image. May block for as long as Ceph's timeouts say. `announce` is called with the
/// image's new size in bytes whenever it was resized, on a thread of the image's own, where it may block.
///
/// # Errors
/// For people: what was tried, and what Ceph said.
pub fn open_rbd(
    options: RbdOptions,
    announce: impl Fn(u64) + Send + 'static,
) -> Result<Arc<RbdStore>, String> {
    let (keeper, calls) = sync_channel(1);
    let client = Client::connect(&options)?;
    let image = Image::open(client, &options, &keeper)?;
    let (size, id, stripe_unit_bytes) = (image.size_bytes()?, image.id()?, image.stripe_unit_bytes()?);
    if image.is_encrypted() {
        tracing::info!(image = %options, "it holds an encrypted volume (LUKS), and is served as it lies there, encrypted");
    }
    let block = options.block_length;
    let blocks = size / u64::from(block);
    if blocks == 0 {
        return Err(format!("the image {options} has {size} bytes, which is not one block of {block}"));
    }
    let geometry = Geometry {
        block_length: block,
        blocks,
        physical_block_bytes: PHYSICAL_BLOCK_BYTES.max(block),
        memory_alignment: 1,
        offset_alignment: 1,
        rotational: false,
        volatile_cache: false,
        read_only: options.is_read_only(),
    };
    let whole =
        |bytes: &u32| stripe_unit_bytes.is_multiple_of((*bytes).into()) && bytes.is_multiple_of(block);
    let untorn_bytes = Some(UNTORN_BYTES).filter(whole).filter(|_| !options.is_read_only());
    let store = Arc::new(RbdStore {
        options,
        id,
        untorn_bytes,
        compared_unit_bytes: AtomicU64::new(stripe_unit_bytes),
        geometry,
        blocks: BlockCount::new(blocks),
        size_bytes: AtomicU64::new(size),
        health: AtomicU8::new(OPEN),
        is_gone: AtomicBool::new(false),
        is_locked_out: AtomicBool::new(false),
        epoch: AtomicU64::new(0),
        image: Mutex::new(Arc::new(image)),
        keeper,
    });
    let weak = Arc::downgrade(&store);
    let thread = std::thread::Builder::new().name("rbd-keeper".to_owned());
    thread
        .spawn(move || keep(&weak, &calls, &announce))
        .map_err(|error| format!("a thread for {}: {error}", store.options))?;
    Ok(store)
}

impl RbdStore {
    /// Its size and its wishes.
    pub fn geometry(&self) -> Geometry {
        Geometry { blocks: self.blocks.now(), ..self.geometry }
    }

    /// How many bytes, at a multiple of as many, a write keeps whole whatever loses its power. They lie in one object, are one
    /// operation of it, for librbd's cache is off, and an OSD does that as one transaction, on each that has the object.
    pub fn untorn_bytes(&self) -> Option<u32> {
        self.untorn_bytes
    }

    /// Whether it may be used now.
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            OPEN => Health::Open,
            _ if self.is_gone.load(Ordering::Acquire) => Health::Gone,
            DEMOTED => Health::Demoted,
            SHUT_OUT => Health::ShutOut,
            _ => Health::InDoubt,
        }
    }

    /// The image's size in bytes now. May block.
    ///
    /// # Errors
    /// For people.
    pub fn current_size_bytes(&self) -> Result<u64, String> {
        Ok(self.current().0.size_bytes()?)
    }

    /// The client's address, as the cluster's blocklist names it.
    ///
    /// # Errors
    /// For people.
    pub fn client_address(&self) -> Result<String, String> {
        Ok(self.current().0.address()?.to_string_lossy().into_owned())
    }

    pub(super) fn compared_unit_bytes(&self) -> u64 {
        self.compared_unit_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn compares_at_most(&self, bytes: u64) {
        self.compared_unit_bytes.fetch_min(bytes, Ordering::Relaxed);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The image as it is open now.
    pub(super) fn current(&self) -> (Arc<Image>, u64) {
        let image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, under which alone it changes.
        (Arc::clone(&image), self.epoch())
    }

    /// Why no request may go to the image now, if so.
    pub(super) fn refusal(&self) -> Option<MediumError> {
        match self.health() {
            Health::Open => None,
            Health::Demoted | Health::ShutOut | Health::InDoubt => Some(MediumError::BecomingReady),
            Health::Gone => Some(MediumError::Removed),
        }
    }

    /// A write has gone through.
    pub(super) fn written(&self) {
        if self.is_locked_out.load(Ordering::Relaxed) && self.is_locked_out.swap(false, Ordering::Relaxed) {
            tracing::warn!(image = %self.options, "writes go through again");
        }
    }

    /// What the error number of an operation means, which was begun in `epoch`. Closes the image where it must be.
    pub(super) fn failed(&self, kind: Kind, epoch: u64, errno: i32) -> MediumError {
        match errno {
            libc::ETIMEDOUT if kind.changes() => {
                self.close(epoch, IN_DOUBT);
                MediumError::BecomingReady
            }
            libc::ETIMEDOUT => MediumError::TimedOut,
            libc::ESHUTDOWN => {
                self.close(epoch, SHUT_OUT);
                MediumError::BecomingReady
            }
            // Another client has the exclusive lock and does not give it up, or the image was demoted: the keeper looks.
            libc::EROFS | libc::EBUSY if kind.changes() && !self.geometry.read_only => {
                if !self.is_locked_out.swap(true, Ordering::Relaxed) {
                    tracing::warn!(image = %self.options, "the image is locked by another client: writes are NOT READY");
                }
                let _ = self.keeper.try_send(());
                MediumError::BecomingReady
            }
            libc::ENOENT => MediumError::Gone,
            // Ranges are all that librbd checks. The image has become shorter, and the units do not know it yet.
            libc::EINVAL => MediumError::BeyondEnd,
            other => MediumError::from_errno(other),
        }
    }

    /// Lets nothing through from now on, and begins to bring the image back. The first to ask does it.
    fn close(&self, epoch: u64, why: u8) {
        let _image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        if self.epoch() != epoch {
            // It has come back meanwhile, and this is an echo of before.
            return;
        }
        let before = self.health.load(Ordering::Acquire);
        if before < why {
            let reason = match why {
                IN_DOUBT => {
                    "a write timed out, and may still land: this client is shut out before anything goes on"
                }
                SHUT_OUT => "this client was put on the blocklist",
                _ => "it was demoted to a mirror's copy: it is closed until it is promoted",
            };
            tracing::warn!(image = %self.options, reason, "the image is closed");
        }
        // A doubt outweighs: a blocklist that somebody else has lifted again would not end it.
        self.health.store(before.max(why), Ordering::Release);
        // One call is enough: the keeper goes on until the image is back.
        let _ = self.keeper.try_send(());
    }

    /// librbd refuses the writes of one that was demoted, and goes on to refuse them when it has been promoted again. So it is
    /// opened anew then.
    fn close_if_demoted(&self) {
        let (image, epoch) = self.current();
        let is_copy = || image.is_mirrors_copy().unwrap_or(false);
        if !self.geometry.read_only && self.health() == Health::Open && is_copy() {
            self.close(epoch, DEMOTED);
        }
    }

    /// How large the image is now, if not as before. It takes requests up to there when this has returned.
    fn another_size(&self) -> Option<u64> {
        let image = self.current().0;
        match image.size_bytes() {
            Ok(size) => {
                self.blocks.grow(size / u64::from(self.geometry.block_length));
                (self.size_bytes.swap(size, Ordering::Relaxed) != size).then_some(size)
            }
            Err(CephError { words: reason, .. }) => {
                tracing::warn!(image = %self.options, reason, "its size is not known");
                None
            }
        }
    }

    /// Opens the image under a new client, having shut the old one out.
    fn reopen(&self) -> Result<(), CephError> {
        let old: CString = self.current().0.address()?;
        let client = Client::connect(&self.options)?;
        client.shut_out(&old)?;
        let image = Arc::new(Image::open(client, &self.options, &self.keeper)?);
        if image.id()? != self.id {
            let words = format!(
                "the image {} was removed, and another made by its name: take its device out of the configuration and put it \
                 in again to serve that",
                self.options
            );
            return Err(CephError { errno: libc::ENOENT, words });
        }
        let mut current = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        *current = image;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.is_gone.store(false, Ordering::Release);
        self.is_locked_out.store(false, Ordering::Relaxed);
        self.health.store(OPEN, Ordering::Release);
        Ok(())
    }
}

/// The keeper: waits to be called, then tries until the image is back where it is closed, and looks how large it is. Ends
/// with the store.
fn keep(store: &Weak<RbdStore>, calls: &Receiver<()>, announce: &dyn Fn(u64)) {
    while calls.recv().is_ok() {
        if let Some(strong) = store.upgrade() {
            strong.close_if_demoted();
        }
        let (mut pause, mut said) = (PAUSE_FIRST, String::new());
        while let Some(strong) = store.upgrade() {
            if strong.health() == Health::Open {
                break;
            }
            match strong.reopen() {
                Ok(()) => {
                    tracing::warn!(image = %strong.options, "the image is open again, under a new client");
                    break;
                }
                Err(CephError { errno, words: reason }) => {
                    strong.is_gone.store(errno == libc::ENOENT, Ordering::Release);
                    let (image, health) = (&strong.options, strong.health());
                    if reason != said {
                        tracing::warn!(%image, ?health, reason, "the image is closed. It is tried again");
                        said = reason;
                    }
                }
            }
            drop(strong);
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let size = store.upgrade().and_then(|strong| strong.another_size());
        if let Some(size) = size {
            announce(size);
        }
    }
}

/// [`Health`] as numbers, in the order of their weight.
const OPEN: u8 = 0;
const DEMOTED: u8 = 1;
const SHUT_OUT: u8 = 2;
const IN_DOUBT: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_as_ceph_names_it() {
        let image = RbdOptions {
            namespace: Some("space".to_owned()),
            snapshot: Some("monday".to_owned()),
            ..RbdOptions::new("pool", "disk")
        };
        assert_eq!(image.to_string(), "pool/space/disk@monday");
        assert!(image.is_read_only());
        assert!(!RbdOptions::new("pool", "disk").is_read_only());
    }

    /// With Ceph's libraries or without them: what is missing is named.
    #[test]
    fn what_keeps_an_image_from_being_opened_is_said() {
        let conf = Some("/nonexistent/ceph.conf".to_owned());
        let error = open_rbd(RbdOptions { conf, ..RbdOptions::new("pool", "disk") }, drop).unwrap_err();
        assert!(error.contains("/nonexistent/ceph.conf") || error.contains("librbd1"), "{error}");
    }
}
