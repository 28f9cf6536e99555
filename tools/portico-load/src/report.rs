//! What a run has brought, for people and for programs.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::options::Options;
use crate::quantity;
use crate::tally::{Direction, Tally};
use crate::unit::Unit;
use crate::verdict::{self, Limit};

/// Errors and findings that the text tells; the JSON has more.
const TOLD_IN_TEXT_MAX: usize = 16;
/// The percentiles that are told.
const PERCENTILES: [(f64, &str); 7] = [
    (50.0, "p50"),
    (75.0, "p75"),
    (90.0, "p90"),
    (95.0, "p95"),
    (99.0, "p99"),
    (99.9, "p99.9"),
    (99.99, "p99.99"),
];
/// Characters of the longest bar.
const BAR_CHARS: u64 = 50;

/// The report as text.
pub(crate) fn text(options: &Options, units: &[Unit], tally: &Tally) -> String {
    let mut out = String::new();
    write_text(&mut out, options, units, tally).expect("a String takes all text");
    out
}

fn write_text(out: &mut String, options: &Options, units: &[Unit], tally: &Tally) -> std::fmt::Result {
    let plan = &units[0].plan;
    for url in &options.target {
        writeln!(out, "{url}")?;
    }
    let threads = tally.busy.len();
    let region = quantity::size(plan.region * u64::from(plan.block_bytes));
    writeln!(
        out,
        "{} of {}, {} x depth {} on {threads} {}, {region} {}{}",
        options.rw.name(),
        plan.sizes,
        sessions(options, plan.sessions_in_all),
        plan.depth,
        if threads == 1 { "thread" } else { "threads" },
        if plan.shared { "shared" } else { "disjoint" },
        if plan.verify { ", verified" } else { "" },
    )?;
    for (name, direction) in [("read", &tally.reads), ("write", &tally.writes)] {
        if direction.commands > 0 {
            write_direction(out, name, direction, tally)?;
        }
    }
    if let Some(rate) = plan.rate {
        write_lateness(out, rate, tally)?;
    }
    if plan.sessions_in_all > 1
        && let Some((least, most)) = tally.least_and_most
    {
        writeln!(out, "\nsessions: {least} commands the least, {most} the most")?;
    }
    write_busy(out, units, tally)?;
    if plan.verify {
        write_verified(out, tally)?;
    }
    if tally.retries > 0 {
        writeln!(out, "sent again after BUSY, TASK SET FULL or a unit attention: {}", tally.retries)?;
    }
    write_losses(out, tally)?;
    write_list(out, "errors", tally.errors, tally.told_errors.iter())?;
    let failures = u64::try_from(tally.failures.len()).unwrap_or(u64::MAX);
    write_list(out, "failures", failures, tally.failures.iter())
}

/// How an open loop kept to its times.
fn write_lateness(out: &mut String, rate: u64, tally: &Tally) -> std::fmt::Result {
    let [reads, writes, _] = tally.done();
    writeln!(
        out,
        "\nrate: {} per second asked for, {} done; latency counts from the time at which a command was due",
        quantity::count(rate),
        quantity::count(self::rate(reads + writes, tally)),
    )?;
    let lateness = &tally.lateness;
    if lateness.unsent > 0 {
        writeln!(
            out,
            "  {} were due and never sent, because the target had no room; the first had waited {} at the end: the \
             latencies above are without them",
            lateness.unsent,
            quantity::time_ns(lateness.unsent_ns)
        )?;
    }
    if lateness.late > 0 {
        writeln!(
            out,
            "  {} went out more than 1 ms late for no reason of the target's, at most {} late",
            lateness.late,
            quantity::time_ns(lateness.latest_ns)
        )?;
    }
    Ok(())
}

/// Connections that were made again.
fn write_losses(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let lost = &tally.lost;
    if lost.connections > 0 {
        let longest = u64::try_from(lost.longest.as_nanos()).unwrap_or(u64::MAX);
        writeln!(
            out,
            "connections lost and made again: {}, with {} and {} on their way, the longest gone for {}",
            lost.connections,
            counted(lost.reads, "read"),
            counted(lost.writes, "write"),
            quantity::time_ns(longest)
        )?;
        for line in tally.told_losses.iter().take(TOLD_IN_TEXT_MAX) {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn write_direction(out: &mut String, name: &str, direction: &Direction, tally: &Tally) -> std::fmt::Result {
    let (iops, bytes) = (rate(direction.commands, tally), rate(direction.bytes, tally));
    let total = quantity::size(direction.bytes);
    let seconds = tally.elapsed.as_secs_f64();
    writeln!(
        out,
        "\n{name}: {} IOPS, {}   ({} commands, {total} in {seconds:.2} s)",
        quantity::count(iops),
        quantity::bandwidth(bytes),
        direction.commands
    )?;
    let times = &direction.times;
    writeln!(
        out,
        "  latency: least {}, mean {}, most {}",
        quantity::time_ns(times.min()),
        quantity::time_ns(mean_ns(times)),
        quantity::time_ns(times.max())
    )?;
    let percentile = |(at, name): &(f64, &str)| {
        let time = times.value_at_quantile(at / 100.0);
        format!("{name} {}", quantity::time_ns(time))
    };
    writeln!(out, "  {}", PERCENTILES.iter().map(percentile).collect::<Vec<_>>().join(", "))?;
    for (label, count) in buckets(times) {
        let most = buckets(times).into_iter().map(|(_, count)| count).max().unwrap_or(1);
        let bar = usize::try_from((count * BAR_CHARS).div_ceil(most)).expect("at most BAR_CHARS");
        writeln!(out, "{}", format!("  {label:>9}  {count:>10}  {}", "#".repeat(bar)).trim_end())?;
    }
    Ok(())
}

fn write_busy(out: &mut String, units: &[Unit], tally: &Tally) -> std::fmt::Result {
    let Some(limit) = Limit::of(&units[0].plan, tally) else { return Ok(()) };
    let percents: Vec<String> = tally.busy.iter().map(|busy| format!("{} %", busy / 10)).collect();
    writeln!(out, "\nload generator's own threads busy: {}", percents.join(", "))?;
    writeln!(out, "  {limit}")?;
    match verdict::remark(tally) {
        Some(remark) => writeln!(out, "  {remark}"),
        None => Ok(()),
    }
}

fn write_verified(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let verified = &tally.verified;
    writeln!(
        out,
        "\nverified: {} good, {} wrong, {} old, {} torn   ({} read back at the end)",
        verified.good, verified.wrong, verified.old, verified.torn, tally.read_back
    )?;
    if verified.unwritten > 0 {
        writeln!(
            out,
            "  {} of blocks that this run had not written, of which nothing is known",
            verified.unwritten
        )?;
    }
    if verified.mixed > 0 {
        writeln!(
            out,
            "  {} of the good ones held sectors of several writes, as SCSI allows",
            verified.mixed
        )?;
    }
    write_list(out, "not as they should be", verified.bad(), tally.findings.iter())
}

fn write_list<T: std::fmt::Display>(
    out: &mut String,
    name: &str,
    count: u64,
    told: impl ExactSizeIterator<Item = T>,
) -> std::fmt::Result {
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "{name}: {count}")?;
    let shown = told.len().min(TOLD_IN_TEXT_MAX);
    for line in told.take(shown) {
        writeln!(out, "  {line}")?;
    }
    if u64::try_from(shown).is_ok_and(|shown| shown < count) {
        writeln!(out, "  and more")?;
    }
    Ok(())
}

/// So many in the measured time, per second.
fn rate(count: u64, tally: &Tally) -> u64 {
    let nanoseconds = tally.elapsed.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

/// The mean, without its fraction.
fn mean_ns(times: &Histogram<u64>) -> u64 {
    let sum: u128 = times
        .iter_recorded()
        .map(|step| u128::from(step.value_iterated_to()) * u128::from(step.count_at_value()))
        .sum();
    u64::try_from(sum / u128::from(times.len()).max(1)).unwrap_or(u64::MAX)
}

/// Times on a scale of 1, 2, 5 for each power of ten, from the first to the last that occurred, with their counts.
fn buckets(times: &Histogram<u64>) -> Vec<(String, u64)> {
    let powers = std::iter::successors(Some(1_000_u64), |power| power.checked_mul(10)).take(10);
    let ends: Vec<u64> = powers.flat_map(|power| [1, 2, 5].map(|step| power * step)).collect();
    let mut counts = vec![0; ends.len()];
    for step in times.iter_recorded() {
        let at = ends.partition_point(|end| *end <= times.lowest_equivalent(step.value_iterated_to()));
        counts[at.min(ends.len() - 1)] += step.count_at_value();
    }
    let labels = ends.iter().map(|end| format!("< {}", quantity::time_ns(*end)));
    let mut buckets: Vec<(String, u64)> = labels.zip(counts).collect();
    let first = buckets.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    let last = buckets.iter().rposition(|(_, count)| *count > 0).map_or(0, |last| last + 1);
    buckets.truncate(last);
    buckets.drain(..first.min(last));
    buckets
}

/// The report as JSON. `version` is raised when a reader of the version before would be misled.
pub(crate) fn json(options: &Options, units: &[Unit], tally: &Tally, is_interrupted: bool) -> Value {
    let (plan, verified) = (&units[0].plan, &tally.verified);
    let finding = |finding: &crate::verify::Finding| {
        json!({
            "kind": finding.kind.name(),
            "lba": finding.lba,
            "session": finding.session,
            "detail": finding.detail,
        })
    };
    json!({
        "version": 1,
        "ok": tally.is_clean() && !is_interrupted,
        "interrupted": is_interrupted,
        "target": options.target[0].to_string(),
        "targets": units.iter().map(unit).collect::<Vec<_>>(),
        "options": asked(options, units),
        "elapsed_ns": nanoseconds(tally.elapsed),
        "read": direction(&tally.reads, tally),
        "write": direction(&tally.writes, tally),
        "sessions": tally.least_and_most.map(|(least, most)| json!({"least": least, "most": most})),
        "limit": Limit::of(plan, tally).map(Limit::name),
        "busy_permille": tally.busy,
        "held_up_permille": tally.held_up,
        "open_loop": plan.rate.map(|rate| json!({
            "rate": rate,
            "unsent": tally.lateness.unsent,
            "unsent_waited_ns": tally.lateness.unsent_ns,
            "sent_late": tally.lateness.late,
            "sent_late_ns_max": tally.lateness.latest_ns,
        })),
        "lost": {
            "connections": tally.lost.connections,
            "reads": tally.lost.reads,
            "writes": tally.lost.writes,
            "longest_ns": nanoseconds(tally.lost.longest),
            "first": tally.told_losses,
        },
        "retries": tally.retries,
        "errors": {"count": tally.errors, "first": tally.told_errors},
        "failures": tally.failures,
        "verified": plan.verify.then(|| json!({
            "good": verified.good,
            "mixed": verified.mixed,
            "unwritten": verified.unwritten,
            "wrong": verified.wrong,
            "old": verified.old,
            "torn": verified.torn,
            "read_back": tally.read_back,
            "first": tally.findings.iter().map(finding).collect::<Vec<_>>(),
        })),
    })
}

fn unit(unit: &Unit) -> Value {
    json!({
        "url": unit.address.to_string(),
        "portals": unit.portals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sessions": unit.plan.sessions,
        "size": unit.plan.region * u64::from(unit.plan.block_bytes),
    })
}

/// How many sessions, and of how many connections where these are several.
fn sessions(options: &Options, in_all: u32) -> String {
    let sessions = counted(u64::from(in_all / options.connections), "session");
    match options.connections {
        1 => sessions,
        each => format!("{sessions} of {each} connections"),
    }
}

/// What was asked for.
fn asked(options: &Options, units: &[Unit]) -> Value {
    let plan = &units[0].plan;
    // A number where all commands are equally long.
    let bs = if plan.longest == 1 { plan.block_bytes.into() } else { Value::from(plan.sizes.to_string()) };
    json!({
        "rw": options.rw.name(),
        "reads_percent": plan.reads_percent,
        "bs": bs,
        "sessions": plan.sessions_in_all / options.connections,
        "connections": options.connections,
        "depth": plan.depth,
        "threads": options.cores.as_ref().map_or(1, |cores| cores.0.len()),
        "offset": plan.first_byte,
        "size": plan.region * u64::from(plan.block_bytes),
        "shared": plan.shared,
        "verify": plan.verify,
        "count": plan.count,
        "amount": plan.amount,
        "rate": plan.rate,
        "ramp_ns": nanoseconds(plan.ramp),
        "time_ns": nanoseconds(plan.time),
        "seed": plan.seed,
    })
}

fn direction(direction: &Direction, tally: &Tally) -> Value {
    let times = &direction.times;
    let percentiles = PERCENTILES
        .iter()
        .map(|(at, name)| ((*name).to_owned(), Value::from(times.value_at_quantile(at / 100.0))));
    let mut latency: serde_json::Map<String, Value> = percentiles.collect();
    latency.insert("least".to_owned(), times.min().into());
    latency.insert("mean".to_owned(), mean_ns(times).into());
    latency.insert("most".to_owned(), times.max().into());
    let steps = times.iter_recorded().map(|step| json!([step.value_iterated_to(), step.count_at_value()]));
    json!({
        "commands": direction.commands,
        "bytes": direction.bytes,
        "iops": rate(direction.commands, tally),
        "bytes_per_second": rate(direction.bytes, tally),
        "latency_ns": latency,
        "histogram_ns": steps.collect::<Vec<_>>(),
    })
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::options::{Geometry, Share};
    use crate::verify::{Finding, Kind};

    fn run() -> (Options, [Unit; 1], Tally) {
        let command = "portico-load --target iscsi://127.0.0.1:3260/iqn.x/1 --rw randrw --verify --sessions 2 --depth 4";
        let options = Options::try_parse_from(command.split_whitespace()).unwrap();
        let share = Share { first: 0, sessions: 2, in_all: 2 };
        let plan = options.plan(Geometry { block_bytes: 512, blocks: 1 << 16 }, share).unwrap();
        let address = options.target[0].clone();
        let portals = vec!["127.0.0.1:3260".parse().unwrap()];
        let unit = Unit { lun: address.lun(), address, portals, plan, ledger: None };
        let mut tally = Tally::new();
        tally.elapsed = Duration::from_secs(2);
        for _ in 0..30_000 {
            tally.reads.record(4096, 90_000);
        }
        for _ in 0..10 {
            tally.reads.record(4096, 12_000_000);
        }
        tally.writes.record(4096, 2_000_000);
        tally.busy = vec![970];
        tally.held_up = vec![55];
        tally.session_did(10_000);
        tally.session_did(20_011);
        tally.verified.good = 30_000;
        tally.verified.mixed = 3;
        tally.verified.unwritten = 9;
        tally.find(Finding { kind: Kind::Torn, lba: 80, session: 1, detail: "half of it is old".to_owned() });
        (options, [unit], tally)
    }

    #[test]
    fn the_text_says_it_all() {
        let (options, units, tally) = run();
        assert_eq!(text(&options, &units, &tally), include_str!("golden/report.txt"));
    }

    #[test]
    fn the_json_says_it_all() {
        let (options, units, tally) = run();
        let value = json(&options, &units, &tally, false);
        assert_eq!((&value["ok"], &value["version"]), (&false.into(), &1.into()));
        assert_eq!(value["read"]["iops"], 15_005);
        assert_eq!(value["read"]["latency_ns"]["p99.99"].as_u64().unwrap() / 100_000, 120);
        assert_eq!(value["read"]["histogram_ns"].as_array().unwrap().len(), 2);
        assert_eq!(value["verified"]["first"][0]["lba"], 80);
        assert_eq!(value["verified"]["torn"], 1);
        assert_eq!(value["sessions"]["most"], 20_011);
        let (options, units, mut tally) = run();
        tally.verified.torn = 0;
        assert_eq!(json(&options, &units, &tally, false)["ok"], true);
        assert_eq!(json(&options, &units, &tally, true)["ok"], false, "interrupted");
    }

    #[test]
    fn every_command_is_in_a_bucket() {
        let mut tally = Tally::new();
        for time_ns in [1, 999, 1_000, 1_999, 2_000, 777_777_777, 900_000_000_000] {
            tally.reads.record(512, time_ns);
        }
        let sum: u64 = buckets(&tally.reads.times).iter().map(|(_, count)| count).sum();
        assert_eq!(sum, 7);
        assert!(buckets(&Tally::new().reads.times).is_empty());
    }
}
