//! SNACK: PDUs are sent again, or need to be kept no longer (RFC 7143 §11.16); recovery of data with a wrong digest (§7.8).

use portico_iscsi::session::Seat;
use portico_iscsi::sn::StatSn;
use portico_iscsi::violation::{SessionViolation, Violation};
use portico_iscsi::wire::{Snack, SnackType, TargetTransferTag};

use super::Core;
use crate::driver::Driver;
use crate::kept::Unserved;
use crate::outgoing::Rare;
use crate::session::{Link, Session};
use crate::slab::Key;
use crate::task::{Task, Verify, Work};

/// PDUs to be sent again that wait for their turn, after which no further SNACK is served until some have gone.
const AGAIN_MAX: usize = 256;

impl<D: Driver> Core<D> {
    /// A SNACK has come on a connection.
    ///
    /// # Errors
    /// What it asks for was never sent, was acknowledged, or is not kept; or too much is about to be sent again already.
    pub fn snack(
        &mut self,
        (session_key, seat): (Key<Session>, Seat),
        snack: &Snack,
    ) -> Result<(), Violation> {
        let refused = Violation::Session(SessionViolation::SnackNotServed);
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        let segment_bytes = session.wire.peer_segment_bytes_max(seat);
        let is_new = session.wire.task_by_itt(snack.initiator_task_tag).is_some();
        let Some(link) = session.link_mut(seat) else { return Err(refused) };
        let is_busy = link.outgoing.iter().filter(|entry| entry.is_again()).nth(AGAIN_MAX - 1).is_some();
        let Some(kept) = link.kept.as_mut().filter(|_| !is_busy || snack.kind == SnackType::DataAck) else {
            return Err(refused);
        };
        let tag = snack.initiator_task_tag;
        let again = match snack.kind {
            SnackType::Status => kept.statuses(StatSn(snack.run_begin), snack.run_length),
            // All of a command of which nothing has been sent is nothing.
            SnackType::DataOrR2t
                if is_new && (snack.run_begin, snack.run_length) == (0, 0) && !kept.knows(tag) =>
            {
                Ok(Vec::new())
            }
            SnackType::DataOrR2t => kept.run(tag, snack.run_begin, snack.run_length, segment_bytes),
            SnackType::DataAck => {
                // Of a read whose response is acknowledged nothing is kept any more, and a DataACK may still be on its way.
                kept.data_acknowledged(TargetTransferTag(snack.transfer_or_snack_tag), snack.run_begin);
                Ok(Vec::new())
            }
            SnackType::RData => {
                let snack_tag = snack.transfer_or_snack_tag;
                let resegmented = kept.resegment(tag, segment_bytes, snack_tag);
                if let Ok(resegmented) = &resegmented
                    && let Some(name) = session.wire.task_by_itt(tag)
                {
                    session.wire.resegmented(name, resegmented.next, snack_tag);
                }
                resegmented.map(|resegmented| resegmented.pdus)
            }
        };
        self.book_kept(session_key);
        let again = again.map_err(|unserved| match unserved {
            Unserved::OutOfRun => Violation::Session(SessionViolation::SnackOutOfRun),
            Unserved::NotKept => refused,
        })?;
        let link = self.sessions.get_mut(session_key).and_then(|session| session.link_mut(seat));
        if let Some(kept) = link.and_then(|link| link.kept.as_mut()) {
            kept.promise(&again);
        }
        for header in again {
            self.list_rare(session_key, seat, Rare::Again { header });
        }
        Ok(())
    }

    /// What the connections of a session keep is not what it was.
    pub(super) fn book_kept(&mut self, session: Key<Session>) {
        let session = self.sessions.get_mut(session).filter(|session| session.wire.recovers());
        let Some(session) = session else { return };
        let kept = session.links.iter_mut().flatten().filter_map(|link| link.kept.as_mut());
        kept.for_each(|kept| kept.book(&mut self.budget));
    }

    /// A connection is no longer there, nor what it kept.
    pub(super) fn unbook_kept(&mut self, link: &Link) {
        link.kept.iter().for_each(|kept| kept.unbook(&mut self.budget));
    }

    /// Where nothing of a write's data is on its way, what has been asked for is what the session says: less than before,
    /// where data were discarded for their digest.
    pub fn count_asked(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key).filter(|task| !task.aborted) else { return };
        let Some(session) = self.sessions.get(task.session) else { return };
        if !session.wire.recovers() || !session.wire.progress(task.name).is_settled {
            return;
        }
        let asked = session.wire.solicited_bytes(task.name);
        match &mut task.work {
            Work::Write(write) => write.called_bytes = asked,
            Work::Verify(Verify { compare: Some(compare), .. }) => compare.called_bytes = asked,
            _ => {}
        }
    }
}
