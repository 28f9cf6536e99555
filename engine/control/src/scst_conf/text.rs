//! The text of a file: its lines, places in it, and how a line may be shown without giving a secret away.

use std::collections::HashSet;

use super::diagnostic::{Diagnostic, distance};

/// A place in a file: part of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Span {
    /// The line, from 1.
    pub line: u32,
    /// The first character in its line, from 1. A tab is one character.
    pub column: u32,
    /// How many characters; 0 is a point between two.
    pub length: u32,
}

/// What a secret is shown as.
pub(super) const MASK: &str = "********";

/// Blank lines that a secret may slip over and still be hidden.
const BLANK_LINES_MAX: usize = 16;

/// A file's text, as far as it was UTF-8, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    name: String,
    text: String,
    /// Where each line begins, in bytes, and where the last one ends.
    starts: Vec<usize>,
}

impl Text {
    pub(super) fn new(name: &str, text: String) -> Self {
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(first).chain(ends).chain([text.len() + 1]).collect();
        Self { name: name.chars().map(printable).collect(), text, starts }
    }

    /// The file's name, fit for printing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many lines there are: one at least.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The line of that number, from 1, without its end.
    pub(super) fn line(&self, number: usize) -> Option<&str> {
        let (start, end) = (*self.starts.get(number.checked_sub(1)?)?, *self.starts.get(number)?);
        let line = &self.text[start..end - 1];
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// The lines, without their ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        (1..=self.line_count()).filter_map(|number| self.line(number))
    }

    /// How far that line may be shown; `None` is all of it. See [`shown_until`].
    pub(super) fn shown_until(&self, number: usize) -> Option<usize> {
        let above = (1..number).rev().take(BLANK_LINES_MAX).filter_map(|number| self.line(number));
        let before = above.into_iter().find(|line| !line.trim().is_empty());
        shown_until(self.line(number)?, before.unwrap_or_default())
    }
}

/// The words of the parts of a text that may not be shown: what a message must not quote.
pub(super) struct Hidden(HashSet<String>);

impl Hidden {
    pub(super) fn of(text: &Text) -> Self {
        let mut words = HashSet::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.is_empty()) {
            if let Some(shown) = text.shown_until(number) {
                let rest: String = line.chars().skip(shown).collect();
                words.extend(rest.split_whitespace().map(bare).filter(|word| is_telling(word)));
            }
        }
        Self(words)
    }

    /// Takes hidden words out of all that a diagnostic quotes.
    pub(super) fn mask(&self, diagnostic: &mut Diagnostic) {
        if self.0.is_empty() {
            return;
        }
        let related = diagnostic.related.iter_mut().map(|(_, label)| label);
        let texts = [&mut diagnostic.message, &mut diagnostic.label].into_iter();
        for text in texts.chain(&mut diagnostic.hint).chain(related) {
            // What stands between backticks has odd places, for messages hold no other backticks than their own.
            let parts = text.split('`').enumerate().map(|(at, part)| {
                let hidden = at % 2 == 1 && part.split_whitespace().any(|word| self.0.contains(&bare(word)));
                if hidden { MASK } else { part }
            });
            *text = parts.collect::<Vec<_>>().join("`");
        }
    }
}

/// A word without escapes and quotes, so that its spellings compare equal.
fn bare(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '\\' | '"' | '#' | '{' | '}' | '`')).collect()
}

/// Whether a word is worth hiding: not a name of ours, nor so short that every message holds it.
fn is_telling(word: &str) -> bool {
    let ours = super::schema::ATTRIBUTES.iter().any(|row| row.name == word)
        || super::syntax::KEYWORDS.contains(&word);
    word.len() > 3 && !ours
}

/// How far a line may be shown: the number of its characters before the first that may belong to a secret.
///
/// `before` is the last line above it that is not blank: a secret may have slipped onto the next line.
fn shown_until(line: &str, before: &str) -> Option<usize> {
    let ends_with_keyword = before.split_whitespace().next_back().is_some_and(may_hold_secret);
    if ends_with_keyword {
        return Some(0);
    }
    let mut words = words_with_ends(line).skip_while(|(word, _)| !may_hold_secret(word));
    let (keyword, keyword_end) = words.next()?;
    if is_glued_to_more(keyword) {
        return Some(keyword_end - keyword.chars().count());
    }
    // The user's name may be shown if a secret follows it: a word that stands alone may be both, glued together.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match (words.next(), words.next()) {
        (Some((user, end)), Some((secret, _)))
            if user.strip_prefix('"').unwrap_or(user).chars().all(plain) && !secret.starts_with('#') =>
        {
            Some(end)
        }
        _ => Some(keyword_end),
    }
}

/// Whether a word is IncomingUser or OutgoingUser, or was meant to be, or holds one of them.
pub(super) fn may_hold_secret(word: &str) -> bool {
    let lower = word.to_lowercase();
    let near = |keyword: &str| {
        lower.contains(keyword)
            || (lower.len().abs_diff(keyword.len()) <= 3 && distance(&lower, keyword) <= 3)
    };
    lower.contains("user") && lower.contains("ing") || near("incominguser") || near("outgoinguser")
}

/// Whether a word that [`may_hold_secret`] is longer than its keyword: the rest of it may be the secret.
pub(super) fn is_glued_to_more(word: &str) -> bool {
    const LENGTH_WITH_SLIPS_MAX: usize = "\"IncomingUser".len() + 3;
    word.chars().count() > LENGTH_WITH_SLIPS_MAX
}

/// A character as it is printed: one that a terminal would obey becomes U+FFFD.
pub(super) fn printable(c: char) -> char {
    let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    if (c.is_control() && c != '\t') || reorders { '\u{fffd}' } else { c }
}

/// The words of a line between blanks, each with the number of characters up to its end.
fn words_with_ends(line: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut at = 0;
    line.split([' ', '\t']).filter_map(move |word| {
        at += word.chars().count();
        let end = at;
        at += 1;
        (!word.is_empty()).then_some((word, end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        line.chars().take(shown_until(line, "").unwrap_or(usize::MAX)).collect()
    }

    #[test]
    fn a_line_with_a_secret_is_shown_up_to_the_users_name() {
        assert_eq!(shown("  IncomingUser \"joe opensesame\""), "  IncomingUser \"joe");
        assert_eq!(shown("IncomingUser joe opensesame # opensesame"), "IncomingUser joe");
        assert_eq!(shown("TARGET t { OutgoingUser \"joe a\" }"), "TARGET t { OutgoingUser \"joe");
        assert_eq!(shown("IncommingUser1 joe a"), "IncommingUser1 joe");
        assert_eq!(shown("incoming_user joe a"), "incoming_user joe");
        assert_eq!(shown("filename /srv/user.img"), "filename /srv/user.img");
    }

    #[test]
    fn a_secret_that_is_glued_to_its_user_is_not_shown() {
        assert_eq!(shown("IncomingUser joe#opensesame"), "IncomingUser");
        assert_eq!(shown("IncomingUser \"opensesame\""), "IncomingUser");
        assert_eq!(shown("IncomingUser joe:opensesame # c"), "IncomingUser");
        assert_eq!(shown("  IncomingUser:joe:opensesame"), "  ");
        assert_eq!(shown("IncomingUser joe\u{a0}opensesame # c"), "IncomingUser");
        assert_eq!(shown("\"IncomingUser joe opensesame\""), "\"IncomingUser joe");
    }

    #[test]
    fn a_secret_on_the_line_after_its_keyword_is_not_shown() {
        assert_eq!(shown_until("  \"joe opensesame\"", "  IncomingUser"), Some(0));
        assert_eq!(shown_until("enabled 1", "IncomingUser joe opensesame"), None);
    }
}
