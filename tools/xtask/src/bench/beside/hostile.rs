//! 4 KiB reads of four sessions, alone and beside peers that behave badly.

use std::thread;
use std::time::Duration;

use super::{Bench, Found, Pair, Scene};
use crate::bad_input::neighbours::{Neighbours, Vice};
use crate::bench::sample::real;
use crate::bench::statistics::{Spread, number};
use crate::lab::gateway::{self, Device, Gateway};
use crate::lab::{Result, halt};

pub(super) fn run(bench: &Bench<'_>, found: &mut Found) -> Result<()> {
    let mut gateway = start(bench)?;
    let mut rows: Vec<(String, Vec<Vice>)> =
        Vice::ALL.into_iter().map(|vice| (vice.name().to_owned(), vec![vice])).collect();
    rows.push(("all of these".to_owned(), Vice::ALL.to_vec()));
    let mut acts = vec![Vec::new(); rows.len()];
    for pair in 0..bench.arguments.pairs {
        for ((name, vices), acts) in rows.iter().zip(&mut acts) {
            halt::go_on()?;
            let mut alone = None;
            if pair % 2 == 0 {
                alone = Some(bench.measure(&mut gateway, 0, &LOAD)?);
            }
            let neighbours = Neighbours::begin(gateway.portal(), vices, NEIGHBOURS_CORE);
            thread::sleep(ARRIVAL);
            let beside = bench.measure(&mut gateway, 0, &LOAD)?;
            let whole = bench.time + ARRIVAL;
            acts.push(real(neighbours.end()?) / whole.as_secs_f64());
            // What they left is cleaned away.
            thread::sleep(ARRIVAL);
            let alone = match alone {
                Some(alone) => alone,
                None => bench.measure(&mut gateway, 0, &LOAD)?,
            };
            let row = format!("4 KiB reads 4 × 32, beside {name}");
            found.note(Pair { scene: Scene::Hostile, row, pair, alone, beside });
        }
    }
    gateway.check()?;
    gateway.stop()?;
    let mut table = "| peers | what they did, a second |\n|---|---|\n".to_owned();
    for ((name, _), acts) in rows.iter().zip(acts) {
        let said = Spread::of(acts).map_or("–".to_owned(), |spread| number(spread.median));
        table.push_str(&format!("| {name} | {said} |\n"));
    }
    found.told.push(("How busy the bad peers were".to_owned(), table));
    Ok(())
}

fn start(bench: &Bench<'_>) -> Result<Gateway> {
    let attributes = vec![format!("size {UNIT_BYTES}")];
    let memory = Device { handler: "vdisk_ram", name: "memory", attributes };
    let mut gateway = Gateway::prepare(bench.tree)?;
    gateway.configure(&gateway::configuration(&[memory]))?;
    gateway.argue(&["--cores", "0"]);
    gateway.start()?;
    bench.fill(&gateway, 0, UNIT_BYTES)?;
    Ok(gateway)
}

const LOAD: [&str; 6] = ["--rw", "randread", "--sessions", "4", "--depth", "32"];
const UNIT_BYTES: u64 = 256 << 20;
const NEIGHBOURS_CORE: usize = 1;
/// They are all there by then, and what they hold has been let go by then.
const ARRIVAL: Duration = Duration::from_millis(700);
