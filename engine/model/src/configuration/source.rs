//! Where in its file a thing is written. Never part of what the thing is.

/// The line that a section or statement begins on; 0 for what no file says (the embedded default).
///
/// Any two sources are equal, so that a configuration whose lines only moved is the same configuration.
#[derive(Clone, Copy, Default)]
pub struct Source {
    /// From 1; 0 is nowhere.
    pub line: u32,
}

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Source {}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}", self.line)
    }
}
