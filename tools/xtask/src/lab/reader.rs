//! An independent reader of the protocol: tshark, which knows nothing of us, reads a capture and says what it finds wrong.
//!
//! Wrong is a PDU or a command that it calls malformed, bytes that it takes for no PDU, a digest of headers or of data that is
//! not that of its bytes, and whatever else it reports as an error (its expert information of that severity).
//!
//! Not wrong is SCSI data that end where the initiator asked for no more (ALLOCATION LENGTH), which tshark calls malformed when
//! it would have gone on reading.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::Running;
use super::wiretap::Capture;
use super::{Failure, Result, halt};

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Initiator,
    Target,
}

/// Whose words are to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Both,
    Target,
}

/// What a reader found.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// How many PDUs of each kind, as the reader calls them.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Digests of headers and of data that are right.
    pub(crate) header_digests: u64,
    pub(crate) data_digests: u64,
    /// How long the captures are.
    pub(crate) bytes: u64,
    /// How many of them end before what was captured did.
    pub(crate) cut: usize,
    /// What is wrong, in the reader's words, and who said it.
    pub(crate) wrong: Vec<(Option<Speaker>, String)>,
}

impl Reading {
    /// All PDUs.
    pub(crate) fn pdus(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// Adds what was found in another capture.
    pub(crate) fn add(&mut self, other: Reading) {
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.header_digests += other.header_digests;
        self.data_digests += other.data_digests;
        self.bytes += other.bytes;
        self.cut += other.cut;
        self.wrong.extend(other.wrong);
    }

    /// What was read, in a sentence.
    pub(crate) fn sentence(&self) -> String {
        let (pdus, headers, data) = (self.pdus(), self.header_digests, self.data_digests);
        let cut = match self.cut {
            0 => String::new(),
            count => format!(", the beginning of {count}"),
        };
        let mib = self.bytes >> 20;
        format!("{pdus} PDUs, {headers} header digests and {data} data digests, all right ({mib} MiB{cut})")
    }
}

/// What tshark's text says of gateways on these ports.
#[cfg(test)]
pub(crate) fn parse(text: &str, ports: &[u16]) -> Reading {
    let mut parser = Parser::new(ports);
    text.lines().for_each(|line| parser.line(line));
    parser.reading
}

/// Reads a capture to its end.
pub(crate) fn read(capture: &Capture) -> Result<Reading> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(&capture.packets);
    for port in &capture.ports {
        command.args(["-d", &format!("tcp.port=={port},iscsi")]);
    }
    // A line for each layer of a packet, all of iSCSI's, and a table of errors at the end.
    command.args(["-Y", "iscsi || data", "-O", "iscsi", "-z", "expert,error"]);
    let mut running =
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let stdout = running.stdout().ok_or_else(|| Failure::new("tshark's output is not ours"))?;
    let mut parser = Parser::new(&capture.ports);
    for line in BufReader::new(stdout).split(b'\n') {
        halt::go_on()?;
        parser.line(&String::from_utf8_lossy(&line?));
    }
    parser.reading.bytes = fs::metadata(&capture.packets)?.len();
    parser.reading.cut = usize::from(capture.is_cut);
    match running.wait(ENDING_LIMIT)? {
        Some(status) if status.success() => Ok(parser.reading),
        status => Err(Failure::new(format!("tshark: {status:?}"))),
    }
}

/// Goes through what tshark prints.
struct Parser<'a> {
    ports: &'a [u16],
    speaker: Option<Speaker>,
    /// The last line of a layer that is none of TCP's, which says what it is that is wrong.
    layer: String,
    /// The initiator's port of this packet, and the fields of this PDU.
    initiator: u16,
    kind: String,
    data_bytes: u64,
    task: u64,
    /// How much each task's command asks for.
    asked: HashMap<(u16, u64), u64>,
    /// Whether the table of errors has begun.
    errors: bool,
    reading: Reading,
}

impl<'a> Parser<'a> {
    fn new(ports: &'a [u16]) -> Parser<'a> {
        Parser {
            ports,
            speaker: None,
            layer: String::new(),
            initiator: 0,
            kind: String::new(),
            data_bytes: 0,
            task: 0,
            asked: HashMap::new(),
            errors: false,
            reading: Reading::default(),
        }
    }

    fn line(&mut self, line: &str) {
        self.field(line);
        let is_digest = |of: &str| line.contains(of) && line.contains("(Good CRC32)");
        self.reading.header_digests += u64::from(is_digest("HeaderDigest: "));
        self.reading.data_digests += u64::from(is_digest("DataDigest: "));
        if line.starts_with("iSCSI (") || line.starts_with("SCSI ") {
            line.clone_into(&mut self.layer);
        }
        let is_wrong =
            ["[Malformed", "(Bad CRC32", "[Dissector bug"].iter().any(|wrong| line.contains(wrong));
        if line.contains("[Malformed Packet: SCSI]") && self.ends_as_asked() {
            return;
        }
        // A layer of its own: what no dissector wanted.
        if is_wrong || line.starts_with("Data (") {
            self.wrong(self.speaker, line);
        }
        // `Errors (N)`, a line of dashes, the names of the columns, and then a line for each.
        self.errors |= line.starts_with("Errors (");
        let is_row = self.errors && line.trim_start().starts_with(|first: char| first.is_ascii_digit());
        // What is malformed was met where it was.
        if is_row && !line.contains("Malformed Packet (Exception occurred)") {
            self.layer.clear();
            self.wrong(None, line);
        }
    }

    /// Takes what is needed of a line that is a field.
    fn field(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once("Transmission Control Protocol, Src Port: ") {
            let source = number(rest).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
            let target = rest.split_once("Dst Port: ").and_then(|(_, rest)| number(rest));
            let ours = self.ports.contains(&source);
            self.speaker = Some(if ours { Speaker::Target } else { Speaker::Initiator });
            self.initiator =
                if ours { target.and_then(|port| u16::try_from(port).ok()).unwrap_or(0) } else { source };
        }
        if let Some((kind, _)) = line.split_once("Opcode: ").and_then(|(_, rest)| rest.split_once(" (0x")) {
            *self.reading.kinds.entry(kind.to_owned()).or_default() += 1;
            kind.clone_into(&mut self.kind);
        }
        let Some((name, value)) = line.trim_start().split_once(": ") else { return };
        match name {
            "DataSegmentLength" => self.data_bytes = number(value).unwrap_or(0),
            "InitiatorTaskTag" => {
                let digits = value.trim_start_matches("0x");
                self.task = u64::from_str_radix(digits, 16).unwrap_or(0);
            }
            "ExpectedDataTransferLength" => {
                self.asked.insert((self.initiator, self.task), number(value).unwrap_or(0));
            }
            _ => {}
        }
    }

    /// Whether this is Data-In with all that its command asked for.
    fn ends_as_asked(&self) -> bool {
        let asked = self.asked.get(&(self.initiator, self.task));
        self.kind == "SCSI Data In" && asked == Some(&self.data_bytes)
    }

    fn wrong(&mut self, speaker: Option<Speaker>, line: &str) {
        if self.reading.wrong.len() < WRONG_MAX {
            self.reading.wrong.push((speaker, format!("{}: {}", self.layer, line.trim())));
        }
    }
}

/// The digits that this begins with.
fn number(text: &str) -> Option<u64> {
    text.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

const ENDING_LIMIT: Duration = Duration::from_secs(20);
/// No more are kept of a capture.
const WRONG_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::{Speaker, parse};

    const TEXT: &str = "\
Frame 7: 118 bytes on wire (944 bits), 118 bytes captured (944 bits) on interface lo, id 0
Transmission Control Protocol, Src Port: 50000, Dst Port: 4000, Seq: 1, Ack: 1, Len: 52
iSCSI (SCSI Command)
    Opcode: SCSI Command (0x01)
    HeaderDigest: 0x00000001 (Good CRC32)
Transmission Control Protocol, Src Port: 4000, Dst Port: 50000, Seq: 1, Ack: 1, Len: 52
iSCSI (SCSI Data In)
    ..10 0101 = Opcode: SCSI Data In (0x25)
    HeaderDigest: 0x00000001 (Good CRC32)
    DataDigest: 0x00000002 (Good CRC32)
iSCSI (SCSI Data In)
    Opcode: SCSI Data In (0x25)
";

    #[test]
    fn pdus_and_digests_are_counted() {
        let reading = parse(TEXT, &[4000]);
        assert_eq!((reading.pdus(), reading.kinds["SCSI Data In"]), (3, 2));
        assert_eq!((reading.header_digests, reading.data_digests, reading.wrong.len()), (2, 1, 0));
    }

    #[test]
    fn what_is_wrong_is_told_with_who_said_it() {
        let of = |wrong: &str| parse(&format!("{TEXT}{wrong}\n"), &[4000]).wrong;
        for wrong in
            ["[Malformed Packet: SCSI]", "Data (48 bytes)", "    DataDigest: 0x1 (Bad CRC32, should be 0x2)"]
        {
            let words = format!("iSCSI (SCSI Data In): {}", wrong.trim());
            assert_eq!(of(wrong), [(Some(Speaker::Target), words)]);
        }
        let wrong = parse(&format!("{TEXT}[Malformed Packet: SCSI]"), &[50000]).wrong;
        assert_eq!(wrong[0].0, Some(Speaker::Initiator));
        let table = "\nErrors (2)\n=============\n   Frequency      Group           Protocol  Summary\n\
                     \x20          2  Malformed               SCSI  Malformed Packet (Exception occurred)\n\
                     \x20          1  Protocol               iSCSI  Invalid opcode";
        assert_eq!(of(table).len(), 1, "what is malformed was counted already: {:?}", of(table));
    }

    #[test]
    fn data_that_end_where_they_were_asked_to_are_not_malformed() {
        let text = |asked: u32| {
            format!(
                "Transmission Control Protocol, Src Port: 50000, Dst Port: 4000, Seq: 1, Ack: 1, Len: 48\n\
                 iSCSI (SCSI Command)\n    Opcode: SCSI Command (0x01)\n    DataSegmentLength: 0 (0x00000000)\n\
                 \x20   InitiatorTaskTag: 0x47bae0c5\n    ExpectedDataTransferLength: {asked} (0x00000001)\n\
                 Transmission Control Protocol, Src Port: 4000, Dst Port: 50000, Seq: 1, Ack: 1, Len: 52\n\
                 iSCSI (SCSI Data In)\n    Opcode: SCSI Data In (0x25)\n    DataSegmentLength: 12 (0x0000000c)\n\
                 \x20   InitiatorTaskTag: 0x47bae0c5\nSCSI Payload (Inquiry Response Data)\n[Malformed Packet: SCSI]\n"
            )
        };
        assert!(parse(&text(12), &[4000]).wrong.is_empty());
        assert_eq!(parse(&text(13), &[4000]).wrong.len(), 1);
    }
}
