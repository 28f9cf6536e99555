//! Dialogues with control: scripted shards, helpers that answer when they are told to, a clock that the test moves.

mod applying;
mod ending;
mod sessions;
mod sizes;
mod space;
mod units;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use portico_iscsi::chap::{NONCE_BYTES, Nonce, Users};
use portico_iscsi::login::{Admission, Directory, Lookup, Options, SessionType, Step, TargetLogin};
use portico_iscsi::negotiate::TargetKeys;
use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::wire::{Cid, InitiatorTaskTag, Isid, LoginRequest, Stage as LoginStage, Tsih};
use portico_model::identity::{Generation, SessionId};
use portico_model::message::{EndReason, LoginQuestion, Orphan};
use portico_scsi::reservation::NexusId;

use super::*;
use crate::ledger_store::Restored;
use crate::scst_conf;

/// The medium of a test: a number that tells one opening from the next.
pub(super) type Disk = u32;

pub(super) const TARGET: &str = "iqn.2026-11.io.portico:t";
pub(super) const BOOT: BootId = [5; 16];

/// Two devices, one target, everybody sees both.
pub(super) const PLAIN: &str = "
    HANDLER vdisk_fileio {
        DEVICE a {
            filename /a
        }
        DEVICE b {
            filename /b
        }
    }
    TARGET_DRIVER iscsi {
        enabled 1
        TARGET iqn.2026-11.io.portico:t {
            enabled 1
            LUN 0 a
            LUN 1 b
        }
    }
";

pub(super) fn configuration(text: &str) -> Configuration {
    let parsed = scst_conf::parse("test", text.as_bytes());
    let report = parsed.report(scst_conf::Colour::Off);
    let mut configuration = parsed.configuration.unwrap_or_else(|| panic!("{report}"));
    configuration.portals = vec![Portal("127.0.0.1:3260".parse().unwrap())];
    configuration
}

/// What is answered without being told.
#[derive(Clone, Copy)]
pub(super) struct Manners {
    pub(super) opens: bool,
    pub(super) ledgers: bool,
    pub(super) installs: bool,
    pub(super) resizes: bool,
    pub(super) binds: bool,
    pub(super) ends: bool,
    pub(super) closes: bool,
}

impl Manners {
    pub(super) const GOOD: Self = Self {
        opens: true,
        ledgers: true,
        installs: true,
        resizes: true,
        binds: true,
        ends: true,
        closes: true,
    };
}

/// Control among scripted shards and helpers.
pub(super) struct World {
    pub(super) control: Control<Disk>,
    pub(super) now: Moment,
    pub(super) manners: Manners,
    pub(super) mail: VecDeque<Mail<Disk>>,
    /// How often control wanted to know what a pool has left.
    pub(super) surveys: u32,
    /// What control wanted, in words, since somebody looked.
    pub(super) words: Vec<String>,
    /// Adopted sessions in the order of their adoption: session, nexus, home.
    pub(super) adopted: Vec<(SessionId, NexusId, ShardId)>,
    pub(super) summary: Option<Summary>,
    pub(super) answers: Vec<(QueryId, Option<Arc<crate::metrics::Snapshot>>)>,
    disks: Disk,
}

impl World {
    /// A gateway of `shards` that has been told nothing.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            control: Control::new(shards, BOOT),
            now: Moment::from_millis(1_000),
            manners: Manners::GOOD,
            mail: VecDeque::new(),
            surveys: 0,
            words: Vec::new(),
            adopted: Vec::new(),
            summary: None,
            answers: Vec::new(),
            disks: 0,
        }
    }

    /// A gateway of two shards that serves this.
    pub(super) fn serving(text: &str) -> Self {
        let mut world = Self::new(2);
        world.apply(text);
        assert!(world.summary.is_some(), "{:?}", world.words);
        world.words.clear();
        world
    }

    pub(super) fn apply(&mut self, text: &str) {
        self.apply_with(text, false);
    }

    /// The same served at these portals.
    pub(super) fn apply_at(&mut self, text: &str, portals: &[&str]) {
        let mut configuration = Box::new(configuration(text));
        configuration.portals = portals.iter().map(|at| Portal(at.parse().unwrap())).collect();
        self.tell(Mail::Apply { configuration, force: false });
    }

    pub(super) fn apply_with(&mut self, text: &str, force: bool) {
        self.tell(Mail::Apply { configuration: Box::new(configuration(text)), force });
    }

    /// Hands mail over, and then what it brings about.
    pub(super) fn tell(&mut self, mail: Mail<Disk>) {
        self.mail.push_back(mail);
        while let Some(mail) = self.mail.pop_front() {
            let mut orders = Orders::new();
            self.control.handle(mail, self.now, &mut orders);
            orders.into_iter().for_each(|order| self.carry_out(order));
        }
    }

    pub(super) fn hear(&mut self, mail: ToControl) {
        self.tell(Mail::FromShard(mail));
    }

    /// Lets time pass, stopping wherever control wants to be looked at.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.control.next_deadline() <= end {
            self.now = self.control.next_deadline().max(self.now);
            let mut orders = Orders::new();
            self.control.expire(self.now, &mut orders);
            assert!(self.control.next_deadline() > self.now, "what was due is done");
            orders.into_iter().for_each(|order| self.carry_out(order));
            while let Some(mail) = self.mail.pop_front() {
                self.tell(mail);
            }
        }
        self.now = end;
    }

    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.words)
    }

    /// A connection of this initiator that shard 0 has led through its login.
    pub(super) fn login(&mut self, initiator: &str) {
        self.tell_login(initiator, Some(TARGET), Tsih::NEW);
    }

    pub(super) fn tell_login(&mut self, initiator: &str, target: Option<&str>, tsih: Tsih) {
        let question = Box::new(question(initiator, target, tsih));
        self.hear(ToControl::Login(question));
    }

    /// The session that was adopted last.
    pub(super) fn last(&self) -> (SessionId, NexusId, ShardId) {
        *self.adopted.last().expect("a session was adopted")
    }

    pub(super) fn unit(&self, device: &str) -> UnitId {
        self.control.unit_ids[device]
    }

    pub(super) fn end(&mut self, session: SessionId, orphans: Vec<Orphan>) {
        self.hear(ToControl::SessionEnded { session, reason: EndReason::ConnectionLost, orphans });
    }

    pub(super) fn open(&mut self, unit: UnitId) {
        self.disks += 1;
        let medium = self.disks;
        let opened = Opened {
            medium,
            size_bytes: 1 << 20,
            physical_block_bytes: None,
            read_only: false,
            untorn_bytes: None,
        };
        self.tell(Mail::DeviceOpened { unit, result: Ok(opened) });
    }

    fn carry_out(&mut self, order: Order<Disk>) {
        match order {
            Order::ToShard(shard, message) => self.deliver(shard, message),
            Order::OpenDevice { unit, device } => {
                self.words.push(format!("open {}", device.name));
                if self.manners.opens {
                    self.disks += 1;
                    let (medium, size_bytes) = (self.disks, 1 << 20);
                    let opened = Opened {
                        medium,
                        size_bytes,
                        physical_block_bytes: None,
                        read_only: false,
                        untorn_bytes: None,
                    };
                    self.mail.push_back(Mail::DeviceOpened { unit, result: Ok(opened) });
                }
            }
            Order::ResizeDevice { unit, device, .. } => {
                if self.manners.resizes {
                    let size_bytes = device.handler.size_bytes().unwrap_or(1 << 20);
                    self.mail.push_back(Mail::DeviceResized { unit, result: Ok(size_bytes) });
                } else {
                    self.words.push(format!("resize {}", device.name));
                }
            }
            Order::SurveySpace { .. } => self.surveys += 1,
            Order::CloseDevice { medium, .. } => self.words.push(format!("close medium {medium}")),
            Order::ReadLedger { unit, ledger: device } => {
                if self.manners.ledgers {
                    self.mail.push_back(Mail::LedgerRead { unit, result: Ok(Restored::Nothing) });
                } else {
                    self.words.push(format!("read ledger {device}"));
                }
            }
            Order::WriteLedger { unit, ledger: device, .. } => {
                self.words.push(format!("write ledger {device}"));
                if self.manners.ledgers {
                    self.mail.push_back(Mail::LedgerWritten { unit, result: Ok(()) });
                }
            }
            Order::Bind(portal) if !self.manners.binds => self.words.push(format!("bind {}", portal.0)),
            Order::Bind(portal) => {
                let socket: OwnedFd = File::open("/dev/null").unwrap().into();
                let bound = Bound { socket, address: portal.0 };
                self.mail.push_back(Mail::Bound { portal, result: Ok(bound) });
            }
            Order::Answer(query, snapshot) => self.answers.push((query, snapshot)),
            Order::Log(_, line) => self.words.push(format!("log: {line}")),
            Order::Ready(summary) => self.summary = Some(*summary),
            Order::Exit(exit) => self.words.push(format!("exit {exit:?}")),
        }
    }

    /// Messages that every shard gets are put into words once, for shard 0.
    fn deliver(&mut self, shard: ShardId, message: ToShard<Disk>) {
        match message {
            ToShard::Configure(_) => self.say_once(shard, "configure"),
            ToShard::Listen(sockets) => self.say_once(shard, &format!("listen at {}", sockets.len())),
            ToShard::Open(opening) => {
                let with = opening.medium.map_or(String::new(), |disk| format!(" with medium {disk}"));
                self.say_once(shard, &format!("unit {}{with}", opening.device));
            }
            ToShard::Install(install) => {
                let orphans = match install.orphans.len() {
                    0 => String::new(),
                    count => format!(" with {count} orphans"),
                };
                self.say_once(
                    shard,
                    &format!("install {} of {}{orphans}", install.generation, self.name(install.unit)),
                );
                if self.manners.installs {
                    self.install(shard, install.unit, install.generation);
                }
            }
            ToShard::Work { unit, work } => {
                self.words.push(format!("shard {shard}: {:?} of {}", work.kind, self.name(unit)));
            }
            ToShard::Close(unit) => {
                self.say_once(shard, &format!("close {}", self.name(unit)));
                if self.manners.closes {
                    self.mail.push_back(Mail::FromShard(ToControl::Closed { shard, unit }));
                }
            }
            ToShard::Adopt(adoption) => {
                assert_ne!(adoption.tsih, Tsih::NEW);
                let luns: Vec<String> =
                    adoption.map.entries().iter().map(|entry| entry.lun.to_string()).collect();
                self.words.push(format!(
                    "shard {shard} adopts {} seeing [{}]",
                    adoption.question.completed.initiator_name,
                    luns.join(" ")
                ));
                self.adopted.push((adoption.session, adoption.nexus, shard));
            }
            ToShard::Join { session, question } => {
                let name = question.completed.initiator_name;
                self.words.push(format!("shard {shard} lets {name} join session {session}"));
            }
            ToShard::Refuse(refusal) => {
                let status = refusal.status;
                let name = refusal.question.completed.initiator_name;
                self.words
                    .push(format!("shard {shard} refuses {name} {:02x}/{:02x}", status.class, status.detail));
            }
            ToShard::Changed { ticket, outcome } => {
                let outcome =
                    outcome.map_or_else(|outcome| format!("{:?}", outcome.status), |()| "good".to_owned());
                self.words.push(format!("shard {shard} hears of {ticket}: {outcome}"));
            }
            ToShard::Remap { session, map } => {
                let luns: Vec<String> = map.entries().iter().map(|entry| entry.lun.to_string()).collect();
                self.words.push(format!("shard {shard} remaps session {session} to [{}]", luns.join(" ")));
            }
            ToShard::EndSession { session, reason } => {
                self.words.push(format!("shard {shard} ends session {session}: {reason:?}"));
                if self.manners.ends {
                    let ended = ToControl::SessionEnded { session, reason, orphans: Vec::new() };
                    self.mail.push_back(Mail::FromShard(ended));
                }
            }
            ToShard::CollectMeters(meters) => {
                self.mail.push_back(Mail::FromShard(ToControl::Meters { shard, meters }));
            }
            ToShard::Quiesce => self.say_once(shard, "quiesce"),
            ToShard::Stop => self.say_once(shard, "stop"),
            ToShard::Peer(letter) => panic!("control is no shard: {letter:?}"),
        }
    }

    pub(super) fn install(&mut self, shard: ShardId, unit: UnitId, generation: Generation) {
        self.mail.push_back(Mail::FromShard(ToControl::Installed { shard, unit, generation }));
    }

    fn say_once(&mut self, shard: ShardId, word: &str) {
        if shard == ShardId(0) {
            self.words.push(word.to_owned());
        }
    }

    fn name(&self, unit: UnitId) -> String {
        self.control.units.get(&unit).map_or_else(|| unit.to_string(), |unit| unit.name.to_string())
    }
}

/// Lets everybody in: control judges by itself.
struct OpenHouse;

impl Directory for OpenHouse {
    fn target(&self, _: &str, _: &str) -> Lookup {
        let keys = TargetKeys::default();
        Lookup::Admitted(Admission { keys, portal_group_tag: 1, alias: None, queued_commands: 32 })
    }

    fn users(&self, _: Option<&str>) -> Users<'_> {
        Users::default()
    }
}

/// A login that is complete but for its last response.
pub(super) fn question(initiator: &str, target: Option<&str>, tsih: Tsih) -> LoginQuestion {
    let options =
        Options { stat_sn: StatSn(1), discovery: TargetKeys::default(), discovery_queued_commands: 4 };
    let text = match target {
        Some(target) => format!("InitiatorName={initiator}\0TargetName={target}\0SessionType=Normal\0"),
        None => format!("InitiatorName={initiator}\0SessionType=Discovery\0"),
    };
    let mut request = LoginRequest {
        current_stage: LoginStage::LoginOperationalNegotiation,
        next_stage: Some(LoginStage::FullFeaturePhase),
        continues: false,
        version_max: 0,
        version_min: 0,
        data_segment_length: u32::try_from(text.len()).unwrap(),
        isid: Isid([0x40, 0, 1, 0x37, 0, 1]),
        tsih,
        initiator_task_tag: InitiatorTaskTag(1),
        cid: Cid(0),
        cmd_sn: CmdSn(1),
        expected_stat_sn: StatSn(0),
    };
    let mut login = TargetLogin::new(options, Nonce::new([7; NONCE_BYTES]));
    let mut step = login.receive(&request, text.as_bytes(), &OpenHouse).unwrap();
    // The target declares its own values first; the initiator then has nothing more to say.
    for _ in 0..4 {
        if !matches!(step, Step::More(_)) {
            break;
        }
        request.data_segment_length = 0;
        step = login.receive(&request, &[], &OpenHouse).unwrap();
    }
    let Step::Complete(completed) = step else { panic!("{step:?}") };
    assert_eq!(completed.session_type == SessionType::Discovery, target.is_none());
    LoginQuestion {
        shard: ShardId(0),
        completed: *completed,
        socket: File::open("/dev/null").unwrap().into(),
        unread: Vec::new(),
        peer: "10.0.0.9:40000".parse().unwrap(),
        local: "127.0.0.1:3260".parse().unwrap(),
    }
}
