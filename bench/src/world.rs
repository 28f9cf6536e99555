//! A shard in a world without a kernel: one session on one logical unit, and a ring on which every operation ends as soon
//! as it can. What is measured here is our own code alone, the same instructions each time.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portico_backstores::{Medium, NullStore, RamStore, Source};
use portico_iscsi::chap::{NONCE_BYTES, Nonce, Users};
use portico_iscsi::initiator::{Login, LoginPlan, Progress};
use portico_iscsi::login::{Admission, Completed, Directory, Lookup, Options, Step, TargetLogin};
use portico_iscsi::moment::Moment;
use portico_iscsi::negotiate::TargetKeys;
use portico_iscsi::sn::StatSn;
use portico_iscsi::wire::{BHS_BYTES, Bhs, InitiatorPdu, Tsih};
use portico_model::identity::{Generation, SessionId, ShardId, TargetId, UnitId};
use portico_model::lun_map::{LunEntry, LunMap};
use portico_model::message::{Adoption, LoginQuestion, Opening, Service, ToControl, ToShard};
use portico_model::peer::PeerLetter;
use portico_ring::{
    Arena, ArenaOptions, Completion, Counters, Errno, Fd, Full, Message, Payload, Segments, Wait,
};
use portico_scsi::attention::UnitAttention;
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::reservation::NexusId;
use portico_scsi::unit::{Geometry, LogicalUnit, WriteCache};
use portico_shard::driver::Driver;
use portico_shard::turn::{Mail, Mailbox, Settings, Shard};

/// What the unit keeps its data on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// Memory.
    Ram,
}

/// See the module.
pub struct World {
    shard: Shard<Desk, Letters>,
    air: Rc<RefCell<Air>>,
    /// Of the next command, and of the last answer.
    cmd_sn: u32,
    stat_sn: u32,
    lba: u32,
    out: Vec<u8>,
}

/// Bytes of the reads and writes of this world.
pub const IO_BYTES: usize = 4096;
const UNIT_BYTES: u64 = 64 << 20;
const WINDOW: u16 = 128;
const GREETINGS_MAX: u32 = 4;

impl World {
    /// A session that is logged in and has been told all that greets it.
    ///
    /// # Panics
    /// Where the gateway does not take it in.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let arena = ArenaOptions { small: 1024, medium: 64, large: 64 };
        let air = Rc::new(RefCell::new(Air {
            now: 0,
            files: 0,
            receive: None,
            leaving: Vec::with_capacity(4),
            arrived: Vec::new(),
            sent: Vec::new(),
            done: VecDeque::with_capacity(4),
        }));
        let desk = Desk { arena: Arena::new(arena).expect("memory"), air: Rc::clone(&air) };
        let letters = Letters(VecDeque::from([open(kind), adopt()]));
        let (shard, spin) = (ShardId(0), Duration::ZERO);
        let settings = Settings { shard, shards: 1, arena, spin, measures: true };
        let shard = Shard::new(settings, desk, letters);
        let mut world = Self { shard, air, cmd_sn: 1, stat_sn: 0, lba: 0, out: Vec::new() };
        // The letters are opened, and the login is answered.
        world.turn();
        world.serve();
        assert!(!world.air().sent.is_empty(), "the session was not taken in");
        for _ in 0..GREETINGS_MAX {
            world.read(1);
            if world.was_answered(1, false) {
                return world;
            }
        }
        panic!("a read is not answered with its data")
    }

    /// Reads 4 KiB, `count` times with commands that come at once.
    pub fn read(&mut self, count: u32) {
        self.ask_reads(count);
        self.serve();
    }

    /// Writes 4 KiB that come with the command, `count` times with commands that come at once.
    pub fn write(&mut self, count: u32) {
        self.ask_writes(count);
        self.serve();
    }

    /// Whether the last answers were those to `count` reads with GOOD, or to as many writes.
    #[must_use]
    pub fn was_answered(&self, count: usize, is_write: bool) -> bool {
        let (opcode, length) = if is_write { (0x21, BHS_BYTES) } else { (0x25, BHS_BYTES + IO_BYTES) };
        let sent = &self.air().sent;
        sent.len() == count * length
            && sent.chunks(length).all(|pdu| pdu[0] == opcode && pdu[3] == 0 && pdu[1] & 0x80 != 0)
    }

    fn ask_reads(&mut self, count: u32) {
        self.out.clear();
        for _ in 0..count {
            let bhs = self.command(crate::read_command(), 0);
            self.out.extend_from_slice(&bhs);
        }
        self.deliver();
    }

    fn ask_writes(&mut self, count: u32) {
        self.out.clear();
        for _ in 0..count {
            let mut bhs = self.command(crate::read_command(), 0x2a);
            // W instead of R, and the data behind the header.
            bhs[1] = 0x80 | 0x20 | 0x01;
            bhs[5..8].copy_from_slice(&[0, 0x10, 0]);
            self.out.extend_from_slice(&bhs);
            self.out.resize(self.out.len() + IO_BYTES, 7);
        }
        self.deliver();
    }

    /// A command with the numbers of this moment; another operation code unless that is 0.
    fn command(&mut self, mut bhs: Bhs, code: u8) -> Bhs {
        self.lba = (self.lba + 8) % 65_536;
        bhs[16..20].copy_from_slice(&self.cmd_sn.to_be_bytes());
        bhs[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        bhs[28..32].copy_from_slice(&self.stat_sn.wrapping_add(1).to_be_bytes());
        bhs[34..38].copy_from_slice(&self.lba.to_be_bytes());
        if code != 0 {
            bhs[32] = code;
        }
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        bhs
    }

    fn deliver(&mut self) {
        let mut air = self.air();
        air.sent.clear();
        air.arrived.extend_from_slice(&self.out);
    }

    /// Turns until there is nothing left to do.
    fn serve(&mut self) {
        loop {
            self.air().pass();
            if self.air().done.is_empty() {
                break;
            }
            self.turn();
        }
        let stat_sn = self.air().sent.get(24..28).map(|word| word.try_into().expect("4 bytes"));
        self.stat_sn = stat_sn.map_or(self.stat_sn, u32::from_be_bytes);
    }

    /// One turn of the shard: the function whose instructions are counted, with all that it calls.
    #[inline(never)]
    pub fn turn(&mut self) {
        self.shard.turn().expect("this ring does not fail");
    }

    fn air(&self) -> RefMut<'_, Air> {
        self.air.borrow_mut()
    }
}

/// Mail that was there from the beginning; what the shard tells control is nobody's concern here.
struct Letters(VecDeque<Mail>);

impl Mailbox for Letters {
    fn receive(&mut self) -> Option<Mail> {
        self.0.pop_front()
    }

    fn send(&mut self, _letter: ToControl) -> Result<(), Box<ToControl>> {
        Ok(())
    }

    fn tell(&mut self, shard: ShardId, _letter: PeerLetter) -> Result<(), PeerLetter> {
        panic!("there is no shard {shard} here")
    }
}

fn open(kind: Kind) -> Mail {
    let blocks = UNIT_BYTES / 512;
    let medium = match kind {
        Kind::Null => Medium::Null(NullStore::new(512, blocks, false).expect("address space")),
        Kind::Ram => Medium::Ram(RamStore::new(512, blocks, false).expect("memory")),
    };
    let identity = Identity::new(&IdentityOptions::new(0, "disk", Handler::FileIo)).expect("a plain name");
    let geometry = Geometry::new(512, blocks, 3, 1 << 20).expect("a plain disk");
    ToShard::Open(Opening {
        unit: UNIT,
        state: Arc::new(LogicalUnit::new(identity, geometry, WriteCache::WriteBack)),
        generation: Generation(0),
        medium: Some(medium),
        device: Arc::from("disk"),
        nexus_commands_max: 256,
    })
}

fn adopt() -> Mail {
    let socket = std::fs::File::open("/dev/null").expect("every system has it");
    let question = LoginQuestion {
        shard: ShardId(0),
        completed: log_in(),
        socket: socket.into(),
        unread: Vec::new(),
        peer: PEER,
        local: LOCAL,
    };
    ToShard::Adopt(Box::new(Adoption {
        session: SessionId(1),
        nexus: NexusId(1),
        tsih: Tsih(1),
        target: Some(TargetId(1)),
        map: Arc::new(LunMap::new(vec![LunEntry { lun: 0, unit: UNIT, read_only: false }])),
        greeting: UnitAttention::PowerOn,
        service: Service {
            queued_commands: u32::from(WINDOW),
            nop_in_interval: Duration::ZERO,
            nop_in_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
            events: false,
        },
        question,
    }))
}

struct Everybody;

impl Directory for Everybody {
    fn target(&self, _initiator: &str, _target: &str) -> Lookup {
        let keys = TargetKeys::default();
        Lookup::Admitted(Admission { keys, portal_group_tag: 1, alias: None, queued_commands: WINDOW })
    }

    fn users(&self, _target: Option<&str>) -> Users<'_> {
        Users::default()
    }
}

/// Both ends of a login, to its last request.
fn log_in() -> Completed {
    let options =
        Options { stat_sn: StatSn(1), discovery: TargetKeys::default(), discovery_queued_commands: 1 };
    let mut target = TargetLogin::new(options, Nonce::new([7; NONCE_BYTES]));
    let plan = LoginPlan::normal("iqn.2026-11.test:i", "iqn.2026-11.test:t");
    let mut initiator = Login::new(plan);
    loop {
        let mut request = Vec::new();
        while initiator.next_pdu(&mut request) {}
        let bhs: &Bhs = request[..BHS_BYTES].try_into().expect("48 bytes");
        let Ok(InitiatorPdu::Login(pdu)) = InitiatorPdu::parse(bhs) else { panic!("a login begins so") };
        let length = usize::try_from(pdu.data_segment_length).expect("24 bits");
        let data = &request[BHS_BYTES..BHS_BYTES + length];
        match target.receive(&pdu, data, &Everybody).expect("our own initiator keeps to the rules") {
            Step::Complete(completed) => return *completed,
            Step::Refused(_) => panic!("everybody is admitted"),
            Step::More(reply) => {
                let mut bhs = [0; BHS_BYTES];
                reply.response.emit(&mut bhs);
                let progress = initiator.receive(&bhs, &reply.text);
                assert!(matches!(progress, Ok(Progress::Send)), "the login goes on");
            }
        }
    }
}

const UNIT: UnitId = UnitId(1);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3260);

/// What is outside of the shard: what its operations wait for, and what came of them.
struct Air {
    now: u64,
    files: u64,
    receive: Option<(u64, Segments)>,
    leaving: Vec<(u64, Message)>,
    arrived: Vec<u8>,
    sent: Vec<u8>,
    done: VecDeque<Completion>,
}

impl Air {
    /// Between two turns: sends end, and what has arrived goes where a receive wants it. The copies are made here, where
    /// nobody counts.
    fn pass(&mut self) {
        for (tag, message) in self.leaving.drain(..) {
            message.copy_to(&mut self.sent);
            let result = Ok(u32::try_from(message.length_bytes()).expect("a batch"));
            self.done.push_back(Completion { tag, result, payload: Payload::Message(message), more: false });
        }
        if self.arrived.is_empty() {
            return;
        }
        let Some((tag, mut segments)) = self.receive.take() else { return };
        let mut received = 0;
        for slice in segments.slices_mut() {
            let length = slice.len().min(self.arrived.len() - received);
            slice[..length].copy_from_slice(&self.arrived[received..received + length]);
            received += length;
        }
        self.arrived.drain(..received);
        let result = Ok(u32::try_from(received).expect("what a receive has room for"));
        self.done.push_back(Completion { tag, result, payload: Payload::Segments(segments), more: false });
    }
}

/// The ring of this world, which takes note and does nothing.
struct Desk {
    arena: Arena,
    air: Rc<RefCell<Air>>,
}

impl Driver for Desk {
    fn now(&mut self) -> Moment {
        let mut air = self.air.borrow_mut();
        air.now += 1000;
        Moment(air.now)
    }

    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(7);
        Ok(())
    }

    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn adopt(&mut self, _file: OwnedFd) -> Result<Fd, Full<OwnedFd>> {
        let mut air = self.air.borrow_mut();
        air.files += 1;
        Ok(Fd::from_bits(air.files))
    }

    fn adopt_medium(&mut self, _source: Source) -> io::Result<Fd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd> {
        Err(fd)
    }

    fn close(&mut self, _fd: Fd) {}

    fn addresses(&mut self, _fd: Fd) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((PEER, LOCAL))
    }

    fn accept(&mut self, _fd: Fd, _tag: u64) -> Result<(), Full<()>> {
        Ok(())
    }

    fn receive(&mut self, _fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>> {
        self.air.borrow_mut().receive = Some((tag, segments));
        Ok(())
    }

    fn cancel(&mut self, _tag: u64) {}

    fn recall(&mut self, _fd: Fd) {
        let air = &mut *self.air.borrow_mut();
        if let Some((tag, segments)) = air.receive.take() {
            let payload = Payload::Segments(segments);
            air.done.push_back(Completion { tag, result: Err(Errno::CANCELED), payload, more: false });
        }
    }

    fn send(&mut self, _fd: Fd, tag: u64, message: Message) -> Result<(), Full<Message>> {
        self.air.borrow_mut().leaving.push((tag, message));
        Ok(())
    }

    fn read(&mut self, _: Fd, _: u64, _: u64, segments: Segments, _: usize) -> Result<(), Full<Segments>> {
        Err(Full(segments))
    }

    fn write(
        &mut self,
        _: Fd,
        _: u64,
        _: u64,
        segments: Segments,
        _: usize,
        _: bool,
    ) -> Result<(), Full<Segments>> {
        Err(Full(segments))
    }

    fn write_untorn(
        &mut self,
        _: Fd,
        _: u64,
        _: u64,
        segments: Segments,
        _: bool,
    ) -> Result<(), Full<Segments>> {
        Err(Full(segments))
    }

    fn sync(&mut self, _: Fd, _: u64, _: bool) -> Result<(), Full<()>> {
        Err(Full(()))
    }

    fn clear(&mut self, _: Fd, _: u64, _: u64, _: u64, _: bool) -> Result<(), Full<()>> {
        Err(Full(()))
    }

    fn turn(&mut self, _wait: Wait, _spin: Duration) -> io::Result<()> {
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.air.borrow_mut().done.pop_front()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_answered_as_an_initiator_expects() {
        for kind in [Kind::Null, Kind::Ram] {
            let mut world = World::new(kind);
            for count in [1, 64, 2] {
                world.read(count);
                assert!(
                    world.was_answered(usize::try_from(count).unwrap(), false),
                    "{kind:?}: {count} reads"
                );
            }
            for count in [1; 300].into_iter().chain([64; 20]) {
                world.write(count);
                let answered = world.was_answered(usize::try_from(count).unwrap(), true);
                assert!(answered, "{kind:?}: {count} writes");
            }
        }
    }
}
