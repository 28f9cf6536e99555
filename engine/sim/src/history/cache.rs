//! What initiators know of a unit's write cache (WCE, SBC-3 §6.5.5), and what that promises.

use super::{End, History, Serial, Step};

/// WCE, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    On,
    Off,
    Unsure,
}

/// What is known of the cache of one unit.
#[derive(Debug)]
pub(super) struct Cache {
    /// How the unit comes up.
    default: Known,
    now: Known,
    /// Where it is off: a write that was asked for after this is stable when it is answered.
    since: Step,
    /// MODE SELECTs under way.
    open: Vec<Open>,
    /// When something was last asked or answered that may change it, a MODE SELECT in hand aside.
    stirred: Step,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    port: usize,
    session: Serial,
    asked: Step,
    before: Known,
}

impl Cache {
    pub(super) const fn new(on: bool) -> Self {
        let default = if on { Known::On } else { Known::Off };
        Self { default, now: default, since: 0, open: Vec::new(), stirred: 0 }
    }

    /// A write asked for at `invoked` and answered now is stable.
    pub(super) fn promises(&self, invoked: Step) -> bool {
        self.now == Known::Off && (self.since == 0 || self.since < invoked)
    }

    /// Something may change it that is no MODE SELECT.
    pub(super) fn unsettle(&mut self, now: Step) {
        self.stirred = now;
        // Who never changed it has the default, reset or not.
        if self.now != self.default || !self.open.is_empty() {
            self.now = Known::Unsure;
        }
    }

    pub(super) fn restart(&mut self, now: Step) {
        *self = Self { default: self.default, now: self.default, since: 0, open: Vec::new(), stirred: now };
    }

    fn take(&mut self, session: Serial, asked: Step) -> Open {
        let is_it = |open: &Open| open.session == session && open.asked == asked;
        let at = self.open.iter().position(is_it).expect("it was asked for");
        self.open.remove(at)
    }

    /// Whether nothing but the MODE SELECT of `asked` can have changed it since then.
    fn is_alone(&self, asked: Step) -> bool {
        self.open.is_empty() && self.stirred < asked
    }
}

impl History {
    /// MODE SELECT is on its way, with a WCE.
    pub(crate) fn cache_asked(&mut self, unit: usize, (port, session): (usize, Serial)) -> Step {
        let asked = self.step();
        let cache = &mut self.units[unit].cache;
        let before = if cache.open.is_empty() { cache.now } else { Known::Unsure };
        cache.open.push(Open { port, session, asked, before });
        cache.now = Known::Unsure;
        asked
    }

    /// GOOD for the MODE SELECT of `asked`. What was answered from a volatile cache before is stable, and so is what is
    /// answered from now on.
    pub(crate) fn cache_set(&mut self, unit: usize, session: Serial, asked: Step, on: bool) {
        let now = self.step();
        self.tally.mode_selects += 1;
        let state = &mut self.units[unit];
        let open = state.cache.take(session, asked);
        let sure = state.cache.is_alone(asked) && state.reserved.is_unreset_since(asked) && !state.has_left;
        state.cache.stirred = now;
        if !sure {
            return;
        }
        state.cache.now = if on { Known::On } else { Known::Off };
        state.cache.since = now;
        if !on && open.before == Known::On {
            state.cache.since = 0;
            for write in self.writes.values_mut() {
                write.durable |= write.unit == unit && write.certain && !write.forgiven;
            }
        }
    }

    /// The MODE SELECT of `asked` has ended otherwise. `refused`: it has surely changed nothing.
    pub(crate) fn cache_kept(&mut self, unit: usize, session: Serial, asked: Step, refused: bool) {
        let now = self.step();
        let cache = &mut self.units[unit].cache;
        let open = cache.take(session, asked);
        if refused && cache.is_alone(asked) {
            cache.now = open.before;
        } else {
            cache.stirred = now;
        }
    }

    /// The port has another session: what those before had asked for has been done, or will not be.
    pub(super) fn caches_are_left(&mut self, port: usize, session: Serial) {
        let now = self.step();
        for cache in self.units.iter_mut().map(|unit| &mut unit.cache) {
            let before = cache.open.len();
            cache.open.retain(|open| open.port != port || open.session == session);
            if cache.open.len() < before {
                cache.stirred = now;
            }
        }
    }

    /// The process is another one, and so is what it does.
    pub(super) fn unit_restarts(&mut self, unit: usize, end: End) {
        let now = self.step();
        let state = &mut self.units[unit];
        state.cache.restart(now);
        state.reserved.restart(end, now);
        state.persistent.restart(end, now);
    }
}
