//! TSIHs: the 16-bit handles by which initiators name their sessions (RFC 7143 §11.12.6).

use std::collections::BTreeMap;

use portico_iscsi::wire::Tsih;
use portico_model::identity::SessionId;

/// Handles there are: all but 0, which asks for a new session.
pub(crate) const HANDLES_MAX: usize = u16::MAX as usize;

/// Which handle stands for which session.
///
/// Handles go round: one that was given back is the last to be given out again, so that a late login for a session that
/// is gone does not hit its successor.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    sessions: BTreeMap<u16, SessionId>,
    last: u16,
}

impl Handles {
    /// The next free handle; `None` when all are taken.
    pub(crate) fn allocate(&mut self, session: SessionId) -> Option<Tsih> {
        if self.sessions.len() == HANDLES_MAX {
            return None;
        }
        // Ends: fewer than all 65,535 are taken.
        loop {
            self.last = if self.last == u16::MAX { 1 } else { self.last + 1 };
            if !self.sessions.contains_key(&self.last) {
                self.sessions.insert(self.last, session);
                return Some(Tsih(self.last));
            }
        }
    }

    /// Gives a handle back.
    pub(crate) fn release(&mut self, handle: Tsih) {
        let session = self.sessions.remove(&handle.0);
        assert!(session.is_some(), "a handle is given back once");
    }

    /// The session that a handle stands for.
    pub(crate) fn find(&self, handle: Tsih) -> Option<SessionId> {
        self.sessions.get(&handle.0).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_never_zero_and_never_two_sessions() {
        let mut handles = Handles::default();
        let mut seen = vec![false; HANDLES_MAX + 1];
        for session in 0..HANDLES_MAX {
            let handle = handles.allocate(SessionId(session as u64)).unwrap();
            assert!(!std::mem::replace(&mut seen[usize::from(handle.0)], true));
        }
        assert!(!seen[0]);
        assert_eq!(handles.allocate(SessionId(0)), None, "all are taken");
        handles.release(Tsih(4711));
        assert_eq!(handles.allocate(SessionId(7)), Some(Tsih(4711)));
        assert_eq!(handles.find(Tsih(4711)), Some(SessionId(7)));
    }

    #[test]
    fn a_handle_that_was_given_back_is_not_given_out_at_once() {
        let mut handles = Handles::default();
        let first = handles.allocate(SessionId(1)).unwrap();
        handles.release(first);
        assert_ne!(handles.allocate(SessionId(2)).unwrap(), first);
        assert_eq!(handles.find(first), None);
    }
}
