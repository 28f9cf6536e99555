//! `qemu-img` with its iSCSI driver.
//!
//! In Debian the program and the driver are two packages that work together only in the same version. Where the
//! installed ones differ (a program from backports), both are fetched as Debian 12 has them and unpacked below the
//! build folder; what is installed stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Context, Failure, Result, process};
use crate::tree::Tree;

/// A `qemu-img` that speaks iSCSI.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where its modules lie, if not where it looks by itself.
    modules: Option<PathBuf>,
}

impl Qemu {
    /// The installed one if its two packages fit, else an unpacked one.
    pub(crate) fn find(tree: &Tree) -> Result<Qemu> {
        let (program, driver) = (version("qemu-utils")?, version("qemu-block-extra")?);
        if program.is_some() && program == driver {
            return Ok(Qemu { program: PathBuf::from("qemu-img"), modules: None });
        }
        Qemu::unpack(tree)
    }

    /// Debian 12's, fetched and unpacked below the build folder, once.
    pub(crate) fn unpack(tree: &Tree) -> Result<Qemu> {
        let folder = tree.keep("qemu")?;
        let root = folder.join("root");
        let program = root.join("usr/bin/qemu-img");
        if !program.exists() {
            fetch(&folder, &root)?;
        }
        let triplet = format!("usr/lib/{}-linux-gnu/qemu", std::env::consts::ARCH);
        Ok(Qemu { program, modules: Some(root.join(triplet)) })
    }

    /// `qemu-img convert OPTIONS FROM TO`.
    pub(crate) fn convert(&self, options: &[&str], from: &Path, to: &str) -> Result<()> {
        let mut command = self.command("convert");
        command.args(options).arg(from).arg(to);
        process::run(&mut command, LIMIT)?.expect_success("qemu-img convert").map(drop)
    }

    /// `qemu-img compare` of a qcow2 image and a raw unit.
    pub(crate) fn compare(&self, image: &Path, unit: &str) -> Result<()> {
        let mut command = self.command("compare");
        command.args(["-f", "qcow2", "-F", "raw"]).arg(image).arg(unit);
        process::run(&mut command, LIMIT)?.expect_success("qemu-img compare").map(drop)
    }

    /// `qemu-img info` of an image that is described by options, with an object beside it.
    pub(crate) fn info(&self, object: &str, options: &str) -> Result<process::Finished> {
        let mut command = self.command("info");
        command.args(["--object", object, "--image-opts", options]);
        process::run(&mut command, LIMIT)
    }

    /// A command line as somebody would type it: the name of one of QEMU's tools, and its words.
    pub(crate) fn tool<S: AsRef<str>>(&self, line: &[S]) -> Result<String> {
        let (name, words) = line.split_first().ok_or_else(|| Failure::new("an empty command line"))?;
        let mut command = self.command_of(name.as_ref());
        command.args(words.iter().map(AsRef::as_ref));
        process::run(&mut command, LIMIT)?.expect_success(name.as_ref())
    }

    fn command(&self, task: &str) -> Command {
        let mut command = self.command_of("qemu-img");
        command.arg(task);
        command
    }

    fn command_of(&self, name: &str) -> Command {
        let mut command = Command::new(self.program.with_file_name(name));
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

/// The installed version of a package.
fn version(package: &str) -> Result<Option<String>> {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat", "${db:Status-Status} ${Version}", package]);
    let finished = process::run(&mut command, LIMIT)?;
    Ok(finished.output.strip_prefix("installed ").filter(|_| finished.succeeded()).map(str::to_owned))
}

fn fetch(folder: &Path, root: &Path) -> Result<()> {
    let downloads = folder.join("download");
    let _ = fs::remove_dir_all(&downloads);
    fs::create_dir_all(&downloads).context(downloads.display())?;
    let mut command = Command::new("apt-get");
    // As root, apt would hand the download to a user who cannot write here.
    command.args(["--quiet", "-o", "APT::Sandbox::User=root", "download"]);
    command.args(["qemu-utils/bookworm", "qemu-block-extra/bookworm"]).current_dir(&downloads);
    process::run(&mut command, LIMIT)?.expect_success("apt-get download")?;
    let unpacked = folder.join("partial");
    let _ = fs::remove_dir_all(&unpacked);
    let mut count = 0;
    for package in fs::read_dir(&downloads)? {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(package?.path()).arg(&unpacked);
        process::run(&mut command, LIMIT)?.expect_success("dpkg-deb -x")?;
        count += 1;
    }
    if count != 2 {
        return Err(Failure::new(format!("two packages of QEMU were asked for, {count} came")));
    }
    let _ = fs::remove_dir_all(root);
    fs::rename(&unpacked, root).context(root.display())
}

const LIMIT: Duration = Duration::from_secs(120);
