//! The floor of a load generator: a bare io_uring that sends 48 bytes for each 4 KiB read and counts the 4144 bytes that come
//! back. It logs in as any initiator does, then looks at nothing any more. What `portico-load` costs per I/O is measured against it.
//!
//! ```text
//! portico-bare-client 127.0.0.1:3260 IQN LUN [SESSIONS [DEPTH [SECONDS]]]
//! ```
//! The unit has blocks of 512 bytes and answers each READ with one Data-In PDU that carries the status.
#![expect(unsafe_code, reason = "submits entries that point to memory which the connections own")]

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::initiator::{Command, Direction, Login, LoginPlan, Progress, Session};
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, InitiatorTaskTag, Isid, LunField, ScsiCommand, TargetPdu, TaskAttribute,
};
use rustix::time::{ClockId, clock_gettime};

/// What one READ brings: a header, and eight blocks.
const ANSWER_BYTES: usize = BHS_BYTES + 4096;
/// As much as `portico-load` takes at once.
const RECEIVE_BYTES: usize = 256 << 10;
/// READ(10) of 8 blocks at LBA 0.
const READ_10: [u8; 16] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
/// A new nexus is greeted by unit attentions, which are passed over.
const GREETINGS_MAX: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [portal, target, lun, rest @ ..] = &arguments[..] else {
        return Err("usage: portico-bare-client ADDRESS:PORT IQN LUN [SESSIONS [DEPTH [SECONDS]]]".into());
    };
    let number = |at: usize, default: u16| rest.get(at).map_or(Ok(default), |text| text.parse());
    let (sessions, depth, seconds) = (number(0, 4)?, number(1, 64)?, number(2, 5)?);
    let lun = LunField([0, lun.parse()?, 0, 0, 0, 0, 0, 0]);
    let connections: Result<Vec<_>, _> =
        (0..sessions).map(|session| Connection::log_in(portal, target, lun, session, depth)).collect();
    let mut client = Client::new(connections?)?;
    let (began, busy) = (Instant::now(), thread_time());
    let done = client.run(began + Duration::from_secs(seconds.into()))?;
    let (elapsed, busy) = (began.elapsed(), thread_time() - busy);
    let per = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(u32::try_from(done).unwrap_or(u32::MAX));
    println!(
        "{done} reads in {:.2} s: {:.0} IOPS, busy {:.1} %, {:.3} us of processor time per read",
        elapsed.as_secs_f64(),
        1e6 / per(elapsed),
        100.0 * busy.as_secs_f64() / elapsed.as_secs_f64(),
        per(busy)
    );
    Ok(())
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}

struct Connection {
    socket: TcpStream,
    /// A READ whose numbers are written anew each time.
    template: Bhs,
    cmd_sn: u32,
    /// Commands that may be sent.
    credit: usize,
    /// Bytes of an answer that has come in part.
    have: usize,
    outgoing: Box<[u8]>,
    incoming: Box<[u8]>,
    is_sending: bool,
    is_dirty: bool,
}

impl Connection {
    fn log_in(
        portal: &str,
        target: &str,
        lun: LunField,
        number: u16,
        depth: u16,
    ) -> Result<Self, Box<dyn Error>> {
        let mut socket = TcpStream::connect(portal)?;
        socket.set_nodelay(true)?;
        let [high, low] = number.to_be_bytes();
        let plan = LoginPlan {
            isid: Isid([0x80, 0xba, 0x4e, 0, high, low]),
            ..LoginPlan::normal("iqn.2026-11.io.portico:bare", target)
        };
        let mut login = Login::new(plan);
        let established = loop {
            let mut request = Vec::new();
            while login.next_pdu(&mut request) {}
            socket.write_all(&request)?;
            let (bhs, data) = receive(&mut socket)?;
            if let Progress::Done(established) = login.receive(&bhs, &data)? {
                break established;
            }
        };
        let mut session = Session::new(&established, 1);
        greet(&mut socket, &mut session, lun)?;
        let mut template = [0; BHS_BYTES];
        let command = ScsiCommand {
            immediate: false,
            is_final: true,
            read: true,
            write: false,
            attribute: TaskAttribute::Simple,
            priority: 0,
            total_ahs_words: 0,
            data_segment_length: 0,
            lun,
            initiator_task_tag: InitiatorTaskTag(0),
            expected_data_transfer_length: 4096,
            cmd_sn: CmdSn(0),
            expected_stat_sn: StatSn(session.expected_stat_sn().0),
            cdb: READ_10,
        };
        command.emit(&mut template);
        Ok(Self {
            socket,
            template,
            cmd_sn: session.next_cmd_sn().0,
            credit: usize::from(depth),
            have: 0,
            outgoing: vec![0; usize::from(depth) * BHS_BYTES].into_boxed_slice(),
            incoming: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            is_sending: false,
            is_dirty: false,
        })
    }

    /// Writes as many commands as may be sent; how many bytes.
    fn fill(&mut self) -> usize {
        let bytes = self.credit * BHS_BYTES;
        for place in self.outgoing[..bytes].chunks_exact_mut(BHS_BYTES) {
            place.copy_from_slice(&self.template);
            // Every command has a tag of its own.
            place[16..20].copy_from_slice(&(self.cmd_sn & 0x7fff_ffff).to_be_bytes());
            place[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
        self.credit = 0;
        bytes
    }

    /// How many answers are complete with so many bytes more.
    fn count(&mut self, bytes: usize) -> usize {
        let all = self.have + bytes;
        self.have = all % ANSWER_BYTES;
        all / ANSWER_BYTES
    }
}

/// Asks whether the unit is ready until it is.
fn greet(socket: &mut TcpStream, session: &mut Session, lun: LunField) -> Result<(), Box<dyn Error>> {
    for _ in 0..GREETINGS_MAX {
        let command = Command {
            lun,
            cdb: &[0; 6],
            direction: Direction::None,
            expected_length: 0,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user: 0,
        };
        session.submit(&command).ok_or("the target takes no command")?;
        let mut bhs = [0; BHS_BYTES];
        while session.next_pdu(&mut bhs).is_some() {
            socket.write_all(&bhs)?;
        }
        let (bhs, data) = receive(socket)?;
        session.receive_header(&bhs)?;
        session.receive_done(&data)?;
        if matches!(TargetPdu::parse(&bhs), Ok(TargetPdu::ScsiResponse(response)) if response.status == 0) {
            return Ok(());
        }
    }
    Err("the logical unit is not ready".into())
}

fn receive(socket: &mut TcpStream) -> Result<(Bhs, Vec<u8>), Box<dyn Error>> {
    let mut bhs = [0; BHS_BYTES];
    socket.read_exact(&mut bhs)?;
    let lengths = Lengths::of(&bhs, Digests::NONE, 1 << 20)?;
    let mut data = vec![0; usize::try_from(lengths.pdu_bytes())? - BHS_BYTES];
    socket.read_exact(&mut data)?;
    data.truncate(usize::try_from(lengths.data_segment_bytes)?);
    Ok((bhs, data))
}

struct Client {
    ring: IoUring,
    /// The kernel may hold addresses in here: they are never freed.
    connections: ManuallyDrop<Vec<Connection>>,
    dirty: Vec<usize>,
}

const RECEIVED: u64 = 0;
const SENT: u64 = 1;

impl Client {
    fn new(connections: Vec<Connection>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(4096)
            .build(256)?;
        let dirty = Vec::with_capacity(connections.len());
        Ok(Self { ring, connections: ManuallyDrop::new(connections), dirty })
    }

    /// Reads until then; how often.
    fn run(&mut self, until: Instant) -> io::Result<u64> {
        for index in 0..self.connections.len() {
            self.receive(index)?;
            self.mark(index);
        }
        let mut done = 0;
        loop {
            self.flush()?;
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            while let Some((data, result)) = self.next_completion() {
                let index = usize::try_from(data / 2).expect("made from an index");
                let bytes = usize::try_from(result).ok().filter(|bytes| *bytes > 0);
                let Some(bytes) = bytes else {
                    let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
                    let errno = -result;
                    return Err(if errno == 0 { closed } else { io::Error::from_raw_os_error(errno) });
                };
                let connection = &mut self.connections[index];
                if data % 2 == SENT {
                    connection.is_sending = false;
                } else {
                    let answers = connection.count(bytes);
                    connection.credit += answers;
                    done += answers as u64;
                    self.receive(index)?;
                }
                self.mark(index);
            }
            if Instant::now() >= until {
                return Ok(done);
            }
        }
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        let cqe = self.ring.completion().next()?;
        Some((cqe.user_data(), cqe.result()))
    }

    fn mark(&mut self, index: usize) {
        if !std::mem::replace(&mut self.connections[index].is_dirty, true) {
            self.dirty.push(index);
        }
    }

    /// One send for every connection that has something to say.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(index) = self.dirty.pop() {
            let connection = &mut self.connections[index];
            connection.is_dirty = false;
            if connection.is_sending || connection.credit == 0 {
                continue;
            }
            connection.is_sending = true;
            let length = u32::try_from(connection.fill()).expect("small");
            let socket = types::Fd(connection.socket.as_raw_fd());
            // MSG_WAITALL: the kernel goes on until all is sent.
            let flags = rustix::net::RecvFlags::WAITALL.bits().cast_signed();
            let entry = opcode::Send::new(socket, connection.outgoing.as_ptr(), length).flags(flags).build();
            self.push(&entry.user_data(2 * index as u64 + SENT))?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let length = u32::try_from(connection.incoming.len()).expect("small");
        let socket = types::Fd(connection.socket.as_raw_fd());
        let entry = opcode::Recv::new(socket, connection.incoming.as_mut_ptr(), length).build();
        self.push(&entry.user_data(2 * index as u64 + RECEIVED))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entry points to lies in boxes of a `Connection`, which are never freed.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}
