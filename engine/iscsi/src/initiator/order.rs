//! What the connections of a session share: the CmdSN of the next command, and the target's window (RFC 7143 §4.2.2.1).
//!
//! Atomic, so that a session may be made on one thread and used on another. Its connections are used by one thread at a time:
//! nothing here orders one against another.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sn::{CmdSn, CommandWindow};

#[derive(Debug)]
pub(super) struct Order {
    next_cmd_sn: AtomicU32,
    /// ExpCmdSN above, MaxCmdSN below.
    window: AtomicU64,
    /// How many connections the session has had.
    joined: AtomicU32,
}

impl Order {
    pub(super) fn new(window: CommandWindow) -> Self {
        let order = Self {
            next_cmd_sn: AtomicU32::new(window.expected().0),
            window: AtomicU64::new(0),
            joined: AtomicU32::new(0),
        };
        order.set_window(window);
        order
    }

    pub(super) fn next_cmd_sn(&self) -> CmdSn {
        CmdSn(self.next_cmd_sn.load(Ordering::Relaxed))
    }

    /// A command takes its number.
    pub(super) fn take_cmd_sn(&self) -> CmdSn {
        CmdSn(self.next_cmd_sn.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn window(&self) -> CommandWindow {
        let both = self.window.load(Ordering::Relaxed);
        let half = |bits: u64| CmdSn(u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits"));
        CommandWindow::new(half(both >> 32), half(both)).expect("it was one when it was set")
    }

    pub(super) fn set_window(&self, window: CommandWindow) {
        let both = u64::from(window.expected().0) << 32 | u64::from(window.maximum().0);
        self.window.store(both, Ordering::Relaxed);
    }

    /// The number of one more connection.
    pub(super) fn join(&self) -> u32 {
        self.joined.fetch_add(1, Ordering::Relaxed) + 1
    }
}
