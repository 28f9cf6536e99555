//! What the gateway tells on its metrics port, read once into plain values: `/v1/units` and `/v1/sessions`, as
//! `portico_control::metrics::json` describes them.
//!
//! Names are made printable here, so that nothing behind this file can send a terminal astray.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::distribution::{Distribution, Unreadable};
use super::http;

/// The version of the interface that is understood.
const VERSION: u32 = 1;

/// Everything, cumulative, at one moment of the gateway's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Nanoseconds since the gateway began.
    pub(crate) taken_ns: u64,
    /// How many shards there are.
    pub(crate) shards: u32,
    /// How many of them did not tell their last figures.
    pub(crate) shards_late: u32,
    /// Ascending by unit.
    pub(crate) units: Vec<Unit>,
    pub(crate) sessions: Vec<Session>,
}

/// One logical unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// What tells it from a unit of the same name that was there before it.
    pub(crate) unit: u32,
    pub(crate) device: String,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    pub(crate) block_bytes: u32,
    pub(crate) capacity_blocks: u64,
    pub(crate) in_flight: u64,
    pub(crate) luns: Vec<Lun>,
    /// In the order of [`OPERATIONS`].
    pub(crate) operations: [Operation; 3],
}

/// Where a unit is mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Lun {
    pub(crate) target: String,
    pub(crate) group: Option<String>,
    pub(crate) lun: u16,
}

/// One operation of one unit, since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) commands: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    /// In the order of [`PHASES`].
    pub(crate) phases: [Distribution; 3],
    /// Of each request to the library below the medium (librbd); empty where there is none.
    pub(crate) in_library: Distribution,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Session {
    pub(crate) initiator: String,
    pub(crate) target: Option<String>,
    pub(crate) shard: u16,
    pub(crate) peer: String,
}

/// The operations that the gateway tells apart.
pub(crate) const OPERATIONS: [&str; 3] = ["read", "write", "other"];
/// The phases of a command's time that it tells apart.
pub(crate) const PHASES: [&str; 3] = ["waited", "at medium", "total"];
/// The index of the time at the medium in [`PHASES`].
pub(crate) const AT_MEDIUM: usize = 1;
/// The index of the whole time in [`PHASES`].
pub(crate) const TOTAL: usize = 2;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing came.
    Http(http::Failure),
    /// What came is no JSON of this form.
    Json(serde_json::Error),
    /// It comes from a gateway of another time.
    Version(u32),
    /// A histogram of it means nothing.
    Histogram(Unreadable),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(failure) => write!(f, "{failure}"),
            Self::Json(error) => write!(f, "the answer is not portico's: {error}"),
            Self::Version(version) => write!(f, "the gateway speaks version {version}, this tool {VERSION}"),
            Self::Histogram(unreadable) => write!(f, "the answer is not portico's: {unreadable}"),
        }
    }
}

impl Answer {
    /// Asks the gateway, within twice `patience`.
    pub(crate) fn ask(gateway: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let units = http::get(gateway, "/v1/units", patience).map_err(Failure::Http)?;
        let sessions = http::get(gateway, "/v1/sessions", patience).map_err(Failure::Http)?;
        Self::parse(&units, &sessions)
    }

    /// Reads both bodies.
    pub(crate) fn parse(units: &[u8], sessions: &[u8]) -> Result<Self, Failure> {
        let Version { version } = serde_json::from_slice(units).map_err(Failure::Json)?;
        if version != VERSION {
            return Err(Failure::Version(version));
        }
        let body: UnitsBody = serde_json::from_slice(units).map_err(Failure::Json)?;
        let sessions: SessionsBody = serde_json::from_slice(sessions).map_err(Failure::Json)?;
        let mut units: Vec<Unit> = body
            .units
            .into_iter()
            .map(UnitBody::decode)
            .collect::<Result<_, _>>()
            .map_err(Failure::Histogram)?;
        units.sort_by_key(|unit| unit.unit);
        Ok(Self {
            taken_ns: body.taken_ns,
            shards: body.shards,
            shards_late: body.shards_late,
            units,
            sessions: sessions.sessions.into_iter().map(Session::printable).collect(),
        })
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct UnitsBody {
    taken_ns: u64,
    shards: u32,
    shards_late: u32,
    units: Vec<UnitBody>,
}

#[derive(Deserialize)]
struct UnitBody {
    unit: u32,
    device: String,
    ready: bool,
    draining: bool,
    block_bytes: u32,
    capacity_blocks: u64,
    in_flight: u64,
    luns: Vec<Lun>,
    operations: OperationsBody,
}

#[derive(Deserialize)]
struct OperationsBody {
    read: OperationBody,
    write: OperationBody,
    other: OperationBody,
}

#[derive(Deserialize)]
struct OperationBody {
    commands: u64,
    bytes: u64,
    errors: u64,
    waited: Option<String>,
    at_medium: Option<String>,
    total: Option<String>,
    #[serde(default)]
    in_library: Option<String>,
}

#[derive(Deserialize)]
struct SessionsBody {
    sessions: Vec<Session>,
}

impl UnitBody {
    fn decode(self) -> Result<Unit, Unreadable> {
        let OperationsBody { read, write, other } = self.operations;
        Ok(Unit {
            unit: self.unit,
            device: printable(&self.device),
            ready: self.ready,
            draining: self.draining,
            block_bytes: self.block_bytes,
            capacity_blocks: self.capacity_blocks,
            in_flight: self.in_flight,
            luns: self.luns.into_iter().map(Lun::printable).collect(),
            operations: [read.decode()?, write.decode()?, other.decode()?],
        })
    }
}

impl OperationBody {
    fn decode(self) -> Result<Operation, Unreadable> {
        let distribution =
            |text: Option<String>| text.map_or(Ok(Distribution::default()), |t| Distribution::decode(&t));
        let phases = [distribution(self.waited)?, distribution(self.at_medium)?, distribution(self.total)?];
        let in_library = distribution(self.in_library)?;
        Ok(Operation { commands: self.commands, bytes: self.bytes, errors: self.errors, phases, in_library })
    }
}

impl Lun {
    fn printable(self) -> Self {
        Self { target: printable(&self.target), group: self.group.as_deref().map(printable), lun: self.lun }
    }
}

impl Session {
    fn printable(self) -> Self {
        Self {
            initiator: printable(&self.initiator),
            target: self.target.as_deref().map(printable),
            shard: self.shard,
            peer: printable(&self.peer),
        }
    }
}

fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::distribution::tests::encoded;
    use super::*;

    fn operation(reads: u64, time_ns: u64) -> String {
        let (most, some) = (reads * 6 / 10, reads * 3 / 10);
        let spread = |ns: u64| encoded(&[(ns, most), (ns * 3, some), (ns * 40, reads - most - some)]);
        let (waited, at_medium, total) = (spread(time_ns / 60), spread(time_ns / 2), spread(time_ns));
        format!(
            r#"{{"commands":{reads},"bytes":{},"errors":1,"total_ns":{},"waited":"{waited}","at_medium":"{at_medium}","total":"{total}"}}"#,
            reads * 4096,
            reads * time_ns,
        )
    }

    /// `/v1/units` of a gateway with two shards: `disk1` has done so many reads of 90 µs, `disk2` nothing.
    pub(crate) fn units(taken_ns: u64, reads: u64) -> String {
        let never =
            r#"{"commands":0,"bytes":0,"errors":0,"total_ns":0,"waited":null,"at_medium":null,"total":null}"#;
        let read = operation(reads, 90_000);
        format!(
            r#"{{"version":1,"taken_ns":{taken_ns},"shards":2,"shards_late":0,"sessions":2,"units":[
            {{"unit":7,"device":"disk1","ready":true,"draining":false,"block_bytes":512,"capacity_blocks":2048,"in_flight":3,
              "luns":[{{"target":"iqn.2026-11.io.portico:t","group":null,"lun":0}},
                      {{"target":"iqn.2026-11.io.portico:t","group":"vmware","lun":12}}],
              "operations":{{"read":{read},"write":{never},"other":{never}}}}},
            {{"unit":9,"device":"disk2","ready":false,"draining":false,"block_bytes":4096,"capacity_blocks":0,"in_flight":0,
              "luns":[],"operations":{{"read":{never},"write":{never},"other":{never}}}}}]}}"#
        )
    }

    pub(crate) const SESSIONS: &str = r#"{"version":1,"taken_ns":5,"sessions":[
        {"session":1,"initiator":"iqn.1994-05.com.redhat:a","target":"iqn.2026-11.io.portico:t","shard":1,"peer":"10.0.0.9:40000"},
        {"session":2,"initiator":"iqn.1994-05.com.redhat:b","target":null,"shard":0,"peer":"10.0.0.8:40001"}]}"#;

    /// The answer in which `disk1` has done so many reads.
    pub(crate) fn answer(taken_ns: u64, reads: u64) -> Answer {
        Answer::parse(units(taken_ns, reads).as_bytes(), SESSIONS.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_has_every_figure() {
        let answer = answer(5_500_000_000, 200);
        assert_eq!((answer.taken_ns, answer.shards, answer.shards_late), (5_500_000_000, 2, 0));
        let unit = &answer.units[0];
        assert_eq!((unit.unit, unit.device.as_str(), unit.in_flight), (7, "disk1", 3));
        assert_eq!(unit.luns[1].group.as_deref(), Some("vmware"));
        let [read, write, _] = &unit.operations;
        assert_eq!((read.commands, read.bytes, read.errors), (200, 819_200, 1));
        assert_eq!(read.phases[TOTAL].count(), 200);
        assert_eq!(*write, Operation::default());
        assert_eq!(answer.sessions[0].shard, 1);
        assert_eq!(answer.sessions[1].target, None);
    }

    #[test]
    fn a_field_that_is_new_does_not_disturb() {
        let units = units(1, 1).replace("\"shards\":2", "\"novelty\":[1],\"shards\":2");
        assert!(Answer::parse(units.as_bytes(), SESSIONS.as_bytes()).is_ok());
    }

    #[test]
    fn another_version_and_another_program_are_told_apart() {
        let failure =
            |units: &str| Answer::parse(units.as_bytes(), SESSIONS.as_bytes()).unwrap_err().to_string();
        let newer = units(1, 1).replace("\"version\":1", "\"version\":2");
        assert_eq!(failure(&newer), "the gateway speaks version 2, this tool 1");
        assert!(failure("{\"hello\":1}").starts_with("the answer is not portico's: "));
        assert!(failure("<html>").starts_with("the answer is not portico's: "));
        let spoilt = units(1, 1).replace("HIST", "HIST*");
        assert_eq!(failure(&spoilt), "the answer is not portico's: a histogram that is no base64");
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        let units = units(1, 1).replace("disk1", "\\u001b[2J");
        let answer = Answer::parse(units.as_bytes(), SESSIONS.as_bytes()).unwrap();
        assert_eq!(answer.units[0].device, "\u{fffd}[2J");
    }
}
