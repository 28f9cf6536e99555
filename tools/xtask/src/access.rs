//! Who gets in: CHAP with libiscsi's tools, with QEMU and with an initiator of our own, access lists, redirection, and
//! what a changed file changes, against the real porticod.
//!
//! Peers that nobody here wrote prove who they are with MD5, which is what they have; the other algorithms are tried
//! with ours, whose responses are checked against known answers in its own tests.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use portico_iscsi::chap::{Algorithm, Credentials, User};
use portico_iscsi::initiator::LoginPlan;

use crate::conformance;
use crate::lab::gateway::Gateway;
use crate::lab::initiator::{self, Initiator};
use crate::lab::qemu::Qemu;
use crate::lab::{Failure, Result, halt, process};
use crate::tree::Tree;

/// `cargo xtask access`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The command line's way in; `true` if everybody got what is his.
pub(crate) fn command(_: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    super::ci::build_release(&tree)?;
    let (_, failed) = run(&tree, &mut |line| println!("{line}"))?;
    Ok(failed == 0)
}

/// What the steps share.
struct Stage {
    gateway: Gateway,
    qemu: Qemu,
    /// The suite's tests that are about iSCSI.
    tests: Vec<String>,
    root: PathBuf,
}

type Step = (&'static str, fn(&mut Stage) -> Result<()>);

/// In this order: a wrong secret makes what follows wait, and the last ones change the file.
const STEPS: &[Step] = &[
    ("libiscsi logs in with CHAP, one way and both ways", libiscsi_gets_in),
    ("every algorithm proves one way and both ways", every_algorithm),
    ("the suite's 15 tests of iSCSI end with CHAP both ways as without", suite_with_proof),
    ("QEMU and libiscsi work with each setting of CHAP and digests that they have", digests_with_proof),
    ("libiscsi does not believe a target that proves nothing", libiscsi_turns_away),
    ("libiscsi discovers with CHAP, and not without", libiscsi_discovers),
    ("QEMU reads a unit with CHAP, and not with a wrong secret", qemu_reads),
    ("libiscsi with a wrong or no secret is refused 02/01", libiscsi_stays_out),
    ("wrong secrets, strangers and unknown targets get 02/01, 02/02, 02/03", refusals),
    ("discovery shows each initiator what it may log in to", discovery_shows),
    ("failed logins are counted by target and reason", counted),
    ("wrong secrets make the next proof of that address wait", slowed),
    ("a changed secret holds for the next login, and sessions go on", changed),
    ("no secret is in the log or on the metrics page", hidden),
];

/// All steps; how many passed and how many failed.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let mut gateway = Gateway::prepare(tree)?;
    gateway.configure(&configuration(SECRET))?;
    gateway.argue(&["--cores", "0", "--shard-memory", "64"]);
    gateway.start()?;
    let tests = conformance::tests_of_iscsi(&tree.root)?;
    let mut stage = Stage { gateway, qemu: Qemu::find(tree)?, tests, root: tree.root.clone() };
    let (mut passed, mut failed) = (0, 0);
    let end: Step = ("porticod ends in order", |stage| stage.gateway.stop());
    for (name, step) in STEPS.iter().chain([&end]) {
        halt::go_on()?;
        match step(&mut stage) {
            Ok(()) => {
                passed += 1;
                say(&format!("ok     {name}"));
            }
            Err(failure) => {
                failed += 1;
                say(&format!("FAILED {name}: {failure}"));
            }
        }
    }
    Ok((passed, failed))
}

/// Targets for everybody, for whom knows a secret (one way, both ways), for one initiator, and two that moved.
fn configuration(secret: &str) -> String {
    format!(
        "HANDLER vdisk_ram {{\n\tDEVICE disk {{\n\t\tsize 16777216\n\t}}\n}}\n\
         TARGET_DRIVER iscsi {{\n\
         \tenabled 1\n\
         \tIncomingUser \"finder {FINDERS_SECRET}\"\n\
         \tTARGET {OPEN} {{\n\t\tLUN 0 disk\n\t\tenabled 1\n\t}}\n\
         \tTARGET {ONE_WAY} {{\n\t\tIncomingUser \"ann some-other-secret\"\n\t\tIncomingUser \"joe {secret}\"\n\
         \t\tLUN 0 disk\n\t\tenabled 1\n\t}}\n\
         \tTARGET {CHECKED} {{\n\t\tHeaderDigest CRC32C\n\t\tDataDigest None\n\t\tIncomingUser \"joe {secret}\"\n\
         \t\tLUN 0 disk\n\t\tenabled 1\n\t}}\n\
         \tTARGET {MUTUAL} {{\n\t\tIncomingUser \"joe {secret}\"\n\t\tOutgoingUser \"gateway {GATEWAYS_SECRET}\"\n\
         \t\tLUN 0 disk\n\t\tenabled 1\n\t}}\n\
         \tTARGET {PRIVATE} {{\n\t\tGROUP g {{\n\t\t\tLUN 0 disk\n\t\t\tINITIATOR {FRIEND}\n\t\t}}\n\t\tenabled 1\n\t}}\n\
         \tTARGET {AWAY} {{\n\t\tredirect \"127.0.0.2:3261 temp\"\n\t\tLUN 0 disk\n\t\tenabled 1\n\t}}\n\
         \tTARGET {GONE} {{\n\t\tredirect \"[::1]:3261 perm\"\n\t\tLUN 0 disk\n\t\tenabled 1\n\t}}\n\
         }}\n"
    )
}

fn url(stage: &Stage, user: &str, target: &str, arguments: &str) -> String {
    format!("iscsi://{user}{}/{target}/0{arguments}", stage.gateway.portal())
}

fn ask(program: &str, url: &str) -> Result<process::Finished> {
    process::run(Command::new(program).arg(url), ANSWER_LIMIT)
}

fn reads(url: &str) -> Result<()> {
    let capacity = ask("iscsi-readcapacity16", url)?.expect_success("iscsi-readcapacity16")?;
    contains(&capacity, "Total size:16777216")
}

/// The program fails, and the gateway has counted one more login that failed for this reason.
fn fails(stage: &Stage, metric: &str, program: &str, url: &str) -> Result<()> {
    let before = stage.gateway.metric(metric).unwrap_or(0);
    let finished = ask(program, url)?;
    if finished.succeeded() {
        return Err(Failure::new(format!("{program} got in:\n{}", finished.output)));
    }
    if stage.gateway.metric(metric)? > before {
        return Ok(());
    }
    Err(Failure::new(format!("{metric} did not grow; {program} says:\n{}", finished.output)))
}

fn failures(target: &str, reason: &str) -> String {
    format!("portico_login_failures_total{{target=\"{target}\",reason=\"{reason}\"}}")
}

fn libiscsi_gets_in(stage: &mut Stage) -> Result<()> {
    reads(&url(stage, "", OPEN, ""))?;
    reads(&url(stage, &format!("joe%{SECRET}@"), ONE_WAY, ""))?;
    let both = format!("?target_user=gateway&target_password={GATEWAYS_SECRET}");
    reads(&url(stage, &format!("joe%{SECRET}@"), MUTUAL, &both))
}

fn suite_with_proof(stage: &mut Stage) -> Result<()> {
    let both = format!("?target_user=gateway&target_password={GATEWAYS_SECRET}");
    let url = url(stage, &format!("joe%{SECRET}@"), MUTUAL, &both);
    if stage.tests.len() != TESTS_OF_ISCSI {
        return Err(Failure::new(format!("the suite has {} tests of iSCSI", stage.tests.len())));
    }
    for test in &stage.tests {
        halt::go_on()?;
        let mut command = Command::new("iscsi-test-cu");
        let finished = process::run(command.args(["-d", "-V", "-t", test, &url]), TEST_LIMIT)?;
        if !conformance::is_as_it_should_be(&stage.root, test, &finished)? {
            return Err(Failure::new(format!("{test}: {:?}\n{}", finished.end, finished.output)));
        }
    }
    Ok(())
}

/// What Debian's initiators can be told about CHAP (libiscsi's is MD5; QEMU proves one way) and about digests (of headers;
/// neither offers digests of data). Which digests are then used, `capture` looks at.
fn digests_with_proof(stage: &mut Stage) -> Result<()> {
    let portal = stage.gateway.portal();
    let secret = format!("secret,id=chap,data={SECRET}");
    for digest in HEADER_DIGESTS {
        for (target, user) in [(OPEN, ""), (ONE_WAY, ",user=joe,password-secret=chap")] {
            let options = format!(
                "driver=iscsi,transport=tcp,portal={portal},target={target},lun=0,header-digest={digest}{user}"
            );
            let info = stage.qemu.info(&secret, &options)?;
            contains(
                &info.expect_success(&format!("qemu-img info, header-digest={digest}{user}"))?,
                "16 MiB",
            )?;
        }
    }
    // Its tools offer both digests, whatever the URL says: it is the target that takes one or the other.
    let both = format!("?target_user=gateway&target_password={GATEWAYS_SECRET}");
    let joe = format!("joe%{SECRET}@");
    let settings = [
        (OPEN, "", ""),
        (ONE_WAY, &*joe, ""),
        (CHECKED, &joe, ""),
        (MUTUAL, &joe, ""),
        (MUTUAL, &joe, &*both),
    ];
    settings.into_iter().try_for_each(|(target, user, more)| reads(&url(stage, user, target, more)))
}

fn libiscsi_stays_out(stage: &mut Stage) -> Result<()> {
    let wrong = url(stage, "joe%open-sesame-2@", ONE_WAY, "");
    fails(stage, &failures(ONE_WAY, "authentication"), "iscsi-readcapacity16", &wrong)?;
    let nobody = url(stage, "", ONE_WAY, "");
    fails(stage, &failures(ONE_WAY, "authentication"), "iscsi-readcapacity16", &nobody)
}

fn libiscsi_turns_away(stage: &mut Stage) -> Result<()> {
    let other = "?target_user=gateway&target_password=not-its-secret";
    let finished = ask("iscsi-readcapacity16", &url(stage, &format!("joe%{SECRET}@"), MUTUAL, other))?;
    if finished.succeeded() { Err(Failure::new("it believed a wrong proof")) } else { Ok(()) }
}

fn libiscsi_discovers(stage: &mut Stage) -> Result<()> {
    let portal = stage.gateway.portal();
    let listed = ask("iscsi-ls", &format!("iscsi://finder%{FINDERS_SECRET}@{portal}"))?;
    let listed = listed.expect_success("iscsi-ls")?;
    [OPEN, ONE_WAY, MUTUAL, AWAY].into_iter().try_for_each(|name| contains(&listed, name))?;
    if listed.contains(PRIVATE) {
        return Err(Failure::new("it shows a target that is for somebody else"));
    }
    fails(stage, &failures("", "authentication"), "iscsi-ls", &format!("iscsi://{portal}"))
}

fn qemu_reads(stage: &mut Stage) -> Result<()> {
    let info = |secret: &str| {
        let options = format!(
            "driver=iscsi,transport=tcp,portal={},target={ONE_WAY},lun=0,user=joe,password-secret=chap",
            stage.gateway.portal()
        );
        stage.qemu.info(&format!("secret,id=chap,data={secret}"), &options)
    };
    contains(&info(SECRET)?.expect_success("qemu-img info")?, "16 MiB")?;
    if info("open-sesame-2")?.succeeded() { Err(Failure::new("a wrong secret got in")) } else { Ok(()) }
}

fn every_algorithm(stage: &mut Stage) -> Result<()> {
    for algorithm in Algorithm::ALL {
        let one_way = joe(SECRET).with(algorithm);
        enter(stage, ONE_WAY, Some(one_way.clone()))?;
        enter(stage, MUTUAL, Some(one_way.clone()))?;
        enter(stage, MUTUAL, Some(one_way.mutual(User::new("gateway", GATEWAYS_SECRET))))?;
    }
    Ok(())
}

fn refusals(stage: &mut Stage) -> Result<()> {
    refused(stage, ONE_WAY, Some(joe("open-sesame-2")), "0x0201")?;
    refused(stage, ONE_WAY, None, "0x0201")?;
    let mutual = joe(SECRET).mutual(User::new("gateway", GATEWAYS_SECRET));
    refused(stage, ONE_WAY, Some(mutual), "0x0201")?;
    refused(stage, PRIVATE, None, "0x0202")?;
    refused(stage, "iqn.2026-11.test:nowhere", None, "0x0203")?;
    refused(stage, AWAY, None, "moved to 127.0.0.2:3261")?;
    refused(stage, GONE, None, "moved to [::1]:3261")
}

fn discovery_shows(stage: &mut Stage) -> Result<()> {
    let portal = stage.gateway.portal();
    let url = format!("iscsi://finder%{FINDERS_SECRET}@{portal}");
    let mut command = Command::new("iscsi-ls");
    let listed = process::run(command.args(["-i", FRIEND]).arg(url), ANSWER_LIMIT)?;
    contains(&listed.expect_success("iscsi-ls")?, PRIVATE)
}

fn counted(stage: &mut Stage) -> Result<()> {
    for (target, reason) in [
        (ONE_WAY, "authentication"),
        (PRIVATE, "authorization"),
        ("", "not_found"),
        (AWAY, "redirected"),
        (GONE, "redirected"),
    ] {
        if stage.gateway.metric(&failures(target, reason))? == 0 {
            return Err(Failure::new(format!("no {reason} is counted for {target:?}")));
        }
    }
    if stage.gateway.page("/metrics")?.contains("nowhere") {
        return Err(Failure::new("a name from the wire is a label"));
    }
    Ok(())
}

fn slowed(stage: &mut Stage) -> Result<()> {
    // The steps before have failed too: the wait is at its longest, or near it.
    refused(stage, ONE_WAY, Some(joe("open-sesame-2")), "0x0201")?;
    let start = Instant::now();
    enter(stage, ONE_WAY, Some(joe(SECRET)))?;
    let waited = start.elapsed();
    if waited < Duration::from_secs(1) {
        return Err(Failure::new(format!("it waited {waited:?} only")));
    }
    // Nobody waits who proves nothing.
    enter(stage, OPEN, None)
}

fn changed(stage: &mut Stage) -> Result<()> {
    let mut session = log_in(stage, 2, ONE_WAY, Some(joe(SECRET)))?;
    session.clear_attentions(0)?;
    let before = stage.gateway.log().len();
    stage.gateway.configure(&configuration(NEW_SECRET))?;
    stage.gateway.reload()?;
    let start = Instant::now();
    while !stage.gateway.log()[before..].contains("applied") {
        halt::go_on()?;
        if start.elapsed() > ANSWER_LIMIT {
            return Err(Failure::new("the file is not applied"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    refused(stage, ONE_WAY, Some(joe(SECRET)), "0x0201")?;
    enter(stage, ONE_WAY, Some(joe(NEW_SECRET)))?;
    session.clear_attentions(0)
}

fn hidden(stage: &mut Stage) -> Result<()> {
    let shown = stage.gateway.log() + &stage.gateway.page("/metrics")?;
    for secret in [SECRET, NEW_SECRET, GATEWAYS_SECRET, FINDERS_SECRET, "open-sesame-2"] {
        if shown.contains(secret) {
            return Err(Failure::new("a secret is shown"));
        }
    }
    Ok(())
}

fn joe(secret: &str) -> Credentials {
    Credentials::new(User::new("joe", secret))
}

fn log_in(stage: &Stage, number: u16, target: &str, credentials: Option<Credentials>) -> Result<Initiator> {
    Initiator::log_in(stage.gateway.portal(), LoginPlan { credentials, ..initiator::plan(target, number) })
}

fn enter(stage: &Stage, target: &str, credentials: Option<Credentials>) -> Result<()> {
    log_in(stage, 1, target, credentials)?.clear_attentions(0)
}

/// The login fails, and why contains these words.
fn refused(stage: &Stage, target: &str, credentials: Option<Credentials>, words: &str) -> Result<()> {
    match log_in(stage, 1, target, credentials) {
        Ok(_) => Err(Failure::new(format!("{target} let it in"))),
        Err(failure) => contains(&failure.to_string(), words),
    }
}

fn contains(text: &str, words: &str) -> Result<()> {
    if text.contains(words) {
        return Ok(());
    }
    Err(Failure::new(format!("no {words:?} in:\n{text}")))
}

/// QEMU's settings of header-digest.
const HEADER_DIGESTS: [&str; 4] = ["crc32c", "none", "crc32c-none", "none-crc32c"];
const OPEN: &str = "iqn.2026-11.test:open";
const ONE_WAY: &str = "iqn.2026-11.test:one-way";
/// With digests of headers alone.
const CHECKED: &str = "iqn.2026-11.test:checked";
const MUTUAL: &str = "iqn.2026-11.test:mutual";
const PRIVATE: &str = "iqn.2026-11.test:private";
const AWAY: &str = "iqn.2026-11.test:away";
const GONE: &str = "iqn.2026-11.test:gone";
const FRIEND: &str = "iqn.2026-11.test:friend";
const SECRET: &str = "open-sesame-1";
const NEW_SECRET: &str = "open-sesame-new";
const GATEWAYS_SECRET: &str = "shut-sesame-22";
const FINDERS_SECRET: &str = "seek-and-find-3";
/// Tests of libiscsi's suite that are about iSCSI and not about SCSI.
const TESTS_OF_ISCSI: usize = 15;
const TEST_LIMIT: Duration = Duration::from_secs(60);
/// Beyond the longest wait that failures earn.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
