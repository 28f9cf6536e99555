//! Shows a diagnostic the way good compilers do: the line, marks below it, and the mend. Written by hand rather than with
//! a library because a line may hold a secret, which must be masked before anything else looks at it.

use std::fmt::{self, Write};

use super::diagnostic::{Diagnostic, Severity};
use super::text::{MASK, Span, Text, printable};

/// Whether the output may hold colours (ANSI escapes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Off,
    /// For a terminal.
    On,
}

/// Characters of one source line that are shown.
const SHOWN_MAX: usize = 120;
/// What a tab is shown as.
const TAB: &str = "    ";

/// Writes one diagnostic, ending with an empty line.
///
/// # Errors
/// Only those of `out`.
pub fn render(out: &mut impl Write, text: &Text, diagnostic: &Diagnostic, colour: Colour) -> fmt::Result {
    let paint = Paint(colour);
    let (word, tone) = match diagnostic.severity {
        Severity::Error => ("error", Tone::Error),
        Severity::Warning => ("warning", Tone::Warning),
    };
    let head = format!("{word}[{}]", diagnostic.code);
    writeln!(
        out,
        "{}{}",
        paint.of(tone, &head),
        paint.of(Tone::Strong, &format!(": {}", diagnostic.message))
    )?;

    let mut marks = vec![Mark { span: diagnostic.span, label: &diagnostic.label, primary: true }];
    let related = diagnostic.related.iter();
    marks.extend(related.map(|(span, label)| Mark { span: *span, label, primary: false }));
    marks.sort_by_key(|mark| (mark.span.line, !mark.primary, mark.span.column));

    let width = marks.iter().map(|mark| mark.span.line).max().unwrap_or(0).to_string().len();
    let (line, column) = (diagnostic.span.line, diagnostic.span.column);
    writeln!(out, "{:width$}{} {}:{line}:{column}", "", paint.of(Tone::Frame, "-->"), text.name())?;
    let bar = paint.of(Tone::Frame, "|");
    writeln!(out, "{:width$} {bar}", "")?;
    let mut last: Option<(u32, Shown)> = None;
    for mark in &marks {
        let shown = match last {
            Some((line, shown)) if line == mark.span.line => shown,
            _ => {
                if last.is_some_and(|(line, _)| line + 1 < mark.span.line) {
                    writeln!(out, "{}", paint.of(Tone::Frame, "..."))?;
                }
                let number = paint.of(Tone::Frame, &format!("{:>width$}", mark.span.line));
                let shown = Shown::of(text, mark.span);
                writeln!(out, "{number} {bar} {}", shown.text)?;
                shown
            }
        };
        let (start, length) = shown.place(mark.span);
        let sign = if mark.primary { "^" } else { "-" };
        let under = format!("{} {}", sign.repeat(length), mark.label);
        let tone = if mark.primary { tone } else { Tone::Frame };
        writeln!(out, "{:width$} {bar} {:start$}{}", "", "", paint.of(tone, under.trim_end()))?;
        last = Some((mark.span.line, shown));
    }
    if let Some(hint) = &diagnostic.hint {
        writeln!(out, "{:width$} {} {hint}", "", paint.of(Tone::Strong, "= help:"))?;
    }
    writeln!(out)
}

struct Mark<'a> {
    span: Span,
    label: &'a str,
    primary: bool,
}

/// A source line as it is shown, and where each of its characters stands in it.
struct Shown {
    text: String,
    /// The position of each character of the line in `text`, and the position behind the last.
    positions: Vec<usize>,
}

impl Shown {
    fn of(text: &Text, span: Span) -> Self {
        let number = usize::try_from(span.line).unwrap_or(usize::MAX);
        let line = text.line(number).expect("every span lies on a line of its text");
        let visible = text.shown_until(number).unwrap_or(usize::MAX);
        let column = usize::try_from(span.column).unwrap_or(usize::MAX).saturating_sub(1);
        // A long line is shown around the place that is spoken of.
        let from = if column < SHOWN_MAX { 0 } else { column - SHOWN_MAX / 2 };
        let mut shown = Self { text: String::new(), positions: Vec::new() };
        let mut width = 0;
        for (at, c) in line.chars().enumerate() {
            shown.positions.push(width);
            if at < from || at >= from + SHOWN_MAX || at >= visible {
                continue;
            }
            if c == '\t' {
                shown.text.push_str(TAB);
                width += TAB.len();
            } else {
                shown.text.push(printable(c));
                width += 1;
            }
        }
        shown.positions.push(width);
        if visible < line.chars().count() {
            shown.text = format!("{} {MASK}", shown.text);
        } else if line.chars().count() > from + SHOWN_MAX {
            shown.text.push('…');
        }
        shown
    }

    /// Where a span's marks begin, and how many there are: one at least.
    fn place(&self, span: Span) -> (usize, usize) {
        let last = self.positions.len() - 1;
        let start = usize::try_from(span.column.saturating_sub(1)).unwrap_or(last).min(last);
        let end = usize::try_from(span.length).map_or(last, |length| start.saturating_add(length)).min(last);
        (self.positions[start], (self.positions[end] - self.positions[start]).max(1))
    }
}

#[derive(Clone, Copy)]
enum Tone {
    Error,
    Warning,
    Strong,
    Frame,
}

struct Paint(Colour);

impl Paint {
    fn of(&self, tone: Tone, text: &str) -> String {
        let code = match (self.0, tone) {
            (Colour::Off, _) => return text.to_owned(),
            (Colour::On, Tone::Error) => "1;31",
            (Colour::On, Tone::Warning) => "1;33",
            (Colour::On, Tone::Strong) => "1",
            (Colour::On, Tone::Frame) => "1;34",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
