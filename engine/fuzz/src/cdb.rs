//! Commands to a whole shard: device server, transfers, a RAM disk. Two initiators that keep to RFC 7143 send whatever CDBs
//! with whatever data and lengths; each is answered, and what it did is held against an independent reading of SBC-3.

mod expect;
mod world;

use portico_iscsi::initiator::{Command, Completion, Direction, Event, Payload, Placement};
use portico_iscsi::wire::{
    BHS_BYTES, LunField, Residual, ServiceResponse, TaskAttribute, TaskManagementFunction,
    TaskManagementResult,
};
use portico_scsi::opcodes;

use crate::{Fuzzer, Source, Trace};
use world::{BLOCK, BLOCKS, Kind, PEERS, World};

/// See the module.
pub const FUZZER: Fuzzer = Fuzzer { name: "cdb", run, dictionary: &[], bytes_max: 2048 };

/// Turns in which a command is answered, or never.
const TURNS_MAX: usize = 5_000;
/// Commands of one run.
const COMMANDS_MAX: usize = 40;
const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 2;

/// A command as it is sent, and what came of it.
struct Sent {
    cdb: Vec<u8>,
    direction: Direction,
    data: Vec<u8>,
    outcome: Option<Outcome>,
}

struct Outcome {
    status: u8,
    sense: Vec<u8>,
    residual: Residual,
    moved: u32,
}

fn run(input: &[u8], trace: &mut Trace) {
    let mut source = Source::new(input);
    let choice = source.byte();
    let kind = Kind { thin: choice & 1 != 0, removable: choice & 2 != 0, read_only_lun: choice & 4 != 0 };
    let mut world = World::new(kind);
    for _ in 0..COMMANDS_MAX {
        if source.is_empty() {
            return;
        }
        let who = usize::from(source.below(u8::try_from(PEERS).expect("few")));
        let lun = u8::from(source.byte() & 7 == 7);
        let mut sent = any_command(&mut source);
        let before = world.contents();
        serve(&mut world, who, lun, &mut sent);
        let failed = sent.outcome.as_ref().is_some_and(|outcome| outcome.status == CHECK_CONDITION);
        if failed && opcodes::establishes_aca(&sent.cdb) {
            // Or nothing else would be served any more.
            clear_aca(&mut world, who, lun);
        }
        judge(&sent, &before, &world.contents(), trace);
    }
}

/// One that begins with a served code more often than not, with most reserved bits zero, near the blocks that there are.
fn any_command(source: &mut Source<'_>) -> Sent {
    let choice = source.byte();
    let row = &opcodes::TABLE[usize::from(source.byte()) % opcodes::TABLE.len()];
    let mut cdb: Vec<u8> = row.usage.iter().map(|usage| usage & source.byte()).collect();
    cdb[0] = row.operation_code;
    if let Some(action) = row.service_action {
        if cdb.len() > 16 {
            cdb[8..10].copy_from_slice(&action.to_be_bytes());
        } else {
            cdb[1] |= action.to_be_bytes()[1];
        }
    }
    if choice & 3 != 3 {
        place(&mut cdb, source);
    }
    if choice & 0x0c == 0x0c {
        let at = usize::from(source.byte()) % cdb.len();
        cdb[at] = source.byte();
    }
    if cdb.len() < 16 {
        cdb.resize(16, 0);
    }
    let direction = match choice >> 4 & 3 {
        // What RFC 7143 makes of data that go the other way than was said is not for our initiator to judge.
        0 => Direction::None,
        _ if expect::takes_data(&cdb) => Direction::Write,
        _ => Direction::Read,
    };
    let (_, count) = expect::addressed(&cdb);
    let fitting = usize::try_from(count.min(BLOCKS)).expect("few") * BLOCK;
    let length = match (direction, choice >> 6) {
        (Direction::None, _) => 0,
        (_, 0) => usize::from(source.half()) % 40_000,
        (_, 1) => fitting + usize::from(source.byte()) * 4,
        (_, 2) if !expect::is_plain_write(&cdb) => 8 + usize::from(source.below(64)),
        _ => fitting,
    };
    let mut data = vec![0; length];
    if direction == Direction::Write {
        let head = source.take(length.min(usize::from(choice >> 2 & 63)));
        let fill = source.byte();
        data.iter_mut().zip(0u8..=255).for_each(|(byte, at)| *byte = fill ^ at);
        data[..head.len()].copy_from_slice(head);
    }
    Sent { cdb, direction, data, outcome: None }
}

/// LBA and length as they are on a small disk.
fn place(cdb: &mut [u8], source: &mut Source<'_>) {
    let (lba, count) = (source.below(70), source.below(20));
    match cdb.len() {
        6 => (cdb[1], cdb[2], cdb[3], cdb[4]) = (0, 0, lba, count),
        10 => {
            cdb[2..6].copy_from_slice(&[0, 0, 0, lba]);
            cdb[7..9].copy_from_slice(&[0, count]);
        }
        12 => {
            cdb[2..6].copy_from_slice(&[0, 0, 0, lba]);
            cdb[6..10].copy_from_slice(&[0, 0, 0, count]);
        }
        16 => {
            cdb[2..10].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, lba]);
            cdb[10..14].copy_from_slice(&[0, 0, 0, count]);
        }
        32 => {
            cdb[12..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, lba]);
            cdb[28..32].copy_from_slice(&[0, 0, 0, count]);
        }
        _ => {}
    }
}

/// Sends the command, and turns until it is answered.
fn serve(world: &mut World, who: usize, lun: u8, sent: &mut Sent) {
    let command = Command {
        lun: LunField([0, lun, 0, 0, 0, 0, 0, 0]),
        cdb: &sent.cdb,
        direction: sent.direction,
        expected_length: u32::try_from(sent.data.len()).expect("short"),
        attribute: TaskAttribute::Simple,
        immediate: false,
        user: 0,
    };
    world.peers[who].session.submit(&command).expect("nothing is outstanding");
    for _ in 0..TURNS_MAX {
        turn(world, who, sent);
        if sent.outcome.is_some() {
            return;
        }
    }
    panic!("never answered: {:02x?}", sent.cdb);
}

fn clear_aca(world: &mut World, who: usize, lun: u8) {
    let lun = LunField([0, lun, 0, 0, 0, 0, 0, 0]);
    let mut nothing = Sent { cdb: Vec::new(), direction: Direction::None, data: Vec::new(), outcome: None };
    let session = &mut world.peers[who].session;
    session.manage_task(TaskManagementFunction::ClearAca, lun, None).expect("nothing is outstanding");
    for _ in 0..TURNS_MAX {
        if turn(world, who, &mut nothing) {
            return;
        }
    }
    panic!("CLEAR ACA was never answered");
}

/// Tells whether a task management function was answered.
fn turn(world: &mut World, who: usize, sent: &mut Sent) -> bool {
    transmit(world, who, sent);
    world.turn();
    (0..PEERS).fold(false, |managed, peer| receive(world, peer, sent) | managed)
}

fn transmit(world: &mut World, who: usize, sent: &Sent) {
    let mut bytes = Vec::new();
    let peer = &mut world.peers[who];
    let mut bhs = [0; BHS_BYTES];
    while let Some(outgoing) = peer.session.next_pdu(&mut bhs) {
        bytes.extend_from_slice(&bhs);
        bytes.extend_from_slice(outgoing.ahs());
        match outgoing.payload {
            Payload::None => {}
            Payload::Bytes(data) => bytes.extend_from_slice(data),
            Payload::WriteBuffer { offset, length, .. } => {
                bytes.extend_from_slice(&sent.data[offset as usize..(offset + length) as usize]);
            }
        }
        bytes.resize(bytes.len() + outgoing.padding_bytes as usize, 0);
    }
    let socket = peer.socket;
    world.say(socket, &bytes);
}

/// Takes what has come; our initiator holds every PDU against RFC 7143.
fn receive(world: &mut World, who: usize, sent: &mut Sent) -> bool {
    let mut managed = false;
    while let Some((bhs, data)) = world.next_pdu(world.peers[who].socket) {
        let session = &mut world.peers[who].session;
        let placement = session.receive_header(&bhs).expect("a PDU that may come now");
        let staged = match placement {
            Placement::ReadBuffer { offset, length, .. } => {
                sent.data[offset as usize..(offset + length) as usize].copy_from_slice(&data);
                &[][..]
            }
            Placement::Staging { .. } => &data[..],
            Placement::None => &[],
        };
        match session.receive_done(staged).expect("a PDU that is right") {
            Event::Completed(Completion { response, status, sense, residual, moved, .. }) => {
                assert_eq!(response, ServiceResponse::CommandCompleted);
                sent.outcome = Some(Outcome { status, sense: sense.to_vec(), residual, moved });
            }
            Event::None | Event::Async { .. } => {}
            Event::TaskManaged { result: TaskManagementResult::Complete, .. } => managed = true,
            other => panic!("nobody asked for {other:?}"),
        }
    }
    managed
}

fn judge(sent: &Sent, before: &[u8], after: &[u8], trace: &mut Trace) {
    let outcome = sent.outcome.as_ref().expect("it was answered");
    let what = format!("{:02x?}, {:?} of {} bytes", sent.cdb, sent.direction, sent.data.len());
    let Outcome { status, sense, residual, moved } = outcome;
    let key = if *status == CHECK_CONDITION {
        let key = expect::sense_key(sense);
        let additional = if sense[0] & 0x7f == 0x72 { &sense[2..4] } else { &sense[12..14] };
        trace.mark((sent.cdb[0], key, additional));
        Some(key)
    } else {
        assert!(sense.is_empty(), "{what}: sense data with status {status:#04x}");
        trace.mark((sent.cdb[0], *status, residual_kind(*residual)));
        None
    };
    residual_adds_up(sent, *residual, *moved, *status, &what);
    let refused = !matches!(*status, GOOD | CHECK_CONDITION) || key.is_some_and(expect::is_refusal);
    let ranges = if refused { Vec::new() } else { expect::written(&sent.cdb, &sent.data) };
    expect::only_there(before, after, &ranges, &what);
    if *status == GOOD {
        data_are_right(sent, *moved, before, after, &what);
    }
}

/// RFC 7143 §11.4.5: what was expected is what was moved and what was not.
fn residual_adds_up(sent: &Sent, residual: Residual, moved: u32, status: u8, what: &str) {
    let expected = u32::try_from(sent.data.len()).expect("short");
    match (residual, sent.direction) {
        (Residual::None, Direction::Read) if status == GOOD => assert_eq!(moved, expected, "{what}"),
        (Residual::None, _) => assert!(moved <= expected, "{what}"),
        (Residual::Overflow(more), _) => assert!(more > 0 && moved <= expected, "{what}: overflow {more}"),
        (Residual::Underflow(less), Direction::Read) => {
            assert_eq!(moved + less, expected, "{what}: underflow")
        }
        (Residual::Underflow(less), _) => assert!(less <= expected, "{what}: underflow {less}"),
    }
}

fn data_are_right(sent: &Sent, moved: u32, before: &[u8], after: &[u8], what: &str) {
    let (lba, count) = expect::addressed(&sent.cdb);
    let all = |disk: &[u8]| {
        let start = usize::try_from(lba).expect("it was in range") * BLOCK;
        disk[start..start + usize::try_from(count).expect("few") * BLOCK].to_vec()
    };
    if expect::is_plain_read(&sent.cdb) && sent.direction == Direction::Read {
        let there = all(before);
        let length = there.len().min(sent.data.len());
        assert_eq!(moved as usize, length, "{what}");
        assert!(there[..length] == sent.data[..length], "{what}: other bytes came");
    }
    if expect::is_plain_write(&sent.cdb) && sent.direction == Direction::Write {
        let there = all(after);
        let length = there.len().min(sent.data.len()) / BLOCK * BLOCK;
        assert!(there[..length] == sent.data[..length], "{what}: other bytes are there");
        assert!(there[length..] == all(before)[length..], "{what}: what was not sent was written");
    }
}

fn residual_kind(residual: Residual) -> u8 {
    match residual {
        Residual::None => 0,
        Residual::Underflow(_) => 1,
        Residual::Overflow(_) => 2,
    }
}
