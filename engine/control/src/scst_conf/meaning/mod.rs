//! From statements to a [`Configuration`]: every section in its place, every attribute in the schema, every name
//! resolved. Finds all faults it can; the caller drops the configuration if there was an error.

mod attributes;
mod checks;
mod device_groups;
mod devices;
mod sections;
mod targets;

use std::collections::HashMap;

use portico_model::configuration::{Configuration, Core, ForeignSection, Portal};

use super::NotInEffect;
use super::diagnostic::{Code, DIAGNOSTICS_MAX, Diagnostic, Diagnostics, nearest, quoted};
use super::media::Look;
use super::schema::{self, HandlerKind, Level};
use super::syntax::Statement;
use super::text::Span;
use attributes::Attributes;
use sections::{Expected, last_of_each, sections};

/// What is carried through all of it.
pub(super) struct Context<'a> {
    pub(super) diagnostics: &'a mut Diagnostics,
    pub(super) not_in_effect: Vec<NotInEffect>,
    /// Devices that are in a DEVICE_GROUP, and where that says so.
    pub(super) grouped_devices: HashMap<String, Span>,
    devices: HashMap<String, KnownDevice>,
    /// What paths name on this machine.
    look: Look,
}

/// A name that a LUN may give.
#[derive(Clone, Copy)]
enum KnownDevice {
    /// It will be served.
    Served(Span),
    /// It is written in a section that is not in effect.
    Unserved(Span),
}

impl KnownDevice {
    fn span(self) -> Span {
        match self {
            Self::Served(span) | Self::Unserved(span) => span,
        }
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(diagnostics: &'a mut Diagnostics, look: Look) -> Self {
        Self {
            diagnostics,
            look,
            not_in_effect: Vec::new(),
            grouped_devices: HashMap::new(),
            devices: HashMap::new(),
        }
    }

    /// The device whose name is nearest to a word. Not looked for once errors are only counted.
    fn nearest_device(&self, word: &str) -> Option<&str> {
        let is_shown = self.diagnostics.errors() < DIAGNOSTICS_MAX;
        is_shown.then(|| nearest(word, self.devices.keys().map(String::as_str))).flatten()
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }
}

const TOP: [Expected; 4] = [
    Expected::named("HANDLER"),
    Expected::named("TARGET_DRIVER"),
    Expected::named("DEVICE_GROUP"),
    Expected { keyword: "ALUA", words_min: 1, words_max: 1 },
];

/// Reads the statements of a whole file.
pub(super) fn configuration(context: &mut Context<'_>, statements: &[Statement]) -> Configuration {
    let core = Attributes::read(context, Level::Core, "the file's head", statements);
    let mut configuration = Configuration {
        core: Core {
            setup_id: core.number("setup_id").unwrap_or(0),
            poll_us: core.number("poll_us").unwrap_or(0),
            kept: core.kept(),
        },
        portals: Portal::everywhere(),
        ..Configuration::default()
    };
    let found = sections(context, "the file's head", &TOP, Level::Core, statements);
    let found = last_of_each(context, found);
    let of =
        |keyword: &'static str| found.iter().copied().filter(move |section| section.keyword() == keyword);

    let mut spans = Vec::new();
    for handler in of("HANDLER") {
        read_handler(context, &mut configuration, &mut spans, handler);
    }
    let mut target_spans = Vec::new();
    for driver in of("TARGET_DRIVER") {
        read_driver(context, &mut configuration, &mut target_spans, driver);
    }
    let mut groups: Vec<&Statement> = of("DEVICE_GROUP").collect();
    for alua in of("ALUA") {
        Attributes::read(context, Level::Nothing, "ALUA", alua.body());
        groups.extend(sections(
            context,
            "ALUA",
            &[Expected::named("DEVICE_GROUP")],
            Level::Nothing,
            alua.body(),
        ));
    }
    let own = device_groups::OwnPorts::of(&configuration);
    for group in last_of_each(context, groups) {
        let group = device_groups::read(context, &own, group);
        configuration.device_groups.push(group);
    }
    checks::devices(context, &configuration, &spans);
    checks::target_ports(context, &configuration, &target_spans, statements);
    checks::bound_devices(context, &configuration);
    configuration
}

fn read_handler(
    context: &mut Context<'_>,
    configuration: &mut Configuration,
    spans: &mut Vec<devices::DeviceSpans>,
    section: &Statement,
) {
    let Some(name) = section.word(1) else { return };
    match schema::handler(&name.text) {
        HandlerKind::Served(bit) => devices::read(context, configuration, spans, bit, section),
        kind => {
            let what = quoted(&name.text);
            let message = match kind {
                HandlerKind::Unknown => format!("there is no handler {what}: its devices are not served"),
                _ => format!("handler {what} is not in effect yet: its devices are not served"),
            };
            let mut warning = Diagnostic::warning(Code::UnknownHandler, name.span, message);
            let near = nearest(&name.text, schema::handler_names());
            if let (HandlerKind::Unknown, Some(near)) = (kind, near) {
                warning = warning.hint(format!("did you mean `{near}`?"));
            }
            context.report(warning);
            if name.text == "vcdrom" {
                devices::check_cdroms(context, section);
            }
            devices::remember_unserved(context, section.body());
            configuration.foreign.push(foreign(section));
        }
    }
}

fn read_driver(
    context: &mut Context<'_>,
    configuration: &mut Configuration,
    spans: &mut Vec<targets::TargetSpans>,
    section: &Statement,
) {
    let Some(name) = section.word(1) else { return };
    match name.text.as_str() {
        "iscsi" => targets::read_iscsi(context, configuration, spans, section),
        "copy_manager" => targets::read_copy_manager(context, configuration, section),
        other => {
            let message =
                format!("target driver {} is not supported: its targets are not served", quoted(other));
            let mut warning = Diagnostic::warning(Code::UnknownDriver, name.span, message);
            if let Some(near) = nearest(other, ["iscsi", "copy_manager"]) {
                warning = warning.hint(format!("did you mean `{near}`?"));
            }
            context.report(warning);
            configuration.foreign.push(foreign(section));
        }
    }
}

/// A section as it stands. Its depth is bounded by the parser.
fn foreign(statement: &Statement) -> ForeignSection {
    ForeignSection {
        words: statement.words.iter().map(|word| word.text.clone()).collect(),
        body: statement.body.as_ref().map(|body| body.iter().map(foreign).collect()),
    }
}
