//! A cluster of two nodes, space, and paths, as the Linux initiator and its tools see them.
//!
//! The gateway runs inside the guest that `tools/lab/guest-build` makes; what happens there is `tools/lab/guest-cluster`: one
//! node fences another by persistent reservations, what is discarded is given back to the file system below, and
//! multipath follows asymmetric access states under I/O. Each of its steps is a test.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::ci;
use crate::guest::{self, Sum};
use crate::lab::{self, Context, Failure, Result, process};
use crate::tree::Tree;

/// `cargo xtask cluster`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The command line's way in; `true` if every step passed.
pub(crate) fn command(_: &Arguments) -> Result<bool> {
    if !lab::is_root() {
        return Err(Failure::new("needs root to build the guest"));
    }
    let tree = Tree::find()?;
    ci::build_release(&tree)?;
    let program = tree.target.join("release/porticod");
    Ok(run(&tree, &program, &mut |line| println!("{line}"))?.failed == 0)
}

/// All steps, in one guest.
pub(crate) fn run(tree: &Tree, program: &Path, say: &mut dyn FnMut(&str)) -> Result<Sum> {
    let share = tempfile::Builder::new().prefix("portico-cluster-").tempdir()?;
    let folder = share.path();
    let scripts = tree.root.join("tools/lab");
    let built = guest::built(tree, &scripts.join("guest-build"))?;
    fs::copy(program, folder.join("porticod")).context(program.display())?;
    fs::copy(scripts.join(SCRIPT), folder.join(SCRIPT)).context(SCRIPT)?;
    fs::write(folder.join("scst.conf"), CONFIGURATION)?;
    let mut command = Command::new(scripts.join("guest-run"));
    command.arg("-d").arg(&built).arg("-s").arg(folder);
    command.args(["-t", &GUEST_LIMIT.as_secs().to_string()]).arg(format!("bash {SCRIPT}"));
    let finished = process::run(&mut command, GUEST_LIMIT + Duration::from_secs(10))?;
    say(finished.output.trim_end());
    let passed = STEPS.iter().take_while(|step| did(&finished.output, step)).count();
    let count = |steps: usize| u32::try_from(steps).expect("a handful of steps");
    if passed == STEPS.len() && finished.succeeded() {
        return Ok(Sum { passed: count(passed), ..Sum::default() });
    }
    say(&format!("FAILED {}: {:?}", STEPS.get(passed).unwrap_or(&"the end"), finished.end));
    if let Ok(log) = fs::read_to_string(folder.join("porticod.log")) {
        say(log.trim_end());
    }
    let skipped = count(STEPS.len().saturating_sub(passed + 1));
    Ok(Sum { passed: count(passed), failed: 1, skipped })
}

/// Whether the guest printed that a step passed.
fn did(output: &str, step: &str) -> bool {
    let line = format!("ok {step}");
    output.lines().any(|printed| printed.trim_end() == line)
}

const SCRIPT: &str = "guest-cluster";

/// Its steps, in the order in which it prints them.
const STEPS: &[&str] = &[
    "login",
    "sg3-utils",
    "registrants-write",
    "fenced",
    "comes-back",
    "cleared",
    "blkdiscard",
    "fstrim",
    "thin-pool",
    "xcopy",
    "odx",
    "revoked",
    "priorities",
    "fail-over",
    "fail-back",
    "io-went-on",
    "standby",
    "explicit",
    "logout",
    "stopped",
];

const CONFIGURATION: &str = "\
HANDLER vdisk_fileio {
	DEVICE shared {
		filename /run/shared
		size 67108864
		thin_provisioned 1
		expl_alua 1
	}
	DEVICE thin {
		filename /run/thin
		size 134217728
		thin_provisioned 1
	}
}
HANDLER vdisk_blockio {
	DEVICE thinpool {
		filename /dev/mapper/pooled
		thin_provisioned 1
	}
}
TARGET_DRIVER iscsi {
	enabled 1
	TARGET iqn.2026-11.test:a {
		enabled 1
		rel_tgt_id 1
		allowed_portal 127.0.0.1
		LUN 0 shared
		LUN 1 thin
		LUN 2 thinpool
	}
	TARGET iqn.2026-11.test:b {
		enabled 1
		rel_tgt_id 2
		allowed_portal 127.0.0.2
		LUN 0 shared
	}
}
DEVICE_GROUP pair {
	DEVICE shared
	TARGET_GROUP first {
		group_id 256
		state active
		TARGET iqn.2026-11.test:a
	}
	TARGET_GROUP second {
		group_id 257
		state nonoptimized
		TARGET iqn.2026-11.test:b
	}
}
";

/// The guest has one slow CPU, and starts the kernel too.
const GUEST_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_one_that_the_script_prints() {
        let tree = Tree::find().unwrap();
        let script = fs::read_to_string(tree.root.join("tools/lab").join(SCRIPT)).unwrap();
        for step in STEPS {
            assert!(script.contains(&format!("ok {step}\n")), "{step}");
        }
    }

    #[test]
    fn a_step_counts_only_by_its_own_whole_line() {
        assert!(did("x\nok fenced\r\n", "fenced"));
        assert!(!did("not ok fenced\nok fenced-off\n", "fenced"));
    }
}
