//! Threads that may block, so that control never does.
//!
//! Work on the data folder is shared by a few threads. Opening and closing a device gets a thread of its own, so that one
//! that hangs stops nothing else, up to [`LONE_MAX`] at a time; more wait. Surveys of pools, which come again and again, have
//! threads of their own: a file system that hangs takes those, and nothing else has to wait.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded};
use portico_model::configuration::DEVICES_MAX;

/// Threads that open or close a device at the same time.
pub(super) const LONE_MAX: usize = 64;
/// Threads that read and write ledgers.
const SHARED_THREADS: usize = 4;
/// Ledgers that may wait: of each unit one is read or written at a time, and units that are on their way out count
/// beside those of the configuration.
const SHARED_MAX: usize = 4 * DEVICES_MAX;

/// Threads that ask what a pool has left.
const SURVEY_THREADS: usize = 2;
/// Surveys that may wait: of each unit there is one at a time, as of ledgers.
const SURVEYS_MAX: usize = SHARED_MAX;

type Job = Box<dyn FnOnce() + Send>;

/// The helper threads of one control.
pub(super) struct Helpers {
    shared: Sender<Job>,
    surveys: Sender<Job>,
    waiting: VecDeque<Job>,
    running: usize,
    done: Arc<dyn Fn() + Send + Sync>,
}

impl Helpers {
    /// The threads; `done` is called by each lone one at its end.
    pub(super) fn new(done: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let shared = in_turn("ledgers", SHARED_THREADS, SHARED_MAX)?;
        let surveys = in_turn("surveys", SURVEY_THREADS, SURVEYS_MAX)?;
        Ok(Self { shared, surveys, waiting: VecDeque::new(), running: 0, done: Arc::new(done) })
    }

    /// Does something that takes a while, in turn with others of its kind.
    pub(super) fn shared(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.send(Box::new(job)).expect("the threads live as long as their queue");
    }

    /// Asks what a pool has left, in turn with others. Where so many hang that no more may wait, nobody asks.
    pub(super) fn survey(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.surveys.try_send(Box::new(job));
    }

    /// Does something that may hang, on a thread of its own.
    pub(super) fn lone(&mut self, job: impl FnOnce() + Send + 'static) {
        self.waiting.push_back(Box::new(job));
        self.start();
    }

    /// One of the lone threads has ended.
    pub(super) fn one_done(&mut self) {
        self.running -= 1;
        self.start();
    }

    fn start(&mut self) {
        while self.running < LONE_MAX {
            let Some(job) = self.waiting.pop_front() else { return };
            let done = Arc::clone(&self.done);
            self.running += 1;
            let worker = move || {
                job();
                done();
            };
            if let Err(error) = thread::Builder::new().name("device".into()).spawn(worker) {
                // The job is lost with the attempt: without threads a gateway cannot go on.
                panic!("no thread for a device: {error}");
            }
        }
    }
}

/// So many threads that do one job after the other, until the sender is gone.
fn in_turn(name: &str, threads: usize, jobs_max: usize) -> std::io::Result<Sender<Job>> {
    let (sender, jobs) = bounded::<Job>(jobs_max);
    for _ in 0..threads {
        let jobs = jobs.clone();
        thread::Builder::new().name(name.into()).spawn(move || jobs.iter().for_each(|job| job()))?;
    }
    Ok(sender)
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers")
            .field("running", &self.running)
            .field("waiting", &self.waiting.len())
            .finish()
    }
}
