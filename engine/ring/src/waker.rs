//! [`Waker`]: ends a ring's sleep, from any thread. From another ring it rides with that ring's next submission
//! (MSG_RING) and costs no call of its own; from elsewhere it is a write to an eventfd.
//!
//! A wake carries no value: who wakes has first put its mail where the ring's thread looks. Wakes may merge.
#![expect(unsafe_code, reason = "makes an eventfd, for which the standard library has no call")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Wakes one ring. Cheap to clone, and may go to any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: File,
    ring: OwnedFd,
}

impl Waker {
    /// For the ring of this descriptor.
    pub(crate) fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us; nobody else has its number.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Self(Arc::new(Inner { event: File::from(event), ring: ring.try_clone_to_owned()? })))
    }

    /// Ends the ring's sleep, or keeps it from beginning the next. The ring sees [`crate::Payload::Woken`]. Where the
    /// ring is gone, nothing happens.
    pub fn wake(&self) {
        // The counter could overflow only after 2^64 wakes that nobody reads; no other error is possible.
        let _ = (&self.0.event).write(&1u64.to_ne_bytes());
    }

    /// A descriptor of the eventfd, for those who wake with it alone.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone_event(&self) -> io::Result<OwnedFd> {
        Ok(OwnedFd::from(self.0.event.try_clone()?))
    }

    pub(crate) fn event(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    pub(crate) fn ring(&self) -> RawFd {
        self.0.ring.as_raw_fd()
    }
}
