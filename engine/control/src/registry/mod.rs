//! Who is logged in: sessions with their handles, nexuses and home shards.
//!
//! A table and nothing more: whether a login is granted is decided in `core::login`, with the configuration at hand.

mod handles;
mod nexuses;
mod placement;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portico_iscsi::wire::Tsih;
use portico_model::identity::{SessionId, ShardId, TargetId};
use portico_model::lun_map::LunMap;
use portico_model::message::LoginQuestion;
use portico_scsi::ledger::NexusName;
use portico_scsi::reservation::NexusId;

use handles::{HANDLES_MAX, Handles};
pub(crate) use nexuses::{Nexuses, nexus_name, target_port_name};
use placement::Placement;

/// Sessions of a gateway, discovery included.
pub const SESSIONS_MAX: usize = 16_384;

const _: () = assert!(SESSIONS_MAX <= HANDLES_MAX);

/// One session, from its grant until its home shard says that it is over.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its handle.
    pub(crate) tsih: Tsih,
    /// Its nexus; a discovery session has one, with a target port that no unit knows.
    pub(crate) nexus: NexusId,
    /// What it is a session of; `None` for discovery.
    pub(crate) target: Option<TargetId>,
    /// Its home.
    pub(crate) shard: ShardId,
    /// The initiator's name.
    pub(crate) initiator: Arc<str>,
    /// Where the initiator is.
    pub(crate) peer: SocketAddr,
    /// The portal's address, by which access may depend.
    pub(crate) portal: IpAddr,
    /// What it sees.
    pub(crate) map: Arc<LunMap>,
    /// Set once its home shard was told to end it.
    pub(crate) ending: Option<Ending>,
    name: NexusName,
}

/// A session that was told to end.
#[derive(Debug)]
pub(crate) struct Ending {
    /// A login of the same port that waits for the end.
    pub(crate) successor: Option<Box<LoginQuestion>>,
}

impl Session {
    /// The name of its nexus.
    pub(crate) fn name(&self) -> &NexusName {
        &self.name
    }
}

/// What is known of a session when it is granted.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) target: Option<TargetId>,
    pub(crate) initiator: Arc<str>,
    pub(crate) name: NexusName,
    pub(crate) peer: SocketAddr,
    pub(crate) portal: IpAddr,
    pub(crate) map: Arc<LunMap>,
    pub(crate) shard: ShardId,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions: BTreeMap<SessionId, Session>,
    by_name: BTreeMap<NexusName, SessionId>,
    per_target: BTreeMap<TargetId, usize>,
    handles: Handles,
    placement: Placement,
    /// The names of all nexuses; fences hold on to some of them, too.
    pub(crate) nexuses: Nexuses,
    last: u64,
}

impl Registry {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            sessions: BTreeMap::new(),
            by_name: BTreeMap::new(),
            per_target: BTreeMap::new(),
            handles: Handles::default(),
            placement: Placement::new(shards),
            nexuses: Nexuses::default(),
            last: 0,
        }
    }

    /// The shard that a new session of `target` belongs on.
    pub(crate) fn place(&self, target: Option<TargetId>, accepted: ShardId) -> ShardId {
        self.placement.choose(target, accepted)
    }

    /// Enters a session; `None` when there are [`SESSIONS_MAX`].
    ///
    /// # Panics
    /// When its nexus has a session already: that one had to end first.
    pub(crate) fn enter(&mut self, grant: Grant) -> Option<SessionId> {
        if self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let id = SessionId(self.last + 1);
        let tsih = self.handles.allocate(id)?;
        self.last = id.0;
        let nexus = self.nexuses.hold(&grant.name);
        let before = self.by_name.insert(grant.name.clone(), id);
        assert_eq!(before, None, "a nexus has one session");
        if let Some(target) = grant.target {
            *self.per_target.entry(target).or_default() += 1;
        }
        self.placement.add(grant.target, grant.shard);
        let session = Session {
            tsih,
            nexus,
            target: grant.target,
            shard: grant.shard,
            initiator: grant.initiator,
            peer: grant.peer,
            portal: grant.portal,
            map: grant.map,
            ending: None,
            name: grant.name,
        };
        self.sessions.insert(id, session);
        Some(id)
    }

    /// Takes a session out, its handle and its hold on its nexus with it.
    pub(crate) fn leave(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.handles.release(session.tsih);
        self.placement.remove(session.target, session.shard);
        self.nexuses.release(session.nexus);
        self.by_name.remove(&session.name);
        if let Some(target) = session.target {
            let sessions = self.per_target.get_mut(&target).expect("it was counted");
            *sessions -= 1;
            if *sessions == 0 {
                self.per_target.remove(&target);
            }
        }
        Some(session)
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(crate) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// The session of a nexus.
    pub(crate) fn of_nexus(&self, name: &NexusName) -> Option<SessionId> {
        self.by_name.get(name).copied()
    }

    /// The session that a handle stands for.
    pub(crate) fn of_handle(&self, tsih: Tsih) -> Option<(SessionId, &Session)> {
        self.handles.find(tsih).and_then(|id| Some((id, self.sessions.get(&id)?)))
    }

    /// How many sessions a target has.
    pub(crate) fn count_of(&self, target: TargetId) -> usize {
        self.per_target.get(&target).copied().unwrap_or(0)
    }

    /// All sessions, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(&id, session)| (id, session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(target: Option<u32>, initiator: &str, isid: u8) -> Grant {
        Grant {
            target: target.map(TargetId),
            initiator: initiator.into(),
            name: nexus_name(initiator, [isid; 6], target.map_or("", |_| "iqn.t"), 1),
            peer: "10.0.0.2:5000".parse().unwrap(),
            portal: "10.0.0.1".parse().unwrap(),
            map: Arc::default(),
            shard: ShardId(0),
        }
    }

    #[test]
    fn a_session_is_found_by_nexus_handle_and_target_until_it_leaves() {
        let mut registry = Registry::new(2);
        let id = registry.enter(grant(Some(1), "a", 1)).unwrap();
        let session = registry.session(id).unwrap();
        let (tsih, name) = (session.tsih, session.name.clone());
        assert_ne!(tsih, Tsih(0));
        assert_eq!(registry.of_nexus(&name), Some(id));
        assert!(registry.of_handle(tsih).is_some());
        assert_eq!(registry.count_of(TargetId(1)), 1);

        registry.leave(id).unwrap();
        assert!(registry.leave(id).is_none());
        assert_eq!(registry.of_nexus(&name), None);
        assert!(registry.of_handle(tsih).is_none());
        assert_eq!(registry.count_of(TargetId(1)), 0);
        assert_ne!(registry.enter(grant(Some(1), "a", 1)), Some(id), "a SessionId is never used again");
    }

    #[test]
    fn a_discovery_session_is_found_by_its_nexus_and_counts_for_no_target() {
        let mut registry = Registry::new(2);
        let discovery = grant(None, "a", 1);
        let name = discovery.name.clone();
        let id = registry.enter(discovery).unwrap();
        assert_eq!((registry.of_nexus(&name), registry.count_of(TargetId(1))), (Some(id), 0));
        registry.leave(id).unwrap();
        assert_eq!(registry.of_nexus(&name), None);
    }

    #[test]
    fn sessions_are_bounded() {
        let mut registry = Registry::new(2);
        for session in 0..SESSIONS_MAX {
            registry.enter(grant(Some(1), &format!("iqn.{session}"), 1)).unwrap();
        }
        assert_eq!(registry.enter(grant(Some(1), "one more", 1)), None);
    }
}
