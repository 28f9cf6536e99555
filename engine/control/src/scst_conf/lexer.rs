//! From lines to words and braces (quoting, comments and escapes).
//!
//! Where SCST's reader would lose part of a line without a word (a `#` inside a value, text behind a closing quote),
//! this one refuses. It never stops at the first fault: the rest of the line, and of the file, is read on.

use super::diagnostic::{Code, Diagnostic, Diagnostics};
use super::text::Span;

/// Bytes of one line.
pub const LINE_LENGTH_BYTES_MAX: usize = 16_384;

/// A word with its place, unescaped and without its quotes.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) span: Span,
    /// Something in it was refused: what it says must not be judged again.
    pub(super) broken: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Token {
    Word(Word),
    Open(Span),
    Close(Span),
}

/// The tokens of one line, which is numbered from 1.
pub(super) fn lex_line(line: &str, number: u32, diagnostics: &mut Diagnostics) -> Vec<Token> {
    if line.len() > LINE_LENGTH_BYTES_MAX {
        let span = Span { line: number, column: 1, length: 1 };
        let message =
            format!("a line has at most {LINE_LENGTH_BYTES_MAX} bytes, this one has {}", line.len());
        diagnostics.push(Diagnostic::error(Code::TooLarge, span, message));
        return Vec::new();
    }
    let mut lexer = Lexer { chars: line.chars().collect(), at: 0, number, tokens: Vec::new(), diagnostics };
    lexer.run();
    lexer.tokens
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    number: u32,
    tokens: Vec<Token>,
    diagnostics: &'a mut Diagnostics,
}

/// What one character of a word turned out to be.
enum Piece {
    Literal(char),
    Refused,
    Hash,
    End,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '#' => return self.comment(),
                '{' => self.brace(Token::Open),
                '}' => self.brace(Token::Close),
                '"' => self.quoted_word(),
                _ => self.bare_word(),
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn brace(&mut self, token: fn(Span) -> Token) {
        let span = self.span(self.at, self.at + 1);
        self.at += 1;
        self.tokens.push(token(span));
    }

    /// A comment begins the line or stands behind a blank: SCST takes away the character before the `#` as well.
    fn comment(&mut self) {
        if self.at > 0 && !matches!(self.chars[self.at - 1], ' ' | '\t') {
            self.hash_error();
        }
        self.at = self.chars.len();
    }

    fn hash_error(&mut self) {
        let error = Diagnostic::error(
            Code::HashInWord,
            self.span(self.at, self.at + 1),
            "a `#` begins a comment here, and would cut what stands before it",
        )
        .label("the rest of the line is a comment")
        .hint("write `\\#` for the character itself, or a blank before a comment");
        self.diagnostics.push(error);
    }

    fn bare_word(&mut self) {
        let start = self.at;
        let mut word = String::new();
        let mut broken = false;
        let mut last_escaped = false;
        loop {
            if matches!(self.peek(), Some(' ' | '\t')) {
                break;
            }
            let escape = self.peek() == Some('\\');
            match self.piece() {
                Piece::Literal(c) => word.push(c),
                Piece::Refused => broken = true,
                Piece::Hash => {
                    self.hash_error();
                    self.at = self.chars.len();
                    broken = true;
                    break;
                }
                Piece::End => break,
            }
            last_escaped = escape;
        }
        let end = self.word_end(start);
        if !last_escaped && word.ends_with('{') && !broken {
            word.pop();
            self.push_word(word, start, end - 1, false);
            let span = self.span(end - 1, end);
            return self.tokens.push(Token::Open(span));
        }
        if !last_escaped && word.ends_with('}') && !broken {
            let error = Diagnostic::error(
                Code::Touching,
                self.span(end - 1, end),
                "a `}` touches the word before it: it may close a section or belong to the word",
            )
            .hint("put a blank before it if it closes a section, else write `\\}` or quote the word");
            self.diagnostics.push(error);
            broken = true;
        }
        self.push_word(word, start, end, broken);
    }

    fn quoted_word(&mut self) {
        let start = self.at;
        let mut word = String::new();
        let mut broken = false;
        self.at += 1;
        loop {
            if self.peek() == Some('"') {
                self.at += 1;
                break;
            }
            match self.piece() {
                Piece::Literal(c) => word.push(c),
                Piece::Refused => broken = true,
                Piece::Hash => {
                    // SCST cuts here even inside quotes. The quote is read on, so that only this is reported.
                    if !broken {
                        self.hash_error();
                    }
                    broken = true;
                    self.at += 1;
                }
                Piece::End => {
                    let span = self.span(start, start + 1);
                    let error =
                        Diagnostic::error(Code::OpenQuote, span, "this quote is not closed on its line")
                            .label("opened here")
                            .hint("close it, or write `\\\"` for the character itself");
                    self.diagnostics.push(error);
                    broken = true;
                    break;
                }
            }
        }
        let end = self.at;
        if matches!(self.peek(), Some(c) if !matches!(c, ' ' | '\t' | '{' | '}' | '#')) {
            let error =
                Diagnostic::error(Code::Touching, self.span(end, end + 1), "text touches a closing quote")
                    .hint("put a blank between them, or write `\\\"` for a quote inside the value");
            self.diagnostics.push(error);
            broken = true;
        }
        self.push_word(word, start, end, broken);
    }

    /// Takes one character of a word, or an escape: `\x` is `x`.
    fn piece(&mut self) -> Piece {
        let Some(c) = self.peek() else { return Piece::End };
        if c == '#' {
            return Piece::Hash;
        }
        self.at += 1;
        if c == '\\' {
            let Some(escaped) = self.peek() else {
                let span = self.span(self.at - 1, self.at);
                let error = Diagnostic::error(
                    Code::LoneBackslash,
                    span,
                    "a `\\` at the end of a line escapes nothing",
                )
                .hint("write `\\\\` for the character itself");
                self.diagnostics.push(error);
                return Piece::Refused;
            };
            self.at += 1;
            if escaped.is_control() && escaped != '\t' {
                return self.odd_character(escaped);
            }
            return Piece::Literal(escaped);
        }
        if (c.is_control() && c != '\t') || (c.is_whitespace() && !c.is_ascii()) || c == '\u{fffd}' {
            return self.odd_character(c);
        }
        Piece::Literal(c)
    }

    fn odd_character(&mut self, c: char) -> Piece {
        // U+FFFD stands for bytes that were no UTF-8, which is told once for the whole file.
        if c != '\u{fffd}' {
            let what =
                if c.is_control() { "a control character" } else { "a blank that is neither space nor tab" };
            let message = format!("{what}, U+{:04X}, stands here", u32::from(c));
            let error = Diagnostic::error(Code::OddCharacter, self.span(self.at - 1, self.at), message)
                .hint("it was perhaps copied along from a web page; type this place anew");
            self.diagnostics.push(error);
        }
        Piece::Refused
    }

    /// Where a bare word ends: before the hash that cut it, if one did.
    fn word_end(&self, start: usize) -> usize {
        let stop = |c: &char| matches!(c, ' ' | '\t');
        let length = self.chars[start..self.at].iter().position(stop);
        length.map_or(self.at, |length| start + length)
    }

    fn push_word(&mut self, text: String, start: usize, end: usize, broken: bool) {
        let span = self.span(start, end.max(start + 1));
        self.tokens.push(Token::Word(Word { text, span, broken }));
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let number = |n: usize| u32::try_from(n).expect("a line is shorter than LINE_LENGTH_BYTES_MAX");
        let end = end.min(self.chars.len()).max(start);
        Span { line: self.number, column: number(start + 1), length: number(end - start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(line: &str) -> (Vec<String>, Vec<Code>) {
        let mut diagnostics = Diagnostics::default();
        let tokens = lex_line(line, 1, &mut diagnostics)
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => word.text,
                Token::Open(_) => "<{>".into(),
                Token::Close(_) => "<}>".into(),
            })
            .collect();
        (tokens, diagnostics.into_sorted().into_iter().map(|diagnostic| diagnostic.code).collect())
    }

    fn words(line: &str) -> Vec<String> {
        let (words, codes) = lex(line);
        assert!(codes.is_empty(), "{line}: {codes:?}");
        words
    }

    fn codes(line: &str) -> Vec<Code> {
        lex(line).1
    }

    #[test]
    fn words_are_parted_by_blanks_and_quotes_hold_them_together() {
        assert_eq!(words("\tDEVICE  disk1 {"), ["DEVICE", "disk1", "<{>"]);
        assert_eq!(words("IncomingUser \"joe 12 chars\""), ["IncomingUser", "joe 12 chars"]);
        assert_eq!(words("alias \"\""), ["alias", ""]);
        assert_eq!(words("DEVICE d{"), ["DEVICE", "d", "<{>"]);
        assert_eq!(words("TARGET t {}"), ["TARGET", "t", "<{>", "<}>"]);
        assert_eq!(words("cpu_mask a{b"), ["cpu_mask", "a{b"]);
        assert_eq!(words("alias a\"b"), ["alias", "a\"b"]);
    }

    #[test]
    fn a_backslash_makes_the_next_character_itself() {
        assert_eq!(words(r#"alias "a \"b\" \\ \#c""#), ["alias", r#"a "b" \ #c"#]);
        assert_eq!(words(r"alias a\ b\#c\{"), ["alias", "a b#c{"]);
        assert_eq!(words(r"alias \}"), ["alias", "}"]);
        assert_eq!(codes("alias a\\"), [Code::LoneBackslash]);
    }

    #[test]
    fn a_comment_stands_alone_or_behind_a_blank() {
        assert_eq!(words("# all of it"), Vec::<String>::new());
        assert_eq!(words("blocksize 512 # bytes"), ["blocksize", "512"]);
        assert_eq!(codes("B 2# c"), [Code::HashInWord]);
        assert_eq!(codes("DEVICE d {# c"), [Code::HashInWord]);
        assert_eq!(codes("\"joe pa#ss\""), [Code::HashInWord]);
        assert_eq!(codes("\"joe #pa#ss\""), [Code::HashInWord], "once for one word");
        assert_eq!(codes("alias \"a b\"# c"), [Code::HashInWord]);
    }

    #[test]
    fn what_touches_is_refused() {
        assert_eq!(codes("dummy 1}"), [Code::Touching]);
        assert_eq!(codes("alias \"a\"b"), [Code::Touching]);
        assert_eq!(codes("alias \"a b"), [Code::OpenQuote]);
    }

    #[test]
    fn blanks_that_are_none_and_control_characters_are_refused() {
        assert_eq!(codes("blocksize\u{a0}512"), [Code::OddCharacter]);
        assert_eq!(codes("alias a\u{1b}b"), [Code::OddCharacter]);
        assert_eq!(codes("alias a\\\u{1b}b"), [Code::OddCharacter], "an escape does not help it");
        assert_eq!(words("alias grün"), ["alias", "grün"]);
    }

    #[test]
    fn a_line_has_a_bound() {
        assert_eq!(codes(&"a".repeat(LINE_LENGTH_BYTES_MAX + 1)), [Code::TooLarge]);
        assert_eq!(words(&"a".repeat(LINE_LENGTH_BYTES_MAX)).len(), 1);
    }
}
