//! Which pictures a run makes: processor time beside the floor's, latency against throughput, scaling over cores.

use std::collections::BTreeMap;

use super::super::contender::Contender;
use super::super::matrix::Cell;
use super::super::plot::{self, Bars, Curve, Curves};
use super::super::sample::Sample;
use super::super::statistics::Spread;
use super::{median, of, rows};

/// Each with its file name.
pub(super) fn all(samples: &[Sample]) -> Vec<(String, String)> {
    let mut pictures = vec![("cpu-per-io.svg".to_owned(), plot::bars(&cpu(samples)))];
    pictures.extend(latencies(samples));
    if let Some(curves) = scaling(samples) {
        pictures.push(("scaling.svg".to_owned(), plot::curves(&curves)));
    }
    pictures
}

fn cpu(samples: &[Sample]) -> Bars {
    let mut contenders: Vec<Contender> = samples.iter().map(|sample| sample.contender).collect();
    contenders.sort_unstable();
    contenders.dedup();
    let mut groups: Vec<(String, Vec<Option<Spread>>)> = Vec::new();
    for (cell, contender) in rows(samples) {
        let name = cell.to_string();
        if groups.last().is_none_or(|(last, _)| *last != name) {
            groups.push((name, vec![None; contenders.len()]));
        }
        let at = contenders.iter().position(|other| *other == contender).expect("all are listed");
        let values = of(samples, cell, contender).filter_map(Sample::cpu_us).collect();
        groups.last_mut().expect("just pushed").1[at] = Spread::of(values);
    }
    groups.retain(|(_, spreads)| spreads.iter().any(Option::is_some));
    Bars {
        title: "processor time of the target for each I/O".to_owned(),
        unit: "µs".to_owned(),
        series: contenders.iter().map(Contender::to_string).collect(),
        groups,
    }
}

/// For each medium, size and direction: a curve for each contender, whose points are its depths and sessions.
fn latencies(samples: &[Sample]) -> Vec<(String, String)> {
    let mut families: BTreeMap<String, BTreeMap<Contender, Vec<(f64, f64)>>> = BTreeMap::new();
    for (cell, contender) in rows(samples) {
        if cell.is_paced {
            continue;
        }
        let iops = median(samples, cell, contender, |sample| Some(sample.iops()));
        let p99 = median(samples, cell, contender, |sample| sample.percentile_us(0.99));
        if let Some(point) = iops.zip(p99) {
            families.entry(family(cell)).or_default().entry(contender).or_default().push(point);
        }
    }
    let drawn = families.into_iter().map(|(name, contenders)| {
        let curves = contenders.into_iter().map(|(contender, mut points)| {
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            Curve { name: contender.to_string(), points }
        });
        let picture = plot::curves(&Curves {
            title: format!("{name}: p99 against throughput"),
            across: "I/Os per second".to_owned(),
            up: "p99, µs".to_owned(),
            curves: curves.collect(),
        });
        (format!("latency-{name}.svg"), picture)
    });
    drawn.collect()
}

/// A cell's name without sessions and depth.
fn family(cell: Cell) -> String {
    let name = cell.to_string();
    name.rsplit_once('-').map_or(name.clone(), |(family, _)| family.to_owned())
}

/// What more cores bring, where a cell was measured on one and on more.
fn scaling(samples: &[Sample]) -> Option<Curves> {
    let mut curves: BTreeMap<Cell, Vec<(f64, f64)>> = BTreeMap::new();
    for (cell, contender) in rows(samples) {
        let cores = match contender {
            Contender::Portico => 1,
            Contender::Shards(count) => count,
            _ => continue,
        };
        let iops = median(samples, cell, contender, |sample| Some(sample.iops()))?;
        curves.entry(cell).or_default().push((f64::from(cores), iops));
    }
    curves.retain(|cell, points| points.len() > 1 && !cell.is_paced);
    let curves: Vec<Curve> =
        curves.into_iter().map(|(cell, points)| Curve { name: cell.to_string(), points }).collect();
    (!curves.is_empty()).then(|| Curves {
        title: "scaling over cores".to_owned(),
        across: "cores of the gateway".to_owned(),
        up: "I/Os per second".to_owned(),
        curves,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::contender::FLOOR;
    use super::super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn a_run_is_drawn_with_what_it_has() {
        let mut samples = vec![sample(0, Contender::Portico, 100, 1.0), sample(0, FLOOR, 100, 1.0)];
        let names = |samples: &[Sample]| all(samples).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&samples), ["cpu-per-io.svg", "latency-null-4k-read.svg"]);
        samples.push(sample(0, Contender::Shards(2), 190, 1.0));
        assert_eq!(names(&samples).last().map(String::as_str), Some("scaling.svg"));
        let bars = cpu(&samples);
        assert_eq!(bars.series, ["portico", "portico-2-shards", "floor"]);
        assert!(bars.groups[0].1.iter().all(Option::is_some));
    }
}
