//! Much of it: bytes at random, right PDUs with bits turned, more connections than anybody needs, and peers that ask and
//! never listen. Here the answer is free, within this: porticod neither ends nor hangs nor grows without bound.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use portico_iscsi::initiator::{LoginPlan, Offer};
use portico_iscsi::wire::Bhs;

use super::peer::{
    Heard, Peer, READ_10, SCSI_RESPONSE, WRITE_10, command, header, login_header, login_keys, login_request,
    nop, pdu, plan, transfer,
};
use super::{Case, Scene};
use crate::lab::initiator::{self, Initiator};
use crate::lab::random::Random;
use crate::lab::{Result, halt};

pub(super) const CASES: &[Case] = &[
    Case { name: "random bytes instead of a login", run: noise_first },
    Case { name: "logins with bits turned", run: turned_logins },
    Case { name: "random bytes after a login", run: noise_after },
    Case { name: "random PDUs of the right lengths after a login", run: random_pdus },
    Case { name: "right PDUs with bits turned after a login", run: turned_pdus },
    Case { name: "right PDUs cut anywhere", run: cut_pdus },
    Case { name: "500 connections at once, and still a login", run: crowd },
    Case {
        name: "wrong PDUs by the million from a peer that never listens",
        run: |scene| deaf(scene, &wrong),
    },
    Case { name: "pings by the million from a peer that never listens", run: |scene| deaf(scene, &pings) },
    Case { name: "text by the million from a peer that never listens", run: |scene| deaf(scene, &texts) },
    Case { name: "reads of 1 MiB from a peer that never listens", run: |scene| deaf_window(scene, READ_10) },
    Case {
        name: "writes from many peers that never send their data starve nobody who does",
        run: greedy_writes,
    },
    Case {
        name: "data before their turn from many peers stop nobody, and are answered when it comes",
        run: early_data,
    },
];

fn noise_first(scene: &Scene) -> Result<()> {
    for number in 0..200 {
        let mut random = Random::new(scene.seed << 32 | number);
        let mut bytes = vec![0; 48 + random.index(2000)];
        random.fill(&mut bytes);
        let mut peer = Peer::connect(scene.portal)?;
        peer.send(&bytes)?;
        peer.half_close();
        peer.drain()?;
    }
    Ok(())
}

fn turned_logins(scene: &Scene) -> Result<()> {
    for number in 0..300 {
        let mut random = Random::new(scene.seed << 32 | number);
        let mut bytes = pdu(login_header(login_request()), login_keys().as_bytes());
        turn(&mut bytes, &mut random);
        let mut peer = Peer::connect(scene.portal)?;
        peer.send(&bytes)?;
        peer.half_close();
        peer.drain()?;
    }
    Ok(())
}

fn noise_after(scene: &Scene) -> Result<()> {
    for number in 0..100 {
        let mut random = Random::new(scene.seed << 32 | number);
        let mut bytes = vec![0; 48 + random.index(20_000)];
        random.fill(&mut bytes);
        let mut peer = Peer::log_in(scene.portal, 200)?;
        peer.send(&bytes)?;
        peer.half_close();
        peer.drain()?;
    }
    Ok(())
}

fn random_pdus(scene: &Scene) -> Result<()> {
    for number in 0..200 {
        let mut random = Random::new(scene.seed << 32 | number);
        let mut peer = Peer::log_in(scene.portal, 200)?;
        let mut bytes = Vec::new();
        for _ in 0..50 {
            let mut bhs: Bhs = [0; 48];
            random.fill(&mut bhs);
            // Opcodes that there are, more often than chance would have them; CmdSNs within the window.
            bhs[0] = OPCODES[random.index(OPCODES.len())] | (bhs[0] & 0x40);
            bhs[4] = 0;
            if random.below(4) != 0 {
                let near = peer.cmd_sn.advanced_by(u32::from(random.byte() % 16));
                bhs[24..28].copy_from_slice(&near.0.to_be_bytes());
                bhs[8..16].fill(0);
                bhs[16..20].copy_from_slice(&random.below(8).to_be_bytes()[4..]);
            }
            let mut data = vec![0; random.index(600)];
            random.fill(&mut data);
            // Nothing that is written may reach the witness's blocks, and a FORMAT UNIT is right wherever it comes from.
            bhs[32..48].fill(0);
            bhs[32] = match random.byte() & 0x1f {
                FORMAT_UNIT => 0,
                other => other,
            };
            bytes.extend_from_slice(&pdu(bhs, &data));
        }
        peer.send(&bytes)?;
        peer.half_close();
        peer.drain()?;
    }
    Ok(())
}

fn turned_pdus(scene: &Scene) -> Result<()> {
    for number in 0..300 {
        let mut random = Random::new(scene.seed << 32 | number);
        let mut peer = Peer::log_in(scene.portal, 200)?;
        for tag in 0..8 {
            let mut bytes = right_pdu(&mut peer, tag, &mut random);
            // The CDB stays as it is, so that no write goes where the witness works.
            turn(&mut bytes[..32], &mut random);
            peer.send(&bytes)?;
        }
        peer.half_close();
        peer.drain()?;
    }
    Ok(())
}

fn cut_pdus(scene: &Scene) -> Result<()> {
    for number in 0..200 {
        let mut random = Random::new(scene.seed << 32 | number);
        let mut peer = Peer::log_in(scene.portal, 200)?;
        let bytes: Vec<u8> = (0..4).flat_map(|tag| right_pdu(&mut peer, tag, &mut random)).collect();
        peer.send(&bytes[..random.index(bytes.len())])?;
        if random.below(2) == 0 {
            peer.half_close();
            peer.drain()?;
        } else {
            // Away at once, with whatever is under way.
            let _ = peer.stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// A command, a read, a write with its data, a ping.
fn right_pdu(peer: &mut Peer, tag: u32, random: &mut Random) -> Vec<u8> {
    let bytes = match random.below(4) {
        0 => header(command(peer, tag)).to_vec(),
        1 => header(transfer(peer, tag, READ_10, 65_536)).to_vec(),
        2 => pdu(header(transfer(peer, tag, WRITE_10, 4096)), &[0xaa; 4096]),
        _ => return pdu(nop(peer), &[0x55; 100]),
    };
    peer.cmd_sn = peer.cmd_sn.next();
    bytes
}

/// Turns 1 to 4 bits.
fn turn(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let index = random.index(bytes.len());
        bytes[index] ^= 1 << random.below(8);
    }
}

fn crowd(scene: &Scene) -> Result<()> {
    let mut peers = Vec::new();
    for number in 0..500 {
        let mut peer = Peer::connect(scene.portal)?;
        // Some say nothing, some begin a header, some begin a text.
        let whole = pdu(login_header(login_request()), login_keys().as_bytes());
        peer.send(&whole[..[0, 20, 60][number % 3]])?;
        peers.push(peer);
    }
    let mut initiator = Initiator::log_in(scene.portal, initiator::plan(crate::lab::gateway::IQN, 300))?;
    initiator.clear_attentions(0)
}

/// Says the same again and again, until the target takes no more or 32 MiB are said.
fn deaf(scene: &Scene, say: &dyn Fn(&Peer) -> Vec<u8>) -> Result<()> {
    let mut peer = Peer::log_in(scene.portal, 200)?;
    let one = say(&peer);
    let many = one.repeat(65_536 / one.len() + 1);
    peer.stream.set_write_timeout(Some(DEAF_PAUSE))?;
    for _ in 0..FLOOD_BYTES / many.len() {
        halt::go_on()?;
        if peer.stream.write_all(&many).is_err() {
            break;
        }
    }
    Ok(())
}

fn wrong(peer: &Peer) -> Vec<u8> {
    let mut bhs = nop(peer);
    bhs[0] = 0x1f;
    bhs.to_vec()
}

fn pings(peer: &Peer) -> Vec<u8> {
    pdu(nop(peer), &[0x77; 8192])
}

fn texts(peer: &Peer) -> Vec<u8> {
    let mut bhs = nop(peer);
    (bhs[0], bhs[1]) = (0x44, 0x80);
    pdu(bhs, b"SendTargets=All\0")
}

/// Fills the window with transfers of 1 MiB each, and waits a little.
fn deaf_window(scene: &Scene, opcode: u8) -> Result<()> {
    let peer = filled(scene, opcode, 200)?;
    std::thread::sleep(DEAF_PAUSE);
    drop(peer);
    Ok(())
}

fn filled(scene: &Scene, opcode: u8, number: u16) -> Result<Peer> {
    let (mut peer, established) = Peer::log_in_as(scene.portal, plan(number))?;
    for tag in 0..established.window.size() {
        let transfer = header(transfer(&peer, tag, opcode, 1 << 20));
        peer.send(&transfer)?;
        peer.cmd_sn = peer.cmd_sn.next();
    }
    Ok(peer)
}

/// As many as would take all memory of both shards several times over, on one unit. New sessions write to that unit all the
/// while, and to another one, and read: much and little, with their data in the command and only when they are asked.
fn greedy_writes(scene: &Scene) -> Result<()> {
    let peers: Vec<Peer> =
        (0..16).map(|number| filled(scene, WRITE_10, 210 + number)).collect::<Result<_>>()?;
    std::thread::sleep(DEAF_PAUSE);
    let start = Instant::now();
    let eager = initiator::plan(crate::lab::gateway::IQN, 300);
    let asked = Offer::default().with("InitialR2T", "Yes").with("ImmediateData", "No");
    for number in 301..305 {
        newcomer_is_served(scene, LoginPlan { offer: asked.clone(), ..plan_of(number) })?;
    }
    newcomer_is_served(scene, eager)?;
    let waited = start.elapsed();
    for mut peer in peers {
        // They are served, or were told that there is no room; they are not forgotten.
        if !matches!(peer.hear()?, Heard::Pdu(..)) {
            return Err(crate::lab::Failure::new("a peer that only waits was closed"));
        }
    }
    if waited < Duration::from_secs(8) {
        Ok(())
    } else {
        Err(crate::lab::Failure::new("a newcomer waits too long"))
    }
}

fn plan_of(number: u16) -> LoginPlan {
    initiator::plan(crate::lab::gateway::IQN, number)
}

/// Small and large transfers of a session by this plan, on both units, all GOOD.
fn newcomer_is_served(scene: &Scene, plan: LoginPlan) -> Result<()> {
    let mut newcomer = Initiator::log_in(scene.portal, plan)?;
    newcomer.patience(Duration::from_secs(8))?;
    let mut ios = Vec::new();
    for lun in [0, 1] {
        newcomer.clear_attentions(lun)?;
        for length in [65_536, 1 << 20, 4 << 20] {
            ios.push(initiator::Io::write(lun, 0, vec![3; length]));
        }
        ios.push(initiator::Io::read(lun, 0, 1 << 20));
    }
    newcomer.run_patiently(&mut ios, Duration::from_secs(8))?;
    ios.iter().try_for_each(initiator::Io::expect_good)
}

/// Each peer leaves out a number and fills its window behind it with immediate data: more than the memory of both shards.
fn early_data(scene: &Scene) -> Result<()> {
    let offer = Offer::default()
        .with("InitialR2T", "Yes")
        .with("ImmediateData", "Yes")
        .with("FirstBurstLength", "65536")
        .with("MaxRecvDataSegmentLength", "8192");
    let mut peers = Vec::new();
    for number in 0..EARLY_PEERS {
        let plan = LoginPlan { offer: offer.clone(), ..plan(400 + number) };
        let (mut peer, established) = Peer::log_in_as(scene.portal, plan)?;
        let first = peer.cmd_sn;
        for tag in 1..established.window.size() {
            peer.cmd_sn = first.advanced_by(tag);
            let write = pdu(header(transfer(&peer, tag, WRITE_10, EARLY_BYTES)), &EARLY_DATA);
            peer.send(&write)?;
        }
        peer.cmd_sn = first;
        peers.push((peer, established.window.size()));
    }
    let start = Instant::now();
    for number in 300..304 {
        newcomer_is_served(scene, plan_of(number))?;
    }
    if start.elapsed() > Duration::from_secs(8) {
        return Err(crate::lab::Failure::new("a newcomer waits too long"));
    }
    for (mut peer, window) in peers {
        let missing = header(command(&peer, 0));
        peer.send(&missing)?;
        for _ in 0..window {
            peer.expect(SCSI_RESPONSE)?;
        }
    }
    Ok(())
}

const FORMAT_UNIT: u8 = 0x04;
/// Those of initiators, and three that are none.
const OPCODES: [u8; 12] = [0x00, 0x01, 0x01, 0x02, 0x03, 0x04, 0x05, 0x05, 0x06, 0x10, 0x1f, 0x25];
const FLOOD_BYTES: usize = 32 << 20;
/// Twice what both shards have, in windows of 32 commands.
const EARLY_PEERS: u16 = 64;
const EARLY_BYTES: u32 = 65_536;
static EARLY_DATA: [u8; EARLY_BYTES as usize] = [0xed; EARLY_BYTES as usize];
const DEAF_PAUSE: Duration = Duration::from_millis(500);
