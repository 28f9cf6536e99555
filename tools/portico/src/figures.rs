//! Figures as people read them: three digits and a unit. Times, rates, sizes; and times as people write them.

use std::time::Duration;

/// Nanoseconds, as `850ns`, `12.3µs`, `4.56ms`, `1.20s`.
pub(crate) fn time_ns(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", three_digits(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", three_digits(ns, 1_000_000)),
        _ => format!("{}s", three_digits(ns, 1_000_000_000)),
    }
}

/// A number, as `950`, `12.3k`, `4.56M`.
pub(crate) fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{}k", three_digits(number, 1_000)),
        1_000_000..1_000_000_000 => format!("{}M", three_digits(number, 1_000_000)),
        _ => format!("{}G", three_digits(number, 1_000_000_000)),
    }
}

/// Bytes, as `512B`, `1.00MB`, in powers of 1000, as bandwidth is counted.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{}kB", three_digits(bytes, 1_000)),
        1_000_000..1_000_000_000 => format!("{}MB", three_digits(bytes, 1_000_000)),
        1_000_000_000..1_000_000_000_000 => format!("{}GB", three_digits(bytes, 1_000_000_000)),
        _ => format!("{}TB", three_digits(bytes, 1_000_000_000_000)),
    }
}

/// The size of a medium, in powers of 1024.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{} {name}", three_digits(bytes, unit)),
        None => format!("{bytes} bytes"),
    }
}

/// `number / unit` with three digits, rounded down, without the loss of a float.
fn three_digits(number: u64, unit: u64) -> String {
    let whole = number / unit;
    let thousandths = u128::from(number % unit) * 1000 / u128::from(unit);
    match whole {
        0..10 => format!("{whole}.{:02}", thousandths / 10),
        10..100 => format!("{whole}.{}", thousandths / 100),
        _ => whole.to_string(),
    }
}

/// Reads `500ms`, `2s`, `1m`, `1h`; a bare number is seconds.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let shown = [0, 850, 1_000, 12_345, 123_456, 999_999, 4_567_000, 1_200_000_000, 100_000_000_000];
        let expected = ["0ns", "850ns", "1.00µs", "12.3µs", "123µs", "999µs", "4.56ms", "1.20s", "100s"];
        assert_eq!(shown.map(time_ns), expected);
    }

    #[test]
    fn counts_and_bytes_have_three_digits_and_a_power_of_a_thousand() {
        let shown = [0, 9_999, 12_345, 999_999, 4_560_000, 7_000_000_000];
        assert_eq!(shown.map(count), ["0", "9999", "12.3k", "999k", "4.56M", "7.00G"]);
        let shown = [0, 512, 4_096, 250_000_000, 3_600_000_000, u64::MAX];
        assert_eq!(shown.map(bytes), ["0B", "512B", "4.09kB", "250MB", "3.60GB", "18446744TB"]);
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let shown = [512, 1 << 20, 64 << 30, (1 << 40) + (1 << 39)];
        assert_eq!(shown.map(size), ["512 bytes", "1 MiB", "64 GiB", "1.50 TiB"]);
    }

    #[test]
    fn times_are_read_with_their_unit() {
        let time = |text| parse_time(text).ok();
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("2"), Some(Duration::from_secs(2)));
        assert_eq!(time("2m"), Some(Duration::from_secs(120)));
        assert_eq!([time(""), time("s"), time("2d"), time("1.5s"), time("-1s")], [None; 5]);
        assert_eq!(time(&format!("{}h", u64::MAX)), None);
    }
}
