//! Who holds a medium that we could not have, as far as this process may see. For error messages only.

use std::fs;
use std::path::Path;

/// The holder of a file.
pub(super) fn of_file(path: &Path) -> String {
    process_with(path).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The holder of a block device of this number.
pub(super) fn of_block_device(path: &Path, device: u64) -> String {
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    mounted(&number)
        .or_else(|| device_above(&number))
        .or_else(|| process_with(path))
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

const UNKNOWN: &str = "by a process that this one may not see (try as root: fuser -v)";

/// The mount point of the device.
fn mounted(number: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number))?;
    Some(format!("it is mounted at {}", line.split(' ').nth(4)?))
}

/// A device that is made of this one (LVM, RAID, encryption).
fn device_above(number: &str) -> Option<String> {
    let mut above = fs::read_dir(format!("/sys/dev/block/{number}/holders")).ok()?;
    Some(format!("it is part of {}", above.next()?.ok()?.file_name().display()))
}

/// A process that has `path` open.
fn process_with(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| has_open(id, &path)).map(describe).next()
}

fn has_open(process: u32, path: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    // The links are compared, not followed: a stat could hang where somebody's file does.
    let opened = |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|link| link == path);
    // Our own attempt is among our own descriptors.
    let least = if process == std::process::id() { 2 } else { 1 };
    descriptors.flatten().map(opened).filter(|&open| open).count() >= least
}

fn describe(process: u32) -> String {
    if process == std::process::id() {
        return "this process has it open already".to_owned();
    }
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("process {process} ({}) has it open", name.trim())
}
