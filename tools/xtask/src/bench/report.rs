//! The record of a run: a folder with what was run on what, the raw numbers, the latencies, a summary, pictures.

mod before;
mod pictures;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Arguments;
use super::claims::{self, Measure};
use super::contender::{Contender, WINDOW};
use super::matrix::Cell;
use super::sample::{COLUMNS, Sample, merged};
use super::statistics::{Interval, Spread};
use crate::lab::{Context, Failure, Result, process};
use crate::tree::Tree;

/// What a record says of its run beside the samples.
pub(super) struct Run<'a> {
    pub(super) arguments: &'a Arguments,
    /// The load average before it.
    pub(super) load: f64,
    pub(super) skipped: &'a [String],
}

/// Makes the folder; its path.
pub(super) fn write(tree: &Tree, parent: &Path, samples: &[Sample], run: &Run<'_>) -> Result<PathBuf> {
    let commit = said(tree, "git", &["rev-parse", "--short", "HEAD"])?;
    let date = said(tree, "date", &["-u", "+%Y-%m-%d"])?;
    let processor = processor()?;
    let name = format!("{date}-{}-{commit}", slug(&processor));
    let before = before::latest(parent)?;
    let names = std::iter::once(name.clone()).chain((2..100).map(|number| format!("{name}-{number}")));
    let mut folders = names.map(|name| parent.join(name));
    let folder = folders.find(|folder| !folder.exists()).ok_or_else(|| Failure::new("a hundred records"))?;
    fs::create_dir_all(&folder).context(folder.display())?;
    let keep = |name: &str, text: String| fs::write(folder.join(name), text).context(name);
    keep("README.md", readme(tree, run, [&date, &commit, &processor])?)?;
    keep("raw.csv", raw(samples))?;
    keep("histograms.csv", histograms(samples))?;
    keep("summary.md", summary(samples, before.as_ref(), run))?;
    for (name, picture) in pictures::all(samples) {
        keep(&name, picture)?;
    }
    Ok(folder)
}

fn readme(tree: &Tree, run: &Run<'_>, [date, commit, processor]: [&str; 3]) -> Result<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_dirty = !said(tree, "git", &["status", "--porcelain"])?.is_empty();
    let dirty = if is_dirty { ", with changes that are not committed" } else { "" };
    let tgt = said(tree, "dpkg-query", &["--show", "tgt"]).unwrap_or_else(|_| "no tgt".to_owned());
    let compiler = said(tree, "rustc", &["--version"])?;
    let kernel = said(tree, "uname", &["-srm"])?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let Arguments { target_cores, .. } = run.arguments;
    let (pairs, seconds) = (run.arguments.pairs(), run.arguments.seconds());
    let mut text = format!(
        "# The gateway beside tgt and the floor\n\n\
         ```\ncargo xtask {}\n```\n\n\
         | | |\n|---|---|\n\
         | date | {date} |\n| portico | {commit}{dirty} |\n| peers | {}, glommio 0.9 |\n\
         | kernel | {kernel} |\n| processor | {processor}, {cores} of them |\n| compiler | {compiler} |\n\
         | load before | {} |\n| command window | {WINDOW} commands a session: QueuedCommands of the gateway, tgt's default, the \
         floors' |\n\n\
         {pairs} pairs, each measurement {seconds} s after a warm-up. A target on one core has processor {:?}, over loopback TCP; the\n\
         generator is portico-load. Every measurement is of a target started afresh; the contenders of a pair come in another\n\
         order each time. Processor time is what all threads of the target have run (/proc/PID/task/*/schedstat). RAM: `vdisk_ram`,\n\
         tgt's `rdwr` on a file of /dev/shm, both written once before, and floors that answer from as much memory. Files and loop devices: past the page\n\
         cache, written before. `medium` is no target but a ring that reads the file at the same depth.\n\n\
         `summary.md` has medians and ratios, `raw.csv` each measurement, `histograms.csv` the latencies in ns, up to two digits (all pairs together).\n",
        words.join(" "),
        tgt.replace('\t', " "),
        run.load,
        target_cores.first().unwrap_or(&0),
    );
    for line in run.skipped {
        write!(text, "\nNot measured: {line}.").expect("a String takes all text");
    }
    Ok(text)
}

fn raw(samples: &[Sample]) -> String {
    let lines = std::iter::once(COLUMNS.to_owned()).chain(samples.iter().map(Sample::line));
    lines.map(|line| line + "\n").collect()
}

fn histograms(samples: &[Sample]) -> String {
    let mut text = "cell,contender,latency_ns,count\n".to_owned();
    for (cell, contender) in rows(samples) {
        let steps = of(samples, cell, contender).flat_map(|sample| sample.histogram.iter().copied());
        let steps = steps.map(|(latency_ns, count)| (coarse(latency_ns), count));
        for (latency_ns, count) in merged(steps) {
            writeln!(text, "{cell},{contender},{latency_ns},{count}").expect("a String takes all text");
        }
    }
    text
}

/// The next number with two digits that are not zeroes: a record keeps the shape and stays small.
fn coarse(latency_ns: u64) -> u64 {
    let unit = 10_u64.pow(latency_ns.checked_ilog10().unwrap_or(0).saturating_sub(1));
    latency_ns.div_ceil(unit) * unit
}

fn summary(samples: &[Sample], before: Option<&before::Before>, run: &Run<'_>) -> String {
    let mut text = String::new();
    write_claims(&mut text, samples)
        .and_then(|()| write_cells(&mut text, samples))
        .and_then(|()| before::write(&mut text, samples, before))
        .expect("a String takes all text");
    for line in run.skipped {
        writeln!(text, "\nNot measured: {line}.").expect("a String takes all text");
    }
    text
}

fn write_claims(text: &mut String, samples: &[Sample]) -> std::fmt::Result {
    let rows: Vec<String> = claims::all().iter().filter_map(|claim| claim.row(samples)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "## What was promised\n\nMedians of the pairs' ratios, and the interval that holds the true one in 95 of 100 runs.\n\n\
         | cell | ratio | at least | aim | measured | |\n|---|---|---|---|---|---|\n{}\n",
        rows.join("\n")
    )
}

fn write_cells(text: &mut String, samples: &[Sample]) -> std::fmt::Result {
    writeln!(
        text,
        "## All cells\n\nMedian (least–most) of all pairs. The last column compares IOPS with the gateway's, pair by pair.\n\n\
         | cell | target | IOPS | CPU µs per I/O | p50 µs | p99 µs | p99.9 µs | saturated | portico / it |\n\
         |---|---|---|---|---|---|---|---|---|"
    )?;
    for (cell, contender) in rows(samples) {
        let spread = |value: &dyn Fn(&Sample) -> Option<f64>| {
            let values = of(samples, cell, contender).filter_map(value).collect();
            Spread::of(values).map_or("–".to_owned(), Spread::text)
        };
        let pair = (Contender::Portico, contender);
        let ratio = Some(pair).filter(|(ours, theirs)| ours != theirs);
        let ratio = ratio.and_then(|pair| claims::ratio(samples, cell, Measure::Iops, pair));
        writeln!(
            text,
            "| {cell} | {contender} | {} | {} | {} | {} | {} | {} | {} |",
            spread(&|sample| Some(sample.iops())),
            spread(&Sample::cpu_us),
            spread(&|sample| sample.percentile_us(0.5)),
            spread(&|sample| sample.percentile_us(0.99)),
            spread(&|sample| sample.percentile_us(0.999)),
            saturated(samples, cell, contender),
            ratio.map_or("–".to_owned(), Interval::text),
        )?;
    }
    Ok(())
}

/// What most repetitions say.
fn saturated(samples: &[Sample], cell: Cell, contender: Contender) -> &'static str {
    let said: Vec<&str> = of(samples, cell, contender).map(Sample::saturated).collect();
    let count = |word: &str| said.iter().filter(|other| **other == word).count();
    ["neither", "target", "generator", "both"].into_iter().max_by_key(|word| count(word)).unwrap_or("neither")
}

/// Each cell with each of its contenders, once, in the order of the matrix.
fn rows(samples: &[Sample]) -> Vec<(Cell, Contender)> {
    let mut rows: Vec<_> = samples.iter().map(|sample| (sample.cell, sample.contender)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn of(samples: &[Sample], cell: Cell, contender: Contender) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(move |sample| sample.cell == cell && sample.contender == contender)
}

fn median(
    samples: &[Sample],
    cell: Cell,
    contender: Contender,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    Some(Spread::of(of(samples, cell, contender).filter_map(value).collect())?.median)
}

/// What a command says, on one line or none.
pub(crate) fn said(tree: &Tree, program: &str, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words).current_dir(&tree.root);
    Ok(process::run(&mut command, Duration::from_secs(30))?.expect_success(program)?.trim().to_owned())
}

/// The name of the first processor.
pub(crate) fn processor() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.ok_or_else(|| Failure::new("/proc/cpuinfo names no processor"))
}

/// Small letters and digits, the rest as single dashes.
pub(super) fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::super::contender::FLOOR;
    use super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn a_latency_is_kept_to_two_digits_and_never_below_itself() {
        let coarse = [0, 7, 99, 100, 101, 12_943, 99_500].map(coarse);
        assert_eq!(coarse, [0, 7, 99, 100, 110, 13_000, 100_000]);
    }

    #[test]
    fn a_processors_name_makes_a_folders_name() {
        assert_eq!(slug("Intel(R) Xeon(R) CPU @ 2.70GHz"), "intel-r-xeon-r-cpu-2-70ghz");
    }

    #[test]
    fn a_cell_is_told_with_its_medians_and_its_ratio() {
        let samples = [
            sample(0, Contender::Portico, 100_000, 1.0),
            sample(0, FLOOR, 200_000, 1.0),
            sample(1, Contender::Portico, 100_000, 2.0),
            sample(1, FLOOR, 200_000, 1.0),
        ];
        let mut text = String::new();
        write_cells(&mut text, &samples).unwrap();
        let row = "| null-4k-read-4x64 | portico | 50000 (50000–50000) | 15.0 (10.0–20.0) | 1.00 (1.00–1.00) | 2.00 \
            (2.00–2.00) | 2.00 (2.00–2.00) | target | – |";
        let expected = row.replace("| target |", "| neither |");
        assert!(text.contains(row) || text.contains(&expected), "{text}");
        assert!(text.contains("| floor | 100000 (100000–100000) | 5.00 (5.00–5.00) |"));
        assert!(text.contains("| 0.500 [too few] |"));
        assert_eq!(raw(&samples).lines().count(), 5);
        assert_eq!(histograms(&samples).lines().count(), 5);
    }
}
