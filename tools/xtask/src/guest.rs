//! The real Linux initiator: a guest that logs in, makes a file system, writes a tree of files and finds it again
//! after the target was restarted.
//!
//! The guest is built by `tools/lab/guest-build`, once for each version of that script, and run by
//! `tools/lab/guest-run`, in a network namespace of its own where the target listens. What happens inside is
//! `tools/lab/guest-round`; each of its steps is a test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::ceph::Daemon;
use crate::lab::namespace::Namespace;
use crate::lab::process::Finished;
use crate::lab::target::{Kind, Peer, Place, Target};
use crate::lab::{self, Context, Failure, Result, halt, process};
use crate::tree::Tree;

/// `cargo xtask guest`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose target to test
    #[arg(long, value_enum, default_value = "portico")]
    peer: Peer,
    /// What its logical unit lies on; one that outlives the target
    #[arg(long, value_enum, default_value = "file")]
    kind: Kind,
    /// Instead of the round: let the OSD of an image hang under the guest's file system for a minute
    #[arg(long, conflicts_with_all = ["script", "kind", "peer"])]
    hang: bool,
    /// Instead of the round: type what the gateway's start tells Linux to type when nobody configured it
    #[arg(long, conflicts_with_all = ["script", "kind", "peer", "hang"])]
    embedded: bool,
    /// Instead of the round: run this script in the guest, with the target's name and portal as its arguments
    #[arg(long)]
    script: Option<PathBuf>,
}

/// How many steps passed, failed, or were not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// The command line's way in; `true` if every step passed.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    if !lab::is_root() {
        return Err(Failure::new("needs root for the network namespace"));
    }
    if arguments.hang {
        let tree = Tree::find()?;
        super::prepare(&tree, Peer::Portico)?;
        return Ok(hang(&tree, &mut |line| println!("{line}"))?.failed == 0);
    }
    if arguments.embedded {
        let tree = Tree::find()?;
        super::prepare(&tree, Peer::Portico)?;
        return Ok(embedded(&tree, &mut |line| println!("{line}"))?.failed == 0);
    }
    if !arguments.kind.outlives_the_target() {
        return Err(Failure::new("the round restarts the target, and a RAM disk would be empty after it"));
    }
    let tree = Tree::find()?;
    super::prepare(&tree, arguments.peer)?;
    let mut say = |line: &str| println!("{line}");
    if let Some(script) = &arguments.script {
        return run_script(&tree, arguments.peer, arguments.kind, script);
    }
    Ok(run(&tree, arguments.peer, arguments.kind, &mut say)?.failed == 0)
}

/// The whole round: both halves, with a restart of the target between them.
pub(crate) fn run(tree: &Tree, peer: Peer, kind: Kind, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let guest = Guest::make(tree, "guest-round")?;
    let mut target = Target::start(tree, peer, kind, UNIT_BYTES, Place::Inside(Namespace::create()?))?;
    let mut sum = Sum::default();
    for (half, steps) in HALVES {
        let finished = guest.round(&target, half)?;
        say(finished.output.trim_end());
        let passed = steps.iter().take_while(|step| did(&finished.output, half, step)).count();
        if passed == steps.len() && finished.succeeded() {
            sum.passed += count(passed);
            say(&format!("{half}: all {passed} steps passed"));
        } else {
            // The last step's own end may be what failed; what follows it was not reached.
            let failed = steps.get(passed).unwrap_or(&"the end");
            sum.passed += count(passed);
            sum.failed += 1;
            sum.skipped += count(steps.len().saturating_sub(passed + 1));
            say(&format!("FAILED {half}: {failed} ({:?})", finished.end));
            break;
        }
        target.stop()?;
        target.resume()?;
        target.check_alive()?;
    }
    target.stop()?;
    Ok(sum)
}

/// A file system of the guest's on an RBD image, whose OSD hangs for a minute while files are written: longer than the
/// initiator waits for a command, so that its error recovery comes into it.
pub(crate) fn hang(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let guest = Guest::make(tree, "guest-hang")?;
    let place = Place::Inside(Namespace::create()?);
    let mut target = Target::start(tree, Peer::Portico, Kind::Rbd, UNIT_BYTES, place)?;
    let share = guest.share.path();
    let words = format!("bash guest-hang {} {}", Target::IQN, target.portal());
    let finished = thread::scope(|scope| {
        let running = scope.spawn(|| guest.run(&target, &words));
        let hung = until(|| share.join("busy").exists() || running.is_finished()).and_then(|()| {
            let cluster = target.cluster().expect("it is an image");
            let hanging = cluster.suspend(Daemon::Osd)?;
            // As the other OSDs of a larger cluster would report it. Without that, what hung longer than its lease of a
            // placement group does not serve it again (`laggy`).
            cluster.ceph(&["osd", "down", "0"])?;
            halt::pause(HANG)?;
            drop(hanging);
            fs::write(share.join("back"), "").context("back")
        });
        let finished = running.join().map_err(|_| Failure::new("the guest's thread panicked"))?;
        hung.and(finished)
    })?;
    say(finished.output.trim_end());
    let passed = HANG_STEPS.iter().take_while(|step| did(&finished.output, "hang", step)).count();
    let mut sum = Sum { passed: count(passed), ..Sum::default() };
    if passed < HANG_STEPS.len() || !finished.succeeded() {
        sum.failed = 1;
        let failed = HANG_STEPS.get(passed).unwrap_or(&"the end");
        say(&format!("FAILED hang: {failed} ({:?})", finished.end));
    }
    target.stop()?;
    Ok(sum)
}

/// Looks again and again, for as long as a guest may run.
fn until(mut question: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !question() {
        if start.elapsed() > GUEST_LIMIT {
            return Err(Failure::new("the guest has not begun"));
        }
        halt::pause(Duration::from_millis(100))?;
    }
    Ok(())
}

/// What the start of a gateway that nobody configured tells Linux to type, as it stands there.
pub(crate) fn embedded(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let guest = Guest::make(tree, "guest-embedded")?;
    let mut target = Target::start_embedded(tree, Place::Inside(Namespace::create()?))?;
    let lines = target.commands().into_iter().filter(|(name, _)| name == "Linux");
    let typed: String = lines.map(|(_, words)| words.join(" ") + "\n").collect();
    fs::write(guest.share.path().join("typed"), typed).context("typed")?;
    let finished = guest.run(&target, &format!("bash guest-embedded {}", target.iqn()))?;
    say(finished.output.trim_end());
    let passed = EMBEDDED_STEPS.iter().take_while(|step| did(&finished.output, "embedded", step)).count();
    let mut sum = Sum { passed: count(passed), ..Sum::default() };
    if passed < EMBEDDED_STEPS.len() || !finished.succeeded() {
        sum.failed = 1;
        let failed = EMBEDDED_STEPS.get(passed).unwrap_or(&"the end");
        say(&format!("FAILED embedded: {failed} ({:?})", finished.end));
    }
    target.stop()?;
    Ok(sum)
}

fn run_script(tree: &Tree, peer: Peer, kind: Kind, script: &Path) -> Result<bool> {
    let guest = Guest::make(tree, "guest-round")?;
    let mut target = Target::start(tree, peer, kind, UNIT_BYTES, Place::Inside(Namespace::create()?))?;
    fs::copy(script, guest.share.path().join("script")).context(script.display())?;
    let finished = guest.run(&target, &format!("bash script {} {}", Target::IQN, target.portal()))?;
    println!("{}", finished.output);
    target.stop()?;
    Ok(finished.succeeded())
}

/// Whether the guest printed that a step passed.
fn did(output: &str, half: &str, step: &str) -> bool {
    let line = format!("ok {half}-{step}");
    output.lines().any(|printed| printed.trim_end() == line)
}

/// A guest that was built, and the folder that it shares with us.
pub(crate) struct Guest {
    built: PathBuf,
    scripts: PathBuf,
    share: tempfile::TempDir,
}

impl Guest {
    /// Takes the guest from the cache, or builds it; with this script of `tools/lab` in the folder that it shares.
    pub(crate) fn make(tree: &Tree, script: &str) -> Result<Guest> {
        let scripts = tree.root.join("tools/lab");
        let share = tempfile::Builder::new().prefix("portico-guest-").tempdir()?;
        fs::copy(scripts.join(script), share.path().join(script)).context(script)?;
        Ok(Guest { built: built(tree, &scripts.join("guest-build"))?, scripts, share })
    }

    /// One half of the round.
    fn round(&self, target: &Target, half: &str) -> Result<Finished> {
        self.run(target, &format!("bash guest-round {half} {} {}", Target::IQN, target.portal()))
    }

    fn run(&self, target: &Target, words: &str) -> Result<Finished> {
        let namespace =
            target.namespace().ok_or_else(|| Failure::new("the guest cannot reach this target"))?;
        self.run_in(namespace.name(), words)
    }

    /// The folder that it shares with us.
    pub(crate) fn folder(&self) -> &Path {
        self.share.path()
    }

    /// Runs a command in the guest, plugged into this namespace.
    pub(crate) fn run_in(&self, namespace: &str, words: &str) -> Result<Finished> {
        let mut command = Command::new(self.scripts.join("guest-run"));
        command.arg("-d").arg(&self.built).arg("-s").arg(self.share.path());
        command.args(["-n", namespace, "-t", &GUEST_LIMIT.as_secs().to_string(), words]);
        process::run(&mut command, GUEST_LIMIT + Duration::from_secs(10))
    }
}

/// The folder with the guest that this version of the script builds. Two runs that build at once do not disturb each
/// other: each builds beside it, and the first that is ready stays.
pub(crate) fn built(tree: &Tree, script: &Path) -> Result<PathBuf> {
    let text = fs::read(script).context(script.display())?;
    let parent = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache).join("portico-lab"),
        None => tree.keep("guest")?,
    };
    fs::create_dir_all(&parent).context(parent.display())?;
    let folder = parent.join(format!("{:016x}", checksum(&text)));
    if folder.exists() {
        return Ok(folder);
    }
    let partial = tempfile::Builder::new().prefix("partial-").tempdir_in(&parent)?;
    // mmdebstrap's own helpers drop root, and must still get in.
    fs::set_permissions(partial.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let log = File::create(parent.join("build.log"))?;
    let end = process::run_into(Command::new(script).arg(partial.path()), BUILD_LIMIT, &log)?;
    if end != process::End::Exited(0) {
        let said = fs::read_to_string(parent.join("build.log"))?;
        return Err(Failure::new(format!("guest-build: {end:?}\n{said}")));
    }
    match fs::rename(partial.path(), &folder) {
        // It is the cache's now; what is not there any more cannot be removed.
        Ok(()) => drop(partial.keep()),
        Err(_) if folder.exists() => {}
        Err(error) => return Err(error).context(folder.display()),
    }
    Ok(folder)
}

/// FNV-1a, 64 bits: tells versions of a script apart.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn count(steps: usize) -> u32 {
    u32::try_from(steps).expect("a handful of steps")
}

/// The steps of each half, in the order in which the guest prints them.
const HALVES: [(&str, &[&str]); 2] = [
    ("write", &["discovery", "login", "disk", "mkfs", "mount", "files", "unmount", "fsck", "logout"]),
    ("check", &["discovery", "login", "disk", "mount", "checksums", "unmount", "fsck", "logout"]),
];
const EMBEDDED_STEPS: [&str; 5] = ["typed", "disks", "sizes", "data", "logout"];
const HANG_STEPS: [&str; 7] = ["login", "mount", "busy", "on", "fsck", "files", "logout"];
const HANG: Duration = Duration::from_secs(60);
const UNIT_BYTES: u64 = 256 << 20;
const GUEST_LIMIT: Duration = Duration::from_secs(240);
const BUILD_LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_only_by_its_own_whole_line() {
        let output = "ok write-login\r\nnot ok write-mkfs\nok write-mountain\n";
        assert!(did(output, "write", "login"));
        assert!(!did(output, "write", "mkfs"));
        assert!(!did(output, "write", "mount"));
        assert!(!did(output, "check", "login"));
    }

    #[test]
    fn every_step_is_one_that_the_script_prints() {
        let tree = Tree::find().unwrap();
        let script = fs::read_to_string(tree.root.join("tools/lab/guest-round")).unwrap();
        for step in HALVES.iter().flat_map(|(_, steps)| *steps) {
            assert!(script.contains(&format!("ok {step}\n")), "{step}");
        }
        let script = fs::read_to_string(tree.root.join("tools/lab/guest-hang")).unwrap();
        for step in HANG_STEPS {
            assert!(script.contains(&format!("ok {step}\n")), "{step}");
        }
        let script = fs::read_to_string(tree.root.join("tools/lab/guest-embedded")).unwrap();
        for step in EMBEDDED_STEPS {
            assert!(script.contains(&format!("ok {step}\n")), "{step}");
        }
    }

    #[test]
    fn the_checksum_is_fnv_1a() {
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
