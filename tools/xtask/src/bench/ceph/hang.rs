//! What other units have left of their rate while an OSD hangs: a RAM disk, and an image of another cluster, beside an image
//! whose OSD stands still under as many commands as its session may have.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::super::matrix::Direction;
use super::super::sample::real;
use super::measure::{load, loader};
use crate::lab::ceph::{Cluster, Daemon};
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::process::Running;
use crate::lab::{Result, halt};
use crate::tree::Tree;

/// The rate of a unit in one pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Beside {
    pub(super) unit: &'static str,
    pub(super) pair: u32,
    /// While the other image's cluster is well, and nobody uses it.
    pub(super) before: f64,
    pub(super) during: f64,
}

pub(super) fn run(tree: &Tree, pairs: u32, seconds: u64) -> Result<Vec<Beside>> {
    let time = Duration::from_secs(seconds);
    let (hangs, stays) = (Cluster::start(tree)?, Cluster::start(tree)?);
    let image = |name, cluster: &Cluster| {
        let attributes =
            vec!["filename rbd:rbd/test".to_owned(), format!("conf {}", cluster.conf().display())];
        Device { handler: "vdisk_rbd", name, attributes }
    };
    let memory =
        Device { handler: "vdisk_ram", name: "memory", attributes: vec!["size 67108864".to_owned()] };
    let mut gateway = Gateway::prepare(tree)?;
    gateway.configure(&gateway::configuration(&[memory, image("hangs", &hangs), image("stays", &stays)]))?;
    gateway.start()?;
    let url = |lun: u8| vec![format!("iscsi://{}/{IQN}/{lun}", gateway.portal())];
    for lun in [RAM, HANGS, STAYS] {
        gateway.wait_until_ready(lun)?;
        load(tree, &url(lun), Direction::Write, DEPTH, Duration::from_secs(1))?;
    }
    let rate = |lun| -> Result<f64> {
        let outcome = load(tree, &url(lun), Direction::Read, DEPTH, time)?;
        Ok(real(outcome.commands) / outcome.seconds)
    };
    let mut found = Vec::new();
    for pair in 0..pairs {
        halt::go_on()?;
        let measure_hang = || -> Result<[f64; 2]> {
            let hanging = hangs.suspend(Daemon::Osd)?;
            let mut command = loader(tree, &url(HANGS), Direction::Read, DEPTH, time * 2);
            let stuck = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
            thread::sleep(SETTLE);
            let rates = [rate(RAM)?, rate(STAYS)?];
            drop(hanging);
            drop(stuck);
            thread::sleep(SETTLE);
            Ok(rates)
        };
        let measure_well = || Ok([rate(RAM)?, rate(STAYS)?]);
        let (before, during) = if pair % 2 == 0 {
            let before: Result<[f64; 2]> = measure_well();
            (before?, measure_hang()?)
        } else {
            let during = measure_hang()?;
            (measure_well()?, during)
        };
        for (place, unit) in ["ram", "image of another cluster"].into_iter().enumerate() {
            let beside = Beside { unit, pair, before: before[place], during: during[place] };
            println!("{pair:3} {unit}: {:.0}/s, {:.0}/s while an OSD hangs", beside.before, beside.during);
            found.push(beside);
        }
    }
    gateway.stop()?;
    Ok(found)
}

const RAM: u8 = 0;
const HANGS: u8 = 1;
const STAYS: u8 = 2;
const DEPTH: u32 = 32;
/// For what was outstanding to be stuck, or to be through.
const SETTLE: Duration = Duration::from_millis(500);
