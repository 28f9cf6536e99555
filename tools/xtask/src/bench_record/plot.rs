//! A bar chart as SVG: one group of bars for each case, a whisker from the least to the most.

use std::fmt::{self, Write};

use super::record::Spread;

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
         <text x=\"{:.1}\" y=\"{:.1}\">{} {:.2}</text>",
        at(spread.least),
        at(spread.most),
        at(spread.most) + 6.0,
        middle + 4.5,
        escape(series),
        spread.median
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a handful")
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 10.0;
const ROW: f64 = 22.0;
const COLOURS: [&str; 3] = ["#2b6cb0", "#b7791f", "#718096"];

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
        // The longest whisker, to 10, spans the whole plot of 500.
        assert!(picture.contains("width=\"50.0\"") && picture.contains("width=\"250.0\""));
        assert!(picture.contains("M380.0 ") && picture.contains("H630.0"));
        assert_eq!(picture.matches("<rect").count(), 3);
    }
}
