//! A snapshot in JSON, for `portico top` and whoever prefers it to metrics.
//!
//! `GET /v1/units`:
//! ```json
//! {
//!   "version": 1, "taken_ns": 5500000000, "shards": 2, "shards_late": 0, "sessions": 3,
//!   "units": [{
//!     "unit": 7, "device": "disk1", "ready": true, "draining": false, "block_bytes": 512, "capacity_blocks": 2048,
//!     "in_flight": 3,
//!     "luns": [{"target": "iqn.…", "group": null, "lun": 0}],
//!     "operations": {
//!       "read": {"commands": 200, "bytes": 819200, "errors": 0, "total_ns": 18000000,
//!                "waited": "HISTEw…", "at_medium": "HISTEw…", "total": "HISTEw…", "in_library": null},
//!       "write": {…}, "other": {…}
//!     }
//!   }]
//! }
//! ```
//! Everything is cumulative since the unit was opened, so that a reader keeps the answer before and subtracts, over
//! `taken_ns` of both (a monotonic clock whose origin is the start of the process: where it goes back, the process is a
//! new one; likewise a `unit` that was not there before is a new one, whatever its name). A histogram is HdrHistogram's
//! V2 encoding, not compressed, in base64, of nanoseconds with two significant digits; an operation that never came has
//! `null` for its histograms. `in_library` is librbd's own time of each request to it, `null` where there is no such library.
//!
//! `GET /v1/sessions`: `{"version": 1, "taken_ns": …, "sessions": [{"session": 1, "initiator": "iqn.…", "target": "iqn.…",
//! "shard": 1, "peer": "10.0.0.9:40000"}]}`, `target` being `null` for a discovery session.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use portico_model::meter::Operation;
use serde::Serialize;

use super::{OperationTotals, Phase, Snapshot, UnitSnapshot};

/// The media type of all answers here.
pub const CONTENT_TYPE: &str = "application/json";

/// Raised when a reader of the version before would be misled.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Units<'a> {
    version: u32,
    taken_ns: u64,
    shards: usize,
    shards_late: u32,
    sessions: usize,
    units: Vec<Unit<'a>>,
}

#[derive(Serialize)]
struct Unit<'a> {
    unit: u32,
    device: &'a str,
    ready: bool,
    draining: bool,
    block_bytes: u32,
    capacity_blocks: u64,
    in_flight: u64,
    luns: Vec<Lun<'a>>,
    operations: Operations,
}

#[derive(Serialize)]
struct Lun<'a> {
    target: &'a str,
    group: Option<&'a str>,
    lun: u16,
}

#[derive(Serialize)]
struct Operations {
    read: OperationBody,
    write: OperationBody,
    other: OperationBody,
}

#[derive(Serialize, Default)]
struct OperationBody {
    commands: u64,
    bytes: u64,
    errors: u64,
    total_ns: u64,
    waited: Option<String>,
    at_medium: Option<String>,
    total: Option<String>,
    in_library: Option<String>,
}

#[derive(Serialize)]
struct Sessions<'a> {
    version: u32,
    taken_ns: u64,
    sessions: Vec<Session<'a>>,
}

#[derive(Serialize)]
struct Session<'a> {
    session: u64,
    initiator: &'a str,
    target: Option<&'a str>,
    shard: u16,
    peer: String,
}

/// The body of `/v1/units`.
#[must_use]
pub fn units(snapshot: &Snapshot) -> String {
    encode(&Units {
        version: VERSION,
        taken_ns: snapshot.taken.0,
        shards: snapshot.shards.len(),
        shards_late: snapshot.shards_late,
        sessions: snapshot.sessions.len(),
        units: snapshot.units.iter().map(unit).collect(),
    })
}

/// The body of `/v1/sessions`.
#[must_use]
pub fn sessions(snapshot: &Snapshot) -> String {
    let sessions = snapshot.sessions.iter().map(|session| Session {
        session: session.session.0,
        initiator: &session.initiator,
        target: session.target.as_deref(),
        shard: session.shard.0,
        peer: session.peer.to_string(),
    });
    encode(&Sessions { version: VERSION, taken_ns: snapshot.taken.0, sessions: sessions.collect() })
}

fn unit(unit: &UnitSnapshot) -> Unit<'_> {
    let body = |operation| unit.totals.operation(operation).map(operation_body).unwrap_or_default();
    Unit {
        unit: unit.unit.0,
        device: &unit.device,
        ready: unit.ready,
        draining: unit.draining,
        block_bytes: unit.block_bytes,
        capacity_blocks: unit.capacity_blocks,
        in_flight: unit.in_flight,
        luns: unit
            .luns
            .iter()
            .map(|label| Lun { target: &label.target, group: label.group.as_deref(), lun: label.lun })
            .collect(),
        operations: Operations {
            read: body(Operation::Read),
            write: body(Operation::Write),
            other: body(Operation::Other),
        },
    }
}

fn operation_body(totals: &OperationTotals) -> OperationBody {
    OperationBody {
        commands: totals.commands,
        bytes: totals.bytes,
        errors: totals.errors,
        total_ns: totals.total_ns,
        waited: Some(histogram(totals.phase(Phase::Waited))),
        at_medium: Some(histogram(totals.phase(Phase::AtMedium))),
        total: Some(histogram(totals.phase(Phase::Total))),
        in_library: Some(totals.phase(Phase::InLibrary)).filter(|times| !times.is_empty()).map(histogram),
    }
}

fn histogram(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Fails only where a count is beyond 2^63 - 1: no gateway lives that long.
    V2Serializer::new().serialize(histogram, &mut bytes).expect("counts are below 2^63");
    STANDARD.encode(bytes)
}

fn encode(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("plain structures with text for keys can be written")
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use serde_json::Value;

    use super::super::tests::sample;
    use super::*;

    #[test]
    fn a_reader_gets_every_number_and_every_histogram_back() {
        let value: Value = serde_json::from_str(&units(&sample())).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["taken_ns"], 5_500_000_000_u64);
        assert_eq!((&value["shards"], &value["sessions"]), (&2.into(), &1.into()));
        let unit = &value["units"][0];
        assert_eq!(unit["device"], "disk \"1\"");
        assert_eq!(unit["luns"][1]["group"], "vmware");
        assert_eq!(unit["luns"][0]["group"], Value::Null);
        let read = &unit["operations"]["read"];
        assert_eq!((&read["commands"], &read["bytes"]), (&200.into(), &819_200.into()));

        let bytes = STANDARD.decode(read["total"].as_str().unwrap()).unwrap();
        let total: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(total.len(), 200);
        assert!(total.equivalent(total.value_at_quantile(0.99), 90_000));
        assert_eq!(unit["operations"]["other"]["total"], Value::Null, "it never came");
        assert_eq!(read["in_library"], Value::Null, "there is none");
    }

    #[test]
    fn a_session_says_who_and_where() {
        let value: Value = serde_json::from_str(&sessions(&sample())).unwrap();
        let session = &value["sessions"][0];
        assert_eq!(session["initiator"], "iqn.a");
        assert_eq!(session["shard"], 1);
        assert_eq!(session["peer"], "10.0.0.9:40000");
    }
}
