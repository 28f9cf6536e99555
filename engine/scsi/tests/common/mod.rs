//! A logical unit with its single writer and a few nexuses, all in one thread: what a shard and control do, without the
//! mail between them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use portico_scsi::alua::{AccessState, ChangedBy, TargetPortGroup, TargetPortGroups};
use portico_scsi::attention::UnitAttention;
use portico_scsi::block::MediumCommand;
use portico_scsi::copy::ExtendedCopy;
use portico_scsi::copy_results::CopyResults;
use portico_scsi::device_server::{self, Action, Context, NexusState};
use portico_scsi::identity::{Handler, Identity, IdentityOptions};
use portico_scsi::ledger::{Ledger, NexusName, TargetPort};
use portico_scsi::lun::{AddressMethod, Lun};
use portico_scsi::original::{Installment, Original};
use portico_scsi::reservation::NexusId;
use portico_scsi::sense::{AdditionalSense, Outcome, Sense};
use portico_scsi::token::{PopulateToken, WriteUsingToken};
use portico_scsi::unit::{AtomicWrites, Geometry, LogicalUnit, WriteCache};

/// What an initiator sees of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// GOOD, with this data-in.
    Data(Vec<u8>),
    /// It goes to the medium.
    Medium(MediumCommand),
    /// Blocks are to be copied.
    Copy(ExtendedCopy),
    /// Whoever keeps count of copies answers.
    CopyResults(CopyResults, u32),
    /// A token is to be made.
    Populate(PopulateToken),
    /// What a token stands for is to be written.
    WriteUsing(WriteUsingToken),
    /// Whoever makes the copy ends it.
    CopyAborted(u32),
    /// It ended so.
    Ended(Outcome),
}

pub(crate) const GOOD: Answer = Answer::Ended(Outcome::GOOD);
pub(crate) const CONFLICT: Answer = Answer::Ended(Outcome::RESERVATION_CONFLICT);

pub(crate) struct World {
    pub(crate) original: Original,
    pub(crate) nexuses: Vec<(NexusId, NexusState)>,
    pub(crate) luns: Vec<Lun>,
    pub(crate) target_ports: Vec<TargetPort>,
    pub(crate) read_only: bool,
    pub(crate) carries_queries: bool,
    pub(crate) last: Option<Installment>,
}

/// 2,000 blocks of 512 bytes with eight to a physical block, at most 1 MiB in a command.
pub(crate) fn disk() -> LogicalUnit {
    let identity = Identity::new(&IdentityOptions::new(0, "disk1", Handler::FileIo)).unwrap();
    let geometry = Geometry::new(512, 2000, 3, 1 << 20).unwrap();
    LogicalUnit::new(identity, geometry, WriteCache::WriteBack)
}

pub(crate) fn removable() -> LogicalUnit {
    LogicalUnit { removable: true, ..disk() }
}

/// A unit that serves every command of the table.
pub(crate) fn thin() -> LogicalUnit {
    let groups = grouped(&[(256, AccessState::ActiveOptimized, &[PORT])]);
    LogicalUnit {
        thin_provisioned: true,
        atomic_writes: AtomicWrites::Any,
        target_port_groups: groups,
        ..removable()
    }
}

/// The target port that nexuses are at of which nothing else is said.
pub(crate) const PORT: u16 = 1;

/// Target port groups under explicit management: identifier, state and ports of each.
pub(crate) fn grouped(groups: &[(u16, AccessState, &[u16])]) -> Option<Arc<TargetPortGroups>> {
    let group = |&(id, state, ports): &(u16, AccessState, &[u16])| TargetPortGroup {
        id,
        preferred: false,
        state,
        changed_by: ChangedBy::Nobody,
        ports: ports.to_vec(),
    };
    let groups = groups.iter().map(group).collect();
    Some(Arc::new(TargetPortGroups { explicit: true, groups, offline: Vec::new() }))
}

impl World {
    /// `unit` with two nexuses that have been told of the power on.
    pub(crate) fn new(unit: LogicalUnit) -> Self {
        let mut world = Self::fresh(unit);
        world.nexuses.iter_mut().for_each(|(_, state)| while state.attentions.take().is_some() {});
        world
    }

    /// `unit` with two nexuses that are new to it.
    pub(crate) fn fresh(unit: LogicalUnit) -> Self {
        let mut original = Original::new(unit, Ledger::new());
        let ids = [NexusId(1), NexusId(2)];
        for id in ids {
            original.attach(id, NexusName::new(format!("iqn.test:{},i,0x1", id.0), "iqn.test:t,t,0x1"));
        }
        Self {
            original,
            nexuses: ids.map(|id| (id, NexusState::new())).to_vec(),
            luns: [0, 1, 300].map(|number| Lun::encode(number, AddressMethod::Peripheral).unwrap()).to_vec(),
            target_ports: vec![TargetPort { name: TARGET_PORT.to_owned(), relative_id: PORT }],
            read_only: false,
            carries_queries: false,
            last: None,
        }
    }

    pub(crate) fn unit(&self) -> &LogicalUnit {
        self.original.unit()
    }

    pub(crate) fn send(&mut self, who: usize, cdb: &[u8]) -> Answer {
        self.send_with(who, cdb, &[])
    }

    pub(crate) fn send_with(&mut self, who: usize, cdb: &[u8], data_out: &[u8]) -> Answer {
        let context = Context {
            luns: &self.luns,
            relative_target_port: self.original.ledger().port_of(self.nexuses[who].0).unwrap_or(PORT),
            target_ports: &self.target_ports,
            read_only: self.read_only,
            carries_queries: self.carries_queries,
        };
        let mut reply = vec![0xee; device_server::reply_bytes_max(cdb, &context)];
        let (me, state) = &mut self.nexuses[who];
        let me = *me;
        let mut action = device_server::begin(self.original.unit(), state, me, &context, cdb, &mut reply);
        if let Action::Parameters(list) = action {
            action = device_server::parameters(self.original.unit(), list, data_out);
        }
        match action {
            Action::Finish(outcome) => Answer::Ended(outcome),
            Action::Reply { length } => Answer::Data(reply[..length].to_vec()),
            Action::Medium(command) => Answer::Medium(command),
            Action::Change(change) => match self.original.apply(change, me) {
                Ok(installment) => {
                    self.install(installment);
                    GOOD
                }
                Err(outcome) => Answer::Ended(outcome),
            },
            Action::Copy(copy) => Answer::Copy(copy),
            Action::CopyResults { results, list_id, .. } => Answer::CopyResults(results, list_id),
            Action::Populate(populate) => Answer::Populate(populate),
            Action::WriteUsingToken(write) => Answer::WriteUsing(write),
            Action::AbortCopy { list_id } => Answer::CopyAborted(list_id),
            Action::Parameters(_) => panic!("parameters are asked for once"),
        }
    }

    pub(crate) fn install(&mut self, installment: Option<Installment>) {
        let Some(installment) = installment else { return };
        for (whom, attention) in &installment.attentions {
            for (id, state) in &mut self.nexuses {
                if whom.includes(*id) {
                    state.establish(*attention);
                }
            }
        }
        self.last = Some(installment);
    }

    pub(crate) fn data(&mut self, who: usize, cdb: &[u8]) -> Vec<u8> {
        match self.send(who, cdb) {
            Answer::Data(data) => data,
            other => panic!("{cdb:02x?} was answered with {other:?}"),
        }
    }

    pub(crate) fn medium(&mut self, who: usize, cdb: &[u8]) -> MediumCommand {
        match self.send(who, cdb) {
            Answer::Medium(command) => command,
            other => panic!("{cdb:02x?} was answered with {other:?}"),
        }
    }

    pub(crate) fn sense(&mut self, who: usize, cdb: &[u8]) -> Sense {
        match self.send(who, cdb) {
            Answer::Ended(Outcome { sense: Some(sense), .. }) => sense,
            other => panic!("{cdb:02x?} was answered with {other:?}"),
        }
    }

    pub(crate) fn told(&mut self, who: usize, attention: UnitAttention) {
        assert_eq!(self.send(who, &TEST_UNIT_READY), Answer::Ended(attention.outcome()));
    }
}

impl World {
    /// A PERSISTENT RESERVE OUT with the basic parameter list.
    pub(crate) fn out(&mut self, who: usize, action: u8, kind: u8, key: u64, action_key: u64) -> Answer {
        self.send_with(who, &out_cdb(action, kind, 24), &basic(key, action_key, 0))
    }

    /// A further nexus, at this target port, that has been told of the power on.
    pub(crate) fn join(&mut self, initiator: &str, target_port: &str) -> usize {
        let id = NexusId(self.nexuses.len() as u64 + 1);
        let installment = self.original.attach(id, NexusName::new(initiator, target_port));
        self.install(installment);
        self.nexuses.push((id, NexusState { attentions: portico_scsi::attention::Attentions::NONE }));
        self.nexuses.len() - 1
    }

    /// What the next command of a nexus is told first.
    pub(crate) fn pending(&mut self, who: usize) -> Option<UnitAttention> {
        self.nexuses[who].1.attentions.take()
    }
}

pub(crate) fn out_cdb(action: u8, kind: u8, length: u32) -> [u8; 10] {
    let [a, b, c, d] = length.to_be_bytes();
    [0x5f, action, kind, 0, 0, a, b, c, d, 0]
}

pub(crate) fn basic(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    let mut list = [key.to_be_bytes(), action_key.to_be_bytes()].concat();
    list.extend([0, 0, 0, 0, flags, 0, 0, 0]);
    list
}

pub(crate) fn in_cdb(action: u8) -> [u8; 10] {
    [0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0]
}

/// The target port of the nexuses that a world begins with.
pub(crate) const TARGET_PORT: &str = "iqn.test:t,t,0x0001";

pub(crate) const TEST_UNIT_READY: [u8; 6] = [0; 6];
pub(crate) const REPORT_LUNS: [u8; 12] = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
pub(crate) const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 255, 0];
pub(crate) const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
pub(crate) const RELEASE: [u8; 6] = [0x17, 0, 0, 0, 0, 0];
pub(crate) const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 0x02, 0];
pub(crate) const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 0x03, 0];
pub(crate) const PREVENT: [u8; 6] = [0x1e, 0, 0, 0, 1, 0];
pub(crate) const ALLOW: [u8; 6] = [0x1e, 0, 0, 0, 0, 0];

pub(crate) fn read10(lba: u32, blocks: u16) -> [u8; 10] {
    rw10(0x28, 0, lba, blocks)
}

pub(crate) fn write10(lba: u32, blocks: u16) -> [u8; 10] {
    rw10(0x2a, 0, lba, blocks)
}

pub(crate) fn rw10(code: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [a, b, c, d] = lba.to_be_bytes();
    let [e, f] = blocks.to_be_bytes();
    [code, flags, a, b, c, d, 0, e, f, 0]
}

pub(crate) fn rw16(code: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub(crate) fn inquiry_page(page: u8) -> [u8; 6] {
    [0x12, 1, page, 4, 0, 0]
}

pub(crate) fn illegal(additional: AdditionalSense) -> Answer {
    Answer::Ended(Outcome::illegal(additional))
}

pub(crate) fn wrong_field(byte: u16, bit: Option<u8>) -> Answer {
    Answer::Ended(Outcome::invalid_cdb_field(byte, bit))
}
