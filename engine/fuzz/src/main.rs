//! `portico-fuzz`: fuzzers for a time, or one input again. See the library.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use portico_fuzz::engine::{distilled, processor_time, read_corpus, run_once};
use portico_fuzz::{Campaign, FUZZERS, Failure, Fuzzer, Report, fuzzer};

/// Runs fuzzers. What fails is printed as a file to be run again with `--replay`.
#[derive(Parser, Debug)]
#[command(name = "portico-fuzz", version)]
struct Cli {
    /// Which; all where none is named.
    fuzzers: Vec<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where chance begins; by default another place each time.
    #[arg(long)]
    seed: Option<u64>,
    /// At the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// What to begin with: a folder for each fuzzer.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))]
    corpus: PathBuf,
    /// Keeps the best of what brought about something new as the corpus, in place of what is there.
    #[arg(long)]
    keep: bool,
    /// Runs this file through the one fuzzer that is named, and nothing else.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Where failures are put.
    #[arg(long, default_value = "fuzz-failures")]
    failures: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("portico-fuzz: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool, String> {
    let chosen = chosen(&cli.fuzzers)?;
    if let Some(file) = &cli.replay {
        let [one] = chosen[..] else { return Err("--replay is for one fuzzer".to_owned()) };
        let input = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let said = run_once(one, &input);
        println!(
            "{}: {}",
            one.name,
            said.as_ref().map_or_else(String::clone, |_| "nothing fails".to_owned())
        );
        return Ok(said.is_ok());
    }
    // A panic is a finding, told with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let seed = cli.seed.unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        (std::process::id(), std::time::SystemTime::now()).hash(&mut hasher);
        hasher.finish()
    });
    println!("seed {seed}, {} s each", cli.seconds);
    let stage = Stage {
        cli,
        seed,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        running: Mutex::new(BTreeMap::new()),
        finished: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for job in 0..cli.jobs {
            let (stage, chosen) = (&stage, &chosen);
            scope.spawn(move || stage.work(job, chosen));
        }
        stage.watch(chosen.len());
    });
    Ok(!stage.failed.load(Ordering::Relaxed))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Fuzzer>, String> {
    if names.is_empty() {
        return Ok(FUZZERS.iter().collect());
    }
    names.iter().map(|name| fuzzer(name).ok_or_else(|| format!("there is no fuzzer {name}"))).collect()
}

/// What the jobs share.
struct Stage<'a> {
    cli: &'a Cli,
    seed: u64,
    next: AtomicUsize,
    failed: AtomicBool,
    /// What each job is at, and since when.
    running: Mutex<BTreeMap<u8, (&'static str, Instant)>>,
    finished: AtomicUsize,
}

impl Stage<'_> {
    fn work(&self, job: u8, chosen: &[&'static Fuzzer]) {
        while let Some(one) = chosen.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(reason) = self.campaign(job, one) {
                eprintln!("{}: {reason}", one.name);
                self.failed.store(true, Ordering::Relaxed);
            }
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn campaign(&self, job: u8, one: &'static Fuzzer) -> Result<(), String> {
        let folder = self.cli.corpus.join(one.name);
        let corpus = read_corpus(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (current, start) = (Mutex::default(), Instant::now());
        let ran_before = processor_time();
        let end = start + Duration::from_secs(self.cli.seconds);
        let note = |at| {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(job, (one.name, at));
        };
        let campaign = Campaign::new(one, self.seed, &current);
        let report = campaign.run(&corpus, |_| {
            let now = Instant::now();
            note(now);
            now < end
        });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
        self.tell(one, &report, start.elapsed(), processor_time() - ran_before);
        if self.cli.keep {
            let kept = distilled(one, report.pool, CORPUS_MAX);
            keep(&folder, kept).map_err(|error| error.to_string())?;
        }
        match report.failure {
            None => Ok(()),
            Some(failure) => Err(self.save(one, &failure)),
        }
    }

    fn tell(&self, one: &Fuzzer, report: &Report, taken: Duration, ran: Duration) {
        println!(
            "{:8} {:>9} runs in {:.0} s, {:.0} of them on a processor, {} things happened, {} inputs kept in mind, {}",
            one.name,
            report.runs,
            taken.as_secs_f64(),
            ran.as_secs_f64(),
            report.marks,
            report.pool.len(),
            if report.failure.is_some() { "FAILED" } else { "nothing found" },
        );
    }

    fn save(&self, one: &Fuzzer, failure: &Failure) -> String {
        let file = self.cli.failures.join(format!("{}-{:016x}", one.name, hash(&failure.input)));
        let saved = fs::create_dir_all(&self.cli.failures).and_then(|()| fs::write(&file, &failure.input));
        let hex: String = failure.input.iter().map(|byte| format!("{byte:02x}")).collect();
        let place = saved.map_or_else(|error| error.to_string(), |()| file.display().to_string());
        format!("{}\n  {} bytes, in {place}: {hex}", failure.message, failure.input.len())
    }

    /// Ends the process where one input runs for too long: nothing else could.
    fn watch(&self, count: usize) {
        while self.finished.load(Ordering::Relaxed) < count {
            thread::sleep(Duration::from_millis(200));
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, since) in running.values() {
                if since.elapsed() > HANG_MAX {
                    eprintln!("{name}: an input runs for ever; again with --seed {}", self.seed);
                    std::process::exit(1);
                }
            }
        }
    }
}

/// Longer than the making smaller of a failure takes.
const HANG_MAX: Duration = Duration::from_secs(120);

/// Inputs of one corpus.
const CORPUS_MAX: usize = 48;

fn keep(folder: &Path, inputs: Vec<Vec<u8>>) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for file in fs::read_dir(folder)? {
        fs::remove_file(file?.path())?;
    }
    for input in inputs {
        fs::write(folder.join(format!("{:016x}", hash(&input))), input)?;
    }
    Ok(())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
