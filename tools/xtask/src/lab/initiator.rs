//! A small blocking initiator, for harnesses that have to see every answer: `portico_iscsi::initiator` over one
//! socket. It trusts the target in nothing; whatever is against RFC 7143 comes out as a failure.
//!
//! [`Initiator::run`] takes a batch of commands, keeps as many outstanding as the target's window takes, and returns
//! when all have ended. Buffers belong to the commands.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portico_iscsi::chap::{NONCE_BYTES, Nonce};
use portico_iscsi::digest::{self, Crc32c, DigestField};
use portico_iscsi::framing;
use portico_iscsi::initiator::{
    Command, Completion, Direction, Established, Event, Login, LoginPlan, Payload, Placement, Progress,
    Session,
};
use portico_iscsi::wire::{BHS_BYTES, Bhs, Isid, LunField, TaskAttribute, data_segment_length};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{Context, Failure, Result};

/// The block size of all units that harnesses make.
pub(crate) const BLOCK_BYTES: usize = 512;

/// A SCSI status and its sense data.
pub(crate) type Outcome = (u8, Vec<u8>);

/// The command of a batch that has ended, and how.
type Ended = (usize, Outcome);

/// A command of a batch and, after it, its outcome.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) lun: u8,
    pub(crate) cdb: [u8; 16],
    pub(crate) direction: Direction,
    /// What is written, or where what is read goes.
    pub(crate) data: Vec<u8>,
    /// The SCSI status and the sense data, once it has ended.
    pub(crate) outcome: Option<Outcome>,
}

impl Io {
    /// READ(16) of whole blocks.
    pub(crate) fn read(lun: u8, lba: u64, bytes: usize) -> Io {
        Io::transfer(0x88, Direction::Read, lun, lba, vec![0; bytes])
    }

    /// WRITE(16) of whole blocks.
    pub(crate) fn write(lun: u8, lba: u64, data: Vec<u8>) -> Io {
        Io::transfer(0x8a, Direction::Write, lun, lba, data)
    }

    /// READ CAPACITY(16).
    pub(crate) fn read_capacity(lun: u8) -> Io {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
        Io { lun, cdb, direction: Direction::Read, data: vec![0; 32], outcome: None }
    }

    /// TEST UNIT READY.
    fn test_unit_ready(lun: u8) -> Io {
        Io { lun, cdb: [0; 16], direction: Direction::None, data: Vec::new(), outcome: None }
    }

    fn transfer(opcode: u8, direction: Direction, lun: u8, lba: u64, data: Vec<u8>) -> Io {
        assert!(data.len().is_multiple_of(BLOCK_BYTES), "whole blocks");
        let blocks = u32::try_from(data.len() / BLOCK_BYTES).expect("a transfer of a harness is small");
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
        Io { lun, cdb, direction, data, outcome: None }
    }

    /// Whether it ended with GOOD.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.outcome, Some((0, _)))
    }

    /// Whether the target had no room for it: BUSY or TASK SET FULL.
    fn is_refused(&self) -> bool {
        matches!(self.outcome, Some((0x08 | 0x28, _)))
    }

    /// `Err` that says how it ended, unless with GOOD.
    pub(crate) fn expect_good(&self) -> Result<()> {
        match &self.outcome {
            Some((0, _)) => Ok(()),
            Some((status, sense)) => {
                let (key, asc, ascq) = sense_of(sense);
                let opcode = self.cdb[0];
                Err(Failure::new(format!(
                    "command {opcode:#04x} ended with status {status:#04x}, sense {key:#x}/{asc:02x}/{ascq:02x}"
                )))
            }
            None => Err(Failure::new("a command has not ended")),
        }
    }
}

/// Sense key, ASC and ASCQ of fixed-format sense data; zeros where there is none.
pub(crate) fn sense_of(sense: &[u8]) -> (u8, u8, u8) {
    let byte = |index: usize| sense.get(index).copied().unwrap_or(0);
    (byte(2) & 0x0f, byte(12), byte(13))
}

/// The smallest plan of a login for `name` at `target`, with an ISID that is `number`'s own.
pub(crate) fn plan(target: &str, number: u16) -> LoginPlan {
    let [high, low] = number.to_be_bytes();
    LoginPlan {
        isid: Isid([0x80, 0, 0, 0, high, low]),
        ..LoginPlan::normal(&format!("iqn.2026-11.test:initiator-{number}"), target)
    }
}

/// One session in its full feature phase.
pub(crate) struct Initiator {
    inbound: BufReader<TcpStream>,
    session: Session,
    outbound: Vec<u8>,
    staged: Vec<u8>,
}

impl Initiator {
    /// Connects and logs in.
    pub(crate) fn log_in(portal: SocketAddr, plan: LoginPlan) -> Result<Initiator> {
        Initiator::log_in_with(portal, plan, COMMANDS, INBOUND_BYTES)
    }

    /// As [`Initiator::log_in`], one of thousands: it takes little memory, and one command at a time.
    pub(crate) fn log_in_idle(portal: SocketAddr, plan: LoginPlan) -> Result<Initiator> {
        Initiator::log_in_with(portal, plan, 1, BHS_BYTES * 4)
    }

    fn log_in_with(portal: SocketAddr, plan: LoginPlan, commands: u16, inbound: usize) -> Result<Initiator> {
        let mut stream = connect(portal)?;
        let established = login(&mut stream, plan)?;
        let inbound = BufReader::with_capacity(inbound, stream);
        let session = Session::new(&established, commands);
        Ok(Initiator { inbound, session, outbound: Vec::new(), staged: Vec::new() })
    }

    /// Answers what the target has said since, its pings above all, and waits for nothing. How many PDUs had come.
    pub(crate) fn attend(&mut self) -> Result<u64> {
        let mut count = 0;
        while self.has_heard()? {
            if self.receive(&mut [])?.is_some() {
                return Err(Failure::new("an answer that nobody asked for"));
            }
            self.send(&[])?;
            count += 1;
        }
        Ok(count)
    }

    fn has_heard(&self) -> Result<bool> {
        if !self.inbound.buffer().is_empty() {
            return Ok(true);
        }
        match recv(self.inbound.get_ref(), &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Failure::new("the target has closed the connection")),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error).context("a session that is idle"),
        }
    }

    /// How long the target may leave us without an answer from now on.
    pub(crate) fn patience(&mut self, limit: Duration) -> Result<()> {
        self.inbound.get_ref().set_read_timeout(Some(limit))?;
        self.inbound.get_ref().set_write_timeout(Some(limit))?;
        Ok(())
    }

    /// Takes the unit attentions of a unit, until it is ready.
    pub(crate) fn clear_attentions(&mut self, lun: u8) -> Result<()> {
        let mut ios = [Io::test_unit_ready(lun)];
        for _ in 0..ATTENTIONS_MAX {
            ios[0].outcome = None;
            self.run(&mut ios)?;
            if ios[0].is_good() {
                return Ok(());
            }
        }
        ios[0].expect_good()
    }

    /// Runs all of them, and returns when the last has ended, however it did. `Err`: the session is lost.
    pub(crate) fn run(&mut self, ios: &mut [Io]) -> Result<()> {
        let (mut submitted, mut ended) = (0, 0);
        while ended < ios.len() {
            while let Some(io) = ios.get(submitted) {
                let length = u32::try_from(io.data.len()).expect("a transfer of a harness is small");
                let command = Command {
                    lun: lun_field(io.lun),
                    cdb: &io.cdb,
                    direction: io.direction,
                    expected_length: length,
                    attribute: TaskAttribute::Simple,
                    immediate: false,
                    user: u64::try_from(submitted).expect("an index"),
                };
                if self.session.submit(&command).is_none() {
                    break;
                }
                submitted += 1;
            }
            self.send(ios)?;
            if let Some((index, outcome)) = self.receive(ios)? {
                ios[index].outcome = Some(outcome);
                ended += 1;
            }
        }
        Ok(())
    }

    /// As [`Initiator::run`], and again for those that ended with BUSY or TASK SET FULL, as SAM-5 §5.3.1 has it, until
    /// they end otherwise or `limit` is over. How many had to be sent again.
    pub(crate) fn run_patiently(&mut self, ios: &mut [Io], limit: Duration) -> Result<u64> {
        let start = Instant::now();
        self.run(ios)?;
        let mut again = 0;
        loop {
            let refused: Vec<usize> = (0..ios.len()).filter(|index| ios[*index].is_refused()).collect();
            if refused.is_empty() || start.elapsed() > limit {
                return Ok(again);
            }
            std::thread::sleep(RETRY_PAUSE);
            for index in refused {
                again += 1;
                self.run(&mut ios[index..=index])?;
            }
        }
    }

    /// Sends all that waits, in one piece where it is short.
    fn send(&mut self, ios: &[Io]) -> Result<()> {
        let digests = self.session.digests();
        let mut bhs: Bhs = [0; BHS_BYTES];
        while let Some(outgoing) = self.session.next_pdu(&mut bhs) {
            self.outbound.extend_from_slice(&bhs);
            self.outbound.extend_from_slice(outgoing.ahs());
            self.outbound.extend(outgoing.header_digest(&bhs, digests).iter().flatten());
            let data_at = self.outbound.len();
            match outgoing.payload {
                Payload::None => {}
                Payload::Bytes(bytes) => self.outbound.extend_from_slice(bytes),
                Payload::WriteBuffer { user, offset, length, .. } => {
                    let range = offset as usize..offset as usize + length as usize;
                    self.outbound.extend_from_slice(&ios[index(user)].data[range]);
                }
            }
            self.outbound.resize(self.outbound.len() + outgoing.padding_bytes as usize, 0);
            if digests.data && self.outbound.len() > data_at {
                let field = digest::field_of(&self.outbound[data_at..]);
                self.outbound.extend_from_slice(&field);
            }
            if self.outbound.len() >= OUTBOUND_BYTES {
                flush(self.inbound.get_mut(), &mut self.outbound)?;
            }
        }
        flush(self.inbound.get_mut(), &mut self.outbound)
    }

    /// Takes one PDU; the command that ended with it, and how.
    fn receive(&mut self, ios: &mut [Io]) -> Result<Option<Ended>> {
        let mut bhs: Bhs = [0; BHS_BYTES];
        self.inbound.read_exact(&mut bhs).context("waiting for the target")?;
        let digests = self.session.digests();
        if let Some(field) = digests.of_header(&bhs) {
            self.expect_digest(field, "a header")?;
        }
        let placement = self.session.receive_header(&bhs).context("the target")?;
        let mut crc = Crc32c::new();
        self.staged.clear();
        match placement {
            Placement::None => {}
            Placement::Staging { length } => {
                self.staged.resize(length as usize, 0);
                self.inbound.read_exact(&mut self.staged).context("a data segment")?;
                crc.update(&self.staged);
            }
            Placement::ReadBuffer { user, offset, length, .. } => {
                let range = offset as usize..offset as usize + length as usize;
                let place = &mut ios[index(user)].data[range];
                self.inbound.read_exact(place).context("a data segment")?;
                crc.update(place);
            }
        }
        let padding = framing::padding(data_segment_length(&bhs)) as usize;
        let mut zeroes = [0; 3];
        self.inbound.read_exact(&mut zeroes[..padding]).context("padding")?;
        crc.update(&zeroes[..padding]);
        if digests.data && data_segment_length(&bhs) > 0 {
            self.expect_digest(crc.field(), "data")?;
        }
        match self.session.receive_done(&self.staged).context("the target")? {
            Event::Completed(Completion { user, status, sense, .. }) => {
                Ok(Some((index(user), (status, sense.to_vec()))))
            }
            // It is asked to leave, or told that it has to: whoever drives it sees that soon enough.
            Event::None | Event::Async { .. } => Ok(None),
            event => Err(Failure::new(format!("nobody asked for {event:?}"))),
        }
    }

    fn expect_digest(&mut self, right: DigestField, of: &str) -> Result<()> {
        let mut field = DigestField::default();
        self.inbound.read_exact(&mut field).context("a digest")?;
        if field == right { Ok(()) } else { Err(Failure::new(format!("a wrong digest of {of}"))) }
    }
}

/// A connection that gives up after [`PATIENCE`].
pub(crate) fn connect(portal: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&portal, PATIENCE).context(portal)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Takes a connection to the full feature phase.
pub(crate) fn login(stream: &mut TcpStream, plan: LoginPlan) -> Result<Established> {
    // What a harness asks a target need not be hard to guess.
    let mut login = Login::with_challenge(plan, Nonce::new([0x5a; NONCE_BYTES]));
    let mut outbound = Vec::new();
    loop {
        outbound.clear();
        login.next_pdu(&mut outbound);
        stream.write_all(&outbound).context("login")?;
        let mut bhs: Bhs = [0; BHS_BYTES];
        stream.read_exact(&mut bhs).context("waiting for a login response")?;
        let length = data_segment_length(&bhs);
        let mut data = vec![0; (length + framing::padding(length)) as usize];
        stream.read_exact(&mut data).context("a login response")?;
        data.truncate(length as usize);
        if let Progress::Done(established) = login.receive(&bhs, &data).context("login")? {
            return Ok(*established);
        }
    }
}

/// The LUN field of a small LUN, in peripheral device addressing.
pub(crate) fn lun_field(lun: u8) -> LunField {
    LunField([0, lun, 0, 0, 0, 0, 0, 0])
}

fn flush(stream: &mut TcpStream, outbound: &mut Vec<u8>) -> Result<()> {
    stream.write_all(outbound).context("sending to the target")?;
    outbound.clear();
    Ok(())
}

fn index(user: u64) -> usize {
    usize::try_from(user).expect("it was an index")
}

/// How long a target may leave a harness without an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// More than the window of any unit that a harness makes.
const COMMANDS: u16 = 256;
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const ATTENTIONS_MAX: usize = 8;
const INBOUND_BYTES: usize = 256 << 10;
const OUTBOUND_BYTES: usize = 256 << 10;
