//! Charts as SVG: bars, a group for each case, with whiskers from the least to the most; and curves through points.

use std::fmt::{self, Write};

use super::statistics::{Spread, number};

/// What is drawn.
#[derive(Clone, Debug)]
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) unit: String,
    /// The names of a group's bars.
    pub(super) series: Vec<String>,
    /// Each with a bar for each of the series, or a gap.
    pub(super) groups: Vec<(String, Vec<Option<Spread>>)>,
}

/// The whole file.
pub(super) fn bars(bars: &Bars) -> String {
    let mut text = String::new();
    draw(&mut text, bars).expect("a String takes all text");
    text
}

fn draw(out: &mut String, bars: &Bars) -> fmt::Result {
    let rows = f64::from(count(bars.groups.len()) * (count(bars.series.len()) + 1));
    let height = TOP + rows * ROW + BOTTOM;
    let most = bars.groups.iter().flat_map(|(_, spreads)| spreads).flatten().map(|spread| spread.most);
    let end = most.fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / end;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">"
    )?;
    writeln!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>")?;
    writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{} ({})</text>",
        escape(&bars.title),
        escape(&bars.unit)
    )?;
    let mut y = TOP;
    for (name, spreads) in &bars.groups {
        writeln!(
            out,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + ROW,
            escape(name)
        )?;
        for ((series, spread), colour) in bars.series.iter().zip(spreads).zip(COLOURS.iter().cycle()) {
            if let Some(spread) = spread {
                bar(out, y, scale, series, *spread, colour)?;
            }
            y += ROW;
        }
        y += ROW;
    }
    writeln!(out, "</svg>")
}

fn bar(out: &mut String, y: f64, scale: f64, series: &str, spread: Spread, colour: &str) -> fmt::Result {
    let at = |value: f64| LEFT + value * scale;
    let (top, middle) = (y + 3.0, y + ROW / 2.0);
    let (width, thick) = (spread.median * scale, ROW - 6.0);
    writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{thick:.1}\" fill=\"{colour}\"/>\n\
         <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"black\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{} {}</text>",
        at(spread.least),
        at(spread.most),
        at(spread.most) + 6.0,
        middle + 4.5,
        escape(series),
        number(spread.median)
    )
}

/// Points with a line through them.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    /// In the order in which the line goes through them.
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves on common axes, which begin at 0.
#[derive(Clone, Debug)]
pub(super) struct Curves {
    pub(super) title: String,
    pub(super) across: String,
    pub(super) up: String,
    pub(super) curves: Vec<Curve>,
}

/// The whole file.
pub(super) fn curves(curves: &Curves) -> String {
    let mut text = String::new();
    draw_curves(&mut text, curves).expect("a String takes all text");
    text
}

fn draw_curves(out: &mut String, curves: &Curves) -> fmt::Result {
    let height = TOP + PLOT + AXIS;
    let points = || curves.curves.iter().flat_map(|curve| &curve.points);
    let end = |value: fn(&(f64, f64)) -> f64| points().map(value).fold(f64::MIN_POSITIVE, f64::max);
    let (across, up) = (end(|point| point.0), end(|point| point.1));
    let at = |&(x, y): &(f64, f64)| (LEFT + x / across * (WIDTH - LEFT - RIGHT), TOP + PLOT - y / up * PLOT);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n\
         <path d=\"M{LEFT} {TOP}V{}H{}\" stroke=\"black\" fill=\"none\"/>",
        escape(&curves.title),
        TOP + PLOT,
        WIDTH - RIGHT
    )?;
    for (share, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let ((x, _), (_, y)) = (at(&(share * across, 0.0)), at(&(0.0, share * up)));
        writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            TOP + PLOT + 18.0,
            number(share * across),
            LEFT - 8.0,
            y + 4.5,
            number(share * up)
        )?;
    }
    writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n<text x=\"8\" y=\"{:.1}\">{}</text>",
        TOP + PLOT + 36.0,
        escape(&curves.across),
        TOP + PLOT / 4.0,
        escape(&curves.up)
    )?;
    let mut legend = TOP;
    for (curve, colour) in curves.curves.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<(f64, f64)> = curve.points.iter().map(at).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(out, "<polyline points=\"{}\" stroke=\"{colour}\" fill=\"none\"/>", path.join(" "))?;
        for (x, y) in places {
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")?;
        }
        let x = WIDTH - RIGHT + 12.0;
        writeln!(out, "<text x=\"{x}\" y=\"{legend}\" fill=\"{colour}\">{}</text>", escape(&curve.name))?;
        legend += 18.0;
    }
    writeln!(out, "</svg>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a handful")
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 10.0;
const ROW: f64 = 22.0;
const PLOT: f64 = 320.0;
const AXIS: f64 = 50.0;
const COLOURS: [&str; 8] =
    ["#2b6cb0", "#b7791f", "#718096", "#2f855a", "#c53030", "#6b46c1", "#b83280", "#1a202c"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_length_its_whisker_and_its_number() {
        let spread = |median| Some(Spread { median, least: median, most: 2.0 * median });
        let picture = bars(&Bars {
            title: "a < b".to_owned(),
            unit: "µs".to_owned(),
            series: vec!["x".to_owned(), "y".to_owned()],
            groups: vec![
                ("one".to_owned(), vec![spread(1.0), spread(5.0)]),
                ("two".to_owned(), vec![None, None]),
            ],
        });
        assert!(picture.contains("a &lt; b (µs)"));
        // The longest whisker, to 10, spans the whole plot of 440.
        assert!(picture.contains("width=\"44.0\"") && picture.contains("width=\"220.0\""));
        assert!(picture.contains("M390.0 ") && picture.contains("H610.0"));
        assert_eq!(picture.matches("<rect").count(), 3);
    }

    #[test]
    fn curves_go_through_their_points_on_axes_that_begin_at_nothing() {
        let curve =
            |name: &str, points: &[(f64, f64)]| Curve { name: name.to_owned(), points: points.to_vec() };
        let picture = curves(&Curves {
            title: "t".to_owned(),
            across: "x".to_owned(),
            up: "y".to_owned(),
            curves: vec![curve("a", &[(0.0, 0.0), (50.0, 1.0)]), curve("b", &[(100.0, 2.0)])],
        });
        assert!(picture.contains("points=\"170.0,360.0 390.0,200.0\""), "{picture}");
        assert!(picture.contains("points=\"610.0,40.0\""));
        assert_eq!(picture.matches("<circle").count(), 3);
    }
}
