//! What initiators are told without having asked: unit attentions that the next command hears, and SCSI events that do not
//! wait for one (RFC 7143 §11.9.1, event 0). Events are the quicker way to the same news, and never the only one: an
//! initiator that does not listen, or whose connection has no room for them, hears the unit attention.

use portico_iscsi::session::Seat;
use portico_iscsi::wire::LunField;
use portico_model::message::Install;
use portico_scsi::attention::UnitAttention;
use portico_scsi::lun::Lun;
use portico_scsi::sense::SenseFormat;

use super::Core;
use crate::driver::Driver;
use crate::outgoing::Rare;
use crate::session::Session;
use crate::slab::Key;
use crate::unit::Unit;

/// PDUs that wait to be sent on a connection, beyond which events are left to the unit attentions: who reads nothing costs no
/// more than that, however often things change.
const EVENT_BACKLOG_MAX: usize = 1024;

impl<D: Driver> Core<D> {
    /// Queues the unit attentions of an Install, and sends the events that go with them.
    pub(super) fn attract_attention(&mut self, unit: Key<Unit>, install: &Install) {
        if install.attentions.is_empty() {
            return;
        }
        let format = install.state.sense_format();
        let mut events = Vec::new();
        for (key, session) in self.sessions.iter_mut() {
            let nexus = session.nexus;
            let due = || install.attentions.iter().filter(|(scope, _)| scope.includes(nexus));
            for (at, state) in session.luns.iter_mut().enumerate().filter(|(_, state)| state.unit == unit) {
                for (_, attention) in due() {
                    state.nexus.establish(*attention);
                    events.push((key, session.spelt[at], *attention));
                }
            }
        }
        for (session, lun, attention) in events {
            self.send_event(session, lun, attention, format);
        }
    }

    /// Another LUN inventory: an event of the session, which is told by the first of its LUNs (SPC-4 §6.33).
    pub(super) fn announce_inventory(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get(key) else { return };
        let lun = session.spelt.first().copied().unwrap_or(Lun::REPORT_LUNS);
        self.send_event(key, lun, UnitAttention::ReportedLunsChanged, SenseFormat::default());
    }

    fn send_event(&mut self, key: Key<Session>, lun: Lun, attention: UnitAttention, format: SenseFormat) {
        let Some(session) = self.sessions.get(key) else { return };
        // Any of its connections will do.
        let Some((seat, link)) = Seat::all().find_map(|seat| Some((seat, session.link(seat)?))) else {
            return;
        };
        if !attention.is_event() || !session.service.events || link.outgoing.len() >= EVENT_BACKLOG_MAX {
            return;
        }
        let sense = attention.sense().encode(format);
        let length = u16::try_from(sense.as_bytes().len()).expect("sense data is short");
        let data = [&length.to_be_bytes()[..], sense.as_bytes()].concat();
        self.list_rare(key, seat, Rare::Event { lun: LunField(lun.to_bytes()), data });
    }
}
