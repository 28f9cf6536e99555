//! Changes that end something: a device that has to be opened anew, a target that is disabled; and files that change
//! nothing: an empty one, one that is not there, one whose two devices are one file.

use std::fs;

use super::{LUNS_CHANGED, Stage, THIRD, check, good, is_told, plainly, until, with_second, with_target};
use crate::lab::gateway::{Gateway, IQN};
use crate::lab::initiator::{self, BLOCK_BYTES, Initiator, Io};
use crate::lab::process::{self, End};
use crate::lab::{Context, Failure, Result};

/// A LUN comes: each session that sees it hears of it once, and no other hears of anything.
pub(super) fn add_lun(stage: &mut Stage) -> Result<()> {
    good(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES))?;
    let line = "\t\tLUN 2 new\n";
    let more = with_second(&stage.gateway).replacen(line, &format!("{line}\t\tLUN 3 old\n"), 1);
    stage.gateway.configure(&more)?;
    stage.gateway.reload()?;
    until(|| {
        let mut ios = [Io::read(2, 0, BLOCK_BYTES)];
        stage.idle.run(&mut ios)?;
        if is_told(&ios[0], LUNS_CHANGED) { Ok(true) } else { ios[0].expect_good().map(|()| false) }
    })?;
    plainly(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES))?;
    stage.idle.clear_attentions(3)?;
    plainly(&mut stage.idle, Io::read(3, 0, BLOCK_BYTES)).map(drop)
}

/// A target is disabled, and enabled again.
pub(super) fn disable(stage: &mut Stage) -> Result<()> {
    let usual = with_second(&stage.gateway);
    let mut session = Initiator::log_in(stage.gateway.portal(), initiator::plan(super::SECOND, 8))?;
    session.clear_attentions(0)?;
    let before = plainly(&mut session, Io::read(0, 0, BLOCK_BYTES))?.data;
    let line = "\t\tLUN 0 new\n\t\tenabled ";
    stage.gateway.configure(&usual.replacen(&format!("{line}1"), &format!("{line}0"), 1))?;
    stage.gateway.reload()?;
    until(|| Ok(session.run(&mut [Io::read(0, 0, BLOCK_BYTES)]).is_err()))
        .context("the session on it goes on")?;
    match Initiator::log_in(stage.gateway.portal(), initiator::plan(super::SECOND, 8)) {
        Err(failure) if failure.to_string().contains("0x0301") => {}
        Err(failure) => return Err(failure),
        Ok(_) => return Err(Failure::new("one may still log in to it")),
    }
    stage.gateway.configure(&usual)?;
    stage.gateway.reload()?;
    let mut session = log_in_to(&stage.gateway, super::SECOND, 8)?;
    if plainly(&mut session, Io::read(0, 0, BLOCK_BYTES))?.data == before {
        Ok(())
    } else {
        Err(Failure::new("it does not serve what it did"))
    }
}

/// What is fixed while a device is open is named and waits; a device that nobody uses goes, and comes back with it.
pub(super) fn reopen(stage: &mut Stage) -> Result<()> {
    for (name, byte) in [("first", 0xaa), ("second", 0xbb)] {
        let file = stage.gateway.folder().join(format!("{name}.img"));
        fs::write(&file, vec![byte; SPARE_BYTES]).context(file.display())?;
    }
    let holds = |session: &mut Initiator, byte: u8| {
        let found = plainly(session, Io::read(0, 0, BLOCK_BYTES))?.data;
        if found == [byte; BLOCK_BYTES] { Ok(()) } else { Err(Failure::new("it is another file's")) }
    };
    stage.gateway.configure(&with_spare(&stage.gateway, "first"))?;
    stage.gateway.reload()?;
    let mut session = log_in_to(&stage.gateway, THIRD, 9)?;
    holds(&mut session, 0xaa)?;
    let before = stage.gateway.log().len();
    stage.gateway.configure(&with_spare(&stage.gateway, "second"))?;
    stage.gateway.reload()?;
    let named = "device spare must be reopened for its new filename";
    until(|| Ok(stage.gateway.log()[before..].contains(named)))?;
    holds(&mut session, 0xaa)?;
    drop(session);
    until(|| Ok(stage.gateway.metric(&format!("portico_sessions{{target=\"{THIRD}\"}}"))? == 0))?;
    stage.gateway.configure(&with_second(&stage.gateway))?;
    stage.gateway.reload()?;
    until(|| Ok(!stage.gateway.page("/metrics")?.contains("device=\"spare\"")))?;
    stage.gateway.configure(&with_spare(&stage.gateway, "second"))?;
    stage.gateway.reload()?;
    holds(&mut log_in_to(&stage.gateway, THIRD, 9)?, 0xbb)
}

/// The usual configuration, and a third target with this file.
fn with_spare(gateway: &Gateway, file: &str) -> String {
    let path = gateway.folder().join(format!("{file}.img"));
    with_target(&with_device(gateway, "spare", &path.to_string_lossy()), THIRD, "spare")
}

/// The usual configuration, and one more device of vdisk_fileio.
fn with_device(gateway: &Gateway, name: &str, path: &str) -> String {
    let section = "HANDLER vdisk_fileio {\n";
    let device = format!("{section}\tDEVICE {name} {{\n\t\tfilename {path}\n\t}}\n");
    with_second(gateway).replacen(section, &device, 1)
}

/// Logs in as soon as one may.
fn log_in_to(gateway: &Gateway, target: &str, number: u16) -> Result<Initiator> {
    let mut session = None;
    until(|| {
        session = Initiator::log_in(gateway.portal(), initiator::plan(target, number)).ok();
        Ok(session.is_some())
    })?;
    let mut session = session.ok_or_else(|| Failure::new("nobody logged in"))?;
    session.clear_attentions(0)?;
    Ok(session)
}

/// An empty file is no order to remove everything.
pub(super) fn empty(stage: &mut Stage) -> Result<()> {
    changes_nothing(stage, "", &["the file says nothing", "nothing was changed"])?;
    let finished = check(stage)?;
    expect_refusal(&finished, &["the file says nothing", "an empty file is not taken as an order"])
}

/// Neither is one that is not there.
pub(super) fn gone(stage: &mut Stage) -> Result<()> {
    let before = stage.gateway.log().len();
    fs::remove_file(stage.gateway.configuration_file()).context("scst.conf")?;
    stage.gateway.reload()?;
    until(|| Ok(stage.gateway.log()[before..].contains("No such file")))?;
    plainly(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES))?;
    stage.gateway.configure(&with_second(&stage.gateway))
}

/// A link to the file of a device that is at work, in a device of its own.
pub(super) fn share(stage: &mut Stage) -> Result<()> {
    let link = stage.gateway.folder().join("link.img");
    fs::hard_link(stage.gateway.folder().join("busy.img"), &link).context(link.display())?;
    let text = with_device(&stage.gateway, "twin", &link.to_string_lossy());
    let words = ["two writable devices hold the same file under two names", "scst.conf:", "read_only 1"];
    changes_nothing(stage, &text, &[&words[..], &["nothing was changed"]].concat())?;
    expect_refusal(&check(stage)?, &words)?;
    stage.gateway.configure(&with_second(&stage.gateway))
}

/// Applies a file that is refused in these words; sessions find everything as it was.
fn changes_nothing(stage: &mut Stage, text: &str, words: &[&str]) -> Result<()> {
    let before = stage.gateway.log().len();
    stage.gateway.configure(text)?;
    stage.gateway.reload()?;
    until(|| {
        let log = stage.gateway.log();
        Ok(words.iter().all(|word| log[before..].contains(word)))
    })
    .map_err(|failure| Failure::new(format!("{failure}: {}", &stage.gateway.log()[before..])))?;
    plainly(&mut stage.idle, Io::read(2, 0, BLOCK_BYTES))?;
    let mut other = Initiator::log_in(stage.gateway.portal(), initiator::plan(IQN, 10))?;
    other.clear_attentions(0)?;
    plainly(&mut other, Io::read(0, 0, BLOCK_BYTES)).map(drop)
}

fn expect_refusal(finished: &process::Finished, words: &[&str]) -> Result<()> {
    if finished.end != End::Exited(1) || !words.iter().all(|word| finished.output.contains(word)) {
        return Err(Failure::new(format!("--check: {:?}\n{}", finished.end, finished.output)));
    }
    Ok(())
}

const SPARE_BYTES: usize = 1 << 20;
