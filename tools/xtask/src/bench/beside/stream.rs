//! 4 KiB reads of one LUN, alone and beside a sequential stream of 1 MiB commands on another LUN of the same shard.

use std::thread;
use std::time::Duration;

use super::{Bench, Found, Pair, Scene};
use crate::bench::statistics::{Spread, number};
use crate::lab::gateway::{self, Device, Gateway};
use crate::lab::{Result, halt};

pub(super) fn run(bench: &Bench<'_>, found: &mut Found) -> Result<()> {
    let mut gateway = start(bench)?;
    let mut rates = Vec::new();
    for pair in 0..bench.arguments.pairs {
        for depth in ["1", "8"] {
            for direction in ["read", "write"] {
                halt::go_on()?;
                let small = ["--rw", "randread", "--bs", "4k", "--depth", depth];
                let mut alone = None;
                if pair % 2 == 0 {
                    alone = Some(bench.measure(&mut gateway, SMALL, &small)?);
                }
                let words = ["--rw", direction, "--bs", "1m", "--depth", STREAM_DEPTH];
                let time = bench.time + AROUND;
                let stream = bench.begin(&gateway, STREAM, &words, time)?;
                thread::sleep(AROUND / 4);
                let beside = bench.measure(&mut gateway, SMALL, &small)?;
                rates.push((direction, depth, stream.end()?));
                let alone = match alone {
                    Some(alone) => alone,
                    None => bench.measure(&mut gateway, SMALL, &small)?,
                };
                let row = format!("4 KiB reads × {depth}, beside a 1 MiB stream of {direction}s");
                found.note(Pair { scene: Scene::Stream, row, pair, alone, beside });
            }
        }
    }
    gateway.check()?;
    gateway.stop()?;
    found.told.push(("What the stream has meanwhile".to_owned(), table(&rates)));
    Ok(())
}

fn start(bench: &Bench<'_>) -> Result<Gateway> {
    let memory = |name| Device { handler: "vdisk_ram", name, attributes: vec![format!("size {UNIT_BYTES}")] };
    let mut gateway = Gateway::prepare(bench.tree)?;
    let luns = [(usize::from(SMALL), "small"), (usize::from(STREAM), "stream")];
    let devices = [memory("small"), memory("stream")];
    gateway.configure(&gateway::configuration_with(&devices, &luns, &["QueuedCommands 128"]))?;
    gateway.argue(&["--cores", "0"]);
    gateway.start()?;
    for lun in [SMALL, STREAM] {
        bench.fill(&gateway, lun, UNIT_BYTES)?;
    }
    Ok(gateway)
}

fn table(rates: &[(&str, &str, f64)]) -> String {
    let mut text = "| stream | beside reads × | MiB/s |\n|---|---|---|\n".to_owned();
    for depth in ["1", "8"] {
        for direction in ["read", "write"] {
            let of = rates.iter().filter(|rate| (rate.0, rate.1) == (direction, depth)).map(|rate| rate.2);
            let spread = Spread::of(of.collect());
            let said = spread.map_or("–".to_owned(), |spread| number(spread.median));
            text.push_str(&format!("| {direction}s | {depth} | {said} |\n"));
        }
    }
    text
}

const SMALL: u8 = 0;
const STREAM: u8 = 1;
const STREAM_DEPTH: &str = "8";
const UNIT_BYTES: u64 = 256 << 20;
/// How much longer the stream runs than what is measured beside it.
const AROUND: Duration = Duration::from_secs(2);
