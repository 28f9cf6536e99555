//! One shard with a RAM disk and two initiators, without a kernel: everything ends as soon as it can, and control is the
//! unit's original.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portico_backstores::{Medium, RamStore, Source as MediumSource};
use portico_iscsi::chap::{NONCE_BYTES, Nonce, Users};
use portico_iscsi::initiator::{self, Established, Login, LoginPlan, Progress};
use portico_iscsi::login::{Admission, Completed, Directory, Lookup, Options, Step, TargetLogin};
use portico_iscsi::moment::Moment;
use portico_iscsi::negotiate::TargetKeys;
use portico_iscsi::sn::StatSn;
use portico_iscsi::wire::{BHS_BYTES, Bhs, InitiatorPdu, Isid, Tsih};
use portico_model::identity::{Generation, SessionId, ShardId, TargetId, UnitId};
use portico_model::lun_map::{LunEntry, LunMap};
use portico_model::message::{Adoption, Install, LoginQuestion, Opening, Service, ToControl, ToShard};
use portico_model::peer::PeerLetter;
use portico_ring::{
    Arena, ArenaOptions, Completion, Counters, Errno, Fd, Full, Message, Payload, Segments, Wait,
};
use portico_scsi::attention::UnitAttention;
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::ledger::{Ledger, NexusName};
use portico_scsi::original::{Installment, Original};
use portico_scsi::reservation::NexusId;
use portico_scsi::unit::{Geometry, LogicalUnit, WriteCache};
use portico_shard::driver::Driver;
use portico_shard::turn::{Mail, Mailbox, Settings, Shard};

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;
/// Blocks of the disk.
pub(super) const BLOCKS: u64 = 64;
/// Initiators.
pub(super) const PEERS: usize = 2;
const UNIT: UnitId = UnitId(1);
const WINDOW: u16 = 8;
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3260);
const ARENA: ArenaOptions = ArenaOptions { small: 256, medium: 32, large: 16 };

/// What the disk is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) thin: bool,
    pub(super) removable: bool,
    /// The second LUN of the disk cannot be written through.
    pub(super) read_only_lun: bool,
}

/// See the module.
pub(super) struct World {
    shard: Shard<Desk, Letters>,
    air: Rc<RefCell<Air>>,
    original: Original,
    generation: u64,
    store: Arc<RamStore>,
    pub(super) peers: Vec<Peer>,
}

/// One initiator.
pub(super) struct Peer {
    pub(super) session: initiator::Session,
    pub(super) socket: usize,
}

impl World {
    pub(super) fn new(kind: Kind) -> Self {
        let air = Rc::<RefCell<Air>>::default();
        let desk = Desk { arena: Arena::new(ARENA).expect("memory"), air: Rc::clone(&air) };
        let (shard, spin) = (ShardId(0), Duration::ZERO);
        let settings = Settings { shard, shards: 1, arena: ARENA, spin, measures: false };
        let shard = Shard::new(settings, desk, Letters(Rc::clone(&air)));
        let store = RamStore::new(512, BLOCKS, false).expect("32 KiB");
        let unit = LogicalUnit {
            thin_provisioned: kind.thin,
            removable: kind.removable,
            ..LogicalUnit::new(identity(), geometry(), WriteCache::WriteBack)
        };
        let mut original = Original::new(unit.clone(), Ledger::new());
        air.borrow_mut().letters.push_back(ToShard::Open(Opening {
            unit: UNIT,
            state: Arc::new(unit),
            generation: Generation(0),
            medium: Some(Medium::Ram(Arc::clone(&store))),
            device: Arc::from("disk"),
            nexus_commands_max: 64,
        }));
        let mut peers = Vec::new();
        for number in 1..=PEERS {
            let (completed, established) = log_in(number);
            let id = u64::try_from(number).expect("few");
            let name = format!("iqn.test:{number},i,0x8000000000{number:02x}");
            original.attach(NexusId(id), NexusName::new(name, "iqn.test:t,t,0x0001"));
            air.borrow_mut().letters.push_back(adoption(id, completed, kind));
            peers.push(Peer { session: initiator::Session::new(&established, WINDOW), socket: number - 1 });
        }
        let mut world = Self { shard, air, original, generation: 0, store, peers };
        for _ in 0..4 {
            world.turn();
        }
        for peer in &world.peers {
            let heard = std::mem::take(&mut world.air.borrow_mut().sockets[peer.socket].sent);
            assert_eq!(heard.first(), Some(&0x23), "the login is answered");
        }
        world
    }

    /// One turn of the shard, and what the world makes of it.
    pub(super) fn turn(&mut self) {
        self.air.borrow_mut().pass();
        self.shard.turn().expect("this ring does not fail");
        let mail: Vec<ToControl> = self.air.borrow_mut().to_control.drain(..).collect();
        for letter in mail {
            self.hear(letter);
        }
    }

    /// Control's part.
    fn hear(&mut self, letter: ToControl) {
        match letter {
            ToControl::Change { ticket, nexus, change, .. } => {
                let outcome = self.original.apply(change, nexus).map(|installment| self.install(installment));
                self.send(ToShard::Changed { ticket, outcome });
            }
            ToControl::Reset { ticket, .. } => {
                let installment = self.original.reset(UnitAttention::LogicalUnitReset);
                self.install(Some(installment));
                self.send(ToShard::Changed { ticket, outcome: Ok(()) });
            }
            ToControl::SessionEnded { reason, .. } => {
                panic!("a session that keeps to the rules was ended: {reason:?}")
            }
            _ => {}
        }
    }

    fn install(&mut self, installment: Option<Installment>) {
        let Some(installment) = installment else { return };
        self.generation += 1;
        self.send(ToShard::Install(Arc::new(Install {
            unit: UNIT,
            generation: Generation(self.generation),
            state: Arc::new(installment.unit),
            attentions: installment.attentions,
            aborts: installment.aborts,
            asker: None,
            flush: installment.flush,
            orphans: Arc::from([]),
        })));
    }

    fn send(&self, letter: Mail) {
        self.air.borrow_mut().letters.push_back(letter);
    }

    /// What an initiator says.
    pub(super) fn say(&self, socket: usize, bytes: &[u8]) {
        self.air.borrow_mut().sockets[socket].coming.extend(bytes);
    }

    /// A PDU for an initiator, if a whole one is there.
    pub(super) fn next_pdu(&self, socket: usize) -> Option<(Bhs, Vec<u8>)> {
        let sent = &mut self.air.borrow_mut().sockets[socket].sent;
        let bhs: Bhs = sent.get(..BHS_BYTES)?.try_into().expect("48 bytes");
        let length = portico_iscsi::wire::data_segment_length(&bhs) as usize;
        let end = BHS_BYTES + length.next_multiple_of(4);
        assert!(sent.len() >= end, "messages hold whole PDUs");
        let data = sent[BHS_BYTES..BHS_BYTES + length].to_vec();
        sent.drain(..end);
        Some((bhs, data))
    }

    /// All bytes of the disk.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK * usize::try_from(BLOCKS).expect("few")];
        self.store.memory().copy_out(0, &mut bytes);
        bytes
    }
}

fn identity() -> Identity {
    Identity::new(&IdentityOptions::new(0, "disk", Handler::FileIo)).expect("a plain name")
}

fn geometry() -> Geometry {
    Geometry::new(512, BLOCKS, 3, 1 << 20).expect("a plain disk")
}

fn adoption(id: u64, completed: Completed, kind: Kind) -> Mail {
    let entry = |lun, read_only| LunEntry { lun, unit: UNIT, read_only };
    let socket = std::fs::File::open("/dev/null").expect("every system has it");
    let question = LoginQuestion {
        shard: ShardId(0),
        completed,
        socket: socket.into(),
        unread: Vec::new(),
        peer: ADDRESS,
        local: ADDRESS,
    };
    ToShard::Adopt(Box::new(Adoption {
        session: SessionId(id),
        nexus: NexusId(id),
        tsih: Tsih(1),
        target: Some(TargetId(1)),
        map: Arc::new(LunMap::new(vec![entry(0, false), entry(1, kind.read_only_lun)])),
        greeting: UnitAttention::PowerOn,
        service: Service {
            queued_commands: u32::from(WINDOW),
            nop_in_interval: Duration::ZERO,
            nop_in_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
            events: true,
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

/// Both ends of a login.
fn log_in(number: usize) -> (Completed, Established) {
    let options =
        Options { stat_sn: StatSn(1), discovery: TargetKeys::default(), discovery_queued_commands: 1 };
    let mut target = TargetLogin::new(options, Nonce::new([7; NONCE_BYTES]));
    let isid = Isid([0x80, 0, 0, 0, 0, u8::try_from(number).expect("few")]);
    let plan = LoginPlan { isid, ..LoginPlan::normal(&format!("iqn.test:{number}"), "iqn.test:t") };
    let mut initiator = Login::new(plan);
    loop {
        let mut request = Vec::new();
        while initiator.next_pdu(&mut request) {}
        let bhs: &Bhs = request[..BHS_BYTES].try_into().expect("48 bytes");
        let Ok(InitiatorPdu::Login(pdu)) = InitiatorPdu::parse(bhs) else { panic!("a login begins so") };
        let data = &request[BHS_BYTES..BHS_BYTES + pdu.data_segment_length as usize];
        let (reply, completed) = match target.receive(&pdu, data, &Everybody) {
            Ok(Step::Complete(completed)) => (completed.accept(Tsih(1)), Some(completed)),
            Ok(Step::More(reply)) => (reply, None),
            other => panic!("our own initiator is let in: {other:?}"),
        };
        let mut bhs = [0; BHS_BYTES];
        reply.response.emit(&mut bhs);
        match (initiator.receive(&bhs, &reply.text), completed) {
            (Ok(Progress::Done(established)), Some(completed)) => return (*completed, *established),
            (Ok(Progress::Send), None) => {}
            other => panic!("the two ends disagree: {other:?}"),
        }
    }
}

/// What is outside of the shard.
#[derive(Default)]
struct Air {
    now: u64,
    sockets: Vec<Socket>,
    done: VecDeque<Completion>,
    letters: VecDeque<Mail>,
    to_control: Vec<ToControl>,
}

#[derive(Default)]
struct Socket {
    receive: Option<(u64, Segments)>,
    leaving: Option<(u64, Message)>,
    coming: VecDeque<u8>,
    sent: Vec<u8>,
}

impl Air {
    /// Between two turns: sends end, and what has come goes where a receive wants it.
    fn pass(&mut self) {
        for socket in &mut self.sockets {
            if let Some((tag, message)) = socket.leaving.take() {
                message.copy_to(&mut socket.sent);
                let length = u32::try_from(message.length_bytes()).expect("a batch");
                let payload = Payload::Message(message);
                self.done.push_back(Completion { tag, result: Ok(length), payload, more: false });
            }
            if socket.coming.is_empty() {
                continue;
            }
            let Some((tag, mut segments)) = socket.receive.take() else { continue };
            let mut length = 0;
            for slice in segments.slices_mut() {
                for byte in slice {
                    let Some(next) = socket.coming.pop_front() else { break };
                    *byte = next;
                    length += 1;
                }
            }
            let payload = Payload::Segments(segments);
            self.done.push_back(Completion { tag, result: Ok(length), payload, more: false });
        }
    }
}

struct Letters(Rc<RefCell<Air>>);

impl Mailbox for Letters {
    fn receive(&mut self) -> Option<Mail> {
        self.0.borrow_mut().letters.pop_front()
    }

    fn send(&mut self, letter: ToControl) -> Result<(), Box<ToControl>> {
        self.0.borrow_mut().to_control.push(letter);
        Ok(())
    }

    fn tell(&mut self, shard: ShardId, _letter: PeerLetter) -> Result<(), PeerLetter> {
        panic!("there is no shard {shard} here")
    }
}

/// The ring of this world, on which there are sockets and no files.
struct Desk {
    arena: Arena,
    air: Rc<RefCell<Air>>,
}

impl Desk {
    fn socket(fd: Fd) -> usize {
        usize::try_from(fd.to_bits()).expect("made from an index")
    }
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
        air.sockets.push(Socket::default());
        Ok(Fd::from_bits(air.sockets.len() as u64 - 1))
    }

    fn adopt_medium(&mut self, _source: MediumSource) -> io::Result<Fd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&mut self, fd: Fd) -> Result<OwnedFd, Fd> {
        Err(fd)
    }

    fn close(&mut self, _fd: Fd) {}

    fn addresses(&mut self, _fd: Fd) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((ADDRESS, ADDRESS))
    }

    fn accept(&mut self, _fd: Fd, _tag: u64) -> Result<(), Full<()>> {
        Ok(())
    }

    fn receive(&mut self, fd: Fd, tag: u64, segments: Segments) -> Result<(), Full<Segments>> {
        self.air.borrow_mut().sockets[Self::socket(fd)].receive = Some((tag, segments));
        Ok(())
    }

    fn cancel(&mut self, _tag: u64) {}

    fn recall(&mut self, fd: Fd) {
        let air = &mut *self.air.borrow_mut();
        if let Some((tag, segments)) = air.sockets[Self::socket(fd)].receive.take() {
            let payload = Payload::Segments(segments);
            air.done.push_back(Completion { tag, result: Err(Errno::CANCELED), payload, more: false });
        }
    }

    fn send(&mut self, fd: Fd, tag: u64, message: Message) -> Result<(), Full<Message>> {
        self.air.borrow_mut().sockets[Self::socket(fd)].leaving = Some((tag, message));
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
