//! What is wrong with a file, or looks wrong: where, what, and how to mend it. Shown by `render`.
//!
//! A diagnostic never holds a secret: messages quote words only through [`quoted`], and no checker of a value that
//! may be a secret quotes at all.

use std::fmt;

use super::text::{MASK, Span, is_glued_to_more, may_hold_secret};

/// Errors that are kept, and warnings that are kept; the rest is counted.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Bytes of one character.
const CHARACTER_BYTES_MAX: usize = 4;

/// Characters of a word that a message quotes.
const QUOTED_MAX: usize = 64;

/// Whether the file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused as a whole.
    Error,
    /// The file is taken, and does perhaps not do what was meant.
    Warning,
}

/// Something to be said about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// Its kind, for scripts and for tests.
    pub code: Code,
    /// The place.
    pub span: Span,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What is said at the place itself; may be empty.
    pub label: String,
    /// Other places that belong to it.
    pub related: Vec<(Span, String)>,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(super) fn error(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span, message.into())
    }

    pub(super) fn warning(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span, message.into())
    }

    fn new(severity: Severity, code: Code, span: Span, message: String) -> Self {
        Self { severity, code, span, message, label: String::new(), related: Vec::new(), hint: None }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kinds of diagnostics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// The name that is shown in brackets.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// Bytes that are no UTF-8.
    NotUtf8 = "not-utf8",
    /// More than the reader takes: bytes, statements, a line's length, depth, devices, …
    TooLarge = "too-large",
    /// A control character, or a blank that only looks like one.
    OddCharacter = "odd-character",
    /// A `"` without its partner.
    OpenQuote = "open-quote",
    /// Something touches a closing quote, or a `}` touches a word.
    Touching = "touching",
    /// A `#` that would cut a value.
    HashInWord = "hash-in-word",
    /// A backslash at the end of a line.
    LoneBackslash = "lone-backslash",
    /// More than three words.
    FourthWord = "fourth-word",
    /// A `{` on a line of its own.
    BraceOnNextLine = "brace-on-next-line",
    /// A `}` that closes nothing.
    StrayBrace = "stray-brace",
    /// A `{` that is never closed.
    UnclosedBrace = "unclosed-brace",
    /// Nothing in the file.
    EmptyFile = "empty-file",
    /// A keyword that there is not.
    UnknownSection = "unknown-section",
    /// A keyword where it does not belong.
    MisplacedSection = "misplaced-section",
    /// A section with too few or too many words.
    SectionWords = "section-words",
    /// A section that is given twice.
    RepeatedSection = "repeated-section",
    /// A handler that we do not have.
    UnknownHandler = "unknown-handler",
    /// A target driver that we do not have.
    UnknownDriver = "unknown-driver",
    /// An attribute that there is not, here.
    UnknownAttribute = "unknown-attribute",
    /// An attribute that a file cannot set.
    RefusedAttribute = "refused-attribute",
    /// An attribute with one value that is given several.
    RepeatedAttribute = "repeated-attribute",
    /// An attribute with no value.
    MissingValue = "missing-value",
    /// A value that the attribute does not take.
    BadValue = "bad-value",
    /// An attribute without which the section means nothing.
    MissingAttribute = "missing-attribute",
    /// Two attributes that refuse each other.
    Conflict = "conflict",
    /// A name that is used for two things.
    DuplicateName = "duplicate-name",
    /// A LUN number that is given twice.
    DuplicateLun = "duplicate-lun",
    /// A device that there is not.
    UnknownDevice = "unknown-device",
    /// A LUN of a device that is not served.
    UnservedLun = "unserved-lun",
    /// A target or group without LUN 0.
    NoLunZero = "no-lun-zero",
    /// An initiator that two groups claim.
    InitiatorTwice = "initiator-twice",
    /// A file that two writable devices share.
    SharedMedium = "shared-medium",
    /// Two devices that look like one to an initiator.
    SameIdentity = "same-identity",
    /// A name that the standard does not allow, or that is written in another form.
    IscsiName = "iscsi-name",
    /// A driver that is not enabled, though it has targets.
    NotEnabled = "not-enabled",
    /// An OutgoingUser where no initiator is asked who it is.
    NoAuthentication = "no-authentication",
    /// A secret that is too short.
    WeakSecret = "weak-secret",
    /// One secret in both directions.
    SameSecret = "same-secret",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Collects diagnostics, within bounds.
#[derive(Default)]
pub(super) struct Diagnostics {
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= DIAGNOSTICS_MAX {
            self.kept.push(diagnostic);
        }
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn warnings(&self) -> usize {
        self.warnings
    }

    /// What was kept, in the file's order; what was found first stands first at one place.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.kept.sort_by_key(|diagnostic| (diagnostic.span.line, diagnostic.span.column));
        self.kept
    }
}

/// A word of the file, fit for a message: in backticks, short, without control characters, and not a secret.
pub(super) fn quoted(word: &str) -> String {
    if may_hold_secret(word) && (word.contains(char::is_whitespace) || is_glued_to_more(word)) {
        return format!("`{MASK}`");
    }
    // A backtick would end the quotation, by which secrets are found in it.
    let plain = |c| if c == '`' { '\'' } else { super::text::printable(c) };
    let mut shown: String = word.chars().take(QUOTED_MAX).map(plain).collect();
    if word.chars().nth(QUOTED_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The known name that is nearest to a word, if one is near enough that a slip of the finger explains it.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > QUOTED_MAX {
        return None;
    }
    let slips_max = match word.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(word.len()) <= slips_max * CHARACTER_BYTES_MAX)
        .map(|name| (distance(word, name), name))
        .filter(|(slips, name)| *slips <= slips_max && *slips < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from one word to the other, without regard to
/// case (optimal string alignment).
pub(super) fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().flat_map(char::to_lowercase).collect();
    let to: Vec<char> = to.chars().flat_map(char::to_lowercase).collect();
    let mut before_last = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i; to.len() + 1];
        for j in 1..=to.len() {
            let substituted = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_a_slip_of_the_finger_explains() {
        let known = ["nv_cache", "filename", "o_direct", "size", "usn"];
        assert_eq!(nearest("nv_cahce", known), Some("nv_cache"));
        assert_eq!(nearest("NV_CACHE", known), Some("nv_cache"));
        assert_eq!(nearest("file_name", known), Some("filename"));
        assert_eq!(nearest("sise", known), Some("size"));
        assert_eq!(nearest("x", known), None);
        assert_eq!(nearest("completely_else", known), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_slip() {
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_quoted_word_is_short_and_printable_and_no_secret() {
        assert_eq!(quoted("disk\u{1b}[31m"), "`disk\u{fffd}[31m`");
        assert_eq!(quoted(&"a".repeat(80)).chars().count(), QUOTED_MAX + 3);
        assert!(!quoted("IncomingUser joe opensesame").contains("opensesame"));
    }

    #[test]
    fn errors_beyond_the_bound_are_counted_and_not_kept() {
        let mut diagnostics = Diagnostics::default();
        for _ in 0..DIAGNOSTICS_MAX + 7 {
            diagnostics.push(Diagnostic::error(Code::StrayBrace, Span::default(), "x"));
        }
        diagnostics.push(Diagnostic::warning(Code::NoLunZero, Span::default(), "y"));
        assert_eq!((diagnostics.errors(), diagnostics.warnings()), (DIAGNOSTICS_MAX + 7, 1));
        assert_eq!(diagnostics.into_sorted().len(), DIAGNOSTICS_MAX + 1);
    }
}
