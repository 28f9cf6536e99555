//! A client of a Ceph cluster, and an image that is open under it. Every call here may block, for long where the cluster
//! does not answer, so nothing of it runs on a shard.
#![expect(unsafe_code, reason = "calls librados and librbd")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::num::NonZero;
use std::ptr;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use portico_librbd_sys::Api;
use portico_librbd_sys::api::{self, FEATURE_JOURNALING, FEATURE_MIGRATING, FEATURE_NON_PRIMARY};

use super::store::RbdOptions;

/// What was tried, and what Ceph said.
#[derive(Debug)]
pub(super) struct CephError {
    pub(super) errno: i32,
    pub(super) words: String,
}

impl From<CephError> for String {
    fn from(error: CephError) -> Self {
        error.words
    }
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) api: &'static Api,
    rados: api::Rados,
}

// SAFETY: librados and librbd are thread-safe; the handle is a pointer to an object of theirs that locks for itself.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Connects, with the settings of `options`.
    ///
    /// # Errors
    /// What was tried, and what Ceph said.
    pub(super) fn connect(options: &RbdOptions) -> Result<Self, CephError> {
        // Those that librbd's threads may use: they are not bound to those of the shards.
        let processors = thread::available_parallelism().map_or(usize::MAX, NonZero::get);
        let client = Self::configured(options, processors)?;
        // SAFETY: the handle is ours and configured.
        let connected = unsafe { (client.api.rados_connect)(client.rados) };
        told(connected, || format!("connecting to the cluster as client.{}", options.client))?;
        Ok(client)
    }

    /// One that has its settings, and is not connected.
    fn configured(options: &RbdOptions, processors: usize) -> Result<Self, CephError> {
        let api = Api::get().map_err(|error| CephError { errno: libc::ENOSYS, words: error.to_string() })?;
        let name = text(&format!("client.{}", options.client))?;
        let mut rados = ptr::null_mut();
        // SAFETY: both names are C strings that live through the call, which writes the handle.
        let made = unsafe { (api.rados_create2)(&raw mut rados, c"ceph".as_ptr(), name.as_ptr(), 0) };
        told(made, || format!("a client named client.{}", options.client))?;
        let client = Self { api, rados };
        client.configure(options, processors)?;
        Ok(client)
    }

    fn configure(&self, options: &RbdOptions, processors: usize) -> Result<(), CephError> {
        let path = options.conf.as_deref().map(text).transpose()?;
        let given = path.as_ref().map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: null stands for the usual places; else it is a C string that lives through the call.
        let read = unsafe { (self.api.rados_conf_read_file)(self.rados, given) };
        let shown = options.conf.as_deref().unwrap_or("the usual places, such as /etc/ceph/ceph.conf");
        told(read, || format!("reading Ceph's configuration from {shown}"))?;
        if let Some(keyring) = &options.keyring {
            self.set("keyring", keyring)?;
        }
        if processors <= FEW_PROCESSORS && self.setting(THREADS)? == THREADS_BY_DEFAULT {
            self.set(THREADS, "1")?;
        }
        for (name, value) in &options.settings {
            self.set(name, value)?;
        }
        // After the settings of the file: the promise that a completed write is durable rests on it.
        UNCACHED.iter().try_for_each(|(name, value)| self.set(name, value))
    }

    fn set(&self, name: &str, value: &str) -> Result<(), CephError> {
        let (key, given) = (text(name)?, text(value)?);
        // SAFETY: both are C strings that live through the call.
        let set = unsafe { (self.api.rados_conf_set)(self.rados, key.as_ptr(), given.as_ptr()) };
        told(set, || format!("Ceph's option {name} = {value}"))
    }

    /// An option of Ceph's, as it stands now.
    fn setting(&self, name: &str) -> Result<String, CephError> {
        let key = text(name)?;
        let mut value = [0 as c_char; VALUE_BYTES];
        // SAFETY: the name is a C string that lives through the call, which writes at most so many bytes.
        let got =
            unsafe { (self.api.rados_conf_get)(self.rados, key.as_ptr(), value.as_mut_ptr(), value.len()) };
        told(got, || format!("Ceph's option {name}"))?;
        // SAFETY: the call succeeded, so it is a C string.
        Ok(unsafe { CStr::from_ptr(value.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// This client's address, as the cluster's blocklist names it.
    pub(super) fn address(&self) -> Result<CString, CephError> {
        let mut found: *mut c_char = ptr::null_mut();
        // SAFETY: the call writes a C string that is ours until it is given back.
        let asked = unsafe { (self.api.rados_getaddrs)(self.rados, &raw mut found) };
        told(asked, || "asking for the client's own address".to_owned())?;
        // SAFETY: the call succeeded, so it is a C string.
        let address = unsafe { CStr::from_ptr(found) }.to_owned();
        // SAFETY: it came from librados, and is not used again.
        unsafe { (self.api.rados_buffer_free)(found) };
        Ok(address)
    }

    /// Shuts another client out of the cluster, and waits until this one has seen the map that says so. What this client
    /// sends from then on makes every OSD learn of it first.
    pub(super) fn shut_out(&self, address: &CStr) -> Result<(), CephError> {
        let owned = address.to_owned().into_raw();
        // SAFETY: a C string, which the call takes as not constant but does not keep.
        let added = unsafe { (self.api.rados_blocklist_add)(self.rados, owned, 0) };
        // SAFETY: from `into_raw`, just above.
        drop(unsafe { CString::from_raw(owned) });
        told(added, || format!("putting the old client {} on the blocklist", address.to_string_lossy()))?;
        // SAFETY: the client is connected.
        let seen = unsafe { (self.api.rados_wait_for_latest_osdmap)(self.rados) };
        told(seen, || "waiting for the map with the blocklist".to_owned())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: images under it hold the client, so none is open any more.
        unsafe { (self.api.rados_shutdown)(self.rados) };
    }
}

/// An image, open under a client of its own. Dropped, it is closed on a thread of its own: see [`wait_until_closed`].
#[derive(Debug)]
pub(super) struct Image {
    inner: Option<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    io: api::IoCtx,
    image: api::Image,
    watch: Option<Watch>,
}

/// What librbd calls when the image's header has changed.
#[derive(Debug)]
struct Watch {
    handle: u64,
    /// Boxed: its address is librbd's until the watch is given back.
    _keeper: Box<SyncSender<()>>,
}

/// librbd's callback: the image's header has changed.
///
/// # Safety
/// `keeper` is that of a [`Watch`], which lives until it was given back.
unsafe extern "C" fn updated(keeper: *mut c_void) {
    // SAFETY: by the promise above.
    let keeper = unsafe { &*keeper.cast::<SyncSender<()>>() };
    // Where it is full, the keeper has yet to look for a call before this one.
    let _ = keeper.try_send(());
}

// SAFETY: librbd is thread-safe; the handles are pointers to objects that lock for themselves.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Image {
    /// Opens the image that `options` names. `keeper` is called whenever its size may have changed.
    ///
    /// # Errors
    /// What was tried, and what Ceph said.
    pub(super) fn open(
        client: Client,
        options: &RbdOptions,
        keeper: &SyncSender<()>,
    ) -> Result<Self, CephError> {
        let api = client.api;
        let (pool, name) = (text(&options.pool)?, text(&options.image)?);
        let mut io = ptr::null_mut();
        // SAFETY: the client is connected, the name lives through the call, which writes the handle.
        let made = unsafe { (api.rados_ioctx_create)(client.rados, pool.as_ptr(), &raw mut io) };
        told(made, || format!("the pool {}", options.pool))?;
        // What finds the pool full is to be told so; it would wait for ever otherwise. The image takes it over from the pool.
        // SAFETY: the handle was just made.
        unsafe { (api.rados_set_pool_full_try)(io) };
        let mut inner = Inner { client, io, image: ptr::null_mut(), watch: None };
        if let Some(namespace) = &options.namespace {
            let namespace = text(namespace)?;
            // SAFETY: a C string that lives through the call.
            unsafe { (api.rados_ioctx_set_namespace)(io, namespace.as_ptr()) };
        }
        let snapshot = options.snapshot.as_deref().map(text).transpose()?;
        let snapshot = snapshot.as_ref().map_or(ptr::null(), |snapshot| snapshot.as_ptr());
        let open = if options.is_read_only() { api.rbd_open_read_only } else { api.rbd_open };
        // SAFETY: the pool is open, the names live through the call, which writes the handle.
        let opened = unsafe { open(io, name.as_ptr(), &raw mut inner.image, snapshot) };
        if opened < 0 {
            inner.image = ptr::null_mut();
        }
        told(opened, || format!("the image {options}"))?;
        inner.check(options)?;
        inner.watch(keeper)?;
        CLOSING.begin();
        Ok(Self { inner: Some(inner) })
    }

    fn inner(&self) -> &Inner {
        self.inner.as_ref().expect("it is there until it is dropped")
    }

    pub(super) fn api(&self) -> &'static Api {
        self.inner().client.api
    }

    /// The handle, for operations whose end comes before this value is dropped.
    pub(super) fn handle(&self) -> api::Image {
        self.inner().image
    }

    pub(super) fn address(&self) -> Result<CString, CephError> {
        self.inner().client.address()
    }

    /// Bytes of the image, or of its snapshot, now.
    pub(super) fn size_bytes(&self) -> Result<u64, CephError> {
        let mut size = 0;
        // SAFETY: the image is open; the call writes one number.
        let asked = unsafe { (self.api().rbd_get_size)(self.handle(), &raw mut size) };
        told(asked, || "asking for the image's size".to_owned())?;
        Ok(size)
    }

    /// Bytes beside each other that lie in one object. Not 0.
    pub(super) fn stripe_unit_bytes(&self) -> Result<u64, CephError> {
        let mut unit = 0;
        // SAFETY: the image is open; the call writes one number.
        let asked = unsafe { (self.api().rbd_get_stripe_unit)(self.handle(), &raw mut unit) };
        told(asked, || "asking for the image's stripe unit".to_owned())?;
        Ok(unit.max(1))
    }

    /// What the image is called below its name, for ever: no other has it.
    pub(super) fn id(&self) -> Result<CString, CephError> {
        let mut id = [0 as c_char; ID_BYTES];
        // SAFETY: the image is open; the call writes at most so many bytes, the last of them a NUL.
        let asked = unsafe { (self.api().rbd_get_id)(self.handle(), id.as_mut_ptr(), id.len()) };
        told(asked, || "asking for the image's id".to_owned())?;
        // SAFETY: the call succeeded, so it is a C string.
        Ok(unsafe { CStr::from_ptr(id.as_ptr()) }.to_owned())
    }

    /// Whether it is a mirror's copy of an image elsewhere, or was demoted to one.
    pub(super) fn is_mirrors_copy(&self) -> Result<bool, CephError> {
        Ok(self.inner().features()? & FEATURE_NON_PRIMARY != 0)
    }

    /// Whether a LUKS header stands at its beginning, as `rbd encryption format` and `cryptsetup` write it.
    pub(super) fn is_encrypted(&self) -> bool {
        let mut bytes = [0_u8; LUKS_MAGIC.len()];
        // SAFETY: the image is open; the call writes at most so many bytes.
        let read = unsafe {
            (self.api().rbd_read)(self.handle(), 0, bytes.len(), bytes.as_mut_ptr().cast::<c_char>())
        };
        read >= 0 && bytes == LUKS_MAGIC
    }
}

impl Inner {
    fn watch(&mut self, keeper: &SyncSender<()>) -> Result<(), CephError> {
        let keeper = Box::new(keeper.clone());
        let context = (&raw const *keeper).cast_mut().cast::<c_void>();
        let mut handle = 0;
        // SAFETY: the image is open; the box lives until the watch is given back, before the image is closed.
        let watched =
            unsafe { (self.client.api.rbd_update_watch)(self.image, &raw mut handle, updated, context) };
        told(watched, || "watching the image".to_owned())?;
        self.watch = Some(Watch { handle, _keeper: keeper });
        Ok(())
    }

    fn features(&self) -> Result<u64, CephError> {
        let mut features = 0;
        // SAFETY: the image is open; the call writes one number.
        let asked = unsafe { (self.client.api.rbd_get_features)(self.image, &raw mut features) };
        told(asked, || "asking for the image's features".to_owned())?;
        Ok(features)
    }

    /// Refuses what cannot be served truthfully.
    fn check(&self, options: &RbdOptions) -> Result<(), CephError> {
        let features = self.features()?;
        let refused = [
            (FEATURE_JOURNALING, "is journaled, which is not served: `rbd feature disable … journaling`"),
            (FEATURE_MIGRATING, "is being migrated: open it when `rbd migration commit` is through"),
            (FEATURE_NON_PRIMARY, "is a mirror's copy: promote it, or set read_only 1"),
        ];
        for (feature, why) in refused {
            if features & feature != 0 && !options.is_read_only() {
                let words = format!("the image {options} {why}");
                return Err(CephError { errno: libc::EOPNOTSUPP, words });
            }
        }
        self.check_caches(options)
    }

    /// Options that were set for an image or a pool (`rbd config`) outweigh the client's own.
    fn check_caches(&self, options: &RbdOptions) -> Result<(), CephError> {
        let api = self.client.api;
        for (name, off) in UNCACHED {
            let key = text(&format!("conf_{name}"))?;
            let mut value = [0 as c_char; VALUE_BYTES];
            let mut length = value.len();
            // SAFETY: the image is open, the key lives through the call, which writes at most so many bytes.
            let of_image = unsafe {
                (api.rbd_metadata_get)(self.image, key.as_ptr(), value.as_mut_ptr(), &raw mut length)
            };
            let mut of_pool = || {
                let mut length = VALUE_BYTES;
                // SAFETY: as above, with the pool.
                unsafe {
                    (api.rbd_pool_metadata_get)(self.io, key.as_ptr(), value.as_mut_ptr(), &raw mut length)
                }
            };
            let found = if of_image == -libc::ENOENT { of_pool() } else { of_image };
            if found == -libc::ENOENT {
                continue;
            }
            told(found, || format!("asking for {name} of {options}"))?;
            value[VALUE_BYTES - 1] = 0;
            // SAFETY: the call succeeded, so it is text, and a NUL stands behind it at the latest in the last place.
            let value = unsafe { CStr::from_ptr(value.as_ptr()) }.to_string_lossy().into_owned();
            if value != *off {
                let words = format!(
                    "{options} has {name} = {value}: what was answered would not be on the OSDs; it has to be {off} \
                     (`rbd config image` and `rbd config pool` tell where it stands)"
                );
                return Err(CephError { errno: libc::EOPNOTSUPP, words });
            }
        }
        Ok(())
    }
}

/// How many of librados's threads begin and end a client's operations.
const THREADS: &str = "librados_thread_count";
const THREADS_BY_DEFAULT: &str = "2";
/// Where the shards, librados's messengers and perhaps the OSDs have no more than these, a second such thread runs instead of
/// one of them, and the two wake each other: one alone takes the next operation before it sleeps.
const FEW_PROCESSORS: usize = 2;

/// Caches that are off, and what says so.
const UNCACHED: &[(&str, &str)] = &[("rbd_cache", "false"), ("rbd_persistent_cache_mode", "disabled")];

/// More than the value of such an option is long.
const VALUE_BYTES: usize = 256;

impl Drop for Inner {
    fn drop(&mut self) {
        let api = self.client.api;
        if let Some(watch) = self.watch.take() {
            // SAFETY: the image is open, and the watch of it. No callback runs once this has returned.
            unsafe { (api.rbd_update_unwatch)(self.image, watch.handle) };
        }
        if !self.image.is_null() {
            // SAFETY: it is open, and who began operations on it holds it until they have ended.
            unsafe { (api.rbd_close)(self.image) };
        }
        // SAFETY: no image is open in it any more.
        unsafe { (api.rados_ioctx_destroy)(self.io) };
    }
}

impl Drop for Image {
    /// The last holder may be a shard, which must not wait.
    fn drop(&mut self) {
        let inner = self.inner.take();
        let closing = Arc::new(Mutex::new(inner));
        let theirs = Arc::clone(&closing);
        let close = move || {
            drop(theirs.lock().unwrap_or_else(PoisonError::into_inner).take());
            CLOSING.end();
        };
        let spawned = std::thread::Builder::new().name("rbd-close".to_owned()).spawn(close);
        if spawned.is_err() {
            // No thread to be had. An image that stays open is better than a shard that stands still.
            std::mem::forget(closing.lock().unwrap_or_else(PoisonError::into_inner).take());
            CLOSING.end();
        }
    }
}

/// Images that are open or being closed.
struct Closing {
    open: Mutex<usize>,
    changed: Condvar,
}

static CLOSING: Closing = Closing { open: Mutex::new(0), changed: Condvar::new() };

impl Closing {
    fn begin(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn end(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_all();
    }
}

/// Waits until every image is closed, so that its lock and its watch are given back before the process ends; otherwise the
/// next one to write to it waits half a minute for them to run out. False where that took longer than `patience`.
pub fn wait_until_closed(patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let mut open = CLOSING.open.lock().unwrap_or_else(PoisonError::into_inner);
    while *open > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        open = CLOSING.changed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// More than Ceph makes them (`RBD_MAX_BLOCK_NAME_SIZE` less a prefix).
const ID_BYTES: usize = 64;
/// The first bytes of a LUKS header of either version.
const LUKS_MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

fn text(text: &str) -> Result<CString, CephError> {
    let words = || format!("{text:?} has a NUL in it");
    CString::new(text).map_err(|_| CephError { errno: libc::EINVAL, words: words() })
}

/// What an answer of Ceph's means to people.
fn told(answer: c_int, what: impl FnOnce() -> String) -> Result<(), CephError> {
    if answer >= 0 {
        return Ok(());
    }
    let hint = match -answer {
        libc::ENOENT => ": there is none of that name",
        libc::EACCES | libc::EPERM => ": the client has no right to it; look at its caps (`ceph auth get`)",
        libc::ETIMEDOUT => ": the cluster does not answer; are its monitors up?",
        libc::EINVAL => ": Ceph refuses it",
        _ => "",
    };
    let words = format!("{}{hint} ({})", what(), io::Error::from_raw_os_error(-answer));
    Err(CephError { errno: -answer, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs Ceph's libraries, and no cluster.
    #[test]
    fn few_processors_have_one_thread_unless_ceph_is_told_otherwise() {
        if Api::get().is_err() {
            return;
        }
        let conf = std::env::temp_dir().join(format!("portico-threads-{}.conf", std::process::id()));
        let threads = |text: &str, settings: &[(&str, &str)], processors| {
            std::fs::write(&conf, text).unwrap();
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let options = RbdOptions {
                conf: Some(conf.to_string_lossy().into_owned()),
                settings: settings.collect(),
                ..RbdOptions::new("pool", "disk")
            };
            let client = Client::configured(&options, processors).map_err(|error| error.words).unwrap();
            client.setting(THREADS).map_err(|error| error.words).unwrap()
        };
        let (nothing, three) = ("[global]\n", "[client]\nlibrados_thread_count = 3\n");
        let found = [
            threads(nothing, &[], 2),
            threads(nothing, &[], 3),
            threads(three, &[], 1),
            threads(nothing, &[(THREADS, "2")], 1),
        ];
        std::fs::remove_file(&conf).unwrap();
        assert_eq!(found, ["1", "2", "3", "2"]);
    }
}
