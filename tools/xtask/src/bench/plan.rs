//! What is measured: rows of a cell and its contenders, as the command line asks.

use super::Arguments;
use super::contender::{self, Contender, FLOOR};
use super::matrix::{self, Cell, Direction, Media};
use crate::lab::{Failure, Result};

/// A cell, and who is measured in it.
pub(super) type Row = (Cell, Vec<Contender>);

/// What the arguments ask for.
pub(super) fn of(arguments: &Arguments) -> Result<Vec<Row>> {
    let all = |cells: Vec<Cell>| cells.into_iter().map(|cell| (cell, contender::of(cell))).collect();
    let mut plan: Vec<Row> = if arguments.claims {
        claims()
    } else if arguments.quick {
        all(QUICK.to_vec())
    } else if arguments.scaling {
        scaling(arguments.target_cores.len())
    } else if arguments.target.is_some() {
        let cells = matrix::of(Media::Given);
        all(cells.into_iter().filter(|cell| arguments.destroy || cell.direction == Direction::Read).collect())
    } else {
        all(matrix::all())
    };
    plan.retain(|(cell, _)| matrix::is_chosen(*cell, &arguments.only));
    if !arguments.against.is_empty() {
        for (_, contenders) in &mut plan {
            contenders.retain(|contender| {
                let name = contender.to_string();
                name == "portico" || arguments.against.contains(&name)
            });
        }
        plan.retain(|(_, contenders)| !contenders.is_empty());
    }
    if plan.is_empty() {
        return Err(Failure::new("no cell is left; `--list` names them"));
    }
    Ok(plan)
}

/// Without the contenders, and then without the cells, that are not possible here; and a line for each of those.
pub(super) fn possible(
    plan: Vec<Row>,
    obstacle: &dyn Fn(Contender) -> Option<&'static str>,
) -> (Vec<Row>, Vec<String>) {
    let mut skipped = Vec::new();
    let mut skip = |line: String| {
        if !skipped.contains(&line) {
            skipped.push(line);
        }
    };
    let mut possible = Vec::new();
    for (cell, mut contenders) in plan {
        if cell.media == Media::Loop && !crate::lab::is_root() {
            skip(format!("{cell}: needs root to set up a loop device"));
            continue;
        }
        contenders.retain(|contender| match obstacle(*contender) {
            Some(why) => {
                skip(format!("{contender}: {why}"));
                false
            }
            None => true,
        });
        if !contenders.is_empty() {
            possible.push((cell, contenders));
        }
    }
    (possible, skipped)
}

/// What the promised ratios are measured on; see `claims`.
pub(super) fn claims() -> Vec<Row> {
    use Contender::{Digests, Medium, Polling, Portico, Shards, Tgt, Unmeasured};
    let cell = Cell::new;
    let paced = Cell { is_paced: true, ..cell(Media::Null, 4, Direction::Read, 4, 64) };
    vec![
        (cell(Media::Null, 4, Direction::Read, 4, 64), vec![Portico, FLOOR, Tgt, Unmeasured]),
        // The floors show how far the generator goes where the target has next to nothing to do.
        (cell(Media::Ram, 4, Direction::Read, 4, 64), vec![Portico, FLOOR, Tgt, Digests]),
        (cell(Media::Ram, 4, Direction::Write, 4, 64), vec![Portico, FLOOR, Tgt]),
        (cell(Media::Null, 4, Direction::Read, 1, 1), vec![Polling, Contender::Floor { polls: true }]),
        (cell(Media::Ram, 128, Direction::Read, 1, 8), vec![Portico, FLOOR]),
        (cell(Media::Ram, 128, Direction::Write, 1, 8), vec![Portico, FLOOR]),
        (cell(Media::File, 4, Direction::Read, 1, 32), vec![Portico, Medium]),
        (paced, vec![Portico, Shards(2)]),
    ]
}

fn scaling(cores: usize) -> Vec<Row> {
    let cores = u32::try_from(cores.max(2)).expect("processors are few");
    let mut contenders = vec![Contender::Portico];
    contenders.extend((2..=cores).map(Contender::Shards));
    vec![(Cell::new(Media::Null, 4, Direction::Read, 16, 64), contenders)]
}

const QUICK: [Cell; 4] = [
    Cell::new(Media::Null, 4, Direction::Read, 4, 64),
    Cell::new(Media::Null, 4, Direction::Read, 1, 1),
    Cell::new(Media::Ram, 128, Direction::Mixed, 4, 8),
    Cell::new(Media::File, 4, Direction::Read, 1, 32),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_is_named_once_and_the_rest_stays() {
        let plan =
            vec![(QUICK[0], vec![Contender::Portico, Contender::Tgt]), (QUICK[1], vec![Contender::Tgt])];
        let (plan, skipped) = possible(plan, &|contender| (contender == Contender::Tgt).then_some("is away"));
        assert_eq!(plan, [(QUICK[0], vec![Contender::Portico])]);
        assert_eq!(skipped, ["tgt: is away"]);
    }

    #[test]
    fn the_matrix_compares_with_all_floors_where_there_is_no_medium() {
        let names = |cell| contender::of(cell).iter().map(Contender::to_string).collect::<Vec<_>>();
        assert_eq!(names(QUICK[0]), ["portico", "tgt", "floor", "epoll", "glommio"]);
        assert_eq!(names(QUICK[3]), ["portico", "tgt", "medium"]);
        assert!(names(QUICK[1]).contains(&"floor-poll".to_owned()));
    }
}
