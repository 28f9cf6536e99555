//! What the reader says to whole files.

mod files;
mod random;
mod rendering;
mod rows;
mod values;
mod writing;

use portico_model::configuration::Configuration;

use super::{Code, Parsed, Severity, parse};

fn read(text: &str) -> Parsed {
    parse("scst.conf", text.as_bytes())
}

/// The configuration of a file about which there is nothing to say.
fn sound(text: &str) -> Configuration {
    let parsed = read(text);
    assert_eq!(findings(&parsed), [], "{}", parsed.report(super::Colour::Off));
    parsed.configuration.unwrap()
}

/// The configuration of a file about which there are exactly these warnings.
fn warned(text: &str, codes: &[Code]) -> Configuration {
    let parsed = read(text);
    let expected: Vec<_> = codes.iter().map(|&code| (Severity::Warning, code)).collect();
    assert_eq!(severities(&parsed), expected, "{}", parsed.report(super::Colour::Off));
    parsed.configuration.unwrap()
}

/// The line and code of each finding.
fn findings(parsed: &Parsed) -> Vec<(u32, Code)> {
    parsed.diagnostics.iter().map(|diagnostic| (diagnostic.span.line, diagnostic.code)).collect()
}

fn severities(parsed: &Parsed) -> Vec<(Severity, Code)> {
    parsed.diagnostics.iter().map(|diagnostic| (diagnostic.severity, diagnostic.code)).collect()
}

/// A file that is refused for exactly one thing, which is returned.
fn refused(text: &str) -> super::Diagnostic {
    let parsed = read(text);
    let errors: Vec<_> =
        parsed.diagnostics.iter().filter(|found| found.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{}", parsed.report(super::Colour::Off));
    assert!(parsed.configuration.is_none());
    errors[0].clone()
}

/// A file with one device `d`, whose section holds these lines.
fn with_device(handler: &str, lines: &str) -> String {
    format!("HANDLER {handler} {{\n DEVICE d {{\n{lines}\n }}\n}}\n")
}

/// A file with devices `a`, `b` and `c` and one target, whose section holds these lines, which begin at line 7.
fn with_target(lines: &str) -> String {
    let devices = "HANDLER vdisk_nullio {\n DEVICE a\n DEVICE b\n DEVICE c\n}\n";
    format!(
        "{devices}TARGET_DRIVER iscsi {{ enabled 1\n TARGET iqn.2026-11.com.example:t {{ enabled 1\n{lines}\n }}\n}}\n"
    )
}
