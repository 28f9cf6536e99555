//! iSCSI names: validated and brought to the one form in which they are compared (RFC 7143 §4.2.7).
//!
//! Normal form here is ASCII with letters folded to lower case. The stringprep profile of RFC 3722 for other scripts
//! is not implemented: such a name is refused, never half-normalised.

use std::fmt;

/// Bytes that an iSCSI name may have (RFC 7143 §4.2.7.2).
pub const NAME_LENGTH_BYTES_MAX: usize = 223;

/// A name of an iSCSI node, in normal form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IscsiName(Box<str>);

/// Why a text is no iSCSI name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// Nothing there.
    Empty,
    /// More than [`NAME_LENGTH_BYTES_MAX`] bytes.
    TooLong,
    /// A blank or a control character.
    Blank,
    /// A character outside of ASCII: stringprep (RFC 3722) is not implemented.
    NotAscii,
    /// Neither `iqn.`, `eui.` nor `naa.` at its head (§4.2.7.3).
    NoType,
    /// `iqn.` with nothing behind it.
    NoAuthority,
    /// `eui.` wants 16 hexadecimal digits (§4.2.7.5).
    Eui,
    /// `naa.` wants 16 or 32 hexadecimal digits (§4.2.7.6).
    Naa,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an iSCSI name is not empty",
            Self::TooLong => "an iSCSI name has at most 223 bytes",
            Self::Blank => "an iSCSI name holds no blanks and no control characters",
            Self::NotAscii => "an iSCSI name outside of ASCII is not supported",
            Self::NoType => "an iSCSI name begins with `iqn.`, `eui.` or `naa.`",
            Self::NoAuthority => "`iqn.` is followed by a date and the domain that names the target",
            Self::Eui => "`eui.` is followed by 16 hexadecimal digits",
            Self::Naa => "`naa.` is followed by 16 or 32 hexadecimal digits",
        })
    }
}

impl std::error::Error for NameFault {}

/// What the standard does not allow in a name, though SCST serves it and initiators mostly take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameDeparture {
    /// `iqn.` is not followed by `yyyy-mm.` and a domain (§4.2.7.4).
    Date,
    /// A character that is no letter, digit, dash, dot or colon (§4.2.7.2).
    Character(char),
}

impl fmt::Display for NameDeparture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date => f.write_str("RFC 7143 wants `iqn.yyyy-mm.` and a reversed domain"),
            Self::Character(c) => {
                write!(f, "RFC 7143 allows letters, digits, `-`, `.` and `:` in a name, not `{c}`")
            }
        }
    }
}

impl IscsiName {
    /// Checks a name and folds it to its normal form.
    ///
    /// # Errors
    /// What makes it unusable as a name on the wire. What is merely unusual passes, see [`IscsiName::departure`].
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() {
            return Err(NameFault::Empty);
        }
        if text.len() > NAME_LENGTH_BYTES_MAX {
            return Err(NameFault::TooLong);
        }
        if !text.is_ascii() {
            return Err(NameFault::NotAscii);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NameFault::Blank);
        }
        let normal = text.to_ascii_lowercase();
        let (kind, rest) = normal.split_at_checked(4).ok_or(NameFault::NoType)?;
        let digits = rest.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(rest.len());
        match kind {
            "iqn." if rest.is_empty() => return Err(NameFault::NoAuthority),
            "iqn." => {}
            "eui." if digits == Some(16) => {}
            "eui." => return Err(NameFault::Eui),
            "naa." if matches!(digits, Some(16 | 32)) => {}
            "naa." => return Err(NameFault::Naa),
            _ => return Err(NameFault::NoType),
        }
        Ok(Self(normal.into_boxed_str()))
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first thing in this name that the standard does not allow, if any.
    #[must_use]
    pub fn departure(&self) -> Option<NameDeparture> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
        if let Some(rest) = self.0.strip_prefix("iqn.")
            && !is_dated(rest)
        {
            return Some(NameDeparture::Date);
        }
        self.0.chars().find(|&c| !allowed(c)).map(NameDeparture::Character)
    }
}

/// Whether the text goes `yyyy-mm.` and then begins a domain.
fn is_dated(rest: &str) -> bool {
    let bytes = rest.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let month = rest.get(5..7).and_then(|text| text.parse::<u8>().ok());
    (0..4).all(digit)
        && bytes.get(4) == Some(&b'-')
        && month.is_some_and(|month| (1..=12).contains(&month))
        && bytes.get(7) == Some(&b'.')
        && bytes.get(8).is_some_and(u8::is_ascii_alphanumeric)
}

impl fmt::Debug for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_names() {
        for text in [
            "iqn.1998-03.com.example.corp:diskarrays-sn-a8675309",
            "iqn.2001-04.com.example",
            "eui.02004567A425678D",
            "naa.52004567BA64678D",
            "naa.62004567BA64678D0123456789ABCDEF",
        ] {
            let name = IscsiName::parse(text).unwrap();
            assert_eq!(name.departure(), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_folded_to_lower_case() {
        assert_eq!(
            IscsiName::parse("IQN.2001-04.COM.Example:A").unwrap().as_str(),
            "iqn.2001-04.com.example:a"
        );
        assert_eq!(IscsiName::parse("naa.52004567BA64678D"), IscsiName::parse("NAA.52004567ba64678d"));
    }

    #[test]
    fn what_is_no_name_says_why() {
        let fault = |text: &str| IscsiName::parse(text).unwrap_err();
        assert_eq!(fault(""), NameFault::Empty);
        assert_eq!(fault("disk1"), NameFault::NoType);
        assert_eq!(fault("iqn"), NameFault::NoType);
        assert_eq!(fault("iqn."), NameFault::NoAuthority);
        assert_eq!(fault("iqn.2001-04.com.example:a b"), NameFault::Blank);
        assert_eq!(fault("iqn.2001-04.com.exämple"), NameFault::NotAscii);
        assert_eq!(fault("eui.02004567A425678"), NameFault::Eui);
        assert_eq!(fault("eui.02004567A425678g"), NameFault::Eui);
        assert_eq!(fault("naa.52004567BA64678D01"), NameFault::Naa);
        let longest = format!("iqn.2001-04.com.example:{}", "a".repeat(NAME_LENGTH_BYTES_MAX - 24));
        assert!(IscsiName::parse(&longest).is_ok());
        assert_eq!(fault(&format!("{longest}a")), NameFault::TooLong);
    }

    #[test]
    fn what_scst_serves_and_the_standard_does_not_allow_is_told() {
        let departure = |text: &str| IscsiName::parse(text).unwrap().departure();
        assert_eq!(departure("iqn.2006-10.net.vlnb:tgt_1"), Some(NameDeparture::Character('_')));
        assert_eq!(departure("iqn.storage:disk1"), Some(NameDeparture::Date));
        assert_eq!(departure("iqn.2006-13.net.vlnb"), Some(NameDeparture::Date));
        assert_eq!(departure("iqn.2006-10"), Some(NameDeparture::Date));
    }
}
