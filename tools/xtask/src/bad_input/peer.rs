//! A peer that says whatever it likes, and hears what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portico_iscsi::framing;
use portico_iscsi::initiator::{Established, LoginPlan, Offer};
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, Cid, InitiatorTaskTag, LoginRequest, LunField, NopOut, ScsiCommand, Stage,
    TargetTransferTag, TaskAttribute, Tsih, data_segment_length, opcode,
};
use rustix::net::{self, AddressFamily, SocketType};

use crate::lab::gateway::IQN;
use crate::lab::initiator::{self, lun_field};
use crate::lab::{Context, Failure, Result};

/// What comes from the target.
#[derive(Debug)]
pub(super) enum Heard {
    /// A PDU and its data segment.
    Pdu(Box<Bhs>, Vec<u8>),
    /// The end of the connection, in order or not.
    Closed,
}

/// One end of a connection.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    /// After a login: the next CmdSN, and the StatSN that the next answer has to carry.
    pub(super) cmd_sn: CmdSn,
    stat_sn: Option<StatSn>,
}

impl Peer {
    /// Connects, and says nothing.
    pub(super) fn connect(portal: SocketAddr) -> Result<Peer> {
        let stream = initiator::connect(portal)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Peer { stream, cmd_sn: CmdSn(FIRST_CMD_SN), stat_sn: None })
    }

    /// Logs in as `number`: segments of 8 KiB, and no data unasked, so that every write has to be asked for.
    pub(super) fn log_in(portal: SocketAddr, number: u16) -> Result<Peer> {
        Peer::log_in_as(portal, plan(number)).map(|(peer, _)| peer)
    }

    /// Logs in by this plan.
    pub(super) fn log_in_as(portal: SocketAddr, plan: LoginPlan) -> Result<(Peer, Established)> {
        let mut peer = Peer::connect(portal)?;
        let established = initiator::login(&mut peer.stream, plan)?;
        peer.cmd_sn = established.window.expected();
        peer.stat_sn = Some(established.expected_stat_sn);
        Ok((peer, established))
    }

    /// Sends bytes. A target that has closed the connection already is heard later.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if !is_closed(error.kind()) => Err(error).context("sending"),
            _ => Ok(()),
        }
    }

    /// Says that nothing more comes; the answers may.
    pub(super) fn half_close(&mut self) {
        // A target that was faster has closed it already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next PDU, or the end. `Err`: nothing for [`PATIENCE`], or a StatSN that skips or repeats a number.
    pub(super) fn hear(&mut self) -> Result<Heard> {
        let mut bhs: Bhs = [0; BHS_BYTES];
        if !self.read(&mut bhs)? {
            return Ok(Heard::Closed);
        }
        let length = data_segment_length(&bhs);
        let mut data = vec![0; (length + framing::padding(length)) as usize];
        if !self.read(&mut data)? {
            return Ok(Heard::Closed);
        }
        data.truncate(length as usize);
        self.count(&bhs)?;
        Ok(Heard::Pdu(Box::new(bhs), data))
    }

    /// `false` where the connection has ended.
    fn read(&mut self, bytes: &mut [u8]) -> Result<bool> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if is_closed(error.kind()) => Ok(false),
            Err(error) => Err(error).context("waiting for the target"),
        }
    }

    /// Every answer but R2T, Data-In without status and an unasked NOP-In uses up a StatSN (§4.2.2.2).
    fn count(&mut self, bhs: &Bhs) -> Result<()> {
        let Some(expected) = self.stat_sn else { return Ok(()) };
        let numbered = match opcode(bhs) {
            DATA_IN => bhs[1] & 1 != 0,
            NOP_IN => bhs[16..20] != [0xff; 4],
            R2T => false,
            _ => true,
        };
        if !numbered {
            return Ok(());
        }
        let stat_sn = StatSn(word(bhs, 24));
        self.stat_sn = Some(expected.next());
        if stat_sn == expected {
            Ok(())
        } else {
            Err(Failure::new(format!("{stat_sn:?}, expected {expected:?}")))
        }
    }

    /// The next PDU has to be of this opcode.
    pub(super) fn expect(&mut self, wanted: u8) -> Result<(Box<Bhs>, Vec<u8>)> {
        match self.hear()? {
            Heard::Pdu(bhs, data) if opcode(&bhs) == wanted => Ok((bhs, data)),
            Heard::Pdu(bhs, _) => Err(Failure::new(format!(
                "opcode {:#04x} with flags {:#04x} {:#04x} {:#04x} came instead of {wanted:#04x}",
                opcode(&bhs),
                bhs[1],
                bhs[2],
                bhs[3]
            ))),
            Heard::Closed => Err(Failure::new(format!("closed instead of opcode {wanted:#04x}"))),
        }
    }

    /// The target closes the connection without another word.
    pub(super) fn expect_closed(&mut self) -> Result<()> {
        match self.hear()? {
            Heard::Closed => Ok(()),
            Heard::Pdu(bhs, _) => {
                Err(Failure::new(format!("opcode {:#04x} instead of the end", opcode(&bhs))))
            }
        }
    }

    /// A Login Response of this status, then the end (§11.13.5).
    pub(super) fn expect_refusal(&mut self, class: u8, detail: u8) -> Result<()> {
        let (bhs, _) = self.expect(LOGIN_RESPONSE)?;
        if bhs[36..38] != [class, detail] {
            return Err(Failure::new(format!("login status {:02x}{:02x}", bhs[36], bhs[37])));
        }
        self.expect_closed()
    }

    /// A Reject of this reason with the header that it rejects (§11.17); the connection goes on.
    pub(super) fn expect_reject(&mut self, reason: u8, header: &[u8]) -> Result<()> {
        let (bhs, data) = self.expect(REJECT)?;
        if bhs[2] != reason {
            return Err(Failure::new(format!("rejected for {:#04x}", bhs[2])));
        }
        if data.get(..BHS_BYTES) != header.get(..BHS_BYTES) {
            return Err(Failure::new("the rejected header is another one"));
        }
        self.ping()
    }

    /// The session is there: a NOP-Out with data comes back.
    pub(super) fn ping(&mut self) -> Result<()> {
        self.send(&pdu(nop(self), b"anybody there?"))?;
        let (bhs, data) = self.expect(NOP_IN)?;
        if word(&bhs, 16) != PING_TAG || data != b"anybody there?" {
            return Err(Failure::new("another ping came back"));
        }
        Ok(())
    }

    /// The response of this task: status, and sense key, ASC, ASCQ.
    pub(super) fn expect_response(&mut self, tag: u32) -> Result<(u8, (u8, u8, u8))> {
        let (bhs, data) = self.expect(SCSI_RESPONSE)?;
        if word(&bhs, 16) != tag {
            return Err(Failure::new(format!("the response is of task {:#x}", word(&bhs, 16))));
        }
        Ok((bhs[3], initiator::sense_of(data.get(2..).unwrap_or_default())))
    }

    /// Reads until the connection ends; `Err` if it does not.
    pub(super) fn drain(&mut self) -> Result<()> {
        while let Heard::Pdu(..) = self.hear()? {}
        Ok(())
    }
}

/// How one end sees that the other has gone.
fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// The plan of [`Peer::log_in`].
pub(super) fn plan(number: u16) -> LoginPlan {
    let offer = Offer::default()
        .with("InitialR2T", "Yes")
        .with("ImmediateData", "No")
        .with("MaxRecvDataSegmentLength", "8192");
    LoginPlan { offer, first_cmd_sn: CmdSn(FIRST_CMD_SN), ..initiator::plan(IQN, number) }
}

/// The first Login Request of a login with these keys, asking for the full feature phase.
pub(super) fn login_request() -> LoginRequest {
    LoginRequest {
        current_stage: Stage::LoginOperationalNegotiation,
        next_stage: Some(Stage::FullFeaturePhase),
        continues: false,
        version_max: 0,
        version_min: 0,
        data_segment_length: 0,
        isid: portico_iscsi::wire::Isid([0x80, 0, 0, 0, 9, 9]),
        tsih: Tsih::NEW,
        initiator_task_tag: InitiatorTaskTag(7),
        cid: Cid(0),
        cmd_sn: CmdSn(FIRST_CMD_SN),
        expected_stat_sn: StatSn(0),
    }
}

/// The keys of a first request that are right.
pub(super) fn login_keys() -> String {
    format!("InitiatorName=iqn.2026-11.test:rude\0SessionType=Normal\0TargetName={IQN}\0")
}

/// A TEST UNIT READY that is right.
pub(super) fn command(peer: &Peer, tag: u32) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final: true,
        read: false,
        write: false,
        attribute: TaskAttribute::Simple,
        priority: 0,
        total_ahs_words: 0,
        data_segment_length: 0,
        lun: lun_field(0),
        initiator_task_tag: InitiatorTaskTag(tag),
        expected_data_transfer_length: 0,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: peer.stat_sn.unwrap_or(StatSn(0)),
        cdb: [0; 16],
    }
}

/// A WRITE(10) or READ(10) of this many bytes at LBA 0.
pub(super) fn transfer(peer: &Peer, tag: u32, opcode: u8, bytes: u32) -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[5] = SCRATCH_LBA;
    cdb[7..9].copy_from_slice(&u16::try_from(bytes / 512).expect("below 32 MiB").to_be_bytes());
    let (read, write) = (opcode == READ_10, opcode == WRITE_10);
    ScsiCommand { read, write, expected_data_transfer_length: bytes, cdb, ..command(peer, tag) }
}

/// An immediate ping.
pub(super) fn nop(peer: &Peer) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    NopOut {
        immediate: true,
        data_segment_length: 0,
        lun: LunField::default(),
        initiator_task_tag: InitiatorTaskTag(PING_TAG),
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: peer.stat_sn.unwrap_or(StatSn(0)),
    }
    .emit(&mut bhs);
    bhs
}

/// A header of a command.
pub(super) fn header(command: ScsiCommand) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    command.emit(&mut bhs);
    bhs
}

/// A header of a Login Request.
pub(super) fn login_header(request: LoginRequest) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    request.emit(&mut bhs);
    bhs
}

/// A whole PDU, with the length of `data` put into its header.
pub(super) fn pdu(mut bhs: Bhs, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("below 2^24");
    bhs[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
    let mut bytes = bhs.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len() + framing::padding(length) as usize, 0);
    bytes
}

/// The big-endian number at `offset`.
pub(super) fn word(bhs: &Bhs, offset: usize) -> u32 {
    u32::from_be_bytes(bhs[offset..offset + 4].try_into().expect("4 bytes"))
}

/// A connection that never gets to a login, which the target has to end in time.
pub(super) struct Silence {
    name: &'static str,
    /// What it says each second.
    says: &'static [u8],
}

/// They take as long as a login may: begun first, waited for last.
pub(super) const SILENCES: &[Silence] = &[
    Silence { name: "a connection that says nothing is closed in time", says: &[] },
    Silence { name: "so is one that says a byte each second", says: &[0x43] },
];

/// A [`Silence`] under way.
pub(super) struct Waiting {
    name: &'static str,
    thread: JoinHandle<Result<Duration>>,
}

impl Silence {
    pub(super) fn begin(&self, portal: SocketAddr) -> Waiting {
        let says = self.says;
        let thread = thread::spawn(move || {
            let mut stream = connect_from_afar(portal)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let start = Instant::now();
            while start.elapsed() < 2 * LOGIN_LIMIT {
                match stream.read(&mut [0]) {
                    Ok(0) => return Ok(start.elapsed()),
                    Ok(_) => return Err(Failure::new("the target spoke first")),
                    Err(error) if is_closed(error.kind()) => return Ok(start.elapsed()),
                    // What comes after the end is an error that the next read sees.
                    Err(_) => drop(stream.write_all(says)),
                }
            }
            Err(Failure::new("it was never closed"))
        });
        Waiting { name: self.name, thread }
    }
}

/// Connects from an address of its own: a crowd takes places from the address that it comes from.
fn connect_from_afar(portal: SocketAddr) -> Result<TcpStream> {
    let own = SocketAddr::from((AFAR, 0));
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).context(own)?;
    net::bind(&socket, &own).context(own)?;
    net::connect(&socket, &portal).context(portal)?;
    Ok(TcpStream::from(socket))
}

impl Waiting {
    pub(super) fn end(self) -> (&'static str, Result<()>) {
        let waited = self.thread.join().unwrap_or_else(|_| Err(Failure::new("its thread panicked")));
        let outcome = waited.and_then(|waited| {
            let in_time = waited + Duration::from_secs(2) > LOGIN_LIMIT
                && waited < LOGIN_LIMIT + Duration::from_secs(3);
            if in_time {
                Ok(())
            } else {
                Err(Failure::new(format!("closed after {:.1} s", waited.as_secs_f64())))
            }
        });
        (self.name, outcome)
    }
}

/// Any address of the loopback interface but the crowd's.
const AFAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long porticod lets a login take.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);
/// How long an answer may take; less than the login limit, so that being closed for that is no answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// Close to where numbers wrap.
const FIRST_CMD_SN: u32 = 0xffff_fff0;
const PING_TAG: u32 = 0x0afe_afe0;
/// Where broken peers read and write: the witness keeps off the first blocks.
const SCRATCH_LBA: u8 = 8;

pub(super) const NOP_IN: u8 = 0x20;
pub(super) const SCSI_RESPONSE: u8 = 0x21;
pub(super) const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
pub(super) const LOGIN_RESPONSE: u8 = 0x23;
pub(super) const TEXT_RESPONSE: u8 = 0x24;
pub(super) const DATA_IN: u8 = 0x25;
pub(super) const R2T: u8 = 0x31;
pub(super) const REJECT: u8 = 0x3f;
pub(super) const READ_10: u8 = 0x28;
pub(super) const WRITE_10: u8 = 0x2a;
