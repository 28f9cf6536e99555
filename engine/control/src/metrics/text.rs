//! A snapshot in the text format of OpenMetrics 1.0, which Prometheus reads.
//!
//! | name | type | labels | what |
//! |---|---|---|---|
//! | `portico_command_latency_seconds` | histogram | device, operation, phase | buckets of [`BUCKETS_NS`] |
//! | `portico_commands_total` | counter | device, operation | commands that ended |
//! | `portico_bytes_total` | counter | device, operation | bytes of commands that ended GOOD |
//! | `portico_errors_total` | counter | device, operation | CHECK CONDITIONs, unit attentions apart |
//! | `portico_commands_in_flight` | gauge | device | commands in hand |
//! | `portico_device_ready`, `portico_device_draining` | gauge | device | 1 or 0 |
//! | `portico_device_size_bytes` | gauge | device | capacity |
//! | `portico_lun` | info | device, target, group, lun | joins a device to where it is mapped |
//! | `portico_sessions`, `portico_target_enabled` | gauge | target | |
//! | `portico_login_failures_total` | counter | target, reason | logins that came to nothing |
//! | `portico_shard_*` | counter, gauge | shard | a shard's own counters |
//! | `portico_control_*_total` | counter | – | what control counts |
//! | `portico_build` | info | version | |
//!
//! `operation` is `read`, `write` or `other`; `phase` is `waited`, `at_medium` or `total`, and for RBD images `in_library`: librbd's
//! own time, of each request to it. What `at_medium` has beyond that is ours. The sum of a phase other than `total` comes from its
//! histogram and is good to one percent.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use hdrhistogram::Histogram;
use portico_model::meter::{Operation, ShardCounters};

use super::{OperationTotals, Phase, Snapshot};

/// The media type of what [`render`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets, in nanoseconds: 1, 2 and 5 of every decade from 10 µs to 10 s.
pub const BUCKETS_NS: [u64; 19] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The whole text.
///
/// # Panics
/// Never: a string takes everything.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut registry = prometheus_client::registry::Registry::with_prefix("portico");
    registry.register_collector(Box::new(Collector(snapshot.clone())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

#[derive(Debug)]
struct Collector(Snapshot);

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let snapshot = &self.0;
        operations(snapshot, &mut encoder)?;
        devices(snapshot, &mut encoder)?;
        targets(snapshot, &mut encoder)?;
        shards(snapshot, &mut encoder)?;
        control(snapshot, &mut encoder)
    }
}

fn operations(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let mut latency = encoder.encode_descriptor(
        "command_latency_seconds",
        "Time that commands waited, were at the medium, and took in all",
        None,
        MetricType::Histogram,
    )?;
    for unit in &snapshot.units {
        for operation in Operation::ALL {
            let Some(totals) = unit.totals.operation(operation) else { continue };
            for phase in Phase::ALL {
                let labels =
                    [("device", &*unit.device), ("operation", operation.name()), ("phase", phase.name())];
                let histogram = totals.phase(phase);
                if phase == Phase::InLibrary && histogram.is_empty() {
                    continue;
                }
                let mut series = latency.encode_family(&labels)?;
                let sum_s = sum_seconds(totals, phase);
                series.encode_histogram::<NoLabelSet>(sum_s, histogram.len(), &buckets(histogram), None)?;
            }
        }
    }
    type Field = fn(&OperationTotals) -> u64;
    let counters: [(&str, &str, Field); 3] = [
        ("commands", "Commands that ended", |totals| totals.commands),
        ("bytes", "Bytes moved by commands that ended GOOD", |totals| totals.bytes),
        ("errors", "Commands that ended with CHECK CONDITION, unit attentions apart", |totals| totals.errors),
    ];
    for (name, help, field) in counters {
        let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for unit in &snapshot.units {
            for operation in Operation::ALL {
                let value = unit.totals.operation(operation).map_or(0, field);
                let labels = [("device", &*unit.device), ("operation", operation.name())];
                count(&mut counter, &labels, value)?;
            }
        }
    }
    Ok(())
}

fn devices(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    type Field = fn(&super::UnitSnapshot) -> u64;
    let gauges: [(&str, &str, Field); 4] = [
        ("commands_in_flight", "Commands in hand", |unit| unit.in_flight),
        ("device_ready", "Whether the medium is there", |unit| u64::from(unit.ready)),
        ("device_draining", "Whether a change waits for the medium", |unit| u64::from(unit.draining)),
        ("device_size_bytes", "Capacity", |unit| {
            unit.capacity_blocks.saturating_mul(u64::from(unit.block_bytes))
        }),
    ];
    for (name, help, field) in gauges {
        let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for unit in &snapshot.units {
            measure(&mut gauge, &[("device", &*unit.device)], field(unit))?;
        }
    }
    let mut info = encoder.encode_descriptor("lun", "Where a device is mapped", None, MetricType::Info)?;
    for unit in &snapshot.units {
        for label in &unit.luns {
            let lun = label.lun.to_string();
            info.encode_info(&[
                ("device", &*unit.device),
                ("target", &*label.target),
                ("group", label.group.as_deref().unwrap_or("")),
                ("lun", &lun),
            ])?;
        }
    }
    Ok(())
}

fn targets(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let mut sessions =
        encoder.encode_descriptor("sessions", "Sessions of a target", None, MetricType::Gauge)?;
    for target in &snapshot.targets {
        measure(&mut sessions, &[("target", &*target.name)], target.sessions)?;
    }
    let help = "Whether a target takes logins";
    let mut enabled = encoder.encode_descriptor("target_enabled", help, None, MetricType::Gauge)?;
    for target in &snapshot.targets {
        measure(&mut enabled, &[("target", &*target.name)], u64::from(target.enabled))?;
    }
    let help = "Logins that came to nothing; without a target: discovery, or no target of ours";
    let mut failures = encoder.encode_descriptor("login_failures", help, None, MetricType::Counter)?;
    for (target, reason, value) in snapshot.login_failures.iter() {
        count(&mut failures, &[("target", target), ("reason", reason.name())], value)?;
    }
    Ok(())
}

fn shards(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    type Field = fn(&ShardCounters) -> u64;
    let counters: [(&str, &str, Field); 11] = [
        ("shard_turns", "Passes of the loop", |of| of.turns),
        ("shard_enters", "Calls into the kernel to submit and wait", |of| of.enters),
        ("shard_submissions", "Submission queue entries", |of| of.submissions),
        ("shard_completions", "Completion queue entries", |of| of.completions),
        ("shard_copied_bytes", "Bytes copied in user space between socket and medium", |of| of.copied_bytes),
        ("shard_received_bytes", "Bytes received from sockets", |of| of.received_bytes),
        ("shard_sent_bytes", "Bytes sent to sockets", |of| of.sent_bytes),
        ("shard_accepted_connections", "Connections accepted", |of| of.accepted),
        ("shard_violations", "Connections ended for breaking the protocol", |of| of.violations),
        ("shard_refused_logins", "Logins refused", |of| of.logins_refused),
        ("shard_refused_for_memory", "Commands answered TASK SET FULL or BUSY for want of memory", |of| {
            of.refused_for_memory
        }),
    ];
    let names: Vec<String> = (0..snapshot.shards.len()).map(|shard| shard.to_string()).collect();
    for (name, help, field) in counters {
        let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (shard, name) in snapshot.shards.iter().zip(&names) {
            count(&mut counter, &[("shard", name.as_str())], field(&shard.counters))?;
        }
    }
    let help = "Sessions served by a shard";
    let mut sessions = encoder.encode_descriptor("shard_sessions", help, None, MetricType::Gauge)?;
    for (shard, name) in snapshot.shards.iter().zip(&names) {
        measure(&mut sessions, &[("shard", name.as_str())], u64::from(shard.sessions))?;
    }
    Ok(())
}

fn control(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let of = &snapshot.control;
    let counters = [
        ("control_logins_granted", "Logins granted", of.logins_granted),
        ("control_logins_refused", "Logins refused by control", of.logins_refused),
        (
            "control_sessions_reinstated",
            "Sessions ended by a new login of their port",
            of.sessions_reinstated,
        ),
        ("control_changes_installed", "Changes that every shard installed in time", of.changes_installed),
        ("control_changes_timed_out", "Changes that a medium held up", of.changes_timed_out),
        ("control_ledgers_written", "Reservation ledgers written", of.ledgers_written),
        ("control_ledgers_failed", "Reservation ledgers that could not be written", of.ledgers_failed),
        ("control_opens_failed", "Attempts to open a device that failed", of.opens_failed),
        ("control_configurations_applied", "Configurations applied", of.configurations_applied),
    ];
    for (name, help, value) in counters {
        let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    let help = "Shards whose meters are not in this answer";
    let mut late = encoder.encode_descriptor("shards_late", help, None, MetricType::Gauge)?;
    late.encode_gauge(&i64::from(snapshot.shards_late))?;
    let mut uptime =
        encoder.encode_descriptor("uptime_seconds", "Since the process began", None, MetricType::Gauge)?;
    uptime.encode_gauge(&seconds(snapshot.taken.0))?;
    let mut build = encoder.encode_descriptor("build", "What is running", None, MetricType::Info)?;
    build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn count(metric: &mut MetricEncoder, labels: &[(&str, &str)], value: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn measure(metric: &mut MetricEncoder, labels: &[(&str, &str)], value: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

/// How many values of each bucket and of what lies beyond; the writer adds them up.
fn buckets(histogram: &Histogram<u64>) -> [(f64, u64); BUCKETS_NS.len() + 1] {
    let mut buckets = [(f64::INFINITY, 0); BUCKETS_NS.len() + 1];
    for (bucket, bound_ns) in buckets.iter_mut().zip(BUCKETS_NS) {
        bucket.0 = seconds(bound_ns);
    }
    for step in histogram.iter_recorded() {
        // A histogram tells values apart to one percent: what lies in the same step as a bound is not beyond it.
        let value_ns = histogram.lowest_equivalent(step.value_iterated_to());
        let at = BUCKETS_NS.partition_point(|&bound_ns| bound_ns < value_ns);
        buckets[at].1 += step.count_at_value();
    }
    buckets
}

fn sum_seconds(totals: &OperationTotals, phase: Phase) -> f64 {
    match phase {
        Phase::Total => seconds(totals.total_ns),
        Phase::Waited | Phase::AtMedium | Phase::InLibrary => {
            let histogram = totals.phase(phase);
            histogram.mean() * as_float(histogram.len()) / 1e9
        }
    }
}

fn seconds(ns: u64) -> f64 {
    as_float(ns) / 1e9
}

/// Nearest float: metrics have no more digits than that.
fn as_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::sample;
    use super::*;

    /// Every sample of a text by its name and labels, as a scraper reads it.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with("# EOF\n"), "OpenMetrics ends so");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let mut parsed = BTreeMap::new();
        for line in samples {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let known = parsed.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(known, None, "{name} occurs twice");
        }
        parsed
    }

    const READ: &str = r#"device="disk \"1\"",operation="read""#;

    #[test]
    fn counters_and_gauges_come_out_as_they_went_in() {
        let samples = parse(&render(&sample()));
        assert_eq!(samples[&format!("portico_commands_total{{{READ}}}")], 200.0);
        assert_eq!(samples[&format!("portico_bytes_total{{{READ}}}")], 819_200.0);
        assert_eq!(samples[r#"portico_errors_total{device="disk \"1\"",operation="write"}"#], 1.0);
        assert_eq!(samples[r#"portico_errors_total{device="disk \"1\"",operation="other"}"#], 0.0);
        assert_eq!(samples[r#"portico_device_size_bytes{device="disk \"1\""}"#], 1_048_576.0);
        assert_eq!(samples[r#"portico_commands_in_flight{device="disk \"1\""}"#], 3.0);
        assert_eq!(samples[r#"portico_sessions{target="iqn.2026-11.io.portico:t"}"#], 1.0);
        assert_eq!(samples[r#"portico_shard_turns_total{shard="1"}"#], 20.0);
        assert_eq!(samples["portico_control_logins_granted_total"], 4.0);
        let failed = |target: &str, reason: &str| {
            samples[&format!("portico_login_failures_total{{target=\"{target}\",reason=\"{reason}\"}}")]
        };
        assert_eq!(failed("iqn.2026-11.io.portico:t", "authentication"), 1.0);
        assert_eq!((failed("iqn.2026-11.io.portico:t", "slowed"), failed("", "not_found")), (0.0, 1.0));
        assert_eq!(samples["portico_uptime_seconds"], 5.5);
        assert!(!samples.keys().any(|name| name.contains("in_library")), "no medium has one");
    }

    #[test]
    fn a_lun_is_joined_to_its_device() {
        let samples = parse(&render(&sample()));
        let expected = r#"portico_lun_info{device="disk \"1\"",target="iqn.2026-11.io.portico:t",group="vmware",lun="12"}"#;
        assert_eq!(samples[expected], 1.0);
    }

    #[test]
    fn buckets_are_cumulative_and_end_at_the_count() {
        let samples = parse(&render(&sample()));
        let bucket = |le: &str| {
            samples[&format!("portico_command_latency_seconds_bucket{{le=\"{le}\",{READ},phase=\"total\"}}")]
        };
        assert_eq!(bucket("0.00005"), 0.0);
        assert_eq!(bucket("0.0001"), 200.0, "90 µs are within 100 µs");
        assert_eq!(bucket("10.0"), 200.0);
        assert_eq!(bucket("+Inf"), 200.0);
        let sum = samples[&format!("portico_command_latency_seconds_sum{{{READ},phase=\"total\"}}")];
        assert!((sum - 0.018).abs() < 1e-9, "{sum}");
        let sum = samples[&format!("portico_command_latency_seconds_sum{{{READ},phase=\"at_medium\"}}")];
        assert!((sum / 0.009 - 1.0).abs() < 0.01, "{sum}");
    }

    #[test]
    fn a_value_on_a_bound_is_within_it() {
        for bound_ns in BUCKETS_NS {
            let mut totals = super::super::OperationTotals::default();
            totals.phases[2].record(bound_ns).unwrap();
            let buckets = buckets(totals.phase(Phase::Total));
            let filled = buckets.iter().find(|(_, count)| *count > 0).unwrap();
            assert_eq!(filled.0, seconds(bound_ns));
        }
    }

    #[test]
    fn what_takes_longer_than_the_last_bound_is_only_in_the_last_bucket() {
        let mut totals = super::super::OperationTotals::default();
        totals.phases[2].record(11_000_000_000).unwrap();
        let buckets = buckets(totals.phase(Phase::Total));
        assert_eq!(buckets[BUCKETS_NS.len()], (f64::INFINITY, 1));
    }

    #[test]
    fn a_gateway_without_anything_still_says_what_it_is() {
        let samples = parse(&render(&Snapshot::default()));
        assert_eq!(samples[&format!("portico_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    }
}
