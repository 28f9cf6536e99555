//! What initiators and a gateway say to each other, captured by dumpcap while a harness is at work, for an independent
//! reader (`reader`). Needs root.
//!
//! A harness knows nothing of it: once captures are ordered, each gateway that starts is listened to from before its first
//! connection until it ends, or until the capture is as long as it may be: a load would fill the disk.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::namespace::Namespace;
use super::process::Running;
use super::{Context, Failure, Result, halt};

/// What was said between initiators and one gateway, from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// A file in dumpcap's format.
    pub(crate) packets: PathBuf,
    /// Where the gateway listened.
    pub(crate) ports: Vec<u16>,
    /// Packets that dumpcap had no room for, which the reader will miss.
    pub(crate) lost: u64,
    /// Whether it was long enough before the gateway ended.
    pub(crate) is_cut: bool,
}

/// The captures of a stage, and the folder that they lie in, which goes with this.
#[derive(Debug)]
pub(crate) struct Captures {
    pub(crate) taken: Vec<Capture>,
    folder: TempDir,
    /// Of each.
    limit_mib: u64,
}

static ORDER: Mutex<Option<Captures>> = Mutex::new(None);

fn current() -> MutexGuard<'static, Option<Captures>> {
    ORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on each gateway that starts is listened to, until so much was said.
pub(crate) fn order(limit_mib: u64) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("portico-capture-").tempdir()?;
    *current() = Some(Captures { taken: Vec::new(), folder, limit_mib });
    Ok(())
}

/// What was captured since [`order`]; nobody is listened to any more.
pub(crate) fn collect() -> Option<Captures> {
    current().take()
}

/// Somebody who listens to one gateway; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Listening {
    running: Running,
    capture: Capture,
    said: PathBuf,
    is_local: bool,
}

/// Listens to a gateway on these ports, in this namespace if it is in one; `None` where nobody ordered it.
pub(crate) fn listen(namespace: Option<&Namespace>, ports: &[u16]) -> Result<Option<Listening>> {
    let (packets, said, limit_mib) = {
        let order = current();
        let Some(captures) = order.as_ref() else { return Ok(None) };
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = captures.folder.path();
        (folder.join(format!("{number}.pcapng")), folder.join(format!("{number}.log")), captures.limit_mib)
    };
    let mut command = match namespace {
        None => Command::new("nice"),
        Some(namespace) => namespace.command("nice"),
    };
    // Before everybody else: it does little, and what it has no time for is lost.
    command.args(["-n", "-20", "dumpcap"]);
    let interface = if namespace.is_some() { Namespace::DEVICE } else { "lo" };
    let filter: Vec<String> = ports.iter().map(|port| format!("tcp port {port}")).collect();
    command.args(["-q", "-i", interface, "-B", BUFFER_MIB, "-a", &format!("filesize:{}", limit_mib << 10)]);
    command.args(["-f", &filter.join(" or "), "-w"]).arg(&packets);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    let mut running = Running::start(&mut command)?;
    let start = Instant::now();
    // It opens the interface first, and then writes the head of its file.
    while !fs::metadata(&packets).is_ok_and(|file| file.len() > 0) {
        halt::go_on()?;
        if running.ended()?.is_some() || start.elapsed() > ENDING_LIMIT {
            let why = fs::read_to_string(&said).context(said.display())?;
            return Err(Failure::new(format!("dumpcap does not capture on {interface}: {why}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let capture = Capture { packets, ports: ports.to_vec(), lost: 0, is_cut: false };
    Ok(Some(Listening { running, capture, said, is_local: namespace.is_none() }))
}

impl Listening {
    /// Whether it is time for another capture: dumpcap's are 2 GiB long at most.
    pub(crate) fn is_long(&self) -> bool {
        fs::metadata(&self.capture.packets).is_ok_and(|file| file.len() > LONG_BYTES)
    }

    /// Waits until dumpcap has written what was said before now: a connection of ours to where the gateway is or was has to be in
    /// its file. On a guest's device nobody is left who could be spoken to; that ended long before its gateway.
    fn catch_up(&mut self) -> Result<()> {
        if !self.is_local {
            return Ok(());
        }
        let begin = fs::metadata(&self.capture.packets)?.len().saturating_sub(PORTS_BYTES as u64);
        let place = (Ipv4Addr::LOCALHOST, self.capture.ports[0]);
        // Somebody has to answer, and the gateway may be there still.
        let _answers = TcpListener::bind(place);
        let ours = TcpStream::connect(place)?.local_addr()?;
        let mut ports = [0; PORTS_BYTES];
        ports[..2].copy_from_slice(&ours.port().to_be_bytes());
        ports[2..].copy_from_slice(&self.capture.ports[0].to_be_bytes());
        let start = Instant::now();
        while self.running.ended()?.is_none() && start.elapsed() < ENDING_LIMIT {
            let mut file = File::open(&self.capture.packets)?;
            file.seek(SeekFrom::Start(begin))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            if end.windows(PORTS_BYTES).any(|bytes| bytes == ports) {
                return Ok(());
            }
            halt::pause(Duration::from_millis(50))?;
        }
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.catch_up();
        // It ends by itself when the capture is long enough. What does not end is killed with `running`.
        let is_cut = self.running.ended().is_ok_and(|ended| ended.is_some());
        let _ = self.running.signal(Signal::INT);
        let _ = self.running.wait(ENDING_LIMIT);
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        let mut capture = self.capture.clone();
        capture.is_cut = is_cut;
        // One that ends without its last words may have lost anything.
        capture.lost = lost(&said).unwrap_or(1);
        if let Some(captures) = current().as_mut() {
            captures.taken.push(capture);
        }
    }
}

/// `Packets received/dropped on interface 'lo': RECEIVED/DROPPED (…) (…%)`.
fn lost(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Packets received/dropped on interface"))?;
    let (_, counts) = line.rsplit_once("': ")?;
    counts.split_once('/')?.1.split_whitespace().next()?.parse().ok()
}

static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
/// What may come while dumpcap has no processor.
const BUFFER_MIB: &str = "256";
const LONG_BYTES: u64 = 512 << 20;
/// Of the source and the destination in a TCP header.
const PORTS_BYTES: usize = 4;
const ENDING_LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::lost;

    #[test]
    fn what_dumpcap_lost_is_in_its_last_line() {
        let said = "Capturing on 'Loopback: lo'\nFile: x\n\
                    Packets received/dropped on interface 'Loopback: lo': 48/3 (pcap:3/dumpcap:0/flushed:0/ps_ifdrop:0) (94.1%)\n";
        assert_eq!(lost(said), Some(3));
        assert_eq!(lost("Capturing on 'Loopback: lo'\n"), None);
    }
}
