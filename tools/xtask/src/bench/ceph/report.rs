//! The record: what was run on what, each measurement, medians with what was promised of them, pictures.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::matrix::Direction;
use super::super::plot::{self, Bars};
use super::super::report::{processor, said, slug};
use super::super::statistics::{Interval, Spread};
use super::hang::Beside;
use super::measure::Sample;
use super::{Arguments, Cell, Contender, IMAGE_MIB, IMAGES};
use crate::lab::{Context, Failure, Result};
use crate::tree::Tree;

/// What is recorded.
pub(super) struct Run<'a> {
    pub(super) arguments: &'a Arguments,
    /// The load average before it.
    pub(super) load: f64,
    pub(super) skipped: &'a [String],
    pub(super) samples: &'a [Sample],
    pub(super) beside: &'a [Beside],
}

/// Makes the folder; its path.
pub(super) fn write(tree: &Tree, parent: &Path, run: &Run<'_>) -> Result<PathBuf> {
    let commit = said(tree, "git", &["rev-parse", "--short", "HEAD"])?;
    let date = said(tree, "date", &["-u", "+%Y-%m-%d"])?;
    let processor = processor()?;
    let name = format!("{date}-ceph-{}-{commit}", slug(&processor));
    let names = std::iter::once(name.clone()).chain((2..100).map(|number| format!("{name}-{number}")));
    let mut folders = names.map(|name| parent.join(name));
    let folder = folders.find(|folder| !folder.exists()).ok_or_else(|| Failure::new("a hundred records"))?;
    fs::create_dir_all(&folder).context(folder.display())?;
    let keep = |name: &str, text: String| fs::write(folder.join(name), text).context(name);
    keep("README.md", readme(tree, run, [&date, &commit, &processor])?)?;
    keep("raw.csv", raw(run))?;
    keep("summary.md", summary(run))?;
    if !run.samples.is_empty() {
        keep("cpu-per-io.svg", picture(run, "processor time for each I/O", "µs", |sample| sample.cpu_us))?;
        keep("iops.svg", picture(run, "4 KiB I/Os at random places", "a second", |sample| sample.iops))?;
        keep("p50.svg", picture(run, "median latency", "µs", |sample| sample.p50_us))?;
    }
    Ok(folder)
}

fn readme(tree: &Tree, run: &Run<'_>, [date, commit, processor]: [&str; 3]) -> Result<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_dirty = !said(tree, "git", &["status", "--porcelain"])?.is_empty();
    let dirty = if is_dirty { ", with changes that are not committed" } else { "" };
    let version = |package: &str| {
        let shown = said(tree, "dpkg-query", &["--show", package]);
        shown.map_or_else(|_| format!("no {package}"), |line| line.replace('\t', " "))
    };
    let packages = ["librbd1", "ceph-osd", "fio", "tgt-rbd"].map(version).join(", ");
    let kernel = said(tree, "uname", &["-srm"])?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let Arguments { pairs, seconds, .. } = run.arguments;
    let mut text = format!(
        "# RBD images: the gateway, fio's engine, tgt\n\n\
         ```\ncargo xtask {}\n```\n\n\
         | | |\n|---|---|\n\
         | date | {date} |\n| portico | {commit}{dirty} |\n| others | {packages} |\n\
         | kernel | {kernel} |\n| processor | {processor}, {cores} of them |\n| load before | {} |\n\n\
         {pairs} pairs, each measurement {seconds} s after one of warming up. One monitor, one manager and one OSD (memstore) on the\n\
         same processors as everything else; up to {IMAGES} images of {IMAGE_MIB} MiB, written before. 4 KiB at random places; a cell\n\
         `rbd-4k-read-8x16` is 8 images with 16 commands at each. fio is librbd without a target before it; the gateway and tgt\n\
         are loaded over loopback TCP by portico-load, whose processor time comes on top and is not counted, one session for\n\
         each image. librbd's cache is off everywhere. Processor time is what all threads of the process have run.\n",
        words.join(" "),
        run.load,
    );
    for line in run.skipped {
        writeln!(text, "\nNot measured: {line}.").expect("a String takes all text");
    }
    Ok(text)
}

fn raw(run: &Run<'_>) -> String {
    let mut text = "cell,pair,contender,iops,cpu_us_per_io,p50_us,p99_us\n".to_owned();
    for Sample { cell, pair, contender, iops, cpu_us, p50_us, p99_us } in run.samples {
        writeln!(text, "{cell},{pair},{contender},{iops:.1},{cpu_us:.2},{p50_us:.1},{p99_us:.1}")
            .expect("a String takes all text");
    }
    for Beside { unit, pair, before, during } in run.beside {
        writeln!(text, "{unit},{pair},before,{before:.1},,,\n{unit},{pair},during,{during:.1},,,")
            .expect("a String takes all text");
    }
    text
}

fn summary(run: &Run<'_>) -> String {
    let mut text = "## What was promised\n\nMedians over the pairs, and the interval that holds the true one in 95 of 100 runs.\n\n\
        | cell | what | promised | measured | |\n|---|---|---|---|---|\n"
        .to_owned();
    claims(run).into_iter().for_each(|row| text.push_str(&row));
    text.push_str(
        "\n## All cells\n\nMedian (least–most) of all pairs.\n\n\
         | cell | by | IOPS | CPU µs per I/O | p50 µs | p99 µs |\n|---|---|---|---|---|---|\n",
    );
    for cell in super::cells() {
        for contender in Contender::ALL {
            let spread = |value: fn(&Sample) -> f64| {
                Spread::of(of(run.samples, cell, contender).map(value).collect()).map(Spread::text)
            };
            let Some(iops) = spread(|sample| sample.iops) else { continue };
            let [cpu, p50, p99] = [
                spread(|sample| sample.cpu_us),
                spread(|sample| sample.p50_us),
                spread(|sample| sample.p99_us),
            ]
            .map(Option::unwrap_or_default);
            writeln!(text, "| {cell} | {contender} | {iops} | {cpu} | {p50} | {p99} |")
                .expect("a String takes all text");
        }
    }
    for line in run.skipped {
        writeln!(text, "\nNot measured: {line}.").expect("a String takes all text");
    }
    text
}

/// A bound that the whole interval has to keep.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn text(self) -> String {
        match self {
            Bound::AtLeast(bound) => format!("≥ {bound}"),
            Bound::AtMost(bound) => format!("≤ {bound}"),
        }
    }

    fn verdict(self, interval: Interval) -> &'static str {
        let Some((low, high)) = interval.bounds else { return "undecided: too few pairs" };
        let (kept, broken) = match self {
            Bound::AtLeast(bound) => (low >= bound, high < bound),
            Bound::AtMost(bound) => (high <= bound, low > bound),
        };
        match (kept, broken) {
            (true, _) => "kept",
            (_, true) => "missed",
            _ => "undecided",
        }
    }
}

fn claims(run: &Run<'_>) -> Vec<String> {
    let mut rows = Vec::new();
    let mut claim = |cell: String, what: &str, bound: Bound, values: Vec<f64>| {
        let Some(interval) = Interval::of(values) else { return };
        let (promised, verdict) = (bound.text(), bound.verdict(interval));
        rows.push(format!("| {cell} | {what} | {promised} | {} | {verdict} |\n", interval.text()));
    };
    let pairs = |cell, theirs, value: fn(&Sample, &Sample) -> f64| -> Vec<f64> {
        let both = of(run.samples, cell, Contender::Portico).filter_map(|ours| {
            let theirs = of(run.samples, cell, theirs).find(|theirs| theirs.pair == ours.pair)?;
            Some(value(ours, theirs))
        });
        both.collect()
    };
    for cell in super::cells() {
        let name = cell.to_string();
        let with_fio = |value| pairs(cell, Contender::Fio, value);
        if cell.depth == 1 {
            let later = with_fio(|ours, fio| ours.p50_us - fio.p50_us);
            claim(name.clone(), "p50 less fio's, µs", Bound::AtMost(60.0), later);
        } else {
            let cpu = with_fio(|ours, fio| ours.cpu_us - fio.cpu_us);
            claim(name.clone(), "CPU per I/O less fio's, µs", Bound::AtMost(4.0), cpu);
            let iops = with_fio(|ours, fio| ours.iops / fio.iops);
            claim(name.clone(), "IOPS / fio's", Bound::AtLeast(0.85), iops);
        }
        let tgt = pairs(cell, Contender::Tgt, |ours, tgt| ours.iops / tgt.iops);
        claim(name, "IOPS / tgt's", Bound::AtLeast(1.0), tgt);
    }
    for direction in [Direction::Read, Direction::Write] {
        claim(
            format!("{}, {IMAGES} images / 1", direction.name()),
            "IOPS / fio's",
            Bound::AtLeast(1.0),
            scaling(run.samples, direction),
        );
    }
    for unit in ["ram", "image of another cluster"] {
        let of_unit = run.beside.iter().filter(|beside| beside.unit == unit);
        let kept = of_unit.map(|beside| beside.during / beside.before).collect();
        claim(unit.to_owned(), "rate while an OSD hangs / before", Bound::AtLeast(0.9), kept);
    }
    rows
}

/// What more images bring to the gateway, over what they bring to fio, in each pair.
fn scaling(samples: &[Sample], direction: Direction) -> Vec<f64> {
    let iops = |images, contender, pair| {
        let cell = Cell { direction, images, depth: 16 };
        of(samples, cell, contender).find(|sample| sample.pair == pair).map(|sample| sample.iops)
    };
    let gain = |contender, pair| Some(iops(IMAGES, contender, pair)? / iops(1, contender, pair)?);
    let last = samples.iter().map(|sample| sample.pair).max().unwrap_or(0);
    (0..=last)
        .filter_map(|pair| Some(gain(Contender::Portico, pair)? / gain(Contender::Fio, pair)?))
        .collect()
}

fn of(samples: &[Sample], cell: Cell, contender: Contender) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(move |sample| sample.cell == cell && sample.contender == contender)
}

fn picture(run: &Run<'_>, title: &str, unit: &str, value: fn(&Sample) -> f64) -> String {
    let mut groups = Vec::new();
    for cell in super::cells() {
        let spreads =
            Contender::ALL.map(|contender| Spread::of(of(run.samples, cell, contender).map(value).collect()));
        if spreads.iter().any(Option::is_some) {
            groups.push((cell.to_string(), spreads.to_vec()));
        }
    }
    let series = Contender::ALL.iter().map(Contender::to_string).collect();
    plot::bars(&Bars { title: title.to_owned(), unit: unit.to_owned(), series, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(images: u32, pair: u32, contender: Contender, iops: f64, cpu_us: f64) -> Sample {
        let cell = Cell { direction: Direction::Read, images, depth: 16 };
        Sample { cell, pair, contender, iops, cpu_us, p50_us: 100.0, p99_us: 200.0 }
    }

    fn run<'a>(arguments: &'a Arguments, samples: &'a [Sample], beside: &'a [Beside]) -> Run<'a> {
        Run { arguments, load: 0.0, skipped: &[], samples, beside }
    }

    fn arguments() -> Arguments {
        Arguments {
            only: Vec::new(),
            pairs: 6,
            seconds: 2,
            no_hang: false,
            to: None,
            anyway: false,
            list: false,
        }
    }

    #[test]
    fn what_was_promised_is_judged_by_the_whole_interval() {
        let mut samples = Vec::new();
        for pair in 0..6 {
            samples.push(sample(1, pair, Contender::Portico, 900.0, 53.0));
            samples.push(sample(1, pair, Contender::Fio, 1000.0, 50.0 - f64::from(pair % 2) * 2.0));
            samples.push(sample(8, pair, Contender::Portico, 450.0, 53.0));
            samples.push(sample(8, pair, Contender::Fio, 1000.0, 40.0));
        }
        let beside: Vec<Beside> =
            (0..6).map(|pair| Beside { unit: "ram", pair, before: 100.0, during: 95.0 }).collect();
        let arguments = arguments();
        let text = summary(&run(&arguments, &samples, &beside));
        let has = |row: &str| assert!(text.contains(row), "{row} is not in {text}");
        has("| rbd-4k-read-1x16 | IOPS / fio's | ≥ 0.85 | 0.900 [0.900, 0.900] | kept |");
        has("| rbd-4k-read-1x16 | CPU per I/O less fio's, µs | ≤ 4 | 4.00 [3.00, 5.00] | undecided |");
        has("| rbd-4k-read-8x16 | CPU per I/O less fio's, µs | ≤ 4 | 13.0 [13.0, 13.0] | missed |");
        has("| read, 8 images / 1 | IOPS / fio's | ≥ 1 | 0.500 [0.500, 0.500] | missed |");
        has("| ram | rate while an OSD hangs / before | ≥ 0.9 | 0.950 [0.950, 0.950] | kept |");
        has("| rbd-4k-read-1x16 | fio | 1000 (1000–1000) | 49.0 (48.0–50.0) |");
        assert!(!text.contains("tgt"), "nobody measured it");
    }

    #[test]
    fn each_measurement_is_a_line() {
        let samples = [sample(1, 0, Contender::Portico, 900.0, 53.0)];
        let beside = [Beside { unit: "ram", pair: 0, before: 100.0, during: 95.0 }];
        let arguments = arguments();
        let text = raw(&run(&arguments, &samples, &beside));
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().all(|line| line.split(',').count() == 7), "{text}");
        assert!(
            picture(&run(&arguments, &samples, &beside), "t", "µs", |sample| sample.iops)
                .contains("portico 900")
        );
    }
}
