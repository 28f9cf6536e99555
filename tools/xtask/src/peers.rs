//! The quick look: do initiators that we did not write see the targets and units that are there?
//!
//! libiscsi's `iscsi-ls`, `iscsi-inq` and `iscsi-readcapacity16` against one configured unit and, for the gateway,
//! a longer look at what it serves when nobody tells it anything (`embedded`).

pub(crate) mod embedded;

use std::process::Command;
use std::time::Duration;

use crate::lab::target::{Kind, Peer, Place, Target};
use crate::lab::{Failure, Result, process};
use crate::tree::Tree;

/// `cargo xtask peers`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose target to look at
    #[arg(long, value_enum, default_value = "portico")]
    peer: Peer,
}

/// The command line's way in; `true` if all initiators saw what is there.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    super::prepare(&tree, arguments.peer)?;
    let (_, failed) = run(&tree, arguments.peer, &mut |line| println!("{line}"))?;
    Ok(failed == 0)
}

/// All looks; how many passed and how many failed.
pub(crate) fn run(tree: &Tree, peer: Peer, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let mut target = Target::start(tree, peer, Kind::File, UNIT_BYTES, Place::Loopback)?;
    let mut looks = vec![
        ("iscsi-ls sees the target and its unit", see_unit(&target)),
        ("iscsi-inq reads the identity", see_identity(&target)),
        ("iscsi-readcapacity16 reads the size", see_size(&target)),
    ];
    if let Some(page) = target.metrics() {
        looks.push(("the metrics page is served", page.and_then(|page| contains(&page, "\n# TYPE "))));
    }
    looks.push(("the target ends in order", target.stop()));
    if peer == Peer::Portico {
        looks.extend(embedded::looks(tree)?);
    }
    let mut failed = 0;
    for (name, outcome) in &looks {
        match outcome {
            Ok(()) => say(&format!("ok     {name}")),
            Err(failure) => {
                failed += 1;
                say(&format!("FAILED {name}: {failure}"));
            }
        }
    }
    let count = u32::try_from(looks.len()).expect("a handful");
    Ok((count - failed, failed))
}

fn see_unit(target: &Target) -> Result<()> {
    let listed = ask("iscsi-ls", &["-s", &format!("iscsi://{}", target.portal())])?;
    contains(&listed, &format!("Target:{} Portal:{},", target.iqn(), target.portal()))?;
    let unit = listed.lines().find(|line| line.starts_with(&format!("Lun:{} ", target.lun())));
    contains(unit.unwrap_or("no such unit"), "DIRECT_ACCESS")
}

fn see_identity(target: &Target) -> Result<()> {
    let inquiry = ask("iscsi-inq", &[&target.url()])?;
    contains(&inquiry, "Peripheral Device Type:DIRECT_ACCESS")?;
    contains(&inquiry, "Peripheral Qualifier:CONNECTED")
}

fn see_size(target: &Target) -> Result<()> {
    let capacity = ask("iscsi-readcapacity16", &[&target.url()])?;
    contains(&capacity, &format!("Total size:{UNIT_BYTES}"))
}

fn ask(program: &str, words: &[&str]) -> Result<String> {
    process::run(Command::new(program).args(words), ANSWER_LIMIT)?.expect_success(program)
}

fn contains(text: &str, words: &str) -> Result<()> {
    if text.contains(words) {
        return Ok(());
    }
    Err(Failure::new(format!("no {words:?} in:\n{text}")))
}

const UNIT_BYTES: u64 = 64 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
