//! The clocks of the measured part: its intervals, its length, and how busy the thread was meanwhile.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::series::Sample;
use crate::tally::Tally;

/// Of one thread, from the beginning of the measured part on.
#[derive(Debug)]
pub(crate) struct Meter {
    begin_ns: u64,
    interval_ns: u64,
    /// The interval at hand.
    index: u64,
    busy: Duration,
    held_up: Duration,
}

impl Meter {
    /// Begins, at `begin_ns`.
    pub(crate) fn new(begin_ns: u64, interval: Duration) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { begin_ns, interval_ns, index: 0, busy: thread_time(), held_up: held_up_time() }
    }

    /// Where intervals have ended, what they brought is sent and added up.
    pub(crate) fn roll(&mut self, now_ns: u64, tally: &mut Tally, samples: Option<&SyncSender<Sample>>) {
        let elapsed_ns = now_ns.saturating_sub(self.begin_ns);
        while elapsed_ns / self.interval_ns > self.index {
            self.close(self.interval_ns, tally, samples);
        }
    }

    /// The measured part has ended.
    pub(crate) fn end(&mut self, now_ns: u64, tally: &mut Tally, samples: Option<&SyncSender<Sample>>) {
        let elapsed_ns = now_ns.saturating_sub(self.begin_ns);
        self.close(elapsed_ns.saturating_sub(self.index * self.interval_ns), tally, samples);
        tally.elapsed = Duration::from_nanos(elapsed_ns);
        let share = |time: Duration| {
            let thousandths = time.as_nanos() * 1000 / tally.elapsed.as_nanos().max(1);
            u64::try_from(thousandths).unwrap_or(u64::MAX)
        };
        let busy = share(thread_time().saturating_sub(self.busy));
        let held_up = share(held_up_time().saturating_sub(self.held_up));
        tally.busy.push(busy);
        tally.held_up.push(held_up);
    }

    fn close(&mut self, length_ns: u64, tally: &mut Tally, samples: Option<&SyncSender<Sample>>) {
        if let Some(samples) = samples.filter(|_| length_ns > 0) {
            let length = Duration::from_nanos(length_ns);
            let sample = Sample { index: self.index, length, interval: tally.interval.clone() };
            // Where the files cannot be written any more, that is told at the end.
            let _ = samples.send(sample);
        }
        self.index += 1;
        tally.roll();
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long this thread has been ready to run without a core; nothing where the kernel does not tell.
fn held_up_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_interval_is_sent_once_with_what_was_done_in_it() {
        let (sender, receiver) = mpsc::sync_channel(10);
        let mut tally = Tally::new();
        let mut meter = Meter::new(1_000, Duration::from_nanos(100));
        for (now_ns, reads) in [(1_050, 1), (1_099, 2), (1_350, 4), (1_399, 1)] {
            meter.roll(now_ns, &mut tally, Some(&sender));
            (0..reads).for_each(|_| tally.interval.reads.record(512, 7));
        }
        meter.end(1_420, &mut tally, Some(&sender));
        drop(sender);
        let sent: Vec<_> = receiver
            .iter()
            .map(|sample| (sample.index, sample.length.as_nanos(), sample.interval.reads.commands))
            .collect();
        assert_eq!(sent, [(0, 100, 3), (1, 100, 0), (2, 100, 0), (3, 120, 5)]);
        assert_eq!(
            (tally.reads.commands, tally.elapsed, tally.busy.len()),
            (8, Duration::from_nanos(420), 1)
        );
    }
}
