//! The Debian packages that the stages use: one list, `tools/packages.txt`; as root what is missing is installed.
//!
//! Nothing that is installed is ever removed, up- or downgraded, no recommended package comes along, and no service is
//! started by its package. A package that cannot be had on these terms is left out and named; the stages that use it
//! say what they do without it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Site;
use crate::lab::{Context, Failure, Result, process};

/// Installs the packages of the list that are not installed.
pub(super) fn install(site: &mut Site) -> Result<()> {
    let list = fs::read_to_string(site.tree.root.join(LIST)).context(LIST)?;
    let mut missing = Vec::new();
    for name in names(&list) {
        if !is_installed(name)? {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        site.say("all of them are installed");
        return Ok(());
    }
    let _policy = NoServices::begin()?;
    apt(site, &["update"])?;
    if ask_apt(site, &[&GENTLY[..], &missing].concat())? {
        return Ok(());
    }
    for name in missing {
        if !ask_apt(site, &[&GENTLY[..], &[name]].concat())? {
            site.say(&format!("{name} is left out: it does not go with what is installed"));
        }
    }
    Ok(())
}

/// How packages are installed: beside what is there.
const GENTLY: [&str; 5] = ["install", "--yes", "--no-install-recommends", "--no-upgrade", "--no-remove"];

fn apt(site: &mut Site, words: &[&str]) -> Result<()> {
    match ask_apt(site, words)? {
        true => Ok(()),
        false => Err(Failure::new(format!("apt-get {} failed", words[0]))),
    }
}

/// Whether apt-get did it.
fn ask_apt(site: &mut Site, words: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "-o", "DPkg::Lock::Timeout=300"]).args(words);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    site.run(&mut command)
}

fn is_installed(name: &str) -> Result<bool> {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat", "${db:Status-Status}", name]);
    let finished = process::run(&mut command, Duration::from_secs(30))?;
    Ok(finished.succeeded() && finished.output == "installed")
}

/// The names of a list: one a line, `#` begins a comment.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|name| !name.is_empty())
}

/// While it lives, packages do not start services (see invoke-rc.d(8)): tgt's would take the iSCSI port. A policy
/// of the machine's own stays as it is.
struct NoServices {
    made: bool,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        if Path::new(POLICY).exists() {
            return Ok(NoServices { made: false });
        }
        let file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY).context(POLICY)?;
        let policy = NoServices { made: true };
        std::io::Write::write_all(&mut &file, b"#!/bin/sh\nexit 101\n")?;
        Ok(policy)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(POLICY);
        }
    }
}

const LIST: &str = "tools/packages.txt";
const POLICY: &str = "/usr/sbin/policy-rc.d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_packages() {
        assert_eq!(names("# all\n\ntgt # a peer\n qemu-utils\n").collect::<Vec<_>>(), ["tgt", "qemu-utils"]);
    }

    #[test]
    fn what_dpkg_does_not_know_is_not_installed() {
        // Debian policy §5.6.7 forbids such a name.
        assert!(!is_installed("No_Such_Package").unwrap());
    }
}
