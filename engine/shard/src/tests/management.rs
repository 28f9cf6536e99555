//! Every task management function, whoever asks for it, against a command in every stage (SAM-5 §5.6, §7; RFC 7143 §11.5):
//! who hears what of it, when the function is answered, and what reaches the medium afterwards.

use portico_model::identity::Ticket;

use super::*;
use portico_iscsi::wire::TaskManagementResponse;
use portico_model::message::EndReason;
use portico_scsi::original::Change;
use portico_scsi::reservation::Reservation;

use Reached::{AtMedium, AwaitingData, AwaitingRoom, Dormant, Hanging, Parked, SendingStatus};
use TaskManagementFunction::{
    AbortTask, AbortTaskSet, ClearAca, ClearTaskSet, ITNexusReset, LogicalUnitReset, QueryAsynchronousEvent,
    QueryTask, QueryTaskSet, TargetColdReset, TargetWarmReset,
};

const TASK_ABORTED: u8 = 0x40;
/// Tags of the command in question, and of one that is in its way.
const VICTIM: u32 = 9;
const BLOCKER: u32 = 8;
/// Where the first of them writes.
const LBA: u64 = 64;

const FUNCTIONS: [TaskManagementFunction; 11] = [
    AbortTask,
    AbortTaskSet,
    ClearTaskSet,
    ClearAca,
    LogicalUnitReset,
    TargetWarmReset,
    TargetColdReset,
    QueryTask,
    QueryTaskSet,
    QueryAsynchronousEvent,
    ITNexusReset,
];
/// Those of RFC 7144.
const UPDATE: [TaskManagementFunction; 4] = [QueryTask, QueryTaskSet, QueryAsynchronousEvent, ITNexusReset];
/// As ASKED, at the level that has them.
const UPDATED: &str =
    "InitialR2T=Yes|ImmediateData=No|MaxRecvDataSegmentLength=262144|MaxConnections=3|iSCSIProtocolLevel=2|";

/// How far the command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// It waits in its task set for one that is at the medium.
    Dormant,
    /// Its R2T is not answered.
    AwaitingData,
    /// Control has it.
    Parked,
    /// Its data are here, and the medium's queue is full of another nexus' command.
    AwaitingRoom,
    AtMedium,
    /// The same, and the medium does not answer.
    Hanging,
    /// Its initiator does not read.
    SendingStatus,
}

const STAGES: [Reached; 7] = [Dormant, AwaitingData, Parked, AwaitingRoom, AtMedium, Hanging, SendingStatus];

/// A function that somebody asks for.
#[derive(Clone, Copy, Debug)]
struct Case {
    function: TaskManagementFunction,
    stage: Reached,
    /// The command's own nexus asks.
    own: bool,
    /// TAS.
    with_status: bool,
}

impl Case {
    fn is_reset(self) -> bool {
        matches!(self.function, LogicalUnitReset | TargetWarmReset | TargetColdReset)
    }

    /// Whether the command ends by it (SPC-4 §7.5.8: with TST 001b CLEAR TASK SET is about the asker's own).
    fn harms(self) -> bool {
        match self.function {
            AbortTask | AbortTaskSet | ClearTaskSet | ITNexusReset => self.own,
            ClearAca | QueryTask | QueryTaskSet | QueryAsynchronousEvent => false,
            _ => true,
        }
    }

    /// Whether something is at the medium that it ends.
    fn waits(self) -> bool {
        match self.stage {
            AtMedium | Hanging => self.harms(),
            Dormant if self.is_reset() => true,
            Dormant => self.own && matches!(self.function, AbortTaskSet | ClearTaskSet | ITNexusReset),
            AwaitingRoom => self.is_reset(),
            AwaitingData | Parked | SendingStatus => false,
        }
    }

    fn result(self) -> TaskManagementResult {
        match (self.function, self.stage) {
            (AbortTask, _) if !self.own => TaskManagementResult::TaskDoesNotExist,
            // Not before its status has gone is it there no longer.
            (QueryTask | QueryTaskSet, _) if self.own => TaskManagementResult::Succeeded,
            (_, Hanging) if self.harms() => TaskManagementResult::Rejected,
            _ => TaskManagementResult::Complete,
        }
    }

    /// What the command ends with; nothing where it ends without a word.
    fn statuses(self) -> &'static [u8] {
        match (self.harms(), self.own || !self.with_status) {
            (false, _) => &[GOOD],
            (true, true) => &[],
            (true, false) => &[TASK_ABORTED],
        }
    }
}

/// Everybody: the nexus of the command, another one, a third.
struct Scene {
    bench: Bench,
    victim: Peer,
    other: Peer,
    third: Peer,
    /// What the first two have heard.
    heard: [Vec<Heard>; 2],
    generation: u64,
    resets: Vec<(Ticket, u64)>,
    parked: Option<Ticket>,
}

impl Scene {
    fn new(case: Case) -> Self {
        let mut bench = Bench::new();
        bench.open(1, if case.stage == AwaitingRoom { 1 } else { 8 });
        let mut log_in = || bench.log_in(&[(0, 1)], UPDATED);
        let (victim, other, third) = (log_in(), log_in(), log_in());
        let heard = [Vec::new(), Vec::new()];
        let mut scene =
            Self { bench, victim, other, third, heard, generation: 1, resets: Vec::new(), parked: None };
        scene.install(case.with_status, Vec::new(), None);
        scene.begin(case.stage);
        scene.bench.world.borrow_mut().sent.retain(|mail| matches!(mail, ToControl::Change { .. }));
        scene
    }

    fn install(&mut self, with_status: bool, attentions: Vec<(Whom, UnitAttention)>, asker: Option<NexusId>) {
        self.generation += 1;
        let mut state = disk();
        state.mode.task_aborted_status = with_status;
        self.bench.mail(ToShard::Install(Arc::new(Install {
            unit: UnitId(1),
            generation: Generation(self.generation),
            state: Arc::new(state),
            attentions,
            aborts: asker.map(|_| Whom::All),
            asker,
            flush: false,
            orphans: Arc::from([]),
        })));
    }

    /// Brings the command to where it is to be.
    fn begin(&mut self, stage: Reached) {
        let bench = &mut self.bench;
        match stage {
            Dormant => bench.read(&mut self.victim, 0, BLOCKER, 512),
            AwaitingRoom => bench.read(&mut self.third, 0, BLOCKER, 512),
            SendingStatus => {
                // What is sent first is on its way for ever, and the rest behind it.
                let socket = self.victim.socket;
                bench.world.borrow_mut().sockets[socket].is_deaf = true;
                bench.command(&mut self.victim, 0, 7, [0; 16], 0, &[]);
                bench.read(&mut self.victim, 0, VICTIM, 512);
                bench.land();
                return;
            }
            Parked => {
                let mut reserve = [0; 16];
                reserve[0] = 0x16;
                return bench.command(&mut self.victim, 0, VICTIM, reserve, 0, &[]);
            }
            AwaitingData | AtMedium | Hanging => {}
        }
        let attribute = if stage == Dormant { TaskAttribute::Ordered } else { TaskAttribute::Simple };
        let cmd_sn = self.victim.cmd_sn;
        let write = ScsiCommand { attribute, cmd_sn, ..command(0, VICTIM, transfer(0x8a, LBA, 4096), 4096) };
        self.victim.cmd_sn = cmd_sn.next();
        let mut bhs = [0; BHS_BYTES];
        write.emit(&mut bhs);
        bench.post(&self.victim, bhs, &[]);
        if matches!(stage, AwaitingRoom | AtMedium | Hanging) {
            self.send_data();
        }
    }

    /// The data that were asked for and not sent.
    fn send_data(&mut self) {
        for heard in self.bench.heard(&self.victim) {
            match heard {
                Heard::R2t { .. } => self.bench.answer(&self.victim, &heard),
                other => self.heard[0].push(other),
            }
        }
    }

    /// Control does what it was asked for.
    fn play_control(&mut self, with_status: bool) {
        loop {
            let mail = std::mem::take(&mut self.bench.world.borrow_mut().sent);
            if mail.is_empty() {
                return;
            }
            for letter in mail {
                match letter {
                    ToControl::Change { ticket, .. } => self.parked = Some(ticket),
                    ToControl::Withdraw { ticket, .. } => {
                        self.parked.take_if(|parked| *parked == ticket);
                    }
                    ToControl::Reset { ticket, nexus, .. } => {
                        let attentions = vec![(Whom::All, UnitAttention::LogicalUnitReset)];
                        self.resets.push((ticket, self.generation + 1));
                        self.install(with_status, attentions, Some(nexus));
                    }
                    ToControl::Installed { generation, .. } => {
                        let done = self.resets.extract_if(.., |(_, reset)| *reset == generation.0);
                        for (ticket, _) in done.collect::<Vec<_>>() {
                            self.bench.mail(ToShard::Changed { ticket, outcome: Ok(()) });
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// All that has come since, but R2Ts of the command, which are not answered.
    fn listen(&mut self) {
        let heard = self.bench.heard(&self.victim);
        self.heard[0].extend(heard);
        let heard = self.bench.heard(&self.other);
        self.heard[1].extend(heard);
    }

    /// What the one who asked was answered.
    fn results(&self, own: bool) -> Vec<TaskManagementResult> {
        let heard = self.heard[usize::from(!own)].iter();
        heard
            .filter_map(|heard| if let Heard::Managed(result) = heard { Some(*result) } else { None })
            .collect()
    }

    fn statuses(&self) -> Vec<u8> {
        let status = |heard: &Heard| match heard {
            Heard::Status(VICTIM, status) => Some(*status),
            Heard::Data(VICTIM, _, true) => Some(GOOD),
            _ => None,
        };
        self.heard[0].iter().filter_map(status).collect()
    }

    fn stored(&self) -> usize {
        let world = self.bench.world.borrow();
        world.written.iter().filter(|(offset_bytes, _)| *offset_bytes == LBA * 512).count()
    }
}

fn play(case: Case) {
    let mut scene = Scene::new(case);
    scene.play_control(case.with_status);
    let asker = if case.own { &scene.victim } else { &scene.other };
    scene.bench.manage(asker, case.function, VICTIM);
    scene.play_control(case.with_status);
    if case.stage == SendingStatus {
        let socket = scene.victim.socket;
        scene.bench.world.borrow_mut().hear(socket);
        scene.bench.settle();
    }
    scene.listen();
    if case.waits() {
        assert_eq!(scene.results(case.own), [], "{case:?}: something of it is at the medium");
        if case.stage == Hanging {
            let patience = Duration::from_secs(crate::management::PATIENCE_S);
            scene.bench.world.borrow_mut().now = scene.bench.shard.core.now + patience;
            scene.bench.settle();
        } else {
            scene.bench.land_all();
        }
        scene.play_control(case.with_status);
        scene.listen();
    }
    assert_eq!(scene.results(case.own), [case.result()], "{case:?}");
    let stored = scene.stored();
    // Whatever the initiator still sends, and the medium does.
    let r2ts = std::mem::take(&mut scene.heard[0]);
    let (r2ts, rest): (Vec<Heard>, Vec<Heard>) =
        r2ts.into_iter().partition(|heard| matches!(heard, Heard::R2t { .. }));
    scene.heard[0] = rest;
    let ends = matches!(case.function, TargetColdReset | ITNexusReset) && case.own && case.stage != Hanging;
    if !ends {
        r2ts.iter().for_each(|r2t| scene.bench.answer(&scene.victim, r2t));
    }
    scene.bench.land_all();
    if let Some(ticket) = scene.parked.take() {
        scene.bench.mail(ToShard::Changed { ticket, outcome: Ok(()) });
    }
    scene.send_data();
    scene.bench.land_all();
    scene.listen();
    assert_eq!(scene.statuses(), case.statuses(), "{case:?}");
    if case.harms() && case.stage != Hanging {
        assert_eq!(scene.stored(), stored, "{case:?}: it reached the medium after its end was confirmed");
    }
    if !ends {
        scene.bench.command(&mut scene.victim, 0, 20, [0; 16], 0, &[]);
        let status = if case.is_reset() { CHECK_CONDITION } else { GOOD };
        assert_eq!(
            scene.bench.heard(&scene.victim),
            [Heard::Status(20, status)],
            "{case:?}: what comes next"
        );
    }
}

#[test]
fn every_function_against_a_command_in_every_stage_of_its_own_nexus_and_of_another() {
    for function in FUNCTIONS {
        for stage in STAGES {
            for (own, with_status) in [(true, false), (true, true), (false, false), (false, true)] {
                play(Case { function, stage, own, with_status });
            }
        }
    }
}

/// What a peer was answered last, with Additional Response Information.
fn answered(bench: &Bench, peer: &Peer) -> (TaskManagementResult, [u8; 3]) {
    let mut world = bench.world.borrow_mut();
    let bytes: Vec<u8> = world.sockets[peer.socket].from_shard.drain(..).collect();
    let bhs: &Bhs = bytes.last_chunk().expect("an answer");
    let response = TaskManagementResponse::parse(bhs).expect("to a function");
    (response.result, response.additional_information)
}

/// RFC 7144 §6: its functions are for sessions that have negotiated iSCSIProtocolLevel 2.
#[test]
fn below_its_protocol_level_the_functions_of_rfc_7144_are_not_supported() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let mut peer = bench.log_in(&[(0, 1)], IMMEDIATE);
    bench.write(&mut peer, 0, VICTIM, 4096, &[7; 4096]);
    for function in UPDATE {
        bench.manage(&peer, function, VICTIM);
        assert_eq!(answered(&bench, &peer), (TaskManagementResult::FunctionNotSupported, [0; 3]));
    }
    bench.land();
    assert_eq!(bench.heard(&peer), [Heard::Status(VICTIM, GOOD)]);
}

/// SPC-4 §6.36: what is reported is what this nexus can ask for.
#[test]
fn the_functions_that_are_reported_are_those_of_the_protocol_level() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    for (keys, reported) in [(ASKED, [0xfa, 0x00, 0, 0]), (UPDATED, [0xfe, 0x07, 0, 0])] {
        let mut peer = bench.log_in(&[(0, 1)], keys);
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[9]) = (0xa3, 0x0d, 4);
        let report = ScsiCommand {
            read: true,
            write: false,
            // A priority, which is nobody's below level 2 and orders nothing here (SAM-5 §8.7 leaves that to the target).
            priority: 9,
            cmd_sn: peer.cmd_sn,
            ..command(0, VICTIM, cdb, 4)
        };
        peer.cmd_sn = peer.cmd_sn.next();
        let mut bhs = [0; BHS_BYTES];
        report.emit(&mut bhs);
        bench.post(&peer, bhs, &[]);
        assert_eq!(bench.heard(&peer), [Heard::Data(VICTIM, reported.to_vec(), true)]);
    }
}

/// SAM-5 §7.10: what is pending is told and stays; UADE DEPTH, sense key, ASC, ASCQ.
#[test]
fn a_query_of_asynchronous_events_tells_of_what_the_next_command_will_hear() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let mut peer = bench.adopt(&[(0, 1)], UPDATED);
    bench.manage(&peer, QueryAsynchronousEvent, 0);
    assert_eq!(answered(&bench, &peer), (TaskManagementResult::Succeeded, [0x16, 0x29, 0x00]));
    bench.command(&mut peer, 0, 1, [0; 16], 0, &[]);
    assert_eq!(bench.heard(&peer), [Heard::Status(1, CHECK_CONDITION)]);
    bench.manage(&peer, QueryAsynchronousEvent, 0);
    assert_eq!(answered(&bench, &peer), (TaskManagementResult::Complete, [0; 3]));
    let attentions = [UnitAttention::ModeParametersChanged, UnitAttention::CapacityChanged];
    bench.install_with(1, 2, disk(), attentions.map(|attention| (Whom::All, attention)).to_vec());
    bench.manage(&peer, QueryAsynchronousEvent, 0);
    assert_eq!(answered(&bench, &peer), (TaskManagementResult::Succeeded, [0x26, 0x2a, 0x09]));
}

#[test]
fn a_query_finds_no_command_that_is_over_that_never_came_or_that_is_elsewhere() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    bench.open(2, 8);
    let mut peer = bench.log_in(&[(0, 1), (1, 2)], UPDATED);
    for query in [QueryTask, QueryTaskSet] {
        // `manage` says that the command before it had the number before its own: nothing is taken for received.
        bench.manage(&peer, query, VICTIM);
        assert_eq!(answered(&bench, &peer).0, TaskManagementResult::Complete);
    }
    bench.write(&mut peer, 1, VICTIM, 4096, &[]);
    for query in [QueryTask, QueryTaskSet] {
        bench.manage(&peer, query, VICTIM);
        assert_eq!(answered(&bench, &peer).0, TaskManagementResult::Complete, "it is at LUN 1");
    }
    bench.serve_write(&mut peer, 0, VICTIM + 1, 4096);
    bench.manage(&peer, QueryTask, VICTIM + 1);
    assert_eq!(answered(&bench, &peer).0, TaskManagementResult::Complete);
    let mut bhs = [0; BHS_BYTES];
    TaskManagementRequest {
        immediate: true,
        function: QueryTaskSet,
        lun: lun_field(5),
        initiator_task_tag: InitiatorTaskTag(0x77),
        referenced_task_tag: InitiatorTaskTag::RESERVED,
        cmd_sn: peer.cmd_sn,
        expected_stat_sn: StatSn(0),
        referenced_cmd_sn: CmdSn(0),
        expected_data_sn: DataSn(0),
    }
    .emit(&mut bhs);
    bench.post(&peer, bhs, &[]);
    assert_eq!(answered(&bench, &peer).0, TaskManagementResult::LunDoesNotExist);
}

/// The lost nexus' RESERVE is released, and nobody hears of the reset before that is so on every shard (SPC-2 §5.5.1); what is
/// persistent stays (SPC-4 §5.13.1). The session ends at once (RFC 7144 §6.2), at recovery level 2 too.
#[test]
fn a_reset_of_the_nexus_releases_what_it_had_reserved_and_closes_its_session() {
    let mut bench = Bench::new();
    bench.open(1, 8);
    let keys = format!("{UPDATED}ErrorRecoveryLevel=2|");
    let first = bench.log_in(&[(0, 1)], &keys);
    let second = {
        let completed = completed_as(1, (Tsih(1), Cid(1)), "MaxRecvDataSegmentLength=262144|");
        let socket = bench.world.borrow().sockets.len();
        bench.mail(ToShard::Join { session: first.session, question: Box::new(question(completed)) });
        Peer { socket, session: first.session, cmd_sn: first.cmd_sn }
    };
    let other = bench.log_in(&[(0, 1)], UPDATED);
    bench.heard(&second);
    let mut reserved = disk();
    reserved.reservation = Reservation::Exclusive { holder: Some(NexusId(1)) };
    bench.install_with(1, 2, reserved, Vec::new());
    bench.world.borrow_mut().sent.clear();
    bench.manage(&first, ITNexusReset, 0);
    let sent = std::mem::take(&mut bench.world.borrow_mut().sent);
    let asked = sent.iter().find_map(|letter| match letter {
        ToControl::Change { ticket, nexus: NexusId(1), change: Change::Release, .. } => Some(*ticket),
        _ => None,
    });
    let ticket = asked.expect("what it had reserved is released");
    assert_eq!(bench.heard(&first), []);
    bench.mail(ToShard::Changed { ticket, outcome: Ok(()) });
    assert_eq!(bench.heard(&first), [Heard::Managed(TaskManagementResult::Complete)]);
    let is_closed = |peer: &Peer| bench.world.borrow().sockets[peer.socket].is_closed;
    assert_eq!([&first, &second, &other].map(is_closed), [true, true, false]);
    let sent = std::mem::take(&mut bench.world.borrow_mut().sent);
    let ends = sent.iter().any(|letter| {
        matches!(letter, ToControl::SessionEnded { session, reason: EndReason::NexusReset, .. } if *session == first.session)
    });
    assert!(ends && !sent.iter().any(|letter| matches!(letter, ToControl::Change { .. })));
}
