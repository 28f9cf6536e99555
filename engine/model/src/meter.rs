//! What a shard records of each logical unit: histograms of latency by operation and phase, and counters.
//!
//! A shard fills its own and nobody else's; control asks for them, gets the full ones and leaves spares. Times are nanoseconds.

use hdrhistogram::Histogram;

use crate::identity::UnitId;
use crate::login_failures::LoginFailures;

/// The operations that are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// READ of any length of CDB.
    Read,
    /// WRITE of any length of CDB.
    Write,
    /// Everything else.
    Other,
}

impl Operation {
    /// All of them, in the order of [`UnitMeter::operations`].
    pub const ALL: [Operation; 3] = [Operation::Read, Operation::Write, Operation::Other];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Other => "other",
        }
    }
}

/// How long the commands of one operation took: 35 KiB, and 12 more where there is a library.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the command's arrival until its first piece was handed to the medium.
    pub waited: Histogram<u32>,
    /// From the first piece handed to the medium until the last was back.
    pub at_medium: Histogram<u32>,
    /// From the command's arrival until its status was handed to the connection.
    pub total: Histogram<u32>,
    /// Of each request of a command, not of the command: how long the library below the medium (librbd) had it. `None` until
    /// there was one.
    pub in_library: Option<Histogram<u32>>,
}

impl Latencies {
    /// Empty ones.
    #[must_use]
    pub fn new() -> Self {
        Self { waited: histogram(), at_medium: histogram(), total: histogram(), in_library: None }
    }

    fn clear(&mut self) {
        self.waited.clear();
        self.at_medium.clear();
        self.total.clear();
        self.in_library.iter_mut().for_each(Histogram::clear);
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// One operation of one unit on one shard.
#[derive(Clone, Debug, Default)]
pub struct OperationMeter {
    /// How long they took; `None` until there was one. Units by the thousand of which nobody wants anything cost nothing.
    pub latencies: Option<Box<Latencies>>,
    /// Sum of `total`, in nanoseconds.
    pub total_ns: u64,
    /// Commands that ended, well or badly.
    pub commands: u64,
    /// Bytes moved between initiator and medium by commands that ended GOOD.
    pub bytes: u64,
    /// Commands that ended with CHECK CONDITION other than a unit attention.
    pub errors: u64,
}

/// The longest time that a histogram tells apart, in nanoseconds; longer ones count as this.
pub const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// The shortest one, in nanoseconds.
pub const LATENCY_NS_MIN: u64 = 256;

impl OperationMeter {
    fn clear(&mut self) {
        if let Some(latencies) = &mut self.latencies {
            latencies.clear();
        }
        (self.total_ns, self.commands, self.bytes, self.errors) = (0, 0, 0, 0);
    }
}

/// A histogram of the range and precision that all of portico uses: two significant digits.
///
/// # Panics
/// Never: the bounds are constants.
#[must_use]
pub fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 2).expect("the bounds are constants")
}

/// One unit on one shard.
#[derive(Clone, Debug)]
pub struct UnitMeter {
    /// Whose.
    pub unit: UnitId,
    /// As [`Operation::ALL`].
    pub operations: [OperationMeter; 3],
    /// Commands in hand at the moment of collection.
    pub in_flight: u32,
}

impl UnitMeter {
    /// An empty one.
    #[must_use]
    pub fn new(unit: UnitId) -> Self {
        Self { unit, operations: Default::default(), in_flight: 0 }
    }

    /// Makes it as new, for another round, without giving memory back.
    pub fn clear(&mut self) {
        self.operations.iter_mut().for_each(OperationMeter::clear);
        self.in_flight = 0;
    }

    /// The meter of one operation.
    #[must_use]
    pub fn operation(&mut self, operation: Operation) -> &mut OperationMeter {
        &mut self.operations[operation as usize]
    }
}

/// Everything a shard hands to control in one collection.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// Units that this shard knows.
    pub units: Vec<UnitMeter>,
    /// The shard's own counters, since it began.
    pub shard: ShardCounters,
    /// Sessions homed here.
    pub sessions: u32,
    /// Logins that came to nothing here, since the shard began.
    pub login_failures: LoginFailures,
}

/// What a shard counts about itself, from its start on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Passes of the loop.
    pub turns: u64,
    /// Calls into the kernel to submit and wait.
    pub enters: u64,
    /// Submission queue entries.
    pub submissions: u64,
    /// Completion queue entries.
    pub completions: u64,
    /// Bytes that were copied in user space on their way between socket and medium, medium in RAM excepted.
    pub copied_bytes: u64,
    /// Bytes received from sockets.
    pub received_bytes: u64,
    /// Bytes sent to sockets.
    pub sent_bytes: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that ended because the peer broke the protocol.
    pub violations: u64,
    /// Logins refused.
    pub logins_refused: u64,
    /// Commands answered TASK SET FULL or BUSY for want of memory.
    pub refused_for_memory: u64,
}
