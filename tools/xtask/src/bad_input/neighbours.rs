//! Peers that behave badly all the while, and not once: for a bench that asks what they take from others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::peer::{Peer, READ_10, header, nop, pdu, plan, transfer};
use crate::lab::{Context, Failure, Result, initiator};

/// A way to behave badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vice {
    /// Reads of 1 MiB, of whose answers half a KiB is taken every 10 ms.
    Slow,
    /// Reads of 1 MiB, and pings by the million, of whose answers nothing is ever taken.
    Deaf,
    /// Connections that are opened and broken off, one after the other.
    Flood,
    /// Text Requests that say that there is more to come, for ever.
    EndlessText,
    /// Logins at a byte a second.
    Dribble,
}

impl Vice {
    pub(crate) const ALL: [Vice; 5] = [Vice::Slow, Vice::Deaf, Vice::Flood, Vice::EndlessText, Vice::Dribble];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Vice::Slow => "16 that read slowly",
            Vice::Deaf => "16 that never read",
            Vice::Flood => "a flood of connections",
            Vice::EndlessText => "4 whose Text never ends (C=1)",
            Vice::Dribble => "256 that log in at a byte a second",
        }
    }
}

/// Peers with vices at work.
pub(crate) struct Neighbours {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Neighbours {
    /// They come to `portal` from this processor.
    pub(crate) fn begin(portal: SocketAddr, vices: &[Vice], core: usize) -> Neighbours {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for vice in vices.iter().copied() {
            let count = if vice == Vice::EndlessText { TEXTS } else { 1 };
            for number in 0..count {
                let stop = Arc::clone(&stop);
                threads.push(thread::spawn(move || {
                    pin(core)?;
                    let scene = Scene { portal, stop: &stop };
                    match vice {
                        Vice::Slow => scene.slow(),
                        Vice::Deaf => scene.deaf(),
                        Vice::Flood => scene.flood(),
                        Vice::EndlessText => scene.endless_text(number),
                        Vice::Dribble => scene.dribble(),
                    }
                }));
            }
        }
        Neighbours { stop, threads }
    }

    /// Ends them; how often they did what they do.
    pub(crate) fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acts = 0;
        for thread in self.threads {
            acts += thread.join().unwrap_or_else(|_| Err(Failure::new("a bad peer panicked")))?;
        }
        Ok(acts)
    }
}

/// The calling thread runs on this processor alone.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context("a thread's processor")
}

struct Scene<'a> {
    portal: SocketAddr,
    stop: &'a AtomicBool,
}

impl Scene<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Logged in, with its window full of reads.
    fn greedy(&self, number: u16) -> Result<Peer> {
        let (mut peer, established) = Peer::log_in_as(self.portal, plan(number))?;
        for tag in 0..established.window.size() {
            let read = header(transfer(&peer, tag, READ_10, 1 << 20));
            peer.send(&read)?;
            peer.cmd_sn = peer.cmd_sn.next();
        }
        Ok(peer)
    }

    fn crowd(&self, first: u16) -> Result<Vec<Peer>> {
        (first..first + CROWD).map(|number| self.greedy(number)).collect()
    }

    fn slow(&self) -> Result<u64> {
        let mut peers = self.crowd(1000)?;
        let mut acts = 0;
        while self.goes_on() {
            for peer in &mut peers {
                peer.stream.read_exact(&mut [0; 512]).context("a slow reader")?;
                acts += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(acts)
    }

    fn deaf(&self) -> Result<u64> {
        let mut peers = self.crowd(1100)?;
        let pings = peers.first().map(|peer| pdu(nop(peer), &[0x77; 4096])).unwrap_or_default();
        for peer in &peers {
            peer.stream.set_nonblocking(true)?;
        }
        let mut acts = 0;
        while self.goes_on() {
            // Only half of them say anything more. What the kernel takes in part goes on with the same PDU's bytes some
            // other time: from then on that peer speaks nonsense, and is closed for it.
            for peer in peers.iter_mut().skip(usize::from(CROWD) / 2) {
                match peer.stream.write(&pings) {
                    Ok(length) if length == pings.len() => acts += 1,
                    Ok(_) | Err(_) => {}
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(acts)
    }

    fn flood(&self) -> Result<u64> {
        let mut acts = 0;
        while self.goes_on() {
            let stream = TcpStream::connect(self.portal).context("a flood")?;
            // Broken off, so that no port waits for late packets.
            set_socket_linger(&stream, Some(Duration::ZERO)).context("a flood")?;
            acts += 1;
        }
        Ok(acts)
    }

    fn endless_text(&self, number: u16) -> Result<u64> {
        let mut acts = 0;
        while self.goes_on() {
            // Whoever is thrown out comes again.
            let mut peer = Peer::log_in(self.portal, 1200 + number)?;
            let mut bhs = nop(&peer);
            (bhs[0], bhs[1]) = (0x44, 0x40);
            let texts = pdu(bhs, b"X-portico.more=0\0").repeat(64);
            peer.stream.set_nonblocking(true)?;
            let mut heard = vec![0; 65_536];
            let mut said = 0;
            while self.goes_on() {
                match peer.stream.write(&texts[said..]) {
                    Ok(length) => {
                        acts += u64::from(said + length == texts.len()) * 64;
                        said = (said + length) % texts.len();
                    }
                    // The target takes no more for now.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(_) => break,
                }
                match peer.stream.read(&mut heard) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        }
        Ok(acts)
    }

    fn dribble(&self) -> Result<u64> {
        let mut streams = Vec::new();
        let mut acts = 0;
        while self.goes_on() {
            while streams.len() < DRIBBLERS {
                streams.push(initiator::connect(self.portal)?);
            }
            // Who is closed for it comes again.
            streams.retain_mut(|stream| {
                acts += 1;
                stream.write_all(&[0x43]).is_ok()
            });
            for _ in 0..20 {
                if self.goes_on() {
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(acts)
    }
}

const CROWD: u16 = 16;
const TEXTS: u16 = 4;
const DRIBBLERS: usize = 256;
