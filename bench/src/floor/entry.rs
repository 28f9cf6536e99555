//! Login at a floor: the engine's own, to a target that admits everybody.

use portico_iscsi::chap::{NONCE_BYTES, Nonce, Users};
use portico_iscsi::login::{Admission, Directory, Lookup, Options, Step as LoginStep, TargetLogin};
use portico_iscsi::negotiate::TargetKeys;
use portico_iscsi::sn::StatSn;
use portico_iscsi::wire::{BHS_BYTES, Bhs, InitiatorPdu, Tsih};

use super::Settings;
use super::peer::{Peer, Terms};

/// One connection on its way to full feature phase.
pub struct Entry {
    login: TargetLogin,
    window: u16,
    size_bytes: u64,
}

/// What comes of a Login Request.
#[derive(Debug)]
pub struct Step {
    /// To be sent.
    pub reply: Vec<u8>,
    /// The session, where that was the last one.
    pub peer: Option<Peer>,
}

struct Everybody {
    window: u16,
}

impl Directory for Everybody {
    fn target(&self, _initiator: &str, _target: &str) -> Lookup {
        let keys = TargetKeys::default();
        Lookup::Admitted(Admission { keys, portal_group_tag: 1, alias: None, queued_commands: self.window })
    }

    fn users(&self, _target: Option<&str>) -> Users<'_> {
        Users::default()
    }
}

impl Entry {
    /// A connection from which nothing has come.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let options =
            Options { stat_sn: StatSn(1), discovery: TargetKeys::default(), discovery_queued_commands: 1 };
        let login = TargetLogin::new(options, Nonce::new([7; NONCE_BYTES]));
        Self { login, window: settings.window, size_bytes: settings.size_bytes }
    }

    /// Takes one request.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub fn step(&mut self, bhs: &Bhs, data: &[u8]) -> Result<Step, String> {
        let Ok(InitiatorPdu::Login(request)) = InitiatorPdu::parse(bhs) else {
            return Err("a PDU before login".to_owned());
        };
        let length = usize::try_from(request.data_segment_length).expect("24 bits");
        let data = data.get(..length).ok_or("half a data segment")?;
        let directory = Everybody { window: self.window };
        let step =
            self.login.receive(&request, data, &directory).map_err(|violation| violation.to_string())?;
        let (reply, completed) = match step {
            LoginStep::More(reply) => (reply, None),
            LoginStep::Complete(completed) => (completed.accept(Tsih(1)), Some(completed)),
            LoginStep::Refused(_) => return Err("a login that asks for what a floor has not".to_owned()),
        };
        let mut bytes = vec![0; BHS_BYTES];
        reply.response.emit((&mut bytes[..]).try_into().expect("48 bytes"));
        bytes.extend_from_slice(&reply.text);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let peer = match completed {
            None => None,
            Some(completed) => {
                let parameters = &completed.parameters;
                if parameters.header_digest || parameters.data_digest {
                    return Err("a floor computes no digests".to_owned());
                }
                let segment = parameters.peer_max_recv_data_segment_length;
                Some(Peer::new(Terms {
                    stat_sn: completed.stat_sn.next(),
                    cmd_sn: completed.cmd_sn,
                    window: self.window,
                    segment_bytes_max: segment - segment % 512,
                    burst_bytes_max: parameters.max_burst_length,
                    size_bytes: self.size_bytes,
                }))
            }
        };
        Ok(Step { reply: bytes, peer })
    }
}
