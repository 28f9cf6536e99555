//! A session before and after the load: connecting, login, the first commands, all blocking and bounded in time.
//!
//! Here the geometry is asked, and here the unit attentions are taken that greet every new nexus (SAM-5 §5.14).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use portico_iscsi::chap::{NONCE_BYTES, Nonce};
use portico_iscsi::digest;
use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::initiator::{
    Command, Direction, Event, LOGIN_SEGMENT_BYTES_MAX, Login, LoginPlan, Payload, Progress, Session,
};
use portico_iscsi::wire::{
    BHS_BYTES, Bhs, DATA_SEGMENT_BYTES_MAX, LogoutReason, LunField, ServiceResponse, TaskAttribute, Tsih,
};
use portico_ring::socket;

use crate::inbound::{Inbound, Receiver};
use crate::options::Geometry;
use crate::scsi::{self, Answer};

/// How long a connection, a login or one of the first commands may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a logout may take: there is nothing left to lose.
const LOGOUT_PATIENCE: Duration = Duration::from_secs(5);
/// How often a unit is asked whether it is ready.
const READY_ATTEMPTS: u32 = 50;
/// From one such question to the next, where it is not ready yet.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// What a target may do that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// As initiators are: bursts longer than MaxBurstLength are taken (tgt sends reads in one burst).
    Usual,
    /// Nothing.
    Strict,
}

/// A session on a blocking socket.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    session: Session,
    inbound: Inbound,
    tsih: Tsih,
}

/// What one command brought.
#[derive(Default)]
struct Heard {
    data: Vec<u8>,
    answer: Option<Answer>,
    logged_out: bool,
    surprise: Option<String>,
}

impl Receiver for Heard {
    fn data(&mut self, _user: u64, offset: u32, bytes: &[u8]) {
        let at = usize::try_from(offset).expect("32 bits");
        if let Some(place) = self.data.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::None => {}
            Event::Completed(completion) if completion.response == ServiceResponse::CommandCompleted => {
                self.answer = Some(Answer::of(completion.status, completion.sense));
            }
            Event::LoggedOut { .. } => self.logged_out = true,
            other => self.surprise = Some(format!("{other:?}")),
        }
    }
}

impl Link {
    /// Connects and logs in, with room for `commands` commands: to the session that is `joined`, or to a new one.
    ///
    /// # Errors
    /// Why there is no session.
    pub(crate) fn log_in(
        portal: SocketAddr,
        plan: LoginPlan,
        commands: u16,
        strictness: Strictness,
        joined: Option<&Session>,
    ) -> Result<Self, String> {
        let at = |error: &dyn std::fmt::Display| format!("{portal}: {error}");
        let stream = socket::connect(portal, PATIENCE).map_err(|error| at(&error))?;
        let mut stream = TcpStream::from(stream);
        limit(&stream, PATIENCE)?;
        let demanded = |key| plan.offer.value_of(key) == Some("CRC32C");
        let digests = Digests { header: demanded("HeaderDigest"), data: demanded("DataDigest") };
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|error| at(&error))?;
        let mut login = Login::with_challenge(plan, Nonce::new(random));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut request = Vec::new();
            while login.next_pdu(&mut request) {}
            stream.write_all(&request).map_err(|error| at(&error))?;
            let (bhs, data) = read_login_pdu(&mut stream).map_err(|error| at(&error))?;
            match login.receive(&bhs, &data).map_err(|fault| at(&fault))? {
                Progress::Send if Instant::now() < deadline => {}
                Progress::Send => return Err(at(&"the login has no end")),
                Progress::Done(mut established) => {
                    if strictness == Strictness::Usual {
                        established.parameters.max_burst_length = DATA_SEGMENT_BYTES_MAX;
                    }
                    let session = match joined {
                        Some(first) => first.join(&established, commands),
                        None => Session::new(&established, commands),
                    };
                    if session.digests() != digests {
                        return Err(at(&"the target does not agree to the digests"));
                    }
                    let inbound =
                        Inbound::new(session.parameters().own_max_recv_data_segment_length, digests);
                    return Ok(Self { stream, session, inbound, tsih: established.tsih });
                }
            }
        }
    }

    /// Waits until the unit is ready, passing over what greets a new nexus.
    ///
    /// # Errors
    /// If it does not become ready.
    pub(crate) fn make_ready(&mut self, lun: LunField) -> Result<(), String> {
        let mut last = None;
        for _ in 0..READY_ATTEMPTS {
            let (answer, _) = self.execute(lun, &scsi::TEST_UNIT_READY, 0)?;
            match answer {
                Answer::Good => return Ok(()),
                answer if answer.is_passing() => {}
                Answer::Check { key: scsi::NOT_READY, .. } => std::thread::sleep(READY_INTERVAL),
                answer => return Err(format!("the logical unit answers {answer}")),
            }
            last = Some(answer);
        }
        Err(last.map_or_else(String::new, |answer| format!("the logical unit stays at {answer}")))
    }

    /// Asks how large the unit is.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) fn geometry(&mut self, lun: LunField) -> Result<Geometry, String> {
        let (answer, data) = self.execute(lun, &scsi::READ_CAPACITY_16, scsi::READ_CAPACITY_16_BYTES)?;
        if answer != Answer::Good {
            return Err(format!("READ CAPACITY (16) ended with {answer}: is this LUN a disk?"));
        }
        scsi::geometry(&data).ok_or_else(|| "READ CAPACITY (16) brought no sensible geometry".to_owned())
    }

    /// Runs one command that reads `length` bytes, or moves no data.
    fn execute(&mut self, lun: LunField, cdb: &[u8], length: u32) -> Result<(Answer, Vec<u8>), String> {
        let direction = if length > 0 { Direction::Read } else { Direction::None };
        let command = Command {
            lun,
            cdb,
            direction,
            expected_length: length,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user: 0,
        };
        self.session.submit(&command).ok_or("the target takes no command")?;
        let mut heard =
            Heard { data: vec![0; usize::try_from(length).expect("32 bits")], ..Heard::default() };
        self.converse(&mut heard, |heard| heard.answer.is_some())?;
        let answer = heard.answer.expect("the conversation ends with it");
        Ok((answer, heard.data))
    }

    /// Sends what there is and takes what comes, until `is_done`.
    fn converse(&mut self, heard: &mut Heard, is_done: impl Fn(&Heard) -> bool) -> Result<(), String> {
        let digests = self.session.digests();
        let mut bytes = [0; 4096];
        loop {
            let mut out = Vec::new();
            let mut bhs = [0; BHS_BYTES];
            while let Some(outgoing) = self.session.next_pdu(&mut bhs) {
                out.extend_from_slice(&bhs);
                out.extend_from_slice(outgoing.ahs());
                out.extend_from_slice(
                    outgoing.header_digest(&bhs, digests).as_ref().map_or(&[], |field| &field[..]),
                );
                let data_at = out.len();
                if let Payload::Bytes(data) = outgoing.payload {
                    out.extend_from_slice(data);
                }
                out.resize(out.len().next_multiple_of(4), 0);
                if digests.data && out.len() > data_at {
                    let field = digest::field_of(&out[data_at..]);
                    out.extend_from_slice(&field);
                }
            }
            self.stream.write_all(&out).map_err(|error| error.to_string())?;
            if is_done(heard) {
                return Ok(());
            }
            let received = self.stream.read(&mut bytes).map_err(|error| error.to_string())?;
            if received == 0 {
                return Err("the target closed the connection".to_owned());
            }
            let taken = self.inbound.take(&bytes[..received], &mut self.session, heard);
            taken.map_err(|fault| fault.to_string())?;
            if let Some(surprise) = heard.surprise.take() {
                return Err(format!("the target said {surprise}"));
            }
        }
    }

    /// Logs out and closes. What goes wrong here matters to nobody.
    pub(crate) fn log_out(mut self, reason: LogoutReason) {
        if limit(&self.stream, LOGOUT_PATIENCE).is_ok() && self.session.log_out(reason).is_some() {
            let _ = self.converse(&mut Heard::default(), |heard| heard.logged_out);
        }
    }

    /// The session's handle.
    pub(crate) fn tsih(&self) -> Tsih {
        self.tsih
    }

    /// Its half of the session, for connections that join.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The parts, for the ring.
    pub(crate) fn into_parts(self) -> (OwnedFd, Session, Inbound) {
        (self.stream.into(), self.session, self.inbound)
    }

    /// From the parts that the ring gives back.
    pub(crate) fn from_parts(socket: OwnedFd, session: Session, inbound: Inbound) -> Self {
        Self { stream: TcpStream::from(socket), session, inbound, tsih: Tsih::NEW }
    }
}

fn limit(stream: &TcpStream, patience: Duration) -> Result<(), String> {
    let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_write_timeout(Some(patience)));
    set.map_err(|error| error.to_string())
}

fn read_login_pdu(stream: &mut TcpStream) -> Result<(Bhs, Vec<u8>), String> {
    let mut bhs = [0; BHS_BYTES];
    stream.read_exact(&mut bhs).map_err(|error| format!("no answer to the login: {error}"))?;
    let maximum = u32::try_from(LOGIN_SEGMENT_BYTES_MAX).expect("8192");
    let lengths = Lengths::of(&bhs, Digests::NONE, maximum).map_err(|violation| violation.to_string())?;
    let narrow = |length: u32| usize::try_from(length).expect("32 bits");
    let mut rest = vec![0; narrow(lengths.pdu_bytes()) - BHS_BYTES];
    stream.read_exact(&mut rest).map_err(|error| format!("half an answer to the login: {error}"))?;
    let data = narrow(lengths.ahs_bytes)..narrow(lengths.ahs_bytes + lengths.data_segment_bytes);
    Ok((bhs, rest[data].to_vec()))
}
