//! The functions of librados and librbd that are used, as their headers of Ceph 16 and later declare them
//! (`rados/librados.h`, `rbd/librbd.h`).
//!
//! All of them return 0 or a length, and a negative error number where they fail.
#![expect(unsafe_code, reason = "loads shared libraries, and promises the types of their functions")]

use std::ffi::{c_char, c_int, c_void};
use std::fmt;

use libloading::Library;

use crate::signature::{Declared, Function};

/// `rados_t`: a client of a cluster.
pub type Rados = *mut c_void;
/// `rados_ioctx_t`: a pool and a namespace, as one client sees them.
pub type IoCtx = *mut c_void;
/// `rbd_image_t`: an open image.
pub type Image = *mut c_void;
/// `rbd_completion_t`: one asynchronous operation.
pub type Completion = *mut c_void;
/// `rbd_callback_t`: called on one of librbd's threads when an operation has ended.
pub type Callback = unsafe extern "C" fn(Completion, *mut c_void);
/// `rbd_update_callback_t`: called on one of librbd's threads when an image's header has changed.
pub type UpdateCallback = unsafe extern "C" fn(*mut c_void);

/// `RBD_LOCK_MODE_EXCLUSIVE`.
pub const LOCK_MODE_EXCLUSIVE: u32 = 0;
/// `RBD_FEATURE_EXCLUSIVE_LOCK`.
pub const FEATURE_EXCLUSIVE_LOCK: u64 = 1 << 2;
/// `RBD_FEATURE_JOURNALING`.
pub const FEATURE_JOURNALING: u64 = 1 << 6;
/// `RBD_FEATURE_MIGRATING`.
pub const FEATURE_MIGRATING: u64 = 1 << 9;
/// `RBD_FEATURE_NON_PRIMARY`: a mirror's copy, which takes no writes.
pub const FEATURE_NON_PRIMARY: u64 = 1 << 10;

/// What keeps the libraries from being used.
#[derive(Debug)]
pub enum LoadError {
    /// The library is not on this machine.
    Missing {
        /// Its file name.
        library: &'static str,
        /// What the loader says.
        reason: String,
    },
    /// It is too old.
    NoFunction {
        /// Its file name.
        library: &'static str,
        /// What it lacks.
        function: &'static str,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { library, reason } => {
                write!(
                    f,
                    "{library} cannot be loaded ({reason}): install the package librbd1 (ceph-common has it too)"
                )
            }
            Self::NoFunction { library, function } => {
                write!(f, "{library} has no {function}: it is older than Ceph 16, install a newer librbd1")
            }
        }
    }
}

impl std::error::Error for LoadError {}

macro_rules! functions {
    ($( $library:ident { $( $name:ident: fn($($argument:ty),*) $(-> $result:ty)?; )* } )*) => {
        /// The loaded functions, each named as in C. The libraries stay loaded for the life of the process.
        #[allow(missing_docs, reason = "the names are those of Ceph's headers")]
        #[derive(Clone, Copy)]
        pub struct Api {
            $($( pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?, )*)*
        }

        impl Api {
            fn load() -> Result<Self, LoadError> {
                $( let $library = open(stringify!($library))?; )*
                Ok(Self { $($( $name: {
                    // SAFETY: the type is the one that the header declares, which a check with a C compiler against
                    // the installed headers holds up (`signature`); the library is never unloaded.
                    let symbol = unsafe { $library.get(concat!(stringify!($name), "\0").as_bytes()) };
                    *symbol.map_err(|_| LoadError::NoFunction {
                        library: file_name(stringify!($library)),
                        function: stringify!($name),
                    })?
                }, )*)* })
            }

            /// Every function with its type, as C declares it.
            pub fn declared() -> Vec<Declared> {
                vec![ $($( Declared {
                    name: stringify!($name),
                    signature: <unsafe extern "C" fn($($argument),*) $(-> $result)? as Function>::c_type(),
                }, )*)* ]
            }
        }
    };
}

functions! {
    librados {
        rados_create2: fn(*mut Rados, *const c_char, *const c_char, u64) -> c_int;
        rados_conf_read_file: fn(Rados, *const c_char) -> c_int;
        rados_conf_set: fn(Rados, *const c_char, *const c_char) -> c_int;
        rados_conf_get: fn(Rados, *const c_char, *mut c_char, usize) -> c_int;
        rados_connect: fn(Rados) -> c_int;
        rados_shutdown: fn(Rados);
        rados_getaddrs: fn(Rados, *mut *mut c_char) -> c_int;
        rados_buffer_free: fn(*mut c_char);
        rados_blocklist_add: fn(Rados, *mut c_char, u32) -> c_int;
        rados_wait_for_latest_osdmap: fn(Rados) -> c_int;
        rados_ioctx_create: fn(Rados, *const c_char, *mut IoCtx) -> c_int;
        rados_ioctx_set_namespace: fn(IoCtx, *const c_char);
        rados_ioctx_destroy: fn(IoCtx);
        rados_set_pool_full_try: fn(IoCtx);
    }
    librbd {
        rbd_open: fn(IoCtx, *const c_char, *mut Image, *const c_char) -> c_int;
        rbd_open_read_only: fn(IoCtx, *const c_char, *mut Image, *const c_char) -> c_int;
        rbd_close: fn(Image) -> c_int;
        rbd_get_size: fn(Image, *mut u64) -> c_int;
        rbd_get_features: fn(Image, *mut u64) -> c_int;
        rbd_get_id: fn(Image, *mut c_char, usize) -> c_int;
        rbd_read: fn(Image, u64, usize, *mut c_char) -> isize;
        rbd_get_stripe_unit: fn(Image, *mut u64) -> c_int;
        rbd_metadata_get: fn(Image, *const c_char, *mut c_char, *mut usize) -> c_int;
        rbd_pool_metadata_get: fn(IoCtx, *const c_char, *mut c_char, *mut usize) -> c_int;
        rbd_update_watch: fn(Image, *mut u64, UpdateCallback, *mut c_void) -> c_int;
        rbd_update_unwatch: fn(Image, u64) -> c_int;
        rbd_lock_acquire: fn(Image, u32) -> c_int;
        rbd_lock_release: fn(Image) -> c_int;
        rbd_lock_break: fn(Image, u32, *const c_char) -> c_int;
        rbd_lock_get_owners: fn(Image, *mut u32, *mut *mut c_char, *mut usize) -> c_int;
        rbd_lock_get_owners_cleanup: fn(*mut *mut c_char, usize);
        rbd_is_exclusive_lock_owner: fn(Image, *mut c_int) -> c_int;
        rbd_aio_create_completion: fn(*mut c_void, Callback, *mut Completion) -> c_int;
        rbd_aio_get_return_value: fn(Completion) -> isize;
        rbd_aio_release: fn(Completion);
        rbd_aio_readv: fn(Image, *const libc::iovec, c_int, u64, Completion) -> c_int;
        rbd_aio_writev: fn(Image, *const libc::iovec, c_int, u64, Completion) -> c_int;
        rbd_aio_flush: fn(Image, Completion) -> c_int;
        rbd_aio_discard: fn(Image, u64, u64, Completion) -> c_int;
        rbd_aio_write_zeroes: fn(Image, u64, usize, Completion, c_int, c_int) -> c_int;
        rbd_aio_writesame: fn(Image, u64, usize, *const c_char, usize, Completion, c_int) -> c_int;
        rbd_aio_compare_and_write:
            fn(Image, u64, usize, *const c_char, *const c_char, Completion, *mut u64, c_int) -> isize;
    }
}

impl Api {
    /// The functions, loaded at the first call.
    ///
    /// # Errors
    /// Where a library or one of its functions is missing. The next call tries again, since it may have been installed
    /// meanwhile.
    pub fn get() -> Result<&'static Api, LoadError> {
        static LOADED: std::sync::OnceLock<Api> = std::sync::OnceLock::new();
        if let Some(api) = LOADED.get() {
            return Ok(api);
        }
        let api = Self::load()?;
        Ok(LOADED.get_or_init(|| api))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

fn file_name(library: &'static str) -> &'static str {
    match library {
        "librados" => "librados.so.2",
        _ => "librbd.so.1",
    }
}

/// Loads a library for good.
fn open(library: &'static str) -> Result<&'static Library, LoadError> {
    let library = file_name(library);
    // SAFETY: the initialisers of Ceph's libraries have no preconditions.
    let opened = unsafe { Library::new(library) };
    let opened = opened.map_err(|error| LoadError::Missing { library, reason: error.to_string() })?;
    // Never unloaded: its threads may run until the process ends.
    Ok(Box::leak(Box::new(opened)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_names_the_package_to_install() {
        let error = LoadError::Missing { library: "librbd.so.1", reason: "no such file".to_owned() };
        assert!(error.to_string().contains("install the package librbd1"), "{error}");
    }

    #[test]
    fn the_table_has_no_function_twice() {
        let mut names: Vec<_> = Api::declared().iter().map(|declared| declared.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
