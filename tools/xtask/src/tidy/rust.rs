//! A Rust file as the rules see it: its lines, its syntax tree, its tokens in one flat row, and which of its lines
//! are test code.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{Finding, Rule};

/// One file, parsed.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) lines: Vec<&'a str>,
    pub(super) syntax: syn::File,
    pub(super) tokens: Vec<Token>,
    /// First and last line of each item under `#[cfg(test)]` or `#[test]`.
    tests: Vec<(usize, usize)>,
}

/// A token; the delimiters of a group are tokens of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

impl<'a> Source<'a> {
    /// Parses `text`; the error is the finding that it does not parse.
    pub(super) fn parse(file: &'a str, text: &'a str) -> Result<Source<'a>, Finding> {
        let broken = |line: usize, why: String| Finding::new(file, line, Rule::Syntax, why);
        let syntax =
            syn::parse_file(text).map_err(|error| broken(error.span().start().line, error.to_string()))?;
        let stream: TokenStream = text.parse().map_err(|error| broken(1, format!("{error}")))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut tests = Tests::default();
        tests.visit_file(&syntax);
        Ok(Source { file, lines: text.lines().collect(), syntax, tokens, tests: tests.ranges })
    }

    /// Whether a line belongs to tests: by its item's attribute or by where the file lies.
    pub(super) fn is_test(&self, line: usize) -> bool {
        let by_place = self.file.split('/').any(|part| part == "tests" || part == "tests.rs");
        by_place || self.tests.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// A finding in this file.
    pub(super) fn finding(&self, line: usize, rule: Rule, message: impl Into<String>) -> Finding {
        Finding::new(self.file, line, rule, message)
    }

    /// Whether the tokens from `at` on are exactly `pattern`.
    pub(super) fn reads(&self, at: usize, pattern: &[&str]) -> bool {
        self.tokens.len() >= at + pattern.len()
            && self.tokens[at..].iter().zip(pattern).all(|(token, text)| token.text == *text)
    }
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            TokenTree::Literal(_) => tokens.push(Token { text: LITERAL.to_owned(), line }),
            other => tokens.push(Token { text: other.to_string(), line }),
        }
    }
}

/// Collects the lines of test items.
#[derive(Default)]
struct Tests {
    ranges: Vec<(usize, usize)>,
}

impl Tests {
    fn note(&mut self, attributes: &[syn::Attribute], item: &impl Spanned) {
        if attributes.iter().any(is_test_attribute) {
            self.ranges.push((item.span().start().line, item.span().end().line));
        }
    }
}

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.note(&item.attrs, item);
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.attrs, item);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.note(&item.attrs, item);
        visit::visit_item_impl(self, item);
    }
}

fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let mut tokens = Vec::new();
    flatten(list.tokens.clone(), &mut tokens);
    let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    // `all(test, …)` too, but not `not(test)`.
    attribute.path().is_ident("cfg")
        && words.contains(&"test")
        && !words.contains(&"not")
        && !words.contains(&"any")
}

/// Stands for every literal, so that no string is taken for code.
const LITERAL: &str = "\"\"";
