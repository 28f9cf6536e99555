//! What the gateway tells of itself: one [`Snapshot`], rendered as Prometheus text ([`text`]) or JSON ([`json`]).
//!
//! Shards hand in their meters ([`collection`]); control adds them up for as long as a unit lives. A snapshot is immutable
//! and shared, so that rendering it, which takes its time, happens on the HTTP thread.

pub(crate) mod collection;
pub mod json;
pub mod text;

use std::net::SocketAddr;
use std::sync::Arc;

use hdrhistogram::Histogram;
use portico_iscsi::moment::Moment;
use portico_model::identity::{SessionId, ShardId, UnitId};
use portico_model::login_failures::LoginFailures;
use portico_model::meter::{
    LATENCY_NS_MAX, LATENCY_NS_MIN, Latencies, Operation, OperationMeter, ShardCounters, UnitMeter,
};

/// The state of everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was put together, on the clock whose origin is the start of the process.
    pub taken: Moment,
    /// Every open unit, ascending by [`UnitId`].
    pub units: Vec<UnitSnapshot>,
    /// Every shard, ascending.
    pub shards: Vec<ShardSnapshot>,
    /// Every session, ascending by [`SessionId`].
    pub sessions: Vec<SessionSnapshot>,
    /// Every configured target, in the configuration's order.
    pub targets: Vec<TargetSnapshot>,
    /// Logins that came to nothing.
    pub login_failures: LoginFailures,
    /// What control counts about itself.
    pub control: ControlCounters,
    /// Shards whose meters did not come in time: their last commands are not in here yet.
    pub shards_late: u32,
}

/// One logical unit.
#[derive(Clone, Debug)]
pub struct UnitSnapshot {
    /// Its name among threads.
    pub unit: UnitId,
    /// Its DEVICE.
    pub device: Arc<str>,
    /// Where initiators find it.
    pub luns: Vec<LunLabel>,
    /// Whether its medium is there and initiators may use it.
    pub ready: bool,
    /// Whether a change is installed and a medium has not yet let go of what it refuses.
    pub draining: bool,
    /// Logical block size.
    pub block_bytes: u32,
    /// Blocks; 0 while that is not known.
    pub capacity_blocks: u64,
    /// Commands in hand when the shards were asked.
    pub in_flight: u64,
    /// What it did since it was opened.
    pub totals: Arc<UnitTotals>,
}

/// One place where a unit is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LunLabel {
    /// The target's name.
    pub target: Arc<str>,
    /// The initiator group; `None` is the target's own list.
    pub group: Option<Arc<str>>,
    /// The number.
    pub lun: u16,
}

/// One shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardSnapshot {
    /// Sessions homed there, discovery included.
    pub sessions: u32,
    /// Since it began.
    pub counters: ShardCounters,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionSnapshot {
    /// Its name.
    pub session: SessionId,
    /// The initiator's name.
    pub initiator: Arc<str>,
    /// The target's name; `None` for a discovery session.
    pub target: Option<Arc<str>>,
    /// Where it is served.
    pub shard: ShardId,
    /// Where the initiator is.
    pub peer: SocketAddr,
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it takes logins.
    pub enabled: bool,
    /// Sessions on it.
    pub sessions: u64,
}

/// What control counts, from its start on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlCounters {
    /// Logins granted.
    pub logins_granted: u64,
    /// Logins refused by control.
    pub logins_refused: u64,
    /// Sessions ended because their initiator port logged in again.
    pub sessions_reinstated: u64,
    /// Changes of shared state that every shard installed in time.
    pub changes_installed: u64,
    /// Changes that a medium held up beyond the limit.
    pub changes_timed_out: u64,
    /// Ledgers written.
    pub ledgers_written: u64,
    /// Ledgers that could not be written.
    pub ledgers_failed: u64,
    /// Attempts to open a device that failed.
    pub opens_failed: u64,
    /// Configurations applied.
    pub configurations_applied: u64,
}

/// What a unit did since it was opened, over all shards. `None` stands for an operation that never came.
#[derive(Clone, Debug, Default)]
pub struct UnitTotals {
    operations: [Option<Box<OperationTotals>>; Operation::ALL.len()],
}

/// One operation of one unit, over all shards.
#[derive(Clone, Debug)]
pub struct OperationTotals {
    /// One histogram of nanoseconds for each of [`Phase::ALL`].
    pub phases: [Histogram<u64>; Phase::ALL.len()],
    /// Sum of the whole durations, in nanoseconds.
    pub total_ns: u64,
    /// Commands that ended, well or badly.
    pub commands: u64,
    /// Bytes moved by commands that ended GOOD.
    pub bytes: u64,
    /// Commands that ended with CHECK CONDITION other than a unit attention.
    pub errors: u64,
}

/// The parts of a command's time that are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// From its arrival until its first piece went to the medium.
    Waited,
    /// From its first piece's going to the medium until its last was back.
    AtMedium,
    /// From its arrival until its status was handed to the connection.
    Total,
    /// Of each request of a command: as long as the library below the medium (librbd) had it.
    InLibrary,
}

impl Phase {
    /// All of them, in the order of [`OperationTotals::phases`].
    pub const ALL: [Phase; 4] = [Phase::Waited, Phase::AtMedium, Phase::Total, Phase::InLibrary];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waited => "waited",
            Phase::AtMedium => "at_medium",
            Phase::Total => "total",
            Phase::InLibrary => "in_library",
        }
    }

    fn of(self, latencies: &Latencies) -> Option<&Histogram<u32>> {
        match self {
            Phase::Waited => Some(&latencies.waited),
            Phase::AtMedium => Some(&latencies.at_medium),
            Phase::Total => Some(&latencies.total),
            Phase::InLibrary => latencies.in_library.as_ref(),
        }
    }
}

impl UnitTotals {
    /// What is known of one operation; `None` if it never came.
    #[must_use]
    pub fn operation(&self, operation: Operation) -> Option<&OperationTotals> {
        self.operations[operation as usize].as_deref()
    }

    /// Adds what one shard recorded.
    pub fn add(&mut self, meter: &UnitMeter) {
        for (totals, meter) in self.operations.iter_mut().zip(&meter.operations) {
            if meter.commands > 0 {
                totals.get_or_insert_with(Box::default).add(meter);
            }
        }
    }
}

impl Default for OperationTotals {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 2).expect("the bounds are constants")
        };
        Self { phases: std::array::from_fn(|_| histogram()), total_ns: 0, commands: 0, bytes: 0, errors: 0 }
    }
}

impl OperationTotals {
    /// The histogram of one phase, in nanoseconds.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> &Histogram<u64> {
        &self.phases[phase as usize]
    }

    fn add(&mut self, meter: &OperationMeter) {
        if let Some(latencies) = &meter.latencies {
            for phase in Phase::ALL {
                let sum = &mut self.phases[phase as usize];
                for step in phase.of(latencies).into_iter().flat_map(Histogram::iter_recorded) {
                    sum.saturating_record_n(step.value_iterated_to(), u64::from(step.count_at_value()));
                }
            }
        }
        self.total_ns = self.total_ns.saturating_add(meter.total_ns);
        self.commands = self.commands.saturating_add(meter.commands);
        self.bytes = self.bytes.saturating_add(meter.bytes);
        self.errors = self.errors.saturating_add(meter.errors);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use portico_model::login_failures::LoginFailure;

    use super::*;

    /// One unit on two shards: 200 reads of 4 KiB in 90 µs, one write that failed after 3 s.
    pub(crate) fn sample() -> Snapshot {
        let mut first = UnitMeter::new(UnitId(7));
        for _ in 0..150 {
            record(first.operation(Operation::Read), 90_000, 4096);
        }
        let mut second = UnitMeter::new(UnitId(7));
        for _ in 0..50 {
            record(second.operation(Operation::Read), 90_000, 4096);
        }
        record(second.operation(Operation::Write), 3_000_000_000, 0);
        second.operation(Operation::Write).errors = 1;
        let mut totals = UnitTotals::default();
        totals.add(&first);
        totals.add(&second);

        let target: Arc<str> = "iqn.2026-11.io.portico:t".into();
        let mut login_failures = LoginFailures::default();
        login_failures.count(None, LoginFailure::NotFound);
        login_failures.count(Some(&target), LoginFailure::Authentication);
        Snapshot {
            login_failures,
            taken: Moment::from_millis(5_500),
            units: vec![UnitSnapshot {
                unit: UnitId(7),
                device: "disk \"1\"".into(),
                luns: vec![
                    LunLabel { target: target.clone(), group: None, lun: 0 },
                    LunLabel { target: target.clone(), group: Some("vmware".into()), lun: 12 },
                ],
                ready: true,
                draining: false,
                block_bytes: 512,
                capacity_blocks: 2048,
                in_flight: 3,
                totals: Arc::new(totals),
            }],
            shards: vec![
                ShardSnapshot { sessions: 2, counters: ShardCounters { turns: 10, ..Default::default() } },
                ShardSnapshot { sessions: 1, counters: ShardCounters { turns: 20, ..Default::default() } },
            ],
            sessions: vec![SessionSnapshot {
                session: SessionId(1),
                initiator: "iqn.a".into(),
                target: Some(target.clone()),
                shard: ShardId(1),
                peer: "10.0.0.9:40000".parse().unwrap(),
            }],
            targets: vec![TargetSnapshot { name: target, enabled: true, sessions: 1 }],
            control: ControlCounters { logins_granted: 4, ..Default::default() },
            shards_late: 0,
        }
    }

    fn record(meter: &mut OperationMeter, total_ns: u64, bytes: u64) {
        let latencies = meter.latencies.get_or_insert_default();
        latencies.waited.saturating_record(total_ns / 10);
        latencies.at_medium.saturating_record(total_ns / 2);
        latencies.total.saturating_record(total_ns);
        meter.total_ns = meter.total_ns.saturating_add(total_ns);
        meter.commands += 1;
        meter.bytes += bytes;
    }

    #[test]
    fn the_meters_of_two_shards_add_up() {
        let snapshot = sample();
        let read = snapshot.units[0].totals.operation(Operation::Read).unwrap();
        assert_eq!((read.commands, read.bytes, read.errors), (200, 200 * 4096, 0));
        assert_eq!(read.total_ns, 200 * 90_000);
        let total = read.phase(Phase::Total);
        assert_eq!(total.len(), 200);
        assert!(total.equivalent(total.max(), 90_000), "no value wandered into another bucket");
        assert!(total.equivalent(read.phase(Phase::AtMedium).max(), 45_000));
        assert!(snapshot.units[0].totals.operation(Operation::Other).is_none());
        assert!(read.phase(Phase::InLibrary).is_empty(), "there is no library");
    }

    #[test]
    fn the_librarys_own_time_is_told_apart() {
        let mut meter = UnitMeter::new(UnitId(7));
        record(meter.operation(Operation::Read), 90_000, 4096);
        let latencies = meter.operation(Operation::Read).latencies.as_mut().unwrap();
        latencies.in_library.get_or_insert_with(portico_model::meter::histogram).saturating_record(40_000);
        let mut totals = UnitTotals::default();
        totals.add(&meter);
        let read = totals.operation(Operation::Read).unwrap();
        assert_eq!(read.phase(Phase::InLibrary).len(), 1);
        assert!(read.phase(Phase::InLibrary).equivalent(read.phase(Phase::InLibrary).max(), 40_000));
    }

    #[test]
    fn adding_again_and_again_keeps_every_value_in_its_bucket() {
        let mut meter = UnitMeter::new(UnitId(1));
        let values = [1, 255, 256, 1_000, 65_535, 65_536, 1_000_000, 99_999_999_999, u64::MAX];
        for value in values {
            record(meter.operation(Operation::Other), value, 0);
        }
        let mut totals = UnitTotals::default();
        for _ in 0..3 {
            totals.add(&meter);
        }
        let sums = totals.operation(Operation::Other).unwrap().phase(Phase::Total);
        let latencies = meter.operations[2].latencies.as_deref().unwrap();
        for value in values {
            let value = value.min(LATENCY_NS_MAX);
            assert_eq!(sums.count_at(value), 3 * u64::from(latencies.total.count_at(value)), "{value}");
        }
        assert_eq!(sums.len(), 3 * 9);
    }
}
