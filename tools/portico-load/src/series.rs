//! What is written while it runs: a line of CSV for each interval, and its latencies as HdrHistogram's tools read them.
//!
//! Each thread sends what it did in an interval; once all have, it is written. A thread of its own writes, so that a slow disk
//! delays no command.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag};

use crate::options::Options;
use crate::tally::{Direction, Interval};

/// Samples that may wait to be written.
pub(crate) const WAITING_MAX: usize = 1024;
/// Latencies are in nanoseconds; the column of their maximum, which people read, in milliseconds.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// What one thread did in one interval.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Which interval, from 0.
    pub(crate) index: u64,
    /// How long it was; only the last is shorter than the others.
    pub(crate) length: Duration,
    pub(crate) interval: Interval,
}

/// The files to write.
#[derive(Debug)]
pub(crate) struct Files {
    csv: Option<File>,
    hdr_log: Option<File>,
}

impl Files {
    /// Makes those that the options ask for; `None`: none.
    ///
    /// # Errors
    /// Which file cannot be made, and why.
    pub(crate) fn create(options: &Options) -> Result<Option<Self>, String> {
        let create = |name: &str, path: &Option<PathBuf>| {
            path.as_ref().map(File::create).transpose().map_err(|error| format!("{name}: {error}"))
        };
        let csv = create("--csv", &options.csv)?;
        let hdr_log = create("--hdr-log", &options.hdr_log)?;
        Ok((csv.is_some() || hdr_log.is_some()).then_some(Self { csv, hdr_log }))
    }

    /// Writes what comes from `threads` threads until all have ended.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn write(
        self,
        samples: &Receiver<Sample>,
        threads: u32,
        interval: Duration,
    ) -> io::Result<()> {
        let mut csv = self.csv.map(BufWriter::new);
        let mut log = self.hdr_log.map(BufWriter::new);
        if let Some(csv) = &mut csv {
            writeln!(csv, "{}", header())?;
        }
        let mut serializer = V2DeflateSerializer::new();
        // The first sample comes when the first interval is over.
        let first = samples.recv().ok();
        let begin = SystemTime::now() - first.as_ref().map_or(Duration::ZERO, |sample| sample.length);
        let mut log = match &mut log {
            None => None,
            Some(file) => {
                let mut builder = IntervalLogWriterBuilder::new();
                builder.add_comment("[Histogram log format version 1.3]");
                builder.add_comment("portico-load: latencies in nanoseconds");
                builder
                    .with_start_time(begin)
                    .with_base_time(begin)
                    .with_max_value_divisor(MAX_VALUE_DIVISOR);
                Some(builder.begin_log_with(file, &mut serializer)?)
            }
        };
        let mut assembly = Assembly { threads, open: BTreeMap::new() };
        for sample in first.into_iter().chain(samples.iter()) {
            for sample in assembly.take(sample) {
                write_sample(csv.as_mut(), log.as_mut(), &sample, interval)?;
            }
        }
        for (_, (_, sample)) in assembly.open {
            write_sample(csv.as_mut(), log.as_mut(), &sample, interval)?;
        }
        Ok(())
    }
}

/// Intervals that some threads have not sent yet.
struct Assembly {
    threads: u32,
    /// With how many have.
    open: BTreeMap<u64, (u32, Sample)>,
}

impl Assembly {
    /// What is complete with this one, in order.
    fn take(&mut self, sample: Sample) -> Vec<Sample> {
        match self.open.get_mut(&sample.index) {
            None => {
                self.open.insert(sample.index, (1, sample));
            }
            Some((count, whole)) => {
                *count += 1;
                whole.length = whole.length.max(sample.length);
                whole.interval.add(&sample.interval);
            }
        }
        let mut complete = Vec::new();
        while let Some(entry) = self.open.first_entry().filter(|entry| entry.get().0 == self.threads) {
            complete.push(entry.remove().1);
        }
        complete
    }
}

type Log<'a, 'b> = IntervalLogWriter<'a, 'b, BufWriter<File>, V2DeflateSerializer>;

fn write_sample(
    csv: Option<&mut BufWriter<File>>,
    log: Option<&mut Log<'_, '_>>,
    sample: &Sample,
    interval: Duration,
) -> io::Result<()> {
    let index = u32::try_from(sample.index).unwrap_or(u32::MAX);
    let start = interval.saturating_mul(index);
    if let Some(csv) = csv {
        writeln!(csv, "{}", row(sample, start))?;
        // Whoever follows the file sees each interval as it ends.
        csv.flush()?;
    }
    let Some(log) = log else { return Ok(()) };
    let Interval { reads, writes, .. } = &sample.interval;
    for (tag, direction) in [("read", reads), ("write", writes)] {
        if direction.commands > 0 {
            let written = log.write_histogram(&direction.times, start, sample.length, Tag::new(tag));
            written.map_err(|error| io::Error::other(error.to_string()))?;
        }
    }
    Ok(())
}

/// The percentiles of a row.
const PERCENTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

fn header() -> String {
    let mut columns = vec!["start_s".to_owned(), "length_s".to_owned()];
    for name in ["read", "write"] {
        columns.extend(["iops", "bytes_per_s"].map(|what| format!("{name}_{what}")));
        columns.extend(PERCENTILES.map(|(_, percentile)| format!("{name}_{percentile}_ns")));
        columns.push(format!("{name}_max_ns"));
    }
    columns.extend(["errors".to_owned(), "lost".to_owned()]);
    columns.join(",")
}

fn row(sample: &Sample, start: Duration) -> String {
    let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
    let mut columns = vec![seconds(start), seconds(sample.length)];
    let rate = |count: u64| {
        let nanoseconds = sample.length.as_nanos().max(1);
        (u128::from(count) * 1_000_000_000 / nanoseconds).to_string()
    };
    let Interval { reads, writes, errors, lost } = &sample.interval;
    for Direction { commands, bytes, times } in [reads, writes] {
        columns.extend([rate(*commands), rate(*bytes)]);
        columns.extend(PERCENTILES.map(|(at, _)| times.value_at_quantile(at).to_string()));
        columns.push(times.max().to_string());
    }
    columns.extend([errors.to_string(), lost.to_string()]);
    columns.join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn sample(index: u64, length_ms: u64, reads: &[u64]) -> Sample {
        let mut interval = Interval::new();
        for time_ns in reads {
            interval.reads.record(4096, *time_ns);
        }
        Sample { index, length: Duration::from_millis(length_ms), interval }
    }

    /// Two threads, of which one ends before the other.
    fn written(folder: &std::path::Path) -> (String, String) {
        let (csv, log) = (folder.join("a.csv"), folder.join("a.hlog"));
        let files =
            Files { csv: Some(File::create(&csv).unwrap()), hdr_log: Some(File::create(&log).unwrap()) };
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        for sample in [
            sample(0, 1000, &[1_000, 2_000]),
            sample(1, 1000, &[]),
            sample(0, 1000, &[5_000_000]),
            sample(1, 250, &[7_000]),
            sample(2, 500, &[9_000]),
        ] {
            sender.send(sample).unwrap();
        }
        drop(sender);
        files.write(&receiver, 2, Duration::from_secs(1)).unwrap();
        (std::fs::read_to_string(csv).unwrap(), std::fs::read_to_string(log).unwrap())
    }

    #[test]
    fn a_row_is_what_all_threads_did_in_an_interval() {
        let folder = tempfile::tempdir().unwrap();
        let (csv, _) = written(folder.path());
        let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(
            (rows.len(), &rows[0][..4]),
            (4, &["start_s", "length_s", "read_iops", "read_bytes_per_s"][..])
        );
        assert!(rows.iter().all(|row| row.len() == rows[0].len()));
        assert_eq!(rows[1][..4], ["0.000", "1.000", "3", "12288"]);
        let worst = rows[0].iter().position(|name| *name == "read_max_ns").unwrap();
        assert_eq!(rows[1][worst].parse::<u64>().unwrap() / 10_000, 500);
        assert_eq!(rows[2][..3], ["1.000", "1.000", "1"]);
        assert_eq!(rows[3][..3], ["2.000", "0.500", "2"]);
    }

    #[test]
    fn the_log_is_read_by_hdr_histograms_own_reader() {
        let folder = tempfile::tempdir().unwrap();
        let (_, log) = written(folder.path());
        let mut deserializer = Deserializer::new();
        let mut found = Vec::new();
        let mut begins = 0;
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            match entry.unwrap() {
                LogEntry::Interval(interval) => {
                    let bytes = base64_bytes(interval.encoded_histogram());
                    let times: Histogram<u64> = deserializer.deserialize(&mut bytes.as_slice()).unwrap();
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    found.push((tag, interval.start_timestamp().as_secs(), times.len(), times.max() / 1_000));
                }
                LogEntry::StartTime(_) | LogEntry::BaseTime(_) => begins += 1,
            }
        }
        let read = |start, count, most| ("read".to_owned(), start, count, most);
        assert_eq!(found[0].2, 3);
        assert_eq!((begins, found.len()), (2, 3));
        assert_eq!(found[1..], [read(1, 1, 7), read(2, 1, 9)]);
        assert!(log.starts_with("#[Histogram log format version 1.3]\n"), "{log}");
    }

    /// Standard base64, decoded.
    fn base64_bytes(text: &str) -> Vec<u8> {
        let value = |letter: u8| match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let letters: Vec<u8> = text.bytes().filter(|letter| *letter != b'=').collect();
        let mut bytes = Vec::new();
        for group in letters.chunks(4) {
            let word = group
                .iter()
                .enumerate()
                .fold(0_u32, |word, (at, letter)| word | u32::from(value(*letter)) << (18 - 6 * at));
            bytes.extend(&word.to_be_bytes()[1..group.len()]);
        }
        bytes
    }
}
