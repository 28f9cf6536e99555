//! Power loss: what was answered durably is on the medium, wherever the power is cut.
//!
//! The gateway runs inside the guest that `tools/lab/guest-build` makes, over devices whose writes and flushes
//! dm-log-writes logs; `tools/lab/guest-power` is what happens there. Here the log is replayed to each mark with
//! nothing but what was flushed (`log`), and compared with what was promised (`promises`). A file's medium is a file
//! system, whose journal is replayed first, as at a mount. Units with `nv_cache 1` flush nothing by the
//! administrator's own wish: they have to lose blocks here, or the check is blind.

mod log;
mod promises;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::gateway::{self, Device};
use crate::lab::{self, Context, Failure, Result, process};
use crate::tree::Tree;
use crate::{ci, guest};
use log::Log;
use promises::{BLOCK_BYTES, Promises};

/// `cargo xtask power`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Instead of the gateway of this tree: this program
    #[arg(long)]
    program: Option<PathBuf>,
}

/// The command line's way in; `true` if every scenario came out as it must.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    if !lab::is_root() {
        return Err(Failure::new("needs root to build the guest"));
    }
    let tree = Tree::find()?;
    if arguments.program.is_none() {
        ci::build_release(&tree)?;
    }
    let built = tree.target.join("release/porticod");
    let program = arguments.program.as_deref().unwrap_or(&built);
    let (_, failed) = run(&tree, program, &mut |line| println!("{line}"))?;
    Ok(failed == 0)
}

/// All scenarios, in one guest; how many passed and failed.
pub(crate) fn run(tree: &Tree, program: &Path, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let share = tempfile::Builder::new().prefix("portico-power-").tempdir()?;
    let folder = share.path();
    write_in_guest(tree, program, folder, say)?;
    let (mut passed, mut failed) = (0, 0);
    for scenario in &SCENARIOS {
        match scenario.judge(folder) {
            Ok(sentence) => {
                passed += 1;
                say(&format!("ok {}: {sentence}", scenario.name));
            }
            Err(failure) => {
                failed += 1;
                say(&format!("FAILED {}: {failure}", scenario.name));
            }
        }
    }
    Ok((passed, failed))
}

/// Leaves the log and the record of each scenario in `folder`.
fn write_in_guest(tree: &Tree, program: &Path, folder: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    let scripts = tree.root.join("tools/lab");
    let built = guest::built(tree, &scripts.join("guest-build"))?;
    fs::copy(program, folder.join("porticod")).context(program.display())?;
    fs::copy(scripts.join("guest-power"), folder.join("guest-power")).context("guest-power")?;
    let devices: Vec<Device> = SCENARIOS.iter().map(Scenario::device).collect();
    fs::write(folder.join("scst.conf"), gateway::configuration(&devices))?;
    let lines = SCENARIOS.iter().map(|scenario| format!("{}\n", scenario.line()));
    fs::write(folder.join("scenarios"), lines.collect::<String>())?;
    let mut command = Command::new(scripts.join("guest-run"));
    command.arg("-d").arg(&built).arg("-s").arg(folder).args(["-t", &GUEST_LIMIT.as_secs().to_string()]);
    command.arg(format!("./guest-power {}", gateway::IQN));
    let finished = process::run(&mut command, GUEST_LIMIT + Duration::from_secs(10))?;
    say(finished.output.trim_end());
    finished.expect_success("guest-power").map(drop)
}

/// One logical unit, how its writer asks for durability, and what has to come of it.
struct Scenario {
    name: &'static str,
    medium: Medium,
    /// Besides the filename.
    attributes: &'static [&'static str],
    /// As `guest-power` calls it.
    way: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Medium {
    /// vdisk_blockio on the device.
    Device,
    /// vdisk_fileio on a file in ext4 on the device.
    File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    KeepsAll,
    LosesSome,
}

impl Scenario {
    fn device(&self) -> Device {
        let (handler, filename) = match self.medium {
            Medium::Device => ("vdisk_blockio", format!("/dev/mapper/{}", self.name)),
            Medium::File => ("vdisk_fileio", format!("/run/{}/unit", self.name)),
        };
        let mut attributes = vec![format!("filename {filename}")];
        if self.medium == Medium::File {
            attributes.push(format!("size {FILE_BYTES}"));
        }
        attributes.extend(self.attributes.iter().map(|line| (*line).to_owned()));
        Device { handler, name: self.name, attributes }
    }

    /// The line that `guest-power` reads.
    fn line(&self) -> String {
        let medium = match self.medium {
            Medium::Device => "blockio",
            Medium::File => "fileio",
        };
        format!("{} {medium} {}", self.name, self.way)
    }

    /// Replays the log; a sentence on what it showed, `Err` unless it is what has to come of it.
    fn judge(&self, folder: &Path) -> Result<String> {
        let promises = fs::read_to_string(folder.join(format!("{}.acks", self.name)))?;
        let promises = Promises::parse(&promises)?;
        let log = Log::parse(fs::read(folder.join(format!("{}.log", self.name)))?)?;
        let (mut cuts, mut broken) = (0_usize, Vec::new());
        let mut marks = 0_usize;
        log.replay(DEVICE_BYTES, |mark, medium| {
            marks += 1;
            if self.is_looked_at(mark) {
                cuts += 1;
                broken.extend(self.broken_at(mark, medium, &promises, folder)?);
            }
            Ok(())
        })?;
        if marks < MARKS_MIN || marks != promises.marks() {
            let recorded = promises.marks();
            return Err(Failure::new(format!("{marks} marks in the log, {recorded} in the guest's record")));
        }
        match (self.outcome, broken.first()) {
            (Outcome::KeepsAll, None) => {
                Ok(format!("every answered block is there at each of {cuts} power cuts"))
            }
            (Outcome::KeepsAll, Some(first)) => Err(Failure::new(format!(
                "{} answered blocks are lost at {cuts} power cuts; {first}",
                broken.len()
            ))),
            (Outcome::LosesSome, None) => {
                Err(Failure::new(format!("nothing is lost at {cuts} power cuts: the check is blind")))
            }
            (Outcome::LosesSome, Some(first)) => Ok(format!(
                "loses {} answered blocks at {cuts} power cuts, as it must; {first}",
                broken.len()
            )),
        }
    }

    /// A file system's journal takes a while to replay.
    fn is_looked_at(&self, mark: u64) -> bool {
        self.medium == Medium::Device || mark.is_multiple_of(FILE_MARKS_STEP)
    }

    fn broken_at(&self, mark: u64, medium: &[u8], promises: &Promises, folder: &Path) -> Result<Vec<String>> {
        let content;
        let unit = match self.medium {
            Medium::Device => medium,
            Medium::File => {
                content = file_in(medium, folder)?;
                &content
            }
        };
        Ok(promises.broken_at(mark, |block| {
            let start =
                usize::try_from(block).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES).min(unit.len());
            &unit[start..start.saturating_add(BLOCK_BYTES).min(unit.len())]
        }))
    }
}

/// The file `unit` in a file system as the power cut left it, after its journal was replayed; empty if it is not there.
fn file_in(medium: &[u8], folder: &Path) -> Result<Vec<u8>> {
    let (image, content) = (folder.join("cut.img"), folder.join("cut.unit"));
    fs::write(&image, medium)?;
    fs::write(&content, "")?;
    let mut journal = Command::new("e2fsck");
    process::run(journal.args(["-y", "-E", "journal_only"]).arg(&image), STEP_LIMIT)?
        .expect_success("e2fsck")?;
    let mut dump = Command::new("debugfs");
    dump.arg("-R").arg(format!("dump unit {}", content.display())).arg(&image);
    process::run(&mut dump, STEP_LIMIT)?.expect_success("debugfs")?;
    fs::read(&content).context(content.display())
}

/// Their order is that of the LUNs.
const SCENARIOS: [Scenario; 9] = [
    keeps("blockio-fua", Medium::Device, &[], "fua"),
    keeps("blockio-synchronize-cache", Medium::Device, &[], "synchronize"),
    keeps("blockio-write-through", Medium::Device, &["write_through 1"], "plain"),
    loses("blockio-nv-cache", Medium::Device, &["nv_cache 1"], "fua"),
    keeps("fileio-fua", Medium::File, &[], "fua"),
    keeps("fileio-synchronize-cache", Medium::File, &[], "synchronize"),
    keeps("fileio-write-through", Medium::File, &["write_through 1"], "plain"),
    keeps("fileio-o-direct", Medium::File, &["o_direct 1"], "synchronize"),
    loses("fileio-nv-cache", Medium::File, &["nv_cache 1"], "synchronize"),
];

const fn keeps(
    name: &'static str,
    medium: Medium,
    attributes: &'static [&'static str],
    way: &'static str,
) -> Scenario {
    Scenario { name, medium, attributes, way, outcome: Outcome::KeepsAll }
}

const fn loses(
    name: &'static str,
    medium: Medium,
    attributes: &'static [&'static str],
    way: &'static str,
) -> Scenario {
    Scenario { name, medium, attributes, way, outcome: Outcome::LosesSome }
}

/// As in `guest-power`.
const DEVICE_BYTES: usize = 32 << 20;
const FILE_BYTES: usize = 16 << 20;
/// Fewer marks than this would show little.
const MARKS_MIN: usize = 100;
/// Every how many marks a file system is looked at; the last mark of all (120) is among them.
const FILE_MARKS_STEP: u64 = 10;
const GUEST_LIMIT: Duration = Duration::from_secs(400);
const STEP_LIMIT: Duration = Duration::from_secs(20);

const _: () = assert!(FILE_BYTES < DEVICE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_makes_devices_of_the_size_that_is_replayed() {
        let tree = Tree::find().unwrap();
        let script = fs::read_to_string(tree.root.join("tools/lab/guest-power")).unwrap();
        assert!(script.contains(&format!("DEVICE_BYTES = {} << 20\n", DEVICE_BYTES >> 20)));
        assert!(script.contains(&format!("BLOCK_BYTES, SECTOR_BYTES = {BLOCK_BYTES}, 512\n")));
    }

    #[test]
    fn every_way_of_a_scenario_is_one_that_the_guest_knows() {
        let tree = Tree::find().unwrap();
        let script = fs::read_to_string(tree.root.join("tools/lab/guest-power")).unwrap();
        for scenario in &SCENARIOS {
            assert!(script.contains(&format!("`{}`", scenario.way)), "{}", scenario.name);
        }
    }
}
