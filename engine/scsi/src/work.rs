//! Work on the whole medium: SANITIZE and FORMAT UNIT (SBC-3 §4.11, §5.2, §5.29).
//!
//! The command is a change like others: the single writer makes the unit not ready for every nexus, notes down that the work
//! has begun, lets every shard drain, and hands the [`Work`] to one of them. While it goes on all commands but a few end
//! with its progress. What began and did not end, because the medium failed or the process was gone, is a failure that
//! outlives the process: of what was not reached yet nobody may read.

use crate::bits::be16;
use crate::sense::{AdditionalSense, Outcome, Sense, SenseKey};

/// Which command it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// SANITIZE.
    Sanitize,
    /// FORMAT UNIT.
    Format,
}

impl WorkKind {
    /// Sense data of the commands that find it under way; `progress` in parts of 65536 (SPC-4 §4.5.2.4.4).
    pub(crate) const fn under_way(self, progress: u16) -> Sense {
        let additional = match self {
            Self::Sanitize => AdditionalSense::SANITIZE_IN_PROGRESS,
            Self::Format => AdditionalSense::FORMAT_IN_PROGRESS,
        };
        Sense::new(SenseKey::NotReady, additional).with_progress(progress)
    }

    /// Sense data of the commands that come after it has failed (SBC-3 §4.11.4, §4.9).
    pub(crate) const fn failed_before(self) -> Sense {
        let additional = match self {
            Self::Sanitize => AdditionalSense::SANITIZE_FAILED,
            Self::Format => AdditionalSense::MEDIUM_FORMAT_CORRUPTED,
        };
        Sense::new(SenseKey::MediumError, additional)
    }

    /// What the command itself ends with when it fails.
    pub const fn failure(self) -> Outcome {
        let additional = match self {
            Self::Sanitize => AdditionalSense::SANITIZE_FAILED,
            Self::Format => AdditionalSense::FORMAT_FAILED,
        };
        Outcome::check(Sense::new(SenseKey::MediumError, additional))
    }
}

/// What becomes of the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// They are zeroes, and their space is given back where `deallocate`.
    Zeroes {
        /// Whether it is.
        deallocate: bool,
    },
    /// The pattern, begun anew in each block, in so many passes; with `invert` each is the inverse of the one before, and
    /// the last is the pattern itself.
    Pattern {
        /// INITIALIZATION PATTERN: at least one byte, at most a block.
        pattern: Box<[u8]>,
        /// OVERWRITE COUNT, 1 to 31.
        passes: u8,
        /// INVERT.
        invert: bool,
    },
}

/// Work on all blocks of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Which command.
    pub kind: WorkKind,
    /// IMMED: the status does not wait for its end.
    pub immediate: bool,
    /// AUSE: a failure may be left by EXIT FAILURE MODE.
    pub unrestricted: bool,
    /// What is done.
    pub fill: Fill,
}

impl Fill {
    /// How often all blocks are gone over.
    pub const fn passes(&self) -> u8 {
        match self {
            Self::Zeroes { .. } => 1,
            Self::Pattern { passes, .. } => *passes,
        }
    }

    /// One block of `length` bytes as pass `pass`, from 0 on, leaves it.
    pub fn block(&self, pass: u8, length: usize) -> Vec<u8> {
        match self {
            Self::Zeroes { .. } => vec![0; length],
            Self::Pattern { pattern, passes, invert } => {
                // SBC-3 §5.29.2.2: the first pass is such that the last one is the pattern.
                let inverse = if *invert && (passes - 1 - pass) % 2 == 1 { 0xff } else { 0 };
                pattern.iter().cycle().take(length).map(|byte| byte ^ inverse).collect()
            }
        }
    }
}

/// Work that began and is not known to have ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Which command.
    pub kind: WorkKind,
    /// Its AUSE.
    pub unrestricted: bool,
}

/// How far the unit is with such work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Under way, in parts of 65536.
    UnderWay(Unfinished, u16),
    /// It failed.
    Failed(Unfinished),
}

const OVERWRITE_HEADER_BYTES: usize = 4;

/// PARAMETER LIST LENGTH of OVERWRITE: more than the header, at most a block beside it (SBC-3 table 110).
///
/// # Errors
/// INVALID FIELD IN CDB.
pub(crate) fn overwrite_length(length: u16, block_length: u32) -> Result<usize, Outcome> {
    let fits = u32::from(length) > 4 && u32::from(length) < block_length + 5;
    if fits { Ok(usize::from(length)) } else { Err(Outcome::invalid_cdb_field(7, None)) }
}

/// The parameter list of OVERWRITE (SBC-3 §5.29.2.2).
///
/// # Errors
/// INVALID FIELD IN PARAMETER LIST, PARAMETER LIST LENGTH ERROR for a pattern that is not all there.
pub(crate) fn overwrite(list: &[u8], block_length: u32) -> Result<Fill, Outcome> {
    let refuse = |byte, bit| Err(Outcome::check(Sense::invalid_parameter(byte, bit)));
    let broken_off = Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let header = list.get(..OVERWRITE_HEADER_BYTES).ok_or(broken_off)?;
    let passes = header[0] & 0x1f;
    let length = usize::from(be16(header, 2));
    if header[0] & 0x60 != 0 {
        // TEST: nothing but 00b is the standard's.
        return refuse(0, Some(6));
    }
    if passes == 0 {
        return refuse(0, Some(4));
    }
    if header[1] != 0 {
        return refuse(1, None);
    }
    if length == 0 || length > usize::try_from(block_length).unwrap_or(usize::MAX) {
        return refuse(2, None);
    }
    let pattern = list.get(OVERWRITE_HEADER_BYTES..OVERWRITE_HEADER_BYTES + length).ok_or(broken_off)?;
    Ok(Fill::Pattern { pattern: pattern.into(), passes, invert: header[0] & 0x80 != 0 })
}

/// Length of FORMAT UNIT's parameter list: its header, for no other list is taken.
pub(crate) const fn format_header_bytes(long_list: bool) -> usize {
    if long_list { 8 } else { 4 }
}

/// The parameter list of FORMAT UNIT (SBC-3 §5.2.2): IMMED alone counts. There are no defects to be told of, no certification
/// to be left out, no other pattern than zeroes.
///
/// # Errors
/// INVALID FIELD IN PARAMETER LIST for what would be another format, PARAMETER LIST LENGTH ERROR.
pub(crate) fn format(list: &[u8], long_list: bool) -> Result<bool, Outcome> {
    const OPTIONS_VALID: u8 = 0x80;
    const DEFECT_OPTIONS: u8 = 0x70;
    const IMMED: u8 = 0x02;
    let refuse = |byte, bit| Err(Outcome::check(Sense::invalid_parameter(byte, bit)));
    let header = list.get(..format_header_bytes(long_list));
    let header = header.ok_or(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR))?;
    if header[0] != 0 {
        // PROTECTION FIELDS USAGE: there is no protection information.
        return refuse(0, Some(2));
    }
    let flags = header[1];
    // DPRY, DCRT and STPF say what is true here in any case; they count only with FOV.
    let known = OPTIONS_VALID | IMMED | if flags & OPTIONS_VALID == 0 { 0 } else { DEFECT_OPTIONS };
    let wrong = flags & !known;
    if wrong != 0 {
        return refuse(1, Some(u8::try_from(wrong.ilog2()).expect("a bit of a byte")));
    }
    if let Some(at) = (2..header.len()).find(|at| header[*at] != 0) {
        return refuse(u16::try_from(at).expect("a small index"), None);
    }
    Ok(flags & IMMED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pass_leaves_the_pattern_whatever_their_number() {
        for passes in 1..=31 {
            let fill = Fill::Pattern { pattern: [1, 2, 3].into(), passes, invert: true };
            assert_eq!(fill.block(passes - 1, 4), [1, 2, 3, 1]);
            if passes > 1 {
                assert_eq!(fill.block(passes - 2, 4), [!1, !2, !3, !1]);
            }
        }
        let plain = Fill::Pattern { pattern: [7].into(), passes: 2, invert: false };
        assert_eq!((plain.block(0, 2), plain.block(1, 2)), (vec![7, 7], vec![7, 7]));
    }

    #[test]
    fn an_overwrite_is_read_or_refused_by_its_field() {
        let list = |first: u8, reserved: u8, length: u16, pattern: usize| {
            let [high, low] = length.to_be_bytes();
            [&[first, reserved, high, low][..], &vec![0xaa; pattern]].concat()
        };
        let pattern = |passes, invert| Ok(Fill::Pattern { pattern: [0xaa; 2].into(), passes, invert });
        assert_eq!(overwrite(&list(0x01, 0, 2, 2), 512), pattern(1, false));
        assert_eq!(overwrite(&list(0x9f, 0, 2, 5), 512), pattern(31, true));
        let refused = |byte, bit| Err(Outcome::check(Sense::invalid_parameter(byte, bit)));
        assert_eq!(overwrite(&list(0x00, 0, 2, 2), 512), refused(0, Some(4)));
        assert_eq!(overwrite(&list(0x21, 0, 2, 2), 512), refused(0, Some(6)));
        assert_eq!(overwrite(&list(0x01, 1, 2, 2), 512), refused(1, None));
        assert_eq!(overwrite(&list(0x01, 0, 0, 2), 512), refused(2, None));
        assert_eq!(overwrite(&list(0x01, 0, 513, 513), 512), refused(2, None));
        let broken_off = Err(Outcome::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(overwrite(&list(0x01, 0, 3, 2), 512), broken_off);
        assert_eq!(overwrite(&[1, 0], 512), broken_off);
        assert!([4, 517].iter().all(|length| overwrite_length(*length, 512).is_err()));
        assert!([5, 516].iter().all(|length| overwrite_length(*length, 512).is_ok()));
    }

    #[test]
    fn a_format_is_read_or_refused_by_its_field() {
        let refused = |byte, bit| Err(Outcome::check(Sense::invalid_parameter(byte, bit)));
        assert_eq!(format(&[0, 0x02, 0, 0], false), Ok(true));
        assert_eq!(format(&[0, 0xf0, 0, 0], false), Ok(false));
        assert_eq!(format(&[0; 8], true), Ok(false));
        assert_eq!(format(&[1, 0, 0, 0], false), refused(0, Some(2)));
        assert_eq!(format(&[0, 0x08, 0, 0], false), refused(1, Some(3)), "IP");
        assert_eq!(format(&[0, 0x40, 0, 0], false), refused(1, Some(6)), "DPRY without FOV");
        assert_eq!(format(&[0, 0, 0, 8], false), refused(3, None), "a defect list");
        assert!(format(&[0, 0, 0], false).is_err());
    }
}
