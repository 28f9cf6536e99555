//! Child processes that cannot outlive us.
//!
//! Each child leads a process group of its own, which is killed as a whole when the child has ended or its guard is
//! dropped. What leaves its group (a daemon that calls setsid) becomes our child all the same, since we are a
//! subreaper, and [`end_stragglers`] ends it. Only processes that we started are ever signalled.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, set_child_subreaper, waitid,
};

use super::{Context, Result, halt};

/// A child and its process group; dropping it kills both.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    group: Pid,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` as the leader of a new process group.
    pub(crate) fn start(command: &mut Command) -> Result<Running> {
        halt::go_on()?;
        // Best effort: without it a daemonised grandchild goes to init instead of coming back to us.
        let _ = set_child_subreaper(Some(rustix::process::getpid()));
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).spawn().context(name)?;
        let group = Pid::from_child(&child);
        Ok(Running { child, group, ended: None })
    }

    /// The child's standard output, where it was piped, once.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Its process id, for /proc.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            // It cannot have been reaped, so the id is still its own.
            kill_process(self.group, signal).context("signal")?;
        }
        Ok(())
    }

    /// Its status if it has ended, which also ends what is left of its group.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let seen = waitid(WaitId::Pid(self.group), peek).context("waitid")?;
            if seen.is_some() {
                self.reap()?;
            }
        }
        Ok(self.ended)
    }

    /// Waits until the child ends, `limit` has passed (`None`), or we are told to stop (`Err`).
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            halt::go_on()?;
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks the child to end (SIGTERM) and waits for it; `None` if it did not, and was killed.
    pub(crate) fn terminate(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.signal(Signal::TERM)?;
        let status = self.wait(limit)?;
        if status.is_none() {
            self.reap()?;
        }
        Ok(status)
    }

    /// Kills the whole group and waits for the child.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if self.ended.is_none() { self.reap() } else { Ok(()) }
    }

    /// Kills the group while its leader is not reaped (until then no one else can get its id), then reaps it and,
    /// since orphans become our children, all others of the group.
    fn reap(&mut self) -> Result<()> {
        let _ = kill_process_group(self.group, Signal::KILL);
        self.ended = Some(self.child.wait().context("wait")?);
        while waitid(WaitId::Pgid(Some(self.group)), WaitIdOptions::EXITED).is_ok() {}
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.reap();
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal that was not ours.
    Killed(i32),
    /// By us, when its time was over.
    TimedOut,
}

/// A command that has ended, and what it wrote to standard output and standard error, in order.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) end: End,
    pub(crate) output: String,
}

impl Finished {
    /// Whether it ended by itself with exit code 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// `Err` with the end of its output unless it succeeded.
    pub(crate) fn expect_success(self, what: &str) -> Result<String> {
        if self.succeeded() {
            return Ok(self.output);
        }
        let lines: Vec<&str> = self.output.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Err(super::Failure::new(format!("{what}: {:?}\n{tail}", self.end)))
    }
}

/// Runs a command to its end, or kills it after `limit`. Its input is empty.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let mut file = tempfile::tempfile()?;
    let end = run_into(command, limit, &file)?;
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Finished { end, output: String::from_utf8_lossy(&bytes).into_owned() })
}

/// As [`run`], with the output going to the end of `file`.
pub(crate) fn run_into(command: &mut Command, limit: Duration, file: &File) -> Result<End> {
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    let mut running = Running::start(command)?;
    Ok(match running.wait(limit)? {
        None => End::TimedOut,
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Killed(signal.unwrap_or(0)),
        },
    })
}

/// Kills what is still our child although its guard is gone: daemons that left their group. Called last.
pub(crate) fn end_stragglers() {
    for _ in 0..STRAGGLER_ROUNDS_MAX {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            let _ = kill_process(child, Signal::KILL);
            let _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
        }
    }
}

/// The processes whose parent we are. A daemon's own children become ours when it has ended.
fn children() -> Vec<Pid> {
    let ours = rustix::process::getpid().as_raw_nonzero().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| parent(*id).is_ok_and(|parent| parent == ours))
        .filter_map(Pid::from_raw)
        .collect()
}

/// The second field after the closing parenthesis of the name in /proc/PID/stat, see proc(5).
fn parent(id: i32) -> io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    Ok(after_name.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);
const TAIL_LINES: usize = 40;
/// The most output of one command that is kept; the suites under test write a few MiB.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
const STRAGGLER_ROUNDS_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn is_alive(id: &str) -> bool {
        // A zombie has been killed, and waits for its parent only.
        fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
    }

    #[test]
    fn both_streams_are_kept_in_order_and_the_code_is_told() {
        let finished =
            run(&mut shell("echo a; echo b >&2; echo c; exit 3"), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.end, End::Exited(3));
        assert_eq!(finished.output, "a\nb\nc\n");
    }

    #[test]
    fn a_command_that_exceeds_its_time_is_killed_with_all_that_it_started() {
        let finished = run(&mut shell("sleep 60 & echo $!; wait"), Duration::from_millis(300)).unwrap();
        assert_eq!(finished.end, End::TimedOut);
        let id = finished.output.trim();
        assert!(!id.is_empty() && !is_alive(id), "the grandchild {id} is still there");
    }

    #[test]
    fn what_a_command_leaves_behind_in_its_group_ends_with_it() {
        let finished = run(&mut shell("sleep 60 & echo $!"), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.end, End::Exited(0));
        assert!(!is_alive(finished.output.trim()));
    }

    #[test]
    fn a_command_that_dies_of_a_signal_is_told_from_one_that_exits() {
        let finished = run(&mut shell("kill -SEGV $$"), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.end, End::Killed(11));
    }

    #[test]
    fn a_process_that_heeds_sigterm_ends_with_its_own_status() {
        let mut running = Running::start(
            shell("trap 'exit 7' TERM; echo; while :; do sleep 0.01; done").stdout(Stdio::piped()),
        )
        .unwrap();
        let mut byte = [0];
        running.stdout().unwrap().read_exact(&mut byte).unwrap();
        let status = running.terminate(Duration::from_secs(10)).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(7));
    }
}
