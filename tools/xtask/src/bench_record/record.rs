//! The record of a run: a folder with what was run on what, the raw numbers, a summary, a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{CASES, Case, DEPTH, Sample, plot};
use crate::lab::target::Peer;
use crate::lab::{Context, Failure, Result, process};
use crate::tree::Tree;

/// The middle of several runs, and the least and the most of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Spread { median, least, most })
    }

    fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}

/// Makes the folder; its path.
pub(super) fn write(
    tree: &Tree,
    parent: &Path,
    samples: &[Sample],
    seconds: u64,
    load: f64,
) -> Result<PathBuf> {
    let commit = said(tree, "git", &["rev-parse", "--short", "HEAD"])?;
    let date = said(tree, "date", &["-u", "+%Y-%m-%d"])?;
    let processor = processor()?;
    let folder = parent.join(format!("{date}-{}-{commit}", slug(&processor)));
    fs::create_dir_all(&folder).context(folder.display())?;
    let facts = Facts {
        date: &date,
        commit: &commit,
        dirty: !said(tree, "git", &["status", "--porcelain"])?.is_empty(),
        processor: &processor,
        kernel: &said(tree, "uname", &["-srm"])?,
        compiler: &said(tree, "rustc", &["--version"])?,
        tgt: &said(tree, "dpkg-query", &["--show", "tgt"])?.replace('\t', " "),
        libiscsi: &said(tree, "dpkg-query", &["--show", "libiscsi-bin"])?.replace('\t', " "),
        load,
        seconds,
        pairs: samples.iter().map(|sample| sample.pair + 1).max().unwrap_or(0),
    };
    let keep = |name: &str, text: String| fs::write(folder.join(name), text).context(name);
    keep("README.md", readme(&facts))?;
    keep("raw.csv", raw(samples))?;
    keep("summary.md", summary(samples))?;
    keep("cpu-per-read.svg", plot::bars(&bars(samples)))?;
    Ok(folder)
}

struct Facts<'a> {
    date: &'a str,
    commit: &'a str,
    dirty: bool,
    processor: &'a str,
    kernel: &'a str,
    compiler: &'a str,
    tgt: &'a str,
    libiscsi: &'a str,
    load: f64,
    seconds: u64,
    pairs: u32,
}

fn readme(facts: &Facts<'_>) -> String {
    let Facts { date, commit, processor, kernel, compiler, tgt, libiscsi, load, seconds, pairs, .. } = facts;
    let dirty = if facts.dirty { ", with changes that are not committed" } else { "" };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "# Processor time per 4 KiB read, beside tgt\n\n\
         ```\ncargo xtask bench-record --pairs {pairs} --seconds {seconds}\n```\n\n\
         | | |\n|---|---|\n\
         | date | {date} |\n| portico | {commit}{dirty} |\n| peers | {tgt} |\n| generator | iscsi-perf of {libiscsi} |\n\
         | kernel | {kernel} |\n| processor | {processor}, {cores} of them used |\n| compiler | {compiler} |\n\
         | load before | {load} |\n\n\
         The target has processor 0 (`taskset`, and `--cores 0` for porticod), the generators have processor 1: reads of 4 KiB\n\
         at random, {DEPTH} at a time in each session, over loopback TCP. RAM: our `vdisk_ram`, and tgt's `rdwr` on a file of\n\
         /dev/shm. Null: `vdisk_nullio`, and tgt's `null`. Processor time is utime and stime of the whole target process\n\
         (/proc/PID/stat) over {seconds} s after 2 s of warm-up. Pairs are interleaved, every second one in the other order;\n\
         a ratio is that of one pair.\n\n\
         `raw.csv` has each measurement, `summary.md` the medians with the least and the most.\n"
    )
}

fn raw(samples: &[Sample]) -> String {
    let mut text =
        "medium,sessions,pair,target,seconds,reads,cpu_seconds,cpu_us_per_read,reads_per_second\n".to_owned();
    for sample in samples {
        let Sample { case, pair, peer, seconds, reads, cpu_seconds } = sample;
        let (rate, cpu_us) = (reads / seconds, sample.cpu_us());
        writeln!(
            text,
            "{},{},{pair},{},{seconds:.3},{reads:.0},{cpu_seconds:.2},{cpu_us:.3},{rate:.0}",
            case.kind.name(),
            case.sessions,
            peer.name()
        )
        .expect("a String takes all text");
    }
    text
}

fn summary(samples: &[Sample]) -> String {
    let mut text = "µs of processor time per 4 KiB read at queue depth 32: median (least–most)\n\n\
        | | portico | tgt | tgt / portico | reads/s portico | reads/s tgt |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for case in CASES {
        let cell = |spread: Option<Spread>| spread.map_or("–".to_owned(), Spread::text);
        let rate = |peer| {
            let rates = of(samples, case, peer).map(|sample| sample.reads / sample.seconds).collect();
            Spread::of(rates).map_or("–".to_owned(), |spread| format!("{:.0}", spread.median))
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            case.name(),
            cell(cpu(samples, case, Peer::Portico)),
            cell(cpu(samples, case, Peer::Tgt)),
            cell(ratio(samples, case)),
            rate(Peer::Portico),
            rate(Peer::Tgt)
        )
        .expect("a String takes all text");
    }
    text
}

fn of(samples: &[Sample], case: Case, peer: Peer) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(move |sample| sample.case == case && sample.peer == peer)
}

fn cpu(samples: &[Sample], case: Case, peer: Peer) -> Option<Spread> {
    Spread::of(of(samples, case, peer).map(Sample::cpu_us).collect())
}

/// How many times dearer tgt's reads were, pair by pair.
fn ratio(samples: &[Sample], case: Case) -> Option<Spread> {
    let ratios = of(samples, case, Peer::Portico).filter_map(|ours| {
        let theirs = of(samples, case, Peer::Tgt).find(|theirs| theirs.pair == ours.pair)?;
        Some(theirs.cpu_us() / ours.cpu_us())
    });
    Spread::of(ratios.collect())
}

fn bars(samples: &[Sample]) -> plot::Bars {
    let peers = [Peer::Portico, Peer::Tgt];
    plot::Bars {
        title: "processor time per 4 KiB read, queue depth 32".to_owned(),
        unit: "µs".to_owned(),
        series: peers.map(|peer| peer.name().to_owned()).to_vec(),
        groups: CASES
            .into_iter()
            .map(|case| (case.name(), peers.map(|peer| cpu(samples, case, peer)).to_vec()))
            .collect(),
    }
}

/// What a command says, on one line or none.
fn said(tree: &Tree, program: &str, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words).current_dir(&tree.root);
    Ok(process::run(&mut command, Duration::from_secs(30))?.expect_success(program)?.trim().to_owned())
}

/// The name of the first processor.
fn processor() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.ok_or_else(|| Failure::new("/proc/cpuinfo names no processor"))
}

/// Small letters and digits, the rest as single dashes.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::target::Kind;

    fn sample(pair: u32, peer: Peer, cpu_seconds: f64) -> Sample {
        let case = Case { kind: Kind::Null, sessions: 1 };
        Sample { case, pair, peer, seconds: 5.0, reads: 1e6, cpu_seconds }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_ratio_is_that_of_one_pair() {
        let samples = [
            sample(0, Peer::Portico, 1.0),
            sample(0, Peer::Tgt, 3.0),
            sample(1, Peer::Tgt, 10.0),
            sample(1, Peer::Portico, 2.0),
        ];
        let spread = ratio(&samples, Case { kind: Kind::Null, sessions: 1 }).unwrap();
        assert_eq!((spread.least, spread.most), (3.0, 5.0));
        assert!(
            summary(&samples)
                .contains("| null, 1 session | 1.50 (1.00–2.00) | 6.50 (3.00–10.00) | 4.00 (3.00–5.00) |")
        );
    }

    #[test]
    fn a_processors_name_makes_a_folders_name() {
        assert_eq!(slug("Intel(R) Xeon(R) CPU @ 2.70GHz"), "intel-r-xeon-r-cpu-2-70ghz");
    }
}
