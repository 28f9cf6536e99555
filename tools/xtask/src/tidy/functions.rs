//! A function fits on a screen.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::rust::Source;
use super::{Finding, Rule};

/// Findings for every function with a body that is too long, counted from `fn` to the closing brace.
pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut functions = Functions::default();
    functions.visit_file(&source.syntax);
    let too_long = functions.found.into_iter().filter_map(|(name, first, last)| {
        let lines = last - first + 1;
        let most = if source.is_test(first) { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
        (lines > most).then(|| {
            source.finding(first, Rule::FunctionLength, format!("`{name}` has {lines} lines, at most {most}"))
        })
    });
    too_long.collect()
}

#[derive(Default)]
struct Functions {
    /// Name, first and last line.
    found: Vec<(String, usize, usize)>,
}

impl Functions {
    fn note(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let last = body.brace_token.span.close().end().line;
        self.found.push((signature.ident.to_string(), signature.span().start().line, last));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.note(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

const FUNCTION_LINES_MAX: usize = 70;
/// A dialogue with a peer may run on: two screens.
const TEST_FUNCTION_LINES_MAX: usize = 140;

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    fn found(text: &str) -> Vec<usize> {
        check(&Source::parse("a.rs", text).unwrap()).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_function_of_71_lines_is_found_at_its_first() {
        assert!(found(&function(70)).is_empty());
        assert_eq!(found(&format!("//! A.\n{}", function(71))), [2]);
    }

    #[test]
    fn a_method_and_a_provided_method_are_functions_too() {
        assert_eq!(found(&format!("impl A {{\n{}}}", function(71))), [2]);
        assert_eq!(found(&format!("trait A {{\n{}}}", function(71))), [2]);
    }

    #[test]
    fn the_comment_above_a_function_does_not_count() {
        assert!(found(&format!("{}{}", "/// Words.\n".repeat(30), function(70))).is_empty());
    }

    #[test]
    fn a_test_may_have_two_screens_and_no_more() {
        assert!(found(&format!("#[test]\n{}", function(140))).is_empty());
        assert_eq!(found(&format!("#[cfg(test)]\nmod tests {{\n{}}}", function(141))), [3]);
    }
}
