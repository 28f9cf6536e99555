//! Sizes and times as people write and read them: `4k`, `10s`; `102 MB/s`, `45.3 µs`.

use std::time::Duration;

/// Reads `512`, `4k`, `1m`, `64g`, `1t`, in powers of 1024, as fio does; an `iB` or `b` behind it is taken.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.len() - lower.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = lower.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a size is a number and k, m, g or t".to_owned())?;
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("`{unit}` is none of k, m, g, t")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// Reads `500ms`, `10s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a time is a number and ms, s, m or h".to_owned())?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(format!("`{unit}` is none of ms, s, m, h")),
    };
    millis.map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// Nanoseconds, as `850 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
pub(crate) fn time_ns(ns: u64) -> String {
    scaled(ns, 1_000, &["ns", "µs", "ms", "s"])
}

/// A number, as `950`, `12.3 k`, `4.56 M`.
pub(crate) fn count(number: u64) -> String {
    scaled(number, 1_000, &["", "k", "M", "G"]).trim_end().to_owned()
}

/// Bytes per second, in powers of 1000, as bandwidth is counted.
pub(crate) fn bandwidth(bytes: u64) -> String {
    scaled(bytes, 1_000, &["B/s", "kB/s", "MB/s", "GB/s"])
}

/// Bytes, in powers of 1024, as a medium is counted.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1_024, &["bytes", "KiB", "MiB", "GiB", "TiB"])
}

/// `number` in the largest unit that leaves at least one, rounded down, with three digits where it is a fraction.
fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 1_u64;
    let mut names = units.iter();
    let mut name = names.next().copied().unwrap_or("");
    for next in names {
        if number / unit < step {
            break;
        }
        unit *= step;
        name = next;
    }
    let (whole, rest) = (number / unit, number % unit);
    let thousandths = u128::from(rest) * 1000 / u128::from(unit);
    match whole {
        _ if rest == 0 => format!("{whole} {name}"),
        0..10 => format!("{whole}.{:02} {name}", thousandths / 10),
        10..100 => format!("{whole}.{} {name}", thousandths / 100),
        _ => format!("{whole} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        let size = |text| parse_size(text).ok();
        assert_eq!([size("512"), size("4k"), size("4K"), size("4KiB")], [512, 4096, 4096, 4096].map(Some));
        assert_eq!(size("1t"), Some(1 << 40));
        assert_eq!([size(""), size("k"), size("-1"), size("1.5g"), size("4x")], [None; 5]);
        assert_eq!(size("99999999999t"), None);
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("10"), parse_time("10s"));
        assert!(parse_time("1d").is_err() && parse_time("s").is_err());
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(
            [850, 12_345, 4_567_000, 120_000_000_000].map(time_ns),
            ["850 ns", "12.3 µs", "4.56 ms", "120 s"]
        );
        assert_eq!([0, 999, 12_345, 4_560_000].map(count), ["0", "999", "12.3 k", "4.56 M"]);
        assert_eq!(bandwidth(102_400_000), "102 MB/s");
        assert_eq!([512, 1 << 20, 3 << 29].map(size), ["512 bytes", "1 MiB", "1.50 GiB"]);
    }
}
