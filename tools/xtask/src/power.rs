//! Power loss: what was answered durably is on the medium, wherever the power is cut.
//!
//! The gateway runs inside the guest that `tools/lab/guest-build` makes, over devices whose writes and flushes
//! dm-log-writes logs; `tools/lab/guest-power` is what happens there. Here the log is replayed to each mark with
//! nothing but what was flushed (`log`), and compared with what was promised (`promises`). A file's medium is a file
//! system, whose journal is replayed first, as at a mount. What nobody asked to be durable is so when the gateway has ended
//! in order. Units with `nv_cache 1` flush nothing by the
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
use crate::{ci, guest, record};
use log::Log;
use promises::{BLOCK_BYTES, Promises};

/// `cargo xtask power`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Instead of the gateway of this tree: this program
    #[arg(long)]
    program: Option<PathBuf>,
    /// Look at a file system at every mark too, not at every tenth
    #[arg(long)]
    every_mark: bool,
    /// Keep what came of it in perf-results
    #[arg(long)]
    record: bool,
}

impl Arguments {
    fn look(&self) -> Look {
        if self.every_mark { Look::EveryMark } else { Look::Often }
    }
}

/// At which marks a file system is looked at: its journal takes a while to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// At every [`FILE_MARKS_STEP`]th.
    Often,
    /// At all.
    EveryMark,
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
    let seen = look(&tree, program, arguments.look(), &mut |line| println!("{line}"))?;
    if arguments.record {
        let folder = record::write(&tree, "power", "Power cuts under the gateway", &table(&seen))?;
        println!("recorded in {}", folder.display());
    }
    Ok(seen.iter().all(|(_, judged)| judged.is_ok()))
}

/// All scenarios, in one guest; how many passed and failed.
pub(crate) fn run(tree: &Tree, program: &Path, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let seen = look(tree, program, Look::Often, say)?;
    let failed = seen.iter().filter(|(_, judged)| judged.is_err()).count();
    let count = |scenarios: usize| u32::try_from(scenarios).expect("a handful");
    Ok((count(seen.len() - failed), count(failed)))
}

/// All scenarios, in one guest; what was seen of each, or why nothing was, and what that means.
fn look(
    tree: &Tree,
    program: &Path,
    look: Look,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<(Option<Seen>, Result<String>)>> {
    let share = tempfile::Builder::new().prefix("portico-power-").tempdir()?;
    let folder = share.path();
    write_in_guest(tree, program, folder, say)?;
    let mut all = Vec::new();
    for scenario in &SCENARIOS {
        let (seen, judged) = match scenario.look(folder, look) {
            Ok(seen) => {
                let judged = scenario.judge(&seen);
                (Some(seen), judged)
            }
            Err(failure) => (None, Err(failure)),
        };
        match &judged {
            Ok(sentence) => say(&format!("ok {}: {sentence}", scenario.name)),
            Err(failure) => say(&format!("FAILED {}: {failure}", scenario.name)),
        }
        all.push((seen, judged));
    }
    Ok(all)
}

/// A row for each scenario.
fn table(all: &[(Option<Seen>, Result<String>)]) -> String {
    let mut text = String::from(
        "The gateway runs in a guest over devices whose writes and flushes dm-log-writes logs. The power is cut at marks, each set\n\
         right after a promise: the medium has then what was flushed before. A file system's journal is replayed first.\n\n\
         | scenario | writer asks by | marks | power cuts | lost blocks | as it must be |\n|---|---|---|---|---|---|\n",
    );
    for (scenario, (seen, judged)) in SCENARIOS.iter().zip(all) {
        let (marks, cuts, lost) =
            seen.as_ref().map_or((0, 0, 0), |seen| (seen.marks, seen.cuts, seen.broken.len()));
        let Scenario { name, way, .. } = scenario;
        let verdict = match judged {
            Ok(_) if scenario.outcome == Outcome::LosesSome => "yes: it flushes nothing",
            Ok(_) => "yes",
            Err(_) => "no",
        };
        text.push_str(&format!("| {name} | {way} | {marks} | {cuts} | {lost} | {verdict} |\n"));
    }
    text.push_str(
        "\n`fua`: a bit of WRITE; `synchronize`: SYNCHRONIZE CACHE after a few WRITEs; `plain`: nothing but WRITE; `end`: nothing but\n\
         WRITE, and the gateway is told to end by SIGTERM, one mark after it did. A lost block is one that was answered before a cut and\n\
         is not on the medium after it; it is counted at each cut.\n",
    );
    text
}

/// What replaying a log showed.
struct Seen {
    /// In the log.
    marks: usize,
    /// Marks at which the medium was looked at.
    cuts: usize,
    /// Each answered block that was lost, at each cut.
    broken: Vec<String>,
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

    /// Replays the log. `Err` where it is not the log of what the guest did.
    fn look(&self, folder: &Path, look: Look) -> Result<Seen> {
        let promises = fs::read_to_string(folder.join(format!("{}.acks", self.name)))?;
        let promises = Promises::parse(&promises)?;
        let log = Log::parse(fs::read(folder.join(format!("{}.log", self.name)))?)?;
        let mut seen = Seen { marks: 0, cuts: 0, broken: Vec::new() };
        log.replay(DEVICE_BYTES, |mark, medium| {
            seen.marks += 1;
            if look == Look::EveryMark || self.is_looked_at(mark) {
                seen.cuts += 1;
                seen.broken.extend(self.broken_at(mark, medium, &promises, folder)?);
            }
            Ok(())
        })?;
        let marks_min = if self.way == AT_THE_END { 1 } else { MARKS_MIN };
        if seen.marks < marks_min || seen.marks != promises.marks() {
            let (marks, recorded) = (seen.marks, promises.marks());
            return Err(Failure::new(format!("{marks} marks in the log, {recorded} in the guest's record")));
        }
        Ok(seen)
    }

    /// A sentence on what was seen, `Err` unless it is what has to come of it.
    fn judge(&self, Seen { cuts, broken, .. }: &Seen) -> Result<String> {
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

    /// Where it is not looked at every mark.
    fn is_looked_at(&self, mark: u64) -> bool {
        self.medium == Medium::Device || self.way == AT_THE_END || mark.is_multiple_of(FILE_MARKS_STEP)
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
const SCENARIOS: [Scenario; 12] = [
    keeps("blockio-fua", Medium::Device, &[], "fua"),
    keeps("blockio-synchronize-cache", Medium::Device, &[], "synchronize"),
    keeps("blockio-write-through", Medium::Device, &["write_through 1"], "plain"),
    loses("blockio-nv-cache", Medium::Device, &["nv_cache 1"], "fua"),
    keeps("fileio-fua", Medium::File, &[], "fua"),
    keeps("fileio-synchronize-cache", Medium::File, &[], "synchronize"),
    keeps("fileio-write-through", Medium::File, &["write_through 1"], "plain"),
    keeps("fileio-o-direct", Medium::File, &["o_direct 1"], "synchronize"),
    keeps("fileio-o-direct-fua", Medium::File, &["o_direct 1"], "fua"),
    loses("fileio-nv-cache", Medium::File, &["nv_cache 1"], "synchronize"),
    keeps("blockio-sigterm", Medium::Device, &[], AT_THE_END),
    keeps("fileio-sigterm", Medium::File, &[], AT_THE_END),
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
/// The way of a writer whose one mark is set when the gateway has ended in order.
const AT_THE_END: &str = "end";
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
