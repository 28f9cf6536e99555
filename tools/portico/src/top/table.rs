//! The table of figures, as text: one row for each operation that a unit has ever seen. For the screen and for pipes alike.

use std::fmt::Write as _;

use super::answer::{Answer, Lun, OPERATIONS, Unit};
use super::interval::Interval;
use crate::figures;

/// The columns.
pub(crate) const HEADINGS: [&str; 10] =
    ["DEVICE", "LUN", "OP", "IOPS", "BW/s", "P50", "P99", "P99.9", "IN FLIGHT", "ERRORS"];
/// The first column that holds figures, which stand to the right.
pub(crate) const FIRST_FIGURE: usize = 3;
/// Characters of a name that a table shows.
const NAME_CHARS_MAX: usize = 24;
/// LUN numbers that a table shows of one unit.
const NUMBERS_MAX: usize = 3;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The index of the unit.
    pub(crate) unit: usize,
    /// In the order of [`HEADINGS`]; what the row above has said of the same unit is empty.
    pub(crate) cells: [String; HEADINGS.len()],
    /// There were errors in this interval, or the unit cannot be used.
    pub(crate) alarming: bool,
}

/// All rows, in the order of the units.
pub(crate) fn rows(interval: &Interval) -> Vec<Row> {
    let units = interval.end.units.iter().enumerate();
    units.flat_map(|(index, unit)| unit_rows(interval, index, unit)).collect()
}

fn unit_rows(interval: &Interval, index: usize, unit: &Unit) -> Vec<Row> {
    let seen = (0..OPERATIONS.len()).filter(|operation| unit.operations[*operation].commands > 0);
    let mut rows: Vec<Row> = seen.map(|operation| operation_row(interval, index, operation)).collect();
    if rows.is_empty() {
        let mut cells = HEADINGS.map(|_| "-".to_owned());
        cells[9] = "0".to_owned();
        rows.push(Row { unit: index, cells, alarming: false });
    }
    let first = &mut rows[0];
    first.cells[0] = shortened(&unit.device);
    first.cells[1] = numbers(&unit.luns);
    first.cells[8] = unit.in_flight.to_string();
    first.alarming |= !unit.ready || unit.draining;
    rows
}

fn operation_row(interval: &Interval, index: usize, operation: usize) -> Row {
    let activity = &interval.activities[index][operation];
    let time = |per_100_000| activity.total().quantile(per_100_000).map_or("-".to_owned(), figures::time_ns);
    let cells = [
        String::new(),
        String::new(),
        OPERATIONS[operation].to_owned(),
        figures::count(interval.per_second(activity.commands)),
        figures::bytes(interval.per_second(activity.bytes)),
        time(50_000),
        time(99_000),
        time(99_900),
        String::new(),
        interval.end.units[index].operations[operation].errors.to_string(),
    ];
    Row { unit: index, cells, alarming: activity.errors > 0 }
}

fn shortened(name: &str) -> String {
    match name.chars().nth(NAME_CHARS_MAX) {
        None => name.to_owned(),
        Some(_) => name.chars().take(NAME_CHARS_MAX - 1).chain(['…']).collect(),
    }
}

fn numbers(luns: &[Lun]) -> String {
    if luns.is_empty() {
        return "-".to_owned();
    }
    let mut numbers: Vec<u16> = luns.iter().map(|lun| lun.lun).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let shown: Vec<String> = numbers.iter().take(NUMBERS_MAX).map(u16::to_string).collect();
    let more = if numbers.len() > NUMBERS_MAX { ",…" } else { "" };
    shown.join(",") + more
}

/// How many sessions each shard serves, in one line.
pub(crate) fn shards(answer: &Answer) -> String {
    let mut sessions = vec![0_u64; usize::try_from(answer.shards.min(SHARDS_MAX)).unwrap_or(0)];
    for session in &answer.sessions {
        if let Some(count) = sessions.get_mut(usize::from(session.shard)) {
            *count += 1;
        }
    }
    let mut line = "sessions on shards".to_owned();
    for (shard, count) in sessions.iter().enumerate() {
        write!(line, "  {shard}: {count}").expect("a String takes all text");
    }
    if answer.shards_late > 0 {
        write!(line, "  ({} late, their last figures are missing)", answer.shards_late)
            .expect("a String takes all text");
    }
    line
}

/// Shards that are shown.
const SHARDS_MAX: u32 = 256;

/// The whole table with its headings, for a pipe. Ends with a line feed.
pub(crate) fn plain(interval: &Interval) -> String {
    let rows = rows(interval);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.cells[column].chars().count());
        cells.max().unwrap_or(0).max(HEADINGS[column].chars().count())
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut out = String::new();
    line(&mut out, &widths, HEADINGS.iter().copied());
    for row in &rows {
        // Each row can be read by itself: what the row above says is said again.
        let first = rows.iter().find(|first| first.unit == row.unit).expect("a row is of its own unit");
        let mut cells = row.cells.each_ref().map(String::as_str);
        for column in [0, 1, 8] {
            cells[column] = &first.cells[column];
        }
        line(&mut out, &widths, cells.into_iter());
    }
    out.push_str(&shards(&interval.end));
    out.push('\n');
    out
}

fn line<'a>(out: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut text = String::new();
    for (column, (cell, &width)) in cells.zip(widths).enumerate() {
        let gap = if column == 0 { "" } else { "  " };
        let padding = " ".repeat(width - cell.chars().count());
        let (before, after) =
            if column < FIRST_FIGURE { ("", padding) } else { (padding.as_str(), String::new()) };
        write!(text, "{gap}{before}{cell}{after}").expect("a String takes all text");
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::answer;
    use super::*;

    fn interval() -> Interval {
        Interval::between(&answer(1_000_000_000, 200), answer(2_000_000_000, 25_200)).unwrap()
    }

    #[test]
    fn a_table_for_a_pipe_is_plain_text_with_a_row_for_each_operation() {
        assert_eq!(plain(&interval()), include_str!("golden/plain.txt"));
    }

    #[test]
    fn a_unit_that_never_saw_a_command_has_one_row() {
        let rows = rows(&interval());
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].cells[..4], ["disk2", "-", "-", "-"]);
        assert!(rows[1].alarming, "it is not ready");
    }

    #[test]
    fn long_names_and_many_luns_are_shortened() {
        assert_eq!(shortened(&"x".repeat(25)).chars().count(), NAME_CHARS_MAX);
        assert_eq!(shortened(&"x".repeat(24)), "x".repeat(24));
        let lun = |lun| Lun { lun, ..Lun::default() };
        assert_eq!(numbers(&[lun(3), lun(0), lun(3)]), "0,3");
        assert_eq!(numbers(&[4, 3, 2, 1].map(lun)), "1,2,3,…");
    }

    #[test]
    fn a_late_shard_is_told() {
        let mut answer = answer(1, 1);
        answer.shards_late = 1;
        assert_eq!(
            shards(&answer),
            "sessions on shards  0: 1  1: 1  (1 late, their last figures are missing)"
        );
    }
}
