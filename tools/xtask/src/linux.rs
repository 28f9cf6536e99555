//! The real Linux initiator, in a guest: CHAP both ways, digests, two sessions; the link cut under a file system that a
//! verified load works on; a disk that grows, a LUN that comes, a target that has moved; dm-multipath over two portals, of
//! which one is lost.
//!
//! What happens inside is `tools/lab/guest-initiator`; each of its steps is a test. What the gateway has to do meanwhile the
//! guest asks for by a file in the folder that it shares with us.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::guest::{Guest, Sum};
use crate::lab::gateway::{Gateway, IQN};
use crate::lab::namespace::Namespace;
use crate::lab::{self, Context, Failure, Result};
use crate::tree::Tree;

/// `cargo xtask linux`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The command line's way in; `true` if every step passed.
pub(crate) fn command(_: &Arguments) -> Result<bool> {
    if !lab::is_root() {
        return Err(Failure::new("needs root for the network namespace"));
    }
    let tree = Tree::find()?;
    super::ci::build_release(&tree)?;
    Ok(run(&tree, &mut |line| println!("{line}"))?.failed == 0)
}

/// One guest, and all that it does.
pub(crate) fn run(tree: &Tree, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let guest = Guest::make(tree, "guest-initiator")?;
    let mut gateway = Gateway::prepare(tree)?;
    gateway.configure(&configuration(&gateway, UNIT_BYTES, false))?;
    let namespace = Namespace::create()?;
    let network = namespace.name().to_owned();
    namespace.add_address(SECOND_NETWORK)?;
    gateway.enter(namespace);
    gateway.argue(&["--portal", &format!("{}:{SECOND_PORT}", Namespace::HOST), "--cores", "0,1"]);
    gateway.argue(&["--portal", SECOND_PATH]);
    gateway.start()?;
    let words = format!("bash guest-initiator {IQN} {MOVED} {} {SECOND_PATH}", gateway.portal());
    let over = AtomicBool::new(false);
    let (finished, served) = thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&mut gateway, guest.folder(), &over));
        let finished = guest.run_in(&network, &words);
        over.store(true, Ordering::Relaxed);
        (finished, serving.join().unwrap_or_else(|_| Err(Failure::new("a panic"))))
    });
    let finished = finished?;
    say(finished.output.trim_end());
    served?;
    let printed = |step: &&&str| finished.output.lines().any(|line| line.trim_end() == format!("ok {step}"));
    let passed = STEPS.iter().take_while(printed).count();
    let mut sum = Sum { passed: u32::try_from(passed).expect("few"), ..Sum::default() };
    if passed < STEPS.len() || !finished.succeeded() {
        let failed = STEPS.get(passed).unwrap_or(&"the end");
        say(&format!("FAILED {failed} ({:?})\n{}", finished.end, gateway.log()));
        sum.failed = 1;
        sum.skipped = u32::try_from(STEPS.len().saturating_sub(passed + 1)).expect("few");
    }
    gateway.check()?;
    gateway.stop()?;
    Ok(sum)
}

/// Does what the guest asks for, until it is over.
fn serve(gateway: &mut Gateway, folder: &Path, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        lab::halt::go_on()?;
        for (what, more, sign) in [("resize", false, "blocks now"), ("add", true, "is in force")] {
            let (asked, done) = (folder.join(format!("ask-{what}")), folder.join(format!("did-{what}")));
            if asked.exists() && !done.exists() {
                let before = gateway.log().len();
                gateway.configure(&configuration(gateway, 2 * UNIT_BYTES, more))?;
                gateway.reload()?;
                while !gateway.log()[before..].contains(sign) {
                    lab::halt::go_on()?;
                    thread::sleep(Duration::from_millis(20));
                }
                std::fs::write(&done, "").context(done.display())?;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn configuration(gateway: &Gateway, size_bytes: u64, more: bool) -> String {
    let file = gateway.folder().join("unit.img");
    let second = if more { "\t\tLUN 1 extra\n" } else { "" };
    format!(
        "HANDLER vdisk_fileio {{\n\tDEVICE unit {{\n\t\tfilename {}\n\t\tsize {size_bytes}\n\t}}\n}}\n\
         HANDLER vdisk_ram {{\n\tDEVICE extra {{\n\t\tsize 16777216\n\t}}\n}}\n\
         TARGET_DRIVER iscsi {{\n\tenabled 1\n\
         \tTARGET {IQN} {{\n\t\tIncomingUser \"joe opensesame123\"\n\t\tOutgoingUser \"gateway sesameopen321\"\n\
         \t\tLUN 0 unit\n{second}\t\tenabled 1\n\t}}\n\
         \tTARGET {MOVED} {{\n\t\tredirect \"{}:{SECOND_PORT} temp\"\n\t\tLUN 0 extra\n\t\tenabled 1\n\t}}\n}}\n",
        file.display(),
        Namespace::HOST,
    )
}

/// The steps, in the order in which the guest prints them.
const STEPS: &[&str] = &[
    "discovery",
    "refused",
    "login",
    "mutual",
    "digests",
    "sessions",
    "mount",
    "cut",
    "recovered",
    "verified",
    "resize",
    "told",
    "event",
    "redirect",
    "paths",
    "path-lost",
    "path-back",
    "paths-verified",
    "logout",
];
const MOVED: &str = "iqn.2026-11.test:moved";
const SECOND_PORT: u16 = 3261;
/// Another address of the namespace, whose neighbour the guest gives itself, and a portal there.
const SECOND_NETWORK: &str = "10.99.78.1/30";
const SECOND_PATH: &str = "10.99.78.1:3262";
const UNIT_BYTES: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_one_that_the_script_prints() {
        let tree = Tree::find().unwrap();
        let script = std::fs::read_to_string(tree.root.join("tools/lab/guest-initiator")).unwrap();
        for step in STEPS {
            assert!(script.contains(&format!("ok {step}")), "{step}");
        }
    }
}
