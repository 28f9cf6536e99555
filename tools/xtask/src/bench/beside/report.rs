//! The record: what was run on what, each pair, medians and what was promised of them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::generator::{Figures, has_priority};
use super::{Arguments, Found, Pair, Scene};
use crate::bench::report::{processor, said, slug};
use crate::bench::statistics::{Interval, Spread};
use crate::lab::{Context, Failure, Result};
use crate::tree::Tree;

/// What was promised of a scene's pairs.
struct Promise {
    what: &'static str,
    of: fn(&Figures) -> f64,
    bound: f64,
    /// Whether the ratio may not be larger; else it may not be smaller.
    at_most: bool,
}

fn promise(scene: Scene) -> Promise {
    match scene {
        Scene::Idle => {
            Promise { what: "CPU per I/O", of: |figures| figures.cpu_us, bound: 1.1, at_most: true }
        }
        Scene::Stream => Promise { what: "p99", of: |figures| figures.p99_us, bound: 3.0, at_most: true },
        Scene::Hostile | Scene::Atomic => {
            Promise { what: "rate", of: |figures| figures.iops, bound: 0.9, at_most: false }
        }
    }
}

/// Makes the folder; its path.
pub(super) fn write(
    tree: &Tree,
    parent: &Path,
    found: &Found,
    arguments: &Arguments,
    load: f64,
) -> Result<PathBuf> {
    let commit = said(tree, "git", &["rev-parse", "--short", "HEAD"])?;
    let date = said(tree, "date", &["-u", "+%Y-%m-%d"])?;
    let processor = processor()?;
    let name = format!("{date}-beside-{}-{commit}", slug(&processor));
    let names = std::iter::once(name.clone()).chain((2..100).map(|number| format!("{name}-{number}")));
    let mut folders = names.map(|name| parent.join(name));
    let folder = folders.find(|folder| !folder.exists()).ok_or_else(|| Failure::new("a hundred records"))?;
    fs::create_dir_all(&folder).context(folder.display())?;
    let keep = |name: &str, text: String| fs::write(folder.join(name), text).context(name);
    keep("README.md", readme(tree, arguments, load, [&date, &commit, &processor])?)?;
    keep("raw.csv", raw(&found.pairs))?;
    keep("summary.md", summary(found))?;
    Ok(folder)
}

fn readme(
    tree: &Tree,
    arguments: &Arguments,
    load: f64,
    [date, commit, processor]: [&str; 3],
) -> Result<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_dirty = !said(tree, "git", &["status", "--porcelain"])?.is_empty();
    let dirty = if is_dirty { ", with changes that are not committed" } else { "" };
    let (kernel, compiler) = (said(tree, "uname", &["-srm"])?, said(tree, "rustc", &["--version"])?);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let first = if has_priority() {
        "comes before all else on its processor (SCHED_FIFO)"
    } else {
        "shares its processor with the others' ends"
    };
    Ok(format!(
        "# Beside others\n\n\
         ```\ncargo xtask {}\n```\n\n\
         | | |\n|---|---|\n\
         | date | {date} |\n| portico | {commit}{dirty} |\n\
         | kernel | {kernel} |\n| processor | {processor}, {cores} of them |\n| compiler | {compiler} |\n\
         | load before | {load} |\n\n\
         {} pairs, each measurement {} s after a warm-up, over loopback TCP. The gateway has one shard, on processor 0; the measured\n\
         load runs on processor 1 and {first}. Disks are memory, written before. Alone and beside change\n\
         places every second pair. `raw.csv` has each measurement, `summary.md` medians, ratios pair by pair, and what is no pair.\n",
        words.join(" "),
        arguments.pairs,
        arguments.seconds,
    ))
}

fn raw(pairs: &[Pair]) -> String {
    let mut text = "scene,row,pair,when,iops,cpu_us_per_command,p50_us,p99_us,p99_9_us\n".to_owned();
    for Pair { scene, row, pair, alone, beside } in pairs {
        for (when, figures) in [("alone", alone), ("beside", beside)] {
            let Figures { iops, cpu_us, p50_us, p99_us, p99_9_us } = figures;
            let row = row.replace(',', "");
            writeln!(
                text,
                "{},{row},{pair},{when},{iops:.0},{cpu_us:.4},{p50_us:.2},{p99_us:.2},{p99_9_us:.2}",
                scene.name()
            )
            .expect("a String takes all text");
        }
    }
    text
}

fn summary(found: &Found) -> String {
    let mut text = String::new();
    if !found.pairs.is_empty() {
        text.push_str(
            "## Alone and beside others\n\nMedians; ratios are of what is beside others to what is alone, pair by pair.\n\n\
             | load | IOPS alone | beside | CPU µs per I/O alone | beside | p50 µs alone | beside | p99 µs alone | beside | \
             promised | ratio | |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
    }
    for (scene, row) in rows(found) {
        let of = |value: fn(&Figures) -> f64| {
            let pairs = found.pairs.iter().filter(|pair| pair.scene == scene && pair.row == row);
            let (alone, beside) = pairs.map(|pair| (value(&pair.alone), value(&pair.beside))).unzip();
            let median = |values| Spread::of(values).map_or(0.0, |spread| spread.median);
            let number = crate::bench::statistics::number;
            format!("{} | {}", number(median(alone)), number(median(beside)))
        };
        let Promise { what, bound, at_most, .. } = promise(scene);
        let ratio = ratio(found, scene, row);
        let sign = if at_most { "≤" } else { "≥" };
        writeln!(
            text,
            "| {row} | {} | {} | {} | {} | {what} {sign} {bound} × | {} | {} |",
            of(|figures| figures.iops),
            of(|figures| figures.cpu_us),
            of(|figures| figures.p50_us),
            of(|figures| figures.p99_us),
            ratio.map_or("–".to_owned(), Interval::text),
            ratio.map_or("", |ratio| verdict(&promise(scene), ratio)),
        )
        .expect("a String takes all text");
    }
    for (title, told) in &found.told {
        write!(text, "\n## {title}\n\n{told}").expect("a String takes all text");
    }
    text
}

/// Whether a promise was missed, by the whole interval.
pub(super) fn is_missed(found: &Found) -> bool {
    rows(found).into_iter().any(|(scene, row)| {
        ratio(found, scene, row).is_some_and(|ratio| verdict(&promise(scene), ratio) == "missed")
    })
}

fn rows(found: &Found) -> Vec<(Scene, &str)> {
    let mut rows: Vec<(Scene, &str)> = Vec::new();
    for pair in &found.pairs {
        let row = (pair.scene, pair.row.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows
}

fn ratio(found: &Found, scene: Scene, row: &str) -> Option<Interval> {
    let of = promise(scene).of;
    let pairs = found.pairs.iter().filter(|pair| pair.scene == scene && pair.row == row);
    Interval::of(pairs.map(|pair| of(&pair.beside) / of(&pair.alone)).collect())
}

fn verdict(promise: &Promise, ratio: Interval) -> &'static str {
    let Some((low, high)) = ratio.bounds else { return "undecided: too few pairs" };
    let (worst, best) = if promise.at_most { (-high, -low) } else { (low, high) };
    let bound = if promise.at_most { -promise.bound } else { promise.bound };
    if worst >= bound {
        "reached"
    } else if best < bound {
        "missed"
    } else {
        "undecided"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(scene: Scene, number: u32, alone: f64, beside: f64) -> Pair {
        let figures =
            |value| Figures { iops: value, cpu_us: value, p50_us: value, p99_us: value, p99_9_us: value };
        Pair { scene, row: "a, b".to_owned(), pair: number, alone: figures(alone), beside: figures(beside) }
    }

    fn found(scene: Scene, beside: f64) -> Found {
        let pairs = (0..10).map(|number| pair(scene, number, 100.0, beside + f64::from(number))).collect();
        Found { pairs, told: Vec::new() }
    }

    #[test]
    fn a_promise_of_latency_is_missed_above_its_bound_and_one_of_rate_below() {
        for (scene, beside, missed) in [
            (Scene::Stream, 250.0, false),
            (Scene::Stream, 310.0, true),
            (Scene::Hostile, 95.0, false),
            (Scene::Hostile, 70.0, true),
            (Scene::Idle, 100.0, false),
            (Scene::Idle, 120.0, true),
        ] {
            assert_eq!(is_missed(&found(scene, beside)), missed, "{scene:?} {beside}");
        }
    }

    #[test]
    fn a_row_has_its_medians_and_its_ratio() {
        let text = summary(&found(Scene::Stream, 200.0));
        assert!(text.contains("| a, b | 100 | 204 | 100 | 204 |"), "{text}");
        assert!(text.contains("| p99 ≤ 3 × | 2.04 [2.01, 2.08] | reached |"), "{text}");
        let raw = raw(&found(Scene::Stream, 200.0).pairs);
        assert_eq!(raw.lines().count(), 21);
        assert!(raw.contains("stream,a b,0,alone,100,100.0000,"), "{raw}");
    }
}
