//! A file system of XFS in a file, on which the kernel writes untorn whatever the disk is. Needs root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Context, Result, process};

/// A mounted file system, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Xfs {
    folder: PathBuf,
}

impl Xfs {
    /// Why there can be none here that writes untorn, if so.
    pub(crate) fn obstacle() -> Option<&'static str> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if version(&release) < Some(UNTORN_SINCE) {
            Some("XFS writes untorn on any disk from Linux 6.16 on")
        } else if !known.lines().any(|line| line.ends_with("\txfs")) {
            Some("this kernel has no XFS")
        } else {
            None
        }
    }

    /// Makes one in `below`, and mounts it there.
    pub(crate) fn mount(below: &Path) -> Result<Xfs> {
        let (image, folder) = (below.join("medium.xfs"), below.join("xfs"));
        File::create(&image).and_then(|file| file.set_len(SIZE_BYTES)).context(image.display())?;
        std::fs::create_dir(&folder).context(folder.display())?;
        let mut make = Command::new("mkfs.xfs");
        process::run(make.args(["-q", "-m", "reflink=1"]).arg(&image), TIMEOUT)?
            .expect_success("mkfs.xfs")?;
        let mut mount = Command::new("mount");
        process::run(mount.args(["-o", "loop"]).arg(&image).arg(&folder), TIMEOUT)?
            .expect_success("mount")?;
        Ok(Xfs { folder })
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        // Not by `process::run`, which refuses once we were told to stop.
        if !Command::new("umount").arg(&self.folder).status().is_ok_and(|status| status.success()) {
            eprintln!("xtask: umount {} failed", self.folder.display());
        }
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The first release that writes untorn without a disk's help.
const UNTORN_SINCE: (u32, u32) = (6, 16);
/// More than the least that `mkfs.xfs` makes.
const SIZE_BYTES: u64 = 512 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(version("6.18.44-fc") >= Some(UNTORN_SINCE));
        assert!(version("7.0-rc1") >= Some(UNTORN_SINCE));
        assert!(version("6.9.1") < Some(UNTORN_SINCE));
        assert!(version("unknown") < Some(UNTORN_SINCE));
    }
}
