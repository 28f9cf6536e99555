//! Sessions on both shards send COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, READ and WRITE to the same few blocks and note
//! what they are answered, and when. `portico_linear` then judges whether all of it could have happened one command at a time.
//!
//! The regions lie across pages of 4 KiB. A READ beside a WRITE may see some of both, which SCSI allows: such a READ is left out.
//! Beside the others it may not.

pub(crate) mod latency;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portico_iscsi::initiator::Direction;
use portico_linear::{BLOCKS, Call, Operation, State, check};

use crate::ci;
use crate::lab::gateway::{self, Device, Gateway, IQN};
use crate::lab::initiator::{BLOCK_BYTES, Initiator, Io, plan, sense_of};
use crate::lab::random::Random;
use crate::lab::{Failure, Result, halt};
use crate::tree::Tree;

/// `cargo xtask linear`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long sessions are at work
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
    /// Measure how long COMPARE AND WRITE takes instead
    #[arg(long)]
    latency: bool,
    /// The first number of the random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The command line's way in; `true` if every history could be.
pub(crate) fn command(arguments: &Arguments) -> Result<bool> {
    let tree = Tree::find()?;
    ci::build_release(&tree)?;
    if arguments.latency {
        return latency::run(&tree, &mut |line| println!("{line}")).map(|()| true);
    }
    let (passed, failed) = run(&tree, arguments.seconds, arguments.seed, &mut |line| println!("{line}"))?;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Some seconds of histories on a file and on memory; how many media passed and failed.
pub(crate) fn run(tree: &Tree, seconds: u64, seed: u64, say: &mut dyn FnMut(&str)) -> Result<(u32, u32)> {
    let mut gateway = Gateway::prepare(tree)?;
    let file = gateway.folder().join("medium.img");
    let size = format!("size {}", 1 << 20);
    let attributes = vec![format!("filename {}", file.display()), size.clone()];
    // So that WRITE ATOMIC takes a part of a page, too.
    let memory = vec![size, "lb_per_pb_exp 0".to_owned()];
    let devices = [
        Device { handler: "vdisk_fileio", name: "file", attributes },
        Device { handler: "vdisk_ram", name: "memory", attributes: memory },
    ];
    gateway.configure(&gateway::configuration(&devices))?;
    gateway.argue(&["--cores", "0,1"]);
    gateway.start()?;
    let mut work = Work::new(gateway.portal());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut failure = None;
    for round in 0.. {
        halt::go_on()?;
        if Instant::now() >= end {
            break;
        }
        let until = end.min(Instant::now() + ROUND);
        if let Err(why) = work.round(until, seed + round * SESSIONS as u64) {
            failure = Some(why);
            break;
        }
    }
    gateway.check()?;
    gateway.stop()?;
    for (lun, device) in devices.iter().enumerate() {
        say(&format!("{}: {}", device.name, work.counts[lun].line()));
    }
    if let Some(failure) = failure {
        say(&format!("FAILED {failure}"));
        return Ok((0, 1));
    }
    let vacuous = work.counts.iter().any(|counts| counts.swapped == 0 || counts.differed == 0);
    if vacuous {
        return Err(Failure::new("nobody got in anybody's way"));
    }
    say("ok     every history could have happened one command at a time");
    Ok((2, 0))
}

/// What was done on one medium.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u64,
    swapped: u64,
    differed: u64,
    left_out: u64,
}

impl Counts {
    fn line(&self) -> String {
        format!(
            "{} commands, {} of them COMPARE AND WRITE that wrote, {} that differed; {} READs beside a WRITE left out",
            self.calls, self.swapped, self.differed, self.left_out
        )
    }
}

/// A call, and where.
struct Noted {
    place: Place,
    call: Call,
    /// A WRITE that nothing holds together.
    is_plain: bool,
}

/// Which region of which medium.
type Place = (u8, usize);

struct Work {
    portal: SocketAddr,
    origin: Instant,
    /// What was last heard of each block: what is worth comparing with.
    hints: Vec<AtomicU64>,
    counts: [Counts; LUNS],
}

impl Work {
    fn new(portal: SocketAddr) -> Self {
        let hints = (0..LUNS * REGIONS * BLOCKS).map(|_| AtomicU64::new(0)).collect();
        Self { portal, origin: Instant::now(), hints, counts: [Counts::default(); LUNS] }
    }

    /// All sessions work for a while; then everything is judged.
    fn round(&mut self, until: Instant, seed: u64) -> Result<()> {
        let mut sessions: Vec<Session> =
            (0..SESSIONS).map(|number| Session::new(self, number, seed)).collect::<Result<_>>()?;
        let mut initial = BTreeMap::new();
        for lun in 0..LUNS {
            for region in 0..REGIONS {
                let place = (u8::try_from(lun).expect("two"), region);
                initial.insert(place, sessions[0].whole(place)?);
            }
        }
        let work = &*self;
        let noted: Vec<Result<Vec<Noted>>> = thread::scope(|scope| {
            let threads: Vec<_> =
                sessions.iter_mut().map(|session| scope.spawn(move || session.work(work, until))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a session's thread")).collect()
        });
        let mut histories: BTreeMap<Place, Vec<Noted>> = BTreeMap::new();
        for noted in noted {
            noted?.into_iter().for_each(|one| histories.entry(one.place).or_default().push(one));
        }
        for (place, history) in histories {
            self.judge(place, initial[&place], history)?;
        }
        Ok(())
    }

    fn judge(&mut self, place: Place, initial: State, history: Vec<Noted>) -> Result<()> {
        let counts = &mut self.counts[usize::from(place.0)];
        let mut plain: Vec<(u64, u64)> =
            history.iter().filter(|one| one.is_plain).map(|one| (one.call.begun, one.call.ended)).collect();
        plain.sort_unstable();
        let is_beside = |call: &Call| {
            // Nobody has two at a time: of those that began before it ended, only the last few can be beside it.
            let before = plain.partition_point(|(begun, _)| *begun <= call.ended);
            plain[before.saturating_sub(8 * SESSIONS)..before].iter().any(|(_, ended)| *ended >= call.begun)
        };
        let mut calls = Vec::with_capacity(history.len());
        for Noted { call, .. } in history {
            counts.calls += 1;
            match &call.operation {
                Operation::Read { .. } if is_beside(&call) => {
                    counts.left_out += 1;
                    continue;
                }
                Operation::CompareAndWrite { differs: None, .. } => counts.swapped += 1,
                Operation::CompareAndWrite { .. } => counts.differed += 1,
                _ => {}
            }
            calls.push(call);
        }
        check(initial, &calls).map_err(|violation| {
            Failure::new(format!("LUN {} region {}: no order explains {violation:#x?}", place.0, place.1))
        })
    }
}

/// One initiator.
struct Session {
    number: usize,
    initiator: Initiator,
    random: Random,
}

impl Session {
    fn new(work: &Work, number: usize, seed: u64) -> Result<Self> {
        let name = u16::try_from(number + 1).expect("few");
        let mut initiator = Initiator::log_in(work.portal, plan(IQN, name))?;
        for lun in 0..LUNS {
            initiator.clear_attentions(u8::try_from(lun).expect("two"))?;
        }
        Ok(Self { number, initiator, random: Random::new(seed + number as u64) })
    }

    /// What a region holds while nobody writes.
    fn whole(&mut self, (lun, region): Place) -> Result<State> {
        let mut io = [Io::read(lun, lba(region, 0), BLOCKS * BLOCK_BYTES)];
        self.initiator.run(&mut io)?;
        io[0].expect_good()?;
        Ok(values_of(&io[0].data).try_into().expect("all of its blocks"))
    }

    fn work(&mut self, work: &Work, until: Instant) -> Result<Vec<Noted>> {
        let mut noted = Vec::new();
        while Instant::now() < until {
            noted.extend(self.one(work)?);
        }
        Ok(noted)
    }

    /// Sends one command, and notes its answer. One for which there was no room has done nothing.
    fn one(&mut self, work: &Work) -> Result<Option<Noted>> {
        let place = (u8::try_from(self.random.below(LUNS as u64)).expect("two"), self.random.index(REGIONS));
        let (lun, region) = place;
        let first = self.random.index(BLOCKS);
        let count = 1 + self.random.index(BLOCKS - first);
        let hints = &work.hints[(usize::from(lun) * REGIONS + region) * BLOCKS + first..][..count];
        let seen: Vec<u64> = hints.iter().map(|hint| hint.load(Ordering::Relaxed)).collect();
        let new: Vec<u64> = (0..count).map(|_| self.random.next()).collect();
        let bit: Vec<u64> = (0..count).map(|_| 1 << self.random.below(64)).collect();
        let at = lba(region, first);
        let what = self.random.below(10);
        let mut io = match what {
            0..4 => compare_and_write(lun, at, &seen, &new),
            4..7 => Io::read(lun, at, count * BLOCK_BYTES),
            7 => with(0x8b, lun, at, &bit),
            // WRITE ATOMIC, where it is served: its number of blocks stands where WRITE (16) has its own.
            8 if lun == MEMORY => with(0x9c, lun, at, &new),
            _ => with(0x8a, lun, at, &new),
        };
        let begun = since(work.origin);
        self.initiator.run(std::slice::from_mut(&mut io))?;
        let ended = since(work.origin);
        let (status, sense) = io.outcome.as_ref().expect("it has ended");
        let operation = match (what, status) {
            (_, 0x08 | 0x28) => return Ok(None),
            (0..4, 0) => {
                Operation::CompareAndWrite { first, expected: seen, new: new.clone(), differs: None }
            }
            (0..4, 2) if sense_of(sense).0 == MISCOMPARE => {
                let offset = u32::from_be_bytes(sense[3..7].try_into().expect("four bytes")) as usize;
                let differs = Some((offset / BLOCK_BYTES, offset % BLOCK_BYTES));
                Operation::CompareAndWrite { first, expected: seen, new: new.clone(), differs }
            }
            (_, 0) if what < 7 => Operation::Read { first, values: values_of(&io.data) },
            (7, 0) => Operation::Or { first, bits: bit },
            (_, 0) => Operation::Write { first, values: new.clone() },
            _ => return io.expect_good().map(|()| None),
        };
        let is_known = match &operation {
            Operation::Read { values, .. } => Some(values),
            Operation::Write { values, .. } => Some(values),
            Operation::CompareAndWrite { differs: None, new, .. } => Some(new),
            _ => None,
        };
        for (hint, value) in hints.iter().zip(is_known.into_iter().flatten()) {
            hint.store(*value, Ordering::Relaxed);
        }
        let is_plain = matches!(operation, Operation::Write { .. }) && io.cdb[0] == 0x8a;
        Ok(Some(Noted { place, call: Call { client: self.number, begun, ended, operation }, is_plain }))
    }
}

/// The block of a region: regions lie across pages.
fn lba(region: usize, block: usize) -> u64 {
    (6 + 8 * region + block) as u64
}

fn compare_and_write(lun: u8, lba: u64, expected: &[u64], new: &[u64]) -> Io {
    let blocks = u8::try_from(new.len()).expect("few");
    let data = expected.iter().chain(new).flat_map(|value| filled(*value)).collect();
    let mut io = Io::write(lun, lba, data);
    (io.cdb[0], io.cdb[13]) = (0x89, blocks);
    io.cdb[10..13].fill(0);
    io
}

fn with(opcode: u8, lun: u8, lba: u64, values: &[u64]) -> Io {
    let mut io = Io::write(lun, lba, values.iter().flat_map(|value| filled(*value)).collect());
    io.cdb[0] = opcode;
    debug_assert!(io.direction == Direction::Write);
    io
}

/// A block of one number.
fn filled(value: u64) -> impl Iterator<Item = u8> {
    value.to_be_bytes().into_iter().cycle().take(BLOCK_BYTES)
}

/// The number of each block; of one that is not all the same, one that nobody wrote.
fn values_of(data: &[u8]) -> Vec<u64> {
    let (blocks, _) = data.as_chunks::<BLOCK_BYTES>();
    blocks
        .iter()
        .map(|block| {
            let (words, _) = block.as_chunks::<8>();
            let is_whole = words.iter().all(|word| *word == words[0]);
            if is_whole { u64::from_be_bytes(words[0]) } else { TORN }
        })
        .collect()
}

fn since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

const SESSIONS: usize = 8;
const LUNS: usize = 2;
const MEMORY: u8 = 1;
const REGIONS: usize = 2;
const MISCOMPARE: u8 = 0x0e;
const TORN: u64 = 0x7042_7042_7042_7042;
/// After so long it is judged what came of it.
const ROUND: Duration = Duration::from_secs(5);
