//! Counts what the threads of the shards allocate, for the test that holds them to nothing: `cargo xtask allocations`.
//!
//! Built in with the feature `count-allocations` only. Each SIGUSR1 makes a line on standard error, `allocations NUMBER:
//! COUNT COUNT …`, with one count for each shard since its thread began. With `PORTICO_ALLOCATIONS_TRACE` set, the first
//! allocations after the second such signal are shown with the place that they came from.
//!
//! It never counts the other threads, which may allocate as they like, and never what is given back.

#![expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one passes every call on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use portico_model::identity::{SHARDS_MAX, ShardId};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTS: [AtomicU64; SHARDS_MAX] = [const { AtomicU64::new(0) }; SHARDS_MAX];
/// How many allocations are still to be shown.
static TO_SHOW: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The shard whose thread this is; none on most threads, and while a backtrace is taken.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The system's allocator, with an eye on it.
struct Counting;

// SAFETY: every call goes to `System` as it came, which keeps the contract; counting touches atomics and a thread-local
// without destructor only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(size: usize) {
    let Some(shard) = SHARD.get() else { return };
    COUNTS[shard].fetch_add(1, Ordering::Relaxed);
    if TO_SHOW.load(Ordering::Relaxed) > 0 && TO_SHOW.fetch_sub(1, Ordering::Relaxed) <= SHOWN {
        SHARD.set(None);
        eprintln!("allocation of {size} bytes on shard {shard}:\n{}", Backtrace::force_capture());
        SHARD.set(Some(shard));
    }
}

/// Counts what this thread allocates from now on.
pub(crate) fn count_this_thread(shard: ShardId) {
    SHARD.set(Some(usize::from(shard.0)));
}

/// Starts the thread that tells the counts.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn tell_on_signal(shards: usize) -> Result<(), String> {
    let mut signals = Signals::new([SIGUSR1]).map_err(|error| format!("SIGUSR1: {error}"))?;
    let trace = std::env::var_os("PORTICO_ALLOCATIONS_TRACE").is_some();
    let tell = move || {
        for (number, _) in (1..).zip(signals.forever()) {
            let mut line = format!("allocations {number}:");
            for count in &COUNTS[..shards] {
                let _ = write!(line, " {}", count.load(Ordering::Relaxed));
            }
            eprintln!("{line}");
            if trace && number == 2 {
                TO_SHOW.store(SHOWN, Ordering::Relaxed);
            }
        }
    };
    let thread = std::thread::Builder::new().name("allocations".into()).spawn(tell);
    thread.map(drop).map_err(|error| format!("no thread to tell allocations: {error}"))
}

/// How many allocations are shown.
const SHOWN: usize = 8;
