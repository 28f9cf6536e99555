//! A shard in dialogue: PDUs in and out, media that answer when a test says so, control played by the test.

mod atomic;
mod copy;
mod copy_behind;
mod debts;
mod exhaustive;
mod fence;
mod guessing;
mod linear;
mod management;
mod memory;
mod reassign;
mod recovery;
mod scarcity;
mod series;
mod several;
mod space;
mod task_sets;
mod tokens;
mod verify;
mod work;
mod world;

use std::cell::RefCell;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portico_backstores::{Caching, FileStore, Geometry as MediumGeometry, Medium};
use portico_iscsi::chap::{NONCE_BYTES, Nonce, Users};
use portico_iscsi::login::{Admission, Completed, Directory, Lookup, Options, Step, TargetLogin};
use portico_iscsi::negotiate::TargetKeys;
use portico_iscsi::sn::{CmdSn, DataSn, StatSn};
use portico_iscsi::wire::{
    AsyncEvent, BHS_BYTES, Bhs, Cid, DataOut, InitiatorTaskTag, Isid, LoginRequest, LunField, R2t,
    ScsiCommand, Stage, TargetPdu, TargetTransferTag, TaskAttribute, TaskManagementFunction,
    TaskManagementRequest, TaskManagementResult, Tsih, data_segment_length,
};
use portico_model::identity::{Generation, SessionId, ShardId, TargetId, UnitId};
use portico_model::lun_map::{LunEntry, LunMap};
use portico_model::message::{Adoption, Install, LoginQuestion, Opening, Service, ToControl, ToShard};
use portico_ring::{Arena, ArenaOptions};
use portico_scsi::attention::UnitAttention;
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::ledger::Whom;
use portico_scsi::reservation::NexusId;
use portico_scsi::unit::{Geometry, LogicalUnit, WriteCache};

use crate::turn::{Mail, Settings, Shard, Turned};
use world::{Shared, TestDriver, TestMailbox, What, World};

/// 16 MiB: what is shared is 8 MiB, a unit's reserve for each kind of booking 256 KiB.
const ARENA: ArenaOptions = ArenaOptions { small: 512, medium: 32, large: 48 };
const BLOCKS: u64 = 1 << 20;
/// RspTimeout of the sessions.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(90);

/// A shard and its world.
struct Bench {
    shard: Shard<TestDriver, TestMailbox>,
    world: Shared,
    sessions: u64,
}

/// One initiator's session.
struct Peer {
    socket: usize,
    session: SessionId,
    cmd_sn: CmdSn,
}

/// What an initiator hears.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// A SCSI Response: the tag and the status.
    Status(u32, u8),
    /// An R2T: the task's tag, the transfer's tag, offset and length.
    R2t { tag: u32, transfer: TargetTransferTag, offset: u32, length: u32 },
    /// Data-In of a task, and whether it carried the status.
    Data(u32, Vec<u8>, bool),
    /// A SCSI event: the LUN's first bytes, ASC and ASCQ.
    Event([u8; 2], u8, u8),
    /// A Task Management Function Response: the result.
    Managed(TaskManagementResult),
    /// Anything else.
    Other(u8),
}

/// A part of the answer to a command.
struct Answer {
    /// In its last part.
    status: Option<u8>,
    data: Vec<u8>,
    sense: Vec<u8>,
}

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

impl Bench {
    fn new() -> Self {
        Self::one_of(1)
    }

    /// Shard 0 of so many.
    fn one_of(shards: usize) -> Self {
        Self::number(0, shards)
    }

    /// One shard of so many.
    fn number(number: u16, shards: usize) -> Self {
        let world = Rc::new(RefCell::new(World::default()));
        let arena = Arena::new(ARENA).expect("16 MiB can be had");
        let (shard, spin) = (ShardId(number), Duration::ZERO);
        let settings = Settings { shard, shards, arena: ARENA, spin, measures: false };
        let driver = TestDriver { arena, world: Rc::clone(&world) };
        Self { shard: Shard::new(settings, driver, TestMailbox(Rc::clone(&world))), world, sessions: 0 }
    }

    fn mail(&mut self, letter: Mail) {
        self.world.borrow_mut().letters.push_back(letter);
        self.settle();
    }

    /// A file of 512 MiB whose queue takes `depth` requests.
    fn open(&mut self, unit: u32, depth: u32) {
        self.open_aligned(unit, depth, 1);
    }

    /// The same, where the medium takes only memory that is aligned.
    fn open_aligned(&mut self, unit: u32, depth: u32, memory_alignment: u32) {
        self.open_cached(unit, memory_alignment, Caching { writes_punt: false, depth, ..Caching::default() });
    }

    fn open_cached(&mut self, unit: u32, memory_alignment: u32, caching: Caching) {
        let geometry = MediumGeometry {
            block_length: 512,
            blocks: BLOCKS,
            physical_block_bytes: 512,
            memory_alignment,
            offset_alignment: 512,
            rotational: false,
            volatile_cache: true,
            read_only: false,
        };
        let medium = Medium::File(FileStore::simulated(u64::from(unit), geometry, caching));
        self.open_medium(unit, medium);
    }

    fn open_medium(&mut self, unit: u32, medium: Medium) {
        self.mail(ToShard::Open(Opening {
            unit: UnitId(unit),
            state: Arc::new(disk()),
            generation: Generation(1),
            medium: Some(medium),
            device: Arc::from("disk"),
            nexus_commands_max: 64,
        }));
    }

    /// The unit's write cache is from now on like this.
    fn install(&mut self, unit: u32, generation: u64, write_cache: WriteCache) {
        self.install_state(unit, generation, write_cache, disk());
    }

    /// The unit is thin, and its write cache is like this; what the Install waits for is over.
    fn install_thin(&mut self, unit: u32, generation: u64, write_cache: WriteCache) {
        let thin = LogicalUnit { thin_provisioned: true, ..disk() };
        self.install_state(unit, generation, write_cache, thin);
        self.land_all();
    }

    fn install_state(&mut self, unit: u32, generation: u64, write_cache: WriteCache, mut state: LogicalUnit) {
        state.mode.write_cache = write_cache;
        self.install_with(unit, generation, state, Vec::new());
    }

    /// The unit has so many blocks now, and everybody is told.
    fn resize(&mut self, unit: u32, generation: u64, blocks: u64) {
        let geometry = Geometry::new(512, blocks, 0, 16 << 20).expect("a right size");
        let attentions = vec![(Whom::All, UnitAttention::CapacityChanged)];
        self.install_with(unit, generation, LogicalUnit { geometry, ..disk() }, attentions);
    }

    fn install_with(
        &mut self,
        unit: u32,
        generation: u64,
        state: LogicalUnit,
        attentions: Vec<(Whom, UnitAttention)>,
    ) {
        let write_cache = state.mode.write_cache;
        self.mail(ToShard::Install(Arc::new(Install {
            unit: UnitId(unit),
            generation: Generation(generation),
            state: Arc::new(state),
            attentions,
            aborts: None,
            asker: None,
            flush: write_cache != WriteCache::WriteBack,
            orphans: Arc::from([]),
        })));
    }

    /// A session with these LUNs and units, whose initiator says these keys; unit attentions are taken.
    fn log_in(&mut self, luns: &[(u16, u32)], keys: &str) -> Peer {
        let mut peer = self.adopt(luns, keys);
        for (lun, _) in luns {
            self.command(&mut peer, *lun, 0xffff, [0; 16], 0, &[]);
        }
        self.world.borrow_mut().sockets[peer.socket].from_shard.clear();
        peer
    }

    /// The same, but for the unit attentions.
    fn adopt(&mut self, luns: &[(u16, u32)], keys: &str) -> Peer {
        self.sessions += 1;
        let number = self.sessions;
        let question = question(completed(number, keys));
        let socket = self.world.borrow().sockets.len();
        self.mail(ToShard::Adopt(Box::new(Adoption {
            session: SessionId(number),
            nexus: NexusId(number),
            tsih: Tsih(1),
            target: Some(TargetId(1)),
            map: map(luns),
            greeting: UnitAttention::PowerOn,
            service: Service {
                queued_commands: 32,
                nop_in_interval: Duration::ZERO,
                nop_in_timeout: Duration::ZERO,
                response_timeout: RESPONSE_TIMEOUT,
                events: true,
            },
            question,
        })));
        Peer { socket, session: SessionId(number), cmd_sn: CmdSn(1) }
    }

    /// Lets the shard take turns until it has nothing to do but wait.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            assert_eq!(self.shard.turn().expect("the world does not break"), Turned::On);
            let idle = self.shard.ready.is_empty()
                && !self.shard.core.is_hungry()
                && self.shard.core.to_flush.is_empty();
            if idle && self.world.borrow().is_quiet() {
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    fn post(&mut self, peer: &Peer, mut bhs: Bhs, data: &[u8]) {
        let length = u32::try_from(data.len()).expect("a segment is small");
        bhs[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        {
            let world = &mut *self.world.borrow_mut();
            let to_shard = &mut world.sockets[peer.socket].to_shard;
            to_shard.extend(bhs);
            to_shard.extend(data);
            to_shard.extend(&[0; 3][..data.len().next_multiple_of(4) - data.len()]);
            world.feed(peer.socket);
        }
        self.settle();
    }

    /// Sends a command with immediate data; one with a length is a write.
    fn command(&mut self, peer: &mut Peer, lun: u16, tag: u32, cdb: [u8; 16], length: u32, data: &[u8]) {
        let command = ScsiCommand { cmd_sn: peer.cmd_sn, ..command(lun, tag, cdb, length) };
        peer.cmd_sn = peer.cmd_sn.next();
        let mut bhs = [0; BHS_BYTES];
        command.emit(&mut bhs);
        self.post(peer, bhs, data);
    }

    /// An immediate task management function for LUN 0, whose own tag is its code.
    fn manage(&mut self, peer: &Peer, function: TaskManagementFunction, referenced: u32) {
        let mut bhs = [0; BHS_BYTES];
        TaskManagementRequest {
            immediate: true,
            function,
            lun: lun_field(0),
            initiator_task_tag: InitiatorTaskTag(0x1000 + u32::from(function.code())),
            referenced_task_tag: InitiatorTaskTag(referenced),
            cmd_sn: peer.cmd_sn,
            expected_stat_sn: StatSn(0),
            referenced_cmd_sn: peer.cmd_sn.previous(),
            expected_data_sn: DataSn(0),
        }
        .emit(&mut bhs);
        self.post(peer, bhs, &[]);
    }

    fn write(&mut self, peer: &mut Peer, lun: u16, tag: u32, length: u32, data: &[u8]) {
        self.command(peer, lun, tag, transfer(0x8a, 0, length), length, data);
    }

    fn read(&mut self, peer: &mut Peer, lun: u16, tag: u32, length: u32) {
        self.read_from(peer, (lun, 0), tag, length);
    }

    /// Reads of LUN 0.
    fn read_at(&mut self, peer: &mut Peer, tag: u32, lba: u64, length: u32) {
        self.read_from(peer, (0, lba), tag, length);
    }

    fn read_from(&mut self, peer: &mut Peer, (lun, lba): (u16, u64), tag: u32, length: u32) {
        let read = ScsiCommand {
            read: true,
            write: false,
            cmd_sn: peer.cmd_sn,
            ..command(lun, tag, transfer(0x88, lba, length), length)
        };
        peer.cmd_sn = peer.cmd_sn.next();
        let mut bhs = [0; BHS_BYTES];
        read.emit(&mut bhs);
        self.post(peer, bhs, &[]);
    }

    /// Answers an R2T in full.
    fn answer(&mut self, peer: &Peer, r2t: &Heard) {
        self.answer_with(peer, r2t, |_| 0x5a);
    }

    /// Answers an R2T with the byte of each place of the data.
    fn answer_with(&mut self, peer: &Peer, r2t: &Heard, byte: impl Fn(u32) -> u8) {
        let Heard::R2t { tag, transfer, offset, length } = *r2t else { panic!("{r2t:?} is no R2T") };
        let data: Vec<u8> = (offset..offset + length).map(byte).collect();
        self.send_data(peer, tag, transfer, (0, offset), &data, true);
    }

    /// The PDU of this number in an answer of equal parts.
    fn data_out(
        &mut self,
        peer: &Peer,
        tag: u32,
        ttt: TargetTransferTag,
        number: u32,
        part: u32,
        last: bool,
    ) {
        self.send_data(peer, tag, ttt, (number, number * part), &vec![0x5a; part as usize], last);
    }

    fn send_data(
        &mut self,
        peer: &Peer,
        tag: u32,
        target_transfer_tag: TargetTransferTag,
        (number, buffer_offset): (u32, u32),
        data: &[u8],
        is_final: bool,
    ) {
        let mut bhs = [0; BHS_BYTES];
        DataOut {
            is_final,
            data_segment_length: u32::try_from(data.len()).expect("a segment is small"),
            lun: lun_field(0),
            initiator_task_tag: InitiatorTaskTag(tag),
            target_transfer_tag,
            expected_stat_sn: StatSn(0),
            data_sn: DataSn(number),
            buffer_offset,
        }
        .emit(&mut bhs);
        self.post(peer, bhs, data);
    }

    /// What has come for this initiator since it listened last.
    fn heard(&mut self, peer: &Peer) -> Vec<Heard> {
        let bytes: Vec<u8> = {
            let world = &mut *self.world.borrow_mut();
            world.sockets[peer.socket].from_shard.drain(..).collect()
        };
        let mut rest = &bytes[..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let bhs: Bhs = rest[..BHS_BYTES].try_into().expect("a whole header");
            let length = data_segment_length(&bhs) as usize;
            let data = &rest[BHS_BYTES..BHS_BYTES + length];
            all.push(heard(&bhs, data));
            rest = &rest[BHS_BYTES + length.next_multiple_of(4)..];
        }
        all
    }

    /// What has come for this initiator since, with the sense data.
    fn answers(&mut self, peer: &Peer) -> Vec<Answer> {
        let bytes: Vec<u8> = {
            let world = &mut *self.world.borrow_mut();
            world.sockets[peer.socket].from_shard.drain(..).collect()
        };
        let mut rest = &bytes[..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let bhs: Bhs = rest[..BHS_BYTES].try_into().expect("a whole header");
            let length = data_segment_length(&bhs) as usize;
            let data = rest[BHS_BYTES..BHS_BYTES + length].to_vec();
            rest = &rest[BHS_BYTES + length.next_multiple_of(4)..];
            all.push(match TargetPdu::parse(&bhs).expect("the shard speaks as it should") {
                TargetPdu::ScsiResponse(response) => {
                    let sense = data.get(2..).unwrap_or_default().to_vec();
                    Answer { status: Some(response.status), data: Vec::new(), sense }
                }
                TargetPdu::DataIn(pdu) => {
                    let status = pdu.status.is_some().then_some(GOOD);
                    Answer { status, data, sense: Vec::new() }
                }
                other => panic!("nobody asked for {other:?}"),
            });
        }
        all
    }

    /// The first operation at a medium ends.
    fn land(&mut self) -> What {
        let what = self.world.borrow_mut().land().expect("something is at a medium");
        self.settle();
        what
    }

    /// Everything ends that is at a medium, and what comes of it.
    fn land_all(&mut self) {
        while !self.world.borrow().at_medium.is_empty() {
            self.land();
        }
    }

    /// A write of `length` bytes is served to its GOOD, with as many R2Ts as it takes.
    fn serve_write(&mut self, peer: &mut Peer, lun: u16, tag: u32, length: u32) {
        self.write(peer, lun, tag, length, &[]);
        for _ in 0..TURNS_MAX {
            for heard in self.heard(peer) {
                match heard {
                    Heard::R2t { .. } => self.answer(peer, &heard),
                    other => return assert_eq!(other, Heard::Status(tag, GOOD)),
                }
            }
            self.land_all();
        }
        panic!("the write waits");
    }
}

fn heard(bhs: &Bhs, data: &[u8]) -> Heard {
    match TargetPdu::parse(bhs).expect("the shard speaks as it should") {
        TargetPdu::ScsiResponse(response) => Heard::Status(response.initiator_task_tag.0, response.status),
        TargetPdu::R2t(R2t {
            initiator_task_tag,
            target_transfer_tag,
            buffer_offset,
            desired_data_transfer_length,
            ..
        }) => Heard::R2t {
            tag: initiator_task_tag.0,
            transfer: target_transfer_tag,
            offset: buffer_offset,
            length: desired_data_transfer_length,
        },
        TargetPdu::DataIn(pdu) => Heard::Data(pdu.initiator_task_tag.0, data.to_vec(), pdu.status.is_some()),
        TargetPdu::Async(message) if message.event == AsyncEvent::Scsi => {
            assert_eq!(data[..3], [0, 18, 0x70], "SenseLength, and fixed format");
            Heard::Event([message.lun.0[0], message.lun.0[1]], data[2 + 12], data[2 + 13])
        }
        TargetPdu::TaskManagement(response) => Heard::Managed(response.result),
        _ => Heard::Other(bhs[0]),
    }
}

fn lun_field(lun: u16) -> LunField {
    let [high, low] = lun.to_be_bytes();
    LunField([high, low, 0, 0, 0, 0, 0, 0])
}

/// READ(16), WRITE(16) or VERIFY(16) of whole blocks.
fn transfer(opcode: u8, lba: u64, length: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&(length / 512).to_be_bytes());
    cdb
}

fn command(lun: u16, tag: u32, cdb: [u8; 16], length: u32) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final: true,
        read: false,
        write: length > 0,
        attribute: TaskAttribute::Simple,
        priority: 0,
        total_ahs_words: 0,
        data_segment_length: 0,
        lun: lun_field(lun),
        initiator_task_tag: InitiatorTaskTag(tag),
        expected_data_transfer_length: length,
        cmd_sn: CmdSn(0),
        expected_stat_sn: StatSn(0),
        cdb,
    }
}

fn disk() -> LogicalUnit {
    let identity = Identity::new(&IdentityOptions::new(0, "disk", Handler::FileIo)).expect("a right name");
    let geometry = Geometry::new(512, BLOCKS, 0, 16 << 20).expect("a right size");
    LogicalUnit::new(identity, geometry, WriteCache::WriteBack)
}

fn map(luns: &[(u16, u32)]) -> Arc<LunMap> {
    let entry = |(lun, unit): &(u16, u32)| LunEntry { lun: *lun, unit: UnitId(*unit), read_only: false };
    Arc::new(LunMap::new(luns.iter().map(entry).collect()))
}

/// A unit of which nobody has wanted anything.
pub(crate) fn idle_unit() -> crate::unit::Unit {
    let opening = Opening::<Medium> {
        unit: UnitId(1),
        state: Arc::new(disk()),
        generation: Generation(1),
        medium: None,
        device: Arc::from("disk"),
        nexus_commands_max: 64,
    };
    crate::unit::Unit::new(&opening, ShardId(0), 1)
}

/// A target that takes everybody.
struct Lobby;

impl Directory for Lobby {
    fn target(&self, _initiator: &str, _target: &str) -> Lookup {
        Lookup::Admitted(Admission {
            keys: TargetKeys { max_connections: 3, error_recovery_level: 2, ..TargetKeys::default() },
            portal_group_tag: 1,
            alias: None,
            queued_commands: 32,
        })
    }

    fn users(&self, _target: Option<&str>) -> Users<'_> {
        Users::default()
    }
}

fn question(completed: Completed) -> LoginQuestion {
    LoginQuestion {
        shard: ShardId(0),
        completed,
        socket: File::open("/dev/null").expect("there is one").into(),
        unread: Vec::new(),
        peer: ([10, 0, 1, 1], 1).into(),
        local: ([10, 0, 0, 1], 3260).into(),
    }
}

fn completed(number: u64, keys: &str) -> Completed {
    completed_as(number, (Tsih::NEW, Cid(0)), keys)
}

fn completed_as(number: u64, (tsih, cid): (Tsih, Cid), keys: &str) -> Completed {
    let text = format!(
        "InitiatorName=iqn.2026-11.test:{number}|TargetName=iqn.2026-11.test:t|SessionType=Normal|{keys}"
    )
    .replace('|', "\0");
    let options =
        Options { stat_sn: StatSn(1), discovery: TargetKeys::default(), discovery_queued_commands: 1 };
    let [high, low] = u16::try_from(number).expect("few sessions").to_be_bytes();
    let request = LoginRequest {
        current_stage: Stage::LoginOperationalNegotiation,
        next_stage: Some(Stage::FullFeaturePhase),
        continues: false,
        version_max: 0,
        version_min: 0,
        data_segment_length: u32::try_from(text.len()).expect("a short text"),
        isid: Isid([0x80, 0, 0, 0, high, low]),
        tsih,
        initiator_task_tag: InitiatorTaskTag(7),
        cid,
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(0),
    };
    let mut login = TargetLogin::new(options, Nonce::new([7; NONCE_BYTES]));
    match login.receive(&request, text.as_bytes(), &Lobby) {
        Ok(Step::Complete(completed)) => *completed,
        other => panic!("the login should be complete: {other:?}"),
    }
}

/// No data come but those that are asked for.
const ASKED: &str = "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=262144|";
/// Up to 64 KiB come with a command.
const IMMEDIATE: &str = "InitialR2T=Yes|ImmediateData=Yes|MaxRecvDataSegmentLength=262144|";
const TURNS_MAX: usize = 1000;
