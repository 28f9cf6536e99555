//! An independent reader of the protocol: what initiators and the gateway say to each other on loopback is captured, and
//! tshark finds nothing malformed in it and no digest wrong.
//!
//! libiscsi's tools and `portico-load`, with header digests, data digests, both and none, against memory and a file. Not only
//! has nothing to be wrong: PDUs of every kind that a usual session has must have been read, and digests of both kinds, or
//! the reader has not read what was meant. QEMU, once with each setting of its digests. Other stages of `ci` are captured and
//! read while they run (`judge_all`).

mod planted;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::ci;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::qemu::Qemu;
use crate::lab::reader::{self, Reading, Speaker, Whom};
use crate::lab::wiretap::{self, Captures};
use crate::lab::{Failure, Result, process};
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
        let outcome = capture(tree, round).and_then(|(reading, planted)| {
            judge(round, &reading).map(|read| format!("{read}; it found {planted} planted faults"))
        });
        *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
        match outcome {
            Ok(read) => say(&format!("ok     {}: {read}", round.name)),
            Err(failure) => say(&format!("FAILED {}: {failure}", round.name)),
        }
    }
    let qemu = Qemu::find(tree)?;
    for (setting, digests) in SETTINGS {
        let outcome = setting_of_qemu(tree, &qemu, setting, *digests);
        *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
        match outcome {
            Ok(read) => say(&format!("ok     QEMU, header-digest={setting}: {read}")),
            Err(failure) => say(&format!("FAILED QEMU, header-digest={setting}: {failure}")),
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
    /// Whether faults are planted in it afterwards, and have to be found.
    is_planted: bool,
}

const ROUNDS: &[Round] = &[
    Round {
        name: "digests as initiators prefer",
        attributes: &[],
        loads: &[&[], &["--data-digest"], &["--header-digest", "--data-digest"]],
        digests: (true, true),
        is_planted: true,
    },
    Round {
        name: "header digests alone",
        attributes: &["HeaderDigest CRC32C", "DataDigest None"],
        loads: &[&["--header-digest"]],
        digests: (true, false),
        is_planted: false,
    },
];

/// Captures a round, and has it read; how many faults that were planted in a copy of it the reader found.
fn capture(tree: &Tree, round: &Round) -> Result<(Reading, usize)> {
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
    wiretap::order(LIMIT_MIB)?;
    gateway.start()?;
    let said = (0..devices.len()).try_for_each(|lun| converse(tree, &gateway, lun, round));
    let alive = gateway.check().and_then(|()| gateway.stop());
    let captures = wiretap::collect().ok_or_else(|| Failure::new("nobody listened"))?;
    said.and(alive)?;
    let reading = read_all(&captures)?;
    let planted = match captures.taken.first() {
        Some(capture) if round.is_planted => planted::all_are_found(capture)?,
        _ => 0,
    };
    Ok((reading, planted))
}

/// QEMU with CHAP and a setting of its `header-digest`: whether headers have digests then.
fn setting_of_qemu(tree: &Tree, qemu: &Qemu, setting: &str, digests: bool) -> Result<String> {
    let mut gateway = Gateway::prepare(tree)?;
    let memory =
        Device { handler: "vdisk_ram", name: "memory", attributes: vec![format!("size {UNIT_BYTES}")] };
    let user = format!("IncomingUser \"joe {SECRET}\"");
    gateway.configure(&gateway::configuration_with(&[memory], &[(0, "memory")], &[&user]))?;
    wiretap::order(LIMIT_MIB)?;
    gateway.start()?;
    let options = format!(
        "driver=iscsi,transport=tcp,portal={},target={IQN},lun=0,user=joe,password-secret=chap,header-digest={setting}",
        gateway.portal()
    );
    let said = qemu.info(&format!("secret,id=chap,data={SECRET}"), &options);
    let alive = gateway.check().and_then(|()| gateway.stop());
    let captures = wiretap::collect().ok_or_else(|| Failure::new("nobody listened"))?;
    said?.expect_success("qemu-img info")?;
    alive?;
    let reading = read_all(&captures)?;
    nothing_is_wrong(&reading, Whom::Both)?;
    let (headers, pdus) = (reading.header_digests, reading.pdus());
    if (headers > 0) != digests || reading.data_digests > 0 || pdus == 0 {
        return Err(Failure::new(format!("it did not say what it was to say, but {}", reading.sentence())));
    }
    Ok(reading.sentence())
}

/// Everything that was captured; `Err` where some of it is missing.
fn read_all(captures: &Captures) -> Result<Reading> {
    let mut sum = Reading::default();
    for capture in &captures.taken {
        if capture.lost > 0 {
            return Err(Failure::new(format!("{} packets were lost while they were captured", capture.lost)));
        }
        sum.add(reader::read(capture)?);
    }
    Ok(sum)
}

/// What was said in a stage of `ci` while it was captured, in a sentence; `Err` where the reader finds something wrong in the
/// words of these, or has nothing to read.
pub(crate) fn judge_all(captures: &Captures, whom: Whom) -> Result<String> {
    let reading = read_all(captures)?;
    nothing_is_wrong(&reading, whom)?;
    match (whom, reading.pdus()) {
        (_, 0) => Err(Failure::new("the reader has seen no PDU")),
        (Whom::Both, _) => Ok(reading.sentence()),
        (Whom::Target, _) => {
            let count = reading.wrong.len();
            Ok(format!("{}; what the initiators said that is wrong ({count}) aside", reading.sentence()))
        }
    }
}

fn nothing_is_wrong(reading: &Reading, whom: Whom) -> Result<()> {
    let is_ours = |speaker: Option<Speaker>| whom == Whom::Both || speaker != Some(Speaker::Initiator);
    let mut wrong: BTreeMap<String, u64> = BTreeMap::new();
    for (speaker, words) in reading.wrong.iter().filter(|(speaker, _)| is_ours(*speaker)) {
        *wrong.entry(format!("{words} ({speaker:?})")).or_default() += 1;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = wrong.iter().map(|(words, count)| format!("{count} times {words}")).collect();
    Err(Failure::new(format!("the reader says: {}", told.join("; "))))
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
fn judge(round: &Round, reading: &Reading) -> Result<String> {
    nothing_is_wrong(reading, Whom::Both)?;
    if let Some(kind) = KINDS.iter().find(|kind| !reading.kinds.contains_key(**kind)) {
        return Err(Failure::new(format!("the reader has seen no {kind}")));
    }
    let (headers, data) = (reading.header_digests, reading.data_digests);
    if (headers > 0, data > 0) != round.digests {
        return Err(Failure::new(format!("{headers} header digests and {data} data digests were read")));
    }
    Ok(reading.sentence())
}

/// What QEMU can be told, and whether headers have digests where the target takes what initiators prefer.
const SETTINGS: &[(&str, bool)] =
    &[("crc32c", true), ("none", false), ("crc32c-none", true), ("none-crc32c", false)];
const SECRET: &str = "open-sesame-1";
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
/// More than is said in a round.
const LIMIT_MIB: u64 = 1024;
const COMMANDS: &str = "60";
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::{KINDS, ROUNDS, judge};
    use crate::lab::reader::{Reading, parse};

    fn reading(extra: &str, left_out: &str) -> Reading {
        let mut text: String = KINDS.iter().map(|kind| format!("    Opcode: {kind} (0x01)\n")).collect();
        text.push_str("    HeaderDigest: 0x1 (Good CRC32)\n    DataDigest: 0x1 (Good CRC32)\n");
        parse(&(text.replace(left_out, "other") + extra), &[4000])
    }

    #[test]
    fn what_is_wrong_or_missing_is_found() {
        let round = &ROUNDS[0];
        assert!(judge(round, &reading("", "nothing")).is_ok());
        for wrong in ["[Malformed Packet: iSCSI]", "    DataDigest: 0x1 (Bad CRC32, should be 0x2)"] {
            assert!(judge(round, &reading(wrong, "nothing")).is_err(), "{wrong}");
        }
        for left_out in KINDS.iter().chain(&["DataDigest", "HeaderDigest"]) {
            assert!(judge(round, &reading("", left_out)).is_err(), "{left_out}");
        }
        assert!(judge(&ROUNDS[1], &reading("", "nothing")).is_err(), "data digests that were not agreed on");
    }
}
