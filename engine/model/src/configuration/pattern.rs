//! Wildcard patterns of INITIATOR and `allowed_portal`: `*` is any text, `?` any one character, a leading `!` turns the
//! answer around. Letters compare without regard to case, since iSCSI names have none (RFC 7143 §4.2.7.2).

use std::fmt;

/// Bytes that a pattern may have: a name, `#`, and an address fit.
pub const PATTERN_LENGTH_BYTES_MAX: usize = 512;

/// A pattern, as it is written.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFault {
    /// Nothing there, or nothing behind the `!`: it would match nothing, or everything.
    Empty,
    /// More than [`PATTERN_LENGTH_BYTES_MAX`] bytes.
    TooLong,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a pattern is not empty",
            Self::TooLong => "a pattern has at most 512 bytes",
        })
    }
}

impl std::error::Error for PatternFault {}

impl Pattern {
    /// Takes a pattern over.
    ///
    /// # Errors
    /// If it is empty or too long.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        if text.strip_prefix('!').unwrap_or(text).is_empty() {
            return Err(PatternFault::Empty);
        }
        if text.len() > PATTERN_LENGTH_BYTES_MAX {
            return Err(PatternFault::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// The text, as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one name only: no wildcard in it.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.starts_with('!') && !self.0.contains(['*', '?'])
    }

    /// Whether the name is meant by this pattern. Takes no memory, and time at most pattern times name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('!') {
            Some(rest) => !wildcard(rest.as_bytes(), name.as_bytes()),
            None => wildcard(self.0.as_bytes(), name.as_bytes()),
        }
    }

    /// Whether two patterns are the same but for the case of their letters.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

/// Greedy matching with one point of return: the last `*` may always swallow one byte more. Names are ASCII, so that
/// a byte is a character.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&want) if want == b'?' || want.eq_ignore_ascii_case(&name[n]) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        assert!(matches("iqn.2005-03.org.open-iscsi:*", "iqn.2005-03.org.open-iscsi:node1"));
        assert!(matches("*", "iqn.anything"));
        assert!(matches("*node?", "iqn.2005-03.org.open-iscsi:node1"));
        assert!(!matches("*node?", "iqn.2005-03.org.open-iscsi:node"));
        assert!(!matches("*node?", "iqn.2005-03.org.open-iscsi:node12"));
        assert!(matches("*a*b*", "xxaxxbxx"));
        assert!(!matches("*a*b", "xxaxxbxx"));
        assert!(matches("a*", "a"));
        assert!(!matches("a?", "a"));
    }

    #[test]
    fn a_leading_exclamation_mark_turns_the_answer_around() {
        assert!(!matches("!iqn.a*", "iqn.abc"));
        assert!(matches("!iqn.a*", "iqn.bcd"));
        assert!(matches("a!b", "a!b"), "elsewhere it is itself");
    }

    #[test]
    fn letters_compare_without_regard_to_case() {
        assert!(matches("IQN.Foo", "iqn.foo"));
        assert!(matches("iqn.foo", "IQN.FOO"));
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert_eq!(Pattern::parse(""), Err(PatternFault::Empty));
        assert_eq!(Pattern::parse("!"), Err(PatternFault::Empty));
        assert_eq!(Pattern::parse(&"a".repeat(513)), Err(PatternFault::TooLong));
    }

    #[test]
    fn the_worst_pattern_against_the_longest_name_is_answered_at_once() {
        let pattern = "*a".repeat(255) + "b";
        assert!(!matches(&pattern, &"a".repeat(223)));
    }

    /// The definition, by recursion: what `wildcard` must agree with.
    fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => by_definition(rest, name),
            (Some((b'*', rest)), Some((_, tail))) => {
                by_definition(rest, name) || by_definition(pattern, tail)
            }
            (Some((b'?', rest)), Some((_, tail))) => by_definition(rest, tail),
            (Some((p, rest)), Some((n, tail))) => p.eq_ignore_ascii_case(n) && by_definition(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[abB*?]{1,8}", name in "[abA]{0,10}") {
            prop_assert_eq!(wildcard(pattern.as_bytes(), name.as_bytes()), by_definition(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
