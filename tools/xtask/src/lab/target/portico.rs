//! The gateway: an scst.conf, a free port, and the ready line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use super::super::process::Running;
use super::super::{Context, Failure, Result, halt};
use super::{Images, Medium, Place, READY_LIMIT, Started, Target, Tuning, UNTORN_FILE, list};

pub(super) fn start(target: &Target) -> Result<Started> {
    let folder = target.folder.path();
    let program = target.tree.target.join("release/porticod");
    let mut command = target.place.command_on(&target.tuning.cores, &program);
    if let Some(text) = configuration(&target.medium, &target.tuning) {
        let config = folder.join("scst.conf");
        fs::write(&config, text).context(config.display())?;
        command.arg("--config").arg(config);
    }
    command.arg("--data").arg(folder.join("data"));
    command.args(["--portal", &format!("{}:0", target.place.address()), "--metrics", "127.0.0.1:0"]);
    if !target.tuning.cores.is_empty() {
        command.args(["--cores", &list(&target.tuning.cores)]);
    }
    if target.tuning.has_no_histograms {
        command.arg("--no-histograms");
    }
    let log = File::options().create(true).append(true).open(target.log_path())?;
    let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log))?;
    let announcement =
        announcement(&mut running).map_err(|why| Failure::new(format!("porticod: {why}{}", target.log())))?;
    let (portal, metrics) = addresses(&announcement)?;
    // In a namespace the page is on that namespace's loopback, where we are not.
    let metrics = matches!(target.place, Place::Loopback).then_some(metrics);
    Ok(Started { running, portal, metrics, announcement })
}

/// The configuration of one target with the one logical unit that `medium` is.
fn configuration(medium: &Medium, tuning: &Tuning) -> Option<String> {
    let (handler, attributes) = match medium {
        Medium::Embedded => return None,
        Medium::Ram { size_bytes } => ("vdisk_ram", format!("size {size_bytes}\n\t\tthin_provisioned 1")),
        Medium::Null { size_bytes } => ("vdisk_nullio", format!("size {size_bytes}")),
        Medium::File(path) => {
            let direct = if tuning.is_direct { "\n\t\to_direct 1" } else { "" };
            ("vdisk_fileio", format!("filename {}{direct}\n\t\tthin_provisioned 1", path.display()))
        }
        Medium::Attributed(path, attributes) => {
            ("vdisk_fileio", format!("filename {}\n\t\t{attributes}", path.display()))
        }
        Medium::Untorn(xfs) => {
            let path = xfs.folder().join(UNTORN_FILE);
            ("vdisk_fileio", format!("filename {}\n\t\to_direct 1\n\t\tthin_provisioned 1", path.display()))
        }
        Medium::Loop(device) => {
            ("vdisk_blockio", format!("filename {}\n\t\tthin_provisioned 1", device.path().display()))
        }
        Medium::Rbd(images) => return Some(configuration_of(images, tuning)),
    };
    let spin = if tuning.poll_us > 0 { format!("poll_us {}\n", tuning.poll_us) } else { String::new() };
    let window = tuning.queued_commands.map(|count| format!("\t\tQueuedCommands {count}\n"));
    let window = window.unwrap_or_default();
    let targets = targets(tuning, &format!("{window}\t\tLUN 0 unit\n"));
    Some(format!("{spin}HANDLER {handler} {{\n\tDEVICE unit {{\n\t\t{attributes}\n\t}}\n}}\n{targets}"))
}

/// The TARGETs, each with `contents`.
fn targets(tuning: &Tuning, contents: &str) -> String {
    let names = [Target::IQN, Target::SECOND_IQN];
    let names = &names[..if tuning.has_two_targets { 2 } else { 1 }];
    let one = |name: &&str| format!("\tTARGET {name} {{\n{contents}\t\tenabled 1\n\t}}\n");
    let targets: String = names.iter().map(one).collect();
    format!("TARGET_DRIVER iscsi {{\n\tenabled 1\n{targets}}}\n")
}

/// As [`configuration`], with a logical unit for each image.
fn configuration_of(images: &Images, tuning: &Tuning) -> String {
    let conf = images.cluster.conf();
    let (mut devices, mut luns) = (String::new(), String::new());
    for (lun, name) in images.names.iter().enumerate() {
        devices.push_str(&format!(
            "\tDEVICE unit{lun} {{\n\t\tfilename rbd:rbd/{name}\n\t\tconf {}\n\t\tthin_provisioned 1\n\t}}\n",
            conf.display()
        ));
        luns.push_str(&format!("\t\tLUN {lun} unit{lun}\n"));
    }
    format!("HANDLER vdisk_rbd {{\n{devices}}}\n{}", targets(tuning, &luns))
}

/// What the process says up to the line that begins with `ready `, which it waits for; what comes afterwards is read and
/// dropped.
pub(in crate::lab) fn announcement(running: &mut Running) -> Result<String> {
    let stdout = running.stdout().ok_or_else(|| Failure::new("its standard output is not ours"))?;
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut said = String::new();
        let ready = stdout.by_ref().lines().map_while(std::result::Result::ok).any(|line| {
            said.push_str(&line);
            said.push('\n');
            line.starts_with("ready ")
        });
        // The receiver may have given up waiting.
        let _ = sender.send(ready.then_some(said));
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    let start = Instant::now();
    while start.elapsed() < READY_LIMIT {
        halt::go_on()?;
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(Some(said)) => return Ok(said),
            Ok(None) => return Err(Failure::new("it ended before it was ready")),
            Err(_) => {}
        }
    }
    Err(Failure::new(format!("not ready after {} s", READY_LIMIT.as_secs())))
}

/// `ready portal=ADDRESS:PORT metrics=ADDRESS:PORT`, the last line of an announcement.
pub(in crate::lab) fn addresses(announcement: &str) -> Result<(SocketAddr, SocketAddr)> {
    let line = announcement.lines().last().unwrap_or_default();
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| Failure::new(format!("no {name} in {line:?}")))?
            .parse::<SocketAddr>()
            .context(line)
    };
    Ok((field("portal")?, field("metrics")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_gives_both_addresses() {
        let (portal, metrics) =
            addresses("data in /x\nready portal=127.0.0.1:4000 metrics=[::1]:5000\n").unwrap();
        assert_eq!(portal, "127.0.0.1:4000".parse().unwrap());
        assert_eq!(metrics, "[::1]:5000".parse().unwrap());
        assert!(addresses("ready portal=127.0.0.1:4000").is_err());
        assert!(addresses("ready portal=nowhere metrics=127.0.0.1:1").is_err());
    }

    #[test]
    fn the_configuration_closes_every_section_that_it_opens() {
        let text = configuration(&Medium::Ram { size_bytes: 4096 }, &Tuning::default()).unwrap();
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(text.contains("\tDEVICE unit {\n\t\tsize 4096\n\t\tthin_provisioned 1\n\t}\n"));
        assert_eq!(text.matches("LUN 0 unit").count(), 1);
        let two = Tuning { has_two_targets: true, ..Tuning::default() };
        let text = configuration(&Medium::Ram { size_bytes: 4096 }, &two).unwrap();
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert_eq!(text.matches("LUN 0 unit").count(), 2);
    }
}
