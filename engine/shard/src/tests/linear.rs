//! Two shards on one disk: commands of several sessions, operations at the medium and words between the shards take their
//! turns at random. What the sessions are answered must be what one command at a time could answer
//! (`portico_linear`), and is not where a shard that claims blocks hears a yield that nobody said.

use std::collections::BTreeMap;

use portico_linear::{Call, Operation, State, check};
use portico_model::peer::{PeerLetter, Word};

use super::*;

const SESSIONS: usize = 3;
const BLOCKS: usize = portico_linear::BLOCKS;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % below as u64).expect("it is below a usize")
    }
}

/// A command that is not answered.
struct Asked {
    begun: u64,
    operation: Operation,
    read: Vec<u8>,
}

struct Pair {
    shards: [Bench; 2],
    peers: Vec<(usize, Peer)>,
    asked: BTreeMap<usize, Asked>,
    calls: Vec<Call>,
    /// From the first to the second, and back.
    air: [VecDeque<PeerLetter>; 2],
    random: Random,
    time: u64,
    tag: u32,
    /// The fault.
    has_arbiter: bool,
}

use std::collections::VecDeque;

impl Pair {
    fn new(seed: u64, has_arbiter: bool) -> Self {
        let mut shards = [Bench::number(0, 2), Bench::number(1, 2)];
        let disk = Rc::new(RefCell::new(vec![0; BLOCKS * 512]));
        for shard in &mut shards {
            shard.open(1, 8);
            shard.world.borrow_mut().disk = Some(Rc::clone(&disk));
        }
        let mut peers = Vec::new();
        for number in 0..2 * SESSIONS {
            let at = number % 2;
            peers.push((at, shards[at].log_in(&[(0, 1)], IMMEDIATE)));
        }
        let air = [VecDeque::new(), VecDeque::new()];
        let (asked, calls) = (BTreeMap::new(), Vec::new());
        Self { shards, peers, asked, calls, air, random: Random(seed), time: 0, tag: 0, has_arbiter }
    }

    /// A session without a command asks for something.
    fn ask(&mut self, number: usize) {
        let random = &mut self.random;
        let first = random.index(BLOCKS);
        let count = 1 + random.index(BLOCKS - first);
        // Few values, so that comparisons often succeed.
        let mut any = || (0..count).map(|_| random.next() & 0x0101).collect::<Vec<u64>>();
        let (expected, new) = (any(), any());
        let filled = |values: &[u64]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_be_bytes().into_iter().cycle().take(512)).collect()
        };
        let length = u32::try_from(count * 512).expect("few");
        let (at, peer) = &mut self.peers[number];
        let shard = &mut self.shards[*at];
        self.tag += 1;
        let tag = u32::try_from(number).expect("few") << 24 | self.tag;
        let operation = match random.index(4) {
            0 => {
                shard.read_at(peer, tag, first as u64, length);
                Operation::Read { first, values: Vec::new() }
            }
            1 => {
                shard.command(peer, 0, tag, transfer(0x8b, first as u64, length), length, &filled(&new));
                Operation::Or { first, bits: new }
            }
            2 => {
                shard.command(peer, 0, tag, transfer(0x8a, first as u64, length), length, &filled(&new));
                Operation::Write { first, values: new }
            }
            _ => {
                let mut cdb = transfer(0x89, first as u64, 0);
                cdb[13] = u8::try_from(count).expect("few");
                let data = [filled(&expected), filled(&new)].concat();
                shard.command(peer, 0, tag, cdb, 2 * length, &data);
                Operation::CompareAndWrite { first, expected, new, differs: None }
            }
        };
        self.asked.insert(number, Asked { begun: self.time, operation, read: Vec::new() });
    }

    /// Takes what has been answered and said, in this moment.
    fn listen(&mut self) {
        for number in 0..self.peers.len() {
            let (at, peer) = &self.peers[number];
            for answer in self.shards[*at].answers(peer) {
                let asked = self.asked.get_mut(&number).expect("only who asks is answered");
                asked.read.extend(&answer.data);
                let Some(status) = answer.status else { continue };
                let Asked { begun, mut operation, read } = self.asked.remove(&number).expect("it is there");
                match &mut operation {
                    Operation::Read { values, .. } => *values = read.chunks(512).map(value_of).collect(),
                    Operation::CompareAndWrite { differs, .. } if status == CHECK_CONDITION => {
                        let sense = &answer.sense;
                        assert_eq!((sense[2] & 0x0f, sense[12]), (0x0e, 0x1d), "MISCOMPARE");
                        let offset = u32::from_be_bytes(sense[3..7].try_into().expect("four bytes")) as usize;
                        *differs = Some((offset / 512, offset % 512));
                    }
                    _ => assert_eq!(status, GOOD),
                }
                self.calls.push(Call { client: number, begun, ended: self.time, operation });
            }
        }
        for from in 0..2 {
            let told = std::mem::take(&mut self.shards[from].world.borrow_mut().told);
            for (_, letter) in told {
                match &letter.word {
                    Word::Claim(claim) if !self.has_arbiter => {
                        let word = Word::Yield(claim.stamp);
                        let from = ShardId(u16::try_from(1 - from).expect("two"));
                        self.air[usize::from(from.0)].push_back(PeerLetter { from, unit: letter.unit, word });
                    }
                    _ => self.air[from].push_back(letter),
                }
            }
        }
    }

    /// Something happens.
    fn step(&mut self, may_ask: bool) {
        self.time += 1;
        let number = self.random.index(self.peers.len());
        match self.random.index(6) {
            0 | 1 if may_ask && !self.asked.contains_key(&number) => self.ask(number),
            2 | 3 => {
                let from = self.random.index(2);
                if let Some(letter) = self.air[from].pop_front() {
                    self.shards[1 - from].mail(ToShard::Peer(letter));
                }
            }
            _ => {
                let shard = self.random.index(2);
                let count = self.shards[shard].world.borrow().at_medium.len();
                if count > 0 {
                    let which = self.random.index(count);
                    self.shards[shard].world.borrow_mut().at_medium.swap(0, which);
                    self.shards[shard].land();
                }
            }
        }
        self.listen();
    }
}

/// The number that fills a block; of one that is not all the same, one that nobody wrote.
fn value_of(block: &[u8]) -> u64 {
    let word = |word: &[u8]| u64::from_be_bytes(word.try_into().expect("eight bytes"));
    let first = word(&block[..8]);
    if block.chunks(8).all(|bytes| word(bytes) == first) { first } else { u64::MAX }
}

/// Whether the life of this seed could have been; how many comparisons succeeded in it.
fn life(seed: u64, has_arbiter: bool) -> (bool, usize) {
    let mut pair = Pair::new(seed, has_arbiter);
    for _ in 0..400 {
        pair.step(true);
    }
    for _ in 0..3000 {
        if pair.asked.is_empty() {
            break;
        }
        pair.step(false);
    }
    assert!(pair.asked.is_empty(), "seed {seed}: a command is never answered");
    let swapped = |call: &&Call| matches!(call.operation, Operation::CompareAndWrite { differs: None, .. });
    let swapped = pair.calls.iter().filter(swapped).count();
    let state: State = [0; BLOCKS];
    (check(state, &pair.calls).is_ok(), swapped)
}

#[test]
fn what_two_shards_answer_is_what_one_command_at_a_time_could() {
    let mut swapped = 0;
    for seed in 0..LIVES {
        let (could_be, comparisons) = life(seed, true);
        assert!(could_be, "seed {seed}");
        swapped += comparisons;
    }
    assert!(swapped > 100, "{swapped} comparisons succeeded");
}

#[test]
fn without_the_arbiter_it_is_not() {
    let wrong = (0..LIVES).filter(|seed| !life(*seed, false).0).count();
    assert!(wrong > 0, "found in {wrong} lives of {LIVES}");
}

const LIVES: u64 = 60;
