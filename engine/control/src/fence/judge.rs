//! What a request or an errand comes to: pure, on a clone of the original, so that nothing has changed until the ledger
//! is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_scsi::attention::UnitAttention;
use portico_scsi::ledger::{NexusName, Whom};
use portico_scsi::original::{Installment, Original};
use portico_scsi::reservation::NexusId;
use portico_scsi::sense::Outcome;

use super::request::{Errand, Request};

/// The original after something was done to it, and what is to be installed for it, if anything.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) original: Original,
    pub(super) installment: Option<Installment>,
    /// What those hear who wait for work that has ended.
    pub(super) verdict: Result<(), Outcome>,
}

/// Judges a request of an attached nexus.
///
/// # Errors
/// What its command ends with; nothing changes.
pub(super) fn request(original: &Original, nexus: NexusId, request: Request) -> Result<Judged, Outcome> {
    let mut original = original.clone();
    let installment = match request {
        Request::Change(change) => original.apply(change, nexus)?,
        Request::Reset => Some(original.reset(UnitAttention::LogicalUnitReset)),
    };
    Ok(Judged { original, installment, verdict: Ok(()) })
}

/// What an errand comes to, with these nexuses attached.
pub(super) fn errand(original: &Original, attached: &BTreeMap<NexusId, NexusName>, errand: Errand) -> Judged {
    let mut original = original.clone();
    let mut verdict = Ok(());
    let installment = match errand {
        Errand::Restored { mut ledger, .. } => {
            ledger.set_ports(Arc::clone(original.ledger().ports()));
            // The unit is not ready yet: what makes it so will tell the shards of the reservation, too.
            original = Original::new(original.unit().clone(), ledger);
            for (nexus, name) in attached {
                original.attach(*nexus, name.clone());
            }
            None
        }
        Errand::NexusFound(nexus, name) => original.attach(nexus, name),
        Errand::NexusLost(nexus) => original.nexus_lost(nexus),
        Errand::AbsentHolderLost => original.absent_holder_lost(),
        Errand::Device(readiness, attention) => original.device_is(readiness).map(|mut installment| {
            installment.attentions.extend(attention.map(|attention| (Whom::All, attention)));
            installment
        }),
        Errand::Reconfigured(unit) => original.reconfigure(&unit),
        Errand::Ports(ports) => original.set_ports(ports),
        Errand::Groups(groups) => original.set_target_port_groups(groups),
        Errand::Space(space) => original.space_is(space),
        Errand::WorkIsAt(progress) => original.work_is_at(progress),
        Errand::WorkEnded(well) => {
            let (outcome, installment) = original.work_ended(well);
            verdict = outcome;
            installment
        }
    };
    Judged { original, installment, verdict }
}
