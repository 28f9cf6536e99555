//! What an attribute's value may be, and the one place where its text is read.
//!
//! A fault never quotes the value: it may be a secret.

use std::net::IpAddr;

use portico_model::configuration::{
    AddressMethod, AluaState, BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES_MIN, DeviceIdentifier, Digest,
    GroupedPortal, PORTAL_GROUP_TAG_DEFAULT, Pattern, Portal, RbdImage, Redirect, Secret, User,
};

/// The kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `0` or `1`.
    Flag,
    /// `Yes` or `No`.
    YesNo,
    /// A number, decimal or with `0x`.
    Number {
        /// The least.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A power of two, in bytes.
    BlockSize,
    /// A size in bytes, from 1.
    Bytes,
    /// A size in MiB, from 1.
    Mebibytes,
    /// An absolute path.
    Path,
    /// `rbd:pool/image`, with or without a namespace and a snapshot.
    RbdName,
    /// A pool, an image, and their kin.
    RbdPart,
    /// `name value`.
    NameAndValue,
    /// Any text.
    Text {
        /// Its bytes.
        length_max: usize,
    },
    /// Printable ASCII: it goes into INQUIRY data.
    Ascii {
        /// Its characters.
        length_max: usize,
    },
    /// An identifier of so many bytes, in hexadecimal.
    Hex {
        /// The lengths in bytes that it may have.
        lengths: &'static [usize],
    },
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// `CRC32C`, `None`, or both with a comma.
    Digests,
    /// `user secret`.
    User,
    /// A wildcard pattern.
    Pattern,
    /// `ip[:port] temp|perm`.
    Redirect,
    /// `address:port [tag]`.
    Portal,
    /// An IP address.
    Address,
    /// `address [AccessControl]`.
    IsnsServer,
    /// PERIPHERAL, FLAT or LUN.
    AddressMethod,
    /// A state of a target port group.
    AluaState,
    /// Anything.
    Any,
}

/// Largest size of a device: 8 EiB less a bit, what a file offset can name.
pub const SIZE_BYTES_MAX: u64 = i64::MAX as u64;
/// Bytes of a path, Linux's PATH_MAX with its NUL.
const PATH_LENGTH_BYTES_MAX: usize = 4_095;
/// Bytes of a pool's or an image's name; librbd takes fewer than 96 of an image's.
const RBD_PART_LENGTH_BYTES_MAX: usize = 255;
/// Bytes of a CHAP name, and of a secret.
const USER_LENGTH_BYTES_MAX: usize = 255;

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it should be.
    pub wants: String,
    /// How to get there, if that is not the same.
    pub hint: Option<String>,
}

impl Fault {
    fn wants(wants: impl Into<String>) -> Self {
        Self { wants: wants.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Kind {
    /// Whether a value may be written as two words without quotes: there is only one way to read them.
    #[must_use]
    pub fn takes_two_words(self) -> bool {
        matches!(self, Self::User | Self::Redirect | Self::Portal | Self::IsnsServer)
    }

    /// Whether a value must never be shown.
    #[must_use]
    pub fn is_secret(self) -> bool {
        self == Self::User
    }

    /// Whether the text is such a value.
    ///
    /// # Errors
    /// Why it is not, without the text.
    pub fn check(self, text: &str) -> Result<(), Fault> {
        match self {
            Self::Flag => flag(text).map(drop),
            Self::YesNo => yes_no(text).map(drop),
            Self::Number { min, max } => ranged(text, min, max).map(drop),
            Self::BlockSize => block_size(text).map(drop),
            Self::Bytes => bytes(text).map(drop),
            Self::Mebibytes => mebibytes(text).map(drop),
            Self::Path => path(text),
            Self::RbdName => rbd_image(text).map(drop),
            Self::RbdPart => rbd_part(text),
            Self::NameAndValue => name_and_value(text).map(drop),
            Self::Text { length_max } if text.len() > length_max => {
                Err(Fault::wants(format!("a text of at most {length_max} bytes")))
            }
            Self::Ascii { length_max } => ascii(text, length_max),
            Self::Hex { lengths } => hex(text, lengths).map(drop),
            Self::OneOf(words) if !words.contains(&text) => Err(Fault::wants(one_of(words.iter().copied()))),
            Self::Digests => digests(text).map(drop),
            Self::User => user(text).map(drop),
            Self::Pattern => Pattern::parse(text).map(drop).map_err(|fault| Fault::wants(fault.to_string())),
            Self::Redirect => redirect(text).map(drop),
            Self::Portal => portal(text).map(drop),
            Self::Address => address(text).map(drop),
            Self::IsnsServer => isns_server(text),
            Self::AddressMethod => address_method(text).map(drop),
            Self::AluaState => alua_state(text).map(drop),
            Self::Text { .. } | Self::OneOf(_) | Self::Any => Ok(()),
        }
    }
}

/// `0` or `1`.
pub(super) fn flag(text: &str) -> Result<bool, Fault> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => {
            let meant = match text.to_ascii_lowercase().as_str() {
                "yes" | "true" | "on" | "y" => Some("write `1`"),
                "no" | "false" | "off" | "n" => Some("write `0`"),
                _ => None,
            };
            Err(Fault { wants: "0 or 1".into(), hint: meant.map(Into::into) })
        }
    }
}

/// `Yes` or `No`.
pub(super) fn yes_no(text: &str) -> Result<bool, Fault> {
    match text {
        _ if text.eq_ignore_ascii_case("yes") => Ok(true),
        _ if text.eq_ignore_ascii_case("no") => Ok(false),
        "1" => Err(Fault::wants("Yes or No").hint("write `Yes`")),
        "0" => Err(Fault::wants("Yes or No").hint("write `No`")),
        _ => Err(Fault::wants("Yes or No")),
    }
}

/// A number, decimal or with `0x`. A leading zero is refused: SCST reads it as octal, its author perhaps not.
pub(super) fn number(text: &str) -> Result<u64, Fault> {
    let fault = || Fault::wants("a number, decimal or with `0x`");
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return all_digits.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or_else(fault);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault());
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(fault().hint("remove the leading zero: SCST reads the number as octal"));
    }
    text.parse().map_err(|_| fault())
}

pub(super) fn ranged(text: &str, min: u64, max: u64) -> Result<u64, Fault> {
    let wants = || match max {
        u64::MAX => format!("a number from {min}"),
        _ => format!("a number from {min} to {max}"),
    };
    match number(text) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        Ok(_) => Err(Fault::wants(wants())),
        Err(fault) => Err(Fault { wants: wants(), ..fault }),
    }
}

pub(super) fn block_size(text: &str) -> Result<u32, Fault> {
    let value = number(text).ok().and_then(|value| u32::try_from(value).ok());
    value
        .filter(|value| {
            value.is_power_of_two() && (BLOCK_SIZE_BYTES_MIN..=BLOCK_SIZE_BYTES_MAX).contains(value)
        })
        .ok_or_else(|| {
            Fault::wants(format!(
                "a power of two from {BLOCK_SIZE_BYTES_MIN} to {BLOCK_SIZE_BYTES_MAX} bytes"
            ))
        })
}

pub(super) fn bytes(text: &str) -> Result<u64, Fault> {
    size(text, 1, "bytes")
}

pub(super) fn mebibytes(text: &str) -> Result<u64, Fault> {
    size(text, 1 << 20, "MiB").map(|value| value << 20)
}

/// A number of units; with a suffix, the fault says what it would be.
fn size(text: &str, unit_bytes: u64, unit: &str) -> Result<u64, Fault> {
    let fault = || Fault::wants(format!("a size in {unit}, from 1 to {}", SIZE_BYTES_MAX / unit_bytes));
    let in_range = |value: &u64| (1..=SIZE_BYTES_MAX / unit_bytes).contains(value);
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let shift = match suffix.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        "t" => Some(40),
        _ => None,
    };
    if let (Some(shift), Ok(count)) = (shift, digits.parse::<u64>()) {
        let meant = count.checked_mul(1 << shift).map(|bytes| bytes / unit_bytes).filter(in_range);
        return Err(match meant {
            Some(meant) => fault().hint(format!("there are no suffixes: write `{meant}`")),
            None => fault(),
        });
    }
    match number(text) {
        Ok(value) if in_range(&value) => Ok(value),
        Ok(_) => Err(fault()),
        Err(inner) => Err(Fault { hint: inner.hint, ..fault() }),
    }
}

fn path(text: &str) -> Result<(), Fault> {
    if text.len() > PATH_LENGTH_BYTES_MAX || text.contains('\0') {
        return Err(Fault::wants(format!("a path of at most {PATH_LENGTH_BYTES_MAX} bytes")));
    }
    if !text.starts_with('/') {
        return Err(Fault::wants("an absolute path").hint("begin it with `/`"));
    }
    Ok(())
}

fn ascii(text: &str, length_max: usize) -> Result<(), Fault> {
    let fits = text.len() <= length_max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    fits.then_some(()).ok_or_else(|| Fault::wants(format!("at most {length_max} printable ASCII characters")))
}

pub(super) fn hex(text: &str, lengths: &[usize]) -> Result<DeviceIdentifier, Fault> {
    DeviceIdentifier::from_hex(text)
        .filter(|identifier| lengths.contains(&identifier.bytes().len()))
        .ok_or_else(|| {
            let digits: Vec<String> = lengths.iter().map(|length| (length * 2).to_string()).collect();
            Fault::wants(format!("{} hexadecimal digits", digits.join(" or ")))
        })
}

pub(super) fn digests(text: &str) -> Result<Vec<Digest>, Fault> {
    let fault = || Fault::wants("`CRC32C`, `None`, or both with a comma between them");
    let digest = |word: &str| match word.trim() {
        word if word.eq_ignore_ascii_case("crc32c") => Some(Digest::Crc32c),
        word if word.eq_ignore_ascii_case("none") => Some(Digest::None),
        _ => None,
    };
    let found: Option<Vec<Digest>> = text.split(',').map(digest).collect();
    found.filter(|list| list.len() == 1 || (list.len() == 2 && list[0] != list[1])).ok_or_else(fault)
}

/// `user secret`, parted by blanks.
pub(super) fn user(text: &str) -> Result<User, Fault> {
    let fault = || Fault::wants("a user and a secret").hint("write `\"user secret\"`");
    let (name, secret) = text.trim_matches(' ').split_once([' ', '\t']).ok_or_else(fault)?;
    let secret = secret.trim_matches([' ', '\t']);
    if name.is_empty() || secret.is_empty() {
        return Err(fault());
    }
    if name.len() > USER_LENGTH_BYTES_MAX || secret.len() > USER_LENGTH_BYTES_MAX {
        return Err(Fault::wants(format!(
            "a user and a secret of at most {USER_LENGTH_BYTES_MAX} bytes each"
        )));
    }
    Ok(User { name: name.to_owned(), secret: Secret::new(secret) })
}

pub(super) fn rbd_image(text: &str) -> Result<RbdImage, Fault> {
    RbdImage::from_filename(text)
        .ok_or_else(|| Fault::wants("an image as `rbd:pool/image` or `rbd:pool/image@snapshot`"))
}

fn rbd_part(text: &str) -> Result<(), Fault> {
    let fits = !text.is_empty()
        && text.len() <= RBD_PART_LENGTH_BYTES_MAX
        && text.chars().all(|letter| !letter.is_control() && !matches!(letter, '/' | '@' | ':'));
    if fits { Ok(()) } else { Err(Fault::wants("a name without `/`, `@` and `:`")) }
}

/// An option of Ceph's and its value.
pub(super) fn name_and_value(text: &str) -> Result<(String, String), Fault> {
    let fault = || Fault::wants("an option of Ceph's and its value").hint("write `\"name value\"`");
    let (name, value) = text.trim_matches(' ').split_once([' ', '\t']).ok_or_else(fault)?;
    let value = value.trim_matches([' ', '\t']);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if name.is_empty() || value.is_empty() || !name.chars().all(is_name) {
        return Err(fault());
    }
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn redirect(text: &str) -> Result<Redirect, Fault> {
    let fault = || Fault::wants("an address with or without a port, and `temp` or `perm`");
    let (address, kind) = text.trim().split_once([' ', '\t']).ok_or_else(fault)?;
    let permanent = match kind.trim() {
        "perm" => true,
        "temp" => false,
        _ => return Err(fault()),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let is_address =
        bare.parse::<std::net::IpAddr>().is_ok() || address.parse::<std::net::SocketAddr>().is_ok();
    is_address.then(|| Redirect { address: address.to_owned(), permanent }).ok_or_else(fault)
}

/// `address:port`, and the tag of a portal group, from 1 (RFC 7143 §13.9 has 0 to 65535; 0 is no group of ours).
pub(super) fn portal(text: &str) -> Result<GroupedPortal, Fault> {
    let fault = || Fault::wants("an address with its port, and perhaps the tag of a portal group");
    let (at, tag) = match text.trim().split_once([' ', '\t']) {
        None => (text.trim(), PORTAL_GROUP_TAG_DEFAULT),
        Some((at, tag)) => (at, ranged(tag.trim(), 1, u64::from(u16::MAX))?.try_into().map_err(|_| fault())?),
    };
    let portal = at
        .parse()
        .map(Portal)
        .map_err(|_| fault().hint("write it like `10.0.0.1:3260` or `[fd00::1]:3260`"))?;
    Ok(GroupedPortal { portal, tag })
}

pub(super) fn address(text: &str) -> Result<IpAddr, Fault> {
    text.trim().parse().map_err(|_| Fault::wants("an IP address"))
}

fn isns_server(text: &str) -> Result<(), Fault> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [_] | [_, "AccessControl"] => Ok(()),
        _ => Err(Fault::wants("an address, and perhaps `AccessControl`")),
    }
}

pub(super) fn address_method(text: &str) -> Result<AddressMethod, Fault> {
    AddressMethod::from_word(text)
        .ok_or_else(|| Fault::wants(one_of(AddressMethod::WORDS.iter().map(|(word, _)| *word))))
}

pub(super) fn alua_state(text: &str) -> Result<AluaState, Fault> {
    AluaState::from_word(text)
        .ok_or_else(|| Fault::wants(one_of(AluaState::WORDS.iter().map(|(word, _)| *word))))
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    format!("one of {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal_and_never_octal() {
        assert_eq!(number("0"), Ok(0));
        assert_eq!(number("4096"), Ok(4096));
        assert_eq!(number("0x1234"), Ok(0x1234));
        for text in ["", "-1", "+1", "0x", "0x+1", "1e3", "18446744073709551616", "1 "] {
            assert!(number(text).is_err(), "{text}");
        }
        assert!(number("010").unwrap_err().hint.unwrap().contains("octal"));
    }

    #[test]
    fn a_size_with_a_suffix_is_told_what_it_would_be() {
        assert_eq!(bytes("68719476736"), Ok(64 << 30));
        assert_eq!(bytes("64G").unwrap_err().hint.unwrap(), "there are no suffixes: write `68719476736`");
        assert_eq!(bytes("64GiB").unwrap_err().hint.unwrap(), "there are no suffixes: write `68719476736`");
        assert_eq!(mebibytes("64g").unwrap_err().hint.unwrap(), "there are no suffixes: write `65536`");
        assert_eq!(mebibytes("256"), Ok(256 << 20));
        assert!(bytes("0").is_err());
        assert!(bytes("9223372036854775808").is_err());
        assert!(mebibytes("8796093022208").is_err(), "it would not fit into bytes");
        assert!(bytes("99999999999999999999T").is_err());
    }

    #[test]
    fn block_sizes_are_powers_of_two_from_512() {
        assert_eq!(block_size("4096"), Ok(4096));
        for text in ["0", "256", "513", "131072", "4294967296"] {
            assert!(block_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_has_a_secret_which_may_hold_blanks() {
        let joe = user("joe open sesame").unwrap();
        assert_eq!((joe.name.as_str(), joe.secret.expose()), ("joe", &b"open sesame"[..]));
        assert!(user("joe").is_err());
        assert!(user("").is_err());
    }

    #[test]
    fn digests_are_a_list_in_the_order_of_preference() {
        assert_eq!(digests("CRC32C,None"), Ok(vec![Digest::Crc32c, Digest::None]));
        assert_eq!(digests("None"), Ok(vec![Digest::None]));
        for text in ["", "CRC32C,CRC32C", "MD5", "None,CRC32C,None"] {
            assert!(digests(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_redirect_names_an_address_and_for_how_long() {
        assert_eq!(
            redirect("10.0.0.1:3260 temp"),
            Ok(Redirect { address: "10.0.0.1:3260".into(), permanent: false })
        );
        assert!(redirect("[fe80::1]:3260 perm").is_ok_and(|redirect| redirect.permanent));
        assert!(redirect("[fe80::1] perm").is_ok());
        for text in ["10.0.0.1", "10.0.0.1 maybe", "host temp", ""] {
            assert!(redirect(text).is_err(), "{text}");
        }
    }
}
