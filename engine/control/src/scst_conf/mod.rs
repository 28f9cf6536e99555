//! Reads scst.conf, the configuration file of SCST, which our users bring along.
//!
//! A file that SCST reads completely loads with the same effect. Where SCST drops something without a word, this reader
//! refuses or warns, with line, column and a mend. It finds all faults of a file, not the first; it opens nothing that
//! the file names, needs no root, and changes nothing. Input is bounded, and no secret is ever shown.
//!
//! `lexer` makes words of lines, `syntax` statements of words, `meaning` a [`Configuration`] of statements, with `schema`
//! as the table of what there is, and `media` to tell one medium under two names; `render` shows a [`Diagnostic`], `summary`
//! what a file would serve; `write` goes the other way.

mod diagnostic;
mod lexer;
mod meaning;
mod media;
mod render;
pub mod schema;
mod summary;
mod syntax;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod write;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use portico_model::configuration::Configuration;

pub use diagnostic::{Code, DIAGNOSTICS_MAX, Diagnostic, Severity};
pub use lexer::LINE_LENGTH_BYTES_MAX;
pub use render::{Colour, render};
pub use summary::summarise;
pub use syntax::{NESTING_MAX, STATEMENTS_MAX};
pub use text::{Span, Text};
pub use value::{Fault, Kind, SIZE_BYTES_MAX};
pub use write::{Unwritable, write};

/// Bytes of a file.
pub const FILE_SIZE_BYTES_MAX: usize = 8 << 20;

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The text, which the spans of the diagnostics lie in.
    pub text: Text,
    /// What the file asks for; `None` if there was an error.
    pub configuration: Option<Configuration>,
    /// What is to be said about it, in the file's order; at most [`DIAGNOSTICS_MAX`] of each severity.
    pub diagnostics: Vec<Diagnostic>,
    /// How many errors there were, also those that are not in the list.
    pub errors: usize,
    /// How many warnings there were.
    pub warnings: usize,
    /// What was accepted and does nothing yet.
    pub not_in_effect: Vec<NotInEffect>,
}

/// Something that was accepted and does nothing yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotInEffect {
    /// The attribute, with its value unless that is a secret; or the section.
    pub what: String,
    /// What happens instead.
    pub instead: &'static str,
    /// What it stands in.
    pub place: String,
    /// Its line, from 1.
    pub line: u32,
}

/// Reads a file's bytes, and looks at nothing else. `name` stands in messages only.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    parse_with(name, bytes, media::unseen)
}

fn parse_with(name: &str, bytes: &[u8], look: media::Look) -> Parsed {
    let mut diagnostics = diagnostic::Diagnostics::default();
    let whole = bytes.len() <= FILE_SIZE_BYTES_MAX;
    let content = if whole { String::from_utf8_lossy(bytes).into_owned() } else { String::new() };
    let text = Text::new(name, content);
    if whole {
        report_not_utf8(bytes, &mut diagnostics);
    } else {
        let span = Span { line: 1, column: 1, length: 0 };
        let message = format!("the file has {} bytes, and may have {FILE_SIZE_BYTES_MAX}", bytes.len());
        diagnostics.push(Diagnostic::error(Code::TooLarge, span, message));
    }
    let statements = syntax::parse(&text, &mut diagnostics);
    if statements.is_empty() && diagnostics.errors() == 0 {
        let span = Span { line: 1, column: 1, length: 0 };
        let error = Diagnostic::error(Code::EmptyFile, span, "the file says nothing")
            .hint("an empty file is not taken as an order to remove everything");
        diagnostics.push(error);
    }
    let mut context = meaning::Context::new(&mut diagnostics, look);
    let configuration = meaning::configuration(&mut context, &statements);
    let not_in_effect = context.not_in_effect;
    let (errors, warnings) = (diagnostics.errors(), diagnostics.warnings());
    let mut diagnostics = diagnostics.into_sorted();
    if !diagnostics.is_empty() {
        let hidden = text::Hidden::of(&text);
        diagnostics.iter_mut().for_each(|diagnostic| hidden.mask(diagnostic));
    }
    Parsed {
        text,
        configuration: (errors == 0).then_some(configuration),
        diagnostics,
        errors,
        warnings,
        not_in_effect,
    }
}

/// The first bytes that are no UTF-8, and how many such places there are.
fn report_not_utf8(bytes: &[u8], diagnostics: &mut diagnostic::Diagnostics) {
    let mut bad = bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty());
    let Some(first) = bad.next() else { return };
    let valid = String::from_utf8_lossy(bytes);
    let before = &valid[..std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), |_| 0)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let start_of_text = if line_start == 0 && before.starts_with('\u{feff}') { 3 } else { line_start };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let span = Span {
        line: count(before.matches('\n').count()).saturating_add(1),
        column: count(before[start_of_text..].chars().count()).saturating_add(1),
        length: 1,
    };
    let others = bad.count();
    let byte = first.invalid()[0];
    let mut error = Diagnostic::error(Code::NotUtf8, span, format!("the byte 0x{byte:02x} is no UTF-8"));
    if others > 0 {
        error = error.label(format!("and {others} more such places"));
    }
    diagnostics.push(error.hint("save the file as UTF-8"));
}

/// Reads the file at a path, within bounds, and looks whether two of its devices name one medium.
///
/// # Errors
/// If it cannot be read.
pub fn load(path: &Path) -> io::Result<Parsed> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    let bound = u64::try_from(FILE_SIZE_BYTES_MAX + 1).expect("the bound of a file fits");
    file.take(bound).read_to_end(&mut bytes)?;
    Ok(parse_with(&path.to_string_lossy(), &bytes, media::seen))
}

impl Parsed {
    /// All diagnostics as text, with a last line that counts them.
    #[must_use]
    pub fn report(&self, colour: Colour) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            render(&mut out, &self.text, diagnostic, colour).expect("a String takes all text");
        }
        let hidden = self.errors + self.warnings - self.diagnostics.len();
        if hidden > 0 {
            out.push_str(&format!("… and {hidden} more that are not shown\n\n"));
        }
        out
    }

    /// What [`check`] answers.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.errors, self.warnings) {
            (0, 0) => Verdict::Sound,
            (0, warnings) => Verdict::Warned { warnings },
            (errors, warnings) => Verdict::Refused { errors, warnings },
        }
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to say.
    Sound,
    /// The file would be taken.
    Warned {
        /// How many warnings.
        warnings: usize,
    },
    /// The file would be refused.
    Refused {
        /// How many errors.
        errors: usize,
        /// How many warnings beside them.
        warnings: usize,
    },
    /// The file cannot be read.
    Unreadable,
}

impl Verdict {
    /// Whether the file would be taken: the exit status of a check.
    #[must_use]
    pub fn is_taken(self) -> bool {
        matches!(self, Self::Sound | Self::Warned { .. })
    }
}

/// `portico check FILE` and `porticod --check FILE`: says what is wrong with a file and what it would serve. Starts nothing.
///
/// # Errors
/// Only those of `out`. A file that cannot be read is a verdict.
pub fn check(path: &Path, out: &mut impl Write, colour: Colour) -> io::Result<Verdict> {
    let parsed = match load(path) {
        Ok(parsed) => parsed,
        Err(error) => {
            let name: String = path.to_string_lossy().chars().map(text::printable).collect();
            writeln!(out, "{name}: cannot be read: {error}")?;
            return Ok(Verdict::Unreadable);
        }
    };
    out.write_all(parsed.report(colour).as_bytes())?;
    out.write_all(summarise(&parsed).as_bytes())?;
    Ok(parsed.verdict())
}

/// A path without the steps that lead nowhere. Links are resolved when the device is opened.
pub(crate) fn plain_path(path: &str) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/').filter(|step| !step.is_empty() && *step != ".") {
        match step {
            ".." => drop(steps.pop()),
            _ => steps.push(step),
        }
    }
    steps.join("/")
}
