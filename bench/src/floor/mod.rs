//! The comparison servers: what answering a null logical unit costs when nothing is done but that.
//!
//! A floor logs initiators in as the engine does ([`entry`]), and from then on only looks at the fields of a command that
//! an answer needs ([`peer`]): a read is answered with 48 bytes and the data, a write's data are swallowed and answered
//! with 48 bytes. No task, no budget, no histogram, no reservation. The same answers leave through a bare io_uring
//! ([`ring`]), through epoll and writev ([`epoll`]) and, with the feature of that name, through glommio, so that what
//! differs between them is the way to the kernel alone. [`medium`] is the floor below a file: a ring that reads and writes
//! it, and nothing else.

pub mod batch;
pub mod entry;
pub mod epoll;
#[cfg(feature = "glommio")]
pub mod glommio;
pub mod medium;
pub mod peer;
pub mod ring;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::login::LOGIN_DATA_SEGMENT_BYTES_MAX;
use portico_iscsi::wire::{BHS_BYTES, Bhs};

use entry::{Entry, Step};
use peer::Peer;

/// How a floor is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The size that READ CAPACITY tells.
    pub size_bytes: u64,
    /// Commands that each session may send at once.
    pub window: u16,
    /// Whether it looks for work without ever sleeping.
    pub polls: bool,
    /// What reads are answered from.
    pub memory: Arc<Memory>,
}

/// What the data of all reads is taken from.
#[derive(Debug)]
pub struct Memory {
    bytes: Vec<u8>,
    /// Each block has its place; otherwise all have the same one.
    is_whole: bool,
}

impl Memory {
    /// The same bytes for each read: a null unit, from the processor's cache.
    #[must_use]
    pub fn null() -> Self {
        Self { bytes: vec![FILLING; READ_BYTES_MAX], is_whole: false }
    }

    /// A place for each block, so that reads miss the cache as they do on a RAM disk.
    ///
    /// # Panics
    /// Where the size is beyond the address space.
    #[must_use]
    pub fn whole(size_bytes: u64) -> Self {
        let length = usize::try_from(size_bytes).expect("it fits into memory");
        Self { bytes: vec![FILLING; length], is_whole: true }
    }

    /// Where `length` bytes of block `lba` begin; `None` where there are none.
    fn place(&self, lba: u64, length: usize) -> Option<usize> {
        let at = if self.is_whole { usize::try_from(lba.checked_mul(BLOCK_BYTES)?).ok()? } else { 0 };
        (at.checked_add(length)? <= self.bytes.len()).then_some(at)
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A connection whose login is over.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub stream: TcpStream,
    /// The session on it.
    pub peer: Peer,
}

/// Accepts and logs in, on threads of its own that sleep afterwards; each arrival is announced by a byte on `bell`.
#[must_use]
pub fn receive_arrivals(
    listener: TcpListener,
    settings: &Settings,
    bell: io::PipeWriter,
) -> Receiver<Arrival> {
    let (sender, arrivals) = sync_channel(ARRIVALS_MAX);
    let settings = settings.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (sender, settings) = (sender.clone(), settings.clone());
            let Ok(bell) = bell.try_clone() else { continue };
            thread::spawn(move || {
                if let Err(error) = arrive(stream, &settings, &sender, bell) {
                    eprintln!("a login failed: {error}");
                }
            });
        }
    });
    arrivals
}

fn arrive(
    mut stream: TcpStream,
    settings: &Settings,
    sender: &SyncSender<Arrival>,
    mut bell: io::PipeWriter,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOGIN_PATIENCE))?;
    let mut entry = Entry::new(settings);
    loop {
        let mut bhs = [0; BHS_BYTES];
        stream.read_exact(&mut bhs)?;
        let mut data = vec![0; rest_bytes(&bhs)?];
        stream.read_exact(&mut data)?;
        let Step { reply, peer } = entry.step(&bhs, &data).map_err(io::Error::other)?;
        stream.write_all(&reply)?;
        if let Some(peer) = peer {
            stream.set_read_timeout(None)?;
            // Whoever served has ended: so does the process.
            let _ = sender.send(Arrival { stream, peer });
            return bell.write_all(&[0]);
        }
    }
}

/// How many bytes follow a header in the login phase.
fn rest_bytes(bhs: &Bhs) -> io::Result<usize> {
    let lengths = Lengths::of(bhs, Digests::NONE, LOGIN_DATA_SEGMENT_BYTES_MAX);
    let lengths = lengths.map_err(|violation| io::Error::other(violation.to_string()))?;
    Ok(usize::try_from(lengths.pdu_bytes()).expect("32 bits") - BHS_BYTES)
}

/// Of a logical block.
pub const BLOCK_BYTES: u64 = 512;
/// The longest read that is answered.
pub const READ_BYTES_MAX: usize = 4 << 20;
/// The memory into which a connection receives.
pub(crate) const STAGING_BYTES: usize = 256 << 10;
/// Not zero, lest the kernel find pages that it never has to give.
const FILLING: u8 = 0x5a;
const ARRIVALS_MAX: usize = 1024;
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);
