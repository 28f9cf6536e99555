//! What was the limit: the target, the rate that was asked for, the generator itself, or the machine that it runs on.

use std::fmt;

use crate::options::Plan;
use crate::tally::Tally;

/// From this share of a core on, in thousandths, a thread is as fast as it can be.
const BUSY_MIN: u64 = 950;
/// From this share of the time on, in thousandths, it matters that a thread got no core.
const HELD_UP_MIN: u64 = 50;
/// An open loop keeps up when it does so many thousandths of its rate.
const KEPT_UP_MIN: u128 = 990;

/// What kept the load from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The generator's threads had time to spare: they waited for the target (or for the queue depth to be raised).
    Target {
        /// The most that one of them was busy, in thousandths.
        busiest: u64,
    },
    /// Commands came as often as was asked for.
    Rate,
    /// So many of all threads had no time left.
    Generator { full: usize, threads: usize },
    /// A thread waited so long for a core that others had, and had no time left with that; in thousandths.
    Machine { held_up: u64 },
}

impl Limit {
    /// What the counts say; `None` where nothing was measured.
    pub(crate) fn of(plan: &Plan, tally: &Tally) -> Option<Self> {
        let threads = tally.busy.len();
        let busiest = *tally.busy.iter().max()?;
        let full = tally.busy.iter().filter(|busy| **busy >= BUSY_MIN).count();
        let held_up = |(busy, held_up): (&u64, &u64)| {
            let has_no_time = *busy < BUSY_MIN && busy + held_up >= BUSY_MIN && *held_up >= HELD_UP_MIN;
            has_no_time.then_some(*held_up)
        };
        let held_up = tally.busy.iter().zip(&tally.held_up).filter_map(held_up).max();
        Some(match (full, held_up) {
            _ if plan.rate.is_some_and(|rate| kept_up(rate, tally)) => Self::Rate,
            (0, Some(held_up)) => Self::Machine { held_up },
            (0, None) => Self::Target { busiest },
            (full, _) => Self::Generator { full, threads },
        })
    }

    /// Its name in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Target { .. } => "target",
            Self::Rate => "rate",
            Self::Generator { .. } => "generator",
            Self::Machine { .. } => "machine",
        }
    }
}

fn kept_up(rate: u64, tally: &Tally) -> bool {
    let [reads, writes, _] = tally.done();
    let wanted = u128::from(rate) * tally.elapsed.as_nanos() / 1_000_000_000;
    tally.lateness.unsent == 0 && u128::from(reads + writes) * 1000 >= wanted * KEPT_UP_MIN
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target { busiest } => write!(
                f,
                "limit: the target, at this queue depth; the generator's threads had {} % of their time left.",
                100 - (busiest / 10).min(100)
            ),
            Self::Rate => f.write_str("limit: the rate that was asked for; the target kept up with it."),
            Self::Generator { full, threads } if full == threads => f.write_str(
                "limit: the load generator, not the target: its threads had no time left. Give it more --cores.",
            ),
            Self::Generator { full, threads } => write!(
                f,
                "limit: in part the load generator: {full} of its {threads} threads had no time left. Give it more \
                 --cores."
            ),
            Self::Machine { held_up } => write!(
                f,
                "limit: the machine of the load generator, not the target: a thread waited {} % of the time for a \
                 core that others had, and had no time left.",
                held_up / 10
            ),
        }
    }
}

/// A remark where threads waited for a core, whatever the limit was.
pub(crate) fn remark(tally: &Tally) -> Option<String> {
    let longest = tally.held_up.iter().max().filter(|longest| **longest >= HELD_UP_MIN)?;
    let percent = longest / 10;
    Some(format!(
        "A thread waited {percent} % of the time for a core that others had: the times include that."
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::options::{Geometry, Options, Share};

    fn limit(arguments: &str, busy: &[u64], held_up: &[u64], commands: u64) -> String {
        let command = "portico-load --target iscsi://127.0.0.1/iqn.x/0 ".to_owned() + arguments;
        let options = Options::try_parse_from(command.split_whitespace()).unwrap();
        let share = Share { first: 0, sessions: 1, in_all: 1 };
        let plan = options.plan(Geometry { block_bytes: 512, blocks: 1 << 20 }, share).unwrap();
        let mut tally = Tally::new();
        (tally.busy, tally.held_up) = (busy.to_vec(), held_up.to_vec());
        tally.elapsed = Duration::from_secs(10);
        (0..commands).for_each(|_| tally.reads.record(4096, 1_000));
        Limit::of(&plan, &tally).unwrap().to_string()
    }

    #[test]
    fn a_thread_that_waits_shows_that_the_target_is_the_limit() {
        assert!(limit("", &[400, 300], &[0, 0], 9).starts_with("limit: the target"));
        assert!(limit("", &[400, 300], &[0, 0], 9).contains("60 % of their time left"));
    }

    #[test]
    fn threads_without_time_show_that_the_generator_is() {
        assert!(limit("", &[990, 960], &[0, 0], 9).contains("the load generator, not the target"));
        assert!(limit("", &[990, 100], &[0, 0], 9).contains("1 of its 2 threads"));
    }

    #[test]
    fn a_core_that_is_shared_shows_that_the_machine_is() {
        assert!(limit("", &[500], &[480], 9).contains("waited 48 % of the time"));
        assert!(limit("", &[500], &[100], 9).starts_with("limit: the target"));
    }

    #[test]
    fn a_rate_that_is_reached_is_the_limit_itself() {
        assert!(limit("--rate 100", &[400], &[0], 995).contains("the target kept up"));
        assert!(limit("--rate 100", &[400], &[0], 900).starts_with("limit: the target, at"));
        assert!(limit("--rate 100", &[980], &[0], 900).contains("the load generator, not the target"));
    }
}
