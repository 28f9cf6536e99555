//! Making a lost session again, with all of its connections, on a thread of its own: connecting and logging in block, and nobody
//! else shall wait for that.
//!
//! The session has the ISID that it had, so that a target that still holds the old one ends that first (RFC 7143 §6.3.5).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use portico_iscsi::initiator::{LoginPlan, Session};
use portico_iscsi::wire::{Cid, LunField, Tsih};

use crate::link::{Link, Strictness};

/// From the first attempt to the second; each later one comes after twice the time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest time between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a session is made.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) portal: SocketAddr,
    pub(crate) login: LoginPlan,
    pub(crate) lun: LunField,
    /// Commands that it has room for.
    pub(crate) commands: u16,
    pub(crate) strictness: Strictness,
}

impl Recipe {
    /// Logs in and waits until the unit is ready.
    ///
    /// # Errors
    /// Why there is no session.
    pub(crate) fn make(self) -> Result<Link, String> {
        let mut link = Link::log_in(self.portal, self.login, self.commands, self.strictness, None)?;
        link.make_ready(self.lun)?;
        Ok(link)
    }
}

impl Recipe {
    /// Adds connection `cid` to a session; the unit is ready.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) fn join(self, first: &Session, tsih: Tsih, cid: u16) -> Result<Link, String> {
        let mut login = LoginPlan { tsih, cid: Cid(cid), first_cmd_sn: first.next_cmd_sn(), ..self.login };
        login.offer = login.offer.of_a_connection();
        Link::log_in(self.portal, login, self.commands, self.strictness, Some(first))
    }
}

/// The connections of a session, the leading one first.
///
/// # Errors
/// Why there is no session, or not all of it.
fn make_all(recipes: &[Recipe]) -> Result<Vec<Link>, String> {
    let mut links: Vec<Link> = Vec::with_capacity(recipes.len());
    for (cid, recipe) in (0..).zip(recipes) {
        let link = match links.first() {
            None => recipe.clone().make(),
            Some(first) => recipe.clone().join(first.session(), first.tsih(), cid),
        };
        links.push(link?);
    }
    Ok(links)
}

/// A session that is being made. Dropped, it is given up.
#[derive(Debug)]
pub(crate) struct Attempt {
    outcome: Receiver<Result<Vec<Link>, String>>,
    is_given_up: Arc<AtomicBool>,
}

impl Attempt {
    /// Tries until it succeeds or that time is over.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(crate) fn start(recipes: Vec<Recipe>, until: Instant) -> Result<Self, String> {
        let (sender, outcome) = sync_channel(1);
        let is_given_up = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&is_given_up);
        let work = move || {
            let mut pause = PAUSE_MIN;
            while !given_up.load(Ordering::SeqCst) {
                let made = make_all(&recipes);
                if made.is_ok() || Instant::now() >= until {
                    // Nobody may want it any more.
                    let _ = sender.send(made);
                    return;
                }
                thread::sleep(pause);
                pause = (2 * pause).min(PAUSE_MAX);
            }
        };
        let spawned = thread::Builder::new().name("reconnect".to_owned()).spawn(work);
        spawned.map_err(|error| format!("no thread to reconnect: {error}"))?;
        Ok(Self { outcome, is_given_up })
    }

    /// The session's connections, or why there are none; `None`: not yet.
    pub(crate) fn poll(&self) -> Option<Result<Vec<Link>, String>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the attempt to reconnect has failed".to_owned())),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.is_given_up.store(true, Ordering::SeqCst);
    }
}
