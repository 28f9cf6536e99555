//! Dialogues of an initiator with a target that a test plays.

mod both_ends;
mod hostile;
mod login;
mod reading;
mod session;
mod writing;

use super::*;
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, CommandWindow, StatSn};
use crate::wire::{BHS_BYTES, Bhs, Cid, InitiatorPdu, LunField, TargetPdu, TaskAttribute, Tsih};

const LUN: LunField = LunField([0, 3, 0, 0, 0, 0, 0, 0]);
const READ_CDB: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
const WRITE_CDB: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];

/// What the initiator sent: its BHS, and the data segment's place.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    pdu: InitiatorPdu,
    ahs: Vec<u8>,
    /// (offset, length) in the write buffer.
    write: Option<(u32, u32)>,
    bytes: Vec<u8>,
}

/// A session, and the target's numbers.
struct Dialogue {
    session: Session,
    stat_sn: StatSn,
    expected_cmd_sn: CmdSn,
    maximum_cmd_sn: CmdSn,
}

/// A login that has come to this, and a window of 4.
fn established(parameters: Parameters) -> Established {
    Established {
        parameters,
        discovery: false,
        tsih: Tsih(1),
        cid: Cid(0),
        window: CommandWindow::new(CmdSn(10), CmdSn(13)).unwrap(),
        expected_stat_sn: StatSn(100),
        portal_group_tag: Some(1),
        target_alias: None,
        said: Vec::new(),
    }
}

/// What an event says, without its borrow.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Completed { user: UserData, status: u8, sense: Vec<u8>, residual: crate::wire::Residual, moved: u32 },
    Other(String),
}

impl Dialogue {
    /// 4 KiB segments both ways, 8 KiB bursts, 2 R2Ts, immediate and unsolicited data, a window of 4.
    fn begin(change: impl FnOnce(&mut Parameters)) -> Self {
        let mut parameters = Parameters {
            initial_r2t: false,
            immediate_data: true,
            own_max_recv_data_segment_length: 4096,
            peer_max_recv_data_segment_length: 4096,
            max_burst_length: 8192,
            first_burst_length: 8192,
            max_outstanding_r2t: 2,
            ..Parameters::default()
        };
        change(&mut parameters);
        let session = Session::new(&established(parameters), 8);
        Self { session, stat_sn: StatSn(100), expected_cmd_sn: CmdSn(10), maximum_cmd_sn: CmdSn(13) }
    }

    fn submit(&mut self, cdb: &[u8], direction: Direction, expected_length: u32, user: UserData) -> Tag {
        self.try_submit(cdb, direction, expected_length, user).expect("there is room")
    }

    fn try_submit(
        &mut self,
        cdb: &[u8],
        direction: Direction,
        expected_length: u32,
        user: u64,
    ) -> Option<Tag> {
        self.session.submit(&Command {
            lun: LUN,
            cdb,
            direction,
            expected_length,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user,
        })
    }

    fn sends(&mut self) -> Option<Sent> {
        let mut bhs = [0; BHS_BYTES];
        let outgoing = self.session.next_pdu(&mut bhs)?;
        let (write, bytes) = match outgoing.payload {
            Payload::None => (None, vec![]),
            Payload::WriteBuffer { offset, length, .. } => (Some((offset, length)), vec![]),
            Payload::Bytes(bytes) => (None, bytes.to_vec()),
        };
        let length = write.map_or(bytes.len(), |(_, length)| length as usize);
        assert_eq!(crate::wire::data_segment_length(&bhs) as usize, length);
        let pdu = InitiatorPdu::parse(&bhs).expect("what we send is well-formed");
        if let InitiatorPdu::ScsiCommand(command) = pdu
            && !command.immediate
        {
            self.expected_cmd_sn = command.cmd_sn.next();
            self.maximum_cmd_sn = command.cmd_sn.advanced_by(4);
        }
        Some(Sent { pdu, ahs: outgoing.ahs().to_vec(), write, bytes })
    }

    fn sends_nothing(&mut self) {
        assert_eq!(self.sends(), None);
    }

    /// The next StatSN, which this uses up.
    fn next_stat_sn(&mut self) -> StatSn {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.next();
        stat_sn
    }

    fn hears(&mut self, pdu: TargetPdu) -> Result<Heard, TargetFault> {
        self.hears_with(pdu, &[])
    }

    fn hears_with(&mut self, pdu: TargetPdu, data: &[u8]) -> Result<Heard, TargetFault> {
        let mut bhs: Bhs = [0; BHS_BYTES];
        pdu.emit(&mut bhs);
        let staged = match self.session.receive_header(&bhs)? {
            Placement::Staging { length } => {
                assert_eq!(length as usize, data.len());
                data
            }
            _ => &[],
        };
        Ok(match self.session.receive_done(staged)? {
            Event::None => Heard::Nothing,
            Event::Completed(completion) => Heard::Completed {
                user: completion.user,
                status: completion.status,
                sense: completion.sense.to_vec(),
                residual: completion.residual,
                moved: completion.moved,
            },
            event => Heard::Other(format!("{event:?}")),
        })
    }
}

fn command_of(sent: Option<Sent>) -> crate::wire::ScsiCommand {
    match sent {
        Some(Sent { pdu: InitiatorPdu::ScsiCommand(command), .. }) => command,
        other => panic!("{other:?} is no command"),
    }
}
