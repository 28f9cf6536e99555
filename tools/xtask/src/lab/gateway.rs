//! The gateway alone, with a configuration that the harness writes: for what no peer can be compared in (reload,
//! kill, shards, metrics, memory).

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::initiator::{self, Initiator};
use super::namespace::Namespace;
use super::process::Running;
use super::target::portico::{addresses, announcement};
use super::wiretap::{self, Listening};
use super::{Context, Failure, Result, http};
use crate::tree::Tree;

/// The name of the target that [`configuration`] writes.
pub(crate) const IQN: &str = "iqn.2026-11.test:gateway";

/// A device of a configuration, which is also the LUN of its place in the list.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// HANDLER
    pub(crate) handler: &'static str,
    /// DEVICE
    pub(crate) name: &'static str,
    /// Its attributes, each a line.
    pub(crate) attributes: Vec<String>,
}

/// An scst.conf with one target, whose LUNs are these devices in their order.
pub(crate) fn configuration(devices: &[Device]) -> String {
    let maps: Vec<(usize, &str)> = devices.iter().map(|device| device.name).enumerate().collect();
    configuration_with(devices, &maps, &[])
}

/// An scst.conf with these devices, and one target with these LUNs and attributes.
pub(crate) fn configuration_with(devices: &[Device], luns: &[(usize, &str)], attributes: &[&str]) -> String {
    let mut text = String::new();
    let mut handlers: Vec<&str> = devices.iter().map(|device| device.handler).collect();
    handlers.sort_unstable();
    handlers.dedup();
    for handler in handlers {
        text.push_str(&format!("HANDLER {handler} {{\n"));
        for device in devices.iter().filter(|device| device.handler == handler) {
            text.push_str(&format!("\tDEVICE {} {{\n", device.name));
            for line in &device.attributes {
                text.push_str(&format!("\t\t{line}\n"));
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
    }
    text.push_str(&format!("TARGET_DRIVER iscsi {{\n\tenabled 1\n\tTARGET {IQN} {{\n"));
    for (lun, name) in luns {
        text.push_str(&format!("\t\tLUN {lun} {name}\n"));
    }
    for attribute in attributes {
        text.push_str(&format!("\t\t{attribute}\n"));
    }
    text.push_str("\t\tenabled 1\n\t}\n}\n");
    text
}

/// One porticod on a free port of loopback, with a folder of its own. The process ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    running: Option<Running>,
    /// Who listens to it, if anybody.
    listening: Option<Listening>,
    portal: SocketAddr,
    metrics: SocketAddr,
    /// The program to run, and what it is told besides the configuration.
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: TempDir,
    /// Where it runs, if not on this machine's loopback.
    namespace: Option<Namespace>,
}

impl Gateway {
    /// The gateway as `cargo build --release` made it, not yet started.
    pub(crate) fn prepare(tree: &Tree) -> Result<Gateway> {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Gateway {
            running: None,
            listening: None,
            portal: nowhere,
            metrics: nowhere,
            program: tree.target.join("release/porticod"),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: tempfile::Builder::new().prefix("portico-lab-").tempdir()?,
            namespace: None,
        })
    }

    /// Runs another program than the one in the build folder.
    pub(crate) fn program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Passes further words.
    pub(crate) fn argue(&mut self, words: &[&str]) {
        self.arguments.extend(words.iter().map(|word| (*word).to_owned()));
    }

    /// Sets a variable of its environment.
    pub(crate) fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its folder, for media and logs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it listens: the port that it found, and those that it was told.
    fn ports(&self) -> Vec<u16> {
        let told = self.arguments.windows(2).filter(|pair| pair[0] == "--portal");
        let told = told.filter_map(|pair| Some(pair[1].parse::<SocketAddr>().ok()?.port()));
        std::iter::once(self.portal.port()).chain(told.filter(|port| *port != 0)).collect()
    }

    /// Its configuration file.
    pub(crate) fn configuration_file(&self) -> PathBuf {
        self.folder.path().join("scst.conf")
    }

    /// Writes the configuration. A running gateway reads it at the next [`Gateway::reload`].
    pub(crate) fn configure(&self, text: &str) -> Result<()> {
        let file = self.configuration_file();
        fs::write(&file, text).context(file.display())
    }

    /// It is to run in this namespace, and to listen there. Its pages are out of our reach then.
    pub(crate) fn enter(&mut self, namespace: Namespace) {
        self.namespace = Some(namespace);
    }

    /// Starts the process, and waits until it is ready.
    pub(crate) fn start(&mut self) -> Result<()> {
        let (mut command, address) = match &self.namespace {
            None => (Command::new(&self.program), "127.0.0.1".to_owned()),
            Some(namespace) => {
                (namespace.command(&self.program.to_string_lossy()), Namespace::HOST.to_string())
            }
        };
        command.arg("--config").arg(self.configuration_file());
        command.arg("--data").arg(self.folder.path().join("data"));
        command.args(["--portal", &format!("{address}:0"), "--metrics", "127.0.0.1:0"]).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log))?;
        let said = announcement(&mut running)
            .map_err(|why| Failure::new(format!("porticod: {why}{}", self.last_words())))?;
        (self.portal, self.metrics) = addresses(&said)?;
        self.running = Some(running);
        self.listening = wiretap::listen(self.namespace.as_ref(), &self.ports())?;
        Ok(())
    }

    /// SIGTERM: it has to end by itself with status 0.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let status = running.terminate(STOP_LIMIT)?;
        self.listening = None;
        match status {
            Some(status) if status.success() => Ok(()),
            status => {
                let how = status.map_or("not at all".to_owned(), |status| status.to_string());
                Err(Failure::new(format!("after SIGTERM it ended: {how}{}", self.last_words())))
            }
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let killed = self.running.take().map_or(Ok(()), |mut running| running.kill());
        self.listening = None;
        killed
    }

    /// SIGSTOP or SIGCONT: it stands still, or goes on.
    pub(crate) fn stand_still(&self, still: bool) -> Result<()> {
        let running = self.running.as_ref().ok_or_else(|| Failure::new("porticod is not running"))?;
        let pid = i32::try_from(running.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new("porticod has no pid"))?;
        kill_process(pid, if still { Signal::STOP } else { Signal::CONT }).context("signal")
    }

    /// SIGUSR1.
    pub(crate) fn ask_for_allocations(&mut self) -> Result<()> {
        self.process()?.signal(Signal::USR1)
    }

    /// SIGHUP: it reads its configuration again, in its own time.
    pub(crate) fn reload(&mut self) -> Result<()> {
        self.process()?.signal(Signal::HUP)
    }

    /// Waits until a logical unit answers TEST UNIT READY with GOOD: the gateway is ready before its devices are open.
    pub(crate) fn wait_until_ready(&self, lun: u8) -> Result<()> {
        let start = Instant::now();
        let mut initiator = Initiator::log_in(self.portal, initiator::plan(IQN, READY_NUMBER))?;
        while let Err(failure) = initiator.clear_attentions(lun) {
            if start.elapsed() > STOP_LIMIT {
                return Err(failure);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where initiators find it.
    pub(crate) fn portal(&self) -> SocketAddr {
        self.portal
    }

    /// A page of its HTTP server.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        http::get(self.metrics, path)
    }

    /// A metric, summed up over all of its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let page = self.page("/metrics")?;
        sum(&page, name).ok_or_else(|| Failure::new(format!("no metric {name}")))
    }

    /// A line of /proc/PID/status in KiB, as VmRSS.
    pub(crate) fn status_kib(&mut self, name: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process()?.id()))?;
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
            })
            .ok_or_else(|| Failure::new(format!("no {name} in /proc/PID/status")))
    }

    /// For /proc.
    pub(crate) fn process_id(&mut self) -> Result<u32> {
        Ok(self.process()?.id())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&mut self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.process()?.id()))?.count())
    }

    /// `Err` if the process has ended, or said that one of its threads panicked.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process()?.ended()? {
            return Err(Failure::new(format!("porticod died with {status}{}", self.last_words())));
        }
        if self.log().contains("panicked at") {
            return Err(Failure::new(format!("porticod panicked{}", self.last_words())));
        }
        Ok(())
    }

    /// All that it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn process(&mut self) -> Result<&mut Running> {
        self.running.as_mut().ok_or_else(|| Failure::new("porticod is not running"))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("porticod.log")
    }

    /// The end of its log, to be put behind a failure's sentence.
    fn last_words(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        format!("; its last words:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

/// The sum of a metric's samples; `None` where the page has none.
pub(crate) fn sum(page: &str, name: &str) -> Option<u64> {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once("} ")?.1,
            // No labels, or `name` has them all.
            None => rest.strip_prefix(' ')?,
        };
        value.parse::<u64>().ok()
    });
    samples.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
}

/// How long the gateway may take to finish what is in flight and to flush.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const LOG_LINES: usize = 20;
/// Of the initiator that asks whether units are ready.
const READY_NUMBER: u16 = 98;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels_and_no_other() {
        let page = "# HELP a_total x\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\na_total_b 9\nc 5\n";
        assert_eq!(sum(page, "a_total"), Some(7));
        assert_eq!(sum(page, "a_total{shard=\"1\"}"), Some(4));
        assert_eq!(sum(page, "c"), Some(5));
        assert_eq!(sum(page, "d"), None);
    }

    #[test]
    fn devices_of_one_handler_share_its_section() {
        let device = |handler, name| Device { handler, name, attributes: vec!["size 4096".to_owned()] };
        let text =
            configuration(&[device("vdisk_ram", "a"), device("vdisk_nullio", "b"), device("vdisk_ram", "c")]);
        assert_eq!(text.matches("HANDLER vdisk_ram {").count(), 1);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(text.contains("\t\tLUN 2 c\n"));
    }
}
