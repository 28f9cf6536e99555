//! The attributes of one section, each looked up in the schema and its value checked; read back by name afterwards.

use std::collections::HashMap;

use portico_model::configuration::{KeptAttribute, User};

use super::Context;
use crate::scst_conf::NotInEffect;
use crate::scst_conf::diagnostic::{Code, Diagnostic, nearest, quoted};
use crate::scst_conf::schema::{self, Attribute, Effect, Level};
use crate::scst_conf::syntax::{KEYWORDS, Statement};
use crate::scst_conf::text::Span;
use crate::scst_conf::value;

/// What a section sets, in the file's order.
pub(super) struct Attributes {
    given: Vec<Given>,
}

/// One attribute that is known, with a value that it takes.
pub(super) struct Given {
    pub(super) row: &'static Attribute,
    pub(super) value: String,
    /// The value's place.
    pub(super) span: Span,
}

impl Attributes {
    /// Reads what are attributes among the statements of a section; `place` names it in messages.
    pub(super) fn read(
        context: &mut Context<'_>,
        level: Level,
        place: &str,
        statements: &[Statement],
    ) -> Self {
        let mut attributes = Self { given: Vec::new() };
        let mut first_at: HashMap<&'static str, usize> = HashMap::new();
        for statement in statements.iter().filter(|statement| !statement.is_section() && !statement.broken) {
            let Some(given) = read_one(context, level, place, statement) else { continue };
            if !given.row.repeatable
                && let Some(&first) = first_at.get(given.row.name)
            {
                report_repeated(context, &attributes.given[first], &given);
                continue;
            }
            first_at.entry(given.row.name).or_insert(attributes.given.len());
            name_if_not_in_effect(context, place, &given);
            attributes.given.push(given);
        }
        attributes
    }

    pub(super) fn one(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.row.name == name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Given> {
        self.given.iter().filter(move |given| given.row.name == name)
    }

    pub(super) fn span(&self, name: &str) -> Option<Span> {
        self.one(name).map(|given| given.span)
    }

    /// A flag, which defaults to what its row says; an attribute that is not of this level is off.
    pub(super) fn flag(&self, level: Level, name: &str) -> bool {
        let default = schema::attribute(level, name).is_some_and(|row| row.default == "1");
        self.one(name).map_or(default, |given| given.value == "1")
    }

    pub(super) fn yes_no(&self, name: &str) -> Option<bool> {
        self.read_with(name, |text| value::yes_no(text).ok())
    }

    /// A number. Its row's bounds fit the type that is asked for.
    pub(super) fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        self.read_with(name, |text| value::number(text).ok().and_then(|number| T::try_from(number).ok()))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.one(name).map(|given| given.value.clone())
    }

    pub(super) fn user(&self, name: &str) -> Option<User> {
        self.read_with(name, |text| value::user(text).ok())
    }

    /// An attribute's value, read by a function that its kind has already succeeded with.
    pub(super) fn read_with<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.one(name).and_then(|given| read(&given.value))
    }

    /// What the configuration keeps as text, sorted.
    pub(super) fn kept(&self) -> Vec<KeptAttribute> {
        let kept = self.given.iter().filter(|given| given.row.kept);
        let mut kept: Vec<_> = kept
            .map(|given| KeptAttribute { name: given.row.name.to_owned(), value: given.value.clone() })
            .collect();
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        kept
    }
}

fn read_one(context: &mut Context<'_>, level: Level, place: &str, statement: &Statement) -> Option<Given> {
    let name = &statement.words[0];
    let Some(row) = schema::attribute(level, &name.text) else {
        report_unknown(context, level, place, statement);
        return None;
    };
    if let Effect::Refused(why) = row.effect {
        let message = format!("`{}` cannot be set by a file: {why}", row.name);
        context.report(Diagnostic::error(Code::RefusedAttribute, name.span, message).hint("remove the line"));
        return None;
    }
    let values = &statement.words[1..];
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        let error = Diagnostic::error(Code::MissingValue, name.span, format!("`{}` has no value", row.name));
        context.report(match row.kind.check("") {
            Ok(()) => error.hint("write `\"\"` for an empty one"),
            Err(fault) => error.hint(format!("it wants {}", fault.wants)),
        });
        return None;
    };
    if values.len() > 1 && !row.kind.takes_two_words() {
        let message = format!("`{}` takes one value, and gets {}", row.name, values.len());
        let hint = "put quotes around a value that holds blanks, and each attribute on a line of its own";
        context
            .report(Diagnostic::error(Code::BadValue, last.span, message).label("what is this?").hint(hint));
        return None;
    }
    let span = Span { length: last.span.column + last.span.length - first.span.column, ..first.span };
    let value = values.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    if let Err(fault) = row.kind.check(&value) {
        let mut error =
            Diagnostic::error(Code::BadValue, span, format!("`{}` wants {}", row.name, fault.wants));
        error.hint = fault.hint;
        context.report(error);
        return None;
    }
    Some(Given { row, value, span })
}

/// An attribute that there is not: the nearest that there is, or where this one belongs.
fn report_unknown(context: &mut Context<'_>, level: Level, place: &str, statement: &Statement) {
    let name = &statement.words[0];
    if name.text.contains(char::is_whitespace) || name.text.is_empty() {
        // Not quoted: it is perhaps a value that has slipped onto a line of its own, and perhaps a secret.
        let error =
            Diagnostic::error(Code::UnknownAttribute, name.span, "the name of an attribute holds no blanks")
                .hint("a line begins with the name, and its value follows in quotes: `alias \"two words\"`");
        return context.report(error);
    }
    let message = format!("{place} has no attribute {}", quoted(&name.text));
    let mut error = Diagnostic::error(Code::UnknownAttribute, name.span, message);
    let elsewhere: Vec<_> = schema::ATTRIBUTES.iter().filter(|row| row.name == name.text).collect();
    if let Some(near) = nearest(&name.text, schema::names(level).chain(KEYWORDS)) {
        error = error.label(format!("did you mean `{near}`?"));
    } else if !elsewhere.is_empty() {
        let mut places: Vec<String> = elsewhere.iter().map(|row| place_name(row.level)).collect();
        places.dedup();
        error = error.hint(format!("`{}` belongs into {}", name.text, places.join(", or into ")));
    }
    context.report(error);
}

fn place_name(level: Level) -> String {
    match level {
        Level::Core => "no section at all".to_owned(),
        Level::Handler => "a HANDLER".to_owned(),
        Level::Device(bits) => {
            let mine = schema::HANDLERS.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name);
            format!("a DEVICE of {}", mine.collect::<Vec<_>>().join(" or "))
        }
        Level::Driver => "`TARGET_DRIVER iscsi`".to_owned(),
        Level::CopyManager => "`TARGET_DRIVER copy_manager`".to_owned(),
        Level::Target => "a TARGET".to_owned(),
        Level::Group => "a GROUP".to_owned(),
        Level::Lun => "a LUN".to_owned(),
        Level::TargetGroup => "a TARGET_GROUP".to_owned(),
        Level::TargetReference => "a TARGET in a TARGET_GROUP".to_owned(),
        Level::Nothing => unreachable!("no row of the schema stands nowhere"),
    }
}

/// The same attribute again, of which there can be one: harmless if it says the same.
fn report_repeated(context: &mut Context<'_>, first: &Given, again: &Given) {
    let name = again.row.name;
    let same = first.value == again.value;
    let diagnostic = if same {
        Diagnostic::warning(Code::RepeatedAttribute, again.span, format!("`{name}` is given twice"))
    } else {
        let message = format!("`{name}` takes one value, and is given two that differ");
        Diagnostic::error(Code::RepeatedAttribute, again.span, message).hint("remove one of the two lines")
    };
    context.report(diagnostic.label("again here").related(first.span, "first given here"));
}

fn name_if_not_in_effect(context: &mut Context<'_>, place: &str, given: &Given) {
    let Effect::NotYet(instead) = given.row.effect else { return };
    if given.value == given.row.default {
        return;
    }
    let what = if given.row.kind.is_secret() {
        given.row.name.to_owned()
    } else {
        format!("{} {}", given.row.name, quoted(&given.value).trim_matches('`'))
    };
    context.not_in_effect.push(NotInEffect { what, instead, place: place.to_owned(), line: given.span.line });
}
