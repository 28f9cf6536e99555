//! What the gateway serves when nobody tells it anything: every command that its start prints is run as it stands there
//! (those of Linux in the guest, see `guest`), data go to each LUN and come back, and its figures, on the metrics page
//! and in `portico top`, are those of what was sent.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{ask, contains};
use crate::ci;
use crate::lab::gateway::sum;
use crate::lab::initiator::{self, Initiator, Io};
use crate::lab::qemu::Qemu;
use crate::lab::target::{Place, Target};
use crate::lab::{Context, Failure, Result, halt, process};
use crate::tree::Tree;

/// All looks, each with its outcome.
pub(super) fn looks(tree: &Tree) -> Result<Vec<(&'static str, Result<()>)>> {
    ci::build_package(tree, "portico")?;
    let qemu = Qemu::find(tree)?;
    let mut target = Target::start_embedded(tree, Place::Loopback)?;
    let mut looks = vec![
        ("without a configuration there are a file, a RAM disk and a null unit", see_units(&target)),
        ("what its start tells one to type does what it should", type_it(&target, &qemu)),
        ("a disk image goes to LUN 0 as README says", send_image(&target, &qemu)),
        ("QEMU writes to every LUN, and reads what a LUN of that kind keeps", use_units(&target, &qemu)),
        ("the metrics count each command and byte that was sent, in every phase", count(&target)),
        ("`portico top` shows what is being done", watch(tree, &target)),
        ("and it ends in order too", target.stop()),
    ];
    let kept = target.resume().and_then(|()| qemu_io(&qemu, &target, 0, &[READ_IMAGE, READ]));
    looks.push(("its file is there again after a restart", kept.and_then(|()| target.stop())));
    Ok(looks)
}

fn see_units(target: &Target) -> Result<()> {
    let listed = ask("iscsi-ls", &["-s", &format!("iscsi://{}", target.portal())])?;
    contains(&listed, &format!("Target:{} ", target.iqn()))?;
    for unit in ["Lun:0 ", "Lun:1 ", "Lun:2 "] {
        let line = listed.lines().find(|line| line.starts_with(unit));
        contains(line.unwrap_or(unit), "DIRECT_ACCESS")?;
    }
    Ok(())
}

fn type_it(target: &Target, qemu: &Qemu) -> Result<()> {
    let commands = target.commands();
    let names: Vec<&str> = commands.iter().map(|(name, _)| name.as_str()).collect();
    if names != NAMES {
        return Err(Failure::new(format!("its start has commands for {names:?}, known are {NAMES:?}")));
    }
    for (name, words) in &commands {
        match name.as_str() {
            "QEMU" => contains(&qemu.tool(words)?, "virtual size: 64 GiB")?,
            "libiscsi" => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                contains(&ask(words[0], &words[1..])?, &format!("Target:{} ", target.iqn()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn send_image(target: &Target, qemu: &Qemu) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("portico-embedded-").tempdir()?;
    let (plain, packed) = (folder.path().join("disk.img"), folder.path().join("disk.qcow2"));
    fs::write(&plain, vec![0xa5; IMAGE_BYTES]).context(plain.display())?;
    qemu.convert(&["-f", "raw", "-O", "qcow2"], &plain, &packed.to_string_lossy())?;
    qemu.convert(&["-n", "-f", "qcow2", "-O", "raw"], &packed, &url(target, 0))?;
    qemu_io(qemu, target, 0, &[READ_IMAGE])
}

fn use_units(target: &Target, qemu: &Qemu) -> Result<()> {
    for (lun, device) in [(0, "disk"), (1, "ram"), (2, "null")] {
        let before = written_bytes(target, device)?;
        let read = if device == "null" { READ_ZEROES } else { READ };
        qemu_io(qemu, target, lun, &[WRITE, read])?;
        let written = written_bytes(target, device)? - before;
        if written != WRITE_BYTES {
            return Err(Failure::new(format!(
                "{device}: {WRITE_BYTES} bytes were written, {written} counted"
            )));
        }
    }
    Ok(())
}

/// As one would type it. A pattern that is not there is a failure of the command's.
fn qemu_io(qemu: &Qemu, target: &Target, lun: u32, commands: &[&str]) -> Result<()> {
    let mut line = vec!["qemu-io", "-f", "raw"];
    line.extend(commands.iter().flat_map(|command| ["-c", command]));
    let url = url(target, lun);
    line.push(&url);
    let said = qemu.tool(&line)?;
    if said.contains("failed") {
        return Err(Failure::new(format!("LUN {lun}: {said}")));
    }
    Ok(())
}

fn url(target: &Target, lun: u32) -> String {
    format!("iscsi://{}/{}/{lun}", target.portal(), target.iqn())
}

fn count(target: &Target) -> Result<()> {
    let mut initiator = Initiator::log_in(target.portal(), initiator::plan(target.iqn(), 1))?;
    initiator.clear_attentions(1)?;
    let before = Counts::read(target)?;
    let mut ios: Vec<Io> = (0..READS).map(|lba| Io::read(1, lba * 8, 4096)).collect();
    ios.extend((0..WRITES).map(|lba| Io::write(1, lba * 16, vec![7; 8192])));
    initiator.run(&mut ios)?;
    ios.iter().try_for_each(Io::expect_good)?;
    let after = Counts::read(target)?;
    for (name, expected) in
        [("read", (READS, READS * 4096)), ("write", (WRITES, WRITES * 8192)), ("other", (0, 0))]
    {
        let (was, is) = (before.of(name)?, after.of(name)?);
        let counted: Vec<u64> = is.latencies.iter().zip(&was.latencies).map(|(is, was)| is - was).collect();
        let bytes = is.bytes - was.bytes;
        if counted != [expected.0; PHASES.len()] || bytes != expected.1 {
            return Err(Failure::new(format!(
                "{name}: {expected:?} commands and bytes were sent, {counted:?} counted in {PHASES:?}, {bytes} bytes"
            )));
        }
    }
    Ok(())
}

/// What the metrics page says of the RAM disk.
struct Counts(Vec<(&'static str, OperationCounts)>);

/// Of one operation.
struct OperationCounts {
    /// How many commands the histogram of each phase holds.
    latencies: [u64; PHASES.len()],
    bytes: u64,
}

impl Counts {
    fn read(target: &Target) -> Result<Counts> {
        let page = page(target)?;
        // An operation that never came has no histogram.
        let sample = |name: String| sum(&page, &name).unwrap_or(0);
        let operations = OPERATIONS.map(|operation| {
            let labels = format!("device=\"ram\",operation=\"{operation}\"");
            let latencies = PHASES.map(|phase| {
                sample(format!("portico_command_latency_seconds_count{{{labels},phase=\"{phase}\"}}"))
            });
            (
                operation,
                OperationCounts { latencies, bytes: sample(format!("portico_bytes_total{{{labels}}}")) },
            )
        });
        Ok(Counts(operations.into()))
    }

    fn of(&self, operation: &str) -> Result<&OperationCounts> {
        let found = self.0.iter().find(|(name, _)| *name == operation);
        found.map(|(_, counts)| counts).ok_or_else(|| Failure::new(format!("no operation {operation}")))
    }
}

fn written_bytes(target: &Target, device: &str) -> Result<u64> {
    let sample = format!("portico_bytes_total{{device=\"{device}\",operation=\"write\"}}");
    Ok(sum(&page(target)?, &sample).unwrap_or(0))
}

fn page(target: &Target) -> Result<String> {
    target.metrics().unwrap_or_else(|| Err(Failure::new("its metrics are out of reach")))
}

/// One table of `portico top`, while LUN 1 is read.
fn watch(tree: &Tree, target: &Target) -> Result<()> {
    let metrics = target.metrics_address().ok_or_else(|| Failure::new("its metrics are out of reach"))?;
    let mut initiator = Initiator::log_in(target.portal(), initiator::plan(target.iqn(), 2))?;
    initiator.clear_attentions(1)?;
    let stop = AtomicBool::new(false);
    let (said, reads) = thread::scope(|scope| {
        let worker = scope.spawn(|| read_until(&mut initiator, &stop));
        let said = top(&tree.target.join("release/portico"), &metrics.to_string());
        stop.store(true, Ordering::Relaxed);
        let reads = worker.join().unwrap_or_else(|_| Err(Failure::new("the worker panicked")));
        (said, reads)
    });
    let (said, reads) = (said?, reads?);
    let mut rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|cells| cells.starts_with(&["ram", "1", "read"]));
    let per_second = row.and_then(|cells| figure(cells.get(3)?));
    // The interval is a second, which lies within the time of the reads; a figure has three digits.
    match per_second {
        Some(shown) if shown >= 1.0 && shown <= reads * 1.01 + 1.0 => Ok(()),
        _ => Err(Failure::new(format!("{reads} reads were done meanwhile, and it shows:\n{said}"))),
    }
}

fn top(program: &Path, metrics: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(["top", "--once", "--interval", "1s", "--metrics", metrics]);
    process::run(&mut command, Duration::from_secs(30))?.expect_success("portico top")
}

fn read_until(initiator: &mut Initiator, stop: &AtomicBool) -> Result<f64> {
    let mut reads = 0.0;
    while !stop.load(Ordering::Relaxed) {
        halt::go_on()?;
        let mut ios = [Io::read(1, 0, 4096)];
        initiator.run(&mut ios)?;
        ios[0].expect_good()?;
        reads += 1.0;
    }
    Ok(reads)
}

/// A count as people say it: 950, 25.0k, 1.20M.
fn figure(text: &str) -> Option<f64> {
    let (digits, factor) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    digits.parse::<f64>().ok().map(|value| value * factor)
}

/// For whom the start has commands, in their order.
const NAMES: [&str; 4] = ["Linux", "Linux", "QEMU", "libiscsi"];
const OPERATIONS: [&str; 3] = ["read", "write", "other"];
const PHASES: [&str; 3] = ["waited", "at_medium", "total"];
const READS: u64 = 40;
const WRITES: u64 = 24;
const IMAGE_BYTES: usize = 8 << 20;
const READ_IMAGE: &str = "read -P 0xa5 0 8M";
const WRITE: &str = "write -P 0x5a 16M 64k";
const READ: &str = "read -P 0x5a 16M 64k";
const READ_ZEROES: &str = "read -P 0 16M 64k";
const WRITE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_are_shown() {
        assert_eq!(figure("950"), Some(950.0));
        assert_eq!(figure("25.0k"), Some(25_000.0));
        assert_eq!(figure("1.20M"), Some(1_200_000.0));
        assert_eq!(figure("-"), None);
    }
}
