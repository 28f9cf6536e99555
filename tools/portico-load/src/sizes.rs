//! How long commands are: one length, or several with their shares, for reads and for writes.

use std::fmt;
use std::str::FromStr;

use crate::quantity;
use crate::random::Random;

/// The most lengths of one mix.
const LENGTHS_MAX: usize = 64;

/// Lengths with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    /// Bytes, and how many of 100 commands are so long; the shares add up to 100.
    parts: Vec<(u64, u64)>,
}

impl Mix {
    /// All lengths, in bytes.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|(bytes, _)| *bytes)
    }

    /// The length of the next command.
    pub(crate) fn choose(&self, random: &mut Random) -> u64 {
        if let [(bytes, _)] = self.parts[..] {
            return bytes;
        }
        let mut at = random.below(100);
        for (bytes, share) in &self.parts {
            match at.checked_sub(*share) {
                None => return *bytes,
                Some(rest) => at = rest,
            }
        }
        unreachable!("the shares add up to 100")
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `4k`, or `4k/70:64k/30`; lengths without a share divide what is left among them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for part in text.split(':') {
            let (bytes, share) = part.split_once('/').unwrap_or((part, ""));
            let share = match share {
                "" => None,
                share => {
                    let share = share.parse::<u64>().ok().filter(|share| (1..=100).contains(share));
                    Some(share.ok_or_else(|| format!("`{part}`: a share is 1 to 100"))?)
                }
            };
            parts.push((quantity::parse_size(bytes)?, share));
        }
        if parts.len() > LENGTHS_MAX {
            return Err(format!("at most {LENGTHS_MAX} lengths"));
        }
        let given: u64 = parts.iter().filter_map(|(_, share)| *share).sum();
        let open = parts.iter().filter(|(_, share)| share.is_none()).count();
        let open = u64::try_from(open).expect("at most LENGTHS_MAX");
        let left = 100_u64.checked_sub(given).ok_or("the shares are more than 100")?;
        if (open == 0 && left > 0) || left < open {
            return Err("the shares do not add up to 100".to_owned());
        }
        // What does not divide evenly goes to the first ones.
        let mut shared = 0;
        let parts = parts.into_iter().map(|(bytes, share)| {
            let share = share.unwrap_or_else(|| {
                shared += 1;
                left / open + u64::from(shared <= left % open)
            });
            (bytes, share)
        });
        Ok(Self { parts: parts.collect() })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(bytes, _)] = self.parts[..] {
            return f.write_str(&quantity::size(bytes));
        }
        for (at, (bytes, share)) in self.parts.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{share} % {}", quantity::size(*bytes))?;
        }
        Ok(())
    }
}

/// The lengths of reads and of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) reads: Mix,
    pub(crate) writes: Mix,
}

impl FromStr for Sizes {
    type Err = String;

    /// One mix for both, or `READS,WRITES`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (reads, writes) = text.split_once(',').unwrap_or((text, text));
        Ok(Self { reads: reads.parse()?, writes: writes.parse()? })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reads == self.writes {
            return self.reads.fmt(f);
        }
        write!(f, "{} (reads) and {} (writes)", self.reads, self.writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(text: &str) -> Vec<(u64, u64)> {
        text.parse::<Mix>().unwrap().parts
    }

    #[test]
    fn a_mix_is_lengths_with_shares() {
        assert_eq!(mix("4k"), [(4096, 100)]);
        assert_eq!(mix("4k/70:64k/30"), [(4096, 70), (65536, 30)]);
        assert_eq!(mix("4k/50:8k:16k"), [(4096, 50), (8192, 25), (16384, 25)]);
        assert_eq!(mix("512:1k:2k"), [(512, 34), (1024, 33), (2048, 33)]);
    }

    #[test]
    fn shares_that_make_no_hundred_are_refused() {
        for wrong in ["4k/70:64k/20", "4k/70:64k/40", "4k/0", "4k/x", "4k/101", "x/5", "", "4k/100:8k"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_and_writes_may_differ() {
        let sizes: Sizes = "4k,8k/60:16k/40".parse().unwrap();
        assert_eq!(sizes.reads.lengths().collect::<Vec<_>>(), [4096]);
        assert_eq!(sizes.writes.lengths().collect::<Vec<_>>(), [8192, 16384]);
        assert_eq!(sizes.to_string(), "4 KiB (reads) and 60 % 8 KiB, 40 % 16 KiB (writes)");
        assert_eq!("4k".parse::<Sizes>().unwrap().to_string(), "4 KiB");
    }

    #[test]
    fn lengths_come_in_their_shares() {
        let mix: Mix = "4k/70:64k/30".parse().unwrap();
        let mut random = Random::new(5);
        let long = (0..10_000).filter(|_| mix.choose(&mut random) == 65536).count();
        assert!((2_800..3_200).contains(&long), "{long}");
    }
}
