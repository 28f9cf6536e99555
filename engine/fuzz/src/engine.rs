//! A campaign: inputs from the corpus, changed again and again, kept where they bring about something new.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{Fuzzer, Random, Trace};

/// An input that runs for longer is a finding: nothing that a peer sends may cost so much.
pub const RUN_TIME_MAX: Duration = Duration::from_secs(2);
/// Inputs that a campaign keeps.
const POOL_MAX: usize = 4_000;
/// How many runs the making smaller of a failure may take.
const SHRINKS_MAX: usize = 20_000;

/// An input on which a fuzzer failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The bytes, made as few as could be.
    pub input: Vec<u8>,
    /// What it said.
    pub message: String,
}

/// What a campaign came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Inputs that were run.
    pub runs: u64,
    /// Different things that happened.
    pub marks: usize,
    /// Inputs that are worth running, those of the corpus included.
    pub pool: Vec<Vec<u8>>,
    /// What it ended with.
    pub failure: Option<Failure>,
}

/// One fuzzer at work.
#[derive(Debug)]
pub struct Campaign<'a> {
    fuzzer: &'a Fuzzer,
    random: Random,
    seen: HashSet<u64>,
    report: Report,
    /// What is being run, for whoever watches.
    current: &'a Mutex<Vec<u8>>,
}

impl<'a> Campaign<'a> {
    /// From this seed. The input that is being run stands in `current`, so that a hang can be told.
    #[must_use]
    pub fn new(fuzzer: &'a Fuzzer, seed: u64, current: &'a Mutex<Vec<u8>>) -> Self {
        Self { fuzzer, random: Random::new(seed), seen: HashSet::new(), report: Report::default(), current }
    }

    /// Runs the corpus, then goes on until `go_on` says no or something fails.
    pub fn run(mut self, corpus: &[Vec<u8>], mut go_on: impl FnMut(u64) -> bool) -> Report {
        for input in corpus.iter().map(Vec::as_slice).chain([&[][..]]) {
            if self.try_one(input) {
                return self.end();
            }
        }
        while go_on(self.report.runs) {
            let input = self.next_input();
            if self.try_one(&input) {
                break;
            }
        }
        self.end()
    }

    fn end(mut self) -> Report {
        self.report.marks = self.seen.len();
        self.report
    }

    /// Runs one input; tells whether it failed.
    fn try_one(&mut self, input: &[u8]) -> bool {
        self.report.runs += 1;
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone_from(&input.to_vec());
        match run_once(self.fuzzer, input) {
            Ok(marks) => {
                let known = self.seen.len();
                self.seen.extend(marks);
                if self.seen.len() > known && self.report.pool.len() < POOL_MAX {
                    self.report.pool.push(input.to_vec());
                }
                false
            }
            Err(message) => {
                self.report.failure = Some(self.shrink(input.to_vec(), message));
                true
            }
        }
    }

    fn next_input(&mut self) -> Vec<u8> {
        let pool = &self.report.pool;
        let mut input = match pool.len() {
            0 => Vec::new(),
            // Those that came last have been changed least.
            length if self.random.byte() < 96 => pool[length - 1 - self.random.index(length.min(16))].clone(),
            length => pool[self.random.index(length)].clone(),
        };
        for _ in 0..=self.random.index(6) {
            self.change(&mut input);
        }
        input.truncate(self.fuzzer.bytes_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = if input.is_empty() { 0 } else { random.index(input.len()) };
        match random.index(9) {
            0 if !input.is_empty() => input[at] ^= 1 << random.index(8),
            1 if !input.is_empty() => input[at] = random.byte(),
            2 if !input.is_empty() => input[at] = EDGES[random.index(EDGES.len())],
            3 if !input.is_empty() => {
                let end = (at + 1 + random.index(16)).min(input.len());
                input.drain(at..end);
            }
            4 if !input.is_empty() => {
                let end = (at + 1 + random.index(64)).min(input.len());
                let copy = input[at..end].to_vec();
                let to = random.index(input.len() + 1);
                input.splice(to..to, copy);
            }
            5 if input.len() >= 4 => {
                let at = random.index(input.len() - 3);
                let word = WORDS[random.index(WORDS.len())];
                input[at..at + 4].copy_from_slice(&word.to_be_bytes());
            }
            6 if !self.fuzzer.dictionary.is_empty() => {
                let word = self.fuzzer.dictionary[random.index(self.fuzzer.dictionary.len())];
                input.splice(at..at, word.iter().copied());
            }
            7 if !self.report.pool.is_empty() => {
                let other = &self.report.pool[random.index(self.report.pool.len())];
                let from = random.index(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let fresh: Vec<u8> = (0..=random.index(24)).map(|_| random.byte()).collect();
                input.splice(at..at, fresh);
            }
        }
    }

    /// Takes away what the failure does not need.
    fn shrink(&self, mut input: Vec<u8>, mut message: String) -> Failure {
        let mut runs = 0;
        let mut length = input.len().next_power_of_two() / 2;
        while length > 0 {
            let mut at = 0;
            while at < input.len() && runs < SHRINKS_MAX {
                let mut smaller = input.clone();
                smaller.drain(at..(at + length).min(input.len()));
                runs += 1;
                match run_once(self.fuzzer, &smaller) {
                    Err(said) => (input, message) = (smaller, said),
                    Ok(_) => at += length,
                }
            }
            length /= 2;
        }
        Failure { input, message }
    }
}

/// Values at which things tip over.
const EDGES: [u8; 10] = [0, 1, 2, 3, 4, 0x7f, 0x80, 0x81, 0xfe, 0xff];
const WORDS: [u32; 12] =
    [0, 1, 2, 511, 512, 513, 4096, 0x00ff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX];

/// Runs one input; what happened, or what it panicked with.
///
/// # Errors
/// The message of the panic, or that it took too long.
pub fn run_once(fuzzer: &Fuzzer, input: &[u8]) -> Result<HashSet<u64>, String> {
    let start = Instant::now();
    let marks = caught(fuzzer, input)?;
    if start.elapsed() > RUN_TIME_MAX {
        // Others may have had the processor: it is run again by the clock of this thread.
        let start = processor_time();
        caught(fuzzer, input)?;
        let taken = processor_time() - start;
        if taken > RUN_TIME_MAX {
            return Err(format!("it took {taken:?}"));
        }
    }
    Ok(marks)
}

/// How long this thread has run.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it begins at zero")
}

fn caught(fuzzer: &Fuzzer, input: &[u8]) -> Result<HashSet<u64>, String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut trace = Trace::default();
        (fuzzer.run)(input, &mut trace);
        trace.take()
    }));
    outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

/// The inputs that are kept in a folder, in the order of their names; none where there is no such folder.
///
/// # Errors
/// What the file system says.
pub fn read_corpus(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    files.iter().map(|file| fs::read(file.path())).collect()
}

/// At most `count` of these inputs: those that bring about most of what the shorter ones do not.
#[must_use]
pub fn distilled(fuzzer: &Fuzzer, mut inputs: Vec<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
    inputs.sort_by_key(Vec::len);
    let mut seen = HashSet::new();
    let mut valued = Vec::new();
    for input in inputs {
        let known = seen.len();
        seen.extend(run_once(fuzzer, &input).unwrap_or_default());
        valued.push((seen.len() - known, input));
    }
    valued.retain(|(value, _)| *value > 0);
    valued.sort_by_key(|(value, _)| std::cmp::Reverse(*value));
    valued.into_iter().take(count).map(|(_, input)| input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picky(input: &[u8], trace: &mut Trace) {
        for (at, byte) in b"SCSI".iter().enumerate() {
            if input.get(at) != Some(byte) {
                return;
            }
            trace.mark(at);
        }
        assert!(!input.contains(&7), "a seven behind the word");
    }

    const PICKY: Fuzzer = Fuzzer { name: "picky", run: picky, dictionary: &[], bytes_max: 64 };

    #[test]
    fn what_is_new_is_gone_on_from_and_a_failure_is_made_small() {
        let current = Mutex::default();
        let report = Campaign::new(&PICKY, 1, &current).run(&[], |runs| runs < 2_000_000);
        let failure = report.failure.expect("four bytes are found one after the other");
        assert_eq!(failure.input, b"SCSI\x07");
        assert!(failure.message.contains("a seven"));
    }

    #[test]
    fn of_inputs_that_bring_about_the_same_the_shortest_stays() {
        let inputs = [&b"SCxxxx"[..], b"SC", b"S", b"SCS"].map(<[u8]>::to_vec).to_vec();
        let mut kept = distilled(&PICKY, inputs.clone(), 9);
        kept.sort_unstable();
        assert_eq!(kept, [&b"S"[..], b"SC", b"SCS"].map(<[u8]>::to_vec));
        assert_eq!(distilled(&PICKY, inputs, 1).len(), 1);
    }
}
