//! The cells of the matrix, each with its name: medium, block size, direction, sessions × queue depth.

use std::fmt;

/// What a unit keeps its data on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Media {
    Null,
    Ram,
    /// Past the page cache.
    File,
    Loop,
    /// A target that the caller has named.
    Given,
}

impl Media {
    const ALL: [Media; 4] = [Media::Null, Media::Ram, Media::File, Media::Loop];

    fn name(self) -> &'static str {
        match self {
            Media::Null => "null",
            Media::Ram => "ram",
            Media::File => "file",
            Media::Loop => "loop",
            Media::Given => "given",
        }
    }
}

/// What the commands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Read,
    Write,
    /// 70 reads out of 100.
    Mixed,
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Read, Direction::Write, Direction::Mixed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::Read => "read",
            Direction::Write => "write",
            Direction::Mixed => "mixed",
        }
    }

    /// What portico-load calls it.
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Direction::Read => "randread",
            Direction::Write => "randwrite",
            Direction::Mixed => "randrw",
        }
    }
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) media: Media,
    pub(super) kib: u32,
    pub(super) direction: Direction,
    pub(super) sessions: u32,
    pub(super) depth: u32,
    /// The open loop, at half of what one core of the gateway does in the cell without this.
    pub(super) is_paced: bool,
}

impl Cell {
    pub(super) const fn new(media: Media, kib: u32, direction: Direction, sessions: u32, depth: u32) -> Cell {
        Cell { media, kib, direction, sessions, depth, is_paced: false }
    }

    /// Whether there is one command at a time in all.
    pub(super) fn is_single(self) -> bool {
        self.sessions == 1 && self.depth == 1
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { kib, sessions, depth, .. } = self;
        write!(out, "{}-{kib}k-{}-{sessions}x{depth}", self.media.name(), self.direction.name())?;
        if self.is_paced { out.write_str("-paced") } else { Ok(()) }
    }
}

/// All cells of the usual media.
pub(super) fn all() -> Vec<Cell> {
    Media::ALL.into_iter().flat_map(of).collect()
}

/// All cells of a medium.
pub(super) fn of(media: Media) -> Vec<Cell> {
    let mut cells = Vec::new();
    for kib in [4, 128] {
        for direction in Direction::ALL {
            for sessions in [1, 4, 16] {
                for depth in [1, 8, 32, 64] {
                    cells.push(Cell::new(media, kib, direction, sessions, depth));
                }
            }
        }
    }
    cells
}

/// Whether a cell's name has one of the patterns in it, in which `*` stands for anything; all do where there is none.
pub(super) fn is_chosen(cell: Cell, patterns: &[String]) -> bool {
    let name = cell.to_string();
    patterns.is_empty() || patterns.iter().any(|pattern| matches(&name, pattern))
}

fn matches(name: &str, pattern: &str) -> bool {
    let mut rest = name;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_all_cells_once_and_each_has_a_name_of_its_own() {
        let cells = all();
        assert_eq!(cells.len(), 4 * 2 * 3 * 12);
        let mut names: Vec<String> = cells.iter().map(Cell::to_string).collect();
        assert!(names.contains(&"null-4k-read-4x64".to_owned()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cells.len());
    }

    #[test]
    fn a_pattern_chooses_by_parts_of_a_name() {
        let count = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            all().into_iter().filter(|cell| is_chosen(*cell, &patterns)).count()
        };
        assert_eq!(count(&[]), 288);
        assert_eq!(count(&["null-4k-read-4x64"]), 1);
        assert_eq!(count(&["null-4k-read-1x", "ram-128k*x8"]), 4 + 9);
        assert_eq!(count(&["read*null"]), 0);
    }
}
