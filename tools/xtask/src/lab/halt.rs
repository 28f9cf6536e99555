//! When to give up: SIGINT, SIGTERM and SIGHUP raise a flag, and a stage of `ci` has a deadline. Who waits for anything
//! looks at both, and leaves by its ordinary way, so that every guard takes down what it set up. A second signal ends
//! the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::{Failure, Result};

static STOPPED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static DEADLINE: Mutex<Option<Instant>> = Mutex::new(None);

/// Starts to listen to signals. Called once, before anything is started.
pub(crate) fn listen() {
    let stopped = STOPPED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the conditional one sees the flag as it was before this signal.
        flag::register_conditional_default(signal, Arc::clone(stopped)).expect("a signal that may be caught");
        flag::register(signal, Arc::clone(stopped)).expect("a signal that may be caught");
    }
}

/// Whether we were told to stop.
pub(crate) fn stopped() -> bool {
    STOPPED.get().is_some_and(|stopped| stopped.load(Ordering::Relaxed))
}

/// Gives all that follows this much time, until the next call.
pub(crate) fn after(limit: Duration) {
    *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
}

/// Sleeps; `Err` once we were told to stop or the time is over.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        go_on()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

/// `Err` once we were told to stop or the time is over.
pub(crate) fn go_on() -> Result<()> {
    if stopped() {
        return Err(Failure::new("stopped by a signal"));
    }
    match *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(deadline) if Instant::now() >= deadline => Err(Failure::new("the stage's time is over")),
        _ => Ok(()),
    }
}
