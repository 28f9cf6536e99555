//! The run before: its raw numbers, read again, and what has changed since.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::super::sample::{COLUMNS, Sample};
use super::super::statistics::{Spread, number};
use super::{median, rows};
use crate::lab::{Context, Result};

/// IOPS and processor time of each cell's contenders in an earlier run.
#[derive(Debug)]
pub(in super::super) struct Before {
    name: String,
    values: BTreeMap<(String, String), Values>,
}

#[derive(Debug, Default)]
struct Values {
    iops: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// The latest record of this kind below `parent`: by its date, and among those of one day by the time of its file.
pub(super) fn latest(parent: &Path) -> Result<Option<Before>> {
    let Ok(entries) = fs::read_dir(parent) else { return Ok(None) };
    let mut records = Vec::new();
    for entry in entries {
        let entry = entry.context(parent.display())?;
        let Ok(text) = fs::read_to_string(entry.path().join("raw.csv")) else { continue };
        if text.lines().next() != Some(COLUMNS) {
            continue;
        }
        let written = fs::metadata(entry.path().join("raw.csv")).and_then(|file| file.modified());
        let name = entry.file_name().to_string_lossy().into_owned();
        let date: String = name.chars().take("2026-01-01".len()).collect();
        records.push((date, written.unwrap_or(SystemTime::UNIX_EPOCH), name, text));
    }
    Ok(records.into_iter().max().map(|(_, _, name, text)| Before { name, values: values(&text) }))
}

fn values(text: &str) -> BTreeMap<(String, String), Values> {
    let place = |column: &str| COLUMNS.split(',').position(|name| name == column).expect("a column of ours");
    let (iops, cpu_us) = (place("iops"), place("cpu_us_per_command"));
    let mut values: BTreeMap<(String, String), Values> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (Some(cell), Some(contender)) = (fields.first(), fields.get(2)) else { continue };
        let entry = values.entry(((*cell).to_owned(), (*contender).to_owned())).or_default();
        let parsed = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        entry.iops.extend(parsed(iops));
        entry.cpu_us.extend(parsed(cpu_us));
    }
    values
}

/// A table of what both runs have.
pub(super) fn write(text: &mut String, samples: &[Sample], before: Option<&Before>) -> std::fmt::Result {
    let Some(before) = before else {
        return writeln!(text, "\nThere is no run before this one to compare with.");
    };
    writeln!(
        text,
        "\n## Since the run before\n\n{}: medians now / then. Machines have moods: the floor's row tells today's.\n\n\
         | cell | target | IOPS | CPU µs per I/O |\n|---|---|---|---|",
        before.name
    )?;
    for (cell, contender) in rows(samples) {
        let Some(then) = before.values.get(&(cell.to_string(), contender.to_string())) else { continue };
        let change = |now: Option<f64>, then: &[f64]| {
            let then = Spread::of(then.to_vec()).map(|spread| spread.median);
            now.zip(then).map_or("–".to_owned(), |(now, then)| {
                format!("{} / {} = {}", number(now), number(then), number(now / then))
            })
        };
        let iops = change(median(samples, cell, contender, |sample| Some(sample.iops())), &then.iops);
        let cpu = change(median(samples, cell, contender, Sample::cpu_us), &then.cpu_us);
        writeln!(text, "| {cell} | {contender} | {iops} | {cpu} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::contender::Contender;
    use super::super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn the_latest_record_of_this_kind_is_compared_with() {
        let folder = tempfile::tempdir().unwrap();
        let keep = |name: &str, text: String| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("raw.csv"), text).unwrap();
        };
        let line = |commands| sample(0, Contender::Portico, commands, 1.0).line();
        keep("2026-01-02-x-aaaaaaa", format!("{COLUMNS}\n{}\n", line(100_000)));
        keep("2026-01-03-x-bbbbbbb", format!("{COLUMNS}\n{}\n{}\n", line(200_000), line(400_000)));
        keep("2026-01-04-x-ccccccc", "medium,sessions\nnull,1\n".to_owned());
        let before = latest(folder.path()).unwrap().unwrap();
        assert_eq!(before.name, "2026-01-03-x-bbbbbbb");
        let mut text = String::new();
        write(&mut text, &[sample(0, Contender::Portico, 600_000, 3.0)], Some(&before)).unwrap();
        assert!(text.contains("| portico | 300000 / 150000 = 2.00 | 5.00 / 3.75 = 1.33 |"), "{text}");
        let mut text = String::new();
        write(&mut text, &[], None).unwrap();
        assert!(text.contains("no run before"));
        assert!(latest(&folder.path().join("nowhere")).unwrap().is_none());
    }
}
