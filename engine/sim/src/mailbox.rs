//! A shard's mail in a simulated world: in order and never lost, as the threads' queues are; late, and sometimes full.

use std::sync::Arc;

use portico_model::identity::{Generation, SessionId, ShardId, UnitId};
use portico_model::message::{Install, ToControl, ToShard};
use portico_model::peer::PeerLetter;
use portico_scsi::ledger::Whom;
use portico_scsi::reservation::Reservation;
use portico_shard::turn::{Mail, Mailbox};

use crate::hub::{Hub, Shared};
use crate::plant::Plant;

/// One shard's ends.
#[derive(Debug)]
pub(crate) struct SimMailbox {
    shard: usize,
    hub: Shared,
    /// With the drain removed: what was answered in the shard's name.
    forged: Vec<(UnitId, Generation)>,
    /// The same of sessions that were told to end.
    ends_forged: Vec<SessionId>,
}

impl SimMailbox {
    pub(crate) const fn new(shard: usize, hub: Shared) -> Self {
        Self { shard, hub, forged: Vec::new(), ends_forged: Vec::new() }
    }
}

impl Hub {
    fn tell_control(&mut self, letter: ToControl) {
        tracing::debug!(now = self.now.0, ?letter, "to control");
        self.control_mail.push_back(letter);
        self.wake_control();
    }
}

impl Mailbox for SimMailbox {
    fn receive(&mut self) -> Option<Mail> {
        let hub = &mut *self.hub.borrow_mut();
        let mut letter = hub.desks[self.shard].letters.pop_front()?;
        if hub.plant == Some(Plant::CacheNotFlushed)
            && let ToShard::Install(install) = &mut letter
            && install.flush
        {
            *install = Arc::new(without_flush(install));
        }
        if let ToShard::Install(install) = &letter
            && forges(hub.plant, install)
        {
            let (unit, generation) = (install.unit, install.generation);
            self.forged.push((unit, generation));
            let shard = ShardId(u16::try_from(self.shard).expect("few shards"));
            hub.tell_control(ToControl::Installed { shard, unit, generation });
        }
        if let ToShard::EndSession { session, reason } = &letter
            && hub.plant == Some(Plant::ReinstatementNotDrained)
        {
            let (session, reason) = (*session, *reason);
            self.ends_forged.push(session);
            hub.tell_control(ToControl::SessionEnded { session, reason, orphans: Vec::new() });
        }
        Some(letter)
    }

    fn send(&mut self, mut letter: ToControl) -> Result<(), Box<ToControl>> {
        if let ToControl::Installed { unit, generation, .. } = &letter
            && self.forged.contains(&(*unit, *generation))
        {
            return Ok(());
        }
        if let ToControl::SessionEnded { session, .. } = &letter
            && self.ends_forged.contains(session)
        {
            return Ok(());
        }
        let hub = &mut *self.hub.borrow_mut();
        if hub.random.chance(1, 50) {
            return Err(Box::new(letter));
        }
        if hub.plant == Some(Plant::OrphanForgotten)
            && let ToControl::SessionEnded { orphans, .. } = &mut letter
        {
            orphans.clear();
        }
        hub.tell_control(letter);
        Ok(())
    }

    fn tell(&mut self, shard: ShardId, letter: PeerLetter) -> Result<(), PeerLetter> {
        let hub = &mut *self.hub.borrow_mut();
        if hub.random.chance(1, 50) {
            return Err(letter);
        }
        tracing::debug!(now = hub.now.0, %shard, ?letter, "to a peer");
        let shard = usize::from(shard.0);
        hub.desks[shard].letters.push_back(ToShard::Peer(letter));
        hub.wake_shard(shard);
        Ok(())
    }
}

/// Whether it is answered before it is done.
fn forges(plant: Option<Plant>, install: &Install) -> bool {
    match plant {
        Some(Plant::DrainRemoved) => true,
        Some(Plant::PreemptionNotDrained) => {
            // Not of a reset, which is found by what it aborts.
            matches!(install.state.reservation, Reservation::Persistent(_))
                && install.aborts != Some(Whom::All)
        }
        _ => false,
    }
}

fn without_flush(install: &Install) -> Install {
    Install {
        unit: install.unit,
        generation: install.generation,
        state: Arc::clone(&install.state),
        attentions: install.attentions.clone(),
        aborts: install.aborts.clone(),
        asker: install.asker,
        flush: false,
        orphans: Arc::clone(&install.orphans),
    }
}
