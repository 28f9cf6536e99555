//! The data path allocates nothing and copies nothing: 100,000 reads and writes against the real porticod, built with
//! an allocator that counts what the threads of its shards ask it for.
//!
//! Memory and a file past the page cache; blocks of 4 KiB with their data in the command, and in PDUs of their own that
//! nobody asked for, with digests and without; 64 to 256 KiB with R2Ts; sessions on both shards. After a warm-up of the same kind, not one
//! allocation between two marks, and `portico_shard_copied_bytes_total` stands still. Histograms are collected and the
//! metrics page is read meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use portico_iscsi::initiator::{LoginPlan, Offer};

use crate::ci;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{self, BLOCK_BYTES, Initiator, Io};
use crate::lab::random::Random;
use crate::lab::{Context, Failure, Result, halt};
use crate::tree::Tree;

/// `cargo xtask allocations`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Show where the first allocations came from
    #[arg(long)]
    trace: bool,
}

/// What is done how often.
struct Load {
    name: &'static str,
    lun: u8,
    writes: bool,
    /// Sizes in bytes, in turns.
    sizes: &'static [usize],
    data: Data,
    count: usize,
}

/// How the data of a write travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Data {
    /// In the PDU of the command.
    Immediate,
    /// Behind it, unasked.
    Unsolicited,
    /// After an R2T.
    Solicited,
    /// In the PDU of the command, with digests of header and data both ways.
    Digested,
}

/// The command line's way in; `true` if nothing was allocated and nothing copied.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    let (passed, failed) = run(&tree, arguments.trace, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Warm-up, then each load with its own marks; how many loads passed and failed.
pub(crate) fn run(tree: &Tree, trace: bool, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let mut gateway = Gateway::prepare(tree)?;
    gateway.program(ci::build_with_feature(tree, "count-allocations")?);
    let file = gateway.folder().join("medium.img");
    // Written once: a file system allocates blocks as it likes, and this is not about it.
    File::create(&file).context(file.display())?;
    fs::write(&file, vec![0x5a; usize::try_from(UNIT_BYTES).expect("small")]).context(file.display())?;
    let luns = [(0, "memory"), (1, "file")];
    gateway.configure(&gateway::configuration_with(&devices(&file), &luns, &["NopInInterval 0"]))?;
    gateway.argue(&["--cores", "0,1"]);
    if trace {
        gateway.environment("PORTICO_ALLOCATIONS_TRACE", "1");
    }
    gateway.start()?;
    let mut sessions = sessions(&gateway)?;
    for load in LOADS {
        perform(load, load.count / WARM_UP_DIVISOR, &mut sessions, &gateway)?;
    }
    // The first signal's own way through the process is behind us before it counts.
    let mut asked = 0;
    mark(&mut gateway, &mut asked)?;
    let (mut passed, mut failed) = (0, 0);
    if mark(&mut gateway, &mut asked)?.contains(&0) {
        return Err(Failure::new("a shard that allocated nothing even for logins is not counted"));
    }
    for load in LOADS {
        // Sessions that were idle while others had their turn have given back what they receive into; it grows again once.
        perform(load, load.count / WARM_UP_DIVISOR, &mut sessions, &gateway)?;
        let before = mark(&mut gateway, &mut asked)?;
        let copied = gateway.metric(COPIED)?;
        perform(load, load.count, &mut sessions, &gateway)?;
        let after = mark(&mut gateway, &mut asked)?;
        let copied = gateway.metric(COPIED)? - copied;
        let allocated: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let right = copied == 0 && allocated.iter().all(|count| *count == 0);
        *(if right { &mut passed } else { &mut failed }) += 1;
        let word = if right { "ok    " } else { "FAILED" };
        say(&format!(
            "{word} {:6} × {}: allocations {allocated:?}, {copied} bytes copied",
            load.count, load.name
        ));
    }
    if trace {
        gateway.log().lines().for_each(&mut *say);
    }
    gateway.check()?;
    drop(sessions);
    gateway.stop()?;
    Ok((passed, failed))
}

fn devices(file: &std::path::Path) -> [Device; 2] {
    let file = vec![format!("filename {}", file.display()), "o_direct 1".to_owned()];
    [
        Device { handler: "vdisk_ram", name: "memory", attributes: vec![format!("size {UNIT_BYTES}")] },
        Device { handler: "vdisk_fileio", name: "file", attributes: file },
    ]
}

/// For each way of data, sessions on both shards.
fn sessions(gateway: &Gateway) -> Result<BTreeMap<Data, Vec<Initiator>>> {
    let mut sessions = BTreeMap::new();
    let mut number = 0;
    for data in [Data::Immediate, Data::Unsolicited, Data::Solicited, Data::Digested] {
        let (immediate, ask) = match data {
            Data::Immediate | Data::Digested => ("Yes", "Yes"),
            Data::Unsolicited => ("No", "No"),
            Data::Solicited => ("No", "Yes"),
        };
        let digest = if data == Data::Digested { "CRC32C" } else { "None" };
        let offer = Offer::default().with("HeaderDigest", digest).with("DataDigest", digest);
        let offer = offer.with("ImmediateData", immediate).with("InitialR2T", ask);
        let mut pair = Vec::new();
        for _ in 0..SHARDS {
            number += 1;
            let plan = LoginPlan { offer: offer.clone(), ..initiator::plan(IQN, number) };
            let mut initiator = Initiator::log_in(gateway.portal(), plan)?;
            initiator.clear_attentions(0)?;
            initiator.clear_attentions(1)?;
            pair.push(initiator);
        }
        sessions.insert(data, pair);
    }
    let page = gateway.page("/metrics")?;
    for shard in 0..SHARDS {
        let expected = format!("portico_shard_sessions{{shard=\"{shard}\"}} 4");
        if !page.contains(&expected) {
            return Err(Failure::new(format!("the sessions are not spread evenly: no {expected}")));
        }
    }
    Ok(sessions)
}

/// Half of the load on each shard, at the same time, and the metrics page now and then.
fn perform(
    load: &Load,
    count: usize,
    sessions: &mut BTreeMap<Data, Vec<Initiator>>,
    gateway: &Gateway,
) -> Result<()> {
    let pair = sessions.get_mut(&load.data).expect("there are sessions for each way");
    thread::scope(|scope| {
        let workers: Vec<_> = (1..)
            .zip(pair)
            .map(|(seed, initiator)| scope.spawn(move || work(load, count / SHARDS, seed, initiator)))
            .collect();
        let mut outcome = Ok(());
        while workers.iter().any(|worker| !worker.is_finished()) {
            outcome = outcome.and(gateway.page("/metrics").map(drop));
            thread::sleep(COLLECTION_PAUSE);
        }
        for worker in workers {
            outcome = outcome.and(worker.join().unwrap_or_else(|_| Err(Failure::new("a worker panicked"))));
        }
        outcome
    })
}

fn work(load: &Load, count: usize, seed: u64, initiator: &mut Initiator) -> Result<()> {
    let mut random = Random::new(seed);
    let mut left = count;
    while left > 0 {
        halt::go_on()?;
        let mut ios: Vec<Io> = (0..left.min(BATCH))
            .map(|index| {
                let bytes = load.sizes[index % load.sizes.len()];
                let places = UNIT_BYTES / u64::try_from(bytes).expect("small");
                let lba = random.below(places) * u64::try_from(bytes / BLOCK_BYTES).expect("small");
                match load.writes {
                    true => Io::write(load.lun, lba, vec![random.byte(); bytes]),
                    false => Io::read(load.lun, lba, bytes),
                }
            })
            .collect();
        initiator.run(&mut ios)?;
        ios.iter().try_for_each(Io::expect_good)?;
        left -= ios.len();
    }
    Ok(())
}

/// What each shard has allocated so far.
fn mark(gateway: &mut Gateway, asked: &mut usize) -> Result<Vec<u64>> {
    *asked += 1;
    // What the loads set going at control (histograms on their way) comes to rest.
    thread::sleep(SETTLING);
    gateway.ask_for_allocations()?;
    let prefix = format!("allocations {asked}: ");
    let start = Instant::now();
    while start.elapsed() < ANSWER_LIMIT {
        halt::go_on()?;
        if let Some(line) = gateway.log().lines().find_map(|line| line.strip_prefix(&prefix)) {
            return line.split(' ').map(|count| count.parse().context(line)).collect();
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::new("porticod does not tell its allocations"))
}

const LARGE: &[usize] = &[64 << 10, 128 << 10, 256 << 10];

/// 100,000 in all.
const LOADS: &[Load] = &[
    Load {
        name: "read 4 KiB of memory",
        lun: 0,
        writes: false,
        sizes: &[4096],
        data: Data::Immediate,
        count: 10_000,
    },
    Load {
        name: "read 4 KiB of a file",
        lun: 1,
        writes: false,
        sizes: &[4096],
        data: Data::Immediate,
        count: 10_000,
    },
    Load {
        name: "write 4 KiB of memory, immediate",
        lun: 0,
        writes: true,
        sizes: &[4096],
        data: Data::Immediate,
        count: 10_000,
    },
    Load {
        name: "write 4 KiB of a file, immediate",
        lun: 1,
        writes: true,
        sizes: &[4096],
        data: Data::Immediate,
        count: 10_000,
    },
    Load {
        name: "write 4 KiB of memory, unsolicited",
        lun: 0,
        writes: true,
        sizes: &[4096],
        data: Data::Unsolicited,
        count: 10_000,
    },
    Load {
        name: "write 4 KiB of a file, unsolicited",
        lun: 1,
        writes: true,
        sizes: &[4096],
        data: Data::Unsolicited,
        count: 10_000,
    },
    Load {
        name: "read 64 to 256 KiB of memory",
        lun: 0,
        writes: false,
        sizes: LARGE,
        data: Data::Solicited,
        count: 5_000,
    },
    Load {
        name: "read 64 to 256 KiB of a file",
        lun: 1,
        writes: false,
        sizes: LARGE,
        data: Data::Solicited,
        count: 5_000,
    },
    Load {
        name: "write 64 to 256 KiB of memory with R2T",
        lun: 0,
        writes: true,
        sizes: LARGE,
        data: Data::Solicited,
        count: 5_000,
    },
    Load {
        name: "write 64 to 256 KiB of a file with R2T",
        lun: 1,
        writes: true,
        sizes: LARGE,
        data: Data::Solicited,
        count: 5_000,
    },
    Load {
        name: "read 4 KiB of memory, digests",
        lun: 0,
        writes: false,
        sizes: &[4096],
        data: Data::Digested,
        count: 5_000,
    },
    Load {
        name: "read 4 KiB of a file, digests",
        lun: 1,
        writes: false,
        sizes: &[4096],
        data: Data::Digested,
        count: 5_000,
    },
    Load {
        name: "write 4 KiB of memory, digests",
        lun: 0,
        writes: true,
        sizes: &[4096],
        data: Data::Digested,
        count: 5_000,
    },
    Load {
        name: "write 4 KiB of a file, digests",
        lun: 1,
        writes: true,
        sizes: &[4096],
        data: Data::Digested,
        count: 5_000,
    },
];

const COPIED: &str = "portico_shard_copied_bytes_total";
const SHARDS: usize = 2;
const UNIT_BYTES: u64 = 64 << 20;
const BATCH: usize = 64;
const WARM_UP_DIVISOR: usize = 10;
const COLLECTION_PAUSE: Duration = Duration::from_millis(100);
const SETTLING: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loads_are_100_000_in_all_and_go_evenly_to_both_shards() {
        assert_eq!(LOADS.iter().map(|load| load.count).sum::<usize>(), 100_000);
        assert!(LOADS.iter().all(|load| load.count.is_multiple_of(SHARDS * WARM_UP_DIVISOR)));
    }
}
