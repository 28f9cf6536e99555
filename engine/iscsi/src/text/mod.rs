//! Text: `key=value` pairs in data segments, joined and split over PDUs (RFC 7143 §6.1).
//!
//! A *step* is what one side says before the other may answer: one PDU, or several tied together by the C
//! bit, which may cut it anywhere. [`Incoming`] joins a step, [`pairs`] reads it, [`Outgoing`] is written and
//! cut again. Values are [`value`]. What a key means is `negotiate`'s.
//!
//! More lenient than the standard in two things, both harmless: the last pair may lack its NUL, and NULs with
//! nothing between them are passed over (some initiators count the padding as text).

pub mod value;

use crate::violation::Violation;

/// The longest key (§6.1: "MUST NOT exceed 63 characters").
pub const KEY_BYTES_MAX: usize = 63;
/// The longest value, where its key does not say otherwise (§6.1).
pub const SIMPLE_VALUE_BYTES_MAX: usize = 255;
/// What any side must take in one step (§6.1).
pub const STEP_BYTES_REQUIRED: usize = 8192;
/// The most that this end takes in one step.
pub const STEP_BYTES_MAX: usize = 16 * 1024;
const _: () = assert!(STEP_BYTES_MAX >= STEP_BYTES_REQUIRED);

/// One `key=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// 1 to [`KEY_BYTES_MAX`] letters, digits, and ".-+@_#".
    pub key: &'a str,
    /// Bytes that are meant to be UTF-8 and need not be. Never a NUL.
    pub value: &'a [u8],
}

/// The pairs of a step, in their order.
pub fn pairs(step: &[u8]) -> Pairs<'_> {
    Pairs { rest: step }
}

/// See [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<Pair<'a>, Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.iter().position(|&byte| byte != 0)?;
        let text = &self.rest[start..];
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        self.rest = text.get(end + 1..).unwrap_or(&[]);
        Some(pair(&text[..end]))
    }
}

fn pair(text: &[u8]) -> Result<Pair<'_>, Violation> {
    let equals = text.iter().position(|&byte| byte == b'=').ok_or(Violation::TextWithoutEquals)?;
    let (key, value) = (&text[..equals], &text[equals + 1..]);
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Violation::TextKeyLength { length: key.len() });
    }
    if let Some(&byte) = key.iter().find(|&&byte| !is_key_byte(byte)) {
        return Err(Violation::TextKeyCharacter { byte });
    }
    let key = core::str::from_utf8(key).expect("key bytes are ASCII");
    Ok(Pair { key, value })
}

/// The characters of a standard-label (§6.1), and the "#" of the public extensions' old form (§13.23).
const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+' | b'@' | b'_' | b'#')
}

/// The text of one step as it comes in, PDU by PDU.
#[derive(Clone, Debug)]
pub struct Incoming {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Default for Incoming {
    /// Takes [`STEP_BYTES_MAX`].
    fn default() -> Self {
        Self::with_bound(STEP_BYTES_MAX)
    }
}

impl Incoming {
    /// A step of at most `bytes_max` bytes, which should not be below [`STEP_BYTES_REQUIRED`].
    #[must_use]
    pub const fn with_bound(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    /// Adds the data segment of one PDU, which may be empty.
    ///
    /// # Errors
    /// [`Violation::TextTooLong`] beyond the bound; nothing is added then.
    pub fn append(&mut self, data_segment: &[u8]) -> Result<(), Violation> {
        if data_segment.len() > self.bytes_max.saturating_sub(self.bytes.len()) {
            return Err(Violation::TextTooLong { maximum: self.bytes_max });
        }
        self.bytes.extend_from_slice(data_segment);
        Ok(())
    }

    /// The pairs so far. Complete once a PDU without the C bit has been added.
    #[must_use]
    pub fn pairs(&self) -> Pairs<'_> {
        pairs(&self.bytes)
    }

    /// How many bytes have come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the step, and gives its memory back.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
    }
}

/// More text than the writer's bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextFull;

impl core::fmt::Display for TextFull {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the text is full")
    }
}

impl core::error::Error for TextFull {}

/// The text of one step on its way out: pairs are pushed, then taken in pieces of what the peer's PDUs hold.
#[derive(Clone, Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    taken: usize,
    bytes_max: usize,
}

/// What one PDU carries of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The data segment; empty where nothing was pushed.
    pub bytes: &'a [u8],
    /// The C bit: more is to follow.
    pub continues: bool,
}

impl Outgoing {
    /// A text of at most `bytes_max` bytes, the NULs included.
    #[must_use]
    pub const fn with_bound(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, bytes_max }
    }

    /// Adds one pair. The key is one of ours or has been read by [`pairs`]; the value has no NUL.
    ///
    /// # Errors
    /// [`TextFull`], and nothing is added.
    pub fn push(&mut self, key: &str, value: &[u8]) -> Result<(), TextFull> {
        assert!(!key.is_empty() && key.bytes().all(is_key_byte), "{key:?} is no key");
        assert!(!value.contains(&0), "the value of {key} contains a NUL");
        let length = key.len() + 1 + value.len() + 1;
        if length > self.bytes_max.saturating_sub(self.bytes.len()) {
            return Err(TextFull);
        }
        self.bytes.reserve(length);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
        Ok(())
    }

    /// Takes the next data segment, of at most `piece_bytes_max` bytes (the peer's MaxRecvDataSegmentLength,
    /// never 0). An empty text has one piece, which is empty.
    pub fn take_piece(&mut self, piece_bytes_max: usize) -> Piece<'_> {
        assert!(piece_bytes_max > 0, "the peer takes no data");
        let start = self.taken;
        let end = self.bytes.len().min(start.saturating_add(piece_bytes_max));
        self.taken = end;
        Piece { bytes: &self.bytes[start..end], continues: end < self.bytes.len() }
    }

    /// How many bytes wait to be taken.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Forgets the step.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(step: &[u8]) -> Result<Vec<(&str, &[u8])>, Violation> {
        pairs(step).map(|pair| pair.map(|pair| (pair.key, pair.value))).collect()
    }

    #[test]
    fn two_pairs_are_read_in_their_order() {
        let step = b"InitiatorName=iqn.2026-11.io.portico:a\0SessionType=Discovery\0";
        assert_eq!(
            read(step),
            Ok(vec![("InitiatorName", &b"iqn.2026-11.io.portico:a"[..]), ("SessionType", b"Discovery")])
        );
    }

    #[test]
    fn no_data_is_no_pairs() {
        assert_eq!(read(b""), Ok(vec![]));
        assert_eq!(read(b"\0\0\0"), Ok(vec![]));
    }

    #[test]
    fn the_last_nul_may_be_missing_and_others_may_be_doubled() {
        assert_eq!(read(b"\0A=1\0\0\0B="), Ok(vec![("A", &b"1"[..]), ("B", b"")]));
    }

    #[test]
    fn an_equals_sign_in_a_value_belongs_to_it() {
        assert_eq!(read(b"CHAP_R=0bAA==\0"), Ok(vec![("CHAP_R", &b"0bAA=="[..])]));
    }

    #[test]
    fn a_value_need_not_be_utf_8() {
        assert_eq!(read(b"TargetAlias=\xff\xfe\0"), Ok(vec![("TargetAlias", &b"\xff\xfe"[..])]));
    }

    #[test]
    fn a_key_of_63_bytes_is_read_and_one_of_64_is_not() {
        let step = |length| [&b"K".repeat(length)[..], b"=1\0"].concat();
        assert_eq!(read(&step(63)).unwrap().len(), 1);
        assert_eq!(read(&step(64)), Err(Violation::TextKeyLength { length: 64 }));
        assert_eq!(read(b"=1\0"), Err(Violation::TextKeyLength { length: 0 }));
    }

    #[test]
    fn what_is_no_pair_is_named() {
        assert_eq!(read(b"HeaderDigest\0"), Err(Violation::TextWithoutEquals));
        assert_eq!(read(b"Header Digest=None\0"), Err(Violation::TextKeyCharacter { byte: b' ' }));
        assert_eq!(read(b"K\xc3\xa4y=1\0"), Err(Violation::TextKeyCharacter { byte: 0xc3 }));
    }

    #[test]
    fn a_pair_cut_by_the_c_bit_is_joined() {
        let mut incoming = Incoming::default();
        for segment in [&b"SendTar"[..], b"", b"gets=A", b"ll\0"] {
            incoming.append(segment).unwrap();
        }
        let joined: Vec<_> = incoming.pairs().collect();
        assert_eq!(joined, [Ok(Pair { key: "SendTargets", value: b"All" })]);
    }

    #[test]
    fn a_step_has_a_bound() {
        let mut incoming = Incoming::default();
        incoming.append(&[b'a'; STEP_BYTES_MAX - 1]).unwrap();
        let refused = Err(Violation::TextTooLong { maximum: STEP_BYTES_MAX });
        assert_eq!(incoming.append(b"bc"), refused);
        assert_eq!(incoming.append(b"b"), Ok(()));
        assert_eq!(incoming.append(b"c"), refused);
        assert_eq!(incoming.append(b""), Ok(()));
    }

    #[test]
    fn a_text_is_cut_to_the_peers_segments() {
        let mut outgoing = Outgoing::with_bound(64);
        outgoing.push("DataDigest", b"None").unwrap();
        assert_eq!(outgoing.take_piece(10), Piece { bytes: b"DataDigest", continues: true });
        assert_eq!(outgoing.take_piece(6), Piece { bytes: b"=None\0", continues: false });
        assert_eq!(outgoing.remaining(), 0);
    }

    #[test]
    fn an_empty_text_is_one_empty_piece() {
        assert_eq!(Outgoing::with_bound(64).take_piece(512), Piece { bytes: b"", continues: false });
    }

    #[test]
    fn a_full_text_takes_nothing_more_and_stays_whole() {
        let mut outgoing = Outgoing::with_bound(8);
        assert_eq!(outgoing.push("Key", b"long"), Err(TextFull));
        assert_eq!(outgoing.push("Key", b"val"), Ok(()));
        assert_eq!(outgoing.take_piece(512).bytes, b"Key=val\0");
    }

    proptest! {
        #[test]
        fn whatever_is_pushed_is_read_back_however_it_is_cut(
            said in proptest::collection::vec(("[A-Z][A-Za-z0-9.#-]{0,62}", "[^\0]{0,80}"), 0..20),
            piece_bytes_max in 1_usize..600,
        ) {
            let mut outgoing = Outgoing::with_bound(STEP_BYTES_MAX);
            for (key, value) in &said {
                outgoing.push(key, value.as_bytes()).unwrap();
            }
            let mut incoming = Incoming::default();
            loop {
                let piece = outgoing.take_piece(piece_bytes_max);
                incoming.append(piece.bytes).unwrap();
                if !piece.continues {
                    break;
                }
            }
            let heard: Vec<_> = incoming.pairs().map(Result::unwrap).collect();
            let said: Vec<_> = said.iter().map(|(key, value)| Pair { key, value: value.as_bytes() }).collect();
            prop_assert_eq!(heard, said);
        }

        #[test]
        fn random_bytes_never_panic(step: Vec<u8>) {
            prop_assert!(pairs(&step).count() <= step.len());
        }
    }
}
