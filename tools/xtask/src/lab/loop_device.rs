//! A loop device over a file: the block device that tests have. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Result, process};

/// A loop device that is detached when this is dropped.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    device: PathBuf,
}

impl LoopDevice {
    /// Attaches `file`, whose length is the device's size, to the first free loop device.
    pub(crate) fn attach(file: &Path) -> Result<LoopDevice> {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show"]).arg(file);
        let output = process::run(&mut command, TIMEOUT)?.expect_success("losetup")?;
        Ok(LoopDevice { device: PathBuf::from(output.trim()) })
    }

    /// The device's path, `/dev/loopN`.
    pub(crate) fn path(&self) -> &Path {
        &self.device
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Not by `process::run`, which refuses once we were told to stop.
        if !Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("xtask: losetup --detach {} failed", self.device.display());
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
