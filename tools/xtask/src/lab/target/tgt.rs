//! tgtd, with a control socket of its own so that it meets no other tgtd of the machine.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::process::{self, Running};
use super::super::{Failure, Result};
use super::{Medium, Place, READY_LIMIT, Started, Target};

pub(super) fn start(target: &Target) -> Result<Started> {
    let mut last = Failure::new("tgtd was never started");
    for _ in 0..ATTEMPTS {
        match attempt(target) {
            Ok(started) => return Ok(started),
            // Another process may have taken the port between our look and tgtd's bind.
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn attempt(target: &Target) -> Result<Started> {
    let portal = SocketAddr::new(target.place.address(), free_port(&target.place)?);
    let mut command = target.place.command_on(&target.tuning.cores, Path::new("tgtd"));
    command.args(["-f", "--iscsi", &format!("portal={portal}")]);
    command.env(SOCKET_VARIABLE, socket(target));
    let log = File::options().create(true).append(true).open(target.log_path())?;
    let mut running = Running::start(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))?;
    let start = Instant::now();
    let new_target = ["--mode", "target", "--op", "new", "--tid", "1", "--targetname", Target::IQN];
    while let Err(failure) = tgtadm(target, &new_target) {
        if running.ended()?.is_some() || start.elapsed() > READY_LIMIT {
            return Err(Failure::new(format!("tgtd: {failure}{}", target.log())));
        }
        thread::sleep(Duration::from_millis(20));
    }
    add_units(target)?;
    tgtadm(target, &["--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"])?;
    Ok(Started { running, portal, metrics: None, announcement: String::new() })
}

fn add_units(target: &Target) -> Result<()> {
    if let Medium::Rbd(images) = &target.medium {
        let conf = format!("conf={};id=admin", images.cluster.client_conf()?.display());
        for (lun, name) in (1..).zip(&images.names) {
            let lun = u32::to_string(&lun);
            let unit =
                ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", &lun, "--bstype", "rbd"];
            // A name alone is of the pool `rbd`.
            tgtadm(target, &[&unit[..], &["--backing-store", name, "--bsopts", &conf]].concat())?;
        }
        return Ok(());
    }
    let store = backing_store(target)?;
    let store = store.to_string_lossy();
    let kind = if matches!(target.medium, Medium::Null { .. }) { "null" } else { "rdwr" };
    let unit = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--bstype", kind];
    let direct: &[&str] = match &target.medium {
        Medium::File(_) | Medium::Loop(_) if target.tuning.is_direct => &["--bsoflags", "direct"],
        _ => &[],
    };
    tgtadm(target, &[&unit[..], &["--backing-store", &store], direct].concat()).map(drop)
}

/// tgt has no RAM disk: a file on a memory file system stands in.
fn backing_store(target: &Target) -> Result<PathBuf> {
    Ok(match &target.medium {
        Medium::File(path) => path.clone(),
        Medium::Loop(device) => device.path().to_path_buf(),
        Medium::Embedded | Medium::Rbd(_) | Medium::Attributed(..) | Medium::Untorn(_) => {
            return Err(Failure::new("no file is behind this"));
        }
        // Its null store wants a file all the same, for the size.
        Medium::Ram { size_bytes } | Medium::Null { size_bytes } => {
            let path = target.folder.path().join("ram.img");
            File::create(&path)?.set_len(*size_bytes)?;
            path
        }
    })
}

fn tgtadm(target: &Target, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("tgtadm");
    command.args(["--lld", "iscsi"]).args(arguments).env(SOCKET_VARIABLE, socket(target));
    process::run(&mut command, Duration::from_secs(10))?.expect_success("tgtadm")
}

fn socket(target: &Target) -> PathBuf {
    target.folder.path().join("tgtd")
}

/// tgtd cannot choose a port itself. In a namespace of ours every port is free.
fn free_port(place: &Place) -> Result<u16> {
    match place {
        Place::Inside(_) => Ok(ISCSI_PORT),
        Place::Loopback => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()),
    }
}

const SOCKET_VARIABLE: &str = "TGT_IPC_SOCKET";
const ISCSI_PORT: u16 = 3260;
const ATTEMPTS: usize = 3;
