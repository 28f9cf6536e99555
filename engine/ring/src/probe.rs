//! What the kernel must offer, what it may, and the remedy where it does not: for the start of a shard and for
//! `porticod --check`. Nothing here stays open.

use crate::ring::{Options, Ring};
use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::fs;
use std::io;

/// The least kernel: the first with DEFER_TASKRUN and STATX_DIOALIGN.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// One thing that the kernel offers, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// Whether a ring needs it. Without an optional one it goes on, slower.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What to do where it is not there; empty where it is.
    pub remedy: String,
}

/// Says which of `features` are missing, a line for each, or that all are there.
///
/// # Errors
/// Those of `out`.
pub fn tell_missing(features: &[Feature], out: &mut impl io::Write) -> io::Result<()> {
    if features.iter().all(|feature| feature.present) {
        return writeln!(out, "this machine has all that it needs");
    }
    for Feature { name, required, found, remedy, .. } in features.iter().filter(|feature| !feature.present) {
        if *required {
            writeln!(out, "this machine cannot run it: {name}: {found}; {remedy}")?;
        } else {
            writeln!(out, "this machine lacks {name}: {found}; {remedy}")?;
        }
    }
    Ok(())
}

/// No ring can be made here: why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What the kernel refused.
    pub reason: String,
    /// What to do.
    pub remedy: String,
    /// The kernel's error number.
    pub errno: i32,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for Unsupported {}

impl Unsupported {
    pub(crate) fn setup(error: &io::Error) -> Self {
        Self::explain(error, io_uring_disabled(), kernel())
    }

    pub(crate) fn workers(error: &io::Error) -> Self {
        Self {
            reason: format!("the number of io_uring workers cannot be limited: {error}"),
            remedy: "leave workers_bounded at 0, or use Linux 5.15 or later".to_owned(),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    fn explain(error: &io::Error, disabled: Option<u32>, kernel: Option<(u32, u32)>) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let remedy = match (errno, disabled) {
            (libc::EPERM, Some(2)) => "allow it with: sysctl kernel.io_uring_disabled=0".to_owned(),
            (libc::EPERM, Some(1)) => {
                "allow it with: sysctl kernel.io_uring_disabled=0, or run in the group that \
                                       kernel.io_uring_group names"
                    .to_owned()
            }
            (libc::EPERM | libc::EACCES, _) => {
                "a seccomp filter or security module forbids it: in a container, allow io_uring_setup, \
                 io_uring_enter and io_uring_register"
                    .to_owned()
            }
            (libc::ENOSYS, _) => "use a kernel that is built with CONFIG_IO_URING".to_owned(),
            (libc::EINVAL, _) if kernel.is_some_and(|version| version < KERNEL_MIN) => {
                format!("use Linux {}.{} or later", KERNEL_MIN.0, KERNEL_MIN.1)
            }
            (libc::ENOMEM, _) => {
                "raise the limit of locked memory (ulimit -l), or ask for fewer entries".to_owned()
            }
            (libc::EMFILE | libc::ENFILE, _) => "raise the limit of open files (ulimit -n)".to_owned(),
            _ => "see io_uring_setup(2)".to_owned(),
        };
        Self { reason: format!("io_uring cannot be used: {error}"), remedy, errno }
    }
}

/// Looks for everything that a ring needs or likes.
pub fn probe() -> Vec<Feature> {
    let mut features = vec![kernel_version(), ring_setup()];
    features.extend(operations());
    features.push(huge_pages());
    features.push(open_files(&fs::read_to_string("/proc/self/limits").unwrap_or_default()));
    features
}

fn kernel_version() -> Feature {
    let version = kernel();
    let present = version.is_some_and(|version| version >= KERNEL_MIN);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Feature::new("Linux 6.1 or later", present, true, release.trim().to_owned(), || {
        format!("use Linux {}.{} or later", KERNEL_MIN.0, KERNEL_MIN.1)
    })
}

/// Asks by doing: the setup flags have no other probe.
fn ring_setup() -> Feature {
    let options = Options { entries: 4, operations_max: 4, files_max: 4, ..Options::default() };
    let (present, found, remedy) = match Ring::new(options) {
        Ok(_) => (true, "a ring was made".to_owned(), String::new()),
        Err(Unsupported { reason, remedy, .. }) => (false, reason, remedy),
    };
    Feature { name: "io_uring with deferred task work", present, required: true, found, remedy }
}

fn operations() -> Vec<Feature> {
    let mut probe = Probe::new();
    let asked = IoUring::new(2).and_then(|io| io.submitter().register_probe(&mut probe));
    let needed = [
        ("operation ACCEPT", opcode::AcceptMulti::CODE),
        ("operation RECVMSG", opcode::RecvMsg::CODE),
        ("operation SENDMSG", opcode::SendMsg::CODE),
        ("operation READV", opcode::Readv::CODE),
        ("operation WRITEV", opcode::Writev::CODE),
        ("operation FSYNC", opcode::Fsync::CODE),
        ("operation FALLOCATE", opcode::Fallocate::CODE),
        ("operation ASYNC_CANCEL", opcode::AsyncCancel2::CODE),
        ("operation MSG_RING", opcode::MsgRingData::CODE),
    ];
    let feature = |(name, code)| {
        let present = asked.is_ok() && probe.is_supported(code);
        let found = if present { "supported" } else { "not supported" };
        Feature::new(name, present, true, found.to_owned(), || "use a newer kernel".to_owned())
    };
    needed.into_iter().map(feature).collect()
}

fn huge_pages() -> Feature {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let present = ["[always]", "[madvise]"].iter().any(|on| setting.contains(on));
    Feature::new("transparent huge pages", present, false, setting.trim().to_owned(), || {
        "write madvise to /sys/kernel/mm/transparent_hugepage/enabled".to_owned()
    })
}

/// One descriptor for each connection. What counts is the hard limit: a process raises its own to that.
fn open_files(limits: &str) -> Feature {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("unknown");
    let present = hard.parse::<u64>().map_or(hard == "unlimited", |hard| hard >= OPEN_FILES_GOOD);
    Feature::new("12,000 open files", present, false, format!("at most {hard}"), || {
        "for 10,000 sessions raise the hard limit (`ulimit -Hn`, LimitNOFILE of a systemd unit)".to_owned()
    })
}

/// 10,000 sessions, their media, and what a process has anyway.
const OPEN_FILES_GOOD: u64 = 12_000;

impl Feature {
    fn new(
        name: &'static str,
        present: bool,
        required: bool,
        found: String,
        remedy: impl FnOnce() -> String,
    ) -> Self {
        Self { name, present, required, found, remedy: if present { String::new() } else { remedy() } }
    }
}

/// Major and minor number of the running kernel.
fn kernel() -> Option<(u32, u32)> {
    parse_release(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The system's switch: 0 everybody, 1 a group, 2 nobody. Kernels before 6.6 have none.
fn io_uring_disabled() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ring_needs_is_present_wherever_these_tests_run() {
        let missing: Vec<_> = probe().into_iter().filter(|f| f.required && !f.present).collect();
        assert_eq!(missing, []);
    }

    #[test]
    fn what_is_missing_is_told_with_its_remedy_and_what_is_there_is_not() {
        let feature = |name, present, required| Feature {
            name,
            present,
            required,
            found: "Linux 5.15".to_owned(),
            remedy: "use Linux 6.1 or later".to_owned(),
        };
        let features = [feature("a", true, true), feature("b", false, true), feature("c", false, false)];
        let mut said = Vec::new();
        tell_missing(&features, &mut said).expect("memory takes everything");
        assert_eq!(
            String::from_utf8_lossy(&said),
            "this machine cannot run it: b: Linux 5.15; use Linux 6.1 or later\n\
             this machine lacks c: Linux 5.15; use Linux 6.1 or later\n"
        );
        said.clear();
        tell_missing(&features[..1], &mut said).expect("memory takes everything");
        assert_eq!(String::from_utf8_lossy(&said), "this machine has all that it needs\n");
    }

    #[test]
    fn too_few_open_files_are_told() {
        let of = |hard: &str| {
            open_files(&format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   {hard}   files\n"
            ))
        };
        let few = of("4096");
        assert!(!few.present && !few.required, "{few:?}");
        assert_eq!(few.found, "at most 4096");
        assert!(of("524288").present && of("unlimited").present);
        let here = open_files(&fs::read_to_string("/proc/self/limits").unwrap());
        assert_ne!(here.found, "at most unknown");
    }

    #[test]
    fn a_refusal_names_the_switch_that_caused_it() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let by_switch = Unsupported::explain(&refused, Some(2), Some((6, 18)));
        assert!(by_switch.to_string().contains("sysctl kernel.io_uring_disabled=0"), "{by_switch}");
        let by_filter = Unsupported::explain(&refused, Some(0), Some((6, 18)));
        assert!(by_filter.remedy.contains("seccomp"), "{by_filter}");
    }

    #[test]
    fn an_old_kernel_is_told_which_one_is_needed() {
        let invalid = io::Error::from_raw_os_error(libc::EINVAL);
        let old = Unsupported::explain(&invalid, None, parse_release("5.15.0-91-generic\n"));
        assert_eq!(old.remedy, "use Linux 6.1 or later");
        assert_eq!(parse_release("6.1.0"), Some((6, 1)));
        assert_eq!(parse_release("not a release"), None);
    }
}
