//! Many sessions on one unit, over both shards: `portico-load` writes and reads at random with verification, first each
//! session in a part of its own, then all in the same blocks. No error, no wrong byte, and while it runs each shard has
//! its half of the sessions and of the work. And once more with several connections in each session,
//! at recovery level 1 and with data digests.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::ci;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::process::Running;
use crate::lab::{Context, Failure, Result, halt};
use crate::record;
use crate::tree::Tree;

/// `cargo xtask sessions`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each of the four runs takes
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Keep what came of it in perf-results
    #[arg(long)]
    record: bool,
}

/// The command line's way in; `true` if all runs passed.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    ci::build_release(&tree)?;
    let mut said = String::new();
    let (passed, failed) = run(&tree, arguments.seconds, &mut |line| {
        println!("{line}");
        said.push_str(line);
        said.push('\n');
    })?;
    println!("{passed} passed, {failed} failed");
    if arguments.record {
        let title = format!("{SESSIONS} sessions on one unit, over {SHARDS} shards");
        let folder = record::write(&tree, "sessions", &title, &body(arguments.seconds, &said))?;
        println!("recorded in {}", folder.display());
    }
    Ok(failed == 0)
}

/// What is kept of what was said: of each run its sentence, what it did, and what its verification found.
fn body(seconds: u64, said: &str) -> String {
    let kept =
        ["ok ", "FAILED ", "iscsi://", "rand", "read: ", "write: ", "verified: ", "not as they should be"];
    let lines = said.lines().filter(|line| kept.iter().any(|begin| line.starts_with(begin)));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    format!(
        "Four runs of {seconds} s, on a file and in memory, each session in a part of its own and all in the same blocks; before \
         them one\neach of {} s with {CONNECTIONS} connections in each session. 4 KiB, 8 commands outstanding in each session, \
         porticod\nand generator on the same processors: what is shown is that nothing is wrong, not how fast it is. \
         The sentence of a\nrun stands below its figures.\n\n```\n{lines}```\n",
        seconds.div_ceil(4)
    )
}

/// Disjoint and shared regions of a file and of memory; how many runs passed and failed.
pub(crate) fn run(tree: &Tree, seconds: u64, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    ci::build_load(tree)?;
    let mut gateway = Gateway::prepare(tree)?;
    let file = gateway.folder().join("medium.img");
    let devices = [
        Device {
            handler: "vdisk_fileio",
            name: "file",
            attributes: vec![format!("filename {}", file.display()), format!("size {UNIT_BYTES}")],
        },
        Device { handler: "vdisk_ram", name: "ram-disk", attributes: vec![format!("size {UNIT_BYTES}")] },
    ];
    let maximum = format!("MaxConnections {CONNECTIONS}\n\t\tErrorRecoveryLevel 1");
    let luns = [(0, "file"), (1, "ram-disk")];
    gateway.configure(&gateway::configuration_with(&devices, &luns, &[&maximum]))?;
    gateway.argue(&["--cores", "0,1"]);
    gateway.start()?;
    let (mut passed, mut failed) = (0, 0);
    // Both media, over connections that share a command window.
    for (lun, medium) in luns {
        let seconds = seconds.div_ceil(4);
        let outcome = load(tree, &mut gateway, lun, ("--disjoint", CONNECTIONS), seconds, say);
        *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
        let what = format!("{} sessions of {CONNECTIONS} connections on a {medium}", SESSIONS / CONNECTIONS);
        match outcome {
            Ok(spread) => say(&format!("ok     {what}: {spread}")),
            Err(failure) => say(&format!("FAILED {what}: {failure}")),
        }
    }
    for (lun, medium) in devices.iter().map(|device| device.name).enumerate() {
        for region in ["--disjoint", "--shared"] {
            let outcome = load(tree, &mut gateway, lun, (region, 1), seconds, say);
            *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
            match outcome {
                Ok(spread) => say(&format!("ok     {SESSIONS} sessions on a {medium}, {region}: {spread}")),
                Err(failure) => {
                    say(&format!("FAILED {SESSIONS} sessions on a {medium}, {region}: {failure}"))
                }
            }
        }
    }
    gateway.check()?;
    gateway.stop()?;
    Ok((passed, failed))
}

/// One run of the load generator; how sessions and bytes were spread.
fn load(
    tree: &Tree,
    gateway: &mut Gateway,
    lun: usize,
    (region, connections): (&str, u64),
    seconds: u64,
    say: &mut dyn FnMut(&str),
) -> Result<String> {
    let log = gateway.folder().join("load.log");
    let file = std::fs::File::create(&log).context(log.display())?;
    let mut command = Command::new(tree.target.join("release/portico-load"));
    command.arg("--target").arg(format!("iscsi://{}/{IQN}/{lun}", gateway.portal()));
    let sessions = SESSIONS / connections;
    command.args(["--sessions", &sessions.to_string(), "--connections", &connections.to_string()]);
    command.args(["--depth", "8"]);
    if connections > 1 {
        command.args(["--recovery-level", "1", "--data-digest"]);
    }
    // Whoever reads a sector while another session writes it may see some of both: SCSI promises atomicity to WRITE ATOMIC
    // alone, and neither the page cache nor memory gives more. So shared regions are read back when all writes are over.
    let load: &[&str] =
        if region == "--shared" { &["--rw", "randwrite"] } else { &["--rw", "randrw", "--mix", "50"] };
    command.args(load);
    command.args(["--bs", "4k", "--size", REGION, "--verify", "--strict", "--quiet", region]);
    command.args(["--time", &format!("{seconds}s"), "--seed", "1"]);
    let before = shards(gateway, "portico_shard_received_bytes_total")?;
    let mut running =
        Running::start(command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?))?;
    let sessions = spread(gateway, &mut running, sessions)?;
    let status = running.wait(Duration::from_secs(seconds) + VERIFYING_LIMIT)?;
    let said = std::fs::read_to_string(&log).context(log.display())?;
    said.lines().for_each(&mut *say);
    if status.and_then(|status| status.code()) != Some(0) {
        return Err(Failure::new(format!("portico-load ended with {status:?}")));
    }
    let after = shards(gateway, "portico_shard_received_bytes_total")?;
    let received: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    // Which of both connections a login comes by does not decide: data count. A shard has its half where the machine does
    // nothing else, and less where somebody else has its processor.
    if connections == 1 && received.iter().any(|bytes| *bytes < received.iter().sum::<u64>() / 10) {
        return Err(Failure::new(format!("the shards received {received:?} bytes")));
    }
    Ok(format!("{sessions:?} sessions and {received:?} bytes on the shards"))
}

/// Waits until all sessions are there, and counts those of each shard.
fn spread(gateway: &mut Gateway, running: &mut Running, all: u64) -> Result<Vec<u64>> {
    let start = Instant::now();
    loop {
        halt::go_on()?;
        let sessions = shards(gateway, "portico_shard_sessions")?;
        if sessions.iter().sum::<u64>() == all {
            let even = sessions.iter().all(|count| *count == all / SHARDS);
            return if even {
                Ok(sessions)
            } else {
                Err(Failure::new(format!("{sessions:?} sessions on the shards")))
            };
        }
        if running.ended()?.is_some() || start.elapsed() > LOGIN_LIMIT {
            return Err(Failure::new(format!("there were never all sessions, but {sessions:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A metric of each shard.
fn shards(gateway: &Gateway, name: &str) -> Result<Vec<u64>> {
    (0..SHARDS).map(|shard| gateway.metric(&format!("{name}{{shard=\"{shard}\"}}"))).collect()
}

const SESSIONS: u64 = 64;
/// Of each session, in the run that has several.
const CONNECTIONS: u64 = 4;
const SHARDS: u64 = 2;
const UNIT_BYTES: u64 = 128 << 20;
const REGION: &str = "64m";
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// Reading back what was written, on a busy machine.
const VERIFYING_LIMIT: Duration = Duration::from_secs(120);
