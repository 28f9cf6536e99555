//! One gateway, its initiators, and time: the run of a scenario from its first configuration to its clean end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portico_backstores::Medium;
use portico_control::core::{Control, Exit, Level, Mail, Order, Orders};
use portico_control::fence::ABSENT_HOLDER_PATIENCE;
use portico_control::ledger_store::LedgerStore;
use portico_iscsi::moment::Moment;
use portico_model::identity::{ShardId, UnitId};
use portico_ring::{Arena, ArenaOptions, Class, Wait};
use portico_shard::turn::{Settings, Shard, Turned};

use crate::disk::{Character, Disk};
use crate::driver::SimDriver;
use crate::faults::{PLAYER, Player};
use crate::folder::{LATER, STEPS, SimFolder};
use crate::history::{End, Oracle, Promise, Tally, Violation};
use crate::hub::{Desk, Event, Hub, LedgerWrite, Shared, Work};
use crate::initiator::Initiator;
use crate::mailbox::SimMailbox;
use crate::office::{self, Shape};
use crate::plant::Plant;
use crate::scenario::{AUDITOR, Cache, Kind, Scenario};

/// Events of one run: one that takes more goes round in circles.
const EVENTS_MAX: u64 = 3_000_000;
/// Virtual time of one run.
const TIME_MAX: Moment = Moment::from_millis(3_600_000);
/// How long a medium hangs at most: longer than control is patient with a change, shorter than initiators are.
const HANG_MAX: Duration = Duration::from_secs(30);

/// How late a ledger is at most that counts as written before it is.
const LATE_MAX: Duration = Duration::from_secs(1);

type SimShard = Shard<SimDriver, SimMailbox>;

/// What a run came to, when all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// Events.
    pub events: u64,
    /// Virtual milliseconds.
    pub milliseconds: u64,
    /// Times the gateway was started.
    pub starts: u64,
    /// Sessions that initiators tried to open.
    pub connections: u64,
    /// What was done.
    pub tally: Tally,
}

enum Stage {
    Working,
    Auditing,
    Ending,
}

/// See the module.
pub(crate) struct World {
    scenario: Scenario,
    hub: Shared,
    incarnation: u64,
    control: Control<Medium>,
    alarm: Moment,
    shards: Vec<Option<SimShard>>,
    arenas: Vec<Arena>,
    folder: SimFolder,
    ledgers: LedgerStore<SimFolder>,
    boot: u8,
    shape: Shape,
    /// The medium of each unit.
    opened: BTreeMap<UnitId, usize>,
    initiators: Vec<Initiator>,
    player: Option<Box<Player>>,
    stage: Stage,
    /// Told to end, to be started again.
    quiescing: bool,
    exit: Option<Exit>,
    /// The power is cut when so many events have happened.
    cut_at: Option<u64>,
    story: Story,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let mut hub = Hub::new(scenario.seed, scenario.plant);
        hub.operations_max = scenario.operations_max;
        hub.ports = scenario.initiators.len();
        if scenario.media_slow {
            hub.pace = hub.pace.with_slow_media();
        }
        for unit in &scenario.units {
            let (page_cache, cache, memory) = match unit.kind {
                Kind::File { cache, direct } => (!direct, cache, false),
                Kind::Memory | Kind::Null => (false, Cache::NonVolatile, true),
            };
            hub.disks.push(Disk::new(Character {
                sectors: unit.sectors,
                block_sectors: unit.block_sectors,
                memory,
                nonvolatile: cache == Cache::NonVolatile,
                page_cache,
                thin: unit.thin,
                trouble_one_in: unit.trouble_one_in,
                registers: unit.registers,
            }));
            let promise = Promise {
                volatile_cache: cache == Cache::Back,
                keeps: unit.kind != Kind::Null,
                registers: unit.registers,
            };
            hub.history.add_unit(unit.sectors, promise);
        }
        let initiators: Vec<Initiator> = scenario
            .initiators
            .iter()
            .enumerate()
            .map(|(number, habits)| Initiator::new(number, *habits))
            .collect();
        for initiator in &initiators {
            let after = hub.delay(Duration::from_secs(1));
            hub.plan(after, Event::Initiator(initiator.number));
        }
        let player = scenario.play.clone().map(|play| Box::new(Player::new(play)));
        if player.is_some() {
            hub.plan(Duration::from_millis(1), Event::Initiator(PLAYER));
        }
        hub.desks.resize_with(scenario.shards, Desk::default);
        hub.plan(scenario.calm, Event::Mischief);
        let folder = SimFolder::new(scenario.plant == Some(Plant::LedgerNotSynced));
        let mut world = Self {
            ledgers: LedgerStore::new(folder.clone(), [1; 16]),
            control: Control::new(scenario.shards, [1; 16]),
            scenario,
            hub: Rc::new(RefCell::new(hub)),
            incarnation: 0,
            alarm: Moment::NEVER,
            shards: Vec::new(),
            arenas: Vec::new(),
            folder,
            boot: 1,
            shape: Shape::default(),
            opened: BTreeMap::new(),
            initiators,
            player,
            stage: Stage::Working,
            quiescing: false,
            exit: None,
            cut_at: None,
            story: Story::default(),
        };
        world.start();
        world
    }

    /// The power is cut after so many events, whatever else there is of mischief.
    pub(crate) const fn with_power_cut(mut self, at: Option<u64>) -> Self {
        self.cut_at = at;
        self
    }

    /// A new process.
    fn start(&mut self) {
        self.incarnation += 1;
        {
            let hub = &mut *self.hub.borrow_mut();
            hub.history.begins_with(self.scenario.units.len() - self.shape.units_hidden);
            hub.plan(ABSENT_HOLDER_PATIENCE, Event::PatienceEnds { incarnation: self.incarnation });
        }
        self.opened.clear();
        let boot = [self.boot; 16];
        self.ledgers = LedgerStore::new(self.folder.clone(), boot);
        self.control = Control::new(self.scenario.shards, boot);
        self.alarm = Moment::NEVER;
        let options = match self.scenario.arena_small {
            true => ArenaOptions { small: 128, medium: 16, large: 8 },
            false => ArenaOptions { small: 512, medium: 64, large: 24 },
        };
        for number in 0..self.scenario.shards {
            let arena = Arena::new(options).expect("the system has some megabytes");
            let driver = SimDriver::new(number, arena.clone(), Rc::clone(&self.hub));
            let mailbox = SimMailbox::new(number, Rc::clone(&self.hub));
            let shard = ShardId(u16::try_from(number).expect("few shards"));
            let (shards, spin) = (self.scenario.shards, Duration::ZERO);
            let settings = Settings { shard, shards, arena: options, spin, measures: false };
            self.shards.push(Some(Shard::new(settings, driver, mailbox)));
            self.arenas.push(arena);
            self.hub.borrow_mut().wake_shard(number);
        }
        self.apply();
    }

    fn apply(&mut self) {
        let configuration = Box::new(office::configuration(&self.scenario, self.shape));
        self.tell(Mail::Apply { configuration, force: false });
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Story, Violation> {
        loop {
            self.cut_where_told();
            if self.exit.is_some() {
                break;
            }
            self.story.events += 1;
            let event = self.hub.borrow_mut().next_event();
            let now = self.hub.borrow().now;
            self.story.milliseconds = now.since(Moment::ORIGIN).as_millis().try_into().unwrap_or(u64::MAX);
            match event {
                Some(event) if self.story.events < EVENTS_MAX && now < TIME_MAX => {
                    self.happen(event);
                    self.take_chance();
                }
                _ => self.violate(Oracle::Life, self.stuck()),
            }
            if let Some(violation) = self.hub.borrow().history.violation() {
                return Err(violation.clone());
            }
            self.go_on();
            if !matches!(self.stage, Stage::Ending)
                && let Some(exit) = self.exit.take()
            {
                self.come_back(exit);
            }
        }
        self.judge_end();
        self.story.connections = self.hub.borrow().connections.len() as u64;
        self.story.starts = self.incarnation;
        self.story.tally = self.hub.borrow().history.tally;
        let violation = self.hub.borrow().history.violation().cloned();
        violation.map_or(Ok(self.story), Err)
    }

    fn stuck(&self) -> String {
        let waiting: Vec<usize> =
            self.initiators.iter().filter(|initiator| !initiator.is_gone()).map(|one| one.number).collect();
        format!("the world does not come to an end; initiators {waiting:?} are not through")
    }

    fn violate(&self, oracle: Oracle, what: String) {
        self.hub.borrow_mut().history.violate(oracle, what);
    }

    // --- Events ------------------------------------------------------------------------------------------------

    fn happen(&mut self, event: Event) {
        tracing::trace!(now = self.hub.borrow().now.0, ?event);
        match event {
            Event::Turn { shard, version } => self.turn(shard, version),
            Event::Control => self.control_turn(),
            Event::Helper { incarnation, mail } => {
                if incarnation == self.incarnation {
                    self.tell(*mail);
                }
            }
            Event::Arrive { connection, at } => self.hub.borrow_mut().arrive(connection, at),
            Event::Transmit { shard, operation } => self.hub.borrow_mut().transmit(shard, operation),
            Event::Stage { shard, operation } => self.hub.borrow_mut().stage(shard, operation),
            Event::LateSync { disk, sequence } => self.hub.borrow_mut().disks[disk].sync(sequence),
            Event::Initiator(PLAYER) => {
                let player = self.player.as_mut().expect("it is told only where it is");
                player.wake(&mut self.hub.borrow_mut());
            }
            Event::Initiator(number) => self.initiators[number].wake(&mut self.hub.borrow_mut()),
            Event::Mischief => self.mischief(),
            Event::Restore => self.restore(),
            Event::Ledger { incarnation, write } if incarnation == self.incarnation => {
                self.write_ledger(*write);
            }
            Event::Kill { incarnation } if incarnation == self.incarnation => self.kill(),
            Event::PatienceEnds { incarnation } if incarnation == self.incarnation => {
                self.hub.borrow_mut().history.patience_ends();
            }
            Event::Ledger { .. } => self.hub.borrow_mut().history.tally.ledgers_cut += 1,
            Event::Kill { .. } | Event::PatienceEnds { .. } => {}
        }
    }

    fn turn(&mut self, number: usize, version: u64) {
        {
            let desk = &mut self.hub.borrow_mut().desks[number];
            if desk.turn_version != version {
                return;
            }
            desk.turn_at = None;
        }
        let Some(shard) = &mut self.shards[number] else { return };
        let turned = shard.turn().expect("a simulated ring never fails");
        if turned == Turned::Stopped {
            self.shards[number] = None;
            return;
        }
        let hub = &mut *self.hub.borrow_mut();
        hub.find_dropped();
        let desk = &hub.desks[number];
        let busy = !desk.done.is_empty() || !desk.letters.is_empty();
        match desk.wait.expect("a turn ends with a wait") {
            _ if busy => hub.wake_shard(number),
            Wait::Poll => hub.wake_shard(number),
            Wait::Until(time) => hub.turn_at(number, hub.now + time),
            Wait::Forever => {}
        }
    }

    // --- Control -----------------------------------------------------------------------------------------------

    fn control_turn(&mut self) {
        let letters = 1 + self.hub.borrow_mut().random.below(8);
        for _ in 0..letters {
            let letter = self.hub.borrow_mut().control_mail.pop_front();
            let Some(letter) = letter else { break };
            self.tell(Mail::FromShard(letter));
        }
        let now = self.hub.borrow().now;
        if self.control.next_deadline() <= now {
            let mut orders = Orders::new();
            self.control.expire(now, &mut orders);
            self.carry_out(orders);
        }
        let hub = &mut *self.hub.borrow_mut();
        hub.find_dropped();
        if !hub.control_mail.is_empty() {
            hub.wake_control();
        }
    }

    fn tell(&mut self, mail: Mail<Medium>) {
        let now = self.hub.borrow().now;
        let mut orders = Orders::new();
        self.control.handle(mail, now, &mut orders);
        self.carry_out(orders);
    }

    fn carry_out(&mut self, mut orders: Orders<Medium>) {
        while !orders.is_empty() {
            for order in std::mem::take(&mut orders) {
                self.carry_out_one(order, &mut orders);
            }
        }
        let deadline = self.control.next_deadline();
        if deadline != self.alarm {
            self.alarm = deadline;
            if deadline != Moment::NEVER {
                self.hub.borrow_mut().plan_at(deadline, Event::Control);
            }
        }
    }

    fn carry_out_one(&mut self, order: Order<Medium>, orders: &mut Orders<Medium>) {
        let shared = Rc::clone(&self.hub);
        let hub = &mut *shared.borrow_mut();
        match order {
            Order::ToShard(shard, letter) => {
                tracing::debug!(now = hub.now.0, %shard, ?letter, "from control");
                let shard = usize::from(shard.0);
                hub.desks[shard].letters.push_back(letter);
                hub.wake_shard(shard);
            }
            Order::OpenDevice { unit, device } => {
                self.opened.insert(unit, office::number_of(&device));
                let result = office::open(hub, &self.scenario, &device);
                self.help(hub, Mail::DeviceOpened { unit, result });
            }
            Order::ReadLedger { unit, ledger: device } => {
                let result = self.ledgers.read(&device).map_err(|fault| fault.to_string());
                if let Err(fault) = &result {
                    let what = format!("the ledger of {device} after {} starts: {fault}", self.incarnation);
                    hub.history.violate(Oracle::Durability, what);
                }
                self.help(hub, Mail::LedgerRead { unit, result });
            }
            Order::WriteLedger { unit, ledger: device, content } => {
                self.begin_ledger(hub, LedgerWrite::new(unit, device, content));
            }
            Order::Bind(portal) => {
                let result = Ok(office::bind(hub, portal));
                self.control.handle(Mail::Bound { portal, result }, hub.now, orders);
            }
            Order::Exit(exit) => self.exit = Some(exit),
            Order::Log(Level::Error, line)
                if self.scenario.units.iter().all(|unit| unit.trouble_one_in == 0) =>
            {
                if !line.contains("does not want to yet") && !line.contains("a simulated fault") {
                    hub.history.violate(Oracle::Life, line);
                }
            }
            Order::CloseDevice { unit, .. } => {
                let number = self.opened[&unit];
                hub.disks[number].is_open = false;
                if hub.disks[number].take_loss() {
                    hub.history.forgive(number);
                }
            }
            Order::ResizeDevice { unit, device, medium } => {
                let result = medium.resize(device.handler.size_bytes());
                self.help(hub, Mail::DeviceResized { unit, result });
            }
            Order::SurveySpace { .. } | Order::Answer(..) | Order::Log(..) | Order::Ready(_) => {}
        }
    }

    fn help(&self, hub: &mut Hub, mail: Mail<Medium>) {
        let after = hub.delay(hub.pace.helper);
        hub.plan(after, Event::Helper { incarnation: self.incarnation, mail: Box::new(mail) });
    }

    // --- Ledgers -----------------------------------------------------------------------------------------------

    /// A ledger is to be written: some steps now, the others later, if nothing comes between.
    fn begin_ledger(&mut self, hub: &mut Hub, mut write: LedgerWrite) {
        let incarnation = self.incarnation;
        let mut after = hub.delay(hub.pace.helper);
        write.rests_at = hub.random.index(STEPS + 1);
        let trouble = self.scenario.ledger_trouble_one_in;
        let working = matches!(self.stage, Stage::Working);
        if working && trouble > 0 && hub.random.chance(1, trouble) {
            hub.history.tally.ledger_faults += 1;
            if hub.random.chance(1, 3) {
                after = hub.delay(HANG_MAX);
            } else {
                write.fails = Some((hub.random.index(STEPS), hub.random.chance(1, 2)));
            }
        }
        if working && self.scenario.mischief.kills > 0 && hub.random.chance(1, 3) {
            // Whoever has heard of it by then was promised it.
            self.scenario.mischief.kills -= 1;
            let soon = hub.pace.helper / 5 * u32::try_from(hub.random.below(11)).expect("few");
            hub.plan(soon, Event::Kill { incarnation });
        }
        if hub.plant == Some(Plant::LedgerLate) {
            let mail = Mail::LedgerWritten { unit: write.unit, result: Ok(()) };
            after = hub.delay(LATE_MAX);
            hub.plan(Duration::ZERO, Event::Helper { incarnation, mail: Box::new(mail) });
        }
        hub.plan(after, Event::Ledger { incarnation, write: Box::new(write) });
    }

    /// Makes some steps of a write.
    fn write_ledger(&mut self, mut write: LedgerWrite) {
        let end = if write.made < write.rests_at { write.rests_at } else { STEPS };
        self.folder.begin(write.made..end, write.fails);
        let result = self.ledgers.write(&write.device, &write.content);
        let hub = &mut *self.hub.borrow_mut();
        match result {
            Err(error) if error.kind() == LATER => {
                write.made = end;
                let after = hub.delay(hub.pace.helper);
                let incarnation = self.incarnation;
                hub.plan(after, Event::Ledger { incarnation, write: Box::new(write) });
            }
            _ if hub.plant == Some(Plant::LedgerLate) => {}
            result => {
                let result = result.map_err(|error| error.to_string());
                self.help(hub, Mail::LedgerWritten { unit: write.unit, result });
            }
        }
    }

    // --- Mischief ----------------------------------------------------------------------------------------------

    fn mischief(&mut self) {
        if !matches!(self.stage, Stage::Working) || self.scenario.mischief.left() == 0 {
            return;
        }
        let (what, disk, after) = {
            let hub = &mut *self.hub.borrow_mut();
            let units = hub.disks.len();
            let after = hub.delay(self.scenario.calm * 8);
            hub.plan(after + self.scenario.calm / 8, Event::Mischief);
            (hub.random.below(5), hub.random.index(units), hub.delay(HANG_MAX))
        };
        let mischief = &mut self.scenario.mischief;
        let left = match what {
            0 => &mut mischief.hangs,
            1 => &mut mischief.power_cuts,
            2 => &mut mischief.kills,
            3 => &mut mischief.restarts,
            _ => &mut mischief.reloads,
        };
        if *left == 0 {
            return;
        }
        *left -= 1;
        match what {
            0 => {
                let hub = &mut *self.hub.borrow_mut();
                hub.disks[disk].hangs_until = hub.now + after;
                hub.history.tally.hangs += 1;
            }
            1 => self.cut_power(),
            2 => self.kill(),
            3 if !self.quiescing => {
                self.hub.borrow_mut().history.tally.restarts += 1;
                self.quiescing = true;
                self.tell(Mail::Shutdown);
            }
            3 => {}
            _ => {
                self.hub.borrow_mut().history.tally.reloads += 1;
                self.reload();
            }
        }
    }

    /// Where something was promised just now, this is the moment to see whether it is kept.
    fn take_chance(&mut self) {
        let Some(end) = self.hub.borrow_mut().opportune.take() else { return };
        let left = &mut self.scenario.mischief.chances;
        let works = matches!(self.stage, Stage::Working);
        if !works || *left == 0 || !self.hub.borrow_mut().random.chance(1, 2) {
            return;
        }
        *left -= 1;
        match end {
            End::PowerCut => self.cut_power(),
            End::Killed | End::Clean => self.kill(),
        }
    }

    /// Every state that the media may be left in is judged, and from one of them the gateway has to go on.
    fn cut_where_told(&mut self) {
        if self.cut_at.take_if(|at| *at == self.story.events).is_some() {
            self.exit = None;
            if matches!(self.stage, Stage::Ending) {
                // It is started again, and everything is read again.
                self.stage = Stage::Working;
            }
            self.cut_power();
        }
    }

    fn cut_power(&mut self) {
        self.hub.borrow_mut().history.tally.power_cuts += 1;
        self.crash(End::PowerCut);
    }

    fn kill(&mut self) {
        self.hub.borrow_mut().history.tally.kills += 1;
        self.crash(End::Killed);
    }

    /// The configuration is another one for a while.
    fn reload(&mut self) {
        {
            let hub = &mut *self.hub.borrow_mut();
            self.shape.window = [4, 32, 128][hub.random.index(3)];
            // What is in memory would be gone with its unit.
            let files = self.scenario.units.iter().skip(1).rev();
            let hideable = files.take_while(|unit| unit.kind != Kind::Memory).count();
            self.shape.units_hidden = hub.random.index(hideable + 1);
            for unit in self.scenario.units.len() - self.shape.units_hidden..self.scenario.units.len() {
                hub.history.leaves(unit);
            }
            self.shape.enabled = hub.random.chance(3, 4);
            let after = hub.delay(self.scenario.calm * 8);
            hub.plan(after, Event::Restore);
        }
        self.apply();
    }

    /// The configuration is what it was.
    fn restore(&mut self) {
        self.shape = Shape::default();
        self.apply();
    }

    /// It has ended as it was told to, and is started again.
    fn come_back(&mut self, exit: Exit) {
        match exit {
            Exit::Clean => self.crash(End::Clean),
            Exit::Unclean(reason) => {
                self.judge_exit(&reason);
                self.crash(End::PowerCut);
            }
        }
    }

    /// A medium that fails may keep the gateway from flushing; nothing else may.
    fn judge_exit(&self, reason: &str) {
        let troubled = self.scenario.units.iter().any(|unit| unit.trouble_one_in > 0);
        if !(troubled && reason.contains("flushed")) {
            self.violate(Oracle::Life, format!("the gateway ended uncleanly: {reason}"));
        }
    }

    /// The process is gone.
    fn crash(&mut self, end: End) {
        self.quiescing = false;
        self.shards.clear();
        self.arenas.clear();
        {
            let hub = &mut *self.hub.borrow_mut();
            if end != End::PowerCut {
                hub.history.outlives();
            }
            hub.abandon_operations();
            hub.control_mail.clear();
            for number in 0..hub.connections.len() {
                hub.cut(number);
            }
            hub.judge_crash(end);
            if end == End::PowerCut {
                self.folder.cut_power(&mut hub.random);
            }
        }
        self.boot += u8::from(end == End::PowerCut);
        self.start();
    }

    // --- The end -----------------------------------------------------------------------------------------------

    /// When all initiators are through, somebody reads everything; then the gateway ends.
    fn go_on(&mut self) {
        let plays = self.player.as_ref().is_some_and(|player| !player.is_gone());
        if plays || !self.initiators.iter().all(Initiator::is_gone) {
            return;
        }
        let number = self.initiators.len();
        match self.stage {
            Stage::Working => {
                self.stage = Stage::Auditing;
                self.restore();
                self.initiators.push(Initiator::new(number, AUDITOR));
                self.hub.borrow_mut().plan(Duration::from_millis(1), Event::Initiator(number));
            }
            Stage::Auditing => {
                self.stage = Stage::Ending;
                self.tell(Mail::Shutdown);
            }
            Stage::Ending => {}
        }
    }

    fn judge_end(&mut self) {
        // The shards stop.
        for number in 0..self.shards.len() {
            for _ in 0..100 {
                let version = self.hub.borrow().desks[number].turn_version;
                self.turn(number, version);
            }
            if self.shards[number].is_some() {
                self.violate(Oracle::Life, format!("shard {number} does not stop"));
            }
        }
        let exit = self.exit.take();
        if let Some(Exit::Unclean(reason)) = &exit {
            self.judge_exit(reason);
        }
        self.hub.borrow_mut().drop_operations();
        for (number, arena) in self.arenas.iter().enumerate() {
            for class in Class::ALL {
                let used = arena.usage(class).used;
                if used > 0 {
                    let what = format!("{used} {class:?} buffers of shard {number} are not given back");
                    self.violate(Oracle::Leaks, what);
                }
            }
        }
        if let Some(Exit::Clean) = exit {
            let hub = &mut *self.hub.borrow_mut();
            // Of a reply before the sync it is the power cuts that are to find out.
            while let Some(event) = hub.next_event() {
                if let Event::LateSync { disk, sequence } = event {
                    hub.disks[disk].sync(sequence);
                }
            }
            hub.judge_crash(End::Clean);
        }
    }
}

impl LedgerWrite {
    const fn new(unit: UnitId, device: Arc<str>, content: Vec<u8>) -> Self {
        Self { unit, device, content, made: 0, rests_at: 0, fails: None }
    }
}

impl Hub {
    /// What a process that is gone had in flight: writes that the kernel had begun may end, in whole or in part.
    fn abandon_operations(&mut self) {
        for shard in 0..self.desks.len() {
            for (_, operation) in std::mem::take(&mut self.desks[shard].operations) {
                match operation.work {
                    Work::Transfer(mut transfer) if transfer.writes => {
                        for part in transfer.take_stages() {
                            if self.random.chance(1, 2) {
                                self.move_part(&mut transfer, part);
                            }
                        }
                    }
                    Work::Clear(mut clear) => {
                        for part in clear.take_stages() {
                            if self.random.chance(1, 2) {
                                self.clear_part(clear.disk, part);
                            }
                        }
                    }
                    _ => {}
                }
            }
            let version = self.desks[shard].turn_version;
            self.desks[shard] = Desk { turn_version: version, ..Desk::default() };
        }
    }

    /// What was in flight when the last shard stopped: accepts and receives.
    fn drop_operations(&mut self) {
        for desk in &mut self.desks {
            desk.operations.clear();
            desk.done.clear();
            desk.letters.clear();
        }
    }

    fn judge_crash(&mut self, end: End) {
        for number in 0..self.disks.len() {
            if self.disks[number].character.memory {
                self.disks[number].restart();
                self.history.forget(number, end);
                continue;
            }
            if self.disks[number].take_loss() {
                self.history.forgive(number);
            }
            if end == End::Killed {
                self.disks[number].restart();
            } else {
                let Self { history, disks, .. } = self;
                for (sector, content) in disks[number].outcomes() {
                    history.judge_outcome(number, sector, content, end);
                }
                self.disks[number].cut_power(&mut self.random);
            }
            let Self { history, disks, .. } = self;
            history.judge_survivors(number, disks[number].contents(), end);
        }
    }
}
