//! Whether a login becomes a session, where, and what it sees (RFC 7143 §6.3, §11.13.5).
//!
//! The shard that accepted the connection has led the login up to its last response and has looked the target up by
//! itself, in the configuration that it had then; here it is judged by the one in force now.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portico_iscsi::login::{Completed, SessionType};
use portico_iscsi::moment::Moment;
use portico_iscsi::wire::{LoginStatus, Tsih};
use portico_model::configuration::{Target, User};
use portico_model::identity::{SessionId, TargetId};
use portico_model::lun_map::{LunEntry, LunMap};
use portico_model::message::{Adoption, EndReason, LoginQuestion, Orphan, Refusal, Service, ToShard};
use portico_scsi::attention::UnitAttention;
use portico_scsi::ledger::NexusName;

use super::{Control, Order, Orders, Stage};
use crate::fence::Errand;
use crate::registry::{Ending, Grant, nexus_name};

/// How long a discovery session may be silent before it ends: it is short-lived (RFC 7143 §7.4), and an initiator that is gone
/// without a word would keep one for ever.
const DISCOVERY_SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a login that may be is granted.
struct Terms {
    initiator: Arc<str>,
    name: NexusName,
    target: Option<TargetId>,
    map: Arc<LunMap>,
    service: Service,
}

impl<M: Clone> Control<M> {
    /// A login is complete but for its final response.
    pub(super) fn login(&mut self, question: Box<LoginQuestion>, now: Moment, orders: &mut Orders<M>) {
        let terms = match self.judge_login(&question) {
            Ok(terms) => terms,
            Err(status) => return self.refuse(question, status, orders),
        };
        if question.completed.tsih != Tsih::NEW {
            return self.send_home(question, &terms.name, orders);
        }
        match self.registry.of_nexus(&terms.name) {
            Some(before) => self.reinstate(before, question, orders),
            None => self.grant(question, terms, now, orders),
        }
    }

    fn judge_login(&self, question: &LoginQuestion) -> Result<Terms, LoginStatus> {
        let completed = &question.completed;
        if self.stage != Stage::Serving {
            return Err(LoginStatus::SERVICE_UNAVAILABLE);
        }
        let initiator = normalised(&completed.initiator_name);
        let isid = completed.isid.0;
        if completed.session_type == SessionType::Discovery {
            if completed.tsih != Tsih::NEW {
                // §4.3: a discovery session has one connection.
                return Err(LoginStatus::SESSION_DOES_NOT_EXIST);
            }
            prove(&self.configuration.iscsi.incoming_users, completed)?;
            let service = Service {
                queued_commands: u32::from(completed.queued_commands),
                nop_in_interval: DISCOVERY_SILENCE_MAX,
                nop_in_timeout: Duration::ZERO,
                response_timeout: Duration::ZERO,
                events: false,
            };
            let named = completed.target_name.as_deref();
            let tag = self.configuration.portal_group_tag(question.local);
            let name = nexus_name(&initiator, isid, &discovery_port(named, question.local), tag);
            return Ok(Terms { initiator, name, target: None, map: Arc::default(), service });
        }
        let (id, target) = completed
            .target_name
            .as_deref()
            .and_then(|name| self.configuration.target(name))
            .and_then(|target| Some((*self.target_ids.get(&target.name)?, target)))
            .ok_or(LoginStatus::NOT_FOUND)?;
        let portal = question.local.ip().to_canonical();
        if !target.allows_portal(portal) {
            return Err(LoginStatus::NOT_FOUND);
        }
        let map = self.map_of(target, &initiator, portal).ok_or(LoginStatus::AUTHORIZATION_FAILURE)?;
        prove(&target.incoming_users, completed)?;
        if !self.configuration.serves(target) {
            return Err(LoginStatus::SERVICE_UNAVAILABLE);
        }
        let name = nexus_name(&initiator, isid, target.name.as_str(), completed.portal_group_tag);
        // A session that is to be reinstated, or joined, does not count against the limit.
        let full = target.max_sessions.is_some_and(|max| self.registry.count_of(id) >= max as usize);
        if full && self.registry.of_nexus(&name).is_none() {
            return Err(LoginStatus::OUT_OF_RESOURCES);
        }
        Ok(Terms { initiator, name, target: Some(id), map, service: service_of(target) })
    }

    /// A connection that names a session joins it (§6.3.1, §11.12.6), or takes the place of one of its connections: which, and
    /// whether there is room, is known at the session's home.
    fn send_home(&mut self, question: Box<LoginQuestion>, name: &NexusName, orders: &mut Orders<M>) {
        let found = self.registry.of_handle(question.completed.tsih);
        match found.filter(|(_, session)| session.name() == name && session.ending.is_none()) {
            Some((id, session)) => {
                self.counters.logins_granted += 1;
                orders.push(Order::ToShard(session.shard, ToShard::Join { session: id, question }));
            }
            None => self.refuse(question, LoginStatus::SESSION_DOES_NOT_EXIST, orders),
        }
    }

    fn refuse(&mut self, question: Box<LoginQuestion>, status: LoginStatus, orders: &mut Orders<M>) {
        self.counters.logins_refused += 1;
        let shard = question.shard;
        orders
            .push(Order::ToShard(shard, ToShard::Refuse(Box::new(Refusal { status, question: *question }))));
    }

    /// Session reinstatement (§6.3.5): the session of the same nexus ends first, whatever it is doing.
    fn reinstate(&mut self, before: SessionId, question: Box<LoginQuestion>, orders: &mut Orders<M>) {
        let session = self.registry.session_mut(before).expect("it was just found");
        match &mut session.ending {
            Some(ending) => {
                // Two logins of one port at the same time: the later one is what the initiator wants now.
                if let Some(earlier) = ending.successor.replace(question) {
                    self.refuse(earlier, LoginStatus::TARGET_ERROR, orders);
                }
            }
            None => {
                let reason = EndReason::Reinstated;
                session.ending = Some(Ending { successor: Some(question) });
                orders.push(Order::ToShard(session.shard, ToShard::EndSession { session: before, reason }));
                self.counters.sessions_reinstated += 1;
            }
        }
    }

    fn grant(&mut self, question: Box<LoginQuestion>, terms: Terms, now: Moment, orders: &mut Orders<M>) {
        let Terms { initiator, name, target, map, service } = terms;
        let shard = self.registry.place(target, question.shard);
        let portal = question.local.ip().to_canonical();
        let (peer, map_of_session) = (question.peer, Arc::clone(&map));
        let grant = Grant { target, initiator, name: name.clone(), peer, portal, map: map_of_session, shard };
        let Some(id) = self.registry.enter(grant) else {
            return self.refuse(question, LoginStatus::OUT_OF_RESOURCES, orders);
        };
        let session = self.registry.session(id).expect("it was just entered");
        let (nexus, tsih) = (session.nexus, session.tsih);
        let seen = self.registry.nexuses.was_here_before(&name);
        let mut greeting = if seen { UnitAttention::NexusLoss } else { UnitAttention::PowerOn };
        for unit in units_of(&map) {
            let unit_state = self.units.get_mut(&unit).expect("a map has units that are open");
            unit_state.users += 1;
            if unit_state.known_before {
                greeting = UnitAttention::NexusLoss;
            }
            self.registry.nexuses.hold_again(nexus);
            self.errand(unit, Errand::NexusFound(nexus, name.clone()), now, orders);
        }
        self.counters.logins_granted += 1;
        let adoption =
            Adoption { session: id, nexus, tsih, target, map, greeting, service, question: *question };
        orders.push(Order::ToShard(shard, ToShard::Adopt(Box::new(adoption))));
    }

    /// A session is over on its home shard.
    pub(super) fn session_ended(
        &mut self,
        id: SessionId,
        reason: EndReason,
        orphans: &[Orphan],
        now: Moment,
        orders: &mut Orders<M>,
    ) {
        // Every shard is to know of the orphans before anything that the initiator can do next.
        self.orphaned(orphans, now, orders);
        let Some(session) = self.registry.leave(id) else { return };
        for unit in units_of(&session.map) {
            self.units.get_mut(&unit).expect("a map has units that are open").users -= 1;
            self.errand(unit, Errand::NexusLost(session.nexus), now, orders);
        }
        if reason == EndReason::ColdReset && session.ending.is_none() {
            self.reset_target(session.target, orders);
        }
        if let Some(successor) = session.ending.and_then(|ending| ending.successor) {
            self.login(successor, now, orders);
        }
        self.advance(now, orders);
    }

    /// TARGET COLD RESET ends every session of the target (RFC 7143 §11.5.1), on whichever shard.
    fn reset_target(&mut self, target: Option<TargetId>, orders: &mut Orders<M>) {
        let others: Vec<SessionId> = self
            .registry
            .iter()
            .filter(|(_, session)| session.target == target && session.ending.is_none())
            .map(|(id, _)| id)
            .collect();
        for id in others {
            self.end_session(id, EndReason::ColdReset, orders);
        }
    }

    /// What an initiator sees of a target at a portal; `None` if nothing.
    pub(super) fn map_of(&self, target: &Target, initiator: &str, portal: IpAddr) -> Option<Arc<LunMap>> {
        let luns = target.luns_for(initiator, portal)?;
        let entries = luns.iter().filter_map(|mapping| {
            let unit = *self.unit_ids.get(mapping.device.as_str())?;
            Some(LunEntry { lun: mapping.lun, unit, read_only: mapping.read_only })
        });
        Some(Arc::new(LunMap::new(entries.collect())))
    }
}

/// What stands for the target port in the name of a discovery session. One that names no target is reinstated by another of the
/// same initiator port at the same portal (RFC 7143 §7.4), one that does by another that names it (§7.4). No
/// target is called so: names have no space.
fn discovery_port(named: Option<&str>, local: SocketAddr) -> String {
    let what = named.map_or_else(|| local.to_string(), str::to_ascii_lowercase);
    format!("discovery {what}")
}

/// Who had to prove nothing when the login began may have to by now.
fn prove(users: &[User], completed: &Completed) -> Result<(), LoginStatus> {
    let named = |name: &String| users.iter().any(|user| user.name == *name);
    if users.is_empty() || completed.authenticated_as.as_ref().is_some_and(named) {
        Ok(())
    } else {
        Err(LoginStatus::AUTHENTICATION_FAILURE)
    }
}

/// iSCSI names are compared without regard to case (RFC 7143 §4.2.7.2, RFC 3722).
fn normalised(name: &str) -> Arc<str> {
    name.to_ascii_lowercase().into()
}

fn service_of(target: &Target) -> Service {
    Service {
        queued_commands: target.queued_commands,
        nop_in_interval: Duration::from_secs(u64::from(target.timers.nop_in_interval_s)),
        nop_in_timeout: Duration::from_secs(u64::from(target.timers.nop_in_timeout_s)),
        response_timeout: Duration::from_secs(u64::from(target.timers.rsp_timeout_s)),
        events: !target.aen_disabled,
    }
}

/// Each unit of a map once, ascending: two LUNs may lead to the same one.
pub(super) fn units_of(map: &LunMap) -> std::collections::BTreeSet<portico_model::identity::UnitId> {
    map.entries().iter().map(|entry| entry.unit).collect()
}
