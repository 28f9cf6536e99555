//! From a command whose turn it is to what it does: the device server is asked, and its answer begun.

use portico_iscsi::session::TaskId;
use portico_iscsi::wire::ahs::CDB_BYTES_MAX;
use portico_iscsi::wire::{ScsiCommand, TaskAttribute};
use portico_model::message::ToControl;
use portico_model::meter::Operation;
use portico_scsi::block::{MediumCommand, Series, Transfer};
use portico_scsi::device_server::{self, Action};
use portico_scsi::lun::Lun;
use portico_scsi::no_unit;
use portico_scsi::original::Change;
use portico_scsi::sense::{AdditionalSense, Outcome};

use super::Core;
use super::task_sets::Entrance;
use crate::driver::Driver;
use crate::inbound::take_fitting;
use crate::outgoing::Outgoing;
use crate::session::Session;
use crate::slab::Key;
use crate::task::{Task, Work};

impl<D: Driver> Core<D> {
    /// It is this command's turn.
    pub fn start(&mut self, session_key: Key<Session>, name: TaskId) {
        if let Some(key) = self.sessions.get(session_key).and_then(|session| session.task(name)) {
            self.start_task(session_key, name, key);
        }
    }

    /// It is the turn of the command of this name, which is this task.
    pub fn start_task(&mut self, session_key: Key<Session>, name: TaskId, key: Key<Task>) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let Some(task) = self.tasks.get(key) else { return };
        let is_refused = task.is_refused;
        let command = *session.wire.command(name);
        let lun = Lun::from_bytes(command.lun.0);
        let at = lun.number().and_then(|number| session.find(number));
        if is_refused {
            return self.finish(key, Outcome::TASK_SET_FULL);
        }
        if let Some(at) = at {
            match self.take_place(session_key, name, key, at) {
                None => {}
                Some(Entrance::Waits) => return,
                Some(Entrance::Refused(refusal)) => return self.finish(key, refusal),
            }
        }
        self.execute(session_key, key, at, &command);
    }

    /// A command that waited in its task set begins.
    pub(super) fn begin(
        &mut self,
        session_key: Key<Session>,
        name: TaskId,
        key: Key<Task>,
        at: Option<usize>,
    ) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let command = *session.wire.command(name);
        if self.tasks.get(key).is_some_and(|task| task.is_refused) {
            return self.finish(key, Outcome::TASK_SET_FULL);
        }
        self.execute(session_key, key, at, &command);
    }

    /// Asks the device server what a command is, and does it.
    #[inline]
    fn execute(
        &mut self,
        session_key: Key<Session>,
        key: Key<Task>,
        at: Option<usize>,
        command: &ScsiCommand,
    ) {
        let is_long = self.tasks.get(key).is_some_and(|task| !task.cdb_rest.is_empty());
        let lun = Lun::from_bytes(command.lun.0);
        let action = if is_long {
            self.judge_long(session_key, key, at, lun, &command.cdb)
        } else {
            self.judge(session_key, at, lun, &command.cdb)
        };
        self.act(key, action);
    }

    /// Asks the device server about a CDB that begins like this and goes on in the task.
    fn judge_long(
        &mut self,
        session_key: Key<Session>,
        key: Key<Task>,
        at: Option<usize>,
        lun: Lun,
        begin: &[u8],
    ) -> Action {
        let mut cdb = [0; CDB_BYTES_MAX];
        let rest = self.tasks.get(key).map_or(&[][..], |task| &task.cdb_rest);
        let length = begin.len() + rest.len();
        cdb[..begin.len()].copy_from_slice(begin);
        cdb[begin.len()..length].copy_from_slice(rest);
        self.judge(session_key, at, lun, &cdb[..length])
    }

    /// The CDB of a task goes on in an AHS (RFC 7143 §11.2.2.3).
    pub fn extend_cdb(&mut self, key: Key<Task>, rest: &[u8]) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.cdb_rest.extend_from_slice(rest);
        }
    }

    /// Files the task with its unit, or says why there is no place for it, or not yet.
    fn take_place(
        &mut self,
        session_key: Key<Session>,
        name: TaskId,
        key: Key<Task>,
        at: usize,
    ) -> Option<Entrance> {
        let session = self.sessions.get_mut(session_key)?;
        let attribute = session.wire.command(name).attribute;
        let lun = &mut session.luns[at];
        let is_simple = matches!(attribute, TaskAttribute::Simple | TaskAttribute::Untagged);
        let is_free = is_simple && !lun.set.is_restrained();
        if !is_free && let Err(refusal) = lun.set.admits(attribute) {
            return Some(Entrance::Refused(refusal));
        }
        let unit = self.units.get_mut(lun.unit)?;
        if self.quiescing {
            return Some(Entrance::Refused(Outcome::BUSY));
        }
        if lun.tasks >= unit.nexus_commands_max {
            return Some(Entrance::Refused(Outcome::TASK_SET_FULL));
        }
        let task = self.tasks.get_mut(key)?;
        lun.tasks += 1;
        unit.tasks += 1;
        task.lun = Some(at);
        task.unit = Some(lun.unit);
        if is_free { None } else { self.enter_task_set(key, name) }
    }

    /// Asks the device server. Data-in that it makes is in the pool's scratch afterwards.
    fn judge(&mut self, session_key: Key<Session>, at: Option<usize>, lun: Lun, cdb: &[u8]) -> Action {
        let session = self.sessions.get_mut(session_key).expect("the caller has it");
        let mut nexus_state = at.map(|at| session.luns[at].nexus);
        let context = session.context(at);
        let room = device_server::reply_bytes_max(cdb, &context);
        if self.pool.scratch.len() < room {
            self.pool.scratch.resize(room, 0);
        }
        let reply = &mut self.pool.scratch[..];
        let unit = at.and_then(|at| self.units.get(session.luns[at].unit));
        match (unit, &mut nexus_state) {
            (Some(unit), Some(state)) => {
                let action = device_server::begin(&unit.state, state, session.nexus, &context, cdb, reply);
                let at = at.expect("a state was found by it");
                session.luns[at].nexus = *state;
                action
            }
            _ => no_unit::begin(lun, &context, cdb, reply),
        }
    }

    fn act(&mut self, key: Key<Task>, action: Action) {
        match action {
            Action::Finish(outcome) => self.finish(key, outcome),
            Action::Reply { length } => self.reply(key, length),
            Action::Parameters(list) => {
                let Some(task) = self.tasks.get_mut(key) else { return };
                task.work = Work::Parameters(list);
                let session = self.sessions.get_mut(task.session).expect("a task has a session");
                session.wire.want_data(task.name, list.length as u64);
                self.data_came(key);
            }
            Action::Medium(command) => self.begin_medium(key, command),
            Action::Change(change) => self.park(key, change),
            Action::Copy(copy) => self.begin_copy(key, &copy),
            Action::Populate(populate) => self.begin_populate(key, &populate),
            Action::WriteUsingToken(write) => self.begin_using(key, write),
            Action::AbortCopy { list_id } => self.abort_copy(key, list_id),
            Action::CopyResults { results, list_id, allocation_length } => {
                self.answer_copy_results(key, results, list_id, allocation_length);
            }
        }
    }

    fn begin_medium(&mut self, key: Key<Task>, command: MediumCommand) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.class = command.class();
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("a medium command has a unit");
        let block_bytes = unit.state.geometry.block_length();
        match command {
            MediumCommand::Read { lba, .. } => {
                task.operation = Operation::Read;
                self.begin_read(key, lba.0 * u64::from(block_bytes), command.transfer_bytes(block_bytes));
            }
            MediumCommand::Write { lba, fua, .. } => {
                task.operation = Operation::Write;
                let offset = lba.0 * u64::from(block_bytes);
                self.begin_write(key, offset, command.transfer_bytes(block_bytes), block_bytes, fua);
            }
            MediumCommand::Verify { .. } => self.begin_verify(key, command, block_bytes),
            MediumCommand::Series { lba, blocks, series } => {
                let block = u64::from(block_bytes);
                let required_bytes = match command.transfer(block_bytes) {
                    Transfer::Out { bytes } => bytes,
                    Transfer::In { .. } | Transfer::None => 0,
                };
                self.begin_series(key, lba.0 * block, blocks * block, required_bytes, series);
            }
            MediumCommand::Atomic { lba, blocks, operation, fua } => {
                task.operation = Operation::Write;
                let block = u64::from(block_bytes);
                let range = (lba.0 * block, u64::from(blocks) * block);
                self.begin_atomic(key, range, command.transfer_bytes(block_bytes), operation, fua);
            }
            MediumCommand::Flush { immediate, .. } => {
                task.work = Work::Flush;
                self.pump_flush(key);
                if immediate {
                    self.finish_before_flush(key);
                }
            }
        }
    }

    /// IMMED: the status does not wait for the flush, which goes on without its task. One that is still to be handed over
    /// is waited for.
    fn finish_before_flush(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.at_medium > 0 {
            task.at_medium = 0;
            self.disown_flushes(key);
            self.finish(key, Outcome::GOOD);
        }
    }

    /// Data-in of the device server, which is in the pool's scratch.
    pub(super) fn reply(&mut self, key: Key<Task>, length: usize) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let session = self.sessions.get_mut(task.session).expect("a task has a session");
        let moved = session.wire.begin_data_in(task.name, length as u64) as usize;
        let mut rest = &self.pool.scratch[..moved];
        while !rest.is_empty() {
            let Some(mut buffer) = take_fitting(self.driver.arena(), rest.len()) else {
                self.counters.refused_for_memory += 1;
                self.finish(key, Outcome::BUSY);
                return;
            };
            let (now, later) = rest.split_at(rest.len().min(buffer.capacity()));
            buffer.set_len(now.len());
            buffer.copy_from_slice(now);
            task.outflow.push_back(buffer);
            rest = later;
        }
        task.ended = Some(Outcome::GOOD);
        self.list_data_in(key);
    }

    /// Lists a task's Data-In, or its status where it has none to send.
    pub(super) fn list_data_in(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if !task.listed {
            task.listed = true;
            let (session, name) = (task.session, task.name);
            self.answer(session, name, Outgoing::DataIn(key));
        }
    }

    /// Lists R2Ts of a task that still waits for data.
    pub(super) fn list_r2t(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        let session = self.sessions.get(task.session).expect("a task has a session");
        if task.ended.is_none() && !task.aborted && !session.wire.progress(task.name).is_complete {
            let (session, name) = (task.session, task.name);
            self.answer(session, name, Outgoing::R2t(key));
        }
    }

    /// More of a task's data is there, or as much as will come.
    pub fn data_came(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get(key) else { return };
        if task.aborted {
            return;
        }
        let session = self.sessions.get(task.session).expect("a task has a session");
        if task.ended.is_some() {
            return self.settle(key);
        }
        if let Some(fault) = session.wire.fault(task.name) {
            let condition = fault.condition();
            let (code, qualifier) =
                (condition.additional_sense_code, condition.additional_sense_code_qualifier);
            return self.finish(key, Outcome::aborted(AdditionalSense { code, qualifier }));
        }
        match task.work {
            Work::Parameters(_) => self.pump_parameters(key),
            Work::Write(_) => self.pump_write(key),
            Work::Verify(_) => self.pump_verify(key),
            Work::Series(_) => self.pump_series(key),
            Work::Atomic(_) => self.pump_atomic(key),
            // They want no data, or have not said yet how much.
            Work::None
            | Work::Read(_)
            | Work::Copy(_)
            | Work::CopyAbort(_)
            | Work::Flush
            | Work::Parked(_) => return,
        }
        self.list_r2t(key);
    }

    /// Reads the parameter list once all of it is there.
    fn pump_parameters(&mut self, key: Key<Task>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Work::Parameters(list) = task.work else { return };
        if task.waits.is_some() {
            return;
        }
        let session = self.sessions.get(task.session).expect("a task has a session");
        if !session.wire.progress(task.name).is_complete {
            return;
        }
        let mut data: Vec<u8> = task.inflow.drain(..).flat_map(|buffer| buffer.to_vec()).collect();
        // What the initiator sent beyond the list is no part of it, and nobody checks it.
        data.truncate(list.length);
        task.inflow_bytes = 0;
        task.work = Work::None;
        self.unshelve(key);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let unit = task.unit.and_then(|unit| self.units.get(unit)).expect("parameters are for a unit");
        match device_server::parameters(&unit.state, list, &data) {
            Action::Medium(MediumCommand::Series { series: Series::Unmap, .. }) => {
                self.begin_unmap(key, &data);
            }
            action => self.act(key, action),
        }
    }

    /// Mails a change to control; the task waits for the answer.
    fn park(&mut self, key: Key<Task>, change: Change) {
        let ticket = Self::ticket_of(key);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(unit) = task.unit.and_then(|unit| self.units.get(unit)) else {
            self.finish(key, Outcome::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED));
            return;
        };
        let session = self.sessions.get(task.session).expect("a task has a session");
        task.work = Work::Parked(ticket);
        self.outbox.push_back(ToControl::Change {
            shard: self.shard,
            ticket,
            unit: unit.id,
            nexus: session.nexus,
            change,
        });
    }
}
