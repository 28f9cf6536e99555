//! SIGINT, SIGTERM and SIGHUP raise a flag; who waits for anything looks at it, and leaves by its ordinary way, so
//! that every guard takes down what it set up. A second signal ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::{Failure, Result};

static STOPPED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to listen. Called once, before anything is started.
pub(crate) fn listen() {
    let stopped = STOPPED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the conditional one sees the flag as it was before this signal.
        flag::register_conditional_default(signal, Arc::clone(stopped)).expect("a signal that may be caught");
        flag::register(signal, Arc::clone(stopped)).expect("a signal that may be caught");
    }
}

/// `Err` once we were told to stop.
pub(crate) fn go_on() -> Result<()> {
    match STOPPED.get() {
        Some(stopped) if stopped.load(Ordering::Relaxed) => Err(Failure::new("stopped by a signal")),
        _ => Ok(()),
    }
}
