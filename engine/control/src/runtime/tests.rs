//! The control thread with real helper threads, a real folder and the metrics port, among shards that answer at once.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};

use portico_model::configuration::Handler;

use super::*;
use crate::http::{Limits, Server};
use crate::ledger_store::SystemFolder;

const BOOT: BootId = [3; 16];

/// A medium whose pool does not answer until the test is over.
const HUNG_POOL: u32 = 13;

/// Opens what is called `good`, fails on `bad`, and hangs on `hung` until the test is over.
struct Workshop {
    release: Mutex<mpsc::Receiver<()>>,
    closed: mpsc::Sender<u32>,
}

impl Devices for Workshop {
    type Medium = u32;

    fn open(&self, device: &Device, watch: SizeWatch<u32>) -> Result<Opened<u32>, String> {
        if device.name == "growing" {
            watch.announce(3 << 20);
        }
        let medium = if device.thin_provisioned { HUNG_POOL } else { 42 };
        match device.name.as_str() {
            "bad" => Err("no such file".to_owned()),
            "hung" => {
                let _ = self.release.lock().unwrap().recv();
                Err("released".to_owned())
            }
            _ => Ok(Opened {
                medium,
                size_bytes: 1 << 20,
                physical_block_bytes: None,
                read_only: false,
                untorn_bytes: None,
            }),
        }
    }

    fn resize(&self, _: &u32, device: &Device) -> Result<u64, String> {
        Err(format!("a {} keeps its size", device.handler.name()))
    }

    fn space(&self, medium: &u32) -> Option<Space> {
        if *medium == HUNG_POOL {
            let _ = self.release.lock().unwrap().recv();
        }
        None
    }

    fn close(&self, medium: u32) {
        let _ = self.closed.send(medium);
    }
}

/// Shards that do at once whatever they are told.
struct Obedient {
    mailbox: ControlMailbox,
    seen: mpsc::Sender<String>,
}

impl Shards<u32> for Obedient {
    fn send(&self, shard: ShardId, message: ToShard<u32>) {
        let answer = match message {
            ToShard::Install(install) => {
                ToControl::Installed { shard, unit: install.unit, generation: install.generation }
            }
            ToShard::CollectMeters(meters) => ToControl::Meters { shard, meters },
            ToShard::Close(unit) => ToControl::Closed { shard, unit },
            ToShard::Quiesce => ToControl::Quiesced { shard, failed_flushes: Vec::<UnitId>::new() },
            other => {
                let _ = self.seen.send(format!("{shard} {}", word(&other)));
                return;
            }
        };
        self.mailbox.try_send(answer).unwrap();
    }
}

fn word(message: &ToShard<u32>) -> &'static str {
    match message {
        ToShard::Configure(_) => "configure",
        ToShard::Listen(_) => "listen",
        ToShard::Open(_) => "open",
        ToShard::Stop => "stop",
        _ => "something else",
    }
}

struct Porch {
    ready: mpsc::Sender<Summary>,
}

impl Host for Porch {
    fn bind(&self, portal: Portal) -> Result<Bound, String> {
        let socket = File::open("/dev/null").map_err(|error| error.to_string())?;
        Ok(Bound { socket: socket.into(), address: portal.0 })
    }

    fn ready(&self, summary: &Summary) {
        let _ = self.ready.send(summary.clone());
    }
}

fn configuration(devices: &[&str]) -> Configuration {
    let device = |name: &&str| Device {
        thin_provisioned: name.starts_with("thin"),
        ..Device::new(*name, Handler::FileIo { filename: format!("/{name}"), size_bytes: None })
    };
    Configuration {
        devices: devices.iter().map(device).collect(),
        portals: Portal::loopback(),
        ..Configuration::default()
    }
}

struct Gateway {
    post: Post<u32>,
    ready: mpsc::Receiver<Summary>,
    seen: mpsc::Receiver<String>,
    closed: mpsc::Receiver<u32>,
    exit: std::thread::JoinHandle<Exit>,
    _release: mpsc::Sender<()>,
    _place: tempfile::TempDir,
}

fn start(devices: &[&str]) -> Gateway {
    let place = tempfile::tempdir().unwrap();
    let folder = SystemFolder::open(place.path().join("ledgers")).unwrap();
    let (mailbox, post, inbox) = mailboxes(2);
    let (release, released) = mpsc::channel();
    let (closed_sender, closed) = mpsc::channel();
    let (seen_sender, seen) = mpsc::channel();
    let (ready_sender, ready) = mpsc::channel();
    let workshop = Arc::new(Workshop { release: Mutex::new(released), closed: closed_sender });
    let shards = Obedient { mailbox, seen: seen_sender };
    let host = Porch { ready: ready_sender };
    let ledgers = LedgerStore::new(folder, BOOT);
    let runtime = Runtime::new(2, BOOT, inbox, workshop, shards, host, ledgers).unwrap();
    let exit = std::thread::spawn(move || runtime.run());
    post.apply(configuration(devices), false);
    Gateway { post, ready, seen, closed, exit, _release: release, _place: place }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_gateway_starts_tells_and_ends() {
    let gateway = start(&["good"]);
    let summary = gateway.ready.recv_timeout(PATIENCE).unwrap();
    assert_eq!(summary.portals, ["127.0.0.1:3260".parse().unwrap()]);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(listener, gateway.post.clone(), Limits::default()).unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("portico_device_ready{device=\"good\"} 1"), "{answer}");

    gateway.post.shut_down();
    assert_eq!(gateway.exit.join().unwrap(), Exit::Clean);
    let seen: Vec<String> = gateway.seen.try_iter().collect();
    assert_eq!(seen.last().unwrap(), "1 stop");
    assert_eq!(gateway.closed.recv_timeout(PATIENCE).unwrap(), 42);
}

#[test]
fn an_open_that_hangs_and_one_that_fails_stop_nobody() {
    let gateway = start(&["hung", "bad", "good"]);
    gateway.ready.recv_timeout(PATIENCE).unwrap();
    let opened: Vec<String> = gateway.seen.try_iter().filter(|word| word == "0 open").collect();
    assert_eq!(opened.len(), 4, "three units, and the medium of one");
    gateway.post.shut_down();
    assert_eq!(gateway.exit.join().unwrap(), Exit::Clean);
}

#[test]
fn pools_that_hang_when_they_are_asked_what_they_have_left_stop_no_open() {
    let thin: Vec<String> = (0..helpers::LONE_MAX).map(|number| format!("thin{number}")).collect();
    let mut names: Vec<&str> = thin.iter().map(String::as_str).collect();
    let gateway = start(&names);
    gateway.ready.recv_timeout(PATIENCE).unwrap();
    names.push("good");
    gateway.post.apply(configuration(&names), false);
    // Of each unit once without its medium and once with it.
    for _ in 0..2 * names.len() {
        while gateway.seen.recv_timeout(PATIENCE).unwrap() != "0 open" {}
    }
    gateway.post.shut_down();
    assert_eq!(gateway.exit.join().unwrap(), Exit::Clean);
}

#[test]
fn a_medium_that_hears_of_its_size_tells_control() {
    let gateway = start(&["growing"]);
    gateway.ready.recv_timeout(PATIENCE).unwrap();
    let query = gateway.post.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let snapshot = runtime.block_on(query.snapshot()).unwrap();
    assert_eq!(snapshot.units[0].capacity_blocks * 512, 3 << 20);
    gateway.post.shut_down();
    assert_eq!(gateway.exit.join().unwrap(), Exit::Clean);
}

#[test]
fn a_mailbox_that_is_full_gives_the_mail_back() {
    let (mailbox, _post, inbox) = mailboxes::<u32>(1);
    let mail = || ToControl::Quiesced { shard: ShardId(0), failed_flushes: Vec::new() };
    for _ in 0..MAIL_PER_SHARD_MAX {
        mailbox.try_send(mail()).unwrap();
    }
    assert!(mailbox.try_send(mail()).is_err());
    drop(inbox);
    assert!(mailbox.try_send(mail()).is_ok(), "where control is gone, so is whoever would read it");
}
