//! Counts what `cargo test` says of each test program.

use super::Tally;

/// The sum of all `test result:` lines; ignored tests are skipped ones.
pub(super) fn cargo_test(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let words: Vec<&str> = line.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        let before = |word: &str| {
            let at = words.iter().position(|other| *other == word)?;
            words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
        };
        tally.add(Tally {
            passed: before("passed").unwrap_or(0),
            failed: before("failed").unwrap_or(0),
            skipped: before("ignored").unwrap_or(0),
        });
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_all_programs_are_added_up() {
        let output = "running 2 tests\ntest a ... ok\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\
            test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.10s\n";
        assert_eq!(cargo_test(output), Tally { passed: 16, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_build_that_failed_counts_no_test() {
        assert_eq!(cargo_test("error[E0308]: mismatched types\n"), Tally::default());
    }
}
