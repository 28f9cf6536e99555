//! The forms of values: booleans, numbers, ranges, lists, binary (RFC 7143 §6.1).
//!
//! Each function reads the whole value and gives `None` where it is not of that form; a malformed value of a
//! known key is answered with `Reject` (§6.2), which is the caller's to say.

/// The longest value that decodes to what §6.1 allows for a large-binary-value: 1024 bytes in hexadecimal.
pub const LARGE_BINARY_VALUE_BYTES_MAX: usize = 2 + 2 * LARGE_BINARY_BYTES_MAX;
/// The most bytes a large-binary-value stands for (§6.1).
pub const LARGE_BINARY_BYTES_MAX: usize = 1024;

/// "Yes" or "No".
#[must_use]
pub fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"Yes" => Some(true),
        b"No" => Some(false),
        _ => None,
    }
}

/// "Yes" or "No", to be said.
#[must_use]
pub const fn boolean_text(value: bool) -> &'static [u8] {
    if value { b"Yes" } else { b"No" }
}

/// A numerical-value: decimal without leading zeros, or 0x and hexadecimal digits, below 2^64.
#[must_use]
pub fn number(value: &[u8]) -> Option<u64> {
    match value {
        [b'0', b'x' | b'X', digits @ ..] => digits_of(digits, 16),
        [b'0', _, ..] => None,
        digits => digits_of(digits, 10),
    }
}

fn digits_of(digits: &[u8], radix: u32) -> Option<u64> {
    let first = digits.first()?;
    // from_str_radix also takes a sign.
    if !first.is_ascii_hexdigit() {
        return None;
    }
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()
}

/// A numeric-range, "low~high" with low ≤ high.
#[must_use]
pub fn range(value: &[u8]) -> Option<(u64, u64)> {
    let tilde = value.iter().position(|&byte| byte == b'~')?;
    let (low, high) = (number(&value[..tilde])?, number(&value[tilde + 1..])?);
    (low <= high).then_some((low, high))
}

/// The items of a list-of-values, in their order. An empty value is a list of one empty item.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|&byte| byte == b',')
}

/// A binary value, 0x and hexadecimal or 0b and base64, decoded into the front of `out`; how many bytes it
/// has.
#[must_use]
pub fn binary(value: &[u8], out: &mut [u8; LARGE_BINARY_BYTES_MAX]) -> Option<usize> {
    match value {
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits, out),
        [b'0', b'b' | b'B', text @ ..] => base64(text, out),
        _ => None,
    }
}

/// An odd number of digits stands for one with a leading 0.
fn hexadecimal(digits: &[u8], out: &mut [u8; LARGE_BINARY_BYTES_MAX]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    let (first, pairs) = digits.split_at(digits.len() % 2);
    let mut length = 0;
    for pair in first.chunks(1).chain(pairs.chunks(2)) {
        let byte = u8::try_from(digits_of(pair, 16)?).expect("two hexadecimal digits fit a byte");
        *out.get_mut(length)? = byte;
        length += 1;
    }
    Some(length)
}

/// RFC 4648 §4, padding required, unused bits zero.
fn base64(text: &[u8], out: &mut [u8; LARGE_BINARY_BYTES_MAX]) -> Option<usize> {
    let (groups, []) = text.as_chunks::<4>() else { return None };
    let mut length = 0;
    for (index, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&byte| byte == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 != groups.len()) {
            return None;
        }
        let mut bits: u32 = 0;
        for &byte in &group[..4 - padding] {
            bits = bits << 6 | u32::from(sextet(byte)?);
        }
        bits <<= 6 * padding;
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (kept, unused) = bytes.split_at(3 - padding);
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
        out.get_mut(length..length + kept.len())?.copy_from_slice(kept);
        length += kept.len();
    }
    (length > 0).then_some(length)
}

const fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(value: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; LARGE_BINARY_BYTES_MAX];
        binary(value, &mut out).map(|length| out[..length].to_vec())
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (text, meant) in [
            ("0", Some(0)),
            ("262144", Some(262_144)),
            ("0x40000", Some(262_144)),
            ("0X4aF", Some(0x4af)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0x10000000000000000", None),
            ("", None),
            ("0x", None),
            ("007", None),
            ("+7", None),
            ("0x+7", None),
            ("-1", None),
            ("7 ", None),
            ("a", None),
            ("0b10", None),
        ] {
            assert_eq!(number(text.as_bytes()), meant, "{text:?}");
        }
    }

    #[test]
    fn a_range_goes_upward() {
        assert_eq!(range(b"512~0x1000"), Some((512, 4096)));
        assert_eq!(range(b"4096~512"), None);
        assert_eq!(range(b"512"), None);
        assert_eq!(range(b"512~"), None);
    }

    #[test]
    fn booleans_are_spelled_one_way() {
        assert_eq!((boolean(b"Yes"), boolean(b"No")), (Some(true), Some(false)));
        assert_eq!((boolean(b"yes"), boolean(b"")), (None, None));
        assert_eq!(boolean(boolean_text(true)), Some(true));
    }

    #[test]
    fn a_list_keeps_its_order() {
        assert_eq!(list(b"CRC32C,None").collect::<Vec<_>>(), [&b"CRC32C"[..], b"None"]);
        assert_eq!(list(b"").count(), 1);
    }

    #[test]
    fn binary_is_hexadecimal_or_base64() {
        assert_eq!(decoded(b"0x0aFF"), Some(vec![0x0a, 0xff]));
        assert_eq!(decoded(b"0xaff"), Some(vec![0x0a, 0xff]));
        assert_eq!(decoded(b"0bCv8="), Some(vec![0x0a, 0xff]));
        assert_eq!(decoded(b"0BCg=="), Some(vec![0x0a]));
        assert_eq!(decoded(b"0bAAAA"), Some(vec![0, 0, 0]));
    }

    #[test]
    fn malformed_binary_is_nothing() {
        for text in [
            "0x",
            "0xzz",
            "0x+1",
            "0b",
            "0bA",
            "0bAA=A",
            "0bAA==AAAA",
            "0b====",
            "0bA===",
            "0bAB==",
            "0bA?==",
            "12",
        ] {
            assert_eq!(decoded(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn binary_beyond_1024_bytes_is_nothing() {
        let hexadecimal = |bytes: usize| ["0x", &"00".repeat(bytes)].concat();
        assert_eq!(hexadecimal(1024).len(), LARGE_BINARY_VALUE_BYTES_MAX);
        assert_eq!(decoded(hexadecimal(1024).as_bytes()).map(|bytes| bytes.len()), Some(1024));
        assert_eq!(decoded(hexadecimal(1025).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn every_number_is_read_in_both_forms(meant: u64) {
            prop_assert_eq!(number(format!("{meant}").as_bytes()), Some(meant));
            prop_assert_eq!(number(format!("{meant:#x}").as_bytes()), Some(meant));
        }

        #[test]
        fn random_values_never_panic(value: Vec<u8>) {
            let _ = (number(&value), range(&value), decoded(&value));
            let _ = decoded(&[b"0b", &value[..]].concat());
        }
    }
}
