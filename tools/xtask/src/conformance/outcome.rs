//! What the end of one test's process means.
//!
//! The tool counts skipped tests as passed and tells so in its text only; a name that matches nothing runs no test
//! and exits with 0; 255 is a test bench that could not be set up.

use crate::lab::process::{End, Finished};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Passed,
    Failed,
    /// The tool found that the target lacks what the test needs, or that it does not apply.
    Skipped,
    /// The tool died of a signal.
    Crashed,
    /// The tool did not end in time.
    Hung,
    /// The tool could not log in, found no such unit, or found keys that someone left behind.
    NoSetUp,
    /// The tool ran no test.
    NotRun,
    /// The target was gone, or did not answer, after the test.
    Dead,
}

/// How a test ended, and the first words of the tool that tell why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) reason: String,
}

impl Status {
    const ALL: [Status; 8] = [
        Status::Passed,
        Status::Failed,
        Status::Skipped,
        Status::Crashed,
        Status::Hung,
        Status::NoSetUp,
        Status::NotRun,
        Status::Dead,
    ];

    /// The word that tables and data files use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Passed => "passed",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
            Status::Crashed => "crashed",
            Status::Hung => "hung",
            Status::NoSetUp => "no-setup",
            Status::NotRun => "not-run",
            Status::Dead => "dead",
        }
    }

    /// The status of that name.
    pub(crate) fn from_name(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Neither passed nor skipped.
    pub(crate) fn is_failure(self) -> bool {
        !matches!(self, Status::Passed | Status::Skipped)
    }

    /// Worse than a test that says no: no target may do this, whatever it implements.
    pub(crate) fn is_breakdown(self) -> bool {
        self.is_failure() && self != Status::Failed
    }
}

impl Outcome {
    /// Reads the end of one test's process.
    pub(crate) fn of(finished: &Finished) -> Outcome {
        let text = finished.output.as_str();
        let status = match finished.end {
            End::TimedOut => Status::Hung,
            End::Killed(_) => Status::Crashed,
            End::Exited(255) => Status::NoSetUp,
            _ if tests_ran(text) != Some(1) => Status::NotRun,
            End::Exited(0) if of_the_test(text).contains(SKIPPED) => Status::Skipped,
            End::Exited(0) => Status::Passed,
            End::Exited(_) => Status::Failed,
        };
        let reason = match status {
            Status::Passed => String::new(),
            Status::Skipped => first(of_the_test(text), &[SKIPPED]),
            Status::Failed => first(text, &["[FAILED]", " - CU_"]),
            _ => text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned(),
        };
        Outcome { status, reason: reason.trim().replace('\t', " ") }
    }
}

/// What the test itself said. Before and after it the tool looks for stray reservation keys, and complains of a target
/// that has no PERSISTENT RESERVE IN, whatever the test is about.
fn of_the_test(text: &str) -> &str {
    let begin = text.find("  Test: ").unwrap_or(0);
    let said = &text[begin..];
    let end = ["\npassed", "\nFAILED", "\nRun Summary"].iter().filter_map(|mark| said.find(mark)).min();
    &said[..end.unwrap_or(said.len())]
}

/// The line of the first mark that is there at all; without what stands before the mark, if that is a bracket.
fn first(text: &str, marks: &[&str]) -> String {
    let found = marks.iter().find_map(|mark| text.lines().find(|line| line.contains(mark)));
    let line = found.unwrap_or_default();
    line.find('[').map_or(line, |at| &line[at..]).to_owned()
}

/// The column `Ran` of the row `tests` of CUnit's summary.
fn tests_ran(text: &str) -> Option<u32> {
    let row = text.lines().find_map(|line| line.trim_start().strip_prefix("tests "))?;
    row.split_whitespace().nth(1)?.parse().ok()
}

const SKIPPED: &str = "[SKIPPED]";

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(end: End, said: &str, ran: u32) -> Outcome {
        let output = format!(
            "  Test: Simple ...\n{said}\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n\
             \x20              tests      {ran}      {ran}      1      0        0\n"
        );
        Outcome::of(&Finished { end, output })
    }

    #[test]
    fn a_test_that_ran_and_complained_of_nothing_passed() {
        assert_eq!(ended(End::Exited(0), "    [OK] READ10 returned SUCCESS", 1).status, Status::Passed);
    }

    #[test]
    fn a_skipped_test_is_not_a_passed_one_although_the_tool_exits_with_0() {
        let outcome = ended(End::Exited(0), "    [SKIPPED] ORWRITE is not implemented.", 1);
        assert_eq!(outcome.status, Status::Skipped);
        assert_eq!(outcome.reason, "[SKIPPED] ORWRITE is not implemented.");
    }

    #[test]
    fn what_the_tool_says_around_a_test_is_not_the_tests_word() {
        let around = "    [SKIPPED] PERSISTENT RESERVE IN is not implemented.";
        let output = format!(
            "{around}\n  Test: Simple ...\n    [OK] READ10\npassed    Send PRIN/READ_KEYS\n{around}\n\
             Run Summary:    Type  Total    Ran Passed Failed Inactive\n              tests      1      1      1      0        0\n"
        );
        assert_eq!(Outcome::of(&Finished { end: End::Exited(0), output }).status, Status::Passed);
    }

    #[test]
    fn a_name_that_matches_no_test_is_not_a_pass() {
        assert_eq!(ended(End::Exited(0), "", 0).status, Status::NotRun);
        assert_eq!(
            Outcome::of(&Finished { end: End::Exited(0), output: String::new() }).status,
            Status::NotRun
        );
    }

    #[test]
    fn a_failure_tells_the_tools_first_complaint() {
        let outcome = ended(End::Exited(1), "    [FAILED] should have failed\n    [SKIPPED] rest", 1);
        assert_eq!(
            (outcome.status, outcome.reason.as_str()),
            (Status::Failed, "[FAILED] should have failed")
        );
        let outcome = ended(End::Exited(1), "    1. a.c:98  - CU_ASSERT_NOT_EQUAL(ret,0)", 1);
        assert_eq!(outcome.reason, "1. a.c:98  - CU_ASSERT_NOT_EQUAL(ret,0)");
    }

    #[test]
    fn crash_hang_and_a_bench_that_cannot_be_set_up_are_told_apart() {
        assert_eq!(ended(End::Killed(11), "", 1).status, Status::Crashed);
        assert_eq!(ended(End::TimedOut, "", 1).status, Status::Hung);
        assert_eq!(ended(End::Exited(255), "", 1).status, Status::NoSetUp);
        for status in Status::ALL {
            assert_eq!(Status::from_name(status.name()), Some(status));
        }
    }
}
