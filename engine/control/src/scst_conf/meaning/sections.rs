//! The sections inside a section: which may stand there, with how many words, and what a repeated one loses.

use std::collections::HashMap;

use super::Context;
use crate::scst_conf::diagnostic::{Code, Diagnostic, nearest, quoted};
use crate::scst_conf::schema::{self, Level};
use crate::scst_conf::syntax::{KEYWORDS, Statement};

/// Things lost that a warning lists.
const LOST_SHOWN_MAX: usize = 8;

/// A section that may stand somewhere.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) keyword: &'static str,
    /// Words with the keyword.
    pub(super) words_min: usize,
    pub(super) words_max: usize,
}

impl Expected {
    /// A keyword and a name.
    pub(super) const fn named(keyword: &'static str) -> Self {
        Self { keyword, words_min: 2, words_max: 2 }
    }

    /// `LUN n device`.
    pub(super) const LUN: Self = Self { keyword: "LUN", words_min: 3, words_max: 3 };
}

/// Where each keyword belongs.
const HOMES: [(&str, &str); 11] = [
    ("HANDLER", "no other section"),
    ("DEVICE", "a HANDLER or a DEVICE_GROUP"),
    ("TARGET_DRIVER", "no other section"),
    ("TARGET", "a TARGET_DRIVER or a TARGET_GROUP"),
    ("HW_TARGET", "a TARGET"),
    ("LUN", "a TARGET or a GROUP"),
    ("GROUP", "a TARGET"),
    ("INITIATOR", "a GROUP"),
    ("DEVICE_GROUP", "no other section"),
    ("TARGET_GROUP", "a DEVICE_GROUP"),
    ("ALUA", "no other section"),
];

/// The sections among some statements that may stand there and have the words that they need.
pub(super) fn sections<'s>(
    context: &mut Context<'_>,
    place: &str,
    expected: &[Expected],
    level: Level,
    statements: &'s [Statement],
) -> Vec<&'s Statement> {
    let mut found = Vec::new();
    for section in statements.iter().filter(|statement| statement.is_section()) {
        match expected.iter().find(|expected| expected.keyword == section.keyword()) {
            Some(expected) => {
                if has_its_words(context, *expected, section) {
                    found.push(section);
                }
            }
            None => {
                report_stranger(context, place, expected, level, section);
                super::devices::remember_unserved(context, section.body());
            }
        }
    }
    found
}

fn has_its_words(context: &mut Context<'_>, expected: Expected, section: &Statement) -> bool {
    let count = section.words.len();
    if (expected.words_min..=expected.words_max).contains(&count) {
        let empty = section.words.iter().find(|word| word.text.is_empty());
        if let Some(word) = empty.filter(|_| !section.broken) {
            let message = format!("a {} has a name that is not empty", expected.keyword);
            context.report(Diagnostic::error(Code::SectionWords, word.span, message));
        }
        return empty.is_none();
    }
    if !section.broken {
        let form = match expected.keyword {
            "LUN" => "`LUN number device`".to_owned(),
            "ALUA" => "`ALUA {`".to_owned(),
            keyword => format!("`{keyword} name`"),
        };
        let message = format!("a section of this kind is written {form}");
        context.report(Diagnostic::error(Code::SectionWords, section.head_span(), message));
    }
    false
}

fn report_stranger(
    context: &mut Context<'_>,
    place: &str,
    expected: &[Expected],
    level: Level,
    section: &Statement,
) {
    let word = &section.words[0];
    if word.broken {
        return;
    }
    let name = quoted(&word.text);
    if let Some((keyword, home)) = HOMES.iter().find(|(keyword, _)| *keyword == word.text) {
        let message = format!("a {keyword} cannot stand in {place}");
        let error = Diagnostic::error(Code::MisplacedSection, word.span, message);
        return context.report(error.hint(format!("it stands in {home}")));
    }
    if schema::attribute(level, &word.text).is_some() {
        let message = format!("{name} is an attribute, and has no braces");
        return context.report(Diagnostic::error(Code::UnknownSection, word.span, message));
    }
    let mut error = Diagnostic::error(Code::UnknownSection, word.span, format!("there is no section {name}"));
    let here = expected.iter().map(|expected| expected.keyword);
    if let Some(near) = nearest(&word.text, here).or_else(|| nearest(&word.text, KEYWORDS)) {
        error = error.label(format!("did you mean `{near}`?"));
    }
    context.report(error);
}

/// Of sections with the same keyword and name the last, with a warning that lists what is lost by it. Merging them
/// instead could revive an initiator that was removed.
pub(super) fn last_of_each<'s>(
    context: &mut Context<'_>,
    sections: Vec<&'s Statement>,
) -> Vec<&'s Statement> {
    let key = |section: &Statement| {
        let name = section.word(1).map_or("", |word| &word.text);
        (section.keyword().to_owned(), name.to_owned())
    };
    last_of_each_by(context, sections, key)
}

/// As [`last_of_each`], with a key of the caller's.
pub(super) fn last_of_each_by<'s, K: Eq + std::hash::Hash>(
    context: &mut Context<'_>,
    sections: Vec<&'s Statement>,
    key: impl Fn(&Statement) -> K,
) -> Vec<&'s Statement> {
    let mut at: HashMap<K, usize> = HashMap::new();
    let mut kept: Vec<Option<&'s Statement>> = Vec::with_capacity(sections.len());
    for section in sections {
        if let Some(before) = at.insert(key(section), kept.len())
            && let Some(lost) = kept[before].take()
        {
            report_lost(context, lost, section);
        }
        kept.push(Some(section));
    }
    kept.into_iter().flatten().collect()
}

fn report_lost(context: &mut Context<'_>, lost: &Statement, kept: &Statement) {
    let survives = |statement: &Statement| kept.body().iter().any(|other| other.says_the_same_as(statement));
    // Comparing all with all is for sections of a size that people write; beyond it everything is called lost.
    let comparable = lost.body().len().saturating_mul(kept.body().len()) <= 1_000_000;
    let gone: Vec<&Statement> =
        lost.body().iter().filter(|statement| !comparable || !survives(statement)).collect();
    let mut names: Vec<String> =
        gone.iter().take(LOST_SHOWN_MAX).map(|statement| describe(statement)).collect();
    if gone.len() > LOST_SHOWN_MAX {
        names.push(format!("{} more", gone.len() - LOST_SHOWN_MAX));
    }
    let what =
        format!("{} {}", kept.keyword(), kept.word(1).map_or(String::new(), |word| quoted(&word.text)));
    let message = match names.as_slice() {
        [] => format!("{what} is given twice, and both say the same"),
        _ => format!("{what} is given twice: the last wins, and of the first is lost: {}", names.join(", ")),
    };
    let mut warning = Diagnostic::warning(Code::RepeatedSection, kept.head_span(), message)
        .label("this one counts")
        .related(lost.head_span(), "this one is dropped");
    if !names.is_empty() {
        warning = warning.hint("write what shall stay into one section, and remove the other");
    }
    context.report(warning);
}

/// A statement in a list: a section by its words, an attribute by its name only, for its value may be secret.
fn describe(statement: &Statement) -> String {
    let words = statement.words.iter().map(|word| word.text.as_str());
    match KEYWORDS.contains(&statement.keyword()) {
        true => quoted(&words.collect::<Vec<_>>().join(" ")),
        false => quoted(statement.keyword()),
    }
}
