//! The laboratory: what the harnesses share. Processes that cannot outlive us, targets under test, loop devices,
//! network namespaces, and the one error type.
//!
//! Everything that is set up here is taken down by a `Drop`: on success, on failure, on a panic, and on SIGINT or
//! SIGTERM, which only raise a flag (`halt`) that every wait looks at.

pub(crate) mod ceph;
pub(crate) mod floor;
pub(crate) mod gateway;
pub(crate) mod halt;
pub(crate) mod http;
pub(crate) mod initiator;
pub(crate) mod loop_device;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod qemu;
pub(crate) mod random;
pub(crate) mod reader;
pub(crate) mod target;
pub(crate) mod wiretap;
pub(crate) mod xfs;

use std::fmt;
use std::io;

/// Why a task could not go on; a sentence for a person.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// What the tasks return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure that says `what`.
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.to_string())
    }
}

/// Says what was being done when an error came up.
pub(crate) trait Context<T> {
    /// Puts `what` before the error's own words.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}

/// Whether this process may do what only root may: install packages, set up loop devices and namespaces.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program of that name stands in one of the folders of PATH, or where Debian keeps those of root.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(std::path::PathBuf::from))
        .any(|folder| folder.join(name).is_file())
}
