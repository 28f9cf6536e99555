//! A shard's mail in a simulated world: in order and never lost, as the threads' queues are; late, and sometimes full.

use portico_model::identity::{Generation, ShardId, UnitId};
use portico_model::message::{ToControl, ToShard};
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
}

impl SimMailbox {
    pub(crate) const fn new(shard: usize, hub: Shared) -> Self {
        Self { shard, hub, forged: Vec::new() }
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
        let letter = hub.desks[self.shard].letters.pop_front()?;
        if hub.plant == Some(Plant::DrainRemoved)
            && let ToShard::Install(install) = &letter
        {
            let (unit, generation) = (install.unit, install.generation);
            self.forged.push((unit, generation));
            let shard = ShardId(u16::try_from(self.shard).expect("few shards"));
            hub.tell_control(ToControl::Installed { shard, unit, generation });
        }
        Some(letter)
    }

    fn send(&mut self, letter: ToControl) -> Result<(), Box<ToControl>> {
        if let ToControl::Installed { unit, generation, .. } = &letter
            && self.forged.contains(&(*unit, *generation))
        {
            return Ok(());
        }
        let hub = &mut *self.hub.borrow_mut();
        if hub.random.chance(1, 50) {
            return Err(Box::new(letter));
        }
        hub.tell_control(letter);
        Ok(())
    }
}
