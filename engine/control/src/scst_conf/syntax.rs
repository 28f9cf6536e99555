//! From tokens to statements: up to three words, and perhaps a body between braces. Knows braces and lines, and of
//! names only which of them open sections.

use super::diagnostic::{Code, Diagnostic, Diagnostics, quoted};
use super::lexer::{Token, Word, lex_line};
use super::text::{Span, Text};

/// Sections inside each other. The grammar needs four.
pub const NESTING_MAX: usize = 16;
/// Statements of one file.
pub const STATEMENTS_MAX: usize = 250_000;
/// Words of one statement.
const WORDS_MAX: usize = 3;
/// Unclosed sections that one diagnostic points at.
const UNCLOSED_SHOWN_MAX: usize = 4;

/// A statement: an attribute, or a section, which need not have a body.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// One to three words.
    pub(super) words: Vec<Word>,
    pub(super) body: Option<Vec<Statement>>,
    /// Something in its words was refused: it must not be judged again.
    pub(super) broken: bool,
}

/// The words that open sections.
pub(super) const KEYWORDS: [&str; 11] = [
    "HANDLER",
    "DEVICE",
    "TARGET_DRIVER",
    "TARGET",
    "HW_TARGET",
    "LUN",
    "GROUP",
    "INITIATOR",
    "DEVICE_GROUP",
    "TARGET_GROUP",
    "ALUA",
];

impl Statement {
    pub(super) fn keyword(&self) -> &str {
        &self.words[0].text
    }

    /// The word at that place, from 0.
    pub(super) fn word(&self, at: usize) -> Option<&Word> {
        self.words.get(at)
    }

    /// The first word's place.
    pub(super) fn span(&self) -> Span {
        self.words[0].span
    }

    /// The place of all its words.
    pub(super) fn head_span(&self) -> Span {
        let (first, last) = (self.words[0].span, self.words[self.words.len() - 1].span);
        Span { length: last.column + last.length - first.column, ..first }
    }

    pub(super) fn body(&self) -> &[Statement] {
        self.body.as_deref().unwrap_or_default()
    }

    /// Whether it is a section, by its keyword or by its braces.
    pub(super) fn is_section(&self) -> bool {
        self.body.is_some() || KEYWORDS.contains(&self.keyword())
    }

    /// Whether two statements say the same, wherever they stand.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let words =
            |statement: &Self| statement.words.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
        words(self) == words(other)
            && self.body().len() == other.body().len()
            && self.body().iter().zip(other.body()).all(|(a, b)| a.says_the_same_as(b))
    }
}

/// Reads a whole text.
pub(super) fn parse(text: &Text, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    let mut parser = Parser {
        top: Vec::new(),
        open: Vec::new(),
        words: Vec::new(),
        too_deep: 0,
        statements: 0,
        diagnostics,
    };
    let is_blank = |line: &str| line.bytes().all(|byte| matches!(byte, b' ' | b'\t'));
    for (line, number) in text.lines().zip(1u32..).filter(|(line, _)| !is_blank(line)) {
        for token in lex_line(line, number, parser.diagnostics) {
            match token {
                Token::Word(word) => parser.words.push(word),
                Token::Open(span) => parser.open(span),
                Token::Close(span) => parser.close(span),
            }
        }
        parser.end_statement();
        if parser.statements > STATEMENTS_MAX {
            let span = Span { line: number, column: 1, length: 1 };
            let message = format!("a file has at most {STATEMENTS_MAX} statements");
            parser.diagnostics.push(Diagnostic::error(Code::TooLarge, span, message));
            return parser.top;
        }
    }
    parser.finish()
}

struct Parser<'a> {
    top: Vec<Statement>,
    /// The sections that are open, outermost first, each with its `{`.
    open: Vec<(Statement, Span)>,
    words: Vec<Word>,
    /// Sections that are open beyond [`NESTING_MAX`]; what is in them is dropped.
    too_deep: usize,
    statements: usize,
    diagnostics: &'a mut Diagnostics,
}

impl Parser<'_> {
    fn end_statement(&mut self) {
        if let Some(statement) = self.take_words(None) {
            self.keep(statement);
        }
    }

    /// The words so far, as a statement.
    fn take_words(&mut self, body: Option<Vec<Statement>>) -> Option<Statement> {
        let mut words = std::mem::take(&mut self.words);
        let mut broken = words.iter().any(|word| word.broken);
        words.first()?;
        self.statements += 1;
        if let Some(fourth) = words.get(WORDS_MAX) {
            let error = Diagnostic::error(
                Code::FourthWord,
                fourth.span,
                "a statement has at most three words",
            )
            .label("the fourth")
            .hint("put quotes around a value that holds blanks, and each attribute on a line of its own");
            self.diagnostics.push(error);
            words.truncate(WORDS_MAX);
            broken = true;
        }
        Some(Statement { words, body, broken })
    }

    fn keep(&mut self, statement: Statement) {
        if self.too_deep > 0 {
            return;
        }
        match self.open.last_mut() {
            Some((section, _)) => section.body.get_or_insert_default().push(statement),
            None => self.top.push(statement),
        }
    }

    fn open(&mut self, brace: Span) {
        if self.open.len() >= NESTING_MAX || self.too_deep > 0 {
            if self.too_deep == 0 {
                let message = format!("sections nest at most {NESTING_MAX} deep");
                self.diagnostics.push(Diagnostic::error(Code::TooLarge, brace, message));
            }
            self.words.clear();
            self.too_deep += 1;
            return;
        }
        let section = match self.take_words(Some(Vec::new())) {
            Some(section) => section,
            None => self.section_of_a_lone_brace(brace),
        };
        self.open.push((section, brace));
    }

    /// A `{` that begins its line. It was meant for the line above it, if that could open a section.
    fn section_of_a_lone_brace(&mut self, brace: Span) -> Statement {
        let siblings = match self.open.last_mut() {
            Some((section, _)) => section.body.get_or_insert_default(),
            None => &mut self.top,
        };
        let above = siblings.pop_if(|last| last.body.is_none() && KEYWORDS.contains(&last.keyword()));
        let Some(mut above) = above else {
            let error = Diagnostic::error(Code::BraceOnNextLine, brace, "a `{` with no section before it")
                .hint("a section begins like `DEVICE name {`, on one line");
            self.diagnostics.push(error);
            let words = vec![Word { text: String::new(), span: brace, broken: true }];
            return Statement { words, body: Some(Vec::new()), broken: true };
        };
        let head: Vec<&str> = above.words.iter().map(|word| word.text.as_str()).collect();
        let head = quoted(&format!("{} {{", head.join(" ")));
        let error =
            Diagnostic::error(Code::BraceOnNextLine, brace, "a `{` must stand on the line of its section")
                .label("here it opens nothing")
                .related(above.head_span(), "the section that it was meant for")
                .hint(format!("write {head} on one line"));
        self.diagnostics.push(error);
        above.body = Some(Vec::new());
        above
    }

    fn close(&mut self, brace: Span) {
        self.end_statement();
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return;
        }
        match self.open.pop() {
            Some((section, _)) => self.keep(section),
            None => {
                let error = Diagnostic::error(Code::StrayBrace, brace, "this `}` closes nothing")
                    .hint("remove it, or look for the `{` that is missing above");
                self.diagnostics.push(error);
            }
        }
    }

    fn finish(mut self) -> Vec<Statement> {
        if let Some((innermost, brace)) = self.open.last() {
            let what = quoted(innermost.keyword());
            let mut error = Diagnostic::error(
                Code::UnclosedBrace,
                *brace,
                format!("this {what} section is never closed"),
            )
            .label("opened here")
            .hint("a section ends with a `}` on a line of its own");
            for (_, outer) in self.open.iter().rev().skip(1).take(UNCLOSED_SHOWN_MAX) {
                error = error.related(*outer, "nor is this one");
            }
            self.diagnostics.push(error);
        }
        while let Some((section, _)) = self.open.pop() {
            self.keep(section);
        }
        self.top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> (String, Vec<Code>) {
        let mut diagnostics = Diagnostics::default();
        let statements = parse(&Text::new("t", text.to_owned()), &mut diagnostics);
        let codes = diagnostics.into_sorted().into_iter().map(|diagnostic| diagnostic.code).collect();
        (statements.iter().map(show).collect::<Vec<_>>().join("; "), codes)
    }

    fn show(statement: &Statement) -> String {
        let words: Vec<_> = statement.words.iter().map(|word| word.text.as_str()).collect();
        match &statement.body {
            None => words.join(" "),
            Some(body) => {
                format!("{} {{{}}}", words.join(" "), body.iter().map(show).collect::<Vec<_>>().join("; "))
            }
        }
    }

    fn tree(text: &str) -> String {
        let (tree, codes) = parse_text(text);
        assert!(codes.is_empty(), "{codes:?}");
        tree
    }

    #[test]
    fn sections_hold_statements_in_order() {
        assert_eq!(
            tree("a 1\nHANDLER h {\n b 2\n\n DEVICE d {\n c \"3 4\"\n }\n}"),
            "a 1; HANDLER h {b 2; DEVICE d {c 3 4}}"
        );
        assert_eq!(tree("a 1\r\nb 2\r\n"), "a 1; b 2");
        assert_eq!(tree("\u{feff}a 1"), "a 1");
    }

    #[test]
    fn a_section_may_stand_on_one_line() {
        assert_eq!(tree("DEVICE d { dummy 1 }"), "DEVICE d {dummy 1}");
        assert_eq!(tree("DEVICE d { dummy 1 } DEVICE e { } f 2"), "DEVICE d {dummy 1}; DEVICE e {}; f 2");
    }

    #[test]
    fn a_brace_on_the_next_line_is_refused_and_read_as_it_was_meant() {
        let (tree, codes) = parse_text("HANDLER h\n\n{\n a 1\n}\n");
        assert_eq!((tree.as_str(), codes), ("HANDLER h {a 1}", vec![Code::BraceOnNextLine]));
        let (_, codes) = parse_text("a 1\n{\n b 2\n}\n");
        assert_eq!(codes, [Code::BraceOnNextLine]);
    }

    #[test]
    fn depth_and_number_of_statements_have_bounds() {
        let deep = "DEVICE d {\n".repeat(40) + "x 1\n" + &"}\n".repeat(40) + "after 1";
        let (tree, codes) = parse_text(&deep);
        assert_eq!(codes, [Code::TooLarge]);
        assert!(tree.ends_with("; after 1"), "reading goes on behind it");
        let (_, codes) = parse_text(&"a 1\n".repeat(STATEMENTS_MAX + 1));
        assert_eq!(codes, [Code::TooLarge]);
    }

    #[test]
    fn every_unclosed_section_is_pointed_at() {
        let mut diagnostics = Diagnostics::default();
        let statements = parse(&Text::new("t", "HANDLER h {\n DEVICE d {\n a 1\n".into()), &mut diagnostics);
        assert_eq!(show(&statements[0]), "HANDLER h {DEVICE d {a 1}}");
        let found = diagnostics.into_sorted();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].code, found[0].span.line, found[0].related[0].0.line),
            (Code::UnclosedBrace, 2, 1)
        );
    }
}
