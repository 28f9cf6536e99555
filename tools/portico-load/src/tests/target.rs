//! A small target that a test plays: a disk in memory behind as many connections as come, with faults on request.
//!
//! Its login is the engine's own; the rest is as short as it can be, and blocks. Its threads end with their connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use portico_iscsi::chap::{NONCE_BYTES, Nonce, User, Users};
use portico_iscsi::digest::field_of;
use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::login::{Admission, Completed, Directory, Lookup, Options, Step, TargetLogin};
use portico_iscsi::negotiate::{DigestChoice, TargetKeys};
use portico_iscsi::sn::{CmdSn, DataSn, R2tSn, StatSn};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, DataIn, DataInStatus, InitiatorPdu, LogoutResponse, LogoutResult, R2t, Residual,
    ScsiCommand, ScsiResponse, ServiceResponse, TargetPdu, TargetTransferTag, Tsih,
};

/// Logical blocks of 512 bytes.
pub(super) const BLOCKS: u64 = 4096;
pub(super) const BLOCK_BYTES: usize = 512;
pub(super) const NAME: &str = "iqn.2026-11.test:t";
/// Commands that a session may send at once.
const WINDOW: u16 = 16;

/// What the target does wrong, to which command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The n-th write is answered and not done.
    WriteLost(u32),
    /// Of the n-th write only the first half of its sectors is done.
    WriteTorn(u32),
    /// The n-th write lands one block further.
    WriteAstray(u32),
    /// One bit of the n-th write is flipped.
    BitFlipped(u32),
    /// Every third command gets BUSY at first.
    Busy,
    /// The n-th read ends with MEDIUM ERROR.
    ReadFails(u32),
    /// The connection is closed instead of the n-th read's answer.
    Hangup(u32),
    /// The n-th write is done, and the connection closed instead of its answer.
    HangupAfterWrite(u32),
    /// The connection is closed instead of doing the n-th write.
    HangupBeforeWrite(u32),
    /// Every connection is closed instead of its n-th read's answer.
    HangupAlways(u32),
    /// The connection is closed instead of the n-th read's answer, and nobody can log in any more.
    Gone(u32),
    /// The n-th read is answered after so many milliseconds, and until then nothing else on that connection.
    Stall(u32, u64),
    /// From the n-th read on nothing is answered.
    Mute(u32),
    /// It has no header digests.
    NoDigests,
    /// Who logs in has to be joe, and the target is jane.
    AsksForChap,
    /// A new session is not ready for a while, and then has two unit attentions.
    SlowStart,
}

pub(super) struct Disk {
    bytes: Mutex<Vec<u8>>,
    fault: Fault,
    reads: AtomicU32,
    writes: AtomicU32,
    commands: AtomicU32,
    incoming: [User; 1],
    outgoing: Option<User>,
}

impl Disk {
    /// Reads so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst).into()
    }
}

impl Directory for Disk {
    fn target(&self, _initiator: &str, target: &str) -> Lookup {
        if target != NAME {
            return Lookup::NotFound;
        }
        let keys = match self.fault {
            Fault::NoDigests => TargetKeys { header_digest: DigestChoice::None, ..TargetKeys::default() },
            _ => TargetKeys::default(),
        };
        Lookup::Admitted(Admission { keys, portal_group_tag: 1, alias: None, queued_commands: WINDOW })
    }

    fn users(&self, _target: Option<&str>) -> Users<'_> {
        if self.fault != Fault::AsksForChap {
            return Users::default();
        }
        Users { incoming: &self.incoming, outgoing: self.outgoing.as_ref() }
    }
}

/// Starts one; where it listens, and its disk.
pub(super) fn start(fault: Fault) -> (SocketAddr, Arc<Disk>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let disk = Arc::new(Disk {
        bytes: Mutex::new(vec![0; usize::try_from(BLOCKS).unwrap() * BLOCK_BYTES]),
        fault,
        reads: AtomicU32::new(0),
        writes: AtomicU32::new(0),
        commands: AtomicU32::new(0),
        incoming: [User::new("joe", "a secret of joe's")],
        outgoing: Some(User::new("jane", "a secret of jane's")),
    });
    let of_target = Arc::clone(&disk);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, disk) = (stream.unwrap(), Arc::clone(&of_target));
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                if let Some(completed) = log_in(&stream, &disk) {
                    Connection::new(stream, &disk, &completed).serve();
                }
            });
        }
    });
    (address, disk)
}

/// A whole PDU, or the end of the stream.
fn receive(mut stream: &TcpStream, digests: Digests) -> Option<(Bhs, Vec<u8>)> {
    let mut bhs = [0; BHS_BYTES];
    stream.read_exact(&mut bhs).ok()?;
    let lengths = Lengths::of(&bhs, digests, 1 << 20).unwrap();
    let mut header = bhs.to_vec();
    header.resize(usize::try_from(lengths.header_bytes()).unwrap(), 0);
    stream.read_exact(&mut header[BHS_BYTES..]).ok()?;
    digests.check_header(&header).unwrap();
    let mut data = vec![0; usize::try_from(lengths.data_bytes()).unwrap()];
    stream.read_exact(&mut data).ok()?;
    if lengths.data_digest_bytes > 0 {
        let (bytes, field) = data.split_last_chunk().unwrap();
        assert_eq!(field_of(bytes), *field, "a right data digest");
    }
    data.truncate(usize::try_from(lengths.data_segment_bytes).unwrap());
    Some((bhs, data))
}

fn send(mut stream: &TcpStream, bhs: &Bhs, data: &[u8], digests: Digests) {
    let mut bytes = bhs.to_vec();
    bytes.extend(digests.of_header(bhs).iter().flatten());
    let data_at = bytes.len();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    if digests.data && !data.is_empty() {
        bytes.extend(field_of(&bytes[data_at..]));
    }
    // An initiator that has gone wants nothing.
    let _ = stream.write_all(&bytes);
}

fn log_in(stream: &TcpStream, disk: &Disk) -> Option<Completed> {
    let options =
        Options { stat_sn: StatSn(100), discovery: TargetKeys::default(), discovery_queued_commands: 1 };
    if matches!(disk.fault, Fault::Gone(nth) if disk.reads() > nth.into()) {
        return None;
    }
    let mut login = TargetLogin::new(options, Nonce::new([7; NONCE_BYTES]));
    loop {
        let (bhs, data) = receive(stream, Digests::NONE)?;
        let Ok(InitiatorPdu::Login(request)) = InitiatorPdu::parse(&bhs) else { panic!("no login: {bhs:?}") };
        let (reply, completed, goes_on) = match login.receive(&request, &data, disk) {
            Ok(Step::More(reply)) => (reply, None, true),
            Ok(Step::Complete(completed)) => (completed.accept(Tsih(1)), Some(*completed), false),
            Ok(Step::Refused(reply)) => (reply, None, false),
            Err(violation) => (login.refusal(&bhs, &violation)?, None, false),
        };
        let mut bhs = [0; BHS_BYTES];
        reply.response.emit(&mut bhs);
        send(stream, &bhs, &reply.text, Digests::NONE);
        if !goes_on {
            return completed;
        }
    }
}

struct Connection<'a> {
    stream: TcpStream,
    disk: &'a Disk,
    stat_sn: StatSn,
    expected: CmdSn,
    segment_bytes_max: usize,
    digests: Digests,
    greetings: u32,
    /// Of this connection, that were answered.
    reads: u32,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, disk: &'a Disk, completed: &Completed) -> Self {
        let segment_bytes_max = completed.parameters.peer_max_recv_data_segment_length.min(8192);
        Self {
            stream,
            disk,
            stat_sn: completed.stat_sn.next(),
            expected: completed.cmd_sn,
            segment_bytes_max: usize::try_from(segment_bytes_max).unwrap(),
            digests: completed.parameters.digests(),
            greetings: if disk.fault == Fault::SlowStart { 3 } else { 0 },
            reads: 0,
        }
    }

    fn maximum(&self) -> CmdSn {
        self.expected.advanced_by(u32::from(WINDOW) - 1)
    }

    fn send(&self, pdu: &TargetPdu, data: &[u8]) {
        let mut bhs = [0; BHS_BYTES];
        pdu.emit(&mut bhs);
        send(&self.stream, &bhs, data, self.digests);
    }

    fn serve(mut self) {
        while let Some((bhs, data)) = receive(&self.stream, self.digests) {
            match InitiatorPdu::parse(&bhs).unwrap() {
                InitiatorPdu::ScsiCommand(command) => {
                    assert_eq!(command.cmd_sn, self.expected, "commands come in their order");
                    self.expected = self.expected.next();
                    if self.command(&command, data).is_none() {
                        return;
                    }
                }
                InitiatorPdu::Logout(request) => {
                    let response = LogoutResponse {
                        result: LogoutResult::Closed,
                        initiator_task_tag: request.initiator_task_tag,
                        stat_sn: self.stat_sn,
                        expected_cmd_sn: self.expected,
                        maximum_cmd_sn: self.maximum(),
                        time_2_wait_s: 0,
                        time_2_retain_s: 0,
                    };
                    return self.send(&TargetPdu::Logout(response), &[]);
                }
                other => panic!("nobody expects {other:?}"),
            }
        }
    }

    /// `None` where the connection is to be closed.
    fn command(&mut self, command: &ScsiCommand, data: Vec<u8>) -> Option<()> {
        let number = self.disk.commands.fetch_add(1, Ordering::SeqCst);
        match command.cdb[0] {
            0x00 => self.test_unit_ready(command),
            0x9e => {
                let mut answer = [0; 32];
                answer[..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
                answer[8..12].copy_from_slice(&u32::try_from(BLOCK_BYTES).unwrap().to_be_bytes());
                self.data_in(command, &answer);
            }
            0x28 => {
                let count = self.disk.reads.fetch_add(1, Ordering::SeqCst);
                match self.disk.fault {
                    Fault::Hangup(nth) if count == nth => return None,
                    Fault::Gone(nth) if count >= nth => return None,
                    Fault::HangupAlways(nth) if self.reads == nth => return None,
                    Fault::Mute(nth) if count >= nth => {}
                    Fault::ReadFails(nth) if count == nth => self.check(command, 3, 0x11),
                    Fault::Busy if number.is_multiple_of(3) => self.status(command, 0x08, &[]),
                    fault => {
                        if let Fault::Stall(nth, millis) = fault
                            && count == nth
                        {
                            thread::sleep(Duration::from_millis(millis));
                        }
                        self.reads += 1;
                        let bytes = self.disk.bytes.lock().unwrap()[range(command)].to_vec();
                        self.data_in(command, &bytes);
                    }
                }
            }
            0x2a => {
                let data = self.collect(command, data);
                if self.disk.fault == Fault::Busy && number.is_multiple_of(3) {
                    self.status(command, 0x08, &[]);
                } else {
                    let nth = self.disk.writes.fetch_add(1, Ordering::SeqCst);
                    if self.disk.fault == Fault::HangupBeforeWrite(nth) {
                        return None;
                    }
                    self.write(nth, command, data);
                    if self.disk.fault == Fault::HangupAfterWrite(nth) {
                        return None;
                    }
                    self.status(command, 0, &[]);
                }
            }
            other => panic!("nobody expects operation code {other:#x}"),
        }
        Some(())
    }

    fn test_unit_ready(&mut self, command: &ScsiCommand) {
        match self.greetings {
            0 => self.status(command, 0, &[]),
            3 => self.check(command, 2, 0x04),
            _ => self.check(command, 6, 0x29),
        }
        self.greetings = self.greetings.saturating_sub(1);
    }

    fn write(&self, nth: u32, command: &ScsiCommand, mut data: Vec<u8>) {
        let mut range = range(command);
        match self.disk.fault {
            Fault::WriteLost(at) if at == nth => return,
            Fault::WriteTorn(at) if at == nth => {
                data.truncate(data.len() / 2);
                range.end = range.start + data.len();
            }
            Fault::WriteAstray(at) if at == nth => {
                let length = range.len();
                range = range.start + length..range.end + length;
            }
            Fault::BitFlipped(at) if at == nth => data[700] ^= 0x10,
            _ => {}
        }
        self.disk.bytes.lock().unwrap()[range].copy_from_slice(&data);
    }

    /// All data of a write: what came with it, and the rest in R2Ts of 4 KiB.
    fn collect(&mut self, command: &ScsiCommand, mut data: Vec<u8>) -> Vec<u8> {
        let total = usize::try_from(command.expected_data_transfer_length).unwrap();
        let mut is_final = command.is_final;
        for r2t_sn in 0.. {
            while !is_final {
                is_final = self.data_out(&mut data);
            }
            if data.len() == total {
                break;
            }
            let wanted = (total - data.len()).min(4096);
            let r2t = R2t {
                lun: command.lun,
                initiator_task_tag: command.initiator_task_tag,
                target_transfer_tag: TargetTransferTag(r2t_sn),
                stat_sn: self.stat_sn,
                expected_cmd_sn: self.expected,
                maximum_cmd_sn: self.maximum(),
                r2t_sn: R2tSn(r2t_sn),
                buffer_offset: u32::try_from(data.len()).unwrap(),
                desired_data_transfer_length: u32::try_from(wanted).unwrap(),
            };
            self.send(&TargetPdu::R2t(r2t), &[]);
            is_final = false;
        }
        data
    }

    /// One Data-Out PDU; whether it was the last of its burst. Commands in between would need a queue: there are none, because
    /// the window is that of one command while data is awaited in these tests.
    fn data_out(&self, data: &mut Vec<u8>) -> bool {
        let (bhs, segment) = receive(&self.stream, self.digests).expect("the data comes");
        let Ok(InitiatorPdu::DataOut(pdu)) = InitiatorPdu::parse(&bhs) else { panic!("no data: {bhs:?}") };
        assert_eq!(usize::try_from(pdu.buffer_offset).unwrap(), data.len(), "data comes in order");
        data.extend_from_slice(&segment);
        pdu.is_final
    }

    fn data_in(&mut self, command: &ScsiCommand, bytes: &[u8]) {
        let pieces = bytes.chunks(self.segment_bytes_max);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.enumerate() {
            let status = DataInStatus { status: 0, stat_sn: self.stat_sn, residual: Residual::None };
            let pdu = DataIn {
                is_final: at == last,
                acknowledge: false,
                data_segment_length: u32::try_from(piece.len()).unwrap(),
                lun: command.lun,
                initiator_task_tag: command.initiator_task_tag,
                target_transfer_tag: TargetTransferTag::RESERVED,
                status: (at == last).then_some(status),
                expected_cmd_sn: self.expected,
                maximum_cmd_sn: self.maximum(),
                data_sn: DataSn(u32::try_from(at).unwrap()),
                buffer_offset: u32::try_from(at * self.segment_bytes_max).unwrap(),
            };
            self.send(&TargetPdu::DataIn(pdu), piece);
        }
        self.stat_sn = self.stat_sn.next();
    }

    fn check(&mut self, command: &ScsiCommand, key: u8, code: u8) {
        let mut sense = [0; 20];
        (sense[1], sense[2], sense[4], sense[9], sense[14]) = (18, 0x70, key, 10, code);
        self.status(command, 2, &sense);
    }

    fn status(&mut self, command: &ScsiCommand, status: u8, sense: &[u8]) {
        let length = command.expected_data_transfer_length;
        let residual = if status == 0 || length == 0 { Residual::None } else { Residual::Underflow(length) };
        let response = ScsiResponse {
            response: ServiceResponse::CommandCompleted,
            status,
            status_qualifier: 0,
            data_segment_length: u32::try_from(sense.len()).unwrap(),
            initiator_task_tag: command.initiator_task_tag,
            snack_tag: 0,
            stat_sn: self.stat_sn,
            expected_cmd_sn: self.expected,
            maximum_cmd_sn: self.maximum(),
            expected_data_sn: 0,
            bidirectional_read_residual: Residual::None,
            residual,
        };
        self.stat_sn = self.stat_sn.next();
        self.send(&TargetPdu::ScsiResponse(response), sense);
    }
}

/// The bytes of a READ (10) or WRITE (10).
fn range(command: &ScsiCommand) -> std::ops::Range<usize> {
    let lba = u32::from_be_bytes(command.cdb[2..6].try_into().unwrap());
    let blocks = u16::from_be_bytes(command.cdb[7..9].try_into().unwrap());
    let start = usize::try_from(lba).unwrap() * BLOCK_BYTES;
    start..start + usize::from(blocks) * BLOCK_BYTES
}
