//! An independent reader of the protocol: what initiators and the gateway say to each other on loopback is captured, and
//! tshark finds nothing malformed in it and no digest wrong.
//!
//! libiscsi's tools and `portico-load`, with header digests, data digests, both and none, against memory and a file. Not only
//! has nothing to be wrong: PDUs of every kind that a usual session has must have been read, and digests of both kinds, or
//! the reader has not read what was meant.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ci;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::process::{self, Running};
use crate::lab::{Failure, Result, halt};
use crate::tree::Tree;

/// `cargo xtask capture`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The command line's way in; `true` if the reader found nothing wrong.
pub(crate) fn command(_arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    ci::build_release(&tree)?;
    let (passed, failed) = run(&tree, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// A round with a target that takes what initiators prefer, and one whose target has header digests alone, which is how
/// libiscsi comes to use them; how many rounds passed and failed.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    ci::build_load(tree)?;
    let (mut passed, mut failed) = (0, 0);
    for round in ROUNDS {
        let outcome = capture(tree, round).and_then(|text| judge(round, &text));
        *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
        match outcome {
            Ok(read) => say(&format!("ok     {}: {read}", round.name)),
            Err(failure) => say(&format!("FAILED {}: {failure}", round.name)),
        }
    }
    Ok((passed, failed))
}

/// What is said in front of the reader.
struct Round {
    name: &'static str,
    /// Attributes of the target.
    attributes: &'static [&'static str],
    /// Further words of each load.
    loads: &'static [&'static [&'static str]],
    /// Whether digests must be found, of headers and of data.
    digests: (bool, bool),
}

const ROUNDS: &[Round] = &[
    Round {
        name: "digests as initiators prefer",
        attributes: &[],
        loads: &[&[], &["--data-digest"], &["--header-digest", "--data-digest"]],
        digests: (true, true),
    },
    Round {
        name: "header digests alone",
        attributes: &["HeaderDigest CRC32C", "DataDigest None"],
        loads: &[&["--header-digest"]],
        digests: (true, false),
    },
];

/// Captures a round; what the reader says of it.
fn capture(tree: &Tree, round: &Round) -> Result<String> {
    let mut gateway = Gateway::prepare(tree)?;
    let file = gateway.folder().join("medium.img");
    let devices = [
        Device { handler: "vdisk_ram", name: "memory", attributes: vec![format!("size {UNIT_BYTES}")] },
        Device {
            handler: "vdisk_fileio",
            name: "file",
            attributes: vec![format!("filename {}", file.display()), format!("size {UNIT_BYTES}")],
        },
    ];
    let luns = [(0, "memory"), (1, "file")];
    gateway.configure(&gateway::configuration_with(&devices, &luns, round.attributes))?;
    gateway.start()?;
    let packets = gateway.folder().join("packets.pcapng");
    let mut listening = listen(&packets, gateway.portal().port())?;
    for lun in 0..devices.len() {
        converse(tree, &gateway, lun, round)?;
    }
    let port = gateway.portal().port();
    gateway.check()?;
    gateway.stop()?;
    listening.signal(Signal::INT)?;
    if listening.wait(ENDING_LIMIT)?.is_none() {
        return Err(Failure::new("dumpcap does not end"));
    }
    let decode = format!("tcp.port=={port},iscsi");
    let mut reader = Command::new("tshark");
    reader.arg("-r").arg(&packets).args(["-d", &decode, "-Y", "iscsi", "-O", "iscsi"]);
    process::run(&mut reader, READING_LIMIT)?.expect_success("tshark")
}

/// Starts to capture; returns when packets are taken.
fn listen(packets: &Path, port: u16) -> Result<Running> {
    let mut command = Command::new("dumpcap");
    command.args(["-q", "-i", "lo", "-B", BUFFER_MIB, "-f", &format!("tcp port {port}"), "-w"]).arg(packets);
    let mut running =
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let start = Instant::now();
    // It opens the interface first, and then writes the head of its file.
    while !std::fs::metadata(packets).is_ok_and(|file| file.len() > 0) {
        halt::go_on()?;
        if running.ended()?.is_some() || start.elapsed() > ENDING_LIMIT {
            return Err(Failure::new("dumpcap does not capture on loopback"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(running)
}

fn converse(tree: &Tree, gateway: &Gateway, lun: usize, round: &Round) -> Result<()> {
    let url = format!("iscsi://{}/{IQN}/{lun}", gateway.portal());
    let discovery = format!("iscsi://{}", gateway.portal());
    let programs: [(&str, &[&str]); 4] = [
        ("iscsi-ls", &["-s", &discovery]),
        ("iscsi-inq", &[&url]),
        ("iscsi-readcapacity16", &[&url]),
        ("iscsi-test-cu", &["--dataloss", "--test=SCSI.Write10.Simple", &url]),
    ];
    for (program, words) in programs {
        process::run(Command::new(program).args(words), PROGRAM_LIMIT)?.expect_success(program)?;
    }
    let program: PathBuf = tree.target.join("release/portico-load");
    for words in round.loads {
        for size in ["512", "12k", "256k"] {
            let mut load = Command::new(&program);
            load.args(["--target", &url, "--sessions", "2", "--depth", "4", "--bs", size, "--size", "8m"]);
            load.args(["--rw", "randrw", "--verify", "--count", COMMANDS, "--quiet"]).args(*words);
            process::run(&mut load, PROGRAM_LIMIT)?.expect_success("portico-load")?;
        }
    }
    Ok(())
}

/// What the reader found; `Err` where something is wrong or missing.
fn judge(round: &Round, text: &str) -> Result<String> {
    let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
    for wrong in ["Malformed", "Bad CRC32", "[Dissector bug"] {
        if let Some(line) = text.lines().find(|line| line.contains(wrong)) {
            return Err(Failure::new(format!("the reader says: {}", line.trim())));
        }
    }
    for kind in KINDS {
        if count(&format!("Opcode: {kind} (0x")) == 0 {
            return Err(Failure::new(format!("the reader has seen no {kind}")));
        }
    }
    let good =
        |of: &str| text.lines().filter(|line| line.contains(of) && line.contains("(Good CRC32)")).count();
    let (headers, data) = (good("HeaderDigest: "), good("DataDigest: "));
    if (headers > 0, data > 0) != round.digests {
        return Err(Failure::new(format!("{headers} header digests and {data} data digests were read")));
    }
    Ok(format!("{} PDUs, {headers} header digests and {data} data digests, all right", count("Opcode: ")))
}

/// PDUs of which each round has some, as the reader calls them.
const KINDS: &[&str] = &[
    "Login Command",
    "Login Response",
    "Text Command",
    "Text Response",
    "SCSI Command",
    "SCSI Response",
    "SCSI Data In",
    "SCSI Data Out",
    "Ready To Transfer",
    "Logout Command",
    "Logout Response",
];
const UNIT_BYTES: u64 = 64 << 20;
const COMMANDS: &str = "60";
/// As much as a round says: nothing is to be lost because the reader had no processor for a while.
const BUFFER_MIB: &str = "64";
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);
const ENDING_LIMIT: Duration = Duration::from_secs(20);
const READING_LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::{KINDS, ROUNDS, judge};

    fn text(extra: &str) -> String {
        let mut text: String = KINDS.iter().map(|kind| format!("    Opcode: {kind} (0x01)\n")).collect();
        text.push_str("    HeaderDigest: 0x1 (Good CRC32)\n    DataDigest: 0x1 (Good CRC32)\n");
        text + extra
    }

    #[test]
    fn what_is_wrong_or_missing_is_found() {
        let round = &ROUNDS[0];
        assert!(judge(round, &text("")).is_ok());
        for wrong in ["[Malformed Packet: iSCSI]", "    DataDigest: 0x1 (Bad CRC32, should be 0x2)"] {
            assert!(judge(round, &text(wrong)).is_err(), "{wrong}");
        }
        for kind in KINDS {
            assert!(judge(round, &text("").replace(kind, "other")).is_err(), "{kind}");
        }
        assert!(judge(round, &text("").replace("DataDigest", "None")).is_err());
        assert!(judge(&ROUNDS[1], &text("")).is_err(), "data digests that were not agreed on");
    }
}
